"""Values of known types come back from JSON and tensors; all others are refused.

`EASYCLF_PROPERTIES=1000 python -m pytest tests/test_codec.py` tries a thousand values.
"""

import io
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import make_scorer
from torch import nn

from easyclf import EarlyStopping, Estimator, InvalidFile
from easyclf.codec import CannotBeStored, Decoder, Encoder, known_layers, known_optimizers
from easyclf.documents import read_document, write_document
from easyclf.safetensors import read_tensors, write_tensors

tries = settings(
    max_examples=int(os.environ.get("EASYCLF_PROPERTIES", "15")),
    deadline=None,
    derandomize="EASYCLF_PROPERTIES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
ARRAYS = hnp.arrays(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize and dtype.kind != "V"),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
)
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda part: (
        st.lists(part) | st.tuples(part, part) | st.dictionaries(st.text() | st.integers(), part)
    ),
    max_leaves=8,
)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool])


def through_file(value):
    encoder = Encoder()
    document = read_document(write_document(encoder.encode(value)))
    return Decoder(read_tensors(write_tensors(encoder.tensors))[0]).decode(document)


def same(value, other):
    if type(value) is not type(other):
        return False
    if isinstance(value, np.ndarray | np.generic):
        is_alike = (value.dtype, value.shape) == (other.dtype, other.shape)
        if value.dtype.kind in "UO":
            return is_alike and np.asarray(value).tolist() == np.asarray(other).tolist()
        return is_alike and value.tobytes() == other.tobytes()
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, dict):
        return same(list(value.items()), list(other.items()))
    return repr(value) == repr(other)


@tries
@given(VALUES)
def test_any_value_of_known_types_comes_back(value):
    assert same(through_file(value), value)


@tries
@given(
    DTYPES,
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    st.integers(0, 2**32 - 1),
)
def test_tensors_of_any_dtype_and_shape_come_back(dtype, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    tensor = (torch.randn(shape, generator=generator) * 5).to(dtype)

    other = through_file({"a": tensor, "b": [tensor.t() if tensor.ndim == 2 else tensor]})

    assert other["a"].dtype == dtype
    assert torch.equal(other["a"], tensor)
    assert torch.equal(other["b"][0].t() if tensor.ndim == 2 else other["b"][0], tensor)


LABELS = st.one_of(
    *(
        st.lists(part, min_size=2, max_size=6, unique=True)
        for part in (
            st.integers(-(2**62), 2**62),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
            st.binary(min_size=1).filter(lambda label: not label.endswith(b"\0")),
            st.integers(-(2**40), 2**40).map(float),
        )
    ),
    st.just([False, True]),
)


@tries
@given(labels=LABELS, width=st.integers(1, 5), is_wide=st.booleans(), seed=st.integers(0, 99))
def test_estimators_of_any_labels_and_shapes_come_back(tmp_path, labels, width, is_wide, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2 * len(labels), width)).astype(np.float64 if is_wide else np.float32)
    clf = Estimator(module__hidden=(2,), epochs=1, random_state=seed, compile=False)
    clf.fit(X, np.asarray(labels * 2))

    clf.save(tmp_path / "clf.easyclf")
    other = Estimator.load(tmp_path / "clf.easyclf")

    assert same(other.classes_, clf.classes_)
    assert np.array_equal(clf.predict_proba(X), other.predict_proba(X))
    assert same(clf.predict(X), other.predict(X))
    before = clf.partial_fit(X, np.asarray(labels * 2)).predict_proba(X)
    assert np.array_equal(before, other.partial_fit(X, np.asarray(labels * 2)).predict_proba(X))


@pytest.mark.parametrize(
    "value",
    [
        *(object(), lambda x: x, EarlyStopping(), make_scorer(len), io.StringIO(), {1, 2}),
        *([1, (2, {"a": object()})], np.array([object()]), nn.Linear(1, 1), nn.MSELoss()),
        *(np.zeros(2, dtype=[("a", int)]), torch.eye(2).to_sparse().values, EarlyStopping),
        type("Weights", (nn.CrossEntropyLoss,), {})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused(value):
    with pytest.raises(CannotBeStored):
        Encoder().encode(value)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "name", "name": "os.system"},
        {"type": "name", "name": ["torch.relu"]},
        {"type": "__class__"},
        {"type": ["name"]},
        {},
        {"type": "tensor", "tensor": "7"},
        {"type": "tuple", "items": 3},
        {"type": "device", "name": 3},
        {"type": "array", "dtype": "O8", "shape": [1], "items": [1]},
        {"type": "array", "dtype": "|V8", "shape": [1], "tensor": "0"},
        {"type": "array", "dtype": "<U99999999", "shape": [2], "items": ["a", "b"]},
        {"type": "array", "dtype": "|u1", "shape": [-1], "tensor": "0"},
        {"type": "array", "dtype": "|u1", "shape": 4, "tensor": "0"},
        {"type": "array", "dtype": "|b1", "shape": [4], "tensor": "0"},
        {
            "type": "random_state",
            "state": [
                "MT19937",
                {"type": "array", "dtype": "<u4", "shape": [624], "tensor": "1"},
                *(10**6, 0, 0.0),
            ],
        },
        {"type": "loss", "class": "torch.nn.Linear", "fields": []},
    ],
    ids=lambda part: str(part)[:60],
)
def test_other_descriptions_are_refused(part):
    with pytest.raises(InvalidFile):
        Decoder({"0": torch.full((4,), 2).byte(), "1": torch.zeros(4 * 624).byte()}).decode(part)


def test_names_are_those_of_classes_that_torch_and_easyclf_provide():
    assert {"torch.nn.Linear", "easyclf.MLP"} <= known_layers().keys()
    assert all(issubclass(layer, nn.Module) for layer in known_layers().values())
    assert "torch.optim.SGD" in known_optimizers()
    assert "torch.optim.Optimizer" not in known_optimizers()
