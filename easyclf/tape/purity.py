"""The code that ran in a call and all that it can read, so that a recording of it stays true.

A recording holds what Python did once: the branches that it took, the numbers that it read. It
can stand for the code while the code only computes, and reads nothing that changes unnoticed.
`CodeReading` proves the former from the instructions of what ran. It notes what that code can
reach, so that a change is seen. Code that did not run will not run while nothing has changed.
"""

from __future__ import annotations

import abc
import argparse
import builtins
import dis
import enum
import functools
import itertools
import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import is_, itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from easyclf.device import autocast_settings
from easyclf.tape.callees import is_only_called
from easyclf.tape.hooks import check_layer_unhooked
from easyclf.tape.opcodes import LOCAL_OPERATIONS
from easyclf.tape.recorder import NotRecordable
from easyclf.tape.torch_internals import (
    MODULE_HOOKS,
    MODULE_PARTS,
    are_all_modules_hooked,
    is_graph_watched,
    is_hooked,
    n_operation_modes,
    watchers,
)
from easyclf.tape.trusted import CALLED_IN_STEPS, CodeHome, is_pure_function, is_pure_type
from easyclf.tape.witness import Witness, name_of_function

# Values that never change: two of them are the same if they look the same.
_PLAIN = frozenset(
    (
        bool, bytes, complex, float, int, range, slice, str, torch.Size, torch.device, torch.dtype,
        torch.layout, torch.memory_format, types.NoneType, types.EllipsisType,
        types.NotImplementedType,
        *(np.dtype(name).type for name in "?bBhHiIlLqQefdFD"),
    )
)  # fmt: skip
_BY_TEXT = frozenset((complex, float, *(kind for kind in _PLAIN if issubclass(kind, np.generic))))
# Names of Python's protocols that code may spell out: the others lead around what is compared.
_SPELLED = frozenset(
    "__call__ __class__ __dict__ __getattr__ __getitem__ __init__ __len__ __name__ __qualname__ "
    "__enter__ __exit__ __iter__ __contains__ __doc__".split()
)
_OF_MODULES = (*MODULE_PARTS, *MODULE_HOOKS)
# Most methods of tensors are those of a base class, and may be hidden by others.
_OF_TENSORS = frozenset(dir(torch.Tensor))
# Bytes of an array that is compared by its numbers.
_LARGEST_ARRAY = 2**16


class _Plain:
    """An object without anything that is hidden from Python."""


