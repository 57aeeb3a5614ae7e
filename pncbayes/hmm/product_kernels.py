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

__all__ = ["backward", "band_diagonals", "exponentials", "fill_matrices", "forward", "gather_mass"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST = {"contract", "reassoc"}
_SMALL, _LARGE = 1e-100, 1e200
# Probability of a move of the flicker in one bin that never matters.
_NEGLIGIBLE = 1e-9


@njit(cache=True, nogil=True, error_model="numpy")
def band_diagonals(transition: Array) -> Array:
    """Diagonals of a transition matrix that are not negligible.

    Returns
    -------
    ndarray
        Shape ``(2 * band + 1, n_points)``: at ``[d, y]`` the move to y from y + d - band.
    """
    n = transition.shape[0]
    band = 0
    for i in range(n):
        for j in range(n):
            if transition[i, j] > _NEGLIGIBLE and abs(i - j) > band:
                band = abs(i - j)
    diagonals = np.zeros((2 * band + 1, n))
    for d in range(2 * band + 1):
        for y in range(n):
            x = y + d - band
            if 0 <= x < n:
                diagonals[d, y] = transition[x, y]
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
def _flicker(message: Array, diagonals: Array, moved: Array, padded: Array) -> None:
    """Move the flicker on by a bin: ``moved[k, y] = sum_x message[k, x] transition[x, y]``.

    `diagonals` is the band of the transition matrix (`band_diagonals`), `padded` room for one
    message with nothing on both sides: loops of one fixed length are what a compiler does best.
    """
    n_levels, n_points = message.shape
    band = diagonals.shape[0] // 2
    for k in range(n_levels):
        for x in range(n_points):
            padded[band + x] = message[k, x]
        row = moved[k]
        for y in range(n_points):
            row[y] = 0.0
        for d in range(2 * band + 1):
            weight = diagonals[d]
            part = padded[d : d + n_points]
            for y in range(n_points):
                row[y] += weight[y] * part[y]


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
        Room for the messages before each bin and after the last, ``(n_bins + 1, n_levels,
        n_points)``; of length 0 if they are not wanted.
    stepped
        Room for the messages after the levels' step and before the flicker's, like `pure`.
    """
    n_bins, n_levels, n_points = pure.shape
    keep = messages.shape[0] > 0
    message = initial.copy()
    levels = np.empty_like(message)
    padded = np.zeros(n_points + diagonals.shape[0] - 1)
    total = 0.0
    if keep:
        messages[0] = message
    for t in range(n_bins):
        at = matrix_of_bin[t]
        if at < 0:
            for k in range(n_levels):
                for x in range(n_points):
                    levels[k, x] = message[k, x] * pure[t, k, x]
        else:
            for j in range(n_levels):
                for x in range(n_points):
                    levels[j, x] = 0.0
            for i in range(n_levels):
                for j in range(n_levels):
                    for x in range(n_points):
                        levels[j, x] += message[i, x] * matrices[at, i, j, x]
        if keep:
            stepped[t] = levels
        _flicker(levels, diagonals, message, padded)
        norm = 0.0
        for k in range(n_levels):
            for x in range(n_points):
                norm += message[k, x]
        if keep or norm < _SMALL:
            if not norm > 0.0:
                return -math.inf
            total += math.log(norm)
            scale = 1.0 / norm
            for k in range(n_levels):
                for x in range(n_points):
                    message[k, x] *= scale
            if keep:
                messages[t + 1] = message
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

    `back` has the diagonals of the transposed transition matrix of the flicker. Fills `pure_mass`, like `pure`: the
    probability of having been there, to be ignored in bins with a matrix; `matrix_mass`, like
    `matrices`: derivative of the log-likelihood by each entry; and `afters`, like `pure`: what
    follows each bin, whose product with `stepped` is the derivative by the
    transitions of the flicker.
    """
    n_bins, n_levels, n_points = pure.shape
    after = np.ones((n_levels, n_points))
    before = np.empty((n_levels, n_points))
    padded = np.zeros(n_points + back.shape[0] - 1)
    for t in range(n_bins - 1, -1, -1):
        at = matrix_of_bin[t]
        _flicker(after, back, before, padded)
        total = 0.0
        for k in range(n_levels):
            for x in range(n_points):
                total += stepped[t, k, x] * before[k, x]
        scale = 1.0 / total
        for k in range(n_levels):
            for x in range(n_points):
                afters[t, k, x] = after[k, x] * scale
                # a state that cannot be reached may have any future: it must not overflow
                before[k, x] = min(before[k, x] * scale, _LARGE)
                after[k, x] = 0.0
        if at < 0:
            for k in range(n_levels):
                for x in range(n_points):
                    pure_mass[t, k, x] = stepped[t, k, x] * before[k, x]
                    after[k, x] = pure[t, k, x] * before[k, x]
        else:
            for i in range(n_levels):
                for j in range(n_levels):
                    for x in range(n_points):
                        matrix_mass[at, i, j, x] = messages[t, i, x] * before[j, x]
                        after[i, x] += matrices[at, i, j, x] * before[j, x]


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
