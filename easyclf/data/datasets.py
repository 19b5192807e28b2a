"""Map-style datasets and data loaders: their rows, their labels and the names of their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from easyclf.data.base import Batch, Placement, Source

Encoder = Callable[[torch.Tensor], torch.Tensor]


def is_dataset(X: Any) -> bool:
    """Whether `X` is a Dataset or a DataLoader, which hold their labels themselves."""
    return isinstance(X, (Dataset, DataLoader))


def _rows_of(X: Any) -> Any:
    dataset = X.dataset if isinstance(X, DataLoader) else X
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"`X` holds a {type(dataset).__name__}, which has no length; expected a map-style "
            "Dataset with `__len__` and `__getitem__`."
        )
    if not len(dataset):
        raise ValueError(
            f"`X` is a {type(dataset).__name__} with 0 rows (0 sample(s)); at least 1 is required."
        )
    return dataset


def first_rows(X: Any, n_rows: int) -> tuple[Any, ...]:
    """The first rows of a dataset or loader, collated: `(x,)`, `(x, y)` or `(x, y, weight)`."""
    dataset = _rows_of(X)
    loader = X if isinstance(X, DataLoader) else DataLoader(dataset)
    items = [dataset[row] for row in range(min(n_rows, len(dataset)))]
    return _fields(loader.collate_fn(items))


def _fields(batch: Any) -> tuple[Any, ...]:
    fields = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if not isinstance(fields[0], torch.Tensor) or len(fields) > 3:
        raise TypeError(
            f"`X` yields {[type(field).__name__ for field in fields]}; expected items x, (x, y) or "
            "(x, y, weight), whose x is a tensor (with torchvision, use transforms.ToTensor())."
        )
    return fields


def dataset_labels(X: Any) -> NDArray[Any]:
    """The labels of all rows, without reading the rows where the dataset carries its labels.

    Raises
    ------
    ValueError
        If an item has no label.
    """
    dataset = _rows_of(X)
    first = dataset[0]
    if not isinstance(first, (tuple, list)) or len(first) < 2:
        raise ValueError(
            f"`X` is a {type(dataset).__name__} whose items have no label; expected items (x, y)."
        )
    carried = _carried_labels(dataset)
    if carried is not None and np.array_equal(carried[0], np.asarray(first[1])):
        return carried
    return np.asarray([np.asarray(dataset[row][1]) for row in range(len(dataset))])


def _carried_labels(dataset: Any) -> NDArray[Any] | None:
    if isinstance(dataset, Subset):
        labels = _carried_labels(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    tensors = getattr(dataset, "tensors", (None, None))
    labels = tensors[1] if len(tensors) > 1 else None
    for name in ("targets", "labels"):
        if labels is None and getattr(dataset, "target_transform", None) is None:
            labels = getattr(dataset, name, None)
    if labels is None or len(labels) != len(dataset):
        return None
    return np.asarray(labels)


def class_names(X: Any) -> list[str] | None:
    """The names that a torchvision dataset gives its classes."""
    dataset = X.dataset if isinstance(X, DataLoader) else X
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    return None if names is None else list(names)


class LoaderSource(Source):
    """Rows of a map-style dataset, or of the user's own loader as it batches them.

    Parameters
    ----------
    rows : Dataset or DataLoader
        A loader keeps its batch size, sampler, workers and collation.
    encode : callable or None
        Labels of a batch to targets; None leaves the labels out.
    placement : Placement
        Where the batches go.
    """

    def __init__(
        self, rows: Dataset[Any] | DataLoader[Any], encode: Encoder | None, placement: Placement
    ) -> None:
        self._rows, self._encode, self._placement = rows, encode, placement

    def __len__(self) -> int:
        return len(_rows_of(self._rows))

    def _loader(self, batch_size: int, generator: torch.Generator | None) -> DataLoader[Any]:
        if isinstance(self._rows, DataLoader):
            return self._rows
        return DataLoader(
            self._rows, batch_size, shuffle=generator is not None, generator=generator
        )

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return len(self._loader(batch_size, None))

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, min_rows: int = 1
    ) -> Iterator[Batch]:
        device = self._placement.device
        held: tuple[Any, ...] | None = None
        # One batch is held back, so that a short last one can join it.
        for batch in self._loader(batch_size, generator):
            fields = _fields(batch)
            if held is not None and len(fields[0]) < min_rows:
                held = tuple(torch.cat(pair) for pair in zip(held, fields, strict=True))
                continue
            if held is not None:
                yield self._batch(held, device)
            held = fields
        if held is not None:
            yield self._batch(held, device)

    def _batch(self, fields: tuple[Any, ...], device: torch.device) -> Batch:
        y = weight = None
        if self._encode is not None:
            if len(fields) < 2:
                raise ValueError("`X` yields items without a label; expected items (x, y).")
            y = self._encode(torch.as_tensor(fields[1])).to(device)
            weight = fields[2].to(device) if len(fields) > 2 else None
        return Batch(self._placement.place(fields[0], is_own=True), y, weight)
