"""Ctrl-C during a fit."""

import signal
import threading

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.utils.validation import check_is_fitted

from easyclf import Estimator, LambdaCallback
from easyclf.engine.interrupts import deferred_interrupts


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own handler, whatever a test does to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times=1):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def pressing(hook, at, times=1, calls=None):
    """A callback that presses Ctrl-C when a hook is called for the n-th time."""
    calls = [] if calls is None else calls

    def count(state):
        calls.append(state.step)
        if len(calls) == at:
            press(times)

    return LambdaCallback(**{hook: count})


def estimator(network, *callbacks, **parameters):
    keywords = {"optimizer": "sgd", "lr": 0.1, "epochs": 5, "batch_size": 10, "shuffle": False}
    return Estimator(network, callbacks=list(callbacks), **{**keywords, **parameters})


def test_the_first_is_put_off_until_it_is_asked_about():
    with deferred_interrupts() as interruption:
        press()

        with pytest.raises(KeyboardInterrupt):
            interruption.check()


def test_the_second_ends_at_once():
    steps = []

    def press_twice():
        with deferred_interrupts():
            for step in (1, 2, 3):
                steps.append(step)
                press()

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert steps == [1, 2]


def test_one_that_nobody_asked_about_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        press()


def test_another_error_is_not_replaced():
    def fail():
        with deferred_interrupts():
            press()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize("times", [0, 1])
def test_the_handler_is_pythons_again_afterwards(times):
    try:
        with deferred_interrupts():
            press(times)
    except KeyboardInterrupt:
        pass

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_is_left_alone(blobs, network):
    received = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))

    clf = estimator(network, pressing("on_batch_end", 1)).fit(*blobs)

    assert received == [signal.SIGINT]
    assert clf.n_iter_ == 5


def test_a_handler_that_a_hook_sets_stays(blobs, network):
    def ignore(number, frame):
        pass

    set_it = LambdaCallback(on_epoch_begin=lambda state: signal.signal(signal.SIGINT, ignore))

    estimator(network, set_it).fit(*blobs)

    assert signal.getsignal(signal.SIGINT) is ignore


def test_no_handler_is_set_in_another_thread(blobs, network):
    clf, failed = estimator(network), []

    def fit():
        try:
            clf.fit(*blobs)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()

    assert failed == []
    np.testing.assert_array_equal(
        clf.predict_proba(blobs[0]), estimator(network).fit(*blobs).predict_proba(blobs[0])
    )


def test_the_batch_at_hand_is_finished_and_what_was_learned_is_kept(blobs, network):
    """Three batches an epoch: Ctrl-C in the second epoch's second batch."""
    X, y = blobs
    clf = estimator(network, pressing("on_batch_begin", 5))

    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)

    expected = estimator(network, epochs=1).fit(X, y)
    expected.set_params(warm_start=True).fit(X[:20], y[:20])
    check_is_fitted(clf)
    assert clf.n_iter_ == len(clf.history_) == 1
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
def test_one_in_any_hook_ends_the_run(hook, blobs, network):
    clf = estimator(network, pressing(hook, 1))

    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs)

    assert clf.n_iter_ <= 1
    assert clf.predict(blobs[0]).shape == (30,)


def test_two_end_in_the_middle_of_a_hook_and_keep_what_was_learned(blobs, network):
    calls = []
    clf = estimator(network, pressing("on_batch_begin", 4, times=2, calls=calls))

    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs)

    assert len(calls) == 4
    assert clf.n_iter_ == 1
    np.testing.assert_array_equal(
        clf.predict_proba(blobs[0]),
        estimator(network, epochs=1).fit(*blobs).predict_proba(blobs[0]),
    )


def test_a_callback_that_raises_it_leaves_the_estimator_fitted(blobs, network):
    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    clf = estimator(network, LambdaCallback(on_epoch_end=interrupt))

    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs)

    assert clf.n_iter_ == 2
    assert not clf.module_.training
    np.testing.assert_array_equal(
        clf.predict_proba(blobs[0]),
        estimator(network, epochs=2).fit(*blobs).predict_proba(blobs[0]),
    )


def test_a_fit_can_go_on_after_an_interruption(blobs, network):
    clf = estimator(network, pressing("on_epoch_end", 2), optimizer="adam", lr=0.01)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs)

    clf.set_params(callbacks=None, warm_start=True).fit(*blobs, epochs=3)

    expected = estimator(network, optimizer="adam", lr=0.01).fit(*blobs)
    assert clf.n_iter_ == 5
    np.testing.assert_array_equal(clf.predict_proba(blobs[0]), expected.predict_proba(blobs[0]))


def test_a_partial_fit_is_interrupted_in_the_same_way(blobs, network):
    class PressesOnce(type(network)):
        def forward(self, x):
            if self.training and len(x) == 10 and not getattr(self, "is_pressed", False):
                self.is_pressed = True
                press()
            return super().forward(x)

    clf = estimator(PressesOnce(*network))

    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(*blobs, classes=[0, 1, 2])

    assert clf.predict(blobs[0]).shape == (30,)


def test_a_grid_search_ends_with_the_fit_that_is_interrupted(blobs, network):
    fits = []
    clf = estimator(
        network,
        LambdaCallback(on_train_begin=fits.append),
        pressing("on_batch_end", 1),
    )

    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(clf, {"lr": [0.1, 0.2]}, cv=2).fit(*blobs)

    assert len(fits) == 1


def test_the_handler_is_put_back_though_another_one_raises_meanwhile(monkeypatch):
    """As torch's does for a dead worker, in whatever call of Python's."""

    def fail(number, frame):
        raise RuntimeError("a worker died")

    def set_late(number, handler):
        if handler is signal.default_int_handler and not raised:
            raised.append(number)
            fail(number, None)
        return usual(number, handler)

    raised, usual = [], signal.signal
    with pytest.raises(RuntimeError, match="a worker died"), deferred_interrupts():
        monkeypatch.setattr(signal, "signal", set_late)

    assert raised
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
