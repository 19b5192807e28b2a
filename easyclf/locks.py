"""Folders that one writer at a time holds, of all processes and threads."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".lock"
# How often the file is opened anew where others remove it meanwhile.
_TRIES = 10
# The folders that this process holds, by their devices and numbers: the locks of a process keep
# only others out, and are lost when it opens and closes their file once more.
_held: dict[tuple[int, int], object] = {}
if hasattr(os, "register_at_fork"):
    # A forked process holds nothing.
    os.register_at_fork(after_in_child=_held.clear)


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder during the block, if no other thread or process does.

    A POSIX lock of the file `.lock` tells other processes. The system takes it back however this
    one ends, and processes that were forked from it, as workers of loaders, do not have it, so
    none of them can keep it. Where the system, or that of the files, has no such locks, other
    threads alone are kept out.

    Parameters
    ----------
    folder : Path
        A folder that is there.

    Yields
    ------
    is_held : bool
        Whether this block holds it; False if another one does.

    Raises
    ------
    OSError
        If no file can be made in the folder.
    """
    place, holder = folder.stat(), object()
    key = (place.st_dev, place.st_ino)
    if _held.setdefault(key, holder) is not holder:
        yield False
        return
    try:
        with _locking(folder / LOCK_NAME) as is_locked:
            yield is_locked
    finally:
        _held.pop(key, None)


@contextmanager
def _locking(path: Path) -> Iterator[bool]:
    if sys.platform == "win32":
        yield True
        return
    process, descriptor = os.getpid(), _open_locked(path)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        # A process that was forked in the block may leave it by an error.
        if os.getpid() == process and _is_at(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path) -> int | None:
    """Open a file and lock it; None if another process has locked it."""
    n_tries = 0
    while True:
        n_tries += 1
        # Neither links are followed, nor does a pipe keep us waiting: others may write there too.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(descriptor)
                return None
            # Else it is a file system without locks.
        # Who held it may have removed the file between its opening and its locking. Some file
        # systems number a file anew each time that it is looked at.
        if _is_at(path, descriptor) or n_tries == _TRIES:
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that has this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
