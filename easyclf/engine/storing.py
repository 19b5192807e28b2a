"""What a fit left, as plain values and tensors that a file can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from easyclf.codec import known_optimizers, reason_not_stored
from easyclf.data import describe_format, describe_schema, make_format, make_schema
from easyclf.device import HOST
from easyclf.engine.fitted import Fitted
from easyclf.engine.given import Given
from easyclf.engine.rebuilding import describe_module, find_module, rebuild
from easyclf.heads import BinaryHead, Head, MulticlassHead, MultilabelHead
from easyclf.history import History, columns_of, rows_of
from easyclf.losses import (
    BernoulliLoss,
    CategoricalLoss,
    CrossEntropy,
    CustomLoss,
    NegativeLogLikelihood,
    OneVsRestLoss,
    RowLoss,
    SmoothedCrossEntropy,
    build_loss,
    row_loss,
)
from easyclf.mlp import MLP
from easyclf.modules import AdaptsToRows
from easyclf.optimizers import load_state, make_optimizer
from easyclf.output_choice import OutputChoice
from easyclf.output_kinds import LOG_SOFTMAX, LOGITS, SIGMOID, SOFTMAX, OneVsRestLogits
from easyclf.precision import FullPrecision, MixedPrecision, Precision
from easyclf.randomness import isolated
from easyclf.reordering import ReorderedHead, in_order_of_classes
from easyclf.targets import TargetEncoder
from easyclf.weights import put_weights, weights_of

Plain = dict[str, Any]
Groups = dict[str, dict[str, torch.Tensor]]

_HEADS = {cls.__name__: cls for cls in (MulticlassHead, BinaryHead, MultilabelHead)}
_CRITERIA: dict[str, type[RowLoss]] = {
    cls.__name__: cls
    for cls in (
        *(BernoulliLoss, CategoricalLoss, CrossEntropy, NegativeLogLikelihood, OneVsRestLoss),
        SmoothedCrossEntropy,
    )
}
_KINDS = {
    type(kind).__name__: kind for kind in (LOGITS, SIGMOID, SOFTMAX, LOG_SOFTMAX, OneVsRestLogits())
}
# The loss that "auto" takes for outputs of each kind, of several columns and of one for each label.
_LOSSES = {
    "Logits": ("cross_entropy", "bce_with_logits"),
    "Sigmoid": ("bce", "bce"),
    "Softmax": ("nll", ""),
    "LogSoftmax": ("nll", ""),
    "OneVsRestLogits": ("bce_with_logits", ""),
}


class Described(NamedTuple):
    """A fit as plain values and groups of tensors.

    Attributes
    ----------
    values : dict
        Plain values, for an `Encoder`.
    tensors : dict of str to dict of str to Tensor
        Of any shapes.
    lost : dict of str to str
        What is not stored, by the names of parameters, described.
    """

    values: Plain
    tensors: Groups
    lost: dict[str, str]


def describe_fitted(fitted: Fitted) -> Described:
    """Describe a fit, in values of types that files hold."""
    module, lost = fitted.module, dict[str, str]()
    state = weights_of(module)
    history = fitted.history
    optimizer = _describe_optimizer(fitted.optimizer, module)
    if optimizer is None:
        lost["the state of the optimizer"] = type(fitted.optimizer).__qualname__
    values = {
        "module": _describe_given(fitted.given, lost),
        "is_frozen": [n for n, weight in module.named_parameters() if not weight.requires_grad],
        "is_adapted": module.is_adapted if isinstance(module, AdaptsToRows) else None,
        "head": _describe_head(fitted.head),
        "classes": fitted.encoder.classes_,
        "outputs": fitted.encoder.of_outputs(fitted.encoder.classes_),
        "is_multilabel": fitted.encoder.is_multilabel,
        "precision": type(fitted.precision).__name__,
        "output": _storable(fitted.precision.choice.which, "output", lost),
        "format": describe_format(fitted.input_format),
        "schema": describe_schema(fitted.schema),
        "row_numbers": fitted.row_numbers,
        "frozen": fitted.frozen,
        "seed": fitted.seed,
        "class_names": None if fitted.class_names is None else list(fitted.class_names),
        "metrics": list(history.metrics),
        "quantities": history.keys(),
        "optimizer": optimizer,
    }
    if fitted.input_format.preprocess is not None:
        lost["preprocess"] = "a transform"
    tensors = {
        "module": state,
        "buffers": {n: buffer for n, buffer in module.named_buffers() if n not in state},
        "statistics": module.statistics() if isinstance(module, MLP) else {},
        "history": columns_of(history),
    }
    return Described(values, tensors, lost)


def _storable(value: object, name: str, lost: dict[str, str]) -> object:
    """The value itself, or None where files cannot hold it, which is then lost."""
    reason = reason_not_stored(value)
    if reason is None:
        return value
    lost[name] = reason
    return None


def _describe_given(given: Given, lost: dict[str, str]) -> Plain:
    keywords = {
        name: _storable(value, f"module__{name}", lost) for name, value in given.keywords.items()
    }
    return {
        **describe_module(given.module),
        "keywords": {
            name: value for name, value in keywords.items() if f"module__{name}" not in lost
        },
        "row_shape": given.row_shape,
        "n_outputs": given.n_outputs,
    }


def _describe_head(head: Head) -> Plain:
    if isinstance(head, ReorderedHead):
        # Its order is that of the outputs.
        head = head.inner
    criterion = head.criterion
    is_known = type(criterion).__name__ in _CRITERIA and reason_not_stored(criterion.loss) is None
    return {
        "type": type(head).__name__,
        "kind": type(head.kind).__name__,
        "n_columns": head.n_columns,
        "n_outputs": head.n_outputs,
        "class_weight": head.class_weight,
        "criterion": type(criterion).__name__ if is_known else None,
        "loss": criterion.loss if is_known else None,
        "carries_weights": criterion.carries_weights,
    }


def _describe_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module) -> Plain | None:
    """Its class, its settings and its state; None for a class that torch does not provide."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    state = optimizer.state_dict()
    weights = [
        [names.get(id(weight), "") for weight in group["params"]]
        for group in optimizer.param_groups
    ]
    described = {
        "type": {cls: name for name, cls in known_optimizers().items()}.get(type(optimizer)),
        "weights": weights,
        "state": {key: _as_dict(values) for key, values in state["state"].items()},
        "groups": [dict(group) for group in state["param_groups"]],
    }
    is_stored = (
        described["type"] and all(map(all, weights)) and reason_not_stored(described) is None
    )
    return described if is_stored else None


