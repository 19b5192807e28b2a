"""Tensors as bytes in the safetensors format, by the package of that name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from easyclf.device import HOST
from easyclf.documents import JSON, MOST_BYTES, read_document
from easyclf.exceptions import InvalidFile

# Texts of the writer's. As the package's `save_model` does it, they have the further names of a
# tensor that has several, each with the name under which its numbers are.
_METADATA = "__metadata__"
_LENGTH_BYTES = 8


def write_tensors(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Write tensors of any shapes and devices in the safetensors format.

    Parameters
    ----------
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
    plain = {name: _plain(name, tensors[name]) for name in tensors if name not in ties}
    texts = {**(metadata or {}), **ties}
    try:
        return save(plain, texts or None)
    except (SafetensorError, KeyError, ValueError) as error:
        dtypes = sorted({str(tensor.dtype) for tensor in plain.values()})
        raise ValueError(
            f"The package safetensors cannot write these tensors, which have "
            f"{', '.join(dtypes)}: {error}."
        ) from error


def read_tensors(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `write_tensors` or another writer of the format has written.

    Returns
    -------
    tensors : dict of str to Tensor of any shape
        On the host, in new memory, by their sorted names. Tied names have the same tensor.
    metadata : dict of str to str
        The further texts in the header, those of tied names left out.

    Raises
    ------
    InvalidFile
        If this is no safetensors, or a damaged one.
    """
    metadata = _read_metadata(data)
    try:
        tensors = load(data)
    except Exception as error:  # of several classes, with the versions of the package
        raise InvalidFile(f"its tensors are damaged: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype is torch.bool and (tensor.view(torch.uint8) > 1).any():
            raise InvalidFile(f"the tensor {name[:100]!r} of bools has other numbers")
    ties = {name: kept for name, kept in metadata.items() if kept in tensors}
    tensors |= {name: tensors[kept] for name, kept in ties.items() if name not in tensors}
    # The package gives them in another order each time, and errors list the first ones.
    tensors = {name: tensors[name] for name in sorted(tensors)}
    return tensors, {name: text for name, text in metadata.items() if name not in ties}


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


def _plain(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor of any shape on the host, in memory that no other one shares."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        kind = "without numbers" if tensor.is_meta else f"of layout {tensor.layout}"
        raise ValueError(
            f"The tensor `{name}` is {kind}; safetensors hold dense tensors with numbers only."
        )
    plain = tensor.detach().to(HOST).resolve_conj().resolve_neg().contiguous()
    is_whole = plain.untyped_storage().nbytes() == plain.nbytes
    return plain if is_whole else plain.clone()


def _read_metadata(data: bytes) -> dict[str, str]:
    """The texts of the writer's, which the package tells only of files."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if not 0 < length <= min(len(data) - _LENGTH_BYTES, MOST_BYTES):
        raise InvalidFile("it has no header of safetensors, or one that is too long")
    header = read_document(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    texts: JSON = header.get(_METADATA, {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict):
        raise InvalidFile("its header of safetensors is no object, or its metadata are none")
    return {name: text for name, text in texts.items() if isinstance(text, str)}
