"""How a module wants its inputs, and what it returns: found out by passing it a few rows."""

from __future__ import annotations

import functools
import itertools
import math
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from easyclf.data import InputFormat
from easyclf.device import HOST
from easyclf.heads import Head, ProbedOutputs
from easyclf.modules import is_any_lazy, prefers_channels_last
from easyclf.nested import Tensors, apply, call, first_of, named_tensors, tensors_of
from easyclf.output_choice import OutputChoice
from easyclf.snapshots import Snapshot

# Integer inputs of which each may be tokens or not: with more, all of them are or none is.
_MOST_CHOSEN = 4
# How much the weights are changed in turn, in multiples of their size: little at first, since a
# softmax written by hand overflows under large weights, then so much that logits surely show.
_VARIATIONS = (1, 1, 4, 4, 16, 16, 16, 16)
# Packages whose layers do with a few rows what they do with many. Others may write to their inputs
# at some sizes only, which no few rows show.
_KNOWN = ("torch.nn.", "easyclf.")
# Layers that take the deviation of the rows of a batch. A lazy one becomes one of the others only
# when it has seen rows.
_BATCH_NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LazyBatchNorm1d,
    nn.LazyBatchNorm2d,
    nn.LazyBatchNorm3d,
    nn.SyncBatchNorm,
)
# An input's name, or its place; None is the only input.
InputName = str | int | None


class ProbedModule(NamedTuple):
    """What forward passes on a few rows showed of a module.

    Attributes
    ----------
    outputs : ProbedOutputs
        What it returned, with the graph.
    input_format : InputFormat
        Where and as what it wants its inputs.
    row_numbers : int
        Numbers in a row, as it gets it.
    """

    outputs: ProbedOutputs
    input_format: InputFormat
    row_numbers: int


def probe_module(
    module: nn.Module,
    rows: Tensors,
    input_format: InputFormat,
    batch_size: int,
    choice: OutputChoice,
) -> ProbedModule:
    """Find out how a module wants its inputs, and what it makes of a few rows.

    Parameters
    ----------
    module : nn.Module
        On the device of the format. Its buffers are left as they were; lazy layers take their
        sizes.
    rows : Tensors of shape (n_rows, ...)
        In the dtype in which they were given. They are not written to.
    input_format : InputFormat
        What is known of the format so far.
    batch_size : int
        Rows in a batch of the training.
    choice : OutputChoice
        Which part of what the module returns is the output.

    Raises
    ------
    RuntimeError, TypeError, ValueError, IndexError
        If the module takes the rows in no way that was tried: the error of the first way.
    """
    candidates = input_format.candidates(rows, module, is_lazy=is_any_lazy(module))
    first_error: Exception | None = None
    for candidate in candidates:
        try:
            probed = _probe_dtypes(module, rows, candidate, batch_size, choice)
            return probed._replace(
                input_format=replace(probed.input_format, augment=input_format.augment)
            )
        except (RuntimeError, TypeError, ValueError) as error:
            first_error = first_error or error
    assert first_error is not None
    if candidates[0].adds_channel:
        first_error.add_note(
            "Rows of two dimensions were taken for images of one channel; for a module that wants "
            "three, use preprocess=torchvision.transforms.v2.Grayscale(3)."
        )
    raise first_error


def _probe_dtypes(
    module: nn.Module,
    rows: Tensors,
    input_format: InputFormat,
    batch_size: int,
    choice: OutputChoice,
) -> ProbedModule:
    """Pass rows through the module with integers as tokens, or else as numbers."""
    # The module gets memory of its own until it is known not to write to it.
    input_format = replace(input_format, copies=True)
    choices = _token_choices(module, input_format.prepared(rows, is_own=False))
    first_error: Exception | None = None
    for tokens in choices:
        try:
            return _probe_memory(
                module, rows, replace(input_format, tokens=tokens), batch_size, choice
            )
        except IndexError as error:
            error.add_note(_advise_on_batch(module, rows, input_format, tokens, error))
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            if tokens is choices[-1]:
                error.add_note(_advise_on_batch(module, rows, input_format, tokens, error))
                raise error from first_error
            first_error = error
    raise AssertionError("the last choice returns or raises")


def _token_choices(module: nn.Module, x: Tensors) -> list[tuple[InputName, ...]]:
    """Which of the inputs may be tokens, in the order in which to try it: all integers first."""
    names = [
        name
        for name, tensor in named_tensors(x)
        if not tensor.is_floating_point() and tensor.dtype != torch.bool
    ]
    if not embeds(module):
        return [()]
    if len(names) > _MOST_CHOSEN:
        return [tuple(names), ()]
    sizes = range(len(names), -1, -1)
    return [chosen for size in sizes for chosen in itertools.combinations(names, size)]


