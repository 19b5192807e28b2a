"""The kinds of X. To add one, write its file and add a line here."""

from __future__ import annotations

from easyclf.data.dataframes import read_frame
from easyclf.data.datasets import read_dataset
from easyclf.data.first_look import is_dataset, is_loader, is_stream
from easyclf.data.frame_encoder import is_frame
from easyclf.data.loaders import read_loader
from easyclf.data.memmap import is_large_memmap, read_memmap
from easyclf.data.multi_input import is_multi_input, read_multi_input
from easyclf.data.rows import Kind
from easyclf.data.sparse import is_sparse, read_sparse
from easyclf.data.streams import read_stream
from easyclf.data.tensors import is_array_like, is_tensor, read_array, read_tensor

# The first that takes X reads it, so a kind stands before those that it is a special case of.
KINDS = (
    Kind(is_loader, read_loader, holds_labels=True),
    Kind(is_stream, read_stream, holds_labels=True),
    Kind(is_dataset, read_dataset, holds_labels=True),
    Kind(is_sparse, read_sparse),
    Kind(is_multi_input, read_multi_input),
    Kind(is_tensor, read_tensor),
    Kind(is_large_memmap, read_memmap),
    Kind(is_frame, read_frame),
    Kind(is_array_like, read_array),
)


def kind_of(X: object) -> Kind:
    """Find the kind of X; what is unknown is read as an array, which may refuse it."""
    return next(kind for kind in KINDS if kind.takes(X))
