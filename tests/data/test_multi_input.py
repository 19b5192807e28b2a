"""Several inputs for one module."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from easyclf import Estimator, MultiInput

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1, 2], 20)
PICTURES = RNG.normal(size=(60, 2, 6, 6)).astype(np.float32) + LABELS[:, None, None, None]
TOKENS = RNG.integers(0, 9, size=60)
X = {"picture": PICTURES, "token": TOKENS}
SETTINGS = {"epochs": 10, "lr": 0.05, "batch_size": 16, "random_state": 0}


class Two(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.convolution, self.embedding = nn.Conv2d(2, 4, 3), nn.Embedding(9, 4)
        self.output = nn.Linear(8, n_classes)
        self.seen = []

    def forward(self, picture, token):
        self.seen.append((picture.dtype, token.dtype))
        features = self.convolution(picture).mean((2, 3))
        return self.output(torch.cat([features, self.embedding(token)], 1))


def fit(X=X, module=Two, **parameters):
    return Estimator(module, **{**SETTINGS, **parameters}).fit(X, LABELS)


@pytest.mark.parametrize("X", [X, MultiInput(X)])
def test_a_dict_is_given_by_name(X):
    clf = fit(X)

    assert clf.score(X, LABELS) > 0.8
    assert set(clf.module_.seen) == {(torch.float32, torch.int64)}
    assert clf.predict(X).shape == (60,)
    assert clf.evaluate(X, LABELS)["accuracy"] == clf.score(X, LABELS)


def test_a_tuple_is_given_by_place():
    by_place, by_name = fit((PICTURES, TOKENS)), fit(X)

    np.testing.assert_array_equal(
        by_place.predict_proba((PICTURES, TOKENS)), by_name.predict_proba(X)
    )


def test_the_order_of_a_dict_does_not_matter():
    clf = fit()

    turned = {name: X[name] for name in reversed(X)}

    np.testing.assert_array_equal(clf.predict_proba(turned), clf.predict_proba(X))


def test_tensors_and_frames_may_be_among_them():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Linear(2, 3)

        def forward(self, a, b):
            return self.output(a + b)

    frame = pd.DataFrame(PICTURES[:, 0, 0, :2], columns=["u", "v"])
    clf = fit({"a": frame, "b": torch.from_numpy(PICTURES[:, 1, 0, :2])}, Sum)

    plain = fit({"a": frame.to_numpy(), "b": PICTURES[:, 1, 0, :2]}, Sum)
    assert clf.history_["loss"].tolist() == plain.history_["loss"].tolist()


def test_validation_weights_and_splits_follow_the_rows():
    weight = RNG.uniform(0, 1, 60).round()  # zeros leave rows out

    clf = Estimator(Two, validation_split=0.25, **SETTINGS).fit(X, LABELS, sample_weight=weight)

    assert clf.history_[-1]["val_accuracy"] > 0.5
    kept = weight > 0
    subset = {name: one[kept] for name, one in X.items()}
    expected = Estimator(Two, validation_split=0.25, **SETTINGS).fit(subset, LABELS[kept])
    np.testing.assert_allclose(clf.history_["loss"], expected.history_["loss"], rtol=1e-5)


def test_scikit_learn_splits_the_wrapper():
    wrapped = MultiInput(X)

    scores = cross_val_score(Estimator(Two, **SETTINGS), wrapped, LABELS, cv=3)
    search = GridSearchCV(Estimator(Two, **SETTINGS), {"lr": [0.05, 1e-5]}, cv=2)

    assert len(scores) == 3
    assert scores.min() > 0.5
    assert search.fit(wrapped, LABELS).best_params_ == {"lr": 0.05}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (np.array([4, 0]), [4, 0]),
        (np.arange(5) == 2, [2]),
        ((np.array([3]), ...), [3]),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_the_wrapper_is_indexed_by_rows(rows, expected, kind):
    numbers = np.arange(5)
    wrapped = MultiInput({"a": kind(numbers), "b": numbers})

    taken = wrapped[rows]

    assert len(wrapped) == wrapped.shape[0] == 5
    assert [int(one) for one in taken.inputs["a"]] == expected
    assert taken.inputs["b"].tolist() == expected
    assert isinstance(MultiInput((numbers, numbers))[rows].inputs, tuple)


def test_the_wrapper_says_what_it_holds():
    assert repr(MultiInput(X)) == "MultiInput(picture: (60, 2, 6, 6), token: (60,))"


@pytest.mark.parametrize("inputs", [{}, (), {"a": np.zeros(3), "b": np.zeros(4)}])
def test_inputs_of_other_lengths_are_refused(inputs):
    with pytest.raises(ValueError, match="numbers of rows"):
        MultiInput(inputs)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"picture": PICTURES}, r"inputs \['picture'\].*\['picture', 'token'\]"),
        ((PICTURES, TOKENS), "inputs"),
        ({"picture": PICTURES[:, :, :5], "token": TOKENS}, r"\(2, 5, 6\).*\(2, 6, 6\)"),
        (PICTURES, "expecting"),
    ],
)
def test_other_inputs_than_in_fit_are_refused(other, words):
    clf = fit()

    with pytest.raises(ValueError, match=words):
        clf.predict(other)


def test_nan_is_refused_with_the_name_of_the_input():
    wrong = PICTURES.copy()
    wrong[7, 0, 0, 0] = np.nan

    with pytest.raises(ValueError, match=r"NaN.*row 7 of X\['picture'\]"):
        fit({"picture": wrong, "token": TOKENS})


def test_text_is_refused_with_the_name_of_the_input():
    with pytest.raises(ValueError, match=r"could not convert|text|string"):
        fit({"picture": PICTURES, "token": np.array(["a"] * 60)})


def test_the_default_module_takes_one_input():
    with pytest.raises(TypeError, match=r"several inputs.*default module takes one"):
        fit(module=None)


def test_integers_that_are_not_looked_up_are_numbers():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer = nn.EmbeddingBag(9, 4), nn.Linear(2, 4)
            self.output = nn.Linear(4, 3)

        def forward(self, token, number):
            return self.output(self.embedding(token) + self.layer(number))

    tokens, numbers = RNG.integers(0, 9, (60, 3)), RNG.integers(0, 5, (60, 2))
    clf = fit({"token": tokens, "number": numbers}, Mixed())

    as_floats = {"token": tokens, "number": numbers.astype(float)}
    np.testing.assert_array_equal(
        clf.predict_proba({"token": tokens, "number": numbers}), clf.predict_proba(as_floats)
    )
    assert clf.predict({"token": tokens, "number": numbers + 0.5}).shape == (60,)
    with pytest.raises(RuntimeError, match="indices"):
        clf.predict({"token": tokens + 0.5, "number": numbers})


def test_a_list_of_inputs_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"list of 2 arrays of shapes.*as a tuple or a dict"):
        fit([PICTURES, TOKENS[:, None]])


def test_rows_of_different_lengths_are_told_from_inputs():
    words = r"list of 2000 arrays of shapes \[\(2,\), \(3,\), \(2,\), \(3,\)\]\.\.\.; .*one length"
    with pytest.raises(ValueError, match=words):
        Estimator().fit([np.zeros(2), np.zeros(3)] * 1000, [0, 1] * 1000)


def test_the_columns_of_several_frames_keep_their_order():
    a, b = pd.DataFrame({"p": range(8), "q": range(8)}), np.zeros((8, 1))
    clf = Estimator(SideBySide(), epochs=1).fit({"a": a, "b": b}, [0, 1] * 4)

    clf.predict({"a": a.to_numpy(), "b": b})
    with pytest.raises(ValueError, match=r"names of X\['a'\] should match.*\['q', 'p'\]"):
        clf.predict({"a": a[["q", "p"]], "b": b})


class SideBySide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], 1))
