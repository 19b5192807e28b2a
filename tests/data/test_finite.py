"""The place of the first value that is not finite."""

import numpy as np
import pytest
import torch

from easyclf.data.finite import check_finite


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
