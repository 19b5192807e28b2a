"""Files hold documents and tensors, and are read only if each byte is as it was written."""

import hashlib
import pickle
import random
import shutil
import subprocess
import tracemalloc
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch

from easyclf.archives import other_versions, read_archive, write_archive
from easyclf.exceptions import InvalidFile

KIND = {"kind": "trial", "version": 3}


def write(path, value=1, **settings):
    documents = {"facts": {"value": value, "nan": [float("inf")]}}
    tensors = {"weights": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True)}}
    write_archive(path, documents, tensors, **{**KIND, **settings})


@pytest.fixture
def path(tmp_path):
    """A good file, alone in its folder."""
    write(tmp_path / "a.easyclf")
    return tmp_path / "a.easyclf"


def test_documents_and_tensors_come_back(path):
    archive = read_archive(path, **KIND)

    assert archive.version == 3
    assert archive.written_by["torch"] == torch.__version__.partition("+")[0]
    assert archive.documents == {"facts": {"value": 1, "nan": [float("inf")]}}
    assert archive.tensors["weights"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert archive.tensors["weights"]["b"].dtype == torch.bool


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    write(tmp_path / "b.easyclf")

    assert path.read_bytes() == (tmp_path / "b.easyclf").read_bytes()


def test_other_tools_read_the_zip(path, tmp_path):
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["about.json", "facts.json", "weights.safetensors"]
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", path], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["torch", "numpy", "scikit-learn"])
def test_versions_count_by_their_first_two_numbers(path, name):
    written_by = read_archive(path, **KIND).written_by
    here = written_by[name]
    major, minor, *_ = here.split(".")

    assert not other_versions(written_by)
    assert not other_versions({**written_by, name: f"{major}.{minor}.99", "python": "2.7"})
    for there in (f"{major}.{minor}1.0", "0.1", None):
        assert other_versions({**written_by, name: there}) == [(name, str(there), here)]


def test_what_cannot_be_stored_is_refused_before_the_old_file_is_touched(path):
    before = path.read_bytes()

    with pytest.raises(ValueError, match="complex128"):
        write_archive(path, {}, {"w": {"w": torch.ones(1, dtype=torch.complex128)}}, **KIND)
    with pytest.raises(ValueError, match="cannot be the name of a part"):
        write_archive(path, {"../x": 1}, {}, **KIND)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


FOREIGN = {
    "empty": (b"", "it is empty"),
    "text": (b"hello\n" * 50, "no file that easyclf has written"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "looks like a picture"),
    "pickle": (pickle.dumps({"a": 1}), "looks like a pickle, which is never loaded"),
    "joblib": (zlib.compress(pickle.dumps([0] * 99)), "looks like compressed by zlib"),
    "array": (b"\x93NUMPY\x01\x00" + bytes(200), "looks like an array of NumPy"),
    "safetensors": ((2).to_bytes(8, "little") + b"{}", "which `load_weights` reads"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(tmp_path, name):
    data, words = FOREIGN[name]
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InvalidFile, match=f"'.*{name}' cannot be read: .*{words}"):
        read_archive(tmp_path / name, **KIND)


def test_files_of_torch_and_other_zips_are_refused(tmp_path):
    for name, is_zip in (("new.pt", True), ("old.pt", False)):
        torch.save({"w": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    np.savez(tmp_path / "a.npz", a=np.ones(3))

    for name in ("new.pt", "old.pt"):
        with pytest.raises(InvalidFile, match=r"a file of `torch.save`; .*`load_weights` reads it"):
            read_archive(tmp_path / name, **KIND)
    with pytest.raises(InvalidFile, match="a ZIP that easyclf has not written"):
        read_archive(tmp_path / "a.npz", **KIND)


def test_every_changed_byte_is_noticed(path, tmp_path):
    data, damaged = path.read_bytes(), tmp_path / "damaged"

    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        damaged.write_bytes(changed)
        with pytest.raises(InvalidFile, match="damaged' cannot be read"):
            read_archive(damaged, **KIND)


def test_every_file_that_was_cut_or_grew_is_refused(path, tmp_path):
    data, damaged = path.read_bytes(), tmp_path / "damaged"
    others = [data[:size] for size in range(0, len(data), 7)]

    for other in [*others, data[1:], data + b"\x00", b"#!/bin/sh\n" + data, data + data]:
        damaged.write_bytes(other)
        with pytest.raises(InvalidFile, match="damaged' cannot be read"):
            read_archive(damaged, **KIND)


def rewrite(path, parts, **settings):
    """Write a ZIP that a thoughtful attacker made: its checksums are right."""
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in parts:
            opened.writestr(name, data, **settings)
        opened.comment = bytes(64)
    content = path.read_bytes()[:-64]
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


def parts(path):
    with zipfile.ZipFile(path) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


def test_bombs_are_refused_in_little_memory(path):
    bombs = {
        "compressed": {"compress_type": zipfile.ZIP_DEFLATED},
        "stored": {"compress_type": zipfile.ZIP_STORED},
    }
    for name, settings in bombs.items():
        rewrite(path.with_name(name), [*parts(path), ("b.json", b"0" * 2**25)], **settings)
    rewrite(path.with_name("many"), [(f"{n}.json", b"0") for n in range(20_000)])

    tracemalloc.start()
    try:
        for name, words in {
            "compressed": "its parts are compressed",
            "stored": "in its part b.json, a document is too large",
            "many": "a ZIP that easyclf has not written",
        }.items():
            with pytest.raises(InvalidFile, match=words):
                read_archive(path.with_name(name), **KIND)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (("../x.json", b"1"), r"a part with the name '\.\./x\.json'"),
        (("x.py", b"1"), "a part with the name 'x.py'"),
        (("facts.json", b"1"), "two parts named facts.json"),
        (("x.json", b"{"), "in its part x.json, a JSON document is damaged"),
        (("x.safetensors", b"1"), "in its part x.safetensors, it has no header"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_parts_that_nobody_writes_are_refused(path, added, words):
    rewrite(path, [*parts(path), added])

    with pytest.raises(InvalidFile, match=words):
        read_archive(path, **KIND)


def test_a_zip_without_its_first_part_is_refused(path):
    rewrite(path, parts(path)[1:])

    with pytest.raises(InvalidFile, match="a ZIP that easyclf has not written"):
        read_archive(path, **KIND)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_zip_with_a_right_checksum_is_refused_or_read(path, seed):
    """Whoever can write a checksum gets texts and numbers read, and no error but the one."""
    data, rng = path.read_bytes()[:-64], random.Random(seed)
    for _ in range(20):
        changed = bytearray(data)
        for position in rng.choices(range(len(data)), k=rng.randint(1, 4)):
            changed[position] = rng.randrange(256)
        path.write_bytes(changed + hashlib.sha256(changed).hexdigest().encode())
        with suppress(InvalidFile):
            read_archive(path, **KIND)


def test_a_newer_format_says_so(path):
    write(path, version=4)

    with pytest.raises(InvalidFile, match=r"number 4, written by easyclf .* reads up to 3: use"):
        read_archive(path, **KIND)


def test_an_older_format_tells_its_number(path):
    write(path, version=2)

    assert read_archive(path, **KIND).version == 2


def test_another_kind_is_named(path):
    write(path, kind="checkpoint")

    with pytest.raises(InvalidFile, match="it holds 'checkpoint', not 'trial'"):
        read_archive(path, **KIND)


def test_a_number_below_the_first_is_that_of_no_format(tmp_path):
    write_archive(tmp_path / "a", {}, {}, kind="facts", version=0)

    with pytest.raises(InvalidFile, match="its format has the number 0"):
        read_archive(tmp_path / "a", kind="facts", version=1)
