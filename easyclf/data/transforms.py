"""`preprocess` and `augment`: the user's transforms of whole batches, on the device."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from easyclf.checks import name_of

Transform = Callable[[Any], Any]
# Transforms of torchvision's that do the same to every image, or draw for every pixel: they take
# whole batches. Of all others an image at a time is drawn for.
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
    """

    def __init__(
        self, transform: Transform, device: torch.device, name: str = "preprocess"
    ) -> None:
        if isinstance(transform, nn.Module):
            # Random layers draw in training only.
            transform = copy.deepcopy(transform).to(device).train(name == "augment")
        self._transform, self._name = transform, name

    @torch.no_grad()
    def __call__(self, x: Any) -> Any:
        found = _called(self._transform, x, self._name)
        return _checked(found, x, self._name)

    def to(self, device: torch.device) -> Preprocessing:
        """The like of it for another device."""
        return Preprocessing(self._transform, device, self._name)


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
    def mixes(self) -> bool:
        """Whether it makes soft targets of labels."""
        return bool(self._mixers)

    @torch.no_grad()
    def inputs(self, x: Any) -> Any:
        """The inputs of a batch, each row changed in its own way."""
        for stage in self._stages:
            x = _checked(stage(x), x, "augment")
        return x

    @torch.no_grad()
    def mixed(self, x: Any, y: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Inputs and targets, mixed: a row of `y` is then the share of each class."""
        for mixer in self._mixers:
            x, y = _called(functools.partial(_mix, mixer), (x, y), "augment")
        return x, y


def _mix(mixer: Callable[..., Any], batch: tuple[Any, ...]) -> Any:
    return mixer(*batch)


def _called(transform: Transform, x: Any, name: str) -> Any:
    try:
        return transform(x)
    except Exception as error:
        batch = x[0] if isinstance(x, tuple) else x
        shape = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
        dtype = f" and dtype {batch.dtype}" if isinstance(batch, torch.Tensor) else ""
        error.add_note(f"Raised by `{name}`, on a batch of shape {shape}{dtype}.")
        raise


def _checked(found: Any, given: Any, name: str) -> Any:
    """What a transform returned, refused if it is not a batch of as many rows."""
    if isinstance(found, torch.Tensor) and isinstance(given, torch.Tensor):
        if found.ndim == 0 or len(found) != len(given):
            raise ValueError(
                f"`{name}` made shape {tuple(found.shape)} of a batch of shape "
                f"{tuple(given.shape)}; expected as many rows."
            )
        # Images of torchvision's are tensors of a class of their own.
        return found if type(found) is torch.Tensor else found.as_subclass(torch.Tensor)
    if isinstance(found, (dict, tuple)) and not isinstance(given, torch.Tensor):
        return found
    raise TypeError(
        f"`{name}` {name_of(found)} returned a {type(found).__name__} for a batch of X; expected "
        "a tensor."
    )


def _stages(augment: Transform) -> Iterator[Transform]:
    """The transforms that follow each other in `Compose` and `nn.Sequential`."""
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
