"""The estimator: what it keeps, how it goes on, what it answers."""

import copy
import inspect
import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from easyclf import MLP, AccuracyLogger, EarlyStopping, Estimator, LambdaCallback

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.0625, 0.9, 0.0375]])


def estimator(network=None, **parameters):
    keywords = {
        "optimizer": "sgd",
        "lr": 0.1,
        "epochs": 2,
        "batch_size": 10,
        "shuffle": False,
        "random_state": 0,
    }
    return Estimator(network, **{**keywords, **parameters})


def weights(clf):
    return [weight.tolist() for weight in clf.module_.state_dict().values()]


def unlearning(n_classes, **parameters):
    """An estimator whose probabilities are the exponentials of its rows, normalized."""
    identity = nn.Linear(n_classes, n_classes)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(n_classes))
        identity.bias.zero_()
    return estimator(identity, lr=1e-30, epochs=1, **parameters)


@pytest.fixture
def certain():
    """A fitted estimator with the `PROBABILITIES` for their logarithms."""
    labels = np.array(["ant", "bee", "cow", "bee"])
    return unlearning(3, precision="float64").fit(np.log(PROBABILITIES), labels)


@pytest.fixture
def dataset(blobs):
    return TensorDataset(torch.from_numpy(blobs[0]), torch.from_numpy(blobs[1]))


def by_hand(network, blobs, optimizer, epochs):
    """The loop over batches of ten rows in order."""
    network, X, y = copy.deepcopy(network), *map(torch.from_numpy, blobs)
    optimizer = optimizer(network.parameters())
    for _ in range(epochs):
        for start in range(0, 30, 10):
            optimizer.zero_grad()
            F.cross_entropy(network(X[start : start + 10]), y[start : start + 10]).backward()
            optimizer.step()
    return [weight.tolist() for weight in network.state_dict().values()]


