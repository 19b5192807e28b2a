"""Several inputs for one module, with their rows side by side in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from easyclf.data.arrays import as_tensor
from easyclf.data.dataframes import refuse_columns
from easyclf.data.finite import check_finite
from easyclf.data.frame_encoder import is_frame
from easyclf.data.indexing import count_rows, take_rows
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.tensors import TensorRows, detached
from easyclf.nested import apply

# One of several inputs: an array, list, tensor or frame, whose common interface is scikit-learn's.
Input: TypeAlias = Any
Part = TypeVar("Part")
RowNumbers: TypeAlias = slice | NDArray[Any] | list[int]


class MultiInput:
    """Several inputs with the same rows, which scikit-learn can split.

    `fit`, `predict` and `score` take a dict or a tuple of inputs as it is. `cross_val_score` and
    `GridSearchCV` would take its length for the number of rows: they need this wrapper.

    Parameters
    ----------
    inputs : mapping of str to array, sequence of arrays or MultiInput
        By name they become `forward(**inputs)`, by place `forward(*inputs)`; kept as a dict or a
        tuple.

    Attributes
    ----------
    shape : tuple of int
        The number of rows, in a tuple of one.

    Raises
    ------
    ValueError
        If there is no input, or they differ in their numbers of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from easyclf import MultiInput
    >>> X = MultiInput({"image": np.zeros((10, 3, 8, 8)), "age": np.zeros((10, 1))})
    >>> len(X), X[:4].inputs["image"].shape
    (10, (4, 3, 8, 8))
    """

    def __init__(self, inputs: Mapping[str, Input] | Iterable[Input] | MultiInput) -> None:
        if isinstance(inputs, MultiInput):
            inputs = inputs.inputs
        self.inputs: dict[str, Input] | tuple[Input, ...] = (
            dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs)
        )
        lengths = {name: count_rows(part) for name, part in self.named()}
        if not lengths or len(set(lengths.values())) > 1:
            raise ValueError(
                f"`X` has inputs with the numbers of rows {lengths}; expected at least one input, "
                "and all with the same rows."
            )
        self.shape = (next(iter(lengths.values())),)

    def named(self) -> list[tuple[str | int, Input]]:
        """List the inputs with their names or places."""
        if isinstance(self.inputs, dict):
            return list(self.inputs.items())
        return list(enumerate(self.inputs))

    def like(self, parts: Sequence[Part]) -> dict[str, Part] | tuple[Part, ...]:
        """Put other parts into the structure of the inputs.

        Parameters
        ----------
        parts : sequence
            One for each input, in their order.

        Returns
        -------
        parts : dict or tuple
            By the names of the inputs, or by place.
        """
        if isinstance(self.inputs, dict):
            return dict(zip(self.inputs, parts, strict=True))
        return tuple(parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: RowNumbers | tuple[RowNumbers, ...]) -> MultiInput:
        """Take some of the rows, by a slice, a mask or their numbers."""
        if isinstance(rows, tuple):  # scikit-learn asks for `[rows, ...]`
            rows = rows[0]
        numbers = np.arange(len(self))[np.asarray(rows) if isinstance(rows, list) else rows]
        return MultiInput(self.like([take_rows(part, numbers) for _, part in self.named()]))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {np.shape(part)}" for name, part in self.named())
        return f"MultiInput({shapes})"


def is_multi_input(X: object) -> bool:
    """Whether X is a MultiInput, a mapping, or a tuple with an array in it."""
    is_tuple = isinstance(X, tuple) and any(hasattr(part, "shape") for part in X)
    return is_tuple or isinstance(X, (MultiInput, Mapping))


def read_multi_input(
    X: Mapping[str, Input] | Iterable[Input] | MultiInput, context: ReadContext
) -> tuple[TensorRows, RowSchema]:
    """Check several inputs, each of shape (n_rows, ...), as a dict or tuple of tensors."""
    several = MultiInput(X)
    x = several.like([_read_part(part, name, context) for name, part in several.named()])
    names = {
        name: tuple(part.columns)
        for name, part in several.named()
        if is_frame(part) and all(isinstance(column, str) for column in part.columns)
    }
    return TensorRows(x), RowSchema(apply(lambda part: tuple(part.shape[1:]), x), names=names)


def _read_part(part: Input, name: str | int, context: ReadContext) -> torch.Tensor:
    """Make a tensor of one of several inputs."""
    if isinstance(part, torch.Tensor):
        x = detached(part)
    else:
        refuse_columns(part)
        checked = check_array(
            part,
            allow_nd=True,
            ensure_2d=False,
            ensure_all_finite=False,
            input_name=f"X[{name!r}]",
        )
        x = as_tensor(checked)
    check_finite(x, context.dtype, f" of X[{name!r}]")
    return x
