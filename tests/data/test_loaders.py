"""How datasets are read: seeds, workers, streams and weights."""

import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torch.utils.data import get_worker_info as worker

from easyclf import Estimator, LambdaCallback
from easyclf.data.items import fields_of
from easyclf.data.workers import shut_down
from small_dataset import LABELS, ROWS, SETTINGS, Joined, Kind, fit, network

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Dying(Kind):
    """Rows of which one, in the second batch, ends the worker that reads it."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def __getitem__(self, row):
        if row == 17 and worker():
            time.sleep(self.after)
            os._exit(1)
        return super().__getitem__(row)


DYING = {"classes": [0, 1], "loader__num_workers": 1, "shuffle": False}
# torch raises for a dead worker wherever the process is, in a finalizer too.
dying = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Stream(IterableDataset):
    """The same rows, one after the other."""

    def __init__(self, n_rows=60, shares=False):
        self.n_rows, self.shares = n_rows, shares

    def __iter__(self):
        for row in range(self.n_rows):
            if not (self.shares and worker() and row % worker().num_workers != worker().id):
                yield torch.from_numpy(ROWS[row]), int(LABELS[row])


def weights(clf):
    return [weight.tolist() for weight in clf.module_.parameters()]


@pytest.fixture
def _no_workers_left():
    yield
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


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


@pytest.mark.usefixtures("_no_workers_left")
class TestWorkers:
    def test_the_same_batches_come_from_any_number_of_workers(self):
        found = [weights(fit(Kind(noise=0.3), loader__num_workers=n)) for n in (0, 1, 2)]

        assert found[0] == found[1] == found[2]

    def test_dropout_too_is_the_same_for_any_number_of_workers(self):
        module = nn.Sequential(network(), nn.Dropout(0.5))

        found = [weights(fit(Kind(), module, loader__num_workers=n)) for n in (0, 2)]

        assert found[0] == found[1]

    def test_random_rows_differ_between_epochs_and_seeds(self):
        seen = []

        class Seeing(Kind):
            def __getitem__(self, row):
                item = super().__getitem__(row)
                seen.append((row, item[0].tolist()))
                return item

        fit(Seeing(noise=0.3), epochs=2, shuffle=False)

        first = [x for row, x in seen if row == 5][-2:]
        assert first[0] != first[1]
        other = fit(Kind(noise=0.3), random_state=1, shuffle=False)
        assert weights(other) != weights(fit(Kind(noise=0.3), shuffle=False))

    def test_global_random_states_stay_as_they_are(self, random_states):
        module, before = network(), random_states()

        clf = fit(DataLoader(Kind(noise=0.3), 16, shuffle=True), module)
        clf.predict(DataLoader(Kind(noise=0.3), 16, shuffle=True))
        fit(Kind(noise=0.3), module, loader__num_workers=1)

        assert random_states() == before

    def test_workers_live_as_long_as_the_fit(self):
        processes = []

        def note(state):
            processes.append({process.pid for process in multiprocessing.active_children()})

        fit(Kind(), loader__num_workers=2, callbacks=[LambdaCallback(on_epoch_end=note)])

        assert len(processes[0]) == 2
        assert processes[0] == processes[2]
        assert not multiprocessing.active_children()

    def test_a_loader_of_the_users_keeps_its_own_workers_and_order(self):
        loader = DataLoader(Kind(), 16, num_workers=1, persistent_workers=True)

        clf = fit(loader)

        assert weights(clf) == weights(fit(Kind(), shuffle=False))
        assert not multiprocessing.active_children()

    def test_an_error_in_a_worker_keeps_its_traceback_and_its_row(self):
        class Broken(Kind):
            def __getitem__(self, row):
                if row == 17:
                    raise OSError("no such picture")
                return super().__getitem__(row)

        with pytest.raises(OSError, match=r"no such picture(.|\n)*for row 17"):
            fit(Broken(), classes=[0, 1], loader__num_workers=2)

        assert not multiprocessing.active_children()

    @dying
    @pytest.mark.parametrize("after", [0.0, 0.2])
    def test_a_worker_that_dies_is_an_error_with_a_hint(self, after):
        with pytest.raises(RuntimeError, match=r"worker died.*loader__num_workers=0"):
            fit(Dying(after), **DYING)

        assert not multiprocessing.active_children()

    @dying
    def test_a_worker_that_dies_during_a_step_is_one_with_the_same_hint(self):
        def wait(state):
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                time.sleep(0.01)

        with pytest.raises(RuntimeError, match=r"worker died.*loader__num_workers=0"):
            fit(Dying(0.2), callbacks=[LambdaCallback(on_batch_end=wait)], **DYING)

        assert not multiprocessing.active_children()

    @dying
    def test_a_worker_that_dies_in_the_end_does_not_hide_the_error_before(self):
        def fail(state):
            raise LookupError("the first error")

        with pytest.raises(LookupError, match="the first error"):
            fit(Dying(0.5), callbacks=[LambdaCallback(on_batch_end=fail)], **DYING)

        assert not multiprocessing.active_children()

    @pytest.mark.parametrize("began", [False, True])
    def test_workers_are_ended_also_if_torch_says_there_that_one_died(self, began):
        calls = []

        class Iterator:
            def _shutdown_workers(self):
                calls.append("ended" if calls or began else "not begun")
                if len(calls) == 1:
                    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

        shut_down(Iterator())

        assert calls[-1] == "ended"

    def test_another_error_in_ending_the_workers_is_passed_on(self):
        calls = []

        class Iterator:
            def _shutdown_workers(self):
                calls.append("called")
                if len(calls) == 1:
                    raise RuntimeError("no more threads")

        with pytest.raises(RuntimeError, match="no more threads"):
            shut_down(Iterator())

    def test_ctrl_c_ends_the_workers(self):
        def interrupt(state):
            raise KeyboardInterrupt

        callbacks = [LambdaCallback(on_batch_end=interrupt)]
        with pytest.raises(KeyboardInterrupt):
            fit(Kind(), loader__num_workers=2, callbacks=callbacks)

        assert not multiprocessing.active_children()


class TestOptions:
    @pytest.mark.parametrize(
        ("X", "parameters", "error", "words"),
        [
            (Kind(), {"loader__num_worker": 1}, TypeError, "did you mean `loader__num_workers`"),
            (Kind(), {"loader__batch_size": 1}, TypeError, "set `batch_size`, `shuffle`"),
            (Kind(), {"loader__sampler": []}, TypeError, "easyclf's to set"),
            (Kind(), {"loader__in_order": False}, TypeError, "easyclf's to set"),
            (Kind(), {"loader__generator": None}, TypeError, "easyclf's to set"),
            (DataLoader(Kind()), {"loader__timeout": 1}, ValueError, "which has its own settings"),
        ],
    )
    def test_options_that_cannot_be_used_are_refused(self, X, parameters, error, words):
        with pytest.raises(error, match=words):
            fit(X, **parameters)

    def test_options_beside_an_array_are_refused(self):
        with pytest.raises(ValueError, match="ndarray, which needs no DataLoader"):
            Estimator(network(), loader__num_workers=1).fit(ROWS, LABELS)

    def test_options_are_parameters(self):
        clf = Estimator(network(), loader__num_workers=1)

        assert clf.get_params()["loader__num_workers"] == 1
        assert clf.set_params(loader__num_workers=0).loader__num_workers == 0

    def test_rows_of_several_lengths_are_padded_by_the_user(self):
        class Words(Dataset):
            def __len__(self):
                return 40

            def __getitem__(self, row):
                return torch.full((2 + row % 3,), 1 + row % 2), row % 2

        def pad(items):
            words, labels = zip(*items, strict=True)
            return nn.utils.rnn.pad_sequence(words, batch_first=True), torch.tensor(labels)

        class Bag(nn.Module):
            def __init__(self, n_classes):
                super().__init__()
                self.embedding = nn.Embedding(3, 4, padding_idx=0)
                self.output = nn.Linear(4, n_classes)

            def forward(self, x):
                return self.output(self.embedding(x).mean(1))

        clf = fit(Words(), Bag, loader__collate_fn=pad, epochs=20)

        assert clf.score(Words()) == 1
        assert clf.predict(Subset(Words(), [0, 1])).tolist() == [0, 1]


class Weighted(Kind):
    """Rows with the weights that a test gives."""

    def __init__(self, weights, shape=()):
        super().__init__()
        self.weights, self.shape = weights, shape

    def __getitem__(self, row):
        weight = torch.tensor(self.weights[row % len(self.weights)], dtype=torch.float64)
        return (*super().__getitem__(row), weight.reshape(self.shape))


class TestWeights:
    def test_rows_of_weight_zero_are_as_if_they_were_not_there(self):
        """Also for batch normalization, which knows no weights."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

        clf = fit(Weighted([1.0, 0.0]), module, batch_size=-1, shuffle=False)

        every_other = Subset(Kind(), range(0, 60, 2))
        expected = fit(every_other, module, batch_size=-1, shuffle=False, classes=[0, 1])
        np.testing.assert_allclose(
            clf.module_[0].running_mean, expected.module_[0].running_mean, rtol=1e-5
        )

    def test_a_column_of_weights_is_one_weight_a_row(self):
        by_column, flat = fit(Weighted([1.0, 2.0], (1,))), fit(Weighted([1.0, 2.0]))

        assert weights(by_column) == weights(flat)

    @pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
    def test_weights_that_make_no_sense_are_refused(self, wrong):
        with pytest.raises(ValueError, match="expected one finite weight of at least 0"):
            fit(Weighted([1.0, wrong, 2.0]))

    def test_two_weights_for_a_row_are_refused(self):
        with pytest.raises(ValueError, match="expected one finite weight"):
            fit(Weighted([[1.0, 2.0]], (2,)))

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_batch_normalization_always_gets_enough_rows(self, shuffle):
        module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

        clf = fit(Weighted([1.0, 0.0, 0.0, 0.0]), module, batch_size=4, shuffle=shuffle)

        assert np.isfinite(clf.history_["loss"]).all()

    def test_weights_that_are_all_zero_are_refused(self):
        with pytest.raises(ValueError, match="no row has a positive weight"):
            fit(Weighted([0.0]))


