"""The learning rate, lowered when a quantity no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from easyclf.callbacks.base import Callback
from easyclf.callbacks.course import set_number
from easyclf.callbacks.monitoring import (
    check_at_least,
    check_measured,
    is_of_another_quantity,
    sign_of,
)
from easyclf.state import TrainingState


class ReduceLROnPlateau(Callback):
    """Lower the learning rate when a quantity no longer improves, counted as Keras does.

    Parameters
    ----------
    monitor : str, default="val_loss"
        The quantity.
    factor : float, default=0.1
        The rate is multiplied by it.
    patience : int, default=10
        Epochs without improvement after which the rate is lowered.
    min_delta : float, default=0.0001
        An epoch improves when it is better than the best one by more than this.
    cooldown : int, default=0
        Epochs after a lowering in which nothing is counted.
    min_lr : float, default=0
        The rate is never lowered below it.
    mode : {"auto", "min", "max"}, default="auto"
        Whether less or more is better; "auto" knows it by the name.

    Raises
    ------
    ValueError
        At the start of `fit`, if the quantity will not be measured.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, ReduceLROnPlateau
    >>> X, y = load_iris(return_X_y=True)
    >>> plateau = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
    >>> clf = Estimator(lr=0.1, epochs=4, callbacks=[plateau]).fit(X, y)
    >>> clf.history_["lr"].tolist()
    [0.1, 0.1, 0.05, 0.025]
    """

    changes = "learning rate"

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0,
        mode: str = "auto",
    ) -> None:
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.min_delta = min_delta
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.mode = mode

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings and forget an earlier run."""
        check_measured(self, self.monitor, state)
        check_at_least(
            0,
            factor=self.factor,
            patience=self.patience,
            min_delta=self.min_delta,
            cooldown=self.cooldown,
            min_lr=self.min_lr,
        )
        if self.factor >= 1:
            raise ValueError(f"`factor` must be less than 1; got {self.factor!r}.")
        self._sign = sign_of(self.monitor, self.mode, state)
        self._best: float | None = None
        self._waited = self._cooling = 0

    def on_epoch_end(self, state: TrainingState) -> None:
        """Count the epoch, and lower the rate if it is time."""
        if self._cooling:
            self._cooling -= 1
        figure = state.logs[self.monitor]
        if self._is_better(figure):
            self._best, self._waited = figure, 0
        elif not self._cooling:
            self._waited += 1
            if self._waited >= self.patience:
                self._lower(state.optimizer)

    def _is_better(self, figure: float) -> bool:
        if self._best is None:
            # As Keras, which begins with infinity: a NaN is no improvement.
            return not math.isnan(figure)
        return self._sign * figure > self._sign * self._best + self.min_delta

    def state_dict(self) -> dict[str, object]:
        """Give what was counted so far."""
        return {
            "watched": [self.monitor, self._sign],
            "best": self._best,
            "waited": self._waited,
            "cooling": self._cooling,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting; begin afresh where another quantity is watched now."""
        if is_of_another_quantity(state, [self.monitor, self._sign]):
            return
        self._best, self._waited = state["best"], state["waited"]
        self._cooling = state["cooling"]

    def _lower(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            if float(group["lr"]) > self.min_lr:
                set_number(group, "lr", max(float(group["lr"]) * self.factor, self.min_lr))
                self._cooling, self._waited = self.cooldown, 0
