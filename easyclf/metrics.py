"""What `metrics=` asks for: scorers of scikit-learn and functions, fed from stored outputs."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from easyclf.checks import did_you_mean, name_of
from easyclf.heads import Head
from easyclf.targets import Labels, TargetEncoder
from easyclf.vocabulary import FOREIGN_METRICS

Function = Callable[..., float]
MetricLike = str | Function | tuple[str, str | Function]
# Quantities that every run has.
_RESERVED = ("epoch", "loss", "lr", "seconds")


class Answered(NamedTuple):
    """The outputs for some rows, with what is true of them.

    Attributes
    ----------
    outputs : Tensor of shape (n_rows, n_outputs)
        On the host.
    targets : Tensor of shape (n_rows,), (n_rows, 1), (n_rows, n_labels) or (n_rows, n_classes)
        As the head wants them: the last are shares of classes.
    weight : Tensor of shape (n_rows,) or None
        Sample weights.
    """

    outputs: torch.Tensor
    targets: torch.Tensor
    weight: torch.Tensor | None


class _Metric(NamedTuple):
    """A metric: a scorer `(estimator, X, y)`, or a function `(y_true, y_pred)`."""

    function: Function
    is_scorer: bool

    def __call__(self, answers: StoredAnswers, labels: Labels, weight: Labels | None) -> float:
        keywords = {} if weight is None else {"sample_weight": weight}
        if self.is_scorer:
            return float(self.function(answers, None, labels, **keywords))
        return float(self.function(labels, answers.predict(), **keywords))


class StoredAnswers(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier, as scorers see it, whose answers are there already.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The classes, or the numbers of the labels.
    answers, probabilities, decisions : callable
        They give what the methods of an estimator would for the rows.
    is_multilabel : bool
        Whether the answers are indicators.
    """

    def __init__(
        self,
        classes: Labels,
        answers: Callable[[], Labels],
        probabilities: Callable[[], Labels],
        decisions: Callable[[], Labels],
        *,
        is_multilabel: bool,
    ) -> None:
        # An indicator of as many labels says to scorers that any number of them may be true.
        n_labels = len(classes)
        self.classes_ = np.tile([0, 1], (n_labels, 1)) if is_multilabel else classes
        self._answers, self._probabilities, self._decisions = answers, probabilities, decisions

    def predict(self, X: object = None) -> Labels:
        """Give the answers, in the type of the labels."""
        return self._answers()

    def predict_proba(self, X: object = None) -> Labels:
        """Give the probabilities, of shape (n_rows, n_classes)."""
        return self._probabilities()

    def decision_function(self, X: object = None) -> Labels:
        """Give the log-odds or logits, of shape (n_rows,) or (n_rows, n_classes)."""
        return self._decisions()


