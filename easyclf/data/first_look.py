"""The first look at a dataset or loader: everything seen before it is read is seen once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from easyclf.checks import warn_user
from easyclf.data.base import IN_ORDER, Order
from easyclf.data.items import (
    Column,
    Fields,
    Item,
    WatchedCollation,
    batch_fields,
    check_items,
    collation_ended_early,
    fields_of,
    no_rows,
    read_item,
    row_shapes,
    some_without_weight,
)
from easyclf.data.opened import Opened, may_be_read_once
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.workers import iterate
from easyclf.nested import first_of

# Rows that are read to see whether a dataset yields the labels that it carries.
_COMPARED_ROWS = 20
# Items that are kept: as many as are ever asked for. Those of a stream are read together.
KEPT_ITEMS = 4
# A Dataset of torch, a DataLoader, or what is like them: its class has no base in common.
DatasetLike: TypeAlias = Any
# Weights below 2 to this power need no scaling: float32 holds 2**127, and sums of them.
_PLAIN_EXPONENT = 32
# What labels and names of classes are kept in.
_LISTS = (list, tuple, np.ndarray, torch.Tensor)


def is_dataset(X: object) -> bool:
    """Whether `X` is a Dataset or a DataLoader, which hold their labels themselves.

    So is an object that reads several items at once and says what they consist of, as the
    datasets of the library of that name do.
    """
    is_foreign = hasattr(X, "__getitems__") and hasattr(X, "features")
    return isinstance(X, (Dataset, DataLoader)) or is_foreign


def is_loader(X: object) -> bool:
    """Whether `X` is a DataLoader of the user's."""
    return isinstance(X, DataLoader)


def is_stream(X: object) -> bool:
    """Whether `X` is a dataset, or a loader of one, whose rows only come one after the other."""
    dataset = dataset_of(X)
    return is_dataset(X) and (
        isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    )


def dataset_of(X: DatasetLike) -> DatasetLike:
    """Give the dataset itself, of which a loader makes batches."""
    return X.dataset if isinstance(X, DataLoader) else X


