"""A fitted classifier as a file: it answers as `predict_proba` does, or is not written."""

import json
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from easyclf import Estimator
from easyclf.export import _made_up, _plain

# `EASYCLF_EXPORTS=1` makes both files of every kind of module: a minute.
TRIES_ALL = bool(os.environ.get("EASYCLF_EXPORTS"))
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 4)).astype(np.float32)
LABELS = np.tile(["ash", "elm", "oak"], 4)
IMAGES = RNG.integers(0, 255, size=(12, 6, 6), dtype=np.uint8)
TOKENS = RNG.integers(0, 9, size=(12, 5))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.recurrent(self.embedding(x))[0][:, -1])


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(8, 3)

    def forward(self, words, numbers):
        logits = self.linear(torch.cat([self.embedding(words).mean(1), numbers], dim=1))
        return {"logits": logits, "numbers": numbers}


class Pair(nn.Linear):
    def __init__(self):
        super().__init__(8, 3)

    def forward(self, left, right):
        return super().forward(torch.cat([left, right], dim=1))


class InPlace(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)

    def forward(self, x):
        return super().forward(x.add_(1))


def column():
    return nn.Sequential(nn.Linear(4, 1), nn.Sigmoid(), nn.Flatten(0))


def convolution():
    layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    return nn.Sequential(*layers)


def scaled(x):
    return x.float() / 255


# Each row: the parameters, X, y, the examples for `export`, and the dtypes that the file takes.
CASES = {
    "default": ({}, ROWS, LABELS, None, ["float32"]),
    "two classes": ({}, ROWS, LABELS == "elm", None, ["float32"]),
    "multilabel": ({}, ROWS, (ROWS[:, :3] > 0).astype(int), None, ["float32"]),
    "large columns": ({}, ROWS + [0, 0, 0, 1.7e9], LABELS, None, ["float64"]),
    "sigmoid": ({"module": column}, ROWS, LABELS == "elm", None, ["float32"]),
    "softmax": (
        {"module": lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))},
        ROWS,
        LABELS,
        None,
        ["float32"],
    ),
    "float64": ({"precision": "float64"}, ROWS, LABELS, None, ["float64"]),
    "in place": ({"module": InPlace}, ROWS, LABELS, None, ["float32"]),
    "tokens": ({"module": Recurrent}, TOKENS, LABELS, None, ["int64"]),
    "by name": (
        {"module": Several, "output": "logits"},
        {"words": TOKENS, "numbers": ROWS},
        LABELS,
        None,
        ["int64", "float32"],
    ),
    "by place": ({"module": Pair}, (ROWS, ROWS), LABELS, None, ["float32", "float32"]),
    "images": ({"module": convolution}, IMAGES, LABELS, None, ["float32"]),
    "preprocess": (
        {"module": convolution, "preprocess": scaled},
        IMAGES,
        LABELS,
        IMAGES[:3],
        ["uint8"],
    ),
    "preprocess module": (
        {"module": nn.Linear(3, 3), "preprocess": nn.Linear(4, 3)},
        ROWS,
        LABELS,
        ROWS,
        ["float32"],
    ),
}
IN_TORCH = CASES if TRIES_ALL else ["large columns", "in place", "by name", "preprocess"]
IN_ONNX = CASES if TRIES_ALL else ["by name"]


def fit(X, y, **parameters):
    settings = {"epochs": 1, "lr": 0.1, "random_state": 0, "compile": False}
    return Estimator(**settings | parameters).fit(X, y)


@pytest.fixture(scope="module")
def fitted():
    return fit(ROWS, LABELS)


def parts_of(X):
    if isinstance(X, dict):
        return list(X.values())
    return list(X) if isinstance(X, tuple) else [X]


def first(n_rows, X, dtypes):
    """The first rows of each input, in the dtypes that the file takes."""
    parts = zip(parts_of(X), dtypes, strict=True)
    return [np.array(part[:n_rows], dtype=dtype) for part, dtype in parts]


