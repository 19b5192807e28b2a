"""All rows of a dataset at once: their labels, and what `cache=True` keeps."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from easyclf.data.first_look import KEPT_ITEMS, FirstLook, is_loader
from easyclf.data.items import (
    Fields,
    batch_fields,
    fields_of,
    no_rows,
    read_item,
    row_shapes,
)
from easyclf.data.multi_input import MultiInput
from easyclf.data.seeded import SeededReader
from easyclf.data.workers import iterate
from easyclf.device import available_memory
from easyclf.nested import Tensors, apply, tensors_of
from easyclf.randomness import own_states

# Rows that are read into one batch.
_AT_ONCE = 256
# Part of the free memory that a cache may take.
_CACHED_FRACTION = 0.8
# Seconds that reading must take before processes are worth their start, and the rows that tell.
_WORTH_WORKERS, _TIMED_ROWS = 2.0, 16


def dataset_labels(look: FirstLook) -> NDArray[Any]:
    """Give the labels of all rows: those that the dataset carries, else by one pass over the rows.

    Returns
    -------
    labels : ndarray of shape (n_rows,) or (n_rows, n_labels)
        As the dataset yields them.

    Raises
    ------
    ValueError
        If an item has no label.
    """
    if look.carried_labels is not None:
        return look.carried_labels
    if look.is_stream or look.has_own_collation:
        return _labels_of_batches(look)
    n_rows = look.n_rows
    assert n_rows is not None
    for row in range(min(KEPT_ITEMS, n_rows)):
        look.label(row)
    _refuse_missing(look, look.labels)
    look.first(KEPT_ITEMS)  # whose shapes are compared here, in their order
    unread = [row for row in range(n_rows) if row not in look.labels]
    # Pictures need not be put side by side to read their labels.
    for rows, items in _read_rows(look, unread, list, look.fixed_shape, "labels"):
        labels = dict(zip(rows, (fields_of(item).y for item in items), strict=True))
        _refuse_missing(look, labels)
        look.labels.update(labels)
    return np.asarray([np.asarray(look.labels[row]) for row in range(n_rows)])


def _labels_of_batches(look: FirstLook) -> NDArray[Any]:
    """Read the labels from batches: the user's, or those of a stream."""
    labels: dict[int, Any] = {}
    for batch in _all_batches(look):
        ys = fields_of(batch).y
        start = len(labels)
        if ys is None:
            _refuse_missing(look, {start: None})
        numbered = dict(enumerate(ys, start))
        _refuse_missing(look, numbered)
        labels.update(numbered)
    if not labels:
        raise no_rows(look.dataset)
    return np.asarray([np.asarray(label) for label in labels.values()])


def _refuse_missing(look: FirstLook, labels: dict[int, Any]) -> None:
    rows = [row for row, label in labels.items() if label is None]
    if rows:
        raise ValueError(
            f"`X` is a {type(look.X).__name__} whose items have no label, the first in row "
            f"{min(rows)}; expected items (x, y)."
        )


def cached(look: FirstLook) -> Fields:
    """Read all rows of a dataset into memory: numbers keep their dtype.

    Returns
    -------
    fields : Fields
        x is a Tensor of shape (n_rows, ...) or a MultiInput of them, in new memory; y and weight
        are arrays of n_rows entries or None.

    Raises
    ------
    ValueError
        If rows differ from one reading to the next, or are a stream.
    MemoryError
        If there is no memory for them.
    """
    _check_cacheable(look)
    n_rows = look.n_rows
    assert n_rows is not None
    first = look.first(KEPT_ITEMS)
    # Stacked, rows of several dtypes would become one: the first row says which is meant.
    row = look.first(1).x
    _check_memory(n_rows, row)
    x = apply(lambda part: torch.empty((n_rows, *part.shape[1:]), dtype=part.dtype), row)
    y: list[Any] = []
    weight: list[Any] = []
    start = 0
    unread = range(first.n_rows, n_rows)
    rest = _read_rows(look, unread, look.collate, look.fixed_shape, "cache")
    for fields in itertools.chain([first], (batch_fields(batch) for _, batch in rest)):
        stop = start + fields.n_rows
        _fill(x, start, stop, fields.x)
        y.extend(np.asarray(fields.y) if fields.y is not None else [])
        weight.extend(np.asarray(fields.weight) if fields.weight is not None else [])
        start = stop
    if len(y) not in (0, n_rows):
        raise ValueError(f"`X` has {n_rows} rows, but only {len(y)} of them have a label.")
    inputs = x if isinstance(x, torch.Tensor) else MultiInput(x)
    return Fields(inputs, np.asarray(y) if y else None, np.asarray(weight) if weight else None)