def _as_dict(values: object) -> object:
    return dict(values) if isinstance(values, Mapping) else values


@dataclass(frozen=True)
class Wanted:
    """What the caller of `load` gives, beside the file.

    Attributes
    ----------
    module : class, callable, nn.Module, str or None
        In place of the one that the file names.
    trusted : str or collection of str
        Names that may be imported.
    parameters : mapping
        The parameters of the estimator, those that the file holds included.
    """

    module: Any
    trusted: Any
    parameters: Mapping[str, Any]


def module_of(
    values: Mapping[str, Any], tensors: Groups, wanted: Wanted
) -> tuple[Given, nn.Module]:
    """Build the module of a file, with its weights.

    Parameters
    ----------
    values, tensors : as of `Described`
        What the file holds.
    wanted : Wanted
        What the caller gives.

    Raises
    ------
    ValueError
        If the module cannot be found, or is another one.
    """
    described = values["module"]
    found = find_module(described, wanted.module, wanted.trusted)
    keywords = {**described["keywords"], **wanted.parameters["module_keywords"]}
    keywords = {} if isinstance(found, nn.Module) else keywords
    given = Given(found, keywords, described["row_shape"], described["n_outputs"])
    is_known = wanted.module is None and described["kind"] != "importable"
    with isolated(values["seed"], HOST):
        module = rebuild(given, tensors["module"], is_known=is_known)
    module.to(HOST, values["format"]["dtype"])
    if values["format"]["memory_format"] is torch.channels_last:
        module.to(memory_format=torch.channels_last)
    _take_dtypes(module, tensors["module"])
    put_weights(module, tensors["module"])
    _put_buffers(module, tensors["buffers"])
    is_frozen = set(values["is_frozen"])
    for name, weight in module.named_parameters():
        if weight.is_floating_point():
            weight.requires_grad_(name not in is_frozen)
    if isinstance(module, MLP) and tensors["statistics"]:
        module.take_statistics(tensors["statistics"])
    elif isinstance(module, AdaptsToRows) and values["is_adapted"] is not None:
        module.is_adapted = bool(values["is_adapted"])
    return given, module.eval()


