"""One emitter and its detectors: antibunching, yields, dead time and afterpulses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated_photons import PULSED, assert_count

from pncbayes.physics.simulate import SimulatedState, SimulationSettings, simulate, superpose


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
