"""Any `torch.nn.Module` as a scikit-learn classifier."""

from importlib.metadata import version

from easyclf.callbacks import (
    EMA,
    SWA,
    AccuracyLogger,
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    GradientNorm,
    JSONLogger,
    LambdaCallback,
    LivePlot,
    LRScheduler,
    ProgressBar,
    ReduceLROnPlateau,
    StopAt,
    TensorBoard,
    TimeLimit,
    Unfreeze,
)
from easyclf.data import MultiInput, SliceDataset
from easyclf.displays import TrainingDisplay
from easyclf.estimator import Estimator
from easyclf.exceptions import InvalidFile, TrainingDiverged
from easyclf.mlp import MLP
from easyclf.vocabulary import FOREIGN_CALLBACKS

__version__ = version("easyclf")

__all__ = [
    "EMA",
    "MLP",
    "SWA",
    "AccuracyLogger",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Estimator",
    "GradientNorm",
    "InvalidFile",
    "JSONLogger",
    "LRScheduler",
    "LambdaCallback",
    "LivePlot",
    "MultiInput",
    "ProgressBar",
    "ReduceLROnPlateau",
    "SliceDataset",
    "StopAt",
    "TensorBoard",
    "TimeLimit",
    "TrainingDisplay",
    "TrainingDiverged",
    "Unfreeze",
]


def __getattr__(name: str) -> object:
    if name in FOREIGN_CALLBACKS:
        # An AttributeError would lose its words on the way through `from easyclf import ...`.
        raise ImportError(f"easyclf has no {name}; use {FOREIGN_CALLBACKS[name]}")
    raise AttributeError(f"module 'easyclf' has no attribute {name!r}")
