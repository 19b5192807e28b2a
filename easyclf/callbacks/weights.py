"""Weights during a run: averages of them, gradual unfreezing, the norm of their gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from easyclf.callbacks.base import Callback
from easyclf.constraints import is_integer
from easyclf.modules import matching
from easyclf.nested import Tensors, call
from easyclf.snapshots import Snapshot
from easyclf.state import TrainingState

_BATCH_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Average = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], int], None]


class _AveragedWeights:
    """An average of the weights of a module, which takes their place for a while.

    Parameters
    ----------
    module : nn.Module
        The module.
    average : callable
        A function of `torch.optim.swa_utils`, which updates averaged tensors in place.
    has_buffers : bool
        Whether buffers are averaged too; else they are the present ones.
    """

    def __init__(self, module: nn.Module, average: Average, *, has_buffers: bool) -> None:
        self._module, self._average, self._has_buffers = module, average, has_buffers
        self._n_weights = len(list(module.parameters()))
        self._n_updates = 0
        self._averages: Snapshot | None = None
        self._trained: Snapshot | None = None
        self._is_in = False

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average; the first ones are the average."""
        if self._averages is None:
            self._averages = Snapshot(self._module)
        else:
            averages, present = self._averages.values, self._averages.live_values()
            n_averaged = len(averages) if self._has_buffers else self._n_weights
            places = [n for n in range(n_averaged) if averages[n].is_floating_point()]
            self._average(
                [averages[n] for n in places], [present[n] for n in places], self._n_updates
            )
            for n in set(range(len(averages))).difference(places):
                averages[n].copy_(present[n])
        self._n_updates += 1

    def state_dict(self) -> dict[str, object]:
        """Give the average, and how often it was renewed."""
        averages = None if self._averages is None else self._averages.values
        return {"n_updates": self._n_updates, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with an average."""
        self._n_updates = state["n_updates"]
        if state["averages"] is not None:
            self._averages = Snapshot(self._module)
            self._averages.load(state["averages"])

    def put_in(self) -> bool:
        """Put the average in the place of the weights; False if it is there, or there is none."""
        if self._averages is None or self._is_in:
            return False
        if self._trained is None:
            self._trained = Snapshot(self._module)
        else:
            self._trained.take()
        self._averages.restore()
        self._is_in = True
        return True

    def take_out(self) -> None:
        """Put the weights back that are trained."""
        if self._is_in and self._trained is not None:
            self._trained.restore()
        self._is_in = False


class EMA(Callback):
    """Average the weights over the steps, exponentially; the average is what is learned.

    After each step every weight `a` of the average becomes `decay * a + (1 - decay) * w`; buffers
    too, and the first step is copied. The average is in place from before each validation until
    the hooks of its epoch are over, so that validation, checkpoints and `EarlyStopping` are about
    it; `module_` has it at the end. It is made by `torch.optim.swa_utils`.

    Parameters
    ----------
    decay : float, default=0.999
        How much of the average stays in a step, in [0, 1).

    Raises
    ------
    ValueError
        At the start of `fit`, if `decay` is another number, or another callback averages too.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import EMA, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(lr=0.1, callbacks=[EMA(0.98)], random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    """

    changes = "nothing"  # the weights that are trained are left as they are

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay

    def on_train_begin(self, state: TrainingState) -> None:
        """Begin an average."""
        if not isinstance(self.decay, float | int) or not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be a number in [0, 1); got {self.decay!r}.")
        average: Average = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]
        self._weights = _AveragedWeights(state.module, average, has_buffers=True)
        _announce(state, self, lambda after_epoch: self._weights.put_in(), self._weights)

    def on_batch_end(self, state: TrainingState) -> None:
        """Take the step into the average."""
        self._weights.update()

    def state_dict(self) -> dict[str, object]:
        """Give the average."""
        return self._weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the average."""
        self._weights.load_state_dict(state)

    def close(self, state: TrainingState) -> None:
        """Let go of the average."""
        vars(self).pop("_weights", None)


class SWA(Callback):
    """Average the weights of the last epochs; the average is what is learned.

    It begins with epoch `int(start * epochs)`, counted from 0, and takes in the weights at the end
    of each epoch from there on. As with `EMA` it is in place for the validation, and `module_` at
    the end. The statistics of batch normalization, which no average has, are measured for it with
    a pass over the training rows. It is made by `torch.optim.swa_utils`.

    Parameters
    ----------
    start : float, default=0.75
        The part of the epochs of this `fit` after which averaging begins, in [0, 1).
    lr : float, default=None
        The learning rate from there on; None leaves it. Other groups of weights keep their ratio
        to the first. To have the last word, stand behind a schedule in the list.

    Raises
    ------
    ValueError
        At the start of `fit`, if a setting makes no sense, or another callback averages too.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import SWA, Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(lr=0.1, callbacks=[SWA(lr=0.05)], random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    """

    changes = "learning rate"  # the weights that are trained are left as they are

    def __init__(self, start: float = 0.75, lr: float | None = None) -> None:
        self.start = start
        self.lr = lr

    def on_train_begin(self, state: TrainingState) -> None:
        """Begin an average."""
        if not isinstance(self.start, float | int) or not 0 <= self.start < 1:
            raise ValueError(f"`start` must be a number in [0, 1); got {self.start!r}.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"`lr` must be a positive number, or None; got {self.lr!r}.")
        self._needs_rows = any(
            isinstance(part, _BATCH_NORMALIZATIONS) for part in state.module.modules()
        )
        if self._needs_rows and state.steps_per_epoch is None:
            raise ValueError(
                f"SWA measures the statistics of batch normalization of "
                f"{type(state.module).__name__} with a further pass over the rows, which this "
                "stream does not allow; use EMA."
            )
        self._first = state.epoch + 1 + int(self.start * (state.epochs - state.epoch))
        groups = state.optimizer.param_groups
        self._ratios = [group["lr"] / groups[0]["lr"] for group in groups]
        average: Average = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        self._weights = _AveragedWeights(state.module, average, has_buffers=False)
        _announce(state, self, functools.partial(self._put_in, state), self._weights)

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Set the rate."""
        if self.lr is not None and state.epoch >= self._first:
            for group, ratio in zip(state.optimizer.param_groups, self._ratios, strict=False):
                group["lr"] = self.lr * ratio

    def _put_in(self, state: TrainingState, after_epoch: bool) -> None:
        """Take in a whole epoch, and put the average in place with statistics of its own."""
        if after_epoch and state.epoch >= self._first:
            self._weights.update()
        if self._weights.put_in() and self._needs_rows:
            update_bn(([batch.x] for batch in state.batches()), _Caller(state.module).eval())

    def state_dict(self) -> dict[str, object]:
        """Give the average."""
        return self._weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the average."""
        self._weights.load_state_dict(state)

    def close(self, state: TrainingState) -> None:
        """Let go of the average."""
        vars(self).pop("_weights", None)


class _Caller(nn.Module):
    """Calls a module with one tensor or several, as `update_bn` does not."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensors) -> object:
        return call(self.module, x)


def _announce(
    state: TrainingState,
    callback: Callback,
    put_in: Callable[[bool], object],
    weights: _AveragedWeights,
) -> None:
    """Tell the run what takes the place of the weights.

    Raises
    ------
    ValueError
        If something else does already.
    """
    if state.put_in is not None:
        raise ValueError(
            f"`callbacks` has {type(callback).__name__} and another average of the weights; only "
            "one of them can be what is learned."
        )
    state.put_in, state.take_out = put_in, weights.take_out


class Unfreeze(Callback):
    """Train weights from some epoch on that `freeze` keeps as they are until then.

    Parameters
    ----------
    patterns : dict of int to str or list of str
        For each epoch, counted from 1 as in `history_["epoch"]`, patterns of the names of the
        weights that are trained from its beginning on, as `freeze` takes them. They are trained
        with the settings of the optimizer's first group.

    Raises
    ------
    ValueError, TypeError
        At the start of `fit`, if a pattern matches no frozen weight, or a key is no epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, Unfreeze
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(freeze="layers.0", callbacks=[Unfreeze({3: "layers.0"})], epochs=5)
    >>> _ = clf.fit(X, y)
    """

    def __init__(self, patterns: Mapping[int, str | Sequence[str]]) -> None:
        self.patterns = patterns

    def on_train_begin(self, state: TrainingState) -> None:
        """Find the weights, and make them known to the optimizer."""
        if not isinstance(self.patterns, Mapping):
            raise TypeError(
                f"`patterns` must be a dict of epochs and patterns; got {self.patterns!r}."
            )
        named = dict(state.module.named_parameters())
        self._waiting: dict[int, list[torch.Tensor]] = {}
        for epoch, patterns in self.patterns.items():
            if not is_integer(epoch) or epoch < 1:
                raise ValueError(
                    f"`patterns` has the key {epoch!r}; expected an epoch, counted from 1."
                )
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                names = matching(pattern, named, "Unfreeze")
                frozen = [named[name] for name in names if not named[name].requires_grad]
                if not frozen:
                    raise ValueError(
                        f"`Unfreeze` has the pattern {pattern!r}, whose weights are not frozen; "
                        f"freeze them at first: Estimator(freeze={pattern!r})."
                    )
                self._waiting.setdefault(epoch, []).extend(frozen)
        weights = list(dict.fromkeys(w for group in self._waiting.values() for w in group))
        first = state.optimizer.param_groups[0]
        settings = {name: value for name, value in first.items() if name != "params"}
        state.optimizer.add_param_group({**settings, "params": weights})

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Begin to train what waits for this epoch."""
        for epoch in [epoch for epoch in self._waiting if epoch <= state.epoch]:
            for weight in self._waiting.pop(epoch):
                weight.requires_grad_(True)

    def close(self, state: TrainingState) -> None:
        """Let go of the weights."""
        vars(self).pop("_waiting", None)


class GradientNorm(Callback):
    """Add `gradient_norm` to the quantities: the mean norm of the gradients of an epoch's steps.

    The norm is the Euclidean one of all gradients together, as `clip_grad_norm` takes it, after
    clipping. Every step runs as it is written then, without a tape.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from easyclf import Estimator, GradientNorm
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(epochs=2, callbacks=[GradientNorm()]).fit(X, y)
    >>> bool((clf.history_["gradient_norm"] > 0).all())
    True
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Announce the quantity."""
        state.quantities += ("gradient_norm",)

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Begin a sum."""
        self._norms: list[torch.Tensor] = []

    def on_batch_end(self, state: TrainingState) -> None:
        """Look at the gradients; the host does not wait for them."""
        gradients = [w.grad for w in state.module.parameters() if w.grad is not None]
        self._norms.append(torch.nn.utils.get_total_norm(gradients))

    def on_epoch_end(self, state: TrainingState) -> None:
        """Give their mean."""
        state.logs["gradient_norm"] = torch.stack(self._norms).mean().item()
        self._norms = []
