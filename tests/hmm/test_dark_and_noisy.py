"""Rates of exactly zero, excess noise of mixed bins, and chains without a way back."""

import numpy as np
import pytest
from fake_counts import WIDTH_S, some_counts, some_rates

from pncbayes.hmm import reference
from pncbayes.hmm.emission import mixed_excess
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.sparse import Active


def test_excess_of_a_mixed_bin_is_that_of_a_sum_of_independent_counts() -> None:
    """Half a bin at 30 counts of ratio 0.2, half at 2 counts of ratio 3: variances add up."""
    shares, means = np.array([[0.5, 0.5]]), np.array([[20.0, 10.0], [1.0, 1.0]])
    excess = np.array([0.2, 3.0])
    variance = 0.5 * (1.2 * 30.0 + 4.0 * 2.0)
    mixed = mixed_excess(shares, means, excess)
    assert (1.0 + mixed[0]) * 16.0 == pytest.approx(variance, rel=1e-14)
    # without light any ratio will do, but it must be a number
    assert mixed_excess(shares, np.zeros((2, 2)), excess)[0] == pytest.approx(1.6)


@pytest.mark.parametrize("n_states", [1, 2, 3])
def test_excess_noise_equals_reference(n_states: int) -> None:
    gate_rate, transition_rate = some_rates(n_states, 3)
    counts, excess = some_counts(gate_rate), np.geomspace(0.05, 2.0, n_states)
    matrices = reference.bin_matrices(counts, WIDTH_S, gate_rate, transition_rate, 6, excess)
    expected = reference.log_likelihood(matrices, np.full(n_states, 1.0 / n_states))
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=True)
    found = likelihood.value(gate_rate, transition_rate, excess)
    assert found == pytest.approx(expected, rel=1e-10)
    everywhere = [np.arange(len(counts))] * (n_states * (n_states - 1) // 2)
    active = Active.choose(likelihood.emission, everywhere)
    found = likelihood.value(gate_rate, transition_rate, excess, active=active)
    assert found == pytest.approx(expected, rel=1e-10)


def test_reference_without_a_way_back() -> None:
    gate_rate, rates = some_rates(3, 2)
    rates[2] = 0.0
    rates[0, 1] = 0.0
    counts = some_counts(gate_rate)
    matrices = reference.bin_matrices(counts, WIDTH_S, gate_rate, rates, 6)
    assert np.isfinite(matrices).all()
    near = reference.bin_matrices(counts, WIDTH_S, gate_rate, np.maximum(rates, 1e-8), 6)
    np.testing.assert_allclose(matrices, near, rtol=1e-6, atol=1e-8 * near.max())
    expected = reference.log_likelihood(matrices, np.full(3, 1.0 / 3.0))
    found = BinnedLikelihood(counts, WIDTH_S, n_nodes=6).value(gate_rate, rates)
    assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("excess_noise", [False, True])
@pytest.mark.parametrize("dark", ["a gate of all states", "a gate of one state", "a state"])
@pytest.mark.parametrize("sparse", [False, True])
def test_rates_of_zero(excess_noise: bool, dark: str, sparse: bool) -> None:
    """No counts where there is no light is sure; the limit from above, and its slopes."""
    gate_rate, rates = some_rates(2, 3)
    zero = {
        "a gate of all states": (slice(None), 2),
        "a gate of one state": (1, 2),
        "a state": (1, slice(None)),
    }[dark]
    gate_rate[zero] = 0.0
    counts = some_counts(gate_rate)
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=excess_noise)
    excess = np.array([0.3, 0.1]) if excess_noise else None
    active = Active.choose(likelihood.emission, [np.arange(len(counts))]) if sparse else None
    found = likelihood.gradient(gate_rate, rates, excess, active=active)
    above = gate_rate.copy()
    above[zero] = 1e-7
    limit = likelihood.gradient(above, rates, excess, active=active)
    assert found.value == pytest.approx(limit.value, rel=1e-9)
    assert found.value == pytest.approx(
        likelihood.value(gate_rate, rates, excess, active=active), rel=1e-12
    )
    np.testing.assert_allclose(found.gate_rate, limit.gate_rate, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.transition_rate, limit.transition_rate, rtol=1e-4, atol=1e-7)
    occupancy, _ = likelihood.smooth(gate_rate, rates, excess)
    np.testing.assert_allclose(occupancy.sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("excess_noise", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_light_from_nothing_is_impossible(excess_noise: bool, sparse: bool) -> None:
    gate_rate, rates = some_rates(2, 3)
    counts = some_counts(gate_rate)
    assert counts[:, 2].sum() > 0
    gate_rate[:, 2] = 0.0
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=excess_noise)
    excess = np.array([0.3, 0.1]) if excess_noise else None
    active = Active.choose(likelihood.emission, [np.arange(len(counts))]) if sparse else None
    assert likelihood.value(gate_rate, rates, excess, active=active) == -np.inf
    found = likelihood.gradient(gate_rate, rates, excess, active=active)
    assert found.value == -np.inf
    for slope in (found.gate_rate, found.transition_rate, found.occupied_s):
        assert not slope.any()
