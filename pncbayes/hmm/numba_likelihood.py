"""The binned likelihood and its gradient as one compiled function, for samplers in compiled code.

`pncbayes.hmm.likelihood.BinnedLikelihood` is the same likelihood with NumPy around the kernels.
Here everything is compiled, so that PyTensor can put it inside a numba graph, and rows are worked
through in blocks that stay in the processor's cache: the emission columns of a long trace never
stand in memory at once.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any

import llvmlite.binding
import numpy as np
from numba import carray, cfunc, njit, types
from numpy.typing import NDArray

from pncbayes.hmm import numba_kernels as kernels
from pncbayes.hmm.switching import switch_weights, switch_weights_pullback

__all__ = ["FAMILIES", "SYMBOL", "VERSION", "external_function", "log_likelihood"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FAMILIES = {"poisson": 0, "negative_binomial": 1, "camera": 2}
# Part of the key under which PyTensor caches compiled graphs: raise it when the arguments change.
VERSION = 2
SYMBOL = f"pncbayes_binned_log_likelihood_{VERSION}"

# As `pncbayes.hmm.likelihood.FASTEST_PER_BIN`: beyond it the chain is at rest within a bin.
_FASTEST_PER_BIN = 100.0
_BLOCK = 256
_LOWEST_EXPONENT = -700.0
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
# Adding it to a double leaves the nearest whole number in the lowest bits.
_ROUNDER = 6755399441055744.0
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(14))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _exponential(values: Array, power: Array) -> None:
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
def _column_shares(n_states: int, nodes: Array) -> Array:
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
def _emission_tables(
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
            shape = mean / excess[c]
            offset[c] = -shape * math.log1p(excess[c])
            each = math.log(excess[c]) - math.log1p(excess[c]) - math.log(mean)
            # gamma(n + shape) / gamma(shape) as a product: no special function is needed
            for n in range(most):
                table[n + 1, c] = table[n, c] + math.log(shape + n) + each
        else:
            offset[c] = -mean
        for g in range(n_gates):
            weights[g, c] = math.log(means[c, g])
    return weights, offset, table


@njit(cache=True, nogil=True, error_model="numpy")
def _occupied(counts: Array, gates: Index, values: Array) -> tuple[int, float]:
    """Write the gates of a bin that are not empty, and their counts; return how many, and the sum.

    Most gates of most bins are empty. Without a branch, since which ones cannot be foreseen;
    filled up with zeros to a multiple of four, which is what `_block_columns` takes at a time.
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
def _block_columns(
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
        As `_emission_tables` returns them.
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
        _exponential(line, room)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _collect(
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
def _emission_slopes(
    family: int,
    means: Array,
    excess: Array,
    camera: Array,
    expected: Array,
    mass: Array,
    by_total: Array,
) -> tuple[Array, Array]:
    """Derivatives with respect to the columns' means and excess, from what `_collect` added up."""
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
            mean = means[c].sum()
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
            means_slope[c, g] = expected[g, c] / means[c, g] + common
    return means_slope, excess_slope


@njit(cache=True, nogil=True, error_model="numpy")
def _fastest_exit(rates: Array) -> float:
    fastest = 0.0
    for i in range(rates.shape[0]):
        leave = 0.0
        for j in range(rates.shape[0]):
            leave += rates[i, j] if j != i else 0.0
        # not a number must not pass for slow
        if not leave <= fastest:
            fastest = leave
    return fastest


def _evaluate(
    family: int,
    with_slopes: int,
    sizes_at: Any,
    gate_rate_at: Any,
    rates_at: Any,
    excess_at: Any,
    counts_at: Any,
    row_of_bin_at: Any,
    width_s: float,
    nodes_at: Any,
    node_weights_at: Any,
    camera_at: Any,
    gate_slope_at: Any,
    rates_slope_at: Any,
    excess_slope_at: Any,
) -> float:
    """`log_likelihood` on the addresses of arrays; adds to slopes that come filled with zeros."""
    sizes = carray(sizes_at, 5)
    n_states, n_gates, n_rows, n_bins, n_nodes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    gate_rate = carray(gate_rate_at, (n_states, n_gates))
    rates = carray(rates_at, (n_states, n_states))
    excess = carray(excess_at, n_states)
    counts = carray(counts_at, (n_rows, n_gates))
    row_of_bin = carray(row_of_bin_at, n_bins)
    nodes, node_weights = carray(nodes_at, n_nodes), carray(node_weights_at, n_nodes)
    camera = carray(camera_at, 4)
    gate_slope = carray(gate_slope_at, (n_states, n_gates))
    rates_slope = carray(rates_slope_at, (n_states, n_states))
    excess_slope = carray(excess_slope_at, n_states)
    if not _fastest_exit(rates) * width_s <= _FASTEST_PER_BIN:
        return -np.inf
    stay, pair_weights = switch_weights(rates, width_s, nodes, node_weights)
    shares = _column_shares(n_states, nodes)
    n_columns = shares.shape[0]
    means, column_excess = np.zeros((n_columns, n_gates)), np.zeros(n_columns)
    for c in range(n_columns):
        for k in range(n_states):
            column_excess[c] += shares[c, k] * excess[k]
            for g in range(n_gates):
                means[c, g] += shares[c, k] * gate_rate[k, g] * width_s
    most = 0
    if family == 1:
        for row in range(n_rows):
            most = max(most, int(counts[row].sum()))
    tables = _emission_tables(family, means, column_excess, most, camera)
    columns = np.empty((min(_BLOCK, n_rows), n_columns))
    largest = np.empty(n_rows)
    matrices = np.empty((n_rows, n_states, n_states))
    for start in range(0, n_rows, _BLOCK):
        stop = min(start + _BLOCK, n_rows)
        part = columns[: stop - start]
        _block_columns(family, counts[start:stop], tables, part, largest[start:stop])
        matrices[start:stop] = kernels.bin_matrices(part, stay, pair_weights)
    scale = 0.0
    for t in range(n_bins):
        scale += largest[row_of_bin[t]]
    initial = np.full(n_states, 1.0 / n_states)
    if with_slopes == 0:
        return float(scale + kernels.forward(matrices, row_of_bin, initial))
    value, matrix_slope, _ = kernels.forward_backward(matrices, row_of_bin, initial)
    expected, mass = np.zeros((n_gates, n_columns)), np.zeros(n_columns)
    by_total = np.zeros((most + 1, n_columns))
    stay_slope, pair_slope = np.zeros_like(stay), np.zeros_like(pair_weights)
    for start in range(0, n_rows, _BLOCK):
        stop = min(start + _BLOCK, n_rows)
        part = columns[: stop - start]
        if n_rows > _BLOCK:
            _block_columns(family, counts[start:stop], tables, part, largest[start:stop])
        slope, stay_part, pair_part = kernels.columns_pullback(
            part, matrix_slope[start:stop], stay, pair_weights
        )
        stay_slope += stay_part
        pair_slope += pair_part
        _collect(family, counts[start:stop], slope, tables, expected, mass, by_total)
    means_slope, column_excess_slope = _emission_slopes(
        family, means, column_excess, camera, expected, mass, by_total
    )
    for c in range(n_columns):
        for k in range(n_states):
            excess_slope[k] += shares[c, k] * column_excess_slope[c]
            for g in range(n_gates):
                gate_slope[k, g] += shares[c, k] * means_slope[c, g] * width_s
    rates_slope[:] = switch_weights_pullback(
        rates, width_s, nodes, node_weights, stay_slope, pair_slope
    )
    return float(scale + value)



@cache
def _entry() -> Any:
    """Compile `_evaluate` once for the machine, and give it a name that compiled code can call.

    Behind a C function the kernels are compiled once: numba would otherwise optimise them anew
    in every graph that holds them, for half a minute each.
    """
    number, address = types.float64, types.CPointer(types.float64)
    whole, whole_address = types.int64, types.CPointer(types.int64)
    signature = number(
        whole, whole, whole_address, *(address,) * 4, whole_address, number, *(address,) * 6
    )
    entry = cfunc(signature, cache=True, error_model="numpy")(_evaluate)
    llvmlite.binding.add_symbol(SYMBOL, entry.address)
    return entry, types.ExternalFunction(SYMBOL, signature)


def external_function() -> Any:
    """Compiled likelihood as a function that compiled code can call by its name."""
    return _entry()[1]


def log_likelihood(
    family: str,
    gate_rate_per_s: Array,
    transition_rate_per_s: Array,
    excess: Array,
    counts: Array,
    row_of_bin: Index,
    width_s: float,
    nodes: Array,
    node_weights: Array,
    camera: Array,
    *,
    with_slopes: bool = True,
) -> tuple[float, Array, Array, Array]:
    """Log-likelihood and its derivatives, without its constant: the factorials of the counts.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    gate_rate_per_s
        Counts per s in each gate, background included, shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``; the diagonal is ignored.
    excess
        Excess variance ratio of each state, shape ``(n_states,)``; ignored by other families.
    counts
        Distinct rows of data, shape ``(n_rows, n_gates)``.
    row_of_bin
        Row of each bin, shape ``(n_bins,)``.
    width_s
        Bin width in s.
    nodes, node_weights
        As `pncbayes.hmm.switching.pair_nodes` returns them.
    camera
        Gain, offset, read noise and excess factor; ignored by other families.
    with_slopes
        Work out the derivatives; they are 0 otherwise.

    Returns
    -------
    value : float
        Minus infinity where a state is left more than 100 times per bin.
    gate_rate_slope : ndarray
        Shape ``(n_states, n_gates)``.
    transition_rate_slope : ndarray
        Shape ``(n_states, n_states)``, 0 on the diagonal.
    excess_slope : ndarray
        Shape ``(n_states,)``, 0 without excess noise.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a bin has no row.
    """
    real = (gate_rate_per_s, transition_rate_per_s, excess, counts, nodes, node_weights, camera)
    gate_rate, rates, excess, counts, nodes, node_weights, camera = (
        np.ascontiguousarray(array, dtype=np.float64) for array in real
    )
    rows = np.ascontiguousarray(row_of_bin, dtype=np.int64)
    n_states, n_gates = gate_rate.shape
    wanted = (n_states, n_states), (n_states,), (counts.shape[0], n_gates), nodes.shape, (4,)
    for array, shape in zip((rates, excess, counts, node_weights, camera), wanted, strict=True):
        if array.shape != shape:
            raise ValueError(f"the likelihood wants an array of shape {shape}, got {array.shape}")
    if rows.size and not 0 <= rows.min() <= rows.max() < counts.shape[0]:
        raise ValueError(f"`row_of_bin` must be from 0 to {counts.shape[0] - 1}")
    sizes = np.array([n_states, n_gates, counts.shape[0], rows.size, nodes.size])
    slopes = np.zeros_like(gate_rate), np.zeros_like(rates), np.zeros_like(excess)

    def at(array: NDArray[Any]) -> Any:
        kind = ctypes.c_int64 if array.dtype == np.int64 else ctypes.c_double
        return array.ctypes.data_as(ctypes.POINTER(kind))

    value = _entry()[0].ctypes(
        FAMILIES[family],
        int(with_slopes),
        *(at(array) for array in (sizes, gate_rate, rates, excess, counts, rows)),
        width_s,
        *(at(array) for array in (nodes, node_weights, camera, *slopes)),
    )
    return float(value), *slopes
