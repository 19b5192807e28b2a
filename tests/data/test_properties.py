"""Properties of every container, frame, weight and sparse matrix that hypothesis thinks of.

`EASYCLF_PROPERTIES=1000 python -m pytest tests/data/test_properties.py` tries a thousand of each.
"""

import os

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from easyclf import Estimator, MultiInput
from easyclf.data import InputFormat, Order, Reader
from easyclf.data.frame_encoder import FrameEncoder
from easyclf.nested import first_of

CPU = InputFormat(torch.device("cpu"), torch.float64, loss_dtype=torch.float64)
tries = settings(
    max_examples=int(os.environ.get("EASYCLF_PROPERTIES", "25")),
    deadline=None,
    derandomize="EASYCLF_PROPERTIES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Rows(Dataset):
    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, row):
        return tuple(part[row] for part in self.parts)


class Together(Rows):
    def __getitems__(self, rows):
        return [self[row] for row in rows]


class Stream(IterableDataset):
    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return zip(*self.parts, strict=True)


class Once(IterableDataset):
    def __init__(self, *parts):
        self.items = zip(*parts, strict=True)

    def __iter__(self):
        yield from self.items


def parts_of(x, y, w):
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(w)


ARRAYS = {
    "array": lambda x: x,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "fortran": np.asfortranarray,
    "float32": lambda x: x.astype(np.float32),
    "int": lambda x: x.astype(np.int64),
    "big-endian": lambda x: x.astype(">f8"),
    "list": lambda x: x.tolist(),
    "tensor": torch.from_numpy,
    "pandas": lambda x: pd.DataFrame(x, columns=["a", "b"], index=range(len(x), 0, -1)),
    "polars": lambda x: pl.DataFrame(x, schema=["a", "b"]),
    "csr": sp.csr_array,
    "coo": sp.coo_matrix,
    "dict": lambda x: {"x": x},
    "several": lambda x: MultiInput((x, x)),
}
DATASETS = {
    "tensors": lambda *parts: TensorDataset(*parts_of(*parts)),
    "rows": lambda *parts: Rows(*parts_of(*parts)),
    "together": lambda *parts: Together(*parts_of(*parts)),
    "loader": lambda *parts: DataLoader(Rows(*parts_of(*parts)), 3),
    "stream": lambda *parts: Stream(*parts_of(*parts)),
    "loaded stream": lambda *parts: DataLoader(Stream(*parts_of(*parts)), 3),
    "once": lambda *parts: Once(*parts_of(*parts)),
    "loaded once": lambda *parts: DataLoader(Once(*parts_of(*parts)), 3),
}
COLUMNS = {
    "list": list,
    "array": np.asarray,
    "tensor": lambda y: torch.as_tensor(np.asarray(y)),
    "pandas": lambda y: pd.Series(y, index=range(len(y), 0, -1)),
    "polars": pl.Series,
}


def reader():
    return Reader(Estimator(), torch.float64, {}, None)


def seen(rows, encoder, order, batch_size, min_rows):
    """The number, the label and the weight of each row that comes in batches."""
    found = []
    with rows.source(CPU, lambda codes: codes, encoder.transform_tensor) as source:
        for batch in source.batches(batch_size, order, min_rows):
            x = first_of(batch.x)
            weight = torch.ones(len(x)) if batch.weight is None else batch.weight
            found += zip(x[:, 0].tolist(), batch.y.tolist(), weight.tolist(), strict=True)
    return found


def numbered(n_rows):
    """Rows with their numbers in the first column, and labels and weights that follow from them."""
    numbers = np.arange(n_rows)
    return np.column_stack([numbers, numbers % 7]).astype(float), numbers * 5 % 3


weights = st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 0.5]), min_size=5, max_size=23).filter(any)
orders = st.builds(Order, st.integers(0, 2**32 - 1), st.booleans())
sizes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2]))


def check_pairs(found, w, order, *, keeps_order):
    _, y = numbered(len(w))
    counting = [number for number in range(len(w)) if w[number]]
    assert sorted(row for row, _, _ in found) == counting
    if keeps_order and not order.is_shuffled:
        assert [row for row, _, _ in found] == counting
    ratio = found[0][2] / w[int(found[0][0])]
    for number, code, weight in found:
        assert code == y[int(number)]
        assert weight == pytest.approx(ratio * w[int(number)])


