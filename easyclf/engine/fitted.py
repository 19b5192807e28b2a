"""What prediction, a further fit and a file need of a fit."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

import torch
from torch import nn

from easyclf.data import Batch, InputFormat, Rows, RowSchema, Source
from easyclf.device import HOST
from easyclf.engine.evaluation import Evaluation, evaluate, predict_outputs
from easyclf.engine.given import Given
from easyclf.engine.metrics import BatchResult
from easyclf.engine.objective import Objective
from easyclf.heads import Head
from easyclf.history import History
from easyclf.metrics import Answered, Metrics
from easyclf.mlp import MLP
from easyclf.modules import draws_nothing
from easyclf.nested import Tensors, apply
from easyclf.precision import FullPrecision, Precision
from easyclf.randomness import isolated
from easyclf.snapshots import copied_to_host
from easyclf.targets import Labels, TargetEncoder

Part = TypeVar("Part")
# Numbers in an evaluation batch: its rows are as many as hold about this many. 4 MB of float32
# stay in the cache of a core; `python -m benchmarks` measures it as "predict_proba".
_EVALUATION_NUMBERS = 2**20


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves: the module, and how to read rows for it and its outputs.

    Nothing in it is replaced after the fit, so who holds it has parts that belong together.

    Attributes
    ----------
    module : nn.Module
        The trained module, on the device of `input_format`.
    optimizer : torch.optim.Optimizer
        The optimizer with its state.
    history : History
        The epochs of this fit, and of those that it continued.
    head : Head
        The meaning of the outputs.
    encoder : TargetEncoder
        The classes.
    precision : Precision
        The precision of the arithmetic.
    input_format : InputFormat
        Where and as what the module wants its inputs; without `augment`.
    schema : RowSchema
        What rows have to look like.
    row_numbers : int
        Numbers in a row, as the module gets it.
    frozen : list of str
        Names of the weights that `freeze` kept as they were.
    seed : int
        The seed of the whole training, of which each epoch's follows.
    given : Given
        The module and its parameters, as the user gave them to the fit that began this training.
    class_names : list of str or None
        Names of the classes, if the dataset had them.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    head: Head
    encoder: TargetEncoder
    precision: Precision
    input_format: InputFormat
    schema: RowSchema
    row_numbers: int
    frozen: list[str]
    seed: int
    given: Given
    class_names: list[str] | None = None

    def __getstate__(self) -> dict[str, object]:
        # Tensors as keys can be neither compared nor hashed by their values, as joblib wants.
        optimizer = copy.copy(self.optimizer)
        state = dict(self.optimizer.state)
        optimizer.state = defaultdict(dict)
        by_weight = [state.pop(weight, None) for weight in _weights_of(optimizer)]
        optimizer.state.update(state)
        return {**vars(self), "optimizer": optimizer, "optimizer_state": by_weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        by_weight = state.pop("optimizer_state")
        self.__dict__.update(state)
        for weight, values in zip(_weights_of(self.optimizer), by_weight, strict=True):
            if values is not None:
                self.optimizer.state[weight] = values

    @property
    def classes(self) -> Labels:
        """The sorted classes; for a multilabel target the numbers of its labels."""
        return self.encoder.classes_

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self.input_format.device

    @property
    def n_iter(self) -> int:
        """Epochs trained."""
        return len(self.history)

    @property
    def evaluation_rows(self) -> int:
        """Rows in a batch of validation or prediction."""
        return max(64, _EVALUATION_NUMBERS // self.row_numbers)

    def centred_by(self, module: MLP) -> Fitted:
        """Make the same with rows centred before they are cast, where the module wants that."""
        centre = module.centre.cpu().double().sum(0) if module.centre.any() else None
        return replace(self, input_format=replace(self.input_format, centre=centre))

    def recentred(self) -> Fitted:
        """Make the same with rows centred as the buffers of the module now say."""
        return self.centred_by(self.module) if isinstance(self.module, MLP) else self

    def source(
        self, rows: Rows, input_format: InputFormat | None = None, *, is_kept: bool = False
    ) -> Source:
        """Cut rows into batches, with their targets.

        Parameters
        ----------
        rows : Rows
            With labels.
        input_format : InputFormat, default=None
            Where and as what they go; None is the format of prediction.
        is_kept : bool, default=False
            Whether they are gone through many times, so that a conversion is done once.
        """
        return rows.source(
            input_format or self.input_format,
            self.head.targets,
            self.encoder.transform_tensor,
            is_kept=is_kept,
        )

    def outputs(self, rows: Rows) -> torch.Tensor:
        """Compute the raw outputs for all rows, in order.

        Returns
        -------
        outputs : Tensor of shape (n_rows, n_outputs)
            In full precision, on the host. The memory is new.

        Raises
        ------
        ValueError
            If the module answers NaN.
        """
        if any(part.training for part in self.module.modules()):
            self.module.eval()
        may_draw = rows.may_draw or not self.input_format.is_plain or not draws_nothing(self.module)
        with (
            isolated(self.seed, self.device, waits=False) if may_draw else nullcontext(),
            rows.source(self.input_format) as source,
        ):
            outputs = predict_outputs(
                self.module, self.head, self.precision, source, self.evaluation_rows
            )
        if outputs.isnan().any():
            row = int(outputs.isnan().flatten(1).any(1).to(torch.uint8).argmax())
            raise ValueError(
                f"{type(self.module).__name__} answered NaN, first in row {row} of X; look at that "
                "row, at `preprocess`, and at the weights of the module."
            )
        return outputs

    def pass_few(self, rows: Rows | None, n_rows: int) -> None:
        """Pass so many rows through the module, in the way of prediction; None are rows of zeros.

        Where there are fewer rows they are repeated.
        """
        given = self.schema.blank_rows(n_rows) if rows is None else rows.first(n_rows)
        x = repeated(given, n_rows)
        with isolated(self.seed, self.device, waits=False), torch.no_grad():
            batch = self.input_format.batch(x, None, None, is_own=rows is None)
            self.precision.run(self.module, batch.x)

    def scores(self, metrics: Metrics) -> Callable[[Answered], dict[str, float]] | None:
        """Make a function of outputs that computes the metrics; None where there are none."""
        return functools.partial(metrics.measure, self.head, self.encoder) if metrics else None

    def evaluate(self, rows: Rows, metrics: Metrics) -> dict[str, float]:
        """Measure the exact `loss` and `accuracy` of rows with labels, and the metrics."""
        module, score = self.module.eval(), self.scores(metrics)
        objective = Objective(self.head, self.precision, keeps_outputs=score is not None)

        @torch.inference_mode()
        def measure(batch: Batch) -> BatchResult:
            return objective(module, batch)

        with isolated(self.seed, self.device, waits=False), self.source(rows) as source:
            return evaluate(source, Evaluation(module, self.evaluation_rows), measure, score)

    def on_host(self) -> Fitted:
        """Copy it to the host, to be read on a machine without this device."""
        if self.device.type == HOST.type:
            return self
        # In one go: the optimizer holds the weights of the module.
        module, optimizer, head = copied_to_host((self.module, self.optimizer, self.head))
        precision = FullPrecision(self.precision.dtype)
        precision.choice = self.precision.choice
        return replace(
            self,
            module=module.to(HOST),
            optimizer=optimizer,
            head=head,
            precision=precision,
            input_format=self.input_format.on(HOST),
        )


def _weights_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


class FittedAttribute(Generic[Part]):
    """An attribute that is there after `fit`: a part of the one `Fitted` that a fit leaves.

    So all of them change at once, and what one thread predicts with belongs together while
    another one fits.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._part = name, name.removesuffix("_")

    @overload
    def __get__(self, estimator: None, owner: type) -> FittedAttribute[Part]: ...

    @overload
    def __get__(self, estimator: object, owner: type) -> Part: ...

    def __get__(self, estimator: object | None, owner: type) -> FittedAttribute[Part] | Part:
        if estimator is None:
            return self
        fitted: Fitted | None = vars(estimator).get("_fitted")
        part: Part | None = None if fitted is None else getattr(fitted, self._part)
        if part is None:
            raise AttributeError(
                f"{owner.__name__!r} object has no attribute {self._name!r}"
                f"{'; call `fit` first' if fitted is None else ''}"
            )
        return part

    def __set__(self, estimator: Any, part: Part) -> None:
        estimator._fitted = replace(estimator._fitted, **{self._part: part})


def repeated(x: Tensors, n_rows: int) -> Tensors:
    """Make n_rows rows of the inputs of shape (n_given, ...), those repeated as often as needed."""

    def taken(part: torch.Tensor) -> torch.Tensor:
        return part[torch.arange(n_rows, device=part.device) % len(part)]

    rows: Tensors = apply(taken, x)
    return rows
