"""Seeds: the same seed gives the same fit, and nobody else's random numbers change."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from easyclf.device import HOST, generator_state, seed_device, set_generator_state
from easyclf.threads import OverlappingBlocks, call_after_fork

_64_BITS = 2**64 - 1
# The random states are the process's: whoever seeds them keeps other threads waiting.
_lock = threading.RLock()
# `is_guest` is set in a thread that goes on under the random states of another one.
_this_thread = threading.local()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


# A thread that held the lock does not live on in a forked process.
call_after_fork(_renew_lock)


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """A seed below 2**32: `random_state` itself, drawn from it, or from the operating system.

    None does not touch NumPy's global state, as scikit-learn's `check_random_state` would.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**32, dtype=np.uint32))
    return int(random_state)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed below 2**32 of an epoch, whichever epochs ran before it in this process.

    It is the upper half of the number at place `epoch` of the sequence that SplitMix64 begins at
    `seed` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
    a microsecond, where NumPy's `SeedSequence` takes nine.
    """
    mixed = (seed + epoch * 0x9E3779B97F4A7C15) & _64_BITS
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _64_BITS
    return (mixed ^ (mixed >> 31)) >> 32


HostStates = tuple[object, object, torch.Tensor]


def _host_states() -> HostStates:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _put_back(states: HostStates) -> None:
    python, numpy, cpu = states
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy)  # type: ignore[arg-type]
    torch.set_rng_state(cpu)


_callers = OverlappingBlocks(_host_states, _put_back)


def kept_states() -> AbstractContextManager[None]:
    """Put the random states of Python, NumPy and torch on the CPU back after a block."""
    return _callers.kept()


@contextmanager
def isolated(seed: int, device: torch.device, *, waits: bool = True) -> Iterator[None]:
    """Have random states of one's own inside the block, as in `own_states`.

    While another thread is in such a block this one waits, so that both are reproducible. With
    `waits=False` it goes on under the other's states: prediction, which hardly ever draws, need
    not wait for a fit.
    """
    lock = _lock
    if not lock.acquire(blocking=waits):
        with _callers.kept(), _as_guest():
            yield
        return
    try:
        with own_states(seed, device):
            yield
    finally:
        lock.release()


@contextmanager
def _as_guest() -> Iterator[None]:
    was_guest = getattr(_this_thread, "is_guest", False)
    _this_thread.is_guest = True
    try:
        yield
    finally:
        _this_thread.is_guest = was_guest


@contextmanager
def own_states(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block, and put their states back after it.

    In a thread that goes on under the states of another one nothing is seeded: they are the
    other's, who draws from them meanwhile.
    """
    if getattr(_this_thread, "is_guest", False):
        yield
        return
    of_device = None if device.type == HOST.type else generator_state(device)
    try:
        with _callers.kept():
            before = _host_states()
            try:
                seed_generators(seed, device)
                yield
            finally:
                _put_back(before)
    finally:
        if of_device is not None:
            set_generator_state(device, of_device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators of Python, NumPy and torch, for that device too."""
    random.seed(seed)
    np.random.seed(seed)
    seed_device(HOST, seed)
    if device.type != HOST.type:
        seed_device(device, seed)
