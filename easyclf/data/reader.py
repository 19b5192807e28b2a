"""What `fit` and `predict` were given, checked and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_sample_weight, check_array, validate_data

from easyclf.data.caching import cached, dataset_labels
from easyclf.data.dataframes import FrameEncoder, is_frame, refuse_columns
from easyclf.data.datasets import (
    Fields,
    carried_labels,
    class_names,
    first_rows,
    has_own_collation,
    is_dataset,
    shapes_of,
)
from easyclf.data.finite import check_finite
from easyclf.data.loaders import check_options
from easyclf.data.memmap import check_finite_memmap, is_large_memmap
from easyclf.data.multi_input import MultiInput
from easyclf.data.rows import Rows
from easyclf.data.sparse import check_finite_sparse
from easyclf.data.tensors import as_tensor
from easyclf.randomness import isolated
from easyclf.targets import Labels, TargetEncoder, read_labels


class LabelledData(NamedTuple):
    """Rows, their labels and their weights, as the user gave them."""

    X: Any
    y: Any = None
    sample_weight: Any = None

    def check(self, name: str = "y") -> LabelledData:
        """Refuse labels or weights beside a dataset, and rows without labels."""
        if isinstance(self.X, Iterator):
            raise TypeError(
                f"`X` is a {type(self.X).__name__}, which can be gone through only once; make it a "
                "list of rows, or an IterableDataset."
            )
        if not is_dataset(self.X):
            if self.y is None:
                read_labels(None, name)
        elif self.y is not None or self.sample_weight is not None:
            raise ValueError(
                f"`X` is a {type(self.X).__name__}, which already yields targets; pass it without "
                f"`{'y' if self.y is not None else 'sample_weight'}`. To weigh rows, yield "
                "(x, y, weight)."
            )
        return self


def one_validation(
    validation_data: Any, X_val: Any, y_val: Any, sample_weight_val: Any
) -> LabelledData | None:
    """The validation data, under whichever names they were given."""
    if validation_data is not None:
        if X_val is not None or y_val is not None or sample_weight_val is not None:
            raise ValueError(
                "`validation_data` and `X_val`, `y_val`, `sample_weight_val` are two names of one "
                "thing; pass only one of them."
            )
        if is_dataset(validation_data):
            return LabelledData(validation_data)
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise ValueError(
                f"`validation_data` is a {type(validation_data).__name__}; expected (X, y), "
                "(X, y, sample_weight), a Dataset or a DataLoader."
            )
        return LabelledData(*validation_data)
    if X_val is None:
        if y_val is not None or sample_weight_val is not None:
            raise ValueError("`y_val` or `sample_weight_val` is given without `X_val`; pass both.")
        return None
    return LabelledData(X_val, y_val, sample_weight_val)


class RowSchema(NamedTuple):
    """What the rows of training looked like, which later ones have to match.

    Attributes
    ----------
    shape : tuple of int, or dict or tuple of them
        The shape of a row, or of a row of each input.
    is_fixed : bool
        Whether all rows have that shape: those that the user pads batch by batch have not.
    frame_encoder : FrameEncoder or None
        How categories and gaps became numbers.
    """

    shape: Any
    is_fixed: bool = True
    frame_encoder: FrameEncoder | None = None


class Reader:
    """Reads rows: the first ones say how, and later ones have to be like them.

    Parameters
    ----------
    estimator : BaseEstimator
        Its features are noted, and compared.
    dtype : torch.dtype
        The dtype of numbers in training.
    options : mapping
        The user's `loader__*`, without the prefix.
    schema : RowSchema or None
        That of the training; None before it.
    is_cached : bool
        Whether datasets are read into memory.
    takes_frames : bool
        Whether categories and gaps in frames are made numbers.

    Attributes
    ----------
    schema : RowSchema or None
        That of the first rows that were read.
    class_names : list of str or None
        What the dataset of the training calls its classes.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        dtype: torch.dtype,
        options: Mapping[str, Any],
        schema: RowSchema | None,
        *,
        is_cached: bool = False,
        takes_frames: bool = False,
    ) -> None:
        self._estimator, self._dtype, self._options = estimator, dtype, options
        self._is_cached, self._takes_frames = is_cached, takes_frames
        self.schema = schema
        self.class_names: list[str] | None = None

    def read_training(
        self,
        given: LabelledData,
        encoder: TargetEncoder | None,
        classes: Any,
        *,
        needs_labels: bool,
    ) -> tuple[Rows, TargetEncoder]:
        """The rows to train on, and the encoder of their labels, fitted here if there is none yet.

        Where `classes` are given and nothing else `needs_labels`, a dataset is not searched for
        them.
        """
        X, y, sample_weight = given.check()
        check_options(self._options, X)
        self.class_names = class_names(X) if is_dataset(X) else None
        with _reading(X):
            if self._is_cached and is_dataset(X):
                X, y, sample_weight = self._cached(X)
            x = self.read_inputs(X, sample_weight)
            if is_dataset(X):
                needs_labels = needs_labels or (encoder is None and classes is None)
                y = dataset_labels(X, self._options) if needs_labels else carried_labels(X)
        if y is None:
            return Rows(x, options=self._options), encoder or TargetEncoder().fit(None, classes)
        labels = read_labels(y)
        weight = _read_weight(sample_weight, x, labels)
        encoder = encoder or TargetEncoder().fit(labels, classes)
        rows = Rows(x, encoder.transform(labels), weight, self._options)
        return rows.without_zero_weights(), encoder

    def read_measured(self, given: LabelledData, encoder: TargetEncoder, name: str = "y") -> Rows:
        """Rows to measure on, with their labels, called `name`, encoded as those of training."""
        X, y, sample_weight = given.check(name)
        with _reading(X):
            if self._is_cached and is_dataset(X):
                X, y, sample_weight = self._cached(X)
            x = self.read_inputs(X)
            if is_dataset(X):
                carried = carried_labels(X)
                if carried is not None:
                    encoder.transform(read_labels(carried, name), name)
                return Rows(x, options=self._options)
        labels = read_labels(y, name)
        weight = _read_weight(sample_weight, x, labels)
        rows = Rows(x, encoder.transform(labels, name), weight)
        return rows.without_zero_weights()

    def read_rows(self, X: Any) -> Rows:
        """Rows to answer for."""
        with _reading(X):
            return Rows(self.read_inputs(X), options=self._options)

    def _cached(self, X: Any) -> Fields:
        fields = cached(X, self._options)
        if fields.y is None:
            raise ValueError(
                f"`X` is a {type(X).__name__} whose items have no label; expected items (x, y)."
            )
        return fields

    def read_inputs(self, X: Any, sample_weight: Any = None) -> Any:
        """Check inputs, and give them as `Rows` takes them.

        Of a frame, rows of `sample_weight` 0 are not learned from.
        """
        reset = self.schema is None
        frame_encoder = None if self.schema is None else self.schema.frame_encoder
        is_fixed = True
        if frame_encoder is not None and not is_frame(X):
            raise TypeError(
                f"`X` is a {type(X).__name__}; expected a frame with the columns of `fit`, which "
                "had categories or gaps."
            )
        if reset:
            # Those of an earlier fit: not all rows have such.
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self._estimator).pop(name, None)
        if is_dataset(X):
            x: Any = X
            is_fixed = not has_own_collation(X, self._options)
            shape = self._read_dataset(X, is_fixed=is_fixed)
        elif _is_multi_input(X):
            x = MultiInput(X)
            named = x.inputs.items() if isinstance(x.inputs, dict) else enumerate(x.inputs)
            made = {name: self._read_one(one, name) for name, one in named}
            x.inputs = made if isinstance(x.inputs, dict) else tuple(made.values())
            shape = shapes_of(x.inputs)
        elif isinstance(X, torch.Tensor):
            x = self._read_tensor(X)
            shape = tuple(x.shape[1:])
        elif is_large_memmap(X):
            validate_data(
                self._estimator, X=X[:1], reset=reset, allow_nd=True, ensure_all_finite=False
            )
            check_finite_memmap(X, self._dtype)
            x, shape = X, tuple(X.shape[1:])
        else:
            if is_frame(X) and not len(X):
                raise ValueError(
                    f"`X` is a frame with 0 rows (0 sample(s)), shape {tuple(X.shape)}; at least 1 "
                    "is required."
                )
            if self._takes_frames and reset and FrameEncoder.is_needed(X):
                frame_encoder = FrameEncoder().fit(_counting_rows(X, sample_weight))
            x = self._read_frame(X, frame_encoder) if frame_encoder else self._read_array(X)
            shape = tuple(x.shape[1:])
        self._compare(shape, is_fixed=is_fixed)
        if self.schema is None:
            self.schema = RowSchema(shape, is_fixed, frame_encoder)
        return x

    def _read_dataset(self, X: Any, *, is_fixed: bool) -> Any:
        first = first_rows(X, 1, self._options).x
        if isinstance(first, torch.Tensor) and is_fixed:
            # Rows of single numbers count as rows of one column.
            row = first.reshape(1, *(first.shape[1:] or (1,)))
            validate_data(self._estimator, X=row, reset=self.schema is None, skip_check_array=True)
        return shapes_of(first)

    def _read_tensor(self, X: torch.Tensor) -> torch.Tensor:
        x = X.detach()
        # Autograd does not take what was made under `torch.inference_mode`.
        x = x.clone() if x.is_inference() else x
        if x.ndim < 2 or not x.numel() or x.is_complex() or x.layout != torch.strided:
            # scikit-learn says what is wrong.
            validate_data(self._estimator, X=np.asarray(x.cpu()), reset=False, allow_nd=True)
        validate_data(self._estimator, X=x, reset=self.schema is None, skip_check_array=True)
        check_finite(x, self._dtype)
        return x

    def _read_array(self, X: Any) -> Any:
        advice = ", or leave `module` out: the default one takes categories and gaps"
        if self._takes_frames:
            advice = "; the rows of `fit` had numbers in all columns"
        refuse_columns(X, advice)
        try:
            x = validate_data(
                self._estimator,
                X=X,
                reset=self.schema is None,
                accept_sparse="csr",
                allow_nd=True,
                ensure_all_finite=False,
            )
        except ValueError as error:
            _refuse_what_is_no_array(X, error)
            raise
        if issparse(x):
            check_finite_sparse(x, self._dtype)
            return x
        x = as_tensor(x)
        check_finite(x, self._dtype)
        return x

    def _read_frame(self, X: Any, frame_encoder: FrameEncoder) -> torch.Tensor:
        validate_data(self._estimator, X=X, reset=self.schema is None, skip_check_array=True)
        x = torch.from_numpy(frame_encoder.transform(X))
        check_finite(x, self._dtype)
        return x

    def _read_one(self, one: Any, name: Any) -> torch.Tensor:
        """One of several inputs."""
        if isinstance(one, torch.Tensor):
            x = one.detach()
            x = x.clone() if x.is_inference() else x
        else:
            refuse_columns(one)
            checked = check_array(
                one,
                allow_nd=True,
                ensure_2d=False,
                ensure_all_finite=False,
                input_name=f"X[{name!r}]",
            )
            x = as_tensor(checked)
        check_finite(x, self._dtype, f" of X[{name!r}]")
        return x

    def _compare(self, shape: Any, *, is_fixed: bool) -> None:
        """Refuse rows that are not like those of the training."""
        if self.schema is None:
            return
        expected = self.schema.shape
        name = type(self._estimator).__name__
        if _names(shape) != _names(expected):
            raise ValueError(
                f"X has the inputs {_names(shape) or 'of one array'}, but {name} is expecting "
                f"{_names(expected) or 'those of one array'}, as in `fit`."
            )
        if is_fixed and self.schema.is_fixed and shape != expected:
            raise ValueError(
                f"X has rows of shape {shape}, but {name} is expecting rows of shape {expected}, "
                "as in `fit`."
            )


