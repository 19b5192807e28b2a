"""Pictures of what was measured, as scikit-learn's displays: drawn anew by `plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from easyclf.checks import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# The legend of several runs is long: it stands above its panel, and hides no curve.
_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "borderaxespad": 0}
# A fitted estimator, or one of scikit-learn's around it, which have no types.
Trained: TypeAlias = Any


class Curves(Protocol):
    """A history, as a picture needs it: quantities by their names, and their best epochs."""

    def keys(self) -> list[str]:
        """Names of the quantities."""

    def __getitem__(self, name: str, /) -> NDArray[np.float64]: ...

    def best(self, name: str) -> dict[str, float]:
        """The row of the epoch in which a quantity was best."""

    def is_better_higher(self, name: str) -> bool:
        """Tell whether more of a quantity is better."""


class TrainingDisplay:
    """The curves of a training over its epochs, or of several trainings over one another.

    Each quantity has a panel: training and validation are of one colour, validation is dashed, and
    the best epoch of the validation is marked. `from_estimator` makes it, and `History.plot` draws
    with it.

    Parameters
    ----------
    histories : sequence of History
        One for each run.
    names : sequence of str, default=None
        What the legend calls the runs; None numbers them.
    steps : mapping of str to sequence of float, default=None
        Figures within the epochs of the first run: by the name of the quantity, with their places
        in epochs as `"epoch"`, each of shape (n_points,). They are drawn thin.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_quantities,)
        The panels.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        The curves: panel by panel, within a panel run by run, training before validation.

    See Also
    --------
    easyclf.LivePlot : The same picture while the training goes on.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, TrainingDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> slow, quick = [
    ...     Estimator(lr=lr, epochs=5, validation_split=0.2, random_state=0).fit(X, y)
    ...     for lr in (1e-3, 1e-2)
    ... ]
    >>> TrainingDisplay.from_estimator(slow, quick)
    TrainingDisplay of 2 runs: lr=0.001, lr=0.01
    """

    axes_: NDArray[np.object_]
    ax_: Axes
    figure_: Figure
    lines_: list[Line2D]

    def __init__(
        self,
        histories: Sequence[Curves],
        names: Sequence[str] | None = None,
        *,
        steps: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        if not histories:
            raise ValueError("TrainingDisplay needs the history of a run; got none.")
        if names is not None and len(names) != len(histories):
            raise ValueError(
                f"`names` must have a name for each of the {len(histories)} run(s); got {names!r}."
            )
        self.histories = list(histories)
        self.names = [f"run {place}" for place in range(1, len(histories) + 1)]
        if names is not None:
            self.names = [str(name) for name in names]
        self.steps = steps

    @classmethod
    def from_estimator(
        cls,
        estimator: Trained,
        *more: Trained,
        names: Sequence[str] | None = None,
        quantities: str | Sequence[str] | None = None,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> TrainingDisplay:
        """Draw the training of a fitted estimator, and of others over it.

        Parameters
        ----------
        estimator, *more : Estimator
            Fitted; or a Pipeline that ends with one, or a search that found one.
        names : sequence of str, default=None
            What the legend calls them; None takes the parameters in which they differ.
        quantities : str or sequence of str, default=None
            As in `plot`.
        ax : matplotlib Axes or sequence of them, default=None
            As in `plot`.

        Returns
        -------
        display : TrainingDisplay
            It is drawn.

        Raises
        ------
        NotFittedError
            If one is not fitted.
        TypeError
            If one has no history.
        ImportError
            If matplotlib is not installed.
        """
        trained = [_with_history(candidate) for candidate in (estimator, *more)]
        if names is None:
            names = _differences(trained)
        display = cls([found.history_ for found in trained], names)
        return display.plot(ax, quantities=quantities)

    def plot(
        self,
        ax: Axes | Sequence[Axes] | None = None,
        *,
        quantities: str | Sequence[str] | None = None,
    ) -> TrainingDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of them, default=None
            Where to draw, a panel for each quantity; None makes a new figure.
        quantities : str or sequence of str, default=None
            Names of the history. `"loss"` means training and validation, `"val_loss"` validation
            alone. None draws loss and accuracy, or the loss alone where `ax` is one panel.

        Returns
        -------
        self : TrainingDisplay
            This display, with `axes_`, `ax_`, `figure_` and `lines_`.

        Raises
        ------
        KeyError
            If no history has such a quantity; the nearest is named.
        ValueError
            If there are more or fewer panels than quantities, or none is asked for.
        ImportError
            If matplotlib is not installed.
        """
        import_optional("matplotlib", needed_by="TrainingDisplay.plot")
        if isinstance(ax, str):
            raise TypeError(
                f"{ax!r} is no Axes of matplotlib to draw on; a quantity is named by "
                f"quantities={ax!r}."
            )
        names = self._quantities(quantities, is_one=ax is not None and hasattr(ax, "plot"))
        n_runs = len(self.histories)
        if ax is None:
            axes = _new_panels(len(names), n_runs)
        else:
            axes = np.ravel(np.asarray(ax, dtype=object))
        if len(axes) != len(names):
            raise ValueError(
                f"`ax` has {len(axes)} panel(s) for the {len(names)} quantities {names}; give one "
                "Axes for each, or fewer `quantities`."
            )
        self.lines_ = []
        # In figures of others there may be no room above the panels.
        place = _ABOVE if ax is None and n_runs > 1 else {}
        for panel, name in zip(axes, names, strict=True):
            self._draw_panel(panel, name, place)
        self.axes_, self.ax_, self.figure_ = axes, axes[0], axes[0].figure
        return self

    def _quantities(self, chosen: str | Sequence[str] | None, *, is_one: bool) -> list[str]:
        if chosen is None:
            return ["loss"] if is_one else ["loss", "accuracy"]
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        if not names:
            raise ValueError("`quantities` names none to draw; leave it out for loss and accuracy.")
        for name in names:
            if not any(_has(history, name) for history in self.histories):
                _ = self.histories[0][name]  # which says what there is
        return names

    def _draw_panel(self, ax: Axes, quantity: str, legend_place: Mapping[str, Any]) -> None:
        """Draw a quantity of all runs, with a legend."""
        is_alone = len(self.histories) == 1
        styles: dict[str, str] = {}
        for place, (history, run) in enumerate(zip(self.histories, self.names, strict=True)):
            color = f"C{place}"
            if place == 0:
                self._draw_steps(ax, quantity, color)
            for name in dict.fromkeys((quantity, f"val_{quantity}")):
                if not _has(history, name):
                    continue
                part = "validation" if name.startswith("val_") else "training"
                styles[part] = "--" if part == "validation" else "-"
                self.lines_ += ax.plot(
                    history["epoch"],
                    history[name],
                    styles[part],
                    color=color,
                    marker="o" if _has_lone_point(history[name]) else None,
                    label=part if is_alone else f"_{run}, {part}",
                )
            best = _mark_best(ax, history, quantity, color, is_alone=is_alone)
            if not is_alone:
                # matplotlib shows no label that begins with "_".
                shown = f" {run}" if run.startswith("_") else run
                ax.plot([], [], color=color, label=shown + best)
        if not is_alone and len(styles) > 1:
            for part, style in styles.items():
                ax.plot([], [], style, color="0.5", label=part)
        ax.set(xlabel="epoch", ylabel=quantity)
        ax.locator_params(axis="x", integer=True)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="small", **legend_place)

    def _draw_steps(self, ax: Axes, quantity: str, color: str) -> None:
        steps = self.steps or {}
        if len(steps.get(quantity, ())):
            ax.plot(
                steps["epoch"],
                steps[quantity],
                color=color,
                alpha=0.55,
                linewidth=0.9,
                label="steps",
            )

    def __repr__(self) -> str:
        if len(self.histories) == 1:
            return "TrainingDisplay of 1 run"
        return f"TrainingDisplay of {len(self.histories)} runs: {', '.join(self.names)}"


