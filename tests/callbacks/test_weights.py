"""Averages of weights, gradual unfreezing, and the norm of the gradients."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from easyclf import (
    EMA,
    SWA,
    EarlyStopping,
    Estimator,
    GradientNorm,
    LambdaCallback,
    LRScheduler,
    TrainingDiverged,
    Unfreeze,
)

SETTINGS = {"epochs": 6, "lr": 0.1, "batch_size": 10, "random_state": 0, "optimizer": "sgd"}


def fit(module, blobs, *callbacks, **settings):
    clf = Estimator(module, callbacks=list(callbacks), **{**SETTINGS, **settings})
    return clf.fit(*blobs, validation_data=blobs)


def averaged_by_torch(module, blobs, make, when, **settings):
    """What torch's `AveragedModel` makes of the weights of the same training without us."""
    found = {}

    def begin(state):
        found["model"] = make(state.module)

    def update(state):
        if when(state):
            found["model"].update_parameters(state.module)

    watch = LambdaCallback(on_train_begin=begin, on_batch_end=update)
    fit(module, blobs, watch, compile=False, **settings)
    return found["model"].module


@pytest.fixture
def normalized():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    # Counters are copied here, and averaged by torch.
    return all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs if a.is_floating_point()
    )


def test_ema_is_that_of_torch(normalized, blobs):
    clf = fit(normalized, blobs, EMA(0.9))

    average = averaged_by_torch(
        normalized,
        blobs,
        lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
        lambda state: True,
    )
    assert same(clf.module_, average)


def test_swa_is_that_of_torch_with_statistics_of_its_own(normalized, blobs):
    clf = fit(normalized, blobs, SWA(0.5))

    average = averaged_by_torch(
        normalized,
        blobs,
        AveragedModel,
        lambda state: state.epoch >= 4 and state.batch == state.steps_per_epoch,
    )
    update_bn([torch.from_numpy(part) for part in np.split(blobs[0], 3)], average)
    assert same(clf.module_, average)


@pytest.mark.parametrize("average", [EMA(0.8), SWA(0.5)], ids=["EMA", "SWA"])
def test_validation_measures_the_average(average, normalized, blobs):
    clf = fit(normalized, blobs, average)

    assert clf.evaluate(*blobs)["loss"] == pytest.approx(clf.history_["val_loss"][-1])


@pytest.mark.parametrize("average", [EMA(0.8), SWA(0.5)], ids=["EMA", "SWA"])
def test_the_training_itself_is_left_as_it_is(average, normalized, blobs):
    with_it, without = fit(normalized, blobs, average), fit(normalized, blobs)

    assert with_it.history_["loss"] == pytest.approx(without.history_["loss"])
    assert not same(with_it.module_, without.module_)


@pytest.mark.parametrize("average", [EMA(0.8), SWA(0.2)], ids=["EMA", "SWA"])
@pytest.mark.parametrize("is_first", [True, False])
def test_early_stopping_brings_back_the_average_of_the_best_epoch(
    average, is_first, normalized, blobs
):
    seen = {}
    losses = iter([5, 4, 1, 2, 3, 4])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(losses)))
    keep = LambdaCallback(
        on_epoch_end=lambda state: seen.update({state.epoch: copy.deepcopy(state.module)})
    )
    early = EarlyStopping(patience=2)
    pair = [early, average] if is_first else [average, early]

    clf = fit(normalized, blobs, rewrite, *pair, keep)

    assert (early.best_epoch_, clf.n_iter_) == (3, 5)
    assert same(clf.module_, seen[3])
    assert not same(clf.module_, seen[5])


def test_the_last_average_stays_where_the_best_is_not_wanted(normalized, blobs):
    early = EarlyStopping(patience=1, min_delta=100, restore_best_weights=False)

    clf = fit(normalized, blobs, EMA(0.9), early)

    assert clf.n_iter_ == 2
    assert same(clf.module_, fit(normalized, blobs, EMA(0.9), epochs=2).module_)


def test_a_rate_is_constant_from_the_start_of_the_average(network, blobs):
    clf = fit(network, blobs, LRScheduler("cosine"), SWA(0.5, lr=0.05))

    assert clf.history_["lr"][3:].tolist() == [0.05, 0.05, 0.05]
    assert clf.history_["lr"][2] == pytest.approx(0.075)


def test_an_interruption_leaves_the_average(network, blobs):
    def interrupt(state):
        if state.step == 4:
            raise KeyboardInterrupt

    clf = Estimator(
        network, callbacks=[EMA(0.9), LambdaCallback(on_batch_end=interrupt)], **SETTINGS
    )
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs)

    stop = LambdaCallback(on_batch_end=lambda state: state.step == 4 and state.stop("enough"))
    assert same(clf.module_, fit(network, blobs, EMA(0.9), stop).module_)


