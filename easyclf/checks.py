"""Checks of what the user typed, and one voice for the errors that they raise."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

_EXTRAS = {"matplotlib": "plot", "pandas": "frames", "polars": "frames"}


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A clause that suggests the nearest known names, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    shown = " or ".join(f"`{prefix}{match}`" for match in matches)
    return f"; did you mean {shown}?" if matches else "."


def name_of(target: object) -> str:
    """The name that a person would call a class, function or object by."""
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def keyword_names(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The keyword parameters of `target`, and whether it also takes any other keyword."""
    parameters = inspect.signature(target).parameters.values()
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def check_keywords(
    target: Callable[..., Any],
    keywords: Mapping[str, Any],
    prefix: str,
    *,
    supplied: Iterable[str] = (),
) -> None:
    """Refuse a keyword that `target` does not take, or the lack of one that it needs.

    `supplied` names the parameters that easyclf itself passes.
    """
    named, takes_any = keyword_names(target)
    for keyword in keywords:
        if keyword not in named and not takes_any:
            nearest = did_you_mean(keyword, named, prefix=f"{prefix}__")
            raise TypeError(
                f"`{prefix}__{keyword}` is not a parameter of {name_of(target)}{nearest} "
                f"It takes: {', '.join(named) or 'nothing'}."
            )
    missing = [
        name
        for name, parameter in named.items()
        if parameter.default is parameter.empty and name not in keywords and name not in supplied
    ]
    if missing:
        raise TypeError(
            f"{name_of(target)} needs `{missing[0]}`, which easyclf cannot fill in from the data; "
            f"pass `{prefix}__{missing[0]}=...` to Estimator."
        )


def import_optional(name: str, needed_by: str) -> ModuleType:
    """Import an optional package, or say which line installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{needed_by} needs {package}, which is not installed; "
            f'run `pip install "easyclf[{_EXTRAS[package]}]"`.'
        ) from error
