"""History: what every epoch measured, to look up, to draw and to look at."""

import copy
import pickle
import re

import matplotlib as mpl
import numpy as np
import pytest
from torch import nn

from easyclf import EarlyStopping, Estimator, LambdaCallback
from easyclf.history import History

ROWS = [
    {"epoch": 1, "loss": 0.9, "accuracy": 0.5, "val_loss": 0.8, "val_accuracy": 0.6, "lr": 0.1},
    {"epoch": 2, "loss": 0.7, "accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.8, "lr": 0.1},
    {"epoch": 3, "loss": 0.6, "accuracy": 0.8, "val_loss": 0.7, "val_accuracy": 0.8, "lr": 0.1},
]


def history_of(rows):
    history = History()
    for row in rows:
        history.append(row)
    return history


@pytest.fixture
def history():
    return history_of(ROWS)


@pytest.fixture
def plt():
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        yield plt
        plt.close("all")


def test_history_has_a_row_for_each_epoch(history):
    assert len(history) == 3
    assert list(history) == ROWS


def test_quantity_is_an_array_over_the_epochs(history):
    assert isinstance(history["val_loss"], np.ndarray)
    assert history["val_loss"].tolist() == [0.8, 0.6, 0.7]
    assert history["epoch"].tolist() == [1, 2, 3]


def test_quantities_are_named_in_their_order(history):
    assert history.keys() == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]


def test_quantity_that_an_epoch_lacks_is_nan():
    """A continued fit may be the first one with validation data."""
    history = history_of([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.8, "val_loss": 0.7}])

    assert history.keys() == ["epoch", "loss", "val_loss"]
    np.testing.assert_array_equal(history["val_loss"], [np.nan, 0.7])
    assert history.best("val_loss")["epoch"] == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("val_los", "did you mean `val_loss`"),
        ("acuracy", "did you mean `accuracy`"),
        ("valid_loss", "did you mean `val_loss`"),
    ],
)
def test_unknown_quantity_is_refused_with_the_nearest(typed, words, history):
    with pytest.raises(KeyError, match=f"`{typed}` is not in the history; {words}"):
        history[typed]


def test_quantity_of_rows_that_were_not_given_says_how_to_give_them():
    history = history_of([{"epoch": 1, "loss": 0.9}])

    with pytest.raises(KeyError, match=r"`val_loss` is not in the history; give `validation_data`"):
        history["val_loss"]


def test_a_slice_is_a_history_of_those_epochs(history):
    assert isinstance(history[-2:], History)
    assert list(history[-2:]) == ROWS[-2:]
    assert history[-2:]["val_loss"].tolist() == [0.6, 0.7]
    assert history[1:].best("val_loss")["epoch"] == 2
    assert len(history) == 3


def test_epochs_and_a_quantity_are_looked_up_as_in_skorch(history):
    assert history[:, "loss"].tolist() == [0.9, 0.7, 0.6]
    assert history[-2:, "val_loss"].tolist() == [0.6, 0.7]
    assert history[-1, "loss"] == 0.6
    with pytest.raises(KeyError, match=r"`valid_loss` .* did you mean `val_loss`"):
        history[:, "valid_loss"]


def test_what_a_callback_adds_to_the_logs_becomes_a_quantity():
    def note(state):
        state.logs["norm"] = state.module[0].weight.norm()
        state.logs["twice"] = 2 * state.epoch

    clf = Estimator(
        nn.Sequential(nn.Linear(3, 3)), epochs=3, callbacks=[LambdaCallback(on_epoch_end=note)]
    ).fit(np.eye(3), [0, 1, 2])

    assert clf.history_["twice"].tolist() == [2.0, 4.0, 6.0]
    assert clf.history_[-1]["norm"] == pytest.approx(clf.module_[0].weight.norm().item())
    assert clf.history_.keys()[-2:] == ["norm", "twice"]


def test_what_a_callback_adds_can_be_monitored_by_those_after_it():
    def announce(state):
        state.quantities += ("my_score",)

    def note(state):
        state.logs["my_score"] = -abs(state.epoch - 2)

    early = EarlyStopping("my_score", patience=2)
    callbacks = [LambdaCallback(on_train_begin=announce, on_epoch_end=note), early]
    Estimator(nn.Linear(3, 3), epochs=9, callbacks=callbacks).fit(np.eye(3), [0, 1, 2])

    assert (early.best_epoch_, early.stopped_epoch_) == (2, 4)


def test_what_is_no_number_is_no_quantity():
    note = LambdaCallback(on_epoch_end=lambda state: state.logs.update(matrix=np.eye(2)))

    with pytest.raises(TypeError, match=r"`state.logs\['matrix'\]` is (?s:.*) one number"):
        Estimator(nn.Linear(3, 3), epochs=1, callbacks=[note]).fit(np.eye(3), [0, 1, 2])


def test_unknown_quantity_like_no_other_is_refused_with_all(history):
    with pytest.raises(KeyError, match=r"`zzz` is not in the history.*'loss', 'accuracy'"):
        history["zzz"]


@pytest.mark.parametrize(
    ("name", "epoch"),
    [("val_loss", 2), ("loss", 3), ("accuracy", 3), ("val_accuracy", 2)],
)
def test_best_epoch_is_the_first_with_least_loss_or_most_accuracy(name, epoch, history):
    assert history.best(name) == ROWS[epoch - 1]


def test_best_is_by_default_of_the_validation_loss(history):
    assert history.best() == ROWS[1]


@pytest.mark.parametrize("name", ["loss", "val_accuracy"])
def test_nan_is_never_best(name):
    history = history_of({"epoch": i, name: v} for i, v in enumerate([np.nan, 2.0, np.nan], 1))

    assert history.best(name)["epoch"] == 2


