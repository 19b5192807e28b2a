"""Callbacks do on a device what they do on the host, and none of them waits in every batch."""

import csv
import json

import numpy as np
import pytest
import torch
from scenarios import X, Y, network
from test_training import check_same
from test_waits import waits
from torch import nn

from easyclf import (
    EMA,
    SWA,
    AccuracyLogger,
    CSVLogger,
    EarlyStopping,
    Estimator,
    GradientNorm,
    JSONLogger,
    LRScheduler,
    ProgressBar,
    ReduceLROnPlateau,
    StopAt,
    TensorBoard,
    TimeLimit,
    Unfreeze,
)

DEVICE = "pretend:1"


def normalizing():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


# Each with what an epoch waits for beside losses, weights and validation.
CALLBACKS = {
    "EMA": (lambda: EMA(0.9), 0),
    # torch's average over all batches asks for their number, in the pass at the end: five times.
    "SWA": (lambda: SWA(0.5), 5),
    "SWA with a rate": (lambda: SWA(0.5, lr=0.01), 5),
    "OneCycleLR": (lambda: LRScheduler("OneCycleLR"), 0),
    "cosine": (lambda: LRScheduler("cosine", warmup=1), 0),
    "a function": (lambda: LRScheduler(lambda epoch: 0.1 * 0.5**epoch), 0),
    "on a plateau": (lambda: ReduceLROnPlateau("loss", patience=0, min_delta=1.0), 0),
    "EarlyStopping": (lambda: EarlyStopping("val_accuracy", patience=9), 0),
    "StopAt": (lambda: StopAt("val_accuracy", 2.0), 0),
    "TimeLimit": (lambda: TimeLimit(1e6), 0),
    "AccuracyLogger": (AccuracyLogger, 0),
    "ProgressBar": (ProgressBar, 0),
    # The norm of the epoch.
    "GradientNorm": (GradientNorm, 1),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_does_what_it_does_on_the_host(name, capsys):
    callback, _ = CALLBACKS[name]

    there = check_same(
        {"module": normalizing, "callbacks": [callback()], "epochs": 6, "validation_split": 0.25}
    )

    assert {str(value.device) for value in there.optimizer_.state_dict()["state"][0].values()} == {
        DEVICE
    }


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_does_not_wait_in_every_batch(name, capsys):
    callback, n_waits = CALLBACKS[name]

    per_epoch = waits(
        module=normalizing, callbacks=[callback()], validation_split=0.25, epochs=6, lr=0.01
    )

    assert max(per_epoch) == 3 + n_waits


def test_weights_are_unfrozen_where_they_are():
    check_same({"freeze": "0.*", "callbacks": [Unfreeze({2: "0.*"})]})


def test_the_best_weights_are_those_of_an_average():
    check_same(
        {
            "callbacks": [EMA(0.8), EarlyStopping("val_loss", patience=1, min_delta=0.2)],
            "validation_split": 0.25,
            "epochs": 12,
        }
    )


def test_metrics_are_those_of_the_host():
    def share_of_the_first(y_true, y_pred):
        assert isinstance(y_pred, np.ndarray)
        return np.mean(y_pred == 0)

    metrics = ["f1_macro", "neg_log_loss", "roc_auc_ovr", ("first", share_of_the_first)]

    check_same({"metrics": metrics, "validation_split": 0.25})


def test_metrics_wait_once_for_each_part_of_what_they_are_computed_from():
    per_epoch = waits(metrics=["f1_macro"], validation_split=0.25)

    # Outputs and targets of training and validation, beside the three of others.
    assert max(per_epoch) <= 3 + 4


def test_records_hold_the_figures_of_the_history(tmp_path):
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    loggers = [CSVLogger(table), JSONLogger(lines), TensorBoard(tmp_path / "board")]

    clf = check_same({"callbacks": loggers[:2], "validation_split": 0.25})
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [float(row["val_loss"]) for row in rows][-3:] == pytest.approx(
        clf.history_["val_loss"].tolist(), abs=1e-5
    )
    assert len([json.loads(line) for line in lines.read_text().splitlines()]) == len(rows)

    pytest.importorskip("tensorboard")
    assert max(waits(callbacks=loggers, validation_split=0.25)) <= 3
    assert any((tmp_path / "board").rglob("events*"))


def test_a_learning_rate_is_found_where_the_module_is():
    found = [
        Estimator(network(), device=device, batch_size=4, random_state=0).find_lr(X, Y)
        for device in (DEVICE, "cpu")
    ]

    there, here = found
    assert there.suggestion_ == pytest.approx(here.suggestion_, rel=1e-3)


def test_all_callbacks_at_once_leave_the_users_generators_alone():
    before = torch.pretend.get_rng_state(DEVICE).tolist()

    check_same(
        {
            "callbacks": [
                ("average", EMA(0.9)),
                ("rate", LRScheduler("OneCycleLR", max_lr=0.1)),
                ("norm", GradientNorm()),
                ("early", EarlyStopping("loss")),
            ]
        }
    )

    assert torch.pretend.get_rng_state(DEVICE).tolist() == before
