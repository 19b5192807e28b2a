"""Processes with a pretend device: `python -m pytest -n 2 tests/device`.

The device cannot be taken back, so the other tests do not run in these processes. It is imported
in functions: the process that only hands tests out to others needs neither it nor torch.
"""

import os

import pytest


def pytest_collection_modifyitems(items):
    import pretend_device

    if pretend_device.has_compiler():
        return
    if os.environ.get("CI") == "true":
        pytest.exit("there is no g++ to compile tests/pretend_device with", returncode=1)
    for item in items:
        item.add_marker(pytest.mark.skip(reason="needs g++, or a pretend device compiled before"))


@pytest.fixture(scope="session")
def _installed():
    import pretend_device

    pretend_device.install()


@pytest.fixture(autouse=True)
def like_cuda(_installed, monkeypatch):
    """Take the device for one that pins and has the fused kernels, as CUDA."""
    import torch

    import easyclf.device
    import pretend_device

    fused = easyclf.device._FUSED_OPTIMIZERS["cuda"]
    monkeypatch.setattr(easyclf.device, "_PINNING", frozenset({"pretend"}))
    monkeypatch.setitem(easyclf.device._FUSED_OPTIMIZERS, "pretend", fused)
    easyclf.device.has_float64.cache_clear()
    pretend_device.reset()
    yield
    easyclf.device.has_float64.cache_clear()
    torch.accelerator.set_device_index(0)


@pytest.fixture
def like_apples(like_cuda, monkeypatch):
    """Take the device for one without float64, which reads memory late, pinned or not."""
    import torch

    import easyclf.device
    import pretend_device

    monkeypatch.setattr(easyclf.device, "_PINNING", frozenset())
    with pretend_device.like_apples():
        yield
        torch.accelerator.synchronize()
        assert not pretend_device.counts().get("race"), "memory was changed before it was read"
