"""Values as JSON and tensors, and back: those of the types listed here, and no others.

A class or a function is stored by its name, and found again among those that this file lists;
nothing is imported, and no attribute is looked up, because a file names it.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from easyclf.documents import JSON
from easyclf.exceptions import InvalidFile
from easyclf.mlp import MLP

# An encoded value that is none of JSON's own: its type, and what that type needs.
Described: TypeAlias = dict[str, JSON]

# Kinds of NumPy's dtypes whose bytes are their values on any machine.
_DTYPE = re.compile(r"[<>|][biufcmMSUO][0-9]{0,9}(\[[0-9a-zA-Z]{1,9}\])?")
# Bytes of an array of texts, which are as wide as the longest of them.
_MOST_TEXT = 2**27
# Numbers in the state of NumPy's `RandomState`.
_MT19937_KEYS = 624
_PLAIN = (bool, int, float, str, type(None))
# Fields of the losses of torch that have some; all have `reduction`.
_LOSS_FIELDS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.CrossEntropyLoss: ("weight", "ignore_index", "label_smoothing", "reduction"),
    nn.NLLLoss: ("weight", "ignore_index", "reduction"),
    nn.BCELoss: ("weight", "reduction"),
    nn.BCEWithLogitsLoss: ("weight", "pos_weight", "reduction"),
}
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("tanh", "sigmoid", "hardswish", "hardtanh", "softsign", "logsigmoid", "cross_entropy"),
)


def known_layers() -> dict[str, type[nn.Module]]:
    """List the classes of modules that torch and easyclf provide, by their names."""
    layers = {
        f"torch.nn.{name}": member
        for name, member in vars(nn).items()
        if inspect.isclass(member)
        and issubclass(member, nn.Module)
        and member.__module__.startswith("torch.nn.")
    }
    return {**layers, "easyclf.MLP": MLP}


def known_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """List the classes of optimizers that torch provides, by their names."""
    return {
        f"torch.optim.{name}": member
        for name, member in vars(torch.optim).items()
        if inspect.isclass(member)
        and issubclass(member, torch.optim.Optimizer)
        and member is not torch.optim.Optimizer
    }


_KNOWN: dict[str, object] = {
    **known_layers(),
    **known_optimizers(),
    **{f"torch.nn.functional.{name}": getattr(F, name) for name in _FUNCTIONS},
    **{f"torch.{name}": getattr(torch, name) for name in ("relu", "sigmoid", "tanh")},
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{f"torch.{name}": getattr(torch, name) for name in ("contiguous_format", "channels_last")},
    "torch.preserve_format": torch.preserve_format,
}
_NAMES = {id(known): name for name, known in reversed(_KNOWN.items())}


class CannotBeStored(TypeError):
    """A value is of a type that files do not hold; the message describes it."""


class Encoder:
    """Values to JSON and tensors.

    Attributes
    ----------
    tensors : dict of str to Tensor
        The numbers of all values that were encoded, of any shapes, by the names that the JSON
        has for them.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def encode(self, value: object) -> JSON:
        """Encode a value.

        Raises
        ------
        CannotBeStored
            If it, or something in it, is of a type that files do not hold.
        """
        if type(value) in _PLAIN:
            return value  # type: ignore[return-value]
        if id(value) in _NAMES:
            return {"type": "name", "name": _NAMES[id(value)]}
        if type(value) is list:
            return [self.encode(item) for item in value]
        if type(value) is tuple:
            return {"type": "tuple", "items": [self.encode(item) for item in value]}
        if type(value) is dict:
            pairs: list[JSON] = [[self.encode(k), self.encode(v)] for k, v in value.items()]
            return {"type": "dict", "items": pairs}
        if type(value) is bytes:
            return {"type": "bytes", "hex": value.hex()}
        if type(value) is torch.device:
            return {"type": "device", "name": str(value)}
        if isinstance(value, torch.Tensor) and type(value) in (torch.Tensor, nn.Parameter):
            return {"type": "tensor", "tensor": self._keep(value)}
        if type(value) is np.ndarray:
            return {"type": "array", **self._array(value)}
        if isinstance(value, np.generic):
            return {"type": "scalar", **self._array(np.asarray(value))}
        if type(value) is np.random.RandomState:
            return {"type": "random_state", "state": self.encode(value.get_state())}
        if type(value) in _LOSS_FIELDS:
            return self._loss(value)
        raise CannotBeStored(f"{type(value).__qualname__}")

    def _keep(self, tensor: torch.Tensor) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = tensor.detach()
        return name

    def _array(self, array: NDArray[Any]) -> Described:
        if array.dtype.names or not _DTYPE.fullmatch(array.dtype.str):
            raise CannotBeStored(f"an array of dtype {array.dtype}")
        described: Described = {"dtype": array.dtype.str, "shape": list(array.shape)}
        if array.dtype.kind in "UO":
            if array.nbytes > _MOST_TEXT:
                raise CannotBeStored(f"an array of texts of {array.nbytes} bytes")
            return described | {"items": [self.encode(item) for item in array.ravel().tolist()]}
        numbers = np.frombuffer(array.tobytes(), dtype=np.uint8).copy()
        return described | {"tensor": self._keep(torch.from_numpy(numbers))}

    def _loss(self, loss: object) -> Described:
        fields = {name: getattr(loss, name) for name in _LOSS_FIELDS[type(loss)]}  # type: ignore[index]
        name = _NAMES[id(type(loss))]
        return {"type": "loss", "class": name, "fields": self.encode(fields)}


