"""Weights and buffers of modules by their names: read from files, and put into other modules."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from easyclf.checks import warn_user
from easyclf.device import HOST
from easyclf.exceptions import InvalidFile
from easyclf.files import PathLike, reading, replacing
from easyclf.mlp import MLP
from easyclf.safetensors import read_tensors, write_tensors

# How alike two names have to be, to be shown as a pair.
_NEAR = 0.5
# Pairs of names that an error shows.
_MOST_SHOWN = 8
_MAGIC_OF_ZIP, _MAGIC_OF_PICKLE = b"PK\x03\x04", b"\x80"


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """List the weights and buffers of a module, of any shapes, as its `state_dict` names them.

    Raises
    ------
    TypeError
        If the module adds other things than tensors to its `state_dict`.
    """
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{type(module).__name__} has {name!r} in its `state_dict`, of type "
                f"{type(value).__name__}, which a file of tensors cannot hold; use pickle or "
                "joblib, or keep it in a buffer."
            )
    return dict(state)


def write_weights(path: PathLike, module: nn.Module) -> None:
    """Write the weights and buffers of a module to a safetensors file."""
    tensors = weights_of(module)
    with replacing(path) as file:
        file.write(write_tensors(tensors, {"format": "pt"}))


def read_weights(path: PathLike) -> dict[str, torch.Tensor]:
    """Read tensors of any shapes from a safetensors file, or from a state dict of torch's.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InvalidFile
        If it is another kind of file, or damaged.
    """
    with reading(path) as (file, _):
        beginning = file.read(4)
        file.seek(0)
        if beginning != _MAGIC_OF_ZIP and beginning[:1] != _MAGIC_OF_PICKLE:
            return read_tensors(file.read())[0]
        try:
            with warnings.catch_warnings():
                # Of protocols of pickle that it may not know in full.
                warnings.simplefilter("ignore")
                # It takes tensors and containers, and executes nothing.
                state = torch.load(file, map_location=HOST, weights_only=True)
        except Exception as error:  # whatever a damaged file makes it raise
            raise InvalidFile(
                "it is no safetensors file, and no state dict that `torch.load` reads with "
                "weights_only=True; a file that `Estimator.save` has written is read by "
                "`Estimator.load`, and one of `Checkpoint` by `fit`"
            ) from error
        if not isinstance(state, Mapping):
            raise InvalidFile(f"it holds a {type(state).__name__}, and no state dict")
        wrong = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if wrong:
            raise InvalidFile(
                f"it holds other things than tensors under {wrong[:_MOST_SHOWN]}; save the "
                "`state_dict` of the module alone"
            )
        return {str(name): tensor for name, tensor in state.items()}


class Differences(NamedTuple):
    """What does not fit: names of the module and of the file, and shapes under the same name."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[tuple[str, str]]

    @classmethod
    def between(
        cls, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
    ) -> Differences:
        shapes = [
            (name, f"`{name}` has shape {tuple(given[name].shape)}, not {tuple(tensor.shape)}")
            for name, tensor in own.items()
            if name in given and not is_lazy(tensor) and tensor.shape != given[name].shape
        ]
        missing = [name for name in own if name not in given]
        return cls(missing, [name for name in given if name not in own], shapes)

    def __bool__(self) -> bool:
        return any(map(bool, self))

    def describe(self) -> str:
        """Name what differs, the nearest names as pairs."""
        left, lines = list(self.missing), []
        for name in self.unexpected:
            near = difflib.get_close_matches(name, left, n=1, cutoff=_NEAR)
            has = f", which has `{near[0]}`" if near else ""
            lines.append(f"`{name}` is not in the module{has}")
            left = [other for other in left if other not in near]
        lines += [f"`{name}` is not among them" for name in left]
        lines += [line for _, line in self.shapes]
        more = len(lines) - _MOST_SHOWN
        return "; ".join(lines[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def put_weights(
    module: nn.Module, weights: Mapping[str, torch.Tensor], *, strict: bool = True
) -> None:
    """Copy weights and buffers into a module, in place, where names and shapes are the same.

    Parameters
    ----------
    module : nn.Module
        Lazy layers take the shapes of their weights.
    weights : mapping of str to Tensor
        Of any shapes.
    strict : bool, default=True
        Whether all have to fit; else what does not is left as it is, with a warning.

    Raises
    ------
    ValueError
        If names or shapes differ and `strict` is set, or nothing fits; the module stays as it is.
    """
    own = weights_of(module)
    differences = Differences.between(own, weights)
    name = type(module).__name__
    fitting = {n: weights[n] for n in own if n in weights}
    fitting = {n: w for n, w in fitting.items() if n not in dict(differences.shapes)}
    if differences and (strict or not fitting):
        advice = "; use strict=False to take those that do" if fitting else ""
        raise ValueError(
            f"The weights do not fit {name}: {differences.describe()}. Expected the weights of "
            f"the same architecture{advice}."
        )
    if differences:
        warn_user(
            f"{len(fitting)} of {len(own)} weights and buffers of {name} were taken: "
            f"{differences.describe()}.",
        )
    module.load_state_dict(fitting, strict=False)


class InitialWeights(NamedTuple):
    """Weights with which the next training begins.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Of any shapes, by the names that the module has for them.
    strict : bool
        Whether all names and shapes have to fit.
    """

    tensors: dict[str, torch.Tensor]
    strict: bool

    def put_into(self, module: nn.Module) -> None:
        """Copy them into a module; the default one takes its columns from them, too."""
        put_weights(module, self.tensors, strict=self.strict)
        if isinstance(module, MLP) and "shift" in self.tensors:
            module.take_statistics({})
