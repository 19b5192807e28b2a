"""Optimizers: from a name, a class or a factory, fused where possible, continued where asked."""

import functools
import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import Estimator, LambdaCallback
from easyclf.optimizers import build_optimizer, continue_from, load_state

NAMES = sorted(
    name
    for name, member in vars(torch.optim).items()
    if inspect.isclass(member) and issubclass(member, torch.optim.Optimizer) and name != "Optimizer"
)
# What trains something else than any weights: Muon matrices, SparseAdam sparse gradients.
SPECIAL = {"Muon", "SparseAdam"}
GENERAL = [name for name in NAMES if name not in SPECIAL]


@pytest.fixture
def data():
    """Thirty rows of four numbers, in three classes that a line can tell apart."""
    y = np.tile([0, 1, 2], 10)
    noise = np.random.default_rng(0).normal(scale=0.3, size=(30, 4))
    return (noise + 3 * np.eye(3, 4)[y]).astype(np.float32), y


def fit(optimizer, X, y, module=nn.Linear, **parameters):
    settings = {"lr": 0.01, "epochs": 5, "batch_size": -1, "random_state": 0}
    return Estimator(module, optimizer=optimizer, **(settings | parameters)).fit(X, y)


def group(clf):
    return clf.optimizer_.param_groups[0]


# Names


@pytest.mark.parametrize("name", GENERAL)
def test_every_optimizer_of_torch_trains_by_its_name(name, data):
    clf = fit(name.lower(), *data)
    losses = clf.history_["loss"]

    assert type(clf.optimizer_) is getattr(torch.optim, name)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["SGD", "Adam", "adam", "ADAMW", "AdamW", "lbfgs", "RMSprop"])
def test_case_of_a_name_does_not_matter(name, data):
    assert type(fit(name, *data).optimizer_).__name__.lower() == name.lower()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 brought Muon")
def test_muon_trains_a_module_of_matrices(data):
    clf = fit("muon", *data, functools.partial(nn.Linear, bias=False))

    assert type(clf.optimizer_) is torch.optim.Muon
    assert clf.history_["loss"][-1] < clf.history_["loss"][0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's own, of Adagrad
@pytest.mark.parametrize("name", ["sparseadam", "sgd", "adagrad"])
def test_sparse_gradients_train_where_torch_can(name):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.EmbeddingBag(6, 3, sparse=True, mode="sum")

        def forward(self, x):
            return self.logits(x)

    X, y = np.array([[0, 3], [1, 4], [2, 5], [0, 0], [1, 1], [2, 2]]), [0, 1, 2, 0, 1, 2]

    clf = fit(name, X, y, Words, lr=0.5)

    assert clf.history_["loss"][-1] < clf.history_["loss"][0]


@pytest.mark.parametrize(
    ("typed", "nearest"), [("adamm", "adam"), ("SDG", "sgd"), ("rmspop", "rmsprop")]
)
def test_unknown_name_is_refused_with_the_nearest(typed, nearest, data):
    with pytest.raises(ValueError, match=f"`optimizer` '{typed}'.*did you mean.*`{nearest}`"):
        fit(typed, *data)


@pytest.mark.parametrize("typed", ["quantum", "optimizer", ""])
def test_unknown_name_is_refused_with_all_that_are_known(typed, data):
    with pytest.raises(ValueError, match=f"`optimizer` '{typed}' is not in torch.optim.*'lbfgs'"):
        fit(typed, *data)


# Classes and factories


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param("sgd", id="name"),
        pytest.param(torch.optim.SGD, id="class"),
        pytest.param(functools.partial(torch.optim.SGD), id="partial"),
        pytest.param(lambda params, lr: torch.optim.SGD(params, lr), id="factory with lr"),
        pytest.param(lambda params: torch.optim.SGD(params, 0.01), id="factory"),
        pytest.param(functools.partial(torch.optim.SGD, lr=0.01), id="partial with lr"),
    ],
)
def test_optimizer_takes_the_step_of_gradient_descent(optimizer, data):
    X, y = data
    module = nn.Linear(4, 3)

    clf = fit(optimizer, X, y, module, epochs=1)
    F.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y)).backward()

    torch.testing.assert_close(clf.module_.weight, module.weight - 0.01 * module.weight.grad)
    torch.testing.assert_close(clf.module_.bias, module.bias - 0.01 * module.bias.grad)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda params: torch.optim.SGD(params, 0.5), id="factory"),
        pytest.param(functools.partial(torch.optim.SGD, lr=0.5), id="partial"),
    ],
)
def test_lr_of_a_factory_of_its_own_stays(optimizer, data):
    assert group(fit(optimizer, *data))["lr"] == 0.5


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs", torch.optim.NAdam])
def test_lr_reaches_the_optimizer(optimizer, data):
    assert group(fit(optimizer, *data, lr=0.125))["lr"] == 0.125


def test_optimizer_of_ones_own_trains(data):
    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with torch.no_grad():
                for parameters in self.param_groups:
                    for parameter in parameters["params"]:
                        parameter -= parameters["lr"] * parameter.grad.sign()

    module = nn.Linear(4, 3)

    clf = fit(Signs, *data, module, epochs=1)

    moved = (clf.module_.weight - module.weight).abs()
    torch.testing.assert_close(moved, torch.full((3, 4), 0.01), atol=1e-6, rtol=0)


