"""Columns in which different values become one when they are cast."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from easyclf.checks import warn_user
from easyclf.data.arrays import as_tensor
from easyclf.data.formats import InputFormat
from easyclf.nested import Tensors, named_tensors

# A CSR matrix or array: SciPy has no types.
CSR: TypeAlias = Any

# Dtypes with values that float32 does not hold.
_WIDE = (torch.float64, torch.int32, torch.int64)
# Rows, or entries of a sparse matrix, that say which columns are to be looked at as a whole.
_SAMPLED = 1024
# A column that spans fewer of the steps of float32 is looked at; and one that spans fewer of
# float64 varies by rounding errors.
_STEPS = 2**10
# Columns of a sparse matrix that are looked at.
_LOOKED_AT = 4


def warn_of_rounded(x: Tensors, input_format: InputFormat) -> None:
    """Warn of a column of inputs of shape (n_rows, ...) in which different values become one.

    Only where the format wants that. A few rows say which columns are looked at, so that usual
    data are not gone through once more.
    """
    if not input_format.warns_of_rounding:
        return
    for name, part in named_tensors(x):
        if part.dtype not in _WIDE or not part.numel():
            continue
        if input_format.dtype_of(name, part) != torch.float32:
            continue
        rows = part.flatten(1) if part.ndim > 1 else part[:, None]
        for column in _suspects(rows[:: _step(len(rows))]):
            if _loses(rows[:, column], f"Column {column} of {_shown(name)}"):
                return


def warn_of_rounded_sparse(x: CSR, input_format: InputFormat) -> None:
    """Warn of a column of a CSR matrix in which different values become one.

    Looked at are full columns, and some of those with whole numbers.
    """
    if not input_format.warns_of_rounding or input_format.dtype != torch.float32:
        return
    step = _step(len(x.data))
    values, columns = x.data[::step].astype(np.float64), x.indices[::step]
    is_rounded = (values == values.round()) & (values.astype(np.float32) != values)
    whole = np.unique(columns[is_rounded])[:_LOOKED_AT]
    full = np.flatnonzero(np.bincount(x.indices, minlength=x.shape[1]) == x.shape[0])
    looked_at = np.union1d(whole, full)
    if not looked_at.size:
        return
    for place in _suspects(as_tensor(x[:: _step(x.shape[0])][:, looked_at].toarray())):
        column = int(looked_at[place])
        if _loses(as_tensor(x[:, [column]].toarray())[:, 0], f"Column {column} of X"):
            return


def _step(n_entries: int) -> int:
    return max(1, n_entries // _SAMPLED)


def _shown(name: str | int | None) -> str:
    return "X" if name is None else f"X[{name!r}]"


def _suspects(sample: torch.Tensor) -> list[int]:
    """List the columns of some rows, of shape (n_rows, n_columns), that may lose values."""
    sample = sample.double()
    low, high = torch.aminmax(sample, dim=0)
    span, size = high - low, torch.maximum(low.abs(), high.abs())
    is_narrow = span < _STEPS * torch.finfo(torch.float32).eps * size
    is_narrow &= span > _STEPS * torch.finfo(torch.float64).eps * size
    # Whole numbers are perhaps those of things.
    is_whole = (sample == sample.round()).all(0) & (sample.float().double() != sample).any(0)
    columns: list[int] = (is_narrow | is_whole).nonzero().flatten().tolist()
    return columns


def _loses(column: torch.Tensor, name: str) -> bool:
    """Tell whether float32 has fewer values of a column of shape (n_rows,), and warn of it."""
    values = np.unique(column.cpu().numpy())
    n_left = len(np.unique(values.astype(np.float32)))
    if n_left == len(values):
        return False
    warn_user(
        f"{name} has {len(values)} different values from {values[0]:.15g} on, of which float32 "
        f"makes {n_left}. Subtract the smallest of them first, or use precision='float64'.",
    )
    return True
