r"""Coordinates in which the posterior of an intensity is close to normal.

The logarithm y of an intensity has nearly a log-gamma density around its mode,
:math:`\propto \exp(a (d - e^d))` with :math:`d = y - \hat y`. Where the shape a is large,
:math:`z = (e^{s d} - 1)/s` makes it normal (s = 1/3 is the cube root of Wilson and Hilferty [1]_;
s is taken from the third derivative, and is 0 for a log-normal). Where a is small, as in a gate
that holds no photon, only the exact map through the gamma distribution does.

References
----------
.. [1] Wilson, E. B.; Hilferty, M. M. The distribution of chi-square. PNAS 17, 684 (1931),
   doi:10.1073/pnas.17.12.684.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammaincinv, gammaln, log_ndtr, ndtri, ndtri_exp

__all__ = ["Coordinates"]

Array = NDArray[np.float64]

_TINY = 1e-8
# Shapes below this need the exact map.
_SMALL_SHAPE = 0.8


@dataclass(frozen=True)
class Coordinates:
    """Map between log intensities y and coordinates z, with z = 0 at the mode.

    There dz/dy is 1 by the power map. By the exact map it is not: scaled so that z has the
    precision a of the shape, as y has at its mode, dz/dy is 0.94 to 1.11 for a from 0.01 to 0.8,
    and rises to 3.4 at the smallest a, 1e-4. `to_z` returns the slope of either.

    Attributes
    ----------
    centre
        The mode, shape ``(size,)``.
    warp
        s of each coordinate.
    shape
        Gamma shape where the exact map is used, else NaN.
    """

    centre: Array
    warp: Array
    shape: Array

    @classmethod
    def around(cls, centre: Array, second: Array, third: Array) -> Coordinates:
        """Choose the map from second and third derivatives of the negative log density."""
        second = np.maximum(second, 1e-4)
        ratio = third / second
        warp = np.clip(ratio / 3.0, -0.45, 0.45)
        exact = (second < _SMALL_SHAPE) & (ratio > 0.6)
        return cls(centre, warp, np.where(exact, second, np.nan))

    @property
    def _exact(self) -> NDArray[np.bool_]:
        return np.isfinite(self.shape)

    def tilt_and_curvature(self) -> tuple[Array, Array]:
        """Slope and curvature that the map's own Jacobian adds to the negative log density.

        Returns
        -------
        tilt : ndarray
            To be added to the slope at z = 0.
        curvature : ndarray
            To be added to the diagonal of the Hessian.
        """
        exact = self._exact
        root = np.sqrt(np.where(exact, self.shape, 1.0))
        mode = self._normal(np.where(exact, self.shape, 1.0), np.zeros_like(root))
        # with the exact map the density is normal: slope and curvature are known outright
        return np.where(exact, root * mode, self.warp), np.where(exact, 0.0, -(self.warp**2))

    @staticmethod
    def _normal(shape: Array, distance: Array) -> Array:
        """Normal quantile of a log-gamma variable."""
        x = shape * np.exp(np.minimum(distance, 50.0))
        lower = gammainc(shape, x)
        log_lower = shape * (np.log(shape) + distance) - gammaln(shape + 1.0)
        small = lower < 1e-10
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.where(lower < 0.5, ndtri(lower), -ndtri(gammaincc(shape, x)))
            normal: Array = np.where(small, ndtri_exp(np.minimum(log_lower, -1e-300)), middle)
        return normal

    def to_z(self, points: Array) -> tuple[Array, Array]:
        """Coordinates of points, and the log of dz/dy summed over coordinates.

        Parameters
        ----------
        points
            Log intensities, shape ``(n, size)``.

        Returns
        -------
        z : ndarray
            Shape ``(n, size)``.
        log_slope : ndarray
            Shape ``(n,)``.
        """
        distance = points - self.centre
        curved = np.abs(self.warp) > _TINY
        with np.errstate(over="ignore"):
            z = np.where(
                curved, np.expm1(self.warp * distance) / np.where(curved, self.warp, 1.0), distance
            )
        log_slope = self.warp * distance
        exact = self._exact
        if exact.any():
            a, d = self.shape[exact], distance[:, exact]
            normal = self._normal(a, d)
            with np.errstate(over="ignore"):
                density = a * np.log(a) + a * d - a * np.exp(np.minimum(d, 300.0)) - gammaln(a)
            log_slope[:, exact] = (
                density + 0.5 * normal**2 + 0.5 * np.log(2 * np.pi) - 0.5 * np.log(a)
            )
            z[:, exact] = (normal - self._normal(a, np.zeros_like(a))) / np.sqrt(a)
        return z, log_slope.sum(axis=1)

    def from_z(self, z: Array) -> Array:
        """Log intensities at coordinates, shape ``(n, size)``; NaN outside the support."""
        inside = 1.0 + self.warp * z
        curved = np.abs(self.warp) > _TINY
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.where(curved, np.log(inside) / np.where(curved, self.warp, 1.0), z)
        exact = self._exact
        if exact.any():
            a = self.shape[exact]
            normal = self._normal(a, np.zeros_like(a)) + np.sqrt(a) * z[:, exact]
            log_lower = log_ndtr(normal)
            with np.errstate(divide="ignore", invalid="ignore"):
                x = gammaincinv(a, np.exp(log_lower))
                # the series of the incomplete gamma function where it underflows
                log_x = np.where(x > 1e-20, np.log(x), (log_lower + gammaln(a + 1.0)) / a)
            distance[:, exact] = log_x - np.log(a)
        return self.centre + distance