class TestStreams:
    def test_a_stream_is_trained_on_in_its_order(self):
        assert weights(fit(Stream())) == weights(fit(Kind(), shuffle=False))

    def test_with_classes_it_is_not_read_before_training(self):
        begun = []

        class Counted(Stream):
            def __iter__(self):
                begun.append(1)
                return super().__iter__()

        fit(Counted(), classes=[0, 1])
        with_classes = len(begun)
        fit(Counted())

        assert len(begun) - with_classes == with_classes + 1

    @pytest.mark.parametrize("verbose", [0, 1, 2])
    def test_its_length_need_not_be_known(self, verbose):
        clf = Estimator(network(), classes=[0, 1], verbose=verbose, **SETTINGS)
        clf.fit(Stream(), validation_data=Stream(20))

        assert clf.predict(Stream()).shape == (60,)
        assert clf.evaluate(Stream())["accuracy"] == clf.score(Kind())

    def test_a_loader_of_a_stream(self):
        assert weights(fit(DataLoader(Stream(), 16))) == weights(fit(Stream()))

    def test_shares_of_workers_are_one_epoch(self):
        assert fit(Stream(shares=True), loader__num_workers=2).score(Kind()) > 0.5

    @pytest.mark.parametrize(
        ("X", "parameters", "words"),
        [
            (Stream(), {"loader__num_workers": 2}, "2 workers begin with the same.*get_worker"),
            (Stream(), {"loader__num_workers": 2, "classes": [0, 1]}, "begin with the same rows"),
            (DataLoader(Stream(), 16, num_workers=2), {}, "2 workers begin with the same rows"),
            (Stream(0), {"classes": [0, 1]}, "0 rows"),
            (Stream(0), {}, "0 rows"),
            (Stream(), {"batch_size": -1, "classes": [0, 1]}, "does not say how many"),
            (Stream(), {"validation_split": 0.2}, "cannot be split"),
            (Stream(), {"cache": True}, "rows come as it pleases"),
            (Stream(), {"classes": [0, 7]}, r"not among the training classes: \[1\]"),
        ],
    )
    def test_streams_that_cannot_be_right_are_refused(self, X, parameters, words):
        with pytest.raises(ValueError, match=words):
            fit(X, **parameters)

    def test_a_stream_that_ends_earlier_in_another_epoch_is_refused(self):
        class Shrinking(Stream):
            def __iter__(self):
                self.n_rows -= 1
                return super().__iter__()

        with pytest.raises(ValueError, match=r"yielded \d\d rows in this epoch and \d\d before"):
            fit(Shrinking(), classes=[0, 1])

    def test_workers_that_all_yield_everything_are_noticed_in_prediction_too(self):
        clf = fit(Kind())

        with pytest.raises(ValueError, match="begin with the same rows"):
            clf.predict(DataLoader(Stream(), 16, num_workers=2))

    def test_workers_with_rows_that_are_equal_by_chance_are_none_that_yield_everything(self):
        class Zeros(Stream):
            def __iter__(self):
                for x, y in super().__iter__():
                    yield torch.zeros_like(x), y

        stream = Zeros(shares=True)

        assert fit(stream, loader__num_workers=2, classes=[0, 1], batch_size=4).history_

    def test_a_loader_may_drop_the_last_rows_of_a_stream(self):
        assert fit(DataLoader(Stream(), 16, drop_last=True)).score(Kind()) > 0.5


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
