"""Files of easyclf: a ZIP of JSON documents and safetensors, written whole or not at all.

All members are stored without compression, so a file takes no more memory than twice its size. The
comment of the ZIP, its last bytes, is the SHA-256 of all bytes before it: who changes one of them
is noticed, unless they mean to be believed; what they can do then is said in `read_archive`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version as installed_version
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

import torch

from easyclf.documents import JSON, MOST_BYTES, read_document, write_document
from easyclf.exceptions import InvalidFile
from easyclf.safetensors import read_tensors, write_tensors

if sys.platform != "win32":
    import fcntl

PathLike: TypeAlias = "str | os.PathLike[str]"

# The member that says what a file is. It is the first.
_ABOUT = "about.json"
_FORMAT = "easyclf"
_DOCUMENT, _TENSORS = ".json", ".safetensors"
_MEMBER_NAME = re.compile(r"[a-z0-9_-]{1,100}\.(json|safetensors)")
# The first day that a ZIP can name: the same content gives the same bytes.
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
# The last record of a ZIP (APPNOTE.TXT of PKWARE, 4.3.16), and the digest that is its comment.
_END = struct.Struct("<4s8xI4xH")
_DIGEST_SIZE = 64
# Bytes of the list of members, so many that nobody needs more: it is read before it is checked.
_LONGEST_LIST = 2**18
_CHUNK = 2**20
# A file before it is whole: so many bytes of its name, which may be as long as names can be.
_MOST_NAME = 200
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)
# Packages whose versions can change answers, and how many numbers of a version have to be the
# same: the last one counts repairs.
_COMPARED, _COMPARED_NUMBERS = ("torch", "numpy", "scikit-learn"), 2
# Who reads the kinds of files.
_READERS = {
    "estimator": "; `Estimator.load` reads it",
    "checkpoint": "; `fit` with `Checkpoint(folder)` among `callbacks` reads it",
}
# How files of other kinds begin.
_BEGINNINGS = (
    (b"\x80", "a pickle, which is never loaded here, since that executes what it holds"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x89HDF", "HDF5, as Keras writes it"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"x\x9c", "compressed by zlib, as joblib does it"),
)


class Archive(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    version : int
        The number of the format of its kind.
    written_by : dict of str to JSON
        The versions of the packages that it was written with.
    documents : dict of str to JSON
        By their names.
    tensors : dict of str to dict of str to Tensor
        By the names of their groups, on the host.
    """

    version: int
    written_by: dict[str, JSON]
    documents: dict[str, JSON]
    tensors: dict[str, dict[str, torch.Tensor]]


def write_archive(
    path: PathLike,
    documents: Mapping[str, JSON],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    *,
    kind: str,
    version: int,
) -> None:
    """Write a file whole, or leave what is there as it is.

    Parameters
    ----------
    path : str or path-like
        What is there is replaced.
    documents : mapping of str to JSON
        By names of lower-case letters, digits and `_`.
    tensors : mapping of str to mapping of str to Tensor
        Groups of tensors of any shapes and devices, by such names.
    kind : str
        What the file holds, such as "estimator".
    version : int
        The number of the format of that kind.

    Raises
    ------
    OSError
        If the file cannot be written; the message has the path.
    ValueError
        If a document or a tensor cannot be stored.
    """
    about: JSON = {
        "format": _FORMAT,
        "kind": kind,
        "version": version,
        "written_by": dict(_versions()),
    }
    texts = {_ABOUT: write_document(about)}
    texts |= {name + _DOCUMENT: write_document(text) for name, text in documents.items()}
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w") as opened:
            for name, text in texts.items():
                _write_member(opened, name, text)
            for name, group in tensors.items():
                _write_member(opened, name + _TENSORS, write_tensors(group))
            opened.comment = bytes(_DIGEST_SIZE)
        digest = _digest(file, file.tell() - _DIGEST_SIZE)
        file.seek(-_DIGEST_SIZE, os.SEEK_END)
        file.write(digest)


def read_archive(path: PathLike, *, kind: str, version: int) -> Archive:
    """Read a file that `write_archive` has written; nothing that it holds is executed.

    Parameters
    ----------
    path : str or path-like
        The file. No more memory than twice its size, and 200 MB, is used.
    kind : str
        What it has to hold.
    version : int
        The newest number of the format of that kind that can be understood.

    Returns
    -------
    archive : Archive
        The content: numbers and texts, every byte of which is as it was written, or was made to
        look so.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InvalidFile
        If it is of another kind, damaged, too large or newer; the message has the path.
    """
    with reading(path) as (file, size), _opened(file, size) as opened:
        members = _members(opened, size)
        version_there, written_by = _read_about(_read_document(opened, members[0]), kind, version)
        documents, tensors = {}, {}
        for member in members[1:]:
            name, _, _ = member.filename.rpartition(".")
            if member.filename.endswith(_DOCUMENT):
                documents[name] = _read_document(opened, member)
            else:
                with _naming(member):
                    tensors[name], _ = read_tensors(opened.read(member))
        return Archive(version_there, written_by, documents, tensors)


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


def _write_member(opened: zipfile.ZipFile, name: str, data: bytes) -> None:
    if not _MEMBER_NAME.fullmatch(name) or name in opened.namelist():
        raise ValueError(f"{name!r} cannot be the name of a part of a file, or is one already.")
    opened.writestr(zipfile.ZipInfo(name, _FIRST_DAY), data)


