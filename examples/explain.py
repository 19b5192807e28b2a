"""Why does it say so? Importance, dependence and calibration of a fitted network, in a picture."""

import argparse

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay
from sklearn.datasets import load_breast_cancer
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from sklearn.model_selection import train_test_split

from easyclf import EarlyStopping, Estimator

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--picture", default="explain.png", help="where the picture goes")
arguments = parser.parse_args()

data = load_breast_cancer(as_frame=True)
X, y = data.data.iloc[:, :10], data.target_names[data.target]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = Estimator(
    lr=0.01, epochs=100, validation_split=0.2, callbacks=[EarlyStopping()], random_state=0
)
clf.fit(X_train, y_train)
print(f"test accuracy {clf.score(X_test, y_test):.4f}")

lost = permutation_importance(
    clf, X_test, y_test, scoring="neg_log_loss", n_repeats=5, random_state=0
)
order = lost.importances_mean.argsort()
most = X.columns[order[-2:][::-1]]
print(f"the columns that matter most: {', '.join(most)}")

figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
axes[0, 0].barh(X.columns[order], lost.importances_mean[order], xerr=lost.importances_std[order])
axes[0, 0].set(title="Permutation importance", xlabel="rise of the log loss")
CalibrationDisplay.from_estimator(clf, X_test, y_test, n_bins=5, strategy="quantile", ax=axes[0, 1])
axes[0, 1].set_title("Calibration")
PartialDependenceDisplay.from_estimator(
    clf, X_test, most, grid_resolution=10, kind="both", subsample=20, random_state=0, ax=axes[1]
)
figure.savefig(arguments.picture)
print(f"drawn into {arguments.picture}")
