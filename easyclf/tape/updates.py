"""Direct calls of the kernels of optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

# It takes the gradients of some parameters, each laid out as its parameter.
_Kernel = Callable[[list[torch.Tensor]], None]
# A group of the optimizer, the parameters of it that have a gradient, and their states.
_Group = dict[str, Any]
_States = list[dict[str, torch.Tensor]]


class Update:
    """What `optimizer.step` does, by the fused kernel without the Python around it.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._kernels: dict[tuple[bool, ...], _Kernel | None] = {}

    def __call__(self, gradients: Sequence[torch.Tensor | None]) -> bool:
        """Update the parameters, if the optimizer has such a kernel and `step` is no more than it.

        Parameters
        ----------
        gradients : sequence of Tensor or None
            For each parameter of the optimizer, in the order of its groups; of the shape and the
            strides of the parameter. They are not changed.

        Returns
        -------
        is_done : bool
            False where only `optimizer.step` can do it; nothing was done then.
        """
        has_gradient = tuple(gradient is not None for gradient in gradients)
        if has_gradient not in self._kernels:
            self._kernels[has_gradient] = _find_kernel(self.optimizer, has_gradient)
        kernel = self._kernels[has_gradient]
        if kernel is None:
            return False
        kernel([gradient for gradient in gradients if gradient is not None])
        return True

    def forget(self) -> None:
        """Look at the optimizer anew before the next update."""
        self._kernels.clear()


def _find_kernel(optimizer: torch.optim.Optimizer, has_gradient: Sequence[bool]) -> _Kernel | None:
    """The kernels of all groups as one, if it is known what they are."""
    make_kernel = _KERNELS.get(type(optimizer))
    has_hooks = (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
    # A scheduler of torch's counts the calls of `step`; whoever else replaces it means more.
    is_replaced = "step" in vars(optimizer) and not hasattr(optimizer.step, "_wrapped_by_lr_sched")
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    if make_kernel is None or not is_fused or has_hooks or is_replaced:
        return None
    takes_part = iter(has_gradient)
    kernels: list[_Kernel] = []
    ends: list[int] = []
    n_gradients = 0
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if next(takes_part)]
        states = [optimizer.state.get(parameter, {}) for parameter in parameters]
        n_gradients += len(parameters)
        ends.append(n_gradients)
        try:
            # Detached: what autograd does not follow, in the same memory.
            detached = [parameter.detach() for parameter in parameters]
            kernels.append(make_kernel(group, detached, states))
        except KeyError:  # some have not taken a step yet
            return None
    return kernels[0] if len(kernels) == 1 else _in_turn(kernels, ends)


def _in_turn(kernels: Sequence[_Kernel], ends: Sequence[int]) -> _Kernel:
    """Each kernel for its share of the gradients."""

    def update(gradients: list[torch.Tensor]) -> None:
        for kernel, start, end in zip(kernels, [0, *ends], ends, strict=False):
            kernel(gradients[start:end])

    return update


def _adam(group: _Group, parameters: list[torch.Tensor], states: _States) -> _Kernel:
    return _adam_like(group, parameters, states, is_decoupled=False)


def _adamw(group: _Group, parameters: list[torch.Tensor], states: _States) -> _Kernel:
    return _adam_like(group, parameters, states, is_decoupled=True)


def _adam_like(
    group: _Group, parameters: list[torch.Tensor], states: _States, *, is_decoupled: bool
) -> _Kernel:
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


def _sgd(group: _Group, parameters: list[torch.Tensor], states: _States) -> _Kernel:
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


_KERNELS: dict[type[torch.optim.Optimizer], Callable[..., _Kernel]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adamw,
    torch.optim.SGD: _sgd,
}
