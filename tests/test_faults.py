"""Whatever ends a fit, it leaves nothing behind, and no half-fitted estimator that answers."""

import contextlib
import errno
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import Dataset, get_worker_info

from easyclf import Checkpoint, CSVLogger, Estimator, LambdaCallback, LRScheduler, TrainingDiverged

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 10)
X = (RNG.normal(scale=0.5, size=(30, 4)) + 3 * np.eye(3, 4)[Y]).astype(np.float32)
# A fit of two epochs of three batches, with what else may fail.
PLAIN = {"epochs": 2, "batch_size": 10, "lr": 0.01, "random_state": 0}
HOOKS = ["on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end"]
HOOKS += ["on_train_end", "close"]


def everything(folder):
    """All that is the process's and not the fit's."""
    numpy = np.random.get_state()  # noqa: NPY002
    matplotlib = sys.modules.get("matplotlib")
    return {
        "random": random.getstate(),
        "numpy": (numpy[1].tolist(), numpy[2:]),
        "torch": torch.get_rng_state().tolist(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        # torch.get_default_device() of torch 2.6 fails after set_default_device(None).
        "device": torch.empty(0).device,
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "anomalies": torch.is_anomaly_enabled(),
        "matplotlib": matplotlib and dict(matplotlib.rcParams),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "hooks of Python": (sys.excepthook, threading.excepthook, sys.gettrace()),
        "threads": {thread.name for thread in threading.enumerate()},
        "processes": children(),
        "files": sorted(str(path) for path in folder.rglob("*")),
    }


def children():
    """The processes that this one has begun, once those that end have ended.

    joblib's pool, which other tests begin, ends when it likes.
    """

    def present():
        processes = multiprocessing.active_children()
        return [process for process in processes if type(process).__name__ != "LokyProcess"]

    deadline = time.monotonic() + 10
    while present() and time.monotonic() < deadline:
        time.sleep(0.02)
    return present()


class Network(nn.Module):
    """Does something in a call of the training, counted from 1."""

    def __init__(self, call=0, action=None):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.call, self.action, self.n_calls = call, action, 0

    def forward(self, x):
        outputs = self.linear(x)
        if self.training and torch.is_grad_enabled():
            self.n_calls += 1
            if self.n_calls == self.call:
                outputs = outputs * self.action()
        return outputs


class Rows(Dataset):
    """Rows of which one does something when it is read."""

    def __init__(self, action):
        self.action = action

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        if row == 25:
            self.action()
        return X[row], int(Y[row])


class Failure(Exception):
    """Nobody else raises it."""


def fail():
    raise Failure


def press():
    signal.raise_signal(signal.SIGINT)
    return 1.0


def press_twice():
    press()
    press()


def run_out():
    raise torch.OutOfMemoryError("DefaultCPUAllocator: can't allocate memory")


def leave():
    raise SystemExit(3)


def die():
    if get_worker_info():
        os._exit(1)


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


class FullFile(CSVLogger):
    changes = "nothing"

    def _write(self, stream, row):
        full()


def module(action, call=5):
    return lambda folder: {"module": Network(call, action)}


def hook(name, action):
    return lambda folder: {"callbacks": [LambdaCallback(**{name: lambda state: action()})]}


def rows(action, **loader):
    keywords = {f"loader__{name}": value for name, value in loader.items()}
    return lambda folder: {"X": Rows(action), "y": None, "classes": [0, 1, 2], **keywords}


def given(**keywords):
    return lambda folder: keywords


def transform(action):
    def make(folder):
        calls = []

        def change(x):
            calls.append(1)
            if len(calls) == 6:
                action()
            return x

        return {"preprocess": change}

    return make


class CalmAdam(torch.optim.Adam):
    """No class of torch's, so that its `step` is called."""


class FailingAdam(torch.optim.Adam):
    def step(self, closure=None):
        super().step(closure)
        raise Failure


# What ends the fit; its error; whether the estimator answers then.
FAULTS = {
    "Ctrl-C in a batch": (module(press), KeyboardInterrupt, True),
    "Ctrl-C twice": (module(press_twice), KeyboardInterrupt, True),
    "Ctrl-C in a validation": (transform(press), KeyboardInterrupt, True),
    "an error of the module": (module(fail), Failure, False),
    "an error of the first call": (module(fail, call=1), Failure, False),
    "no memory": (module(run_out), MemoryError, False),
    "NaN": (module(lambda: float("nan")), TrainingDiverged, True),
    "infinity": (module(lambda: float("inf")), TrainingDiverged, True),
    "NaN at once": (module(lambda: float("nan"), call=3), TrainingDiverged, True),
    "exit": (module(leave), SystemExit, False),
    "a callable": (transform(fail), Failure, False),
    "an optimizer": (given(optimizer=FailingAdam), Failure, False),
    "a schedule": (
        given(callbacks=[LRScheduler(lambda epoch: 1 / (1 - epoch))]),
        ZeroDivisionError,
        False,
    ),
    "a metric": (given(metrics=[("odd", lambda y, answered: fail())]), Failure, False),
    "a parameter": (given(lr=-1.0), ValueError, False),
    "an impossible folder": (
        lambda folder: {"callbacks": [Checkpoint(folder / "a" / "b")]},
        FileNotFoundError,
        False,
    ),
    "a dataset": (rows(fail), Failure, False),
    "a worker's error": (rows(fail, num_workers=1), Failure, False),
    "a worker's death": (rows(die, num_workers=1), RuntimeError, False),
    **{f"{name} fails": (hook(name, fail), Failure, False) for name in HOOKS},
    **{f"Ctrl-C in {name}": (hook(name, press), KeyboardInterrupt, True) for name in HOOKS[:-1]},
    "a full disk": (lambda folder: {"callbacks": [FullFile(folder / "log.csv")]}, None, True),
}


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported():
    """What Python, torch and multiprocessing do once, when they are first needed, is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = {"loader__num_workers": 1, "optimizer": CalmAdam}
        Estimator(Network(), **PLAIN, **loader).fit(Rows(int))


@pytest.mark.filterwarnings(
    "ignore:FullFile can no longer write:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
    # torch raises for a dead worker wherever the process is, in a finalizer too.
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_nothing_behind(fault, is_fitted, tmp_path, monkeypatch):
    make, error, answers = FAULTS[fault]
    clf = Estimator(Network(), **PLAIN)
    earlier = clf.fit(X, Y).predict_proba(X) if is_fitted else None
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    # To find it `tempfile` writes a file, which stays where a worker is killed just then.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    keywords = {"X": X, "y": Y, "validation_data": (X, Y), **make(tmp_path)}
    before = everything(tmp_path)

    with contextlib.nullcontext() if error is None else pytest.raises(error):
        clf.fit(**keywords)

    gc.collect()
    after = everything(tmp_path)
    after["files"] = [path for path in after["files"] if not path.endswith("log.csv")]
    if fault == "a worker's death":
        # torch opens ten temporary files then, to learn whether too many are open, and its own
        # handler of the signal may end that halfway: one run in thirty on a busy machine.
        torchs = str(tmp_path / "temporary" / "tmp")
        after["files"] = [path for path in after["files"] if not path.startswith(torchs)]
    for name, value in before.items():
        assert after[name] == value, name
    if answers:
        assert np.isfinite(clf.predict_proba(X)).all()
        assert len(clf.history_) == clf.n_iter_ <= 2
    elif is_fitted:
        np.testing.assert_array_equal(clf.predict_proba(X), earlier)
        assert not clf.module_.training
    else:
        with pytest.raises(NotFittedError):
            clf.predict(X)


def at(number, value):
    spoiled = X.copy()
    spoiled[number, 2] = value
    return spoiled


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"X": at(17, 1e25)}, r"The inputs of row 17 of those trained on reach 1e\+25\."),
        (
            {"X": at(4, 0), "preprocess": lambda x: x / (x != 0)},
            "The inputs of row 4 of those trained on hold nan, after `augment` and `preprocess`.",
        ),
        ({"X": (X, at(9, 1e30)), "module": "two"}, "The inputs of row 9 of those trained on reach"),
    ],
)
def test_rows_that_make_a_training_diverge_are_named(keywords, words):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, first, second):
            return self.linear(torch.cat([first, second**2], 1))

    keywords = {"module": nn.Linear(4, 3), **keywords}
    if keywords["module"] == "two":
        keywords["module"] = Two
    with pytest.raises(TrainingDiverged, match=words):
        Estimator(optimizer="sgd", **{**PLAIN, "lr": 1e10}).fit(y=Y, **keywords)


def test_rows_are_not_named_where_the_rate_is_at_fault():
    with pytest.raises(TrainingDiverged) as ended:
        Estimator(Network(), optimizer="sgd", **{**PLAIN, "lr": 1e38, "epochs": 9}).fit(X, Y)

    assert "The inputs of row" not in str(ended.value)


# A training that SIGTERM ends, in a process of its own, and then a fit in this process and in one
# that is forked from it: what both import is imported once.
PROCESSES = """
import os, random, signal, sys
import numpy as np, torch
from torch import nn
from easyclf import Checkpoint, Estimator, LambdaCallback

def terminate(state):
    if state.epoch == 3 and state.batch == 2:
        print("asked", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

def say(word):
    return lambda state: print(word, flush=True)

def train_and_be_terminated():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # coverage has one of its own
    X = np.random.default_rng(0).normal(size=(40, 4)).astype("f4")
    watch = LambdaCallback(
        on_batch_begin=terminate, on_batch_end=say("batch"), close=say("closed")
    )
    Estimator(
        nn.Linear(4, 2),
        epochs=5,
        batch_size=10,
        random_state=0,
        callbacks=[watch, Checkpoint(sys.argv[1])],
    ).fit(X, np.arange(40) % 2)
    print("went on", flush=True)

process = os.fork()
if not process:
    torch.set_num_threads(1)
    train_and_be_terminated()
    os._exit(0)
print("ended:", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)

rng = np.random.default_rng(0)
X, y = rng.normal(size=(3000, 64)).astype("f4"), rng.integers(0, 3, 3000)

def make():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 3))
    return Estimator(network, epochs=1, batch_size=512, random_state=0)

