r"""What a bin sees of a hidden chain that switches inside it.

The chain is continuous in time; a bin of width :math:`\Delta` sees the mean over the bin of the
emission rates. For a pair of states (i, j) let w be the share of the bin spent in j. Paths that
stay within the pair have closed densities in w, to all orders in the number of switches [1]_:

.. math::

    i \to j: \quad & q_{ij}\Delta\, e^{-(q_i(1-w) + q_j w)\Delta}\, I_0(2\sqrt{x}) \\
    i \to i: \quad & e^{-q_i\Delta}\,\delta(w) +
        q_{ij} q_{ji}\Delta^2 (1-w)\, e^{-(q_i(1-w) + q_j w)\Delta}\, I_1(2\sqrt{x})/\sqrt{x}

with :math:`x = q_{ij} q_{ji} \Delta^2 w (1-w)` and :math:`q_i` the whole exit rate. They are exact
for two states. With more, the paths that visit a third state within one bin keep their
probability but not their own mixture: every row is scaled so that the kernel summed over all
data equals :math:`\exp(Q\Delta)`. Without that scaling rates come out several per cent low.

References
----------
.. [1] Pedler, P. J. Occupation times for two state Markov chains. J. Appl. Probab. 8, 381 (1971),
   doi:10.2307/3211908.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "n_pairs",
    "pair_nodes",
    "switch_weights",
    "switch_weights_pullback",
    "transition_matrix",
]

Array = NDArray[np.float64]

_TAYLOR_TERMS = 18


def n_pairs(n_states: int) -> int:
    """Count unordered pairs of states."""
    return n_states * (n_states - 1) // 2


def pair_nodes(n_nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on (0, 1), each of shape ``(n_nodes,)``."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return 0.5 * (nodes + 1.0), 0.5 * weights


@njit(cache=True, error_model="numpy")
def _scaled_series(rates: Array, width_s: float) -> tuple[Array, float, int]:
    """Nonnegative matrix, shift and number of halvings for the exponential of a generator."""
    n_states = rates.shape[0]
    shift = 0.0
    for i in range(n_states):
        out = 0.0
        for j in range(n_states):
            if j != i:
                out += rates[i, j]
        shift = max(shift, out * width_s)
    halvings = 0
    while shift > 0.5:
        shift *= 0.5
        halvings += 1
    scale = width_s / 2.0**halvings
    matrix = np.empty((n_states, n_states))
    for i in range(n_states):
        out = 0.0
        for j in range(n_states):
            if j != i:
                matrix[i, j] = rates[i, j] * scale
                out += matrix[i, j]
        matrix[i, i] = shift - out
    return matrix, shift, halvings


@njit(cache=True, error_model="numpy")
def _multiply(left: Array, right: Array) -> Array:
    # np.dot on matrices of six by six is all call overhead
    size = left.shape[0]
    product = np.zeros((size, size))
    for i in range(size):
        for k in range(size):
            factor = left[i, k]
            for j in range(size):
                product[i, j] += factor * right[k, j]
    return product


@njit(cache=True, error_model="numpy")
def transition_matrix(rates: Array, width_s: float) -> Array:
    """Exponential of a generator by uniformisation: every entry keeps its relative precision.

    Parameters
    ----------
    rates
        Transition rates per s, shape ``(n_states, n_states)``; the diagonal is ignored.
    width_s
        Time in s.

    Returns
    -------
    ndarray
        Transition probabilities, shape ``(n_states, n_states)``.
    """
    matrix, shift, halvings = _scaled_series(rates, width_s)
    n_states = rates.shape[0]
    term = np.eye(n_states)
    total = np.eye(n_states)
    for k in range(1, _TAYLOR_TERMS):
        term = _multiply(term, matrix) / k
        total += term
    total *= math.exp(-shift)
    for _ in range(halvings):
        total = _multiply(total, total)
    return total


@njit(cache=True, error_model="numpy")
def _transition_pullback(rates: Array, width_s: float, cotangent: Array) -> Array:
    """Return the derivative of ``sum(cotangent * transition_matrix)`` by the generator."""
    matrix, shift, halvings = _scaled_series(rates, width_s)
    matrix = matrix.T.copy()
    n_states = rates.shape[0]
    direction = cotangent * (width_s / 2.0**halvings)
    term = np.eye(n_states)
    total = np.eye(n_states)
    slope_term = np.zeros((n_states, n_states))
    slope = np.zeros((n_states, n_states))
    for k in range(1, _TAYLOR_TERMS + 1):
        slope_term = (_multiply(matrix, slope_term) + _multiply(direction, term)) / k
        term = _multiply(matrix, term) / k
        slope += slope_term
        total += term
    factor = math.exp(-shift)
    slope *= factor
    total *= factor
    for _ in range(halvings):
        slope = _multiply(total, slope) + _multiply(slope, total)
        total = _multiply(total, total)
    return slope


@njit(cache=True, error_model="numpy")
def _bessel_series(x: float) -> tuple[float, float, float]:
    """Return sums over k of x^k/(k! k!), x^k/(k! (k+1)!), x^k/(k! (k+2)!)."""
    zeroth, first, second = 1.0, 1.0, 0.5
    term = 1.0
    k = 0
    while True:
        k += 1
        term *= x / (k * k)
        zeroth += term
        first += term / (k + 1)
        second += term / ((k + 1) * (k + 2))
        if term < 1e-17 * zeroth or k > 2000:
            return zeroth, first, second


@njit(cache=True, error_model="numpy")
def switch_weights(
    rates: Array, width_s: float, nodes: Array, node_weights: Array
) -> tuple[Array, Array]:
    """Weights of the emission columns in the matrix of a bin.

    Parameters
    ----------
    rates
        Transition rates per s, shape ``(n_states, n_states)``; the diagonal is ignored.
    width_s
        Bin width in s.
    nodes, node_weights
        Shares of the bin spent in the second state of a pair, and their quadrature weights, each
        of shape ``(n_nodes,)``.

    Returns
    -------
    stay : ndarray
        Probability of no switch, shape ``(n_states,)``.
    pair_weights : ndarray
        Shape ``(n_pairs, 4, n_nodes)``: for the pair i < j, the weights of its mixed columns in
        the entries (i, j), (j, i), (i, i) and (j, j).
    """
    n_states = rates.shape[0]
    n_nodes = nodes.shape[0]
    pair_weights = np.zeros((n_states * (n_states - 1) // 2, 4, n_nodes))
    leave = np.zeros(n_states)
    for i in range(n_states):
        for j in range(n_states):
            if j != i:
                leave[i] += rates[i, j]
    stay = np.exp(-leave * width_s)
    transitions = transition_matrix(rates, width_s)
    returns = np.zeros(n_states)
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            product = rates[i, j] * rates[j, i] * width_s * width_s
            norm = 0.0
            for m in range(n_nodes):
                w = nodes[m]
                survive = node_weights[m] * math.exp(
                    -(leave[i] * (1.0 - w) + leave[j] * w) * width_s
                )
                zeroth, first, _ = _bessel_series(product * w * (1.0 - w))
                pair_weights[pair, 0, m] = survive * zeroth
                norm += survive * zeroth
                pair_weights[pair, 2, m] = product * (1.0 - w) * survive * first
                pair_weights[pair, 3, m] = product * w * survive * first
                returns[i] += pair_weights[pair, 2, m]
                returns[j] += pair_weights[pair, 3, m]
            for m in range(n_nodes):
                share = pair_weights[pair, 0, m] / norm
                pair_weights[pair, 0, m] = transitions[i, j] * share
                pair_weights[pair, 1, m] = transitions[j, i] * share
            pair += 1
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            for m in range(n_nodes):
                if returns[i] > 0.0:
                    pair_weights[pair, 2, m] *= max(transitions[i, i] - stay[i], 0.0) / returns[i]
                if returns[j] > 0.0:
                    pair_weights[pair, 3, m] *= max(transitions[j, j] - stay[j], 0.0) / returns[j]
            pair += 1
    return stay, pair_weights


@njit(cache=True, error_model="numpy")
def switch_weights_pullback(
    rates: Array,
    width_s: float,
    nodes: Array,
    node_weights: Array,
    stay_cotangent: Array,
    pair_cotangent: Array,
) -> Array:
    """Return the derivative by the rates, given those with respect to the weights.

    Parameters are those of `switch_weights` and the cotangents of what it returns.

    Returns
    -------
    ndarray
        Shape ``(n_states, n_states)``, zero on the diagonal.
    """
    n_states = rates.shape[0]
    n_nodes = nodes.shape[0]
    leave = np.zeros(n_states)
    for i in range(n_states):
        for j in range(n_states):
            if j != i:
                leave[i] += rates[i, j]
    stay = np.exp(-leave * width_s)
    transitions = transition_matrix(rates, width_s)
    count = n_states * (n_states - 1) // 2
    survive = np.empty((count, n_nodes))
    series = np.empty((count, n_nodes, 3))
    returns = np.zeros(n_states)
    scale_cotangent = np.zeros(n_states)
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            product = rates[i, j] * rates[j, i] * width_s * width_s
            for m in range(n_nodes):
                w = nodes[m]
                e = node_weights[m] * math.exp(-(leave[i] * (1.0 - w) + leave[j] * w) * width_s)
                survive[pair, m] = e
                zeroth, first, second = _bessel_series(product * w * (1.0 - w))
                series[pair, m, 0] = zeroth
                series[pair, m, 1] = first
                series[pair, m, 2] = second
                back_i = product * (1.0 - w) * e * first
                back_j = product * w * e * first
                returns[i] += back_i
                returns[j] += back_j
                scale_cotangent[i] += pair_cotangent[pair, 2, m] * back_i
                scale_cotangent[j] += pair_cotangent[pair, 3, m] * back_j
            pair += 1

    slope = np.zeros((n_states, n_states))
    leave_cotangent = np.zeros(n_states)
    transition_cotangent = np.zeros((n_states, n_states))
    scale = np.zeros(n_states)
    returns_cotangent = np.zeros(n_states)
    for i in range(n_states):
        leave_cotangent[i] -= stay_cotangent[i] * width_s * stay[i]
        gap = transitions[i, i] - stay[i]
        if returns[i] > 0.0 and gap > 0.0:
            scale[i] = gap / returns[i]
            gap_cotangent = scale_cotangent[i] / returns[i]
            returns_cotangent[i] = -scale_cotangent[i] * scale[i] / returns[i]
            transition_cotangent[i, i] += gap_cotangent
            leave_cotangent[i] += gap_cotangent * width_s * stay[i]
    pair = 0
    for i in range(n_states):
        for j in range(i + 1, n_states):
            product = rates[i, j] * rates[j, i] * width_s * width_s
            norm = 0.0
            for m in range(n_nodes):
                norm += survive[pair, m] * series[pair, m, 0]
            mean = 0.0
            for m in range(n_nodes):
                share = survive[pair, m] * series[pair, m, 0] / norm
                transition_cotangent[i, j] += pair_cotangent[pair, 0, m] * share
                transition_cotangent[j, i] += pair_cotangent[pair, 1, m] * share
                mean += share * (
                    pair_cotangent[pair, 0, m] * transitions[i, j]
                    + pair_cotangent[pair, 1, m] * transitions[j, i]
                )
            product_cotangent = 0.0
            for m in range(n_nodes):
                w = nodes[m]
                e = survive[pair, m]
                forward_cotangent = (
                    pair_cotangent[pair, 0, m] * transitions[i, j]
                    + pair_cotangent[pair, 1, m] * transitions[j, i]
                    - mean
                ) / norm
                back_i = pair_cotangent[pair, 2, m] * scale[i] + returns_cotangent[i]
                back_j = pair_cotangent[pair, 3, m] * scale[j] + returns_cotangent[j]
                back = back_i * (1.0 - w) + back_j * w
                product_cotangent += back * e * series[pair, m, 1]
                e_cotangent = forward_cotangent * series[pair, m, 0]
                e_cotangent += back * product * series[pair, m, 1]
                x_cotangent = e * (
                    forward_cotangent * series[pair, m, 1] + back * product * series[pair, m, 2]
                )
                product_cotangent += x_cotangent * w * (1.0 - w)
                leave_cotangent[i] -= e_cotangent * e * (1.0 - w) * width_s
                leave_cotangent[j] -= e_cotangent * e * w * width_s
            slope[i, j] += product_cotangent * rates[j, i] * width_s * width_s
            slope[j, i] += product_cotangent * rates[i, j] * width_s * width_s
            pair += 1
    generator_cotangent = _transition_pullback(rates, width_s, transition_cotangent)
    for i in range(n_states):
        for j in range(n_states):
            if i != j:
                slope[i, j] += (
                    generator_cotangent[i, j] - generator_cotangent[i, i] + leave_cotangent[i]
                )
            else:
                slope[i, i] = 0.0
    return slope
