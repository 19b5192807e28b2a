"""Frames whose columns are not numbers, and those whose columns are."""

import datetime
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.utils.data import TensorDataset

from easyclf import Estimator
from easyclf.data.dataframes import refuse_columns
from easyclf.data.frame_encoder import FrameEncoder
from easyclf.data.split import split_rows


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"age": [1.0], "sex": ["f"]}), r"1 column\(s\).*'sex' \("),
        (pd.DataFrame({"port": pd.Categorical(["C"])}), r"'port' \(category\)"),
        (pd.DataFrame({"code": pd.Categorical([1])}), r"'code' \(category\)"),
        (pd.DataFrame({"day": [pd.Timestamp("2024-01-01")]}), r"'day' \(datetime64"),
        (pd.DataFrame({"wait": [pd.Timedelta(1)]}), r"'wait' \(timedelta64"),
        (pd.DataFrame({"a": ["x"], "n": [1], "b": ["y"]}), r"2 column\(s\).*'a'.*'b'"),
        (pd.DataFrame({f"c{i}": ["x"] for i in range(7)}), r"7 column\(s\).*'c4' \(.*\), \.\.\."),
        (pl.DataFrame({"age": [1.0], "sex": ["f"]}), r"1 column\(s\).*'sex' \(String\)"),
        (pl.DataFrame({"port": pl.Series(["C"], dtype=pl.Categorical)}), "'port'.*Categorical"),
        (pl.DataFrame({"day": [pd.Timestamp("2024-01-01")]}), "'day'.*Datetime"),
    ],
)
def test_columns_that_are_not_numbers_are_named_with_their_dtypes(frame, words):
    with pytest.raises(ValueError, match=f"(?s)`X` has .*{words}.*OneHotEncoder"):
        refuse_columns(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.5], "b": [1], "c": [True]}),
        pd.DataFrame({"a": [1], "b": [2.5]}).convert_dtypes(),
        pd.DataFrame({"a": pd.array([True, None], dtype="boolean")}),
        pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.0])}),
        pd.DataFrame({"a": np.array([1, 2], dtype=object)}),
        pl.DataFrame({"a": [1.5], "b": [1], "c": [True]}),
        np.array([["text"]]),
        [["text"]],
    ],
)
def test_columns_of_numbers_and_what_is_no_frame_pass(frame):
    refuse_columns(frame)


# Categories and gaps, for the default module

N = 200
RNG = np.random.default_rng(0)
TOWNS = RNG.choice(["Bonn", "Kiel", "Ulm"], N)
AGES = RNG.integers(20, 60, N).astype(float)
VIP = RNG.random(N) > 0.5
LABELS = ((TOWNS == "Bonn") ^ (AGES > 40)).astype(int)
SETTINGS = {"epochs": 30, "lr": 0.01, "random_state": 0}


def people(**columns):
    ages = AGES.copy()
    ages[::10] = np.nan
    return pd.DataFrame({"age": ages, "town": TOWNS, "vip": VIP, **columns})


FRAMES = {
    "pandas": people(),
    "objects": people().astype({"town": object}),
    "nullable": people().convert_dtypes(),
    "category": people().astype({"town": "category"}),
    "polars": pl.DataFrame(
        {"age": [None if a != a else a for a in people()["age"]], "town": TOWNS.tolist()}
    ),
    "polars categories": pl.DataFrame({"age": AGES, "town": TOWNS.tolist()}).with_columns(
        pl.col("town").cast(pl.Categorical)
    ),
}


def fit(frame, **parameters):
    return Estimator(**{**SETTINGS, **parameters}).fit(frame, LABELS)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_trained_on_as_they_are(name):
    frame = FRAMES[name]

    clf = fit(frame, validation_split=0.2)

    assert clf.score(frame, LABELS) > 0.85
    assert clf.n_features_in_ == frame.shape[1]
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    assert clf.history_[-1]["val_accuracy"] > 0.7


def test_scikit_learn_splits_them():
    assert cross_val_score(Estimator(**SETTINGS), people(), LABELS, cv=3).mean() > 0.75


def test_text_objects_and_categories_mean_the_same():
    losses = [fit(FRAMES[name]).history_["loss"] for name in ("pandas", "objects", "category")]

    np.testing.assert_allclose(losses[0], losses[1])
    np.testing.assert_allclose(losses[0], losses[2])


