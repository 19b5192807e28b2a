"""The hooks of a callback, and how they are called."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch.optim import lr_scheduler

from easyclf.checks import did_you_mean
from easyclf.state import TrainingState
from easyclf.vocabulary import FOREIGN_HOOKS

Hook = Callable[[TrainingState], None]


class Callback:
    """What may happen during a run: override the hooks that you need.

    Each hook is given the state of the run, `easyclf.state.TrainingState`, whose `logs`,
    `history`, `module` and others say what happened, and whose `stop(reason)` ends the run.
    A hook that nobody overrides is never called. One callback serves many fits: reset what a fit
    learns in `on_train_begin`, and let the results that users read end in `_`.

    Attributes
    ----------
    changes : str, default="anything"
        What the hooks may change: "nothing" (they look at `logs` and `history`, not at gradients),
        "learning rate" (they also set `lr`, `momentum`, `weight_decay` or another number of the
        optimizer's groups, after any step) or "anything". The first two let the fastest step go
        on. A subclass has to say so again.
    is_shared : bool, default=False
        Whether clones of an estimator, as of cross validation and searches, have this very object.
        Otherwise each has a copy without results, and the copy has copies of the attributes;
        those that cannot be copied, such as files and locks, are shared.

    Examples
    --------
    >>> from easyclf import Callback
    >>> class StopAt(Callback):
    ...     def __init__(self, accuracy):
    ...         self.accuracy = accuracy
    ...
    ...     def on_epoch_end(self, state):
    ...         if state.logs["accuracy"] >= self.accuracy:
    ...             state.stop(f"the training accuracy has reached {self.accuracy}")
    """

    changes: str = "anything"
    is_shared: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in vars(cls):
            if name.startswith("on_") and not hasattr(Callback, name):
                raise TypeError(
                    f"{cls.__name__} has `{name}`, which is no hook and would never be called"
                    f"{did_you_mean(name, HOOKS, words=FOREIGN_HOOKS)} The hooks are "
                    f"{', '.join(HOOKS)}."
                )
            if name in HOOKS and isinstance(vars(cls)[name], types.FunctionType):
                _check_hook(vars(cls)[name], f"{cls.__name__}.{name}", has_self=True)

    def __getstate__(self) -> dict[str, object]:
        # What a run left here belongs to the estimator that ran: as a parameter of it, a callback
        # is what it was before. `Estimator` pickles results itself.
        names = vars(self).get("_names_before_run", vars(self).keys())
        return {name: value for name, value in vars(self).items() if name in names}

    def get_params(self) -> dict[str, Any]:
        """Get the settings of this callback: the arguments of its constructor.

        Returns
        -------
        params : dict of str to object
            Their names, and the values that were kept under these names.
        """
        own = vars(self)
        params: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                params |= own.get(name, {})
            elif name in own:
                params[name] = own[name]
        return params

    def set_params(self, **params: object) -> Callback:
        """Set some settings of this callback, which hold from the next `fit` on.

        Parameters
        ----------
        **params : dict
            Names of arguments of the constructor, and their values.

        Returns
        -------
        self : Callback
            This callback.

        Raises
        ------
        ValueError
            If a name is no argument of the constructor; the nearest right one is named.
        """
        present = self.get_params()
        rest = [
            name
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if parameter.kind is parameter.VAR_KEYWORD and name in vars(self)
        ]
        for name, value in params.items():
            if name in vars(self) and name in present:
                setattr(self, name, value)
            elif rest:
                setattr(self, rest[0], {**getattr(self, rest[0]), name: value})
            else:
                raise ValueError(
                    f"Invalid parameter {name!r} for callback {type(self).__name__}"
                    f"{did_you_mean(name, present)} Valid parameters are: {sorted(present)}."
                )
        return self

    def __sklearn_clone__(self) -> Callback:
        if self.is_shared:
            return self
        clone = object.__new__(type(self))
        copies: dict[int, object] = {}
        for name, value in Callback.__getstate__(self).items():
            setattr(clone, name, _copy_or_share(value, copies))
        return clone

    def __repr__(self) -> str:
        own, shown = vars(self), []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                shown += [f"{key}={value!r}" for key, value in own.get(name, {}).items()]
            elif name in own and own[name] != parameter.default:
                shown.append(f"{name}={own[name]!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def on_train_begin(self, state: TrainingState) -> None:
        """Before the first epoch.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Before an epoch.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def on_batch_begin(self, state: TrainingState) -> None:
        """Before a training batch.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def on_batch_end(self, state: TrainingState) -> None:
        """After a training batch: `state.logs` has its `loss` and `accuracy`, as tensors.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def on_epoch_end(self, state: TrainingState) -> None:
        """After an epoch and its validation: `state.logs` has all quantities.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def on_train_end(self, state: TrainingState) -> None:
        """After the last epoch, unless the run failed.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def close(self, state: TrainingState) -> None:
        """Last of all, also after an error or an interruption: let go of what is held.

        Parameters
        ----------
        state : TrainingState
            The state of the run.
        """

    def state_dict(self) -> dict[str, object]:
        """Give what a run that is resumed from a `Checkpoint` needs to know of the epochs before.

        It is asked for at the end of an epoch, after all hooks.

        Returns
        -------
        state : dict of str to object
            Numbers, texts, None, tensors, and lists, tuples and dicts of them. Nothing, unless a
            subclass says so.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, after `on_train_begin` of the run that goes on.

        Parameters
        ----------
        state : mapping of str to object
            Its tensors are on the host.
        """
        if state:
            raise ValueError(f"{type(self).__name__} takes over no state; got {sorted(state)}.")


# What hooks of Keras and skorch are given.
_FOREIGN_ARGUMENTS = ("epoch", "batch", "logs", "net", "trainer", "pl_module")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# What a callback may change, from the least on.
CHANGES = ("nothing", "learning rate", "anything")
HOOKS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
    "close",
)


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    **hooks : callable
        Functions of the state, by the names of the hooks: `on_epoch_end=print_accuracy`.

    Raises
    ------
    TypeError
        If a name is not that of a hook, or its value is not callable.

    Examples
    --------
    >>> from easyclf import LambdaCallback
    >>> accuracies = []
    >>> note = LambdaCallback(on_epoch_end=lambda state: accuracies.append(state.logs["accuracy"]))
    """

    def __init__(self, **hooks: Hook) -> None:
        for name, function in hooks.items():
            if name not in HOOKS:
                raise TypeError(
                    f"LambdaCallback has no hook `{name}`"
                    f"{did_you_mean(name, HOOKS, words=FOREIGN_HOOKS)} The hooks are "
                    f"{', '.join(HOOKS)}."
                )
            if not callable(function):
                raise TypeError(f"`{name}` must be a function of the state; got {function!r}.")
            if isinstance(function, types.FunctionType):
                _check_hook(function, f"The function for `{name}`", has_self=False)
            setattr(self, name, function)


class Hooks:
    """The hooks that some callback overrides, in the order of the callbacks."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        for callback in callbacks:
            # What hooks add is no part of the callback as a parameter; see `__getstate__`.
            vars(callback).setdefault("_names_before_run", frozenset(vars(callback)))
        self._hooks = {
            name: [
                (type(callback).__name__, getattr(callback, name))
                for callback in callbacks
                if _overrides(callback, name)
            ]
            for name in HOOKS
        }

    def has(self, *names: str) -> bool:
        """Whether any callback overrides one of these hooks."""
        return any(self._hooks[name] for name in names)

    @property
    def run_user_code(self) -> bool:
        """Whether a callback is not of easyclf's own classes, whatever it says of itself."""
        return any(map(_is_of_users, self._callbacks))

    @property
    def run_user_code_in_steps(self) -> bool:
        """Whether such a callback is called within epochs, and not only between them."""
        return any(
            _is_of_users(callback) and _overrides(callback, name)
            for callback in self._callbacks
            for name in ("on_batch_begin", "on_batch_end")
        )

    def may_change(self, *names: str) -> bool:
        """Whether a callback that may change anything overrides one of these hooks."""
        return any(
            _overrides(callback, name) and _changes(callback) == "anything"
            for callback in self._callbacks
            for name in names
        )

    def call(self, name: str, state: TrainingState) -> None:
        """Call one hook of all callbacks; an error says whose it was."""
        for owner, hook in self._hooks[name]:
            try:
                hook(state)
            except Exception as error:
                error.add_note(f"Raised by the callback {owner}.{name}, epoch {state.epoch}.")
                raise

    def close(self, state: TrainingState) -> None:
        """Close every callback, also those behind one that fails."""
        failed: Exception | None = None
        for owner, hook in self._hooks["close"]:
            try:
                hook(state)
            except Exception as error:
                error.add_note(f"Raised by the callback {owner}.close.")
                failed = failed or error
        if failed is not None:
            raise failed


