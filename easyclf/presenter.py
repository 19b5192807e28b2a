"""How an estimator shows itself: `summary`, and what notebooks make of it."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib.metadata import metadata
from typing import Any

from sklearn.base import BaseEstimator

from easyclf.callbacks import untold_clone
from easyclf.data import Reader
from easyclf.engine import Fitted, Unseen
from easyclf.summary import Summary, summarize

# Layers in the estimator's own HTML; `summary` shows all.
_MOST_LAYERS = 30


class Presenter(BaseEstimator):  # type: ignore[misc]
    """An estimator that shows its module and its training."""

    _fitted: Fitted | Unseen
    _fitted_for: Callable[[object], Fitted]
    _is_fitted: Callable[[], bool]
    _reader: Callable[..., Reader]

    def summary(self, X: Any = None, y: Any = None) -> Summary:
        """List the layers: output shapes, parameters, memory.

        After `fit` it is the fitted module's; before, the module is built for these rows, by a
        clone, and nothing is trained. A few rows go through it as in `predict`. The estimator and
        the module stay as they are.

        Parameters
        ----------
        X : rows of any kind that `fit` takes, default=None
            After `fit` they are not needed: zeros of the same shape stand in for them.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Their labels, which say how many outputs there are. After `fit` they play no part.

        Returns
        -------
        summary : Summary
            It prints as a table, and is one in notebooks.

        Raises
        ------
        ValueError
            Before `fit` without `X`, or if the rows are refused as `fit` does.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from easyclf import Estimator
        >>> X, y = load_iris(return_X_y=True)
        >>> Estimator(module__hidden=(16,)).summary(X, y)
        layer     kind        output   parameters  trained
        module_   MLP         (n, 3)
        layers    Sequential  (n, 3)
        layers.0  Linear      (n, 16)          80       80
        layers.1  ReLU        (n, 16)
        layers.2  Linear      (n, 3)           51       51
        131 parameters, all trained
        memory: weights 524 bytes, buffers 64 bytes, outputs 140 bytes a row
        """
        fitted, rows = self._built(X, y), None
        if X is not None:
            rows = self._reader(fitted, is_cached=False).read_inputs(X)
        return summarize(
            fitted.module, fitted.optimizer, lambda n_rows: fitted.pass_few(rows, n_rows)
        )

    def _built(self, X: Any, y: Any) -> Fitted:
        """What was fitted; or, before `fit`, what a fit of no epochs makes for these rows."""
        if self._is_fitted():
            return self._fitted_for(X)
        if X is None:
            raise ValueError(
                "`summary` needs rows before `fit`, to know the sizes of the module; call "
                "`summary(X, y)`."
            )
        built = untold_clone(self).set_params(metrics=None, verbose=0)
        fitted: Fitted = built.fit(X, y, epochs=0, validation_split=0.0)._fitted
        return fitted

    # What follows is IPython's protocol, as far as scikit-learn answers it.

    @property
    def _repr_html_(self) -> Callable[[], str]:
        show: Callable[[], str] = super()._repr_html_
        return lambda: self._with_training(show())

    def _repr_mimebundle_(self, **keywords: object) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**keywords)
        if "text/html" in bundle:
            bundle["text/html"] = self._with_training(bundle["text/html"])
        return bundle

    def _get_doc_link(self) -> str:
        """The page of the reference, for scikit-learn's diagrams; empty where it has no address.

        The package says where its documentation is, as "Documentation" among its addresses.
        """
        addresses = metadata("easyclf").get_all("Project-URL") or []
        for name, _, address in (line.partition(", ") for line in addresses):
            if name == "Documentation" and type(self).__module__.startswith("easyclf."):
                return f"{address.rstrip('/')}/api/easyclf.{type(self).__name__}.html"
        return ""

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        """Add module and training to what scikit-learn's diagrams show, those of pipelines too."""
        attributes = super()._get_fitted_attr_html(doc_link=doc_link)
        show = getattr(attributes, "_repr_html_", None)
        if show is None:
            return attributes
        return _WithTraining(len(attributes), show() + self._training_html())

    def _with_training(self, diagram: str) -> str:
        """Put module and training below the diagram of a scikit-learn that has not taken them."""
        training = self._training_html()
        return diagram if training in diagram else f"{diagram}<div>{training}</div>"

    def _training_html(self) -> str:
        """The module and the training, in the folds that scikit-learn's parameters have."""
        if not self._is_fitted():
            return ""
        fitted = self._fitted
        summary = summarize(fitted.module, fitted.optimizer)
        title = f"Module: {type(fitted.module).__name__}, {summary.n_parameters:,} parameters"
        module = _fold(title, summary.table(_MOST_LAYERS))
        return _STYLE + module + _fold("Training", fitted.history._repr_html_(), is_open=True)


class _WithTraining:
    """Fitted attributes, as scikit-learn's diagrams ask for them, with module and training."""

    def __init__(self, n_attributes: int, html: str) -> None:
        self._n_attributes, self._html = n_attributes, html

    def __len__(self) -> int:
        return self._n_attributes

    def _repr_html_inner(self) -> str:
        return self._html


# Dark notebooks give tables dark rows, within scikit-learn's bright boxes too.
_STYLE = (
    "<style>.easyclf-fold {padding: 0 0.7em 0.5em} .easyclf-fold :is(table, tr, th, td) "
    "{background: none !important; color: inherit !important}</style>"
)


def _fold(title: str, content: str, *, is_open: bool = False) -> str:
    is_open_now = " open" if is_open else ""
    return (
        f'<div class="estimator-table"><details{is_open_now}><summary>{html.escape(title)}'
        f'</summary><div class="easyclf-fold">{content}</div></details></div>'
    )
