"""The kernels of optimizers called directly: what `step` does, and not where `step` is more."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from easyclf.tape.updates import Update


def a_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def differentiate(module):
    """Gradients as `backward` leaves them, of rows that are drawn anew."""
    module.zero_grad()
    F.cross_entropy(module(torch.randn(6, 4)), torch.arange(6) % 3).backward()
    return [parameter.grad for parameter in module.parameters()]


FUSED = {
    "adam": (torch.optim.Adam, {}),
    "adam, decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adam, decoupled": (torch.optim.Adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adam, amsgrad": (torch.optim.Adam, {"amsgrad": True, "betas": (0.5, 0.9), "eps": 1e-3}),
    "adam, maximize": (torch.optim.Adam, {"maximize": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {}),
    "sgd, momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    "sgd, nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


def trained(kind, keywords, is_direct, n_groups=1, change=lambda optimizer, number: None):
    """The weights after a first step by `step` and nine more, by `step` or directly."""
    module = a_network()
    parameters = list(module.parameters())
    size = len(parameters) // n_groups
    groups = [{"params": parameters[i * size : (i + 1) * size]} for i in range(n_groups)]
    optimizer = kind(groups, lr=0.05, fused=True, **keywords)
    update = None
    for number in range(10):
        change(optimizer, number)
        gradients = differentiate(module)
        if number and is_direct:
            update = update or Update(optimizer)
            assert update(gradients)
        else:
            optimizer.step()
    return [*module.parameters(), *optimizer.state[parameters[0]].values()]


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("name", FUSED)
def test_the_direct_update_is_what_step_does(name, n_groups):
    kind, keywords = FUSED[name]
    if keywords.get("decoupled_weight_decay") and "decoupled_weight_decay" not in (
        inspect.signature(kind).parameters
    ):
        pytest.skip("this torch has no `decoupled_weight_decay`")

    direct, by_step = (trained(kind, keywords, mode, n_groups) for mode in (True, False))

    for found, expected in zip(direct, by_step, strict=True):
        assert (found is None and expected is None) or torch.equal(found, expected)


def test_the_direct_update_reads_the_settings_in_every_step():
    def change(optimizer, number):
        for group in optimizer.param_groups:
            group.update(lr=0.1 / (number + 1), weight_decay=0.01 * number)

    direct, by_step, unchanged = (
        trained(torch.optim.Adam, {}, mode, change=how)
        for mode, how in [(True, change), (False, change), (True, lambda *_: None)]
    )

    assert all(map(torch.equal, direct, by_step))
    assert not torch.equal(direct[0], unchanged[0])


def test_the_direct_update_leaves_out_what_has_no_gradient():
    module = a_network()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
    differentiate(module)
    optimizer.step()
    before = copy.deepcopy(module.state_dict())

    gradients = differentiate(module)
    assert Update(optimizer)([gradients[0], None, gradients[2], None])

    changed = [not torch.equal(before[name], value) for name, value in module.state_dict().items()]
    assert changed == [True, False, True, False]


def trained_once(kind=torch.optim.Adam, **keywords):
    module = a_network()
    optimizer = kind(module.parameters(), lr=0.1, **keywords)
    differentiate(module)
    optimizer.step()
    return optimizer


def is_updated(optimizer):
    """Whether the update is done directly, with the gradients that the parameters have."""
    parameters = optimizer.param_groups[0]["params"]
    return Update(optimizer)([torch.zeros_like(parameter) for parameter in parameters])


class TestNoDirectUpdate:
    def test_of_what_is_not_fused(self):
        assert not is_updated(trained_once(fused=False))
        assert not is_updated(trained_once(torch.optim.RMSprop))

    def test_of_somebodys_own_class(self):
        class Own(torch.optim.Adam):
            pass

        assert not is_updated(trained_once(Own, fused=True))

    @pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
    def test_where_somebody_watches_the_steps(self, register):
        optimizer = trained_once(fused=True)
        getattr(optimizer, register)(lambda *_: None)

        assert not is_updated(optimizer)

    def test_where_somebody_watches_all_optimizers(self):
        optimizer = trained_once(fused=True)
        handle = register_optimizer_step_post_hook(lambda *_: None)
        try:
            assert not is_updated(optimizer)
        finally:
            handle.remove()

    def test_where_step_was_replaced(self):
        optimizer = trained_once(fused=True)
        optimizer.step = lambda: None

        assert not is_updated(optimizer)


def test_a_scheduler_is_no_reason_against_the_direct_update():
    optimizer = trained_once(fused=True)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    assert is_updated(optimizer)
