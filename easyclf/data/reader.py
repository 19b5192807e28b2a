"""What `fit` and `predict` were given, checked and read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array

from easyclf.checks import warn_user
from easyclf.data.bounded import check_bounded, refuse_endless
from easyclf.data.caching import cached
from easyclf.data.first_look import FirstLook, class_names
from easyclf.data.frame_encoder import is_frame, is_lazy_frame
from easyclf.data.holdout import Holdout, indexable
from easyclf.data.indexing import count_rows, take_rows
from easyclf.data.kinds import kind_of
from easyclf.data.loaders import check_options, refuse_dropped
from easyclf.data.rows import Rows
from easyclf.data.schema import ReadContext, RowSchema
from easyclf.data.slices import with_labels
from easyclf.device import HOST
from easyclf.randomness import isolated
from easyclf.targets import TargetEncoder, read_labels


class _LabelledData(NamedTuple):
    """Rows, their labels and their weights, as the user gave them or a cache holds them."""

    X: object
    y: object
    sample_weight: ArrayLike | None


class Reader:
    """Reads rows: the first ones say how a row looks, and later ones have to look like them.

    Parameters
    ----------
    estimator : BaseEstimator
        `n_features_in_` and `feature_names_in_` are set on it in training, and compared later.
    dtype : torch.dtype
        The dtype of numbers in training.
    loader_options : mapping
        The user's `loader__*`, without the prefix.
    schema : RowSchema or None
        That of the training; None before it.
    is_cached : bool
        Whether datasets are read into memory.
    encodes_frames : bool
        Whether categories and gaps in frames become numbers.

    Attributes
    ----------
    schema : RowSchema or None
        That of the first rows that were read.
    class_names : list of str or None
        The names that the dataset of the training gives its classes.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        dtype: torch.dtype,
        loader_options: Mapping[str, Any],
        schema: RowSchema | None,
        *,
        is_cached: bool = False,
        encodes_frames: bool = False,
    ) -> None:
        self._estimator, self._dtype, self._loader_options = estimator, dtype, loader_options
        self._is_cached, self._encodes_frames = is_cached, encodes_frames
        self.schema = schema
        self.class_names: list[str] | None = None
        # The rows of frames that medians and categories are taken from; None is all.
        self._teaching: NDArray[np.intp] | None = None

    @staticmethod
    def carries_labels(X: object) -> bool:
        """Whether X yields its labels itself, as a Dataset or a DataLoader does."""
        return kind_of(X).holds_labels

    def read_training(
        self,
        X: object,
        y: object,
        sample_weight: ArrayLike | None,
        encoder: TargetEncoder | None,
        classes: ArrayLike | None,
        *,
        needs_labels: bool,
        holdout: Holdout | None = None,
        is_bounded: bool = False,
    ) -> tuple[Rows, TargetEncoder]:
        """Read the rows to train on.

        Parameters
        ----------
        X, y, sample_weight : as of `Estimator.fit`
            The rows, their labels and their weights.
        encoder : TargetEncoder or None
            That of an earlier fit; None fits one to these labels.
        classes : array-like or None
            All classes, where the user names them.
        needs_labels : bool
            Whether all labels are needed before training. Where they are not, and `classes` are
            given, a dataset is not searched for them.
        holdout : Holdout or None
            The rows that will be held out: they teach nothing, and all labels are needed.
        is_bounded : bool, default=False
            Whether an epoch has a number of steps, so that the rows may never end.

        Returns
        -------
        rows : Rows
            Those of positive weight.
        encoder : TargetEncoder
            The encoder of their labels.

        Raises
        ------
        ValueError, TypeError
            If the rows, labels or weights cannot be used.
        """
        X, y, sample_weight = with_labels(X, y, sample_weight, "y")
        _check_given(X, y, sample_weight, "y")
        check_options(self._loader_options, X)
        self.class_names = class_names(X)
        counts = _rows_that_count(X, sample_weight)
        with _unseen_draws(X, waits=True):
            X, y, sample_weight = self._in_memory(X, y, sample_weight)
            self._teaching = None
            if holdout is not None and self.schema is None and is_frame(X):
                self._teaching = _rows_to_train_on(X, y, classes, counts, holdout)
            rows = self._read(X, counts)
            if holdout is not None:
                holdout.check(rows)
            if y is None:
                needs_classes = encoder is None and classes is None
                check_bounded(
                    rows,
                    is_bounded=is_bounded,
                    needs_labels=needs_labels,
                    needs_classes=needs_classes,
                )
                own = rows.own_labels(
                    needs_all=needs_labels or holdout is not None or needs_classes
                )
                if own is None:
                    return rows, encoder or TargetEncoder().fit(None, classes)
                y, sample_weight = own
        labels = read_labels(y)
        if encoder is not None and classes is not None:
            _warn_of_other_classes(classes, encoder)
        # Also of rows that do not count: their classes are classes.
        encoder = encoder or TargetEncoder().fit(labels, classes)
        return _labelled(rows, encoder.transform(labels), sample_weight, counts), encoder

    def read_validation(
        self,
        validation_data: object,
        X_val: object,
        y_val: object,
        sample_weight_val: ArrayLike | None,
        encoder: TargetEncoder,
    ) -> Rows | None:
        """Read the rows to validate on, under whichever names they were given; None without any.

        Raises
        ------
        ValueError, TypeError
            If they are given under two names or in part, or cannot be used.
        """
        given = (X_val, y_val, sample_weight_val)
        if validation_data is None:
            if X_val is not None:
                return self.read_labelled(*given, encoder, "y_val")
            if y_val is not None or sample_weight_val is not None:
                raise ValueError(
                    "`y_val` or `sample_weight_val` is given without `X_val`; pass both."
                )
            return None
        if any(part is not None for part in given):
            raise ValueError(
                "`validation_data` and `X_val`, `y_val`, `sample_weight_val` are two names of one "
                "thing; pass only one of them."
            )
        if self.carries_labels(validation_data):
            return self.read_labelled(validation_data, None, None, encoder, "y_val")
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            kind, size = type(validation_data).__name__, ""
            if isinstance(validation_data, (tuple, list)):
                size = f" of length {len(validation_data)}"
            raise ValueError(
                f"`validation_data` is a {kind}{size}; expected (X, y), "
                "(X, y, sample_weight), a Dataset or a DataLoader."
            )
        X, y, sample_weight = (*validation_data, None)[:3]
        return self.read_labelled(X, y, sample_weight, encoder, "y_val")

    def read_labelled(
        self,
        X: object,
        y: object,
        sample_weight: ArrayLike | None,
        encoder: TargetEncoder,
        name: str = "y",
    ) -> Rows:
        """Read rows to measure on, with labels, called `name`, encoded as those of training.

        Raises
        ------
        ValueError, TypeError
            If the rows do not look like those of training, or labels or weights cannot be used.
        """
        X, y, sample_weight = with_labels(X, y, sample_weight, name)
        _check_given(X, y, sample_weight, name)
        called = "validation_data" if name == "y_val" else "X"
        refuse_dropped(X, called)
        counts = _rows_that_count(X, sample_weight)
        with _unseen_draws(X):
            X, y, sample_weight = self._in_memory(X, y, sample_weight)
            rows = self._read(X, counts)
            refuse_endless(rows, called)
            if y is None:
                # They are compared with the classes now, and come with the rows later.
                carried = rows.own_labels(needs_all=False)
                if carried is not None:
                    encoder.transform(read_labels(carried.labels, name), name)
                return rows
        codes = encoder.transform(read_labels(y, name), name)
        return _labelled(rows, codes, sample_weight, counts)

    def read_inputs(self, X: object) -> Rows:
        """Read rows to answer for, without labels.

        Raises
        ------
        ValueError, TypeError
            If they do not look like those of training.
        """
        _refuse_lazy(X)
        with _unseen_draws(X):
            rows = self._read(X, is_answered=True)
            refuse_endless(rows)
            return rows

    def _in_memory(self, X: object, y: object, sample_weight: ArrayLike | None) -> _LabelledData:
        """Read a dataset into memory, where the user wants it there."""
        if not (self._is_cached and self.carries_labels(X)):
            return _LabelledData(X, y, sample_weight)
        fields = cached(FirstLook(X, self._loader_options))
        if fields.y is None:
            raise ValueError(
                f"`X` is a {type(X).__name__} whose items have no label; expected items (x, y)."
            )
        return _LabelledData(fields.x, fields.y, fields.weight)

    def _read(
        self, X: object, counts: NDArray[np.intp] | None = None, *, is_answered: bool = False
    ) -> Rows:
        """Check X, and compare its rows with those of the training.

        `counts` are the numbers of the rows of positive weight, where others are to be left out.
        `is_answered` says that each row is to get an answer.
        """
        if counts is not None:
            try:
                return self._read(take_rows(indexable(X), counts))
            except ValueError as error:
                error.add_note("Rows of weight 0 are left out where rows are counted.")
                raise
        context = ReadContext(
            self._estimator,
            self._dtype,
            self._loader_options,
            self.schema,
            self._encodes_frames,
            self._teaching,
            is_answered,
        )
        if self.schema is None:
            # Those of an earlier fit: not all rows have such.
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self._estimator).pop(name, None)
        elif self.schema.frame_encoder is not None and not hasattr(X, "columns"):
            raise TypeError(
                f"`X` is a {type(X).__name__}; expected a frame with the columns of `fit`, which "
                "had categories or gaps."
            )
        else:
            self._compare_shapes(X)
        rows, schema = kind_of(X).read(X, context)
        if self.schema is None:
            self.schema = schema
        else:
            self.schema.refuse_other(schema, type(self._estimator).__name__)
        return rows

    def _compare_shapes(self, X: object) -> None:
        """Refuse an image or a sequence alone, or of another size, before columns are counted."""
        assert self.schema is not None
        expected, given = self.schema.shape, _shape_of(X)
        if given is None or not isinstance(expected, tuple) or len(expected) < 2:
            return
        if given == expected:
            raise ValueError(
                f"`X` has the shape {expected} of a single row; add the dimension of the "
                "rows, for example by `X[None]`."
            )
        if len(given) == len(expected) + 1:
            self.schema.refuse_other(RowSchema(given[1:]), type(self._estimator).__name__)


