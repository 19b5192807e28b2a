"""Runs that are kept, and go on where they were kept."""

import contextlib
import errno
import io
import os
import pickletools
import re
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.model_selection import cross_val_score
from sklearn.utils.fixes import parse_version
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
    archives,
)
from easyclf.callbacks import checkpoints
from easyclf.exceptions import TapeDiffers
from easyclf.locks import holding
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
    plain = {
        "module": Network,
        "optimizer": "adam",
        "lr": 0.01,
        "epochs": 5,
        "batch_size": 12,
        "random_state": 0,
    }
    return Estimator(callbacks=[*callbacks, keep], **{**plain, **parameters})


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


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_disk(monkeypatch):
    """That files are flushed is said in `test_files.py`; to wait for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


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


@pytest.mark.skipif(
    parse_version(torch.__version__) < parse_version("2.7"),
    reason="torch imports some of itself in a call of a module, which is not recorded then",
)
@pytest.mark.parametrize("dies", [2, 9])
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


def test_it_goes_on_when_its_end_is_gone(tmp_path):
    stopped = fit(estimator(tmp_path / "short", EarlyStopping("val_loss", 1), lr=0.3, epochs=9))
    longer = fit(estimator(tmp_path / "short", lr=0.3, epochs=9))

    assert stopped.n_iter_ < longer.n_iter_ == 9
    assert_same(longer, fit(estimator(tmp_path / "whole", lr=0.3, epochs=9)))


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


class Wide(Network):
    def __init__(self):
        super().__init__(width=9)


OTHERS = {
    "lr": ({"lr": 0.1}, {}, r"`lr` was 0.01, and is 0.1 now"),
    "module": ({"module": Wide}, {}, r"`module` was Network, and is Wide now"),
    "module__width": ({"module__width": 9}, {}, r"`module__width` was not given, and is 9 now"),
    "optimizer": ({"optimizer": "sgd"}, {}, r"`optimizer` was 'adam', and is 'sgd' now"),
    "decay": ({"optimizer__weight_decay": 0.1}, {}, "`optimizer__weight_decay` was not given"),
    "seed": ({"random_state": 1}, {}, "`random_state` was of the seed 0, and is of the seed 1"),
    "metrics": ({"metrics": ["f1_macro"]}, {}, "`metrics` was"),
    "fewer epochs": ({"epochs": 1}, {}, "`epochs` was at least 2, and 1 are planned now"),
    "batches": ({"batch_size": 6, "accumulate": 2}, {}, "`batch_size` was 12.*`accumulate` was 1"),
    "rows": ({}, {"X": X[:30], "y": Y[:30]}, r"`X` was 60 rows of shape \(4,\) .* is 30 rows"),
    "values": ({}, {"X": X + 1}, r"`X` was 60 rows of shape \(4,\) with the checksum"),
    "columns": ({}, {"X": X[:, :3], "validation_data": None}, r"is 60 rows of shape \(3,\)"),
    "labels": ({}, {"y": np.roll(Y, 1)}, r"`y` was of shape \(60,\) with the checksum"),
    "classes": ({}, {"y": np.array(["a", "b", "c"])[Y], "validation_data": None}, "`classes` was"),
    "weights": ({}, {"sample_weight": np.ones(60)}, "`sample_weight` was not given"),
    "validation": ({}, {"validation_data": None}, "`X_val` was 30 rows .* is not given now"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_checkpoint_of_another_training_is_refused_by_name(other, tmp_path, ended):
    parameters, keywords, words = OTHERS[other]
    before = names(ended)

    with pytest.raises(ValueError, match=words) as refused:
        fit(estimator(ended, **parameters), **keywords)

    assert f"`path` {str(ended)!r}, which holds epoch 2 of another training" in str(refused.value)
    assert "Give another `path`, or resume=False" in str(refused.value)
    assert names(ended) == before


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("ended")
    fit(estimator(folder, epochs=2))
    return folder


def test_weights_of_other_code_are_refused_by_name(tmp_path, monkeypatch):
    fit(estimator(tmp_path, epochs=1))
    monkeypatch.setattr(Network.__init__, "__defaults__", (9,))

    with pytest.raises(ValueError, match=r"weight `layers.0.weight` was \(8, 4\), and is \(9, 4\)"):
        fit(estimator(tmp_path))


def test_a_run_that_began_with_weights_of_another_file_is_refused(tmp_path):
    for seed in (0, 1):
        begun = Estimator(Network, epochs=1, random_state=seed).fit(X, Y)
        begun.save_weights(tmp_path / f"{seed}.safetensors")

    def make(seed):
        return estimator(tmp_path / "run").load_weights(tmp_path / f"{seed}.safetensors")

    fit(make(0), 3)
    with pytest.raises(ValueError, match=r"`load_weights` was 9 tensors with the .* now"):
        fit(make(1))
    assert fit(make(0)).callbacks[0].resumed_epoch_ == 2


def test_a_run_without_a_callback_that_it_had_is_refused(tmp_path):
    fit(estimator(tmp_path, EMA(0.9)), 2)

    with pytest.raises(ValueError, match="of another training: `callbacks` had EMA"):
        fit(estimator(tmp_path))


def test_another_state_of_a_callback_is_refused(tmp_path):
    fit(estimator(tmp_path, EarlyStopping()), 2)

    namesake = type("EarlyStopping", (Callback,), {})
    with pytest.raises(ValueError, match="the state of the callback EarlyStopping does not fit"):
        fit(estimator(tmp_path, namesake()))


def test_folds_cannot_share_a_folder(tmp_path):
    clf = estimator(tmp_path, epochs=1)

    with pytest.raises(ValueError, match="of another training: `X` was 40 rows"):
        cross_val_score(clf, X, Y, cv=3, error_score="raise")


def test_resume_false_begins_anew_and_takes_the_place_of_the_old_run(tmp_path):
    fit(estimator(tmp_path, epochs=5, keep=Checkpoint(tmp_path, keep=3)))
    anew = fit(estimator(tmp_path, keep=Checkpoint(tmp_path, resume=False), epochs=2, lr=0.1))

    assert anew.n_iter_ == 2
    assert anew.callbacks[0].resumed_epoch_ is None
    assert names(tmp_path) == ["epoch-000002.ckpt"]


def test_what_was_there_stays_until_the_new_run_is_kept(tmp_path):
    fit(estimator(tmp_path, epochs=3))
    fit(estimator(tmp_path, keep=Checkpoint(tmp_path, resume=False)), 1)

    assert names(tmp_path) == ["epoch-000003.ckpt"]


@pytest.mark.parametrize("keep", [1, 2, 9])
def test_so_many_of_the_newest_are_kept(keep, tmp_path):
    fit(estimator(tmp_path, epochs=4, keep=Checkpoint(tmp_path, keep=keep)))

    assert names(tmp_path) == [f"epoch-00000{n}.ckpt" for n in range(max(1, 5 - keep), 5)]


def soon_too_large():
    """Rates after which the figures get worse."""
    return LRScheduler(lambda epoch: 0.02 if epoch < 2 else 30.0)


def test_the_weights_of_the_best_epoch_are_a_file_of_their_own(tmp_path):
    keep = Checkpoint(tmp_path, monitor="val_loss")
    clf = fit(estimator(tmp_path, EMA(0.2), soon_too_large(), keep=keep))

    best = clf.history_.best("val_loss")
    assert (keep.best_epoch_, keep.best_score_) == (best["epoch"], best["val_loss"])
    assert best["epoch"] < 5
    clf.module_.load_state_dict(load_file(tmp_path / "best.safetensors"))
    assert clf.evaluate(X[::2], Y[::2])["loss"] == best["val_loss"]


def test_the_best_epoch_is_known_after_a_resumption(tmp_path):
    def make(name):
        keep = Checkpoint(tmp_path / name, monitor="val_accuracy")
        return estimator(None, soon_too_large(), keep=keep)

    fit(make("cut"), 5)
    resumed, whole = fit(make("cut")), fit(make("whole"))

    assert resumed.callbacks[-1].best_epoch_ == whole.callbacks[-1].best_epoch_ < 5
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", [EarlyStopping, Checkpoint, ReduceLROnPlateau])
def test_what_watches_another_quantity_begins_afresh(kind, tmp_path):
    def make(monitor):
        if kind is Checkpoint:
            return estimator(None, numbered(), keep=Checkpoint(tmp_path, monitor=monitor))
        return estimator(tmp_path, numbered(), kind(monitor, patience=1))

    fit(make("number_score"), 3)
    # No accuracy is above the number of an epoch.
    after = fit(make("val_accuracy"))

    if kind is ReduceLROnPlateau:
        assert after.history_[3, "lr"] == after.history_[2, "lr"]
    else:
        assert after.callbacks[1].best_score_ == max(after.history_["val_accuracy"][2:])


BY_LOSS = {"schedule": "plateau", "patience": 0}
OF_THE_FIRST = {"schedule": "LambdaLR", "lr_lambda": lambda epoch: 0.5**epoch}
HALVING = {"schedule": "ExponentialLR", "gamma": 0.5}


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [
        (BY_LOSS, {**BY_LOSS, "monitor": "val_accuracy"}, [1, 1, 0.1, 0.1, 0.1, 0.01]),
        (BY_LOSS, HALVING, [1, 1, 0.1, 0.1, 0.05, 0.025]),
        (BY_LOSS, OF_THE_FIRST, [1, 1, 0.1, 0.1, 0.05, 0.025]),
        (HALVING, BY_LOSS, [1, 0.5, 0.25, 0.25, 0.25, 0.025]),
    ],
    ids=["another quantity", "a schedule of none", "one of the first rate", "a schedule of one"],
)
def test_a_schedule_of_another_quantity_begins_afresh_at_the_rate_so_far(
    before, after, rates, tmp_path
):
    """Neither quantity gets better."""
    worsen = LambdaCallback(
        on_epoch_end=lambda state: state.logs.update(
            val_loss=state.epoch, val_accuracy=-state.epoch
        )
    )

    def make(settings):
        plain = {"lr": 1.0, "optimizer": "sgd", "epochs": 6}
        return estimator(tmp_path, worsen, LRScheduler(**settings), **plain)

    fit(make(before), 4)
    resumed = fit(make(after))

    assert resumed.history_["lr"].tolist() == pytest.approx(rates)


@pytest.mark.parametrize("n_bytes", [-9, 0, 9])
def test_a_torn_checkpoint_is_passed_over_with_a_warning(n_bytes, tmp_path):
    def make(name):
        return estimator(None, keep=Checkpoint(tmp_path / name, keep=3))

    fit(make("cut"), 5)
    newest = tmp_path / "cut" / "epoch-000004.ckpt"
    newest.write_bytes(newest.read_bytes()[:n_bytes])
    with pytest.warns(UserWarning, match=r"goes on without 'epoch-000004.ckpt': .* cannot be read"):
        resumed = fit(make("cut"))

    assert resumed.callbacks[0].resumed_epoch_ == 3
    assert_same(resumed, fit(make("whole")))


def test_a_torn_checkpoint_is_told_once_where_the_seed_is_looked_up_too(tmp_path):
    fit(estimator(tmp_path, random_state=None, keep=Checkpoint(tmp_path, keep=3)), 4)
    newest = tmp_path / "epoch-000003.ckpt"
    newest.write_bytes(newest.read_bytes()[:-9])

    with pytest.warns(UserWarning, match="goes on without 'epoch-000003.ckpt'") as told:
        resumed = fit(estimator(tmp_path, random_state=None))

    assert len(told) == 1
    assert resumed.callbacks[0].resumed_epoch_ == 2


@pytest.mark.parametrize("name", ["easyclf", "torch", "numpy", "scikit-learn"])
def test_a_run_that_another_version_kept_goes_on_with_one_warning(name, tmp_path, monkeypatch):
    here = dict(archives._versions())
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_versions", lambda: {**here, name: "0.0.2"})
        fit(estimator(tmp_path, random_state=None), 3)

    words = (
        f"epoch 2 was written with {name} 0.0.2, and goes on with {name} {re.escape(here[name])}"
    )
    with pytest.warns(UserWarning, match=words) as told:
        resumed = fit(estimator(tmp_path, random_state=None))

    assert len(told) == 1
    assert resumed.callbacks[0].resumed_epoch_ == 2
    fit(estimator(tmp_path, random_state=None))


def test_a_run_that_a_repaired_version_kept_is_not_told(tmp_path, monkeypatch):
    repaired = {n: ".".join([*v.split(".")[:2], "99"]) for n, v in archives._versions().items()}
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_versions", lambda: repaired)
        fit(estimator(tmp_path), 3)

    assert fit(estimator(tmp_path)).callbacks[0].resumed_epoch_ == 2


def is_refused(folder, **parameters):
    with pytest.raises(ValueError, match="where another training is under way; each") as refused:
        fit(estimator(folder, **parameters))
    return f"`path` {str(folder)!r}" in str(refused.value)


@pytest.mark.parametrize("parameters", [{}, {"lr": 0.3}, {"random_state": None}])
def test_a_run_that_begins_while_another_one_is_on_is_refused(parameters, tmp_path):
    """Before it is trained, whatever it is; the one that is on goes on as though alone."""
    tried = []

    def begin_another(state):
        tried.append(is_refused(tmp_path / "run", **parameters))
        tried.append(is_refused(tmp_path / "run", keep=Checkpoint(tmp_path / "run", resume=False)))

    begin = LambdaCallback(on_epoch_begin=begin_another)
    first = fit(estimator(tmp_path / "run", begin, epochs=2))

    assert tried == [True] * 4
    assert_same(first, fit(estimator(tmp_path / "alone", LambdaCallback(), epochs=2)))
    assert names(tmp_path / "run") == ["epoch-000002.ckpt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each process would import torch anew")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_run_of_another_process_keeps_the_folder_until_that_is_gone(tmp_path):
    (tmp_path / "run").mkdir()
    read, is_on = os.pipe()
    process = os.fork()
    if not process:
        with holding(tmp_path / "run"):
            os.write(is_on, b"!")
            signal.pause()
    try:
        assert os.read(read, 1)
        assert is_refused(tmp_path / "run")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(read)
        os.close(is_on)

    assert names(tmp_path / "run") == [".lock"]
    fit(estimator(tmp_path / "run", epochs=1))
    assert names(tmp_path / "run") == ["epoch-000001.ckpt"]


def test_a_fit_that_never_begins_leaves_no_folder_and_keeps_none(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fit(estimator(tmp_path / "run", module=lambda: 1 / 0))
        assert not (tmp_path / "run").exists()
    assert_same(fit(estimator(tmp_path / "run")), fit(estimator(tmp_path / "other")))


def test_without_a_whole_checkpoint_training_begins_anew(tmp_path):
    fit(estimator(tmp_path), 3)
    (tmp_path / "epoch-000002.ckpt").write_bytes(b"PK\x03\x04")

    with pytest.warns(UserWarning, match="goes on without"):
        clf = fit(estimator(tmp_path))

    assert clf.callbacks[0].resumed_epoch_ is None
    assert clf.n_iter_ == 5


def test_other_files_are_left_alone_and_those_of_dead_writers_removed(tmp_path):
    mine = ["notes.tmp", "epoch-1.ckpt", ".epoch-000001.ckpt.tmp", "epoch-000009.ckpt.bak"]
    left = ".epoch-000003.ckpt.0123456789abcdef.tmp"
    for name in [*mine, left]:
        (tmp_path / name).write_text("mine")

    fit(estimator(tmp_path, epochs=1))

    assert names(tmp_path) == sorted([*mine, "epoch-000001.ckpt"])


class Full:
    """A disk that is full from the n-th file on."""

    def __init__(self, n_files, monkeypatch):
        self.n_left, self.replacing = n_files, checkpoints.write_archive
        monkeypatch.setattr(checkpoints, "write_archive", self)

    def __call__(self, path, *args, **keywords):
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self.replacing(path, *args, **keywords)


def test_a_full_disk_costs_one_warning_and_the_old_checkpoint_stays(tmp_path, monkeypatch):
    Full(2, monkeypatch)

    with pytest.warns(UserWarning, match="can no longer write into .*No space left") as warned:
        clf = fit(estimator(tmp_path))

    assert len(warned) == 1
    assert clf.n_iter_ == 5
    assert names(tmp_path) == ["epoch-000002.ckpt"]
    monkeypatch.undo()
    assert_same(fit(estimator(tmp_path)), clf)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda folder: folder / "a" / "b", FileNotFoundError, "there is no folder .*a'; make"),
        (lambda folder: folder / "file", NotADirectoryError, "is the file .*; give a folder"),
        (lambda folder: 3, TypeError, "`path` of Checkpoint must be the path of a folder; got 3"),
        (lambda folder: "", TypeError, "must be the path of a folder; got ''"),
    ],
)
def test_an_impossible_folder_is_refused_before_training(make, error, words, tmp_path):
    (tmp_path / "file").write_text("mine")
    steps = LambdaCallback(on_batch_begin=lambda state: pytest.fail("it trained"))

    with pytest.raises(error, match=words):
        fit(estimator(make(tmp_path), steps))


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checkpoints, "check_writable", refuse)
    steps = LambdaCallback(on_batch_begin=lambda state: pytest.fail("it trained"))

    with pytest.raises(PermissionError, match="Permission denied") as refused:
        fit(estimator(tmp_path, steps))
    assert f"Checkpoint cannot write into the folder {str(tmp_path)!r}." in refused.value.__notes__


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    def refuse(self, **keywords):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    steps = LambdaCallback(on_batch_begin=lambda state: pytest.fail("it trained"))

    with pytest.raises(FileNotFoundError, match=r"folder could not be made: No such.*run'") as told:
        fit(estimator(tmp_path / "run", steps))
    assert "Checkpoint cannot write into the folder" in told.value.__notes__[0]


def test_integers_of_numpy_are_taken(tmp_path):
    fit(estimator(None, keep=Checkpoint(tmp_path, every=np.int64(1), keep=np.int64(2))))

    assert len(list(tmp_path.glob("*.ckpt"))) == 2


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"every": 0}, "`every` must be at least 1; got 0"),
        ({"every": 1.5}, "`every` must be an integer of at least 1; got 1.5"),
        ({"keep": 0}, "`keep` must be at least 1; got 0"),
        ({"resume": "no"}, "`resume` must be True or False; got 'no'"),
        ({"monitor": "val_los"}, "monitors 'val_los', which this run does not measure; did you"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keywords, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        fit(estimator(None, keep=Checkpoint(tmp_path, **keywords)))


def test_two_of_it_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`callbacks` has 2 of Checkpoint; give one"):
        fit(estimator(tmp_path, Checkpoint(tmp_path / "b")))


class Counter(Callback):
    """Counts the batches of a run."""

    changes = "nothing"

    def on_train_begin(self, state):
        self.n_batches_ = 0
        self.marks_ = {}

    def on_batch_end(self, state):
        self.n_batches_ += 1
        self.marks_[self.n_batches_] = (torch.ones(2, 3).T, np.float32(2), np.arange(2), None, "a")

    def state_dict(self):
        return {"n_batches": self.n_batches_, "marks": self.marks_}

    def load_state_dict(self, state):
        self.n_batches_, self.marks_ = state["n_batches"], state["marks"]


def test_a_callback_of_the_users_own_keeps_its_state(tmp_path):
    fit(estimator(tmp_path, Counter()), 3)
    counter = Counter()
    fit(estimator(tmp_path, counter))

    assert counter.n_batches_ == 25
    tensor, number, array, nothing, text = counter.marks_[1]
    assert torch.equal(tensor, torch.ones(3, 2))
    assert (type(number), number, array.tolist()) == (np.float32, 2, [0, 1])
    assert (nothing, text) == (None, "a")


def test_a_state_that_cannot_be_kept_is_refused_before_training(tmp_path):
    class Odd(Counter):
        def state_dict(self):
            return {"found": [{1, 2}]}

    steps = LambdaCallback(on_batch_begin=lambda state: pytest.fail("it trained"))
    with pytest.raises(TypeError, match=r"The state of the callback Odd holds a set"):
        fit(estimator(tmp_path, Odd(), steps))


def test_a_state_that_is_never_given_back_is_refused(tmp_path):
    class Half(Callback):
        def state_dict(self):
            return {"n": 1}

    with pytest.raises(TypeError, match="Half has `state_dict` without `load_state_dict`"):
        fit(estimator(tmp_path, Half()))


class Remembering(Network):
    """Keeps something beside tensors."""

    def __init__(self):
        super().__init__()
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += self.training
        return super().forward(x)

    def get_extra_state(self):
        return {"n_calls": self.n_calls}

    def set_extra_state(self, state):
        self.n_calls = state["n_calls"]


def test_what_a_module_keeps_beside_tensors_goes_on(tmp_path):
    fit(estimator(tmp_path / "cut", module=Remembering), 3)
    resumed = fit(estimator(tmp_path / "cut", module=Remembering))
    whole = fit(estimator(tmp_path / "whole", module=Remembering))

    assert resumed.module_.n_calls == whole.module_.n_calls
    assert_same(resumed, whole)


def test_a_fit_that_goes_on_is_kept_too(tmp_path):
    """A warm start is resumed; before its first checkpoint it begins where the first fit ended."""

    def make(name, dies=None):
        first = fit(estimator(tmp_path / name, EarlyStopping(patience=9), epochs=3))
        first.set_params(warm_start=True)
        return fit(first, dies)

    make("cut", 4)
    make("cut", 6)
    resumed, whole = make_again(tmp_path / "cut"), make("whole")

    assert whole.n_iter_ == 8 - 2
    assert_same(resumed, whole)


def make_again(folder):
    first = fit(Estimator(**without_callbacks(estimator(folder, epochs=3))))
    clf = estimator(folder, EarlyStopping(patience=9), epochs=3, warm_start=True)
    clf._fitted = first._fitted
    for name in ("n_features_in_",):
        setattr(clf, name, getattr(first, name))
    return fit(clf)


def test_the_checkpoint_of_a_warm_start_is_not_that_of_a_first_fit(tmp_path):
    clf = fit(estimator(tmp_path, epochs=2))
    fit(clf.set_params(warm_start=True))

    with pytest.raises(ValueError, match="its fit went on after epoch 2 of a training"):
        fit(estimator(tmp_path, epochs=9))


def differing_at(epoch, monkeypatch):
    """Tapes that are found to differ at the beginning of an epoch, if there are any."""
    numbers = []

    class Differing(tapes.Tapes):
        def check(self, **keywords):
            numbers.append(self._is_on)
            if self._is_on and sum(numbers) == epoch:
                raise TapeDiffers("it is wrong")
            super().check(**keywords)

    monkeypatch.setattr("easyclf.engine.trainer.Tapes", Differing)
    return numbers


@pytest.mark.filterwarnings("ignore:A recording of Network:UserWarning")
def test_what_wrong_tapes_have_done_is_not_gone_on_with(tmp_path, monkeypatch):
    """Neither by the run that found it out, nor by one that is begun later."""
    differing_at(6, monkeypatch)
    fit(estimator(tmp_path / "cut", EMA(0.8)), 5)
    assert names(tmp_path / "cut") == ["epoch-000004.ckpt"]
    looks = differing_at(1, monkeypatch)
    resumed = fit(estimator(tmp_path / "cut", EMA(0.8)), 4)
    assert not hasattr(resumed, "module_")
    n_looks = sum(looks)
    resumed = fit(estimator(tmp_path / "cut", EMA(0.8)))
    monkeypatch.undo()
    whole = fit(estimator(tmp_path / "whole", EMA(0.8), compile=False))

    assert resumed.callbacks[-1].resumed_epoch_ == 3
    assert sum(looks) == n_looks, "it used tapes again"
    assert_same(resumed, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_datasets_and_loaders_go_on(workers, tmp_path):
    def make(name, dies=None):
        rows = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
        loader = DataLoader(rows, batch_size=12, shuffle=True, num_workers=workers)
        return fit(estimator(tmp_path / name, batch_size="auto"), dies, X=loader, y=None)

    make("cut", 3)

    assert_same(make("cut"), make("whole"))


def test_epochs_of_a_number_of_steps_go_on(tmp_path):
    def make(name, dies=None):
        keywords = {"X": X, "y": Y, "steps_per_epoch": 3}
        return fit(estimator(tmp_path / name, SWA(0.3)), dies, **keywords)

    make("cut", 4)

    assert_same(make("cut"), make("whole"))


@pytest.mark.parametrize("logger", [CSVLogger, JSONLogger])
@pytest.mark.parametrize("dies", [3, None])
def test_a_log_has_every_epoch_once(logger, dies, tmp_path):
    fit(estimator(tmp_path / "run", logger(tmp_path / "log")), dies)
    fit(estimator(tmp_path / "run", logger(tmp_path / "log")))

    lines = (tmp_path / "log").read_text().splitlines()[logger is CSVLogger :]
    numbers = [line.split(",")[0].removeprefix('{"epoch": ') for line in lines]
    assert numbers == ["1", "2", "3", "4", "5"]


def test_a_table_knows_the_best_epoch_of_the_run(tmp_path, capsys):
    whole = fit(estimator(tmp_path / "whole", soon_too_large()))
    best = whole.history_.best("val_loss")["epoch"]
    assert best < 4
    fit(estimator(tmp_path / "cut", soon_too_large()), 5)

    fit(estimator(tmp_path / "cut", soon_too_large(), AccuracyLogger()))

    last, summary = capsys.readouterr().out.splitlines()[-2:]
    assert not last.endswith("*")
    assert summary.endswith(f"in epoch {best}")


def test_without_a_seed_the_run_goes_on_with_its_own(tmp_path):
    seeds = {fit(estimator(tmp_path, random_state=None), 2)._is_fitted() for _ in range(2)}
    first = fit(estimator(tmp_path, random_state=None))
    second = fit(estimator(tmp_path, random_state=None))

    assert seeds == {False}
    assert_same(first, second)


def test_a_divergence_keeps_the_last_finite_epoch(tmp_path):
    rates = LRScheduler(lambda epoch: 0.01 if epoch < 2 else 1e30)

    for _ in range(2):
        clf = estimator(tmp_path, rates)
        with pytest.raises(TrainingDiverged, match="in epoch 3"):
            fit(clf)
        assert names(tmp_path) == ["epoch-000002.ckpt"]
        assert clf.n_iter_ == 2


def test_an_interrupted_run_goes_on(tmp_path):
    def press(state):
        if state.epoch == 3 and state.batch == 2:
            signal.raise_signal(signal.SIGINT)

    clf = estimator(tmp_path, LambdaCallback(on_batch_begin=press))
    with pytest.raises(KeyboardInterrupt):
        fit(clf)

    assert clf.n_iter_ == 2
    assert_same(fit(estimator(tmp_path)), fit(Estimator(**without_callbacks(clf))))


def test_no_file_has_a_pickle_in_it(tmp_path):
    fit(estimator(tmp_path, EMA()))

    with zipfile.ZipFile(tmp_path / "epoch-000005.ckpt") as archive:
        kinds = {name.rpartition(".")[2] for name in archive.namelist()}
        for name in archive.namelist():
            with contextlib.suppress(Exception):
                pickletools.dis(archive.read(name), io.StringIO())
                pytest.fail(f"{name} is a pickle")
    assert kinds == {"json", "safetensors"}


def test_what_is_at_hand_after_a_run_is_what_was_asked_for(tmp_path):
    keep = Checkpoint(tmp_path, monitor="loss", every=2)

    assert repr(keep) == f"Checkpoint(path={tmp_path!r}, monitor='loss', every=2)"
    clf = fit(estimator(None, keep=keep))
    assert {name for name in vars(keep) if name.endswith("_")} == {
        "resumed_epoch_",
        "best_score_",
        "best_epoch_",
    }
    assert clf.get_params()["callbacks"] == [keep]


class Pictures(nn.Module):
    """Its weights lie in memory in another order than their dimensions."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.layers(x)


def test_a_run_over_images_goes_on(tmp_path):
    images = np.random.default_rng(0).random(size=(60, 3, 8, 8), dtype=np.float32)

    def make(name, dies=None):
        clf = estimator(tmp_path / name, module=Pictures)
        return fit(clf, dies, X=images, validation_data=None)

    make("cut", 3)
    resumed = make("cut")

    assert_same(resumed, make("whole"))
    weight = resumed.module_.layers[0].weight
    assert resumed.optimizer_.state[weight]["exp_avg"].stride() == weight.stride()
