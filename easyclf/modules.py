"""A class, factory, instance, name or nothing to an `nn.Module` of the right size."""

from __future__ import annotations

import copy
import fnmatch
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from easyclf.validation import check_keywords, did_you_mean, keyword_names, name_of

INPUT_NAMES = (
    "n_features",
    "in_features",
    "input_features",
    "num_features",
    "n_inputs",
    "num_inputs",
    "input_dim",
    "input_size",
    "in_dim",
)
OUTPUT_NAMES = (
    "n_classes",
    "num_classes",
    "out_features",
    "output_features",
    "n_outputs",
    "num_outputs",
    "output_dim",
    "output_size",
    "out_dim",
)
# Numbers of channels that pictures come with: grey, RGB, RGB with transparency.
_CHANNELS = (1, 3, 4)
ModuleLike = type[nn.Module] | Callable[..., nn.Module] | nn.Module | str | None
# What a `forward` is given: one tensor, or several by name or by place.
Tensors = torch.Tensor | dict[str, torch.Tensor] | tuple[torch.Tensor, ...]


def call(forward: Callable[..., Any], x: Tensors) -> Any:
    """What `forward` returns for one input, or for several."""
    if isinstance(x, torch.Tensor):
        return forward(x)
    return forward(**x) if isinstance(x, dict) else forward(*x)


def apply(function: Callable[[torch.Tensor], Any], x: Tensors) -> Any:
    """`function` of an input, or of each of several, in their structure."""
    if isinstance(x, torch.Tensor):
        return function(x)
    if isinstance(x, dict):
        return {name: function(one) for name, one in x.items()}
    return tuple(function(one) for one in x)


def like(x: Tensors, tensors: Sequence[torch.Tensor]) -> Tensors:
    """Other tensors in the structure of some inputs."""
    if isinstance(x, torch.Tensor):
        return tensors[0]
    return dict(zip(x, tensors, strict=True)) if isinstance(x, dict) else tuple(tensors)


def named_tensors(x: Tensors) -> list[tuple[Any, torch.Tensor]]:
    """The inputs with their names or places; the only one is called None."""
    if isinstance(x, torch.Tensor):
        return [(None, x)]
    return list(x.items() if isinstance(x, dict) else enumerate(x))


def tensors_of(x: Tensors) -> tuple[torch.Tensor, ...]:
    """The inputs, whatever they are called."""
    if isinstance(x, torch.Tensor):
        return (x,)
    return tuple(x.values()) if isinstance(x, dict) else x


