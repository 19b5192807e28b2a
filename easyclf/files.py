"""Files that are replaced whole or not at all, and read under their names."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import NoReturn, TypeAlias

from easyclf.exceptions import InvalidFile
from easyclf.vocabulary import FOREIGN_SUFFIXES

if sys.platform != "win32":
    import fcntl

PathLike: TypeAlias = "str | os.PathLike[str]"

# A file before it is whole: so many bytes of its name, which may be as long as names can be.
_MOST_NAME = 200
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)


@contextmanager
def replacing(path: PathLike) -> Iterator[BufferedRandom]:
    """Open a new file, which takes the place of `path` when the block has ended well.

    If it fails, or is interrupted, what was at `path` is left as it was, and nothing else.

    Raises
    ------
    OSError
        If the folder is missing, or nothing can be written there; the message has the path.
    """
    target = check_target(path)
    try:
        temporary, file = _opened_beside(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                if sys.platform == "win32":
                    file.close()  # what is open cannot be renamed there
                # Else it is renamed while it is open, and with that locked.
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _raise_unwritten(error, path)
    _flush_folder(target.parent)


def check_writable(path: PathLike) -> None:
    """Try whether `replacing` could write a file, and leave nothing behind.

    Raises
    ------
    OSError
        If it could not; the message has the path.
    """
    target = check_target(path)
    try:
        temporary, file = _opened_beside(target)
        file.close()
        temporary.unlink()
    except OSError as error:
        _raise_unwritten(error, path)


def remove_unfinished(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what processes have left that were killed while they wrote files of such names.

    The files of writers that live are locked, and stay. So do all where the system, or that of
    the files, has no locks.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):  # the folder cannot be listed
        for path in folder.iterdir():
            unfinished = _UNFINISHED.fullmatch(path.name)
            if unfinished and names.fullmatch(unfinished[1]):
                with suppress(OSError):
                    _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    """Remove a file; raise an OSError if another process, or thread, writes to it."""
    if sys.platform != "win32":
        # Neither links are followed, nor does a pipe keep us waiting: others may write there too.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _opened_beside(target: Path) -> tuple[Path, BufferedRandom]:
    """Open a new file, locked, in the folder of `target`, and remove those of dead writers.

    It stands there since a file can only be renamed within a file system.
    """
    beginning = target.name.encode("utf-8", "ignore")[:_MOST_NAME].decode("utf-8", "ignore")
    remove_unfinished(target.parent, re.compile(re.escape(beginning)))
    while True:
        temporary = target.with_name(f".{beginning}.{secrets.token_hex(8)}.tmp")
        file = temporary.open("x+b")
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        # Before it was locked, it may have looked like that of a dead writer.
        if temporary.exists():
            return temporary, file
        file.close()


def check_path(path: object, example: str, name: str = "path") -> None:
    """Refuse what is no path.

    Raises
    ------
    TypeError
        It shows the beginning of what was given, and the example.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        shown = repr(path)
        shown = shown if len(shown) <= 100 else f"a {type(path).__name__}, {shown[:60]}..."
        raise TypeError(f"`{name}` is {shown}; expected a text or a path, as {example!r}.")


def check_target(path: PathLike) -> Path:
    """Find the file that `path` means, through links, where a file could be written.

    Raises
    ------
    OSError
        If `path` is a folder, or is in none.
    TypeError
        If it is no path.
    """
    check_path(path, "model.easyclf")
    if not os.fspath(path):
        raise FileNotFoundError("`path` is ''; expected the name of a file, as 'model.easyclf'.")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"`path` {str(path)!r} is a folder; expected the name of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"`path` is {str(path)!r}, but there is no folder {str(target.parent)!r}; make it "
            "first, or take another name."
        )
    return target


def check_suffix(path: PathLike, method: str, suffix: str) -> None:
    """Refuse the name of a file that says that it is of another kind.

    Parameters
    ----------
    path : str or path-like
        The file to be written.
    method : str
        The method that writes it.
    suffix : str
        The right suffix, such as ".easyclf". One that nothing is known of, or none, will do.

    Raises
    ------
    ValueError
        It has the name to type.
    """
    typed = Path(path).suffix.lower()
    if typed != suffix and typed in FOREIGN_SUFFIXES:
        raise ValueError(
            f"`path` is {str(path)!r}, with the suffix of {FOREIGN_SUFFIXES[typed]}, which "
            f"`{method}` does not write; call it {str(Path(path).with_suffix(suffix))!r}."
        )


@contextmanager
def reading(path: PathLike) -> Iterator[tuple[BufferedReader, int]]:
    """Open a file to be read, with its size; errors in the block get its path.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InvalidFile
        If it is no file but a folder or a device, or is empty.
    """
    check_path(path, "model.easyclf")
    with naming(path):
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, "There is no such file", str(path))
        # Opening a pipe would wait for a writer.
        if not Path(path).is_file():
            raise InvalidFile("it is a folder" if Path(path).is_dir() else "it is no file")
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise InvalidFile("it is empty")
            yield file, size


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Have errors about the content of a file begin with its path."""
    try:
        yield
    except InvalidFile as error:
        raise InvalidFile(f"{str(path)!r} cannot be read: {error}.") from error.__cause__


def _raise_unwritten(error: OSError, path: PathLike) -> NoReturn:
    reason = error.strerror or error
    raise OSError(
        error.errno,
        f"The file could not be written, and what was there is left as it was: {reason}",
        str(path),
    ) from error


def _flush_folder(folder: Path) -> None:
    """Have the new name of a file survive a loss of power, where the system can do that."""
    with suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
