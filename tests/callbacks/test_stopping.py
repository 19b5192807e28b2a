"""Stopping early, and going back to the best weights."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from easyclf import EarlyStopping, Estimator, LambdaCallback, StopAt, TimeLimit

X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
Y = np.arange(8) % 2


def run(early, scores, *others):
    """Fit for at most as many epochs as there are scores, which are what is monitored."""

    def rewrite(state):
        state.logs[early.monitor] = scores[state.epoch - 1]

    clf = Estimator(
        nn.Linear(2, 2),
        optimizer="sgd",
        lr=0.5,
        epochs=len(scores),
        callbacks=[LambdaCallback(on_epoch_end=rewrite), early, *others],
        random_state=0,
    )
    return clf.fit(X, Y, validation_data=(X, Y))


class Weights:
    """The weights of the module after every epoch."""

    def __init__(self):
        self.after = {}
        self.callback = LambdaCallback(on_epoch_end=self._note)

    def _note(self, state):
        self.after[state.epoch] = state.module.weight.detach().clone()


@pytest.mark.parametrize(
    ("patience", "losses", "stopped", "best"),
    [
        (1, [1, 2, 2, 2, 2, 2], 2, 1),
        (3, [1, 2, 2, 2, 2, 2], 4, 1),
        (3, [2, 2, 2, 2, 2, 2], 4, 1),
        (3, [2, 1, 1, 1, 1, 1], 5, 2),
        (3, [5, 6, 6, 4, 6, 6, 3, 6, 6, 6, 6], 10, 7),
        (3, [5, 4, 3, 2, 1], None, 5),
        (3, [5, 4, 6, 6], None, 2),
        (3, [5, 4, 6, 6, 6], 5, 2),
        (1, [1], None, 1),
    ],
)
def test_a_loss_stops_the_run_when_the_patience_runs_out(patience, losses, stopped, best):
    early = EarlyStopping(patience=patience)

    clf = run(early, losses)

    assert clf.n_iter_ == (stopped or len(losses))
    assert early.stopped_epoch_ == stopped
    assert early.best_epoch_ == best
    assert early.best_score_ == losses[best - 1]


@pytest.mark.parametrize("monitor", ["accuracy", "val_accuracy"])
def test_of_an_accuracy_more_is_better(monitor):
    early = EarlyStopping(monitor, patience=2)

    run(early, [0.5, 0.6, 0.7, 0.6, 0.65, 0.9])

    assert (early.stopped_epoch_, early.best_epoch_, early.best_score_) == (5, 3, 0.7)


@pytest.mark.parametrize(
    ("min_delta", "stopped"), [(0.0, None), (0.25, None), (0.375, 4), (1.0, 4)]
)
def test_an_improvement_counts_only_beyond_min_delta(min_delta, stopped):
    """The loss falls by 0.125 an epoch: by more than 0.375 only after the patience."""
    early = EarlyStopping(patience=3, min_delta=min_delta)

    run(early, [1.0, 0.875, 0.75, 0.625, 0.5, 0.375])

    assert early.stopped_epoch_ == stopped


def test_the_best_weights_come_back_after_an_early_stop():
    early, weights = EarlyStopping(patience=2), Weights()

    clf = run(early, [3, 2, 4, 5, 6], weights.callback)

    assert early.stopped_epoch_ == 4
    assert torch.equal(clf.module_.weight, weights.after[2])
    assert not torch.equal(weights.after[2], weights.after[4])


def test_the_best_weights_come_back_when_the_epochs_run_out_first():
    early, weights = EarlyStopping(patience=10), Weights()

    clf = run(early, [3, 2, 4, 5], weights.callback)

    assert early.stopped_epoch_ is None
    assert torch.equal(clf.module_.weight, weights.after[2])


def test_the_best_weights_are_the_best_also_when_the_improvement_is_below_min_delta():
    early, weights = EarlyStopping(patience=3, min_delta=0.5), Weights()

    clf = run(early, [3, 2.75, 2.875, 2.9, 2.9], weights.callback)

    assert early.best_epoch_ == 2
    assert torch.equal(clf.module_.weight, weights.after[2])


def test_the_best_weights_come_back_after_an_interruption():
    def interrupt(state):
        if state.epoch == 4:
            raise KeyboardInterrupt

    weights = Weights()
    early = EarlyStopping(patience=10)
    losses = iter([3, 2, 4, 5])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(losses)))
    clf = Estimator(
        nn.Linear(2, 2),
        optimizer="sgd",
        lr=0.5,
        epochs=9,
        callbacks=[rewrite, early, weights.callback, LambdaCallback(on_epoch_end=interrupt)],
    )

    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y, validation_data=(X, Y))

    assert torch.equal(clf.module_.weight, weights.after[2])


def test_the_last_weights_stay_when_the_best_are_not_wanted():
    early, weights = EarlyStopping(patience=2, restore_best_weights=False), Weights()

    clf = run(early, [3, 2, 4, 5, 6], weights.callback)

    assert early.best_epoch_ == 2
    assert torch.equal(clf.module_.weight, weights.after[4])


def test_buffers_such_as_the_means_of_a_batch_normalization_come_back_too(blobs):
    means = {}
    losses = iter([3.0, 1.0, 2.0, 2.0])
    callbacks = [
        LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(losses))),
        EarlyStopping(),
        LambdaCallback(
            on_epoch_end=lambda state: means.update(
                {state.epoch: state.module[0].running_mean.tolist()}
            )
        ),
    ]
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))

    clf = Estimator(module, epochs=4, lr=0.1, callbacks=callbacks).fit(
        *blobs, validation_data=blobs
    )

    assert means[2] != means[4]
    assert clf.module_[0].running_mean.tolist() == means[2]


def test_the_estimator_scores_as_in_its_best_epoch(blobs, network):
    A, b = blobs
    early = EarlyStopping(patience=3)
    clf = Estimator(
        network, optimizer="sgd", lr=5.0, epochs=30, callbacks=[early], random_state=0
    ).fit(A[:15], b[:15], validation_data=(A[15:], b[15:]))

    figures = clf.evaluate(A[15:], b[15:])

    best = clf.history_.best("val_loss")
    assert (best["epoch"], best["val_loss"]) == (early.best_epoch_, early.best_score_)
    assert figures["loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    assert figures["accuracy"] == best["val_accuracy"]


def test_one_callback_serves_many_fits():
    early = EarlyStopping(patience=2)
    run(early, [0.1, 2, 2, 2])

    clf = run(early, [5, 4, 3, 2])

    assert (early.stopped_epoch_, early.best_epoch_, early.best_score_) == (None, 4, 2)
    assert clf.n_iter_ == 4


def test_the_copies_in_clones_are_apart():
    early = EarlyStopping(patience=2)
    clf = Estimator(nn.Linear(2, 2), epochs=3, lr=0.1, callbacks=[early], validation_split=0.25)

    copied = clone(clf).fit(X, Y)

    assert not hasattr(early, "best_epoch_")
    assert copied.callbacks[0].best_epoch_ in (1, 2, 3)


def test_a_nan_is_never_the_best_and_warns():
    early = EarlyStopping(patience=3)

    with pytest.warns(ConvergenceWarning, match="'val_loss' is NaN in epoch 2.*not count as the"):
        run(early, [2, math.nan, 1, 2])

    assert (early.best_epoch_, early.best_score_) == (3, 1)


def test_nans_only_use_up_the_patience():
    early, weights = EarlyStopping(patience=2), Weights()

    with pytest.warns(ConvergenceWarning):
        clf = run(early, 5 * [math.nan], weights.callback)

    assert early.stopped_epoch_ == 2
    assert early.best_epoch_ is None
    assert torch.equal(clf.module_.weight, weights.after[2])


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ("val_loss", ["'val_loss'", "`validation_data`", "`validation_split`"]),
        ("val_accuracy", ["'val_accuracy'", "'accuracy', 'lr'", "`validation_data`"]),
        ("acuracy", ["'acuracy'", "did you mean `accuracy`?", "'loss', 'accuracy', 'lr'"]),
        ("auc", ["'auc'", "'loss', 'accuracy', 'lr'"]),
    ],
)
def test_a_quantity_that_will_not_be_there_is_refused_before_training(monitor, words):
    epochs = []
    callbacks = [
        EarlyStopping(monitor),
        LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch)),
    ]

    with pytest.raises(ValueError, match="does not measure") as raised:
        Estimator(nn.Linear(2, 2), callbacks=callbacks).fit(X, Y)

    assert [word for word in words if word not in str(raised.value)] == []
    assert epochs == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patience": 0}, "`patience` must be at least 1; got 0"),
        ({"patience": -3}, "`patience`.*-3"),
        ({"patience": "3"}, "`patience` must be a number of at least 1; got '3'"),
        ({"patience": None}, "`patience`.*None"),
        ({"min_delta": -0.1}, "`min_delta` must be at least 0; got -0.1"),
        ({"min_delta": math.nan}, "`min_delta`.*nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    early = EarlyStopping("loss", **settings)

    with pytest.raises((ValueError, TypeError), match=words):
        Estimator(nn.Linear(2, 2), callbacks=[early]).fit(X, Y)


def test_the_reason_is_told():
    reasons = []
    note = LambdaCallback(on_train_end=lambda state: reasons.append(state.stop_reason))

    run(EarlyStopping(patience=2), [1.5, 2, 2, 2], note)

    assert reasons == ["val_loss has not improved for 2 epochs; the best was 1.5 in epoch 1"]


def test_a_callback_lets_go_of_the_weights_after_a_fit():
    early = EarlyStopping("loss", patience=2)

    Estimator(nn.Linear(2, 500), epochs=2, lr=0.1, callbacks=[early], classes=range(500)).fit(X, Y)

    assert len(pickle.dumps(vars(early))) < 1000


# What Keras 3 does, by its source: settings, figures, the epoch that is the last, the best epoch.
@pytest.mark.parametrize(
    ("settings", "figures", "stopped", "best"),
    [
        ({"patience": 2, "start_from_epoch": 3}, [1, 2, 2, 3, 4, 4, 4], 6, 4),
        ({"patience": 2, "start_from_epoch": 3}, [1, 2, 2, 3, 2, 2, 2], 7, 5),
        ({"patience": 1, "start_from_epoch": 9}, [1, 2, 2, 2, 2], None, None),
        ({"patience": 2, "baseline": 1.0}, [5, 4, 3, 3, 0.5], 4, 3),
        ({"patience": 2, "baseline": 1.0}, [5, 4, 3, 2, 1.5, 2], 6, 5),
        ({"patience": 2, "baseline": 4.5}, [5, 4, 3, 3, 3], 5, 3),
        ({"patience": 3, "baseline": 0.0}, [5, 6, 6, 6], 3, 1),
        ({"patience": 1, "baseline": 0.0}, [5, 4, 6], 3, 2),
        ({"patience": 2, "baseline": 1.0, "min_delta": 1.5}, [5, 2, 0, 0, 0], 4, 3),
        ({"patience": 2, "baseline": 1.0, "min_delta": 1.5}, [5, 2, -1, 0, 0], 5, 3),
        ({"patience": 2, "mode": "max"}, [1, 2, 1, 1, 1], 4, 2),
        ({"patience": 2, "mode": "max", "baseline": 3}, [1, 2, 4, 4, 4], 5, 3),
        ({"patience": 1, "mode": "min"}, [2, 1, 1, 1], 3, 2),
        ({"patience": 1}, [math.nan, 1, 2], 3, 2),
    ],
)
@pytest.mark.filterwarnings("ignore:'val_loss' is NaN")
def test_epochs_are_counted_as_keras_counts_them(settings, figures, stopped, best):
    early = EarlyStopping(**settings)

    clf = run(early, figures)

    assert (early.stopped_epoch_, early.best_epoch_) == (stopped, best)
    assert clf.n_iter_ == (stopped or len(figures))


def test_the_reason_names_the_epochs_that_were_waited():
    reasons = []
    note = LambdaCallback(on_train_end=lambda state: reasons.append(state.stop_reason))

    run(EarlyStopping(patience=2, baseline=1.0), [5, 4, 3, 3, 3], note)

    assert reasons == ["val_loss has not improved for 4 epochs; the best was 3 in epoch 3"]


def continued(early, figures, **parameters):
    """Fits of one epoch that go on from each other, until the callback stops."""
    scores = iter(figures)
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(scores)))
    clf = Estimator(
        nn.Linear(2, 2),
        optimizer="sgd",
        lr=0.5,
        epochs=1,
        warm_start=True,
        callbacks=[rewrite, early],
        random_state=0,
        **parameters,
    )
    for _ in figures:
        clf.fit(X, Y, validation_data=(X, Y))
        if early.stopped_epoch_:
            break
    return clf


def test_in_a_loop_of_warm_starts_the_patience_goes_on():
    early = EarlyStopping(patience=3)

    clf = continued(early, [3, 2, 4, 5, 6, 7, 8])

    assert (clf.n_iter_, early.stopped_epoch_, early.best_epoch_) == (5, 5, 2)


def test_in_a_loop_of_warm_starts_each_fit_ends_with_the_best_weights():
    weights = []
    scores = iter([3, 2, 4, 5])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(scores)))
    clf = Estimator(
        nn.Linear(2, 2), lr=0.5, epochs=1, warm_start=True, callbacks=[rewrite, EarlyStopping()]
    )
    for _ in range(4):
        weights.append(clf.fit(X, Y, validation_data=(X, Y)).module_.weight.detach().clone())

    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert torch.equal(weights[1], weights[3])


def test_two_trainings_that_take_turns_are_counted_apart():
    early = EarlyStopping("loss", patience=2, min_delta=100, restore_best_weights=False)
    one, other = (
        Estimator(nn.Linear(2, 2), epochs=1, warm_start=True, callbacks=[early], random_state=n)
        for n in (0, 1)
    )
    for _ in range(4):
        one.fit(X, Y)
        other.fit(X, Y)

        assert early.stopped_epoch_ is None


@pytest.mark.parametrize("change", [clone, pickle.loads])
def test_another_object_or_another_training_counts_anew(change):
    early = EarlyStopping(patience=3)
    continued(early, [1, 2, 3])
    other = change(early) if change is clone else change(pickle.dumps(early))

    continued(early, [5, 4])
    continued(other, [5, 4])

    assert (early.best_epoch_, early.best_score_) == (2, 4)
    assert (other.best_epoch_, other.best_score_) == (2, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "best"}, "`mode` must be 'auto', 'min' or 'max'; got 'best'"),
        ({"baseline": "low"}, "`baseline`.*'low'"),
        ({"baseline": math.nan}, "`baseline`.*nan"),
        ({"start_from_epoch": -1}, "`start_from_epoch` must be at least 0; got -1"),
    ],
)
def test_settings_of_keras_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        run(EarlyStopping(**settings), [1, 2])


@pytest.mark.parametrize(
    ("monitor", "value", "figures", "last"),
    [
        ("val_loss", 1.0, [3, 2, 1, 0], 3),
        ("val_accuracy", 0.5, [0.1, 0.4, 0.6, 0.4], 3),
        ("val_loss", 0.5, [3, 2, 1], 3),
    ],
)
def test_a_run_ends_when_a_value_is_reached(monitor, value, figures, last):
    reasons = []
    stop = StopAt(monitor, value)
    note = LambdaCallback(on_train_end=lambda state: reasons.append(state.stop_reason))

    clf = run(stop, figures, note)

    assert clf.n_iter_ == last
    reached = value != 0.5 or monitor == "val_accuracy"
    shown = f"{monitor} has reached {value:g}: it is {figures[last - 1]:.4g}"
    assert reasons == [shown if reached else None]


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (StopAt("acuracy", 0.9), "StopAt monitors 'acuracy'.*did you mean `accuracy`"),
        (StopAt("accuracy", "high"), "`value`.*'high'"),
        (TimeLimit(-1), "`seconds` must be at least 0; got -1"),
        (TimeLimit("1h"), "`seconds`.*'1h'"),
    ],
)
def test_values_and_times_that_make_no_sense_are_refused(callback, words):
    with pytest.raises(ValueError, match=words):
        Estimator(nn.Linear(2, 2), callbacks=[callback]).fit(X, Y)


def test_a_number_in_the_place_of_the_quantity_is_refused():
    with pytest.raises(TypeError, match="`monitor` of EarlyStopping is 5; expected the name of a"):
        Estimator(nn.Linear(2, 2), callbacks=[EarlyStopping(5)]).fit(X, Y)


def test_a_run_ends_with_the_step_in_which_its_time_is_over(monkeypatch):
    steps, reasons = [], []
    now = iter(range(100))
    monkeypatch.setattr("easyclf.callbacks.stopping.time.monotonic", lambda: next(now))
    callbacks = [
        TimeLimit(6),
        LambdaCallback(
            on_batch_end=lambda state: steps.append((state.epoch, state.batch)),
            on_train_end=lambda state: reasons.append(state.stop_reason),
        ),
    ]

    clf = Estimator(nn.Linear(2, 2), batch_size=2, epochs=9, callbacks=callbacks).fit(X, Y)

    assert steps[-1] == (2, 2)
    assert len(clf.history_) == 2
    assert reasons == ["the time limit of 6 s has passed"]
