"""Likelihood of the photons of a state, given what all states share, compiled.

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

from pncbayes.physics.mechanism_kernels import U_HIGH, U_LOW, V_HIGH, V_LOW
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = [
    "COARSE", "MOST_NODES", "N_BRIGHT", "N_COARSE", "Decays", "brightness_nodes",
    "log_likelihood", "log_probability_of_photons", "nodes_of_state", "other_light", "shares_at",
]  # fmt: skip

Array = NDArray[np.float64]

# nodes over all lifetimes, before it is known where the likelihood is
COARSE = 0.15
# beyond the longest lifetime, so that a state near it has nodes on either side
N_COARSE = int((V_HIGH - V_LOW) / COARSE) + 3
_N_LOCAL = 17
_LOCAL_STEP = 0.6
N_BRIGHT = 9
MOST_NODES = N_BRIGHT * max(N_COARSE, _N_LOCAL)
# of a normal density: nodes and weights of Gauss and Hermite
_HERMITE = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
_HERMITE_LOG_WEIGHT = np.log(np.array([1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0]))


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
def log_likelihood(
    photons: Array, n_photons: float, seconds: float, other: Array, signal: float, shares: Array,
    concentration: float, rate: Array,
) -> float:  # fmt: skip
    """Log probability of photons from a signal of some shape and from other light.

    `other` are counts per s and gate, `signal` counts per s with the `shares` of the gates; the
    sum goes to `rate`.
    """
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
def brightness_nodes(
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
    n = 3 if narrow else N_BRIGHT
    start = math.log(low)
    step = (math.log(high) - start) / (N_BRIGHT - 1)
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
def other_light(u: float, decays: Decays, out: Array) -> None:
    """Counts per s and gate of a state that are not of single excitons."""
    pairs = decays.bright * decays.pair_share * math.exp(decays.pair_power * u)
    for g in range(out.size):
        out[g] = decays.flat[g] + pairs * decays.pair_shares[g]


@njit(cache=True, nogil=True, error_model="numpy")
def shares_at(v: float, decays: Decays, out: Array) -> None:
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
    shares_at(v, decays, shares)
    return log_likelihood(
        photons, n_photons, seconds, other, signal, shares, decays.concentration, rate
    )


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
    u, log_weights = np.empty(N_BRIGHT), np.empty(N_BRIGHT)
    n_bright = brightness_nodes(n_photons, seconds, decays, u, log_weights)
    rate, shares = np.empty(photons.size), np.empty(photons.size)
    other, values, near = np.empty(photons.size), np.empty(N_COARSE), np.empty(3)
    n, found = 0, False
    centre, sd, reach = 0.0, 1.0, COARSE
    for i in range(n_bright):
        signal = decays.bright * math.exp(u[i])
        other_light(u[i], decays, other)
        # nodes that are close in brightness share those of the lifetime, or begin from them
        if not found:
            top = 0
            for j in range(N_COARSE):
                values[j] = log_likelihood(
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
                    if values[j] > values[top] - 30.0 and V_LOW + j * COARSE <= V_HIGH:
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
