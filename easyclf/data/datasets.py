"""Map-style datasets: rows that are read by their numbers, in seeded batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from easyclf.checks import warn_user
from easyclf.data.base import IN_ORDER, Batch, Encoder, Order, bounds, row_order
from easyclf.data.caching import carried_labels, dataset_labels
from easyclf.data.first_look import DatasetLike, FirstLook
from easyclf.data.formats import InputFormat
from easyclf.data.items import Column, Fields
from easyclf.data.loading import LoadedRows, LoadedSource, labels_to_targets
from easyclf.data.rows import OwnLabels, chosen_batch_size
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.seeded import SeededReader, draw_seeds
from easyclf.data.workers import end_kept_workers, iterate


def read_dataset(X: DatasetLike, context: ReadContext) -> tuple[DatasetRows, RowSchema]:
    """Look at a map-style dataset."""
    look = FirstLook(X, context.loader_options)
    return DatasetRows(look), look.check(context)


@dataclass(frozen=True)
class DatasetRows(LoadedRows):
    """Rows of a map-style dataset."""

    @property
    def n_rows(self) -> int | None:
        return self.look.n_rows

    @property
    def can_repeat(self) -> bool:
        return True

    def own_labels(self, *, needs_all: bool) -> OwnLabels | None:
        return dataset_labels(self.look) if needs_all else carried_labels(self.look)

    def take(self, row_numbers: NDArray[np.intp]) -> DatasetRows:
        return DatasetRows(self.look.take(row_numbers), **self._labels_of(row_numbers))

    def training_batch_size(self, asked: int | str) -> int:
        return chosen_batch_size(asked, self.n_rows, self.kind_name)

    def source(
        self,
        input_format: InputFormat,
        targets: Encoder | None = None,
        encode: Encoder | None = None,
        *,
        is_kept: bool = False,
    ) -> DatasetSource:
        count = None
        if encode is not None and self.codes is not None and self.look.has_carried_labels:
            count = _LabelCount(self.codes, encode)
        to_targets = labels_to_targets(targets, count or encode)
        return DatasetSource(self.look, to_targets, input_format, count)


class EpochBatches(Sampler[tuple[int, list[int]]]):
    """The numbers of the rows of each batch of an epoch, and a seed for reading them.

    Parameters
    ----------
    n_rows, batch_size, min_rows : int
        As of `Source.batches`.
    """

    def __init__(self, n_rows: int, batch_size: int, min_rows: int) -> None:
        self._n_rows = n_rows
        self._bounds = bounds(n_rows, batch_size, min_rows)
        self.order = IN_ORDER

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        generator = self.order.generator()
        rows = row_order(self._n_rows, generator, self.order)
        seeds = draw_seeds(len(self._bounds), generator)
        for seed, (start, stop) in zip(seeds, self._bounds, strict=True):
            yield seed, rows[start:stop].tolist()


class _LabelCount:
    """Encodes labels, and compares how often each class comes with what a dataset says beside.

    Parameters
    ----------
    codes : ndarray of int64 of shape (n_rows,) or (n_rows, n_labels)
        What it says.
    encode : callable
        Labels to codes.
    """

    def __init__(self, codes: NDArray[np.int64], encode: Encoder) -> None:
        self._codes, self._encode = codes, encode
        self._seen: list[NDArray[np.int64]] = []
        self._is_open = True

    def __call__(self, labels: Column) -> torch.Tensor:
        codes = self._encode(labels)
        if self._is_open:
            self._seen.append(codes.cpu().numpy())
        return codes

    def compare(self) -> None:
        """Warn of other labels, once, after an epoch."""
        if not self._is_open:
            return
        self._is_open = False
        seen = np.concatenate(self._seen)
        self._seen.clear()
        if len(seen) != len(self._codes):  # the user's collation drops rows
            return
        said, found = _class_counts(self._codes), _class_counts(seen)
        if said != found:
            warn_user(
                "`X` keeps labels beside its items, as `targets` or `labels`, which are not those "
                f"of the items: the classes have {said[:9]} rows there and {found[:9]} among the "
                "items. class_weight='balanced' and `validation_split` went by the former, "
                "training by the latter; bring them up to date, or delete them.",
            )


def _class_counts(codes: NDArray[np.int64]) -> list[int]:
    """Count the rows of each class, by codes of shape (n_rows,) or (n_rows, n_labels)."""
    counts = codes.sum(0) if codes.ndim > 1 else np.bincount(codes)
    return [int(count) for count in counts]


class DatasetSource(LoadedSource):
    """Rows of a map-style dataset, read by easyclf's own DataLoader.

    Workers stay from one epoch to the next: what they draw follows from the seed of each batch.

    Parameters
    ----------
    count : _LabelCount, default=None
        What compares the labels of an epoch with those that the dataset keeps beside.
    """

    def __init__(
        self,
        look: FirstLook,
        encode: Encoder | None,
        input_format: InputFormat,
        count: _LabelCount | None = None,
    ) -> None:
        super().__init__(look, encode, input_format)
        self._count = count
        self._loaders: dict[tuple[int, int], tuple[DataLoader[Any], EpochBatches]] = {}

    @property
    def _n_rows(self) -> int:
        n_rows = self._look.n_rows
        assert n_rows is not None
        return n_rows

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return len(bounds(self._n_rows, batch_size, min_rows))

    def batches(
        self, batch_size: int, order: Order = IN_ORDER, min_rows: int = 1
    ) -> Iterator[Batch]:
        yield from super().batches(batch_size, order, min_rows)
        if self._count is not None:
            self._count.compare()

    def _load(self, batch_size: int, order: Order, min_rows: int) -> Generator[Any]:
        key = batch_size, min_rows
        if key not in self._loaders:
            self._loaders[key] = self._make_loader(batch_size, min_rows)
        loader, epoch_batches = self._loaders[key]
        epoch_batches.order = order
        # From which the loader draws the seeds of its workers.
        loader.generator = order.generator()
        return iterate(loader)

    def _make_loader(self, batch_size: int, min_rows: int) -> tuple[DataLoader[Any], EpochBatches]:
        epoch_batches = EpochBatches(self._n_rows, batch_size, min_rows)
        reader = SeededReader(self._look.dataset, self._look.collate, self._look.fixed_shape)
        options = dict(self._look.loader_options)
        persists = options.pop("persistent_workers", bool(options.get("num_workers")))
        loader = reader.loader(epoch_batches, {**options, "persistent_workers": persists})
        return loader, epoch_batches

    def _checked(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        return self._answering(batches, self._n_rows)

    def close(self) -> None:
        for loader, _ in self._loaders.values():
            end_kept_workers(loader)
        self._loaders.clear()