def encoded(frame, other=None):
    return FrameEncoder().fit(frame).transform(frame if other is None else other)


def test_gaps_become_the_median_and_a_column_that_says_so():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0, 8.0], "b": [1, 2, 3, 4]})

    assert encoded(frame).tolist() == [[1, 1, 0], [3, 2, 1], [3, 3, 0], [8, 4, 0]]


def test_a_gap_that_training_never_had_is_the_median():
    frame = pd.DataFrame({"a": [1.0, 3.0, 8.0], "b": ["x", "y", "x"]})
    other = pd.DataFrame({"a": [np.nan], "b": ["x"]})

    assert encoded(frame, other).tolist() == [[3, 1, 0]]


def test_each_category_is_a_column_and_gaps_are_one():
    frame = pd.DataFrame({"b": ["x", None, "y", "x"]})

    columns = encoded(frame)

    assert columns.shape == (4, 3)
    assert (columns.sum(1) == 1).all()
    assert columns[0].tolist() == columns[3].tolist() != columns[1].tolist()


def test_rare_categories_join_the_infrequent_ones():
    names = pd.DataFrame({"name": [f"name {n}" for n in range(1000)]})
    towns = pd.DataFrame({"town": ["a"] * 500 + ["b"] * 498 + ["c", "d"]})

    with pytest.warns(UserWarning, match="a text of its own"):
        assert encoded(names).shape == (1000, 1)
    assert encoded(towns).shape == (1000, 3)
    assert encoded(towns, pd.DataFrame({"town": ["unseen"]})).tolist() == [[0, 0, 1]]


def test_a_category_that_training_never_had_is_none_of_the_others():
    frame = pd.DataFrame({"town": ["a", "b"]})

    assert encoded(frame, pd.DataFrame({"town": ["c"]})).tolist() == [[0, 0]]
    with pytest.warns(UserWarning, match=r"5 of 6 row\(s\) in column 'town' .*such as 'c'"):
        assert encoded(frame, pd.DataFrame({"town": ["a"] + 5 * ["c"]}))[1:].sum() == 0
    with pytest.warns(UserWarning, match="with values that `fit` has not seen"):
        assert fit(people()).predict(people(town="elsewhere")).shape == (N,)


def test_numbers_as_categories_are_equal_whatever_their_type():
    frame = pd.DataFrame({"floor": pd.Categorical([1, 2, 1])})
    other = pd.DataFrame({"floor": pd.Categorical([1.0, 2.0, 1.0])})

    assert encoded(frame, other).tolist() == encoded(frame).tolist()


def test_a_column_of_nothing_but_gaps_is_harmless():
    clf = fit(people(empty=np.full(N, np.nan)))

    assert np.isfinite(clf.history_["loss"]).all()


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (people(), True),
        (pd.DataFrame({"a": [1, 2]}), False),
        (pd.DataFrame({"a": [1.5, np.nan]}), True),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), True),
        (pd.DataFrame({"a": [True, False]}), False),
        (pl.DataFrame({"a": [1, None]}), True),
        (pl.DataFrame({"a": [1, 2]}), False),
        (np.array([[np.nan]]), False),
    ],
)
def test_only_frames_with_categories_or_gaps_need_it(frame, expected):
    assert FrameEncoder.is_needed(frame) is expected


