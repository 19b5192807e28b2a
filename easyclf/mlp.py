"""The default module: a multilayer perceptron that standardizes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from easyclf.checks import did_you_mean
from easyclf.standardization import SETTLED, Columns, Moments, WeighedRows

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "logistic": nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class MLP(nn.Module):
    """A multilayer perceptron that standardizes its inputs: the default module.

    Rows of more than one dimension (images) are flattened. The means and scales of the input
    columns are read from the training data at the start of `fit`, with the sample weights, so
    that unscaled data train as well as scaled ones.

    Parameters
    ----------
    n_features : int
        Numbers in a row.
    n_classes : int
        Columns of the output: one logit a class (or a label, when multilabel).
    hidden : sequence of int, default=(128,)
        Width of each hidden layer; `()` makes it a softmax regression.
    dropout : float, default=0.0
        Probability with which a hidden unit is dropped in training.
    activation : str or callable, default="relu"
        What follows each hidden layer: "relu", "tanh", "gelu", "silu", "elu", "leaky_relu",
        "logistic" or "identity", or a class such as `torch.nn.Mish`.

    Attributes
    ----------
    shift, inverse_scale : Tensor of shape (n_features,)
        A column becomes `shift + column * inverse_scale`.
    centre : Tensor of shape (2, n_features)
        Two parts of a number, `centre.double().sum(0)`, which is to be subtracted from rows in
        float64 before they are cast and given to `forward`; the estimator does it. 0 but for
        columns that float32 cannot hold, such as Unix seconds of one day.
    is_adapted : bool
        Whether these come from rows.

    Examples
    --------
    >>> import torch
    >>> from easyclf import MLP
    >>> MLP(n_features=4, n_classes=3, hidden=(16, 16))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    shift: torch.Tensor
    centre: torch.Tensor
    inverse_scale: torch.Tensor
    is_adapted: bool

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
        activation: str | Callable[[], nn.Module] = "relu",
    ) -> None:
        super().__init__()
        make_activation = _activation(activation)
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), make_activation()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("inverse_scale", torch.ones(n_features))
        self.register_buffer("centre", torch.zeros(2, n_features))
        self.is_adapted = False
        self._moments: Moments | None = None
        self._columns: Columns | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : Tensor of shape (batch, ...)
            Rows of `n_features` numbers, from which the `centre` was subtracted.

        Returns
        -------
        logits : Tensor of shape (batch, n_classes)
            One logit a class.
        """
        standardized = torch.addcmul(self.shift, x.flatten(1), self.inverse_scale)
        return self.layers(standardized)  # type: ignore[no-any-return]

    def adapt(self, batches: Iterable[WeighedRows]) -> None:
        """Take the shift and the scale of each column from data.

        A column whose values differ by rounding errors alone is shifted to 0 and keeps its scale.
        Called again, shift and scale become those of all rows so far, and the first layer changes
        so that the module computes what it did; that layer stays as it is, and so do the
        columns, where it is frozen or a subclass has a `forward` of its own.

        Parameters
        ----------
        batches : iterable of (Tensor, Tensor or None)
            Rows of shape (batch, ...), without the `centre` subtracted, with their weights of
            shape (batch,).

        Raises
        ------
        ValueError
            If a row holds an infinite number, or a column is too small to be scaled.
        """
        previous, columns, layer = self._moments, self._columns, self._first_layer()
        if columns is not None and layer is None:
            return
        moments = Moments.of(batches)
        if moments is None:
            return  # no row came, which the training says
        if previous is None or columns is None:
            self._moments = moments
            self._standardize(Columns.of(moments))
        elif layer is not None:
            self._moments = previous.joined(moments)
            # What the dtype cannot tell apart changes nothing: the same rows leave all as it is.
            tolerance = 8 * torch.finfo(self.shift.dtype).eps
            new = columns.towards(Columns.of(self._moments), tolerance)
            _compensate(layer, *columns.moved(new))
            self._standardize(new)

    def statistics(self) -> dict[str, torch.Tensor]:
        """Give what rows have said of the columns; {} before any came.

        Returns
        -------
        statistics : dict of str to Tensor of shape (n_features,) or ()
            A `state_dict` has only what `forward` needs of them.
        """
        if self._moments is None or self._columns is None:
            return {}
        weight, mean, variance = self._moments
        of_rows = {
            "rows_weight": torch.tensor(weight, dtype=torch.float64, device=mean.device),
            "rows_mean": mean,
            "rows_variance": variance,
        }
        return {**of_rows, **self._columns._asdict()}

    def take_statistics(self, statistics: Mapping[str, torch.Tensor]) -> None:
        """Take what rows have said of the columns, beside the buffers of a `state_dict`.

        Parameters
        ----------
        statistics : mapping of str to Tensor of shape (n_features,) or ()
            What `statistics` gave. {} takes from the buffers what they say: rows that come later
            change the columns as they do after a few.

        Raises
        ------
        ValueError
            If they are those of another number of columns.
        """
        if not statistics:
            scale = 1 / self.inverse_scale.double().cpu()
            mean = self.centre.double().sum(0).cpu() - self.shift.double().cpu() * scale
            is_constant = torch.zeros_like(mean, dtype=torch.bool)
            self._moments = Moments(SETTLED, mean, scale.square())
            self._columns = Columns(mean, scale, is_constant, ~is_constant)
        else:
            of_rows = [statistics[f"rows_{name}"] for name in Moments._fields]
            self._moments = Moments(float(of_rows[0]), *of_rows[1:])
            self._columns = Columns(*(statistics[name] for name in Columns._fields))
        if any(column.shape != self.shift.shape for column in (*self._moments[1:], *self._columns)):
            raise ValueError(f"the statistics are not those of {len(self.shift)} columns")
        self.is_adapted = True

    def _standardize(self, columns: Columns) -> None:
        dtype = self.shift.dtype
        if (columns.scale <= 1 / torch.finfo(dtype).max).any():
            column = int(columns.scale.argmin())
            raise ValueError(
                f"Column {column} of X has a deviation of {columns.scale[column]:.2g}, too small "
                f"for {str(dtype).removeprefix('torch.')} to scale; multiply it by a power of ten "
                "first."
            )
        centre = columns.centre(dtype)
        self.centre.copy_(centre)
        self.inverse_scale.copy_(1 / columns.scale)
        self.shift.copy_((centre.double().sum(0) - columns.mean) / columns.scale)
        self._columns = columns
        self.is_adapted = True

    def _first_layer(self) -> nn.Linear | None:
        """Give the layer behind the columns, if it may be changed and is known to be it."""
        layer = self.layers[0]
        is_known = type(self).forward is MLP.forward and type(layer) is nn.Linear
        is_trained = all(weight.requires_grad for weight in layer.parameters())
        return layer if is_known and is_trained else None  # type: ignore[return-value]


@torch.no_grad()
def _compensate(layer: nn.Linear, factor: torch.Tensor, offset: torch.Tensor) -> None:
    """Change a layer to compute of z what it did of `factor * z + offset`, each of (n_columns,)."""
    weight = layer.weight.double().cpu()
    layer.bias.add_((weight @ offset).to(layer.bias))
    layer.weight.copy_(weight * factor)


def _activation(activation: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Find the class that a name means."""
    if not isinstance(activation, str):
        if isinstance(activation, nn.Module) or not callable(activation):
            raise TypeError(
                f"`activation` is {activation!r}; expected a name or a class, such as "
                "`torch.nn.Tanh`, of which each layer gets one of its own."
            )
        return activation
    if activation.lower() not in _ACTIVATIONS:
        raise ValueError(
            f"`activation` {activation!r} is unknown"
            f"{did_you_mean(activation.lower(), _ACTIVATIONS)} Expected one of "
            f"{list(_ACTIVATIONS)}, or a class such as `torch.nn.Mish`."
        )
    return _ACTIVATIONS[activation.lower()]
