"""Arrays and tensors in memory: batches are slices or gathers of whole tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from easyclf.data.base import Batch, Source, bounds
from easyclf.data.formats import InputFormat
from easyclf.device import free_memory
from easyclf.nested import Tensors, apply, first_of, tensors_of

# Part of the free memory of an accelerator that the training data may take.
_RESIDENT_FRACTION = 0.5
# Numbers that are gathered at once, for several small batches: they stay in the cache of a core.
_GATHERED_NUMBERS = 2**16
_KEPT_DTYPES = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the memory of `array` where torch can read it, else on one copy."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.name not in _KEPT_DTYPES:
        is_integer = array.dtype.kind in "iu" and array.dtype != np.uint64
        array = array.astype(np.int64 if is_integer else np.float64)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():
        # Nothing writes to the tensor: `InputFormat.copies` guards the modules that would.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class TensorSource(Source):
    """Rows of whole tensors, kept on the device where they fit.

    Parameters
    ----------
    x : Tensor, or dict or tuple of Tensor
        The inputs.
    y, weight : Tensor or None
        Targets and weights of the rows.
    input_format : InputFormat
        Where the batches go.
    """

    def __init__(
        self,
        x: Tensors,
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        input_format: InputFormat,
    ) -> None:
        self._input_format = input_format
        device = input_format.device
        free = free_memory(device)
        if free is None or sum(one.nbytes for one in tensors_of(x)) < _RESIDENT_FRACTION * free:
            x = apply(lambda one: one.to(device), x)
        self._x = x
        self._y = None if y is None else y.to(device)
        self._weight = None if weight is None else weight.to(device)

    @property
    def _n_rows(self) -> int:
        return len(first_of(self._x))

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return len(bounds(self._n_rows, batch_size, min_rows))

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        parts = bounds(self._n_rows, batch_size, min_rows)
        if generator is not None and len(parts) > 1:
            order = torch.randperm(self._n_rows, generator=generator, device="cpu")
            return self._gathered(order, parts)
        return self._sliced(parts)

    def _sliced(self, parts: list[tuple[int, int]]) -> Iterator[Batch]:
        rows = Batch(self._x, self._y, self._weight)
        for start, stop in parts:
            x, y, weight = rows if len(parts) == 1 else rows.rows(start, stop)
            yield self._input_format.batch(x, y, weight, is_own=False)

    def _gathered(self, order: torch.Tensor, parts: list[tuple[int, int]]) -> Iterator[Batch]:
        first = first_of(self._x)
        of_x = order.to(first.device)
        order = order.to(self._input_format.device, non_blocking=True)
        numbers = parts[0][1] * sum(math.prod(one.shape[1:]) for one in tensors_of(self._x))
        at_once = max(1, _GATHERED_NUMBERS // max(1, numbers))
        for begin in range(0, len(parts), at_once):
            block = parts[begin : begin + at_once]
            start, stop = block[0][0], block[-1][1]
            lengths = [stop - start for start, stop in block]
            rows = order[start:stop]
            for x, y, weight in zip(
                _split_inputs(self._x, of_x[start:stop], lengths),
                _split(self._y, rows, lengths),
                _split(self._weight, rows, lengths),
                strict=True,
            ):
                yield self._input_format.batch(x, y, weight, is_own=True)


def _split_inputs(x: Tensors, rows: torch.Tensor, lengths: list[int]) -> Sequence[Tensors]:
    """Some rows of the inputs, as many at a time as `lengths` says."""
    if isinstance(x, torch.Tensor):
        return torch.split(x.index_select(0, rows), lengths)
    taken = apply(lambda one: torch.split(one.index_select(0, rows), lengths), x)
    numbers = range(len(lengths))
    if isinstance(taken, dict):
        return [{name: parts[number] for name, parts in taken.items()} for number in numbers]
    return [tuple(parts[number] for parts in taken) for number in numbers]


def _split(
    values: torch.Tensor | None, rows: torch.Tensor, lengths: list[int]
) -> Sequence[torch.Tensor | None]:
    """Some rows, as many at a time as `lengths` says."""
    if values is None:
        return [None] * len(lengths)
    return torch.split(values.index_select(0, rows), lengths)
