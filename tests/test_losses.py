"""Losses by name, class, instance and callable; their weights, and their saturated logs."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import Estimator
from easyclf.losses import log_softmax, softmax

X = np.array([[0, 1], [1, 0], [2, 1], [1, 2], [-1, 1], [0.5, -2]], dtype=np.float32)
THREE = np.array([0, 1, 2, 2, 1, 0])
TWO = np.array([0, 1, 1, 0, 1, 0])
LABELS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
WEIGHT = np.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.5])


def linear(n_outputs, scale=1.0):
    """A layer for `X` whose weights are the same in every test."""
    layer = nn.Linear(2, n_outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-scale, scale, 2 * n_outputs).reshape(n_outputs, 2))
        layer.bias.copy_(torch.linspace(-0.5, 0.5, n_outputs))
    return layer


def one_step(module, y, sample_weight=None, **parameters):
    """An estimator after one step of plain gradient descent on all rows."""
    settings = {"optimizer": "sgd", "lr": 0.5, "epochs": 1, "batch_size": -1}
    return Estimator(module, **(settings | parameters)).fit(X, y, sample_weight)


def assert_took_step(clf, n_outputs, value_of):
    """One step was taken from `linear(n_outputs)` down the gradient of the value."""
    start = linear(n_outputs)
    value = value_of(start(torch.from_numpy(X)))
    value.backward()

    assert clf.history_["loss"] == pytest.approx([value.item()], rel=1e-5)
    torch.testing.assert_close(clf.module_.weight, start.weight - 0.5 * start.weight.grad)
    torch.testing.assert_close(clf.module_.bias, start.bias - 0.5 * start.bias.grad)


def weighted_mean(losses, weights):
    weights = torch.as_tensor(weights, dtype=losses.dtype)
    return (losses * weights).sum() / weights.sum()


# Weights of rows and of classes


@pytest.mark.parametrize(
    ("n_outputs", "y", "losses"),
    [
        pytest.param(
            3,
            THREE,
            lambda o: F.cross_entropy(o, torch.from_numpy(THREE), reduction="none"),
            id="classes",
        ),
        pytest.param(
            1,
            TWO,
            lambda o: F.binary_cross_entropy_with_logits(
                o[:, 0], torch.from_numpy(TWO).float(), reduction="none"
            ),
            id="binary",
        ),
        pytest.param(
            3,
            LABELS,
            lambda o: F.binary_cross_entropy_with_logits(
                o, torch.from_numpy(LABELS).float(), reduction="none"
            ).mean(1),
            id="labels",
        ),
    ],
)
def test_weighted_loss_is_the_weighted_mean(n_outputs, y, losses):
    clf = one_step(linear(n_outputs), y, WEIGHT)

    assert_took_step(clf, n_outputs, lambda outputs: weighted_mean(losses(outputs), WEIGHT))


@pytest.mark.parametrize("batch_size", [2, 4, -1])
def test_loss_of_an_epoch_is_exact_over_all_rows(batch_size):
    """Also where the last batch is short, and where batches weigh differently."""
    with torch.no_grad():
        outputs = linear(3)(torch.from_numpy(X))
        losses = F.cross_entropy(outputs, torch.from_numpy(THREE), reduction="none")

    clf = one_step(linear(3), THREE, WEIGHT, batch_size=batch_size, lr=1e-12)
    plain = one_step(linear(3), THREE, batch_size=batch_size, lr=1e-12)

    assert clf.history_["loss"][0] == pytest.approx(weighted_mean(losses, WEIGHT).item(), rel=1e-6)
    assert plain.history_["loss"][0] == pytest.approx(losses.mean().item(), rel=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_row_of_weight_zero_is_as_if_it_were_not_there(n_outputs):
    counted = np.flatnonzero(WEIGHT)

    weighted = one_step(linear(n_outputs), TWO, WEIGHT, epochs=3)
    without = Estimator(linear(n_outputs), optimizer="sgd", lr=0.5, epochs=3, batch_size=-1).fit(
        X[counted], TWO[counted], WEIGHT[counted]
    )

    np.testing.assert_allclose(weighted.predict_proba(X), without.predict_proba(X), rtol=1e-6)


def test_whole_weights_train_as_repeated_rows_do():
    times = np.array([1, 3, 2, 1, 0, 2])

    weighted = one_step(linear(3), THREE, times, epochs=3)
    repeated = Estimator(linear(3), optimizer="sgd", lr=0.5, epochs=3, batch_size=-1).fit(
        X.repeat(times, axis=0), THREE.repeat(times)
    )

    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_class_weight_weighs_rows_by_their_class(n_outputs):
    of_class = one_step(linear(n_outputs), TWO, class_weight={0: 1.0, 1: 4.0}, epochs=3)
    of_rows = one_step(linear(n_outputs), TWO, np.where(TWO == 1, 4.0, 1.0), epochs=3)

    np.testing.assert_allclose(of_class.predict_proba(X), of_rows.predict_proba(X), rtol=1e-6)


def test_class_weight_and_sample_weight_multiply():
    of_class = np.array([1.0, 4.0, 2.0])

    both = one_step(linear(3), THREE, WEIGHT, class_weight={1: 4.0, 2: 2.0})
    product = one_step(linear(3), THREE, WEIGHT * of_class[THREE])

    np.testing.assert_allclose(both.predict_proba(X), product.predict_proba(X), rtol=1e-6)


def test_batch_of_classes_without_weight_changes_nothing():
    start = linear(2)

    clf = Estimator(start, class_weight={0: 0.0}, optimizer="sgd", batch_size=1, epochs=1)
    clf.fit(X[[0, 1, 3, 5]], TWO[[0, 1, 3, 5]])

    with torch.no_grad():
        expected = F.cross_entropy(start(torch.from_numpy(X[[1]])), torch.tensor([1]))
    assert clf.history_["loss"] == pytest.approx([expected.item()], rel=1e-3)


# torch's own losses, with their own parameters


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"weight": torch.tensor([1.0, 4.0, 0.5])}, id="weight"),
        pytest.param({"weight": torch.tensor([1.0, 0.0, 0.5])}, id="weight of zero"),
        pytest.param({"label_smoothing": 0.2}, id="label_smoothing"),
        pytest.param({"ignore_index": 1}, id="ignore_index"),
        pytest.param(
            {"weight": torch.tensor([1.0, 4.0, 0.5]), "label_smoothing": 0.2},
            id="weight, label_smoothing",
        ),
        pytest.param(
            {"weight": torch.tensor([1.0, 4.0, 0.5]), "ignore_index": 2}, id="weight, ignore_index"
        ),
        pytest.param({"label_smoothing": 0.2, "ignore_index": 0}, id="smoothing, ignore_index"),
    ],
)
def test_cross_entropy_is_normalized_as_torch_normalizes_it(settings):
    loss = nn.CrossEntropyLoss(**settings)

    clf = one_step(linear(3), THREE, loss=loss)

    assert_took_step(clf, 3, lambda outputs: loss(outputs, torch.from_numpy(THREE)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_weights_of_classes_also_takes_weights_of_rows(smoothing):
    of_class = torch.tensor([1.0, 4.0, 0.5])
    settings = {"weight": of_class, "label_smoothing": smoothing}

    clf = one_step(linear(3), THREE, WEIGHT, loss=nn.CrossEntropyLoss(**settings))

    def value(outputs):
        y, rows = torch.from_numpy(THREE), torch.from_numpy(WEIGHT).float()
        losses = F.cross_entropy(outputs, y, reduction="none", **settings)
        return (rows * losses).sum() / (rows * of_class[y]).sum()

    assert_took_step(clf, 3, value)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("weights", "precision"), [(torch.float64, "float32"), (torch.float32, "float64")]
)
def test_weights_of_a_loss_may_have_another_dtype_than_the_module(smoothing, weights, precision):
    """NumPy's numbers become float64 tensors: nobody should have to care."""
    of_class = torch.tensor([1.0, 4.0, 0.5], dtype=weights)

    clf = one_step(
        linear(3),
        THREE,
        loss="cross_entropy",
        loss__weight=of_class,
        loss__label_smoothing=smoothing,
        precision=precision,
    )

    with torch.no_grad():
        expected = F.cross_entropy(
            linear(3)(torch.from_numpy(X)).double(),
            torch.from_numpy(THREE),
            weight=of_class.double(),
            label_smoothing=smoothing,
        )
    assert clf.history_["loss"] == pytest.approx([expected.item()], rel=1e-5)


