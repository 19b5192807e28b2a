"""Streams: datasets whose rows come one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from easyclf.data.base import Encoder, Order, bounds
from easyclf.data.caching import dataset_labels
from easyclf.data.first_look import DatasetLike, FirstLook
from easyclf.data.formats import InputFormat
from easyclf.data.items import Fields
from easyclf.data.loading import LoadedRows, LoadedSource, labels_to_targets
from easyclf.data.rows import chosen_batch_size
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.seeded import seeded
from easyclf.data.workers import iterate
from easyclf.nested import tensors_of
from easyclf.targets import Labels


def read_stream(X: DatasetLike, context: ReadContext) -> tuple[StreamRows, RowSchema]:
    """Look at a stream."""
    look = FirstLook(X, context.loader_options)
    return StreamRows(look), look.check(context)


@dataclass(frozen=True)
class StreamRows(LoadedRows):
    """Rows of a stream."""

    can_be_split: ClassVar[bool] = False

    @property
    def n_rows(self) -> int | None:
        return len(self.codes) if self.codes is not None else self.look.n_rows

    @property
    def can_repeat(self) -> bool:
        return False

    def own_labels(self, *, needs_all: bool) -> Labels | None:
        return dataset_labels(self.look) if needs_all else None

    def take(self, row_numbers: NDArray[np.intp]) -> StreamRows:
        raise TypeError(f"`X` is a {self.kind_name}, whose rows cannot be picked by their numbers.")

    def training_batch_size(self, asked: int | str) -> int:
        return chosen_batch_size(asked, self.n_rows, self.kind_name)

    def source(
        self,
        input_format: InputFormat,
        targets: Encoder | None = None,
        encode: Encoder | None = None,
        *,
        is_kept: bool = False,
    ) -> StreamSource:
        to_targets = labels_to_targets(targets, encode)
        return StreamSource(self.look, to_targets, input_format, self.n_rows)


class StreamSource(LoadedSource):
    """Rows of a stream, read by easyclf's own DataLoader.

    The workers start anew in each epoch: they would go on with the random states, and with the
    copy of the dataset, that the epoch before left behind.

    Parameters
    ----------
    n_rows : int or None
        The number of rows, where it is known.
    """

    def __init__(
        self,
        look: FirstLook,
        encode: Encoder | None,
        input_format: InputFormat,
        n_rows: int | None,
    ) -> None:
        super().__init__(look, encode, input_format)
        self._n_rows = n_rows
        self._options = {**look.loader_options, "persistent_workers": False}
        self._n_workers: int = self._options.get("num_workers", 0)
        self._check = EpochCheck(look.name, self._n_workers, n_rows)

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int | None:
        return None if self._n_rows is None else len(bounds(self._n_rows, batch_size, min_rows))

    def _load(self, batch_size: int, order: Order, min_rows: int) -> Generator[Any]:
        # The generator seeds the workers.
        loader = DataLoader(
            self._look.dataset, batch_size, generator=order.generator(), **self._options
        )
        batches = iterate(loader)
        return batches if self._n_workers else seeded(batches, order)

    def _checked(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        return self._check.watch(batches)


class EpochCheck:
    """Refuses a stream whose rows come twice, and one that ends at once or earlier than before.

    Parameters
    ----------
    name : str
        The type of the dataset, for messages.
    n_workers : int
        Processes that read it.
    n_rows : int or None
        The number of rows, where it is known.
    """

    def __init__(self, name: str, n_workers: int, n_rows: int | None) -> None:
        self._name, self._n_workers, self._n_rows = name, n_workers, n_rows

    def watch(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        """Yield the batches of an epoch, with an error before the second or after the last one.

        Raises
        ------
        ValueError
            If the workers begin with the same rows, or the number of rows is another than before.
        """
        first: Fields | None = None
        n_rows = 0
        for number, fields in enumerate(batches):
            n_rows += fields.n_rows
            if number == 0:
                first = fields
            elif first is not None:
                self._compare(first, fields)
                first = None
            yield fields
        self._count(n_rows)

    def _compare(self, first: Fields, second: Fields) -> None:
        """Refuse workers that begin with the same rows, and not just with equal ones."""
        if self._n_workers < 2:
            return
        pairs = zip(tensors_of(first.x), tensors_of(second.x), strict=True)
        is_same = all(torch.equal(*pair) for pair in pairs)
        if first.y is not None:
            is_same = is_same and np.array_equal(np.asarray(first.y), np.asarray(second.y))
        # Rows that all equal the first one say nothing.
        differ = any(not torch.equal(x[:1].expand_as(x), x) for x in tensors_of(first.x))
        if is_same and differ:
            raise ValueError(
                f"`X` is a {self._name} whose {self._n_workers} workers begin with the same rows: "
                "every worker yields all of them; let `__iter__` share the rows out by "
                "torch.utils.data.get_worker_info()."
            )

    def _count(self, n_rows: int) -> None:
        """Refuse a stream that ends at once, or with another number of rows than before."""
        if not n_rows:
            raise ValueError(
                f"`X` is a {self._name} that yielded no rows; expected some in every epoch."
            )
        if self._n_rows is not None and n_rows != self._n_rows:
            raise ValueError(
                f"`X` is a {self._name} that yielded {n_rows} rows in this epoch and "
                f"{self._n_rows} before; yield the same rows in every epoch, each of them from "
                "one worker."
            )
        self._n_rows = n_rows
