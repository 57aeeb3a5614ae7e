"""What all states share - reference decay, background, scatter - and draws of it, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.label_kernels import (
    MOST_NODES,
    log_probability_of_photons,
    nodes_of_state,
    state_evidence,
    unresolved_nodes,
)
from pncbayes.physics.mechanism_kernels import (
    BACKGROUND,
    N_LABELS,
    UNRESOLVED,
    V_HIGH,
    V_LOW,
    log_prior_given_brightness,
    log_weight,
)
from pncbayes.physics.tied_kernels import blend_tables, quenched_shares

__all__ = ["SIZE", "draw_points", "evolve", "log_density"]

Array = NDArray[np.float64]

# of the shared parameters
BRIGHT, LIFETIME, SPREAD, FAST, SCATTER, FLAT, CONCENTRATION, SHIFT = range(8)
PAIR_SHARE, PAIR_LIFETIME, PAIR_POWER = range(8, 11)
SIZE = 11
_COARSE = 0.15
_N_COARSE = int((V_HIGH - V_LOW) / _COARSE) + 1
_NEVER = -1e300
# shifts of the response beyond which its table is not made
_MOST_SHIFT = 2.5
# nats below the first walker at which another may not start, and halvings of the way to it
_FAR_OUT, _MOST_HALVINGS = 40.0, 12


@njit(cache=True, nogil=True, error_model="numpy")
def unpack(point: Array, amplitudes: Array, rates: Array) -> None:
    """Amplitudes and rates of the two exponentials of the reference decay."""
    mean, ratio = math.exp(point[LIFETIME]), math.exp(abs(point[SPREAD]))
    fast = 1.0 / (1.0 + math.exp(-point[FAST]))
    short = mean / (fast + (1.0 - fast) * ratio)
    amplitudes[0], amplitudes[1] = fast, 1.0 - fast
    rates[0], rates[1] = 1.0 / short, 1.0 / (short * ratio)


@njit(cache=True, nogil=True, error_model="numpy")
def _prepare(
    point: Array, tables: Array, scatters: Array, background: Array, log_start: float,
    log_step: float, table: Array, flat: Array, whole: Array, coarse: Array, amplitudes: Array,
    rates: Array, pair: Array, pair_shares: Array,
) -> None:  # fmt: skip
    """Everything that a point says about decays."""
    shift = point[SHIFT]
    blend_tables(tables, shift, table)
    before, after = 0.5 * shift * (shift - 1.0), 0.5 * shift * (shift + 1.0)
    scatter, dark = math.exp(point[SCATTER]), math.exp(point[FLAT])
    for g in range(flat.size):
        response = before * scatters[0, g] + (1.0 - shift**2) * scatters[1, g]
        response += after * scatters[2, g]
        flat[g] = scatter * max(response, 0.0) + dark * background[g]
    unpack(point, amplitudes, rates)
    pair[0] = math.exp(point[PAIR_SHARE])
    pair[1] = 1.0 / (1.0 + math.exp(-point[PAIR_POWER]))
    quenched_shares(
        np.ones(1), np.full(1, math.exp(-point[PAIR_LIFETIME])), 1.0, table, log_start, log_step,
        pair_shares,
    )  # fmt: skip
    quenched_shares(amplitudes, rates, 1.0, table, log_start, log_step, whole)
    for j in range(_N_COARSE):
        ratio = math.exp(V_LOW + j * _COARSE)
        quenched_shares(amplitudes, rates, ratio, table, log_start, log_step, coarse[j])


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(
    point: Array,
    reference: int,
    photons: Array,
    seconds: Array,
    tables: Array,
    scatters: Array,
    background: Array,
    log_start: float,
    log_step: float,
    mean: Array,
    sd: Array,
    prior: Array,
    evidence: Array,
) -> float:
    """Log density of what is shared, with the mechanisms of all states summed out.

    Parameters
    ----------
    point
        Log of the signal rate of the reference, log of its mean lifetime in ns, log of the ratio
        of its two lifetimes, logit of the fast one's amplitude, logs of the rates of scatter and
        background per s and of the concentration, the shift of the response in its steps, log of
        the biexcitons' signal over that of single excitons in the reference, log of their
        lifetime in ns, and logit of the power of the brightness by which they grow in others.
    reference
        Number of the reference state.
    photons, seconds
        Photons of each state and gate, and time in each state.
    tables, scatters, background, log_start, log_step
        Of `DecayTable`.
    mean, sd
        Of the normal prior of `point`; that of the scatter is of its log ratio to the signal.
    prior
        Priors of the mechanisms.
    evidence
        Filled with the log evidence of each mechanism of each state, shape
        ``(n_states, N_LABELS)``; of the reference, with zeros.
    """
    n_gates = background.size
    value = 0.0
    for i in range(SIZE):
        at = point[i] - (point[BRIGHT] if i == SCATTER else 0.0)
        value -= 0.5 * ((at - mean[i]) / sd[i]) ** 2
    if abs(point[SHIFT]) > _MOST_SHIFT or not math.isfinite(value) or value < -1e6:
        return _NEVER
    table = np.empty((tables.shape[1], n_gates))
    flat, whole, coarse = np.empty(n_gates), np.empty(n_gates), np.empty((_N_COARSE, n_gates))
    amplitudes, rates, nodes = np.empty(2), np.empty(2), np.empty((MOST_NODES, 3))
    pair, pair_shares = np.empty(2), np.empty(n_gates)
    _prepare(
        point, tables, scatters, background, log_start, log_step, table, flat, whole, coarse,
        amplitudes, rates, pair, pair_shares,
    )  # fmt: skip
    bright, concentration = math.exp(point[BRIGHT]), math.exp(point[CONCENTRATION])
    for s in range(seconds.size):
        if s == reference:
            evidence[s] = 0.0
            value += log_probability_of_photons(
                photons[s], photons[s].sum(), seconds[s],
                bright * (whole + pair[0] * pair_shares) + flat, concentration,
            )  # fmt: skip
            continue
        state_evidence(
            photons[s], seconds[s], flat, bright, pair, pair_shares, concentration, amplitudes,
            rates, table, log_start, log_step, whole, coarse, prior, nodes, evidence[s],
        )  # fmt: skip
        top = evidence[s].max()
        value += top + math.log(np.exp(evidence[s] - top).sum())
    return value if math.isfinite(value) else _NEVER


@njit(cache=True, nogil=True, error_model="numpy")
def evolve(
    walkers: Array,
    n_rounds: int,
    n_kept: int,
    reference: int,
    photons: Array,
    seconds: Array,
    tables: Array,
    scatters: Array,
    background: Array,
    log_start: float,
    log_step: float,
    mean: Array,
    sd: Array,
    prior: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Draw by differential evolution: each walker moves by the difference of two others.

    The first walker is a good point, near which the others start.
    Returns the walkers of the last `n_kept` rounds, and their log densities.

    References
    ----------
    ter Braak, C. J. F. A Markov chain Monte Carlo version of the genetic algorithm differential
    evolution. Stat. Comput. 16, 239 (2006), doi:10.1007/s11222-006-8769-1.
    """
    n_walkers = walkers.shape[0]
    evidence = np.empty((seconds.size, N_LABELS))
    now = walkers.copy()
    values = np.empty(n_walkers)
    for w in range(n_walkers):
        for _ in range(_MOST_HALVINGS):
            values[w] = log_density(
                now[w], reference, photons, seconds, tables, scatters, background, log_start,
                log_step, mean, sd, prior, evidence,
            )  # fmt: skip
            # walkers far out would draw all others after them
            if values[w] > values[0] - _FAR_OUT:
                break
            now[w] = 0.5 * (now[w] + now[0])
    kept = np.empty((n_kept, n_walkers, SIZE))
    kept_values = np.empty((n_kept, n_walkers))
    scale = 2.38 / math.sqrt(2.0 * SIZE)
    trial = np.empty(SIZE)
    for sweep in range(n_rounds):
        # now and then a whole difference: from one mode to another
        gain = 1.0 if sweep % 10 == 9 else scale
        for w in range(n_walkers):
            a = rng.integers(0, n_walkers - 1)
            a += a >= w
            b = rng.integers(0, n_walkers - 2)
            low, high = min(a, w), max(a, w)
            b += b >= low
            b += b >= high
            for i in range(SIZE):
                jitter = 1e-4 * sd[i] * rng.standard_normal()
                trial[i] = now[w, i] + gain * (now[a, i] - now[b, i]) + jitter
            value = log_density(
                trial, reference, photons, seconds, tables, scatters, background, log_start,
                log_step, mean, sd, prior, evidence,
            )  # fmt: skip
            if value > _NEVER and math.log(rng.random() + 1e-300) < value - values[w]:
                now[w], values[w] = trial, value
        if sweep >= n_rounds - n_kept:
            kept[sweep - n_rounds + n_kept] = now
            kept_values[sweep - n_rounds + n_kept] = values
    return kept, kept_values


