"""What a scikit-learn user does all day, with an `Estimator` for a classifier."""

import os

import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
import torch
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SelectKBest, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.inspection import (
    DecisionBoundaryDisplay,
    partial_dependence,
    permutation_importance,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay, log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.fixes import parse_version
from torch import nn

from easyclf import EarlyStopping, Estimator


def estimator(module=None, **parameters):
    keywords = {
        "optimizer": "adam",
        "lr": 0.05,
        "epochs": 15,
        "batch_size": 16,
        "random_state": 0,
        **({"module__hidden": (8,)} if module is None else {}),
    }
    return Estimator(module, **{**keywords, **parameters})


@pytest.fixture
def figures():
    """Pictures are drawn nowhere, and forgotten."""
    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# Searching and validating.


def test_a_grid_search_finds_the_best_parameters_of_all_kinds(blobs):
    grid = {
        "module__hidden": [(8,), (2, 2)],
        "lr": [1e-9, 0.05],
        "optimizer__weight_decay": [0.0, 100.0],
    }

    search = GridSearchCV(estimator(), grid, cv=2, error_score="raise").fit(*blobs)

    assert search.best_params_["lr"] == 0.05
    assert search.best_params_["optimizer__weight_decay"] == 0.0
    assert search.best_score_ > 0.9
    assert len(search.cv_results_["params"]) == 8


def test_every_fit_of_a_search_starts_from_the_weights_of_the_given_module(blobs, network):
    scores = cross_val_score(estimator(network, lr=1e-9), *blobs, cv=3)

    y = blobs[1]
    answers = network(torch.from_numpy(blobs[0])).argmax(1).numpy()
    assert scores.mean() == pytest.approx(np.mean(answers == y))


def test_a_wrong_name_in_a_grid_is_told_with_the_right_one(blobs):
    search = GridSearchCV(estimator(), {"module__hiden": [(3,)]}, cv=2, error_score="raise")

    with pytest.raises(TypeError, match=r"`module__hiden`.*did you mean `module__hidden`"):
        search.fit(*blobs)


def test_more_epochs_are_a_resource(blobs):
    search = HalvingGridSearchCV(
        estimator(), {"lr": [1e-9, 0.05]}, resource="epochs", max_resources=16, cv=2
    ).fit(*blobs)

    assert search.best_params_["lr"] == 0.05
    assert search.best_estimator_.n_iter_ == search.n_resources_[-1]


def test_two_processes_share_the_cores_and_score_as_this_one(blobs, monkeypatch):
    """Each of the two has half of the threads, and a fit leaves it so.

    There is one fold, so that one of them has nothing to do, and does not import torch.
    """
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    clf = estimator(module__dropout=0.5, epochs=3)
    monitor = monitored(clf)
    scoring = {"loss": "neg_log_loss", "threads": lambda *_: torch.get_num_threads()}

    folds = list(KFold(2, shuffle=True, random_state=0).split(*blobs))[:1]
    here, there, again = [
        cross_validate(clf, *blobs, cv=folds, n_jobs=n_jobs, scoring=scoring)
        for n_jobs in (1, 2, 1)
    ]

    losses = [scores["test_loss"].tolist() for scores in (here, there, again)]
    assert losses[0] == losses[1] == losses[2]
    assert there["test_threads"].tolist() == [max(1, (os.cpu_count() or 1) // 2)]
    if monitor is not None:
        # A fit of three epochs, wherever it ran.
        fits = monitor.get_logs(select="all")
        tasks = [[row["task_name"] for row in fit.data] for fit in fits]
        assert tasks == [["fit", *3 * ["epoch"]]] * 3


def monitored(clf):
    """What keeps the scores of every epoch, given to `clf`; None with an older scikit-learn."""
    if not hasattr(clf, "set_callbacks"):
        return None
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    clf.set_callbacks(monitor)
    return monitor


def test_a_cross_validation_leaves_the_global_random_states(blobs, random_states):
    before = random_states()

    cross_val_score(estimator(epochs=1), *blobs, cv=2)

    assert random_states() == before


def test_curves_show_what_more_data_and_more_epochs_bring(blobs):
    sizes, train, test = learning_curve(estimator(), *blobs, cv=3, train_sizes=[0.5, 1.0])
    _, by_epochs = validation_curve(
        estimator(), *blobs, param_name="epochs", param_range=[1, 20], cv=3
    )

    assert sizes.tolist() == [10, 20]
    assert train.shape == test.shape == (2, 3)
    assert test[1].mean() > 0.9
    assert by_epochs[0].mean() < by_epochs[1].mean()


def test_probabilities_are_predicted_out_of_fold(blobs):
    proba = cross_val_predict(estimator(), *blobs, cv=3, method="predict_proba")

    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert log_loss(blobs[1], proba) < 0.5


def test_a_class_that_a_fold_misses_has_a_column_when_all_classes_are_told(blobs):
    X, y = blobs
    everything = np.arange(30)

    scores = cross_validate(
        estimator(classes=[0, 1, 2]),
        X,
        y,
        cv=[(np.flatnonzero(y != missing), everything) for missing in (0, 2)],
        scoring=["accuracy", "neg_log_loss"],
        error_score="raise",
        return_estimator=True,
    )

    assert scores["test_accuracy"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert np.isfinite(scores["test_neg_log_loss"]).all()
    assert [clf.predict_proba(X).shape for clf in scores["estimator"]] == 2 * [(30, 3)]


# Estimators made of estimators.


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: CalibratedClassifierCV(clf, cv=2),
        lambda clf: BaggingClassifier(clf, n_estimators=2, random_state=0),
        lambda clf: AdaBoostClassifier(clf, n_estimators=2, random_state=0),
        OneVsRestClassifier,
        OneVsOneClassifier,
        lambda clf: VotingClassifier([("a", clf), ("b", LogisticRegression())]),
        lambda clf: StackingClassifier([("a", clf)], LogisticRegression(), cv=2),
        lambda clf: make_pipeline(SelectKBest(k=3), clf),
        lambda clf: make_pipeline(
            SequentialFeatureSelector(clf, n_features_to_select=3, cv=2), clf
        ),
    ],
)
def test_estimators_that_are_made_of_others_work(wrap, blobs):
    combined = wrap(estimator()).fit(*blobs)

    assert combined.score(*blobs) > 0.9
    assert clone(combined).fit(*blobs).score(*blobs) == combined.score(*blobs)


def test_a_soft_vote_is_the_mean_of_the_probabilities(blobs):
    X, y = blobs
    members = [("network", estimator()), ("linear", LogisticRegression())]

    vote = VotingClassifier(members, voting="soft").fit(X, y)

    mean = sum(clone(member).fit(X, y).predict_proba(X) for _, member in members) / 2
    np.testing.assert_allclose(vote.predict_proba(X), mean, rtol=1e-6)


def test_boosting_weighs_the_rows_that_were_wrong(blobs):
    """The first network knows too little, and the second sees other weights."""
    X, y = blobs
    boost = AdaBoostClassifier(estimator(epochs=1, lr=0.01), n_estimators=2, random_state=0)

    boost.fit(X, y)

    first, second = boost.estimators_
    assert first.score(X, y) < 1
    assert not np.array_equal(first.predict_proba(X), second.predict_proba(X))


def test_a_frozen_estimator_is_calibrated_as_it_is(blobs):
    clf = estimator().fit(*blobs)
    before = clf.predict_proba(blobs[0])

    calibrated = CalibratedClassifierCV(FrozenEstimator(clf)).fit(*blobs)

    assert calibrated.score(*blobs) > 0.9
    np.testing.assert_array_equal(clf.predict_proba(blobs[0]), before)


def test_a_threshold_is_tuned(blobs):
    X, y = blobs[0], blobs[1] == 2

    tuned = TunedThresholdClassifierCV(estimator(), cv=2).fit(X, y)

    assert 0 < tuned.best_threshold_ < 1
    assert tuned.score(X, y) > 0.9


def test_rows_without_labels_are_learned_from(blobs):
    X, y = blobs
    some = np.where(np.arange(30) < 12, y, -1)

    assert SelfTrainingClassifier(estimator()).fit(X, some).score(X, y) > 0.9


# Looking at what was fitted.


def test_a_boundary_a_confusion_and_a_curve_are_drawn(blobs, figures):
    X, y = blobs[0][:, :2], blobs[1]
    clf = estimator().fit(X, y)

    boundary = DecisionBoundaryDisplay.from_estimator(clf, X, grid_resolution=5)
    confusion = ConfusionMatrixDisplay.from_estimator(clf, X, y)
    curve = RocCurveDisplay.from_estimator(clone(clf).fit(X, y == 0), X, y == 0)

    assert boundary.response.shape[:2] == (5, 5)
    assert confusion.confusion_matrix.trace() > 27
    assert curve.roc_auc > 0.9


def test_a_column_of_noise_is_the_least_important(blobs):
    clf = estimator().fit(*blobs)

    importances = permutation_importance(clf, *blobs, n_repeats=3, random_state=0).importances_mean

    assert importances.argmin() == 3
    assert (importances[:3] > 0.05).all()


def test_the_first_class_depends_on_the_first_column(blobs):
    clf = estimator().fit(*blobs)

    of_class = partial_dependence(clf, blobs[0], [0], grid_resolution=5)["average"][0]

    assert of_class[-1] > of_class[0] + 0.2


@pytest.mark.parametrize("is_fitted", [False, True])
def test_an_estimator_shows_its_parameters(is_fitted, blobs):
    clf = make_pipeline(StandardScaler(), estimator())
    if is_fitted:
        clf.fit(*blobs)

    html = clf._repr_html_()

    assert "module__hidden=(8,)" in repr(clf).replace("\n", "").replace(" ", "")
    assert "Estimator" in html
    assert "module__hidden" in html


def test_an_unfitted_estimator_says_so(blobs):
    with pytest.raises(NotFittedError, match="Estimator instance is not fitted yet"):
        estimator().predict(blobs[0])


# Rows and labels of any kind.


@pytest.mark.parametrize(
    "make",
    [
        lambda X: X.astype(np.float64),
        lambda X: X.astype(np.float16),
        lambda X: X.astype(np.int64),
        lambda X: X.astype(np.int32),
        lambda X: X.astype(np.uint8),
        lambda X: X.tolist(),
        lambda X: pd.DataFrame(X, columns=list("abcd")),
        lambda X: pl.DataFrame(X, schema=list("abcd")),
        sp.csr_array,
        sp.csr_matrix,
        sp.csc_matrix,
        torch.from_numpy,
    ],
)
def test_rows_of_any_kind_are_validated_in_folds(make, blobs):
    X, y = blobs[0].round().clip(0).astype(np.float32), blobs[1]

    scores = cross_val_score(estimator(epochs=3), make(X), y, cv=3, error_score="raise")

    assert scores.tolist() == cross_val_score(estimator(epochs=3), X, y, cv=3).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda y: y.astype(np.int32),
        lambda y: y.astype(np.int8),
        lambda y: y.astype(np.float32),
        lambda y: y.astype(str),
        lambda y: y.astype(str).astype(object),
        lambda y: y.tolist(),
        lambda y: y.astype(str).tolist(),
        lambda y: y > 0,
        lambda y: y * 4 + 3,
        lambda y: y - 1,
        lambda y: y - 100,
        pd.Series,
        lambda y: pd.Series(y.astype(str)),
        lambda y: pd.Series(y.astype(str), dtype="category"),
        lambda y: pl.Series(y.astype(str)),
    ],
)
def test_labels_of_any_kind_are_validated_in_folds(make, blobs):
    X, y = blobs[0], make(blobs[1])

    scores = cross_validate(
        estimator(), X, y, cv=3, scoring=["accuracy", "neg_log_loss"], error_score="raise"
    )
    answers = estimator().fit(X, y).predict(X)

    assert scores["test_accuracy"].mean() > 0.9
    assert np.isfinite(scores["test_neg_log_loss"]).all()
    assert np.mean(answers == np.asarray(y)) > 0.9


