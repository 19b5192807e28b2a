"""Map-style datasets and data loaders: their rows, their labels and the names of their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from easyclf.data.base import Batch, Placement, Source, bounds
from easyclf.data.tensors import check_finite

Encoder = Callable[[Any], torch.Tensor]
# Rows that are read to see whether a dataset yields the labels that it carries.
_COMPARED_ROWS = 20


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
    items = [_item(dataset, row) for row in range(min(n_rows, len(dataset)))]
    return _fields(loader.collate_fn(items))


def _item(dataset: Any, row: int) -> Any:
    """An item, or an error that says of which row."""
    try:
        item = dataset[row]
    except Exception as error:
        error.add_note(f"Raised by {type(dataset).__name__}.__getitem__ for row {row}.")
        raise
    if item is None:
        raise TypeError(
            f"{type(dataset).__name__}.__getitem__ returned None for row {row}; expected an item "
            "x, (x, y) or (x, y, weight)."
        )
    return item


class _CheckedRows(Dataset[Any]):
    """A dataset whose errors name the row, and whose rows have one shape."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._shape = first_rows(dataset, 1)[0].shape[1:]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> Any:
        item = _item(self._dataset, row)
        x = item[0] if isinstance(item, (tuple, list)) else item
        if getattr(x, "shape", self._shape) != self._shape:
            raise ValueError(
                f"`X` yields rows of shape {tuple(self._shape)}, but row {row} has shape "
                f"{tuple(x.shape)}; give all rows one shape."
            )
        return item


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
    first = _item(dataset, 0)
    if not isinstance(first, (tuple, list)) or len(first) < 2:
        raise ValueError(
            f"`X` is a {type(dataset).__name__} whose items have no label; expected items (x, y)."
        )
    carried = carried_labels(dataset)
    if carried is not None:
        return carried
    return np.asarray([np.asarray(_item(dataset, row)[1]) for row in range(len(dataset))])


def carried_labels(X: Any) -> NDArray[Any] | None:
    """The labels that a dataset keeps beside its items, if the items yield the same."""
    dataset = _rows_of(X)
    labels = _carried_labels(dataset)
    if labels is None:
        return None
    # The first row of each of some classes tells.
    _, rows = np.unique(labels, axis=0, return_index=True)
    for row in rows[:_COMPARED_ROWS].tolist():
        item = _item(dataset, row)
        is_labelled = isinstance(item, (tuple, list)) and len(item) > 1
        if not is_labelled or not np.array_equal(labels[row], np.asarray(item[1])):
            return None
    return labels


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
            _CheckedRows(self._rows), batch_size, shuffle=generator is not None, generator=generator
        )

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        if isinstance(self._rows, DataLoader):
            full, sampler = self._rows.batch_size, self._rows.sampler
            if full is None or self._rows.drop_last or not isinstance(sampler, Sized):
                return len(self._rows)
            last = len(sampler) % full
            return len(self._rows) - (0 < last < min_rows and len(sampler) > full)
        return len(bounds(len(self), batch_size, min_rows))

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
        check_finite(fields[0], self._placement.dtype, " of a batch")
        if self._encode is not None:
            if len(fields) < 2:
                raise ValueError("`X` yields items without a label; expected items (x, y).")
            y = self._encode(fields[1]).to(device)
            weight_dtype = self._placement.weight_dtype
            weight = fields[2].to(device, weight_dtype) if len(fields) > 2 else None
        return Batch(self._placement.place(fields[0], is_own=True), y, weight)
