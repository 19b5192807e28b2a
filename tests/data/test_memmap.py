"""Arrays in files, read in blocks."""

import mmap
import threading

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator, LambdaCallback
from easyclf.data import InputFormat, Order, memmap
from easyclf.data.memmap import BlockSource, check_finite_memmap, is_large_memmap, read_block

CPU = InputFormat(torch.device("cpu"), torch.float32)
LABELS = np.arange(1000) % 3
ROWS = (np.random.default_rng(0).normal(size=(1000, 4)) + LABELS[:, None]).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    """Blocks of 16 rows, pools of 8 blocks, and files of a kilobyte that count as large."""
    monkeypatch.setattr(memmap, "LARGE", 2**10)
    monkeypatch.setattr(memmap, "_BLOCK", 16 * 16)
    monkeypatch.setattr(memmap, "_POOL", 8 * 16 * 16)


@pytest.fixture(name="X")
def _rows(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def source(X):
    numbers = torch.arange(len(X))
    return BlockSource(X, numbers, numbers.double(), CPU)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100, 128, 500, 999, 1000])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_every_row_comes_once_with_its_label_and_weight(X, batch_size, is_shuffled):
    rows = source(X)

    batches = list(rows.batches(batch_size, Order(0, is_shuffled)))

    numbers = torch.cat([batch.y for batch in batches])
    assert (numbers.tolist() == list(range(1000))) is not is_shuffled
    assert sorted(numbers.tolist()) == list(range(1000))
    assert torch.cat([batch.weight for batch in batches]).tolist() == numbers.tolist()
    np.testing.assert_array_equal(torch.cat([batch.x for batch in batches]), ROWS[numbers])
    assert [len(batch.x) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == rows.n_batches(batch_size)


def test_a_last_batch_of_too_few_rows_joins_the_one_before(X):
    assert [len(batch.x) for batch in source(X).batches(333, min_rows=2)] == [333, 333, 334]


def test_batches_stay_as_they_are_while_later_pools_are_read(X):
    batches = list(source(X).batches(50, Order(0, True)))

    for batch in batches:
        np.testing.assert_array_equal(batch.x, ROWS[batch.y])


def test_rows_are_mixed_well_beyond_their_block(X):
    """A file sorted by class: every batch has rows from many places."""
    batches = list(source(X).batches(64, Order(0, True)))[:-1]

    spreads = [batch.y.double().std().item() for batch in batches]
    assert min(spreads) > 150  # of 289, were all of them drawn at random; 18 in order


def test_the_order_follows_the_seed(X):
    first, second, third = (
        torch.cat([b.y for b in source(X).batches(64, Order(seed, True))]) for seed in (0, 0, 1)
    )

    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def fit(X, **parameters):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    settings = {"epochs": 3, "lr": 0.01, "batch_size": 50, "random_state": 0}
    return Estimator(module, **{**settings, **parameters}).fit(X, LABELS)


def test_a_fit_in_order_is_that_of_the_array_in_memory(X):
    in_file, in_memory = fit(X, shuffle=False), fit(ROWS, shuffle=False)

    np.testing.assert_allclose(in_file.history_["loss"], in_memory.history_["loss"], rtol=1e-6)
    np.testing.assert_allclose(in_file.predict_proba(X), in_memory.predict_proba(ROWS), rtol=1e-5)
    assert in_file.score(X, LABELS) == in_memory.score(ROWS, LABELS)


@pytest.mark.parametrize("weight", [None, np.arange(1000) % 2])
def test_a_part_that_is_drawn_from_a_file_is_read_into_memory(X, weight):
    parameters = {"validation_split": 0.2, "shuffle": False}

    losses = []
    for rows in (X, ROWS):
        torch.manual_seed(0)
        clf = Estimator(nn.Linear(4, 3), epochs=2, random_state=0, **parameters)
        losses.append(clf.fit(rows, LABELS, weight).history_["val_loss"])

    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_shuffled_fit_learns_as_well(X):
    assert fit(X).score(X, LABELS) == pytest.approx(fit(ROWS).score(ROWS, LABELS), abs=0.03)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int32", "uint8", "bool"])
def test_numbers_of_any_kind(tmp_path, dtype):
    rows = (np.abs(ROWS) * 3).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)

    clf = fit(np.load(tmp_path / "rows.npy", mmap_mode="r"), shuffle=False)

    expected = fit(rows, shuffle=False)
    np.testing.assert_allclose(clf.history_["loss"], expected.history_["loss"], rtol=1e-5)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_every_mode_of_a_file(tmp_path, mode):
    np.save(tmp_path / "rows.npy", ROWS)
    X = np.load(tmp_path / "rows.npy", mmap_mode=mode)
    if mode != "r":
        X[0] = 5  # in mode "c" in memory only

    clf = fit(X)

    assert len(clf.history_) == 3
    np.testing.assert_array_equal(X[1:], ROWS[1:])
    assert X[0].tolist() == ([5] * 4 if mode != "r" else ROWS[0].tolist())


