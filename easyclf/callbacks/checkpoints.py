"""Checkpoints: what a run needs to go on where it ended, in files of a folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from easyclf.archives import Archive, read_archive, write_archive
from easyclf.callbacks.base import Callback
from easyclf.callbacks.monitoring import (
    check_at_least,
    check_measured,
    is_of_another_quantity,
    sign_of,
)
from easyclf.callbacks.records import check_folder
from easyclf.checks import warn_user
from easyclf.constraints import is_integer
from easyclf.documents import JSON
from easyclf.exceptions import InvalidFile
from easyclf.files import PathLike, check_writable, remove_unfinished
from easyclf.locks import holding
from easyclf.state import TrainingState
from easyclf.weights import weights_of, write_weights

_KIND, _VERSION = "checkpoint", 1
_NAME = re.compile(r"epoch-(\d{6,})\.ckpt")
_BEST = "best.safetensors"
_WRITTEN = re.compile(r"epoch-\d{6,}\.ckpt|best\.safetensors|writable")


class Checkpoint(Callback):
    """Keep a run in a folder, so that one that was cut short goes on where it ended.

    A checkpoint is written at the end of an epoch: weights, buffers, the state of the optimizer,
    that of schedules and of other callbacks, the history, and the seed, of which the random
    numbers of every epoch follow. `fit` with the same parameters and rows goes on after the newest
    whole checkpoint in the folder, and ends, on the CPU, with bit for bit the weights and the
    history of a run that was never cut short. A run that has ended does not train again; with
    more `epochs` it goes on.

    Each file is written under another name, flushed to the disk and renamed, so a process that
    dies while it writes leaves the checkpoint before. No file has a pickle in it.

    Parameters
    ----------
    path : str or path-like
        The folder, which is made if the folder that it stands in is there. A checkpoint is
        `epoch-000012.ckpt` in it. Each training needs a folder of its own.
    monitor : str, default=None
        A quantity, such as "val_loss". The weights of the epoch in which it was best are kept
        beside the checkpoints, as `best.safetensors`, which `load_weights` and other libraries
        read. Every epoch is compared. With `EMA` or `SWA` these are the averaged weights.
    every : int, default=1
        A checkpoint is written at the end of every so many epochs, and of the last one.
    keep : int, default=1
        So many of the newest checkpoints are kept; older ones are deleted.
    resume : bool, default=True
        Whether to go on with the run in the folder, if there is one. Otherwise training begins
        anew, and its first checkpoint takes the place of all that are there.

    Attributes
    ----------
    resumed_epoch_ : int or None
        The last epoch of the run that was gone on with; None where training began anew.
    best_score_ : float or None
        The best value of `monitor`.
    best_epoch_ : int or None
        Its epoch, from 1.

    Raises
    ------
    ValueError
        At the start of `fit`, if another `fit` is writing into the folder at that time, of this
        process or of another one. If the folder has the checkpoint of another training: each
        parameter that differs is named. If `monitor` will not be measured.
    OSError
        At the start of `fit`, if the folder cannot be written. A checkpoint that cannot be written
        later, as on a full disk, costs one warning, not the run.

    Warns
    -----
    UserWarning
        If a run goes on that was kept by another version of torch, NumPy, scikit-learn or easyclf,
        of which more than the last number differs. For each checkpoint that is damaged.

    Notes
    -----
    While a run is on, the file `.lock` in the folder keeps others out, where the system has locks
    of POSIX.

    An epoch that a callback cuts short, as `TimeLimit` does, is not kept: the next `fit` does it
    from its beginning. What a callback of your own remembers of a run is kept if it has
    `state_dict` and `load_state_dict`; see `Callback`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Checkpoint, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "run"
    >>> clf = Estimator(epochs=3, callbacks=[Checkpoint(folder)], random_state=0).fit(X, y)
    >>> [path.name for path in folder.iterdir()]
    ['epoch-000003.ckpt']
    >>> clf.fit(X, y, epochs=5).n_iter_, clf.callbacks[0].resumed_epoch_
    (5, 3)
    """

    changes = "nothing"

    def __init__(
        self,
        path: PathLike,
        *,
        monitor: str | None = None,
        every: int = 1,
        keep: int = 1,
        resume: bool = True,
    ) -> None:
        self.path = path
        self.monitor = monitor
        self.every = every
        self.keep = keep
        self.resume = resume

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings, before any work that could be lost."""
        for name in ("every", "keep"):
            value = getattr(self, name)
            if not is_integer(value):
                raise ValueError(f"`{name}` must be an integer of at least 1; got {value!r}.")
            check_at_least(1, **{name: value})
        if not isinstance(self.resume, bool):
            raise ValueError(f"`resume` must be True or False; got {self.resume!r}.")
        if self.monitor is not None:
            check_measured(self, self.monitor, state)
            self._sign = sign_of(self.monitor, "auto", state)
            # A module may have what no file of weights can hold.
            weights_of(state.module)
        self.resumed_epoch_: int | None = None
        self.best_score_: float | None = None
        self.best_epoch_: int | None = None
        self._has_warned = False
        # Those of other runs, which the first one of this run takes the place of.
        self._older = [] if self.resume else _checkpoints_in(Path(self.path))
        self._written: list[Path] = []

    @contextmanager
    def keeping_others_out(self) -> Iterator[None]:
        """Have the folder for this run alone, before its files are read.

        Raises
        ------
        OSError
            If it cannot be written.
        ValueError
            If another run has it.
        """
        folder = _folder_of(self.path)
        is_new = not folder.exists()
        with ExitStack() as held:
            try:
                _make(folder)
                # What fails before the first checkpoint leaves no empty folder behind.
                if is_new:
                    held.callback(_remove_if_empty, folder)
                is_alone = held.enter_context(holding(folder))
                if is_alone:
                    remove_unfinished(folder, _WRITTEN)
                    check_writable(folder / "writable")
            except OSError as error:
                error.add_note(f"Checkpoint cannot write into the folder {str(self.path)!r}.")
                raise
            if not is_alone:
                raise ValueError(
                    f"Checkpoint has the `path` {str(self.path)!r}, where another training is "
                    "under way; each needs a folder of its own. Give another `path`, or wait until "
                    "that one has ended."
                )
            yield

    def on_epoch_end(self, state: TrainingState) -> None:
        """Keep the weights of the best epoch."""
        if self.monitor is None:
            return
        score = float(state.logs[self.monitor])
        best = self.best_score_
        if math.isnan(score) or (best is not None and self._sign * (score - best) <= 0):
            return
        self.best_score_, self.best_epoch_ = score, state.epoch
        with self._warning():
            write_weights(Path(self.path) / _BEST, state.module)

    def state_dict(self) -> dict[str, object]:
        """Give what is known of the best epoch."""
        return {
            "watched": self._watched(),
            "best_score": self.best_score_,
            "best_epoch": self.best_epoch_,
        }

    def _watched(self) -> list[object]:
        return [self.monitor, None if self.monitor is None else self._sign]

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over what is known of the best epoch, if it was the best by the same quantity."""
        if is_of_another_quantity(state, self._watched()):
            return
        self.best_score_, self.best_epoch_ = state["best_score"], state["best_epoch"]  # type: ignore[assignment]

    def is_due(self, epoch: int) -> bool:
        """Tell whether a checkpoint is written at the end of an epoch that is not the last."""
        return epoch % self.every == 0

    def save(
        self,
        epoch: int,
        documents: Mapping[str, JSON],
        tensors: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> None:
        """Write the checkpoint of an epoch, and delete those that are too old.

        Parameters
        ----------
        epoch : int
            The epoch that has ended.
        documents : mapping of str to JSON
            What the run knows.
        tensors : mapping of str to mapping of str to Tensor
            Groups of tensors of any shapes.

        Warns
        -----
        UserWarning
            The first time that it cannot be written: the training goes on.
        """
        path = Path(self.path) / f"epoch-{epoch:06d}.ckpt"
        with self._warning():
            write_archive(path, documents, tensors, kind=_KIND, version=_VERSION)
            self._written = [older for older in self._written if older != path] + [path]
            outdated = [older for older in self._older if older != path]
            outdated += self._written[: -self.keep]
            self._older, self._written = [], self._written[-self.keep :]
            for older in outdated:
                older.unlink(missing_ok=True)

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Warn once where the folder fails, as when the disk is full."""
        try:
            yield
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                warn_user(
                    f"Checkpoint can no longer write into {str(self.path)!r} ({error}); the "
                    "training goes on, and what was kept before stays.",
                )

    def go_on_from(self, epoch: int) -> None:
        """Note that the run goes on after an epoch, whose checkpoint is now its own."""
        self.resumed_epoch_ = epoch
        self._written = [
            path for path in _checkpoints_in(Path(self.path)) if _epoch_of(path) <= epoch
        ]

    def newest(self, *, warns: bool = True) -> Archive | None:
        """Read the newest whole checkpoint; None where there is none, or none is wanted.

        Parameters
        ----------
        warns : bool, default=True
            Whether a warning is given of each newer one that is damaged.
        """
        if not self.resume:
            return None
        for path in reversed(_checkpoints_in(_folder_of(self.path))):
            try:
                return read_archive(path, kind=_KIND, version=_VERSION)
            except (InvalidFile, FileNotFoundError) as error:
                if warns:
                    warn_user(
                        f"Checkpoint goes on without {path.name!r}: {error}",
                    )
        return None

    def forget(self) -> None:
        """Delete the checkpoints of this run, which are not what they should be."""
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written = []


