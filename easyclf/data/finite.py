"""The place of the first value that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from easyclf.data.arrays import dtype_name


def check_finite(
    x: torch.Tensor, dtype: torch.dtype, of: str = "", columns: Sequence[object] | None = None
) -> None:
    """Refuse NaN, infinity and values too large for `dtype`, and say where the first one is.

    Parameters
    ----------
    x : Tensor of shape (n_rows, ...)
        It is only read.
    dtype : torch.dtype
        The dtype of the training.
    of : str
        Added after the number of the row, such as " of a batch".
    columns : sequence, default=None
        Names of the columns, if they have any.

    Raises
    ------
    ValueError
        If such a value is found.
    """
    not_finite = find_not_finite(x, dtype)
    if not_finite is not None:
        index = np.unravel_index(not_finite.first, x.shape)
        column = ""
        if x.ndim == 2:
            column = f", column {index[1] if columns is None else repr(columns[int(index[1])])}"
        raise not_finite.error(f"row {index[0]}{of}{column}", dtype)


class NotFinite(NamedTuple):
    """Values that are NaN, infinite or too large: how many, and the first one."""

    value: float
    first: int
    n_values: int

    def error(self, place: str, dtype: torch.dtype) -> ValueError:
        """Make the error that names them."""
        if math.isnan(self.value):
            return ValueError(
                f"Input X contains NaN: {self.n_values} value(s), the first in {place}; "
                "impute them first, for example with SimpleImputer in a Pipeline."
            )
        return ValueError(
            f"Input X contains infinity or a value too large for dtype('{dtype_name(dtype)}'): "
            f"{self.value!r} in {place} is the first of {self.n_values}; clip or scale first, "
            "or use precision='float64'."
        )


def find_not_finite(x: torch.Tensor, dtype: torch.dtype) -> NotFinite | None:
    """Look for values of x, of any shape (...), that are not finite in `dtype`: NaN first."""
    if not x.is_floating_point() or not x.numel():
        return None
    limit = torch.finfo(dtype if dtype.is_floating_point else torch.float32).max
    low, high = torch.stack(torch.aminmax(x)).tolist()
    if -limit <= low and high <= limit:
        return None
    is_nan = x.isnan()
    wrong = (is_nan if is_nan.any() else ~(x.abs() <= limit)).reshape(-1)
    first = int(wrong.to(torch.uint8).argmax())
    return NotFinite(x.reshape(-1)[first].item(), first, int(wrong.sum()))
