"""The curves of a training while it goes on: in a notebook, a window, or a picture file."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from easyclf.callbacks.base import Callback
from easyclf.callbacks.loggers import is_in_notebook, is_main_process
from easyclf.callbacks.records import check_folder, telling_who_writes
from easyclf.checks import import_optional, warn_user
from easyclf.constraints import is_integer
from easyclf.displays import TrainingDisplay
from easyclf.files import PathLike, check_writable, replacing
from easyclf.state import TrainingState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Seconds between two drawings, and how many times as long as one of them takes: so drawing costs at
# most a tenth of the training.
_PAUSE, _RATIO = 0.5, 9
# Pixels an inch of the picture in a notebook, which shows it at half of that.
_NOTEBOOK_DPI = 144
_PANELS = ("loss", "accuracy")
# Somebody or something that shows the figure anew.
Shown = Callable[["Figure"], None]


class LivePlot(Callback):
    """Draw the curves of loss and accuracy while the training goes on.

    In a notebook the picture changes in place, under a backend of matplotlib with windows it is in
    a window, and with `path` it goes into a file. Elsewhere it is in `figure_` at the end. It is
    drawn at most twice a second, and at the end, also if the training fails. In processes that
    joblib begins, it is drawn into a file alone.

    Parameters
    ----------
    path : str or path-like, default=None
        The picture file, whose suffix says of which kind: .png, .svg, .pdf. Its folder has to be
        there. None draws in the notebook or in a window.
    every : "epoch" or int, default="epoch"
        With a number of steps, the mean loss and accuracy of every so many steps is drawn too.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure of the last fit.

    Raises
    ------
    ImportError
        At the start of `fit`, if matplotlib is not installed.
    OSError, ValueError
        At the start of `fit`, if the picture cannot be written, or `every` makes no sense.

    See Also
    --------
    easyclf.TrainingDisplay : The same picture after the training.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, LivePlot
    >>> X, y = load_iris(return_X_y=True)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "live.png"
    >>> clf = Estimator(epochs=3, callbacks=[LivePlot(path, every=1)]).fit(X, y)
    >>> path.stat().st_size > 0
    True
    """

    changes = "nothing"

    def __init__(self, path: PathLike | None = None, every: str | int = "epoch") -> None:
        self.path = path
        self.every = every

    @property
    def figure_(self) -> Figure:
        """The figure of the last fit."""
        try:
            figure: Figure = vars(self)["_figure"]
        except KeyError:
            raise AttributeError("`figure_` is there once `fit` has begun.") from None
        return figure

    @property
    def on_batch_end(self) -> Callable[..., None]:
        # No hook where no steps are asked for: none is called then.
        return Callback.on_batch_end if self.every == "epoch" else self._add_step

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings, and find out where to draw."""
        import_optional("matplotlib", needed_by="LivePlot")
        if self.every != "epoch" and not (is_integer(self.every) and self.every > 0):
            raise ValueError(
                f'`every` must be "epoch" or a positive number of steps; got {self.every!r}.'
            )
        self._show: Shown | None
        self._figure, self._show = self._opened()
        self._results: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._places: list[tuple[int, int]] = []
        self._means: dict[str, list[torch.Tensor]] = {name: [] for name in _PANELS}
        self._values: dict[str, list[float]] = {name: [] for name in _PANELS}
        self._is_behind, self._next_drawing = False, 0.0

    def _opened(self) -> tuple[Figure, Shown | None]:
        """Make the figure, and find out who shows it; None where nobody does."""
        from matplotlib.figure import Figure

        if self.path is not None:
            path = check_folder(self.path, "LivePlot")
            figure = _new_figure(Figure)
            _check_picture(path, figure)
            return figure, lambda figure: _write(figure, path)
        if is_in_notebook():
            return _new_figure(Figure), _InNotebook()
        return _new_window() if is_main_process() else (_new_figure(Figure), None)

    def _add_step(self, state: TrainingState) -> None:
        self._results.append((state.logs["loss"], state.logs["accuracy"]))
        if len(self._results) < int(self.every):
            return
        self._is_behind = True
        self._places.append((state.epoch, state.batch))
        for name, results in zip(_PANELS, zip(*self._results, strict=True), strict=True):
            # It stays on the device until it is drawn.
            self._means[name].append(torch.stack(results).mean())
        self._results = []
        self._draw_in_time(state)

    def _steps(self, state: TrainingState) -> dict[str, list[float]]:
        """The means of the steps, with their places in epochs."""
        n_steps = state.steps_per_epoch or max((step for _, step in self._places), default=1)
        for name in _PANELS:
            values = self._values[name]
            values += [float(mean) for mean in self._means[name][len(values) :]]
        places = [epoch - 1 + step / n_steps for epoch, step in self._places]
        return {"epoch": places, **self._values}

    def on_epoch_end(self, state: TrainingState) -> None:
        """Draw the epoch, unless the last drawing was just now."""
        self._is_behind = True
        self._draw_in_time(state)

    def close(self, state: TrainingState) -> None:
        """Draw the last state."""
        if vars(self).get("_is_behind"):
            self._draw(state)
        for name in ("_show", "_results", "_places", "_means", "_values", "_is_behind"):
            vars(self).pop(name, None)

    def _draw_in_time(self, state: TrainingState) -> None:
        if self._show is not None and time.monotonic() >= self._next_drawing:
            self._draw(state)

    def _draw(self, state: TrainingState) -> None:
        """Draw everything anew, and show it; what fails now costs a warning, not the run."""
        began = time.monotonic()
        try:
            self._figure.clear()
            axes = self._figure.subplots(1, len(_PANELS))
            display = TrainingDisplay([state.history], steps=self._steps(state))
            display.plot(axes)
            if self._show is not None:
                self._show(self._figure)
        except Exception as error:
            warn_user(
                f"LivePlot can no longer draw ({type(error).__name__}: {error}); the training goes "
                "on without it.",
            )
            self._show = None
        ended = time.monotonic()
        self._is_behind = False
        self._next_drawing = ended + max(_PAUSE, _RATIO * (ended - began))


