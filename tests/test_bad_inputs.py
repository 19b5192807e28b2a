"""What a fit or a prediction cannot use: refused in words that help, and nothing has changed."""

import contextlib
import copy
import inspect
import re
import signal
import threading
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from easyclf import EarlyStopping, Estimator, LambdaCallback, TrainingDiverged

NAMES = ["a", "b", "c", "d"]
BAD = (ValueError, TypeError)


class Items(Dataset):
    """A dataset of the given items; one that is an error is raised."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        if isinstance(self.items[row], Exception):
            raise self.items[row]
        return self.items[row]


class Returns(nn.Module):
    """Returns whatever a function makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(4, 3), change

    def forward(self, x):
        return self.change(self.linear(x))


class Frozen(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)
        self.requires_grad_(False)


class Needy(nn.Linear):
    def __init__(self, vocabulary):
        super().__init__(4, vocabulary)


def spoiled(X, row=3, column=1, value=np.nan):
    X = X.copy() if hasattr(X, "copy") else X.clone()
    X[row, column] = value
    return X


def labels(y, row, value):
    y = np.asarray(y).astype(object)
    y[row] = value
    return y


def frame(X, **more):
    return pd.DataFrame(X, columns=NAMES).assign(**more)


def pairs(X, y):
    return [(torch.from_numpy(x), int(label)) for x, label in zip(X, y, strict=True)]


def tensors(X, y):
    return TensorDataset(torch.from_numpy(X), torch.from_numpy(y))


def softmax(outputs):
    return outputs.softmax(1)


