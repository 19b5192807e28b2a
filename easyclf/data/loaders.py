"""The user's own DataLoader: its batches, as it makes them."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping, Sized
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from easyclf.checks import did_you_mean, warn_user
from easyclf.data.base import Encoder, Order
from easyclf.data.caching import carried_labels, dataset_labels
from easyclf.data.first_look import FirstLook, is_dataset
from easyclf.data.formats import InputFormat
from easyclf.data.items import Fields
from easyclf.data.loading import LoadedSource, SequentialRows
from easyclf.data.rows import STREAMED_ROWS, OwnLabels
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.streams import EpochCheck
from easyclf.data.workers import end_kept_workers, iterate

_RANDOM_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
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
        If no loader is made for X, or no such number of workers.
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
    n_workers = options.get("num_workers", 0)
    if not isinstance(n_workers, Integral) or n_workers < 0:
        raise ValueError(
            f"`loader__num_workers` must be an integer of at least 0; got {n_workers!r}."
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


def refuse_dropped(X: object, name: str = "X") -> None:
    """Refuse a loader to measure on, called `name`, that is known to drop its last rows.

    Raises
    ------
    ValueError
        If it is.
    """
    if not isinstance(X, DataLoader):
        return
    sampler = _batch_sampler(X)
    if sampler is None or not sampler.drop_last:
        return
    drawn: object = sampler.sampler if isinstance(sampler.sampler, Sized) else X.dataset
    if isinstance(drawn, Sized) and len(drawn) % sampler.batch_size:
        n_rows = len(drawn)
        raise ValueError(
            f"`{name}` is a {type(X).__name__} of {n_rows} rows, of which "
            f"{n_rows - n_rows % sampler.batch_size} come in batches, so that the figures would "
            "not be of all rows; give every row to a batch once: without `drop_last`."
        )


def _batch_sampler(loader: DataLoader[Any]) -> BatchSampler | None:
    """The sampler of a loader's batches; None if it is of a class that torch does not define."""
    sampler = loader.batch_sampler
    return sampler if type(sampler) is BatchSampler else None


def _row_sampler(loader: DataLoader[Any]) -> object:
    """Give what draws the rows of a loader, as far as it is known."""
    sampler = _batch_sampler(loader)
    return loader.sampler if sampler is None else sampler.sampler


def read_loader(X: DataLoader[Any], context: ReadContext) -> tuple[LoaderRows, RowSchema]:
    """Look at a DataLoader."""
    look = FirstLook(X, context.loader_options, is_answered=context.is_answered)
    return LoaderRows(look), look.check(context)


@dataclass(frozen=True)
class LoaderRows(SequentialRows):
    """Rows of a DataLoader of the user's."""

    def own_labels(self, *, needs_all: bool) -> OwnLabels | None:
        return dataset_labels(self.look) if needs_all else carried_labels(self.look)

    def training_batch_size(self, asked: int | str) -> int:
        if asked != "auto":
            raise ValueError(
                f"`batch_size` is {asked!r}, but X is a DataLoader, which has its own; leave "
                "`batch_size` out."
            )
        return self.look.X.batch_size or self.n_rows or STREAMED_ROWS

    def _make_source(self, encode: Encoder | None, input_format: InputFormat) -> LoaderSource:
        return LoaderSource(self.look, encode, input_format, self.n_rows)


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
        if encode is None and look.is_stream and self._loader.drop_last:
            raise ValueError(
                "`X` is a DataLoader of a stream with `drop_last=True`, so that the last rows may "
                "get no answer; leave `drop_last` out."
            )
        if encode is None and isinstance(_row_sampler(self._loader), _RANDOM_SAMPLERS):
            warn_user(
                "`X` is a DataLoader that shuffles, so the answers come in an order that nobody "
                "knows; pass a DataLoader with shuffle=False, or the Dataset.",
            )
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
        resumed = self._look.resumed(order) if self._look.makes_batches else None
        return iterate(self._loader) if resumed is None else resumed

    def _checked(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        if self._look.is_stream:
            return self._check.watch(batches)
        return self._answering(self._all(batches), self._n_drawn)

    def _all(self, batches: Iterator[Fields]) -> Iterator[Fields]:
        """Yield the batches, which have to be as many as the loader says.

        A StopIteration of a map-style dataset, or of a collation, ends a loader early.
        """
        n_batches = 0
        for fields in batches:
            n_batches += 1
            yield fields
        n_expected = self.n_batches(0)
        if n_expected is not None and n_batches < n_expected:
            raise ValueError(
                f"`X` is a DataLoader of {n_expected} batches that ended after {n_batches} of "
                "them: its dataset, its sampler or its `collate_fn` ended early, perhaps by a "
                "StopIteration."
            )

    @property
    def _n_drawn(self) -> int | None:
        """The number of rows that the sampler draws; None where only reading them tells."""
        sampler = None if _batch_sampler(self._loader) is None else _row_sampler(self._loader)
        return len(sampler) if isinstance(sampler, Sized) else None

    def close(self) -> None:
        super().close()
        end_kept_workers(self._loader)
