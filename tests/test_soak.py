"""Many fits in one process: memory, open files, threads and processes stay as few as they were.

`EASYCLF_SOAK=500 python -m pytest -s tests/test_soak.py` makes as many fits, and prints what was
seen on the way: two minutes.
"""

import contextlib
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing import active_children
from torch.utils.data import Dataset

from easyclf import CSVLogger, EarlyStopping, Estimator, LambdaCallback, TrainingDiverged

N_FITS = int(os.environ.get("EASYCLF_SOAK", "20"))
IS_LONG = N_FITS >= 100
PROCESS = Path("/proc/self")
# Megabytes that memory may grow by in the later half: what one of 500 fits loses shows.
MOST_GROWTH = 10
X = np.random.default_rng(0).normal(size=(600, 20)).astype(np.float32)
Y = np.arange(600) % 4


class Items(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, row):
        return torch.from_numpy(X[row]), int(Y[row])


class Fails(nn.Linear):
    def __init__(self):
        super().__init__(20, 4)

    def forward(self, x):
        if self.training and len(x) > 100:
            raise LookupError("broken")
        return super().forward(x)


def interrupt(state):
    raise KeyboardInterrupt


def make(**parameters):
    settings = {"epochs": 2, "batch_size": 200, "random_state": 0, "module__hidden": (64,)}
    if "module" in parameters:
        settings.pop("module__hidden")
    return Estimator(**settings | parameters)


def fit_with_tapes(folder):
    make(epochs=30).fit(X, Y).predict_proba(X)


def fit_with_callbacks(folder):
    callbacks = [EarlyStopping(patience=1), CSVLogger(folder / "log.csv")]
    make(callbacks=callbacks, validation_split=0.2, metrics=["f1_macro"]).fit(X, Y).score(X, Y)


def fit_a_dataset(folder):
    make(epochs=1, loader__num_workers=int(IS_LONG)).fit(Items()).predict(Items())


def fit_in_vain(folder):
    with pytest.raises(LookupError):
        make(module=Fails).fit(X, Y)


def diverge(folder):
    with pytest.raises(TrainingDiverged):
        make(lr=1e30, optimizer="sgd").fit(X, Y)


def be_interrupted(folder):
    with pytest.raises(KeyboardInterrupt):
        make(callbacks=[LambdaCallback(on_batch_end=interrupt)]).fit(X, Y)


def refuse(folder):
    with pytest.raises(ValueError, match="NaN"):
        make().fit(np.full_like(X, np.nan), Y)


WORKS = [
    fit_with_tapes,
    fit_with_callbacks,
    fit_a_dataset,
    fit_in_vain,
    diverge,
    be_interrupted,
    refuse,
]


def resident():
    """Megabytes of memory that the process holds."""
    pages = int((PROCESS / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def handles():
    return len(list((PROCESS / "fd").iterdir()))


@pytest.mark.skipif(not PROCESS.exists(), reason="only Linux tells what a process holds")
def test_many_fits_leave_nothing_behind(tmp_path):
    """T33: also fits that fail, diverge, are interrupted, or are refused."""
    seen = []
    for number in range(-len(WORKS), N_FITS):
        with contextlib.redirect_stdout(None):
            WORKS[number % len(WORKS)](tmp_path)
        if number >= 0 and (number % max(1, N_FITS // 10) == 0 or number == N_FITS - 1):
            gc.collect()
            seen.append((resident(), handles(), threading.active_count(), len(active_children())))
            if IS_LONG:
                print("fit {}: {:.1f} MB, {} handles, {} threads, {} processes".format(
                    number + 1, *seen[-1]
                ))  # fmt: skip

    memory, *counts = zip(*seen, strict=True)
    for count in counts:
        assert max(count) == count[0]
    assert memory[-1] - memory[len(memory) // 2] < MOST_GROWTH
    assert list(tmp_path.iterdir()) == [tmp_path / "log.csv"]
