"""The safetensors format: a JSON header, and behind it the numbers of named tensors.

The package of that name reads a whole file or bytes in memory; here tensors are streamed into a
part of a file and out of it, so each is in memory once. The format is described at
https://huggingface.co/docs/safetensors/index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch

from easyclf.device import HOST
from easyclf.documents import JSON, MOST_BYTES, read_document, write_document
from easyclf.exceptions import InvalidFile

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Texts of the writer's. As the package's `save_model` does it, they have the further names of a
# tensor that has several, each with the name under which its numbers are.
_METADATA = "__metadata__"
_LENGTH_BYTES = 8
# No dimension of a shape, and no product of them, is larger; torch counts in 64 bits.
_LARGEST = 2**62


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class Stream(Protocol):
    """What bytes are read from."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None: ...


class _Entry(NamedTuple):
    """A tensor in the header; `begin` and `end` count bytes behind the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def write_tensors(
    sink: Sink, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any shapes and devices in the safetensors format.

    Parameters
    ----------
    sink : file open for writing
        It is written to from where it stands.
    tensors : mapping of str to Tensor
        What has two names is written once.
    metadata : mapping of str to str, default=None
        Further texts in the header.

    Raises
    ------
    ValueError
        If the format has no word for the dtype of a tensor, or a tensor is sparse or quantized.
    """
    ties = tied_names(tensors)
    header: dict[str, JSON] = {_METADATA: {**(metadata or {}), **ties}}
    end = 0
    # The numbers of large dtypes come first, so that all are aligned in the file.
    names = sorted(tensors.keys() - ties.keys(), key=lambda n: (-tensors[n].dtype.itemsize, n))
    for name in names:
        tensor = tensors[name]
        _check_writable(name, tensor)
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    if not header[_METADATA]:
        del header[_METADATA]
    text = write_document(header)
    text += b" " * (-len(text) % 8)
    sink.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
    sink.write(text)
    for name in names:
        sink.write(_bytes_of(tensors[name]))


def read_tensors(stream: Stream, size: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `write_tensors` or another writer of the format has written.

    Parameters
    ----------
    stream : file open for reading
        It is read from where it stands.
    size : int
        Bytes to read. They bound the memory that is used.

    Returns
    -------
    tensors : dict of str to Tensor of any shape
        On the host, in new memory. Tied names have the same tensor.
    metadata : dict of str to str
        The further texts in the header, those of tied names left out.

    Raises
    ------
    InvalidFile
        If this is no safetensors, or a damaged one.
    """
    if size < _LENGTH_BYTES:
        raise InvalidFile("it is too short for safetensors")
    length = int.from_bytes(read_exactly(stream, _LENGTH_BYTES), "little")
    if length > min(size - _LENGTH_BYTES, MOST_BYTES):
        raise InvalidFile(f"a safetensors header of {length} bytes is too long for it")
    header = read_document(bytes(read_exactly(stream, length)))
    entries, metadata = _read_header(header, size - _LENGTH_BYTES - length)
    tensors = {entry.name: _read_tensor(stream, entry) for entry in entries}
    ties = {name: kept for name, kept in metadata.items() if kept in tensors}
    tensors |= {name: tensors[kept] for name, kept in ties.items() if name not in tensors}
    return tensors, {name: text for name, text in metadata.items() if name not in ties}


def read_exactly(stream: Stream, size: int) -> bytearray:
    """Read so many bytes.

    Raises
    ------
    InvalidFile
        If fewer are there.
    """
    data = bytearray(size)
    view, n_read = memoryview(data), 0
    while n_read < size:
        n_now = stream.readinto(view[n_read:])
        if not n_now:
            raise InvalidFile("it ends too early")
        n_read += n_now
    return data


def tied_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Find the names of tensors of any shapes that have an earlier name too, each with that."""
    names: dict[tuple[object, ...], str] = {}
    ties = {}
    for name, tensor in tensors.items():
        is_dense = tensor.layout is torch.strided and tensor.numel() > 0
        memory = (tensor.device, tensor.data_ptr()) if is_dense else id(tensor)
        reading = (tensor.dtype, tensor.shape, tensor.is_conj(), tensor.is_neg())
        strides = tensor.stride() if is_dense else None
        earlier = names.setdefault((memory, strides, *reading), name)
        if earlier != name:
            ties[name] = earlier
    return ties


def _check_writable(name: str, tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_meta:
        kind = "without numbers" if tensor.is_meta else f"of layout {tensor.layout}"
        raise ValueError(
            f"The tensor `{name}` is {kind}; safetensors hold dense tensors with numbers only."
        )
    if tensor.dtype not in _NAMES:
        raise ValueError(
            f"The tensor `{name}` has dtype {tensor.dtype}, which safetensors have no word for; "
            f"they have {', '.join(str(dtype) for dtype in _NAMES)}."
        )


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The numbers of a tensor of any shape as bytes, in the order of its dimensions."""
    plain = tensor.detach().to(HOST).resolve_conj().resolve_neg().contiguous()
    # One number is contiguous under any stride, but no bytes to torch.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8).numpy().data


def _read_header(header: JSON, n_bytes: int) -> tuple[list[_Entry], dict[str, str]]:
    """Read the entries, in the order of their numbers, and the texts of the writer's."""
    if not isinstance(header, dict):
        raise InvalidFile("its safetensors header is no object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict):
        raise InvalidFile("the metadata of its safetensors are no object")
    texts = {name: text for name, text in metadata.items() if isinstance(text, str)}
    if len(texts) < len(metadata):
        raise InvalidFile("the metadata of its safetensors are no texts")
    entries = [_read_entry(name, described) for name, described in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    ends = [0, *(entry.end for entry in entries)]
    if ends[:-1] != [entry.begin for entry in entries] or ends[-1] != n_bytes:
        raise InvalidFile("its tensors do not lie one behind the other")
    return entries, texts


def _read_entry(name: str, described: JSON) -> _Entry:
    match described:
        case {"dtype": str(word), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            sizes = tuple(size for size in shape if type(size) is int and 0 <= size <= _LARGEST)
        case _:
            raise InvalidFile(f"the tensor {name[:100]!r} is not described")
    dtype = _DTYPES.get(word)
    if dtype is None:
        raise InvalidFile(f"the tensor {name[:100]!r} has an unknown dtype, {word[:100]!r}")
    is_possible = (
        len(sizes) == len(shape) <= 64
        and math.prod(max(size, 1) for size in sizes) <= _LARGEST
        and begin >= 0
        and end - begin == math.prod(sizes) * dtype.itemsize
    )
    if not is_possible:
        raise InvalidFile(f"the tensor {name[:100]!r} has an impossible shape")
    return _Entry(name, dtype, sizes, begin, end)


def _read_tensor(stream: Stream, entry: _Entry) -> torch.Tensor:
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype, device=HOST)
    data = read_exactly(stream, entry.end - entry.begin)
    numbers = torch.frombuffer(data, dtype=torch.uint8)
    if entry.dtype is torch.bool and (numbers > 1).any():
        raise InvalidFile(f"the tensor {entry.name[:100]!r} of bools has other numbers")
    return numbers.view(entry.dtype).reshape(entry.shape)
