"""Errors of easyclf's own."""

from __future__ import annotations


class TrainingDiverged(FloatingPointError):
    """The loss or the weights stopped being finite.

    The estimator keeps the weights of the last epoch in which all of them were finite: in the
    first epoch those with which it began.
    """


class InvalidParameterError(ValueError, TypeError):
    """A parameter has a value that it cannot have; both, since callers expect either."""


class TapeDiffers(RuntimeError):
    """A recording did something else than what was recorded; the fit begins again without it."""


class InvalidFile(ValueError):
    """A file is not what it should be: of another kind, damaged, too large, or newer."""
