"""Every example runs as it is, on the real data where they are at hand."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from torchvision.datasets import MNIST

from easyclf import Estimator

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EASYCLF_DATA", ROOT.parent / "shared" / "data"))
EXAMPLES_FOLDER = ROOT / "examples"
# The options that make an example short, and the files that it needs.
EXAMPLES = {
    "quickstart": ([], None),
    "resume": ([], None),
    "blobs": ([], None),
    "save_and_load": ([], None),
    "circle": ([], None),
    "diabetes": (["--epochs", "300"], "pima/diabetes.csv.gz"),
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
# The epochs of examples without such an option; all of them in CI.
AT_MOST = {"quickstart": 12, "circle": 2000}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs an example in a folder of its own, and gives what it prints.

    It runs in this process: a process of its own would import for longer than most examples take.
    """

    def run(name, options=()):
        path = EXAMPLES_FOLDER / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, options)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES_FOLDER)
    monkeypatch.setenv("EASYCLF_DATA", str(DATA))
    # For those that begin processes, which share the cores with other tests.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    plt.switch_backend("Agg")
    yield run
    plt.close("all")


def fit_of(most):
    """A `fit` of so many epochs at most."""
    fit = Estimator.fit

    def short_fit(self, *args, **keywords):
        return fit(self.set_params(epochs=min(self.epochs, most)), *args, **keywords)

    return short_fit


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES_FOLDER.glob("*.py")} == {*EXAMPLES, "example_data"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, run, tmp_path, monkeypatch):
    options, needed = EXAMPLES[name]
    if name in AT_MOST and os.environ.get("CI") != "true":
        monkeypatch.setattr(Estimator, "fit", fit_of(AT_MOST[name]))
    is_there = needed and (DATA / needed).exists()
    if name == "mnist" and os.environ.get("CI") != "true":
        # An epoch of 60,000 digits takes as long as all other examples together.
        monkeypatch.setenv("EASYCLF_DATA", str(tmp_path))
        is_there = False
    if needed and needed.startswith("torchvision/"):
        if is_there:
            shutil.copytree(DATA / needed, tmp_path / Path(needed).name)
        else:
            options = options[:-2]

    printed = run(name, options)

    assert "accuracy" in printed
    assert ("stand in" in printed) is (needed is not None and not is_there)


@pytest.mark.parametrize("name", [name for name, (_, needed) in EXAMPLES.items() if needed])
def test_example_without_its_data_says_so_in_one_line(name, run, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run(name, ["--data", tmp_path / "nowhere"])

    assert "--data" in ended.value.code
    assert "\n" not in ended.value.code


def test_stand_ins_have_the_format_of_the_data(tmp_path, monkeypatch, capsys):
    """The examples run on them where the data are not at hand."""
    monkeypatch.setenv("EASYCLF_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(EXAMPLES_FOLDER)
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
