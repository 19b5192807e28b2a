import dis
import inspect

import pytest
import torch
from torch import nn

from easyclf.tape.compiler import compile_recording
from easyclf.tape.recorder import NotRecordable, record


def taped(function, *inputs, known=()):
    """What a function returned while it was recorded, and its tape."""
    result, recording = record(lambda: function(*inputs), inputs, known)
    if isinstance(recording, NotRecordable):
        raise recording
    return result, compile_recording(recording, lambda operation, tensors: None)


def operations(function, *inputs, known=()):
    """How many operations a tape does."""
    _, tape = taped(function, *inputs, known=known)
    return sum(instruction.opname == "CALL" for instruction in dis.get_instructions(tape))


ROWS = torch.randn(4, 3)


def test_a_tape_computes_what_was_recorded_for_other_values():
    result, tape = taped(lambda x: (x * 2).relu().sum(1), ROWS)

    other = torch.randn(4, 3)
    torch.testing.assert_close(result, (ROWS * 2).relu().sum(1))
    torch.testing.assert_close(tape(other), (other * 2).relu().sum(1))


def test_another_function_may_take_the_place_of_an_operation():
    seen = []

    def choose(operation, tensors):
        seen.append((operation, [tuple(one.shape) for one in tensors]))
        return torch.add if operation is torch.ops.aten.mm.default else None

    square = torch.eye(3)
    _, recording = record(lambda: (square @ square).relu(), [square], [])

    assert compile_recording(recording, choose)(square).equal(2 * square)
    assert seen[-1] == (torch.ops.aten.mm.default, [(3, 3), (3, 3)])


def test_a_tape_reads_known_tensors_as_they_are_when_it_is_played():
    weight = nn.Parameter(torch.ones(3))

    def gradient(x):
        loss = (x @ weight).square().mean()
        return loss.detach(), torch.autograd.grad(loss, [weight])

    _, tape = taped(gradient, ROWS, known=[weight])
    with torch.no_grad():
        weight.mul_(3)

    for found, expected in zip(tape(ROWS), gradient(ROWS), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_result_keeps_its_structure():
    def nested(x):
        return {"sum": x.sum(), "rest": [(x + 1, None), "text", 3]}

    _, tape = taped(nested, ROWS)

    found = tape(ROWS)
    assert found["rest"][1:] == ["text", 3]
    assert found["rest"][0][1] is None
    torch.testing.assert_close(found["rest"][0][0], ROWS + 1)


def test_arguments_beyond_the_inputs_are_ignored():
    _, tape = taped(torch.tanh, ROWS)

    torch.testing.assert_close(tape(ROWS, None), ROWS.tanh())


def test_a_result_may_be_an_input_or_a_known_tensor():
    known = torch.ones(2)

    _, tape = taped(lambda x: (x, known), ROWS, known=[known])

    assert tape(ROWS)[0] is ROWS
    assert tape(ROWS)[1].data_ptr() == known.data_ptr()


def test_a_result_that_never_changes_is_given_as_a_copy():
    _, tape = taped(lambda x: (torch.ones(2) / 4, x), ROWS)

    tape(ROWS)[0].zero_()

    assert tape(ROWS)[0].equal(torch.full((2,), 0.25))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(0, keepdim=True).add_(1).view(3),
        lambda x: x.sum([0], keepdim=True, dtype=torch.float64).view(3),
        lambda x: x[:, :1].sum([-1], keepdim=True).view(4, 1),
    ],
    ids=["written to", "of another dtype", "of the last dimension"],
)
def test_a_sum_stays_as_it_was_recorded(function):
    result, tape = taped(function, ROWS)

    torch.testing.assert_close(tape(ROWS), result)


def test_every_replay_draws_anew():
    _, tape = taped(lambda x: x + torch.rand(4, 3), ROWS)

    torch.manual_seed(0)
    first, second = tape(ROWS), tape(ROWS)
    torch.manual_seed(0)
    expected = ROWS + torch.rand(4, 3)
    torch.testing.assert_close(first, expected)
    assert not torch.equal(first, second)


def test_known_tensors_that_are_changed_in_place_go_on_changing():
    count = torch.zeros(())

    def counts(x):
        count.add_(1)
        return x * count

    _, tape = taped(counts, ROWS, known=[count])
    tape(ROWS)

    torch.testing.assert_close(tape(ROWS), ROWS * 3)
    assert count.item() == 3


