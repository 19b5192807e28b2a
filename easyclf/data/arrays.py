"""NumPy arrays as tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Dtypes that torch has, and that keep their meaning in a tensor.
_KEPT_DTYPES = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}
# The beginning of torch's warning about read-only arrays. tests/data/test_arrays.py compares it.
READ_ONLY_WARNING = "The given NumPy array is not writable"


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Make a tensor of the shape (n_rows, ...) of `array`.

    It shares the memory of `array` where torch can read it, and else is one copy.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.name not in _KEPT_DTYPES:
        is_integer = array.dtype.kind in "iu" and array.dtype != np.uint64
        array = array.astype(np.int64 if is_integer else np.float64)
    # As in an array read backwards, and in a packed field of a structured one.
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        # Nothing writes to the tensor: `InputFormat.copies` guards the modules that would.
        warnings.filterwarnings("ignore", message=READ_ONLY_WARNING)
        return torch.from_numpy(array)


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name of a dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")
