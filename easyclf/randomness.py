"""Seeds: the same seed gives the same fit, and nobody else's random numbers change."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The random states belong to the process: a thread that seeds them keeps the others waiting.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A thread that held the lock does not live on in a forked process.
    os.register_at_fork(after_in_child=_renew_lock)


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Draw a seed below 2**32: `random_state` itself, from it, or from the operating system.

    None does not touch NumPy's global state, as scikit-learn's `check_random_state` would.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**32, dtype=np.uint32))
    return int(random_state)


def seed_after(seed: int, epochs: int) -> int:
    """The seed with which a run that has `epochs` epochs behind it goes on."""
    return int(np.random.SeedSequence([seed, epochs]).generate_state(1)[0]) if epochs else seed


@contextmanager
def isolated(seed: int, device: torch.device, *, waits: bool = True) -> Iterator[None]:
    """Seed the random states inside the block, as `own_states` does, one thread at a time.

    While another thread is in such a block this one waits, so that both are reproducible. With
    `waits=False` it goes on under the other's states: prediction, which hardly ever draws, need
    not wait for a fit.
    """
    lock = _lock
    if not lock.acquire(blocking=waits):
        yield
        return
    try:
        with own_states(seed, device):
            yield
    finally:
        lock.release()


@contextmanager
def own_states(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block, and put their states back after it."""
    accelerator = {"cuda": torch.cuda, "mps": torch.mps, "xpu": torch.xpu}.get(device.type)
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_accelerator = accelerator.get_rng_state() if accelerator else None
    try:
        random.seed(seed)
        np.random.seed(seed)
        # `torch.manual_seed` would also queue a call for a CUDA that nobody uses: 0.1 ms each time.
        torch.default_generator.manual_seed(seed)
        if accelerator:
            accelerator.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if accelerator and of_accelerator is not None:
            accelerator.set_rng_state(of_accelerator)