def test_a_literal_that_is_changed_in_place_begins_anew_in_every_replay():
    def counts(x):
        total = torch.tensor(1.0)
        total += x.shape[0]
        return x * total

    _, tape = taped(counts, ROWS)
    tape(ROWS)

    torch.testing.assert_close(tape(ROWS), ROWS * 5)


def test_a_view_of_what_is_changed_sees_the_change():
    buffer = torch.zeros(3)

    def function(x):
        buffer.copy_(x.sum(0))
        return buffer[1:] + 0

    _, tape = taped(function, ROWS, known=[buffer])

    other = torch.randn(4, 3)
    torch.testing.assert_close(tape(other), other.sum(0)[1:])


def test_a_known_tensor_of_another_dtype_is_converted_in_every_replay():
    """As under autocast: what is converted looks like a view where nothing has to be done."""
    weight = torch.ones(3)

    _, tape = taped(lambda x: x * weight.to(torch.float64), ROWS, known=[weight])
    weight.fill_(5)

    torch.testing.assert_close(tape(ROWS), (ROWS * 5).double())


def test_what_turns_a_tensor_around_in_place_is_recorded():
    def function(x):
        turned = x.clone().t_()
        return turned.unsqueeze_(0) * 2

    _, tape = taped(function, ROWS)

    torch.testing.assert_close(tape(ROWS), 2 * ROWS.t()[None])


class TestLeavesOut:
    weight = torch.randn(3, 3)

    def test_aliases(self):
        assert operations(lambda x: x.detach().detach() + 1, ROWS) == 1

    def test_double_transposes(self):
        assert operations(lambda x: torch.relu(x.t().t()), ROWS) == 1

    def test_views_of_what_stays(self):
        weight = self.weight
        assert operations(lambda x: x @ weight.t(), ROWS, known=[weight]) == 1

    def test_constants(self):
        def function(x):
            return x + torch.tensor([1.0, 2.0, 3.0]).neg().exp()

        assert operations(function, ROWS) == 1

    def test_ones_like_what_is_given(self):
        assert operations(lambda x: x + torch.ones_like(x), ROWS) == 1

    def test_views_that_nobody_needs(self):
        def function(x):
            x.view(-1)
            return x + 1

        assert operations(function, ROWS) == 1


def test_the_memory_of_steps_in_between_is_given_back():
    _, tape = taped(lambda x: ((x + 1) * 2).relu(), ROWS)

    assert "DELETE_FAST" in {instruction.opname for instruction in dis.get_instructions(tape)}


@pytest.mark.parametrize("is_recordable", [True, False])
def test_what_is_recorded_runs_once_and_to_its_end(is_recordable):
    seen, total = [], torch.zeros(())

    def function(x):
        total.add_(1)
        if not is_recordable:
            x.sum().item()
        total.add_(10)
        seen.append(x)
        return x + total

    result, recording = record(lambda: function(ROWS), [ROWS], [total])

    assert isinstance(recording, NotRecordable) is not is_recordable
    assert len(seen) == 1
    torch.testing.assert_close(result, ROWS + 11)


def test_the_recorder_sees_only_its_own_thread_and_time():
    _, tape = taped(lambda x: x + 1, ROWS)

    assert inspect.isfunction(tape)
    assert torch.equal(torch.ones(2) * 2, torch.full((2,), 2.0))


class TestRefuses:
    def refused(self, function, *inputs, match, known=()):
        with pytest.raises(NotRecordable, match=match):
            taped(function, *(inputs or [ROWS]), known=known)

    def test_values_that_python_reads(self):
        self.refused(lambda x: x * x.max().item(), match="_local_scalar_dense")

    def test_shapes_that_follow_from_values(self):
        self.refused(lambda x: x[x > 0], match="not known beforehand")
        self.refused(torch.nonzero, match="nonzero")
        self.refused(torch.unique, match="unique")

    def test_tensors_of_unknown_origin(self):
        other = torch.ones(3)
        self.refused(lambda x: x + other, match="neither given nor")

    def test_sparse_tensors(self):
        self.refused(lambda x: x.to_sparse(), match="layout|not known beforehand")

    def test_long_loops(self):
        def function(x):
            for _ in range(10_001):
                x = x + 1
            return x

        self.refused(function, match="10000 operations")

    def test_operations_of_other_libraries(self):
        with torch.library._scoped_library("easyclf_test", "DEF") as library:
            library.define("double(Tensor x) -> Tensor")
            library.impl("double", lambda x: 2 * x, "CompositeExplicitAutograd")
            double = torch.ops.easyclf_test.double
            self.refused(lambda x: double(x), match="easyclf_test")
