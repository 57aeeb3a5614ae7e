"""Simulated light against what is known exactly: its rate, its decay, and how it wanders."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from simulated_photons import BRIGHT, DARK, LEVEL, PULSED, assert_count, counts_in_bins

from pncbayes.photons.stream import Photons
from pncbayes.physics.photon_source import make_emission
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    SimulatedState,
    SimulationSettings,
    simulate,
)
from pncbayes.physics.simulate_kernels import Exposure, emit_poisson


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
