"""Batches of arrays and tensors in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from easyclf import Estimator
from easyclf.data import InputFormat, Order
from easyclf.data.schema import ReadContext
from easyclf.data.tensors import TensorSource

CPU = InputFormat(torch.device("cpu"), torch.float32)
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def source(n_rows, input_format=CPU):
    """Rows that say their own number: in x, in y and in the weight."""
    numbers = torch.arange(n_rows)
    return TensorSource(
        numbers.float()[:, None], numbers.clone(), numbers.float().clone(), input_format
    )


def rows_of(batches):
    return [batch.x[:, 0].tolist() for batch in batches]


def test_without_an_order_rows_come_as_they_are_and_the_last_batch_is_short():
    assert rows_of(source(7).batches(3)) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "expected"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5, 6]]),
        (8, 3, [[0, 1, 2], [3, 4, 5], [6, 7]]),
        (1, 3, [[0]]),
        (4, 3, [[0, 1, 2, 3]]),
        (3, 3, [[0, 1, 2]]),
    ],
)
def test_a_last_batch_of_too_few_rows_joins_the_one_before(n_rows, batch_size, expected):
    assert rows_of(source(n_rows).batches(batch_size, min_rows=2)) == expected
    assert source(n_rows).n_batches(batch_size, min_rows=2) == len(expected)


def test_a_shuffled_pass_gives_every_row_once_with_its_own_label_and_weight():
    batches = list(source(10).batches(3, Order(0, True)))

    seen = [row for rows in rows_of(batches) for row in rows]
    assert [len(batch.x) for batch in batches] == [3, 3, 3, 1]
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(10))
    assert torch.cat([batch.y for batch in batches]).tolist() == seen
    assert torch.cat([batch.weight for batch in batches]).tolist() == seen


def test_the_order_of_an_epoch_follows_from_its_seed_alone():
    rows = source(10)

    first, second, again = (rows_of(rows.batches(3, Order(seed, True))) for seed in (0, 1, 0))

    assert first == again
    assert first != second


def test_batches_without_labels_have_none():
    (batch,) = TensorSource(torch.zeros(2, 1), None, None, CPU).batches(2)

    assert batch.y is None
    assert batch.weight is None


@pytest.mark.parametrize("given", [torch.uint8, torch.float16, torch.float64])
def test_batches_are_of_the_dtype_that_the_module_wants(given):
    (batch,) = TensorSource(torch.ones(2, 1, dtype=given), None, None, CPU).batches(2)

    assert batch.x.dtype == torch.float32


@pytest.mark.parametrize("copies", [False, True])
def test_a_batch_shares_the_memory_of_the_rows_unless_the_module_would_change_it(copies):
    rows = torch.zeros(4, 1)

    (batch,) = TensorSource(rows, None, None, replace(CPU, copies=copies)).batches(4)

    assert (batch.x.data_ptr() == rows.data_ptr()) is not copies


@pytest.mark.parametrize("n_rows", [8, 64, 1000, 1003])
@pytest.mark.parametrize("at_once", [1, 40, 10**9])
def test_batches_gathered_together_are_those_gathered_alone(monkeypatch, n_rows, at_once):
    """Shuffled by the permutation of the seed, cut at the same places, x with its y and weight."""
    monkeypatch.setattr("easyclf.data.tensors._GATHERED_NUMBERS", at_once)
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(3)).tolist()

    batches = list(source(n_rows).batches(6, Order(3, True), min_rows=2))

    assert [row for rows in rows_of(batches) for row in rows] == order
    lengths = [len(batch.x) for batch in batches]
    assert sum(lengths) == n_rows
    assert set(lengths[:-1]) <= {6}
    assert lengths[-1] >= 2
    for x, y, weight in batches:
        assert x[:, 0].tolist() == y.tolist() == weight.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_arrays_like_those_of_training_need_no_check_of_scikit_learns(dtype, blobs, monkeypatch):
    clf = Estimator(epochs=1, random_state=0).fit(*blobs)
    X = blobs[0].clip(0).astype(dtype)
    expected = clf.predict_proba(X.tolist())

    monkeypatch.setattr(ReadContext, "check", None)

    np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-6)


def test_other_arrays_are_checked_as_ever(blobs):
    clf = Estimator(epochs=1).fit(*blobs)

    with pytest.raises(ValueError, match="X has 3 features, but Estimator is expecting 4"):
        clf.predict(blobs[0][:, :3])
    with pytest.raises(ValueError, match="0 sample"):
        clf.predict(blobs[0][:0])
    with pytest.raises(ValueError, match="NaN"):
        clf.predict(np.full((1, 4), np.nan))
