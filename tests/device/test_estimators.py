"""What users do with an estimator on a device: choose it, copy, pickle, and validate."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scenarios import X, Y, network
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from easyclf import EarlyStopping, Estimator

DEVICE = "pretend:1"


def fit(module=None, **parameters):
    settings = {"device": DEVICE, "epochs": 2, "random_state": 0, "optimizer": "adam"}
    return Estimator(module or network(), **(settings | parameters)).fit(X, Y)


class Holder(nn.Module):
    """A module with tensors that are neither weights nor buffers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = None
        self.kept = {}

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.ones(3, device=x.device)
            self.kept = {"all": [self.scale * 2]}
        return self.layer(x) * self.scale.to(x.device)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in [*value.keys(), *value.values()]:
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, nn.Module | torch.optim.Optimizer):
        yield from tensors_in(vars(value))


# The device


def test_auto_takes_the_accelerator():
    assert str(fit(device="auto").device_) == "pretend:0"


@pytest.mark.parametrize("name", ["pretend", "auto"])
def test_a_device_without_a_number_is_the_current_one_for_good(name):
    torch.accelerator.set_device_index(1)
    clf = fit(device=name)
    torch.accelerator.set_device_index(0)

    assert str(clf.device_) == "pretend:1"
    assert clf.predict_proba(X).shape == (48, 3)
    assert torch.accelerator.current_device_index() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", r"'gpu' is not a device; did you mean `auto`, which finds the fastest\? Expected"),
        ("pretend:2", r"is not on this machine; expected 'auto' or one of \['pretend:0', "),
        ("cuda", r"is not on this machine; expected 'auto' or one of \['pretend:0', "),
        ("pertend", r"is not a device.*\['pretend:0', 'pretend:1', 'cpu'\]"),
    ],
)
def test_a_wrong_name_is_answered_with_those_that_are_there(name, message):
    with pytest.raises(ValueError, match=f"`device` '?{name}.*{message}|{message}"):
        fit(device=name)


def test_two_estimators_on_two_devices():
    first, second = fit(device="pretend:0"), fit(device="pretend:1")

    assert first.predict_proba(X).tolist() == second.predict_proba(X).tolist()
    tensors = torch.from_numpy(X).to("pretend:0")
    assert second.predict(tensors).tolist() == first.predict(tensors).tolist()


# Copies


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
def test_a_deep_copy_stays_on_the_device(optimizer):
    clf = fit(optimizer=optimizer, callbacks=[EarlyStopping("loss")])

    copied = copy.deepcopy(clf)

    assert str(copied.device_) == DEVICE
    assert {str(tensor.device) for tensor in copied.module_.parameters()} == {DEVICE}
    assert copied.callbacks[0].best_epoch_ is not None
    before = clf.predict_proba(X).tolist()
    copied.partial_fit(X, Y)
    assert clf.predict_proba(X).tolist() == before
    assert copied.predict_proba(X).tolist() != before


def test_a_clone_is_not_fitted_and_a_shallow_copy_shares():
    clf = fit()

    assert not hasattr(clone(clf), "module_")
    assert copy.copy(clf).predict_proba(X).tolist() == clf.predict_proba(X).tolist()


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_pickle_is_on_the_host(precision, optimizer):
    clf = fit(optimizer=optimizer, precision=precision, class_weight={0: 2.0})

    read = pickle.loads(pickle.dumps(clf))

    held = [*tensors_in(read.module_), *tensors_in(read.optimizer_)]
    assert {tensor.device.type for tensor in held} == {"cpu"}
    atol = 1e-6 if precision == "float32" else 0.02
    np.testing.assert_allclose(read.predict_proba(X), clf.predict_proba(X), atol=atol)
    assert str(read.device) == DEVICE
    assert str(read.partial_fit(X, Y).device_) == DEVICE


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_file_is_loaded_onto_the_host_and_goes_back(tmp_path, precision):
    module = network()
    clf = fit(module, precision=precision, class_weight={0: 2.0})
    clf.save(tmp_path / "clf.easyclf")

    read = Estimator.load(tmp_path / "clf.easyclf", module=module)

    held = [*tensors_in(read.module_), *tensors_in(read.optimizer_)]
    assert {tensor.device.type for tensor in held} == {"cpu"}
    atol = 1e-6 if precision == "float32" else 0.02
    np.testing.assert_allclose(read.predict_proba(X), clf.predict_proba(X), atol=atol)
    assert str(read.device) == DEVICE
    assert str(clf.device_) == DEVICE
    again, goes_on = read.partial_fit(X, Y), clf.partial_fit(X, Y)
    assert str(again.device_) == DEVICE
    np.testing.assert_allclose(again.predict_proba(X), goes_on.predict_proba(X), atol=atol)


def test_weights_are_loaded_onto_the_device(tmp_path):
    fit().save_weights(tmp_path / "w.safetensors")
    clf = fit(random_state=1).load_weights(tmp_path / "w.safetensors")

    assert {str(weight.device) for weight in clf.module_.parameters()} == {DEVICE}
    np.testing.assert_allclose(clf.predict_proba(X), fit().predict_proba(X), atol=1e-6)


def test_a_pickle_holds_no_tensor_of_the_device_at_all():
    clf = fit(Holder)

    read = pickle.loads(pickle.dumps(clf))

    assert read.module_.scale.device.type == "cpu"
    assert read.module_.kept["all"][0].tolist() == [2, 2, 2]
    assert {tensor.device.type for tensor in tensors_in(read.module_)} == {"cpu"}
    assert str(clf.module_.scale.device) == DEVICE


def test_tied_weights_are_tied_in_a_pickle():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    module[1].weight = module[0].weight

    read = pickle.loads(pickle.dumps(fit(lambda: module)._fitted.on_host().module))

    assert read[1].weight is read[0].weight


def test_a_pickle_is_read_where_there_is_no_such_device(tmp_path):
    clf = fit(callbacks=[EarlyStopping("loss")])
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "x.npy", X)
    code = """
import pickle, sys, numpy as np
clf = pickle.load(open(sys.argv[1] + "/clf.pickle", "rb"))
print(clf.predict_proba(np.load(sys.argv[1] + "/x.npy")).tolist())
"""

    answered = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    np.testing.assert_allclose(eval(answered.stdout), clf.predict_proba(X), atol=1e-6)


# Validation


def test_cross_validation_in_this_process():
    scores = cross_val_score(Estimator(network(), device=DEVICE, epochs=20, lr=0.1), X, Y, cv=3)

    assert scores.min() > 0.8


def test_cross_validation_in_another_process():
    """One of two has nothing to do, and does not import torch."""
    from in_other_processes import module

    parameters = {"module": module, "device": DEVICE, "epochs": 2, "random_state": 0}
    folds = [(np.arange(24), np.arange(24, 48))]
    there = cross_val_score(Estimator(**parameters), X, Y, cv=folds, n_jobs=2)

    assert there.tolist() == cross_val_score(Estimator(**parameters), X, Y, cv=folds).tolist()


def test_a_search_over_devices():
    search = GridSearchCV(
        Estimator(network(), epochs=1, random_state=0), {"device": ["cpu", DEVICE]}, cv=2
    ).fit(X, Y)

    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == scores[1]
