"""Weights alone: written for other libraries, read from them, before and after `fit`."""

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from easyclf import Estimator, InvalidFile
from easyclf.weights import put_weights, read_weights, weights_of, write_weights
from saved_modules import Lazy, Net


def fitted(blobs, module=None, **parameters):
    settings = {"epochs": 2, "random_state": 0, "compile": False}
    return Estimator(module, **{**settings, **parameters}).fit(*blobs)


@pytest.mark.parametrize("module", [None, Net, Lazy, nn.Linear])
def test_a_first_fit_begins_with_the_weights_of_a_file(blobs, tmp_path, module):
    clf = fitted(blobs, module)
    clf.save_weights(tmp_path / "w.safetensors")

    other = Estimator(module, epochs=0, random_state=5).load_weights(tmp_path / "w.safetensors")
    other.fit(*blobs)

    ours, theirs = clf.module_.state_dict(), other.module_.state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in ours.items())
    if module is not Net:  # which has a buffer that no state dict has
        assert np.array_equal(clf.predict_proba(blobs[0]), other.predict_proba(blobs[0]))


def test_the_default_module_keeps_the_columns_of_a_file(blobs, tmp_path):
    X, y = blobs
    clf = fitted((X, y))
    clf.save_weights(tmp_path / "w.safetensors")

    other = Estimator(epochs=0).load_weights(tmp_path / "w.safetensors").fit(100 * X + 5, y)
    before = other.predict_proba(X)
    other.set_params(lr=1e-12).partial_fit(X - 1, y)

    assert np.array_equal(clf.predict_proba(X), before)
    assert np.allclose(before, other.predict_proba(X), atol=1e-4)


def test_the_weights_count_for_the_first_fit_alone(blobs, tmp_path):
    clf = fitted(blobs)
    clf.save_weights(tmp_path / "w.safetensors")
    other = Estimator(epochs=0, random_state=5).load_weights(tmp_path / "w.safetensors")

    first = other.fit(*blobs).module_.layers[0].weight
    second = other.fit(*blobs).module_.layers[0].weight

    assert torch.equal(first, clf.module_.layers[0].weight)
    assert not torch.equal(first, second)
    assert "_initial_weights" not in other.__getstate__()


def test_weights_take_the_place_of_those_that_were_learned(blobs, tmp_path):
    clf, other = fitted(blobs), fitted(blobs, random_state=1)
    clf.save_weights(tmp_path / "w.safetensors")
    before = other.module_

    other.load_weights(tmp_path / "w.safetensors")

    assert np.array_equal(clf.predict_proba(blobs[0]), other.predict_proba(blobs[0]))
    assert other.module_ is not before
    held = {id(w) for group in other.optimizer_.param_groups for w in group["params"]}
    assert held == {id(weight) for weight in other.module_.parameters()}
    other.partial_fit(*blobs)


def test_columns_that_float32_cannot_hold_go_with_the_weights(tmp_path):
    X = np.stack([1.7e9 + np.arange(20.0), np.arange(20.0)], 1)
    y = np.arange(20) % 2
    clf, other = fitted((X, y)), fitted((X + 1e6, y), random_state=1)
    clf.save_weights(tmp_path / "w.safetensors")

    other.load_weights(tmp_path / "w.safetensors")

    assert np.array_equal(clf.predict_proba(X), other.predict_proba(X))


def test_other_libraries_read_and_write_the_file(blobs, network, tmp_path):
    clf = fitted(blobs, network)
    clf.save_weights(tmp_path / "w.safetensors")

    theirs = safetensors.torch.load_file(tmp_path / "w.safetensors")
    safetensors.torch.save_file({n: w + 1 for n, w in theirs.items()}, tmp_path / "v.safetensors")
    clf.load_weights(tmp_path / "v.safetensors")

    assert all(torch.equal(w, theirs[n] + 1) for n, w in clf.module_.state_dict().items())


def test_tied_weights_are_those_that_other_libraries_expect(tmp_path):
    module = Net(4, 3, tied=True)
    write_weights(tmp_path / "ours.safetensors", module)
    safetensors.torch.save_model(module, tmp_path / "theirs.safetensors")

    for name in ("ours", "theirs"):
        other = Net(4, 3, tied=True)
        put_weights(other, read_weights(tmp_path / f"{name}.safetensors"))
        assert torch.equal(other.third.weight, module.second.weight)
    missing, _ = safetensors.torch.load_model(Net(4, 3, tied=True), tmp_path / "ours.safetensors")
    assert not missing


