"""Passes over the bins for few states, with the messages in registers.

These are most of all fits. A message is a tuple, whose length the compiler knows: it unrolls the
loops over states, which makes the passes several times as fast as those for any number of states
in `pncbayes.hmm.numba_kernels`, which define what they compute.

A pass is one long chain of multiplications that wait for each other. The forward and the backward
chain know nothing of each other, so they advance together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numba.cpython.unsafe.tuple import tuple_setitem as _numba_tuple_setitem
from numpy.typing import NDArray

__all__ = [
    "SMALL",
    "best_scores",
    "messages_both",
    "messages_forward",
    "shared_time",
    "summed_slopes",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Numba supplies the first argument of its intrinsics itself, which type checkers cannot know.
tuple_setitem: Any = _numba_tuple_setitem

# Messages are rescaled only below this: far from underflow, even after a very improbable bin or
# run of bins. A switch that is impossible (a rate of zero) inside a run may underflow.
SMALL = 1e-30


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _ahead(state: Any, matrices: Array, row: int) -> Any:
    """Message times matrix, in two sums: half as long a wait as one after the other."""
    fresh = state
    half = (len(state) + 1) // 2
    for j in range(len(state)):
        first = state[0] * matrices[row, 0, j]
        for i in range(1, half):
            first += state[i] * matrices[row, i, j]
        if len(state) > half:
            second = state[half] * matrices[row, half, j]
            for i in range(half + 1, len(state)):
                second += state[i] * matrices[row, i, j]
            first += second
        fresh = tuple_setitem(fresh, j, first)
    return fresh


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _back(state: Any, matrices: Array, row: int) -> Any:
    """Matrix times message, as `_ahead`."""
    fresh = state
    half = (len(state) + 1) // 2
    for i in range(len(state)):
        first = matrices[row, i, 0] * state[0]
        for j in range(1, half):
            first += matrices[row, i, j] * state[j]
        if len(state) > half:
            second = matrices[row, i, half] * state[half]
            for j in range(half + 1, len(state)):
                second += matrices[row, i, j] * state[j]
            first += second
        fresh = tuple_setitem(fresh, i, first)
    return fresh


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _total(state: Any) -> float:
    total = state[0]
    for i in range(1, len(state)):
        total += state[i]
    return total  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, error_model="numpy")
def _divided(state: Any, norm: float) -> Any:
    for i in range(len(state)):
        state = tuple_setitem(state, i, state[i] / norm)
    return state


@njit(cache=True, nogil=True, error_model="numpy")
def _store(lines: Array, t: int, state: Any) -> None:
    for i in range(len(state)):
        lines[t, i] = state[i]


@njit(cache=True, nogil=True, error_model="numpy")
def messages_forward(matrices: Array, row_of_bin: Index, state: Any) -> float:
    """As `pncbayes.hmm.numba_kernels.forward`, from a message in a tuple."""
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        state = _ahead(state, matrices, row_of_bin[t])
        norm = _total(state)
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            state = _divided(state, norm)
    norm = _total(state)
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def messages_both(
    matrices: Array,
    row_of_bin: Index,
    state: Any,
    alphas: Array,
    norms: Array,
    betas: Array,
    rescaled: Flags,
) -> float:
    """As `pncbayes.hmm.numba_kernels.both_passes`, from a message in a tuple, into its arrays."""
    n_bins = row_of_bin.shape[0]
    total = 0.0
    alpha = state
    beta = state
    for i in range(len(state)):
        beta = tuple_setitem(beta, i, 1.0)
    _store(alphas, 0, alpha)
    _store(betas, n_bins, beta)
    for t in range(n_bins):
        alpha = _ahead(alpha, matrices, row_of_bin[t])
        norm = _total(alpha)
        norms[t] = 1.0
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            alpha = _divided(alpha, norm)
            norms[t] = norm
        _store(alphas, t + 1, alpha)
        back = n_bins - 1 - t
        beta = _back(beta, matrices, row_of_bin[back])
        norm = _total(beta)
        rescaled[back] = norm < SMALL
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            beta = _divided(beta, norm)
        _store(betas, back, beta)
    norm = _total(alpha)
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def summed_slopes(
    lefts: Array, betas: Array, starts: Index, bins: Index, state: Any, zeros: Any, slope: Array
) -> None:
    """Sum over the bins of each row of left times right messages; as many states as `state`.

    `zeros` is room for the sums that are kept in registers: those of a matrix, or of a line of
    it where a matrix is too large for them.
    """
    n_states = len(state)
    n_lines = len(zeros) // n_states
    for row in range(slope.shape[0]):
        for above in range(0, n_states, n_lines):
            sums = zeros
            for k in range(starts[row], starts[row + 1]):
                t = bins[k]
                for i in range(n_lines):
                    left = lefts[t, above + i]
                    for j in range(n_states):
                        entry = i * n_states + j
                        sums = tuple_setitem(sums, entry, sums[entry] + left * betas[t + 1, j])
            for i in range(n_lines):
                for j in range(n_states):
                    slope[row, above + i, j] = sums[i * n_states + j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def shared_time(
    alphas: Array, betas: Array, parts: Array, row_of_bin: Index, state: Any, occupancy: Array
) -> None:
    """As `pncbayes.hmm.numba_kernels.time_in_states`, for as many states as in `state`."""
    n_states = len(state)
    for t in range(row_of_bin.shape[0]):
        row = row_of_bin[t]
        norm = 0.0
        for k in range(n_states):
            time = 0.0
            for j in range(n_states):
                time += parts[row, 0, k, j] * betas[t + 1, j]
            time *= alphas[t, k]
            late = 0.0
            for i in range(n_states):
                late += alphas[t, i] * parts[row, 1, k, i]
                time += alphas[t, i] * betas[t + 1, i] * parts[row, 2, k, i]
            time += late * betas[t + 1, k]
            state = tuple_setitem(state, k, time)
            norm += time
        for k in range(n_states):
            occupancy[t, k] = state[k] / norm


@njit(cache=True, nogil=True, error_model="numpy")
def best_scores(logs: Array, row_of_bin: Index, score: Any, pointers: NDArray[np.uint8]) -> int:
    """Fill the pointers of the Viterbi recursion; return the best last state."""
    n_states = len(score)
    for t in range(row_of_bin.shape[0]):
        row = row_of_bin[t]
        fresh = score
        for j in range(n_states):
            best = score[0] + logs[row, 0, j]
            choice = 0
            for i in range(1, n_states):
                value = score[i] + logs[row, i, j]
                choice = i if value > best else choice
                best = max(best, value)
            fresh = tuple_setitem(fresh, j, best)
            pointers[t, j] = choice
        score = fresh
    choice = 0
    for i in range(1, n_states):
        choice = i if score[i] > score[choice] else choice
    return choice
