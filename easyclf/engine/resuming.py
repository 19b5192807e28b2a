"""A run that goes on where it was kept, and is kept at the end of its epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

import torch
from torch import nn

from easyclf.archives import COMPARED, Archive, other_versions, show_versions
from easyclf.callbacks import Callback, checkpoint_among
from easyclf.checks import warn_user
from easyclf.codec import CannotBeStored, Decoder, Encoder
from easyclf.data import Source
from easyclf.documents import JSON
from easyclf.engine.given import shown
from easyclf.engine.identity import differences
from easyclf.exceptions import InvalidFile
from easyclf.history import History, columns_of, rows_of
from easyclf.optimizers import load_state
from easyclf.precision import Precision
from easyclf.snapshots import Snapshot, names_in
from easyclf.state import TrainingState
from easyclf.tape import Tapes

Tensors = Mapping[str, torch.Tensor]

# Callbacks with a state that changes no step: without them the run is the same for longer.
_MAY_GO = ("EarlyStopping",)


class Kept(NamedTuple):
    """What a checkpoint knows of a run.

    Attributes
    ----------
    note : dict of str to str
        Its parameters and rows, as `note_of` notes them.
    seed : int
        The seed of the training.
    first_epoch : int
        The epochs of the fits that it continued.
    epoch, step : int
        Epochs and steps that are done.
    lr : float
        The learning rate of the last step.
    stop_reason : str or None
        Why a callback ended it.
    tapes_differ : bool
        Whether tapes did something else than the module, so that it has to do without them.
    quantities : list of str
        The names in the history, whose figures are tensors.
    optimizer, scaler : dict or None
        Their states.
    callbacks : list of tuple
        For each callback its name, its settings and its state.
    trained : list of str
        Names of the weights that are trained.
    extra : dict of str to object
        What modules keep beside tensors, by `get_extra_state`.
    position : int
        The number of passes over the rows.
    tapes : list of dict
        How far the tapes are.
    """

    note: dict[str, str]
    seed: int
    first_epoch: int
    epoch: int
    step: int
    lr: float
    stop_reason: str | None
    tapes_differ: bool
    quantities: list[str]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    callbacks: list[tuple[str, dict[str, str], dict[str, Any]]]
    trained: list[str]
    extra: dict[str, object]
    position: int
    tapes: list[dict[str, Any]]


class Resumption:
    """Where a run begins, and where it is kept; nothing of both without a `Checkpoint`.

    Parameters
    ----------
    callbacks : sequence of Callback
        Those of the run.
    note : callable
        It notes the parameters and the rows of this run.
    history : History
        The epochs of the fits that this one continues.
    epochs, seed : int
        The epochs of this fit, and the seed of the training.

    Attributes
    ----------
    tapes_differ : bool
        Whether tapes were found to do something else than the module.

    Raises
    ------
    ValueError
        If the checkpoint is of another training.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        note: Callable[[], dict[str, str]],
        history: History,
        *,
        epochs: int,
        seed: int,
    ) -> None:
        self._callbacks = callbacks
        self._checkpoint = checkpoint_among(callbacks)
        self._first_epoch, self._seed = len(history), seed
        self._archive: Archive | None = None
        self._kept: Kept | None = None
        self.tapes_differ = False
        if self._checkpoint is None:
            return
        self._note = note()
        archive = self._checkpoint.newest()
        kept = None if archive is None else _read(archive)
        if kept is None or archive is None or kept.epoch <= self._first_epoch:
            # Of the fit that this one continues.
            return
        self._check(
            kept,
            rows_of(archive.tensors["history"], kept.quantities),
            history,
            self._first_epoch + epochs,
        )
        self._archive, self._kept, self.tapes_differ = archive, kept, kept.tapes_differ
        self._warn_of_versions(archive, kept.epoch)

    def _check(
        self, kept: Kept, rows: list[dict[str, float]], history: History, epochs: int
    ) -> None:
        """Refuse the checkpoint of another training."""
        what = differences(kept.note, self._note)
        if kept.first_epoch != self._first_epoch or not all(
            _is_same_epoch(*pair) for pair in zip(rows, history, strict=False)
        ):
            what.append(
                f"its fit went on after epoch {kept.first_epoch} of a training, and this one goes "
                f"on after epoch {self._first_epoch} of another"
                if kept.first_epoch or self._first_epoch
                else "its history is another"
            )
        stateful = [name for name, _, state in kept.callbacks if state and name not in _MAY_GO]
        present = [type(callback).__name__ for callback in self._callbacks]
        missing = [name for name in dict.fromkeys(stateful) if name not in present]
        if missing:
            what.append(f"`callbacks` had {', '.join(missing)}")
        if kept.epoch > epochs:
            what.append(f"`epochs` was at least {kept.epoch}, and {epochs} are planned now")
        if what:
            self._refuse(kept, "; ".join(what))

    def _refuse(self, kept: Kept, what: str) -> NoReturn:
        assert self._checkpoint is not None
        raise ValueError(
            f"Checkpoint has the `path` {str(self._checkpoint.path)!r}, which holds epoch "
            f"{kept.epoch} of another training: {what}. Give another `path`, or resume=False to "
            "begin anew in its place."
        )

    def _warn_of_versions(self, archive: Archive, epoch: int) -> None:
        """Warn if the run may not end as one that was never cut short."""
        assert self._checkpoint is not None
        others = other_versions(archive.written_by, ("easyclf", *COMPARED))
        if others:
            there, here = show_versions(others)
            warn_user(
                f"Checkpoint has the `path` {str(self._checkpoint.path)!r}, where epoch {epoch} "
                f"was written with {there}, and goes on with {here}: the run may end with other "
                "weights than one that was never cut short. Use resume=False to begin anew.",
            )

    @property
    def is_on(self) -> bool:
        """Whether the run is kept."""
        return self._checkpoint is not None

    def begin_anew(self) -> None:
        """Forget a run that tapes have spoiled, also what other processes kept of it."""
        self.tapes_differ, self._archive, self._kept = True, None, None
        if self._checkpoint is not None:
            self._checkpoint.forget()

    def begin(
        self, state: TrainingState, precision: Precision, train: Source, tapes: Tapes
    ) -> None:
        """Put everything in the place where it was when the run was kept, if it was.

        It is called between `on_train_begin` and the first epoch.

        Raises
        ------
        ValueError
            If weights or states do not fit.
        TypeError
            If a callback has a state that cannot be kept.
        """
        if self._checkpoint is None:
            return
        self._state, self._precision, self._train, self._tapes = state, precision, train, tapes
        _check_states(self._callbacks)
        if self._kept is not None and self._archive is not None:
            self._restore(self._kept, self._archive)

    def _restore(self, kept: Kept, archive: Archive) -> None:
        assert self._checkpoint is not None
        state = self._state
        is_done = kept.epoch >= state.epochs or self._is_stopped(kept)
        weights = archive.tensors["weights"]
        if is_done:
            weights = archive.tensors.get("learned", weights)
        self._check_weights(kept, weights)
        _load_weights(state.module, weights, kept)
        if self._precision.scaler is not None and kept.scaler is not None:
            self._precision.scaler.load_state_dict(kept.scaler)
        self._load_states(kept)
        for row in rows_of(archive.tensors["history"], kept.quantities)[len(state.history) :]:
            state.history.append(row)
        state.go_on_after(kept.epoch, kept.step, kept.lr)
        state.logs = {name: value for name, value in state.history[-1].items() if name != "epoch"}
        self._train.position = kept.position
        self._tapes.go_on_from(kept.tapes)
        if is_done:
            state.stop_reason = kept.stop_reason
            # An average is in its place already.
            state.put_in = None
        self._checkpoint.go_on_from(kept.epoch)

    def _is_stopped(self, kept: Kept) -> bool:
        """Whether a callback has ended the run, and would do so again with its settings."""
        present = [
            (type(callback).__name__, _settings_of(callback)) for callback in self._callbacks
        ]
        return kept.stop_reason is not None and all(
            (name, settings) in present for name, settings, _ in kept.callbacks
        )

    def _check_weights(self, kept: Kept, weights: Tensors) -> None:
        """Refuse the weights of another module, by their names and shapes."""
        module = self._state.module
        present = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
        buffers = [name for name in names_in(module) if name not in present]
        for name, shape in present.items():
            there = tuple(weights[name].shape) if name in weights else "not there"
            if there != shape:
                self._refuse(kept, f"the weight `{name}` was {there}, and is {shape} now")
        others = weights.keys() ^ {*present, *buffers}
        if others:
            self._refuse(kept, f"the weight `{min(others)}` is in one of their modules alone")

    def _load_states(self, kept: Kept) -> None:
        """Give the optimizer and the callbacks their states."""
        try:
            load_state(self._state.optimizer, kept.optimizer)
        except (ValueError, KeyError, RuntimeError) as error:
            self._refuse(kept, f"the state of the optimizer does not fit ({error})")
        states = [(name, callback_state) for name, _, callback_state in kept.callbacks]
        for callback in self._callbacks:
            kind = type(callback).__name__
            place = next((n for n, (name, _) in enumerate(states) if name == kind), None)
            if place is None:
                continue
            try:
                callback.load_state_dict(states.pop(place)[1])
            except (ValueError, KeyError, TypeError) as error:
                self._refuse(kept, f"the state of the callback {kind} does not fit ({error})")

    def keep(self, finite: Snapshot, *, is_last: bool) -> None:
        """Write a checkpoint of the epoch that has ended, if it is its turn.

        Parameters
        ----------
        finite : Snapshot
            The weights that training goes on with, where an average may be in their place.
        is_last : bool
            Whether no epoch follows.
        """
        checkpoint = self._checkpoint
        if checkpoint is None or self._state.is_cut:
            return
        if not (is_last or checkpoint.is_due(self._state.epoch)):
            return
        names = names_in(self._state.module)
        weights = dict(zip(names, finite.live_values(), strict=True))
        groups = {"weights": weights, "history": columns_of(self._state.history)}
        if is_last and self._state.put_in is not None:
            groups |= {"learned": weights, "weights": dict(zip(names, finite.values, strict=True))}
        encoder = Encoder()
        run = {
            name: _encoded(encoder, value, f"The `{name}` of the run")
            for name, value in self._kept_now().items()
        }
        checkpoint.save(self._state.epoch, {"run": run}, {**groups, "values": encoder.tensors})

    def _kept_now(self) -> dict[str, object]:
        state, scaler = self._state, self._precision.scaler
        kept = Kept(
            note=self._note,
            seed=self._seed,
            first_epoch=self._first_epoch,
            epoch=state.epoch,
            step=state.step,
            lr=float(state.lr),
            stop_reason=state.stop_reason,
            tapes_differ=self.tapes_differ,
            quantities=state.history.keys(),
            optimizer=state.optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            callbacks=[
                (type(callback).__name__, _settings_of(callback), callback.state_dict())
                for callback in self._callbacks
            ],
            trained=[name for name, w in state.module.named_parameters() if w.requires_grad],
            extra={name: layer.get_extra_state() for name, layer in _with_extra(state.module)},
            position=self._train.position,
            tapes=self._tapes.progress(),
        )
        return kept._asdict()