@tries
@given(st.sampled_from(sorted(ARRAYS)), st.sampled_from(sorted(COLUMNS)), weights, orders, sizes)
def test_every_row_of_an_array_comes_once_with_its_label_and_weight(kind, column, w, order, size):
    x, y = numbered(len(w))

    rows, encoder = reader().read_training(
        ARRAYS[kind](x), COLUMNS[column](y), COLUMNS[column](w), None, [0, 1, 2], needs_labels=True
    )

    check_pairs(seen(rows, encoder, order, *size), w, order, keeps_order=True)


@tries
@given(st.sampled_from(sorted(DATASETS)), weights, orders, sizes)
def test_every_row_of_a_dataset_comes_once_with_its_label_and_weight(kind, w, order, size):
    x, y = numbered(len(w))
    X = DATASETS[kind](x, y, np.asarray(w) * 1.5)

    rows, encoder = reader().read_training(X, None, None, None, [0, 1, 2], needs_labels=False)

    found = seen(rows, encoder, order, *size)
    check_pairs(found, w, order, keeps_order="loaded" in kind or kind in ("loader", "stream"))


@tries
@given(st.sampled_from(sorted(DATASETS)), st.integers(1, 30), st.integers(1, 9))
def test_every_row_of_a_dataset_is_answered_in_its_place(kind, n_rows, batch_size):
    x, y = numbered(n_rows)

    rows = reader().read_inputs(DATASETS[kind](x, y, np.ones(n_rows)))

    with rows.source(CPU) as source:
        answered = torch.cat([batch.x[:, 0] for batch in source.batches(batch_size)])
    assert answered.tolist() == list(range(n_rows))


@tries
@given(weights, st.integers(-300, 290), st.sampled_from(["array", "rows", "stream"]))
def test_weights_of_any_scale_have_the_same_ratios(w, exponent, kind):
    x, y = numbered(len(w))
    scaled = np.asarray(w) * 10.0**exponent
    data = (x, y, scaled) if kind == "array" else (DATASETS[kind](x, y, scaled), None, None)

    rows, encoder = reader().read_training(*data, None, [0, 1, 2], needs_labels=False)

    order = Order(0, False)
    check_pairs(seen(rows, encoder, order, 4, 1), w, order, keeps_order=True)


@tries
@given(st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=12, unique=True), st.data())
def test_categories_are_the_same_under_other_dtypes(values, data):
    dtypes = {
        "int": lambda column: pd.Categorical(column),
        "float": lambda column: np.asarray(column, dtype=float),
        "text": lambda column: [str(value) for value in column],
        "text of floats": lambda column: [f"{value}.0" for value in column],
        "objects": lambda column: np.asarray(column, dtype=object),
    }
    column = data.draw(st.lists(st.sampled_from(values), min_size=2, max_size=30))
    first = data.draw(st.sampled_from(["text", "int", "text of floats"]))
    other = data.draw(st.sampled_from(sorted(dtypes)))
    encoder = FrameEncoder().fit(pd.DataFrame({"c": dtypes[first](column), "t": "a"}))

    expected = encoder.transform(pd.DataFrame({"c": dtypes[first](column), "t": "a"}))

    found = encoder.transform(pd.DataFrame({"c": dtypes[other](column), "t": "a"}))
    np.testing.assert_array_equal(found, expected)


@tries
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=30),
    st.sampled_from(["bool", "int8", "float32", "float64"]),
    st.booleans(),
)
def test_sparse_matrices_with_entries_in_one_place_are_read_as_they_are_shown(
    places, dtype, is_kept
):
    order = np.lexsort(np.transpose(places)[::-1])
    row, column = np.transpose(places)[:, order]
    pointers = np.searchsorted(row, np.arange(6))
    X = sp.csr_array((np.ones(len(row), dtype), column, pointers), shape=(5, 3))
    entries = X.data.copy()
    expected = X.toarray().astype(float)

    rows = reader().read_inputs(X)

    with rows.source(CPU, is_kept=is_kept) as source:
        assert torch.cat([batch.x for batch in source.batches(2)]).tolist() == expected.tolist()
    assert np.array_equal(X.data, entries)
