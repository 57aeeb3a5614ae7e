"""Evidence of each mechanism of a state, given what all states share, compiled.

A state is a point in the plane of u, the log of its brightness over that of the reference, and v,
the log of its lifetime over that of the reference. The likelihood is one surface over that plane,
and a mechanism is a density on it (`pncbayes.physics.mechanisms`), so that all mechanisms are
summed out on the same nodes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

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
    log_allowed,
    log_prior_given_brightness,
)
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = [
    "COARSE", "MOST_NODES", "N_COARSE", "Decays", "log_probability_of_photons", "nodes_of_state",
    "state_evidence", "unresolved_nodes",
]  # fmt: skip

Array = NDArray[np.float64]

# nodes over all lifetimes, before it is known where the likelihood is
COARSE = 0.15
N_COARSE = int((V_HIGH - V_LOW) / COARSE) + 1
_N_LOCAL = 17
_LOCAL_STEP = 0.6
# coarse nodes from one lifetime of an unresolved trion to the next, and steps to the best lifetime
# of the neutral part
_TRION_STEP, _MOST_NEWTON = 3, 3
_N_BRIGHT = 9
MOST_NODES = _N_BRIGHT * max(N_COARSE, _N_LOCAL)
# of a normal density: nodes and weights of Gauss and Hermite
_HERMITE = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
_HERMITE_LOG_WEIGHT = np.log(np.array([1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0]))
_NEVER = -1e300


class Decays(NamedTuple):
    """What all states share, as decays.

    Attributes
    ----------
    table, log_start, log_step
        As in `quenched_shares`.
    amplitudes, rates
        Of the reference decay.
    whole
        Shares of the gates in it, shape ``(n_gates,)``.
    coarse
        Shares of the gates at the coarse nodes of v, shape ``(N_COARSE, n_gates)``.
    flat
        Counts per s and gate that do not depend on the state: background and scatter.
    bright
        Signal of single excitons of the reference in counts per s.
    pair_share, pair_power
        Signal of biexcitons over that, in the reference, and the power of the brightness by
        which it grows in other states.
    pair_shares
        Shares of the gates in the light of biexcitons.
    concentration
        Of the decay of a state around its shape.
    """

    table: Array
    log_start: float
    log_step: float
    amplitudes: Array
    rates: Array
    whole: Array
    coarse: Array
    flat: Array
    bright: float
    pair_share: float
    pair_power: float
    pair_shares: Array
    concentration: float


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
    photons: Array, n_photons: float, seconds: float, other: Array, signal: float, shares: Array,
    concentration: float, rate: Array,
) -> float:  # fmt: skip
    for g in range(rate.size):
        rate[g] = signal * shares[g] + other[g]
    return log_probability_of_photons(photons, n_photons, seconds, rate, concentration)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_brightness(signal: float, share: float, power: float) -> float:
    """Log brightness of single excitons that makes a signal, biexcitons included, over `bright`.

    It solves ``exp(u) + share exp(power u) = signal``. The logarithm of the left side is convex
    in u and its slope lies between `power` and 1, so that Newton's steps cannot miss.
    """
    wanted = math.log(signal)
    u: float = wanted - math.log1p(share)
    for _ in range(40):
        single, pair = math.exp(u), share * math.exp(power * u)
        total = single + pair
        step = (math.log(total) - wanted) * total / (single + power * pair)
        u -= step
        if abs(step) <= 1e-11:
            break
    return u


@njit(cache=True, nogil=True, error_model="numpy")
def _brightness_nodes(
    n_photons: float, seconds: float, decays: Decays, u: Array, log_weights: Array
) -> int:
    """Nodes over u and the logs of their weights; none where the state is out of range.

    The nodes lie evenly in the whole signal, or in its logarithm; u is of single excitons.
    """
    bright, share, power = decays.bright, decays.pair_share, decays.pair_power
    excess = n_photons / seconds - decays.flat.sum()
    sd = math.sqrt(n_photons + 1.0) / seconds
    lowest = bright * math.exp(U_LOW) + share * bright * math.exp(power * U_LOW)
    highest = bright * math.exp(U_HIGH) + share * bright * math.exp(power * U_HIGH)
    narrow = excess > 30.0 * sd and lowest < excess - 2.0 * sd and excess + 2.0 * sd < highest
    # some mechanisms end where a state is as bright as the reference
    narrow = narrow and abs(excess - bright * (1.0 + share)) > 4.5 * sd
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
        u[i] = _log_brightness(signal / bright, share, power)
        # du by d signal
        slope = bright * (math.exp(u[i]) + share * power * math.exp(power * u[i]))
        log_weights[i] = weight - math.log(slope)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _other_light(u: float, decays: Decays, out: Array) -> None:
    """Counts per s and gate of a state that are not of single excitons."""
    pairs = decays.bright * decays.pair_share * math.exp(decays.pair_power * u)
    for g in range(out.size):
        out[g] = decays.flat[g] + pairs * decays.pair_shares[g]


@njit(cache=True, nogil=True, error_model="numpy")
def _shares_at(v: float, decays: Decays, out: Array) -> None:
    """Shares of the gates in the reference decay, made faster or slower."""
    quenched_shares(
        decays.amplitudes, decays.rates, math.exp(v), decays.table, decays.log_start,
        decays.log_step, out,
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _value_at(
    v: float, photons: Array, n_photons: float, seconds: float, other: Array, signal: float,
    decays: Decays, shares: Array, rate: Array,
) -> float:  # fmt: skip
    """Log likelihood at a lifetime that is none of the coarse nodes."""
    _shares_at(v, decays, shares)
    return _value(photons, n_photons, seconds, other, signal, shares, decays.concentration, rate)


@njit(cache=True, nogil=True, error_model="numpy")
def nodes_of_state(photons: Array, seconds: float, decays: Decays, nodes: Array) -> int:
    """Nodes over the plane where the likelihood of a state is.

    Parameters
    ----------
    photons
        Per gate, shape ``(n_gates,)``.
    seconds
        Time in the state.
    decays
        What all states share.
    nodes
        Filled with u, v and log weight times likelihood, shape ``(MOST_NODES, 3)``.

    Returns
    -------
    int
        Number of nodes.
    """
    n_photons = photons.sum()
    u, log_weights = np.empty(_N_BRIGHT), np.empty(_N_BRIGHT)
    n_bright = _brightness_nodes(n_photons, seconds, decays, u, log_weights)
    rate, shares = np.empty(photons.size), np.empty(photons.size)
    other, values, near = np.empty(photons.size), np.empty(N_COARSE), np.empty(3)
    n, found = 0, False
    centre, sd, reach = 0.0, 1.0, COARSE
    for i in range(n_bright):
        signal = decays.bright * math.exp(u[i])
        _other_light(u[i], decays, other)
        # nodes that are close in brightness share those of the lifetime, or begin from them
        if not found:
            top = 0
            for j in range(N_COARSE):
                values[j] = _value(
                    photons, n_photons, seconds, other, signal, decays.coarse[j],
                    decays.concentration, rate,
                )  # fmt: skip
                if values[j] > values[top]:
                    top = j
            sd = 1.0
            if 0 < top < N_COARSE - 1:
                bend = 2.0 * values[top] - values[top - 1] - values[top + 1]
                sd = COARSE / math.sqrt(max(bend, 1e-6))
            if sd > 0.25 or not 0 < top < N_COARSE - 1:
                for j in range(N_COARSE):
                    if values[j] > values[top] - 30.0:
                        nodes[n, 0], nodes[n, 1] = u[i], V_LOW + j * COARSE
                        nodes[n, 2] = values[j] + log_weights[i] + math.log(COARSE)
                        n += 1
                continue
            # closer and closer to the top
            centre, reach = V_LOW + top * COARSE, COARSE
            near[:] = values[top - 1 : top + 2]
        elif n_bright > 3:
            reach = max(sd, 1e-4)
            for side in range(3):
                near[side] = _value_at(
                    centre + (side - 1) * reach, photons, n_photons, seconds, other, signal, decays,
                    shares, rate,
                )  # fmt: skip
        if not (found and n_bright == 3):
            for _ in range(12):
                bend = max(2.0 * near[1] - near[0] - near[2], 1e-9)
                moved = 0.5 * reach * (near[2] - near[0]) / bend
                sd = reach / math.sqrt(bend)
                centre += min(max(moved, -reach), reach)
                if reach <= 1.5 * sd and abs(moved) < 0.3 * sd:
                    break
                reach = max(min(reach, 0.35 * reach + 0.5 * sd), 1e-4)
                for side in range(3):
                    near[side] = _value_at(
                        centre + (side - 1) * reach, photons, n_photons, seconds, other, signal,
                        decays, shares, rate,
                    )  # fmt: skip
            found = True
        for j in range(_N_LOCAL):
            v = centre + _LOCAL_STEP * sd * (j - _N_LOCAL // 2)
            if V_LOW <= v <= V_HIGH:
                nodes[n, 0], nodes[n, 1] = u[i], v
                value = _value_at(
                    v, photons, n_photons, seconds, other, signal, decays, shares, rate
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
def _mixed_value(
    share: float, trion: float, neutral: Array, charged: Array, photons: Array, n_photons: float,
    seconds: float, other: Array, decays: Decays, shares: Array, rate: Array,
) -> float:  # fmt: skip
    """Log likelihood of a state that is a trion part of the time."""
    for g in range(shares.size):
        shares[g] = (1.0 - share) * neutral[g] + trion * charged[g]
    return _value(
        photons, n_photons, seconds, other, decays.bright, shares, decays.concentration, rate
    )


@njit(cache=True, nogil=True, error_model="numpy")
def unresolved_nodes(
    photons: Array, seconds: float, decays: Decays, prior: Array, nodes: Array
) -> int:
    """Nodes over u and v, here that of the trion, where a state is charged part of the time.

    The lifetime of its neutral part has the slack of all other mechanisms, integrated out by
    Laplace's approximation around the best one, which hardly depends on the brightness.
    """
    n_photons, slack, scaling = photons.sum(), prior[0], prior[1]
    u, log_weights = np.empty(_N_BRIGHT), np.empty(_N_BRIGHT)
    n_bright = _brightness_nodes(n_photons, seconds, decays, u, log_weights)
    rate, shares = np.empty(photons.size), np.empty(photons.size)
    other, neutral, near = np.empty(photons.size), np.empty(photons.size), np.empty(3)
    allowed = np.zeros(_N_BRIGHT)
    n, centre, sd, best = 0, 0.0, slack, _NEVER
    for j in range(0, N_COARSE, _TRION_STEP):
        v = V_LOW + j * COARSE
        first = -1
        for i in range(n_bright):
            if charging_share(u[i], v, scaling) > 0.0:
                allowed[i] += 1.0
                if first < 0 or abs(i - n_bright // 2) < abs(first - n_bright // 2):
                    first = i
        if first < 0:
            continue
        share = charging_share(u[first], v, scaling)
        trion = share * scaling * math.exp(v)
        _other_light(u[first], decays, other)
        for _ in range(_MOST_NEWTON):
            for side in range(3):
                v_neutral = centre + (side - 1) * sd
                _shares_at(v_neutral, decays, neutral)
                near[side] = -0.5 * (v_neutral / slack) ** 2 + _mixed_value(
                    share, trion, neutral, decays.coarse[j], photons, n_photons, seconds, other,
                    decays, shares, rate,
                )  # fmt: skip
            best = max(best, near[1])
            # the prior alone bends that much
            bend = max(2.0 * near[1] - near[0] - near[2], 0.9 * (sd / slack) ** 2)
            moved = 0.5 * sd * (near[2] - near[0]) / bend
            before = sd
            sd = before / math.sqrt(bend)
            centre += min(max(moved, -2.0 * before), 2.0 * before)
            good = abs(moved) < 0.3 * sd and 0.6 < sd / before < 1.7
            if good or max(near[0], near[1], near[2]) < best - 60.0:
                break
        if max(near[0], near[1], near[2]) < best - 60.0:
            continue
        _shares_at(centre, decays, neutral)
        prior_of_centre = math.log(sd / slack) - 0.5 * (centre / slack) ** 2
        for i in range(n_bright):
            share = charging_share(u[i], v, scaling)
            if share <= 0.0:
                continue
            _other_light(u[i], decays, other)
            nodes[n, 0], nodes[n, 1] = u[i], v
            nodes[n, 2] = log_weights[i] + prior_of_centre + _mixed_value(
                share, share * scaling * math.exp(v), neutral, decays.coarse[j], photons,
                n_photons, seconds, other, decays, shares, rate,
            )  # fmt: skip
            n += 1
    for k in range(n):
        for i in range(n_bright):
            if nodes[k, 0] == u[i]:
                nodes[k, 2] -= math.log(allowed[i])
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def state_evidence(
    photons: Array, seconds: float, decays: Decays, prior: Array, nodes: Array,
    n_nodes: NDArray[np.int64], out: Array,
) -> None:  # fmt: skip
    """Log evidence of each mechanism of a state.

    Parameters
    ----------
    photons, seconds, decays
        As in `nodes_of_state`.
    prior
        Of the mechanisms.
    nodes, n_nodes
        Filled with the nodes of the plane and those of unresolved charging, shape
        ``(2, MOST_NODES, 3)``, and their numbers.
    out
        Filled with the log evidence, shape ``(N_LABELS,)``.
    """
    out[:] = _NEVER
    n = nodes_of_state(photons, seconds, decays, nodes[0])
    span = math.log(U_HIGH - U_LOW)
    allowed = np.zeros(N_LABELS)
    for k in range(n):
        u, v = nodes[0, k, 0], nodes[0, k, 1]
        for label in range(N_LABELS):
            if label not in (UNRESOLVED, BACKGROUND):
                if k == 0 or u != nodes[0, k - 1, 0]:
                    allowed[label] = log_allowed(label, u, prior) - span
                density = log_prior_given_brightness(label, u, v, prior)
                out[label] = _add(out[label], nodes[0, k, 2] + density + allowed[label])
    n_nodes[0] = n
    n = unresolved_nodes(photons, seconds, decays, prior, nodes[1])
    for k in range(n):
        weight = log_allowed(UNRESOLVED, nodes[1, k, 0], prior)
        out[UNRESOLVED] = _add(out[UNRESOLVED], nodes[1, k, 2] + weight - span)
    n_nodes[1] = n
    out[BACKGROUND] = log_probability_of_photons(
        photons, photons.sum(), seconds, decays.flat, decays.concentration
    )
    out[OTHER] = max(out[OTHER], _NEVER)
