"""The oldest versions that `.ci/run` runs are those that pyproject.toml promises."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(path):
    """A file that is no module of a package."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def oldest():
    return load(ROOT / ".ci" / "oldest.py")


@pytest.mark.parametrize(
    ("requirement", "constraint"),
    [
        ("torch>=2.6", "torch==2.6.*"),
        ("numpy>=2", "numpy==2.0.*"),
        ("safetensors>=0.4.5", "safetensors==0.4.5"),
        ("easyclf[plot,frames]", None),
    ],
)
def test_a_lower_bound_becomes_the_oldest_series(oldest, requirement, constraint):
    assert oldest.oldest(requirement) == constraint


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch>=2.6,<3"])
def test_a_requirement_without_a_lower_bound_is_refused(oldest, requirement):
    with pytest.raises(ValueError, match="says no oldest version"):
        oldest.oldest(requirement)


@pytest.fixture
def tests_of_devices(tmp_path, monkeypatch):
    """The hooks of these tests, where there is no compiler."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return load(ROOT / "tests" / "device" / "conftest.py")


def test_devices_are_always_tested_in_ci(tests_of_devices, monkeypatch):
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.exit.Exception, match="g\\+\\+") as ended:
        tests_of_devices.pytest_collection_modifyitems([])

    assert ended.value.returncode == 1


def test_devices_are_not_tested_by_hand_without_a_compiler(tests_of_devices, monkeypatch, request):
    monkeypatch.setenv("CI", "")

    tests_of_devices.pytest_collection_modifyitems([request.node])

    assert "needs g++" in request.node.get_closest_marker("skip").kwargs["reason"]


def test_all_that_is_needed_to_run_and_to_test_is_constrained(oldest, capsys):
    oldest.main()

    names = {line.partition("==")[0] for line in capsys.readouterr().out.splitlines()}
    assert {"numpy", "scikit-learn", "torch", "torchvision", "polars", "pytest"} <= names
