"""What prediction, a further fit and a file need of a fit."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from easyclf.data import Batch, InputFormat, Rows, RowSchema, Source
from easyclf.engine.evaluation import Evaluation, evaluate, predict_outputs
from easyclf.engine.metrics import BatchResult
from easyclf.engine.objective import measure
from easyclf.heads import Head
from easyclf.precision import Precision
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
        self, rows: Rows, input_format: InputFormat | None = None, *, is_kept: bool = False
    ) -> Source:
        """Batches of rows with their targets; in another format for the training."""
        return rows.source(
            input_format or self.input_format,
            self.head.targets,
            self.encoder.transform_tensor,
            is_kept=is_kept,
        )

    def outputs(self, module: nn.Module, rows: Rows) -> torch.Tensor:
        """The raw outputs for all rows, in order."""
        with (
            isolated(self.seed, self.input_format.device, waits=False),
            rows.source(self.input_format) as source,
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
        cpu, dtype = torch.device("cpu"), self.precision.dtype
        return self._replace(
            head=copy.deepcopy(self.head).to(cpu, dtype),
            precision=Precision(dtype),
            input_format=self.input_format.on(cpu),
        )
