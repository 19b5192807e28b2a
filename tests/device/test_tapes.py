"""Tapes are played on a device as they are on the host: with dropout, and without a wait."""

import logging

import numpy as np
import pytest
from scenarios import RECURRENT, X, Y
from torch import nn

import pretend_device
from easyclf import Callback, Estimator

DEVICE = "pretend:1"
OPTIMIZERS = ["adam", "sgd", "rmsprop"]


def dropping():
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 3))


def normalizing():
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture(autouse=True)
def _tapes_are_worthwhile_soon(monkeypatch):
    """After 5 batches, where 15 more are to come, also for validations: in each epoch is one."""
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 15)


def fit(module, **parameters):
    settings = {"epochs": 25, "batch_size": 12, "random_state": 0, "validation_split": 0.25}
    return Estimator(module, device=DEVICE, **(settings | parameters)).fit(X, Y)


@pytest.mark.parametrize(
    ("module", "optimizer"),
    [
        *((module, kind) for module in (dropping, normalizing) for kind in OPTIMIZERS),
        (RECURRENT["LSTM"], "adam"),
    ],
)
def test_a_tape_learns_what_is_learned_without_one(module, optimizer, caplog):
    with caplog.at_level(logging.DEBUG, logger="easyclf"):
        taped = fit(module, optimizer=optimizer)
    plain = fit(module, optimizer=optimizer, compile=False)

    messages = [record.message for record in caplog.records]
    name = type(taped.module_).__name__
    assert messages == [f"{name} is {what} from a tape." for what in ("trained", "evaluated")]
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(taped.history_[name], plain.history_[name], atol=1e-5)


def test_epochs_from_a_tape_wait_no_more_than_others():
    waits = []

    class Count(Callback):
        changes = "nothing"

        def on_epoch_end(self, state):
            waits.append(pretend_device.counts()["wait"])

    fit(dropping, callbacks=[Count()], epochs=80)

    # A tape is compared with the module at its 1st, 2nd, 4th ... use.
    per_epoch = np.diff(waits).tolist()
    assert min(per_epoch) == 3
    assert per_epoch.count(3) > 60
