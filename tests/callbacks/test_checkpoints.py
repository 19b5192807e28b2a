"""Runs that are kept, and go on where they were kept."""

import errno
import signal
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import (
    EMA,
    SWA,
    AccuracyLogger,
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    Estimator,
    JSONLogger,
    LambdaCallback,
    LRScheduler,
    ReduceLROnPlateau,
    StopAt,
    TimeLimit,
    TrainingDiverged,
    Unfreeze,
)
from easyclf.callbacks import checkpoints
from easyclf.engine import fitting
from easyclf.exceptions import TapeDiffers
from easyclf.tape import tapes

RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 20)
X = (RNG.normal(size=(60, 4)) + 2 * np.eye(3, 4)[Y]).astype(np.float32)


class Network(nn.Module):
    """All that makes a run hard to repeat: dropout, and statistics of batches."""

    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(width, 3),
        )
        self.register_buffer("plain", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.training:
            self.plain += x.detach().mean()
        return self.layers(x)


class Death(Callback):
    """Ends a run at the beginning of an epoch, as a crash does."""

    changes = "nothing"

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, state):
        if state.epoch == self.epoch:
            raise ZeroDivisionError


def estimator(folder, *callbacks, keep=None, **parameters):
    keep = keep or Checkpoint(folder)
    plain = {"optimizer": "adam", "lr": 0.01, "epochs": 5, "batch_size": 12, "random_state": 0}
    return Estimator(Network, callbacks=[*callbacks, keep], **{**plain, **parameters})


def fit(clf, dies=None, **keywords):
    """Fit, and die at the beginning of an epoch."""
    keywords = {"X": X, "y": Y, "validation_data": (X[::2], Y[::2]), **keywords}
    if dies is None:
        return clf.fit(**keywords)
    with pytest.raises(ZeroDivisionError):
        clf.fit(callbacks=[*clf.callbacks, Death(dies)], **keywords)
    return clf


def weights(clf):
    return {
        **dict(clf.module_.named_parameters()),
        **dict(clf.module_.named_buffers()),
    }


