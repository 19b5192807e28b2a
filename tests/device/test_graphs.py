"""Graphs of steps, as far as a machine without one can tell: `pretend_device.capture` replays.

What it cannot tell is in `tests/tape/test_graph.py`, for machines with an NVIDIA GPU.
"""

import gc
import logging
import warnings
import weakref
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from scenarios import X, Y, network
from torch import nn

import easyclf.device
import pretend_device
from easyclf import Callback, Estimator
from easyclf.tape.graph import Graph
from pretend_device.capture import capture

DEVICE = "pretend:1"


@pytest.fixture
def captures(monkeypatch):
    """Graphs on the pretend device: the replays of each, counted."""
    replays = []

    def counted(device, work):
        replay, number = capture(device, work), len(replays)
        replays.append(0)

        def count():
            replays[number] += 1
            replay()

        return count

    monkeypatch.setitem(easyclf.device._CAPTURES, "pretend", counted)
    monkeypatch.setattr("easyclf.tape.tapes._SEEN", 2)
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 10)
    return replays


def dropping():
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 3))


def normalizing():
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def fit(module=dropping, mode="graph", X=X, y=Y, **parameters):
    settings = {"epochs": 5, "batch_size": 12, "random_state": 0, "lr": 0.02, "device": DEVICE}
    weight = parameters.pop("sample_weight", None)
    clf = Estimator(module, compile=mode, **(settings | parameters))
    return clf.fit(X, y, weight)


def check_same(captures, *, n_graphs=1, **parameters):
    """Compare a fit with graphs with one as it is written."""
    graphed = fit(**parameters)
    assert len(captures) == n_graphs
    plain = fit(mode=False, **parameters)

    for name in graphed.history_[0].keys() - {"seconds"}:
        np.testing.assert_allclose(graphed.history_[name], plain.history_[name], atol=1e-5)
    np.testing.assert_allclose(graphed.predict_proba(X), plain.predict_proba(X), atol=1e-5)
    return graphed


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"module": normalizing},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop"},
        {"clip_grad_norm": 0.1},
        {"class_weight": "balanced", "sample_weight": np.linspace(0.5, 2, 48)},
        {"validation_split": 0.25},
        {"metrics": ["f1_macro"]},
        {"freeze": "0.*"},
    ],
    ids=lambda parameters: ", ".join(parameters) or "defaults",
)
def test_a_graph_learns_what_is_learned_without_one(parameters, captures):
    check_same(captures, **parameters)

    # Two steps showed what runs and what it does; all others are replayed.
    assert captures[0] >= 12


def test_a_short_last_batch_is_played_from_a_tape(captures, caplog):
    with caplog.at_level(logging.DEBUG, logger="easyclf"):
        check_same(captures, batch_size=20, epochs=15)

    assert caplog.messages == ["Sequential is trained from a tape."] * 2
    assert captures[0] == 2 * 15 - 3


def test_rates_and_options_that_change_count(captures):
    """They are the optimizer's, which is called beside the graph."""

    class Slower(Callback):
        changes = "learning rate"

        def on_batch_end(self, state):
            for group in state.optimizer.param_groups:
                group["lr"] *= 0.95
                group["momentum"] *= 0.99

    check_same(captures, callbacks=[Slower()], optimizer="sgd", optimizer__momentum=0.9)


def test_epochs_from_a_graph_wait_no_more_than_others(captures):
    waits = []

    class Count(Callback):
        changes = "nothing"

        def on_epoch_end(self, state):
            waits.append(pretend_device.counts()["wait"])

    fit(epochs=20, callbacks=[Count()])

    per_epoch = np.diff(waits).tolist()
    assert min(per_epoch) == 2
    # The others have a use of a graph that is compared with the module: the 1st, 2nd, 4th, ... .
    assert per_epoch.count(2) >= 12


def test_figures_and_gradients_that_were_given_stay_as_they_are(captures):
    kept = []

    class Keep(Callback):
        changes = "nothing"

        def on_batch_end(self, state):
            kept.append((state.logs["loss"], state.logs["loss"].clone()))

    class KeepGradients(Callback):
        def on_epoch_end(self, state):
            gradient = state.module[0].weight.grad
            kept.append((gradient, gradient.clone()))

    fit(callbacks=[Keep(), KeepGradients()])

    assert captures[0] > 15
    assert len({float(value.sum()) for value, _ in kept}) > 20
    assert all(torch.equal(value, at_once) for value, at_once in kept)


def test_a_graph_is_made_anew_when_its_figures_have_no_more_room(captures, monkeypatch):
    monkeypatch.setattr("easyclf.tape.graph._ROWS", 8)

    check_same(captures, n_graphs=3)

    assert captures == [8, 8, 1]


def test_a_graph_that_was_made_anew_is_compared_at_once(monkeypatch):
    monkeypatch.setattr("easyclf.tape.graph._ROWS", 10)
    replays = []

    def first_alone(device, work):
        replay = capture(device, work)
        is_first = not replays
        replays.append(0)

        def play():
            replays[-1] += 1
            return replay() if is_first else None

        return play

    monkeypatch.setitem(easyclf.device._CAPTURES, "pretend", first_alone)

    with pytest.warns(UserWarning, match="A recording of Sequential did not do what"):
        fit(epochs=20)

    assert replays == [10, 1]


