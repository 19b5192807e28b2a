"""SciPy sparse rows, made dense a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from easyclf.data.base import Batch, Source, bounds
from easyclf.data.finite import find_not_finite
from easyclf.data.formats import InputFormat
from easyclf.data.tensors import as_tensor


def check_finite_sparse(x: Any, dtype: torch.dtype) -> None:
    """`check_finite` for a CSR matrix or array."""
    wrong = find_not_finite(as_tensor(x.data), dtype)
    if wrong is not None:
        row = int(x.indptr.searchsorted(wrong.first, side="right")) - 1
        raise wrong.error(f"row {row}, column {x.indices[wrong.first]}", dtype)


class SparseSource(Source):
    """Rows of a CSR matrix or array.

    Parameters
    ----------
    x : CSR matrix or array
        The inputs.
    y, weight : Tensor or None
        Targets and weights of the rows.
    input_format : InputFormat
        Where the batches go.
    """

    def __init__(
        self,
        x: Any,
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        input_format: InputFormat,
    ) -> None:
        self._x, self._y, self._weight, self._input_format = x, y, weight, input_format

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return len(bounds(self._x.shape[0], batch_size, min_rows))

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        n_rows = self._x.shape[0]
        order = None
        if generator is not None:
            order = torch.randperm(n_rows, generator=generator, device="cpu")
        device = self._input_format.device
        for start, stop in bounds(n_rows, batch_size, min_rows):
            rows = slice(start, stop) if order is None else order[start:stop]
            x = self._x[rows if order is None else order[start:stop].numpy()].toarray()
            yield self._input_format.batch(
                as_tensor(x),
                None if self._y is None else self._y[rows].to(device),
                None if self._weight is None else self._weight[rows].to(device),
                is_own=True,
            )
