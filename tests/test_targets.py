"""Targets: labels of any kind to codes and back, and the weights of their classes."""

import functools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from easyclf import Estimator
from easyclf.targets import TargetEncoder, accuracy, class_weights, read_labels


def rows_of(codes):
    """Rows that say their class: one column a class."""
    return np.eye(max(codes) + 1, dtype=np.float32)[codes]


def classifier(**parameters):
    """Learns `rows_of` by heart."""
    settings = {"lr": 0.5, "epochs": 20, "batch_size": -1, "random_state": 0}
    return Estimator(nn.Linear, **(settings | parameters))


def encode(y, classes=None):
    labels = read_labels(y)
    encoder = TargetEncoder().fit(labels, classes)
    return encoder, encoder.transform(labels)


# Kinds of labels: (y, its classes, the code of each row)

CODES = [2, 0, 1, 0, 2, 1]
WORDS = ["c", "a", "b", "a", "c", "b"]
KINDS = [
    pytest.param([2, 0, 1, 0, 2, 1], [0, 1, 2], id="ints"),
    pytest.param((2, 0, 1, 0, 2, 1), [0, 1, 2], id="tuple"),
    pytest.param([3, 1, 2, 1, 3, 2], [1, 2, 3], id="ints from 1"),
    pytest.param([9, 0, 5, 0, 9, 5], [0, 5, 9], id="ints with gaps"),
    pytest.param([7, -3, -1, -3, 7, -1], [-3, -1, 7], id="negative ints"),
    pytest.param([2**40, 0, 2**31, 0, 2**40, 2**31], [0, 2**31, 2**40], id="large ints"),
    pytest.param(np.array([2, 0, 1, 0, 2, 1], np.uint8), [0, 1, 2], id="uint8"),
    pytest.param(np.array([2, 0, 1, 0, 2, 1], np.int16), [0, 1, 2], id="int16"),
    pytest.param(
        np.array([2**63 + 5, 0, 2**63, 0, 2**63 + 5, 2**63], np.uint64),
        [0, 2**63, 2**63 + 5],
        id="uint64",
    ),
    pytest.param([2.0, 0.0, 1.0, 0.0, 2.0, 1.0], [0.0, 1.0, 2.0], id="floats"),
    pytest.param([9.0, -1.0, 3.0, -1.0, 9.0, 3.0], [-1.0, 3.0, 9.0], id="floats with gaps"),
    pytest.param(np.array([2, 0, 1, 0, 2, 1], np.float16), [0.0, 1.0, 2.0], id="float16"),
    pytest.param(np.array([2, 0, 1, 0, 2, 1], dtype=object), [0, 1, 2], id="object ints"),
    pytest.param(WORDS, ["a", "b", "c"], id="strings"),
    pytest.param(np.array(WORDS, dtype=object), ["a", "b", "c"], id="object strings"),
    pytest.param([np.str_(word) for word in WORDS], ["a", "b", "c"], id="NumPy strings"),
    pytest.param([w.encode() for w in WORDS], [b"a", b"b", b"c"], id="bytes"),
    pytest.param(
        np.array([w.encode() for w in WORDS], dtype=object), [b"a", b"b", b"c"], id="object bytes"
    ),
    pytest.param(pd.Series(WORDS), ["a", "b", "c"], id="pandas strings"),
    pytest.param(pd.Series(WORDS, dtype=object), ["a", "b", "c"], id="pandas objects"),
    pytest.param(pd.Series(WORDS, index=[5, 4, 3, 2, 1, 0]), ["a", "b", "c"], id="pandas index"),
    pytest.param(pd.Series(WORDS, dtype="category"), ["a", "b", "c"], id="pandas category"),
    pytest.param(
        pd.Categorical(WORDS, categories=["c", "b", "a", "unused"]),
        ["a", "b", "c"],
        id="pandas categorical",
    ),
    pytest.param(pd.Categorical([2, 0, 1, 0, 2, 1]), [0, 1, 2], id="pandas categorical of ints"),
    pytest.param(pd.array([2, 0, 1, 0, 2, 1], dtype="Int64"), [0, 1, 2], id="pandas Int64"),
    pytest.param(pd.Series([2, 0, 1, 0, 2, 1], dtype="UInt8"), [0, 1, 2], id="pandas UInt8"),
    pytest.param(pd.Series([2, 0, 1, 0, 2, 1], dtype="Float64"), [0, 1, 2], id="pandas Float64"),
    pytest.param(pd.Series(WORDS, dtype="string"), ["a", "b", "c"], id="pandas string dtype"),
    pytest.param(pl.Series(WORDS), ["a", "b", "c"], id="polars strings"),
    pytest.param(pl.Series([2, 0, 1, 0, 2, 1]), [0, 1, 2], id="polars ints"),
    pytest.param(pl.Series(WORDS, dtype=pl.Categorical), ["a", "b", "c"], id="polars categories"),
    pytest.param(
        pl.Series(WORDS, dtype=pl.Enum(["c", "b", "a"])), ["a", "b", "c"], id="polars enum"
    ),
    pytest.param(torch.tensor([2, 0, 1, 0, 2, 1]), [0, 1, 2], id="tensor"),
    pytest.param(torch.tensor([2, 0, 1, 0, 2, 1], dtype=torch.int32), [0, 1, 2], id="int32 tensor"),
    pytest.param(
        torch.tensor([2.0, 0, 1, 0, 2, 1], requires_grad=True),
        [0.0, 1.0, 2.0],
        id="tensor with gradient",
    ),
]
TRUTHS = [True, False, True, True, False, True]
BOOLS = [
    pytest.param(TRUTHS, id="list"),
    pytest.param(np.array(TRUTHS), id="array"),
    pytest.param(np.array(TRUTHS, dtype=object), id="objects"),
    pytest.param(pd.Series(TRUTHS), id="pandas"),
    pytest.param(pd.Series(TRUTHS, dtype="boolean"), id="pandas nullable"),
    pytest.param(pl.Series(TRUTHS), id="polars"),
    pytest.param(torch.tensor(TRUTHS), id="tensor"),
]


