"""A run, put together from parameters and rows: module, head, optimizer, sources and trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from easyclf.callbacks import Callback
from easyclf.data import (
    Augmentation,
    Batch,
    Placement,
    Preprocessing,
    Rows,
    Source,
    first_of,
    is_loader,
    is_vision,
)
from easyclf.device import resolve_device
from easyclf.evaluation import Evaluation, evaluate, measure, predict_outputs
from easyclf.heads import Head, build_head
from easyclf.history import History
from easyclf.inputs import Layout
from easyclf.metrics import Measured
from easyclf.modules import (
    MLP,
    Probe,
    apply,
    build_module,
    freeze,
    tensors_of,
)
from easyclf.optimizers import build_optimizer, continue_from
from easyclf.parameters import forwarded
from easyclf.precision import Precision, resolve_precision
from easyclf.probing import check_augmentation, find_placement, row_shape
from easyclf.randomness import isolated, seed_after
from easyclf.state import TrainingState
from easyclf.targets import TargetEncoder, class_weights
from easyclf.trainer import Trainer, TrainingDiverged

# Numbers in an evaluation batch: its rows are as many as hold about this many.
_EVALUATION_NUMBERS = 2**20
_PROBED_ROWS = 3
# Rows in a batch of a stream that does not say how many it has.
_STREAMED_ROWS = 128
_MEASURED = ("loss", "accuracy")


class Learned(NamedTuple):
    """What prediction and a continued run need beside the module.

    Attributes
    ----------
    head : Head
        The meaning of the outputs.
    encoder : TargetEncoder
        The classes.
    precision : Precision
        The precision of the arithmetic.
    placement : Placement
        Where and as what the module wants its inputs.
    layout : Layout
        What rows look like.
    row_numbers : int
        Numbers in a row, as the module gets it.
    frozen : list of str
        Names of the weights that `freeze` kept as they were.
    seed : int
        The seed of the whole run.
    """

    head: Head
    encoder: TargetEncoder
    precision: Precision
    placement: Placement
    layout: Layout
    row_numbers: int
    frozen: list[str]
    seed: int

    @property
    def evaluation_rows(self) -> int:
        """Rows in a batch of validation or prediction."""
        return max(64, _EVALUATION_NUMBERS // self.row_numbers)

    def source(
        self, rows: Rows, *, is_kept: bool = False, augment: Augmentation | None = None
    ) -> Source:
        """Batches of rows with their targets."""
        return rows.source(
            self.placement._replace(augment=augment),
            self.head.targets,
            self.encoder.transform_tensor,
            seed=self.seed,
            is_kept=is_kept,
        )

    def outputs(self, module: nn.Module, rows: Rows) -> torch.Tensor:
        """The raw outputs for all rows, in order."""
        with (
            isolated(self.seed, self.placement.device, waits=False),
            rows.source(self.placement, seed=self.seed) as source,
        ):
            outputs = predict_outputs(
                module.eval(), self.head, self.precision, source, self.evaluation_rows
            )
        if outputs.isnan().any():
            row = int(outputs.isnan().flatten(1).any(1).to(torch.uint8).argmax())
            raise ValueError(
                f"{type(module).__name__} answered NaN, first in row {row} of X; look at that row, "
                "at `preprocess`, and at the weights of the module."
            )
        return outputs

    def evaluate(self, module: nn.Module, rows: Rows) -> dict[str, float]:
        """The exact `loss` and `accuracy`."""
        module.eval()

        @torch.inference_mode()
        def measure_batch(batch: Batch) -> Measured:
            return measure(module, self.head, self.precision, batch)

        with (
            isolated(self.seed, self.placement.device, waits=False),
            self.source(rows) as source,
        ):
            return evaluate(source, Evaluation(module, self.evaluation_rows), measure_batch)

    def on_cpu(self) -> Learned:
        """A copy for a machine without the accelerator."""
        cpu, dtype, preprocess = (
            torch.device("cpu"),
            self.precision.dtype,
            self.placement.preprocess,
        )
        if isinstance(preprocess, Preprocessing):
            preprocess = preprocess.to(cpu)
        return self._replace(
            head=copy.deepcopy(self.head).to(cpu, dtype),
            precision=Precision(dtype),
            placement=self.placement._replace(device=cpu, preprocess=preprocess),
        )


class Earlier(NamedTuple):
    """What a continued run goes on from."""

    learned: Learned
    module: nn.Module
    optimizer: torch.optim.Optimizer
    history: History


class Outcome(NamedTuple):
    """A run that is over, and what cut it short, if anything did."""

    state: TrainingState
    learned: Learned
    interruption: BaseException | None


def run(
    parameters: Mapping[str, Any],
    train: Rows,
    valid: Rows | None,
    layout: Layout,
    encoder: TargetEncoder,
    callbacks: Sequence[Callback],
    *,
    epochs: int,
    seed: int,
    earlier: Earlier | None,
) -> Outcome:
    """Train on rows.

    Parameters
    ----------
    parameters : mapping
        The parameters of the estimator, `module__*` and its kin included.
    train, valid : Rows
        The rows to train on, and to measure after each epoch.
    layout : Layout
        What they look like.
    encoder : TargetEncoder
        The classes.
    callbacks : sequence of Callback
        Their hooks are called in this order.
    epochs : int
        Epochs to run.
    seed : int
        The seed of the whole run, of which earlier epochs are a part.
    earlier : Earlier or None
        What to go on from; it is left as it is.
    """
    device = resolve_device(parameters["device"])
    precision = resolve_precision(parameters["precision"], device)
    history = History() if earlier is None else copy.copy(earlier.history)
    run_seed = seed_after(seed, len(history))
    interruption: BaseException | None = None
    with isolated(run_seed, device), torch.enable_grad(), ExitStack() as stack:
        preprocess, augment = parameters["preprocess"], parameters["augment"]
        placement = Placement(
            device,
            precision.dtype,
            weight_dtype=precision.dtype,
            preprocess=None if preprocess is None else Preprocessing(preprocess, device),
        )
        augmentation = None if augment is None else Augmentation(augment, device)
        # Not as many rows as columns, lest one be taken for the other.
        n_probed = _PROBED_ROWS + (len(encoder.classes_) == _PROBED_ROWS)
        rows = apply(lambda one: one.to(device), train.first(n_probed))
        vision = any(is_vision(one) for one in (augment, preprocess) if one is not None)
        shape = row_shape(rows, placement, is_vision=vision)
        module = _make_module(parameters, shape, len(encoder.classes_), earlier)
        module.to(device, precision.dtype)
        if earlier is not None:
            for name in earlier.learned.frozen:
                module.get_parameter(name).requires_grad_(True)
        frozen = freeze(module, parameters["freeze"])
        batch_size = _batch_size(parameters["batch_size"], train)
        min_rows = _fewest_rows(module, batch_size, train.n_rows)
        seen, placement, row_numbers = find_placement(
            module,
            rows,
            placement,
            batch_size,
            is_vision=vision,
        )
        head = _read_head(module, seen, len(tensors_of(rows)[0]), parameters, train, valid, encoder)
        head.to(device, precision.dtype)
        if augmentation is not None:
            check_augmentation(augmentation, head, placement, rows, is_weighted=train.is_weighted)
        learned = Learned(head, encoder, precision, placement, layout, row_numbers, frozen, seed)
        train_source = stack.enter_context(
            learned.source(train, is_kept=True, augment=augmentation)
        )
        valid_source = None
        if valid is not None:
            valid_source = stack.enter_context(learned.source(valid, is_kept=True))
        if isinstance(module, MLP) and not module.is_adapted:
            with learned.source(train) as plain_source:
                batches = plain_source.batches(learned.evaluation_rows)
                module.adapt((first_of(batch.x), batch.weight) for batch in batches)
        optimizer = build_optimizer(
            parameters["optimizer"], module, parameters["lr"], forwarded(parameters, "optimizer")
        )
        if earlier is not None:
            continue_from(optimizer, module, earlier.optimizer, earlier.module)
        n_batches = train_source.n_batches(batch_size, min_rows)
        validated = tuple(f"val_{name}" for name in _MEASURED) if valid is not None else ()
        state = TrainingState(
            module,
            optimizer,
            head,
            history,
            (*_MEASURED, *validated, "lr", "seconds"),
            epoch=len(history),
            epochs=len(history) + epochs,
            steps_per_epoch=n_batches and math.ceil(n_batches / parameters["accumulate"]),
        )
        if parameters["compile"] is True:
            state.forward = torch.compile(module)
        shuffles = torch.Generator("cpu").manual_seed(run_seed) if parameters["shuffle"] else None
        trainer = Trainer(
            state,
            precision,
            callbacks,
            train_source,
            valid_source,
            shuffles,
            batch_size=batch_size,
            min_rows=min_rows,
            evaluation_rows=learned.evaluation_rows,
            accumulate=parameters["accumulate"],
            clip_grad_norm=parameters["clip_grad_norm"],
            is_captured=parameters["compile"] == "auto",
        )
        try:
            trainer.fit()
        except (KeyboardInterrupt, TrainingDiverged) as error:
            interruption = error
    return Outcome(state, learned, interruption)


def _make_module(
    parameters: Mapping[str, Any],
    shape: Any,
    n_outputs: int,
    earlier: Earlier | None,
) -> nn.Module:
    if earlier is not None:
        return copy.deepcopy(earlier.module)
    keywords = forwarded(parameters, "module")
    return build_module(parameters["module"], keywords, shape, n_outputs)


def _read_head(
    module: nn.Module,
    seen: Probe,
    n_rows: int,
    parameters: Mapping[str, Any],
    train: Rows,
    valid: Rows | None,
    encoder: TargetEncoder,
) -> Head:
    """Find out what the outputs of the module mean."""
    return build_head(
        (seen.output, seen.evaluated),
        type(module).__name__,
        n_rows,
        encoder.classes_,
        is_multilabel=encoder.is_multilabel,
        loss=parameters["loss"],
        keywords=forwarded(parameters, "loss"),
        class_weight=class_weights(parameters["class_weight"], encoder, train.codes),
        is_weighted=train.is_weighted or (valid is not None and valid.is_weighted),
    )


def _batch_size(batch_size: int | str, train: Rows) -> int:
    """Rows in a training batch.

    "auto" makes fifty steps an epoch, in batches of 32 to 512 rows; up to 64 rows are one batch.
    """
    n_rows = train.n_rows
    if is_loader(train):
        if batch_size != "auto":
            raise ValueError(
                f"`batch_size` is {batch_size!r}, but X is a DataLoader, which has its own; leave "
                "`batch_size` out."
            )
        return train.x.batch_size or n_rows or _STREAMED_ROWS
    if n_rows is None:
        if batch_size == -1:
            raise ValueError(
                f"`batch_size` is -1, all rows, but X is a {type(train.x).__name__}, which does "
                "not say how many there are; give a number."
            )
        return _STREAMED_ROWS if isinstance(batch_size, str) else int(batch_size)
    if isinstance(batch_size, str):
        return n_rows if n_rows <= 64 else min(max(n_rows // 50, 32), 512)
    return n_rows if batch_size == -1 else min(int(batch_size), n_rows)


def _fewest_rows(module: nn.Module, batch_size: int, n_rows: int | None) -> int:
    """Rows that a last batch needs to stand alone: else it joins the one before it.

    Batch normalization cannot take the deviation of one row.
    """
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
        return 1
    if n_rows == 1 or (batch_size == 1 and (n_rows is None or n_rows > 2)):
        raise ValueError(
            f"{type(module).__name__} has batch normalization, which needs at least 2 rows in a "
            f"batch; got {n_rows} row(s) and `batch_size` {batch_size}."
        )
    return 2
