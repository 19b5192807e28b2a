"""Answers for new rows: `predict` and its siblings, `score`, `evaluate`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from easyclf.callbacks import (
    CallbackLike,
    find_learning_rate,
    give_results,
    plain_callbacks,
    results_of,
)
from easyclf.data import Reader
from easyclf.decisions import cheapest, with_uncertain
from easyclf.determinism import deterministic_algorithms
from easyclf.displays import LearningRateDisplay
from easyclf.engine import Fitted, FittedAttribute, Settings, Unseen
from easyclf.history import History
from easyclf.metrics import MetricLike, Metrics
from easyclf.mlp import MLP
from easyclf.modules import ModuleLike
from easyclf.parameters import forwarded
from easyclf.precision import precision_dtype
from easyclf.targets import Labels, accuracy, read_labels
from easyclf.threads import safe_threads

_SHOWING = threading.Lock()


class Predictor(ClassifierMixin):  # type: ignore[misc]
    """A classifier that answers from what a fit has left."""

    module_ = FittedAttribute[nn.Module]()
    optimizer_ = FittedAttribute[torch.optim.Optimizer]()
    classes_ = FittedAttribute[Labels]()
    class_names_ = FittedAttribute[list[str]]()
    history_ = FittedAttribute[History]()
    n_iter_ = FittedAttribute[int]()
    device_ = FittedAttribute[torch.device]()
    _fitted: Fitted | Unseen
    # Parameters of the estimator, which say how rows are read.
    module: ModuleLike
    callbacks: Sequence[CallbackLike] | None
    metrics: Sequence[MetricLike] | None
    cache: bool
    precision: str
    deterministic: bool

    if TYPE_CHECKING:

        def _settings(self) -> dict[str, Any]: ...

    @safe_threads()
    def predict(
        self,
        X: Any,
        *,
        min_proba: float | None = None,
        uncertain: Any = "uncertain",
        costs: ArrayLike | None = None,
    ) -> Labels:
        """Answer with the class of each row.

        Parameters
        ----------
        X : rows of any kind that `fit` takes
        min_proba : float, default=None
            Answer `uncertain` where the best probability is below this.
        uncertain : object, default="uncertain"
            That answer. Where it is of another type than the classes, the answers are objects.
        costs : array-like of shape (n_classes, n_classes), default=None
            `costs[true, answered]`: the answer is the one of the least expected cost, which under
            0/1 costs is the most probable class.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes in the dtype of the labels seen in `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the rows are not as in `fit`, or `min_proba`, `uncertain` or `costs` make no sense.
        """
        fitted, outputs = self._outputs(X)
        if fitted.encoder.is_multilabel:
            if min_proba is not None or costs is not None:
                raise ValueError(
                    "`min_proba` and `costs` are about one answer a row, but the target is "
                    "multilabel; decide from `predict_proba`."
                )
            indicator: Labels = fitted.head.answers(outputs).numpy()
            return indicator
        if costs is None:
            codes = fitted.head.answers(outputs).numpy()
        else:
            codes = cheapest(fitted.head.probabilities(outputs).numpy(), costs)
        labels: Labels = fitted.classes[codes]
        if min_proba is None:
            return labels
        best = fitted.head.probabilities(outputs).max(1).values.numpy()
        return with_uncertain(labels, best, min_proba, uncertain, fitted.classes)

    @safe_threads()
    def predict_proba(self, X: Any) -> NDArray[np.floating[Any]]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : rows of any kind that `fit` takes

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; rows sum to 1, except for a multilabel target, where each
            column is the probability of its label. To rank what is rounded to 1.0, use
            `predict_log_proba` or `decision_function`.
        """
        fitted, outputs = self._outputs(X)
        return fitted.head.probabilities(outputs).numpy()

    @safe_threads()
    def predict_log_proba(self, X: Any) -> NDArray[np.floating[Any]]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : rows of any kind that `fit` takes

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`. They rank as `predict_proba` does, and also rank what is
            rounded to 0 or 1 there.
        """
        fitted, outputs = self._outputs(X)
        return fitted.head.log_probabilities(outputs.double()).numpy()

    @safe_threads()
    def decision_function(self, X: Any) -> NDArray[np.floating[Any]]:
        """Logits: what the probabilities are computed from.

        Parameters
        ----------
        X : rows of any kind that `fit` takes

        Returns
        -------
        decisions : ndarray of shape (n_samples,) or (n_samples, n_classes)
            With two classes the log-odds of the second one.
        """
        fitted, outputs = self._outputs(X)
        return fitted.head.logits(outputs).numpy()

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of the answers.

        Parameters
        ----------
        X : rows of any kind that `fit` takes
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels; a Dataset or DataLoader yields them itself.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        accuracy : float
            In [0, 1]. A multilabel row counts when all of its labels are right.
        """
        check_is_fitted(self)
        if Reader.carries_labels(X):
            return self.evaluate(X, y, sample_weight)["accuracy"]
        labels = read_labels(y)
        return accuracy(labels, self.predict(X), sample_weight)

    @safe_threads()
    def evaluate(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> dict[str, float]:
        """Exact loss and accuracy.

        Parameters
        ----------
        X : rows of any kind that `fit` takes
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels; a Dataset or DataLoader yields them itself.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        figures : dict of str to float
            `loss`, `accuracy`, and those of `metrics`.
        """
        fitted = self._fitted_for(X)
        reader = self._reader(fitted, is_cached=False)
        rows = reader.read_labelled(X, y, sample_weight, fitted.encoder)
        with deterministic_algorithms(self.deterministic):
            return fitted.evaluate(rows, self._read_metrics())

    def find_lr(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        low: float = 1e-6,
        high: float = 10.0,
        n_steps: int = 100,
    ) -> LearningRateDisplay:
        """Look for a learning rate by a range test; the estimator stays as it is.

        A clone is trained while the rate rises exponentially from step to step (L. N. Smith,
        "Cyclical Learning Rates for Training Neural Networks", 2017). The suggestion is the rate
        at which the smoothed loss falls fastest before it is lowest. The mean is of 50 steps: 0.98
        of it stay in each, as in fastai. It lags behind the rates, so a suggestion of few steps is
        rough, and rather too high.

        Parameters
        ----------
        X : rows of any kind that `fit` takes
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        low, high : float, default=1e-6, 10.0
            The first rate, and the last. The test ends before it when the loss rises.
        n_steps : int, default=100
            Steps to take, over as many epochs as they need.

        Returns
        -------
        display : LearningRateDisplay
            With `suggestion_`, `lr_`, `loss_` and `plot()`.

        Warns
        -----
        ConvergenceWarning
            If the loss falls at no rate, or fewer than 50 steps were too few to tell where.

        Raises
        ------
        ValueError
            If a setting makes no sense, or the data are refused as `fit` does.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from easyclf import Estimator
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = Estimator(random_state=0)
        >>> clf = clf.set_params(lr=clf.find_lr(X, y).suggestion_).fit(X, y)
        """
        return find_learning_rate(self, X, y, sample_weight, low=low, high=high, n_steps=n_steps)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the columns that the default module is given.

        In a frame with categories or gaps these are the columns of numbers, one for the gaps of
        each that had some, as scikit-learn's `SimpleImputer` calls it, and one for each category,
        as its `OneHotEncoder` does. Otherwise they are the columns of X.

        Parameters
        ----------
        input_features : array-like of str of shape (`n_features_in_`,), default=None
            The names of the columns of X. Those of a frame are known; others are "x0", "x1", ...

        Returns
        -------
        names : ndarray of str objects
            In the order of the columns of the first layer's weights.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the module is another one, which gets X as it is, if rows have no columns, or if
            `input_features` are not those of `fit`.

        Examples
        --------
        >>> import pandas as pd
        >>> from easyclf import Estimator
        >>> X = pd.DataFrame({"age": [20.0, None] * 5, "sex": ["f", "m"] * 5})
        >>> clf = Estimator(epochs=1, random_state=0).fit(X, [0, 1] * 5)
        >>> clf.get_feature_names_out().tolist()
        ['age', 'missingindicator_age', 'sex_f', 'sex_m']
        """
        fitted, given = self._fitted_for(None), getattr(self, "feature_names_in_", None)
        if not isinstance(fitted.module, MLP):
            raise ValueError(
                "`get_feature_names_out` names what the default module is given; "
                f"{type(fitted.module).__name__} gets X as it is, whose names are in "
                "`feature_names_in_` if X is a frame."
            )
        names = None
        if input_features is not None:
            names = _checked_names(input_features, given, getattr(self, "n_features_in_", None))
        columns = fitted.schema.column_names(given if names is None else names)
        if columns is None:
            raise ValueError(
                f"`get_feature_names_out` names columns, but the rows of X have the shape "
                f"{fitted.schema.shape}."
            )
        width = len(fitted.module.shift)
        if width != len(columns):
            raise ValueError(
                f"`get_feature_names_out` names the columns of X, but `preprocess` makes {width} "
                f"column(s) of {len(columns)}."
            )
        return np.asarray(columns, dtype=object)

    def _is_fitted(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = self._state()
        if self._is_fitted():
            # What was fitted on an accelerator is to be read on any machine.
            state["_fitted"] = self._fitted.on_host()
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy in this process stays on the device.
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self._state(), memo))
        return copied

    def _state(self) -> dict[str, Any]:
        """All attributes, with what the last run left in the callbacks."""
        state: dict[str, Any] = dict(super().__getstate__())
        if self._is_fitted():
            state["_results"] = [
                results_of(callback) for callback in plain_callbacks(self.callbacks)
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        results = state.pop("_results", ())
        super().__setstate__(state)
        for callback, of_callback in zip(plain_callbacks(self.callbacks), results, strict=False):
            give_results(callback, of_callback)

    def _read_metrics(self) -> Metrics:
        return Metrics(type(self).__name__, self.metrics)

    def _reader(self, fitted: Fitted | None, *, is_cached: bool | None = None) -> Reader:
        """The reader of a first fit's rows, or of rows that have to match those of `fitted`."""
        return Reader(
            self,
            precision_dtype(self.precision) if fitted is None else fitted.precision.dtype,
            forwarded(vars(self), "loader"),
            None if fitted is None else fitted.schema,
            is_cached=bool(self.cache) if is_cached is None else is_cached,
            encodes_frames=self.module is None,
        )

    def _fitted_for(self, X: object) -> Fitted:
        """What was learned; of a module trained elsewhere, what these first rows show of it."""
        check_is_fitted(self)
        fitted = self._fitted
        if isinstance(fitted, Fitted):
            return fitted
        if X is None:
            raise ValueError(
                "The module was trained elsewhere and has been given no rows yet; pass some as "
                "`from_module(module, classes, X)`, or call `predict` first."
            )
        # Tensors that are made here can be trained.
        with _SHOWING, torch.inference_mode(False):
            if isinstance(self._fitted, Unseen):  # no other thread has been here
                reader = self._reader(None, is_cached=False)
                rows = reader.read_inputs(X)
                settings = Settings.of(self._settings(), seed=fitted.seed, epochs=0)
                self._fitted = fitted.shown(settings, rows, reader)
            return self._fitted

    def _outputs(self, X: Any) -> tuple[Fitted, torch.Tensor]:
        """What was learned, and the raw outputs for all rows, shape (n_samples, n_outputs)."""
        fitted = self._fitted_for(X)
        rows = self._reader(fitted, is_cached=False).read_inputs(X)
        with deterministic_algorithms(self.deterministic):
            return fitted, fitted.outputs(rows)


def _checked_names(
    names: ArrayLike, given: NDArray[np.object_] | None, n_features: int | None
) -> list[str]:
    """Refuse names that are not those of `fit`, in scikit-learn's words.

    `given` are the names that `fit` was given, of shape (n_features,), if any.
    """
    names = np.asarray(names, dtype=object)
    if given is not None and not np.array_equal(names, given):
        raise ValueError("input_features is not equal to feature_names_in_")
    if n_features is not None and names.shape != (n_features,):
        raise ValueError(
            "input_features should have length equal to number of features "
            f"({n_features}), got {names.size}"
        )
    return [str(name) for name in names]
