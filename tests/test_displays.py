"""Pictures of trainings: panels, runs over one another, best epochs, and where they are drawn."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from easyclf import Estimator, TrainingDisplay
from easyclf.displays import LearningRateDisplay
from easyclf.history import History


def history_of(losses, **others):
    history = History()
    for epoch, loss in enumerate(losses, 1):
        row = {name: values[epoch - 1] for name, values in others.items()}
        history.append({"epoch": epoch, "loss": loss, "accuracy": 1 - loss, **row})
    return history


@pytest.fixture
def history():
    return history_of([0.9, 0.7, 0.6], val_loss=[0.8, 0.6, 0.7], val_accuracy=[0.6, 0.8, 0.8])


@pytest.fixture
def plt():
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        plt.close("all")  # those of other tests
        yield plt
        plt.close("all")


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def fitted(network, blobs):
    def fit(**parameters):
        settings = {"epochs": 2, "random_state": 0, **parameters}
        return Estimator(network, **settings).fit(*blobs, validation_data=blobs)

    return fit


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_quantity_is_one_colour_with_its_validation_dashed(history, ax):
    display = TrainingDisplay([history]).plot(ax)

    training, validation = display.lines_
    assert training.get_color() == validation.get_color()
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert training.get_ydata().tolist() == [0.9, 0.7, 0.6]
    assert validation.get_ydata().tolist() == [0.8, 0.6, 0.7]
    assert legend(ax) == ["training", "validation", "lowest: epoch 2"]


def test_a_display_knows_where_it_was_drawn(history, ax):
    display = TrainingDisplay([history]).plot(ax)

    assert display.ax_ is ax
    assert list(display.axes_) == [ax]
    assert display.figure_ is ax.figure


def test_drawing_into_axes_opens_no_figure_and_changes_no_backend(history, ax, plt):
    before = mpl.get_backend(), plt.get_fignums()

    TrainingDisplay([history]).plot(ax)

    assert (mpl.get_backend(), plt.get_fignums()) == before


def test_without_axes_there_is_one_new_figure(history, plt):
    display = TrainingDisplay([history]).plot()

    assert [ax.get_ylabel() for ax in display.axes_] == ["loss", "accuracy"]
    assert plt.get_fignums() == [display.figure_.number]


def test_any_quantity_is_drawn(plt):
    history = history_of([3.0, 2.0], lr=[0.1, 0.2], f1=[0.5, 0.7], seconds=[1.0, 1.0])
    history.metrics = ("f1",)

    display = TrainingDisplay([history]).plot(quantities=["lr", "f1", "seconds", "loss"])

    assert [ax.get_ylabel() for ax in display.axes_] == ["lr", "f1", "seconds", "loss"]
    assert len(display.figure_.axes) == 4
    assert display.lines_[0].get_ydata().tolist() == [0.1, 0.2]


def test_validation_alone_is_drawn_if_it_is_asked_for(history, ax):
    display = TrainingDisplay([history]).plot(ax, quantities="val_accuracy")

    (line,) = display.lines_
    assert line.get_ydata().tolist() == [0.6, 0.8, 0.8]
    assert legend(ax) == ["validation", "highest: epoch 2"]


@pytest.mark.parametrize(
    ("values", "marker"),
    [
        ([1.0, np.nan, 2.0], "o"),
        ([np.nan, 1.0, np.nan], "o"),
        ([1.0, 2.0, np.nan], "None"),
        ([np.inf, 1.0, np.inf], "o"),
        ([np.nan] * 3, "None"),
    ],
)
def test_what_is_measured_in_some_epochs_alone_is_seen(values, marker, ax):
    """No line leads to a point whose neighbours are missing."""
    history = history_of([3.0, 2.0, 1.0], score=values)

    display = TrainingDisplay([history]).plot(ax, quantities="score")

    assert display.lines_[0].get_marker() == marker


def test_quantity_without_a_direction_has_no_best_epoch(ax):
    history = history_of([1.0, 2.0], norm=[1, 2], val_norm=[3, 4])

    TrainingDisplay([history]).plot(ax, quantities="norm")

    assert legend(ax) == ["training", "validation"]


def test_runs_have_colours_and_the_legend_says_their_best_epochs(history, ax):
    other = history_of([0.5, 0.4], val_loss=[0.5, 0.3])

    display = TrainingDisplay([history, other], ["a", "b"]).plot(ax)

    assert len(display.lines_) == 4
    assert len({line.get_color() for line in display.lines_}) == 2
    assert legend(ax) == [
        "a (lowest: epoch 2)",
        "b (lowest: epoch 2)",
        "training",
        "validation",
    ]


def test_names_that_matplotlib_would_hide_are_in_the_legend(history, ax):
    TrainingDisplay([history, history], ["_a", "b"]).plot(ax)

    assert legend(ax)[:2] == [" _a (lowest: epoch 2)", "b (lowest: epoch 2)"]


def test_runs_without_validation_have_their_names_alone(ax):
    TrainingDisplay([history_of([1.0, 0.5]), history_of([2.0])]).plot(ax)

    assert legend(ax) == ["run 1", "run 2"]


def test_steps_are_drawn_thin_before_any_epoch_is_over(ax):
    steps = {"epoch": [0.5, 1.0], "loss": [2.0, 1.0]}

    display = TrainingDisplay([History()], steps=steps).plot(ax)

    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0.5, 2.0], [1.0, 1.0]]
    assert display.lines_ == []


def test_names_are_the_parameters_in_which_runs_differ(fitted):
    display = TrainingDisplay.from_estimator(
        fitted(lr=0.1), fitted(lr=0.01, optimizer="sgd"), ax=Figure().subplots()
    )

    assert display.names == ["lr=0.1, optimizer=adam", "lr=0.01, optimizer=sgd"]
    assert repr(display) == f"TrainingDisplay of 2 runs: {', '.join(display.names)}"


def test_runs_that_do_not_differ_are_numbered(fitted, ax):
    clf = fitted()

    assert TrainingDisplay.from_estimator(clf, clf, ax=ax).names == ["run 1", "run 2"]
    assert TrainingDisplay.from_estimator(clf, clf, names=["x", "y"], ax=ax).names == ["x", "y"]


def test_pipelines_and_searches_are_looked_into(network, blobs, ax):
    pipeline = make_pipeline(StandardScaler(), Estimator(network, epochs=2, random_state=0))
    search = GridSearchCV(pipeline, {"estimator__lr": [0.1]}, cv=2).fit(*blobs)

    display = TrainingDisplay.from_estimator(search, pipeline.fit(*blobs), ax=ax)

    inner = search.best_estimator_[-1].history_
    assert display.lines_[0].get_ydata().tolist() == inner["loss"].tolist()


def test_what_is_not_fitted_or_has_no_history_is_refused(network, blobs):
    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(Estimator(network))
    with pytest.raises(TypeError, match=r"easyclf.Estimator.*got a GaussianNB"):
        TrainingDisplay.from_estimator(GaussianNB().fit(*blobs))


def test_wrong_quantities_panels_and_names_are_refused(history, ax):
    display = TrainingDisplay([history])

    with pytest.raises(KeyError, match=r"`val_los` .* did you mean `val_loss`"):
        display.plot(ax, quantities="val_los")
    with pytest.raises(ValueError, match="`quantities` names none"):
        display.plot(quantities=[])
    with pytest.raises(ValueError, match=r"`ax` has 1 panel\(s\) for the 2 quantities"):
        display.plot(ax, quantities=["loss", "accuracy"])
    with pytest.raises(ValueError, match=r"`names` must have a name for each of the 1 run"):
        TrainingDisplay([history], ["a", "b"])
    with pytest.raises(ValueError, match="got none"):
        TrainingDisplay([])


def test_several_estimators_are_given_side_by_side_and_quantities_by_name(fitted, history):
    with pytest.raises(TypeError, match=r"`estimator` is a list; .*\.from_estimator\(\*estimators"):
        TrainingDisplay.from_estimator([fitted, fitted])
    with pytest.raises(TypeError, match=r"'loss' is no Axes .* named by quantities='loss'"):
        history.plot("loss")


def test_history_draws_any_quantity_with_the_display(history, ax):
    assert history.plot(ax, "val_loss") == (ax,)
    assert legend(ax) == ["validation", "lowest: epoch 2"]


@pytest.mark.parametrize(
    "display",
    [TrainingDisplay([history_of([1.0])]), LearningRateDisplay(np.ones(2), np.ones(2), None)],
    ids=lambda display: type(display).__name__,
)
def test_without_matplotlib_the_line_that_installs_it_is_told(display, monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ImportError, match=r'pip install "easyclf\[plot\]"'):
        display.plot()
