"""Trainings that are killed at any moment, and end as if they had not been.

`EASYCLF_KILLS=50` kills so many at random moments, as before a release.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
N_KILLS = int(os.environ.get("EASYCLF_KILLS", "3"))
# Functions of `os` in which a process that writes is killed.
WRITING = ["fsync", "replace", "unlink"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no SIGKILL")
def test_a_training_that_is_killed_at_any_moment_ends_as_one_that_is_not(tmp_path):
    """Bit for bit: weights and history, and no file of a dead writer stays."""
    script = ROOT / "tests" / "killed_runs.py"
    wanted = [f"any={N_KILLS}", *(f"{name}={max(1, N_KILLS // 10)}" for name in WRITING)]
    ended = subprocess.run(
        [sys.executable, "-W", "error", script, tmp_path, "0", *wanted],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    print(found)

    assert {moments: counts["others"] for moments, counts in found.items()} == {
        moments: [] for moments in ["any", *WRITING]
    }
    assert found["any"]["killed"] == N_KILLS
    assert all(found[name]["killed"] for name in WRITING)
    assert found["fsync"]["writing"], "none was killed while it wrote"
