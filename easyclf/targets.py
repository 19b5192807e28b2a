"""Labels of any kind to codes and back, and the weights of their classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from easyclf.checks import warn_user
from easyclf.randomness import kept_states

Labels = NDArray[Any]
_SPARSE = (sp.spmatrix, sp.sparray)


def read_labels(y: object, name: str = "y") -> Labels:
    """Read labels into NumPy.

    Parameters
    ----------
    y : array-like, tensor, frame or sparse matrix of shape (n_rows,), (n_rows, 1) or more columns
        Classes, or one 0/1 column for each label (multilabel).
    name : str, default="y"
        What the errors call it.

    Returns
    -------
    labels : ndarray of shape (n_rows,) or (n_rows, n_labels)
        Multilabel: int64. It may share the memory of `y`.

    Raises
    ------
    ValueError
        If labels are missing (NaN, None, NA), continuous, of mixed types, or of several outputs.
    """
    if y is None:
        raise ValueError(
            f"Estimator requires y to be passed, but the target {name} is None; pass `{name}`, the "
            "labels of the rows, beside their X, as in `fit(X, y)`."
        )
    if isinstance(y, torch.Tensor):
        # One column of classes is a habit of torch's, and no mistake.
        y = (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).detach().cpu().numpy()
    labels: Labels = y.toarray() if isinstance(y, _SPARSE) else np.asarray(y)
    if labels.dtype.names:
        raise ValueError(
            f"`{name}` is an array of records with the fields {list(labels.dtype.names)}; expected "
            f"classes: pass one field, as in `{name}[{labels.dtype.names[0]!r}]`."
        )
    if labels.dtype.kind in "US" and isinstance(y, (list, tuple)):
        # NumPy makes a string of a 1 or a NaN beside strings.
        refuse_mixed(np.asarray(y, dtype=object), name)
    _check_none_missing(labels, name)
    if labels.dtype == object:
        refuse_mixed(labels, name)
        if not isinstance(labels.flat[0], str):
            # The type that all of them have.
            labels = np.asarray(labels.tolist())
    kind = "multiclass" if labels.dtype.kind == "S" else type_of_target(labels, input_name=name)
    if kind == "multilabel-indicator" and np.isin(labels, (0, 1)).all():
        return labels.astype(np.int64)
    if kind in ("multilabel-indicator", "multiclass-multioutput"):
        raise ValueError(
            f"`{name}` has shape {labels.shape} with other values than 0 and 1; expected one "
            "column of classes, or one 0/1 column for each label (multilabel)."
        )
    if _are_probabilities(labels):
        raise ValueError(
            f"`{name}` has shape {labels.shape} with rows of fractions that sum to 1: soft labels, "
            f"which are not trained. Pass the likeliest class of each row, `{name}.argmax(1)`."
        )
    if kind != "multiclass" or labels.ndim != 1:
        check_classification_targets(labels)
    flat: Labels = column_or_1d(labels)
    if labels.ndim > 1:
        warn_user(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples, ), for example using ravel().",
            DataConversionWarning,
        )
    return flat


def _are_probabilities(labels: Labels) -> bool:
    """Tell whether labels of shape (n_rows, ...) are probabilities of several classes."""
    if labels.ndim != 2 or labels.dtype.kind != "f" or labels.shape[1] < 2:
        return False
    return bool((labels >= 0).all()) and np.allclose(labels.sum(1), 1, atol=1e-3)


def _check_none_missing(labels: Labels, name: str) -> None:
    if labels.dtype.kind == "f":
        missing = ~np.isfinite(labels)
        words = "NaN" if np.isnan(labels).any() else "infinity"
    elif labels.dtype.kind in "mM":
        missing, words = np.isnat(labels), "NaT"
    elif labels.dtype == object:
        missing = np.array([_is_missing(label) for label in labels.flat], dtype=bool)
        missing = missing.reshape(labels.shape)
        words = "NaN"
    else:
        return
    if missing.any() and words == "infinity":
        raise ValueError(
            f"Input {name} contains infinity or a value too large for {labels.dtype!r}, the first "
            f"in row {np.flatnonzero(missing.reshape(len(labels), -1).any(axis=1))[0]}; classes "
            "have to be finite."
        )
    if missing.any():
        rows = np.flatnonzero(missing.reshape(len(labels), -1).any(axis=1))
        raise ValueError(
            f"Input {name} contains {words}: {len(rows)} label(s) are missing, the first in "
            f"row(s) {rows[:3].tolist()}; drop those rows or give them a class."
        )


def _is_missing(label: object) -> bool:
    """Tell whether one label is None, NaN, or what pandas takes for missing."""
    if label is None:
        return True
    pandas = sys.modules.get("pandas")  # without it there is no NA of its own
    if pandas is not None and (label is pandas.NA or label is pandas.NaT):
        return True
    return bool(label != label)  # as NaN, and NumPy's NaT, alone


def refuse_mixed(labels: Labels, name: str) -> None:
    """Refuse missing labels, and labels that have no order, as 1 and "1"."""
    _check_none_missing(labels, name)
    examples: dict[type, Any] = {}
    for value in labels.flat:
        text_types = [text for text in (str, bytes) if isinstance(value, text)]
        examples.setdefault(text_types[0] if text_types else object, value)
    if len(examples) > 1:
        shown = " and ".join(f"{value!r} ({type(value).__name__})" for value in examples.values())
        raise ValueError(f"`{name}` has labels of mixed types: {shown}; give all of them one type.")


def _warn_of_one_hot(labels: Labels) -> None:
    """Warn of an indicator of shape (n_rows, n_labels) that is classes in another form."""
    if len(labels) > labels.shape[1] > 1 and (labels.sum(1) == 1).all():
        warn_user(
            f"Every row of `y`, of shape {labels.shape}, has exactly one 1. It is trained as "
            f"{labels.shape[1]} labels of which any number may be true; for one class in each row "
            "pass `y.argmax(1)`.",
        )


class TargetEncoder:
    """Classes to the codes 0 .. k - 1 and back; multilabel indicators stay as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted classes; for a multilabel target the numbers of its labels.
    is_multilabel : bool
        Whether any number of labels may be true of a row.
    codes_of_outputs : ndarray of shape (n_classes,), int64, or None
        The codes of the classes in the order of the module's outputs, where that is another one.
    """

    classes_: Labels
    is_multilabel: bool
    codes_of_outputs: NDArray[np.int64] | None = None

    def fit(self, labels: Labels | None, classes: ArrayLike | None = None) -> TargetEncoder:
        """Find the classes in `labels`, or take `classes`, of which `labels` may miss some."""
        self.is_multilabel = labels is not None and labels.ndim == 2
        if labels is not None and self.is_multilabel:
            self.classes_ = np.arange(labels.shape[1])
            _warn_of_one_hot(labels)
            if classes is not None and not np.array_equal(np.asarray(classes), self.classes_):
                raise ValueError(
                    f"`classes` is {classes!r}, but `y` is a multilabel indicator with "
                    f"{labels.shape[1]} columns; leave `classes` out."
                )
            return self
        with kept_states():
            # It takes 20 ms to import, and scikit-learn 1.9 imports rich, which draws.
            from sklearn.preprocessing import LabelEncoder

        if classes is not None and not np.size(np.asarray(classes)):
            raise ValueError("`classes` is empty; give all classes, or None to find them in `y`.")
        seen = read_labels(classes, "classes") if classes is not None else labels
        self._encoder = LabelEncoder().fit(seen)
        self.classes_ = self._encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"`y` has only one class, {self.classes_.tolist()[0]!r}; a classifier needs at "
                "least two classes. If this is a part of the data, pass all classes as `classes=`."
            )
        return self

    def name_outputs(self, labels: Labels) -> None:
        """Note the order in which a module has the classes: `labels`, of shape (n_classes,)."""
        codes = self.transform(labels, "classes")
        if not np.array_equal(codes, np.arange(len(codes))):
            self.codes_of_outputs = codes

    def of_outputs(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring one value of each class, shape (n_classes,), into the order of the outputs."""
        return values if self.codes_of_outputs is None else values[self.codes_of_outputs]

    def transform(self, labels: Labels, name: str = "y") -> NDArray[Any]:
        """Turn labels into codes.

        Parameters
        ----------
        labels : ndarray of shape (n_rows,) or (n_rows, n_labels)
            As `read_labels` gives them.
        name : str, default="y"
            What the errors call them.

        Returns
        -------
        codes : ndarray of the shape of `labels`, int64
            Places of classes in `classes_`, or the indicator itself. It may be `labels`.

        Raises
        ------
        ValueError
            If the shape is not that of training, or a label is none of the classes.
        """
        if (labels.ndim == 2) != self.is_multilabel or (
            self.is_multilabel and labels.shape[1] != len(self.classes_)
        ):
            expected = f"{len(self.classes_)} label columns" if self.is_multilabel else "one column"
            raise ValueError(
                f"`{name}` has shape {labels.shape}; expected {expected}, as in training."
            )
        if self.is_multilabel:
            return labels
        is_code = np.array_equal(self.classes_, np.arange(len(self.classes_)))
        if is_code and labels.dtype.kind == "i":
            unknown = labels[(labels < 0) | (labels >= len(self.classes_))]
            codes: NDArray[Any] = labels.astype(np.int64, copy=False)
        else:
            is_class = np.isin(labels, self.classes_)
            unknown = labels[~is_class]
            codes = self._encoder.transform(labels) if is_class.all() else labels
        if len(unknown):
            raise ValueError(
                f"`{name}` has labels that are not among the training classes: "
                f"{np.unique(unknown)[:5].tolist()}; known are {self.classes_[:20].tolist()}. "
                "Pass all classes as `classes=` if training may miss some."
            )
        return codes

    def transform_tensor(self, labels: object) -> torch.Tensor:
        """Turn labels of a batch of a DataLoader, of shape (n_rows,) or more, into codes (int64).

        The codes may share the memory of `labels`.
        """
        if (
            isinstance(labels, torch.Tensor)
            and (labels.ndim, labels.dtype, labels.is_cpu) == (1, torch.int64, True)
            and self.classes_.dtype == np.int64
        ):
            # What is below takes longer than a small module's step.
            classes = torch.from_numpy(self.classes_)
            codes = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
            if torch.equal(classes[codes], labels):
                return codes
        return torch.from_numpy(self.transform(read_labels(labels)))


