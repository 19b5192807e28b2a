"""A fit, put together one verb at a time."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from easyclf.callbacks import Callback, keeping_others_out
from easyclf.checks import warn_user
from easyclf.data import BoundedSource, InputFormat, Reader, Rows, Source, check_validation
from easyclf.determinism import deterministic_algorithms
from easyclf.device import HOST, resolve_device, to_device
from easyclf.engine.compiled import CompiledForward
from easyclf.engine.fitted import Fitted
from easyclf.engine.given import Given
from easyclf.engine.identity import note_of
from easyclf.engine.interrupts import ending_the_process
from easyclf.engine.probing import (
    ProbedModule,
    check_augmentation,
    fewest_rows,
    probe_module,
)
from easyclf.engine.resuming import Resumption
from easyclf.engine.trainer import Plan, Trainer
from easyclf.exceptions import TapeDiffers
from easyclf.heads import Head, build_head
from easyclf.history import History
from easyclf.losses import LossLike
from easyclf.metrics import Metrics
from easyclf.mlp import MLP
from easyclf.modules import AdaptsToRows, ModuleLike, freeze
from easyclf.nested import Tensors, apply, first_of
from easyclf.optimizers import build_optimizer, continue_from
from easyclf.output_choice import OutputChoice, OutputLike
from easyclf.parameters import PREFIXES, forwarded
from easyclf.precision import resolve_precision
from easyclf.randomness import isolated, seed_generators
from easyclf.reordering import in_order_of_classes
from easyclf.snapshots import Snapshot
from easyclf.state import TrainingState
from easyclf.tape import Graphs
from easyclf.targets import TargetEncoder, class_weights
from easyclf.weights import InitialWeights

# Rows that are passed through a module to see what it makes of them.
_PROBED_ROWS = 3
_MEASURED = ("loss", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameters of an estimator that a fit needs, under their own names.

    `module_keywords` and its siblings are the user's `module__*`, `optimizer__*` and `loss__*`,
    without the prefix. `seed` is that of the whole training. `steps_per_epoch` is None where an
    epoch goes through all rows. `follows` says that these rows are but some of those that will be
    seen, so that statistics of them are to follow.
    """

    module: ModuleLike
    loss: LossLike
    optimizer: str | Callable[..., torch.optim.Optimizer]
    lr: float | Mapping[str, float]
    metrics: Metrics
    epochs: int
    batch_size: int | str
    shuffle: bool
    class_weight: Mapping[Any, float] | str | None
    preprocess: Callable[..., Any] | None
    augment: Callable[..., Any] | None
    freeze: str | Sequence[str] | None
    device: str | torch.device
    precision: str
    output: OutputLike
    compile: bool | str
    clip_grad_norm: float | None
    accumulate: int
    deterministic: bool
    seed: int
    follows: bool
    module_keywords: Mapping[str, Any]
    optimizer_keywords: Mapping[str, Any]
    loss_keywords: Mapping[str, Any]
    steps_per_epoch: int | None = None
    initial_weights: InitialWeights | None = None

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Any],
        *,
        seed: int,
        epochs: int,
        steps_per_epoch: int | None = None,
        follows: bool = False,
    ) -> Settings:
        """Take from the parameters of an estimator those that a fit needs, `metrics` read."""
        names = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in parameters.items() if name in names}
        chosen["metrics"] = Metrics("Estimator", parameters["metrics"])
        keywords = {
            f"{prefix}_keywords": forwarded(parameters, prefix)
            for prefix in PREFIXES
            if f"{prefix}_keywords" in names
        }
        of_this_fit = {
            "seed": seed,
            "epochs": epochs,
            "steps_per_epoch": steps_per_epoch,
            "follows": follows,
        }
        return cls(**{**chosen, **keywords, **of_this_fit})