def test_a_weight_that_is_replaced_makes_the_graph_anew(captures):
    class Replace(Callback):
        def on_epoch_begin(self, state):
            if state.epoch == 3:
                weight = state.module[0].weight
                weight.data = weight.data.clone()

    check_same(captures, n_graphs=2, callbacks=[Replace()], epochs=8)


def test_a_graph_that_differs_begins_the_fit_again(monkeypatch):
    def wrong(device, work):
        work()
        return lambda: None

    monkeypatch.setitem(easyclf.device._CAPTURES, "pretend", wrong)
    plain = fit(mode=False, epochs=20)

    with pytest.warns(UserWarning, match="A recording of Sequential did not do what"):
        clf = fit(epochs=20)

    assert clf.history_["loss"].tolist() == plain.history_["loss"].tolist()


def test_a_graph_gives_its_memory_back(captures):
    def used():
        gc.collect()
        return pretend_device.memory(1)[0]

    before = used()
    clf = fit()
    of_adam = sum(weight.nbytes for weight in clf.module_.parameters()) * 3 + 4 * 4
    assert used() - before == of_adam

    del clf
    assert used() == before


def test_graphs_are_dropped_before_a_batch_size_is_looked_for(captures, monkeypatch):
    left = []

    class Fill(Callback):
        changes = "nothing"

        def on_batch_end(self, state):
            if state.epoch == 4:
                limits.enter_context(pretend_device.memory_limit(0, 1))

    def try_out(step, batch):
        gc.collect()
        left.append(graph() is not None)
        limits.close()

    monkeypatch.setattr("easyclf.engine.step.Step.try_out", try_out)
    graph = graph_references(monkeypatch)
    with ExitStack() as limits, pytest.raises(MemoryError, match="use batch_size=6,"):
        fit(callbacks=[Fill()])

    assert captures[0] > 5
    assert left == [False]


def graph_references(monkeypatch):
    """A function that answers with the graph that was captured last, if it is still there."""
    references = []
    made = Graph.__init__

    def note(graph, *arguments):
        references.append(weakref.ref(graph))
        made(graph, *arguments)

    monkeypatch.setattr(Graph, "__init__", note)
    return lambda: references[-1]()


# What is refused


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x.mul_(2))


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) * torch.tensor(2.0)


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) * float(x.sum() > -1e9)


class Change(Callback):
    def on_batch_end(self, state):
        pass


NONE_OF_ITS_STEPS = "none of its steps can be recorded, which needs `accumulate=1`"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"accumulate": 2}, NONE_OF_ITS_STEPS),
        ({"precision": "fp16"}, NONE_OF_ITS_STEPS),
        ({"optimizer": "lbfgs", "optimizer__max_iter": 1}, NONE_OF_ITS_STEPS),
        ({"callbacks": [Change()]}, NONE_OF_ITS_STEPS),
        ({"output": lambda outputs: outputs}, NONE_OF_ITS_STEPS),
        ({"epochs": 2}, "it takes 8 steps, and a graph pays from 12 on"),
        ({"module": InPlace}, "it changes its inputs in place"),
        ({"module": Literal}, f"it computes on cpu and {DEVICE}"),
        ({"module": Reading}, "it uses `__float__` of torch"),
        ({"batch_size": -1, "epochs": 15, "X": X[:40], "y": Y[:40]}, None),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
def test_a_step_that_cannot_be_captured_is_said_to_be_so_once(parameters, reason, captures):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = fit(**parameters)

    messages = [str(warning.message) for warning in caught]
    beginning = "`compile` is 'graph', and the training goes on without a graph: "
    assert len(messages) == (reason is not None)
    assert all(message.startswith(beginning + reason) for message in messages)
    assert len(captures) == (reason is None)
    plain = fit(mode=False, **parameters)
    np.testing.assert_allclose(clf.predict_proba(X), plain.predict_proba(X), atol=1e-5)


def test_a_capture_that_fails_leaves_the_tape(monkeypatch, caplog):
    def fail(device, work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setitem(easyclf.device._CAPTURES, "pretend", fail)
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 10)

    message = "its capture failed with RuntimeError: operation .* when stream is capturing.$"
    with (
        caplog.at_level(logging.DEBUG, logger="easyclf"),
        pytest.warns(UserWarning, match=message) as caught,
    ):
        clf = fit()

    assert len(caught) == 1
    assert "Sequential is trained from a tape." in caplog.messages
    taped = fit(mode="auto")
    assert clf.history_["loss"].tolist() == taped.history_["loss"].tolist()


def test_batches_of_ever_other_shapes_are_said_to_be_so(captures):
    class Growing(torch.utils.data.Sampler):
        def __iter__(self):
            return (range(size) for size in range(1, 9))

        def __len__(self):
            return 8

    rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(rows, batch_sampler=Growing())

    with pytest.warns(UserWarning, match="no shape of batches came often enough"):
        Estimator(network(), compile="graph", device=DEVICE, epochs=5).fit(loader)
    assert not captures


def test_a_device_without_graphs_is_refused_before_anything_is_done():
    with pytest.raises(
        ValueError, match=r"`compile` is 'graph', which needs a CUDA device.*'pretend:1'.*'auto'"
    ):
        fit()
