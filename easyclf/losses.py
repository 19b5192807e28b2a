"""Losses that give one value for each row, from a name, a class, an instance or a callable."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from easyclf.checks import check_keywords, did_you_mean, name_of

LossLike = str | type[nn.Module] | Callable[..., torch.Tensor]

_LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce": nn.BCELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
# The logarithm that `BCELoss` never goes below.
SMALLEST_LOG = -100.0
# What is narrower than a vector of the CPU's instructions, and long enough to be worth turning.
_NARROW, _MANY_ROWS = 16, 64


def log_softmax(outputs: torch.Tensor) -> torch.Tensor:
    """`outputs.log_softmax(1)`, by the way that is faster for a few columns."""
    if _is_narrow(outputs):
        return outputs.t().contiguous().log_softmax(0).t()
    return outputs.log_softmax(1)


def softmax(outputs: torch.Tensor) -> torch.Tensor:
    """`outputs.softmax(1)`, by the way that is faster for a few columns."""
    return outputs.t().softmax(0).t() if _is_narrow(outputs) else outputs.softmax(1)


def _is_narrow(outputs: torch.Tensor) -> bool:
    """Whether torch's softmax is faster down the columns of the transpose.

    Along a row the CPU has vector instructions only for what fills a vector: 1,000 rows of 10
    columns take 106 us along the rows and 13 us down the columns.
    """
    return outputs.is_cpu and outputs.shape[1] < _NARROW and len(outputs) >= _MANY_ROWS


class RowLoss:
    """A loss that gives one value for each row.

    Parameters
    ----------
    loss : callable
        `(outputs, targets) -> losses`, not yet reduced over the rows.
    """

    is_one_vs_rest = False
    carries_weights = True

    @property
    def takes_shares(self) -> bool:
        """Whether a target may be the share of each class, in place of its code."""
        return isinstance(self.loss, nn.CrossEntropyLoss)

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self.loss = loss

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move what the loss holds to the device and the dtype of the module."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device, dtype)

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Losses, shape (rows,), of outputs, shape (rows, columns)."""
        return self.loss(outputs, targets)


class NegativeLogLikelihood(RowLoss):
    """`NLLLoss` on probabilities, whose log it takes itself."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(outputs.dtype).tiny
        # The inner clamp keeps the gradient of log(0), which is not a number, out of the graph.
        logs = outputs.clamp(min=tiny).log().where(outputs >= tiny, SMALLEST_LOG)
        return self.loss(logs, targets)


class CrossEntropy(RowLoss):
    """`CrossEntropyLoss` without class weights and label smoothing."""

    loss: nn.CrossEntropyLoss

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            return super().__call__(outputs, targets)
        ignored = self.loss.ignore_index
        return F.nll_loss(log_softmax(outputs), targets, ignore_index=ignored, reduction="none")


class SmoothedCrossEntropy(RowLoss):
    """`CrossEntropyLoss` with class weights and label smoothing.

    torch divides the sum of these losses by the sum of the weights of the targets. Here each
    loss is divided by the weight of its target, and weighed with it when rows are averaged.
    """

    takes_shares = False

    def __init__(self, loss: nn.CrossEntropyLoss, weight: torch.Tensor) -> None:
        super().__init__(loss)
        self._weight = weight

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        super().to(device, dtype)
        self._weight = self._weight.to(device, dtype)

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(outputs, targets) / self._weight[targets]


class BernoulliLoss(RowLoss):
    """A binary cross-entropy of every column, averaged over the columns."""

    def __init__(self, loss: Callable[..., torch.Tensor], n_classes: int | None) -> None:
        super().__init__(loss)
        self._n_classes = n_classes
        self.is_one_vs_rest = n_classes is not None

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._n_classes is not None:
            targets = F.one_hot(targets, self._n_classes)
        return self.loss(outputs, targets.to(outputs.dtype)).mean(1)


class CustomLoss(RowLoss):
    """A loss that only the user knows: a scalar for the batch, or one value for each row."""

    def __init__(self, loss: Callable[..., torch.Tensor], name: str) -> None:
        super().__init__(loss)
        self._name = name

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if outputs.shape == targets.shape:
            targets = targets.to(outputs.dtype)
        losses = self.loss(outputs, targets)
        if losses.ndim == 0:
            return losses.expand(len(outputs))
        return losses if losses.ndim == 1 else losses.flatten(1).mean(1)

    def check(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Refuse the loss if it cannot be computed from these few rows, or is not one a row."""
        given = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        if outputs.shape == targets.shape:
            targets = targets.to(outputs.dtype)
        try:
            with warnings.catch_warnings():
                # torch only warns where it stretches targets to outputs of another shape.
                warnings.filterwarnings("error", message="Using a target size")
                losses = self.loss(outputs, targets)
        except (RuntimeError, ValueError, IndexError, UserWarning) as error:
            raise ValueError(f"`loss` {self._name} failed on {given}: {error}") from error
        if not isinstance(losses, torch.Tensor):
            raise TypeError(
                f"`loss` {self._name} returned a {type(losses).__name__}; expected a tensor."
            )
        if losses.ndim and (len(losses) != len(outputs)):
            raise ValueError(
                f"`loss` {self._name} returned shape {tuple(losses.shape)} for {given}; expected "
                f"a scalar or one value for each row, shape ({len(outputs)},)."
            )
        if not losses.requires_grad:
            raise ValueError(
                f"`loss` {self._name} is not differentiable; compute it from the outputs with "
                "torch operations, without detach, argmax or item()."
            )
        self.carries_weights = losses.ndim > 0


