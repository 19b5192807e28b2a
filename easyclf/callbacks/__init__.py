"""What may happen during a run: log, stop early, or anything of your own."""

from easyclf.callbacks.base import Callback, LambdaCallback
from easyclf.callbacks.base import Hooks as Hooks
from easyclf.callbacks.base import give_results as give_results
from easyclf.callbacks.base import results_of as results_of
from easyclf.callbacks.checkpoints import Checkpoint
from easyclf.callbacks.checkpoints import checkpoint_among as checkpoint_among
from easyclf.callbacks.checkpoints import keeping_others_out as keeping_others_out
from easyclf.callbacks.checkpoints import kept_seed as kept_seed
from easyclf.callbacks.live_plot import LivePlot
from easyclf.callbacks.loggers import AccuracyLogger, ProgressBar
from easyclf.callbacks.loggers import shown_by as shown_by
from easyclf.callbacks.naming import CallbackLike as CallbackLike
from easyclf.callbacks.naming import check_callbacks as check_callbacks
from easyclf.callbacks.naming import named_callbacks as named_callbacks
from easyclf.callbacks.naming import plain_callbacks as plain_callbacks
from easyclf.callbacks.plateau import ReduceLROnPlateau
from easyclf.callbacks.range_test import find_learning_rate as find_learning_rate
from easyclf.callbacks.records import CSVLogger, JSONLogger
from easyclf.callbacks.schedules import LRScheduler
from easyclf.callbacks.sklearn_bridge import TellsTasks as TellsTasks
from easyclf.callbacks.sklearn_bridge import TrainingRows as TrainingRows
from easyclf.callbacks.sklearn_bridge import are_tasks_told as are_tasks_told
from easyclf.callbacks.sklearn_bridge import telling_tasks as telling_tasks
from easyclf.callbacks.sklearn_bridge import untold_clone as untold_clone
from easyclf.callbacks.stopping import EarlyStopping, StopAt, TimeLimit
from easyclf.callbacks.tensorboard import TensorBoard
from easyclf.callbacks.weights import EMA, SWA, GradientNorm, Unfreeze

__all__ = [
    "EMA",
    "SWA",
    "AccuracyLogger",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "GradientNorm",
    "JSONLogger",
    "LRScheduler",
    "LambdaCallback",
    "LivePlot",
    "ProgressBar",
    "ReduceLROnPlateau",
    "StopAt",
    "TensorBoard",
    "TimeLimit",
    "Unfreeze",
]
