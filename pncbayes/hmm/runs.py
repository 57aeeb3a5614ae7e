"""Runs of bins that recur: one matrix for many bins.

Where counts are small, few different rows make up all bins, and few short runs most of them. The
matrix of a run is the product of those of its bins, worked out once for all its places; a pass
then takes a step per run, and gives the same numbers as one with a step per bin [1]_, [2]_.

References
----------
.. [1] Lifshits, Y. et al. Speeding up HMM decoding and training by exploiting sequence
   repetitions. Algorithmica 54, 379 (2009), doi:10.1007/s00453-007-9128-0.
.. [2] Sand, A. et al. zipHMMlib: a highly optimised HMM library exploiting repetitions in the
   input to speed up the forward algorithm. BMC Bioinformatics 14, 339 (2013),
   doi:10.1186/1471-2105-14-339.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["find_runs", "join_runs", "share_rows", "split_slopes"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Fewer bins take no time, and a run has to save more steps than its matrix costs.
_FEWEST_BINS = 20_000
_FEWEST_USES = 32
# A round of pairing that saves less than this share of the steps is the last.
_LEAST_GAIN = 0.03
# Rows are shared where there are this many times as many bins.
_BINS_PER_ROW = 8


def share_rows(data: Array) -> tuple[Array, Index] | None:
    """Distinct rows, and the row of each bin; None where too few bins are alike.

    Parameters
    ----------
    data
        Counts, shape ``(n_bins, n_gates)``.
    """
    if data.shape[1] == 1:
        rows, inverse = np.unique(data[:, 0], return_inverse=True)
        return rows[:, None], inverse.astype(np.int64)
    if np.mean(data.sum(axis=1) == 0.0) < 1.0 / _BINS_PER_ROW:
        # bins without photons are the first to recur
        return None
    # sorting whole rows would take longer than the fit: keys that differ where rows do
    keys = data @ np.random.default_rng(1).random(data.shape[1])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if first.size * _BINS_PER_ROW > len(data):
        return None
    rows = data[first]
    if not (rows[inverse] == data).all():
        return None
    return rows, inverse.astype(np.int64)


def find_runs(row_of_bin: Index, n_rows: int) -> tuple[Index, Index]:
    """Replace pairs of neighbours that are frequent by one step, again and again.

    Parameters
    ----------
    row_of_bin
        Row of each bin, shape ``(n_bins,)``.
    n_rows
        Number of rows.

    Returns
    -------
    steps : ndarray
        What follows what: rows, and from `n_rows` on runs.
    parts : ndarray
        The two rows or earlier runs that each run is made of, shape ``(n_runs, 2)``.
    """
    steps, parts = row_of_bin, np.empty((0, 2), np.int64)
    while steps.size >= _FEWEST_BINS:
        n_known = n_rows + len(parts)
        keys, of_place, uses = np.unique(
            steps[:-1] * n_known + steps[1:], return_inverse=True, return_counts=True
        )
        frequent = uses >= _FEWEST_USES
        # pairs overlap: some that looked frequent are not once their neighbours are taken
        taken = _count_pairs(of_place, frequent)
        frequent &= taken >= _FEWEST_USES
        run_of_key = np.where(frequent, n_known - 1 + np.cumsum(frequent), -1)
        shorter = _take_pairs(steps, of_place, run_of_key)
        if shorter.size > (1.0 - _LEAST_GAIN) * steps.size:
            break
        chosen = keys[frequent]
        parts = np.vstack([parts, np.column_stack([chosen // n_known, chosen % n_known])])
        steps = shorter
    return steps, parts


@njit(cache=True)
def _count_pairs(of_place: Index, frequent: NDArray[np.bool_]) -> Index:
    """How often each pair is taken from left to right without overlap."""
    taken = np.zeros(frequent.size, np.int64)
    t = 0
    while t < of_place.size:
        if frequent[of_place[t]]:
            taken[of_place[t]] += 1
            t += 1
        t += 1
    return taken


@njit(cache=True)
def _take_pairs(steps: Index, of_place: Index, run_of_key: Index) -> Index:
    """Steps with pairs replaced by their runs, from left to right."""
    shorter = np.empty(steps.size, np.int64)
    n, t = 0, 0
    while t < steps.size:
        run = run_of_key[of_place[t]] if t < of_place.size else -1
        shorter[n] = run if run >= 0 else steps[t]
        n += 1
        t += 2 if run >= 0 else 1
    return shorter[:n].copy()


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def join_runs(matrices: Array, largest: Array, parts: Index) -> tuple[Array, Array, Array]:
    """Matrices of rows and runs.

    Parameters
    ----------
    matrices
        Of the rows, shape ``(n_rows, n_states, n_states)``.
    largest
        Logarithm of what each was divided by, shape ``(n_rows,)``.
    parts
        As `find_runs` returns them.

    Returns
    -------
    matrices : ndarray
        Of rows and runs; those of runs over their largest sum of a line.
    largest : ndarray
        Logarithms of what all of them were divided by.
    over : ndarray
        What the product of a run was divided by, shape ``(n_runs,)``.
    """
    n_rows, n_states = matrices.shape[0], matrices.shape[1]
    n_runs = parts.shape[0]
    over = np.ones(n_runs)
    if n_runs == 0:
        return matrices, largest, over
    joined = np.empty((n_rows + n_runs, n_states, n_states))
    logs = np.empty(n_rows + n_runs)
    # loops, not array expressions: those take the compiler ten times as long
    for row in range(n_rows):
        logs[row] = largest[row]
        for i in range(n_states):
            for j in range(n_states):
                joined[row, i, j] = matrices[row, i, j]
    for run in range(n_runs):
        one, other, own = parts[run, 0], parts[run, 1], n_rows + run
        top = 0.0
        for i in range(n_states):
            line = 0.0
            for j in range(n_states):
                total = 0.0
                for k in range(n_states):
                    total += joined[one, i, k] * joined[other, k, j]
                joined[own, i, j] = total
                line += total
            # messages shrink with every step, as they do with the matrices of rows
            top = max(top, line)
        if top > 0.0:
            over[run] = top
            for i in range(n_states):
                for j in range(n_states):
                    joined[own, i, j] /= top
        logs[own] = logs[one] + logs[other] + math.log(top)
    return joined, logs, over


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def split_slopes(joined: Array, over: Array, parts: Index, slope: Array) -> Array:
    """Derivatives by the matrices of rows from those by the matrices of rows and runs.

    Parameters
    ----------
    joined, over
        As `join_runs` returns them.
    parts
        As `find_runs` returns them.
    slope
        Derivatives by `joined`, same shape; those of runs are handed down in place.
    """
    n_runs, n_states = parts.shape[0], joined.shape[1]
    n_rows = joined.shape[0] - n_runs
    for run in range(n_runs - 1, -1, -1):
        one, other, own = parts[run, 0], parts[run, 1], n_rows + run
        for i in range(n_states):
            for j in range(n_states):
                slope[own, i, j] /= over[run]
        for i in range(n_states):
            for k in range(n_states):
                total = 0.0
                for j in range(n_states):
                    total += slope[own, i, j] * joined[other, k, j]
                slope[one, i, k] += total
        for i in range(n_states):
            for k in range(n_states):
                factor = joined[one, i, k]
                for j in range(n_states):
                    slope[other, k, j] += factor * slope[own, i, j]
    return slope[:n_rows]
