"""Images in other orders than torch's: `(n, H, W)` and `(n, H, W, C)` to `(n, C, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from easyclf.data.transforms import Transform
from easyclf.modules import has_channels_last


def channels_to_front(x: torch.Tensor) -> torch.Tensor:
    """Arrange images of shape (n, H, W, C) as (n, C, H, W), without a copy."""
    return x.permute(0, 3, 1, 2)


def with_channel(x: torch.Tensor) -> torch.Tensor:
    """Arrange images of shape (n, H, W) as (n, 1, H, W), without a copy."""
    return x.unsqueeze(1)


def likely_arrangement(sample_shape: Sequence[int]) -> Transform | None:
    """Choose how rows of this shape get torch's order, if they look like images in another one."""
    if len(sample_shape) == 2:
        return with_channel
    return channels_to_front if has_channels_last(sample_shape) else None


def arrangements(
    sample_shape: Sequence[int], module: nn.Module, *, is_vision: bool
) -> list[Transform | None]:
    """List the ways to arrange rows for a module, in the order in which to try them.

    A module with 2-D convolutions wants the channels first, and so do transforms of torchvision's
    (`is_vision`).
    """
    likely = likely_arrangement(sample_shape)
    convolves = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    if likely is None or not (convolves or is_vision):
        return [None]
    if not convolves and likely is with_channel:
        return [None, likely]
    return [likely, None]
