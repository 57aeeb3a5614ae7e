"""The likelihood in plain NumPy: slow, short, and the definition of what is right.

`exact_count_matrices` goes further than the fast kernels: it has no approximation in the number
of switches within a bin and serves to measure theirs.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import ive
from scipy.stats import nbinom, poisson

__all__ = [
    "bin_matrices",
    "exact_count_matrices",
    "generator",
    "log_likelihood",
    "log_likelihood_by_enumeration",
]

Array = NDArray[np.float64]


def generator(transition_rate_per_s: Array) -> Array:
    """Make a generator from transition rates per s: the diagonal makes each row sum to zero."""
    matrix = np.array(transition_rate_per_s, dtype=float)
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def bin_matrices(
    counts: Array,
    width_s: float,
    gate_rate_per_s: Array,
    transition_rate_per_s: Array,
    n_nodes: int,
    excess: Array | None = None,
) -> Array:
    """Probability of the counts of each bin and of its last state, given its first state.

    Parameters
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    gate_rate_per_s
        Shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``; the diagonal is ignored.
    n_nodes
        Gauss-Legendre nodes per pair.
    excess
        Excess variance ratio of each state, shape ``(n_states,)``: totals are negative binomial
        of variance ``(1 + excess) mean``, gates given the total multinomial. Counts of the parts
        of a bin are independent, so their variances add up: the ratio of a mixture is the mean
        of the ratios, weighted by the expected counts.

    Returns
    -------
    ndarray
        Shape ``(n_bins, n_states, n_states)``. The formulas are in `pncbayes.hmm.switching`.
    """
    rates = generator(transition_rate_per_s)
    leave = -np.diag(rates)
    n_states = leave.size
    transitions = expm(rates * width_s)
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    nodes, weights = (nodes + 1) / 2, weights / 2

    means = gate_rate_per_s * width_s

    def probability(shares: Array) -> Array:
        mean = shares @ means
        product: Array = poisson.pmf(counts, mean).prod(axis=-1)
        if excess is not None:
            totals, brightness = counts.sum(axis=-1), mean.sum()
            ratio = shares @ (means.sum(axis=-1) * excess) / brightness
            product /= poisson.pmf(totals, brightness)
            product *= nbinom.pmf(totals, brightness / ratio, 1.0 / (1.0 + ratio))
        return product

    pure = np.eye(n_states)
    matrices = np.zeros((len(counts), n_states, n_states))
    returns = np.zeros(n_states)
    returning = np.zeros((len(counts), n_states))
    for i, j in itertools.permutations(range(n_states), 2):
        survive = weights * np.exp(-(leave[i] * (1 - nodes) + leave[j] * nodes) * width_s)
        product = rates[i, j] * rates[j, i] * width_s**2
        # the limit of I1(2 r) / r where there is no way back is 1
        root = np.sqrt(product * nodes * (1 - nodes))
        over_root = np.ones_like(root)
        np.divide(ive(1, 2 * root) * np.exp(2 * root), root, out=over_root, where=root > 0)
        # ive is scaled by exp(-argument)
        across = survive * ive(0, 2 * root) * np.exp(2 * root)
        back = survive * product * (1 - nodes) * over_root
        mixed = np.stack([probability((1 - w) * pure[i] + w * pure[j]) for w in nodes], axis=-1)
        matrices[:, i, j] = transitions[i, j] * (mixed @ (across / across.sum()))
        returns[i] += back.sum()
        returning[:, i] += mixed @ back
    for i in range(n_states):
        stay = np.exp(-leave[i] * width_s)
        matrices[:, i, i] = stay * probability(pure[i])
        if returns[i] > 0:
            matrices[:, i, i] += (transitions[i, i] - stay) * returning[:, i] / returns[i]
    return matrices


def exact_count_matrices(
    n_max: int, width_s: float, rate_per_s: Array, transition_rate_per_s: Array
) -> Array:
    """Exact matrices of the total counts 0..n_max of a Markov-modulated Poisson process.

    Doubles a short interval by convolution, in which every term is positive: relative precision
    holds in the tails too.

    Returns
    -------
    ndarray
        Shape ``(n_max + 1, n_states, n_states)``.
    """
    rates = generator(transition_rate_per_s)
    n_states = rates.shape[0]
    fastest = max(rate_per_s.max(), -rates.min()) * width_s
    halvings = max(0, int(np.ceil(np.log2(fastest / 1e-3))))
    step = width_s / 2**halvings
    # at most four events in the first interval: expm of a block matrix that counts them
    block = np.zeros((5 * n_states, 5 * n_states))
    for k in range(5):
        here = slice(k * n_states, (k + 1) * n_states)
        block[here, here] = rates - np.diag(rate_per_s)
        if k < 4:
            block[here, (k + 1) * n_states : (k + 2) * n_states] = np.diag(rate_per_s)
    first = expm(block * step)[:n_states]
    matrices = np.zeros((n_max + 1, n_states, n_states))
    for k in range(min(5, n_max + 1)):
        matrices[k] = first[:, k * n_states : (k + 1) * n_states]
    for _ in range(halvings):
        doubled = np.zeros_like(matrices)
        for n in range(n_max + 1):
            if matrices[n].any():
                doubled[n:] += np.einsum("ij,njk->nik", matrices[n], matrices[: n_max + 1 - n])
        matrices = doubled
    return matrices


def log_likelihood(matrices: Array, initial: Array) -> float:
    """Log of the initial state times the product of the matrices, summed over last states."""
    state = np.array(initial, dtype=float)
    total = 0.0
    for matrix in matrices:
        state = state @ matrix
        norm = state.sum()
        total += np.log(norm)
        state /= norm
    return float(total)


def log_likelihood_by_enumeration(matrices: Array, initial: Array) -> float:
    """Return the same by summing over every path of states at the bin edges."""
    n_bins, n_states = matrices.shape[:2]
    total = 0.0
    for path in itertools.product(range(n_states), repeat=n_bins + 1):
        probability = initial[path[0]]
        for t in range(n_bins):
            probability *= matrices[t, path[t], path[t + 1]]
        total += probability
    return float(np.log(total))
