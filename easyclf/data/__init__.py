"""Sources of batches: whatever people have, as rows of tensors on the device."""

from easyclf.data.base import Batch, Placement, Source
from easyclf.data.dataframes import refuse_columns
from easyclf.data.datasets import (
    carried_labels,
    class_names,
    dataset_labels,
    first_rows,
    is_dataset,
)
from easyclf.data.rows import Rows
from easyclf.data.sparse import check_finite_sparse
from easyclf.data.split import split_rows
from easyclf.data.tensors import as_tensor, check_finite

__all__ = [
    "Batch",
    "Placement",
    "Rows",
    "Source",
    "as_tensor",
    "carried_labels",
    "check_finite",
    "check_finite_sparse",
    "class_names",
    "dataset_labels",
    "first_rows",
    "is_dataset",
    "refuse_columns",
    "split_rows",
]
