"""Telling the user how the training goes."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any, TextIO

from easyclf.callbacks.base import Callback
from easyclf.state import TrainingState


class AccuracyLogger(Callback):
    """Print a line with the loss and the accuracy of an epoch.

    Parameters
    ----------
    every : int, default=1
        Print the first, every so many epochs, and the last.
    stream : text stream, default=None
        Where to print; None is the standard output.
    percent : bool, default=False
        Print accuracies as percentages.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import AccuracyLogger, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(epochs=20, callbacks=[AccuracyLogger(every=10)], random_state=0)
    >>> _ = clf.fit(X, y)  # doctest: +SKIP
    epoch  1/20  loss 1.1026  accuracy 0.3333
    epoch 10/20  loss 0.6315  accuracy 0.8333
    epoch 20/20  loss 0.4337  accuracy 0.8533
    """

    changes = "nothing"

    def __init__(self, every: int = 1, stream: TextIO | None = None, percent: bool = False) -> None:
        self.every = every
        self.stream = stream
        self.percent = percent

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings and forget an earlier run."""
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"`every` must be a positive integer; got {self.every!r}.")
        self._first: int | None = None
        self._unprinted: str | None = None

    def on_epoch_end(self, state: TrainingState) -> None:
        """Print the epoch if it is its turn."""
        width = len(str(state.epochs))
        cells = [f"epoch {state.epoch:{width}d}/{state.epochs}"]
        for name in state.quantities:
            if name.endswith(("loss", "accuracy")):
                cells.append(f"{name} {self._format(name, state.logs[name])}")
        line = "  ".join(cells)
        if self._first is None:
            self._first = state.epoch
        if state.epoch == self._first or state.epoch % self.every == 0:
            self._print(line)
            self._unprinted = None
        else:
            self._unprinted = line

    def on_train_end(self, state: TrainingState) -> None:
        """Print the last epoch, and why training stopped."""
        if self._unprinted is not None:
            self._print(self._unprinted)
        if state.stop_reason is not None:
            self._print(f"stopped: {state.stop_reason}")

    def _format(self, name: str, value: float) -> str:
        if self.percent and name.endswith("accuracy"):
            return f"{100 * value:6.2f}%"
        return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}".rjust(6)

    def _print(self, line: str) -> None:
        print(line, file=self.stream or sys.stdout, flush=True)


class ProgressBar(Callback):
    """A tqdm bar over the steps of all epochs, with the latest figures: `verbose=1`.

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
        from tqdm.auto import tqdm  # which asks the notebook, and only where somebody watches

        total = None
        if state.steps_per_epoch is not None:
            total = (state.epochs - state.epoch) * state.steps_per_epoch
        self._bar: Any = tqdm(total=total, unit="step", delay=self.delay, leave=False)

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Say which epoch it is."""
        self._bar.set_description(f"epoch {state.epoch}/{state.epochs}", refresh=False)

    def on_batch_end(self, state: TrainingState) -> None:
        """Move the bar."""
        self._bar.update()

    def on_epoch_end(self, state: TrainingState) -> None:
        """Show the figures of the epoch."""
        figures = {
            name: f"{state.logs[name]:.4f}"
            for name in state.quantities
            if name.endswith(("loss", "accuracy"))
        }
        self._bar.set_postfix(figures, refresh=False)

    def close(self, state: TrainingState) -> None:
        """End the bar."""
        bar, self._bar = getattr(self, "_bar", None), None
        if bar is not None:
            bar.close()


def is_watched() -> bool:
    """Whether somebody looks on: in a terminal or a notebook, and in the main process."""
    if multiprocessing.current_process().name != "MainProcess":
        return False
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
