"""The values that parameters may have, told in scikit-learn's words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import NamedTuple, TypeGuard

import numpy as np
import torch

from easyclf.exceptions import InvalidParameterError


class Constraint(NamedTuple):
    """A kind of value that is accepted, and how a sentence calls it."""

    words: str
    accepts: Callable[[object], bool]


def integer(low: int) -> Constraint:
    """An integer of at least `low`; True is none."""
    return Constraint(f"an int in the range [{low}, inf)", lambda v: is_integer(v) and v >= low)


def place() -> Constraint:
    """Any integer; True is none."""
    return Constraint("an int", is_integer)


def positive() -> Constraint:
    """A finite number above 0; True is none."""
    return Constraint("a float in the range (0.0, inf)", _is_positive)


def fraction() -> Constraint:
    """A number of at least 0 and less than 1; False is none."""
    return Constraint("a float in the range [0.0, 1.0)", lambda v: _is_real(v) and 0 <= v < 1)


def positive_numbers() -> Constraint:
    """A mapping that is not empty, of whatever keys to finite numbers above 0."""
    return Constraint(
        "a dict of patterns and positive numbers",
        lambda v: isinstance(v, Mapping) and bool(v) and all(map(_is_positive, v.values())),
    )


def text(*values: str) -> Constraint:
    """One of some strings."""
    return Constraint(f"a str among {set(values)}", lambda v: isinstance(v, str) and v in values)


def integers(*values: int) -> Constraint:
    """One of some integers; True is none."""
    return Constraint(f"an int among {set(values)}", lambda v: is_integer(v) and v in values)


def is_splitter(value: object) -> bool:
    """Tell whether something splits rows as scikit-learn's splitters do; their classes do not."""
    methods = (getattr(value, name, None) for name in ("split", "get_n_splits"))
    return not isinstance(value, type) and all(map(callable, methods))


def instance(kind: type) -> Constraint:
    """An instance of a class."""
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return Constraint(f"an instance of '{home}{kind.__qualname__}'", lambda v: isinstance(v, kind))


_OF_ARRAYS = ("__len__", "__array__", "shape")
NONE = Constraint("None", lambda v: v is None)
CALLABLE = Constraint("a callable", callable)
BOOLEAN = Constraint(
    "an instance of 'bool' or an instance of 'numpy.bool'",
    lambda v: isinstance(v, bool | np.bool_),
)
ARRAY_LIKE = Constraint(
    "an array-like",
    lambda v: (
        not isinstance(v, str) and any(hasattr(v, n) for n in ("__len__", "__array__", "shape"))
    ),
)
SPLITTER = Constraint("an object implementing 'split' and 'get_n_splits'", is_splitter)
ROW_NUMBERS = Constraint(
    "a pair (train, test) of the numbers of rows",
    # Iterators are refused later, with a way out.
    lambda v: isinstance(v, list | tuple | np.ndarray | Iterator),
)
SEED = Constraint("an int in the range [0, 4294967295]", lambda v: is_integer(v) and 0 <= v < 2**32)
RANDOM_STATE = instance(np.random.RandomState)


def check_values(
    owner: str, constraints: Mapping[str, Sequence[Constraint]], values: Mapping[str, object]
) -> None:
    """Refuse the first value that none of the constraints of its parameter accepts.

    Raises
    ------
    InvalidParameterError
        In scikit-learn's words: `The 'lr' parameter of Estimator must be ... Got ... instead.`
    """
    for name, accepted in constraints.items():
        value = values[name]
        if not any(constraint.accepts(value) for constraint in accepted):
            *others, last = (constraint.words for constraint in accepted)
            words = f"{', '.join(others)} or {last}" if others else last
            raise InvalidParameterError(
                f"The {name!r} parameter of {owner} must be {words}. Got {value!r} instead."
            )


def is_integer(value: object) -> TypeGuard[int]:
    """Tell whether a value is an integer, of Python or of NumPy; True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _is_positive(value: object) -> bool:
    return _is_real(value) and 0 < value < math.inf


# The parameters of `Estimator`.
OF_ESTIMATOR = {
    "module": [CALLABLE, instance(str), NONE],
    "loss": [instance(str), CALLABLE],
    "optimizer": [instance(str), CALLABLE],
    "lr": [positive(), positive_numbers()],
    "epochs": [integer(0)],
    "batch_size": [text("auto"), integer(1), integers(-1)],
    "shuffle": [BOOLEAN],
    "validation_split": [fraction(), SPLITTER, ROW_NUMBERS],
    "callbacks": [instance(list), instance(tuple), NONE],
    "metrics": [instance(list), instance(tuple), NONE],
    "class_weight": [instance(dict), text("balanced"), NONE],
    "classes": [ARRAY_LIKE, NONE],
    "preprocess": [CALLABLE, NONE],
    "augment": [CALLABLE, NONE],
    "cache": [BOOLEAN],
    "freeze": [
        instance(str),
        instance(list),
        instance(tuple),
        NONE,
    ],
    "device": [instance(str), instance(torch.device)],
    "precision": [text("float32", "float64", "bf16", "fp16")],
    "output": [instance(str), place(), CALLABLE, NONE],
    "compile": [text("auto", "graph"), BOOLEAN],
    "clip_grad_norm": [positive(), NONE],
    "accumulate": [integer(1)],
    "random_state": [SEED, RANDOM_STATE, NONE],
    "deterministic": [BOOLEAN],
    "warm_start": [BOOLEAN],
    "verbose": [text("auto"), integers(0, 1, 2)],
}
# Arguments of its `fit`.
OF_FIT = {"steps_per_epoch": [integer(1), NONE]}