def _new_figure(make: Callable[..., Figure]) -> Figure:
    return make(figsize=(9, 3.2), layout="constrained")


def _new_window() -> tuple[Figure, Shown | None]:
    """Open a window, if matplotlib draws into windows here."""
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    figure = _new_figure(plt.figure)
    if figure.canvas.required_interactive_framework:
        plt.show(block=False)
        return figure, _show_window
    plt.close(figure)
    return _new_figure(Figure), None


def _show_window(figure: Figure) -> None:
    """Draw the window anew, unless the user has closed it."""
    import matplotlib.pyplot as plt

    if plt.fignum_exists(figure.number):
        figure.canvas.draw()
        figure.canvas.flush_events()


class _InNotebook:
    """Shows a figure below the cell, at the same place each time."""

    def __init__(self) -> None:
        self._place: Any = None

    def __call__(self, figure: Figure) -> None:
        show = importlib.import_module("IPython.display")  # which is there in a notebook
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_NOTEBOOK_DPI)
        width = int(figure.get_figwidth() * _NOTEBOOK_DPI / 2)
        image = show.Image(stream.getvalue(), format="png", width=width)
        if self._place is None:
            self._place = show.display(image, display_id=True)
        else:
            self._place.update(image)


def _check_picture(path: Path, figure: Figure) -> None:
    """Refuse a file that cannot become a picture, before any work.

    Raises
    ------
    ValueError
        If its suffix is that of no kind of picture.
    OSError
        If it cannot be written.
    """
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(
            f"LivePlot is to write {str(path)!r}, but the suffix {path.suffix!r} is that of no "
            f"picture; use one of {', '.join(f'.{kind}' for kind in sorted(kinds))}."
        )
    if path.is_dir():
        raise IsADirectoryError(f"LivePlot is to write {str(path)!r}, which is a directory.")
    with telling_who_writes("LivePlot", path):
        check_writable(path)


def _write(figure: Figure, path: Path) -> None:
    """Write the picture: whoever looks at the file sees the old one or the new one."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".").lower())
