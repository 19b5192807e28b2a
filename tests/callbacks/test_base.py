"""The hooks of callbacks: when they are called, with what, and what stops a run."""

import threading

import joblib
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from easyclf import (
    AccuracyLogger,
    Callback,
    EarlyStopping,
    Estimator,
    LambdaCallback,
    LRScheduler,
    ProgressBar,
)
from easyclf.callbacks.base import Hooks

HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
    "close",
]


class Recorder(Callback):
    """Notes which of its hooks were called, and what `look` saw in the state."""

    def __init__(self, look=lambda state: None):
        self.look = look
        self.calls = []
        self.seen = []


def _recording(name):
    def hook(self, state):
        self.calls.append(name)
        self.seen.append(self.look(state))

    return hook


for hook_name in HOOKS:
    setattr(Recorder, hook_name, _recording(hook_name))


class Failing(Callback):
    """Raises an error, when its time has come."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise self.error


def estimator(network, *callbacks, **parameters):
    keywords = {"optimizer": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 10, "shuffle": False}
    return Estimator(network, callbacks=list(callbacks), **{**keywords, **parameters})


def stop_when(hook, condition):
    return LambdaCallback(**{hook: lambda state: condition(state) and state.stop("enough")})


def test_hooks_are_called_in_the_order_of_what_happens(blobs, network):
    recorder = Recorder()

    estimator(network, recorder).fit(*blobs)

    epoch = ["on_epoch_begin", *3 * ["on_batch_begin", "on_batch_end"], "on_epoch_end"]
    assert recorder.calls == ["on_train_begin", *epoch, *epoch, "on_train_end", "close"]


def test_callbacks_are_called_in_the_order_of_the_list(blobs, network):
    order = []
    callbacks = [
        LambdaCallback(on_epoch_end=lambda state, name=name: order.append(name)) for name in "ab"
    ]

    estimator(network, *callbacks).fit(*blobs)

    assert order == ["a", "b", "a", "b"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_nobody_overrides_is_never_called(hook, blobs, network, monkeypatch):
    def fail(callback, state):
        pytest.fail(f"{hook} was called")

    monkeypatch.setattr(Callback, hook, fail)

    estimator(network, Callback(), LambdaCallback()).fit(*blobs)


def test_the_state_says_where_the_run_is(blobs, network):
    recorder = Recorder(lambda state: (state.epoch, state.step, len(state.history)))

    estimator(network, recorder).fit(*blobs)

    first = [(1, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 0), (1, 2, 0), (1, 2, 0), (1, 3, 0), (1, 3, 1)]
    second = [(2, step + 3, 1) for _, step, _ in first[:-1]] + [(2, 6, 2)]
    assert recorder.seen == [(0, 0, 0), *first, *second, (2, 6, 2), (2, 6, 2)]


def test_the_state_says_what_is_planned(blobs, network):
    recorder = Recorder(lambda state: (state.epochs, state.steps_per_epoch))

    estimator(network, recorder, batch_size=8).fit(*blobs)

    assert set(recorder.seen) == {(2, 4)}


def test_the_state_has_the_module_and_the_optimizer_that_the_estimator_keeps(blobs, network):
    recorder = Recorder(lambda state: (state.module, state.optimizer))

    clf = estimator(network, recorder).fit(*blobs)

    assert recorder.seen[-1] == (clf.module_, clf.optimizer_)


def test_the_logs_of_an_epoch_are_its_row_of_the_history(blobs, network):
    logs = []
    note = LambdaCallback(on_epoch_end=lambda state: logs.append(dict(state.logs)))

    clf = estimator(network, note).fit(*blobs, validation_data=blobs)

    assert list(logs[0]) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert [{"epoch": n, **row} for n, row in enumerate(logs, 1)] == list(clf.history_)


def test_the_logs_of_a_batch_are_its_own_loss_and_accuracy(blobs, network):
    X, y = torch.from_numpy(blobs[0]), torch.from_numpy(blobs[1])
    logs = []
    note = LambdaCallback(on_batch_end=lambda state: logs.append(dict(state.logs)))

    estimator(network, note, epochs=1, lr=1e-30).fit(*blobs)

    outputs = network(X)
    losses = torch.nn.functional.cross_entropy(outputs, y, reduction="none")
    hits = (outputs.argmax(1) == y).float()
    assert [row["loss"].item() for row in logs] == pytest.approx(
        [part.mean().item() for part in losses.split(10)]
    )
    assert [float(row["accuracy"]) for row in logs] == pytest.approx(
        [part.mean().item() for part in hits.split(10)]
    )


def test_a_module_trains_in_batches_and_is_evaluated_at_the_end_of_an_epoch(blobs, network):
    training = []
    recorder = LambdaCallback(
        on_batch_begin=lambda state: training.append(state.module.training),
        on_epoch_end=lambda state: training.append(state.module.training),
    )

    clf = estimator(network, recorder, batch_size=-1).fit(*blobs, validation_data=blobs)

    assert training == [True, False, True, False]
    assert not clf.module_.training


def test_a_stop_after_an_epoch_ends_the_run_with_it(blobs, network):
    recorder = Recorder(lambda state: state.stop_reason)

    clf = estimator(
        network, stop_when("on_epoch_end", lambda state: state.epoch == 3), recorder, epochs=9
    ).fit(*blobs)

    assert clf.n_iter_ == len(clf.history_) == 3
    assert recorder.calls[-2:] == ["on_train_end", "close"]
    assert recorder.seen[-1] == "enough"


def test_a_stop_after_a_batch_ends_the_epoch_with_that_batch(blobs, network):
    X, y = blobs

    clf = estimator(network, stop_when("on_batch_end", lambda state: state.step == 2)).fit(X, y)

    expected = estimator(network, epochs=1).fit(X[:20], y[:20])
    assert clf.n_iter_ == 1
    assert clf.history_["loss"].tolist() == expected.history_["loss"].tolist()
    assert clf.predict_proba(X).tolist() == expected.predict_proba(X).tolist()


def test_a_stop_before_the_first_epoch_leaves_the_weights_as_they_began(blobs, network):
    clf = estimator(network, stop_when("on_train_begin", lambda state: True)).fit(*blobs)

    assert clf.n_iter_ == 0
    assert torch.equal(clf.module_[0].weight, network[0].weight)


def test_an_error_in_a_callback_is_raised_and_says_whose_it_is(blobs, network):
    error = ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match="by zero") as raised:
        estimator(network, Failing(2, error)).fit(*blobs)

    assert raised.value is error
    assert "Failing.on_epoch_end, epoch 2" in " ".join(error.__notes__)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_callbacks_are_closed_also_after_an_error(error, blobs, network):
    recorder = Recorder()

    with pytest.raises(error):
        estimator(network, Failing(1, error()), recorder).fit(*blobs)

    assert recorder.calls.count("close") == 1
    assert recorder.calls[-1] == "close"
    assert "on_train_end" not in recorder.calls


def test_callbacks_are_closed_after_an_error_in_the_module(blobs):
    class Breaks(torch.nn.Linear):
        def forward(self, x):
            if self.training and len(x) == 30:
                raise ZeroDivisionError
            return super().forward(x)

    recorder = Recorder()

    with pytest.raises(ZeroDivisionError):
        estimator(Breaks(4, 3), recorder, batch_size=-1).fit(*blobs)

    assert recorder.calls[-1] == "close"


def test_one_callback_that_cannot_close_does_not_keep_the_others_from_it(blobs, network):
    def fail(state):
        raise ZeroDivisionError

    recorder = Recorder()

    with pytest.raises(ZeroDivisionError) as raised:
        estimator(network, LambdaCallback(close=fail), recorder).fit(*blobs)

    assert recorder.calls[-1] == "close"
    assert "LambdaCallback.close" in " ".join(raised.value.__notes__)


def test_partial_fit_calls_no_callbacks(blobs, network):
    recorder = Recorder()

    estimator(network, recorder).partial_fit(*blobs, classes=[0, 1, 2])

    assert recorder.calls == []


def test_functions_become_hooks(blobs, network):
    calls = []

    estimator(
        network,
        LambdaCallback(**{name: lambda state, name=name: calls.append(name) for name in HOOKS}),
        epochs=1,
        batch_size=-1,
    ).fit(*blobs)

    assert calls == HOOKS


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ({"on_epoch_ends": print}, "no hook `on_epoch_ends`; did you mean `on_epoch_end`"),
        ({"look": print}, "no hook `look`.*on_train_begin"),
        ({"on_epoch_end": 3}, "`on_epoch_end` must be a function of the state; got 3"),
    ],
)
def test_what_is_no_hook_is_refused(hooks, words):
    with pytest.raises(TypeError, match=words):
        LambdaCallback(**hooks)


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, epoch, logs: None,
        lambda self, epoch, logs=None: None,
        lambda self, logs=None: None,
        lambda self, epoch: None,
        lambda self, net, dataset_train=None: None,
        lambda self, state, extra: None,
    ],
    ids=["Keras", "Keras with a default", "logs", "epoch", "skorch", "two"],
)
def test_hook_that_expects_what_other_libraries_pass_is_refused_where_the_class_is_made(hook):
    with pytest.raises(TypeError, match=r"Mine.on_epoch_end takes \(.*one argument, the state"):
        type("Mine", (Callback,), {"on_epoch_end": hook})


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, state: None,
        lambda self, s: None,
        lambda self, *rest: None,
        lambda self, state, seen=(): None,
        staticmethod(lambda state: None),
    ],
    ids=["state", "s", "any", "default", "static"],
)
def test_hook_that_takes_one_argument_is_taken(hook, blobs, network):
    made = type("Mine", (Callback,), {"on_epoch_end": hook})

    estimator(network, made(), epochs=1).fit(*blobs)


def test_function_that_expects_what_keras_passes_is_refused():
    with pytest.raises(TypeError, match=r"`on_epoch_end` takes .epoch, logs.*`state.logs`"):
        LambdaCallback(on_epoch_end=lambda epoch, logs: None)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("on_train_batch_end", "did you mean `on_batch_end`"),
        ("on_train_start", "did you mean `on_train_begin`"),
        ("on_predict_batch_end", "have no hooks of their own"),
    ],
)
def test_hooks_of_other_libraries_are_known(typed, meant):
    with pytest.raises(TypeError, match=f"`{typed}`.*{meant}"):
        type("Mine", (Callback,), {typed: lambda self, state: None})
    with pytest.raises(TypeError, match=f"`{typed}`.*{meant}"):
        LambdaCallback(**{typed: print})


class Passive(Callback):
    changes = "nothing"

    def on_epoch_end(self, state):
        pass


class Heir(Passive):
    def on_batch_end(self, state):
        pass


@pytest.mark.parametrize(
    ("callbacks", "names"),
    [
        ([], set()),
        ([Passive(), EarlyStopping(), AccuracyLogger(), ProgressBar()], set()),
        ([Passive(), Heir()], {"on_batch_end", "on_epoch_end"}),
        ([LambdaCallback(on_epoch_begin=print)], {"on_epoch_begin"}),
        ([Recorder()], set(HOOKS)),
    ],
    ids=["none", "passive", "heir", "lambda", "recorder"],
)
def test_only_hooks_of_callbacks_that_say_so_are_passive(callbacks, names):
    """The word of a class does not hold for its subclasses, which may do more."""
    hooks = Hooks(callbacks)

    assert {name for name in HOOKS if hooks.may_change(name)} == names


def test_a_method_that_only_looks_like_a_hook_is_refused():
    with pytest.raises(TypeError, match=r"`on_batch_finish`, which is no hook.*on_epoch_end"):

        class Misspelled(Callback):
            def on_batch_finish(self, state):
                """It would never be called."""


# Clones


class Keeper(Callback):
    """It holds what cannot be copied, and learns."""

    def __init__(self, epochs=()):
        self.epochs = epochs
        self.lock = threading.Lock()
        self.seen = []

    def on_train_begin(self, state):
        self.last_ = None

    def on_epoch_end(self, state):
        self.last_ = state.epoch


def test_clone_of_a_callback_has_no_results(blobs):
    early = EarlyStopping("loss", patience=3)
    clf = Estimator(epochs=2, callbacks=[early]).fit(*blobs)

    copied = clone(clf).callbacks[0]

    assert vars(copied) == vars(EarlyStopping("loss", patience=3))
    assert early.best_epoch_ == clf.callbacks[0].best_epoch_ == 2


def test_clone_shares_what_cannot_be_copied():
    keeper = Keeper()

    copied = clone(keeper)

    assert copied.lock is keeper.lock
    assert copied.seen is not keeper.seen


def test_callback_with_a_lock_survives_folds(blobs):
    keeper = Keeper()

    cross_val_score(Estimator(epochs=1, callbacks=[keeper]), *blobs, cv=2)

    assert not hasattr(keeper, "last_")


def test_attributes_that_belong_together_stay_together_in_a_clone():
    keeper = Keeper()
    keeper.epochs = keeper.seen

    copied = clone(keeper)

    assert copied.epochs is copied.seen


def test_shared_callback_sees_every_fold(blobs):
    class Shared(Keeper):
        is_shared = True

        def on_train_end(self, state):
            self.seen.append(state.epoch)

    shared = Shared()
    cross_val_score(Estimator(epochs=2, callbacks=[shared]), *blobs, cv=3)

    assert shared.seen == [2, 2, 2]


def test_fit_does_not_change_callbacks_as_parameters(blobs):
    early, clf = EarlyStopping("loss"), Estimator(epochs=2)
    before = joblib.hash(early)

    clf.set_params(callbacks=[early]).fit(*blobs)

    assert joblib.hash(early) == before
    assert early.best_epoch_ == 2


def test_a_hook_that_takes_no_state_is_refused():
    with pytest.raises(TypeError, match=r"takes \(\); a hook takes one argument"):

        class Deaf(Callback):
            def on_epoch_end(self): ...

    with pytest.raises(TypeError, match="a hook takes one argument"):
        LambdaCallback(on_epoch_end=lambda: None)

    LambdaCallback(on_epoch_end=lambda *given: None)


@pytest.mark.parametrize(
    ("hook", "in_steps"),
    [("on_epoch_end", False), ("on_train_begin", False), ("on_batch_end", True)],
)
def test_code_of_users_is_looked_after_in_steps_only_where_it_runs_in_them(hook, in_steps):
    hooks = Hooks([EarlyStopping(), LambdaCallback(**{hook: lambda state: None})])

    assert hooks.run_user_code
    assert hooks.run_user_code_in_steps is in_steps
    assert not Hooks([EarlyStopping()]).run_user_code


@pytest.mark.parametrize("field", ["stop_training", "epoch_number"])
def test_what_a_hook_sets_and_nobody_reads_is_refused(field):
    """Keras stops by `stop_training = True`; here `state.stop(reason)` does."""
    clf = Estimator(callbacks=[LambdaCallback(on_epoch_end=lambda state: setattr(state, field, 1))])

    with pytest.raises(AttributeError, match=f"has no attribute '{field}'"):
        clf.fit([[0.0], [1.0]], [0, 1])


def test_a_function_in_a_list_of_settings_is_code_of_users():
    factors = [lambda step: 1.0]

    assert Hooks([LRScheduler("LambdaLR", lr_lambda=factors)]).run_user_code
    assert not Hooks([LRScheduler("StepLR", step_size=2)]).run_user_code
