"""Batches of SciPy sparse rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from easyclf import Estimator
from easyclf.data import InputFormat, Order
from easyclf.data.sparse import SparseSource, check_finite_sparse

CPU = InputFormat(torch.device("cpu"), torch.float32)


@pytest.fixture
def dense():
    return np.random.default_rng(0).binomial(3, 0.3, size=(7, 5)).astype(np.float64)


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csr_matrix])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_batches_are_the_dense_rows_with_their_labels_and_weights(dense, kind, is_shuffled):
    numbers = torch.arange(7)
    source = SparseSource(kind(dense), numbers, numbers.double(), CPU)

    batches = list(source.batches(3, Order(0, is_shuffled)))

    order = torch.cat([batch.y for batch in batches])
    assert [len(batch.x) for batch in batches] == [3, 3, 1]
    assert sorted(order.tolist()) == list(range(7))
    assert (order.tolist() == list(range(7))) is not is_shuffled
    assert torch.cat([batch.weight for batch in batches]).tolist() == order.tolist()
    assert torch.cat([batch.x for batch in batches]).tolist() == dense[order].tolist()
    assert batches[0].x.dtype == torch.float32


def test_a_last_batch_of_too_few_rows_joins_the_one_before(dense):
    rows = SparseSource(sp.csr_array(dense), None, None, CPU)

    assert [len(batch.x) for batch in rows.batches(3, min_rows=2)] == [3, 4]
    assert rows.n_batches(3, min_rows=2) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN: 1 value.*row 4, column 2.*SimpleImputer"),
        (np.inf, "infinity.*row 4, column 2"),
        (1e39, "too large for dtype.*row 4, column 2"),
    ],
)
def test_a_value_that_is_not_finite_is_refused_with_its_place(value, words):
    x = sp.csr_array(([1.0, value, 1.0], ([0, 4, 6], [1, 2, 0])), shape=(7, 3))

    with pytest.raises(ValueError, match=words):
        check_finite_sparse(x, torch.float32)


def test_rows_become_dense_only_a_batch_at_a_time(monkeypatch):
    X = sp.random_array((300, 4), density=0.5, format="csr", rng=np.random.default_rng(0))
    made_dense, to_dense = [], sp.csr_array.toarray
    monkeypatch.setattr(
        sp.csr_array, "toarray", lambda x: made_dense.append(x.shape[0]) or to_dense(x)
    )

    Estimator(nn.Linear(4, 2), epochs=1, batch_size=50).fit(X, np.arange(300) % 2)

    assert max(made_dense) == 50


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_entries_of_one_place_are_added_up_in_fit_and_in_prediction(dtype):
    """In the dtype in which they came, and in a matrix of its own."""
    X = sp.csr_array((np.ones(3, dtype), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    seen = []

    class Seeing(nn.Linear):
        def forward(self, x):
            seen.append(x.detach().max().item())
            return super().forward(x)

    clf = Estimator(Seeing(2, 2), epochs=1, compile=False).fit(X, [0, 1])
    clf.predict(X)

    expected = 1.0 if dtype is bool else 2.0
    assert set(seen) == {expected}
    assert X.nnz == 3
