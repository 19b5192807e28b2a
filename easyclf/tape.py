"""A function of tensors, recorded once and replayed as straight-line Python over ATen operations.

The time of a small module's step goes into Python and the bookkeeping of autograd. A tape has
neither: the operations of the forward and the backward pass follow each other as recorded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Tape = Callable[..., Any]

_aten = torch.ops.aten
_SUM = _aten.sum.dim_IntList
# They only give a tensor another name.
_ALIASES = (_aten.detach.default, _aten.detach_.default, _aten.alias.default)
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
# What does more spends its time in arithmetic, or in loops that a fused layer should do.
_MOST_OPERATIONS = 10_000
_NAMESPACES = ("aten", "prims", "mkldnn", "torchvision")
_REFUSED = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}
_MASKS = (torch.bool, torch.uint8)
# What turns a tensor around in its place, as torch's recurrent layers do with their own: in a tape
# it makes another tensor.
_TURNS = {
    _aten.squeeze_.dim: _aten.squeeze.dim,
    _aten.t_.default: _aten.t.default,
    _aten.transpose_.default: _aten.transpose.int,
    _aten.unsqueeze_.default: _aten.unsqueeze.default,
}


class NotRecordable(Exception):
    """Why a function cannot be recorded."""


class _Value(NamedTuple):
    """The place of a tensor, by its number."""

    number: int


@dataclass(frozen=True)
class _Operation:
    """A call of `function`; in the arguments and the outputs tensors are `_Value`."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: Any

    @functools.cached_property
    def inputs(self) -> list[int]:
        """Numbers of the tensors that it is given."""
        return _numbers((self.arguments, self.keywords))

    @functools.cached_property
    def results(self) -> list[int]:
        """Numbers of the tensors that it returns."""
        return _numbers(self.outputs)

    @functools.cached_property
    def written(self) -> list[int]:
        """Numbers of the tensors that it changes in place."""
        names, places = _written(self.function)
        given = [self.arguments[place] for place in places if place < len(self.arguments)]
        return _numbers([*given, *(self.keywords.get(name) for name in names)])


@functools.cache
def _written(function: Any) -> tuple[list[str], list[int]]:
    """Which arguments an operation changes in place: names, and places."""
    written = [
        (place, argument.name)
        for place, argument in enumerate(function._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [name for _, name in written], [place for place, _ in written]


@functools.cache
def _is_view(function: Any) -> bool:
    """Whether the results may share the memory of an argument that it leaves unchanged."""
    returned = [one.alias_info for one in function._schema.returns]
    return bool(returned) and all(info and not info.is_write for info in returned)


def _map(function: Callable[[Any], Any], nested: Any) -> Any:
    """Apply `function` to the leaves of nested tuples, lists and dicts."""
    if isinstance(nested, dict):
        return {key: _map(function, item) for key, item in nested.items()}
    if type(nested) in (tuple, list):
        return type(nested)(_map(function, item) for item in nested)
    return function(nested)


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    if type(nested) in (tuple, list):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested


def _depends_on_values(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the shape of the result, or what Python reads, follows from values of tensors."""
    if function is _aten.index.Tensor:
        return any(index is not None and index.dtype in _MASKS for index in arguments[1])
    return function not in _ALIASES and not _REFUSED.isdisjoint(function.tags)


def _numbers(nested: Any) -> list[int]:
    return [leaf.number for leaf in _leaves(nested) if isinstance(leaf, _Value)]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation of this thread, below autograd, while it is active."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # All of them are held, so that no two ever have the same identity or memory.
        self.tensors: list[torch.Tensor] = []
        self.operations: list[_Operation] = []
        self.literals: set[int] = set()
        self._numbers: dict[int, int] = {}
        for tensor in known:
            self._add(tensor)
        self.n_known = len(self.tensors)

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        if function.namespace == "profiler":
            return function(*arguments, **keywords)
        if function is _aten.lift_fresh.default:
            # Python numbers became a tensor, of which every replay is to have its own copy.
            literal = arguments[0].clone()
            self.literals.add(self._add(literal).number)
            function, arguments = _aten.clone.default, (literal,)
        if len(self.operations) == _MOST_OPERATIONS:
            raise NotRecordable(f"it has more than {_MOST_OPERATIONS} operations")
        seen = _map(self.place, (arguments, keywords))
        if function in _TURNS and seen[0][0].number >= self.n_known:
            outputs = function(*arguments, **keywords)
            del self._numbers[id(outputs)]
            function = _TURNS[function]
        elif function.namespace in _NAMESPACES and not _depends_on_values(function, arguments):
            outputs = function(*arguments, **keywords)
        else:
            raise NotRecordable(f"it calls {function}, whose result is not known beforehand")
        given, named = seen
        self.operations.append(_Operation(function, given, named, _map(self._add, outputs)))
        return outputs

    def place(self, leaf: Any) -> Any:
        """The place of a tensor that is known; anything else as it is."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in self._numbers:
            raise NotRecordable("it uses a tensor that is neither given nor the module's own")
        return _Value(self._numbers[id(leaf)])

    def _add(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if leaf.layout is not torch.strided:
            raise NotRecordable(f"it makes a tensor of layout {leaf.layout}")
        number = self._numbers.setdefault(id(leaf), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(leaf)
        return _Value(number)


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
