"""Raw outputs of a module to losses of rows, probabilities, answers and hits."""

from __future__ import annotations

import copy
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from easyclf.targets import Labels
from easyclf.validation import check_keywords, did_you_mean, name_of

LossLike = str | type[nn.Module] | Callable[..., torch.Tensor]

_LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce": nn.BCELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
_KINDS = {
    "SigmoidBackward": "sigmoid",
    "SoftmaxBackward": "softmax",
    "LogSoftmaxBackward": "log_softmax",
}
# Operations after which the values are still what they were: views, copies, casts, clamps.
_SEE_THROUGH = {
    "Alias",
    "Clamp",
    "Clone",
    "Permute",
    "Reshape",
    "ReshapeAlias",
    "Select",
    "Slice",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "UnsafeView",
    "Unsqueeze",
    "View",
}
# Which explicit losses fit which outputs, and what to type where they do not.
_FITS = {
    nn.CrossEntropyLoss: ("logits", "log_softmax"),
    nn.NLLLoss: ("log_softmax",),
    nn.BCELoss: ("sigmoid",),
    nn.BCEWithLogitsLoss: ("logits",),
}
_RIGHT_LOSS = {
    "logits": "'cross_entropy' (or 'bce_with_logits' for a single column or for labels)",
    "sigmoid": "'bce'",
    "softmax": "'nll' (by name, which takes the log itself)",
    "log_softmax": "'nll' or 'cross_entropy'",
}
# The logarithm that `BCELoss` never goes below.
_SMALLEST_LOG = -100.0


def output_kind(output: torch.Tensor) -> str:
    """What the last operation of a module was: "sigmoid", "softmax", "log_softmax" or "logits".

    The autograd graph says it, for functional and module forms alike.
    """
    node: Any = output.grad_fn
    takes_log = False
    while node is not None:
        operation = node.name().partition("Backward")[0]
        kind = _KINDS.get(f"{operation}Backward")
        if kind is not None:
            return "log_softmax" if takes_log and kind == "softmax" else kind
        if operation == "Log" and not takes_log:
            takes_log = True
        elif operation not in _SEE_THROUGH:
            break
        node = node.next_functions[0][0] if node.next_functions else None
    return "logits"


def _read_output(output: Any, n_rows: int, what: str) -> torch.Tensor:
    """The probed output as (rows, columns), refused when it cannot be trained."""
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"{what} returned a {type(output).__name__}; expected one tensor of shape "
            "(rows, columns): return only the logits from `forward`."
        )
    columns = output.unsqueeze(1) if output.ndim == 1 else output
    if columns.ndim > 2 and columns[0].numel() == columns.shape[1]:
        columns = columns.flatten(1)
    if columns.ndim != 2 or len(columns) != n_rows:
        raise ValueError(
            f"{what} returned shape {tuple(output.shape)} for {n_rows} rows; expected "
            f"({n_rows}, columns), one row of outputs for each row of X."
        )
    if output.grad_fn is None or not output.is_floating_point():
        raise ValueError(
            f"{what} returned a {output.dtype} output that is not differentiable, so nothing "
            "could be learned; return the logits, without argmax, detach, round or no_grad."
        )
    if not columns.isfinite().all():
        raise ValueError(
            f"{what} returned NaN or infinity before any training; check its initial weights "
            "and its input scale."
        )
    return columns


class RowLoss:
    """A loss that gives one value for each row.

    Parameters
    ----------
    loss : callable
        `(outputs, targets) -> losses`, not yet reduced over the rows.
    """

    is_one_vs_rest = False
    carries_weights = True

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self.loss = loss

    def to(self, device: torch.device) -> None:
        """Move what the loss holds to the device of the module."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Losses, shape (rows,), of outputs, shape (rows, columns)."""
        return self.loss(outputs, targets)


