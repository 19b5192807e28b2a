"""Randomness: the same seed gives the same fit, and nobody else's numbers change."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import Estimator
from easyclf.randomness import draw_seed, epoch_seed, isolated, own_states

CPU = torch.device("cpu")
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.tile([0, 1, 2, 3], 5)


def draw():
    """The next numbers of Python, NumPy and torch."""
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


def states():
    numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()


def noisy():
    """A module whose weights and outputs are drawn."""
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))


def fit(random_state, **parameters):
    settings = {"epochs": 3, "batch_size": 6}
    return Estimator(noisy, random_state=random_state, **(settings | parameters)).fit(X, Y)


# Seeds


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, np.int64(7)])
def test_int_is_the_seed_itself(seed):
    assert draw_seed(seed) == seed


def test_random_state_is_drawn_from():
    first, second = np.random.RandomState(0), np.random.RandomState(0)

    drawn = [draw_seed(first) for _ in range(3)]

    assert drawn == [draw_seed(second) for _ in range(3)]
    assert len(set(drawn)) == 3
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_none_is_another_seed_every_time_and_touches_no_global_state():
    before = states()

    seeds = {draw_seed(None) for _ in range(5)}

    assert len(seeds) == 5
    assert states() == before


def test_every_epoch_has_a_seed_of_its_own():
    seeds = {(seed, epoch): epoch_seed(seed, epoch) for seed in range(50) for epoch in range(50)}

    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds.values())


def test_seeds_of_epochs_are_those_of_splitmix64():
    """The upper halves of the first numbers of the reference implementation for seed 0."""
    numbers = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]

    assert [epoch_seed(0, epoch) for epoch in (1, 2, 3)] == [number >> 32 for number in numbers]


# Isolation


def test_block_is_seeded_and_leaves_no_trace():
    before = states()

    with isolated(5, CPU):
        first = draw()
    with isolated(5, CPU):
        second = draw()
    with isolated(6, CPU):
        third = draw()

    assert first == second
    assert not set(first) & set(third)
    assert states() == before


def test_block_leaves_no_trace_after_an_error():
    def fail():
        with isolated(5, CPU):
            draw()
            raise KeyError

    before = states()

    with pytest.raises(KeyError):
        fail()

    assert states() == before


def test_inner_block_does_not_disturb_the_outer_one():
    with isolated(5, CPU):
        expected = draw(), draw()

    with isolated(5, CPU):
        first = draw()
        with isolated(9, CPU):
            draw()
        second = draw()

    assert (first, second) == expected


def test_two_threads_are_each_reproducible():
    with isolated(1, CPU):
        expected = [draw() for _ in range(50)]
    drawn = {}

    def work(name):
        with isolated(1, CPU):
            drawn[name] = [draw() for _ in range(50)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(drawn[name] == expected for name in range(4))


def test_block_that_need_not_wait_goes_on_while_another_thread_is_in_one():
    entered, may_leave = threading.Event(), threading.Event()

    def hold():
        with isolated(1, CPU):
            entered.set()
            may_leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    with isolated(2, CPU, waits=False):
        was_held = not may_leave.is_set()
    may_leave.set()
    thread.join()

    assert was_held


# Fits


def test_same_seed_is_the_same_fit_whatever_was_run_between():
    first = fit(0)
    np.random.random(100)  # noqa: NPY002
    torch.rand(100)
    second = fit(0)

    assert second.predict_proba(X).tolist() == first.predict_proba(X).tolist()
    assert second.history_["loss"].tolist() == first.history_["loss"].tolist()


def test_same_estimator_fits_the_same_again():
    clf = fit(0)
    first = clf.predict_proba(X)

    assert clf.fit(X, Y).predict_proba(X).tolist() == first.tolist()


@pytest.mark.parametrize(("one", "other"), [(0, 1), (None, None)])
def test_other_seed_is_another_fit(one, other):
    assert fit(one).predict_proba(X).tolist() != fit(other).predict_proba(X).tolist()


def test_random_state_gives_another_fit_every_time_but_the_same_row_of_fits():
    def row():
        state = np.random.RandomState(0)
        return [fit(state).predict_proba(X).tolist() for _ in range(2)]

    first = row()

    assert first[0] != first[1]
    assert row() == first


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
def test_fit_and_its_kin_leave_the_global_states(random_state):
    before = states()

    clf = fit(random_state, validation_split=0.2)
    clf.predict(X)
    clf.predict_proba(X)
    clf.score(X, Y)
    clf.evaluate(X, Y)
    clf.partial_fit(X, Y)

    assert states() == before


def test_failed_fit_leaves_the_global_states():
    def module():
        draw()
        return nn.Linear(4, 2)

    before = states()

    with pytest.raises(ValueError, match="outputs 2 column"):
        Estimator(module).fit(X, Y)

    assert states() == before


def test_module_may_draw_from_any_generator():
    """Initial weights from NumPy, as many write them."""

    def module():
        linear = nn.Linear(4, 4)
        with torch.no_grad():
            linear.weight.fill_(np.random.random())  # noqa: NPY002
            linear.bias.fill_(random.random())
        return linear

    first, second = (Estimator(module, random_state=3, epochs=1).fit(X, Y) for _ in range(2))

    assert first.predict_proba(X).tolist() == second.predict_proba(X).tolist()


def test_module_that_draws_in_evaluation_predicts_the_same_again():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x) + torch.randn(len(x), 4)

    clf = Estimator(Noise, random_state=0, epochs=1).fit(X, Y)

    assert clf.predict_proba(X).tolist() == clf.predict_proba(X).tolist()


@pytest.mark.parametrize("random_state", [-1, 2**40, "seed", 1.5, np.random.default_rng(0)])
def test_what_scikit_learn_takes_for_no_seed_is_refused(random_state):
    with pytest.raises(ValueError, match=r"The 'random_state' parameter of Estimator must be.*Got"):
        fit(random_state)


@pytest.mark.gpu
def test_block_on_a_gpu_is_seeded_and_leaves_no_trace():
    gpu = torch.device("cuda")
    before = torch.cuda.get_rng_state().tolist()

    with isolated(5, gpu):
        first = torch.rand(3, device=gpu).tolist()
    with isolated(5, gpu):
        second = torch.rand(3, device=gpu).tolist()

    assert first == second
    assert torch.cuda.get_rng_state().tolist() == before


def test_blocks_that_threads_leave_in_any_order_leave_the_states_as_they_were():
    before = states()
    first, second = own_states(1, CPU), own_states(2, CPU)

    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    draw()
    second.__exit__(None, None, None)

    assert states() == before


def test_a_block_that_does_not_wait_keeps_the_states_until_its_own_end():
    before = states()
    is_inside, is_over = threading.Event(), threading.Event()

    def predict():
        with isolated(0, CPU, waits=False):
            is_inside.set()
            is_over.wait(10)
            draw()

    thread = threading.Thread(target=predict)
    with isolated(0, CPU):
        thread.start()
        is_inside.wait(10)
    is_over.set()
    thread.join()

    assert states() == before