@pytest.mark.parametrize(("y", "classes"), KINDS)
def test_labels_of_any_kind_become_codes_of_their_sorted_classes(y, classes):
    encoder, codes = encode(y)

    assert encoder.classes_.tolist() == classes
    assert codes.tolist() == CODES
    assert codes.dtype == np.int64


@pytest.mark.parametrize(("y", "classes"), KINDS)
def test_estimator_learns_and_answers_labels_of_any_kind(y, classes):
    clf = classifier().fit(rows_of(CODES), y)

    assert clf.classes_.tolist() == classes
    assert clf.predict(rows_of([0, 1, 2])).tolist() == classes
    assert clf.score(rows_of(CODES), y) == 1.0
    assert clf.evaluate(rows_of(CODES), y)["accuracy"] == 1.0


@pytest.fixture
def no_warning_is_said_once_only():
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("no_warning_is_said_once_only")
@pytest.mark.parametrize("y", [np.array([0, 1, 2]), np.array([5, 7, 9]), np.array(["a", "b", "c"])])
def test_labels_that_may_not_be_written_train_without_a_warning(y):
    """Memory-mapped ones, those of polars, and those that joblib hands to its workers."""
    y.flags.writeable = False

    clf = classifier().fit(np.eye(3, dtype=np.float32), y)

    assert clf.predict(np.eye(3)).tolist() == y.tolist()
    assert clf.score(np.eye(3), y) == 1.0


@pytest.mark.parametrize("y", BOOLS)
def test_estimator_learns_and_answers_bools(y):
    codes = np.array(TRUTHS).astype(int)

    clf = classifier().fit(rows_of(codes), y)

    assert clf.classes_.tolist() == [False, True]
    assert clf.predict(rows_of([1, 0])).tolist() == [True, False]
    assert clf.score(rows_of(codes), y) == 1.0


