"""Exact loss and accuracy of an epoch, collected where the batches are and read once."""

from __future__ import annotations

import math

import torch

_PACK_EVERY = 1024
Number = float | torch.Tensor


def is_better_higher(name: str) -> bool:
    """Whether more of the quantity `name` is better: known from its name, as in Keras."""
    if any(word in name for word in ("loss", "error", "seconds")):
        return False
    if any(word in name for word in ("acc", "auc", "f1", "score", "precision", "recall")):
        return True
    raise ValueError(
        f"The name {name!r} does not say whether more is better; expected a name with 'loss' "
        "(less is better), 'accuracy', 'auc' or 'score' (more is better)."
    )


class _Column:
    """Numbers, one a batch, most of them still on the device."""

    def __init__(self) -> None:
        self._recent: list[Number] = []
        self._packed: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self._recent) + len(self._packed)

    def append(self, number: Number) -> None:
        self._recent.append(number)
        if len(self._recent) == _PACK_EVERY:
            self._pack()

    def _pack(self) -> None:
        if isinstance(self._recent[0], torch.Tensor):
            packed = torch.stack(self._recent)  # type: ignore[arg-type]
        else:
            packed = torch.tensor(self._recent, dtype=torch.float64, device="cpu")
        self._packed.append(packed)
        self._recent = []

    def read(self) -> torch.Tensor:
        """All numbers as float64 on the host: here, and only here, the host waits."""
        if self._recent:
            self._pack()
        return torch.cat([packed.cpu().double() for packed in self._packed])


class RunningMetrics:
    """What the batches of one epoch measured, without one wait for the device.

    A batch has a loss (the weighted mean over its rows) with the loss weight of its rows, and
    hits (rows answered right, each counted with its sample weight) with the weight of its rows.
    """

    def __init__(self) -> None:
        self._loss, self._loss_weight = _Column(), _Column()
        self._hits, self._weight = _Column(), _Column()

    @property
    def is_empty(self) -> bool:
        """Whether no batch was noted yet."""
        return len(self._loss) == 0

    def add(self, loss: Number, loss_weight: Number, hits: Number, weight: Number) -> None:
        """Note one batch."""
        self._loss.append(loss)
        self._loss_weight.append(loss_weight)
        self._hits.append(hits)
        self._weight.append(weight)

    def read(self) -> dict[str, float]:
        """The exact weighted means over all rows: `loss` and `accuracy`."""
        loss_weight = self._loss_weight.read()
        loss = (self._loss.read() * loss_weight).sum() / loss_weight.sum()
        accuracy = self._hits.read().sum() / self._weight.read().sum()
        return {"loss": loss.item(), "accuracy": accuracy.item()}

    def first_not_finite(self) -> tuple[int, float] | None:
        """The first batch, from 1, whose loss is NaN or infinite, and that loss."""
        for number, loss in enumerate(self._loss.read().tolist(), start=1):
            if not math.isfinite(loss):
                return number, loss
        return None
