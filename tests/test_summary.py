"""Summaries of modules: exact totals, shapes, and a module that stays as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from easyclf import MLP, Estimator
from easyclf.summary import summarize


class Tied(nn.Module):
    """A weight and a layer that are there twice, and an output in a tuple."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.again = self.inner
        self.outer = nn.Linear(4, 4, bias=False)
        self.outer.weight = self.inner.weight
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x = self.outer(self.again(self.inner(x)))
        return self.last(x), x


class Counting(nn.Module):
    """A module that changes a buffer whenever it is called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("n_calls", torch.zeros(()))

    def forward(self, x):
        self.n_calls += 1
        return self.layer(x)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(5, 3)

    def forward(self, a, b):
        return self.left(a) + self.right(b)


def fit(module, X, y, **parameters):
    return Estimator(module, epochs=1, random_state=0, **parameters).fit(X, y)


def by_name(summary):
    return {layer.name: layer for layer in summary.layers}


def count(module):
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    "module",
    [
        None,
        nn.Linear(4, 3),
        nn.Sequential(nn.LazyLinear(8), nn.BatchNorm1d(8), nn.ReLU(), nn.LazyLinear(3)),
        nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)
        ),
        Counting(),
    ],
    ids=["default", "a layer", "lazy", "convolution", "counting"],
)
def test_totals_are_those_of_the_module(module, blobs):
    clf = fit(module, *blobs)

    summary = clf.summary()

    assert summary.n_parameters == summary.n_trainable == count(clf.module_)
    weights = sum(weight.nbytes for weight in clf.module_.parameters())
    assert summary.memory["weights"] == weights
    assert summary.layers[0].outputs == ((summary.n_rows, 3),)


def test_what_is_shared_counts_once(blobs):
    clf = fit(Tied(), *blobs, output=0)

    summary = clf.summary()

    layers = by_name(summary)
    assert summary.n_parameters == count(clf.module_) == 20 + 15
    assert (layers["inner"].n_parameters, layers["outer"].n_parameters) == (20, 0)
    assert layers["again"].shared_with == "inner"
    assert layers[""].outputs == ((summary.n_rows, 3), (summary.n_rows, 4))
    assert "Linear (is inner)" in str(summary)
    assert "(n, 3), (n, 4)" in str(summary)


def test_frozen_weights_are_not_trained(blobs, network):
    clf = fit(network, *blobs, freeze="0")

    summary = clf.summary()

    assert (by_name(summary)["0"].n_parameters, by_name(summary)["0"].n_trainable) == (40, 0)
    assert (summary.n_parameters, summary.n_trainable) == (67, 27)
    assert "67 parameters, 27 trained" in str(summary)


def test_a_buffer_that_gives_way_to_another_tensor_is_put_back(blobs):
    class Replacing(Counting):
        def forward(self, x):
            self.n_calls = self.n_calls + 1
            return self.layer(x)

    clf = fit(Replacing(), *blobs)
    buffer, n_calls = clf.module_.n_calls, clf.module_.n_calls.item()

    clf.summary()

    assert clf.module_.n_calls is buffer
    assert buffer.item() == n_calls


@pytest.mark.parametrize("n_given", [1, 2, 3])
def test_fewer_rows_than_are_passed_are_repeated(n_given, blobs):
    clf = fit(nn.Linear(4, 3), *blobs)

    assert str(clf.summary(blobs[0][:n_given])) == str(clf.summary())


@pytest.mark.parametrize("is_training", [True, False])
def test_the_module_stays_as_it_was(is_training, blobs):
    clf = fit(nn.Sequential(Counting(), nn.BatchNorm1d(3)), *blobs)
    module = clf.module_.train(is_training)
    module[1].train(not is_training)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    summary = summarize(module, None, lambda n_rows: module(torch.ones(n_rows, 4)))

    assert summary.layers[0].outputs
    assert [layer.training for layer in module] == [is_training, not is_training]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


def test_hooks_are_removed_after_a_failure(network):
    def fail(n_rows):
        network(torch.ones(n_rows, 4))
        raise ZeroDivisionError("no such rows")

    summary = summarize(network, None, fail)

    assert not any(layer._forward_hooks for layer in network.modules())
    assert "no shapes" in str(summary)
    assert "ZeroDivisionError: no such rows" in str(summary)
    assert "output" not in str(summary).splitlines()[0]
    assert summary.n_parameters == 67


def test_rows_go_the_way_of_prediction(blobs):
    """The default module is given centred rows; others what `preprocess` makes of them."""
    seen = []

    class Noting(MLP):
        def forward(self, x):
            if not self.training:
                seen.append(x)
            return super().forward(x)

    X, y = blobs[0] + 1000, blobs[1]
    clf = fit(Noting, X, y, preprocess=lambda x: x[:, :3])
    clf.predict(X[:3])
    expected = seen[-1]

    clf.summary(X)

    assert expected.shape == (3, 3)
    assert torch.equal(seen[-1][:3], expected)


@pytest.mark.parametrize("as_dict", [True, False])
def test_several_inputs_need_no_rows_after_fit(as_dict, blobs):
    a, b = np.ones((30, 2), np.float32), np.ones((30, 5), np.float32)
    X = {"a": a, "b": b} if as_dict else (a, b)

    summary = fit(Two(), X, blobs[1]).summary()

    assert by_name(summary)["right"].outputs == ((summary.n_rows, 3),)


def test_tokens_need_no_rows_after_fit(blobs):
    module = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(20, 3))

    summary = fit(module, np.arange(120).reshape(30, 4) % 9, blobs[1]).summary()

    assert by_name(summary)["0"].outputs == ((summary.n_rows, 4, 5),)


def test_frames_need_no_rows_after_fit():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame({"age": [20.0, None] * 5, "sex": ["f", "m"] * 5})

    clf = fit(None, X, [0, 1] * 5)

    assert str(clf.summary()) == str(clf.summary(X))
    assert by_name(clf.summary())["layers.0"].outputs == ((clf.summary().n_rows, 128),)


def test_where_zeros_do_not_pass_rows_of_the_user_do(blobs):
    class Picky(nn.Linear):
        def forward(self, x):
            assert x.any(), "zeros"
            return super().forward(x)

    clf = fit(Picky(4, 3), *blobs)

    assert "give rows of yours: `summary(X)`" in str(clf.summary())
    summary = clf.summary(blobs[0])
    assert summary.layers[0].outputs == ((summary.n_rows, 3),)


def test_before_fit_the_module_is_built_and_the_estimator_stays_as_it_was(blobs, random_states):
    clf = Estimator(nn.LazyLinear(3), random_state=np.random.RandomState(0))
    drawn, states, given = (
        clf.random_state.get_state()[1].tolist(),
        random_states(),
        dict(vars(clf)),
    )

    summary = clf.summary(*blobs)

    assert summary.n_parameters == 15
    assert vars(clf) == given
    assert clf.random_state.get_state()[1].tolist() == drawn
    assert random_states() == states
    assert not hasattr(clf, "module_")


def test_before_fit_nothing_is_held_out_or_measured(blobs):
    """Three rows cannot be stratified, of which `fit` warns."""
    X, y = (part[:3] for part in blobs)
    clf = Estimator(nn.Linear, validation_split=0.5, metrics=["of nobody"])

    assert clf.summary(X, y).n_parameters == 15


def test_before_fit_the_weights_of_a_file_count(blobs, tmp_path):
    Estimator(nn.Linear, epochs=0).fit(*blobs).save_weights(tmp_path / "w.safetensors")

    clf = Estimator(nn.Linear).load_weights(tmp_path / "w.safetensors")

    assert clf.summary(*blobs).n_parameters == 15
    with pytest.raises(ValueError, match="weights do not fit MLP"):
        clf.set_params(module=None).summary(*blobs)


def test_before_fit_rows_are_needed():
    with pytest.raises(ValueError, match=r"call `summary\(X, y\)`"):
        Estimator().summary()


def test_numbers_are_as_large_as_they_are(blobs):
    clf = fit(nn.Linear(4, 3), *blobs, optimizer="adam")

    summary = clf.summary()

    # Two averages of each weight, and two counts of the steps.
    assert summary.memory == {
        "weights": 60,
        "buffers": 0,
        "optimizer": 128,
        "outputs": 12,
    }
    assert str(summary).splitlines()[-1] == (
        "memory: weights 60 bytes, optimizer 128 bytes, outputs 12 bytes a row"
    )


def test_rows_are_found_where_recurrent_layers_have_them():
    lstm = nn.LSTM(4, 8, num_layers=3, batch_first=True)

    text = str(summarize(lstm, None, lambda n_rows: lstm(torch.ones(n_rows, 5, 4))))

    assert "(n, 5, 8), (3, n, 8), (3, n, 8)" in text


def test_text_is_aligned(blobs, network):
    lines = repr(fit(network, *blobs).summary()).splitlines()

    assert lines[:5] == [
        "layer    kind        output  parameters  trained",
        "module_  Sequential  (n, 3)",
        "0        Linear      (n, 8)          40       40",
        "1        Tanh        (n, 8)",
        "2        Linear      (n, 3)          27       27",
    ]


def test_html_is_a_table_of_harmless_words(blobs):
    script = type("<script>alert(1)</script>", (nn.Linear,), {})

    html = fit(script(4, 3), *blobs).summary()._repr_html_()

    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.count("<tr>") == 2


def test_a_long_table_says_what_it_leaves_out(blobs):
    clf = fit(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), *blobs)

    table = clf.summary().table(2)

    assert table.count("<tr>") == 3
    assert "and 2 more" in table