def test_factory_that_needs_more_is_told_what(data):
    def make(params, lr, gamma):
        return torch.optim.SGD(params, lr)

    with pytest.raises(TypeError, match=r"make needs `gamma`.*`optimizer__gamma=...`"):
        fit(make, *data)


def test_factory_gets_what_the_user_gave(data):
    def make(weights, momentum):
        return torch.optim.SGD(weights, lr=0.1, momentum=momentum)

    assert group(fit(make, *data, optimizer__momentum=0.7))["momentum"] == 0.7


@pytest.mark.parametrize("made", [None, "sgd", nn.Linear(1, 1)])
def test_what_is_no_optimizer_is_refused(made, data):
    with pytest.raises(TypeError, match=f"made a {type(made).__name__}; expected a torch.optim"):
        fit(lambda params: made, *data)


def test_finished_optimizer_is_refused_with_the_way_out(data):
    module = nn.Linear(4, 3)

    with pytest.raises(TypeError, match=r"(?s)'?`?optimizer.*SGD.*torch\.optim\.SGD.*`lr`"):
        fit(torch.optim.SGD(module.parameters(), lr=0.1), *data, module)


@pytest.mark.parametrize("optimizer", [None, 3, ["sgd"]])
def test_what_is_neither_name_nor_factory_is_refused(optimizer, data):
    with pytest.raises(ValueError, match=r"The 'optimizer' parameter of Estimator must be.*Got"):
        fit(optimizer, *data)


def test_only_the_weights_that_are_not_frozen_are_given_to_the_optimizer():
    module = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    module[0].requires_grad_(False)

    optimizer = build_optimizer("adam", module, 0.1, {})

    given = optimizer.param_groups[0]["params"]
    assert [id(parameter) for parameter in given] == [id(p) for p in module[1].parameters()]


# Parameters of the optimizer


@pytest.mark.parametrize(
    ("optimizer", "parameters"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("adam", {"betas": (0.5, 0.9), "amsgrad": True}),
        (torch.optim.RMSprop, {"alpha": 0.5, "centered": True}),
        ("lbfgs", {"max_iter": 3}),
        ("adamw", {"lr": 0.5}),
    ],
)
def test_parameters_of_the_optimizer_are_forwarded(optimizer, parameters, data):
    given = {f"optimizer__{name}": value for name, value in parameters.items()}

    made = group(fit(optimizer, *data, **given))

    assert {name: made[name] for name in parameters} == parameters


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.SGD, functools.partial(torch.optim.SGD)])
def test_parameter_that_the_optimizer_does_not_take_is_refused_with_the_nearest(optimizer, data):
    message = "`optimizer__momentun` is not .*did you mean `optimizer__momentum`"

    with pytest.raises(TypeError, match=message):
        fit(optimizer, *data, optimizer__momentun=0.9)


def test_value_that_the_optimizer_refuses_is_told_by_torch(data):
    with pytest.raises(ValueError, match="Invalid momentum value: -1"):
        fit("sgd", *data, optimizer__momentum=-1.0)


# The fastest implementation


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_fused_implementation_is_used_where_there_is_one(name, precision, data):
    assert group(fit(name, *data, precision=precision))["fused"] is True


@pytest.mark.parametrize("name", ["rmsprop", "lbfgs", "nadam"])
def test_other_optimizers_are_not_asked_to_fuse(name, data):
    assert not group(fit(name, *data)).get("fused")


@pytest.mark.parametrize(
    ("choice", "fused"),
    [
        ({"optimizer__fused": False}, False),
        ({"optimizer__foreach": True}, None),
        ({"optimizer__differentiable": False}, None),
    ],
)
def test_implementation_that_the_user_chose_stays(choice, fused, data):
    assert group(fit("adam", *data, **choice))["fused"] is fused


def test_fused_step_is_the_plain_one(data):
    fused, plain = fit("adam", *data), fit("adam", *data, optimizer__fused=False)

    np.testing.assert_allclose(
        fused.predict_proba(data[0]), plain.predict_proba(data[0]), rtol=1e-5
    )


def test_lbfgs_steps_as_torch_steps_it(data):
    X, y = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    module, byhand = nn.Linear(4, 3), nn.Linear(4, 3)
    byhand.load_state_dict(module.state_dict())
    optimizer = torch.optim.LBFGS(byhand.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(byhand(X), y)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(2)]
    clf = fit("lbfgs", *data, module, lr=0.1, epochs=2)

    assert clf.history_["loss"] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(clf.module_.state_dict(), byhand.state_dict())


# Going on


def stepped(optimizer, parameter, value=1.0):
    parameter.grad = torch.full_like(parameter, value)
    optimizer.step()
    return optimizer


def holding(parameter):
    module = nn.Module()
    module.weight = parameter
    return module


