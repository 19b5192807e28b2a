"""Telling the user how the training goes."""

import io
import multiprocessing
import sys

import numpy as np
import pytest
from torch import from_numpy, nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import AccuracyLogger, Estimator, LambdaCallback, ProgressBar
from easyclf.callbacks.base import Hooks
from easyclf.callbacks.loggers import is_watched


def estimator(network, *callbacks, **parameters):
    keywords = {"optimizer": "sgd", "lr": 0.1, "epochs": 3, "batch_size": 10, "random_state": 0}
    return Estimator(network, callbacks=list(callbacks), **{**keywords, **parameters})


def printed(network, blobs, *callbacks, epochs=3, **settings):
    """The lines that a logger prints in a fit, and the history of that fit."""
    stream = io.StringIO()
    logger = AccuracyLogger(stream=stream, **settings)
    clf = estimator(network, *callbacks, logger, epochs=epochs).fit(*blobs, validation_data=blobs)
    return stream.getvalue().splitlines(), clf.history_


class FakeBar:
    """Stands in for tqdm, and notes what was asked of it."""

    made = ()

    def __init__(self, total, delay=0.0, leave=True, disable=False, **others):
        self.total, self.delay, self.n, self.is_closed = total, delay, 0, False
        self.leave, self.disable = leave, disable
        self.figures = {}
        FakeBar.made = (*FakeBar.made, self)

    def update(self, n=1):
        self.n += n

    def set_description(self, text, refresh=True):
        self.text = text

    def set_postfix(self, figures=None, refresh=True, **more):
        self.figures = {**(figures or {}), **more}

    def close(self):
        self.is_closed = True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr("tqdm.auto.tqdm", FakeBar)
    monkeypatch.setattr(FakeBar, "made", ())
    return lambda: FakeBar.made


class Terminal(io.StringIO):
    def isatty(self):
        return True


def cells(line):
    return line.split()


def test_a_line_has_all_quantities_of_its_epoch(blobs, network):
    lines, history = printed(network, blobs)

    assert cells(lines[0]) == history.keys()
    for line, row in zip(lines[1:4], history, strict=True):
        losses = [f"{row[n]:.4f}" for n in ("loss", "accuracy", "val_loss", "val_accuracy")]
        expected = [f"{row['epoch']}/3", *losses, f"{row['lr']:g}", f"{row['seconds']:.2f}"]
        assert cells(line)[:7] == expected


def test_columns_are_aligned(blobs, network):
    lines, _ = printed(network, blobs, epochs=10, percent=True)

    ends = [
        [
            place
            for place in range(len(line))
            if line[place : place + 2].strip()
            and (place + 1 == len(line) or line[place + 1] == " ")
        ]
        for line in lines[:11]
    ]
    assert all(found[:7] == ends[0] for found in ends)


def test_metrics_and_what_callbacks_add_are_columns(blobs, network):
    add = LambdaCallback(on_epoch_end=lambda state: state.logs.update(twice=2 * state.epoch))
    stream = io.StringIO()

    estimator(network, add, AccuracyLogger(stream=stream), metrics=["f1_macro"], epochs=1).fit(
        *blobs
    )

    header, line = stream.getvalue().splitlines()
    assert cells(header) == ["epoch", "loss", "accuracy", "f1_macro", "lr", "seconds", "twice"]
    assert cells(line)[-1] == "2.0000"


def test_epochs_that_are_the_best_so_far_are_marked(blobs, network):
    losses = iter([3, 2, 2.5, 1, 4])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(losses)))

    lines, _ = printed(network, blobs, rewrite, epochs=5)

    assert [line.endswith("  *") for line in lines[1:6]] == [True, True, False, True, False]
    assert lines[6:] == ["best: val_loss 1 in epoch 4"]


def test_without_validation_no_epoch_is_the_best(blobs, network):
    stream = io.StringIO()

    estimator(network, AccuracyLogger(stream=stream)).fit(*blobs)

    assert "*" not in stream.getvalue()
    assert "best" not in stream.getvalue()


