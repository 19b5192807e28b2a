"""Batches of datasets and data loaders: seeded, and read by workers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from easyclf.checks import did_you_mean
from easyclf.data.base import Batch, Encoder, Source, bounds
from easyclf.data.datasets import (
    Fields,
    batch_fields,
    dataset_of,
    dead_worker,
    fields_of,
    first_rows,
    has_own_collation,
    is_dataset,
    is_stream,
    item,
    iterate,
    n_rows_of,
    other_shape,
    says_worker_died,
    shapes_of,
    shut_down,
)
from easyclf.data.finite import check_finite
from easyclf.data.formats import InputFormat
from easyclf.nested import apply, like, tensors_of
from easyclf.randomness import own_states

_CPU = torch.device("cpu")

# What easyclf itself says to a loader.
_OWN_OPTIONS = (
    "dataset",
    "batch_size",
    "shuffle",
    "sampler",
    "batch_sampler",
    "drop_last",
    "generator",
    "in_order",
)


def check_options(options: Mapping[str, Any], X: Any) -> None:
    """Refuse `loader__*` that no loader takes, or beside a loader or an array."""
    known = [name for name in inspect.signature(DataLoader).parameters if name not in _OWN_OPTIONS]
    for name in options:
        if name in _OWN_OPTIONS:
            advice = (
                "set `batch_size`, `shuffle` and `random_state` of Estimator, or pass a DataLoader "
                "as X."
            )
            raise TypeError(f"`loader__{name}` is easyclf's to set; {advice}")
        if name not in known:
            raise TypeError(
                f"`loader__{name}` is not a parameter of torch.utils.data.DataLoader"
                f"{did_you_mean(name, known, 'loader__')}"
            )
    if options and isinstance(X, DataLoader):
        raise ValueError(
            f"`loader__{next(iter(options))}` is given, but X is a DataLoader, which has its own "
            "settings; leave it out, or pass the Dataset."
        )
    if options and not is_dataset(X):
        raise ValueError(
            f"`loader__{next(iter(options))}` is given, but X is a {type(X).__name__}, which needs "
            "no DataLoader; leave it out."
        )


class SeededRows(Dataset[Any]):
    """A dataset whose errors name the row, whose rows have one shape, and whose draws are seeded.

    It is asked for batches, each with a seed of its own: so they are the same whichever process
    reads them.
    """

    def __init__(self, dataset: Any, shape: Any) -> None:
        self._dataset, self._shape = dataset, shape

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, batch: tuple[int, list[int]]) -> list[Any]:
        seed, rows = batch
        with own_states(seed, _CPU):
            if hasattr(self._dataset, "__getitems__"):
                items = self._fetched(rows)
            else:
                items = [item(self._dataset, row) for row in rows]
        if self._shape is not None:
            for row, found in zip(rows, items, strict=True):
                self._check(row, fields_of(found).x)
        return items

    def _fetched(self, rows: list[int]) -> list[Any]:
        try:
            return list(self._dataset.__getitems__(rows))
        except Exception as error:
            error.add_note(
                f"Raised by {type(self._dataset).__name__}.__getitems__ for the rows {rows[:5]}..."
            )
            raise

    def _check(self, row: int, x: Any) -> None:
        shape = getattr(x, "shape", None)
        if shape is not None and tuple(shape) != self._shape:
            raise other_shape(self._shape, row, tuple(shape))


class SeededBatches(Sampler[Any]):
    """The numbers of the rows of each batch, and a seed for what is drawn in reading them."""

    def __init__(self, n_rows: int, batch_size: int, min_rows: int, seed: int) -> None:
        self._n_rows = n_rows
        self._bounds = bounds(n_rows, batch_size, min_rows)
        self._seeds = torch.Generator("cpu").manual_seed(seed)
        self.order: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        if self.order is None:
            rows = torch.arange(self._n_rows, device="cpu")
        else:
            rows = torch.randperm(self._n_rows, generator=self.order, device="cpu")
        seeds = torch.randint(
            2**31, (len(self._bounds),), generator=self._seeds, device="cpu"
        ).tolist()
        for seed, (start, stop) in zip(seeds, self._bounds, strict=True):
            yield seed, rows[start:stop].tolist()


class LoaderSource(Source):
    """Rows of a dataset, or of the user's own loader as it batches them.

    Parameters
    ----------
    rows : Dataset or DataLoader
        A loader keeps its batch size, sampler, workers and collation.
    encode : callable or None
        Labels of a batch to targets; None leaves the labels out.
    input_format : InputFormat
        Where the batches go.
    options : mapping
        The user's `loader__*`, without the prefix.
    n_rows : int or None
        The number of rows, where it is known.
    seed : int
        The seed of what is drawn in reading the rows.
    """

    def __init__(
        self,
        rows: Any,
        encode: Encoder | None,
        input_format: InputFormat,
        options: Mapping[str, Any],
        n_rows: int | None,
        seed: int,
    ) -> None:
        self._rows, self._encode, self._input_format = rows, encode, input_format
        self._options, self._n_rows, self._seed = dict(options), n_rows, seed
        self._is_own = not isinstance(rows, DataLoader)
        self._loaders: dict[tuple[int, int], tuple[DataLoader[Any], SeededBatches | None]] = {}
        self._n_yielded: int | None = None

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int | None:
        if self._is_own:
            return None if self._n_rows is None else len(bounds(self._n_rows, batch_size, min_rows))
        try:
            n_batches: int = len(self._rows)
        except TypeError:
            return None
        full, sampler = self._rows.batch_size, self._rows.sampler
        if full is None or self._rows.drop_last or not hasattr(sampler, "__len__"):
            return n_batches
        last = len(sampler) % full
        return n_batches - int(0 < last < min_rows and len(sampler) > full)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        loader = self._loader(batch_size, generator, min_rows)
        with closing(iterate(loader)) as batches:
            for fields in _joined(self._read(batches), min_rows):
                yield self._batch(fields)

    def _read(self, batches: Iterator[Any]) -> Iterator[Fields]:
        """The parts of each batch, with the rows that count."""
        first: Fields | None = None
        n_rows = 0
        for number, batch in enumerate(batches):
            fields = batch_fields(batch)
            n_rows += n_rows_of(fields.x)
            if number == 1 and first is not None and is_stream(self._rows):
                self._check_workers(first, fields)
            first = fields if number == 0 else None
            if self._encode is not None and fields.weight is not None:
                fields = _counting(fields)
            if n_rows_of(fields.x):
                yield fields
        self._check_stream(n_rows)

    def _loader(
        self, batch_size: int, generator: torch.Generator | None, min_rows: int
    ) -> DataLoader[Any]:
        if not self._is_own:
            loader: DataLoader[Any] = self._rows
            return loader
        key = batch_size, min_rows
        if key not in self._loaders:
            self._loaders[key] = self._make_loader(batch_size, min_rows)
        loader, sampler = self._loaders[key]
        if sampler is not None:
            sampler.order = generator
        return loader

    def _make_loader(
        self, batch_size: int, min_rows: int
    ) -> tuple[DataLoader[Any], SeededBatches | None]:
        options = {
            "persistent_workers": bool(self._options.get("num_workers")),
            # From which it would draw once an epoch, or once in all where there are workers.
            "generator": torch.Generator("cpu").manual_seed(self._seed),
            **self._options,
        }
        if is_stream(self._rows):
            return DataLoader(self._rows, batch_size, **options), None
        assert self._n_rows is not None
        sampler = SeededBatches(self._n_rows, batch_size, min_rows, self._seed)
        rows = SeededRows(self._rows, fixed_shape(self._rows, options))
        return DataLoader(rows, batch_sampler=sampler, **options), sampler

    def _batch(self, fields: Fields) -> Batch:
        device, y, weight = self._input_format.device, None, None
        apply(lambda one: check_finite(one, self._input_format.dtype, " of a batch"), fields.x)
        if self._encode is not None:
            if fields.y is None:
                raise ValueError("`X` yields items without a label; expected items (x, y).")
            if fields.weight is not None:
                weight = fields.weight.to(device, self._input_format.weight_dtype)
            y = self._encode(fields.y).to(device)
        is_own = not has_own_collation(self._rows, self._options)
        return self._input_format.batch(fields.x, y, weight, is_own=is_own)

    def _check_workers(self, first: Fields, second: Fields) -> None:
        """Refuse a stream whose workers begin with the same rows, and not just with equal ones."""
        n_workers = self._options.get("num_workers", 0) if self._is_own else self._rows.num_workers
        pairs = zip(tensors_of(first.x), tensors_of(second.x), strict=True)
        is_same = all(torch.equal(*pair) for pair in pairs)
        if first.y is not None:
            is_same = is_same and np.array_equal(np.asarray(first.y), np.asarray(second.y))
        differ = any(not torch.equal(one[:1].expand_as(one), one) for one in tensors_of(first.x))
        if n_workers > 1 and is_same and differ:
            raise ValueError(
                f"`X` is a {type(dataset_of(self._rows)).__name__} whose {n_workers} workers begin "
                "with the same rows: every worker yields all of them; let `__iter__` share the "
                "rows out by torch.utils.data.get_worker_info()."
            )

    def _check_stream(self, n_rows: int) -> None:
        """Refuse a stream that ends at once, or with another number of rows than before."""
        if not is_stream(self._rows):
            return
        drops = not self._is_own and self._rows.drop_last
        expected = self._n_yielded if self._n_rows is None or drops else self._n_rows
        self._n_yielded = n_rows
        name = type(dataset_of(self._rows)).__name__
        if not n_rows:
            raise ValueError(f"`X` is a {name} that yielded no rows; expected some in every epoch.")
        if expected is not None and n_rows != expected:
            raise ValueError(
                f"`X` is a {name} that yielded {n_rows} rows in this epoch and {expected} before; "
                "yield the same rows in every epoch, each of them from one worker."
            )

    def close(self) -> None:
        for loader in [self._rows, *(loader for loader, _ in self._loaders.values())]:
            iterator = getattr(loader, "_iterator", None)
            if isinstance(loader, DataLoader) and iterator is not None:
                # It kept its workers from one epoch to the next.
                shut_down(iterator)
                loader._iterator = None
        self._loaders.clear()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if error is not None and says_worker_died(error):
            raise dead_worker(error) from error


def _joined(batches: Iterator[Fields], min_rows: int) -> Iterator[Fields]:
    """Batches; one with fewer rows than `min_rows` joins the one beside it."""
    held: Fields | None = None
    for fields in batches:
        if held is not None and min(n_rows_of(held.x), n_rows_of(fields.x)) < min_rows:
            held = _cat(held, fields)
            continue
        if held is not None:
            yield held
        held = fields
        if min_rows == 1:
            yield held
            held = None
    if held is not None:
        yield held


def _cat(first: Fields, second: Fields) -> Fields:
    pairs = zip(tensors_of(first.x), tensors_of(second.x), strict=True)
    x = like(first.x, [torch.cat(pair) for pair in pairs])
    y, weight = (
        None
        if one is None
        else torch.cat([one, other])
        if isinstance(one, torch.Tensor)
        else [*one, *other]
        for one, other in zip(first[1:], second[1:], strict=True)
    )
    return Fields(x, y, weight)


def fixed_shape(X: Any, options: Mapping[str, Any]) -> Any:
    """The shape that all rows are to have; None where the user makes the batches."""
    if has_own_collation(X, options):
        return None
    first = first_rows(X, 1, options).x
    return shapes_of(first) if isinstance(first, torch.Tensor) else None


def _counting(fields: Fields) -> Fields:
    """The rows of positive weight, with the weights checked."""
    weight = torch.as_tensor(fields.weight).double().reshape(-1)
    n_rows = n_rows_of(fields.x)
    if len(weight) != n_rows or not weight.isfinite().all() or (weight < 0).any():
        raise ValueError(
            f"`X` yields the weights {weight[:5].tolist()} for a batch of {n_rows} rows; expected "
            "one finite weight of at least 0 for each row."
        )
    counts = weight > 0
    if counts.all():
        return fields._replace(weight=weight)
    y = fields.y
    if isinstance(y, torch.Tensor):
        y = y[counts]
    else:
        y = [label for label, count in zip(y, counts.tolist(), strict=True) if count]
    return Fields(apply(lambda one: one[counts], fields.x), y, weight[counts])
