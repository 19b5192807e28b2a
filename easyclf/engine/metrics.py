"""Exact loss and accuracy of an epoch, collected where the batches are and read once."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

import torch

# Tensors of single numbers that are held before they are packed into one.
_PACK_AT = 2048
Number = float | torch.Tensor


class BatchResult(NamedTuple):
    """What one batch measured.

    The loss is a weighted mean over the rows, `loss_weight` the weight behind it; `hits` counts
    the rows answered right, each with its sample weight, and `weight` all rows. Both weights are
    numbers where rows have none of their own, else tensors, as the other two.
    """

    loss: torch.Tensor
    loss_weight: Number
    hits: torch.Tensor
    weight: Number


class RunningMetrics:
    """What the batches of one epoch measured, without one wait for the device."""

    def __init__(self) -> None:
        self._recent: list[torch.Tensor] = []
        self._packed: list[torch.Tensor] = []
        self._weights: list[tuple[Number, Number]] = []
        self._losses: list[float] = []
        self.n_batches = 0

    def add(self, measured: BatchResult) -> None:
        """Note one batch."""
        self.n_batches += 1
        loss, loss_weight, hits, weight = measured
        self._recent += (loss, hits)
        if isinstance(loss_weight, torch.Tensor):
            self._recent += (loss_weight, weight)  # type: ignore[arg-type]
        else:
            self._weights.append((loss_weight, weight))
        if len(self._recent) >= _PACK_AT:
            self._pack()

    def _pack(self) -> None:
        """Make one tensor of many, still on the device."""
        self._packed.append(torch.stack(self._recent))
        self._recent = []

    def read(self) -> dict[str, float]:
        """The exact weighted means over all rows, `loss` and `accuracy`: here the host waits."""
        if self._recent:
            self._pack()
        numbers = [number for packed in self._packed for number in packed.tolist()]
        if self._weights:
            self._losses, hits = numbers[0::2], numbers[1::2]
            loss_weights, weights = (list(column) for column in zip(*self._weights, strict=True))
        else:
            self._losses, hits = numbers[0::4], numbers[1::4]
            loss_weights, weights = numbers[2::4], numbers[3::4]
        # All rows may be of classes without weight.
        total = sum(loss_weights) or math.nan
        loss = sum(map(operator.mul, self._losses, loss_weights)) / total
        return {"loss": loss, "accuracy": sum(hits) / sum(weights)}

    def first_not_finite(self) -> tuple[int, float] | None:
        """The first batch, from 1, whose loss was NaN or infinite, and that loss."""
        for number, loss in enumerate(self._losses, start=1):
            if not math.isfinite(loss):
                return number, loss
        return None
