"""Sources of batches: rows of any kind of `X`, as tensors on the device."""

from easyclf.data.base import Batch, Order, Source
from easyclf.data.bounded import BoundedSource, check_validation
from easyclf.data.formats import InputFormat
from easyclf.data.holdout import Holdout, SplitLike
from easyclf.data.multi_input import MultiInput
from easyclf.data.reader import Reader
from easyclf.data.rows import Rows
from easyclf.data.schema import RowSchema
from easyclf.data.slices import SliceDataset
from easyclf.data.storing import describe_format, describe_schema, make_format, make_schema

__all__ = [
    "Batch",
    "BoundedSource",
    "Holdout",
    "InputFormat",
    "MultiInput",
    "Order",
    "Reader",
    "RowSchema",
    "Rows",
    "SliceDataset",
    "Source",
    "SplitLike",
    "check_validation",
    "describe_format",
    "describe_schema",
    "make_format",
    "make_schema",
]
