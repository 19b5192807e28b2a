"""NumPy arrays as tensors."""

import warnings

import numpy as np
import pytest
import torch

from easyclf.data.arrays import READ_ONLY_WARNING, as_tensor, dtype_name

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        X,
        read_only(X),
        np.asfortranarray(X),
        X[::2],
        X[::-1],
        X[:, ::-1],
        X.astype(">f4"),
        X.astype(">i8"),
        X.astype("f8"),
        X.astype("f2"),
        X.astype("u1"),
        X.astype("u2"),
        X.astype("u8"),
        X.astype("i2"),
        X.astype(bool),
        X.astype(np.longdouble),
    ],
    ids=lambda array: f"{array.dtype.str}{array.strides}",
)
def test_a_tensor_has_the_values_of_its_array(array):
    assert as_tensor(array).tolist() == array.tolist()


@pytest.mark.parametrize("array", [X, read_only(X), np.asfortranarray(X), X[1:], X.astype("u1")])
def test_a_tensor_shares_the_memory_of_an_array_that_torch_can_read(array):
    assert as_tensor(array).data_ptr() == array.ctypes.data


def test_the_warning_that_is_silenced_is_torchs():
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.from_numpy(read_only(X))
    finally:
        torch.set_warn_always(False)

    assert [str(warning.message).startswith(READ_ONLY_WARNING) for warning in caught] == [True]


@pytest.mark.parametrize("name", ["float16", "float32", "int64", "bool", "uint8"])
def test_dtypes_have_the_names_that_numpy_gives_them(name):
    assert dtype_name(getattr(torch, name)) == np.dtype(name).name