def test_columns_of_texts_are_encoded_in_a_pipeline():
    """The encoder makes sparse rows."""
    X = pd.DataFrame({"color": ["red", "blue", "green"] * 4, "size": np.arange(12.0)})
    y = (X["color"] == "red").to_numpy()
    encode = make_column_transformer(
        (OneHotEncoder(), ["color"]), remainder="passthrough", sparse_threshold=1.0
    )

    model = make_pipeline(encode, estimator(epochs=60)).fit(X, y)

    assert sp.issparse(encode.fit_transform(X))
    assert model.score(X, y) == 1.0


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_the_output_of_transformers_may_be_a_frame(kind, blobs):
    X = pd.DataFrame(blobs[0], columns=list("abcd"))
    model = make_pipeline(StandardScaler(), estimator()).set_output(transform=kind)

    model.fit(X, blobs[1])

    plain = make_pipeline(StandardScaler(), estimator()).fit(blobs[0], blobs[1])
    assert model[-1].feature_names_in_.tolist() == list("abcd")
    np.testing.assert_allclose(
        model.predict_proba(X), plain.predict_proba(blobs[0]), rtol=1e-4, atol=1e-6
    )


def test_missing_values_are_refused_unless_they_are_imputed(blobs):
    X, y = blobs[0].copy(), blobs[1]
    X[5, 2] = np.nan

    with pytest.raises(ValueError, match=r"X contains NaN.*row 5, column 2.*SimpleImputer"):
        estimator().fit(X, y)
    assert make_pipeline(SimpleImputer(), estimator()).fit(X, y).score(X, y) > 0.9


