"""The settings of an optimizer, step by step, as a schedule gives them."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

# The settings of a group of weights that the schedulers of torch change.
_CHANGED_BY_TORCH = ("lr", "momentum", "betas")


class Schedule(Protocol):
    """What sets the rates of an optimizer when it is made, and anew in every `step`."""

    def step(self, *figures: float) -> None: ...


class Course:
    """The settings of an optimizer, step by step, as a schedule gives them.

    The schedule works on a stand-in of the optimizer. Its steps are taken some at a time where
    that is possible: one by one, between the steps of a small module, they take a twelfth of its
    time; together a third of that (`python -m benchmarks.callbacks`).

    Parameters
    ----------
    optimizer : Optimizer
        What the schedule is for; it is left as it is until `set`.
    make : callable
        It makes the schedule for an optimizer.
    n_ahead : int
        Steps that may be taken before they are due, in all.

    Attributes
    ----------
    coming : deque of list of dict
        What the steps that were taken change in each group; the next one first.
    is_ahead : bool
        Whether any may be taken before they are due.
    """

    _CHUNK = 256

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        make: Callable[[torch.optim.Optimizer], Schedule],
        *,
        n_ahead: int,
    ) -> None:
        stand_in = copy.copy(optimizer)
        stand_in.param_groups = [_with_numbers(group) for group in optimizer.param_groups]
        self._groups = stand_in.param_groups
        # torch's own change these; others might change any.
        self._names = _CHANGED_BY_TORCH if n_ahead else tuple(self._groups[0])
        self._n_ahead, self.is_ahead = n_ahead, n_ahead > 0
        self._make = functools.partial(make, stand_in)
        self._begin()

    def _begin(self) -> None:
        self._known = [{n: group[n] for n in self._names if n in group} for group in self._groups]
        self._schedule = self._make()
        self.coming = deque([self._changes()])
        self._n_made = 1

    def begin_anew(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin the schedule anew, from the rates that the optimizer has now."""
        for group, present in zip(self._groups, optimizer.param_groups, strict=True):
            group["lr"] = float(present["lr"])
            group.pop("initial_lr", None)  # which schedulers note
        self._begin()

    def _changes(self) -> list[dict[str, Any]]:
        """What the last step changed in each group, without the notes of the schedule."""
        found = []
        for group, known in zip(self._groups, self._known, strict=True):
            changes = {n: group[n] for n, value in known.items() if group[n] is not value}
            known.update(changes)
            found.append(changes)
        return found

    def look_ahead(self, *figures: float) -> None:
        """Take the next step of the schedule, if it is not taken, and some that follow."""
        if self.coming:
            return
        n_steps = max(1, min(self._n_ahead, self._CHUNK))
        with warnings.catch_warnings():
            # torch looks for an `optimizer.step` before it, which the stand-in never does.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            # `SequentialLR` of torch 2.6 warns of how it steps the others itself.
            warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step")
            for _ in range(n_steps):
                self._schedule.step(*figures)
                self.coming.append(self._changes())
        self._n_made += n_steps
        self._n_ahead -= n_steps

    @property
    def n_set(self) -> int:
        """Steps that were taken and were due."""
        return self._n_made - len(self.coming)

    def pass_over(self, n_steps: int, figures: Sequence[float]) -> None:
        """Take steps that were due before; `figures` are those that they waited for, if they do."""
        for number in range(n_steps):
            self.look_ahead(*figures[number - 1 : number])
            self.coming.popleft()
        if figures:
            self.look_ahead(figures[-1])

    def set(self, optimizer: torch.optim.Optimizer) -> None:
        """Set what the step that is due has changed; nothing if none is."""
        if self.coming:
            for group, changes in zip(optimizer.param_groups, self.coming.popleft(), strict=False):
                for name, value in changes.items():
                    set_number(group, name, value)


def _with_numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a group of an optimizer, with numbers in place of tensors of one number."""
    return {
        name: value.item() if isinstance(value, torch.Tensor) else value
        for name, value in group.items()
    }


def set_number(group: dict[str, Any], name: str, value: object) -> None:
    """Set a number of a group; one that is a tensor stays that tensor."""
    if isinstance(group[name], torch.Tensor):
        group[name].fill_(value)
    else:
        group[name] = value
