"""Raw outputs of a module to losses of rows, probabilities, answers and hits."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from easyclf.checks import name_of
from easyclf.losses import (
    SMALLEST_LOG,
    CustomLoss,
    LossLike,
    RowLoss,
    build_loss,
    row_loss,
    softmax,
)
from easyclf.output_kinds import output_kind
from easyclf.targets import Labels

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


def _shares(columns: torch.Tensor) -> torch.Tensor:
    """Columns that sum to 1 in each row: equal ones where all are 0."""
    columns = columns + 1e-30
    return columns / columns.sum(1, keepdim=True)


class Head(ABC):
    """What the outputs of a module mean: the base of one head for each row of the loss table.

    Parameters
    ----------
    kind : str
        "logits", "sigmoid", "softmax" or "log_softmax".
    n_columns : int
        Columns of the outputs.
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
        n_columns: int,
        n_outputs: int,
        criterion: RowLoss,
        class_weight: torch.Tensor | None,
    ) -> None:
        self.kind = kind
        self.n_columns = n_columns
        self.n_outputs = n_outputs
        self.criterion = criterion
        self.class_weight = class_weight

    def to(self, device: torch.device, dtype: torch.dtype) -> Head:
        """Move the tensors that the head holds to the device of the module."""
        if self.class_weight is not None:
            self.class_weight = self.class_weight.to(device, dtype)
        self.criterion.to(device, dtype)
        return self

    def columns(self, outputs: torch.Tensor) -> torch.Tensor:
        """The raw outputs as (rows, n_outputs)."""
        if outputs.ndim != 2:
            # Also one row whose own dimension the module squeezed away.
            outputs = outputs.reshape(-1, self.n_columns)
        return outputs if outputs.shape[1] == self.n_outputs else self._first_columns(outputs)

    def _first_columns(self, outputs: torch.Tensor) -> torch.Tensor:
        used = outputs[:, : self.n_outputs]
        if self.kind == "softmax":
            return _shares(used)
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
        if targets.is_floating_point():
            of_class = targets.to(self.class_weight.dtype) @ self.class_weight
        else:
            of_class = self.class_weight[targets.reshape(-1).long()]
        return of_class if weight is None else of_class * weight

    @property
    def takes_shares(self) -> bool:
        """Whether a target may be the share of each class, as `MixUp` makes them."""
        return False

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

    @property
    def takes_shares(self) -> bool:
        return self.criterion.takes_shares

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2 and self.class_weight is not None:
            # Each share counts with the weight of its class; `loss_weights` has their sum.
            weighed = targets * self.class_weight
            total = weighed.sum(1, keepdim=True)
            targets = weighed / total.clamp(min=torch.finfo(total.dtype).tiny)
        return super().losses(outputs, targets)

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.columns(outputs).argmax(1)

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            targets = targets.argmax(1)
        return self.answers(outputs) == targets

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        if self.kind == "sigmoid":
            return _shares(columns)
        if self.kind == "softmax":
            return columns
        if self.kind == "logits" and self.criterion.is_one_vs_rest:
            return _shares(columns.sigmoid())
        return columns.exp() if self.kind == "log_softmax" else softmax(columns)

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.columns(outputs)
        if self.kind == "sigmoid":
            columns = columns.logit(1e-7)
        if self.kind == "softmax":
            columns = columns.log().clamp(min=SMALLEST_LOG)
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
    if isinstance(loss, str) and loss == "auto":
        loss = _choose_loss(kind, head_class, module_name)
    built = build_loss(loss, keywords)
    takes_log = isinstance(loss, str) and loss == "nll" and kind == "softmax"
    if not takes_log:
        _check_fits(built, kind, head_class, module_name)
    n_used = 1 if head_class is BinaryHead else n_classes
    criterion, class_weight = row_loss(
        built, n_used, head_class is MulticlassHead, takes_log, class_weight
    )
    head = head_class(kind, n_columns, n_used, criterion, class_weight)
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
