"""Kinds of data, modules and settings: what a fit on a device has to get right."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms import v2

RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 16)
X = (RNG.normal(scale=0.5, size=(48, 4)) + 3 * np.eye(3, 4)[Y]).astype(np.float32)
WEIGHT = RNG.random(48) + 0.5
IMAGES = RNG.integers(0, 256, (48, 3, 8, 8)).astype(np.uint8)
TOKENS = RNG.integers(0, 9, (48, 5))


def network(n_outputs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, n_outputs))


class Items(Dataset):
    """Rows as items, on the device `where`."""

    def __init__(self, where="cpu"):
        self.where = where

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return torch.from_numpy(X[row]).to(self.where), torch.tensor(Y[row]).to(self.where)


class Weighted(Items):
    def __getitem__(self, row):
        return *super().__getitem__(row), torch.tensor(WEIGHT[row]).float().to(self.where)


class Stream(IterableDataset):
    def __iter__(self):
        return (Items()[row] for row in range(len(X)))


class Two(nn.Module):
    """A module of two inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.layer(a) - self.layer(b)


class Own(nn.CrossEntropyLoss):
    """A loss of the user's own, with a tensor."""

    def __init__(self):
        super().__init__(reduction="none")
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, outputs, targets):
        return super().forward(outputs, targets) * self.scale[targets]


class Layered(nn.Module):
    """A recurrent layer over the four columns as two steps."""

    def __init__(self, kind, **keywords):
        super().__init__()
        self.layer = kind(2, 6, batch_first=True, **keywords)
        self.last = nn.Linear(6 * (1 + self.layer.bidirectional), 3)

    def forward(self, x):
        return self.last(self.layer(x.reshape(len(x), 2, 2))[0][:, -1])


class Celled(nn.Module):
    """A recurrent cell, step by step."""

    def __init__(self, kind, **keywords):
        super().__init__()
        self.cell, self.last = kind(2, 6, **keywords), nn.Linear(6, 3)

    def forward(self, x):
        state = None
        for step in x.reshape(len(x), 2, 2).unbind(1):
            state = self.cell(step, state)
        return self.last(state[0] if isinstance(state, tuple) else state)


