"""Integrals over the base shape of decays, for `pncbayes.inference.decay_prior`, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["digamma", "given_decays", "given_photons", "log_probability", "look_up", "trigamma"]

Array = NDArray[np.float64]

_MOST_STEPS = 60
_EXACT = 1e-7
# Nats below the top at which concentrations no longer count.
_DEPTH = 40.0


@njit(cache=True, nogil=True)
def digamma(x: float) -> float:
    """Digamma function for x > 0, to 1e-13 (recurrence, then the asymptotic series)."""
    value = 0.0
    while x < 10.0:
        value -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y / 132))))
    return value + math.log(x) - 0.5 / x - series


@njit(cache=True, nogil=True)
def trigamma(x: float) -> float:
    """Derivative of the digamma function for x > 0, to 1e-12 relative."""
    value = 0.0
    while x < 10.0:
        value += 1.0 / (x * x)
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1.0 / 6 - y * (1.0 / 30 - y * (1.0 / 42 - y * (1.0 / 30 - y * 5.0 / 66))))
    return value + (1.0 + 0.5 / x + series) / x


@njit(cache=True, nogil=True)
def look_up(
    tilt: float, n_states: int, start: float, step: float, table: Array
) -> tuple[float, float, float]:
    """Log of the integral of a gate at a tilt, and mean and variance of its weight there."""
    scaled = tilt / n_states
    # a scale that is even where weights are large, and logarithmic where they are small
    at = scaled if scaled > -1.0 else -1.0 - math.log(-scaled)
    place = (at - start) / step
    low = min(max(int(place) - 1, 0), table.shape[0] - 4)
    # outside the table as at its ends: beyond any concentration, and any logarithm of a share
    u = min(max(place - low - 1.0, -1.0), 2.0)
    # cubic through four points
    first = -u * (u - 1.0) * (u - 2.0) / 6.0
    second = (u + 1.0) * (u - 1.0) * (u - 2.0) / 2.0
    third = -(u + 1.0) * u * (u - 2.0) / 2.0
    fourth = (u + 1.0) * u * (u - 1.0) / 6.0
    rows = table[low : low + 4]
    return (
        first * rows[0, 0] + second * rows[1, 0] + third * rows[2, 0] + fourth * rows[3, 0],
        first * rows[0, 1] + second * rows[1, 1] + third * rows[2, 1] + fourth * rows[3, 1],
        first * rows[0, 2] + second * rows[1, 2] + third * rows[2, 2] + fourth * rows[3, 2],
    )


@njit(cache=True, nogil=True)
def given_decays(
    log_shares: Array,
    n_states: int,
    log_grid: Array,
    log_weight: Array,
    start: float,
    step: float,
    table: Array,
) -> tuple[Array, Array, Array]:
    """Integrate the base shape out, given the decays, at each concentration.

    Parameters
    ----------
    log_shares
        Log of the share of each gate, summed over the states, shape ``(n, n_gates)``.
    n_states
        Number of states.
    log_grid, log_weight
        Log concentrations, ascending, and the log of what the density of each is multiplied with,
        shape ``(n_grid,)``.
    start, step, table
        As `pncbayes.inference.decay_prior` makes them.

    Returns
    -------
    log_density : ndarray
        Log of the integral of the product of the gates' weights, shape ``(n, n_grid)``.
    base : ndarray
        Mean of the base shape, shape ``(n, n_grid, n_gates)``.
    tilts : ndarray
        What is added to the log shares where the weights sum to the concentration, shape
        ``(n, n_grid)``.
    """
    n, n_gates = log_shares.shape
    n_grid = log_grid.shape[0]
    log_density, tilts = np.empty((n, n_grid)), np.empty((n, n_grid))
    base = np.empty((n, n_grid, n_gates))
    mean = np.empty(n_gates)
    for i in range(n):
        own = log_shares[i]
        top = own.max()
        total = 0.0
        for g in range(n_gates):
            total += math.exp((own[g] - top) / n_states)
        level = top / n_states + math.log(total)
        # from the largest concentration, where the start is close, downwards
        tilt = n_states * (log_grid[n_grid - 1] - level)
        highest = -np.inf
        for c in range(n_grid - 1, -1, -1):
            if c < n_grid - 1 and log_density[i, c + 1] + log_weight[c + 1] < highest - _DEPTH:
                # one hump: nothing that counts comes any more
                log_density[i, : c + 1] = -np.inf
                base[i, : c + 1], tilts[i, : c + 1] = base[i, c + 1], tilts[i, c + 1]
                break
            value, spread = 0.0, 0.0
            for _ in range(_MOST_STEPS):
                reached, value, spread = 0.0, 0.0, 0.0
                for g in range(n_gates):
                    log_integral, mean[g], variance = look_up(
                        own[g] + tilt, n_states, start, step, table
                    )
                    value += log_integral
                    reached += mean[g]
                    spread += variance
                # Newton's method in the logarithm of the sum
                short = log_grid[c] - math.log(reached)
                if abs(short) < _EXACT * (1.0 + math.sqrt(spread) / reached):
                    break
                tilt += max(min(short * reached / spread, 3.0 * n_states), -3.0 * n_states)
            log_density[i, c] = (
                value - tilt * math.exp(log_grid[c]) - 0.5 * math.log(2.0 * math.pi * spread)
            )
            base[i, c] = mean / mean.sum()
            tilts[i, c] = tilt
            highest = max(highest, log_density[i, c] + log_weight[c])
    return log_density, base, tilts


@njit(cache=True, nogil=True)
def _log_volume(curvature: float) -> float:
    """Log of the integral over a gamma density in the logarithm, over the density at its top.

    Gates hold few photons, and a normal density of the same curvature would lose a twelfth of a
    nat a gate.
    """
    return math.lgamma(curvature) - curvature * (math.log(curvature) - 1.0)


@njit(cache=True, nogil=True)
def given_photons(photons: Array, shape: float, log_grid: Array) -> tuple[Array, Array, Array]:
    """Integrate decays and base shape out, given photons of states, at each concentration.

    Parameters
    ----------
    photons
        Photons of each state and gate, shape ``(n_states, n_gates)``; need not be whole.
    shape
        Of the Dirichlet prior of the base, for each gate.
    log_grid
        Log concentrations, ascending, shape ``(n_grid,)``.

    Returns
    -------
    log_density : ndarray
        Log probability of which gate each photon fell into, shape ``(n_grid,)``.
    base : ndarray
        Most probable base shape (in the logarithms of the shares), shape ``(n_grid, n_gates)``.
    curvature
        By the logarithm of each share there, shape ``(n_grid, n_gates)``.
    """
    n_states, n_gates = photons.shape
    n_grid = log_grid.shape[0]
    log_density = np.empty(n_grid)
    base = np.empty((n_grid, n_gates))
    weight, short = np.empty(n_gates), np.empty(n_gates)
    curvatures = np.empty((n_grid, n_gates))
    y = np.empty(n_gates)
    total = photons.sum() + shape * n_gates
    for g in range(n_gates):
        y[g] = math.log((photons[:, g].sum() + shape) / total) + log_grid[n_grid - 1]
    constant = math.lgamma(shape * n_gates) - n_gates * math.lgamma(shape)
    for c in range(n_grid - 1, -1, -1):
        concentration, curvature = math.exp(log_grid[c]), curvatures[c]
        if c < n_grid - 1:
            y += log_grid[c] - log_grid[c + 1]
        for _ in range(_MOST_STEPS):
            # tables of photons that the base is worth: sum to the multiplier of the constraint
            reached, worth = 0.0, 0.0
            for g in range(n_gates):
                weight[g] = math.exp(y[g])
                tables, bend = 0.0, shape
                for k in range(n_states):
                    if photons[k, g] > 0.0:
                        more = weight[g] + photons[k, g]
                        tables += weight[g] * (digamma(more) - digamma(weight[g]))
                        bend += weight[g] ** 2 * (trigamma(weight[g]) - trigamma(more))
                short[g], curvature[g] = shape + tables, bend
                reached += weight[g]
                worth += short[g]
            multiplier = worth / reached
            moved, stiff = concentration - reached, 0.0
            for g in range(n_gates):
                short[g] -= multiplier * weight[g]
                moved -= weight[g] * short[g] / curvature[g]
                stiff += weight[g] ** 2 / curvature[g]
            largest = 0.0
            for g in range(n_gates):
                move = (short[g] + moved / stiff * weight[g]) / curvature[g]
                move = max(min(move, 1.0), -1.0)
                y[g] += move
                largest = max(largest, abs(move))
            if largest < 1e-7:
                break
        reached = 0.0
        for g in range(n_gates):
            reached += math.exp(y[g])
        value, log_base, log_volume, sum_curvature = 0.0, 0.0, 0.0, 0.0
        for k in range(n_states):
            value += math.lgamma(concentration)
            value -= math.lgamma(concentration + photons[k].sum())
        for g in range(n_gates):
            y[g] += log_grid[c] - math.log(reached)
            weight[g] = math.exp(y[g])
            base[c, g] = weight[g] / concentration
            log_base += shape * (y[g] - log_grid[c])
            bend = shape
            for k in range(n_states):
                if photons[k, g] > 0.0:
                    more = weight[g] + photons[k, g]
                    value += math.lgamma(more) - math.lgamma(weight[g])
                    bend += weight[g] ** 2 * (trigamma(weight[g]) - trigamma(more))
            curvature[g] = bend
            log_volume += _log_volume(bend)
            sum_curvature += bend
        log_density[c] = value + constant + log_base + log_volume - _log_volume(sum_curvature)
    return log_density, base, curvatures


@njit(cache=True, nogil=True)
def log_probability(photons: Array, base: Array, concentration: float) -> float:
    """Log probability of the gates of all photons, the decays integrated out."""
    value = 0.0
    for k in range(photons.shape[0]):
        n = 0.0
        for g in range(photons.shape[1]):
            if photons[k, g] > 0.0:
                weight = concentration * base[g]
                value += math.lgamma(weight + photons[k, g]) - math.lgamma(weight)
                n += photons[k, g]
        value += math.lgamma(concentration) - math.lgamma(concentration + n)
    return value