def _shape_of(X: object) -> tuple[int, ...] | None:
    """Give the shape of one array or tensor; None of anything else."""
    return tuple(X.shape) if isinstance(X, (np.ndarray, torch.Tensor)) else None


def _check_given(X: object, y: object, sample_weight: object, name: str) -> None:
    """Refuse labels or weights beside a dataset, and arrays without labels."""
    _refuse_lazy(X)
    if isinstance(X, Iterator) and not kind_of(X).holds_labels:
        raise TypeError(
            f"`X` is a {type(X).__name__}, which can be gone through only once; make it a "
            "list of rows, or an IterableDataset."
        )
    if not kind_of(X).holds_labels:
        if y is None:
            read_labels(None, name)  # which says what is missing
    elif y is not None or sample_weight is not None:
        raise ValueError(
            f"`X` is a {type(X).__name__}, which already yields targets; pass it without "
            f"`{'y' if y is not None else 'sample_weight'}`. To weigh rows, yield "
            "(x, y, weight)."
        )


def _refuse_lazy(X: object) -> None:
    if is_lazy_frame(X):
        raise TypeError(
            f"`X` is a {type(X).__name__}, which holds no rows yet; pass `X.collect()`."
        )


def _unseen_draws(X: object, *, waits: bool = False) -> AbstractContextManager[None]:
    """Leave the random states as they are while a dataset, which may draw, is looked at."""
    if kind_of(X).holds_labels:
        return isolated(0, HOST, waits=waits)
    return nullcontext()


