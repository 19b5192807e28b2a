"""The loop: epochs over a source, each with its validation."""

from __future__ import annotations

import functools
import math
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from easyclf.callbacks import Callback, Hooks
from easyclf.data import Batch, Order, Source
from easyclf.device import is_out_of_memory
from easyclf.engine.evaluation import Evaluation, Score, check_any_batch, evaluate
from easyclf.engine.failures import diverged, too_large
from easyclf.engine.interrupts import Interruption, deferred_interrupts
from easyclf.engine.metrics import BatchResult, RunningMetrics
from easyclf.engine.objective import Objective
from easyclf.engine.probing import advise_on_tokens
from easyclf.engine.resuming import Resumption
from easyclf.engine.step import Step
from easyclf.precision import Precision
from easyclf.randomness import epoch_seed, seed_generators
from easyclf.snapshots import Snapshot
from easyclf.state import TrainingState
from easyclf.tape import Graphs, Tapes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the epochs are run.

    Attributes
    ----------
    batch_size : int
        Rows in a training batch.
    min_rows : int
        Rows that a last batch needs to stand alone.
    evaluation_rows : int
        Rows in a validation batch.
    accumulate : int
        Batches in a step.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.
    is_shuffled : bool
        Whether each epoch draws the rows in a new order.
    seed : int
        The seed of the whole training, of which each epoch's follows.
    uses_tapes : bool
        Whether what comes often may be played from tapes.
    runs_user_code : bool
        Whether code of users makes the batches, which may change the module.
    score : callable or None
        It makes the figures of `metrics=` from the outputs of an epoch.
    graphs : Graphs or None
        Where the user wants steps that the device takes by itself.
    """

    batch_size: int
    min_rows: int
    evaluation_rows: int
    accumulate: int
    clip_grad_norm: float | None
    is_shuffled: bool
    seed: int
    uses_tapes: bool
    runs_user_code: bool
    score: Score | None = None
    graphs: Graphs | None = None


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
    train : Source
        The batches to train on.
    valid : Source or None
        The batches to measure after each epoch, if any.
    plan : Plan
        How the epochs are run.
    resumption : Resumption
        Where they begin, and where they are kept.
    """

    def __init__(
        self,
        state: TrainingState,
        precision: Precision,
        callbacks: Sequence[Callback],
        train: Source,
        valid: Source | None,
        plan: Plan,
        resumption: Resumption,
    ) -> None:
        self._state, self._plan, self._resumption = state, plan, resumption
        self._precision = precision
        self._train, self._valid = train, valid
        state.batches = functools.partial(train.batches, plan.batch_size, min_rows=plan.min_rows)
        self._hooks = hooks = Hooks(callbacks)
        objective = Objective(state.head, precision, keeps_outputs=plan.score is not None)
        # A function that does not hold the trainer: else only the garbage collector would free it.
        self._measure = functools.partial(_measure, state, objective)
        self._evaluation = Evaluation(state.module, plan.evaluation_rows)
        self._device = next(state.module.parameters()).device
        # A callback that looks at every step with the weights in its hands is shown each of them.
        changes_steps = hooks.may_change("on_batch_begin", "on_batch_end")
        self._may_change = changes_steps or hooks.may_change("on_epoch_begin", "on_epoch_end")
        is_torchs = type(state.optimizer) in vars(torch.optim).values()
        is_exposed = plan.runs_user_code or hooks.run_user_code_in_steps or not is_torchs
        # Whether anybody may look at gradients.
        self._is_watched = is_exposed or self._may_change or hooks.run_user_code
        n_epochs = state.epochs - state.epoch
        is_alone = plan.accumulate == 1 and not changes_steps
        n_steps = n_epochs * (state.steps_per_epoch or 0) if is_alone else 0
        n_batches = None if valid is None else valid.n_batches(plan.evaluation_rows)
        self._tapes = tapes = Tapes(
            state.module,
            state.head,
            is_on=plan.uses_tapes,
            is_exposed=is_exposed,
            graphs=plan.graphs,
        )
        self._step = Step(state, objective, plan.clip_grad_norm, tapes, n_steps=n_steps)
        self._player = tapes.of(
            self._measure,
            training=False,
            n_calls=n_epochs * (n_batches or 0),
        )

    def fit(self) -> None:
        """Run the epochs that are planned, or until a callback asks to stop.

        Raises
        ------
        TrainingDiverged
            If a loss or a weight stops being finite; the last finite weights are put back.
        KeyboardInterrupt
            Between two batches, if Ctrl-C was pressed.
        MemoryError
            If a batch does not fit into memory.
        TapeDiffers
            If a recording does not do what the module does.
        """
        state, hooks = self._state, self._hooks
        try:
            with deferred_interrupts(is_kept=self._resumption.is_on) as interruption:
                hooks.call("on_train_begin", state)
                self._resumption.begin(state, self._precision, self._train, self._tapes)
                finite = Snapshot(state.module)
                while state.epoch < state.epochs and state.stop_reason is None:
                    state.epoch += 1
                    self._run_epoch(finite, interruption)
                hooks.call("on_train_end", state)
            if self._plan.graphs is not None:
                self._plan.graphs.report()
        finally:
            if state.put_in is not None:
                state.put_in(False)
            state.module.eval()
            hooks.close(state)
            # As much memory as the weights take.
            self._step.drop_gradients()

    def _run_epoch(self, finite: Snapshot, interruption: Interruption) -> None:
        state, began = self._state, time.perf_counter()
        seed = epoch_seed(self._plan.seed, state.epoch)
        seed_generators(seed, self._device)
        self._hooks.call("on_epoch_begin", state)
        if self._may_change:
            state.module.train()
        self._step.check(is_exposed=self._may_change or self._hooks.run_user_code)
        metrics = self._train_epoch(Order(seed, self._plan.is_shuffled), interruption)
        if self._is_watched:
            self._step.show_gradients()
        logs = metrics.read()
        if not (math.isfinite(logs["loss"]) and finite.take_finite()):
            finite.restore()
            # Its averages of the gradients are no longer finite either.
            state.optimizer.state.clear()
            # Nor are averages of the weights.
            state.put_in = None
            if not metrics.loss_weight:
                raise ValueError(
                    "`class_weight` leaves every row without weight; give rows of other classes."
                )
            raise diverged(state, metrics, state.batches() if self._train.can_begin_again else ())
        if self._plan.score is not None:
            logs |= self._plan.score(metrics.answered())
            self._tapes.expose()
        if state.put_in is not None:
            state.put_in(True)
        logs |= self._validate()
        logs |= {"lr": float(state.lr), "seconds": time.perf_counter() - began}
        state.logs = logs
        state.history.append({"epoch": state.epoch, **logs})
        if self._may_change:
            state.module.eval()
        state.is_cut = state.stop_reason is not None
        self._hooks.call("on_epoch_end", state)
        state.history.add_to_last(state.logs)
        is_last = state.epoch >= state.epochs or state.stop_reason is not None
        if state.take_out is not None and not is_last:
            state.take_out()
        self._resumption.keep(finite, is_last=is_last)
        interruption.check()

    def _train_epoch(self, order: Order, interruption: Interruption) -> RunningMetrics:
        state, plan = self._state, self._plan
        begins, ends = self._hooks.has("on_batch_begin"), self._hooks.has("on_batch_end")
        metrics = RunningMetrics()
        batches = self._train.batches(plan.batch_size, order, plan.min_rows)
        state.batch = 0
        for group in self._groups(batches):
            state.batch += 1
            if begins:
                self._hooks.call("on_batch_begin", state)
            results = self._take_step(group)
            for batch, result in zip(group, results, strict=True):
                metrics.add(result, batch)
            # Before a callback sets the rate of the next step.
            state.note_step()
            if ends:
                last = results[-1]
                state.logs = {"loss": last.loss, "accuracy": last.hits / last.weight}
                self._hooks.call("on_batch_end", state)
            if state.stop_reason is not None:
                break
            interruption.check()
        check_any_batch(metrics)
        return metrics

    def _groups(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, ...]]:
        """Yield the batches of one step each."""
        while True:
            try:
                # `itertools.batched` came with Python 3.12.
                group = tuple(islice(batches, self._plan.accumulate))
            except Exception as error:
                # A `MemoryError` is the host's: of a dataset, say.
                if isinstance(error, MemoryError) or not is_out_of_memory(error):
                    raise
                raise MemoryError(
                    f"There was no memory on {self._device} to make a training batch of up to "
                    f"{self._plan.batch_size} rows there; use a smaller `batch_size`."
                ) from error
            if not group:
                return
            yield group

    def _take_step(self, group: tuple[Batch, ...]) -> list[BatchResult]:
        """Take a step; an error says on which batch."""
        state, batch = self._state, group[0]
        try:
            return self._step(group)
        except Exception as error:
            if is_out_of_memory(error):
                # Its frames hold what the step had computed so far.
                traceback.clear_frames(error.__traceback__)
                raise too_large(self._step, batch, self._plan.accumulate) from error
            note = f"In epoch {state.epoch}, step {state.batch}, on a batch of shape {batch.shape}."
            error.add_note(note + advise_on_tokens(state.module, batch.x, error))
            raise

    def _validate(self) -> dict[str, float]:
        """The figures of the validation rows, named as such; none without such rows."""
        if self._valid is None:
            return {}
        if self._may_change:
            self._state.module.eval()
            self._tapes.check()
        figures = evaluate(self._valid, self._evaluation, self._measure_or_play, self._plan.score)
        return {f"val_{name}": value for name, value in figures.items()}

    def _measure_or_play(self, batch: Batch) -> BatchResult:
        state = self._state
        played = self._player.play(batch) if state.forward is state.module else None
        if played is None:
            if state.module.training:
                state.module.eval()
            played = self._measure(batch)
        return BatchResult(*played)


@torch.inference_mode()
def _measure(
    state: TrainingState, objective: Objective, batch: Batch
) -> tuple[torch.Tensor | float | None, ...]:
    return tuple(objective(state.forward, batch))