class NegativeLogLikelihood(RowLoss):
    """`NLLLoss` on probabilities, whose log it takes itself."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(outputs.dtype).tiny
        # The inner clamp keeps the gradient of log(0), which is not a number, out of the graph.
        logs = outputs.clamp(min=tiny).log().where(outputs >= tiny, _SMALLEST_LOG)
        return self.loss(logs, targets)


class SmoothedCrossEntropy(RowLoss):
    """`CrossEntropyLoss` with class weights and label smoothing.

    torch divides the sum of these losses by the sum of the weights of the targets. Here each
    loss is divided by the weight of its target, and weighed with it when rows are averaged.
    """

    def __init__(self, loss: nn.CrossEntropyLoss, weight: torch.Tensor) -> None:
        super().__init__(loss)
        self._weight = weight

    def to(self, device: torch.device) -> None:
        super().to(device)
        self._weight = self._weight.to(device)

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


class Head(ABC):
    """What the outputs of a module mean: the base of one head for each row of the loss table.

    Parameters
    ----------
    kind : str
        "logits", "sigmoid", "softmax" or "log_softmax".
    n_outputs : int
        Columns that are used: classes, labels, or 1.
    criterion : callable
        `(outputs, targets) -> losses of the rows`.
    class_weight : Tensor of shape (n_classes,) or None
        Weight of the loss of each class.
    """

    def __init__(
        self,
        kind: str,
        n_outputs: int,
        criterion: RowLoss,
        class_weight: torch.Tensor | None,
    ) -> None:
        self.kind = kind
        self.n_outputs = n_outputs
        self.criterion = criterion
        self.class_weight = class_weight

    def to(self, device: torch.device, dtype: torch.dtype) -> Head:
        """Move the tensors that the head holds to the device of the module."""
        if self.class_weight is not None:
            self.class_weight = self.class_weight.to(device, dtype)
        self.criterion.to(device)
        return self

    def columns(self, outputs: torch.Tensor) -> torch.Tensor:
        """The raw outputs as (rows, n_outputs)."""
        if outputs.ndim != 2:
            outputs = outputs.reshape(len(outputs), -1)
        return outputs if outputs.shape[1] == self.n_outputs else self._first_columns(outputs)

    def _first_columns(self, outputs: torch.Tensor) -> torch.Tensor:
        used = outputs[:, : self.n_outputs]
        if self.kind == "softmax":
            return used / used.sum(1, keepdim=True)
        return used.log_softmax(1) if self.kind == "log_softmax" else used

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each row, shape (rows,)."""
        return self.criterion(self.columns(outputs), targets)

    def loss_weights(
        self, targets: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The weight of the loss of each row: of the sample times of its class."""
        if self.class_weight is None:
            return weight
        of_class = self.class_weight[targets.reshape(-1).long()]
        return of_class if weight is None else of_class * weight

    @abstractmethod
    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes of labels as the loss wants them."""

    @abstractmethod
    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Whether each row was answered right, shape (rows,), bool."""

    @abstractmethod
    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Codes of the best answers, shape (rows,); indicators when multilabel."""

    @abstractmethod
    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities, float, shape (rows, n_classes)."""

    @abstractmethod
    def decisions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Log-odds (binary, shape (rows,); multilabel) or logits of the classes."""


class MulticlassHead(Head):
    """One column a class; the largest is the answer."""

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.columns(outputs).argmax(1)

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.answers(outputs) == targets

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        if self.kind == "sigmoid":
            return F.normalize(columns, p=1, dim=1)
        if self.kind == "softmax":
            return columns
        if self.kind == "logits" and self.criterion.is_one_vs_rest:
            return F.normalize(columns.sigmoid(), p=1, dim=1)
        return columns.exp() if self.kind == "log_softmax" else columns.softmax(1)

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        if self.kind == "sigmoid":
            columns = columns.logit(1e-7)
        if self.kind == "softmax":
            columns = columns.log().clamp(min=_SMALLEST_LOG)
        return columns[:, 1] - columns[:, 0] if self.n_outputs == 2 else columns


class BinaryHead(Head):
    """One column for the second of two classes."""

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.unsqueeze(1)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._is_second(outputs).squeeze(1).long()

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self._is_second(outputs) == targets).squeeze(1)

    def _is_second(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.columns(outputs) > (0.5 if self.kind == "sigmoid" else 0.0)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        second = columns if self.kind == "sigmoid" else columns.sigmoid()
        return torch.cat([1 - second, second], dim=1)

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs).squeeze(1)
        return columns.logit(1e-7) if self.kind == "sigmoid" else columns


