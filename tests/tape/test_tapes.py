"""Tapes change nothing: a zoo of modules, each trained with tapes and as it is written."""

import copy
import functools
import logging
import math
import random
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from easyclf import Callback, EarlyStopping, Estimator, LambdaCallback
from easyclf.data import Batch
from easyclf.tape import Tapes, kernels
from easyclf.tape.compiler import compile_recording

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(22, 6)).astype(np.float32)
IMAGES = RNG.normal(size=(22, 2, 8, 8)).astype(np.float32)
STEPS = RNG.normal(size=(22, 5, 6)).astype(np.float32)
TOKENS = RNG.integers(0, 9, size=(22, 5))
LABELS = np.arange(22) % 3
SETTINGS = {"epochs": 4, "batch_size": 5, "lr": 0.05, "random_state": 0, "verbose": 0}


@pytest.fixture(autouse=True)
def _eager_to_record(monkeypatch):
    """Tapes are made at once, also for the short last batch."""
    monkeypatch.setattr("easyclf.tape.tapes._SEEN", 2)
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 0)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="easyclf")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "easyclf"]


def fit(module, X, mode, y=LABELS, weight=None, **parameters):
    clf = Estimator(module, compile=mode, **{**SETTINGS, **parameters})
    return clf.fit(X, y, weight, validation_data=(X[:14], y[:14]))


def everything(clf):
    """What a fit leaves, by name: figures, weights, gradients, buffers, averages."""
    found = {
        f"epoch {row['epoch']}, {name}": value
        for row in clf.history_
        for name, value in row.items()
        if name != "seconds"
    }
    found |= clf.module_.state_dict()
    for name, parameter in clf.module_.named_parameters():
        if parameter.grad is not None:
            found[f"{name}, gradient"] = parameter.grad.to_dense()
    for number, averages in clf.optimizer_.state_dict()["state"].items():
        found |= {f"{name} of {number}": value for name, value in averages.items()}
    return {
        name: np.asarray(torch.as_tensor(value).tolist())
        for name, value in found.items()
        if value is not None
    }


def assert_near(taped, plain):
    """Equal but for rounding: a kernel may round another way at another address."""
    assert taped.keys() == plain.keys()
    for name, value in taped.items():
        # A bias before a normalization has no gradient but what rounding leaves.
        np.testing.assert_allclose(value, plain[name], rtol=1e-3, atol=2e-4, err_msg=name)


def assert_the_same(module, X, **keywords):
    taped, plain = (fit(copy.deepcopy(module), X, mode, **keywords) for mode in ("auto", False))
    assert_near(everything(taped), everything(plain))
    np.testing.assert_allclose(taped.predict_proba(X[:5]), plain.predict_proba(X[:5]), atol=1e-4)


class Net(nn.Module):
    """A first and a last layer, and what a test puts between them."""

    def __init__(self, middle=None):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.middle = middle

    def forward(self, x):
        return self.last(self.between(self.first(x)))

    def between(self, x):
        return self.middle(x)