# Each row: its id; what is given to `fit` (or how it is made of good rows); words of the error.
DATA = [
    (
        "D01",
        lambda X, y: {"X": spoiled(X), "y": y},
        ["X contains NaN", "row 3, column 1", "Imputer"],
    ),
    ("D01 tensor", lambda X, y: {"X": spoiled(torch.from_numpy(X)), "y": y}, ["NaN", "row 3"]),
    (
        "D01 sparse",
        lambda X, y: {"X": sp.csr_array(spoiled(X)), "y": y},
        ["NaN", "row 3, column 1"],
    ),
    ("D01 frame", lambda X, y: {"X": frame(spoiled(X)), "y": y}, ["NaN", "row 3, column 'b'"]),
    (
        "D01 validation",
        lambda X, y: {"X": X, "y": y, "validation_data": (spoiled(X), y)},
        ["NaN", "row 3, column 1"],
    ),
    (
        "D02 inf",
        lambda X, y: {"X": spoiled(X, 2, 0, -np.inf), "y": y},
        ["infinity", "-inf", "row 2"],
    ),
    (
        "D02 overflow",
        lambda X, y: {"X": spoiled(X.astype("f8"), 5, 3, 1e39), "y": y},
        ["1e+39", "row 5, column 3", "precision='float64'"],
    ),
    ("D05 one text", lambda X, y: {"X": "red", "y": y}, ["red"]),
    ("D05 text", lambda X, y: {"X": np.full((30, 4), "red"), "y": y}, ["'red'"]),
    (
        "D05 object",
        lambda X, y: {"X": spoiled(X.astype(object), value="red"), "y": y},
        ["'red'"],
    ),
    ("D05 frame", lambda X, y: {"X": frame(X, color="red"), "y": y}, ["color", "OneHotEncoder"]),
    (
        "D05 frame of objects",
        lambda X, y: {"X": frame(X, color="red").astype(object), "y": y},
        ["color", "OneHotEncoder"],
    ),
    (
        "D06 dates",
        lambda X, y: {"X": frame(X, day=pd.Timestamp("2024-01-01")), "y": y},
        ["'day' (datetime64", "ColumnTransformer"],
    ),
    (
        "D06 categories",
        lambda X, y: {"X": frame(X, port=pd.Categorical(30 * ["C"])), "y": y},
        ["'port' (category)", "OneHotEncoder"],
    ),
    (
        "D06 polars",
        lambda X, y: {"X": pl.DataFrame(X, schema=NAMES).with_columns(sex=pl.lit("f")), "y": y},
        ["'sex' (String)", "OneHotEncoder"],
    ),
    (
        "D07 pandas NA",
        lambda X, y: {"X": frame(X, e=pd.array([1, None] + 28 * [0], dtype="Int64")), "y": y},
        ["NaN", "row 1, column 'e'"],
    ),
    (
        "D07 polars null",
        lambda X, y: {"X": pl.DataFrame({"a": [1, None] + 28 * [0], "b": y}), "y": y},
        ["NaN", "row 1, column 'a'"],
    ),
    ("D08 1-D", lambda X, y: {"X": X[:, 0], "y": y}, ["Expected 2D array", "Reshape your data"]),
    ("D08 0-D", lambda X, y: {"X": 3.0, "y": y}, ["Expected 2D array", "Reshape your data"]),
    (
        "D08 tensor",
        lambda X, y: {"X": torch.from_numpy(X[:, 0].copy()), "y": y},
        ["Expected 2D array", "Reshape your data"],
    ),
    ("D09 no rows", lambda X, y: {"X": X[:0], "y": y[:0]}, ["0 sample(s)", "(0, 4)"]),
    ("D09 no columns", lambda X, y: {"X": X[:, :0], "y": y}, ["0 feature(s)", "(30, 0)"]),
    (
        "D09 no rows, tensor",
        lambda X, y: {"X": torch.zeros(0, 4), "y": []},
        ["0 sample(s)", "(0, 4)"],
    ),
    ("D09 no rows, dataset", lambda X, y: {"X": Items()}, ["Items", "0 sample(s)"]),
    ("D09 one row", lambda X, y: {"X": X[:1], "y": y[:1]}, ["one class", "classes="]),
    ("D11", lambda X, y: {"X": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3]], "y": [0, 1, 2]}, ["row 2"]),
    ("D13", lambda X, y: {"X": X * 1j, "y": y}, ["Complex data not supported"]),
    (
        "D13 tensor",
        lambda X, y: {"X": torch.from_numpy(X) * 1j, "y": y},
        ["Complex data not supported"],
    ),
    ("D16", lambda X, y: {"X": X, "y": y[:29]}, ["30", "29", "X", "y"]),
    ("D16 tensor", lambda X, y: {"X": torch.from_numpy(X), "y": y[:29]}, ["30", "29", "X", "y"]),
    (
        "D20 names of two types",
        lambda X, y: {"X": pd.DataFrame(X, columns=["a", "b", 3, 4]), "y": y},
        ["names", "str"],
    ),
    (
        "D28 loader",
        lambda X, y: {"X": DataLoader(tensors(X, y)), "y": y},
        ["DataLoader", "without `y`"],
    ),
    (
        "D28 weights beside",
        lambda X, y: {"X": tensors(X, y), "sample_weight": np.ones(30)},
        ["without `sample_weight`", "(x, y, weight)"],
    ),
    ("D28 no labels", lambda X, y: {"X": TensorDataset(torch.zeros(9, 4))}, ["no label", "(x, y)"]),
    ("D28 no y", lambda X, y: {"X": X}, ["y", "None", "fit(X, y)"]),
    (
        "D29",
        lambda X, y: {"X": Items(*pairs(X, y)[:17], ValueError("bad picture"), *pairs(X, y))},
        ["bad picture", "row 17"],
    ),
    (
        "D30 shapes",
        lambda X, y: {"X": Items(*pairs(X, y), (torch.zeros(3), 1))},
        ["(4,)", "(3,)"],
    ),
    ("D30 None", lambda X, y: {"X": Items(*pairs(X, y), None)}, ["None", "row 30"]),
    (
        "L02 NaN",
        lambda X, y: {"X": X, "y": spoiled(y[:, None] * 1.0, 4, 0)[:, 0]},
        ["y", "NaN", "[4]"],
    ),
    ("L02 None", lambda X, y: {"X": X, "y": labels(y, 4, None)}, ["y contains NaN", "[4]"]),
    ("L02 None of texts", lambda X, y: {"X": X, "y": labels(y.astype(str), 4, None)}, ["y", "[4]"]),
    ("L02 NA", lambda X, y: {"X": X, "y": labels(y, 4, pd.NA)}, ["y contains NaN", "[4]"]),
    (
        "L02 nullable",
        lambda X, y: {"X": X, "y": pd.Series(labels(y, 4, None), dtype="Int64")},
        ["y contains NaN", "[4]"],
    ),
    (
        "L02 categorical",
        lambda X, y: {"X": X, "y": pd.Categorical(labels(y.astype(str), 4, None))},
        ["y contains NaN", "[4]"],
    ),
    ("L03", lambda X, y: {"X": X, "y": labels(y, 4, "1")}, ["y", "mixed", "0 (int)", "'1' (str)"]),
    ("L04", lambda X, y: {"X": X, "y": y + 0.5}, ["Unknown label type: continuous"]),
    ("L05", lambda X, y: {"X": X, "y": np.stack([y, y], axis=1)}, ["y", "(30, 2)", "0 and 1"]),
    ("L06", lambda X, y: {"X": X, "y": np.full(30, "a")}, ["y", "one class", "'a'", "classes="]),
    (
        "L08",
        lambda X, y: {"X": X, "y": y, "validation_data": (X, y + 1)},
        ["[3]", "[0, 1, 2]", "classes="],
    ),
    (
        "L08 dataset",
        lambda X, y: {"X": X, "y": y, "validation_data": tensors(X, y + 1)},
        ["[3]", "[0, 1, 2]", "classes="],
    ),
    (
        "L14 length",
        lambda X, y: {"X": X, "y": y, "sample_weight": np.ones(29)},
        ["sample_weight", "29", "30"],
    ),
    (
        "L14 2-D",
        lambda X, y: {"X": X, "y": y, "sample_weight": np.ones((30, 2))},
        ["ample weights", "1D"],  # scikit-learn 1.6 says no more
    ),
    (
        "L14 negative",
        lambda X, y: {"X": X, "y": y, "sample_weight": -np.ones(30)},
        ["sample_weight", "Negative"],
    ),
    (
        "L14 NaN",
        lambda X, y: {"X": X, "y": y, "sample_weight": np.full(30, np.nan)},
        ["sample_weight", "NaN"],
    ),
    (
        "L14 all zero",
        lambda X, y: {"X": X, "y": y, "sample_weight": np.zeros(30)},
        ["ample", "weight"],
    ),
    (
        "P16 validation twice",
        lambda X, y: {"X": X, "y": y, "validation_data": (X, y), "X_val": X},
        ["`validation_data`", "`X_val`"],
    ),
]

