"""Evidence of each mechanism of a state, given what all states share, compiled.

A state is a point in the plane of u, the log of its brightness over that of the reference, and v,
the log of its lifetime over that of the reference. The likelihood is one surface over that plane,
and a mechanism is a density on it (`pncbayes.physics.mechanisms`), so that all mechanisms are
summed out on the same nodes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.physics.mechanism_kernels import (
    BACKGROUND,
    N_LABELS,
    OTHER,
    U_HIGH,
    U_LOW,
    UNRESOLVED,
    V_HIGH,
    V_LOW,
    charging_share,
    log_prior_given_brightness,
    log_weight,
)
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = ["MOST_NODES", "log_probability_of_photons", "nodes_of_state", "state_evidence"]

Array = NDArray[np.float64]

_COARSE = 0.15
_N_COARSE = int((V_HIGH - V_LOW) / _COARSE) + 1
_N_LOCAL = 17
_LOCAL_STEP = 0.6
_N_BRIGHT = 15
# of the nodes over ln g of the trion that an unresolved charging visits
_N_TRION = 20
MOST_NODES = _N_BRIGHT * max(_N_COARSE, 74)
# of a normal density: nodes and weights of Gauss and Hermite
_HERMITE = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
_HERMITE_LOG_WEIGHT = np.log(np.array([1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0]))
_NEVER = -1e300


@njit(cache=True, nogil=True, error_model="numpy")
def _log_rising(a: float, n: float) -> float:
    """Ln Gamma(a + n) - ln Gamma(a)."""
    if a < 10.0:
        return math.lgamma(a + n) - math.lgamma(a)
    b = a + n
    value = (b - 0.5) * math.log(b) - (a - 0.5) * math.log(a) - n
    p, q = 1.0 / b, 1.0 / a
    return value + (p - q) / 12.0 - (p * p * p - q * q * q) / 360.0


@njit(cache=True, nogil=True, error_model="numpy")
def log_probability_of_photons(
    photons: Array, n_photons: float, seconds: float, rate: Array, concentration: float
) -> float:
    """Of the photons of a state, with the scatter of its decay around a shape integrated out.

    Parameters
    ----------
    photons
        Per gate, shape ``(n_gates,)``.
    n_photons
        Their sum.
    seconds
        Time in the state.
    rate
        Expected counts per s and gate.
    concentration
        Of the Dirichlet density of the decay around the shape that `rate` has.
    """
    total = 0.0
    for g in range(rate.size):
        total += rate[g]
    value = n_photons * math.log(total) - total * seconds - _log_rising(concentration, n_photons)
    scale = concentration / total
    for g in range(rate.size):
        if photons[g] > 0.0:
            value += _log_rising(scale * rate[g] + 1e-12, photons[g])
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _value(
    photons: Array, n_photons: float, seconds: float, flat: Array, signal: float, shares: Array,
    concentration: float, rate: Array,
) -> float:  # fmt: skip
    for g in range(rate.size):
        rate[g] = signal * shares[g] + flat[g]
    return log_probability_of_photons(photons, n_photons, seconds, rate, concentration)


@njit(cache=True, nogil=True, error_model="numpy")
def _signal_of_exciton(signal: float, bright: float, share: float, power: float) -> float:
    """Part of the signal that single excitons make; the rest is biexcitons."""
    low, high = 0.0, signal
    z: float = signal / (1.0 + share)
    for _ in range(40):
        ratio = max(z / bright, 1e-12)
        value = z + share * bright * ratio**power - signal
        if value > 0.0:
            high = z
        else:
            low = z
        after: float = z - value / (1.0 + share * power * ratio ** (power - 1.0))
        if not low < after < high:
            after = 0.5 * (low + high)
        if abs(after - z) <= 1e-10 * signal:
            return after
        z = after
    return z


@njit(cache=True, nogil=True, error_model="numpy")
def _brightness_nodes(
    n_photons: float,
    seconds: float,
    flat: float,
    bright: float,
    pair: Array,
    u: Array,
    log_weights: Array,
) -> int:
    """Nodes over u and the logs of their weights; none where the state is out of range.

    The nodes lie evenly in the whole signal, or in its logarithm; u is of single excitons.
    """
    share, power = pair[0], pair[1]
    excess = n_photons / seconds - flat
    sd = math.sqrt(n_photons + 1.0) / seconds
    lowest = bright * math.exp(U_LOW) + share * bright * math.exp(power * U_LOW)
    highest = bright * math.exp(U_HIGH) + share * bright * math.exp(power * U_HIGH)
    narrow = excess > 50.0 * sd and lowest < excess - 2.0 * sd and excess + 2.0 * sd < highest
    low, high = max(excess - 4.5 * sd, lowest), min(excess + 4.5 * sd, highest)
    if not low < high:
        return 0
    n = 3 if narrow else _N_BRIGHT
    start = math.log(low)
    step = (math.log(high) - start) / (_N_BRIGHT - 1)
    for i in range(n):
        if narrow:
            # as good as normal, and narrower than any prior: weight over the normal density
            # that the nodes are meant for
            signal = excess + sd * _HERMITE[i]
            weight = _HERMITE_LOG_WEIGHT[i] + 0.5 * _HERMITE[i] ** 2
            weight += 0.5 * math.log(2.0 * math.pi) + math.log(sd)
        else:
            signal = math.exp(start + i * step)
            weight = math.log(step) + math.log(signal)
        z = max(_signal_of_exciton(signal, bright, share, power), 1e-12 * bright)
        u[i] = math.log(z / bright)
        # du by d signal
        slope = 1.0 + share * power * (z / bright) ** (power - 1.0)
        log_weights[i] = weight - math.log(z * slope)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def nodes_of_state(
    photons: Array,
    seconds: float,
    flat: Array,
    bright: float,
    pair: Array,
    pair_shares: Array,
    concentration: float,
    amplitudes: Array,
    rates: Array,
    table: Array,
    log_start: float,
    log_step: float,
    coarse: Array,
    nodes: Array,
) -> int:
    """Nodes over the plane where the likelihood of a state is.

    Parameters
    ----------
    photons
        Per gate, shape ``(n_gates,)``.
    seconds
        Time in the state.
    flat
        Counts per s and gate that do not depend on the state: background and scatter.
    bright
        Signal of single excitons of the reference in counts per s.
    pair
        Signal of biexcitons over that, in the reference, and the power of the brightness by
        which it grows in other states.
    pair_shares
        Shares of the gates in the light of biexcitons.
    concentration
        Of the decay around its shape.
    amplitudes, rates
        Of the reference decay.
    table, log_start, log_step
        As in `quenched_shares`.
    coarse
        Shares of the gates at the coarse nodes of v, shape ``(n_coarse, n_gates)``.
    nodes
        Filled with u, v and log weight times likelihood, shape ``(MOST_NODES, 3)``.

    Returns
    -------
    int
        Number of nodes.
    """
    n_photons, total_flat = photons.sum(), flat.sum()
    u, log_weights = np.empty(_N_BRIGHT), np.empty(_N_BRIGHT)
    n_bright = _brightness_nodes(n_photons, seconds, total_flat, bright, pair, u, log_weights)
    rate, shares = np.empty(photons.size), np.empty(photons.size)
    other = np.empty(photons.size)
    values = np.empty(_N_COARSE)
    n, found = 0, False
    centre, sd = 0.0, 1.0
    for i in range(n_bright):
        signal = bright * math.exp(u[i])
        other[:] = flat + pair[0] * bright * math.exp(pair[1] * u[i]) * pair_shares
        # nodes that are close in brightness share those of the lifetime
        if not (found and n_bright == 3):
            top = 0
            for j in range(_N_COARSE):
                values[j] = _value(
                    photons, n_photons, seconds, other, signal, coarse[j], concentration, rate
                )
                if values[j] > values[top]:
                    top = j
            sd = 1.0
            if 0 < top < _N_COARSE - 1:
                bend = 2.0 * values[top] - values[top - 1] - values[top + 1]
                sd = _COARSE / math.sqrt(max(bend, 1e-6))
            if sd > 0.25 or not 0 < top < _N_COARSE - 1:
                for j in range(_N_COARSE):
                    if values[j] > values[top] - 30.0:
                        nodes[n, 0], nodes[n, 1] = u[i], V_LOW + j * _COARSE
                        nodes[n, 2] = values[j] + log_weights[i] + math.log(_COARSE)
                        n += 1
                continue
            # closer and closer to the top
            centre, value, reach = V_LOW + top * _COARSE, values[top], _COARSE
            before, after = values[top - 1], values[top + 1]
            for _ in range(12):
                bend = max(2.0 * value - before - after, 1e-9)
                moved = 0.5 * reach * (after - before) / bend
                sd = reach / math.sqrt(bend)
                centre += min(max(moved, -reach), reach)
                if reach <= 1.5 * sd and abs(moved) < 0.3 * sd:
                    break
                reach = max(min(reach, 0.35 * reach + 0.5 * sd), 1e-4)
                quenched_shares(
                    amplitudes, rates, math.exp(centre), table, log_start, log_step, shares
                )
                value = _value(
                    photons, n_photons, seconds, other, signal, shares, concentration, rate
                )
                quenched_shares(
                    amplitudes, rates, math.exp(centre - reach), table, log_start, log_step, shares
                )
                before = _value(
                    photons, n_photons, seconds, other, signal, shares, concentration, rate
                )
                quenched_shares(
                    amplitudes, rates, math.exp(centre + reach), table, log_start, log_step, shares
                )
                after = _value(
                    photons, n_photons, seconds, other, signal, shares, concentration, rate
                )
            found = True
        for j in range(_N_LOCAL):
            v = centre + _LOCAL_STEP * sd * (j - _N_LOCAL // 2)
            if V_LOW <= v <= V_HIGH:
                quenched_shares(amplitudes, rates, math.exp(v), table, log_start, log_step, shares)
                nodes[n, 0], nodes[n, 1] = u[i], v
                value = _value(
                    photons, n_photons, seconds, other, signal, shares, concentration, rate
                )
                nodes[n, 2] = value + log_weights[i] + math.log(_LOCAL_STEP * sd)
                n += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _add(total: float, term: float) -> float:
    """Log of a sum."""
    high, low = max(total, term), min(total, term)
    return high if low < high - 700.0 else high + math.log1p(math.exp(low - high))


@njit(cache=True, nogil=True, error_model="numpy")
def unresolved_nodes(
    photons: Array, seconds: float, flat: Array, bright: float, pair: Array, pair_shares: Array,
    concentration: float, scaling: float, whole: Array, coarse: Array, nodes: Array,
) -> int:  # fmt: skip
    """Nodes over u and v, here that of the trion, where a state is charged part of the time."""
    n_photons = photons.sum()
    u, log_weights = np.empty(_N_BRIGHT), np.empty(_N_BRIGHT)
    n_bright = _brightness_nodes(n_photons, seconds, flat.sum(), bright, pair, u, log_weights)
    rate, shares = np.empty(photons.size), np.empty(photons.size)
    other = np.empty(photons.size)
    n = 0
    for i in range(n_bright):
        first, count = n, 0
        other[:] = flat + pair[0] * bright * math.exp(pair[1] * u[i]) * pair_shares
        for j in range(_N_COARSE):
            v = V_LOW + j * _COARSE
            c = charging_share(u[i], v, scaling)
            if c <= 0.0:
                continue
            trion = c * scaling * math.exp(v)
            for g in range(shares.size):
                shares[g] = (1.0 - c) * whole[g] + trion * coarse[j, g]
            count += 1
            nodes[n, 0], nodes[n, 1] = u[i], v
            nodes[n, 2] = log_weights[i] + _value(
                photons, n_photons, seconds, other, bright, shares, concentration, rate
            )
            n += 1
        for j in range(first, n):
            nodes[j, 2] -= math.log(count)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def state_evidence(
    photons: Array,
    seconds: float,
    flat: Array,
    bright: float,
    pair: Array,
    pair_shares: Array,
    concentration: float,
    amplitudes: Array,
    rates: Array,
    table: Array,
    log_start: float,
    log_step: float,
    whole: Array,
    coarse: Array,
    prior: Array,
    nodes: Array,
    out: Array,
) -> None:
    """Log evidence of each mechanism of a state, its prior weight included, into `out`."""
    out[:] = _NEVER
    n = nodes_of_state(
        photons, seconds, flat, bright, pair, pair_shares, concentration, amplitudes, rates, table,
        log_start, log_step, coarse, nodes,
    )  # fmt: skip
    span = math.log(U_HIGH - U_LOW)
    for k in range(n):
        u, v = nodes[k, 0], nodes[k, 1]
        for label in range(N_LABELS):
            if label not in (UNRESOLVED, BACKGROUND):
                density = log_prior_given_brightness(label, u, v, prior)
                weight = log_weight(label, u, prior)
                out[label] = _add(out[label], nodes[k, 2] + density + weight - span)
    n = unresolved_nodes(
        photons, seconds, flat, bright, pair, pair_shares, concentration, prior[1], whole, coarse,
        nodes,
    )  # fmt: skip
    for k in range(n):
        weight = log_weight(UNRESOLVED, nodes[k, 0], prior)
        out[UNRESOLVED] = _add(out[UNRESOLVED], nodes[k, 2] + weight - span)
    out[BACKGROUND] = log_probability_of_photons(
        photons, photons.sum(), seconds, flat, concentration
    ) + log_weight(BACKGROUND, 0.0, prior)
    out[OTHER] = max(out[OTHER], _NEVER)
