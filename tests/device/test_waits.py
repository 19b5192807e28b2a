"""The host waits for the device twice in an epoch, whatever the data, and once more to validate."""

import numpy as np
import pytest
import torch
from scenarios import DATA, RECURRENT, WEIGHT, X, Y, network
from scipy.sparse import csr_array
from test_training import OF_FIT
from torch import nn

import pretend_device
from easyclf import Callback, EarlyStopping, Estimator
from easyclf.data import Batch
from easyclf.engine.metrics import BatchResult, RunningMetrics

# Datasets whose items are on the device, as their labels are looked at on the host, and
# torchvision's `Normalize`, which takes its mean there anew for each batch.
WAITING = ["Dataset there", "weighted Dataset there", "images, transformed"]


class Waits(Callback):
    """Counts how often the host waited from the end of one epoch to that of the next."""

    changes = "nothing"

    def on_train_begin(self, state):
        self._counts = []

    def on_epoch_end(self, state):
        self._counts.append(pretend_device.counts().get("wait", 0))

    @property
    def per_epoch(self):
        return set(np.diff(self._counts).tolist())


def waits(X=X, y=Y, callbacks=(), **given):
    keywords = {name: given.pop(name) for name in OF_FIT if name in given}
    counter = Waits()
    settings = {"module": network(), "batch_size": 8, "compile": False, "epochs": 4}
    if type(X).__name__ == "DataLoader":
        settings.pop("batch_size")
    clf = Estimator(device="pretend:0", callbacks=[counter, *callbacks], **(settings | given))
    clf.fit(X, y, **keywords)
    return counter.per_epoch


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind not in WAITING])
def test_twice_whatever_the_data(kind, tmp_path):
    assert waits(**DATA[kind](tmp_path)) == {2}


@pytest.mark.parametrize(
    "parameters",
    [
        {"class_weight": "balanced"},
        {"sample_weight": WEIGHT},
        {"X": csr_array(X * (X > 0)), "sample_weight": WEIGHT},
        {"clip_grad_norm": 1.0},
        {"accumulate": 2},
        {"steps_per_epoch": 4},
        {"optimizer": "rmsprop"},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "fp16", "clip_grad_norm": 1.0, "optimizer": "sgd"},
        {"preprocess": lambda x: x / 2},
        {
            "module": nn.Sequential(
                nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
            )
        },
        {"module": RECURRENT["LSTM"]},
    ],
    ids=lambda parameters: ", ".join(parameters),
)
def test_twice_whatever_the_settings(parameters):
    assert waits(**parameters) == {2}


VALIDATED = [kind for kind in DATA if kind not in WAITING]


@pytest.mark.parametrize("kind", VALIDATED)
def test_three_times_with_validation_whatever_the_data(kind, tmp_path):
    given = DATA[kind](tmp_path)
    rows, y = given.get("X", X), given.get("y", Y)

    callbacks = [EarlyStopping(patience=9)]
    validation_data = rows if y is None else (rows, y)
    assert waits(**given, validation_data=validation_data, callbacks=callbacks) == {3}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("kind", ["array", "Dataset", "loader", "sparse"])
def test_three_times_with_validation_in_fp16(kind, optimizer, tmp_path):
    given = DATA[kind](tmp_path)
    rows, y = given.get("X", X), given.get("y", Y)

    validation_data = rows if y is None else (rows, y)
    settings = {"precision": "fp16", "optimizer": optimizer, "validation_data": validation_data}
    assert waits(**given, **settings) == {3}


def test_a_prediction_waits_for_its_rows_and_its_answers():
    clf = Estimator(network(), device="pretend:0", epochs=1).fit(X, Y)
    pretend_device.reset()

    clf.predict(X)

    assert pretend_device.waits() == {"copy to the device": 1, "copy to the host": 1}


def test_a_wait_can_be_an_error():
    x = torch.ones(2, device="pretend:0")

    with pretend_device.without_waits(), pytest.raises(RuntimeError, match=r"waits .*: item"):
        x.sum().item()


def test_figures_of_many_batches_are_packed_where_they_are_and_read_at_once():
    metrics = RunningMetrics()
    n_batches = 1500
    pretend_device.reset()
    for number in range(n_batches):
        loss, one = (
            torch.full((), float(number), device="pretend"),
            torch.ones((), device="pretend"),
        )
        # Every third batch has no weights of its own.
        result = BatchResult(loss, 1, one, 1) if number % 3 else BatchResult(loss, one, one, one)
        metrics.add(result, Batch(X, None, None))

    assert not pretend_device.waits()
    assert len(metrics._recent) < n_batches / 2
    figures = metrics.read()

    assert figures == {"loss": sum(range(n_batches)) / n_batches, "accuracy": 1.0}
    assert sum(pretend_device.waits().values()) == n_batches // 512 + 1
