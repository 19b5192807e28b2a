"""scikit-learn's own checks of an estimator."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from easyclf import Callback, EarlyStopping, Estimator

# Enough for the accuracy that they ask for; in fewer epochs than the default.
SHORT = {"epochs": 20, "lr": 0.01, "precision": "float64"}
ROUNDING = (
    "Repeated rows and weighted rows are summed in another order: equal in exact arithmetic, as "
    "the same check shows in float64, but in float32 not to the 1e-7 that it asks for."
)


def float32_rounding(estimator):
    """The checks that float32 cannot meet: none in float64."""
    if estimator.precision == "float64":
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": ROUNDING,
        "check_sample_weight_equivalence_on_sparse_data": ROUNDING,
    }


class Note(Callback):
    """It keeps what it saw."""

    def on_train_end(self, state):
        self.epochs_ = state.epoch


@parametrize_with_checks(
    [
        Estimator(),
        # Without callbacks in float64: `check_estimator` in docs/guide/scikit_learn.md.
        Estimator(**SHORT, callbacks=[EarlyStopping("loss"), Note()]),
    ],
    expected_failed_checks=float32_rounding,
)
def test_passes_what_scikit_learn_asks_of_a_classifier(estimator, check):
    check(estimator)