def like(X, parts):
    tensors = [torch.from_numpy(part) for part in parts]
    if isinstance(X, dict):
        return dict(zip(X, tensors, strict=True))
    return tuple(tensors) if isinstance(X, tuple) else tensors[0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch 2.6, of what it loads
@pytest.mark.parametrize("case", IN_TORCH)
def test_a_file_of_torch_answers_as_the_classifier(case, tmp_path):
    parameters, X, y, examples, dtypes = CASES[case]
    clf = fit(X, y, **parameters)
    expected = clf.predict_proba(X)

    clf.export(tmp_path / "model.pt2", X=examples)

    program = torch.export.load(tmp_path / "model.pt2").module()
    for n_rows in (1, 7, 12):
        given = first(n_rows, X, dtypes)
        answered = program(like(X, given))
        for part, same in zip(given, first(n_rows, X, dtypes), strict=True):
            np.testing.assert_array_equal(part, same)
        np.testing.assert_allclose(answered.detach(), expected[:n_rows], atol=1e-5)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


@pytest.mark.parametrize("case", IN_ONNX)
def test_a_file_of_onnx_answers_as_the_classifier(case, tmp_path, capfd):
    runtime = pytest.importorskip("onnxruntime")
    parameters, X, y, examples, dtypes = CASES[case]
    clf = fit(X, y, **parameters)
    expected = clf.predict_proba(X)

    clf.export(tmp_path / "model.onnx", X=examples)

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    told = capfd.readouterr()
    assert not told.out
    # torch 2.6 notes what torchvision's operations lack, once in a process that imports both.
    assert [line for line in told.err.splitlines() if "Missing annotation" not in line] == []
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    names = [given.name for given in session.get_inputs()]
    assert names == (list(X) if isinstance(X, dict) else ["X"] if len(dtypes) == 1 else names)
    for n_rows in (1, 7, 12):
        given = dict(zip(names, first(n_rows, X, dtypes), strict=True))
        (answered,) = session.run(["probabilities"], given)
        np.testing.assert_allclose(answered, expected[:n_rows], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == clf.classes_.tolist()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["ash", "elm", "oak"], ["ash", "elm", "oak"]),
        ([b"ash", b"elm", b"oak"], ["ash", "elm", "oak"]),
        ([-1, 5, 2**40], [-1, 5, 2**40]),
        ([False, True], [False, True]),
    ],
)
def test_the_metadata_hold_the_labels(labels, expected, tmp_path):
    X = pd.DataFrame(ROWS, columns=["a", "b", "c", "d"])
    fit(X, np.resize(labels, 12)).export(tmp_path / "model.pt2")

    files = {"easyclf.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=files)

    metadata = json.loads(files["easyclf.json"])
    assert metadata["classes"] == expected
    assert metadata["target"] == "one class a row"
    assert metadata["feature_names"] == ["a", "b", "c", "d"]


def test_a_model_under_autocast_is_exported_in_full_precision(tmp_path):
    clf = fit(ROWS, LABELS, precision="bf16")
    clf.export(tmp_path / "model.pt2")

    answered = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(ROWS))

    exact = fit(ROWS, LABELS, epochs=0).set_params(precision="float32")
    exact.module_.load_state_dict(clf.module_.state_dict())
    np.testing.assert_allclose(answered.detach(), exact.predict_proba(ROWS), atol=1e-6)


def test_an_export_leaves_no_trace(fitted, random_states, tmp_path):
    settings = random_states(), list(warnings.filters), fitted.module_.training
    before = fitted.predict_proba(ROWS)

    fitted.export(tmp_path / "model.pt2")

    assert (random_states(), list(warnings.filters), fitted.module_.training) == settings
    np.testing.assert_array_equal(fitted.predict_proba(ROWS), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


class Drawing(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x))


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * float(self.calls % 97)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Drawing, "answers otherwise than `predict_proba`.*random.*cannot be exported"),
        (Counting, "answers otherwise than `predict_proba`.*nothing was written"),
        (Branching, "torch.export cannot follow Branching"),
    ],
)
def test_a_module_that_cannot_be_followed_is_refused(module, words, tmp_path):
    clf = fit(ROWS, LABELS, module=module(4, 3))
    (tmp_path / "model.pt2").write_text("older")

    with pytest.raises(ValueError, match=words):
        clf.export(tmp_path / "model.pt2")

    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "older"


