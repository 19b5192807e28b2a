"""Answers other than the most probable class: the cheapest one, or none."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from easyclf.targets import Labels


def cheapest(probabilities: NDArray[Any], costs: ArrayLike) -> NDArray[np.intp]:
    """The codes of least expected cost, `sum over true classes of p(true) costs[true, answer]`."""
    table = np.asarray(costs, dtype=float)
    n_classes = probabilities.shape[1]
    if table.shape != (n_classes, n_classes) or not np.isfinite(table).all():
        raise ValueError(
            f"`costs` has shape {table.shape}; expected finite costs of shape "
            f"({n_classes}, {n_classes}), costs[true, answered]."
        )
    return np.asarray((probabilities @ table).argmin(axis=1))


def with_uncertain(
    labels: Labels, best: NDArray[Any], min_proba: float, uncertain: Any, classes: Labels
) -> Labels:
    """The answers, but `uncertain` where the `best` probability is below `min_proba`."""
    if not isinstance(min_proba, Real) or not 0 <= min_proba <= 1:
        raise ValueError(f"`min_proba` must be a probability in [0, 1]; got {min_proba!r}.")
    if uncertain in classes.tolist():
        raise ValueError(
            f"`uncertain` {uncertain!r} is one of the classes; choose an answer that is none."
        )
    other = np.asarray(uncertain)
    kind = "i" if labels.dtype.kind == "u" else labels.dtype.kind
    dtype = np.result_type(labels, other) if other.dtype.kind == kind else np.dtype(object)
    answers: Labels = labels.astype(dtype)
    answers[best < min_proba] = uncertain
    return answers
