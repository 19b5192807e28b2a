"""Batches of datasets: weights of rows, and too few rows."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from easyclf import Estimator
from small_dataset import LABELS, ROWS, Kind, fit, network, weights

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Weighted(Kind):
    """Rows with the weights that a test gives."""

    def __init__(self, weights, shape=()):
        super().__init__()
        self.weights, self.shape = weights, shape

    def __getitem__(self, row):
        weight = torch.tensor(self.weights[row % len(self.weights)], dtype=torch.float64)
        return (*super().__getitem__(row), weight.reshape(self.shape))


class Streamed(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[row] for row in range(len(self.dataset)))


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

    @pytest.mark.parametrize("parameters", [{}, {"classes": [0, 1]}])
    def test_weights_that_only_some_batches_have_are_refused(self, parameters):
        class Some(Kind):
            def __getitem__(self, row):
                item = super().__getitem__(row)
                return (*item, 2.0) if row < 32 else item

        with pytest.raises(ValueError, match="weights with some rows and none with others"):
            fit(Some(), shuffle=False, **parameters)

    def test_balanced_classes_and_splits_are_of_rows_that_count(self):
        w = np.r_[np.zeros(10), np.ones(50)]
        parameters = {"class_weight": "balanced", "validation_split": 0.3}

        clf = fit(Weighted(w.tolist()), **parameters)

        expected = fit(Subset(Kind(), range(10, 60)), **parameters)
        for name in ("loss", "val_accuracy"):
            np.testing.assert_allclose(clf.history_[name], expected.history_[name], rtol=1e-5)

    @pytest.mark.parametrize("kind", ["stream", "loader"])
    def test_balanced_classes_of_what_cannot_be_split_are_of_rows_that_count(self, kind):
        dataset = Weighted([1.0, 0.0, 1.0, 1.0])
        X = DataLoader(dataset, 60) if kind == "loader" else Streamed(dataset)
        counting = Subset(Kind(), [row for row in range(60) if row % 4 != 1])
        parameters = {"class_weight": "balanced", "epochs": 1, "batch_size": 60, "shuffle": False}

        clf = fit(X, **parameters)

        expected = fit(counting, **parameters)
        np.testing.assert_allclose(clf.history_["loss"], expected.history_["loss"], rtol=1e-5)

    def test_a_class_of_rows_that_do_not_count_is_a_class(self):
        assert fit(Weighted([1.0, 0.0])).classes_.tolist() == [0, 1]

    def test_missing_numbers_in_rows_that_do_not_count_are_not_looked_at(self):
        class Gaps(Weighted):
            def __getitem__(self, row):
                x, *rest = super().__getitem__(row)
                return (x * float("nan") if row % 2 else x, *rest)

        X, counts = np.where(np.arange(60)[:, None] % 2, np.nan, ROWS), np.arange(60) % 2 == 0

        for clf in (fit(Gaps([1.0, 0.0])), Estimator(network(), epochs=1).fit(X, LABELS, counts)):
            assert np.isfinite(clf.history_["loss"]).all()
        with pytest.raises(ValueError, match=r"1 value\(s\), the first in row 1, ") as caught:
            Estimator(network()).fit([[1], [2], [np.nan], [1]], [0, 1, 0, 1], [0, 1, 1, 1])
        assert "weight 0 are left out" in caught.value.__notes__[0]

    @pytest.mark.parametrize("classes", [None, [0, 1]])
    @pytest.mark.parametrize("factor", [1e-50, 1e-42, 1e38, 1e300])
    def test_weights_of_any_size_mean_the_same(self, factor, classes):
        clf = fit(Weighted([factor, 2 * factor]), classes=classes)

        expected = fit(Weighted([1.0, 2.0]), classes=classes)
        np.testing.assert_allclose(clf.history_["loss"], expected.history_["loss"], rtol=1e-5)

    def test_weights_of_sizes_that_no_number_holds_together_are_refused(self):
        with pytest.raises(ValueError, match="dtype float32 does not hold such ratios"):
            fit(Weighted([1.0] * 20 + [1e-60]), classes=[0, 1])


def test_a_group_of_batches_without_weight_takes_no_step_into_nowhere():
    order = np.argsort(LABELS, kind="stable")
    clf = Estimator(network(), class_weight={0: 0.0}, batch_size=5, accumulate=3, shuffle=False)

    assert np.isfinite(clf.fit(ROWS[order], LABELS[order], epochs=2).history_["loss"]).all()
