"""The benchmark runs, and its table says what was measured."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import callbacks, measure, refusals, report, rivals, threads
from benchmarks.measure import Result, Settings, take_turns
from benchmarks.workloads import TRAININGS, Data, Training

pytestmark = pytest.mark.filterwarnings("default")  # other libraries warn as they like


def tiny(**changes):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    settings = {
        "name": "tiny",
        "data": lambda: Data(X, y, X[:20], y[:20]),
        "network": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        "epochs": 15,
        "batch_size": 20,
        "lr": 0.05,
        "layers": lambda keras: [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)],
        "hidden": (8,),
    }
    return Training(**{**settings, **changes})


@pytest.mark.parametrize("name", ["easyclf", "expert loop", "tutorial loop", "MLPClassifier"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_rival_learns(name, optimizer):
    training = tiny(optimizer=optimizer, lr=0.05 if optimizer == "adam" else 0.5)
    data = training.data()

    answer = rivals.RIVALS[name](training, data, "cpu")

    assert rivals.accuracy(answer, data) > 0.8


@pytest.mark.parametrize(
    ("name", "library"), [("skorch", "skorch"), ("Keras", "keras"), ("Lightning", "lightning")]
)
def test_rivals_that_are_not_installed_are_named(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)

    results = measure.train(tiny(), Settings([name], 1, "cpu", is_quick=True))

    assert results == [Result("tiny", name, absence="not installed")]
    assert "not installed" in report.table(results)


def test_turns_are_taken_and_the_first_one_is_not_counted():
    order = []
    runs = {name: lambda name=name: order.append(name) or name for name in ("a", "b")}

    results = take_turns("work", runs, Settings(["a", "b"], 2, "cpu", is_quick=True), len)

    assert "".join(order) == "ab" + "ba" + "ab"
    assert [len(result.values) for result in results] == [2, 2]
    assert [result.accuracy for result in results] == [1, 1]


def test_what_easyclf_took_stands_beside_what_a_rival_took():
    runs = {"easyclf": lambda: None, "other": lambda: None}

    ours, other = take_turns("work", runs, Settings(list(runs), 2, "cpu", is_quick=True))

    assert other.ours == ours.values
    assert not ours.ours


def test_lightning_comes_last_and_meets_easyclf_alone(monkeypatch):
    asked = []

    def train(training, settings):
        asked.append((training.name, tuple(settings.rivals)))
        return [Result(training.name, rival) for rival in settings.rivals]

    monkeypatch.setattr(measure, "train", train)
    settings = Settings(["easyclf", "expert loop", "Lightning"], 1, "cpu", is_quick=True)
    steps = measure.plan(["digits", "table"], settings)

    found = [result.rival for _, step in steps for result in step()]

    apart, together = ("easyclf", "expert loop"), ("easyclf", "Lightning")
    assert asked == [("digits", apart), ("table", apart), ("digits", together), ("table", together)]
    assert found == [*apart, *apart, "Lightning", "Lightning"]


def test_the_table_has_medians_ratios_and_targets():
    results = [
        Result("digits", "easyclf", [5.0, 4.0, 6.0], accuracy=0.9),
        Result("digits", "expert loop", [10.0, 10.0, 10.0], accuracy=0.9, ours=[5.0, 4.0, 6.0]),
        Result("digits", "Keras", [8.0, 8.0, 8.0], accuracy=0.9, ours=[5.0, 4.0, 6.0]),
        Result("digits", "Lightning", absence="not installed"),
    ]

    _, _, ours, expert, keras, lightning = report.table(results).splitlines()

    assert ours.startswith("| digits | easyclf | 5 (4 to 6) ms | 0.900 |")
    assert expert.endswith("| 0.5 (0.4 to 0.6) | 0.60 | yes |")
    assert keras.endswith("| 0.625 (0.5 to 0.75) | 0.50 | **no** |")
    assert "not installed" in lightning


def test_absolute_targets_are_in_the_unit_of_the_work():
    (line,) = report.table([Result("second fit of 100 rows", "easyclf", [2.0])]).splitlines()[2:]

    assert line.endswith("| 3.00 | yes |")


def test_numbers_of_threads_take_turns(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "WORKS", (threads.Work("tiny", 20, 4, (2,), -1, 1),))

    try:
        head, _, *lines = threads.table(repetitions=1)
    finally:
        torch.set_num_threads(before)

    assert head.startswith("| work | 1 thread(s), ms |")
    assert [line.split(" | ")[0] for line in lines] == [
        "| fit: tiny",
        "| predict_proba: tiny",
        "| partial_fit, 50 times: tiny",
        "| predict_proba of one row",
    ]


def test_json_and_the_picture_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    results = [Result("digits", "easyclf", [1.0]), Result("digits", "expert loop", [2.0])]

    report.draw(results, tmp_path / "picture.png")
    found = json.loads(report.as_json(results, "somewhere"))

    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert found["measured"] == "somewhere"
    assert found["results"][0]["values"] == [1.0]


def test_the_place_is_told():
    where = report.machine("cpu", 1)

    assert f"torch {torch.__version__.partition('+')[0]}" in where
    assert "1 thread(s)" in where


@pytest.mark.parametrize("training", TRAININGS.values(), ids=lambda training: training.name)
def test_every_network_takes_its_data(training):
    if training.name in ("table", "softmax regression"):
        pytest.skip("its data take a while to make")
    data = training.data()

    with torch.no_grad():
        outputs = training.network()(torch.from_numpy(data.X[:4]))

    assert outputs.shape[1] > data.y.max()


@pytest.fixture
def run(monkeypatch):
    """A function that runs the benchmark as its command does, without a process of its own."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        runpy.run_module("benchmarks", run_name="__main__")

    return run


def test_one_work_from_the_command_line(run, tmp_path, capsys):
    run(
        *("--quick", "--works", "overhead", "--repetitions", "1"),
        *("--json", str(tmp_path / "found.json")),
    )

    assert "second fit of 100 rows | easyclf" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["results"]


def test_what_is_refused_is_refused_where_the_benchmark_says(caplog):
    caplog.set_level("DEBUG", "easyclf")
    reasons = {
        "watched": "calls Tensor.item",
        "read": "sets `calls`",
        "recorded": "aten.index.Tensor, whose result",
        "tried": "a replay differs",
    }

    for found in refusals.REFUSED:
        assert refusals.seconds(found, "auto", 2, "adam") > 0
        assert reasons[found] in caplog.text
        assert "from a tape" not in caplog.text
        caplog.clear()


def test_a_refusal_is_compared_with_a_fit_that_is_not_looked_at(monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "seconds", lambda *given: asked.append(given) or len(asked))

    results = measure.refuse(Settings(["easyclf"], 1, "cpu", is_quick=True))

    assert asked[:2] == [("watched", False, 5, "rmsprop"), ("watched", "auto", 5, "rmsprop")]
    assert [len(result.values) for result in results] == [4] * 16
    assert "| 1.03 |" in report.table(results)


def test_an_unknown_work_is_named(run):
    with pytest.raises(SystemExit, match="'nonsense' is unknown; expected one of blobs"):
        run("--works", "nonsense")


def test_what_callbacks_cost_is_measured():
    found = callbacks.ratios(tiny(epochs=2), rounds=1)

    assert found.keys() == callbacks.SETS.keys()
    assert all(len(values) == 1 and values[0] > 0 for values in found.values())
