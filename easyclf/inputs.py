"""What `fit` and `predict` were given, checked and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, validate_data

from easyclf.data import (
    Rows,
    as_tensor,
    carried_labels,
    check_finite,
    check_finite_sparse,
    dataset_labels,
    first_rows,
    is_dataset,
    refuse_columns,
)
from easyclf.targets import Labels, TargetEncoder, read_labels


class Given(NamedTuple):
    """Rows, their labels and their weights, as the user gave them."""

    X: Any
    y: Any = None
    sample_weight: Any = None

    def check(self, name: str = "y") -> Given:
        """Refuse labels or weights beside a dataset, and rows without labels."""
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
) -> Given | None:
    """The validation data, under whichever names they were given."""
    if validation_data is not None:
        if X_val is not None or y_val is not None or sample_weight_val is not None:
            raise ValueError(
                "`validation_data` and `X_val`, `y_val`, `sample_weight_val` are two names of one "
                "thing; pass only one of them."
            )
        if is_dataset(validation_data):
            return Given(validation_data)
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise ValueError(
                f"`validation_data` is a {type(validation_data).__name__}; expected (X, y), "
                "(X, y, sample_weight), a Dataset or a DataLoader."
            )
        return Given(*validation_data)
    if X_val is None:
        if y_val is not None or sample_weight_val is not None:
            raise ValueError("`y_val` or `sample_weight_val` is given without `X_val`; pass both.")
        return None
    return Given(X_val, y_val, sample_weight_val)


def read_inputs(
    estimator: BaseEstimator, X: Any, dtype: torch.dtype, sample_shape: Sequence[int] | None
) -> Any:
    """Check inputs, and give them as a tensor, a CSR array, a Dataset or a DataLoader.

    `sample_shape` is the shape of a row in training; None notes the features in the estimator.
    """
    reset = sample_shape is None
    is_dict = isinstance(X, Mapping) and not issparse(X)  # a DOK array is a mapping too
    if is_dict or (isinstance(X, tuple) and any(hasattr(x, "shape") for x in X)):
        raise TypeError(
            f"`X` is a {type(X).__name__} of several inputs; expected one array, frame, tensor or "
            "Dataset: join the inputs along their columns, and let the module part them."
        )
    if is_dataset(X):
        x: Any = X
        first = first_rows(X, 1)[0]
        shape = tuple(first.shape[1:])
        # Rows of single numbers count as rows of one column.
        validate_data(
            estimator, X=first.reshape(1, *(shape or (1,))), reset=reset, skip_check_array=True
        )
    elif isinstance(X, torch.Tensor):
        x = X.detach()
        # Autograd does not take what was made under `torch.inference_mode`.
        x = x.clone() if x.is_inference() else x
        if x.ndim < 2 or not x.numel() or x.is_complex() or x.layout != torch.strided:
            # scikit-learn says what is wrong.
            validate_data(estimator, X=np.asarray(x.cpu()), reset=False, allow_nd=True)
        validate_data(estimator, X=x, reset=reset, skip_check_array=True)
        check_finite(x, dtype)
        shape = tuple(x.shape[1:])
    else:
        refuse_columns(X)
        try:
            x = validate_data(
                estimator,
                X=X,
                reset=reset,
                accept_sparse="csr",
                allow_nd=True,
                ensure_all_finite=False,
            )
        except ValueError as error:
            _refuse_what_is_no_array(X, error)
            raise
        shape = tuple(x.shape[1:])
        if issparse(x):
            check_finite_sparse(x, dtype)
        else:
            x = as_tensor(x)
            check_finite(x, dtype)
    if sample_shape is not None and shape != tuple(sample_shape):
        raise ValueError(
            f"X has rows of shape {shape}, but {type(estimator).__name__} is expecting rows of "
            f"shape {tuple(sample_shape)}, as in `fit`."
        )
    return x


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
    names = getattr(X, "columns", None)
    for index, value in np.ndenumerate(np.asarray(X, dtype=object)):
        if isinstance(value, (str, bytes)):
            place = ""
            if index:
                column = index[-1] if names is None else repr(names[index[-1]])
                place = f" in row {index[0]}, column {column}"
            raise ValueError(
                f"`X` holds text, {value!r}{place}; expected numbers: encode it first, for example "
                "with OneHotEncoder in a Pipeline."
            ) from error


def read_training(
    estimator: BaseEstimator,
    given: Given,
    dtype: torch.dtype,
    sample_shape: Sequence[int] | None,
    encoder: TargetEncoder | None,
    classes: Any,
) -> tuple[Rows, TargetEncoder]:
    """The rows to train on, and the encoder of their labels, fitted here if there is none yet."""
    X, y, sample_weight = given.check()
    x = read_inputs(estimator, X, dtype, sample_shape)
    labels = read_labels(dataset_labels(X) if is_dataset(X) else y)
    weight = _read_weight(sample_weight, x, labels)
    encoder = encoder or TargetEncoder().fit(labels, classes)
    return Rows(x, encoder.transform(labels), weight).without_zero_weights(), encoder


def read_measured(
    estimator: BaseEstimator,
    given: Given,
    dtype: torch.dtype,
    sample_shape: Sequence[int],
    encoder: TargetEncoder,
    name: str = "y",
) -> Rows:
    """Rows to measure on, with their labels, called `name`, encoded as those of the training."""
    X, y, sample_weight = given.check(name)
    x = read_inputs(estimator, X, dtype, sample_shape)
    if is_dataset(X):
        carried = carried_labels(X)
        if carried is not None:
            encoder.transform(read_labels(carried, name), name)
        return Rows(x)
    labels = read_labels(y, name)
    weight = _read_weight(sample_weight, x, labels)
    return Rows(x, encoder.transform(labels, name), weight).without_zero_weights()


def _read_weight(sample_weight: Any, x: Any, labels: Labels) -> NDArray[np.float64] | None:
    """Weights as an array, with the lengths of rows, labels and weights compared."""
    n_rows = Rows(x).n_rows
    if n_rows != len(labels):
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
