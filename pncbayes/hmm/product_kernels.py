"""Compiled passes over a chain of levels times a chain of flicker.

A hidden state is a level and a point of the flicker. In a bin the level may change, by a matrix of
that bin and point, or, in most bins, can only stay; between bins the flicker moves, whatever the
level, to points nearby. The cost grows with levels x points x (levels + band), not with the square
of all states.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.numba_emission import exponential

__all__ = [
    "backward", "band_diagonals", "exponentials", "fill_matrices", "forward", "gather_mass",
]  # fmt: skip

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST = {"contract", "reassoc"}
_SMALL, _LARGE = 1e-100, 1e200
# Below it a probability is none: numbers that the processor holds with fewer digits are slow.
_NONE = 1e-250
# Probability of a move of the flicker in one bin that never matters.
_NEGLIGIBLE = 1e-7


@njit(cache=True, nogil=True, error_model="numpy")
def band_diagonals(transition: Array, n_levels: int) -> Array:
    """Diagonals of a transition matrix that are not negligible, once for each level.

    Returns
    -------
    ndarray
        Shape ``(2 * band + 1, n_levels * (n_points + band))``: of diagonal d, at place
        ``k * (n_points + band) + y``, the move to y from y + d - band. Behind each level there is
        a gap of zeros as wide as the band, so that one loop over all levels does what loops over
        each would do.
    """
    n = transition.shape[0]
    band = 0
    for i in range(n):
        for j in range(n):
            if transition[i, j] > _NEGLIGIBLE and abs(i - j) > band:
                band = abs(i - j)
    stride = n + band
    diagonals = np.zeros((2 * band + 1, n_levels * stride))
    for d in range(2 * band + 1):
        for y in range(n):
            x = y + d - band
            if 0 <= x < n:
                for k in range(n_levels):
                    diagonals[d, k * stride + y] = transition[x, y]
    return diagonals


@njit(cache=True, nogil=True, error_model="numpy")
def exponentials(columns: Array, largest: Array, first: bool) -> None:
    """Raise `largest` to the row maxima, or take it off and replace columns by exponentials."""
    n_rows, n_columns = columns.shape
    if first:
        for t in range(n_rows):
            top = largest[t]
            for c in range(n_columns):
                if columns[t, c] > top:
                    top = columns[t, c]
            largest[t] = top
        return
    power = np.empty(n_columns)
    for t in range(n_rows):
        row = columns[t]
        top = largest[t]
        for c in range(n_columns):
            row[c] -= top
        exponential(row, power)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def fill_matrices(
    matrices: Array, at: Index, mixed: Array, i: int, j: int, weights: Array, n_points: int
) -> None:
    """Add the switches of a pair of levels to the matrices of its bins, in place.

    Parameters
    ----------
    matrices
        Shape ``(n_active, n_levels, n_levels, n_points)``.
    at
        Matrix of each row of `mixed`.
    mixed
        Likelihood of the mixtures, shape ``(n_rows, n_nodes * n_points)``.
    weights
        Of the pair: shape ``(4, n_nodes)``.
    """
    n_nodes = weights.shape[1]
    for r in range(at.shape[0]):
        matrix = matrices[at[r]]
        for m in range(n_nodes):
            w0, w1, w2, w3 = weights[0, m], weights[1, m], weights[2, m], weights[3, m]
            start = m * n_points
            for x in range(n_points):
                value = mixed[r, start + x]
                matrix[i, j, x] += w0 * value
                matrix[j, i, x] += w1 * value
                matrix[i, i, x] += w2 * value
                matrix[j, j, x] += w3 * value


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _flicker(padded: Array, diagonals: Array, moved: Array) -> None:
    """Move the flicker on by a bin, in all levels at once.

    `padded` has a gap of the band's width before the first level and behind each; `moved` is the
    same without the first gap, and its gaps come out as zeros.
    """
    width = diagonals.shape[1]
    n_diagonals = diagonals.shape[0]
    first, here = diagonals[0], padded[:width]
    for c in range(width):
        moved[c] = first[c] * here[c]
    d = 1
    # four, then two diagonals at a time: fewer loads and stores. Slices, because an offset that
    # might be negative is checked at every place
    while d + 3 < n_diagonals:
        d0, d1, d2, d3 = diagonals[d], diagonals[d + 1], diagonals[d + 2], diagonals[d + 3]
        p0, p1 = padded[d : d + width], padded[d + 1 : d + 1 + width]
        p2, p3 = padded[d + 2 : d + 2 + width], padded[d + 3 : d + 3 + width]
        for c in range(width):
            moved[c] += d0[c] * p0[c] + d1[c] * p1[c] + d2[c] * p2[c] + d3[c] * p3[c]
        d += 4
    while d + 1 < n_diagonals:
        d0, d1 = diagonals[d], diagonals[d + 1]
        p0, p1 = padded[d : d + width], padded[d + 1 : d + 1 + width]
        for c in range(width):
            moved[c] += d0[c] * p0[c] + d1[c] * p1[c]
        d += 2


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def forward(
    pure: Array,
    matrix_of_bin: Index,
    matrices: Array,
    diagonals: Array,
    initial: Array,
    messages: Array,
    stepped: Array,
) -> float:
    """Log-likelihood of the scaled columns; fills the messages where there is room for them.

    Parameters
    ----------
    pure
        Likelihood of each bin in each level and point, staying included, shape
        ``(n_bins, n_levels, n_points)``.
    matrix_of_bin
        Matrix of each bin, or -1 where no level can change.
    matrices
        Shape ``(n_active, n_levels, n_levels, n_points)``, staying included.
    diagonals
        Of the transitions of the flicker (`band_diagonals`).
    initial
        Shape ``(n_levels, n_points)``.
    messages
        Room for the messages before each bin, ``(n_bins, n_levels, n_points)``; of length 0 if they
        are not wanted.
    stepped
        Room for the messages after the levels' step and before the flicker's, like `pure`.
    """
    n_bins, n_levels, n_points = pure.shape
    band = diagonals.shape[0] // 2
    stride = n_points + band
    keep = messages.shape[0] > 0
    message = np.zeros(n_levels * stride)
    padded = np.zeros(band + n_levels * stride + band)
    for k in range(n_levels):
        for x in range(n_points):
            message[k * stride + x] = initial[k, x]
    total = 0.0
    for t in range(n_bins):
        at = matrix_of_bin[t]
        if keep:
            for k in range(n_levels):
                for x in range(n_points):
                    messages[t, k, x] = message[k * stride + x]
        if at < 0:
            for k in range(n_levels):
                here = k * stride
                for x in range(n_points):
                    padded[band + here + x] = message[here + x] * pure[t, k, x]
        else:
            for j in range(n_levels):
                there = band + j * stride
                for x in range(n_points):
                    padded[there + x] = message[x] * matrices[at, 0, j, x]
                for i in range(1, n_levels):
                    here = i * stride
                    for x in range(n_points):
                        padded[there + x] += message[here + x] * matrices[at, i, j, x]
        if keep:
            for k in range(n_levels):
                here = band + k * stride
                for x in range(n_points):
                    stepped[t, k, x] = padded[here + x]
        _flicker(padded, diagonals, message)
        norm = 0.0
        for c in range(message.shape[0]):
            value = message[c]
            value = value if value > _NONE else 0.0
            message[c] = value
            norm += value
        if norm < _SMALL or not norm > 0.0 or keep:
            if not norm > 0.0:
                return -math.inf
            total += math.log(norm)
            scale = 1.0 / norm
            for c in range(message.shape[0]):
                message[c] *= scale
    return total + math.log(message.sum())


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def backward(
    pure: Array,
    matrix_of_bin: Index,
    matrices: Array,
    back: Array,
    messages: Array,
    stepped: Array,
    pure_mass: Array,
    matrix_mass: Array,
    afters: Array,
) -> None:
    """Backward pass: posterior probabilities, from what `forward` left.

    `back` has the diagonals of the transposed transition matrix of the flicker. Fills `pure_mass`,
    like `pure`: the probability of having been there, to be ignored in bins with a matrix;
    `matrix_mass`, like `matrices`: derivative of the log-likelihood by each entry; and `afters`,
    like `pure`: what follows each bin, whose product with `stepped` is the derivative by the
    transitions of the flicker.
    """
    n_bins, n_levels, n_points = pure.shape
    band = back.shape[0] // 2
    stride = n_points + band
    padded = np.zeros(band + n_levels * stride + band)
    before = np.zeros(n_levels * stride)
    for k in range(n_levels):
        for x in range(n_points):
            padded[band + k * stride + x] = 1.0
    for t in range(n_bins - 1, -1, -1):
        at = matrix_of_bin[t]
        _flicker(padded, back, before)
        total = 0.0
        for k in range(n_levels):
            here = k * stride
            for x in range(n_points):
                total += stepped[t, k, x] * before[here + x]
        scale = 1.0 / total
        for k in range(n_levels):
            here = k * stride
            for x in range(n_points):
                afters[t, k, x] = padded[band + here + x] * scale
        for c in range(before.shape[0]):
            # a state that cannot be reached may have any future: it must not overflow
            value = min(before[c] * scale, _LARGE)
            before[c] = value if value > _NONE else 0.0
        if at < 0:
            for k in range(n_levels):
                here = k * stride
                for x in range(n_points):
                    pure_mass[t, k, x] = stepped[t, k, x] * before[here + x]
                    padded[band + here + x] = pure[t, k, x] * before[here + x]
        else:
            for i in range(n_levels):
                here = band + i * stride
                for x in range(n_points):
                    padded[here + x] = 0.0
                for j in range(n_levels):
                    there = j * stride
                    for x in range(n_points):
                        matrix_mass[at, i, j, x] = messages[t, i, x] * before[there + x]
                        padded[here + x] += matrices[at, i, j, x] * before[there + x]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def gather_mass(
    matrix_mass: Array, at: Index, mixed: Array, i: int, j: int, weights: Array, n_points: int
) -> tuple[Array, Array]:
    """Carry the derivative by matrices back to mixtures and weights of a pair.

    Returns
    -------
    mixed_mass : ndarray
        Probability of each mixture in each of its rows, like `mixed`.
    weight_slope : ndarray
        Derivative by the weights, like `weights`.
    """
    n_nodes = weights.shape[1]
    mass = np.empty_like(mixed)
    slope = np.zeros_like(weights)
    for r in range(at.shape[0]):
        matrix = matrix_mass[at[r]]
        for m in range(n_nodes):
            w0, w1, w2, w3 = weights[0, m], weights[1, m], weights[2, m], weights[3, m]
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            start = m * n_points
            for x in range(n_points):
                value = mixed[r, start + x]
                a, b, c, d = matrix[i, j, x], matrix[j, i, x], matrix[i, i, x], matrix[j, j, x]
                mass[r, start + x] = value * (w0 * a + w1 * b + w2 * c + w3 * d)
                s0 += value * a
                s1 += value * b
                s2 += value * c
                s3 += value * d
            slope[0, m] += s0
            slope[1, m] += s1
            slope[2, m] += s2
            slope[3, m] += s3
    return mass, slope
