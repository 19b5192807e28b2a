"""A run, put together from parameters and rows: module, head, optimizer, sources and trainer."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from easyclf.callbacks.base import Callback
from easyclf.data import InputFormat, Rows, RowSchema
from easyclf.device import resolve_device
from easyclf.engine.fitted import Fitted
from easyclf.engine.probing import Probe, check_augmentation, find_input_format
from easyclf.engine.trainer import Trainer
from easyclf.exceptions import TrainingDiverged
from easyclf.heads import Head, build_head
from easyclf.history import History
from easyclf.mlp import MLP
from easyclf.modules import build_module, freeze
from easyclf.nested import apply, first_of, tensors_of
from easyclf.optimizers import build_optimizer, continue_from
from easyclf.parameters import forwarded
from easyclf.precision import resolve_precision
from easyclf.randomness import isolated, seed_after
from easyclf.state import TrainingState
from easyclf.targets import TargetEncoder, class_weights

_PROBED_ROWS = 3
_MEASURED = ("loss", "accuracy")


class PreviousFit(NamedTuple):
    """What a continued run goes on from."""

    fitted: Fitted
    module: nn.Module
    optimizer: torch.optim.Optimizer
    history: History


class Outcome(NamedTuple):
    """A run that is over, and what cut it short, if anything did."""

    state: TrainingState
    fitted: Fitted
    interruption: BaseException | None


def run(
    parameters: Mapping[str, Any],
    train: Rows,
    valid: Rows | None,
    schema: RowSchema,
    encoder: TargetEncoder,
    callbacks: Sequence[Callback],
    *,
    epochs: int,
    seed: int,
    earlier: PreviousFit | None,
) -> Outcome:
    """Train on rows.

    Parameters
    ----------
    parameters : mapping
        The parameters of the estimator, `module__*` and its kin included.
    train, valid : Rows
        The rows to train on, and to measure after each epoch.
    schema : RowSchema
        What they look like.
    encoder : TargetEncoder
        The classes.
    callbacks : sequence of Callback
        Their hooks are called in this order.
    epochs : int
        Epochs to run.
    seed : int
        The seed of the whole run, of which earlier epochs are a part.
    earlier : PreviousFit or None
        What to go on from; it is left as it is.
    """
    device = resolve_device(parameters["device"])
    precision = resolve_precision(parameters["precision"], device)
    history = History() if earlier is None else copy.copy(earlier.history)
    run_seed = seed_after(seed, len(history))
    interruption: BaseException | None = None
    with isolated(run_seed, device), torch.enable_grad(), ExitStack() as stack:
        asked_format = InputFormat.of_transforms(
            device,
            precision.dtype,
            preprocess=parameters["preprocess"],
            augment=parameters["augment"],
        )
        # Not as many rows as columns, lest one be taken for the other.
        n_probed = _PROBED_ROWS + (len(encoder.classes_) == _PROBED_ROWS)
        rows = apply(lambda one: one.to(device), train.first(n_probed))
        shape = asked_format.row_shape(rows)
        module = _make_module(parameters, shape, len(encoder.classes_), earlier)
        module.to(device, precision.dtype)
        if earlier is not None:
            for name in earlier.fitted.frozen:
                module.get_parameter(name).requires_grad_(True)
        frozen = freeze(module, parameters["freeze"])
        batch_size = train.training_batch_size(parameters["batch_size"])
        min_rows = _fewest_rows(module, batch_size, train.n_rows)
        seen, input_format, row_numbers = find_input_format(module, rows, asked_format, batch_size)
        training_format = dataclasses.replace(input_format, augment=asked_format.augment)
        head = _read_head(module, seen, len(tensors_of(rows)[0]), parameters, train, valid, encoder)
        head.to(device, precision.dtype)
        if training_format.augment is not None:
            check_augmentation(head, training_format, rows, is_weighted=train.is_weighted)
        fitted = Fitted(head, encoder, precision, input_format, schema, row_numbers, frozen, seed)
        train_source = stack.enter_context(fitted.source(train, training_format, is_kept=True))
        valid_source = None
        if valid is not None:
            valid_source = stack.enter_context(fitted.source(valid, is_kept=True))
        if isinstance(module, MLP) and not module.is_adapted:
            with fitted.source(train) as plain_source:
                batches = plain_source.batches(fitted.evaluation_rows)
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
        trainer = Trainer(
            state,
            precision,
            callbacks,
            train_source,
            valid_source,
            seed,
            bool(parameters["shuffle"]),
            batch_size=batch_size,
            min_rows=min_rows,
            evaluation_rows=fitted.evaluation_rows,
            accumulate=parameters["accumulate"],
            clip_grad_norm=parameters["clip_grad_norm"],
            is_captured=parameters["compile"] == "auto",
        )
        try:
            trainer.fit()
        except (KeyboardInterrupt, TrainingDiverged) as error:
            interruption = error
    return Outcome(state, fitted, interruption)


def _make_module(
    parameters: Mapping[str, Any],
    shape: Any,
    n_outputs: int,
    earlier: PreviousFit | None,
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
