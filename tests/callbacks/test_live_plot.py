"""Curves that are drawn while the training goes on."""

import pickle
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.base import clone
from torch import from_numpy
from torch.utils.data import DataLoader, IterableDataset

from easyclf import Estimator, LambdaCallback, LivePlot
from easyclf.callbacks import live_plot
from easyclf.callbacks.base import Hooks


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and what moves it."""
    now = [100.0]
    monkeypatch.setattr(live_plot.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def drawings(monkeypatch):
    """The epochs and steps of all drawings."""
    drawn, draw = [], LivePlot._draw

    def note(self, state):
        drawn.append((state.epoch, state.batch))
        draw(self, state)

    monkeypatch.setattr(LivePlot, "_draw", note)
    return drawn


@pytest.fixture
def plt():
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        yield plt
        plt.close("all")


def fit(network, blobs, *callbacks, **parameters):
    settings = {"epochs": 3, "batch_size": 10, "random_state": 0, **parameters}
    return Estimator(network, callbacks=list(callbacks), **settings).fit(
        *blobs, validation_data=blobs
    )


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


@pytest.mark.parametrize(
    ("suffix", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_the_picture_is_in_its_file(suffix, begin, tmp_path, network, blobs):
    path = tmp_path / f"live{suffix}"

    fit(network, blobs, LivePlot(path))

    assert path.read_bytes().startswith(begin)
    assert list(tmp_path.iterdir()) == [path]


def test_the_picture_has_the_curves_of_the_history(tmp_path, network, blobs):
    live = LivePlot(tmp_path / "live.png")

    clf = fit(network, blobs, live)

    loss, accuracy = live.figure_.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert lines(loss)["training"][:, 1].tolist() == clf.history_["loss"].tolist()
    assert lines(accuracy)["validation"][:, 1].tolist() == clf.history_["val_accuracy"].tolist()


def test_steps_are_drawn_as_a_textbook_does(tmp_path, network, blobs):
    live, losses = LivePlot(tmp_path / "live.png", every=1), []
    note = LambdaCallback(on_batch_end=lambda state: losses.append(state.logs["loss"].item()))

    fit(network, blobs, live, note, epochs=2)

    steps = lines(live.figure_.axes[0])["steps"]
    np.testing.assert_allclose(steps[:, 0], [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    np.testing.assert_allclose(steps[:, 1], losses)
    assert len(lines(live.figure_.axes[1])["steps"]) == 6


def test_every_so_many_steps_their_mean_is_drawn(tmp_path, network, blobs):
    live, losses = LivePlot(tmp_path / "live.png", every=2), []
    note = LambdaCallback(on_batch_end=lambda state: losses.append(state.logs["loss"].item()))

    fit(network, blobs, live, note, epochs=2)

    steps = lines(live.figure_.axes[0])["steps"]
    np.testing.assert_allclose(steps[:, 0], [2 / 3, 4 / 3, 2])
    np.testing.assert_allclose(steps[:, 1], np.reshape(losses, (3, 2)).mean(1), rtol=1e-6)


def test_steps_of_a_stream_have_places_too(tmp_path, network, blobs):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(from_numpy(blobs[0]), from_numpy(blobs[1]), strict=True))

    live = LivePlot(tmp_path / "live.png", every=1)
    clf = Estimator(network, epochs=2, callbacks=[live])

    clf.fit(DataLoader(Stream(), batch_size=10))

    places = lines(live.figure_.axes[0])["steps"][:, 0]
    np.testing.assert_allclose(places, np.arange(1, 7) / 3)


def test_the_number_of_steps_may_be_of_numpy(tmp_path, network, blobs):
    live = LivePlot(tmp_path / "live.png", every=np.int64(3))

    fit(network, blobs, live, epochs=2)

    assert len(lines(live.figure_.axes[0])["steps"]) == 2


def test_it_is_drawn_twice_a_second_at_most_and_at_the_end(
    clock, drawings, tmp_path, network, blobs
):
    tick = LambdaCallback(on_epoch_begin=lambda state: clock.__setitem__(0, clock[0] + 0.2))

    fit(network, blobs, tick, LivePlot(tmp_path / "live.png"), epochs=8)

    # At 100.2 for the first time, then half a second later, at 100.8, and 101.4; 101.6 is the end.
    assert [epoch for epoch, _ in drawings] == [1, 4, 7, 8]


def test_what_takes_long_to_draw_is_drawn_less_often(clock, drawings, monkeypatch, network, blobs):
    def show(figure):
        clock[0] += 1.0

    monkeypatch.setattr(LivePlot, "_opened", lambda self: (live_plot.Figure(), show))
    monkeypatch.setattr(live_plot, "Figure", mpl.figure.Figure, raising=False)
    tick = LambdaCallback(on_epoch_begin=lambda state: clock.__setitem__(0, clock[0] + 1.0))

    fit(network, blobs, tick, LivePlot(), epochs=12)

    assert [epoch for epoch, _ in drawings] == [1, 10, 12]


def test_steps_are_drawn_before_the_first_epoch_is_over(clock, drawings, tmp_path, network, blobs):
    tick = LambdaCallback(on_batch_begin=lambda state: clock.__setitem__(0, clock[0] + 1.0))

    fit(network, blobs, tick, LivePlot(tmp_path / "live.png", every=1), epochs=1)

    assert (1, 1) in drawings


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_last_state_is_drawn_after_errors_too(clock, error, tmp_path, network, blobs):
    live = LivePlot(tmp_path / "live.png")

    def fail(state):
        if state.epoch == 3:
            raise error

    with pytest.raises(error):
        fit(network, blobs, live, LambdaCallback(on_epoch_begin=fail))

    assert lines(live.figure_.axes[0])["training"][:, 0].tolist() == [1, 2]


def test_without_anybody_to_see_it_the_figure_is_there_at_the_end(drawings, plt, network, blobs):
    before, live = mpl.get_backend(), LivePlot()

    fit(network, blobs, live)

    assert len(drawings) == 1
    assert lines(live.figure_.axes[0])["training"][:, 0].tolist() == [1, 2, 3]
    assert plt.get_fignums() == []
    assert mpl.get_backend() == before


def test_a_window_is_drawn_anew_until_it_is_closed(
    drawings, plt, monkeypatch, network, blobs, clock
):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "none")
    monkeypatch.setattr(plt, "show", lambda block: None)
    shown = []
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda self: shown.append(self))

    def tick(state):
        clock[0] += 60
        if state.epoch == 3:
            plt.close("all")

    live = LivePlot()
    fit(network, blobs, LambdaCallback(on_epoch_begin=tick), live, epochs=4)

    assert len(shown) == 2
    assert len(drawings) == 4


def test_no_window_is_opened_in_other_processes(monkeypatch, plt, network, blobs):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "none")
    monkeypatch.setattr(live_plot, "is_main_process", lambda: False)

    fit(network, blobs, LivePlot())

    assert plt.get_fignums() == []


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "step", None])
def test_an_interval_that_makes_no_sense_is_refused(every, network, blobs):
    with pytest.raises(ValueError, match=r'`every` must be "epoch" or a positive number of steps'):
        fit(network, blobs, LivePlot(every=every))


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ("missing/live.png", FileNotFoundError, "there is no folder"),
        ("live.xyz", ValueError, r"the suffix '.xyz' is that of no picture; use one of .*\.png"),
        ("live", ValueError, "the suffix '' is that of no picture"),
        ("folder.png", IsADirectoryError, "which is a directory"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_training(
    place, error, words, tmp_path, network, blobs
):
    (tmp_path / "folder.png").mkdir()
    epochs = []
    note = LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch))

    with pytest.raises(error, match=words):
        fit(network, blobs, LivePlot(tmp_path / place), note)

    assert epochs == []


def test_a_folder_that_takes_no_files_is_refused_before_training(
    tmp_path, network, blobs, monkeypatch
):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(OSError, match=r"could not be written, .*: Permission denied") as raised:
        fit(network, blobs, LivePlot(tmp_path / "live.png"))

    assert "LivePlot cannot write" in raised.value.__notes__[0]


def test_a_picture_that_fails_later_costs_one_warning(tmp_path, network, blobs, clock):
    folder = tmp_path / "folder"
    folder.mkdir()

    def spoil(state):
        clock[0] += 60
        if state.epoch == 2:
            (folder / "live.png").unlink()
            folder.rmdir()

    with pytest.warns(UserWarning, match="LivePlot can no longer draw .* goes on") as warned:
        clf = fit(
            network, blobs, LambdaCallback(on_epoch_begin=spoil), LivePlot(folder / "live.png")
        )

    assert len(warned) == 1
    assert clf.n_iter_ == 3


def test_the_old_picture_is_there_until_the_new_one_is_whole(tmp_path, network, blobs, monkeypatch):
    path = tmp_path / "live.png"
    path.write_bytes(b"old")

    def fail(self, target, **settings):
        target.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(mpl.figure.Figure, "savefig", fail)
    with pytest.warns(UserWarning, match="no space left"):
        fit(network, blobs, LivePlot(path))

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_line_that_installs_it_is_told(network, blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ImportError, match=r'pip install "easyclf\[plot\]"'):
        fit(network, blobs, LivePlot())


def test_steps_cost_no_hook_unless_they_are_asked_for():
    assert not Hooks([LivePlot()]).has("on_batch_end")
    assert Hooks([LivePlot(every=1)]).has("on_batch_end")
    assert not Hooks([LivePlot(every=1)]).may_change("on_batch_end", "on_epoch_end")


def test_it_serves_many_fits_clones_and_pickles(tmp_path, network, blobs):
    live = LivePlot(tmp_path / "live.png", every=2)
    clf = fit(network, blobs, live)
    first = live.figure_

    clf.fit(*blobs)
    copied = pickle.loads(pickle.dumps(clf))

    assert live.figure_ is not first
    assert lines(live.figure_.axes[0])["training"][:, 0].tolist() == [1, 2, 3]
    assert clone(clf).callbacks[0].get_params() == live.get_params()
    assert not hasattr(copied.callbacks[0], "figure_")
    assert not hasattr(LivePlot(), "figure_")