def class_weights(
    class_weight: Mapping[Any, float] | str | None, encoder: TargetEncoder, codes: Labels | None
) -> torch.Tensor | None:
    """Compute one weight for each class, by scikit-learn's rules.

    Parameters
    ----------
    class_weight : mapping, "balanced" or None
        As in `Estimator`.
    encoder : TargetEncoder
        The classes.
    codes : ndarray of shape (n_rows,) or None
        Codes of the training rows, where they are known; "balanced" needs them.

    Returns
    -------
    weights : Tensor of shape (n_classes,), float64, or None
        In the order of the module's outputs. None without `class_weight`.

    Raises
    ------
    ValueError
        If the target is multilabel, a class is unknown, a weight is not a number of at least 0,
        or no row has weight.
    """
    if class_weight is None:
        return None
    if encoder.is_multilabel:
        raise ValueError(
            f"`class_weight` is {class_weight!r}, but `y` is multilabel, where it has no meaning; "
            "use `loss__pos_weight` (one weight a label) or `sample_weight`."
        )
    classes = encoder.classes_
    if isinstance(class_weight, str):
        assert codes is not None  # whoever asks for it reads all labels
        present = np.unique(codes)
        weights = np.ones(len(classes))
        weights[present] = compute_class_weight(class_weight, classes=present, y=codes)
        return torch.from_numpy(encoder.of_outputs(weights))
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    wrong = {k: w for k, w in class_weight.items() if not (isinstance(w, Real) and 0 <= w < np.inf)}
    if unknown or wrong:
        raise ValueError(
            f"`class_weight` has {'unknown classes' if unknown else 'negative or infinite weights'}"
            f" {unknown or wrong}; expected weights of at least 0 for some of {labels}."
        )
    weights = np.array([dict(class_weight).get(label, 1.0) for label in labels], dtype=float)
    if not (weights if codes is None else weights[np.unique(codes)]).any():
        raise ValueError(f"`class_weight` {class_weight!r} leaves every row without weight.")
    return torch.from_numpy(encoder.of_outputs(weights))


def accuracy(labels: Labels, answers: Labels, sample_weight: ArrayLike | None) -> float:
    """The share of the labels that are answered right; a multilabel row counts as a whole.

    Parameters
    ----------
    labels, answers : ndarray of shape (n_samples,) or (n_samples, n_labels)
        What is true, and what was predicted.
    sample_weight : array-like of shape (n_samples,) or None
        Weights of the rows.
    """
    if len(labels) != len(answers):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {len(answers)}, y "
            f"has {len(labels)}; expected one label for each row."
        )
    if {labels.dtype.kind, answers.dtype.kind} == {"S", "U"}:
        raise ValueError(
            f"`y` has labels such as {labels.flat[0]!r}, but the classes of `fit` are such as "
            f"{answers.flat[0]!r}; bytes and text are never equal: give both one type."
        )
    if labels.dtype.kind == "S":  # scikit-learn's metrics refuse bytes
        weights = None if sample_weight is None else np.asarray(sample_weight)
        return float(np.average(answers == labels, weights=weights))
    from sklearn.metrics import accuracy_score  # which takes 50 ms to import

    return float(accuracy_score(labels, answers, sample_weight=sample_weight))
