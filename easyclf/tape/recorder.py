"""Recording: which operations of ATen a function of tensors did, in their order.

The time of a small module's step goes into Python and the bookkeeping of autograd. A recording
has neither: the operations of the forward and the backward pass follow each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from easyclf.tape.torch_internals import TorchDispatchMode, schema

_aten = torch.ops.aten
# They only give a tensor another name.
ALIASES = (_aten.detach.default, _aten.detach_.default, _aten.alias.default)
# Functions of more operations spend their time in arithmetic, or in loops that a fused layer
# should do.
_MOST_OPERATIONS = 10_000
_NAMESPACES = ("aten", "prims", "mkldnn", "torchvision")
_REFUSED_TAGS = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}
# Parts of the names of operations whose results have numbers that follow from shapes.
_TELLING_SHAPES = ("is_same_size", "attention")
_MASKS = (torch.bool, torch.uint8)
# Operations that change the shape of their argument in place, as torch's recurrent layers do with
# tensors of their own. A tape makes another tensor instead.
_OUT_OF_PLACE = {
    _aten.as_strided_.default: _aten.as_strided.default,
    _aten.squeeze_.dim: _aten.squeeze.dim,
    _aten.t_.default: _aten.t.default,
    _aten.transpose_.default: _aten.transpose.int,
    _aten.unsqueeze_.default: _aten.unsqueeze.default,
}


class NotRecordable(Exception):
    """Why a function cannot be recorded."""


class TensorPlace(NamedTuple):
    """The place of a tensor in a recording, by its number."""

    number: int


@dataclass(frozen=True)
class Operation:
    """A call of `function`; in the arguments and the outputs tensors are `TensorPlace`."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: Any

    @functools.cached_property
    def inputs(self) -> list[int]:
        """Numbers of the tensors that it is given."""
        return places_in((self.arguments, self.keywords))

    @functools.cached_property
    def results(self) -> list[int]:
        """Numbers of the tensors that it returns."""
        return places_in(self.outputs)

    @functools.cached_property
    def written(self) -> list[int]:
        """Numbers of the tensors that it changes in place."""
        names, positions = _written(self.function)
        given = [self.arguments[place] for place in positions if place < len(self.arguments)]
        return places_in([*given, *(self.keywords.get(name) for name in names)])


@dataclass(frozen=True)
class Recording:
    """What a function did.

    Attributes
    ----------
    operations : list of Operation
        In the order of the calls.
    tensors : list of Tensor
        All tensors by their numbers: first the inputs, then the known ones, then those that were
        made. They are held, so that no two ever have the same identity or memory.
    literals : set of int
        Numbers of the tensors that were made of Python's numbers.
    n_inputs, n_known : int
        How many of the tensors were given: as inputs, and in all.
    result : tensors and other objects in tuples, lists and dicts
        What the function returned; tensors are `TensorPlace`.
    """

    operations: list[Operation]
    tensors: list[torch.Tensor]
    literals: set[int]
    n_inputs: int
    n_known: int
    result: Any


def record(
    function: Callable[[], Any], inputs: Sequence[torch.Tensor], known: Sequence[torch.Tensor]
) -> tuple[Any, Recording | NotRecordable]:
    """Call `function` once, and note what it does.

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
    recording : Recording or NotRecordable
        The operations; or the reason why they cannot stand for the function: an operation that
        depends on values, or a tensor of unknown origin. The call was finished all the same.

    Raises
    ------
    NotRecordable
        If the function failed after such an operation.
    """
    recorder = _Recorder()
    # CUDA's backward pass has a thread of its own, which the recorder would not see.
    with torch.autograd.set_multithreading_enabled(False), recorder:
        try:
            result = function()
        except Exception as error:
            if recorder.refusal is not None:
                raise recorder.refusal from error
            raise
    try:
        if recorder.refusal is not None:
            raise recorder.refusal
        return result, _transcribed(recorder, result, inputs, known)
    except NotRecordable as refusal:
        return result, refusal


def map_nested(function: Callable[[Any], Any], nested: Any) -> Any:
    """Apply `function` to the leaves of nested tuples, lists and dicts."""
    if isinstance(nested, dict):
        return {key: map_nested(function, item) for key, item in nested.items()}
    if type(nested) in (tuple, list):
        return type(nested)(map_nested(function, item) for item in nested)
    return function(nested)


def places_in(nested: Any) -> list[int]:
    """Numbers of the tensors in nested tuples, lists and dicts."""
    return [leaf.number for leaf in _leaves(nested) if isinstance(leaf, TensorPlace)]


@functools.cache
def is_view(function: Any) -> bool:
    """Whether the results may share the memory of an argument that it leaves unchanged."""
    returned = [output.alias_info for output in schema(function).returns]
    return bool(returned) and all(info and not info.is_write for info in returned)


