"""Compiled loops of the tracking of a phase on a ring."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["filter_phase", "smooth_phase", "walk_kernel"]

Floats = NDArray[np.float64]


def walk_kernel(variance_rad2: float, n_phases: int) -> Floats:
    """Probability of each step of a random walk between neighbours on a ring of phases.

    The walk is in continuous time, so that the variance is exact also below one step of the ring.

    Parameters
    ----------
    variance_rad2
        Variance of the phase that the walk adds, in rad^2.
    n_phases
        Points on the ring.

    Returns
    -------
    numpy.ndarray, shape ``(n_steps + 1,)``
        Probability of 0, 1, ... steps forward; as many backward have the same.
    """
    spacing = 2.0 * np.pi / n_phases
    order = np.arange(n_phases // 2 + 1)
    decay = np.exp(-variance_rad2 / spacing**2 * (1.0 - np.cos(spacing * order)))
    kernel: Floats = np.fft.irfft(decay, n_phases)[: n_phases // 2]
    kernel = np.maximum(kernel, 0.0)
    last = max(1, int(np.flatnonzero(kernel > 1e-10 * kernel[0])[-1]))
    kernel = kernel[: last + 1]
    normalised: Floats = kernel / (kernel[0] + 2.0 * kernel[1:].sum())
    return normalised


@njit(cache=True, nogil=True, fastmath=True)
def _step(before: Floats, kernel: Floats, padded: Floats, after: Floats) -> None:
    n_phases, reach = before.size, kernel.size - 1
    for i in range(n_phases):
        padded[reach + i] = before[i]
        after[i] = kernel[0] * before[i]
    for i in range(reach):
        padded[i] = before[n_phases - reach + i]
        padded[reach + n_phases + i] = before[i]
    # the long loop inside, so that it is vectorised
    for k in range(1, reach + 1):
        weight = kernel[k]
        for i in range(n_phases):
            after[i] += weight * (padded[reach + i - k] + padded[reach + i + k])


@njit(cache=True, nogil=True)
def _forward(likelihood: Floats, kernel: Floats, filtered: Floats, keep: bool) -> float:
    n_windows, n_phases = likelihood.shape
    padded = np.empty(n_phases + 2 * kernel.size)
    predicted = np.full(n_phases, 1.0 / n_phases)
    current = np.empty(n_phases)
    log_evidence = 0.0
    for k in range(n_windows):
        if k:
            _step(current, kernel, padded, predicted)
        total = 0.0
        for i in range(n_phases):
            current[i] = predicted[i] * likelihood[k, i]
            total += current[i]
        log_evidence += np.log(total)
        for i in range(n_phases):
            current[i] /= total
            if keep:
                filtered[k, i] = current[i]
    return log_evidence


@njit(cache=True, nogil=True)
def filter_phase(likelihood: Floats, kernel: Floats) -> float:
    """Log of the probability of all windows, summed over all paths of the phase.

    Parameters
    ----------
    likelihood
        Likelihood of each window at each phase, each row up to a factor, shape
        ``(n_windows, n_phases)``.
    kernel
        From `walk_kernel`: the walk from a window to the next.

    Returns
    -------
    float
        In nats; the first phase is uniform.
    """
    return _forward(likelihood, kernel, np.empty((1, likelihood.shape[1])), False)


@njit(cache=True, nogil=True)
def smooth_phase(likelihood: Floats, kernel: Floats) -> tuple[float, Floats]:
    """Log evidence as in `filter_phase`, and the probability of each phase given all windows.

    Parameters
    ----------
    likelihood, kernel
        As in `filter_phase`.

    Returns
    -------
    tuple of float and numpy.ndarray, shape ``(n_windows, n_phases)``
    """
    n_windows, n_phases = likelihood.shape
    posterior = np.empty((n_windows, n_phases))
    log_evidence = _forward(likelihood, kernel, posterior, True)
    padded = np.empty(n_phases + 2 * kernel.size)
    later = np.ones(n_phases)
    weighted = np.empty(n_phases)
    for k in range(n_windows - 2, -1, -1):
        for i in range(n_phases):
            weighted[i] = later[i] * likelihood[k + 1, i]
        _step(weighted, kernel, padded, later)
        total = 0.0
        for i in range(n_phases):
            total += posterior[k, i] * later[i]
        for i in range(n_phases):
            later[i] /= total
            posterior[k, i] *= later[i]
    return log_evidence, posterior
