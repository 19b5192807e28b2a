"""Random programs train the same from a tape and as they are written."""

import os

import pytest

from tape.misleading.program import SETTINGS, Log, difference, figures
from tape.random_programs import describe, random_program

# Programs of the seeds below a number, "500", or of a range of them, "17:18".
GIVEN = os.environ.get("EASYCLF_RANDOM_PROGRAMS", "25")
SEEDS = range(*map(int, GIVEN.split(":")))
CHUNK = 25
CHUNKS = [SEEDS[start : start + CHUNK] for start in range(0, len(SEEDS), CHUNK)]
# Relative differences that rounding alone makes, and changes of the weights that test for chaos.
TOLERANCES = {"float64": (1e-9, 1e-15), "float32": (1e-3, 1e-7)}


def outcome(program, mode, perturbation=0.0):
    """What a fit leaves, or the error that ended it."""
    try:
        return figures(program.fit(mode, perturbation))
    except Exception as error:
        return {type(error).__name__: error}


def distance(first, second):
    """How far two outcomes are apart; two errors of one kind are the same."""
    if any(isinstance(value, Exception) for value in (*first.values(), *second.values())):
        return 0.0 if first.keys() == second.keys() else float("inf")
    return difference(first, second)


def is_chaotic(program, plain, found, size):
    """Whether weights that differ by rounding end as far apart, without a tape."""
    return found <= 10 * distance(outcome(program, False, size), plain)


def check(seed):
    """Say what is wrong with the program of a seed, if anything is, and whether a tape played."""
    program = random_program(seed)
    made = program.make()
    precision = made.settings.get("precision", SETTINGS["precision"])
    tolerance, size = TOLERANCES[precision]
    plain = outcome(program, False)
    with Log() as log:
        taped = outcome(program, "auto")
    found = distance(taped, plain)
    if found <= tolerance or (found < float("inf") and is_chaotic(program, plain, found, size)):
        return None, log.is_trained_from_a_tape
    fault = f"{program.name}: {found:.1e} apart; {describe(made)}; {log.lines[:3]}"
    return fault, log.is_trained_from_a_tape


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}:{seeds.stop}")
def test_random_programs_train_the_same_from_a_tape(seeds):
    """Of one seed alone: `EASYCLF_RANDOM_PROGRAMS=17:18`."""
    checked = [check(seed) for seed in seeds]

    assert [fault for fault, _ in checked if fault is not None] == []
    if len(seeds) == CHUNK:
        assert sum(is_taped for _, is_taped in checked) >= CHUNK / 3


def test_a_seed_always_makes_the_same_program():
    first, second = (outcome(random_program(3), False) for _ in range(2))

    assert distance(first, second) == 0
