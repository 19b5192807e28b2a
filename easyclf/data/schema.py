"""The look of the rows of training, which later rows have to match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from easyclf.data.frame_encoder import FrameEncoder
from easyclf.nested import Shapes, Tensors

# An array or a sparse matrix, as scikit-learn gives it back: neither it nor SciPy has types.
Checked: TypeAlias = Any


class RowSchema(NamedTuple):
    """The look of a row.

    Attributes
    ----------
    shape : tuple of int, or dict or tuple of them
        The shape of a row, or of a row of each input.
    is_fixed : bool
        Whether all rows have that shape. Rows that the user's `collate_fn` pads batch by batch
        have not.
    names : mapping of str or int to tuple of str, or None
        The columns of each of several inputs that is a frame.
    frame_encoder : FrameEncoder or None
        How categories and gaps became numbers.
    """

    shape: Shapes
    is_fixed: bool = True
    frame_encoder: FrameEncoder | None = None
    names: Mapping[str | int, tuple[str, ...]] | None = None

    def column_names(self, names: Sequence[str] | None) -> list[str] | None:
        """List the names of the columns of a row, as a module gets them.

        Parameters
        ----------
        names : sequence of str or None
            Those of the columns of the frame that `fit` was given, if it was one.

        Returns
        -------
        names : list of str or None
            None where rows are no rows of columns, as those of images.
        """
        if self.frame_encoder is not None:
            return self.frame_encoder.names_out()
        if len(self.shape) != 1 or not isinstance(self.shape, tuple):
            return None
        (width,) = self.shape
        if not isinstance(width, int):
            return None
        return [f"x{column}" for column in range(width)] if names is None else list(names)

    def blank_rows(self, n_rows: int) -> Tensors:
        """Make rows of zeros of this look, of shape (n_rows, ...), in float32."""
        return self.made_up(lambda name, shape: torch.zeros(n_rows, *shape))

    def made_up(self, make: Callable[[str | int | None, Sequence[int]], torch.Tensor]) -> Tensors:
        """Make rows of this look, of shape (n_rows, ...).

        Parameters
        ----------
        make : callable
            It is given the name or place of each of several inputs, None for the only one, and
            the shape of a row of it, and makes the tensor of its rows.

        Returns
        -------
        rows : Tensor of shape (n_rows, ...), or dict or tuple of them
            As a module is given them.
        """
        shape = self.shape
        if isinstance(shape, dict):
            return {name: make(name, part) for name, part in shape.items()}
        several = [part for part in shape if isinstance(part, tuple)]
        if several:
            return tuple(make(place, part) for place, part in enumerate(several))
        return make(None, [part for part in shape if isinstance(part, int)])

    def refuse_other(self, schema: RowSchema, estimator_name: str) -> None:
        """Refuse rows of another shape.

        Raises
        ------
        ValueError
            If the rows of `schema` have other inputs, names or another shape than these.
        """
        if _input_names(schema.shape) != _input_names(self.shape):
            raise ValueError(
                f"X has the inputs {_input_names(schema.shape) or 'of one array'}, but "
                f"{estimator_name} is expecting "
                f"{_input_names(self.shape) or 'those of one array'}, as in `fit`."
            )
        expected, given = self.names or {}, schema.names or {}
        for name in expected.keys() & given.keys():
            if expected[name] != given[name]:
                raise ValueError(
                    f"The feature names of X[{name!r}] should match those that were passed during "
                    f"fit; got {list(given[name][:5])} where `fit` had "
                    f"{list(expected[name][:5])}, of which the order counts too."
                )
        if schema.is_fixed and self.is_fixed and schema.shape != self.shape:
            raise ValueError(
                f"X has rows of shape {schema.shape}, but {estimator_name} is expecting rows of "
                f"shape {self.shape}, as in `fit`."
            )


def _input_names(shape: Shapes) -> list[str] | list[int] | None:
    """The names or places of several inputs; None for one input."""
    if isinstance(shape, dict):
        return sorted(shape)
    is_several = bool(shape) and isinstance(shape[0], tuple)
    return list(range(len(shape))) if is_several else None


@dataclass(frozen=True)
class ReadContext:
    """Everything that the reading of one `X` depends on.

    Parameters
    ----------
    estimator : BaseEstimator
        `n_features_in_` and `feature_names_in_` are set on it in training, and compared later.
    dtype : torch.dtype
        The dtype of numbers in training; larger values are refused.
    loader_options : mapping
        The user's `loader__*`, without the prefix.
    schema : RowSchema or None
        That of the training; None while the rows of the training are read.
    encodes_frames : bool
        Whether categories and gaps in frames become numbers.
    teaching_rows : ndarray of int, or None
        The rows that medians and categories are taken from; None is all.
    is_answered : bool
        Whether each row is to get an answer, so that none may be dropped.
    """

    estimator: BaseEstimator
    dtype: torch.dtype
    loader_options: Mapping[str, Any]
    schema: RowSchema | None
    encodes_frames: bool
    teaching_rows: NDArray[np.intp] | None = None
    is_answered: bool = False

    @property
    def is_training(self) -> bool:
        """Whether these rows say what later ones have to look like."""
        return self.schema is None

    def check(self, X: object, **settings: bool | str) -> Checked:
        """Check X as scikit-learn does, its width and its names included, and give it back."""
        return validate_data(self.estimator, X=X, reset=self.is_training, **settings)
