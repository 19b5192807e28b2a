"""Tensors in the safetensors format, as the package of that name reads and writes them."""

import json

import pytest
import safetensors.torch
import torch

from easyclf.exceptions import InvalidFile
from easyclf.safetensors import read_tensors, write_tensors

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16),
    *(torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64),
]


def written(tensors, **metadata):
    return write_tensors(tensors, metadata)


def with_header(header, numbers=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def same(tensor, other):
    is_alike = tensor.dtype == other.dtype and tensor.shape == other.shape
    numbers = [t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, other)]
    return is_alike and torch.equal(*numbers)


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_come_back(dtype, shape):
    tensor = (torch.randn(shape) * 3).abs().to(dtype)

    tensors, _ = read_tensors(written({"w": tensor}))

    assert same(tensors["w"], tensor)
    tensors["w"].zero_()  # the memory can be written to


def test_views_come_back_in_their_own_order():
    base = torch.arange(12.0).reshape(3, 4)
    views = {"t": base.t(), "part": base[1:, ::2], "one": base[0, :1].expand(5)}
    views["complex"] = torch.tensor([1 + 2j])
    views["conjugate"] = views["complex"].conj()
    views["negative"] = views["conjugate"].imag

    tensors, _ = read_tensors(written(views))

    assert all(torch.equal(tensors[name], view) for name, view in views.items())


def test_the_package_reads_what_is_written():
    tensors = {str(dtype): torch.ones(3, 2).to(dtype) for dtype in DTYPES}

    theirs = safetensors.torch.load(written(tensors, format="pt"))

    assert tensors.keys() == theirs.keys()
    assert all(same(theirs[name], tensor) for name, tensor in tensors.items())


def test_tensors_are_read_in_the_order_of_their_names():
    names = [f"layer{number}" for number in range(20)]
    data = write_tensors({name: torch.ones(1) for name in reversed(names)})

    assert list(read_tensors(data)[0]) == sorted(names)


def test_what_the_package_writes_is_read():
    tensors = {"a": torch.randn(3), "b": torch.tensor(True), "c": torch.ones(2, 0)}

    ours, metadata = read_tensors(safetensors.torch.save(tensors, {"format": "pt"}))

    assert all(same(ours[name], tensor) for name, tensor in tensors.items())
    assert metadata == {"format": "pt"}


def test_tied_tensors_are_written_once_and_come_back_tied():
    weight = torch.randn(100)

    data = written({"a": weight, "b": weight.detach(), "c": weight.clone()}, note="x")
    tensors, metadata = read_tensors(data)

    assert len(data) < 1200
    assert tensors["a"] is tensors["b"]
    assert tensors["a"] is not tensors["c"]
    assert metadata == {"note": "x"}


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(2, dtype=torch.complex128), "complex128"),
        (torch.eye(2).to_sparse(), "`w` is of layout torch.sparse"),
        (torch.ones(2, device="meta"), "`w` is without numbers"),
    ],
    ids=lambda part: part if isinstance(part, str) else "tensor",
)
def test_what_the_format_has_no_word_for_is_refused(tensor, words):
    with pytest.raises(ValueError, match=words):
        written({"w": tensor})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no header"),
        (bytes(8), "no header"),
        (b"\xff" * 8, "too long"),
        ((9).to_bytes(8, "little") + b"{}", "too long"),
        ((2**30).to_bytes(8, "little") + bytes(100), "too long"),
        (with_header([]), "no object"),
        (with_header({"__metadata__": []}), "no object"),
        (with_header({"__metadata__": {"a": 1}}), "damaged"),
        (with_header({"w": 1}), "damaged"),
        (with_header({"w": {"dtype": "U8"}}), "damaged"),
        (with_header({"w": entry("Q8")}, bytes(4)), "damaged"),
        (with_header({"w": entry(shape=[5])}, bytes(4)), "damaged"),
        (with_header({"w": entry(shape=[-4])}, bytes(4)), "damaged"),
        (with_header({"w": entry(shape=[4.0])}, bytes(4)), "damaged"),
        (with_header({"w": entry(shape=[10**9, 10**9])}, bytes(4)), "damaged"),
        (with_header({"w": entry(shape=[0, 2**62, 2**62], offsets=(0, 0))}), "damaged"),
        (with_header({"w": entry()}, bytes(5)), "damaged"),
        (with_header({"w": entry(offsets=(1, 5))}, bytes(5)), "damaged"),
        (with_header({"v": entry(), "w": entry()}, bytes(4)), "damaged"),
        (with_header({"w": entry()}, bytes(3)), "damaged"),
        (with_header({"w": entry("BOOL")}, b"\x00\x01\x02\x00"), "bools has other numbers"),
        (with_header(b'{"w": 1, "w": 1}'), "a name twice"),
        (with_header(b"[" * 10**5), "too deep"),
    ],
)
def test_anything_else_is_refused(data, reason):
    with pytest.raises(InvalidFile, match=reason):
        read_tensors(data)
