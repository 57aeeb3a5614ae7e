"""Emission columns inside compiled code: the families of `pncbayes.hmm.emission`, block by block.

Most gates of most bins are empty, and the exponential is the dearest step: the loops here are
written for both.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "FAMILIES",
    "IMPOSSIBLE",
    "LOG_ZERO",
    "block_columns",
    "collect",
    "column_shares",
    "emission_slopes",
    "emission_tables",
    "exponential",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FAMILIES = {"poisson": 0, "negative_binomial": 1, "camera": 2}

# Stands for the logarithm of zero: times no counts it is nothing, and it has no NaN.
LOG_ZERO = -1e300
# Below this the counts of a row are impossible under all columns.
IMPOSSIBLE = -1e290
# Least expected counts of a column with excess noise, whose gamma functions need more than none.
_DARK = 1e-150
_LOWEST_EXPONENT = -700.0
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
# Adding it to a double leaves the nearest whole number in the lowest bits.
_ROUNDER = 6755399441055744.0
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(14))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def exponential(values: Array, power: Array) -> None:
    """Replace values of at most 0 by their exponentials, in place; `power` is room for a copy.

    A polynomial on half an octave, and the power of two put into the exponent's bits: loops
    that the compiler turns into vector instructions, to 2e-16 relative.
    """
    bits = power.view(np.int64)
    for k in range(values.shape[0]):
        x = values[k]
        x = _LOWEST_EXPONENT if x < _LOWEST_EXPONENT else x
        rounded = x * _LOG2_E + _ROUNDER
        power[k] = rounded
        whole = rounded - _ROUNDER
        r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
        p = _TAYLOR[13]
        for n in range(12, -1, -1):
            p = p * r + _TAYLOR[n]
        values[k] = p
    for k in range(values.shape[0]):
        bits[k] = (bits[k] + 1023) << 52
    for k in range(values.shape[0]):
        values[k] *= power[k]


@njit(cache=True, nogil=True, error_model="numpy")
def column_shares(n_states: int, nodes: Array) -> Array:
    """Share of the bin that each column spends in each state, shape ``(n_columns, n_states)``."""
    n_nodes = nodes.shape[0]
    shares = np.zeros((n_states + n_states * (n_states - 1) // 2 * n_nodes, n_states))
    column = n_states
    for i in range(n_states):
        shares[i, i] = 1.0
        for j in range(i + 1, n_states):
            for m in range(n_nodes):
                shares[column, i] = 1.0 - nodes[m]
                shares[column, j] = nodes[m]
                column += 1
    return shares


@njit(cache=True, nogil=True, error_model="numpy")
def mixed_excess(shares: Array, gate_rate: Array, excess: Array) -> Array:
    """As `pncbayes.hmm.emission.mixed_excess`, of rates instead of means."""
    n_columns, n_states = shares.shape
    mixed = np.empty(n_columns)
    for c in range(n_columns):
        time, light, total = 0.0, 0.0, 0.0
        for k in range(n_states):
            brightness = shares[c, k] * gate_rate[k].sum()
            time += shares[c, k] * excess[k]
            light += brightness * excess[k]
            total += brightness
        mixed[c] = light / total if total > 0.0 else time
    return mixed


@njit(cache=True, nogil=True, error_model="numpy")
def mixed_excess_pullback(
    shares: Array,
    gate_rate: Array,
    excess: Array,
    slope: Array,
    gate_slope: Array,
    excess_slope: Array,
) -> None:
    """Add the derivatives of `mixed_excess`, in place."""
    n_columns, n_states = shares.shape
    mixed = mixed_excess(shares, gate_rate, excess)
    for c in range(n_columns):
        total = 0.0
        for k in range(n_states):
            total += shares[c, k] * gate_rate[k].sum()
        for k in range(n_states):
            if total > 0.0:
                part = slope[c] * shares[c, k] / total
                excess_slope[k] += part * gate_rate[k].sum()
                gate_slope[k] += part * (excess[k] - mixed[c])
            else:
                excess_slope[k] += slope[c] * shares[c, k]


@njit(cache=True, nogil=True, error_model="numpy")
def emission_tables(
    family: int, means: Array, excess: Array, most: int, camera: Array
) -> tuple[Array, Array, Array]:
    """What the log-likelihood of a row under each column is made of.

    Returns
    -------
    weights : ndarray
        Added once per count, shape ``(n_gates, n_columns)``.
    offset : ndarray
        Added once, shape ``(n_columns,)``; for a camera the expected counts.
    table : ndarray
        With excess noise, added for each total, shape ``(most + 1, n_columns)``; for a camera
        the variance, shape ``(1, n_columns)``.
    """
    n_columns, n_gates = means.shape
    weights = np.empty((n_gates, n_columns))
    offset = np.empty(n_columns)
    table = np.zeros((most + 1 if family == 1 else 1, n_columns))
    for c in range(n_columns):
        mean = means[c].sum()
        if family == 2:
            gain, read_noise, factor = camera[0], camera[2], camera[3]
            offset[c] = camera[1] + gain * mean
            table[0, c] = (factor * gain) ** 2 * mean + read_noise**2
            continue
        shape = 1.0
        if family == 1:
            mean = max(mean, _DARK)
            shape = mean / excess[c]
            offset[c] = -shape * math.log1p(excess[c])
            each = math.log(excess[c]) - math.log1p(excess[c]) - math.log(mean)
            # gamma(n + shape) / gamma(shape) as a product: no special function is needed
            for n in range(most):
                table[n + 1, c] = table[n, c] + math.log(shape + n) + each
        else:
            offset[c] = -mean
        for g in range(n_gates):
            weights[g, c] = math.log(means[c, g]) if means[c, g] > 0.0 else LOG_ZERO
    return weights, offset, table


@njit(cache=True, nogil=True, error_model="numpy")
def _occupied(counts: Array, gates: Index, values: Array) -> tuple[int, float]:
    """Write the gates of a bin that are not empty, and their counts; return how many, and the sum.

    Most gates of most bins are empty. Without a branch, since which ones cannot be foreseen;
    filled up with zeros to a multiple of four, which is what `block_columns` takes at a time.
    """
    n = 0
    total = 0.0
    for g in range(counts.shape[0]):
        gates[n] = g
        values[n] = counts[g]
        total += counts[g]
        n += 1 if counts[g] != 0.0 else 0
    filled = (n + 3) // 4 * 4
    for k in range(n, filled):
        gates[k] = 0
        values[k] = 0.0
    return filled, total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def block_columns(
    family: int,
    counts: Array,
    tables: tuple[Array, Array, Array],
    columns: Array,
    largest: Array,
) -> None:
    """Fill `columns` with the likelihood of rows over that of each row's best column.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    counts
        Rows of data, shape ``(n_rows, n_gates)``.
    tables
        As `emission_tables` returns them.
    columns
        Written, shape ``(n_rows, n_columns)``.
    largest
        Written: logarithm of what was divided out, shape ``(n_rows,)``.
    """
    weights, offset, table = tables
    n_columns = offset.shape[0]
    room = np.empty(n_columns)
    gates = np.empty(counts.shape[1] + 4, np.int64)
    values = np.empty(counts.shape[1] + 4)
    for row in range(counts.shape[0]):
        line = columns[row]
        if family == 2:
            for c in range(n_columns):
                residual = counts[row, 0] - offset[c]
                variance = table[0, c]
                line[c] = -0.5 * residual * residual / variance
                line[c] -= 0.5 * math.log(2.0 * math.pi * variance)
        else:
            n_occupied, total = _occupied(counts[row], gates, values)
            for c in range(n_columns):
                line[c] = offset[c]
            for k in range(0, n_occupied, 4):
                v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
                w0, w1 = weights[gates[k]], weights[gates[k + 1]]
                w2, w3 = weights[gates[k + 2]], weights[gates[k + 3]]
                for c in range(n_columns):
                    line[c] += v0 * w0[c] + v1 * w1[c] + v2 * w2[c] + v3 * w3[c]
            if family == 1:
                extra = table[int(total)]
                for c in range(n_columns):
                    line[c] += extra[c]
        top = line[0]
        for c in range(1, n_columns):
            top = line[c] if line[c] > top else top
        for c in range(n_columns):
            line[c] -= top
        largest[row] = top
        exponential(line, room)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def collect(
    family: int,
    counts: Array,
    slope: Array,
    tables: tuple[Array, Array, Array],
    expected: Array,
    mass: Array,
    by_total: Array,
) -> None:
    """Add up, over rows, what the derivatives of the columns' means are made of, in place.

    `expected`, shape ``(n_gates, n_columns)``, takes the counts that each column explains (for a
    camera, the slope of its mean); `mass`, shape ``(n_columns,)``, the number of bins (for a
    camera, the slope of its variance); `by_total` that number for each total.
    """
    _, offset, table = tables
    n_columns = mass.shape[0]
    gates = np.empty(counts.shape[1] + 4, np.int64)
    values = np.empty(counts.shape[1] + 4)
    for row in range(counts.shape[0]):
        line = slope[row]
        if family == 2:
            for c in range(n_columns):
                residual = (counts[row, 0] - offset[c]) / table[0, c]
                expected[0, c] += line[c] * residual
                mass[c] += line[c] * 0.5 * (residual * residual - 1.0 / table[0, c])
            continue
        n_occupied, total = _occupied(counts[row], gates, values)
        for c in range(n_columns):
            mass[c] += line[c]
        for k in range(n_occupied):
            value = values[k]
            target = expected[gates[k]]
            for c in range(n_columns):
                target[c] += value * line[c]
        if family == 1:
            target = by_total[int(total)]
            for c in range(n_columns):
                target[c] += line[c]


@njit(cache=True, nogil=True, error_model="numpy")
def emission_slopes(
    family: int,
    means: Array,
    excess: Array,
    camera: Array,
    expected: Array,
    mass: Array,
    by_total: Array,
) -> tuple[Array, Array]:
    """Derivatives with respect to the columns' means and excess, from what `collect` added up."""
    n_columns, n_gates = means.shape
    means_slope = np.empty((n_columns, n_gates))
    excess_slope = np.zeros(n_columns)
    for c in range(n_columns):
        if family == 2:
            factor = (camera[3] * camera[0]) ** 2
            means_slope[c, 0] = expected[0, c] * camera[0] + mass[c] * factor
            continue
        common = -mass[c]
        if family == 1:
            mean = max(means[c].sum(), _DARK)
            shape = mean / excess[c]
            counted, shape_slope, digamma = 0.0, 0.0, 0.0
            for n in range(by_total.shape[0]):
                # digamma(n + shape) - digamma(shape)
                shape_slope += by_total[n, c] * digamma
                counted += by_total[n, c] * n
                digamma += 1.0 / (shape + n)
            shape_slope -= mass[c] * math.log1p(excess[c])
            common = shape_slope / excess[c] - counted / mean
            excess_slope[c] = (counted / excess[c] - mass[c] * shape) / (1.0 + excess[c])
            excess_slope[c] -= shape_slope * shape / excess[c]
        for g in range(n_gates):
            # a mean of zero explains no counts
            explained = expected[g, c] / means[c, g] if means[c, g] > 0.0 else 0.0
            means_slope[c, g] = explained + common
    return means_slope, excess_slope
