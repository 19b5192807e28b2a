"""Copies of tensors and of generators' states, which can be put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from easyclf.device import HOST, generator_state, set_generator_state

Value = TypeVar("Value")
# So few weights are copied before they are looked at, which takes half the time and needs memory
# for two copies (`python -m benchmarks`, blobs).
_FEW = 2**16


class Snapshot:
    """Copies of weights, buffers, other tensors and generators' states, which can be put back.

    The copies are made at once, and anew by every `take`.

    Parameters
    ----------
    module : nn.Module, default=None
        Its weights and buffers are copied. A buffer is known by its name, since a module may put
        another tensor in its place.
    tensors : iterable of Tensor, default=()
        More tensors, of any shapes.
    devices : iterable of torch.device, default=()
        The states of the generators that operations on them draw from are copied.
    """

    def __init__(
        self,
        module: nn.Module | None = None,
        tensors: Iterable[torch.Tensor] = (),
        devices: Iterable[torch.device] = (),
    ) -> None:
        layers = [] if module is None else list(module.modules())
        weights = [] if module is None else list(module.parameters())
        self._n_weights = len(weights)
        # The tensors themselves: an optimizer may give them other memory (`weight.data = ...`).
        self._tensors = [*weights, *tensors]
        self._buffers = [
            (layer, name, buffer)
            for layer in layers
            for name, buffer in layer.named_buffers(recurse=False)
        ]
        self._devices = list(devices)
        self._copies = [tensor.clone() for tensor in self._live()]
        self._states = self._live_states()
        # The first room holds the copies of the weights.
        self._rooms: list[_Room] = []

    def _live(self) -> list[torch.Tensor]:
        """The tensors in their present memory, the present buffers behind the others.

        They are without autograd, which takes longer than to copy a small tensor.
        """
        buffers = [getattr(layer, name) for layer, name, _ in self._buffers]
        return [tensor.detach() for tensor in (*self._tensors, *buffers)]

    @property
    def values(self) -> list[torch.Tensor]:
        """The copies, in their shapes, and states of generators; the snapshot owns them."""
        return self._copies + self._states

    def live_values(self) -> list[torch.Tensor]:
        """The tensors themselves, as they are now, and copies of the generators' present states.

        They are in the order and of the shapes of `values`.
        """
        return self._live() + self._live_states()

    def take(self) -> None:
        """Copy everything as it is now."""
        copy_each(self._copies, self._live())
        self._states = self._live_states()

    def take_finite(self) -> bool:
        """Copy everything as it is now, if the module's weights are finite; the host waits once."""
        live, n_weights = self._live(), self._n_weights
        weights = live[:n_weights]
        if not self._rooms and _is_one_room_enough(weights):
            self._rooms = [_Room.of(weights), _Room.of(weights)]
        if self._rooms:
            room = self._rooms[-1]
            copy_each(room.parts, weights)
            if not _is_finite(room.whole):
                return False
            self._rooms.reverse()
            self._copies[:n_weights] = room.parts
            copy_each(self._copies[n_weights:], live[n_weights:])
        else:
            if not are_finite(weights):
                return False
            copy_each(self._copies, live)
        self._states = self._live_states()
        return True

    @torch.no_grad()
    def load(self, values: Sequence[torch.Tensor]) -> None:
        """Take the `values` of another snapshot in the place of its own.

        Raises
        ------
        ValueError
            If they are not as many, or of other shapes.
        """
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(copied.shape) for copied in self.values]:
            raise ValueError(f"there are tensors of the shapes {shapes}, for other ones")
        for copied, value in zip(self.values, values, strict=True):
            copied.copy_(value)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back, and the buffers whose places other tensors have taken."""
        for layer, name, buffer in self._buffers:
            if getattr(layer, name) is not buffer:
                setattr(layer, name, buffer)
        copy_each(self._live(), self._copies)
        self._restore_generators()

    @torch.no_grad()
    def restore_changed(self) -> list[torch.Tensor]:
        """Put back what has changed; the rest is not written to, as a mapped file may not be.

        Returns
        -------
        values : list of Tensor
            What was there before, in the order of `values`.
        """
        there = []
        for live, copy in zip(self._live(), self._copies, strict=True):
            if torch.equal(live, copy):
                there.append(copy)
            else:
                there.append(live.clone())
                live.copy_(copy)
        states = self._live_states()
        self._restore_generators()
        return there + states

    def _restore_generators(self) -> None:
        for device, state in zip(self._devices, self._states, strict=True):
            set_generator_state(device, state)

    def _live_states(self) -> list[torch.Tensor]:
        return [generator_state(device) for device in self._devices]


class _Room(NamedTuple):
    """Memory for copies of tensors, in one piece.

    Attributes
    ----------
    whole : Tensor of shape (n_numbers,)
        All of it.
    parts : list of Tensor
        The place of each copy, of its tensor's shape.
    """

    whole: torch.Tensor
    parts: list[torch.Tensor]

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor]) -> _Room:
        """Room for copies of tensors of one dtype on one device."""
        sizes = [tensor.numel() for tensor in tensors]
        whole = tensors[0].new_empty(sum(sizes))
        parts = [
            part.view(tensor.shape)
            for part, tensor in zip(torch.split(whole, sizes), tensors, strict=True)
        ]
        return cls(whole, parts)


def _is_one_room_enough(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors hold few numbers of one kind, so that their copies fit into a small room."""
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
    n_numbers = sum(tensor.numel() for tensor in tensors)
    return len(kinds) == 1 and tensors[0].is_floating_point() and n_numbers <= _FEW


