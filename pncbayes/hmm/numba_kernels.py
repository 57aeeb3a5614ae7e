"""Compiled passes over the bins: forward, backward, smoothing, most probable path, path draws.

A pass sees only the matrices ``A[row, i, j]`` of the bins (`bin_matrices`), whatever emitted the
counts. `row_of_bin` says which row a bin uses, so that bins with equal data share one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.small_kernels import (
    SMALL,
    forward_2,
    forward_3,
    forward_backward_2,
    forward_backward_3,
)

__all__ = [
    "bin_matrices",
    "columns_pullback",
    "forward",
    "forward_backward",
    "most_probable_path",
    "pair_mass",
    "sample_path",
    "smooth",
    "subtract_row_maximum",
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


@njit(cache=True, nogil=True, error_model="numpy")
def forward(matrices: Array, row_of_bin: Index, initial: Array) -> float:
    """Log-likelihood of the scaled matrices, summed over all hidden paths."""
    n_states = initial.shape[0]
    if n_states == 2:
        return forward_2(matrices, row_of_bin, initial)
    if n_states == 3:
        return forward_3(matrices, row_of_bin, initial)
    alpha = initial.copy()
    fresh = np.empty(n_states)
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        matrix = matrices[row_of_bin[t]]
        norm = 0.0
        for j in range(n_states):
            value = 0.0
            for i in range(n_states):
                value += alpha[i] * matrix[i, j]
            fresh[j] = value
            norm += value
        # dividing by the norm in every bin would cost more than all the rest
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            for j in range(n_states):
                alpha[j] = fresh[j] / norm
        else:
            for j in range(n_states):
                alpha[j] = fresh[j]
    norm = alpha.sum()
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def forward_backward(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array]:
    """Log-likelihood, and its derivatives with respect to the matrices and the initial state.

    Returns
    -------
    log_likelihood : float
    matrix_slope : ndarray
        Shape of `matrices`: the sum over the bins of a row of the forward times the backward
        message, over their common norm.
    initial_slope : ndarray
        Shape ``(n_states,)``.
    """
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    if n_states == 2:
        return forward_backward_2(matrices, row_of_bin, initial)
    if n_states == 3:
        return forward_backward_3(matrices, row_of_bin, initial)
    alphas = np.empty((n_bins + 1, n_states))
    scales = np.ones(n_bins)
    for i in range(n_states):
        alphas[0, i] = initial[i]
    total = 0.0
    slope = np.zeros_like(matrices)
    beta = np.zeros(n_states)
    norm = 1.0
    for t in range(n_bins):
        matrix = matrices[row_of_bin[t]]
        here = alphas[t]
        there = alphas[t + 1]
        norm = 0.0
        for j in range(n_states):
            value = 0.0
            for i in range(n_states):
                value += here[i] * matrix[i, j]
            there[j] = value
            norm += value
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf, slope, beta
            total += math.log(norm)
            scales[t] = 1.0 / norm
            for j in range(n_states):
                there[j] *= scales[t]
            norm = 1.0
    if not math.isfinite(norm):
        return -np.inf, slope, beta
    total += math.log(norm)
    # the same scales on the way back keep forward times backward at one
    for i in range(n_states):
        beta[i] = 1.0 / norm
    fresh = np.empty(n_states)
    for t in range(n_bins - 1, -1, -1):
        row = row_of_bin[t]
        matrix = matrices[row]
        target = slope[row]
        here = alphas[t]
        scale = scales[t]
        for j in range(n_states):
            beta[j] *= scale
        for i in range(n_states):
            value = 0.0
            for j in range(n_states):
                value += matrix[i, j] * beta[j]
                target[i, j] += here[i] * beta[j]
            fresh[i] = value
        for i in range(n_states):
            beta[i] = fresh[i]
    return total, slope, beta


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


@njit(cache=True, nogil=True)
def smooth(
    matrices: Array,
    columns: Array,
    row_of_bin: Index,
    initial: Array,
    stay: Array,
    pair_weights: Array,
    nodes: Array,
) -> tuple[Array, Array]:
    """Posterior share of each bin spent in each state, and state probabilities at the bin edges.

    Returns
    -------
    occupancy : ndarray
        Shape ``(n_bins, n_states)``, rows sum to 1.
    edges : ndarray
        Shape ``(n_bins + 1, n_states)``, rows sum to 1.
    """
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    n_nodes = nodes.shape[0]
    edges = np.empty((n_bins + 1, n_states))
    norms = np.empty(n_bins)
    edges[0] = initial
    for t in range(n_bins):
        row = row_of_bin[t]
        norm = 0.0
        for j in range(n_states):
            value = 0.0
            for i in range(n_states):
                value += edges[t, i] * matrices[row, i, j]
            edges[t + 1, j] = value
            norm += value
        norms[t] = norm
        for j in range(n_states):
            edges[t + 1, j] /= norm
    occupancy = np.zeros((n_bins, n_states))
    beta = np.ones(n_states)
    fresh = np.empty(n_states)
    for t in range(n_bins - 1, -1, -1):
        row = row_of_bin[t]
        for i in range(n_states):
            value = 0.0
            for j in range(n_states):
                value += matrices[row, i, j] * beta[j]
            fresh[i] = value / norms[t]
            occupancy[t, i] += edges[t, i] * beta[i] * stay[i] * columns[row, i] / norms[t]
        pair = 0
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                in_i = 0.0
                in_j = 0.0
                for m in range(n_nodes):
                    mass = columns[row, start + m] * (
                        edges[t, i] * beta[j] * pair_weights[pair, 0, m]
                        + edges[t, j] * beta[i] * pair_weights[pair, 1, m]
                        + edges[t, i] * beta[i] * pair_weights[pair, 2, m]
                        + edges[t, j] * beta[j] * pair_weights[pair, 3, m]
                    )
                    in_i += mass * (1.0 - nodes[m])
                    in_j += mass * nodes[m]
                occupancy[t, i] += in_i / norms[t]
                occupancy[t, j] += in_j / norms[t]
                pair += 1
                start += n_nodes
        # the posterior at the right edge needs the beta of that edge, before it moves left
        norm = 0.0
        for i in range(n_states):
            edges[t + 1, i] *= beta[i]
            norm += edges[t + 1, i]
        for i in range(n_states):
            edges[t + 1, i] /= norm
            beta[i] = fresh[i]
    norm = 0.0
    for i in range(n_states):
        edges[0, i] *= beta[i]
        norm += edges[0, i]
    for i in range(n_states):
        edges[0, i] /= norm
    return occupancy, edges


@njit(cache=True, nogil=True)
def most_probable_path(matrices: Array, row_of_bin: Index, initial: Array) -> Index:
    """Most probable states at the bin edges (Viterbi), shape ``(n_bins + 1,)``."""
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    logs = np.log(matrices)
    score = np.log(initial)
    fresh = np.empty(n_states)
    pointers = np.empty((n_bins, n_states), np.uint8)
    for t in range(n_bins):
        row = row_of_bin[t]
        for j in range(n_states):
            best = -np.inf
            choice = 0
            for i in range(n_states):
                value = score[i] + logs[row, i, j]
                if value > best:
                    best = value
                    choice = i
            fresh[j] = best
            pointers[t, j] = choice
        for j in range(n_states):
            score[j] = fresh[j]
    path = np.empty(n_bins + 1, np.int64)
    path[n_bins] = np.argmax(score)
    for t in range(n_bins - 1, -1, -1):
        path[t] = pointers[t, path[t + 1]]
    return path


@njit(cache=True, nogil=True)
def sample_path(matrices: Array, row_of_bin: Index, initial: Array, uniforms: Array) -> Index:
    """Draw the states at the bin edges from their joint posterior.

    Parameters
    ----------
    uniforms
        Uniform draws on [0, 1), shape ``(n_bins + 1,)``.

    Returns
    -------
    ndarray
        States, shape ``(n_bins + 1,)``.
    """
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    alphas = np.empty((n_bins + 1, n_states))
    alphas[0] = initial
    for t in range(n_bins):
        row = row_of_bin[t]
        norm = 0.0
        for j in range(n_states):
            value = 0.0
            for i in range(n_states):
                value += alphas[t, i] * matrices[row, i, j]
            alphas[t + 1, j] = value
            norm += value
        for j in range(n_states):
            alphas[t + 1, j] /= norm
    path = np.empty(n_bins + 1, np.int64)
    weights = np.empty(n_states)
    for t in range(n_bins, -1, -1):
        norm = 0.0
        for i in range(n_states):
            weight = alphas[t, i]
            if t < n_bins:
                weight *= matrices[row_of_bin[t], i, path[t + 1]]
            weights[i] = weight
            norm += weight
        threshold = uniforms[t] * norm
        choice = n_states - 1
        running = 0.0
        for i in range(n_states):
            running += weights[i]
            if running > threshold:
                choice = i
                break
        path[t] = choice
    return path
