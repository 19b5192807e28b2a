"""Items of datasets: their forms, their labels, and their errors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from easyclf.data.items import fields_of
from small_dataset import LABELS, ROWS, Joined, Kind, fit, weights

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class TestItems:
    @pytest.mark.parametrize("kind", ["dict", "arrays"])
    def test_forms_that_mean_the_same_give_the_same(self, kind):
        assert weights(fit(Kind(kind))) == weights(fit(Kind("pair")))

    def test_a_weight_may_be_third_or_have_a_name(self):
        by_name, by_place = fit(Kind("dict with weight")), fit(Kind("weight"))

        assert weights(by_name) == weights(by_place) != weights(fit(Kind("pair")))

    @pytest.mark.parametrize("kind", ["inputs by name", "inputs by place"])
    def test_several_inputs(self, kind):
        clf = fit(Kind(kind), Joined())

        assert clf.score(Kind(kind)) > 0.5
        assert clf.predict(Kind(kind)).shape == (60,)

    def test_text_labels(self):
        assert fit(Kind("text")).classes_.tolist() == ["no", "yes"]

    def test_items_without_labels_are_answered(self):
        clf = fit(Kind())

        assert clf.predict(Kind("alone")).tolist() == clf.predict(Kind()).tolist()

    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            (1, (1, None, None)),
            ((1, 2), (1, 2, None)),
            ([1, 2, 3], (1, 2, 3)),
            ({"a": 1}, (1, None, None)),
            ({"a": 1, "labels": 2}, (1, 2, None)),
            ({"a": 1, "b": 5, "target": 2, "sample_weight": 3}, ({"a": 1, "b": 5}, 2, 3)),
        ],
    )
    def test_the_parts_of_an_item(self, item, expected):
        assert tuple(fields_of(item)) == expected

    def test_whoever_fetches_several_rows_at_once_is_asked_for_them(self):
        class Fetching(Kind):
            asked = 0

            def __getitems__(self, rows):
                Fetching.asked += 1
                return [self[row] for row in rows]

        assert weights(fit(Fetching())) == weights(fit(Kind()))
        assert Fetching.asked > 3 * 3

    def test_datasets_of_the_library_of_that_name_are_datasets(self):
        class Foreign:  # not a torch Dataset
            features = ("x", "label")

            def __len__(self):
                return 60

            def __getitem__(self, row):
                return {"x": ROWS[row], "label": LABELS[row]}

            def __getitems__(self, rows):
                return [self[row] for row in rows]

        assert weights(fit(Foreign())) == weights(fit(Kind()))


class TestLabels:
    def test_a_missing_label_is_named(self):
        class Gap(Kind):
            def __getitem__(self, row):
                x, y = super().__getitem__(row)
                return x, None if row == 23 else y

        with pytest.raises(ValueError, match="the first in row 23"):
            fit(Gap())

    def test_datasets_in_a_row_have_the_labels_of_all_of_them(self):
        joined = ConcatDataset([Kind(), Subset(Kind(), range(10))])

        assert fit(joined).score(joined) > 0.5

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            (lambda pictures: pictures, "row 3, folder/3.jpg"),
            (lambda pictures: Subset(pictures, [0, 3]), "row 1, folder/3.jpg"),
            (lambda pictures: ConcatDataset([Subset(pictures, [0]), pictures]), "4, folder/3.jpg"),
        ],
    )
    def test_a_picture_that_cannot_be_read_is_named(self, place, words):
        class Pictures(Kind):
            samples = tuple((f"folder/{row}.jpg", 0) for row in range(60))

            def __getitem__(self, row):
                if row == 3:
                    raise OSError("image file is truncated")
                return super().__getitem__(row)

        with pytest.raises(OSError, match="truncated") as caught:
            fit(place(Pictures()))

        assert any(words in note for note in caught.value.__notes__)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"classes": 2},
            {"labels": 2},
            {"labels": [[1, 2], [3]] * 30},
            {"tensors": {"x": 1}},
            {"targets": [None] * 60},
        ],
    )
    def test_attributes_that_only_look_like_torchvisions_are_left_alone(self, attributes):
        kind = Kind()
        vars(kind).update(attributes)

        assert weights(fit(kind)) == weights(fit(Kind()))

    @pytest.mark.parametrize("cache", [False, True])
    def test_rows_of_several_shapes_are_named_also_among_the_first(self, cache):
        class Ragged(Kind):
            def __getitem__(self, row):
                return torch.zeros(4 - row % 2), row % 2

        with pytest.raises(ValueError, match=r"row 1 has shape \(3,\).*Resize"):
            fit(Ragged(), cache=cache)

    def test_pictures_that_are_no_tensors_are_refused_with_the_way_out(self):
        from torchvision.datasets import FakeData

        with pytest.raises(TypeError, match=r"pictures of type Image.*PILToTensor"):
            fit(FakeData(10, (3, 8, 8)))

    def test_finished_batches_of_a_loader(self):
        class Batches(Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, number):
                rows = slice(20 * number, 20 * number + 20)
                return torch.from_numpy(ROWS[rows]), torch.from_numpy(LABELS[rows])

        clf = fit(DataLoader(Batches(), batch_size=None))

        assert clf.predict(DataLoader(Batches(), batch_size=None)).shape == (60,)

    def test_labels_and_weights_of_a_collation_may_be_arrays(self):
        def collate(items):
            rows, labels = zip(*items, strict=True)
            return torch.stack(rows), np.array(labels)

        loader = DataLoader(Kind(), 59, collate_fn=collate)

        assert fit(loader, nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))).history_

    def test_a_short_batch_joins_another_wherever_it_comes(self):
        loader = DataLoader(Kind(), batch_sampler=[[0], [*range(1, 30)], [*range(30, 60)]])

        assert fit(loader, nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))).history_

    def test_finished_batches_of_the_users_are_not_changed(self):
        batches = [(torch.from_numpy(ROWS[:30].copy()), torch.from_numpy(LABELS[:30]))]
        before = batches[0][0].clone()

        fit(DataLoader(batches, batch_size=None), preprocess=lambda x: x.mul_(2))

        assert torch.equal(batches[0][0], before)
