"""Datasets and data loaders: their items, their labels and the names of their classes."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from easyclf.nested import Tensors, apply, tensors_of

# What a dictionary calls its label, and the weight of a row; all else are inputs.
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")
_WEIGHT_KEYS = ("weight", "sample_weight")
# Rows that are read to see whether a dataset yields the labels that it carries.
_COMPARED_ROWS = 20
# What labels and names of classes are kept in.
_LISTS = (list, tuple, np.ndarray, torch.Tensor)


class Fields(NamedTuple):
    """The parts of an item, or of a batch of them."""

    x: Any
    y: Any = None
    weight: Any = None


def is_dataset(X: Any) -> bool:
    """Whether `X` is a Dataset or a DataLoader, which hold their labels themselves.

    So is what fetches several items at once and says what they consist of, as the datasets of the
    library of that name do.
    """
    is_foreign = hasattr(X, "__getitems__") and hasattr(X, "features")
    return isinstance(X, (Dataset, DataLoader)) or is_foreign


def dataset_of(X: Any) -> Any:
    """The dataset itself, of which a loader makes batches."""
    return X.dataset if isinstance(X, DataLoader) else X


def is_stream(X: Any) -> bool:
    """Whether its rows only come one after the other."""
    dataset = dataset_of(X)
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def length_of(X: Any) -> int | None:
    """How many rows a dataset has; None where only going through them tells.

    Raises
    ------
    ValueError
        If it has none.
    """
    dataset = dataset_of(X)
    if isinstance(X, DataLoader) and X.batch_sampler is None:
        return None  # its items are batches
    try:
        n_rows = len(dataset)
    except TypeError:
        if is_stream(X):
            return None
        raise TypeError(
            f"`X` holds a {type(dataset).__name__}, which has no length; expected a map-style "
            "Dataset with `__len__` and `__getitem__`, or an IterableDataset."
        ) from None
    if not n_rows:
        raise no_rows(dataset)
    return n_rows


def no_rows(dataset: Any) -> ValueError:
    """The error for a dataset without rows."""
    return ValueError(
        f"`X` is a {type(dataset).__name__} with 0 rows (0 sample(s)); at least 1 is required."
    )


def fields_of(item: Any) -> Fields:
    """The parts of `x`, `(x, y)`, `(x, y, weight)`, or of a dict with a label among its keys."""
    if isinstance(item, Mapping):
        inputs = dict(item)
        y = _pop(inputs, _LABEL_KEYS)
        weight = _pop(inputs, _WEIGHT_KEYS)
        return Fields(next(iter(inputs.values())) if len(inputs) == 1 else inputs, y, weight)
    if isinstance(item, (tuple, list)):
        if not 1 <= len(item) <= 3:
            raise TypeError(
                f"`X` yields items of {len(item)} parts; expected x, (x, y) or (x, y, weight); "
                "several inputs are one part: ((x1, x2), y), or a dict."
            )
        return Fields(*item)
    return Fields(item)


def _pop(inputs: dict[str, Any], names: Iterable[str]) -> Any:
    for name in names:
        if name in inputs:
            return inputs.pop(name)
    return None


def batch_fields(batch: Any) -> Fields:
    """The parts of a collated batch, with the inputs as tensors."""
    fields = fields_of(batch)
    x = tuple(fields.x) if isinstance(fields.x, list) else fields.x
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
    if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        kinds = [type(part).__name__ for part in parts]
        raise TypeError(
            f"`X` yields inputs of type {', '.join(kinds) or 'nothing'}; expected tensors or "
            "arrays (with torchvision, use transforms.ToTensor() or v2.PILToTensor())."
        )
    return fields._replace(x=x)


def item(dataset: Any, row: int) -> Any:
    """An item, or an error that says of which row, and of which file if that is known."""
    try:
        found = dataset[row]
    except Exception as error:
        error.add_note(
            f"Raised by {type(dataset).__name__}.__getitem__ for {_place(dataset, row)}."
        )
        raise
    if found is None:
        raise TypeError(
            f"{type(dataset).__name__}.__getitem__ returned None for {_place(dataset, row)}; "
            "expected an item x, (x, y) or (x, y, weight)."
        )
    return found


def _place(dataset: Any, row: int) -> str:
    inner: Any = dataset
    at = row
    while isinstance(inner, (Subset, ConcatDataset)):
        if isinstance(inner, Subset):
            inner, at = inner.dataset, int(inner.indices[at])
        else:
            part = bisect.bisect_right(inner.cumulative_sizes, at)
            at -= inner.cumulative_sizes[part - 1] if part else 0
            inner = inner.datasets[part]
    files = getattr(inner, "samples", None) or getattr(inner, "imgs", None)
    try:
        entry = files[at]  # type: ignore[index]
        path = entry[0] if isinstance(entry, (tuple, list)) else entry
    except (TypeError, LookupError):
        return f"row {row}"
    return f"row {row}, {path}" if isinstance(path, str) else f"row {row}"


def collate_of(X: Any, options: Mapping[str, Any]) -> Callable[[list[Any]], Any]:
    """What makes a batch of items."""
    if isinstance(X, DataLoader):
        return X.collate_fn
    collate: Callable[[list[Any]], Any] | None = options.get("collate_fn")
    return collate or torch.utils.data.default_collate


def has_own_collation(X: Any, options: Mapping[str, Any]) -> bool:
    """Whether the user makes batches of items, whose shape may then change from one to another."""
    return collate_of(X, options) is not torch.utils.data.default_collate


def first_rows(X: Any, n_rows: int, options: Mapping[str, Any]) -> Fields:
    """The first rows of a dataset or loader, collated."""
    dataset = dataset_of(X)
    if isinstance(X, DataLoader) and (is_stream(X) or X.batch_sampler is None):
        # Only the loader knows how its batches come about.
        fields = batch_fields(_first(X, dataset))
        return Fields(
            apply(lambda one: one[:n_rows], fields.x),
            None if fields.y is None else fields.y[:n_rows],
            None if fields.weight is None else fields.weight[:n_rows],
        )
    if is_stream(X):
        items = [found for found, _ in zip(dataset, range(n_rows), strict=False)]
        if not items:
            raise no_rows(dataset)
    else:
        length = length_of(X)
        assert length is not None
        items = [item(dataset, row) for row in range(min(n_rows, length))]
    if not has_own_collation(X, options):
        _check_items(items, type(X).__name__)
    return batch_fields(collate_of(X, options)(items))


def _check_items(items: list[Any], name: str) -> None:
    """Refuse pictures that are no tensors, and rows of several shapes, before they are stacked."""
    first = None
    for row, found in enumerate(items):
        x = fields_of(found).x
        if type(x).__module__.startswith("PIL."):
            raise TypeError(
                f"`X` is a {name} that yields pictures of type {type(x).__name__}; expected "
                "tensors: give it a transform, such as torchvision.transforms.v2.PILToTensor()."
            )
        shape = getattr(x, "shape", None)
        if first is None:
            first = shape
        elif shape is not None and tuple(shape) != tuple(first):
            raise other_shape(tuple(first), row, tuple(shape))


def other_shape(expected: tuple[int, ...], row: int, shape: tuple[int, ...]) -> ValueError:
    """The error for a row of another shape than the first."""
    return ValueError(
        f"`X` yields rows of shape {expected}, but row {row} has shape {shape}; give all rows one "
        "shape, for example by v2.Resize and v2.CenterCrop, or pad them in `loader__collate_fn`."
    )


def _first(loader: Any, dataset: Any) -> Any:
    with closing(iterate(loader)) as batches:
        for batch in batches:
            return batch
    raise no_rows(dataset)


def iterate(loader: Any) -> Generator[Any]:
    """Go through a loader; its processes end with that, unless it is to keep them."""
    iterator = iter(loader)
    try:
        yield from iterator
    except (EOFError, ConnectionError) as error:
        # An error of the dataset's own begins with "Caught", as torch passes it on.
        if not getattr(loader, "num_workers", 0) or str(error).startswith("Caught"):
            raise
        raise dead_worker(error) from error
    except RuntimeError as error:
        if not says_worker_died(error):
            raise
        raise dead_worker(error) from error
    finally:
        if hasattr(iterator, "_shutdown_workers") and not loader.persistent_workers:
            shut_down(iterator)


def says_worker_died(error: BaseException) -> bool:
    """Whether torch raised it for a worker that died; it does so wherever the main thread is."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def dead_worker(error: BaseException) -> RuntimeError:
    """The error that says what to do about a worker that died."""
    return RuntimeError(
        f"A DataLoader worker died ({error or type(error).__name__}), often for lack of memory; "
        "use fewer of them, or none: `loader__num_workers=0`, or num_workers=0 of your own loader."
    )


