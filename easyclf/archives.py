"""The files of easyclf: a ZIP of JSON documents and safetensors, with a checksum.

All members are stored without compression, so a file takes no more memory than twice its size. The
comment of the ZIP, its last bytes, is the SHA-256 of all bytes before it: who changes one of them
is noticed, unless they mean to be believed; what they can do then is said in `read_archive`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version as installed_version
from io import BufferedRandom, BufferedReader
from typing import NamedTuple

import torch

from easyclf.documents import JSON, MOST_BYTES, read_document, write_document
from easyclf.exceptions import InvalidFile
from easyclf.files import PathLike, reading, replacing
from easyclf.safetensors import read_tensors, write_tensors

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
# The head of a member (4.3.7), which its name follows.
_MEMBER = struct.Struct("<26xH2x")
# Bytes of the list of members, so many that nobody needs more: it is read before it is checked.
_LONGEST_LIST = 2**18
_CHUNK = 2**20
# Packages whose versions can change answers, and how many numbers of a version have to be the
# same: the last one counts repairs.
COMPARED, _COMPARED_NUMBERS = ("torch", "numpy", "scikit-learn"), 2
# Who reads the kinds of files.
_READERS = {
    "estimator": "; `Estimator.load` reads it",
    "checkpoint": "; `fit` with `Checkpoint(folder)` among `callbacks` reads it",
}
_OF_TORCH = "a file of `torch.save`; if it is a state dict, `load_weights` reads it"
# How files of other kinds begin.
_BEGINNINGS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", _OF_TORCH),  # of torch before 1.6
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
    beginning = file.read(_MEMBER.size)
    if beginning.startswith(b"PK\x03\x04"):
        name_size = _MEMBER.unpack(beginning)[0] if len(beginning) == _MEMBER.size else 0
        if file.read(name_size).endswith(b"/data.pkl"):
            raise InvalidFile(f"it is {_OF_TORCH}")
        return
    looks = next((kind for first, kind in _BEGINNINGS if beginning.startswith(first)), None)
    if looks is None and beginning[8:9] == b"{":
        looks = "safetensors, which `load_weights` reads"
    like = "" if looks is None else f"; it looks like {looks}"
    raise InvalidFile(f"it is no file that easyclf has written{like}")


@cache
def _versions() -> dict[str, str]:
    """The versions of what writes; it takes milliseconds to look them up."""
    versions = {name: installed_version(name) for name in ("easyclf", *COMPARED)}
    return {"python": platform.python_version(), **versions}


class OtherVersion(NamedTuple):
    """A package of which a file names another version than is installed.

    Attributes
    ----------
    name : str
        The package.
    there, here : str
        Its version in the file, and the installed one.
    """

    name: str
    there: str
    here: str


def other_versions(
    written_by: Mapping[str, JSON], packages: Sequence[str] = COMPARED
) -> list[OtherVersion]:
    """List the packages of which a file names another version than is installed.

    Parameters
    ----------
    written_by : mapping of str to JSON
        The versions that the file names.
    packages : sequence of str, default=("torch", "numpy", "scikit-learn")
        Those that are compared; "easyclf" may be among them.

    Returns
    -------
    others : list of OtherVersion
        Those that differ in one of the first two numbers.
    """
    pairs = [OtherVersion(n, str(written_by.get(n))[:50], _versions()[n]) for n in packages]
    return [other for other in pairs if _release(other.there) != _release(other.here)]


def show_versions(others: Sequence[OtherVersion]) -> tuple[str, str]:
    """Name packages with their versions in a file, and with the installed ones."""
    there = ", ".join(f"{other.name} {other.there}" for other in others)
    return there, ", ".join(f"{other.name} {other.here}" for other in others)


def _release(version: str) -> list[str]:
    return version.split(".")[:_COMPARED_NUMBERS]
