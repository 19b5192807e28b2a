"""Four blobs and a small network, with the weights of the last and of the best epoch.

The step is a little too large, so that the test accuracy jumps from epoch to epoch; going back to
the best weights settles it.
"""

from sklearn.datasets import make_blobs
from sklearn.model_selection import train_test_split
from torch import nn

from easyclf import AccuracyLogger, EarlyStopping, Estimator


def network(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_classes))


X, y = make_blobs(1000, centers=4, cluster_std=1.5, random_state=666)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=888)
clf = Estimator(network, optimizer="sgd", lr=0.1, epochs=500, batch_size=-1, random_state=0)

for name, callback in {
    "last": AccuracyLogger(every=50),
    "best": EarlyStopping(patience=100),
}.items():
    # Where the test score is to be believed, choose weights by `validation_split` instead.
    clf.fit(X_train, y_train, validation_data=(X_test, y_test), callbacks=[callback])
    train, test = clf.evaluate(X_train, y_train), clf.evaluate(X_test, y_test)
    print(
        f"{name} weights: loss {train['loss']:.4f}, accuracy {train['accuracy']:.2%}, "
        f"test loss {test['loss']:.4f}, test accuracy {test['accuracy']:.2%}"
    )

end = clf.history_["val_accuracy"][-20:]
print(f"test accuracy in the last 20 epochs: {end.min():.2%} to {end.max():.2%}")
