"""What `fit` and `predict` accept as rows, labels, weights and validation data."""

import io
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from easyclf import Estimator

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def counts(blobs):
    """Rows of small whole numbers, which every dtype can hold, and their labels."""
    X, y = blobs
    return np.clip(X.round(), 0, 5).astype(np.float32), y


def estimator(network, **parameters):
    keywords = {"optimizer": "sgd", "lr": 0.1, "epochs": 3, "batch_size": 8, "random_state": 0}
    return Estimator(network, **{**keywords, **parameters})


def weights(clf):
    return [weight.tolist() for weight in clf.module_.state_dict().values()]


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def memory_mapped(X):
    file = io.BytesIO()
    np.save(file, X)
    return np.frombuffer(file.getvalue()[-X.nbytes :], dtype=X.dtype).reshape(X.shape)


def needing_gradients(X):
    return torch.from_numpy(X.copy()).requires_grad_()


SAME_NUMBERS = {
    "list": lambda X: X.tolist(),
    "tuple": lambda X: tuple(map(tuple, X.tolist())),
    "list of arrays": list,
    "float64": lambda X: X.astype(np.float64),
    "float16": lambda X: X.astype(np.float16),
    "longdouble": lambda X: X.astype(np.longdouble),
    **{
        name: lambda X, name=name: X.astype(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    "object": lambda X: X.astype(object),
    "big-endian": lambda X: X.astype(">f4"),
    "big-endian integers": lambda X: X.astype(">i4"),
    "read-only": read_only,
    "read-only buffer": memory_mapped,
    "Fortran order": np.asfortranarray,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "reversed rows": lambda X: X[::-1].copy()[::-1],
    "reversed columns": lambda X: X[:, ::-1].copy()[:, ::-1],
    "masked nowhere": lambda X: np.ma.masked_array(X),
    "pandas": lambda X: pd.DataFrame(X, columns=NAMES),
    "pandas float64": lambda X: pd.DataFrame(X.astype(np.float64), columns=NAMES),
    "pandas mixed": lambda X: pd.DataFrame(X, columns=NAMES).astype({"a": int, "b": "uint8"}),
    "pandas numbered columns": pd.DataFrame,
    "pandas nullable": lambda X: pd.DataFrame(X, columns=NAMES).convert_dtypes(),
    "pandas sparse": lambda X: pd.DataFrame(X, columns=NAMES).astype(pd.SparseDtype(float, 0.0)),
    "polars": lambda X: pl.DataFrame(X, schema=NAMES),
    "polars mixed": lambda X: pl.DataFrame(X, schema=NAMES).cast({"a": pl.Int64, "b": pl.UInt8}),
    "tensor": lambda X: torch.from_numpy(X),
    "tensor float64": lambda X: torch.from_numpy(X).double(),
    "tensor bfloat16": lambda X: torch.from_numpy(X).bfloat16(),
    "tensor int64": lambda X: torch.from_numpy(X).long(),
    "tensor not contiguous": lambda X: torch.from_numpy(X.T.copy()).T,
    "tensor needing gradients": needing_gradients,
    "parameter": lambda X: nn.Parameter(torch.from_numpy(X.copy())),
    **{
        f"{name} {dtype}": lambda X, kind=kind, dtype=dtype: kind(X.astype(dtype))
        for name, kind in {
            "csr_array": sp.csr_array,
            "csc_array": sp.csc_array,
            "coo_array": sp.coo_array,
            "csr_matrix": sp.csr_matrix,
            "csc_matrix": sp.csc_matrix,
            "coo_matrix": sp.coo_matrix,
            "lil_array": sp.lil_array,
        }.items()
        for dtype in ("float32", "float64", "int64")
    },
}


@pytest.mark.parametrize("kind", SAME_NUMBERS)
def test_the_same_numbers_in_another_form_give_the_same_fit_and_predictions(kind, counts, network):
    X, y = counts
    expected = estimator(network).fit(X, y)
    given = SAME_NUMBERS[kind](X)

    clf = estimator(network).fit(given, y)

    assert weights(clf) == weights(expected)
    # A matrix product of columns that lie apart may differ in the last bit.
    np.testing.assert_allclose(clf.predict_proba(given), expected.predict_proba(X), rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(given), expected.predict(X))


@pytest.mark.parametrize("kind", ["bool", "tensor bool", "pandas bool", "pandas boolean", "polars"])
def test_bools_are_zeros_and_ones(kind, counts, network):
    X, y = counts[0] > 0, counts[1]
    expected = estimator(network).fit(X.astype(np.float32), y).predict_proba(X.astype(np.float32))
    given = {
        "bool": lambda: X,
        "tensor bool": lambda: torch.from_numpy(X),
        "pandas bool": lambda: pd.DataFrame(X, columns=NAMES),
        "pandas boolean": lambda: pd.DataFrame(X, columns=NAMES).convert_dtypes(),
        "polars": lambda: pl.DataFrame(X, schema=NAMES),
    }[kind]()

    proba = estimator(network).fit(given, y).predict_proba(given)

    np.testing.assert_allclose(proba, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_memory_mapped_file_is_rows(mode, tmp_path, blobs, network):
    X, y = blobs
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode=mode)

    clf = estimator(network).fit(mapped, y)

    np.testing.assert_array_equal(
        clf.predict_proba(mapped), estimator(network).fit(X, y).predict_proba(X)
    )


def test_a_tensor_that_needs_gradients_gets_none(blobs, network):
    X = needing_gradients(blobs[0])

    estimator(network).fit(X, blobs[1]).predict(X)

    assert X.grad is None


@pytest.mark.gpu
def test_a_tensor_on_a_gpu_is_as_one_on_the_host(blobs, network):
    X, y = blobs
    expected = estimator(network, device="cpu").fit(X, y).predict_proba(X)
    on_gpu = torch.from_numpy(X).cuda()

    clf = estimator(network, device="cpu").fit(on_gpu, torch.from_numpy(y).cuda())

    np.testing.assert_array_equal(clf.predict_proba(on_gpu), expected)


SAME_LABELS = {
    "list": list,
    "int8": np.int8,
    "uint64": np.uint64,
    "float64": np.float64,
    "object": lambda y: y.astype(object),
    "column": lambda y: y[:, None],
    "tensor": torch.from_numpy,
    "tensor of floats": lambda y: torch.from_numpy(y).float(),
    "pandas": pd.Series,
    "pandas nullable": lambda y: pd.Series(y).convert_dtypes(),
    "pandas with an index": lambda y: pd.Series(y, index=range(100, 130)),
    "pandas categorical": lambda y: pd.Series(pd.Categorical(y)),
    "pandas frame": lambda y: pd.DataFrame({"label": y}),
    "polars": pl.Series,
    "polars frame": lambda y: pl.DataFrame({"label": y}),
}


@pytest.mark.parametrize("kind", SAME_LABELS)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_the_same_labels_in_another_form_give_the_same_fit(kind, blobs, network):
    X, y = blobs
    expected = estimator(network).fit(X, y).predict_proba(X)
    given = SAME_LABELS[kind](y)

    clf = estimator(network).fit(X, given)

    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    np.testing.assert_array_equal(clf.classes_, [0, 1, 2])
    assert clf.score(X, given) == np.mean(expected.argmax(1) == y)


@pytest.mark.parametrize("make", [list, np.float32, torch.from_numpy, pd.Series, pl.Series])
def test_the_same_weights_in_another_form_give_the_same_fit(make, blobs, network):
    X, y = blobs
    weight = np.linspace(0.5, 2.0, 30).astype(np.float32).astype(np.float64)
    expected = estimator(network).fit(X, y, weight)

    clf = estimator(network).fit(X, y, make(weight))

    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    assert clf.score(X, y, make(weight)) == expected.score(X, y, weight)


@pytest.mark.parametrize("shape", [(4,), (1, 6, 6), (3, 8), (2, 3, 2, 2)])
def test_rows_have_any_number_of_dimensions(shape):
    X = np.random.default_rng(0).normal(size=(12, *shape))
    y = np.arange(12) % 2

    clf = Estimator(epochs=2, lr=0.01, module__hidden=(4,), random_state=0).fit(X, y)

    assert clf.predict_proba(X).shape == (12, 2)
    np.testing.assert_allclose(
        clf.predict_proba(X),
        Estimator(epochs=2, lr=0.01, module__hidden=(4,), random_state=0)
        .fit(X.reshape(12, -1), y)
        .predict_proba(X.reshape(12, -1)),
        rtol=1e-5,
    )


def test_pixels_are_the_same_as_uint8_and_as_floats():
    X = np.random.default_rng(0).integers(0, 256, size=(12, 1, 5, 5), dtype=np.uint8)
    y = np.arange(12) % 2
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2))

    pixels, floats = (
        estimator(convolution, lr=1e-4).fit(x, y).predict_proba(x)
        for x in (X, X.astype(np.float32))
    )

    np.testing.assert_array_equal(pixels, floats)