@pytest.mark.parametrize("end", [nn.LogSoftmax(1), nn.Softmax(1)])
def test_nll_with_weights_is_normalized_as_torch_normalizes_it(end):
    of_class = torch.tensor([1.0, 4.0, 0.5])

    clf = one_step(nn.Sequential(linear(3), end), THREE, loss="nll", loss__weight=of_class)

    with torch.no_grad():
        outputs = linear(3)(torch.from_numpy(X)).log_softmax(1)
        expected = F.nll_loss(outputs, torch.from_numpy(THREE), weight=of_class)
    assert clf.history_["loss"] == pytest.approx([expected.item()], rel=1e-5)


def test_weights_of_the_wrong_number_are_refused():
    loss = nn.CrossEntropyLoss(weight=torch.ones(2))

    with pytest.raises(ValueError, match=r"CrossEntropyLoss .*shape \(2,\).*shape \(3,\)"):
        one_step(linear(3), THREE, loss=loss)


@pytest.mark.parametrize(
    ("n_outputs", "y", "pos_weight"),
    [
        pytest.param(1, TWO, torch.tensor([3.0]), id="binary"),
        pytest.param(3, LABELS, torch.tensor([3.0, 0.5, 2.0]), id="labels"),
        pytest.param(3, np.tri(3, dtype=int)[THREE], torch.tensor([3.0, 0.5, 2.0]), id="triangle"),
    ],
)
def test_bce_with_pos_weight_is_that_of_torch(n_outputs, y, pos_weight):
    loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    targets = torch.from_numpy(y).float().reshape(len(X), n_outputs)

    clf = one_step(linear(n_outputs), y, loss=loss)

    assert_took_step(clf, n_outputs, lambda outputs: loss(outputs, targets))