@pytest.mark.parametrize(
    "dtype", ["int8", "int32", "int64", "uint8", "bool", "float32", "float64", "<U1", "S1", object]
)
def test_answers_have_the_dtype_of_the_labels(dtype):
    y = np.array([1, 0, 1, 0]).astype(
        "<U1" if dtype is object else bool if dtype == "bool" else int
    )

    answers = classifier(epochs=1).fit(rows_of([1, 0, 1, 0]), y.astype(dtype)).predict(np.eye(2))

    assert answers.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "y",
    [
        pytest.param([[1], [0], [1], [0]], id="list"),
        pytest.param(np.array([[1], [0], [1], [0]]), id="ints"),
        pytest.param(np.array([[1.0], [0.0], [1.0], [0.0]]), id="floats"),
        pytest.param(np.array([["b"], ["a"], ["b"], ["a"]]), id="strings"),
        pytest.param(np.array([["b"], ["a"], ["b"], ["a"]], dtype=object), id="objects"),
        pytest.param(pd.DataFrame({"label": [1, 0, 1, 0]}), id="pandas"),
        pytest.param(pd.DataFrame({"label": ["b", "a", "b", "a"]}), id="pandas strings"),
        pytest.param(
            pd.DataFrame({"label": ["b", "a", "b", "a"]}, dtype="category"), id="category"
        ),
        pytest.param(pl.DataFrame({"label": [1, 0, 1, 0]}), id="polars"),
        pytest.param(pl.DataFrame({"label": ["b", "a", "b", "a"]}), id="polars strings"),
    ],
)
def test_a_column_is_flattened_with_a_warning(y):
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        labels = read_labels(y)

    assert labels.shape == (4,)
    assert TargetEncoder().fit(labels).transform(labels).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_column_of_a_tensor_is_flattened_without_a_warning(dtype):
    """In torch it is a habit, and no mistake."""
    labels = read_labels(torch.tensor([[1], [0], [1], [0]]).to(dtype))

    assert labels.tolist() == [1, 0, 1, 0]


def test_estimator_trains_on_a_column_of_floats():
    """The usual target of a hand-written binary loop."""
    with pytest.warns(DataConversionWarning):
        clf = classifier().fit(rows_of([1, 0, 1, 0]), np.array([[1.0], [0.0], [1.0], [0.0]]))

    assert clf.predict(np.eye(2)).tolist() == [0.0, 1.0]


INDICATOR = [[1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(INDICATOR, id="list"),
        pytest.param(np.array(INDICATOR, np.uint8), id="uint8"),
        pytest.param(np.array(INDICATOR, bool), id="bool"),
        pytest.param(np.array(INDICATOR, np.float32), id="float32"),
        pytest.param(torch.tensor(INDICATOR, dtype=torch.float32), id="tensor"),
        pytest.param(pd.DataFrame(INDICATOR, columns=["x", "y", "z"]), id="pandas"),
        pytest.param(
            pd.DataFrame(INDICATOR, columns=["x", "y", "z"], dtype=bool), id="pandas bool"
        ),
        pytest.param(pl.DataFrame(INDICATOR, schema=["x", "y", "z"], orient="row"), id="polars"),
        pytest.param(sp.csr_array(np.array(INDICATOR)), id="sparse array"),
        pytest.param(sp.csc_matrix(np.array(INDICATOR)), id="sparse matrix"),
    ],
)
def test_indicator_of_labels_of_any_kind_is_multilabel(y):
    encoder, codes = encode(y)
    clf = classifier().fit(np.eye(4), y)

    assert encoder.is_multilabel
    assert codes.tolist() == INDICATOR
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.predict(np.eye(4)).tolist() == INDICATOR
    assert clf.predict_proba(np.eye(4)).shape == (4, 3)
    assert clf.score(np.eye(4), y) == 1.0


def test_two_columns_one_hot_are_labels_of_their_own():
    one_hot = np.eye(2, dtype=int)[[0, 1, 1, 0]]

    with pytest.warns(UserWarning, match="exactly one 1"):
        clf = classifier().fit(np.eye(2)[[0, 1, 1, 0]], one_hot)

    assert clf.predict(np.eye(2)).tolist() == [[1, 0], [0, 1]]


# Labels that cannot be fitted


