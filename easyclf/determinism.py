"""torch's deterministic algorithms, asked for while something runs, and put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from easyclf.threads import OverlappingBlocks


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


def _make_deterministic() -> None:
    _Settings(is_on=True, warns_only=False, tries_kernels=False).apply()


_callers = OverlappingBlocks(_Settings.current, _Settings.apply)


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
    with _callers.kept(_make_deterministic):
        try:
            yield
        except RuntimeError as error:
            if "determinis" in str(error):
                error.add_note(
                    "Raised since `deterministic` is True; use another operation, another device, "
                    "or deterministic=False."
                )
            raise