# Each row: its id; the parameters; words of the error.
PARAMETERS = [
    *(
        (
            f"P01 {name}",
            {name: object()},
            [f"The '{name}' parameter of Estimator must", "Got <object"],
        )
        for name in inspect.signature(Estimator).parameters
    ),
    *(
        (
            f"P02 {value!r}",
            {"epochs": value},
            ["The 'epochs' parameter of Estimator", f"{value!r} instead"],
        )
        for value in (-1, 1.5, "10", None, True)
    ),
    *(
        (f"P03 {value!r}", {"batch_size": value}, ["'batch_size' parameter", f"{value!r} instead"])
        for value in (0, -2, 2.5, "large", None, True)
    ),
    *(
        (f"P04 {value!r}", {"lr": value}, ["The 'lr' parameter", f"{value!r} instead"])
        for value in (0, -0.1, float("nan"), "fast", None, True)
    ),
    (
        "P05 optimizer",
        {"optimizer": "adamm"},
        ["`optimizer`", "'adamm'", "did you mean `adam", "sgd"],
    ),
    (
        "P05 loss",
        {"loss": "crossentropy"},
        ["`loss`", "'crossentropy'", "did you mean `cross_entropy`"],
    ),
    (
        "P05 torchvision",
        {"module": "resnet81"},
        ["`module`", "'resnet81'", "did you mean `resnet18`"],
    ),
    (
        "P06 module",
        {"module": None, "module__hiden": 3},
        ["`module__hiden`", "did you mean `module__hidden`"],
    ),
    (
        "P06 optimizer",
        {"optimizer": "sgd", "optimizer__momentun": 3},
        ["`optimizer__momentun`", "`optimizer__momentum`"],
    ),
    (
        "P06 loss",
        {"loss": "cross_entropy", "loss__label_smooth": 0.1},
        ["`loss__label_smooth`", "`loss__label_smoothing`"],
    ),
    (
        "P07",
        {"optimizer": torch.optim.Adam([torch.zeros(1, requires_grad=True)])},
        ["`optimizer`", "finished Adam", "pass the class"],
    ),
    ("P08 number", {"module": 3}, ["'module' parameter", "3 instead"]),
    ("P08 list", {"module": [nn.Linear(4, 3)]}, ["'module' parameter", "Linear"]),
    (
        "P08 no module",
        {"module": lambda n_classes: [n_classes]},
        ["`module`", "made a list", "nn.Module"],
    ),
    (
        "P08 keywords",
        {"module__out_features": 3},
        ["`module__out_features`", "finished Sequential", "class"],
    ),
    ("P10", {"module": Needy}, ["Needy needs `vocabulary`", "`module__vocabulary=...`"]),
    ("P11 none", {"module": nn.Tanh()}, ["`module` Tanh", "no parameters", "requires_grad"]),
    ("P11 frozen", {"module": Frozen}, ["`module` Frozen", "requires_grad"]),
    (
        "P12 tuple",
        {"module": Returns(lambda o: (o, o))},
        ["Returns", "returned a tuple", "only the logits"],
    ),
    (
        "P12 dict",
        {"module": Returns(lambda o: {"logits": o})},
        ["Returns", "dict", "only the logits"],
    ),
    ("P12 None", {"module": Returns(lambda o: None)}, ["Returns", "NoneType", "tensor"]),
    (
        "P12 array",
        {"module": Returns(lambda o: o.detach().numpy())},
        ["Returns", "ndarray", "tensor"],
    ),
    (
        "P12 rows",
        {"module": Returns(lambda o: o[:1])},
        ["Returns", "(1, 3)", "one row of outputs for each"],
    ),
    (
        "P12 3-D",
        {"module": Returns(lambda o: o[:, None].repeat(1, 2, 1))},
        ["(4, 2, 3)", "columns"],
    ),
    ("P12 cut off", {"module": Returns(torch.detach)}, ["not differentiable", "detach"]),
    ("P13", {"module": Returns(lambda o: o * torch.nan)}, ["Returns", "NaN", "initial weights"]),
    *(
        (f"P14 {device}", {"device": device}, ["`device`", f"{device!r}", "'auto'", "'cpu'"])
        for device in ("gpu", "cuda:99", "mps:7", "cpu:x")
    ),
    *(
        (
            f"P15 {value}",
            {"validation_split": value},
            ["'validation_split' parameter", f"{value!r} instead"],
        )
        for value in (1, 1.5, -0.1, "some", True, None)
    ),
    (
        "P15 too small",
        {"validation_split": 0.001},
        ["`validation_split` 0.001", "30 row", "`validation_data`"],
    ),
    (
        "P16 nothing to watch",
        {"callbacks": [EarlyStopping()]},
        ["EarlyStopping", "'val_loss'", "`validation_data`", "`validation_split`"],
    ),
    *(
        (f"P17 {value!r:.9}", {"random_state": value}, ["The 'random_state' parameter", "instead"])
        for value in (-1, 2**40, "seed", 1.5)
    ),
    ("P20 number", {"callbacks": [3]}, ["'callbacks' parameter", "Callback", "3"]),
    (
        "P20 class",
        {"callbacks": [EarlyStopping]},
        ["'callbacks' parameter", "instances", "EarlyStopping"],
    ),
    ("P20 no list", {"callbacks": EarlyStopping("loss")}, ["'callbacks' parameter", "list"]),
    ("P21", {"precision": "fp16", "device": "cpu"}, ["`precision`", "'fp16'", "CPU", "'bf16'"]),
    (
        "P21 unknown",
        {"precision": "float16"},
        ["'precision' parameter", "'fp16'", "'float16' instead"],
    ),
    ("L09", {"module": nn.Linear(4, 2)}, ["Linear outputs 2 column", "3 classes", "[0, 1, 2]"]),
    ("L10", {"module": nn.Linear(4, 1)}, ["Linear outputs 1 column", "3 classes"]),
    (
        "L11 softmax",
        {"module": Returns(softmax), "loss": "cross_entropy"},
        ["`loss` CrossEntropyLoss", "softmax", "loss='auto'", "'nll'"],
    ),
    (
        "L11 logits",
        {"loss": "nll"},
        ["`loss` NLLLoss", "raw logits", "loss='auto'", "'cross_entropy'"],
    ),
    ("L13 unknown", {"class_weight": {0: 1, 7: 2}}, ["`class_weight`", "[7]", "[0, 1, 2]"]),
    ("L13 negative", {"class_weight": {1: -2}}, ["`class_weight`", "-2"]),
    ("L13 NaN", {"class_weight": {1: np.nan}}, ["`class_weight`", "nan"]),
    (
        "L13 typo",
        {"class_weight": "balance"},
        ["'class_weight' parameter", "'balanced'", "'balance' instead"],
    ),
    ("L13 all zero", {"class_weight": {0: 0, 1: 0, 2: 0}}, ["`class_weight`", "every row"]),
    ("classes without one", {"classes": [0, 1]}, ["[2]", "[0, 1]", "classes"]),
    ("classes of another type", {"classes": ["0", "1", "2"]}, ["0", "['0', '1', '2']"]),
    ("clip", {"clip_grad_norm": 0}, ["'clip_grad_norm' parameter", "0 instead"]),
    ("accumulate", {"accumulate": 0}, ["'accumulate' parameter", "0 instead"]),
    ("shuffle", {"shuffle": "no"}, ["'shuffle' parameter", "'no' instead"]),
    ("verbose", {"verbose": 3}, ["'verbose' parameter", "3 instead"]),
]