def _counting_rows(X: Any, sample_weight: Any) -> Any:
    """The rows of positive weight; all if the weights make no sense, which is said later."""
    weight = np.asarray(sample_weight)
    if weight.shape != (len(X),) or weight.dtype.kind not in "biuf" or not (weight > 0).any():
        return X
    return _safe_indexing(X, np.flatnonzero(weight != 0))


def _reading(X: Any) -> AbstractContextManager[None]:
    """What a dataset draws while it is looked at changes nobody's random states."""
    if is_dataset(X):
        return isolated(0, torch.device("cpu"), waits=False)
    return nullcontext()


def _is_multi_input(X: Any) -> bool:
    if issparse(X):  # a DOK array is a mapping too
        return False
    is_tuple = isinstance(X, tuple) and any(hasattr(x, "shape") for x in X)
    return is_tuple or isinstance(X, (MultiInput, Mapping))


def _names(shape: Any) -> Any:
    """What the inputs are called; for inputs without names how many there are."""
    if isinstance(shape, dict):
        return sorted(shape)
    is_several = bool(shape) and isinstance(shape[0], tuple)
    return list(range(len(shape))) if is_several else None


def _refuse_what_is_no_array(X: Any, error: ValueError) -> None:
    """Say where the text or the ragged row is that no array of numbers can be made of."""
    if isinstance(X, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in X):
        for number, row in enumerate(X):
            if len(row) != len(X[0]):
                raise ValueError(
                    f"`X` has rows of different lengths: row 0 has {len(X[0])} value(s), row "
                    f"{number} has {len(row)}; give all rows the same length."
                ) from error
    elif issparse(X):
        return
    if isinstance(X, list) and all(getattr(one, "ndim", 0) for one in X):
        raise ValueError(
            f"`X` is a list of {len(X)} arrays of shapes {[tuple(one.shape) for one in X]}; give "
            "several inputs as a tuple or a dict."
        ) from error
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


def _read_weight(sample_weight: Any, x: Any, labels: Labels) -> NDArray[np.float64] | None:
    """Weights as an array, with the lengths of rows, labels and weights compared."""
    n_rows = Rows(x).n_rows
    if n_rows is not None and n_rows != len(labels):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_rows}, y has "
            f"{len(labels)}; expected one label for each row."
        )
    if sample_weight is None:
        return None
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    weight: NDArray[np.float64] = _check_sample_weight(
        sample_weight, x, dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError("`sample_weight` is 0 for every row; expected some positive weight.")
    # Only their ratios count. A power of two changes no digit, and keeps them within float32.
    scaled: NDArray[np.float64] = np.ldexp(weight, -np.frexp(weight.max())[1])
    return scaled
