"""Any `torch.nn.Module` as a scikit-learn classifier."""

from importlib.metadata import version

from easyclf.callbacks.base import Callback, LambdaCallback
from easyclf.callbacks.loggers import AccuracyLogger, ProgressBar
from easyclf.callbacks.stopping import EarlyStopping
from easyclf.data import MultiInput
from easyclf.estimator import Estimator
from easyclf.exceptions import TrainingDiverged
from easyclf.mlp import MLP

__version__ = version("easyclf")

__all__ = [
    "MLP",
    "AccuracyLogger",
    "Callback",
    "EarlyStopping",
    "Estimator",
    "LambdaCallback",
    "MultiInput",
    "ProgressBar",
    "TrainingDiverged",
]
