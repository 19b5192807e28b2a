"""JSON documents of files, written and read in bounded memory."""

from __future__ import annotations

import json
from typing import TypeAlias

from easyclf.exceptions import InvalidFile

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

# Documents that take 16 MB, or have so many values, take up to 150 MB of memory.
MOST_BYTES = 2**24
_MOST_VALUES = 2**19


def write_document(document: JSON) -> bytes:
    """Write a JSON document as ASCII; NaN and infinities are written as Python's `json` does.

    Raises
    ------
    ValueError
        If it is too large to be read again.
    """
    data = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if _is_large(data):
        raise ValueError(
            f"A document of {len(data)} bytes is too large for a file of easyclf, which takes "
            f"{MOST_BYTES} bytes and {_MOST_VALUES} values."
        )
    return data


def read_document(data: bytes) -> JSON:
    """Read a JSON document of UTF-8.

    Raises
    ------
    InvalidFile
        If it is none, is too large or too deep, or has a name twice.
    """
    if _is_large(data):
        raise InvalidFile("a JSON document is too large")
    try:
        document: JSON = json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError:
        raise InvalidFile("a JSON document is too deep") from None
    except ValueError as error:  # also of the decoding
        if isinstance(error, InvalidFile):
            raise
        raise InvalidFile("a JSON document is damaged") from error
    return document


def _is_large(data: bytes) -> bool:
    # Each value but the last of a list or an object ends with a comma.
    return len(data) > MOST_BYTES or sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES


def _without_doubles(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise InvalidFile("a JSON document has a name twice")
    return named
