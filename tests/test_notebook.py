"""What is seen in a notebook: bars, live pictures, tables; a kernel runs every cell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from sklearn.utils.fixes import parse_version

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
CELLS = {
    "begin": """
import numpy as np
from sklearn.datasets import load_iris
from torch import nn
from easyclf import Estimator, LivePlot, ProgressBar, TrainingDisplay

X, y = load_iris(return_X_y=True)
settings = {"epochs": 3, "validation_split": 0.2, "random_state": 0, "verbose": 0}
""",
    "bar": """
clf = Estimator(callbacks=[ProgressBar()], **settings).fit(X, y)
print(f"val_loss={clf.history_['val_loss'][-1]:.4f}")
""",
    "nested": """
from sklearn.model_selection import cross_val_score
from tqdm.auto import tqdm
for lr in tqdm([0.1, 0.2], desc="rates"):
    cross_val_score(Estimator(callbacks=[ProgressBar()], **settings), X, y, cv=2)
""",
    "short": "Estimator(epochs=3).fit(X, y).n_iter_",
    "live": "clf.set_params(callbacks=[LivePlot(every=1)]).fit(X, y).n_iter_",
    "estimator": "clf",
    "history": "clf.history_",
    "summary": "clf.summary()",
    "display": "import matplotlib; _ = TrainingDisplay.from_estimator(clf)",
}
RUN = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell, by its name."""
    folder = tmp_path_factory.mktemp("notebook")
    path = folder / "all.ipynb"
    cells = [
        {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "id": name}
        | {"execution_count": None}
        for name, source in CELLS.items()
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "default",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder),
    }
    environment.pop("MPLBACKEND", None)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, path],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    done = json.loads(path.read_text())["cells"]
    return {cell["id"]: cell["outputs"] for cell in done}


def text(outputs, stream):
    parts = [part["text"] for part in outputs if part.get("name") == stream]
    return "".join("".join(part) for part in parts)


def shown(outputs, kind):
    data = [part["data"][kind] for part in outputs if kind in part.get("data", {})]
    return ["".join(part) for part in data]


def test_the_bar_stays_with_the_figures_of_the_last_epoch(outputs):
    bar = text(outputs["bar"], "stderr")
    last = bar.rstrip("\n").split("\r")[-1].splitlines()[-1]

    assert "epoch 3/3: 100%" in last
    assert text(outputs["bar"], "stdout").strip() in last


def test_nothing_warns(outputs):
    for name, parts in outputs.items():
        assert "Warning" not in text(parts, "stderr"), name


def test_below_another_bar_bars_go_when_they_are_full(outputs):
    lines = text(outputs["nested"], "stderr").split("\r")[-1].splitlines()

    assert [line for line in lines if "rates: 100%" in line]
    assert not [line for line in lines if "epoch" in line]


def test_a_short_fit_is_silent(outputs):
    assert text(outputs["short"], "stderr") == ""


def test_the_live_picture_changes_in_place(outputs):
    assert len(shown(outputs["live"], "image/png")) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("estimator", ["sk-top-container", "Module: MLP", "<polyline"]),
        ("history", ["History of 3 epochs", "<polyline"]),
        ("summary", ["<table", "layers.0"]),
    ],
)
def test_the_last_line_of_a_cell_is_shown_as_html(name, words, outputs):
    (html,) = shown(outputs[name], "text/html")

    assert all(word in html for word in words)


@pytest.mark.skipif(
    parse_version(mpl.__version__) < parse_version("3.9"),
    reason="the first picture of a notebook is shown with the second one",
)
def test_a_display_is_shown_once(outputs):
    assert len(shown(outputs["display"], "image/png")) == 1
