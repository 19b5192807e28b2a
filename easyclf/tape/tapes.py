"""Tapes of what a run does with every batch, made where they are proved to be sound."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from easyclf.data import Batch
from easyclf.nested import Tensors, apply, tensors_of
from easyclf.tape.compiler import record
from easyclf.tape.kernels import faster_product
from easyclf.tape.purity import CodeReading
from easyclf.tape.recorder import NotRecordable, Tape

_log = logging.getLogger("easyclf")
# A tape is made for a shape that came this often and will come so much more often: to make and
# to try it takes as long as it saves in some twenty steps.
_SEEN, _WORTHWHILE = 5, 64
# The time of modules with more weights goes into arithmetic.
_MOST_WEIGHTS = 2**24


class Tapes:
    """Tapes of a function of a batch, one for each shape that comes often.

    Before a tape is used it is tried: played on the batch that it was made with, it must give
    what the function gave, and leave buffers and random states as the function left them.

    Parameters
    ----------
    module : nn.Module
        The module that the function calls.
    head : object
        What else it reads.
    mode : bool
        Whether the module has to be in training mode for it.
    n_calls : int
        Batches that will come in all; with 0 no tapes are made.
    """

    def __init__(
        self,
        module: nn.Module,
        head: object,
        *,
        mode: bool,
        n_calls: int,
    ) -> None:
        self._module, self._head, self._mode = module, head, mode
        self._n_calls = n_calls
        self._tapes: dict[Any, Tape] = {}
        self._seen: Counter[Any] = Counter()
        self._calls = 0
        self._reading: CodeReading | None = None

    def get(self, batch: Batch, function: Callable[[Batch], Any]) -> Tape | None:
        """The tape for batches of this shape; without one the module is in the right mode.

        `function` is always the same: `Batch -> tensors and numbers in tuples`, which changes
        buffers at most.
        """
        shape = None
        self._calls += 1
        if self._n_calls:
            x, y, weight = batch
            assert y is not None
            shape = (_shape(x), y.shape, y.dtype, weight is None)
            tape = self._tapes.get(shape)
            if tape is not None:
                return tape
        if self._module.training is not self._mode:
            self._module.train(self._mode)
        if shape is None:
            return None
        self._seen[shape] += 1
        seen = self._seen[shape]
        expected = self._n_calls * seen / self._calls
        if seen < _SEEN or expected < seen + _WORTHWHILE:
            return None
        try:
            self._tapes[shape], result = self._record(batch, function)
        except NotRecordable as reason:
            self._n_calls = 0
            self._tapes.clear()
            _log.debug("%s runs as it is: %s.", type(self._module).__name__, reason)
            return None
        what = "trained" if self._mode else "evaluated"
        _log.debug("%s is %s from a tape.", type(self._module).__name__, what)
        # What the trial gave is what this batch needs; nobody else holds it.
        results = [result]
        return lambda *_: results.pop()

    def check(self) -> None:
        """Forget the tapes if what they depend on has changed since they were made.

        The module is in the mode that they were made in.
        """
        if self._tapes and self._read() != self._reading:
            self.forget()

    def forget(self) -> None:
        """Make tapes anew."""
        self._tapes.clear()
        self._seen.clear()
        self._calls = 0

    def _read(self) -> CodeReading | None:
        try:
            return CodeReading([self._module, self._head])
        except NotRecordable:
            return None

    def _record(self, batch: Batch, function: Callable[[Batch], Any]) -> tuple[Tape, Any]:
        """A tape, and what it gave in its trial, which leaves everything as `function` does."""
        if _get_current_dispatch_mode() is not None:
            raise NotRecordable("somebody else watches its operations")
        self._reading = reading = CodeReading([self._module, self._head])
        known = reading.tensors
        if sum(tensor.numel() for tensor in known) > _MOST_WEIGHTS:
            raise NotRecordable("it has so many weights that Python takes little of its time")
        # One tensor may be there under two names.
        x = apply(lambda one: one.view_as(one), batch.x)
        inputs = [*tensors_of(x), *(tensor for tensor in batch[1:] if tensor is not None)]
        before = _Moment([*known, *inputs])
        try:
            expected, make_tape = record(lambda: function(batch._replace(x=x)), inputs, known)
            left = _Moment(known)
            # Where a result is nothing but rounding, another kernel gives something else.
            for choose in (faster_product, _as_recorded):
                before.restore()
                tape = make_tape(choose)
                found = tape(*inputs)
                if _is_same([expected, left.values], [found, _state(known)]):
                    break
            else:
                raise NotRecordable("a replay differs from what it does")
            if self._read() != reading:
                raise NotRecordable("its forward pass changes what it reads")
        except Exception as error:
            before.restore()
            if isinstance(error, NotRecordable):
                raise
            raise NotRecordable(f"recording failed with {type(error).__name__}: {error}") from error
        if isinstance(batch.x, torch.Tensor):
            return tape, found
        return (lambda x, *rest: tape(*tensors_of(x), *rest)), found


def _as_recorded(function: Any, tensors: Sequence[torch.Tensor]) -> None:
    """Every operation as it was recorded."""


def _shape(x: Tensors) -> Any:
    if isinstance(x, torch.Tensor):
        return (x.shape, x.stride(), x.dtype)
    return tuple(map(_shape, tensors_of(x)))


def _cuda_devices(tensors: Sequence[torch.Tensor]) -> list[torch.device]:
    return list(dict.fromkeys(tensor.device for tensor in tensors if tensor.is_cuda))


def _state(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors themselves, and the states of torch's generators."""
    states = map(torch.cuda.get_rng_state, _cuda_devices(tensors))
    return [*tensors, torch.get_rng_state(), *states]


class _Moment:
    """The values of tensors and the states of torch's generators, which can be put back."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors
        self.values = [one.detach().clone() for one in _state(tensors)]

    @torch.no_grad()
    def restore(self) -> None:
        """Make everything as it was; what has not changed is not written, as a file may not be."""
        values = iter(self.values)
        for tensor in self._tensors:
            value = next(values)
            if not torch.equal(tensor, value):
                tensor.copy_(value)
        torch.set_rng_state(next(values))
        for device, state in zip(_cuda_devices(self._tensors), values, strict=True):
            torch.cuda.set_rng_state(state, device)


def _is_same(first: Any, second: Any) -> bool:
    """Whether two results of one structure hold the same numbers, but for rounding.

    A kernel may round another way when a tensor lies at another address, and another kernel does.
    """
    if isinstance(first, torch.Tensor):
        if torch.equal(first, second):
            return True
        if not first.is_floating_point():
            return False
        # What a sum of many numbers leaves is rounded by the size of these.
        size = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max())
        return torch.allclose(first, second, rtol=1e-4, atol=1e-6 + 1e-5 * size, equal_nan=True)
    if isinstance(first, (tuple, list)):
        return all(map(_is_same, first, second))
    return bool(first == second)
