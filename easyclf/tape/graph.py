"""Graphs: steps that a device takes at one word of the host, captured from their tapes.

The time of a small step on a GPU goes into telling it what to do, and a tape tells it every
operation. A graph (CUDA's word) keeps the operations on the device, with the memory that they use:
rows are copied into that memory, one call does everything, and figures are read from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from easyclf.checks import warn_user
from easyclf.data import Batch
from easyclf.device import HOST, Capture, graph_capture
from easyclf.nested import apply, first_of, tensors_of
from easyclf.snapshots import Snapshot

if TYPE_CHECKING:  # where torch lacks what these need, graphs are refused
    from easyclf.tape.compiler import Tape
    from easyclf.tape.recorder import Recording

# Steps whose figures a graph keeps, each in a place that no other step writes to: whoever was
# given a figure may keep it. Then the step is captured anew, which takes as long as some hundred.
_ROWS = 2**15


class Graphs:
    """The graphs of a run whose user asked for them; where there are none, it says so once.

    Parameters
    ----------
    device : torch.device
        The device of the training.
    is_deterministic : bool, default=False
        Whether the user wants torch's deterministic algorithms, under which nothing is recorded.

    Raises
    ------
    ValueError
        If it is no device whose work can be captured, or nothing is recorded.
    """

    def __init__(self, device: torch.device, *, is_deterministic: bool = False) -> None:
        if is_deterministic:
            raise ValueError(
                "`compile` is 'graph' and `deterministic` is True, but nothing is recorded under "
                "deterministic=True; use compile='auto', or deterministic=False."
            )
        self._capture: Capture | None = graph_capture(device)
        self._has_captured = False

    def of(
        self, recording: Recording, tape: Tape, batch: Batch, known: Sequence[torch.Tensor]
    ) -> Tape:
        """A graph of a tape; the tape itself where it cannot be captured.

        Parameters
        ----------
        recording : Recording
            What the tape was made of.
        tape : callable
            It takes the parts of a batch. It returns a tuple of figures, tensors or numbers, and a
            list of gradients, tensors or None.
        batch : Batch
            The graph is for batches of its shapes.
        known : sequence of Tensor
            All that the tape reads and writes beside the batch.
        """
        obstacle = _obstacle(recording)
        if obstacle is not None:
            self.refuse(obstacle)
        return self._captured(tape, batch, known)

    def renewed(self, graph: Graph, batch: Batch) -> Tape:
        """The graph of the same tape, with room for the figures of more steps."""
        return self._captured(graph.tape, batch, graph.known)

    def _captured(self, tape: Tape, batch: Batch, known: Sequence[torch.Tensor]) -> Tape:
        if self._capture is None:
            return tape
        try:
            graph = Graph(tape, batch, known, self._capture)
        except Exception as error:  # of the device: the step may be one that it cannot capture
            first_line = str(error).partition("\n")[0]
            self.refuse(f"its capture failed with {type(error).__name__}: {first_line}")
            return tape
        self._has_captured = True
        return graph

    def refuse(self, reason: object) -> None:
        """Capture nothing any more, and warn of it, unless that was done before."""
        if self._capture is not None:
            self._capture = None
            warn_user(
                f"`compile` is 'graph', and the training goes on without a graph: {reason}.",
            )

    def report(self) -> None:
        """Warn at the end of a training that had no graph, and no word of the reason."""
        if not self._has_captured:
            self.refuse("no shape of batches came often enough to be recorded")


class Graph:
    """A tape of a step, captured: it takes the parts of a batch, and returns what the tape does.

    The gradients are overwritten by the next call; the figures are not. The device's memory is
    left as it was before the capture, which does the work several times.

    Parameters
    ----------
    tape, batch, known
        As `Graphs.of` has them.
    capture : callable
        It takes work without arguments, and returns a function that does it once more.

    Attributes
    ----------
    is_full : bool
        Whether the figures of no more steps can be kept: it must not be called any more.
    """

    def __init__(
        self, tape: Tape, batch: Batch, known: Sequence[torch.Tensor], capture: Capture
    ) -> None:
        self.tape, self.known = tape, known
        self._inputs = Batch(apply(_buffer, batch.x), *map(_buffer_or_none, batch[1:]))
        self._n_calls = 0
        device = first_of(batch.x).device
        before = Snapshot(tensors=known, devices=[HOST, device])
        try:
            self._fill(batch)
            self._figures, self._gradients = tape(*self._inputs)
            # The number of the call as the device counts it, and a figure of each call.
            self._row = torch.zeros(1, dtype=torch.int64, device=device)
            self._columns = [
                torch.empty(_ROWS, dtype=figure.dtype, device=device)
                if isinstance(figure, torch.Tensor) and not figure.dim()
                else None
                for figure in self._figures
            ]
            self._replay = capture(self._work)
        finally:
            before.restore_changed()
        self._row.zero_()

    @property
    def is_full(self) -> bool:
        return self._n_calls == _ROWS

    def __call__(self, *batch: object) -> object:
        self._fill(Batch(*batch))  # type: ignore[arg-type]
        self._replay()
        row = self._n_calls
        self._n_calls += 1
        figures = []
        for figure, column in zip(self._figures, self._columns, strict=True):
            if column is not None:
                figure = column[row]
            elif isinstance(figure, torch.Tensor):
                figure = figure.clone()
            figures.append(figure)
        return tuple(figures), self._gradients

    def _fill(self, batch: Batch) -> None:
        for buffer, given in zip(_tensors(self._inputs), _tensors(batch), strict=True):
            buffer.copy_(given)

    def _work(self) -> None:
        """All that the device does for a batch, in the same memory each time."""
        self._figures, self._gradients = self.tape(*self._inputs)
        for column, figure in zip(self._columns, self._figures, strict=True):
            if column is not None:
                column.index_copy_(0, self._row, figure.reshape(1))
        self._row.add_(1)


def _tensors(batch: Batch) -> list[torch.Tensor]:
    rest = [tensor for tensor in batch[1:] if tensor is not None]
    return [*tensors_of(batch.x), *rest]


def _buffer(tensor: torch.Tensor) -> torch.Tensor:
    """Memory for tensors of that shape and layout."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def _buffer_or_none(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else _buffer(tensor)


def _obstacle(recording: Recording) -> str | None:
    """Why a device cannot do by itself what was recorded; None where nothing is against it."""
    tensors, operations = recording.tensors, recording.operations
    used = {number for work in operations for number in (*work.inputs, *work.results)}
    devices = sorted({str(tensors[number].device) for number in used})
    if len(devices) > 1:
        return f"it computes on {' and '.join(devices)}"
    given = {_memory(tensor) for tensor in tensors[: recording.n_inputs]}
    written = {_memory(tensors[number]) for work in operations for number in work.written}
    # They would be changed in the graph's memory, and not where they are.
    return None if given.isdisjoint(written) else "it changes its inputs in place"


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
