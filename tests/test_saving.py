"""An estimator that was saved and loaded answers, and goes on, as the one that was saved."""

import pickle
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

import saved_modules
from easyclf import MLP, Checkpoint, EarlyStopping, Estimator, InvalidFile, archives
from easyclf.archives import read_archive, write_archive
from easyclf.saving import VERSION
from saved_modules import Ending, Halves, Lazy, Net, Pictures, make_net


def fitted(X, y, **parameters):
    settings = {"epochs": 3, "random_state": 0, "compile": False, "lr": 0.01}
    return Estimator(**{**settings, **parameters}).fit(X, y)


def reloaded(clf, folder, **given):
    """The estimator, saved without a warning and loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.save(folder / "clf.easyclf")
        return type(clf).load(folder / "clf.easyclf", **given)


def assert_same(clf, other, X, *, with_seconds=True):
    assert np.array_equal(clf.predict_proba(X), other.predict_proba(X))
    assert clf.classes_.dtype == other.classes_.dtype
    assert np.array_equal(clf.classes_, other.classes_)
    if with_seconds:
        assert repr(list(clf.history_)) == repr(list(other.history_))
    ours, theirs = clf.module_.state_dict(), other.module_.state_dict()
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        assert theirs[name].dtype == weight.dtype
        assert torch.equal(theirs[name], weight)
    trainable = [[w.requires_grad for w in c.module_.parameters()] for c in (clf, other)]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("speed", [False, "auto"])
@pytest.mark.parametrize("further", ["partial_fit", "warm_start"])
def test_a_further_fit_goes_on_as_it_would_have(blobs, tmp_path, further, speed):
    clf = fitted(*blobs, compile=speed)
    other = reloaded(clf, tmp_path)
    assert_same(clf, other, blobs[0])

    for estimator in (clf, other):
        if further == "warm_start":
            estimator.set_params(warm_start=True).fit(*blobs)
        else:
            estimator.partial_fit(*blobs)

    seconds = [estimator.history_["loss"].tolist() for estimator in (clf, other)]
    assert seconds[0] == seconds[1]
    assert np.array_equal(clf.predict_proba(blobs[0]), other.predict_proba(blobs[0]))


@pytest.mark.parametrize(
    "parameters",
    [
        {"optimizer": "sgd", "optimizer__momentum": 0.9},
        {"optimizer": torch.optim.RMSprop, "optimizer__centered": True},
        {"optimizer": "lbfgs"},
        {"optimizer": "adafactor"},
        {"optimizer": "adamw", "optimizer__amsgrad": True, "lr": {"layers.0": 0.1, "*": 0.01}},
        {"freeze": "layers.0"},
        {"precision": "float64"},
        {"precision": "bf16"},
        {"class_weight": {0: 2.0, 1: 1.0}, "classes": [0, 1, 2]},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"loss": "cross_entropy", "loss__weight": torch.tensor([1.0, 2.0, 3.0])},
        {"loss": nn.CrossEntropyLoss, "loss__label_smoothing": 0.1, "class_weight": "balanced"},
        {"module__hidden": (5, 4), "module__activation": nn.GELU, "module__dropout": 0.5},
        {"module__activation": torch.tanh.__name__, "clip_grad_norm": 1.0, "accumulate": 2},
        {"metrics": ["f1_macro"], "validation_split": 0.3},
        {"random_state": np.random.RandomState(3)},
        {"verbose": 0, "batch_size": 7, "shuffle": False, "device": torch.device("cpu")},
    ],
    ids=lambda parameters: " ".join(parameters),
)
def test_all_kinds_of_parameters_come_back(blobs, tmp_path, parameters):
    X, y = blobs
    clf = fitted(X, y, **parameters)

    other = reloaded(clf, tmp_path)

    assert_same(clf, other, X)
    addresses = re.compile(" at 0x[0-9A-F]+")
    assert addresses.sub("", repr(clf)) == addresses.sub("", repr(other))
    assert clf.evaluate(X, y) == other.evaluate(X, y)
    for estimator in (clf, other):
        estimator.partial_fit(X, y) if clf.class_weight != "balanced" else None
    assert np.array_equal(clf.predict_proba(X), other.predict_proba(X))


LABELS = {
    "texts": np.array(["a", "ü", "long name"]),
    "objects": np.array(["b", "a", "c"], dtype=object),
    "bytes": np.array([b"x", b"yy", b"z"]),
    "floats": np.array([0.0, -1.0, 2.0]),
    "float32": np.array([0.0, -1.0, 7.0], dtype=np.float32),
    "gaps": np.array([0, 5, 9]),
    "negative": np.array([-3, 0, 2**40]),
    "uint8": np.array([7, 1, 255], dtype=np.uint8),
    "dates": np.array(["2020-01-01", "2021-01-01", "2022-05-05"], dtype="M8[D]"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_dtype_come_back(blobs, tmp_path, kind):
    X, y = blobs
    clf = fitted(X, LABELS[kind][y], epochs=1)

    other = reloaded(clf, tmp_path)

    assert_same(clf, other, X)
    assert clf.predict(X).dtype == other.predict(X).dtype
    assert clf.predict(X).tolist() == other.predict(X).tolist()
    other.partial_fit(X, LABELS[kind][y])


def test_two_classes_and_several_labels_come_back(blobs, tmp_path):
    X, y = blobs
    for labels in (y > 0, (y > 0).astype(float)[:, None].ravel(), np.eye(3, dtype=int)[y][:, :2]):
        clf = fitted(X, labels)
        other = reloaded(clf, tmp_path)
        assert_same(clf, other, X)
        assert clf.evaluate(X, labels) == other.evaluate(X, labels)


@pytest.mark.parametrize(
    ("n_outputs", "end", "loss", "n_classes"),
    [
        (3, None, "auto", 3),
        (3, "softmax", "auto", 3),
        (3, "softmax", "nll", 3),
        (3, "log_softmax", "auto", 3),
        (3, "sigmoid", "bce", 3),
        (3, None, "bce_with_logits", 3),
        (1, None, "auto", 2),
        (1, "sigmoid", "auto", 2),
        (3, None, nn.MultiMarginLoss, 3),
    ],
)
def test_outputs_of_every_kind_come_back(blobs, tmp_path, n_outputs, end, loss, n_classes):
    X, y = blobs
    y = np.minimum(y, n_classes - 1)
    parameters = {"module__n_outputs": n_outputs, "module__end": end, "loss": loss}
    clf = fitted(X, y, module=Ending, **parameters)

    other = reloaded(clf, tmp_path, module=Ending)

    assert_same(clf, other, X)
    assert clf.evaluate(X, y) == other.evaluate(X, y)
    assert np.array_equal(clf.decision_function(X), other.decision_function(X))


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (nn.Linear, {}),
        (MLP, {"module__hidden": ()}),
        (Net, {"module__hidden": 3, "module__tied": True}),
        (Lazy, {}),
        (Halves, {}),
        (make_net, {}),
        (lambda n_features, n_classes: Net(n_features, n_classes), {}),
    ],
    ids=["linear", "mlp", "net", "lazy", "halves", "function", "lambda"],
)
def test_modules_come_back(blobs, tmp_path, module, parameters):
    X, y = blobs
    clf = fitted(X, y, module=module, **parameters)
    is_known = module in (nn.Linear, MLP)

    other = reloaded(clf, tmp_path, **({} if is_known else {"module": module}))

    assert_same(clf, other, X)
    assert other.module is module
    assert type(other.module_) is type(clf.module_)
    if module is Net:
        assert other.module_.third.weight is other.module_.second.weight


def test_an_instance_comes_back_into_an_instance(blobs, network, tmp_path):
    clf = fitted(*blobs, module=network)

    other = reloaded(clf, tmp_path, module=network)

    assert_same(clf, other, blobs[0])
    assert other.module_ is not network


def test_buffers_that_no_state_dict_has_come_back(blobs, tmp_path):
    clf = fitted(*blobs, module=Net)
    clf.module_.unsaved.fill_(7.0)

    other = reloaded(clf, tmp_path, module=Net)

    assert other.module_.unsaved == 7.0


def test_weights_of_any_dtype_come_back(blobs, tmp_path):
    clf = fitted(*blobs, module=Net)
    clf.module_.scale.data = clf.module_.scale.to(torch.bfloat16)

    other = reloaded(clf, tmp_path, module=Net)

    assert other.module_.scale.dtype == torch.bfloat16
    assert_same(clf, other, blobs[0])


def test_pictures_come_back_in_their_layout(tmp_path):
    X = np.random.default_rng(0).integers(0, 255, size=(8, 9, 9, 3), dtype=np.uint8)
    y = np.arange(8) % 2
    clf = fitted(X, y, module=Pictures)

    other = reloaded(clf, tmp_path, module=Pictures)

    assert_same(clf, other, X)
    weights = [c.module_.layers[0].weight for c in (clf, other)]
    assert weights[0].is_contiguous(memory_format=torch.channels_last)
    assert weights[0].stride() == weights[1].stride()
    for estimator in (clf, other):
        estimator.partial_fit(X, y)
    assert_same(clf, other, X, with_seconds=False)


def test_models_of_torchvision_come_back(tmp_path):
    X = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    clf = fitted(X, [0, 1, 0, 1], module="squeezenet1_1", epochs=1)

    assert_same(clf, reloaded(clf, tmp_path), X)


def test_frames_come_back(tmp_path):
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": [20.0, None, 30.0, 40.0] * 60,
            "none": [np.nan] * 240,
            "all": rng.normal(size=240),
            "town": rng.choice([*"abcde", "rare"], p=[0.3, 0.2, 0.2, 0.2, 0.09, 0.01], size=240),
            "code": rng.choice([1, 2, None], size=240),
            "only": ["rare"] * 240,
        }
    ).astype({"code": "object", "town": "category"})
    frame.loc[:2, "only"] = ["x", "y", "z"]
    y = rng.choice(["no", "yes"], size=240)
    clf = fitted(frame, y)

    other = reloaded(clf, tmp_path)
    strange = frame.assign(town="never seen", age=None).astype({"age": "float64"})

    assert_same(clf, other, frame)
    with pytest.warns(UserWarning, match="not seen"):
        assert np.array_equal(clf.predict_proba(strange), other.predict_proba(strange))
    assert clf.get_feature_names_out().tolist() == other.get_feature_names_out().tolist()
    assert other.feature_names_in_.tolist() == list(frame.columns)
    assert other.n_features_in_ == 6
    with pytest.raises(ValueError, match="feature names should match"):
        other.predict(frame.rename(columns={"age": "years"}))


def test_several_inputs_and_tokens_come_back(tmp_path):
    class Both(nn.Module):
        def __init__(self, n_classes):
            super().__init__()
            self.table, self.last = nn.Embedding(5, 3), nn.Linear(3 + 2, n_classes)

        def forward(self, words, numbers):
            return self.last(torch.cat([self.table(words).mean(1), numbers], 1))

    X = {"words": np.arange(24).reshape(12, 2) % 5, "numbers": np.ones((12, 2))}
    clf = fitted(X, np.arange(12) % 3, module=Both)

    other = reloaded(clf, tmp_path, module=Both)

    assert_same(clf, other, X)


def test_columns_that_float32_cannot_hold_come_back(tmp_path):
    X = np.stack([1.7e9 + np.arange(20.0), np.arange(20.0)], 1)
    clf = fitted(X, np.arange(20) % 2)

    assert_same(clf, reloaded(clf, tmp_path), X)


def test_a_history_with_gaps_and_nan_comes_back(blobs, tmp_path):
    clf = fitted(*blobs)
    clf.history_._rows[1] |= {"mine": float("nan"), "loss": float("inf"), "whole": 3}

    other = reloaded(clf, tmp_path)

    assert repr(list(other.history_)) == repr(list(clf.history_))
    assert list(map(type, other.history_[1].values())) == list(map(type, clf.history_[1].values()))


def test_an_epoch_of_none_comes_back(blobs, tmp_path):
    clf = fitted(*blobs, epochs=0)

    assert_same(clf, reloaded(clf, tmp_path), blobs[0])


def test_weights_that_are_not_finite_come_back(blobs, tmp_path):
    clf = fitted(*blobs)
    with torch.no_grad():
        clf.module_.layers[0].weight[0, 0] = float("nan")
        clf.module_.layers[0].weight[0, 1] = -float("inf")

    other = reloaded(clf, tmp_path)

    weights = [c.module_.layers[0].weight for c in (clf, other)]
    assert np.array_equal(*[w.detach().numpy() for w in weights], equal_nan=True)


def test_what_files_cannot_hold_is_named_once_and_default_later(blobs, tmp_path):
    def own_loss(output, target):
        return nn.functional.cross_entropy(output, target)

    clf = fitted(
        *blobs,
        callbacks=[EarlyStopping("loss")],
        loss=own_loss,
        metrics=[("same", lambda t, p: 1.0)],
        augment=torch.nn.Identity(),
    )

    with pytest.warns(UserWarning, match=r"does not hold .*`callbacks` \(EarlyStopping\)") as told:
        clf.save(tmp_path / "clf.easyclf")
    other = Estimator.load(tmp_path / "clf.easyclf")
    again = Estimator.load(tmp_path / "clf.easyclf", loss=own_loss, callbacks=[EarlyStopping()])

    assert len(told) == 1
    for name in ("`loss` (function)", "`metrics` (function)", "`augment` (Identity)"):
        assert name in str(told[0].message)
    assert (other.callbacks, other.loss, other.metrics, other.augment) == (None, "auto", None, None)
    assert_same(clf, other, blobs[0])
    assert again.loss is own_loss
    assert len(again.callbacks) == 1
    assert again.evaluate(*blobs)["loss"] == clf.evaluate(*blobs)["loss"]


def test_preprocess_has_to_be_given_back(blobs, tmp_path):
    X, y = blobs
    clf = fitted(X, y, preprocess=torch.neg)
    with pytest.warns(UserWarning, match="preprocess"):
        clf.save(tmp_path / "clf.easyclf")

    other = Estimator.load(tmp_path / "clf.easyclf", preprocess=torch.neg)

    assert_same(clf, other, X)
    for given in ({}, {"preprocess": None}):
        with pytest.raises(InvalidFile, match=r"`preprocess` .*answers would be others; pass it"):
            Estimator.load(tmp_path / "clf.easyclf", **given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("output", lambda returned: returned[:, :3]), ("module__extra", [lambda x: x])],
    ids=["output", "module"],
)
def test_other_code_that_the_answers_depend_on_has_to_be_given_back(blobs, tmp_path, name, value):
    class WithExtra(nn.Linear):
        def __init__(self, in_features, out_features, extra=None):
            super().__init__(in_features, out_features)

    clf = fitted(*blobs, module=WithExtra, **{name: value})
    with pytest.warns(UserWarning, match=name):
        clf.save(tmp_path / "clf.easyclf")

    other = Estimator.load(tmp_path / "clf.easyclf", module=WithExtra, **{name: value})

    assert_same(clf, other, blobs[0])
    with pytest.raises(InvalidFile, match=f"`{name}`"):
        Estimator.load(tmp_path / "clf.easyclf", module=WithExtra)


def test_a_module_that_easyclf_does_not_know_is_named_and_not_imported(blobs, tmp_path):
    path = tmp_path / "clf.easyclf"
    clf = fitted(*blobs, module=Net)
    clf.save(path)

    with pytest.raises(InvalidFile, match=r"saved_modules\.Net.* `module=`, or trusted=\('saved_m"):
        Estimator.load(path)
    with pytest.raises(InvalidFile, match=r"saved_modules\.Net"):
        Estimator.load(path, trusted=["saved_modules.Other", "saved_modules"])

    assert_same(clf, Estimator.load(path, trusted="saved_modules.Net"), blobs[0])


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda n_features, n_classes: Net(n_features, n_classes), "function or object without"),
        (nn.Linear(4, 3), "an instance of .*Linear"),
    ],
    ids=["lambda", "instance"],
)
def test_factories_and_instances_have_to_be_given_back(blobs, tmp_path, module, words):
    fitted(*blobs, module=module).save(tmp_path / "clf.easyclf")

    with pytest.raises(InvalidFile, match=f"{words}.*pass the class, a factory or an instance"):
        Estimator.load(tmp_path / "clf.easyclf", trusted=["saved_modules.Net"])


@pytest.mark.parametrize("trusted", [True, 3, Net, [Net]])
def test_what_is_no_name_is_not_trusted(trusted):
    with pytest.raises(TypeError, match=r"`trusted` is .*; expected names .* passed as `module=`"):
        Estimator.load("any.easyclf", trusted=trusted)


def test_a_checkpoint_says_who_reads_it(blobs, tmp_path):
    Estimator(epochs=1, callbacks=[Checkpoint(tmp_path)]).fit(*blobs)

    with pytest.raises(InvalidFile, match=r"not 'estimator'; `fit` with `Checkpoint\(folder\)`"):
        Estimator.load(tmp_path / "epoch-000001.ckpt")


def test_trusted_names_that_do_not_exist_are_told(blobs, tmp_path, monkeypatch):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs, module=Net).save(path)
    monkeypatch.delattr(saved_modules, "Net")

    with pytest.raises(InvalidFile, match="AttributeError: module 'saved_modules' has no"):
        Estimator.load(path, trusted="saved_modules.Net")


def test_weights_of_another_architecture_are_listed(blobs, tmp_path):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs, module=Net).save(path)

    with pytest.raises(
        InvalidFile, match=r"do not fit Linear: .*`first\.weight` is not in the mod"
    ):
        Estimator.load(path, module=nn.Linear)
    with pytest.raises(InvalidFile, match=r"`first\.weight` has shape \(6, 4\), not \(5, 4\)"):
        Estimator.load(path, module=Net, module__hidden=5)


def reading_its_numbers(n_features, n_classes):
    """A factory that cannot build without memory."""
    module = Net(n_features, n_classes, hidden=5)
    return module if module.first.weight.sum().item() else None


@pytest.mark.parametrize("module", [Net(4, 3, hidden=5), reading_its_numbers])
def test_an_instance_of_another_shape_is_told_what_to_pass(blobs, module, tmp_path):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs, module=Net).save(path)

    with pytest.raises(InvalidFile, match="cannot be read: its weights do not fit Net: ") as told:
        Estimator.load(path, module=module)

    assert "`first.weight` has shape (6, 4), not (5, 4)" in str(told.value)
    assert "; pass a `module`, with its `module__*`, of the sizes that were" in str(told.value)
    assert "`load_weights(file, strict=False)`, from a file of `save_weights`" in str(told.value)


def test_files_are_for_their_class_of_estimators(blobs, tmp_path):
    class Narrow(Estimator):
        def __init__(self, units=3, **parameters):
            super().__init__(module=Net, module__hidden=units, **parameters)
            self.units = units

    clf = Narrow(units=4, epochs=2, random_state=0, lr=0.01).fit(*blobs)

    other = reloaded(clf, tmp_path)

    assert_same(clf, other, blobs[0])
    assert other.get_params() == clf.get_params()
    with pytest.raises(InvalidFile, match=r"a .*Narrow, not a Estimator; call `load` of the class"):
        Estimator.load(tmp_path / "clf.easyclf")


def test_only_what_was_fitted_is_saved(blobs, tmp_path):
    with pytest.raises(NotFittedError):
        Estimator().save(tmp_path / "clf.easyclf")
    with pytest.raises(FileNotFoundError, match="no folder"):
        fitted(*blobs).save(tmp_path / "missing" / "clf.easyclf")
    assert not list(tmp_path.iterdir())


def test_unknown_parameters_are_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(TypeError, match="unknown argument `calbacks`; did you mean `callbacks`"):
        Estimator.load(tmp_path / "missing", calbacks=[])


def test_a_module_with_other_things_than_tensors_is_refused(blobs, tmp_path):
    class Extra(nn.Linear):
        def __init__(self, in_features, out_features):
            super().__init__(in_features, out_features)

        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    clf = fitted(*blobs, module=Extra)

    with pytest.raises(TypeError, match="'_extra_state' in its `state_dict`, of type dict"):
        clf.save(tmp_path / "clf.easyclf")
    assert not list(tmp_path.iterdir())


def test_loading_changes_no_random_state_and_no_default(blobs, tmp_path, random_states):
    fitted(*blobs).save(tmp_path / "clf.easyclf")
    before = random_states()

    with torch.inference_mode():
        clf = Estimator.load(tmp_path / "clf.easyclf")
    clf.partial_fit(*blobs)

    assert random_states() == before


def test_a_file_is_small(tmp_path):
    X = np.random.default_rng(0).normal(size=(2_000, 4)).astype(np.float32)
    clf = fitted(X, np.arange(2_000) % 3, epochs=20, module__hidden=(4,))

    clf.save(tmp_path / "clf.easyclf")

    assert (tmp_path / "clf.easyclf").stat().st_size < 25_000


def test_nothing_of_a_pickle_is_executed(tmp_path):
    class Marks:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    data = pickle.dumps(Marks())
    (tmp_path / "clf.easyclf").write_bytes(data)
    torch.save({"w": Marks()}, tmp_path / "weights.pt")
    (tmp_path / "weights.pkl").write_bytes(data)

    with pytest.raises(InvalidFile, match="a pickle, which is never loaded here"):
        Estimator.load(tmp_path / "clf.easyclf")
    for name in ("weights.pt", "weights.pkl"):
        with pytest.raises(InvalidFile, match=r"no state dict that `torch.load` reads"):
            Estimator().load_weights(tmp_path / name)

    assert not (tmp_path / "executed").exists()


def changed(path, change):
    """Write the file anew, with right checksums, after its document was changed."""
    archive = read_archive(path, kind="estimator", version=1)
    change(archive.documents["estimator"])
    write_archive(path, archive.documents, archive.tensors, kind="estimator", version=1)


def pairs_of(described):
    return {key: position for position, (key, _) in enumerate(described["items"])}


def put(described, keys, value):
    """Put a value into nested encoded dicts."""
    *inner, last = keys
    for key in inner:
        described = described["items"][pairs_of(described)[key]][1]
    described["items"][pairs_of(described)[last]][1] = value


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("fitted", "module", "name"), "os.system", "os.system"),
        (("fitted", "module", "name"), "../x", r"\.\./x"),
        (("fitted", "module", "kind"), "torchvision", "not a torchvision classifier"),
        (("fitted", "module", "row_shape"), {"type": "tuple", "items": [10**9]}, "has shape"),
        (("fitted", "module", "n_outputs"), 10**12, "fit together|has shape"),
        (("fitted", "head", "type"), "Estimator", "KeyError"),
        (("fitted", "head", "loss"), {"type": "name", "name": "os.system"}, "unknown here"),
        (("fitted", "format", "arrange"), "__class__", "KeyError"),
        (("fitted", "classes"), [], "fit together"),
        (("fitted", "optimizer", "type"), "torch.optim.Optimizer", "KeyError"),
        (("fitted", "seed"), "x", "fit together"),
        (("parameters",), {"type": "dict", "items": [["eval", 1]]}, "no parameter `eval`"),
        (("class",), "Other", "it holds a Other, not a Estimator"),
    ],
)
def test_documents_that_say_other_things_are_refused(blobs, tmp_path, keys, value, words):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs, module=nn.Linear).save(path)
    changed(path, lambda document: put(document, keys, value))

    with pytest.raises(InvalidFile, match=words):
        Estimator.load(path)


def test_a_module_that_would_be_huge_is_refused_at_once(blobs, tmp_path):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs).save(path)
    keys = ("fitted", "module", "keywords")
    hidden = [["hidden", [3] * 20_000]]
    changed(path, lambda d: put(d, keys, {"type": "dict", "items": hidden}))

    with pytest.raises(InvalidFile, match="far more layers than it has weights"):
        Estimator.load(path)


@pytest.mark.parametrize("shape", [(2, 4), (), (4, 128), (512,)])
def test_a_state_that_a_kernel_would_read_beyond_is_refused(blobs, tmp_path, shape):
    path = tmp_path / "clf.easyclf"
    fitted(*blobs).save(path)
    archive = read_archive(path, kind="estimator", version=1)
    for name, tensor in archive.tensors["values"].items():
        if tensor.shape == (128, 4):
            archive.tensors["values"][name] = torch.zeros(shape)
    write_archive(path, archive.documents, archive.tensors, kind="estimator", version=1)

    with pytest.raises(InvalidFile, match="has the shape or the dtype of no weight"):
        Estimator.load(path)


VERSIONS = {name: version(name) for name in ("easyclf", "torch", "numpy", "scikit-learn")}


@pytest.mark.parametrize("name", ["torch", "numpy", "scikit-learn"])
def test_another_version_is_told_once_with_both(blobs, tmp_path, monkeypatch, name):
    path = tmp_path / "clf.easyclf"
    clf = fitted(*blobs)
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_versions", lambda: {**VERSIONS, name: "0.1.2"})
        clf.save(path)

    words = f"was written with {name} 0.1.2, and is read with {name} {re.escape(VERSIONS[name])}: "
    with pytest.warns(UserWarning, match=words) as told:
        again = Estimator.load(path)

    assert len(told) == 1
    assert told[0].filename == __file__
    assert np.array_equal(again.predict_proba(blobs[0]), clf.predict_proba(blobs[0]))
    again.save(path)
    Estimator.load(path)


def test_a_repaired_version_is_not_told(blobs, tmp_path, monkeypatch):
    repaired = {n: ".".join([*here.split(".")[:2], "99"]) for n, here in VERSIONS.items()}
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_versions", lambda: repaired)
        fitted(*blobs).save(tmp_path / "clf.easyclf")

    Estimator.load(tmp_path / "clf.easyclf")


# A process of its own, and eight that may write nothing.
MANY_READERS = """
import os, sys
import numpy as np, torch
from easyclf import Estimator

