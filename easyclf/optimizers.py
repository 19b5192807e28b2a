"""An optimizer from a name, a class or a factory, with its fastest implementation."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from easyclf.checks import check_keywords, did_you_mean, keyword_names, name_of
from easyclf.modules import matching

_NAMES: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): member
    for name, member in vars(torch.optim).items()
    if inspect.isclass(member)
    and issubclass(member, torch.optim.Optimizer)
    and member is not torch.optim.Optimizer
}
# Where torch's fused implementations run.
_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


def build_optimizer(
    optimizer: str | Callable[..., torch.optim.Optimizer],
    module: nn.Module,
    lr: float | Mapping[str, float],
    keywords: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """Make the optimizer of the weights of `module` that are to be trained.

    A mapping `lr` gives patterns of the names of weights their learning rates; each weight takes
    that of the first pattern that matches.

    Raises
    ------
    ValueError
        If the name is not in `torch.optim`, or a weight has no learning rate.
    TypeError
        If `optimizer` is a finished optimizer, or does not take one of `keywords`.
    """
    named_weights = dict(module.named_parameters())
    parameters: list[Any] = [p for p in named_weights.values() if p.requires_grad]
    factory = resolve_optimizer(optimizer)
    named, _ = keyword_names(factory)
    check_keywords(factory, keywords, "optimizer", supplied=[*list(named)[:1], "lr"])
    arguments = dict(keywords)
    own = factory.keywords if isinstance(factory, functools.partial) else {}
    if isinstance(lr, Mapping):
        groups = _groups(named_weights, lr)
        # What the optimizer shows as its own is that of the first pattern.
        lr = groups[0]["lr"]
    else:
        groups = None
    if inspect.isclass(factory) or ("lr" in named and "lr" not in own):
        arguments.setdefault("lr", lr)
    is_decided = {"fused", "foreach", "differentiable", "capturable"} & set(keywords)
    if inspect.isclass(factory) and "fused" in named and not is_decided:
        has_sparse = any(getattr(layer, "sparse", False) for layer in module.modules())
        arguments["fused"] = not has_sparse and all(
            parameter.is_floating_point() and parameter.device.type in _FUSED_DEVICES
            for parameter in parameters
        )
    built = make_optimizer(factory, groups or parameters, arguments)
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


def _groups(
    weights: Mapping[str, torch.Tensor], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The weights to train by the learning rate that the first matching pattern gives them."""
    left = {name: weight for name, weight in weights.items() if weight.requires_grad}
    groups = []
    for pattern, rate in rates.items():
        names = [name for name in matching(pattern, weights, "lr") if name in left]
        if names:
            groups.append({"params": [left.pop(name) for name in names], "lr": rate})
    if left:
        raise ValueError(
            f"`lr` {dict(rates)!r} has no pattern for {len(left)} weight(s), the first of them "
            f"{next(iter(left))!r}; add '*' with a rate for the others."
        )
    return groups


def resolve_optimizer(
    optimizer: str | Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer,
) -> Callable[..., torch.optim.Optimizer]:
    """The class or factory that `optimizer` means."""
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


def continue_from(
    new: torch.optim.Optimizer,
    module: nn.Module,
    old: torch.optim.Optimizer,
    old_module: nn.Module,
) -> None:
    """Take over what `old` learned of the weights of the same names in `old_module`.

    The settings stay those of `new`, which may have its weights in another order, or others.
    """
    if type(new) is not type(old):
        return
    before = dict(old_module.named_parameters())
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    parameters = [parameter for group in new.param_groups for parameter in group["params"]]
    earlier = [parameter for group in old.param_groups for parameter in group["params"]]
    old_names = {id(parameter): name for name, parameter in before.items()}
    is_same = [names.get(id(p)) for p in parameters] == [old_names.get(id(p)) for p in earlier]
    if isinstance(new, torch.optim.LBFGS) and not is_same:
        return  # it keeps one vector for all of them
    state: dict[Any, Any] = {
        key: copy.deepcopy(value)
        for key, value in old.state.items()
        if not isinstance(key, torch.Tensor)
    }
    for position, parameter in enumerate(parameters):
        known = before.get(names.get(id(parameter), ""))
        if known is not None and known.shape == parameter.shape and known in old.state:
            # A copy: the old one still counts if the run that goes on fails.
            state[position] = copy.deepcopy(old.state[known])
            state[position] |= _missing_state(new, state[position])
        elif isinstance(new, torch.optim.SGD) and any(g["momentum"] for g in new.param_groups):
            # The fused kernel wants a buffer for all weights of a group or for none.
            state[position] = {"momentum_buffer": torch.zeros_like(parameter)}
    new.load_state_dict({"state": state, "param_groups": new.state_dict()["param_groups"]})


def _missing_state(new: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a setting that the earlier run had not needs to begin with."""
    missing = {}
    for name, needs, like in (
        ("max_exp_avg_sq", "amsgrad", "exp_avg_sq"),
        ("momentum_buffer", "momentum", "square_avg"),
        ("grad_avg", "centered", "square_avg"),
    ):
        if new.defaults.get(needs) and like in state and name not in state:
            missing[name] = torch.zeros_like(state[like])
    return missing
