"""scikit-learn's own callbacks are told of every epoch."""

import copy
import pickle

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from easyclf import Checkpoint, EarlyStopping, Estimator, TrainingDiverged
from easyclf.callbacks import sklearn_bridge
from easyclf.callbacks.loggers import shown_by
from easyclf.engine import Fitting
from easyclf.exceptions import TapeDiffers
from easyclf.tape.tapes import Player

HAS_PROTOCOL = sklearn_bridge._HAS_PROTOCOL
needs_protocol = pytest.mark.skipif(not HAS_PROTOCOL, reason="needs scikit-learn 1.9")


class Recorder:
    """Notes what it is told of: `stop_at` is the epoch that it stops, `fail_at` fails in it."""

    def __init__(self, stop_at=None, fail_at=None, error=RuntimeError):
        self.stop_at, self.fail_at, self.error = stop_at, fail_at, error
        self.events, self.given, self.estimators = [], [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.events.append(f"end {context.task_name} {context.task_id}")
        self.given.append((X, y, metadata))
        self.estimators.append(fitted_estimator)
        if context.task_name == "epoch" and context.task_id == self.fail_at:
            raise self.error("no more")
        return context.task_name == "epoch" and context.task_id == self.stop_at


class Light(Recorder):
    """Asks for nothing."""

    def on_fit_task_end(self, estimator, context):
        return super().on_fit_task_end(estimator, context)


def fit(recorder, network, blobs, **parameters):
    settings = {"epochs": 3, "random_state": 0, **parameters}
    return Estimator(network, **settings).set_callbacks(recorder).fit(*blobs)


def weights(clf):
    return [weight.tolist() for weight in clf.module_.state_dict().values()]


def epochs_of(n_epochs, name="epoch"):
    return [f"{when} {name} {k}" for k in range(n_epochs) for when in ("begin", "end")]


@needs_protocol
def test_every_epoch_is_a_task_of_the_fit(network, blobs):
    recorder = Light()

    fit(recorder, network, blobs)

    inside = ["begin fit 0", *epochs_of(3), "end fit 0"]
    assert recorder.events == ["setup", *inside, "teardown"]


@needs_protocol
def test_hooks_are_given_what_fit_was_given(network, blobs):
    X, y = blobs
    weighted, plain = Recorder(), Recorder()
    sample_weight = np.ones(len(y))

    Estimator(network, epochs=1).set_callbacks(weighted, plain).fit(X, y, sample_weight)
    fit(plain, network, blobs)

    assert all(given[0] is X and given[1] is y for given in weighted.given)
    assert all(given[2]["sample_weight"] is sample_weight for given in weighted.given)
    assert plain.given[-1][2] is None


@needs_protocol
def test_a_true_return_ends_the_training(network, blobs):
    recorder = Light(stop_at=1)

    clf = fit(recorder, network, blobs, epochs=9)

    assert clf.n_iter_ == 2
    assert recorder.events[-3:] == ["end epoch 1", "end fit 0", "teardown"]


@needs_protocol
def test_a_hook_gets_the_estimator_as_it_was_at_the_end_of_each_epoch(network, blobs):
    recorder = Recorder()

    clf = fit(recorder, network, blobs, lr=0.1)

    *of_epochs, last = recorder.estimators
    for n_epochs, then in enumerate(of_epochs, 1):
        alone = Estimator(network, epochs=n_epochs, random_state=0, lr=0.1).fit(*blobs)
        assert weights(then) == weights(alone)
        assert then.n_iter_ == n_epochs
        assert not then.module_.training
    assert weights(last) == weights(clf)
    assert last.module_ is not clf.module_


@needs_protocol
def test_the_estimator_that_a_hook_gets_can_go_on_training(network, blobs):
    recorder = Recorder()
    clf = fit(recorder, network, blobs)
    then = recorder.estimators[0].set_callbacks()

    then.set_params(warm_start=True, epochs=2).fit(*blobs)

    assert weights(then) == weights(clf)


@needs_protocol
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_callbacks_are_torn_down_after_an_error_of_a_hook(error, network, blobs):
    recorder = Light(fail_at=1, error=error)
    clf = Estimator(network, epochs=3).set_callbacks(recorder)

    with pytest.raises(error, match="no more"):
        clf.fit(*blobs)

    assert recorder.events[-2:] == ["end epoch 1", "teardown"]
    assert hasattr(clf, "module_") == (error is KeyboardInterrupt)
    clf.set_callbacks(Light()).fit(*blobs)


@needs_protocol
def test_callbacks_are_torn_down_when_the_training_fails(network, blobs):
    recorder = Light()

    with pytest.raises(TrainingDiverged):
        fit(recorder, network, blobs, optimizer="sgd", lr=1e39)

    assert recorder.events[-1] == "teardown"


@needs_protocol
def test_a_true_return_ends_a_training_that_is_resumed(network, blobs, tmp_path):
    settings = {"epochs": 9, "random_state": 0, "callbacks": [Checkpoint(tmp_path)]}
    with pytest.raises(KeyboardInterrupt):
        Estimator(network, **settings).set_callbacks(Light(3, 3, KeyboardInterrupt)).fit(*blobs)
    recorder = Light(stop_at=1)

    clf = Estimator(network, **settings).set_callbacks(recorder).fit(*blobs)

    assert recorder.events[2:-2] == epochs_of(2)
    assert clf.n_iter_ == clf.callbacks[0].resumed_epoch_ + 2 < 9


@needs_protocol
def test_early_stopping_ends_the_fit_that_they_are_told_of(network, blobs):
    recorder = Light()

    clf = fit(recorder, network, blobs, epochs=50, lr=1e-9, callbacks=[EarlyStopping("loss", 1)])

    assert recorder.events[-2:] == ["end fit 0", "teardown"]
    assert sum(event.startswith("end epoch") for event in recorder.events) == clf.n_iter_ < 50


@needs_protocol
def test_a_warm_start_is_a_fit_of_its_own(network, blobs):
    recorder = Light()
    clf = fit(recorder, network, blobs, epochs=1, warm_start=True)
    recorder.events.clear()

    clf.fit(*blobs, epochs=2)

    assert recorder.events[2:-2] == epochs_of(2)


@needs_protocol
def test_a_fit_that_begins_again_without_tapes_tells_each_epoch_once(monkeypatch, network, blobs):
    plays = []

    def play(player, batch):
        plays.append(batch)
        if len(plays) == 5:
            raise TapeDiffers("its figures are others")

    monkeypatch.setattr(Player, "play", play)
    recorder = Light()

    with pytest.warns(UserWarning, match="begins again"):
        fit(recorder, network, blobs, batch_size=10)

    assert recorder.events[2:-2] == epochs_of(3)


@needs_protocol
def test_a_stop_holds_in_a_fit_that_begins_again(monkeypatch, network, blobs):
    runs = []

    def run(fitting, callbacks, *, uses_tapes):
        runs.append(uses_tapes)
        fitted = whole_run(fitting, callbacks, uses_tapes=uses_tapes)
        if len(runs) == 1:
            raise TapeDiffers("its figures are others")
        return fitted

    whole_run = Fitting._run
    monkeypatch.setattr(Fitting, "_run", run)

    with pytest.warns(UserWarning, match="begins again"):
        clf = fit(Light(stop_at=0), network, blobs)

    assert runs == [True, False]
    assert clf.n_iter_ == 1


@needs_protocol
def test_nothing_is_between_a_fit_and_its_training_where_nobody_is_told(network):
    clf, rows = Estimator(network), sklearn_bridge.TrainingRows(None, None, None)

    class Training:
        fitted = None

        def run(self, callbacks):
            raise NotImplementedError

    training = Training()
    assert sklearn_bridge.telling_tasks(clf, training, rows) == training.run
    clf.set_callbacks(Light())
    assert sklearn_bridge.telling_tasks(clf, training, rows) != training.run
    assert sklearn_bridge.telling_tasks(clf, training, None) == training.run
    clf.set_callbacks()
    assert sklearn_bridge.telling_tasks(clf, training, rows) == training.run


@needs_protocol
def test_the_fast_step_stays(caplog, blobs):
    X, y = np.tile(blobs[0], (20, 1)), np.tile(blobs[1], 20)
    caplog.set_level("DEBUG", "easyclf")

    Estimator(nn.Linear(4, 3), epochs=20, batch_size=10).set_callbacks(Light()).fit(X, y)

    assert "Linear is trained from a tape." in caplog.text


@needs_protocol
def test_hooks_that_register_others_are_noticed(blobs):
    """Code of users runs in them: a tape may not pass over what it does."""
    X, y = np.tile(blobs[0], (20, 1)), np.tile(blobs[1], 20)
    calls = []

    class Meddler(Light):
        def on_fit_task_end(self, estimator, context):
            if context.task_id == 15:
                self.handle = torch.nn.modules.module.register_module_forward_hook(
                    lambda *_: calls.append(0)
                )

        def teardown(self, estimator, context):
            self.handle.remove()

    clf = Estimator(nn.Linear(4, 3), epochs=20, batch_size=10).set_callbacks(Meddler())
    clf.fit(X, y)

    assert len(calls) == 4 * 60


@needs_protocol
def test_clones_and_copies_have_the_callbacks(network):
    recorder = Light()
    clf = Estimator(network).set_callbacks(recorder)

    assert sklearn_bridge.are_tasks_told(clone(clf))
    assert sklearn_bridge.are_tasks_told(copy.deepcopy(clf))
    assert sklearn_bridge.are_tasks_told(pickle.loads(pickle.dumps(clf)))


@needs_protocol
def test_a_range_test_a_summary_and_partial_fit_are_not_told(network, blobs):
    recorder = Light()
    clf = Estimator(network, lr=0.01).set_callbacks(recorder)

    clf.find_lr(*blobs)
    Estimator(network).set_callbacks(recorder).summary(*blobs)
    clf.partial_fit(*blobs, classes=[0, 1, 2])

    assert recorder.events == []


@needs_protocol
def test_a_pipeline_tells_its_own_tasks_and_the_epochs(network, blobs):
    recorder = Light()
    recorder.max_propagation_depth = None
    clf = make_pipeline(StandardScaler(), Estimator(network, epochs=2)).set_callbacks(recorder)

    clf.fit(*blobs)

    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    assert [event for event in recorder.events if " epoch " in event] == epochs_of(2)


@needs_protocol
def test_scores_of_every_epoch_come_from_a_search(blobs):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    clf = Estimator(epochs=2, random_state=0).set_callbacks(monitor)

    scaled = make_pipeline(StandardScaler(), clf)
    with parallel_config("threading", n_jobs=2):
        search = GridSearchCV(scaled, {"estimator__lr": [0.1, 1e-9]}, cv=2).fit(*blobs)

    rows = monitor.get_logs().data
    assert sum(row["task_name"] == "epoch" for row in rows) == 2 * (2 * 2 + 1)
    assert search.best_params_ == {"estimator__lr": 0.1}


# From another process: `test_two_processes_share_the_cores_and_score_as_this_one`.


@needs_protocol
def test_cross_validation_logs_a_run_for_each_fold(network, blobs):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])

    cross_validate(Estimator(network, epochs=2).set_callbacks(monitor), *blobs, cv=3)

    runs = monitor.get_logs(select="all")
    assert [len(run.data) for run in runs] == [3, 3, 3]
    assert {"accuracy", "neg_log_loss"} <= runs[0].data[0].keys()


