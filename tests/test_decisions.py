"""Decisions: the cheapest answer, and none where nothing is likely enough."""

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator
from easyclf.decisions import cheapest, with_uncertain

PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.34, 0.33, 0.33]])


def knowing(probabilities, classes, **parameters):
    """An estimator that gives these probabilities for the rows of a unit matrix."""
    n_rows = len(probabilities)
    module = nn.Linear(n_rows, len(classes), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.log(probabilities).T))
    clf = Estimator(module, optimizer="sgd", lr=1e-12, epochs=1, classes=classes, **parameters)
    return clf.fit(np.eye(n_rows), np.resize(classes, n_rows))


# Costs


@pytest.mark.parametrize(
    ("costs", "answers"),
    [
        pytest.param(1 - np.eye(3), [0, 1, 0], id="every error costs the same"),
        pytest.param([[0, 1, 1], [1, 0, 1], [10, 10, 0]], [2, 2, 2], id="class 2 must be found"),
        pytest.param([[0, 9, 9], [1, 0, 1], [1, 1, 0]], [0, 0, 0], id="class 0 must be found"),
        # Row 1: 0.5 + 0.3 = 0.8 for answer 0; 0.2 + 2 * 0.3 = 0.8 for 1; 0.2 + 0.5 = 0.7 for 2.
        pytest.param([[0, 1, 1], [1, 0, 1], [1, 2, 0]], [0, 2, 0], id="one pair costs double"),
        pytest.param([[0, 1, 0], [0, 1, 0], [0, 1, 1]], [0, 0, 0], id="one answer is free"),
        pytest.param(-np.eye(3), [0, 1, 0], id="gains"),
    ],
)
def test_answer_has_the_least_expected_cost(costs, answers):
    costs = np.array(costs)
    expected = [
        min(range(3), key=lambda answer: sum(p[true] * costs[true, answer] for true in range(3)))
        for p in PROBABILITIES
    ]

    assert cheapest(PROBABILITIES, costs).tolist() == answers == expected


def test_rows_of_the_costs_are_the_true_classes():
    """To miss class 1 costs 10, a false alarm costs 1."""
    assert cheapest(np.array([[0.8, 0.2]]), [[0, 1], [10, 0]]).tolist() == [1]
    assert cheapest(np.array([[0.8, 0.2]]), [[0, 10], [1, 0]]).tolist() == [0]


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([[0, 1], [1, 0]], r"`costs` has shape \(2, 2\); expected finite costs of shape \(3, 3\)"),
        ([0, 1, 1], r"shape \(3,\)"),
        (np.full((3, 3), np.nan), "expected finite costs"),
        (np.full((3, 3), np.inf), "expected finite costs"),
    ],
)
def test_costs_that_are_no_table_of_the_classes_are_refused(costs, message):
    with pytest.raises(ValueError, match=message):
        cheapest(PROBABILITIES, costs)


def test_predict_takes_costs_and_answers_classes():
    clf = knowing(PROBABILITIES, ["ham", "spam", "virus"])

    plain = clf.predict(np.eye(3))
    careful = clf.predict(np.eye(3), costs=[[0, 1, 1], [1, 0, 1], [10, 10, 0]])

    assert plain.tolist() == ["ham", "spam", "ham"]
    assert careful.tolist() == ["virus"] * 3


def test_costs_also_decide_between_two_classes():
    clf = knowing(np.array([[0.8, 0.2], [0.95, 0.05]]), [0, 1])

    assert clf.predict(np.eye(2)).tolist() == [0, 0]
    assert clf.predict(np.eye(2), costs=[[0, 1], [10, 0]]).tolist() == [1, 0]


# Uncertain answers