class Metrics:
    """The metrics of an estimator, by name.

    Parameters
    ----------
    owner : str
        The class of the estimator, for messages.
    metrics : sequence or None
        Names of scikit-learn's scorers, scorers, functions, and pairs of a name and one of these.

    Attributes
    ----------
    names : tuple of str
        The quantities, without `val_`.

    Raises
    ------
    ValueError, TypeError
        If one is none of these, or two have one name.
    """

    def __init__(self, owner: str, metrics: Sequence[MetricLike] | None) -> None:
        self._metrics: dict[str, _Metric] = {}
        for metric in metrics or ():
            name, function = _read(owner, metric)
            if name == "accuracy" and isinstance(metric, str):
                continue  # it is always measured
            if name in (*_RESERVED, "accuracy") or name.startswith("val_"):
                raise ValueError(
                    f"`metrics` has the name {name!r}, which the history has for something else; "
                    "give the metric another one."
                )
            if name in self._metrics:
                raise ValueError(
                    f"`metrics` has two metrics of the name {name!r}; name one of them yourself, "
                    f"as in ('other_{name}', metric)."
                )
            self._metrics[name] = function
        self.names = tuple(self._metrics)

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def check(
        self,
        part: str,
        encoder: TargetEncoder,
        codes: NDArray[Any] | None,
        weight: NDArray[Any] | None,
    ) -> None:
        """Refuse, before training, what labels make impossible, where they are known.

        Parameters
        ----------
        part : str
            Whose rows they are, for messages.
        encoder : TargetEncoder
            The classes.
        codes : ndarray of shape (n_rows,) or (n_rows, n_labels), or None
            Encoded labels.
        weight : ndarray of shape (n_rows,) or None
            Sample weights.

        Raises
        ------
        ValueError
            If a scorer cannot be computed for any answers, as where it wants a row of each class.
        """
        self._check_weights(is_weighted=weight is not None)
        if codes is None:
            return
        kept = slice(None) if weight is None else weight > 0
        codes, weight = codes[kept], None if weight is None else weight[kept]
        for name, metric in self._metrics.items():
            if metric.is_scorer:
                answers, labels = _constant_answers(encoder, codes)
                problem = _try(metric, answers, labels, weight)
                if problem:
                    missing = encoder.classes_[~np.isin(range(len(encoder.classes_)), codes)]
                    lacks = f", which lack the classes {missing.tolist()}" if len(missing) else ""
                    advice = "Give rows of every class" if len(missing) else "Mend the scorer"
                    raise ValueError(
                        f"`metrics` {name!r} cannot be measured on the {part} rows{lacks}: "
                        f"{problem}. {advice}, or leave the metric out."
                    )

    def _check_weights(self, *, is_weighted: bool) -> None:
        for name, metric in self._metrics.items():
            if is_weighted and not metric.is_scorer and not _takes_weights(metric.function):
                raise TypeError(
                    f"`metrics` {name!r} is a function without `sample_weight`, but the rows have "
                    "weights; let it take `sample_weight`."
                )

    def measure(self, head: Head, encoder: TargetEncoder, answered: Answered) -> dict[str, float]:
        """Compute all metrics from outputs; rows of weight 0 are as if they were not there.

        Parameters
        ----------
        head : Head
            The meaning of the outputs.
        encoder : TargetEncoder
            The classes.
        answered : Answered
            The outputs of n rows.
        """
        outputs, targets, weight = answered
        if weight is not None:
            counts = weight > 0
            outputs, targets, weight = outputs[counts], targets[counts], weight[counts]
        self._check_weights(is_weighted=weight is not None)
        codes = _codes_of(targets, is_multilabel=encoder.is_multilabel)
        labels = codes if encoder.is_multilabel else encoder.of_outputs(encoder.classes_)[codes]
        answers = _answers_of(head, encoder, outputs)
        weights = None if weight is None else weight.numpy()
        figures = {}
        with _quietly():
            for name, metric in self._metrics.items():
                try:
                    figures[name] = metric(answers, labels, weights)
                except Exception as error:
                    error.add_note(f"Raised by the metric {name!r}.")
                    raise
        return figures


def _read(owner: str, metric: MetricLike) -> tuple[str, _Metric]:
    """The name and the function of one of `metrics`."""
    name = None
    if isinstance(metric, tuple | list):
        if len(metric) != 2 or not isinstance(metric[0], str) or not metric[0]:
            raise TypeError(
                f"`metrics` has {metric!r}; a pair is a name and a scorer or a function, as in "
                "('f2', make_scorer(fbeta_score, beta=2))."
            )
        name, metric = metric
    if isinstance(metric, str):
        return name or metric, _Metric(_scorer_of_name(metric), is_scorer=True)
    if inspect.isclass(metric) or not callable(metric):
        raise TypeError(
            f"The 'metrics' parameter of {owner} must be a list of names of scorers, scorers, "
            f"functions (y_true, y_pred), or pairs of a name and one of these. Got {metric!r} in "
            "it instead."
        )
    is_scorer = _is_scorer(metric)
    name = name or (_name_of_scorer(metric) if is_scorer else name_of(metric).split(".")[-1])
    if not name.isidentifier():
        raise TypeError(
            f"`metrics` has {metric!r}, which has no name; write it as a pair, ('name', function)."
        )
    return name, _Metric(metric, is_scorer)


