"""Forward and backward passes written out for two and three states.

These are most of all fits. With the messages in registers instead of small arrays they run three
times as fast as the passes for any number of states, which define what they compute.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["forward_2", "forward_3", "forward_backward_2", "forward_backward_3"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Messages are rescaled only below this: far from underflow, even after a very improbable bin.
SMALL = 1e-30


@njit(cache=True, nogil=True, error_model="numpy")
def forward_2(matrices: Array, row_of_bin: Index, initial: Array) -> float:
    """As `pncbayes.hmm.numba_kernels.forward`, for 2 states."""
    a0 = initial[0]
    a1 = initial[1]
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        row = row_of_bin[t]
        f0 = a0 * matrices[row, 0, 0] + a1 * matrices[row, 1, 0]
        f1 = a0 * matrices[row, 0, 1] + a1 * matrices[row, 1, 1]
        norm = f0 + f1
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            f0 /= norm
            f1 /= norm
        a0 = f0
        a1 = f1
    norm = a0 + a1
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def forward_backward_2(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array]:
    """As `pncbayes.hmm.numba_kernels.forward_backward`, for 2 states."""
    n_bins = row_of_bin.shape[0]
    alphas = np.empty((n_bins + 1, 2))
    scales = np.ones(n_bins)
    slope = np.zeros_like(matrices)
    beta = np.zeros(2)
    a0 = initial[0]
    a1 = initial[1]
    alphas[0, 0] = a0
    alphas[0, 1] = a1
    total = 0.0
    norm = 1.0
    for t in range(n_bins):
        row = row_of_bin[t]
        f0 = a0 * matrices[row, 0, 0] + a1 * matrices[row, 1, 0]
        f1 = a0 * matrices[row, 0, 1] + a1 * matrices[row, 1, 1]
        norm = f0 + f1
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf, slope, beta
            total += math.log(norm)
            scales[t] = 1.0 / norm
            f0 *= scales[t]
            f1 *= scales[t]
            norm = 1.0
        a0 = f0
        a1 = f1
        alphas[t + 1, 0] = f0
        alphas[t + 1, 1] = f1
    if not math.isfinite(norm):
        return -np.inf, slope, beta
    total += math.log(norm)
    b0 = 1.0 / norm
    b1 = 1.0 / norm
    for t in range(n_bins - 1, -1, -1):
        row = row_of_bin[t]
        scale = scales[t]
        b0 *= scale
        b1 *= scale
        a0 = alphas[t, 0]
        a1 = alphas[t, 1]
        slope[row, 0, 0] += a0 * b0
        slope[row, 0, 1] += a0 * b1
        slope[row, 1, 0] += a1 * b0
        slope[row, 1, 1] += a1 * b1
        f0 = matrices[row, 0, 0] * b0 + matrices[row, 0, 1] * b1
        f1 = matrices[row, 1, 0] * b0 + matrices[row, 1, 1] * b1
        b0 = f0
        b1 = f1
    beta[0] = b0
    beta[1] = b1
    return total, slope, beta


@njit(cache=True, nogil=True, error_model="numpy")
def forward_3(matrices: Array, row_of_bin: Index, initial: Array) -> float:
    """As `pncbayes.hmm.numba_kernels.forward`, for 3 states."""
    a0 = initial[0]
    a1 = initial[1]
    a2 = initial[2]
    total = 0.0
    for t in range(row_of_bin.shape[0]):
        row = row_of_bin[t]
        f0 = a0 * matrices[row, 0, 0] + a1 * matrices[row, 1, 0] + a2 * matrices[row, 2, 0]
        f1 = a0 * matrices[row, 0, 1] + a1 * matrices[row, 1, 1] + a2 * matrices[row, 2, 1]
        f2 = a0 * matrices[row, 0, 2] + a1 * matrices[row, 1, 2] + a2 * matrices[row, 2, 2]
        norm = f0 + f1 + f2
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf
            total += math.log(norm)
            f0 /= norm
            f1 /= norm
            f2 /= norm
        a0 = f0
        a1 = f1
        a2 = f2
    norm = a0 + a1 + a2
    return total + math.log(norm) if math.isfinite(norm) else -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def forward_backward_3(
    matrices: Array, row_of_bin: Index, initial: Array
) -> tuple[float, Array, Array]:
    """As `pncbayes.hmm.numba_kernels.forward_backward`, for 3 states."""
    n_bins = row_of_bin.shape[0]
    alphas = np.empty((n_bins + 1, 3))
    scales = np.ones(n_bins)
    slope = np.zeros_like(matrices)
    beta = np.zeros(3)
    a0 = initial[0]
    a1 = initial[1]
    a2 = initial[2]
    alphas[0, 0] = a0
    alphas[0, 1] = a1
    alphas[0, 2] = a2
    total = 0.0
    norm = 1.0
    for t in range(n_bins):
        row = row_of_bin[t]
        f0 = a0 * matrices[row, 0, 0] + a1 * matrices[row, 1, 0] + a2 * matrices[row, 2, 0]
        f1 = a0 * matrices[row, 0, 1] + a1 * matrices[row, 1, 1] + a2 * matrices[row, 2, 1]
        f2 = a0 * matrices[row, 0, 2] + a1 * matrices[row, 1, 2] + a2 * matrices[row, 2, 2]
        norm = f0 + f1 + f2
        if norm < SMALL:
            if norm <= 0.0:
                return -np.inf, slope, beta
            total += math.log(norm)
            scales[t] = 1.0 / norm
            f0 *= scales[t]
            f1 *= scales[t]
            f2 *= scales[t]
            norm = 1.0
        a0 = f0
        a1 = f1
        a2 = f2
        alphas[t + 1, 0] = f0
        alphas[t + 1, 1] = f1
        alphas[t + 1, 2] = f2
    if not math.isfinite(norm):
        return -np.inf, slope, beta
    total += math.log(norm)
    b0 = 1.0 / norm
    b1 = 1.0 / norm
    b2 = 1.0 / norm
    for t in range(n_bins - 1, -1, -1):
        row = row_of_bin[t]
        scale = scales[t]
        b0 *= scale
        b1 *= scale
        b2 *= scale
        a0 = alphas[t, 0]
        a1 = alphas[t, 1]
        a2 = alphas[t, 2]
        slope[row, 0, 0] += a0 * b0
        slope[row, 0, 1] += a0 * b1
        slope[row, 0, 2] += a0 * b2
        slope[row, 1, 0] += a1 * b0
        slope[row, 1, 1] += a1 * b1
        slope[row, 1, 2] += a1 * b2
        slope[row, 2, 0] += a2 * b0
        slope[row, 2, 1] += a2 * b1
        slope[row, 2, 2] += a2 * b2
        f0 = matrices[row, 0, 0] * b0 + matrices[row, 0, 1] * b1 + matrices[row, 0, 2] * b2
        f1 = matrices[row, 1, 0] * b0 + matrices[row, 1, 1] * b1 + matrices[row, 1, 2] * b2
        f2 = matrices[row, 2, 0] * b0 + matrices[row, 2, 1] * b1 + matrices[row, 2, 2] * b2
        b0 = f0
        b1 = f1
        b2 = f2
    beta[0] = b0
    beta[1] = b1
    beta[2] = b2
    return total, slope, beta
