"""The state of a run, and copies of weights that can be put back."""

import pytest
import torch
from torch import nn

from easyclf import Estimator, LambdaCallback
from easyclf.snapshots import Snapshot


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


def test_a_stop_has_a_reason(blobs, network):
    states = []
    stop = LambdaCallback(on_batch_end=lambda state: states.append(state) or state.stop("enough"))

    Estimator(network, callbacks=[stop], lr=0.1).fit(*blobs)

    assert states[0].stop_reason == "enough"
