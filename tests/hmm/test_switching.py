"""Weights of the paths within a bin against exponentials of generators and exact counting."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.stats import poisson

from pncbayes.hmm import reference
from pncbayes.hmm.numba_columns import bin_matrices
from pncbayes.hmm.switching import (
    n_pairs,
    pair_nodes,
    switch_weights,
    switch_weights_pullback,
    transition_matrix,
)

Array = NDArray[np.float64]

WIDTH_S = 0.01
# the longest exit per bin that a grid of the library's own choice may have is 0.2
EXITS_PER_BIN = [1e-8, 1e-3, 0.1, 1.0, 2.0]


def random_rates(n_states: int, exits_per_bin: float, seed: int = 0) -> Array:
    """Uneven transition rates per s, the fastest exit of which is given per bin."""
    rates: Array = np.random.default_rng(seed).random((n_states, n_states)) ** 3 + 1e-4
    np.fill_diagonal(rates, 0.0)
    return rates * exits_per_bin / WIDTH_S / max(rates.sum(axis=1).max(), 1e-300)


def counted_matrices(
    rate_per_s: Array, rates: Array, n_max: int, n_nodes: int, width_s: float = WIDTH_S
) -> Array:
    """Matrices of the total counts 0 to n_max by the compiled kernel."""
    nodes, node_weights = pair_nodes(n_nodes)
    stay, pair_weights = switch_weights(rates, width_s, nodes, node_weights)
    mixed = [
        (1 - w) * rate_per_s[i] + w * rate_per_s[j]
        for i in range(rate_per_s.size)
        for j in range(i + 1, rate_per_s.size)
        for w in nodes
    ]
    means = np.concatenate([rate_per_s, mixed]) * width_s
    columns = poisson.pmf(np.arange(n_max + 1)[:, None], means)
    matrices: Array = bin_matrices(np.ascontiguousarray(columns), stay, pair_weights)
    return matrices


@pytest.mark.parametrize("n_nodes", [1, 4, 16, 48])
def test_nodes_integrate_polynomials(n_nodes: int) -> None:
    nodes, weights = pair_nodes(n_nodes)
    assert ((nodes > 0) & (nodes < 1)).all()
    for power in range(2 * n_nodes):
        assert weights @ nodes**power == pytest.approx(1.0 / (power + 1), rel=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("exits_per_bin", [*EXITS_PER_BIN, 30.0])
def test_transition_matrix_equals_expm(n_states: int, exits_per_bin: float) -> None:
    rates = random_rates(n_states, exits_per_bin, seed=n_states)
    # whatever stands on the diagonal has no say
    given = rates + np.diag(np.full(n_states, 7.0))
    expected = expm(reference.generator(rates) * WIDTH_S)
    np.testing.assert_allclose(transition_matrix(given, WIDTH_S), expected, rtol=1e-12, atol=0)


def test_transition_matrix_keeps_the_precision_of_rare_transitions() -> None:
    """From 0 to 2 only by way of 1, a billion times rarer than expm's rounding of the diagonal."""
    rates = np.array([[0.0, 1e-6, 0.0], [0.0, 0.0, 2e-6], [5.0, 0.0, 0.0]])
    found = transition_matrix(rates, WIDTH_S)
    assert found[0, 2] == pytest.approx(0.5 * 1e-6 * 2e-6 * WIDTH_S**2, rel=1e-1)
    assert found[2, 1] == pytest.approx(0.5 * 5.0 * 1e-6 * WIDTH_S**2, rel=0.05)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("exits_per_bin", EXITS_PER_BIN)
@pytest.mark.parametrize("n_nodes", [4, 16])
def test_weights_sum_to_transitions(n_states: int, exits_per_bin: float, n_nodes: int) -> None:
    """Without it rates come out several per cent low."""
    rates = random_rates(n_states, exits_per_bin, seed=10 + n_states)
    stay, pair_weights = switch_weights(rates, WIDTH_S, *pair_nodes(n_nodes))
    assert pair_weights.shape == (n_pairs(n_states), 4, n_nodes)
    assert (stay > 0).all()
    assert (pair_weights >= 0).all()
    total = np.diag(stay)
    for pair, (i, j) in enumerate(zip(*np.triu_indices(n_states, 1), strict=True)):
        for entry, place in enumerate([(i, j), (j, i), (i, i), (j, j)]):
            total[place] += pair_weights[pair, entry].sum()
    expected = expm(reference.generator(rates) * WIDTH_S)
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("exits_per_bin", [1e-3, 0.1, 2.0])
def test_matrices_of_all_counts_sum_to_transitions(n_states: int, exits_per_bin: float) -> None:
    rate_per_s = np.geomspace(4e3, 1e2, n_states)
    rates = random_rates(n_states, exits_per_bin, seed=20 + n_states)
    matrices = counted_matrices(rate_per_s, rates, 130, 6)
    expected = expm(reference.generator(rates) * WIDTH_S)
    np.testing.assert_allclose(matrices.sum(axis=0), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("exits_per_bin", [1e-8, 1e-4, 1e-2, 0.3, 1.0, 3.0, 10.0])
def test_two_states_are_exact_at_any_speed(exits_per_bin: float) -> None:
    rate_per_s = np.array([3000.0, 500.0])
    rates = np.array([[0.0, 1.0], [0.4, 0.0]]) * exits_per_bin / WIDTH_S
    exact = reference.exact_count_matrices(90, WIDTH_S, rate_per_s, rates)
    found = counted_matrices(rate_per_s, rates, 90, 48)
    # off the diagonal every term is positive, so the tails hold too; on it the share of the
    # return paths is the small difference between two numbers near 1
    for i, j in ((0, 1), (1, 0)):
        seen = exact[:, i, j] > 1e-9 * exact[:, i, j].max()
        np.testing.assert_allclose(found[seen, i, j], exact[seen, i, j], rtol=1e-7)
    for i in (0, 1):
        np.testing.assert_allclose(found[:, i, i], exact[:, i, i], rtol=1e-8, atol=1e-15)


def test_two_states_with_few_nodes_are_close() -> None:
    """Four nodes resolve a contrast of few counts; they are what dim traces get."""
    rate_per_s = np.array([400.0, 100.0])
    rates = np.array([[0.0, 20.0], [30.0, 0.0]])
    exact = reference.exact_count_matrices(30, WIDTH_S, rate_per_s, rates)
    found = counted_matrices(rate_per_s, rates, 30, 4)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)