@pytest.mark.parametrize(
    ("y", "first_row"),
    [
        pytest.param([0.0, 1.0, np.nan], 2, id="floats"),
        pytest.param(np.array([0.0, np.nan, np.nan], np.float32), 1, id="float32"),
        pytest.param([0, None, 1], 1, id="ints and None"),
        pytest.param(["a", "b", None], 2, id="strings and None"),
        pytest.param(["a", float("nan"), "b"], 1, id="strings and NaN"),
        pytest.param([True, None, False], 1, id="bools and None"),
        pytest.param(np.array(["a", np.nan, "b"], dtype=object), 1, id="objects"),
        pytest.param(pd.Series(["a", None, "b"]), 1, id="pandas strings"),
        pytest.param(pd.Series(["a", pd.NA, "b"], dtype="string"), 1, id="pandas string dtype"),
        pytest.param(pd.Series([1, pd.NA, 0], dtype="Int64"), 1, id="pandas Int64"),
        pytest.param(pd.Series([True, pd.NA, False], dtype="boolean"), 1, id="pandas boolean"),
        pytest.param(pd.Categorical(["a", None, "b"]), 1, id="pandas categorical"),
        pytest.param(pl.Series(["a", None, "b"]), 1, id="polars strings"),
        pytest.param(pl.Series([1, None, 0]), 1, id="polars ints"),
        pytest.param(pl.Series([True, None, False]), 1, id="polars bools"),
        pytest.param(torch.tensor([0.0, float("nan"), 1.0]), 1, id="tensor"),
        pytest.param([[0.0], [np.nan], [1.0]], 1, id="column"),
        pytest.param([[0.0, 1.0], [np.nan, 1.0], [1.0, 0.0]], 1, id="labels"),
    ],
)
def test_missing_labels_are_refused_with_their_rows(y, first_row):
    with pytest.raises(ValueError, match=rf"(?s)y contains NaN.* missing.*\[{first_row}"):
        classifier().fit(np.eye(3), y)


def test_infinite_labels_are_refused_with_their_rows():
    with pytest.raises(ValueError, match=r"y contains infinity or a value too large .* row 1;"):
        read_labels([0.0, np.inf, 1.0])


@pytest.mark.parametrize(
    ("y", "shown"),
    [
        pytest.param([1, "1", 2], r"1 \(int\).*'1' \(str\)", id="list"),
        pytest.param(["one", 2, "one"], r"'one' \(str\).*2 \(int\)", id="list, string first"),
        pytest.param(np.array([1, "1"], dtype=object), r"1 \(int\).*'1' \(str\)", id="objects"),
        pytest.param(
            np.array(["1", 1], dtype=object), r"'1' \(str\).*1 \(int\)", id="string first"
        ),
        pytest.param(pd.Series([1, "1"], dtype=object), r"1 \(int\).*'1' \(str\)", id="pandas"),
        pytest.param(np.array([b"a", 1], dtype=object), r"b'a' \(bytes\).*1 \(int\)", id="bytes"),
        pytest.param(np.array(["a", b"a"], object), r"'a' \(str\).*b'a' \(bytes\)", id="both"),
    ],
)
def test_labels_of_mixed_types_are_refused_with_two_of_them(y, shown):
    with pytest.raises(ValueError, match=f"`y` has labels of mixed types.*{shown}"):
        read_labels(y)


@pytest.mark.parametrize(
    "y",
    [
        pytest.param([0.5, 1.5, 2.0], id="list"),
        pytest.param(torch.tensor([0.1, 0.2, 0.3]), id="tensor"),
        pytest.param(pd.Series([0.5, 1.5, 2.5], dtype="Float64"), id="pandas"),
        pytest.param(np.array([0.5, 1.5, 2.5], dtype=object), id="objects"),
    ],
)
def test_continuous_target_is_refused_in_the_words_of_scikit_learn(y):
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        classifier().fit(np.eye(3), y)


@pytest.mark.parametrize(
    "y",
    [
        pytest.param([[1, 2, 3], [3, 2, 1]], id="three values"),
        pytest.param([[1, 2], [2, 1]], id="ones and twos"),
        pytest.param([[-1, 1], [1, -1]], id="signs"),
        pytest.param([[0, 2], [2, 0]], id="zeros and twos"),
        pytest.param([["a", "b"], ["b", "a"]], id="strings"),
    ],
)
def test_several_columns_of_other_values_than_0_and_1_are_refused(y):
    with pytest.raises(ValueError, match=r"`y` has shape \(2, \d\).*0 and 1.*multilabel"):
        read_labels(y)


