"""What every epoch measured, one row an epoch."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from easyclf.checks import did_you_mean, import_optional
from easyclf.device import HOST
from easyclf.displays import TrainingDisplay
from easyclf.sketches import Mark, draw_curves
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


def quantity_hint(name: str, names: Collection[str]) -> str:
    """Say, in a clause, which quantity is probably meant, or how to have it measured."""
    is_validated = any(other.startswith("val_") for other in names)
    if name.startswith("val_") and not is_validated and name[4:] in names:
        return "; give `validation_data` to `fit`, or `validation_split` to Estimator."
    return did_you_mean(name, names, words=FOREIGN_QUANTITIES)


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
                f"`{name}` is not in the history{quantity_hint(name, names)} It has {names}."
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

    def plot(
        self,
        axes: Axes | Sequence[Axes] | None = None,
        quantities: str | Sequence[str] | None = None,
    ) -> tuple[Axes, ...]:
        """Draw the curves of loss and accuracy over the epochs, or of other quantities.

        Parameters
        ----------
        axes : matplotlib Axes or sequence of them, default=None
            Where to draw, a panel for each quantity; None makes a new figure.
        quantities : str or sequence of str, default=None
            Names of quantities, as in `TrainingDisplay.plot`; None is loss and accuracy.

        Returns
        -------
        axes : tuple of matplotlib Axes
            The panels.

        Raises
        ------
        KeyError
            If there is no such quantity.
        ImportError
            If matplotlib is not installed.

        See Also
        --------
        easyclf.TrainingDisplay : The same for several runs.
        """
        return tuple(TrainingDisplay([self]).plot(axes, quantities=quantities).axes_)

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
        return "\n".join([f"History of {_count(len(self))}", *lines])

    def _repr_html_(self) -> str:
        names = self.keys()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        row = self._rows[-1] if self._rows else {}
        last = "".join(f"<td>{_format(row.get(name))}</td>" for name in names)
        table = (
            f'<table cellpadding="4"><tr>{head}</tr><tr>{last}</tr></table>' if self._rows else ""
        )
        title = f"<b>History of {_count(len(self))}</b>"
        return f"<div>{title}<div>{self._sketch()}</div>{table if self._rows else ''}</div>"

    def _sketch(self) -> str:
        """A small picture of the losses, which needs no plotting package."""
        names = [name for name in ("loss", "val_loss") if name in self.keys()]
        if not names:
            return ""
        mark = None
        if "val_loss" in names and not np.isnan(self["val_loss"]).all():
            best = self.best("val_loss")
            if math.isfinite(best["val_loss"]):
                mark = Mark(best["epoch"], best["val_loss"], f"lowest: epoch {best['epoch']}")
        return draw_curves(self["epoch"], {name: self[name] for name in names}, mark)


def _count(n_epochs: int) -> str:
    return f"{n_epochs} {'epoch' if n_epochs == 1 else 'epochs'}"


def _format(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def columns_of(history: History) -> dict[str, torch.Tensor]:
    """Put the figures of a history into tensors, which files hold.

    Parameters
    ----------
    history : History
        Its quantities have names of any kind, so the columns are numbered.

    Returns
    -------
    columns : dict of str to Tensor of shape (n_epochs,)
        For each quantity "0", "1", ..., in int64 where all figures are integers, else in float64;
        and the mask "0 is there", where some epochs have not measured it.
    """
    columns, rows = {}, list(history)
    for place, name in enumerate(history.keys()):
        values = [row.get(name, 0) for row in rows]
        is_whole = all(type(value) is int for value in values)
        dtype = torch.int64 if is_whole else torch.float64
        columns[str(place)] = torch.tensor(values, dtype=dtype, device=HOST)
        if not all(name in row for row in rows):
            mask = [name in row for row in rows]
            columns[f"{place} is there"] = torch.tensor(mask, device=HOST)
    return columns


def rows_of(
    columns: Mapping[str, torch.Tensor], quantities: Sequence[str]
) -> list[dict[str, float]]:
    """Make rows, one for each epoch, of the columns of shape (n_epochs,) of `columns_of`."""
    rows: list[dict[str, float]] = []
    for place, name in enumerate(quantities):
        of_epochs = columns[str(place)].tolist()
        mask = columns.get(f"{place} is there")
        is_there = [True] * len(of_epochs) if mask is None else mask.tolist()
        rows = rows or [{} for _ in of_epochs]
        for row, value, here in zip(rows, of_epochs, is_there, strict=True):
            if here:
                row[str(name)] = value
    return rows
