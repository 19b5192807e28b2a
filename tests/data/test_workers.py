"""Processes that read ahead: torch's messages about them are known by how they begin."""

import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from easyclf.data import workers
from easyclf.data.workers import iterate, says_worker_died


class Failing(Dataset):
    """Raises, or ends the worker, when its row is read."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, row):
        if self.error is None:
            os._exit(1)
        raise self.error


def test_an_error_of_a_dataset_in_a_worker_begins_as_torch_passes_it_on():
    loader = DataLoader(Failing(ConnectionError("no network")), num_workers=1)

    with pytest.raises(ConnectionError) as caught:
        list(iterate(loader))

    assert str(caught.value).startswith(workers._PASSED_ON)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_worker_is_told_by_torchs_message():
    loader = DataLoader(Failing(None), num_workers=1)

    with pytest.raises(RuntimeError) as caught:
        list(loader)

    assert says_worker_died(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("another"), ValueError("DataLoader worker (pid")])
def test_other_errors_are_none_of_a_dead_worker(error):
    assert not says_worker_died(error)


def test_a_loader_without_workers_raises_the_error_of_its_dataset():
    with pytest.raises(ConnectionError, match="no network"):
        list(iterate(DataLoader(Failing(ConnectionError("no network")))))


def test_batches_pass_through():
    assert list(iterate([torch.ones(1), torch.zeros(1)])) == [torch.ones(1), torch.zeros(1)]
