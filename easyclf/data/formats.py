"""Where and as what a module wants its inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from easyclf.data.base import Batch
from easyclf.data.transforms import Augmentation, Transform
from easyclf.nested import Tensors, apply, like, named_tensors


class InputFormat(NamedTuple):
    """Where and as what the module wants its inputs.

    Attributes
    ----------
    device : torch.device
        Where they go.
    dtype : torch.dtype
        The dtype of numbers.
    copies : bool
        Set for a module that changes its input in place, so that it never reaches the user's own
        array.
    weight_dtype : torch.dtype
        That of the losses, which the weights of the rows meet.
    memory_format : torch.memory_format
        The order of the numbers of a batch in memory.
    tokens : tuple
        Names or places of the inputs that stay integers, to be looked up; None is the only input.
    arrange : callable or None
        Puts the dimensions of images in torch's order.
    preprocess : callable or None
        The user's own, for every batch.
    augment : Augmentation or None
        The user's own, for batches of the training.
    """

    device: torch.device
    dtype: torch.dtype
    copies: bool = False
    weight_dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.preserve_format
    tokens: tuple[Any, ...] = ()
    arrange: Transform | None = None
    preprocess: Transform | None = None
    augment: Augmentation | None = None

    @property
    def is_plain(self) -> bool:
        """Whether rows need no more than another device, dtype or layout."""
        return self.preprocess is None and self.augment is None

    def dtype_of(self, name: Any, x: torch.Tensor) -> torch.dtype:
        """The dtype in which the module gets an input."""
        if name not in self.tokens:
            return self.dtype
        # Numbers that happened to be whole in `fit` may have fractions later.
        is_whole = not x.is_floating_point() or torch.equal(x, x.round())
        return torch.int64 if is_whole else self.dtype

    def batch(
        self,
        x: Tensors,
        y: torch.Tensor | None,
        weight: torch.Tensor | None,
        *,
        is_own: bool,
    ) -> Batch:
        """A batch as the module wants it.

        `is_own` says that `x` shares no memory with the user's array.
        """
        if self.is_plain:
            if isinstance(x, torch.Tensor):
                return Batch(self._placed(None, x, is_own=is_own), y, weight)
            placed = [self._placed(name, one, is_own=is_own) for name, one in named_tensors(x)]
            return Batch(like(x, placed), y, weight)
        prepared = self.prepared(x, is_own=is_own)
        final = like(prepared, [self._cast(name, one) for name, one in named_tensors(prepared)])
        if self.augment is not None and y is not None:
            final, y = self.augment.mixed(final, y)
        return Batch(final, y, weight)

    def prepared(self, x: Tensors, *, is_own: bool) -> Tensors:
        """Inputs on the device, arranged and transformed, in the dtypes that this left them."""
        # What works in place works on a copy.
        prepared: Tensors = apply(lambda one: self._moved(one if is_own else one.clone()), x)
        if self.arrange is not None:
            prepared = self.arrange(prepared)
        if self.augment is not None:
            prepared = self.augment.inputs(prepared)
        if self.preprocess is not None:
            prepared = self.preprocess(prepared)
        return prepared

    def _placed(self, name: Any, x: torch.Tensor, *, is_own: bool) -> torch.Tensor:
        if self.device.type == "cpu" and self.arrange is None:
            placed = x.to(self.device, self.dtype_of(name, x), memory_format=self.memory_format)
        else:
            moved = self._moved(x)
            placed = self._cast(name, moved if self.arrange is None else self.arrange(moved))
        shares = self.copies and not is_own and placed.data_ptr() == x.data_ptr()
        return placed.clone() if shares else placed

    def _moved(self, x: torch.Tensor) -> torch.Tensor:
        """On the device: with CUDA the host need not wait for a copy from pinned memory."""
        if self.device.type == "cuda" and x.is_cpu:
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)

    def _cast(self, name: Any, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype_of(name, x), memory_format=self.memory_format)
