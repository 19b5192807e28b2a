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

from easyclf.data.base import Batch, Source, bounds
from easyclf.data.finite import find_not_finite
from easyclf.data.formats import InputFormat
from easyclf.data.tensors import as_tensor

# Smaller files are read into memory, where every order of the rows is as fast as any other.
LARGE = 2**30
# What is read at once, and what is shuffled at once: a pool holds the rows of 256 blocks.
_BLOCK, _POOL = 2**18, 2**26
_WINDOW = max(2**16, mmap.ALLOCATIONGRANULARITY)


def is_large_memmap(x: Any) -> bool:
    """Whether `x` is a part of a file that is to stay there."""
    return isinstance(x, np.memmap) and x.nbytes >= LARGE and x.flags.c_contiguous


class BlockSource(Source):
    """Rows of an array in a file.

    They are read in pools of 256 blocks, 64 MB, the next of which is read while the current one
    is used. Shuffled, the blocks come in a random order, and the rows of a pool in another.

    Parameters
    ----------
    x : memmap
        The rows, one after the other in the file.
    y, weight : Tensor or None
        Targets and weights of the rows.
    input_format : InputFormat
        Where the batches go.
    """

    def __init__(
        self,
        x: np.memmap[Any, Any],
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        input_format: InputFormat,
    ) -> None:
        self._x, self._input_format = x, input_format
        device = input_format.device
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
        self._reader = reader = _Reader(self._x, self._block_rows, pools)
        try:
            yield from self._cut(reader, generator, bounds(len(self._x), batch_size, min_rows))
        finally:
            reader.close()

    def _cut(
        self,
        reader: _Reader,
        generator: torch.Generator | None,
        parts: list[tuple[int, int]],
    ) -> Iterator[Batch]:
        sizes = iter([stop - start for start, stop in parts])
        size = next(sizes)
        # Rows that the pools so far had too few of for a batch.
        held: list[tuple[torch.Tensor, torch.Tensor]] = []
        n_held = 0
        for pool, numbers in reader:
            order = torch.arange(len(pool), device="cpu")
            if generator is not None:
                order = torch.randperm(len(pool), generator=generator, device="cpu")
            start = 0
            while size and n_held + len(pool) - start >= size:
                rows = order[start : start + size - n_held]
                held.append((pool.index_select(0, rows), numbers[rows]))
                yield self._batch(held)
                start += len(rows)
                size, held, n_held = next(sizes, 0), [], 0
            rows = order[start:]
            held.append((pool.index_select(0, rows), numbers[rows]))
            n_held += len(rows)

    def _batch(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
        x, numbers = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        rows = numbers.to(self._input_format.device)
        y = None if self._y is None else self._y[rows]
        weight = None if self._weight is None else self._weight[rows]
        return self._input_format.batch(x, y, weight, is_own=True)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Reader:
    """Pools of blocks, which a thread reads into memory that they take turns in.

    While one is used, another is read and a third may wait.
    """

    def __init__(self, x: np.memmap[Any, Any], block_rows: int, pools: list[list[int]]) -> None:
        self._x, self._block_rows, self._pools = x, block_rows, pools
        self._free: queue.Queue[NDArray[Any]] = queue.Queue()
        self._read: queue.Queue[Any] = queue.Queue()
        rows = min(len(x), block_rows * max(map(len, pools)))
        for _ in range(min(3, len(pools))):
            self._free.put(np.empty((rows, *x.shape[1:]), x.dtype))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for starts in self._pools:
            memory = self._wait_for_memory()
            if memory is None:
                return
            try:
                self._read.put((memory, *self._fill(memory, starts)))
            except BaseException as error:  # it is raised where the batches are used
                self._read.put(error)
                return

    def _wait_for_memory(self) -> NDArray[Any] | None:
        while not self._is_over.is_set():
            try:
                return self._free.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def _fill(self, memory: NDArray[Any], starts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        end, numbers = 0, []
        for start in starts:
            stop = min(start + self._block_rows, len(self._x))
            read_block(self._x, start, stop, memory[end : end + stop - start])
            end += stop - start
            numbers.append(torch.arange(start, stop, device="cpu"))
        return as_tensor(memory[:end]), torch.cat(numbers)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in self._pools:
            found = self._read.get()
            if isinstance(found, BaseException):
                raise found
            memory, pool, numbers = found
            yield pool, numbers
            self._free.put(memory)

    def close(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join()


def read_block(x: np.memmap[Any, Any], start: int, stop: int, memory: NDArray[Any]) -> NDArray[Any]:
    """Copy some rows into `memory`; their part of the file takes none of its own afterwards."""
    _check_length(x)
    memory[:] = x[start:stop]
    _forget(x, start, stop)
    return memory


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
    # The system maps whole windows around the pages that are touched.
    begin = (base + start * row) // _WINDOW * _WINDOW
    end = min(-(-(base + stop * row) // _WINDOW) * _WINDOW, len(mapped))
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
    memory = np.empty((min(rows, len(x)), *x.shape[1:]), x.dtype)
    for start in range(0, len(x), rows):
        stop = min(start + rows, len(x))
        block = as_tensor(read_block(x, start, stop, memory[: stop - start]))
        wrong = find_not_finite(block, dtype)
        if wrong is not None:
            index = np.unravel_index(wrong.first, block.shape)
            column = f", column {index[1]}" if block.ndim == 2 else ""
            raise wrong.error(f"row {start + int(index[0])}{column}", dtype)
