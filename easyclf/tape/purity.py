"""Whether the Python code of a module is pure, so that a recording of it stays true.

A recording holds what Python did once: the branches that it took, the numbers that it read. It
can stand for the code while the code only computes, and reads nothing that changes unnoticed.
`CodeReading` proves the former from the bytecode, and two readings that differ show the latter.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from typing import Any

import torch
from torch import nn

from easyclf.tape.recorder import NotRecordable

_PLAIN = (
    Number,
    str,
    bytes,
    enum.Enum,
    torch.Size,
    torch.device,
    torch.dtype,
    torch.layout,
    torch.memory_format,
    type(None),
    type(...),
)
# Homes of code that only computes.
_TRUSTED = (
    "easyclf.heads",
    "easyclf.losses",
    "easyclf.output_kinds",
    "easyclf.mlp",
    "torch._C",
    "torch._jit_internal",
    "torch._tensor",
    "torch.amp.autocast_mode",
    "torch.autograd.grad_mode",
    "torch.functional",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.modules",
    "torch.nn.utils.parametrizations",
    "torch.nn.utils.parametrize",
    "torchvision.models",
    "torchvision.ops",
    "_functools",
    "_operator",
    "itertools",
    "math",
)
_READABLE_MODULES = ("torch", "torchvision", "functools", "itertools", "math", "operator", "typing")
_PURE_BUILTINS = set(
    "abs all any bool callable complex dict divmod enumerate filter float frozenset getattr "
    "hasattr int isinstance issubclass iter len list map max min next object pow range reversed "
    "round set slice sorted str sum super tuple type zip".split()
)
# What leads out of a recording: values as Python numbers, memory shared with other tensors, the
# settings of torch and of modules, random states.
_REFUSED_NAMES = frozenset(
    "__array__ __dict__ __setattr__ add_module apply apply_ backward compile cuda data data_ptr "
    "eval fork_rng get_rng_state grad grad_fn initial_seed item jit load_state_dict manual_seed "
    "map_ map2_ numpy register_backward_hook register_buffer register_forward_hook "
    "register_forward_pre_hook register_full_backward_hook register_hook register_module "
    "register_parameter requires_grad_ retain_grad seed set_ set_default_device "
    "set_default_dtype set_grad_enabled set_num_threads set_rng_state share_memory_ storage "
    "tolist train untyped_storage utils".split()
)
_STORES = frozenset(
    "STORE_GLOBAL DELETE_GLOBAL STORE_ATTR DELETE_ATTR STORE_NAME IMPORT_NAME".split()
)
# What changes a list, a set or a dict: methods and operations.
_CHANGES = frozenset("add append clear extend insert pop popitem remove setdefault update".split())
_ITEM_STORES = frozenset("STORE_SUBSCR DELETE_SUBSCR STORE_SLICE".split())
# What every module has of its own.
_OF_MODULES = frozenset(vars(nn.Module()))
_HOOKS = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
# Methods through which a call of a module reaches its `forward`.
_CALLS = ("__call__", "__getattr__", "__getattribute__", "_call_impl", "forward")


def _is_trusted(home: str | None) -> bool:
    return home == "torch" or any(f"{home}.".startswith(f"{trusted}.") for trusted in _TRUSTED)


class CodeReading:
    """All that the code of some objects can read, once the code is proved to be pure.

    Two readings of the same objects are equal if nothing has changed in between but the values
    of tensors, and the mode of a module as a whole.

    Parameters
    ----------
    roots : iterable of object
        Modules, losses and what else takes part.

    Attributes
    ----------
    tensors : list of Tensor
        Every tensor that they hold.

    Raises
    ------
    NotRecordable
        If the code may do more than compute, or reads what cannot be compared.
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self.tensors: list[torch.Tensor] = []
        # By identity; they are held, so that no two ever have the same.
        self._seen: dict[int, tuple[int, object]] = {}
        for hooks in _HOOKS:
            if getattr(nn.modules.module, f"_global{hooks}", None):
                raise NotRecordable("a hook is registered for all modules")
        # Code that changes items, and lists and dicts that outlive a call: not both.
        self._changer, self._changeable = "", ""
        self._values = [self._read_root(root) for root in roots]
        if self._changer and self._changeable:
            raise NotRecordable(f"{self._changer} may change {self._changeable}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeReading) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def _read_root(self, root: Any) -> Any:
        # A module is switched between its modes: what counts is which layers are in another one.
        self._mode = root.training if isinstance(root, nn.Module) else True
        return self._read(root, type(root).__name__)

    def _read(self, item: Any, name: str) -> Any:
        """What stands for an object when readings are compared."""
        if isinstance(item, _PLAIN):
            return item
        if id(item) in self._seen:
            return self._seen[id(item)][0]
        self._seen[id(item)] = (len(self._seen), item)
        if isinstance(item, torch.Tensor):
            return self._read_tensor(item, name)
        if isinstance(item, nn.Module):
            return self._read_module(item)
        if isinstance(item, Mapping):
            return [(key, self._read(value, f"{name}[{key!r}]")) for key, value in item.items()]
        if isinstance(item, (tuple, list)):
            return [self._read(one, name) for one in item]
        if isinstance(item, (set, frozenset)):
            return sorted(str(self._read(one, name)) for one in item)
        if isinstance(item, functools.partial):
            return self._read([item.func, item.args, item.keywords], name)
        if isinstance(item, types.MethodType):
            return self._read([item.__self__, item.__func__], name)
        if isinstance(item, types.FunctionType):
            return [id(item), *self._read_function(item, None)]
        if isinstance(item, (types.BuiltinFunctionType, type)):
            return self._read_builtin(item, name)
        if isinstance(item, weakref.ref):
            return id(item)
        if type(item).__module__ in ("easyclf.heads", "easyclf.losses", "easyclf.output_kinds"):
            return [id(item), self._read(vars(item), name)]
        raise NotRecordable(f"{name} is a {type(item).__name__}, which may change unnoticed")

    def _read_tensor(self, tensor: torch.Tensor, name: str) -> Any:
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            raise NotRecordable(f"{name} is a {type(tensor).__name__} of layout {tensor.layout}")
        if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
            raise NotRecordable(f"{name} has a hook")
        if tensor.grad_fn is not None:
            raise NotRecordable(f"{name} is the result of an earlier computation")
        self.tensors.append(tensor)
        return (id(tensor), tensor.data_ptr(), tensor.requires_grad, tensor.shape, tensor.stride())

    def _read_module(self, module: nn.Module) -> Any:
        own = vars(module)
        name = type(module).__name__
        if any(own.get(hooks) for hooks in _HOOKS):
            raise NotRecordable(f"{name} has hooks")
        if any(method in own for method in _CALLS) or own.get("_compiled_call_impl"):
            raise NotRecordable(f"{name} was given another `forward`")
        values: list[Any] = [module.training is self._mode]
        for key in ("_parameters", "_buffers", "_modules"):
            values.append(self._read(own[key], name))
        for key, value in own.items():
            if key not in _OF_MODULES:
                values.append((key, self._read(value, f"{name}.{key}")))
                if not _is_trusted(type(module).__module__):
                    self._note_changeable(value, f"{name}.{key}")
        ancestors = type(module).__mro__
        for ancestor in ancestors[: ancestors.index(nn.Module)]:
            if not _is_trusted(ancestor.__module__):
                for method, function in vars(ancestor).items():
                    if method in _CALLS or _overrides(ancestor, method):
                        values += self._read_method(function, type(module))
        return [id(module), id(type(module)), *values]

    def _read_method(self, method: Any, owner: type) -> list[Any]:
        """Read what a class has under some name, if it is code."""
        if isinstance(method, property):
            method = method.fget
        elif isinstance(method, (staticmethod, classmethod)):
            method = method.__func__
        if not isinstance(method, types.FunctionType) or id(method) in self._seen:
            return []
        self._seen[id(method)] = (len(self._seen), method)
        return self._read_function(method, owner)

    def _read_builtin(self, item: Any, name: str) -> Any:
        """Read a class, or a function that is not written in Python."""
        home = item.__module__
        if home is None:
            home = getattr(item.__self__, "__module__", None) or type(item.__self__).__module__
        is_known = home == "builtins" and item.__name__ in _PURE_BUILTINS
        is_module = isinstance(item, type) and issubclass(item, (nn.Module, BaseException))
        if not (is_known or is_module or _is_trusted(home) or item is torch.Tensor):
            raise NotRecordable(f"{name} uses {home}.{item.__name__}")
        return id(item)

    def _read_function(self, function: types.FunctionType, owner: type | None) -> list[Any]:
        """Check the code of a function, and read its globals, its closure and its defaults."""
        if _is_trusted(function.__globals__.get("__name__")):
            return []
        name = function.__qualname__
        defaults = (function.__defaults__, function.__kwdefaults__)
        values = [id(function.__code__), self._read(defaults, name)]
        self._note_changeable(defaults, f"a default of {name}")
        free = function.__code__.co_freevars
        cells = dict(zip(free, function.__closure__ or (), strict=True))
        for code in _all_code(function.__code__):
            instructions = list(dis.get_instructions(code))
            for index, instruction in enumerate(instructions):
                operation, used = instruction.opname, instruction.argval
                is_in_place = operation == "BINARY_OP" and instruction.argrepr.endswith("=")
                if operation in _ITEM_STORES or is_in_place:
                    self._changer = name
                is_outer = operation in ("STORE_DEREF", "DELETE_DEREF") and used in free
                if operation in _STORES or is_outer:
                    raise NotRecordable(f"{name} sets `{used}`")
                if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
                    known = function.__globals__
                    if used not in known and not hasattr(builtins, used):
                        continue  # an error, if it is ever reached
                    value = known[used] if used in known else getattr(builtins, used)
                    value = _follow(value, instructions[index + 1 :])
                    values.append(self._read_global(value, f"`{used}` in {name}"))
                    if value is getattr and owner is not None:
                        for method in _own_names(owner):
                            values += self._read_named(method, owner)
                elif "DEREF" in operation and used in cells:
                    value = cells[used].cell_contents
                    values.append(self._read_global(value, f"`{used}` in {name}"))
                elif operation.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")):
                    if used in _REFUSED_NAMES:
                        raise NotRecordable(f"{name} uses `{used}`")
                    if used in _CHANGES:
                        self._changer = name
                    if owner is not None:
                        values += self._read_named(used, owner)
        return values

    def _read_global(self, value: Any, name: str) -> Any:
        if isinstance(value, types.ModuleType):
            if value.__name__.partition(".")[0] not in _READABLE_MODULES:
                raise NotRecordable(f"{name} is the module {value.__name__}")
            return value.__name__
        self._note_changeable(value, name)
        return self._read(value, name)

    def _note_changeable(self, value: Any, name: str) -> None:
        if isinstance(value, (list, set, dict)):
            self._changeable = name
        elif isinstance(value, tuple):
            for item in value:
                self._note_changeable(item, name)

    def _read_named(self, name: str, owner: type) -> list[Any]:
        """Read the methods of that name."""
        return [
            value
            for ancestor in owner.__mro__
            if name in vars(ancestor) and not _is_trusted(ancestor.__module__)
            for value in self._read_method(vars(ancestor)[name], owner)
        ]


def _overrides(owner: type, method: str) -> bool:
    """Whether a layer of torch's, which the class extends, has a method of that name to call."""
    return method != "__init__" and any(
        method in vars(base)
        for base in owner.__mro__[1:]
        if base not in (nn.Module, object) and _is_trusted(base.__module__)
    )


def _own_names(owner: type) -> Iterator[str]:
    for ancestor in owner.__mro__:
        if not _is_trusted(ancestor.__module__) and ancestor is not object:
            yield from (name for name in vars(ancestor) if not name.startswith("__"))


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code and those of the functions, lambdas and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


def _follow(value: Any, instructions: Iterable[dis.Instruction]) -> Any:
    """What `value.a.b` is, as far as modules and classes lead."""
    for instruction in instructions:
        leads = isinstance(value, (types.ModuleType, type))
        if not leads or instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return value
        if not hasattr(value, instruction.argval):
            return value
        value = getattr(value, instruction.argval)
    return value
