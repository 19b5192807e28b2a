"""The order of an epoch: it follows from its seed alone, whatever the source."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torch.utils.data import get_worker_info as worker

from easyclf.data import InputFormat, Order, memmap
from easyclf.data.base import Batch, bounds
from easyclf.data.datasets import DatasetRows
from easyclf.data.first_look import FirstLook
from easyclf.data.memmap import FileRows
from easyclf.data.sparse import SparseRows
from easyclf.data.streams import StreamRows
from easyclf.data.tensors import TensorRows

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

CPU = InputFormat(torch.device("cpu"), torch.float64)
NUMBERS = np.arange(40)
DENSE = np.arange(80.0).reshape(40, 2)
EPOCHS = [Order(seed, is_shuffled=True) for seed in (7, 8, 9)]


class Noisy(Dataset):
    """Items to which noise of torch and of NumPy is added anew each time."""

    def __len__(self):
        return 40

    def __getitem__(self, row):
        noise = torch.rand(2) + np.random.rand()  # noqa: NPY002
        return torch.from_numpy(DENSE[row]) + noise, row


class NoisyStream(IterableDataset):
    """Noisy items, shared out among the workers, which the stream shuffles by a state it keeps."""

    def __init__(self):
        self.n_begun = 0

    def __iter__(self):
        self.n_begun += 1
        share = slice(worker().id, None, worker().num_workers) if worker() else slice(None)
        for row in range(40)[share]:
            started = self.n_begun if worker() else 0
            yield Noisy()[row][0] + started, row


def mapped(path):
    np.save(path / "x.npy", DENSE)
    return np.load(path / "x.npy", mmap_mode="r")


def looked(X, **options):
    return FirstLook(X, options)


KINDS = {
    "tensor": lambda path: TensorRows(torch.from_numpy(DENSE)),
    "inputs": lambda path: TensorRows((torch.from_numpy(DENSE), torch.from_numpy(NUMBERS))),
    "sparse": lambda path: SparseRows(sp.csr_array(DENSE)),
    "file": lambda path: FileRows(mapped(path)),
    "dataset": lambda path: DatasetRows(looked(Noisy())),
    "dataset, 2 workers": lambda path: DatasetRows(looked(Noisy(), num_workers=2)),
    "stream": lambda path: StreamRows(looked(NoisyStream())),
    "stream, 2 workers": lambda path: StreamRows(looked(NoisyStream(), num_workers=2)),
    "stream, 2 kept workers": lambda path: StreamRows(
        looked(NoisyStream(), num_workers=2, persistent_workers=True)
    ),
}


def epoch(source, order):
    """The inputs of an epoch, while the module draws between the batches."""
    parts = []
    for batch in source.batches(8, order):
        torch.rand(3)
        parts.append(batch.x if isinstance(batch.x, torch.Tensor) else batch.x[0])
    return torch.cat(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_third_epoch_alone_is_the_third_of_three(kind, tmp_path, monkeypatch):
    """Also bit for bit, with random items, and with workers that stay."""
    monkeypatch.setattr(memmap, "_BLOCK", 4 * 16)
    monkeypatch.setattr(memmap, "_POOL", 3 * 4 * 16)
    rows = KINDS[kind](tmp_path)

    with rows.source(CPU) as source:
        first, second, third = (epoch(source, order) for order in EPOCHS)
    torch.manual_seed(5)
    with rows.source(CPU) as source:
        alone = epoch(source, EPOCHS[2])

    assert torch.equal(alone, third)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_reading_leaves_the_random_states_of_the_process_alone(kind, tmp_path):
    rows = KINDS[kind](tmp_path)
    rows.first(1)
    torch.manual_seed(0)
    expected = torch.rand(6)

    torch.manual_seed(0)
    drawn = []
    with rows.source(CPU) as source:
        for _ in source.batches(20, EPOCHS[0]):
            drawn.append(torch.rand(3))

    assert torch.equal(torch.cat(drawn), expected)


def test_a_random_collation_follows_the_seed_too():
    def collate(items):
        rows = torch.stack([row for row, _ in items])
        return rows + torch.rand(1), torch.tensor([label for _, label in items])

    data = TensorDataset(torch.from_numpy(DENSE), torch.from_numpy(NUMBERS))

    read = []
    for workers in (0, 2):
        rows = DatasetRows(looked(data, collate_fn=collate, num_workers=workers))
        with rows.source(CPU) as source:
            read.append(epoch(source, EPOCHS[0]))

    assert torch.equal(*read)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "min_rows", "expected"),
    [
        (7, 3, 1, [(0, 3), (3, 6), (6, 7)]),
        (7, 3, 2, [(0, 3), (3, 7)]),
        (1, 3, 2, [(0, 1)]),
        (6, 3, 3, [(0, 3), (3, 6)]),
    ],
)
def test_batches_are_cut_at_these_rows(n_rows, batch_size, min_rows, expected):
    assert bounds(n_rows, batch_size, min_rows) == expected


def test_rows_of_a_batch_of_several_inputs_are_taken_together():
    batch = Batch({"a": torch.arange(4), "b": torch.zeros(4, 2)}, torch.arange(4), None)

    part = batch.rows(1, 3)

    assert part.n_rows == 2
    assert part.shape == {"a": (2,), "b": (2, 2)}
    assert part.y.tolist() == [1, 2]
    assert part.weight is None
