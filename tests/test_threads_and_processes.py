"""Many estimators, or one, in threads and processes: each answers as it would alone."""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import cross_validate
from torch import nn
from torch.utils.data import Dataset

from easyclf import Estimator, LambdaCallback

# loky's processes, which import torch anew, are in tests/engine/test_fitting.py and
# tests/test_everyday.py.
BACKENDS = ["threading", "multiprocessing"]
ROWS = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
LABELS = np.arange(300) % 3
FORKS = "fork" in multiprocessing.get_all_start_methods()
# Seconds after which a process that hangs is ended.
PATIENCE = 60


def make(**parameters):
    settings = {"epochs": 2, "lr": 0.01, "random_state": 0, "module__dropout": 0.3}
    return Estimator(**settings | parameters)


def weights(clf):
    return [tensor.tolist() for tensor in clf.module_.state_dict().values()]


def threads_of_a_fit():
    """With how many threads torch computes while an estimator is fitted."""
    seen = []
    watch = LambdaCallback(on_epoch_begin=lambda _: seen.append(torch.get_num_threads()))
    make(callbacks=[watch]).fit(ROWS, LABELS)
    return max(seen)


@pytest.fixture
def _two_threads():
    """torch computes with two threads, which have computed something."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    large = torch.ones(1000, 1000)
    large @ large
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("_two_threads")
def test_joblib_gives_the_fits_of_a_loop(backend, random_states):
    """T14: and no process computes with more threads than its share of the cores."""
    if backend == "multiprocessing" and not FORKS:
        pytest.skip("its processes are not forked here, and import torch anew")
    expected = [weights(clf) for clf in folds()]
    before, n_threads = random_states(), torch.get_num_threads()

    with parallel_config(backend, n_jobs=2):
        fits = folds()
        seen = Parallel()(delayed(threads_of_a_fit)() for _ in range(2))

    assert [weights(clf) for clf in fits] == expected
    assert (random_states(), torch.get_num_threads()) == (before, n_threads)
    if backend != "threading":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert all(2 * n_used <= max(2, cores) for n_used in seen)


def folds():
    scores = cross_validate(make(), ROWS, LABELS, cv=2, return_estimator=True)
    return list(scores["estimator"])


@pytest.mark.skipif(not FORKS, reason="this system forks no processes")
@pytest.mark.usefixtures("_two_threads")
def test_a_forked_process_fits_and_predicts():
    """T16: torch alone waits there forever, for threads that were not forked."""
    clf = make(module__hidden=(1000,), batch_size=-1).fit(ROWS, LABELS)
    process_id = os.fork()
    if not process_id:
        code = 1
        with contextlib.suppress(BaseException):
            signal.alarm(PATIENCE)
            again = make(module__hidden=(1000,), batch_size=-1).fit(ROWS, LABELS)
            is_same = np.allclose(again.predict_proba(ROWS), clf.predict_proba(ROWS), atol=1e-4)
            code = 0 if is_same else 2
        os._exit(code)

    assert os.waitpid(process_id, 0)[1] == 0


@pytest.mark.parametrize("compile_", ["auto", False], ids=["with tapes", "without"])
def test_fits_in_threads_are_fits_one_after_the_other(compile_, random_states):
    """T17."""

    def all_clfs():
        return [make(compile=compile_, epochs=12, batch_size=30, random_state=i) for i in range(3)]

    expected = [weights(clf.fit(ROWS, LABELS)) for clf in all_clfs()]
    before = random_states()

    with ThreadPoolExecutor(3) as pool:
        fits = list(pool.map(lambda clf: clf.fit(ROWS, LABELS), all_clfs()))

    assert [weights(clf) for clf in fits] == expected
    assert random_states() == before


class Unknown(nn.Module):
    """Of no known kind; it draws nothing, as what answers in threads beside a fit has to."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.linear(x)


@pytest.mark.parametrize("module", [None, Unknown], ids=["MLP", "unknown"])
def test_one_estimator_answers_in_eight_threads_while_it_is_fitted_anew(module, random_states):
    clf = Estimator(module, epochs=2, lr=0.01, random_state=0).fit(ROWS, LABELS)
    proba, figures = clf.predict_proba(ROWS), clf.evaluate(ROWS, LABELS)
    before = random_states()

    def answer(number):
        rows = slice(number, number + 100)
        return number, clf.predict_proba(ROWS[rows]), clf.evaluate(ROWS, LABELS)

    with ThreadPoolExecutor(9) as pool:
        fitted = pool.submit(lambda: clf.fit(ROWS, LABELS).predict_proba(ROWS))
        answers = list(pool.map(answer, range(64)))

    np.testing.assert_array_equal(fitted.result(), proba)
    for number, part, measured in answers:
        np.testing.assert_allclose(part, proba[number : number + 100], rtol=1e-5, atol=1e-7)
        assert measured == pytest.approx(figures)
    assert random_states() == before


def test_a_fit_in_a_thread_sets_no_signal_handler():
    """T15."""
    seen = []
    callback = LambdaCallback(on_batch_begin=lambda _: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        clf = pool.submit(make(callbacks=[callback]).fit, ROWS, LABELS).result()

    assert set(seen) == {before}
    assert weights(clf) == weights(make().fit(ROWS, LABELS))


def test_a_callback_may_wait_for_a_thread_that_predicts():
    """It has not to wait for the fit: both would wait forever."""
    other = make().fit(ROWS, LABELS)
    answers = []

    def predict(_):
        with ThreadPoolExecutor(1) as pool:
            answers.append(pool.submit(other.predict, ROWS).result(PATIENCE))

    make(callbacks=[LambdaCallback(on_epoch_end=predict)]).fit(ROWS, LABELS)

    assert len(answers) == 2


def test_a_dataset_that_is_predicted_in_another_thread_changes_no_draw_of_a_fit():
    """The rows of the one are read while the other one drops out."""
    is_reading, may_end = threading.Event(), threading.Event()

    class Slow(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, row):
            reads.append(row)
            if len(reads) > 1:  # the first one is to look at
                is_reading.set()
                may_end.wait(PATIENCE)
            return torch.zeros(20)

    def meet(state):
        if state.step == 1:
            started.append(pool.submit(other.predict, Slow()))
            is_reading.wait(PATIENCE)
        elif state.step == 5:
            may_end.set()

    other = make().fit(ROWS, LABELS)
    expected = weights(make(batch_size=30).fit(ROWS, LABELS))
    started, reads = [], []

    with ThreadPoolExecutor(1) as pool:
        clf = make(batch_size=30, callbacks=[LambdaCallback(on_batch_begin=meet)])
        clf.fit(ROWS, LABELS)

    assert started[0].result().shape == (2,)
    assert weights(clf) == expected