# Each row: its id; what is given to `predict_proba`; words of the error.
PREDICTIONS = [
    ("D21", lambda X: X[:, :3], ["X has 3 features", "expecting 4"]),
    ("D21 tensor", lambda X: torch.from_numpy(X[:, :3]), ["X has 3 features", "expecting 4"]),
    ("D21 sparse", lambda X: sp.csr_array(X[:, :3]), ["X has 3 features", "expecting 4"]),
    ("D21 list", lambda X: X[:, :3].tolist(), ["X has 3 features", "expecting 4"]),
    ("D21 dataset", lambda X: Items(*[torch.zeros(3)] * 2), ["X has 3 features", "expecting 4"]),
    ("D21 deeper dataset", lambda X: Items(*[torch.zeros(4, 1)] * 2), ["(4, 1)", "(4,)"]),
    ("D30", lambda X: Items(torch.zeros(4), torch.zeros(3)), ["(4,)", "(3,)", "row 1"]),
    ("D21 deeper", lambda X: X[:, :, None], ["(4, 1)", "(4,)"]),
    ("D24", lambda X: X[:0], ["0 sample(s)"]),
    ("D24 tensor", lambda X: torch.from_numpy(X[:0]), ["0 sample(s)"]),
    ("D24 sparse", lambda X: sp.csr_array(X[:0]), ["0 sample(s)"]),
    ("D24 dataset", lambda X: Items(), ["0 sample(s)"]),
    ("D25", spoiled, ["X contains NaN", "row 3, column 1"]),
    ("D25 dataset", lambda X: Items(*torch.from_numpy(spoiled(X))), ["NaN"]),
    ("D25 inf", lambda X: spoiled(X, value=np.inf), ["infinity", "row 3, column 1"]),
    ("D05", lambda X: np.full((2, 4), "red"), ["'red'"]),
    ("D08", lambda X: X[0], ["Reshape your data"]),
    ("D11", lambda X: [[1, 2, 3, 4], [1, 2, 3]], ["row 1"]),
    ("D13", lambda X: X * 1j, ["Complex data not supported"]),
]


