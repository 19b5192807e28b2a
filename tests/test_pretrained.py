"""A module that was trained elsewhere is a fitted estimator."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.fixes import parse_version
from torch import nn

from easyclf import MLP, Estimator
from easyclf.engine import Unseen

NAMES = np.array(["up", "across", "down"])  # in the order of the outputs, which is not sorted
OUTPUTS = [1, 2, 0]  # of the sorted classes


@pytest.fixture
def trained(network, blobs):
    """A fit by easyclf, whose module stands for one that somebody else has trained."""
    return Estimator(network, epochs=30, lr=0.05, random_state=0).fit(*blobs)


def adopt(trained, X=None, classes=NAMES, **parameters):
    return Estimator.from_module(trained.module_, classes, X, random_state=0, **parameters)


def weights(module):
    return [weight.tolist() for weight in module.state_dict().values()]


@pytest.mark.parametrize("n_shown", [None, 1, 30])
@pytest.mark.parametrize("names", [np.array([0, 1, 2]), NAMES, np.array([7, -1, 3])])
def test_it_answers_at_once_as_the_module_does(names, n_shown, trained, blobs):
    X, y = blobs

    clf = adopt(trained, None if n_shown is None else X[:n_shown], names)

    order = names.argsort()
    assert clf.predict(X).tolist() == names[trained.predict(X)].tolist()
    assert clf.classes_.tolist() == sorted(names.tolist())
    np.testing.assert_allclose(clf.predict_proba(X), trained.predict_proba(X)[:, order])
    np.testing.assert_allclose(clf.predict_log_proba(X), trained.predict_log_proba(X)[:, order])
    np.testing.assert_allclose(clf.decision_function(X), trained.decision_function(X)[:, order])
    assert clf.evaluate(X, names[y]) == pytest.approx(trained.evaluate(X, y))
    assert clf.score(X, names[y]) == trained.score(X, y)


@pytest.mark.parametrize("last", [[], [nn.Sigmoid()]])
@pytest.mark.parametrize("names", [["no", "yes"], ["yes", "no"]])
def test_one_output_is_that_of_the_second_label(names, last):
    module = nn.Sequential(nn.Linear(1, 1, bias=False), *last)
    nn.init.ones_(module[0].weight)

    clf = Estimator.from_module(module, names)

    X = [[-2.0], [3.0]]
    assert clf.predict(X).tolist() == names
    second = 1 / (1 + np.exp([2.0, -3.0]))
    place = clf.classes_.tolist().index(names[1])
    np.testing.assert_allclose(clf.predict_proba(X)[:, place], second, rtol=1e-6)
    sign = 1 if place else -1
    np.testing.assert_allclose(clf.decision_function(X), [-2 * sign, 3 * sign], rtol=1e-5)
    assert clf.evaluate(X, names)["accuracy"] == 1.0


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_probabilities_are_known_as_such(last, trained, blobs):
    module = nn.Sequential(trained.module_, last)

    clf = Estimator.from_module(module, NAMES)

    expected = trained.predict_proba(blobs[0])[:, OUTPUTS]
    np.testing.assert_allclose(clf.predict_proba(blobs[0]), expected, rtol=1e-5)


@pytest.mark.parametrize("X", [None, "rows"])
@pytest.mark.parametrize("tape", ["auto", False])
def test_training_goes_on_as_if_the_classes_were_sorted(tape, X, trained, blobs):
    """By `partial_fit` and under `warm_start`, with weights of classes and samples."""
    rows, y = np.tile(blobs[0], (4, 1)), np.tile(blobs[1], 4)
    sample_weight = np.linspace(0.5, 2, len(y))
    settings = {"lr": 0.01, "epochs": 12, "warm_start": True, "batch_size": 10, "compile": tape}
    settings["metrics"] = ["f1_macro"]
    weighted = {"up": 1.0, "down": 2.0, "across": 5.0}
    shown = None if X is None else rows
    plain = adopt(trained, shown, [0, 1, 2], **settings)
    named = adopt(trained, shown, **settings)

    plain.partial_fit(rows, y)
    named.partial_fit(rows, NAMES[y])
    plain.set_params(class_weight={k: weighted[name] for k, name in enumerate(NAMES)})
    plain.fit(rows, y, sample_weight, validation_data=(rows, y))
    named.set_params(class_weight=weighted)
    named.fit(rows, NAMES[y], sample_weight, validation_data=(rows, NAMES[y]))

    assert weights(named.module_) == weights(plain.module_)
    assert weights(named.module_) != weights(trained.module_)
    for quantity in ("loss", "accuracy", "f1_macro", "val_loss", "val_f1_macro"):
        assert named.history_[-1][quantity] == plain.history_[-1][quantity]
    assert named.n_iter_ == 13
    assert named.score(rows, NAMES[y]) == named.history_["val_accuracy"][-1]


@pytest.mark.skipif(
    parse_version(torch.__version__) < parse_version("2.7"),
    reason="torch looks code up in the first training of a process, which is not recorded then",
)
def test_training_goes_on_from_a_tape(trained, blobs, caplog):
    rows, y = np.tile(blobs[0], (20, 1)), np.tile(blobs[1], 20)
    caplog.set_level("DEBUG", "easyclf")

    adopt(trained, epochs=20, warm_start=True, batch_size=10).fit(rows, NAMES[y])

    assert "Sequential is trained from a tape." in caplog.text


def test_mixed_labels_keep_the_order_of_the_outputs(blobs):
    """`MixUp` makes shares of classes, in the order in which the module has them."""
    from torchvision.transforms import v2

    X = np.tile(blobs[0], (2, 1)).reshape(60, 1, 2, 2)
    y = np.tile(blobs[1], 2)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    settings = {"augment": v2.MixUp(num_classes=3), "warm_start": True, "epochs": 2, "lr": 0.1}
    plain = Estimator.from_module(module, [0, 1, 2], random_state=0, **settings).fit(X, y)
    named = Estimator.from_module(module, NAMES, random_state=0, **settings).fit(X, NAMES[y])

    assert weights(named.module_) == weights(plain.module_)


def test_metrics_see_the_sorted_classes(trained, blobs):
    X, y = blobs
    metrics = ["roc_auc_ovr", "neg_log_loss", "f1_macro"]
    plain = adopt(trained, classes=[0, 1, 2], metrics=metrics)

    figures = adopt(trained, metrics=metrics).evaluate(X, NAMES[y])

    assert figures == pytest.approx(plain.evaluate(X, y))
    assert figures["roc_auc_ovr"] == 1.0


def test_fit_without_warm_start_begins_with_its_weights_as_with_any_instance(trained, blobs):
    clf = adopt(trained, classes=[0, 1, 2], epochs=2).fit(*blobs)

    alone = Estimator(trained.module_, epochs=2, random_state=0).fit(*blobs)
    assert weights(clf.module_) == weights(alone.module_)


@pytest.mark.parametrize("mode", [True, False])
def test_the_module_stays_as_it_is(mode, trained, blobs):
    module = nn.Sequential(nn.BatchNorm1d(4), copy.deepcopy(trained.module_)).train(mode)
    before = weights(module)

    clf = Estimator.from_module(module, NAMES)
    assert not clf.module_.training
    clf.predict(blobs[0])
    clf.partial_fit(blobs[0], NAMES[blobs[1]])

    assert weights(module) == before
    assert module.training is mode
    assert clf.module is module
    assert clf.module_ is not module


@pytest.mark.parametrize("X", [None, 1])
def test_one_row_is_enough_for_batch_normalization(X, trained, blobs):
    module = nn.Sequential(nn.BatchNorm1d(4), trained.module_)

    clf = Estimator.from_module(module, NAMES, blobs[0][:X] if X else None)

    assert len(clf.predict(blobs[0][:1])) == 1


def test_a_module_that_nobody_may_train_answers(trained, blobs):
    frozen = copy.deepcopy(trained.module_).requires_grad_(False)

    clf = Estimator.from_module(frozen, NAMES)

    assert clf.score(blobs[0], NAMES[blobs[1]]) == trained.score(*blobs)
    assert not any(weight.requires_grad for weight in clf.module_.parameters())
    with pytest.raises(ValueError, match="leaves no weight of Sequential to be trained"):
        clf.partial_fit(blobs[0], NAMES[blobs[1]])


def test_a_part_of_the_weights_stays_frozen(trained, blobs):
    module = copy.deepcopy(trained.module_)
    module[0].requires_grad_(False)
    clf = Estimator.from_module(module, NAMES, blobs[0], freeze="2.bias")

    clf.partial_fit(blobs[0], NAMES[blobs[1]])

    before, after = weights(module), weights(clf.module_)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, True]


def test_rows_say_names_and_width(trained, blobs):
    frame = pd.DataFrame(blobs[0], columns=list("abcd"))

    clf = adopt(trained, frame.head(2))

    assert clf.feature_names_in_.tolist() == list("abcd")
    assert clf.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[["a", "b", "c"]])


@pytest.mark.parametrize("X", [None, "rows"])
def test_it_is_made_and_shown_rows_in_inference_mode_too(X, trained, blobs):
    with torch.inference_mode():
        clf = adopt(trained, None if X is None else blobs[0])
        answers = clf.predict(blobs[0])

    assert answers.tolist() == adopt(trained).predict(blobs[0]).tolist()
    clf.partial_fit(blobs[0], NAMES[blobs[1]])


def test_rows_of_another_width_than_the_first_layers_say_so(trained, blobs):
    with pytest.raises(RuntimeError) as raised:
        adopt(trained).predict(blobs[0][:, :3])

    assert raised.value.__notes__[0].endswith(
        "Its layer '0' takes 4 numbers a row, and was given 3."
    )


def test_the_first_rows_that_come_say_so_otherwise(trained, blobs):
    clf = adopt(trained)
    assert not hasattr(clf, "n_features_in_")
    assert not hasattr(clf, "optimizer_")
    assert (clf.n_iter_, len(clf.history_), clf.device_.type) == (0, 0, "cpu")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        clf.predict(blobs[0][:, :3])
    clf.predict(blobs[0])

    assert clf.n_features_in_ == 4
    assert clf.optimizer_.param_groups[0]["params"][0] is next(clf.module_.parameters())


def test_images_and_preprocess_are_as_in_fit():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)

    clf = Estimator.from_module(module, NAMES, preprocess=lambda x: x.float() / 255)

    with torch.no_grad():
        channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = module(channels_first).softmax(1)[:, OUTPUTS]
    np.testing.assert_allclose(clf.predict_proba(images), expected, rtol=1e-4)


def test_a_part_of_what_the_module_returns_can_be_chosen_late(trained, blobs):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained.module_

        def forward(self, x):
            return {"logits": self.inner(x), "x": x}

    clf = Estimator.from_module(Wrapped(), NAMES)
    with pytest.raises(TypeError, match="say with `output` which part"):
        clf.predict(blobs[0])

    clf.set_params(output="logits")

    assert clf.predict(blobs[0]).tolist() == NAMES[trained.predict(blobs[0])].tolist()


def test_the_default_module_of_another_fit_keeps_its_statistics(blobs):
    X, y = blobs[0] * 10 + 1000, blobs[1]
    fitted = Estimator(epochs=30, lr=0.05, random_state=0).fit(X, y)
    assert isinstance(fitted.module_, MLP)

    clf = Estimator.from_module(fitted.module_, NAMES)

    with pytest.raises(ValueError, match="has been given no rows yet"):
        clf.get_feature_names_out()
    np.testing.assert_allclose(clf.predict_proba(X), fitted.predict_proba(X)[:, OUTPUTS], rtol=1e-5)
    assert clf.get_feature_names_out().tolist() == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize("X", [None, "rows"])
def test_copies_and_pickles_answer(X, trained, blobs):
    clf = adopt(trained, None if X is None else blobs[0])
    stream = io.BytesIO()
    joblib.dump(clf, stream)
    stream.seek(0)

    copies = [pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf), joblib.load(stream)]

    for copied in copies:
        assert copied.predict(blobs[0]).tolist() == clf.predict(blobs[0]).tolist()
        copied.partial_fit(blobs[0], NAMES[blobs[1]])


def test_a_clone_is_not_fitted(trained, blobs):
    copied = clone(adopt(trained))

    with pytest.raises(NotFittedError):
        copied.predict(blobs[0])
    assert copied.get_params()["lr"] == 1e-3


def test_a_class_that_the_rows_of_a_fit_miss_is_kept(trained, blobs):
    X, y = blobs

    clf = adopt(trained, epochs=1).fit(X[y < 2], NAMES[y[y < 2]])

    assert len(clf.classes_) == 3


def test_subclasses_have_it(trained, blobs):
    class Narrow(Estimator):
        def __init__(self, hidden=8, lr=0.01):
            super().__init__(nn.Linear, module__out_features=3, lr=lr)
            self.hidden = hidden

    class Wide(Estimator):
        pass

    narrow = Narrow.from_module(trained.module_, NAMES, lr=0.1)
    wide = Wide.from_module(trained.module_, NAMES)

    assert (type(narrow), type(wide)) == (Narrow, Wide)
    assert narrow.predict(blobs[0]).tolist() == NAMES[trained.predict(blobs[0])].tolist()
    assert narrow.partial_fit(blobs[0], NAMES[blobs[1]]).lr == 0.1


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear, r"is the class Linear; expected a trained Linear\(...\)"),
        ({"weight": torch.ones(3)}, "`module.load_state_dict"),
        ("model.pt", "is read by torch.load"),
        (None, "expected a trained nn.Module"),
        (nn.LazyLinear(3), "has lazy layers without weights"),
        (nn.ReLU(), "has no weights of floating point"),
    ],
)
def test_what_is_no_trained_module_is_refused(module, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Estimator.from_module(module, NAMES)


def test_torchscript_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against it
        module = torch.jit.script(nn.Linear(4, 3))

    with pytest.raises(TypeError, match="that it was made of"):
        Estimator.from_module(nn.Sequential(module), NAMES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (3, r"`classes` is 3; expected the label of each output, as range\(3\)"),
        (["up"], "labels of at least two classes"),
        (["up", "up", "down"], r"labels of several outputs, \['up'\]"),
        (["up", "down"], r"has 3 output\(s\), but `classes` names 2"),
        (["up", "down", "across", "under"], r"has 3 output\(s\), but `classes` names 4"),
        (["up", 1, "down"], "labels of mixed types"),
        ([[1, 0], [0, 1]], "labels of at least two classes"),
    ],
)
def test_labels_have_to_be_those_of_the_outputs(classes, message, trained, blobs):
    with pytest.raises(ValueError, match=message):
        adopt(trained, blobs[0], classes)


def test_parameters_are_checked(trained, blobs):
    with pytest.raises(TypeError, match="did you mean `epochs`"):
        adopt(trained, epoch=3)
    with pytest.raises(ValueError, match="The 'lr' parameter"):
        adopt(trained, lr=-1)
    with pytest.raises(TypeError, match="`module__hidden` cannot change `module`"):
        adopt(trained, module__hidden=3)


def test_an_image_alone_or_an_empty_table_says_so(trained, blobs):
    with pytest.raises(ValueError, match="Expected 2D array"):
        adopt(trained, blobs[0][0])
    with pytest.raises(ValueError, match="0 sample"):
        adopt(trained, blobs[0][:0])


def test_threads_that_predict_first_agree(trained, blobs):
    clf = adopt(trained)
    assert isinstance(clf._fitted, Unseen)

    answers = joblib.Parallel(4, backend="threading")(
        joblib.delayed(clf.predict_proba)(blobs[0]) for _ in range(8)
    )

    assert all((answer == answers[0]).all() for answer in answers)
