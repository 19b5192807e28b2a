"""The state of a run: the one argument of every hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from easyclf.data import Batch
from easyclf.heads import Head
from easyclf.history import History


class TrainingState:
    """The present state of a run.

    Attributes
    ----------
    module : nn.Module
        The user's own module: to look at, to save.
    forward : callable
        The function that the step calls: the module, or it compiled or wrapped.
    optimizer : torch.optim.Optimizer
        The optimizer.
    head : Head
        The meaning of the outputs: losses, probabilities, answers.
    quantities : tuple of str
        Names of the figures that every epoch will measure.
    epochs : int
        The number of the last epoch that is planned.
    steps_per_epoch : int or None
        Steps in an epoch: its batches, or groups of `accumulate` batches; or as many as `fit` was
        asked for. None where the data do not say.
    epoch : int
        The current epoch; counts from 1, and goes on in a run that is continued.
    batch : int
        The current step of the epoch; counts from 1.
    step : int
        Steps of the optimizer in this run.
    lr : float
        The learning rate of the last step, of the first group of weights. That of the next one is
        in the groups of `optimizer`.
    logs : dict of str to float
        In `on_epoch_end` the quantities of the epoch; in `on_batch_end` the `loss` and the
        `accuracy` of the batch, as tensors of shape () on the device, since reading them makes
        the host wait.
    history : History
        The epochs that are done, those of earlier runs that this one continues included.
    stop_reason : str or None
        Why the run was asked to stop.
    is_cut : bool
        Whether that was before the end of the epoch, whose last batches may be missing.
    batches : callable
        It goes through the training batches once more, in order.
    put_in, take_out : callable or None
        Where a callback averages weights: they put the average in the place of the weights, before
        a validation and at the end, and take it out again. `put_in` is told whether the training
        of an epoch has just ended.
    """

    # So a hook that sets what is no field, as Keras's `stop_training`, is not passed over.
    __slots__ = (
        "_lr",
        "batch",
        "batches",
        "epoch",
        "epochs",
        "forward",
        "head",
        "history",
        "is_cut",
        "logs",
        "module",
        "optimizer",
        "put_in",
        "quantities",
        "step",
        "steps_per_epoch",
        "stop_reason",
        "take_out",
    )

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        head: Head,
        history: History,
        quantities: tuple[str, ...],
        *,
        epoch: int,
        epochs: int,
        steps_per_epoch: int | None,
    ) -> None:
        self.module = module
        self.forward: Callable[..., Any] = module
        self.optimizer = optimizer
        self.head = head
        self.history = history
        self.quantities = quantities
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.epoch = epoch
        self.batch = 0
        self.step = 0
        self._lr: float = optimizer.param_groups[0]["lr"]
        self.logs: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.is_cut = False
        self.batches: Callable[[], Iterator[Batch]] = lambda: iter(())
        self.put_in: Callable[[bool], object] | None = None
        self.take_out: Callable[[], None] | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the last step, of the first group of weights."""
        return self._lr

    @lr.setter
    def lr(self, rate: object) -> None:
        raise AttributeError(
            "`state.lr` is the rate of the last step, and cannot be set; set that of the next one "
            f"by `for group in state.optimizer.param_groups: group['lr'] = {rate!r}`."
        )

    def note_step(self) -> None:
        """Count a step that the optimizer has taken, with its rate."""
        self.step += 1
        self._lr = self.optimizer.param_groups[0]["lr"]

    def go_on_after(self, epoch: int, step: int, lr: float) -> None:
        """Stand where an epoch of a run ended, whose last step had the rate `lr`."""
        self.epoch, self.step, self._lr = epoch, step, lr

    def stop(self, reason: str) -> None:
        """Ask the run to stop: after the current batch, whose epoch ends with it.

        Parameters
        ----------
        reason : str
            Why, in words for the user.
        """
        self.stop_reason = reason