@njit(cache=True, nogil=True, error_model="numpy")
def draw_points(
    point: Array,
    reference: int,
    photons: Array,
    seconds: Array,
    tables: Array,
    scatters: Array,
    background: Array,
    log_start: float,
    log_step: float,
    prior: Array,
    evidence: Array,
    uniforms: Array,
    labels: NDArray[np.int64],
    places: Array,
    broad: Array,
) -> None:
    """Draw the mechanism of each state, and its place in the plane, given what is shared.

    Parameters
    ----------
    evidence
        As `log_density` filled it at this point.
    uniforms
        Random numbers, shape ``(n_states, 3)``.
    labels, places
        Filled: mechanism of each state, -1 for the reference; log brightness and log lifetime,
        shape ``(n_states, 2)``; of unresolved charging the lifetime of the trion, of a mere
        background nothing.
    broad
        Filled with a place drawn as if no mechanism were known, shape ``(n_states, 2)``.
    """
    n_gates = background.size
    table = np.empty((tables.shape[1], n_gates))
    flat, whole, coarse = np.empty(n_gates), np.empty(n_gates), np.empty((_N_COARSE, n_gates))
    amplitudes, rates, nodes = np.empty(2), np.empty(2), np.empty((MOST_NODES, 3))
    pair, pair_shares = np.empty(2), np.empty(n_gates)
    weights = np.empty(MOST_NODES)
    _prepare(
        point, tables, scatters, background, log_start, log_step, table, flat, whole, coarse,
        amplitudes, rates, pair, pair_shares,
    )  # fmt: skip
    bright, concentration = math.exp(point[BRIGHT]), math.exp(point[CONCENTRATION])
    places[:], broad[:] = np.nan, np.nan
    for s in range(seconds.size):
        labels[s] = -1
        if s == reference:
            places[s], broad[s] = 0.0, 0.0
            continue
        shares = np.exp(evidence[s] - evidence[s].max())
        labels[s] = _pick(shares, uniforms[s, 0])
        n = nodes_of_state(
            photons[s], seconds[s], flat, bright, pair, pair_shares, concentration, amplitudes,
            rates, table, log_start, log_step, coarse, nodes,
        )  # fmt: skip
        if n:
            weights[:n] = np.exp(nodes[:n, 2] - nodes[:n, 2].max())
            k = _pick(weights[:n], uniforms[s, 2])
            broad[s] = nodes[k, :2]
        if labels[s] == BACKGROUND:
            continue
        if labels[s] == UNRESOLVED:
            n = unresolved_nodes(
                photons[s], seconds[s], flat, bright, pair, pair_shares, concentration, prior[1],
                whole, coarse, nodes,
            )  # fmt: skip
        for k in range(n):
            if labels[s] != UNRESOLVED:
                nodes[k, 2] += log_prior_given_brightness(
                    labels[s], nodes[k, 0], nodes[k, 1], prior
                )
            nodes[k, 2] += log_weight(labels[s], nodes[k, 0], prior)
        weights[:n] = np.exp(nodes[:n, 2] - nodes[:n, 2].max())
        places[s] = nodes[_pick(weights[:n], uniforms[s, 1]), :2]


@njit(cache=True, nogil=True, error_model="numpy")
def _pick(weights: Array, uniform: float) -> int:
    total = np.cumsum(weights)
    place: int = np.searchsorted(total, uniform * total[-1])
    return min(place, weights.size - 1)