def test_a_part_of_a_file(X):
    part = X[100:900]
    numbers = torch.arange(800)

    batches = list(BlockSource(part, numbers, None, CPU).batches(64))

    np.testing.assert_array_equal(torch.cat([batch.x for batch in batches]), ROWS[100:900])


def test_what_is_small_or_not_in_order_is_an_array_as_any_other(X, monkeypatch):
    assert is_large_memmap(X)
    assert not is_large_memmap(ROWS)
    assert not is_large_memmap(X.T)
    assert not is_large_memmap(X[::2])
    assert not is_large_memmap(np.asarray(X))
    monkeypatch.setattr(memmap, "LARGE", 2**30)
    assert not is_large_memmap(X)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_before_training(tmp_path, value):
    rows = ROWS.copy()
    rows[777, 2] = value
    np.save(tmp_path / "rows.npy", rows)

    with pytest.raises(ValueError, match="row 777, column 2"):
        fit(np.load(tmp_path / "rows.npy", mmap_mode="r"))


def test_a_file_that_has_shrunk_is_refused(X, tmp_path):
    with (tmp_path / "rows.npy").open("r+b") as file:
        file.truncate(5000)

    with pytest.raises(ValueError, match=r"rows.npy, which has 5000 bytes.*open the file anew"):
        fit(X)


def test_a_file_that_shrinks_in_training_is_refused(X, tmp_path):
    def shrink(state):
        with (tmp_path / "rows.npy").open("r+b") as file:
            file.truncate(5000)

    before = threading.active_count()
    with pytest.raises(ValueError, match="which has 5000 bytes"):
        fit(X, callbacks=[LambdaCallback(on_epoch_end=shrink)])

    assert threading.active_count() == before


@pytest.mark.parametrize("when", ["on_batch_end", "on_epoch_end"])
def test_the_thread_that_reads_ahead_ends_with_the_fit(X, when):
    before = threading.active_count()

    def stop(state):
        raise KeyError("enough")

    fit(X)
    assert threading.active_count() == before
    with pytest.raises(KeyError):
        fit(X, callbacks=[LambdaCallback(**{when: stop})])
    assert threading.active_count() == before


def test_an_error_while_reading_ahead_is_raised_where_the_batches_are_used(X, monkeypatch):
    def broken(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(memmap, "read_block", broken)

    with pytest.raises(OSError, match="the disk is gone"):
        list(source(X).batches(10))


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system has no such advice")
def test_what_was_read_takes_no_memory_of_the_process(tmp_path):
    def resident():
        with open("/proc/self/smaps") as file:  # noqa: PTH123
            lines = file.read().splitlines()
        at = next(n for n, line in enumerate(lines) if "large.npy" in line)
        return next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))

    path = tmp_path / "large.npy"
    np.save(path, np.zeros((2**20, 8), np.float32))  # 32 MB
    X = np.load(path, mmap_mode="r")
    memory = np.empty((2**12, 8), np.float32)

    for start in range(0, 2**20, 2**12):
        read_block(X, start, start + 2**12, memory)

    assert resident() < 2**12  # kilobytes, of 8 times as many
    check_finite_memmap(X, torch.float32)
    assert resident() < 2**12