class FirstLook:
    """The first items of a dataset or loader, its length, its labels: each is looked up once.

    Parameters
    ----------
    X : Dataset or DataLoader
        The user's.
    loader_options : mapping
        The user's `loader__*`, without the prefix.
    items : mapping of int to item, optional
        Items that are known already, by their rows.
    is_answered : bool
        Whether each row is to get an answer, so that none may be dropped.

    Attributes
    ----------
    X : Dataset or DataLoader
        The user's; a copy of a loader whose collation might lose rows of a stream.
    dataset : Dataset
        The dataset itself, where X is a loader.
    loader_options : mapping
        The user's.
    is_stream : bool
        Whether rows only come one after the other.
    has_carried_labels : bool
        Whether the labels that the dataset keeps beside its items were believed.
    labels, weights : dict of int to label or weight
        Those that were seen, by their rows.
    """

    def __init__(
        self,
        X: DatasetLike,
        loader_options: Mapping[str, Any],
        items: Mapping[int, Item] | None = None,
        *,
        is_answered: bool = False,
    ) -> None:
        self.X, self.dataset, self.loader_options = X, dataset_of(X), loader_options
        self.is_stream = is_stream(X)
        self._collate: Callable[[list[Item]], Item] = torch.utils.data.default_collate
        if is_loader(X):
            self._collate = X.collate_fn
        elif loader_options.get("collate_fn") is not None:
            self._collate = loader_options["collate_fn"]
        if self.is_stream and self.has_own_collation:
            self._collate = WatchedCollation(self._collate, self.name, is_answered=is_answered)
            if is_loader(X) and X.batch_size is not None:
                # The user's own stays as it is, and so do workers that it keeps.
                self.X = copy.copy(X)
                self.X.__dict__.pop("_iterator", None)
                self.X.collate_fn = self._collate
        self._items = dict(items or {})
        self.has_carried_labels = False
        self.labels: dict[int, Column] = {}
        self.weights: dict[int, Column] = {}
        for row, item in self._items.items():
            self.note(row, item)

    @property
    def name(self) -> str:
        """The type of the dataset itself, for messages."""
        return type(self.dataset).__name__

    @property
    def has_own_collation(self) -> bool:
        """Whether the user makes batches of items, whose shape may then change from batch to batch.

        Such batches need not be of rows of one shape.
        """
        return self._collate is not torch.utils.data.default_collate

    def collate(self, items: list[Item]) -> Item:
        """Make a batch of items, as the user does it."""
        try:
            return self._collate(items)
        except StopIteration as error:
            raise collation_ended_early(self.name) from error
        except RuntimeError as error:
            # torch says of items of several lengths no more than that.
            if len({fields_of(item).weight is None for item in items}) > 1:
                raise some_without_weight() from error
            raise

    @functools.cached_property
    def n_rows(self) -> int | None:
        """Number of rows; None where only reading them tells.

        Raises
        ------
        ValueError
            If there are none.
        TypeError
            If a map-style dataset has no length.
        """
        if is_loader(self.X) and self.X.batch_sampler is None:
            return None  # its items are batches
        try:
            n_rows = len(self.dataset)
        except TypeError:
            if self.is_stream:
                return None
            raise TypeError(
                f"`X` holds a {self.name}, which has no length; expected a map-style Dataset with "
                "`__len__` and `__getitem__`, or an IterableDataset."
            ) from None
        if not n_rows:
            raise no_rows(self.dataset)
        return n_rows

    def first(self, n_rows: int) -> Fields:
        """Give the first rows, collated; x has shape (n_rows, ...), with fewer rows if X has."""
        if self.makes_batches:
            return self._first_batch.first(n_rows)
        return batch_fields(self.collate(self.first_items(n_rows)))

    @property
    def makes_batches(self) -> bool:
        """Whether only the user's loader knows how its batches come about."""
        return is_loader(self.X) and (self.is_stream or self.X.batch_sampler is None)

    @functools.cached_property
    def _opened(self) -> Opened[Item]:
        """The first items of a stream, or the first batch of a loader, and what comes after."""
        if self.makes_batches:
            opened = Opened[Item](iterate(self.X), 1)
        else:
            opened = Opened(iter(self.dataset), KEPT_ITEMS)
        if not opened.first:
            raise no_rows(self.dataset)
        return opened

    @functools.cached_property
    def may_be_read_once(self) -> bool:
        """Whether a stream may go on where it was left, instead of beginning again.

        The workers of a loader have copies of it, which all begin where this process left it.
        """
        in_workers = is_loader(self.X) and self.X.num_workers > 0
        return self.is_stream and may_be_read_once(self.dataset, in_workers=in_workers)

    @functools.cached_property
    def is_endless(self) -> bool:
        """Whether a stream is known never to end."""
        return self.is_stream and self._opened.is_endless

    def resumed(self, order: Order) -> Generator[Item] | None:
        """Go on from the first look: all items of a stream, or all batches of the user's loader.

        None where they are to be read anew: in a later pass, or in an epoch whose draws follow
        from its own seed.
        """
        if order == IN_ORDER or self.may_be_read_once:
            return self._opened.resumed()
        self.close()
        return None

    def close(self) -> None:
        """Let go what was opened, and is not to be read on."""
        if "_opened" in vars(self):
            self._opened.close()

    @functools.cached_property
    def _first_batch(self) -> Fields:
        fields = batch_fields(self._opened.first[0])
        if not first_of(fields.x).ndim or (fields.y is not None and np.ndim(fields.y) == 0):
            raise ValueError(
                f"`X` is a {type(self.X).__name__} of single rows; expected batches: give it a "
                "`batch_size`, or pass the Dataset."
            )
        return fields

    def first_items(self, n_rows: int) -> list[Item]:
        """Give the items of the first rows, of which batches can be made; fewer if X has."""
        if self.is_stream:
            items = self._opened.first[:n_rows]
        else:
            assert self.n_rows is not None
            items = [self._item(row) for row in range(min(n_rows, self.n_rows))]
        if not self.has_own_collation:
            check_items(items, type(self.X).__name__)
        return items

    def _item(self, row: int) -> Item:
        if row not in self._items:
            self._items[row] = read_item(self.dataset, row)
            self.note(row, self._items[row])
        return self._items[row]

    def note(self, row: int, item: Item) -> None:
        """Keep the label and the weight of an item."""
        fields = fields_of(item)
        self.labels[row], self.weights[row] = fields.y, fields.weight

    @functools.cached_property
    def is_weighted(self) -> bool:
        """Whether rows have weights."""
        if self.makes_batches or self.has_own_collation:
            return self.first(1).weight is not None
        return fields_of(self.first_items(1)[0]).weight is not None

    @functools.cached_property
    def weight_scale(self) -> float:
        """A power of two that brings the weights seen so far near 1, if they are far from it."""
        first = self.first(KEPT_ITEMS).weight
        weights = [weight for weight in self.weights.values() if weight is not None]
        seen = np.asarray(weights or first, dtype=np.float64)
        seen = seen[np.isfinite(seen) & (seen > 0)]
        exponent = int(np.frexp(seen.max())[1]) if seen.size else 0
        return 1.0 if abs(exponent) < _PLAIN_EXPONENT else float(np.ldexp(1.0, -exponent))

    def label(self, row: int) -> Item:
        """Give the label of a row of a map-style dataset, and keep it."""
        if row < KEPT_ITEMS:
            self._item(row)
        elif row not in self.labels:
            self.note(row, read_item(self.dataset, row))
        return self.labels[row]

    @functools.cached_property
    def carried_labels(self) -> NDArray[Any] | None:
        """The labels that a dataset keeps beside its items, if the items yield the same.

        An array of shape (n_rows,) or (n_rows, n_labels).
        """
        # Labels alone do not tell which rows have weight 0.
        if self.is_stream or self.n_rows is None or self.is_weighted:
            return None
        labels = _carried_labels(self.dataset)
        if labels is None or labels.dtype == object:
            return None
        # The first row of each of some classes tells, and so do rows from everywhere.
        _, rows = np.unique(labels, axis=0, return_index=True)
        spread = np.linspace(0, len(labels) - 1, _COMPARED_ROWS).astype(int)
        for row in sorted({*rows[:_COMPARED_ROWS].tolist(), *spread.tolist()}):
            y = self.label(row)
            if y is None or not np.array_equal(labels[row], np.asarray(y)):
                return None
        self.has_carried_labels = True
        return labels

    def take(self, row_numbers: NDArray[np.intp]) -> FirstLook:
        """Look at some of the rows of a map-style dataset; known items stay known."""
        rows = row_numbers.tolist()
        items = {new: self._items[old] for new, old in enumerate(rows) if old in self._items}
        taken = FirstLook(Subset(self.X, rows), self.loader_options, items)
        taken.has_carried_labels = self.has_carried_labels
        return taken

    def _warn_of_numbers(self) -> None:
        """Warn of weights that look like the numbers of the rows."""
        weight = self.first(KEPT_ITEMS).weight if self.is_weighted else None
        if weight is None or np.shape(weight) != (KEPT_ITEMS,):
            return
        if np.array_equal(np.asarray(weight), np.arange(KEPT_ITEMS)):
            warn_user(
                "`X` yields the weights 0, 1, 2, 3 with its first rows, which look like the "
                "numbers of the rows: the third part of an item is its weight. Leave it out, or "
                "yield (x, y, 1.0).",
            )

    @property
    def fixed_shape(self) -> tuple[int, ...] | None:
        """The shape that all rows are to have; None for several inputs, or the user's batches."""
        x = self.first(1).x
        if self.has_own_collation or not isinstance(x, torch.Tensor):
            return None
        return tuple(x.shape[1:])

    def check(self, context: ReadContext) -> RowSchema:
        """Check the width of the rows, and say how they look."""
        x = self.first(1).x
        if isinstance(x, torch.Tensor) and not self.has_own_collation:
            # Rows of single numbers count as rows of one column.
            row = x.reshape(1, *(x.shape[1:] or (1,)))
            context.check(row, skip_check_array=True)
        if context.is_training:
            self._warn_of_numbers()
        return RowSchema(row_shapes(x), is_fixed=not self.has_own_collation)


