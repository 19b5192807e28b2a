"""One step of the optimizer: gradients of a group of batches, clipped, then an update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from easyclf.data import Batch
from easyclf.heads import Head
from easyclf.metrics import Measured, Number
from easyclf.precision import Forward, Precision
from easyclf.state import TrainingState


def measure(forward: Forward, head: Head, precision: Precision, batch: Batch) -> Measured:
    """One forward pass: the loss, with its graph, and the hits of a batch."""
    outputs = precision.run(forward, batch.x)
    assert batch.y is not None
    losses = head.losses(outputs, batch.y)
    hits = head.hits(outputs.detach(), batch.y)
    weights = head.loss_weights(batch.y, batch.weight)
    # Counts of hits are exact in float32 up to batches of 16 million rows.
    if weights is None:
        n_rows = len(losses)
        return Measured(losses.mean(), n_rows, hits.sum(dtype=losses.dtype), n_rows)
    row_weights = torch.ones_like(weights) if batch.weight is None else batch.weight
    total = weights.sum()
    # A batch may hold only rows whose class has weight 0.
    loss = (losses * weights).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
    return Measured(loss, total, (hits * row_weights).sum(), row_weights.sum())


class Step:
    """An eager step.

    Parameters
    ----------
    state : TrainingState
        The module and its optimizer.
    precision : Precision
        The precision of the forward pass.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.
    """

    def __init__(
        self, state: TrainingState, precision: Precision, clip_grad_norm: float | None
    ) -> None:
        self._state, self._precision, self._clip = state, precision, clip_grad_norm
        self._parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        # LBFGS looks at several points in one step.
        self._needs_closure = isinstance(state.optimizer, torch.optim.LBFGS)

    def __call__(self, group: Sequence[Batch]) -> list[Measured]:
        """Take one step down the gradient of the mean loss over all rows of the group."""
        if self._needs_closure:
            return self._step_with_closure(group)
        measured = self._compute_gradients(group)
        self._precision.step(self._state.optimizer)
        return measured

    def _step_with_closure(self, group: Sequence[Batch]) -> list[Measured]:
        seen: list[list[Measured]] = []

        def closure() -> Any:
            seen.append(self._compute_gradients(group))
            return seen[-1][0].loss if len(group) == 1 else _mean_loss(seen[-1])

        self._state.optimizer.step(closure)
        return seen[0]

    def _compute_gradients(self, group: Sequence[Batch]) -> list[Measured]:
        state, precision = self._state, self._precision
        # What `zero_grad` does, without the hooks of the profiler: 5 us a step.
        for parameter in self._parameters:
            parameter.grad = None
        total = _group_weight(state.head, group) if len(group) > 1 else None
        measured = []
        for batch in group:
            one = measure(state.forward, state.head, precision, batch)
            precision.backward(one.loss if total is None else one.loss * (one.loss_weight / total))
            measured.append(one._replace(loss=one.loss.detach()))
        if self._clip is not None:
            precision.unscale(state.optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        return measured


def _group_weight(head: Head, group: Sequence[Batch]) -> Number:
    """The loss weight of all rows of a group, which is known before any forward pass."""
    total: Number = 0.0
    for batch in group:
        assert batch.y is not None
        weights = head.loss_weights(batch.y, batch.weight)
        total = total + (len(batch.y) if weights is None else weights.sum())
    return total


def _mean_loss(measured: Sequence[Measured]) -> Number:
    total = sum(one.loss_weight for one in measured)
    return sum(one.loss * (one.loss_weight / total) for one in measured)
