"""A device without float64, which reads memory of the host late, as Apple's does.

Each test fails at its end if memory was changed or given back before the device had read it.
"""

import numpy as np
import pytest
import torch
from scenarios import DATA, HEADS, TOKENS, WEIGHT, Items, X, Y, network
from test_training import check_same
from torch import nn

from easyclf import Estimator
from easyclf.device import has_float64, pins, resolve_device, to_device

pytestmark = pytest.mark.usefixtures("like_apples")

DEVICE = "pretend:1"


def test_the_device_is_what_it_pretends():
    device = resolve_device(DEVICE)

    assert not has_float64(device)
    assert not pins(device)
    with pytest.raises(TypeError, match="does not support float64"):
        torch.zeros(2, dtype=torch.float64, device=device)


@pytest.mark.parametrize("kind", DATA)
def test_all_kinds_of_data(kind, tmp_path):
    check_same(DATA[kind](tmp_path))


@pytest.mark.parametrize("head", HEADS)
def test_all_heads_losses_and_weights(head):
    check_same(HEADS[head])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"preprocess": lambda x: x / 2},
        {"sample_weight": WEIGHT},
        {"class_weight": "balanced"},
        {"validation_split": 0.25},
        {"optimizer": "adagrad"},
    ],
    ids=lambda parameters: ", ".join(parameters) or "defaults",
)
def test_rows_in_float64(parameters):
    check_same({"X": X.astype(np.float64), **parameters})


def test_tokens_that_come_in_float64_later():
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    clf = Estimator(module, device=DEVICE, epochs=1).fit(TOKENS, Y)

    assert clf.predict(TOKENS.astype(np.float64)).tolist() == clf.predict(TOKENS).tolist()


def test_weights_of_a_module_in_float64():
    check_same({"module": network().double()})


def test_weights_beside_items():
    class InDouble(Items):
        def __getitem__(self, row):
            x, y = super().__getitem__(row)
            return x.double(), y, WEIGHT[row]

    check_same({"X": InDouble(), "y": None})


def test_float64_is_refused_as_a_precision():
    clf = Estimator(network(), device=DEVICE, precision="float64")

    with pytest.raises(
        ValueError, match="'float64', which pretend does not have; use device='cpu'"
    ):
        clf.fit(X, Y)


def test_memory_that_is_used_again_is_read_before():
    x = torch.ones(8)

    moved = to_device(x, resolve_device(DEVICE))
    x.zero_()

    assert moved.sum().item() == 8