def table(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


def text_of(error):
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def weights(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


@pytest.fixture
def surroundings(random_states):
    """A function that reads all that a call has no business to change."""

    def read():
        return (
            random_states(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            signal.getsignal(signal.SIGINT),
            list(warnings.filters),
        )

    return read


# The one that `fitted` copies.
_fitted = []


@pytest.fixture
def fitted(blobs, network):
    """A copy, for tests that only look whether it stays as it is."""
    if not _fitted:
        clf = Estimator(network, lr=0.1, epochs=2, batch_size=10, random_state=0)
        _fitted.append(clf.fit(*blobs))
    return copy.deepcopy(_fitted[0])


def content(things):
    """All numbers and words in what a user gave, for comparison."""
    if isinstance(things, (tuple, list)) and any(hasattr(thing, "shape") for thing in things):
        return [content(thing) for thing in things]
    if sp.issparse(things):
        things = things.toarray()
    return repr(things.tolist() if hasattr(things, "tolist") else things)


def refused(clf, X, call, *given):
    """The error of a call, once it is sure that the call left no trace."""
    before, state = clf.predict_proba(X), {**vars(clf)}
    template, arrays = copy.deepcopy(clf.module), content(given)

    with pytest.raises(BAD) as raised:
        call()

    assert vars(clf) == state
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    assert content(given) == arrays
    if isinstance(template, nn.Module):
        assert clf.module.training == template.training
        assert weights(clf.module) == weights(template)
    return text_of(raised.value)


@pytest.mark.parametrize(("make", "words"), table(DATA))
def test_data_that_cannot_be_trained_on_are_refused(make, words, blobs, fitted, surroundings):
    steps, given = [], make(*blobs)
    fitted.set_params(callbacks=[LambdaCallback(on_batch_begin=steps.append)])
    before = surroundings()

    text = refused(fitted, blobs[0], lambda: fitted.fit(**given), *given.values())

    assert [word for word in words if word not in text] == []
    assert surroundings() == before
    assert steps == []


@pytest.mark.parametrize(("parameters", "words"), table(PARAMETERS))
def test_parameters_that_make_no_sense_are_refused(parameters, words, blobs, fitted, surroundings):
    steps = []
    callbacks = [LambdaCallback(on_batch_begin=steps.append)]
    fitted.set_params(**{"callbacks": callbacks, **parameters})
    before = surroundings()

    text = refused(fitted, blobs[0], lambda: fitted.fit(*blobs), *blobs)

    assert [word for word in words if word not in text] == []
    assert surroundings() == before
    assert steps == []


@pytest.mark.parametrize(("make", "words"), table(PREDICTIONS))
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score"])
def test_data_that_cannot_be_answered_are_refused(make, words, method, blobs, fitted, surroundings):
    given = make(blobs[0])
    y = () if method != "score" or isinstance(given, Dataset) else (blobs[1][: len_of(given)],)
    before = surroundings()

    text = refused(fitted, blobs[0], lambda: getattr(fitted, method)(given, *y), given)

    assert [word for word in words if word not in text] == []
    assert surroundings() == before


def len_of(given):
    return given.shape[0] if hasattr(given, "shape") else len(given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda X: X[NAMES[::-1]], ["same order"], id="D22 order"),
        pytest.param(lambda X: X[NAMES[:3]], ["missing", "- d"], id="D22 missing"),
        pytest.param(lambda X: X.assign(e=1.0), ["unseen", "- e"], id="D22 extra"),
        pytest.param(lambda X: X.rename(columns={"a": "z"}), ["- z", "- a"], id="D22 renamed"),
    ],
)
@pytest.mark.parametrize("is_polars", [False, True])
def test_a_frame_of_other_columns_is_refused(change, words, is_polars, blobs, network):
    X, y = frame(blobs[0]), blobs[1]
    make = pl.from_pandas if is_polars else (lambda X: X)
    clf = Estimator(network, epochs=1, lr=0.1).fit(make(X), y)

    text = refused(clf, make(X), lambda: clf.predict(make(change(X))), change(X))

    assert [word for word in ["eature names", *words] if word not in text] == []


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_a_picture_of_another_height_is_refused(make):
    """D23: its height is no number of features."""
    X, y = np.zeros((6, 2, 2), dtype=np.float32), np.arange(6) % 2
    clf = Estimator(epochs=1).fit(make(X), y)

    with pytest.raises(ValueError, match=r"rows of shape \(3, 3\), but .* of shape \(2, 2\)"):
        clf.predict(make(np.zeros((6, 3, 3), dtype=np.float32)))


@pytest.mark.parametrize("n_labels", [29, 90])
@pytest.mark.parametrize("split", [0.2, KFold(3)])
def test_a_frame_with_more_or_fewer_labels_than_rows_is_refused_before_it_is_split(
    split, n_labels, blobs
):
    """D16."""
    X, y = pd.DataFrame({"word": ["a", "b"] * 15}), np.resize(blobs[1], n_labels)

    with pytest.raises(ValueError, match=f"X has 30, y has {n_labels}"):
        Estimator(epochs=1, validation_split=split).fit(X, y)


def test_a_loader_that_drops_all_of_its_rows_is_refused(blobs):
    """T21, also under the default module, which looks at the rows before."""
    dataset = TensorDataset(*map(torch.from_numpy, blobs))

    with pytest.raises(ValueError, match=r"yielded no batch: .* `drop_last=True`"):
        Estimator(epochs=1).fit(DataLoader(dataset, 100, drop_last=True))


def test_a_picture_of_another_size_is_refused():
    """D23."""
    X, y = np.zeros((6, 1, 6, 6), dtype=np.float32), np.arange(6) % 2
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    clf = Estimator(module, epochs=1, lr=0.1).fit(X, y)

    text = refused(clf, X, lambda: clf.predict(X[:, :, :5, :5]), X)

    assert "(1, 5, 5)" in text
    assert "(1, 6, 6)" in text


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"min_proba": 1.5}, ["`min_proba`", "1.5", "[0, 1]"]),
        ({"min_proba": -0.1}, ["`min_proba`", "-0.1"]),
        ({"min_proba": float("nan")}, ["`min_proba`", "nan"]),
        ({"min_proba": "high"}, ["`min_proba`", "'high'"]),
        ({"min_proba": 0.5, "uncertain": 2}, ["`uncertain`", "2", "one of the classes"]),
        ({"costs": np.eye(2)}, ["`costs`", "(2, 2)", "(3, 3)"]),
        ({"costs": np.full((3, 3), np.nan)}, ["`costs`", "finite"]),
    ],
)
def test_answers_that_make_no_sense_are_refused(keywords, words, blobs, fitted):
    text = refused(fitted, blobs[0], lambda: fitted.predict(blobs[0], **keywords), blobs, keywords)

    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("epcohs", "`epochs`"),
        ("modul__hidden", "`module__hidden`"),
        ("optimiser", "`optimizer`"),
        ("module__", "module"),
    ],
)
def test_an_unknown_name_is_refused_when_an_estimator_is_made(name, nearest):
    """P06."""
    with pytest.raises(TypeError, match=f"`{name}`.*{nearest}"):
        Estimator(**{name: 5})


