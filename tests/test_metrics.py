"""Metrics beside loss and accuracy: scorers of scikit-learn, and functions."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import (
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    get_scorer,
    log_loss,
    make_scorer,
    matthews_corrcoef,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import Callback, EarlyStopping, Estimator, LambdaCallback
from easyclf.metrics import Metrics
from tape.misleading.program import Log

NAMES = ["f1_macro", "roc_auc_ovr", "neg_log_loss", "balanced_accuracy"]


def estimator(network, metrics, **parameters):
    settings = {"epochs": 3, "lr": 0.01, "batch_size": 10, "random_state": 0}
    return Estimator(network, metrics=metrics, **{**settings, **parameters})


@pytest.fixture
def parts(blobs):
    X, y = blobs
    labels = np.array(["ash", "elm", "oak"])[y]
    return X[:18], labels[:18], X[18:], labels[18:]


def test_validation_figures_are_those_of_the_scorers(network, parts):
    X, y, X_val, y_val = parts

    clf = estimator(network, NAMES).fit(X, y, validation_data=(X_val, y_val))

    for name in NAMES:
        expected = get_scorer(name)(clf, X_val, y_val)
        assert clf.history_[-1, f"val_{name}"] == pytest.approx(expected, rel=1e-6), name


def test_training_figures_come_from_the_batches_of_the_epoch(network, parts):
    """One step an epoch: the figures are those of the weights before the step."""
    X, y, *_ = parts

    clf = estimator(network, NAMES, batch_size=-1, epochs=4).fit(X, y)

    before = estimator(network, None, batch_size=-1, epochs=3).fit(X, y)
    for name in NAMES:
        expected = get_scorer(name)(before, X, y)
        assert clf.history_[-1, name] == pytest.approx(expected, rel=1e-6), name


def test_quantities_stand_behind_loss_and_accuracy(network, parts):
    X, y, X_val, y_val = parts

    clf = estimator(network, ["f1_macro"]).fit(X, y, validation_data=(X_val, y_val))

    assert clf.history_.keys() == (
        "epoch loss accuracy f1_macro val_loss val_accuracy val_f1_macro lr seconds".split()
    )


@pytest.fixture
def tapes(monkeypatch):
    """What is trained and evaluated from a tape: after 5 batches, where 2 more are to come."""
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 2)
    with Log() as log:
        yield log


def test_metrics_change_nothing_else_and_a_tape_gives_the_outputs_too(tapes, network, blobs):
    settings = {"epochs": 12, "precision": "float64"}
    fits = {
        (name, mode): estimator(network, metrics, compile=mode, **settings).fit(
            *blobs, validation_data=blobs
        )
        for name, metrics in (("with", NAMES), ("without", None))
        for mode in ("auto", False)
    }

    said = [f"Sequential is {what} from a tape." for what in ("trained", "evaluated")]
    # In torch 2.6 a function of `typing` that runs only once in a process looks at frames.
    assert tapes.lines == 2 * said or torch.__version__ < (2, 7)
    for mode in ("auto", False):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            with_them, without = (fits[key, mode].history_[name] for key in ("with", "without"))
            assert with_them == pytest.approx(without, rel=1e-9)
    played, written = (fits["with", mode] for mode in ("auto", False))
    for name in (*NAMES, *(f"val_{name}" for name in NAMES)):
        assert played.history_[name] == pytest.approx(written.history_[name], rel=1e-9)


def test_the_module_is_called_no_more_often(network, blobs):
    calls = []

    class Counting(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    for metrics in (None, NAMES):
        calls.append("fit")
        estimator(Counting(4, 3), metrics, compile=False).fit(*blobs, validation_data=blobs)

    half = len(calls) // 2
    assert calls[:half] == calls[half:]


def test_evaluate_has_them_too(network, parts):
    X, y, X_val, y_val = parts
    clf = estimator(network, NAMES).fit(X, y, validation_data=(X_val, y_val))

    figures = clf.evaluate(X_val, y_val)

    assert list(figures) == ["loss", "accuracy", *NAMES]
    for name in NAMES:
        assert figures[name] == pytest.approx(clf.history_[-1, f"val_{name}"], rel=1e-6)


def test_two_classes_go_as_in_scikit_learn(parts):
    X, y, *_ = parts
    is_oak = np.where(y == "oak", "yes", "no")
    names = ["roc_auc", "neg_log_loss", "balanced_accuracy", "f1_macro"]
    for n_outputs in (1, 2):
        clf = estimator(nn.Linear(4, n_outputs), names).fit(X, is_oak, validation_data=(X, is_oak))

        for name in names:
            expected = get_scorer(name)(clf, X, is_oak)
            assert clf.history_[-1, f"val_{name}"] == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("n_labels", [2, 3])
def test_several_labels_go_as_in_scikit_learn(n_labels, blobs):
    X, y = blobs
    Y = np.stack([y != label for label in range(n_labels)], 1).astype(int)

    of_chances = make_scorer(roc_auc_score, response_method="predict_proba")
    names = ["f1_samples", ("of_chances", of_chances), "roc_auc", "average_precision"]
    clf = estimator(nn.Linear(4, n_labels), names).fit(X, Y, validation_data=(X, Y))

    answers, chances = clf.predict(X), clf.predict_proba(X)
    assert clf.history_[-1, "val_f1_samples"] == f1_score(Y, answers, average="samples")
    assert clf.history_[-1, "val_roc_auc"] == pytest.approx(roc_auc_score(Y, chances))
    assert clf.history_[-1, "val_of_chances"] == pytest.approx(roc_auc_score(Y, chances))


def test_functions_scorers_and_pairs_have_names(network, parts):
    X, y, *_ = parts
    metrics = [
        cohen_kappa_score,
        ("kappa", cohen_kappa_score),
        ("mcc", make_scorer(matthews_corrcoef)),
        make_scorer(balanced_accuracy_score, adjusted=True),
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
        get_scorer("f1_micro"),
        ("mine", "f1_weighted"),
        ("agreement", lambda y_true, y_pred: (y_true == y_pred).mean()),
    ]

    clf = estimator(network, metrics).fit(X, y)

    assert list(clf.history_[-1])[3:-2] == [
        "cohen_kappa_score",
        "kappa",
        "mcc",
        "balanced_accuracy_score",
        "neg_log_loss",
        "f1_micro",
        "mine",
        "agreement",
    ]
    assert clf.history_[-1, "agreement"] == pytest.approx(clf.history_[-1, "accuracy"])


def test_the_accuracy_of_kerass_list_is_the_one_that_is_always_there(network, blobs):
    clf = estimator(network, ["accuracy"]).fit(*blobs)

    assert clf.history_.keys() == ["epoch", "loss", "accuracy", "lr", "seconds"]


def test_rows_count_by_their_weights_and_not_with_weight_0(network, parts):
    X, y, X_val, y_val = parts
    weight = np.where(y_val == "oak", 0.0, 1.0) + np.arange(12) % 3
    weight[:4] = 0
    clf = estimator(network, ["f1_macro", "neg_log_loss"])

    clf.fit(X, y, np.ones(18), validation_data=(X_val, y_val, weight))

    for name in ("f1_macro", "neg_log_loss"):
        expected = get_scorer(name)(clf, X_val[4:], y_val[4:], sample_weight=weight[4:])
        assert clf.history_[-1, f"val_{name}"] == pytest.approx(expected, rel=1e-6)
        assert clf.evaluate(X_val, y_val, weight)[name] == pytest.approx(expected, rel=1e-6)


def test_a_class_whose_rows_have_no_weight_is_not_there(network, parts):
    X, y, X_val, y_val = parts
    counts = y_val != "ash"
    metrics = ["recall_macro", ("n_rows", lambda y_true, y_pred, sample_weight=None: len(y_true))]

    clf = estimator(network, metrics)
    clf.fit(X, y, validation_data=(X_val, y_val, counts.astype(float)))

    assert clf.history_[-1, "val_n_rows"] == counts.sum()
    assert clf.history_[-1, "n_rows"] == 18


def test_a_loader_and_a_last_short_batch(network, blobs):
    X, y = map(torch.from_numpy, blobs)
    loader = DataLoader(TensorDataset(X, y), batch_size=7)

    clf = estimator(network, ["f1_macro"], batch_size="auto").fit(loader, validation_data=loader)

    expected = f1_score(y, clf.predict(X), average="macro")
    assert clf.history_[-1, "val_f1_macro"] == pytest.approx(expected)


def test_early_stopping_watches_a_metric(network, blobs):
    early = EarlyStopping("val_f1_macro", patience=2)
    values = iter([0.1, 0.3, 0.2, 0.2, 0.5])
    rewrite = LambdaCallback(
        on_epoch_end=lambda state: state.logs.update(val_f1_macro=next(values))
    )

    clf = estimator(network, ["f1_macro"], epochs=5, callbacks=[rewrite, early])
    clf.fit(*blobs, validation_data=blobs)

    assert (early.best_epoch_, early.stopped_epoch_) == (2, 4)


@pytest.mark.parametrize(
    ("name", "is_higher"),
    [("mine", True), ("my_loss", False), ("neg_my_loss", True), ("hamming_error", False)],
)
def test_more_is_better_unless_the_name_says_otherwise(name, is_higher, network, blobs):
    early = EarlyStopping(f"val_{name}", patience=1)
    counted = iter(range(100))
    metrics = [(name, lambda y_true, y_pred: next(counted))]

    clf = estimator(network, metrics, callbacks=[early], epochs=4)
    clf.fit(*blobs, validation_data=blobs)

    assert (early.stopped_epoch_ is None) is is_higher
    assert clf.history_.best(f"val_{name}")["epoch"] == (4 if is_higher else 1)
    assert clf.history_[:2].best(name)["epoch"] == (2 if is_higher else 1)


def test_metrics_are_a_parameter_like_others(network, blobs):
    clf = estimator(network, ["f1_macro"], validation_split=0.3)

    search = GridSearchCV(clf, {"lr": [0.1, 0.01]}, cv=2, scoring="f1_macro").fit(*blobs)

    assert clone(clf).get_params()["metrics"] == ["f1_macro"]
    assert len(search.best_estimator_.history_["val_f1_macro"]) == 3
    assert len(clf.fit(*blobs, metrics=["neg_log_loss"]).history_["neg_log_loss"]) == 3


def test_partial_fit_measures_them(network, blobs):
    clf = estimator(network, ["f1_macro"]).partial_fit(*blobs, classes=[0, 1, 2])

    assert 0 <= clf.history_[-1, "f1_macro"] <= 1


def test_mixed_rows_count_for_their_larger_share(blobs):
    from torchvision.transforms import v2

    X, y = blobs
    images = np.repeat(X[:, :, None, None], 2, 3)[:, :1]
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    clf = estimator(module, ["f1_micro"], augment=v2.MixUp(num_classes=3))

    clf.fit(images, y)

    assert clf.history_["f1_micro"] == pytest.approx(clf.history_["accuracy"])


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["f1_makro"], "'f1_makro' is no scorer of scikit-learn; did you mean `f1_macro`"),
        (["auc"], "'auc' is no scorer .* did you mean `roc_auc`, or `roc_auc_ovr` for more"),
        (["acc"], "did you mean `accuracy`"),
        (["f1_macro", "f1_macro"], "two metrics of the name 'f1_macro'"),
        ([("loss", f1_score)], "the name 'loss', which the history has for something else"),
        ([("val_f1", f1_score)], "the name 'val_f1'"),
        ([lambda y_true, y_pred: 0], r"has no name; write it as a pair, \('name', function\)"),
        ([("f1", f1_score, 3)], "a pair is a name and a scorer"),
        ([nn.Linear], "must be a list of names of scorers.*Got .*Linear"),
        ([3], "Got 3 in it instead"),
        ("f1_macro", "'metrics' parameter of Estimator must be .* Got 'f1_macro' instead"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, words, network, blobs):
    with pytest.raises((ValueError, TypeError), match=words):
        estimator(network, metrics).fit(*blobs)


def test_a_scorer_that_wants_every_class_is_refused_before_training(network, parts):
    X, y, X_val, y_val = parts
    epochs = []
    note = LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch))
    clf = estimator(network, ["roc_auc_ovr"], callbacks=[note])
    few = y_val != "oak"

    with pytest.raises(
        ValueError, match=r"'roc_auc_ovr' cannot .* validation rows, which lack .*'oak'\]: Number"
    ):
        clf.fit(X, y, validation_data=(X_val[few], y_val[few]))

    assert epochs == []


def test_a_function_without_weights_is_refused_where_rows_have_some(network, blobs):
    metrics = [("agreement", lambda y_true, y_pred: (y_true == y_pred).mean())]

    with pytest.raises(TypeError, match="'agreement' is a function without `sample_weight`"):
        estimator(network, metrics).fit(*blobs, np.ones(30))


def test_a_function_that_needs_weights_is_no_scorer(network, blobs):
    def agreement(y_true, y_pred, sample_weight):
        return np.average(y_true == y_pred, weights=sample_weight)

    clf = estimator(network, [agreement]).fit(*blobs, 1.0 + np.arange(30) % 4)

    assert clf.history_["agreement"] == pytest.approx(clf.history_["accuracy"])


def test_an_error_of_a_metric_names_it(network, blobs):
    def fail(y_true, y_pred):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        estimator(network, [("mine", fail)]).fit(*blobs)

    assert raised.value.__notes__ == ["Raised by the metric 'mine'."]


def test_callbacks_see_them(network, blobs):
    class Look(Callback):
        def on_train_begin(self, state):
            self.quantities = state.quantities

        def on_epoch_end(self, state):
            self.figure = state.logs["f1_macro"]

    look = Look()
    clf = estimator(network, ["f1_macro"], callbacks=[look]).fit(*blobs)

    assert look.figure == clf.history_[-1, "f1_macro"]
    assert "f1_macro" in look.quantities


def test_no_metrics_are_nothing():
    assert not Metrics("Estimator", None)
    assert Metrics("Estimator", []).names == ()
