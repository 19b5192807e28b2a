"""Direct calls of the optimizers' kernels do what `step` does, or leave it to `step`."""

import copy
import functools

import pytest
import torch
from torch import nn

from easyclf.tape import updates
from easyclf.tape.updates import Update

SHAPES = ((3, 2), (4,), (2,))
KINDS = {
    "adam": (torch.optim.Adam, {}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "maximize": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.3}),
    "sgd": (torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.2}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients(step, without=()):
    return [
        None if place in without else torch.full(shape, 0.1 * (step + place + 1))
        for place, shape in enumerate(SHAPES)
    ]


def step(optimizer, given):
    every = [item for group in optimizer.param_groups for item in group["params"]]
    for parameter, gradient in zip(every, given, strict=True):
        parameter.grad = gradient
    optimizer.step()


def assert_same(direct, written):
    for group, other in zip(direct.param_groups, written.param_groups, strict=True):
        for one, two in zip(group["params"], other["params"], strict=True):
            assert torch.equal(one, two)
            state, expected = direct.state[one], written.state[two]
            assert {name for name in state if state[name] is not None} == {
                name for name in expected if expected[name] is not None
            }
            for name, value in state.items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def both(kind, make_groups=lambda items: items, **options):
    return [kind(make_groups(parameters()), lr=0.1, fused=True, **options) for _ in range(2)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("without", [(), (1,), (0, 1), (0, 1, 2)], ids=str)
def test_an_update_is_a_step_from_the_first_on(name, without):
    kind, options = KINDS[name]
    direct, written = both(kind, lambda p: [{"params": p[:2]}, {"params": p[2:]}], **options)
    update = Update(direct)

    for number in range(4):
        assert update(gradients(number, without))
        step(written, gradients(number, without))

    assert_same(direct, written)


@pytest.mark.parametrize("name", KINDS)
def test_what_changes_between_updates_is_seen(name):
    kind, options = KINDS[name]
    direct, written = both(kind, lambda p: p[:2], **options)
    update = Update(direct)

    for number in range(6):
        for optimizer in (direct, written):
            group = optimizer.param_groups[0]
            group["lr"] = 0.1 / (number + 1)
            if number == 2:
                optimizer.add_param_group({"params": parameters()[2:], "lr": 0.3})
            if number == 4:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                group["params"][0].data = group["params"][0].data.clone()
        given = gradients(number)[: 2 if number < 2 else 3]
        if not update(given):
            step(direct, given)
        step(written, given)

    assert_same(direct, written)


class Own(torch.optim.SGD):
    pass


def wrapped(optimizer):
    original = optimizer.step

    @functools.wraps(original)
    def other(*arguments):
        return original(*arguments)

    other._wrapped_by_lr_sched = True
    optimizer.step = other


LEFT_ALONE = {
    "another class": (Own, {}, lambda optimizer: None),
    "not fused": (torch.optim.SGD, {"fused": False}, lambda optimizer: None),
    "an option that is not known": (
        torch.optim.SGD,
        {},
        lambda optimizer: optimizer.param_groups[0].update(a_new_option_of_torch=True),
    ),
    "a rate that is a tensor": (
        torch.optim.SGD,
        {},
        lambda optimizer: optimizer.param_groups[0].update(lr=torch.tensor(0.1)),
    ),
    "a wrapper that bears a scheduler's mark": (torch.optim.SGD, {}, wrapped),
    "a hook": (
        torch.optim.SGD,
        {},
        lambda optimizer: optimizer.register_step_post_hook(lambda *_: None),
    ),
    "a state that some weights lack": (
        torch.optim.SGD,
        {"momentum": 0.9},
        lambda optimizer: optimizer.state[optimizer.param_groups[0]["params"][0]].update(
            momentum_buffer=torch.zeros(3, 2)
        ),
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_anything_else_is_left_to_step(name):
    kind, options, change = LEFT_ALONE[name]
    optimizer = kind(parameters(), **{"lr": 0.1, "fused": True, **options})
    before = copy.deepcopy(optimizer.param_groups[0]["params"])
    change(optimizer)

    assert not Update(optimizer)(gradients(0))

    assert all(map(torch.equal, optimizer.param_groups[0]["params"], before))


def test_a_step_that_somebody_replaced_in_torch_is_left_alone(monkeypatch):
    optimizer = torch.optim.SGD(parameters(), lr=0.1, fused=True)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: None)

    assert not Update(optimizer)(gradients(0))


@pytest.mark.parametrize("is_tried", [True, False])
def test_a_kernel_that_fails_is_not_used(is_tried, monkeypatch):
    optimizer = torch.optim.SGD(parameters(), lr=0.1, fused=True)
    updates._is_tried.cache_clear()
    if is_tried:
        assert Update(optimizer)(gradients(0))

    def fail(*_, **__):
        raise TypeError("another argument")

    monkeypatch.setattr(torch, "_fused_sgd_", fail)
    update = Update(optimizer)

    assert not update(gradients(0))
    updates._is_tried.cache_clear()


def test_a_scheduler_of_torch_goes_on_counting():
    optimizer = torch.optim.SGD(parameters(), lr=0.1, fused=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    assert Update(optimizer)(gradients(0))
    scheduler.step()

    assert optimizer.param_groups[0]["lr"] == 0.05
