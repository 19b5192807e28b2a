"""The range test of the learning rate."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import from_numpy, nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import EarlyStopping, Estimator
from easyclf.callbacks.range_test import _steepest


def estimator(network, **parameters):
    return Estimator(network, **{"optimizer": "sgd", "random_state": 0, **parameters})


def test_a_rate_is_suggested_that_trains_well(network, blobs):
    clf = estimator(network, epochs=20)

    display = clf.find_lr(*blobs)

    assert 1e-3 < display.suggestion_ < 10
    low, high = clf.set_params(lr=1e-5).fit(*blobs), 0.9
    assert low.score(*blobs) < clf.set_params(lr=display.suggestion_).fit(*blobs).score(*blobs)
    assert clf.score(*blobs) > high


def test_the_rates_rise_until_the_loss_does(network, blobs):
    X, y = blobs
    y = np.random.default_rng(0).permutation(y)  # which no rate learns

    display = estimator(network).find_lr(X, y, low=1e-4, high=1e6, n_steps=200)

    ratios = display.lr_[1:] / display.lr_[:-1]
    assert display.lr_[0] == pytest.approx(1e-4)
    assert ratios == pytest.approx(1e10 ** (1 / 199))
    assert len(display.lr_) == len(display.loss_) < 200
    assert display.loss_[-2] <= 4 * display.loss_.min()


def test_all_steps_are_taken_where_the_loss_stays_low(network, blobs):
    display = estimator(network).find_lr(*blobs, low=1e-3, high=1e-2, n_steps=50)

    assert len(display.lr_) == 50
    assert display.lr_[-1] == pytest.approx(1e-2)


def test_the_estimator_stays_as_it_is(network, blobs, random_states):
    early = EarlyStopping()
    clf = estimator(network, callbacks=[("early", early)], metrics=["f1_macro"], epochs=2)
    before, states = pickle.dumps(clf.get_params(deep=False)["metrics"]), random_states()

    clf.find_lr(*blobs)

    assert not hasattr(clf, "module_")
    assert pickle.dumps(clf.metrics) == before
    assert clf.callbacks == [("early", early)]
    assert not hasattr(early, "best_epoch_")
    assert random_states() == states
    fitted = clf.set_params(callbacks=None).fit(*blobs)
    weights = fitted.module_[0].weight.clone()
    clf.find_lr(*blobs)
    assert (clf.module_[0].weight == weights).all()
    assert clf.n_iter_ == 2


def test_it_begins_with_the_weights_that_the_next_fit_begins_with(network, blobs, tmp_path):
    clf = estimator(network, lr=0.1, epochs=20, batch_size=-1).fit(*blobs)
    clf.save_weights(tmp_path / "w.safetensors")
    loss = clf.evaluate(*blobs)["loss"]

    begun = estimator(network, batch_size=-1).load_weights(tmp_path / "w.safetensors")
    rates = {"low": 1e-6, "high": 1e-5, "n_steps": 50}

    assert begun.find_lr(*blobs, **rates).loss_[0] == pytest.approx(loss, rel=1e-4)
    # After a fit, the next one begins anew.
    assert begun.fit(*blobs).find_lr(*blobs, **rates).loss_[0] > 1.5 * loss


def test_a_loader_will_do(network, blobs):
    loader = DataLoader(TensorDataset(*map(from_numpy, blobs)), batch_size=10)

    display = estimator(network).find_lr(loader)

    assert display.suggestion_ is not None


def test_groups_of_weights_keep_their_ratio(network, blobs):
    clf = estimator(network, lr={"0": 1e-3, "*": 1e-1})

    assert clf.find_lr(*blobs).suggestion_ is not None


def test_where_the_loss_never_falls_nothing_is_suggested():
    X, y = np.ones((20, 2), np.float32), np.arange(20) % 2

    class Constant(nn.Linear):
        def forward(self, x):
            return 0 * super().forward(x) + torch.tensor([3.0, 3.0])

    with pytest.warns(ConvergenceWarning, match="falls at none of the rates"):
        display = estimator(Constant(2, 2)).find_lr(X, y)

    assert display.suggestion_ is None
    assert repr(display) == "LearningRateDisplay of 100 steps, suggestion none"


def test_what_falls_after_the_loss_has_risen_is_not_suggested():
    """At large rates the loss jumps up, and falls from there fastest of all."""
    rates = np.geomspace(1e-6, 10, 100)
    losses = np.concatenate([np.linspace(1.0, 0.5, 70), np.linspace(0.5, 3, 15), np.ones(15)])
    losses[:70] -= 0.1 * np.tanh((np.arange(70) - 40) / 4)

    assert _steepest(rates, losses) == rates[40]


def test_few_steps_are_said_to_be_few(network, blobs):
    clf = estimator(network)

    with pytest.warns(ConvergenceWarning, match="took 20 steps, but .* a mean over 50") as warned:
        display = clf.find_lr(*blobs, low=1e-3, high=1.0, n_steps=20)

    assert display.suggestion_ is not None
    assert warned[0].filename == __file__


def test_the_number_of_steps_may_be_of_numpy(network, blobs):
    display = estimator(network).find_lr(*blobs, low=1e-3, high=1e-2, n_steps=np.int64(50))

    assert len(display.lr_) == 50


def test_it_is_drawn(network, blobs):
    plt = pytest.importorskip("matplotlib.pyplot")
    display = estimator(network).find_lr(*blobs)

    assert display.plot() is display
    assert display.ax_.get_xscale() == "log"
    assert f"suggestion: {display.suggestion_:.2g}" in str(
        [text.get_text() for text in display.ax_.get_legend().get_texts()]
    )
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax
    plt.close("all")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"low": 0.0}, "0 < low < high; got 0.0, 10.0"),
        ({"low": 1.0, "high": 0.1}, "0 < low < high"),
        ({"n_steps": 5}, "`n_steps` must be an integer of at least 13; got 5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words, network, blobs):
    with pytest.raises(ValueError, match=words):
        estimator(network).find_lr(*blobs, **settings)
