"""What a bin's counts say of an emission column: one small class per family.

A family offers `log_columns` (log-likelihood of every row of data under every column) and
`pullback` (its derivative with respect to the columns' rates and extra parameters). The hidden
chain never sees more than that, so a new family is a new class here and nothing else.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

__all__ = [
    "CameraEmission",
    "Emission",
    "NegativeBinomialEmission",
    "PoissonEmission",
    "mixed_excess",
    "mixed_excess_pullback",
]

Array = NDArray[np.float64]


def mixed_excess(shares: Array, means: Array, excess: Array) -> Array:
    """Excess variance ratio of bins that are shared by states.

    The counts of the parts of a bin are independent: their means and variances add up, so the
    ratio is the mean of the states' ratios, weighted by time and brightness.

    Parameters
    ----------
    shares
        Share of the bin that each column spends in each state, shape ``(n_columns, n_states)``.
    means
        Expected counts per bin of each state and gate, shape ``(n_states, n_gates)``.
    excess
        Excess variance ratio of each state, shape ``(n_states,)``.

    Returns
    -------
    ndarray
        Shape ``(n_columns,)``.
    """
    brightness = means.sum(axis=1)
    total = shares @ brightness
    # without light there is no noise either, and any ratio will do
    dark = total <= 0.0
    mixed: Array = (shares @ (brightness * excess)) / np.where(dark, 1.0, total)
    mixed[dark] = (shares @ excess)[dark]
    return mixed


def mixed_excess_pullback(
    shares: Array, means: Array, excess: Array, slope: Array
) -> tuple[Array, Array]:
    """Carry the derivative of `mixed_excess` back.

    Returns
    -------
    total_slope : ndarray
        With respect to the mean total of each state, shape ``(n_states,)``: the same in all gates.
    excess_slope : ndarray
        With respect to the states' ratios, shape ``(n_states,)``.
    """
    brightness = means.sum(axis=1)
    total = shares @ brightness
    dark = total <= 0.0
    part = np.where(dark, 0.0, slope / np.where(dark, 1.0, total))
    mixed = mixed_excess(shares, means, excess)
    total_slope = (part @ shares) * excess - (part * mixed) @ shares
    excess_slope = (part @ shares) * brightness + np.where(dark, slope, 0.0) @ shares
    return total_slope, excess_slope


def _log_weights(means: Array) -> tuple[Array, NDArray[np.bool_] | None]:
    """Logarithms of the means, 0 where a mean is 0, and where that is (None if nowhere)."""
    if means.min() > 0.0:
        return np.log(means), None
    dark = means <= 0.0
    return np.log(np.where(dark, 1.0, means)), dark


class Emission(Protocol):
    """What the hidden chain asks of an emission family."""

    has_excess: bool

    def take(self, rows: NDArray[np.intp]) -> Emission:
        """Return the same family for some of the rows."""

    def log_columns(self, means: Array, excess: Array | None) -> Array:
        """Log-likelihood of each row under each column, shape ``(n_rows, n_columns)``."""

    def pullback(
        self, means: Array, excess: Array | None, slope: Array
    ) -> tuple[Array, Array | None]:
        """Return derivatives by `means` and `excess`, given those by the log columns."""


def _over_means(expected: Array, means: Array) -> Array:
    """Counts that a column explains over their means; a mean of 0 explains none."""
    return np.divide(expected, means, out=np.zeros_like(expected), where=means > 0.0)


class PoissonEmission:
    """Independent Poisson counts in every delay gate.

    Parameters
    ----------
    counts
        Counts per row and gate, shape ``(n_rows, n_gates)``.
    """

    has_excess = False

    def __init__(self, counts: Array) -> None:
        data = np.asarray(counts, dtype=np.float64)
        # two more columns carry the total mean and the constant through one matrix product
        self._augmented = np.empty((data.shape[0], data.shape[1] + 2))
        self._augmented[:, :-2] = data
        self._augmented[:, -2] = -1.0
        self._augmented[:, -1] = -gammaln(data + 1.0).sum(axis=1)

    @property
    def counts(self) -> Array:
        """Counts per row and gate, shape ``(n_rows, n_gates)``."""
        return self._augmented[:, :-2]

    def transposed(self) -> tuple[Array, Array]:
        """Counts, shape ``(n_gates, n_rows)``, and minus the logarithms of their factorials."""
        return np.ascontiguousarray(self.counts.T), self._augmented[:, -1].copy()

    def take(self, rows: NDArray[np.intp]) -> PoissonEmission:
        """Return the same family for some of the rows."""
        part = object.__new__(PoissonEmission)
        part._augmented = self._augmented[rows]
        return part

    def log_columns(self, means: Array, excess: Array | None = None) -> Array:
        """Log-likelihood under the expected counts `means`, shape ``(n_columns, n_gates)``."""
        weights = np.empty((means.shape[0], means.shape[1] + 2))
        weights[:, :-2], dark = _log_weights(means)
        weights[:, -2] = means.sum(axis=1)
        weights[:, -1] = 1.0
        columns: Array = self._augmented @ weights.T
        if dark is not None:
            columns[self.counts @ dark.T.astype(np.float64) > 0.0] = -np.inf
        return columns

    def pullback(
        self, means: Array, excess: Array | None, slope: Array
    ) -> tuple[Array, Array | None]:
        """Return the derivative by `means`, shape ``(n_columns, n_gates)``; no extra ones."""
        expected = slope.T @ self._augmented
        return _over_means(expected[:, :-2], means) + expected[:, -2:-1], None


# Least expected counts of a column with excess noise: its gamma functions need more than none.
_DARK = 1e-150


class NegativeBinomialEmission:
    r"""Excess noise: the total has variance :math:`(1+\phi)\mu`, the gates are multinomial.

    The family is closed under addition at constant :math:`\phi`, so it does not depend on the
    bin width. The total n has probability
    :math:`\Gamma(n+r)/(\Gamma(r) n!)\, (1+\phi)^{-r} (\phi/(1+\phi))^n` with :math:`r=\mu/\phi`.

    Parameters
    ----------
    counts
        Counts per row and gate, shape ``(n_rows, n_gates)``.
    """

    has_excess = True

    def __init__(self, counts: Array) -> None:
        self.counts = np.ascontiguousarray(counts, dtype=np.float64)
        self.totals = self.counts.sum(axis=1)
        self._constant = -gammaln(self.counts + 1.0).sum(axis=1)
        # totals repeat, and gammaln is dear: evaluate once per distinct total
        self._distinct, self._row = np.unique(self.totals, return_inverse=True)

    def take(self, rows: NDArray[np.intp]) -> NegativeBinomialEmission:
        """Return the same family for some of the rows."""
        return NegativeBinomialEmission(self.counts[rows])

    def log_columns(self, means: Array, excess: Array | None) -> Array:
        """Log-likelihood under `means` and the excess variance ratio, shape ``(n_columns,)``."""
        if excess is None:
            raise ValueError("`excess` is needed: one excess variance ratio per column")
        mean = np.maximum(means.sum(axis=1), _DARK)
        shape = mean / excess
        n = self._distinct[:, None]
        total = gammaln(n + shape) - gammaln(shape) - shape * np.log1p(excess)
        total += n * (np.log(excess) - np.log1p(excess))
        weights, dark = _log_weights(means / mean[:, None])
        columns: Array = self.counts @ weights.T
        columns += total[self._row]
        columns += self._constant[:, None]
        if dark is not None:
            columns[self.counts @ dark.T.astype(np.float64) > 0.0] = -np.inf
        return columns

    def pullback(
        self, means: Array, excess: Array | None, slope: Array
    ) -> tuple[Array, Array | None]:
        """Return the derivatives by `means` and `excess`."""
        if excess is None:
            raise ValueError("`excess` is needed: one excess variance ratio per column")
        mean = np.maximum(means.sum(axis=1), _DARK)
        shape = mean / excess
        weights = np.zeros((self._distinct.size, mean.size))
        np.add.at(weights, self._row, slope)
        n = self._distinct[:, None]
        shape_slope = (weights * (digamma(n + shape) - digamma(shape) - np.log1p(excess))).sum(0)
        counted = (weights * n).sum(axis=0)
        mass = weights.sum(axis=0)
        excess_slope = counted / (excess * (1.0 + excess)) - mass * shape / (1.0 + excess)
        excess_slope -= shape_slope * mean / excess**2
        means_slope = _over_means(slope.T @ self.counts, means) - (counted / mean)[:, None]
        means_slope += (shape_slope / excess)[:, None]
        return means_slope, excess_slope


class CameraEmission:
    """Camera counts, Gaussian with the variance of the photons and of the read-out.

    Mean = offset + gain n, variance = excess_factor^2 gain^2 n + read_noise^2 for n expected
    photoelectrons; an electron-multiplying camera has an excess factor of sqrt(2) [1]_.

    References
    ----------
    .. [1] Robbins, M. S.; Hadwen, B. J. The noise performance of electron multiplying
       charge-coupled devices. IEEE Trans. Electron Devices 50, 1227 (2003),
       doi:10.1109/TED.2003.813462.
    """

    has_excess = False

    def __init__(
        self, counts: Array, gain: float, offset: float, read_noise: float, excess_factor: float
    ) -> None:
        self.counts = np.ascontiguousarray(counts, dtype=np.float64).reshape(-1)
        self.gain, self.offset = gain, offset
        self.read_noise, self.excess_factor = read_noise, excess_factor

    def take(self, rows: NDArray[np.intp]) -> CameraEmission:
        """Return the same family for some of the rows."""
        return CameraEmission(
            self.counts[rows], self.gain, self.offset, self.read_noise, self.excess_factor
        )

    def _moments(self, means: Array) -> tuple[Array, Array]:
        photons = means[:, 0]
        variance = (self.excess_factor * self.gain) ** 2 * photons + self.read_noise**2
        return self.offset + self.gain * photons, variance

    def log_columns(self, means: Array, excess: Array | None = None) -> Array:
        """Log-likelihood under the expected photoelectrons `means`, shape ``(n_columns, 1)``."""
        mean, variance = self._moments(means)
        residual = self.counts[:, None] - mean
        return -0.5 * residual**2 / variance - 0.5 * np.log(2.0 * np.pi * variance)

    def pullback(
        self, means: Array, excess: Array | None, slope: Array
    ) -> tuple[Array, Array | None]:
        """Return the derivative by `means`, shape ``(n_columns, 1)``."""
        mean, variance = self._moments(means)
        residual = self.counts[:, None] - mean
        mean_slope = (slope * residual / variance).sum(axis=0)
        variance_slope = (slope * (residual**2 / variance - 1.0) / (2.0 * variance)).sum(axis=0)
        factor = (self.excess_factor * self.gain) ** 2
        return (mean_slope * self.gain + variance_slope * factor)[:, None], None
