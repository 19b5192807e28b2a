"""What several test files share: small data, a small network, and a look at the random states.

torch is imported in functions: the process that only hands tests out to others needs none.
"""

import gc
import random
import signal
import sys

import numpy as np
import pytest

# How many modules were there when what is imported was last taken out of garbage collections.
_n_frozen = 0


def pytest_configure():
    """Ctrl-C works also where a shell has begun the tests in the background, and ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection():
    """What all tests import is not searched for garbage on the way: it stays."""
    import torch

    # The networks here are so small that a second thread only costs.
    torch.set_num_threads(1)
    gc.disable()


def _freeze_what_is_imported():
    """What tests have imported stays: without it a garbage collection is short."""
    global _n_frozen
    gc.collect()
    gc.freeze()
    _n_frozen = len(sys.modules)


def pytest_collection_finish():
    from hypothesis import given, settings
    from hypothesis.strategies import none

    # In its first test hypothesis asks the collector who holds the generators that it seeds.
    settings(max_examples=1, database=None)(given(none())(lambda _: None))()
    gc.enable()
    # A tenth of the searches: they took a fortieth of all time.
    gc.set_threshold(10 * gc.get_threshold()[0])
    _freeze_what_is_imported()


def pytest_runtest_logfinish():
    # torch's compiler alone has a thousand.
    if _n_frozen and len(sys.modules) > _n_frozen + 300:
        _freeze_what_is_imported()


def pytest_unconfigure():
    """What is frozen would not be taken down in order when the process ends."""
    gc.unfreeze()


def pytest_runtest_setup(item):
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")


def seed_host(seed):
    """Seed torch's generator of the host.

    `torch.manual_seed` notes the stack for each kind of device that is not there, in 2 ms.
    """
    import torch

    torch.default_generator.manual_seed(seed)


@pytest.fixture(autouse=True)
def _seeded():
    """Modules that a test makes by hand begin with the same weights in every run."""
    seed_host(0)


@pytest.fixture
def blobs():
    """Thirty float32 rows of four columns, in three classes that lines can part."""
    y = np.tile([0, 1, 2], 10)
    noise = np.random.default_rng(0).normal(scale=0.5, size=(30, 4))
    return (noise + 3 * np.eye(3, 4)[y]).astype(np.float32), y


@pytest.fixture
def network():
    """An untrained network for `blobs`: the same weights in every test."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        seed_host(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def random_states():
    """A function that reads the global random states of Python, NumPy and torch."""
    import torch

    def read():
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        return python, numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()

    return read
