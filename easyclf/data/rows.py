"""Validated rows, before they are cut into batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch.utils.data import DataLoader, Subset

from easyclf.data.base import Placement, Source
from easyclf.data.datasets import LoaderSource, first_rows, is_dataset
from easyclf.data.sparse import SparseSource
from easyclf.data.tensors import TensorSource, as_tensor

Targets = Callable[[torch.Tensor], torch.Tensor]


class Rows(NamedTuple):
    """Inputs with the codes of their labels and their weights.

    Attributes
    ----------
    x : Tensor, CSR matrix or array, Dataset or DataLoader
        The inputs; a Dataset or DataLoader yields labels and weights itself.
    codes : ndarray of int64 or None
        Encoded labels.
    weight : ndarray of float64 or None
        Sample weights, all positive.
    """

    x: Any
    codes: NDArray[Any] | None = None
    weight: NDArray[Any] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        x: Any = self.x.dataset if isinstance(self.x, DataLoader) else self.x
        return int(x.shape[0]) if hasattr(x, "shape") else len(x)

    @property
    def is_weighted(self) -> bool:
        """Whether rows have weights."""
        if is_dataset(self.x):
            return len(first_rows(self.x, 1)) > 2
        return self.weight is not None

    def first(self, n_rows: int) -> torch.Tensor:
        """The inputs of the first rows, dense."""
        if is_dataset(self.x):
            inputs: torch.Tensor = first_rows(self.x, n_rows)[0]
            return inputs
        return as_tensor(self.x[:n_rows].toarray()) if issparse(self.x) else self.x[:n_rows]

    def take(self, rows: NDArray[Any]) -> Rows:
        """Some of the rows."""
        x: Any
        if is_dataset(self.x):
            x = Subset(self.x, rows.tolist())
        else:
            x = self.x[torch.from_numpy(rows)] if isinstance(self.x, torch.Tensor) else self.x[rows]
        return Rows(
            x,
            None if self.codes is None else self.codes[rows],
            None if self.weight is None else self.weight[rows],
        )

    def without_zero_weights(self) -> Rows:
        """The rows that count."""
        if self.weight is None or (self.weight > 0).all():
            return self
        return self.take(np.flatnonzero(self.weight > 0))

    def source(
        self,
        placement: Placement,
        targets: Targets | None = None,
        encode: Targets | None = None,
        *,
        is_kept: bool = False,
    ) -> Source:
        """Batches of these rows.

        Parameters
        ----------
        placement : Placement
            Where the inputs go.
        targets : callable or None
            Codes to the targets of the loss.
        encode : callable or None
            Labels that a dataset yields to codes.
        is_kept : bool
            Whether they are gone through many times, so that a conversion is done once.
        """
        if is_dataset(self.x):
            to_targets = None
            if encode is not None and targets is not None:
                to_targets = lambda labels: targets(encode(labels))  # noqa: E731
            return LoaderSource(self.x, to_targets, placement)
        y = weight = None
        if self.codes is not None and targets is not None:
            y = targets(as_tensor(self.codes))
        if self.weight is not None:
            weight = as_tensor(self.weight).to(placement.weight_dtype)
        if issparse(self.x):
            return SparseSource(self.x, y, weight, placement)
        x = self.x
        # Small integers, such as the pixels of images, are converted a batch at a time.
        if is_kept and x.dtype.itemsize > 1:
            x = x.to(placement.dtype)
        return TensorSource(x.contiguous() if is_kept else x, y, weight, placement)