def test_bce_with_pos_weight_weighs_each_class_of_one_vs_rest():
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 0.5, 2.0]))

    clf = one_step(linear(3), THREE, loss=loss)

    assert_took_step(clf, 3, lambda outputs: loss(outputs, torch.eye(3)[THREE]))


def test_parameters_of_the_loss_are_forwarded():
    clf = one_step(linear(3), THREE, loss="cross_entropy", loss__label_smoothing=0.3)

    y = torch.from_numpy(THREE)
    assert_took_step(clf, 3, lambda outputs: F.cross_entropy(outputs, y, label_smoothing=0.3))


def test_weights_of_labels_reach_the_loss_that_auto_takes():
    pos_weight = torch.tensor([3.0, 0.5, 2.0])

    clf = one_step(linear(3), LABELS, loss__pos_weight=pos_weight)

    loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    assert_took_step(clf, 3, lambda outputs: loss(outputs, torch.from_numpy(LABELS).float()))


def test_parameters_of_the_loss_reach_the_one_that_auto_takes():
    auto = one_step(linear(3), THREE, loss__label_smoothing=0.3)
    named = one_step(linear(3), THREE, loss="cross_entropy", loss__label_smoothing=0.3)

    assert auto.history_["loss"].tolist() == named.history_["loss"].tolist()


@pytest.mark.parametrize("loss", ["auto", "cross_entropy", nn.CrossEntropyLoss])
def test_parameter_that_the_loss_does_not_take_is_refused_with_the_nearest(loss):
    with pytest.raises(
        TypeError, match=r"loss__label_smothing.*did you mean `loss__label_smoothing"
    ):
        one_step(linear(3), THREE, loss=loss, loss__label_smothing=0.3)


def test_parameter_of_a_finished_loss_is_refused():
    with pytest.raises(TypeError, match=r"loss__label_smoothing.*finished CrossEntropyLoss.*class"):
        one_step(linear(3), THREE, loss=nn.CrossEntropyLoss(), loss__label_smoothing=0.3)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_reduction_that_the_user_asked_for_changes_nothing(reduction):
    clf = one_step(linear(3), THREE, WEIGHT, loss=nn.CrossEntropyLoss(reduction=reduction))

    y = torch.from_numpy(THREE)
    assert_took_step(
        clf,
        3,
        lambda outputs: weighted_mean(F.cross_entropy(outputs, y, reduction="none"), WEIGHT),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": nn.CrossEntropyLoss(reduction="sum")},
        {"loss": "cross_entropy", "loss__reduction": "sum"},
    ],
)
def test_sum_over_rows_is_refused(parameters):
    with pytest.raises(ValueError, match=r"CrossEntropyLoss.*reduction='sum'.*averaged"):
        one_step(linear(3), THREE, **parameters)


