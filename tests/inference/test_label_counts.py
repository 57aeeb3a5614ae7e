"""The sum over mechanisms of all states, against every assignment in turn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pncbayes.inference.label_counts import (
    draw_labels,
    label_counts,
    label_probabilities,
    sum_over_labels,
)

CONCENTRATIONS = (0.5, 1.0, 2.5, 1e-12)


def enumerated(evidence: np.ndarray, reference: int) -> dict[tuple[int, ...], float]:
    """Weight of each assignment: Polya's urn, one state after the other."""
    alpha, total = np.array(CONCENTRATIONS), sum(CONCENTRATIONS)
    states = [s for s in range(len(evidence)) if s != reference]
    weights = {}
    for labels in itertools.product(range(len(alpha)), repeat=len(states)):
        weight, seen = 1.0, np.zeros(len(alpha))
        for s, k in zip(states, labels, strict=True):
            weight *= math.exp(evidence[s, k]) * (alpha[k] + seen[k]) / (total + seen.sum())
            seen[k] += 1
        weights[labels] = weight
    return weights


@pytest.mark.parametrize("reference", [-1, 0, 2])
@pytest.mark.parametrize("n_states", [3, 4])
def test_sum_and_probabilities_are_those_of_all_assignments(reference: int, n_states: int) -> None:
    rng = np.random.default_rng(n_states)
    evidence = 2.0 * rng.standard_normal((n_states, len(CONCENTRATIONS))) - 3.0
    states = [s for s in range(n_states) if s != reference]
    counts = label_counts(len(states), CONCENTRATIONS)
    weights = enumerated(evidence, reference)
    whole = sum(weights.values())
    assert sum_over_labels(evidence, reference, counts) == pytest.approx(math.log(whole))
    probability, takes_part = label_probabilities(evidence, reference, counts)
    expected, part = np.zeros_like(evidence), np.zeros(len(CONCENTRATIONS))
    for labels, weight in weights.items():
        expected[states, labels] += weight / whole
        part[list(set(labels))] += weight / whole
    np.testing.assert_allclose(probability, expected, atol=1e-12)
    np.testing.assert_allclose(takes_part, part, atol=1e-12)
    draws = [tuple(draw_labels(evidence, reference, counts, rng)[states]) for _ in range(4000)]
    common = max(weights, key=weights.__getitem__)
    share = weights[common] / whole
    assert draws.count(common) / 4000 == pytest.approx(
        share, abs=4 * math.sqrt(share * (1 - share) / 4000)
    )


def test_states_that_share_a_mechanism_are_more_probable_than_by_chance() -> None:
    evidence = np.zeros((2, 6))
    evidence[0, 0] = 20.0
    probability, _ = label_probabilities(evidence, -1, label_counts(2, (1.0,) * 6))
    np.testing.assert_allclose(probability[1], [2 / 7, *[1 / 7] * 5], rtol=1e-6)
    fixed, _ = label_probabilities(evidence, -1, label_counts(2, (1e9,) * 6))
    np.testing.assert_allclose(fixed[1], 1 / 6, rtol=1e-6)


def test_eleven_dim_states_are_summed_exactly() -> None:
    """With a concentration without end the weights are known, and states independent."""
    rng = np.random.default_rng(1)
    evidence = 100.0 * rng.standard_normal((12, 6))
    counts = label_counts(11, (1e12,) * 6)
    assert len(counts.after) == math.comb(17, 6)
    expected = np.log(np.exp(evidence[1:] - evidence[1:].max(axis=1)[:, None]).sum(axis=1) / 6.0)
    assert sum_over_labels(evidence, 0, counts) == pytest.approx(
        (expected + evidence[1:].max(axis=1)).sum()
    )


def test_nothing_to_sum_without_dim_states() -> None:
    counts = label_counts(0, (1.0, 1.0))
    assert sum_over_labels(np.zeros((1, 2)), 0, counts) == 0.0
    probability, takes_part = label_probabilities(np.zeros((1, 2)), 0, counts)
    assert not probability.any()
    assert not takes_part.any()
