"""Batches of arrays and tensors in memory."""

import numpy as np
import pytest
import torch

from easyclf.data import InputFormat, as_tensor, check_finite
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


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        X,
        read_only(X),
        np.asfortranarray(X),
        X[::2],
        X[::-1],
        X[:, ::-1],
        X.astype(">f4"),
        X.astype(">i8"),
        X.astype("f8"),
        X.astype("f2"),
        X.astype("u1"),
        X.astype("u2"),
        X.astype("u8"),
        X.astype("i2"),
        X.astype(bool),
        X.astype(np.longdouble),
    ],
    ids=lambda array: f"{array.dtype.str}{array.strides}",
)
def test_a_tensor_has_the_values_of_its_array(array):
    assert as_tensor(array).tolist() == array.tolist()


@pytest.mark.parametrize("array", [X, read_only(X), np.asfortranarray(X), X[1:], X.astype("u1")])
def test_a_tensor_shares_the_memory_of_an_array_that_torch_can_read(array):
    assert as_tensor(array).data_ptr() == array.ctypes.data


@pytest.mark.parametrize(
    ("wrong", "dtype", "words"),
    [
        ({(1, 2): np.nan, (3, 0): np.nan}, torch.float32, "NaN: 2 value.*row 1, column 2"),
        ({(2, 0): np.inf}, torch.float32, "infinity.*inf in row 2, column 0 is the first of 1"),
        ({(2, 1): -np.inf}, torch.float64, "infinity.*-inf in row 2, column 1"),
        ({(0, 1): 1e39}, torch.float32, r"too large for dtype\('float32'\).*1e\+39 in row 0"),
        ({(0, 0): np.inf, (3, 2): np.nan}, torch.float32, "NaN: 1 value.*row 3, column 2"),
    ],
)
def test_values_that_are_not_finite_are_refused_with_their_place(wrong, dtype, words):
    x = torch.zeros(4, 3, dtype=torch.float64)
    for place, value in wrong.items():
        x[place] = value

    with pytest.raises(ValueError, match=words):
        check_finite(x, dtype)


def test_of_an_image_that_is_not_finite_the_row_is_named():
    x = torch.zeros(5, 2, 3, 3)
    x[4, 1, 0, 2] = torch.nan

    with pytest.raises(ValueError, match="the first in row 4;"):
        check_finite(x, torch.float32)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (torch.tensor([[torch.finfo(torch.float32).max]]), torch.float32),
        (torch.tensor([[1e39]], dtype=torch.float64), torch.float64),
        (torch.tensor([[2**62]]), torch.float32),
        (torch.zeros(0, 3), torch.float32),
    ],
)
def test_finite_values_pass(x, dtype):
    check_finite(x, dtype)


def test_without_a_generator_rows_come_in_order_and_the_last_batch_is_short():
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
    batches = list(source(10).batches(3, torch.Generator().manual_seed(0)))

    seen = [row for rows in rows_of(batches) for row in rows]
    assert [len(batch.x) for batch in batches] == [3, 3, 3, 1]
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(10))
    assert torch.cat([batch.y for batch in batches]).tolist() == seen
    assert torch.cat([batch.weight for batch in batches]).tolist() == seen


def test_the_order_is_that_of_the_generator_and_changes_from_pass_to_pass():
    def two_passes():
        generator = torch.Generator().manual_seed(0)
        return [rows_of(source(10).batches(3, generator)) for _ in range(2)]

    first, second = two_passes()

    assert first != second
    assert two_passes() == [first, second]


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

    (batch,) = TensorSource(rows, None, None, CPU._replace(copies=copies)).batches(4)

    assert (batch.x.data_ptr() == rows.data_ptr()) is not copies


@pytest.mark.parametrize("n_rows", [8, 64, 1000, 1003])
@pytest.mark.parametrize("at_once", [1, 40, 10**9])
def test_batches_gathered_together_are_those_gathered_alone(monkeypatch, n_rows, at_once):
    """Shuffled by the generator's permutation, cut at the same places, x with its y and weight."""
    monkeypatch.setattr("easyclf.data.tensors._GATHERED_NUMBERS", at_once)
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(3)).tolist()

    batches = list(source(n_rows).batches(6, torch.Generator().manual_seed(3), min_rows=2))

    assert [row for rows in rows_of(batches) for row in rows] == order
    lengths = [len(batch.x) for batch in batches]
    assert sum(lengths) == n_rows
    assert set(lengths[:-1]) <= {6}
    assert lengths[-1] >= 2
    for x, y, weight in batches:
        assert x[:, 0].tolist() == y.tolist() == weight.tolist()