def test_loss_of_the_user_is_not_changed():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0, 0.5]))

    one_step(linear(3), THREE, loss=loss)

    assert loss.reduction == "mean"
    assert loss.weight.tolist() == [1.0, 4.0, 0.5]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("cross_entorpy", "cross_entropy"), ("bce_with_logit", "bce_with_logits"), ("nl", "nll")],
)
def test_unknown_name_is_refused_with_the_nearest(typed, nearest):
    with pytest.raises(ValueError, match=f"`loss` '{typed}'.*did you mean.*`{nearest}`"):
        one_step(linear(3), THREE, loss=typed)


def test_unknown_name_without_a_near_one_is_refused_with_all():
    with pytest.raises(ValueError, match=r"'focal'.*cross_entropy.*nll.*bce_with_logits.*callable"):
        one_step(linear(3), THREE, loss="focal")


# Callables


def focal(outputs, targets):
    """One value a row, as a user would write it."""
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-losses).exp()) ** 2 * losses


class Focal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, outputs, targets):
        losses = F.cross_entropy(outputs, targets, reduction="none")
        return (1 - (-losses).exp()) ** self.gamma * losses


def mean_focal(outputs, targets):
    return focal(outputs, targets).mean()


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": focal},
        {"loss": mean_focal},
        {"loss": Focal},
        {"loss": Focal()},
        {"loss": Focal, "loss__gamma": 2.0},
        {"loss": lambda outputs, targets: focal(outputs, targets)},
    ],
    ids=["rows", "scalar", "class", "instance", "forwarded", "lambda"],
)
def test_loss_of_ones_own_trains(parameters):
    clf = one_step(linear(3), THREE, **parameters)

    assert_took_step(clf, 3, lambda outputs: mean_focal(outputs, torch.from_numpy(THREE)))
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("loss", [focal, Focal, Focal()])
def test_loss_of_ones_own_that_gives_one_value_a_row_carries_weights(loss):
    clf = one_step(linear(3), THREE, WEIGHT, loss=loss)

    y = torch.from_numpy(THREE)
    assert_took_step(clf, 3, lambda outputs: weighted_mean(focal(outputs, y), WEIGHT))


@pytest.mark.parametrize(
    "loss", [mean_focal, functools.partial(F.cross_entropy, label_smoothing=0.1)]
)
@pytest.mark.parametrize(
    ("fit", "parameters"),
    [
        ({"sample_weight": WEIGHT}, {}),
        ({}, {"class_weight": {0: 2.0}}),
        ({}, {"class_weight": "balanced"}),
        ({"validation_data": (X, THREE, WEIGHT)}, {}),
    ],
    ids=["sample_weight", "class_weight", "balanced", "validation"],
)
def test_scalar_loss_is_refused_with_weights(loss, fit, parameters):
    clf = Estimator(linear(3), loss=loss, epochs=1, **parameters)

    with pytest.raises(ValueError, match=r"`loss` .*one scalar.*weight.*one value for each row"):
        clf.fit(X, THREE, **fit)


def test_function_of_torch_is_the_loss_of_that_name():
    """As tutorials write it: with one value for each row, so with weights too."""
    named = one_step(linear(3), THREE, loss="cross_entropy", class_weight={0: 2.0})

    clf = one_step(linear(3), THREE, loss=F.cross_entropy, class_weight={0: 2.0})

    assert np.array_equal(clf.predict_proba(X), named.predict_proba(X))


@pytest.mark.parametrize("batch_size", [4, 5])
def test_scalar_loss_of_an_epoch_counts_every_row_once(batch_size):
    with torch.no_grad():
        expected = F.cross_entropy(linear(3)(torch.from_numpy(X)), torch.from_numpy(THREE))

    clf = one_step(linear(3), THREE, loss=F.cross_entropy, batch_size=batch_size, lr=1e-12)

    assert clf.history_["loss"] == pytest.approx([expected.item()], rel=1e-6)


@pytest.mark.parametrize("end", [nn.Identity(), nn.Flatten(0)], ids=["column", "flat"])
def test_loss_of_one_column_is_given_targets_of_its_shape_and_dtype(end):
    seen = []

    def squared(outputs, targets):
        seen.append((outputs.shape == targets.shape, outputs.dtype == targets.dtype))
        return (outputs.sigmoid() - targets) ** 2

    one_step(nn.Sequential(linear(1), end), TWO, loss=squared)

    assert set(seen) == {(True, True)}


