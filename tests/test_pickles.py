"""Pickles of estimators before, during and after a fit: small, and read in other processes."""

import copy
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from easyclf import AccuracyLogger, EarlyStopping, Estimator, LambdaCallback
from saved_modules import Net

COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: pickle.loads(cloudpickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


def estimator(**parameters):
    settings = {"module": Net, "epochs": 3, "random_state": 0, "verbose": 0}
    return Estimator(**{**settings, **parameters})


@pytest.mark.parametrize("how", COPIES)
def test_copies_that_a_callback_makes_during_a_fit_are_of_the_fit_before(how, blobs):
    made = []
    clf = estimator()
    clf.set_params(callbacks=[LambdaCallback(on_epoch_end=lambda _: made.append(COPIES[how](clf)))])
    if how == "pickle":  # which takes no lambda
        clf.set_params(callbacks=[Copier(clf, made)])

    clf.fit(*blobs)
    before = clf.predict_proba(blobs[0])
    clf.fit(*blobs, random_state=1)

    assert not hasattr(made[0], "classes_")
    for copied in made[3:]:
        assert np.array_equal(copied.predict_proba(blobs[0]), before)


class Copier(AccuracyLogger):
    """Pickles an estimator at the end of each epoch."""

    def __init__(self, clf, made):
        super().__init__()
        self.clf, self.made = clf, made

    def __reduce__(self):
        return AccuracyLogger, ()

    def on_epoch_end(self, state):
        self.made.append(pickle.loads(pickle.dumps(self.clf)))


def test_the_state_of_a_run_can_be_copied_during_it(blobs):
    states = []

    estimator(
        callbacks=[LambdaCallback(on_epoch_end=lambda s: states.append(COPIES["pickle"](s.module)))]
    ).fit(*blobs)

    assert all(isinstance(module, Net) for module in states)
    assert not torch.equal(states[0].first.weight, states[-1].first.weight)


def test_cloudpickle_takes_a_module_and_a_factory_of_a_script(blobs, tmp_path):
    class Local(nn.Linear):
        pass

    for module in (Local, lambda in_features, out_features: Local(in_features, out_features)):
        clf = estimator(module=module).fit(*blobs)
        copied = COPIES["cloudpickle"](clf)
        assert np.array_equal(clf.predict_proba(blobs[0]), copied.predict_proba(blobs[0]))


def test_a_clone_of_what_was_fitted_begins_anew(blobs):
    clf = estimator(callbacks=[("early", EarlyStopping("loss"))]).fit(*blobs)

    cloned = clone(clf)

    assert not hasattr(cloned, "classes_")
    assert np.array_equal(cloned.fit(*blobs).predict_proba(blobs[0]), clf.predict_proba(blobs[0]))


def test_a_pickle_holds_no_data_and_no_figures_of_batches(tmp_path):
    X = np.random.default_rng(0).normal(size=(2_000, 4)).astype(np.float32)
    clf = estimator(epochs=1, batch_size=32).fit(X, np.arange(2_000) % 3)
    once = len(pickle.dumps(clf))

    joblib.dump(clf.set_params(epochs=5).fit(X, np.arange(2_000) % 3), tmp_path / "clf")

    assert once < 20_000
    assert (tmp_path / "clf").stat().st_size < once + 2_000


def test_a_file_that_is_mapped_into_memory_answers_and_goes_on(blobs, tmp_path):
    clf = estimator().fit(*blobs)
    joblib.dump(clf, tmp_path / "clf")

    mapped = joblib.load(tmp_path / "clf", mmap_mode="r")

    assert np.array_equal(mapped.predict_proba(blobs[0]), clf.predict_proba(blobs[0]))
    mapped.partial_fit(*blobs)


def test_weights_that_wait_for_a_first_fit_are_pickled(blobs, tmp_path):
    estimator().fit(*blobs).save_weights(tmp_path / "w.safetensors")
    clf = estimator(epochs=0, random_state=1).load_weights(tmp_path / "w.safetensors")

    copied = COPIES["pickle"](clf)

    assert torch.equal(copied.fit(*blobs).module_.last.bias, clf.fit(*blobs).module_.last.bias)
