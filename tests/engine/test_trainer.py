"""The loop: what it computes is what a loop written by hand computes."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import EarlyStopping, Estimator, TrainingDiverged
from easyclf.engine.trainer import Trainer


def estimator(network, **parameters):
    keywords = {
        "optimizer": "sgd",
        "lr": 0.1,
        "epochs": 3,
        "batch_size": 10,
        "shuffle": False,
        "random_state": 0,
    }
    return Estimator(network, **{**keywords, **parameters})


def train_by_hand(network, X, y, optimizer, epochs, batches):
    """The loop that everybody writes; its mean loss and accuracy over the rows of each epoch."""
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    losses, accuracies = [], []
    network.train()
    for _ in range(epochs):
        total = hits = 0
        for start, stop in batches:
            outputs = network(X[start:stop])
            loss = F.cross_entropy(outputs, y[start:stop])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * (stop - start)
            hits += (outputs.argmax(1) == y[start:stop]).sum().item()
        losses.append(total / len(X))
        accuracies.append(hits / len(X))
    return losses, accuracies


def weights(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


class Counting(nn.Module):
    """Keeps a moving mean in a buffer that it makes anew in every training pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.network(x - self.mean)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.99)}),
        (torch.optim.AdamW, {"lr": 0.01}),
    ],
)
@pytest.mark.parametrize(
    ("batch_size", "batches"),
    [
        (10, [(0, 10), (10, 20), (20, 30)]),
        (8, [(0, 8), (8, 16), (16, 24), (24, 30)]),
        (29, [(0, 29), (29, 30)]),
        (-1, [(0, 30)]),
        (1000, [(0, 30)]),
    ],
)
def test_a_fit_is_the_loop_written_by_hand_bit_for_bit(
    optimizer, settings, fused, batch_size, batches, blobs, network
):
    by_hand = copy.deepcopy(network)
    losses, accuracies = train_by_hand(
        by_hand, *blobs, optimizer(by_hand.parameters(), fused=fused, **settings), 3, batches
    )

    clf = estimator(
        network,
        optimizer=optimizer,
        batch_size=batch_size,
        optimizer__fused=fused,
        **{"lr" if name == "lr" else f"optimizer__{name}": v for name, v in settings.items()},
    ).fit(*blobs)

    assert weights(clf.module_) == weights(by_hand)
    assert clf.history_["loss"].tolist() == pytest.approx(losses, rel=1e-6)
    assert clf.history_["accuracy"].tolist() == accuracies


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: nn.Sequential(nn.BatchNorm1d(4), network),
        lambda network: nn.Sequential(network, nn.BatchNorm1d(3, momentum=None)),
        Counting,
    ],
)
@pytest.mark.parametrize("with_validation", [False, True])
def test_what_a_module_remembers_is_of_the_training_batches_only(
    wrap, with_validation, blobs, network
):
    """Looking at the module before training, and validating it, leave no trace in its buffers."""
    module = wrap(network)
    by_hand = copy.deepcopy(module)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, fused=True)
    train_by_hand(by_hand, *blobs, optimizer, 3, [(0, 10), (10, 20), (20, 30)])

    clf = estimator(module, optimizer__fused=True).fit(
        *blobs, validation_data=blobs if with_validation else None
    )

    assert weights(clf.module_) == weights(by_hand)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_with_batch_normalization_a_last_batch_of_one_row_joins_the_one_before(
    as_dataset, blobs, network
):
    X, y = blobs[0][:29], blobs[1][:29]
    module = nn.Sequential(nn.BatchNorm1d(4), network)
    by_hand = copy.deepcopy(module)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, fused=True)
    losses, _ = train_by_hand(by_hand, X, y, optimizer, 3, [(0, 14), (14, 29)])
    data = [TensorDataset(torch.from_numpy(X), torch.from_numpy(y))] if as_dataset else [X, y]

    clf = estimator(module, batch_size=14, optimizer__fused=True).fit(*data)

    assert weights(clf.module_) == weights(by_hand)
    assert clf.history_["loss"].tolist() == pytest.approx(losses, rel=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_rows_when_the_last_batch_is_short(blobs, network):
    """Nothing is learned here, so that each row has its loss of the beginning."""
    X, y = torch.from_numpy(blobs[0]), torch.from_numpy(blobs[1])

    clf = estimator(network, lr=1e-30, batch_size=29, epochs=1).fit(*blobs)

    outputs = network(X).double()
    means = [F.cross_entropy(outputs[rows], y[rows]).item() for rows in (slice(29), slice(29, 30))]
    (loss,) = clf.history_["loss"]
    assert loss == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-6)
    assert loss != pytest.approx(np.mean(means), rel=1e-3)
    assert clf.history_["accuracy"][0] == (outputs.argmax(1) == y).double().mean().item()


