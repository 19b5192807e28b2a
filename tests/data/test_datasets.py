"""Map-style datasets and data loaders."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from easyclf.data import InputFormat, Order
from easyclf.data.caching import dataset_labels
from easyclf.data.datasets import DatasetSource
from easyclf.data.first_look import FirstLook, class_names, is_dataset
from easyclf.data.loaders import LoaderSource

CPU = InputFormat(torch.device("cpu"), torch.float32)


class Pictures(Dataset):
    """A dataset in torchvision's manner, which counts how often a row is read."""

    classes = ("cat - 0", "dog - 1")
    target_transform = None

    def __init__(self, targets=(1, 0, 1, 1, 0)):
        self.targets = list(targets)
        self.reads = 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        self.reads += 1
        return torch.full((2,), float(row)), self.targets[row]


class Merged(Pictures):
    """Yields other labels than those that it carries."""

    def __getitem__(self, row):
        return torch.zeros(2), min(self.targets[row], 1)


class Pairs(Dataset):
    """A dataset that carries no labels but in its items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def numbered(n_rows):
    """Rows that say their own number: in x and in y."""
    numbers = torch.arange(n_rows)
    return TensorDataset(numbers.float()[:, None], numbers, torch.ones(n_rows))


def source_of(rows, encode=lambda labels: labels):
    look = FirstLook(rows, {})
    if isinstance(rows, DataLoader):
        return LoaderSource(look, encode, CPU, len(rows.dataset))
    return DatasetSource(look, encode, CPU)


def rows_of(batches):
    return [batch.x[:, 0].tolist() for batch in batches]


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (Pictures(), True),
        (DataLoader(Pictures()), True),
        (Subset(Pictures(), [0]), True),
        (torch.zeros(2, 2), False),
        (np.zeros((2, 2)), False),
        ([[0.0]], False),
    ],
)
def test_datasets_and_loaders_are_known_from_arrays(X, expected):
    assert is_dataset(X) is expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (TensorDataset(torch.zeros(3, 1), torch.tensor([2, 0, 2])), [2, 0, 2]),
        (Pictures(), [1, 0, 1, 1, 0]),
        (Subset(Pictures(), [4, 0]), [0, 1]),
        (Subset(Subset(Pictures(), [4, 0, 1]), [2, 1]), [0, 1]),
        (ConcatDataset([Pictures(), Pictures([0])]), [1, 0, 1, 1, 0, 0]),
        (DataLoader(Pictures(), batch_size=2), [1, 0, 1, 1, 0]),
        (DataLoader(Pictures(), batch_size=2, shuffle=True), [1, 0, 1, 1, 0]),
        (Pairs([(torch.zeros(1), "no"), (torch.zeros(1), "yes")]), ["no", "yes"]),
        (
            Pairs([(torch.zeros(1), torch.tensor([1, 0])), (torch.zeros(1), [0, 0])]),
            [[1, 0], [0, 0]],
        ),
    ],
)
def test_the_labels_of_all_rows_are_found(dataset, expected):
    assert dataset_labels(FirstLook(dataset, {})).labels.tolist() == expected


def test_labels_that_a_dataset_carries_are_taken_without_reading_all_rows():
    pictures = Pictures(100 * [0, 1])

    dataset_labels(FirstLook(pictures, {}))

    assert pictures.reads < 30


def test_labels_that_the_items_yield_win_over_those_that_the_dataset_carries():
    assert dataset_labels(FirstLook(Merged([0, 1, 2, 2]), {})).labels.tolist() == [0, 1, 1, 1]


def test_a_target_transform_is_heeded():
    pictures = Pairs([(torch.zeros(1), label) for label in "ab"])
    pictures.targets, pictures.target_transform = [0, 1], "ab".__getitem__

    assert dataset_labels(FirstLook(pictures, {})).labels.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (Pictures(), ["cat - 0", "dog - 1"]),
        (DataLoader(Subset(Pictures(), [0])), ["cat - 0", "dog - 1"]),
        (Pairs([]), None),
        (np.zeros(3), None),
    ],
)
def test_the_names_of_the_classes_are_those_of_the_dataset(X, expected):
    assert class_names(X) == expected


@pytest.mark.parametrize("X", [Pictures(), DataLoader(Pictures(), batch_size=4)])
def test_the_first_rows_are_collated(X):
    x, y, _ = FirstLook(X, {}).first(2)

    assert x.tolist() == [[0, 0], [1, 1]]
    assert y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        (Pairs([]), ValueError, r"Pairs with 0 rows \(0 sample\(s\)\)"),
        (Pairs([torch.zeros(2)]), ValueError, r"Pairs whose items have no label.*\(x, y\)"),
    ],
)
def test_a_dataset_without_rows_or_labels_is_refused(X, error, words):
    with pytest.raises(error, match=words):
        dataset_labels(FirstLook(X, {}))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (("a text", 1), "inputs of type.*ToTensor"),
        ((torch.zeros(1), 1, 1.0, 1.0), "items of 4 parts"),
    ],
)
def test_items_of_another_form_are_refused(item, words):
    with pytest.raises(TypeError, match=words):
        FirstLook(Pairs([item]), {}).first(1)


@pytest.mark.parametrize("min_rows", [1, 2])
@pytest.mark.parametrize("as_loader", [False, True])
def test_a_last_batch_of_too_few_rows_joins_the_one_before(as_loader, min_rows):
    rows = DataLoader(numbered(7), batch_size=3) if as_loader else numbered(7)
    source = source_of(rows)

    batches = list(source.batches(3, min_rows=min_rows))

    expected = [[0, 1, 2], [3, 4, 5], [6]] if min_rows == 1 else [[0, 1, 2], [3, 4, 5, 6]]
    assert rows_of(batches) == expected
    assert [batch.y.tolist() for batch in batches] == expected
    assert source.n_batches(3, min_rows) == len(expected)


def test_an_order_shuffles_a_dataset_and_labels_stay_with_their_rows():
    source = source_of(numbered(10))

    batches = list(source.batches(4, Order(0, True)))

    seen = [row for rows in rows_of(batches) for row in rows]
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(10))
    assert torch.cat([batch.y for batch in batches]).tolist() == seen


@pytest.mark.parametrize("min_rows", [1, 2])
@pytest.mark.parametrize("n_drawn", [5, 6, 7, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_batches_of_a_loader_are_counted_by_what_its_sampler_draws(
    n_drawn, drop_last, min_rows
):
    """Of ten rows, in batches of three."""
    loader = DataLoader(numbered(10), batch_size=3, sampler=range(n_drawn), drop_last=drop_last)
    source = source_of(loader)

    assert source.n_batches(3, min_rows) == len(list(source.batches(3, min_rows=min_rows)))


def test_a_loader_keeps_its_own_batches():
    loader = DataLoader(numbered(5), batch_sampler=[[4, 0], [1, 2, 3]])

    batches = source_of(loader, None).batches(1, Order(0, True))

    assert rows_of(batches) == [[4, 0], [1, 2, 3]]


def test_a_third_field_is_the_weight():
    (batch,) = source_of(numbered(2)).batches(2)

    assert batch.weight.tolist() == [1, 1]


def test_a_source_for_prediction_needs_no_labels():
    (batch,) = source_of(Pairs([torch.zeros(1), torch.ones(1)]), None).batches(2)

    assert batch.x.tolist() == [[0], [1]]
    assert batch.y is None
    assert batch.weight is None