OPTIMIZERS = [
    ({"optimizer": "sgd", "optimizer__momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ({"optimizer": "adam"}, torch.optim.Adam, {}),
]


# What a fit leaves behind.


def test_a_fit_returns_the_estimator_itself(blobs, network):
    clf = estimator(network)

    assert clf.fit(*blobs) is clf
    assert clf.partial_fit(*blobs) is clf


def test_a_fit_leaves_what_scikit_learn_expects(blobs, network):
    clf = estimator(network, epochs=3).fit(*blobs)

    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.n_features_in_ == 4
    assert clf.n_iter_ == len(clf.history_) == 3
    assert clf.history_["epoch"].tolist() == [1, 2, 3]
    assert clf.history_["lr"].tolist() == [0.1, 0.1, 0.1]
    assert isinstance(clf.optimizer_, torch.optim.SGD)
    assert clf.device_ == next(clf.module_.parameters()).device
    assert not clf.module_.training
    assert not hasattr(clf, "class_names_")


def test_the_given_module_is_a_template_that_is_never_trained(blobs, network):
    before = copy.deepcopy(network.state_dict())

    clf = estimator(network).fit(*blobs).partial_fit(*blobs)

    assert clf.module_ is not network
    assert network.training
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert all(weight.grad is None for weight in network.parameters())


def test_the_same_random_state_gives_the_same_fit_whatever_is_run_between(blobs):
    clf = estimator(epochs=3, shuffle=True, module__dropout=0.5, random_state=7)
    first = weights(clf.fit(*blobs))
    torch.rand(3), np.random.rand(3)  # noqa: NPY002

    assert weights(clf.fit(*blobs)) == first
    assert weights(clone(clf).fit(*blobs)) == first
    assert weights(clone(clf).set_params(random_state=8).fit(*blobs)) != first


def test_without_a_random_state_every_fit_is_another(blobs):
    clf = estimator(random_state=None)

    assert weights(clf.fit(*blobs)) != weights(clf.fit(*blobs))


def test_a_random_state_object_goes_on_from_fit_to_fit(blobs):
    def two_fits():
        clf = estimator(random_state=np.random.RandomState(0))
        return weights(clf.fit(*blobs)), weights(clf.fit(*blobs))

    first, second = two_fits()

    assert first != second
    assert two_fits() == (first, second)


@pytest.mark.parametrize("seed", [0, None, np.random.RandomState(0)])
@pytest.mark.parametrize(
    "use",
    [
        lambda clf, X, y: clf.fit(X, y, validation_data=(X, y)),
        lambda clf, X, y: clf.fit(X, y).partial_fit(X, y),
        lambda clf, X, y: clf.fit(X, y).predict_proba(X),
        lambda clf, X, y: clf.fit(X, y).evaluate(X, y),
        lambda clf, X, y: clf.fit(DataLoader(TensorDataset(X, y), batch_size=10, shuffle=True)),
    ],
)
def test_the_global_random_states_stay_as_they_are(use, seed, blobs, random_states):
    clf = estimator(shuffle=True, random_state=seed, batch_size="auto", module__dropout=0.5)
    before = random_states()

    use(clf, *map(torch.from_numpy, blobs))

    assert random_states() == before


def test_a_fit_inside_a_callback_leaves_the_outer_one_as_it_is(blobs):
    def fit_another(state):
        estimator(epochs=1, random_state=5).fit(*blobs).predict(blobs[0])

    alone, disturbed = (
        estimator(module__dropout=0.5, shuffle=True, callbacks=callbacks).fit(*blobs)
        for callbacks in (None, [LambdaCallback(on_batch_end=fit_another)])
    )

    assert weights(alone) == weights(disturbed)


# Going on.


@pytest.mark.parametrize(("parameters", "optimizer", "settings"), OPTIMIZERS)
def test_a_warm_start_goes_on_where_the_last_fit_ended(
    parameters, optimizer, settings, blobs, network
):
    expected = by_hand(
        network, blobs, lambda p: optimizer(p, lr=0.1, fused=True, **settings), epochs=5
    )

    clf = estimator(network, warm_start=True, optimizer__fused=True, **parameters)
    clf.fit(*blobs, epochs=2).fit(*blobs, epochs=3)

    assert weights(clf) == expected
    assert clf.n_iter_ == 5
    assert clf.history_["epoch"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("parameters", "optimizer", "settings"), OPTIMIZERS)
def test_every_partial_fit_is_one_more_pass(parameters, optimizer, settings, blobs, network):
    expected = by_hand(
        network, blobs, lambda p: optimizer(p, lr=0.1, fused=True, **settings), epochs=2
    )

    clf = estimator(network, optimizer__fused=True, **parameters)
    clf.partial_fit(*blobs, classes=[0, 1, 2]).partial_fit(*blobs)

    assert weights(clf) == expected
    assert clf.n_iter_ == len(clf.history_) == 2


def test_a_partial_fit_takes_weights(blobs, network):
    weight = np.linspace(0.0, 2.0, 30)

    clf = estimator(network).partial_fit(*blobs, classes=[0, 1, 2], sample_weight=weight)

    assert weights(clf) == weights(estimator(network, epochs=1).fit(*blobs, weight))


def test_a_partial_fit_goes_on_after_a_fit(blobs, network):
    clf = estimator(network, optimizer="adam", epochs=2).fit(*blobs).partial_fit(*blobs)

    expected = estimator(network, optimizer="adam", epochs=3).fit(*blobs)
    assert weights(clf) == weights(expected)
    assert clf.n_iter_ == 3


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_a_fit_begins_anew(first, blobs, network):
    clf = estimator(network)
    clf.fit(*blobs) if first == "fit" else clf.partial_fit(*blobs, classes=[0, 1, 2])

    clf.fit(*blobs)

    assert weights(clf) == weights(estimator(network).fit(*blobs))
    assert clf.n_iter_ == len(clf.history_) == 2


def test_a_continued_fit_takes_the_new_settings(blobs, network):
    """Adam's memory stays, the learning rate is the one that the user set since."""
    X, y = map(torch.from_numpy, blobs)
    by_hand = copy.deepcopy(network)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.1, fused=True)
    for lr in (0.1, 0.1, 0.01):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        F.cross_entropy(by_hand(X), y).backward()
        optimizer.step()

    clf = estimator(network, optimizer="adam", optimizer__fused=True, batch_size=-1)
    clf.fit(*blobs).set_params(warm_start=True, lr=0.01).fit(*blobs, epochs=1)

    assert weights(clf) == [weight.tolist() for weight in by_hand.state_dict().values()]
    assert clf.history_["lr"].tolist() == [0.1, 0.1, 0.01]


def test_a_continued_fit_shuffles_anew(blobs, network):
    """Two fits of one epoch are not two times the same epoch."""
    clf = estimator(network, shuffle=True, lr=1e-30, warm_start=True, epochs=1)
    seen = []
    clf.set_params(callbacks=[LambdaCallback(on_batch_end=lambda s: seen.append(s.logs["loss"]))])

    clf.fit(*blobs).fit(*blobs)

    assert [loss.item() for loss in seen[:3]] != [loss.item() for loss in seen[3:]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda clf, X, y: estimator().partial_fit(X, y), "classes.*first call"),
        (
            lambda clf, X, y: clf.partial_fit(X, y, classes=[0, 1]),
            r"`classes` is \[0, 1\].*\[0, 1, 2\]",
        ),
        (lambda clf, X, y: clf.partial_fit(X, y + 1), r"\[3\].*known are \[0, 1, 2\]"),
        (lambda clf, X, y: clf.partial_fit(X[:, :3], y), "3 features.*expecting 4"),
        (lambda clf, X, y: clf.set_params(warm_start=True).fit(X, y + 1), r"\[3\].*\[0, 1, 2\]"),
        (
            lambda clf, X, y: clf.set_params(warm_start=True).fit(X[:, :3], y),
            "3 features.*expecting 4",
        ),
    ],
)
def test_what_a_fit_cannot_go_on_with_is_refused(call, words, blobs, network):
    clf = estimator(network).fit(*blobs)
    before = weights(clf)

    with pytest.raises(ValueError, match=words):
        call(clf, *blobs)

    assert weights(clf) == before
    assert clf.n_iter_ == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"module__hidden": (7,)}, r"`module__hidden` is \[7\], and was \[5\] .* no part .* anew"),
        ({"module__dropout": 0.5}, r"`module__dropout` is 0.5, and was not given"),
        ({"classes": [0, 1, 2, 3]}, r"`classes` is \[0, 1, 2, 3\], which plays no part"),
    ],
)
def test_a_warm_start_says_which_changed_parameters_play_no_part(change, words, blobs):
    clf = estimator(module__hidden=[5], warm_start=True).fit(*blobs)

    with pytest.warns(UserWarning, match=words):
        clf.set_params(**change).fit(*blobs)
    assert clf.module_.layers[0].out_features == 5


