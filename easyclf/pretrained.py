"""Estimators around modules that were trained elsewhere."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import nn

from easyclf.checks import name_of
from easyclf.device import resolve_device
from easyclf.engine import Given, Unseen
from easyclf.modules import is_any_lazy
from easyclf.parameters import forwarded
from easyclf.precision import precision_dtype
from easyclf.predictor import Predictor
from easyclf.randomness import draw_seed
from easyclf.targets import TargetEncoder, read_labels


class Pretrained(Predictor):
    """A classifier that may begin with a module that is trained already."""

    @classmethod
    def from_module(
        cls, module: nn.Module, classes: ArrayLike, X: Any = None, **parameters: Any
    ) -> Self:
        """Make a fitted estimator around a module that was trained elsewhere.

        It predicts at once. `partial_fit`, and `fit` under `warm_start=True`, go on training it;
        `fit` otherwise begins anew, with the weights of `module`, as with any instance.

        Parameters
        ----------
        module : nn.Module
            The trained module: of torchvision, of a `.pt` file, of another library. It is copied
            and stays as it is, in whichever mode it is.
        classes : array-like of shape (n_classes,)
            The label of each output, in the order of the outputs; it need not be sorted. For a
            module of one output the second label is the one that it is the probability, or the
            logit, of. `classes_`, and the columns of `predict_proba`, are sorted as always.
        X : rows of any kind that `fit` takes, default=None
            A few rows, of which one is enough. They say what the module is given: the shape and
            the names of the columns, and show what its outputs are: logits or probabilities.
            Without them the rows of the first `predict`, or other method that takes rows, do.
        **parameters
            Parameters of the estimator: `preprocess`, `output`, `device`, `lr`, ...

        Returns
        -------
        estimator : Estimator
            A fitted estimator. A clone of it is not fitted, as always.

        Raises
        ------
        TypeError
            If `module` is no finished module.
        ValueError
            If `classes` are not as many as the outputs, or come twice.
        RuntimeError
            If the module does not take the rows.

        Examples
        --------
        >>> import torch
        >>> from torch import nn
        >>> from easyclf import Estimator
        >>> module = nn.Linear(2, 3)
        >>> with torch.no_grad():
        ...     _ = module.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        >>> clf = Estimator.from_module(module, ["right", "up", "down"])
        >>> clf.predict([[5.0, 0.0], [0.0, 5.0], [-5.0, -5.0]]).tolist()
        ['right', 'up', 'down']
        >>> clf.classes_.tolist()
        ['down', 'right', 'up']
        """
        _check_module(module)
        for name in forwarded(parameters, "module"):
            raise TypeError(
                f"`module__{name}` cannot change `module`, which is a finished "
                f"{type(module).__name__}; leave it out."
            )
        encoder = _encoder(classes)
        own = {"module": module, "classes": classes}
        estimator = cls(**{**_taken(cls, own), **parameters})
        estimator._check_parameters()
        device = resolve_device(estimator.device)
        estimator._fitted = Unseen(
            copy.deepcopy(module).to(device, precision_dtype(estimator.precision)).eval(),
            encoder,
            Given(estimator.module, forwarded(vars(estimator), "module")),
            device,
            draw_seed(estimator.random_state),
        )
        if X is not None:
            estimator._fitted_for(X)
        return estimator


def _taken(cls: type, arguments: Mapping[str, object]) -> dict[str, object]:
    """Those of the arguments that the constructor of a subclass has not taken away."""
    names = inspect.signature(cls).parameters
    return {name: value for name, value in arguments.items() if name in names}


def _check_module(module: object) -> None:
    """Refuse what is no module, or none that was trained.

    Raises
    ------
    TypeError
        If it is something else, such as a class, a file, a dict of weights, or TorchScript.
    ValueError
        If it has no weights.
    """
    if inspect.isclass(module) and issubclass(module, nn.Module):
        raise TypeError(
            f"`module` is the class {module.__name__}; expected a trained {module.__name__}(...). "
            f"To train one, use Estimator({module.__name__})."
        )
    if isinstance(module, Mapping):
        raise TypeError(
            f"`module` is a {type(module).__name__}, such as the weights of a module; make the "
            "module, and give it these by `module.load_state_dict(weights)`."
        )
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`module` is {name_of(module)}; expected a trained nn.Module. One in a file is read "
            "by torch.load."
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise TypeError(
            f"`module` {type(module).__name__} is or has a module of TorchScript, of which torch "
            "makes no copy that can be trained; pass the nn.Module that it was made of."
        )
    if is_any_lazy(module):
        raise ValueError(
            f"`module` {type(module).__name__} has lazy layers without weights, so it was not "
            "trained; to train it, use Estimator(module)."
        )
    if not any(weight.is_floating_point() for weight in module.parameters()):
        raise ValueError(
            f"`module` {type(module).__name__} has no weights of floating point, which easyclf "
            "needs to see what its outputs are."
        )


def _encoder(classes: ArrayLike) -> TargetEncoder:
    """Make the encoder of the labels of outputs, in the order of these.

    Raises
    ------
    ValueError
        If they are no labels of at least two different classes.
    """
    if isinstance(classes, int):
        raise ValueError(
            f"`classes` is {classes}; expected the label of each output, as range({classes})."
        )
    labels = read_labels(list(classes) if isinstance(classes, range) else classes, "classes")
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(
            f"`classes` is {classes!r}; expected the labels of at least two classes, in the order "
            "of the outputs."
        )
    encoder = TargetEncoder().fit(None, labels)
    if len(encoder.classes_) < len(labels):
        values, counts = torch.unique(
            torch.from_numpy(encoder.transform(labels)), return_counts=True
        )
        twice = encoder.classes_[values[counts > 1].numpy()].tolist()
        raise ValueError(
            f"`classes` has labels of several outputs, {twice[:5]}; give each output a label of "
            f"its own, as range({len(labels)})."
        )
    encoder.name_outputs(labels)
    return encoder