def _scorer_of_name(name: str) -> Function:
    from sklearn.metrics import get_scorer, get_scorer_names  # which takes 50 ms to import

    if name not in get_scorer_names():
        names = get_scorer_names()
        raise ValueError(
            f"`metrics` {name!r} is no scorer of scikit-learn"
            f"{did_you_mean(name, names, words=FOREIGN_METRICS)} "
            "`sklearn.metrics.get_scorer_names()` lists them; a function goes as "
            "('name', function)."
        )
    scorer: Function = get_scorer(name)
    return scorer


def _is_scorer(function: Function) -> bool:
    """Whether a callable takes (estimator, X, y), and not (y_true, y_pred)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in places and p.default is p.empty]
    return len([name for name in needed if name != "sample_weight"]) >= 3


def _takes_weights(function: Function) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def _name_of_scorer(scorer: Function) -> str:
    """The name that scikit-learn has for a scorer, else that of its function."""
    from sklearn.metrics import get_scorer, get_scorer_names

    shown = repr(scorer)
    for name in get_scorer_names():
        if repr(get_scorer(name)) == shown:
            return str(name)
    made = re.match(r"make_scorer\((\w+)(.*)", shown)
    if made is None:
        return name_of(scorer).split(".")[-1]
    return ("neg_" if "greater_is_better=False" in made[2] else "") + made[1]


def _codes_of(targets: torch.Tensor, *, is_multilabel: bool) -> NDArray[np.int64]:
    """Codes of shape (n_rows,), or indicators of shape (n_rows, n_labels)."""
    if is_multilabel:
        return targets.long().numpy()
    if targets.ndim == 2 and targets.shape[1] > 1:
        # Shares of classes, as `MixUp` makes them: the largest, as in the accuracy.
        return targets.argmax(1).numpy()
    return targets.reshape(-1).long().numpy()


def _answers_of(head: Head, encoder: TargetEncoder, outputs: torch.Tensor) -> StoredAnswers:
    """The answers that the outputs, of shape (n_rows, n_outputs), are."""
    is_multilabel = encoder.is_multilabel

    def answers() -> Labels:
        codes: Labels = head.answers(outputs).numpy()
        return codes if is_multilabel else encoder.classes_[codes]

    return StoredAnswers(
        encoder.classes_,
        answers,
        lambda: head.probabilities(outputs).numpy(),
        lambda: head.logits(outputs).numpy(),
        is_multilabel=is_multilabel,
    )


def _constant_answers(encoder: TargetEncoder, codes: NDArray[Any]) -> tuple[StoredAnswers, Labels]:
    """Answers that are the same for all rows, and the labels of the rows."""
    classes, n_rows = encoder.classes_, len(codes)
    shape = (n_rows, len(classes))
    decisions = (n_rows,) if len(classes) == 2 and not encoder.is_multilabel else shape
    answers = StoredAnswers(
        classes,
        lambda: np.zeros_like(codes) if encoder.is_multilabel else classes[np.zeros_like(codes)],
        lambda: np.full(shape, 0.5 if encoder.is_multilabel else 1 / len(classes)),
        lambda: np.zeros(decisions),
        is_multilabel=encoder.is_multilabel,
    )
    return answers, codes if encoder.is_multilabel else classes[codes]


def _try(
    metric: _Metric, answers: StoredAnswers, labels: Labels, weight: Labels | None
) -> str | None:
    """What scikit-learn says is wrong, or None."""
    try:
        with _quietly():
            figure = metric(answers, labels, weight)
    except (ValueError, TypeError) as error:
        return str(error).rstrip(".")
    return "it is undefined there" if math.isnan(figure) else None


def _quietly() -> warnings.catch_warnings[None]:
    """Without the warnings that a class is not answered, as is usual in the first epochs."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
