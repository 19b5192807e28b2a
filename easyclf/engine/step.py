"""One step of the optimizer: gradients of a group of batches, clipped, then an update."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import torch

from easyclf.data import Batch
from easyclf.engine.metrics import BatchResult, Number
from easyclf.engine.objective import Objective
from easyclf.heads import Head
from easyclf.nested import tensors_of
from easyclf.state import TrainingState
from easyclf.tape import Tapes

Gradients = Sequence[torch.Tensor | None]
# Rows of several small batches are gathered at once: at most so many bytes of float32.
_FEWEST_BYTES = 2**18


class Step:
    """One step: the gradients of a group of batches, clipped, and an update of the weights.

    Where it is sound the forward and the backward pass are played from a tape, and the kernel of
    the optimizer is called directly. The result is the same, but for rounding.

    Parameters
    ----------
    state : TrainingState
        The module and its optimizer.
    objective : Objective
        The loss of a batch.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.
    tapes : Tapes
        The tapes of the run.
    n_steps : int
        Steps that will be taken in all and may be played from tapes.
    """

    def __init__(
        self,
        state: TrainingState,
        objective: Objective,
        clip_grad_norm: float | None,
        tapes: Tapes,
        *,
        n_steps: int,
    ) -> None:
        self._state, self._objective, self._clip = state, objective, clip_grad_norm
        self.differentiate = Differentiation(state, objective, clip_grad_norm)
        # LBFGS looks at several points in one step.
        self._needs_closure = isinstance(state.optimizer, torch.optim.LBFGS)
        is_playable = objective.precision.is_recordable and not self._needs_closure
        self._tapes = tapes
        self._player = tapes.of(
            self.differentiate,
            training=True,
            n_calls=n_steps if is_playable else 0,
        )
        self._module = state.module
        # Those of the last step, while no parameter has them.
        self._gradients: Gradients | None = None

    def __call__(self, group: Sequence[Batch]) -> list[BatchResult]:
        """Take one step down the gradient of the mean loss over all rows of the group.

        Returns
        -------
        measured : list of BatchResult
            For each batch, with the weights as they were before the step.
        """
        is_playable = len(group) == 1 and self._is_unchanged()
        played = self._player.play(group[0]) if is_playable else None
        if played is None:
            return self._step_as_written(group)
        measured, self._gradients = played
        if not self._tapes.update_of(self._state.optimizer)(self._gradients):
            self.show_gradients()
            self._state.optimizer.step()
            self._tapes.expose(self._state.optimizer)
        return [BatchResult(*measured)]

    def check(self, *, is_exposed: bool) -> None:
        """Notice what has been changed from outside since the last epoch.

        `is_exposed` says that code of users has run in between.
        """
        self._is_unchanged()
        self._tapes.check(is_exposed=is_exposed)

    def _is_unchanged(self) -> bool:
        """Whether module and parameters are those that tapes are made for."""
        state, known = self._state, self.differentiate.parameters
        parameters = _parameters(state.optimizer)
        if len(parameters) != len(known) or not all(map(is_, parameters, known)):
            self.differentiate.parameters = parameters
            self._tapes.forget()
        return state.forward is self._module and state.module is self._module

    def show_gradients(self) -> None:
        """Leave the gradients of the last step where a step as it is written leaves them."""
        if self._gradients is not None:
            gradients = self._player.own(self._gradients)
            for parameter, gradient in zip(self.differentiate.parameters, gradients, strict=True):
                parameter.grad = gradient
            self._gradients = None

    def drop_gradients(self) -> None:
        """Give the memory of all gradients back, and that of tapes."""
        self._gradients = None
        self._tapes.forget()
        for parameter in self._state.module.parameters():
            parameter.grad = None

    def try_out(self, batch: Batch) -> None:
        """Take the memory that a step with a batch takes, and give it back."""
        trained = [p for p in self.differentiate.parameters if p.requires_grad]
        # The optimizer's own comes with its first step: as Adam's, which takes the most.
        n_copies = 0 if self._state.optimizer.state else 2
        taken = [torch.empty_like(p) for _ in range(n_copies) for p in trained]
        # The batches before and after it.
        n_bytes = 2 * max(_FEWEST_BYTES, sum(x.nbytes for x in tensors_of(batch.x)))
        taken.append(torch.empty(n_bytes, dtype=torch.uint8, device=trained[0].device))
        self.differentiate(batch)
        del taken

    def _step_as_written(self, group: Sequence[Batch]) -> list[BatchResult]:
        if not self._state.module.training:
            self._state.module.train()
        self._tapes.expose()
        if self._needs_closure:
            return self._step_with_closure(group)
        measured = self._compute_gradients(group)
        optimizer = self._state.optimizer
        update = self._tapes.update_of(optimizer)
        gradients = [parameter.grad for parameter in _parameters(optimizer)]
        if not (self._objective.precision.is_recordable and update(gradients)):
            self._objective.precision.step(optimizer)
        return measured

    def _step_with_closure(self, group: Sequence[Batch]) -> list[BatchResult]:
        seen: list[list[BatchResult]] = []

        def closure() -> Any:
            seen.append(self._compute_gradients(group))
            return seen[-1][0].loss if len(group) == 1 else _mean_loss(seen[-1])

        self._state.optimizer.step(closure)
        return seen[0]

    def _compute_gradients(self, group: Sequence[Batch]) -> list[BatchResult]:
        state, precision = self._state, self._objective.precision
        # A callback may have added some. This is what `zero_grad` does, without the hooks of the
        # profiler: 5 us a step.
        parameters = _parameters(state.optimizer)
        for parameter in parameters:
            parameter.grad = None
        self._gradients = None
        total = _group_weight(state.head, group) if len(group) > 1 else None
        measured = []
        for batch in group:
            result = self._objective(state.forward, batch)
            loss = result.loss
            precision.backward(loss if total is None else loss * (result.loss_weight / total))
            measured.append(result._replace(loss=loss.detach()))
        if self._clip is not None:
            precision.unscale(state.optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, self._clip)
        return measured


class Differentiation:
    """The gradient of the loss of a batch, as a function without side effects.

    Parameters
    ----------
    state : TrainingState
        The module and its optimizer.
    objective : Objective
        The loss of a batch.
    clip_grad_norm : float or None
        The norm that the gradient is clipped to.

    Attributes
    ----------
    parameters : list of Tensor
        Those of the optimizer, in its order.
    """

    def __init__(
        self, state: TrainingState, objective: Objective, clip_grad_norm: float | None
    ) -> None:
        self._state, self._objective, self._clip = state, objective, clip_grad_norm
        self.parameters = _parameters(state.optimizer)

    def __call__(self, batch: Batch) -> tuple[tuple[Any, ...], Gradients]:
        """Compute the figures and the gradients of a batch.

        Returns
        -------
        measured : tuple
            The fields of `BatchResult`, without the graph of the loss.
        gradients : list of Tensor or None
            For each parameter, clipped; of its shape and strides, each in memory of its own. None
            for a parameter that is frozen or takes no part.
        """
        state = self._state
        measured = self._objective(state.forward, batch)
        loss = measured.loss
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        computed = torch.autograd.grad(loss, trained, allow_unused=True)
        gradients = dict(zip(trained, _laid_out(computed, trained), strict=True))
        if self._clip is not None:
            present = {p: gradient for p, gradient in gradients.items() if gradient is not None}
            clipped = _clipped(list(present.values()), self._clip)
            gradients |= zip(present, clipped, strict=True)
        return (loss.detach(), *measured[1:]), [gradients.get(p) for p in self.parameters]


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
    # A group may hold only rows whose class has weight 0.
    return (
        total.clamp(min=torch.finfo(total.dtype).tiny) if isinstance(total, torch.Tensor) else total
    )


def _mean_loss(measured: Sequence[BatchResult]) -> Number:
    total = sum(result.loss_weight for result in measured)
    return sum(result.loss * (result.loss_weight / total) for result in measured)
