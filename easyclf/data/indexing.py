"""Some rows of whatever users keep rows in."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse

from easyclf.data.frame_encoder import is_frame

# Arrays, tensors, frames, columns of frames, sparse matrices, lists: their indexing has no type
# in common.
ArrayOrFrame: TypeAlias = Any


def count_rows(X: object) -> int:
    """Count the rows of whatever has shape (n_rows, ...), or is a list of rows."""
    shape = getattr(X, "shape", ())
    return int(shape[0]) if shape else len(cast(Any, X))


def take_rows(X: ArrayOrFrame, row_numbers: NDArray[np.intp]) -> ArrayOrFrame:
    """Take rows of X, of shape (n_rows, ...), by their numbers; X keeps its type, in new memory."""
    if isinstance(X, torch.Tensor):
        return X[torch.as_tensor(row_numbers, device=X.device)]
    if hasattr(X, "iloc"):  # pandas
        return X.iloc[row_numbers]
    if issparse(X):
        return X.tocsr()[row_numbers]
    if isinstance(X, (list, tuple)):
        return [X[row] for row in row_numbers]
    if isinstance(X, np.memmap):
        return np.asarray(X)[row_numbers]
    return X[row_numbers.tolist()] if is_frame(X) else X[row_numbers]
