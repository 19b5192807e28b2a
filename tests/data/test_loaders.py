"""Options of loaders."""

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
)

from easyclf import Estimator, LambdaCallback
from small_dataset import LABELS, ROWS, Kind, fit, network

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Ending(Kind):
    def __getitem__(self, row):
        if row == 30:
            raise StopIteration
        return super().__getitem__(row)


def drop_one(items):
    return torch.utils.data.default_collate(items[:12])


class TestRowsThatVanish:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_dataset_that_ends_early_ends_no_epoch(self, workers):
        clf = fit(Kind())

        for use in (lambda X: fit(X, classes=[0, 1]), clf.predict, clf.evaluate):
            with pytest.raises(RuntimeError, match="raised StopIteration for the rows"):
                use(Ending())
            with pytest.raises((ValueError, RuntimeError), match="StopIteration"):
                use(DataLoader(Ending(), 16, num_workers=workers))

    def test_a_collation_that_ends_early_ends_no_epoch(self):
        def stop(items):
            raise StopIteration

        with pytest.raises(RuntimeError, match="The collation of the Kind raised StopIteration"):
            fit(Kind(), classes=[0, 1], loader__collate_fn=stop)

    def test_rows_that_are_read_together_are_as_many_as_asked_for(self):
        class Together(Kind):
            def __getitems__(self, rows):
                return [self[row] for row in rows if row != 30]

        for use in (lambda X: fit(X, classes=[0, 1]), fit(Kind()).predict):
            with pytest.raises(ValueError, match=r"gave \d+ items for \d+ rows"):
                use(Together())

    def test_a_collation_that_drops_rows_is_for_training_alone(self):
        clf = fit(Kind(), loader__collate_fn=drop_one, classes=[0, 1])

        assert clf.evaluate(DataLoader(Kind(), 16, collate_fn=drop_one))
        for X in (Kind(), DataLoader(Kind(), 16, collate_fn=drop_one)):
            with pytest.raises(ValueError, match=r"of 60 rows, of which \d\d came in batches"):
                clf.predict(X)

    def test_a_loader_that_drops_the_last_rows_answers_none(self):
        with pytest.raises(ValueError, match=r"48 came in batches.*without `drop_last`"):
            fit(Kind()).predict(DataLoader(Kind(), 16, drop_last=True))

        assert len(fit(Kind()).predict(DataLoader(Kind(), 20, drop_last=True))) == 60

    def test_a_sampler_of_batches_is_asked_what_it_drops_and_shuffles(self):
        clf, data = fit(Kind()), Kind()

        def loader(sampler, *, drop_last):
            return DataLoader(data, batch_sampler=BatchSampler(sampler, 16, drop_last))

        with pytest.raises(ValueError, match=r"48 came in batches.*without `drop_last`"):
            clf.predict(loader(range(60), drop_last=True))
        with pytest.raises(ValueError, match=r"`X` is a .* of 60 rows, of which 48 come"):
            clf.score(loader(range(60), drop_last=True))
        with pytest.warns(UserWarning, match="answers come in an order that nobody knows"):
            clf.predict(loader(RandomSampler(data), drop_last=False))
        assert clf.score(loader(range(60), drop_last=False)) == clf.score(data)

    def test_a_loader_that_drops_the_last_rows_is_not_measured(self):
        class Counted(IterableDataset):
            def __len__(self):
                return 60

            def __iter__(self):
                return (Kind()[row] for row in range(60))

        clf = fit(Kind())
        seen = []
        training = {
            "callbacks": [LambdaCallback(on_train_begin=lambda state: seen.append(state))],
            "classes": [0, 1],
        }

        for data in (Kind(), Counted()):
            loader = DataLoader(data, 16, drop_last=True)
            for measure in (clf.evaluate, clf.score):
                with pytest.raises(ValueError, match=r"`X` is a .* of 60 rows, of which 48 come"):
                    measure(loader)
            with pytest.raises(ValueError, match=r"`validation_data` is .*without `drop_last`"):
                clf.fit(Kind(), validation_data=loader, **training)
            whole = clf.evaluate(DataLoader(data, 20, drop_last=True))
            assert whole == pytest.approx(clf.evaluate(DataLoader(data, 20)))
        assert not seen

    def test_answers_in_a_shuffled_order_are_warned_about(self):
        with pytest.warns(UserWarning, match="answers come in an order that nobody knows"):
            fit(Kind()).predict(DataLoader(Kind(), 16, shuffle=True))


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
