"""Formats and schemas as plain values, which a file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from easyclf.data.formats import InputFormat
from easyclf.data.frame_encoder import FrameEncoder
from easyclf.data.images import channels_to_front, with_channel
from easyclf.data.schema import RowSchema
from easyclf.data.transforms import Transform
from easyclf.device import HOST

Plain = dict[str, Any]
_ARRANGEMENTS: dict[str, Transform | None] = {
    "as they are": None,
    "channels to front": channels_to_front,
    "with channel": with_channel,
}


def describe_format(input_format: InputFormat) -> Plain:
    """Describe a format without its transforms; it only says that there is a `preprocess`."""
    names = {arrange: name for name, arrange in _ARRANGEMENTS.items()}
    return {
        "dtype": input_format.dtype,
        "copies": input_format.copies,
        "loss_dtype": input_format.loss_dtype,
        "memory_format": input_format.memory_format,
        "tokens": input_format.tokens,
        "arrange": names[input_format.arrange],
        "centre": input_format.centre,
        "warns_of_rounding": input_format.warns_of_rounding,
        "is_preprocessed": input_format.preprocess is not None,
    }


def make_format(described: Mapping[str, Any], preprocess: Transform | None) -> InputFormat:
    """Make the format on the host that `describe_format` described, with the user's transform."""
    plain = InputFormat.of_transforms(HOST, described["dtype"], preprocess=preprocess)
    centre = described["centre"]
    if not (centre is None or (isinstance(centre, torch.Tensor) and centre.ndim == 1)):
        raise ValueError("the centre of the columns is no row of numbers")
    return replace(
        plain,
        copies=bool(described["copies"]),
        loss_dtype=described["loss_dtype"],
        memory_format=described["memory_format"],
        tokens=tuple(described["tokens"]),
        arrange=_ARRANGEMENTS[described["arrange"]],
        centre=centre,
        warns_of_rounding=bool(described["warns_of_rounding"]),
    )


def describe_schema(schema: RowSchema) -> Plain:
    """Describe what rows have to look like."""
    encoder = schema.frame_encoder
    return {
        "shape": _as_plain(schema.shape),
        "is_fixed": schema.is_fixed,
        "names": None if schema.names is None else dict(schema.names),
        "frame_encoder": None if encoder is None else encoder.learned(),
    }


def make_schema(described: Mapping[str, Any]) -> RowSchema:
    """Make the schema that `describe_schema` described."""
    learned = described["frame_encoder"]
    return RowSchema(
        described["shape"],
        bool(described["is_fixed"]),
        None if learned is None else FrameEncoder.of_learned(learned),
        described["names"],
    )


def _as_plain(shape: Any) -> Any:
    """A shape, or several, without classes of torch's."""
    if isinstance(shape, dict):
        return {name: _as_plain(part) for name, part in shape.items()}
    return tuple(_as_plain(part) if isinstance(part, tuple) else int(part) for part in shape)