def _has(history: Curves, quantity: str) -> bool:
    names = history.keys()  # a history iterates over its rows
    return quantity in names


def _has_lone_point(values: NDArray[np.float64]) -> bool:
    """Whether a line through values of shape (n_epochs,) leaves one out, since it has no neighbour.

    So it is with a quantity that is measured in every other epoch.
    """
    is_there = np.concatenate([[False], np.isfinite(values), [False]])
    return bool((is_there[1:-1] & ~is_there[:-2] & ~is_there[2:]).any())


def _with_history(estimator: Trained) -> Trained:
    """Find the fitted estimator that has the history, in a pipeline or a search too.

    Raises
    ------
    NotFittedError, TypeError
        If there is none.
    """
    if isinstance(estimator, list | tuple | dict):
        raise TypeError(
            f"`estimator` is a {type(estimator).__name__}; give several one by one, as in "
            "TrainingDisplay.from_estimator(*estimators, names=[...])."
        )
    inner = estimator
    check_is_fitted(inner)
    while not hasattr(inner, "history_"):
        if hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
        elif getattr(inner, "steps", None):
            inner = inner.steps[-1][1]
        else:
            raise TypeError(
                f"TrainingDisplay draws the history of an easyclf.Estimator, also in a Pipeline or "
                f"a search; got a {type(estimator).__name__}, which has none."
            )
    return inner


