"""Programs written to mislead a recording: a tape changes nothing, or there is none."""

import importlib

import pytest
import torch

from tape.misleading.program import LONG, WORTHWHILE, Log, difference, figures

FILES = (
    "values_read",
    "rewriting",
    "code_not_read",
    "code_elsewhere",
    "state_not_compared",
    "state_in_values",
    "changes_unannounced",
    "optimizers",
    "optimizer_groups",
    "hooks",
    "modes",
    "names_of_inputs",
    "overlooked",
)
FAMILIES = [importlib.import_module(f"tape.misleading.{file}").PROGRAMS for file in FILES]
MISLEADING = {name: program for family in FAMILIES for name, program in family.misleading.items()}
HONEST = {name: program for family in FAMILIES for name, program in family.honest.items()}
# Honest programs that older torch computes by the values: its gradient of `clamp` compares them.
HONEST_SINCE = {"A: a clamp at a tensor": (2, 7)}


@pytest.fixture(autouse=True)
def _tapes_are_worthwhile_soon(monkeypatch):
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", WORTHWHILE)


def assert_the_same(program):
    """Both fits leave the same figures and weights, but for rounding."""
    with Log() as log:
        taped = figures(program.fit("auto"))

    assert difference(taped, figures(program.fit(False))) < 1e-9, log.lines
    return log


@pytest.mark.parametrize("name", MISLEADING)
def test_a_misleading_program_trains_as_it_is_written(name):
    assert_the_same(MISLEADING[name])


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_is_played_from_a_tape(name):
    log = assert_the_same(HONEST[name])

    if torch.__version__ < HONEST_SINCE.get(name, (0, 0)):
        pytest.skip("this torch reads values for it")
    assert log.is_trained_from_a_tape, log.lines
    if HONEST[name].settings == LONG:
        assert log.is_evaluated_from_a_tape, log.lines
    assert not [line for line in log.lines if "as it is" in line]


def test_every_cause_has_programs_of_both_kinds():
    for cause in "ABCDEFGHI":
        assert sum(name.startswith(f"{cause}: ") for name in MISLEADING) >= 15
        assert sum(name.startswith(f"{cause}: ") for name in HONEST) >= 5
    assert len(MISLEADING) >= 150
    assert len(HONEST) >= 60
