"""Every example runs as it is, on the real data where they are at hand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EASYCLF_DATA", ROOT.parent / "shared" / "data"))
# The options that make an example short, and the files that it needs.
EXAMPLES = {
    "quickstart": ([], None),
    "resume": ([], None),
    "blobs": ([], None),
    "save_and_load": ([], None),
    "circle": ([], None),
    "diabetes": ([], "pima/diabetes.csv.gz"),
    "titanic": ([], "titanic/train.csv"),
    "mnist": (["--epochs", "1", "--root", "."], "torchvision/MNIST"),
    "fashion_mnist": (["--root", "."], "torchvision/FashionMNIST"),
    "textbook_classifier": ([], None),
    "frames": (["--epochs", "2"], "adult/adult.data"),
    "names_rnn": (["--epochs", "1"], "names/names_train.csv.gz"),
    "images": (["--epochs", "1"], "hymenoptera/train"),
    "out_of_core": (["--gigabytes", "0.1", "--epochs", "1"], None),
}


def run(name, options, folder):
    environment = {**os.environ, "MPLBACKEND": "Agg", "EASYCLF_DATA": str(DATA)}
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / f"{name}.py", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_example_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    options, needed = EXAMPLES[name]
    if needed and not (DATA / needed).exists():
        pytest.skip(f"{needed} is not in {DATA}; point EASYCLF_DATA to the data")
    if needed and needed.startswith("torchvision/"):
        shutil.copytree(DATA / needed, tmp_path / Path(needed).name)

    ended = run(name, options, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "accuracy" in ended.stdout


@pytest.mark.parametrize("name", [name for name, (_, needed) in EXAMPLES.items() if needed])
def test_example_without_its_data_says_so_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    option = "--root" if "mnist" in name else "--data"

    ended = run(name, [option, tmp_path / "nowhere"], tmp_path)

    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert option in ended.stderr