def _warn_of_other_classes(classes: ArrayLike, encoder: TargetEncoder) -> None:
    if not np.array_equal(np.unique(classes), encoder.classes_):
        warn_user(
            f"`classes` is {classes!r}, which plays no part where an earlier fit goes on: its "
            f"classes are {encoder.classes_.tolist()[:20]}. Use warm_start=False to begin anew.",
        )


def _rows_that_count(X: object, sample_weight: ArrayLike | None) -> NDArray[np.intp] | None:
    """Find the rows of positive weight of arrays, before anything else in them is looked at.

    None where all are to be read: also where the weights make no sense, which is said later.
    """
    if sample_weight is None or kind_of(X).holds_labels:
        return None
    weight = _host(sample_weight)
    is_right = weight.ndim == 1 and weight.dtype.kind in "biuf" and (weight >= 0).all()
    if not is_right or weight.all() or not weight.any() or len(weight) != _n_rows(X):
        return None
    return np.flatnonzero(weight)


def _rows_to_train_on(
    X: object,
    y: object,
    classes: ArrayLike | None,
    counts: NDArray[np.intp] | None,
    holdout: Holdout,
) -> NDArray[np.intp] | None:
    """Find the numbers, among the rows that count, of those that `holdout` will leave.

    None where there is not one label for each row, which is said later.
    """
    labels = read_labels(y)
    if len(labels) != _n_rows(X):
        return None
    encoder = TargetEncoder().fit(labels, classes)
    codes = encoder.transform(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the split itself says it
        train, _ = holdout.numbers(
            X, codes if counts is None else codes[counts], encoder.classes_, counts
        )
    return train


def _n_rows(X: object) -> int | None:
    try:
        return count_rows(indexable(X))
    except (TypeError, ValueError):  # which the reading of X explains
        return None


def _labelled(
    rows: Rows,
    codes: NDArray[np.int64],
    sample_weight: ArrayLike | None,
    counts: NDArray[np.intp] | None,
) -> Rows:
    """Add codes and weights of all rows, of shape (n_rows,) or more, and keep what counts.

    `counts` are the numbers of `rows`, where these are such alone. The lengths are compared.
    """
    n_rows = rows.n_rows if counts is None else None
    if n_rows is not None and n_rows != len(codes):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_rows}, y "
            f"has {len(codes)}; expected one label for each row."
        )
    if sample_weight is None:
        return rows.labelled(codes, None)
    weight = _read_weight(sample_weight, len(codes))
    if counts is None and not weight.all():
        counts = np.flatnonzero(weight)
        rows = rows.counting(counts, len(codes))
    if counts is not None:
        codes, weight = codes[counts], weight[counts]
    return rows.labelled(codes, weight, counts)