def _check_hook(function: types.FunctionType, name: str, *, has_self: bool) -> None:
    """Refuse a hook that would be called with the state in the place of an epoch, or of logs.

    Raises
    ------
    TypeError
        If it takes none or needs more than one, or calls the first one as other libraries do.
    """
    parameters = list(inspect.signature(function).parameters.values())[has_self:]
    given = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    needed = [parameter for parameter in given if parameter.default is parameter.empty]
    is_foreign = any(parameter.name in _FOREIGN_ARGUMENTS for parameter in given)
    takes_none = not given and not any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 1 or is_foreign or takes_none:
        shown = ", ".join(map(str, given))
        raise TypeError(
            f"{name} takes ({shown}); a hook takes one argument, the state of the run: "
            "`state.epoch`, `state.logs` and `state.module` have what Keras and skorch pass."
        )


def _changes(callback: Callback) -> str:
    """What a callback says that it changes, by its own class: a subclass may do more."""
    said = vars(callback).get("changes", vars(type(callback)).get("changes", "anything"))
    return str(said)


def _copy_or_share(value: object, copies: dict[int, object]) -> object:
    """Copy a value; give it back where it cannot be copied. `copies` are those made so far."""
    attempted = dict(copies)
    try:
        copied = copy.deepcopy(value, attempted)
    except Exception:
        return value
    copies |= attempted
    return copied


