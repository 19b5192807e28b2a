"""A training that is killed, and goes on as if nothing had happened.

The script starts itself in processes of their own, kills the first one after three epochs, and
compares what the second one ends with, bit for bit, with a training that nobody killed.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from easyclf import EMA, AccuracyLogger, Checkpoint, Estimator, LambdaCallback, LRScheduler


class Network(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


def die(state):
    if state.epoch == 4:
        signal.raise_signal(signal.SIGTERM)


def train(folder, *more):
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
    callbacks = [
        LRScheduler("OneCycleLR", max_lr=0.02),
        EMA(0.98),
        AccuracyLogger(),
        Checkpoint(folder, monitor="val_loss"),
        *more,
    ]
    clf = Estimator(Network, epochs=8, callbacks=callbacks, random_state=0)
    return clf.fit(X_train, y_train, validation_data=(X_test, y_test))


def main():
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        print("a training that is killed:")
        subprocess.run([sys.executable, __file__, killed], check=False)
        print("kept:", *sorted(path.name for path in killed.iterdir()))
        print("it goes on:")
        resumed = train(killed)
        print("one that nobody killed:")
        expected = train(whole)
        weights = zip(resumed.module_.parameters(), expected.module_.parameters(), strict=True)
        is_same = all(torch.equal(first, second) for first, second in weights)
        print(f"the same weights, bit for bit: {is_same}")
        print(f"test accuracy {resumed.history_[-1, 'val_accuracy']:.4f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], LambdaCallback(on_epoch_begin=die))
    else:
        main()
