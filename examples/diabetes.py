"""A network of sigmoids on the diabetes table, in full batches and in minibatches.

The minibatches come from a Dataset of your own, through a DataLoader with two workers. The table
is that of the Pima Indians, scaled to [-1, 1], as the course "PyTorch" of Liu Er has it.
"""

import argparse

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Dataset

from easyclf import AccuracyLogger, Estimator
from example_data import find


class DiabetesDataset(Dataset):
    def __init__(self, path):
        table = np.loadtxt(path, delimiter=",")
        self.X, self.y = table[:, :-1], table[:, -1]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        return self.X[row], self.y[row]


def network(n_features):
    return nn.Sequential(
        nn.Linear(n_features, 6),
        nn.Sigmoid(),
        nn.Linear(6, 4),
        nn.Sigmoid(),
        nn.Linear(4, 1),
        nn.Sigmoid(),
    )


def main(path, epochs):
    data = DiabetesDataset(path)
    print(f"{data.y.mean():.1%} of the rows are of class 1")

    clf = Estimator(network, optimizer="sgd", lr=0.1, epochs=epochs, batch_size=-1, random_state=0)
    clf.fit(data.X, data.y, callbacks=[AccuracyLogger(every=1000)])
    print(f"full batches: accuracy {clf.score(data):.1%}")

    loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True)
    clf = Estimator(network, lr=0.01, epochs=max(1, epochs // 100), random_state=0)
    for optimizer in "sgd", "adam":
        clf.fit(loader, optimizer=optimizer, callbacks=[AccuracyLogger(every=20)])
        print(f"minibatches, {optimizer}: accuracy {clf.score(data):.1%}")
    return clf


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="diabetes.csv.gz of yours")
    parser.add_argument("--epochs", type=int, default=10_000, help="in full batches")
    arguments = parser.parse_args()
    clf = main(find("pima/diabetes.csv.gz", arguments.data), arguments.epochs)