class CodeReading:
    """All that some code can reach from some objects, once the code is proved to only compute.

    Two readings of the same objects are equal if nothing has changed in between but the values
    of tensors, and the mode of a module as a whole.

    Parameters
    ----------
    roots : iterable of object
        Modules, losses and what else takes part.
    witness : Witness
        What ran.

    Attributes
    ----------
    tensors : list of Tensor
        Every tensor that the code can reach.

    Raises
    ------
    NotRecordable
        If the code may do more than compute, or reads what cannot be compared.
    """

    def __init__(self, roots: Iterable[object], witness: Witness) -> None:
        self.tensors: list[torch.Tensor] = []
        self._codes, self._names = witness.codes, witness.names
        self._reads_anything = witness.reads_anything
        # By identity; they are held, so that no two ever have the same.
        self._seen: dict[int, tuple[int, object]] = {}
        self._read_codes: set[int] = set()
        # What to look at for a change, and what was there: how much, and all of it in a row.
        self._looks: list[Callable[[], Sequence[object]]] = []
        self._n_seen: list[int] = []
        self._before: list[object] = []
        self._globals: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        # Of tensors and of members of enumerations: few have any.
        self._attributes: list[dict[str, Any]] = []
        # Layers that are switched between their modes with the module.
        self._layers: frozenset[int] = frozenset()
        if are_all_modules_hooked():
            raise NotRecordable("a hook is registered for all modules")
        if n_operation_modes():
            raise NotRecordable("somebody else watches its operations")
        if torch.is_anomaly_enabled():
            raise NotRecordable("the backward pass is to look for anomalies")
        if is_graph_watched():
            raise NotRecordable("somebody is given the tensors of its graph")
        self._watch(lambda: [are_all_modules_hooked()])
        self._values = [self._read_root(root) for root in roots]
        for number, code in self._codes.items():
            if number not in self._read_codes:
                raise NotRecordable(f"{code.co_qualname} ran and was not found")
        self._watch(lambda: [*itertools.chain.from_iterable(self._attributes)])
        for home, names in ((torch, vars(torch)), (F, vars(F)), (torch.Tensor, _OF_TENSORS)):
            self._read_functions(home, sorted(self._names.intersection(names)))
        for home, called in CALLED_IN_STEPS.items():
            self._read_functions(home, called)
        for names, values in self._globals.values():
            self._watch_names(names, list(values))
        self._values.append(settings())
        self._facts = [_tensor_facts(tensor) for tensor in self.tensors]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeReading) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def is_current(self) -> bool:
        """Whether all that was read is still there: the very same objects.

        False says little: what is there may still be equal.
        """
        try:
            now = [look() for look in self._looks]
            return (
                [*map(len, now)] == self._n_seen
                and all(map(is_, itertools.chain.from_iterable(now), self._before))
                and settings() == self._values[-1]
                and [*map(_tensor_facts, self.tensors)] == self._facts
            )
        except Exception:  # what cannot be looked at any more has changed
            return False

    def _watch(self, look: Callable[[], Sequence[object]]) -> None:
        seen = look()
        self._looks.append(look)
        self._n_seen.append(len(seen))
        self._before += seen

    def _watch_names(self, values: Mapping[str, Any], names: Iterable[str]) -> None:
        present = [name for name in names if name in values]
        absent = [name for name in names if name not in values]
        if absent:
            self._watch(lambda: [values.keys().isdisjoint(absent)])
        if len(present) > 1:  # a getter of one name gives no tuple
            self._watch(functools.partial(itemgetter(*present), values))
        elif present:
            self._watch(lambda: [values[present[0]]])

    def _read_functions(self, home: Any, names: Sequence[str]) -> None:
        """Note which functions torch has under some names; also those that a base class has."""
        self._watch_names(vars(home), names)
        self._values.append([id(vars(home).get(name)) for name in names])

    def _read_root(self, root: Any) -> Any:
        self._layers = frozenset()
        values = []
        if isinstance(root, nn.Module):
            self._layers = frozenset(map(id, root.modules()))
            # It is switched between its modes: what counts is which layers are in another one.
            self._watch(functools.partial(_other_modes, root))
            values = _other_modes(root)
            self._check_modes(root)
        return [values, self._read(root, type(root).__name__)]

    def _check_modes(self, root: nn.Module) -> None:
        for layer in root.modules():
            for name in ("train", "eval", "__setattr__"):
                function = getattr(type(layer), name)
                if not CodeHome(function.__code__, function.__globals__).is_torchs:
                    raise NotRecordable(f"{type(layer).__name__} has a `{name}` of its own")
            if "train" in vars(layer) or "eval" in vars(layer):
                raise NotRecordable(f"{type(layer).__name__} was given another `train` or `eval`")

    def _read(self, item: Any, name: str) -> Any:
        """What stands for an object when readings are compared."""
        kind = type(item)
        if kind in _PLAIN:
            # The texts of numbers tell 0.0 from -0.0, and NaN is like itself.
            return (kind, repr(item) if kind in _BY_TEXT else item)
        if id(item) in self._seen:
            return self._seen[id(item)][0]
        self._seen[id(item)] = (len(self._seen), item)
        read = _READERS.get(kind)
        if read is not None:
            return [id(item), read(self, item, name)]
        if isinstance(item, nn.Module):
            return [id(item), self._read_module(item)]
        if isinstance(item, enum.Enum):
            return [id(item), self._read_enumeration(kind)]
        if isinstance(item, type):
            return [id(item), self._read_class(item, name)]
        if isinstance(item, tuple) and kind.__mro__[-2:] == (tuple, object):
            return [id(item), self._read_class(kind, name), self._read_items(tuple(item), name)]
        if is_plain_class(kind) and hasattr(item, "__dict__"):
            return [id(item), self._read_object(item, name)]
        if isinstance(item, np.ufunc):
            return id(item)
        raise NotRecordable(f"{name} is a {kind.__name__}, which may change unnoticed")

    def _read_items(self, items: Iterable[Any], name: str) -> Any:
        return [self._read(item, name) for item in items]

    def _read_list(self, items: list[Any], name: str) -> Any:
        self._watch(functools.partial(list, items))
        return self._read_items(items, name)

    def _read_dict(self, items: dict[Any, Any], name: str) -> Any:
        self._watch(lambda: [*items, *items.values()])
        return [
            (self._read(key, name), self._read(value, f"{name}[{key!r}]"))
            for key, value in items.items()
        ]

    def _read_set(self, items: set[Any] | frozenset[Any], name: str) -> Any:
        if any(type(item) not in _PLAIN for item in items):
            raise NotRecordable(f"{name} is a set of objects")
        self._watch(lambda: sorted(items, key=id))
        return sorted(repr(item) for item in items)

    def _read_partial(self, item: functools.partial[Any], name: str) -> Any:
        return self._read([item.func, item.args, item.keywords, vars(item)], name)

    def _read_bound(self, method: types.MethodType, name: str) -> Any:
        return self._read((method.__self__, method.__func__), name)

    def _read_builtin(self, function: Any, name: str) -> Any:
        if not is_pure_function(function):
            raise NotRecordable(f"{name} uses {name_of_function(function)}")
        if function in _ASKING and not self._reads_anything:
            raise NotRecordable(f"{name} is {function.__name__} by another name")
        owner = getattr(function, "__self__", None)
        # A method that was bound before: of a list that it changes, say.
        return None if isinstance(owner, (type, types.ModuleType)) else self._read(owner, name)

    def _read_array(self, array: np.ndarray[Any, Any], name: str) -> Any:
        if array.dtype.hasobject or array.nbytes > _LARGEST_ARRAY:
            raise NotRecordable(f"{name} is an array of objects, or of many numbers")
        facts = (array.dtype.str, array.shape, array.tobytes())
        # Its numbers may change without a trace: they are looked at as a whole.
        self._watch(lambda: [facts == (array.dtype.str, array.shape, array.tobytes())])
        return facts

    def _read_reference(self, reference: weakref.ref[Any], name: str) -> Any:
        # To look at anything else would keep it alive.
        if not isinstance(reference(), nn.Parameter):
            raise NotRecordable(f"{name} is a weak reference")
        return self._read(reference(), name)

    def _read_namespace(self, item: Any, name: str) -> Any:
        return self._read_dict(vars(item), name)

    def _read_tensor(self, tensor: torch.Tensor, name: str) -> Any:
        if tensor.layout is not torch.strided:
            raise NotRecordable(f"{name} is a {type(tensor).__name__} of layout {tensor.layout}")
        if is_hooked(tensor):
            raise NotRecordable(f"{name} has a hook")
        if tensor.grad_fn is not None:
            raise NotRecordable(f"{name} is the result of an earlier computation")
        self.tensors.append(tensor)
        return [_tensor_facts(tensor), self._read_attributes(vars(tensor), name)]

    def _read_attributes(self, own: dict[str, Any], name: str) -> Any:
        """Read the attributes that the code can ask for, of what Python knows to have others."""
        named = [key for key in own if self._is_read(key)]
        # All names, since an attribute may come that hides one of the class.
        self._attributes.append(own)
        if named:
            self._watch(lambda: [*map(own.get, named)])
        return [(key, self._read(own[key], f"{name}.{key}")) for key in named]

    def _read_module(self, module: nn.Module) -> Any:
        check_layer_unhooked(module)
        own, name = vars(module), type(module).__name__
        parts = [own[part] for part in _OF_MODULES]
        self._watch(lambda: [item for part in parts for pair in part.items() for item in pair])
        self._watch(functools.partial(itemgetter(*_OF_MODULES), own))
        return [
            [
                (key, self._read(item, f"{name}.{part}[{key!r}]"))
                for part in MODULE_PARTS
                for key, item in own[part].items()
            ],
            self._read_object(module, name),
        ]

    def _read_object(self, item: Any, name: str) -> Any:
        """Read the attributes that the code can ask for, and the class."""
        own = vars(item)
        passed_over = (*_OF_MODULES, *(["training"] if id(item) in self._layers else []))
        named = [key for key in own if self._is_read(key)]
        if isinstance(item, nn.Module):
            named = [key for key in named if key not in passed_over]
        # All names, since an attribute may come that hides one of the class.
        self._watch(lambda: [type(item), *own, *map(own.get, named)])
        values = [(key, self._read(own[key], f"{name}.{key}")) for key in named]
        return [self._read(type(item), name), values]

    def _is_read(self, name: str) -> bool:
        return self._reads_anything or name in self._names

    def _is_read_of_class(self, name: str) -> bool:
        """Whether the code can ask a class for an attribute that may change."""
        is_protocol = name.startswith("__") or name == "_abc_impl"
        return self._is_read(name) and not is_protocol

    def _read_class(self, kind: type, name: str) -> Any:
        if is_pure_type(kind):
            return None
        if isinstance(kind, enum.EnumMeta):
            return self._read_enumeration(kind)
        if not (is_plain_class(kind) or issubclass(kind, tuple)):
            raise NotRecordable(f"{name} uses {kind.__module__}.{kind.__name__}")
        values: list[Any] = []
        if type(kind) not in (type, abc.ABCMeta):
            values.append(self._read(type(kind), f"the class of {name}"))
        self._watch(lambda: kind.__mro__)
        for ancestor in kind.__mro__[:-1]:
            is_read = id(ancestor) in self._seen and ancestor is not kind
            if ancestor is tuple or is_read:
                continue
            self._seen.setdefault(id(ancestor), (len(self._seen), ancestor))
            members = vars(ancestor)
            self._watch_names(members, list(members))
            for key, member in list(members.items()):
                functions = list(_functions_of(member))
                if functions:
                    values += [self._read(function, key) for function in functions]
                elif self._is_read_of_class(key):
                    values.append((key, self._read(member, f"{ancestor.__name__}.{key}")))
        return [list(map(id, kind.__mro__)), values]

    def _read_enumeration(self, kind: type) -> Any:
        """Read members that are numbers or texts; they are made once, with their class."""
        members = getattr(kind, "__members__", {})
        values: list[Any] = []
        for name, member in members.items():
            if type(member.value) not in _PLAIN:
                raise NotRecordable(f"{kind.__name__} is an enumeration of objects")
            attributes = self._read_attributes(vars(member), f"{kind.__name__}.{name}")
            values.append((name, repr(member.value), attributes))
        for ancestor in kind.__mro__:
            if ancestor.__module__ in ("enum", "builtins"):
                continue
            self._watch_names(vars(ancestor), list(vars(ancestor)))
            for key, member in list(vars(ancestor).items()):
                functions = list(_functions_of(member))
                values += [self._read(function, kind.__name__) for function in functions]
                is_enums = key in members or (key.startswith("_") and key.endswith("_"))
                if not functions and not is_enums and self._is_read(key):
                    values.append((key, self._read(member, f"{kind.__name__}.{key}")))
        return values

    def _read_function(self, function: types.FunctionType, name: str) -> Any:
        """Read what a function uses, if it ran."""
        values: list[Any] = [id(function.__code__)]
        attributes = vars(function)
        named = [key for key in attributes if self._is_read(key) and key != "__wrapped__"]
        if named:
            self._watch_names(attributes, named)
            values += [(key, self._read(attributes[key], f"{name}.{key}")) for key in named]
        if id(function.__code__) not in self._codes:
            return values
        self._watch(lambda: [function.__code__, function.__defaults__, function.__kwdefaults__])
        name = function.__qualname__
        values.append(self._read_items(function.__defaults__ or (), f"a default of {name}"))
        if function.__kwdefaults__:
            values.append(self._read(function.__kwdefaults__, f"a default of {name}"))
        free = function.__code__.co_freevars
        cells = dict(zip(free, function.__closure__ or (), strict=True))
        for key, cell in cells.items():
            # `__class__` is there for `super()`.
            if key != "__class__":
                self._watch(functools.partial(_contents, cell))
        values += self._read_code(function.__code__, function.__globals__, cells)
        return values

    def _read_code(
        self, code: types.CodeType, names: dict[str, Any], cells: dict[str, types.CellType]
    ) -> list[Any]:
        """Check the instructions of code that ran, and read its globals and its closure."""
        self._read_codes.add(id(code))
        values: list[Any] = []
        instructions = [
            instruction
            for instruction in dis.get_instructions(code)
            if instruction.opname not in ("EXTENDED_ARG", "CACHE")
        ]
        for index, instruction in enumerate(instructions):
            operation, used = instruction.opname, instruction.argval
            is_outer = operation in ("STORE_DEREF", "DELETE_DEREF") and used in cells
            if operation not in LOCAL_OPERATIONS or is_outer:
                raise NotRecordable(f"{code.co_qualname} {_deed(operation)} `{used}`")
            rest = instructions[index + 1 :]
            if operation == "LOAD_GLOBAL":
                values.append(self._read_name(names, instruction, rest, code.co_qualname))
            elif operation == "LOAD_DEREF" and used in cells and used != "__class__":
                (value,) = _contents(cells[used])
                where = f"`{used}` in {code.co_qualname}"
                values.append(self._read_chain(value, instruction, rest, where))
            elif operation.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER")):
                _check_attribute(used, code.co_qualname)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType) and id(constant) in self._codes:
                values += self._read_code(constant, names, cells)
        return values

    def _read_name(
        self,
        names: dict[str, Any],
        load: dis.Instruction,
        rest: Sequence[dis.Instruction],
        where: str,
    ) -> Any:
        name = load.argval
        home = names if name in names else vars(builtins)
        if name not in home:
            return None  # an error, if it is ever reached
        for seen in (names, vars(builtins)):
            self._globals.setdefault(id(seen), (seen, {}))[1][name] = None
        return self._read_chain(home[name], load, rest, f"`{name}` in {where}")

    def _read_chain(
        self, value: Any, load: dis.Instruction, rest: Sequence[dis.Instruction], name: str
    ) -> Any:
        """Read what `value.a.b` is, as far as modules lead."""
        loads, rest = [load], [*rest]
        while isinstance(value, types.ModuleType):
            while rest and rest[0].opname == "PUSH_NULL":
                del rest[0]
            if not rest or rest[0].opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                raise NotRecordable(f"{name} is the module {value.__name__}")
            loads.append(rest.pop(0))
            used = loads[-1].argval
            name = f"{name}.{used}"
            self._globals.setdefault(id(vars(value)), (vars(value), {}))[1][used] = None
            if used not in vars(value):
                if type(value) is types.ModuleType and "__getattr__" not in vars(value):
                    return None  # an error, if it is ever reached
                raise NotRecordable(f"{name} is made up by its module")
            value = vars(value)[used]
        is_builtin = type(value) is types.BuiltinFunctionType
        if is_builtin and not is_pure_function(value) and is_only_called(loads, rest):
            # The witness would have seen the call. So it stands in a branch that was not taken,
            # and is not while all that leads there is the same.
            return id(value)
        return self._read(value, name)


