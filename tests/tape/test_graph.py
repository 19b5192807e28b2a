"""Graphs on real devices; `tests/device/test_graphs.py` has what a pretend one can show."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

import easyclf.device
from easyclf import Callback, Estimator
from easyclf.data import Batch
from easyclf.device import graph_capture
from easyclf.tape.absent import NoTapes
from easyclf.tape.graph import Graph, Graphs

RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 32)
X = (RNG.normal(scale=0.5, size=(96, 6)) + 3 * np.eye(3, 6)[Y]).astype(np.float32)


def fit(module, mode="graph", X=X, **parameters):
    settings = {"epochs": 12, "batch_size": 8, "random_state": 0, "device": "cuda"}
    return Estimator(module, compile=mode, **(settings | parameters)).fit(X, Y)


# Without one


def test_a_device_without_graphs_is_refused_with_what_to_type():
    message = r"`compile` is 'graph', which needs a CUDA device, and the device is 'cpu'; use"

    with pytest.raises(ValueError, match=message + r" compile='auto', or device='cuda' on a mach"):
        fit(nn.Linear(6, 3), device="cpu")


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setitem(easyclf.device._CAPTURES, "cpu", lambda device, work: work)
    return Graphs(torch.device("cpu"))


def test_without_what_recordings_need_there_are_no_graphs(graphs):
    with pytest.warns(UserWarning, match="without a graph: this version of torch lacks what reco"):
        NoTapes(nn.Linear(3, 2), None, graphs=graphs)


def test_a_refusal_is_said_once(graphs):
    with pytest.warns(UserWarning, match="goes on without a graph: it is too short.$"):
        graphs.refuse("it is too short")

    # A second warning would be an error.
    graphs.refuse("it is too long")
    graphs.report()


# On a GPU


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.last = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.cells(x.reshape(len(x), 3, 2))[0][:, -1])


MODULES = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Linear(16, 3)),
    "normalization": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    ),
    "recurrent": Recurrent,
}


@pytest.fixture
def replays(monkeypatch):
    counts = []

    def counted(device, work):
        replay, number = capture(device, work), len(counts)
        counts.append(0)

        def count():
            counts[number] += 1
            replay()

        return count

    capture = easyclf.device._CAPTURES["cuda"]
    monkeypatch.setitem(easyclf.device._CAPTURES, "cuda", counted)
    return counts


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("module", MODULES)
def test_a_graph_on_a_gpu_learns_what_is_learned_without_one(module, optimizer, replays):
    graphed = fit(MODULES[module], optimizer=optimizer)
    plain = fit(MODULES[module], False, optimizer=optimizer)

    assert len(replays) == 1
    assert replays[0] > 100
    np.testing.assert_allclose(graphed.history_["loss"], plain.history_["loss"], atol=1e-4)
    np.testing.assert_allclose(graphed.predict_proba(X), plain.predict_proba(X), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "parameters",
    [
        {"precision": "bf16"},
        {"clip_grad_norm": 0.1},
        {"class_weight": "balanced"},
        {"metrics": ["f1_macro"]},
        {"validation_split": 0.25, "epochs": 16},
    ],
    ids=lambda parameters: ", ".join(parameters),
)
def test_settings_count_under_a_graph_on_a_gpu(parameters, replays):
    graphed = fit(MODULES["dropout"], **parameters)
    plain = fit(MODULES["dropout"], False, **parameters)

    assert replays[0] > 100
    atol = 0.05 if "precision" in parameters else 1e-3
    np.testing.assert_allclose(graphed.history_["loss"], plain.history_["loss"], atol=atol)


@pytest.mark.gpu
def test_a_graph_on_a_gpu_draws_as_the_seed_says_and_leaves_no_trace(replays):
    before = torch.cuda.get_rng_state().tolist()

    losses = [fit(MODULES["dropout"]).history_["loss"].tolist() for _ in range(2)]

    assert losses[0] == losses[1]
    assert len(replays) == 2
    assert torch.cuda.get_rng_state().tolist() == before


@pytest.mark.gpu
def test_a_loader_that_pins_memory_in_a_thread_does_not_disturb_a_capture(replays):
    rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(rows, 8, num_workers=1, pin_memory=True)

    clf = Estimator(MODULES["linear"], compile="graph", device="cuda", epochs=12).fit(loader)

    assert replays[0] > 100
    assert np.isfinite(clf.history_["loss"]).all()


@pytest.mark.gpu
def test_a_graph_on_a_gpu_does_not_wait():
    device = torch.device("cuda", 0)
    weight = torch.randn(6, 3, device=device)

    def tape(x, y, weights):
        loss = (x @ weight).log_softmax(1).gather(1, y[:, None]).mean()
        return (loss, len(x)), [x.mT @ x]

    rows = Batch(torch.from_numpy(X).to(device), torch.from_numpy(Y).to(device), None)
    graph = Graph(tape, rows, [weight], graph_capture(device))
    others = rows._replace(x=rows.x.flip(0))

    torch.cuda.set_sync_debug_mode("error")
    try:
        answers = [graph(*batch) for batch in (rows, others, rows)]
    finally:
        torch.cuda.set_sync_debug_mode("default")

    for ((loss, n_rows), _), batch in zip(answers, (rows, others, rows), strict=True):
        torch.testing.assert_close(loss, tape(*batch)[0][0])
        assert n_rows == 96


@pytest.mark.gpu
def test_a_graph_on_a_gpu_gives_its_memory_back():
    def used():
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    fit(MODULES["linear"])  # libraries keep some memory from their first use on
    before = used()

    fit(MODULES["linear"])

    assert used() == before


@pytest.mark.gpu
def test_rates_that_change_count_beside_a_graph_on_a_gpu(replays):
    class Slower(Callback):
        changes = "learning rate"

        def on_batch_end(self, state):
            state.optimizer.param_groups[0]["lr"] *= 0.97

    graphed, plain = (
        fit(MODULES["linear"], mode, callbacks=[Slower()]) for mode in ("graph", False)
    )

    assert replays[0] > 100
    np.testing.assert_allclose(graphed.history_["loss"], plain.history_["loss"], atol=1e-4)


def test_nothing_is_captured_of_a_training_that_is_never_recorded(network, blobs):
    clf = Estimator(network, compile="graph", deterministic=True)

    with pytest.raises(ValueError, match=r"'graph' and `deterministic` is True.*compile='auto'"):
        clf.fit(*blobs)
