"""The format in which a module wants its inputs: device, dtype, order of dimensions, transforms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from easyclf.data.base import Batch
from easyclf.data.images import arrangements, likely_arrangement, with_channel
from easyclf.data.transforms import Augmentation, Preprocessing, Transform
from easyclf.device import has_float64, to_device
from easyclf.nested import Shapes, Tensors, apply, like, named_tensors


@dataclass(frozen=True)
class InputFormat:
    """Where and as what a module wants its inputs.

    Attributes
    ----------
    device : torch.device
        Where they go.
    dtype : torch.dtype
        The dtype of numbers.
    copies : bool
        Set for a module that changes its input in place: it gets a copy, never the user's array.
    loss_dtype : torch.dtype
        That of the losses, which are multiplied by the weights of the rows.
    memory_format : torch.memory_format
        The order of the numbers of a batch in memory.
    tokens : tuple
        Names or places of the inputs that stay integers, to be looked up; None is the only input.
    arrange : callable or None
        Puts the dimensions of images in torch's order.
    centre : Tensor of float64 of shape (n_features,), or None
        What is subtracted from the one input before it is cast, on the CPU.
    warns_of_rounding : bool
        Whether a column in which a cast makes different values one is to be warned of.
    preprocess : Preprocessing or None
        The user's own transform of every batch.
    augment : Augmentation or None
        The user's own transform of the batches of the training.
    """

    device: torch.device
    dtype: torch.dtype
    copies: bool = False
    loss_dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.preserve_format
    tokens: tuple[str | int | None, ...] = ()
    arrange: Transform | None = None
    centre: torch.Tensor | None = None
    warns_of_rounding: bool = False
    preprocess: Preprocessing | None = None
    augment: Augmentation | None = None

    def __getstate__(self) -> dict[str, object]:
        # Below protocol 4, which torch.save uses, pickle cannot write a memory format.
        return {**vars(self), "memory_format": str(self.memory_format).removeprefix("torch.")}

    def __setstate__(self, state: dict[str, object]) -> None:
        name = state["memory_format"]
        assert isinstance(name, str)
        self.__dict__.update(state | {"memory_format": getattr(torch, name)})

    @classmethod
    def of_transforms(
        cls,
        device: torch.device,
        dtype: torch.dtype,
        *,
        preprocess: Transform | None = None,
        augment: Transform | None = None,
    ) -> InputFormat:
        """Make the format of a fit from the user's `preprocess` and `augment`.

        `dtype` is that of the module and of its losses.
        """
        return cls(
            device,
            dtype,
            loss_dtype=dtype,
            preprocess=None if preprocess is None else Preprocessing(preprocess, device),
            augment=None if augment is None else Augmentation(augment, device),
        )

    @property
    def is_plain(self) -> bool:
        """Whether rows need no more than another device, dtype or memory format."""
        return self.preprocess is None and self.augment is None

    @property
    def casts_alone(self) -> bool:
        """Whether rows need no more than another device and dtype, and perhaps to be centred."""
        return self.is_plain and self.arrange is None

    @property
    def is_vision(self) -> bool:
        """Whether rows go through transforms of torchvision's first."""
        return any(part is not None and part.is_vision for part in (self.augment, self.preprocess))

    @property
    def adds_channel(self) -> bool:
        """Whether rows of two dimensions are taken for images of one channel."""
        return self.arrange is with_channel

    def without_augment(self) -> InputFormat:
        """Make the format of validation and prediction."""
        return replace(self, augment=None)

    def on(self, device: torch.device) -> InputFormat:
        """Make the same format for another device."""
        preprocess = None if self.preprocess is None else self.preprocess.to(device)
        augment = None if self.augment is None else self.augment.to(device)
        return replace(self, device=device, preprocess=preprocess, augment=augment)

    def row_shape(self, rows: Tensors) -> Shapes:
        """Predict the shape of a row as the module will get it, which its sizes are filled from.

        `rows` are a few rows of shape (n_rows, ...), before they are arranged or transformed.
        """
        arrange = None
        is_image = isinstance(rows, torch.Tensor) and rows.ndim == 4
        if is_image and (self.preprocess is None or self.is_vision):
            arrange = likely_arrangement(rows.shape[1:])  # type: ignore[union-attr]
        return self._shape_after(rows, arrange)

    def candidates(self, rows: Tensors, module: nn.Module, *, is_lazy: bool) -> list[InputFormat]:
        """List the formats to try on a module, which differ in the order of dimensions.

        `rows` are a few rows of shape (n_rows, ...), before they are arranged or transformed. The
        first format is the likeliest; none has an `augment`. `is_lazy` says that layers of the
        module have no sizes yet.
        """
        plain = self.without_augment()
        if not isinstance(rows, torch.Tensor):
            return [replace(plain, arrange=None)]
        ways = arrangements(rows.shape[1:], module, is_vision=self.is_vision)
        if is_lazy:
            # A lazy layer takes its sizes from the first batch that comes.
            ways = [ways[0] if self._leaves_arranging(rows) else None]
        return [replace(plain, arrange=arrange) for arrange in ways]

    def _leaves_arranging(self, rows: torch.Tensor) -> bool:
        """Whether the user's own `preprocess` leaves it to easyclf to put the channels first."""
        if self.preprocess is None or self.is_vision:
            return True
        prepared = replace(self.without_augment(), arrange=None).prepared(rows, is_own=False)
        if not isinstance(prepared, torch.Tensor):
            return False
        return likely_arrangement(prepared.shape[1:]) is not None

    def _shape_after(self, rows: Tensors, arrange: Transform | None) -> Shapes:
        tried = replace(self.without_augment(), arrange=arrange)
        shape: Shapes = apply(lambda x: tuple(x.shape[1:]), tried.prepared(rows, is_own=False))
        return shape

    def dtype_of(self, name: str | int | None, x: torch.Tensor) -> torch.dtype:
        """Choose the dtype in which the module gets an input of shape (n_rows, ...)."""
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
        """Make a batch as the module wants it, of inputs of shape (n_rows, ...).

        `is_own` says that `x` shares no memory with the user's array. Else the batch may share it,
        unless the module or a transform could write to it.
        """
        if self.is_plain:
            if isinstance(x, torch.Tensor):
                return Batch(self._placed(None, x, is_own=is_own), y, weight)
            placed = [self._placed(name, part, is_own=is_own) for name, part in named_tensors(x)]
            return Batch(like(x, placed), y, weight)
        prepared = self.prepared(x, is_own=is_own)
        final = like(prepared, [self._cast(name, part) for name, part in named_tensors(prepared)])
        if self.augment is not None and y is not None:
            final, y = self.augment.mixed(final, y)
        return Batch(final, y, weight)

    def prepared(self, x: Tensors, *, is_own: bool) -> Tensors:
        """Move inputs of shape (n_rows, ...) to the device, arrange and transform them.

        They keep the dtypes that the transforms gave them. The memory is new.
        """
        # A transform that works in place works on a copy.
        prepared: Tensors = apply(
            lambda part: to_device(part if is_own else part.clone(), self.device), x
        )
        if self.arrange is not None:
            prepared = self.arrange(prepared)
        if self.augment is not None:
            prepared = self.augment.inputs(prepared)
        if self.preprocess is not None:
            prepared = self.preprocess(prepared)
        return prepared

    def _placed(self, name: str | int | None, x: torch.Tensor, *, is_own: bool) -> torch.Tensor:
        """Move, arrange and cast one input that is not transformed."""
        dtype, placed, is_centred = self.dtype_of(name, x), x, self.centre is None
        if x.device != self.device:
            if self.arrange is None:
                placed, is_centred = self._centred(x), True
            if is_centred and dtype.itemsize < placed.dtype.itemsize:
                # What becomes smaller becomes so before it is moved.
                placed = placed.to(dtype)
            placed = to_device(placed, self.device, is_own=is_own or placed is not x)
        if self.arrange is not None:
            placed = self.arrange(placed)
        if not is_centred:
            placed = self._centred(placed)
        if placed.dtype != dtype or self.memory_format is not torch.preserve_format:
            placed = placed.to(dtype, memory_format=self.memory_format)
        shares = self.copies and not is_own and placed.data_ptr() == x.data_ptr()
        return placed.clone() if shares else placed

    def _cast(self, name: str | int | None, x: torch.Tensor) -> torch.Tensor:
        x = self._centred(x)
        return x.to(self.dtype_of(name, x), memory_format=self.memory_format)

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        """Subtract the centre from rows of shape (n_rows, ...), in float64."""
        if self.centre is None:
            return x
        centre = self.centre.reshape(x.shape[1:])
        if has_float64(x.device):
            return x.double() - to_device(centre, x.device)
        high = centre.float()
        low = (centre - high).float()
        return x.float() - to_device(high, x.device) - to_device(low, x.device)
