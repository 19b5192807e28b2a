"""The interface between data and training: a source of batches, and the order of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import torch

from easyclf.device import HOST
from easyclf.nested import Shapes, Tensors, apply, first_of

# Labels or codes of some rows to a tensor with one entry (or one line) for each row.
Encoder = Callable[[Any], torch.Tensor]


class Batch(NamedTuple):
    """Some rows on the device.

    Attributes
    ----------
    x : Tensor of shape (n_rows, ...), or dict or tuple of them
        The inputs.
    y : Tensor of shape (n_rows,) or (n_rows, n_labels), or None
        The encoded targets.
    weight : Tensor of shape (n_rows,) or None
        The weights of the rows.
    """

    x: Tensors
    y: torch.Tensor | None
    weight: torch.Tensor | None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return first_of(self.x).shape[0]

    @property
    def shape(self) -> Shapes:
        """The shape of the inputs, for messages."""
        shape: Shapes = apply(lambda x: tuple(x.shape), self.x)
        return shape

    def rows(self, start: int, stop: int | None) -> Batch:
        """Take the rows from `start` to `stop`, as views of this batch."""
        x, *rest = self
        y, weight = (None if part is None else part[start:stop] for part in rest)
        return Batch(apply(lambda tensor: tensor[start:stop], x), y, weight)


@dataclass(frozen=True)
class Order:
    """The order of the rows in one epoch, and the seed of everything drawn in reading them.

    An epoch follows from it alone, whichever epochs were read before.

    Parameters
    ----------
    seed : int
        Below 2**32.
    is_shuffled : bool
        Whether the rows come in a random order.
    """

    seed: int
    is_shuffled: bool

    def generator(self) -> torch.Generator:
        """Make a generator on the CPU, which begins with the seed."""
        return torch.Generator(HOST).manual_seed(self.seed)


IN_ORDER = Order(seed=0, is_shuffled=False)


def row_order(n_rows: int, generator: torch.Generator, order: Order) -> torch.Tensor:
    """Draw the numbers of the rows in the order of an epoch.

    Returns
    -------
    rows : int64 Tensor of shape (n_rows,)
        On the CPU. `generator` is not used where the order is not shuffled.
    """
    if order.is_shuffled:
        return torch.randperm(n_rows, generator=generator, device=HOST)
    return torch.arange(n_rows, device=HOST)


class Source(ABC):
    """Rows that can be read in many epochs."""

    # Whether a pass that was cut short can be begun again, and gives the same rows.
    can_begin_again: ClassVar[bool] = False
    # The number of passes that came before the next one, where that decides which rows it has.
    position: int = 0

    @abstractmethod
    def n_batches(self, batch_size: int, min_rows: int = 1) -> int | None:
        """Count the batches that `batches` yields; None where only reading them tells."""

    @abstractmethod
    def batches(
        self, batch_size: int, order: Order = IN_ORDER, min_rows: int = 1
    ) -> Iterator[Batch]:
        """Yield all rows once, in batches of `batch_size` rows.

        A last batch of fewer than `min_rows` rows joins the one before it.
        """

    def close(self) -> None:  # noqa: B027  (most have nothing to end)
        """End the processes and threads that read ahead."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def bounds(n_rows: int, batch_size: int, min_rows: int) -> list[tuple[int, int]]:
    """List the first row of each batch, and the row after its last one."""
    starts = list(range(0, n_rows, batch_size))
    if len(starts) > 1 and n_rows - starts[-1] < min_rows:
        starts.pop()
    return list(zip(starts, [*starts[1:], n_rows], strict=True))
