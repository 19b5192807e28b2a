"""Figures and answers over many rows, also when memory runs out."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator


class Hungry(nn.Module):
    """Has memory for a few rows only, in evaluation."""

    def __init__(self, network, most, error=None):
        super().__init__()
        self.network, self.most = network, most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.asked = []

    def forward(self, x):
        if not self.training:
            self.asked.append(len(x))
            if len(x) > self.most:
                raise self.error
        return self.network(x)


@pytest.fixture
def fitted(blobs, network):
    clf = Estimator(network, epochs=2, random_state=0).fit(*blobs)

    def with_memory_for(n_rows, *error):
        hungry = Estimator(network, epochs=2, random_state=0).fit(*blobs)
        hungry.module_ = Hungry(clf.module_, n_rows, *error)
        return hungry

    return clf, with_memory_for


@pytest.mark.parametrize("most", [1, 7, 15, 29])
def test_prediction_goes_on_in_smaller_batches(fitted, blobs, most):
    clf, with_memory_for = fitted
    hungry = with_memory_for(most)

    with pytest.warns(UserWarning, match="no memory for 30 rows") as caught:
        probabilities = hungry.predict_proba(blobs[0])

    np.testing.assert_allclose(probabilities, clf.predict_proba(blobs[0]), rtol=1e-6)
    assert len(caught) == 1


def test_figures_stay_exact_in_smaller_batches(fitted, blobs):
    clf, with_memory_for = fitted
    weight = np.linspace(0.5, 2, 30)

    with pytest.warns(UserWarning, match="smaller batches"):
        figures = with_memory_for(4).evaluate(*blobs, weight)

    assert figures == pytest.approx(clf.evaluate(*blobs, weight), rel=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=["host", "mps", "cpu"],
)
def test_every_allocator_is_understood(fitted, blobs, error):
    with pytest.warns(UserWarning, match="smaller batches"):
        fitted[1](10, error).predict(blobs[0])


def test_other_errors_are_not_taken_for_a_lack_of_memory(fitted, blobs):
    with pytest.raises(RuntimeError, match="no such kernel"):
        fitted[1](10, RuntimeError("no such kernel")).predict(blobs[0])


def test_no_room_for_a_single_row_is_an_error(fitted, blobs):
    with (
        pytest.warns(UserWarning, match="smaller batches"),
        pytest.raises(torch.OutOfMemoryError),
    ):
        fitted[1](0).predict(blobs[0])


def test_a_run_warns_once_and_remembers(blobs, network):
    module = Hungry(network, 10)
    clf = Estimator(module, epochs=4, random_state=0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(*blobs, validation_data=blobs)

    assert len([one for one in caught if "smaller batches" in str(one.message)]) == 1
    # The first epoch finds out; the others begin with what has room.
    assert max(clf.module_.asked[-8:]) <= 10
    assert clf.history_["val_accuracy"][-1] == pytest.approx(
        Estimator(network, epochs=4, random_state=0)
        .fit(*blobs, validation_data=blobs)
        .history_["val_accuracy"][-1]
    )


class HungryInTraining(nn.Module):
    def __init__(self, network, most):
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x):
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x)


@pytest.mark.parametrize(("most", "fitting"), [(29, 15), (14, 7), (4, 3)])
def test_training_says_which_batch_size_fits(blobs, network, most, fitting):
    clf = Estimator(HungryInTraining(network, most), batch_size=-1, epochs=1)

    with pytest.raises(MemoryError, match=f"use batch_size={fitting}, with accumulate=") as caught:
        clf.fit(*blobs)

    assert "shape (30, 4)" in str(caught.value)
    clf.set_params(batch_size=fitting).fit(*blobs)


def test_training_says_when_nothing_fits(blobs):
    class Full(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 2:  # after the two passes that read what it returns
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    with pytest.raises(MemoryError, match="no smaller one fits either"):
        Estimator(Full(4, 3), epochs=1).fit(*blobs)
