"""Arrays in files, read in blocks: what is larger than memory, or should not fill it."""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from easyclf.data.base import Batch, Placement, Source, bounds
from easyclf.data.tensors import as_tensor, find_not_finite

# Smaller files are read into memory, where every order of the rows is as fast as any other.
LARGE = 2**30
# What is read at once, and what is shuffled at once: a pool holds the rows of 256 blocks.
_BLOCK, _POOL = 2**18, 2**26


def is_large_memmap(x: Any) -> bool:
    """Whether `x` is a part of a file that is to stay there."""
    return isinstance(x, np.memmap) and x.nbytes >= LARGE


class BlockSource(Source):
    """Rows of an array in a file.

    In order they are read a block at a time. Shuffled, the blocks come in a random order; the
    rows of 256 blocks, 64 MB, make a pool, within which they are shuffled. The next pool is read
    while the batches of the current one are used.

    Parameters
    ----------
    x : memmap
        The rows, one after the other in the file.
    y, weight : Tensor or None
        Targets and weights of the rows.
    placement : Placement
        Where the batches go.
    """

    def __init__(
        self,
        x: np.memmap[Any, Any],
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        placement: Placement,
    ) -> None:
        self._x, self._placement = x, placement
        device = placement.device
        self._y = None if y is None else y.to(device)
        self._weight = None if weight is None else weight.to(device)
        row = max(1, x.nbytes // len(x))
        self._block_rows = max(1, _BLOCK // row)
        self._pool_blocks = max(1, _POOL // (row * self._block_rows))
        self._reader: _Reader | None = None

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return len(bounds(len(self._x), batch_size, min_rows))

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        self.close()
        starts = torch.arange(0, len(self._x), self._block_rows, device="cpu")
        if generator is not None:
            starts = starts[torch.randperm(len(starts), generator=generator, device="cpu")]
        pools = [part.tolist() for part in torch.split(starts, self._pool_blocks)]
        seeds: list[int | None] = [None] * len(pools)
        if generator is not None:
            drawn = torch.randint(2**63 - 1, (len(pools),), generator=generator, device="cpu")
            seeds = drawn.tolist()
        self._reader = reader = _Reader(
            self._x, self._block_rows, list(zip(pools, seeds, strict=True))
        )
        try:
            yield from self._cut(reader, bounds(len(self._x), batch_size, min_rows))
        finally:
            reader.close()

    def _cut(self, reader: _Reader, parts: list[tuple[int, int]]) -> Iterator[Batch]:
        sizes = iter([stop - start for start, stop in parts])
        size = next(sizes)
        x = numbers = None
        for pool, rows in reader:
            # What the last pool had too little of for a batch comes first.
            x = pool if x is None else torch.cat([x, pool])
            numbers = rows if numbers is None else torch.cat([numbers, rows])
            start = 0
            while size and len(x) - start >= size:
                yield self._batch(x[start : start + size], numbers[start : start + size])
                start += size
                size = next(sizes, 0)
            x, numbers = x[start:].clone(), numbers[start:].clone()

    def _batch(self, x: torch.Tensor, numbers: torch.Tensor) -> Batch:
        rows = numbers.to(self._placement.device)
        y = None if self._y is None else self._y[rows]
        weight = None if self._weight is None else self._weight[rows]
        return self._placement.batch(x, y, weight, is_own=True)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Reader:
    """Pools of blocks, the next of which a thread reads, and shuffles if there is a seed for it."""

    def __init__(
        self,
        x: np.memmap[Any, Any],
        block_rows: int,
        pools: list[tuple[list[int], int | None]],
    ) -> None:
        self._x, self._block_rows, self._pools = x, block_rows, pools
        self._read: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for starts, seed in self._pools:
            try:
                found: Any = self._pool(starts, seed)
            except BaseException as error:  # it is raised where the batches are used
                found = error
            while not self._is_over.is_set():
                try:
                    self._read.put(found, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._is_over.is_set() or isinstance(found, BaseException):
                return

    def _pool(self, starts: list[int], seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        stops = [min(start + self._block_rows, len(self._x)) for start in starts]
        pairs = list(zip(starts, stops, strict=True))
        n_rows = sum(stop - start for start, stop in pairs)
        pool = np.empty((n_rows, *self._x.shape[1:]), self._x.dtype)
        begin = 0
        for start, stop in pairs:
            pool[begin : begin + stop - start] = read_block(self._x, start, stop)
            begin += stop - start
        x = as_tensor(pool)
        numbers = torch.cat([torch.arange(start, stop, device="cpu") for start, stop in pairs])
        if seed is None:
            return x, numbers
        generator = torch.Generator("cpu").manual_seed(seed)
        order = torch.randperm(n_rows, generator=generator, device="cpu")
        return x.index_select(0, order), numbers[order]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in self._pools:
            found = self._read.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    def close(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join()


def read_block(x: np.memmap[Any, Any], start: int, stop: int) -> NDArray[Any]:
    """Some rows, copied into memory; their part of the file takes none of it afterwards."""
    _check_length(x)
    block = np.array(x[start:stop])
    _forget(x, start, stop)
    return block


def _check_length(x: np.memmap[Any, Any]) -> None:
    """Refuse a file that has become shorter: to touch what is gone would kill the process."""
    mapped = _map_of(x)
    if mapped is not None and x.filename is not None:
        try:
            size = mapped.size()
        except (OSError, ValueError):
            return
        end = _offset_in_map(x, mapped) + _map_offset(x) + x.nbytes
        if size < end:
            raise ValueError(
                f"`X` is an np.memmap of {x.filename}, which has {size} bytes; it had at least "
                f"{end} when it was opened: open the file anew, and leave it alone during `fit`."
            )


def _forget(x: np.memmap[Any, Any], start: int, stop: int) -> None:
    """Give the pages of some rows back to the system, which still has them in its cache."""
    mapped = _map_of(x)
    if mapped is None or x.mode not in ("r", "r+") or not hasattr(mmap, "MADV_DONTNEED"):
        return  # in a private copy changes would be lost
    row = x.nbytes // len(x)
    base = _offset_in_map(x, mapped)
    begin, end = base + start * row, base + stop * row
    begin -= begin % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def _map_of(x: NDArray[Any]) -> mmap.mmap | None:
    """The mapping of the file that an array, or what it is a view of, lies in."""
    found: Any = x
    while isinstance(found, np.ndarray):
        found = found.base
    return found if isinstance(found, mmap.mmap) else None


def _offset_in_map(x: NDArray[Any], mapped: mmap.mmap) -> int:
    begin = np.frombuffer(mapped, np.uint8, count=1).ctypes.data
    return int(x.ctypes.data - begin)


def _map_offset(x: np.memmap[Any, Any]) -> int:
    """Where the mapping begins in the file."""
    return x.offset - x.offset % mmap.ALLOCATIONGRANULARITY


def check_finite_memmap(x: np.memmap[Any, Any], dtype: torch.dtype) -> None:
    """`check_finite` for an array in a file, a block at a time."""
    rows = max(1, _POOL // max(1, x.nbytes // len(x)))
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), rows):
        block = as_tensor(read_block(x, start, start + rows))
        wrong = find_not_finite(block, dtype)
        if wrong is not None:
            index = np.unravel_index(wrong.first, block.shape)
            column = f", column {index[1]}" if block.ndim == 2 else ""
            raise wrong.error(f"row {start + int(index[0])}{column}", dtype)
