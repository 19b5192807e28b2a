"""A folder is held by one writer at a time, and by nobody once that one is gone."""

import errno
import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from easyclf.locks import LOCK_NAME, holding

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def is_free(folder):
    with holding(folder) as is_held:
        return is_held


def in_another_process(function, *args):
    """Tell whether a function answers True in a process that is forked."""
    process = os.fork()
    if not process:
        os._exit(not function(*args))
    return os.waitpid(process, 0)[1] == 0


def test_threads_keep_one_another_out(tmp_path):
    answers = []

    with holding(tmp_path) as is_held:
        thread = threading.Thread(target=lambda: answers.append(is_free(tmp_path)))
        thread.start()
        thread.join()
        assert is_held
        assert not is_free(tmp_path), "the one that was refused has let it go"

    assert answers == [False]
    assert is_free(tmp_path)


def test_processes_keep_one_another_out(tmp_path):
    with holding(tmp_path):
        assert not in_another_process(is_free, tmp_path)
        assert (tmp_path / LOCK_NAME).exists()
    assert in_another_process(is_free, tmp_path)

    assert not list(tmp_path.iterdir())


def test_other_folders_are_free(tmp_path):
    (tmp_path / "other").mkdir()

    with holding(tmp_path):
        assert is_free(tmp_path / "other")


def hold_with_a_worker(folder, write):
    """Hold a folder in a process that is killed, and whose worker lives on for a while."""
    with holding(folder):
        if not os.fork():
            time.sleep(60)
            os._exit(0)
        os.write(write, b"held")
        signal.pause()


def test_a_worker_that_outlives_its_process_does_not_keep_the_folder(tmp_path):
    read, write = os.pipe()
    process = os.fork()
    if not process:
        # Their own group, so that the worker can be ended.
        os.setpgid(0, 0)
        hold_with_a_worker(tmp_path, write)
    try:
        assert os.read(read, 4) == b"held"
        assert not is_free(tmp_path)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)

        assert (tmp_path / LOCK_NAME).exists()
        assert is_free(tmp_path)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_a_forked_process_that_leaves_by_an_error_lets_nothing_go(tmp_path):
    with suppress(ZeroDivisionError), holding(tmp_path):
        process = os.fork()
        if not process:
            raise ZeroDivisionError
        os.waitpid(process, 0)
        assert not in_another_process(is_free, tmp_path)
    if not process:
        os._exit(0)


def test_a_forked_process_holds_nothing_of_what_was_held(tmp_path):
    """It may have the folder as soon as the first one has let it go."""
    read, write = os.pipe()
    with holding(tmp_path):
        process = os.fork()
        if not process:
            os.read(read, 1)
            os._exit(not is_free(tmp_path))
    os.write(write, b"!")

    assert os.waitpid(process, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_file_that_was_removed_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    """Who had it before removed it between its opening and its locking."""
    taken, real = [], fcntl.lockf

    def remove_first(descriptor, how):
        if not taken:
            taken.append((tmp_path / LOCK_NAME).unlink())
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", remove_first)

    with holding(tmp_path) as is_held:
        assert is_held
        assert taken
        assert not in_another_process(is_free, tmp_path)


def test_without_locks_it_is_held_for_threads(tmp_path, monkeypatch):
    def fail(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", fail)

    with holding(tmp_path) as is_held:
        assert is_held
        assert not is_free(tmp_path)


def test_where_files_have_no_numbers_of_their_own_it_is_held_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "samestat", lambda first, second: False)

    with holding(tmp_path) as is_held:
        assert is_held
        assert not in_another_process(is_free, tmp_path)


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "mine")

    with pytest.raises(OSError, match=LOCK_NAME):
        is_free(tmp_path)

    assert not (tmp_path / "mine").exists()
