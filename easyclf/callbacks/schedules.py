"""The learning rate during a run: by the schedulers of torch, and by functions."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, cast

import torch
from torch.optim import lr_scheduler

from easyclf.callbacks.base import Callback
from easyclf.callbacks.course import Course, Schedule, set_number
from easyclf.callbacks.monitoring import (
    check_at_least,
    check_measured,
    is_of_another_quantity,
    sign_of,
)
from easyclf.checks import did_you_mean, name_of
from easyclf.state import TrainingState

_Scheduler = lr_scheduler.LRScheduler
# A name or class of `torch.optim.lr_scheduler`, a function of the epoch, or one that makes a
# scheduler of an `optimizer`.
ScheduleLike = str | type[_Scheduler] | Callable[..., Any]


def _plain(name: str) -> str:
    """The name of a scheduler without case, signs and its last two letters: `OneCycleLR`."""
    return name.lower().translate({ord(sign): None for sign in "_- "}).removesuffix("lr")


_SCHEDULERS: dict[str, type[_Scheduler]] = {
    _plain(name): member
    for name, member in vars(lr_scheduler).items()
    if inspect.isclass(member)
    and issubclass(member, _Scheduler)
    and member is not _Scheduler
    and not name.startswith("_")
}
_ALIASES = {
    "cosine": "cosineannealing",
    "cosinewarmrestarts": "cosineannealingwarmrestarts",
    "plateau": "reducelronplateau",
}
# Those that torch means to be moved on after every step.
_PER_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
_OF_SCHEDULERS = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)


class LRScheduler(Callback):
    """Change the learning rate by a schedule: any of torch's, or a function of the epoch.

    A schedule covers one `fit`: under `warm_start` the new epochs.

    Parameters
    ----------
    schedule : str, class or callable, default=None
        A name in `torch.optim.lr_scheduler`, in any case and with or without "LR" ("OneCycleLR",
        "cosine", "step"), or a class. A function `epoch -> lr` gives the rate of each epoch,
        counted from 0, and `(epoch, lr) -> lr` is given the present rate too; other groups of
        weights keep their ratio to the first. A function of one argument named `optimizer` makes
        a scheduler, as `SequentialLR` needs it. It has to be given.
    every : {"auto", "step", "epoch"}, default="auto"
        How often the schedule moves on. "auto" is "step" for `OneCycleLR` and `CyclicLR`, else
        "epoch".
    monitor : str, default="val_loss"
        The quantity that torch's `ReduceLROnPlateau` is given; its direction is known by its name.
    warmup : float, default=0
        Epochs, or a part of one, in which the rate rises linearly to `lr`: step k of w has
        `lr * k / w`. The schedule runs over what remains, by the epoch from the next whole one on.
    **kwargs
        Arguments of the scheduler. The length of the run (`total_steps`, `T_max`, and
        `total_iters` of `PolynomialLR`) and `max_lr`, which is `lr`, are filled in.

    Raises
    ------
    ValueError, TypeError
        Before the first epoch, if the scheduler is unknown, lacks an argument or does not take
        one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, LRScheduler
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(lr=0.1, epochs=4, callbacks=[LRScheduler("cosine")]).fit(X, y)
    >>> clf.history_["lr"].round(3).tolist()
    [0.1, 0.085, 0.05, 0.015]
    """

    changes = "learning rate"

    def __init__(
        self,
        schedule: ScheduleLike | None = None,
        *,
        every: str = "auto",
        monitor: str = "val_loss",
        warmup: float = 0,
        **kwargs: Any,
    ) -> None:
        if schedule is None:
            policy = kwargs.get("policy", "OneCycleLR")
            shown = policy if isinstance(policy, str) else name_of(policy)
            raise TypeError(f"LRScheduler needs `schedule`; write LRScheduler({shown!r}).")
        self.schedule = schedule
        self.every = every
        self.monitor = monitor
        self.warmup = warmup
        self.kwargs = kwargs

    def on_train_begin(self, state: TrainingState) -> None:
        """Check the settings against the run; begin the warm-up, if there is one."""
        self._factory = factory = _resolve(self.schedule)
        self._is_plateau = factory is lr_scheduler.ReduceLROnPlateau
        self._is_per_step = _is_per_step(factory, self.every)
        check_at_least(0, warmup=self.warmup)
        if self._is_plateau:
            check_measured(self, self.monitor, state)
        self._rates = [float(group["lr"]) for group in state.optimizer.param_groups]
        self._n_warm = self._count_warm_steps(state)
        self._n_steps, self._has_begun = 0, False
        arguments = self._fill_in(state)
        self._figures: list[float] = []
        self._watched = [self.monitor, arguments["mode"]] if self._is_plateau else []
        self._optimizer = state.optimizer
        self._ready: deque[list[dict[str, Any]]] = deque()
        # Made now, also where it waits for the warm-up, so that torch refuses what it refuses.
        self._course = Course(
            state.optimizer,
            lambda optimizer: _make(factory, optimizer, arguments),
            n_ahead=self._count_ahead(state, arguments),
        )

    def _count_ahead(self, state: TrainingState, arguments: Mapping[str, Any]) -> int:
        """How many steps of the schedule may be taken at once: all that nobody else decides."""
        is_torchs = self._factory in _SCHEDULERS.values() and not any(
            isinstance(group["lr"], torch.Tensor) for group in state.optimizer.param_groups
        )
        if not self._is_per_step or not is_torchs or any(map(callable, arguments.values())):
            return 0
        n_steps = (state.epochs - state.epoch) * (state.steps_per_epoch or 0)
        return max(0, n_steps - self._n_warm - 1)

    def _count_warm_steps(self, state: TrainingState) -> int:
        if not self.warmup:
            return 0
        if state.steps_per_epoch is None:
            raise ValueError(_needs_steps("`warmup`"))
        n_epochs = state.epochs - state.epoch
        if self.warmup >= (n_epochs or math.inf):
            raise ValueError(
                f"`warmup` is {self.warmup!r} epochs, but this run has {n_epochs}; the schedule "
                "needs some that remain."
            )
        return max(1, round(self.warmup * state.steps_per_epoch))

    def _fill_in(self, state: TrainingState) -> dict[str, Any]:
        """The user's arguments, and those that the run says."""
        factory, given = self._factory, self.kwargs
        if not _is_scheduler_class(factory):
            if given:
                raise TypeError(
                    f"`{next(iter(given))}` is no argument of LRScheduler, and "
                    f"{name_of(factory)} is a function, which is given none."
                )
            return {}
        named = _arguments_of(factory)
        for name in given:
            if name not in named:
                raise TypeError(
                    f"`{name}` is not a parameter of {factory.__name__}"
                    f"{did_you_mean(name, named)} It takes: {', '.join(named)}."
                )
        filled: dict[str, Any] = {"max_lr": self._rates}
        if self._is_plateau and "mode" not in given:
            filled = {"mode": "max" if sign_of(self.monitor, "auto", state) > 0 else "min"}
        names_of_total = {"T_max", "total_steps"}
        if factory is lr_scheduler.PolynomialLR:
            names_of_total.add("total_iters")
        for name in names_of_total & named.keys() - given.keys():
            if name != "total_steps" or "steps_per_epoch" not in given:
                # A run of no epochs moves nothing on, but makes the scheduler.
                filled[name] = max(1, self._count_all(state, name))
        arguments = {**{n: v for n, v in filled.items() if n in named}, **given}
        self._check_arguments(factory, named, arguments, state)
        return arguments

    def _count_all(self, state: TrainingState, needed_by: str) -> int:
        """Epochs of this fit, or steps, without those of the warm-up."""
        n_epochs = state.epochs - state.epoch
        if not self._is_per_step:
            return n_epochs - math.ceil(self.warmup)
        if state.steps_per_epoch is None:
            raise ValueError(_needs_steps(f"`{needed_by}`"))
        return n_epochs * state.steps_per_epoch - self._n_warm

    def _check_arguments(
        self,
        factory: type[_Scheduler],
        named: Mapping[str, inspect.Parameter],
        arguments: Mapping[str, Any],
        state: TrainingState,
    ) -> None:
        missing = [
            name for name, p in named.items() if p.default is p.empty and name not in arguments
        ]
        if factory in _OF_SCHEDULERS:
            raise TypeError(
                f"{factory.__name__} is made of other schedulers, which need the optimizer; pass "
                f"a function: LRScheduler(lambda optimizer: {factory.__name__}(...))."
            )
        if missing:
            raise TypeError(
                f"{factory.__name__} needs `{missing[0]}`, which the run does not say; write "
                f"LRScheduler({factory.__name__!r}, {missing[0]}=...)."
            )
        total = arguments.get("total_steps")
        if total is not None:
            check_at_least(1, total_steps=total)
        if total is not None and (self._is_per_step is False or state.steps_per_epoch is not None):
            needed = self._count_all(state, "total_steps")
            if total < needed:
                raise ValueError(
                    f"`total_steps` is {total!r}, but the schedule moves on {needed} times in this "
                    "run; leave it out, and it is filled in."
                )

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Move a schedule by the epoch on."""
        n_groups = len(state.optimizer.param_groups)
        if n_groups != len(self._rates):
            raise ValueError(
                f"LRScheduler was begun for {len(self._rates)} group(s) of weights, and now there "
                f"are {n_groups}; put what adds groups, as Unfreeze does, before LRScheduler in "
                "`callbacks`."
            )
        if not self._is_per_step and self._n_steps >= self._n_warm:
            self._advance(state.optimizer)

    def on_batch_begin(self, state: TrainingState) -> None:
        """Raise the rate in the warm-up, or move a schedule by the step on."""
        if self._ready:
            # The usual case: a step that was taken ahead.
            for group, changes in zip(
                state.optimizer.param_groups, self._ready.popleft(), strict=False
            ):
                group.update(changes)
        elif self._n_steps < self._n_warm:
            self._n_steps += 1
            for group, rate in zip(state.optimizer.param_groups, self._rates, strict=False):
                set_number(group, "lr", rate * (self._n_steps / self._n_warm))
        elif self._is_per_step:
            self._advance(state.optimizer)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Give a scheduler that waits for a plateau its figure."""
        if self._is_plateau and self._has_begun:
            self._figures.append(state.logs[self.monitor])
            self._course.look_ahead(self._figures[-1])

    def _advance(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin the schedule, or give it its next step."""
        if self._has_begun and not self._is_plateau:
            self._course.look_ahead()
        self._has_begun = True
        self._course.set(optimizer)
        if self._course.is_ahead:
            self._ready = self._course.coming

    def state_dict(self) -> dict[str, object]:
        """Give how far the schedule is: its steps follow from their number, and from figures."""
        return {
            "watched": self._watched,
            "n_warm": min(self._n_steps, self._n_warm),
            "n_steps": self._course.n_set,
            "figures": self._figures,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the steps again; begin afresh where another quantity is watched now, or none."""
        self._n_steps = state["n_warm"]
        if is_of_another_quantity(state, self._watched):
            if self._n_steps >= self._n_warm:
                # The optimizer has its state again, with the rate so far.
                self._course.begin_anew(self._optimizer)
            return
        self._figures = list(state["figures"])
        self._has_begun = state["n_steps"] > 0
        self._course.pass_over(state["n_steps"], self._figures)
        if self._has_begun and self._course.is_ahead:
            self._ready = self._course.coming

    def close(self, state: TrainingState) -> None:
        """Let go of what the run needed."""
        for name in ("_course", "_ready", "_optimizer"):
            vars(self).pop(name, None)


class _FunctionSchedule:
    """The rates that a function of the user gives."""

    def __init__(self, optimizer: torch.optim.Optimizer, function: Callable[..., Any]) -> None:
        self._optimizer, self._function = optimizer, function
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._ratios = [rate / rates[0] for rate in rates]
        self._takes_rate = len(_required(function)) == 2
        self._n_steps = -1
        self.step()

    def step(self, *figures: float) -> None:
        self._n_steps += 1
        present = float(self._optimizer.param_groups[0]["lr"])
        more = (present,) if self._takes_rate else ()
        answer = self._function(self._n_steps, *more)
        try:
            rate = float(answer)
        except (TypeError, ValueError, RuntimeError):
            rate = math.nan
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"The schedule {name_of(self._function)} gave {answer!r} for {self._n_steps}; "
                "expected a learning rate, a finite number of at least 0."
            )
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            set_number(group, "lr", rate * ratio)


