"""What is said when a training ends for lack of memory, or is no longer finite."""

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator, LambdaCallback, TrainingDiverged

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
Y = np.arange(24) % 2


class Hungry(nn.Sequential):
    """Has memory for so many rows of a training batch."""

    def __init__(self, most_rows, *layers):
        super().__init__(*layers)
        self.most_rows = most_rows

    def forward(self, x):
        # The first pass is of a few rows, by which easyclf gets to know the module.
        if self.training and len(x) > self.most_rows and self.is_known:
            raise MemoryError
        return super().forward(x)

    is_known = False


@pytest.fixture
def hungry(monkeypatch):
    """A function that fits a module with memory for so many rows."""

    def fit(most_rows, *layers):
        def know(state):
            state.module.is_known = True

        callbacks = [LambdaCallback(on_train_begin=know)]
        return Estimator(
            Hungry(most_rows, *layers), batch_size=16, epochs=1, callbacks=callbacks
        ).fit(X, Y)

    return fit


@pytest.mark.parametrize(("most_rows", "fitting", "groups"), [(15, 8, 2), (3, 2, 8), (1, 1, 16)])
def test_the_batch_that_fits_is_named(most_rows, fitting, groups, hungry):
    with pytest.raises(MemoryError, match=f"use batch_size={fitting}, with accumulate={groups} "):
        hungry(most_rows, nn.Linear(4, 2))


def test_where_no_row_fits_the_module_is_too_large(hungry):
    with pytest.raises(MemoryError, match="no smaller one fits either: use a smaller module"):
        hungry(0, nn.Linear(4, 2))


def test_a_module_that_takes_no_single_row_is_still_short_of_memory(hungry):
    with pytest.raises(MemoryError, match="no smaller one fits either"):
        hungry(1, nn.Linear(4, 2), nn.BatchNorm1d(2))


class Product(nn.Linear):
    """Takes a number a row, twice."""

    def forward(self, left, right):
        return super().forward(torch.stack([left, right], dim=1))


def test_a_row_of_a_single_number_is_named():
    right = X[:, 0].copy()
    right[7] = 3e30
    clf = Estimator(Product(2, 2), optimizer="sgd", lr=1.0, epochs=3, batch_size=24)

    with pytest.raises(TrainingDiverged, match="inputs of row 7 of those trained on reach"):
        clf.fit({"left": X[:, 0], "right": right}, Y)


def test_the_first_of_several_huge_rows_is_named_also_in_a_later_batch():
    rows = X.copy()
    rows[[9, 20]] = 1e21
    clf = Estimator(nn.Linear(4, 2), optimizer="sgd", lr=1.0, epochs=3, batch_size=8)

    with pytest.raises(TrainingDiverged, match="inputs of row 9 of those trained on reach"):
        clf.fit(rows, Y)
