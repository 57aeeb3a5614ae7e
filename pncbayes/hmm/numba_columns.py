"""Between emission columns and the matrices of the bins: weighted sums, and their derivatives."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm import small_kernels as small

__all__ = [
    "bin_matrices",
    "columns_pullback",
    "pair_mass",
    "subtract_row_maximum",
    "time_in_states",
    "time_parts",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST = {"contract", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def bin_matrices(columns: Array, stay: Array, pair_weights: Array) -> Array:
    """Matrix of each row from its emission columns.

    Parameters
    ----------
    columns
        Scaled likelihood of each row under each column, shape ``(n_rows, n_columns)``: the pure
        states first, then the nodes of each pair.
    stay, pair_weights
        As `pncbayes.hmm.switching.switch_weights` returns them.

    Returns
    -------
    ndarray
        Shape ``(n_rows, n_states, n_states)``.
    """
    n_rows = columns.shape[0]
    n_states = stay.shape[0]
    n_nodes = pair_weights.shape[2]
    matrices = np.zeros((n_rows, n_states, n_states))
    for row in range(n_rows):
        for i in range(n_states):
            matrices[row, i, i] = stay[i] * columns[row, i]
        pair = 0
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                ij = 0.0
                ji = 0.0
                ii = 0.0
                jj = 0.0
                for m in range(n_nodes):
                    e = columns[row, start + m]
                    ij += pair_weights[pair, 0, m] * e
                    ji += pair_weights[pair, 1, m] * e
                    ii += pair_weights[pair, 2, m] * e
                    jj += pair_weights[pair, 3, m] * e
                matrices[row, i, j] = ij
                matrices[row, j, i] = ji
                matrices[row, i, i] += ii
                matrices[row, j, j] += jj
                pair += 1
                start += n_nodes
    return matrices


@njit(cache=True, nogil=True)
def subtract_row_maximum(columns: Array) -> Array:
    """Subtract from each row its largest entry, in place; return those, shape ``(n_rows,)``."""
    n_rows, n_columns = columns.shape
    largest = np.empty(n_rows)
    for row in range(n_rows):
        top = columns[row, 0]
        for column in range(1, n_columns):
            if columns[row, column] > top:
                top = columns[row, column]
        # counts that no column can give: minus infinity stays what it is
        if top > -np.inf:
            for column in range(n_columns):
                columns[row, column] -= top
        largest[row] = top
    return largest


@njit(cache=True, nogil=True)
def pair_mass(columns: Array, matrix_slope: Array, stay: Array, pair_weights: Array) -> Array:
    """Posterior number of switches within each pair, by row, ``(n_rows, n_pairs)``."""
    n_rows = columns.shape[0]
    n_states = stay.shape[0]
    n_nodes = pair_weights.shape[2]
    mass = np.zeros((n_rows, pair_weights.shape[0]))
    for row in range(n_rows):
        pair = 0
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                ij = matrix_slope[row, i, j]
                ji = matrix_slope[row, j, i]
                ii = matrix_slope[row, i, i]
                jj = matrix_slope[row, j, j]
                for m in range(n_nodes):
                    mass[row, pair] += columns[row, start + m] * (
                        ij * pair_weights[pair, 0, m]
                        + ji * pair_weights[pair, 1, m]
                        + ii * pair_weights[pair, 2, m]
                        + jj * pair_weights[pair, 3, m]
                    )
                pair += 1
                start += n_nodes
    return mass


@njit(cache=True, nogil=True, fastmath=_FAST)
def columns_pullback(
    columns: Array, matrix_slope: Array, stay: Array, pair_weights: Array
) -> tuple[Array, Array, Array]:
    """Carry the derivative of the matrices back to columns and weights.

    Returns
    -------
    log_column_slope : ndarray
        Shape of `columns`: the posterior number of bins of this row that each column explains.
    stay_slope, pair_slope : ndarray
        Derivatives with respect to `stay` and `pair_weights`.
    """
    n_rows = columns.shape[0]
    n_states = stay.shape[0]
    n_nodes = pair_weights.shape[2]
    slope = np.empty_like(columns)
    stay_slope = np.zeros_like(stay)
    pair_slope = np.zeros_like(pair_weights)
    for row in range(n_rows):
        for i in range(n_states):
            share = matrix_slope[row, i, i] * columns[row, i]
            stay_slope[i] += share
            slope[row, i] = share * stay[i]
        pair = 0
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                ij = matrix_slope[row, i, j]
                ji = matrix_slope[row, j, i]
                ii = matrix_slope[row, i, i]
                jj = matrix_slope[row, j, j]
                for m in range(n_nodes):
                    e = columns[row, start + m]
                    pair_slope[pair, 0, m] += ij * e
                    pair_slope[pair, 1, m] += ji * e
                    pair_slope[pair, 2, m] += ii * e
                    pair_slope[pair, 3, m] += jj * e
                    slope[row, start + m] = e * (
                        ij * pair_weights[pair, 0, m]
                        + ji * pair_weights[pair, 1, m]
                        + ii * pair_weights[pair, 2, m]
                        + jj * pair_weights[pair, 3, m]
                    )
                pair += 1
                start += n_nodes
    return slope, stay_slope, pair_slope


@njit(cache=True, nogil=True, fastmath=_FAST)
def time_parts(columns: Array, stay: Array, pair_weights: Array, nodes: Array) -> Array:
    """Parts of the matrices by the state in which the time is spent.

    Parameters
    ----------
    columns, stay, pair_weights
        As for `bin_matrices`.
    nodes
        Shares of the bin spent in the second state of a pair, shape ``(n_nodes,)``.

    Returns
    -------
    ndarray
        Shape ``(n_rows, 3, n_states, n_states)``. For each state k: part 0 ``[k, j]`` of the
        matrix entry (k, j), the time in k; part 1 ``[k, i]`` of (i, k), the time in k; part 2
        ``[k, i]`` of (i, i), the time in k on the way there and back.
    """
    n_rows = columns.shape[0]
    n_states = stay.shape[0]
    n_nodes = nodes.shape[0]
    parts = np.zeros((n_rows, 3, n_states, n_states))
    for row in range(n_rows):
        for k in range(n_states):
            parts[row, 0, k, k] = stay[k] * columns[row, k]
        pair = 0
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
                l0, l1, l2, l3 = 0.0, 0.0, 0.0, 0.0
                for m in range(n_nodes):
                    late = columns[row, start + m] * nodes[m]
                    early = columns[row, start + m] * (1.0 - nodes[m])
                    s0 += early * pair_weights[pair, 0, m]
                    s1 += early * pair_weights[pair, 1, m]
                    s2 += early * pair_weights[pair, 2, m]
                    s3 += early * pair_weights[pair, 3, m]
                    l0 += late * pair_weights[pair, 0, m]
                    l1 += late * pair_weights[pair, 1, m]
                    l2 += late * pair_weights[pair, 2, m]
                    l3 += late * pair_weights[pair, 3, m]
                parts[row, 0, i, j] = s0
                parts[row, 1, i, j] = s1
                parts[row, 0, i, i] += s2
                parts[row, 2, i, j] = s3
                parts[row, 1, j, i] = l0
                parts[row, 0, j, i] = l1
                parts[row, 2, j, i] = l2
                parts[row, 0, j, j] += l3
                pair += 1
                start += n_nodes
    return parts


@njit(cache=True, nogil=True, error_model="numpy")
def time_in_states(alphas: Array, betas: Array, parts: Array, row_of_bin: Index) -> Array:
    """Posterior share of each bin spent in each state, shape ``(n_bins, n_states)``.

    Parameters
    ----------
    alphas, betas
        Forward and backward messages at the bin edges, of any scale.
    parts
        As `time_parts` returns them.
    row_of_bin
        Row of each bin.
    """
    n_bins = row_of_bin.shape[0]
    n_states = alphas.shape[1]
    occupancy = np.zeros((n_bins, n_states))
    room = (alphas, betas, parts, row_of_bin)
    if n_states == 2:
        small.shared_time(*room, (0.0,) * 2, occupancy)
    elif n_states == 3:
        small.shared_time(*room, (0.0,) * 3, occupancy)
    elif n_states == 4:
        small.shared_time(*room, (0.0,) * 4, occupancy)
    elif n_states == 5:
        small.shared_time(*room, (0.0,) * 5, occupancy)
    elif n_states == 6:
        small.shared_time(*room, (0.0,) * 6, occupancy)
    else:
        for t in range(n_bins):
            row = row_of_bin[t]
            norm = 0.0
            for k in range(n_states):
                time = 0.0
                for i in range(n_states):
                    time += alphas[t, k] * betas[t + 1, i] * parts[row, 0, k, i]
                    time += alphas[t, i] * betas[t + 1, k] * parts[row, 1, k, i]
                    time += alphas[t, i] * betas[t + 1, i] * parts[row, 2, k, i]
                occupancy[t, k] = time
                norm += time
            for k in range(n_states):
                occupancy[t, k] /= norm
    return occupancy