def _advise_on_batch(
    module: nn.Module,
    rows: Tensors,
    input_format: InputFormat,
    tokens: tuple[InputName, ...],
    error: Exception,
) -> str:
    """Say which batch an error came of, and what it may have to do with embeddings."""
    x = replace(input_format, tokens=tokens).batch(rows, None, None, is_own=False).x
    shapes = apply(lambda tensor: tuple(tensor.shape), x)
    dtypes = ", ".join(str(tensor.dtype) for tensor in tensors_of(x))
    return (
        f"easyclf called {type(module).__name__}.forward with a batch of shape {shapes} and dtype "
        f"{dtypes}.{advise_on_tokens(module, x, error)}{_advise_on_width(module, error)}"
    )


def _advise_on_width(module: nn.Module, error: Exception) -> str:
    """Say which linear layer an error came of, if it was given rows of another width than its own.

    The layer is on the way of the error, so it need not be known which one gets the rows first.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is nn.Linear.forward.__code__:
            layer, x = frame.f_locals["self"], frame.f_locals["input"]
            if isinstance(x, torch.Tensor) and x.ndim and x.shape[-1] != layer.in_features:
                name = next((name for name, part in module.named_modules() if part is layer), "")
                return (
                    f" {f'Its layer {name!r}' if name else type(layer).__name__} takes "
                    f"{layer.in_features} numbers a row, and was given {x.shape[-1]}."
                )
    return ""


def _probe_memory(
    module: nn.Module,
    rows: Tensors,
    input_format: InputFormat,
    batch_size: int,
    choice: OutputChoice,
) -> ProbedModule:
    """Pass rows through the module in the order in memory that suits it."""
    x = input_format.batch(rows, None, None, is_own=False).x
    row_numbers = max(1, sum(math.prod(tensor.shape[1:]) for tensor in tensors_of(x)))
    is_image = isinstance(x, torch.Tensor) and x.ndim == 4
    if is_image and prefers_channels_last(module, input_format.device, batch_size * row_numbers):
        pixels_together = replace(input_format, memory_format=torch.channels_last)
        try:
            module.to(memory_format=torch.channels_last)
            x = pixels_together.batch(rows, None, None, is_own=False).x
            return _passed(module, x, pixels_together, row_numbers, choice)
        except RuntimeError:
            # It takes for granted how its features lie in memory, as `view` does.
            module.to(memory_format=torch.contiguous_format)
            x = input_format.batch(rows, None, None, is_own=False).x
    return _passed(module, x, input_format, row_numbers, choice)


def _passed(
    module: nn.Module,
    x: Tensors,
    input_format: InputFormat,
    row_numbers: int,
    choice: OutputChoice,
) -> ProbedModule:
    """Pass inputs through the module in both modes; its buffers stay as they were.

    Parameters
    ----------
    x : Tensors of shape (n_rows, ...)
        The module may write to them.
    """
    if is_any_lazy(module):
        module.eval()
        with torch.no_grad():
            call(module, apply(torch.clone, x))
    before = Snapshot(module)
    untouched, versions = apply(torch.clone, x), list(map(_version, tensors_of(x)))
    try:
        output = choice(call(module.train(), x))
        evaluated = choice(call(module.eval(), x))
    finally:
        before.restore()
    # Work in place counts in the version, work on `x.data` shows in the values alone.
    is_untouched = versions == list(map(_version, tensors_of(x))) and all(
        map(torch.equal, tensors_of(apply(torch.Tensor.detach, x)), tensors_of(untouched))
    )
    is_known = all(type(layer).__module__.startswith(_KNOWN) for layer in module.modules())
    outputs = ProbedOutputs(
        type(module).__name__,
        len(first_of(x)),
        output,
        evaluated,
        functools.partial(_vary_outputs, module, untouched, choice),
        {"x": untouched, "module": module},
    )
    return ProbedModule(
        outputs, replace(input_format, copies=not (is_untouched and is_known)), row_numbers
    )


def _vary_outputs(module: nn.Module, x: Tensors, choice: OutputChoice) -> Iterator[torch.Tensor]:
    """Yield what the module returns in evaluation when random numbers are added to its weights.

    Its weights and buffers are put back after each pass, and where it fails under such weights
    nothing more comes.

    Parameters
    ----------
    x : Tensors of shape (n_rows, ...)
        It is not written to.
    """
    snapshot = Snapshot(module)
    generator = torch.Generator(HOST).manual_seed(0)
    for factor in _VARIATIONS:
        try:
            with torch.no_grad():
                _vary_weights(module, factor, generator)
                output = choice(call(module.eval(), apply(torch.clone, x)))
        except Exception:  # some check of the module's own, which such weights do not pass
            return
        finally:
            snapshot.restore()
        yield output


def _vary_weights(module: nn.Module, factor: float, generator: torch.Generator) -> None:
    """Add random numbers of `factor` times their size to the weights, in place."""
    for weight in module.parameters():
        if weight.is_floating_point():
            noise = torch.randn(weight.shape, generator=generator, device=HOST)
            # Also weights that are 0 change.
            size = weight.square().mean().sqrt() + 0.1
            weight.add_(noise.to(weight) * (factor * size))


def _version(x: torch.Tensor) -> object:
    """How often a tensor was written to; without that private count, something new each time."""
    try:
        return x._version
    except (AttributeError, RuntimeError, TypeError):
        return object()


def check_augmentation(
    head: Head, input_format: InputFormat, rows: Tensors, *, is_weighted: bool
) -> None:
    """Refuse an `augment` that fails, changes the shape of rows, or mixes what cannot be mixed.

    Parameters
    ----------
    head : Head
        On the device of the format.
    input_format : InputFormat
        As it was probed, with `augment`.
    rows : Tensors of shape (n_rows, ...)
        In the dtype in which they were given. They are not written to.
    is_weighted : bool
        Whether rows have weights.
    """
    augment = input_format.augment
    if augment is None:
        return
    if augment.mixes and not head.takes_shares:
        raise ValueError(
            "`augment` mixes labels, as MixUp and CutMix do, which needs one output for each class "
            "and cross-entropy without weights in the loss; leave them out, or use "
            "loss='cross_entropy'."
        )
    if augment.mixes and is_weighted:
        raise ValueError(
            "`augment` mixes rows, as MixUp and CutMix do, but the rows have weights, and a "
            "mixture would have that of one of them; leave `sample_weight` out, or the mixing."
        )
    codes = torch.zeros(len(first_of(rows)), dtype=torch.int64, device=input_format.device)
    plain = input_format.without_augment().batch(rows, None, None, is_own=False)
    augmented = input_format.batch(rows, head.targets(codes), None, is_own=False)
    if augmented.shape != plain.shape:
        raise ValueError(
            f"`augment` makes batches of shape {augmented.shape} where it should be {plain.shape}; "
            "change shapes in `preprocess`, which validation and prediction get too."
        )
    shares = augmented.y if augment.mixes else None
    if shares is not None and shares.ndim == 2 and shares.shape[1] != head.n_outputs:
        raise ValueError(
            f"`augment` mixes labels of {shares.shape[1]} classes, but `y` has "
            f"{head.n_outputs}; pass num_classes={head.n_outputs} to MixUp or CutMix."
        )


def embeds(module: nn.Module) -> bool:
    """Tell whether tokens are looked up in the module."""
    return any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in module.modules())


def advise_on_tokens(module: nn.Module, x: Tensors, error: Exception) -> str:
    """Say what an error may have to do with the embeddings of the module, if it has any.

    Parameters
    ----------
    x : Tensors of shape (n_rows, ...)
        The inputs that the module failed on.
    """
    sizes = [
        layer.num_embeddings
        for layer in module.modules()
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
    ]
    if not sizes:
        return ""
    inputs = tensors_of(x)
    if not isinstance(error, IndexError):
        is_any_float = any(tensor.is_floating_point() for tensor in inputs)
        return " Its nn.Embedding needs tokens of an integer dtype." if is_any_float else ""
    tokens = [tensor for tensor in inputs if tensor.dtype == torch.int64 and tensor.numel()]
    if not tokens:
        return ""
    low = min(int(tensor.min()) for tensor in tokens)
    high = max(int(tensor.max()) for tensor in tokens)
    return f" Its tokens are {low} to {high}; an nn.Embedding of {sizes} rows knows 0 to one less."


def fewest_rows(module: nn.Module, n_rows: int | None, batch_size: int) -> int:
    """Find how many rows a last batch needs to stand alone: else it joins the one before it.

    Batch normalization cannot take the deviation of one row.

    Raises
    ------
    ValueError
        If some batch can have no more than one.
    """
    if not any(isinstance(layer, _BATCH_NORMALIZATIONS) for layer in module.modules()):
        return 1
    if n_rows == 1 or (batch_size == 1 and (n_rows is None or n_rows > 2)):
        raise ValueError(
            f"{type(module).__name__} has batch normalization, which needs at least 2 rows in "
            f"a batch; got {n_rows} row(s) and `batch_size` {batch_size}."
        )
    return 2