class MLP(nn.Module):
    """A multilayer perceptron with ReLU that standardizes its inputs: the default module.

    Rows of more than one dimension (images) are flattened. The means and scales of the input
    columns are read from the training data at the start of `fit`, with the sample weights, so
    that unscaled data train as well as scaled ones.

    Parameters
    ----------
    n_features : int
        Numbers in a row.
    n_classes : int
        Columns of the output: one logit a class (or a label, when multilabel).
    hidden : sequence of int, default=(128,)
        Width of each hidden layer; `()` makes it a softmax regression.
    dropout : float, default=0.0
        Probability with which a hidden unit is dropped in training.

    Examples
    --------
    >>> import torch
    >>> from easyclf import MLP
    >>> MLP(n_features=4, n_classes=3, hidden=(16, 16))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    shift: torch.Tensor
    inverse_scale: torch.Tensor
    is_adapted: bool

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("inverse_scale", torch.ones(n_features))
        self.is_adapted = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : Tensor of shape (batch, ...)
            Rows of `n_features` numbers.

        Returns
        -------
        logits : Tensor of shape (batch, n_classes)
            One logit a class.
        """
        standardized = torch.addcmul(self.shift, x.flatten(1), self.inverse_scale)
        return self.layers(standardized)  # type: ignore[no-any-return]

    def adapt(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
        """Take the shift and the scale of each column from data.

        Parameters
        ----------
        batches : iterable of (Tensor, Tensor or None)
            Rows of shape (batch, ...) with their weights of shape (batch,).
        """
        weight_sum = 0.0
        origin = total = squares = torch.zeros((), device="cpu")
        for x, weight in batches:
            rows = x.detach().flatten(1).cpu().double()
            w = torch.ones(len(rows), device="cpu") if weight is None else weight.cpu()
            if not weight_sum:
                # Sums around the first rows: those around 0 would cancel for columns such as years.
                origin = rows[: min(len(rows), 256)].mean(0)
            rows = rows - origin
            weight_sum += float(w.sum())
            total = total + w.double() @ rows
            squares = squares + w.double() @ rows.square()
        mean = total / weight_sum
        variance = squares / weight_sum - mean.square()
        # What the dtype cannot tell from a constant column.
        tiny = torch.finfo(self.shift.dtype).eps ** 2 * (squares / weight_sum + origin.square())
        scale = variance.where(variance > tiny, 1.0).sqrt()
        self.inverse_scale.copy_(1 / scale)
        self.shift.copy_(-(origin + mean) / scale)
        self.is_adapted = True


def build_module(
    module: ModuleLike,
    keywords: Mapping[str, Any],
    row_shape: Any,
    n_outputs: int,
) -> nn.Module:
    """Make the module that a fit trains, with the sizes of the data where none is given.

    Parameters
    ----------
    module : class, factory, instance, torchvision model name or None
        As in `Estimator`.
    keywords : mapping
        The user's `module__*`, without the prefix.
    row_shape : tuple of int, or dict or tuple of them
        Shape of one row of the data, or of each of several inputs.
    n_outputs : int
        Number of classes, or of labels when multilabel.

    Raises
    ------
    TypeError
        If a keyword is not taken or one is missing, or the factory makes no module.
    ValueError
        If the name is unknown, or no weight of the module is to be trained.
    """
    if isinstance(module, nn.Module):
        if keywords:
            raise TypeError(
                f"`module__{next(iter(keywords))}` cannot change `module`, which is a finished "
                f"{type(module).__name__}; pass the class {type(module).__name__} instead."
            )
        built: Any = copy.deepcopy(module)
        factory: Callable[..., Any] = type(module)
    else:
        if isinstance(module, str):
            factory = functools.partial(_torchvision_model, _torchvision_name(module), n_outputs)
        else:
            if module is None and not _is_shape(row_shape):
                raise TypeError(
                    f"`X` has several inputs, of shapes {row_shape}, but the default module takes "
                    "one; pass a `module` whose `forward` takes them all."
                )
            factory = MLP if module is None else module
        named, _ = keyword_names(factory)
        sizes = _sizes(row_shape, n_outputs)
        # A default in the signature gives way to the data; what a partial fixes is the user's.
        own = factory.keywords if isinstance(factory, functools.partial) else {}
        arguments = {name: sizes[name] for name in named if name in sizes and name not in own}
        arguments |= keywords
        check_keywords(factory, keywords, "module", supplied=sizes)
        built = factory(**arguments)
    if not isinstance(built, nn.Module):
        raise TypeError(
            f"`module` {name_of(factory)} made a {type(built).__name__}; expected an nn.Module."
        )
    if not any(parameter.requires_grad for parameter in built.parameters()):
        raise ValueError(
            f"`module` {type(built).__name__} has no parameters to train; expected at least one "
            "with `requires_grad=True`."
        )
    return built


def _sizes(row_shape: Any, n_outputs: int) -> dict[str, int]:
    inputs: dict[str, int] = {}
    if _is_shape(row_shape):
        inputs = dict.fromkeys(INPUT_NAMES, math.prod(row_shape))
        if len(row_shape) == 2:
            # Sequences (steps, numbers a step): torch's recurrent layers call the latter
            # `input_size`.
            inputs["input_size"] = row_shape[1]
        if len(row_shape) == 3:
            inputs["in_channels"] = row_shape[2 if has_channels_last(row_shape) else 0]
    return inputs | dict.fromkeys(OUTPUT_NAMES, n_outputs)


def has_channels_last(row_shape: Sequence[int]) -> bool:
    """Whether rows of this shape look like images with the channels of a pixel side by side."""
    return len(row_shape) == 3 and row_shape[2] in _CHANNELS and row_shape[0] not in _CHANNELS


def _is_shape(row_shape: Any) -> bool:
    """Whether it is the shape of one input."""
    return isinstance(row_shape, tuple) and all(isinstance(size, int) for size in row_shape)


def _torchvision_name(name: str) -> str:
    from torchvision import models  # a second, and most fits never need it

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"`module` {name!r} is not a torchvision classifier{did_you_mean(name, known)}"
        )
    return name


