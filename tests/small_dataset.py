"""A dataset of sixty rows in every form that items have, and a network fitted to it."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from easyclf import Estimator

LABELS = np.arange(60) % 2
ROWS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) + LABELS[:, None]
SETTINGS = {"epochs": 3, "lr": 0.05, "batch_size": 16, "random_state": 0}


class Kind(Dataset):
    """Rows of one of the forms that items have."""

    def __init__(self, kind="pair", noise=0.0):
        self.kind, self.noise = kind, noise

    def __len__(self):
        return 60

    def __getitem__(self, row):
        x, y = torch.from_numpy(ROWS[row]), int(LABELS[row])
        if self.noise:
            x = x + self.noise * torch.randn(4) + np.random.normal()  # noqa: NPY002
        forms = {
            "pair": (x, y),
            "weight": (x, y, 1.0 + row % 3),
            "dict": {"features": x, "label": y},
            "dict with weight": {"x": x, "target": y, "weight": 1.0 + row % 3},
            "inputs by name": {"a": x[:2], "b": x[2:], "y": y},
            "inputs by place": ((x[:2], x[2:]), y),
            "arrays": (ROWS[row], np.int64(y)),
            "text": (x, "no yes".split()[y]),
            "alone": x,
        }
        return forms[self.kind]


class Joined(nn.Module):
    """A linear layer over two inputs side by side."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], 1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def fit(X, module=None, **parameters):
    parameters = {**SETTINGS, **parameters}
    if isinstance(X, DataLoader):
        parameters["batch_size"] = "auto"
    return Estimator(module or network(), **parameters).fit(X)


def weights(clf):
    return [weight.tolist() for weight in clf.module_.parameters()]
