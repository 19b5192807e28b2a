"""Parameters of the module, the optimizer, the loss and loaders, as the estimator's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sklearn.base import BaseEstimator

from easyclf.checks import did_you_mean
from easyclf.vocabulary import FOREIGN_PARAMETERS, FOREIGN_PREFIXES

PREFIXES = ("module", "optimizer", "loss", "loader")

# How alike a name and a parameter have to be, to be taken for each other: `scheduler` and
# `shuffle` are not. What is nearer still is a slip of the finger.
_NEAR, _SLIP = 0.7, 0.85
# Letters from which on what is glued to a prefix, as in `modulehidden`, is a name.
_SHORTEST_NAME = 3


def suggestion(name: str, names: Iterable[str]) -> str:
    """Name the parameter which is probably meant, in a clause; a full stop where none is near.

    Foreign words come first, then slips of the finger, and `__` that is another sign or none.
    """
    names = list(names)
    advice = did_you_mean(name, names, words=FOREIGN_PARAMETERS, nearness=_SLIP)
    if advice != ".":
        return advice
    meant = _forwarded_name(name)
    return f"; did you mean `{meant}`?" if meant else did_you_mean(name, names, nearness=_NEAR)


def _forwarded_name(name: str) -> str | None:
    """The parameter that is meant by a prefix without its `__`, or by another library's."""
    prefixes = {**FOREIGN_PREFIXES, **{prefix: prefix for prefix in PREFIXES}}
    for prefix in sorted(prefixes, key=len, reverse=True):  # `network` before `net`
        rest = name.removeprefix(prefix)
        is_glued = prefix in PREFIXES and len(rest) >= _SHORTEST_NAME
        if name.startswith(prefix) and (rest.startswith("_") or is_glued) and rest.strip("_"):
            rest = rest.lstrip("_")
            # The shuffling and the batches of a loader are the estimator's.
            is_own = prefixes[prefix] == "loader" and rest in ("shuffle", "batch_size")
            return rest if is_own else f"{prefixes[prefix]}__{rest}"
    return None


def is_forwarded(name: str) -> bool:
    """Tell whether `name` is one of `module__*`, `optimizer__*`, `loss__*` or `loader__*`."""
    prefix, separator, rest = name.partition("__")
    return prefix in PREFIXES and bool(separator) and bool(rest)


def forwarded(parameters: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Select what the user gave as `prefix__*`, without the prefix."""
    start = f"{prefix}__"
    return {
        name.removeprefix(start): value
        for name, value in parameters.items()
        if name.startswith(start)
    }


def hide_keywords(function: Callable[..., None]) -> Callable[..., None]:
    """Leave `**keywords` out of the signature shown, in which scikit-learn reads the parameters."""

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> None:
        function(*args, **keywords)

    signature = inspect.signature(function)
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    )
    return wrapper


class ForwardedParameters(BaseEstimator):  # type: ignore[misc]
    """`get_params` and `set_params` with the forwarded parameters, kept as plain attributes."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        """Names of the parameters, sorted, read from the constructor as scikit-learn does."""
        signature = inspect.signature(cls.__init__)
        return sorted(
            name
            for name, parameter in signature.parameters.items()
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        )

    def _set_forwarded(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if not is_forwarded(name):
                _, separator, rest = name.partition("__")
                candidates = [f"{prefix}__{rest}" for prefix in PREFIXES]
                if not separator:
                    candidates = self._parameter_names()
                raise TypeError(
                    f"{type(self).__name__} has no parameter `{name}`{suggestion(name, candidates)}"
                )
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator, `module__*` and other forwarded ones included.

        Parameters
        ----------
        deep : bool, default=True
            Also return the parameters of parameters that are estimators.

        Returns
        -------
        params : dict of str to object
            Parameter names and their values.
        """
        own: dict[str, Any] = super().get_params(deep=deep)
        return own | {name: value for name, value in vars(self).items() if is_forwarded(name)}

    def set_params(self, **params: Any) -> ForwardedParameters:
        """Set parameters of this estimator; what was learned stays until the next `fit`.

        Parameters
        ----------
        **params : dict
            Parameter names, `module__*`, `optimizer__*` and `loss__*` included, and their values.

        Returns
        -------
        self : Estimator
            This estimator.

        Raises
        ------
        ValueError
            If a name is not a parameter.
        """
        own = {name: value for name, value in params.items() if not is_forwarded(name)}
        names = self._parameter_names()
        for name in own:
            if name not in names:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}"
                    f"{suggestion(name, names)} Valid parameters are: {names}, and any "
                    f"{', '.join(f'`{prefix}__*`' for prefix in PREFIXES)}."
                )
        super().set_params(**own)
        for name, value in params.items():
            if is_forwarded(name):
                setattr(self, name, value)
        return self

    @contextmanager
    def _overridden(self, overrides: Mapping[str, Any]) -> Iterator[None]:
        """Other parameters, for a while."""
        known = self._parameter_names()
        for name in overrides:
            if name not in known and not is_forwarded(name):
                raise TypeError(
                    f"`fit` got an unknown argument `{name}`{suggestion(name, known)} It takes "
                    f"the parameters of {type(self).__name__} beside its own."
                )
        before = vars(self).copy()
        self.set_params(**overrides)
        try:
            yield
        finally:
            for name in overrides:
                if name in before:
                    setattr(self, name, before[name])
                else:
                    delattr(self, name)