def test_a_warm_start_with_the_same_parameters_says_nothing(blobs):
    activation = torch.nn.Tanh
    clf = estimator(module__hidden=[5], module__activation=activation, warm_start=True)

    clf.fit(*blobs).set_params(module__hidden=(5,)).fit(*blobs)

    assert clf.n_iter_ == 4


def test_classes_may_come_later(blobs, network):
    X, y = blobs
    two = y < 2

    clf = estimator(network).partial_fit(X[two], y[two], classes=[0, 1, 2])

    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.predict_proba(X).shape == (30, 3)


def through_joblib(clf):
    file = io.BytesIO()
    joblib.dump(clf, file)
    file.seek(0)
    return joblib.load(file)


def through_torch(clf):
    file = io.BytesIO()
    torch.save(clf, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "oldest pickle": lambda clf: pickle.loads(pickle.dumps(clf, 0)),
    "pickle": lambda clf: pickle.loads(pickle.dumps(clf)),
    "joblib": through_joblib,
    "torch": through_torch,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(
    "optimizer",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgd"},
        {"optimizer": "lbfgs", "optimizer__max_iter": 4},
    ],
    ids=lambda optimizer: optimizer["optimizer"],
)
def test_a_copy_answers_and_goes_on_as_the_original(how, optimizer, blobs, network):
    clf = estimator(network, **optimizer, lr=0.01, validation_split=0.2).fit(*blobs)

    copied = COPIES[how](clf)

    np.testing.assert_array_equal(copied.predict_proba(blobs[0]), clf.predict_proba(blobs[0]))
    assert list(copied.history_) == list(clf.history_)
    assert weights(copied.partial_fit(*blobs)) == weights(clf.partial_fit(*blobs))
    assert copied.n_iter_ == 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_keeps_the_format_of_the_inputs(protocol, blobs, network):
    clf = estimator(network).fit(*blobs)

    copied = pickle.loads(pickle.dumps(clf, protocol))

    assert copied._fitted.input_format == clf._fitted.input_format


