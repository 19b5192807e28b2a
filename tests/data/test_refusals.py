"""What cannot be read is refused with a sentence, and what is doubtful is warned about."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from easyclf import Estimator
from small_dataset import LABELS, ROWS, Kind, fit


class Items(Dataset):
    """Sixty items, as a function of their rows makes them."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 60

    def __getitem__(self, row):
        return self.item(row)


def row(number):
    return torch.from_numpy(ROWS[number])


@pytest.mark.parametrize(
    ("X", "y", "error", "words"),
    [
        (pl.DataFrame(ROWS).lazy(), LABELS, TypeError, r"LazyFrame.*`X.collect\(\)`"),
        (
            pd.DataFrame({"a": pd.arrays.IntervalArray.from_breaks(range(61))}),
            LABELS,
            ValueError,
            r"neither numbers nor categories: 'a' \(interval",
        ),
        (DataLoader(Kind(), batch_size=None), None, ValueError, "of single rows.*`batch_size`"),
        (ROWS, np.array(["2020-01-01", "NaT"] * 30, dtype="datetime64[D]"), ValueError, "NaT: 30"),
        (
            Items(lambda number: (row(number), "1" if number % 2 else 1)),
            None,
            ValueError,
            r"mixed types: 1 \(int\) and '1' \(str\)",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(X, y, error, words):
    with pytest.raises(error, match=words):
        Estimator(epochs=1).fit(X, y)


def test_a_lazy_frame_has_no_answers():
    clf = Estimator(epochs=1).fit(pl.DataFrame(ROWS), LABELS)

    with pytest.raises(TypeError, match="holds no rows yet"):
        clf.predict(pl.DataFrame(ROWS).lazy())


def test_packed_fields_are_read():
    packed = np.zeros(60, dtype=np.dtype([("flag", "i1"), ("x", "f8", (4,))]))
    packed["x"] = ROWS

    assert Estimator(epochs=1).fit(packed["x"], LABELS).predict(packed["x"]).shape == (60,)


def test_several_uncertain_answers_are_refused():
    with pytest.raises(ValueError, match=r"`uncertain` is \[1, 2\]; expected one answer"):
        fit(Kind()).predict(ROWS, min_proba=0.9, uncertain=[1, 2])


@pytest.mark.parametrize("X", [ROWS, Kind()])
def test_a_part_of_the_data_without_weight_is_refused(X):
    rows = np.flatnonzero(LABELS == 0)
    clf = Estimator(class_weight={0: 0.0})
    data = (X[rows], LABELS[rows]) if X is ROWS else (torch.utils.data.Subset(X, rows.tolist()),)

    with pytest.raises(ValueError, match="leaves every row without weight"):
        clf.partial_fit(*data, classes=[0, 1])


def test_numbers_of_rows_taken_for_weights_are_warned_about():
    with pytest.warns(UserWarning, match="weights 0, 1, 2, 3 .*look like the numbers of the rows"):
        fit(Items(lambda number: (row(number), number % 2, number)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(Items(lambda number: (row(number), number % 2, number + 1.0)))


def test_other_classes_in_a_training_that_goes_on_are_warned_about():
    clf = Estimator(epochs=1, warm_start=True).fit(ROWS, LABELS).set_params(classes=[0, 1, 2])

    with pytest.warns(UserWarning, match=r"`classes` is \[0, 1, 2\], which plays no part"):
        clf.fit(ROWS, LABELS)


@pytest.mark.parametrize("write", [lambda x: x.mul_(2), lambda x: x.data.mul_(2)])
def test_work_in_place_at_some_sizes_never_reaches_the_users_rows(write):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            if len(x) > 5:
                write(x)
            return self.layer(x)

    X = ROWS.copy()

    clf = Estimator(InPlace, epochs=2, batch_size=-1, shuffle=False).fit(X, LABELS)
    clf.predict(X)
    clf.evaluate(X, LABELS)

    np.testing.assert_array_equal(X, ROWS)


def test_a_cache_of_rows_that_change_later_on_is_refused():
    noisy = Items(lambda number: (row(number) + (torch.rand(()) if number > 9 else 0), number % 2))

    with pytest.raises(ValueError, match="differ from one reading to the next"):
        fit(noisy, cache=True)


def test_labels_beside_the_items_that_are_stale_later_on_are_not_believed():
    items = Items(lambda number: (row(number), int(number > 40)))
    items.targets = [number % 2 if 2 <= number <= 40 else int(number > 40) for number in range(60)]

    clf = fit(items, class_weight="balanced")

    expected = fit(Items(items.item), class_weight="balanced")
    np.testing.assert_array_equal(clf.history_["loss"], expected.history_["loss"])