@pytest.mark.parametrize(
    ("min_proba", "answers"),
    [
        (0.0, ["a", "b", "a"]),
        (0.34, ["a", "b", "a"]),
        (0.5, ["a", "b", "?"]),
        (0.55, ["a", "?", "?"]),
        (1.0, ["?", "?", "?"]),
    ],
)
def test_answer_is_uncertain_where_the_best_probability_is_below(min_proba, answers):
    labels, best = np.array(["a", "b", "a"]), PROBABILITIES.max(axis=1)

    found = with_uncertain(labels, best, min_proba, "?", np.array(["a", "b", "c"]))

    assert found.tolist() == answers
    assert labels.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("labels", "uncertain", "dtype"),
    [
        pytest.param(np.array(["a", "b"]), "uncertain", "<U9", id="longer string"),
        pytest.param(np.array(["a", "b"], object), "uncertain", object, id="objects"),
        pytest.param(np.array(["a", "b"]), None, object, id="strings and None"),
        pytest.param(np.array(["a", "b"]), -1, object, id="strings and int"),
        pytest.param(np.array([0, 1]), -1, np.int64, id="ints"),
        pytest.param(np.array([0, 1], np.int8), 1000, np.int64, id="larger int"),
        pytest.param(np.array([0, 1], np.uint8), -1, np.int64, id="unsigned and negative"),
        pytest.param(np.array([0, 1]), "uncertain", object, id="ints and string"),
        pytest.param(np.array([0.0, 1.0]), np.nan, np.float64, id="floats"),
        pytest.param(np.array([False, True]), "uncertain", object, id="bools and string"),
        pytest.param(np.array([False, True]), None, object, id="bools and None"),
        pytest.param(np.array([b"a", b"b"]), b"uncertain", "S9", id="bytes"),
    ],
)
def test_answers_hold_labels_and_the_uncertain_one_whole(labels, uncertain, dtype):
    found = with_uncertain(labels, np.array([0.9, 0.1]), 0.5, uncertain, labels)

    assert found.dtype == dtype
    assert found[0] == labels[0]
    assert found[1] == uncertain or (found[1] != found[1] and uncertain != uncertain)


@pytest.mark.parametrize("min_proba", [-0.1, 1.1, np.nan, "0.5", None, [0.5]])
def test_what_is_no_probability_is_refused(min_proba):
    labels = np.array([0, 1])

    with pytest.raises(ValueError, match=r"`min_proba` must be a probability in \[0, 1\]; got"):
        with_uncertain(labels, np.array([0.9, 0.1]), min_proba, -1, labels)


@pytest.mark.parametrize(
    ("classes", "uncertain"), [(["a", "uncertain"], "uncertain"), ([0, 1], 1), ([0, 1], True)]
)
def test_uncertain_answer_that_is_a_class_is_refused(classes, uncertain):
    labels = np.array(classes)

    with pytest.raises(ValueError, match=f"`uncertain` {uncertain!r} is one of the classes"):
        with_uncertain(labels, np.array([0.9, 0.1]), 0.5, uncertain, labels)


def test_predict_answers_uncertain():
    clf = knowing(PROBABILITIES, ["a", "b", "c"])

    assert clf.predict(np.eye(3), min_proba=0.45).tolist() == ["a", "b", "uncertain"]
    assert clf.predict(np.eye(3), min_proba=0.45, uncertain=None).tolist() == ["a", "b", None]


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_two_classes_are_uncertain_between_them(n_outputs):
    module = nn.Linear(1, n_outputs)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0]]) if n_outputs == 1 else torch.tensor([[0.0], [1]]))
        module.bias.zero_()
    clf = Estimator(module, optimizer="sgd", lr=1e-12, epochs=1).fit([[-1.0], [1.0]], [0, 1])

    # The probabilities of class 1 are 0.0474, 0.378 and 0.818.
    answers = clf.predict([[-3.0], [-0.5], [1.5]], min_proba=0.7, uncertain=-1)

    assert answers.tolist() == [0, -1, 1]


@pytest.mark.parametrize("asked", [{"min_proba": 0.5}, {"costs": np.ones((3, 3))}])
def test_labels_of_several_at_once_are_not_decided_so(asked):
    clf = Estimator(nn.Linear, epochs=1).fit(np.eye(3), [[1, 0, 1], [0, 1, 1], [0, 0, 1]])

    with pytest.raises(ValueError, match=r"`min_proba` and `costs` .*multilabel.*predict_proba"):
        clf.predict(np.eye(3), **asked)


def test_costs_and_min_proba_go_together():
    """The costs choose the answer; where no class is likely enough there is none."""
    clf = knowing(PROBABILITIES, ["a", "b", "c"])

    answers = clf.predict(
        np.eye(3), costs=[[0, 1, 1], [1, 0, 1], [10, 10, 0]], min_proba=0.45, uncertain="?"
    )

    assert answers.tolist() == ["c", "c", "?"]


def test_a_negative_answer_beside_classes_of_uint64_keeps_every_digit():
    classes = np.array([2**63, 2**63 + 1], dtype=np.uint64)

    answers = with_uncertain(classes, np.array([0.9, 0.1]), 0.5, -1, classes)

    assert answers.tolist() == [2**63, -1]
