"""The binned likelihood and its gradient as one compiled function, for samplers in compiled code.

`pncbayes.hmm.likelihood.BinnedLikelihood` is the same likelihood with NumPy around the kernels.
Here everything is compiled, so that PyTensor can put it inside a numba graph, and rows are worked
through in blocks that stay in the processor's cache: the emission columns of a long trace never
stand in memory at once.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numpy.typing import NDArray

from pncbayes.hmm import dense_kernels, numba_columns, runs, small_kernels, switching
from pncbayes.hmm import numba_emission as emission
from pncbayes.hmm import numba_kernels as kernels

__all__ = ["SYMBOL", "VERSION", "external_function", "log_likelihood"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Part of the key under which PyTensor caches compiled graphs: raise it when the arguments change.
VERSION = 5
SYMBOL = f"pncbayes_binned_log_likelihood_{VERSION}"

# As `pncbayes.hmm.likelihood.FASTEST_PER_BIN`: beyond it the chain is at rest within a bin.
_FASTEST_PER_BIN = 100.0
_BLOCK = 256


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


def _stamp() -> int:
    """Digest of the sources whose functions are compiled into `evaluate`, far from 0 and 1."""
    modules = [dense_kernels, emission, kernels, numba_columns, runs, small_kernels, switching]
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return 2 + int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())


def _evaluator(stamp: int) -> Any:
    """Make the function to compile.

    Numba compiles a cached function anew when its own file or what it encloses has changed, but
    not when a function that it calls has: so it encloses a digest of those.
    """

    def evaluate(
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
        """`log_likelihood` on addresses of arrays; adds to slopes that come filled with zeros."""
        sizes = carray(sizes_at, 5)
        n_states, n_gates, n_rows, n_bins, n_nodes = (
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            sizes[4],
        )
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
        # `stamp` is no number of slopes: it is here for numba to see it
        if with_slopes == stamp or not _fastest_exit(rates) * width_s <= _FASTEST_PER_BIN:
            return -np.inf
        stay, pair_weights = switching.switch_weights(rates, width_s, nodes, node_weights)
        if family == 0:
            lines, constant = np.ascontiguousarray(counts.T), np.zeros(n_rows)
            no_runs = np.empty((0, 2), np.int64)
            if with_slopes == 0:
                return float(
                    dense_kernels.value(
                        lines,
                        constant,
                        row_of_bin,
                        no_runs,
                        gate_rate,
                        width_s,
                        nodes,
                        stay,
                        pair_weights,
                    )
                )
            starts, bins = kernels.group_bins(row_of_bin, n_rows)
            value, by_gate_rate, by_rate, _ = dense_kernels.gradient(
                lines, constant, row_of_bin, no_runs, starts, bins, gate_rate, width_s, rates,
                nodes, node_weights,
            )  # fmt: skip
            gate_slope[:] = by_gate_rate
            rates_slope[:] = by_rate
            return float(value)
        shares = emission.column_shares(n_states, nodes)
        n_columns = shares.shape[0]
        means = np.zeros((n_columns, n_gates))
        for c in range(n_columns):
            for k in range(n_states):
                for g in range(n_gates):
                    means[c, g] += shares[c, k] * gate_rate[k, g] * width_s
        column_excess = emission.mixed_excess(shares, gate_rate, excess)
        most = 0
        if family == 1:
            for row in range(n_rows):
                most = max(most, int(counts[row].sum()))
        tables = emission.emission_tables(family, means, column_excess, most, camera)
        columns = np.empty((min(_BLOCK, n_rows), n_columns))
        largest = np.empty(n_rows)
        matrices = np.empty((n_rows, n_states, n_states))
        for start in range(0, n_rows, _BLOCK):
            stop = min(start + _BLOCK, n_rows)
            part = columns[: stop - start]
            emission.block_columns(family, counts[start:stop], tables, part, largest[start:stop])
            matrices[start:stop] = numba_columns.bin_matrices(part, stay, pair_weights)
        scale = 0.0
        for t in range(n_bins):
            scale += largest[row_of_bin[t]]
        if scale < emission.IMPOSSIBLE:
            return -np.inf
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
                emission.block_columns(
                    family, counts[start:stop], tables, part, largest[start:stop]
                )
            slope, stay_part, pair_part = numba_columns.columns_pullback(
                part, matrix_slope[start:stop], stay, pair_weights
            )
            stay_slope += stay_part
            pair_slope += pair_part
            emission.collect(family, counts[start:stop], slope, tables, expected, mass, by_total)
        means_slope, column_excess_slope = emission.emission_slopes(
            family, means, column_excess, camera, expected, mass, by_total
        )
        if family == 1:
            emission.mixed_excess_pullback(
                shares, gate_rate, excess, column_excess_slope, gate_slope, excess_slope
            )
        for c in range(n_columns):
            for k in range(n_states):
                for g in range(n_gates):
                    gate_slope[k, g] += shares[c, k] * means_slope[c, g] * width_s
        rates_slope[:] = switching.switch_weights_pullback(
            rates, width_s, nodes, node_weights, stay_slope, pair_slope
        )
        return float(scale + value)

    return evaluate


@cache
def _entry() -> Any:
    """Compile the likelihood once for the machine, and give it a name that compiled code can call.

    Behind a C function the kernels are compiled once: numba would otherwise optimise them anew
    in every graph that holds them, for half a minute each.
    """
    pointer: Any = types.CPointer
    number, address = types.float64, pointer(types.float64)
    whole, whole_address = types.int64, pointer(types.int64)
    signature = number(
        whole, whole, whole_address, *(address,) * 4, whole_address, number, *(address,) * 6
    )
    entry = cfunc(signature, cache=True, error_model="numpy")(_evaluator(_stamp()))
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
        ``"poisson"``, ``"negative_binomial"`` or ``"camera"``.
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
        emission.FAMILIES[family],
        int(with_slopes),
        *(at(array) for array in (sizes, gate_rate, rates, excess, counts, rows)),
        width_s,
        *(at(array) for array in (nodes, node_weights, camera, *slopes)),
    )
    return float(value), *slopes
