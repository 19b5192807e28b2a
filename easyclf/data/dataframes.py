"""Frames of pandas and polars: read as numbers, or encoded for the default module."""

from __future__ import annotations

import torch

from easyclf.data.frame_encoder import (
    Frame,
    FrameEncoder,
    columns_of,
    holds_numbers,
    is_frame,
    is_numeric,
    show_columns,
)
from easyclf.data.indexing import take_rows
from easyclf.data.rows import Rows
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.sparse import read_sparse
from easyclf.data.tensors import read_array, rows_of_tensor


def read_frame(X: Frame, context: ReadContext) -> tuple[Rows, RowSchema]:
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
        encoder = FrameEncoder().fit(
            X if context.teaching_rows is None else take_rows(X, context.teaching_rows)
        )
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
    try:
        return read_array(X, context)
    except ValueError as error:
        if context.encodes_frames and not context.is_training and FrameEncoder.is_needed(X):
            error.add_note(
                "The rows of `fit` had no gaps, so nothing was learned of them: fit with rows that "
                "have some, or impute."
            )
        raise


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
            "them first, for example with ColumnTransformer and OneHotEncoder in a Pipeline"
            f"{advice}."
        )
