"""The likelihood with mixed columns only in bins that may hold a switch, against all bins."""

import numpy as np
import pytest
from fake_counts import WIDTH_S, Array, some_counts, some_rates

from pncbayes.hmm.likelihood import BinnedLikelihood


@pytest.mark.parametrize("family", ["poisson", "excess"])
@pytest.mark.parametrize("tolerance", [0.01, 0.05, 1.0])
def test_sparse_value_and_gradient(family: str, tolerance: float) -> None:
    """What is left out holds at most `tolerance` switches of each pair."""
    gate_rate, _ = some_rates(3, 6)
    transition_rate = np.array([[0.0, 1.0, 0.5], [2.0, 0.0, 1.0], [1.0, 3.0, 0.0]])
    random = np.random.default_rng(3)
    counts = random.poisson(gate_rate[np.arange(3).repeat(100)] * WIDTH_S)
    likelihood = BinnedLikelihood(counts, WIDTH_S, excess_noise=family == "excess")
    excess = np.array([0.2, 0.1, 0.1]) if family == "excess" else None
    point = (gate_rate, transition_rate, excess)
    active = likelihood.active_rows(*point, tolerance=tolerance)
    assert active is not None
    kept = sum(rows.size for rows in active.rows)
    # otherwise nothing is saved and nothing is tested
    assert 3 <= kept < 0.9 * 3 * len(counts)
    dense, sparse = likelihood.gradient(*point), likelihood.gradient(*point, active=active)
    assert likelihood.value(*point, active=active) == pytest.approx(dense.value, abs=1e-7)
    assert sparse.value == pytest.approx(dense.value, abs=1e-7)
    # the slopes by the logarithms of the rates count switches
    np.testing.assert_allclose(
        sparse.transition_rate * transition_rate,
        dense.transition_rate * transition_rate,
        atol=3.0 * tolerance + 1e-9,
    )
    np.testing.assert_allclose(
        sparse.occupied_s, dense.occupied_s, atol=6.0 * tolerance * WIDTH_S + 1e-12
    )
    scatter = np.sqrt(dense.occupied_s[:, None] * gate_rate)
    np.testing.assert_allclose(
        sparse.gate_rate * gate_rate / scatter,
        dense.gate_rate * gate_rate / scatter,
        atol=6.0 * tolerance,
    )
    # a posterior standard deviation away the two still agree
    moved = (gate_rate * (1.0 + 0.5 / scatter), transition_rate * 1.3, excess)
    assert likelihood.value(*moved, active=active) == pytest.approx(
        likelihood.value(*moved), abs=6.0 * tolerance
    )


def test_sparse_gradient_is_that_of_the_sparse_value() -> None:
    gate_rate, transition_rate = some_rates(3, 4)
    excess = np.array([0.2, 0.1, 0.1])
    likelihood = BinnedLikelihood(some_counts(gate_rate, 80), WIDTH_S, excess_noise=True)
    active = likelihood.active_rows(gate_rate, transition_rate, excess, tolerance=3.0)
    found = likelihood.gradient(gate_rate, transition_rate, excess, active=active)
    random = np.random.default_rng(0)
    for _ in range(5):
        directions = [random.normal(size=array.shape) for array in (gate_rate, excess)]
        jumps = random.normal(size=(3, 3)) * (1.0 - np.eye(3))

        def value(step: float, directions: list[Array] = directions, jumps: Array = jumps) -> float:
            return likelihood.value(
                gate_rate * (1 + step * directions[0]),
                transition_rate * (1 + step * jumps),
                excess * (1 + step * directions[1]),
                active=active,
            )

        expected = (value(1e-6) - value(-1e-6)) / 2e-6
        slope = (found.gate_rate * gate_rate * directions[0]).sum()
        slope += (found.transition_rate * transition_rate * jumps).sum()
        slope += (found.excess * excess * directions[1]).sum()
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_nothing_is_sparse_where_bins_share_rows() -> None:
    for n_states, n_gates in ((1, 4), (2, 1)):
        gate_rate, transition_rate = some_rates(n_states, n_gates)
        likelihood = BinnedLikelihood(some_counts(gate_rate), WIDTH_S)
        assert likelihood.active_rows(gate_rate, transition_rate) is None
