"""Census income from the table as it is: text, categories and gaps go straight into `fit`.

The files are adult.data and adult.test of UCI's "Adult".
"""

import argparse

import pandas as pd

from easyclf import Estimator
from example_data import find

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder of yours that holds adult.data and adult.test")
parser.add_argument("--epochs", type=int, default=20)
arguments = parser.parse_args()
folder = find("adult", arguments.data)

columns = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country income"
).split()


def read(name, skiprows):
    """A part of the census, and who earns more than 50,000 dollars."""
    table = pd.read_csv(
        folder / name,
        names=columns,
        skipinitialspace=True,
        na_values="?",
        skiprows=skiprows,
    )
    return table.drop(columns="income"), table["income"].str.rstrip(".")


X, y = read("adult.data", 0)
X_test, y_test = read("adult.test", 1)
print(f"{len(X)} rows; gaps in {', '.join(X.columns[X.isna().any()])}")
clf = Estimator(epochs=arguments.epochs, random_state=0).fit(X, y)
print(f"test accuracy {clf.score(X_test, y_test):.4f}, with {clf.n_features_in_} columns as read")
likely = clf.predict_proba(X_test)[:, 1]
print(f"surest of {clf.classes_[1]}: {', '.join(map(str, X_test.loc[likely.argmax()][:7]))}")
