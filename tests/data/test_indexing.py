"""Rows of whatever users keep rows in, taken by public means alone."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn.utils
import sklearn.utils.validation
import torch

from easyclf import Estimator, MultiInput
from easyclf.data.indexing import count_rows, take_rows

X = np.arange(12.0).reshape(4, 3)
KINDS = {
    "array": X,
    "tensor": torch.from_numpy(X),
    "list": X.tolist(),
    "pandas": pd.DataFrame(X, index=list("abcd")),
    "polars": pl.DataFrame(X),
    "csr": sp.csr_array(X),
    "coo": sp.coo_array(X),
}


def dense(rows):
    return np.asarray(rows.toarray() if sp.issparse(rows) else rows)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_any_kind_are_counted_and_taken(kind):
    assert count_rows(KINDS[kind]) == 4
    assert dense(take_rows(KINDS[kind], np.array([2, 0]))).tolist() == X[[2, 0]].tolist()


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_columns_of_frames_are_taken(kind):
    column = KINDS[kind][KINDS[kind].columns[0]]

    assert list(take_rows(column, np.array([3, 1]))) == [9, 3]


@pytest.mark.parametrize("rows", [slice(1, 3), [1, 2], np.array([1, 2]), np.arange(4) % 3 > 0])
def test_several_inputs_are_taken_by_a_slice_a_mask_or_numbers(rows):
    assert MultiInput({"a": X, "b": X.tolist()})[rows].inputs["a"].tolist() == X[1:3].tolist()


def test_nothing_private_of_scikit_learn_is_needed(monkeypatch):
    monkeypatch.delattr(sklearn.utils, "_safe_indexing", raising=False)
    monkeypatch.delattr(sklearn.utils.validation, "_check_sample_weight", raising=False)
    clf = Estimator(torch.nn.Linear(3, 2), epochs=1)

    assert clf.fit(X, [0, 1, 0, 1], sample_weight=[1, 0, 1, 1]).n_iter_ == 1
    assert len(MultiInput((X, X))[:2]) == 2
