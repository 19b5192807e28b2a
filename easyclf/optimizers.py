"""An optimizer from a name, a class or a factory, with its fastest implementation."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import nn

from easyclf.checks import check_keywords, did_you_mean, keyword_names, name_of
from easyclf.device import fused_optimizers
from easyclf.modules import matching

_NAMES: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): member
    for name, member in vars(torch.optim).items()
    if inspect.isclass(member)
    and issubclass(member, torch.optim.Optimizer)
    and member is not torch.optim.Optimizer
}
# Options of torch's optimizers that say how a step is computed: who gives one has decided.
_IMPLEMENTATIONS = {"fused", "foreach", "differentiable", "capturable"}
# The state that a setting needs, and the state beside it, whose shape it has.
_STATE_OF_SETTINGS = (
    ("max_exp_avg_sq", "amsgrad", "exp_avg_sq"),
    ("momentum_buffer", "momentum", "square_avg"),
    ("grad_avg", "centered", "square_avg"),
)
# Settings that may be given by patterns of the names of weights, beside `lr`.
_BY_PATTERN = ("weight_decay", "momentum")
OptimizerFactory = Callable[..., torch.optim.Optimizer]
# Parts of the state of an optimizer that are one number for each weight.
_SCALARS = ("step", "mu_product", "mu", "eta")
# Optimizers whose state has other shapes than the weights have. No fused kernel reads it.
_OTHER_SHAPES = {torch.optim.Adafactor, torch.optim.LBFGS}


def build_optimizer(
    optimizer: str | OptimizerFactory,
    module: nn.Module,
    lr: float | Mapping[str, float],
    keywords: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """Make the optimizer of the weights of `module` that are to be trained.

    A mapping `lr`, or a mapping as `weight_decay` or `momentum`, gives patterns of the names of
    weights their values; each weight takes that of the first pattern that matches.

    Raises
    ------
    ValueError
        If the name is not in `torch.optim`, or a weight has no value of such a mapping.
    TypeError
        If `optimizer` is a finished optimizer, or does not take one of `keywords`.
    """
    factory = resolve_optimizer(optimizer)
    named, _ = keyword_names(factory)
    check_keywords(factory, keywords, "optimizer", supplied=[*list(named)[:1], "lr"])
    arguments = dict(keywords)
    parameters: list[Any] = [weight for weight in module.parameters() if weight.requires_grad]
    by_pattern = {"lr": lr} | {name: keywords.get(name) for name in _BY_PATTERN}
    patterns = {name: given for name, given in by_pattern.items() if isinstance(given, Mapping)}
    if patterns:
        _check_values(patterns)
        parameters = _groups(dict(module.named_parameters()), patterns)
        # What the optimizer shows as its own is that of the first group.
        shown = {name: parameters[0][name] for name in patterns}
        lr = shown.pop("lr", lr)
        arguments |= shown
    is_fixed = isinstance(factory, functools.partial) and "lr" in factory.keywords
    if inspect.isclass(factory) or ("lr" in named and not is_fixed):
        arguments.setdefault("lr", lr)
    if inspect.isclass(factory) and "fused" in named and not _IMPLEMENTATIONS & set(keywords):
        arguments["fused"] = _can_fuse(factory.__name__, module)
    built = make_optimizer(factory, parameters, arguments)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(
            f"`optimizer` {name_of(factory)} made a {type(built).__name__}; "
            "expected a torch.optim.Optimizer."
        )
    return built


def make_optimizer(
    factory: Callable[..., torch.optim.Optimizer], parameters: Any, arguments: dict[str, Any]
) -> torch.optim.Optimizer:
    """Call a class or a factory of optimizers, without the second that torch's compiler takes.

    The constructor calls `add_param_group`, which is wrapped so that the compiler leaves it
    alone; the wrapper imports the compiler. For torch's own classes the function itself is called.
    Where torch has no such wrapper the optimizer is made as usual.
    """
    base = torch.optim.Optimizer
    wrapped = getattr(base.add_param_group, "__wrapped__", None)
    kind: Any = factory
    is_torchs = any(factory is known for known in _NAMES.values())
    if wrapped is None or not is_torchs or kind.add_param_group is not base.add_param_group:
        return factory(parameters, **arguments)
    optimizer: torch.optim.Optimizer = kind.__new__(kind)
    vars(optimizer)["add_param_group"] = functools.partial(wrapped, optimizer)
    try:
        kind.__init__(optimizer, parameters, **arguments)
    finally:
        vars(optimizer).pop("add_param_group", None)
    return optimizer


def resolve_optimizer(
    optimizer: str | OptimizerFactory | torch.optim.Optimizer,
) -> OptimizerFactory:
    """Find the class or factory that `optimizer` means.

    Raises
    ------
    ValueError
        If the name is not in `torch.optim`.
    TypeError
        If it is a finished optimizer.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"`optimizer` is a finished {type(optimizer).__name__}, bound to the weights of "
            f"another module; pass the class, torch.optim.{type(optimizer).__name__}, and `lr`, "
            "`optimizer__*` beside it."
        )
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer.lower() not in _NAMES:
        raise ValueError(
            f"`optimizer` {optimizer!r} is not in torch.optim"
            f"{did_you_mean(optimizer.lower(), _NAMES)} Known are {sorted(_NAMES)}."
        )
    return _NAMES[optimizer.lower()]