def _read(archive: Archive) -> Kept:
    run = archive.documents.get("run")
    if not isinstance(run, dict) or run.keys() != set(Kept._fields):
        raise InvalidFile("A checkpoint does not say what it holds.")
    decoder = Decoder(archive.tensors.get("values", {}))
    return Kept(**{name: cast(Any, decoder.decode(encoded)) for name, encoded in run.items()})


def _is_same_epoch(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether two rows of histories are the same, but for the time that the epoch took."""
    names = [name for name in {**first, **second} if name != "seconds"]
    # A NaN is equal to a NaN here.
    return all(repr(first.get(name)) == repr(second.get(name)) for name in names)


def _load_weights(module: nn.Module, weights: Tensors, kept: Kept) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(weights[name])
            weight.requires_grad_(name in kept.trained)
        for name in names_in(module):
            place, _, short = name.rpartition(".")
            layer = module.get_submodule(place)
            buffer = getattr(layer, short)
            if buffer.requires_grad or isinstance(buffer, nn.Parameter):
                continue
            if buffer.shape == weights[name].shape:
                buffer.copy_(weights[name])
            else:
                setattr(layer, short, weights[name].to(buffer.device))
    for name, layer in _with_extra(module):
        layer.set_extra_state(kept.extra.get(name))


def _with_extra(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that keep something beside tensors, by their names."""
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if type(layer).get_extra_state is not nn.Module.get_extra_state
    ]


def _settings_of(callback: Callback) -> dict[str, str]:
    return {name: shown(value) for name, value in callback.get_params().items()}


def _check_states(callbacks: Sequence[Callback]) -> None:
    """Refuse states that cannot be kept, or not be given back.

    Raises
    ------
    TypeError
        If there are some; it names the callback.
    """
    for callback in callbacks:
        kind = type(callback)
        if kind.state_dict is not Callback.state_dict:
            if kind.load_state_dict is Callback.load_state_dict:
                raise TypeError(
                    f"{kind.__name__} has `state_dict` without `load_state_dict`, which a resumed "
                    "run gives it back to; write both."
                )
            what = f"The state of the callback {kind.__name__}"
            _encoded(Encoder(), callback.state_dict(), what)


def _encoded(encoder: Encoder, value: object, what: str) -> JSON:
    try:
        return encoder.encode(value)
    except CannotBeStored as error:
        raise TypeError(
            f"{what} holds a {error}, which a checkpoint cannot hold; expected numbers, texts, "
            "None, tensors, arrays, and lists, tuples and dicts of them."
        ) from error
