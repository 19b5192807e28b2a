"""What runs during a call: Python code, and functions that are not written in Python."""

from __future__ import annotations

import dis
import functools
import gc
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from easyclf.tape.one_hot import is_sized
from easyclf.tape.opcodes import IMPORTS, LOCAL_OPERATIONS
from easyclf.tape.recorder import NotRecordable
from easyclf.tape.trusted import CodeHome, is_pure_function, is_tensor_function

# Functions that make a tensor of numbers read the values of tensors among these.
_LITERALS = frozenset((torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.Tensor.new_tensor))
# With these in code, any attribute may be read.
_READ_ANYTHING = frozenset(("__dict__", "format", "format_map", "getattr", "hasattr"))


class Witness:
    """Notes all that runs in its thread, by whatever way it is reached, while it is active.

    Parameters
    ----------
    is_recording : bool, default=False
        Whether operations are recorded meanwhile: then code of torch runs for that between them,
        and only code of users is noted.

    Attributes
    ----------
    codes : dict of int to code
        Code that ran and has to be read, by its identity: different functions may have equal code.
        Code that is known to compute only is not there.
    names : set of str
        Names that some code uses: no attribute of another name was read.
    reads_anything : bool
        Whether names of attributes may be computed, so that `names` does not say it all.
    has_one_hot : bool
        Whether `one_hot` was called, which is recorded in another way.
    has_other_leaves : bool
        Whether the loss has gradients by leaves that the optimizer does not train.
    """

    def __init__(self, *, is_recording: bool = False) -> None:
        self._is_recording = is_recording
        self.codes: dict[int, types.CodeType] = {}
        self.names: set[str] = set()
        self.reads_anything = False
        self.has_one_hot = False
        self.has_other_leaves = False
        self._homes: dict[int, CodeHome] = {}
        self._collects = False
        self._reason = ""

    def __enter__(self) -> Self:
        if sys.getprofile() is not None:
            raise NotRecordable("a profiler watches what runs")
        # Finalizers and callbacks of the garbage collector would run between: not the function's.
        self._collects = gc.isenabled()
        gc.disable()
        sys.setprofile(self._note_new_code if self._is_recording else self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        if self._collects:
            gc.enable()

    def check(self) -> None:
        """Refuse what did more than compute.

        Raises
        ------
        NotRecordable
            If a function was called that is not known.
        """
        if self._reason:
            raise NotRecordable(self._reason)

    def home_of(self, code: types.CodeType) -> CodeHome | None:
        """Where code that ran comes from."""
        return self._homes.get(id(code))

    def refuse(self, reason: str) -> None:
        """Note the first reason not to record; what runs goes on."""
        self._reason = self._reason or reason

    def _note_new_code(self, frame: types.FrameType, event: str, _: Any) -> None:
        """Note code by itself, whoever calls it: thousands of calls of the recorder come by."""
        if event == "call" and id(frame.f_code) not in self._homes:
            self._note_code(frame)

    def _note(self, frame: types.FrameType, event: str, function: Any) -> None:
        if event == "call":
            self._note_code(frame)
        elif (
            event == "c_call" and id(frame.f_code) in self.codes and not is_pure_function(function)
        ):
            self.refuse(f"{frame.f_code.co_qualname} calls {name_of_function(function)}")

    def _note_code(self, frame: types.FrameType) -> None:
        code, caller = frame.f_code, frame.f_back
        home = self._homes.get(id(code))
        if home is None:
            home = self._homes[id(code)] = CodeHome(code, frame.f_globals)
            self.names.update(code.co_names)
        if self._is_recording or caller is None or id(caller.f_code) not in self.codes:
            # Called by what is trusted, whatever that needs; but it may call back.
            if home.is_trusted or home.is_library:
                return
        elif home.is_trusted:
            is_pure = home.is_context or (computes_only(code) and not home.reads_settings)
            if home.is_torchs and not is_pure:
                self.refuse(f"{caller.f_code.co_qualname} calls {code.co_qualname} of torch")
            return
        self.codes[id(code)] = code
        self.reads_anything |= not _READ_ANYTHING.isdisjoint(code.co_names)


class TensorWitness(TorchFunctionMode):
    """Notes which functions of tensors are called, also by functions that are not Python."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        home = self._witness.home_of(sys._getframe(1).f_code)
        if home is not None and home.is_ours:
            pass
        elif not is_tensor_function(function):
            # Functions that only torch's own layers call.
            is_private = home is not None and home.is_torchs and _is_private(function)
            if not is_private:
                self._witness.refuse(f"it uses `{name_of_function(function)}` of torch")
        elif function is torch.where and len(arguments) + len(keywords) == 1:
            self._witness.refuse("it asks for the places of values")
        elif function is F.one_hot:
            self._witness.has_one_hot = True
            if not is_sized(function, arguments, keywords):
                self._witness.refuse("its `one_hot` has no `num_classes`, or other classes")
        elif function in _LITERALS:
            self._check_literal(function, [*arguments, *keywords.values()])
        elif function is torch.autograd.grad and self._is_called_by_us():
            return self._differentiate(*arguments, **keywords)
        return function(*arguments, **keywords)

    def _is_called_by_us(self) -> bool:
        """Whether the code nearest to this call that is not torch's is easyclf's."""
        frame = sys._getframe(2)
        while frame.f_back is not None:
            home = CodeHome(frame.f_code, frame.f_globals)
            if not home.is_torchs:
                return home.is_ours
            frame = frame.f_back
        return False

    def _differentiate(
        self,
        losses: Sequence[torch.Tensor],
        trained: Sequence[torch.Tensor],
        *rest: Any,
        **keywords: Any,
    ) -> Any:
        """Compute gradients, and leave those by other leaves where a backward pass leaves them."""
        others = other_leaves(losses, trained)
        gradients = torch.autograd.grad(losses, [*trained, *others], *rest, **keywords)
        self._witness.has_other_leaves = bool(others)
        for leaf, gradient in zip(others, gradients[len(trained) :], strict=True):
            if leaf.grad is None or gradient is None:
                leaf.grad = leaf.grad if gradient is None else gradient
            else:
                leaf.grad += gradient
        return gradients[: len(trained)]

    def _check_literal(self, function: Callable[..., Any], arguments: list[Any]) -> None:
        # `as_tensor` of a tensor is a cast, and `new_tensor` is a method of one.
        if function in (torch.as_tensor, torch.Tensor.new_tensor):
            arguments = arguments[1:] if isinstance(arguments[0], torch.Tensor) else arguments
        if any(isinstance(leaf, torch.Tensor) for leaf in _leaves(arguments)):
            self._witness.refuse("it makes a tensor of the values of others")


def other_leaves(
    results: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Find the leaves in the graph of results, of any shapes, that are not among these."""
    found = {id(leaf): leaf for leaf in leaves}
    nodes = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = set(nodes)
    for node in nodes:
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.setdefault(id(leaf), leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return list(found.values())[len(leaves) :]


@functools.cache
def computes_only(code: types.CodeType) -> bool:
    """Whether code of torch only computes, by its instructions."""
    return all(
        instruction.opname in LOCAL_OPERATIONS or instruction.opname in IMPORTS
        for instruction in dis.get_instructions(code)
    )


def name_of_function(function: Any) -> str:
    """The name of a function for a reason."""
    home = getattr(function, "__module__", None)
    owner = getattr(function, "__self__", None)
    if home is None and owner is not None:
        home = type(owner).__name__
    name = getattr(function, "__name__", repr(function))
    if name == "__get__":
        name = getattr(owner, "__name__", name)
    return f"{home}.{name}" if home else str(name)


def _is_private(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "")
    return name.startswith("_") and not name.startswith("__")


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, (tuple, list)):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested
