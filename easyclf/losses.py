"""Losses that give one value for each row, from a name, a class, an instance or a callable."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from easyclf.checks import check_keywords, did_you_mean, name_of
from easyclf.device import HOST
from easyclf.vocabulary import FOREIGN_LOSSES

LossLike = str | type[nn.Module] | Callable[..., torch.Tensor]

# What a loss of the user's is given beside outputs and targets, if it names it.
_GIVEN = ("x", "module")
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce": nn.BCELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
# As tutorials call the same.
_FUNCTIONS = (
    (F.cross_entropy, nn.CrossEntropyLoss),
    (F.nll_loss, nn.NLLLoss),
    (F.binary_cross_entropy, nn.BCELoss),
    (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss),
)
# The logarithm that `BCELoss` never goes below.
SMALLEST_LOG = -100.0
# Columns that do not fill a vector of the CPU's instructions, and rows that pay for a transpose:
# `python -m benchmarks.layouts` finds them again.
_NARROW, _MANY_ROWS = 16, 64


def log_softmax(outputs: torch.Tensor) -> torch.Tensor:
    """Compute `outputs.log_softmax(1)`, by the way that is faster for a few columns.

    Takes and gives a tensor of shape (n_rows, n_columns); the memory is new.
    """
    if _is_narrow(outputs):
        return outputs.t().contiguous().log_softmax(0).t()
    return outputs.log_softmax(1)


def softmax(outputs: torch.Tensor) -> torch.Tensor:
    """Compute `outputs.softmax(1)`, by the way that is faster for a few columns.

    Takes and gives a tensor of shape (n_rows, n_columns); the memory is new.
    """
    return outputs.t().softmax(0).t() if _is_narrow(outputs) else outputs.softmax(1)


def _is_narrow(outputs: torch.Tensor) -> bool:
    """Whether torch's softmax is faster down the columns of the transpose.

    Along a row the CPU has vector instructions only for what fills a vector: 1,000 rows of 10
    columns take 106 us along the rows and 13 us down the columns (torch 2.15). This can go when
    the benchmark shows that `softmax(1)` is as fast on the oldest torch that is supported. What
    is no plain tensor is followed by torch.export, for which the number of rows is open.
    """
    if type(outputs) is not torch.Tensor:
        return False
    return outputs.is_cpu and outputs.shape[1] < _NARROW and len(outputs) >= _MANY_ROWS


class RowLoss(ABC):
    """A loss that gives one value for each row.

    Parameters
    ----------
    loss : callable
        `(outputs, targets) -> losses`, not yet reduced over the rows.

    Attributes
    ----------
    takes_shares : bool
        Whether a target may be the share of each class, in place of its code.
    carries_weights : bool
        Whether the rows have losses of their own, which can be weighed.
    """

    takes_shares = False
    carries_weights = True
    # Names of what it wants beside outputs and targets: "x", "module".
    wants: tuple[str, ...] = ()

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self.loss = loss

    def bound(self, context: Mapping[str, object] | None) -> Self:
        """Give it what it wants beside outputs and targets."""
        return self

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move what the loss holds to the device and the dtype of the module."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device, dtype)

    @abstractmethod
    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each row.

        Parameters
        ----------
        outputs : Tensor of shape (n_rows, n_columns)
            The columns of the module that are used. They are not written to.
        targets : Tensor of shape (n_rows,), (n_rows, 1) or (n_rows, n_columns)
            As `Head.targets` makes them.

        Returns
        -------
        losses : Tensor of shape (n_rows,)
            One value for each row, with its graph.
        """

    def mean(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the mean of the losses of the rows.

        Takes what `__call__` takes, and returns a tensor of shape (), with its graph.
        """
        return self(outputs, targets).mean()


class CategoricalLoss(RowLoss):
    """A loss of torch's for one of several classes, on the outputs that it expects."""

    def __init__(self, loss: nn.CrossEntropyLoss | nn.NLLLoss) -> None:
        super().__init__(loss)
        self.takes_shares = isinstance(loss, nn.CrossEntropyLoss)

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(outputs, targets)


class CrossEntropy(RowLoss):
    """`CrossEntropyLoss` without class weights and label smoothing, by its fastest way."""

    takes_shares = True

    def __init__(self, loss: nn.CrossEntropyLoss) -> None:
        super().__init__(loss)
        self._ignore_index = loss.ignore_index

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            return self.loss(outputs, targets)
        return self._reduced(outputs, targets, "none")

    def mean(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            return super().mean(outputs, targets)
        # In one operation, forward and backward: two thirds of the time for small batches.
        return self._reduced(outputs, targets, "mean")

    def _reduced(self, outputs: torch.Tensor, targets: torch.Tensor, how: str) -> torch.Tensor:
        logs = log_softmax(outputs)
        return F.nll_loss(logs, targets, ignore_index=self._ignore_index, reduction=how)


class SmoothedCrossEntropy(RowLoss):
    """`CrossEntropyLoss` with class weights and label smoothing.

    torch divides the sum of these losses by the sum of the weights of the targets. Here each
    loss is divided by the weight of its target, and weighed with it when rows are averaged.
    """

    loss: nn.CrossEntropyLoss

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = self.loss.weight
        assert weight is not None
        losses: torch.Tensor = self.loss(outputs, targets) / weight[targets]
        return losses


class NegativeLogLikelihood(RowLoss):
    """`NLLLoss` on probabilities, whose log it takes itself."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(outputs.dtype).tiny
        # The inner clamp keeps the gradient of log(0), which is not a number, out of the graph.
        logs = outputs.clamp(min=tiny).log().where(outputs >= tiny, SMALLEST_LOG)
        return self.loss(logs, targets)


class BernoulliLoss(RowLoss):
    """A binary cross-entropy of every column, averaged over the columns."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(outputs, targets.to(outputs.dtype)).mean(1)


class OneVsRestLoss(RowLoss):
    """A binary cross-entropy of every class against the rest, averaged over the classes."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # As `one_hot`, which reads the targets to see that none is too large: the codes are not.
        classes = torch.arange(outputs.shape[1], device=targets.device)
        indicator = targets.unsqueeze(1) == classes
        return self.loss(outputs, indicator.to(outputs.dtype)).mean(1)


class CustomLoss(RowLoss):
    """A loss that only the user knows: a scalar for the batch, or one value for each row."""

    def __init__(self, loss: Callable[..., torch.Tensor], name: str) -> None:
        super().__init__(loss)
        self._name = name
        self.wants = _wanted(loss, name)

    def bound(self, context: Mapping[str, object] | None) -> Self:
        if not self.wants or not context:
            return self
        bound = copy.copy(self)
        bound.loss = functools.partial(self.loss, **{n: context[n] for n in self.wants})
        return bound

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if outputs.shape == targets.shape:
            targets = targets.to(outputs.dtype)
        losses = self.loss(outputs, targets)
        if losses.ndim == 0:
            return losses.expand(len(outputs))
        return losses if losses.ndim == 1 else losses.flatten(1).mean(1)

    def check(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Compute the loss of a few rows, and refuse what is neither one value nor one a row.

        Parameters
        ----------
        outputs : Tensor of shape (n_rows, n_columns)
            Outputs of the module, with their graph.
        targets : Tensor of shape (n_rows,), (n_rows, 1) or (n_rows, n_columns)
            Any targets for them.

        Raises
        ------
        ValueError
            If the loss fails, has another shape, or cannot be differentiated.
        TypeError
            If it is no tensor.
        """
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


def _wanted(loss: Callable[..., torch.Tensor], name: str) -> tuple[str, ...]:
    """Which of the inputs and the module a loss names among its further parameters.

    Raises
    ------
    TypeError
        If it cannot be called with outputs and targets, in this order.
    """
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()
    names = [parameter.name for parameter in parameters]
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_two = len(places) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    rest = [p for p in parameters if p not in places[:2] and p.kind not in _REST]
    unknown = [p.name for p in rest if p.default is p.empty and p.name not in _GIVEN]
    if not takes_two or unknown or names[:2] == ["y_true", "y_pred"]:
        raise TypeError(
            f"`loss` {name} takes ({', '.join(names)}); it is given (output, target), in this "
            "order, and the inputs and the module if it names `x` and `module` too."
        )
    return tuple(given for given in _GIVEN if given in names[2:])


def build_loss(loss: LossLike, keywords: Mapping[str, Any]) -> Callable[..., torch.Tensor]:
    """Make the loss itself: (outputs, targets) -> losses of shape (n_rows,) or ().

    It is unreduced where torch lets us ask for that. An instance is copied; a function of torch's
    is the class of the same loss.

    Raises
    ------
    ValueError
        If the name is unknown, or the loss is a sum over rows.
    TypeError
        If a `loss__*` is not taken.
    """
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise ValueError(
                f"`loss` {loss!r} is unknown"
                f"{did_you_mean(loss, _LOSSES, words=FOREIGN_LOSSES)} Expected 'auto', one of "
                f"{list(_LOSSES)}, an nn.Module or a callable (output, target) -> loss."
            )
        loss = _LOSSES[loss]
    loss = next((made for function, made in _FUNCTIONS if loss is function), loss)
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
    loss: Callable[..., torch.Tensor], *, takes_log: bool, is_one_of_many: bool
) -> RowLoss:
    """Choose how losses of shape (n_rows,) are computed, without the weights of classes.

    Parameters
    ----------
    loss : callable
        As `build_loss` made it. It stays as it is.
    takes_log : bool
        Whether the outputs are probabilities and the loss wants their logarithms.
    is_one_of_many : bool
        Whether each row has one of several classes, with a column for each.
    """
    if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)):
        return OneVsRestLoss(loss) if is_one_of_many else BernoulliLoss(loss)
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return CustomLoss(loss, name_of(loss))
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None and loss.label_smoothing:
        return SmoothedCrossEntropy(loss)
    unweighted = copy.deepcopy(loss)
    unweighted.weight = None
    if takes_log:
        return NegativeLogLikelihood(unweighted)
    if type(unweighted) is nn.CrossEntropyLoss and not unweighted.label_smoothing:
        return CrossEntropy(unweighted)
    return CategoricalLoss(unweighted)


