r"""What the counts of a bin say of means that may carry excess noise, for many columns at once.

The gates of a bin are multinomial given the total; the total is Poisson or, with an extra variance,
negative binomial:

.. math:: n \sim \Gamma(n + r) / (\Gamma(r) n!) \; (1 + \phi)^{-r} (\phi / (1 + \phi))^n,
          \quad r = \mu / \phi, \quad \phi = V / \mu

with mean :math:`\mu` and variance :math:`\mu + V`. Means and extra variances of a bin that two
levels share are those of the levels, weighted by time.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

__all__ = ["Columns", "ProductEmission"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Least mean and extra variance: their logarithms and gamma functions need more than none.
_DARK = 1e-12
_LEAST_VARIANCE = 1e-9


@njit(cache=True, nogil=True, error_model="numpy")
def _add_rows(columns: Array, table: Array, row_of: Index) -> None:
    """Add ``table[row_of[t]]`` to each row, in place."""
    for t in range(columns.shape[0]):
        row = row_of[t]
        for c in range(columns.shape[1]):
            columns[t, c] += table[row, c]


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_rows(mass: Array, row_of: Index, n_rows: int) -> Array:
    """Sum of the rows of `mass` that have the same ``row_of``, shape ``(n_rows, n_columns)``."""
    sums = np.zeros((n_rows, mass.shape[1]))
    for t in range(mass.shape[0]):
        row = row_of[t]
        for c in range(mass.shape[1]):
            sums[row, c] += mass[t, c]
    return sums


class Columns:
    """Means and extra variances of some columns, and what they say of some rows.

    Parameters
    ----------
    means
        Expected counts, shape ``(n_columns, n_gates)``.
    extra_variance
        Variance of the total beyond Poisson, shape ``(n_columns,)``; None for Poisson counts.
    """

    def __init__(self, means: Array, extra_variance: Array | None) -> None:
        self.means = np.maximum(means, _DARK)
        self.total = self.means.sum(axis=1)
        self.extra = None if extra_variance is None else np.maximum(extra_variance, _LEAST_VARIANCE)

    def total_table(self, totals: Array) -> Array:
        """Log probability of totals but for the factorial, shape ``(n_totals, n_columns)``."""
        assert self.extra is not None
        excess = self.extra / self.total
        shape = self.total / excess
        n = totals[:, None]
        table: Array = gammaln(n + shape) - gammaln(shape) - shape * np.log1p(excess)
        table += n * (np.log(excess) - np.log1p(excess))
        return table

    def total_slopes(self, totals: Array, mass: Array) -> tuple[Array, Array]:
        """Derivatives of the mass-weighted `total_table` by mean total and extra variance."""
        assert self.extra is not None
        excess = self.extra / self.total
        shape = self.total / excess
        n = totals[:, None]
        by_shape = digamma(n + shape) - digamma(shape) - np.log1p(excess)
        by_excess = -shape / (1.0 + excess) + n / (excess * (1.0 + excess))
        shape_slope = (mass * by_shape).sum(axis=0)
        excess_slope = (mass * by_excess).sum(axis=0)
        by_total = shape_slope * 2.0 * self.total / self.extra - excess_slope * excess / self.total
        by_extra = -shape_slope * shape / self.extra + excess_slope / self.total
        return by_total, by_extra


class ProductEmission:
    """Counts of the bins.

    Parameters
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    """

    def __init__(self, counts: Array) -> None:
        self.counts = np.ascontiguousarray(counts, dtype=np.float64)
        self.totals = self.counts.sum(axis=1)
        self.constant = -gammaln(self.counts + 1.0).sum(axis=1)
        self._distinct, row = np.unique(self.totals, return_inverse=True)
        self._row = row.astype(np.int64)

    def take(self, rows: Index) -> ProductEmission:
        """Return the same for some of the bins."""
        return ProductEmission(self.counts[rows])

    def log_columns(self, columns: Columns) -> Array:
        """Log-likelihood of each bin but for its constant, shape ``(n_bins, n_columns)``."""
        logs = np.log(columns.means)
        if columns.extra is None:
            found: Array = self.counts @ logs.T
            found -= columns.total
            return found
        found = self.counts @ (logs - np.log(columns.total)[:, None]).T
        _add_rows(found, columns.total_table(self._distinct), self._row)
        return found

    def slopes(self, columns: Columns, mass: Array) -> tuple[Array, Array | None]:
        """Derivatives by means ``(n_columns, n_gates)`` and extra variances ``(n_columns,)``."""
        photons = mass.T @ self.counts
        by_gate = photons / columns.means
        if columns.extra is None:
            return by_gate - mass.sum(axis=0)[:, None], None
        by_gate -= (photons.sum(axis=1) / columns.total)[:, None]
        sums = _sum_rows(mass, self._row, self._distinct.size)
        by_total, by_extra = columns.total_slopes(self._distinct, sums)
        return by_gate + by_total[:, None], by_extra
