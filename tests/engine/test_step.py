"""One step of the optimizer: whose gradient it goes down, and how far."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from easyclf import Estimator, LambdaCallback

WEIGHT = np.linspace(0.25, 3.0, 30)


def estimator(network, **parameters):
    """One step of plain gradient descent over all rows, in float64."""
    keywords = {
        "optimizer": "sgd",
        "lr": 0.1,
        "epochs": 1,
        "batch_size": -1,
        "shuffle": False,
        "precision": "float64",
        "random_state": 0,
    }
    return Estimator(network, **{**keywords, **parameters})


def gradients(network, blobs, weight):
    """Of the weighted mean loss, by autograd."""
    network = copy.deepcopy(network).double()
    outputs = network(torch.from_numpy(blobs[0]).double())
    losses = F.cross_entropy(outputs, torch.from_numpy(blobs[1]), reduction="none")
    weight = torch.as_tensor(weight)
    ((losses * weight).sum() / weight.sum()).backward()
    return [parameter.grad for parameter in network.parameters()]


def moved(clf, network):
    """How far a fit moved each weight."""
    return [
        new.detach() - old.detach().double()
        for new, old in zip(clf.module_.parameters(), network.parameters(), strict=True)
    ]


def assert_close(first, second, rtol=1e-12):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-15)


def weights(clf):
    return [parameter.detach() for parameter in clf.module_.parameters()]


def test_a_step_goes_down_the_gradient_of_the_mean_loss(blobs, network):
    clf = estimator(network).fit(*blobs)

    assert_close(moved(clf, network), [-0.1 * g for g in gradients(network, blobs, np.ones(30))])


def test_a_weighted_step_goes_down_the_gradient_of_the_weighted_mean(blobs, network):
    clf = estimator(network).fit(*blobs, WEIGHT)

    assert_close(moved(clf, network), [-0.1 * g for g in gradients(network, blobs, WEIGHT)])


def test_weights_of_classes_and_of_rows_multiply(blobs, network):
    per_class = {0: 0.5, 1: 2.0, 2: 3.0}

    clf = estimator(network, class_weight=per_class).fit(*blobs, WEIGHT)

    combined = WEIGHT * np.array([per_class[label] for label in blobs[1]])
    assert_close(moved(clf, network), [-0.1 * g for g in gradients(network, blobs, combined)])


@pytest.mark.parametrize("scale", [7.0, 1e-60, 1e60])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_scale_of_the_weights_does_not_matter(scale, precision, blobs, network):
    plain, scaled = (
        estimator(network, precision=precision).fit(*blobs, factor * WEIGHT)
        for factor in (1.0, scale)
    )

    assert_close(weights(plain), weights(scaled), rtol=1e-4 if precision == "float32" else 1e-9)
    assert scaled.history_["loss"][0] == pytest.approx(plain.history_["loss"][0], rel=1e-5)


def test_a_batch_of_rows_without_weight_moves_nothing(blobs, network):
    """The first class has weight 0, and the first batch has no other."""
    order = np.argsort(blobs[1], kind="stable")
    X, y = blobs[0][order], blobs[1][order]
    parameters = {"class_weight": {0: 0.0}, "batch_size": 10}

    clf = estimator(network, **parameters).fit(X, y)

    expected = estimator(network, **parameters, classes=[0, 1, 2]).fit(X[10:], y[10:])
    assert_close(weights(clf), weights(expected))
    assert clf.history_["loss"][0] == pytest.approx(expected.history_["loss"][0])


@pytest.mark.parametrize(
    "optimizer",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"optimizer": "lbfgs", "optimizer__max_iter": 4},
    ],
    ids=lambda optimizer: optimizer["optimizer"],
)
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 3), (4, 4), (7, 2), (5, 100)])
def test_accumulated_small_batches_are_one_large_batch(
    optimizer, weight, batch_size, accumulate, blobs, network
):
    """Also where the last batch is short, and the last group of batches too."""
    small, large = (
        estimator(network, **optimizer, lr=0.05, epochs=2, **sizes).fit(*blobs, weight)
        for sizes in (
            {"batch_size": batch_size, "accumulate": accumulate},
            {"batch_size": batch_size * accumulate},
        )
    )

    assert_close(weights(small), weights(large), rtol=1e-8)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(small.history_[name], large.history_[name], rtol=1e-10)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 3), (4, 2), (6, 1), (9, 1)])
def test_steps_are_counted(accumulate, steps, blobs, network):
    seen = []
    note = LambdaCallback(on_train_end=lambda state: seen.append(state.step))

    estimator(network, batch_size=5, accumulate=accumulate, callbacks=[note]).fit(*blobs)

    assert seen == [steps]


@pytest.mark.parametrize(("norm", "is_clipped"), [(0.01, True), (100.0, False)])
@pytest.mark.parametrize("sizes", [{}, {"batch_size": 7, "accumulate": 5}])
def test_a_gradient_is_clipped_by_its_norm(norm, is_clipped, sizes, blobs, network):
    clf = estimator(network, clip_grad_norm=norm, **sizes).fit(*blobs)

    plain = gradients(network, blobs, np.ones(30))
    length = torch.cat([gradient.flatten() for gradient in plain]).norm()
    factor = norm / (length + 1e-6) if is_clipped else 1.0
    assert (length > norm) == is_clipped
    assert_close(moved(clf, network), [-0.1 * factor * g for g in plain], rtol=1e-8)


def test_lbfgs_finds_the_minimum():
    """A linear model's loss has one minimum, which scikit-learn finds too."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (X.sum(1) + rng.normal(size=60) > 0).astype(int)
    expected = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(X, y)

    clf = estimator(
        nn.Linear(2, 1),
        optimizer="lbfgs",
        lr=1.0,
        epochs=5,
        optimizer__line_search_fn="strong_wolfe",
        optimizer__tolerance_change=0.0,
        optimizer__tolerance_grad=0.0,
    ).fit(X, y)

    np.testing.assert_allclose(clf.predict_proba(X), expected.predict_proba(X), atol=1e-7)


def test_weights_that_are_frozen_stay(blobs, network):
    network[0].requires_grad_(False)

    clf = estimator(network, optimizer="adamw", optimizer__weight_decay=0.5).fit(*blobs)

    first, second = clf.module_[0], clf.module_[2]
    assert torch.equal(first.weight, network[0].weight.double())
    assert not torch.equal(second.weight, network[2].weight.double())


class HandWritten(torch.optim.Optimizer):
    """Gradient descent as a textbook writes it."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad


def test_an_optimizer_may_be_hand_written(blobs, network):
    clf = estimator(network, optimizer=HandWritten).fit(*blobs)

    assert_close(moved(clf, network), [-0.1 * g for g in gradients(network, blobs, np.ones(30))])