def net(between, **attributes):
    """A `Net` whose `between` is a function of itself and the features."""

    class Own(Net):
        pass

    Own.between = between
    made = Own()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def images(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def sequence(layer, **keywords):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer(6, 7, **keywords)
            self.last = nn.LazyLinear(3)

        def forward(self, x):
            steps, _ = self.layer(x)
            return self.last(steps.flatten(1))

    return Recurrent()


class InPlace(Net):
    """What it does to its input would do more if it were done twice."""

    def forward(self, x):
        return self.last(self.first(x.mul_(2).add_(1)))


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last = nn.GRUCell(6, 7), nn.Linear(7, 3)

    def forward(self, x):
        hidden = x.new_zeros(len(x), 7)
        for step in range(x.shape[1]):
            hidden = self.cell(x[:, step], hidden)
        return self.last(hidden)


class Words(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding, self.last = embedding, nn.LazyLinear(3)

    def forward(self, x):
        return self.last(self.embedding(x).flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.2, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        attended, _ = self.attention(x, x, x)
        return self.last((x + attended).mean(1))


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.last = nn.Linear(6, 18), nn.Linear(6, 3)

    def forward(self, x):
        query, key, value = self.project(x).chunk(3, dim=-1)
        mask = torch.tril(torch.ones(x.shape[1], x.shape[1])).bool()
        scores = (query @ key.transpose(1, 2) / math.sqrt(6)).masked_fill(~mask, -1e9)
        return self.last((scores.softmax(-1) @ value)[:, -1])


class Flash(Causal):
    def forward(self, x):
        query, key, value = self.project(x).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.last(attended.mean(1))


def frozen():
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    module[0].requires_grad_(False)
    return module


def tied():
    layer = nn.Linear(8, 8)
    return Net(nn.Sequential(layer, nn.Tanh(), layer))


def accumulated(self, x):
    total = torch.tensor(0.0)
    total += 0.5
    total *= 3
    return x * total


def written(self, x):
    x = x.clone()
    x[:, 0] = 1.0
    x[:, 1:3] += x[:, 3:5]
    return x.relu_()


def noisy(self, x):
    return x + 0.1 * torch.randn_like(x) if self.training else 2 * x


def chosen(self, x):
    values, places = x.topk(4, dim=1)
    return x.scatter(1, places, values.sort(1).values)


ZOO = {
    "linear": (nn.Linear(6, 3), TABLE),
    "relu": (Net(nn.ReLU()), TABLE),
    "relu in place": (Net(nn.ReLU(inplace=True)), TABLE),
    "gelu": (Net(nn.GELU()), TABLE),
    "silu": (Net(nn.SiLU()), TABLE),
    "elu": (Net(nn.ELU()), TABLE),
    "leaky relu": (Net(nn.LeakyReLU()), TABLE),
    "prelu": (Net(nn.PReLU()), TABLE),
    "rrelu": (Net(nn.RReLU()), TABLE),
    "softplus": (Net(nn.Softplus()), TABLE),
    "hardswish": (Net(nn.Hardswish()), TABLE),
    "tanh": (Net(nn.Tanh()), TABLE),
    "glu": (Net(nn.Sequential(nn.Linear(8, 16), nn.GLU())), TABLE),
    "dropout": (Net(nn.Dropout(0.3)), TABLE),
    "alpha dropout": (Net(nn.AlphaDropout(0.3)), TABLE),
    # The last batch has two rows, whose difference may be small beside the usual epsilon.
    "batch norm": (Net(nn.BatchNorm1d(8, eps=0.1)), TABLE),
    "layer norm": (Net(nn.LayerNorm(8)), TABLE),
    "rms norm": (Net(nn.RMSNorm(8)), TABLE),
    "bilinear": (net(lambda self, x: self.two(x, x), two=nn.Bilinear(8, 8, 8)), TABLE),
    "conv1d": (images(nn.Conv1d(5, 4, 3), nn.ReLU()), STEPS),
    "conv2d": (images(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU()), IMAGES),
    "grouped, dilated": (images(nn.Conv2d(2, 4, 3, groups=2, dilation=2)), IMAGES),
    "reflecting": (images(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")), IMAGES),
    "transposed": (images(nn.ConvTranspose2d(2, 4, 2, stride=2)), IMAGES),
    "max pool": (images(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2)), IMAGES),
    "average pool": (images(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2)), IMAGES),
    "adaptive pool": (images(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(2)), IMAGES),
    "fractional pool": (images(nn.FractionalMaxPool2d(2, output_size=4)), IMAGES),
    "batch norm 2d": (images(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), IMAGES),
    "group norm": (images(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), IMAGES),
    "instance norm": (images(nn.InstanceNorm2d(2, track_running_stats=True)), IMAGES),
    "dropout 2d": (images(nn.Conv2d(2, 4, 3), nn.Dropout2d(0.3)), IMAGES),
    "upsample": (images(nn.Upsample(scale_factor=2, mode="bilinear"), nn.AvgPool2d(4)), IMAGES),
    "pixel shuffle": (images(nn.Conv2d(2, 8, 3), nn.PixelShuffle(2)), IMAGES),
    "embedding": (Words(nn.Embedding(9, 4, padding_idx=0)), TOKENS),
    "embedding, max_norm": (Words(nn.Embedding(9, 4, max_norm=0.5)), TOKENS),
    "embedding bag": (Words(nn.EmbeddingBag(9, 4)), TOKENS),
    "rnn": (sequence(nn.RNN, batch_first=True), STEPS),
    "lstm": (sequence(nn.LSTM, batch_first=True, num_layers=2, dropout=0.2), STEPS),
    "gru": (sequence(nn.GRU, batch_first=True, bidirectional=True), STEPS),
    "cells": (Cells(), STEPS),
    "attention": (Attention(), STEPS),
    "causal attention": (Causal(), STEPS),
    "fused attention": (Flash(), STEPS),
    "transformer": (
        nn.Sequential(
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(30, 3)
        ),
        STEPS,
    ),
    "shared weights": (tied(), TABLE),
    "frozen weights": (frozen(), TABLE),
    "unused weights": (net(lambda self, x: x, unused=nn.Linear(2, 2)), TABLE),
    "residual": (net(lambda self, x: x + self.more(x).relu(), more=nn.Linear(8, 8)), TABLE),
    "weight norm": (Net(parametrizations.weight_norm(nn.Linear(8, 8))), TABLE),
    "spectral norm": (Net(parametrizations.spectral_norm(nn.Linear(8, 8))), TABLE),
    "noise in training": (net(noisy), TABLE),
    "a literal, changed in place": (net(accumulated), TABLE),
    "input changed in place": (InPlace(), TABLE),
    "written in place": (net(written), TABLE),
    "a branch on self": (net(lambda self, x: x if self.deep else -x, deep=True), TABLE),
    "a loop over layers": (
        net(
            lambda self, x: functools.reduce(lambda h, layer: layer(h).tanh(), self.layers, x),
            layers=nn.ModuleList(nn.Linear(8, 8) for _ in range(3)),
        ),
        TABLE,
    ),
    "einsum": (net(lambda self, x: torch.einsum("bi,bj->bj", x, x)), TABLE),
    "cumsum and cat": (net(lambda self, x: torch.cat([x[:, :3].cumsum(1), x[:, 3:]], 1)), TABLE),
    "top and sort": (net(chosen), TABLE),
    "without gradient": (net(lambda self, x: x + x.detach() * 0.1), TABLE),
}


@pytest.mark.parametrize("library", ["torch's own choice", "oneDNN"])
@pytest.mark.parametrize("name", ZOO)
def test_a_tape_changes_nothing(name, library, monkeypatch, log):
    module, X = ZOO[name]
    if library == "oneDNN":
        monkeypatch.setattr(kernels, "is_mkl_slow", torch.backends.mkldnn.is_available)
        monkeypatch.setattr(kernels, "_LARGE", 0)
        monkeypatch.setattr(kernels, "_NARROW", 1)

    # Adam makes steps of a gradient that is nothing but rounding, as that of a bias before a batch
    # normalization; the less the larger its epsilon. Another library rounds more differently.
    settings = {"optimizer": "sgd"} if library == "oneDNN" else {"optimizer__eps": 1e-3}
    assert_the_same(module, X, **settings)

    kind = type(module).__name__
    assert f"{kind} is trained from a tape." in log()
    assert f"{kind} is evaluated from a tape." in log()
    assert not [line for line in log() if "as it is" in line]


def test_the_zoo_is_large():
    assert len(ZOO) >= 45


ALTERNATIVES = {
    "float64": {"precision": "float64"},
    "bf16": {"precision": "bf16"},
    "clipping": {"clip_grad_norm": 0.1},
    "class weights": {"class_weight": "balanced"},
    "weights": {"weight": np.linspace(0.5, 2, 22)},
    "smoothing": {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
    "weights in the loss": {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))},
    "own loss": {"loss": lambda out, y: F.cross_entropy(out, y, reduction="none") ** 2},
    "own scalar loss": {"loss": lambda out, y: F.cross_entropy(out, y)},
    "sgd": {"optimizer": "sgd"},
    "nesterov": {"optimizer": "sgd", "optimizer__momentum": 0.9, "optimizer__nesterov": True},
    "adamw": {"optimizer": "adamw", "optimizer__weight_decay": 0.1},
    "amsgrad": {"optimizer__amsgrad": True},
    "maximize": {"optimizer__maximize": True, "lr": 1e-3},
    "rmsprop": {"optimizer": "rmsprop"},
    "nadam": {"optimizer": "nadam"},
    "adagrad": {"optimizer": torch.optim.Adagrad},
    "not fused": {"optimizer__fused": False},
    "early stopping": {"callbacks": [EarlyStopping(patience=1)]},
    "multilabel": {"y": np.maximum(np.eye(3)[LABELS], np.eye(3)[[0]]).astype(int)},
    "binary": {"y": LABELS % 2},
    "in order": {"shuffle": False},
    "full batch": {"batch_size": -1, "epochs": 9},
}


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_a_tape_changes_nothing_under_these_settings(name, log):
    parameters = ALTERNATIVES[name]
    n_outputs = 1 if "y" in parameters and parameters["y"].ndim == 1 else 3
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, n_outputs))

    assert_the_same(module, TABLE, **parameters)

    if name == "bf16" and torch.__version__ < (2, 7):
        pytest.skip("the autocast of this torch looks for files, which no tape may")
    assert "Sequential is trained from a tape." in log()


