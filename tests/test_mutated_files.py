"""Files that are damaged at random are refused by easyclf's own error, or load, in bounded memory.

`EASYCLF_MUTATIONS=10000 python -m pytest tests/test_mutated_files.py` tries so many.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

MUTATIONS = int(os.environ.get("EASYCLF_MUTATIONS", "130"))
SEED = 0


def test_damaged_files_raise_one_error_in_little_memory():
    script = Path(__file__).with_name("mutated_files.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    ended = subprocess.run(
        [sys.executable, script, str(MUTATIONS), str(SEED)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (\w+)", ended.stdout)}
    assert counts["refused"] + counts["loaded"] == MUTATIONS
    assert counts["refused"] > MUTATIONS / 2
