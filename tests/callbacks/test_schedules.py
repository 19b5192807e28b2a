"""Learning rates by torch's schedulers, and by functions."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.optim import lr_scheduler

from easyclf import Callback, Estimator, LambdaCallback, LRScheduler

X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
Y = np.arange(8) % 2
# Four steps an epoch.
RUN = {"optimizer": "sgd", "lr": 0.5, "batch_size": 2, "random_state": 0}


class Rates(Callback):
    """The rate that each step is taken with."""

    changes = "nothing"

    def on_train_begin(self, state):
        self.rates = []

    def on_batch_begin(self, state):
        self.rates.append(state.optimizer.param_groups[0]["lr"])


def fit(*callbacks, epochs=6, **settings):
    """A fit, and the rates of its steps."""
    rates = Rates()
    clf = Estimator(
        nn.Linear(2, 2), callbacks=[*callbacks, rates], epochs=epochs, **{**RUN, **settings}
    ).fit(X, Y, validation_data=(X, Y))
    return clf, rates.rates


def rates_of_torch(make, n_steps, lr=0.5):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, rates = make(optimizer), []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


PER_EPOCH = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 6},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "PolynomialLR": {"total_iters": 6},
    "LambdaLR": {"lr_lambda": lambda n: 0.5**n},
    "MultiplicativeLR": {"lr_lambda": lambda n: 0.7},
}


@pytest.mark.parametrize("name", PER_EPOCH)
def test_every_scheduler_of_torch_goes_by_its_name_and_its_class(name):
    arguments = PER_EPOCH[name]
    kind = getattr(lr_scheduler, name)
    expected = rates_of_torch(lambda optimizer: kind(optimizer, **arguments), 6)
    filled_in = ("T_max", "total_iters")
    given = {name: value for name, value in arguments.items() if name not in filled_in}

    by_name, steps = fit(LRScheduler(name, **given))
    by_class, _ = fit(LRScheduler(kind, **given))

    assert by_name.history_["lr"].tolist() == expected
    assert by_class.history_["lr"].tolist() == expected
    assert steps == [rate for rate in expected for _ in range(4)]


def test_every_scheduler_of_torch_is_known_or_told_how():
    names = {
        name
        for name, member in vars(lr_scheduler).items()
        if isinstance(member, type)
        and issubclass(member, lr_scheduler.LRScheduler)
        and not name.startswith("_")
    }
    others = "LRScheduler OneCycleLR CyclicLR ReduceLROnPlateau SequentialLR ChainedScheduler"

    assert names - {*others.split()} == {*PER_EPOCH}


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("cosine", "CosineAnnealingLR"),
        ("Cosine_Annealing", "CosineAnnealingLR"),
        ("polynomial", "PolynomialLR"),
        ("onecycle", "OneCycleLR"),
        ("one-cycle", "OneCycleLR"),
        ("linearlr", "LinearLR"),
    ],
)
def test_names_may_be_written_in_many_ways(typed, kind):
    assert fit(LRScheduler(typed))[1] == fit(LRScheduler(getattr(lr_scheduler, kind)))[1]


def test_one_cycle_moves_on_by_the_step_over_the_whole_run():
    clf, steps = fit(LRScheduler("OneCycleLR"))

    expected = rates_of_torch(lambda opt: lr_scheduler.OneCycleLR(opt, 0.5, total_steps=24), 23)
    assert steps[:-1] == expected
    assert clf.history_["lr"].tolist() == steps[3::4]


def test_a_schedule_that_is_taken_ahead_in_parts_is_the_same():
    _, steps = fit(LRScheduler("OneCycleLR"), epochs=70)

    expected = rates_of_torch(lambda opt: lr_scheduler.OneCycleLR(opt, 0.5, total_steps=280), 279)
    assert steps[:-1] == expected


def test_one_cycle_may_move_on_by_the_epoch():
    clf, _ = fit(LRScheduler("OneCycleLR", every="epoch"))

    expected = rates_of_torch(lambda opt: lr_scheduler.OneCycleLR(opt, 0.5, total_steps=6), 5)
    assert clf.history_["lr"][:5].tolist() == expected


def test_cyclic_rates_have_lr_as_their_highest():
    _, steps = fit(LRScheduler("CyclicLR", base_lr=0.1, step_size_up=4, cycle_momentum=False))

    expected = rates_of_torch(
        lambda opt: lr_scheduler.CyclicLR(opt, 0.1, 0.5, step_size_up=4, cycle_momentum=False), 24
    )
    assert steps == expected


def test_any_schedule_may_move_on_by_the_step():
    _, steps = fit(LRScheduler("cosine", every="step"))

    assert steps == rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 24), 24)


def test_arguments_that_are_given_are_not_filled_in():
    clf, _ = fit(LRScheduler("cosine", T_max=3, eta_min=0.1))

    expected = rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 3, 0.1), 6)
    assert clf.history_["lr"].tolist() == expected


def test_a_plateau_of_torch_is_given_the_monitored_figure():
    figures = iter([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(val_loss=next(figures)))

    clf, _ = fit(rewrite, LRScheduler("ReduceLROnPlateau", patience=1))

    assert clf.history_["lr"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.005])


def test_a_plateau_of_torch_knows_that_more_of_an_accuracy_is_better():
    figures = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    rewrite = LambdaCallback(
        on_epoch_end=lambda state: state.logs.update(val_accuracy=next(figures))
    )

    clf, _ = fit(rewrite, LRScheduler("plateau", monitor="val_accuracy", patience=0))

    assert clf.history_["lr"].tolist() == 6 * [0.5]


def test_a_plateau_of_torch_may_be_told_the_direction():
    figures = iter([1.0, 2.0, 3.0])
    rewrite = LambdaCallback(on_epoch_end=lambda state: state.logs.update(lr=next(figures)))
    plateau = {"monitor": "lr", "patience": 0, "factor": 0.5}

    clf, _ = fit(rewrite, LRScheduler("plateau", mode="min", **plateau), epochs=3)

    assert clf.history_["lr"].tolist() == [0.5, 0.5, 0.25]


def test_a_function_gives_the_rate_of_each_epoch_from_0():
    seen = []

    clf, _ = fit(LRScheduler(lambda epoch: seen.append(epoch) or 0.1 / (epoch + 1)), epochs=3)

    assert clf.history_["lr"].tolist() == [0.1, 0.05, 0.1 / 3]
    assert seen == [0, 1, 2]


def test_a_function_may_be_given_the_present_rate_as_in_keras():
    clf, _ = fit(LRScheduler(lambda epoch, lr: lr if epoch < 2 else lr / 2), epochs=4)

    assert clf.history_["lr"].tolist() == [0.5, 0.5, 0.25, 0.125]


def test_a_function_may_give_the_rate_of_each_step():
    _, steps = fit(LRScheduler(lambda step: 0.1 + step, every="step"), epochs=1)

    assert steps == [0.1, 1.1, 2.1, 3.1]


def test_a_function_of_the_optimizer_makes_a_scheduler():
    def sequence(optimizer):
        first = lr_scheduler.ConstantLR(optimizer, factor=0.1, total_iters=2)
        second = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        return lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[2])

    clf, _ = fit(LRScheduler(sequence), epochs=4)

    assert clf.history_["lr"].tolist() == pytest.approx([0.05, 0.05, 0.5, 0.25])


def test_groups_of_weights_keep_their_ratio():
    noted = []
    note = LambdaCallback(
        on_epoch_end=lambda state: noted.append([g["lr"] for g in state.optimizer.param_groups])
    )

    fit(LRScheduler(lambda epoch: 1.0 / (epoch + 1)), note, lr={"weight": 0.5, "*": 0.05}, epochs=2)

    assert np.allclose(noted, [[1.0, 0.1], [0.5, 0.05]])


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (1, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]),
        (0.5, [0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]),
        (1.5, [k / 12 for k in range(1, 7)] + 6 * [0.5]),
        (0.01, 8 * [0.5] + 4 * [0.25]),
    ],
)
def test_in_a_warm_up_the_rate_rises_by_the_step(warmup, expected):
    """The schedule by the epoch begins with the next whole epoch, and halves the rate after it."""
    _, steps = fit(LRScheduler("StepLR", step_size=1, gamma=0.5, warmup=warmup), epochs=3)

    assert steps == pytest.approx(expected)


def test_totals_are_what_the_warm_up_leaves():
    _, steps = fit(LRScheduler("cosine", every="step", warmup=1.5), epochs=4)

    rest = rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 10), 10)
    assert steps == pytest.approx([k / 12 for k in range(1, 7)] + rest)


@pytest.mark.parametrize(("warmup", "warmed"), [(1, [0.5]), (1.5, [0.5 * 4 / 6, 0.5])])
def test_totals_by_the_epoch_are_whole_epochs(warmup, warmed):
    clf, _ = fit(LRScheduler("cosine", warmup=warmup), epochs=4)

    left = 4 - len(warmed)
    rest = rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, left), left)
    assert clf.history_["lr"].tolist() == pytest.approx([*warmed, *rest])


def test_a_warm_start_is_covered_anew():
    rates = Rates()
    clf = Estimator(
        nn.Linear(2, 2), warm_start=True, callbacks=[LRScheduler("cosine"), rates], epochs=4, **RUN
    )
    clf.fit(X, Y)

    clf.fit(X, Y, epochs=2)

    whole = rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 4), 4)
    rest = rates_of_torch(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 2), 2)
    assert clf.history_["lr"].tolist() == [*whole, *rest]


def test_the_history_has_the_rate_of_the_last_step_also_if_a_hook_sets_the_next():
    def halve(state):
        state.optimizer.param_groups[0]["lr"] /= 2

    clf, steps = fit(LambdaCallback(on_batch_end=halve), epochs=2)

    assert clf.history_["lr"].tolist() == steps[3::4]


def test_accumulated_batches_are_one_step():
    _, steps = fit(LRScheduler("OneCycleLR"), accumulate=2, epochs=3)

    assert steps[:-1] == rates_of_torch(
        lambda opt: lr_scheduler.OneCycleLR(opt, 0.5, total_steps=6), 5
    )


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_a_schedule_leaves_the_tapes_as_they_are(every, blobs):
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    played, written = (
        Estimator(
            module,
            compile=mode,
            callbacks=[LRScheduler("OneCycleLR", every=every, warmup=2)],
            epochs=60,
            batch_size=10,
            precision="float64",
            random_state=0,
        ).fit(*blobs)
        for mode in ("auto", False)
    )

    assert played.history_["lr"].tolist() == written.history_["lr"].tolist()
    assert played.history_["loss"] == pytest.approx(written.history_["loss"], rel=1e-9)


def test_nothing_is_kept_of_a_run_and_clones_go_on(blobs):
    search = GridSearchCV(
        Estimator(epochs=2, random_state=0, callbacks=[LRScheduler("step", step_size=1)]),
        {"lr": [0.1, 0.2]},
        cv=2,
    ).fit(*blobs)

    (schedule,) = search.best_estimator_.callbacks
    assert repr(schedule) == "LRScheduler(schedule='step', step_size=1)"
    assert repr(clone(schedule)) == repr(schedule)
    assert not hasattr(schedule, "_course")


def test_a_run_without_epochs_moves_nothing():
    clf, _ = fit(LRScheduler("OneCycleLR"), epochs=0)

    assert clf.n_iter_ == 0


def test_a_warmup_without_end_is_refused_in_a_run_without_epochs_too():
    fit(LRScheduler("cosine", warmup=1), epochs=0)

    with pytest.raises(ValueError, match="`warmup` is inf epochs, but this run has 0"):
        fit(LRScheduler("cosine", warmup=float("inf")), epochs=0)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (lambda: LRScheduler("cosin"), "'cosin' is not in torch.optim.lr_scheduler; did you mean"),
        (lambda: LRScheduler("ExponentialLR", gama=0.9), "`gama` is not a parameter of Exponen.*"
         "; did you mean `gamma`"),
        (lambda: LRScheduler("step"), r"StepLR needs `step_size`.*LRScheduler\('StepLR', step_si"),
        (lambda: LRScheduler("SequentialLR"), r"pass a function: LRScheduler\(lambda optimizer: S"),
        (lambda: LRScheduler("plateau", every="step"), "measured once an epoch; use every='epoch'"),
        (lambda: LRScheduler("plateau", monitor="val_los"), "LRScheduler monitors 'val_los'.*did "
         "you mean `val_loss`"),
        (lambda: LRScheduler("cosine", every="batch"), "`every` must be 'auto', 'step' or 'epoch'"),
        (lambda: LRScheduler("cosine", warmup=-1), "`warmup` must be at least 0; got -1"),
        (lambda: LRScheduler("cosine", warmup=6), "`warmup` is 6 epochs, but this run has 6"),
        (lambda: LRScheduler("OneCycleLR", total_steps="9"), "`total_steps` must be a number of"),
        (lambda: LRScheduler("OneCycleLR", total_steps=9), "`total_steps` is 9, but .* 24 times"),
        (lambda: LRScheduler(lambda epoch: -1.0), "gave -1.0 for 0; expected a learning rate"),
        (lambda: LRScheduler(lambda epoch: "a"), "gave 'a' for 0"),
        (lambda: LRScheduler(lambda a, b, c: 1.0), "takes 3 arguments; expected `epoch`"),
        (lambda: LRScheduler(lambda epoch: 1.0, gamma=1), "`gamma` is no argument of LRScheduler"),
        (lambda: LRScheduler(lambda optimizer: 3), "made a int of the optimizer"),
        (lambda: LRScheduler(3), "must be a name or a class of .* got 3"),
        (lambda: LRScheduler(policy="StepLR"), r"needs `schedule`; write LRScheduler\('StepLR'\)"),
        (
            lambda: LRScheduler(
                lr_scheduler.ExponentialLR(torch.optim.SGD([nn.Parameter(torch.ones(1))]), 0.9)
            ),
            r"is a finished ExponentialLR, .* write LRScheduler\('ExponentialLR'\)",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_training(schedule, words):
    epochs = []
    note = LambdaCallback(on_epoch_begin=lambda state: epochs.append(state.epoch))

    with pytest.raises((ValueError, TypeError), match=words):
        fit(schedule(), note)

    assert epochs == []


def test_a_stream_that_says_no_length_needs_totals(blobs):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return zip(map(torch.from_numpy, X), Y.tolist(), strict=True)

    clf = Estimator(nn.Linear(2, 2), callbacks=[LRScheduler("OneCycleLR")], classes=[0, 1])

    with pytest.raises(ValueError, match="`total_steps` needs the number of steps in an epoch"):
        clf.fit(Stream())
