"""Frames of pandas and polars: read as numbers, or encoded for the default module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing

from easyclf.data.frame_encoder import (
    Frame,
    FrameEncoder,
    columns_of,
    holds_numbers,
    is_frame,
    is_numeric,
    show_columns,
)
from easyclf.data.rows import Rows
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.sparse import read_sparse
from easyclf.data.tensors import read_array, rows_of_tensor


def read_frame(X: Any, context: ReadContext) -> tuple[Rows, RowSchema]:
    """Check a frame, and encode its categories and gaps where the module is the default one.

    Raises
    ------
    ValueError
        If it has no rows, other columns than in `fit`, or columns that are not numbers where
        only numbers are taken.
    """
    if not len(X):
        raise ValueError(
            f"`X` is a frame with 0 rows (0 sample(s)), shape {tuple(X.shape)}; at least 1 is "
            "required."
        )
    encoder = None if context.schema is None else context.schema.frame_encoder
    if context.is_training and context.encodes_frames and FrameEncoder.is_needed(X):
        encoder = FrameEncoder().fit(_rows_that_count(X, context.sample_weight))
    if encoder is not None:
        context.check(X, skip_check_array=True)
        rows, schema = rows_of_tensor(torch.from_numpy(encoder.transform(X)), context)
        return rows, schema._replace(frame_encoder=encoder)
    advice = ", or leave `module` out: the default one takes categories and gaps"
    if context.encodes_frames:
        advice = "; the rows of `fit` had numbers in all columns"
    refuse_columns(X, advice)
    if _is_sparse_frame(X):
        return read_sparse(X, context)
    return read_array(X, context)


def _rows_that_count(X: Any, sample_weight: Any) -> Any:
    """Take the rows of positive weight; all if the weights make no sense, which is said later."""
    weight = np.asarray(sample_weight)
    if weight.shape != (len(X),) or weight.dtype.kind not in "biuf" or not (weight > 0).any():
        return X
    return _safe_indexing(X, np.flatnonzero(weight != 0))


def _is_sparse_frame(frame: Frame) -> bool:
    """Whether all columns of a pandas frame are sparse: scikit-learn makes a matrix of it."""
    return hasattr(frame, "sparse") and all(
        str(dtype).startswith("Sparse") for dtype in frame.dtypes
    )


def refuse_columns(frame: Frame, advice: str = "") -> None:
    """Refuse a pandas or polars frame with text, dates or categories, naming the columns.

    `advice` is added to the error.
    """
    if not is_frame(frame):
        return
    wrong = {
        str(name): str(dtype)
        for position, name, dtype in columns_of(frame)
        if not is_numeric(dtype) and not holds_numbers(frame, position, dtype)
    }
    if wrong:
        raise ValueError(
            f"`X` has {len(wrong)} column(s) that are not numbers: {show_columns(wrong)}; encode "
            "them first, for example with ColumnTransformer and OneHotEncoder in a "
            f"Pipeline{advice}."
        )