def reason_not_stored(value: object) -> str | None:
    """Describe what of a value files do not hold; None if they hold all of it."""
    try:
        Encoder().encode(value)
    except CannotBeStored as error:
        return str(error)
    return None


class Decoder:
    """JSON and tensors to values.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The numbers, of any shapes, by the names that the JSON has for them.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._kinds: dict[str, Callable[[Described], object]] = {
            "name": lambda part: _found(_KNOWN, part["name"]),
            "tuple": lambda part: tuple(self._items(part)),
            "dict": self._dict,
            "bytes": lambda part: bytes.fromhex(_text(part["hex"])),
            "device": lambda part: torch.device(_text(part["name"])),
            "tensor": lambda part: _found(self._tensors, part["tensor"]),
            "array": self._array,
            "scalar": lambda part: self._array(part)[()],
            "random_state": self._random_state,
            "loss": self._loss,
        }

    def decode(self, data: JSON) -> object:
        """Decode what `Encoder.encode` made.

        Raises
        ------
        InvalidFile
            If it has an unknown type or name.
        ValueError, TypeError, KeyError
            If it is damaged otherwise.
        """
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        decode: Callable[[Described], object] = _found(self._kinds, data.get("type"))
        return decode(data)

    def _items(self, part: Described) -> list[object]:
        items = part["items"]
        if not isinstance(items, list):
            raise InvalidFile("the items of a value are no list")
        return [self.decode(item) for item in items]

    def _dict(self, part: Described) -> dict[object, object]:
        pairs: list[Any] = self._items(part)
        return dict(pairs)

    def _array(self, part: Described) -> NDArray[Any]:
        text = _text(part["dtype"])
        if not _DTYPE.fullmatch(text):
            raise InvalidFile(f"an array has the dtype {text[:50]!r}")
        dtype, shape = np.dtype(text), _shape(part["shape"])
        if dtype.kind not in "UO":
            numbers = _found(self._tensors, part["tensor"]).numpy()
            if dtype.kind == "b" and (numbers > 1).any():
                raise InvalidFile("an array of bools has other numbers")
            return np.frombuffer(numbers.tobytes(), dtype=dtype).reshape(shape).copy()
        items = self._items(part)
        # NumPy 2.0 gives the size of very long texts as a negative number.
        if not 0 <= dtype.itemsize * len(items) <= _MOST_TEXT:
            raise InvalidFile("an array of texts is too large")
        array = np.empty(len(items), dtype=dtype)
        for place, item in enumerate(items):
            array[place] = item
        return array.reshape(shape)

    def _random_state(self, part: Described) -> np.random.RandomState:
        state: Any = self.decode(part["state"])
        _, keys, position, _, _ = state
        # NumPy does not look whether the position is beyond the end.
        if keys.shape != (_MT19937_KEYS,) or not 0 <= int(position) <= _MT19937_KEYS:
            raise InvalidFile("a random state is none of the Mersenne twister")
        random_state = np.random.RandomState(0)
        random_state.set_state(state)
        return random_state

    def _loss(self, part: Described) -> nn.Module:
        found = _found(_KNOWN, part["class"])
        fields = self.decode(part["fields"])
        if found not in _LOSS_FIELDS or not isinstance(fields, dict):
            raise InvalidFile(f"{part['class']!r} is no loss that files hold")
        loss: nn.Module = found(**{name: fields[name] for name in _LOSS_FIELDS[found]})
        return loss


def _found(table: Mapping[str, Any], name: JSON) -> Any:
    if not isinstance(name, str) or name not in table:
        raise InvalidFile(f"it names {str(name)[:100]!r}, which is unknown here")
    return table[name]


def _text(data: object) -> str:
    if not isinstance(data, str):
        raise InvalidFile("a text is none")
    return data


def _shape(data: JSON) -> tuple[int, ...]:
    sizes = data if isinstance(data, list) else [None]
    shape = tuple(size for size in sizes if type(size) is int and size >= 0)
    if len(shape) < len(sizes) or len(shape) > 64 or math.prod(n or 1 for n in shape) > 2**62:
        raise InvalidFile("an array has an impossible shape")
    return shape
