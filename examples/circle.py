"""Is a point inside the unit circle? A network that ends in a sigmoid draws the boundary."""

import numpy as np
from sklearn.inspection import DecisionBoundaryDisplay
from torch import nn

from easyclf import AccuracyLogger, EarlyStopping, Estimator


def network():
    return nn.Sequential(
        nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()
    )


X = np.random.default_rng(0).standard_normal((100, 2))
y = np.hypot(X[:, 0], X[:, 1]) < 1

# Stops when 1000 epochs make the loss less than 0.001 better.
early = EarlyStopping(monitor="loss", min_delta=0.001, patience=1000)
clf = Estimator(
    network,
    optimizer="sgd",
    lr=0.05,
    epochs=50_000,
    batch_size=-1,
    callbacks=[AccuracyLogger(every=1000), early],
    random_state=0,
).fit(X, y)
print(f"training accuracy {clf.score(X, y):.1%}")

try:
    display = DecisionBoundaryDisplay.from_estimator(
        clf, X, response_method="predict_proba", cmap="RdBu", levels=10, alpha=0.6
    )
except ImportError as error:
    print(f"no picture: {error}")
else:
    display.ax_.scatter(X[:, 0], X[:, 1], c=y, cmap="RdBu", edgecolor="black")
    display.ax_.set(title="probability of being inside", aspect="equal")
    display.figure_.savefig("circle.png")
    print("decision boundary in circle.png")
