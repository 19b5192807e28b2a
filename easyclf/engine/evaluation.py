"""The figures and the outputs of many rows, in batches that memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn

from easyclf.checks import warn_user
from easyclf.data import Batch, Source
from easyclf.device import is_out_of_memory
from easyclf.engine.metrics import BatchResult, RunningMetrics
from easyclf.engine.probing import advise_on_tokens
from easyclf.heads import Head
from easyclf.metrics import Answered
from easyclf.precision import Precision

Result = TypeVar("Result")
# Figures of the outputs of all rows.
Score = Callable[[Answered], dict[str, float]]


class Evaluation:
    """Goes through rows in large batches, and in smaller ones once memory has run out.

    Parameters
    ----------
    module : nn.Module
        The module that the rows go through, to be named in errors.
    n_rows : int
        Rows in a batch.
    """

    def __init__(self, module: nn.Module, n_rows: int) -> None:
        self._module, self._n_rows = module, n_rows
        self._has_warned = False

    def each(self, source: Source, function: Callable[[Batch], Result]) -> Iterator[Result]:
        """Call a function with every batch, in order, and yield its results.

        Raises
        ------
        Exception
            Whatever `function` raises, with a note that names the module and the batch.
        """
        for batch in self._moved(source):
            parts = [batch]
            while parts:
                part = parts.pop()
                if part.n_rows <= self._n_rows:
                    try:
                        yield function(part)
                        continue
                    except Exception as error:
                        self._make_room(error, part)
                half = part.n_rows // 2
                parts += [part.rows(half, None), part.rows(0, half)]

    def _moved(self, source: Source) -> Iterator[Batch]:
        """Yield the batches, smaller ones where the device has no memory to put them."""
        n_done = 0
        while True:
            try:
                batches = source.batches(self._n_rows)
                for batch in _later(batches, n_done) if n_done else batches:
                    n_done += batch.n_rows
                    yield batch
                return
            except Exception as error:
                is_hosts = isinstance(error, MemoryError) or not is_out_of_memory(error)
                if is_hosts or not source.can_begin_again or self._n_rows == 1:
                    raise
                self._halve(self._n_rows, error)

    def _make_room(self, error: Exception, batch: Batch) -> None:
        """Halve the batches from now on, if it was memory that the batch lacked."""
        if batch.n_rows == 1 or not is_out_of_memory(error):
            note = f"In {type(self._module).__name__}, on a batch of shape {batch.shape}."
            error.add_note(note + advise_on_tokens(self._module, batch.x, error))
            raise error
        self._halve(batch.n_rows, error)

    def _halve(self, n_rows: int, error: Exception) -> None:
        self._n_rows = n_rows // 2
        if not self._has_warned:
            self._has_warned = True
            warn_user(
                f"There was no memory for {n_rows} rows at once ({error}); evaluation goes on with "
                "smaller batches.",
            )


def _later(batches: Iterator[Batch], n_done: int) -> Iterator[Batch]:
    """Leave out the first rows."""
    for batch in batches:
        if n_done < batch.n_rows:
            yield batch.rows(n_done, None)
        n_done = max(0, n_done - batch.n_rows)


def evaluate(
    source: Source,
    evaluation: Evaluation,
    measure: Callable[[Batch], BatchResult],
    score: Score | None = None,
) -> dict[str, float]:
    """Measure the exact `loss` and `accuracy` of all rows of a source, and what `score` adds."""
    metrics = RunningMetrics()
    for batch, result in evaluation.each(source, lambda batch: (batch, measure(batch))):
        metrics.add(result, batch)
    check_any_batch(metrics)
    return metrics.read() | (score(metrics.answered()) if score is not None else {})


def predict_outputs(
    module: nn.Module, head: Head, precision: Precision, source: Source, n_rows: int
) -> torch.Tensor:
    """Compute the outputs of all rows of a source, `n_rows` at a time.

    Returns
    -------
    outputs : Tensor of shape (rows of the source, n_outputs)
        In order, on the host, in memory of its own; only the columns that are used.
    """

    @torch.inference_mode()
    def outputs_of(batch: Batch) -> torch.Tensor:
        return head.columns(precision.run(module, batch.x)).cpu()

    return torch.cat(list(Evaluation(module, n_rows).each(source, outputs_of)))


def check_any_batch(metrics: RunningMetrics) -> None:
    """Refuse figures of no rows at all."""
    if not metrics.n_batches:
        raise ValueError(
            "The data yielded no batch: no row has a positive weight, or a DataLoader with "
            "`drop_last=True` has fewer rows than its `batch_size`."
        )
