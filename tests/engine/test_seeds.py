"""Every epoch is seeded by (seed, epoch): however a training is cut, it is the same training."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from easyclf import Estimator


class Noisy(nn.Module):
    """Draws in every forward pass of the training, and has buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.layers(x)


class NoisyRows(Dataset):
    """Draws whenever a row is read."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return torch.tensor(self.X[row]) + 0.1 * torch.randn(4), int(self.y[row])


class Stream(IterableDataset):
    def __init__(self, X, y):
        self.rows = NoisyRows(X, y)

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return (self.rows[row] for row in range(len(self.rows)))


def weights(clf):
    return {name: tensor.tolist() for name, tensor in clf.module_.state_dict().items()}


def history(clf):
    return {name: clf.history_[name].tolist() for name in ("loss", "accuracy")}


CLF = Estimator(Noisy, batch_size=7, lr=0.01, random_state=3)
CASES = {
    "arrays": lambda X, y: (X, y),
    "dataset": lambda X, y: (NoisyRows(X, y), None),
    "stream": lambda X, y: (Stream(X, y), None),
    "loader": lambda X, y: (DataLoader(NoisyRows(X, y), 7, shuffle=True), None),
}


@pytest.fixture(params=CASES)
def data(request, blobs):
    return request.param, CASES[request.param](*blobs)


def estimator(kind):
    clf = clone(CLF)
    return clf.set_params(batch_size="auto") if kind == "loader" else clf


def test_a_warm_start_goes_on_as_if_it_had_never_stopped(data):
    kind, rows = data
    whole = estimator(kind).fit(*rows, epochs=4)

    parts = estimator(kind).set_params(warm_start=True, epochs=2)
    parts.fit(*rows).fit(*rows)

    assert history(parts) == history(whole)
    assert weights(parts) == weights(whole)


def test_four_calls_of_partial_fit_are_four_epochs(data):
    kind, rows = data
    whole = estimator(kind).fit(*rows, epochs=4)

    parts = estimator(kind)
    for _ in range(4):
        parts.partial_fit(*rows, classes=[0, 1, 2])

    assert history(parts) == history(whole)
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_workers_draw_the_same_in_a_training_that_goes_on(blobs, kind, n_workers):
    rows = CASES[kind](*blobs)
    if kind == "stream" and n_workers > 1:
        pytest.skip("every worker would yield all rows of this stream")
    clf = estimator(kind).set_params(loader__num_workers=n_workers)
    whole = clone(clf).fit(*rows, epochs=4)

    parts = clf.set_params(warm_start=True, epochs=2).fit(*rows).fit(*rows)

    assert history(parts) == history(whole)
    assert weights(parts) == weights(whole)


def test_an_epoch_is_the_same_whatever_drew_before_it(blobs, random_states):
    """Callbacks, validation and the user's own code may draw: the next epoch is seeded anew."""
    from easyclf import LambdaCallback

    def draw(state):
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002

    before = random_states()
    plain = clone(CLF).fit(*blobs, epochs=3)
    drawing = clone(CLF).set_params(callbacks=[LambdaCallback(on_epoch_end=draw)])
    drawing.fit(*blobs, epochs=3, validation_data=blobs)

    assert weights(drawing) == weights(plain)
    assert random_states() == before
