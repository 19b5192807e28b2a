"""Plain values and tensors, nested in any way, as a JSON document and named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch

from easyclf.documents import JSON
from easyclf.exceptions import InvalidFile

# Kinds of NumPy's numbers: truth values, integers with and without sign, fractions.
_KINDS = "biuf"


class Encoder:
    """Writes values as JSON; the tensors among them are put aside under names.

    A value is known by its exact type: a subclass may hold more than is written here.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Those that were met so far, of any shapes; they are not copied.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def encode(self, value: object, name: str) -> JSON:
        """Encode a value.

        Parameters
        ----------
        value : object
            Numbers, texts, None, tensors, arrays of numbers, and lists, tuples and dicts of them.
        name : str
            The name of the value, for the error.

        Raises
        ------
        TypeError
            If there is something else in it; the error says where.
        """
        if value is None or type(value) in (bool, int, str):
            return value  # type: ignore[return-value]
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) in (list, tuple):
            items: list[JSON] = [
                self.encode(item, f"{name}[{place}]")
                for place, item in enumerate(cast("list[object] | tuple[object, ...]", value))
            ]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict:
            return {
                "dict": [
                    [self.encode(key, f"a key of {name}"), self.encode(item, f"{name}[{key!r}]")]
                    for key, item in cast("dict[object, object]", value).items()
                ]
            }
        if isinstance(value, torch.Tensor) and type(value) in (torch.Tensor, torch.nn.Parameter):
            return self._put_aside(value)
        if isinstance(value, np.generic) and value.dtype.kind in _KINDS and value.itemsize <= 8:
            return {"number": [value.dtype.str, self.encode(value.item(), name)]}
        if type(value) is np.ndarray and value.dtype.kind in _KINDS:
            return {"array": self._put_aside(torch.from_numpy(np.array(value)))}
        raise TypeError(
            f"{name} is a {type(value).__name__}, which a checkpoint cannot hold; expected "
            "numbers, texts, None, tensors, and lists, tuples and dicts of them."
        )

    def _put_aside(self, tensor: torch.Tensor) -> dict[str, JSON]:
        name = str(len(self.tensors))
        self.tensors[name] = tensor
        encoded: dict[str, JSON] = {"tensor": name}
        if not tensor.is_contiguous():
            # Kernels of optimizers take the states of a weight as they take the weight.
            strides: tuple[int, ...] = tensor.stride()
            order = sorted(range(tensor.ndim), key=lambda place: -strides[place])
            encoded["order"] = list(order)
        return encoded


def decode(encoded: JSON, tensors: Mapping[str, torch.Tensor]) -> object:
    """Read what an `Encoder` has written.

    Parameters
    ----------
    encoded : JSON
        The document.
    tensors : mapping of str to Tensor
        Those that were put aside, of any shapes.

    Raises
    ------
    InvalidFile
        If it is something else.
    """
    match encoded:
        case None | bool() | int() | float() | str():
            return encoded
        case list(items):
            return [decode(item, tensors) for item in items]
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"tuple": list(items)}:
            return tuple(decode(item, tensors) for item in items)
        case {"dict": list(pairs)}:
            return dict(_decode_pair(pair, tensors) for pair in pairs)
        case {"tensor": str(name), "order": order} if name in tensors:
            return _laid_out(tensors[name], order)
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"array": {"tensor": str(name)}} if name in tensors:
            return tensors[name].numpy()
        case {"number": [str(kind), number]}:
            return _decode_number(kind, decode(number, tensors))
        case _:
            raise InvalidFile(f"it holds {str(encoded)[:100]!r}, which easyclf has not written")


def _decode_pair(pair: JSON, tensors: Mapping[str, torch.Tensor]) -> tuple[object, object]:
    match pair:
        case [key, item]:
            return decode(key, tensors), decode(item, tensors)
        case _:
            raise InvalidFile("it holds a dict without keys")


def _decode_number(kind: str, number: object) -> np.generic:
    if kind[:1] not in ("<", ">", "|") or kind[1:2] not in tuple(_KINDS) or len(kind) > 4:
        raise InvalidFile(f"it holds a number of the kind {kind[:100]!r}")
    decoded: np.generic = np.dtype(kind).type(number)
    return decoded


def _laid_out(tensor: torch.Tensor, order: JSON) -> torch.Tensor:
    """Lay the numbers of a tensor of any shape out with its dimensions in an order of memory."""
    places = [place for place in order if isinstance(place, int)] if isinstance(order, list) else []
    if sorted(places) != list(range(tensor.ndim)):
        raise InvalidFile("it holds a tensor whose dimensions have an impossible order")
    back = [places.index(place) for place in range(tensor.ndim)]
    return tensor.permute(places).contiguous().permute(back)
