"""Integrals over the base shape of decays, for `pncbayes.inference.decay_prior`, compiled.

Loops in place of array expressions: these take seconds each to compile.
"""

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
    log_integral = first * table[low, 0] + second * table[low + 1, 0]
    log_integral += third * table[low + 2, 0] + fourth * table[low + 3, 0]
    mean = first * table[low, 1] + second * table[low + 1, 1]
    mean += third * table[low + 2, 1] + fourth * table[low + 3, 1]
    variance = first * table[low, 2] + second * table[low + 1, 2]
    variance += third * table[low + 2, 2] + fourth * table[low + 3, 2]
    return log_integral, mean, variance


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
        top, total = -np.inf, 0.0
        for g in range(n_gates):
            top = max(top, log_shares[i, g])
        for g in range(n_gates):
            total += math.exp((log_shares[i, g] - top) / n_states)
        level = top / n_states + math.log(total)
        # from the largest concentration, where the start is close, downwards
        tilt = n_states * (log_grid[n_grid - 1] - level)
        highest = -np.inf
        for c in range(n_grid - 1, -1, -1):
            if c < n_grid - 1 and log_density[i, c + 1] + log_weight[c + 1] < highest - _DEPTH:
                # one hump: nothing that counts comes any more
                for less in range(c + 1):
                    log_density[i, less], tilts[i, less] = -np.inf, tilts[i, c + 1]
                    for g in range(n_gates):
                        base[i, less, g] = base[i, c + 1, g]
                break
            reached, value, spread = 0.0, 0.0, 0.0
            for _ in range(_MOST_STEPS):
                reached, value, spread = 0.0, 0.0, 0.0
                for g in range(n_gates):
                    log_integral, mean[g], variance = look_up(
                        log_shares[i, g] + tilt, n_states, start, step, table
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
            for g in range(n_gates):
                base[i, c, g] = mean[g] / reached
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
    y, of_state = np.empty(n_gates), np.zeros(n_states)
    total = shape * n_gates
    for g in range(n_gates):
        y[g] = shape
        for k in range(n_states):
            y[g] += photons[k, g]
            of_state[k] += photons[k, g]
            total += photons[k, g]
    for g in range(n_gates):
        y[g] = math.log(y[g] / total) + log_grid[n_grid - 1]
    constant = math.lgamma(shape * n_gates) - n_gates * math.lgamma(shape)
    for c in range(n_grid - 1, -1, -1):
        concentration = math.exp(log_grid[c])
        if c < n_grid - 1:
            for g in range(n_gates):
                y[g] += log_grid[c] - log_grid[c + 1]
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
                short[g], curvatures[c, g] = shape + tables, bend
                reached += weight[g]
                worth += short[g]
            multiplier = worth / reached
            moved, stiff = concentration - reached, 0.0
            for g in range(n_gates):
                short[g] -= multiplier * weight[g]
                moved -= weight[g] * short[g] / curvatures[c, g]
                stiff += weight[g] ** 2 / curvatures[c, g]
            largest = 0.0
            for g in range(n_gates):
                move = (short[g] + moved / stiff * weight[g]) / curvatures[c, g]
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
            value -= math.lgamma(concentration + of_state[k])
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
            curvatures[c, g] = bend
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
