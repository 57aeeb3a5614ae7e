"""The parts of the prior that every density needs, compiled: they are asked for very often."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["brightness_prior", "log_new_level", "switching_prior"]

Array = NDArray[np.float64]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@njit(cache=True, nogil=True)
def brightness_prior(
    gate_rate_per_s: Array,
    log_median: float,
    sigma: float,
    repulsion: float,
    log_selberg: float,
) -> tuple[float, Array, Array]:
    """Log prior density of the brightness of all states, and its slopes.

    Parameters
    ----------
    gate_rate_per_s
        Shape ``(n_states, n_gates)``.
    log_median, sigma
        Of the log-normal prior of the brightest.
    repulsion
        Exponent of the distance between two levels; 0 for none.
    log_selberg
        Log of the integral that normalises it.

    Returns
    -------
    value : float
        Log density of the log of the brightness.
    slope : ndarray
        With respect to the log gate rates, shape ``(n_states, n_gates)``.
    share : ndarray
        Share of each gate in its state, same shape.
    """
    n_states, n_gates = gate_rate_per_s.shape
    rate = np.zeros(n_states)
    for k in range(n_states):
        for g in range(n_gates):
            rate[k] += gate_rate_per_s[k, g]
    brightest = 0
    log_product = 0.0
    for k in range(n_states):
        log_product += math.log(rate[k])
        if rate[k] > rate[brightest]:
            brightest = k
    log_top = math.log(rate[brightest])
    z = (log_top - log_median) / sigma
    # log-normal in log: one factor 1/rate less; the uniform ones give 1/brightest each
    value = -0.5 * z * z - math.log(sigma) - _HALF_LOG_TWO_PI - math.log(n_states)
    value += log_product - n_states * log_top
    rate_slope = np.ones(n_states)
    rate_slope[brightest] -= z / sigma + n_states
    if repulsion > 0.0 and n_states > 1:
        least = 1e-12 * rate[brightest]
        for i in range(n_states):
            for j in range(i):
                apart = rate[i] - rate[j]
                distance = max(abs(apart), least)
                value += repulsion * math.log(distance)
                if apart != 0.0:
                    push = repulsion / math.copysign(distance, apart)
                    rate_slope[i] += push * rate[i]
                    rate_slope[j] -= push * rate[j]
        pairs = 0.5 * n_states * (n_states - 1) * repulsion
        value -= pairs * log_top + log_selberg
        rate_slope[brightest] -= pairs
    slope, share = np.empty_like(gate_rate_per_s), np.empty_like(gate_rate_per_s)
    for k in range(n_states):
        for g in range(n_gates):
            share[k, g] = gate_rate_per_s[k, g] / rate[k]
            slope[k, g] = rate_slope[k] * share[k, g]
    return value, slope, share


@njit(cache=True, nogil=True)
def log_new_level(
    old_per_s: Array,
    log_median: float,
    sigma: float,
    repulsion: float,
    log_selberg_old: float,
    log_selberg_new: float,
    log_above: float,
    nodes: Array,
    node_weights: Array,
) -> float:
    """Log of the prior of one level more over that of the old ones, the new one integrated out.

    Parameters
    ----------
    old_per_s
        Brightness of the old levels, shape ``(n_states,)``.
    log_median, sigma, repulsion
        As in `brightness_prior`.
    log_selberg_old, log_selberg_new
        Its `log_selberg` for the old levels, and with the new one.
    log_above
        Log of how far above the brightest old level the new one may be.
    nodes, node_weights
        Quadrature on (0, 1): of the new level as a share of the brightest, and of its log above.
    """
    n_old = old_per_s.shape[0]
    rates = np.empty((n_old + 1, 1))
    rates[:n_old, 0] = old_per_s
    brightest = old_per_s.max()
    before = brightness_prior(rates[:n_old], log_median, sigma, repulsion, log_selberg_old)[0]
    total = 0.0
    for m in range(nodes.shape[0]):
        rates[n_old, 0] = nodes[m] * brightest
        value = brightness_prior(rates, log_median, sigma, repulsion, log_selberg_new)[0]
        total += node_weights[m] / nodes[m] * math.exp(value - before)
        rates[n_old, 0] = math.exp(nodes[m] * log_above) * brightest
        value = brightness_prior(rates, log_median, sigma, repulsion, log_selberg_new)[0]
        total += node_weights[m] * log_above * math.exp(value - before)
    return math.log(total)


@njit(cache=True, nogil=True)
def switching_prior(
    transition_rate_per_s: Array, log_median: float, sigma: float, concentration: float
) -> tuple[float, Array]:
    """Log prior density of the transition rates, and its slopes.

    Parameters
    ----------
    transition_rate_per_s
        Shape ``(n_states, n_states)``; the diagonal is ignored.
    log_median, sigma
        Of the log-normal prior of the exit rates.
    concentration
        Of the Dirichlet prior of the jumps.

    Returns
    -------
    value : float
        Log density of the log rates.
    slope : ndarray
        With respect to the log rates, row by row without the diagonal, shape
        ``(n_states * (n_states - 1),)``.
    """
    n_states = transition_rate_per_s.shape[0]
    targets = n_states - 1
    constant = math.lgamma(concentration * targets) - targets * math.lgamma(concentration)
    value = n_states * (constant - math.log(sigma) - _HALF_LOG_TWO_PI)
    slope = np.empty(n_states * targets)
    at = 0
    for i in range(n_states):
        leaving = 0.0
        for j in range(n_states):
            if j != i:
                leaving += transition_rate_per_s[i, j]
        z = (math.log(leaving) - log_median) / sigma
        value -= 0.5 * z * z
        for j in range(n_states):
            if j != i:
                jump = transition_rate_per_s[i, j] / leaving
                value += concentration * math.log(max(jump, 1e-300))
                slope[at] = concentration - (z / sigma + concentration * targets) * jump
                at += 1
    return value, slope