def test_a_frame_of_numbers_is_as_it_was():
    frame = pd.DataFrame({"a": AGES, "b": AGES**2})

    assert fit(frame)._fitted.schema.frame_encoder is None


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (people(day=pd.Timestamp("2020-01-01")), ValueError, r"neither.*'day' \(datetime64"),
        (people(gap=pd.Timedelta("1h")), ValueError, "'gap'"),
        (
            pd.concat([people(), people()[["town"]]], axis=1),
            ValueError,
            r"several columns of one name: \['town'\]",
        ),
        (people(x=np.where(np.arange(N) == 7, np.inf, 0)), ValueError, "in column 'x', row 7"),
    ],
)
def test_columns_that_cannot_be_used_are_named(frame, error, words):
    with pytest.raises(error, match=words):
        fit(frame)


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (people()[["town", "age", "vip"]], ValueError, "same order"),
        (people().drop(columns="age"), ValueError, "age"),
        (people(more=1), ValueError, "more"),
        (people().to_numpy(), TypeError, "expected a frame with the columns of `fit`"),
        (people(age="old"), ValueError, "other values than numbers in column 'age'.*held numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_other_columns_than_in_fit_are_refused(other, error, words):
    clf = fit(people())

    with pytest.raises(error, match=words):
        clf.predict(other)


def test_a_module_of_ones_own_takes_numbers_only_and_says_the_way_out():
    with pytest.raises(ValueError, match=r"'town'.*ColumnTransformer.*leave `module` out"):
        Estimator(nn.Linear(3, 2)).fit(people(), LABELS)


def test_what_was_learned_of_the_columns_is_pickled():
    clf = fit(people())

    again = pickle.loads(pickle.dumps(clf))

    np.testing.assert_array_equal(again.predict_proba(people()), clf.predict_proba(people()))


def test_training_goes_on_with_the_same_columns():
    clf = Estimator(warm_start=True, **SETTINGS).fit(people(), LABELS)
    width = clf.module_.shift.shape

    clf.fit(people(town="Bonn"), LABELS)
    clf.partial_fit(people(), LABELS)

    assert clf.module_.shift.shape == width


def test_rows_of_weight_zero_are_not_learned_from():
    frame = people()
    more = pd.concat([frame, people(age=1e3, town="Nowhere")], ignore_index=True)
    labels, weight = np.tile(LABELS, 2), np.repeat([1.0, 0.0], N)

    clf = Estimator(**SETTINGS).fit(more, labels, weight)

    np.testing.assert_array_equal(clf.predict_proba(frame), fit(frame).predict_proba(frame))


OBJECTS = {
    "decimals": [Decimal("1.5"), Decimal("2"), None],
    "bools": [np.True_, np.False_, None],
    "numbers": [1, 2.5, None],
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_that_are_numbers_are_numbers(name):
    column = pd.Series(OBJECTS[name], dtype=object)

    (first, _), (second, _), (_, gap) = encoded(pd.DataFrame({"a": column}))

    assert [first, second] == [float(one) for one in OBJECTS[name][:2]]
    assert gap == 1


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), (1, 2), {"a": 1}])
def test_objects_that_are_neither_are_refused(value):
    column = pd.Series([value] * N, dtype=object)

    with pytest.raises(ValueError, match=r"neither numbers nor categories: 'thing' \(object\)"):
        fit(people(thing=column))


@pytest.mark.parametrize(
    "other",
    [torch.zeros(3, 3), TensorDataset(torch.zeros(3, 3)), np.zeros((3, 3)), sp.csr_array((3, 3))],
)
def test_what_is_no_frame_is_refused_where_fit_had_categories(other):
    clf = fit(people())

    with pytest.raises(TypeError, match="expected a frame with the columns of `fit`"):
        clf.predict(other)


def test_a_frame_without_rows_is_refused():
    with pytest.raises(ValueError, match="0 sample"):
        Estimator().fit(people()[:0], [])
    with pytest.raises(ValueError, match="0 sample"):
        fit(people()).predict(people()[:0])


def test_text_where_the_first_rows_had_numbers_is_refused_for_what_it_is():
    clf = Estimator(**SETTINGS).partial_fit(pd.DataFrame({"a": AGES}), LABELS, classes=[0, 1])

    with pytest.raises(ValueError, match="the rows of `fit` had numbers in all columns"):
        clf.partial_fit(pd.DataFrame({"a": TOWNS}), LABELS)


def test_labels_of_another_length_are_refused_beside_weights():
    with pytest.raises(ValueError, match=f"X has {N}, y has {2 * N}"):
        Estimator(**SETTINGS).fit(people(), np.tile(LABELS, 2), np.ones(N))


def test_a_class_whose_rows_do_not_count_is_still_a_class():
    labels = np.arange(N) % 3

    clf = Estimator(**SETTINGS).fit(people(), labels, (labels != 2).astype(float))

    assert clf.classes_.tolist() == [0, 1, 2]


