r"""Sum over the mechanisms of all dim states of a dot, whose weights are unknown.

The weights of a dot are Dirichlet(alpha). With them integrated out the mechanisms of its states
have the probability

.. math:: P(l_1 \dots l_n) = \prod_k \alpha_k^{(n_k)} / (\sum_k \alpha_k)^{(n)},

with the number n_k of states that have mechanism k and rising factorials [1]_: it depends on these
numbers alone, so that the sum over all mechanisms of all states is one over numbers, state by
state. For 11 dim states and 6 mechanisms these are 12,376 steps instead of 6^11, and it is exact.

References
----------
.. [1] Mosimann, J. E. On the compound multinomial distribution, the multivariate
   beta-distribution, and correlations among proportions. Biometrika 49, 65 (1962),
   doi:10.1093/biomet/49.1-2.65.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Counts", "draw_labels", "label_counts", "label_probabilities", "sum_over_labels"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Counts(NamedTuple):
    """Numbers of states of each mechanism, after each state.

    Attributes
    ----------
    start
        Index of the first vector of numbers after 0, 1, ... states, and the end; shape
        ``(n_states + 2,)``.
    after
        Index of the vector with one more of a mechanism, shape ``(n_vectors, n_labels)``; -1 in
        the last level.
    none
        Whether a vector of the last level lacks a mechanism, shape ``(n_last, n_labels)``.
    prior
        Probability of any one assignment with these numbers, shape ``(n_last,)``.
    """

    start: Indices
    after: Indices
    none: NDArray[np.bool_]
    prior: Array


@functools.lru_cache(maxsize=32)
def label_counts(n_states: int, concentrations: tuple[float, ...]) -> Counts:
    """Make the table for a number of dim states.

    Parameters
    ----------
    n_states
        Dim states, 0 or more.
    concentrations
        Of the Dirichlet prior of the weights, above 0.
    """
    n_labels = len(concentrations)
    levels = [[(0,) * n_labels]]
    for _ in range(n_states):
        found: dict[tuple[int, ...], None] = {}
        for vector in levels[-1]:
            for k in range(n_labels):
                found[(*vector[:k], vector[k] + 1, *vector[k + 1 :])] = None
        levels.append(list(found))
    place = {vector: i for i, vector in enumerate(v for level in levels for v in level)}
    after = np.full((len(place), n_labels), -1)
    for vector, i in place.items():
        for k in range(n_labels):
            after[i, k] = place.get((*vector[:k], vector[k] + 1, *vector[k + 1 :]), -1)
    last = np.array(levels[-1])
    alpha, total = np.array(concentrations), float(sum(concentrations))
    prior = np.ones(len(last))
    for step in range(n_states):
        prior *= np.where(last > step, alpha + step, 1.0).prod(axis=1) / (total + step)
    start = np.cumsum([0, *(len(level) for level in levels)])
    return Counts(start, after, last == 0, prior)


@njit(cache=True, nogil=True, error_model="numpy")
def _onward(evidence: Array, reference: int, counts: Counts, shares: Array, onward: Array) -> float:
    """Fill, for each vector of numbers, the sum over the mechanisms of all states after it.

    `shares` are filled with the evidence over the largest of the state. Returns the sum of the
    logs of these largest ones.
    """
    n_levels = counts.start.size - 2
    begin = counts.start[n_levels]
    onward[begin:] = counts.prior
    total, level = 0.0, n_levels
    for s in range(evidence.shape[0] - 1, -1, -1):
        if s == reference:
            shares[s] = 0.0
            continue
        top = evidence[s].max()
        total += top
        shares[s] = np.exp(evidence[s] - top)
        level -= 1
        for i in range(counts.start[level], counts.start[level + 1]):
            value = 0.0
            for k in range(evidence.shape[1]):
                value += shares[s, k] * onward[counts.after[i, k]]
            onward[i] = value
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def sum_over_labels(evidence: Array, reference: int, counts: Counts) -> float:
    """Log of the sum over all mechanisms of all states.

    Parameters
    ----------
    evidence
        Log evidence of each mechanism of each state, shape ``(n_states, n_labels)``.
    reference
        Number of the state that has none; -1 if all have one.
    counts
        Of `label_counts`, for as many states as have a mechanism.
    """
    onward = np.empty(counts.after.shape[0])
    total = _onward(evidence, reference, counts, np.empty(evidence.shape), onward)
    value: float = total + np.log(onward[0])
    return value


def label_probabilities(evidence: Array, reference: int, counts: Counts) -> tuple[Array, Array]:
    """Probability of each mechanism of each state, and that some state has it.

    Parameters
    ----------
    evidence, reference, counts
        As in `sum_over_labels`.

    Returns
    -------
    ndarray, shape ``(n_states, n_labels)``
        Zeros for the reference.
    ndarray, shape ``(n_labels,)``
    """
    shares, onward = np.empty_like(evidence), np.empty(len(counts.after))
    _onward(evidence, reference, counts, shares, onward)
    probability = np.zeros_like(evidence)
    before, level = np.zeros(len(counts.after)), 0
    before[0] = 1.0
    for s in range(len(evidence)):
        if s == reference:
            continue
        own = slice(counts.start[level], counts.start[level + 1])
        after = counts.after[own]
        flow = before[own, None] * shares[s]
        probability[s] = (flow * onward[after]).sum(axis=0)
        np.add.at(before, after, flow)
        level += 1
    last = before[counts.start[level] :] * counts.prior
    return probability / onward[0], 1.0 - last @ counts.none / last.sum()


def draw_labels(
    evidence: Array, reference: int, counts: Counts, rng: np.random.Generator
) -> Indices:
    """Draw the mechanisms of all states together; -1 for the reference.

    Parameters
    ----------
    evidence, reference, counts
        As in `sum_over_labels`.
    rng
        Source of the draws.
    """
    shares, onward = np.empty_like(evidence), np.empty(len(counts.after))
    _onward(evidence, reference, counts, shares, onward)
    labels, vector = np.full(len(evidence), -1), 0
    for s in range(len(evidence)):
        if s == reference:
            continue
        weight = shares[s] * onward[counts.after[vector]]
        labels[s] = rng.choice(len(weight), p=weight / weight.sum())
        vector = counts.after[vector, labels[s]]
    return labels
