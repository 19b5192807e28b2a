"""Learning rates that are lowered when a quantity no longer improves."""

import math

import numpy as np
import pytest
from torch import nn

from easyclf import Estimator, LambdaCallback, ReduceLROnPlateau

X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
Y = np.arange(8) % 2
RUN = {"optimizer": "sgd", "lr": 0.5, "batch_size": 2, "random_state": 0}


def fit(*callbacks, epochs):
    clf = Estimator(nn.Linear(2, 2), callbacks=list(callbacks), epochs=epochs, **RUN)
    return clf.fit(X, Y, validation_data=(X, Y))


# What Keras 3 does: figures, settings, and the rate of each epoch as a multiple of the first.
@pytest.mark.parametrize(
    ("settings", "figures", "expected"),
    [
        ({"patience": 2}, [1, 1, 1, 1, 1, 1], [1, 1, 1, 0.1, 0.1, 0.01]),
        ({"patience": 1}, [1, 1, 1, 1], [1, 1, 0.1, 0.01]),
        ({"patience": 0}, [1, 1, 1, 1], [1, 1, 0.1, 0.01]),
        ({"patience": 1, "cooldown": 1}, [1, 1, 1, 1, 1], [1, 1, 0.1, 0.01, 0.001]),
        ({"patience": 1, "cooldown": 2}, [1, 1, 1, 1, 1], [1, 1, 0.1, 0.1, 0.01]),
        ({"patience": 2, "cooldown": 2}, [1] * 8, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"patience": 2}, [3, 2, 1, 1, 1, 0.5, 0.6], [1, 1, 1, 1, 1, 0.1, 0.1]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.6, 2.2, 2.0], [1, 1, 0.1, 0.1]),
        ({"patience": 1, "min_lr": 0.2}, [1] * 5, [1, 1, 0.4, 0.4, 0.4]),
        ({"patience": 1, "min_lr": 0.7}, [1] * 4, [1, 1, 1, 1]),
        ({"patience": 1, "factor": 0.5}, [1, math.nan, 1, 0.5], [1, 1, 0.5, 0.25]),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 2], [1, 1, 1, 1]),
        ({"patience": 1, "mode": "max"}, [3, 2, 1, 1], [1, 1, 0.1, 0.01]),
    ],
)
def test_a_plateau_is_counted_as_keras_does(settings, figures, expected):
    values = iter(figures)
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(values)))

    clf = fit(rewrite, ReduceLROnPlateau(**settings), epochs=len(figures))

    assert (clf.history_["lr"] / 0.5).tolist() == pytest.approx(expected)


def test_a_plateau_serves_many_fits():
    plateau = ReduceLROnPlateau("loss", patience=1, min_delta=10)
    first = fit(plateau, epochs=3)

    second = fit(plateau, epochs=3)

    assert first.history_["lr"].tolist() == second.history_["lr"].tolist()


def test_numbers_may_be_of_numpy():
    """As those of a search over `np.arange`."""
    plateau = ReduceLROnPlateau("loss", np.float32(0.5), np.int64(1), min_delta=10)

    assert fit(plateau, epochs=3).history_["lr"].tolist() == [0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("plateau", "words"),
    [
        (ReduceLROnPlateau("val_los"), "did you mean `val_loss`"),
        (ReduceLROnPlateau(factor=1.0), "`factor` must be less than 1"),
        (ReduceLROnPlateau(cooldown=-1), "`cooldown` must be at least 0"),
        (ReduceLROnPlateau(mode="best"), "`mode` must be 'auto', 'min' or 'max'"),
        (ReduceLROnPlateau("lr"), "'lr' does not say whether more is better"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(plateau, words):
    epochs = []
    note = LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch))

    with pytest.raises(ValueError, match=words):
        fit(plateau, note, epochs=3)

    assert epochs == []
