"""Ending a run early, and going back to the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from easyclf.callbacks.base import Callback
from easyclf.callbacks.monitoring import (
    check_at_least,
    check_measured,
    is_of_another_quantity,
    sign_of,
)
from easyclf.checks import warn_user
from easyclf.snapshots import Snapshot
from easyclf.state import TrainingState


class EarlyStopping(Callback):
    """Stop when a quantity no longer improves, and go back to the weights of its best epoch.

    Parameters
    ----------
    monitor : str, default="val_loss"
        The quantity: "val_loss", "val_accuracy", or any other that the run measures. Less is
        better of a loss, more of an accuracy.
    patience : int, default=10
        Epochs in a row without improvement after which training stops, counted as Keras does:
        when every epoch is worse than the first, patience 3 ends with epoch 4.
    min_delta : float, default=0.0
        An epoch improves when it is better than the best one by more than this.
    restore_best_weights : bool, default=True
        Go back to the weights of the best epoch at the end, also when the epochs run out before
        the patience does, and after an interruption.
    mode : {"auto", "min", "max"}, default="auto"
        Whether less or more is better; "auto" knows it by the name.
    baseline : float, default=None
        A value to be beaten: while no epoch is better than it, improvements do not renew the
        patience.
    start_from_epoch : int, default=0
        The first epochs, so many, are not looked at.

    Attributes
    ----------
    best_score_ : float or None
        Best value of the quantity; None before the first epoch.
    best_epoch_ : int or None
        Its epoch, from 1.
    stopped_epoch_ : int or None
        The epoch after which training stopped early; None when it did not.

    Raises
    ------
    ValueError
        At the start of `fit`, if the quantity will not be measured.

    Notes
    -----
    Where fits continue one another (`warm_start`) with this very object, the counting goes on: a
    loop of fits of one epoch stops where one fit of many would. Each fit ends with the best
    weights so far, and the next one goes on from them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import EarlyStopping, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> early = EarlyStopping(patience=5)
    >>> clf = Estimator(validation_split=0.2, callbacks=[early], random_state=0).fit(X, y)
    >>> early.best_epoch_ == clf.history_.best("val_loss")["epoch"]
    True
    """

    best_score_: float | None
    best_epoch_: int | None
    stopped_epoch_: int | None

    changes = "nothing"

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best_weights: bool = True,
        mode: str = "auto",
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ) -> None:
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.restore_best_weights = restore_best_weights
        self.mode = mode
        self.baseline = baseline
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, state: TrainingState) -> None:
        """Check that the quantity will be there, and forget an earlier run."""
        check_measured(self, self.monitor, state)
        check_at_least(1, patience=self.patience)
        check_at_least(0, min_delta=self.min_delta, start_from_epoch=self.start_from_epoch)
        if self.baseline is not None:
            check_at_least(-math.inf, baseline=self.baseline)
        self._sign = sign_of(self.monitor, self.mode, state)
        self.stopped_epoch_ = None
        self._best: Snapshot | None = None
        self._snapshot = partial(Snapshot, state.module)
        if self._goes_on(state):
            if self.best_epoch_ is not None:
                # The last fit has ended with the best weights.
                self._keep(state)
            return
        self.best_score_ = self.best_epoch_ = None
        self._waited = 0
        self._compared: float | None = None

    def _goes_on(self, state: TrainingState) -> bool:
        """Whether this run continues the one that this object has seen last."""
        seen = vars(self).get("_last_seen")
        return seen is not None and bool(len(state.history)) and seen == _mark(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Compare this epoch with the best one."""
        self._last_seen = _mark(state)
        if state.epoch <= self.start_from_epoch:
            return
        score = state.logs[self.monitor]
        if math.isnan(score):
            warn_user(
                f"{self.monitor!r} is NaN in epoch {state.epoch}; it does not count as the best.",
                ConvergenceWarning,
            )
        elif self.best_score_ is None or self._sign * (score - self.best_score_) > 0:
            self.best_score_, self.best_epoch_ = score, state.epoch
            self._keep(state)
        self._waited += 1
        if self._is_better(score, self._compared):
            self._compared = score
            if self._is_better(score, self.baseline):
                self._waited = 0
        elif self._waited >= self.patience and state.epoch > 1:
            self._stop(state)

    def _is_better(self, score: float, other: float | None) -> bool:
        """Whether a score is better than another one by more than `min_delta`, as Keras asks."""
        if other is None:
            return not math.isnan(score)
        return self._sign * score - self.min_delta > self._sign * other

    def _stop(self, state: TrainingState) -> None:
        self.stopped_epoch_ = state.epoch
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        best = ""
        if self.best_score_ is not None:
            best = f"; the best was {self.best_score_:.4g} in epoch {self.best_epoch_}"
        state.stop(f"{self.monitor} has not improved{margin} for {self._waited} epochs{best}")

    def _keep(self, state: TrainingState) -> None:
        if not self.restore_best_weights:
            return
        if self._best is None:
            self._best = self._snapshot()
        else:
            self._best.take()

    def state_dict(self) -> dict[str, object]:
        """Give what was counted so far, and the best weights."""
        return {
            "watched": [self.monitor, self._sign],
            "best_score": self.best_score_,
            "best_epoch": self.best_epoch_,
            "stopped_epoch": self.stopped_epoch_,
            "waited": self._waited,
            "compared": self._compared,
            "last_seen": vars(self).get("_last_seen"),
            "best": None if self._best is None else self._best.values,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting; begin afresh where another quantity is watched now."""
        if is_of_another_quantity(state, [self.monitor, self._sign]):
            return
        self.best_score_, self.best_epoch_ = state["best_score"], state["best_epoch"]
        self.stopped_epoch_, self._waited = state["stopped_epoch"], state["waited"]
        self._compared, self._last_seen = state["compared"], state["last_seen"]
        if state["best"] is not None and self.restore_best_weights:
            self._best = self._snapshot()
            self._best.load(state["best"])

    def on_train_end(self, state: TrainingState) -> None:
        """Put the best weights back."""
        self._restore()

    def close(self, state: TrainingState) -> None:
        """Put the best weights back after an interruption too."""
        self._restore()
        vars(self).pop("_snapshot", None)

    def _restore(self) -> None:
        best, self._best = getattr(self, "_best", None), None
        if best is not None:
            best.restore()


def _mark(state: TrainingState) -> tuple[float, float]:
    """The last epoch of the history, told apart from others of its number by its duration."""
    return state.history[-1]["epoch"], state.history[-1]["seconds"]


class StopAt(Callback):
    """End the training when a quantity has reached a value.

    Parameters
    ----------
    monitor : str
        The quantity; its name says whether less or more of it is better.
    value : float
        The value that is enough.

    Raises
    ------
    ValueError
        At the start of `fit`, if the quantity will not be measured.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, StopAt
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(lr=0.05, callbacks=[StopAt("accuracy", 0.9)], random_state=0).fit(X, y)
    >>> clf.history_[-1, "accuracy"] >= 0.9, clf.n_iter_ < 50
    (True, True)
    """

    changes = "nothing"

    def __init__(self, monitor: str, value: float) -> None:
        self.monitor = monitor
        self.value = value

    def on_train_begin(self, state: TrainingState) -> None:
        """Check that the quantity will be there."""
        check_measured(self, self.monitor, state)
        check_at_least(-math.inf, value=self.value)
        self._sign = sign_of(self.monitor, "auto", state)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Compare the epoch with the value."""
        score = state.logs[self.monitor]
        if self._sign * score >= self._sign * self.value:
            state.stop(f"{self.monitor} has reached {self.value:g}: it is {score:.4g}")


class TimeLimit(Callback):
    """End the training after some time, with the step that is under way.

    The epoch ends with that step, and is validated as any other.

    Parameters
    ----------
    seconds : float
        Time from the start of the first epoch on.

    Raises
    ------
    ValueError
        At the start of `fit`, if it is no positive number.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, TimeLimit
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(epochs=10**6, callbacks=[TimeLimit(0.1)]).fit(X, y)
    >>> clf.n_iter_ < 10**6
    True
    """

    changes = "nothing"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_begin(self, state: TrainingState) -> None:
        """Look at the clock."""
        check_at_least(0, seconds=self.seconds)
        self._deadline = time.monotonic() + self.seconds

    def on_batch_begin(self, state: TrainingState) -> None:
        """Make this step the last if it is time."""
        if time.monotonic() >= self._deadline:
            state.stop(f"the time limit of {self.seconds:g} s has passed")
