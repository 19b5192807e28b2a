"""A small program: what a user trains, and how it is fitted twice, to be compared."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from easyclf import Estimator

# With `WORTHWHILE` for the 64 of the package a tape takes 6 + 22 batches of one shape: 7 epochs of
# 4 steps are enough for one of the training, 28 epochs of a step and a validation for one of each.
# Programs that change something do so about the 22nd step.
WORTHWHILE = 22
SHORT: dict[str, Any] = {"batch_size": 16, "epochs": 7}
LONG: dict[str, Any] = {"batch_size": -1, "epochs": 28}
_RNG = np.random.default_rng(0)
LABELS = np.arange(64) % 3
TABLE = _RNG.normal(size=(64, 4)) + 0.5 * np.eye(3, 4)[LABELS]
STEPS = _RNG.normal(size=(64, 3, 4)) + 0.5 * np.eye(3, 4)[LABELS][:, None]
IMAGES = _RNG.normal(size=(64, 1, 4, 4)) + 0.5 * LABELS[:, None, None, None]
TOKENS = _RNG.integers(0, 7, size=(64, 3))
SETTINGS: dict[str, Any] = {
    **SHORT,
    "lr": 0.02,
    "precision": "float64",
    "random_state": 0,
    "verbose": 0,
}


@dataclass
class Run:
    """A module and what it is fitted with; made anew for every fit."""

    module: Any
    X: Any = field(default_factory=lambda: TABLE)
    y: Any = field(default_factory=lambda: LABELS)
    weight: Any = None
    validation: Any = "rows"
    settings: dict[str, Any] = field(default_factory=dict)


def run(module, X=TABLE, y=LABELS, weight=None, validation="rows", **settings):
    """A `Run`; settings are parameters of the estimator."""
    return Run(module, X, y, weight, validation, settings)


@dataclass(frozen=True)
class Program:
    """A named function that makes a `Run`, or only its module."""

    name: str
    make: Callable[[], Any]
    settings: dict[str, Any]

    def fit(self, mode, perturbation=0.0):
        """Fit with `compile=mode`, from weights that are the same each time.

        `perturbation` is the relative size of a change of the weights before the fit.
        """
        # All that `torch.manual_seed` does for the host; it notes the stack three times, in 2 ms.
        torch.default_generator.manual_seed(0)
        made = self.make()
        made = made if isinstance(made, Run) else Run(made)
        settings = {**SETTINGS, **self.settings, **made.settings}
        if settings.get("optimizer", "adam") in ("adam", "adamw", "rmsprop", "nadam"):
            # Steps of a gradient that is nothing but rounding are small where epsilon is large.
            settings.setdefault("optimizer__eps", 1e-3)
        module = made.module
        if perturbation:
            perturb(module, perturbation)
        validation = (made.X, made.y) if isinstance(made.validation, str) else made.validation
        # A template would be copied: a program has the module itself in its hands.
        clf = Estimator(lambda: module, compile=mode, **settings)
        with warnings.catch_warnings():
            # A fit may begin again without tapes, and says so.
            warnings.simplefilter("ignore")
            return clf.fit(made.X, made.y, made.weight, validation_data=validation)


@torch.no_grad()
def perturb(module, size):
    """Change the weights of a module by about this share of each, in float64."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.double().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.mul_(1 + size * noise)


class Programs:
    """The programs of one cause.

    Parameters
    ----------
    cause : str
        The letter of the cause.
    **settings
        Parameters of the estimator for all of them.
    """

    def __init__(self, cause, **settings):
        self.cause, self.settings = cause, settings
        self.misleading: dict[str, Program] = {}
        self.honest: dict[str, Program] = {}

    def mislead(self, make):
        """Add a program whose recording would not stay true."""
        return self._add(self.misleading, make)

    def play(self, make):
        """Add an honest program, whose training has to be played from a tape."""
        return self._add(self.honest, make)

    def _add(self, programs, make):
        name = f"{self.cause}: {make.__name__.replace('_', ' ')}"
        if name in self.misleading or name in self.honest:
            raise ValueError(f"There are two programs called {name!r}.")
        programs[name] = Program(name, make, self.settings)
        return make


class Net(nn.Module):
    """A first and a last layer, and what a program does in between."""

    def __init__(self, **attributes):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.last(self.between(torch.tanh(self.first(x))))

    def between(self, x):
        return x


def net(between, **attributes):
    """A `Net` of a class of its own, whose `between` is a function of itself and the features."""
    return type("Own", (Net,), {"between": between})(**attributes)


class Log(logging.Handler):
    """What easyclf says while the handler is attached."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def __enter__(self):
        logger = logging.getLogger("easyclf")
        self._level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(self, *error):
        logger = logging.getLogger("easyclf")
        logger.removeHandler(self)
        logger.setLevel(self._level)

    @property
    def is_trained_from_a_tape(self):
        return any(line.endswith("is trained from a tape.") for line in self.lines)

    @property
    def is_evaluated_from_a_tape(self):
        return any(line.endswith("is evaluated from a tape.") for line in self.lines)


def figures(clf):
    """All that a fit leaves, by name: figures of the epochs, weights, buffers."""
    found = {
        f"{name} of epoch {row['epoch']}": np.asarray(float(value))
        for row in clf.history_
        for name, value in row.items()
        if name != "seconds"
    }
    for name, tensor in clf.module_.state_dict().items():
        found[name] = tensor.detach().numpy()
    return found


def difference(first, second):
    """The largest difference of two fits, relative to the size of each tensor or figure."""
    if first.keys() != second.keys():
        return np.inf
    worst = 0.0
    for name, value in first.items():
        other = second[name]
        if value.shape != other.shape:
            return np.inf
        if value.size and not np.array_equal(value, other, equal_nan=value.dtype.kind == "f"):
            size = max(float(np.abs(other).max()), 1e-12)
            distance = float(np.abs(value - other).max()) / size
            worst = max(worst, distance if np.isfinite(distance) else np.inf)
    return worst
