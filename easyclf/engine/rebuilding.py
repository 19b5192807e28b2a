"""The module of a file, built anew: from what the caller gives, trusts, or easyclf knows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from easyclf.checks import name_of
from easyclf.codec import known_layers
from easyclf.device import HOST, NOWHERE
from easyclf.engine.given import Given
from easyclf.exceptions import InvalidFile
from easyclf.modules import ModuleLike
from easyclf.weights import Differences, weights_of

# Calls of torch's functions that a module with so many weights may make in its constructor.
_CALLS_AT_ALL, _CALLS_PER_TENSOR = 10_000, 1_000
# What published weights make different in torchvision's constructors, beside the weights.
_AS_PUBLISHED: dict[str, dict[str, bool]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


def describe_module(module: ModuleLike) -> dict[str, str]:
    """Describe what the user gave as `module`: how it can be found again, and its name."""
    if module is None:
        return {"kind": "default", "name": "easyclf.MLP"}
    if isinstance(module, str):
        return {"kind": "torchvision", "name": module}
    name = f"{getattr(module, '__module__', '?')}.{name_of(module)}"
    if isinstance(module, nn.Module):
        return {"kind": "instance", "name": name}
    for known_name, layer in known_layers().items():
        if layer is module:
            return {"kind": "known", "name": known_name}
    can_be_named = hasattr(module, "__qualname__") and "<" not in name
    return {"kind": "importable" if can_be_named else "nameless", "name": name}


def find_module(
    described: Mapping[str, str], module: ModuleLike, trusted: str | Collection[str]
) -> ModuleLike:
    """Find the class or factory that a file's module was made by; nothing else is imported.

    Parameters
    ----------
    described : mapping
        As `describe_module` gave it.
    module : class, callable, nn.Module, str or None
        What the caller of `load` gave; None looks for the class.
    trusted : collection of str
        Names that the caller lets be imported.

    Raises
    ------
    InvalidFile
        If it is none of those; the message says what to type.
    """
    kind, name = described["kind"], described["name"]
    if module is not None or kind == "default":
        return module
    if kind == "torchvision":
        return name
    if kind == "known" and name in known_layers():
        return known_layers()[name]
    allowed = [trusted] if isinstance(trusted, str) else list(trusted)
    if kind == "importable" and name in allowed:
        imported: ModuleLike = _imported(allowed[allowed.index(name)])
        return imported
    article = {"instance": "an instance of ", "nameless": "a function or object without a name, "}
    shown = f"{article.get(kind, '')}{name[:200]}"
    trust = f", or trusted=({name[:200]!r},) to let it be imported" * (kind == "importable")
    raise InvalidFile(
        f"it was saved with `module` {shown}, which `load` does not look for by itself; pass the "
        f"class, a factory or an instance as `module=`{trust}"
    )


def _imported(name: str) -> Any:
    """Import what the caller trusts: `package.module.Class`."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            target: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name and not ".".join(parts[:length]).startswith(error.name):
                raise  # of something that the module itself imports
            continue
        for part in parts[length:]:
            target = getattr(target, part)
        return target
    raise ImportError(f"`trusted` has {name!r}, and there is no package {parts[0]!r}.")


def rebuild(given: Given, weights: Mapping[str, torch.Tensor], *, is_known: bool) -> nn.Module:
    """Build the module on the host, with random weights, if it can take these.

    Parameters
    ----------
    given : Given
        The class or factory, its parameters and the sizes of the data.
    weights : mapping of str to Tensor
        Those that it will be given, of any shapes. They bound the memory that is used, where a
        module of torch's or easyclf's is built.
    is_known : bool
        Whether it is one of those, so nobody but the file has chosen it.

    Raises
    ------
    InvalidFile
        If the weights are those of another module.
    """
    if isinstance(given.module, str):
        published = _AS_PUBLISHED.get(given.module, {}) if given.keywords.get("weights") else {}
        keywords = {**published, **given.keywords, "weights": None}
        given = replace(given, keywords=keywords)
    if isinstance(given.module, nn.Module):
        module = given.built(given.row_shape, given.n_outputs)[1]
        _check_weights(module, weights, is_known=is_known)
        return module
    try:
        with NOWHERE, _FewCalls(len(weights)):
            skeleton = given.built(given.row_shape, given.n_outputs)[1]
    except Exception:
        # A constructor of the user's may want to see its numbers.
        if is_known:
            raise
    else:
        _check_weights(skeleton, weights, is_known=is_known)
    with torch.device(HOST):
        module = given.built(given.row_shape, given.n_outputs)[1]
    _check_weights(module, weights, is_known=is_known)
    return module


def _check_weights(
    module: nn.Module, weights: Mapping[str, torch.Tensor], *, is_known: bool
) -> None:
    """Refuse weights of any shapes that are those of another module."""
    differences = Differences.between(weights_of(module), weights)
    if differences:
        advice = (
            "; pass a `module`, with its `module__*`, of the sizes that were saved. Some of the "
            "weights alone are taken by `load_weights(file, strict=False)`, from a file of "
            "`save_weights`"
        )
        raise InvalidFile(
            f"its weights do not fit {type(module).__name__}: {differences.describe()}"
            f"{'' if is_known else advice}"
        )


class _FewCalls(TorchFunctionMode):
    """Ends a constructor that makes far more layers than there are weights."""

    def __init__(self, n_tensors: int) -> None:
        super().__init__()
        self._left = _CALLS_AT_ALL + _CALLS_PER_TENSOR * n_tensors

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self._left -= 1
        if self._left < 0:
            raise InvalidFile("its module has far more layers than it has weights")
        return function(*args, **(kwargs or {}))
