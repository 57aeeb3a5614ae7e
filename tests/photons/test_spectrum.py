import numpy as np
import pytest

from pncbayes.photons.formats import read
from pncbayes.photons.spectrum import spectral_lines
from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import (
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    simulate,
)


def blinking(random_seed, bright_per_s=20e3, duration_s=20.0, **settings):
    return simulate(
        [SimulatedState(bright_per_s), SimulatedState(0.15 * bright_per_s)],
        [5.0, 12.0],
        duration_s,
        period_ns=None,
        random_seed=random_seed,
        **settings,
    ).photons


def modulated(bright_depth, dim_depth, frequency_hz=80.0, duration_s=30.0, seed=1):
    """Switch between 20 and 5 kcps, each with a depth of its own, after 1 s on average."""
    rng = np.random.default_rng(seed)
    time_s = np.sort(rng.uniform(0, duration_s, rng.poisson(45e3 * duration_s)))
    switches_s = np.cumsum(rng.exponential(1.0, int(20 * duration_s)))
    is_bright = np.searchsorted(switches_s, time_s) % 2 == 0
    depth = np.where(is_bright, bright_depth, dim_depth)
    rate = np.where(is_bright, 20e3, 5e3) * (1 + depth * np.sin(2 * np.pi * frequency_hz * time_s))
    kept = time_s[rng.random(time_s.size) < rate / 45e3]
    return Photons(np.rint(kept / 1e-8).astype(np.int64), 1e-8, duration_s=duration_s)


@pytest.mark.parametrize("seed", range(3))
def test_blinking_alone_has_no_line(seed):
    assert spectral_lines(blinking(seed)) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "settings",
    [
        {"dwell_laws": (PowerLawDwell(1.5, 0.002, 10.0),) * 2},
        {"exit_rates_per_s": (50.0, 200.0)},
        {"exit_rates_per_s": (1.0, 1.0), "flicker": Flicker(0.3, 0.02)},
        {"exit_rates_per_s": (0.3, 3.0), "afterpulse_probability": 0.03, "dead_time_ns": 80.0},
    ],
    ids=["power law", "fast", "flicker", "afterpulses"],
)
def test_other_dots_have_no_line(settings, seed):
    states = [SimulatedState(30e3), SimulatedState(500.0)]
    photons = simulate(
        states, duration_s=20.0, period_ns=None, random_seed=seed, **settings
    ).photons
    assert spectral_lines(photons) == []


@pytest.mark.parametrize("frequency_hz", [50.0, 124.0, 700.0])
def test_a_line_is_found_where_it_is_and_as_deep_as_it_is(frequency_hz):
    periodic = PeriodicModulation(frequency_hz, 0.2)
    lines = spectral_lines(blinking(1, periodic=periodic))
    assert lines[0].frequency_hz == pytest.approx(frequency_hz, abs=0.02)
    assert lines[0].depth == pytest.approx(0.2, abs=4 * lines[0].depth_sd)
    assert lines[0].depth_sd < 0.02
    assert lines[0].p_value < 1e-4
    assert not lines[0].is_drifting
    assert lines[0].is_common is True


@pytest.mark.parametrize(
    ("frequency_hz", "depth", "bright_per_s", "linewidth_hz"),
    [(50.0, 0.2, 20e3, 0.5), (124.0, 0.2, 10e3, 2.0), (400.0, 0.3, 5e3, 1.0)],
)
def test_a_line_with_a_drifting_phase(frequency_hz, depth, bright_per_s, linewidth_hz):
    periodic = PeriodicModulation(frequency_hz, depth, linewidth_hz=linewidth_hz)
    lines = spectral_lines(blinking(2, bright_per_s, 40.0, periodic=periodic))
    assert len(lines) == 1
    assert lines[0].frequency_hz == pytest.approx(frequency_hz, abs=1.0)
    assert lines[0].depth == pytest.approx(depth, rel=0.2)
    assert lines[0].is_drifting
    assert 0.4 * linewidth_hz < lines[0].linewidth_hz < 2.5 * linewidth_hz


def test_slow_and_fast_lines_are_found():
    for frequency_hz, duration_s in ((8.0, 40.0), (7000.0, 20.0)):
        periodic = PeriodicModulation(frequency_hz, 0.3)
        lines = spectral_lines(blinking(3, duration_s=duration_s, periodic=periodic))
        assert [line.frequency_hz for line in lines] == pytest.approx([frequency_hz], abs=0.05)


def test_a_modulation_beyond_the_spectrum_is_named_by_its_own_frequency():
    periodic = PeriodicModulation(20e3, 0.4)
    lines = spectral_lines(blinking(4, periodic=periodic))
    assert [line.frequency_hz for line in lines] == pytest.approx([20e3], abs=0.1)


def test_harmonics_belong_to_their_fundamental():
    photons = blinking(5)
    # a shutter that is half shut for a quarter of each cycle
    phase = photons.time_s * 60.0 % 1.0
    lost = (phase < 0.25) & (np.random.default_rng(1).random(len(photons)) < 0.5)
    lines = spectral_lines(photons.select(~lost))
    assert len(lines) == 1
    assert lines[0].frequency_hz == pytest.approx(60.0, abs=0.05)
    assert lines[0].harmonics_hz[:2] == pytest.approx((120.0, 180.0), abs=0.1)


@pytest.mark.parametrize(
    ("bright_depth", "dim_depth", "is_common"),
    [(0.2, 0.2, True), (0.3, 0.0, False), (0.1, 0.4, False)],
)
def test_depth_in_bright_and_in_dim_windows(bright_depth, dim_depth, is_common):
    line = spectral_lines(modulated(bright_depth, dim_depth))[0]
    # windows with a switch inside mix a little of both
    assert line.depth_bright == pytest.approx(bright_depth, abs=4 * line.depth_bright_sd + 0.01)
    assert line.depth_dim == pytest.approx(dim_depth, abs=4 * line.depth_dim_sd + 0.02)
    assert line.depth_dim_sd < 0.02
    assert line.is_common is is_common


def test_short_recordings_are_not_screened():
    assert spectral_lines(Photons(np.arange(5000), 1e-4)) == []


@pytest.mark.shared_data
def test_the_real_emitter_hums_at_124_hz(shared_data):
    lines = spectral_lines(read(shared_data / "qd_hydraharp_t3" / "v10_t3.ptu"))
    assert [line.frequency_hz for line in lines] == pytest.approx([124, 1631], abs=2)
    assert lines[0].harmonics_hz == pytest.approx((248, 372), abs=2)
    assert lines[0].is_common is True
