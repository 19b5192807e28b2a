"""Validation: what the user typed, and one voice for the errors."""

import ast
import functools
import inspect
import sys
import warnings
from pathlib import Path

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from easyclf import Estimator
from easyclf.checks import (
    check_keywords,
    did_you_mean,
    import_optional,
    keyword_names,
    name_of,
    warn_user,
)


def make(width, depth=2, *, dropout=0.0):
    """A factory with one argument that must be given."""


class Net:
    def __init__(self, width, depth=2):
        pass


# Nearest names


@pytest.mark.parametrize(
    ("typed", "known", "clause"),
    [
        ("epcohs", ["lr", "epochs"], "; did you mean `epochs`?"),
        ("batchsize", ["batch_size", "epochs"], "; did you mean `batch_size`?"),
        ("adamm", {"adam": 1, "sgd": 2, "adamw": 3}, "; did you mean `adam` or `adamw`?"),
        ("quantum", ["adam", "sgd"], "."),
        ("lr", [], "."),
    ],
)
def test_nearest_known_names_are_suggested(typed, known, clause):
    assert did_you_mean(typed, known) == clause


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Net, "Net"),
        (make, "make"),
        (Net(1), "Net"),
        (nn.Linear(1, 1), "Linear"),
        (torch.optim.SGD, "SGD"),
        (functools.partial(make, 3), "partial"),
    ],
)
def test_target_is_named_as_a_person_would(target, name):
    assert name_of(target) == name


# Keywords


def positional(a, /, b, *rest, c=1, **others):
    pass


@pytest.mark.parametrize(
    ("target", "names", "takes_any"),
    [
        (make, ["width", "depth", "dropout"], False),
        (Net, ["width", "depth"], False),
        (functools.partial(make, 3), ["depth", "dropout"], False),
        (functools.partial(make, depth=3), ["width", "depth", "dropout"], False),
        (positional, ["b", "c"], True),
        (lambda: None, [], False),
    ],
)
def test_keywords_are_those_that_can_be_given_by_name(target, names, takes_any):
    found, any_other = keyword_names(target)

    assert list(found) == names
    assert any_other is takes_any


@pytest.mark.parametrize(
    ("target", "keywords", "supplied"),
    [
        pytest.param(make, {"width": 1}, (), id="only what must be given"),
        pytest.param(make, {"width": 1, "depth": 2, "dropout": 0.5}, (), id="all"),
        pytest.param(make, {}, ("width", "length"), id="supplied by easyclf"),
        pytest.param(functools.partial(make, 1), {"depth": 3}, (), id="partial"),
        pytest.param(functools.partial(make, width=1), {}, (), id="partial by name"),
        pytest.param(positional, {"b": 1, "anything": 2}, (), id="any keyword"),
    ],
)
def test_keywords_that_the_target_takes_pass(target, keywords, supplied):
    check_keywords(target, keywords, "module", supplied=supplied)


@pytest.mark.parametrize(("typed", "nearest"), [("widht", "width"), ("drop_out", "dropout")])
def test_keyword_that_the_target_does_not_take_is_refused_with_the_nearest(typed, nearest):
    message = f"`module__{typed}` is not a parameter of make; did you mean `module__{nearest}`"

    with pytest.raises(TypeError, match=message):
        check_keywords(make, {typed: 1}, "module")


@pytest.mark.parametrize("prefix", ["module", "optimizer", "loss"])
def test_prefix_alone_makes_no_name_near(prefix):
    message = rf"`{prefix}__zzz` is not a parameter of make\. It takes: width, depth, dropout"

    with pytest.raises(TypeError, match=message):
        check_keywords(make, {"zzz": 1}, prefix)


@pytest.mark.parametrize(
    ("target", "takes"), [(make, "It takes: width, depth"), (lambda: None, "It takes: nothing")]
)
def test_keyword_like_no_other_is_refused_with_all(target, takes):
    with pytest.raises(TypeError, match=f"`loss__zzz` is not a parameter of .*{takes}"):
        check_keywords(target, {"zzz": 1}, "loss")


def test_missing_keyword_is_named_with_how_to_pass_it():
    with pytest.raises(TypeError, match=r"Net needs `width`.*pass `optimizer__width=\.\.\.`"):
        check_keywords(Net, {"depth": 3}, "optimizer")


# Optional packages


def test_optional_package_that_is_there_is_imported():
    assert import_optional("json.decoder", needed_by="a test") is sys.modules["json.decoder"]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("matplotlib.pyplot", "matplotlib", "plot"),
        ("pandas", "pandas", "frames"),
        ("polars", "polars", "frames"),
    ],
)
def test_missing_package_is_named_with_the_line_that_installs_it(
    module, package, extra, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match=rf'History.plot needs {package}.*"easyclf\[{extra}\]"'):
        import_optional(module, needed_by="History.plot")


@pytest.mark.parametrize(
    ("method", "module", "extra"),
    [("to_frame", "pandas", "frames"), ("plot", "matplotlib", "plot")],
)
def test_history_without_its_optional_package_says_what_to_install(
    method, module, extra, monkeypatch
):
    from easyclf.history import History

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.pyplot", raising=False)

    with pytest.raises(ImportError, match=rf"{method} needs .*easyclf\[{extra}\]"):
        getattr(History(), method)()


# Warnings


def line_of(call):
    """The number of the line of a lambda, which calls what warns."""
    return inspect.getsourcelines(call)[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda clf, X, y: clf.fit(X, y),
        lambda clf, X, y: clf.fit(X, y, epochs=0).predict(X),
        lambda clf, X, y: make_pipeline("passthrough", clf).fit(X, y),
        lambda clf, X, y: cross_val_score(clf, X, y, cv=2),
    ],
    ids=["fit", "overrides", "pipeline", "cross validation"],
)
def test_warnings_point_at_the_line_of_the_user(call, blobs):
    X, y = blobs
    clf = Estimator(nn.Linear(4, 5), epochs=1, random_state=0)

    with pytest.warns(UserWarning, match="the first 3 columns are used") as told:
        call(clf, X, y)

    assert {(warning.filename, warning.lineno) for warning in told} == {(__file__, line_of(call))}


def test_a_warning_of_labels_points_at_the_line_of_the_user(blobs):
    X, y = blobs
    call = lambda: Estimator(epochs=0).fit(X, y[:, None])  # noqa: E731

    with pytest.warns(UserWarning, match="column-vector y") as told:
        call()

    assert (told[0].filename, told[0].lineno) == (__file__, line_of(call))


def test_a_warning_is_shown_once_for_each_line_of_the_user():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            warn_user("a word")
        warn_user("a word", ConvergenceWarning)

    assert [warning.category for warning in told] == [UserWarning, ConvergenceWarning]


def test_warnings_have_one_voice():
    package = Path(inspect.getfile(Estimator)).parent
    plain = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    }

    assert not plain