def _take_dtypes(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give weights and buffers the dtypes of those that they will take."""
    for name, own in [*module.named_parameters(), *module.named_buffers()]:
        if name in weights and own.dtype != weights[name].dtype and type(own) in _PLAIN_TENSORS:
            own.data = own.data.to(weights[name].dtype)


_PLAIN_TENSORS = (torch.Tensor, nn.Parameter)


def _put_buffers(module: nn.Module, buffers: Mapping[str, torch.Tensor]) -> None:
    """Copy buffers that no `state_dict` has; those of a module that makes others stay out."""
    own = dict(module.named_buffers())
    for name, buffer in buffers.items():
        if name in own and own[name].shape == buffer.shape:
            own[name].data = buffer.to(own[name].dtype)


def make_fitted(values: Mapping[str, Any], tensors: Groups, wanted: Wanted) -> Fitted:
    """Make the fit that `describe_fitted` described, on the host.

    Parameters
    ----------
    values, tensors : as of `Described`
        What the file holds.
    wanted : Wanted
        What the caller gives.

    Raises
    ------
    ValueError
        If the module cannot be found, or the parts do not fit together.
    """
    given, module = module_of(values, tensors, wanted)
    parameters = wanted.parameters
    is_preprocessed = bool(values["format"]["is_preprocessed"])
    preprocess = parameters["preprocess"] if is_preprocessed else None
    if is_preprocessed and preprocess is None:
        raise ValueError("it has to be given a `preprocess`")
    encoder = _make_encoder(values)
    head = in_order_of_classes(_make_head(values["head"], parameters), encoder)
    head.to(HOST, values["format"]["loss_dtype"])
    return Fitted(
        module,
        _make_optimizer(values["optimizer"], module),
        History.of_rows(
            rows_of(tensors["history"], values["quantities"]), map(str, values["metrics"])
        ),
        head,
        encoder,
        _make_precision(values, parameters),
        make_format(values["format"], preprocess),
        make_schema(values["schema"]),
        int(values["row_numbers"]),
        _names_in(values["frozen"], module),
        int(values["seed"]),
        given,
        values["class_names"],
    )


def _names_in(names: Sequence[str], module: nn.Module) -> list[str]:
    weights = dict(module.named_parameters())
    if not all(name in weights for name in names):
        raise ValueError("it names weights that its module does not have")
    return list(names)


def _make_head(described: Mapping[str, Any], parameters: Mapping[str, Any]) -> Head:
    head_class, kind = _HEADS[described["type"]], _KINDS[described["kind"]]
    sizes = (int(described["n_columns"]), int(described["n_outputs"]))
    criterion = _make_criterion(described, parameters, is_one_of_many=head_class is MulticlassHead)
    return head_class(kind, *sizes, criterion, described["class_weight"])  # type: ignore[arg-type]


def _make_criterion(
    described: Mapping[str, Any], parameters: Mapping[str, Any], *, is_one_of_many: bool
) -> RowLoss:
    """The losses of rows: those of the file, or of the caller's `loss`, or those of "auto"."""
    if described["criterion"] is not None:
        return _CRITERIA[described["criterion"]](described["loss"])
    loss, keywords = parameters["loss"], parameters["loss_keywords"]
    if isinstance(loss, str) and loss == "auto":
        name = _LOSSES[described["kind"]][0 if is_one_of_many else 1]
        takes_log = described["kind"] == "Softmax"
        return row_loss(build_loss(name, {}), takes_log=takes_log, is_one_of_many=is_one_of_many)
    criterion = row_loss(build_loss(loss, keywords), takes_log=False, is_one_of_many=is_one_of_many)
    if isinstance(criterion, CustomLoss):
        criterion.carries_weights = bool(described["carries_weights"])
    return criterion


def _make_precision(values: Mapping[str, Any], parameters: Mapping[str, Any]) -> Precision:
    precision: Precision = FullPrecision(values["format"]["dtype"])
    if values["precision"] == MixedPrecision.__name__:
        precision = MixedPrecision(HOST)
    which = values["output"]
    precision.choice = OutputChoice(parameters["output"] if which is None else which)
    return precision


def _make_encoder(values: Mapping[str, Any]) -> TargetEncoder:
    classes, outputs, is_multilabel = (
        values[name] for name in ("classes", "outputs", "is_multilabel")
    )
    labels = np.zeros((1, len(classes)), dtype=np.int64) if is_multilabel else None
    encoder = TargetEncoder().fit(labels, None if is_multilabel else classes)
    if encoder.classes_.dtype != classes.dtype or not np.array_equal(encoder.classes_, classes):
        raise ValueError("its classes are not sorted, or of a type that labels cannot have")
    if not np.array_equal(np.sort(outputs), classes):
        raise ValueError("its outputs are not those of its classes")
    if not is_multilabel:
        encoder.name_outputs(outputs)
    return encoder


def _make_optimizer(
    described: Mapping[str, Any] | None, module: nn.Module
) -> torch.optim.Optimizer:
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    if described is None:
        # Its state is lost: a further fit makes one of the parameters, with none.
        return make_optimizer(torch.optim.Adam, trained or list(module.parameters()), {})
    weights = dict(module.named_parameters())
    groups = [{"params": [weights[name] for name in names]} for names in described["weights"]]
    optimizer = make_optimizer(known_optimizers()[described["type"]], groups, {})
    load_state(optimizer, {"state": described["state"], "param_groups": described["groups"]})
    return optimizer
