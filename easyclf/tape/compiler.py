"""A recording, written anew as straight-line Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from easyclf.tape.recorder import (
    _ALIASES,
    Tape,
    _is_view,
    _map,
    _numbers,
    _Operation,
    _Recorder,
    _Value,
)

_aten = torch.ops.aten
_SUM = _aten.sum.dim_IntList


# Their results follow from the shape and the dtype of the argument.
_LIKE = (_aten.ones_like.default, _aten.zeros_like.default, _aten.full_like.default)


# The same operations as functions of torch's, which are called in half a microsecond less.
_BOUND = {
    _aten.add.Tensor: torch.add,
    _aten.addmm.default: torch.addmm,
    _aten.argmax.default: torch.argmax,
    _aten.bmm.default: torch.bmm,
    _aten.clone.default: torch.clone,
    _aten.eq.Tensor: torch.eq,
    _aten.mean.default: torch.mean,
    _aten.mm.default: torch.mm,
    _aten.mul.Tensor: torch.mul,
    _aten.relu.default: torch.relu,
    _aten.sigmoid.default: torch.sigmoid,
    _aten.sum.default: torch.sum,
    _SUM: torch.sum,
    _aten.t.default: torch.t,
    _aten.tanh.default: torch.tanh,
    _aten.view.default: torch.Tensor.view,
}


class _Compiler:
    """Leaves out of a recording what need not be done again, and writes the rest as Python."""

    def __init__(self, recorder: _Recorder, n_inputs: int, choose: Choice) -> None:
        self._tensors, operations = recorder.tensors, recorder.operations
        self._choose = choose
        self._inputs = range(n_inputs)
        # Tensors that are there before a replay begins; those that never change are constants.
        self._fixed = {*range(n_inputs, recorder.n_known), *recorder.literals}
        self._constants = set(recorder.literals)
        self._written = {
            self._memory(number) for operation in operations for number in operation.written
        }
        # Tensors that are another one under a new name.
        self._same: dict[int, int] = {}
        self._transposed: dict[int, int] = {}
        self._sums: dict[int, _Operation] = {}
        self._operations = [
            operation
            for operation in map(self._simplified, operations)
            if not self._is_known_beforehand(operation)
        ]
        self._bound: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def _memory(self, number: int) -> int:
        return self._tensors[number].untyped_storage().data_ptr()

    def _rename(self, leaf: Any) -> Any:
        return _Value(self._same.get(leaf.number, leaf.number)) if type(leaf) is _Value else leaf

    def _simplified(self, operation: _Operation) -> _Operation:
        function, outputs = operation.function, operation.outputs
        arguments = _map(self._rename, operation.arguments)
        keywords = _map(self._rename, operation.keywords)
        if function is _SUM and arguments[2:] == (True,):
            self._sums[outputs.number] = operation
        elif function is _aten.view.default and arguments[0].number in self._sums:
            # The gradient of a bias: a view drops the dimensions that a sum has kept.
            kept = arguments[0].number
            summed, dimensions, _ = self._sums[kept].arguments
            shape = self._tensors[kept].shape
            is_written = self._memory(summed.number) in self._written
            if not is_written and arguments[1] == [
                n for axis, n in enumerate(shape) if axis not in dimensions
            ]:
                function, arguments = _SUM, (self._rename(summed), dimensions)
        return _Operation(function, arguments, keywords, outputs)

    def _is_known_beforehand(self, operation: _Operation) -> bool:
        """Whether a replay can do without it, since its results are there already."""
        function, inputs, results = operation.function, operation.inputs, operation.results
        if function in _ALIASES:
            self._same[results[0]] = inputs[0]
            return True
        if function is _aten.t.default:
            if inputs[0] in self._transposed:
                self._same[results[0]] = self._transposed[inputs[0]]
                return True
            self._transposed[results[0]] = inputs[0]
        memory = set(map(self._memory, inputs))
        if _is_view(function) and memory.issuperset(map(self._memory, results)):
            is_fixed = self._fixed.issuperset(inputs)
            if self._constants.issuperset(inputs):
                self._constants.update(results)
        else:
            is_fixed = (
                (self._constants.issuperset(inputs) or function in _LIKE)
                and torch.Tag.nondeterministic_seeded not in function.tags
                and not operation.written
                and self._written.isdisjoint(map(self._memory, results))
            )
            if is_fixed:
                self._constants.update(results)
        if is_fixed:
            self._fixed.update(results)
        return is_fixed

    def compile(self, result: Any) -> Tape:
        """The tape, which returns the like of `result`."""
        result = _map(self._rename, result)
        lines = [f"return {self._text(result)}"]
        needed = set(_numbers(result))
        for operation in reversed(self._operations):
            results = operation.results
            is_pure = operation.function is _SUM or _is_view(operation.function)
            if is_pure and needed.isdisjoint(results):
                continue
            inputs = set(operation.inputs)
            # Memory is given back as soon as nobody needs it any more.
            over = sorted((inputs | set(results)) - needed - self._fixed - set(self._inputs))
            if over:
                lines.append(f"del {', '.join(map(self._name, over))}")
            lines.append(self._line(operation))
            needed = needed | inputs
        given = ", ".join(map(self._name, self._inputs))
        body = "\n    ".join(reversed(lines))
        exec(compile(f"def tape({given}, *_):\n    {body}\n", "<tape>", "exec"), self._bound)
        tape: Tape = self._bound["tape"]
        return tape

    def _line(self, operation: _Operation) -> str:
        called = self._bind(self._called(operation))
        arguments = [self._text(argument) for argument in operation.arguments]
        arguments += [f"{name}={self._text(item)}" for name, item in operation.keywords.items()]
        call = f"{called}({', '.join(arguments)})"
        outputs = operation.outputs
        if set(operation.results) <= set(operation.inputs):
            return call  # in place
        names = _map(lambda leaf: self._name(leaf.number) if type(leaf) is _Value else "_", outputs)
        return f"{self._targets(names)} = {call}"

    def _called(self, operation: _Operation) -> Any:
        """What computes the operation in the least time."""
        function = operation.function
        chosen = None
        if not operation.keywords:
            chosen = self._choose(function, [self._tensors[n] for n in operation.inputs])
        return chosen or _BOUND.get(function) or getattr(function, "_op", function)

    def _targets(self, names: Any) -> str:
        if isinstance(names, str):
            return names
        return f"[{', '.join(map(self._targets, names))}]"

    def _text(self, item: Any) -> str:
        if type(item) is _Value:
            return self._name(item.number)
        if type(item) in (tuple, list):
            if item and all(type(leaf) is _Value for leaf in item):
                numbers = _numbers(item)
                if self._fixed.issuperset(numbers):
                    return self._bind([self._tensors[number].detach() for number in numbers])
            texts = "".join(f"{self._text(part)}, " for part in item)
            return f"[{texts}]" if type(item) is list else f"({texts})"
        if type(item) is dict:
            texts = "".join(f"{key!r}: {self._text(part)}, " for key, part in item.items())
            return f"{{{texts}}}"
        if item is None or type(item) in (bool, int, str):
            return repr(item)
        if type(item) is float and math.isfinite(item):
            return repr(item)
        return self._bind(item)

    def _name(self, number: int) -> str:
        """The name of a tensor: `x` for inputs, `c` for what is there, `v` for what is made."""
        if number in self._inputs:
            return f"x{number}"
        if number not in self._fixed:
            return f"v{number}"
        # Without the tape of autograd, and yet the same memory.
        self._bound.setdefault(f"c{number}", self._tensors[number].detach())
        return f"c{number}"

    def _bind(self, item: Any) -> str:
        name = self._names.setdefault(id(item), f"k{len(self._names)}")
        self._bound[name] = item
        return name


# An operation of ATen and its tensors to another function that does the same, or to None.
Choice = Callable[[Any, Sequence[torch.Tensor]], Callable[..., Any] | None]


def record(
    function: Callable[[], Any], inputs: Sequence[torch.Tensor], known: Sequence[torch.Tensor]
) -> tuple[Any, Callable[[Choice], Tape]]:
    """Call `function`, and note what it does.

    Parameters
    ----------
    function : callable
        It takes nothing, and works with `inputs` and `known`.
    inputs : sequence of Tensor
        Others of the same shapes take their places in a replay. None comes twice.
    known : sequence of Tensor
        Tensors that stay: weights, buffers, constants. What changes is their values.

    Returns
    -------
    result : tensors and other objects in tuples, lists and dicts
        What `function` returned.
    make_tape : callable
        It makes a tape, given a choice of other functions for operations. A tape takes the like of
        `inputs`, ignores what more is given, and returns the like of `result`.

    Raises
    ------
    NotRecordable
        If operations depend on values, or work on tensors of unknown origin.
    """
    recorder = _Recorder([*inputs, *known])
    # CUDA's backward pass has a thread of its own, which the recorder would not see.
    with torch.autograd.set_multithreading_enabled(False), recorder:
        result = function()
    place = _map(recorder.place, result)
    return result, lambda choose: _Compiler(recorder, len(inputs), choose).compile(place)