def test_loss_of_labels_is_averaged_over_them():
    def squared(outputs, targets):
        return (outputs.sigmoid() - targets) ** 2

    clf = one_step(linear(3), LABELS, WEIGHT, loss=squared)

    y = torch.from_numpy(LABELS)
    assert_took_step(clf, 3, lambda outputs: weighted_mean(squared(outputs, y).mean(1), WEIGHT))


@pytest.mark.filterwarnings("ignore:Using a target size")  # as users may have it
@pytest.mark.parametrize("loss", [nn.MSELoss, nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss()])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_loss_that_would_stretch_targets_over_columns_is_refused(loss, n_classes):
    """With as many classes as rows torch would only warn."""
    with pytest.raises(ValueError, match=r"`loss` .*L(oss|1Loss).* failed on outputs \(.*targets"):
        Estimator(linear(n_classes), loss=loss).fit(np.tile(X, (2, 1)), np.arange(12) % n_classes)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_mean_squared_error_trains_where_targets_have_the_shape_of_the_outputs(n_outputs):
    y = TWO if n_outputs == 1 else LABELS
    targets = torch.from_numpy(y).float().reshape(len(X), n_outputs)

    clf = one_step(linear(n_outputs), y, loss=nn.MSELoss())

    assert_took_step(clf, n_outputs, lambda outputs: F.mse_loss(outputs, targets))


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_loss_of_one_value_a_class_is_refused(n_classes):
    def of_classes(outputs, targets):
        return (outputs.softmax(1) - F.one_hot(targets, n_classes)).square().mean(0)

    with pytest.raises(ValueError, match=r"of_classes.*one value for each row"):
        Estimator(linear(n_classes), loss=of_classes).fit(
            np.tile(X, (2, 1)), np.arange(12) % n_classes
        )


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda o, y: F.cross_entropy(o, y).item(), TypeError, "returned a float.*tensor"),
        (lambda o, y: None, TypeError, "returned a NoneType"),
        (lambda o, y: F.cross_entropy(o, y).detach(), ValueError, "not differentiable.*detach"),
        (lambda o, y: (o.argmax(1) != y).float(), ValueError, "not differentiable.*argmax"),
        (lambda o, y: o @ y, ValueError, r"failed on outputs \(\d, 3\) and targets \(\d,\)"),
    ],
    ids=["float", "None", "detached", "argmax", "wrong shapes"],
)
def test_callable_that_is_no_loss_is_refused(loss, error, message):
    with pytest.raises(error, match=f"`loss` .*lambda.*{message}"):
        one_step(linear(3), THREE, loss=loss)


# Saturated probabilities


