"""Who survived the Titanic? Numbers and categories with gaps, in one cross-validated pipeline.

The default network reads its sizes from the columns and standardizes them itself. The table is
train.csv of Kaggle's competition "Titanic".
"""

import argparse

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from easyclf import Estimator
from example_data import find

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="titanic/train.csv of yours")
passengers = pd.read_csv(find("titanic/train.csv", parser.parse_args().data))

columns = make_column_transformer(
    (SimpleImputer(strategy="median"), ["Age", "Fare", "SibSp", "Parch"]),
    (OneHotEncoder(handle_unknown="ignore"), ["Pclass", "Sex", "Embarked"]),
)
pipeline = make_pipeline(columns, Estimator(random_state=0))
scores = cross_val_score(pipeline, passengers, passengers["Survived"], cv=5)
print(f"5-fold accuracy {scores.mean():.4f} +- {scores.std():.4f}")

pipeline.fit(passengers, passengers["Survived"])
chances = pipeline.predict_proba(passengers)[:, 1]
for sex in "female", "male":
    print(f"mean chance of a {sex} passenger: {chances[passengers['Sex'] == sex].mean():.2f}")
