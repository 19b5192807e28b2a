"""A fit on a device learns what it learns on the host, whatever it is given."""

import numpy as np
import pytest
import torch
from scenarios import DATA, HEADS, OPTIMIZERS, RECURRENT, SETTINGS, WEIGHT, Items, X, Y, network
from torch import nn
from torch.utils.data import DataLoader

import pretend_device
from easyclf import Callback, EarlyStopping, Estimator, TrainingDiverged

DEVICE = "pretend:1"


OF_FIT = ("sample_weight", "validation_data", "steps_per_epoch")


def fit(device, *, X=X, y=Y, **given):
    """Fit on a device: `given` are parameters of the estimator and of `fit`."""
    keywords = {name: given.pop(name) for name in OF_FIT if name in given}
    settings = {"module": network(), "epochs": 3, "batch_size": 16, "random_state": 0, "lr": 0.05}
    if type(X).__name__ == "DataLoader":
        settings.pop("batch_size")
    return Estimator(device=device, **(settings | given)).fit(X, y, **keywords)


def check_same(given, *, atol=1e-5):
    """Compare what a device and the host make of the same."""
    there, here = fit(DEVICE, **given), fit("cpu", **given)

    rows = given.get("X", X)
    assert str(there.device_) == DEVICE
    tensors = [*there.module_.parameters(), *there.module_.buffers()]
    assert {str(tensor.device) for tensor in tensors} == {DEVICE}
    for name in here.history_[0].keys() - {"seconds"}:
        np.testing.assert_allclose(there.history_[name], here.history_[name], atol=atol)
    np.testing.assert_allclose(there.predict_proba(rows), here.predict_proba(rows), atol=atol)
    assert there.predict(rows).tolist() == here.predict(rows).tolist()
    assert not pretend_device.counts().get("race")
    return there


@pytest.mark.parametrize("kind", DATA)
def test_all_kinds_of_data(kind, tmp_path):
    given = DATA[kind](tmp_path)

    clf = check_same(given)

    rows, y = given.get("X", X), given.get("y", Y)
    assert clf.evaluate(rows, y)["accuracy"] == clf.score(rows, y)


@pytest.mark.parametrize("head", HEADS)
def test_all_heads_losses_and_weights(head):
    check_same(HEADS[head])


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_settings(setting):
    check_same(SETTINGS[setting])


@pytest.mark.parametrize("layer", RECURRENT)
def test_all_recurrent_layers(layer):
    check_same({"module": RECURRENT[layer]})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRUCell"])
def test_recurrent_layers_learn_in_half_precision(layer, precision):
    clf = fit(DEVICE, module=RECURRENT[layer], precision=precision, epochs=20)

    assert clf.score(X, Y) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_optimizers(optimizer):
    fewer = {"optimizer__max_iter": 3} if optimizer == "lbfgs" else {}

    clf = check_same({"optimizer": optimizer, "lr": 0.02, **fewer}, atol=1e-4)

    assert bool(clf.optimizer_.defaults.get("fused")) is (optimizer in ("adam", "adamw", "sgd"))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_half_precision_learns_as_full_precision_does(optimizer, precision, clip):
    lr = 0.5 if optimizer == "sgd" else 0.05
    settings = {"optimizer": optimizer, "lr": lr, "epochs": 20, "clip_grad_norm": clip}

    half = fit(DEVICE, precision=precision, **settings)

    assert half.score(X, Y) == 1
    assert half.module_[0].weight.dtype == torch.float32
    assert bool(half.optimizer_.defaults.get("fused")) is (optimizer != "rmsprop")


@pytest.mark.parametrize("shape", [(), (3,)], ids=["classes", "labels"])
def test_pinned_memory_that_a_loader_uses_again(shape):
    class Again:
        """A collation that yields the same memory each time."""

        def __init__(self):
            self.x = torch.empty(16, 4, pin_memory=True)
            self.y = torch.zeros(16, *shape, dtype=torch.int64, pin_memory=True)

        def __call__(self, items):
            for row, (x, y) in enumerate(items):
                self.x[row] = x
                self.y[row] = y if shape == () else (x[:3] > 0)
            return self.x[: len(items)], self.y[: len(items)]

    check_same({"X": DataLoader(Items(), 16, collate_fn=Again()), "y": None})


def test_validation_data_of_any_kind_and_place(tmp_path):
    for kind in ("array", "tensor there", "sparse", "memmap", "Dataset"):
        given = DATA[kind](tmp_path)
        rows, y = given["X"], given.get("y", Y)
        check_same({"validation_data": rows if y is None else (rows, y)})


def test_early_stopping_gives_the_best_weights_back():
    class Spoil(Callback):
        def on_epoch_begin(self, state):
            if state.epoch > 3:
                state.module[2].bias.data.fill_(100.0 * state.epoch)
                state.module[2].bias.data[0] = 0

    clf = fit(DEVICE, callbacks=[Spoil(), EarlyStopping("loss", patience=2)], epochs=30)

    assert clf.callbacks[1].stopped_epoch_ == 5
    best = fit(DEVICE, epochs=3)
    assert torch.equal(clf.module_[0].weight.cpu(), best.module_[0].weight.cpu())


def test_callbacks_see_tensors_on_the_device():
    seen = []

    class Look(Callback):
        changes = "nothing"

        def on_batch_end(self, state):
            gradient = state.module[0].weight.grad
            seen.append((str(state.logs["loss"].device), str(gradient.device)))

    fit(DEVICE, callbacks=[Look()])

    assert set(seen) == {(DEVICE, DEVICE)}


def test_divergence_gives_the_last_finite_weights_back():
    class Spoil(Callback):
        def on_epoch_begin(self, state):
            if state.epoch == 3:
                state.module[0].weight.data.fill_(float("nan"))

    clf = Estimator(network(), device=DEVICE, epochs=5, random_state=0, callbacks=[Spoil()])

    with pytest.raises(TrainingDiverged, match="epoch 3"):
        clf.fit(X, Y)
    assert all(weight.isfinite().all() for weight in clf.module_.parameters())


@pytest.mark.parametrize("devices", [("cpu", "pretend:1"), ("pretend:0", "pretend:1")])
def test_a_training_goes_on_on_another_device(devices):
    parameters = {"batch_size": 16, "random_state": 0, "warm_start": True, "optimizer": "adam"}
    whole = Estimator(network(), device="cpu", epochs=4, **parameters).fit(X, Y)

    moved = Estimator(network(), device=devices[0], epochs=2, **parameters).fit(X, Y)
    moved.set_params(device=devices[1]).fit(X, Y)

    assert moved.device_ == torch.device(devices[1])
    np.testing.assert_allclose(moved.predict_proba(X), whole.predict_proba(X), atol=1e-5)


def test_partial_fit_trains_as_fit_does():
    def train(device):
        clf = Estimator(network(), device=device, batch_size=16, random_state=0)
        for start in (0, 24):
            clf.partial_fit(X[start : start + 24], Y[start : start + 24], classes=[0, 1, 2])
        return clf.predict_proba(X)

    np.testing.assert_allclose(train(DEVICE), train("cpu"), atol=1e-5)


def test_tensors_that_the_user_gave_are_not_written_to():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x.mul_(2))

    rows = torch.from_numpy(X).to(DEVICE)

    clf = fit(DEVICE, X=rows, module=InPlace, sample_weight=WEIGHT)
    clf.predict(rows)

    assert torch.equal(rows.cpu(), torch.from_numpy(X))
