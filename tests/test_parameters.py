"""Parameters: `module__*` and its kin are parameters of the estimator like any other."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from easyclf import Estimator
from easyclf.parameters import is_forwarded

FORWARDED = {"module__hidden": (4,), "optimizer__weight_decay": 0.1, "loss__label_smoothing": 0.2}


@pytest.fixture
def clf():
    return Estimator(epochs=3, **FORWARDED)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("module__hidden", True),
        ("optimizer__lr", True),
        ("loss__weight", True),
        ("module__a__b", True),
        ("module__", False),
        ("module", False),
        ("modul__hidden", False),
        ("lr", False),
        ("__hidden", False),
    ],
)
def test_forwarded_names_have_a_prefix_and_a_rest(name, answer):
    assert is_forwarded(name) is answer


# CodeReading


@pytest.mark.parametrize("deep", [True, False])
def test_forwarded_parameters_are_shown(clf, deep):
    shown = clf.get_params(deep=deep)

    assert {name: shown[name] for name in FORWARDED} == FORWARDED
    assert set(shown) == set(inspect.signature(Estimator).parameters) | set(FORWARDED)


def test_parameters_are_attributes(clf):
    assert (clf.epochs, clf.module__hidden, clf.loss__label_smoothing) == (3, (4,), 0.2)


def test_constructor_keeps_what_it_is_given():
    """Checks wait for `fit`, as scikit-learn wants."""
    value = object()

    clf = Estimator(value, lr=value, module__hidden=value)

    assert clf.module is clf.lr is clf.module__hidden is value


def test_signature_shows_no_star_keywords():
    assert not [
        parameter
        for parameter in inspect.signature(Estimator).parameters.values()
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]


def test_repr_shows_what_was_given(clf):
    text = repr(clf)

    assert "epochs=3" in text
    assert "module__hidden=(4,)" in text
    assert "batch_size" not in text


# Writing


def test_forwarded_parameters_can_be_set(clf):
    answer = clf.set_params(module__hidden=(5,), module__dropout=0.5, lr=0.1)

    assert answer is clf
    assert (clf.module__hidden, clf.module__dropout, clf.lr) == ((5,), 0.5, 0.1)


def test_nothing_to_set_sets_nothing(clf):
    before = clf.get_params()

    assert clf.set_params().get_params() == before


def test_set_parameters_count_from_the_next_fit_on():
    X, y = np.eye(3), [0, 1, 2]
    clf = Estimator(epochs=1, module__hidden=(4,)).fit(X, y)
    before = clf.predict_proba(X)

    clf.set_params(module__hidden=(7,))

    assert clf.predict_proba(X).tolist() == before.tolist()
    assert clf.fit(X, y).module_.layers[0].out_features == 7


def test_forwarded_parameters_of_one_fit_are_forgotten_after_it():
    X, y = np.eye(3), [0, 1, 2]
    clf = Estimator(epochs=1, module__hidden=(4,))

    clf.fit(X, y, module__hidden=(7,), module__dropout=0.5)

    assert clf.module_.layers[0].out_features == 7
    assert clf.get_params()["module__hidden"] == (4,)
    assert "module__dropout" not in clf.get_params()


# Refusing


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("epcohs", "epochs"),
        ("batchsize", "batch_size"),
        ("leraning_rate", None),
        ("optimiser", "optimizer"),
        ("modul__hidden", "module__hidden"),
        ("optimiser__momentum", "optimizer__momentum"),
        ("zzz", None),
    ],
)
def test_unknown_name_is_refused_at_construction_with_the_nearest(typed, nearest):
    suggestion = f"; did you mean .*`{nearest}`" if nearest else ""

    with pytest.raises(TypeError, match=f"Estimator has no parameter `{typed}`{suggestion}"):
        Estimator(**{typed: 5})


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("epcohs", "epochs"), ("modul", "module"), ("module__", None), ("modul__hidden", None)],
)
def test_unknown_name_is_refused_by_set_params_with_the_nearest(clf, typed, nearest):
    suggestion = f"did you mean .*`{nearest}`" if nearest else "Valid parameters are"

    with pytest.raises(ValueError, match=f"Invalid parameter '{typed}' for .*{suggestion}"):
        clf.set_params(**{typed: 5})


def test_refused_set_params_sets_nothing(clf):
    before = clf.get_params()

    with pytest.raises(ValueError, match="epcohs"):
        clf.set_params(lr=0.5, module__hidden=(9,), epcohs=5)

    assert clf.get_params() == before


def test_unknown_name_is_refused_by_fit_with_the_nearest(clf):
    before = clf.get_params()

    with pytest.raises(TypeError, match="unknown argument `epcohs`; did you mean `epochs`"):
        clf.fit(np.eye(3), [0, 1, 2], epcohs=5)

    assert clf.get_params() == before


def test_only_the_module_is_given_by_position():
    with pytest.raises(TypeError, match="positional"):
        Estimator(nn.Linear, "cross_entropy")


# scikit-learn's own tools


@pytest.mark.parametrize(
    "copied",
    [clone, copy.copy, copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))],
    ids=["clone", "copy", "deepcopy", "pickle"],
)
def test_copies_have_the_same_parameters(clf, copied):
    other = copied(clf)

    assert other is not clf
    assert other.get_params() == clf.get_params()


def test_clone_of_a_fitted_estimator_is_not_fitted(clf):
    clf.fit(np.eye(3), [0, 1, 2])

    assert not hasattr(clone(clf), "module_")


def test_grid_search_finds_forwarded_parameters():
    X, y = np.tile(np.eye(2), (6, 1)), [0, 1] * 6
    grid = {"module__hidden": [(), (4,)], "optimizer__weight_decay": [0.0, 1.0]}

    search = GridSearchCV(Estimator(epochs=2, random_state=0), grid, cv=2).fit(X, y)

    assert set(search.best_params_) == set(grid)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.module__hidden == search.best_params_["module__hidden"]


def test_pipeline_reaches_forwarded_parameters():
    pipeline = make_pipeline(StandardScaler(), Estimator(epochs=1))

    pipeline.set_params(estimator__module__hidden=(6,)).fit(np.eye(3), [0, 1, 2])

    assert pipeline.get_params()["estimator__module__hidden"] == (6,)
    assert pipeline[-1].module_.layers[0].out_features == 6


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learning_rate", "lr"),
        ("max_iter", "epochs"),
        ("hidden_layer_sizes", "module__hidden"),
        ("optimizer_weight_decay", "optimizer__weight_decay"),
        ("iterator_train__shuffle", "shuffle"),
        ("iterator_train__num_workers", "loader__num_workers"),
        ("criterion__weight", "loss__weight"),
        ("modulehidden", "module__hidden"),
        ("optimizers", "optimizer"),
        ("gpu", "device"),
    ],
)
def test_names_of_other_libraries_are_known(name, meant):
    with pytest.raises(TypeError, match=f"did you mean `{meant}`"):
        Estimator(**{name: 1})
    with pytest.raises(ValueError, match=f"did you mean `{meant}`"):
        Estimator().set_params(**{name: 1})