@pytest.mark.parametrize(
    ("n_outputs", "end", "y"),
    [
        pytest.param(3, nn.Softmax(1), THREE, id="softmax"),
        pytest.param(3, lambda x: x.softmax(1).clamp(0, 1), THREE, id="clamped softmax"),
        pytest.param(1, nn.Sigmoid(), TWO, id="sigmoid"),
        pytest.param(3, nn.Sigmoid(), LABELS, id="sigmoids"),
    ],
)
def test_saturated_probabilities_have_finite_losses_and_gradients(n_outputs, end, y):
    class Saturated(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear(n_outputs, scale=1000.0)

        def forward(self, x):
            return end(self.linear(x))

    clf = one_step(Saturated(), y)

    assert 10 < clf.history_["loss"][0] <= 100
    assert all(parameter.isfinite().all() for parameter in clf.module_.parameters())
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_logs_of_zero_are_those_of_the_binary_loss_of_torch(precision):
    sure = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        sure.weight.copy_(torch.tensor([[1e4], [-1e4]]))
    wrong = np.array([[-1.0], [1.0]])
    module = nn.Sequential(sure, nn.Softmax(1))

    clf = Estimator(module, epochs=1, precision=precision).fit(wrong, [0, 1])

    assert clf.history_["loss"].tolist() == [100.0]


@pytest.mark.parametrize("n_rows", [3, 64, 500])
@pytest.mark.parametrize("n_columns", [1, 2, 9, 15, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_down_the_columns_is_that_along_the_rows(n_rows, n_columns, dtype):
    outputs = (5 * torch.randn(n_rows, n_columns, dtype=dtype)).requires_grad_()
    upstream = torch.randn(n_rows, n_columns, dtype=dtype)

    for ours, theirs in ((log_softmax, torch.log_softmax), (softmax, torch.softmax)):
        torch.testing.assert_close(ours(outputs), theirs(outputs, 1))
        (gradient,) = torch.autograd.grad(ours(outputs), outputs, upstream)
        (expected,) = torch.autograd.grad(theirs(outputs, 1), outputs, upstream)
        torch.testing.assert_close(gradient, expected)


def with_inputs(output, target, x):
    return nn.functional.cross_entropy(output, target, reduction="none") + x.square().mean(1)


def with_weights(output, target, *, module):
    penalty = sum(weight.square().sum() for weight in module.parameters())
    return nn.functional.cross_entropy(output, target) + 0.1 * penalty


class WithBoth(nn.Module):
    def forward(self, output, target, module=None, x=None):
        assert x.shape[1] == module.in_features
        return nn.functional.cross_entropy(output, target, reduction="none")


@pytest.mark.parametrize("compile_", ["auto", False])
def test_a_loss_is_given_the_inputs_if_it_names_them(compile_, blobs):
    X, y = blobs
    settings = {"epochs": 30, "precision": "float64", "compile": compile_, "random_state": 0}
    module = nn.Linear(4, 3)
    weight = np.arange(30) % 3

    found = Estimator(module, loss=with_inputs, **settings).fit(X, y, weight)
    plain = Estimator(module, **settings).fit(X, y, weight)

    more = np.average((X.astype(float) ** 2).mean(1), weights=weight)
    assert found.history_["loss"] == pytest.approx(plain.history_["loss"] + more, rel=1e-6)


@pytest.mark.parametrize("compile_", ["auto", False])
def test_a_loss_is_given_the_module_if_it_names_it(compile_, blobs):
    settings = {"epochs": 60, "lr": 0.1, "compile": compile_, "random_state": 0}

    small = Estimator(nn.Linear(4, 3), loss=with_weights, **settings).fit(*blobs)
    plain = Estimator(nn.Linear(4, 3), **settings).fit(*blobs)

    assert small.module_.weight.norm() < 0.5 * plain.module_.weight.norm()
    assert small.evaluate(*blobs)["loss"] > small.history_[-1, "loss"] / 2


def test_a_loss_that_is_a_module_is_given_both(blobs):
    clf = Estimator(nn.Linear(4, 3), loss=WithBoth, epochs=2, random_state=0).fit(*blobs)

    plain = Estimator(nn.Linear(4, 3), epochs=2, random_state=0)
    assert clf.n_iter_ == 2
    assert plain.loss == "auto"


def test_names_of_outputs_and_targets_are_no_wish(blobs):
    def loss(x, module):
        return nn.functional.cross_entropy(x, module)

    assert Estimator(nn.Linear(4, 3), loss=loss, epochs=2).fit(*blobs).n_iter_ == 2


@pytest.mark.parametrize(
    "loss",
    [
        lambda y_true, y_pred: nn.functional.cross_entropy(y_pred, y_true),
        lambda output: output.sum(),
        lambda output, target, margin: nn.functional.cross_entropy(output, target),
        lambda output, target, *, margin: nn.functional.cross_entropy(output, target),
    ],
    ids=["as in Keras", "one argument", "a third", "a third by name"],
)
def test_a_loss_that_cannot_be_called_with_outputs_and_targets_is_refused(loss, blobs):
    with pytest.raises(
        TypeError, match=r"takes \(.*\); it is given \(output, target\), in this order"
    ):
        Estimator(nn.Linear(4, 3), loss=loss).fit(*blobs)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y_pred, y_true: nn.functional.cross_entropy(y_pred, y_true),
        lambda *given: nn.functional.cross_entropy(*given),
        lambda output, target, margin=1.0: nn.functional.cross_entropy(output, target),
        functools.partial(nn.functional.cross_entropy, label_smoothing=0.1),
        lambda output, target, **rest: nn.functional.cross_entropy(output, target),
    ],
    ids=["as in skorch", "any", "a default", "a partial", "any names"],
)
def test_a_loss_of_two_arguments_may_take_more(loss, blobs):
    Estimator(nn.Linear(4, 3), loss=loss, epochs=1).fit(*blobs)
