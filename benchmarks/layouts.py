"""Where rearranged memory is faster: narrow softmax down the columns, images channels last.

Run it as `python -m benchmarks.layouts`. It finds again the constants of `easyclf.losses` (columns
and rows from which the transpose pays) and of `easyclf.modules` (weights of convolutions for each
number of a batch). A ratio below 1 says that the rearranged memory is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torchvision import models


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The fastest of several calls."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def softmax_ratio(n_rows: int, n_columns: int) -> float:
    """Time of a log-softmax down the columns of the transpose, over that along the rows."""
    x = torch.randn(n_rows, n_columns)
    down = seconds(lambda: x.t().contiguous().log_softmax(0).t(), 200)
    return down / seconds(lambda: x.log_softmax(1), 200)


def layout_ratio(module: nn.Module, images: torch.Tensor) -> float:
    """Time of a training step with channels last, over that with the channels one by one."""

    def step(x: torch.Tensor) -> None:
        module.zero_grad()
        module(x).sum().backward()

    first = seconds(lambda: step(images), 5)
    module.to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)
    return seconds(lambda: step(last), 5) / first


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
    )


def main() -> None:
    torch.set_num_threads(1)
    print("log-softmax down the columns, over along the rows")
    for n_rows in (16, 64, 1000):
        ratios = [f"{n}: {softmax_ratio(n_rows, n):.2f}" for n in (2, 4, 8, 15, 16, 32)]
        print(f"  {n_rows} rows, columns {'  '.join(ratios)}")
    print("a training step with channels last, over channels first")
    for name, make, shape in (
        ("two convolutions", convolutions, (16, 3, 32, 32)),
        ("resnet18", models.resnet18, (4, 3, 64, 64)),
        ("resnet18", models.resnet18, (16, 3, 32, 32)),
        ("resnet18", models.resnet18, (16, 3, 128, 128)),
    ):
        module, images = make(), torch.randn(shape)
        weights = sum(w.numel() for w in module.parameters() if w.ndim == 4)
        print(
            f"  {name} on {shape}, {weights / images.numel():.0f} weights a number: "
            f"{layout_ratio(module, images):.2f}"
        )


if __name__ == "__main__":
    main()