def _torchvision_model(name: str, n_outputs: int, **keywords: Any) -> nn.Module:
    """A classifier of torchvision's, as wide as there are outputs.

    With `weights` it is as it was published but for its last layer, which is new.
    """
    from torchvision import models

    weights = keywords.get("weights")
    if weights is None:
        keywords = {"num_classes": n_outputs, **keywords}
    try:
        built: nn.Module = models.get_model(name, **keywords)
    except TypeError as error:
        shown = ", ".join(f"`module__{keyword}`" for keyword in keywords)
        raise TypeError(f"`module` {name!r} does not take one of {shown}: {error}") from error
    except OSError as error:  # of which those of urllib are a kind
        raise OSError(
            f"`module__weights` {weights!r} of {name!r} are not on this machine and cannot be "
            f"fetched ({error}); put their file into {torch.hub.get_dir()}/checkpoints, or leave "
            "`module__weights` out to begin with random ones."
        ) from error
    if weights is not None:
        _replace_last_layer(built, n_outputs)
    return built


def _replace_last_layer(module: nn.Module, n_outputs: int) -> None:
    """Put a new layer in the place of the last one, with as many outputs as there are classes."""
    layers = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not name.startswith(("aux", "AuxLogits"))
    ]
    name, last = layers[-1]
    if isinstance(last, nn.Linear):
        new: nn.Module = nn.Linear(last.in_features, n_outputs, bias=last.bias is not None)
    else:
        new = nn.Conv2d(last.in_channels, n_outputs, last.kernel_size)  # type: ignore[arg-type]
    module.set_submodule(name, new)


def prefers_channels_last(module: nn.Module, device: torch.device, n_numbers: int) -> bool:
    """Whether its convolutions are faster with the channels of a pixel side by side in memory.

    On the CPU a training step then takes 5 to 35 % less time, unless the weights, which are
    reordered in every step, are many times the `n_numbers` of a batch: `resnet18` takes 27 % more
    on 16 images of 32 x 32, where they are 230 times as many.
    """
    if device.type != "cpu" or is_any_lazy(module):
        return False
    weights = sum(
        layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d)
    )
    return 0 < weights <= 32 * n_numbers


def is_any_lazy(module: nn.Module) -> bool:
    """Whether a layer takes its sizes from the first batch that comes."""
    return any(is_lazy(tensor) for tensor in chain(module.parameters(), module.buffers()))


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


def freeze(module: nn.Module, patterns: Sequence[str] | str | None) -> list[str]:
    """Keep the weights whose names match one of the patterns as they are; the names of these.

    Raises
    ------
    ValueError
        If a pattern matches no name, or no weight is left to be trained.
    """
    named, frozen = dict(module.named_parameters()), []
    for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
        for name in matching(pattern, named, "freeze"):
            if named[name].requires_grad:
                named[name].requires_grad_(False)
                frozen.append(name)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ValueError(
            f"`freeze` {patterns!r} leaves no weight of {type(module).__name__} to be trained; "
            f"its weights are {_some(named)}."
        )
    return frozen


def matching(pattern: str, names: Iterable[str], parameter: str) -> list[str]:
    """The names of weights that a pattern matches, or those of a layer of that name."""
    found = [
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
    ]
    if not found:
        raise ValueError(
            f"`{parameter}` has the pattern {pattern!r}, which matches no weight; the names are "
            f"{_some(names)}."
        )
    return found


def _some(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:8]) + ", ..." * (len(known) > 8)


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