def test_what_is_no_number_in_a_column_of_objects_is_refused_by_name():
    column = pd.Series([1, None, 2.5, 4] * (N // 4), dtype=object)
    clf = fit(people(code=column))

    with pytest.raises(ValueError, match=r"other values than numbers in column 'code' \(object\)"):
        clf.predict(people(code=pd.Series([datetime.date(2020, 1, 1)] * N, dtype=object)))


def numbers_with_a_gap():
    frame = pd.DataFrame(np.arange(80.0).reshape(40, 2), columns=["a", "b"])
    return frame, frame.mask(frame == 7)


def test_gap_is_told_by_the_name_of_its_column():
    _, gap = numbers_with_a_gap()

    with pytest.raises(ValueError, match=r"contains NaN.*row 3, column 'b'"):
        Estimator(nn.Linear(2, 2)).fit(gap, [0, 1] * 20)


def test_gap_that_training_had_not_is_refused_with_the_reason():
    whole, gap = numbers_with_a_gap()
    clf = Estimator(epochs=1).fit(whole, [0, 1] * 20)

    with pytest.raises(ValueError, match="contains NaN") as caught:
        clf.predict(gap)
    assert "The rows of `fit` had no gaps" in caught.value.__notes__[0]


@pytest.mark.parametrize("n_rows", [20, 40])
def test_column_of_free_text_is_warned_of_by_its_name(n_rows):
    frame = pd.DataFrame({"kind": ["a", "b"] * (n_rows // 2)})
    frame["who"] = [f"person {row}" for row in range(n_rows)]

    with pytest.warns(UserWarning, match=r"\['who'\] in which nearly every row has a text"):
        Estimator(epochs=1).fit(frame, [0, 1] * (n_rows // 2))


ZIPS = ["1001", "2002", "3003"] * 20
SAME_ZIPS = {
    "int": [1001, 2002, 3003] * 20,
    "float": [1001.0, 2002.0, 3003.0] * 20,
    "text of floats": ["1001.0", "2002.0", "3003.0"] * 20,
    "category": pd.Categorical([1001, 2002, 3003] * 20),
}


@pytest.mark.parametrize("package", [pd, pl])
@pytest.mark.parametrize("kind", SAME_ZIPS)
def test_numbers_that_were_text_in_fit_are_read_as_that_text(kind, package):
    if package is pl and kind == "category":
        pytest.skip("polars has no categories of numbers")
    frame = package.DataFrame({"zip": ZIPS, "town": ["a", "b"] * 30})
    other = package.DataFrame({"zip": SAME_ZIPS[kind], "town": ["a", "b"] * 30})

    assert encoded(frame, other).tolist() == encoded(frame).tolist()


def test_codes_that_are_no_numbers_stay_apart():
    frame = pd.DataFrame({"code": ["01001", "1001", "1e3", "1000"] * 20})

    assert len(np.unique(encoded(frame), axis=0)) == 4


def test_texts_that_are_one_number_stay_apart():
    frame = pd.DataFrame({"version": ["1", "1.0", "2"] * 20})

    assert len(np.unique(encoded(frame), axis=0)) == 3


def test_large_whole_numbers_stay_apart():
    frame = pd.DataFrame({"id": pd.Categorical([2**60, 2**60 + 1] * 20)})

    assert len(np.unique(encoded(frame), axis=0)) == 2


def test_bools_that_were_text_in_fit_are_read_as_that_text():
    frame = pd.DataFrame({"is": ["True", "False"] * 20})
    other = pd.DataFrame({"is": [True, False] * 20})

    assert encoded(frame, other).tolist() == encoded(frame).tolist()


def test_another_type_with_unseen_values_is_warned_about_with_both_types():
    frame = pd.DataFrame({"code": pd.Series(["01", "02", "3"] * 20, dtype=object)})
    other = pd.DataFrame({"code": [1, 3, 3]})

    with pytest.warns(UserWarning, match=r"1 of 3 .*'code' \(int64; object in `fit`\).*'1'.*give"):
        encoded(frame, other)


def test_rows_that_are_held_out_teach_no_medians_and_no_categories():
    frame = people(age=np.where(np.arange(N) % 10, np.arange(N) ** 1.5, np.nan))
    clf = Estimator(validation_split=0.5, **SETTINGS).fit(frame, LABELS)
    train, _ = split_rows(LABELS, 0.5, SETTINGS["random_state"], np.unique(LABELS))

    encoder = clf._fitted.schema.frame_encoder

    expected = FrameEncoder().fit(frame.iloc[train]).transform(frame)
    np.testing.assert_array_equal(encoder.transform(frame), expected)
    assert not np.array_equal(FrameEncoder().fit(frame).transform(frame), expected)