def class_weights_of(loss: Callable[..., torch.Tensor], n_classes: int) -> torch.Tensor | None:
    """Read the weights of classes that a loss of torch's holds; a class to ignore weighs nothing.

    Returns
    -------
    weights : Tensor of shape (n_classes,) or None
        On the CPU, float64, in new memory; None where all classes count alike.

    Raises
    ------
    ValueError
        If there is not one weight for each class, or smoothing meets a weight of 0.
    """
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return None
    weights = torch.ones(n_classes, dtype=torch.float64, device=HOST)
    if loss.weight is not None:
        if loss.weight.shape != (n_classes,):
            raise ValueError(
                f"`loss` {name_of(loss)} has a weight of shape {tuple(loss.weight.shape)}; "
                f"expected one for each class, shape ({n_classes},)."
            )
        weights.copy_(loss.weight.detach())
    if 0 <= loss.ignore_index < n_classes:
        weights[loss.ignore_index] = 0.0
    is_smoothed = isinstance(loss, nn.CrossEntropyLoss) and loss.label_smoothing > 0
    if is_smoothed and loss.weight is not None and not (weights > 0).all():
        raise ValueError(
            f"`loss` {name_of(loss)} has classes of weight 0 together with label smoothing; "
            "expected positive weights."
        )
    return None if bool((weights == 1).all()) else weights
