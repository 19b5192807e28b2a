"""`cache=True`: datasets that are read once."""

import multiprocessing

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from easyclf import Estimator
from easyclf.data import caching
from easyclf.data.caching import cached
from easyclf.data.first_look import FirstLook
from small_dataset import LABELS, ROWS, SETTINGS, Joined, Kind, fit

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.mark.parametrize("kind", ["pair", "weight", "dict", "arrays", "text"])
def test_what_is_cached_trains_as_what_is_read(kind):
    clf = fit(Kind(kind), cache=True)

    assert clf.score(Kind(kind)) == pytest.approx(fit(Kind(kind)).score(Kind(kind)), abs=0.1)
    in_order = [fit(Kind(kind), cache=mode, shuffle=False) for mode in (True, False)]
    np.testing.assert_allclose(*(clf.history_["loss"] for clf in in_order), rtol=1e-5)


def test_every_row_is_read_once():
    reads = []

    class Counted(Kind):
        def __getitem__(self, row):
            reads.append(row)
            return super().__getitem__(row)

    fit(Counted(), cache=True, epochs=5)

    assert 60 <= len(reads) < 60 + 5 + 16


def test_numbers_keep_their_dtype_and_classes_their_names():
    class Pictures(Dataset):
        classes = ("ant", "bee")

        def __len__(self):
            return 20

        def __getitem__(self, row):
            return torch.full((3, 4, 4), row, dtype=torch.uint8), row % 2

    assert cached(FirstLook(Pictures(), {})).x.dtype == torch.uint8
    clf = fit(Pictures(), nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), cache=True)
    assert clf.class_names_ == ["ant", "bee"]


def test_several_inputs():
    kind = Kind("inputs by name")

    clf = Estimator(Joined(), cache=True, **SETTINGS).fit(kind, validation_data=kind)

    assert clf.history_[-1]["val_accuracy"] == clf.score(kind)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_may_be_read_by_workers(workers):
    x, y, _ = cached(FirstLook(Kind(), {"num_workers": workers}))

    np.testing.assert_array_equal(x, ROWS)
    assert y.tolist() == LABELS.tolist()
    assert not multiprocessing.active_children()


def test_random_rows_are_refused():
    with pytest.raises(ValueError, match=r"differ from one reading to the next.*`augment`"):
        fit(Kind(noise=1.0), cache=True)


def test_rows_of_another_dtype_are_refused():
    class Mixed(Kind):
        def __getitem__(self, row):
            x, y = super().__getitem__(row)
            return (x.long() if row == 0 else x), y

    with pytest.raises((TypeError, RuntimeError), match=r"dtype|float"):
        fit(Mixed(), cache=True)


def test_a_loader_is_refused():
    with pytest.raises(ValueError, match="pass a map-style Dataset"):
        fit(DataLoader(Kind()), cache=True)


def test_more_than_there_is_memory_for_is_refused_before_reading(monkeypatch):
    monkeypatch.setattr(caching, "available_memory", lambda: 500)

    with pytest.raises(MemoryError, match=r"`cache=True` needs .* for 60 rows"):
        fit(Kind(), cache=True)