def _differences(estimators: Sequence[Trained]) -> list[str] | None:
    """Name estimators by the parameters in which they differ; None if that names not each."""
    settings = [estimator.get_params(deep=False) for estimator in estimators]
    texts: list[list[str]] = [[] for _ in estimators]
    for name in dict.fromkeys(name for setting in settings for name in setting):
        values = [setting.get(name) for setting in settings]
        plain = all(isinstance(value, str | int | float | None) for value in values)
        if plain and len(set(map(repr, values))) > 1:
            for text, value in zip(texts, values, strict=True):
                text.append(f"{name}={value}")
    names = [", ".join(text) for text in texts]
    return names if all(names) and len(set(names)) == len(names) else None


def _new_panels(n_panels: int, n_runs: int) -> NDArray[np.object_]:
    """Make a figure with so many panels, at most three beside one another."""
    plt = import_optional("matplotlib.pyplot", needed_by="TrainingDisplay.plot")
    n_columns = min(3, n_panels)
    n_rows = -(-n_panels // n_columns)
    # Inches; several runs have a legend above each panel.
    height = 3.2 + (0.2 * (n_runs + 2) if n_runs > 1 else 0)
    size = (4.5 * n_columns, height * n_rows)
    _, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.ravel()[n_panels:]:
        ax.remove()
    return np.asarray(axes.ravel()[:n_panels])


def _mark_best(ax: Axes, history: Curves, quantity: str, color: str, *, is_alone: bool) -> str:
    """Mark the best epoch of the validation, and say which it is for the legend of several runs."""
    name = quantity if quantity.startswith("val_") else f"val_{quantity}"
    if not _has(history, name) or np.isnan(history[name]).all():
        return ""
    try:
        extreme = "highest" if history.is_better_higher(name) else "lowest"
    except ValueError:  # nobody knows which is better
        return ""
    best = history.best(name)
    label = f"{extreme}: epoch {best['epoch']}"
    ax.plot(
        best["epoch"],
        best[name],
        "o",
        color=color,
        markersize=6,
        label=label if is_alone else f"_{label}",
    )
    return f" ({label})"


class LearningRateDisplay:
    """The loss over rising learning rates, and a rate to begin with.

    `Estimator.find_lr` makes it.

    Parameters
    ----------
    lr : ndarray of shape (n_steps,)
        The rate of each step, rising.
    loss : ndarray of shape (n_steps,)
        The loss of each step, smoothed.
    suggestion : float or None
        The rate at which the loss falls fastest; None if it never falls.

    Attributes
    ----------
    lr_, loss_ : ndarray of shape (n_steps,)
        As above.
    suggestion_ : float or None
        As above.
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    """

    ax_: Axes
    figure_: Figure

    def __init__(
        self, lr: NDArray[np.float64], loss: NDArray[np.float64], suggestion: float | None
    ) -> None:
        self.lr_, self.loss_, self.suggestion_ = lr, loss, suggestion

    def plot(self, ax: Axes | None = None) -> LearningRateDisplay:
        """Draw the loss over the rates, and mark the suggestion.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : LearningRateDisplay
            This display, with `ax_` and `figure_`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        plt = import_optional("matplotlib.pyplot", needed_by="LearningRateDisplay.plot")
        if ax is None:
            _, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
        assert ax is not None
        (line,) = ax.plot(self.lr_, self.loss_)
        if self.suggestion_ is not None:
            place = int(np.flatnonzero(self.lr_ == self.suggestion_)[0])
            label = f"suggestion: {self.suggestion_:.2g}"
            color = line.get_color()
            ax.plot(self.suggestion_, self.loss_[place], "o", color=color, label=label)
            ax.legend(fontsize="small")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self

    def __repr__(self) -> str:
        suggestion = "none" if self.suggestion_ is None else f"{self.suggestion_:.2g}"
        return f"LearningRateDisplay of {len(self.lr_)} steps, suggestion {suggestion}"
