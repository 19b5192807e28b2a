"""Train from a file that is larger than the memory that it takes: rows are read in blocks.

The file is made here, of noise around a plane; with yours, `np.load(path, mmap_mode="r")` is all.
"""

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
from torch import nn

from easyclf import AccuracyLogger, Estimator

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--gigabytes", type=float, default=2.0)
parser.add_argument("--epochs", type=int, default=2)
arguments = parser.parse_args()
n_rows = int(arguments.gigabytes * 2**30 / (64 * 4))


def resident():
    """Megabytes of this process (on Linux; 0 elsewhere)."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 / 2**20 if status.exists() else 0.0


def write(path):
    """A file of rows in single precision, and the side of a plane on which each of them lies."""
    rng = np.random.default_rng(0)
    plane, labels = rng.standard_normal(64), np.empty(n_rows, dtype=np.int64)
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_rows, 64))
    for start in range(0, n_rows, 2**16):
        rows = rng.standard_normal((min(2**16, n_rows - start), 64), dtype=np.float32)
        X[start : start + len(rows)] = rows
        noise = rng.standard_normal(len(rows))
        labels[start : start + len(rows)] = rows @ plane + 3 * noise > 0
    return labels


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "rows.npy")
    y = write(path)
    X = np.load(path, mmap_mode="r")
    before, peak, is_over = resident(), 0.0, threading.Event()

    def watch():
        """Note how much memory is taken."""
        global peak
        while not is_over.wait(0.01):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    clf = Estimator(
        nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        epochs=arguments.epochs,
        callbacks=[AccuracyLogger()],
        random_state=0,
    ).fit(X, y)
    is_over.set()
    watcher.join()
    rows = n_rows / float(np.mean(clf.history_["seconds"]))
    print(f"{path.stat().st_size / 2**30:.1f} GB in the file, {rows:,.0f} rows a second")
    print(f"{peak - before:.0f} MB of memory more than before, with the labels")
    print(f"accuracy {clf.history_[-1]['accuracy']:.3f}")
    del X
