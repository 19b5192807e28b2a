"""Figures of every epoch for TensorBoard."""

from __future__ import annotations

import warnings
from typing import Any

from easyclf.callbacks.base import Callback
from easyclf.callbacks.records import check_folder, row_of, telling_who_writes
from easyclf.checks import import_optional
from easyclf.files import PathLike
from easyclf.state import TrainingState


class TensorBoard(Callback):
    """Write the quantities of every epoch for TensorBoard, by `torch.utils.tensorboard`.

    `tensorboard --logdir LOG_DIR` shows them; TensorFlow is not needed. Each fit is a run of its
    own, in a folder for each that the writer names.

    Parameters
    ----------
    log_dir : str or path-like
        The folder of the run, which is made if the folder that it stands in is there.

    Raises
    ------
    ImportError
        At the start of `fit`, if tensorboard is not installed.
    OSError
        At the start of `fit`, if the folder cannot be written.

    Examples
    --------
    >>> from easyclf import Estimator, TensorBoard
    >>> clf = Estimator(callbacks=[TensorBoard("runs")])
    """

    changes = "nothing"

    def __init__(self, log_dir: PathLike) -> None:
        self.log_dir = log_dir

    def on_train_begin(self, state: TrainingState) -> None:
        """Open the folder, before any work that a missing one could lose."""
        import_optional("tensorboard", needed_by="TensorBoard")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the packages beneath
            from torch.utils.tensorboard import SummaryWriter

        path = check_folder(self.log_dir, "TensorBoard", "log_dir")
        with telling_who_writes("TensorBoard", path):
            path.mkdir(exist_ok=True)
            self._writer: Any = SummaryWriter(str(path))

    def on_epoch_end(self, state: TrainingState) -> None:
        """Write the epoch."""
        row = row_of(state)
        epoch = int(row.pop("epoch"))
        for name, value in row.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, state: TrainingState) -> None:
        """Close the files."""
        writer = vars(self).pop("_writer", None)
        if writer is not None:
            writer.close()
