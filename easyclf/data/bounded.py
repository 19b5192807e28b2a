"""Epochs of a number of batches, whichever number the rows make: for streams that never end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import cast

import torch

from easyclf.data.base import IN_ORDER, Batch, Order, Source
from easyclf.data.rows import Rows
from easyclf.device import HOST
from easyclf.randomness import epoch_seed, own_states


class BoundedSource(Source):
    """Batches of another source, so many in each epoch.

    An epoch goes on where the one before it ended, as in Keras. Where the rows end, they begin
    again, in the order of another epoch.

    Where the source says how many batches it makes, an epoch follows from its number and the seed
    of the training alone, as all epochs do: the rows before it are skipped. Where it does not, the
    first epoch begins with the first rows, and what is drawn in reading follows from the epoch.

    Parameters
    ----------
    source : Source
        The rows.
    n_batches : int
        Batches in an epoch.
    seed : int
        The seed of the whole training.
    n_epochs : int
        Epochs that came before the first one that is read here.
    """

    def __init__(self, source: Source, n_batches: int, seed: int, n_epochs: int) -> None:
        self._source, self._n_batches, self._seed = source, n_batches, seed
        self.position = n_epochs
        self._n_passes: int | None = None
        self._reading: Generator[Batch] | None = None
        self._order: _OngoingOrder | None = None

    def n_batches(self, batch_size: int, min_rows: int = 1) -> int:
        return self._n_batches

    def batches(
        self, batch_size: int, order: Order = IN_ORDER, min_rows: int = 1
    ) -> Iterator[Batch]:
        begin = self.position * self._n_batches
        self.position += 1
        n_begun = 0
        if self._order is not None:
            self._order.go_on(order.seed)
        for number in range(begin, begin + self._n_batches):
            batch = None if self._reading is None else next(self._reading, None)
            if batch is None:
                seed = order.seed if n_begun == 0 else epoch_seed(order.seed, n_begun)
                n_begun += 1
                batch = self._begin(number, Order(seed, order.is_shuffled), batch_size, min_rows)
            yield batch

    def _begin(self, number: int, order: Order, batch_size: int, min_rows: int) -> Batch:
        """Begin with the rows again, and give the batch of that number in the whole training.

        Raises
        ------
        ValueError
            If there are no rows.
        """
        n_skipped, n_in_pass = 0, self._source.n_batches(batch_size, min_rows)
        if n_in_pass is None:
            order = self._order = _OngoingOrder(order.seed, order.is_shuffled)
        elif self._n_passes is None:
            self._n_passes, n_skipped = divmod(number, n_in_pass)
        else:
            # Not by the number of batches: those of which no row counts never come.
            self._n_passes += 1
        if self._n_passes is not None:
            order = Order(epoch_seed(self._seed, self._n_passes + 1), order.is_shuffled)
        batches = self._source.batches(batch_size, order, min_rows)
        self._reading = cast("Generator[Batch]", batches)
        # A loader of the user's draws its order from the global states.
        with own_states(order.seed, HOST):
            batch = next(islice(self._reading, n_skipped, None), None)
        if batch is None and n_skipped:
            return self._begin(number, order, batch_size, min_rows)
        if batch is None:
            raise ValueError("`X` yielded no rows; expected some whenever it is begun again.")
        return batch

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()
        self._source.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reading is not None:
            self._reading.close()
        self._source.__exit__(kind, error, traceback)


@dataclass(frozen=True)
class _OngoingOrder(Order):
    """The order of rows that are read on from epoch to epoch: each epoch has its own draws."""

    _made: list[torch.Generator] = field(default_factory=list, compare=False)

    def generator(self) -> torch.Generator:
        """Make a generator on the CPU, which begins with the seed in each epoch."""
        generator = super().generator()
        self._made.append(generator)
        return generator

    def go_on(self, seed: int) -> None:
        """Begin with the draws of another epoch."""
        for generator in self._made:
            generator.manual_seed(seed)


def check_bounded(rows: Rows, *, is_bounded: bool, needs_labels: bool, needs_classes: bool) -> None:
    """Refuse rows to train on of which a pass would never end.

    Parameters
    ----------
    rows : Rows
        The rows.
    is_bounded : bool
        Whether an epoch has a number of steps.
    needs_labels, needs_classes : bool
        Whether all labels are needed before training: themselves, or for the classes among them.

    Raises
    ------
    ValueError
        If they never end, or nobody knows.
    """
    if not is_bounded and rows.is_endless:
        raise ValueError(
            f"`X` is a {rows.kind_name} that never ends, and so would its first epoch; say how "
            "many steps make one: `fit(X, steps_per_epoch=100)`, with `classes=[...]`."
        )
    if is_bounded and rows.n_rows is None and (needs_labels or needs_classes):
        advice = "name all classes: `Estimator(classes=[...])`"
        if needs_labels:
            advice = "pass a dict of classes as `class_weight`"
        raise ValueError(
            f"`steps_per_epoch` is given, and X is a {rows.kind_name} that does not say how many "
            f"rows it has, so its labels cannot all be read before training; {advice}."
        )


def refuse_endless(rows: Rows, name: str = "X") -> None:
    """Refuse rows to measure or to answer for, called `name`, that are known never to end.

    Raises
    ------
    ValueError
        If they are.
    """
    if rows.is_endless:
        raise ValueError(
            f"`{name}` is a {rows.kind_name} that never ends; pass the rows that you mean, such as "
            "a stream of `itertools.islice(...)` of it."
        )


def check_validation(train: Rows, valid: Rows | None) -> None:
    """Refuse a stream to validate on that may be as endless as the one to train on.

    Raises
    ------
    ValueError
        If neither says how many rows it has.
    """
    if valid is not None and train.n_rows is None and valid.n_rows is None:
        raise ValueError(
            f"`validation_data` is a {valid.kind_name} that does not say how many rows it has, "
            "beside one to train on that is cut by `steps_per_epoch`; all of its rows are measured "
            "after every epoch, so give it a `__len__`, or pass arrays or a map-style Dataset."
        )