def test_joblib_hashes_what_was_learned(blobs, network):
    clf = estimator(network, optimizer="adam").fit(*blobs)

    assert joblib.hash(clf) == joblib.hash(clf)
    assert clf.optimizer_.state[clf.module_[0].weight]["step"] > 0


def test_pickle_without_the_state_of_the_optimizer_is_smaller_and_goes_on(blobs):
    clf = Estimator(nn.Linear(4, 500), classes=range(500), epochs=1, random_state=0).fit(*blobs)
    size = len(pickle.dumps(clf))

    clf.optimizer_.state.clear()
    copied = pickle.loads(pickle.dumps(clf))

    assert size - len(pickle.dumps(clf)) > 2 * 4 * 2500
    assert copied.partial_fit(*blobs).n_iter_ == 2


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_has_what_its_callbacks_found(how, blobs, network):
    early = EarlyStopping("loss")
    clf = estimator(network, callbacks=[early]).fit(*blobs)

    copied = COPIES[how](clf).callbacks[0]

    assert copied is not early
    assert (copied.best_epoch_, copied.best_score_) == (early.best_epoch_, early.best_score_)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_an_unfitted_estimator_fits_as_the_original(how, blobs, network):
    clf = estimator(network, callbacks=[EarlyStopping("loss"), AccuracyLogger(every=50)])

    copied = COPIES[how](clf)

    assert weights(copied.fit(*blobs)) == weights(clf.fit(*blobs))


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_does_not_change_with_the_original(how, blobs, network):
    clf = estimator(network).fit(*blobs)
    copied = COPIES[how](clf)
    before = weights(copied)

    clf.partial_fit(*blobs)

    assert weights(copied) == before
    assert len(copied.history_) == 2


@pytest.mark.gpu
def test_what_was_fitted_on_a_gpu_is_read_without_one(blobs, network):
    clf = estimator(network, device="cuda", optimizer="adam").fit(*blobs)

    copied = pickle.loads(pickle.dumps(clf))

    assert copied.device_ == torch.device("cpu")
    assert {weight.device.type for weight in copied.module_.parameters()} == {"cpu"}
    np.testing.assert_allclose(
        copied.predict_proba(blobs[0]), clf.predict_proba(blobs[0]), rtol=1e-4
    )
    copied.set_params(device="cpu").partial_fit(*blobs)


# Parameters for one call.


def test_overrides_hold_for_one_call_only(blobs, network):
    clf = estimator(network, epochs=2)

    clf.fit(*blobs, epochs=5, optimizer="adam", optimizer__weight_decay=0.1, lr=0.01)

    expected = estimator(network, epochs=5, optimizer="adam", optimizer__weight_decay=0.1, lr=0.01)
    assert weights(clf) == weights(expected.fit(*blobs))
    assert clf.get_params() == estimator(network, epochs=2).get_params()