def test_accuracies_are_percentages_when_asked_for(blobs, network):
    lines, history = printed(network, blobs, percent=True)

    assert f" {100 * history['val_accuracy'][-1]:.2f}% " in lines[3]


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [
        (1, 3, [1, 2, 3]),
        (5, 12, [1, 5, 10, 12]),
        (5, 10, [1, 5, 10]),
        (50, 3, [1, 3]),
        (1, 1, [1]),
    ],
)
def test_the_first_every_so_many_and_the_last_epoch_are_printed(
    every, epochs, expected, blobs, network
):
    lines, _ = printed(network, blobs, every=every, epochs=epochs)

    assert [int(line.split("/")[0]) for line in lines[1:-1]] == expected


def test_the_reason_of_an_early_stop_is_the_last_line(blobs, network):
    stop = LambdaCallback(on_epoch_end=lambda state: state.epoch == 2 and state.stop("enough"))

    lines, _ = printed(network, blobs, stop, every=10)

    assert [cells(line)[0] for line in lines] == ["epoch", "1/3", "2/3", "stopped:"]
    assert lines[-1] == "stopped: enough"


def test_the_mean_loss_of_every_so_many_steps_is_printed(blobs, network):
    """As tutorials print it every 300 batches: six steps an epoch, the last two left over."""
    stream, losses = io.StringIO(), []
    note = LambdaCallback(on_batch_end=lambda state: losses.append(state.logs["loss"].item()))
    logger = AccuracyLogger(stream=stream, every_steps=4)

    estimator(network, note, logger, batch_size=5, epochs=2).fit(*blobs)

    running = [line for line in stream.getvalue().splitlines() if "step" in line]
    assert running == [
        f"epoch 1, step 4: loss {sum(losses[:4]) / 4:.4f}",
        f"epoch 2, step 4: loss {sum(losses[6:10]) / 4:.4f}",
    ]


def test_without_steps_a_logger_has_no_hook_for_them():
    assert not Hooks([AccuracyLogger()]).has("on_batch_end")
    assert Hooks([AccuracyLogger(every_steps=3)]).has("on_batch_end")


def test_one_logger_serves_many_fits(blobs, network):
    stream = io.StringIO()
    clf = estimator(network, AccuracyLogger(every=2, stream=stream))

    clf.fit(*blobs).fit(*blobs)

    assert [cells(line)[0] for line in stream.getvalue().splitlines()] == 2 * [
        "epoch",
        "1/3",
        "2/3",
        "3/3",
    ]