def test_weighted_figures_are_weighted_means_over_all_rows(blobs, network):
    X, y = torch.from_numpy(blobs[0]), torch.from_numpy(blobs[1])
    weight = np.linspace(0.1, 3.0, 30)

    clf = estimator(network, lr=1e-30, batch_size=8, epochs=1).fit(
        *blobs, weight, validation_data=(*blobs, weight[::-1])
    )

    outputs = network(X).double()
    losses = F.cross_entropy(outputs, y, reduction="none").detach().numpy()
    hits = (outputs.argmax(1) == y).numpy()
    (row,) = clf.history_
    assert row["loss"] == pytest.approx(np.average(losses, weights=weight), rel=1e-6)
    assert row["accuracy"] == pytest.approx(np.average(hits, weights=weight), rel=1e-6)
    assert row["val_loss"] == pytest.approx(np.average(losses, weights=weight[::-1]), rel=1e-6)
    assert row["val_accuracy"] == pytest.approx(np.average(hits, weights=weight[::-1]), rel=1e-6)


def test_validation_figures_are_of_the_weights_after_the_epoch(blobs, network):
    X, y = torch.from_numpy(blobs[0]), torch.from_numpy(blobs[1])

    clf = estimator(network).fit(X[:20], y[:20], validation_data=(X[20:], y[20:]))

    outputs = clf.module_(X[20:])
    loss = F.cross_entropy(outputs, y[20:]).item()
    assert clf.history_["val_loss"][-1] == pytest.approx(loss, rel=1e-6)
    assert clf.history_["val_accuracy"][-1] == clf.score(X[20:], y[20:])


@pytest.mark.parametrize("n_rows", [1, 7, 3001])
def test_the_validation_accuracy_is_the_score_for_any_number_of_rows(n_rows):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n_rows, 400)).astype(np.float32), rng.integers(0, 2, n_rows)
    X_train, y_train = rng.normal(size=(20, 400)).astype(np.float32), np.arange(20) % 2

    clf = estimator(nn.Linear(400, 2), epochs=1).fit(X_train, y_train, validation_data=(X, y))

    assert clf.history_["val_accuracy"][-1] == clf.score(X, y)
    assert clf.evaluate(X, y)["accuracy"] == clf.score(X, y)


def test_validation_does_not_change_what_is_learned(blobs, network):
    module = nn.Sequential(nn.Dropout(0.5), network)

    alone, watched = (
        estimator(module, shuffle=True).fit(*blobs, validation_data=data) for data in (None, blobs)
    )

    assert weights(alone.module_) == weights(watched.module_)


