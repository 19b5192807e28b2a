"""What other programs run: a fitted classifier as a file of ONNX or of torch's own format."""

from __future__ import annotations

from typing import Any

from easyclf.export import export
from easyclf.files import PathLike
from easyclf.predictor import Predictor


class Exportable(Predictor):
    """A classifier that can be written for programs that have no easyclf."""

    def export(self, path: PathLike, *, X: Any = None) -> None:
        """Write a file that computes what `predict_proba` does, for programs without easyclf.

        It holds `preprocess`, the module, and what makes probabilities of its outputs; it takes
        any number of rows. Before it is written it is run, and compared with `predict_proba`.

        Parameters
        ----------
        path : str or path
            A name that ends in ".onnx", for ONNX, which needs `pip install "easyclf[onnx]"`, or in
            ".pt2", for `torch.export.load`. An older file is replaced as a whole.
        X : rows of any kind that `fit` takes, default=None
            A few examples, on which the file is tried. None makes rows up, which cannot be done
            where there is a `preprocess`, whose inputs may have any dtype.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the suffix is unknown, if `fit` was given a frame with categories or gaps, if torch
            cannot follow the module, or if the file answers otherwise than `predict_proba` by
            more than 1e-4 (1e-9 under `precision="float64"`). Nothing is written then.
        ImportError
            If ONNX is wanted and its packages are not installed.
        OSError
            If the file cannot be written.

        Notes
        -----
        The input is called "X" (or as the inputs of `forward`, if there are several) and the
        output "probabilities", of shape (n_samples, n_classes) in the order of `classes_`. Inputs
        are float32, or what the precision says; float64 where columns have to be centred before
        they are rounded; int64 for tokens; with `preprocess` the dtype of `X`. The computation
        is in full precision, also where `precision` is "bf16" or "fp16".

        The metadata hold `classes`, as JSON: in an ONNX file among its properties, in the other
        in the extra file "easyclf.json".

        Examples
        --------
        >>> import tempfile
        >>> import torch
        >>> from sklearn.datasets import load_iris
        >>> from easyclf import Estimator
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = Estimator(epochs=5, random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clf.export(f"{folder}/iris.pt2")
        ...     program = torch.export.load(f"{folder}/iris.pt2").module()
        >>> program(torch.tensor(X[:2], dtype=torch.float32)).shape
        torch.Size([2, 3])
        """
        fitted = self._fitted_for(X)
        rows = None
        if X is not None:
            rows = self._reader(fitted, is_cached=False).read_inputs(X)
        export(fitted, path, rows, getattr(self, "feature_names_in_", None))
