"""Arrays and tensors in memory: batches are slices or gathers of whole tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse

from easyclf.data.arrays import as_tensor
from easyclf.data.base import IN_ORDER, Batch, Encoder, Order, bounds, row_order
from easyclf.data.finite import check_finite
from easyclf.data.formats import InputFormat
from easyclf.data.rounding import warn_of_rounded
from easyclf.data.rows import ArrayRows, ArraySource
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.device import HOST, free_memory, has_float64, is_out_of_memory, to_device
from easyclf.nested import Tensors, apply, first_of, like, named_tensors, tensors_of

# Part of the free memory of an accelerator that the training data may take.
_RESIDENT_FRACTION = 0.5
# Numbers that are gathered at once, for several small batches: they stay in the cache of a core.
# `python -m benchmarks` shows it in the rows of the small tables.
_GATHERED_NUMBERS = 2**16
# Numbers that are centred at once: 2 MB of float64. `python -m benchmarks.data --works centred`
# measures the time and the memory.
_CENTRED_NUMBERS = 2**18

# Dtypes that scikit-learn's checks leave as they are.
# So many shapes of a list say what is wrong with it.
_MOST_SHAPES = 4
_PLAIN_DTYPES = (np.float32, np.float64, np.int64, np.uint8)


def is_tensor(X: object) -> bool:
    """Whether X is one tensor."""
    return isinstance(X, torch.Tensor)


def is_array_like(X: object) -> bool:
    """Say yes to anything: scikit-learn finds out whether an array can be made of it."""
    return True


def read_tensor(X: torch.Tensor, context: ReadContext) -> tuple[TensorRows, RowSchema]:
    """Check a tensor of shape (n_rows, ...); the rows share its memory."""
    x = detached(X)
    if x.ndim < 2 or not x.numel() or x.is_complex() or x.layout != torch.strided:
        # scikit-learn says what is wrong.
        context.check(np.asarray(x.cpu()), allow_nd=True)
    context.check(x, skip_check_array=True)
    check_finite(x, context.dtype)
    return TensorRows(x), RowSchema(tuple(x.shape[1:]))


def detached(X: torch.Tensor) -> torch.Tensor:
    """Give a tensor of the shape (n_rows, ...), values and memory of X; it needs no gradient."""
    x = X.detach()
    # Autograd does not take what was made under `torch.inference_mode`.
    return x.clone() if x.is_inference() else x


def read_array(X: object, context: ReadContext) -> tuple[TensorRows, RowSchema]:
    """Make a tensor of shape (n_rows, ...) of an array, a list or a frame of numbers.

    The checks are scikit-learn's.
    """
    if type(X) is np.ndarray and _is_as_in_training(X, context):
        return rows_of_tensor(as_tensor(X), context)
    if isinstance(X, list) and X and _is_item(X[0]):
        raise TypeError(
            f"`X` is a list of {len(X)} items (x, y), which scikit-learn makes of a Dataset when "
            "it splits rows; give it `easyclf.SliceDataset(dataset)`."
        )
    try:
        x = context.check(X, allow_nd=True, ensure_all_finite=False)
    except ValueError as error:
        _explain(X, error)
        raise
    columns = list(X.columns) if hasattr(X, "columns") else None
    return rows_of_tensor(as_tensor(x), context, columns)


def _is_as_in_training(X: NDArray[Any], context: ReadContext) -> bool:
    """Whether an array of shape (n_rows, ...) passes scikit-learn's checks, which take 0.3 ms."""
    return (
        context.schema is not None
        and context.schema.shape == X.shape[1:]
        and len(X) > 0
        and X.dtype in _PLAIN_DTYPES
        and not hasattr(context.estimator, "feature_names_in_")
    )


def _is_item(row: object) -> bool:
    """Whether a row is a pair or more, whose first part alone is an array."""
    return isinstance(row, tuple) and len(row) > 1 and getattr(row[0], "ndim", 0) > 0


def rows_of_tensor(
    x: torch.Tensor, context: ReadContext, columns: Sequence[object] | None = None
) -> tuple[TensorRows, RowSchema]:
    """Check the values of a tensor of shape (n_rows, ...) that was made of X.

    `columns` are the names of its columns, if they have any.
    """
    check_finite(x, context.dtype, columns=columns)
    return TensorRows(x), RowSchema(tuple(x.shape[1:]))