torch.set_num_threads(2)
before = random.getstate()
clf = make().fit(X, y)
assert random.getstate() == before, "an import of the first fit has drawn"
process = os.fork()
if not process:
    signal.alarm(60)  # it hangs
    inherited = clf.predict_proba(X)
    anew = make().fit(X, y).predict_proba(X)
    clf.evaluate(X, y)
    print(abs(inherited - anew).max(), torch.get_num_threads(), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_sigterm_ends_a_kept_run_and_a_forked_fit_waits_for_no_thread(tmp_path):
    """After the batch and with the process; threads are not there in a process that is forked."""
    ended = subprocess.run(
        [sys.executable, "-c", PROCESSES, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stderr
    *_, asked, batch, closed, end, forked = ended.stdout.splitlines()
    assert (asked, batch, closed) == ("asked", "batch", "closed")
    assert end == f"ended: {-signal.SIGTERM}"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002.ckpt"]
    difference, n_threads = forked.split()
    assert float(difference) < 1e-3
    assert n_threads == "2"


@pytest.mark.parametrize("is_kept", [False, True])
def test_sigterm_is_left_alone_without_a_checkpoint_and_afterwards(is_kept, tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seen = []
    look = LambdaCallback(on_epoch_begin=lambda _: seen.append(signal.getsignal(signal.SIGTERM)))
    try:
        callbacks = [look, *[Checkpoint(tmp_path)] * is_kept]
        Estimator(Network(), callbacks=callbacks, **PLAIN).fit(X, Y)

        assert [handler is signal.SIG_DFL for handler in seen] == [not is_kept] * 2
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
