"""Parameters of the module, the optimizer, the loss and loaders, as the estimator's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sklearn.base import BaseEstimator

from easyclf.checks import did_you_mean
from easyclf.constructors import parameter_names, takes_any_parameter, watch_constructor
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


class ForwardedParameters(BaseEstimator):  # type: ignore[misc]
    """`get_params` and `set_params` with the forwarded parameters, kept as plain attributes.

    A subclass with a constructor of its own has the parameters of that constructor.
    """

    # Names that the constructor of a subclass set itself, by its other parameters.
    _set_by_subclass: frozenset[str] = frozenset()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        watch_constructor(cls)

    @classmethod
    def _parameter_names(cls) -> list[str]:
        """Names of the parameters, sorted: those of the constructor, as in scikit-learn."""
        return parameter_names(cls)

    @classmethod
    def _names_above(cls) -> list[str]:
        """Names of the parameters of `Estimator`, above any subclass."""
        return next(
            base._parameter_names()
            for base in cls.__mro__
            if issubclass(base, ForwardedParameters) and ForwardedParameters in base.__bases__
        )

    def _settings(self) -> dict[str, Any]:
        """The values of the parameters of `Estimator`, those that a subclass set included."""
        attributes, names = vars(self), self._names_above()
        if not attributes.keys() >= {*names}:
            raise TypeError(
                f"{type(self).__name__}.__init__ does not call `super().__init__`, which keeps the "
                "parameters of Estimator."
            )
        return {
            name: value for name, value in attributes.items() if name in names or is_forwarded(name)
        }

    def _owners_of_parameters(self) -> dict[str, Any]:
        """Objects with `get_params` and `set_params`, by what their parameters begin with."""
        return {}

    def _owner_of(self, name: str) -> tuple[Any, str] | None:
        """Who has a parameter such as `callbacks__early__patience`, and its name there."""
        for prefix, owner in self._owners_of_parameters().items():
            if name.startswith(f"{prefix}__"):
                return owner, name.removeprefix(f"{prefix}__")
        return None

    def _set_forwarded(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if name.startswith("callbacks__"):
                raise TypeError(
                    f"`{name}` is a parameter of a callback; give it to the callback itself, or "
                    f"to `set_params({name}=...)` of a finished {type(self).__name__}."
                )
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
            Parameter names and their values; for a subclass those of its own constructor.
        """
        parameters: dict[str, Any] = super().get_params(deep=deep)
        if takes_any_parameter(type(self)):
            parameters |= {n: value for n, value in vars(self).items() if is_forwarded(n)}
        for prefix, owner in self._owners_of_parameters().items() if deep else ():
            parameters |= {f"{prefix}__{n}": value for n, value in owner.get_params().items()}
        return {n: value for n, value in parameters.items() if n not in self._set_by_subclass}

    def set_params(self, **params: Any) -> ForwardedParameters:
        """Set parameters of this estimator; what was learned stays until the next `fit`.

        The constructor of a subclass is called anew, since it may make one parameter of another.

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
        names, takes_any = self._parameter_names(), takes_any_parameter(type(self))
        nested = {name: params.pop(name) for name in [*params] if name.startswith("callbacks__")}
        for name in params:
            if name not in names and not (takes_any and is_forwarded(name)):
                also = f", and any {', '.join(f'`{prefix}__*`' for prefix in PREFIXES)}"
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}"
                    f"{suggestion(name, names)} Valid parameters are: {names}"
                    f"{also if takes_any else ''}."
                )
        if params and "_set_by_subclass" in vars(self):
            self._construct_anew(params)
        else:
            self.__dict__.update(params)
        self._set_nested(nested)
        return self

    def _set_nested(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters of named callbacks.

        Raises
        ------
        ValueError
            If there is no callback of such a name, or it has no such parameter.
        """
        for name, value in parameters.items():
            owned = self._owner_of(name)
            if owned is None:
                prefixes = [f"{prefix}__*" for prefix in self._owners_of_parameters()]
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; callbacks "
                    f"have parameters where they have names, as in callbacks=[('early', "
                    f"EarlyStopping())]. There are {prefixes}."
                )
            owner, rest = owned
            owner.set_params(**{rest: value})

    def _construct_anew(self, changed: Mapping[str, Any]) -> None:
        """Call the constructor of a subclass with other parameters; what was learned stays."""
        parameters = self.get_params(deep=False) | dict(changed)
        before = vars(self).copy()
        self.__dict__ = {name: value for name, value in before.items() if not is_forwarded(name)}
        try:
            self.__init__(**parameters)  # type: ignore[misc]
        except BaseException:
            self.__dict__ = before
            raise

    @classmethod
    def _refuse_unknown(cls, method: str, names: Iterable[str]) -> None:
        """Refuse an argument of a method which is no parameter; the nearest one is named.

        Raises
        ------
        TypeError
            If there is one.
        """
        own = cls._parameter_names()
        for name in names:
            if name not in own and not is_forwarded(name):
                raise TypeError(
                    f"`{method}` got an unknown argument `{name}`{suggestion(name, own)} It takes "
                    f"the parameters of {cls.__name__} beside its own."
                )

    @contextmanager
    def _overridden(self, overrides: Mapping[str, Any]) -> Iterator[None]:
        """Other parameters, for a while."""
        own, above = self._parameter_names(), self._names_above()
        self._refuse_unknown(
            "fit", (n for n in overrides if n not in above and self._owner_of(n) is None)
        )
        before = {name: value for name, value in vars(self).items() if name in {*own, *above}}
        before |= {name: value for name, value in vars(self).items() if is_forwarded(name)}
        nested = {name: self._owner_of(name) for name in overrides}
        settings = [(pair[0], vars(pair[0]).copy()) for pair in nested.values() if pair]
        self._set_nested({name: overrides[name] for name, pair in nested.items() if pair})
        changed = [(o, {n: v for n, v in b.items() if vars(o)[n] is not v}) for o, b in settings]
        overrides = {name: value for name, value in overrides.items() if not nested[name]}
        takes_any = takes_any_parameter(type(self))
        is_own = {name: name in own or (takes_any and is_forwarded(name)) for name in overrides}
        self.set_params(**{name: value for name, value in overrides.items() if is_own[name]})
        self.__dict__.update({name: value for name, value in overrides.items() if not is_own[name]})
        try:
            yield
        finally:
            for name in [name for name in vars(self) if is_forwarded(name)]:
                delattr(self, name)
            self.__dict__.update(before)
            for owner, values in changed:
                vars(owner).update(values)
