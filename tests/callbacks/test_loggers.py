"""Telling the user how the training goes."""

import io
import multiprocessing
import sys

import pytest
from torch import from_numpy, nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import AccuracyLogger, Estimator, LambdaCallback, ProgressBar
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

    def __init__(self, total, delay=0.0, **others):
        self.total, self.delay, self.n, self.is_closed = total, delay, 0, False
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


def test_a_line_has_the_figures_of_its_epoch(blobs, network):
    lines, history = printed(network, blobs)

    assert lines == [
        f"epoch {row['epoch']}/3  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
        for row in history
    ]


def test_accuracies_are_percentages_when_asked_for(blobs, network):
    lines, history = printed(network, blobs, percent=True)

    assert f"val_accuracy {100 * history['val_accuracy'][-1]:6.2f}%" in lines[-1]


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

    assert [int(line.split()[1].split("/")[0]) for line in lines] == expected


def test_epochs_are_aligned(blobs, network):
    lines, _ = printed(network, blobs, epochs=10)

    assert lines[0].startswith("epoch  1/10  loss")
    assert lines[-1].startswith("epoch 10/10  loss")


def test_the_reason_of_an_early_stop_is_the_last_line(blobs, network):
    stop = LambdaCallback(on_epoch_end=lambda state: state.epoch == 2 and state.stop("enough"))

    lines, _ = printed(network, blobs, stop, every=10)

    assert [line[:9] for line in lines] == ["epoch 1/3", "epoch 2/3", "stopped: "]
    assert lines[-1] == "stopped: enough"


def test_one_logger_serves_many_fits(blobs, network):
    stream = io.StringIO()
    clf = estimator(network, AccuracyLogger(every=2, stream=stream))

    clf.fit(*blobs).fit(*blobs)

    assert [line[:9] for line in stream.getvalue().splitlines()] == 2 * [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", True, None])
def test_an_interval_that_makes_no_sense_is_refused(every, blobs, network):
    with pytest.raises((ValueError, TypeError), match=f"`every`.*{every!r}"):
        estimator(network, AccuracyLogger(every=every)).fit(*blobs)


def test_without_a_stream_lines_go_to_the_standard_output(blobs, network, capsys):
    estimator(network, AccuracyLogger()).fit(*blobs)

    assert capsys.readouterr().out.count("accuracy") == 3


@pytest.mark.parametrize(("verbose", "n_lines"), [(0, 0), (1, 0), (2, 3), ("auto", 0)])
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