def _fill(x: Tensors, start: int, stop: int, part: Tensors) -> None:
    """Write rows of shape (stop - start, ...) into x of shape (n_rows, ...)."""
    for whole, tensor in zip(tensors_of(x), tensors_of(part), strict=True):
        if tensor.dtype != whole.dtype:
            raise TypeError(
                f"`cache` is True, but X yields rows of {tensor.dtype} after rows of "
                f"{whole.dtype}; give all rows one dtype."
            )
        whole[start:stop] = tensor


def _check_memory(n_rows: int, row: Tensors) -> None:
    needed = n_rows * sum(part.nbytes for part in tensors_of(row))
    free = available_memory()
    if free is not None and needed > _CACHED_FRACTION * free:
        raise MemoryError(
            f"`cache=True` needs {needed / 2**30:.1f} GB for {n_rows} rows of shape "
            f"{row_shapes(row)}, and {free / 2**30:.1f} GB are free; leave it out, make the rows "
            "smaller, or yield uint8."
        )


def _check_cacheable(look: FirstLook) -> None:
    if is_loader(look.X) or look.is_stream:
        raise ValueError(
            f"`cache` is True, but X is a {type(look.X).__name__}, whose rows come as it pleases; "
            "pass a map-style Dataset."
        )
    first = look.first(KEPT_ITEMS).x
    if isinstance(first, torch.Tensor) and first.ndim == 1:
        raise ValueError(
            "`cache` is True, but X yields single numbers; yield tensors of shape (1,)."
        )
    with own_states(1, torch.device("cpu")):
        items = [read_item(look.dataset, row) for row in range(len(tensors_of(first)[0]))]
        again = batch_fields(look.collate(items)).x
    if not all(map(torch.equal, tensors_of(first), tensors_of(again))):
        raise ValueError(
            "`cache` is True, but the rows of X differ from one reading to the next, and every "
            "epoch would get the same of them; move the random transforms to `augment`."
        )


def _all_batches(look: FirstLook) -> Iterator[Any]:
    """Yield all rows in the batches of the user, or of a stream, with a bar."""
    if look.is_stream:
        # In one process: were every worker to yield all rows, they would be too many later on.
        at_once = look.X.batch_size if is_loader(look.X) else _AT_ONCE
        loader: Any = DataLoader(look.dataset, at_once, collate_fn=look.collate)
    elif is_loader(look.X):
        loader = look.X
    else:
        assert look.n_rows is not None
        rows = range(look.n_rows)
        yield from (batch for _, batch in _read_rows(look, rows, look.collate, None, "labels"))
        return
    with closing(iterate(loader)) as batches:
        yield from _shown(batches, "labels", None)


def _read_rows(
    look: FirstLook,
    rows: Sequence[int],
    collate: Callable[[list[Any]], Any],
    shape: tuple[int, ...] | None,
    what: str,
) -> Iterator[tuple[list[int], Any]]:
    """Read rows of a map-style dataset once, by several processes where that pays, with a bar.

    Yields the numbers of the rows of each batch, and the batch that `collate` made of them.
    """
    reader = SeededReader(look.dataset, collate, shape)
    workers = look.loader_options.get("num_workers")
    if workers is None and rows:
        timed, rows = list(rows[:_TIMED_ROWS]), rows[_TIMED_ROWS:]
        began = time.perf_counter()
        yield timed, reader[0, timed]
        workers = _useful_workers((time.perf_counter() - began) * len(rows) / len(timed))
    batches = [list(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)]
    if not batches:
        return
    options = {**look.loader_options, "num_workers": workers, "persistent_workers": False}
    # Each batch is read under a seed of its own, its number, whichever process reads it.
    loader = reader.loader(list(enumerate(batches, start=1)), options)
    with closing(iterate(loader)) as read:
        yield from zip(batches, _shown(read, what, len(batches)), strict=True)


def _shown(batches: Iterator[Any], what: str, total: int | None) -> Iterator[Any]:
    """Show a bar where somebody watches and it takes more than a second and a half."""
    if not sys.stderr.isatty():
        return batches
    from tqdm.auto import tqdm  # whose thread would go on also if it showed nothing

    bar: Iterator[Any] = iter(tqdm(batches, what, total, leave=False, delay=1.5))
    return bar


def _useful_workers(seconds: float) -> int:
    """As many processes as there are cores, if reading takes long and they start without copies."""
    if "fork" not in torch.multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return 0
    cores = len(os.sched_getaffinity(0))
    return cores if seconds > _WORTH_WORKERS and cores > 1 else 0
