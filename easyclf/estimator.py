"""The face: parameters, `fit` and its kin, `predict` and its kin, `score` and `evaluate`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils._param_validation import Interval, InvalidParameterError, Options, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from easyclf.callbacks.base import Callback
from easyclf.callbacks.loggers import AccuracyLogger, ProgressBar, is_watched
from easyclf.data import Rows, is_dataset, is_loader, is_stream, split_rows
from easyclf.data.reader import LabelledData, Reader, one_validation
from easyclf.decisions import cheapest, with_uncertain
from easyclf.engine.fitted import Fitted
from easyclf.engine.fitting import PreviousFit, run
from easyclf.history import History
from easyclf.losses import LossLike
from easyclf.modules import ModuleLike
from easyclf.optimizers import resolve_optimizer
from easyclf.parameters import (
    ForwardedParameters,
    forwarded,
    hide_keywords,
    is_forwarded,
    suggestion,
)
from easyclf.precision import precision_dtype
from easyclf.randomness import draw_seed
from easyclf.targets import Labels, TargetEncoder, read_labels


class Estimator(ClassifierMixin, ForwardedParameters):  # type: ignore[misc]
    """A scikit-learn classifier around any `torch.nn.Module`.

    Sizes, dtypes, the device and the loss are read from the data and from the module. Training
    uses all rows that `fit` is given, and reports their exact loss and accuracy.

    Parameters
    ----------
    module : class, callable, nn.Module, str or None, default=None
        What is trained. A class or factory is called with `module__*`, and with the sizes of the
        data for its parameters of known names (`n_features`, `in_features`, `input_size`, ...;
        `n_classes`, `out_features`, `output_size`, ...). An instance is a template: it is copied
        at every `fit`, and its weights are where training starts. A string is a torchvision
        model. None is `easyclf.MLP`.
    loss : str, class, nn.Module or callable, default="auto"
        "auto" reads it from the last operation of the module and from the target. Otherwise
        "cross_entropy", "nll", "bce", "bce_with_logits", a loss of torch, or a callable
        `(output, target)` that returns a scalar or one value for each row.
    optimizer : str, class or callable, default="adam"
        A name in `torch.optim` in any case, a class, or a factory `params -> Optimizer`.
    lr : float or dict, default=1e-3
        The learning rate. A dict has patterns of the names of weights, as in
        `{"fc": 1e-2, "*": 1e-3}`: each weight takes the rate of the first that matches.
    epochs : int, default=50
        Passes over the data.
    batch_size : int or "auto", default="auto"
        Rows in a step. "auto" is a fiftieth of the rows, at least 32 and at most 512, or all of
        up to 64 rows; -1 means all rows.
    shuffle : bool, default=True
        Whether each epoch draws the rows in a new order.
    validation_split : float, default=0.0
        Fraction of the rows that is held out, stratified, when `fit` gets no validation data.
    callbacks : list of Callback, default=None
        What may happen during training; see `easyclf.callbacks`.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, as in scikit-learn.
    classes : array-like, default=None
        All classes, when the rows of a fit may miss some.
    preprocess : callable, default=None
        What is done with every batch of X before the module gets it, on the device: for example
        a transform of `torchvision.transforms.v2`.
    augment : callable, default=None
        What is done with the batches of the training alone, before `preprocess`. Random
        transforms of torchvision draw for each image; `MixUp` and `CutMix` come last.
    cache : bool, default=False
        Whether a Dataset is read once, into memory. Its items have to be the same each time.
    freeze : str or list of str, default=None
        Patterns of the names of weights that stay as they are: `"layer1"`, `"*.bias"`.
    device : str or torch.device, default="auto"
        "auto" takes CUDA, else MPS or XPU, else the CPU.
    precision : {"float32", "float64", "bf16", "fp16"}, default="float32"
        Precision of the arithmetic; the last two are torch's autocast.
    compile : {"auto", True, False}, default="auto"
        How far to go for speed. "auto" records the step of a small module once and plays it from
        then on, where that is proved to change nothing but rounding; True is `torch.compile`, for
        large modules and many epochs; False runs everything as it is written.
    clip_grad_norm : float, default=None
        The norm that each step's gradient is clipped to.
    accumulate : int, default=1
        Batches whose gradients make one step.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights (an instance brings its own), the order of the rows and
        dropout. The global random states of Python, NumPy and torch stay as they are.
    warm_start : bool, default=False
        Whether `fit` goes on from the last fit.
    verbose : {"auto", 0, 1, 2}, default="auto"
        0 is silent, 1 shows a bar, 2 prints a line an epoch; "auto" shows a bar when somebody
        watches and the work outlasts a second and a half.
    **forwarded
        `module__*`, `optimizer__*`, `loss__*` and `loader__*` are parameters of the module, the
        optimizer, the loss, and the `torch.utils.data.DataLoader` that reads a Dataset.

    Attributes
    ----------
    module_ : nn.Module
        The trained module, in evaluation mode.
    optimizer_ : torch.optim.Optimizer
        The optimizer with its state.
    classes_ : ndarray of shape (n_classes,)
        The sorted classes; for a multilabel target the numbers of its labels.
    class_names_ : list of str
        Names of the classes, if the dataset given to `fit` has them.
    history_ : History
        Loss, accuracy, learning rate and seconds of every epoch.
    n_iter_ : int
        Epochs trained, those of the fits that this one continued included.
    device_ : torch.device
        Where the module is.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of the frame seen in `fit`.

    Raises
    ------
    TypeError
        If a parameter name is unknown; the nearest right one is named.

    See Also
    --------
    easyclf.EarlyStopping : Stop early and keep the best weights.
    easyclf.MLP : The default module.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from torch import nn
    >>> from easyclf import Estimator
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Estimator(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)),
    ...                 lr=0.01, epochs=50, random_state=0)
    >>> clf.fit(X, y).predict(X[:2]).tolist()
    [0, 0]
    >>> clf.score(X, y) > 0.9
    True
    """

    _parameter_constraints: Mapping[str, list[Any]] = {
        "module": [callable, str, None],
        "loss": [str, callable],
        "optimizer": [str, callable],
        "lr": [Interval(Real, 0, None, closed="neither"), dict],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            Options(Integral, {-1}),
        ],
        "shuffle": ["boolean"],
        "validation_split": [Interval(Real, 0, 1, closed="left")],
        "callbacks": [list, tuple, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "classes": ["array-like", None],
        "preprocess": [callable, None],
        "augment": [callable, None],
        "cache": ["boolean"],
        "freeze": [str, list, tuple, None],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "float64", "bf16", "fp16"})],
        "compile": [StrOptions({"auto"}), "boolean"],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": [StrOptions({"auto"}), Options(Integral, {0, 1, 2})],
    }

    module_: nn.Module
    optimizer_: torch.optim.Optimizer
    classes_: Labels
    class_names_: list[str]
    history_: History
    n_iter_: int
    device_: torch.device
    _fitted: Fitted

    @hide_keywords
    def __init__(
        self,
        module: ModuleLike = None,
        *,
        loss: LossLike = "auto",
        optimizer: Any = "adam",
        lr: float | Mapping[str, float] = 1e-3,
        epochs: int = 50,
        batch_size: int | str = "auto",
        shuffle: bool = True,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        classes: ArrayLike | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        augment: Callable[[Any], Any] | None = None,
        cache: bool = False,
        freeze: str | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        precision: str = "float32",
        compile: bool | str = "auto",
        clip_grad_norm: float | None = None,
        accumulate: int = 1,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int | str = "auto",
        **forwarded: Any,
    ) -> None:
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.classes = classes
        self.preprocess = preprocess
        self.augment = augment
        self.cache = cache
        self.freeze = freeze
        self.device = device
        self.precision = precision
        self.compile = compile
        self.clip_grad_norm = clip_grad_norm
        self.accumulate = accumulate
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self._set_forwarded(forwarded)

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        validation_data: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
        **overrides: Any,
    ) -> Estimator:
        """Train the module.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, dict or tuple of them, Dataset or DataLoader
            Rows of any number type, shape (n_samples, n_features) or (n_samples, ...). A dict
            of inputs becomes `forward(**inputs)`, a tuple `forward(*inputs)`. A Dataset or
            DataLoader yields (x, y), (x, y, weight) or a dict, and stands alone.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes of any type, or a 0/1 column for each label (multilabel).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is as if it were not there.
        validation_data : tuple, Dataset or DataLoader, default=None
            `(X, y)` or `(X, y, sample_weight)`, measured after every epoch.
        X_val, y_val, sample_weight_val : array-like, default=None
            The same under scikit-learn's names, which a Pipeline can transform.
        **overrides
            Parameters of the estimator, for this call only: `fit(X, y, epochs=5)`.

        Returns
        -------
        self : Estimator
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot be used; an earlier fit is left as it was.
        TrainingDiverged
            If a loss or a weight stops being finite.
        """
        with self._begun(), self._overridden(overrides):
            self._check_parameters()
            continues = bool(self.warm_start) and hasattr(self, "_fitted")
            seed = self._fitted.seed if continues else draw_seed(self.random_state)
            reader = self._reader(continues)
            given = one_validation(validation_data, X_val, y_val, sample_weight_val)
            train, encoder = reader.read_training(
                LabelledData(X, y, sample_weight),
                self._fitted.encoder if continues else None,
                self.classes,
                needs_labels=self.class_weight == "balanced"
                or (given is None and bool(self.validation_split)),
            )
            valid = given and reader.read_measured(given, encoder, "y_val")
            if valid is None and self.validation_split:
                train, valid = self._split(train, encoder, seed)
            interruption = self._run(
                train, valid, reader, encoder, self._callbacks(), self.epochs, seed, continues
            )
        if interruption is not None:
            raise interruption
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Estimator:
        """Train for one pass over these rows, going on from where the last call ended.

        Callbacks and `validation_split` play no part.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All classes that will ever come; needed in the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : Estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If the first call lacks `classes`, or a later one names others.
        """
        with self._begun():
            self._check_parameters()
            continues = hasattr(self, "_fitted")
            classes = self.classes if classes is None else classes
            if self.class_weight == "balanced":
                raise ValueError(
                    "`class_weight` 'balanced' is unknown to `partial_fit`, which never sees all "
                    "rows; pass a dict of classes."
                )
            if continues:
                if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                    raise ValueError(
                        f"`classes` is {classes!r}; expected the same as in the first call, "
                        f"{self.classes_.tolist()}."
                    )
            elif classes is None and not (y is not None and read_labels(y).ndim == 2):
                raise ValueError("`classes` must be passed on the first call to partial_fit.")
            seed = self._fitted.seed if continues else draw_seed(self.random_state)
            reader = self._reader(continues)
            train, encoder = reader.read_training(
                LabelledData(X, y, sample_weight),
                self._fitted.encoder if continues else None,
                classes,
                needs_labels=False,
            )
            interruption = self._run(train, None, reader, encoder, [], 1, seed, continues)
        if interruption is not None:
            raise interruption
        return self

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
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.
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
        outputs, fitted = self._outputs(X)
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
        labels: Labels = self.classes_[codes]
        if min_proba is None:
            return labels
        best = fitted.head.probabilities(outputs).max(1).values.numpy()
        return with_uncertain(labels, best, min_proba, uncertain, self.classes_)

    def predict_proba(self, X: Any) -> NDArray[np.floating[Any]]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; rows sum to 1, except for a multilabel target, where each
            column is the probability of its label. To rank what is rounded to 1.0, use
            `predict_log_proba` or `decision_function`.
        """
        outputs, fitted = self._outputs(X)
        return fitted.head.probabilities(outputs).numpy()

    def predict_log_proba(self, X: Any) -> NDArray[np.floating[Any]]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`. They rank as `predict_proba` does, and also rank what is
            rounded to 0 or 1 there.
        """
        outputs, fitted = self._outputs(X)
        return fitted.head.log_probabilities(outputs.double()).numpy()

    def decision_function(self, X: Any) -> NDArray[np.floating[Any]]:
        """Logits: what the probabilities are computed from.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.

        Returns
        -------
        decisions : ndarray of shape (n_samples,) or (n_samples, n_classes)
            With two classes the log-odds of the second one.
        """
        outputs, fitted = self._outputs(X)
        return fitted.head.logits(outputs).numpy()

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of the answers.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.
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
        if is_dataset(X):
            return self.evaluate(X, y, sample_weight)["accuracy"]
        labels = read_labels(y)
        if labels.dtype.kind == "S":  # which scikit-learn's metrics refuse
            hits = self.predict(X) == labels
            weights = None if sample_weight is None else np.asarray(sample_weight)
            return float(np.average(hits, weights=weights))
        return float(super().score(X, labels, sample_weight))

    def evaluate(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> dict[str, float]:
        """Exact loss and accuracy.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, Dataset or DataLoader
            Rows, as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels; a Dataset or DataLoader yields them itself.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        figures : dict of str to float
            `loss` and `accuracy`.
        """
        check_is_fitted(self)
        fitted = self._fitted
        reader = self._reader(True, is_cached=False)
        rows = reader.read_measured(LabelledData(X, y, sample_weight), fitted.encoder)
        return fitted.evaluate(self.module_, rows)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if hasattr(self, "_fitted") and self.device_.type != "cpu":
            # What was fitted on an accelerator is to be read on any machine.
            module, optimizer = copy.deepcopy((self.module_, self.optimizer_))
            learned_by_optimizer = optimizer.state_dict()
            state["module_"] = module.cpu()
            # Loading moves the state of the optimizer to where its parameters now are.
            optimizer.load_state_dict(learned_by_optimizer)
            state["optimizer_"] = optimizer
            state["_fitted"] = self._fitted.on_cpu()
            state["device_"] = torch.device("cpu")
        return state

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Fit inside: the estimator is left as it was if that fails, and tensors can be trained."""
        before = vars(self).copy()
        try:
            with torch.inference_mode(False):
                yield
        except BaseException:
            self.__dict__ = before
            raise

    @contextmanager
    def _overridden(self, overrides: Mapping[str, Any]) -> Iterator[None]:
        """Other parameters, for a while."""
        known = self._get_param_names()
        for name in overrides:
            if name not in known and not is_forwarded(name):
                raise TypeError(
                    f"`fit` got an unknown argument `{name}`{suggestion(name, known)} It takes "
                    f"the parameters of {type(self).__name__} beside its own."
                )
        before = vars(self).copy()
        self.set_params(**overrides)
        try:
            yield
        finally:
            for name in overrides:
                if name in before:
                    setattr(self, name, before[name])
                else:
                    delattr(self, name)

    def _check_parameters(self) -> None:
        # scikit-learn's constraints take True for the integer 1.
        for name in (
            "lr",
            "epochs",
            "batch_size",
            "validation_split",
            "clip_grad_norm",
            "accumulate",
        ):
            if isinstance(getattr(self, name), bool):
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be a number. "
                    f"Got {getattr(self, name)!r} instead."
                )
        if isinstance(self.lr, Mapping):
            rates = list(self.lr.values())
            if not rates or not all(_is_positive(rate) for rate in rates):
                raise InvalidParameterError(
                    f"The 'lr' parameter of {type(self).__name__} must be a positive number, or a "
                    f"dict of patterns and positive numbers. Got {dict(self.lr)!r} instead."
                )
        if isinstance(self.optimizer, (str, torch.optim.Optimizer)):
            resolve_optimizer(self.optimizer)
        self._validate_params()
        for callback in self.callbacks or ():
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"The 'callbacks' parameter of {type(self).__name__} must be a list of "
                    f"easyclf.Callback instances. Got {callback!r} in it instead."
                )

    def _callbacks(self) -> list[Callback]:
        callbacks = list(self.callbacks or ())
        if self.verbose == "auto":
            return [*callbacks, ProgressBar(delay=1.5)] if is_watched() else callbacks
        shown: list[list[Callback]] = [[], [ProgressBar()], [AccuracyLogger()]]
        return callbacks + shown[int(self.verbose)]

    def _reader(self, continues: bool, *, is_cached: bool | None = None) -> Reader:
        """What reads rows: the first ones, or such as are like those of `fit`."""
        dtype = self._fitted.precision.dtype if continues else precision_dtype(self.precision)
        return Reader(
            self,
            dtype,
            forwarded(self.get_params(deep=False), "loader"),
            self._fitted.schema if continues else None,
            is_cached=bool(self.cache) if is_cached is None else is_cached,
            takes_frames=self.module is None,
        )

    def _split(self, rows: Rows, encoder: TargetEncoder, seed: int) -> tuple[Rows, Rows]:
        if is_loader(rows) or is_stream(rows.x):
            raise ValueError(
                f"`validation_split` is {self.validation_split!r}, but X is a "
                f"{type(rows.x).__name__}, which cannot be split; give `validation_data`, or a "
                "map-style Dataset."
            )
        assert rows.codes is not None
        train, valid = split_rows(rows.codes, self.validation_split, seed, encoder.classes_)
        return rows.take(train), rows.take(valid)

    def _run(
        self,
        train: Rows,
        valid: Rows | None,
        reader: Reader,
        encoder: TargetEncoder,
        callbacks: Sequence[Callback],
        epochs: int,
        seed: int,
        continues: bool,
    ) -> BaseException | None:
        """Train, make what was learned the estimator's own, and return what cut it short."""
        earlier = None
        if continues:
            earlier = PreviousFit(self._fitted, self.module_, self.optimizer_, self.history_)
        assert reader.schema is not None
        state, fitted, interruption = run(
            self.get_params(deep=False),
            train,
            valid,
            reader.schema,
            encoder,
            callbacks,
            epochs=epochs,
            seed=seed,
            earlier=earlier,
        )
        self.module_ = state.module
        self.optimizer_ = state.optimizer
        self.classes_ = encoder.classes_
        self.history_ = state.history
        self.n_iter_ = len(state.history)
        self.device_ = fitted.input_format.device
        self._fitted = fitted
        if reader.class_names is not None:
            self.class_names_ = reader.class_names
        elif hasattr(self, "class_names_"):
            del self.class_names_
        return interruption

    def _outputs(self, X: Any) -> tuple[torch.Tensor, Fitted]:
        """The raw outputs for all rows, in full precision."""
        check_is_fitted(self)
        fitted = self._fitted
        rows = self._reader(True, is_cached=False).read_rows(X)
        return fitted.outputs(self.module_, rows), fitted


def _is_positive(rate: Any) -> bool:
    return isinstance(rate, Real) and not isinstance(rate, bool) and 0 < float(rate) < np.inf
