"""The precision of the arithmetic: its dtype, autocast, and the scaling of fp16 gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from easyclf.nested import Tensors, call

Forward = Callable[..., Any]


class Precision:
    """Full precision (float32 or float64): plain backward and plain step.

    Attributes
    ----------
    dtype : torch.dtype
        The dtype of the module's weights and of the rows that it is given.
    """

    # Whether a step is no more than a backward pass and `optimizer.step`.
    is_recordable = True

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        """The outputs of the forward pass, in `dtype`."""
        outputs: torch.Tensor = call(forward, x)
        return outputs

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of `loss`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients those of the loss itself, before they are looked at."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights."""
        optimizer.step()


class MixedPrecision(Precision):
    """bf16 autocast: weights stay float32, matrix products are in half the bits."""

    def __init__(self, device: torch.device, reduced: torch.dtype) -> None:
        super().__init__(torch.float32)
        self._device_type, self._reduced = device.type, reduced

    def run(self, forward: Forward, x: Tensors) -> torch.Tensor:
        with torch.autocast(self._device_type, dtype=self._reduced):
            outputs: torch.Tensor = call(forward, x)
        # Losses are sums of many small numbers: they are computed in full precision.
        return outputs.float()


class ScaledPrecision(MixedPrecision):
    """fp16 autocast, with the gradients scaled so that small ones do not vanish."""

    is_recordable = False

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, torch.float16)
        self._scaler = torch.amp.GradScaler(device.type)

    def backward(self, loss: torch.Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()


def precision_dtype(name: str) -> torch.dtype:
    """The dtype of the weights and of the inputs under that precision."""
    return torch.float64 if name == "float64" else torch.float32


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The `Precision` of that name, refused where the device cannot do it."""
    if name == "bf16":
        return MixedPrecision(device, torch.bfloat16)
    if name == "fp16":
        if device.type == "cpu":
            raise ValueError(
                "`precision` is 'fp16' and the device is the CPU, which has no fast fp16; "
                "use 'bf16' or 'float32'."
            )
        return ScaledPrecision(device)
    if name == "float64" and device.type == "mps":
        raise ValueError("`precision` is 'float64', which mps does not have; use device='cpu'.")
    return Precision(precision_dtype(name))
