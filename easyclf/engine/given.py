"""The module that a training began with, and the warning that a later fit cannot change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from easyclf.checks import name_of, warn_user
from easyclf.modules import ModuleLike, build_module
from easyclf.nested import Shapes
from easyclf.weights import InitialWeights

_PLAIN = (bool, int, float, str, bytes, type(None), type)
_NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Given:
    """The module and its parameters as the user gave them, and what it was built for.

    Attributes
    ----------
    module : class, callable, nn.Module, str or None
        The user's `module`.
    keywords : mapping
        The user's `module__*`, without the prefix.
    row_shape : tuple of int, or dict or tuple of them
        The shape of a row as the module gets it; () before it is built.
    n_outputs : int
        Number of classes or labels.
    """

    module: ModuleLike
    keywords: Mapping[str, Any]
    row_shape: Shapes = ()
    n_outputs: int = 0

    def built(
        self, row_shape: Shapes, n_outputs: int, weights: InitialWeights | None = None
    ) -> tuple[Given, nn.Module]:
        """Build the module for such rows, with these weights; give what it was built for, too."""
        module = build_module(self.module, self.keywords, row_shape, n_outputs)
        if weights is not None:
            weights.put_into(module)
        return replace(self, row_shape=row_shape, n_outputs=n_outputs), module

    def warn_of(self, later: Given) -> None:
        """Warn if a later fit, which goes on from this one, was given another module."""
        warn_of_other_module(self.noted(), later.noted())

    def noted(self) -> dict[str, str]:
        """Note the module and its parameters, so that others can be told from them."""
        return as_given(self.module, self.keywords)


def as_given(module: ModuleLike, keywords: Mapping[str, object]) -> dict[str, str]:
    """Note the module and its parameters, so that others can be told from them.

    Parameters
    ----------
    module : class, callable, nn.Module, str or None
        The user's `module`.
    keywords : mapping
        The user's `module__*`, without the prefix.

    Returns
    -------
    given : dict of str to str
        By the names of parameters of the estimator. Values that cannot be compared are noted by
        their types alone, and modules and functions by their names.
    """
    noted = repr(module) if isinstance(module, str | None) else name_of(module)
    return {"module": noted, **{f"module__{k}": shown(value) for k, value in keywords.items()}}


def shown(value: object) -> str:
    """Write a value so that equal ones are written alike; other objects by their types alone."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, _PLAIN) else name_of(value)


def warn_of_other_module(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn of a module or a parameter of it that plays no part where an earlier fit goes on."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, _NOT_GIVEN), now.get(name, _NOT_GIVEN)
        if old != new:
            warn_user(
                f"`{name}` is {new}, and was {old} when this training began; it plays no part "
                "where an earlier fit goes on, which keeps its module. To begin anew, use `fit` "
                "with warm_start=False.",
            )
            return
