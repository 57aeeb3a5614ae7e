"""Poisson likelihood and gradient as one compiled call: no NumPy between the steps.

Columns are laid out with the rows of data along the last axis, so that every inner loop runs over
rows and becomes vector instructions, and rows are worked through in blocks that stay in the
processor's cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.numba_emission import IMPOSSIBLE, LOG_ZERO, exponential
from pncbayes.hmm.numba_kernels import forward, forward_backward_grouped
from pncbayes.hmm.runs import join_runs, split_slopes
from pncbayes.hmm.switching import switch_weights, switch_weights_pullback

__all__ = ["gradient", "matrices", "value"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST = {"contract", "reassoc"}
_BLOCK = 256


@njit(cache=True, nogil=True, error_model="numpy")
def _column_means(gate_rate: Array, width_s: float, nodes: Array) -> Array:
    """Expected counts of each column, shape ``(n_columns, n_gates)``."""
    n_states, n_gates = gate_rate.shape
    n_nodes = nodes.shape[0]
    means = np.empty((n_states + n_states * (n_states - 1) // 2 * n_nodes, n_gates))
    column = n_states
    for i in range(n_states):
        for g in range(n_gates):
            means[i, g] = gate_rate[i, g] * width_s
        for j in range(i + 1, n_states):
            for m in range(n_nodes):
                for g in range(n_gates):
                    mixed = (1.0 - nodes[m]) * gate_rate[i, g] + nodes[m] * gate_rate[j, g]
                    means[column, g] = mixed * width_s
                column += 1
    return means


@njit(cache=True, nogil=True, error_model="numpy")
def _log_means(means: Array) -> tuple[Array, Array]:
    """Logarithms of the means, and the mean total of each column."""
    n_columns, n_gates = means.shape
    logs = np.empty((n_columns, n_gates))
    totals = np.zeros(n_columns)
    for c in range(n_columns):
        for g in range(n_gates):
            totals[c] += means[c, g]
            logs[c, g] = math.log(means[c, g]) if means[c, g] > 0.0 else LOG_ZERO
    return logs, totals


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _fill(
    counts: Array,
    constant: Array,
    start: int,
    stop: int,
    logs: Array,
    totals: Array,
    columns: Array,
    largest: Array,
) -> None:
    """Likelihood of the rows from `start` to `stop`, over that of each row's best column.

    Parameters
    ----------
    counts
        Shape ``(n_gates, n_rows)``.
    constant
        Minus the logarithms of the factorials, shape ``(n_rows,)``.
    start, stop
        The block of rows.
    logs, totals
        As `_log_means` returns them.
    columns
        Written, shape ``(n_columns, n_rows in a block)``.
    largest
        Written: logarithm of what was divided out, shape ``(n_rows,)``.
    """
    n_gates, n_rows = counts.shape[0], stop - start
    # a slice of a line is known to be contiguous, unlike the lines of a slice
    constant, largest = constant[start:stop], largest[start:stop]
    whole = n_gates // 4 * 4
    for c in range(logs.shape[0]):
        line = columns[c][:n_rows]
        for row in range(n_rows):
            line[row] = constant[row] - totals[c]
        for g in range(0, whole, 4):
            l0, l1, l2, l3 = logs[c, g], logs[c, g + 1], logs[c, g + 2], logs[c, g + 3]
            y0, y1 = counts[g][start:stop], counts[g + 1][start:stop]
            y2, y3 = counts[g + 2][start:stop], counts[g + 3][start:stop]
            for row in range(n_rows):
                line[row] += y0[row] * l0 + y1[row] * l1 + y2[row] * l2 + y3[row] * l3
        for g in range(whole, n_gates):
            l0, y0 = logs[c, g], counts[g][start:stop]
            for row in range(n_rows):
                line[row] += y0[row] * l0
        if c == 0:
            for row in range(n_rows):
                largest[row] = line[row]
        else:
            for row in range(n_rows):
                largest[row] = max(largest[row], line[row])
    room = np.empty(n_rows)
    for c in range(logs.shape[0]):
        line = columns[c][:n_rows]
        for row in range(n_rows):
            line[row] -= largest[row]
        exponential(line, room)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _weigh(columns: Array, stay: Array, pair_weights: Array, room: Array, matrices: Array) -> None:
    """Matrices of a block of rows from its columns; `room` has the shape (entry, row)."""
    n_rows = matrices.shape[0]
    n_states = stay.shape[0]
    n_nodes = pair_weights.shape[2]
    for i in range(n_states):
        line, pure = room[i * n_states + i], columns[i]
        for row in range(n_rows):
            line[row] = stay[i] * pure[row]
    pair = 0
    start = n_states
    for i in range(n_states):
        for j in range(i + 1, n_states):
            ij, ji = room[i * n_states + j], room[j * n_states + i]
            ii, jj = room[i * n_states + i], room[j * n_states + j]
            for row in range(n_rows):
                ij[row] = 0.0
                ji[row] = 0.0
            for m in range(n_nodes):
                e = columns[start + m]
                w0, w1 = pair_weights[pair, 0, m], pair_weights[pair, 1, m]
                w2, w3 = pair_weights[pair, 2, m], pair_weights[pair, 3, m]
                for row in range(n_rows):
                    ij[row] += w0 * e[row]
                    ji[row] += w1 * e[row]
                    ii[row] += w2 * e[row]
                    jj[row] += w3 * e[row]
            pair += 1
            start += n_nodes
    for row in range(n_rows):
        for i in range(n_states):
            for j in range(n_states):
                matrices[row, i, j] = room[i * n_states + j, row]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _pull(
    columns: Array,
    matrix_slope: Array,
    stay: Array,
    pair_weights: Array,
    room: Array,
    stay_slope: Array,
    pair_slope: Array,
) -> None:
    """Turn columns into the derivatives by their logarithms, in place; add to the others."""
    n_rows = matrix_slope.shape[0]
    n_states = stay.shape[0]
    n_nodes = pair_weights.shape[2]
    for row in range(n_rows):
        for i in range(n_states):
            for j in range(n_states):
                room[i * n_states + j, row] = matrix_slope[row, i, j]
    for i in range(n_states):
        pure, slope = columns[i], room[i * n_states + i]
        total = 0.0
        for row in range(n_rows):
            share = pure[row] * slope[row]
            total += share
            pure[row] = share * stay[i]
        stay_slope[i] += total
    pair = 0
    start = n_states
    for i in range(n_states):
        for j in range(i + 1, n_states):
            ij, ji = room[i * n_states + j], room[j * n_states + i]
            ii, jj = room[i * n_states + i], room[j * n_states + j]
            for m in range(n_nodes):
                e = columns[start + m]
                w0, w1 = pair_weights[pair, 0, m], pair_weights[pair, 1, m]
                w2, w3 = pair_weights[pair, 2, m], pair_weights[pair, 3, m]
                s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
                for row in range(n_rows):
                    each = e[row]
                    s0 += ij[row] * each
                    s1 += ji[row] * each
                    s2 += ii[row] * each
                    s3 += jj[row] * each
                    e[row] = each * (w0 * ij[row] + w1 * ji[row] + w2 * ii[row] + w3 * jj[row])
                pair_slope[pair, 0, m] += s0
                pair_slope[pair, 1, m] += s1
                pair_slope[pair, 2, m] += s2
                pair_slope[pair, 3, m] += s3
            pair += 1
            start += n_nodes


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _collect(
    counts: Array, start: int, stop: int, slope: Array, expected: Array, mass: Array
) -> None:
    """Add up the counts, ``(n_columns, n_gates)``, and the bins that each column explains."""
    n_gates, n_rows = counts.shape[0], stop - start
    whole = n_gates // 4 * 4
    for c in range(slope.shape[0]):
        line = slope[c][:n_rows]
        total = 0.0
        for row in range(n_rows):
            total += line[row]
        mass[c] += total
        for g in range(0, whole, 4):
            y0, y1 = counts[g][start:stop], counts[g + 1][start:stop]
            y2, y3 = counts[g + 2][start:stop], counts[g + 3][start:stop]
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for row in range(n_rows):
                s0 += line[row] * y0[row]
                s1 += line[row] * y1[row]
                s2 += line[row] * y2[row]
                s3 += line[row] * y3[row]
            expected[c, g] += s0
            expected[c, g + 1] += s1
            expected[c, g + 2] += s2
            expected[c, g + 3] += s3
        for g in range(whole, n_gates):
            total = 0.0
            y0 = counts[g][start:stop]
            for row in range(n_rows):
                total += line[row] * y0[row]
            expected[c, g] += total


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(largest: Array, steps: Index) -> float:
    total = 0.0
    for t in range(steps.shape[0]):
        total += largest[steps[t]]
    return total if total > IMPOSSIBLE else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def _blocks(
    counts: Array,
    constant: Array,
    logs: Array,
    totals: Array,
    stay: Array,
    pair_weights: Array,
) -> tuple[Array, Array, Array, Array]:
    """Matrices and scales of all rows; the columns of the last block, and room for another."""
    n_rows = counts.shape[1]
    n_states = stay.shape[0]
    size = min(_BLOCK, n_rows)
    columns = np.empty((logs.shape[0], size))
    room = np.empty((n_states * n_states, size))
    largest = np.empty(n_rows)
    matrices = np.empty((n_rows, n_states, n_states))
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        _fill(counts, constant, start, stop, logs, totals, columns, largest)
        _weigh(columns, stay, pair_weights, room, matrices[start:stop])
    return matrices, largest, columns, room


@njit(cache=True, nogil=True, error_model="numpy")
def matrices(
    counts: Array,
    constant: Array,
    gate_rate: Array,
    width_s: float,
    nodes: Array,
    stay: Array,
    pair_weights: Array,
) -> tuple[Array, Array]:
    """Matrix of each row over its best column, and the logarithm of the latter.

    Parameters as in `value`. Returns arrays of shapes ``(n_rows, n_states, n_states)`` and
    ``(n_rows,)``.
    """
    logs, totals = _log_means(_column_means(gate_rate, width_s, nodes))
    found, largest, _, _ = _blocks(counts, constant, logs, totals, stay, pair_weights)
    return found, largest


@njit(cache=True, nogil=True, error_model="numpy")
def value(
    counts: Array,
    constant: Array,
    steps: Index,
    parts: Index,
    gate_rate: Array,
    width_s: float,
    nodes: Array,
    stay: Array,
    pair_weights: Array,
) -> float:
    """Log-likelihood, with all constants.

    Parameters
    ----------
    counts
        Distinct rows of data, shape ``(n_gates, n_rows)``.
    constant
        Minus the logarithms of the factorials of each row, shape ``(n_rows,)``.
    steps, parts
        The row of each bin, or runs of bins, as `pncbayes.hmm.runs.find_runs` returns them.
    gate_rate
        Counts per s in each gate, shape ``(n_states, n_gates)``.
    width_s
        Bin width in s.
    nodes
        Shares of the bin spent in the second state of a pair, shape ``(n_nodes,)``.
    stay, pair_weights
        As `pncbayes.hmm.switching.switch_weights` returns them.
    """
    n_states = gate_rate.shape[0]
    of_rows, largest = matrices(counts, constant, gate_rate, width_s, nodes, stay, pair_weights)
    joined, logs, _ = join_runs(of_rows, largest, parts)
    scale = _scale(logs, steps)
    if scale == -np.inf:
        return scale
    initial = np.full(n_states, 1.0 / n_states)
    return scale + forward(joined, steps, initial)


@njit(cache=True, nogil=True, error_model="numpy")
def gradient(
    counts: Array,
    constant: Array,
    steps: Index,
    parts: Index,
    starts: Index,
    places: Index,
    gate_rate: Array,
    width_s: float,
    rates: Array,
    nodes: Array,
    node_weights: Array,
) -> tuple[float, Array, Array, Array]:
    """Log-likelihood and its derivatives; parameters as in `value`, and `group_bins` of the steps.

    Returns
    -------
    value : float
    gate_rate_slope : ndarray
        Shape ``(n_states, n_gates)``.
    transition_rate_slope : ndarray
        Shape ``(n_states, n_states)``.
    occupied : ndarray
        Expected number of bins spent in each state, shape ``(n_states,)``.
    """
    n_gates, n_rows = counts.shape
    n_states = gate_rate.shape[0]
    n_nodes = nodes.shape[0]
    stay, pair_weights = switch_weights(rates, width_s, nodes, node_weights)
    means = _column_means(gate_rate, width_s, nodes)
    logs, totals = _log_means(means)
    of_rows, largest, columns, room = _blocks(counts, constant, logs, totals, stay, pair_weights)
    size = columns.shape[1]
    joined, scales, over = join_runs(of_rows, largest, parts)
    scale = _scale(scales, steps)
    found, slope, _ = forward_backward_grouped(
        joined, steps, starts, places, np.full(n_states, 1.0 / n_states)
    )
    gate_slope = np.zeros((n_states, n_gates))
    occupied = np.zeros(n_states)
    if not math.isfinite(scale + found):
        return -np.inf, gate_slope, np.zeros((n_states, n_states)), occupied
    matrix_slope = split_slopes(joined, over, parts, slope)
    expected = np.zeros((logs.shape[0], n_gates))
    mass = np.zeros(logs.shape[0])
    stay_slope = np.zeros(n_states)
    pair_slope = np.zeros_like(pair_weights)
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        if n_rows > size:
            _fill(counts, constant, start, stop, logs, totals, columns, largest)
        _pull(columns, matrix_slope[start:stop], stay, pair_weights, room, stay_slope, pair_slope)
        _collect(counts, start, stop, columns, expected, mass)
    column = n_states
    for i in range(n_states):
        occupied[i] += mass[i]
        for g in range(n_gates):
            gate_slope[i, g] += _by_mean(expected[i, g], means[i, g], mass[i]) * width_s
        for j in range(i + 1, n_states):
            for m in range(n_nodes):
                w = nodes[m]
                occupied[i] += mass[column] * (1.0 - w)
                occupied[j] += mass[column] * w
                for g in range(n_gates):
                    each = _by_mean(expected[column, g], means[column, g], mass[column]) * width_s
                    gate_slope[i, g] += (1.0 - w) * each
                    gate_slope[j, g] += w * each
                column += 1
    rates_slope = switch_weights_pullback(
        rates, width_s, nodes, node_weights, stay_slope, pair_slope
    )
    return scale + found, gate_slope, rates_slope, occupied


@njit(cache=True, nogil=True, error_model="numpy")
def _by_mean(expected: Any, mean: Any, mass: Any) -> Any:
    # a mean of zero explains no counts, or the value would not be finite
    return (expected / mean if mean > 0.0 else 0.0) - mass
