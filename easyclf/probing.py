"""How a module wants its inputs: found out by passing it a few rows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import nn

from easyclf.data import (
    Augmentation,
    Placement,
    arrangements,
    likely_arrangement,
    shapes_of,
    with_channel,
)
from easyclf.heads import Head
from easyclf.modules import (
    Probe,
    Tensors,
    advise_on_tokens,
    apply,
    embeds,
    is_any_lazy,
    named_tensors,
    prefers_channels_last,
    probe,
    tensors_of,
)

# Integer inputs of which each may be tokens or not.
_MOST_CHOSEN = 4


def row_shape(rows: Tensors, placement: Placement, *, is_vision: bool) -> Any:
    """The shape of a row as the module will probably get it, which its sizes are filled from.

    `is_vision` says that rows go through transforms of torchvision's first.
    """
    likely = None
    if isinstance(rows, torch.Tensor) and rows.ndim == 4:
        likely = likely_arrangement(rows.shape[1:])
    is_arranged = placement.preprocess is None or is_vision
    tried = placement._replace(arrange=likely if is_arranged else None)
    return shapes_of(tried.prepared(rows, is_own=False))


def find_placement(
    module: nn.Module,
    rows: Tensors,
    placement: Placement,
    batch_size: int,
    *,
    is_vision: bool,
) -> tuple[Probe, Placement, int]:
    """Find out how the module wants its inputs, and what it makes of a few rows.

    `is_vision` says that they go through transforms of torchvision's first.
    """
    ways: list[Any] = [None]
    if isinstance(rows, torch.Tensor):
        ways = arrangements(rows.shape[1:], module, is_vision=is_vision)
        if is_any_lazy(module):
            # A lazy layer takes its sizes from the first batch that comes.
            ways = [ways[0] if _needs_arrangement(rows, placement, is_vision=is_vision) else None]
    first: Exception | None = None
    for arrange in ways:
        try:
            return _probe_placement(module, rows, placement._replace(arrange=arrange), batch_size)
        except (RuntimeError, TypeError, ValueError) as error:
            first = first or error
    assert first is not None
    if ways[0] is with_channel:
        first.add_note(
            "Rows of two dimensions were taken for images of one channel; for a module that wants "
            "three, use preprocess=torchvision.transforms.v2.Grayscale(3)."
        )
    raise first


def _needs_arrangement(rows: torch.Tensor, placement: Placement, *, is_vision: bool) -> bool:
    """Whether the user's own `preprocess` leaves it to easyclf to put the channels first."""
    shape = row_shape(rows, placement, is_vision=False)
    return placement.preprocess is None or is_vision or likely_arrangement(shape) is not None


def _probe_placement(
    module: nn.Module, rows: Tensors, placement: Placement, batch_size: int
) -> tuple[Probe, Placement, int]:
    """Pass rows through the module as integers or as numbers, in the layout that suits it."""
    # The module works on a copy of its own.
    placement = placement._replace(copies=True)
    first: Exception | None = None
    choices = _token_choices(module, placement.prepared(rows, is_own=False))
    for tokens in choices:
        tried = placement._replace(tokens=tokens)
        x = tried.batch(rows, None, None, is_own=False).x
        row_numbers = max(1, sum(math.prod(one.shape[1:]) for one in tensors_of(x)))
        is_large = prefers_channels_last(module, placement.device, batch_size * row_numbers)
        try:
            seen, layout = _probe_layout(module, x, tries_channels_last=is_large)
        except IndexError as error:
            error.add_note(_probed_with(module, x) + advise_on_tokens(module, x, error))
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            if tokens is choices[-1]:
                was_embedded = len(choices) > 1
                advice = "" if was_embedded else advise_on_tokens(module, x, error)
                error.add_note(_probed_with(module, x) + advice)
                raise error from first
            first = error
            continue
        found = tried._replace(copies=seen.changes_input, layout=layout)
        return seen, found, row_numbers
    raise AssertionError("the last choice returns or raises")


def _token_choices(module: nn.Module, x: Tensors) -> list[tuple[Any, ...]]:
    """Which of the inputs may be tokens, in the order in which to try it: all integers first."""
    names = [
        name
        for name, one in named_tensors(x)
        if not one.is_floating_point() and one.dtype != torch.bool
    ]
    if not embeds(module):
        return [()]
    if len(names) > _MOST_CHOSEN:
        return [tuple(names), ()]
    sizes = range(len(names), -1, -1)
    return [chosen for size in sizes for chosen in itertools.combinations(names, size)]


def _probed_with(module: nn.Module, x: Tensors) -> str:
    shapes = apply(lambda one: tuple(one.shape), x)
    dtypes = ", ".join(str(one.dtype) for one in tensors_of(x))
    return (
        f"easyclf called {type(module).__name__}.forward with a batch of shape {shapes} and dtype "
        f"{dtypes}."
    )


def _probe_layout(
    module: nn.Module, x: Tensors, *, tries_channels_last: bool
) -> tuple[Probe, torch.memory_format]:
    if tries_channels_last and isinstance(x, torch.Tensor) and x.ndim == 4:
        layout = torch.channels_last
        try:
            return probe(module.to(memory_format=layout), x.to(memory_format=layout)), layout
        except RuntimeError:
            # It takes for granted how its features lie in memory, as `view` does.
            module.to(memory_format=torch.contiguous_format)
    return probe(module, x), torch.preserve_format


def check_augmentation(
    augmentation: Augmentation,
    head: Head,
    placement: Placement,
    rows: Tensors,
    *,
    is_weighted: bool,
) -> None:
    """Refuse an `augment` that fails, changes the shape of rows, or mixes what cannot be mixed."""
    y = head.targets(
        torch.zeros(len(tensors_of(rows)[0]), dtype=torch.int64, device=placement.device)
    )
    if augmentation.mixes and not head.takes_shares:
        raise ValueError(
            "`augment` mixes labels, as MixUp and CutMix do, which needs one output for each class "
            "and cross-entropy without weights in the loss; leave them out, or use "
            "loss='cross_entropy'."
        )
    if augmentation.mixes and is_weighted:
        raise ValueError(
            "`augment` mixes rows, as MixUp and CutMix do, but the rows have weights, and a "
            "mixture would have that of one of them; leave `sample_weight` out, or the mixing."
        )
    plain = placement.batch(rows, None, None, is_own=False)
    changed = placement._replace(augment=augmentation).batch(rows, y, None, is_own=False)
    if changed.shape != plain.shape:
        raise ValueError(
            f"`augment` makes batches of shape {changed.shape} where it should be {plain.shape}; "
            "change shapes in `preprocess`, which validation and prediction get too."
        )
    shares = changed.y if augmentation.mixes else None
    if shares is not None and shares.ndim == 2 and shares.shape[1] != head.n_outputs:
        raise ValueError(
            f"`augment` mixes labels of {shares.shape[1]} classes, but `y` has "
            f"{head.n_outputs}; pass num_classes={head.n_outputs} to MixUp or CutMix."
        )