@pytest.mark.parametrize("is_zip", [True, False])
def test_state_dicts_of_torch_are_read(blobs, network, tmp_path, is_zip):
    clf = fitted(blobs, network)
    torch.save(clf.module_.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=is_zip)

    other = Estimator(network, epochs=0).load_weights(tmp_path / "w.pt").fit(*blobs)

    assert np.array_equal(clf.predict_proba(blobs[0]), other.predict_proba(blobs[0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"state_dict": {}, "epoch": 3},
            r"other things than tensors under \['state_dict', 'epoch'",
        ),
        ([1, 2], "holds a list, and no state dict"),
        (nn.Linear, "no state dict that"),
    ],
    ids=["checkpoint", "list", "class"],
)
def test_other_files_of_torch_are_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pt")

    with pytest.raises(InvalidFile, match=f"w.pt' cannot be read: .*{words}"):
        Estimator().load_weights(tmp_path / "w.pt")


def test_files_that_are_cut_are_refused(tmp_path):
    torch.save({"w": torch.ones(100)}, tmp_path / "w.pt")
    write_weights(tmp_path / "w.safetensors", nn.Linear(4, 3))

    for name in ("w.pt", "w.safetensors"):
        data = (tmp_path / name).read_bytes()
        for size in range(0, len(data), 37):
            (tmp_path / "cut").write_bytes(data[:size])
            with pytest.raises(InvalidFile, match="cut' cannot be read"):
                read_weights(tmp_path / "cut")


def test_names_that_differ_are_listed_with_the_nearest():
    weights = {f"body.{name}": weight for name, weight in weights_of(Net(4, 3)).items()}
    weights["head"] = torch.zeros(2)

    with pytest.raises(ValueError, match="The weights do not fit Net") as told:
        put_weights(Net(4, 3), weights)

    assert "`body.first.weight` is not in the module, which has `first.weight`;" in str(told.value)
    assert "; and 4 more. Expected the weights of the same architecture." in str(told.value)


def test_missing_names_and_other_shapes_are_listed():
    weights = weights_of(Net(4, 3, hidden=5))
    del weights["scale"]

    with pytest.raises(ValueError, match="`scale` is not among them; ") as told:
        put_weights(Net(4, 3), weights)

    assert "`first.weight` has shape (5, 4), not (6, 4)" in str(told.value)
    assert "; use strict=False to take those that do." in str(told.value)


def test_weights_that_fit_are_taken_if_asked_for(blobs, tmp_path):
    weights = weights_of(Net(4, 2, hidden=6))
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    clf = Estimator(Net, epochs=0).load_weights(tmp_path / "w.safetensors", strict=False)

    with pytest.warns(
        UserWarning, match=r"9 of 11 weights .* were taken: `last\.weight` has shape"
    ):
        clf.fit(*blobs)

    assert torch.equal(clf.module_.first.weight, weights["first.weight"])
    with pytest.raises(ValueError, match="do not fit Linear"):
        put_weights(nn.Linear(1, 1), weights, strict=False)


def test_weights_that_do_not_fit_leave_all_as_it_was(blobs, tmp_path):
    clf = fitted(blobs)
    write_weights(tmp_path / "w.safetensors", Net(4, 3))
    before = clf.predict_proba(blobs[0])

    with pytest.raises(ValueError, match="do not fit MLP"):
        clf.load_weights(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not fit Linear"):
        Estimator(nn.Linear).load_weights(tmp_path / "w.safetensors").fit(*blobs)

    assert np.array_equal(before, clf.predict_proba(blobs[0]))


def test_half_the_bits_come_back(tmp_path):
    module = nn.Linear(4, 3).to(torch.bfloat16)
    write_weights(tmp_path / "w.safetensors", module)

    assert torch.equal(read_weights(tmp_path / "w.safetensors")["weight"], module.weight)


def test_only_what_was_fitted_has_weights(tmp_path):
    with pytest.raises(NotFittedError):
        Estimator().save_weights(tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        Estimator().load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("method", "name", "words"),
    [
        ("save_weights", "w.pt", r"suffix of files of torch, .*call it '.*w\.safetensors'"),
        ("save_weights", "w.H5", r"suffix of files of Keras, .*call it '.*w\.safetensors'"),
        ("save_weights", "w.easyclf", r"suffix of what `save` writes, .*w\.safetensors'"),
        ("save", "x.pth", r"suffix of files of torch, .*call it '.*x\.easyclf'"),
        ("save", "x.onnx", r"suffix of what `export` writes, .*x\.easyclf'"),
        ("save", "x.safetensors", r"suffix of what `save_weights` writes, .*x\.easyclf'"),
    ],
)
def test_names_that_other_programs_misread_are_refused(blobs, tmp_path, method, name, words):
    clf = fitted(blobs)

    with pytest.raises(ValueError, match=words):
        getattr(clf, method)(tmp_path / name)

    assert not list(tmp_path.iterdir())
    getattr(clf, method)(tmp_path / "v1.2")
    getattr(clf, method)(tmp_path / "plain")
