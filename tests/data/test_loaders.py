"""Options of loaders."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from easyclf import Estimator
from small_dataset import LABELS, ROWS, Kind, fit, network

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


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