_ASKING = (getattr, hasattr)
_READERS: dict[type, Callable[[CodeReading, Any, str], Any]] = {
    tuple: CodeReading._read_items,
    list: CodeReading._read_list,
    dict: CodeReading._read_dict,
    OrderedDict: CodeReading._read_dict,
    set: CodeReading._read_set,
    frozenset: CodeReading._read_set,
    functools.partial: CodeReading._read_partial,
    types.MethodType: CodeReading._read_bound,
    types.FunctionType: CodeReading._read_function,
    types.BuiltinFunctionType: CodeReading._read_builtin,
    types.MethodDescriptorType: CodeReading._read_builtin,
    TypeVar: lambda _, item, name: None,
    types.SimpleNamespace: CodeReading._read_namespace,
    argparse.Namespace: CodeReading._read_namespace,
    weakref.ref: CodeReading._read_reference,
    np.ndarray: CodeReading._read_array,
    torch.Tensor: CodeReading._read_tensor,
    nn.Parameter: CodeReading._read_tensor,
}


def is_plain_class(kind: type) -> bool:
    """Whether its instances hold nothing that Python does not show in `vars`."""
    is_small = kind.__basicsize__ == _Plain.__basicsize__ and kind.__itemsize__ == 0
    return is_small and kind.__flags__ & 2**9 != 0  # made by Python, not by C