def checkpoint_among(callbacks: Iterable[Callback]) -> Checkpoint | None:
    """Find the `Checkpoint` of a run.

    Raises
    ------
    ValueError
        If there are several.
    """
    among = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    if len(among) > 1:
        raise ValueError(
            f"`callbacks` has {len(among)} of Checkpoint; give one, whose `keep` says how many "
            "files it keeps, and whose `monitor` has it keep the best weights too."
        )
    return among[0] if among else None


@contextmanager
def keeping_others_out(callbacks: Iterable[Callback]) -> Iterator[None]:
    """Have the folder of the `Checkpoint` for one run alone; nothing is done without one.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If another run has it, or there are several.
    """
    checkpoint = checkpoint_among(callbacks)
    with nullcontext() if checkpoint is None else checkpoint.keeping_others_out():
        yield


def kept_seed(callbacks: Iterable[Callback]) -> int | None:
    """Look up the seed of the run that is to be gone on with; None where there is none."""
    checkpoint = checkpoint_among(callbacks)
    # The run reads it again once it has the folder for itself, and warns then.
    archive = None if checkpoint is None else checkpoint.newest(warns=False)
    match None if archive is None else archive.documents.get("run"):
        case {"seed": int(seed)}:
            return seed
        case _:
            return None


def _checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, the newest last."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_epoch_of)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            error.errno, f"The folder could not be made: {reason}", str(folder)
        ) from error


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _epoch_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _folder_of(path: PathLike) -> Path:
    """Check that a path can be that of a folder.

    Raises
    ------
    TypeError
        If it is no path.
    OSError
        If it is a file, or in no folder.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not path:
        raise TypeError(f"`path` of Checkpoint must be the path of a folder; got {path!r}.")
    folder = check_folder(path, "Checkpoint")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"`path` of Checkpoint is the file {str(path)!r}; give a folder, as 'runs/first', "
            "which is made if it is not there."
        )
    return folder
