"""Imports point down and through doors, without a cycle; files and functions stay small."""

import ast
import graphlib
import importlib
import re
import sys

import pytest

import measure_code
from measure_code import PACKAGE

FLOORS = {
    "bedrock": [
        "exceptions",
        "checks",
        "constraints",
        "vocabulary",
        "device",
        "threads",
        "randomness",
        "determinism",
        "documents",
        "safetensors",
        "locks",
        "files",
        "archives",
        "run",
    ],
    "ground": [
        "nested",
        "snapshots",
        "displays",
        "sketches",
        "history",
        "constructors",
        "parameters",
        "targets",
        "decisions",
        "losses",
        "output_kinds",
        "output_choice",
        "heads",
        "reordering",
        "standardization",
        "mlp",
        "modules",
        "weights",
        "codec",
        "optimizers",
        "precision",
        "metrics",
        "data",
    ],
    "state": ["state", "summary"],
    "hooks": ["callbacks"],
    "engine": ["tape", "engine", "export"],
    "face": ["predictor", "presenter", "pretrained", "saving", "exportable", "estimator"],
}
# Within a floor, a file may lean on those before it: the head on the losses.
ORDER = [noun for floor in FLOORS.values() for noun in floor]
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path):
    """Dotted names of the files of the package that a file imports, lazily too."""
    for node in ast.walk(measure_code.trees()[path]):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("easyclf") for alias in node.names), path
        if not isinstance(node, ast.ImportFrom):
            continue
        assert not node.level, f"{path.relative_to(PACKAGE)} has a relative import"
        if node.module == "easyclf":
            yield from (f"easyclf.{alias.name}" for alias in node.names)
        elif (node.module or "").startswith("easyclf."):
            yield node.module


def noun_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def show(path):
    return str(path.relative_to(PACKAGE))


def test_imports_point_down():
    above = {}
    for path in FILES:
        below = {*ORDER[: ORDER.index(noun_of(path))], noun_of(path)}
        above[show(path)] = {name for name in imports(path) if name.split(".")[1] not in below}

    assert not {path: names for path, names in above.items() if names}, "imports from above"


def test_folders_are_entered_through_their_doors():
    passed = [
        f"{show(path)}: {name}"
        for path in FILES
        for name in imports(path)
        if name.count(".") > 1 and name.split(".")[1] != noun_of(path)
    ]

    assert not passed, "imports past a door"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_door_says_what_it_lets_through(folder):
    door = importlib.import_module(f"easyclf.{folder}")
    used = set()
    for path in [*FILES, PACKAGE / "__init__.py"]:
        for node in ast.walk(measure_code.trees()[path]):
            if isinstance(node, ast.ImportFrom) and node.module == f"easyclf.{folder}":
                used |= {alias.name for alias in node.names}

    let_through = set(vars(door)) - {"annotations", "__builtins__"}
    assert used <= let_through
    assert set(door.__all__) <= used, "nobody outside needs these"


def test_no_imports_go_in_a_circle():
    graph = {}
    for path in FILES:
        name = ".".join(["easyclf", *path.relative_to(PACKAGE).with_suffix("").parts])
        graph[name.removesuffix(".__init__")] = set(imports(path))

    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_every_file_stands_on_a_floor():
    nouns = {path.stem for path in PACKAGE.glob("*.py")} | set(FOLDERS)

    assert nouns - {"__init__"} == set(ORDER)


def test_the_page_has_every_file_once_and_the_floors_in_their_order():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"^```text\n(face .*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    lines = re.findall(r"^([a-z]* +)(\w+)(/|\.py)  ", tree, re.MULTILINE)
    indent = len(lines[0][0])
    folders = [name for place, name, kind in lines if kind == "/"]

    assert re.findall(r"^[a-z]+", tree, re.MULTILINE) == [*reversed(FLOORS)]
    assert [name for place, name, _ in lines if len(place) == indent] == [*reversed(ORDER)]
    # Those of `data/` are listed where kinds of data are.
    listed = sorted(name for place, name, _ in lines if len(place) > indent)
    assert listed == sorted(
        path.stem
        for folder in set(folders) - {"data"}
        for path in (PACKAGE / folder).glob("*.py")
        if path.stem != "__init__"
    )


KINDS_OF_DEVICES = {"cpu", "cuda", "hip", "hpu", "ipu", "meta", "mps", "mtia", "npu", "xla", "xpu"}


def device_types(tree):
    """Kinds of devices that the code names, in texts of their own or as modules of torch's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.partition(":")[0] in KINDS_OF_DEVICES:
                yield node.value
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            inner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            names = KINDS_OF_DEVICES - {"cpu"} | {"accelerator"}
            if inner in ("torch", "backends") and node.attr in names:
                yield f"{inner}.{node.attr}"


def test_one_file_names_kinds_of_devices():
    named = {show(path): set(device_types(measure_code.trees()[path])) for path in FILES}

    assert [path for path, kinds in named.items() if kinds] == ["device.py"], named


def test_optional_packages_are_imported_where_they_are_used():
    """`import easyclf` needs its dependencies alone: optional packages stand in functions."""
    allowed = {"numpy", "scipy", "sklearn", "torch", "safetensors", "easyclf"}

    for path in PACKAGE.rglob("*.py"):
        for node in measure_code.trees()[path].body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            third_party = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert third_party <= allowed, path.name


@pytest.mark.parametrize(
    ("measure", "most"),
    [(measure_code.functions, 50), (measure_code.files, 600), (measure_code.classes, 560)],
    ids=["functions", "files", "classes"],
)
def test_nothing_grows_too_long(measure, most):
    long = sorted((size, name) for size, name in measure() if size > most)

    assert not long


def test_annotations_say_what_they_mean():
    assert measure_code.bare_any_share() <= 0.05


def test_public_functions_on_tensors_say_shapes():
    assert not list(measure_code.tensor_functions_without_shapes())


def test_the_way_from_fit_to_the_step_is_short():
    eager = measure_code.way_of_an_eager_batch()

    assert len(eager) <= 7, eager
    assert sum(eager.values()) <= 1700, eager
