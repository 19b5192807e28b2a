"""Figures of every epoch in files."""

import csv
import json
import math
import os
import pickle

import pytest
from sklearn.model_selection import cross_val_score

from easyclf import CSVLogger, Estimator, JSONLogger, LambdaCallback, LivePlot, TensorBoard


def fit(network, blobs, *callbacks, **parameters):
    settings = {"epochs": 3, "lr": 0.1, "random_state": 0, **parameters}
    return Estimator(network, callbacks=list(callbacks), **settings).fit(
        *blobs, validation_data=blobs
    )


def read(path):
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_table_has_a_line_for_each_epoch(tmp_path, network, blobs):
    path = tmp_path / "log.csv"

    clf = fit(network, blobs, CSVLogger(path), metrics=["f1_macro"])

    header, *rows = read(path)
    assert header == clf.history_.keys()
    assert [[float(cell) for cell in row] for row in rows] == [
        list(row.values()) for row in clf.history_
    ]


def test_objects_have_the_figures_of_each_epoch(tmp_path, network, blobs):
    path = tmp_path / "log.jsonl"
    spoil = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=math.nan))

    clf = fit(network, blobs, spoil, JSONLogger(path))

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["loss"] for row in rows] == clf.history_["loss"].tolist()
    assert [row["val_loss"] for row in rows] == [None, None, None]


def test_what_other_callbacks_add_is_written(tmp_path, network, blobs):
    path = tmp_path / "log.csv"
    add = LambdaCallback(on_epoch_end=lambda state: state.logs.update(twice=2 * state.epoch))

    fit(network, blobs, add, CSVLogger(path))

    assert [row[-1] for row in read(path)] == ["twice", "2.0", "4.0", "6.0"]


@pytest.mark.parametrize("logger", [CSVLogger, JSONLogger])
def test_every_line_is_there_as_soon_as_its_epoch_is_over(logger, tmp_path, network, blobs):
    path, seen = tmp_path / "log", []
    look = LambdaCallback(on_epoch_end=lambda state: seen.append(len(path.read_text().split())))

    fit(network, blobs, logger(path), look)

    assert len(set(seen)) == 3
    assert sorted(seen) == seen


@pytest.mark.parametrize(("append", "n_lines"), [(False, 4), (True, 7)])
def test_a_file_is_begun_anew_or_gone_on_with(append, n_lines, tmp_path, network, blobs):
    path = tmp_path / "log.csv"
    for _ in range(2):
        fit(network, blobs, CSVLogger(path, append=append))

    assert len(read(path)) == n_lines


def test_folds_go_on_with_one_file(tmp_path, network, blobs):
    path = tmp_path / "log.csv"
    clf = Estimator(network, epochs=2, callbacks=[CSVLogger(path, append=True)])

    cross_val_score(clf, *blobs, cv=3)

    assert [row[0] for row in read(path)] == ["epoch", "1", "2", "1", "2", "1", "2"]


def test_a_file_of_other_columns_is_not_gone_on_with(tmp_path, network, blobs):
    path = tmp_path / "log.csv"
    fit(network, blobs, CSVLogger(path), metrics=["f1_macro"])

    with pytest.raises(ValueError, match=r"has the columns .*'f1_macro'.*use another file"):
        fit(network, blobs, CSVLogger(path, append=True))


@pytest.mark.parametrize(
    ("logger", "name"), [(CSVLogger, "path"), (LivePlot, "path"), (TensorBoard, "log_dir")]
)
def test_what_is_no_path_is_refused(logger, name, network, blobs):
    if logger is not CSVLogger:
        pytest.importorskip("matplotlib" if logger is LivePlot else "tensorboard")

    with pytest.raises(TypeError, match=f"`{name}` is 3; expected a text or a path"):
        fit(network, blobs, logger(3))


@pytest.mark.parametrize("logger", [CSVLogger, JSONLogger, TensorBoard])
def test_a_missing_folder_is_refused_before_training(logger, tmp_path, network, blobs):
    if logger is TensorBoard:
        pytest.importorskip("tensorboard")
    epochs = []
    note = LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch))

    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
        fit(network, blobs, logger(tmp_path / "missing" / "log"), note)

    assert epochs == []


@pytest.mark.parametrize("logger", [CSVLogger, JSONLogger])
def test_a_file_that_cannot_be_written_is_refused_before_training(logger, tmp_path, network, blobs):
    with pytest.raises(OSError, match=r"directory") as raised:
        fit(network, blobs, logger(tmp_path))

    assert f"{logger.__name__} cannot write" in raised.value.__notes__[0]


def test_a_folder_that_cannot_be_made_is_refused_in_the_same_words(tmp_path, network, blobs):
    pytest.importorskip("tensorboard")
    (tmp_path / "log").write_text("mine")

    with pytest.raises(FileExistsError) as raised:
        fit(network, blobs, TensorBoard(tmp_path / "log"))

    assert raised.value.__notes__[0] == f"TensorBoard cannot write {str(tmp_path / 'log')!r}."


@pytest.mark.parametrize("logger", [CSVLogger, JSONLogger])
def test_a_file_that_fails_later_costs_one_warning(logger, tmp_path, network, blobs):
    log = logger(tmp_path / "log")

    class Full:
        def write(self, text):
            raise OSError("no space left")

        def close(self):
            raise OSError("no space left")

    def fill(state):
        if state.epoch == 2:
            log._stream.close()
            log._stream = Full()

    with pytest.warns(UserWarning, match="can no longer write .* the training goes on") as warned:
        clf = fit(network, blobs, LambdaCallback(on_epoch_begin=fill), log)

    assert clf.n_iter_ == 3
    assert len(warned) == 1


def test_files_are_closed_after_errors_and_loggers_pickle(tmp_path, network, blobs):
    def fail(state):
        raise ZeroDivisionError

    log = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(ZeroDivisionError):
        fit(network, blobs, log, LambdaCallback(on_epoch_end=fail))

    assert log._stream is None
    assert len(read(tmp_path / "log.csv")) == 2
    copied = pickle.loads(pickle.dumps(log))
    assert os.fspath(copied.path) == os.fspath(log.path)


def test_tensorboard_has_the_figures(tmp_path, network, blobs):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clf = fit(network, blobs, TensorBoard(tmp_path / "run"), metrics=["f1_macro"])

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert set(events.Tags()["scalars"]) == set(clf.history_.keys()) - {"epoch"}
    found = [(event.step, event.value) for event in events.Scalars("val_f1_macro")]
    expected = clf.history_["val_f1_macro"]
    assert found == [(step, pytest.approx(value)) for step, value in enumerate(expected, 1)]


def test_without_tensorboard_the_line_that_installs_it_is_told(
    tmp_path, network, blobs, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)

    with pytest.raises(ImportError, match=r'pip install "easyclf\[tensorboard\]"'):
        fit(network, blobs, TensorBoard(tmp_path / "run"))
