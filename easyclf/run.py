"""A run, put together from parameters and rows: module, head, optimizer, sources and trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from easyclf.callbacks import Callback
from easyclf.data import Batch, Placement, Rows, Source
from easyclf.device import resolve_device
from easyclf.evaluation import Evaluation, evaluate, measure, predict_outputs
from easyclf.heads import Head, build_head
from easyclf.history import History
from easyclf.metrics import Measured
from easyclf.modules import MLP, Probe, build_module, prefers_channels_last, probe
from easyclf.optimizers import build_optimizer, continue_from
from easyclf.parameters import forwarded
from easyclf.precision import Precision, resolve_precision
from easyclf.randomness import isolated, seed_after
from easyclf.state import TrainingState
from easyclf.targets import TargetEncoder, class_weights
from easyclf.trainer import Trainer, TrainingDiverged

# Numbers in an evaluation batch: its rows are as many as hold about this many.
_EVALUATION_NUMBERS = 2**20
_PROBED_ROWS = 3
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
        Where the module wants its inputs.
    sample_shape : tuple of int
        The shape of a row.
    seed : int
        The seed of the whole run.
    """

    head: Head
    encoder: TargetEncoder
    precision: Precision
    placement: Placement
    sample_shape: tuple[int, ...]
    seed: int

    @property
    def evaluation_rows(self) -> int:
        """Rows in a batch of validation or prediction."""
        return max(64, _EVALUATION_NUMBERS // max(1, math.prod(self.sample_shape)))

    def source(self, rows: Rows, *, is_kept: bool = False) -> Source:
        """Batches of rows with their targets."""
        encode = self.encoder.transform_tensor
        return rows.source(self.placement, self.head.targets, encode, is_kept=is_kept)

    def outputs(self, module: nn.Module, rows: Rows) -> torch.Tensor:
        """The raw outputs for all rows, in order."""
        source = rows.source(self.placement)
        with isolated(self.seed, self.placement.device, waits=False):
            return predict_outputs(
                module.eval(), self.head, self.precision, source, self.evaluation_rows
            )

    def evaluate(self, module: nn.Module, rows: Rows) -> dict[str, float]:
        """The exact `loss` and `accuracy`."""
        module.eval()

        @torch.inference_mode()
        def measure_batch(batch: Batch) -> Measured:
            return measure(module, self.head, self.precision, batch)

        with isolated(self.seed, self.placement.device, waits=False):
            return evaluate(self.source(rows), Evaluation(self.evaluation_rows), measure_batch)

    def on_cpu(self) -> Learned:
        """A copy for a machine without the accelerator."""
        cpu, dtype = torch.device("cpu"), self.precision.dtype
        return self._replace(
            head=copy.deepcopy(self.head).to(cpu, dtype),
            precision=Precision(dtype),
            placement=self.placement._replace(device=cpu),
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
    with isolated(run_seed, device), torch.enable_grad():
        sample_shape = tuple(train.first(1).shape[1:])
        module = _make_module(parameters, sample_shape, len(encoder.classes_), earlier)
        module.to(device, precision.dtype)
        batch_size = _batch_size(parameters["batch_size"], train)
        min_rows = _fewest_rows(module, batch_size, train.n_rows)
        head, placement = _read_module(
            module, parameters, train, valid, encoder, precision, device, batch_size
        )
        learned = Learned(head, encoder, precision, placement, sample_shape, seed)
        train_source = learned.source(train, is_kept=True)
        valid_source = None if valid is None else learned.source(valid, is_kept=True)
        if isinstance(module, MLP) and not module.is_adapted:
            module.adapt((batch.x, batch.weight) for batch in train_source.batches(2**16))
        optimizer = build_optimizer(
            parameters["optimizer"], module, parameters["lr"], forwarded(parameters, "optimizer")
        )
        if earlier is not None:
            continue_from(optimizer, earlier.optimizer)
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
            steps_per_epoch=math.ceil(n_batches / parameters["accumulate"]),
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
    sample_shape: tuple[int, ...],
    n_outputs: int,
    earlier: Earlier | None,
) -> nn.Module:
    if earlier is not None:
        return copy.deepcopy(earlier.module)
    keywords = forwarded(parameters, "module")
    return build_module(parameters["module"], keywords, sample_shape, n_outputs)


def _read_module(
    module: nn.Module,
    parameters: Mapping[str, Any],
    train: Rows,
    valid: Rows | None,
    encoder: TargetEncoder,
    precision: Precision,
    device: torch.device,
    batch_size: int,
) -> tuple[Head, Placement]:
    """Find out what the outputs of the module mean, and how it wants its inputs."""
    assert train.codes is not None
    # Not as many rows as columns, lest one be taken for the other.
    n_rows = _PROBED_ROWS + (len(encoder.classes_) == _PROBED_ROWS)
    rows = train.first(n_rows).to(device)
    is_large = prefers_channels_last(module, device, batch_size * math.prod(rows.shape[1:]))
    seen, layout = _probe(module, rows, precision.dtype, tries_channels_last=is_large)
    head = build_head(
        (seen.output, seen.evaluated),
        type(module).__name__,
        len(rows),
        encoder.classes_,
        is_multilabel=encoder.is_multilabel,
        loss=parameters["loss"],
        keywords=forwarded(parameters, "loss"),
        class_weight=class_weights(parameters["class_weight"], encoder, train.codes),
        is_weighted=train.is_weighted or (valid is not None and valid.is_weighted),
    )
    placement = Placement(device, seen.input_dtype, seen.changes_input, precision.dtype, layout)
    return head.to(device, precision.dtype), placement


def _probe(
    module: nn.Module, rows: torch.Tensor, dtype: torch.dtype, *, tries_channels_last: bool
) -> tuple[Probe, torch.memory_format]:
    """Pass rows through the module, in the layout that it is to keep."""
    if tries_channels_last and rows.ndim == 4:
        layout = torch.channels_last
        try:
            return probe(
                module.to(memory_format=layout), rows.to(memory_format=layout), dtype
            ), layout
        except RuntimeError:
            # It takes for granted how its features lie in memory, as `view` does.
            module.to(memory_format=torch.contiguous_format)
    return probe(module, rows, dtype), torch.preserve_format


def _batch_size(batch_size: int | str, train: Rows) -> int:
    """Rows in a training batch.

    "auto" makes fifty steps an epoch, in batches of 32 to 512 rows; up to 64 rows are one batch.
    """
    n_rows = train.n_rows
    if isinstance(train.x, DataLoader):
        if batch_size != "auto":
            raise ValueError(
                f"`batch_size` is {batch_size!r}, but X is a DataLoader, which has its own; leave "
                "`batch_size` out."
            )
        return train.x.batch_size or n_rows
    if isinstance(batch_size, str):
        return n_rows if n_rows <= 64 else min(max(n_rows // 50, 32), 512)
    return n_rows if batch_size == -1 else min(int(batch_size), n_rows)


def _fewest_rows(module: nn.Module, batch_size: int, n_rows: int) -> int:
    """Rows that a last batch needs to stand alone: else it joins the one before it.

    Batch normalization cannot take the deviation of one row.
    """
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
        return 1
    if n_rows == 1 or (batch_size == 1 and n_rows > 2):
        raise ValueError(
            f"{type(module).__name__} has batch normalization, which needs at least 2 rows in a "
            f"batch; got {n_rows} row(s) and `batch_size` {batch_size}."
        )
    return 2