def test_continued_optimizer_keeps_what_the_old_one_learned_but_its_own_settings():
    parameter = nn.Parameter(torch.zeros(2))
    old = stepped(torch.optim.SGD([parameter], lr=0.1, momentum=0.9), parameter)
    new = torch.optim.SGD([parameter], lr=0.5, momentum=0.8)

    continue_from(new, holding(parameter), old, holding(parameter))
    stepped(new, parameter)

    assert new.param_groups[0]["lr"] == 0.5
    # -0.1 from the first step; then 0.8 * 1 + 1 is the momentum, of which half is taken.
    torch.testing.assert_close(parameter.detach(), torch.full((2,), -0.1 - 0.5 * 1.8))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_continued_optimizer_leaves_the_old_one_as_it_was(make):
    """If the continued fit fails, the earlier one still counts."""
    settings = {"momentum": 0.9} if make is torch.optim.SGD else {}
    first, second = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    old = stepped(make([first], lr=0.1, **settings), first)
    before = {name: value.clone() for name, value in old.state[first].items()}
    new = make([second], lr=0.1, **settings)

    continue_from(new, holding(second), old, holding(first))
    stepped(new, second, value=7.0)

    torch.testing.assert_close(dict(old.state[first]), before)


def test_optimizer_of_another_kind_starts_anew():
    parameter = nn.Parameter(torch.zeros(2))
    old = stepped(torch.optim.SGD([parameter], lr=0.1, momentum=0.9), parameter)
    new = torch.optim.Adam([parameter], lr=0.1)

    continue_from(new, holding(parameter), old, holding(parameter))

    assert not new.state


@pytest.mark.parametrize("name", ["adam", "lbfgs", "sgd"])
def test_two_fits_in_a_row_are_one_long_fit(name, data):
    momentum = {"optimizer__momentum": 0.9} if name == "sgd" else {}

    halves = fit(name, *data, epochs=3, warm_start=True, shuffle=False, **momentum).fit(*data)
    whole = fit(name, *data, epochs=6, shuffle=False, **momentum)

    assert halves.history_["loss"].tolist() == whole.history_["loss"].tolist()
    assert halves.predict_proba(data[0]).tolist() == whole.predict_proba(data[0]).tolist()


def test_continued_fit_takes_a_new_lr(data):
    clf = fit("adam", *data, warm_start=True)
    steps = clf.optimizer_.state[clf.module_.weight]["step"].item()

    clf.set_params(lr=0.5).fit(*data)

    assert clf.history_["lr"].tolist() == [0.01] * 5 + [0.5] * 5
    assert clf.optimizer_.state[clf.module_.weight]["step"].item() == 2 * steps


def test_failed_continued_fit_leaves_the_state_of_the_optimizer(data):
    def fail(state):
        if state.epoch == 7:
            raise RuntimeError("stop here")

    clf = fit("adam", *data, warm_start=True)
    before = clf.optimizer_.state[clf.module_.weight]["exp_avg"].tolist()

    with pytest.raises(RuntimeError, match="stop here"):
        clf.set_params(callbacks=[LambdaCallback(on_epoch_end=fail)]).fit(*data)

    assert clf.optimizer_.state[clf.module_.weight]["exp_avg"].tolist() == before


def begun(kind):
    """An optimizer that has taken a step."""
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = kind([weight], lr=0.1)
    stepped(optimizer, weight)
    return optimizer


@pytest.mark.parametrize("name", sorted({*GENERAL} - {"LBFGS"}))
def test_a_state_from_a_file_is_taken_whole(name):
    kind = getattr(torch.optim, name)
    before = begun(kind)
    other = kind([nn.Parameter(torch.ones(2, 3))], lr=0.5)

    load_state(other, before.state_dict())

    assert str(other.state_dict()) == str(before.state_dict())


def test_a_state_from_a_file_lies_in_memory_as_its_weight_does():
    weight = nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))
    plain = nn.Parameter(torch.ones(4, 3, 2, 2))
    before = torch.optim.Adam([plain])
    stepped(before, plain)
    optimizer = torch.optim.Adam([weight], fused=True)

    load_state(optimizer, before.state_dict())

    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


class Mine(torch.optim.Adam):
    """A class of a user's, of which nobody knows what its state is."""


@pytest.mark.parametrize(
    ("kind", "is_fused"), [(torch.optim.Adam, False), (torch.optim.Adam, True), (Mine, True)]
)
@pytest.mark.parametrize("shape", [(1,), (3, 2)])
def test_a_state_that_a_kernel_would_read_beyond_its_end_is_refused(kind, is_fused, shape):
    state = begun(torch.optim.Adam).state_dict()
    state["state"][0]["exp_avg"] = torch.zeros(shape)

    with pytest.raises(ValueError, match="'exp_avg' has the shape or the dtype of no weight"):
        load_state(kind([nn.Parameter(torch.ones(2, 3))], fused=is_fused), state)


def test_a_state_of_more_weights_is_refused():
    state = begun(torch.optim.Adam).state_dict()
    state["state"][7] = state["state"][0]

    with pytest.raises(ValueError, match="of more weights than there are"):
        load_state(torch.optim.Adam([nn.Parameter(torch.ones(2, 3))]), state)
