"""Tapes of what a run does with every batch, made where they are proved to be sound."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from easyclf.data import Batch
from easyclf.device import HOST, is_out_of_memory
from easyclf.exceptions import TapeDiffers
from easyclf.nested import Tensors, apply, named_tensors, tensors_of
from easyclf.snapshots import Snapshot
from easyclf.tape.compiler import Choice, Tape, compile_recording
from easyclf.tape.graph import Graph, Graphs
from easyclf.tape.hooks import check_unhooked
from easyclf.tape.kernels import faster_kernel
from easyclf.tape.one_hot import RecordableOneHot
from easyclf.tape.purity import CodeReading
from easyclf.tape.recorder import NotRecordable, Recording, record
from easyclf.tape.trusted import check_torch_is_whole
from easyclf.tape.updates import Exposure, Update, runs_user_code
from easyclf.tape.witness import TensorWitness, Witness

_log = logging.getLogger("easyclf")
# Calls between two looks at all that tapes depend on, where nobody can have changed it but other
# threads: a look takes as long as one call of a small module (`python -m benchmarks`, blobs).
_CALLS_A_LOOK = 50
# A tape is made for a shape that came this often and will come so much more often: to make and
# to try it takes as long as it saves in some twenty steps (`python -m benchmarks`, digits).
_SEEN, _WORTHWHILE = 5, 64
# The time of modules with more weights goes into arithmetic, and so does that of every comparison
# with the module: `resnet18` lost 15 % in a hundred steps (`python -m benchmarks`).
_MOST_WEIGHTS = 2**23


class Tapes:
    """All that one run plays instead of computing it as it is written.

    Parameters
    ----------
    module : nn.Module
        The module that is trained.
    head : object
        What else the functions of batches read: the loss.
    is_on : bool, default=True
        False for a run in which everything is computed as it is written.
    is_exposed : bool, default=False
        Whether code of users runs between the calls, which may change anything.
    graphs : Graphs, default=None
        Where tapes of the training are captured.
    """

    def __init__(
        self,
        module: nn.Module,
        head: object,
        *,
        is_on: bool = True,
        is_exposed: bool = False,
        graphs: Graphs | None = None,
    ) -> None:
        self._module, self._head = module, head
        self._is_on, self._is_exposed, self._graphs = is_on, is_exposed, graphs
        self._players: list[Player] = []
        self._n_calls_seen = 0
        self._exposure, self._n_exposures_seen = Exposure(), 0
        self._update: Update | None = None

    def of(
        self,
        function: Callable[[Batch], Any],
        *,
        training: bool,
        n_calls: int,
    ) -> Player:
        """A player of a function of batches.

        Parameters
        ----------
        function : callable
            `Batch -> tensors and numbers in tuples and lists`, which changes buffers at most.
        training : bool
            Whether the module has to be in training mode for it.
        n_calls : int
            Batches that will come in all; with 0 no tapes are made.
        """
        n_calls = n_calls if self._is_on else 0
        # Batches to evaluate are large and few.
        graphs = self._graphs if training else None
        if graphs is not None and n_calls < _SEEN + _WORTHWHILE:
            graphs.refuse(_too_few(n_calls))
        player = Player(
            self._module,
            self._head,
            function,
            training=training,
            n_calls=n_calls,
            is_exposed=self._is_exposed,
            exposure=self._exposure,
            graphs=graphs,
        )
        self._players.append(player)
        return player

    def update_of(self, optimizer: torch.optim.Optimizer) -> Update:
        """The update that `optimizer.step` would do with some gradients."""
        if self._update is None or self._update.optimizer is not optimizer:
            self._update = Update(
                optimizer,
                is_on=self._is_on,
                is_exposed=self._is_exposed,
                exposure=self._exposure,
            )
        return self._update

    def expose(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Have all looked at anew before a tape is played: code of users ran that nobody read.

        With an `optimizer`, which was stepped, only if its `step` may run such code.
        """
        if optimizer is None or runs_user_code(optimizer):
            self._exposure.n_times += 1

    def check(self, *, is_exposed: bool = True) -> None:
        """Forget what depends on something that has changed since: all is looked at anew.

        Where no code of users ran since the last look (`is_exposed` is False) it waits until a
        look costs little beside the calls: epochs of a single step are shorter than a look.
        """
        is_exposed |= self._is_exposed or self._n_exposures_seen != self._exposure.n_times
        self._n_exposures_seen = self._exposure.n_times
        n_calls = sum(player.n_calls_made for player in self._players)
        if not is_exposed and n_calls < self._n_calls_seen + _CALLS_A_LOOK:
            return
        self._n_calls_seen = n_calls
        if self._update is not None:
            self._update.forget()
        for player in self._players:
            player.check(is_exposed=is_exposed)

    def forget(self) -> None:
        """Make all tapes anew."""
        for player in self._players:
            player.forget()

    def progress(self) -> list[dict[str, Any]]:
        """Say how far the players are, for a run that goes on in another process."""
        return [player.progress() for player in self._players]

    def go_on_from(self, progress: Sequence[Mapping[str, Any]]) -> None:
        """Play from tapes what would be played from them had the run not ended.

        A tape and the function that it was made of may round differently, so the same batches have
        to come from it.
        """
        for player, of_player in zip(self._players, progress, strict=False):
            player.go_on_from(of_player)


