"""Direct calls of the kernels of optimizers, instead of the Python around them.

`step` of torch's optimizers takes longer than the arithmetic of a small module, and imports the
compiler of torch when it is called for the first time, which takes a second. An update calls the
kernel that `step` would call: for torch's own classes with options that are known here, and once
it was seen to do the same as `step`. Anything else is left to `step`.
"""

from __future__ import annotations

import functools
import logging
import os
import types
from collections.abc import Callable, Sequence
from operator import is_
from pathlib import Path
from typing import Any, NamedTuple

import torch

from easyclf.device import is_out_of_memory
from easyclf.exceptions import TapeDiffers
from easyclf.optimizers import make_optimizer
from easyclf.tape.torch_internals import (
    add_to_all,
    fused_adam,
    fused_adamw,
    fused_sgd,
    is_step_hooked,
    note_step,
    notes_steps,
)

_log = logging.getLogger("easyclf")
_OPTIM = str(Path(torch.optim.__file__).parent) + os.sep
# A group of an optimizer, the states of its parameters, and a call of a kernel with gradients.
_Group = dict[str, Any]
_State = dict[str, Any]
_Call = Callable[[list[torch.Tensor]], None]
# What schedulers keep in groups, and a name for each parameter: `step` does not look at them.
_NOTES = frozenset("params param_names initial_lr max_lr min_lr base_momentum max_momentum".split())


class Exposure:
    """How often code of users ran in a run, which may have changed anything.

    A batch of a rare shape, or in the other mode, may run code that the tapes know nothing of.
    """

    n_times = 0


