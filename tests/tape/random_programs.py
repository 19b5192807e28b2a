"""Random modules, losses, optimizers, callbacks and settings, the same for the same seed."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import Callback, EarlyStopping, LambdaCallback
from tape.misleading.program import Program, Run
from tape.random_layers import Counting, convolutional, sequential, tabular


def random_program(seed):
    """The program of a seed: every fit of it is made anew, and is the same."""
    return Program(f"seed {seed}", lambda: _run(random.Random(seed)), {})


def describe(run):
    """The parts of a program, in a line."""
    layers = [type(layer).__name__ for layer in run.module.modules() if layer is not run.module]
    callbacks = [
        callback.change.__name__ if isinstance(callback, At) else type(callback).__name__
        for callback in run.settings["callbacks"]
    ]
    settings = {
        name: " ".join(str(value).split())
        for name, value in run.settings.items()
        if name != "callbacks"
    }
    return f"{layers}, {settings}, {callbacks}, weighted: {run.weight is not None}"


def _run(rng):
    kind = rng.choices(("table", "steps", "image", "tokens"), (9, 1, 1, 1))[0]
    n_rows, batch_size, epochs = rng.choices(
        # All of one shape; a short last batch; a step and a validation in an epoch; one too many.
        ((64, 8, 9), (70, 8, 9), (24, -1, 70), (65, 16, 18)),
        (6, 3, 1, 1),
    )[0]
    X = _rows(kind, n_rows)
    target = rng.choices(("classes", "two", "labels"), (6, 2, 1))[0]
    y, n_outputs = _targets(rng, target, n_rows)
    settings = {
        "batch_size": batch_size,
        "epochs": epochs,
        "shuffle": rng.random() < 0.9,
        "random_state": rng.randrange(5),
    }
    loss, end = _loss(rng, target, n_outputs)
    module = _module(rng, kind, X.shape, n_outputs, end)
    settings |= loss | _optimizer(rng, module) | _data(rng, kind) | _rest(rng)
    settings["callbacks"] = _callbacks(rng)
    weight = np.linspace(0.0, 2.0, n_rows) if rng.random() < 0.2 else None
    if target != "labels" and rng.random() < 0.2:
        settings["class_weight"] = rng.choice(("balanced", {0: 2.0, 1: 0.5}))
    if settings.get("loss") in SCALAR_LOSSES:
        weight = settings["class_weight"] = None
    validation = (X[:24], y[:24]) if rng.random() < 0.8 else None
    return Run(module, X, y, weight, validation, settings)


def _rows(kind, n_rows):
    rng = np.random.default_rng(0)
    if kind == "tokens":
        return rng.integers(0, 7, size=(n_rows, 5))
    shapes = {"table": (4,), "steps": (5, 4), "image": (2, 5, 5)}
    return rng.normal(size=(n_rows, *shapes[kind]))


def _targets(rng, target, n_rows):
    """Targets, and how many outputs a module has for them."""
    if target == "labels":
        return np.stack([np.arange(n_rows) % 2, np.arange(n_rows) // 2 % 2], 1), 2
    if target == "two":
        return np.arange(n_rows) % 2, rng.choice((1, 2))
    return np.arange(n_rows) % 3, 3


# Modules.


class Chain(nn.Module):
    """Layers one after the other, with a branch on the shape."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x if x.ndim == 2 else x.flatten(1)


class Words(nn.Module):
    """An embedding, and a module behind it."""

    def __init__(self, size, rest):
        super().__init__()
        self.embedding, self.rest = nn.Embedding(7, size), rest

    def forward(self, x):
        return self.rest(self.embedding(x))


class Means(nn.Module):
    """The mean over dimensions."""

    def __init__(self, *dimensions):
        super().__init__()
        self.dimensions = dimensions

    def forward(self, x):
        return x.mean(self.dimensions)


class Last(nn.Module):
    """The last step."""

    def forward(self, x):
        return x[:, -1]


class Column(nn.Module):
    """One column as a vector."""

    def forward(self, x):
        return x.squeeze(1)


def _module(rng, kind, shape, n_outputs, end):
    size, layers = shape[-1], []
    if kind == "tokens":
        size = 4
    if kind in ("steps", "tokens"):
        for _ in range(rng.randint(1, 2)):
            layer, size = sequential(rng, 5, size)
            layers.append(layer)
        pool, size = rng.choice(((Means(1), size), (Last(), size), (nn.Flatten(), 5 * size)))
        layers.append(pool)
    elif kind == "image":
        size = shape[1]
        for _ in range(rng.randint(1, 3)):
            layer, size = convolutional(rng, size)
            layers.append(layer)
        pools = (
            (Means(2, 3), size),
            (nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), 4 * size),
            (nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), 4 * size),
            (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size),
        )
        pool, size = rng.choice(pools)
        layers.append(pool)
    for _ in range(rng.randint(1, 4) if kind == "table" else rng.randint(0, 1)):
        layer, size = tabular(rng, size) if size % 2 == 0 else (nn.Linear(size, 6), 6)
        layers.append(layer)
    layers.append(nn.Linear(size, n_outputs))
    if end is not None:
        layers.append(end)
    elif n_outputs == 1 and rng.random() < 0.3:
        layers.append(Column())
    made = rng.choice((Chain, nn.Sequential))(*layers)
    return Words(4, made) if kind == "tokens" else made


