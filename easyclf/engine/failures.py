"""The errors that end a training, with what to do about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from easyclf.data import Batch
from easyclf.device import is_out_of_memory
from easyclf.engine.metrics import RunningMetrics
from easyclf.engine.step import Step
from easyclf.exceptions import TrainingDiverged
from easyclf.nested import first_of, tensors_of
from easyclf.state import TrainingState

# The square of a larger number is infinite in float32.
_HUGE = 1e19


def too_large(step: Step, batch: Batch, accumulate: int) -> MemoryError:
    """Make the error that says how many rows of a batch there is memory for."""
    n_rows = batch.n_rows
    fitting = n_rows // 2
    step.drop_gradients()
    while fitting:
        try:
            step.try_out(batch.rows(0, fitting))
            break
        except Exception as error:
            # Batch normalization, for one, takes no single row: nothing smaller can be tried.
            fitting = fitting // 2 if is_out_of_memory(error) else 0
    advice = "no smaller one fits either: use a smaller module"
    if fitting:
        groups = accumulate * math.ceil(n_rows / fitting)
        advice = (
            f"{fitting} fit: use batch_size={fitting}, with accumulate={groups} for steps over "
            "as many rows"
        )
    return MemoryError(
        f"A training batch of shape {batch.shape} does not fit into the memory of "
        f"{first_of(batch.x).device}; {advice}."
    )


def diverged(
    state: TrainingState, metrics: RunningMetrics, batches: Iterable[Batch]
) -> TrainingDiverged:
    """Make the error that says where a training stopped being finite, and which rows did it.

    Parameters
    ----------
    state : TrainingState
        The run.
    metrics : RunningMetrics
        The figures of the epoch.
    batches : iterable of Batch
        The training rows in order, to be looked at; none if they cannot be read again.
    """
    batch, loss = metrics.first_not_finite() or (metrics.n_batches, None)
    what = "the weights are no longer finite" if loss is None else f"the loss became {loss}"
    kept = f"epoch {state.epoch - 1}" if len(state.history) else "the start"
    return TrainingDiverged(
        f"Training diverged: {what} in epoch {state.epoch}, batch {batch}, with "
        f"lr={float(state.lr):g}. The estimator keeps the weights of {kept}. Use a smaller "
        f"`lr`, scale the inputs, or set `clip_grad_norm`.{_guilty_row(batches)}"
    )


def _guilty_row(batches: Iterable[Batch]) -> str:
    """Name the first row whose inputs are not finite, or are huge, in a sentence; "" if none is."""
    n_before, huge = 0, ""
    for batch in batches:
        values = [x for x in tensors_of(batch.x) if x.is_floating_point() and x.numel()]
        for x in (x.reshape(len(x), -1) for x in values):
            largest = x.abs().amax(1)
            row = _first((~largest.isfinite()).tolist())
            if row is not None:
                number = x[row][~x[row].isfinite()][0].item()
                return (
                    f" The inputs of row {n_before + row} of those trained on hold {number}, after "
                    "`augment` and `preprocess`."
                )
            row = _first((largest > _HUGE).tolist())
            if row is not None and not huge:
                number = largest[row].item()
                huge = f" The inputs of row {n_before + row} of those trained on reach {number:g}."
        n_before += batch.n_rows
    return huge


def _first(flags: Sequence[bool]) -> int | None:
    return next((place for place, flag in enumerate(flags) if flag), None)
