"""The precision of the arithmetic: its dtype, autocast, and the scaling of fp16 gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from easyclf.device import HOST, has_float64
from easyclf.nested import Tensors, call
from easyclf.output_choice import OutputChoice

Forward = Callable[..., Any]


class Precision(ABC):
    """How a forward pass, a backward pass and a step of the optimizer are computed.

    Parameters
    ----------
    dtype : torch.dtype
        The dtype of the module's weights and of the rows that it is given.

    Attributes
    ----------
    choice : OutputChoice
        Which part of what the module returns is the output.
    is_recordable : bool
        Whether a step is no more than a backward pass and `optimizer.step`.
    scaler : GradScaler or None
        It keeps small gradients from vanishing.
    """

    is_recordable = True
    scaler: torch.amp.GradScaler | None = None

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.choice = OutputChoice(None)

    @abstractmethod
    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        """Compute the outputs of `x`, of shape (n_rows, ...), with their graph, in `dtype`."""

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, of shape (), to those of the weights."""

    @abstractmethod
    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients those of the loss itself, before they are looked at."""

    @abstractmethod
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights."""


class UnscaledPrecision(Precision):
    """Gradients that need no scaling: plain backward and plain step."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()


class FullPrecision(UnscaledPrecision):
    """All arithmetic in the dtype of the weights, float32 or float64."""

    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        outputs: torch.Tensor = call(forward, x)
        return outputs if self.choice.which is None else self.choice(outputs)


class _Autocast(Precision):
    """Weights in float32, and matrix products in half the bits."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.float32)
        self._device_type = device.type

    def _run_autocast(self, forward: Forward, x: Tensors, reduced: torch.dtype) -> torch.Tensor:
        """Outputs in float32 of a forward pass whose matrix products are in `reduced`."""
        with torch.autocast(self._device_type, dtype=reduced):
            outputs: torch.Tensor = self.choice(call(forward, x))
        # Losses are sums of many small numbers: they are computed in full precision.
        return outputs.float()


class MixedPrecision(_Autocast, UnscaledPrecision):
    """bf16 autocast: weights stay float32, matrix products are in half the bits."""

    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        return self._run_autocast(forward, x, torch.bfloat16)


class ScaledPrecision(_Autocast):
    """fp16 autocast, with the gradients scaled so that small ones do not vanish."""

    is_recordable = False
    scaler: torch.amp.GradScaler

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.scaler = torch.amp.GradScaler(device.type)

    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        return self._run_autocast(forward, x, torch.float16)

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()


def precision_dtype(name: str) -> torch.dtype:
    """The dtype of the weights and of the inputs under that precision."""
    return torch.float64 if name == "float64" else torch.float32


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Make the `Precision` of that name.

    Raises
    ------
    ValueError
        If the device cannot compute in it.
    """
    if name == "bf16":
        return MixedPrecision(device)
    if name == "fp16":
        if device.type == HOST.type:
            raise ValueError(
                "`precision` is 'fp16' and the device is the CPU, which has no fast fp16; "
                "use 'bf16' or 'float32'."
            )
        return ScaledPrecision(device)
    if name == "float64" and not has_float64(device):
        raise ValueError(
            f"`precision` is 'float64', which {device.type} does not have; use device='cpu'."
        )
    return FullPrecision(precision_dtype(name))
