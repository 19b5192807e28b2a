"""A network in a scikit-learn pipeline: early stopping, scores, and a picture of the curves.

The data are scikit-learn's handwritten digits, so that nothing needs to be downloaded.
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from easyclf import AccuracyLogger, EarlyStopping, Estimator


class Network(nn.Module):
    def __init__(self, n_features, n_classes, hidden=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

early = EarlyStopping(patience=10)
classifier = Estimator(
    Network, validation_split=0.1, callbacks=[AccuracyLogger(every=10), early], random_state=0
)
pipeline = make_pipeline(StandardScaler(), classifier).fit(X_train, y_train)
print(f"test accuracy {pipeline.score(X_test, y_test):.4f}")

classifier.set_params(callbacks=[early])  # without the log
scores = cross_val_score(pipeline, X, y, cv=5)
print(f"5-fold accuracy {scores.mean():.4f} +- {scores.std():.4f}")

try:
    axes, _ = classifier.history_.plot()
except ImportError as error:
    print(f"no picture: {error}")
else:
    axes.figure.savefig("quickstart.png")
    print("curves in quickstart.png")
