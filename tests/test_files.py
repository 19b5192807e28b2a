"""Files are replaced whole or not at all, and those that cannot be read are named."""

import errno
import os
import signal
import stat
import threading

import pytest

from easyclf.exceptions import InvalidFile
from easyclf.files import check_target, check_writable, reading, replacing


def write(path, value=1):
    with replacing(path) as file:
        file.write(f"{value}\n".encode() * 5_000)


def read(path):
    """The value that was written, alike in all lines."""
    with reading(path) as (file, size):
        lines = file.read().splitlines()
        assert len(lines) == 5_000
        assert sum(len(line) + 1 for line in lines) == size
    (value,) = set(lines)
    return value.decode()


@pytest.fixture
def path(tmp_path):
    """A good file, alone in its folder."""
    write(tmp_path / "a.easyclf")
    return tmp_path / "a.easyclf"


def test_relative_paths_links_and_odd_names_are_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "true")

    for name in ("true", "link", "ü — 模型.easyclf", "n" * 255, "-", os.path.join(".", "dot")):  # noqa: PTH118
        write(name, value=name)
        assert read(name) == name

    assert (tmp_path / "link").is_symlink()
    assert read("true") == "link"


def test_a_file_keeps_its_permissions(path):
    path.chmod(0o640)

    write(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ZeroDivisionError(), OSError(28, "full")])
def test_a_failed_write_leaves_the_old_file_alone(path, fault):
    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise fault

    before = path.read_bytes()

    with pytest.raises(type(fault)):
        fail()

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def die_while_writing(path):
    """Have another process be killed while it writes the file."""
    process = os.fork()
    if not process:
        with replacing(path) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no SIGKILL")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["a.easyclf", "模" * 84])
def test_the_next_write_removes_what_a_dead_writer_has_left(tmp_path, name):
    mine = [".a.easyclf.tmp", ".b.easyclf.0123456789abcdef.tmp"]
    for other in mine:
        (tmp_path / other).write_text("mine")
    die_while_writing(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3

    write(tmp_path / name)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, name])


@pytest.mark.skipif(os.name == "nt", reason="there nothing is removed")
def test_what_others_write_meanwhile_stays(path):
    with replacing(path) as file:
        file.write(b"mine")
        write(path, value=2)
        check_writable(path)
        assert len(list(path.parent.iterdir())) == 2

    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_was_taken_for_a_dead_one_begins_again(path, monkeypatch):
    """Another process looked at its file between its making and its locking."""
    fcntl = pytest.importorskip("fcntl")
    taken, real = [], fcntl.flock

    def take_first(file, how):
        if not taken:
            (temporary,) = path.parent.glob(".*.tmp")
            taken.append(temporary)
            temporary.unlink()
        return real(file, how)

    monkeypatch.setattr(fcntl, "flock", take_first)

    write(path, value=2)

    assert taken
    assert read(path) == "2"


def test_links_that_look_like_unfinished_files_are_not_followed(path):
    (path.parent / "mine").write_text("mine")
    link = path.with_name(".a.easyclf.0123456789abcdef.tmp")
    link.symlink_to(path.parent / "mine")

    write(path, value=2)

    assert (path.parent / "mine").read_text() == "mine"


def test_the_new_name_is_flushed_with_its_folder(path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file)))

    write(path)

    assert [stat.S_ISDIR(status.st_mode) for status in flushed] == [False, True]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_told_with_the_path(path, monkeypatch, step):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(*((os, step) if step == "fsync" else (type(path), step)), fail)

    with pytest.raises(OSError, match=r"left as it was: No space left on device: '.*a\.easyclf'"):
        write(path, value=2)

    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("", FileNotFoundError, "expected the name of a file"),
        (".", IsADirectoryError, "is a folder"),
        ("missing/a.easyclf", FileNotFoundError, "there is no folder '.*missing'"),
        (b"a.easyclf", TypeError, "expected a text or a path"),
        (3, TypeError, "expected a text or a path"),
        (
            {"w": list(range(99))},
            TypeError,
            r"`path` is a dict, \{'w': .{50,60}\.\.\.; expected a text",
        ),
    ],
)
def test_impossible_targets_are_refused(tmp_path, monkeypatch, target, error, words):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error, match=words):
        check_target(target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_told(path):
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"a\.easyclf"):
            write(path)
    finally:
        path.parent.chmod(0o700)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file.*nothing"):
        read(tmp_path / "nothing")


def test_folders_and_pipes_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidFile, match="it is a folder"):
        read(tmp_path)
    with pytest.raises(InvalidFile, match="it is no file"):
        read(tmp_path / "pipe")


def test_a_reader_sees_one_whole_version_while_others_write(path):
    stop = threading.Event()

    def write_on():
        value = 0
        while not stop.is_set():
            value += 1
            write(path, value=value)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        values = [int(read(path)) for _ in range(100)]
    finally:
        stop.set()
        writer.join()

    assert values == sorted(values)
    assert list(path.parent.iterdir()) == [path]