def _resolve(schedule: object) -> Callable[..., Any]:
    """Find the class or the function that is meant.

    Raises
    ------
    ValueError
        If a name is not in `torch.optim.lr_scheduler`.
    TypeError
        If it is a finished scheduler, or a function of other arguments.
    """
    if isinstance(schedule, str):
        name = _plain(schedule)
        if _ALIASES.get(name, name) not in _SCHEDULERS:
            names = [cls.__name__ for cls in _SCHEDULERS.values()]
            raise ValueError(
                f"`schedule` {schedule!r} is not in torch.optim.lr_scheduler"
                f"{did_you_mean(name, [*_ALIASES, *_SCHEDULERS])} Known are {names}."
            )
        return _SCHEDULERS[_ALIASES.get(name, name)]
    if isinstance(schedule, _Scheduler):
        kind = type(schedule).__name__
        raise TypeError(
            f"`schedule` is a finished {kind}, bound to another optimizer; write "
            f"LRScheduler({kind!r}), with its arguments beside it."
        )
    if _is_scheduler_class(schedule):
        return schedule
    if inspect.isclass(schedule) or not callable(schedule):
        raise TypeError(
            "`schedule` must be a name or a class of torch.optim.lr_scheduler, or a function "
            f"`epoch -> lr`; got {schedule!r}."
        )
    if len(_required(schedule)) not in (1, 2):
        raise TypeError(
            f"`schedule` {name_of(schedule)} takes {len(_required(schedule))} arguments; expected "
            "`epoch`, or `epoch, lr`."
        )
    return schedule


