"""Batches of datasets: weights of rows, and too few rows."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from small_dataset import Kind, fit, weights

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Weighted(Kind):
    """Rows with the weights that a test gives."""

    def __init__(self, weights, shape=()):
        super().__init__()
        self.weights, self.shape = weights, shape

    def __getitem__(self, row):
        weight = torch.tensor(self.weights[row % len(self.weights)], dtype=torch.float64)
        return (*super().__getitem__(row), weight.reshape(self.shape))


class TestWeights:
    def test_rows_of_weight_zero_are_as_if_they_were_not_there(self):
        """Also for batch normalization, which knows no weights."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

        clf = fit(Weighted([1.0, 0.0]), module, batch_size=-1, shuffle=False)

        every_other = Subset(Kind(), range(0, 60, 2))
        expected = fit(every_other, module, batch_size=-1, shuffle=False, classes=[0, 1])
        np.testing.assert_allclose(
            clf.module_[0].running_mean, expected.module_[0].running_mean, rtol=1e-5
        )

    def test_a_column_of_weights_is_one_weight_a_row(self):
        by_column, flat = fit(Weighted([1.0, 2.0], (1,))), fit(Weighted([1.0, 2.0]))

        assert weights(by_column) == weights(flat)

    @pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
    def test_weights_that_make_no_sense_are_refused(self, wrong):
        with pytest.raises(ValueError, match="expected one finite weight of at least 0"):
            fit(Weighted([1.0, wrong, 2.0]))

    def test_two_weights_for_a_row_are_refused(self):
        with pytest.raises(ValueError, match="expected one finite weight"):
            fit(Weighted([[1.0, 2.0]], (2,)))

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_batch_normalization_always_gets_enough_rows(self, shuffle):
        module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

        clf = fit(Weighted([1.0, 0.0, 0.0, 0.0]), module, batch_size=4, shuffle=shuffle)

        assert np.isfinite(clf.history_["loss"]).all()

    def test_weights_that_are_all_zero_are_refused(self):
        with pytest.raises(ValueError, match="no row has a positive weight"):
            fit(Weighted([0.0]))
