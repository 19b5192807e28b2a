"""Callbacks in pairs with names, and what is no callback."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import easyclf
from easyclf import AccuracyLogger, Callback, EarlyStopping, Estimator, LRScheduler

X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
Y = np.arange(20) % 2


def estimator(*callbacks, **parameters):
    settings = {"epochs": 3, "validation_split": 0.2, "random_state": 0}
    return Estimator(nn.Linear(2, 2), callbacks=list(callbacks), **{**settings, **parameters})


def test_settings_of_a_named_callback_are_parameters():
    clf = estimator(("early", EarlyStopping(patience=7)), AccuracyLogger(every=9))

    shown = {name: value for name, value in clf.get_params().items() if "callbacks__" in name}

    assert shown["callbacks__early__patience"] == 7
    assert {name.split("__")[1] for name in shown} == {"early"}
    assert not any("callbacks__" in name for name in clf.get_params(deep=False))


def test_they_are_set_and_hold():
    early = EarlyStopping("val_loss", patience=7, min_delta=100)
    clf = estimator(("early", early), epochs=20).set_params(callbacks__early__patience=2)

    clf.fit(X, Y)

    assert (clf.n_iter_, early.patience) == (3, 2)


def test_arguments_of_a_schedule_are_parameters_too():
    clf = estimator(("rate", LRScheduler("StepLR", step_size=1)), lr=1.0)

    clf.set_params(callbacks__rate__gamma=0.5).fit(X, Y)

    assert clf.get_params()["callbacks__rate__gamma"] == 0.5
    assert clf.history_["lr"].tolist() == [1.0, 0.5, 0.25]


def test_they_hold_for_one_fit_where_fit_is_given_them():
    early = EarlyStopping("loss", patience=7, min_delta=100)
    rate = LRScheduler("StepLR", step_size=1)
    clf = estimator(("early", early), ("rate", rate), epochs=20)

    clf.fit(X, Y, callbacks__early__patience=2, callbacks__rate__gamma=0.5)

    assert clf.n_iter_ == 3
    assert clf.history_["lr"][1] == 0.5 * clf.history_["lr"][0]
    assert (early.patience, rate.kwargs) == (7, {"step_size": 1})
    assert early.best_epoch_ is not None


def test_a_search_tries_them_in_clones():
    early = EarlyStopping("loss", patience=7, min_delta=100)
    pipeline = make_pipeline(StandardScaler(), estimator(("early", early), epochs=9))
    grid = {"estimator__callbacks__early__patience": [2, 4]}

    search = GridSearchCV(pipeline, grid, cv=2, scoring=lambda clf, X, y: clf[-1].n_iter_)
    search.fit(X, Y)

    assert search.cv_results_["mean_test_score"].tolist() == [3, 5]
    assert early.patience == 7
    ((name, best),) = search.best_estimator_[-1].callbacks
    assert (name, best.patience) == ("early", 4)


def test_clones_and_pickles_keep_names_and_results():
    clf = estimator(("early", EarlyStopping(patience=2))).fit(X, Y)

    ((name, copied),) = pickle.loads(pickle.dumps(clf)).callbacks
    ((cloned_name, cloned),) = clone(clf).callbacks

    assert name == cloned_name == "early"
    assert copied.best_epoch_ == clf.callbacks[0][1].best_epoch_
    assert not hasattr(cloned, "best_epoch_")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("callbacks__early__patienc", "Invalid parameter 'patienc' .*did you mean `patience`"),
        ("callbacks__late__patience", r"callbacks have parameters .* There are \['callbacks__earl"),
    ],
)
def test_unknown_parameters_of_callbacks_are_refused(name, words):
    early = EarlyStopping()

    with pytest.raises(ValueError, match=words):
        estimator(("early", early)).set_params(**{name: 3})

    assert early.get_params() == EarlyStopping().get_params()


def test_fit_refuses_unknown_parameters_of_callbacks():
    with pytest.raises(TypeError, match="`callbacks__late__patience`"):
        estimator(("early", EarlyStopping())).fit(X, Y, callbacks__late__patience=3)


class ModelCheckpoint:
    """Stands in for Keras's."""


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([EarlyStopping], r"must be a list of easyclf.Callback instances. Got .* in it instead; "
         r"did you mean `EarlyStopping\(\)`"),
        ([("early", EarlyStopping)], r"did you mean `EarlyStopping\(\)`"),
        ([("a", EarlyStopping()), ("a", AccuracyLogger())], "two callbacks of the name 'a'"),
        ([("a__b", EarlyStopping())], "the name 'a__b'; a name is a Python identifier"),
        ([("a b", EarlyStopping())], "the name 'a b'"),
        ([("a", EarlyStopping(), 3)], "a pair is a name and a callback"),
        ([(EarlyStopping(), "a")], "a pair is a name and a callback"),
        ([ModelCheckpoint()], r"in it instead; use `Checkpoint\(folder\)`, which also resumes"),
        ([ModelCheckpoint], r"use `Checkpoint\(folder\)`"),
        ([CosineAnnealingLR], r"use `LRScheduler\('CosineAnnealingLR'\)`"),
        (
            [CosineAnnealingLR(torch.optim.SGD([nn.Parameter(torch.ones(1))]), 3)],
            r"use `LRScheduler\('CosineAnnealingLR'\)`",
        ),
        (["early"], "Got 'early' in it instead."),
    ],
)  # fmt: skip
def test_what_is_no_callback_is_refused_with_what_to_type(callbacks, words):
    with pytest.raises((ValueError, TypeError), match=words):
        estimator(*callbacks).fit(X, Y)


@pytest.mark.parametrize(
    "name", ["ModelCheckpoint", "EpochScoring", "LearningRateScheduler", "OneCycleLR"]
)
def test_names_of_other_libraries_are_answered_with_what_to_type(name):
    with pytest.raises(ImportError, match=f"easyclf has no {name}; use `"):
        exec(f"from easyclf import {name}")


def test_other_names_are_missing_as_usual():
    assert not hasattr(easyclf, "nonsense")


def test_a_callback_without_kept_arguments_has_no_settings():
    class Silent(Callback):
        def __init__(self, every=1):
            self._every = every

    assert Silent().get_params() == {}
    assert "callbacks__silent__every" not in estimator(("silent", Silent())).get_params()


def test_parameters_of_a_callback_are_not_given_to_the_constructor():
    with pytest.raises(
        TypeError, match=r"give it to the callback itself, or to `set_params\(callba"
    ):
        Estimator(callbacks=[("early", EarlyStopping())], callbacks__early__patience=3)
