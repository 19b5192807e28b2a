"""Parameters of the module, the optimizer, the loss and loaders, as the estimator's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sklearn.base import BaseEstimator

from easyclf.checks import did_you_mean

PREFIXES = ("module", "optimizer", "loss", "loader")


# What other libraries call them.
_ELSEWHERE = {
    "alpha": "optimizer__weight_decay",
    "criterion": "loss",
    "hidden_layer_sizes": "module__hidden",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "max_epochs": "epochs",
    "max_iter": "epochs",
    "momentum": "optimizer__momentum",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_workers": "loader__num_workers",
    "solver": "optimizer",
    "weight_decay": "optimizer__weight_decay",
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """A clause that names the parameter which is probably meant, or an empty string."""
    if name in _ELSEWHERE:
        return f"; did you mean `{_ELSEWHERE[name]}`?"
    return did_you_mean(name, known)


def is_forwarded(name: str) -> bool:
    """Whether `name` is one of `module__*`, `optimizer__*`, `loss__*` or `loader__*`."""
    prefix, separator, rest = name.partition("__")
    return prefix in PREFIXES and bool(separator) and bool(rest)


def forwarded(parameters: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What the user gave as `prefix__*`, without the prefix."""
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

    def _set_forwarded(self, parameters: dict[str, Any]) -> None:
        known = self._get_param_names()
        for name, value in parameters.items():
            if not is_forwarded(name):
                _, separator, rest = name.partition("__")
                candidates = [f"{p}__{rest}" for p in PREFIXES] if separator else known
                raise TypeError(
                    f"{type(self).__name__} has no parameter `{name}`{suggestion(name, candidates)}"
                )
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator, `module__*` and its kin included.

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
        known = self._get_param_names()
        for name in own:
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}"
                    f"{suggestion(name, known)} Valid parameters are: {known}, and any "
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
        known = self._get_param_names()
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