class Notes(nn.Module):
    """Notes the rows of each batch by their first number, and how it is called."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.batches, self.modes = [], []

    def forward(self, x):
        self.batches.append((self.training, x[:, 0].tolist()))
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        return self.linear(x)

    def trained(self):
        """The batches of the training, without those that looked at the module beforehand."""
        return [rows for training, rows in self.batches[2:] if training]


NUMBERS = np.arange(12, dtype=np.float32)[:, None]


def trained_rows(**parameters):
    clf = Estimator(Notes, lr=1e-3, batch_size=4, epochs=2, **parameters)
    return clf.fit(NUMBERS, np.arange(12) % 2).module_.trained()


def test_unshuffled_rows_come_in_order_in_every_epoch():
    assert trained_rows(shuffle=False) == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_shuffled_epoch_has_every_row_once_and_each_epoch_its_own_order():
    first, second = np.split(np.ravel(trained_rows(random_state=0)), 2)

    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()
    assert first.tolist() != sorted(first)


def test_the_order_is_that_of_the_random_state():
    assert trained_rows(random_state=0) == trained_rows(random_state=0)
    assert trained_rows(random_state=0) != trained_rows(random_state=1)


def test_predictions_come_in_large_batches_without_gradients():
    clf = Estimator(Notes, lr=1e-3, batch_size=2, epochs=1).fit(NUMBERS, np.arange(12) % 2)
    clf.module_.batches, clf.module_.modes = [], []

    clf.predict_proba(np.arange(500, dtype=np.float32)[:, None])

    assert [len(rows) for _, rows in clf.module_.batches] == [500]
    assert clf.module_.modes == [(False, True)]


@pytest.mark.parametrize("sizes", [[500], [1, 7, 492], 250 * [2]])
def test_probabilities_do_not_depend_on_how_rows_are_grouped(sizes, network):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    clf = estimator(network, epochs=1).fit(X, np.arange(500) % 3)

    parts = [clf.predict_proba(part) for part in np.split(X, np.cumsum(sizes)[:-1])]

    np.testing.assert_allclose(np.concatenate(parts), clf.predict_proba(X), rtol=1e-5)


def test_weights_count_as_repeated_rows(blobs, network):
    X, y = blobs
    times = np.arange(30) % 4

    weighted, repeated = (
        estimator(network, batch_size=-1, precision="float64", epochs=5).fit(*data)
        for data in ((X, y, times), (np.repeat(X, times, axis=0), np.repeat(y, times)))
    )

    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-10)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(weighted.history_[name], repeated.history_[name], rtol=1e-10)


def test_rows_of_weight_zero_are_as_if_they_were_not_there(blobs, network):
    X, y = blobs
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.2), network)
    weight = np.arange(30) % 3 * 0.5
    counted = weight > 0

    given, removed = (
        estimator(module, classes=[0, 1, 2], shuffle=True, batch_size=8).fit(*data)
        for data in ((X, y, weight), (X[counted], y[counted], weight[counted]))
    )

    assert weights(given.module_) == weights(removed.module_)
    assert given.history_["loss"].tolist() == removed.history_["loss"].tolist()
    assert given.history_["accuracy"].tolist() == removed.history_["accuracy"].tolist()


def test_weights_that_are_all_one_are_no_weights(blobs, network):
    plain, weighted = (
        estimator(network, precision="float64").fit(*blobs, weight)
        for weight in (None, np.ones(30))
    )

    np.testing.assert_allclose(
        weighted.predict_proba(blobs[0]), plain.predict_proba(blobs[0]), rtol=1e-12
    )


@pytest.mark.parametrize("as_loader", [False, True])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_dataset_trains_as_its_arrays_do(as_loader, is_weighted, blobs, network):
    weight = (np.linspace(0.5, 2, 30),) if is_weighted else ()
    dataset = TensorDataset(*map(torch.from_numpy, (*blobs, *weight)))
    data = DataLoader(dataset, batch_size=10) if as_loader else dataset

    clf = estimator(network, batch_size="auto" if as_loader else 10).fit(data)

    expected = estimator(network).fit(*blobs, *weight)
    np.testing.assert_allclose(
        clf.predict_proba(blobs[0]), expected.predict_proba(blobs[0]), rtol=1e-6
    )
    np.testing.assert_allclose(clf.history_["loss"], expected.history_["loss"], rtol=1e-6)
    np.testing.assert_allclose(clf.history_["accuracy"], expected.history_["accuracy"], rtol=1e-6)


def test_a_loader_that_shuffles_does_so_by_the_random_state(blobs, network):
    loader = DataLoader(TensorDataset(*map(torch.from_numpy, blobs)), batch_size=10, shuffle=True)

    first, second, other = (
        estimator(network, batch_size="auto", random_state=seed).fit(loader) for seed in (0, 0, 1)
    )

    assert weights(first.module_) == weights(second.module_)
    assert weights(first.module_) != weights(other.module_)


def test_a_loader_that_drops_all_its_rows_is_refused(blobs, network):
    loader = DataLoader(TensorDataset(*map(torch.from_numpy, blobs)), batch_size=64, drop_last=True)

    with pytest.raises(ValueError, match="drop_last=True"):
        estimator(network, batch_size="auto").fit(loader)


class NotFiniteFrom(nn.Module):
    """Gives a number that is not finite from a certain training batch of ten rows on."""

    def __init__(self, batch, value, network):
        super().__init__()
        self.batch, self.value, self.network = batch, value, network
        self.seen = 0

    def forward(self, x):
        self.seen += self.training and len(x) == 10
        if self.training and self.seen >= self.batch:
            x = x * self.value
        return self.network(x)


class PoisonedGradient(torch.autograd.Function):
    """Passes its input on, and spoils the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