torch.set_num_threads(1)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
REFUSED = {"os.mkdir", "os.rename", "os.remove", "tempfile.mkstemp", "tempfile.mkdtemp"}

def refuse(event, arguments):
    if event in REFUSED or (event == "open" and arguments[2] & WRITES):
        raise PermissionError(f"{event} of {arguments}")

def answers():
    clf = Estimator.load("clf.easyclf", trusted=["saved_modules.Net"])
    return clf.predict_proba(np.load("X.npy"))

expected = np.load("proba.npy")
# torch's first optimizer imports what looks for a folder of its own.
assert np.array_equal(answers(), expected)
readers = []
for _ in range(8 if hasattr(os, "fork") else 0):
    reader = os.fork()
    if not reader:
        sys.addaudithook(refuse)
        os._exit(not np.array_equal(answers(), expected))
    readers.append(reader)
assert [os.waitpid(reader, 0)[1] for reader in readers] == [0] * len(readers)
"""


def test_other_processes_answer_the_same_eight_at_once_and_write_nothing(blobs, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    clf = fitted(*blobs, module=Net)
    clf.save(folder / "clf.easyclf")
    np.save(folder / "X.npy", blobs[0])
    np.save(folder / "proba.npy", clf.predict_proba(blobs[0]))
    before = sorted(folder.iterdir())
    folder.chmod(0o555)

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", MANY_READERS],
        cwd=folder,
        env={
            "PYTHONPATH": ":".join(map(str, sys.path)),
            "PATH": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    folder.chmod(0o755)

    assert not ended.returncode, ended.stderr
    assert sorted(folder.iterdir()) == before


GOLDEN = sorted(Path(__file__).with_name("golden").glob("*.easyclf"))


@pytest.mark.filterwarnings("ignore:.*golden.* was written with:UserWarning")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_files_of_every_format_are_read_for_good(path):
    X = np.linspace(-2, 2, 24).reshape(8, 3)

    clf = Estimator.load(path)

    assert clf.classes_.tolist() == ["maybe", "no", "yes"]
    assert np.allclose(clf.predict_proba(X), np.load(path.with_suffix(".npy")), atol=1e-6)
    assert clf.partial_fit(X, np.array(["no", "yes", "maybe", "no"] * 2)).n_iter_ == 4


def test_the_present_format_has_a_golden_file():
    assert f"estimator-{VERSION}" in {path.stem for path in GOLDEN}
