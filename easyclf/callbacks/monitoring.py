"""The quantity that a callback watches: that it is measured, and when it is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from easyclf.history import quantity_hint
from easyclf.state import TrainingState

_SIGNS = {"min": -1.0, "max": 1.0}


def check_measured(callback: object, monitor: str, state: TrainingState) -> None:
    """Refuse, before training, a quantity that will not be measured.

    Raises
    ------
    ValueError
        It names the quantities that will be.
    TypeError
        If it is no name, such as a number that was meant for another parameter.
    """
    if not isinstance(monitor, str):
        raise TypeError(
            f"`monitor` of {type(callback).__name__} is {monitor!r}; expected the name of a "
            f"quantity, one of {list(state.quantities)}. Give other parameters by their names."
        )
    if monitor in state.quantities:
        return
    raise ValueError(
        f"{type(callback).__name__} monitors {monitor!r}, which this run does not measure"
        f"{quantity_hint(monitor, state.quantities)} It measures {list(state.quantities)}."
    )


def sign_of(monitor: str, mode: str, state: TrainingState) -> float:
    """Give 1.0 where more of a quantity is better, and -1.0 where less is.

    Parameters
    ----------
    monitor : str
        The quantity. "auto" reads the direction from its name.
    mode : {"auto", "min", "max"}
        Keras's word for the direction.
    state : TrainingState
        Its history knows which quantities are metrics.

    Raises
    ------
    ValueError
        If `mode` is another, or "auto" for a name that does not say it.
    """
    if mode == "auto":
        return 1.0 if state.history.is_better_higher(monitor) else -1.0
    if mode not in _SIGNS:
        raise ValueError(f"`mode` must be 'auto', 'min' or 'max'; got {mode!r}.")
    return _SIGNS[mode]


def is_of_another_quantity(state: Mapping[str, object], watched: list[object]) -> bool:
    """Tell whether the state of a callback counts what its new settings do not watch.

    Parameters
    ----------
    state : mapping of str to object
        As `state_dict` gave it, with the name and the sign of the quantity under "watched".
    watched : list of object
        Those of the present run.
    """
    return state.get("watched", watched) != watched


def check_at_least(minimum: float, **values: object) -> None:
    """Refuse numbers below a minimum.

    Raises
    ------
    ValueError
        It names the first parameter that is no number, or less.
    """
    for name, value in values.items():
        is_number = isinstance(value, Real) and not math.isnan(value)  # NumPy's numbers, too
        if not is_number or not value >= minimum:  # type: ignore[operator]
            words = "at least" if is_number else "a number of at least"
            raise ValueError(f"`{name}` must be {words} {minimum}; got {value!r}.")