@pytest.mark.parametrize("name", ["epcohs", "lr__x", "modul__hidden"])
def test_an_unknown_name_is_refused_when_parameters_are_set(name, blobs, fitted):
    """P19."""
    text = refused(fitted, blobs[0], lambda: fitted.set_params(**{name: 5}))

    assert name.split("__")[0] in text
    assert "Estimator" in text


def test_parameters_that_are_set_after_a_fit_wait_for_the_next(blobs, fitted):
    """P19."""
    before = fitted.predict_proba(blobs[0])

    fitted.set_params(module=None, module__hidden=(3,), epochs=1)

    np.testing.assert_array_equal(fitted.predict_proba(blobs[0]), before)
    assert fitted.fit(*blobs).module_.layers[0].out_features == 3


def test_wrong_values_are_not_refused_before_the_fit():
    """P01: scikit-learn's checks construct an estimator with anything."""
    clf = Estimator(epochs=-1)

    assert clf.set_params(lr="fast").get_params()["lr"] == "fast"


def test_a_repr_shows_no_weights(blobs):
    """P22."""
    clf = Estimator(nn.Linear(1000, 1000), lr=0.1, epochs=1, classes=range(1000))

    for _ in range(2):
        assert len(repr(clf)) < 2000
        assert len(clf._repr_html_()) < 200_000
        clf.fit(np.eye(3, 1000), [0, 1, 2])


