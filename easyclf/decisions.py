"""Answers other than the most probable class: the cheapest one, or none."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from easyclf.targets import Labels


def cheapest(probabilities: NDArray[Any], costs: ArrayLike) -> NDArray[np.intp]:
    """Find the answers of least expected cost, `sum over true of p(true) costs[true, answer]`.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    costs : array-like of shape (n_classes, n_classes)
        `costs[true, answer]`.

    Returns
    -------
    codes : ndarray of shape (n_rows,)
        The first of several answers that cost the same.

    Raises
    ------
    ValueError
        If the costs have another shape, or are not finite.
    """
    table = np.asarray(costs, dtype=float)
    n_classes = probabilities.shape[1]
    if table.shape != (n_classes, n_classes) or not np.isfinite(table).all():
        raise ValueError(
            f"`costs` has shape {table.shape}; expected finite costs of shape "
            f"({n_classes}, {n_classes}), costs[true, answered]."
        )
    expected_costs = probabilities @ table
    return np.asarray(expected_costs.argmin(axis=1))


def with_uncertain(
    labels: Labels,
    best_probabilities: NDArray[Any],
    min_proba: float,
    uncertain: object,
    classes: Labels,
) -> Labels:
    """Answer `uncertain` where the best probability is below `min_proba`.

    Parameters
    ----------
    labels, best_probabilities : ndarray of shape (n_rows,)
        The most probable class of each row, and its probability.
    min_proba : float
        In [0, 1].
    uncertain : object
        The answer of the other rows; none of the classes.
    classes : ndarray of shape (n_classes,)
        All classes.

    Returns
    -------
    answers : ndarray of shape (n_rows,)
        Of objects where `uncertain` is of another type than the classes. The memory is new.

    Raises
    ------
    ValueError
        If `min_proba` is no probability, or `uncertain` is a class or several answers.
    """
    if not isinstance(min_proba, Real) or not 0 <= min_proba <= 1:
        raise ValueError(f"`min_proba` must be a probability in [0, 1]; got {min_proba!r}.")
    if isinstance(uncertain, (list, tuple, np.ndarray)):
        raise ValueError(
            f"`uncertain` is {uncertain!r}; expected one answer, such as 'uncertain' or -1."
        )
    if uncertain in classes.tolist():
        raise ValueError(
            f"`uncertain` {uncertain!r} is one of the classes; choose an answer that is none."
        )
    answer = np.asarray(uncertain)
    # A signed answer, such as -1, beside unsigned classes makes both signed.
    expected_kind = "i" if labels.dtype.kind == "u" else labels.dtype.kind
    is_same = answer.dtype.kind == expected_kind
    dtype = np.result_type(labels, answer) if is_same else np.dtype(object)
    if dtype.kind == "f" != labels.dtype.kind:
        # No integer holds both uint64 and -1, and a float holds neither's every value.
        dtype = np.dtype(object)
    answers: Labels = labels.astype(dtype)
    answers[best_probabilities < min_proba] = uncertain
    return answers
