"""What stands in for tapes where torch lacks the private names that they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from easyclf.data import Batch
from easyclf.tape.graph import Graphs


class NoTapes:
    """Tapes that never play: it takes what `Tapes` takes."""

    def __init__(
        self,
        module: nn.Module,
        head: object,
        *,
        is_on: bool = True,
        is_exposed: bool = False,
        graphs: Graphs | None = None,
    ) -> None:
        if graphs is not None:
            graphs.refuse("this version of torch lacks what recordings need")

    def of(
        self,
        function: Callable[[Batch], Any],
        *,
        training: bool,
        n_calls: int,
    ) -> NoPlayer:
        """A player that never plays."""
        return NoPlayer()

    def update_of(self, optimizer: torch.optim.Optimizer) -> NoUpdate:
        """An update that leaves everything to `optimizer.step`."""
        return NoUpdate()

    def expose(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """There is nothing to look at."""

    def check(self, *, is_exposed: bool = True) -> None:
        """There is nothing that could be out of date."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def progress(self) -> list[dict[str, Any]]:
        """No player is anywhere."""
        return []

    def go_on_from(self, progress: Sequence[Mapping[str, Any]]) -> None:
        """There is nothing to go on with."""


class NoPlayer:
    """A player without tapes."""

    def play(self, batch: Batch) -> None:
        """There is no tape for any batch."""

    def own(self, gradients: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """The gradients, of any shapes: nobody else writes to them."""
        return gradients


class NoUpdate:
    """An update that only `optimizer.step` can do."""

    def __call__(self, gradients: Sequence[torch.Tensor | None]) -> bool:
        """Nothing was done."""
        return False
