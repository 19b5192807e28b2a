"""Frames: which of their columns are not numbers."""

from __future__ import annotations

from typing import Any

import numpy as np


def refuse_columns(frame: Any) -> None:
    """Refuse a pandas or polars frame with text, dates or categories, naming the columns."""
    if not (hasattr(frame, "columns") and hasattr(frame, "dtypes")):
        return
    wrong = {
        str(name): str(dtype)
        for position, (name, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True))
        if not _is_numeric(dtype) and not _holds_numbers(frame, position, dtype)
    }
    if wrong:
        shown = ", ".join(f"{name!r} ({dtype})" for name, dtype in list(wrong.items())[:5])
        raise ValueError(
            f"`X` has {len(wrong)} column(s) that are not numbers: {shown}"
            f"{', ...' if len(wrong) > 5 else ''}; encode them first, for example with "
            "ColumnTransformer and OneHotEncoder in a Pipeline."
        )


def _is_numeric(dtype: Any) -> bool:
    if hasattr(dtype, "is_numeric"):  # polars
        return bool(dtype.is_numeric()) or str(dtype) == "Boolean"
    # pandas: NumPy's dtypes and the nullable ones have a kind; `numpy_dtype` is their content.
    if str(dtype) in ("category", "object"):
        return False
    return getattr(dtype, "kind", "O") in "biufc" or np.issubdtype(
        getattr(dtype, "subtype", object), np.number
    )


def _holds_numbers(frame: Any, position: int, dtype: Any) -> bool:
    """Whether an object column of pandas may be numbers: scikit-learn's conversion finds out."""
    if str(dtype) != "object":
        return False
    return not any(isinstance(value, (str, bytes)) for value in frame.iloc[:, position])
