"""Frames whose columns are not numbers, and those whose columns are."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from easyclf.data import refuse_columns


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"age": [1.0], "sex": ["f"]}), r"1 column\(s\).*'sex' \("),
        (pd.DataFrame({"port": pd.Categorical(["C"])}), r"'port' \(category\)"),
        (pd.DataFrame({"code": pd.Categorical([1])}), r"'code' \(category\)"),
        (pd.DataFrame({"day": [pd.Timestamp("2024-01-01")]}), r"'day' \(datetime64"),
        (pd.DataFrame({"wait": [pd.Timedelta(1)]}), r"'wait' \(timedelta64"),
        (pd.DataFrame({"a": ["x"], "n": [1], "b": ["y"]}), r"2 column\(s\).*'a'.*'b'"),
        (pd.DataFrame({f"c{i}": ["x"] for i in range(7)}), r"7 column\(s\).*'c4' \(.*\), \.\.\."),
        (pl.DataFrame({"age": [1.0], "sex": ["f"]}), r"1 column\(s\).*'sex' \(String\)"),
        (pl.DataFrame({"port": pl.Series(["C"], dtype=pl.Categorical)}), "'port'.*Categorical"),
        (pl.DataFrame({"day": [pd.Timestamp("2024-01-01")]}), "'day'.*Datetime"),
    ],
)
def test_columns_that_are_not_numbers_are_named_with_their_dtypes(frame, words):
    with pytest.raises(ValueError, match=f"(?s)`X` has .*{words}.*OneHotEncoder"):
        refuse_columns(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.5], "b": [1], "c": [True]}),
        pd.DataFrame({"a": [1], "b": [2.5]}).convert_dtypes(),
        pd.DataFrame({"a": pd.array([True, None], dtype="boolean")}),
        pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.0])}),
        pd.DataFrame({"a": np.array([1, 2], dtype=object)}),
        pl.DataFrame({"a": [1.5], "b": [1], "c": [True]}),
        np.array([["text"]]),
        [["text"]],
    ],
)
def test_columns_of_numbers_and_what_is_no_frame_pass(frame):
    refuse_columns(frame)
