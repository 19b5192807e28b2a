"""Callbacks of scikit-learn's own protocol, which are told of every epoch as a task."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeVar

import sklearn
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from torch import nn

from easyclf.callbacks.base import Callback, LambdaCallback
from easyclf.state import TrainingState

if TYPE_CHECKING:
    from sklearn.callback import CallbackContext

_HAS_PROTOCOL = find_spec("sklearn.callback") is not None
# Where scikit-learn keeps the callbacks of an estimator, and what makes the root of its tasks: it
# documents the latter, in spite of the underscore. `set_callbacks` looks whether both are there.
_KEPT, _ROOT = "_skl_callbacks", "_init_callback_context"
# Where an estimator keeps what a fit left, and the weights with which a first fit begins.
_FITTED, _WEIGHTS = "_fitted", "_initial_weights"
Run = Callable[[Sequence[Callback]], object]


class _HasModule(Protocol):
    @property
    def module(self) -> nn.Module: ...


class _HasEpochs(Protocol):
    @property
    def epochs(self) -> int: ...


class Trains(Protocol):
    """A fit: it trains with callbacks of easyclf, and `fitted` is what was learned so far."""

    @property
    def fitted(self) -> _HasModule | None: ...

    def run(self, callbacks: Sequence[Callback], /) -> object: ...


class HasCallbacks(Protocol):
    """An estimator that takes callbacks of both kinds."""

    def set_params(self, **params: object) -> object: ...

    def set_callbacks(self, *callbacks: object) -> object: ...


Clonable = TypeVar("Clonable", bound=HasCallbacks)


class TrainingRows(NamedTuple):
    """What `fit` was given, which hooks may ask for."""

    X: object
    y: object
    sample_weight: object


def _has_protocol(estimator: object) -> bool:
    if not _HAS_PROTOCOL:
        raise AttributeError(
            f"`set_callbacks` needs scikit-learn 1.9 or newer; this is {sklearn.__version__}. "
            "Callbacks of easyclf are given as callbacks=[...]."
        )
    return True


class TellsTasks:
    """An estimator whose epochs are tasks of scikit-learn's callbacks."""

    @available_if(_has_protocol)  # type: ignore[untyped-decorator]
    def set_callbacks(self, *callbacks: object) -> Self:
        """Set callbacks of scikit-learn's protocol, which are told of every epoch.

        They are `sklearn.callback.ProgressBar`, `ScoringMonitor`, and others that follow
        `sklearn.callback.FitCallback`. Clones have the same ones, as in searches and cross
        validation. A fit is a task, each epoch one of its subtasks; a hook that returns true at
        the end of an epoch ends the training. Callbacks of easyclf are given as `callbacks=[...]`
        instead: these can be clones, searched, and see the state of the run.

        It needs scikit-learn 1.9 or newer; with an older one there is no such method.

        Parameters
        ----------
        *callbacks : FitCallback
            The callbacks; none takes away those that were set before.

        Returns
        -------
        self : Estimator
            This estimator.

        Raises
        ------
        TypeError
            If one does not follow the protocol.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from easyclf import Estimator
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = Estimator(epochs=3, random_state=0)
        >>> if hasattr(clf, "set_callbacks"):  # with scikit-learn 1.9
        ...     from sklearn.callback import ScoringMonitor
        ...
        ...     monitor = ScoringMonitor(scoring="accuracy")
        ...     clf = clf.set_callbacks(monitor).fit(X, y)
        ...     scores = monitor.get_logs().data_as_pandas
        """
        from sklearn.callback import CallbackSupportMixin

        for callback in callbacks:
            _refuse_foreign(callback)
        CallbackSupportMixin.set_callbacks(self, *callbacks)
        are_known = are_tasks_told(self) and hasattr(CallbackSupportMixin, _ROOT)
        if callbacks and not are_known:
            raise NotImplementedError(
                f"easyclf does not know how scikit-learn {sklearn.__version__} keeps its "
                "callbacks; use those of easyclf, callbacks=[...], or scikit-learn 1.9."
            )
        return self


def _refuse_foreign(callback: object) -> None:
    """Refuse callbacks of easyclf, and classes, in the words of easyclf."""
    kind = callback if inspect.isclass(callback) else type(callback)
    if issubclass(kind, Callback):
        raise TypeError(
            f"`set_callbacks` takes callbacks of scikit-learn's protocol, but {kind.__name__} is "
            f"one of easyclf; use callbacks=[{kind.__name__}(...)]."
        )
    if inspect.isclass(callback):
        raise TypeError(
            f"`set_callbacks` got the class {kind.__name__}; did you mean `{kind.__name__}()`?"
        )