def _groups(
    weights: Mapping[str, torch.Tensor], patterns: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Sort the weights to train into groups with one value of each setting.

    `patterns` are those of each setting: "lr", "weight_decay". The groups come in the order of
    the patterns.
    """
    trained = [name for name, weight in weights.items() if weight.requires_grad]
    places = {
        setting: _places(weights, trained, setting, values) for setting, values in patterns.items()
    }
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in trained:
        groups.setdefault(tuple(place[name] for place in places.values()), []).append(name)
    values_of = {setting: list(values.values()) for setting, values in patterns.items()}
    return [
        {
            "params": [weights[name] for name in groups[key]],
            **{
                setting: values_of[setting][place]
                for setting, place in zip(patterns, key, strict=True)
            },
        }
        for key in sorted(groups)
    ]


def _places(
    weights: Mapping[str, torch.Tensor],
    trained: list[str],
    setting: str,
    values: Mapping[str, float],
) -> dict[str, int]:
    """The place of the first pattern that matches each name."""
    parameter = setting if setting == "lr" else f"optimizer__{setting}"
    places: dict[str, int] = {}
    for place, pattern in enumerate(values):
        for name in matching(pattern, weights, parameter):
            places.setdefault(name, place)
    left = [name for name in trained if name not in places]
    if left:
        word = "rate" if setting == "lr" else "value"
        raise ValueError(
            f"`{parameter}` {dict(values)!r} has no pattern for {len(left)} weight(s), the first "
            f"of them {left[0]!r}; add '*' with a {word} for the others."
        )
    return places


def _check_values(patterns: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse what torch checks for all weights together only: values below 0 in one group."""
    for setting in patterns.keys() - {"lr"}:  # the estimator has checked these
        values = patterns[setting].values()
        if not values or not all(isinstance(v, Real) and 0 <= v < math.inf for v in values):
            raise ValueError(
                f"`optimizer__{setting}` must be a number, or a dict of patterns and numbers of at "
                f"least 0; got {dict(patterns[setting])!r}."
            )


def _can_fuse(name: str, module: nn.Module) -> bool:
    """Tell whether the fused kernel of torch's optimizer of that name takes all weights.

    They have to be dense, floating, and on a device that has the kernel.
    """
    has_sparse = any(getattr(layer, "sparse", False) for layer in module.modules())
    return not has_sparse and all(
        weight.is_floating_point() and name in fused_optimizers(weight.device)
        for weight in module.parameters()
        if weight.requires_grad
    )


def continue_from(
    new: torch.optim.Optimizer,
    module: nn.Module,
    old: torch.optim.Optimizer,
    old_module: nn.Module,
) -> None:
    """Take over what `old` learned of the weights of the same names in `old_module`.

    The settings stay those of `new`, which may have its weights in another order, or others. The
    state is copied: `old` still counts if the run that goes on fails.
    """
    if type(new) is not type(old):
        return
    names = _names_of_weights(new, module)
    if isinstance(new, torch.optim.LBFGS) and names != _names_of_weights(old, old_module):
        return  # it keeps one vector for all of them
    old_weights = dict(old_module.named_parameters())
    state: dict[Any, Any] = {
        key: copy.deepcopy(value)
        for key, value in old.state.items()
        if not isinstance(key, torch.Tensor)
    }
    for position, (name, weight) in enumerate(zip(names, _weights_of(new), strict=True)):
        old_weight = old_weights.get(name)
        if old_weight is not None and old_weight.shape != weight.shape:
            old_weight = None
        if old_weight is not None and old_weight in old.state:
            state[position] = _continued_state(new, old.state[old_weight])
        elif isinstance(new, torch.optim.SGD) and any(g["momentum"] for g in new.param_groups):
            # The fused kernel wants a buffer for all weights of a group or for none.
            state[position] = {"momentum_buffer": torch.zeros_like(weight)}
    new.load_state_dict({"state": state, "param_groups": new.state_dict()["param_groups"]})


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer a state that was read from a file, laid out in memory as its weights are.

    Parameters
    ----------
    optimizer : Optimizer
        Of the kind that the state is of.
    state : mapping
        As `state_dict` gives it, with tensors of shape () or of the shape of a weight. Fused
        kernels read them as one row of numbers, and beyond the end of a shorter one.

    Raises
    ------
    ValueError, KeyError
        If the state is not one of this optimizer and its weights.
    """
    weights, kind = _weights_of(optimizer), type(optimizer)
    is_strict = kind in _kinds_of_torch() - _OTHER_SHAPES
    is_strict |= any(group.get("fused") for group in optimizer.param_groups)
    states = {
        place: {
            name: _like(weights[place], name, value, is_strict=is_strict)
            for name, value in part.items()
        }
        for place, part in state["state"].items()
        if 0 <= place < len(weights)
    }
    if len(states) < len(state["state"]):
        raise ValueError("the optimizer's state is of more weights than there are")
    optimizer.load_state_dict({**state, "state": states})


def _like(weight: torch.Tensor, name: str, value: object, *, is_strict: bool) -> object:
    """A part of the state of a weight, of any shape, in the weight's order in memory."""
    if not isinstance(value, torch.Tensor) or (name in _SCALARS and value.numel() == 1):
        return value
    if value.shape == weight.shape and value.dtype == weight.dtype:
        return torch.empty_like(weight, requires_grad=False).copy_(value)
    if is_strict:
        raise ValueError(f"the optimizer's {name[:100]!r} has the shape or the dtype of no weight")
    return value


def _kinds_of_torch() -> set[type]:
    return {kind for kind in vars(torch.optim).values() if isinstance(kind, type)}


def _weights_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _names_of_weights(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[str]:
    """The names in `module` of the optimizer's weights, in its order; "" for one of no name."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    return [names.get(id(weight), "") for weight in _weights_of(optimizer)]


def _continued_state(
    optimizer: torch.optim.Optimizer, learned: Mapping[str, Any]
) -> dict[str, Any]:
    """Copy the state of a weight, with zeros for what a setting needs that it had not before."""
    state = copy.deepcopy(dict(learned))
    for name, setting, beside in _STATE_OF_SETTINGS:
        if optimizer.defaults.get(setting) and beside in state and name not in state:
            state[name] = torch.zeros_like(state[beside])
    return state
