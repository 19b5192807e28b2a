"""torch's deterministic algorithms, asked for while something runs, and put back after it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch


class _Settings(NamedTuple):
    """What of the process's settings decides whether results are the same each time."""

    is_on: bool
    warns_only: bool
    tries_kernels: bool

    @classmethod
    def current(cls) -> _Settings:
        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
        )

    def apply(self) -> None:
        torch.use_deterministic_algorithms(self.is_on, warn_only=self.warns_only)
        torch.backends.cudnn.benchmark = self.tries_kernels


class _SharedSettings:
    """The caller's settings, while blocks of some threads need others.

    They are the process's: the first thread to enter changes them, the last to leave puts them
    back.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._n_blocks = 0
        self._callers: _Settings | None = None

    @contextmanager
    def deterministic(self) -> Iterator[None]:
        with self._mutex:
            if not self._n_blocks:
                self._callers = _Settings.current()
                _Settings(is_on=True, warns_only=False, tries_kernels=False).apply()
            self._n_blocks += 1
        try:
            yield
        finally:
            with self._mutex:
                self._n_blocks -= 1
                if not self._n_blocks and self._callers is not None:
                    self._callers.apply()


_shared = _SharedSettings()


def _renew() -> None:
    global _shared
    _shared = _SharedSettings()


if hasattr(os, "register_at_fork"):
    # The threads that were to put the settings back do not live on in a forked process.
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def deterministic_algorithms(is_asked: bool) -> Iterator[None]:
    """Have torch compute in deterministic ways alone inside the block, if that is asked for.

    Raises
    ------
    RuntimeError
        torch's, if an operation has no such way; a note says where the wish came from.
    """
    if not is_asked:
        yield
        return
    with _shared.deterministic():
        try:
            yield
        except RuntimeError as error:
            if "determinis" in str(error):
                error.add_note(
                    "Raised since `deterministic` is True; use another operation, another device, "
                    "or deterministic=False."
                )
            raise
