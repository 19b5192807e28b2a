"""The table of lines says how many there are, and no row is longer here than elsewhere."""

import os
import sys

import matplotlib as mpl
import pytest
import torch
from sklearn.utils.fixes import parse_version

from benchmarks import lines

TASKS = lines.tasks()


def test_the_table_is_what_is_counted():
    assert lines.table() in lines.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_code_of_all_and_ours_is_the_shortest(task):
    codes = TASKS[task]
    n_lines = {library: lines.count(code) for library, code in codes.items()}

    assert n_lines.keys() == {*lines.LIBRARIES}
    assert n_lines["easyclf"] == min(n_lines.values()) > 0


def test_statements_count_however_they_are_broken_but_imports_do_not():
    code = (
        "import os\n\n# why\nx = f(\n    1,\n    2,\n)\nfor _ in y:\n    from a import b\n    z()\n"
    )

    assert lines.count(code) == 3


@pytest.mark.skipif(
    parse_version(torch.__version__) < parse_version("2.7"),
    reason="torch's own schedules warn of one another",
)
def test_the_code_by_hand_runs(tmp_path, monkeypatch):
    """That of easyclf runs with the other pages."""
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")

    errors = {task: error for task, error in lines.run("by hand") if error}

    assert not errors


def test_code_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(lines, "tasks", lambda: {"divide": {"skorch": "1 / 0"}})
    monkeypatch.setitem(lines._IMPORTS, "skorch", "")

    ((task, error),) = lines.run("skorch")

    assert task == "divide"
    assert "ZeroDivisionError" in error


def test_the_command_prints_the_table_or_runs_the_code(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lines"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    lines.main()
    assert capsys.readouterr().out == f"{lines.table()}\n"

    monkeypatch.setattr(lines, "run", lambda library: iter([(library, None)]))
    monkeypatch.setattr(sys, "argv", ["lines", "--run", "keras", "hand"])
    lines.main()
    assert capsys.readouterr().out == "keras: Keras: runs\nhand: by hand: runs\n"
