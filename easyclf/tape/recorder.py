"""A function of tensors, recorded once and replayed as straight-line Python over ATen operations.

The time of a small module's step goes into Python and the bookkeeping of autograd. A tape has
neither: the operations of the forward and the backward pass follow each other as recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Tape = Callable[..., Any]

_aten = torch.ops.aten
# They only give a tensor another name.
_ALIASES = (_aten.detach.default, _aten.detach_.default, _aten.alias.default)
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
