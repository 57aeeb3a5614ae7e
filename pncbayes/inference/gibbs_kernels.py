"""What one sweep of `pncbayes.inference.gibbs` does many times over: photons, levels and rates."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.switching import switch_weights
from pncbayes.inference.prior_kernels import brightness_prior, switching_prior

__all__ = ["attribute_photons", "draw_levels", "draw_rates"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Steps by which a slice may grow on both sides together.
_SLICE_STEPS = 24
# Photons that hold a level where it is.
_FEW_PHOTONS = 30.0


@njit(cache=True, nogil=True)
def _weigh_nodes(
    row: Array, first: Array, second: Array, nodes: Array, weights: Array, logs: Array
) -> None:
    """Write the log weight of every node: that of the switch and of the counts."""
    for m in range(nodes.shape[0]):
        value = math.log(weights[m]) if weights[m] > 0.0 else -1e300
        for g in range(row.shape[0]):
            mean = (1.0 - nodes[m]) * first[g] + nodes[m] * second[g]
            value -= mean
            if row[g] > 0.0:
                value += row[g] * math.log(mean) if mean > 0.0 else -1e300
        logs[m] = value


@njit(cache=True, nogil=True)
def _pick(logs: Array, size: int, uniform: float) -> int:
    """Index drawn with the weights of which the first `size` logs are given."""
    top = logs[0]
    for m in range(1, size):
        top = max(top, logs[m])
    total = 0.0
    for m in range(size):
        total += math.exp(logs[m] - top)
    left = uniform * total
    for m in range(size):
        left -= math.exp(logs[m] - top)
        if left < 0.0:
            return m
    return size - 1


@njit(cache=True, nogil=True)
def attribute_photons(
    counts: Array,
    row_of_bin: Index,
    path: Index,
    pure: Array,
    matrices: Array,
    means: Array,
    stay: Array,
    pair_weights: Array,
    nodes: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array, Array]:
    """Draw what happened inside the bins, and which state each photon came from.

    Parameters
    ----------
    counts
        Distinct rows of data, shape ``(n_rows, n_gates)``.
    row_of_bin
        Row of each bin, shape ``(n_bins,)``.
    path
        State at each edge, shape ``(n_bins + 1,)``.
    pure, matrices
        Likelihood of each row under each state, shape ``(n_rows, n_states)``, and the matrix of
        each row, both over the same scale.
    means
        Expected counts per bin, shape ``(n_states, n_gates)``.
    stay, pair_weights, nodes
        As `pncbayes.hmm.switching.switch_weights` returns and takes them.
    rng
        Source of the draws.

    Returns
    -------
    photons : ndarray
        Photons of each state and gate, shape ``(n_states, n_gates)``.
    time_bins : ndarray
        Bins spent in each state, shape ``(n_states,)``.
    n_stay : ndarray
        Bins without a switch, shape ``(n_states,)``.
    n_pair : ndarray
        Bins with each kind of switch at each node, shaped as `pair_weights`.
    """
    n_states, n_gates = means.shape
    n_nodes = nodes.shape[0]
    photons = np.zeros((n_states, n_gates))
    time_bins = np.zeros(n_states)
    n_stay = np.zeros(n_states)
    n_pair = np.zeros(pair_weights.shape)
    logs = np.empty((n_states - 1) * n_nodes + 1)
    pair_of = np.zeros((n_states, n_states), np.int64)
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            pair_of[i, j] = pair
            pair_of[j, i] = pair
            pair += 1
    for t in range(row_of_bin.shape[0]):
        row, i, j = row_of_bin[t], path[t], path[t + 1]
        kind, m = -1, 0
        if i == j:
            if n_states == 1 or rng.random() * matrices[row, i, i] < stay[i] * pure[row, i]:
                photons[i] += counts[row]
                time_bins[i] += 1.0
                n_stay[i] += 1.0
                continue
            # there and back inside the bin: to which state, and for how long
            at = 0
            for other in range(n_states):
                if other == i:
                    continue
                low, high = min(i, other), max(i, other)
                _weigh_nodes(
                    counts[row], means[low], means[high], nodes,
                    pair_weights[pair_of[i, other], 2 if i == low else 3], logs[at:],
                )  # fmt: skip
                at += n_nodes
            m = _pick(logs, at, rng.random())
            j = m // n_nodes
            j += j >= i
            m %= n_nodes
            kind = 2 if i < j else 3
        else:
            kind = 0 if i < j else 1
        low, high = min(i, j), max(i, j)
        pair = pair_of[i, j]
        if kind < 2:
            _weigh_nodes(
                counts[row], means[low], means[high], nodes, pair_weights[pair, kind], logs
            )
            m = _pick(logs, n_nodes, rng.random())
        n_pair[pair, kind, m] += 1.0
        w = nodes[m]
        time_bins[low] += 1.0 - w
        time_bins[high] += w
        for g in range(n_gates):
            n = int(counts[row, g])
            if n == 0:
                continue
            of_high = w * means[high, g]
            both = of_high + (1.0 - w) * means[low, g]
            share = of_high / both if both > 0.0 else w
            taken = float(rng.binomial(n, min(max(share, 0.0), 1.0)))
            photons[high, g] += taken
            photons[low, g] += n - taken
    return photons, time_bins, n_stay, n_pair


@njit(cache=True, nogil=True)
def _density_of_levels(
    shift: float,
    start: Array,
    moved: NDArray[np.bool_],
    logs: Array,
    rates: Array,
    photons: Array,
    time_s: Array,
    log_median: float,
    sigma: float,
    repulsion: float,
) -> float:
    """Log density with some log brightnesses shifted; writes the brightnesses."""
    value = 0.0
    for k in range(start.shape[0]):
        logs[k] = start[k] + (shift if moved[k] else 0.0)
        rates[k, 0] = math.exp(logs[k])
        value += photons[k] * logs[k] - rates[k, 0] * time_s[k]
    return value + brightness_prior(rates, log_median, sigma, repulsion, 0.0)[0]


@njit(cache=True, nogil=True)
def draw_levels(
    rate_per_s: Array,
    photons: Array,
    time_s: Array,
    log_median: float,
    sigma: float,
    repulsion: float,
    rng: np.random.Generator,
) -> Array:
    """Draw the brightness of each state given its photons and its time.

    Slice sampling [1]_ of the logarithm, with the joint prior of all levels: one after the other,
    then those with few photons by one factor.

    Parameters
    ----------
    rate_per_s, photons, time_s
        Brightness, number of photons and time of each state, each of shape ``(n_states,)``.
    log_median, sigma, repulsion
        Of the prior, as in `brightness_prior`.
    rng
        Source of the draws.

    Returns
    -------
    ndarray
        New brightnesses, shape ``(n_states,)``.

    References
    ----------
    .. [1] Neal, R. M. Slice sampling. Ann. Stat. 31, 705 (2003), doi:10.1214/aos/1056562461.
    """
    n_states = rate_per_s.shape[0]
    logs, start = np.log(rate_per_s), np.log(rate_per_s)
    rates = np.empty((n_states, 1))
    moved = np.empty(n_states, np.bool_)
    for move in range(n_states + 1):
        if move < n_states:
            moved[:] = False
            moved[move] = True
        else:
            # one at a time, levels that no photon holds would keep each other in place
            moved[:] = photons < _FEW_PHOTONS
            if moved.sum() < 2:
                break
        start[:] = logs
        n = photons[moved].sum()
        width = 3.0 / math.sqrt(n + 2.0)
        height = _density_of_levels(
            0.0, start, moved, logs, rates, photons, time_s, log_median, sigma, repulsion
        )
        height -= rng.standard_exponential()
        low = -width * rng.random()
        high = low + width
        for side in range(2):
            for _ in range(_SLICE_STEPS // 2):
                edge = low if side == 0 else high
                value = _density_of_levels(
                    edge, start, moved, logs, rates, photons, time_s, log_median, sigma, repulsion
                )
                if value < height:
                    break
                if side == 0:
                    low -= width
                else:
                    high += width
        while True:
            shift = low + (high - low) * rng.random()
            value = _density_of_levels(
                shift, start, moved, logs, rates, photons, time_s, log_median, sigma, repulsion
            )
            if value >= height or high - low < 1e-12:
                break
            if shift < 0.0:
                low = shift
            else:
                high = shift
    return np.exp(logs)


@njit(cache=True, nogil=True)
def _log_likelihood_of_rates(
    rates: Array, width_s: float, nodes: Array, node_weights: Array, n_stay: Array, n_pair: Array
) -> float:
    """Log probability of what happened in all bins."""
    stay, pair_weights = switch_weights(rates, width_s, nodes, node_weights)
    value = 0.0
    for i in range(stay.shape[0]):
        if n_stay[i] > 0.0:
            value += n_stay[i] * (math.log(stay[i]) if stay[i] > 0.0 else -1e300)
    for pair in range(n_pair.shape[0]):
        for kind in range(4):
            for m in range(n_pair.shape[2]):
                n = n_pair[pair, kind, m]
                if n > 0.0:
                    weight = pair_weights[pair, kind, m]
                    value += n * (math.log(weight) if weight > 0.0 else -1e300)
    return value


@njit(cache=True, nogil=True)
def _log_density_of_exit(
    rates: Array,
    row: int,
    jumps: Array,
    log_exit: float,
    width_s: float,
    nodes: Array,
    node_weights: Array,
    n_stay: Array,
    n_pair: Array,
    prior: tuple[float, float, float],
    fastest_per_s: float,
) -> float:
    """Log density of the log exit rate of one state; writes its rates."""
    if log_exit > math.log(fastest_per_s):
        return -np.inf
    exit_rate = math.exp(log_exit)
    for j in range(jumps.shape[0]):
        if j != row:
            rates[row, j] = exit_rate * jumps[j]
    value = switching_prior(rates, prior[0], prior[1], prior[2])[0]
    return value + _log_likelihood_of_rates(rates, width_s, nodes, node_weights, n_stay, n_pair)


@njit(cache=True, nogil=True)
def draw_rates(
    rates_per_s: Array,
    width_s: float,
    nodes: Array,
    node_weights: Array,
    n_stay: Array,
    n_pair: Array,
    prior: tuple[float, float, float],
    fastest_per_s: float,
    rng: np.random.Generator,
) -> Array:
    """Draw the transition rates given what happened in all bins.

    For each state the jumps are proposed from the Dirichlet density that they have where no bin
    hides a switch, and taken or not by Metropolis and Hastings; then the exit rate is drawn by
    slice sampling.

    Parameters
    ----------
    rates_per_s
        Rates before, shape ``(n_states, n_states)``.
    width_s, nodes, node_weights
        As in `switch_weights`.
    n_stay, n_pair
        As `attribute_photons` returns them.
    prior
        Log median and sigma of the exit rates, and the concentration of the jumps.
    fastest_per_s
        Largest exit rate allowed.
    rng
        Source of the draws.

    Returns
    -------
    ndarray
        Shape ``(n_states, n_states)``, zero on the diagonal.
    """
    n_states = rates_per_s.shape[0]
    jumped = np.zeros((n_states, n_states))
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            back = n_pair[pair, 2].sum() + n_pair[pair, 3].sum()
            jumped[i, j] = n_pair[pair, 0].sum() + back
            jumped[j, i] = n_pair[pair, 1].sum() + back
            pair += 1
    rates = rates_per_s.copy()
    for i in range(n_states):
        rates[i, i] = 0.0
    value = _log_likelihood_of_rates(rates, width_s, nodes, node_weights, n_stay, n_pair)
    jumps = np.zeros(n_states)
    for i in range(n_states):
        leaving = rates[i].sum()
        for j in range(n_states):
            jumps[j] = rates[i, j] / leaving
        if n_states > 2:
            proposed = np.zeros(n_states)
            for j in range(n_states):
                if j != i:
                    proposed[j] = max(rng.standard_gamma(prior[2] + jumped[i, j]), 1e-250)
            proposed /= proposed.sum()
            other = rates.copy()
            log_ratio = -value
            for j in range(n_states):
                if j != i:
                    other[i, j] = leaving * proposed[j]
                    log_ratio -= jumped[i, j] * math.log(proposed[j] / max(jumps[j], 1e-290))
            found = _log_likelihood_of_rates(other, width_s, nodes, node_weights, n_stay, n_pair)
            if math.log(rng.random()) < log_ratio + found:
                rates, value = other, found
                jumps = proposed
        centre = math.log(leaving)
        width = 3.0 / math.sqrt(jumped[i].sum() + 1.0)
        height = switching_prior(rates, prior[0], prior[1], prior[2])[0] + value
        height -= rng.standard_exponential()
        low = centre - width * rng.random()
        high = low + width
        for side in range(2):
            for _ in range(_SLICE_STEPS // 2):
                edge = low if side == 0 else high
                density = _log_density_of_exit(
                    rates, i, jumps, edge, width_s, nodes, node_weights, n_stay, n_pair, prior,
                    fastest_per_s,
                )  # fmt: skip
                if not density >= height:
                    break
                if side == 0:
                    low -= width
                else:
                    high += width
        while True:
            point = low + (high - low) * rng.random()
            density = _log_density_of_exit(
                rates, i, jumps, point, width_s, nodes, node_weights, n_stay, n_pair, prior,
                fastest_per_s,
            )  # fmt: skip
            if density >= height or high - low < 1e-12:
                break
            if point < centre:
                low = point
            else:
                high = point
        value = _log_likelihood_of_rates(rates, width_s, nodes, node_weights, n_stay, n_pair)
    return rates