def _explain(X: object, error: ValueError) -> None:
    """Raise a better error where X has ragged rows, several arrays or text; else do nothing."""
    if issparse(X):
        return
    _refuse_ragged_rows(X, error)
    if isinstance(X, list) and all(getattr(part, "ndim", 0) for part in X):
        shapes = [tuple(part.shape) for part in X]
        shown = f"{shapes[:_MOST_SHAPES]}{'...' * (len(X) > _MOST_SHAPES)}"
        raise ValueError(
            f"`X` is a list of {len(X)} arrays of shapes {shown}; give several inputs as a tuple "
            "or a dict, and rows of different lengths as one array, filled up to one length."
        ) from error
    _refuse_text(X, error)


def _refuse_ragged_rows(X: object, error: ValueError) -> None:
    if not (isinstance(X, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in X)):
        return
    for number, row in enumerate(X):
        if len(row) != len(X[0]):
            raise ValueError(
                f"`X` has rows of different lengths: row 0 has {len(X[0])} value(s), row "
                f"{number} has {len(row)}; give all rows the same length."
            ) from error


def _refuse_text(X: object, error: ValueError) -> None:
    names = getattr(X, "columns", None)
    for index, value in np.ndenumerate(np.asarray(X, dtype=object)):
        if isinstance(value, (str, bytes)):
            place = ""
            if index:
                column = index[-1] if names is None else repr(names[index[-1]])
                place = f" in row {index[0]}, column {column}"
            raise ValueError(
                f"`X` holds text, {value!r}{place}; expected numbers: encode it first, for example "
                "with OneHotEncoder (or TfidfVectorizer) in a Pipeline, or give a DataFrame to the "
                "default module."
            ) from error


@dataclass(frozen=True)
class TensorRows(ArrayRows):
    """Rows of a tensor in memory, or of several side by side.

    Attributes
    ----------
    x : Tensor of shape (n_rows, ...), or dict or tuple of them
        The inputs, in memory that may be the user's: nothing writes to it.
    """

    x: Tensors

    @property
    def kind_name(self) -> str:
        return type(self.x).__name__

    @property
    def n_rows(self) -> int:
        return len(first_of(self.x))

    def first(self, n_rows: int) -> Tensors:
        first: Tensors = apply(lambda x: x[:n_rows], self.x)
        return first

    def take(self, row_numbers: NDArray[np.intp]) -> TensorRows:
        rows = torch.from_numpy(row_numbers)
        return TensorRows(apply(lambda x: x[rows], self.x), **self._labels_of(row_numbers))

    def source(
        self,
        input_format: InputFormat,
        targets: Encoder | None = None,
        encode: Encoder | None = None,
        *,
        is_kept: bool = False,
    ) -> TensorSource:
        x = self.x
        warn_of_rounded(x, input_format)
        # Rows in float64 go to a device without it when they are centred.
        if is_kept or (input_format.centre is not None and not has_float64(input_format.device)):
            x, input_format = _kept(x, input_format)
        return TensorSource(x, self._targets(targets), self._weights(input_format), input_format)


def _kept(x: Tensors, input_format: InputFormat) -> tuple[Tensors, InputFormat]:
    """Convert rows of shape (n_rows, ...) once for all batches, and say what is left to do."""
    if input_format.centre is None:
        x = like(x, [_converted(*named, input_format) for named in named_tensors(x)])
    elif isinstance(x, torch.Tensor) and x.dtype.itemsize > 1 and input_format.casts_alone:
        x = _centred(x, input_format)
        input_format = replace(input_format, centre=None)
    return x, input_format