class PoisonedFrom(NotFiniteFrom):
    """The loss stays finite, but from a certain batch on its gradient is not."""

    def forward(self, x):
        outputs = self.network(x)
        self.seen += self.training and len(x) == 10
        if self.training and self.seen == self.batch:
            outputs = PoisonedGradient.apply(outputs)
        return outputs


@pytest.mark.parametrize(
    ("batch", "words"),
    [(1, "epoch 1, batch 1"), (3, "epoch 1, batch 3"), (4, "epoch 2, batch 1"), (8, "3, batch 2")],
)
def test_a_loss_that_is_no_number_stops_the_run_and_is_told(batch, words, blobs, network):
    module = NotFiniteFrom(batch, torch.nan, network)

    with pytest.raises(TrainingDiverged, match=f"loss became nan in .*{words}, with lr=0.1.*`lr`"):
        estimator(module).fit(*blobs)


@pytest.mark.parametrize("make", [NotFiniteFrom, PoisonedFrom])
@pytest.mark.parametrize(("batch", "epochs"), [(5, 1), (6, 1), (7, 2), (9, 2)])
def test_the_weights_of_the_last_finite_epoch_are_kept(make, batch, epochs, blobs, network):
    clf = estimator(make(batch, torch.nan, network))

    with pytest.raises(TrainingDiverged, match=f"epoch {epochs + 1}, batch"):
        clf.fit(*blobs)

    expected = estimator(network, epochs=epochs).fit(*blobs)
    assert weights(clf.module_.network) == weights(expected.module_)
    assert clf.n_iter_ == len(clf.history_) == epochs
    assert not clf.module_.training
    np.testing.assert_array_equal(clf.predict(blobs[0]), expected.predict(blobs[0]))


def test_a_gradient_that_is_no_number_in_the_last_batch_is_found(blobs, network):
    """No later loss tells of it, only the weights."""
    with pytest.raises(TrainingDiverged, match=r"weights.*epoch 1, batch 3"):
        estimator(PoisonedFrom(3, None, network), epochs=1).fit(*blobs)


@pytest.fixture
def rectifier(network):
    """A network whose outputs overflow when its weights are huge."""
    network[1] = nn.ReLU()
    return network