def _digest(file: BufferedReader | BufferedRandom, size: int) -> bytes:
    """The SHA-256 of the first bytes of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    file.seek(0)
    while size > 0 and (data := file.read(min(size, _CHUNK))):
        sha.update(data)
        size -= len(data)
    return sha.hexdigest().encode("ascii")


@contextmanager
def _opened(file: BufferedReader, size: int) -> Iterator[zipfile.ZipFile]:
    """Open the ZIP that a file is, after its digest has been compared.

    Whatever `zipfile` has to say of a damaged one becomes an `InvalidFile`.
    """
    _check_beginning(file)
    file.seek(max(0, size - _END.size - _DIGEST_SIZE))
    end = file.read(_END.size)
    signature, list_size, comment_size = _END.unpack(end) if len(end) == _END.size else (b"", 0, 0)
    if signature != b"PK\x05\x06" or comment_size != _DIGEST_SIZE or list_size > _LONGEST_LIST:
        raise InvalidFile("it ends too early, or is a ZIP that easyclf has not written")
    if _digest(file, size - _DIGEST_SIZE) != file.read():
        raise InvalidFile("it is damaged: its checksum differs")
    try:
        with zipfile.ZipFile(file) as opened:
            yield opened
    except (InvalidFile, OSError):
        raise
    except Exception as error:  # it lets what it reads raise anything
        raise InvalidFile("it is a ZIP that easyclf has not written") from error


def _members(opened: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The members of a ZIP of `size` bytes, if it can hold them as it says."""
    members = opened.infolist()
    names = [member.filename for member in members]
    if not names or names[0] != _ABOUT:
        raise InvalidFile("it is a ZIP that easyclf has not written")
    for name in names:
        if not _MEMBER_NAME.fullmatch(name):
            raise InvalidFile(f"it has a part with the name {name[:100]!r}")
        if names.count(name) > 1:
            raise InvalidFile(f"it has two parts named {name}")
    is_stored = all(
        member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        for member in members
    )
    is_inside = all(0 <= member.header_offset < size for member in members)
    if not (is_stored and is_inside) or sum(member.file_size for member in members) > size:
        raise InvalidFile("its parts are compressed, or not all inside the file")
    return members


def _read_document(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> JSON:
    with _naming(member):
        if member.file_size > MOST_BYTES:
            raise InvalidFile("a document is too large")
        return read_document(opened.read(member))


@contextmanager
def _naming(member: zipfile.ZipInfo) -> Iterator[None]:
    """Have errors say which member they are about."""
    try:
        yield
    except InvalidFile as error:
        raise InvalidFile(f"in its part {member.filename}, {error}") from error


def _read_about(about: JSON, kind: str, version: int) -> tuple[int, dict[str, JSON]]:
    """Check what a file says that it is; give its version and who wrote it."""
    match about:
        case {
            "format": str(there),
            "kind": str(its_kind),
            "version": int(its_version),
            "written_by": dict(written_by),
        } if there == _FORMAT:
            pass
        case _:
            raise InvalidFile("it does not say that easyclf has written it")
    if its_kind != kind:
        raise InvalidFile(f"it holds {its_kind[:100]!r}, not {kind!r}{_READERS.get(its_kind, '')}")
    if its_version > version:
        raise InvalidFile(
            f"its format has the number {its_version}, written by easyclf "
            f"{str(written_by.get('easyclf'))[:100]}; this version, "
            f"{installed_version('easyclf')}, reads up to {version}: use a newer easyclf"
        )
    if its_version < 1:
        raise InvalidFile(f"its format has the number {its_version}")
    return its_version, written_by


def _check_beginning(file: BufferedReader) -> None:
    """Refuse a file that begins as no ZIP does, and say what it looks like."""
    beginning = file.read(16)
    if beginning.startswith(b"PK\x03\x04"):
        return
    looks = next((kind for first, kind in _BEGINNINGS if beginning.startswith(first)), None)
    if looks is None and beginning[8:9] == b"{":
        looks = "safetensors, which `load_weights` reads"
    like = "" if looks is None else f"; it looks like {looks}"
    raise InvalidFile(f"it is no file that easyclf has written{like}")


@cache
def _versions() -> dict[str, str]:
    """The versions of what writes; it takes milliseconds to look them up."""
    versions = {name: installed_version(name) for name in ("easyclf", *_COMPARED)}
    return {"python": platform.python_version(), **versions}


def other_versions(written_by: Mapping[str, JSON]) -> list[tuple[str, str, str]]:
    """List the packages of which a file names another version than is installed.

    Parameters
    ----------
    written_by : mapping of str to JSON
        The versions that the file names.

    Returns
    -------
    others : list of tuple of str
        The name of a package, its version in the file, and the installed one: those of torch,
        NumPy and scikit-learn that differ in one of the first two numbers.
    """
    pairs = [(name, str(written_by.get(name))[:50], _versions()[name]) for name in _COMPARED]
    return [(name, there, here) for name, there, here in pairs if _release(there) != _release(here)]


def _release(version: str) -> list[str]:
    return version.split(".")[:_COMPARED_NUMBERS]


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