def names_in(module: nn.Module) -> list[str]:
    """Name the weights and buffers of a module, in the order of a snapshot's `values`."""
    buffers = [
        f"{place}.{name}" if place else name
        for place, layer in module.named_modules()
        for name, _ in layer.named_buffers(recurse=False)
    ]
    return [*(name for name, _ in module.named_parameters()), *buffers]


def copy_each(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each source into the target at its place of the same shape."""
    if not targets:
        return  # an error of the private function
    try:
        # One call for all tensors: less time than a loop takes. The name is private.
        torch._foreach_copy_(targets, sources)
    except (AttributeError, RuntimeError, TypeError):
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def are_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Tell whether all numbers of tensors of any shapes are finite; the host waits once."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return True
    # The norm of huge numbers overflows before they do.
    return all(map(math.isfinite, _norms(floating))) or all(map(_is_finite, floating))


def _is_finite(tensor: torch.Tensor) -> bool:
    norm = torch.linalg.vector_norm(tensor).item()
    return math.isfinite(norm) or bool(tensor.isfinite().all())


def _norms(tensors: list[torch.Tensor]) -> list[float]:
    """The norms of tensors, or one number that is finite only if they are."""
    try:
        norms = list(torch._foreach_norm(tensors))  # private, and one call for all
    except (AttributeError, RuntimeError, TypeError):
        norms = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    if all(norm.is_cpu for norm in norms):
        return [norm.item() for norm in norms]
    if len({norm.device for norm in norms}) > 1:
        norms = [norm.to(norms[0].device) for norm in norms]
    return [torch.stack(norms).sum().item()]


def copied_to_host(value: Value) -> Value:
    """Copy an object as `copy.deepcopy` does, with all tensors that it holds on the host.

    Nothing is copied on the device, which may be full. Of tensors of classes of their own the
    class decides.
    """
    with _ToHost():
        return deepcopy(value)


class _ToHost(TorchFunctionMode):
    """Has copies of tensors made on the host."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # Parameters are copied by `clone`.
        is_copy = function in (torch.Tensor.__deepcopy__, torch.Tensor.clone)
        if is_copy and type(args[0]) is torch.Tensor and args[0].is_leaf:
            tensor: torch.Tensor = args[0]
            if tensor.device.type != HOST.type:
                return tensor.detach().cpu().requires_grad_(tensor.requires_grad)
        return function(*args, **(kwargs or {}))
