"""The callbacks that an estimator was given: plain, or in pairs with a name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from easyclf.callbacks.base import Callback
from easyclf.vocabulary import FOREIGN_CALLBACKS

CallbackLike = Callback | tuple[str, Callback]


def plain_callbacks(callbacks: Iterable[CallbackLike] | None) -> list[Callback]:
    """List callbacks without their names."""
    return [entry[1] if isinstance(entry, tuple) else entry for entry in callbacks or ()]


def named_callbacks(callbacks: Iterable[CallbackLike] | None) -> dict[str, Callback]:
    """Give the callbacks that have names, by name."""
    pairs = [entry for entry in callbacks or () if isinstance(entry, tuple) and len(entry) == 2]
    return {name: callback for name, callback in pairs if isinstance(callback, Callback)}


def check_callbacks(owner: str, callbacks: Iterable[object] | None) -> None:
    """Refuse what is no callback among those that an estimator, named `owner`, was given.

    Raises
    ------
    TypeError
        If an entry is no callback, and no pair of a name and one.
    ValueError
        If a name cannot be a part of a parameter, or comes twice.
    """
    names: list[str] = []
    for entry in callbacks or ():
        callback = entry
        if isinstance(entry, tuple):
            if len(entry) != 2 or not isinstance(entry[0], str):
                raise TypeError(
                    f"`callbacks` has {entry!r}; a pair is a name and a callback, as in "
                    "('early', EarlyStopping())."
                )
            name, callback = entry
            if not name.isidentifier() or "__" in name:
                raise ValueError(
                    f"`callbacks` has the name {name!r}; a name is a Python identifier without "
                    "two underscores in a row, as 'early'."
                )
            if name in names:
                raise ValueError(
                    f"`callbacks` has two callbacks of the name {name!r}; give each its own."
                )
            names.append(name)
        if not isinstance(callback, Callback):
            raise TypeError(
                f"The 'callbacks' parameter of {owner} must be a list of easyclf.Callback "
                f"instances. Got {callback!r} in it instead{_advice(callback)}"
            )


def _advice(entry: object) -> str:
    """What to type in the place of an entry, in a clause with a full stop."""
    kind = entry if inspect.isclass(entry) else type(entry)
    if inspect.isclass(entry) and issubclass(kind, Callback):
        return f"; did you mean `{kind.__name__}()`?"
    if hasattr(kind, "on_fit_task_end"):
        return "; callbacks of scikit-learn's protocol are given to `set_callbacks`."
    if kind.__module__ == "torch.optim.lr_scheduler":
        return f"; use `LRScheduler({kind.__name__!r})`, with its arguments beside the name."
    if kind.__name__ in FOREIGN_CALLBACKS:
        return f"; use {FOREIGN_CALLBACKS[kind.__name__]}"
    return "."