class Update:
    """What `optimizer.step` does with some gradients.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer. Its parameters may change their memory at any time.
    is_on : bool, default=True
        False to leave everything to `step`.
    is_exposed : bool, default=True
        Whether code of users runs between the updates. Then its groups, their options and the
        states of its parameters are looked at anew in every update, as `step` does; else after
        every `forget`, and where there was an `exposure` in between.
    exposure : Exposure, default=None
        Counts such code where it runs now and then: a forward pass may have given a weight other
        memory.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        is_on: bool = True,
        is_exposed: bool = True,
        exposure: Exposure | None = None,
    ) -> None:
        self.optimizer = optimizer
        self._exposure, self._n_exposures = exposure or Exposure(), 0
        self._is_on = is_on and type(optimizer) in _KERNELS
        self._is_exposed = is_exposed
        # Parameters and options that were found to be fit for the kernel.
        self._parameters: list[torch.Tensor] = []
        self._options: list[list[Any]] = []
        self._memory: list[tuple[int, ...]] = []
        # By which parameters have no gradient.
        self._calls: dict[tuple[bool, ...], list[tuple[_Call, list[int]]]] = {}

    def __call__(self, gradients: Sequence[torch.Tensor | None]) -> bool:
        """Update the parameters by the kernel, if it is known that this is what `step` does.

        Parameters
        ----------
        gradients : sequence of Tensor or None
            For each parameter of the optimizer, of its shape, in the order of its groups. They are
            not changed.

        Returns
        -------
        is_done : bool
            False where only `optimizer.step` can do it; nothing was done then.

        Raises
        ------
        TapeDiffers
            If the kernel failed. It may have changed some parameters.
        """
        if not self._is_on:
            return False
        try:
            calls = self._find_calls(gradients)
        except Exception as error:  # what is private of torch may mean something else by now
            self._is_on = False
            name = type(self.optimizer).__name__
            _log.debug("%s is stepped as it is written: %s.", name, error)
            return False
        if calls is None:
            return False
        self._do(calls, gradients)
        return True

    def _find_calls(
        self, gradients: Sequence[torch.Tensor | None]
    ) -> list[tuple[_Call, list[int]]] | None:
        """The calls of the kernel that do what `step` would do; None where only `step` can."""
        if is_step_hooked(self.optimizer):
            return None
        if self._n_exposures != self._exposure.n_times:
            self._n_exposures = self._exposure.n_times
            if not self._is_unchanged():
                self._calls.clear()
        has_none = tuple([gradient is None for gradient in gradients])
        calls = None if self._is_exposed else self._calls.get(has_none)
        if calls is None:
            calls = self._prepare(gradients) if self._is_fit() else None
            if calls is not None:
                self._calls[has_none] = calls
        return calls

    def _do(
        self, calls: list[tuple[_Call, list[int]]], gradients: Sequence[torch.Tensor | None]
    ) -> None:
        optimizer = self.optimizer
        try:
            for call, places in calls:
                call([gradients[place] for place in places])  # type: ignore[misc]
            if "step" in vars(optimizer):
                # What torch's schedulers want to know: that `step` came before their own.
                note_step(optimizer)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            name = type(optimizer).__name__
            raise TapeDiffers(
                f"the kernel of {name} fails with {type(error).__name__}: {error}"
            ) from error

    def forget(self) -> None:
        """Look at the class and the wrappers of `step` anew before the next update."""
        self._parameters = []
        self._calls.clear()

    def _is_unchanged(self) -> bool:
        """Whether groups, options, states and the memory of parameters are those of the calls."""
        state = self.optimizer.state
        memory = [
            (parameter.data_ptr(), *map(id, state.get(parameter, {}).values()))
            for parameter in self._parameters
        ]
        is_same, self._memory = memory == self._memory, memory
        groups = self.optimizer.param_groups
        return is_same and [[*group.items()] for group in groups] == self._options

    def _is_fit(self) -> bool:
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        is_same = len(parameters) == len(self._parameters) and all(
            map(is_, parameters, self._parameters)
        )
        if not is_same or not self._parameters:
            if not is_known(self.optimizer):
                return False
            self._parameters, self._options = parameters, []
        options = [[*group.items()] for group in groups]
        if options != self._options:
            kind = type(self.optimizer)
            if not all(has_known_options(kind, group) for group in groups):
                return False
            self._options = options
        return True

    def _prepare(
        self, gradients: Sequence[torch.Tensor | None]
    ) -> list[tuple[_Call, list[int]]] | None:
        """A call of the kernel for each group that has gradients, and the places of these."""
        if len(self._parameters) != len(gradients):
            return None
        kernel, state = _KERNELS[type(self.optimizer)], self.optimizer.state
        works: list[tuple[_Group, list[torch.Tensor], list[int], list[_State]]] = []
        place = -1
        for group in self.optimizer.param_groups:
            parameters: list[torch.Tensor] = []
            places: list[int] = []
            for parameter in group["params"]:
                place += 1
                gradient = gradients[place]
                if gradient is not None:
                    if gradient.dtype is not parameter.dtype or gradient.layout != torch.strided:
                        return None
                    parameters.append(parameter)
                    places.append(place)
            if parameters:
                names = kernel.state_names(group)
                states = [state[item] for item in parameters] if names else []
                # All begin together, or none: else `step` knows what to do.
                n_begun = sum(1 for item in states if all(item.get(n) is not None for n in names))
                if n_begun not in (0, len(states)) or (not n_begun and any(states)):
                    return None
                works.append((group, parameters, places, states))
        # Nothing is begun before all groups are known to be fit.
        return [
            (kernel.bind(group, parameters, states), places)
            for group, parameters, places, states in works
        ]


def runs_user_code(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` of an optimizer may run code that is not torch's own."""
    try:
        return is_step_hooked(optimizer) or not _is_torchs_step(optimizer)
    except Exception:  # a class of another build
        return True