def settings() -> tuple[object, ...]:
    """The settings of torch that decide what its functions do."""
    return (
        torch.get_default_dtype(),
        autocast_settings(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mkldnn.enabled,
        watchers(),
        torch.is_anomaly_enabled(),
        sys.getprofile(),
        # How often a class was registered with an abstract one: `isinstance` may say otherwise.
        abc.get_cache_token(),
    )


def _tensor_facts(tensor: torch.Tensor) -> object:
    return (
        id(tensor),
        tensor.data_ptr(),
        tensor.requires_grad,
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        is_hooked(tensor),
        tensor.grad_fn is None,
    )


def _other_modes(root: nn.Module) -> list[bool]:
    """For each layer, whether it is in the mode of the whole module."""
    return [layer.training is root.training for layer in root.modules()]


def _functions_of(member: Any) -> Iterator[types.FunctionType]:
    """The functions that an entry of a class is made of."""
    if isinstance(member, property):
        candidates = [member.fget, member.fset, member.fdel]
    elif isinstance(member, (staticmethod, classmethod)):
        candidates = [member.__func__]
    elif isinstance(member, functools.cached_property):
        candidates = [member.func]
    else:
        candidates = [member]
    for candidate in candidates:
        if type(candidate) is types.FunctionType:
            yield candidate


def _check_attribute(name: str, where: str) -> None:
    if name.startswith("__") and name.endswith("__") and name not in _SPELLED:
        raise NotRecordable(f"{where} uses `{name}`")


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        raise NotRecordable("it uses a variable that is not there yet") from None


def _deed(operation: str) -> str:
    """What an instruction does, for a reason."""
    stores = operation.startswith(("STORE_", "DELETE_"))
    return "sets" if stores else f"does {operation} with"
