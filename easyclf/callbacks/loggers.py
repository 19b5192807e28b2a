"""Telling the user how the training goes."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, TextIO

import torch

from easyclf.callbacks.base import Callback
from easyclf.constraints import is_integer
from easyclf.state import TrainingState


class AccuracyLogger(Callback):
    """Print a table: a line with all quantities of an epoch.

    Lines whose `val_loss` is the best so far are marked with `*`.

    Parameters
    ----------
    every : int, default=1
        Print the first, every so many epochs, and the last.
    stream : text stream, default=None
        Where to print; None is the standard output.
    percent : bool, default=False
        Print accuracies as percentages.
    every_steps : int, default=None
        Within an epoch, print the mean loss of every so many steps too. The host waits for the
        device then.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import AccuracyLogger, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(epochs=20, callbacks=[AccuracyLogger(every=10)], random_state=0)
    >>> _ = clf.fit(X, y)  # doctest: +SKIP
    epoch    loss  accuracy     lr  seconds
     1/20  1.1026    0.3333  0.001     0.01
    10/20  0.6315    0.8333  0.001     0.00
    20/20  0.4337    0.8533  0.001     0.00
    """

    changes = "nothing"

    def __init__(
        self,
        every: int = 1,
        stream: TextIO | None = None,
        percent: bool = False,
        every_steps: int | None = None,
    ) -> None:
        self.every = every
        self.stream = stream
        self.percent = percent
        self.every_steps = every_steps

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings and forget an earlier run."""
        for name in ("every", "every_steps"):
            value = getattr(self, name)
            is_none = value is None and name == "every_steps"
            if not is_none and not (is_integer(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive integer; got {value!r}.")
        self._names: list[str] | None = None
        self._unprinted: str | None = None
        self._best: tuple[float, int] | None = None
        self._n_before = len(state.history)
        self._losses: list[torch.Tensor] = []

    @property
    def on_batch_end(self) -> Callable[..., None]:
        # No hook where no steps are asked for: none is called then.
        return Callback.on_batch_end if self.every_steps is None else self._add_loss

    def _add_loss(self, state: TrainingState) -> None:
        if state.batch == 1:
            self._losses = []
        self._losses.append(state.logs["loss"])
        if len(self._losses) == self.every_steps:
            loss = torch.stack(self._losses).mean().item()
            self._losses = []
            self._print(f"epoch {state.epoch}, step {state.batch}: loss {loss:.4f}")

    def on_epoch_end(self, state: TrainingState) -> None:
        """Print the epoch if it is its turn."""
        is_first = self._names is None
        if self._names is None:
            self._look_back(state)
            others = [name for name in state.logs if name not in state.quantities]
            self._names = [name for name in (*state.quantities, *others) if name in state.logs]
        mark, loss = "", state.logs.get("val_loss", math.nan)
        if loss < (math.inf if self._best is None else self._best[0]):
            self._best, mark = (loss, state.epoch), "  *"
        line = self._row(state) + mark
        if is_first:
            self._print(self._header(state))
        if is_first or state.epoch % self.every == 0:
            self._print(line)
            self._unprinted = None
        else:
            self._unprinted = line

    def _look_back(self, state: TrainingState) -> None:
        """Find the best epoch of those before this process, where a run was resumed."""
        earlier = state.history[self._n_before : -1]
        for row in earlier:
            if row.get("val_loss", math.nan) < (math.inf if self._best is None else self._best[0]):
                self._best = (row["val_loss"], int(row["epoch"]))

    def on_train_end(self, state: TrainingState) -> None:
        """Print the last epoch, and why training stopped, or which epoch was the best."""
        if self._unprinted is not None:
            self._print(self._unprinted)
        if state.stop_reason is not None:
            self._print(f"stopped: {state.stop_reason}")
        elif self._best is not None:
            self._print(f"best: val_loss {self._best[0]:.4g} in epoch {self._best[1]}")

    def _header(self, state: TrainingState) -> str:
        cells = [name.rjust(self._width(name)) for name in self._names or ()]
        return "  ".join(["epoch".rjust(_epoch_width(state)), *cells])

    def _row(self, state: TrainingState) -> str:
        digits = len(str(state.epochs))
        cells = [f"{state.epoch:{digits}d}/{state.epochs}".rjust(_epoch_width(state))]
        for name in self._names or ():
            value = float(state.logs[name])
            cells.append(self._format(name, value).rjust(self._width(name)))
        return "  ".join(cells)

    def _width(self, name: str) -> int:
        # Rates get small: 1.23e-05.
        return max(len(name), len(self._format(name, 1.234567e-5 if name == "lr" else 0.05)))

    def _format(self, name: str, value: float) -> str:
        if self.percent and name.endswith("accuracy"):
            return f"{100 * value:6.2f}%"
        if name in ("lr", "seconds"):
            return f"{value:.3g}" if name == "lr" else f"{value:.2f}"
        is_plain = 1e-3 <= abs(value) < 1e4 or value == 0
        return f"{value:.4f}" if is_plain else f"{value:.0e}".rjust(6)

    def _print(self, line: str) -> None:
        print(line, file=self.stream or sys.stdout, flush=True)


def _epoch_width(state: TrainingState) -> int:
    return max(len("epoch"), 2 * len(str(state.epochs)) + 1)


class ProgressBar(Callback):
    """A tqdm bar over the steps of all epochs, with the latest figures: `verbose=1`.

    The full bar stays, with the figures of the last epoch, unless it stands below another bar. In
    processes that joblib or a DataLoader begins nothing is shown.

    Parameters
    ----------
    delay : float, default=0.0
        Seconds of work before the bar appears.
    """

    changes = "nothing"

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def on_train_begin(self, state: TrainingState) -> None:
        """Begin the bar."""
        with warnings.catch_warnings():
            # In a notebook without ipywidgets tqdm says so, and draws a bar of text.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm  # which asks the notebook, and only where somebody watches

        total = None
        if state.steps_per_epoch is not None:
            total = (state.epochs - state.epoch) * state.steps_per_epoch
        self._n_shown, self._next_move = state.step, 0.0
        self._bar: Any = tqdm(
            total=total, unit="step", delay=self.delay, leave=None, disable=not is_main_process()
        )
        # In a notebook tqdm does not know its own word for "unless it stands below another bar".
        self._bar.leave = not getattr(self._bar, "pos", 0)

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Say which epoch it is."""
        self._bar.set_description(f"epoch {state.epoch}/{state.epochs}", refresh=False)

    def on_batch_begin(self, state: TrainingState) -> None:
        """Move the bar by the steps that are done, ten times a second at most."""
        if time.monotonic() >= self._next_move:
            self._next_move = time.monotonic() + 0.1
            self._move(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Show the figures of the epoch."""
        self._move(state)
        figures = {
            name: f"{state.logs[name]:.4f}"
            for name in state.quantities
            if name in state.logs and name not in ("lr", "seconds")
        }
        self._bar.set_postfix(figures, refresh=False)

    def on_train_end(self, state: TrainingState) -> None:
        """Fill the bar of a training that was stopped: a notebook shows the rest as a fault."""
        if state.stop_reason is not None:
            self._bar.total = self._bar.n

    def _move(self, state: TrainingState) -> None:
        self._bar.update(state.step - self._n_shown)
        self._n_shown = state.step

    def close(self, state: TrainingState) -> None:
        """End the bar."""
        bar, self._bar = getattr(self, "_bar", None), None
        if bar is not None:
            bar.close()


def is_main_process() -> bool:
    """Whether this is no process that another one has begun to share its work."""
    return multiprocessing.current_process().name == "MainProcess"


def is_watched() -> bool:
    """Whether somebody looks on: in a terminal or a notebook, and in the main process."""
    if not is_main_process():
        return False
    return is_in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def is_in_notebook() -> bool:
    """Whether this is a kernel of Jupyter's."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def shown_by(verbose: int | str, *, is_shown_otherwise: bool) -> list[Callback]:
    """List the callbacks that show the progress of a fit, as `verbose` of the estimator says.

    Under "auto" there is none where it `is_shown_otherwise`.
    """
    if verbose == "auto":
        return [ProgressBar(delay=1.5)] if is_watched() and not is_shown_otherwise else []
    shown: list[list[Callback]] = [[], [ProgressBar()], [AccuracyLogger()]]
    return shown[int(verbose)]