@pytest.mark.parametrize("y", [[[0.5, 1.0], [1.0, 0.2]], np.zeros((2, 2, 2))])
def test_target_that_is_no_table_of_classes_is_refused(y):
    with pytest.raises(ValueError, match=r"[Uu]nknown label type"):
        read_labels(y)


def test_records_are_no_labels():
    y = np.array([(1, 2), (2, 3)] * 4, dtype=[("kind", "i"), ("size", "i")])

    with pytest.raises(ValueError, match=r"records .* \['kind', 'size'\]; .* `y\['kind'\]`"):
        read_labels(y)


def test_no_labels_at_all_are_asked_for():
    with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None"):
        classifier().fit(np.eye(3))


def test_no_labels_to_validate_on_are_asked_for_by_their_name():
    with pytest.raises(ValueError, match=r"the target y_val is None; pass `y_val`, the labels"):
        classifier().fit(np.eye(3), [0, 1, 2], X_val=np.eye(3))


@pytest.mark.parametrize(("y", "shown"), [([1, 1, 1], "1"), (["yes"] * 3, "'yes'")])
def test_one_class_is_refused_with_the_way_out(y, shown):
    with pytest.raises(ValueError, match=f"only one class, {shown};.*two classes.*`?classes="):
        classifier().fit(np.eye(3), y)


@pytest.mark.parametrize(
    ("trained", "validated", "named"),
    [
        pytest.param([0, 1, 2], [0, 3, 1], r"\[3\]", id="codes"),
        pytest.param([0, 1, 2], [0, -1, 1], r"\[-1\]", id="negative"),
        pytest.param([0, 5, 9], [0, 5, 7], r"\[7\]", id="ints"),
        pytest.param(["a", "b", "c"], ["a", "z", "b"], r"\['z'\]", id="strings"),
        pytest.param(["a", "b", "c"], ["a", "bb", "b"], r"\['bb'\]", id="longer strings"),
        pytest.param([0, 1, 2], ["0", "1", "2"], r"'0'", id="strings for ints"),
        pytest.param(["0", "1", "2"], [0, 1, 2], r"\[0", id="ints for strings"),
        pytest.param([0, 1, 2], [0.0, 3.0, 1.0], r"\[3.0\]", id="floats"),
    ],
)
def test_labels_that_training_did_not_see_are_named(trained, validated, named):
    clf = classifier()

    with pytest.raises(ValueError, match=f"not among the training classes.*{named}.*`classes="):
        clf.fit(np.eye(3), trained, validation_data=(np.eye(3), validated))


@pytest.mark.parametrize(
    "given",
    [
        {"validation_data": (np.eye(3), ["a", "z", "b"])},
        {"X_val": np.eye(3), "y_val": ["a", "z", "b"]},
    ],
)
def test_unseen_labels_of_the_validation_data_are_told_from_those_of_the_training(given):
    with pytest.raises(ValueError, match=r"(validation_data|y_val).*not among.*\['z'\]"):
        classifier().fit(np.eye(3), ["a", "b", "c"], **given)


def test_labels_of_another_number_of_columns_than_in_training_are_refused():
    clf = classifier(epochs=1).fit(np.eye(4), INDICATOR)

    with pytest.raises(ValueError, match=r"shape \(4, 2\); expected 3 label columns"):
        clf.evaluate(np.eye(4), np.array(INDICATOR)[:, :2])
    with pytest.raises(ValueError, match=r"shape \(4,\); expected 3 label columns"):
        clf.evaluate(np.eye(4), [0, 1, 2, 0])


