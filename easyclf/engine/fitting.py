"""A run, put together from parameters and rows: module, head, optimizer, sources and trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from easyclf.callbacks.base import Callback
from easyclf.data import Augmentation, InputFormat, Preprocessing, Rows, is_loader, is_vision
from easyclf.data.reader import RowSchema
from easyclf.device import resolve_device
from easyclf.engine.fitted import Fitted
from easyclf.engine.probing import Probe, check_augmentation, find_input_format, row_shape
from easyclf.engine.trainer import Trainer
from easyclf.exceptions import TrainingDiverged
from easyclf.heads import Head, ProbedOutputs, build_head
from easyclf.history import History
from easyclf.modules import AdaptsToRows, build_module, freeze
from easyclf.nested import apply, first_of, tensors_of
from easyclf.optimizers import build_optimizer, continue_from
from easyclf.parameters import forwarded
from easyclf.precision import resolve_precision
from easyclf.randomness import isolated, seed_after
from easyclf.state import TrainingState
from easyclf.targets import TargetEncoder, class_weights

_PROBED_ROWS = 3
# Rows in a batch of a stream that does not say how many it has.
_STREAMED_ROWS = 128
# A lazy one becomes one of the others only when it has seen rows.
_BATCH_NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LazyBatchNorm1d,
    nn.LazyBatchNorm2d,
    nn.LazyBatchNorm3d,
    nn.SyncBatchNorm,
)
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
        preprocess, augment = parameters["preprocess"], parameters["augment"]
        input_format = InputFormat(
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
        shape = row_shape(rows, input_format, is_vision=vision)
        module = _make_module(parameters, shape, len(encoder.classes_), earlier)
        module.to(device, precision.dtype)
        if earlier is not None:
            for name in earlier.fitted.frozen:
                module.get_parameter(name).requires_grad_(True)
        frozen = freeze(module, parameters["freeze"])
        batch_size = _batch_size(parameters["batch_size"], train)
        min_rows = _fewest_rows(module, batch_size, train.n_rows)
        seen, input_format, row_numbers = find_input_format(
            module,
            rows,
            input_format,
            batch_size,
            is_vision=vision,
        )
        head = _read_head(module, seen, len(tensors_of(rows)[0]), parameters, train, valid, encoder)
        head.to(device, precision.dtype)
        if augmentation is not None:
            check_augmentation(
                augmentation, head, input_format, rows, is_weighted=train.is_weighted
            )
        fitted = Fitted(head, encoder, precision, input_format, schema, row_numbers, frozen, seed)
        train_source = stack.enter_context(fitted.source(train, is_kept=True, augment=augmentation))
        valid_source = None
        if valid is not None:
            valid_source = stack.enter_context(fitted.source(valid, is_kept=True))
        if isinstance(module, AdaptsToRows) and not module.is_adapted:
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
        ProbedOutputs(type(module).__name__, n_rows, seen.output, seen.evaluated, seen.varied),
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
    if not any(isinstance(layer, _BATCH_NORMALIZATIONS) for layer in module.modules()):
        return 1
    if n_rows == 1 or (batch_size == 1 and (n_rows is None or n_rows > 2)):
        raise ValueError(
            f"{type(module).__name__} has batch normalization, which needs at least 2 rows in a "
            f"batch; got {n_rows} row(s) and `batch_size` {batch_size}."
        )
    return 2
