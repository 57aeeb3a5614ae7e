"""Two levels of many sub-states that switch inside bins: against enumeration and other kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import gammaln

from pncbayes.hmm import ladder_kernels as kernels
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.photon_by_photon import log_likelihood
from pncbayes.physics.ladder import exponential_level, make_ladder, two_level_rates

Array = NDArray[np.float64]
WIDTH_S = 0.01


def chain(n_steps: int = 5, n_delays: int = 2) -> tuple[Array, Array, int]:
    on = make_ladder(1.4, 2.0, 0.006, n_steps=n_steps, n_delays=n_delays)
    off = make_ladder(1.8, 0.5, 0.006, n_steps=n_steps, n_delays=n_delays)
    rates, initial = two_level_rates(on, off)
    return rates, initial, on.n_states


def log_columns(counts: Array, on: float, off: float, n_slots: int, width_s: float) -> Array:
    shares = kernels.column_shares(n_slots)
    means = (shares * on + (1.0 - shares) * off) * width_s
    made: Array = counts[:, None] * np.log(means) - means - gammaln(counts + 1.0)[:, None]
    return made


def shared(logs: Array) -> tuple[Array, float]:
    largest = logs.max(axis=1)
    return np.exp(logs - largest[:, None]), float(largest.sum())


@pytest.mark.parametrize("n_slots", [1, 4, 32])
def test_parts_sum_to_the_transition_matrix(n_slots: int) -> None:
    rates, _, n_on = chain(8, 3)
    parts = kernels.share_parts(rates, n_on, WIDTH_S, n_slots)
    generator = rates - np.diag(rates.sum(axis=1))
    np.testing.assert_allclose(parts.sum(axis=0), expm(generator * WIDTH_S), atol=1e-12)
    assert (parts >= 0).all()
    reference = kernels.reference_parts(rates, n_on, WIDTH_S, n_slots)
    np.testing.assert_allclose(parts, reference, atol=1e-13)


def test_parts_against_all_paths_over_slots() -> None:
    """Every path of states over four slots, with its light: half of each edge of a slot."""
    rates, _, n_on = chain(2, 1)
    n_states, n_slots = len(rates), 4
    slot = expm((rates - np.diag(rates.sum(axis=1))) * WIDTH_S / n_slots)
    parts = kernels.share_parts(rates, n_on, WIDTH_S, n_slots)
    found = np.zeros((2 * n_slots + 1, n_states, n_states))
    for path in itertools.product(range(n_states), repeat=n_slots + 1):
        on = [state < n_on for state in path]
        half_units = sum(int(on[i]) + int(on[i + 1]) for i in range(n_slots))
        weight = np.prod([slot[path[i], path[i + 1]] for i in range(n_slots)])
        found[half_units, path[0], path[-1]] += weight
    for a in range(n_states):
        for b in range(n_states):
            place = int(a < n_on) - int(b < n_on)
            for n in range(n_slots + 1):
                column = 2 * n + place
                expected = found[column, a, b] if 0 <= column <= 2 * n_slots else 0.0
                assert parts[n, a, b] == pytest.approx(expected, abs=1e-14)


def test_passes_agree_with_the_reference() -> None:
    rates, initial, n_on = chain()
    counts = np.random.default_rng(1).poisson(40.0, 60).astype(float)
    counts[10:30] = np.random.default_rng(2).poisson(5.0, 20)
    parts = kernels.share_parts(rates, n_on, WIDTH_S, 16)
    logs = log_columns(counts, 9e3, 500.0, 16, WIDTH_S)
    reference = kernels.reference_log_likelihood(logs, parts, n_on, initial)
    assert kernels.forward_columns(logs, parts, n_on, initial) == pytest.approx(reference, abs=1e-9)
    columns, scale = shared(logs)
    matrices = kernels.bin_matrices(columns, parts, n_on)
    row_of_bin = np.arange(counts.size)
    assert kernels.forward(matrices, row_of_bin, initial) + scale == pytest.approx(
        reference, abs=1e-9
    )
    both = kernels.forward_backward(matrices, row_of_bin, initial)[0]
    assert both + scale == pytest.approx(reference, abs=1e-9)


def test_probabilities_of_all_counts_sum_to_one() -> None:
    rates, initial, n_on = chain()
    parts = kernels.share_parts(rates, n_on, WIDTH_S, 8)
    logs = log_columns(np.arange(60.0), 1500.0, 100.0, 8, WIDTH_S)
    matrices = kernels.bin_matrices(np.exp(logs), parts, n_on)
    assert (initial @ matrices.sum(axis=0)).sum() == pytest.approx(1.0, abs=1e-12)


def test_one_sub_state_each_is_the_two_state_kernel() -> None:
    rates, initial = two_level_rates(exponential_level(3.0), exponential_level(20.0))
    counts = np.random.default_rng(4).poisson(30.0, 400).astype(float)
    parts = kernels.share_parts(rates, 1, WIDTH_S, 64)
    logs = log_columns(counts, 6e3, 1e3, 64, WIDTH_S)
    found = kernels.forward_columns(logs, parts, 1, initial)
    other = BinnedLikelihood(counts[:, None], WIDTH_S, n_nodes=16)
    assert found == pytest.approx(other.value(np.array([[6e3], [1e3]]), rates), abs=2e-3)


def test_wide_bins_are_fine_bins_summed_over() -> None:
    """A wide bin holds as many photons as its fine bins: exact sum over how they are shared."""
    rates, initial, n_on = chain(4, 1)
    wide = log_columns(np.arange(12.0), 600.0, 60.0, 32, WIDTH_S)
    parts = kernels.share_parts(rates, n_on, WIDTH_S, 32)
    found = kernels.bin_matrices(np.exp(wide), parts, n_on)
    n_fine = 8
    fine_s = WIDTH_S / n_fine
    fine = log_columns(np.arange(12.0), 600.0, 60.0, 16, fine_s)
    fine_parts = kernels.share_parts(rates, n_on, fine_s, 16)
    step = kernels.bin_matrices(np.exp(fine), fine_parts, n_on)
    total = np.zeros_like(step)
    total[0] = np.eye(len(rates))
    for _ in range(n_fine):
        fresh = np.zeros_like(total)
        for held in range(12):
            for more in range(12 - held):
                fresh[held + more] += total[held] @ step[more]
        total = fresh
    np.testing.assert_allclose(initial @ found, initial @ total, rtol=2e-3, atol=1e-7)


def test_fine_bins_are_the_likelihood_of_every_photon() -> None:
    rates, initial, n_on = chain(4, 1)
    rng = np.random.default_rng(5)
    width_s, duration_s = 1e-4, 0.2
    bright = (np.arange(2000) // 250) % 2 == 0
    counts = np.minimum(rng.poisson(np.where(bright, 0.2, 0.02)), 1).astype(float)
    ticks = np.flatnonzero(counts) * 2 + 1
    level_rates = np.where(np.arange(len(rates)) < n_on, 2e3, 2e2)
    generator = rates - np.diag(rates.sum(axis=1))
    exact = log_likelihood(
        ticks, width_s / 2, np.zeros(ticks.size, np.int64), level_rates,
        np.ones((len(rates), 1)), generator, initial, duration_s,
    )  # fmt: skip
    parts = kernels.share_parts(rates, n_on, width_s, 4)
    logs = log_columns(counts, 2e3, 2e2, 4, width_s)
    found = kernels.forward_columns(logs, parts, n_on, initial) - ticks.size * np.log(width_s)
    # a photon lies anywhere in its bin, at its middle on average
    assert found == pytest.approx(exact, abs=0.02)


def test_derivatives_by_matrices_parts_and_columns() -> None:
    rates, initial, n_on = chain(4, 1)
    rng = np.random.default_rng(7)
    counts = rng.poisson(25.0, 5).astype(float)
    row_of_bin = rng.integers(0, 5, 30)
    columns, _ = shared(log_columns(counts, 5e3, 500.0, 8, WIDTH_S))
    parts = kernels.share_parts(rates, n_on, WIDTH_S, 8)

    def value(columns: Array, parts: Array, initial: Array) -> float:
        matrices = kernels.bin_matrices(columns, parts, n_on)
        return float(kernels.forward(matrices, row_of_bin, initial))

    matrices = kernels.bin_matrices(columns, parts, n_on)
    _, slope, start_slope = kernels.forward_backward(matrices, row_of_bin, initial)
    by_parts = kernels.share_parts_slope(columns, slope, n_on)
    by_columns = kernels.columns_slope(parts, slope, n_on)
    change = rng.random(parts.shape) * parts
    numerical = value(columns, parts + 1e-6 * change, initial)
    numerical -= value(columns, parts - 1e-6 * change, initial)
    assert np.vdot(by_parts, change) == pytest.approx(numerical / 2e-6, rel=1e-5)
    change = rng.random(columns.shape) * columns
    numerical = value(columns + 1e-6 * change, parts, initial)
    numerical -= value(columns - 1e-6 * change, parts, initial)
    assert np.vdot(by_columns, change) == pytest.approx(numerical / 2e-6, rel=1e-5)
    change = rng.random(initial.shape)
    numerical = value(columns, parts, initial + 1e-6 * change)
    numerical -= value(columns, parts, initial - 1e-6 * change)
    assert start_slope @ change == pytest.approx(numerical / 2e-6, rel=1e-5)


def test_impossible_data_are_minus_infinity() -> None:
    matrices = np.zeros((1, 2, 2))
    row_of_bin, initial = np.zeros(3, np.int64), np.array([0.5, 0.5])
    assert kernels.forward(matrices, row_of_bin, initial) == -np.inf
    value, slope, _ = kernels.forward_backward(matrices, row_of_bin, initial)
    assert value == -np.inf
    assert not slope.any()
