"""Imports point down: a module imports only from floors below its own."""

import ast
import sys
from pathlib import Path

import pytest

import easyclf

PACKAGE = Path(easyclf.__file__).parent
FLOORS = {
    "bedrock": ["validation", "device", "randomness", "interrupts"],
    "ground": [
        "products",
        "tape",
        "purity",
        "parameters",
        "targets",
        "metrics",
        "modules",
        "optimizers",
        "precision",
        "losses",
        "heads",
        "history",
        "decisions",
        "data",
        "capture",
        "inputs",
    ],
    "state": ["state"],
    "hooks": ["callbacks"],
    "engine": ["probing", "evaluation", "step", "trainer", "run"],
    "face": ["estimator"],
}
# Within a floor, a file may lean on those before it: the state a head, the head the targets.
ORDER = [noun for floor in FLOORS.values() for noun in floor]


def imported_nouns(path):
    """Top-level nouns of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("easyclf."):
            found.add(node.module.split(".")[1])
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


def files_of(noun):
    folder = PACKAGE / noun
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{noun}.py"]


@pytest.mark.parametrize("noun", ORDER)
def test_imports_point_down(noun):
    below = {*ORDER[: ORDER.index(noun)], noun}

    for path in files_of(noun):
        assert imported_nouns(path) <= below, path.name


def test_every_file_stands_on_a_floor():
    nouns = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}

    assert nouns - {"__init__", "__pycache__", "py.typed"} == set(ORDER)


def test_optional_packages_are_imported_where_they_are_used():
    """`import easyclf` needs its dependencies alone: optional packages stand in functions."""
    allowed = {"numpy", "scipy", "sklearn", "torch", "easyclf"}

    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            third_party = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert third_party <= allowed, path.name
