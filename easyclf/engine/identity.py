"""What makes a training the same one: its parameters, and its rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from easyclf.data import Rows
from easyclf.engine.given import Given, as_given, shown
from easyclf.metrics import Metrics
from easyclf.nested import apply, tensors_of
from easyclf.targets import Labels
from easyclf.weights import InitialWeights

# A run goes on with more epochs, on another device, and with or without tapes; the module is noted
# as it was given, and the seed under the name that users know.
_LEFT_OUT = ("module", "module_keywords", "epochs", "device", "compile", "seed", "follows")
# Rows of larger tables are read in so many pieces of so many bytes, from the first to the last.
_PIECES, _PIECE_BYTES = 64, 2**22
_MOST_CLASSES = 20


def note_of(
    settings: Mapping[str, object],
    given: Given,
    train: Rows,
    valid: Rows | None,
    classes: Labels,
) -> dict[str, str]:
    """Note all that a training follows from, so that another one can be told from it.

    Parameters
    ----------
    settings : mapping of str to object
        The fields of `Settings`.
    given : Given
        The module.
    train, valid : Rows
        The rows.
    classes : ndarray of shape (n_classes,)
        The classes.

    Returns
    -------
    note : dict of str to str
        By the names that users know. Objects are noted by their types.
    """
    note = as_given(given.module, given.keywords)
    for name, value in settings.items():
        if name in _LEFT_OUT:
            continue
        prefix, _, kind = name.rpartition("_")
        if kind == "keywords" and isinstance(value, Mapping):
            note |= {f"{prefix}__{key}": shown(item) for key, item in value.items()}
        elif isinstance(value, InitialWeights):
            note["load_weights"] = _note_of_weights(value)
        elif isinstance(value, Metrics):
            note[name] = str(list(value.names))
        else:
            note[name] = shown(value)
    note["random_state"] = f"of the seed {settings['seed']}"
    shown_classes = [str(label) for label in classes[:_MOST_CLASSES]]
    note["classes"] = f"{len(classes)}: {', '.join(shown_classes)}"
    note |= _note_of_rows(train, "X", "y", "sample_weight")
    if valid is not None:
        note |= _note_of_rows(valid, "X_val", "y_val", "sample_weight_val")
    return note


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say of each parameter that differs what it was, and what it is."""
    names = dict.fromkeys([*now, *before])
    return [
        f"`{name}` was {before.get(name, 'not given')}, and is {now.get(name, 'not given')} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _note_of_weights(weights: InitialWeights) -> str:
    checksum = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(weights.tensors.items()):
        checksum.update(name.encode())
        checksum.update(_bytes_of(tensor))
    return f"{len(weights.tensors)} tensors{_with(checksum.hexdigest())}"


def _note_of_rows(rows: Rows, x: str, y: str, weight: str) -> dict[str, str]:
    shape = apply(lambda tensor: tuple(tensor.shape[1:]), rows.first(1))
    count = "rows" if rows.n_rows is None else f"{rows.n_rows} rows"
    # Datasets run code of users when they are read, and may draw random numbers.
    checksum = None if rows.may_draw or rows.n_rows is None else _checksum(rows, rows.n_rows)
    note = {x: f"{count} of shape {shape}{_with(checksum)}"}
    for name, values in ((y, rows.codes), (weight, rows.weight)):
        if values is not None:
            note[name] = f"of shape {values.shape}{_with(_checksum_of_array(values))}"
    return note


def _with(checksum: str | None) -> str:
    return "" if checksum is None else f" with the checksum {checksum}"


def _checksum(rows: Rows, n_rows: int) -> str:
    """A checksum of the values of rows; of large ones, of pieces of them."""
    n_bytes = max(1, sum(tensor.nbytes for tensor in tensors_of(rows.first(1))))
    at_once = max(1, _PIECE_BYTES // n_bytes)
    starts = list(range(0, n_rows, at_once))
    starts = [*starts[:: math.ceil(len(starts) / _PIECES)], starts[-1]]
    checksum = hashlib.blake2b(digest_size=8)
    for start in starts:
        numbers = np.arange(start, min(start + at_once, n_rows))
        for tensor in tensors_of(rows.take(numbers).first(len(numbers))):
            checksum.update(_bytes_of(tensor))
    return checksum.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The numbers of a tensor of any shape, as bytes."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    view: memoryview = plain.view(torch.uint8).numpy().data
    return view


def _checksum_of_array(values: NDArray[np.int64] | NDArray[np.float64]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest()