# Classes that the user names


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        pytest.param([0, 1, 0], [0, 1, 2], [0, 1, 2], id="ints"),
        pytest.param([5, 1, 5], (9, 5, 1), [1, 5, 9], id="not sorted"),
        pytest.param(["a", "c", "a"], ["c", "a", "longer"], ["a", "c", "longer"], id="strings"),
        pytest.param(["a", "c", "a"], pd.Series(["a", "b", "c"]), ["a", "b", "c"], id="pandas"),
        pytest.param([1, 1, 1], [0, 1], [0, 1], id="one class in the rows"),
        pytest.param([0, 1, 0], range(30), list(range(30)), id="many"),
    ],
)
def test_classes_may_be_more_than_the_labels_hold(y, classes, expected):
    clf = classifier(classes=classes, epochs=1).fit(np.eye(3), y)

    assert clf.classes_.tolist() == expected
    assert clf.predict_proba(np.eye(3)).shape == (3, len(expected))


def test_validation_may_hold_a_class_that_only_classes_names():
    clf = classifier(classes=["a", "b", "c"], epochs=1)

    clf.fit(np.eye(3), ["a", "b", "a"], validation_data=(np.eye(3), ["a", "b", "c"]))

    assert len(clf.history_["val_loss"]) == 1


def test_labels_that_classes_does_not_name_are_refused():
    with pytest.raises(ValueError, match=r"\['c'\]; known are \['a', 'b'\]"):
        classifier(classes=["a", "b"]).fit(np.eye(3), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], "only one class"),
        ([0.5, 1.5], "continuous"),
        (["a", None], "classes contains NaN"),
    ],
)
def test_classes_that_cannot_be_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        classifier(classes=classes).fit(np.eye(3), ["a", "a", "a"])


def test_classes_of_a_multilabel_target_are_refused():
    with pytest.raises(ValueError, match=r"`classes`.*multilabel.*3 columns"):
        classifier(classes=["x", "y", "z"]).fit(np.eye(4), INDICATOR)


# Weights of classes


def weights(class_weight, y, classes=None):
    encoder, codes = encode(y, classes)
    return class_weights(class_weight, encoder, codes)


def test_no_class_weight_is_none():
    assert weights(None, [0, 1, 1]) is None


@pytest.mark.parametrize("y", [[0, 1, 1, 1], ["a", "b", "b", "c", "c", "c"], [9, -1, 9, 4]])
def test_balanced_weights_are_those_of_scikit_learn(y):
    expected = compute_class_weight("balanced", classes=np.unique(y), y=np.array(y))

    assert weights("balanced", y).tolist() == pytest.approx(expected.tolist())


def test_balanced_weights_of_classes_without_rows_do_not_count():
    assert weights("balanced", [0, 1, 1, 1], classes=[0, 1, 2]).tolist()[:2] == pytest.approx(
        [2.0, 2 / 3]
    )


@pytest.mark.parametrize(
    ("class_weight", "y", "expected"),
    [
        pytest.param({0: 2.0, 1: 0.5}, [0, 1, 1], [2.0, 0.5], id="all"),
        pytest.param({1: 3}, [0, 1, 2], [1.0, 3.0, 1.0], id="some"),
        pytest.param({}, [0, 1, 2], [1.0, 1.0, 1.0], id="none"),
        pytest.param({"b": 3, "a": 0}, ["b", "a", "b"], [0.0, 3.0], id="strings"),
        pytest.param({np.str_("b"): np.float32(3)}, ["b", "a"], [1.0, 3.0], id="NumPy"),
        pytest.param({b"b": 3}, [b"b", b"a"], [1.0, 3.0], id="bytes"),
        pytest.param({True: 5}, [True, False], [1.0, 5.0], id="bools"),
        pytest.param({-1: 2}, [1, -1], [2.0, 1.0], id="negative classes"),
    ],
)
def test_weights_of_a_dict_are_in_the_order_of_the_classes(class_weight, y, expected):
    assert weights(class_weight, y).tolist() == expected


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"d": 1.0}, r"unknown classes \['d'\].*\['a', 'b', 'c'\]"),
        ({0: 1.0, 1: 1.0}, r"unknown classes \[0, 1\].*\['a', 'b', 'c'\]"),
        ({"a": -1.0}, r"\{'a': -1.0\}.*\['a', 'b', 'c'\]"),
        ({"b": float("nan")}, r"\{'b': nan\}.*\['a', 'b', 'c'\]"),
        ({"c": float("inf")}, r"\{'c': inf\}.*\['a', 'b', 'c'\]"),
        ({"a": "heavy"}, r"\{'a': 'heavy'\}"),
        ({"a": None}, r"\{'a': None\}"),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, "leaves every row without weight"),
    ],
)
def test_wrong_weights_are_refused_with_the_known_classes(class_weight, message):
    with pytest.raises(ValueError, match=f"`class_weight`.*{message}"):
        classifier(class_weight=class_weight).fit(np.eye(3), ["a", "b", "c"])


