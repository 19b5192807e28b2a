"""The face: parameters, `fit` and `partial_fit`; a fitted one answers as `Predictor` says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from easyclf.callbacks import (
    Callback,
    CallbackLike,
    TellsTasks,
    TrainingRows,
    are_tasks_told,
    check_callbacks,
    kept_seed,
    named_callbacks,
    plain_callbacks,
    shown_by,
    telling_tasks,
)
from easyclf.constraints import OF_ESTIMATOR, OF_FIT, check_values
from easyclf.data import Holdout, SplitLike
from easyclf.engine import Fitting, Settings
from easyclf.exceptions import TrainingDiverged
from easyclf.exportable import Exportable
from easyclf.losses import LossLike
from easyclf.metrics import MetricLike
from easyclf.modules import ModuleLike
from easyclf.optimizers import resolve_optimizer
from easyclf.output_choice import OutputLike
from easyclf.parameters import ForwardedParameters
from easyclf.presenter import Presenter
from easyclf.pretrained import Pretrained
from easyclf.randomness import draw_seed
from easyclf.saving import Savable
from easyclf.targets import read_labels
from easyclf.threads import safe_threads


class Estimator(TellsTasks, Savable, Exportable, Pretrained, Presenter, ForwardedParameters):
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
        `(output, target)` that returns a scalar or one value for each row; it is given the inputs
        and the module too, if it names `x` or `module` among its further parameters.
    optimizer : str, class or callable, default="adam"
        A name in `torch.optim` in any case, a class, or a factory `params -> Optimizer`.
    lr : float or dict, default=1e-3
        The learning rate. A dict has patterns of the names of weights, as in
        `{"fc": 1e-2, "*": 1e-3}`: each weight takes the rate of the first that matches.
    epochs : int, default=50
        Passes over the data. 0 builds the module, with the sizes of the data, and trains nothing.
    batch_size : int or "auto", default="auto"
        Rows in a step. "auto" is a fiftieth of the rows, at least 32 and at most 512, or all of
        up to 64 rows; -1 means all rows.
    shuffle : bool, default=True
        Whether each epoch draws the rows in a new order.
    validation_split : float, splitter or pair of arrays, default=0.0
        What is held out when `fit` gets no validation data: a fraction of the rows, stratified;
        the first split of a splitter of scikit-learn, as `GroupShuffleSplit(1, test_size=0.2)`
        with `fit(X, y, groups=...)`; or the numbers of rows, `(train, test)`.
    callbacks : list of Callback, default=None
        What may happen during training; see `easyclf.callbacks`. An entry may be a pair of a name
        and a callback, `("early", EarlyStopping())`: then `callbacks__early__patience` is a
        parameter too.
    metrics : list, default=None
        What is measured beside loss and accuracy, on training and on validation rows: names of
        scikit-learn's scorers ("f1_macro", "roc_auc_ovr"), scorers, functions `(y_true, y_pred)`,
        and pairs of a name and one of these. The figures are quantities of the history.
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
    output : str, int or callable, default=None
        Which part is answered of what the module returns: a key of a dict ("logits"), a place in a
        tuple, an attribute, or a function. None takes it as it is.
    compile : {"auto", "graph", True, False}, default="auto"
        How far to go for speed. "auto" records the step of a small module once and plays it from
        then on, where that is proved to change nothing but rounding; "graph" also captures the
        recording as a CUDA graph (not yet run on hardware); True is `torch.compile`, for large
        modules and many epochs; False runs everything as it is written.
    clip_grad_norm : float, default=None
        The norm that each step's gradient is clipped to.
    accumulate : int, default=1
        Batches whose gradients make one step.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights (an instance brings its own), the order of the rows and
        dropout. The global random states of Python, NumPy and torch stay as they are.
    deterministic : bool, default=False
        Whether torch may compute in ways alone that give the same result each time, also on a GPU;
        an operation that has none is an error. No tapes are played then.
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

    # `groups` given to a search or a cross validation are for its splitter, unless asked for by
    # `set_fit_request(groups=True)`.
    __metadata_request__fit = {"groups": False}  # noqa: RUF012

    def __init__(
        self,
        module: ModuleLike = None,
        *,
        loss: LossLike = "auto",
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
        lr: float | Mapping[str, float] = 1e-3,
        epochs: int = 50,
        batch_size: int | str = "auto",
        shuffle: bool = True,
        validation_split: SplitLike = 0.0,
        callbacks: Sequence[CallbackLike] | None = None,
        metrics: Sequence[MetricLike] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        classes: ArrayLike | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        augment: Callable[[Any], Any] | None = None,
        cache: bool = False,
        freeze: str | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        precision: str = "float32",
        output: OutputLike = None,
        compile: bool | str = "auto",
        clip_grad_norm: float | None = None,
        accumulate: int = 1,
        random_state: int | np.random.RandomState | None = None,
        deterministic: bool = False,
        warm_start: bool = False,
        verbose: int | str = "auto",
        **forwarded: Any,
    ) -> None:
        self.module = module
        self.loss = loss
        self.optimizer, self.lr = optimizer, lr
        self.epochs, self.batch_size = epochs, batch_size
        self.shuffle, self.validation_split = shuffle, validation_split
        self.callbacks, self.metrics = callbacks, metrics
        self.class_weight, self.classes = class_weight, classes
        self.preprocess, self.augment = preprocess, augment
        self.cache, self.freeze = cache, freeze
        self.device = device
        self.precision, self.output = precision, output
        self.compile = compile
        self.clip_grad_norm = clip_grad_norm
        self.accumulate = accumulate
        self.random_state, self.deterministic = random_state, deterministic
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
        groups: ArrayLike | None = None,
        steps_per_epoch: int | None = None,
        **overrides: Any,
    ) -> Estimator:
        """Train the module.

        Parameters
        ----------
        X : array-like, sparse matrix, frame, tensor, dict or tuple of them, Dataset or DataLoader
            Rows of any number type, shape (n_samples, n_features) or (n_samples, ...). A dict
            of inputs becomes `forward(**inputs)`, a tuple `forward(*inputs)`. A Dataset or
            DataLoader yields (x, y), (x, y, weight) or a dict; a DataLoader stands alone.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes of any type, or a 0/1 column for each label (multilabel).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is as if it were not there.
        validation_data : tuple, Dataset or DataLoader, default=None
            `(X, y)` or `(X, y, sample_weight)`, measured after every epoch.
        X_val, y_val, sample_weight_val : array-like, default=None
            The same under scikit-learn's names, which a Pipeline can transform.
        groups : array-like of shape (n_samples,), default=None
            The group of each row, for a `validation_split` that keeps groups together.
        steps_per_epoch : int, default=None
            Steps that make an epoch; the next one goes on with the rows that follow, and rows
            that end begin again. None goes through all rows, which an endless stream cannot.
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
            check_values("Estimator.fit", OF_FIT, {"steps_per_epoch": steps_per_epoch})
            previous = self._fitted_for(X) if self.warm_start and self._is_fitted() else None
            reader = self._reader(previous)
            seed = self._seed() if previous is None else previous.seed
            holdout = Holdout.of(
                self.validation_split,
                seed,
                groups,
                is_needed=validation_data is None and X_val is None,
            )
            train, encoder = reader.read_training(
                X,
                y,
                sample_weight,
                None if previous is None else previous.encoder,
                self.classes,
                needs_labels=self.class_weight == "balanced",
                holdout=holdout,
                is_bounded=steps_per_epoch is not None,
            )
            valid = reader.read_validation(
                validation_data, X_val, y_val, sample_weight_val, encoder
            )
            if holdout is not None:
                train, valid = holdout.split(train, X, encoder.classes_)
            settings = Settings.of(
                self._settings(), seed=seed, epochs=self.epochs, steps_per_epoch=steps_per_epoch
            )
            fitting = Fitting(settings, train, valid, reader, encoder, previous)
            self._train(fitting, self._all_callbacks(), TrainingRows(X, y, sample_weight))
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
        X : rows of any kind that `fit` takes
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
            previous = self._fitted_for(X) if self._is_fitted() else None
            classes = self.classes if classes is None else classes
            self._check_classes(y, classes)
            reader = self._reader(previous)
            train, encoder = reader.read_training(
                X,
                y,
                sample_weight,
                None if previous is None else previous.encoder,
                classes,
                needs_labels=False,
            )
            seed = draw_seed(self.random_state) if previous is None else previous.seed
            settings = Settings.of(self._settings(), seed=seed, epochs=1, follows=True)
            self._train(Fitting(settings, train, None, reader, encoder, previous), [])
        return self

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Fit inside: if nothing is learned, the estimator is left as it was."""
        before = vars(self).copy()
        try:
            # Tensors that are made here can be trained.
            with torch.inference_mode(False), safe_threads():
                yield
        except BaseException:
            if vars(self).get("_fitted") is before.get("_fitted"):
                self.__dict__ = before
            raise

    def _train(
        self, fitting: Fitting, callbacks: Sequence[Callback], rows: TrainingRows | None = None
    ) -> None:
        """Train, and keep what was learned: also if the training was cut short or diverged."""
        try:
            telling_tasks(self, fitting, rows)(callbacks)
        except (KeyboardInterrupt, TrainingDiverged):
            if fitting.fitted is not None:
                self._fitted = fitting.fitted
            raise
        assert fitting.fitted is not None
        self._fitted = fitting.fitted

    def _seed(self) -> int:
        """The seed of a fit that begins anew: without `random_state`, that of a run to resume."""
        kept = kept_seed(plain_callbacks(self.callbacks)) if self.random_state is None else None
        return draw_seed(self.random_state) if kept is None else kept

    def _check_parameters(self) -> None:
        """Refuse parameters that no data could make right."""
        owner = type(self).__name__
        if isinstance(self.optimizer, str | torch.optim.Optimizer):
            resolve_optimizer(self.optimizer)
        check_values(owner, OF_ESTIMATOR, self._settings())
        check_callbacks(owner, self.callbacks)
        self._read_metrics()

    def _check_classes(self, y: Any, classes: ArrayLike | None) -> None:
        """Refuse what `partial_fit` cannot know from some of the rows."""
        if self.class_weight == "balanced":
            raise ValueError(
                "`class_weight` 'balanced' is unknown to `partial_fit`, which never sees all "
                "rows; pass a dict of classes."
            )
        if self._is_fitted():
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"`classes` is {classes!r}; expected the same as in the first call, "
                    f"{self.classes_.tolist()}."
                )
        elif classes is None and not (y is not None and read_labels(y).ndim == 2):
            raise ValueError("`classes` must be passed on the first call to partial_fit.")

    def _owners_of_parameters(self) -> dict[str, Any]:
        named = named_callbacks(self.callbacks)
        return {f"callbacks__{name}": callback for name, callback in named.items()}

    def _all_callbacks(self) -> list[Callback]:
        """The user's callbacks, and behind them what `verbose` shows."""
        shown = shown_by(self.verbose, is_shown_otherwise=are_tasks_told(self))
        return plain_callbacks(self.callbacks) + shown
