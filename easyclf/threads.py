"""Threads of torch in processes that were forked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def safe_threads() -> Iterator[None]:
    """Use one thread inside the block, if this process was forked from one that uses torch.

    Only the thread that forks lives on in the new process. GNU's OpenMP, which torch brings, still
    counts on those that it had begun, and waits for them forever: GCC's bug 58378.
    """
    n_threads = torch.get_num_threads()
    if not _is_forked or n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
