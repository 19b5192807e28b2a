"""One integer `random_state` is one fit, whatever stands beside it; torch's own settings too."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from easyclf import (
    AccuracyLogger,
    Callback,
    CSVLogger,
    Estimator,
    LambdaCallback,
    ProgressBar,
    TimeLimit,
)
from easyclf.determinism import deterministic_algorithms

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
LABELS = np.tile([0, 1, 2, 3], 10)


class Drawing(nn.Module):
    """Draws its weights, dropout, and noise in training."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        layers = nn.Linear(n_features, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, n_classes)
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x + 0.1 * torch.randn_like(x) if self.training else x)


class Items(Dataset):
    """Draws whenever a row is read."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, row):
        return torch.from_numpy(ROWS[row]) + 0.1 * torch.randn(4), int(LABELS[row])


class Watcher(Callback):
    """Looks at every step, and draws at the end of epochs."""

    changes = "nothing"

    def on_batch_end(self, state):
        state.logs["loss"].item()

    def on_epoch_end(self, state):
        torch.rand(3), np.random.rand(3)  # noqa: NPY002


class Scatter(nn.Linear):
    """Puts numbers where torch promises no order."""

    def __init__(self):
        super().__init__(4, 4)

    def forward(self, x):
        return super().forward(x.clone().put_(torch.tensor([0, 0]), torch.ones(2)))


def make(**parameters):
    settings = {"epochs": 3, "batch_size": 7, "lr": 0.05, "random_state": 3, "verbose": 0}
    return Estimator(Drawing, **settings | parameters)


def weights(clf):
    return [tensor.tolist() for tensor in clf.module_.state_dict().values()]


EXPECTED = weights(make().fit(ROWS, LABELS))


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"verbose": 1}, id="a bar"),
        pytest.param({"verbose": 2}, id="a table"),
        pytest.param({"verbose": "auto"}, id="a bar for who watches"),
        pytest.param({"callbacks": [AccuracyLogger(every_steps=2)]}, id="AccuracyLogger"),
        pytest.param({"callbacks": [ProgressBar()]}, id="ProgressBar"),
        pytest.param({"callbacks": [TimeLimit(1e6)]}, id="TimeLimit"),
        pytest.param({"callbacks": [CSVLogger("history.csv")]}, id="CSVLogger"),
        pytest.param({"callbacks": [Watcher()]}, id="a callback that says so"),
        pytest.param({"callbacks": [LambdaCallback(on_batch_end=repr)]}, id="one that does not"),
        pytest.param({"metrics": ["f1_macro"]}, id="metrics"),
        pytest.param({"compile": False}, id="no tape"),
        pytest.param({"deterministic": True}, id="deterministic"),
    ],
)
def test_what_only_watches_changes_no_weight(parameters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.rand(7), np.random.rand(7)  # noqa: NPY002

    clf = make(**parameters).fit(ROWS, LABELS, validation_data=(ROWS, LABELS))

    assert weights(clf) == EXPECTED


def test_a_tape_is_played_with_the_weights_of_a_fit_without():
    fits = [
        make(compile=is_compiled, callbacks=callbacks, epochs=60).fit(ROWS, LABELS)
        for is_compiled in ("auto", False)
        for callbacks in ([], [Watcher()])
    ]

    assert all(weights(clf) == weights(fits[0]) for clf in fits)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_the_number_of_workers_changes_no_weight(n_workers):
    expected = weights(make(epochs=1).fit(Items()))

    assert weights(make(epochs=1, loader__num_workers=n_workers).fit(Items())) == expected


# torch's own settings.


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize("callers", [(False, False, True), (True, True, False)])
def test_torch_is_asked_for_the_time_of_a_fit_and_of_a_prediction(callers):
    """The module tells what it runs under."""
    seen = set()

    class Telling(Drawing):
        def forward(self, x):
            seen.add(settings())
            return super().forward(x)

    before = settings()
    clf = Estimator(Telling, epochs=1, deterministic=True, random_state=0)
    try:
        torch.use_deterministic_algorithms(callers[0], warn_only=callers[1])
        torch.backends.cudnn.benchmark = callers[2]
        for call in (clf.fit, clf.score, clf.evaluate, clf.partial_fit):
            seen.clear()
            call(ROWS, LABELS)
            assert seen == {(True, False, False)}
            assert settings() == callers
        seen.clear()
        clf.predict_proba(ROWS)
        assert seen == {(True, False, False)}
        seen.clear()
        clf.set_params(deterministic=False).predict(ROWS)
        assert seen == {callers}
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]


def test_an_operation_without_a_deterministic_way_is_an_error_of_torchs(random_states):
    """T29: `put_` is one on every device."""
    before = random_states(), settings()

    with pytest.raises(RuntimeError, match=r"put_.*deterministic") as raised:
        Estimator(Scatter, epochs=1, deterministic=True).fit(ROWS, LABELS)

    assert "`deterministic` is True" in raised.value.__notes__[-1]
    assert (random_states(), settings()) == before
    assert Estimator(Scatter, epochs=1).fit(ROWS, LABELS).score(ROWS, LABELS) >= 0


def test_other_errors_say_nothing_of_it():
    with pytest.raises(RuntimeError) as raised, deterministic_algorithms(True):
        raise RuntimeError("broken")

    assert not hasattr(raised.value, "__notes__")


def test_blocks_that_threads_leave_in_any_order_leave_the_settings_as_they_were():
    before = settings()
    first, second = deterministic_algorithms(True), deterministic_algorithms(True)
    thread = threading.Thread(target=first.__enter__)
    thread.start()
    thread.join()

    second.__enter__()
    first.__exit__(None, None, None)
    is_on = torch.are_deterministic_algorithms_enabled()
    second.__exit__(None, None, None)

    assert is_on
    assert settings() == before


@pytest.mark.gpu
def test_deterministic_fits_on_a_gpu_are_equal_bit_for_bit(monkeypatch):
    """Without it the gradient of an embedding is added up in any order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    tokens = np.random.default_rng(0).integers(0, 3, size=(5000, 20))
    labels = np.arange(5000) % 4

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(3, 64), nn.Linear(64, 4)

        def forward(self, x):
            return self.linear(self.embedding(x).mean(1))

    fits = [
        Estimator(Words, epochs=5, deterministic=True, random_state=0, device="cuda")
        for _ in range(3)
    ]

    assert len({str(weights(clf.fit(tokens, labels))) for clf in fits}) == 1