@pytest.mark.parametrize(
    "make",
    [
        lambda X, y: {"validation_data": (X, y)},
        lambda X, y: {"validation_data": [X, y]},
        lambda X, y: {"validation_data": (X.tolist(), y.tolist())},
        lambda X, y: {"validation_data": (X, y, np.ones(10))},
        lambda X, y: {"X_val": X, "y_val": y},
        lambda X, y: {"X_val": X, "y_val": y, "sample_weight_val": np.ones(10)},
        lambda X, y: {"validation_data": tensors(X, y)},
        lambda X, y: {"validation_data": DataLoader(tensors(X, y), batch_size=3)},
    ],
)
def test_validation_data_in_any_form_give_the_same_figures(make, blobs, network):
    X, y = blobs

    clf = estimator(network).fit(X[:20], y[:20], **make(X[20:], y[20:]))

    expected = estimator(network).fit(X[:20], y[:20], validation_data=(X[20:], y[20:]))
    for name in ("val_loss", "val_accuracy"):
        np.testing.assert_allclose(clf.history_[name], expected.history_[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        (lambda X, y: {"validation_data": (X, y), "X_val": X}, "`validation_data` and `X_val`"),
        (lambda X, y: {"validation_data": (X, y), "y_val": y}, "two names of one"),
        (lambda X, y: {"y_val": y}, "without `X_val`"),
        (lambda X, y: {"X_val": X}, "y_val"),
        (lambda X, y: {"validation_data": (X,)}, r"tuple of length 1; expected \(X, y\)"),
        (lambda X, y: {"validation_data": X}, r"ndarray; expected \(X, y\)"),
        (lambda X, y: {"validation_data": (X[:, :3], y)}, "3 features.*expecting 4"),
        (lambda X, y: {"validation_data": (X[:5], y)}, "5.*30"),
        (lambda X, y: {"validation_data": (X, y + 5)}, r"\[5, 6, 7\].*known are \[0, 1, 2\]"),
    ],
)
def test_validation_data_that_make_no_sense_are_refused(keywords, words, blobs, network):
    with pytest.raises(ValueError, match=words):
        estimator(network).fit(*blobs, **keywords(*blobs))


