"""The simulator against what is known exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.photon_source import make_emission
from pncbayes.physics.presets import PRESETS, preset
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    Simulation,
    SimulationSettings,
    StatePath,
    load_truth,
    simulate,
    simulate_chunks,
    simulate_jumps,
    simulate_to_file,
    superpose,
)
from pncbayes.physics.simulate_kernels import Exposure, emit_poisson
from pncbayes.physics.state_path import stationary_occupancy

BRIGHT = SimulatedState(2.0e4, (6.0,))
DIM = SimulatedState(4.0e3, (0.6, 3.0), (2.0, 1.0))
DARK = SimulatedState(0.0)
PULSED: dict[str, Any] = {"period_ns": 100.0, "delay_tick_ns": 0.032}
# A right simulator fails a test at this level with one seed in 10,000; seeds are fixed.
LEVEL = 1e-4


def counts_in_bins(photons: Photons, width_s: float) -> NDArray[np.int64]:
    assert photons.duration_s is not None
    n_bins = round(photons.duration_s / width_s)
    return np.bincount((photons.time_s / width_s).astype(int), minlength=n_bins)[:n_bins]


def assert_count(observed: float, expected: float) -> None:
    """The observed number is Poisson with the expected mean."""
    assert abs(observed - expected) < scipy.stats.norm.isf(LEVEL / 2) * np.sqrt(expected)


def assert_same(first: Photons, second: Photons) -> None:
    assert np.array_equal(first.time_ticks, second.time_ticks)
    assert np.array_equal(first.detector, second.detector)
    assert (first.delay_ticks is None) == (second.delay_ticks is None)
    if first.delay_ticks is not None:
        assert np.array_equal(first.delay_ticks, second.delay_ticks)


def decay_p_value(
    photons: Photons, lifetimes: list[float], weights: list[float], sd_ns: float, pulse_ns: float
) -> float:
    """p-value of the delays against exponentials convolved with a Gaussian, summed over pulses."""
    period, tick = photons.period_ns, photons.delay_tick_ns
    assert period is not None
    assert tick is not None
    assert photons.delay_ticks is not None
    edges = np.append(np.arange(0.0, period, 16 * tick), period)
    # integral of (exponential convolved with Gaussian) up to x, from scipy's own distribution
    cumulative = np.zeros(edges.size)
    for lifetime, weight in zip(lifetimes, weights, strict=True):
        law = scipy.stats.exponnorm(lifetime / sd_ns, loc=pulse_ns, scale=sd_ns)
        for earlier in range(-1, 40):
            cumulative += weight * law.cdf(edges + earlier * period)
    expected = len(photons) * np.diff(cumulative) / sum(weights)
    observed = np.histogram(photons.delay_ticks * tick + 0.5 * tick, edges)[0]
    enough = expected > 10
    assert expected.sum() == pytest.approx(len(photons), rel=1e-6)
    if not np.all(enough):
        observed = np.append(observed[enough], observed[~enough].sum())
        expected = np.append(expected[enough], expected[~enough].sum())
    return float(scipy.stats.chi2.sf(np.sum((observed - expected) ** 2 / expected), expected.size))


# --- light ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("period_ns", [100.0, None])
def test_one_state_is_poissonian_light_of_the_given_rate(period_ns: float | None) -> None:
    dot = simulate(
        [BRIGHT],
        duration_s=20.0,
        period_ns=period_ns,
        background_rate_per_s=300.0,
        scatter_rate_per_s=200.0,
        random_seed=1,
    )
    assert_count(len(dot.photons), 20.0 * 2.05e4)
    counts = counts_in_bins(dot.photons, 0.002)
    fano_sd = np.sqrt(2.0 / counts.size)
    assert abs(counts.var() / counts.mean() - 1.0) < 4 * fano_sd
    dispersion = counts.size * counts.var() / counts.mean()
    assert scipy.stats.chi2.sf(dispersion, counts.size - 1) > LEVEL
    detectors = dot.photons.detectors
    assert_count(detectors[0], 20.0 * 2.05e4 / 2)
    assert (dot.photons.delay_ticks is None) == (period_ns is None)


def test_arrival_times_are_uniform_and_sorted() -> None:
    photons = simulate([BRIGHT], duration_s=5.0, period_ns=None, random_seed=2).photons
    assert np.all(np.diff(photons.time_ticks) >= 0)
    gaps = np.diff(photons.time_s)
    assert scipy.stats.kstest(gaps, scipy.stats.expon(scale=1 / 2.0e4).cdf).pvalue > LEVEL
    assert scipy.stats.kstest(photons.time_s / 5.0, "uniform").pvalue > LEVEL


@pytest.mark.parametrize("lifetimes", [(6.0,), (0.4, 3.0), (80.0,)])
def test_delays_follow_the_convolved_decay(lifetimes: tuple[float, ...]) -> None:
    # 80 ns in a period of 100 ns: most of the decay of one pulse is seen after later pulses
    amplitudes = (2.0, 1.0)[: len(lifetimes)]
    state = SimulatedState(5.0e4, lifetimes, amplitudes)
    photons = simulate(
        [state], duration_s=6.0, response_fwhm_ns=0.5, random_seed=3, **PULSED
    ).photons
    weights = [a * t for a, t in zip(amplitudes, lifetimes, strict=True)]
    assert decay_p_value(photons, list(lifetimes), weights, 0.5 / 2.354820045, 5.0) > LEVEL


def test_a_long_decay_moves_the_photon_to_a_later_pulse() -> None:
    """Light of the first pulse alone: the sync number advances as the delay passes periods."""
    settings = SimulationSettings(
        states=(SimulatedState(5.0e6, (150.0,)),), duration_s=1.0, response_fwhm_ns=0.0, **PULSED
    )
    emission = make_emission(settings)._replace(signal_per_s=np.array([1.0e12]))
    cells, offsets, _ = emit_poisson(
        np.random.default_rng(4),
        np.array([0.0, 100e-9]),
        np.zeros(1, np.int64),
        emission,
        Exposure(0.0, np.inf, np.ones(1), np.ones(1), 1.0),
        True,
    )
    since_pulse = cells * 100.0 + offsets - 5.0
    assert_count(cells.size, 1.0e5)
    assert scipy.stats.kstest(since_pulse, scipy.stats.expon(scale=150.0).cdf).pvalue > LEVEL
    assert offsets.min() >= 0.0
    assert offsets.max() < 100.0


def test_measured_response_and_flat_background() -> None:
    histogram = np.zeros(3125)
    histogram[200:204] = [1.0, 5.0, 3.0, 1.0]
    dot = simulate(
        [DARK],
        duration_s=4.0,
        response=histogram,
        scatter_rate_per_s=1.0e4,
        background_rate_per_s=5.0e3,
        random_seed=5,
        **PULSED,
    )
    assert dot.settings.pulse_position_ns == pytest.approx(201.5 * 0.032)
    assert dot.photons.delay_ticks is not None
    observed = np.bincount(dot.photons.delay_ticks, minlength=3125)
    expected = 4.0e4 * histogram / 10.0 + 2.0e4 / 3125
    assert scipy.stats.chi2.sf(np.sum((observed - expected) ** 2 / expected), 3125) > LEVEL


def test_delays_of_a_period_that_is_no_whole_number_of_ticks() -> None:
    photons = simulate(
        [DARK],
        duration_s=2.0,
        period_ns=100.0,
        delay_tick_ns=0.128,
        background_rate_per_s=2.0e4,
        random_seed=6,
    ).photons
    assert photons.delay_ticks is not None
    observed = np.bincount(photons.delay_ticks)
    assert observed.size == 782  # the last tick is a quarter
    assert_count(observed[781], 4.0e4 * 0.032 / 100.0)


# --- switching -----------------------------------------------------------------------------------


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


# --- one emitter, and detectors ------------------------------------------------------------------


@pytest.mark.parametrize(("mean_excitons", "ratio"), [(0.2, 0.0), (0.2, 0.3), (1.0, 0.3)])
def test_antibunching(mean_excitons: float, ratio: float) -> None:
    """Coincidences of a pulse against the exact probabilities of the cascade."""
    state = SimulatedState(1.0e6, (6.0,), biexciton_yield_ratio=ratio, biexciton_lifetime_ns=0.3)
    dot = simulate(
        [state],
        duration_s=4.0,
        mean_excitons_per_pulse=mean_excitons,
        random_seed=14,
        period_ns=100.0,
        pulse_ns=1.0,
        response_fwhm_ns=0.1,
        delay_tick_ns=0.032,
    )
    assert_count(len(dot.photons), 4.0e6)
    n_pulses = 4.0e7
    excited = -np.expm1(-mean_excitons)
    twice = excited - mean_excitons * np.exp(-mean_excitons)
    chance = 1.0e6 * 100e-9 / (excited + ratio * twice)
    per_pulse = np.bincount(dot.photons.time_ticks.astype(int), minlength=int(n_pulses))
    pairs = np.sum(per_pulse * (per_pulse - 1) / 2)
    # a decay past the end of the period meets the next pulse: exp(-99 / 6) of the photons
    assert abs(pairs - n_pulses * twice * ratio * chance**2) < 5 * np.sqrt(pairs + 1)
    side = np.sum(per_pulse[1:] * per_pulse[:-1])
    assert_count(side, n_pulses * 0.1**2)


def test_the_biexciton_photon_comes_first_and_the_exciton_follows() -> None:
    state = SimulatedState(5.0e5, (6.0,), biexciton_yield_ratio=1.0, biexciton_lifetime_ns=0.5)
    dot = simulate(
        [state],
        duration_s=2.0,
        mean_excitons_per_pulse=2.0,
        random_seed=15,
        response_fwhm_ns=0.0,
        **PULSED,
    )
    excited = -np.expm1(-2.0)
    twice = excited - 2.0 * np.exp(-2.0)
    # exciton after one excitation; biexciton; exciton after the biexciton: mean delays
    once = excited - twice
    mean = (once * 6.0 + twice * 0.5 + twice * 6.5) / (excited + twice)
    assert dot.photons.delay_ns is not None
    delays = dot.photons.delay_ns + 0.016 - 5.0
    assert delays.mean() == pytest.approx(mean, abs=4 * delays.std() / np.sqrt(delays.size) + 1e-4)


def test_yield_and_efficiency_set_the_rate() -> None:
    states = [
        SimulatedState(quantum_yield=0.8, lifetimes_ns=(6.0,)),
        SimulatedState(quantum_yield=0.2, lifetimes_ns=(1.0,), biexciton_yield_ratio=0.1),
    ]
    settings = SimulationSettings(
        states=tuple(states),
        duration_s=1.0,
        exit_rates_per_s=(1.0, 1.0),
        mean_excitons_per_pulse=0.1,
        detection_efficiency=0.05,
        period_ns=100.0,
    )
    excited = -np.expm1(-0.1)
    twice = excited - 0.1 * np.exp(-0.1)
    expected = 1e7 * 0.05 * np.array([0.8 * excited, 0.2 * (excited + 0.1 * twice)])
    assert settings.signal_rates_per_s == pytest.approx(expected, rel=1e-12)
    chance, _ = settings.detection_probabilities()
    assert chance == pytest.approx([0.04, 0.01], rel=1e-12)


def test_two_emitters_in_one_spot_are_half_antibunched() -> None:
    options: dict[str, Any] = {
        "duration_s": 4.0,
        "mean_excitons_per_pulse": 0.5,
        "pulse_ns": 1.0,
        **PULSED,
    }
    state = SimulatedState(3.0e5, (3.0,))
    first = simulate([state], random_seed=1, **options).photons
    second = simulate([state], random_seed=2, **options).photons
    both = superpose(first, second)
    assert len(both) == len(first) + len(second)
    per_pulse = np.bincount(both.time_ticks.astype(int), minlength=40_000_000)
    pairs = np.sum(per_pulse * (per_pulse - 1) / 2)
    assert_count(pairs, 4.0e7 * 0.03**2)
    assert_count(np.sum(per_pulse[1:] * per_pulse[:-1]), 4.0e7 * 0.06**2)
    assert both.detectors[0] == first.detectors[0] + second.detectors[0]
    with pytest.raises(ValueError, match="same clock"):
        superpose(first, simulate([state], duration_s=1.0, period_ns=None, random_seed=1).photons)


@pytest.mark.parametrize("period_ns", [100.0, None])
def test_dead_time(period_ns: float | None) -> None:
    dot = simulate(
        [SimulatedState(1.0e6, (6.0,))],
        duration_s=1.0,
        n_detectors=2,
        dead_time_ns=500.0,
        period_ns=period_ns,
        delay_tick_ns=0.032,
        tick_s=1e-9,
        random_seed=16,
    )
    photons = dot.photons
    time_ns = photons.time_s * 1e9
    clock_ns = 1.0
    if photons.delay_ns is not None:
        time_ns, clock_ns = time_ns + photons.delay_ns, 0.032
    for detector in range(2):
        assert np.diff(time_ns[photons.detector == detector]).min() >= 500.0 - clock_ns
    assert_count(len(photons), 2 * 5.0e5 / (1 + 5.0e5 * 500e-9))


def test_afterpulsing() -> None:
    dot = simulate(
        [SimulatedState(2.0e4, (6.0,))],
        duration_s=20.0,
        dead_time_ns=50.0,
        afterpulse_probability=0.05,
        afterpulse_time_ns=400.0,
        n_detectors=1,
        random_seed=17,
        **PULSED,
    )
    photons = dot.photons
    # an afterpulse can have its own; light lost in the dead time is 0.1 %
    assert len(photons) == pytest.approx(4.0e5 / 0.95 / (1 + 2.0e4 * 50e-9), rel=0.004)
    assert photons.delay_ns is not None
    gaps_ns = np.diff(photons.time_s * 1e9 + photons.delay_ns)
    assert gaps_ns.min() >= 50.0 - 0.1
    excess = np.count_nonzero(gaps_ns < 50.0 + 400.0) / gaps_ns.size
    by_chance = -np.expm1(-2.0e4 * 400e-9)
    assert excess == pytest.approx(0.05 * (1 - np.exp(-1)) + by_chance, abs=0.002)


# --- light that is more than states --------------------------------------------------------------


def test_flicker_has_its_variance_and_correlation_time() -> None:
    dot = simulate(
        [SimulatedState(2.0e5, (6.0,))],
        duration_s=60.0,
        flicker=Flicker(0.3, 0.1),
        random_seed=18,
        **PULSED,
    )
    counts = counts_in_bins(dot.photons, 0.01)
    scaled = counts / counts.mean() - 1.0
    lags = [np.mean(scaled[: -lag or None] * scaled[lag:]) for lag in (1, 5, 10, 20)]
    expected = np.expm1(0.3**2 * np.exp(-np.array([1, 5, 10, 20]) * 0.01 / 0.1))
    assert lags == pytest.approx(expected, abs=0.015)
    assert counts.mean() == pytest.approx(2000.0, rel=0.06)


def test_flicker_of_the_lifetime_moves_brightness_and_decay_together() -> None:
    dot = simulate(
        [SimulatedState(2.0e5, (6.0,))],
        duration_s=10.0,
        flicker=Flicker(0.4, 0.2, changes_lifetime=True),
        response_fwhm_ns=0.0,
        random_seed=19,
        **PULSED,
    )
    assert dot.photons.delay_ns is not None
    number = (dot.photons.time_s / 0.02).astype(int)
    counts = np.bincount(number, minlength=500)
    lifetimes = np.bincount(number, dot.photons.delay_ns - 5.0, minlength=500) / counts
    slope = np.polyfit(np.log(counts), np.log(lifetimes), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_periodic_modulation_and_drift() -> None:
    dot = simulate(
        [SimulatedState(1.0e5, (6.0,))],
        duration_s=20.0,
        periodic=PeriodicModulation(124.0, 0.4, phase_rad=0.5),
        drift=Drift(0.2),
        random_seed=20,
        **PULSED,
    )
    time_s = dot.photons.time_s
    wave = 2.0 * np.mean(np.exp(-1j * (2 * np.pi * 124.0 * time_s + 0.5)))
    assert abs(wave - (-0.4j)) < 5 / np.sqrt(time_s.size) + 1e-3
    # linear from 0.9 to 1.1: the mean time moves by a twelfth of the total change
    assert time_s.mean() / 20.0 == pytest.approx(
        0.5 + 0.2 / 12, abs=4 * 0.29 / np.sqrt(time_s.size)
    )


def test_a_broad_line_loses_its_phase() -> None:
    def tone(linewidth_hz: float) -> float:
        photons = simulate(
            [SimulatedState(1.0e5, (6.0,))],
            duration_s=10.0,
            periodic=PeriodicModulation(124.0, 0.4, linewidth_hz=linewidth_hz),
            random_seed=21,
            **PULSED,
        ).photons
        return float(2 * abs(np.mean(np.exp(-2j * np.pi * 124.0 * photons.time_s))))

    assert tone(0.0) == pytest.approx(0.4, abs=0.01)
    assert tone(2.0) < 0.2


def test_background_is_not_modulated() -> None:
    dot = simulate(
        [DARK],
        duration_s=5.0,
        background_rate_per_s=2.0e4,
        periodic=PeriodicModulation(50.0, 1.0),
        random_seed=22,
        **PULSED,
    )
    tone = np.mean(np.exp(-2j * np.pi * 50.0 * dot.photons.time_s))
    assert abs(tone) < 5 / np.sqrt(len(dot.photons))


# --- seeds, chunks, settings ---------------------------------------------------------------------

BUSY: dict[str, Any] = {
    "exit_rates_per_s": (40.0, 60.0),
    "duration_s": 40.0,
    "background_rate_per_s": 200.0,
    "scatter_rate_per_s": 100.0,
    "flicker": Flicker(0.2, 0.3),
    "periodic": PeriodicModulation(124.0, 0.2, linewidth_hz=0.5),
    "dead_time_ns": 80.0,
    "afterpulse_probability": 0.01,
}
OTHERS: dict[str, dict[str, Any]] = {
    "pulsed": PULSED,
    "continuous": {"period_ns": None},
    "excitons": {"mean_excitons_per_pulse": 0.2, **PULSED},
    "power law": {"dwell_laws": (PowerLawDwell(1.5, 0.001, 5.0), None), **PULSED},
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_same_seed_same_photons_whatever_the_chunks(kind: str) -> None:
    settings = {**BUSY, **OTHERS[kind]}
    whole = simulate([BRIGHT, DIM], random_seed=23, **settings)
    for chunk_s in (None, 15.0, 1000.0):
        chunks = list(simulate_chunks([BRIGHT, DIM], chunk_s=chunk_s, random_seed=23, **settings))
        assert len(chunks) == 1 if chunk_s == 1000.0 else len(chunks) > 1
        joined = np.concatenate([chunk.photons.time_ticks for chunk in chunks])
        assert np.array_equal(joined, whole.photons.time_ticks)
        detector = np.concatenate([np.asarray(chunk.photons.detector) for chunk in chunks])
        assert np.array_equal(detector, np.asarray(whole.photons.detector))
        jumps = np.concatenate([chunk.jump_times_s for chunk in chunks])
        assert np.array_equal(jumps, whole.jump_times_s)
        assert chunks[-1].stop_s == 40.0
    assert simulate([BRIGHT, DIM], random_seed=24, **settings).photons.digest != (
        whole.photons.digest
    )


def test_seeds() -> None:
    one = simulate([BRIGHT], duration_s=1.0, random_seed=25, **PULSED)
    assert_same(one.photons, simulate([BRIGHT], duration_s=1.0, random_seed=25, **PULSED).photons)
    rng = np.random.default_rng(25)
    first = simulate([BRIGHT], duration_s=1.0, random_seed=rng, **PULSED)
    second = simulate([BRIGHT], duration_s=1.0, random_seed=rng, **PULSED)
    assert first.photons.digest != second.photons.digest
    again = simulate(second.settings, random_seed=second.root_seed)
    assert_same(again.photons, second.photons)
    unseeded = [simulate([BRIGHT], duration_s=0.1, **PULSED).photons.digest for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_nothing_is_lost_or_doubled_between_blocks() -> None:
    """A recording of many blocks has uniform arrival times, also close to the ends of blocks."""
    dot = simulate([SimulatedState(1.0e6, (60.0,))], duration_s=3.0, random_seed=26, **PULSED)
    assert_count(len(dot.photons), 3.0e6)
    near = np.abs((dot.photons.time_s + 0.1) % 0.2 - 0.1) < 5e-6
    assert_count(np.count_nonzero(near), 3.0e6 * 1e-5 / 0.2)


def test_settings_survive_json_and_repeat_the_recording() -> None:
    for item in PRESETS.values():
        text = json.dumps(item.settings.to_dict(), allow_nan=False)
        assert SimulationSettings.from_dict(json.loads(text)) == item.settings
    dot = simulate(preset("demo").settings, duration_s=2.0, random_seed=27)
    truth = json.loads(json.dumps(dot.truth(), allow_nan=False))
    again = simulate(
        SimulationSettings.from_dict(truth["settings"]), random_seed=truth["root_seed"]
    )
    assert_same(dot.photons, again.photons)


def test_numbers_of_numpy_go_into_json() -> None:
    state = SimulatedState(np.float32(100.0), np.array([6.0]))  # type: ignore[arg-type]
    settings = SimulationSettings(
        states=(state, state),
        duration_s=np.float64(1.0),
        exit_rates_per_s=np.ones(2, np.float32),
        initial_state=np.int64(1),  # type: ignore[arg-type]
        flicker=Flicker(np.float32(0.1), 1.0),  # type: ignore[arg-type]
    )
    text = json.dumps(settings.to_dict())
    assert SimulationSettings.from_dict(json.loads(text)) == settings


def test_truth_names_what_a_fit_should_find() -> None:
    truth = simulate([BRIGHT, DIM], [1.0, 3.0], 30.0, random_seed=28, **PULSED).truth()
    assert truth["n_states"] == 2
    assert [state["rate_per_s"] for state in truth["states"]] == [2.0e4, 4.0e3]
    assert truth["states"][1]["lifetime_ns"] == pytest.approx((2 * 0.6 + 3.0) / 3)
    assert truth["states"][0]["stationary_occupancy"] == pytest.approx(0.75)
    assert sum(state["occupancy"] for state in truth["states"]) == pytest.approx(1.0)
    assert truth["transition_rates_per_s"] == [[0.0, 1.0], [3.0, 0.0]]


@pytest.mark.parametrize("suffix", [".ptu", ".parquet"])
@pytest.mark.parametrize("kind", ["pulsed", "continuous"])
def test_files_hold_the_photons_and_the_truth(tmp_path: Path, suffix: str, kind: str) -> None:
    settings = {**BUSY, **OTHERS[kind], "duration_s": 25.0}
    path = tmp_path / f"dot.01{suffix}"
    truth = simulate_to_file(path, [BRIGHT, DIM], random_seed=30, **settings)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        [f"dot.01{suffix}", "dot.01.jumps.parquet", "dot.01.truth.json"]
    )
    dot = simulate([BRIGHT, DIM], random_seed=30, **settings)
    assert truth["n_photons"] == len(dot.photons)
    expected = dot.truth()
    for state, other in zip(truth["states"], expected["states"], strict=True):
        assert state.pop("occupancy") == pytest.approx(other.pop("occupancy"), rel=1e-9)
    assert json.loads(json.dumps(truth)) == json.loads(json.dumps(expected))
    photons = read(path)
    assert isinstance(photons, Photons)
    assert_same(photons, dot.photons)
    assert photons.duration_s == pytest.approx(25.0)
    for name in (path, tmp_path / "dot.01.truth.json"):
        loaded, state_path = load_truth(name)
        assert loaded["n_jumps"] == dot.path.n_jumps
        assert np.array_equal(state_path.jump_times_s, dot.jump_times_s)
        assert np.array_equal(state_path.jump_states, dot.jump_states)
        assert state_path.n_states == 2


def test_a_failed_recording_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PhotonFileError, match="no photon"):
        simulate_to_file(tmp_path / "dark.ptu", [DARK], duration_s=1.0, random_seed=31)
    with pytest.raises(PhotonFileError, match=r"nowhere"):
        simulate_to_file(tmp_path / "nowhere" / "dot.ptu", [BRIGHT], duration_s=1.0)
    with pytest.raises(PhotonFileError, match=r"\.doc"):
        simulate_to_file(tmp_path / "dot.doc", [BRIGHT], duration_s=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhotonFileError, match=r"dot\.truth\.json"):
        load_truth(tmp_path / "dot.ptu")
    (tmp_path / "dot.truth.json").write_text("[1, 2", encoding="utf-8")
    with pytest.raises(PhotonFileError, match="not the truth"):
        load_truth(tmp_path / "dot.ptu")


def test_truth_and_trace_have_the_same_bins() -> None:
    dot = simulate(preset("auger").settings, duration_s=3.0, random_seed=32)
    for width_s in (0.01, 0.007):
        trace = bin_photons(
            dot.photons, width_s=width_s, response=False, background_rate_per_s=200.0
        )
        totals = trace["counts"].sum("gate").to_numpy()
        shares = dot.occupancy_per_bin(width_s)
        assert len(shares) == totals.size
        expected = (shares @ dot.settings.signal_rates_per_s + 200.0) * width_s
        # Pearson residuals, with one of them large if truth and trace were a bin apart
        assert np.mean((totals - expected) ** 2 / expected) == pytest.approx(1.0, abs=0.4)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_makes_photons(name: str) -> None:
    dot = simulate(preset(name).settings, duration_s=3.0, initial_state=0, random_seed=29)
    assert isinstance(dot, Simulation)
    assert len(dot.photons) > 1000
    assert preset(name).claim.endswith(".")


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'demmo'.*demo, steady"):
        preset("demmo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_s": 0.0}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"exit_rates_per_s": (1.0,)}, "exit_rates_per_s"),
        ({"exit_rates_per_s": (1.0, -1.0)}, "exit_rates_per_s"),
        ({"exit_rates_per_s": None}, "how fast"),
        ({"transition_rates_per_s": ((0, 1), (1, 0))}, "not both"),
        ({"dwell_laws": (None,)}, "dwell_laws"),
        ({"initial_state": 2}, "initial_state"),
        ({"initial_state": "bright"}, "initial_state"),
        ({"period_ns": -1.0}, "period_ns"),
        ({"pulse_ns": 400.0}, "pulse_ns"),
        ({"delay_tick_ns": 300.0}, "delay_tick_ns"),
        ({"response": np.zeros(10)}, "response"),
        ({"response": np.ones(10_000)}, "response"),
        ({"background_rate_per_s": -1.0}, "background_rate_per_s"),
        ({"n_detectors": 0}, "n_detectors"),
        ({"afterpulse_probability": 0.7}, "afterpulse_probability"),
        ({"mean_excitons_per_pulse": 0.0}, "mean_excitons_per_pulse"),
        ({"mean_excitons_per_pulse": 0.1, "period_ns": None}, "laser pulses"),
        ({"mean_excitons_per_pulse": 0.001}, "not enough excitons"),
        ({"states": ()}, "states"),
        ({"states": (SimulatedState(1e4), DARK)}, "lifetimes_ns"),
        ({"states": (SimulatedState(1e7, (6.0,)), DARK)}, "rate_per_s"),
        ({"states": (SimulatedState(quantum_yield=0.5, lifetimes_ns=(6.0,)), DARK)}, "yield"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], message: str) -> None:
    right = {"states": (BRIGHT, DIM), "duration_s": 1.0, "exit_rates_per_s": (1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**{**right, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimulatedState(), "quantum_yield"),
        (lambda: SimulatedState(1.0, quantum_yield=0.5), "quantum_yield"),
        (lambda: SimulatedState(-1.0), "rate_per_s"),
        (lambda: SimulatedState(1.0, (0.0,)), "lifetimes_ns"),
        (lambda: SimulatedState(1.0, (1.0,), (1.0, 2.0)), "amplitudes"),
        (lambda: PowerLawDwell(1.5, 1.0, 0.5), "longest_s"),
        (lambda: Flicker(0.1, 0.0), "correlation_time_s"),
        (lambda: PeriodicModulation(0.0, 0.1), "frequency_hz"),
        (lambda: PeriodicModulation(1.0, 1.1), "depth"),
        (lambda: Drift(0.1, "square"), "kind"),
        (lambda: simulate([BRIGHT]), "duration_s"),
        (lambda: simulate([BRIGHT], None, 1.0, random_seed=-1), "`random_seed` must be 0 or more"),
        (lambda: simulate([BRIGHT], None, 1.0, random_seed="x"), "a whole number, 0 or more"),
        (lambda: simulate_chunks([BRIGHT], duration_s=1.0, chunk_s=-1.0), "chunk_s"),
        (lambda: simulate_jumps([[0.0, -1.0], [1.0, 0.0]], 1.0), "generator_per_s"),
        (lambda: simulate_jumps([[0.0, 1.0]], 1.0), "generator_per_s"),
        (lambda: simulate_jumps([[0, 0], [1, 0]], 1.0, initial_state="stationary"), "never left"),
        (lambda: SimulationSettings.from_dict({"states": [], "speed": 1}), "speed"),
    ],
)
def test_wrong_parts_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