def test_overrides_are_gone_also_after_an_error(blobs, network):
    clf = estimator(network)
    before = clf.get_params()

    with pytest.raises(ValueError, match="'epochs'"):
        clf.fit(*blobs, epochs=-1, module__hidden=(3,))

    assert clf.get_params() == before


@pytest.mark.parametrize(
    ("name", "nearest"), [("epcohs", "epochs"), ("learn", "Estimator"), ("modul__a", "module")]
)
def test_an_unknown_override_is_refused(name, nearest, blobs, network):
    clf = estimator(network).fit(*blobs)
    before = weights(clf)

    with pytest.raises(TypeError, match=f"`{name}`.*{nearest}"):
        clf.fit(*blobs, **{name: 3})

    assert weights(clf) == before
    assert not hasattr(clf, name)


# Holding rows out.


class Notes(nn.Module):
    """Notes which rows it was trained on, and on which it was measured."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.calls = []

    def forward(self, x):
        self.calls.append((self.training, x[:, 0].tolist()))
        return self.linear(x)


def split(X=None, y=None, **keywords):
    """The numbers of the rows that are trained on, and of those that are held out."""
    X = np.arange(100, dtype=np.float32)[:, None] if X is None else X
    y = np.repeat([0, 1], [80, 20]) if y is None else y
    parameters = {"validation_split": 0.25, "random_state": 0, **keywords.pop("parameters", {})}
    clf = Estimator(Notes, epochs=1, lr=1e-6, batch_size=-1, **parameters).fit(X, y, **keywords)
    calls = clf.module_.calls[2:]  # the first two looked at the module
    return [
        sorted(row for training, rows in calls if training is kind for row in rows)
        for kind in (True, False)
    ]


def test_every_row_is_trained_on_or_held_out():
    train, valid = split()

    assert sorted(train + valid) == list(range(100))


def test_the_held_out_rows_have_the_classes_in_the_same_proportion():
    _, valid = split()

    assert (sum(row < 80 for row in valid), sum(row >= 80 for row in valid)) == (20, 5)


def test_the_held_out_rows_are_those_of_the_random_state():
    def held_out(seed):
        return split(parameters={"random_state": seed})[1]

    assert held_out(0) == held_out(0)
    assert held_out(0) != held_out(1)


def test_nothing_is_held_out_unasked():
    train, valid = split(parameters={"validation_split": 0.0})

    assert (len(train), valid) == (100, [])


def test_nothing_is_held_out_when_there_are_validation_data():
    given = np.array([[500.0], [501.0]])

    train, valid = split(validation_data=(given, [0, 1]))

    assert (len(train), valid) == (100, [500, 501])


def test_a_dataset_is_split_too(dataset, network):
    clf = estimator(network, validation_split=0.2).fit(dataset)

    assert np.isfinite(clf.history_["val_loss"]).all()


def test_a_loader_cannot_be_split(dataset, network):
    words = "`validation_split` is 0.2, but X is a DataLoader.*`validation_data`"

    with pytest.raises(ValueError, match=words):
        estimator(network, validation_split=0.2, batch_size="auto").fit(DataLoader(dataset))


def test_a_class_that_is_too_rare_to_stratify_is_named(blobs, network):
    X, y = blobs[0], np.array(["often"] * 29 + ["once"])

    with pytest.warns(UserWarning, match="`validation_split` 0.2.*'once' has 1 of 30"):
        clf = estimator(MLP, validation_split=0.2).fit(X, y)

    assert np.isfinite(clf.history_["val_loss"]).all()


# Datasets and loaders.


class Pictures(Dataset):
    """A dataset in torchvision's manner."""

    classes = ("cat", "dog")

    def __init__(self, n_rows=12):
        self.targets = [row % 2 for row in range(n_rows)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        picture = torch.full((1, 2, 2), float(self.targets[row]))
        picture[0, 0, 0] = row / 12
        return picture, self.targets[row]


def test_a_dataset_or_loader_stands_alone_everywhere(dataset, blobs, network):
    X, y = blobs
    loader = DataLoader(dataset, batch_size=7)
    expected = estimator(network).fit(X, y)

    clf = estimator(network).fit(dataset, validation_data=loader)

    assert clf.history_["val_accuracy"][-1] == clf.score(X, y)
    for data in (dataset, loader, Subset(dataset, range(30))):
        np.testing.assert_allclose(clf.predict_proba(data), expected.predict_proba(X), rtol=1e-6)
        np.testing.assert_array_equal(clf.predict(data), expected.predict(X))
        np.testing.assert_allclose(
            clf.decision_function(data), expected.decision_function(X), rtol=1e-5
        )
        assert clf.score(data) == expected.score(X, y)
        assert clf.evaluate(data)["loss"] == pytest.approx(expected.evaluate(X, y)["loss"])


def test_predictions_need_no_labels(blobs, network):
    class Unlabelled(Dataset):
        def __len__(self):
            return 30

        def __getitem__(self, row):
            return torch.from_numpy(blobs[0][row])

    clf = estimator(network).fit(*blobs)

    np.testing.assert_array_equal(clf.predict(Unlabelled()), clf.predict(blobs[0]))


def test_the_names_of_the_classes_are_kept_and_labels_stay_as_they_are():
    clf = estimator(epochs=60, optimizer="adam", lr=0.1).fit(Pictures())

    assert clf.class_names_ == ["cat", "dog"]
    assert clf.classes_.tolist() == [0, 1]
    assert clf.predict(Pictures()).tolist() == Pictures().targets
    assert not hasattr(clf.fit(np.eye(4), [0, 1, 0, 1]), "class_names_")


class Texts(Dataset):
    """Rows with their labels as texts, which `DataLoader` collates to a list."""

    def __len__(self):
        return 12

    def __getitem__(self, row):
        return torch.eye(2)[row % 2], ["cat", "dog"][row % 2]


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, lambda dataset: DataLoader(dataset, 5)])
def test_the_labels_of_a_dataset_may_be_texts(wrap):
    clf = estimator(epochs=30, batch_size="auto", lr=0.5).fit(wrap(Texts()))

    assert clf.classes_.tolist() == ["cat", "dog"]
    assert clf.predict(wrap(Texts())).tolist() == 6 * ["cat", "dog"]
    assert clf.score(wrap(Texts())) == 1.0