def _is_scheduler_class(schedule: object) -> TypeGuard[type[_Scheduler]]:
    return inspect.isclass(schedule) and issubclass(schedule, _Scheduler)


def _required(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a function must be given; (`epoch`) where nobody knows."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["epoch"]
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in places and p.default is p.empty]


def _is_per_step(factory: Callable[..., Any], every: str) -> bool:
    is_plateau = factory is lr_scheduler.ReduceLROnPlateau
    if every not in ("auto", "step", "epoch"):
        raise ValueError(f"`every` must be 'auto', 'step' or 'epoch'; got {every!r}.")
    if is_plateau and every == "step":
        raise ValueError(
            "ReduceLROnPlateau waits for a figure of the validation, which is measured once an "
            "epoch; use every='epoch'."
        )
    is_cycle = _is_scheduler_class(factory) and issubclass(factory, _PER_STEP)
    return every == "step" or (every == "auto" and is_cycle)


def _arguments_of(scheduler: type[_Scheduler]) -> dict[str, inspect.Parameter]:
    """The parameters of a class of schedulers, but for the optimizer, which comes first."""
    return dict(list(inspect.signature(scheduler).parameters.items())[1:])


def _make(
    factory: Callable[..., Any], optimizer: torch.optim.Optimizer, arguments: Mapping[str, Any]
) -> Schedule:
    """Make the schedule, which sets the first rate."""
    if _is_scheduler_class(factory):
        made: Any = factory(optimizer, **arguments)
    elif _required(factory) == ["optimizer"]:
        made = factory(optimizer)
        if not isinstance(made, _Scheduler):
            raise TypeError(
                f"`schedule` {name_of(factory)} made a {type(made).__name__} of the optimizer; "
                "expected a scheduler of torch.optim.lr_scheduler."
            )
    else:
        return _FunctionSchedule(optimizer, factory)
    return cast(Schedule, made)


def _needs_steps(what: str) -> str:
    return (
        f"{what} needs the number of steps in an epoch, which the data do not say; give "
        "`total_steps`, or use every='epoch' and no warm-up."
    )
