"""Every example runs as it is, on the real data where they are at hand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from torchvision.datasets import MNIST

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
    "mnist": (["--epochs", "1", "--data", "."], "torchvision/MNIST"),
    "fashion_mnist": (["--data", "."], "torchvision/FashionMNIST"),
    "textbook_classifier": ([], None),
    "training_display": ([], None),
    "learning_rate_display": ([], None),
    "live_plot": ([], None),
    "frames": (["--epochs", "2"], "adult/adult.data"),
    "names_rnn": (["--epochs", "1"], "names/names_train.csv.gz"),
    "images": (["--epochs", "1"], "hymenoptera/train"),
    "export_onnx": ([], None),
    "explain": ([], None),
    "out_of_core": (["--gigabytes", "0.1", "--epochs", "1"], None),
}


def run(name, options, folder):
    environment = {**os.environ, "MPLBACKEND": "Agg", "EASYCLF_DATA": str(DATA)}
    # The processes of the tests share the cores: more threads would wait for one another.
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / f"{name}.py", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_example_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, "example_data"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    options, needed = EXAMPLES[name]
    is_there = needed and (DATA / needed).exists()
    if needed and needed.startswith("torchvision/"):
        if is_there:
            shutil.copytree(DATA / needed, tmp_path / Path(needed).name)
        else:
            options = options[:-2]

    ended = run(name, options, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "accuracy" in ended.stdout
    assert ("stand in" in ended.stdout) is (needed is not None and not is_there)


@pytest.mark.parametrize("name", [name for name, (_, needed) in EXAMPLES.items() if needed])
def test_example_without_its_data_says_so_in_one_line(name, tmp_path):
    ended = run(name, ["--data", tmp_path / "nowhere"], tmp_path)

    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "--data" in ended.stderr


def test_stand_ins_have_the_format_of_the_data(tmp_path, monkeypatch, capsys):
    """The examples run on them where the data are not at hand."""
    monkeypatch.setenv("EASYCLF_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(ROOT / "examples")
    import example_data

    for name in example_data.STAND_INS:
        path = example_data.find(name)
        assert path.exists()
        assert tmp_path not in path.parents
    assert capsys.readouterr().out.count("stand in") == len(example_data.STAND_INS)
    MNIST(path, download=False)
    passengers = pd.read_csv(example_data.find("titanic/train.csv"))
    assert {"Age", "Sex", "Embarked", "Survived"} <= set(passengers)
    assert passengers["Age"].isna().any()
