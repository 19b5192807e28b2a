"""An optimizer from a name, a class or a factory, with its fastest implementation."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from easyclf.validation import check_keywords, did_you_mean, keyword_names, name_of

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
    lr: float,
    keywords: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """Make the optimizer of the weights of `module` that are to be trained.

    Raises
    ------
    ValueError
        If the name is not in `torch.optim`, or no weight is to be trained.
    TypeError
        If `optimizer` is a finished optimizer, or does not take one of `keywords`.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    factory = resolve_optimizer(optimizer)
    named, _ = keyword_names(factory)
    check_keywords(factory, keywords, "optimizer", supplied=[*list(named)[:1], "lr"])
    arguments = dict(keywords)
    own = factory.keywords if isinstance(factory, functools.partial) else {}
    if inspect.isclass(factory) or ("lr" in named and "lr" not in own):
        arguments.setdefault("lr", lr)
    is_decided = {"fused", "foreach", "differentiable", "capturable"} & set(keywords)
    if inspect.isclass(factory) and "fused" in named and not is_decided:
        has_sparse = any(getattr(layer, "sparse", False) for layer in module.modules())
        arguments["fused"] = not has_sparse and all(
            parameter.is_floating_point() and parameter.device.type in _FUSED_DEVICES
            for parameter in parameters
        )
    built = factory(parameters, **arguments)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(
            f"`optimizer` {name_of(factory)} made a {type(built).__name__}; "
            "expected a torch.optim.Optimizer."
        )
    return built


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


def continue_from(new: torch.optim.Optimizer, old: torch.optim.Optimizer) -> None:
    """Take over what `old` learned of the same weights; the settings stay those of `new`."""
    if type(new) is type(old):
        # A copy: the old one still counts if the run that goes on fails.
        state, groups = copy.deepcopy(old.state_dict()["state"]), new.state_dict()["param_groups"]
        new.load_state_dict({"state": state, "param_groups": groups})
