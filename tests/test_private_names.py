"""A private name of torch or scikit-learn may make easyclf slower: never fail, never be wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import private_names
from private_names import ALLOWED, TESTED_APART

TESTS = Path(__file__).parent
USES = sorted(set(private_names.uses()))


def process_of(home):
    """Those of a folder share a process; of the others all do."""
    return home.partition("/")[0] if home.startswith(("tape/", "data/")) else "others"


PROCESSES = sorted({process_of(home) for _, home, _ in USES if home not in TESTED_APART})


def test_private_names_are_used_only_where_there_is_a_way_round_them():
    elsewhere = [use for use in USES if use[1] not in ALLOWED.get(use[0], ())]

    assert not elsewhere, "list them in tests/private_names.py, with a way round them in the code"


def test_the_list_has_no_name_that_is_not_used():
    assert set(ALLOWED) == {name for name, _, _ in USES}


@pytest.mark.parametrize("home", PROCESSES)
def test_without_them_all_works_as_with_them(home):
    names = sorted({name for name, used_in, _ in USES if process_of(used_in) == home})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}

    ended = subprocess.run(
        [sys.executable, TESTS / "without_private_names.py", home, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
