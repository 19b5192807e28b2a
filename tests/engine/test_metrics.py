"""Metrics: exact means over the rows of all batches."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator
from easyclf.data import Batch
from easyclf.engine.metrics import BatchResult, RunningMetrics
from easyclf.history import is_better_higher


def batch(loss, loss_weight, hits, weight):
    """What a batch of rows with weights of their own measured."""
    return BatchResult(*(torch.tensor(float(v)) for v in (loss, loss_weight, hits, weight)))


def plain_batch(loss, hits, n_rows):
    """What a batch of rows without weights measured."""
    return BatchResult(torch.tensor(float(loss)), n_rows, torch.tensor(float(hits)), n_rows)


def collected(batches):
    metrics = RunningMetrics()
    for measured in batches:
        metrics.add(measured, Batch(torch.zeros(1), None, None))
    return metrics


@pytest.mark.parametrize("name", ["loss", "val_loss", "error", "val_error", "log_loss", "seconds"])
def test_less_of_a_loss_is_better(name):
    assert not is_better_higher(name)


@pytest.mark.parametrize(
    "name", ["accuracy", "val_accuracy", "acc", "auc", "val_auc", "f1", "score", "recall"]
)
def test_more_of_an_accuracy_is_better(name):
    assert is_better_higher(name)


@pytest.mark.parametrize("name", ["epoch", "lr", "thing"])
def test_name_that_does_not_say_which_is_better_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' does not say .*'loss'.*'accuracy'"):
        is_better_higher(name)


def test_short_batch_counts_by_its_rows():
    metrics = collected([plain_batch(1.0, 3, 4), plain_batch(4.0, 0, 1)])

    assert metrics.read() == {"loss": (4 * 1.0 + 1 * 4.0) / 5, "accuracy": 3 / 5}


def test_batches_count_by_the_weights_of_their_rows():
    metrics = collected([batch(1.0, 3.0, 2.0, 4.0), batch(5.0, 1.0, 1.0, 6.0)])

    assert metrics.read() == {"loss": (3 * 1.0 + 1 * 5.0) / 4, "accuracy": 3 / 10}


@pytest.mark.parametrize("n_batches", [1, 1023, 1024, 1025, 5000])
def test_any_number_of_batches_is_exact(n_batches):
    losses = np.random.default_rng(0).normal(size=n_batches).astype(np.float32)

    figures = collected(plain_batch(loss, i % 2, 1) for i, loss in enumerate(losses)).read()

    assert figures["loss"] == pytest.approx(losses.astype(float).mean(), rel=1e-9)
    assert figures["accuracy"] == (n_batches // 2) / n_batches


def test_figures_are_plain_numbers():
    figures = collected([plain_batch(0.5, 1, 2)]).read()

    assert {name: type(value) for name, value in figures.items()} == {
        "loss": float,
        "accuracy": float,
    }


@pytest.mark.parametrize("n_batches", [0, 1, 1500])
def test_batches_are_counted(n_batches):
    assert collected([plain_batch(1.0, 0, 1)] * n_batches).n_batches == n_batches


@pytest.mark.parametrize("make", [plain_batch, lambda loss, hits, n: batch(loss, n, hits, n)])
@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_first_batch_that_is_not_finite_is_named(make, lost):
    metrics = collected([make(1.0, 1, 2), make(2.0, 1, 2), make(lost, 0, 2), make(math.nan, 0, 2)])

    figures = metrics.read()
    number, loss = metrics.first_not_finite()

    assert not math.isfinite(figures["loss"])
    assert number == 3
    assert loss == pytest.approx(lost, nan_ok=True)


def test_no_batch_is_named_where_all_are_finite():
    metrics = collected([plain_batch(1.0, 1, 2)])
    metrics.read()

    assert metrics.first_not_finite() is None


def test_rows_of_classes_without_weight_are_measured():
    """Their loss is the mean of nothing, but not their accuracy."""
    X, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    clf = Estimator(nn.Linear, class_weight={0: 0.0}, epochs=2)

    clf.fit(X, y, validation_data=(X[:1], y[:1]))

    assert clf.history_["val_accuracy"][-1] == clf.score(X[:1], y[:1])
    assert clf.evaluate(X[:1], y[:1])["accuracy"] == clf.score(X[:1], y[:1])


@pytest.mark.parametrize("weighted_first", [True, False])
def test_only_some_batches_may_have_weights(weighted_first):
    batches = [batch(1.0, 3.0, 2.0, 4.0), plain_batch(4.0, 1, 2)]

    metrics = collected(batches if weighted_first else batches[::-1])

    assert metrics.read() == {"loss": (3 * 1.0 + 2 * 4.0) / 5, "accuracy": 3 / 6}


def test_many_batches_of_both_kinds_stay_exact():
    metrics = collected(
        batch(n, 1.0, 1.0, 1.0) if n % 3 else plain_batch(n, 0, 1) for n in range(1500)
    )

    assert metrics.read() == {"loss": sum(range(1500)) / 1500, "accuracy": 1000 / 1500}
