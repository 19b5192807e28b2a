"""A fitted estimator in a file without any pickle: saved, moved, loaded, and trained further."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from easyclf import Estimator, InvalidFile


class Network(nn.Module):
    def __init__(self, n_features, n_classes, width=32):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, width), nn.Linear(width, n_classes)

    def forward(self, x):
        return self.last(self.first(x / 16).relu())


X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
clf = Estimator(Network, module__width=64, epochs=10, lr=0.01, random_state=0)
clf.fit(X_train, y_train)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "digits.easyclf")
    clf.save(path)
    print(f"saved: accuracy {clf.score(X_test, y_test):.4f}, {path.stat().st_size:,} bytes")

    # The file holds no code, so it does not say what `Network` is: the caller does.
    again = Estimator.load(path, module=Network)
    same = np.array_equal(again.predict_proba(X_test), clf.predict_proba(X_test))
    print(f"loaded: accuracy {again.score(X_test, y_test):.4f}, the same to the last bit: {same}")

    again.set_params(warm_start=True).fit(X_train, y_train, epochs=10)
    print(f"trained further: accuracy {again.score(X_test, y_test):.4f} after {again.n_iter_}")

    # One byte of a file that is not as it was written is noticed.
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    try:
        Estimator.load(path, module=Network)
    except InvalidFile as error:
        print(f"damaged: {str(error).partition('cannot be read: ')[2]}")

    # Weights alone are for other libraries, and for other estimators to begin with.
    clf.save_weights(Path(folder, "digits.safetensors"))
    begun = Estimator(Network, module__width=64, epochs=1, random_state=1)
    begun.load_weights(Path(folder, "digits.safetensors")).fit(X_train, y_train)
    print(f"begun with its weights: accuracy {begun.score(X_test, y_test):.4f} after one epoch")
