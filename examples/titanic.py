"""Who survived the Titanic? Numbers and categories with gaps, in one cross-validated pipeline.

The default network reads its sizes from the columns and standardizes them itself.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from easyclf import Estimator

folder = os.environ.get("EASYCLF_DATA", Path(__file__).parents[2] / "shared" / "data")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default=Path(folder, "titanic", "train.csv"))
path = parser.parse_args().data
try:
    passengers = pd.read_csv(path)
except OSError:
    sys.exit(
        f"Cannot read {path}: give your copy with --data PATH, or set EASYCLF_DATA to the folder "
        "that holds titanic/train.csv."
    )

columns = make_column_transformer(
    (SimpleImputer(strategy="median"), ["Age", "Fare", "SibSp", "Parch"]),
    (OneHotEncoder(handle_unknown="ignore"), ["Pclass", "Sex", "Embarked"]),
)
pipeline = make_pipeline(columns, Estimator(random_state=0))
scores = cross_val_score(pipeline, passengers, passengers["Survived"], cv=5)
print(f"5-fold accuracy {scores.mean():.4f} +- {scores.std():.4f}")