def tensors(X, y, *more):
    return TensorDataset(torch.from_numpy(X), torch.from_numpy(y), *map(torch.from_numpy, more))


def test_columns_are_known_by_their_names(blobs, network):
    X, y = pd.DataFrame(blobs[0], columns=NAMES), blobs[1]

    clf = estimator(network).fit(X, y)

    assert clf.n_features_in_ == 4
    assert clf.feature_names_in_.tolist() == NAMES
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*same order"):
        clf.predict(X[NAMES[::-1]])


@pytest.mark.parametrize("make", [lambda X, y: (X, y), lambda X, y: (tensors(X, y),)])
def test_names_are_forgotten_with_the_fit_that_had_them(make, blobs, network):
    clf = estimator(network).fit(pd.DataFrame(blobs[0], columns=NAMES), blobs[1])

    clf.fit(*make(*blobs))

    assert not hasattr(clf, "feature_names_in_")
    assert clf.predict(blobs[0]).shape == (30,)


class AddsOneInPlace(nn.Module):
    """Changes the batch that it is given, and what it is given in evaluation too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.add_(1).relu_())


@pytest.mark.parametrize(
    "make",
    [
        lambda X: X,
        lambda X: torch.from_numpy(X),
        lambda X: X.astype(np.float64),
        lambda X: pd.DataFrame(X),
        np.asfortranarray,
        sp.csr_array,
    ],
)
@pytest.mark.parametrize("batch_size", [8, -1])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_rows_of_the_user_stay_as_they_are(make, batch_size, shuffle, blobs):
    X, y = make(blobs[0].copy()), blobs[1].copy()

    clf = Estimator(AddsOneInPlace, epochs=2, lr=0.01, batch_size=batch_size, shuffle=shuffle)
    clf.fit(X, y, validation_data=(X, y)).predict(X)
    clf.evaluate(X, y)

    if hasattr(X, "toarray"):
        X = X.toarray()
    np.testing.assert_array_equal(np.asarray(X, dtype=np.float32), blobs[0])
    np.testing.assert_array_equal(y, blobs[1])


def test_a_module_that_changes_its_input_sees_the_same_rows_in_every_epoch(blobs):
    X, y = blobs

    clf = Estimator(AddsOneInPlace, lr=1e-30, optimizer="sgd", epochs=3, batch_size=-1)
    clf.fit(X, y)

    assert len(set(clf.history_["loss"])) == 1


@pytest.mark.parametrize("make", [lambda X: X, torch.from_numpy, read_only])
def test_float32_rows_are_not_copied_for_layers_of_torch(make, blobs, monkeypatch):
    X, y = make(blobs[0]), blobs[1]
    place = X.data_ptr() if isinstance(X, torch.Tensor) else X.ctypes.data
    places, forward = set(), nn.Linear.forward

    def note(layer, x):
        places.add((x.data_ptr(), len(x)))
        return forward(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", note)
    clf = Estimator(nn.Linear(4, 3), epochs=1, lr=0.01, batch_size=-1, compile=False).fit(X, y)
    clf.predict(X)

    assert {where for where, n_rows in places if n_rows == 30} == {place}


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 2.0}])
def test_weights_of_classes_are_told_from_weights_of_rows(blobs, weight):
    words = re.escape(f"are a parameter: `class_weight={weight!r}`")

    with pytest.raises(ValueError, match=words):
        Estimator().fit(*blobs, sample_weight=weight)


@pytest.mark.parametrize(
    "call",
    [
        lambda clf, X, y: clf.fit(X, y, 32),
        lambda clf, X, y: clf.fit(X, y, validation_data=(X, y, 32)),
        lambda clf, X, y: clf.fit(X, y).evaluate(X, y, 32),
    ],
    ids=["fit", "validation", "evaluate"],
)
def test_a_number_in_the_place_of_weights_is_refused(call, blobs, network):
    """In Keras the third argument is the size of batches."""
    with pytest.raises(ValueError, match=r"`sample_weight` is 32; .*: `batch_size=...`"):
        call(Estimator(network, epochs=1), *blobs)


@pytest.mark.parametrize("kind", [tuple, list])
def test_validation_rows_in_the_place_of_weights_are_refused(kind, blobs):
    with pytest.raises(ValueError, match=r"pass `validation_data=\(X_val, y_val\)`"):
        Estimator().fit(*blobs, kind(blobs))


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8)])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_single_image_is_refused_with_the_missing_dimension(shape, kind):
    images = kind(np.random.default_rng(0).random((6, *shape), dtype=np.float32))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    clf = Estimator(network, epochs=1).fit(images, [0, 1] * 3)

    with pytest.raises(ValueError, match=r"of a single row; add .* by `X\[None\]`"):
        clf.predict(images[0])
    assert clf.predict(images[0][None]).shape == (1,)
