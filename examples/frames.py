"""Census income from the table as it is: text, categories and gaps go straight into `fit`."""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

from easyclf import Estimator

folder = os.environ.get("EASYCLF_DATA", Path(__file__).parents[2] / "shared" / "data")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(folder, "adult"))
parser.add_argument("--epochs", type=int, default=20)
arguments = parser.parse_args()

columns = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country income"
).split()


def read(name, skiprows):
    """A part of the census, and who earns more than 50,000 dollars."""
    table = pd.read_csv(
        arguments.data / name,
        names=columns,
        skipinitialspace=True,
        na_values="?",
        skiprows=skiprows,
    )
    return table.drop(columns="income"), table["income"].str.rstrip(".")


try:
    X, y = read("adult.data", 0)
    X_test, y_test = read("adult.test", 1)
except OSError:
    sys.exit(
        f"Cannot read {arguments.data}: give your copy with --data PATH, or set EASYCLF_DATA to "
        "the folder that holds adult/adult.data and adult/adult.test."
    )

print(f"{len(X)} rows; gaps in {', '.join(X.columns[X.isna().any()])}")
clf = Estimator(epochs=arguments.epochs, random_state=0).fit(X, y)
print(f"test accuracy {clf.score(X_test, y_test):.4f}, with {clf.n_features_in_} columns as read")
likely = clf.predict_proba(X_test)[:, 1]
print(f"surest of {clf.classes_[1]}: {', '.join(map(str, X_test.loc[likely.argmax()][:7]))}")
