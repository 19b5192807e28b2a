import functools
import math
import random
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from easyclf.tape.purity import CodeReading
from easyclf.tape.recorder import NotRecordable

SCALE = 2.0
LAYERS = [1, 2]
calls = 0


def module(forward, **attributes):
    """A module with this `forward` and these attributes."""
    made = type("Own", (nn.Module,), {"forward": forward})()
    made.layer = nn.Linear(2, 2)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def helper(x):
    return F.relu(x) * SCALE


def impure_helper(x):
    global calls
    calls += 1
    return x


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@decorated
def through_a_decorator(self, x):
    return self.layer(x)


PURE = {
    "layers": lambda self, x: self.layer(x),
    "torch and math": lambda self, x: torch.tanh(x) * math.sqrt(2),
    "functions of ours": lambda self, x: helper(x),
    "globals": lambda self, x: x * SCALE,
    "a global list": lambda self, x: x * len(LAYERS),
    "comprehensions": lambda self, x: torch.stack([x * i for i in range(3)]).sum(0),
    "local lists": lambda self, x: torch.cat([one for one in (x, x)], 0)[: len(x)],  # noqa: C416
    "nested functions": lambda self, x: (lambda y: y + 1)(x),
    "a decorator": through_a_decorator,
    "shapes": lambda self, x: x.view(x.shape[0], -1) if x.ndim > 2 else x,
    "isinstance": lambda self, x: x if isinstance(self.layer, nn.Linear) else -x,
}


@pytest.mark.parametrize("name", PURE)
def test_pure_code_is_read(name):
    own = module(PURE[name])

    assert CodeReading([own]) == CodeReading([own])
    assert {id(tensor) for tensor in own.parameters()} <= set(map(id, CodeReading([own]).tensors))


def appends_locally(self, x):
    outputs = []
    for _ in range(2):
        outputs.append(x)
    return torch.cat(outputs)


def test_lists_that_are_made_in_the_call_may_grow():
    CodeReading([module(appends_locally)])


def test_but_not_where_lists_are_that_outlive_it():
    with pytest.raises(NotRecordable, match="appends_locally may change"):
        CodeReading([module(appends_locally, kept=[1])])


IMPURE = {
    "random": (lambda self, x: x * random.random(), "random"),
    "time": (lambda self, x: x * time.time(), "time"),
    "print": (lambda self, x: print(x), "print"),
    "open": (lambda self, x: open("x"), "open"),  # noqa: PTH123, SIM115
    "item": (lambda self, x: x.item(), "item"),
    "data": (lambda self, x: x.data, "data"),
    "a function that is impure": (lambda self, x: impure_helper(x), "sets `calls`"),
    "setattr": (lambda self, x: setattr(self, "n", 1), "setattr"),
    "exec": (lambda self, x: exec("x = 1"), "exec"),
    "manual_seed": (lambda self, x: torch.manual_seed(0), "manual_seed"),
}


@pytest.mark.parametrize("name", IMPURE)
def test_impure_code_is_refused(name):
    forward, match = IMPURE[name]

    with pytest.raises(NotRecordable, match=match):
        CodeReading([module(forward)])


def test_code_behind_an_override_of_torchs_layers_is_read():
    class Counted(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            self.calls = 1
            return super()._conv_forward(x, weight, bias)

    with pytest.raises(NotRecordable, match="sets `calls`"):
        CodeReading([nn.Sequential(Counted(1, 1, 1))])


def test_properties_are_read():
    class Own(nn.Module):
        @property
        def scale(self):
            return random.random()

        def forward(self, x):
            return x * self.scale

    with pytest.raises(NotRecordable, match="random"):
        CodeReading([Own()])


class Configured(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale, self.sizes = nn.Linear(2, 2), 2.0, (1, 2)
        self.register_buffer("kept", torch.ones(2))

    def forward(self, x):
        return self.layer(x) * self.scale + self.kept


CHANGES = {
    "an attribute": lambda own: setattr(own, "scale", 3.0),
    "a tuple": lambda own: setattr(own, "sizes", (1, 3)),
    "a new attribute": lambda own: setattr(own, "more", 1),
    "the mode of a layer": lambda own: own.layer.eval(),
    "a weight": lambda own: setattr(own.layer, "weight", nn.Parameter(torch.ones(2, 2))),
    "the data of a weight": lambda own: setattr(own.layer.weight, "data", torch.ones(2, 2)),
    "requires_grad": lambda own: own.layer.weight.requires_grad_(False),
    "a buffer": lambda own: setattr(own, "kept", torch.zeros(2)),
    "a layer": lambda own: setattr(own, "layer", nn.Linear(2, 2)),
    "a layer's class": lambda own: setattr(own.layer, "__class__", nn.Identity),
    "a method": lambda own: setattr(type(own), "forward", lambda self, x: x),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change, monkeypatch):
    monkeypatch.setattr(Configured, "forward", Configured.forward)  # put back afterwards
    own = Configured()
    before = CodeReading([own])

    CHANGES[change](own)

    assert CodeReading([own]) != before


def test_changes_of_values_are_not_changes():
    own = Configured()
    before = CodeReading([own])

    with torch.no_grad():
        own.layer.weight.zero_()

    assert CodeReading([own]) == before


def test_a_module_may_be_switched_between_its_modes_as_a_whole():
    own = Configured()
    before = CodeReading([own])

    assert CodeReading([own.eval()]) == before


def test_a_changed_global_is_noticed(monkeypatch):
    own = module(lambda self, x: helper(x))
    before = CodeReading([own])

    monkeypatch.setitem(helper.__globals__, "SCALE", 3.0)

    assert CodeReading([own]) != before
