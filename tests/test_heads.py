"""Heads: what the outputs of a module mean is read from its last operation."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from easyclf import Estimator, LambdaCallback, output_kinds
from easyclf.heads import ProbedOutputs, build_head

X = np.array([[0, 1], [1, 0], [2, 1], [1, 2], [-1, 1], [0.5, -2]], dtype=np.float32)
THREE = np.array([0, 1, 2, 2, 1, 0])
TWO = np.array([0, 1, 1, 0, 1, 0])
LABELS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]])


def linear(n_outputs, scale=1.0):
    """A layer for `X` whose weights are the same in every test."""
    layer = nn.Linear(2, n_outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-scale, scale, 2 * n_outputs).reshape(n_outputs, 2))
        layer.bias.copy_(torch.linspace(-0.5, 0.5, n_outputs))
    return layer


class Ending(nn.Module):
    """A linear layer, and whatever `forward` does with its logits."""

    def __init__(self, n_outputs, end, scale=1.0):
        super().__init__()
        self.linear = linear(n_outputs, scale)
        self.end = end

    def forward(self, x):
        return self.end(self.linear(x))


def logits(n_rows=4, n_columns=3):
    """What a linear layer returns: numbers that remember where they came from."""
    numbers = torch.linspace(-2, 3, n_rows * n_columns).sin().reshape(n_rows, n_columns)
    return numbers.requires_grad_() * 2


def probed(outputs, evaluated=None, varied=()):
    """What a probe showed of a module that returns these outputs."""
    evaluated = outputs if evaluated is None else evaluated
    return ProbedOutputs("Net", len(outputs), outputs, evaluated, lambda: iter(varied))


def head_for(outputs, n_classes=3, *, evaluated=None, **chosen):
    """The head that `fit` would build for a module with these outputs."""
    options = {
        "is_multilabel": False,
        "loss": "auto",
        "keywords": {},
        "class_weight": None,
        "is_weighted": False,
    }
    return build_head(probed(outputs, evaluated), np.arange(n_classes), **(options | chosen))


def one_epoch(module, y, **parameters):
    """An estimator after one step of plain gradient descent on all rows."""
    settings = {"optimizer": "sgd", "lr": 0.5, "epochs": 1, "batch_size": -1}
    return Estimator(module, **(settings | parameters)).fit(X, y)


# The table of losses: (end of the module, columns, target, loss, probabilities, answers)


def bernoulli(p):
    return torch.stack([1 - p, p], dim=1)


def largest(outputs):
    return outputs.argmax(1)


TABLE = [
    pytest.param(
        3, nn.Identity(), THREE, F.cross_entropy, lambda o: o.softmax(1), largest, id="logits"
    ),
    pytest.param(
        3,
        nn.Softmax(dim=1),
        THREE,
        lambda o, y: F.nll_loss(o.log(), y, reduction="none"),
        lambda o: o,
        largest,
        id="softmax",
    ),
    pytest.param(
        3, nn.LogSoftmax(dim=1), THREE, F.nll_loss, lambda o: o.exp(), largest, id="log_softmax"
    ),
    pytest.param(
        3,
        lambda x: x.softmax(1).log(),
        THREE,
        F.nll_loss,
        lambda o: o.exp(),
        largest,
        id="log of softmax",
    ),
    pytest.param(
        2, nn.Identity(), TWO, F.cross_entropy, lambda o: o.softmax(1), largest, id="two logits"
    ),
    pytest.param(
        1,
        nn.Identity(),
        TWO,
        lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.float(), reduction="none"),
        lambda o: bernoulli(o[:, 0].sigmoid()),
        lambda o: o[:, 0] > 0,
        id="one logit",
    ),
    pytest.param(
        1,
        lambda x: x.squeeze(1),
        TWO,
        lambda o, y: F.binary_cross_entropy_with_logits(o, y.float(), reduction="none"),
        lambda o: bernoulli(o.sigmoid()),
        lambda o: o > 0,
        id="one logit, squeezed",
    ),
    pytest.param(
        1,
        nn.Sigmoid(),
        TWO,
        lambda o, y: F.binary_cross_entropy(o[:, 0], y.float(), reduction="none"),
        lambda o: bernoulli(o[:, 0]),
        lambda o: o[:, 0] > 0.5,
        id="one sigmoid",
    ),
    pytest.param(
        1,
        lambda x: x.sigmoid().flatten(),
        TWO,
        lambda o, y: F.binary_cross_entropy(o, y.float(), reduction="none"),
        bernoulli,
        lambda o: o > 0.5,
        id="one sigmoid, flattened",
    ),
    pytest.param(
        3,
        nn.Identity(),
        LABELS,
        lambda o, y: F.binary_cross_entropy_with_logits(o, y.float(), reduction="none").mean(1),
        torch.sigmoid,
        lambda o: o > 0,
        id="logits of labels",
    ),
    pytest.param(
        3,
        nn.Sigmoid(),
        LABELS,
        lambda o, y: F.binary_cross_entropy(o, y.float(), reduction="none").mean(1),
        lambda o: o,
        lambda o: o > 0.5,
        id="sigmoids of labels",
    ),
]
OF_THE_TABLE = ("n_outputs", "end", "y", "loss", "probabilities", "answers")


def losses_of_rows(loss, outputs, y):
    plain = loss in (F.cross_entropy, F.nll_loss)
    y = torch.from_numpy(y)
    return loss(outputs, y, reduction="none") if plain else loss(outputs, y)


@pytest.mark.parametrize(OF_THE_TABLE, TABLE)
def test_head_reads_losses_probabilities_and_answers_by_the_table(
    n_outputs, end, y, loss, probabilities, answers
):
    outputs = Ending(n_outputs, end)(torch.from_numpy(X))
    n_classes = 2 if y is TWO else 3

    head = build_head(
        probed(outputs),
        np.arange(n_classes),
        is_multilabel=y is LABELS,
        loss="auto",
        keywords={},
        class_weight=None,
        is_weighted=False,
    )
    targets = head.targets(torch.from_numpy(y))
    right = answers(outputs).numpy().astype(int) == y

    torch.testing.assert_close(head.losses(outputs, targets), losses_of_rows(loss, outputs, y))
    torch.testing.assert_close(head.probabilities(outputs), probabilities(outputs))
    assert head.answers(outputs).tolist() == answers(outputs).int().tolist()
    assert (
        head.hits(outputs, targets).tolist()
        == (right.all(axis=1) if y is LABELS else right).tolist()
    )


@pytest.mark.parametrize(OF_THE_TABLE, TABLE)
def test_fit_takes_the_step_of_the_loss_of_the_table(
    n_outputs, end, y, loss, probabilities, answers
):
    byhand = Ending(n_outputs, end)

    clf = one_epoch(Ending(n_outputs, end), y)
    value = losses_of_rows(loss, byhand(torch.from_numpy(X)), y).mean()
    value.backward()

    assert clf.history_["loss"] == pytest.approx([value.item()], rel=1e-5)
    for fitted, start in zip(clf.module_.parameters(), byhand.parameters(), strict=True):
        torch.testing.assert_close(fitted, start - 0.5 * start.grad)


@pytest.mark.parametrize(OF_THE_TABLE, TABLE)
def test_predictions_are_those_of_the_table(n_outputs, end, y, loss, probabilities, answers):
    clf = one_epoch(Ending(n_outputs, end), y)
    outputs = clf.module_(torch.from_numpy(X)).detach()

    proba = clf.predict_proba(X)

    np.testing.assert_allclose(proba, probabilities(outputs).numpy(), rtol=1e-5)
    assert clf.predict(X).tolist() == answers(outputs).int().tolist()
    assert clf.evaluate(X, y)["loss"] == pytest.approx(
        losses_of_rows(loss, outputs, y).mean().item(), rel=1e-5
    )
    assert proba.dtype == np.float32
    assert ((proba >= 0) & (proba <= 1)).all()
    if y is not LABELS:
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_one_column_trains_as_no_column_does():
    column = one_epoch(Ending(1, nn.Identity()), TWO, epochs=5)
    flat = one_epoch(Ending(1, nn.Flatten(0)), TWO, epochs=5)

    assert column.predict_proba(X).tolist() == flat.predict_proba(X).tolist()
    assert column.history_["loss"].tolist() == flat.history_["loss"].tolist()


@pytest.mark.parametrize(
    ("n_outputs", "end", "y"),
    [
        pytest.param(1, torch.squeeze, TWO, id="logit"),
        pytest.param(1, lambda x: x.sigmoid().squeeze(), TWO, id="sigmoid"),
        pytest.param(3, torch.squeeze, THREE, id="logits"),
        pytest.param(3, lambda x: x.squeeze().log_softmax(-1), THREE, id="log_softmax"),
        pytest.param(3, torch.squeeze, LABELS, id="labels"),
    ],
)
def test_one_row_is_predicted_also_where_the_module_squeezes_it_away(n_outputs, end, y):
    clf = one_epoch(Ending(n_outputs, end), y)

    np.testing.assert_allclose(clf.predict_proba(X[:1]), clf.predict_proba(X)[:1], rtol=1e-6)


@pytest.mark.parametrize(("n_outputs", "y"), [(1, TWO), (3, THREE), (3, LABELS)])
def test_last_batch_of_one_row_trains_where_the_module_squeezes_it_away(n_outputs, y):
    squeezed = one_epoch(Ending(n_outputs, torch.squeeze), y, batch_size=5, shuffle=False)
    column = one_epoch(Ending(n_outputs, nn.Identity()), y, batch_size=5, shuffle=False)

    np.testing.assert_allclose(squeezed.predict_proba(X), column.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 1, 1), (4, 3, 1)])
def test_outputs_of_a_convolution_over_the_whole_image_are_columns(shape):
    outputs = logits()

    head = head_for(outputs.reshape(shape))

    torch.testing.assert_close(head.probabilities(outputs.reshape(shape)), outputs.softmax(1))


# Decisions


@pytest.mark.parametrize(
    ("n_outputs", "end", "n_classes", "decisions"),
    [
        pytest.param(3, nn.Identity(), 3, lambda o: o, id="three logits"),
        pytest.param(2, nn.Identity(), 2, lambda o: o[:, 1] - o[:, 0], id="two logits"),
        pytest.param(1, nn.Identity(), 2, lambda o: o[:, 0], id="one logit"),
        pytest.param(1, nn.Sigmoid(), 2, lambda o: o[:, 0].logit(), id="one sigmoid"),
        pytest.param(3, nn.Softmax(1), 3, torch.log, id="softmax"),
        pytest.param(2, nn.Softmax(1), 2, lambda o: (o[:, 1] / o[:, 0]).log(), id="softmax of two"),
        pytest.param(3, nn.LogSoftmax(1), 3, lambda o: o, id="log_softmax"),
    ],
)
def test_decisions_are_logits(n_outputs, end, n_classes, decisions):
    outputs = end(logits(n_columns=n_outputs))

    found = head_for(outputs, n_classes).logits(outputs)

    torch.testing.assert_close(found, decisions(outputs))


def test_decision_function_is_one_number_a_row_for_two_classes():
    clf = one_epoch(linear(2), TWO)

    decisions = clf.decision_function(X)

    np.testing.assert_allclose(1 / (1 + np.exp(-decisions)), clf.predict_proba(X)[:, 1], rtol=1e-5)


# Losses that contradict the module


WRONG_PAIRS = [
    pytest.param(3, nn.Softmax(1), "cross_entropy", "softmax", "'nll'", id="ce on softmax"),
    pytest.param(3, nn.Sigmoid(), "cross_entropy", "sigmoid", "'bce'", id="ce on sigmoids"),
    pytest.param(3, nn.Identity(), "nll", "raw logits", "'cross_entropy'", id="nll on logits"),
    pytest.param(3, nn.Sigmoid(), "nll", "sigmoid", "'bce'", id="nll on sigmoids"),
    pytest.param(3, nn.Identity(), "bce", "raw logits", "'cross_entropy'", id="bce on logits"),
    pytest.param(3, nn.Softmax(1), "bce", "softmax", "'nll'", id="bce on softmax"),
    pytest.param(3, nn.LogSoftmax(1), "bce", "log_softmax", "'nll'", id="bce on log-softmax"),
    pytest.param(3, nn.Softmax(1), "bce_with_logits", "softmax", "'nll'", id="bcel on softmax"),
    pytest.param(
        3, nn.LogSoftmax(1), "bce_with_logits", "log_softmax", "'nll'", id="bcel on log-softmax"
    ),
    pytest.param(3, nn.Sigmoid(), "bce_with_logits", "sigmoid", "'bce'", id="bcel on sigmoids"),
    pytest.param(1, nn.Sigmoid(), "bce_with_logits", "sigmoid", "'bce'", id="bcel on sigmoid"),
    pytest.param(1, nn.Identity(), "bce", "raw logits", "'bce_with_logits'", id="bce on logit"),
    pytest.param(1, nn.Sigmoid(), "cross_entropy", "sigmoid", "'bce'", id="ce on sigmoid"),
]
NAMES = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce": nn.BCELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}


FUNCTIONS = {
    "cross_entropy": F.cross_entropy,
    "nll": F.nll_loss,
    "bce": F.binary_cross_entropy,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("form", ["name", "class", "instance", "function"])
@pytest.mark.parametrize(("n_outputs", "end", "loss", "ends_in", "right"), WRONG_PAIRS)
def test_loss_that_contradicts_the_module_is_refused_with_the_right_one(
    n_outputs, end, loss, ends_in, right, form
):
    forms = {"name": loss, "class": NAMES[loss], "instance": NAMES[loss]()}
    given = (forms | {"function": FUNCTIONS[loss]})[form]
    message = f"(?s){NAMES[loss].__name__} contradicts Net.*{ends_in}.*{right}"

    with pytest.raises(ValueError, match=message):
        head_for(end(logits(n_columns=n_outputs)), 2 if n_outputs == 1 else 3, loss=given)


@pytest.mark.parametrize(("n_outputs", "end", "loss", "ends_in", "right"), WRONG_PAIRS)
def test_fit_refuses_a_loss_that_contradicts_the_module(n_outputs, end, loss, ends_in, right):
    clf = Estimator(nn.Sequential(linear(n_outputs), end), loss=loss)

    with pytest.raises(ValueError, match=f"`loss` .* contradicts Sequential.*{ends_in}.*{right}"):
        clf.fit(X, TWO if n_outputs == 1 else THREE)
    assert not hasattr(clf, "module_")


@pytest.mark.parametrize("loss", [nn.NLLLoss, nn.NLLLoss()])
def test_nll_of_torch_on_softmax_without_its_log_is_refused(loss):
    clf = Estimator(nn.Sequential(linear(3), nn.Softmax(1)), loss=loss)

    with pytest.raises(ValueError, match=r"NLLLoss contradicts .*softmax.*'nll' .by name"):
        clf.fit(X, THREE)


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss()])
def test_cross_entropy_of_one_column_is_refused(loss):
    with pytest.raises(ValueError, match="CrossEntropyLoss needs one column for each class"):
        Estimator(linear(1), loss=loss).fit(X, TWO)


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss()])
def test_cross_entropy_of_labels_is_refused(loss):
    with pytest.raises(ValueError, match="CrossEntropyLoss needs one column for each class"):
        Estimator(linear(3), loss=loss).fit(X, LABELS)


@pytest.mark.parametrize(
    ("end", "n_outputs", "loss", "y", "same_as"),
    [
        pytest.param(nn.LogSoftmax(1), 3, "cross_entropy", THREE, "auto", id="ce on log-softmax"),
        pytest.param(nn.LogSoftmax(1), 3, nn.NLLLoss(), THREE, "auto", id="NLLLoss on log-softmax"),
        pytest.param(nn.Softmax(1), 3, "nll", THREE, "auto", id="nll on softmax"),
        pytest.param(nn.Identity(), 3, nn.CrossEntropyLoss, THREE, "auto", id="ce on logits"),
        pytest.param(nn.Sigmoid(), 1, nn.BCELoss(), TWO, "auto", id="bce on sigmoid"),
        pytest.param(nn.Identity(), 1, nn.BCEWithLogitsLoss, TWO, "auto", id="bcel on logit"),
        pytest.param(nn.Sigmoid(), 3, "bce", LABELS, "auto", id="bce on labels"),
        pytest.param(nn.Identity(), 3, "bce_with_logits", LABELS, "auto", id="bcel on labels"),
    ],
)
def test_right_loss_trains_as_auto_does(end, n_outputs, loss, y, same_as):
    module = nn.Sequential(linear(n_outputs), end)

    chosen, auto = (one_epoch(module, y, loss=given, epochs=3) for given in (loss, same_as))

    np.testing.assert_allclose(chosen.predict_proba(X), auto.predict_proba(X), rtol=1e-5)
    np.testing.assert_allclose(chosen.history_["loss"], auto.history_["loss"], rtol=1e-5)


# One against the rest


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sigmoids_of_several_classes_are_refused_unless_asked_for(n_classes):
    with pytest.raises(ValueError, match=r"sigmoid of several columns.*one-vs-rest.*loss='bce'"):
        head_for(logits(n_columns=n_classes).sigmoid(), n_classes)


def test_fit_refuses_sigmoids_of_several_classes():
    with pytest.raises(ValueError, match=r"Sequential ends in a sigmoid .*loss='bce'"):
        Estimator(nn.Sequential(linear(3), nn.Sigmoid())).fit(X, THREE)


@pytest.mark.parametrize(
    ("end", "loss"), [(nn.Sigmoid(), "bce"), (nn.Identity(), "bce_with_logits")]
)
def test_one_vs_rest_learns_each_class_by_itself(end, loss):
    byhand = linear(3)

    clf = one_epoch(nn.Sequential(linear(3), end), THREE, loss=loss)
    columns = byhand(torch.from_numpy(X))
    value = F.binary_cross_entropy_with_logits(columns, torch.eye(3)[THREE])
    value.backward()

    assert clf.history_["loss"] == pytest.approx([value.item()], rel=1e-5)
    torch.testing.assert_close(clf.module_[0].weight, byhand.weight - 0.5 * byhand.weight.grad)


@pytest.mark.parametrize(
    ("end", "loss"), [(nn.Sigmoid(), "bce"), (nn.Identity(), "bce_with_logits")]
)
def test_probabilities_of_one_vs_rest_sum_to_one(end, loss):
    clf = one_epoch(nn.Sequential(linear(3), end), THREE, loss=loss)
    sigmoids = clf.module_[0](torch.from_numpy(X)).sigmoid().detach().numpy()

    proba = clf.predict_proba(X)

    np.testing.assert_allclose(proba, sigmoids / sigmoids.sum(axis=1, keepdims=True), rtol=1e-5)
    assert clf.predict(X).tolist() == proba.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("end", "loss"), [(nn.Sigmoid(), "bce"), (nn.Identity(), "bce_with_logits")]
)
def test_probabilities_of_one_vs_rest_sum_to_one_where_no_class_is_likely(end, loss):
    outputs = end(torch.full((4, 3), -200.0).requires_grad_() * 1)

    proba = head_for(outputs, loss=loss).probabilities(outputs)

    torch.testing.assert_close(proba.sum(1), torch.ones(4))


# Softmax over something else than the classes


@pytest.mark.parametrize("end", [nn.Softmax(dim=0), nn.LogSoftmax(dim=0)])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_softmax_over_the_rows_is_refused(end, n_classes):
    outputs = end(logits(n_columns=n_classes))

    with pytest.raises(ValueError, match=r"Net ends in .*softmax.* sum to 1.*dim=1"):
        head_for(outputs, n_classes)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_fit_refuses_softmax_over_the_rows_also_where_all_logits_begin_equal(n_classes):
    """The usual small weights: whether rows sum to 1 says nothing if as many were looked at."""
    module = Ending(n_classes, nn.Softmax(dim=0), scale=1e-3)
    nn.init.zeros_(module.linear.bias)

    with pytest.raises(ValueError, match=r"softmax.*dim=1"):
        Estimator(module).fit(np.tile(X, (2, 1)), np.arange(12) % n_classes)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_softmax_of_a_single_column_is_refused(end):
    """It is 1 for every row, so nothing could be learned."""
    with pytest.raises(ValueError, match=r"softmax over 1 column.*two classes with one column"):
        Estimator(nn.Sequential(linear(1), end)).fit(X, TWO)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_softmax_of_labels_is_refused(end):
    with pytest.raises(ValueError, match=r"softmax.*several labels at once.*sigmoid"):
        Estimator(nn.Sequential(linear(3), end)).fit(X, LABELS)


# How many columns


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_fewer_columns_than_classes_are_refused_with_both_numbers(n_outputs):
    message = rf"outputs {n_outputs} column.* 3 classes \['a', 'b', 'c'\].* 3 wide"

    with pytest.raises(ValueError, match=message):
        Estimator(linear(n_outputs)).fit(X, np.array(["a", "b", "c"])[THREE])


@pytest.mark.parametrize(
    "end", [nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1)], ids=lambda e: type(e).__name__
)
def test_more_columns_than_classes_train_the_first_ones_with_one_warning(end):
    module = nn.Sequential(linear(5), end)

    with pytest.warns(UserWarning, match=r"outputs 5 columns but .* 3 classes.*first 3") as warned:
        clf = one_epoch(module, THREE)
    proba = clf.predict_proba(X)

    assert len(warned) == 1
    logits_ = clf.module_[0](torch.from_numpy(X)).detach()[:, :3]
    np.testing.assert_allclose(proba, logits_.softmax(1).numpy(), rtol=1e-4)
    with torch.no_grad():
        expected = F.cross_entropy(linear(5)(torch.from_numpy(X))[:, :3], torch.from_numpy(THREE))
    assert clf.history_["loss"] == pytest.approx([expected.item()], rel=1e-5)


def test_column_that_no_class_uses_may_take_all_of_the_softmax():
    raw = torch.tensor([[0.0, 0.0, 200.0]] * 4, requires_grad=True)
    outputs = raw.softmax(1)
    with pytest.warns(UserWarning, match="first 2"):
        head = head_for(outputs, 2)

    losses = head.losses(outputs, torch.tensor([0, 1, 0, 1]))
    losses.sum().backward()

    assert losses.isfinite().all()
    assert raw.grad.isfinite().all()
    torch.testing.assert_close(head.probabilities(outputs).sum(1), torch.ones(4))


@pytest.mark.parametrize("n_outputs", [2, 4])
def test_other_than_one_column_a_label_is_refused(n_outputs):
    with pytest.raises(ValueError, match=rf"{n_outputs} output.* 3 label columns"):
        Estimator(linear(n_outputs)).fit(X, LABELS)


# Outputs that cannot be trained


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        pytest.param(lambda x: (x, x), TypeError, "returned a tuple.*only the logits", id="tuple"),
        pytest.param(lambda x: [x], TypeError, "returned a list", id="list"),
        pytest.param(lambda x: {"logits": x}, TypeError, "returned a dict", id="dict"),
        pytest.param(
            lambda x: SimpleNamespace(logits=x),
            TypeError,
            "returned a SimpleNamespace",
            id="object",
        ),
        pytest.param(lambda x: None, TypeError, "returned a NoneType", id="None"),
        pytest.param(lambda x: x.detach().numpy(), TypeError, "returned a ndarray", id="numpy"),
        pytest.param(
            lambda x: x[:1],
            ValueError,
            r"shape \(1, 3\) for \d rows.*\(\d, columns\)",
            id="one row",
        ),
        pytest.param(lambda x: x.mean(), ValueError, r"shape \(\) for \d rows", id="one number"),
        pytest.param(lambda x: x[None], ValueError, r"shape \(1, \d, 3\)", id="three dims"),
        pytest.param(
            lambda x: x.repeat_interleave(2, 0),
            ValueError,
            r"shape \(\d, 3\) for",
            id="too many rows",
        ),
        pytest.param(
            lambda x: x.argmax(1), ValueError, "int64.*not differentiable.*argmax", id="argmax"
        ),
        pytest.param(lambda x: x.detach(), ValueError, "not differentiable.*detach", id="detach"),
        pytest.param(lambda x: (x > 0).float(), ValueError, "not differentiable", id="threshold"),
        pytest.param(lambda x: x / 0, ValueError, "NaN or infinity before any training", id="inf"),
    ],
)
def test_output_that_cannot_be_trained_is_refused(end, error, message):
    with pytest.raises(error, match=f"(?s)Ending.forward.*{message}"):
        Estimator(Ending(3, end)).fit(X, THREE)


class OnlyInEvaluation(nn.Module):
    """Torchvision's and many tutorials' way: other outputs once training is over."""

    def __init__(self, end):
        super().__init__()
        self.linear = linear(3)
        self.end = end

    def forward(self, x):
        logits = self.linear(x)
        return logits if self.training else self.end(logits)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (nn.Softmax(1), "logits .*in training but softmax .*in evaluation"),
        (nn.LogSoftmax(1), "logits .*in training but log_softmax .*in evaluation"),
        (nn.Sigmoid(), "logits .*in training but sigmoid .*in evaluation"),
        (lambda x: x[:, :2], r"\(\d, 3\) in training but .*\(\d, 2\) in evaluation"),
        (lambda x: x.argmax(1), "in evaluation returned .*int64"),
    ],
)
def test_module_that_answers_otherwise_in_evaluation_is_refused(end, message):
    with pytest.raises(ValueError, match=f"OnlyInEvaluation.*{message}"):
        Estimator(OnlyInEvaluation(end)).fit(X, THREE)


def test_refusal_leaves_the_earlier_fit_as_it_was():
    clf = one_epoch(linear(3), THREE)
    before = clf.predict_proba(X)

    with pytest.raises(ValueError, match="contradicts"):
        clf.set_params(loss="nll").fit(X, THREE)

    assert clf.predict_proba(X).tolist() == before.tolist()


# Probabilities that no known operation made


class SoftmaxOnly(nn.Module):
    def forward(self, x):
        return torch.softmax(x, 1)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.script(SoftmaxOnly())


SOFTMAX_IN_DISGUISE = [
    pytest.param(lambda x: x.exp() / x.exp().sum(1, keepdim=True), id="by hand"),
    pytest.param(
        lambda x: (x - x.logsumexp(1, keepdim=True)).exp(), id="by hand, without overflow"
    ),
    pytest.param(
        lambda x: checkpoint(
            lambda z: z.exp() / z.exp().sum(1, keepdim=True), x, use_reentrant=False
        ),
        id="checkpointed",
    ),
    pytest.param(lambda x: x.softmax(1)[:, [2, 0, 1]], id="permuted"),
    pytest.param(lambda x: torch.cat([x.softmax(1)[:, 1:], x.softmax(1)[:, :1]], 1), id="joined"),
    pytest.param(lambda x: x.softmax(1) * 1.0, id="times 1"),
    pytest.param(lambda x: torch.where(x < 99, x.softmax(1), 0.0), id="where"),
]
SIGMOID_IN_DISGUISE = [
    pytest.param(lambda x: 1 / (1 + (-x).exp()), id="by hand"),
    pytest.param(lambda x: 0.5 * (1 + (x / 2).tanh()), id="by tanh"),
    pytest.param(lambda x: x.sigmoid() * 1.0, id="times 1"),
    pytest.param(lambda x: 1 - (-x).sigmoid(), id="1 - sigmoid"),
    pytest.param(lambda x: torch.where(x < 99, x.sigmoid(), 0.0), id="where"),
]


@pytest.mark.parametrize("end", SOFTMAX_IN_DISGUISE)
def test_softmax_in_disguise_is_refused_with_both_ways_out(end):
    with pytest.raises(ValueError, match=r"sum to 1 in each row.*loss='nll'.*return the logits"):
        Estimator(Ending(3, end)).fit(X, THREE)


@pytest.mark.parametrize("end", SOFTMAX_IN_DISGUISE)
def test_softmax_in_disguise_trains_by_nll_as_a_softmax_does(end):
    clf = one_epoch(Ending(3, end), THREE, loss="nll", epochs=3)
    outputs = clf.module_(torch.from_numpy(X)).detach().numpy()
    expected = -np.log(outputs[np.arange(6), THREE]).mean()

    np.testing.assert_allclose(clf.predict_proba(X), outputs, rtol=1e-6)
    assert clf.evaluate(X, THREE)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("end", SOFTMAX_IN_DISGUISE)
@pytest.mark.parametrize("loss", ["cross_entropy", nn.NLLLoss(), "bce", "bce_with_logits"])
def test_other_losses_contradict_a_softmax_in_disguise(end, loss):
    with pytest.raises(ValueError, match=r"contradicts Ending, which ends in softmax.*'nll'"):
        Estimator(Ending(3, end), loss=loss).fit(X, THREE)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_softmax_never_trains_as_logits():
    """Whether torch shows its node depends on how often it has run."""
    module = nn.Sequential(linear(3), scripted())

    with pytest.raises(ValueError, match=r"contradicts Sequential, which ends in softmax"):
        Estimator(module, loss="cross_entropy").fit(X, THREE)


@pytest.mark.parametrize("end", SIGMOID_IN_DISGUISE)
@pytest.mark.parametrize(("n_outputs", "y"), [(1, TWO), (3, LABELS), (3, THREE)])
def test_sigmoid_in_disguise_is_refused_with_both_ways_out(end, n_outputs, y):
    with pytest.raises(ValueError, match=r"values in \[0, 1\] what.*loss='bce'.*return the logits"):
        Estimator(Ending(n_outputs, end)).fit(X, y)


@pytest.mark.parametrize("end", SIGMOID_IN_DISGUISE)
@pytest.mark.parametrize(("n_outputs", "y"), [(1, TWO), (3, LABELS), (3, THREE)])
def test_sigmoid_in_disguise_trains_by_bce_as_a_sigmoid_does(end, n_outputs, y):
    disguised = one_epoch(Ending(n_outputs, end), y, loss="bce", epochs=3)
    plain = one_epoch(Ending(n_outputs, torch.sigmoid), y, loss="bce", epochs=3)

    np.testing.assert_allclose(disguised.predict_proba(X), plain.predict_proba(X), rtol=1e-4)
    assert disguised.predict(X).tolist() == plain.predict(X).tolist()


@pytest.mark.parametrize("end", SIGMOID_IN_DISGUISE)
def test_bce_with_logits_contradicts_a_sigmoid_in_disguise(end):
    with pytest.raises(ValueError, match=r"contradicts Ending, which ends in sigmoid.*'bce'"):
        Estimator(Ending(1, end), loss="bce_with_logits").fit(X, TWO)


def test_renamed_sigmoid_of_torch_is_not_taken_for_logits(monkeypatch):
    monkeypatch.setattr(output_kinds, "_kinds_by_operation", dict)

    with pytest.raises(ValueError, match=r"values in \[0, 1\] .*loss='bce'"):
        Estimator(nn.Sequential(linear(1), nn.Sigmoid())).fit(X, TWO)


def test_softmax_by_hand_in_evaluation_alone_is_refused():
    end = lambda x: x.exp() / x.exp().sum(1, keepdim=True)  # noqa: E731

    with pytest.raises(ValueError, match=r"logits .*in training but softmax .*in evaluation"):
        Estimator(OnlyInEvaluation(end)).fit(X, THREE)


@pytest.mark.parametrize("end", [nn.Identity(), nn.ReLU(), nn.Softplus()], ids=str)
def test_logits_that_begin_in_the_range_of_probabilities_train(end):
    """Their weights are as they were, to the bit, after others were tried."""
    module = nn.Sequential(nn.Linear(2, 1, bias=False), end)
    nn.init.constant_(module[0].weight, 0.01)
    seen = []
    note = LambdaCallback(
        on_train_begin=lambda state: seen.append(state.module[0].weight.detach().clone())
    )

    Estimator(module, epochs=1, callbacks=[note]).fit(np.abs(X), TWO)

    assert torch.equal(seen[0], module[0].weight)


def test_nobody_elses_random_numbers_change_when_other_weights_are_tried():
    module = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Dropout(0.5))
    before = torch.get_rng_state()

    Estimator(module, epochs=1, random_state=0).fit(np.abs(X), TWO)

    assert torch.equal(torch.get_rng_state(), before)


# One column, far from the threshold


@pytest.mark.parametrize("size", [1.0, 18.0, 40.0, 80.0])
def test_probabilities_of_one_logit_are_exact_on_both_sides(size):
    outputs = torch.tensor([[size], [-size]], requires_grad=True) * 1
    head = head_for(outputs * torch.ones(1), 2)
    small = 1 / (1 + np.exp(size))

    proba = head.probabilities(outputs).tolist()
    logs = head.log_probabilities(outputs.double()).tolist()

    assert proba == [
        pytest.approx([small, 1 - small], rel=1e-6),
        pytest.approx([1 - small, small], rel=1e-6),
    ]
    assert logs[0] == pytest.approx([np.log(small), np.log1p(-small)], rel=1e-6)


def test_a_cost_decides_by_the_smaller_probability_too():
    module = nn.Sequential(nn.Linear(1, 1))
    nn.init.constant_(module[0].weight, 40.0)
    nn.init.zeros_(module[0].bias)
    clf = Estimator(module, epochs=1, lr=1e-12).fit([[1.0], [-1.0]], [0, 1])

    answer = clf.predict([[1.0]], costs=[[0, 1e20], [1, 0]])

    assert answer.tolist() == [0]


@pytest.mark.parametrize(("n_outputs", "y"), [(1, TWO), (3, THREE), (3, LABELS)])
def test_probabilities_never_rank_against_their_logs(n_outputs, y):
    clf = one_epoch(linear(n_outputs), y)
    rows = np.linspace(-200, 200, 400).reshape(-1, 2)

    proba, logs = clf.predict_proba(rows), clf.predict_log_proba(rows)

    order = logs.argsort(axis=1)
    assert (np.diff(np.take_along_axis(proba, order, axis=1)) >= 0).all()
    assert np.isfinite(logs).all()
