"""What every epoch measured, one row an epoch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from easyclf.checks import did_you_mean, import_optional
from easyclf.vocabulary import FOREIGN_QUANTITIES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Row = dict[str, float]


def is_better_higher(name: str, metrics: Collection[str] = ()) -> bool:
    """Tell from the name of a quantity whether more of it is better.

    More is better of a scorer, and so of all `metrics` whose names do not say that they are a loss
    or an error; `neg_log_loss` and `d2_log_loss_score` say that they are none.

    Raises
    ------
    ValueError
        If the name does not say it.
    """
    plain = name.removeprefix("val_")
    if plain.startswith(("neg_", "d2_")):
        return True
    if any(word in name for word in ("loss", "error", "seconds")):
        return False
    if plain in metrics or any(
        word in name for word in ("acc", "auc", "f1", "score", "precision", "recall")
    ):
        return True
    raise ValueError(
        f"The name {name!r} does not say whether more is better; expected a name with 'loss' "
        "(less is better), 'accuracy', 'auc' or 'score' (more is better)."
    )


class History:
    """The quantities of every epoch, in Keras's names.

    `loss` and `accuracy` are of the training data, `val_loss` and `val_accuracy` of the
    validation data; `epoch` counts from 1, `lr` is the learning rate of the first parameter
    group, and `seconds` is the duration of the epoch.

    Examples
    --------
    >>> from easyclf.history import History
    >>> history = History()
    >>> history.append({"epoch": 1, "loss": 0.7, "val_loss": 0.6})
    >>> history.append({"epoch": 2, "loss": 0.5, "val_loss": 0.65})
    >>> len(history), history["loss"].tolist()
    (2, [0.7, 0.5])
    >>> history[-1:]["val_loss"].tolist(), history[:, "loss"].tolist(), history[-1, "loss"]
    ([0.65], [0.7, 0.5], 0.5)
    >>> history.best("val_loss")
    {'epoch': 1, 'loss': 0.7, 'val_loss': 0.6}
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        # Names of what `metrics=` measures, without `val_`.
        self.metrics: tuple[str, ...] = ()

    def append(self, row: Row) -> None:
        """Add the row of an epoch.

        Parameters
        ----------
        row : dict of str to float
            Quantities and their values.
        """
        self._rows.append(dict(row))

    def add_to_last(self, quantities: Mapping[str, Any]) -> None:
        """Add to the row of the last epoch what it has not yet: the keys that callbacks made.

        Parameters
        ----------
        quantities : mapping of str to number
            All quantities; tensors of one number are numbers too.

        Raises
        ------
        TypeError
            If one is not a number.
        """
        row = self._rows[-1]
        for name, value in quantities.items():
            if name in row:
                continue
            try:
                row[name] = float(value.detach() if isinstance(value, torch.Tensor) else value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(
                    f"`state.logs[{name!r}]` is {value!r}; a quantity of the history is "
                    "one number. Keep other things in an attribute of the callback."
                ) from error

    @classmethod
    def of_rows(cls, rows: Iterable[Row], metrics: Iterable[str]) -> History:
        """Make the history of these rows, and of the names of what `metrics=` measured."""
        history = cls()
        history._rows, history.metrics = [dict(row) for row in rows], tuple(metrics)
        return history

    def __copy__(self) -> History:
        copied = History()
        copied._rows, copied.metrics = list(self._rows), self.metrics
        return copied

    def is_better_higher(self, name: str) -> bool:
        """Tell whether more of a quantity is better.

        Raises
        ------
        ValueError
            If its name does not say it, and it is none of `metrics=`.
        """
        return is_better_higher(name, self.metrics)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (dict(row) for row in self._rows)

    def keys(self) -> list[str]:
        """Names of the quantities, in the order in which they appeared.

        Returns
        -------
        names : list of str
            The names.
        """
        return list(dict.fromkeys(name for row in self._rows for name in row))

    @overload
    def __getitem__(self, name: str) -> NDArray[np.float64]: ...

    @overload
    def __getitem__(self, name: int) -> Row: ...

    @overload
    def __getitem__(self, name: slice) -> History: ...

    @overload
    def __getitem__(self, name: tuple[slice, str]) -> NDArray[np.float64]: ...

    @overload
    def __getitem__(self, name: tuple[int, str]) -> float: ...

    def __getitem__(
        self, name: str | int | slice | tuple[slice | int, str]
    ) -> NDArray[np.float64] | Row | History | float:
        if isinstance(name, tuple):
            # As skorch writes it: `history[:, "loss"]`, `history[-1, "loss"]`.
            epochs, quantity = name
            values = self[quantity][epochs]
            return values if isinstance(epochs, slice) else float(values)
        if isinstance(name, slice):
            part = History()
            part._rows, part.metrics = self._rows[name], self.metrics
            return part
        if isinstance(name, int):
            return dict(self._rows[name])
        names = self.keys()
        if name not in names:
            raise KeyError(
                f"`{name}` is not in the history"
                f"{did_you_mean(name, names, words=FOREIGN_QUANTITIES)} It has {names}."
            )
        return np.array([row.get(name, math.nan) for row in self._rows])

    def best(self, name: str = "val_loss") -> Row:
        """The row of the epoch in which a quantity was best.

        Parameters
        ----------
        name : str, default="val_loss"
            The quantity. Less is better of a loss, more of an accuracy.

        Returns
        -------
        row : dict of str to float
            All quantities of that epoch; the first one when several are equally good.

        Raises
        ------
        KeyError
            If there is no such quantity.
        ValueError
            If its name does not say whether more is better, or it was never a number.
        """
        values = self[name]
        if np.isnan(values).all():
            raise ValueError(f"`{name}` was NaN in every epoch, so none is best.")
        index = np.nanargmax(values) if self.is_better_higher(name) else np.nanargmin(values)
        return dict(self._rows[int(index)])

    def to_frame(self) -> pd.DataFrame:
        """The history as a pandas DataFrame, one row an epoch.

        Returns
        -------
        frame : pandas.DataFrame of shape (n_epochs, n_quantities)
            With the epoch as its index.
        """
        pd = import_optional("pandas", needed_by="History.to_frame")
        return pd.DataFrame(self._rows, columns=self.keys() or ["epoch"]).set_index("epoch")

    def plot(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw the curves of loss and accuracy over the epochs.

        Parameters
        ----------
        axes : tuple of two matplotlib Axes, default=None
            Where to draw; None makes a new figure with two panels.

        Returns
        -------
        axes : tuple of two matplotlib Axes
            The panels of the loss and of the accuracy.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        plt = import_optional("matplotlib.pyplot", needed_by="History.plot")
        if axes is None:
            _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
            axes = (left, right)
        epochs = self["epoch"]
        for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
            marker = "o" if len(self) == 1 else None
            ax.plot(epochs, self[quantity], label="training", marker=marker)
            measured = f"val_{quantity}"
            if measured in self.keys():
                ax.plot(epochs, self[measured], label="validation", marker=marker)
            if measured in self.keys() and not np.isnan(self[measured]).all():
                best = self.best(measured)
                extreme = "highest" if self.is_better_higher(measured) else "lowest"
                label = f"{extreme}: epoch {best['epoch']}"
                ax.plot(best["epoch"], best[measured], "ko", markersize=4, label=label)
            ax.set(xlabel="epoch", ylabel=quantity)
            ax.locator_params(axis="x", integer=True)
            ax.legend()
        return axes

    def __repr__(self) -> str:
        if not self._rows:
            return "History of 0 epochs"
        names = self.keys()
        shown: list[Row | None] = [*self._rows]
        if len(shown) > 10:
            shown = [*self._rows[:5], None, *self._rows[-5:]]
        cells = [names] + [
            ["..."] * len(names) if row is None else [_format(row.get(name)) for name in names]
            for row in shown
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in cells
        ]
        epochs = "epoch" if len(self) == 1 else "epochs"
        return "\n".join([f"History of {len(self)} {epochs}", *lines])

    def _repr_html_(self) -> str:
        names = self.keys()
        last = "".join(f"<td>{_format(self._rows[-1].get(name))}</td>" for name in names)
        head = "".join(f"<th>{name}</th>" for name in names)
        curves: list[str] = [name for name in ("loss", "val_loss") if name in names]
        table = f"<table><tr>{head}</tr><tr>{last}</tr></table>" if self._rows else ""
        return f"<div><b>History of {len(self)} epochs</b>{self._curve_svg(curves)}{table}</div>"

    def _curve_svg(self, names: list[str], width: int = 240, height: int = 60) -> str:
        """A small picture of the curves, which needs no plotting package."""
        values = {name: self[name] for name in names}
        finite = [v for curve in values.values() for v in curve if math.isfinite(v)]
        if len(self) < 2 or not finite:
            return ""
        low, span = min(finite), (max(finite) - min(finite)) or 1.0
        lines = []
        for (name, curve), color in zip(values.items(), ("#1f77b4", "#ff7f0e"), strict=False):
            points = " ".join(
                f"{index * width / (len(curve) - 1):.1f},"
                f"{height - 2 - (value - low) / span * (height - 4):.1f}"
                for index, value in enumerate(curve)
                if math.isfinite(value)
            )
            lines.append(
                f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5">'
                f"<title>{name}</title></polyline>"
            )
        return f'<svg width="{width}" height="{height}" role="img">{"".join(lines)}</svg>'


def _format(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
