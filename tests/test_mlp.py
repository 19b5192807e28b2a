"""The default module, and how it standardizes columns."""

import warnings

import numpy as np
import pytest
import torch

from easyclf import MLP, Estimator

RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 2


def adapted(X, dtype=torch.float32):
    module = MLP(X.shape[1], 2).to(dtype)
    module.adapt([(torch.from_numpy(X), None)])
    return module


@pytest.mark.parametrize(
    "column",
    [1.7e9 + 60 * RNG.random(200), 1e9 + LABELS, 2.0**40 + RNG.integers(0, 99, 200)],
    ids=["seconds of a minute", "large and 0 or 1", "ids"],
)
def test_columns_that_float32_cannot_tell_apart_are_named(column):
    X = np.column_stack([RNG.normal(size=200), column])

    with pytest.warns(UserWarning, match=r"1 column\(s\) of X, the first at 1, .*float64"):
        Estimator(epochs=1, random_state=0).fit(X, LABELS)
    assert Estimator(epochs=2, precision="float64").fit(X, LABELS).n_iter_ == 2


@pytest.mark.parametrize(
    "column",
    [np.full(200, 0.1) + 1e-17 * LABELS, np.full(200, 3.0), np.zeros(200), 1e6 + LABELS],
    ids=["rounding", "constant", "zero", "told apart"],
)
def test_columns_that_are_constant_or_told_apart_are_not_warned_about(column):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted(column[:, None])


def test_a_column_too_small_to_be_scaled_is_named():
    X = np.column_stack([RNG.normal(size=200), 1e-40 * RNG.normal(size=200)])

    with pytest.raises(ValueError, match=r"Column 1 of X has a deviation of .*float32 to scale"):
        Estimator(epochs=1).fit(X, LABELS)
    assert np.isfinite(
        Estimator(epochs=1, precision="float64").fit(X, LABELS).history_["loss"]
    ).all()