class Halting(nn.Linear):
    def forward(self, x):
        return super().forward(x if len(x) % 2 else x + 0)


@pytest.mark.parametrize(
    ("module", "words"),
    [(Branching, "super().forward(x if x.sum() > 0 else -x)"), (Halting, "n_rows")],
)
def test_the_cause_is_shortened_to_what_tells_something(module, words, tmp_path, capfd):
    """torch shows its whole graph, and lists settings of its own."""
    clf = fit(ROWS, LABELS, module=module(4, 3))

    with pytest.raises(ValueError, match=r"torch\.export cannot follow") as raised:
        clf.export(tmp_path / "model.pt2")

    told = str(raised.value)
    assert words in told
    assert len(told) < 600
    assert "\n" not in told
    assert "arg0_1" not in told + capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("model.pb", ValueError, r"`path` is '.*model.pb'; expected .* .onnx or .pt2"),
        ("model", ValueError, "expected a name that ends in"),
        ("nowhere/model.pt2", FileNotFoundError, "there is no folder '.*nowhere'"),
        ("folder.pt2", IsADirectoryError, "is a folder"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(name, error, words, fitted, tmp_path):
    (tmp_path / "folder.pt2").mkdir()

    with pytest.raises(error, match=words):
        fitted.export(tmp_path / name)


def test_what_is_no_path_is_refused(fitted):
    with pytest.raises(TypeError, match=r"`path` is 3; expected .* as 'model\.onnx'"):
        fitted.export(3)


def test_a_disk_that_is_full_leaves_the_older_file(fitted, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "model.pt2").write_text("older")
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space left"):
        fitted.export(tmp_path / "model.pt2")

    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "older"


def test_categories_are_to_be_encoded_in_a_pipeline(tmp_path):
    X = pd.DataFrame({"word": ["a", "b"] * 6, "number": range(12)})

    with pytest.raises(ValueError, match=r"categories or gaps.*make_column_transformer"):
        fit(X, LABELS).export(tmp_path / "model.pt2")


def test_what_preprocess_takes_is_to_be_shown(tmp_path):
    clf = fit(ROWS, LABELS, preprocess=scaled)

    with pytest.raises(ValueError, match=r"`preprocess`.*`export\(path, X=X\[:10\]\)`"):
        clf.export(tmp_path / "model.pt2")


def test_examples_are_checked_as_rows_to_predict(fitted, tmp_path):
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted.export(tmp_path / "model.pt2", X=ROWS[:, :3])


def test_an_estimator_without_a_fit_has_nothing_to_export(tmp_path):
    with pytest.raises(NotFittedError):
        Estimator().export(tmp_path / "model.pt2")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(
    package, fitted, tmp_path, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, package, None)

    with pytest.raises(ImportError, match=rf'needs {package}.*pip install "easyclf\[onnx\]"'):
        fitted.export(tmp_path / "model.onnx")


def test_rows_that_are_made_up_lie_where_those_of_the_fit_lay():
    fitted = Estimator(epochs=1).fit(50 * ROWS + 1000, LABELS)._fitted

    rows = _made_up(fitted).numpy()

    assert rows.mean(0) == pytest.approx(1000, abs=50)
    assert rows.std(0) == pytest.approx(50, rel=0.6)


def test_labels_of_any_bytes_are_written_as_text():
    assert _plain(b"\xe9") == "é"


def test_tokens_that_are_made_up_are_those_of_the_table():
    fitted = Estimator(Recurrent, epochs=1).fit(TOKENS, LABELS)._fitted

    assert set(_made_up(fitted).unique().tolist()) == set(range(9))


def test_a_missing_folder_is_told_before_any_work(tmp_path, monkeypatch):
    clf = Estimator(nn.Linear, epochs=1).fit(ROWS, LABELS)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("it was traced"))

    with pytest.raises(FileNotFoundError, match="there is no folder"):
        clf.export(tmp_path / "missing" / "clf.pt2")
