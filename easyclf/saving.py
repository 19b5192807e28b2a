"""Files of estimators: `save` and `load`, `save_weights` and `load_weights`."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from easyclf.archives import (
    Archive,
    other_versions,
    read_archive,
    show_versions,
    write_archive,
)
from easyclf.checks import warn_user
from easyclf.codec import Decoder, Encoder, reason_not_stored
from easyclf.engine import Wanted, describe_fitted, make_fitted
from easyclf.exceptions import InvalidFile
from easyclf.files import PathLike, check_suffix, check_target, naming
from easyclf.modules import ModuleLike
from easyclf.parameters import forwarded
from easyclf.predictor import Predictor
from easyclf.weights import InitialWeights, read_weights, write_weights

_KIND, VERSION = "estimator", 1
_DOCUMENT, _VALUES = "estimator", "values"
# Parameters without which the answers would be others; those of the module are such, too.
_NEEDED = ("preprocess", "output", "loader__collate_fn")


class Savable(Predictor):
    """An estimator that can be written to files, and read from them."""

    _initial_weights: InitialWeights | None = None
    module: ModuleLike

    def save(self, path: PathLike) -> None:
        """Write the fitted estimator to one file, without any pickle in it.

        The file is a ZIP of safetensors and JSON. It is written beside `path` and renamed, so
        what was there is replaced whole or stays as it is.

        Parameters
        ----------
        path : str or path-like
            The file, such as "model.easyclf".

        Warns
        -----
        UserWarning
            If the file cannot hold some of the parameters, such as callbacks and functions. They
            are all named; `load` takes them as keywords.

        Raises
        ------
        NotFittedError
            Before `fit`.
        OSError
            If the file cannot be written.
        TypeError, ValueError
            If the module holds what no file of tensors can hold, or `path` has the suffix of
            another kind of file, such as ".pt".

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_iris
        >>> from easyclf import Estimator
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = Estimator(epochs=5, random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clf.save(Path(folder, "iris.easyclf"))
        ...     again = Estimator.load(Path(folder, "iris.easyclf"))
        >>> (again.predict_proba(X) == clf.predict_proba(X)).all()
        np.True_
        """
        check_is_fitted(self)
        check_target(path)
        check_suffix(path, "save", ".easyclf")
        described = describe_fitted(self._fitted_for(None).on_host())
        parameters, lost = _storable_parameters(self.get_params(deep=False))
        lost |= described.lost
        encoder = Encoder()
        document = encoder.encode(
            {
                "class": type(self).__qualname__,
                "parameters": parameters,
                "lost": lost,
                "n_features_in_": getattr(self, "n_features_in_", None),
                "feature_names_in_": getattr(self, "feature_names_in_", None),
                "fitted": described.values,
            }
        )
        tensors = {**described.tensors, _VALUES: encoder.tensors}
        write_archive(path, {_DOCUMENT: document}, tensors, kind=_KIND, version=VERSION)
        if lost:
            shown = ", ".join(f"`{name}` ({value})" for name, value in lost.items())
            warn_user(
                f"{str(path)!r} does not hold {shown}: code, which files do not hold. `load` "
                "takes the defaults in their place, and what is passed to it, as in "
                f"{type(self).__name__}.load(path, {next(iter(lost))}=...).",
            )

    @classmethod
    def load(
        cls,
        path: PathLike,
        module: ModuleLike = None,
        trusted: str | Collection[str] = (),
        **parameters: Any,
    ) -> Self:
        """Read an estimator that `save` has written; nothing in the file is executed.

        Parameters
        ----------
        path : str or path-like
            The file.
        module : class, callable, nn.Module, str or None, default=None
            The class, factory or an instance of the module. None takes what the file names, if
            easyclf, torch or torchvision has it, or if `trusted` names it.
        trusted : collection of str, default=()
            Names of classes and functions that may be imported, as "package.Class".
        **parameters
            Parameters of the estimator in place of those of the file, such as `preprocess` or
            `callbacks`, which files do not hold.

        Returns
        -------
        clf : Estimator
            Fitted, on the CPU. Its answers are those of the one that was saved, and a further
            fit goes on as it would have.

        Warns
        -----
        UserWarning
            If the file was written with another version of torch, NumPy or scikit-learn, of which
            more than the last number differs.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        InvalidFile
            If the file is of another kind, damaged or newer, or needs something to be passed; the
            message says which.
        TypeError
            If a parameter is unknown, or `trusted` holds other things than names.
        """
        cls._refuse_unknown("load", parameters)
        if not _are_names(trusted):
            raise TypeError(
                f"`trusted` is {trusted!r}; expected names of classes, as ['package.Network']. A "
                "class itself is passed as `module=`."
            )
        # Tensors that are made here can be trained.
        with torch.inference_mode(False):
            archive = read_archive(path, kind=_KIND, version=VERSION)
            with naming(path), _consistent(archive):
                restored = cls._restored(archive, module, trusted, parameters)
        _warn_of_versions(path, archive)
        return restored

    @classmethod
    def _restored(
        cls, archive: Archive, module: ModuleLike, trusted: Any, parameters: dict[str, Any]
    ) -> Self:
        stored: Any = Decoder(archive.tensors[_VALUES]).decode(archive.documents[_DOCUMENT])
        if stored["class"] != cls.__qualname__:
            name = f"{stored['class']!s:.100}"
            raise InvalidFile(
                f"it holds a {name}, not a {cls.__name__}; call `load` of the class {name}"
            )
        _check_given(stored["lost"], {"module": module, **parameters}, cls.__name__)
        estimator = cls(**{**stored["parameters"], **parameters})
        settings = estimator._settings()
        if "module" not in estimator.get_params(deep=False):
            # The constructor of a subclass has made it.
            module = settings["module"] if module is None else module
        settings["module_keywords"] = forwarded(parameters, "module")
        settings["loss_keywords"] = forwarded(settings, "loss")
        fitted = make_fitted(stored["fitted"], archive.tensors, Wanted(module, trusted, settings))
        estimator.module = fitted.given.module
        estimator._fitted = fitted
        for name in ("n_features_in_", "feature_names_in_"):
            if stored[name] is not None:
                setattr(estimator, name, stored[name])
        return estimator

    def save_weights(self, path: PathLike) -> None:
        """Write the weights and buffers of the module to a safetensors file.

        Parameters
        ----------
        path : str or path-like
            The file, such as "weights.safetensors". Other libraries read it.

        Raises
        ------
        NotFittedError
            Before `fit`.
        OSError
            If the file cannot be written.
        ValueError
            If `path` has the suffix of another kind of file, such as ".pt".
        """
        check_is_fitted(self)
        check_target(path)
        check_suffix(path, "save_weights", ".safetensors")
        write_weights(path, self._fitted.module)

    def load_weights(self, path: PathLike, strict: bool = True) -> Self:
        """Take the weights and buffers of the module from a file.

        After `fit` they take the place of those that were learned. Before it the next `fit`
        begins with them.

        Parameters
        ----------
        path : str or path-like
            A safetensors file, or a state dict that `torch.save` has written.
        strict : bool, default=True
            Whether all names and shapes have to be those of the module. Otherwise those that are
            not stay as they are, with a warning.

        Returns
        -------
        self : Estimator
            This estimator.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        InvalidFile
            If the file holds other things than tensors, or is damaged.
        ValueError
            If the weights do not fit; the names that differ are listed. Before `fit` this is
            found out there.
        """
        weights = InitialWeights(read_weights(path), strict)
        if not hasattr(self, "_fitted"):
            self._initial_weights = weights
            return self
        before = self._fitted_for(None)
        module, optimizer = copy.deepcopy((before.module, before.optimizer))
        weights.put_into(module)
        self._fitted = replace(before, module=module, optimizer=optimizer).recentred()
        return self

    def _settings(self) -> dict[str, Any]:
        """The parameters, and the weights with which a first fit begins."""
        settings: dict[str, Any] = super()._settings()
        if hasattr(self, "_fitted"):
            # They have been learned from.
            self.__dict__.pop("_initial_weights", None)
        return settings | {"initial_weights": self._initial_weights}

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = super()._state()
        if "_fitted" in state:
            state.pop("_initial_weights", None)
        return state


def _storable_parameters(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Part parameters into those that files hold, and descriptions of the others."""
    storable, lost = {}, {}
    for name, value in parameters.items():
        if name == "module":
            continue  # the fit knows it
        reason = reason_not_stored(value)
        if reason is None:
            storable[name] = value
        else:
            lost[name] = reason
    return storable, lost


def _are_names(trusted: object) -> bool:
    return isinstance(trusted, Collection) and all(isinstance(name, str) for name in trusted)


def _check_given(lost: Mapping[str, str], given: Mapping[str, Any], owner: str) -> None:
    """Refuse to answer without what the answers depend on."""
    is_instance = isinstance(given["module"], nn.Module)
    for name, described in lost.items():
        is_needed = name in _NEEDED or (name.startswith("module__") and not is_instance)
        if is_needed and given.get(name) is None:
            raise InvalidFile(
                f"it was saved with `{name}` ({described}), which files do not hold and without "
                f"which the answers would be others; pass it, as in {owner}.load(path, {name}=...)"
            )


def _warn_of_versions(path: PathLike, archive: Archive) -> None:
    """Warn if the answers may not be the same to the last bit."""
    others = other_versions(archive.written_by)
    if others:
        there, here = show_versions(others)
        warn_user(
            f"{str(path)!r} was written with {there}, and is read with {here}: its answers may "
            "differ. Compare some of them; `save` then writes the present versions.",
        )


@contextmanager
def _consistent(archive: Archive) -> Iterator[None]:
    """Make one kind of error of all that a content that does not fit together can raise."""
    try:
        yield
    except (InvalidFile, ImportError, MemoryError):
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise InvalidFile(
            f"its content does not fit together, or the module does not ({text[:1000]}); "
            f"it was written with {archive.written_by}"
        ) from error