# Losses.


def squared(outputs, targets):
    return (outputs.softmax(1) - F.one_hot(targets, 3)).square().sum(1)


def focal(outputs, targets):
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


def scalar(outputs, targets):
    return F.cross_entropy(outputs, targets) + 0.01 * outputs.square().mean()


def smoothed(outputs, targets):
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def margin(outputs, targets):
    return F.multi_margin_loss(outputs, targets, reduction="none")


def counted(outputs, targets):
    """The classes of a batch count as much as each other; it reads no values."""
    counts = torch.stack([(targets == code).sum() for code in range(3)]).to(outputs.dtype)
    return F.cross_entropy(outputs, targets, weight=1 / (1 + counts))


def read(outputs, targets):
    """The same, by numbers of Python."""
    counts = torch.tensor([int((targets == code).sum()) for code in range(3)])
    return F.cross_entropy(outputs, targets, weight=1 / (1 + counts.to(outputs.dtype)))


# They give one value for a batch, which carries no weights.
SCALAR_LOSSES = (scalar, smoothed, counted, read)


class Confident(nn.Module):
    """A loss with a number and a layer of its own."""

    def __init__(self, strength=0.1):
        super().__init__()
        self.strength, self.inner = strength, nn.CrossEntropyLoss(reduction="none")

    def forward(self, outputs, targets):
        entropy = -(outputs.softmax(1) * outputs.log_softmax(1)).sum(1)
        return self.inner(outputs, targets) - self.strength * entropy