def divergence_nats(width_s: float, rate_per_s: Array, rates: Array, duration_s: float) -> float:
    """Loss of the pairwise kernel against exact counting, were the states at the edges known."""
    brightest = rate_per_s.max() * width_s
    n_max = int(brightest + 9.0 * np.sqrt(brightest) + 15)
    exact = reference.exact_count_matrices(n_max, width_s, rate_per_s, rates)
    found = counted_matrices(rate_per_s, rates, n_max, 32, width_s)
    generator = reference.generator(rates)
    stationary = np.linalg.lstsq(
        np.vstack([generator.T, np.ones(len(rates))]),
        np.append(np.zeros(len(rates)), 1.0),
        rcond=None,
    )[0]
    terms = np.where(exact > 1e-250, exact * np.log(np.maximum(exact, 1e-250) / found), 0.0)
    return float((stationary[:, None] * terms.sum(axis=0)).sum() * duration_s / width_s)


@pytest.mark.parametrize(("brightest_per_s", "exit_rate_per_s"), [(5e3, 10.0), (2e4, 10.0)])
def test_three_states_lose_steeply_less_in_finer_bins(
    brightest_per_s: float, exit_rate_per_s: float
) -> None:
    levels = brightest_per_s * np.array([1.0, 0.6, 0.2])
    rates = np.full((3, 3), exit_rate_per_s / 2.0)
    losses = [divergence_nats(width, levels, rates, 600.0) for width in (0.01, 0.005, 0.002)]
    assert all(loss > 0 for loss in losses)
    # at least as the square of the width: halving it quarters the loss
    assert losses[1] < losses[0] / 4.0
    assert losses[2] < losses[1] * (0.4) ** 2


@pytest.mark.parametrize("n_states", [1, 2, 3, 5])
@pytest.mark.parametrize("exits_per_bin", [1e-3, 0.3, 2.0])
def test_pullback_equals_finite_differences(n_states: int, exits_per_bin: float) -> None:
    random = np.random.default_rng(5)
    rates = random_rates(n_states, exits_per_bin, seed=30 + n_states)
    nodes = pair_nodes(5)
    stay, pair_weights = switch_weights(rates, WIDTH_S, *nodes)
    stay_cotangent = random.normal(size=stay.shape)
    pair_cotangent = random.normal(size=pair_weights.shape)

    def value(at: Array) -> float:
        stay, pair_weights = switch_weights(at, WIDTH_S, *nodes)
        return float((stay * stay_cotangent).sum() + (pair_weights * pair_cotangent).sum())

    found = switch_weights_pullback(rates, WIDTH_S, *nodes, stay_cotangent, pair_cotangent)
    expected = np.zeros_like(rates)
    for i, j in np.ndindex(rates.shape):
        if i != j:
            step = np.zeros_like(rates)
            step[i, j] = max(1e-4 * rates[i, j], 1e-3)
            expected[i, j] = (value(rates + step) - value(rates - step)) / (2 * step[i, j])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rates", [np.zeros((2, 2)), np.array([[0.0, 3.0], [0.0, 0.0]])])
def test_states_that_are_never_left(rates: Array) -> None:
    """A bleached dot: no way back, hence no return paths, and nothing is divided by zero."""
    nodes = pair_nodes(4)
    stay, pair_weights = switch_weights(rates, WIDTH_S, *nodes)
    np.testing.assert_array_equal(pair_weights[0, 2:], 0.0)
    assert pair_weights[0, 0].sum() == pytest.approx(-np.expm1(-rates[0, 1] * WIDTH_S), abs=1e-15)
    assert pair_weights[0, 1].sum() == 0.0
    slope = switch_weights_pullback(
        rates, WIDTH_S, *nodes, np.ones_like(stay), np.ones_like(pair_weights)
    )
    assert np.isfinite(slope).all()