def test_the_labels_of_a_dataset_may_be_a_column_or_several(blobs, network):
    X, y = map(torch.from_numpy, blobs)

    with pytest.warns(DataConversionWarning):
        column = estimator(network).fit(TensorDataset(X, y[:, None].float()))
    labels = torch.eye(3)[y].index_fill(0, torch.tensor([0]), 1)
    several = estimator(network).fit(TensorDataset(X, labels))

    assert weights(column) == weights(estimator(network).fit(*blobs))
    assert weights(several) == weights(estimator(network).fit(X, labels.numpy()))


@pytest.mark.parametrize("method", ["fit", "score", "evaluate"])
def test_labels_beside_a_loader_are_refused(method, dataset, blobs, network):
    clf = estimator(network, batch_size="auto").fit(*blobs)

    with pytest.raises(ValueError, match=r"`X` is a DataLoader.*without `y`"):
        getattr(clf, method)(DataLoader(dataset), blobs[1])


def test_the_batch_size_of_a_loader_is_its_own(dataset, network):
    with pytest.raises(ValueError, match="`batch_size` is 10, but X is a DataLoader"):
        estimator(network, batch_size=10).fit(DataLoader(dataset))


# Answers.


def test_probabilities_labels_and_logits_fit_together(certain):
    X = np.log(PROBABILITIES)

    np.testing.assert_allclose(certain.predict_proba(X), PROBABILITIES, rtol=1e-12)
    np.testing.assert_allclose(certain.predict_log_proba(X), X, rtol=1e-12)
    np.testing.assert_allclose(certain.decision_function(X), X, rtol=1e-12)
    assert certain.predict(X).tolist() == ["ant", "bee", "cow", "bee"]
    assert certain.predict(X).dtype == certain.classes_.dtype


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_the_decision_of_two_classes_is_the_log_odds_of_the_second(n_outputs, blobs):
    X, y = blobs[0], blobs[1] > 0
    clf = estimator(nn.Linear(4, n_outputs), precision="float64").fit(X, y)

    second = clf.predict_proba(X)[:, 1]
    decision = clf.decision_function(X)

    assert decision.shape == (30,)
    np.testing.assert_allclose(decision, np.log(second / (1 - second)), rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), decision > 0)


