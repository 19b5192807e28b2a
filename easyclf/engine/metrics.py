"""Exact loss and accuracy of an epoch, collected where the batches are and read once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from easyclf.data import Batch
from easyclf.metrics import Answered

# Batches whose results are held as they came before their tensors are packed into one.
_PACK_AT = 512
Number = float | torch.Tensor


class BatchResult(NamedTuple):
    """The figures of one batch.

    Attributes
    ----------
    loss : Tensor of shape ()
        Weighted mean of the losses of the rows.
    loss_weight : float or Tensor of shape ()
        Sum of the weights behind `loss`: of samples and classes. The number of rows where there
        are none.
    hits : Tensor of shape ()
        Sum of the sample weights of the rows that were answered right; int64 where there are none.
    weight : float or Tensor of shape ()
        Sum of the sample weights of all rows.
    outputs : Tensor of shape (n_rows, n_outputs) or None
        Where metrics are computed from them.
    """

    loss: torch.Tensor
    loss_weight: Number
    hits: torch.Tensor
    weight: Number
    outputs: torch.Tensor | None = None


# All but the outputs.
_N_FIGURES = len(BatchResult._fields) - 1


class RunningMetrics:
    """The results of the batches of one epoch, without one wait for the device."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._recent: list[BatchResult] = []
        self._packed: list[_PackedResults] = []
        self._answered: list[Answered] = []
        self.loss_weight = 0.0
        self.n_batches = 0

    def add(self, result: BatchResult, batch: Batch) -> None:
        """Note the result of a batch."""
        self.n_batches += 1
        if result.outputs is not None:
            assert batch.y is not None
            self._answered.append(Answered(result.outputs, batch.y, batch.weight))
            result = result._replace(outputs=None)
        if result.loss.is_cpu:
            # The host's own numbers are there at once.
            loss, loss_weight, hits, weight, _ = result
            row = loss.item(), _number(loss_weight), hits.item(), _number(weight)
            self._rows.append(row)
            return
        self._recent.append(result)
        if len(self._recent) >= _PACK_AT:
            self._pack()

    def _pack(self) -> None:
        self._packed.append(_PackedResults(self._recent))
        self._recent = []

    def read(self) -> dict[str, float]:
        """The weighted means over all rows, `loss` and `accuracy`; the host waits here."""
        if self._recent:
            self._pack()
        for packed in self._packed:
            self._rows += packed.read()
        self._packed = []
        losses, loss_weights, hits, weights = zip(*self._rows, strict=True)
        # All rows may be of classes without weight: their mean loss is 0/0.
        self.loss_weight = sum(loss_weights)
        loss = sum(map(operator.mul, losses, loss_weights)) / (self.loss_weight or math.nan)
        return {"loss": loss, "accuracy": sum(hits) / sum(weights)}

    def answered(self) -> Answered:
        """The outputs of all rows, with their targets and weights, on the host."""
        outputs, targets, weights = zip(*self._answered, strict=True)
        weight = None
        if any(part is not None for part in weights):
            weight = torch.cat(
                [
                    torch.ones(len(y), device=y.device) if part is None else part
                    for y, part in zip(targets, weights, strict=True)
                ]
            ).cpu()
        return Answered(torch.cat(outputs).cpu(), torch.cat(targets).cpu(), weight)

    def first_not_finite(self) -> tuple[int, float] | None:
        """The first batch that was read, from 1, whose loss was NaN or infinite, and that loss."""
        for number, (loss, *_) in enumerate(self._rows, start=1):
            if not math.isfinite(loss):
                return number, loss
        return None


def _number(figure: Number) -> float:
    return figure.item() if isinstance(figure, torch.Tensor) else figure


class _PackedResults:
    """Results of some batches, whose tensors are one, still on the device.

    Which of the figures are tensors may differ from batch to batch: only some may have weights.
    """

    def __init__(self, results: Sequence[BatchResult]) -> None:
        figures = [figure for result in results for figure in result[:_N_FIGURES]]
        self._stacked = torch.stack([f for f in figures if isinstance(f, torch.Tensor)])
        self._figures = [None if isinstance(f, torch.Tensor) else f for f in figures]

    def read(self) -> Iterator[tuple[float, ...]]:
        """The figures of each batch as numbers, in the order of `BatchResult`."""
        numbers = iter(self._stacked.tolist())
        figures = (next(numbers) if figure is None else figure for figure in self._figures)
        return zip(*[figures] * _N_FIGURES, strict=True)