# What is unusual, and works.


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(["no", "yes", "other"], id="L01 str"),
        pytest.param(np.array(["no", "yes", "other"], dtype=object), id="L01 object"),
        pytest.param(np.array([b"no", b"yes", b"other"]), id="L01 bytes"),
        pytest.param([1, 2, 3], id="L01 from 1"),
        pytest.param([-1, 0, 1], id="L01 negative"),
        pytest.param([0, 5, 9], id="L01 gaps"),
        pytest.param([2**40, 2**50, 3], id="L01 large"),
        pytest.param([-100, 0, 1], id="L01 the class that torch ignores"),
        pytest.param([False, True], id="L01 bool"),
        pytest.param([0.0, 1.0, 2.0], id="L01 float"),
        pytest.param(np.array([200, 3, 255], dtype=np.uint8), id="L01 uint8"),
    ],
)
def test_labels_of_any_kind_come_back_as_they_were(y):
    y = np.asarray(y)
    X, labels = np.eye(len(y)).repeat(4, axis=0), y.repeat(4)

    clf = Estimator(epochs=40, optimizer="adam", lr=0.1, module__hidden=(), random_state=0)
    answers = clf.fit(X, labels).predict(X)

    assert clf.classes_.tolist() == sorted(y.tolist())
    assert answers.tolist() == labels.tolist()
    assert answers.dtype == y.dtype
    assert clf.classes_.dtype == y.dtype


def test_one_row_is_learned_when_all_classes_are_told(blobs, network):
    """D09."""
    clf = Estimator(network, lr=0.1, epochs=3, classes=[0, 1, 2]).fit(blobs[0][:1], blobs[1][:1])

    assert np.isfinite(clf.predict_proba(blobs[0])).all()


def test_values_that_are_huge_are_never_learned_as_nan(blobs, network):
    """D19."""
    X = np.column_stack([blobs[0][:, :3], np.full(30, 1e30)])
    clf = Estimator(module__hidden=(4,), lr=0.1, epochs=3, random_state=0).fit(X, blobs[1])

    assert np.isfinite(clf.predict_proba(X)).all()


def test_columns_of_the_same_name_are_taken_as_scikit_learn_takes_them(blobs, network):
    """D20: its versions differ."""
    X, y = pd.DataFrame(blobs[0], columns=["a", "a", "b", "b"]), blobs[1]

    def outcome(clf):
        try:
            return clf.fit(X, y).predict(X).shape
        except ValueError as error:
            return str(error)

    assert outcome(Estimator(network, lr=0.1, epochs=1)) == outcome(LogisticRegression())


def test_a_column_of_labels_is_flattened_with_scikit_learns_warning(blobs, fitted):
    """L05."""
    before = fitted.predict_proba(blobs[0])

    with pytest.warns(DataConversionWarning, match="column-vector y"):
        fitted.fit(blobs[0], blobs[1][:, None])

    np.testing.assert_array_equal(fitted.predict_proba(blobs[0]), before)


def test_outputs_that_no_class_uses_are_left_out_with_a_warning(blobs):
    """L09."""
    with pytest.warns(UserWarning, match="5 columns but `y` has 3 classes.*first 3") as warned:
        clf = Estimator(nn.Linear(4, 5), lr=0.1, epochs=20).fit(*blobs)

    assert len(warned) == 1
    np.testing.assert_allclose(clf.predict_proba(blobs[0]).sum(1), 1, rtol=1e-5)
    assert clf.score(*blobs) > 0.9


def test_a_class_of_one_row_among_many_is_learned():
    """L16."""
    X, y = np.zeros((500, 2)), np.zeros(500, dtype=int)
    X[123], y[123] = 5.0, 1

    clf = Estimator(
        lr=0.1, optimizer="adam", epochs=20, batch_size=64, class_weight="balanced", random_state=0
    ).fit(X, y)

    assert clf.score(X, y) == 1.0
    assert np.isfinite(clf.history_["loss"]).all()


def test_there_may_be_more_classes_than_rows():
    """L17."""
    clf = Estimator(lr=0.1, epochs=1, classes=np.arange(10_000), module__hidden=(2,))

    proba = clf.fit(np.eye(3), [5, 77, 9_999]).predict_proba(np.eye(3))

    assert proba.shape == (3, 10_000)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-4)


# Faults in training.


class SpoiledAfter(nn.Module):
    """Makes numbers that are none, or an error, from its third training batch of ten rows on."""

    def __init__(self, network, fault):
        super().__init__()
        self.network, self.fault, self.seen = network, fault, 0

    def forward(self, x):
        self.seen += self.training and len(x) == 10
        outputs = self.network(x)
        if self.training and self.seen >= 3:
            outputs = self.fault(outputs)
        return outputs


def to_nan(outputs):
    return outputs * torch.nan


def to_nan_gradients(outputs):
    outputs = outputs.clone()
    outputs.register_hook(to_nan)
    return outputs


def broken(outputs):
    raise LookupError("no such token")


def interrupted(state):
    if state.step == 4:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        pytest.param(to_nan, TrainingDiverged, ["epoch 1, batch 3", "nan", "lr=0.1"], id="T01"),
        pytest.param(to_nan_gradients, TrainingDiverged, ["epoch 1, batch 3", "`lr`"], id="T02"),
        pytest.param(broken, LookupError, ["no such token", "epoch 1", "(10, 4)"], id="T22"),
    ],
)
def test_a_fault_in_training_is_told_and_leaves_finite_weights(
    fault, error, words, blobs, network, fitted, surroundings
):
    before = surroundings()

    with pytest.raises(error) as raised:
        fitted.set_params(module=SpoiledAfter(network, fault)).fit(*blobs)

    assert [word for word in words if word not in text_of(raised.value)] == []
    assert surroundings() == before
    assert not fitted.module_.training
    assert np.isfinite(fitted.predict_proba(blobs[0])).all()


