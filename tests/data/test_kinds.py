"""The kinds of X: each is read as rows of its own class."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from easyclf import MultiInput
from easyclf.data import memmap
from easyclf.data.datasets import DatasetRows
from easyclf.data.kinds import kind_of
from easyclf.data.loaders import LoaderRows
from easyclf.data.memmap import FileRows
from easyclf.data.schema import ReadContext
from easyclf.data.sparse import SparseRows
from easyclf.data.streams import StreamRows
from easyclf.data.tensors import TensorRows

DENSE = np.arange(8, dtype=np.float32).reshape(4, 2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(DENSE), range(4), strict=True))


def dataset():
    return TensorDataset(torch.from_numpy(DENSE), torch.arange(4))


def mapped(path):
    np.save(path / "x.npy", DENSE)
    return np.load(path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    ("make", "expected", "holds_labels"),
    [
        (lambda path: DENSE, TensorRows, False),
        (lambda path: DENSE.tolist(), TensorRows, False),
        (lambda path: torch.from_numpy(DENSE), TensorRows, False),
        (lambda path: pd.DataFrame(DENSE), TensorRows, False),
        (lambda path: pl.DataFrame(DENSE), TensorRows, False),
        (lambda path: (DENSE, DENSE), TensorRows, False),
        (lambda path: {"a": DENSE}, TensorRows, False),
        (lambda path: MultiInput({"a": DENSE}), TensorRows, False),
        (lambda path: sp.csc_array(DENSE), SparseRows, False),
        (lambda path: sp.dok_array(DENSE), SparseRows, False),
        (
            lambda path: pd.DataFrame(DENSE).astype(pd.SparseDtype(np.float32, 0.0)),
            SparseRows,
            False,
        ),
        (mapped, FileRows, False),
        (lambda path: dataset(), DatasetRows, True),
        (lambda path: Stream(), StreamRows, True),
        (lambda path: DataLoader(dataset()), LoaderRows, True),
        (lambda path: DataLoader(Stream()), LoaderRows, True),
    ],
)
def test_each_kind_of_x_has_its_rows(make, expected, holds_labels, tmp_path, monkeypatch):
    monkeypatch.setattr(memmap, "LARGE", 1)
    X = make(tmp_path)
    context = ReadContext(BaseEstimator(), torch.float32, {}, None, encodes_frames=True)

    rows, schema = kind_of(X).read(X, context)

    assert type(rows) is expected
    assert kind_of(X).holds_labels is holds_labels
    assert schema.is_fixed
