"""Files of easyclf: a ZIP of JSON documents and safetensors, written whole or not at all.

All members are stored without compression, one behind the other, and the structure of the ZIP
follows from their names, sizes and checksums: so a file takes no more memory than its size, and a
file with one byte that `write_archive` would have written otherwise is refused.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version as installed_version
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

import torch

from easyclf.documents import JSON, MOST_BYTES, read_document, write_document
from easyclf.exceptions import InvalidFile
from easyclf.safetensors import read_exactly, read_tensors, write_tensors

PathLike: TypeAlias = "str | os.PathLike[str]"

# The member that says what a file is. It is the first.
_ABOUT = "about.json"
_FORMAT = "easyclf"
_DOCUMENT, _TENSORS = ".json", ".safetensors"
_MEMBER_NAME = re.compile(r"[a-z0-9_-]{1,100}\.(json|safetensors)")
_MOST_MEMBERS = 1000
# APPNOTE.TXT of PKWARE, 4.3: signatures, and the fields that never change. All sizes stand in the
# fields of ZIP64, also small ones; dates are the first that there is.
_NEEDED_VERSION, _FIRST_DATE, _IN_ZIP64 = 45, 0x21, 0xFFFFFFFF
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_SIZES = struct.Struct("<2H2Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_SIZES = struct.Struct("<2H3Q")
_END = struct.Struct("<4sQ2H2I4Q 4sIQI 4s4H2IH")
_END_SIZE = 44  # of its first record, without the first two fields
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


class _Member(NamedTuple):
    """A member of a ZIP; `offset` is where its local header begins."""

    name: str
    checksum: int
    size: int
    offset: int

    @property
    def local_header(self) -> bytes:
        return (
            _LOCAL.pack(
                b"PK\x03\x04",
                *(_NEEDED_VERSION, 0, 0, 0, _FIRST_DATE),
                *(self.checksum, _IN_ZIP64, _IN_ZIP64),
                *(len(self.name), _LOCAL_SIZES.size),
            )
            + self.name.encode("ascii")
            + _LOCAL_SIZES.pack(1, 16, self.size, self.size)
        )

    @property
    def central_header(self) -> bytes:
        return (
            _CENTRAL.pack(
                b"PK\x01\x02",
                *(_NEEDED_VERSION, _NEEDED_VERSION, 0, 0, 0, _FIRST_DATE),
                *(self.checksum, _IN_ZIP64, _IN_ZIP64),
                *(len(self.name), _CENTRAL_SIZES.size, 0, 0, 0),
                *(0, _IN_ZIP64),
            )
            + self.name.encode("ascii")
            + _CENTRAL_SIZES.pack(1, 24, self.size, self.size, self.offset)
        )

    @property
    def end(self) -> int:
        return self.offset + len(self.local_header) + self.size


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
        "written_by": _versions(),
    }
    texts = {_ABOUT: write_document(about)}
    texts |= {name + _DOCUMENT: write_document(text) for name, text in documents.items()}
    with replacing(path) as file:
        members: list[_Member] = []
        for name, text in texts.items():
            with _writing(file, name, members) as sink:
                sink.write(text)
        for name, group in tensors.items():
            with _writing(file, name + _TENSORS, members) as sink:
                write_tensors(sink, group)
        directory = b"".join(member.central_header for member in members)
        file.write(directory)
        file.write(_end(len(members), len(directory), file.tell()))


def read_archive(path: PathLike, *, kind: str, version: int) -> Archive:
    """Read a file that `write_archive` has written; nothing that it holds is executed.

    Parameters
    ----------
    path : str or path-like
        The file. No more memory than its size, and 200 MB, is used.
    kind : str
        What it has to hold.
    version : int
        The newest number of the format of that kind that can be understood.

    Returns
    -------
    archive : Archive
        The content, every byte of which has been checked.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InvalidFile
        If it is of another kind, damaged, too large or newer; the message has the path.
    """
    with reading(path) as (file, size):
        members = _read_directory(file, size)
        if members[0].name != _ABOUT:
            raise InvalidFile("it is a ZIP that easyclf has not written")
        version_there, written_by = _read_about(_read_document(file, members[0]), kind, version)
        documents, tensors = {}, {}
        for member in members[1:]:
            name, _, _ = member.name.rpartition(".")
            if member.name.endswith(_DOCUMENT):
                documents[name] = _read_document(file, member)
            else:
                with _reading_member(file, member) as stream:
                    tensors[name], _ = read_tensors(stream, member.size)
        return Archive(version_there, written_by, documents, tensors)


@contextmanager
def replacing(path: PathLike) -> Iterator[BufferedWriter]:
    """Open a new file, which takes the place of `path` when the block has ended well.

    If it fails, or is interrupted, what was at `path` is left as it was, and nothing else.

    Raises
    ------
    OSError
        If the folder is missing, or nothing can be written there; the message has the path.
    """
    target = check_target(path)
    # Beside the target: a file can only be renamed within a file system.
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except OSError as error:
        _raise_unwritten(error, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


def check_target(path: PathLike) -> Path:
    """Find the file that `path` means, through links, where a file could be written.

    Raises
    ------
    OSError
        If `path` is a folder, or is in none.
    TypeError
        If it is no path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"`path` is {path!r}; expected a text or a path, as 'model.easyclf'.")
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
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"`path` is {path!r}; expected a text or a path, as 'model.easyclf'.")
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


