"""Draws of base shapes and decays, for `pncbayes.inference.decay_prior`, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.decay_kernels import log_probability, look_up, trigamma

__all__ = ["draw_another", "draw_base"]

Array = NDArray[np.float64]

# Cells over which a weight is drawn, and the least log of a share.
_CELLS = 64
_LEAST_LOG_SHARE = -390.0


@njit(cache=True, nogil=True)
def _draw_weight(
    tilt: float, n_states: int, shape: float, mean: float, variance: float, uniform: float
) -> float:
    """Draw the weight of a gate at a tilt: by inversion, on a grid in its logarithm."""
    narrow = mean * mean / variance
    width = math.sqrt(trigamma(narrow))
    low = math.log(mean) - 9.0 * width
    step = 14.0 * width / _CELLS
    reached = np.empty(_CELLS + 1)
    logs = np.empty(_CELLS + 1)
    for m in range(_CELLS + 1):
        y = low + m * step
        x = math.exp(y)
        logs[m] = shape * y + tilt * x - n_states * math.lgamma(x)
    top = -np.inf
    for m in range(_CELLS + 1):
        top = max(top, logs[m])
    before, total = math.exp(logs[0] - top), 0.0
    reached[0] = 0.0
    for m in range(1, _CELLS + 1):
        here = math.exp(logs[m] - top)
        total += 0.5 * (before + here)
        reached[m] = total
        before = here
    wanted = uniform * total
    cell = 0
    while cell < _CELLS - 1 and reached[cell + 1] < wanted:
        cell += 1
    inside = (wanted - reached[cell]) / max(reached[cell + 1] - reached[cell], 1e-300)
    # the density is linear within a cell
    first, second = math.exp(logs[cell] - top), math.exp(logs[cell + 1] - top)
    slope = second - first
    if abs(slope) > 1e-9 * (first + second):
        root = math.sqrt(first * first + slope * (first + second) * inside)
        inside = (root - first) / slope
    return math.exp(low + (cell + inside) * step)


@njit(cache=True, nogil=True)
def draw_another(
    log_shares: Array,
    n_states: int,
    log_grid: Array,
    log_weight: Array,
    start: float,
    step: float,
    table: Array,
    shape: float,
    log_density: Array,
    tilts: Array,
    rng: np.random.Generator,
) -> Array:
    """Draw one decay more, given those of the states: concentration, base, and from these a decay.

    Parameters
    ----------
    log_shares, n_states, log_grid, log_weight, start, step, table
        As for `given_decays`.
    shape
        Of the Dirichlet prior of the base, for each gate.
    log_density
        Log density of each concentration given the decays, not normalised, ``(n, n_grid)``.
    tilts
        As `given_decays` returns them.
    rng
        Source of the draws.

    Returns
    -------
    ndarray
        Log of the shares, at least -390, shape ``(n, n_gates)``.
    """
    n, n_gates = log_shares.shape
    n_grid = log_grid.shape[0]
    drawn = np.empty((n, n_gates))
    for i in range(n):
        top, left = -np.inf, 0.0
        for c in range(n_grid):
            top = max(top, log_density[i, c])
        for c in range(n_grid):
            left += math.exp(log_density[i, c] - top)
        left *= rng.random()
        cell = n_grid - 1
        for c in range(n_grid):
            left -= math.exp(log_density[i, c] - top)
            if left < 0.0:
                cell = c
                break
        # anywhere in the cell of the concentration
        apart = rng.random() - 0.5
        other = min(max(cell + (1 if apart > 0.0 else -1), 0), n_grid - 1)
        concentration = math.exp(log_grid[cell] + abs(apart) * (log_grid[other] - log_grid[cell]))
        tilt = tilts[i, cell] + abs(apart) * (tilts[i, other] - tilts[i, cell])
        total = 0.0
        for g in range(n_gates):
            _, mean, variance = look_up(log_shares[i, g] + tilt, n_states, start, step, table)
            drawn[i, g] = _draw_weight(
                log_shares[i, g] + tilt, n_states, shape, mean, variance, rng.random()
            )
            total += drawn[i, g]
        largest = -np.inf
        for g in range(n_gates):
            weight = concentration * drawn[i, g] / total
            # the logarithm of a gamma variable, however small
            value = math.log(rng.standard_gamma(weight + 1.0))
            drawn[i, g] = value + math.log(1.0 - rng.random()) / weight
            largest = max(largest, drawn[i, g])
        total = 0.0
        for g in range(n_gates):
            total += math.exp(drawn[i, g] - largest)
        for g in range(n_gates):
            drawn[i, g] = max(drawn[i, g] - largest - math.log(total), _LEAST_LOG_SHARE)
    return drawn


@njit(cache=True, nogil=True)
def _draw_tables(n: int, weight: float, rng: np.random.Generator) -> int:
    """Number of tables of n guests [1]_: a new one for guest i with weight / (weight + i).

    Drawn in blocks that double, with the chance of the first of the block, and thinned: the work
    grows with the tables, not with the guests.
    """
    if n <= 0:
        return 0
    tables, i = 1, 1
    while i < n:
        chance = weight / (weight + i)
        stop = min(2 * i, n)
        if chance > 0.3:
            for j in range(i, stop):
                if rng.random() * (weight + j) < weight:
                    tables += 1
        else:
            scale = 1.0 / math.log1p(-chance)
            j = i - 1
            while True:
                skipped = math.log(1.0 - rng.random()) * scale
                if skipped > stop:
                    break
                j += 1 + int(skipped)
                if j >= stop:
                    break
                if rng.random() * (weight + j) < weight + i:
                    tables += 1
        i = stop
    return tables


@njit(cache=True, nogil=True)
def draw_base(
    photons: Array,
    base: Array,
    cell: int,
    shape: float,
    log_grid: Array,
    log_prior: Array,
    n_rounds: int,
    rng: np.random.Generator,
) -> tuple[Array, int]:
    """Draw base shape and concentration given the photons of states, the decays integrated out.

    In turns: the concentration given the base, on a grid; both together, the base drawn towards
    or away from the shape of all photons as the concentration grows or falls (one at a time they
    would hold each other in place); and the base given the concentration, by the number of tables
    of each gate [1]_. Each leaves the posterior as it is.

    Parameters
    ----------
    photons
        Photons of each state and gate, shape ``(n_states, n_gates)``.
    base
        Base shape before, shape ``(n_gates,)``.
    cell
        Place of the concentration in the grid before.
    shape
        Of the Dirichlet prior of the base, for each gate.
    log_grid, log_prior
        Log concentrations and their log prior, shape ``(n_grid,)``.
    n_rounds
        How many turns.
    rng
        Source of the draws.

    Returns
    -------
    base : ndarray
        New base shape, shape ``(n_gates,)``.
    cell : int
        Place of the new concentration in the grid.

    References
    ----------
    .. [1] Teh, Y. W. et al. Hierarchical Dirichlet processes. J. Am. Stat. Assoc. 101, 1566
       (2006), doi:10.1198/016214506000000302.
    """
    n_states, n_gates = photons.shape
    n_grid = log_grid.shape[0]
    logs = np.empty(n_grid)
    centre = np.empty(n_gates)
    n_photons = 0.0
    for g in range(n_gates):
        centre[g] = shape
        for k in range(n_states):
            centre[g] += photons[k, g]
        n_photons += centre[g]
    for g in range(n_gates):
        centre[g] /= n_photons
    other = np.empty(n_gates)
    base = base.copy()
    for _ in range(n_rounds):
        for c in range(n_grid):
            logs[c] = log_prior[c] + log_probability(photons, base, math.exp(log_grid[c]))
        top, left = -np.inf, 0.0
        for c in range(n_grid):
            top = max(top, logs[c])
        for c in range(n_grid):
            left += math.exp(logs[c] - top)
        left *= rng.random()
        for c in range(n_grid):
            left -= math.exp(logs[c] - top)
            if left < 0.0:
                cell = c
                break
        here = logs[cell]
        for g in range(n_gates):
            here += shape * math.log(base[g])
        for _ in range(4):
            moved = cell + int(rng.integers(-8, 9))
            if moved < 0 or moved >= n_grid:
                continue
            wide = math.exp(-log_grid[moved]) + 1.0 / n_photons
            stretch = math.sqrt(wide / (math.exp(-log_grid[cell]) + 1.0 / n_photons))
            total = 0.0
            for g in range(n_gates):
                other[g] = centre[g] * math.exp(stretch * math.log(base[g] / centre[g]))
                total += other[g]
            there = log_prior[moved] + (n_gates - 1) * math.log(stretch)
            for g in range(n_gates):
                other[g] = max(other[g] / total, 1e-290)
                there += shape * math.log(other[g])
            there += log_probability(photons, other, math.exp(log_grid[moved]))
            if math.log(1.0 - rng.random()) < there - here:
                for g in range(n_gates):
                    base[g] = other[g]
                cell = moved
                # without the stretch, which belongs to the move
                here = there - (n_gates - 1) * math.log(stretch)
        concentration = math.exp(log_grid[cell])
        total = 0.0
        for g in range(n_gates):
            tables = 0
            for k in range(n_states):
                tables += _draw_tables(int(photons[k, g]), concentration * base[g], rng)
            other[g] = max(rng.standard_gamma(shape + tables), 1e-290)
            total += other[g]
        for g in range(n_gates):
            base[g] = max(other[g] / total, 1e-290)
    return base, cell