def test_a_column_too_few_is_told_as_scikit_learn_tells_it(blobs):
    words = "X has 3 features, but Estimator is expecting 4 features as input"

    with pytest.raises(ValueError, match=words):
        estimator().fit(*blobs).predict(blobs[0][:, :3])


@pytest.mark.parametrize("n_rows", [1, 2, 3])
def test_very_few_rows_are_enough(n_rows, blobs):
    X, y = blobs[0][:n_rows], blobs[1][:n_rows]

    clf = estimator(classes=[0, 1, 2], epochs=40).fit(X, y)

    assert clf.predict(X).tolist() == y.tolist()
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1, rtol=1e-5)


# Targets of two classes, and of several at once.


@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], [1, 2], ["no", "yes"], [False, True]])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_two_classes_are_learned_with_one_output_or_two(n_outputs, labels, blobs):
    X, y = blobs[0], np.asarray(labels)[(blobs[1] == 2).astype(int)]

    clf = estimator(nn.Linear(4, n_outputs), epochs=40).fit(X, y)

    proba = clf.predict_proba(X)
    assert clf.score(X, y) > 0.9
    assert clf.classes_.tolist() == sorted(labels)
    assert proba.shape == (30, 2)
    assert roc_auc_score(y == labels[1], proba[:, 1]) > 0.9
    assert roc_auc_score(y == labels[1], clf.decision_function(X)) > 0.9