def build_loss(loss: LossLike, keywords: Mapping[str, Any]) -> Callable[..., torch.Tensor]:
    """The loss itself, unreduced where torch lets us ask for that."""
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise ValueError(
                f"`loss` {loss!r} is unknown{did_you_mean(loss, _LOSSES)} Expected 'auto', one of "
                f"{list(_LOSSES)}, an nn.Module or a callable (output, target) -> loss."
            )
        loss = _LOSSES[loss]
    if inspect.isclass(loss):
        check_keywords(loss, keywords, "loss")
        built: Any = loss(**keywords)
    elif keywords:
        raise TypeError(
            f"`loss__{next(iter(keywords))}` cannot change `loss`, which is a finished "
            f"{name_of(loss)}; pass its class instead."
        )
    else:
        built = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
    if getattr(built, "reduction", None) == "sum":
        raise ValueError(
            f"`loss` {name_of(built)} has reduction='sum'; losses are averaged over the rows "
            "with their weights, so leave `reduction` out and scale `lr` instead."
        )
    if isinstance(built, nn.Module) and hasattr(built, "reduction"):
        setattr(built, "reduction", "none")  # noqa: B010  (mypy takes it for a submodule)
    unreduced: Callable[..., torch.Tensor] = built
    return unreduced


def row_loss(
    loss: Callable[..., torch.Tensor],
    n_used: int,
    is_one_of_many: bool,
    takes_log: bool,
    class_weight: torch.Tensor | None,
) -> tuple[RowLoss, torch.Tensor | None]:
    """The loss of each row, with the weights of classes that the loss held in `class_weight`."""
    if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)):
        return BernoulliLoss(loss, n_used if is_one_of_many else None), class_weight
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return CustomLoss(loss, name_of(loss)), class_weight
    own = torch.ones(n_used, dtype=torch.float64, device="cpu")
    weight = loss.weight
    if weight is not None:
        if weight.shape != (n_used,):
            raise ValueError(
                f"`loss` {name_of(loss)} has a weight of shape {tuple(weight.shape)}; expected one "
                f"for each class, shape ({n_used},)."
            )
        own = weight.detach().cpu().double()
    if 0 <= loss.ignore_index < n_used:
        own = own.clone()
        own[loss.ignore_index] = 0.0
    is_plain = bool((own == 1).all())
    combined = class_weight if is_plain else own * (1.0 if class_weight is None else class_weight)
    if weight is not None and isinstance(loss, nn.CrossEntropyLoss) and loss.label_smoothing:
        if not (own > 0).all():
            raise ValueError(
                f"`loss` {name_of(loss)} has classes of weight 0 together with label smoothing; "
                "expected positive weights."
            )
        return SmoothedCrossEntropy(loss, weight.detach().clone()), combined
    loss.register_buffer("weight", None)
    if type(loss) is nn.CrossEntropyLoss and not loss.label_smoothing:
        return CrossEntropy(loss), combined
    return (NegativeLogLikelihood if takes_log else RowLoss)(loss), combined
