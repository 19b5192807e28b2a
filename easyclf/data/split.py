"""The rows that are held out for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyclf.checks import warn_user
from easyclf.targets import Labels


def split_rows(
    codes: Labels, fraction: float, seed: int, classes: Labels
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers of the rows to train on and to validate on, stratified by class where possible.

    Raises
    ------
    ValueError
        If either part would have no row.
    """
    n_rows = len(codes)
    n_valid = int(np.ceil(n_rows * fraction))
    if n_rows - n_valid < 1 or int(n_rows * fraction) < 1:
        raise ValueError(
            f"`validation_split` {fraction!r} of {n_rows} row(s) leaves one part without a row; "
            "give more rows, another fraction, or `validation_data`."
        )
    stratify = None
    if codes.ndim == 1:
        present, counts = np.unique(codes, return_counts=True)
        smallest = classes.tolist()[present[counts.argmin()]]
        if counts.min() < 2 or min(n_valid, n_rows - n_valid) < len(present):
            warn_user(
                f"`validation_split` {fraction!r} cannot be stratified: class {smallest!r} has "
                f"{counts.min()} of {n_rows} row(s), and {n_valid} row(s) are held out for "
                f"{len(present)} classes; the rows are drawn without regard to their class.",
            )
        else:
            stratify = codes
    from sklearn.model_selection import train_test_split  # which takes 10 ms to import

    train, valid = train_test_split(
        np.arange(n_rows), test_size=n_valid, random_state=seed, stratify=stratify
    )
    return np.sort(train), np.sort(valid)
