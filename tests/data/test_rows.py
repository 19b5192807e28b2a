"""Validated rows, before they are cut into batches."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader, TensorDataset

from easyclf.data import InputFormat, Rows

CPU = InputFormat(torch.device("cpu"), torch.float32)
NUMBERS = np.arange(5)
DENSE = np.arange(10.0).reshape(5, 2)


def dataset():
    return TensorDataset(torch.from_numpy(DENSE).float(), torch.from_numpy(NUMBERS))


KINDS = {
    "tensor": lambda: torch.from_numpy(DENSE),
    "csr_array": lambda: sp.csr_array(DENSE),
    "csr_matrix": lambda: sp.csr_matrix(DENSE),
    "dataset": dataset,
    "loader": lambda: DataLoader(dataset(), batch_size=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_rows_can_be_counted_and_looked_at(kind):
    rows = Rows(KINDS[kind](), NUMBERS)

    assert rows.n_rows == 5
    assert rows.first(2).tolist() == DENSE[:2].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_rows_comes_in_batches(kind):
    source = Rows(KINDS[kind](), NUMBERS).source(CPU, lambda codes: codes, lambda labels: labels)

    batches = list(source.batches(2))

    assert torch.cat([batch.x for batch in batches]).tolist() == DENSE.tolist()
    assert torch.cat([batch.y for batch in batches]).tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("kind", ["tensor", "csr_array", "csr_matrix", "dataset"])
def test_taken_rows_keep_their_labels_and_weights(kind):
    taken = Rows(KINDS[kind](), NUMBERS, NUMBERS / 10).take(np.array([3, 1]))

    assert taken.first(2).tolist() == DENSE[[3, 1]].tolist()
    assert taken.codes.tolist() == [3, 1]
    assert taken.weight.tolist() == [0.3, 0.1]


def test_rows_of_weight_zero_are_left_out():
    rows = Rows(torch.from_numpy(DENSE), NUMBERS, np.array([1.0, 0, 2, 0, 3]))

    counted = rows.without_zero_weights()

    assert counted.codes.tolist() == [0, 2, 4]
    assert counted.weight.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (Rows(torch.zeros(2, 1), NUMBERS[:2]), False),
        (Rows(torch.zeros(2, 1), NUMBERS[:2], np.ones(2)), True),
        (Rows(dataset()), False),
        (Rows(TensorDataset(torch.zeros(2, 1), torch.zeros(2), torch.ones(2))), True),
    ],
)
def test_rows_know_whether_they_have_weights(rows, expected):
    assert rows.is_weighted is expected


@pytest.mark.parametrize(
    ("dtype", "is_converted_once"),
    [(torch.float64, True), (torch.int64, True), (torch.uint8, False), (torch.bool, False)],
)
def test_only_small_numbers_are_converted_anew_for_each_batch(dtype, is_converted_once):
    """Pixels stay as small as they are until their batch comes."""
    source = Rows(torch.ones(4, 2, dtype=dtype)).source(CPU, is_kept=True)

    first, second = (next(source.batches(4)).x for _ in range(2))

    assert first.dtype == torch.float32
    assert (first.data_ptr() == second.data_ptr()) is is_converted_once


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_have_the_dtype_of_the_losses_also_beside_tokens(dtype):
    tokens, weight = torch.tensor([[1], [2]]), np.array([0.1, 0.3])
    data = TensorDataset(tokens, torch.tensor([0, 1]), torch.from_numpy(weight))
    input_format = InputFormat(
        torch.device("cpu"), torch.float32, weight_dtype=dtype, tokens=(None,)
    )

    for rows in (Rows(tokens, np.array([0, 1]), weight), Rows(data)):
        source = rows.source(input_format, lambda codes: codes, torch.as_tensor)
        (batch,) = source.batches(2)

        assert batch.weight.dtype == dtype
        assert torch.equal(batch.weight, torch.from_numpy(weight).to(dtype))