def test_an_error_in_training_leaves_the_earlier_fit(blobs, network, fitted):
    """T23."""
    before = fitted.predict_proba(blobs[0])

    with pytest.raises(LookupError):
        fitted.set_params(module=SpoiledAfter(network, broken)).fit(*blobs)

    np.testing.assert_array_equal(fitted.predict_proba(blobs[0]), before)


def test_ctrl_c_keeps_what_was_learned(blobs, fitted, surroundings):
    """T03."""
    before = surroundings()

    with pytest.raises(KeyboardInterrupt):
        fitted.set_params(callbacks=[LambdaCallback(on_batch_end=interrupted)]).fit(*blobs)

    assert surroundings() == before
    assert fitted.n_iter_ == 1
    assert fitted.predict(blobs[0]).shape == (30,)


def test_fits_in_two_threads_are_as_fits_one_after_the_other(blobs, random_states):
    """T17: each thread waits for the other in the middle of its fit."""
    meeting = threading.Barrier(2)

    def meet(state):
        # One fit at a time is right too.
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)

    def make(seed, *callbacks):
        return Estimator(
            module__dropout=0.5, lr=0.01, epochs=2, callbacks=list(callbacks), random_state=seed
        )

    expected = [make(seed).fit(*blobs).predict_proba(blobs[0]) for seed in (0, 1)]
    estimators = [make(seed, LambdaCallback(on_epoch_begin=meet)) for seed in (0, 1)]
    threads = [threading.Thread(target=clf.fit, args=blobs) for clf in estimators]
    before = random_states()

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for clf, probabilities in zip(estimators, expected, strict=True):
        np.testing.assert_array_equal(clf.predict_proba(blobs[0]), probabilities)
    assert random_states() == before


@pytest.mark.parametrize(("n_rows", "batch_size"), [(30, 29), (29, 14), (3, 2), (30, -1), (2, -1)])
def test_batch_normalization_never_meets_a_batch_of_one_row(n_rows, batch_size, blobs, network):
    """T20."""
    X, y = blobs
    module = nn.Sequential(nn.BatchNorm1d(4), network)

    clf = Estimator(module, lr=0.1, epochs=2, batch_size=batch_size, classes=[0, 1, 2])
    clf.fit(X[:n_rows], y[:n_rows])

    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "word"), [(1, -1, "row"), (30, 1, "`batch_size`")]
)
def test_batch_normalization_of_single_rows_is_refused(
    n_rows, batch_size, word, blobs, network, fitted
):
    """T20: torch's own words name neither the layer nor what to do."""
    X, y = blobs
    module = nn.Sequential(nn.BatchNorm1d(4), network)
    fitted.set_params(module=module, classes=[0, 1, 2], batch_size=batch_size)

    text = refused(fitted, X, lambda: fitted.fit(X[:n_rows], y[:n_rows]))

    assert re.search("batch.?norm", text, re.IGNORECASE)
    assert word in text


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_a_validation_that_is_nan_is_never_the_best(monitor, blobs, network):
    """T27."""
    early = EarlyStopping(monitor)
    rewrite = LambdaCallback(
        on_epoch_end=lambda state: state.epoch == 2 and state.logs.update({monitor: np.nan})
    )

    with pytest.warns(ConvergenceWarning, match=f"'{monitor}' is NaN in epoch 2"):
        Estimator(network, lr=0.1, epochs=3, callbacks=[rewrite, early]).fit(
            *blobs, validation_data=blobs
        )

    assert early.best_epoch_ in (1, 3)


def test_the_best_weights_come_back_also_after_ctrl_c(blobs, network):
    """T28: epoch 1 is the best, and Ctrl-C comes in epoch 2."""
    losses = iter([1.0, 2.0, 3.0])
    callbacks = [
        LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(losses))),
        EarlyStopping(),
        LambdaCallback(on_batch_end=interrupted),
    ]
    parameters = {"lr": 0.1, "batch_size": 10, "random_state": 0}
    clf = Estimator(network, epochs=3, callbacks=callbacks, **parameters)

    with pytest.raises(KeyboardInterrupt):
        clf.fit(*blobs, validation_data=blobs)

    expected = Estimator(network, epochs=1, **parameters).fit(*blobs)
    np.testing.assert_array_equal(clf.predict_proba(blobs[0]), expected.predict_proba(blobs[0]))


def test_two_fits_of_one_random_state_are_equal_bit_for_bit(blobs, fitted):
    """T30."""
    before = fitted.predict_proba(blobs[0])
    torch.rand(5)

    fitted.fit(*blobs)

    np.testing.assert_array_equal(fitted.predict_proba(blobs[0]), before)
