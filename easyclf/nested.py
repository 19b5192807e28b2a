"""One tensor or several, by name or by place, handled alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

# What a `forward` is given: one tensor, or several by name or by place.
Tensors = torch.Tensor | dict[str, torch.Tensor] | tuple[torch.Tensor, ...]
# The shape of a row of them, or that of a batch, in the same structure.
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]] | tuple[tuple[int, ...], ...]


def call(forward: Callable[..., Any], x: Tensors) -> Any:
    """Call `forward` with one input of shape (n_rows, ...), or several by name or by place."""
    if isinstance(x, torch.Tensor):
        return forward(x)
    return forward(**x) if isinstance(x, dict) else forward(*x)


def apply(function: Callable[[torch.Tensor], Any], x: Tensors) -> Any:
    """Call `function` with each input of shape (n_rows, ...), and keep their structure."""
    if isinstance(x, torch.Tensor):
        return function(x)
    if isinstance(x, dict):
        return {name: function(tensor) for name, tensor in x.items()}
    return tuple(function(tensor) for tensor in x)


def like(x: Tensors, tensors: Sequence[torch.Tensor]) -> Tensors:
    """Put other tensors of shape (n_rows, ...) into the structure of the inputs `x`."""
    if isinstance(x, torch.Tensor):
        return tensors[0]
    return dict(zip(x, tensors, strict=True)) if isinstance(x, dict) else tuple(tensors)


def named_tensors(x: Tensors) -> list[tuple[Any, torch.Tensor]]:
    """List inputs of shape (n_rows, ...) with their names or places; the only one is None."""
    if isinstance(x, torch.Tensor):
        return [(None, x)]
    return list(x.items() if isinstance(x, dict) else enumerate(x))


def tensors_of(x: Tensors) -> tuple[torch.Tensor, ...]:
    """List inputs of shape (n_rows, ...) without their names."""
    if isinstance(x, torch.Tensor):
        return (x,)
    return tuple(x.values()) if isinstance(x, dict) else x


def first_of(x: Tensors) -> torch.Tensor:
    """Take the first of several inputs, or the only one, of shape (n_rows, ...)."""
    return x if isinstance(x, torch.Tensor) else tensors_of(x)[0]
