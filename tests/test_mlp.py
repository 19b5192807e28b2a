"""The default module, and how it standardizes columns."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from easyclf import MLP, Estimator

RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 2


def adapted(X, dtype=torch.float32):
    module = MLP(X.shape[1], 2).to(dtype)
    module.adapt([(torch.from_numpy(X), None)])
    return module


NARROW = {
    "seconds of a minute": 1.7e9 + 30 * LABELS + 5 * RNG.random(200),
    "large and 0 or 1": 1e9 + LABELS,
    "ids": 2.0**40 + 300 * LABELS + RNG.integers(0, 99, 200),
    "near the end of float64": 2.0**50 + LABELS,
}
CONTAINERS = {
    "array": lambda X, y: (X, y),
    "integers": lambda X, y: (X[:, 1:].round().astype(np.int64), y),
    "frame": lambda X, y: (pd.DataFrame(X, columns=["a", "b"]), y),
    "frame with a category": lambda X, y: (pd.DataFrame({"a": ["p", "q"] * 100, "b": X[:, 1]}), y),
    "sparse": lambda X, y: (sp.csr_array(X), y),
    "images": lambda X, y: (np.repeat(X, 8, axis=1).reshape(200, 4, 4), y),
    "dataset": lambda X, y: (TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None),
    "loader": lambda X, y: (DataLoader(CONTAINERS["dataset"](X, y)[0], 50), None),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("column", NARROW)
def test_columns_that_float32_cannot_hold_are_learned(column, container):
    X, y = CONTAINERS[container](np.column_stack([RNG.normal(size=200), NARROW[column]]), LABELS)

    clf = Estimator(epochs=10, lr=0.03, random_state=0).fit(X, y)

    assert clf.score(X, y) > 0.97


def test_columns_of_a_file_that_float32_cannot_hold_are_learned(tmp_path, monkeypatch):
    monkeypatch.setattr("easyclf.data.memmap.LARGE", 0)
    X = np.memmap(tmp_path / "X", np.float64, "w+", shape=(200, 1))
    X[:, 0] = NARROW["ids"]

    clf = Estimator(epochs=40, lr=0.01, random_state=0).fit(X, LABELS)

    assert clf.score(X, LABELS) == 1.0


def test_rows_are_centred_alike_in_validation_and_after_pickling_and_a_state_dict():
    X = NARROW["ids"][:, None]
    clf = Estimator(epochs=40, lr=0.01, random_state=0).fit(X, LABELS, validation_data=(X, LABELS))

    again = pickle.loads(pickle.dumps(clf))
    module = MLP(1, 2)
    module.load_state_dict(clf.module_.state_dict())

    assert clf.history_["val_accuracy"][-1] == 1.0
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    centred = torch.from_numpy(X - module.centre.double().sum(0).numpy()).float()
    answers = module(centred).softmax(1).detach().numpy()
    np.testing.assert_allclose(answers, clf.predict_proba(X), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_preprocess_gets_rows_as_they_are(dtype):
    """Its answers are centred, with the centre of the rows that it made."""
    X = (2.0**40 + 300 * LABELS + RNG.integers(0, 99, 200))[:, None].astype(dtype)
    seen = []

    def preprocess(x):
        seen.append(x[0, 0].item())
        return x

    clf = Estimator(epochs=40, lr=0.01, random_state=0, preprocess=preprocess).fit(X, LABELS)

    assert clf.score(X, LABELS) == 1.0
    assert min(seen) >= 2**40


def test_columns_that_float32_holds_are_not_centred():
    X = np.column_stack([RNG.normal(size=200), np.ones(200), 2000 + RNG.normal(size=200) * 5])

    clf = Estimator(epochs=1).fit(X, LABELS)

    assert not clf.module_.centre.any()
    assert clf._fitted.input_format.centre is None


def test_no_warning_is_given_of_columns_that_are_centred():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Estimator(epochs=1).fit(NARROW["ids"][:, None], LABELS)


@pytest.mark.parametrize(
    "column",
    [np.full(200, 0.1) + 1e-17 * LABELS, np.full(200, 3.0), np.zeros(200), 1e6 + LABELS],
    ids=["rounding", "constant", "zero", "told apart"],
)
def test_columns_that_are_constant_or_told_apart_are_not_warned_about(column):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted(column[:, None])


def test_a_column_too_small_to_be_scaled_is_named():
    X = np.column_stack([RNG.normal(size=200), 1e-40 * RNG.normal(size=200)])

    with pytest.raises(ValueError, match=r"Column 1 of X has a deviation of .*float32 to scale"):
        Estimator(epochs=1).fit(X, LABELS)
    assert np.isfinite(
        Estimator(epochs=1, precision="float64").fit(X, LABELS).history_["loss"]
    ).all()


def blobs(n_rows=400):
    """Columns of scales far from 1, of which the first decides."""
    X = np.random.default_rng(1).normal(size=(n_rows, 2)) * [1e4, 1e-3] + [3.0, 5.0]
    return X, (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("n_first", [0, 1, 2, 5, 40])
def test_statistics_follow_from_one_partial_fit_to_the_next(n_first):
    X, y = blobs()
    clf = Estimator(lr=0.01, random_state=0)
    if n_first:
        clf.partial_fit(X[:n_first], y[:n_first], classes=[0, 1])

    for _ in range(10):
        clf.partial_fit(X, y, classes=[0, 1])

    assert clf.score(X, y) > 0.98
    np.testing.assert_allclose(clf.module_.inverse_scale.numpy(), 1 / X.std(0), rtol=0.01)


def test_statistics_are_those_of_all_rows_with_their_weights():
    X, y = blobs()
    w = np.random.default_rng(2).integers(1, 4, len(X)).astype(float)
    w[[0, 100, 200, 300]] = 4.0  # each part is scaled by its greatest weight
    clf = Estimator(random_state=0)
    for part in np.split(np.arange(len(X)), 4):
        clf.partial_fit(X[part], y[part], classes=[0, 1], sample_weight=w[part])

    mean = np.average(X, axis=0, weights=w)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
    np.testing.assert_allclose(1 / clf.module_.inverse_scale.numpy(), scale, rtol=1e-5)
    columns = clf.module_._columns
    np.testing.assert_allclose(columns.mean.numpy(), mean, rtol=1e-9)


@pytest.mark.parametrize("hidden", [(), (8, 4)])
@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"),
    [(torch.float64, 0.0, 1e-9), (torch.float32, 1.7e9, 5e-3)],
    ids=["float64", "centred"],
)
def test_the_module_computes_what_it_did_when_its_statistics_follow(
    hidden, dtype, offset, tolerance
):
    rows = torch.from_numpy(blobs()[0] + [offset, 0.0])
    module = MLP(2, 3, hidden=hidden).to(dtype)

    def outputs():
        return module((rows - module.centre.double().sum(0)).to(dtype))

    module.adapt([(rows[:40], None)])
    before, scale = outputs(), module.inverse_scale.clone()
    middle = torch.tensor([offset, 5.0], dtype=torch.float64)
    module.adapt([(middle + 3 * (rows[40:] - middle), None)])

    assert not torch.allclose(module.inverse_scale, scale, rtol=0.5)
    torch.testing.assert_close(outputs(), before, rtol=tolerance, atol=tolerance)


def test_weights_that_a_few_rows_have_taught_are_not_blown_up():
    """A scale of two equal rows is none; kept weights would be a million times too large."""
    X, _ = blobs()
    module = MLP(2, 2)
    module.adapt([(torch.from_numpy(X[:1]), None)])
    before = module.layers[0].weight.clone()

    module.adapt([(torch.from_numpy(X), None)])

    assert torch.equal(module.layers[0].weight, before)


def test_the_same_rows_again_change_no_digit():
    X, y = blobs()
    whole = Estimator(random_state=0).fit(X, y, epochs=4)

    parts = Estimator(random_state=0)
    for _ in range(4):
        parts.partial_fit(X, y, classes=[0, 1])

    for name, values in whole.module_.state_dict().items():
        assert torch.equal(parts.module_.state_dict()[name], values), name


def test_a_warm_start_keeps_the_statistics():
    X, y = blobs()
    clf = Estimator(random_state=0, epochs=1, warm_start=True).fit(X, y)
    scale = clf.module_.inverse_scale.clone()

    assert torch.equal(clf.fit(3 * X, y).module_.inverse_scale, scale)


class OwnForward(MLP):
    """The default module with something of its own between the columns and the layers."""

    def forward(self, x):
        return super().forward(x.abs())


@pytest.mark.parametrize(
    "clf",
    [Estimator(freeze="layers.0"), Estimator(OwnForward)],
    ids=["frozen", "another forward"],
)
def test_statistics_stay_where_the_first_layer_cannot_change(clf):
    X, y = blobs()
    clf = clone(clf).partial_fit(X[:40], y[:40], classes=[0, 1])
    before = {name: tensor.clone() for name, tensor in clf.module_.state_dict().items()}

    clf.partial_fit(5 * X, y)

    after = clf.module_.state_dict()
    assert torch.equal(after["inverse_scale"], before["inverse_scale"])
    assert torch.equal(after["shift"], before["shift"])


class Once(IterableDataset):
    def __init__(self, X, y):
        self.rows = iter(list(zip(torch.from_numpy(X), y.tolist(), strict=True)))

    def __iter__(self):
        return self.rows


def test_a_stream_that_can_be_read_once_is_not_read_for_statistics():
    X, y = blobs()
    clf = Estimator(random_state=0).partial_fit(X, y, classes=[0, 1])

    clf.partial_fit(Once(X, y))

    assert clf.n_iter_ == 2


def test_columns_in_which_different_values_become_one_are_named():
    class Net(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)

    X = np.column_stack([RNG.normal(size=200), NARROW["ids"]])

    with pytest.warns(UserWarning, match=r"Column 1 of X has .* of which float32 makes 1\. Subt"):
        Estimator(Net, epochs=1).fit(X, LABELS)
