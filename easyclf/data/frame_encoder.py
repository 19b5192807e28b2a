"""Columns of frames, and how those with categories or gaps become numbers.

pandas and polars are read by hand because the exact types matter: narwhals, which hides both,
calls nullable, sparse and object columns by names of its own, and knows no missing value in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from easyclf.checks import warn_user

# A category of fewer rows joins the infrequent ones, and so do all beyond the most frequent.
_FEWEST_ROWS, _MOST_CATEGORIES = 5, 100


# A column has free text, such as names, if so many of its rows differ, in as many rows at least.
_FREE_TEXT, _FEWEST_TEXTS = 0.9, 20
_MISSING = "(missing)"
# A number as Python and pandas write it.
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)([.][0-9]+)?")
# Share of rows with unseen values above which a column is warned about.
_MOSTLY = 0.5


# A pandas or polars frame: neither package need be installed, so neither has its types here.
Frame: TypeAlias = Any
Series: TypeAlias = Any


_NUMBERS, _TEXT = (Real, Decimal, np.bool_), (str, bool, np.bool_)


def is_frame(X: object) -> bool:
    """Whether `X` is a pandas or polars frame."""
    # A LazyFrame would warn when it is asked for its columns.
    return not is_lazy_frame(X) and hasattr(X, "columns") and hasattr(X, "dtypes")


def is_lazy_frame(X: object) -> bool:
    """Whether X is a query of polars, which holds no rows yet."""
    return type(X).__name__ == "LazyFrame" and hasattr(X, "collect")


def columns_of(frame: Frame) -> Iterator[tuple[int, Any, Any]]:
    """Yield the place, the name and the dtype of each column."""
    for position, (name, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        yield position, name, dtype


def show_columns(columns: dict[str, str]) -> str:
    """List columns and their dtypes for a message, five at most."""
    names = [f"{name!r} ({dtype})" for name, dtype in columns.items()]
    if len(names) > 5:
        names = [*names[:5], "..."]
    return ", ".join(names)


def is_numeric(dtype: object) -> bool:
    """Whether a column of that dtype holds numbers or bools."""
    if hasattr(dtype, "is_numeric"):  # polars
        return bool(dtype.is_numeric()) or str(dtype) == "Boolean"
    # pandas: NumPy's dtypes and the nullable ones have a kind; `numpy_dtype` is their content.
    if str(dtype) in ("category", "object") or str(dtype).startswith("interval"):
        return False
    return getattr(dtype, "kind", "O") in "biufc" or np.issubdtype(
        getattr(dtype, "subtype", object), np.number
    )


def holds_numbers(frame: Frame, position: int, dtype: object) -> bool:
    """Whether an object column of pandas may be numbers: scikit-learn's conversion finds out."""
    if str(dtype) != "object":
        return False
    return not any(isinstance(value, (str, bytes)) for value in frame.iloc[:, position])


