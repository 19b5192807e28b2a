"""A module as `torch.compile` makes it, and as it is where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from easyclf.checks import first_line_of, warn_user
from easyclf.device import is_out_of_memory


class CompiledForward:
    """Calls what `torch.compile` makes of a module, until that fails; then the module itself.

    Parameters
    ----------
    module : nn.Module
        It stays as it is.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # torch compiles when it is called, and again when shapes change.
        self._forward: Callable[..., Any] = torch.compile(module)

    def __call__(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Any:
        """Compute what the module returns for inputs of shape (n_rows, ...)."""
        if self._forward is self._module:
            return self._module(*inputs, **named)
        try:
            return self._forward(*inputs, **named)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # An error of the module's own is raised here.
            returned = self._module(*inputs, **named)
            self._forward = self._module
            warn_user(
                f"torch.compile cannot compile {type(self._module).__name__} here "
                f"({first_line_of(error)}); the fit goes on without. "
                "Use compile='auto' to save that time.",
            )
            return returned