@pytest.mark.parametrize(("batch_size", "epoch"), [(10, 1), (-1, 2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_that_are_far_too_large_end_the_run(optimizer, batch_size, epoch, blobs, rectifier):
    clf = estimator(rectifier, optimizer=optimizer, lr=1e30, batch_size=batch_size)

    words = rf"epoch {epoch}, batch \d.*lr=1e\+30.*smaller `lr`.*`clip_grad_norm`"
    with pytest.raises(TrainingDiverged, match=words) as raised:
        clf.fit(*blobs)

    assert isinstance(raised.value, FloatingPointError)
    assert all(weight.isfinite().all() for weight in clf.module_.parameters())


def test_a_run_that_diverges_at_once_keeps_the_weights_with_which_it_began(blobs, rectifier):
    clf = estimator(rectifier, lr=1e30)

    with pytest.raises(TrainingDiverged, match="keeps the weights of the start"):
        clf.fit(*blobs)

    assert weights(clf.module_) == weights(rectifier)
    assert clf.n_iter_ == 0


def test_the_running_means_of_a_batch_normalization_stay_finite(blobs, network):
    module = NotFiniteFrom(4, torch.nan, nn.Sequential(nn.BatchNorm1d(4), network))
    clf = estimator(module)

    with pytest.raises(TrainingDiverged):
        clf.fit(*blobs)

    expected = estimator(module.network, epochs=1).fit(*blobs)
    assert weights(clf.module_.network) == weights(expected.module_)


def test_a_loss_that_is_infinite_is_told(blobs, network):
    def logarithm_of_nothing(outputs, targets):
        losses = F.cross_entropy(outputs, targets, reduction="none")
        return losses - (len(outputs) == 10) * torch.log(torch.zeros(()))

    with pytest.raises(TrainingDiverged, match="loss became inf in epoch 1, batch 1"):
        estimator(network, loss=logarithm_of_nothing).fit(*blobs)


def test_after_a_divergence_a_smaller_lr_can_go_on(blobs, rectifier):
    """What the optimizer remembers must be finite too."""
    clf = estimator(rectifier, lr=1e30, optimizer__momentum=0.9, warm_start=True)
    with pytest.raises(TrainingDiverged):
        clf.fit(*blobs)

    clf.set_params(lr=0.1).fit(*blobs, epochs=20)

    assert clf.score(*blobs) > 0.8


def test_a_partial_fit_that_diverges_keeps_the_weights_before_it(blobs, network):
    clf = estimator(NotFiniteFrom(5, torch.nan, network)).partial_fit(*blobs, classes=[0, 1, 2])
    before = weights(clf.module_)

    with pytest.raises(TrainingDiverged, match="epoch 2, batch 2"):
        clf.partial_fit(*blobs)

    assert weights(clf.module_) == before
    assert clf.n_iter_ == 1


def test_a_divergence_goes_back_no_further_than_it_must_when_the_best_epoch_is_watched(
    blobs, network
):
    clf = estimator(NotFiniteFrom(7, torch.nan, network), callbacks=[EarlyStopping("loss")])

    with pytest.raises(TrainingDiverged):
        clf.fit(*blobs)

    expected = estimator(network, epochs=2).fit(*blobs)
    assert weights(clf.module_.network) == weights(expected.module_)


class Breaks(NotFiniteFrom):
    """Raises an error in a certain training batch."""

    def forward(self, x):
        self.seen += self.training and len(x) == 10
        if self.training and self.seen == self.batch:
            raise LookupError("no such token")
        return self.network(x)


def test_an_error_in_the_module_is_raised_as_it_is_and_says_where(blobs, network):
    with pytest.raises(LookupError, match="no such token") as raised:
        estimator(Breaks(8, None, network)).fit(*blobs)

    (note,) = raised.value.__notes__
    assert "epoch 3" in note
    assert "2" in note
    assert "(10, 4)" in note


def test_an_error_in_a_continued_fit_leaves_all_of_the_earlier_one(blobs, network):
    """Weights, history and what the optimizer remembers: the next fit goes on from there."""
    clf = estimator(Breaks(8, None, network), optimizer="adam", warm_start=True)
    clf.fit(*blobs, epochs=2)
    before, history = weights(clf.module_), list(clf.history_)

    with pytest.raises(LookupError):
        clf.fit(*blobs, epochs=3)

    assert weights(clf.module_) == before
    assert list(clf.history_) == history
    assert clf.n_iter_ == 2
    clf.module_.batch = None
    expected = estimator(network, optimizer="adam", epochs=3).fit(*blobs)
    assert weights(clf.fit(*blobs, epochs=1).module_.network) == weights(expected.module_)


def test_an_error_in_the_module_leaves_the_earlier_fit(blobs, network):
    clf = estimator(network).fit(*blobs)
    before, history = clf.predict_proba(blobs[0]), clf.history_

    with pytest.raises(LookupError):
        clf.set_params(module=Breaks(8, None, network)).fit(*blobs)

    np.testing.assert_array_equal(clf.predict_proba(blobs[0]), before)
    assert clf.history_ is history
    assert not network.state_dict()["0.weight"].isnan().any()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["auto", False])
def test_an_epoch_never_waits_for_the_device(mode, monkeypatch):
    original = Trainer._train_epoch

    def strictly(self, interruption):
        # In the first epoch tapes are made, and compared.
        torch.cuda.set_sync_debug_mode("error" if self._state.epoch > 1 else "default")
        try:
            return original(self, interruption)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_train_epoch", strictly)
    X, y = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32), np.arange(2000) % 4

    clf = Estimator(nn.Linear(8, 4), device="cuda", batch_size=20, epochs=3, compile=mode)

    assert len(clf.fit(X, y).history_) == 3
