"""Datasets that scikit-learn can split, and datasets with labels of their own beside them."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset, Subset

from easyclf.data.caching import dataset_labels
from easyclf.data.first_look import FirstLook, is_dataset, is_loader, is_stream
from easyclf.data.items import Item, fields_of, read_item
from easyclf.targets import Labels, read_labels

RowNumbers: TypeAlias = slice | NDArray[np.intp] | NDArray[np.bool_] | list[int]


class SliceDataset(Subset[Item]):
    """A map-style Dataset that scikit-learn can split.

    `fit`, `predict` and `score` take a Dataset as it is. `cross_val_score` and `GridSearchCV`
    would read all of its items into a list: they need this wrapper.

    Parameters
    ----------
    dataset : Dataset
        With `__len__` and `__getitem__`.
    rows : sequence of int, default=None
        Numbers of its rows; None takes all.

    Attributes
    ----------
    shape : tuple of int
        The number of rows, in a tuple of one.
    y : ndarray of shape (n_rows,) or (n_rows, n_labels)
        The labels. They are read from the items where the dataset does not keep them beside.

    Examples
    --------
    >>> import torch
    >>> from sklearn.model_selection import cross_val_score
    >>> from torch.utils.data import TensorDataset
    >>> from easyclf import Estimator, SliceDataset
    >>> X = SliceDataset(TensorDataset(torch.randn(60, 4), torch.arange(60) % 2))
    >>> len(cross_val_score(Estimator(epochs=2), X, X.y, cv=3))
    3
    """

    def __init__(self, dataset: Dataset[Item], rows: Iterable[int] | None = None) -> None:
        n_rows = len(dataset)  # type: ignore[arg-type]
        super().__init__(dataset, [*range(n_rows)] if rows is None else [*map(int, rows)])

    @property
    def shape(self) -> tuple[int]:
        """The number of rows, in a tuple of one."""
        return (len(self),)

    @property
    def y(self) -> Labels:
        """The labels of the rows, of shape (n_rows,) or (n_rows, n_labels)."""
        return dataset_labels(FirstLook(self, {})).labels

    def __getitem__(self, rows: int | RowNumbers | tuple[RowNumbers, ...]) -> Item:
        """Read an item, or take some of the rows by a slice, a mask or their numbers."""
        if isinstance(rows, Integral):
            return super().__getitem__(int(rows))
        if isinstance(rows, tuple):  # scikit-learn asks for `[rows, ...]`
            rows = rows[0]
        return SliceDataset(self.dataset, np.asarray(self.indices, dtype=np.intp)[rows])

    def __getitems__(self, rows: list[int]) -> list[Item]:
        # torch wants it overridden beside `__getitem__`; several items are read as a Subset's.
        items: list[Item] = super().__getitems__(rows)
        return items

    def __repr__(self) -> str:
        return f"SliceDataset({type(self.dataset).__name__}, {len(self)} rows)"


class _LabelledDataset(Dataset[Item]):
    """The inputs of a dataset, with labels and weights that stand beside it.

    `targets` has the shape (n_rows,) or (n_rows, n_labels), `weights` (n_rows,).
    """

    def __init__(
        self, dataset: Dataset[Item], targets: Labels, weights: NDArray[np.float64] | None
    ) -> None:
        self.dataset, self.targets, self.weights = dataset, targets, weights

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> Item:
        x, label = fields_of(read_item(self.dataset, row)).x, self.targets[row]
        return (x, label) if self.weights is None else (x, label, self.weights[row])


def with_labels(
    X: Item, y: Item, sample_weight: ArrayLike | None, name: str
) -> tuple[Item, Item, Item]:
    """Put labels that stand beside a map-style dataset, called `name`, into it.

    Returns
    -------
    X, y, sample_weight : rows, and their labels and weights, where X does not hold them

    Raises
    ------
    ValueError
        If there is not one label for each row.
    """
    if y is None or not is_dataset(X) or is_loader(X) or is_stream(X):
        return X, y, sample_weight
    labels = read_labels(y, name)
    if labels.dtype == object:
        labels = np.asarray(labels.tolist())
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for words, column in ((name, labels), ("sample_weight", weights)):
        if column is not None and len(column) != len(X):
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: X has {len(X)}, "
                f"{words} has {len(column)}; expected one for each row."
            )
    return _LabelledDataset(X, labels, weights), None, None
