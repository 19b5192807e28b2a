"""Weights that stay, learning rates by name, and published weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from easyclf import Estimator, LambdaCallback

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
LABELS = np.arange(40) % 3


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


def fit(module=Layers, X=X, **parameters):
    settings = {"epochs": 2, "lr": 0.01, "random_state": 0}
    return Estimator(module, **{**settings, **parameters}).fit(X, LABELS[: len(X)])


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        ("body", {"head.weight", "head.bias"}),
        (["body.0", "*.bias"], {"body.2.weight", "head.weight"}),
        ("body.?.weight", {"body.0.bias", "body.2.bias", "head.weight", "head.bias"}),
        ((), set(dict(Layers().named_parameters()))),
        (None, set(dict(Layers().named_parameters()))),
    ],
)
def test_what_is_frozen_stays_as_it_was(freeze, expected):
    clf = fit(freeze=freeze)

    before = dict(Layers().named_parameters())
    changed = {
        name
        for name, weight in clf.module_.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert changed == expected


def test_the_users_module_is_not_frozen():
    module = Layers()

    fit(module, freeze="body")

    assert all(weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("layer1", r"pattern 'layer1', which matches no weight; the names are body.0.weight"),
        (["head", "bodi"], "'bodi'"),
        ("*", "leaves no weight of Layers"),
        (3, "The 'freeze' parameter of Estimator"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(freeze, words):
    with pytest.raises(ValueError, match=words):
        fit(freeze=freeze)


def test_learning_rates_go_by_name_and_the_first_match_counts():
    clf = fit(lr={"body.0": 1e-3, "head": 0.1, "*.weight": 1e-4, "*": 1e-5})

    groups = clf.optimizer_.param_groups
    assert [group["lr"] for group in groups] == [1e-3, 0.1, 1e-4, 1e-5]
    assert [len(group["params"]) for group in groups] == [2, 2, 1, 1]
    assert clf.history_["lr"][0] == 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", torch.optim.RMSprop])
def test_one_rate_for_all_is_as_a_number(optimizer):
    by_name, by_number = (fit(optimizer=optimizer, lr=lr) for lr in ({"*": 0.01}, 0.01))

    np.testing.assert_array_equal(by_name.predict_proba(X), by_number.predict_proba(X))


def test_what_is_frozen_needs_no_rate():
    clf = fit(freeze="body", lr={"head": 0.1})

    assert len(clf.optimizer_.param_groups) == 1


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        ({"head": 0.1}, "no pattern for 4 weight.*body.0.weight.*'\\*'"),
        ({"hade": 0.1, "*": 0.1}, "'hade', which matches no weight"),
        ({"*": -1.0}, "The 'lr' parameter of Estimator"),
        ({"*": "fast"}, "The 'lr' parameter of Estimator"),
        ({}, "The 'lr' parameter of Estimator"),
    ],
)
def test_rates_that_cannot_be_meant_are_refused(lr, words):
    with pytest.raises(ValueError, match=words):
        fit(lr=lr)


DECAYS = {"*.bias": 0.0, "head": 0.5, "*": 0.1}


def test_weight_decay_goes_by_name_and_the_first_match_counts():
    clf = fit(optimizer="adamw", optimizer__weight_decay=DECAYS)

    decays = {
        name: group["weight_decay"]
        for group in clf.optimizer_.param_groups
        for name, weight in clf.module_.named_parameters()
        if any(weight is parameter for parameter in group["params"])
    }
    expected = {"bias": 0.0, "head.weight": 0.5, "body.0.weight": 0.1, "body.2.weight": 0.1}
    assert decays == {
        name: expected.get(name, expected["bias"] if name.endswith("bias") else None)
        for name, _ in clf.module_.named_parameters()
    }


def test_weight_decay_by_name_trains_as_groups_made_by_hand():
    def grouped(weights):
        weights = list(weights)
        groups = [
            {"params": weights[0::2], "weight_decay": 0.3},
            {"params": weights[1::2], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=0.1, fused=True)

    by_name = fit(optimizer="sgd", lr=0.1, optimizer__weight_decay={"*.bias": 0, "*": 0.3})
    by_hand = fit(optimizer=grouped)

    np.testing.assert_allclose(by_name.predict_proba(X), by_hand.predict_proba(X), rtol=1e-6)


def test_rates_decays_and_momenta_by_name_meet():
    clf = fit(
        optimizer="sgd",
        lr={"head": 0.1, "*": 0.01},
        optimizer__weight_decay={"*.bias": 0.0, "*": 0.1},
        optimizer__momentum={"body.0": 0.5, "*": 0.9},
    )

    groups = clf.optimizer_.param_groups
    settings = {(g["lr"], g["weight_decay"], g["momentum"]): len(g["params"]) for g in groups}
    assert settings == {
        (0.1, 0.0, 0.9): 1,
        (0.1, 0.1, 0.9): 1,
        (0.01, 0.0, 0.5): 1,
        (0.01, 0.0, 0.9): 1,
        (0.01, 0.1, 0.5): 1,
        (0.01, 0.1, 0.9): 1,
    }
    assert clf.history_["lr"][0] == 0.1


@pytest.mark.parametrize(
    ("decay", "words"),
    [
        ({"*.bias": 0.1}, "`optimizer__weight_decay` .*no pattern for 3 weight.*'\\*'"),
        ({"hade": 0.1, "*": 0}, "`optimizer__weight_decay` has the pattern 'hade', which matches"),
        ({"*": -1.0}, "`optimizer__weight_decay` must be a number, or a dict .* at least 0"),
        ({"*": "much"}, "`optimizer__weight_decay` must be a number, or a dict"),
        ({}, "`optimizer__weight_decay` must be a number, or a dict"),
    ],
)
def test_decays_that_cannot_be_meant_are_refused(decay, words):
    with pytest.raises(ValueError, match=words):
        fit(optimizer="adamw", optimizer__weight_decay=decay)


PICTURES = np.random.default_rng(0).random((12, 3, 32, 32), dtype=np.float32)


@pytest.fixture
def published(monkeypatch):
    """Weights that lie at hand: those of a fresh model of a thousand classes."""
    made = {}

    def load(url, *args, **keywords):
        name = url.rpartition("/")[2].partition("-")[0]
        torch.manual_seed(7)
        made[name] = models.get_model(name).state_dict()
        return made[name]

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    return made


@pytest.mark.parametrize(
    ("name", "kept", "last"),
    [
        ("resnet18", "conv1.weight", "fc"),
        ("mobilenet_v3_small", "features.0.0.weight", "classifier.3"),
        ("squeezenet1_1", "features.0.weight", "classifier.1"),
    ],
)
def test_published_weights_get_a_new_last_layer(published, name, kept, last):
    clf = Estimator(
        name, module__weights="DEFAULT", freeze=kept, epochs=1, batch_size=6, random_state=0
    )

    clf.fit(PICTURES, LABELS[:12])

    layer = clf.module_.get_submodule(last)
    assert layer.weight.shape[0] == 3
    assert torch.equal(clf.module_.get_parameter(kept), published[name][kept])
    assert clf.predict_proba(PICTURES).shape == (12, 3)


def test_published_weights_that_are_not_at_hand_are_an_error_with_the_way_out(monkeypatch):
    def offline(*args, **keywords):
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)

    with pytest.raises(OSError, match=r"'DEFAULT' of 'resnet18' are not on this machine.*put"):
        Estimator("resnet18", module__weights="DEFAULT").fit(PICTURES, LABELS[:12])


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises((ValueError, KeyError), match="NOWHERE"):
        Estimator("resnet18", module__weights="NOWHERE").fit(PICTURES, LABELS[:12])


# Going on with other weights, or with other rates.

CHANGES = {
    "a number to patterns": ({"lr": 0.01}, {"lr": {"head": 0.1, "*": 0.001}}),
    "patterns to a number": ({"lr": {"head": 0.1, "*": 0.001}}, {"lr": 0.01}),
    "other patterns": ({"lr": {"head": 0.1, "*": 0.001}}, {"lr": {"body.2": 0.1, "*": 0.001}}),
    "frozen": ({}, {"freeze": "body.0"}),
    "thawed": ({"freeze": "body"}, {"freeze": None}),
    "others frozen": ({"freeze": "body"}, {"freeze": "head"}),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_each_weight_goes_on_with_what_was_learned_of_it(name, optimizer):
    first, second = CHANGES[name]
    momentum = {"optimizer__momentum": 0.9} if optimizer == "sgd" else {}
    clf = fit(warm_start=True, optimizer=optimizer, **momentum, **first)
    averages = {
        name: clf.optimizer_.state[weight]
        for name, weight in clf.module_.named_parameters()
        if weight in clf.optimizer_.state
    }
    before = {name: {k: v.clone() for k, v in one.items()} for name, one in averages.items()}
    seen = {}

    def look(state):
        for name, weight in state.module.named_parameters():
            if weight in state.optimizer.state:
                fitted = state.optimizer.state[weight]
                seen[name] = {key: value.clone() for key, value in fitted.items()}

    clf.set_params(**second, callbacks=[LambdaCallback(on_train_begin=look)]).fit(X, LABELS)

    trained = {name for name, weight in clf.module_.named_parameters() if weight.requires_grad}
    assert seen.keys() <= trained
    for name in before.keys() & trained:
        torch.testing.assert_close(seen[name], before[name])


def test_thawed_weights_are_trained_again_and_those_that_the_user_froze_are_not():
    module = Layers()
    module.body[2].weight.requires_grad_(False)
    clf = fit(module, freeze="body.0", warm_start=True)
    before = {name: weight.clone() for name, weight in clf.module_.named_parameters()}

    clf.set_params(freeze=None).fit(X, LABELS)

    after = dict(clf.module_.named_parameters())
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {"body.2.weight"}


def test_a_rate_may_name_what_is_frozen():
    assert len(fit(freeze="body", lr={"body": 0.1, "*": 0.01}).optimizer_.param_groups) == 1


@pytest.mark.parametrize(
    ("optimizer", "setting"),
    [("adam", {"amsgrad": True}), ("rmsprop", {"momentum": 0.9}), ("rmsprop", {"centered": True})],
)
def test_settings_that_need_more_to_remember_may_be_switched_on(optimizer, setting):
    clf = fit(optimizer=optimizer, warm_start=True)

    clf.set_params(**{f"optimizer__{name}": value for name, value in setting.items()})

    assert np.isfinite(clf.fit(X, LABELS).history_["loss"]).all()


def test_curvature_of_other_weights_is_forgotten():
    clf = fit(optimizer="lbfgs", lr=0.1, warm_start=True, freeze="body.0")

    clf.set_params(freeze="body.2").fit(X, LABELS)

    assert len(clf.history_) == 4


def test_what_an_optimizer_remembers_beside_the_weights_goes_on():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            result = super().step(closure)
            self.state["steps"] = self.state.get("steps", 0) + 1
            return result

    clf = fit(optimizer=Counting, warm_start=True)

    assert clf.fit(X, LABELS).optimizer_.state["steps"] == 4