class _Written:
    """Bytes on their way to a file: how many they are, and their CRC-32."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file = file
        self.checksum, self.size = 0, 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)
        self.size += len(data)


class _Read:
    """The next bytes of a file: how many are left, and the CRC-32 of those that were read."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self.checksum, self.left = 0, size

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer)[: self.left]
        n_read = self._file.readinto(view)
        self.checksum = zlib.crc32(view[:n_read], self.checksum)
        self.left -= n_read
        return n_read


@contextmanager
def _writing(file: BufferedWriter, name: str, members: list[_Member]) -> Iterator[_Written]:
    """Write a member, whose checksum and size are known when the block has ended."""
    if not _MEMBER_NAME.fullmatch(name) or any(name == member.name for member in members):
        raise ValueError(f"{name!r} cannot be the name of a part of a file, or is one already.")
    begun = _Member(name, 0, 0, file.tell())
    file.write(begun.local_header)
    sink = _Written(file)
    yield sink
    member = begun._replace(checksum=sink.checksum, size=sink.size)
    file.seek(member.offset)
    file.write(member.local_header)
    file.seek(member.end)
    members.append(member)


@contextmanager
def _reading_member(file: BufferedReader, member: _Member) -> Iterator[_Read]:
    """Read a member, whose checksum is compared when the block has ended."""
    header = member.local_header
    file.seek(member.offset)
    if read_exactly(file, len(header)) != header:
        raise InvalidFile(f"its part {member.name} does not begin as it should")
    stream = _Read(file, member.size)
    try:
        yield stream
    except InvalidFile as error:
        raise InvalidFile(f"in its part {member.name}, {error}") from error
    if stream.left or stream.checksum != member.checksum:
        raise InvalidFile(f"its part {member.name} is damaged: its checksum differs")


def _read_document(file: BufferedReader, member: _Member) -> JSON:
    if member.size > MOST_BYTES:
        raise InvalidFile(f"its part {member.name} is too large")
    with _reading_member(file, member) as stream:
        data = bytes(read_exactly(stream, member.size))
    return read_document(data)


def _end(n_members: int, size: int, end: int) -> bytes:
    """The last bytes of a file whose directory, of `size` bytes, ends at `end`."""
    return _END.pack(
        *(b"PK\x06\x06", _END_SIZE, _NEEDED_VERSION, _NEEDED_VERSION, 0, 0),
        *(n_members, n_members, size, end - size),
        *(b"PK\x06\x07", 0, end, 1),
        *(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64, 0),
    )


def _read_directory(file: BufferedReader, size: int) -> list[_Member]:
    """Read what the ZIP holds, and check that it holds nothing else, of a file of `size` bytes."""
    _check_beginning(file)
    if size < _END.size:
        raise InvalidFile("it ends too early")
    file.seek(size - _END.size)
    end = read_exactly(file, _END.size)
    n_members, directory_size = _END.unpack(end)[7:9]
    is_possible = 0 < n_members <= _MOST_MEMBERS and directory_size <= min(
        _MOST_MEMBERS * 200, size - _END.size
    )
    if not is_possible or end != _end(n_members, directory_size, size - _END.size):
        raise InvalidFile("it ends too early, or is a ZIP that easyclf has not written")
    file.seek(size - _END.size - directory_size)
    directory = bytes(read_exactly(file, directory_size))
    members: list[_Member] = []
    for _ in range(n_members):
        member = _read_member(directory, members[-1].end if members else 0)
        if any(member.name == earlier.name for earlier in members):
            raise InvalidFile(f"it has two parts named {member.name}")
        directory = directory.removeprefix(member.central_header)
        members.append(member)
    if directory or members[-1].end != size - _END.size - directory_size:
        raise InvalidFile("its parts do not lie one behind the other")
    return members


def _read_member(directory: bytes, offset: int) -> _Member:
    """Read the first member of a directory, which is to lie at `offset`."""
    if len(directory) < _CENTRAL.size:
        raise InvalidFile("its directory ends too early")
    fields = _CENTRAL.unpack_from(directory)
    checksum, length = fields[7], fields[10]
    name = directory[_CENTRAL.size : _CENTRAL.size + length].decode("latin-1")
    if not _MEMBER_NAME.fullmatch(name):
        raise InvalidFile(f"it has a part with the name {name[:100]!r}")
    sizes = directory[_CENTRAL.size + length :][: _CENTRAL_SIZES.size]
    if len(sizes) < _CENTRAL_SIZES.size:
        raise InvalidFile("its directory ends too early")
    member = _Member(name, checksum, _CENTRAL_SIZES.unpack(sizes)[2], offset)
    if not directory.startswith(member.central_header):
        raise InvalidFile(f"its directory describes {name} in a way that easyclf does not write")
    return member


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
        raise InvalidFile(f"it holds {its_kind[:100]!r}, not {kind!r}")
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


def _versions() -> dict[str, JSON]:
    packages = ("easyclf", "torch", "numpy", "scikit-learn")
    versions: dict[str, JSON] = {name: installed_version(name) for name in packages}
    return {"python": platform.python_version(), **versions}


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
