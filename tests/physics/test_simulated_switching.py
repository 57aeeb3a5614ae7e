"""Simulated switching against what is known exactly: dwell times, jumps and shares of bins."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray
from simulated_photons import BRIGHT, DARK, LEVEL, PULSED, assert_count

from pncbayes.physics.simulate import PowerLawDwell, StatePath, simulate, simulate_jumps
from pncbayes.physics.state_path import stationary_occupancy


def test_dwell_times_and_jumps_follow_the_generator() -> None:
    rates = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 6.0], [0.5, 0.5, 0.0]])
    path = simulate_jumps(rates, 3000.0, random_seed=7)
    jumps = path.jump_counts()
    for state in range(3):
        law = scipy.stats.expon(scale=1.0 / rates[state].sum())
        assert scipy.stats.kstest(path.dwell_times_s(state), law.cdf).pvalue > LEVEL
        seconds = path.occupancy[state] * path.duration_s
        for target in range(3):
            if target != state:
                assert_count(jumps[state, target], rates[state, target] * seconds)
    generator = rates - np.diag(rates.sum(axis=1))
    expected = scipy.linalg.null_space(generator.T)[:, 0]
    expected /= expected.sum()
    assert stationary_occupancy(rates) == pytest.approx(expected, rel=1e-9)
    assert path.occupancy == pytest.approx(expected, abs=0.02)


def test_transition_probabilities_between_bins_are_the_matrix_exponential() -> None:
    rates = np.array([[0.0, 4.0], [9.0, 0.0]])
    path = simulate_jumps(rates, 4000.0, random_seed=8)
    times = np.arange(0.0, 4000.0, 0.05)
    at = path.jump_states[np.searchsorted(path.jump_times_s, times, side="right") - 1]
    expected = scipy.linalg.expm((rates - np.diag(rates.sum(axis=1))) * 0.05)
    for state in range(2):
        after = at[1:][at[:-1] == state]
        sd = np.sqrt(expected[state, 0] * expected[state, 1] / after.size)
        assert abs(np.mean(after == 0) - expected[state, 0]) < 4 * sd


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_power_law_dwell_times(exponent: float) -> None:
    law = PowerLawDwell(exponent, 0.01, 5.0)
    path = simulate_jumps(
        np.zeros((2, 2)), 2000.0, dwell_laws=[law, PowerLawDwell(2.0, 0.1, 1.0)], random_seed=9
    )
    weight = scipy.integrate.quad(lambda t: t**-exponent, 0.01, 5.0)[0]

    def cumulative(times: NDArray[np.float64]) -> NDArray[np.float64]:
        if exponent == 1.0:
            return np.log(times / 0.01) / weight
        return (times ** (1 - exponent) - 0.01 ** (1 - exponent)) / (1 - exponent) / weight

    dwells = path.dwell_times_s(0)
    assert scipy.stats.kstest(dwells, cumulative).pvalue > LEVEL
    mean = scipy.integrate.quad(lambda t: t ** (1 - exponent), 0.01, 5.0)[0] / weight
    assert law.mean_s == pytest.approx(mean, rel=1e-9)
    assert np.all(path.jump_states[1:] != path.jump_states[:-1])


def test_jump_bookkeeping_by_hand() -> None:
    path = StatePath(np.array([0.0, 0.25, 0.9]), np.array([1, 0, 2]), 2.05, 3)
    shares = path.occupancy_per_bin(0.5)
    assert shares == pytest.approx(
        np.array([[0.5, 0.5, 0.0], [0.8, 0.0, 0.2], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    )
    assert path.states_per_bin(0.5).tolist() == [0, 0, 2, 2]
    assert path.occupancy == pytest.approx(np.array([0.65, 0.25, 1.15]) / 2.05)
    assert path.dwell_times_s(0) == pytest.approx([0.65])
    assert path.dwell_times_s(1).size == 0
    assert path.n_jumps == 2
    with pytest.raises(ValueError, match="width_s"):
        path.occupancy_per_bin(3.0)


@pytest.mark.parametrize("width_s", [0.001, 0.01, 0.013, 0.1])
def test_occupancy_per_bin_sums_to_one_and_to_the_whole(width_s: float) -> None:
    path = simulate_jumps([[0.0, 30.0], [90.0, 0.0]], 10.0, random_seed=10)
    shares = path.occupancy_per_bin(width_s)
    assert shares.shape == (path.n_bins(width_s), 2)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(shares)), abs=1e-9)
    assert np.array_equal(path.states_per_bin(width_s), np.argmax(shares, axis=1))
    if path.n_bins(width_s) * width_s == pytest.approx(10.0):
        assert shares.mean(axis=0) == pytest.approx(path.occupancy, abs=1e-9)


def test_photons_follow_the_states() -> None:
    dot = simulate([BRIGHT, DARK], [2.0, 5.0], 60.0, random_seed=11, **PULSED)
    in_dwell = np.searchsorted(dot.jump_times_s, dot.photons.time_s, side="right") - 1
    # 6 ns after the pulse a dot may have switched, but not in one photon of a thousand
    assert np.mean(dot.jump_states[in_dwell] == 1) < 1e-3
    assert_count(len(dot.photons), 2.0e4 * 60.0 * dot.path.occupancy[0])
    assert dot.occupancy_per_bin(0.01).shape == (6000, 2)


def test_a_state_that_is_never_left_ends_the_switching() -> None:
    rates = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    path = simulate_jumps(rates, 1000.0, random_seed=12)
    assert path.jump_states[0] == 0
    assert path.jump_states[-1] == 2
    assert np.count_nonzero(path.jump_states == 2) == 1


def test_initial_states() -> None:
    rates = [[0.0, 1.0], [9.0, 0.0]]
    rng = np.random.default_rng(13)
    first = [simulate_jumps(rates, 0.1, random_seed=rng).jump_states[0] for _ in range(1000)]
    assert_count(sum(first), 100.0)
    first = [
        simulate_jumps(rates, 0.1, initial_state="uniform", random_seed=rng).jump_states[0]
        for _ in range(1000)
    ]
    assert 420 < sum(first) < 580
    assert simulate_jumps(rates, 0.1, initial_state=1, random_seed=rng).jump_states[0] == 1
