"""What the trainer asks of any data: batches of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import torch

from easyclf.nested import Tensors, apply, tensors_of


class Batch(NamedTuple):
    """Some rows on the device: inputs, encoded targets, and a weight for each row or None."""

    x: Tensors
    y: torch.Tensor | None
    weight: torch.Tensor | None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.x if isinstance(self.x, torch.Tensor) else tensors_of(self.x)[0])

    @property
    def shape(self) -> Any:
        """The shape of the inputs, for messages."""
        return apply(lambda one: tuple(one.shape), self.x)

    def rows(self, start: int, stop: int | None) -> Batch:
        """Some of the rows."""
        x, *rest = self
        y, weight = (None if part is None else part[start:stop] for part in rest)
        return Batch(apply(lambda one: one[start:stop], x), y, weight)


class Source(ABC):
    """Rows that can be gone through any number of times."""

    @abstractmethod
    def n_batches(self, batch_size: int, min_rows: int = 1) -> int | None:
        """How many batches `batches` yields; None where only going through them tells."""

    @abstractmethod
    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        """Yield all rows once: in order, or shuffled by `generator`.

        A last batch of fewer than `min_rows` rows joins the one before it.
        """

    def close(self) -> None:  # noqa: B027  (most have nothing to end)
        """End the processes and threads that read ahead."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close()


def bounds(n_rows: int, batch_size: int, min_rows: int) -> list[tuple[int, int]]:
    """First and last row of every batch."""
    starts = list(range(0, n_rows, batch_size))
    if len(starts) > 1 and n_rows - starts[-1] < min_rows:
        starts.pop()
    return list(zip(starts, [*starts[1:], n_rows], strict=True))


Encoder = Callable[[Any], torch.Tensor]
