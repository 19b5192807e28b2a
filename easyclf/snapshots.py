"""Copies of tensors that can be put back."""

from __future__ import annotations

import math

import torch
from torch import nn


class Snapshot:
    """A copy of the weights and buffers of a module, which can be put back.

    Parameters
    ----------
    module : nn.Module
        The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [parameter.detach() for parameter in module.parameters()]
        # By name, since a module may put another tensor in the place of a buffer.
        self._buffers = [
            (layer, name)
            for layer in module.modules()
            for name, _ in layer.named_buffers(recurse=False)
        ]
        self._saved = [tensor.clone() for tensor in self._live()]

    def _live(self) -> list[torch.Tensor]:
        if not self._buffers:
            return self._parameters
        buffers = [getattr(layer, name).detach() for layer, name in self._buffers]
        return self._parameters + buffers

    def take(self) -> None:
        """Copy the weights as they are now."""
        torch._foreach_copy_(self._saved, self._live())

    def restore(self) -> None:
        """Put the copied weights back into the module."""
        torch._foreach_copy_(self._live(), self._saved)

    def is_live_finite(self) -> bool:
        """Whether the weights, as they are now, are finite."""
        floating = [tensor for tensor in self._parameters if tensor.is_floating_point()]
        norms = torch.stack(torch._foreach_norm(floating))
        # The norm of huge weights overflows before they do.
        return math.isfinite(norms.max().item()) or all(
            bool(tensor.isfinite().all()) for tensor in floating
        )
