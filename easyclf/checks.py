"""Checks of what the user typed, and one voice for the errors that they raise."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

_EXTRAS = {
    "matplotlib": "plot",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "pandas": "frames",
    "polars": "frames",
    "tensorboard": "tensorboard",
}
# Whose lines may stand between a line of the user's and a warning.
_BETWEEN = ("easyclf", "sklearn", "joblib", "torch", "contextlib")


def did_you_mean(
    name: str,
    names: Iterable[str],
    prefix: str = "",
    *,
    words: Mapping[str, str] | None = None,
    nearness: float = 0.6,
) -> str:
    """Suggest what to type instead of `name`, in a clause; a full stop where nothing is near.

    Parameters
    ----------
    name : str
        What was typed.
    names : iterable of str
        The right names.
    prefix : str, default=""
        It is shown before them.
    words : mapping, default=None
        One of the tables of `easyclf.vocabulary`, which comes before any near name.
    nearness : float, default=0.6
        How alike two names have to be, in [0, 1].
    """
    if words and (name in words or name.lower() in words):
        meaning = words.get(name) or words[name.lower()]
        return f"; did you mean {meaning}?" if meaning.startswith("`") else f"; {meaning}"
    matches = difflib.get_close_matches(name, list(names), n=2, cutoff=nearness)
    shown = " or ".join(f"`{prefix}{match}`" for match in matches)
    return f"; did you mean {shown}?" if matches else "."


def name_of(target: object) -> str:
    """Give the name by which a person would call a class, function or object."""
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def first_line_of(error: BaseException) -> str:
    """Shorten an error of another package to its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def keyword_names(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Find the keyword parameters of `target`, and whether it takes any other keyword too."""
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

    Parameters
    ----------
    target : callable
        A class or function.
    keywords : mapping
        The user's `prefix__*`, without the prefix.
    prefix : str
        "module", "optimizer", "loss" or "loader".
    supplied : iterable of str, default=()
        Parameters that easyclf itself passes.

    Raises
    ------
    TypeError
        If there is such a keyword.
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
    """Import an optional package.

    Raises
    ------
    ImportError
        If it is not installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{needed_by} needs {package}, which is not installed; "
            f'run `pip install "easyclf[{_EXTRAS[package]}]"`.'
        ) from error


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest line that is the user's, however deep in easyclf it shows.

    Python 3.12 has `skip_file_prefixes` for this; it can take the place when 3.11 is no longer
    supported.
    """
    for frame, line in traceback.walk_stack(inspect.currentframe()):  # noqa: B007
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _BETWEEN:
            break
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        line,
        module=module,
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
