"""What is trained in the benchmark: data, a network, and the settings that all rivals share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_blobs, make_classification
from torch import nn


class Data(NamedTuple):
    """Rows to train on, and rows to measure after each epoch if there are any."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    X_val: NDArray[Any] | None = None
    y_val: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Training:
    """Some training that every rival does alike.

    `layers` makes the layers of the Keras model, and `hidden` are the widths for `MLPClassifier`;
    None where that rival cannot do the work.
    """

    name: str
    data: Callable[[], Data]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    optimizer: str = "adam"
    lr: float = 1e-3
    layers: Callable[[Any], list[Any]] | None = None
    hidden: tuple[int, ...] | None = None

    def seeded_network(self) -> nn.Module:
        """The network with the same initial weights for everybody."""
        torch.manual_seed(0)
        return self.network()

    def shortened(self) -> Training:
        """Fewer epochs, for a quick look."""
        return replace(self, epochs=-(-self.epochs // 6))


def _blobs() -> Data:
    X, y = make_blobs(1000, n_features=2, centers=4, cluster_std=1.5, random_state=666)
    X = X.astype(np.float32)
    return Data(X[:800], y[:800], X[800:], y[800:])


def _digits() -> Data:
    X, y = load_digits(return_X_y=True)
    return Data((X / 16).astype(np.float32), y)


def table(n_rows: int = 50_000) -> Data:
    """Rows of 20 columns in four classes."""
    X, y = make_classification(n_rows, 20, n_informative=10, n_classes=4, random_state=0)
    return Data(X.astype(np.float32), y)


def _images(n_rows: int, shape: tuple[int, ...], n_held_out: int = 0) -> Data:
    """Noisy copies of one picture a class."""
    rng = np.random.default_rng(0)
    pictures = rng.random((10, *shape), dtype=np.float32)
    y = rng.integers(0, 10, n_rows + n_held_out)
    X = pictures[y] + rng.standard_normal((n_rows + n_held_out, *shape), dtype=np.float32)
    if not n_held_out:
        return Data(X, y)
    return Data(X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:])


def _tokens() -> Data:
    """Sequences of 20 tokens; the class is how often the first ten tokens of the alphabet come."""
    X = np.random.default_rng(0).integers(0, 50, (2000, 20))
    return Data(X, np.minimum((X < 10).sum(1) // 2, 4))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.recurrent = nn.LSTM(16, 32, batch_first=True)
        self.last = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.recurrent(self.embedding(x))
        return self.last(steps[:, -1])


def _mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _mlp_layers(keras: Any, *widths: int) -> list[Any]:
    *hidden, last = widths
    return [keras.layers.Dense(n, activation="relu") for n in hidden] + [keras.layers.Dense(last)]


def _deep() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(99):
        linear = nn.Linear(16, 16)
        nn.init.orthogonal_(linear.weight)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def _deep_layers(keras: Any) -> list[Any]:
    tanh = [
        keras.layers.Dense(16, activation="tanh", kernel_initializer="orthogonal")
        for _ in range(99)
    ]
    return [*tanh, keras.layers.Dense(4)]


def _deep_table() -> Data:
    X, y = make_classification(4000, 16, n_informative=8, n_classes=4, random_state=0)
    return Data(X.astype(np.float32), y)


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *_mlp(400, 120, 84, 10),
    )


def _lenet_layers(keras: Any) -> list[Any]:
    return [
        keras.layers.Permute((2, 3, 1)),
        keras.layers.Conv2D(6, 5, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(16, 5, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        *_mlp_layers(keras, 120, 84, 10),
    ]


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    network: nn.Module = resnet18(num_classes=10)
    return network


def _recurrent_layers(keras: Any) -> list[Any]:
    return [keras.layers.Embedding(50, 16), keras.layers.LSTM(32), keras.layers.Dense(5)]


TRAININGS = {
    training.name: training
    for training in (
        Training(
            "blobs, full batch",
            _blobs,
            lambda: _mlp(2, 8, 8, 4),
            epochs=300,
            batch_size=800,
            lr=0.01,
            layers=lambda keras: _mlp_layers(keras, 8, 8, 4),
            hidden=(8, 8),
        ),
        Training(
            "digits",
            _digits,
            lambda: _mlp(64, 64, 10),
            epochs=20,
            batch_size=32,
            layers=lambda keras: _mlp_layers(keras, 64, 10),
            hidden=(64,),
        ),
        Training(
            "table",
            table,
            lambda: _mlp(20, 64, 4),
            epochs=4,
            batch_size=128,
            layers=lambda keras: _mlp_layers(keras, 64, 4),
            hidden=(64,),
        ),
        Training(
            "softmax regression",
            lambda: _images(60_000, (784,), 10_000),
            lambda: nn.Linear(784, 10),
            epochs=5,
            batch_size=256,
            optimizer="sgd",
            lr=0.01,
            layers=lambda keras: _mlp_layers(keras, 10),
        ),
        Training(
            "wide MLP",
            lambda: _images(10_000, (784,)),
            lambda: _mlp(784, 512, 512, 10),
            epochs=2,
            batch_size=64,
            layers=lambda keras: _mlp_layers(keras, 512, 512, 10),
            hidden=(512, 512),
        ),
        Training(
            "LeNet",
            lambda: _images(3000, (1, 28, 28)),
            _lenet,
            epochs=4,
            batch_size=64,
            layers=_lenet_layers,
        ),
        Training(
            "deep narrow MLP",
            _deep_table,
            _deep,
            epochs=2,
            batch_size=32,
            layers=_deep_layers,
        ),
        Training(
            "embedding + LSTM",
            _tokens,
            Recurrent,
            epochs=8,
            batch_size=64,
            layers=_recurrent_layers,
        ),
        Training(
            "resnet18, 32 x 32",
            lambda: _images(512, (3, 32, 32)),
            _resnet18,
            epochs=6,
            batch_size=32,
        ),
    )
}