class MultilabelHead(Head):
    """One column a label; any number of labels may be true."""

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return (self.columns(outputs) > (0.5 if self.kind == "sigmoid" else 0.0)).long()

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self.answers(outputs) == targets).all(1)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        return columns if self.kind == "sigmoid" else columns.sigmoid()

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        return columns.logit(1e-7) if self.kind == "sigmoid" else columns


def build_head(
    outputs: tuple[Any, Any],
    module_name: str,
    n_rows: int,
    classes: Labels,
    *,
    is_multilabel: bool,
    loss: LossLike,
    keywords: Mapping[str, Any],
    class_weight: torch.Tensor | None,
    is_weighted: bool,
) -> Head:
    """Read from a few outputs what they mean, and choose or check the loss.

    Parameters
    ----------
    outputs : tuple of two
        What the module returned in training and in evaluation for `n_rows` rows.
    module_name : str
        For the errors.
    n_rows : int
        Rows that were passed.
    classes : ndarray of shape (n_classes,)
        Classes, or numbers of the labels.
    is_multilabel : bool
        Whether any number of labels may be true of a row.
    loss : str, class, instance or callable
        As in `Estimator`.
    keywords : mapping
        The user's `loss__*`, without the prefix.
    class_weight : Tensor of shape (n_classes,) or None
        Weights of the classes.
    is_weighted : bool
        Whether rows have weights.

    Raises
    ------
    ValueError
        If the outputs cannot be trained, or contradict the loss.
    TypeError
        If an output is not a tensor, or a `loss__*` is not taken.
    """
    output, kind = _read_kind(outputs, module_name, n_rows)
    n_columns, n_classes = output.shape[1], len(classes)
    if is_multilabel:
        head_class: type[Head] = MultilabelHead
        if n_columns != n_classes:
            raise ValueError(
                f"{module_name} has {n_columns} output(s) but `y` has {n_classes} label columns; "
                "make the last layer as wide as `y`."
            )
    elif n_columns == 1 and n_classes == 2:
        head_class = BinaryHead
    else:
        head_class = MulticlassHead
        _check_enough_columns(module_name, n_columns, classes)
    if kind in ("softmax", "log_softmax") and (n_columns == 1 or is_multilabel):
        raise ValueError(
            f"{module_name} ends in {kind} over {n_columns} column(s), which cannot answer "
            f"{'several labels at once' if is_multilabel else 'two classes with one column'}; "
            "end it without activation, or with a sigmoid."
        )
    is_chosen = isinstance(loss, str) and loss == "auto"
    if is_chosen:
        loss = _choose_loss(kind, head_class, module_name)
    built = _build_loss(loss, keywords)
    takes_log = isinstance(loss, str) and loss == "nll" and kind == "softmax"
    if not takes_log:
        _check_fits(built, kind, head_class, module_name)
    n_used = 1 if head_class is BinaryHead else n_classes
    criterion, class_weight = _row_loss(built, head_class, n_used, takes_log, class_weight)
    head = head_class(kind, n_used, criterion, class_weight)
    if isinstance(criterion, CustomLoss):
        shape = (n_rows, n_classes) if is_multilabel else (n_rows,)
        codes = torch.zeros(shape, dtype=torch.int64, device=output.device)
        head.to(output.device, output.dtype)
        criterion.check(head.columns(output), head.targets(codes))
    if not criterion.carries_weights and (is_weighted or head.class_weight is not None):
        raise ValueError(
            f"`loss` {name_of(loss)} returns one scalar for a batch, which cannot carry "
            "`sample_weight` or `class_weight`; let it return one value for each row "
            "(reduction='none')."
        )
    return head


