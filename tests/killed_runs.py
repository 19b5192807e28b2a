"""Kills trainings, resumes them, and compares what they end with: a process of its own.

`python tests/killed_runs.py FOLDER SEED any=50 fsync=2` kills 50 at random moments, and two in a
call of `os.fsync`. Prints a line of JSON: how many were killed, how many of them while they wrote,
and which did not end as the training that nobody killed.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from easyclf import EMA, Checkpoint, EarlyStopping, Estimator, LRScheduler

EPOCHS = 12
RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 30)
X = (RNG.normal(size=(90, 4)) + 2 * np.eye(3, 4)[Y]).astype(np.float32)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


def train(folder):
    """Train, or go on; the result is a file beside the folder."""
    callbacks = [
        EMA(0.9),
        LRScheduler("OneCycleLR", max_lr=0.05),
        EarlyStopping(patience=EPOCHS),
        Checkpoint(folder, monitor="val_loss", keep=2),
    ]
    clf = Estimator(
        Network,
        lr=0.01,
        epochs=EPOCHS,
        batch_size=10,
        validation_split=0.2,
        augment=noisy,
        callbacks=callbacks,
        random_state=0,
        verbose=0,
    ).fit(X, Y)
    rows = [{n: v for n, v in row.items() if n != "seconds"} for row in clf.history_]
    result = {"weights": clf.module_.state_dict(), "rows": rows, "best": callbacks[2].best_epoch_}
    torch.save(result, folder.with_suffix(".pt"))


def started(work, *args):
    """Run a function in a process of its own, which ends with it."""
    process = os.fork()
    if process:
        return process
    try:
        work(*args)
        os._exit(0)
    finally:
        os._exit(1)


def ended_well(process):
    return os.waitpid(process, 0)[1] == 0


def dying_in(name, number):
    """Have the process killed in a call of a function of `os`, of `pathlib` too."""
    function, calls = getattr(os, name), []

    def die(*args, **keywords):
        calls.append(args)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **keywords)

    setattr(os, name, die)


def train_and_die(folder, name, number):
    dying_in(name, number)
    train(folder)


def result_of(folder):
    return torch.load(folder.with_suffix(".pt"), weights_only=False)


def is_same(first, second):
    return (
        first["rows"] == second["rows"]
        and first["best"] == second["best"]
        and all(torch.equal(first["weights"][n], second["weights"][n]) for n in first["weights"])
    )


def main(folder, seed, *wanted):
    # The processes that are forked have no threads of OpenMP that could be missing.
    torch.set_num_threads(1)
    rng, folder = random.Random(int(seed)), Path(folder)
    # Here, so that they need not import what a training needs.
    train(folder / "whole")
    whole, began = result_of(folder / "whole"), time.monotonic()
    assert ended_well(started(train, folder / "timed"))
    seconds = time.monotonic() - began
    found = {}
    for moments, n_kills in (word.split("=") for word in wanted):
        counts = found[moments] = {"killed": 0, "writing": 0, "others": []}
        # Those that had ended before do not count.
        for number in range(3 * int(n_kills)):
            if counts["killed"] == int(n_kills):
                break
            run = folder / f"{moments}-{number}"
            if moments == "any":
                process = started(train, run)
                time.sleep(rng.uniform(0, seconds))
                os.kill(process, signal.SIGKILL)
            else:
                process = started(train_and_die, run, moments, rng.randint(1, EPOCHS))
            end = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            counts["killed"] += end == -signal.SIGKILL
            counts["writing"] += has_unfinished(run)
            is_well = ended_well(started(train, run)) and is_same(result_of(run), whole)
            if not is_well or has_unfinished(run):
                counts["others"].append(number)
    print(json.dumps(found))


def has_unfinished(run):
    return run.is_dir() and any(path.suffix == ".tmp" for path in run.iterdir())


if __name__ == "__main__":
    main(*sys.argv[1:])
