"""Random straight lines of operations, with views and changes in place, replay as they run."""

import os

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from easyclf.tape.compiler import compile_recording
from easyclf.tape.recorder import NotRecordable, record

# All tensors of a program have as many numbers, so that any can be viewed as any other.
N_EXAMPLES = int(os.environ.get("EASYCLF_STRAIGHT_LINES", "60"))
SHAPES = ((4, 6), (6, 4), (24,), (2, 3, 4), (1, 24))


def tape_of(function, inputs, known):
    """A tape of a function; this is the only place that knows how it is made.

    What is refused is another example's turn; where all are refused, hypothesis complains.
    """
    try:
        _, recording = record(lambda: function(*inputs), inputs, known)
    except NotRecordable:
        assume(False)
    if isinstance(recording, NotRecordable):
        assume(False)
    return compile_recording(recording, lambda operation, tensors: None)


# Each takes the tensors so far and some whole numbers, and gives a new tensor or changes one.


def pick(tensors, number):
    return tensors[number % len(tensors)]


def full(tensor):
    """The tensor in a shape of the program: what has fewer numbers is broadcast."""
    if tensor.numel() == 24:
        return tensor
    return tensor.reshape(-1)[:1].expand(24).clone().view(SHAPES[0])


def axis_of(tensor, number):
    return number % max(1, tensor.ndim)


def add(tensors, a, b, c):
    first = pick(tensors, a)
    return (
        first + full(pick(tensors, b)).reshape(-1)[: first.shape[-1]] if first.ndim else first + 1
    )


def multiply(tensors, a, b, c):
    return pick(tensors, a) * (0.5 + c % 3)


def tanh(tensors, a, b, c):
    return pick(tensors, a).tanh()


def matrix(tensors, a, b, c):
    return full(pick(tensors, a)).reshape(4, 6) @ full(pick(tensors, b)).reshape(4, 6).t() / 24


def total(tensors, a, b, c):
    tensor = pick(tensors, a)
    if not tensor.ndim:
        return tensor.sum()
    axis = axis_of(tensor, b)
    return tensor.sum(axis, keepdim=bool(c % 3)) / 8


def total_view(tensors, a, b, c):
    """A sum that keeps its dimension, and a view without it: what the compiler joins."""
    tensor = full(pick(tensors, a))
    axis = axis_of(tensor, b)
    kept = tensor.sum(axis, keepdim=True)
    tensors.append(kept)
    return kept.view([size for place, size in enumerate(tensor.shape) if place != axis])


def total_of_fewer_bits(tensors, a, b, c):
    tensor = full(pick(tensors, a))
    axis = axis_of(tensor, b)
    kept = tensor.sum(axis, keepdim=True, dtype=torch.float32)
    sizes = [size for place, size in enumerate(tensor.shape) if place != axis]
    return kept.view(sizes).double()


def view(tensors, a, b, c):
    tensor = full(pick(tensors, a))
    return tensor.view(SHAPES[b % len(SHAPES)]) if tensor.is_contiguous() else tensor.detach()