def assert_same(first, second):
    """Bit for bit the same weights and history, but for the time it took."""
    for (name, one), (other, two) in zip(
        weights(first).items(), weights(second).items(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two), name
    assert first.history_.keys() == second.history_.keys()
    for name in first.history_.keys():  # noqa: SIM118
        if name != "seconds":
            np.testing.assert_array_equal(first.history_[name], second.history_[name], name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


RUNS = {
    "plain": (list, {}),
    "as written": (list, {"compile": False}),
    "without callbacks of the step": (lambda: [EarlyStopping(patience=4)], {"lr": 0.3}),
    "EMA": (lambda: [EMA(0.8), LRScheduler("OneCycleLR", max_lr=0.05)], {}),
    "EMA that stops": (lambda: [EMA(0.8), EarlyStopping(patience=2)], {"lr": 0.3}),
    "SWA": (lambda: [SWA(0.3, lr=0.02), LRScheduler("cosine", warmup=1.5)], {}),
    "plateau": (lambda: [ReduceLROnPlateau(patience=1, min_delta=1)], {"optimizer": "sgd"}),
    "plateau of torch": (
        lambda: [LRScheduler("plateau", patience=0, threshold=9, warmup=0.5)],
        {"optimizer": "sgd", "optimizer__momentum": 0.9},
    ),
    "a function": (lambda: [LRScheduler(lambda epoch, lr: 0.9 * lr)], {"augment": noisy}),
    "several schedules": (lambda: [LRScheduler("cyclic", base_lr=0.001, step_size_up=3)], {}),
    "Unfreeze": (
        lambda: [Unfreeze({3: "layers.0"}), LRScheduler("step", step_size=2)],
        {"freeze": "layers.0"},
    ),
    "LBFGS": (list, {"optimizer": "lbfgs", "batch_size": -1}),
    "accumulate": (list, {"accumulate": 3, "clip_grad_norm": 0.5}),
    "metrics": (lambda: [EarlyStopping("f1_macro", patience=2)], {"metrics": ["f1_macro"]}),
    "bf16": (list, {"precision": "bf16"}),
    "without a seed": (list, {"random_state": None, "validation_split": 0.3}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_died_ends_as_one_that_did_not(run, tmp_path):
    dies = 2 + list(RUNS).index(run) % 3
    make, parameters = RUNS[run]
    kept = {} if "validation_split" not in parameters else {"validation_data": None}
    cut = fit(estimator(tmp_path / "cut", *make(), **parameters), dies, **kept)
    resumed = fit(estimator(tmp_path / "cut", *make(), **parameters), **kept)
    if parameters.get("random_state", 0) is None:
        parameters = {**parameters, "random_state": resumed._fitted.seed}
    whole = fit(estimator(tmp_path / "whole", *make(), **parameters), **kept)

    assert resumed.callbacks[-1].resumed_epoch_ == dies - 1
    assert_same(resumed, whole)
    assert not hasattr(cut, "module_")


@pytest.mark.parametrize("dies", [2, 5])
def test_it_may_die_twice_and_be_kept_now_and_then(dies, tmp_path):
    def make(folder):
        return estimator(folder, keep=Checkpoint(folder, every=2, keep=2), epochs=7)

    for epoch in (dies, 7):
        fit(make(tmp_path / "cut"), epoch)
    resumed, whole = fit(make(tmp_path / "cut")), fit(make(tmp_path / "whole"))

    assert_same(resumed, whole)
    assert resumed.callbacks[0].resumed_epoch_ == 6
    assert names(tmp_path / "cut") == ["epoch-000006.ckpt", "epoch-000007.ckpt"]


def other_rounding(function, tensors_):
    """A kernel that does the same but for rounding, as another library does."""
    if function is not torch.ops.aten.addmm.default:
        return None
    return lambda *given: function(*(one.double() for one in given)).float()


@pytest.mark.parametrize("dies", [2, 3, 9])
def test_tapes_go_on_where_they_were(dies, tmp_path, monkeypatch):
    """What a tape rounds in its own way is played from the same batch on."""
    monkeypatch.setattr(tapes, "faster_kernel", other_rounding)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    parameters = {"module": module, "lr": 0.02, "epochs": 20, "batch_size": 4, "random_state": 0}

    def make(name):
        return Estimator(**parameters, callbacks=[Checkpoint(tmp_path / name)])

    fit(make("cut"), dies)
    resumed, whole = fit(make("cut")), fit(make("whole"))

    assert_same(resumed, whole)
    plain = fit(Estimator(**parameters, compile=False))
    assert not torch.equal(plain.module_[0].weight, whole.module_[0].weight)


def test_a_finished_run_does_not_train_again(tmp_path):
    whole = fit(estimator(tmp_path, EMA(0.8)))
    written = (tmp_path / "epoch-000005.ckpt").read_bytes()

    steps = LambdaCallback(on_batch_end=lambda state: pytest.fail("it trained"))
    again = fit(estimator(tmp_path, steps, EMA(0.8)))

    assert_same(again, whole)
    assert again.score(X, Y) == whole.score(X, Y)
    assert (tmp_path / "epoch-000005.ckpt").read_bytes() == written
    assert again.callbacks[-1].resumed_epoch_ == 5


def test_a_run_that_a_callback_stopped_is_finished(tmp_path):
    parameters = {"lr": 0.3, "epochs": 50}
    whole = fit(estimator(tmp_path, EarlyStopping(patience=1), **parameters))
    again = fit(estimator(tmp_path, EarlyStopping(patience=1), **parameters))

    assert_same(again, whole)
    assert whole.n_iter_ < 50
    assert again.callbacks[0].stopped_epoch_ == whole.callbacks[0].stopped_epoch_
    assert again.callbacks[0].best_epoch_ == whole.callbacks[0].best_epoch_


def test_it_goes_on_when_its_end_is_put_off(tmp_path):
    fit(estimator(tmp_path / "short", numbered(), StopAt("number_score", 3)))
    longer = fit(estimator(tmp_path / "short", numbered(), StopAt("number_score", 5)))
    whole = fit(estimator(tmp_path / "whole", numbered(), StopAt("number_score", 5)))

    assert whole.n_iter_ == 5
    assert_same(longer, whole)


def numbered():
    """Adds the number of the epoch to the quantities."""

    def announce(state):
        state.quantities += ("number_score",)

    def note(state):
        state.logs["number_score"] = state.epoch

    return LambdaCallback(on_train_begin=announce, on_epoch_end=note)


def test_with_more_epochs_it_goes_on(tmp_path):
    fit(estimator(tmp_path / "short", EMA(0.8), epochs=3))
    longer = fit(estimator(tmp_path / "short", EMA(0.8), epochs=6))

    assert_same(longer, fit(estimator(tmp_path / "whole", EMA(0.8), epochs=6)))


def test_an_epoch_that_was_cut_short_is_done_again(tmp_path):
    cut = fit(estimator(tmp_path, TimeLimit(0)))

    assert cut.n_iter_ == 1
    assert names(tmp_path) == []
    assert_same(fit(estimator(tmp_path)), fit(Estimator(**without_callbacks(cut))))


def without_callbacks(clf):
    return {**clf.get_params(deep=False), "callbacks": None}
