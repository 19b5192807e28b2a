"""The format in which a module wants its inputs."""

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from easyclf.data import InputFormat

CPU = torch.device("cpu")
CONVOLUTION = nn.Conv2d(3, 4, 3)
LINEAR = nn.Linear(4, 2)
FLIP = v2.RandomHorizontalFlip()


def made(**transforms):
    return InputFormat.of_transforms(CPU, torch.float32, **transforms)


def plain(x):
    return x * 2


@pytest.mark.parametrize(
    ("transforms", "is_vision", "is_plain"),
    [
        ({}, False, True),
        ({"preprocess": plain}, False, False),
        ({"augment": plain}, False, False),
        ({"preprocess": v2.Resize(3)}, True, False),
        ({"preprocess": plain, "augment": v2.RandomHorizontalFlip()}, True, False),
        ({"preprocess": v2.Compose([v2.Resize(3), plain])}, True, False),
        ({"preprocess": v2.Compose([plain, v2.Resize(3)])}, False, False),
    ],
)
def test_a_format_knows_its_transforms(transforms, is_vision, is_plain):
    input_format = made(**transforms)

    assert input_format.is_vision is is_vision
    assert input_format.is_plain is is_plain


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().copies = True


def test_the_losses_have_the_dtype_of_the_module():
    assert InputFormat.of_transforms(CPU, torch.float64).loss_dtype == torch.float64


def test_validation_and_prediction_are_not_augmented():
    input_format = made(augment=lambda x: x + 1, preprocess=plain)

    batch = input_format.without_augment().batch(torch.ones(2, 1), None, None, is_own=False)

    assert batch.x.tolist() == [[2], [2]]
    assert input_format.batch(torch.ones(2, 1), None, None, is_own=False).x.tolist() == [[4], [4]]


def test_a_format_for_another_device_takes_its_transforms_there():
    layer = nn.BatchNorm1d(1)

    moved = made(preprocess=layer, augment=layer).on(torch.device("meta"))

    assert moved.device.type == "meta"
    assert moved.preprocess(torch.ones(2, 1, device="meta")).device.type == "meta"
    assert moved.augment.inputs(torch.ones(2, 1, device="meta")).device.type == "meta"
    assert layer.weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("shape", "transforms", "expected"),
    [
        ((2, 8, 9, 3), {}, (3, 8, 9)),
        ((2, 8, 9, 3), {"preprocess": plain}, (8, 9, 3)),
        ((2, 8, 9, 3), {"preprocess": v2.Resize(4)}, (3, 4, 4)),
        ((2, 3, 8, 9), {}, (3, 8, 9)),
        ((2, 8, 9), {}, (8, 9)),
        ((2, 4), {}, (4,)),
    ],
)
def test_the_shape_of_a_row_is_predicted(shape, transforms, expected):
    got = made(**transforms).row_shape(torch.zeros(shape))

    assert got[:1] == expected[:1]
    assert len(got) == len(expected)


@pytest.mark.parametrize(
    ("shape", "module", "is_lazy", "transforms", "expected"),
    [
        ((2, 8, 9, 3), CONVOLUTION, False, {}, [(3, 8, 9), (8, 9, 3)]),
        ((2, 8, 9), CONVOLUTION, False, {}, [(1, 8, 9), (8, 9)]),
        ((2, 8, 9, 3), CONVOLUTION, True, {}, [(3, 8, 9)]),
        ((2, 8, 9, 3), LINEAR, False, {}, [(8, 9, 3)]),
        ((2, 8, 9, 3), LINEAR, False, {"augment": FLIP}, [(3, 8, 9), (8, 9, 3)]),
        ((2, 4), LINEAR, False, {}, [(4,)]),
    ],
)  # fmt: skip
def test_the_orders_of_dimensions_are_tried_in_this_order(
    shape, module, is_lazy, transforms, expected
):
    rows = torch.zeros(shape)

    candidates = made(**transforms).candidates(rows, module, is_lazy=is_lazy)

    shapes = [tuple(way.batch(rows, None, None, is_own=False).x.shape[1:]) for way in candidates]
    assert shapes == expected
    assert all(candidate.augment is None for candidate in candidates)
    assert candidates[0].adds_channel is (expected[0] == (1, 8, 9))


def test_a_preprocess_that_arranges_leaves_a_lazy_module_nothing_to_arrange():
    input_format = made(preprocess=lambda x: x.permute(0, 3, 1, 2))

    (candidate,) = input_format.candidates(torch.zeros(2, 8, 9, 3), CONVOLUTION, is_lazy=True)

    assert candidate.arrange is None


def test_several_inputs_have_no_order_to_try():
    rows = {"a": torch.zeros(2, 8, 9, 3)}

    (candidate,) = made().candidates(rows, CONVOLUTION, is_lazy=False)

    assert candidate.arrange is None
