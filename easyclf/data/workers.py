"""Processes that read ahead: how they end, and what is said when one dies."""

from __future__ import annotations

import contextlib
import multiprocessing.util
from collections.abc import Generator
from typing import Any

from torch.utils.data import DataLoader

# The beginnings of torch's messages: of an error that a dataset raised in a worker, and of the
# error for a worker that died. tests/data/test_workers.py compares them with torch's.
_PASSED_ON = "Caught"
_WORKER_DIED = "DataLoader worker (pid"
_TIMED_OUT = "DataLoader timed out"
# Words of torch's errors where the memory that processes share is full.
_SHARED_MEMORY_FULL = (
    "unable to write to file </torch",
    "unable to allocate shared memory",
    "out of shared memory",
)


def iterate(loader: DataLoader[Any]) -> Generator[Any]:
    """Yield the batches of a loader; its processes end with that, unless it is to keep them.

    Raises
    ------
    RuntimeError
        If a worker died, with what to do about it.
    """
    if getattr(loader, "num_workers", 0):
        keep_sockets_together()
    iterator = _begun(loader)
    try:
        yield from iterator
    except (EOFError, ConnectionError) as error:
        if not getattr(loader, "num_workers", 0) or str(error).startswith(_PASSED_ON):
            raise
        raise dead_worker(error) from error
    except RuntimeError as error:
        if says_worker_died(error):
            raise dead_worker(error) from error
        advise(error)
        raise
    finally:
        if not getattr(loader, "persistent_workers", False):
            shut_down(iterator)


def _begun(loader: DataLoader[Any]) -> Any:
    """Begin a loader; an error of sending its dataset to workers says what to do."""
    try:
        return iter(loader)
    except Exception as error:
        if getattr(loader, "num_workers", 0):
            error.add_note(
                "Raised when workers were begun, which are sent the dataset where they are not "
                "forked: use functions and classes at the top level of a module in place of "
                "lambdas and local ones, or no workers, `loader__num_workers=0`."
            )
        raise


def advise(error: RuntimeError) -> None:
    """Add to an error of torch's what to do about workers that hang or share too much memory."""
    text = str(error)
    if text.startswith(_TIMED_OUT):
        error.add_note(
            "A worker gave no batch in that time: raise `loader__timeout`, or look for what the "
            "dataset waits for with `loader__num_workers=0`."
        )
    elif any(words in text for words in _SHARED_MEMORY_FULL):
        error.add_note(
            "Workers hand over batches in shared memory, which is full: give /dev/shm more room "
            "(docker run --shm-size=2g), or use fewer workers or smaller batches; "
            "`loader__num_workers=0` needs none."
        )


def keep_sockets_together() -> None:
    """Have workers make the sockets through which they send tensors in a folder of this process.

    Else each makes a folder of its own, which stays where it is killed. The function is not
    documented; without it those stay.
    """
    with contextlib.suppress(AttributeError, OSError):
        multiprocessing.util.get_temp_dir()


def says_worker_died(error: BaseException) -> bool:
    """Whether torch raised it for a worker that died; it does so wherever the main thread is."""
    return isinstance(error, RuntimeError) and str(error).startswith(_WORKER_DIED)


def dead_worker(error: BaseException) -> RuntimeError:
    """Make the error that says what to do about a worker that died."""
    return RuntimeError(
        f"A DataLoader worker died ({error or type(error).__name__}), often for lack of memory; "
        "use fewer of them, or none: `loader__num_workers=0`, or num_workers=0 of your own loader."
    )


def shut_down(iterator: Any) -> None:
    """End the workers of a loader's iterator now, also if torch reports there that one has died.

    The method is private. Where torch has it no longer, or where it fails, the workers end later:
    the iterator ends them when it is collected.
    """
    end = getattr(iterator, "_shutdown_workers", None)
    if end is None:  # nor has an iterator without workers
        return
    # A report of a dead worker cuts the first call short; after a whole call the second does
    # nothing.
    for _ in range(2):
        with contextlib.suppress(AttributeError, RuntimeError, TypeError):
            end()


def end_kept_workers(loader: DataLoader[Any]) -> None:
    """End the workers that a loader keeps from one epoch to the next.

    The attribute is private. Where torch has it no longer, they end with the loader.
    """
    with contextlib.suppress(AttributeError, RuntimeError, TypeError):
        if loader._iterator is not None:
            shut_down(loader._iterator)
            loader._iterator = None