class Fitting:
    """A fit, from rows to what was learned of them.

    Parameters
    ----------
    settings : Settings
        What the user asked for.
    train, valid : Rows
        The rows to train on, and to measure after each epoch, if any.
    reader : Reader
        What read them: it knows what later rows have to look like.
    encoder : TargetEncoder
        The classes.
    previous : Fitted or None
        The fit to go on from; it is left as it is.

    Attributes
    ----------
    fitted : Fitted or None
        What is learned, from the moment at which training begins: also if it is cut short.
    """

    def __init__(
        self,
        settings: Settings,
        train: Rows,
        valid: Rows | None,
        reader: Reader,
        encoder: TargetEncoder,
        previous: Fitted | None,
    ) -> None:
        self._settings, self._previous = settings, previous
        self._train, self._valid = train, valid
        if settings.steps_per_epoch is not None:
            check_validation(train, valid)
        self._reader, self._encoder = reader, encoder
        self._device = resolve_device(settings.device)
        self._graphs = None
        if settings.compile == "graph":
            self._graphs = Graphs(self._device, is_deterministic=settings.deterministic)
        self._precision = resolve_precision(settings.precision, self._device)
        self._precision.choice = OutputChoice(settings.output)
        self._given = Given(settings.module, settings.module_keywords)
        if previous is not None:
            previous.given.warn_of(self._given)
            self._given = previous.given
        self._initial: Snapshot | None = None
        self.fitted: Fitted | None = None

    @ending_the_process()
    def run(self, callbacks: Sequence[Callback]) -> Fitted:
        """Put everything together and train; hooks are called in the order of the callbacks.

        Raises
        ------
        ValueError, TypeError
            If module, loss, optimizer and rows do not go together.
        TrainingDiverged
            If a loss or a weight stops being finite.
        KeyboardInterrupt
            After a whole step, if Ctrl-C was pressed.
        MemoryError
            If a batch does not fit into memory; it says how many rows do.
        """
        settings = self._settings
        with keeping_others_out(callbacks):
            resumption = self._resumption = self._find_resumption(callbacks)
            # Their products may round otherwise, and whether they are played depends on callbacks.
            uses_tapes = settings.compile in ("auto", "graph") and not settings.deterministic
            uses_tapes &= not resumption.tapes_differ
            try:
                return self._run(callbacks, uses_tapes=uses_tapes)
            except TapeDiffers as difference:
                resumption.begin_anew()
                if self._initial is not None:
                    # Whoever makes modules for the user may give the same weights again.
                    self._initial.restore()
                name = "the module" if self.fitted is None else type(self.fitted.module).__name__
                warn_user(
                    f"A recording of {name} did not do what {name} does ({difference}); the fit "
                    "begins again without recordings. Use compile=False to save that time.",
                )
                # An interruption before training begins anew leaves nothing of this.
                self.fitted = None
            return self._run(callbacks, uses_tapes=False)

    def _run(self, callbacks: Sequence[Callback], *, uses_tapes: bool) -> Fitted:
        with (
            isolated(self._settings.seed, self._device),
            deterministic_algorithms(self._settings.deterministic),
            torch.enable_grad(),
            ExitStack() as sources,
        ):
            fitted, train_format, min_rows = self._make_fitted()
            if uses_tapes:
                self._initial = Snapshot(fitted.module)
            train = sources.enter_context(self._source(fitted, train_format))
            valid = None
            if self._valid is not None:
                valid = sources.enter_context(fitted.source(self._valid, is_kept=True))
            plan = self._plan(fitted, min_rows, uses_tapes=uses_tapes)
            state = self._make_state(fitted, train.n_batches(plan.batch_size, plan.min_rows))
            trainer = (state, self._precision, callbacks, train, valid, plan, self._resumption)
            Trainer(*trainer).fit()
        return fitted

    def _make_fitted(self) -> tuple[Fitted, InputFormat, int]:
        """What is to be trained, how its batches are made, and how few rows one may have.

        The outputs that were probed end here: they hold their graph, and with it a step would
        look as if it had hooks.
        """
        input_format, rows = self._place_rows()
        # Rows that draw when they are read change no initial weights.
        seed_generators(self._settings.seed, self._device)
        module, frozen = self._build_module(input_format, rows)
        min_rows = fewest_rows(module, self._train.n_rows, self._batch_size())
        probed = probe_module(
            module, rows, input_format, self._batch_size(), self._precision.choice
        )
        head = self._bind_head(probed, rows)
        optimizer = self._make_optimizer(module)
        assert self._reader.schema is not None
        fitted = Fitted(
            module,
            optimizer,
            History() if self._previous is None else copy.copy(self._previous.history),
            head,
            self._encoder,
            self._precision,
            probed.input_format.without_augment(),
            self._reader.schema,
            probed.row_numbers,
            frozen,
            self._settings.seed,
            self._given,
            self._reader.class_names,
        )
        self._check_metrics(fitted)
        self.fitted = fitted = self._adapted(fitted)
        train_format = replace(
            fitted.input_format,
            augment=probed.input_format.augment,
            warns_of_rounding=self._warns_of_rounding(fitted),
        )
        return fitted, train_format, min_rows

    def _find_resumption(self, callbacks: Sequence[Callback]) -> Resumption:
        """Where the run is kept, and begins; the note is what a run has to have in common."""
        settings, previous = self._settings, self._previous
        parts = (self._train, self._valid, self._encoder.classes_)
        history = History() if previous is None else previous.history
        note = functools.partial(note_of, vars(settings), self._given, *parts)
        return Resumption(callbacks, note, history, epochs=settings.epochs, seed=settings.seed)

    def _place_rows(self) -> tuple[InputFormat, Tensors]:
        """The format that probing begins with, and the first rows, of shape (n_probed, ...)."""
        input_format = InputFormat.of_transforms(
            self._device,
            self._precision.dtype,
            preprocess=self._settings.preprocess,
            augment=self._settings.augment,
        )
        # Were there as many rows as columns, an output might have them the wrong way round.
        n_classes = len(self._encoder.classes_)
        n_probed = _PROBED_ROWS + 1 if n_classes == _PROBED_ROWS else _PROBED_ROWS
        return input_format, apply(
            lambda x: to_device(x, self._device), self._train.first(n_probed)
        )

    def _build_module(
        self, input_format: InputFormat, rows: Tensors
    ) -> tuple[nn.Module, list[str]]:
        """The module on the device, and the names of the weights that are frozen now."""
        settings, previous = self._settings, self._previous
        if previous is None:
            self._given, module = self._given.built(
                input_format.row_shape(rows), len(self._encoder.classes_), settings.initial_weights
            )
        else:
            module = copy.deepcopy(previous.module)
            for name in previous.frozen:
                module.get_parameter(name).requires_grad_(True)
        module.to(self._device, self._precision.dtype)
        return module, freeze(module, settings.freeze)

    def _bind_head(self, probed: ProbedModule, rows: Tensors) -> Head:
        """Read what the outputs of the module mean, and choose or check the loss."""
        settings, train, valid = self._settings, self._train, self._valid
        head = build_head(
            probed.outputs,
            self._encoder.classes_,
            is_multilabel=self._encoder.is_multilabel,
            loss=settings.loss,
            keywords=settings.loss_keywords,
            class_weight=class_weights(settings.class_weight, self._encoder, train.codes),
            is_weighted=train.is_weighted or (valid is not None and valid.is_weighted),
        )
        head = in_order_of_classes(head, self._encoder).to(self._device, self._precision.dtype)
        check_augmentation(head, probed.input_format, rows, is_weighted=train.is_weighted)
        return head

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        settings, previous = self._settings, self._previous
        optimizer = build_optimizer(
            settings.optimizer, module, settings.lr, settings.optimizer_keywords
        )
        if previous is not None:
            continue_from(optimizer, module, previous.optimizer, previous.module)
        return optimizer

    def _check_metrics(self, fitted: Fitted) -> None:
        """Refuse metrics that the labels make impossible; the history knows their names."""
        metrics = self._settings.metrics
        fitted.history.metrics = metrics.names
        for part, rows in (("training", self._train), ("validation", self._valid)):
            if rows is not None:
                metrics.check(part, self._encoder, rows.codes, rows.weight)

    def _adapted(self, fitted: Fitted) -> Fitted:
        """Show the training rows to a module that wants their statistics.

        Those of the default module follow where some of the rows come after others.
        """
        module, input_format = fitted.module, fitted.input_format
        if not isinstance(module, AdaptsToRows):
            return fitted
        is_mlp = isinstance(module, MLP)
        if is_mlp:
            # In double precision, which not every device has.
            input_format = replace(input_format.on(HOST), dtype=torch.float64)
        if not module.is_adapted or (is_mlp and self._settings.follows and self._train.can_repeat):
            n_rows, n_batches = fitted.evaluation_rows, None
            if self._epoch_batches is not None and self._train.n_rows is None:
                # Of a stream that may never end: as many rows as the first epoch has.
                n_rows, n_batches = self._batch_size(), self._epoch_batches
            with fitted.source(self._train, input_format) as source:
                batches = islice(source.batches(n_rows), n_batches)
                module.adapt((first_of(batch.x), batch.weight) for batch in batches)
        return fitted.centred_by(module) if isinstance(module, MLP) else fitted

    def _warns_of_rounding(self, fitted: Fitted) -> bool:
        """Whether a first fit casts rows as they are, and not as `MLP` or the user wants them."""
        is_first = self._previous is None
        return is_first and fitted.input_format.is_plain and not isinstance(fitted.module, MLP)

    def _source(self, fitted: Fitted, input_format: InputFormat) -> Source:
        """The batches to train on, cut into epochs as the user wants them."""
        source, steps = fitted.source(self._train, input_format, is_kept=True), self._epoch_batches
        if steps is None:
            return source
        return BoundedSource(source, steps, self._settings.seed, len(fitted.history))

    @property
    def _epoch_batches(self) -> int | None:
        """The number of batches that the user wants in an epoch; None is all."""
        steps = self._settings.steps_per_epoch
        return steps and steps * self._settings.accumulate

    def _plan(self, fitted: Fitted, min_rows: int, *, uses_tapes: bool) -> Plan:
        settings = self._settings
        return Plan(
            batch_size=self._batch_size(),
            min_rows=min_rows,
            evaluation_rows=fitted.evaluation_rows,
            accumulate=settings.accumulate,
            clip_grad_norm=settings.clip_grad_norm,
            is_shuffled=settings.shuffle,
            seed=settings.seed,
            # A difference that a tape makes is mended by another fit over the same rows.
            uses_tapes=uses_tapes
            and not self._precision.choice.runs_user_code
            and self._train.can_repeat
            and (self._valid is None or self._valid.can_repeat),
            runs_user_code=self._runs_user_code(),
            score=fitted.scores(settings.metrics),
            graphs=self._graphs if uses_tapes else None,
        )

    def _make_state(self, fitted: Fitted, n_batches: int | None) -> TrainingState:
        history, settings = fitted.history, self._settings
        measured = (*_MEASURED, *settings.metrics.names)
        validated = [] if self._valid is None else [f"val_{name}" for name in measured]
        state = TrainingState(
            fitted.module,
            fitted.optimizer,
            fitted.head,
            history,
            (*measured, *validated, "lr", "seconds"),
            epoch=len(history),
            epochs=len(history) + settings.epochs,
            steps_per_epoch=n_batches and math.ceil(n_batches / settings.accumulate),
        )
        if settings.compile is True:
            state.forward = CompiledForward(fitted.module)
        return state

    def _runs_user_code(self) -> bool:
        """Whether code of users makes batches, of the training or of the validation."""
        settings = self._settings
        return (
            self._train.runs_user_code
            or (self._valid is not None and self._valid.runs_user_code)
            or settings.augment is not None
            or settings.preprocess is not None
        )

    def _batch_size(self) -> int:
        return self._train.training_batch_size(self._settings.batch_size)