def _read_kind(outputs: tuple[Any, Any], module_name: str, n_rows: int) -> tuple[torch.Tensor, str]:
    output = _read_output(outputs[0], n_rows, f"{module_name}.forward")
    evaluated = _read_output(outputs[1], n_rows, f"{module_name}.forward in evaluation")
    kind, evaluated_kind = output_kind(outputs[0]), output_kind(outputs[1])
    if kind != evaluated_kind or output.shape != evaluated.shape:
        raise ValueError(
            f"{module_name} returns {kind} of shape {tuple(output.shape)} in training but "
            f"{evaluated_kind} of shape {tuple(evaluated.shape)} in evaluation; return the same "
            "in both (the probabilities come from `predict_proba`)."
        )
    if kind in ("softmax", "log_softmax") and output.shape[1] > 1:
        sums = (output.exp() if kind == "log_softmax" else output).sum(1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            raise ValueError(
                f"{module_name} ends in {kind}, but its rows do not sum to 1 (the first sums to "
                f"{sums[0].item():.4g}): it runs over another dimension than the classes; "
                "use dim=1."
            )
    return output, kind


def _check_enough_columns(module_name: str, n_columns: int, classes: Labels) -> None:
    if n_columns < len(classes):
        shown = ", ".join(repr(label) for label in classes.tolist()[:5])
        raise ValueError(
            f"{module_name} outputs {n_columns} column(s) but `y` has {len(classes)} classes "
            f"[{shown}{', ...' if len(classes) > 5 else ''}]; make its last layer "
            f"{len(classes)} wide."
        )
    if n_columns > len(classes):
        warnings.warn(
            f"{module_name} outputs {n_columns} columns but `y` has {len(classes)} classes; "
            f"the first {len(classes)} columns are used.",
            UserWarning,
            stacklevel=2,
        )


def _choose_loss(kind: str, head_class: type[Head], module_name: str) -> str:
    if head_class is not MulticlassHead:
        return "bce" if kind == "sigmoid" else "bce_with_logits"
    if kind == "sigmoid":
        raise ValueError(
            f"{module_name} ends in a sigmoid of several columns, but each row has one class; end "
            "it without activation, or ask for one-vs-rest with loss='bce'."
        )
    return "cross_entropy" if kind == "logits" else "nll"


def _build_loss(loss: LossLike, keywords: Mapping[str, Any]) -> Callable[..., torch.Tensor]:
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


def _check_fits(
    loss: Callable[..., torch.Tensor], kind: str, head_class: type[Head], module_name: str
) -> None:
    """Refuse a loss of torch's that contradicts the outputs."""
    for loss_class, kinds in _FITS.items():
        if isinstance(loss, loss_class):
            if kind not in kinds:
                raise ValueError(
                    f"`loss` {loss_class.__name__} contradicts {module_name}, which ends in "
                    f"{'raw logits' if kind == 'logits' else kind}: {loss_class.__name__} expects "
                    f"{' or '.join(kinds)}. Use loss='auto', or {_RIGHT_LOSS[kind]}."
                )
            if head_class is not MulticlassHead and loss_class in (nn.CrossEntropyLoss, nn.NLLLoss):
                has = "one column a label" if head_class is MultilabelHead else "one column"
                raise ValueError(
                    f"`loss` {loss_class.__name__} needs one column for each class, but "
                    f"{module_name} has {has}; use loss='auto'."
                )


def _row_loss(
    loss: Callable[..., torch.Tensor],
    head_class: type[Head],
    n_used: int,
    takes_log: bool,
    class_weight: torch.Tensor | None,
) -> tuple[RowLoss, torch.Tensor | None]:
    """The loss of each row, with the weights of classes that the loss held in `class_weight`."""
    if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)):
        return BernoulliLoss(loss, n_used if head_class is MulticlassHead else None), class_weight
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return CustomLoss(loss, name_of(loss)), class_weight
    own = torch.ones(n_used, dtype=torch.float64)
    weight = loss.weight
    if weight is not None:
        if weight.shape != (n_used,):
            raise ValueError(
                f"`loss` {name_of(loss)} has a weight of shape {tuple(weight.shape)}; expected one "
                f"for each class, shape ({n_used},)."
            )
        own = weight.detach().cpu().double()
    if 0 <= loss.ignore_index < n_used:
        own = own.index_fill(0, torch.tensor(loss.ignore_index), 0.0)
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
    return (NegativeLogLikelihood if takes_log else RowLoss)(loss), combined
