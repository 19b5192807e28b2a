"""The loop: epochs over a source, each with its validation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

import torch

from easyclf.callbacks.base import Callback, Hooks
from easyclf.data import Batch, Source
from easyclf.device import is_out_of_memory
from easyclf.engine.evaluation import Evaluation, check_any_batch, evaluate
from easyclf.engine.interrupts import Interruption, deferred_interrupts
from easyclf.engine.metrics import BatchResult, RunningMetrics
from easyclf.engine.objective import measure
from easyclf.engine.probing import advise_on_tokens
from easyclf.engine.step import Step
from easyclf.exceptions import TrainingDiverged
from easyclf.nested import tensors_of
from easyclf.precision import Precision
from easyclf.snapshots import Snapshot
from easyclf.state import TrainingState
from easyclf.tape.tapes import Tapes


class Trainer:
    """Trains the module of a state.

    Parameters
    ----------
    state : TrainingState
        The run.
    precision : Precision
        The precision of the arithmetic.
    callbacks : sequence of Callback
        Their hooks are called in this order.
    train, valid : Source
        What to train on, and what to measure after each epoch, if anything.
    generator : Generator or None
        What shuffles the rows; None leaves them in order.
    batch_size : int
        Rows in a training batch.
    min_rows : int
        Rows that a last batch needs, to stand alone.
    evaluation_rows : int
        Rows in a validation batch.
    accumulate : int
        Batches in a step.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.
    is_captured : bool
        Whether what comes often may be played from tapes.
    """

    def __init__(
        self,
        state: TrainingState,
        precision: Precision,
        callbacks: Sequence[Callback],
        train: Source,
        valid: Source | None,
        generator: torch.Generator | None,
        *,
        batch_size: int,
        min_rows: int,
        evaluation_rows: int,
        accumulate: int,
        clip_grad_norm: float | None,
        is_captured: bool,
    ) -> None:
        self._state = state
        self._precision = precision
        self._hooks = Hooks(callbacks)
        self._batch_size = batch_size
        self._min_rows = min_rows
        self._evaluation = Evaluation(state.module, evaluation_rows)
        self._accumulate = accumulate
        self._train, self._valid, self._generator = train, valid, generator
        # Who looks at single steps is shown each of them.
        watched = self._hooks.may_change("on_batch_begin", "on_batch_end")
        self._may_change = watched or self._hooks.may_change("on_epoch_begin", "on_epoch_end")
        n_epochs = state.epochs - state.epoch if is_captured else 0
        n_steps = 0 if watched else n_epochs * (state.steps_per_epoch or 0)
        self._step = Step(state, precision, clip_grad_norm, n_steps=n_steps)
        n_batches = None if valid is None else valid.n_batches(evaluation_rows)
        n_validations = n_epochs * (n_batches or 0)
        self._tapes = Tapes(state.module, state.head, mode=False, n_calls=n_validations)

    def fit(self) -> None:
        """Run the epochs that are planned, or until a callback asks to stop.

        Raises
        ------
        TrainingDiverged
            If a loss or a weight stops being finite; the last finite weights are put back.
        KeyboardInterrupt
            Between two batches, if Ctrl-C was pressed.
        """
        state, hooks = self._state, self._hooks
        finite = Snapshot(state.module)
        try:
            with deferred_interrupts() as interruption:
                hooks.call("on_train_begin", state)
                while state.epoch < state.epochs and state.stop_reason is None:
                    state.epoch += 1
                    self._run_epoch(finite, interruption)
                hooks.call("on_train_end", state)
        finally:
            state.module.eval()
            hooks.close(state)

    def _run_epoch(self, finite: Snapshot, interruption: Interruption) -> None:
        state, began = self._state, time.perf_counter()
        self._hooks.call("on_epoch_begin", state)
        if self._may_change:
            state.module.train()
            self._step.check()
        lr = float(state.optimizer.param_groups[0]["lr"])
        metrics = self._train_epoch(interruption)
        self._step.show_gradients()
        logs = metrics.read()
        if not math.isfinite(logs["loss"]) or not finite.is_live_finite():
            finite.restore()
            # Its averages of the gradients are no longer finite either.
            state.optimizer.state.clear()
            self._raise_diverged(metrics, lr)
        finite.take()
        if self._valid is not None:
            if self._may_change:
                state.module.eval()
                self._tapes.check()
            measured = evaluate(self._valid, self._evaluation, self._validate)
            logs |= {f"val_{name}": value for name, value in measured.items()}
        logs |= {"lr": lr, "seconds": time.perf_counter() - began}
        state.logs = logs
        state.history.append({"epoch": state.epoch, **logs})
        if self._may_change:
            state.module.eval()
        self._hooks.call("on_epoch_end", state)
        state.history.add_to_last(state.logs)
        interruption.check()

    def _train_epoch(self, interruption: Interruption) -> RunningMetrics:
        state, hooks = self._state, self._hooks
        watched = hooks.has("on_batch_begin", "on_batch_end")
        metrics = RunningMetrics()
        batches = self._train.batches(self._batch_size, self._generator, self._min_rows)
        for state.batch, group in enumerate(_groups(batches, self._accumulate), start=1):
            if watched:
                hooks.call("on_batch_begin", state)
            try:
                measured = self._step(group)
            except Exception as error:
                if is_out_of_memory(error):
                    raise self._too_large(group[0]) from error
                note = (
                    f"In epoch {state.epoch}, step {state.batch}, on a batch of shape "
                    f"{group[0].shape}."
                )
                error.add_note(note + advise_on_tokens(state.module, group[0].x, error))
                raise
            for one in measured:
                metrics.add(one)
            state.step += 1
            if watched:
                last = measured[-1]
                state.logs = {"loss": last.loss, "accuracy": last.hits / last.weight}
                hooks.call("on_batch_end", state)
                if state.stop_reason is not None:
                    break
            interruption.check()
        check_any_batch(metrics)
        return metrics

    def _validate(self, batch: Batch) -> BatchResult:
        tape = self._tapes.get(batch, self._measure)
        return BatchResult(*(self._measure(batch) if tape is None else tape(*batch)))

    @torch.inference_mode()
    def _measure(self, batch: Batch) -> tuple[Any, ...]:
        state = self._state
        return tuple(measure(state.forward, state.head, self._precision, batch))

    def _too_large(self, batch: Batch) -> MemoryError:
        """The error that says how many rows there is memory for."""
        n_rows = batch.n_rows
        fitting = n_rows // 2
        while fitting:
            try:
                self._step.differentiate(batch.rows(0, fitting))
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            fitting //= 2
        advice = "no smaller one fits either: use a smaller module"
        if fitting:
            groups = self._accumulate * math.ceil(n_rows / fitting)
            advice = (
                f"{fitting} fit: use batch_size={fitting}, with accumulate={groups} for steps over "
                "as many rows"
            )
        return MemoryError(
            f"A training batch of shape {batch.shape} does not fit into the memory of "
            f"{tensors_of(batch.x)[0].device}; {advice}."
        )

    def _raise_diverged(self, metrics: RunningMetrics, lr: float) -> NoReturn:
        state = self._state
        batch, loss = metrics.first_not_finite() or (metrics.n_batches, None)
        what = "the weights are no longer finite" if loss is None else f"the loss became {loss}"
        kept = f"epoch {state.epoch - 1}" if len(state.history) else "the start"
        raise TrainingDiverged(
            f"Training diverged: {what} in epoch {state.epoch}, batch {batch}, with lr={lr:g}. The "
            f"estimator keeps the weights of {kept}. Use a smaller `lr`, scale the inputs, or set "
            "`clip_grad_norm`."
        )


def _groups(batches: Iterator[Batch], size: int) -> Iterator[tuple[Batch, ...]]:
    return iter(lambda: tuple(islice(batches, size)), ())
