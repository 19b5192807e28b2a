"""Kinds of outputs: read from the last operation, doubted by values, and their probabilities."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import output_kinds
from easyclf.output_kinds import (
    LOG_SOFTMAX,
    LOGITS,
    SIGMOID,
    SOFTMAX,
    OneVsRestLogits,
    is_linear_layer,
    kind_of_values,
    output_kind,
)


def logits(n_rows=4, n_columns=3):
    """What a linear layer returns: numbers that remember where they came from."""
    numbers = torch.linspace(-2, 3, n_rows * n_columns).sin().reshape(n_rows, n_columns)
    return numbers.requires_grad_() * 2


# What the last operation was


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        pytest.param(nn.Identity(), "logits", id="nothing"),
        pytest.param(nn.ReLU(), "logits", id="relu"),
        pytest.param(nn.Tanh(), "logits", id="tanh"),
        pytest.param(nn.Sigmoid(), "sigmoid", id="nn.Sigmoid"),
        pytest.param(torch.sigmoid, "sigmoid", id="torch.sigmoid"),
        pytest.param(F.sigmoid, "sigmoid", id="F.sigmoid"),
        pytest.param(torch.special.expit, "sigmoid", id="torch.special.expit"),
        pytest.param(lambda x: x.sigmoid(), "sigmoid", id="x.sigmoid"),
        pytest.param(lambda x: x.sigmoid_(), "sigmoid", id="x.sigmoid_"),
        pytest.param(nn.Softmax(dim=1), "softmax", id="nn.Softmax"),
        pytest.param(nn.Softmax(dim=-1), "softmax", id="nn.Softmax of the last dim"),
        pytest.param(lambda x: torch.softmax(x, 1), "softmax", id="torch.softmax"),
        pytest.param(lambda x: F.softmax(x, dim=1), "softmax", id="F.softmax"),
        pytest.param(lambda x: x.softmax(1), "softmax", id="x.softmax"),
        pytest.param(nn.LogSoftmax(dim=1), "log_softmax", id="nn.LogSoftmax"),
        pytest.param(lambda x: torch.log_softmax(x, 1), "log_softmax", id="torch.log_softmax"),
        pytest.param(lambda x: F.log_softmax(x, dim=1), "log_softmax", id="F.log_softmax"),
        pytest.param(lambda x: x.log_softmax(1), "log_softmax", id="x.log_softmax"),
        pytest.param(lambda x: torch.log(F.softmax(x, 1)), "log_softmax", id="log of softmax"),
        pytest.param(
            lambda x: x.softmax(1).clamp(min=1e-9).log(), "log_softmax", id="log of clamped softmax"
        ),
        pytest.param(
            lambda x: x.softmax(1).double().log().view(4, 3),
            "log_softmax",
            id="log of cast softmax",
        ),
    ],
)
def test_kind_is_the_last_operation(end, kind):
    assert output_kind(end(logits())).name == kind


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda x: 1 - x.sigmoid(), id="1 - sigmoid"),
        pytest.param(lambda x: 2 * x.sigmoid() - 1, id="2 sigmoid - 1"),
        pytest.param(lambda x: x.sigmoid() @ torch.ones(3, 3), id="layer after sigmoid"),
        pytest.param(lambda x: x.softmax(1) * 5, id="scaled softmax"),
        pytest.param(lambda x: x.sigmoid().log(), id="log of sigmoid"),
        pytest.param(lambda x: x.relu().sigmoid().relu(), id="relu of sigmoid"),
        pytest.param(lambda x: nn.LayerNorm(3)(x.softmax(1)), id="norm of softmax"),
    ],
)
def test_arithmetic_after_an_activation_makes_logits(end):
    assert output_kind(end(logits())).name == "logits"


@pytest.mark.parametrize(
    "reshaped",
    [
        pytest.param(lambda p: p.view(4, 3), id="view"),
        pytest.param(lambda p: p.reshape(-1, 3), id="reshape"),
        pytest.param(lambda p: p.t().reshape(3, 4).t(), id="reshape that copies"),
        pytest.param(lambda p: p.unsqueeze(2).flatten(1), id="flatten"),
        pytest.param(lambda p: p.unsqueeze(2).squeeze(2), id="squeeze of a dim"),
        pytest.param(lambda p: p[:, None].squeeze(), id="squeeze"),
        pytest.param(lambda p: p.T.T, id="T"),
        pytest.param(lambda p: p.transpose(0, 1).transpose(1, 0), id="transpose"),
        pytest.param(lambda p: p.permute(1, 0).permute(1, 0), id="permute"),
        pytest.param(lambda p: p.movedim(0, 1).swapaxes(0, 1), id="movedim"),
        pytest.param(lambda p: p.T.contiguous().T, id="contiguous"),
        pytest.param(lambda p: p[:, :2], id="slice"),
        pytest.param(lambda p: p[:, 0], id="select"),
        pytest.param(lambda p: p.split(2, dim=1)[0], id="split"),
        pytest.param(lambda p: p.unbind(1)[0], id="unbind"),
        pytest.param(lambda p: p.expand(4, 3), id="expand"),
        pytest.param(lambda p: p.clone(), id="clone"),
        pytest.param(lambda p: p.double(), id="double"),
        pytest.param(lambda p: p.to(torch.bfloat16), id="to"),
        pytest.param(lambda p: p.half().float(), id="half and float"),
        pytest.param(lambda p: p.clamp(1e-7, 1 - 1e-7), id="clamp"),
        pytest.param(lambda p: torch.clip(p, min=1e-7), id="clip"),
        pytest.param(lambda p: p.clamp_min(1e-7), id="clamp_min"),
        pytest.param(lambda p: p.clamp_max(1 - 1e-7), id="clamp_max"),
        pytest.param(lambda p: p.view(4, 3).double().clamp(0, 1).squeeze(), id="all at once"),
    ],
)
@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "log_softmax"])
def test_kind_is_seen_through_what_keeps_the_values(reshaped, kind):
    activation = {
        "sigmoid": torch.sigmoid,
        "softmax": lambda x: x.softmax(1),
        "log_softmax": lambda x: x.log_softmax(1),
    }[kind]

    assert output_kind(reshaped(activation(logits()))).name == kind


def test_kinds_are_known_also_where_torch_calls_its_operations_otherwise(monkeypatch):
    def renamed(node):
        return node.name().replace("Backward", "Vjp")

    monkeypatch.setattr(output_kinds, "_operation", renamed)
    output_kinds._kinds_by_operation.cache_clear()
    try:
        kinds = [output_kind(end(logits())) for end in (nn.Sigmoid(), nn.Softmax(1))]
    finally:
        output_kinds._kinds_by_operation.cache_clear()

    assert kinds == [SIGMOID, SOFTMAX]


@pytest.mark.parametrize("name", ["", "Node"])
def test_nodes_that_no_longer_tell_their_operation_make_logits_which_values_doubt(
    monkeypatch, name
):
    monkeypatch.setattr(output_kinds, "_operation", lambda node: name)
    output_kinds._kinds_by_operation.cache_clear()
    try:
        kinds = [output_kind(end(logits())) for end in (nn.Sigmoid(), nn.Softmax(1))]
    finally:
        output_kinds._kinds_by_operation.cache_clear()

    assert kinds == [LOGITS, LOGITS]
    assert kind_of_values(logits().softmax(1), other_weights(nn.Softmax(1))) is SOFTMAX


# What the values say, where no known operation was the last one


def other_weights(end):
    """The outputs of a linear layer with this end, under weights that grow."""
    return lambda: (end(factor * logits()) for factor in (3, 30, 300))


def softmax_by_hand(x):
    return x.exp() / x.exp().sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        pytest.param(softmax_by_hand, SOFTMAX, id="softmax by hand"),
        pytest.param(lambda x: x.softmax(1) * 1.0, SOFTMAX, id="softmax times 1"),
        pytest.param(lambda x: x.softmax(1)[:, [2, 0, 1]], SOFTMAX, id="softmax permuted"),
        pytest.param(lambda x: 1 / (1 + (-x).exp()), SIGMOID, id="sigmoid by hand"),
        pytest.param(lambda x: 1 - x.sigmoid(), SIGMOID, id="1 - sigmoid"),
        pytest.param(lambda x: x.softmax(0) * 1.0, SIGMOID, id="softmax over the rows"),
        pytest.param(lambda x: x.sigmoid()[:, :1], SIGMOID, id="one column"),
        pytest.param(lambda x: x, LOGITS, id="logits"),
        pytest.param(lambda x: x.log_softmax(1), LOGITS, id="log-softmax"),
        pytest.param(lambda x: x.softmax(1) * 5, LOGITS, id="scaled softmax"),
        pytest.param(torch.tanh, LOGITS, id="tanh"),
    ],
)
def test_probabilities_are_known_by_their_values(end, kind):
    assert kind_of_values(end(logits()), other_weights(end)) is kind


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_logits_that_begin_in_the_range_of_probabilities_are_logits(value):
    """Weights that begin as zeros, and a bias: other weights show what they are."""
    first = torch.full((3, 2), value)

    assert kind_of_values(first, lambda: iter([first, logits(3, 2)])) is LOGITS


def test_values_that_overflow_under_other_weights_say_nothing():
    outputs = torch.full((3, 2), 0.5)

    assert kind_of_values(outputs, lambda: iter([outputs / 0, outputs * torch.nan])) is SOFTMAX


def test_other_weights_are_not_asked_where_values_are_no_probabilities():
    assert kind_of_values(logits(), lambda: pytest.fail("asked")) is LOGITS


@pytest.mark.parametrize(
    ("layer", "is_linear"),
    [
        (nn.Linear(3, 2), True),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), True),
        (nn.Linear(3, 2, bias=False), False),
        (nn.Linear(3, 2).requires_grad_(False), False),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), False),
    ],
)
def test_a_bias_that_is_learned_makes_logits(layer, is_linear):
    assert is_linear_layer(layer(logits())) is is_linear


# Probabilities and their logarithms


EXTREMES = torch.tensor([-80.0, -40.0, -18.0, -1.0, 0.0, 1.0, 18.0, 40.0, 80.0])


def test_chances_of_a_logit_are_exact_on_both_sides():
    exact = EXTREMES.double()
    expected = (1 / (1 + (-exact).exp())).float()

    torch.testing.assert_close(LOGITS.chances(EXTREMES), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        LOGITS.chances_against(EXTREMES), expected.flip(0), rtol=1e-6, atol=0
    )


def test_logs_of_chances_of_a_logit_are_exact_on_both_sides():
    expected = -torch.from_numpy(np.logaddexp(0, -EXTREMES.double().numpy())).float()

    logs, against = LOGITS.log_chances(EXTREMES), LOGITS.log_chances_against(EXTREMES)

    torch.testing.assert_close(logs, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(against, expected.flip(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("tiny", [1e-3, 1e-12, 1e-30])
def test_log_of_the_chance_against_a_small_sigmoid_is_exact(tiny):
    outputs = torch.tensor([[tiny]], dtype=torch.float64)

    against = SIGMOID.log_chances_against(outputs).item()

    assert against == pytest.approx(np.log1p(-tiny), rel=1e-12)


@pytest.mark.parametrize("kind", [LOGITS, SIGMOID, SOFTMAX, LOG_SOFTMAX, OneVsRestLogits()])
def test_log_probabilities_are_the_logs_of_probabilities_that_sum_to_one(kind):
    end = {"logits": lambda x: x, "sigmoid": torch.sigmoid, "softmax": lambda x: x.softmax(1)}
    outputs = end.get(kind.name, lambda x: x.log_softmax(1))(logits().detach())

    probabilities = kind.probabilities(outputs)

    torch.testing.assert_close(kind.log_probabilities(outputs).exp(), probabilities)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))


@pytest.mark.parametrize("kind", [LOGITS, OneVsRestLogits()])
def test_log_probabilities_rank_what_float32_rounds_to_one(kind):
    outputs = torch.tensor([[60.0, 30.0, 0.0], [-90.0, -100.0, -120.0]], dtype=torch.float64)

    logs = kind.log_probabilities(outputs)

    assert (logs.diff(dim=1) < 0).all()
    assert (kind.probabilities(outputs).diff(dim=1) <= 0).all()
