"""The rows that are held out for validation."""

import numpy as np
import pytest

from easyclf.data.split import split_rows

CODES = np.repeat([0, 1, 2], [60, 30, 10])
CLASSES = np.array(["a", "b", "c"])


def test_every_row_is_either_trained_on_or_held_out():
    train, valid = split_rows(CODES, 0.2, 0, CLASSES)

    assert sorted([*train, *valid]) == list(range(100))


def test_the_parts_have_the_classes_in_the_same_proportion():
    train, valid = split_rows(CODES, 0.2, 0, CLASSES)

    assert np.bincount(CODES[valid]).tolist() == [12, 6, 2]
    assert np.bincount(CODES[train]).tolist() == [48, 24, 8]


def test_the_seed_decides_which_rows_are_held_out():
    first, again, other = (split_rows(CODES, 0.2, seed, CLASSES)[1] for seed in (0, 0, 1))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("counts", "fraction", "words"),
    [
        ([9, 1], 0.2, "class 'b' has 1 of 10 row"),
        ([5, 4, 4], 0.1, r"2 row\(s\) are held out for 3 classes"),
    ],
)
def test_a_split_that_cannot_be_stratified_warns_and_names_the_class(counts, fraction, words):
    codes = np.repeat(np.arange(len(counts)), counts)

    with pytest.warns(UserWarning, match=f"`validation_split` {fraction} .*{words}"):
        train, valid = split_rows(codes, fraction, 0, CLASSES)

    assert sorted([*train, *valid]) == list(range(len(codes)))


def test_several_labels_a_row_are_split_without_stratifying():
    train, valid = split_rows(np.eye(10, 3, dtype=int), 0.3, 0, np.arange(3))

    assert (len(train), len(valid)) == (7, 3)


@pytest.mark.parametrize(("n_rows", "fraction"), [(3, 0.1), (2, 0.9), (1, 0.5)])
def test_a_part_without_rows_is_refused(n_rows, fraction):
    words = rf"`validation_split` {fraction} of {n_rows} row\(s\).*`validation_data`"

    with pytest.raises(ValueError, match=words):
        split_rows(np.arange(n_rows) % 2, fraction, 0, CLASSES)


def test_a_class_of_any_type_can_be_split():
    codes = np.arange(40) % 2

    train, valid = split_rows(codes, 0.25, 0, np.array(["a", "b"], dtype=object))

    assert len(train) == 30
    assert codes[valid].mean() == 0.5