def _loss(rng, target, n_outputs):
    """The parameters of the loss, and the layer that the module ends with."""
    if target == "labels":
        return rng.choice(
            (({}, None), ({"loss": "bce_with_logits"}, None), ({"loss": "bce"}, nn.Sigmoid()))
        )
    if n_outputs == 1:
        return rng.choice(
            (({}, None), ({"loss": nn.BCEWithLogitsLoss()}, None), ({"loss": "auto"}, nn.Sigmoid()))
        )
    common = (
        ({}, None),
        ({"loss": "cross_entropy"}, None),
        ({"loss": nn.CrossEntropyLoss}, None),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, None),
        ({"loss": "cross_entropy", "loss__label_smoothing": 0.2}, None),
        ({"loss": "nll"}, nn.LogSoftmax(1)),
        ({"loss": "auto"}, nn.Softmax(1)),
        ({"loss": focal}, None),
        ({"loss": scalar}, None),
        ({"loss": smoothed}, None),
        ({"loss": margin}, None),
        ({"loss": Confident}, None),
        ({"loss": Confident(0.05)}, None),
    )
    of_three = (
        ({"loss": squared}, None),
        ({"loss": counted}, None),
        ({"loss": read}, None),
        ({"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]))}, None),
    )
    return rng.choice(common + of_three if n_outputs == 3 else common)


# Optimizers.


class Signed(torch.optim.Optimizer):
    """An optimizer of the user's."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = parameter.grad / (parameter.grad.abs() + 0.01)
                    parameter.sub_(group["lr"] * update)


class Clamped(torch.optim.SGD):
    """torch's, with weights that are clamped after the step."""

    @torch.no_grad()
    def step(self, closure=None):
        result = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.clamp_(-1, 1)
        return result


class Assigned(torch.optim.SGD):
    """An update that makes new tensors."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data = parameter.data - group["lr"] * parameter.grad


def _optimizer(rng, module):
    choices = [
        # Steps of a gradient that is nothing but rounding are small where epsilon is large.
        {"optimizer": "adam", "lr": 0.02, "optimizer__eps": 1e-3},
        {"optimizer": "adam", "lr": 0.02, "optimizer__eps": 1e-3, "optimizer__amsgrad": True},
        {"optimizer": "adam", "lr": 0.02, "optimizer__eps": 1e-3, "optimizer__fused": False},
        {"optimizer": "adam", "optimizer__betas": (0.5, 0.9), "optimizer__eps": 1e-2},
        {"optimizer": "adamw", "lr": 0.02, "optimizer__eps": 1e-3, "optimizer__weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.05},
        {"optimizer": "sgd", "lr": 0.05, "optimizer__momentum": 0.9},
        {"optimizer": "sgd", "lr": 0.05, "optimizer__momentum": 0.9, "optimizer__nesterov": True},
        {"optimizer": "sgd", "lr": 0.05, "optimizer__weight_decay": 0.01},
        {"optimizer": "sgd", "optimizer__momentum": 0.5, "optimizer__dampening": 0.2},
        {"optimizer": "rmsprop", "lr": 0.005, "optimizer__eps": 1e-3},
        {"optimizer": "adagrad", "lr": 0.02, "optimizer__eps": 1e-3},
        {"optimizer": "nadam", "lr": 0.01, "optimizer__eps": 1e-3},
        {"optimizer": "adamax", "lr": 0.01, "optimizer__eps": 1e-3},
        {"optimizer": "adadelta", "lr": 0.5},
        {"optimizer": torch.optim.ASGD, "lr": 0.02},
        {"optimizer": Signed, "lr": 0.01},
        {"optimizer": Clamped, "lr": 0.05},
        {"optimizer": Assigned, "lr": 0.05},
        {"optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.8), "lr": 0.02},
        {"optimizer": "sgd", "lr": {"*.bias": 0.1, "*": 0.02}},
        {"optimizer": "adam", "lr": {"*.weight": 0.01, "*": 0.02}, "optimizer__eps": 1e-3},
    ]
    settings = rng.choice(choices)
    if rng.random() < 0.15:
        settings["clip_grad_norm"] = rng.choice((0.01, 0.5))
    if rng.random() < 0.06:
        settings["accumulate"] = 2
    if rng.random() < 0.1:
        settings["freeze"] = rng.choice(("*.bias", next(iter(module.state_dict()))))
    return settings


# Data, callbacks and the rest.


def noise(x):
    return x + 0.1 * torch.randn_like(x)


def flipped(x):
    return x.flip(-1)


def scaled(x):
    return (x - 0.1) / 2


def _data(rng, kind):
    settings = {}
    if kind != "tokens" and rng.random() < 0.15:
        settings["augment"] = rng.choice((noise, flipped, Counting()))
    if kind != "tokens" and rng.random() < 0.1:
        settings["preprocess"] = rng.choice((scaled, lambda x: x.clamp(-1, 1)))
    return settings


def _rest(rng):
    settings = {}
    if rng.random() < 0.05:
        settings["validation_split"] = 0.25
    if rng.random() < 0.08:
        settings["precision"] = "float32"
    return settings


class Decay(Callback):
    """A rate that falls in each epoch."""

    def on_epoch_begin(self, state):
        for group in state.optimizer.param_groups:
            group["lr"] = group["lr"] * 0.97


class Schedule(Callback):
    """A schedule of torch's, in each epoch or in each step."""

    def __init__(self, is_of_steps):
        self.is_of_steps = is_of_steps

    def on_train_begin(self, state):
        self.schedule = torch.optim.lr_scheduler.StepLR(state.optimizer, 5, 0.9)

    def on_epoch_end(self, state):
        if not self.is_of_steps:
            self.schedule.step()


class SchedulePerStep(Schedule):
    """The same, which looks at each step."""

    def on_batch_end(self, state):
        self.schedule.step()


class At(Callback):
    """It changes something before an epoch."""

    def __init__(self, epoch, change):
        self.epoch, self.change = epoch, change

    def on_epoch_begin(self, state):
        if state.epoch == self.epoch:
            self.change(state)


def more_dropout(state):
    for layer in state.module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.5


def smaller_weights(state):
    with torch.no_grad():
        for parameter in state.module.parameters():
            parameter.mul_(0.9)


def freeze_first(state):
    next(state.module.parameters()).requires_grad_(False)


def new_data(state):
    for parameter in state.module.parameters():
        parameter.data = parameter.data.clone()


def assign(state):
    weights = {name: value.clone() for name, value in state.module.state_dict().items()}
    state.module.load_state_dict(weights, assign=True)


def forget(state):
    state.optimizer.state.clear()


def _callbacks(rng):
    seen = []
    makers = (
        lambda: EarlyStopping(monitor="loss", patience=3),
        lambda: LambdaCallback(on_epoch_end=lambda state: seen.append(state.logs["loss"])),
        lambda: LambdaCallback(on_batch_end=lambda state: seen.append(state.step)),
        lambda: LambdaCallback(on_epoch_end=lambda state: torch.rand(1)),
        Decay,
        lambda: Schedule(is_of_steps=False),
        lambda: SchedulePerStep(is_of_steps=True),
        *(
            lambda change=change: At(rng.choice((2, 4, 6)), change)
            for change in (more_dropout, smaller_weights, freeze_first, new_data, assign, forget)
        ),
    )
    n_callbacks = rng.choices((0, 1, 2), (6, 3, 1))[0]
    return [rng.choice(makers)() for _ in range(n_callbacks)]
