"""The range test of the learning rate: it rises by the step, until the loss does."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from easyclf.callbacks.base import Callback
from easyclf.callbacks.sklearn_bridge import untold_clone
from easyclf.checks import warn_user
from easyclf.constraints import is_integer
from easyclf.displays import LearningRateDisplay
from easyclf.exceptions import TrainingDiverged
from easyclf.state import TrainingState

# As in fastai: how much of the mean stays in a step, and how far the loss may rise over its best.
_SMOOTHNESS, _RISE = 0.98, 4.0
# Steps that the mean is of. With fewer it lags behind the rates by half of those that were tried.
_FEW_STEPS = round(1 / (1 - _SMOOTHNESS))
# Steps at both ends that say little: the mean has few values there, and the loss rises.
_FIRST_STEPS, _LAST_STEPS = 10, 1


class RangeTest(Callback):
    """Raises the rate exponentially from `low` to `high`, and notes the loss of each step."""

    changes = "learning rate"

    def __init__(self, low: float, high: float, n_steps: int) -> None:
        self.low, self.high, self.n_steps = low, high, n_steps

    def on_train_begin(self, state: TrainingState) -> None:
        """Begin anew."""
        groups = state.optimizer.param_groups
        self._ratios = [float(group["lr"]) / float(groups[0]["lr"]) for group in groups]
        self.rates_: list[float] = []
        self.losses_: list[float] = []
        self._mean = 0.0

    def on_batch_begin(self, state: TrainingState) -> None:
        """Set the rate of the step."""
        part = len(self.rates_) / max(1, self.n_steps - 1)
        self.rates_.append(self.low * (self.high / self.low) ** part)
        for group, ratio in zip(state.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = self.rates_[-1] * ratio

    def on_batch_end(self, state: TrainingState) -> None:
        """Note the loss, and end the test when it rises."""
        self._mean = _SMOOTHNESS * self._mean + (1 - _SMOOTHNESS) * float(state.logs["loss"])
        self.losses_.append(self._mean / (1 - _SMOOTHNESS ** len(self.rates_)))
        last, best = self.losses_[-1], min(self.losses_)
        if not math.isfinite(last) or last > _RISE * abs(best):
            state.stop("the loss rises")
        elif len(self.rates_) >= self.n_steps:
            state.stop("all rates were tried")


def find_learning_rate(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    low: float,
    high: float,
    n_steps: int,
) -> LearningRateDisplay:
    """Run the range test with a clone of an estimator.

    Raises
    ------
    ValueError
        If the rates or the number of steps make no sense.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"`low` and `high` must be rates, 0 < low < high; got {low!r}, {high!r}.")
    fewest = _FIRST_STEPS + _LAST_STEPS + 2
    if not is_integer(n_steps) or n_steps < fewest:
        raise ValueError(f"`n_steps` must be an integer of at least {fewest}; got {n_steps!r}.")
    test = RangeTest(low, high, n_steps)
    settings = {"metrics": None, "validation_split": 0.0, "warm_start": False, "verbose": 0}
    tried = untold_clone(estimator)
    with contextlib.suppress(TrainingDiverged):  # so it ends where the rate is too high
        # An epoch has at least one step.
        tried.fit(X, y, sample_weight, callbacks=[test], epochs=n_steps, **settings)
    losses = np.array(test.losses_)
    is_finite = np.isfinite(losses)
    rates, losses = np.array(test.rates_)[: len(losses)][is_finite], losses[is_finite]
    return LearningRateDisplay(rates, losses, _steepest(rates, losses))


def _steepest(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float | None:
    """The rate at which the loss, of shape (n_steps,), falls fastest over log(rate).

    Looked at are the rates before that of the lowest loss: from there on it rises, and then falls
    again from heights where no training would be.
    """
    slopes = np.gradient(losses, np.log(rates)) if len(rates) > 1 else np.zeros(len(rates))
    lowest = int(losses.argmin()) if len(losses) else 0
    inner = slopes[_FIRST_STEPS : min(lowest + 1, len(slopes) - _LAST_STEPS)]
    # The smoothed mean of equal losses falls and rises by rounding.
    if not len(inner) or inner.min() > -1e-6 * losses.max():
        warn_user(
            "The loss falls at none of the rates that were tried, so none is suggested; look at "
            "`plot()`, and try a smaller `low`, or more `n_steps`.",
            ConvergenceWarning,
        )
        return None
    if len(rates) < _FEW_STEPS:
        warn_user(
            f"The range test took {len(rates)} steps, but its suggestion is of a mean over "
            f"{_FEW_STEPS}, which lags behind; look at `plot()`, or try more `n_steps`, or a "
            "narrower range.",
            ConvergenceWarning,
        )
    return float(rates[_FIRST_STEPS + int(inner.argmin())])
