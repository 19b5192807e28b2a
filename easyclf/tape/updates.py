"""Direct calls of the kernels of optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

Update = Callable[[list[torch.Tensor]], None]


def direct_update(optimizer: torch.optim.Optimizer, has_gradient: Sequence[bool]) -> Update | None:
    """The fused kernel of an optimizer without the Python around it, which takes longer.

    Parameters
    ----------
    optimizer : Optimizer
        One that has taken a step before, so that its state is there.
    has_gradient : sequence of bool
        Which of its parameters, in their order, take part.

    Returns
    -------
    update : callable or None
        It takes the gradients of those parameters, in one list, and does what `step` would; None
        where the optimizer has no such kernel, or `step` is more than the kernel.
    """
    kernel = _KERNELS.get(type(optimizer))
    has_hooks = (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
    # A scheduler of torch's counts the calls of `step`; whoever else replaces it means more.
    is_replaced = "step" in vars(optimizer) and not hasattr(optimizer.step, "_wrapped_by_lr_sched")
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    if kernel is None or not is_fused or has_hooks or is_replaced:
        return None
    takes_part = iter(has_gradient)
    updates, ends, end = [], [], 0
    for group in optimizer.param_groups:
        chosen = [parameter for parameter in group["params"] if next(takes_part)]
        states = [optimizer.state.get(parameter, {}) for parameter in chosen]
        end += len(chosen)
        ends.append(end)
        try:
            # Detached: what autograd does not follow, in the same memory.
            updates.append(kernel(group, [parameter.detach() for parameter in chosen], states))
        except KeyError:  # some have not taken a step yet
            return None
    if len(updates) == 1:
        return updates[0]

    def update(gradients: list[torch.Tensor]) -> None:
        for one, start, stop in zip(updates, [0, *ends], ends, strict=False):
            one(gradients[start:stop])

    return update


def _update_adam(
    group: dict[str, Any],
    parameters: list[torch.Tensor],
    states: list[dict[str, torch.Tensor]],
    is_decoupled: bool = False,
) -> Update:
    is_decoupled = group.get("decoupled_weight_decay", is_decoupled)
    kernel = torch._fused_adamw_ if is_decoupled else torch._fused_adam_
    averages = [state["exp_avg"] for state in states]
    squares = [state["exp_avg_sq"] for state in states]
    largest = [state["max_exp_avg_sq"] for state in states if group["amsgrad"]]
    steps = [state["step"] for state in states]

    def update(gradients: list[torch.Tensor]) -> None:
        torch._foreach_add_(steps, 1)
        kernel(
            parameters,
            gradients,
            averages,
            squares,
            largest,
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )

    return update


def _update_sgd(
    group: dict[str, Any], parameters: list[torch.Tensor], states: list[dict[str, torch.Tensor]]
) -> Update:
    buffers = [state["momentum_buffer"] for state in states if group["momentum"]]

    def update(gradients: list[torch.Tensor]) -> None:
        torch._fused_sgd_(
            parameters,
            gradients,
            buffers,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
        )

    return update


_KERNELS: dict[type[torch.optim.Optimizer], Callable[..., Update]] = {
    torch.optim.Adam: _update_adam,
    torch.optim.AdamW: functools.partial(_update_adam, is_decoupled=True),
    torch.optim.SGD: _update_sgd,
}
