"""What `pncbayes.inference.decay_prior` does many times over, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "digamma",
    "draw_another",
    "draw_base",
    "given_decays",
    "given_photons",
    "log_probability",
    "trigamma",
]

Array = NDArray[np.float64]

_MOST_STEPS = 60
_EXACT = 1e-7
# Nats below the top at which concentrations no longer count.
_DEPTH = 40.0
# Cells over which a weight is drawn, and the least log of a share.
_CELLS = 64
_LEAST_LOG_SHARE = -390.0


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
def _look_up(
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
                    log_integral, mean[g], variance = _look_up(
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
    top = logs.max()
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
        top = log_density[i].max()
        left = rng.random() * np.exp(log_density[i] - top).sum()
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
            _, mean, variance = _look_up(log_shares[i, g] + tilt, n_states, start, step, table)
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
    for g in range(n_gates):
        centre[g] = photons[:, g].sum() + shape
    n_photons = centre.sum()
    centre /= n_photons
    other = np.empty(n_gates)
    base = base.copy()
    for _ in range(n_rounds):
        for c in range(n_grid):
            logs[c] = log_prior[c] + log_probability(photons, base, math.exp(log_grid[c]))
        top = logs.max()
        left = rng.random() * np.exp(logs - top).sum()
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
                base[:] = other
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
