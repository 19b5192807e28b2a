"""Products of matrices by the faster of the two libraries that torch brings.

For float32 on the CPU torch asks MKL, which leaves the AVX-512 units of AMD's processors idle.
oneDNN, which torch asks for convolutions, uses them: a large product takes half as long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from easyclf.device import processor

_aten = torch.ops.aten
# Smaller products take less time than it takes to call oneDNN.
_LARGE = 2_000_000
# MKL has kernels of its own for matrices as narrow as vectors.
_NARROW = 8


def faster_product(function: Any, tensors: Sequence[torch.Tensor]) -> Callable[..., Any] | None:
    """What does the same as an operation of ATen on these tensors in less time, or None."""
    product = _PRODUCTS.get(function)
    if product is None or not (torch.backends.mkldnn.enabled and is_mkl_slow()):
        return None
    if any(one.dtype != torch.float32 or not one.is_cpu for one in tensors):
        return None
    if function is _aten.linear.default:
        first, second, *bias = tensors
    else:
        *bias, first, second = tensors
    shared = max(1, first.shape[-1])
    sides = (first.numel() // shared, shared, second.numel() // shared)
    if any(one.shape != sides[2:] for one in bias):
        return None
    return product if min(sides) >= _NARROW and math.prod(sides) >= _LARGE else None


@functools.cache
def is_mkl_slow() -> bool:
    """Whether oneDNN is the faster one here."""
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in processor()
    )


def _mm(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return _linear(first, second.t())


def _addmm(bias: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return _linear(first, second.t(), bias)


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


_PRODUCTS: dict[Any, Callable[..., Any]] = {
    _aten.mm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten.linear.default: _linear,
}
