"""Raw outputs of a module to losses of rows, probabilities, answers and hits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from easyclf.checks import name_of, warn_user
from easyclf.losses import (
    CustomLoss,
    LossLike,
    OneVsRestLoss,
    RowLoss,
    build_loss,
    class_weights_of,
    row_loss,
)
from easyclf.output_kinds import (
    LOG_SOFTMAX,
    LOGITS,
    SIGMOID,
    SOFTMAX,
    ColumnwiseKind,
    OneVsRestLogits,
    OutputKind,
    is_linear_layer,
    kind_of_values,
    likely_kind,
    output_kind,
)
from easyclf.targets import Labels

# What a criterion wants beside outputs and targets, by name.
Context = Mapping[str, object] | None
# Which explicit losses fit which outputs.
_FITTING_KINDS: dict[type[nn.Module], tuple[OutputKind, ...]] = {
    nn.CrossEntropyLoss: (LOGITS, LOG_SOFTMAX),
    nn.NLLLoss: (LOG_SOFTMAX,),
    nn.BCELoss: (SIGMOID,),
    nn.BCEWithLogitsLoss: (LOGITS,),
}


@dataclass(frozen=True)
class ProbedOutputs:
    """What a module returned for a few rows.

    Attributes
    ----------
    module_name : str
        For the errors.
    n_rows : int
        Rows that were passed.
    in_training, in_evaluation : object
        What came back in each mode: tensors of shape (n_rows, n_columns), if all is well.
    varied : callable
        It gives tensors of the same shape that come back under other weights.
    context : mapping
        The rows, "x", and the "module", for losses that want them.
    """

    module_name: str
    n_rows: int
    in_training: object
    in_evaluation: object
    varied: Callable[[], Iterable[torch.Tensor]]
    context: Mapping[str, object] = field(default_factory=dict)


class Head(ABC):
    """What the outputs of a module mean: the base of one head for each row of the loss table.

    Parameters
    ----------
    n_columns : int
        Columns of the outputs.
    n_outputs : int
        Columns that are used: classes, labels, or 1.
    criterion : RowLoss
        The losses of rows.
    class_weight : Tensor of shape (n_classes,) or None
        Weight of the loss of each class.
    """

    kind: OutputKind

    def __init__(
        self,
        n_columns: int,
        n_outputs: int,
        criterion: RowLoss,
        class_weight: torch.Tensor | None,
    ) -> None:
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
        """Bring raw outputs into the shape (n_rows, n_outputs); a view where that is possible."""
        if outputs.ndim != 2:
            # Also one row whose own dimension the module squeezed away.
            outputs = outputs.reshape(-1, self.n_columns)
        if outputs.shape[1] == self.n_outputs:
            return outputs
        return self.kind.first_columns(outputs, self.n_outputs)

    def loss_weights(
        self, targets: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Compute the weight of the loss of each row: of the sample times of its class.

        Parameters
        ----------
        targets : Tensor of shape (n_rows,), (n_rows, 1) or (n_rows, n_classes)
            Codes of classes, or shares of them.
        weight : Tensor of shape (n_rows,) or None
            Weights of the samples.

        Returns
        -------
        weights : Tensor of shape (n_rows,) or None
            None where all rows count alike.
        """
        if self.class_weight is None:
            return weight
        if targets.is_floating_point():
            of_class = targets.to(self.class_weight.dtype) @ self.class_weight
        else:
            of_class = self.class_weight[targets.reshape(-1).long()]
        return of_class if weight is None else of_class * weight

    @property
    @abstractmethod
    def takes_shares(self) -> bool:
        """Whether a target may be the share of each class, as `MixUp` makes them."""

    @abstractmethod
    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        """Turn codes, of shape (n_rows,) or (n_rows, n_labels), into what the loss wants."""

    @abstractmethod
    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, context: Context = None
    ) -> torch.Tensor:
        """Compute the loss of each row, shape (n_rows,), of raw outputs.

        `context` has what the criterion wants beside them.
        """

    def mean_loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, context: Context = None
    ) -> torch.Tensor:
        """Compute the mean of `losses`, shape (), where all rows count alike."""
        return self.criterion.bound(context).mean(self.columns(outputs), targets)

    @abstractmethod
    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Tell of each row whether it was answered right, shape (n_rows,), bool."""

    @abstractmethod
    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Give the codes of the best answers, shape (n_rows,); indicators when multilabel."""

    @abstractmethod
    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Compute probabilities in the dtype of the outputs.

        Parameters
        ----------
        outputs : Tensor of shape (n_rows, n_columns), or of any that `columns` takes
            What the module returned. It is not written to.

        Returns
        -------
        probabilities : Tensor of shape (n_rows, n_classes)
            In the order of the classes; rows sum to 1 unless the target is multilabel. It may be
            `outputs` itself.
        """

    @abstractmethod
    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Compute the logarithms of `probabilities`, of shape (n_rows, n_classes).

        They still rank rows and classes whose probabilities are rounded to 0 or 1.
        """

    @abstractmethod
    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Compute log-odds (two classes: shape (n_rows,); multilabel) or logits of the classes."""


class MulticlassHead(Head):
    """One column a class; the largest is the answer."""

    def __init__(
        self,
        kind: OutputKind,
        n_columns: int,
        n_outputs: int,
        criterion: RowLoss,
        class_weight: torch.Tensor | None,
    ) -> None:
        super().__init__(n_columns, n_outputs, criterion, class_weight)
        self.kind = kind

    @property
    def takes_shares(self) -> bool:
        return self.criterion.takes_shares

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, context: Context = None
    ) -> torch.Tensor:
        if targets.ndim == 2 and self.class_weight is not None:
            # Each share counts with the weight of its class; `loss_weights` has their sum.
            weighted = targets * self.class_weight
            total = weighted.sum(1, keepdim=True)
            targets = weighted / total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.criterion.bound(context)(self.columns(outputs), targets)

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            targets = targets.argmax(1)
        return self.answers(outputs) == targets

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.columns(outputs).argmax(1)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.probabilities(self.columns(outputs))

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.log_probabilities(self.columns(outputs))

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        columns = self.kind.logits(self.columns(outputs))
        return columns[:, 1] - columns[:, 0] if self.n_outputs == 2 else columns


class ColumnwiseHead(Head):
    """Columns that each say yes or no: the base of the binary and of the multilabel head."""

    kind: ColumnwiseKind

    def __init__(
        self,
        kind: ColumnwiseKind,
        n_columns: int,
        n_outputs: int,
        criterion: RowLoss,
        class_weight: torch.Tensor | None,
    ) -> None:
        super().__init__(n_columns, n_outputs, criterion, class_weight)
        self.kind = kind

    @property
    def takes_shares(self) -> bool:
        return False

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, context: Context = None
    ) -> torch.Tensor:
        return self.criterion.bound(context)(self.columns(outputs), targets)

    def _is_yes(self, outputs: torch.Tensor) -> torch.Tensor:
        """The answer of each column, shape (n_rows, n_outputs), bool."""
        return self.columns(outputs) > self.kind.threshold


class BinaryHead(ColumnwiseHead):
    """One column for the second of two classes."""

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.unsqueeze(1)

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self._is_yes(outputs) == targets).squeeze(1)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._is_yes(outputs).squeeze(1).long()

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        column = self.columns(outputs)
        return torch.cat([self.kind.chances_against(column), self.kind.chances(column)], dim=1)

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        column = self.columns(outputs)
        both = [self.kind.log_chances_against(column), self.kind.log_chances(column)]
        return torch.cat(both, dim=1)

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.logits(self.columns(outputs)).squeeze(1)


class MultilabelHead(ColumnwiseHead):
    """One column a label; any number of labels may be true."""

    def targets(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self._is_yes(outputs) == targets).all(1)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return self._is_yes(outputs).long()

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.chances(self.columns(outputs))

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.log_chances(self.columns(outputs))

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.kind.logits(self.columns(outputs))


def build_head(
    outputs: ProbedOutputs,
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
    outputs : ProbedOutputs
        What the module returned for a few rows.
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
    columns, kind, is_certain = _read_kind(outputs)
    head_class = _choose_head(outputs.module_name, columns.shape[1], classes, is_multilabel)
    _check_kind(kind, head_class, outputs.module_name, columns.shape[1])
    if isinstance(loss, str) and loss == "auto":
        if not is_certain:
            raise ValueError(_describe_doubt(kind, outputs.module_name))
        loss = _choose_loss(kind, head_class, outputs.module_name)
    built = build_loss(loss, keywords)
    takes_log = isinstance(loss, str) and loss == "nll" and kind is SOFTMAX
    if not takes_log:
        _check_fits(built, kind, head_class, outputs.module_name)
    n_outputs = 1 if head_class is BinaryHead else len(classes)
    criterion = row_loss(built, takes_log=takes_log, is_one_of_many=head_class is MulticlassHead)
    weights = _product(class_weight, class_weights_of(built, n_outputs))
    if isinstance(criterion, OneVsRestLoss) and kind is LOGITS:
        kind = OneVsRestLogits()
    head: Head
    if issubclass(head_class, MulticlassHead):
        head = head_class(kind, columns.shape[1], n_outputs, criterion, weights)
    else:
        assert isinstance(kind, ColumnwiseKind)  # `_check_kind` has refused others
        head = head_class(kind, columns.shape[1], n_outputs, criterion, weights)
    if isinstance(criterion, CustomLoss):
        bound = criterion.bound(outputs.context)
        _try_loss(bound, head, columns, len(classes) if is_multilabel else None)
        criterion.carries_weights = bound.carries_weights
    _check_weights(criterion, loss, is_weighted=is_weighted or weights is not None)
    return head


def _read_kind(outputs: ProbedOutputs) -> tuple[torch.Tensor, OutputKind, bool]:
    """Read what the outputs are: by the graph, else by their values.

    Returns
    -------
    columns : Tensor of shape (n_rows, n_columns)
        The outputs in training, with their graph.
    kind : OutputKind
        The same in training and in evaluation.
    is_certain : bool
        False where only the values say that they are probabilities.

    Raises
    ------
    ValueError
        If the module returns something else in evaluation, or a softmax runs over the rows.
    """
    name, n_rows = outputs.module_name, outputs.n_rows
    columns = _read_columns(outputs.in_training, n_rows, f"{name}.forward")
    evaluated = _read_columns(outputs.in_evaluation, n_rows, f"{name}.forward in evaluation")
    kind, evaluated_kind = output_kind(columns), output_kind(evaluated)
    is_certain = True
    if kind is LOGITS and evaluated_kind is LOGITS and not is_linear_layer(evaluated):
        evaluated_kind = kind_of_values(evaluated, outputs.varied)
        is_certain = evaluated_kind is LOGITS
        kind = LOGITS if is_certain else likely_kind(columns)
    if kind is not evaluated_kind or columns.shape != evaluated.shape:
        raise ValueError(
            f"{name} returns {kind.name} of shape {tuple(columns.shape)} in training but "
            f"{evaluated_kind.name} of shape {tuple(evaluated.shape)} in evaluation; return the "
            "same in both (the probabilities come from `predict_proba`)."
        )
    if kind in (SOFTMAX, LOG_SOFTMAX) and columns.shape[1] > 1:
        sums = kind.probabilities(columns).sum(1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            raise ValueError(
                f"{name} ends in {kind.name}, but its rows do not sum to 1 (the first sums to "
                f"{sums[0].item():.4g}): it runs over another dimension than the classes; "
                "use dim=1."
            )
    return columns, kind, is_certain


def _read_columns(output: object, n_rows: int, what: str) -> torch.Tensor:
    """Bring a probed output into the shape (n_rows, n_columns), or refuse what cannot be trained.

    Raises
    ------
    TypeError
        If it is no tensor.
    ValueError
        If its shape is another, or it is not finite or not differentiable.
    """
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"{what} returned a {type(output).__name__}; expected one tensor of shape "
            "(rows, columns): return only the logits from `forward`, or say with `output` which "
            "part is answered: a key, a place, or a function."
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


def _describe_doubt(kind: OutputKind, module_name: str) -> str:
    """Name both ways out where values are probabilities but no known operation made them."""
    if kind is SOFTMAX:
        values, loss, layer = "values in [0, 1] that sum to 1 in each row", "nll", "nn.Softmax"
    else:
        values, loss, layer = "values in [0, 1]", "bce", "nn.Sigmoid"
    return (
        f"{module_name} returns {values} whatever its weights are, but no {layer} is its last "
        "operation. Logits are expected, or probabilities that are known as such: if these are "
        f"probabilities, use loss={loss!r}; else return the logits, without what brings them "
        "into [0, 1]."
    )


def _choose_head(
    module_name: str, n_columns: int, classes: Labels, is_multilabel: bool
) -> type[MulticlassHead] | type[BinaryHead] | type[MultilabelHead]:
    """Choose the head by the number of columns, and refuse too few of them."""
    if is_multilabel:
        if n_columns != len(classes):
            raise ValueError(
                f"{module_name} has {n_columns} output(s) but `y` has {len(classes)} label "
                "columns; make the last layer as wide as `y`."
            )
        return MultilabelHead
    if n_columns == 1 and len(classes) == 2:
        return BinaryHead
    _check_enough_columns(module_name, n_columns, classes)
    return MulticlassHead


def _check_kind(kind: OutputKind, head_class: type[Head], module_name: str, n_columns: int) -> None:
    """Refuse a softmax where columns do not stand for classes of which one is true."""
    is_multilabel = head_class is MultilabelHead
    if not isinstance(kind, ColumnwiseKind) and (n_columns == 1 or is_multilabel):
        raise ValueError(
            f"{module_name} ends in {kind.name} over {n_columns} column(s), which cannot answer "
            f"{'several labels at once' if is_multilabel else 'two classes with one column'}; "
            "end it without activation, or with a sigmoid."
        )


def _check_enough_columns(module_name: str, n_columns: int, classes: Labels) -> None:
    if n_columns < len(classes):
        shown = ", ".join(repr(label) for label in classes.tolist()[:5])
        raise ValueError(
            f"{module_name} outputs {n_columns} column(s) but `y` has {len(classes)} classes "
            f"[{shown}{', ...' if len(classes) > 5 else ''}]; make its last layer "
            f"{len(classes)} wide."
        )
    if n_columns > len(classes):
        warn_user(
            f"{module_name} outputs {n_columns} columns but `y` has {len(classes)} classes; "
            f"the first {len(classes)} columns are used.",
        )


def _choose_loss(kind: OutputKind, head_class: type[Head], module_name: str) -> str:
    if head_class is not MulticlassHead:
        return "bce" if kind is SIGMOID else "bce_with_logits"
    if kind is SIGMOID:
        raise ValueError(
            f"{module_name} ends in a sigmoid of several columns, but each row has one class; end "
            "it without activation, or ask for one-vs-rest with loss='bce'."
        )
    return "cross_entropy" if kind is LOGITS else "nll"


def _check_fits(
    loss: Callable[..., torch.Tensor], kind: OutputKind, head_class: type[Head], module_name: str
) -> None:
    """Refuse a loss of torch's that contradicts the outputs."""
    for loss_class, kinds in _FITTING_KINDS.items():
        if isinstance(loss, loss_class):
            if kind not in kinds:
                expected = " or ".join(fitting.name for fitting in kinds)
                raise ValueError(
                    f"`loss` {loss_class.__name__} contradicts {module_name}, which ends in "
                    f"{'raw logits' if kind is LOGITS else kind.name}: {loss_class.__name__} "
                    f"expects {expected}. Use loss='auto', or {kind.right_loss}."
                )
            if head_class is not MulticlassHead and loss_class in (nn.CrossEntropyLoss, nn.NLLLoss):
                has = "one column a label" if head_class is MultilabelHead else "one column"
                raise ValueError(
                    f"`loss` {loss_class.__name__} needs one column for each class, but "
                    f"{module_name} has {has}; use loss='auto'."
                )


def _product(
    class_weight: torch.Tensor | None, of_loss: torch.Tensor | None
) -> torch.Tensor | None:
    """Multiply the user's weights of classes with those that the loss holds, shape (n_classes,)."""
    if class_weight is None or of_loss is None:
        return of_loss if class_weight is None else class_weight
    return class_weight * of_loss


def _try_loss(
    criterion: CustomLoss, head: Head, columns: torch.Tensor, n_labels: int | None
) -> None:
    """Compute the user's own loss for the probed outputs, of shape (n_rows, n_columns)."""
    shape = (len(columns),) if n_labels is None else (len(columns), n_labels)
    codes = torch.zeros(shape, dtype=torch.int64, device=columns.device)
    head.to(columns.device, columns.dtype)
    criterion.check(head.columns(columns), head.targets(codes))


def _check_weights(criterion: RowLoss, loss: LossLike, *, is_weighted: bool) -> None:
    """Refuse weights where the loss is one number for all rows."""
    if is_weighted and not criterion.carries_weights:
        raise ValueError(
            f"`loss` {name_of(loss)} returns one scalar for a batch, which cannot carry "
            "`sample_weight` or `class_weight`; let it return one value for each row "
            "(reduction='none')."
        )
