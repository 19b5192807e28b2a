"""Modules that tests save and load, under a name that can be imported."""

import torch
from torch import nn


class Net(nn.Module):
    """A network with sizes, a choice, and every kind of thing that a module may hold."""

    def __init__(self, n_features, n_classes, hidden=6, tied=False):
        super().__init__()
        self.first = nn.Linear(n_features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, hidden, bias=False)
        if tied:
            self.third = nn.Linear(hidden, hidden, bias=False)
            self.third.weight = self.second.weight
        self.last = nn.Linear(hidden, n_classes)
        self.register_buffer("scale", torch.tensor(1.5))
        self.register_buffer("unsaved", torch.tensor(0.5), persistent=False)

    def forward(self, x):
        x = self.norm(self.first(x).tanh())
        x = getattr(self, "third", self.second)(x).relu()
        return self.last(x) * self.scale + self.unsaved


class Ending(nn.Module):
    """A layer whose outputs go through a function."""

    def __init__(self, n_features, n_outputs, end=None):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)
        self.end = end

    def forward(self, x):
        x = self.layer(x)
        return x if self.end is None else {"sigmoid": torch.sigmoid}.get(self.end, self._over)(x)

    def _over(self, x):
        return getattr(x, self.end)(1)


class Lazy(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(n_classes))

    def forward(self, x):
        return self.layers(x)


class Pictures(nn.Module):
    def __init__(self, in_channels, n_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.last = nn.Linear(4, n_classes)

    def forward(self, x):
        return self.last(self.layers(x))


class Halves(nn.Module):
    """A network with one layer in half precision, which it keeps."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layer = nn.Linear(n_features, n_classes)
        self.register_buffer("offset", torch.ones(n_classes, dtype=torch.int32))

    def forward(self, x):
        return self.layer(x) + self.offset


def make_net(n_features, n_classes):
    return Net(n_features, n_classes, hidden=3)
