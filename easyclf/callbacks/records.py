"""Figures of every epoch in a file: as a table of commas, or as lines of JSON."""

from __future__ import annotations

import csv
import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from easyclf.callbacks.base import Callback
from easyclf.checks import warn_user
from easyclf.files import PathLike, check_path
from easyclf.state import TrainingState

Row = dict[str, float]


def row_of(state: TrainingState) -> Row:
    """The quantities of the present epoch, as numbers, with its number."""
    return {"epoch": state.epoch, **{name: float(value) for name, value in state.logs.items()}}


def check_folder(path: PathLike, owner: str, name: str = "path") -> Path:
    """Refuse a path whose folder is not there.

    Raises
    ------
    FileNotFoundError
        It names the folder.
    TypeError
        If it is no path.
    """
    check_path(path, "runs/first", name)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{owner} is to write {str(path)!r}, but there is no folder {str(path.parent)!r}; make "
            "it first."
        )
    return path


@contextmanager
def telling_who_writes(owner: str, path: PathLike) -> Iterator[None]:
    """Have errors of files say which callback was to write what."""
    try:
        yield
    except OSError as error:
        error.add_note(f"{owner} cannot write {str(path)!r}.")
        raise


class FileLogger(Callback):
    """Writes a line for each epoch; a crash loses at most the line that is being written."""

    path: PathLike
    _stream: IO[str] | None = None

    def on_train_begin(self, state: TrainingState) -> None:
        """Open the file, before any work that a missing folder could lose."""
        path = check_folder(self.path, type(self).__name__)
        self._n_written = len(state.history)
        with telling_who_writes(type(self).__name__, path):
            self._stream = self._open(path)

    @abstractmethod
    def _open(self, path: Path) -> IO[str]:
        """Open the file, for a new run or to go on."""

    @abstractmethod
    def _write(self, stream: IO[str], row: Row) -> None:
        """Write the row of an epoch."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Write the epoch; a file that fails now costs a warning, not the run."""
        # Before it those of other processes, where a run was resumed.
        self._write_all([*self._missing(state, -1), row_of(state)], len(state.history))

    def on_train_end(self, state: TrainingState) -> None:
        """Write what a run had measured that was resumed after its end."""
        self._write_all([*self._missing(state, None)], len(state.history))

    def _missing(self, state: TrainingState, stop: int | None) -> Iterable[Row]:
        """The rows of the history, up to one of them, that the file has not."""
        return state.history[self._n_written : stop]

    def _write_all(self, rows: list[Row], n_written: int) -> None:
        if self._stream is None:
            return
        try:
            for row in rows:
                self._write(self._stream, row)
            self._n_written = n_written
            self._stream.flush()
        except OSError as error:
            warn_user(
                f"{type(self).__name__} can no longer write {str(self.path)!r} ({error}); the "
                "training goes on without it.",
            )
            self._let_go()

    def close(self, state: TrainingState) -> None:
        """Close the file."""
        self._let_go()

    def _let_go(self) -> None:
        stream = vars(self).pop("_stream", None)
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what could not be written was told already
                return


class CSVLogger(FileLogger):
    """Write the quantities of every epoch into a file of comma-separated values.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder has to be there.
    append : bool, default=False
        Whether to go on at the end of a file that is there, instead of beginning it anew: for
        fits that continue one another, and for the folds of a cross validation.

    Raises
    ------
    OSError
        At the start of `fit`, if the file cannot be written.
    ValueError
        After the first epoch, if the file to go on with has other columns.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import CSVLogger, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> clf = Estimator(epochs=3, callbacks=[CSVLogger(path)]).fit(X, y)
    >>> path.read_text().splitlines()[0]
    'epoch,loss,accuracy,lr,seconds'
    """

    changes = "nothing"

    def __init__(self, path: PathLike, append: bool = False) -> None:
        self.path = path
        self.append = append

    def _open(self, path: Path) -> IO[str]:
        self._columns: list[str] | None = None
        if self.append and path.exists():
            with path.open(newline="", encoding="utf-8") as stream:
                self._columns = next(csv.reader(stream), None)
        return path.open("a" if self.append else "w", newline="", encoding="utf-8")

    def _missing(self, state: TrainingState, stop: int | None) -> Iterable[Row]:
        return () if self.append else super()._missing(state, stop)

    def _write(self, stream: IO[str], row: Row) -> None:
        writer = csv.writer(stream)
        if self._columns is None:
            self._columns = list(row)
            writer.writerow(self._columns)
        if not set(self._columns) <= row.keys():
            raise ValueError(
                f"{str(self.path)!r} has the columns {self._columns}, but this run measures "
                f"{list(row)}; use another file, or append=False."
            )
        writer.writerow([row[name] for name in self._columns])


class JSONLogger(FileLogger):
    """Write the quantities of every epoch into a file, as one JSON object a line.

    Parameters
    ----------
    path : str or path-like
        The file, which each fit begins anew. Its folder has to be there. What is not finite is
        written as null.

    Raises
    ------
    OSError
        At the start of `fit`, if the file cannot be written.

    Examples
    --------
    >>> import json, tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, JSONLogger
    >>> X, y = load_iris(return_X_y=True)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> clf = Estimator(epochs=3, callbacks=[JSONLogger(path)]).fit(X, y)
    >>> [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
    [1, 2, 3]
    """

    changes = "nothing"

    def __init__(self, path: PathLike) -> None:
        self.path = path

    def _open(self, path: Path) -> IO[str]:
        return path.open("w", encoding="utf-8")

    def _write(self, stream: IO[str], row: Row) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        stream.write(json.dumps(finite) + "\n")
