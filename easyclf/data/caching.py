"""All rows of a dataset at once: their labels, and what `cache=True` keeps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from easyclf.data.datasets import (
    Fields,
    batch_fields,
    carried_labels,
    collate_of,
    dataset_of,
    fields_of,
    first_rows,
    has_own_collation,
    is_stream,
    item,
    iterate,
    length_of,
    n_rows_of,
    no_rows,
    shapes_of,
)
from easyclf.data.loaders import SeededBatches, SeededRows, fixed_shape
from easyclf.data.multi_input import MultiInput
from easyclf.device import available_memory
from easyclf.nested import Tensors, apply, tensors_of
from easyclf.randomness import own_states

# Rows that are read into one batch.
_AT_ONCE = 256
# Part of the free memory that a cache may take.
_CACHED_FRACTION = 0.8
# Seconds that reading must take before processes are worth their start.
_WORTH_WORKERS = 2.0


def dataset_labels(X: Any, options: Mapping[str, Any]) -> NDArray[Any]:
    """The labels of all rows: those that the dataset carries, else by one pass over the rows.

    Raises
    ------
    ValueError
        If an item has no label.
    """
    carried = carried_labels(X)
    if carried is not None:
        return carried
    found: list[Any] = []
    # Pictures need not be put side by side to read their labels.
    collate = None if has_own_collation(X, options) or is_stream(X) else list
    for batch in _read_all(X, options, "labels", collate):
        ys = [fields_of(one).y for one in batch] if collate else fields_of(batch).y
        if ys is None or any(y is None for y in ys):
            row = len(found) + (0 if ys is None else [y is None for y in ys].index(True))
            raise ValueError(
                f"`X` is a {type(X).__name__} whose items have no label, the first in row {row}; "
                "expected items (x, y)."
            )
        found.extend(map(np.asarray, ys))
    if not found:
        raise no_rows(dataset_of(X))
    return np.asarray(found)


def cached(X: Any, options: Mapping[str, Any]) -> Fields:
    """All rows of a dataset, in memory: numbers keep their dtype.

    Raises
    ------
    ValueError
        If rows differ from one reading to the next, or are a stream.
    MemoryError
        If there is no memory for them.
    """
    _check_cacheable(X, options)
    n_rows = length_of(X)
    assert n_rows is not None
    first = first_rows(X, 1, options).x
    needed = n_rows * sum(one.nbytes for one in tensors_of(first))
    free = available_memory()
    if free is not None and needed > _CACHED_FRACTION * free:
        raise MemoryError(
            f"`cache=True` needs {needed / 2**30:.1f} GB for {n_rows} rows of shape "
            f"{shapes_of(first)}, and {free / 2**30:.1f} GB are free; leave it out, make the rows "
            "smaller, or yield uint8."
        )
    x = apply(lambda one: torch.empty((n_rows, *one.shape[1:]), dtype=one.dtype), first)
    y: list[Any] = []
    weight: list[Any] = []
    start = 0
    for fields in map(batch_fields, _read_all(X, options, "cache", None)):
        stop = start + n_rows_of(fields.x)
        for whole, part in zip(tensors_of(x), tensors_of(fields.x), strict=True):
            if part.dtype != whole.dtype:
                raise TypeError(
                    f"`cache` is True, but X yields rows of {part.dtype} after rows of "
                    f"{whole.dtype}; give all rows one dtype."
                )
            whole[start:stop] = part
        y.extend(np.asarray(fields.y) if fields.y is not None else [])
        weight.extend(np.asarray(fields.weight) if fields.weight is not None else [])
        start = stop
    if len(y) not in (0, n_rows):
        raise ValueError(f"`X` has {n_rows} rows, but only {len(y)} of them have a label.")
    return Fields(_several(x), np.asarray(y) if y else None, np.asarray(weight) if weight else None)


def _several(x: Tensors) -> Any:
    return x if isinstance(x, torch.Tensor) else MultiInput(x)


def _check_cacheable(X: Any, options: Mapping[str, Any]) -> None:
    if isinstance(X, DataLoader) or is_stream(X):
        raise ValueError(
            f"`cache` is True, but X is a {type(X).__name__}, whose rows come as it pleases; pass "
            "a map-style Dataset."
        )
    readings = []
    for seed in (0, 1):
        with own_states(seed, torch.device("cpu")):
            readings.append(first_rows(X, 4, options).x)
    if isinstance(readings[0], torch.Tensor) and readings[0].ndim == 1:
        raise ValueError(
            "`cache` is True, but X yields single numbers; yield tensors of shape (1,)."
        )
    if not all(map(torch.equal, *map(tensors_of, readings))):
        raise ValueError(
            "`cache` is True, but the rows of X differ from one reading to the next, and every "
            "epoch would get the same of them; move the random transforms to `augment`."
        )


def _read_all(
    X: Any, options: Mapping[str, Any], what: str, collate: Callable[[list[Any]], Any] | None
) -> Iterator[Any]:
    """All rows once, in batches, with a bar; by several processes where that pays."""
    n_rows = length_of(X)
    options = {**options, **({} if collate is None else {"collate_fn": collate})}
    if isinstance(X, DataLoader) and collate is not None:
        X = X.dataset
    if is_stream(X):
        # In one process: were every worker to yield all rows, they would be too many later on.
        at_once = X.batch_size if isinstance(X, DataLoader) else _AT_ONCE
        loader = DataLoader(dataset_of(X), at_once, collate_fn=collate_of(X, options))
        total = None
    elif isinstance(X, DataLoader):
        loader, total = X, None
    else:
        assert n_rows is not None
        workers = options.get("num_workers", _useful_workers(X, n_rows))
        sampler = SeededBatches(n_rows, _AT_ONCE, 1, seed=0)
        settings = {**options, "num_workers": workers, "persistent_workers": False}
        shape = fixed_shape(X, options) if collate is None else None
        loader = DataLoader(SeededRows(X, shape), batch_sampler=sampler, **settings)
        total = len(sampler)
    with closing(iterate(loader)) as batches:
        if not sys.stderr.isatty():
            yield from batches
            return
        from tqdm.auto import tqdm  # whose thread would go on also if it showed nothing

        yield from tqdm(batches, what, total, leave=False, delay=1.5)


def _useful_workers(X: Any, n_rows: int) -> int:
    """As many processes as there are cores, if reading takes long and they start without copies."""
    if "fork" not in torch.multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return 0
    n_read = min(16, n_rows)
    began = time.perf_counter()
    for row in range(n_read):
        item(X, row)
    seconds = (time.perf_counter() - began) * n_rows / n_read
    cores = len(os.sched_getaffinity(0))
    return cores if seconds > _WORTH_WORKERS and cores > 1 else 0
