"""The real data sets of the measurements."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

Table = tuple[NDArray[np.float64], NDArray[np.object_]]
_ADULT_COLUMNS = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country income"
)


def data_folder() -> Path:
    """Where the files lie: the environment variable EASYCLF_DATA, else ../shared/data."""
    default = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("EASYCLF_DATA", default))


def _encode(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Numbers with medians in their gaps, and one column a category."""
    numeric = make_column_selector(dtype_include=np.number)
    other = make_column_selector(dtype_exclude=np.number)
    encoder = make_column_transformer(
        (SimpleImputer(strategy="median"), numeric),
        (
            make_pipeline(
                SimpleImputer(strategy="constant", fill_value="missing"),
                OneHotEncoder(sparse_output=False),
            ),
            other,
        ),
    )
    encoded: NDArray[np.float64] = encoder.fit_transform(frame)
    return encoded


def _pima() -> Table:
    frame = pd.read_csv(data_folder() / "pima" / "pima-indians-diabetes.csv")
    return frame.drop(columns="target").to_numpy(float), frame["target"].to_numpy()


def _titanic() -> Table:
    frame = pd.read_csv(data_folder() / "titanic" / "train.csv")
    features = ["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]
    return _encode(frame[features]), frame["Survived"].to_numpy()


def _adult() -> Table:
    frame = pd.read_csv(
        data_folder() / "adult" / "adult.data",
        names=_ADULT_COLUMNS.split(),
        skipinitialspace=True,
        na_values="?",
    )
    return _encode(frame.drop(columns="income")), frame["income"].to_numpy()


TABLES: dict[str, Callable[[], Table]] = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "pima": _pima,
    "titanic": _titanic,
    "adult": _adult,
}
