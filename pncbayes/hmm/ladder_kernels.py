r"""Likelihood of counts under two emission levels of many sub-states that switch inside bins.

What a bin sees is the share x of it that was spent in the first level, ON. The joint law of the
sub-states at its two edges and of x lives on a lattice: the bin is cut in slots, and the light of a
slot is that of the mean of its two edges (trapezoidal rule). With :math:`P = \exp(Q\Delta/M)` for
M slots and the diagonal matrix D(z) that has z for the sub-states of ON and 1 for those of OFF,

.. math:: D(z)^{1/2}\, [P D(z)]^M\, D(z)^{-1/2} = \sum_n z^{M x}\, A_n

holds paths with any number of switches, and for z = 1 it is :math:`\exp(Q\Delta)`: no probability
is lost, whatever M. The power is taken by squaring matrix polynomials with coefficients that are
not negative. Between sub-states of the same level x is a multiple of 1/M, from one level to the
other it lies half-way between: an emission has 2 M + 1 columns.

Bins of equal counts share a matrix, so that the shares are summed over once per count and a pass
costs one product of message and matrix per bin. Where bins share nothing (gates), the message
passes through the columns that matter: one or two in a bin without a switch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.numba_kernels import group_bins
from pncbayes.hmm.small_kernels import SMALL
from pncbayes.hmm.switching import transition_matrix

__all__ = [
    "bin_matrices",
    "column_shares",
    "columns_slope",
    "forward",
    "forward_backward",
    "forward_columns",
    "reference_log_likelihood",
    "reference_parts",
    "share_parts",
    "share_parts_slope",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# A column this far below the best one of its bin.
_FAINT = 1e-20


def column_shares(n_slots: int) -> Array:
    """Share of the bin in ON of each emission column, shape ``(2 * n_slots + 1,)``."""
    shares: Array = np.arange(2 * n_slots + 1) / (2.0 * n_slots)
    return shares


def share_parts(rates: Array, n_on: int, width_s: float, n_slots: int) -> Array:
    """Joint law of edges and share: the coefficients of the power of the slot.

    Parameters
    ----------
    rates
        Transition rates per s, shape ``(n_states, n_states)``; the diagonal is ignored.
    n_on
        Number of sub-states of ON, which come first.
    width_s
        Bin width in s.
    n_slots
        Slots of the bin, a power of two.

    Returns
    -------
    ndarray
        Shape ``(n_slots + 1, n_states, n_states)``, sum over the first axis the transition
        matrix of the bin. The share of entry ``[n, a, b]`` is ``(n + (on_a - on_b) / 2) /
        n_slots``, with ``on`` 1 for sub-states of ON and 0 for others.
    """
    n_states = rates.shape[0]
    slot = transition_matrix(rates, width_s / n_slots)
    # laid out as (from, n, to): all coefficients in one matrix product
    parts = np.zeros((n_states, 2, n_states))
    parts[:, 0, n_on:] = slot[:, n_on:]
    parts[:, 1, :n_on] = slot[:, :n_on]
    degree = 1
    while degree < n_slots:
        squared = np.zeros((n_states, 2 * degree + 1, n_states))
        flat = parts.reshape(n_states, -1)
        for i in range(degree + 1):
            product = np.ascontiguousarray(parts[:, i]) @ flat
            squared[:, i : i + degree + 1] += product.reshape(parts.shape)
        parts = squared
        degree *= 2
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def _blocks(n_on: int, n_slots: int) -> tuple[tuple[slice, slice, slice, slice], ...]:
    """Sub-states before and after, coefficients and columns of the four blocks."""
    on, off = slice(None, n_on), slice(n_on, None)
    whole, even = slice(None), slice(0, None, 2)
    return (
        (on, on, whole, even),
        (on, off, slice(0, n_slots), slice(1, None, 2)),
        (off, on, slice(1, n_slots + 1), slice(1, None, 2)),
        (off, off, whole, even),
    )


def bin_matrices(columns: Array, parts: Array, n_on: int) -> Array:
    """Matrices of the rows of data.

    Parameters
    ----------
    columns
        Likelihood of each row under each share, scaled by row, shape
        ``(n_rows, 2 * n_slots + 1)``.
    parts
        As `share_parts` returns them.

    Returns
    -------
    ndarray
        Shape ``(n_rows, n_states, n_states)``.
    """
    n_states = parts.shape[1]
    matrices = np.empty((columns.shape[0], n_states, n_states))
    for before, after, which, column in _blocks(n_on, parts.shape[0] - 1):
        block = parts[which, before, after]
        product = columns[:, column] @ block.reshape(block.shape[0], -1)
        matrices[:, before, after] = product.reshape(-1, *block.shape[1:])
    return matrices


def share_parts_slope(columns: Array, matrix_slope: Array, n_on: int) -> Array:
    """Derivative by `parts` of what has the derivative `matrix_slope` by `bin_matrices`."""
    n_slots = (columns.shape[1] - 1) // 2
    slope = np.zeros((n_slots + 1, *matrix_slope.shape[1:]))
    for before, after, which, column in _blocks(n_on, n_slots):
        block = matrix_slope[:, before, after]
        product = columns[:, column].T @ block.reshape(block.shape[0], -1)
        slope[which, before, after] = product.reshape(-1, *block.shape[1:])
    return slope


def columns_slope(parts: Array, matrix_slope: Array, n_on: int) -> Array:
    """Derivative by `columns` of what has the derivative `matrix_slope` by `bin_matrices`."""
    n_slots = parts.shape[0] - 1
    slope = np.zeros((matrix_slope.shape[0], 2 * n_slots + 1))
    for before, after, which, column in _blocks(n_on, n_slots):
        block = parts[which, before, after]
        data = matrix_slope[:, before, after].reshape(matrix_slope.shape[0], -1)
        slope[:, column] += data @ block.reshape(block.shape[0], -1).T
    return slope


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _ahead(matrix: Array, alpha: Array, fresh: Array) -> float:
    """Write message times matrix into `fresh`; return its sum."""
    n_states = alpha.shape[0]
    fresh[:] = 0.0
    a = 0
    # four lines at a time: the message that is written is loaded and stored a quarter as often
    while a + 3 < n_states:
        first, second, third, fourth = alpha[a], alpha[a + 1], alpha[a + 2], alpha[a + 3]
        for b in range(n_states):
            fresh[b] += (first * matrix[a, b] + second * matrix[a + 1, b]) + (
                third * matrix[a + 2, b] + fourth * matrix[a + 3, b]
            )
        a += 4
    while a < n_states:
        first = alpha[a]
        for b in range(n_states):
            fresh[b] += first * matrix[a, b]
        a += 1
    norm = 0.0
    for b in range(n_states):
        norm += fresh[b]
    return norm


@njit(cache=True, nogil=True, error_model="numpy")
def forward(matrices: Array, row_of_bin: Index, initial: Array) -> float:
    """Log-likelihood of the scaled matrices, summed over all hidden paths.

    Parameters
    ----------
    matrices
        Shape ``(n_rows, n_states, n_states)``.
    row_of_bin
        Row of each bin, shape ``(n_bins,)``.
    initial
        Probabilities before the first bin, shape ``(n_states,)``.
    """
    alpha = initial.copy()
    fresh = np.empty_like(initial)
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        norm = _ahead(matrices[row_of_bin[t]], alpha, fresh)
        if norm < SMALL:
            if not norm > 0.0:
                return -np.inf
            total += math.log(norm)
            fresh /= norm
        alpha, fresh = fresh, alpha
    norm = alpha.sum()
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def _both_passes(
    matrices: Array, turned: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array, Array]:
    """Log-likelihood, messages at the bin edges, and what each bin was divided by."""
    n_bins, n_states = row_of_bin.shape[0], initial.shape[0]
    alphas = np.zeros((n_bins + 1, n_states))
    betas = np.zeros((n_bins + 1, n_states))
    norms = np.ones(n_bins)
    alphas[0] = initial
    betas[n_bins] = 1.0
    total = 0.0
    for t in range(n_bins):
        # every bin is rescaled here: the product of both messages then needs no bookkeeping
        norm = _ahead(matrices[row_of_bin[t]], alphas[t], alphas[t + 1])
        if not norm > 0.0:
            return -np.inf, alphas, betas, norms
        norms[t] = norm
        total += math.log(norm)
        for a in range(n_states):
            alphas[t + 1, a] /= norm
    for t in range(n_bins - 1, -1, -1):
        _ahead(turned[row_of_bin[t]], betas[t + 1], betas[t])
        for a in range(n_states):
            betas[t, a] /= norms[t]
    return total, alphas, betas, norms


def forward_backward(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array]:
    """Log-likelihood, and its derivatives by the matrices and by the initial probabilities.

    Parameters are those of `forward`.

    Returns
    -------
    log_likelihood : float
    matrix_slope : ndarray
        Shape of `matrices`.
    initial_slope : ndarray
        Shape ``(n_states,)``.
    """
    turned = np.ascontiguousarray(matrices.transpose(0, 2, 1))
    total, alphas, betas, norms = _both_passes(matrices, turned, row_of_bin, initial)
    slope = np.zeros_like(matrices)
    if not math.isfinite(total):
        return -math.inf, slope, np.zeros_like(initial)
    starts, bins = group_bins(row_of_bin, matrices.shape[0])
    lefts, rights = (alphas[:-1] / norms[:, None])[bins], betas[1:][bins]
    for row in range(matrices.shape[0]):
        own = slice(starts[row], starts[row + 1])
        slope[row] = lefts[own].T @ rights[own]
    return float(total), slope, betas[0] / float(initial @ betas[0])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def forward_columns(log_columns: Array, parts: Array, n_on: int, initial: Array) -> float:
    """Log-likelihood of bins that share no rows, such as counts in many gates.

    No matrix of a bin is made: the message passes through the coefficients of the columns that
    matter, of which a bin without a switch has one or two.

    Parameters
    ----------
    log_columns
        Log-likelihood of each bin under each share, shape ``(n_bins, 2 * n_slots + 1)``.
    parts
        As `share_parts` returns them.
    initial
        Probabilities before the first bin, shape ``(n_states,)``.
    """
    n_states = initial.shape[0]
    n_columns = log_columns.shape[1]
    alpha = initial.copy()
    fresh = np.empty_like(initial)
    total = 0.0
    least = math.log(_FAINT)
    for t in range(log_columns.shape[0]):
        best = -np.inf
        for column in range(n_columns):
            best = max(best, log_columns[t, column])
        fresh[:] = 0.0
        for column in range(n_columns):
            if log_columns[t, column] < best + least:
                continue
            factor = math.exp(log_columns[t, column] - best)
            n = column // 2
            for a in range(n_states):
                from_on = a < n_on
                # odd columns lead from one level to the other, even ones stay
                to_on = from_on if column % 2 == 0 else not from_on
                k = n + 1 if column % 2 == 1 and to_on else n
                low, high = (0, n_on) if to_on else (n_on, n_states)
                weight = alpha[a] * factor
                for b in range(low, high):
                    fresh[b] += weight * parts[k, a, b]
        norm = fresh.sum()
        if not norm > 0.0:
            return -np.inf
        total += best + math.log(norm)
        fresh /= norm
        alpha, fresh = fresh, alpha
    return total


def reference_parts(rates: Array, n_on: int, width_s: float, n_slots: int) -> Array:
    """As `share_parts`, in plain NumPy, slot by slot: what it defines."""
    from scipy.linalg import expm

    n_states = rates.shape[0]
    generator = np.array(rates, dtype=np.float64)
    np.fill_diagonal(generator, 0.0)
    np.fill_diagonal(generator, -generator.sum(axis=1))
    slot = expm(generator * width_s / n_slots)
    parts = np.zeros((n_slots + 1, n_states, n_states))
    parts[0] = np.eye(n_states)
    for _ in range(n_slots):
        step = parts @ slot
        parts = np.zeros_like(step)
        parts[:, :, n_on:] = step[:, :, n_on:]
        parts[1:, :, :n_on] = step[:-1, :, :n_on]
    return parts


def reference_log_likelihood(log_columns: Array, parts: Array, n_on: int, initial: Array) -> float:
    """As `forward_columns`, in plain NumPy."""
    n_slots, n_states = parts.shape[0] - 1, parts.shape[1]
    on = (np.arange(n_states) < n_on).astype(np.int64)
    alpha, total = np.asarray(initial, dtype=np.float64), 0.0
    place = 2 * np.arange(n_slots + 1)[:, None, None] + on[:, None] - on[None, :]
    # the coefficient of a share that does not exist is zero
    place = np.clip(place, 0, 2 * n_slots)
    for row in log_columns:
        scale = row.max()
        alpha = alpha @ (parts * np.exp(row - scale)[place]).sum(axis=0)
        total += scale + math.log(alpha.sum())
        alpha = alpha / alpha.sum()
    return total
