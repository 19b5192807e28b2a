"""What prediction, a further fit and a file need of a fit."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from easyclf.data import Augmentation, Batch, InputFormat, Preprocessing, Rows, Source
from easyclf.data.reader import RowSchema
from easyclf.engine.evaluation import Evaluation, evaluate, predict_outputs
from easyclf.engine.metrics import BatchResult
from easyclf.engine.objective import measure
from easyclf.heads import Head
from easyclf.precision import FullPrecision, Precision
from easyclf.randomness import isolated
from easyclf.targets import TargetEncoder

# Numbers in an evaluation batch: its rows are as many as hold about this many.
_EVALUATION_NUMBERS = 2**20


class Fitted(NamedTuple):
    """What prediction and a continued run need beside the module.

    Attributes
    ----------
    head : Head
        The meaning of the outputs.
    encoder : TargetEncoder
        The classes.
    precision : Precision
        The precision of the arithmetic.
    input_format : InputFormat
        Where and as what the module wants its inputs.
    schema : RowSchema
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
    input_format: InputFormat
    schema: RowSchema
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
            self.input_format._replace(augment=augment),
            self.head.targets,
            self.encoder.transform_tensor,
            seed=self.seed,
            is_kept=is_kept,
        )

    def outputs(self, module: nn.Module, rows: Rows) -> torch.Tensor:
        """The raw outputs for all rows, in order."""
        with (
            isolated(self.seed, self.input_format.device, waits=False),
            rows.source(self.input_format, seed=self.seed) as source,
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
        def measure_batch(batch: Batch) -> BatchResult:
            return measure(module, self.head, self.precision, batch)

        with (
            isolated(self.seed, self.input_format.device, waits=False),
            self.source(rows) as source,
        ):
            return evaluate(source, Evaluation(module, self.evaluation_rows), measure_batch)

    def on_cpu(self) -> Fitted:
        """A copy for a machine without the accelerator."""
        cpu, dtype, preprocess = (
            torch.device("cpu"),
            self.precision.dtype,
            self.input_format.preprocess,
        )
        if isinstance(preprocess, Preprocessing):
            preprocess = preprocess.to(cpu)
        return self._replace(
            head=copy.deepcopy(self.head).to(cpu, dtype),
            precision=FullPrecision(dtype),
            input_format=self.input_format._replace(device=cpu, preprocess=preprocess),
        )
