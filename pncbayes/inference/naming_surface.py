r"""Likelihood of a dim state over brightness and lifetime, with what is shared integrated out.

What all states share is normal beforehand: z are whitened coordinates of it, zero at what is true,
and :math:`\hat z` is where the exciton's photons put it in a recording. Rates are linear in z. At
each node the integral is Laplace's, to second order around :math:`z_0`, the best z for the expected
photons; far from the truth that is not zero, and an expansion around zero would take what is shared
for better known than it is. With the photons n of the gates, g and H the gradient and the expected
curvature of the Poisson log-likelihood there, and :math:`c = \hat z - z_0`,

.. math:: \ln L(u, v) = \sum_g n_g \ln T \mu_g - T \mu_g
          + \tfrac12 (g + c)^T (1 + H)^{-1} (g + c) - \tfrac12 c^T c - \tfrac12 \ln |1 + H| .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surface", "information", "inverse", "log_of", "square_root", "surface", "weighted_sd"]

Array = NDArray[np.float64]

# Counts per s and gate where nothing is expected.
LEAST_RATE = 1e-12
# Steps to the best z, and how small the last has to be.
_MOST_STEPS, _CLOSE = 6, 0.05


@dataclass(frozen=True)
class Surface:
    """The likelihood at nodes of the plane, for one time in the state; from `surface`."""

    axes: tuple[Array, Array]
    allowed: NDArray[np.bool_]
    log_counts: Array  # (n, gates)
    total: Array  # (n,)
    # of what is shared, whitened and contracted: (n, gates, r), (n, r), (n, r, r)
    by_photons: Array
    by_time: Array
    by_centre: Array
    place: Array  # z_0, (n, r)
    half_log_det: Array  # (n,)

    def values(self, photons: Array, centres: Array) -> Array:
        """Log-likelihood of recordings at all nodes, shape ``(n_recordings, n)``."""
        n_nodes, n_gates, rank = self.by_photons.shape
        value = photons @ self.log_counts.T - (self.total + self.half_log_det)
        value -= 0.5 * (centres**2).sum(axis=1)[:, None] + 0.5 * (self.place**2).sum(axis=1)
        value += centres @ self.place.T
        if rank:
            flat = self.by_photons.transpose(1, 0, 2).reshape(n_gates, -1)
            pull = photons @ flat + centres @ self.by_centre.transpose(1, 0, 2).reshape(rank, -1)
            pull = pull.reshape(len(photons), n_nodes, rank) - self.by_time
            value += 0.5 * np.einsum("ijk,ijk->ij", pull, pull)
        return np.asarray(np.where(self.allowed, value, -1e300))


def surface(
    seconds: float,
    directions: Array,
    true_rate: Array,
    axes: tuple[Array, Array],
    rate: Array,
    slopes: Array,
    allowed: NDArray[np.bool_],
) -> Surface:
    """Prepare the likelihood at the nodes of a grid.

    Parameters
    ----------
    seconds
        Time in the state.
    directions
        Of what is shared, one standard deviation each, shape ``(n_shared, r)``.
    true_rate
        Counts per s and gate of the state that the photons come from, shape ``(n_gates,)``.
    axes
        Log brightness and log lifetime, shapes ``(n_u,)`` and ``(n_v,)``.
    rate
        Counts per s and gate, shape ``(n_u, n_v, n_gates)``.
    slopes
        Derivatives by what is shared, shape ``(n_u, n_v, n_shared, n_gates)``.
    allowed
        Nodes that count, shape ``(n_u, n_v)``.
    """
    n_gates, rank = rate.shape[2], directions.shape[1]
    rate = np.maximum(rate.reshape(-1, n_gates), LEAST_RATE)
    slopes = slopes.reshape(len(rate), directions.shape[0], n_gates)
    along = np.ascontiguousarray(slopes.transpose(0, 2, 1) @ directions)
    place, rate = _best_place(seconds, true_rate, rate, along)
    # photons scatter around what is true; a variance below either would let what is shared
    # explain more than all of the misfit
    ratio = along / np.maximum(rate, true_rate)[:, :, None]
    curvature = seconds * (along.transpose(0, 2, 1) @ ratio)
    lower = np.linalg.cholesky(curvature + np.eye(rank))
    inverse = np.linalg.inv(lower)
    return Surface(
        axes,
        allowed.ravel(),
        np.log(seconds * rate),
        seconds * rate.sum(axis=1),
        ratio @ inverse.transpose(0, 2, 1),
        (inverse @ (seconds * (ratio.transpose(0, 2, 1) @ rate[:, :, None]) + place[:, :, None]))[
            ..., 0
        ],
        inverse.transpose(0, 2, 1),
        place,
        np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1),
    )


def _best_place(seconds: float, true_rate: Array, rate: Array, along: Array) -> tuple[Array, Array]:
    """Best z of each node for the expected photons, shape ``(n, r)``, and the rates there."""
    place = np.zeros((len(rate), along.shape[2]))
    eye = np.eye(along.shape[2])
    for _ in range(_MOST_STEPS):
        ratio = along / np.maximum(rate, true_rate)[:, :, None]
        curvature = seconds * (along.transpose(0, 2, 1) @ ratio) + eye
        misfit = true_rate / rate - 1.0
        slope = seconds * (misfit[:, None, :] @ along)[:, 0, :] - place
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        change = (along @ step[:, :, None])[:, :, 0]
        # no rate falls below a fifth of itself in one step
        fall = np.max(-change / rate, axis=1, initial=0.0)
        part = np.minimum(1.0, 0.8 / np.maximum(fall, 1e-12))[:, None]
        step *= part
        place += step
        rate = np.maximum(rate + part * change, LEAST_RATE)
        if np.abs(step).max(initial=0.0) < _CLOSE:
            break
    return place, rate


def information(rate: Array, slopes: Array) -> Array:
    """Expected Fisher information per second, of Poisson counts: ``(k, k)``."""
    return np.asarray((slopes / np.maximum(rate, 1e-300)) @ slopes.T)


def square_root(matrix: Array) -> Array:
    """Square root of a matrix without negative eigenvalues: ``root @ root.T`` is the matrix."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    values, axes = np.linalg.eigh(matrix / scale[:, None] / scale[None, :])
    return np.asarray(scale[:, None] * axes * np.sqrt(np.maximum(values, 0.0)))


def inverse(matrix: Array) -> Array:
    """Of a positive matrix of badly scaled numbers."""
    scale = 1.0 / np.sqrt(np.diag(matrix))
    scaled = matrix * scale[:, None] * scale[None, :]
    return np.asarray(np.linalg.pinv(scaled, hermitian=True) * scale[:, None] * scale[None, :])


def log_of(values: Array) -> Array:
    """Logarithm, finite at zero."""
    return np.asarray(np.log(np.maximum(values, 1e-300)))


def weighted_sd(value: Array, places: Array) -> Array:
    """Standard deviation of places weighed by a log density, for each row."""
    weights = np.exp(value - value.max(axis=1, keepdims=True))
    total = weights.sum(axis=1)
    mean = weights @ places / total
    return np.asarray(np.sqrt(np.maximum(weights @ places**2 / total - mean**2, 0.0)))