def images():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def mapped(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


# What is fitted beside the defaults: its rows, its module, other parameters, keywords of `fit`.
DATA = {
    "array": lambda folder: {"X": X},
    "float64": lambda folder: {"X": X.astype(np.float64)},
    "list": lambda folder: {"X": X.tolist()},
    "tensor": lambda folder: {"X": torch.from_numpy(X)},
    "tensor there": lambda folder: {"X": torch.from_numpy(X).to("pretend:1")},
    "tensor on the other": lambda folder: {"X": torch.from_numpy(X).to("pretend:0")},
    "labels there": lambda folder: {"y": torch.from_numpy(Y).to("pretend:1")},
    "sparse": lambda folder: {"X": csr_array(X * (X > 0))},
    "memmap": lambda folder: {"X": mapped(folder)},
    "Dataset": lambda folder: {"X": Items(), "y": None},
    "Dataset there": lambda folder: {"X": Items("pretend:1"), "y": None},
    "weighted Dataset there": lambda folder: {"X": Weighted("pretend:1"), "y": None},
    "weighted Dataset": lambda folder: {"X": Weighted(), "y": None},
    "cached Dataset there": lambda folder: {"X": Items("pretend:1"), "y": None, "cache": True},
    "Dataset with workers": lambda folder: {"X": Items(), "y": None, "loader__num_workers": 1},
    "TensorDataset": lambda folder: {
        "X": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        "y": None,
    },
    "loader": lambda folder: {"X": DataLoader(Items(), 16), "y": None},
    "pinning loader": lambda folder: {"X": DataLoader(Items(), 16, pin_memory=True), "y": None},
    "stream": lambda folder: {"X": Stream(), "y": None, "classes": [0, 1, 2]},
    "images": lambda folder: {"X": IMAGES, "module": images},
    "images, transformed": lambda folder: {
        "X": IMAGES,
        "module": images,
        "preprocess": v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [2])]),
        "augment": v2.RandomHorizontalFlip(1.0),
    },
    "images, channels last": lambda folder: {
        "X": np.ascontiguousarray(np.moveaxis(IMAGES, 1, 3)),
        "module": images,
    },
    "tokens": lambda folder: {
        "X": TOKENS,
        "module": nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)),
    },
    "several inputs": lambda folder: {"X": {"a": X, "b": X[::-1].astype(float)}, "module": Two},
    "default module": lambda folder: {"module": None},
    "far from 0": lambda folder: {"X": X.astype(np.float64) + 1e9, "module": None},
    "items far from 0": lambda folder: {
        "X": TensorDataset(torch.from_numpy(X).double() + 1e9, torch.from_numpy(Y)),
        "y": None,
        "module": None,
    },
}
HEADS = {
    "multiclass": {},
    "binary, one logit": {"module": network(1), "y": Y > 0},
    "binary, two logits": {"module": network(2), "y": Y > 0},
    "sigmoid": {"module": nn.Sequential(network(1), nn.Sigmoid()), "y": Y > 0},
    "softmax": {"module": nn.Sequential(network(), nn.Softmax(1))},
    "log_softmax": {"module": nn.Sequential(network(), nn.LogSoftmax(1))},
    "multilabel": {"y": (X[:, :3] > 0).astype(int)},
    "text labels": {"y": np.array(["a", "b", "c"])[Y]},
    "weighted loss": {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))},
    "float64 in a loss": {"loss": nn.CrossEntropyLoss(weight=torch.ones(3).double())},
    "smoothing": {"loss__label_smoothing": 0.1},
    "pos_weight": {
        "module": network(1),
        "y": Y > 0,
        "loss": nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])),
    },
    "own loss": {"loss": Own()},
    "function": {"loss": lambda outputs, y: -outputs.log_softmax(1).gather(1, y[:, None])[:, 0]},
    "class_weight": {"class_weight": {0: 2.0, 1: 0.5}},
    "balanced": {"class_weight": "balanced"},
    "sample_weight": {"sample_weight": WEIGHT},
}
SETTINGS = {
    "clipping": {"clip_grad_norm": 0.1},
    "accumulation": {"accumulate": 2},
    "no shuffling": {"shuffle": False},
    "freeze": {"freeze": "0.*"},
    "rates": {"lr": {"0.*": 0.01, "*": 0.1}},
    "BatchNorm": {"module": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))},
    "float64": {"precision": "float64"},
    "validation": {"validation_split": 0.25},
    "validation of items": {"X": Items(), "y": None, "validation_split": 0.25},
    "steps of an epoch": {"steps_per_epoch": 5},
    "steps of a stream": {
        "X": Stream(),
        "y": None,
        "classes": [0, 1, 2],
        "steps_per_epoch": 2,
    },
    "eager": {"compile": False},
}
RECURRENT = {
    "RNN": lambda: Layered(nn.RNN),
    "RNN, relu": lambda: Layered(nn.RNN, nonlinearity="relu"),
    "LSTM": lambda: Layered(nn.LSTM),
    "LSTM, both ways": lambda: Layered(nn.LSTM, num_layers=2, bidirectional=True),
    "LSTM without bias": lambda: Layered(nn.LSTM, bias=False),
    "GRU": lambda: Layered(nn.GRU),
    "GRU, both ways": lambda: Layered(nn.GRU, num_layers=2, bidirectional=True),
    "GRU without bias": lambda: Layered(nn.GRU, bias=False),
    "RNNCell": lambda: Celled(nn.RNNCell),
    "LSTMCell": lambda: Celled(nn.LSTMCell),
    "GRUCell": lambda: Celled(nn.GRUCell),
    "GRUCell without bias": lambda: Celled(nn.GRUCell, bias=False),
}
OPTIMIZERS = [
    *("adadelta adagrad adam adamax adamw asgd lbfgs nadam radam rmsprop rprop sgd".split()),
    "adafactor",
]
