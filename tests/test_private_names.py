"""A private name of torch or scikit-learn may make easyclf slower: never fail, never be wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import private_names
from private_names import ALLOWED

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def uses():
    return sorted(set(private_names.uses()))


def process_of(home):
    """Those of the tapes have a process, and the others: each imports torch."""
    return "tape" if home.startswith("tape/") else "others"


def test_private_names_are_used_only_where_there_is_a_way_round_them(uses):
    elsewhere = [use for use in uses if use[1] not in ALLOWED.get(use[0], ())]

    assert not elsewhere, "list them in tests/private_names.py, with a way round them in the code"


def test_the_list_has_no_name_that_is_not_used(uses):
    assert set(ALLOWED) == {name for name, _, _ in uses}


@pytest.mark.parametrize("process", ["tape", "others"])
def test_without_them_all_works_as_with_them(process):
    homes_of_names = {
        f"{name}={'data' if home.startswith('data/') else process}"
        for name, homes in ALLOWED.items()
        for home in homes
        if process_of(home) == process
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}

    ended = subprocess.run(
        [sys.executable, TESTS / "without_private_names.py", *sorted(homes_of_names)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