def is_known(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the kernel of an optimizer was seen to do what its `step` does."""
    kind = type(optimizer)
    if kind not in _KERNELS or not _is_torchs_step(optimizer):
        return False
    devices = set()
    for group in optimizer.param_groups:
        if not has_known_options(kind, group):
            return False
        for parameter in group["params"]:
            if type(parameter) not in (torch.Tensor, torch.nn.Parameter) or parameter.is_complex():
                return False
            devices.add((parameter.device, parameter.dtype))
    # The kernels take tensors of one device and one dtype.
    return len(devices) == 1 and _is_tried(kind, *devices.pop())  # type: ignore[arg-type]


def has_known_options(kind: type[torch.optim.Optimizer], group: _Group) -> bool:
    """Whether a group has the options that are known here, and no other: plain numbers."""
    values = [value for name, value in group.items() if name not in _NOTES]
    numbers = [
        number for value in values for number in (value if type(value) is tuple else (value,))
    ]
    return (
        group.keys() - _NOTES - {"decoupled_weight_decay"} == _KERNELS[kind].options
        and all(type(number) in (bool, int, float, type(None)) for number in numbers)
        and group["fused"] is True
        and not any(group.get(name) for name in ("foreach", "capturable", "differentiable"))
    )


def _is_torchs_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` is the function that torch defines for this class, in torch's own wrappers."""
    kind = type(optimizer)
    step: Any = kind.step
    if "step" in vars(optimizer):
        # A scheduler of torch's counts the calls.
        wrapper = optimizer.step
        cells = getattr(wrapper, "__closure__", None) or ()
        inner = [cell.cell_contents for cell in cells]
        is_torchs = _is_of(wrapper, "lr_scheduler.py") and notes_steps(wrapper)
        if not is_torchs or kind.step not in inner:
            return False
    for home in ("optimizer.py", "optimizer.py"):
        if not _is_of(step, home):
            return False
        step = step.__wrapped__
    # `AdamW` takes the function of `Adam` in newer versions of torch.
    return any(_is_of(step, f"{home.__name__.lower()}.py") for home in (kind, *kind.__bases__))


def _is_of(function: Any, home: str) -> bool:
    """Whether a function is written in a file of `torch.optim`."""
    code = getattr(function, "__code__", None)
    return isinstance(code, types.CodeType) and code.co_filename == _OPTIM + home


@functools.cache
def _is_tried(kind: type[torch.optim.Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel does to small tensors what `step` does to copies, to the last bit."""
    try:
        return all(_does_the_same(kind, device, dtype, tried) for tried in _KERNELS[kind].tried)
    except Exception as error:
        _log.debug("%s is stepped as it is written: %s.", kind.__name__, error)
        return False


def _does_the_same(
    kind: type[torch.optim.Optimizer],
    device: torch.device,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> bool:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator).to(device, dtype) for shape in ((3, 2), (4,))]
    optimizers = []
    for _ in range(2):
        parameters = [torch.nn.Parameter(value.clone()) for value in values]
        optimizers.append(make_optimizer(kind, parameters, {"lr": 0.1, "fused": True, **options}))
    # The function itself: its wrappers import the compiler, and time the call.
    step = kind.step.__wrapped__.__wrapped__  # type: ignore[attr-defined]
    direct, written = optimizers
    for number in range(3):
        gradients = [(value * (number + 1)).cos() for value in values]
        for parameter, gradient in zip(written.param_groups[0]["params"], gradients, strict=True):
            parameter.grad = gradient.clone()
        with torch.no_grad():
            step(written)
            group = direct.param_groups[0]
            kernel = _KERNELS[kind]
            has_state = bool(kernel.state_names(group))
            states = [direct.state[item] for item in group["params"]] if has_state else []
            kernel.bind(group, group["params"], states)(gradients)
    pairs = zip(direct.param_groups[0]["params"], written.param_groups[0]["params"], strict=True)
    return all(
        torch.equal(one, other) and _is_equal(direct.state[one], written.state[other])
        for one, other in pairs
    )


def _is_equal(first: _State, second: _State) -> bool:
    """Whether two states hold the same tensors; none is as good as None."""
    names = {
        name for state in (first, second) for name, value in state.items() if value is not None
    }
    return all(name in first and torch.equal(first[name], second[name]) for name in names)


def _bind_adam(
    group: _Group,
    parameters: list[torch.Tensor],
    states: list[_State],
    is_decoupled: bool = False,
) -> _Call:
    is_decoupled = group.get("decoupled_weight_decay", is_decoupled)
    kernel = fused_adamw if is_decoupled else fused_adam
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            _begin_adam(group, parameter, state)
    # What autograd does not follow, in the same memory.
    weights = [parameter.detach() for parameter in parameters]
    averages = [state["exp_avg"] for state in states]
    squares = [state["exp_avg_sq"] for state in states]
    largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
    steps = [state["step"] for state in states]

    def call(gradients: list[torch.Tensor]) -> None:
        add_to_all(steps, 1)
        kernel(
            weights,
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

    return call


def _adam_state(group: _Group) -> tuple[str, ...]:
    return ("step", "exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))


def _begin_adam(group: _Group, parameter: torch.Tensor, state: _State) -> None:
    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    for name in _adam_state(group)[1:]:
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def _bind_sgd(group: _Group, parameters: list[torch.Tensor], states: list[_State]) -> _Call:
    weights = [parameter.detach() for parameter in parameters]
    buffers: list[torch.Tensor] = []
    is_first_step = False
    if group["momentum"]:
        # The kernel begins all buffers of a call, or none.
        is_first_step = all(state.get("momentum_buffer") is None for state in states)
        buffers = (
            [torch.empty_like(weight) for weight in weights]
            if is_first_step
            else [state["momentum_buffer"] for state in states]
        )

    def call(gradients: list[torch.Tensor]) -> None:
        nonlocal is_first_step
        fused_sgd(
            weights,
            gradients,
            buffers,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=is_first_step,
        )
        if is_first_step:
            for state, buffer in zip(states, buffers, strict=True):
                state["momentum_buffer"] = buffer
            is_first_step = False

    return call


def _sgd_state(group: _Group) -> tuple[str, ...]:
    return ("momentum_buffer",) if group["momentum"] else ()


class _Kernel(NamedTuple):
    """The kernel of a class of optimizers.

    Attributes
    ----------
    bind : callable
        It takes a group, parameters of it and their states, which it begins if they are empty,
        and returns the call of the kernel, which takes the gradients.
    state_names : callable
        It takes a group, and returns the names of what a parameter's state has to hold.
    options : frozenset of str
        The options of a group that the kernel is known to follow.
    tried : tuple of dict
        Options with which it is tried against `step`.
    """

    bind: Callable[..., _Call]
    state_names: Callable[[_Group], tuple[str, ...]]
    options: frozenset[str]
    tried: tuple[dict[str, Any], ...]


_ADAM_OPTIONS = frozenset(
    "lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused".split()
)
_SGD_OPTIONS = frozenset(
    "lr momentum dampening weight_decay nesterov maximize foreach differentiable fused".split()
)
_ADAM_TRIED: tuple[dict[str, Any], ...] = (
    {},
    {"weight_decay": 0.1, "amsgrad": True, "maximize": True, "betas": (0.5, 0.7)},
)
_SGD_TRIED: tuple[dict[str, Any], ...] = (
    {"weight_decay": 0.1},
    {"momentum": 0.9, "dampening": 0.1, "maximize": True},
    {"momentum": 0.9, "nesterov": True},
)
_KERNELS: dict[type[torch.optim.Optimizer], _Kernel] = {
    torch.optim.Adam: _Kernel(_bind_adam, _adam_state, _ADAM_OPTIONS, _ADAM_TRIED),
    torch.optim.AdamW: _Kernel(
        functools.partial(_bind_adam, is_decoupled=True), _adam_state, _ADAM_OPTIONS, _ADAM_TRIED
    ),
    torch.optim.SGD: _Kernel(_bind_sgd, _sgd_state, _SGD_OPTIONS, _SGD_TRIED),
}
