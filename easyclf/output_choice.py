"""Which part of what a module returns is answered: `output=` of the estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from easyclf.checks import did_you_mean, name_of

OutputLike = str | int | Callable[[Any], torch.Tensor] | None


class OutputChoice:
    """Takes one tensor out of a tuple, a dict, or an object with attributes.

    Parameters
    ----------
    which : str, int, callable or None
        A key or an attribute, a place, or a function of what the module returns. None takes it as
        it is.
    """

    def __init__(self, which: OutputLike) -> None:
        self.which = which

    def __call__(self, returned: Any) -> Any:
        """Take the part.

        Raises
        ------
        ValueError
            If it is not there; the message says what is.
        """
        which = self.which
        if which is None:
            return returned
        if callable(which):
            return which(returned)
        try:
            if isinstance(which, int) or isinstance(returned, Mapping):
                return returned[which]
            part = getattr(returned, which)
            if callable(part):  # as `logit` of a tensor is
                raise AttributeError(f"{which!r} is a method")
            return part
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"`output` is {which!r}, but the module returned {_describe(returned)}"
                f"{_nearest(which, returned)}"
            ) from error

    @property
    def runs_user_code(self) -> bool:
        """Whether a function of the user's takes the part."""
        return callable(self.which)


def _describe(returned: object) -> str:
    if isinstance(returned, Mapping):
        return f"a {name_of(type(returned))} with {list(returned)}"
    if isinstance(returned, tuple | list):
        return f"a {name_of(type(returned))} of {len(returned)}"
    return f"a {name_of(type(returned))}"


def _nearest(which: str | int, returned: object) -> str:
    if isinstance(which, str) and isinstance(returned, Mapping):
        return did_you_mean(which, map(str, returned))
    return "; give a key, a place, or a function of what it returns."