def _carried_labels(dataset: DatasetLike) -> NDArray[Any] | None:
    if isinstance(dataset, Subset):
        labels = _carried_labels(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_carried_labels(part) for part in dataset.datasets]
        labelled = [part for part in parts if part is not None]
        return np.concatenate(labelled) if len(labelled) == len(parts) else None
    for values in _label_lists(dataset):
        if isinstance(values, _LISTS) and len(values) == len(dataset):
            values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
            try:
                return np.asarray(values)
            except ValueError:  # lists of several lengths
                continue
    return None


def _label_lists(dataset: DatasetLike) -> Iterable[object]:
    """List what may be the labels of a dataset."""
    candidates = []
    # TensorDataset keeps its labels so.
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1:
        candidates.append(tensors[1])
    # torchvision's datasets keep them so, before they are transformed.
    if getattr(dataset, "target_transform", None) is None:
        candidates += [getattr(dataset, name, None) for name in ("targets", "labels")]
    return candidates


def class_names(X: object) -> list[str] | None:
    """Look up the names that a torchvision dataset gives its classes."""
    dataset = dataset_of(X)
    while isinstance(dataset, (Subset, ConcatDataset)):
        dataset = dataset.dataset if isinstance(dataset, Subset) else dataset.datasets[0]
    names: object = getattr(dataset, "classes", None)
    if isinstance(names, _LISTS) and all(isinstance(name, str) for name in names):
        return list(names)
    return None
