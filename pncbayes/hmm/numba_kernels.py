"""Compiled passes over the bins: forward, backward, smoothing, most probable path, path draws.

A pass sees only the matrices ``A[row, i, j]`` of the bins, as `pncbayes.hmm.numba_columns` makes
them, whatever emitted the counts. `row_of_bin` says which row a bin uses, so that bins with equal
data share one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm import numba_columns
from pncbayes.hmm import small_kernels as small
from pncbayes.hmm.small_kernels import SMALL

__all__ = [
    "both_passes",
    "forward",
    "forward_backward",
    "forward_backward_grouped",
    "group_bins",
    "message_slopes",
    "most_probable_path",
    "sample_path",
    "smooth",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST = {"contract", "reassoc"}


@njit(cache=True, nogil=True)
def _pack_2(state: Array) -> tuple[float, ...]:
    return state[0], state[1]


@njit(cache=True, nogil=True)
def _pack_3(state: Array) -> tuple[float, ...]:
    return state[0], state[1], state[2]


@njit(cache=True, nogil=True)
def _pack_4(state: Array) -> tuple[float, ...]:
    return state[0], state[1], state[2], state[3]


@njit(cache=True, nogil=True)
def _pack_5(state: Array) -> tuple[float, ...]:
    return state[0], state[1], state[2], state[3], state[4]


@njit(cache=True, nogil=True)
def _pack_6(state: Array) -> tuple[float, ...]:
    return state[0], state[1], state[2], state[3], state[4], state[5]


@njit(cache=True, nogil=True, error_model="numpy")
def forward(matrices: Array, row_of_bin: Index, initial: Array) -> float:
    """Log-likelihood of the scaled matrices, summed over all hidden paths."""
    n_states = initial.shape[0]
    if n_states == 2:
        return small.messages_forward(matrices, row_of_bin, _pack_2(initial))
    if n_states == 3:
        return small.messages_forward(matrices, row_of_bin, _pack_3(initial))
    if n_states == 4:
        return small.messages_forward(matrices, row_of_bin, _pack_4(initial))
    if n_states == 5:
        return small.messages_forward(matrices, row_of_bin, _pack_5(initial))
    if n_states == 6:
        return small.messages_forward(matrices, row_of_bin, _pack_6(initial))
    alpha = initial.copy()
    fresh = np.empty(n_states)
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        norm = _advance(matrices, row_of_bin[t], alpha, fresh)
        # dividing by the norm in every bin would cost more than all the rest
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            fresh /= norm
        alpha, fresh = fresh, alpha
    norm = alpha.sum()
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _advance(matrices: Array, row: int, alpha: Array, fresh: Array) -> float:
    """Write message times matrix into `fresh`; return its sum."""
    n_states = alpha.shape[0]
    for j in range(n_states):
        fresh[j] = 0.0
    for i in range(n_states):
        factor = alpha[i]
        for j in range(n_states):
            fresh[j] += factor * matrices[row, i, j]
    norm = 0.0
    for j in range(n_states):
        norm += fresh[j]
    return norm


@njit(cache=True, nogil=True, error_model="numpy")
def both_passes(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array, Array, NDArray[np.bool_]]:
    """Forward and backward messages at the bin edges.

    Returns
    -------
    log_likelihood : float
    alphas : ndarray
        Forward messages, shape ``(n_bins + 1, n_states)``, rescaled where they became small.
    norms : ndarray
        What the message that leaves each bin was divided by, mostly 1, shape ``(n_bins,)``.
    betas : ndarray
        Backward messages, rescaled at their own bins.
    rescaled : ndarray
        Whether the backward message that leaves each bin was, shape ``(n_bins,)``.
    """
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    alphas = np.empty((n_bins + 1, n_states))
    norms = np.empty(n_bins)
    betas = np.empty((n_bins + 1, n_states))
    rescaled = np.empty(n_bins, np.bool_)
    room = (alphas, norms, betas, rescaled)
    if n_states == 2:
        value = small.messages_both(matrices, row_of_bin, _pack_2(initial), *room)
    elif n_states == 3:
        value = small.messages_both(matrices, row_of_bin, _pack_3(initial), *room)
    elif n_states == 4:
        value = small.messages_both(matrices, row_of_bin, _pack_4(initial), *room)
    elif n_states == 5:
        value = small.messages_both(matrices, row_of_bin, _pack_5(initial), *room)
    elif n_states == 6:
        value = small.messages_both(matrices, row_of_bin, _pack_6(initial), *room)
    else:
        value = _both_passes(matrices, row_of_bin, initial, *room)
    return value, alphas, norms, betas, rescaled


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _both_passes(
    matrices: Array,
    row_of_bin: Index,
    initial: Array,
    alphas: Array,
    norms: Array,
    betas: Array,
    rescaled: NDArray[np.bool_],
) -> float:
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    alphas[0] = initial
    betas[n_bins] = 1.0
    norms[:] = 1.0
    rescaled[:] = False
    total = 0.0
    for t in range(n_bins):
        norm = _advance(matrices, row_of_bin[t], alphas[t], alphas[t + 1])
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            alphas[t + 1] /= norm
            norms[t] = norm
    for t in range(n_bins - 1, -1, -1):
        row = row_of_bin[t]
        norm = 0.0
        for i in range(n_states):
            value = 0.0
            for j in range(n_states):
                value += matrices[row, i, j] * betas[t + 1, j]
            betas[t, i] = value
            norm += value
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            betas[t] /= norm
            rescaled[t] = True
    norm = alphas[n_bins].sum()
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def group_bins(row_of_bin: Index, n_rows: int) -> tuple[Index, Index]:
    """Bins sorted by their row.

    Returns
    -------
    starts : ndarray
        Where in `bins` those of each row begin, and the end, shape ``(n_rows + 1,)``.
    bins : ndarray
        Shape ``(n_bins,)``.
    """
    starts = np.zeros(n_rows + 1, np.int64)
    bins = np.empty(row_of_bin.shape[0], np.int64)
    for t in range(row_of_bin.shape[0]):
        starts[row_of_bin[t] + 1] += 1
    for row in range(n_rows):
        starts[row + 1] += starts[row]
    place = starts[:-1].copy()
    for t in range(row_of_bin.shape[0]):
        row = row_of_bin[t]
        bins[place[row]] = t
        place[row] += 1
    return starts, bins


@njit(cache=True, nogil=True, error_model="numpy")
def message_slopes(
    alphas: Array,
    norms: Array,
    betas: Array,
    rescaled: NDArray[np.bool_],
    starts: Index,
    bins: Index,
) -> Array:
    """Derivative of the log-likelihood by the matrices, from the messages.

    Parameters
    ----------
    alphas, norms, betas, rescaled
        As `both_passes` returns them.
    starts, bins
        As `group_bins` returns them.

    Returns
    -------
    ndarray
        Shape ``(n_rows, n_states, n_states)``: the sum over the bins of a row of the forward
        times the backward message, over their common norm. NaN where the two have no state in
        common in double precision.
    """
    n_bins = norms.shape[0]
    n_states = alphas.shape[1]
    n_rows = starts.shape[0] - 1
    lefts = np.empty((n_bins, n_states))
    weight = 0.0
    for t in range(n_bins):
        # the product of the two messages is the same at all edges, but for the rescaling
        if t == 0 or norms[t - 1] != 1.0 or rescaled[t]:
            product = 0.0
            for i in range(n_states):
                product += alphas[t + 1, i] * betas[t + 1, i]
            weight = 1.0 / (product * norms[t])
            if not math.isfinite(weight):
                return np.full((n_rows, n_states, n_states), np.nan)
        for i in range(n_states):
            lefts[t, i] = alphas[t, i] * weight
    slope = np.empty((n_rows, n_states, n_states))
    room = (lefts, betas, starts, bins)
    if n_states == 2:
        small.summed_slopes(*room, (0.0,) * 2, (0.0,) * 4, slope)
    elif n_states == 3:
        small.summed_slopes(*room, (0.0,) * 3, (0.0,) * 9, slope)
    elif n_states == 4:
        small.summed_slopes(*room, (0.0,) * 4, (0.0,) * 16, slope)
    elif n_states == 5:
        small.summed_slopes(*room, (0.0,) * 5, (0.0,) * 5, slope)
    elif n_states == 6:
        small.summed_slopes(*room, (0.0,) * 6, (0.0,) * 6, slope)
    else:
        slope[:] = 0.0
        for row in range(n_rows):
            for k in range(starts[row], starts[row + 1]):
                t = bins[k]
                for i in range(n_states):
                    for j in range(n_states):
                        slope[row, i, j] += lefts[t, i] * betas[t + 1, j]
    return slope


@njit(cache=True, nogil=True, error_model="numpy")
def forward_backward(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array]:
    """Log-likelihood, and its derivatives with respect to the matrices and the initial state.

    Returns
    -------
    log_likelihood : float
    matrix_slope : ndarray
        Shape of `matrices`.
    initial_slope : ndarray
        Shape ``(n_states,)``.
    """
    starts, bins = group_bins(row_of_bin, matrices.shape[0])
    return forward_backward_grouped(matrices, row_of_bin, starts, bins, initial)


@njit(cache=True, nogil=True, error_model="numpy")
def forward_backward_grouped(
    matrices: Array, row_of_bin: Index, starts: Index, bins: Index, initial: Array
) -> tuple[float, Array, Array]:
    """As `forward_backward`, with the bins sorted by row as `group_bins` does it."""
    value, alphas, norms, betas, rescaled = both_passes(matrices, row_of_bin, initial)
    if not math.isfinite(value):
        return -np.inf, np.zeros_like(matrices), np.zeros_like(initial)
    slope = message_slopes(alphas, norms, betas, rescaled, starts, bins)
    if math.isnan(slope[0, 0, 0]):
        # the only paths that explain all bins are improbable beyond what numbers can hold
        return -np.inf, np.zeros_like(matrices), np.zeros_like(initial)
    return value, slope, betas[0] / (initial * betas[0]).sum()


@njit(cache=True, nogil=True, error_model="numpy")
def smooth(matrices: Array, parts: Array, row_of_bin: Index, initial: Array) -> tuple[Array, Array]:
    """Posterior share of each bin spent in each state, and state probabilities at the bin edges.

    Returns
    -------
    occupancy : ndarray
        Shape ``(n_bins, n_states)``, rows sum to 1.
    edges : ndarray
        Shape ``(n_bins + 1, n_states)``, rows sum to 1.
    """
    _, alphas, _, betas, _ = both_passes(matrices, row_of_bin, initial)
    occupancy = numba_columns.time_in_states(alphas, betas, parts, row_of_bin)
    for t in range(alphas.shape[0]):
        norm = 0.0
        for i in range(alphas.shape[1]):
            alphas[t, i] *= betas[t, i]
            norm += alphas[t, i]
        for i in range(alphas.shape[1]):
            alphas[t, i] /= norm
    return occupancy, alphas


@njit(cache=True, nogil=True)
def most_probable_path(matrices: Array, row_of_bin: Index, initial: Array) -> Index:
    """Most probable states at the bin edges (Viterbi), shape ``(n_bins + 1,)``."""
    n_bins = row_of_bin.shape[0]
    n_states = initial.shape[0]
    logs = np.log(matrices)
    score = np.log(initial)
    pointers = np.empty((n_bins, n_states), np.uint8)
    if n_states == 2:
        last = small.best_scores(logs, row_of_bin, _pack_2(score), pointers)
    elif n_states == 3:
        last = small.best_scores(logs, row_of_bin, _pack_3(score), pointers)
    elif n_states == 4:
        last = small.best_scores(logs, row_of_bin, _pack_4(score), pointers)
    elif n_states == 5:
        last = small.best_scores(logs, row_of_bin, _pack_5(score), pointers)
    elif n_states == 6:
        last = small.best_scores(logs, row_of_bin, _pack_6(score), pointers)
    else:
        fresh = np.empty(n_states)
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
            score[:] = fresh
        last = int(np.argmax(score))
    path = np.empty(n_bins + 1, np.int64)
    path[n_bins] = last
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