def test_several_labels_are_learned_at_once(blobs):
    X, y = blobs[0], np.stack([blobs[1] == 0, blobs[1] == 1, blobs[1] > 0], axis=1).astype(int)

    clf = estimator(epochs=40).fit(X, y)

    assert clf.predict_proba(X).shape == (30, 3)
    assert clf.score(X, y) == np.mean((clf.predict(X) == y).all(axis=1)) > 0.9
    assert cross_val_score(estimator(epochs=40), X, y, cv=3, scoring="f1_macro").mean() > 0.8
    assert MultiOutputClassifier(estimator(epochs=40)).fit(X, y).score(X, y) > 0.9


# Weights, and other things beside the rows.


def test_rows_of_weight_zero_may_be_labelled_wrongly(blobs):
    X, y = np.concatenate([blobs[0]] * 2), np.concatenate([blobs[1], np.zeros(30, dtype=int)])
    weight = np.repeat([1.0, 0.0], 30)

    clf = estimator().fit(X, y, sample_weight=weight)

    assert clf.score(*blobs) > 0.9
    np.testing.assert_array_equal(clf.predict_proba(X), estimator().fit(*blobs).predict_proba(X))


def test_balanced_classes_are_balanced_weights(blobs, network):
    keep = np.arange(30)[(blobs[1] != 1) | (np.arange(30) < 6)]
    X, y = blobs[0][keep], blobs[1][keep]

    balanced = estimator(network, class_weight="balanced").fit(X, y)

    weighted = estimator(network).fit(X, y, sample_weight=compute_sample_weight("balanced", y))
    plain = estimator(network).fit(X, y)
    np.testing.assert_allclose(balanced.predict_proba(X), weighted.predict_proba(X), rtol=1e-3)
    assert not np.allclose(balanced.predict_proba(X), plain.predict_proba(X), rtol=1e-2)


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"),
    reason="scikit-learn asked pipelines for requests of their own (its issue 30937)",
)
def test_sample_weights_are_routed_through_folds_and_pipelines(blobs, routing):
    """A third of the labels are wrong, and weigh nothing in training nor in scores."""
    X, y = blobs[0], np.where(np.arange(30) < 10, (blobs[1] + 1) % 3, blobs[1])
    weight = (np.arange(30) >= 10).astype(float)
    clf = estimator(epochs=30).set_fit_request(sample_weight=True)
    model = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=False),
        clf.set_score_request(sample_weight=True),
    )

    with_weights, without = (
        cross_val_score(model, X, y, cv=KFold(3, shuffle=True, random_state=0), params=params)
        for params in ({"sample_weight": weight}, None)
    )

    assert with_weights.mean() > 0.9
    assert without.mean() < 0.8