@pytest.mark.parametrize(
    ("min_proba", "expected"),
    [
        (None, ["ant", "bee", "cow", "bee"]),
        (0.0, ["ant", "bee", "cow", "bee"]),
        (0.45, ["ant", "bee", "?", "bee"]),
        (0.8, ["?", "?", "?", "bee"]),
        (1.0, ["?", "?", "?", "?"]),
    ],
)
def test_below_a_probability_the_answer_is_uncertain(min_proba, expected, certain):
    answers = certain.predict(np.log(PROBABILITIES), min_proba=min_proba, uncertain="?")

    assert answers.tolist() == expected


def test_the_uncertain_answer_is_not_cut_to_the_length_of_the_labels(certain):
    answers = certain.predict(np.log(PROBABILITIES), min_proba=1.0)

    assert set(answers) == {"uncertain"}


def test_the_answer_is_the_one_of_the_least_expected_cost(certain):
    """A cow that is missed costs 10: it is answered where 10 p(cow) is more than the rest."""
    costs = np.array([[0, 1, 1], [1, 0, 1], [10, 10, 0]])

    answers = certain.predict(np.log(PROBABILITIES), costs=costs)

    assert answers.tolist() == ["cow", "cow", "cow", "bee"]
    assert certain.predict(np.log(PROBABILITIES), costs=1 - np.eye(3)).tolist() == [
        "ant",
        "bee",
        "cow",
        "bee",
    ]


def test_figures_are_those_of_scikit_learn(certain):
    X, y = np.log(PROBABILITIES), np.array(["ant", "cow", "cow", "ant"])
    weight = np.array([1.0, 2.0, 3.0, 4.0])

    for given in (None, weight):
        figures = certain.evaluate(X, y, given)

        loss = log_loss(y, PROBABILITIES, sample_weight=given, labels=certain.classes_)
        accuracy = accuracy_score(y, ["ant", "bee", "cow", "bee"], sample_weight=given)
        assert figures == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-12)
        assert certain.score(X, y, given) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "predict_log_proba", "decision_function"]
)
def test_answers_before_a_fit_are_refused(method, blobs):
    with pytest.raises(NotFittedError, match="Estimator instance is not fitted yet"):
        getattr(Estimator(), method)(blobs[0])


@pytest.mark.parametrize("method", ["score", "evaluate"])
def test_figures_before_a_fit_are_refused(method, blobs):
    with pytest.raises(NotFittedError, match="Estimator instance is not fitted yet"):
        getattr(Estimator(), method)(*blobs)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", np.float32), ("float64", np.float64), ("bf16", np.float32)],
)
def test_probabilities_are_as_precise_as_the_arithmetic(precision, dtype, blobs, network):
    clf = estimator(network, precision=precision).fit(*blobs)

    assert clf.predict_proba(blobs[0]).dtype == dtype


def test_float64_is_the_loop_by_hand_in_float64(blobs, network):
    double = copy.deepcopy(network).double()
    X = blobs[0].astype(np.float64)
    expected = by_hand(
        double, (X, blobs[1]), lambda p: torch.optim.SGD(p, lr=0.1, fused=True), epochs=2
    )

    clf = estimator(network, precision="float64", optimizer__fused=True).fit(X, blobs[1])

    assert weights(clf) == expected


