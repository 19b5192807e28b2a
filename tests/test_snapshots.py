"""Copies of tensors and of generators' states, which can be put back."""

import math

import pytest
import torch
from torch import nn

from easyclf.snapshots import Snapshot, are_finite


def weights(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def disturb(module):
    for tensor in module.state_dict().values():
        tensor.add_(1)


@pytest.fixture
def normalized(network):
    return nn.Sequential(network, nn.BatchNorm1d(3))


def test_weights_and_buffers_come_back(normalized):
    before = weights(normalized)
    snapshot = Snapshot(normalized)
    disturb(normalized)

    snapshot.restore()

    assert weights(normalized) == before


def test_the_last_copy_counts(normalized):
    snapshot = Snapshot(normalized)
    disturb(normalized)
    taken = weights(normalized)
    snapshot.take()
    disturb(normalized)

    snapshot.restore()

    assert weights(normalized) == taken


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(2, 3),
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1).double()),
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)),
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)),
        lambda: nn.Linear(300, 300),
        lambda: nn.ParameterList([torch.full((3,), 3e38)]),
        lambda: nn.ReLU(),
    ],
    ids=["few", "two dtypes", "channels last", "buffers", "many", "huge", "none"],
)
def test_only_finite_weights_are_taken(make):
    module = make()
    snapshot = Snapshot(module)
    for _ in range(3):
        disturb(module)
        finite = weights(module)
        assert snapshot.take_finite()
    disturb(module)
    for weight in list(module.parameters())[-1:]:
        with torch.no_grad():
            weight.view(-1)[-1] = math.nan
        assert not snapshot.take_finite()
    snapshot.restore()

    assert weights(module) == finite


def test_a_copy_can_be_put_back_any_number_of_times(normalized):
    before = weights(normalized)
    snapshot = Snapshot(normalized)

    for _ in range(2):
        disturb(normalized)
        snapshot.restore()

    assert weights(normalized) == before


def test_weights_come_back_into_the_tensors_that_the_optimizer_holds(network):
    held = list(network.parameters())
    snapshot = Snapshot(network)

    snapshot.restore()

    assert all(now is then for now, then in zip(network.parameters(), held, strict=True))


def test_shared_weights_stay_shared():
    first = nn.Linear(3, 3)
    second = nn.Linear(3, 3)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    before = weights(module)
    snapshot = Snapshot(module)
    disturb(first)

    snapshot.restore()

    assert second.weight is first.weight
    assert weights(module) == before


def test_a_buffer_that_the_module_replaced_comes_back():
    """`self.mean = 0.9 * self.mean + ...` makes a new tensor every time."""
    module = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(2))
    snapshot = Snapshot(module)
    module.mean = module.mean + 1

    snapshot.restore()

    assert module.mean.tolist() == [0, 0]


def test_a_replaced_buffer_gives_its_place_back():
    """Else the graph of what replaced it would stay in the module."""
    module = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(2))
    own, snapshot = module.mean, Snapshot(module)
    module.mean = (module.weight + 1).sum(0)

    snapshot.restore()

    assert module.mean is own


def test_weights_that_were_given_other_memory_come_back():
    """As by an optimizer that assigns `weight.data`."""
    module = nn.Linear(2, 2)
    before = weights(module)
    snapshot = Snapshot(module)
    module.weight.data = module.weight.data + 1
    snapshot.take()
    taken = weights(module)
    module.weight.data = module.weight.data + 1

    snapshot.restore()

    assert weights(module) == taken != before


def test_generators_and_other_tensors_come_back():
    x = torch.zeros(2)
    snapshot = Snapshot(tensors=[x], devices=[torch.device("cpu")])
    drawn = torch.rand(4)
    x.add_(1)

    snapshot.restore()

    assert x.tolist() == [0, 0]
    assert torch.equal(torch.rand(4), drawn)


def test_what_has_not_changed_is_not_written_to():
    """A mapped file may not be."""
    same, changed = torch.zeros(2), torch.zeros(2)
    snapshot = Snapshot(tensors=[same, changed])
    changed.add_(1)
    writes = same._version

    snapshot.restore_changed()

    assert changed.tolist() == [0, 0]
    assert same._version == writes


@pytest.mark.parametrize("name", ["_foreach_copy_", "_foreach_norm"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_private_names_of_torch_are_not_needed(monkeypatch, normalized, name, is_gone):
    def refuse(*_):
        raise RuntimeError("changed")

    monkeypatch.delattr(torch, name) if is_gone else monkeypatch.setattr(torch, name, refuse)
    before = weights(normalized)
    snapshot = Snapshot(normalized)
    disturb(normalized)

    snapshot.restore()

    assert weights(normalized) == before
    assert are_finite(normalized.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_noticed(value):
    tensors = [torch.zeros(3), torch.tensor([1.0, value])]

    assert not are_finite(tensors)


def test_huge_numbers_are_finite():
    """Their norm is not."""
    assert are_finite([torch.full((4,), 3e38)])


def test_integers_are_finite():
    assert are_finite([torch.arange(3)])