def _are_arrays(parts: Sequence[object]) -> bool:
    """Whether these are two or three arrays or lists, as (X, y) is."""
    return len(parts) in (2, 3) and all(hasattr(part, "__len__") for part in parts)


def _host(sample_weight: ArrayLike) -> NDArray[Any]:
    """Give weights as an array; refuse what is a parameter, or rows to validate on."""
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    if isinstance(sample_weight, str | Mapping):
        raise ValueError(
            f"`sample_weight` is {sample_weight!r}; expected a weight for each row. Weights of "
            f"classes are a parameter: `class_weight={sample_weight!r}`."
        )
    if isinstance(sample_weight, (tuple, list)) and _are_arrays(sample_weight):
        raise ValueError(
            f"`sample_weight`, the third argument of `fit`, is a {type(sample_weight).__name__} of "
            "arrays; for rows to validate on, pass `validation_data=(X_val, y_val)`."
        )
    weight = np.asarray(sample_weight)
    if not weight.ndim:
        raise ValueError(
            f"`sample_weight` is {sample_weight!r}; expected a weight for each row. Rows in a step "
            "are a parameter: `batch_size=...`."
        )
    return weight


def _read_weight(sample_weight: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Read weights of shape (n_rows,), and scale them to be near 1."""
    weight: NDArray[np.float64] = check_array(
        _host(sample_weight),
        ensure_2d=False,
        allow_nd=True,
        dtype=np.float64,
        input_name="sample_weight",
    )
    if weight.ndim != 1:
        raise ValueError(f"Sample weights must be a 1D array, got {weight.ndim}D array.")
    if weight.shape != (n_rows,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n_rows,)}!")
    if (weight < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    if not weight.any():
        raise ValueError("`sample_weight` is 0 for every row; expected other weights than zero.")
    # Only their ratios count. A power of two changes no digit, and keeps them within float32.
    scaled: NDArray[np.float64] = np.ldexp(weight, -np.frexp(weight.max())[1])
    return scaled
