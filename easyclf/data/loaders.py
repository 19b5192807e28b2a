"""The user's own DataLoader: its batches, as it makes them."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from easyclf.checks import did_you_mean
from easyclf.data.base import Encoder, Order
from easyclf.data.caching import dataset_labels
from easyclf.data.first_look import FirstLook, is_dataset
from easyclf.data.formats import InputFormat
from easyclf.data.items import Fields
from easyclf.data.loading import LoadedRows, LoadedSource, labels_to_targets
from easyclf.data.rows import STREAMED_ROWS
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.streams import EpochCheck
from easyclf.data.workers import end_kept_workers, iterate
from easyclf.targets import Labels

# The options of a DataLoader that easyclf sets itself.
_OWN_OPTIONS = (
    "dataset",
    "batch_size",
    "shuffle",
    "sampler",
    "batch_sampler",
    "drop_last",
    "generator",
    "in_order",
)


def check_options(options: Mapping[str, Any], X: object) -> None:
    """Refuse `loader__*` that no loader takes, or beside a loader or an array.

    Raises
    ------
    TypeError
        If the name of an option is unknown, or not the user's to set.
    ValueError
        If no loader is made for X.
    """
    names = [name for name in inspect.signature(DataLoader).parameters if name not in _OWN_OPTIONS]
    for name in options:
        if name in _OWN_OPTIONS:
            advice = (
                "set `batch_size`, `shuffle` and `random_state` of Estimator, or pass a DataLoader "
                "as X."
            )
            raise TypeError(f"`loader__{name}` is easyclf's to set; {advice}")
        if name not in names:
            raise TypeError(
                f"`loader__{name}` is not a parameter of torch.utils.data.DataLoader"
                f"{did_you_mean(name, names, 'loader__')}"
            )
    if options and isinstance(X, DataLoader):
        raise ValueError(
            f"`loader__{next(iter(options))}` is given, but X is a DataLoader, which has its own "
            "settings; leave it out, or pass the Dataset."
        )
    if options and not is_dataset(X):
        raise ValueError(
            f"`loader__{next(iter(options))}` is given, but X is a {type(X).__name__}, which needs "
            "no DataLoader; leave it out."
        )


def read_loader(X: DataLoader[Any], context: ReadContext) -> tuple[LoaderRows, RowSchema]:
    """Look at a DataLoader."""
    look = FirstLook(X, context.loader_options)
    return LoaderRows(look), look.check(context)


@dataclass(frozen=True)
class LoaderRows(LoadedRows):
    """Rows of a DataLoader of the user's."""

    can_be_split: ClassVar[bool] = False

    @property
    def n_rows(self) -> int | None:
        return len(self.codes) if self.codes is not None else self.look.n_rows

    @property
    def can_repeat(self) -> bool:
        return not self.look.is_stream

    def own_labels(self, *, needs_all: bool) -> Labels | None:
        return dataset_labels(self.look) if needs_all else self.look.carried_labels

    def take(self, row_numbers: NDArray[np.intp]) -> LoaderRows:
        raise TypeError(f"`X` is a {self.kind_name}, whose rows cannot be picked by their numbers.")

    def training_batch_size(self, asked: int | str) -> int:
        if asked != "auto":
            raise ValueError(
                f"`batch_size` is {asked!r}, but X is a DataLoader, which has its own; leave "
                "`batch_size` out."
            )
        return self.look.X.batch_size or self.n_rows or STREAMED_ROWS

    def source(
        self,
        input_format: InputFormat,
        targets: Encoder | None = None,
        encode: Encoder | None = None,
        *,
        is_kept: bool = False,
    ) -> LoaderSource:
        to_targets = labels_to_targets(targets, encode)
        return LoaderSource(self.look, to_targets, input_format, self.n_rows)


class LoaderSource(LoadedSource):
    """Batches of the user's own loader, which keeps its batch size, order, workers and collation.

    Its draws are those of the global random states, or of generators of its own: `Order` has no
    say in them.

    Parameters
    ----------
    n_rows : int or None
        The number of rows, where it is known.
    """

    def __init__(
        self,
        look: FirstLook,
        encode: Encoder | None,
        input_format: InputFormat,
        n_rows: int | None,
    ) -> None:
        super().__init__(look, encode, input_format)
        self._loader: DataLoader[Any] = look.X
        # A loader that drops the last rows says nothing of how many it yields.
        expected = None if self._loader.drop_last else n_rows
        self._check = EpochCheck(look.name, self._loader.num_workers, expected)

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int | None:
        try:
            n_batches: int = len(self._loader)
        except TypeError:
            return None
        full: int | None = self._loader.batch_size
        sampler: object = self._loader.sampler
        if full is None or self._loader.drop_last or not isinstance(sampler, Sized):
            return n_batches
        last = len(sampler) % full
        return n_batches - int(0 < last < min_rows and len(sampler) > full)

    def _load(self, batch_size: int, order: Order, min_rows: int) -> Generator[Any]:
        return iterate(self._loader)

    def _checked(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        return self._check.watch(batches) if self._look.is_stream else batches

    def close(self) -> None:
        end_kept_workers(self._loader)
