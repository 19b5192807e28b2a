"""What the trainer asks of any data: batches of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """Some rows on the device: inputs, encoded targets, and a weight for each row or None."""

    x: torch.Tensor
    y: torch.Tensor | None
    weight: torch.Tensor | None

    def rows(self, start: int, stop: int | None) -> Batch:
        """Some of the rows."""
        x, *rest = self
        y, weight = (None if part is None else part[start:stop] for part in rest)
        return Batch(x[start:stop], y, weight)


class Placement(NamedTuple):
    """Where and as what the module wants its inputs.

    `copies` is set for a module that changes its input in place, so that it never reaches the
    user's own array. `weight_dtype` is that of the losses, which the weights of the rows meet.
    `layout` is the order of the numbers of a batch in memory.
    """

    device: torch.device
    dtype: torch.dtype
    copies: bool = False
    weight_dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.preserve_format

    def place(self, x: torch.Tensor, *, is_own: bool) -> torch.Tensor:
        """The inputs of a batch; `is_own` says that `x` shares no memory with the user's array."""
        placed = x.to(self.device, self.dtype, non_blocking=True, memory_format=self.layout)
        return placed.clone() if self.copies and placed is x and not is_own else placed


class Source(ABC):
    """Rows that can be gone through any number of times."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        """How many batches `batches` yields."""

    @abstractmethod
    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        """Yield all rows once: in order, or shuffled by `generator`.

        A last batch of fewer than `min_rows` rows joins the one before it.
        """


def bounds(n_rows: int, batch_size: int, min_rows: int) -> list[tuple[int, int]]:
    """First and last row of every batch."""
    starts = list(range(0, n_rows, batch_size))
    if len(starts) > 1 and n_rows - starts[-1] < min_rows:
        starts.pop()
    return list(zip(starts, [*starts[1:], n_rows], strict=True))
