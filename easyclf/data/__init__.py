"""Sources of batches: whatever people have, as rows of tensors on the device."""

from easyclf.data.base import Batch, Source
from easyclf.data.caching import cached, dataset_labels
from easyclf.data.dataframes import FrameEncoder, is_frame, refuse_columns
from easyclf.data.datasets import (
    Fields,
    carried_labels,
    class_names,
    first_rows,
    has_own_collation,
    is_dataset,
    is_stream,
    length_of,
    shapes_of,
)
from easyclf.data.finite import check_finite
from easyclf.data.formats import InputFormat
from easyclf.data.images import arrangements, likely_arrangement, with_channel
from easyclf.data.loaders import check_options
from easyclf.data.memmap import check_finite_memmap, is_large_memmap
from easyclf.data.multi_input import MultiInput
from easyclf.data.reader import LabelledData, Reader, RowSchema, one_validation
from easyclf.data.rows import Rows, is_loader
from easyclf.data.sparse import check_finite_sparse
from easyclf.data.split import split_rows
from easyclf.data.tensors import as_tensor
from easyclf.data.transforms import Augmentation, Preprocessing, Transform, is_vision

__all__ = [
    "Augmentation",
    "Batch",
    "Fields",
    "FrameEncoder",
    "InputFormat",
    "LabelledData",
    "MultiInput",
    "Preprocessing",
    "Reader",
    "RowSchema",
    "Rows",
    "Source",
    "Transform",
    "arrangements",
    "as_tensor",
    "cached",
    "carried_labels",
    "check_finite",
    "check_finite_memmap",
    "check_finite_sparse",
    "check_options",
    "class_names",
    "dataset_labels",
    "first_rows",
    "has_own_collation",
    "is_dataset",
    "is_frame",
    "is_large_memmap",
    "is_loader",
    "is_stream",
    "is_vision",
    "length_of",
    "likely_arrangement",
    "one_validation",
    "refuse_columns",
    "shapes_of",
    "split_rows",
    "with_channel",
]