# What follows must run as it is written.

calls = 0


def counts_in_an_attribute(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.calls


def counts_in_a_global(self, x):
    global calls
    calls += 1
    return x


def keeps_a_list(self, x):
    self.kept.append(len(x))
    return x


def writes_into_a_dict(self, x):
    self.kept["rows"] = self.kept.get("rows", 0) + len(x)
    return x * self.kept["rows"]


def keeps_in_its_default():
    def between(self, x, kept=[]):  # noqa: B006
        kept += [len(x)]
        return x * len(kept)

    return between


def draws_from_python(self, x):
    return x * random.random()


def draws_from_numpy(self, x):
    return x * np.random.rand()  # noqa: NPY002


def draws_from_its_own(self, x):
    return x * self.kept.random()


def reads_the_clock(self, x):
    return x * min(1.0, time.time())  # which is 1


def prints(self, x):
    print("forward")
    return x


def looks_at_values(self, x):
    return x if x.sum() > 0 else 2 * x


def reads_an_item(self, x):
    return x * x.abs().max().item()


def reads_a_list(self, x):
    return x * max(x.detach().abs().max(1).values.tolist())


def goes_through_numpy(self, x):
    return x * torch.from_numpy(x.detach().numpy() ** 2).mean()


def picks_by_value(self, x):
    return x + x[x > 0].mean()


def goes_around_autograd(self, x):
    x.data.mul_(2)
    return x


def checkpoints(self, x):
    return checkpoint(torch.tanh, x, use_reentrant=False)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def has_its_own_gradient(self, x):
    return Doubled.apply(x)


def switches_modes(self, x):
    self.last.train(not self.training)
    return x


def calls_by_name(self, x):
    return getattr(self, "count" + "ing")(x)


def counting(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.calls


def closes_over_a_count():
    count = 0

    def between(self, x):
        nonlocal count
        count += 1
        return x * count

    return between


def hooked(register):
    module = Net(nn.Tanh())
    register(module)
    return module


def patched():
    module = Net(nn.Tanh())
    module.forward = lambda x: module.last(module.first(x))
    return module


class OwnCall(Net):
    def __call__(self, x):
        global calls
        calls += 1
        return super().__call__(x)


class Replacing(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def between(self, x):
        self.seen = self.seen + 1
        return x * self.seen


class Odd(dict):
    scale = 2


UNSOUND = {
    "attribute": lambda: net(counts_in_an_attribute),
    "global": lambda: net(counts_in_a_global),
    "list": lambda: net(keeps_a_list, kept=[]),
    "dict": lambda: net(writes_into_a_dict, kept={}),
    "default": lambda: net(keeps_in_its_default()),
    "closure": lambda: net(closes_over_a_count()),
    "random": lambda: net(draws_from_python),
    "numpy": lambda: net(draws_from_numpy),
    "own generator": lambda: net(draws_from_its_own, kept=random.Random(0)),
    "own numpy generator": lambda: net(draws_from_its_own, kept=np.random.default_rng(0)),
    "clock": lambda: net(reads_the_clock),
    "print": lambda: net(prints),
    "values": lambda: net(looks_at_values),
    "item": lambda: net(reads_an_item),
    "tolist": lambda: net(reads_a_list),
    "numpy of a tensor": lambda: net(goes_through_numpy),
    "shape by value": lambda: net(picks_by_value),
    "data": lambda: net(goes_around_autograd),
    "checkpoint": lambda: net(checkpoints),
    "own gradient": lambda: net(has_its_own_gradient),
    "modes": lambda: net(switches_modes),
    "forward hook": lambda: hooked(lambda m: m.first.register_forward_hook(lambda *_: None)),
    "forward pre-hook": lambda: hooked(lambda m: m.register_forward_pre_hook(lambda *_: None)),
    "backward hook": lambda: hooked(lambda m: m.last.register_full_backward_hook(lambda *_: None)),
    "own call": lambda: OwnCall(nn.Tanh()),
    "buffer replaced": lambda: Replacing(),
    "unknown object": lambda: net(lambda self, x: x * self.kept.scale, kept=Odd()),
    "momentum of None": lambda: Net(nn.BatchNorm1d(8, momentum=None)),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_not_pure_runs_as_it_is_written(name, log):
    """Nor is it run once more than it is written, to be recorded."""
    taped, plain = (fit(fresh(UNSOUND[name]), TABLE, mode) for mode in ("auto", False))
    assert_near(everything(taped), everything(plain))

    assert not [line for line in log() if line.endswith("is trained from a tape.")]
    assert [line for line in log() if "runs as it is" in line]


def test_a_method_found_by_its_name_is_read_too(log):
    module = net(calls_by_name)
    type(module).counting = counting

    assert_the_same(module, TABLE)

    assert "runs as it is" in log()[0]


def test_a_replaced_forward_runs_as_it_is_written(log):
    fit(patched(), TABLE, "auto")

    assert "another `forward`" in log()[0]


def test_a_print_in_forward_prints_in_every_step(capsys):
    fit(net(prints), TABLE, "auto")

    # Two passes that read the outputs, 4 epochs of 5 training batches and 1 of validation.
    assert capsys.readouterr().out.count("forward") == 2 + 4 * (5 + 1)


def test_sparse_gradients_run_as_they_are_written(log):
    module = Words(nn.Embedding(9, 4, sparse=True))

    assert_the_same(module, TOKENS, optimizer="sgd")

    assert "SparseTensorImpl" in log()[0]


def test_a_hook_on_a_weight_runs_as_it_is_written(log):
    seen = []
    hook = LambdaCallback(
        on_train_begin=lambda state: state.module.first.weight.register_hook(
            lambda gradient: seen.append(len(gradient))
        )
    )

    fit(Net(nn.Tanh()), TABLE, "auto", callbacks=[hook])

    assert len(seen) == 4 * 5
    assert "`first.weight` has a hook" in log()[0]


def test_a_hook_for_all_modules_runs_as_it_is_written(log):
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        fit(Net(nn.Tanh()), TABLE, "auto")
    finally:
        handle.remove()

    assert "all modules" in log()[0]


def test_who_watches_operations_sees_all_of_them(log):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        fit(Net(nn.Tanh()), TABLE, "auto")
    with FlopCounterMode(display=False) as expected:
        fit(Net(nn.Tanh()), TABLE, False)

    assert counted.get_total_flops() == expected.get_total_flops() > 0


def fresh(make):
    """A module of the same weights, and counters that begin anew."""
    global calls
    calls = 0
    torch.manual_seed(0)
    return make()


def at_epoch(number, change, hook="on_epoch_begin"):
    """A callback that does something once, at the third epoch."""
    return LambdaCallback(**{hook: lambda state: change(state) if state.epoch == number else None})


def add_weights(state):
    state.module.extra = nn.Linear(8, 8)
    state.optimizer.add_param_group({"params": state.module.extra.parameters()})
    state.module.middle = nn.Sequential(state.module.middle, state.module.extra)


CHANGES = {
    "dropout": lambda state: setattr(state.module.middle, "p", 0.9),
    "frozen": lambda state: state.module.first.requires_grad_(False),
    "attribute": lambda state: setattr(state.module, "middle", nn.Sigmoid()),
    "data": lambda state: setattr(state.module.last.weight, "data", torch.ones(3, 8)),
    "lr": lambda state: state.optimizer.param_groups[0].update(lr=0.5),
    "betas": lambda state: state.optimizer.param_groups[0].update(betas=(0.5, 0.6)),
    "decay": lambda state: state.optimizer.param_groups[0].update(weight_decay=0.5),
    "averages": lambda state: state.optimizer.load_state_dict(
        copy.deepcopy(state.optimizer.state_dict())
    ),
    "added weights": add_weights,
    "hook": lambda state: state.module.last.register_forward_hook(lambda m, x, out: 2 * out),
    "weights in place": lambda state: nn.init.ones_(state.module.last.weight),
}


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_callback_changes_between_epochs_is_noticed(change, hook):
    def run(mode):
        torch.manual_seed(0)
        callbacks = [at_epoch(3, CHANGES[change], hook)]
        return everything(fit(Net(nn.Dropout(0.2)), TABLE, mode, epochs=7, callbacks=callbacks))

    assert_near(run("auto"), run(False))


def test_a_scheduler_of_torch_changes_the_next_step():
    class Schedule(Callback):
        def on_train_begin(self, state):
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                state.optimizer, max_lr=0.5, total_steps=100
            )

        def on_epoch_end(self, state):
            self.schedule.step()

    assert_the_same(Net(nn.Tanh()), TABLE, callbacks=[Schedule()])


@pytest.mark.parametrize("hook", ["on_batch_end", "on_epoch_end"])
def test_a_callback_sees_the_gradients_of_the_last_step(hook):
    def norms(mode):
        torch.manual_seed(0)
        seen = []

        def look(state):
            seen.append([p.grad.norm().item() for p in state.module.parameters()])

        fit(Net(nn.Tanh()), TABLE, mode, callbacks=[LambdaCallback(**{hook: look})])
        return seen

    taped, plain = norms("auto"), norms(False)
    assert len(taped) == (4 * 5 if hook == "on_batch_end" else 4)
    np.testing.assert_allclose(taped, plain, rtol=1e-3)


def test_a_taped_fit_goes_on():
    X, y = TABLE, LABELS

    def run(mode):
        torch.manual_seed(0)
        clf = Estimator(Net(nn.Dropout(0.2)), compile=mode, warm_start=True, **SETTINGS)
        clf.fit(X, y).fit(X, y)
        return everything(clf.partial_fit(X, y))

    assert_near(run("auto"), run(False))


@pytest.mark.parametrize("batch_size", [-1, 11])
def test_rows_of_a_file_that_cannot_be_written_are_only_read(tmp_path, batch_size, log):
    """To write there, even what is there already, would end the process."""
    np.save(tmp_path / "rows.npy", TABLE)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")

    fit(Net(nn.Tanh()), X, "auto", batch_size=batch_size, shuffle=False)

    assert "Net is trained from a tape." in log()


def test_short_runs_and_rare_shapes_get_no_tape(monkeypatch, log):
    """A tape has to earn what it costs."""
    monkeypatch.undo()

    fit(Net(nn.Tanh()), TABLE, "auto", epochs=14, batch_size=5)  # 56 batches of 5, 14 of 2
    assert not log()

    fit(Net(nn.Tanh()), TABLE, "auto", epochs=25, batch_size=5)  # 100 batches of 5, 25 of 2
    assert log() == ["Net is trained from a tape."]


def test_large_modules_get_no_tape(monkeypatch, log):
    monkeypatch.setattr("easyclf.tape.tapes._MOST_WEIGHTS", 10)

    fit(Net(nn.Tanh()), TABLE, "auto")

    assert "so many weights" in log()[0]


def test_an_error_while_recording_leaves_the_fit_as_it_is(monkeypatch, log):
    def broken(*arguments):
        raise RuntimeError("no such thing")

    monkeypatch.setattr("easyclf.tape.tapes.record", broken)

    assert_the_same(Net(nn.Dropout(0.3)), TABLE)

    assert "no such thing" in log()[0]


@pytest.mark.parametrize("module", [Net(nn.Dropout(0.3)), InPlace()])
def test_a_tape_that_gives_something_else_is_not_used(module, monkeypatch, log):
    def compile_wrongly(recording, choose):
        tape = compile_recording(recording, choose)

        def play(*batch):
            result = tape(*batch)
            measured, *rest = result if isinstance(result[0], tuple) else (result,)
            return (measured[0] + 1, *measured[1:]), *rest

        return play

    monkeypatch.setattr("easyclf.tape.tapes.compile_recording", compile_wrongly)

    assert_the_same(module, TABLE, shuffle=False)

    assert "differs" in log()[0]


def test_a_kernel_that_gives_something_else_is_not_used(monkeypatch, log):
    def choose(operation, tensors):
        return worse if operation is torch.ops.aten.addmm.default else None

    def worse(*tensors):
        return torch.addmm(*tensors) * 1.01

    monkeypatch.setattr("easyclf.tape.tapes.faster_kernel", choose)

    assert_the_same(Net(nn.BatchNorm1d(8)), TABLE)

    assert "Net is trained from a tape." in log()


def test_one_tensor_under_two_names_is_played_from_a_tape(log):
    class Both(Net):
        def forward(self, a, b):
            return super().forward(a + b)

    def twice(x):
        return {"a": x["a"], "b": x["a"]}

    X = {"a": TABLE, "b": TABLE}

    def run(mode):
        torch.manual_seed(0)
        clf = Estimator(Both(nn.Tanh()), compile=mode, preprocess=twice, **SETTINGS)
        return everything(clf.fit(X, LABELS))

    assert_near(run("auto"), run(False))
    assert not [line for line in log() if "as it is" in line]


def test_named_tuples_within_forward_are_fine(log):
    def between(self, x):
        pair = torch.max(x, 1, keepdim=True)
        return x - pair.values

    assert_the_same(net(between), TABLE)

    assert "is trained from a tape." in log()[0]


@pytest.mark.parametrize("as_tuple", [False, True])
def test_several_inputs_are_played_from_a_tape(as_tuple, log):
    class Joined(Net):
        def forward(self, left, right):
            return super().forward(torch.cat([left, right], 1))

    X = {"left": TABLE[:, :2], "right": TABLE[:, 2:]}
    X = tuple(X.values()) if as_tuple else X

    def run(mode):
        torch.manual_seed(0)
        clf = Estimator(Joined(nn.Dropout(0.2)), compile=mode, validation_split=0.3, **SETTINGS)
        return everything(clf.fit(X, LABELS))

    assert_near(run("auto"), run(False))
    assert "Joined is trained from a tape." in log()
    assert "Joined is evaluated from a tape." in log()


def total(module, batch):
    """A function of batches: figures of a forward pass."""
    return (module(batch.x).sum().detach(), 1)


def table_batch(n_rows=5):
    return Batch(torch.from_numpy(TABLE[:n_rows]), torch.from_numpy(LABELS[:n_rows]), None)


@pytest.mark.parametrize("training", [True, False])
def test_a_player_records_in_its_mode_and_leaves_the_mode_alone_otherwise(training):
    module = Net(nn.Dropout(0.5)).train(not training)
    function = functools.partial(total, module)
    player = Tapes(module, function).of(function, training=training, n_calls=10)

    assert player.play(table_batch()) is None
    assert module.training is not training
    # Seen, recorded, and compared twice.
    for _ in range(4):
        assert player.play(table_batch()) is not None
        assert module.training is training
    module.train(not training)
    torch.manual_seed(1)
    played = player.play(table_batch())

    assert module.training is not training
    module.train(training)
    torch.manual_seed(1)
    torch.testing.assert_close(played, function(table_batch()))


def test_a_function_runs_once_where_its_tape_is_not_used(monkeypatch):
    monkeypatch.setattr(
        "easyclf.tape.tapes.compile_recording", lambda *_: lambda *_: (torch.zeros(()), 1)
    )
    module = Net(nn.BatchNorm1d(8))
    function = functools.partial(total, module)
    player = Tapes(module, function).of(function, training=True, n_calls=10)

    assert player.play(table_batch()) is None
    assert player.play(table_batch()) is not None
    assert player.play(table_batch()) is not None

    assert module.middle.num_batches_tracked == 2
    assert player.play(table_batch()) is None


@pytest.mark.parametrize("keywords", [{"is_on": False}, {}])
def test_a_run_may_have_no_tapes(keywords):
    module = Net(nn.Tanh())
    n_calls = 0 if not keywords else 10
    player = Tapes(module, None, **keywords).of(
        functools.partial(total, module), training=True, n_calls=n_calls
    )

    assert [player.play(table_batch()) for _ in range(4)] == 4 * [None]


def test_a_hook_that_an_augmentation_puts_on_a_gradients_node_is_seen(log):
    made, held = [], []

    def make():
        made.append(nn.Linear(6, 3))
        return made[-1]

    def hook_once(x):
        if "Linear is trained from a tape." in log() and not held:
            weight = made[-1].weight
            with torch.enable_grad():
                held.append(weight.view_as(weight).grad_fn.next_functions[0][0])
        return x

    # All batches have one shape, so that nothing is observed after the first tape.
    Estimator(make, augment=hook_once, **SETTINGS).fit(TABLE[:20], LABELS[:20])

    assert held
    assert "Linear runs as it is: somebody holds the node of Linear's `weight`." in log()
