"""One measurement in a process of its own: `python -m benchmarks.fresh WORK RIVAL`."""

from __future__ import annotations

import importlib
import resource
import sys
import threading
import time
from pathlib import Path


def first_fit(rival: str) -> float:
    """Milliseconds of the first fit of the process: 20 epochs of the digits."""
    importlib.import_module("easyclf")
    from benchmarks.rivals import RIVALS
    from benchmarks.workloads import TRAININGS

    training = TRAININGS["digits"]
    data = training.data()
    began = time.perf_counter()
    RIVALS[rival](training, data, "cpu")
    return 1e3 * (time.perf_counter() - began)


def import_easyclf(rival: str) -> float:
    """Milliseconds that `import easyclf` takes once torch and scikit-learn are there."""
    for name in ("torch", "sklearn"):
        importlib.import_module(name)
    began = time.perf_counter()
    importlib.import_module("easyclf")
    return 1e3 * (time.perf_counter() - began)


def memory(rival: str) -> float:
    """Megabytes that a fit of 160 MB of float32 takes at most, over those before it."""
    import numpy as np
    from torch import nn

    from benchmarks.rivals import RIVALS
    from benchmarks.workloads import Data, Training

    X = np.random.default_rng(0).standard_normal((200_000, 200), dtype=np.float32)
    data = Data(X, np.arange(len(X)) % 4)
    training = Training("", lambda: data, lambda: nn.Linear(200, 4), 1, 1000)
    RIVALS[rival](training, Data(X[:5000], data.y[:5000]), "cpu")
    before, peak, is_over = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.001):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    RIVALS[rival](training, data, "cpu")
    is_over.set()
    watcher.join()
    return peak - before


def resident() -> float:
    """Megabytes of this process, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    works = {"first_fit": first_fit, "import": import_easyclf, "memory": memory}
    print(works[sys.argv[1]](sys.argv[2]))