def shut_down(iterator: Any) -> None:
    """End the workers of a loader's iterator, also if torch reports there that one has died."""
    try:
        iterator._shutdown_workers()
    except RuntimeError as error:
        if not says_worker_died(error):
            raise
        # It may not have begun; else this does nothing.
        iterator._shutdown_workers()


def carried_labels(X: Any) -> NDArray[Any] | None:
    """The labels that a dataset keeps beside its items, if the items yield the same."""
    if is_stream(X):
        return None
    dataset = dataset_of(X)
    if length_of(X) is None:
        return None
    labels = _carried_labels(dataset)
    if labels is None or labels.dtype == object:
        return None
    # The first row of each of some classes tells.
    _, rows = np.unique(labels, axis=0, return_index=True)
    for row in rows[:_COMPARED_ROWS].tolist():
        y = fields_of(item(dataset, row)).y
        if y is None or not np.array_equal(labels[row], np.asarray(y)):
            return None
    return labels


def _carried_labels(dataset: Any) -> NDArray[Any] | None:
    if isinstance(dataset, Subset):
        labels = _carried_labels(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_carried_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    candidates: list[Any] = [getattr(dataset, name, None) for name in ("targets", "labels")]
    if getattr(dataset, "target_transform", None) is not None:
        candidates = []
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1:
        candidates.insert(0, tensors[1])
    for labels in candidates:
        if isinstance(labels, _LISTS) and len(labels) == len(dataset):
            values: Any = labels
            try:
                return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
            except ValueError:  # lists of several lengths
                continue
    return None


def class_names(X: Any) -> list[str] | None:
    """The names that a torchvision dataset gives its classes."""
    dataset = dataset_of(X)
    while isinstance(dataset, (Subset, ConcatDataset)):
        dataset = dataset.dataset if isinstance(dataset, Subset) else dataset.datasets[0]
    names: Any = getattr(dataset, "classes", None)
    is_list = isinstance(names, _LISTS) and all(isinstance(name, str) for name in names)
    return list(names) if is_list else None


def shapes_of(x: Tensors) -> Any:
    """The shape of a row of the inputs."""
    return apply(lambda one: tuple(one.shape[1:]), x)


def n_rows_of(x: Tensors) -> int:
    """How many rows a batch has."""
    return len(tensors_of(x)[0])