class Player:
    """Tapes of one function of batches, one for each shape that comes often.

    Before a tape is used it is tried: played on the batch that it was made with, it must give
    what the function gave, and leave buffers and random states as the function left them.
    """

    def __init__(
        self,
        module: nn.Module,
        head: object,
        function: Callable[[Batch], Any],
        *,
        training: bool,
        n_calls: int,
        is_exposed: bool,
        exposure: Exposure,
        graphs: Graphs | None = None,
    ) -> None:
        self._module, self._head, self._function = module, head, function
        # For each shape, how often code of users had run when it was looked at.
        self._exposure, self._n_exposures = exposure, dict[Hashable, int]()
        self._graphs, self._most_rows = graphs, 0
        self._training, self._n_calls, self._is_exposed = training, n_calls, is_exposed
        self._n_planned = n_calls
        self._tapes: dict[Hashable, Tape] = {}
        self._uses: Counter[Hashable] = Counter()
        self.n_calls_made = 0
        self._seen: Counter[Hashable] = Counter()
        self._calls = 0
        # Shapes of a run that this one goes on with: how often each was seen and played, and how
        # far its tape was.
        self._earlier: dict[str, tuple[int, int, bool, bool]] = {}
        # What ran for batches of a shape, and all that it can read.
        self._witnesses: dict[Hashable, Witness] = {}
        self._readings: dict[Hashable, CodeReading] = {}

    def play(self, batch: Batch) -> Any:
        """What the function would return for a batch, or None: then there is no tape for it.

        Parameters
        ----------
        batch : Batch
            With targets. A tape may write to `x` where the function does.

        Returns
        -------
        result : tensors and numbers in tuples and lists, or None
            The memory of the tensors is new; but the next call may write to gradients of a graph,
            see `own`. Where a tape is worth its cost the function is called and recorded: the
            module is in its mode then, and the result is the function's.
        """
        if not self._n_calls:
            self._exposure.n_times += 1
            return None
        self._calls += 1
        self.n_calls_made += 1
        x, y, weight = batch
        assert y is not None
        shape = (_shape(x), y.shape, y.dtype, weight is None)
        if self._earlier:
            self._make_again(batch, shape)
        tape = self._tapes.get(shape)
        n_exposures = self._exposure.n_times
        if tape is not None and (self._is_exposed or self._n_exposures.get(shape) != n_exposures):
            # Where it would be switched without the tape.
            self._switch_mode()
            self._n_exposures[shape] = n_exposures
            if not self._is_current(shape):
                self.forget()
                tape = None
        if tape is not None:
            return self._play(tape, batch, shape)
        self._exposure.n_times += 1
        self._most_rows = max(self._most_rows, batch.n_rows)
        self._seen[shape] += 1
        n_seen = self._seen[shape]
        n_expected = self._n_calls * n_seen / self._calls
        if n_seen < _SEEN or n_expected < n_seen + _WORTHWHILE:
            return None
        if shape not in self._witnesses:
            return self._observe(batch, shape)
        return self._record(batch, shape)

    def own(self, gradients: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """Gradients that `play` gave, of any shapes, in memory that it never writes to again."""
        if self._graphs is None:
            return gradients
        return [None if gradient is None else gradient.clone() for gradient in gradients]

    def _play(self, tape: Tape, batch: Batch, shape: Hashable) -> Any:
        if self._graphs is not None and isinstance(tape, Graph) and tape.is_full:
            tape = self._tapes[shape] = self._graphs.renewed(tape, batch)
            del self._uses[shape]
        self._uses[shape] = n_uses = self._uses[shape] + 1
        try:
            # At the 1st, 2nd, 4th, 8th ... use, and at the last of the run.
            if n_uses & (n_uses - 1) == 0 or self._calls == self._n_calls:
                return self._audit(tape, batch, shape)
            return tape(*batch)
        except Exception as error:
            if isinstance(error, TapeDiffers) or is_out_of_memory(error):
                raise
            raise TapeDiffers(f"it fails with {type(error).__name__}: {error}") from error

    def _audit(self, tape: Tape, batch: Batch, shape: Hashable) -> Any:
        """Play a batch, call the function with it, and compare; what the function did stays.

        Raises
        ------
        TapeDiffers
            If results, tensors or generators differ.
        """
        known = [*self._readings[shape].tensors, *_tensors_in(batch)]
        before = _snapshot(known)
        played = tape(*batch)
        left = before.restore_changed()
        self._switch_mode()
        expected = self._function(batch)
        if not _is_same([expected, before.live_values()], [played, left]):
            raise TapeDiffers("its figures, gradients or buffers are others")
        return expected

    def check(self, *, is_exposed: bool) -> None:
        """Forget the tapes if what they depend on has changed since they were made.

        Where no code of users ran, nobody can have come by the node of a gradient.
        """
        if not self._tapes:
            return
        if is_exposed:
            try:
                check_unhooked(self._module)
            except NotRecordable as reason:
                self._refuse(reason)
        self._n_exposures = dict.fromkeys(self._tapes, self._exposure.n_times)
        if not all(map(self._is_current, self._tapes)):
            self.forget()

    def forget(self) -> None:
        """Make tapes anew."""
        self._tapes.clear()
        self._uses.clear()
        self._seen.clear()
        self._witnesses.clear()
        self._readings.clear()
        self._earlier.clear()
        # As many as are left.
        self._n_calls = max(0, self._n_calls - self._calls + 1)
        self._calls = 1

    def progress(self) -> dict[str, Any]:
        """Say how often the function came, and what there is for each shape of batches."""
        shapes = {
            repr(shape): (n_seen, self._uses[shape], shape in self._witnesses, shape in self._tapes)
            for shape, n_seen in self._seen.items()
        }
        return {
            "n_planned": self._n_planned,
            "n_calls": self._n_calls,
            "calls": self._calls,
            "n_made": self.n_calls_made,
            "shapes": {**self._earlier, **shapes},
        }

    def go_on_from(self, progress: Mapping[str, Any]) -> None:
        """Count on, and make the tapes again when their shapes come."""
        if not self._n_calls:
            return
        self._n_calls, self._calls = progress["n_calls"], progress["calls"]
        if self._n_calls:
            # More epochs may be planned now.
            self._n_calls += self._n_planned - progress["n_planned"]
        self.n_calls_made, self._earlier = progress["n_made"], dict(progress["shapes"])

    def _make_again(self, batch: Batch, shape: Hashable) -> None:
        """Make the tape that an earlier process had for a shape; nothing else is changed."""
        n_seen, n_uses, is_observed, has_tape = self._earlier.pop(repr(shape), (0, 0, False, False))
        if not n_seen:
            return
        state = [*self._module.parameters(), *self._module.buffers(), *_tensors_in(batch)]
        before, is_training = _snapshot(state), self._module.training
        self._seen[shape], self._uses[shape] = n_seen, n_uses
        if is_observed:
            self._observe(batch, shape)
        if has_tape and shape in self._witnesses:
            self._record(batch, shape)
        before.restore_changed()
        if self._module.training is not is_training:
            _ = self._module.train(is_training)

    def _is_current(self, shape: Hashable) -> bool:
        """Whether nothing has changed since the code was read."""
        reading = self._readings[shape]
        if reading.is_current():
            return True
        try:
            self._readings[shape] = self._read(self._witnesses[shape])
        except NotRecordable:
            return False
        return self._readings[shape] == reading

    def _read(self, witness: Witness) -> CodeReading:
        try:
            return CodeReading([self._module, self._head], witness)
        except NotRecordable:
            raise
        except Exception as error:  # what belongs to users may do anything when it is looked at
            reason = f"its code cannot be read: {type(error).__name__}: {error}"
            raise NotRecordable(reason) from error

    def _observe(self, batch: Batch, shape: Hashable) -> Any:
        """Call the function, and see what runs; None if it was not called, or failed."""
        try:
            check_unhooked(self._module)
            check_torch_is_whole()
        except NotRecordable as reason:
            self._refuse(reason)
            return None
        self._switch_mode()
        witness = Witness()
        state = [*self._module.parameters(), *self._module.buffers(), *_tensors_in(batch)]
        before, n_imported = _snapshot(state), len(sys.modules)
        try:
            with witness, TensorWitness(witness):
                result = self._function(batch)
        except Exception as error:
            # Perhaps only because somebody watched: it is called again.
            before.restore_changed()
            self._refuse(f"it failed with {type(error).__name__}: {error}")
            return None
        if len(sys.modules) > n_imported:
            # Somebody imported something, which runs anything: the next time shows what runs.
            return result
        try:
            witness.check()
            self._readings[shape] = reading = self._read(witness)
            if witness.has_other_leaves:
                raise NotRecordable("its loss has gradients by what the optimizer does not train")
            if sum(tensor.numel() for tensor in reading.tensors) > _MOST_WEIGHTS:
                raise NotRecordable("it has so many weights that Python takes little of its time")
            self._witnesses[shape] = witness
        except NotRecordable as reason:
            self._refuse(reason)
        return result

    def _record(self, batch: Batch, shape: Hashable) -> Any:
        """Call the function, and make a tape of what it does; None if it was not called."""
        self._switch_mode()
        trial = None
        try:
            if not self._is_current(shape):
                self.forget()
                return None
            witness, n_imported = Witness(is_recording=True), len(sys.modules)
            has_one_hot = self._witnesses[shape].has_one_hot
            mode = RecordableOneHot() if has_one_hot else nullcontext()
            trial = _Trial(self._function, batch, self._readings[shape].tensors, witness, mode)
            if len(sys.modules) > n_imported:
                return trial.result
            self._tapes[shape] = trial.find_tape()
            if not witness.codes.keys() <= self._witnesses[shape].codes.keys():
                raise NotRecordable("other code runs than before")
            if not self._is_current(shape):
                raise NotRecordable("its forward pass changes what it reads")
            # A short last batch comes once an epoch, and a graph takes the memory of a step.
            if self._graphs is not None and batch.n_rows == self._most_rows:
                assert isinstance(trial.recording, Recording)
                known = self._readings[shape].tensors
                tape = self._tapes[shape]
                self._tapes[shape] = self._graphs.of(trial.recording, tape, batch, known)
        except NotRecordable as reason:
            self._refuse(reason)
        else:
            what = "trained" if self._training else "evaluated"
            _log.debug("%s is %s from a tape.", type(self._module).__name__, what)
        return trial and trial.result

    def _switch_mode(self) -> None:
        if self._module.training is not self._training:
            # As it is done without tapes: a module may have methods of its own.
            _ = self._module.train() if self._training else self._module.eval()

    def _refuse(self, reason: object) -> None:
        """Make no tapes any more."""
        self.forget()
        self._n_calls = 0
        if self._graphs is not None:
            self._graphs.refuse(reason)
        _log.debug("%s runs as it is: %s.", type(self._module).__name__, reason)


class _Trial:
    """One call of a function that is recorded, and tapes that are tried against it.

    The function is called once. Whatever comes of the tapes, the tensors and the generators are
    left as that call left them.

    Parameters
    ----------
    function : callable
        A function of a batch.
    batch : Batch
        What it is called with.
    known : sequence of Tensor
        Weights, buffers and constants that it may use.
    witness : Witness
        It watches the call.
    mode : context manager
        What is computed in another way for the recording.

    Attributes
    ----------
    result : tensors and numbers in tuples and lists
        What the function returned.
    recording : Recording or NotRecordable
        What it did, or why that is not known.

    Raises
    ------
    NotRecordable
        If the call failed. Then everything is as it was before, so that it can be done again.
    """

    def __init__(
        self,
        function: Callable[[Batch], Any],
        batch: Batch,
        known: Sequence[torch.Tensor],
        witness: Witness,
        mode: AbstractContextManager[object],
    ) -> None:
        self._is_single = isinstance(batch.x, torch.Tensor)
        # One tensor may be there under two names.
        x = apply(lambda tensor: tensor.view_as(tensor), batch.x)
        self._inputs = _tensors_in(batch._replace(x=x))
        self._before = _snapshot([*known, *self._inputs])

        def call() -> Any:
            with witness, mode:
                return function(batch._replace(x=x))

        try:
            self.result, self.recording = record(call, self._inputs, known)
        except Exception as error:
            self._before.restore_changed()
            if isinstance(error, NotRecordable):
                raise
            raise NotRecordable(f"recording failed with {type(error).__name__}: {error}") from error
        self._after = _snapshot([*known, *self._inputs])

    def find_tape(self) -> Tape:
        """A tape that does what the function did."""
        if isinstance(self.recording, NotRecordable):
            raise self.recording
        # Where a result is nothing but rounding, another kernel gives something else, or it fails.
        tape = self._try(faster_kernel) or self._try(_as_recorded)
        if tape is None:
            self._after.restore_changed()
            raise NotRecordable(self._difference)
        if self._is_single:
            return tape
        return lambda x, *rest: tape(*tensors_of(x), *rest)

    def _try(self, choose: Choice) -> Tape | None:
        """A tape with these kernels, if it does what the function did."""
        assert isinstance(self.recording, Recording)
        try:
            tape = compile_recording(self.recording, choose)
            self._before.restore_changed()
            played = tape(*self._inputs)
            if _is_same([self.result, self._after.values], [played, self._after.live_values()]):
                return tape
        except Exception as error:
            self._difference = f"a replay failed with {type(error).__name__}: {error}"
        else:
            self._difference = "a replay differs from what it does"
        return None


def _too_few(n_calls: int) -> str:
    """Why nothing is recorded of so many steps."""
    if n_calls:
        return f"it takes {n_calls} steps, and a graph pays from {_SEEN + _WORTHWHILE} on"
    return (
        "none of its steps can be recorded, which needs `accumulate=1`, batches whose number is "
        "known and which can be read again, another precision than 'fp16', another optimizer than "
        "LBFGS, no function as `output`, and no callback that may change a step (see "
        "`Callback.changes`)"
    )


def _as_recorded(function: Any, tensors: Sequence[torch.Tensor]) -> None:
    """Every operation as it was recorded."""


def _shape(x: Tensors) -> Hashable:
    """All that tells inputs apart but their values; several are known by their names or places."""
    return tuple((name, one.shape, one.stride(), one.dtype) for name, one in named_tensors(x))


def _tensors_in(batch: Batch) -> list[torch.Tensor]:
    """Inputs, targets and weights: a loss may change its targets in place."""
    return [*tensors_of(batch.x), *(tensor for tensor in batch[1:] if tensor is not None)]


def _snapshot(tensors: Sequence[torch.Tensor]) -> Snapshot:
    """Copy tensors, and the states of the generators that their devices draw from."""
    # Any of them may draw on the host too.
    devices = dict.fromkeys([HOST, *(tensor.device for tensor in tensors)])
    return Snapshot(tensors=tensors, devices=devices)


def _is_same(first: Any, second: Any) -> bool:
    """Whether two results of one structure hold the same numbers, but for rounding.

    A kernel may round another way when a tensor lies at another address, and another kernel does.
    """
    if isinstance(first, torch.Tensor):
        if torch.equal(first, second):
            return True
        if not first.is_floating_point():
            return False
        # What a sum of many numbers leaves is rounded by the size of these.
        unit = 1e-4 if first.dtype is not torch.float64 else 1e-10
        size = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max())
        return torch.allclose(
            first, second, rtol=unit, atol=unit * (0.01 + 0.1 * size), equal_nan=True
        )
    if isinstance(first, (tuple, list)):
        return all(map(_is_same, first, second))
    return bool(first == second)
