"""A class, factory, instance, name or nothing to an `nn.Module` of the right size."""

from __future__ import annotations

import copy
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
ModuleLike = type[nn.Module] | Callable[..., nn.Module] | nn.Module | str | None


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
    sample_shape: Sequence[int],
    n_outputs: int,
) -> nn.Module:
    """Make the module that a fit trains, with the sizes of the data where none is given.

    Parameters
    ----------
    module : class, factory, instance, torchvision model name or None
        As in `Estimator`.
    keywords : mapping
        The user's `module__*`, without the prefix.
    sample_shape : sequence of int
        Shape of one row of the data.
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
            factory = _torchvision_builder(module)
            keywords = {"weights": None, "num_classes": n_outputs, **keywords}
        else:
            factory = MLP if module is None else module
        named, _ = keyword_names(factory)
        sizes = _sizes(sample_shape, n_outputs)
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


def _sizes(sample_shape: Sequence[int], n_outputs: int) -> dict[str, int]:
    inputs = dict.fromkeys(INPUT_NAMES, math.prod(sample_shape))
    if len(sample_shape) == 2:
        # Sequences (steps, numbers a step): torch's recurrent layers call the latter `input_size`.
        inputs["input_size"] = sample_shape[1]
    if len(sample_shape) == 3:
        inputs["in_channels"] = sample_shape[0]
    return inputs | dict.fromkeys(OUTPUT_NAMES, n_outputs)


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    from torchvision import models  # a second, and most fits never need it

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"`module` {name!r} is not a torchvision classifier{did_you_mean(name, known)}"
        )

    def torchvision_model(**keywords: Any) -> nn.Module:
        try:
            built: nn.Module = models.get_model(name, **keywords)
        except TypeError as error:
            shown = ", ".join(f"`module__{keyword}`" for keyword in keywords)
            raise TypeError(f"`module` {name!r} does not take one of {shown}: {error}") from error
        return built

    return torchvision_model


def prefers_channels_last(module: nn.Module, device: torch.device, n_numbers: int) -> bool:
    """Whether its convolutions are faster with the channels of a pixel side by side in memory.

    On the CPU a training step then takes 5 to 35 % less time, unless the weights, which are
    reordered in every step, are many times the `n_numbers` of a batch: `resnet18` takes 27 % more
    on 16 images of 32 x 32, where they are 230 times as many.
    """
    if device.type != "cpu" or any(is_lazy(parameter) for parameter in module.parameters()):
        return False
    weights = sum(
        layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d)
    )
    return 0 < weights <= 32 * n_numbers


class Probe(NamedTuple):
    """What forward passes on a few rows showed of a module."""

    output: Any
    evaluated: Any
    input_dtype: torch.dtype
    changes_input: bool


def probe(module: nn.Module, rows: torch.Tensor, dtype: torch.dtype) -> Probe:
    """Pass a few rows through the module in both modes, and leave its buffers as they were.

    Integer rows reach the module as integers where an `nn.Embedding` is to look them up. Lazy
    layers take their sizes here.
    """
    candidates = [dtype]
    embeds = any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in module.modules())
    if embeds and not rows.is_floating_point():
        candidates.insert(0, torch.int64)
    first: Exception | None = None
    while True:
        candidate = candidates.pop(0)
        try:
            return _probe(module, rows.to(candidate, copy=True))
        except (RuntimeError, TypeError, ValueError) as error:
            if not candidates:
                error.add_note(
                    f"easyclf called {type(module).__name__}.forward with a batch of shape "
                    f"{tuple(rows.shape)} and dtype {candidate}."
                    + " It has an nn.Embedding, which needs tokens of an integer dtype."
                    * (embeds and first is None)
                )
                raise error from first
            first = error


def _probe(module: nn.Module, x: torch.Tensor) -> Probe:
    if any(is_lazy(tensor) for tensor in chain(module.parameters(), module.buffers())):
        module.eval()
        with torch.no_grad():
            module(x.clone())
    version, dtype = x._version, x.dtype
    # A module may write into its buffers, or put others in their place.
    buffers = [
        (layer, name, buffer, buffer.clone())
        for layer in module.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    try:
        output = module.train()(x)
        evaluated = module.eval()(x)
    finally:
        with torch.no_grad():
            for layer, name, buffer, before in buffers:
                layer._buffers[name] = buffer.copy_(before)
    return Probe(output, evaluated, dtype, x._version != version)
