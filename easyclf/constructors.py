"""Constructors of the estimator and of its subclasses: which of their arguments are parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from easyclf.vocabulary import FOREIGN_METHODS

Constructor = Callable[..., None]


class _Shown(NamedTuple):
    """The names of a class's parameters, sorted, and whether it takes forwarded ones too."""

    names: list[str]
    takes_any: bool


class _Call(NamedTuple):
    """A constructor at work: the names in its signature, and those that it was given."""

    names: frozenset[str]
    given: frozenset[str]


def watch_constructor(cls: type) -> None:
    """Make the constructor of a class note what it hands on, and show all of its parameters.

    A class with an `__init__` of its own has the parameters of its signature. If that ends in
    `**keywords`, it has those of the class above it, too, but for those that it sets itself.

    Raises
    ------
    TypeError
        If scikit-learn could not make a clone by the signature, or the class has a method of
        another library's that is never called here.
    """
    _refuse_uncalled(cls)
    function = _constructor_of(cls)
    if hasattr(function, "shown"):
        return
    signature = inspect.signature(function)
    _refuse_unclonable(cls, signature)
    names = frozenset(signature.parameters)
    above = next(
        (base for base in cls.__mro__[1:] if hasattr(_constructor_of(base), "shown")), None
    )

    @functools.wraps(function)
    def constructor(self: Any, *args: Any, **keywords: Any) -> None:
        is_outermost = "_constructor_calls" not in vars(self)
        calls: list[_Call] = vars(self).setdefault("_constructor_calls", [])
        calls.append(_Call(names, _names_given(signature, args, keywords)))
        try:
            function(self, *args, **keywords)
        finally:
            if is_outermost:
                del self._constructor_calls
        if is_outermost and above is not None:
            _check_made(self, signature, above, calls)
            self._set_by_subclass = _set_by_subclass(calls)

    shown = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    takes_any = len(shown) < len(names)
    if takes_any and above is not None:
        passed_on = inspect.signature(_constructor_of(above)).parameters.values()
        shown += [p.replace(kind=p.KEYWORD_ONLY) for p in passed_on if p.name not in names]
    # scikit-learn reads the parameters here.
    constructor.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    constructor.shown = _Shown(sorted(p.name for p in shown[1:]), takes_any)  # type: ignore[attr-defined]
    cls.__init__ = constructor  # type: ignore[misc]


def parameter_names(cls: type) -> list[str]:
    """List the parameters of a watched class, sorted, without the forwarded ones."""
    shown: _Shown = _constructor_of(cls).shown  # type: ignore[attr-defined]
    return shown.names


def takes_any_parameter(cls: type) -> bool:
    """Tell whether a watched class takes `module__*` and other forwarded parameters."""
    shown: _Shown = _constructor_of(cls).shown  # type: ignore[attr-defined]
    return shown.takes_any


def _constructor_of(cls: type) -> Constructor:
    constructor: Constructor = cls.__init__  # type: ignore[misc]
    return constructor


def _names_given(
    signature: inspect.Signature, args: tuple[object, ...], keywords: Mapping[str, object]
) -> frozenset[str]:
    positional = [*signature.parameters][1 : 1 + len(args)]
    return frozenset(positional) | frozenset(keywords)


def _set_by_subclass(calls: list[_Call]) -> frozenset[str]:
    """Find what constructors handed to the one above without being given it."""
    return frozenset(
        name
        for caller, call in pairwise(calls)
        for name in call.given - caller.given - caller.names
    )


def _check_made(
    made: object, signature: inspect.Signature, above: type, calls: list[_Call]
) -> None:
    """Refuse a constructor that forgets an argument, or the class above it."""
    owner = type(made).__name__
    if len(calls) == 1:
        raise TypeError(
            f"{owner}.__init__ does not call `super().__init__`, which keeps the parameters of "
            f"{above.__name__}."
        )
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in vars(made):
            raise TypeError(
                f"{owner}.__init__ takes `{parameter.name}` and does not keep it; write "
                f"`self.{parameter.name} = {parameter.name}` there, so that `get_params`, `clone` "
                "and searches find it."
            )


def _refuse_unclonable(cls: type, signature: inspect.Signature) -> None:
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise TypeError(
                f"{cls.__name__}.__init__ takes `{parameter}` by position alone; `clone` and "
                "searches pass parameters by name, so name it, or take `**keywords`."
            )


def _refuse_uncalled(cls: type) -> None:
    for name in vars(cls):
        if name in FOREIGN_METHODS:
            raise TypeError(
                f"{cls.__name__} has `{name}`, which easyclf never calls; "
                f"use {FOREIGN_METHODS[name]}."
            )