@needs_protocol
def test_scikit_learns_bar_shows_epochs_in_the_place_of_ours(capsys, monkeypatch, network, blobs):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    monkeypatch.setattr("easyclf.callbacks.loggers.is_watched", lambda: True)
    clf = Estimator(network, epochs=2).set_callbacks(ProgressBar())

    clf.fit(*blobs)

    assert "Estimator - fit" in capsys.readouterr().out
    assert shown_by("auto", is_shown_otherwise=True) == []
    assert len(shown_by("auto", is_shown_otherwise=False)) == 1
    assert len(clf._all_callbacks()) == 0


@needs_protocol
def test_callbacks_of_the_other_kind_are_sent_to_their_place(network, blobs):
    clf = Estimator(network)

    with pytest.raises(TypeError, match=r"EarlyStopping is one of easyclf; use callbacks=\[Early"):
        clf.set_callbacks(EarlyStopping())
    with pytest.raises(TypeError, match=r"got the class Light; did you mean `Light\(\)`\?"):
        clf.set_callbacks(Light)
    with pytest.raises(TypeError, match="FitCallback protocol"):
        clf.set_callbacks("bar")
    with pytest.raises(TypeError, match="protocol are given to `set_callbacks`"):
        clf.set_params(callbacks=[Light()]).fit(*blobs)


@needs_protocol
@pytest.mark.parametrize("name", ["_KEPT", "_ROOT"])
def test_without_the_private_names_callbacks_are_refused(name, monkeypatch, network, blobs):
    monkeypatch.setattr(sklearn_bridge, name, f"{getattr(sklearn_bridge, name)}_is_gone")
    clf = Estimator(network, epochs=1)

    with pytest.raises(NotImplementedError, match="does not know how scikit-learn"):
        clf.set_callbacks(Light())

    clf.set_callbacks().fit(*blobs)


def test_an_older_scikit_learn_has_no_such_method(monkeypatch, network):
    monkeypatch.setattr(sklearn_bridge, "_HAS_PROTOCOL", False)
    clf = Estimator(network)

    assert not hasattr(clf, "set_callbacks")
    with pytest.raises(AttributeError) as caught:
        clf.set_callbacks(Light())
    assert "needs scikit-learn 1.9 or newer" in str(caught.value.__cause__)
