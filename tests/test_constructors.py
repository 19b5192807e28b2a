"""Subclasses of the estimator with constructors of their own."""

import pickle

import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

from easyclf import Estimator


class Closed(Estimator):
    """Its constructor has its own parameters alone."""

    def __init__(self, hidden=8, lr=0.01):
        super().__init__(module__hidden=(hidden,), lr=lr, epochs=2, random_state=0)
        self.hidden = hidden


class Open(Estimator):
    """Its constructor hands on what it does not know."""

    def __init__(self, module=None, *, foo=1, **forwarded):
        super().__init__(module, **forwarded)
        self.foo = foo


class Fixed(Open):
    """It sets a parameter of the estimator, by no parameter of its own."""

    def __init__(self, module=None, **forwarded):
        super().__init__(module, random_state=0, **forwarded)


class Narrower(Closed):
    """A subclass of a subclass, which sets one of its parameters."""

    def __init__(self, bar=1, **keywords):
        super().__init__(hidden=3, **keywords)
        self.bar = bar


class Mixin:
    def __init__(self, *, baz=0, **keywords):
        super().__init__(**keywords)
        self.baz = baz


class Mixed(Mixin, Estimator):
    pass


def hidden_of(clf):
    return clf.module_.layers[0].out_features


def test_subclass_has_the_parameters_of_its_constructor(blobs):
    clf = Closed(hidden=5).fit(*blobs)

    assert clf.get_params() == {"hidden": 5, "lr": 0.01}
    assert (hidden_of(clf), clf.n_iter_) == (5, 2)


def test_clone_of_a_subclass_is_made_by_its_constructor(blobs):
    clf = clone(Closed(hidden=5, lr=0.1)).fit(*blobs)

    assert (hidden_of(clf), clf.lr) == (5, 0.1)


def test_search_over_a_parameter_of_a_subclass_reaches_the_module(blobs):
    search = GridSearchCV(Closed(), {"hidden": [2, 3]}, cv=2).fit(*blobs)

    assert hidden_of(search.best_estimator_) == search.best_params_["hidden"]


def test_parameters_of_the_estimator_are_set_for_one_fit_of_a_subclass(blobs):
    clf = Closed().fit(*blobs, epochs=1, hidden=4, module__dropout=0.5)

    assert (clf.n_iter_, hidden_of(clf)) == (1, 4)
    assert (clf.epochs, clf.hidden, clf.module__hidden) == (2, 8, (8,))
    assert not hasattr(clf, "module__dropout")


@pytest.mark.parametrize("name", ["module__hidden", "epochs", "hiden"])
def test_closed_constructor_has_no_other_parameters(name):
    with pytest.raises(ValueError, match=f"Invalid parameter '{name}' for estimator Closed"):
        Closed().set_params(**{name: 1})


def test_every_parameter_of_an_open_constructor_is_cloned():
    clf = Open(foo=2, lr=0.5, module__hidden=(3,))

    copied = clone(clf)

    assert copied.get_params() == clf.get_params()
    assert (copied.foo, copied.lr, copied.module__hidden) == (2, 0.5, (3,))
    assert repr(clf) == "Open(foo=2, lr=0.5, module__hidden=(3,))"


def test_open_constructor_sets_its_own_and_forwarded_parameters(blobs):
    clf = Open().set_params(foo=3, epochs=1, module__hidden=(2,)).fit(*blobs)

    assert (clf.foo, clf.n_iter_, hidden_of(clf)) == (3, 1, 2)
    assert clone(clf).module__hidden == (2,)


def test_what_a_constructor_sets_itself_is_no_parameter():
    clf = clone(Fixed(foo=2))

    assert "random_state" not in clf.get_params()
    assert (clf.random_state, clf.foo) == (0, 2)


def test_subclass_of_a_subclass_adds_parameters(blobs):
    clf = clone(Narrower(bar=2, lr=0.1)).fit(*blobs)

    assert clf.get_params() == {"bar": 2, "lr": 0.1}
    assert hidden_of(clf) == 3


def test_constructor_of_a_mixin_counts():
    assert clone(Mixed(baz=2, lr=0.5)).get_params().items() >= {"baz": 2, "lr": 0.5}.items()


def test_refused_set_params_leaves_a_subclass_as_it_was(blobs):
    class Strict(Closed):
        def __init__(self, hidden=8):
            super().__init__(hidden)
            if hidden < 1:
                raise ValueError("too narrow")
            self.hidden = hidden

    clf = Strict().fit(*blobs)

    with pytest.raises(ValueError, match="too narrow"):
        clf.set_params(hidden=0)
    assert (clf.hidden, clf.module__hidden, hidden_of(clf)) == (8, (8,), 8)


def test_set_params_keeps_what_was_learned(blobs):
    clf = Closed().fit(*blobs).set_params(hidden=3)

    assert hidden_of(clf) == 8
    assert hidden_of(pickle.loads(pickle.dumps(clf)).fit(*blobs)) == 3


def test_subclass_passes_the_checks_of_parameters():
    failed = check_estimator(
        Open(precision="float64", epochs=2), on_skip=None, on_fail=None, legacy=False
    )

    assert [result["check_name"] for result in failed if result["status"] == "failed"] == []


# Refusing


def test_constructor_with_nameless_arguments_is_refused_with_its_class():
    with pytest.raises(TypeError, match=r"A.__init__ takes `\*args` by position alone"):

        class A(Estimator):
            def __init__(self, *args):
                super().__init__(*args)


def test_constructor_that_forgets_an_argument_is_refused():
    class A(Estimator):
        def __init__(self, hidden=8):
            super().__init__(module__hidden=(hidden,))

    with pytest.raises(
        TypeError, match=r"takes `hidden` and does not keep it; write `self.hidden = hidden`"
    ):
        A()


def test_constructor_that_leaves_the_estimators_out_is_refused():
    class A(Estimator):
        def __init__(self, hidden=8):
            self.hidden = hidden

    with pytest.raises(TypeError, match=r"A.__init__ does not call `super\(\).__init__`"):
        A()


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("train_step", "use a `Callback`"),
        ("get_loss", "use `loss`, a function"),
        ("configure_optimizers", "use `optimizer`, a function"),
    ],
)
def test_methods_that_are_never_called_are_refused_with_their_class(method, advice):
    with pytest.raises(TypeError, match=f"A has `{method}`, which easyclf never calls; {advice}"):
        type("A", (Estimator,), {method: lambda self: None})
