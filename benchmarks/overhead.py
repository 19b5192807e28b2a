"""What easyclf adds to the loop that an expert writes by hand, on one thread.

Run it as `python -m benchmarks.overhead`. The loop keeps its tensors in memory, gathers each
minibatch, uses the fused optimizer, sums losses and hits on the device and reads them once an
epoch. Both train the same network from the same weights, and take turns; ratios are pair by pair.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import Estimator

ROWS, COLUMNS, CLASSES, BATCH = 50_000, 20, 4, 128


def by_hand(network: nn.Module, X: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """One epoch; the mean loss and the accuracy."""
    module = copy.deepcopy(network)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    order = torch.randperm(len(X))
    loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    for start in range(0, len(X), BATCH):
        rows = order[start : start + BATCH]
        x, target = X[rows], y[rows]
        outputs = module(x)
        loss = F.cross_entropy(outputs, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(x)
        hits += (outputs.detach().argmax(1) == target).sum()
    return loss_sum.item() / len(X), hits.item() / len(X)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    y = rng.integers(0, CLASSES, ROWS)
    network = nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    clf = Estimator(network, batch_size=BATCH, epochs=1, verbose=0, random_state=0)
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    pairs = []
    for number in range(repeats + 1):
        hand = lambda: by_hand(network, inputs, targets)  # noqa: E731
        ours = lambda: clf.fit(X, y)  # noqa: E731
        first, second = (hand, ours) if number % 2 else (ours, hand)
        times = {first: seconds(first)} | {second: seconds(second)}
        pairs.append((times[hand], times[ours]))
    table = np.array(pairs[1:])  # the first pair warms up
    n_batches = -(-ROWS // BATCH)
    ratios = table[:, 1] / table[:, 0]
    by_hand_us, ours_us = np.median(table, axis=0) / n_batches * 1e6
    print(f"minibatch of {BATCH}: by hand {by_hand_us:.0f} us, easyclf {ours_us:.0f} us")
    print(f"ratio: median {np.median(ratios):.3f}, {ratios.min():.3f} to {ratios.max():.3f}")

    for name, small in {
        "network": Estimator(network, epochs=1, batch_size=-1, verbose=0, random_state=0),
        "default": Estimator(epochs=1, verbose=0, random_state=0),
    }.items():
        times = [seconds(lambda fit=small: fit.fit(X[:100], y[:100])) for _ in range(repeats * 5)]
        print(f"fit of 100 rows, 1 epoch, {name} module: {np.median(times[1:]) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