@functools.cache
def _written(function: Any) -> tuple[list[str], list[int]]:
    """Which arguments an operation changes in place: names, and positions."""
    written = [
        (position, argument.name)
        for position, argument in enumerate(schema(function).arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [name for _, name in written], [position for position, _ in written]


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    if type(nested) in (tuple, list):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested


@functools.cache
def _is_recordable(function: Any) -> bool:
    """Whether an operation is of a known kind, and its result has a shape known beforehand."""
    if function in (*_OUT_OF_PLACE, *ALIASES, _aten.index.Tensor):
        return True  # of some it depends on their arguments
    return function.namespace in _NAMESPACES and _REFUSED_TAGS.isdisjoint(function.tags)


@functools.cache
def _is_of_profiler(function: Any) -> bool:
    return bool(function.namespace == "profiler")


class _Call(NamedTuple):
    """A call of an operation of ATen, as it came."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: Any


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every call of an operation of this thread, below autograd, while it is active.

    It does no more, since whoever watches the function has to look at all that is done here. What
    cannot be recorded it only lets happen: the function runs once, to its end.

    Attributes
    ----------
    calls : list of _Call
        They hold their tensors, so that no two ever have the same identity or memory.
    literals : list of Tensor
        Those that were made of Python's numbers.
    refusal : NotRecordable or None
        Why the calls cannot stand for the function; none are kept then.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.literals: list[torch.Tensor] = []
        self.refusal: NotRecordable | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave torch's compiler alone: else it is imported, which takes a second."""
        return False

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        if self.refusal is not None or _is_of_profiler(function):
            return function(*arguments, **keywords)
        if function is _aten.lift_fresh.default:
            # Python numbers became a tensor, of which every replay is to have its own copy.
            literal = arguments[0].clone()
            self.literals.append(literal)
            function, arguments = _aten.clone.default, (literal,)
        outputs = function(*arguments, **keywords)
        if not _is_recordable(function):
            self._refuse(f"it calls {function}, whose result is not known beforehand")
        elif len(self.calls) == _MOST_OPERATIONS:
            self._refuse(f"it has more than {_MOST_OPERATIONS} operations")
        else:
            self.calls.append(_Call(function, arguments, keywords, outputs))
        return outputs

    def _refuse(self, reason: str) -> None:
        self.refusal = NotRecordable(reason)
        # Nobody needs these any more.
        self.calls.clear()
        self.literals.clear()


def _transcribed(
    recorder: _Recorder,
    result: Any,
    inputs: Sequence[torch.Tensor],
    known: Sequence[torch.Tensor],
) -> Recording:
    """Write the calls as operations on numbered tensors.

    Raises
    ------
    NotRecordable
        If a tensor is of unknown origin, or an operation depends on values.
    """
    numbering = _Numbering([*inputs, *known])
    n_known = len(numbering.tensors)
    literals = set(map(id, recorder.literals))
    operations, numbers = [], set()
    for function, arguments, keywords, outputs in recorder.calls:
        if function is _aten.clone.default and id(arguments[0]) in literals:
            numbers.add(numbering.add(arguments[0]).number)
        places = map_nested(numbering.place, arguments)
        named_places = map_nested(numbering.place, keywords)
        if function in _OUT_OF_PLACE and places[0].number >= n_known:
            numbering.renew(outputs)
            function = _OUT_OF_PLACE[function]
        elif function in _OUT_OF_PLACE or _asks_for_places(function, arguments):
            raise NotRecordable(f"it calls {function}, whose result is not known beforehand")
        for leaf in _leaves(outputs):
            if not isinstance(leaf, torch.Tensor):
                if leaf is not None and not any(part in str(function) for part in _TELLING_SHAPES):
                    raise NotRecordable(f"{function} tells Python something of its arguments")
            elif leaf.layout is not torch.strided:
                raise NotRecordable(f"it makes a tensor of layout {leaf.layout}")
        output_places = map_nested(numbering.add, outputs)
        operations.append(Operation(function, places, named_places, output_places))
    places = map_nested(numbering.place, result)
    return Recording(operations, numbering.tensors, numbers, len(inputs), n_known, places)


def _asks_for_places(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether it takes the rows where a mask is true: how many these are follows from values."""
    is_index = function is _aten.index.Tensor
    return is_index and any(item is not None and item.dtype in _MASKS for item in arguments[1])


class _Numbering:
    """Numbers for tensors, by their identity, in the order in which they come.

    Attributes
    ----------
    tensors : list of Tensor
        The tensors by their numbers.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        self.tensors: list[torch.Tensor] = []
        self._numbers: dict[int, int] = {}
        for tensor in known:
            self.add(tensor)

    def add(self, leaf: Any) -> Any:
        """The place of a tensor, which is a new one if it was not known; anything else as it is."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        number = self._numbers.setdefault(id(leaf), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(leaf)
        return TensorPlace(number)

    def place(self, leaf: Any) -> Any:
        """The place of a tensor that is known; anything else as it is."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in self._numbers:
            raise NotRecordable("it uses a tensor that is neither given nor the module's own")
        return TensorPlace(self._numbers[id(leaf)])

    def renew(self, tensor: torch.Tensor) -> None:
        """Give a tensor another number from now on."""
        del self._numbers[id(tensor)]