def _centred(x: torch.Tensor, input_format: InputFormat) -> torch.Tensor:
    """Centre and cast rows of shape (n_rows, ...), a block at a time: float64 takes no room."""
    input_format = input_format.on(x.device)
    centred = torch.empty(x.shape, dtype=input_format.dtype, device=x.device)
    n_rows = max(1, _CENTRED_NUMBERS // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), n_rows):
        batch = input_format.batch(x[start : start + n_rows], None, None, is_own=True)
        centred[start : start + n_rows] = first_of(batch.x)
    return centred


def _converted(name: str | int | None, x: torch.Tensor, input_format: InputFormat) -> torch.Tensor:
    """Convert rows of shape (n_rows, ...) as the module wants them, once for all batches.

    Small integers, such as the pixels of images, are converted a batch at a time, and so are rows
    that are still to be transformed.
    """
    if x.dtype.itemsize > 1 and input_format.is_plain:
        x = x.to(input_format.dtype_of(name, x))
    return x.contiguous()


class TensorSource(ArraySource):
    """Rows of whole tensors, kept on the device where they fit.

    Parameters
    ----------
    x : Tensor of shape (n_rows, ...), or dict or tuple of them
        The inputs.
    y, weight, input_format
        As of `ArraySource`.
    """

    def __init__(
        self,
        x: Tensors,
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        input_format: InputFormat,
    ) -> None:
        super().__init__(y, weight, input_format)
        device = input_format.device
        self._x = _resident(x, device)

    @property
    def _n_rows(self) -> int:
        return len(first_of(self._x))

    def batches(
        self, batch_size: int, order: Order = IN_ORDER, min_rows: int = 1
    ) -> Iterator[Batch]:
        parts = bounds(self._n_rows, batch_size, min_rows)
        # The rows of one batch need no order.
        if order.is_shuffled and len(parts) > 1:
            return self._gathered(row_order(self._n_rows, order.generator(), order), parts)
        return self._sliced(parts)

    def _sliced(self, parts: list[tuple[int, int]]) -> Iterator[Batch]:
        """Yield batches that are views of the rows."""
        rows = Batch(self._x, self._y, self._weight)
        for start, stop in parts:
            x, y, weight = rows if len(parts) == 1 else rows.rows(start, stop)
            yield self._input_format.batch(x, y, weight, is_own=False)

    def _gathered(self, order: torch.Tensor, parts: list[tuple[int, int]]) -> Iterator[Batch]:
        """Yield batches in new memory, with the rows in an order of shape (n_rows,)."""
        device, of_x = self._input_format.device, first_of(self._x).device
        on_device = to_device(order, device)
        # Large data stay where they are while targets and weights are on the device.
        order_of_x = on_device if of_x == device else to_device(order, of_x)
        numbers = parts[0][1] * sum(math.prod(x.shape[1:]) for x in tensors_of(self._x))
        at_once = max(1, _GATHERED_NUMBERS // max(1, numbers))
        for begin in range(0, len(parts), at_once):
            block = parts[begin : begin + at_once]
            start, stop = block[0][0], block[-1][1]
            lengths = [stop - start for start, stop in block]
            rows = on_device[start:stop]
            for x, y, weight in zip(
                _split_inputs(self._x, order_of_x[start:stop], lengths),
                _split(self._y, rows, lengths),
                _split(self._weight, rows, lengths),
                strict=True,
            ):
                yield self._input_format.batch(x, y, weight, is_own=True)


def _resident(x: Tensors, device: torch.device) -> Tensors:
    """Move inputs of shape (n_rows, ...) to a device that has room for them and for the training.

    Else they stay where they are, and go there a batch at a time.
    """
    free = free_memory(device)
    if free is not None and sum(part.nbytes for part in tensors_of(x)) > _RESIDENT_FRACTION * free:
        return x
    try:
        moved: Tensors = apply(lambda part: to_device(part, device, waits=True), x)
    except Exception as error:
        if device.type == HOST.type or not is_out_of_memory(error):
            raise
        return x
    return moved


def _split_inputs(x: Tensors, rows: torch.Tensor, lengths: list[int]) -> Sequence[Tensors]:
    """Gather the rows of shape (sum(lengths),), and cut them in parts of these lengths."""
    if isinstance(x, torch.Tensor):
        return torch.split(x.index_select(0, rows), lengths)
    columns = [torch.split(part.index_select(0, rows), lengths) for part in tensors_of(x)]
    return [like(x, parts) for parts in zip(*columns, strict=True)]


def _split(
    values: torch.Tensor | None, rows: torch.Tensor, lengths: list[int]
) -> Sequence[torch.Tensor | None]:
    """Gather the rows of shape (sum(lengths),), and cut them in parts of these lengths."""
    if values is None:
        return [None] * len(lengths)
    return torch.split(values.index_select(0, rows), lengths)
