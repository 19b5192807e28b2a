"""One step of the optimizer: gradients of a group of batches, clipped, then an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from easyclf.data import Batch
from easyclf.engine.metrics import BatchResult, Number
from easyclf.engine.objective import measure
from easyclf.heads import Head
from easyclf.precision import Precision
from easyclf.state import TrainingState
from easyclf.tape.recorder import Tape
from easyclf.tape.tapes import Tapes
from easyclf.tape.updates import direct_update

Gradients = Sequence[torch.Tensor | None]


class Step:
    """One step: the gradients of a group of batches, clipped, and an update of the weights.

    Where it is sound the forward and the backward pass are played from a tape, and the kernel of
    the optimizer is called directly. What it computes is the same, but for rounding.

    Parameters
    ----------
    state : TrainingState
        The module and its optimizer.
    precision : Precision
        The precision of the forward pass.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.
    n_steps : int
        Steps that will be taken in all and may be played from tapes.
    """

    def __init__(
        self,
        state: TrainingState,
        precision: Precision,
        clip_grad_norm: float | None,
        *,
        n_steps: int,
    ) -> None:
        self._state, self._precision, self._clip = state, precision, clip_grad_norm
        self._parameters = _parameters(state.optimizer)
        # LBFGS looks at several points in one step.
        self._needs_closure = isinstance(state.optimizer, torch.optim.LBFGS)
        self._tapes = Tapes(
            state.module,
            state.head,
            mode=True,
            n_calls=0 if self._needs_closure or not precision.is_recordable else n_steps,
        )
        self._updates: dict[Tape, Callable[[Any], None]] = {}
        self._gradients: Gradients | None = None

    def __call__(self, group: Sequence[Batch]) -> list[BatchResult]:
        """Take one step down the gradient of the mean loss over all rows of the group."""
        if len(group) == 1:
            tape = self._tapes.get(group[0], self.differentiate)
            if tape is not None:
                return [self._play(tape, group[0])]
        elif not self._state.module.training:
            self._state.module.train()
        if self._needs_closure:
            return self._step_with_closure(group)
        measured = self._compute_gradients(group)
        self._precision.step(self._state.optimizer)
        return measured

    def check(self) -> None:
        """Notice what has been changed from outside since the last epoch."""
        self._updates.clear()
        parameters = _parameters(self._state.optimizer)
        if list(map(id, parameters)) == list(map(id, self._parameters)):
            self._tapes.check()
        else:
            self._parameters = parameters
            self._tapes.forget()

    def show_gradients(self) -> None:
        """Leave the gradients of the last step where an eager step leaves them."""
        if self._gradients is not None:
            for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
                parameter.grad = gradient
            self._gradients = None

    def _play(self, tape: Tape, batch: Batch) -> BatchResult:
        measured, gradients = tape(*batch)
        update = self._updates.get(tape)
        if update is None:
            update = self._updates[tape] = self._choose_update(gradients)
        update(gradients)
        self._gradients = gradients
        return BatchResult(*measured)

    def _choose_update(self, gradients: Gradients) -> Callable[[Any], None]:
        has_gradient = [gradient is not None for gradient in gradients]
        update = direct_update(self._state.optimizer, has_gradient)
        if update is None:
            return self._update_by_step
        if all(has_gradient):
            return update
        return lambda gradients: update([one for one in gradients if one is not None])

    def _update_by_step(self, gradients: Gradients) -> None:
        self._gradients = gradients
        self.show_gradients()
        self._state.optimizer.step()

    def differentiate(self, batch: Batch) -> tuple[tuple[Any, ...], Gradients]:
        """What `_compute_gradients` does for a batch, as a function without side effects."""
        state = self._state
        measured = measure(state.forward, state.head, self._precision, batch)
        loss = measured.loss
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        gradients = dict(zip(trained, _laid_out(found, trained), strict=True))
        if self._clip is not None:
            there = {p: gradient for p, gradient in gradients.items() if gradient is not None}
            clipped = _clipped(list(there.values()), self._clip)
            gradients |= zip(there, clipped, strict=True)
        return (loss.detach(), *measured[1:]), [gradients.get(p) for p in self._parameters]

    def _step_with_closure(self, group: Sequence[Batch]) -> list[BatchResult]:
        seen: list[list[BatchResult]] = []

        def closure() -> Any:
            seen.append(self._compute_gradients(group))
            return seen[-1][0].loss if len(group) == 1 else _mean_loss(seen[-1])

        self._state.optimizer.step(closure)
        return seen[0]

    def _compute_gradients(self, group: Sequence[Batch]) -> list[BatchResult]:
        state, precision = self._state, self._precision
        # A callback may have added some. This is what `zero_grad` does, without the hooks of the
        # profiler: 5 us a step.
        parameters = _parameters(state.optimizer)
        for parameter in parameters:
            parameter.grad = None
        self._gradients = None
        total = _group_weight(state.head, group) if len(group) > 1 else None
        measured = []
        for batch in group:
            one = measure(state.forward, state.head, precision, batch)
            precision.backward(one.loss if total is None else one.loss * (one.loss_weight / total))
            measured.append(one._replace(loss=one.loss.detach()))
        if self._clip is not None:
            precision.unscale(state.optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, self._clip)
        return measured


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _laid_out(gradients: Gradients, parameters: Sequence[torch.Tensor]) -> Gradients:
    """Gradients each in its own memory, laid out as its parameter is: as the kernels take them."""
    result, taken = [], set()
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is not None:
            memory = gradient.untyped_storage().data_ptr()
            if gradient.stride() != parameter.stride() or memory in taken:
                gradient = torch.empty_like(parameter).copy_(gradient)
            taken.add(memory)
        result.append(gradient)
    return result


def _clipped(gradients: Sequence[torch.Tensor], norm: float) -> list[torch.Tensor]:
    """As `clip_grad_norm_`, which works in place."""
    factor = norm / (torch.nn.utils.get_total_norm(gradients) + 1e-6)
    return [gradient * factor.clamp(max=1.0) for gradient in gradients]


def _group_weight(head: Head, group: Sequence[Batch]) -> Number:
    """The loss weight of all rows of a group, which is known before any forward pass."""
    total: Number = 0.0
    for batch in group:
        assert batch.y is not None
        weights = head.loss_weights(batch.y, batch.weight)
        total = total + (len(batch.y) if weights is None else weights.sum())
    return total


def _mean_loss(measured: Sequence[BatchResult]) -> Number:
    total = sum(one.loss_weight for one in measured)
    return sum(one.loss * (one.loss_weight / total) for one in measured)