def results_of(callback: object) -> dict[str, object]:
    """Give what a run left for users to read: public attributes that were not there before it."""
    attributes = vars(callback)
    before = attributes.get("_names_before_run", attributes.keys())
    return {
        name: value
        for name, value in attributes.items()
        if name not in before and not name.startswith("_")
    }


def give_results(callback: object, results: Mapping[str, object]) -> None:
    """Put the results of a run back into a callback that was unpickled without them."""
    if results:
        vars(callback).setdefault("_names_before_run", frozenset(vars(callback)))
        vars(callback).update(results)


def _is_of_users(callback: Callback) -> bool:
    is_own = type(callback).__module__.startswith("easyclf.callbacks.")
    return (
        not is_own
        or isinstance(callback, LambdaCallback)
        or _holds_user_code(list(vars(callback).values()))
    )


def _holds_user_code(setting: object) -> bool:
    """Whether a function, or a class that is not torch's, is among settings: a schedule may be."""
    if isinstance(setting, Mapping):
        setting = list(setting.values())
    if isinstance(setting, (list, tuple)):
        return any(map(_holds_user_code, setting))
    return callable(setting) and not any(setting is item for item in vars(lr_scheduler).values())


def _overrides(callback: Callback, name: str) -> bool:
    own = getattr(callback, name)
    return getattr(own, "__func__", own) is not getattr(Callback, name)
