"""Datasets that scikit-learn splits, and labels beside a dataset."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from torch.utils.data import DataLoader, Dataset, TensorDataset

from easyclf import Estimator, SliceDataset
from small_dataset import LABELS, ROWS, SETTINGS, Kind, fit, network, weights

TEXTS = np.array(["no", "yes"])[LABELS]


@pytest.fixture
def clf():
    return Estimator(network(), **SETTINGS)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(2, 4), [2, 3]),
        ([5, 1], [5, 1]),
        (np.arange(60) > 57, [58, 59]),
        ((np.array([3]), ...), [3]),
    ],
    ids=["slice", "list", "mask", "as scikit-learn"],
)
def test_rows_are_taken_as_of_an_array(rows, expected):
    part = SliceDataset(Kind())[rows]

    assert part.shape == (len(expected),)
    assert [x.tolist() for x, _ in part] == ROWS[expected].tolist()


def test_number_reads_an_item():
    x, y = SliceDataset(Kind())[np.int64(3)]

    assert (x.tolist(), y) == (ROWS[3].tolist(), LABELS[3])


def test_slice_of_a_slice_counts_its_own_rows():
    part = SliceDataset(Kind())[10:][5:7]

    assert part.indices == [15, 16]
    assert part[0][0].tolist() == ROWS[15].tolist()


@pytest.mark.parametrize("dataset", [Kind(), TensorDataset(*map(torch.tensor, (ROWS, LABELS)))])
def test_labels_are_read_wherever_they_are(dataset):
    assert SliceDataset(dataset)[5:9].y.tolist() == LABELS[5:9].tolist()


def test_folds_of_a_dataset_score_as_those_of_its_rows(clf):
    folds = StratifiedKFold(3, shuffle=True, random_state=0)

    of_dataset = cross_val_score(clf, SliceDataset(Kind()), LABELS, cv=folds)

    np.testing.assert_allclose(of_dataset, cross_val_score(clf, ROWS, LABELS, cv=folds))


def test_folds_of_a_dataset_need_no_labels_beside_it(clf):
    assert len(cross_val_score(clf, SliceDataset(Kind()), cv=2)) == 2


def test_scores_by_probability_are_measured_in_folds(clf):
    X = SliceDataset(Kind())

    scores = cross_val_score(clf, X, X.y, cv=2, scoring="roc_auc")

    assert ((scores > 0) & (scores <= 1)).all()


def test_search_goes_over_a_dataset(clf):
    search = GridSearchCV(clf, {"lr": [0.01, 0.1]}, cv=2).fit(SliceDataset(Kind()), LABELS)

    assert search.predict(Kind("alone")).shape == (60,)


# Labels beside a dataset


@pytest.mark.parametrize("kind", ["pair", "alone", "dict", "weight"])
def test_labels_beside_a_dataset_are_its_labels(kind, clf):
    clf.fit(Kind(kind), TEXTS)

    assert clf.classes_.tolist() == ["no", "yes"]
    assert weights(clf) == weights(fit(Kind()))
    assert clf.score(Kind(kind), TEXTS) == fit(Kind()).score(Kind())


def test_labels_beside_a_dataset_may_be_objects_and_several(clf):
    assert clf.fit(Kind(), TEXTS.astype(object)).classes_.tolist() == ["no", "yes"]

    indicator = np.stack([LABELS, 1 - LABELS], 1)
    indicator[0] = 1
    assert clf.fit(Kind(), indicator).predict(Kind("alone")).shape == (60, 2)


def test_weights_stand_beside_labels(clf):
    sample_weight = 1.0 + np.arange(60) % 3

    clf.fit(Kind(), LABELS, sample_weight)

    assert weights(clf) == weights(fit(Kind("weight")))


def test_validation_rows_may_have_labels_beside_them(clf):
    clf.fit(Kind(), LABELS, validation_data=(Kind("alone"), LABELS))

    assert clf.history_[-1]["val_accuracy"] == clf.score(ROWS, LABELS)


def test_as_many_labels_as_rows_are_needed(clf):
    with pytest.raises(ValueError, match="inconsistent numbers of samples: X has 60, y has 59"):
        clf.fit(Kind(), LABELS[:59])


def test_loader_takes_no_labels_beside_it(clf):
    with pytest.raises(ValueError, match="DataLoader, which already yields targets"):
        clf.fit(DataLoader(Kind()), LABELS)


def test_items_that_a_splitter_made_a_list_of_are_refused_with_the_wrapper(clf):
    assert isinstance(Kind(), Dataset)
    with pytest.raises(TypeError, match=r"list of 40 items .*`easyclf.SliceDataset\(dataset\)"):
        cross_val_score(clf, Kind(), LABELS, cv=3, error_score="raise")
