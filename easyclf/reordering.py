"""A module whose outputs are in another order than the sorted classes."""

from __future__ import annotations

import torch

from easyclf.heads import Context, Head
from easyclf.targets import TargetEncoder


def in_order_of_classes(head: Head, encoder: TargetEncoder) -> Head:
    """Let a head answer in the order of the classes, whatever that of its module's outputs is."""
    codes = encoder.codes_of_outputs
    return head if codes is None else ReorderedHead(head, torch.from_numpy(codes))


class ReorderedHead(Head):
    """A head around that of a module whose outputs stand for the classes in another order.

    Losses and hits are computed in the order of the outputs; answers are in that of the classes.

    Parameters
    ----------
    head : Head
        The head of the module, for the outputs in their own order.
    codes : Tensor of shape (n_classes,), int64
        The code of the class that each output stands for. For a module of one output, which
        stands for the second of two classes, these are codes of both.

    Attributes
    ----------
    inner : Head
        The head of the module.
    """

    def __init__(self, head: Head, codes: torch.Tensor) -> None:
        super().__init__(head.n_columns, head.n_outputs, head.criterion, head.class_weight)
        self.kind = head.kind
        self.inner, self._codes, self._outputs = head, codes, codes.argsort()

    def to(self, device: torch.device, dtype: torch.dtype) -> Head:
        self.inner.to(device, dtype)
        self.class_weight = self.inner.class_weight
        return self

    @property
    def takes_shares(self) -> bool:
        return self.inner.takes_shares

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return self.inner.targets(self._outputs.to(codes.device)[codes.long()])

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, context: Context = None
    ) -> torch.Tensor:
        return self.inner.losses(outputs, targets, context)

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.inner.hits(outputs, targets)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._codes.to(outputs.device)[self.inner.answers(outputs)]

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._in_order(self.inner.probabilities(outputs))

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._in_order(self.inner.log_probabilities(outputs))

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        logits = self.inner.logits(outputs)
        # Of two classes these are the log-odds of the second, which are the other way round.
        return -logits if logits.ndim == 1 else self._in_order(logits)

    def _in_order(self, columns: torch.Tensor) -> torch.Tensor:
        """Columns of shape (n_rows, n_classes) of the outputs, in the order of the classes."""
        return columns[:, self._outputs.to(columns.device)]