class Magnifier(nn.Module):
    """Looks at what lies a millionth of a millionth above 1."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x):
        return self.linear((x - 1) * 1e12)


def test_float64_rows_keep_their_precision():
    """Two classes that float32 cannot tell apart."""
    X, y = np.repeat([[1 - 1e-12], [1 + 1e-12]], 5, axis=0), np.repeat([0, 1], 5)

    clf = estimator(Magnifier, precision="float64", epochs=50).fit(X, y)

    assert clf.score(X, y) == 1.0


def test_bf16_is_the_loop_by_hand_under_autocast(blobs, network):
    X, y = map(torch.from_numpy, blobs)
    expected = copy.deepcopy(network)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = expected(X)
        optimizer.zero_grad()
        F.cross_entropy(outputs.float(), y).backward()
        optimizer.step()

    clf = estimator(network, precision="bf16", batch_size=-1, optimizer__fused=True).fit(*blobs)

    assert weights(clf) == [weight.tolist() for weight in expected.state_dict().values()]


# The manner of scikit-learn.


def test_the_signature_shows_the_parameters_and_no_keywords():
    parameters = inspect.signature(Estimator).parameters

    assert {*parameters} == {*Estimator().get_params()}
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def test_a_fit_raises_no_warnings_of_its_own(blobs, network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        clf = estimator(network, validation_split=0.2, callbacks=[EarlyStopping()]).fit(*blobs)
        clf.predict(blobs[0])
        clf.score(*blobs)


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("batch_size", [10, -1])
def test_a_fit_learns_also_where_gradients_are_off(surroundings, batch_size, blobs, network):
    expected = estimator(network, batch_size=batch_size).fit(*blobs).partial_fit(*blobs)

    with surroundings():
        clf = estimator(network, batch_size=batch_size).fit(*blobs).partial_fit(*blobs)
        was_enabled = torch.is_grad_enabled()

    assert not was_enabled
    assert weights(clf) == weights(expected)


def test_the_default_dtype_of_the_user_is_left_alone(blobs):
    torch.set_default_dtype(torch.float64)
    try:
        clf = estimator(validation_split=0.2).fit(*blobs, np.ones(30))
        kept = torch.get_default_dtype()
        proba = clf.predict_proba(blobs[0])
    finally:
        torch.set_default_dtype(torch.float32)

    assert kept == torch.float64
    assert proba.dtype == np.float32


@pytest.mark.parametrize(("n_rows", "fewest", "most"), [(6, 1, 6), (5000, 2, 1000)])
def test_an_automatic_batch_size_grows_with_the_rows(n_rows, fewest, most):
    n_batches = []
    note = LambdaCallback(on_train_begin=lambda state: n_batches.append(state.steps_per_epoch))

    clf = Estimator(lr=1e-3, epochs=1, batch_size="auto", callbacks=[note])
    clf.fit(np.zeros((n_rows, 2)), np.arange(n_rows) % 2)

    assert fewest <= n_batches[0] <= most


@pytest.mark.parametrize("batch_size", [-1, 30, 31, 10**9])
def test_a_batch_of_all_rows_is_one_step(batch_size, blobs, network):
    clf = estimator(network, batch_size=batch_size, shuffle=True).fit(*blobs)

    expected = estimator(network, batch_size=30).fit(*blobs)
    assert weights(clf) == weights(expected)


def test_no_epochs_build_the_module_and_train_nothing(blobs, network):
    clf = estimator(network, epochs=0, callbacks=[EarlyStopping("loss")]).fit(*blobs)

    assert weights(clf) == [weight.tolist() for weight in network.parameters()]
    assert (clf.n_iter_, list(clf.history_)) == (0, [])
    assert clf.predict(blobs[0]).shape == (30,)


def test_training_goes_on_from_no_epochs_as_if_it_had_begun(blobs):
    begun = estimator(epochs=0, warm_start=True).fit(*blobs)

    begun.set_params(epochs=2).fit(*blobs)

    assert weights(begun) == weights(estimator(epochs=2).fit(*blobs))
