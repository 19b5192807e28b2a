"""Ctrl-C between two batches rather than in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.is_requested = False

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was put off."""
        if self.is_requested:
            self.is_requested = False
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupts() -> Iterator[Interruption]:
    """Put a first Ctrl-C off until `check`; a second one ends at once.

    Signals reach the main thread only, and a handler of the user's own is left alone.
    """
    interruption = Interruption()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return

    def request(signal_number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interruption.is_requested = True

    signal.signal(signal.SIGINT, request)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    interruption.check()