@pytest.mark.parametrize("class_weight", ["balance", "Balanced", [1.0, 2.0, 1.0], 2.0])
def test_class_weight_of_another_kind_is_refused(class_weight):
    with pytest.raises(ValueError, match=r"'class_weight' parameter of Estimator.*'balanced'.*Got"):
        classifier(class_weight=class_weight).fit(np.eye(3), ["a", "b", "c"])


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0}])
def test_class_weight_of_a_multilabel_target_is_refused(class_weight):
    with pytest.raises(ValueError, match=r"`class_weight`.*multilabel.*loss__pos_weight"):
        classifier(class_weight=class_weight).fit(np.eye(4), INDICATOR)


def test_balanced_training_weighs_all_classes_alike():
    y = np.array([0] * 9 + [1])
    constant = np.zeros((10, 1), dtype=np.float32)

    clf = classifier(class_weight="balanced", optimizer="sgd", epochs=60).fit(constant, y)

    np.testing.assert_allclose(clf.predict_proba(constant[:1]), [[0.5, 0.5]], atol=0.01)


# Extremes


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_one_row_of_a_class_among_many_trains(n_outputs, class_weight):
    y = np.zeros(400, dtype=int)
    y[7] = 1
    X = np.linspace(-1, 1, 400, dtype=np.float32)[:, None]
    module = functools.partial(nn.Linear, 1, n_outputs)

    clf = Estimator(lambda: module(), class_weight=class_weight, epochs=2, batch_size=32)
    clf.fit(X, y)

    assert np.isfinite(clf.history_["loss"]).all()
    assert ((clf.history_["accuracy"] >= 0) & (clf.history_["accuracy"] <= 1)).all()


def test_as_many_classes_as_rows_train():
    y = [f"name {number:02d}" for number in range(40)]

    clf = classifier().fit(np.eye(40), y)

    assert clf.predict(np.eye(40)).tolist() == y


def test_ten_thousand_classes_train():
    X, y = np.eye(3), [0, 5_000, 9_999]

    clf = classifier(classes=np.arange(10_000), epochs=30).fit(X, y)

    assert clf.predict(X).tolist() == y
    assert clf.predict_proba(X).shape == (3, 10_000)


def test_classes_in_columns_are_warned_of_with_the_way_out():
    with pytest.warns(UserWarning, match=r"exactly one 1.*as 3 labels.*pass `y.argmax\(1\)`"):
        TargetEncoder().fit(np.eye(3, dtype=int)[[0, 1, 2, 0]])


@pytest.mark.parametrize("labels", [np.eye(3, dtype=int), np.array([[1, 1], [0, 1], [0, 0]])])
def test_several_labels_are_not_warned_of(labels):
    assert TargetEncoder().fit(labels).is_multilabel


def test_soft_labels_are_refused_by_name():
    with pytest.raises(ValueError, match=r"soft labels, which are not trained.*`y.argmax\(1\)`"):
        read_labels(np.array([[0.2, 0.8], [0.5, 0.5]]))


def test_columns_of_other_fractions_are_not_taken_for_soft_labels():
    with pytest.raises(ValueError, match="Unknown label type: continuous-multioutput"):
        read_labels(np.array([[0.2, 0.9], [0.5, 0.5]]))


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="`classes` is empty; give all classes, or None"):
        TargetEncoder().fit(np.array([0, 1]), [])


def test_text_and_bytes_are_not_compared():
    with pytest.raises(ValueError, match="bytes and text are never equal"):
        accuracy(np.array([b"a", b"b"]), np.array(["a", "b"]), None)


def test_one_label_is_not_compared_with_many_answers():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        accuracy(np.array([b"a"]), np.array([b"a", b"b"]), None)
