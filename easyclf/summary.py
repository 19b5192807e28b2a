"""The layers of a module: output shapes, parameters, memory; as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from easyclf.checks import first_line_of

Shape = tuple[int, ...]
# Rows that are passed through a module. Few shapes have as many by chance: images have 3 channels,
# and recurrent layers 2 to 4 states before the rows.
_N_ROWS = 7
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Layer:
    """A layer of a module.

    Attributes
    ----------
    name : str
        Its dotted name in the module, as in `freeze=`; empty for the module itself.
    kind : str
        The name of its class.
    outputs : tuple of tuple of int
        The shapes of the tensors that it returned, rows included; empty where it was not called.
    n_parameters : int
        Numbers in its own weights, those of the layers within it left out, and those that a layer
        above has too.
    n_trainable : int
        How many of them are trained.
    shared_with : str or None
        The layer above that is this one, under its other name.
    """

    name: str
    kind: str
    outputs: tuple[Shape, ...]
    n_parameters: int
    n_trainable: int
    shared_with: str | None = None


class Summary:
    """What a module is made of. It prints as a table, and is one in notebooks.

    `Estimator.summary` makes it.

    Attributes
    ----------
    layers : list of Layer
        The module itself and all layers within it, in their order.
    n_parameters : int
        Numbers in all weights; what is shared counts once.
    n_trainable : int
        How many of them are trained.
    memory : dict of str to int
        Bytes of the "weights", of the "buffers", of the "optimizer" state, and of the "outputs" of
        all innermost layers for one row, where shapes are known.
    n_rows : int
        Rows of the batch that the shapes are of; the table writes n for it.
    """

    def __init__(
        self, layers: list[Layer], memory: Mapping[str, int], n_rows: int, note: str = ""
    ) -> None:
        self.layers = layers
        self.n_parameters = sum(layer.n_parameters for layer in layers)
        self.n_trainable = sum(layer.n_trainable for layer in layers)
        self.memory = dict(memory)
        self.n_rows = n_rows
        self._note = note

    def __str__(self) -> str:
        rows = [self._header(), *map(self._cells, self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        n_left = len(widths) - 2
        lines = [
            "  ".join(
                cell.ljust(width) if place < n_left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<div>{self.table()}</div>"

    def table(self, most_rows: int | None = None) -> str:
        """Write the layers as an HTML table, with the totals below it.

        Parameters
        ----------
        most_rows : int, default=None
            Layers to show; None shows all.

        Returns
        -------
        table : str
            Elements that go into any page.
        """
        rows = [self._html_row("th", self._header())]
        rows += [self._html_row("td", self._cells(layer)) for layer in self.layers[:most_rows]]
        n_hidden = len(self.layers) + 1 - len(rows)
        more = f"<p>... and {n_hidden} more; see <code>summary()</code></p>" if n_hidden else ""
        totals = "<br>".join(html.escape(line) for line in self._totals())
        return f'<table cellpadding="4">{"".join(rows)}</table>{more}<p>{totals}</p>'

    def _html_row(self, kind: str, cells: list[str]) -> str:
        sides = ["left"] * (len(cells) - 2) + ["right"] * 2
        row = "".join(
            f'<{kind} style="text-align: {side}">{html.escape(cell)}</{kind}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{row}</tr>"

    @property
    def _has_shapes(self) -> bool:
        return any(layer.outputs for layer in self.layers)

    def _header(self) -> list[str]:
        shapes = ["output"] if self._has_shapes else []
        return ["layer", "kind", *shapes, "parameters", "trained"]

    def _cells(self, layer: Layer) -> list[str]:
        kind = layer.kind
        if layer.shared_with is not None:
            kind += f" (is {layer.shared_with})"
        shapes = []
        if self._has_shapes:
            shapes = [", ".join(self._shape(shape) for shape in layer.outputs)]
        numbers = [layer.n_parameters, layer.n_trainable] if layer.n_parameters else []
        counts = [f"{number:,}" for number in numbers] or ["", ""]
        return [layer.name or "module_", kind, *shapes, *counts]

    def _shape(self, shape: Shape) -> str:
        parts = list(map(str, shape))
        # Recurrent layers have the rows second.
        if self.n_rows in shape[:2]:
            parts[shape.index(self.n_rows)] = "n"
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def _totals(self) -> Iterator[str]:
        trained = "all" if self.n_trainable == self.n_parameters else f"{self.n_trainable:,}"
        yield f"{self.n_parameters:,} parameters, {trained} trained"
        parts = [f"{name} {_bytes(size)}" for name, size in self.memory.items() if size]
        if parts:
            yield f"memory: {', '.join(parts)}{' a row' if 'outputs' in self.memory else ''}"
        if self._note:
            yield self._note


def summarize(
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    pass_rows: Callable[[int], object] | None = None,
) -> Summary:
    """List the layers of a module.

    Parameters
    ----------
    module : nn.Module
        It is left as it is: weights, buffers, mode and hooks.
    optimizer : torch.optim.Optimizer, default=None
        Its state is memory too.
    pass_rows : callable, default=None
        A function that passes so many rows through the module; None shows no shapes.
    """
    outputs: dict[nn.Module, tuple[Shape, ...]] = {}
    sizes: dict[nn.Module, int] = {}
    note = ""
    if pass_rows is not None:
        try:
            with _watched(module, outputs, sizes):
                pass_rows(_N_ROWS)
        except Exception as error:  # whatever a module may raise about rows of zeros
            outputs.clear()
            sizes.clear()
            note = (
                f"no shapes, since rows of zeros do not pass ({first_line_of(error)}); "
                "give rows of yours: `summary(X)`"
            )
    memory = {"weights": _size(module.parameters()), "buffers": _size(module.buffers())}
    if optimizer is not None:
        states = (value for state in optimizer.state.values() for value in state.values())
        memory["optimizer"] = _size(value for value in states if isinstance(value, torch.Tensor))
    innermost = [size for layer, size in sizes.items() if not any(True for _ in layer.children())]
    if sizes:
        memory["outputs"] = sum(innermost) // _N_ROWS
    return Summary(list(_layers(module, outputs)), memory, _N_ROWS, note)


def _layers(module: nn.Module, outputs: Mapping[nn.Module, tuple[Shape, ...]]) -> Iterator[Layer]:
    """Yield the layers in their order; weights and layers that come again count once."""
    names: dict[nn.Module, str] = {}
    counted: set[int] = set()
    for name, layer in module.named_modules(remove_duplicate=False):
        if layer in names:
            yield Layer(name, type(layer).__name__, (), 0, 0, names[layer] or "module_")
            continue
        names[layer] = name
        weights = [
            weight
            for weight in layer.parameters(recurse=False)
            if id(weight) not in counted and not is_lazy(weight)
        ]
        counted |= set(map(id, weights))
        yield Layer(
            name,
            type(layer).__name__,
            outputs.get(layer, ()),
            sum(weight.numel() for weight in weights),
            sum(weight.numel() for weight in weights if weight.requires_grad),
        )


@contextmanager
def _watched(
    module: nn.Module,
    outputs: dict[nn.Module, tuple[Shape, ...]],
    sizes: dict[nn.Module, int],
) -> Iterator[None]:
    """Note the outputs of all layers meanwhile, in evaluation mode; the module stays as it was."""

    def note(layer: nn.Module, _: object, output: object) -> None:
        tensors = list(_tensors_of(output))
        if layer not in outputs:
            outputs[layer] = tuple(tuple(tensor.shape) for tensor in tensors)
            sizes[layer] = _size(tensors)

    modes = {layer: layer.training for layer in module.modules()}
    # By their names, since a module may put another tensor in the place of one.
    buffers = [
        (layer, name, buffer, buffer.clone())
        for layer in module.modules()
        for name, buffer in layer.named_buffers(recurse=False)
    ]
    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, is_training in modes.items():
            layer.training = is_training
        with torch.no_grad():
            for layer, name, buffer, before in buffers:
                setattr(layer, name, buffer.copy_(before))


def _tensors_of(output: object) -> Iterator[torch.Tensor]:
    """Yield the tensors that a layer returned, in tuples, lists and dicts too."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors_of(part)
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors_of(part)


def _size(tensors: Iterator[torch.Tensor] | list[torch.Tensor]) -> int:
    """Bytes of tensors of any shape."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if not is_lazy(tensor))


def _bytes(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_UNITS[-1]}"
