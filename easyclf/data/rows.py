"""Validated rows, before they are cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch.utils.data import DataLoader, Subset

from easyclf.data.base import Source
from easyclf.data.datasets import first_rows, is_dataset, length_of
from easyclf.data.formats import InputFormat
from easyclf.data.loaders import LoaderSource
from easyclf.data.memmap import BlockSource
from easyclf.data.multi_input import MultiInput
from easyclf.data.sparse import SparseSource
from easyclf.data.tensors import TensorSource, as_tensor
from easyclf.nested import Tensors, like, named_tensors

Targets = Callable[[torch.Tensor], torch.Tensor]


class Rows(NamedTuple):
    """Inputs with the codes of their labels and their weights.

    Attributes
    ----------
    x : Tensor, MultiInput of Tensor, memmap, CSR matrix or array, Dataset or DataLoader
        The inputs; a Dataset or DataLoader yields labels and weights itself.
    codes : ndarray of int64 or None
        Encoded labels.
    weight : ndarray of float64 or None
        Sample weights, all positive.
    options : mapping
        The user's `loader__*`, without the prefix, for a Dataset.
    """

    x: Any
    codes: NDArray[Any] | None = None
    weight: NDArray[Any] | None = None
    options: Mapping[str, Any] = {}

    @property
    def n_rows(self) -> int | None:
        """Number of rows; None where only going through them tells."""
        if not is_dataset(self.x):
            return int(self.x.shape[0])
        return len(self.codes) if self.codes is not None else length_of(self.x)

    @property
    def is_weighted(self) -> bool:
        """Whether rows have weights."""
        if is_dataset(self.x):
            return first_rows(self.x, 1, self.options).weight is not None
        return self.weight is not None

    def first(self, n_rows: int) -> Tensors:
        """The inputs of the first rows, dense."""
        if is_dataset(self.x):
            inputs: Tensors = first_rows(self.x, n_rows, self.options).x
            return inputs
        if isinstance(self.x, MultiInput):
            return self.x[:n_rows].inputs  # type: ignore[no-any-return]
        if isinstance(self.x, torch.Tensor):
            return self.x[:n_rows]
        return as_tensor(self.x[:n_rows].toarray() if issparse(self.x) else self.x[:n_rows])

    def take(self, rows: NDArray[Any]) -> Rows:
        """Some of the rows."""
        x: Any
        if is_dataset(self.x):
            x = Subset(self.x, rows.tolist())
        elif isinstance(self.x, torch.Tensor):
            x = self.x[torch.from_numpy(rows)]
        elif isinstance(self.x, np.memmap):
            x = as_tensor(np.asarray(self.x[rows]))
        else:
            x = self.x[rows]
        return self._replace(
            x=x,
            codes=None if self.codes is None else self.codes[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def without_zero_weights(self) -> Rows:
        """The rows that count."""
        if self.weight is None or (self.weight > 0).all():
            return self
        return self.take(np.flatnonzero(self.weight > 0))

    def source(
        self,
        input_format: InputFormat,
        targets: Targets | None = None,
        encode: Targets | None = None,
        *,
        seed: int = 0,
        is_kept: bool = False,
    ) -> Source:
        """Batches of these rows.

        Parameters
        ----------
        input_format : InputFormat
            Where the inputs go.
        targets : callable or None
            Codes to the targets of the loss.
        encode : callable or None
            Labels that a dataset yields to codes.
        seed : int
            The seed of what is drawn in reading a dataset.
        is_kept : bool
            Whether they are gone through many times, so that a conversion is done once.
        """
        if is_dataset(self.x):
            to_targets = None
            if encode is not None and targets is not None:
                to_targets = lambda labels: targets(encode(labels))  # noqa: E731
            return LoaderSource(self.x, to_targets, input_format, self.options, self.n_rows, seed)
        y = weight = None
        if self.codes is not None and targets is not None:
            y = targets(as_tensor(self.codes))
        if self.weight is not None:
            weight = as_tensor(self.weight).to(input_format.weight_dtype)
        if issparse(self.x):
            x = self.x
            if is_kept and input_format.is_plain:
                # NumPy has the numbers; torch the name of their dtype.
                x = x.astype(str(input_format.dtype)[6:], copy=False)
            return SparseSource(x, y, weight, input_format)
        if isinstance(self.x, np.memmap):
            return BlockSource(self.x, y, weight, input_format)
        inputs = self.x.inputs if isinstance(self.x, MultiInput) else self.x
        if is_kept:
            named = named_tensors(inputs)
            inputs = like(inputs, [_converted(name, one, input_format) for name, one in named])
        return TensorSource(inputs, y, weight, input_format)


def _converted(name: Any, x: torch.Tensor, input_format: InputFormat) -> torch.Tensor:
    """Rows as the module wants them, once for all batches.

    Small integers, such as the pixels of images, are converted a batch at a time, and so is what
    is still to be transformed.
    """
    if x.dtype.itemsize > 1 and input_format.is_plain:
        x = x.to(input_format.dtype_of(name, x))
    return x.contiguous()


def is_loader(rows: Rows) -> bool:
    """Whether the rows come from a loader of the user's."""
    return isinstance(rows.x, DataLoader)
