"""How a module wants its inputs: integers, the order of dimensions, the layout in memory."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator
from easyclf.modules import prefers_channels_last

IMAGES = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)
LABELS = np.arange(24) % 2
CPU = torch.device("cpu")


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(144, 2),
    )


class Viewing(nn.Module):
    """Flattens its features by `view`, which wants them one channel after the other."""

    def __init__(self):
        super().__init__()
        self.layers = convolutions()[:3]
        self.last = nn.Linear(144, 2)

    def forward(self, x):
        return self.last(self.layers(x).view(len(x), -1))


class Noting(nn.Module):
    """Notes how its inputs lie in memory."""

    def __init__(self):
        super().__init__()
        self.layers = convolutions()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.layers(x)


def by_hand(network, epochs):
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    X, y = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X), y).backward()
        optimizer.step()
    return network


def estimator(network, **parameters):
    keywords = {"optimizer": "sgd", "lr": 0.1, "epochs": 4, "batch_size": -1, "random_state": 0}
    return Estimator(network, **{**keywords, **parameters})


def test_images_lie_channels_last_where_convolutions_like_it():
    clf = estimator(Noting()).fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS))
    clf.predict(IMAGES)

    assert all(clf.module_.seen)
    assert clf.module_.layers[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("network", [convolutions(), Viewing()], ids=["flatten", "view"])
def test_channels_last_changes_no_figure(network):
    clf = estimator(network).fit(IMAGES, LABELS)

    for ours, theirs in zip(
        clf.module_.parameters(), by_hand(network, 4).parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_module_that_views_its_features_keeps_the_usual_layout():
    clf = estimator(Viewing()).fit(IMAGES, LABELS)

    assert clf.module_.layers[0].weight.is_contiguous()
    assert clf.predict(IMAGES).shape == (24,)


@pytest.mark.parametrize(
    ("module", "device", "n_numbers", "prefers"),
    [
        (nn.Conv2d(2, 4, 4), CPU, 4, True),  # 128 weights
        (nn.Conv2d(2, 4, 4), CPU, 3, False),
        (nn.Conv2d(2, 4, 4), torch.device("cuda"), 10**6, False),
        (nn.Linear(4, 4), CPU, 10**6, False),
        (nn.Conv1d(2, 4, 4), CPU, 10**6, False),
        (nn.Sequential(nn.Conv2d(2, 4, 4), nn.LazyLinear(3)), CPU, 10**6, False),
    ],
)
def test_channels_last_is_for_convolutions_with_few_weights(module, device, n_numbers, prefers):
    assert prefers_channels_last(module, device, n_numbers) is prefers


class Adding(nn.Module):
    """Adds what it is given by name, and notes the types."""

    def __init__(self, with_embedding):
        super().__init__()
        self.embedding = nn.Embedding(5, 4) if with_embedding else None
        self.last = nn.Linear(4, 2)
        self.seen = []

    def forward(self, numbers, tokens):
        self.seen.append((numbers.dtype, tokens.dtype))
        if self.embedding is not None:
            tokens = self.embedding(tokens)
        return self.last(numbers + tokens)


@pytest.mark.parametrize(
    ("with_embedding", "expected"), [(True, torch.int64), (False, torch.float32)]
)
def test_integers_stay_integers_where_they_are_looked_up(with_embedding, expected):
    numbers = np.ones((24, 4))
    tokens = np.arange(24, dtype=np.int16) % 5
    tokens = tokens if with_embedding else np.repeat(tokens[:, None], 4, axis=1)

    clf = Estimator(Adding, module__with_embedding=with_embedding, epochs=1)
    clf.fit({"numbers": numbers, "tokens": tokens}, LABELS)

    assert set(clf.module_.seen) == {(torch.float32, expected)}


def test_the_error_of_a_module_says_what_it_was_called_with():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        estimator(nn.Linear(3, 2)).fit(np.ones((24, 4)), LABELS)

    assert caught.value.__notes__ == [
        "easyclf called Linear.forward with a batch of shape (3, 4) and dtype torch.float32. "
        "Linear takes 3 numbers a row, and was given 4."
    ]


def test_probing_leaves_rows_and_buffers_alone():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.norm(x.mul_(2)))

    X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    before = X.copy()

    clf = Estimator(Changing(), epochs=1, batch_size=-1).fit(X, LABELS)

    np.testing.assert_array_equal(X, before)
    assert clf.module_.norm.num_batches_tracked == 1


def test_a_token_beyond_the_embedding_is_named():
    tokens = np.arange(24)[:, None]
    module = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(4, 2))

    with pytest.raises(IndexError) as caught:
        Estimator(module, epochs=1, batch_size=-1).fit(tokens, LABELS)

    assert any(
        "tokens are 0 to 23" in note and "[20] rows" in note for note in caught.value.__notes__
    )


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [(20, IndexError, "tokens are 20 to"), (0.5, RuntimeError, "tokens of an integer dtype")],
)
@pytest.mark.parametrize("method", ["fit", "predict", "score", "validate"])
def test_what_is_no_token_is_named_wherever_it_comes(method, more, error, words):
    tokens, labels = np.arange(20)[:, None], LABELS[:20]
    module = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(4, 2))
    clf = Estimator(module, epochs=1, batch_size=-1).fit(tokens, labels)
    calls = {
        "fit": lambda rows: clf.fit(rows, labels),
        "predict": clf.predict,
        "score": lambda rows: clf.score(rows, labels),
        "validate": lambda rows: clf.fit(tokens, labels, validation_data=(rows, labels)),
    }

    with pytest.raises(error) as caught:
        calls[method](tokens + more)

    assert any(words in note for note in caught.value.__notes__)


def test_rows_that_come_only_once_are_refused():
    with pytest.raises(TypeError, match="zip, which can be gone through only once"):
        Estimator().fit(zip([[1.0]], [0], strict=True))
