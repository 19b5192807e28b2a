"""Precision: the dtype of weights, inputs and outputs, autocast, and scaled gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import Estimator
from easyclf.precision import ScaledPrecision, resolve_precision

CPU = torch.device("cpu")
X = np.array([[0, 1], [1, 0], [2, 1], [1, 2], [-1, 1], [0.5, -2]])
Y = np.array([0, 1, 2, 2, 1, 0])


class Watched(nn.Module):
    """Notes the dtypes of its input, its weight and its output."""

    def __init__(self, in_features=2, out_features=3):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.seen = []

    def forward(self, x):
        output = self.linear(x)
        self.seen.append((x.dtype, self.linear.weight.dtype, output.dtype))
        return output


def fit(module, precision, **parameters):
    settings = {"optimizer": "sgd", "lr": 0.5, "epochs": 3, "batch_size": -1}
    return Estimator(module, precision=precision, **(settings | parameters)).fit(X, Y)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_everything_has_the_dtype_of_full_precision(precision):
    dtype = getattr(torch, precision)

    clf = fit(Watched(), precision)
    proba = clf.predict_proba(X)

    assert set(clf.module_.seen) == {(dtype, dtype, dtype)}
    assert proba.dtype == np.dtype(precision)
    assert {p.dtype for p in clf.module_.parameters()} == {dtype}


def test_mixed_precision_keeps_weights_and_answers_in_float32():
    mixed = (torch.float32, torch.float32, torch.bfloat16)

    clf = fit(Watched(), "bf16", epochs=3)
    in_training = clf.module_.seen.copy()
    clf.module_.seen.clear()
    proba = clf.predict_proba(X)

    assert in_training.count(mixed) >= 3
    assert set(clf.module_.seen) == {mixed}
    assert {p.dtype for p in clf.module_.parameters()} == {torch.float32}
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_double_precision_is_the_loop_written_by_hand():
    byhand = nn.Linear(2, 3).double()
    template = nn.Linear(2, 3)
    template.load_state_dict(byhand.state_dict())
    byhand.load_state_dict(template.state_dict())
    optimizer = torch.optim.SGD(byhand.parameters(), lr=0.5)

    clf = fit(template, "float64")
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(byhand(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()

    torch.testing.assert_close(clf.module_.weight, byhand.weight, rtol=1e-12, atol=1e-14)


def test_mixed_precision_learns_what_full_precision_learns():
    template = nn.Linear(2, 3)

    mixed, full = (fit(template, precision, epochs=20) for precision in ("bf16", "float32"))

    np.testing.assert_allclose(mixed.predict_proba(X), full.predict_proba(X), atol=0.02)
    assert mixed.history_["loss"].tolist() != full.history_["loss"].tolist()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_values_that_only_double_precision_holds_need_it(precision):
    large = X * 1e40

    with pytest.raises(ValueError, match=r"too large for dtype\('float32'\).*precision='float64'"):
        Estimator(nn.Linear, precision=precision).fit(large, Y)

    assert np.isfinite(
        Estimator(precision="float64", epochs=1).fit(large, Y).predict_proba(large)
    ).all()


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_weights_and_class_weights_work_in_every_precision(precision):
    template = nn.Linear(2, 3)
    weight = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.5])

    clf = Estimator(template, precision=precision, class_weight="balanced", epochs=1)
    clf.fit(X, Y, weight)

    with torch.no_grad():
        outputs = template(torch.from_numpy(X).float())
        losses = F.cross_entropy(outputs, torch.from_numpy(Y), reduction="none").numpy()
    tolerance = 0.02 if precision == "bf16" else 1e-5
    assert clf.history_["loss"] == pytest.approx(
        [(losses * weight).sum() / weight.sum()], rel=tolerance
    )


@pytest.mark.parametrize("precision", ["float64", "bf16"])
@pytest.mark.parametrize(
    ("end", "parameters"),
    [
        (nn.Softmax(1), {}),
        (nn.LogSoftmax(1), {}),
        (nn.Sigmoid(), {"loss": "bce"}),
        (nn.Identity(), {"loss": "bce_with_logits"}),
    ],
)
def test_every_end_of_a_module_trains_in_every_precision(end, parameters, precision):
    module = nn.Sequential(nn.Linear(2, 3), end)

    here, full = (fit(module, name, epochs=20, **parameters) for name in (precision, "float32"))

    np.testing.assert_allclose(here.predict_proba(X), full.predict_proba(X), atol=0.02)


# Scaled gradients


def test_half_precision_on_the_cpu_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"`precision` is 'fp16'.*CPU.*'bf16' or 'float32'"):
        Estimator(precision="fp16", device="cpu").fit(X, Y)


def test_double_precision_where_the_device_has_none_is_refused():
    with pytest.raises(ValueError, match=r"`precision` is 'float64'.*mps.*device='cpu'"):
        resolve_precision("float64", torch.device("mps"))


@pytest.mark.parametrize("name", ["fp32", "half", "float16", None, 32, torch.float32])
def test_unknown_precision_is_refused_in_the_words_of_scikit_learn(name):
    with pytest.raises(ValueError, match=r"The 'precision' parameter of Estimator must be.*Got"):
        Estimator(precision=name).fit(X, Y)


@pytest.fixture
def scaled():
    """What a GPU gets for "fp16", on the CPU."""
    return ScaledPrecision(CPU)


def test_gradients_are_scaled_until_they_are_looked_at(scaled):
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)

    scaled.backward(1e-3 * weight.sum())
    before = weight.grad.item()
    scaled.unscale(optimizer)

    assert before > 1.0
    assert weight.grad.item() == pytest.approx(1e-3)


def test_step_on_scaled_gradients_is_that_of_the_loss(scaled):
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)

    scaled.backward(0.25 * weight.sum())
    scaled.step(optimizer)

    assert weight.item() == pytest.approx(0.75)


def test_step_whose_gradients_overflow_is_left_out_and_the_next_scale_is_smaller(scaled):
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)

    scaled.backward(torch.inf * weight.sum())
    scaled.step(optimizer)
    after_overflow = weight.item()
    optimizer.zero_grad()
    scaled.backward(0.25 * weight.sum())
    scaled.step(optimizer)

    assert after_overflow == 1.0
    assert weight.item() == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["bf16", "float32"])
def test_outputs_are_in_full_precision(name):
    precision = resolve_precision(name, CPU)

    assert precision.run(nn.Linear(2, 3), torch.ones(1, 2)).dtype is torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("clip_grad_norm", [None, 1.0])
def test_half_precision_learns_on_a_gpu(clip_grad_norm):
    template = nn.Linear(2, 3)

    half = fit(template, "fp16", device="cuda", epochs=20, clip_grad_norm=clip_grad_norm)
    full = fit(template, "float32", device="cpu", epochs=20, clip_grad_norm=clip_grad_norm)

    np.testing.assert_allclose(half.predict_proba(X), full.predict_proba(X), atol=0.02)


# The default dtype of the user


@pytest.fixture(params=[torch.float64, torch.float16])
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("module", [None, nn.Linear])
def test_default_dtype_of_the_user_changes_nothing_and_stays(default_dtype, precision, module):
    clf = fit(module, precision, random_state=0)

    assert {p.dtype for p in clf.module_.parameters()} == {getattr(torch, precision)}
    assert clf.predict_proba(X).dtype == np.dtype(precision)
    assert torch.get_default_dtype() is default_dtype
