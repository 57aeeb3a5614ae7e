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

__all__ = ["blend_tables", "extra_rate", "quenched_shares"]

Array = NDArray[np.float64]

_MOST_STEPS = 60


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
def blend_tables(tables: Array, shift: float, out: Array) -> None:
    """Table for a shifted response, from those at the shifts -1, 0 and 1, by a parabola."""
    before, middle, after = 0.5 * shift * (shift - 1.0), 1.0 - shift**2, 0.5 * shift * (shift + 1.0)
    for i in range(out.shape[0]):
        for g in range(out.shape[1]):
            value = before * tables[0, i, g] + middle * tables[1, i, g] + after * tables[2, i, g]
            out[i, g] = max(value, 0.0)
