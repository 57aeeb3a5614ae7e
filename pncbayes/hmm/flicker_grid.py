r"""An Ornstein-Uhlenbeck process on a grid: a chain of steps between neighbouring points.

The process x has mean 0, variance 1 and the relaxation rate r. On points a distance h apart it is a
birth and death chain with the rates

.. math:: u(x) = r \left(\frac{1}{h^2} - \frac{x}{2h}\right), \quad
          d(x) = r \left(\frac{1}{h^2} + \frac{x}{2h}\right)

up and down. On :math:`N + 1` points with :math:`h = 2/\sqrt{N}` these are the rates of Ehrenfest's
urns, whose mean decays as :math:`e^{-rt}` and whose variance is 1, exactly [1]_. Here the grid ends
at a few standard deviations, where next to nothing of the process lies. The chain is reversible, so
its transitions over any time come from one decomposition.

References
----------
.. [1] Kac, M. Random walk and the theory of Brownian motion. Am. Math. Mon. 54, 369 (1947),
   doi:10.1080/00029890.1947.11990189.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

__all__ = ["FlickerGrid", "points_wanted"]

Array = NDArray[np.float64]

# Standard deviations at which the grid ends: the process spends 5e-4 of its time beyond.
_REACH = 3.5
# Distance of points over the standard deviation to which the photons know the process.
_FINENESS = 1.25
_FEWEST, _MOST = 9, 49


def points_wanted(
    log_sd: float, relaxation_rate_per_s: float, rate_per_s: float, *, fineness: float = _FINENESS
) -> int:
    r"""Points that resolve a flicker as well as the photons do.

    Photons at a rate n tell x at any time to the variance
    :math:`v = \sqrt{2 r / (n s^2)}` of a steady-state Kalman filter, with s the standard deviation
    of the log brightness [1]_. A grid much coarser than that is a staircase whose steps the photons
    see; much finer points cost time alone.

    Parameters
    ----------
    log_sd
        Standard deviation s of the log brightness.
    relaxation_rate_per_s
        Relaxation rate r, per s.
    rate_per_s
        Photons per s of the brightest level.
    fineness
        Distance of points over the standard deviation :math:`\sqrt{v}`.

    Returns
    -------
    int
        Odd, 9 to 49.

    References
    ----------
    .. [1] Kalman, R. E.; Bucy, R. S. J. Basic Eng. 83, 95 (1961), doi:10.1115/1.3658902.
    """
    information = max(rate_per_s, 1e-9) * log_sd**2
    variance = min(math.sqrt(2.0 * relaxation_rate_per_s / max(information, 1e-12)), 1.0)
    wanted = 2.0 * _REACH / (fineness * math.sqrt(variance)) + 1.0
    return int(np.clip(2 * (math.ceil(wanted) // 2) + 1, _FEWEST, _MOST))


@dataclass(frozen=True)
class FlickerGrid:
    """Points of the process and how it moves between them.

    Attributes
    ----------
    points
        In standard deviations, ascending, shape ``(n_points,)``; their mean under `stationary` is 0
        and their variance 1.
    stationary
        Share of the time at each point, shape ``(n_points,)``.
    """

    points: Array
    stationary: Array
    _values: Array
    _vectors: Array

    @classmethod
    def of(cls, n_points: int) -> FlickerGrid:
        """Grid of a number of points, 1 for no flicker.

        Raises
        ------
        ValueError
            If there are fewer than one or two points: two are no process of this kind.
        """
        if n_points == 1:
            one = np.ones(1)
            return cls(np.zeros(1), one, np.zeros(1), one[:, None])
        if n_points < 3:
            raise ValueError(f"`n_points` must be 1 or at least 3, got {n_points}")
        # beyond 2 / h the rates would be negative: few points end earlier
        reach = min(_REACH, math.sqrt(n_points - 1.0))
        x = np.linspace(-reach, reach, n_points)
        h = x[1] - x[0]
        up = (1.0 / h**2 - x / (2.0 * h))[:-1]
        down = (1.0 / h**2 + x / (2.0 * h))[1:]
        logs = np.concatenate([[0.0], np.cumsum(np.log(up / down))])
        stationary = np.exp(logs - logs.max())
        stationary /= stationary.sum()
        leave = np.zeros(n_points)
        leave[:-1] += up
        leave[1:] += down
        values, vectors = eigh_tridiagonal(-leave, np.sqrt(up * down))
        # the slowest decay is that of the mean, by definition of the relaxation rate
        values = values / -values[-2]
        values[-1] = 0.0
        return cls(x / math.sqrt(float(stationary @ x**2)), stationary, values, vectors)

    @property
    def n_points(self) -> int:
        """Number of points."""
        return int(self.points.size)

    def transition(self, relaxation_rate_per_s: float, width_s: float) -> Array:
        """Probability of each point a time `width_s` later, ``(n_points, n_points)`` [from, to]."""
        decay = np.exp(self._values * (relaxation_rate_per_s * width_s))
        root = np.sqrt(self.stationary)
        matrix = (self._vectors * decay) @ self._vectors.T
        moved: Array = np.maximum(matrix * root / root[:, None], 0.0)
        return moved / moved.sum(axis=1, keepdims=True)

    def transition_slope(self, relaxation_rate_per_s: float, width_s: float) -> Array:
        """Derivative of `transition` by the log of the relaxation rate, same shape."""
        exponent = self._values * (relaxation_rate_per_s * width_s)
        root = np.sqrt(self.stationary)
        matrix = (self._vectors * (exponent * np.exp(exponent))) @ self._vectors.T
        slope: Array = matrix * root / root[:, None]
        return slope
