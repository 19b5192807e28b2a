"""How a module wants its inputs: found out by passing it a few rows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from easyclf.data import InputFormat
from easyclf.heads import Head
from easyclf.modules import is_any_lazy, prefers_channels_last
from easyclf.nested import Tensors, apply, call, named_tensors, tensors_of

# Integer inputs of which each may be tokens or not.
_MOST_CHOSEN = 4


def find_input_format(
    module: nn.Module, rows: Tensors, input_format: InputFormat, batch_size: int
) -> tuple[Probe, InputFormat, int]:
    """Find out how the module wants its inputs, and what it makes of a few rows."""
    candidates = input_format.candidates(rows, module, is_lazy=is_any_lazy(module))
    first: Exception | None = None
    for candidate in candidates:
        try:
            return _probe_input_format(module, rows, candidate, batch_size)
        except (RuntimeError, TypeError, ValueError) as error:
            first = first or error
    assert first is not None
    if candidates[0].adds_channel:
        first.add_note(
            "Rows of two dimensions were taken for images of one channel; for a module that wants "
            "three, use preprocess=torchvision.transforms.v2.Grayscale(3)."
        )
    raise first


def _probe_input_format(
    module: nn.Module, rows: Tensors, input_format: InputFormat, batch_size: int
) -> tuple[Probe, InputFormat, int]:
    """Pass rows through the module as integers or as numbers, in the layout that suits it."""
    # The module works on a copy of its own.
    input_format = replace(input_format, copies=True)
    first: Exception | None = None
    choices = _token_choices(module, input_format.prepared(rows, is_own=False))
    for tokens in choices:
        tried = replace(input_format, tokens=tokens)
        x = tried.batch(rows, None, None, is_own=False).x
        row_numbers = max(1, sum(math.prod(one.shape[1:]) for one in tensors_of(x)))
        is_large = prefers_channels_last(module, input_format.device, batch_size * row_numbers)
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
        found = replace(tried, copies=seen.changes_input, memory_format=layout)
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
    head: Head,
    input_format: InputFormat,
    rows: Tensors,
    *,
    is_weighted: bool,
) -> None:
    """Refuse an `augment` that fails, changes the shape of rows, or mixes what cannot be mixed."""
    augmentation = input_format.augment
    assert augmentation is not None
    y = head.targets(
        torch.zeros(len(tensors_of(rows)[0]), dtype=torch.int64, device=input_format.device)
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
    plain = input_format.without_augment().batch(rows, None, None, is_own=False)
    changed = input_format.batch(rows, y, None, is_own=False)
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


def embeds(module: nn.Module) -> bool:
    """Whether tokens are looked up in the module."""
    return any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in module.modules())


def advise_on_tokens(module: nn.Module, x: Tensors, error: Exception) -> str:
    """What an error may have to do with the embeddings of the module; nothing if it has none."""
    sizes = [
        layer.num_embeddings
        for layer in module.modules()
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
    ]
    if not sizes:
        return ""
    inputs = tensors_of(x)
    if not isinstance(error, IndexError):
        is_any_float = any(one.is_floating_point() for one in inputs)
        return " Its nn.Embedding needs tokens of an integer dtype." if is_any_float else ""
    tokens = [one for one in inputs if one.dtype == torch.int64 and one.numel()]
    if not tokens:
        return ""
    low, high = min(int(one.min()) for one in tokens), max(int(one.max()) for one in tokens)
    return f" Its tokens are {low} to {high}; an nn.Embedding of {sizes} rows knows 0 to one less."


class Probe(NamedTuple):
    """What forward passes on a few rows showed of a module."""

    output: Any
    evaluated: Any
    changes_input: bool


def probe(module: nn.Module, x: Tensors) -> Probe:
    """Pass a few rows through the module in both modes, and leave its buffers as they were.

    Lazy layers take their sizes here.
    """
    if is_any_lazy(module):
        module.eval()
        with torch.no_grad():
            call(module, apply(torch.clone, x))
    versions = [one._version for one in tensors_of(x)]
    # A module may write into its buffers, or put others in their place.
    buffers = [
        (layer, name, buffer, buffer.clone())
        for layer in module.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    try:
        output = call(module.train(), x)
        evaluated = call(module.eval(), x)
    finally:
        with torch.no_grad():
            for layer, name, buffer, before in buffers:
                layer._buffers[name] = buffer.copy_(before)
    return Probe(output, evaluated, versions != [one._version for one in tensors_of(x)])