def are_tasks_told(estimator: object) -> bool:
    """Whether an estimator has callbacks of scikit-learn's protocol."""
    return bool(vars(estimator).get(_KEPT))


def untold_clone(estimator: Clonable) -> Clonable:
    """Clone an estimator for a trial: without callbacks of either kind, which are told of fits.

    It begins as the next `fit` would: also with weights of a file, which other clones do not have.
    """
    tried: Clonable = clone(estimator)
    if _FITTED not in vars(estimator) and _WEIGHTS in vars(estimator):
        vars(tried)[_WEIGHTS] = vars(estimator)[_WEIGHTS]
    tried.set_params(callbacks=None)
    if are_tasks_told(tried):
        tried.set_callbacks()
    return tried


def telling_tasks(estimator: _HasEpochs, fitting: Trains, rows: TrainingRows | None) -> Run:
    """Let the callbacks of scikit-learn's protocol know of a fit and its epochs.

    Parameters
    ----------
    estimator : Estimator
        The estimator, which may have such callbacks.
    fitting : Fitting
        The fit.
    rows : TrainingRows or None
        What `fit` was given; None where nobody is to be told.

    Returns
    -------
    run : callable
        It trains and tells of it; where nobody is to be told, `fitting.run` itself.
    """
    if rows is None or not are_tasks_told(estimator):
        return fitting.run
    from sklearn.callback import with_callbacks

    # Whatever happens in it, the callbacks are torn down.
    return functools.partial(with_callbacks(_run_and_tell), estimator, fitting, rows)


def _run_and_tell(
    estimator: _HasEpochs, fitting: Trains, rows: TrainingRows, callbacks: Sequence[Callback]
) -> None:
    from sklearn.callback import CallbackSupportMixin

    root = getattr(CallbackSupportMixin, _ROOT)(estimator, max_subtasks=estimator.epochs)
    weights = {} if rows.sample_weight is None else {"sample_weight": rows.sample_weight}
    told = {"estimator": estimator, "X": rows.X, "y": rows.y, "metadata": weights or None}
    root.call_on_fit_task_begin(**told)
    fitting.run([*callbacks, _EpochTasks(root, told, fitting).as_callback()])
    root.call_on_fit_task_end(**told, reconstruction_attributes=lambda: _learned(fitting))


def _learned(fitting: Trains) -> dict[str, object]:
    """The attributes of an estimator as if the fit had ended here: copies, as it goes on."""
    learned = copy.deepcopy(fitting.fitted)
    assert learned is not None  # there is, when the first epoch begins
    learned.module.eval()
    return {"_fitted": learned}


class _EpochTasks:
    """The epochs of a run, as subtasks of the root. `told` is given to all hooks.

    A run that begins anew without tapes goes through epochs that were told already: each is told
    once.
    """

    def __init__(self, root: CallbackContext, told: Mapping[str, object], fitting: Trains) -> None:
        self._root, self._told, self._fitting = root, told, fitting
        # The last epochs that were told of; they do not count from 1 in a run that goes on.
        self._begun = self._ended = 0
        self._stopped_at: int | None = None

    def as_callback(self) -> Callback:
        """Make a callback of functions, so that the trainer knows that code of users runs."""
        hooks = LambdaCallback(on_epoch_begin=self._begin, on_epoch_end=self._end)
        # They are given copies of what is trained.
        hooks.changes = "nothing"
        return hooks

    def _begin(self, state: TrainingState) -> None:
        if state.epoch > self._begun:
            self._begun = state.epoch
            self._task = self._root.subcontext(task_name="epoch")
            self._task.call_on_fit_task_begin(
                **self._told, reconstruction_attributes=lambda: _learned(self._fitting)
            )

    def _end(self, state: TrainingState) -> None:
        if state.epoch > self._ended:
            self._ended = state.epoch
            if self._task.call_on_fit_task_end(
                **self._told, reconstruction_attributes=lambda: _learned(self._fitting)
            ):
                self._stopped_at = self._ended
        if state.epoch == self._stopped_at:
            state.stop("a callback of scikit-learn asked to stop")
