"""Frames: which of their columns are not numbers, and how the default module takes those."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A category of fewer rows joins the infrequent ones, and so do all beyond the most frequent.
_FEWEST_ROWS, _MOST_CATEGORIES = 5, 100
_MISSING = "(missing)"
_NUMBERS, _TEXT = (Real, Decimal, np.bool_), (str, bool, np.bool_)


def is_frame(X: Any) -> bool:
    """Whether `X` is a pandas or polars frame."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def refuse_columns(frame: Any, advice: str = "") -> None:
    """Refuse a pandas or polars frame with text, dates or categories, naming the columns.

    `advice` is added to the error.
    """
    if not is_frame(frame):
        return
    wrong = {
        str(name): str(dtype)
        for position, name, dtype in _columns(frame)
        if not _is_numeric(dtype) and not _holds_numbers(frame, position, dtype)
    }
    if wrong:
        raise ValueError(
            f"`X` has {len(wrong)} column(s) that are not numbers: {_shown(wrong)}; encode them "
            f"first, for example with ColumnTransformer and OneHotEncoder in a Pipeline{advice}."
        )


def _columns(frame: Any) -> Iterator[tuple[int, Any, Any]]:
    for position, (name, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        yield position, name, dtype


def _shown(columns: dict[str, str]) -> str:
    shown = ", ".join(f"{name!r} ({dtype})" for name, dtype in list(columns.items())[:5])
    return shown + ", ..." * (len(columns) > 5)


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


def _is_category(dtype: Any) -> bool:
    """Whether a column that is not numeric holds text or categories, and not dates or lists."""
    if hasattr(dtype, "is_numeric"):
        return str(dtype).partition("(")[0] in ("String", "Utf8", "Categorical", "Enum", "Object")
    return str(dtype) in ("category", "object", "str") or str(dtype).startswith("string")


class FrameEncoder:
    """Frames with categories and gaps to numbers, for the default module.

    Gaps in a column of numbers become its median, with a column that says where they were; text,
    categories and their gaps become a 0/1 column for each frequent category. What is in no such
    category, or was never seen in training, is infrequent.
    """

    @staticmethod
    def is_needed(frame: Any) -> bool:
        """Whether a frame has anything but numbers."""
        if not is_frame(frame) or not len(frame):
            return False
        return any(
            not _is_numeric(dtype) or bool(np.isnan(_numbers(frame, position)).any())
            for position, _, dtype in _columns(frame)
            if not str(dtype).startswith("complex")
        )

    def fit(self, frame: Any) -> FrameEncoder:
        """Learn the medians and the categories.

        Raises
        ------
        ValueError
            If names are not unique, or columns are dates, lists or the like.
        """
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        names = [str(name) for name in frame.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"`X` has several columns of one name: {twice}; rename them.")
        wrong = {
            str(name): str(dtype)
            for position, name, dtype in _columns(frame)
            if not (_is_numeric(dtype) or _is_category(dtype))
            or (str(dtype) in ("object", "Object") and not _is_text_or_numbers(frame, position))
        }
        if wrong:
            raise ValueError(
                f"`X` has {len(wrong)} column(s) that are neither numbers nor categories: "
                f"{_shown(wrong)}; make numbers of them first, for example days since a date."
            )
        self._categorical = [
            not _is_numeric(dtype) and not _holds_numbers(frame, position, dtype)
            for position, _, dtype in _columns(frame)
        ]
        self._imputer = SimpleImputer(
            strategy="median", add_indicator=True, keep_empty_features=True
        )
        self._encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=max(1, min(_FEWEST_ROWS, len(frame) // 100)),
            max_categories=_MOST_CATEGORIES,
            sparse_output=False,
        )
        numbers, categories = self._parts(frame)
        if numbers.shape[1]:
            self._imputer.fit(numbers)
        if categories.shape[1]:
            self._encoder.fit(categories)
        return self

    def transform(self, frame: Any) -> NDArray[np.float64]:
        """The frame as numbers."""
        numbers, categories = self._parts(frame)
        made = []
        if numbers.shape[1]:
            made.append(self._imputer.transform(numbers))
        if categories.shape[1]:
            made.append(self._encoder.transform(categories))
        return np.hstack(made)

    def _parts(self, frame: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """The columns of numbers, with NaN for gaps, and those of categories, as text."""
        numbers, categories = [], []
        for (position, name, dtype), is_category in zip(
            _columns(frame), self._categorical, strict=True
        ):
            if is_category:
                categories.append(_texts(frame, position))
                continue
            if not _is_numeric(dtype) and not _are_all(_NUMBERS, frame, position):
                raise ValueError(
                    f"`X` has other values than numbers in column {str(name)!r} ({dtype}), which "
                    "held numbers in `fit`."
                )
            column = _numbers(frame, position)
            if np.isinf(column).any():
                raise ValueError(
                    f"`X` has infinity in column {str(name)!r}, row "
                    f"{int(np.isinf(column).argmax())}; clip it first."
                )
            numbers.append(column)
        empty = np.empty((len(frame), 0))
        return (
            np.column_stack(numbers) if numbers else empty,
            np.column_stack(categories) if categories else empty,
        )


def _series(frame: Any, position: int) -> Any:
    return frame.iloc[:, position] if hasattr(frame, "iloc") else frame.to_series(position)


def _numbers(frame: Any, position: int) -> NDArray[np.float64]:
    """A column of numbers as float64, with NaN for gaps."""
    series = _series(frame, position)
    if hasattr(frame, "iloc"):
        if str(series.dtype) == "object":
            values = [np.nan if _is_missing(value) else value for value in series]
            return np.asarray([float(value) for value in values])
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    from polars import Float64

    return np.asarray(series.cast(Float64).to_numpy(), dtype=np.float64)


def _is_text_or_numbers(frame: Any, position: int) -> bool:
    """Whether an object column holds text, or else numbers, and nothing else but gaps."""
    return _are_all(_TEXT, frame, position) or _are_all(_NUMBERS, frame, position)


def _are_all(kinds: tuple[type, ...], frame: Any, position: int) -> bool:
    values = _series(frame, position)
    return all(isinstance(value, kinds) for value in values if not _is_missing(value))


def _texts(frame: Any, position: int) -> NDArray[Any]:
    """A column of categories as text, in which equal numbers are equal whatever their type."""
    series = _series(frame, position)
    values = series.astype(object) if hasattr(frame, "iloc") else series.to_list()
    made = [
        _MISSING
        if _is_missing(value)
        else repr(float(value))
        if isinstance(value, Real) and not isinstance(value, bool)
        else str(value)
        for value in values
    ]
    return np.asarray(made, dtype=object)


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