def _is_category(dtype: object) -> bool:
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
    def is_needed(frame: Frame) -> bool:
        """Whether a frame has anything but numbers."""
        if not is_frame(frame) or not len(frame):
            return False
        return any(
            not is_numeric(dtype) or bool(np.isnan(_numbers(frame, position)).any())
            for position, _, dtype in columns_of(frame)
            if not str(dtype).startswith("complex")
        )

    def fit(self, frame: Frame) -> FrameEncoder:
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
            for position, name, dtype in columns_of(frame)
            if not (is_numeric(dtype) or _is_category(dtype))
            or (str(dtype) in ("object", "Object") and not _is_text_or_numbers(frame, position))
        }
        if wrong:
            raise ValueError(
                f"`X` has {len(wrong)} column(s) that are neither numbers nor categories: "
                f"{show_columns(wrong)}; make numbers of them first, for example days since a date."
            )
        self._categorical = [
            not is_numeric(dtype) and not holds_numbers(frame, position, dtype)
            for position, _, dtype in columns_of(frame)
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
        self._dtypes = {str(name): str(dtype) for _, name, dtype in columns_of(frame)}
        self._reads_numbers = [
            _are_told_apart(frame, position) if is_category else False
            for (position, _, _), is_category in zip(
                columns_of(frame), self._categorical, strict=True
            )
        ]
        numbers, categories = self._parts(frame)
        if numbers.shape[1]:
            self._imputer.fit(numbers)
        if categories.shape[1]:
            self._encoder.fit(categories)
            _warn_of_free_text(
                [name for name, is_text in zip(names, self._categorical, strict=True) if is_text],
                categories,
            )
        return self

    def transform(self, frame: Frame) -> NDArray[np.float64]:
        """Make numbers of a frame, of shape (n_rows, n_columns); the memory is new."""
        numbers, categories = self._parts(frame)
        self._warn_of_unseen(frame, categories)
        parts = []
        if numbers.shape[1]:
            parts.append(self._imputer.transform(numbers))
        if categories.shape[1]:
            parts.append(self._encoder.transform(categories))
        return np.hstack(parts)

    def learned(self) -> dict[str, Any]:
        """Give what was learned, as plain values and arrays that a file can hold."""
        learned: dict[str, Any] = {
            "dtypes": self._dtypes,
            "categorical": self._categorical,
            "reads_numbers": self._reads_numbers,
        }
        if not all(self._categorical):
            learned["medians"] = self._imputer.statistics_
            learned["with_gaps"] = self._imputer.indicator_.features_
        if any(self._categorical):
            learned["categories"] = [part.tolist() for part in self._encoder.categories_]
            infrequent = self._encoder.infrequent_categories_
            learned["infrequent"] = [[] if p is None else p.tolist() for p in infrequent]
        return learned

    @classmethod
    def of_learned(cls, learned: Mapping[str, Any]) -> FrameEncoder:
        """Make the encoder that has learned this.

        scikit-learn's encoders are fitted to a few rows that teach them the same, since what they
        keep differs from version to version.
        """
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        encoder = cls()
        encoder._dtypes = dict(learned["dtypes"])
        encoder._categorical = list(learned["categorical"])
        encoder._reads_numbers = list(learned["reads_numbers"])
        if not all(encoder._categorical):
            numbers = np.repeat(np.asarray(learned["medians"], dtype=np.float64)[None], 2, axis=0)
            numbers[1, learned["with_gaps"]] = np.nan
            encoder._imputer = SimpleImputer(
                strategy="median", add_indicator=True, keep_empty_features=True
            ).fit(numbers)
        if any(encoder._categorical):
            categories = [np.asarray(part, dtype=object) for part in learned["categories"]]
            encoder._encoder = OneHotEncoder(
                categories=categories,
                handle_unknown="infrequent_if_exist",
                min_frequency=1,
                sparse_output=False,
            ).fit(_rows_of(categories, learned["infrequent"]))
        return encoder

    def names_out(self) -> list[str]:
        """List the names of the columns that `transform` makes, in scikit-learn's words."""
        columns = list(zip(self._dtypes, self._categorical, strict=True))
        numbers = [name for name, is_category in columns if not is_category]
        categories = [name for name, is_category in columns if is_category]
        names: list[str] = []
        if numbers:
            names += self._imputer.get_feature_names_out(numbers).tolist()
        if categories:
            names += self._encoder.get_feature_names_out(categories).tolist()
        return names

    def _warn_of_unseen(self, frame: Frame, categories: NDArray[Any]) -> None:
        """Warn of columns with another type than in `fit`, or mostly with other values."""
        columns = [
            (str(name), str(dtype))
            for (_, name, dtype), is_category in zip(
                columns_of(frame), self._categorical, strict=True
            )
            if is_category
        ]
        for number, (name, dtype) in enumerate(columns):
            unseen = ~np.isin(categories[:, number], self._encoder.categories_[number])
            is_other_type = unseen.any() and dtype != self._dtypes[name]
            is_mostly = len(unseen) >= _FEWEST_ROWS and unseen.mean() > _MOSTLY
            if not is_other_type and not is_mostly:
                continue
            warn_user(
                f"`X` has {int(unseen.sum())} of {len(unseen)} row(s) in column {name!r} ({dtype}; "
                f"{self._dtypes[name]} in `fit`) with values that `fit` has not seen, such as "
                f"{categories[unseen.argmax(), number]!r}; they count as infrequent"
                f"{'; give the column that type' if dtype != self._dtypes[name] else ''}.",
            )

    def _parts(self, frame: Frame) -> tuple[NDArray[Any], NDArray[Any]]:
        """The columns of numbers, with NaN for gaps, and those of categories, as text."""
        numbers, categories = [], []
        for (position, name, dtype), is_category, reads_numbers in zip(
            columns_of(frame), self._categorical, self._reads_numbers, strict=True
        ):
            if is_category:
                categories.append(_texts(frame, position, reads_numbers=reads_numbers))
                continue
            if not is_numeric(dtype) and not _are_all(_NUMBERS, frame, position):
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


def _rows_of(categories: list[NDArray[Any]], infrequent: list[list[str]]) -> NDArray[Any]:
    """Rows of shape (n_rows, n_columns) that have each category but the infrequent ones."""
    n_rows = max(1, *map(len, categories))
    columns = []
    for of_column, rare in zip(categories, infrequent, strict=True):
        frequent = [category for category in of_column if category not in set(rare)]
        no_category = max(of_column, key=len) + "?"
        columns.append(frequent + [no_category] * (n_rows - len(frequent)))
    return np.asarray(columns, dtype=object).T


def _warn_of_free_text(names: list[str], categories: NDArray[Any]) -> None:
    """Warn of columns of categories, of shape (n_rows, n_columns), without two rows alike."""
    n_rows = len(categories)
    free = [
        name
        for name, column in zip(names, categories.T, strict=True)
        if len(set(column)) > _FREE_TEXT * n_rows
    ]
    if free and n_rows >= _FEWEST_TEXTS:
        warn_user(
            f"`X` has column(s) {free} in which nearly every row has a text of its own; as "
            "categories they say nothing. Drop them, or make numbers of them, for example with "
            "TfidfVectorizer in a ColumnTransformer.",
        )


def _series(frame: Frame, position: int) -> Series:
    return frame.iloc[:, position] if hasattr(frame, "iloc") else frame.to_series(position)


def _numbers(frame: Frame, position: int) -> NDArray[np.float64]:
    """A column of numbers as float64, with NaN for gaps."""
    series = _series(frame, position)
    if hasattr(frame, "iloc"):
        if str(series.dtype) == "object":
            values = [np.nan if _is_missing(value) else value for value in series]
            return np.asarray([float(value) for value in values])
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    from polars import Float64

    return np.asarray(series.cast(Float64).to_numpy(), dtype=np.float64)


def _is_text_or_numbers(frame: Frame, position: int) -> bool:
    """Whether an object column holds text, or else numbers, and nothing else but gaps."""
    return _are_all(_TEXT, frame, position) or _are_all(_NUMBERS, frame, position)


def _are_all(kinds: tuple[type, ...], frame: Frame, position: int) -> bool:
    values = _series(frame, position)
    return all(isinstance(value, kinds) for value in values if not _is_missing(value))


def _texts(frame: Frame, position: int, *, reads_numbers: bool) -> NDArray[Any]:
    """A column of categories as text, in which equal numbers are equal whatever their type.

    `reads_numbers` says that text of a number is that number, as in "1001" and 1001.
    """
    series = _series(frame, position)
    values = series.astype(object) if hasattr(frame, "iloc") else series.to_list()
    texts = [_category(value, reads_numbers=reads_numbers) for value in values]
    return np.asarray(texts, dtype=object)


def _are_told_apart(frame: Frame, position: int) -> bool:
    """Whether all texts of a column stay different once numbers are read in them."""
    texts = set(_texts(frame, position, reads_numbers=False))
    return len({_category(text, reads_numbers=True) for text in texts}) == len(texts)


def _category(value: object, *, reads_numbers: bool) -> str:
    if _is_missing(value):
        return _MISSING
    if isinstance(value, str) and reads_numbers and _DECIMAL.fullmatch(value):
        # Of text that is no more than a number: a code such as "01001" or "1e5" is text.
        value = float(value) if "." in value else int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        if isinstance(value, Integral) or float(value).is_integer():
            return str(int(value))  # type: ignore[call-overload]
        return repr(float(value))
    return str(value)


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