def test_a_pipeline_transforms_the_validation_rows_too(blobs, routing):
    X, y = 1000 * blobs[0], blobs[1]
    model = Pipeline(
        [
            ("scale", StandardScaler()),
            ("clf", estimator(epochs=3).set_fit_request(X_val=True, y_val=True)),
        ],
        transform_input=["X_val"],
    )

    model.fit(X[:20], y[:20], X_val=X[20:], y_val=y[20:])

    scale = StandardScaler().fit(X[:20])
    by_hand = estimator(epochs=3).fit(
        scale.transform(X[:20]), y[:20], validation_data=(scale.transform(X[20:]), y[20:])
    )
    assert model[-1].history_["val_loss"].tolist() == by_hand.history_["val_loss"].tolist()
    assert model[-1].history_["val_accuracy"][-1] == model.score(X[20:], y[20:])


def test_early_stopping_in_a_search_gives_every_fit_its_best_weights(blobs):
    clf = estimator(lr=1.0, epochs=30, validation_split=0.3, callbacks=[EarlyStopping(patience=3)])

    search = GridSearchCV(clf, {"module__hidden": [(4,), (8,)]}, cv=2, error_score="raise")
    search.fit(*blobs)

    best = search.best_estimator_
    early = best.callbacks[0]
    assert not hasattr(clf.callbacks[0], "best_score_")
    assert early.best_score_ == best.history_.best("val_loss")["val_loss"]
    assert best.n_iter_ < 30