def test_none_is_best_where_all_are_nan():
    with pytest.raises(ValueError, match="`loss` was NaN in every epoch"):
        history_of([{"epoch": 1, "loss": np.nan}]).best("loss")


def test_best_of_a_quantity_without_direction_is_refused(history):
    with pytest.raises(ValueError, match="'lr' does not say whether more is better"):
        history.best("lr")


def test_rows_that_are_handed_out_are_copies(history):
    row = dict(ROWS[0])
    history.append(row)

    row["loss"] = next(iter(history))["loss"] = history.best()["loss"] = -1.0

    assert history["loss"].tolist() == [0.9, 0.7, 0.6, 0.9]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))]
)
def test_copy_goes_on_by_itself(copied, history):
    other = copied(history)

    other.append({"epoch": 4, "loss": 0.1})

    assert list(other)[:3] == ROWS
    assert (len(history), len(other)) == (3, 4)


def test_frame_has_a_row_for_each_epoch(history):
    frame = history.to_frame()

    assert frame.index.name == "epoch"
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.columns.tolist() == ["loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert frame.loc[2, "val_loss"] == 0.6


def test_frame_of_no_epochs_has_no_rows():
    """Ctrl-C in the first epoch leaves such a history."""
    assert len(History().to_frame()) == 0


# Pictures


def curves(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


def test_plot_draws_loss_and_accuracy_over_the_epochs(history, plt):
    loss, accuracy = history.plot()

    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert accuracy.get_ylabel() == "accuracy"
    assert curves(loss)["training"] == [[1, 0.9], [2, 0.7], [3, 0.6]]
    assert curves(loss)["validation"] == [[1, 0.8], [2, 0.6], [3, 0.7]]
    assert curves(accuracy)["training"] == [[1, 0.5], [2, 0.7], [3, 0.8]]
    for ax, best in ((loss, [2, 0.6]), (accuracy, [2, 0.8])):
        (label,) = [label for label, points in curves(ax).items() if points == [best]]
        assert "epoch 2" in label


def test_plot_without_validation_draws_the_training_alone(plt):
    loss, _ = history_of([{k: r[k] for k in ("epoch", "loss", "accuracy")} for r in ROWS]).plot()

    assert list(curves(loss)) == ["training"]


def test_plot_draws_where_it_is_told(history, plt):
    _, axes = plt.subplots(2)

    assert history.plot((axes[0], axes[1])) == (axes[0], axes[1])
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS[:1], id="one epoch"),
        pytest.param([{**row, "val_loss": np.nan} for row in ROWS], id="validation of NaN"),
        pytest.param([{**row, "loss": np.nan} for row in ROWS], id="training of NaN"),
    ],
)
def test_plot_of_little_is_drawn(rows, plt):
    loss, _ = history_of(rows).plot()
    loss.figure.canvas.draw()

    assert "training" in curves(loss)


def test_repr_is_a_table(history):
    lines = repr(history).splitlines()

    assert lines[0] == "History of 3 epochs"
    assert lines[1].split() == history.keys()
    assert lines[3].split() == ["2", "0.7", "0.7", "0.6", "0.8", "0.1"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_repr_of_many_epochs_leaves_the_middle_out():
    lines = repr(history_of([{"epoch": i, "loss": 1 / i} for i in range(1, 101)])).splitlines()

    assert lines[0] == "History of 100 epochs"
    assert [line.split()[0] for line in lines[2:]] == (
        ["1", "2", "3", "4", "5", "...", "96", "97", "98", "99", "100"]
    )


@pytest.mark.parametrize(
    ("rows", "words"), [([], "History of 0 epochs"), (ROWS[:1], "History of 1 epoch\n")]
)
def test_repr_of_little_is_readable(rows, words):
    assert repr(history_of(rows)).startswith(words)


def test_html_has_a_curve_and_the_last_figures(history):
    html = history._repr_html_()
    points = re.findall(r'points="([^"]*)"', html)

    assert "History of 3 epochs" in html
    assert [len(curve.split()) for curve in points] == [3, 3]
    assert [float(point.split(",")[1]) for point in points[0].split()] == sorted(
        float(point.split(",")[1]) for point in points[0].split()
    )
    assert "<td>3</td>" in html
    assert html.count("<td>") == 6


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no epoch"),
        pytest.param(ROWS[:1], id="one epoch"),
        pytest.param([{"epoch": e, "loss": np.nan} for e in (1, 2)], id="NaN"),
        pytest.param([{"epoch": e, "loss": 0.5} for e in (1, 2)], id="constant"),
    ],
)
def test_html_of_little_is_whole(rows):
    html = history_of(rows)._repr_html_()

    assert html.startswith("<div>")
    assert html.endswith("</div>")
    assert "nan," not in html
    assert ",nan" not in html


# What fit writes


def test_fit_writes_the_quantities_of_keras():
    X, y = np.eye(3, dtype=np.float32), [0, 1, 2]

    plain = Estimator(nn.Linear, epochs=2, lr=0.25).fit(X, y)
    validated = Estimator(nn.Linear, epochs=2).fit(X, y, validation_data=(X, y))

    assert plain.history_.keys() == ["epoch", "loss", "accuracy", "lr", "seconds"]
    assert set(validated.history_.keys()) == {
        *plain.history_.keys(),
        "val_loss",
        "val_accuracy",
    }
    assert plain.history_["epoch"].tolist() == [1, 2]
    assert plain.history_["lr"].tolist() == [0.25, 0.25]
    assert (plain.history_["seconds"] > 0).all()


def test_a_row_has_a_number(history):
    assert history[-1] == list(history)[-1]
    assert history[0]["epoch"] == 1
