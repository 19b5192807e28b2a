"""`preprocess` and `augment`: the user's transforms of whole batches, on the device."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import nn

from easyclf.device import HOST
from easyclf.nested import Tensors
from easyclf.snapshots import copied_to_host

Transform = Callable[[Any], Any]
# Whatever a transform of the user's returns, before it is checked.
Returned: TypeAlias = Any
# Transforms of torchvision's that do the same to every image, or draw for every pixel: they take
# whole batches. All others draw once a call, and are called for one image at a time.
_FOR_BATCHES = {
    "CenterCrop",
    "ConvertImageDtype",
    "GaussianNoise",
    "Grayscale",
    "Identity",
    "LinearTransformation",
    "Normalize",
    "Pad",
    "RGB",
    "Resize",
    "ToDtype",
    "ToImage",
    "ToPureTensor",
}
_MIXERS = ("MixUp", "CutMix")


class Preprocessing:
    """The user's `preprocess`, on the device of the batches.

    Parameters
    ----------
    transform : callable
        It takes a batch, and returns one with as many rows.
    device : torch.device
        Where the batches are.
    name : str
        The parameter, for messages.

    Attributes
    ----------
    transform : callable
        The transform itself; a module is a copy, on the device.
    """

    def __init__(
        self, transform: Transform, device: torch.device, name: str = "preprocess"
    ) -> None:
        if isinstance(transform, nn.Module):
            # Random layers draw in training only.
            is_for_host = device.type == HOST.type
            copied = copied_to_host(transform) if is_for_host else copy.deepcopy(transform)
            transform = copied.to(device).train(name == "augment")
        self.transform, self._name = transform, name

    @property
    def is_vision(self) -> bool:
        """Whether it begins with a transform of torchvision's."""
        return is_vision(self.transform)

    @torch.no_grad()
    def __call__(self, x: Tensors) -> Tensors:
        """Transform a batch of shape (n_rows, ...)."""
        return _checked(_called(self.transform, x, self._name), x, self._name)

    def to(self, device: torch.device) -> Preprocessing:
        """Make a copy for another device."""
        return Preprocessing(self.transform, device, self._name)


class Augmentation:
    """The user's `augment`: for batches of the training only.

    torchvision's random transforms draw once a call, so they are called once for each image; the
    order of the stages of a `Compose` or an `nn.Sequential` is kept. `MixUp` and `CutMix` mix
    images and labels: they come last, after `preprocess`.

    Parameters
    ----------
    augment : callable
        It takes a batch, and returns one with as many rows.
    device : torch.device
        Where the batches are.
    """

    def __init__(self, augment: Transform, device: torch.device) -> None:
        self._augment = augment
        stages = list(_stages(augment))
        self._mixers = [stage for stage in stages if _mixes(stage)]
        self._stages = [
            _for_each_image(stage)
            if _draws_once(stage)
            else Preprocessing(stage, device, "augment")
            for stage in stages
            if not _mixes(stage)
        ]

    @property
    def is_vision(self) -> bool:
        """Whether it begins with a transform of torchvision's."""
        return is_vision(self._augment)

    @property
    def mixes(self) -> bool:
        """Whether it makes soft targets of labels."""
        return bool(self._mixers)

    def to(self, device: torch.device) -> Augmentation:
        """Make a copy for another device."""
        return Augmentation(self._augment, device)

    @torch.no_grad()
    def inputs(self, x: Tensors) -> Tensors:
        """Change each row of a batch of shape (n_rows, ...) in its own way."""
        for stage in self._stages:
            x = _checked(stage(x), x, "augment")
        return x

    @torch.no_grad()
    def mixed(self, x: Tensors, y: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        """Mix inputs of shape (n_rows, ...) and targets of shape (n_rows,).

        The mixed targets have shape (n_rows, n_classes): the share of each class.
        """
        for mixer in self._mixers:
            x, y = _called(functools.partial(_mix, mixer), (x, y), "augment")
        return x, y


def _mix(mixer: Callable[..., Any], batch: tuple[object, ...]) -> Returned:
    return mixer(*batch)


def _called(transform: Transform, x: object, name: str) -> Returned:
    try:
        return transform(x)
    except Exception as error:
        batch = x[0] if isinstance(x, tuple) else x
        shape = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
        dtype = f" and dtype {batch.dtype}" if isinstance(batch, torch.Tensor) else ""
        error.add_note(f"Raised by `{name}`, on a batch of shape {shape}{dtype}.")
        raise


def _checked(result: object, batch: object, name: str) -> Tensors:
    """Give the result of a transform, and refuse it if it is not a batch of as many rows."""
    if isinstance(result, torch.Tensor) and isinstance(batch, torch.Tensor):
        if result.ndim == 0 or len(result) != len(batch):
            raise ValueError(
                f"`{name}` made shape {tuple(result.shape)} of a batch of shape "
                f"{tuple(batch.shape)}; expected as many rows."
            )
        # Images of torchvision's are tensors of a class of their own.
        return result if type(result) is torch.Tensor else result.as_subclass(torch.Tensor)
    if isinstance(result, (dict, tuple)) and not isinstance(batch, torch.Tensor):
        return result
    raise TypeError(
        f"`{name}` returned a {type(result).__name__} for a batch of X; expected a tensor."
    )


def _stages(augment: Transform) -> Iterator[Transform]:
    """Yield the transforms that follow each other in `Compose` and `nn.Sequential`."""
    if isinstance(augment, nn.Sequential):
        inner = list(augment)
    elif type(augment).__name__ == "Compose" and hasattr(augment, "transforms"):
        inner = augment.transforms
    else:
        yield augment
        return
    for stage in inner:
        yield from _stages(stage)


def is_vision(transform: Transform) -> bool:
    """Whether it begins with a transform of torchvision's."""
    first = next(_stages(transform), None)
    return type(first).__module__.startswith("torchvision.")


def _mixes(stage: Transform) -> bool:
    inner = getattr(stage, "transforms", ())
    return type(stage).__name__ in _MIXERS or any(map(_mixes, inner))


def _draws_once(stage: Transform) -> bool:
    is_torchvision = type(stage).__module__.startswith("torchvision.")
    return is_torchvision and type(stage).__name__ not in _FOR_BATCHES


def _for_each_image(stage: Transform) -> Transform:
    def transform(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([_called(stage, image, "augment") for image in x])

    return transform