def transpose(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor.t() if tensor.ndim == 2 else tensor.detach()


def detach(tensors, a, b, c):
    return pick(tensors, a).detach()


def clone(tensors, a, b, c):
    return pick(tensors, a).clone()


def expand(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor.expand(2, *tensor.shape).sum(0) if c % 2 else tensor.expand_as(tensor)


def slices(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor[b % len(tensor) :] if tensor.ndim and len(tensor) > 1 else tensor[...]


def row(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor[b % len(tensor)] if tensor.ndim > 1 else tensor[...]


def chunk(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor.chunk(2, -1)[b % 2] if tensor.ndim and tensor.shape[-1] > 1 else tensor[...]


def index(tensors, a, b, c):
    tensor = pick(tensors, a)
    return tensor[torch.tensor([0, len(tensor) - 1])] if tensor.ndim else tensor[...]


def ones_like(tensors, a, b, c):
    return torch.ones_like(pick(tensors, a))


def literal(tensors, a, b, c):
    return torch.tensor([1.0, 2.0, 3.0][: 1 + c % 3], dtype=torch.float64)


def constant(tensors, a, b, c):
    return torch.tensor([1.0, 2.0], dtype=torch.float64).neg().exp()


def draw(tensors, a, b, c):
    return torch.rand(SHAPES[c % len(SHAPES)], dtype=torch.float64)


def is_overlapping(tensor):
    return any(
        step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def writable(tensors, number):
    """A tensor that may be changed: not one of which two numbers share their memory."""
    tensor = pick(tensors, number)
    return tensor.clone() if is_overlapping(tensor) else tensor


def add_(tensors, a, b, c):
    writable(tensors, a).add_(full(pick(tensors, b)).reshape(-1)[0].clone(), alpha=0.5)


def multiply_(tensors, a, b, c):
    writable(tensors, a).mul_(0.5 + c % 2)


def add_late_(tensors, a, b, c):
    """It changes nothing while it is recorded and tried, and something afterwards."""
    writable(tensors, a).add_(tensors[1].reshape(-1)[0] - 1)


def fill_(tensors, a, b, c):
    tensor = writable(tensors, a)
    (tensor[b % len(tensor)] if tensor.ndim else tensor).fill_(c % 5)


def copy_(tensors, a, b, c):
    tensor = writable(tensors, a)
    tensor.copy_(full(pick(tensors, b)).reshape(-1)[c % 24].clone())


def relu_(tensors, a, b, c):
    writable(tensors, a).relu_()


def transpose_(tensors, a, b, c):
    tensor = pick(tensors, a).clone()
    tensors.append(tensor)
    return tensor.t_().mul_(2) if tensor.ndim == 2 else tensor.unsqueeze_(0)


def out_(tensors, a, b, c):
    tensor = pick(tensors, a)
    place = torch.empty_like(tensor)
    torch.mul(tensor, 2, out=place)
    return place


OPERATIONS = (
    add, multiply, tanh, matrix, total, total_view, total_of_fewer_bits, view, transpose, detach,
    clone, expand, slices, row, chunk, index, ones_like, literal, constant, draw, add_, multiply_,
    add_late_, fill_, copy_, relu_, transpose_, out_,
)  # fmt: skip

NUMBERS = st.integers(0, 30)
LINES = st.lists(st.tuples(st.sampled_from(OPERATIONS), NUMBERS, NUMBERS, NUMBERS), max_size=12)


def program(lines, known):
    """A function of two inputs that does what the lines say, and returns all its tensors."""

    def run(*inputs):
        tensors = [*inputs, *known]
        for operation, *numbers in lines:
            made = operation(tensors, *numbers)
            if made is not None:
                tensors.append(made)
        return [tensor * 1 for tensor in tensors[-6:]], tensors[-1]

    return run


def given_tensors(seed):
    """Inputs, and tensors that stay; the second input is one while a tape is made."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(SHAPES[0], generator=generator, dtype=torch.float64) for _ in range(2)]
    if seed == 0:
        inputs[1].fill_(1.0)
    return inputs


def known_tensors():
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES[:2]]


def flat(nested):
    return [nested] if isinstance(nested, torch.Tensor) else [x for y in nested for x in flat(y)]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(
    max_examples=N_EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(lines=LINES)
def test_a_tape_does_what_a_straight_line_of_operations_does(lines):
    known, kept = known_tensors(), known_tensors()
    torch.manual_seed(0)
    tape = tape_of(program(lines, known), given_tensors(0), known)
    for tensor, value in zip(known, kept, strict=True):
        tensor.copy_(value)

    for seed in (1, 2):
        inputs, others = given_tensors(seed), given_tensors(seed)
        torch.manual_seed(seed)
        found = flat(tape(*inputs))
        torch.manual_seed(seed)
        expected = flat(program(lines, kept)(*others))

        assert_equal([*found, *inputs, *known], [*expected, *others, *kept])


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(
    max_examples=N_EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(lines=LINES)
def test_a_tape_has_the_gradients_of_a_straight_line_of_operations(lines):
    """Of a weight of which the lines get a changed copy, and a broadcast sum."""

    def gradients(weight, scale, buffers):
        def run(*inputs):
            first = (weight * inputs[0] * scale).tanh() * scale
            made = program(lines, buffers)(first, inputs[1].clone())
            loss = sum(tensor.mean() for tensor in flat(made) if tensor.requires_grad)
            if not isinstance(loss, torch.Tensor):
                loss = first.sum()
            return [loss.detach(), *torch.autograd.grad(loss, [weight, scale])]

        return run

    weights = [
        torch.ones(4, 1).double().requires_grad_(),
        torch.ones(1, 6).double().requires_grad_(),
    ]
    known, kept = known_tensors(), known_tensors()
    torch.manual_seed(0)
    try:
        tape = tape_of(gradients(*weights, known), given_tensors(0), [*weights, *known])
    except RuntimeError:
        return  # autograd refuses these changes in place
    for tensor, value in zip(known, kept, strict=True):
        tensor.detach_().copy_(value)

    inputs = given_tensors(1)
    torch.manual_seed(1)
    found = flat(tape(*inputs))
    torch.manual_seed(1)
    expected = gradients(*weights, kept)(*given_tensors(1))

    assert_equal(found, expected)
