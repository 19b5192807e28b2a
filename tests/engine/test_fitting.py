"""A run put together: how far it goes for speed."""

import copy
import functools
import gc

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator, LambdaCallback
from easyclf.data import Source
from easyclf.engine.trainer import Trainer
from easyclf.exceptions import TapeDiffers
from easyclf.tape.tapes import Player


def test_compile_calls_the_compiled_module_and_keeps_the_own_one(monkeypatch, blobs, network):
    calls = []

    def compiled(module):
        def forward(x):
            calls.append(len(x))
            return module(x)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    seen = []
    look = LambdaCallback(on_epoch_end=lambda state: seen.append(type(state.module)))

    clf = Estimator(network, compile=True, epochs=2, batch_size=10, callbacks=[look])
    clf.set_params(random_state=0).fit(*blobs, validation_data=blobs)

    assert calls == [10, 10, 10, 30] * 2
    assert seen == [nn.Sequential] * 2
    assert type(clf.module_) is nn.Sequential
    plain = clone_with(clf, compile=False).fit(*blobs, validation_data=blobs)
    assert plain.history_["val_loss"].tolist() == clf.history_["val_loss"].tolist()


def clone_with(clf, **parameters):
    return Estimator(**{**clf.get_params(), **parameters})


# torch advises against the first release of Python 3.13.
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_torch_compiles_a_module(blobs, network):
    """`torch.compile` itself, with the backend that needs no C++ compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        clf = Estimator(network, compile=True, epochs=3, random_state=0).fit(*blobs)

    plain = Estimator(network, compile=False, epochs=3, random_state=0).fit(*blobs)
    np.testing.assert_allclose(clf.history_["loss"], plain.history_["loss"], rtol=1e-5)


@pytest.mark.parametrize("value", ["yes", 2, None])
def test_compile_is_auto_true_or_false(blobs, value):
    with pytest.raises(ValueError, match="'compile' parameter of Estimator must be"):
        Estimator(compile=value).fit(*blobs)


@pytest.mark.parametrize("parameters", [{}, {"compile": False}, {"validation_split": 0.2}])
def test_the_rows_are_given_back_with_the_end_of_a_fit(parameters):
    """Without waiting for the garbage collector, which counts objects and not gigabytes."""
    X, y = np.zeros((200, 4), np.float32), np.arange(200) % 2

    def alive():
        return {id(one) for one in gc.get_objects() if issubclass(type(one), (Source, Trainer))}

    before = alive()  # what the errors of other tests hold
    gc.disable()
    try:
        Estimator(nn.Linear(4, 2), epochs=8, batch_size=20, **parameters).fit(X, y)
        assert alive() <= before
    finally:
        gc.enable()


# A tape that differs


@pytest.fixture
def differing(monkeypatch):
    """A function after which the tapes of a training differ at their third play."""

    def differ(at=3):
        plays = []

        def play(player, batch):
            plays.append(batch)
            if len(plays) == at:
                raise TapeDiffers("its figures are others")

        monkeypatch.setattr(Player, "play", play)

    return differ


def weights(clf):
    return {name: tensor.tolist() for name, tensor in clf.module_.state_dict().items()}


def test_a_tape_that_differs_begins_the_fit_again_without_tapes(differing, blobs, network):
    X, y = blobs
    clf = Estimator(network, epochs=3, batch_size=10, random_state=0)
    plain = clone_with(clf, compile=False).fit(X, y, validation_data=(X, y))
    differing()

    with pytest.warns(UserWarning, match="recording of Sequential .* begins again") as caught:
        clf.fit(X, y, validation_data=(X, y))

    assert len(caught) == 1
    assert weights(clf) == weights(plain)
    assert clf.history_["val_loss"].tolist() == plain.history_["val_loss"].tolist()


def test_callbacks_are_told_that_a_fit_begins_again(differing, blobs, network):
    differing(at=5)
    calls = []
    callback = LambdaCallback(
        on_train_begin=lambda state: calls.append("begin"),
        on_epoch_end=lambda state: calls.append(state.epoch),
        close=lambda state: calls.append("close"),
    )

    with pytest.warns(UserWarning, match="begins again"):
        Estimator(network, epochs=2, batch_size=10, callbacks=[callback]).fit(*blobs)

    assert calls == ["begin", 1, "close", "begin", 1, 2, "close"]


def test_a_fit_that_goes_on_begins_again_from_the_earlier_one(differing, blobs, network):
    clf = Estimator(network, epochs=2, batch_size=10, random_state=0, warm_start=True)
    plain = clone_with(clf, compile=False).fit(*blobs).fit(*blobs)
    clf.fit(*blobs)
    differing()

    with pytest.warns(UserWarning, match="begins again"):
        clf.fit(*blobs)

    assert clf.history_["epoch"].tolist() == [1, 2, 3, 4]
    assert weights(clf) == weights(plain)


def test_a_factory_that_gives_one_module_twice_begins_again_with_its_first_weights(
    differing, blobs, network
):
    shared = copy.deepcopy(network)
    plain = Estimator(network, epochs=3, batch_size=10, random_state=0, compile=False).fit(*blobs)
    differing(at=8)

    with pytest.warns(UserWarning, match="begins again"):
        clf = Estimator(lambda: shared, epochs=3, batch_size=10, random_state=0).fit(*blobs)

    assert weights(clf) == weights(plain)


def test_a_stream_that_can_be_read_once_is_never_taped(monkeypatch, blobs, network):
    """It cannot begin again if a tape were to differ."""

    class Once(torch.utils.data.IterableDataset):
        def __init__(self):
            self.rows = [*zip(map(torch.tensor, blobs[0]), blobs[1].tolist(), strict=True)] * 30

        def __len__(self):
            return 900

        def __iter__(self):
            return self

        def __next__(self):
            if not self.rows:
                raise StopIteration
            return self.rows.pop()

    taped = []
    monkeypatch.setattr(Player, "_record", lambda *_: taped.append(1))
    monkeypatch.setattr(Player, "_observe", lambda *_: taped.append(1))
    clf = Estimator(network, batch_size=10, classes=[0, 1, 2], random_state=0)

    clf.fit(Once(), epochs=1)

    assert not taped
    X, y = np.tile(blobs[0], (30, 1)), np.tile(blobs[1], 30)
    clf.fit(X, y, epochs=1, validation_data=Once())
    assert not taped
    clf.fit(X, y, epochs=1)
    assert taped