def test_intervals_may_be_of_numpy(blobs, network):
    stream = io.StringIO()
    logger = AccuracyLogger(every=np.int64(2), every_steps=np.int64(3), stream=stream)

    estimator(network, logger, batch_size=10).fit(*blobs)

    assert sum("step 3" in line for line in stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2", True])
def test_a_number_of_steps_that_makes_no_sense_is_refused(steps, blobs, network):
    with pytest.raises(ValueError, match=f"`every_steps`.*{steps!r}"):
        estimator(network, AccuracyLogger(every_steps=steps)).fit(*blobs)


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", True, None])
def test_an_interval_that_makes_no_sense_is_refused(every, blobs, network):
    with pytest.raises((ValueError, TypeError), match=f"`every`.*{every!r}"):
        estimator(network, AccuracyLogger(every=every)).fit(*blobs)


def test_without_a_stream_lines_go_to_the_standard_output(blobs, network, capsys):
    estimator(network, AccuracyLogger()).fit(*blobs)

    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(("verbose", "n_lines"), [(0, 0), (1, 0), (2, 4), ("auto", 0)])
def test_only_verbose_2_prints_lines(verbose, n_lines, blobs, network, capsys):
    estimator(network, verbose=verbose).fit(*blobs)

    assert len(capsys.readouterr().out.splitlines()) == n_lines


@pytest.mark.parametrize("verbose", [0, 2, "auto"])
def test_nothing_is_drawn_when_nobody_watches(verbose, blobs, network, bars, capsys):
    estimator(network, verbose=verbose).fit(*blobs)

    assert bars() == ()
    assert capsys.readouterr().err == ""


def test_verbose_1_draws_a_bar(blobs, network, capsys):
    estimator(network, verbose=1).fit(*blobs)

    assert "/9 " in capsys.readouterr().err


def test_a_bar_goes_through_all_batches_of_all_epochs(blobs, network, bars):
    clf = estimator(network, ProgressBar()).fit(*blobs, validation_data=blobs)

    (bar,) = bars()
    assert (bar.n, bar.total, bar.is_closed) == (9, 9, True)
    assert bar.text == "epoch 3/3"
    assert bar.figures["val_loss"] == f"{clf.history_['val_loss'][-1]:.4f}"


@pytest.mark.parametrize(
    ("parameters", "normalized", "as_dataset"),
    [
        ({"accumulate": 2}, False, False),
        ({"accumulate": 7}, False, False),
        ({"batch_size": 29}, True, False),
        ({"batch_size": 29}, True, True),
        ({"batch_size": 7}, False, True),
        ({"batch_size": -1}, False, False),
    ],
)
def test_a_bar_is_full_at_the_end(parameters, normalized, as_dataset, blobs, network, bars):
    module = nn.Sequential(nn.BatchNorm1d(4), network) if normalized else network
    data = [TensorDataset(*map(from_numpy, blobs))] if as_dataset else blobs

    estimator(module, ProgressBar(), **parameters).fit(*data)

    (bar,) = bars()
    assert bar.n == bar.total


def test_a_bar_goes_through_a_loader(blobs, network, bars):
    loader = DataLoader(TensorDataset(*map(from_numpy, blobs)), batch_size=4)

    estimator(network, ProgressBar(), batch_size="auto").fit(loader)

    (bar,) = bars()
    assert (bar.n, bar.total) == (24, 24)


def test_a_bar_of_a_continued_fit_has_only_the_new_epochs(blobs, network, bars):
    clf = estimator(network, warm_start=True).fit(*blobs)

    clf.set_params(callbacks=[ProgressBar()]).fit(*blobs, epochs=2)

    (bar,) = bars()
    assert (bar.n, bar.total, bar.text) == (6, 6, "epoch 5/5")


def test_a_bar_is_closed_after_an_error(blobs, network, bars):
    def fail(state):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        estimator(network, ProgressBar(), LambdaCallback(on_batch_end=fail)).fit(*blobs)

    assert bars()[0].is_closed


def test_in_a_terminal_a_bar_is_drawn_that_waits_a_little(blobs, network, bars, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())

    estimator(network).fit(*blobs)

    (bar,) = bars()
    assert 0.5 <= bar.delay <= 3


def test_somebody_watches_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())

    assert is_watched()


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_nobody_watches_a_file_or_nothing(stderr, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr)

    assert not is_watched()


def test_nobody_watches_a_worker_process(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(multiprocessing.current_process(), "name", "LokyProcess-1")

    assert not is_watched()


def test_the_figures_of_the_last_epoch_stay(blobs, network, capsys):
    clf = estimator(network, ProgressBar(), metrics=["f1_macro"]).fit(*blobs, validation_data=blobs)

    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "9/9" in last
    assert f"val_f1_macro={clf.history_['val_f1_macro'][-1]:.4f}" in last


@pytest.mark.parametrize(("place", "stays"), [(0, True), (-1, False)])
def test_a_bar_below_another_one_goes_when_it_is_done(
    place, stays, blobs, network, bars, monkeypatch
):
    """It is said to each bar, since tqdm's own `leave=None` means never in a notebook."""
    monkeypatch.setattr(FakeBar, "pos", place, raising=False)

    estimator(network, ProgressBar()).fit(*blobs)

    assert bars()[0].leave is stays


def test_a_bar_is_full_after_an_early_stop(blobs, network, bars):
    stop = LambdaCallback(on_epoch_end=lambda state: state.epoch == 2 and state.stop("enough"))

    estimator(network, stop, ProgressBar()).fit(*blobs)

    assert bars()[0].n == bars()[0].total == 6


def test_nothing_is_drawn_in_a_worker_process(blobs, network, bars, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "name", "LokyProcess-1")

    estimator(network, ProgressBar()).fit(*blobs)

    assert bars()[0].disable


def test_a_notebook_without_widgets_is_told_nothing(blobs, network, monkeypatch):
    """tqdm warns on import there; warnings are errors in these tests."""
    import builtins

    real = builtins.__import__

    def warning_import(name, *args, **keywords):
        if name == "tqdm.auto":
            import warnings

            warnings.warn("IProgress not found", UserWarning, stacklevel=2)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", warning_import)

    estimator(network, ProgressBar()).fit(*blobs)
