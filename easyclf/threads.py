"""Threads that overlap, and threads that do not live on in processes that were forked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

Settings = TypeVar("Settings")
_is_forked = False


def call_after_fork(function: Callable[[], None]) -> None:
    """Have a function called at the beginning of each forked process, where there are any."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


call_after_fork(_note_fork)


class OverlappingBlocks(Generic[Settings]):
    """Settings of the whole process, put back when blocks of several threads have ended.

    Threads leave such blocks in any order, and each would put back what it found, which may be
    another's: the first thread to enter reads the caller's settings, and the last one to leave
    puts them back.

    Parameters
    ----------
    read : callable
        It reads the settings.
    put_back : callable
        It sets them as they were read.
    """

    def __init__(self, read: Callable[[], Settings], put_back: Callable[[Settings], None]) -> None:
        self._read, self._put_back = read, put_back
        self._now = _Blocks[Settings]()
        # Threads that were to put the settings back do not live on in a forked process.
        call_after_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        self._now = _Blocks()

    @contextmanager
    def kept(self, change: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep the settings until this block, and all that overlap it, have ended.

        The first of them changes the settings by `change`.
        """
        blocks = self._now
        with blocks.mutex:
            if not blocks.count:
                blocks.callers = self._read()
                if change is not None:
                    change()
            blocks.count += 1
        try:
            yield
        finally:
            with blocks.mutex:
                blocks.count -= 1
                if not blocks.count and blocks.callers is not None:
                    self._put_back(blocks.callers)


class _Blocks(Generic[Settings]):
    """How many threads are in blocks, and what the first one has found."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.count = 0
        self.callers: Settings | None = None


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
