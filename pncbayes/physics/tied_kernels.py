"""Shapes of decays that are tied to a reference decay, compiled.

A table holds the share of each gate in the light of one exponential, by the logarithm of its
lifetime; `pncbayes.physics.tied_decay` makes it. Decays are sums of exponentials with amplitudes
``a_i`` at time zero and rates ``k_i``; a quenched one has the rates ``k_i + x``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "add_afterpulses",
    "blend_tables",
    "delay_by_biexcitons",
    "extra_rate",
    "quenched_shares",
]

Array = NDArray[np.float64]

_MOST_STEPS = 60
# logs of lifetime ratios: below the first, two lifetimes are too alike for the difference of their
# decays, and the second takes its place, to both sides
_ALIKE, _APART = 0.15, 0.3


@njit(cache=True, nogil=True, error_model="numpy")
def extra_rate(amplitudes: Array, rates: Array, lifetime_ratio: float) -> float:
    """Rate x by which all exponentials are faster where the mean lifetime is a share of itself.

    It solves ``sum a_i / (k_i + x) = ratio * sum a_i / k_i``; negative for ratios above 1.
    """
    slowest: float = np.inf
    whole, total = 0.0, 0.0
    for i in range(rates.size):
        if amplitudes[i] > 0.0:
            slowest = min(slowest, rates[i])
        whole += amplitudes[i] / rates[i]
        total += amplitudes[i]
    wanted = lifetime_ratio * whole
    # one exponential of the same mean lifetime is no faster than this, and none slower
    low, high = -slowest * (1.0 - 1e-12), max(total / wanted, 0.0)
    x: float = total / wanted - total / whole
    x = min(max(x, 0.999 * low), high)
    for _ in range(_MOST_STEPS):
        value, slope = -wanted, 0.0
        for i in range(rates.size):
            part = amplitudes[i] / (rates[i] + x)
            value += part
            slope -= part / (rates[i] + x)
        if value > 0.0:
            low = x
        else:
            high = x
        after = x - value / slope
        if not low < after < high:
            after = 0.5 * (low + high)
        if abs(after - x) <= 1e-13 * (abs(x) + slowest):
            return after
        x = after
    return x


@njit(cache=True, nogil=True, error_model="numpy")
def quenched_shares(
    amplitudes: Array,
    rates: Array,
    lifetime_ratio: float,
    table: Array,
    start: float,
    step: float,
    out: Array,
) -> None:
    """Share of each gate in the light of the reference decay, made faster to a lifetime ratio.

    Lifetimes outside the table are taken at its end: shorter ones look like the response.
    """
    x = extra_rate(amplitudes, rates, lifetime_ratio)
    last = table.shape[0] - 1
    whole = 0.0
    for i in range(rates.size):
        whole += amplitudes[i] / (rates[i] + x) if amplitudes[i] > 0.0 else 0.0
    out[:] = 0.0
    for i in range(rates.size):
        if amplitudes[i] <= 0.0:
            continue
        weight = amplitudes[i] / (rates[i] + x) / whole
        place = (-math.log(rates[i] + x) - start) / step
        place = min(max(place, 0.0), float(last))
        low = min(max(int(place) - 1, 0), last - 3)
        u = place - low - 1.0
        # cubic through four points
        first = -weight * u * (u - 1.0) * (u - 2.0) / 6.0
        second = weight * (u + 1.0) * (u - 1.0) * (u - 2.0) / 2.0
        third = -weight * (u + 1.0) * u * (u - 2.0) / 2.0
        fourth = weight * (u + 1.0) * u * (u - 1.0) / 6.0
        for g in range(out.size):
            out[g] += first * table[low, g] + second * table[low + 1, g]
            out[g] += third * table[low + 2, g] + fourth * table[low + 3, g]
    for g in range(out.size):
        out[g] = max(out[g], 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _parabola(place: float) -> tuple[float, float, float]:
    """Weights of the values at -1, 0 and 1."""
    return 0.5 * place * (place - 1.0), 1.0 - place**2, 0.5 * place * (place + 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def blend_tables(tables: Array, shift: float, width: float, out: Array) -> None:
    """Table for a response that is shifted and stretched, from those at the steps -1, 0 and 1.

    Parameters
    ----------
    tables
        By shift, width, lifetime and gate, shape ``(3, 3, n_lifetimes, n_gates)``.
    shift, width
        In steps; between the steps by parabolas.
    out
        Filled, shape ``(n_lifetimes, n_gates)``.
    """
    by_shift, by_width = _parabola(shift), _parabola(width)
    out[:] = 0.0
    for a in range(3):
        for b in range(3):
            weight = by_shift[a] * by_width[b]
            for i in range(out.shape[0]):
                for g in range(out.shape[1]):
                    out[i, g] += weight * tables[a, b, i, g]
    for i in range(out.shape[0]):
        for g in range(out.shape[1]):
            out[i, g] = max(out[i, g], 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def delay_by_biexcitons(
    table: Array, start: float, step: float, log_lifetime: float, share: float, out: Array
) -> None:
    """Where a pulse made two excitons, the light of the last one begins when the first has gone.

    Two decays of lifetimes t and T, one after the other, have the shares
    ``(t h(t) - T h(T)) / (t - T)`` of the gates, if single ones have the shares h.

    Parameters
    ----------
    table, start, step
        Shares of single exponentials, as in `quenched_shares`.
    log_lifetime
        Log of the lifetime of the biexciton in ns.
    share
        Share of the light of single excitons that comes after a biexciton.
    out
        Table of the light of single excitons, of the shape of `table`.
    """
    first = np.empty((3, table.shape[1]))
    for k in range(3):
        rate = np.full(1, math.exp(-log_lifetime - (k - 1) * _APART))
        quenched_shares(np.ones(1), rate, 1.0, table, start, step, first[k])
    for i in range(table.shape[0]):
        own = start + i * step
        alike = abs(own - log_lifetime) < _ALIKE
        out[i] = (1.0 - share) * table[i]
        for k in range(3):
            if (k == 1) == alike:
                continue
            # T / t
            ratio = math.exp(log_lifetime + (k - 1) * _APART - own)
            weight = share * (0.5 if alike else 1.0) / (1.0 - ratio)
            for g in range(table.shape[1]):
                out[i, g] += weight * (table[i, g] - ratio * first[k, g])
        for g in range(table.shape[1]):
            out[i, g] = max(out[i, g], 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def add_afterpulses(shares: Array, uniform: Array, share: float) -> None:
    """Make a share of the light flat in delay: afterpulses come long after their photons."""
    for g in range(shares.size):
        shares[g] = (1.0 - share) * shares[g] + share * uniform[g]
