"""What may happen during a run: log, stop early, or anything of your own."""

from easyclf.callbacks.base import Callback, Hooks, LambdaCallback, check_callbacks
from easyclf.callbacks.loggers import AccuracyLogger, ProgressBar, is_watched
from easyclf.callbacks.stopping import EarlyStopping

__all__ = [
    "AccuracyLogger",
    "Callback",
    "EarlyStopping",
    "Hooks",
    "LambdaCallback",
    "ProgressBar",
    "check_callbacks",
    "is_watched",
]
