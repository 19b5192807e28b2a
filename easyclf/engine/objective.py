"""The loss and the hits of a batch, as a pure function of its outputs."""

from __future__ import annotations

import torch

from easyclf.data import Batch
from easyclf.engine.metrics import BatchResult
from easyclf.heads import Head
from easyclf.precision import Forward, Precision


def measure(forward: Forward, head: Head, precision: Precision, batch: Batch) -> BatchResult:
    """One forward pass: the loss, with its graph, and the hits of a batch."""
    outputs = precision.run(forward, batch.x)
    assert batch.y is not None
    losses = head.losses(outputs, batch.y)
    hits = head.hits(outputs.detach(), batch.y)
    weights = head.loss_weights(batch.y, batch.weight)
    # Counts of hits are exact in float32 up to batches of 16 million rows.
    if weights is None:
        n_rows = len(losses)
        return BatchResult(losses.mean(), n_rows, hits.sum(dtype=losses.dtype), n_rows)
    row_weights = torch.ones_like(weights) if batch.weight is None else batch.weight
    total = weights.sum()
    # A batch may hold only rows whose class has weight 0.
    loss = (losses * weights).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
    return BatchResult(loss, total, (hits * row_weights).sum(), row_weights.sum())
