"""Several inputs for one module, with their rows side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing


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

    def __init__(self, inputs: Any) -> None:
        if isinstance(inputs, MultiInput):
            inputs = inputs.inputs
        self.inputs: Any = dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs)
        lengths = {name: _n_rows(one) for name, one in self._named()}
        if not lengths or len(set(lengths.values())) > 1:
            raise ValueError(
                f"`X` has inputs with the numbers of rows {lengths}; expected at least one input, "
                "and all with the same rows."
            )
        self.shape = (next(iter(lengths.values())),)

    def _named(self) -> list[tuple[Any, Any]]:
        is_dict = isinstance(self.inputs, dict)
        return list(self.inputs.items() if is_dict else enumerate(self.inputs))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> MultiInput:
        """Some of the rows, by a slice, a mask or their numbers."""
        if isinstance(rows, tuple):  # scikit-learn asks for `[rows, ...]`
            rows = rows[0]
        taken = {name: _safe_indexing(one, rows) for name, one in self._named()}
        return MultiInput(taken if isinstance(self.inputs, dict) else taken.values())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {np.shape(one)}" for name, one in self._named())
        return f"MultiInput({shapes})"


def _n_rows(one: Any) -> int:
    return int(one.shape[0]) if getattr(one, "shape", ()) else len(one)