def test_a_divergence_leaves_the_last_finite_weights(network, blobs):
    def spoil(state):
        if state.epoch == 2:
            state.module[0].weight.data.fill_(float("nan"))

    clf = Estimator(network, callbacks=[EMA(0.9), LambdaCallback(on_batch_end=spoil)], **SETTINGS)
    with pytest.raises(TrainingDiverged):
        clf.fit(*blobs)

    assert all(weight.isfinite().all() for weight in clf.module_.parameters())


def test_tapes_and_averages_get_on(blobs):
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    played, written = (
        fit(module, blobs, EMA(0.9), epochs=60, compile=mode, precision="float64")
        for mode in ("auto", False)
    )

    assert played.history_["val_loss"] == pytest.approx(written.history_["val_loss"], rel=1e-9)


def test_averages_clone_and_serve_many_fits(network, blobs):
    ema = EMA(0.9)
    first = fit(network, blobs, ema)

    assert same(first.module_, fit(network, blobs, ema).module_)
    assert same(first.module_, clone(first).fit(*blobs, validation_data=blobs).module_)
    assert vars(ema).keys() <= {"decay", "_names_before_run"}


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([EMA(1.0)], r"`decay` must be a number in \[0, 1\); got 1.0"),
        ([EMA("much")], "`decay`.*'much'"),
        ([SWA(1.0)], r"`start` must be a number in \[0, 1\); got 1.0"),
        ([SWA(lr=-1)], "`lr` must be a positive number, or None; got -1"),
        ([SWA(), EMA()], "EMA and another average"),
        ([Unfreeze({2: "0.weight"})], r"weights are not frozen; .*Estimator\(freeze='0.weight'\)"),
        ([Unfreeze({2: "fc"})], "`Unfreeze` has the pattern 'fc', which matches no weight"),
        ([Unfreeze({0: "0.weight"})], "the key 0; expected an epoch, counted from 1"),
        ([Unfreeze(["0.weight"])], "must be a dict of epochs and patterns"),
    ],
)
def test_what_makes_no_sense_is_refused(callbacks, words, network, blobs):
    with pytest.raises((ValueError, TypeError), match=words):
        fit(network, blobs, *callbacks)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("compile_", ["auto", False])
def test_frozen_weights_are_trained_from_their_epoch_on(optimizer, compile_, network, blobs):
    weights = {}
    keep = LambdaCallback(
        on_epoch_end=lambda state: weights.update({state.epoch: state.module[0].weight.clone()})
    )
    momentum = {"optimizer__momentum": 0.9} if optimizer == "sgd" else {}

    fit(
        network,
        blobs,
        Unfreeze({np.int64(3): "0"}),
        keep,
        freeze="0.*",
        optimizer=optimizer,
        compile=compile_,
        **momentum,
    )

    assert torch.equal(weights[1], weights[2])
    assert torch.equal(weights[1], network[0].weight)
    assert not torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[3], weights[4])


def test_tapes_follow_what_is_unfrozen(blobs):
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    played, written = (
        fit(
            module,
            blobs,
            Unfreeze({40: "0.bias", 60: ["0.weight"]}),
            freeze="0",
            epochs=100,
            compile=mode,
            precision="float64",
        )
        for mode in ("auto", False)
    )

    assert played.history_["loss"] == pytest.approx(written.history_["loss"], rel=1e-9)
    assert not torch.equal(played.module_[0].bias, module[0].bias.double())


def test_a_warm_start_goes_on_with_the_epochs(network, blobs):
    clf = Estimator(
        network, freeze="0", callbacks=[Unfreeze({3: "0"})], warm_start=True, **SETTINGS
    )
    clf.fit(*blobs, epochs=2)
    assert torch.equal(clf.module_[0].weight, network[0].weight)

    clf.fit(*blobs, epochs=1)

    assert not torch.equal(clf.module_[0].weight, network[0].weight)


def test_a_schedule_has_to_stand_behind_what_adds_groups(network, blobs):
    schedule, unfreeze = LRScheduler("StepLR", step_size=1), Unfreeze({2: "0"})
    noted = []
    note = LambdaCallback(
        on_epoch_end=lambda state: noted.append({g["lr"] for g in state.optimizer.param_groups})
    )

    fit(network, blobs, unfreeze, schedule, note, freeze="0")
    with pytest.raises(ValueError, match="put what adds groups, as Unfreeze does, before"):
        fit(network, blobs, schedule, unfreeze, freeze="0")

    assert all(len(rates) == 1 for rates in noted)


def test_the_norm_of_the_gradients_is_a_quantity(network, blobs):
    norms = []

    def note(state):
        gradients = [weight.grad for weight in state.module.parameters()]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

    clf = fit(network, blobs, GradientNorm(), LambdaCallback(on_batch_end=note), epochs=2)

    expected = np.mean(np.reshape(norms, (2, 3)), axis=1)
    assert clf.history_["gradient_norm"] == pytest.approx(expected)
    assert fit(network, blobs, GradientNorm(), clip_grad_norm=0.01).history_[
        "gradient_norm"
    ] == pytest.approx(0.01, rel=1e-3)
