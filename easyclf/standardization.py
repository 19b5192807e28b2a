"""The mean and the scale of columns, read from rows that come in batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

# Rows with their weights: tensors of shape (batch, ...) and of shape (batch,) or None.
WeighedRows = tuple[torch.Tensor, torch.Tensor | None]

# Deviations that are a smaller part of the mean are rounding errors of it.
_ROUNDING = torch.finfo(torch.float64).eps
# Deviations that are a smaller part of the mean are perhaps rounding errors of what was computed
# before: they are not scaled up.
_NOISE = 2**10 * _ROUNDING
# A column whose deviation is a smaller part of its mean than so many roundings is centred before
# it is cast: its values keep three digits of their deviation at least.
_ROUNDINGS = 2**10
# The weight of rows from which on a scale is that of the column, and not that of a few rows: of
# as many as are in the smallest batch that "auto" makes.
SETTLED = 32.0


class Moments(NamedTuple):
    """What rows that were seen say of their columns.

    Attributes
    ----------
    weight : float
        The sum of the weights of the rows.
    mean, variance : Tensor of float64 of shape (n_columns,)
        Of each column, on the CPU.
    """

    weight: float
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, batches: Iterable[WeighedRows]) -> Moments | None:
        """Read them from rows of shape (batch, ...) and weights of shape (batch,).

        None where no row counts.
        """
        from sklearn.preprocessing import StandardScaler  # which takes 20 ms to import

        scaler = StandardScaler()
        for x, weight in batches:
            rows = x.detach().flatten(1).double().cpu().numpy()
            weights = None if weight is None else weight.double().cpu().numpy()
            # A batch in which nothing counts is an error to scikit-learn.
            if weights is None or weights.any():
                scaler.partial_fit(rows, sample_weight=weights)
        if not hasattr(scaler, "mean_"):
            return None
        mean, variance = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.var_)
        return cls(float(scaler.n_samples_seen_), mean, variance)

    def joined(self, other: Moments) -> Moments:
        """Join them with those of other rows, as Chan, Golub and LeVeque (1979) do."""
        weight = self.weight + other.weight
        share = other.weight / weight
        difference = other.mean - self.mean
        between = difference.square() * (share * (1 - share))
        variance = self.variance * (1 - share) + other.variance * share + between
        return Moments(weight, self.mean + difference * share, variance)


class Columns(NamedTuple):
    """How columns are standardized: a value becomes `(value - mean) / scale`.

    Attributes
    ----------
    mean, scale : Tensor of float64 of shape (n_columns,)
        The scale of a column without deviations, but for rounding errors, is 1.
    is_constant, is_settled : Tensor of bool of shape (n_columns,)
        Whether a column has one value only, and whether enough rows say what its scale is.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    is_constant: torch.Tensor
    is_settled: torch.Tensor

    @classmethod
    def of(cls, moments: Moments) -> Columns:
        """Choose them for rows of these moments."""
        _, mean, variance = moments
        size = variance + mean.square()
        is_scaled = variance > _NOISE**2 * size
        scale = variance.where(is_scaled, 1.0).sqrt()
        is_constant = variance <= _ROUNDING**2 * size
        return cls(mean, scale, is_constant, is_scaled & (moments.weight >= SETTLED))

    def centre(self, dtype: torch.dtype) -> torch.Tensor:
        """Find what is to be subtracted in float64 before rows are cast to `dtype`.

        Returns
        -------
        centre : Tensor of `dtype` of shape (2, n_columns)
            Two parts, whose sum in float64 is the centre. It is 0 for a column that `dtype` holds
            well enough as it is.
        """
        if dtype == torch.float64:
            return torch.zeros(2, len(self.mean), dtype=dtype)
        is_narrow = self.scale < _ROUNDINGS * torch.finfo(dtype).eps * self.mean.abs()
        wanted = self.mean.where(is_narrow & ~self.is_constant, 0.0)
        coarse = wanted.to(dtype)
        return torch.stack([coarse, (wanted - coarse.double()).to(dtype)])

    def towards(self, new: Columns, tolerance: float) -> Columns:
        """Take the `new` columns where they differ by more than a part `tolerance` of the scale."""
        is_same = (new.scale / self.scale - 1).abs() < tolerance
        is_same &= (new.mean - self.mean).abs() < tolerance * self.scale
        return Columns(
            self.mean.where(is_same, new.mean),
            self.scale.where(is_same, new.scale),
            new.is_constant,
            new.is_settled,
        )

    def moved(self, new: Columns) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute how a layer behind the columns has to change, to compute what it did.

        A standardized value z of the old columns is `factor * z + offset` of the new one. The
        scale of a column that was not settled is as if it had been the new one from the start:
        weights that were learned from a few rows, or none, are not worth being kept.

        Returns
        -------
        factor, offset : Tensor of float64 of shape (n_columns,)
            1 and 0 for a column that stays as it is.
        """
        scale = self.scale.where(self.is_settled, new.scale)
        return new.scale / scale, (new.mean - self.mean) / scale
