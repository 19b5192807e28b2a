"""Ctrl-C, and SIGTERM where a run is kept, between two batches rather than in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType


class Terminated(BaseException):
    """The process was asked to end by SIGTERM."""


class Interruption:
    """Whether Ctrl-C was pressed, or the process was asked to end."""

    def __init__(self) -> None:
        self.request: type[BaseException] | None = None

    def check(self) -> None:
        """Raise what was put off: KeyboardInterrupt, or Terminated."""
        request, self.request = self.request, None
        if request is not None:
            raise request


@contextmanager
def deferred_interrupts(*, is_kept: bool = False) -> Iterator[Interruption]:
    """Put a first Ctrl-C off until `check`; a second one ends at once.

    Signals reach the main thread only, and a handler of the user's own is left alone. Where the
    run is kept (`is_kept`) SIGTERM is put off too.
    """
    interruption = Interruption()
    terminates = _deferred(signal.SIGTERM, signal.SIG_DFL, Terminated, interruption)
    with (
        _deferred(signal.SIGINT, signal.default_int_handler, KeyboardInterrupt, interruption),
        terminates if is_kept else nullcontext(),
    ):
        try:
            yield interruption
        except Exception:
            if interruption.request is Terminated:
                # Workers were asked to end too, as a batch system does, and their end is an error.
                interruption.check()
            raise
    interruption.check()


@contextmanager
def _deferred(
    number: signal.Signals,
    usual: signal.Handlers | object,
    request: type[BaseException],
    interruption: Interruption,
) -> Iterator[None]:
    """Note the first signal of a number; the second one finds the usual handler."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(number) is not usual:
        yield
        return
    process = os.getpid()

    def note(signal_number: int, frame: FrameType | None) -> None:
        signal.signal(number, usual)
        if os.getpid() == process:
            interruption.request = request
        else:
            # A process that was forked since then has no run to end.
            signal.raise_signal(number)

    signal.signal(number, note)
    try:
        yield
    finally:
        # A hook may have set a handler of the user's own.
        if signal.getsignal(number) is note:
            try:
                signal.signal(number, usual)
            finally:
                # `signal.signal` calls the handlers that wait before it does anything, and that of
                # torch raises if a worker has died.
                signal.signal(number, usual)


@contextmanager
def ending_the_process() -> Iterator[None]:
    """End the process as SIGTERM does, once what a run holds has been let go of."""
    try:
        yield
    except Terminated:
        signal.raise_signal(signal.SIGTERM)
        raise
