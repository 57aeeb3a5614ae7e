import itertools
import json

import numpy as np
import pytest

from pncbayes.photons.background import estimate_background
from pncbayes.photons.exposure import (
    Exposure,
    combine,
    estimate_drift,
    estimate_periodic,
    schedule_exposure,
)
from pncbayes.photons.exposure_removal import remove_exposure
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    SimulatedState,
    simulate,
)

LINE_HZ = 124.0


def line(duration_s, depth, linewidth_hz=0.0, seed=0, harmonics=(), frequency_hz=LINE_HZ):
    """True exposure: a line whose phase walks at random; harmonics as (order, depth, phase)."""
    rng = np.random.default_rng(seed + 1000)
    n_steps = int(duration_s * frequency_hz * 100)
    step_s = duration_s / n_steps
    walk = np.sqrt(2 * np.pi * linewidth_hz * step_s) * rng.standard_normal(n_steps + 1)
    phase = 2 * np.pi * frequency_hz * np.arange(n_steps + 1) * step_s + np.cumsum(walk)
    values = 1 + depth * np.sin(phase)
    for order, amplitude, shift in harmonics:
        values += amplitude * np.sin(order * phase + shift)
    return Exposure(values, duration_s)


def recording(exposure, rates, exits=None, background=0.0, seed=1, period_ns=None):
    """Photons of a dot under a known exposure (thinned), and the truth."""
    rng = np.random.default_rng(seed)
    largest = exposure.values.max()
    lifetimes = () if period_ns is None else (20.0,)
    dot = simulate(
        [SimulatedState(rate * largest, lifetimes) for rate in rates],
        exits,
        exposure.duration_s,
        period_ns=period_ns,
        random_seed=seed,
    )
    kept = rng.random(len(dot.photons)) * largest < exposure.at(dot.photons.time_s)
    signal = dot.photons.select(kept)
    n = rng.poisson(background * exposure.duration_s)
    ticks = rng.integers(0, int(exposure.duration_s / signal.tick_s), n)
    times = np.concatenate([signal.time_ticks, ticks])
    order = np.argsort(times, kind="stable")
    delays = None
    if period_ns is not None:
        delays = np.concatenate([signal.delay_ticks, rng.integers(0, period_ns / 0.128, n)])[order]
    photons = Photons(
        times[order],
        signal.tick_s,
        detector=np.concatenate([signal.detector, rng.integers(0, 2, n).astype(np.uint8)])[order],
        delay_ticks=delays,
        delay_tick_ns=signal.delay_tick_ns,
        period_ns=signal.period_ns,
        duration_s=exposure.duration_s,
    )
    return photons, dot


def brightness_of(dot, rates):
    edges_s = np.append(dot.jump_times_s, dot.settings.duration_s)
    return edges_s, np.asarray(rates)[dot.jump_states]


def rms_error(found, truth):
    time_s = np.linspace(0, truth.duration_s, 400_001)
    return float(np.sqrt(np.mean((found.at(time_s) - truth.at(time_s)) ** 2)))


def line_power(photons, frequency_hz, width_hz=1.5):
    """Largest power within `width_hz` of a line, over the median power beside it."""
    width_s = 2.5e-4
    n_bins = int(photons.duration_s / width_s)
    index = np.minimum((photons.time_s / width_s).astype(int), n_bins - 1)
    power = np.abs(np.fft.rfft(np.bincount(index, minlength=n_bins))) ** 2
    offset = np.abs(np.fft.rfftfreq(n_bins, width_s) - frequency_hz)
    beside = power[(offset > 5) & (offset < 25)]
    return power[offset <= width_hz].max() / np.median(beside) * np.log(2)


# --- the curve ------------------------------------------------------------------------------------


def test_integral_and_inverse_of_an_exposure_agree():
    exposure = line(3.0, 0.6, 0.5)
    time_s = np.sort(np.random.default_rng(0).uniform(0, 3.0, 5000))
    total_s = exposure.integral(time_s)
    assert np.all(np.diff(total_s) >= 0)
    assert exposure.integral(3.0) == pytest.approx(3.0, rel=1e-12)
    assert exposure.time_at(total_s) == pytest.approx(time_s, abs=1e-10)
    middle = 0.5 * (time_s[1:] + time_s[:-1])
    slope = (exposure.integral(middle + 1e-6) - exposure.integral(middle - 1e-6)) / 2e-6
    assert slope == pytest.approx(exposure.at(middle), rel=2e-3)


def test_a_schedule_has_its_ratios_and_mean_one():
    exposure = schedule_exposure([0.0, 4.0], [1.0, 3.0], 8.0)
    assert exposure.at([1.0, 7.0]) == pytest.approx([0.5, 1.5], rel=1e-3)
    both = combine(exposure, line(8.0, 0.2))
    assert both.integral(8.0) == pytest.approx(8.0)
    assert both.to_dict()["schedule"] == [[0.0, 1.0], [4.0, 3.0]]
    assert both.log_bayes_factor == 0.0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: schedule_exposure([1.0, 2.0], [1.0, 1.0], 8.0), "times_s"),
        (lambda: schedule_exposure([0.0, 2.0], [1.0, -1.0], 8.0), "values"),
        (lambda: combine(line(1.0, 0.1), line(2.0, 0.1)), "duration"),
        (lambda: combine(), "combine"),
    ],
)
def test_wrong_exposures_are_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()


# --- a periodic line ------------------------------------------------------------------------------


# The least possible error of the phase is (2 pi w / I)^(1/4) / sqrt(2) for a line of width w and
# information I = rate (1 - sqrt(1 - depth^2)) per s; it makes depth / sqrt(2) times that in e.
@pytest.mark.parametrize(
    ("rate", "depth", "linewidth_hz", "offset_hz", "largest_rms"),
    [
        (20e3, 0.3, 0.0, 0.3, 0.008),
        (20e3, 0.6, 0.5, 0.0, 0.063),
        (20e3, 0.1, 0.05, -0.3, 0.016),
        (5e3, 0.3, 0.2, 0.3, 0.055),
        (2e3, 0.3, 0.05, 0.0, 0.055),
        (2e3, 0.1, 0.0, 0.3, 0.016),
    ],
)
def test_a_line_is_followed(rate, depth, linewidth_hz, offset_hz, largest_rms):
    truth = line(10.0 if rate > 1e4 else 20.0, depth, linewidth_hz)
    photons, _ = recording(truth, [rate])
    found = estimate_periodic(photons, LINE_HZ + offset_hz)
    (described,) = found.lines
    assert found.log_bayes_factor > 20
    assert described.depth == pytest.approx(depth, abs=0.03)
    assert described.frequency_hz == pytest.approx(LINE_HZ, abs=0.2)
    assert described.linewidth_hz == pytest.approx(linewidth_hz, rel=0.7, abs=0.01)
    assert rms_error(found, truth) < largest_rms


def test_a_line_that_the_simulator_makes():
    periodic = PeriodicModulation(50.0, 0.25, phase_rad=1.0)
    dot = simulate(
        [SimulatedState(8e3)], duration_s=20.0, period_ns=None, random_seed=3, periodic=periodic
    )
    found = estimate_periodic(dot.photons, 50.2)
    time_s = np.linspace(0, 20, 50_001)
    truth = 1 + 0.25 * np.sin(2 * np.pi * 50.0 * time_s + 1.0)
    assert np.sqrt(np.mean((found.at(time_s) - truth) ** 2)) < 0.01


@pytest.mark.parametrize("given", [False, True])
def test_a_line_in_blinking_light_over_background(given):
    truth = line(20.0, 0.4, 0.1)
    rates = [12e3, 1.5e3]
    photons, dot = recording(truth, rates, [4.0, 6.0], background=300.0)
    found = estimate_periodic(
        photons,
        LINE_HZ,
        brightness=brightness_of(dot, rates) if given else None,
        background_rate_per_s=300.0,
    )
    assert found.lines[0].depth == pytest.approx(0.4, abs=0.02)
    assert rms_error(found, truth) < 0.055


def test_harmonics_that_pay_are_kept():
    truth = line(20.0, 0.25, 0.1, harmonics=[(3, 0.1, 0.5)])
    photons, _ = recording(truth, [8e3])
    (described,) = estimate_periodic(photons, LINE_HZ).lines
    assert described.harmonics[1] == 0.0
    assert described.harmonics[2] == pytest.approx(0.1, abs=0.03)
    assert len(described.harmonics) == 3


def test_a_depth_that_changes_is_followed():
    base = line(26.0, 0.4, 0.02)
    time_s = np.linspace(0, 26, base.values.size)
    changing = 1 + (base.values - 1) * (1 + 0.7 * np.sin(2 * np.pi * time_s / 13))
    truth = Exposure(changing, 26.0)
    photons, _ = recording(truth, [8e3])
    found = estimate_periodic(photons, LINE_HZ)
    assert found.lines[0].depth_sd > 0.2
    assert rms_error(found, truth) < 0.05


@pytest.mark.parametrize("frequency_hz", [17.0, 124.0, 700.0])
def test_no_line_is_found_in_light_without_one(frequency_hz):
    steady = simulate([SimulatedState(5e3)], duration_s=15.0, period_ns=None, random_seed=1)
    blinking = simulate(
        [SimulatedState(2e4), SimulatedState(2e3)],
        [20.0, 40.0],
        15.0,
        period_ns=None,
        random_seed=1,
    )
    for dot in (steady, blinking):
        found = estimate_periodic(dot.photons, frequency_hz)
        assert found.log_bayes_factor < 0
        assert np.abs(found.values - 1).max() < 0.01


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"frequency_hz": 0.1}, "frequency_hz"),
        ({"n_harmonics": 9}, "n_harmonics"),
        ({"background_rate_per_s": -1.0}, "background_rate_per_s"),
        ({"background_rate_per_s": 1e6}, "background_rate_per_s"),
        ({"search_hz": 100.0}, "search_hz"),
        ({"brightness": ([0.0, 1.0], [5e3, 1.0])}, "brightness"),
        ({"brightness": ([0.0, 1.0], [5e3])}, "brightness"),
    ],
)
def test_wrong_arguments_are_named(change, named):
    photons = simulate([SimulatedState(1e3)], duration_s=5.0, period_ns=None, random_seed=1).photons
    arguments = {"frequency_hz": LINE_HZ, **change}
    with pytest.raises(ValueError, match=named):
        estimate_periodic(photons, arguments.pop("frequency_hz"), **arguments)


# --- drift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0.1, -0.5])
def test_a_drift_is_recovered(depth):
    rates = [8e3, 1e3]
    dot = simulate(
        [SimulatedState(rate) for rate in rates],
        [3.0, 5.0],
        30.0,
        period_ns=None,
        random_seed=2,
        drift=Drift(depth),
        background_rate_per_s=200.0,
    )
    found = estimate_drift(
        dot.photons, brightness=brightness_of(dot, rates), background_rate_per_s=200.0
    )
    time_s = np.linspace(0, 30, 1001)
    truth = 1 + depth * (time_s / 30 - 0.5)
    assert found.log_bayes_factor > 10
    assert np.abs(found.at(time_s) - truth).max() < 0.02
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("seed", range(3))
def test_steady_and_flickering_light_have_no_drift(seed):
    for flicker in (None, Flicker(0.2, 0.5)):
        dot = simulate(
            [SimulatedState(5e3)],
            duration_s=30.0,
            period_ns=None,
            random_seed=seed,
            flicker=flicker,
        )
        found = estimate_drift(dot.photons, brightness=([0.0, 30.0], [5e3]))
        assert found.log_bayes_factor < (0 if flicker is None else 3)


# --- removal --------------------------------------------------------------------------------------


def test_no_line_is_left_and_the_counts_of_each_state_are_poisson():
    truth = line(30.0, 0.5, 0.1)
    rates, background = [10e3, 1.5e3], 300.0
    photons, dot = recording(truth, rates, [2.0, 3.0], background=background)
    brightness = brightness_of(dot, rates)
    found = estimate_periodic(
        photons, LINE_HZ, brightness=brightness, background_rate_per_s=background
    )
    removal = remove_exposure(photons, found, background_rate_per_s=background, random_seed=4)
    assert line_power(photons, LINE_HZ) > 500
    assert line_power(removal.photons, LINE_HZ) < 14
    assert line_power(removal.photons, 2 * LINE_HZ) < 14
    edges_s = removal.corrected_time_s(brightness[0])
    assert removal.background_rate_per_s == pytest.approx(background / found.values.min())
    for state, rate in enumerate(rates):
        n_counts, weights, fano = 0, [], []
        for dwell, (first, last) in enumerate(itertools.pairwise(edges_s)):
            n_bins = int((last - first) / 4e-3)
            if dot.jump_states[dwell] == state and n_bins >= 5:
                bins = first + np.arange(n_bins + 1) * 4e-3
                per_bin = np.diff(np.searchsorted(removal.photons.time_s, bins))
                n_counts += per_bin.sum()
                weights.append(n_bins - 1)
                fano.append(per_bin.var(ddof=1) / per_bin.mean())
        seen = n_counts / (4e-3 * (sum(weights) + len(weights)))
        assert seen == pytest.approx(rate + removal.background_rate_per_s, rel=0.02)
        # 3.06 and 1.28 before; the standard error is 0.024
        assert np.average(fano, weights=weights) == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("known_background", [True, False])
def test_a_dim_state_over_background_is_not_modulated_any_more(known_background):
    truth = line(30.0, 0.6)
    photons, _ = recording(truth, [500.0], background=3000.0)
    removal = remove_exposure(
        photons,
        truth,
        background_rate_per_s=3000.0 if known_background else 0.0,
        random_seed=1,
    )
    assert bool(line_power(removal.photons, LINE_HZ, 0.1) < 10) is known_background
    total = 500.0 + removal.background_rate_per_s
    if known_background:
        assert len(removal.photons) / 30.0 == pytest.approx(total, rel=0.01)


def test_pulsed_recordings_stay_valid_and_keep_their_delays():
    truth = line(10.0, 0.5, 0.2)
    photons, _ = recording(truth, [4e3], background=500.0, period_ns=400.0)
    removal = remove_exposure(photons, truth, background_rate_per_s=500.0, random_seed=1)
    found = removal.photons
    assert found.tick_s == photons.tick_s
    assert np.all(np.diff(found.time_ticks) >= 0)
    assert found.duration_s == pytest.approx(10.0, abs=1e-6)
    assert len(found) == len(photons) + removal.n_photons_added
    assert found.delay_ticks.max() < 400.0 / 0.128
    # what was added is flat over the period: the delays hold that much more floor
    before, after = (np.bincount(x.delay_ticks, minlength=3125) for x in (photons, found))
    added = (after - before)[:3125].reshape(25, 125).sum(axis=1)
    assert added.sum() == removal.n_photons_added
    assert np.abs(added - added.mean()).max() < 5 * np.sqrt(added.mean())


def test_times_below_the_floor_are_cut_out_and_said():
    truth = schedule_exposure([0.0, 4.0, 6.0], [1.0, 0.05, 1.0], 10.0)
    photons, _ = recording(truth, [4e3], background=100.0)
    removal = remove_exposure(photons, truth, background_rate_per_s=100.0, random_seed=1)
    assert removal.time_cut_s == pytest.approx(2.0, abs=0.01)
    assert removal.photons.duration_s == pytest.approx(truth.integral(4.0) * 2, abs=0.01)
    assert "cut out" in removal.photons.warnings[-1]
    signal = len(removal.photons) / removal.photons.duration_s - removal.background_rate_per_s
    assert signal == pytest.approx(4e3, rel=0.02)
    real_s = np.array([0.5, 3.9, 6.5, 9.9])
    assert removal.real_time_s(removal.corrected_time_s(real_s)) == pytest.approx(real_s, abs=1e-9)


def test_removal_repeats_with_its_seed_and_moves_markers():
    truth = line(5.0, 0.5)
    made, _ = recording(truth, [2e3], background=300.0)
    markers = np.array([1_000_000, 4_000_000_000])
    photons = Photons(
        made.time_ticks,
        made.tick_s,
        duration_s=5.0,
        marker_ticks=markers,
        marker_codes=np.array([1, 2], np.uint8),
        path="a.ptu",
    )
    one, two, other = (
        remove_exposure(photons, truth, background_rate_per_s=300.0, random_seed=seed).photons
        for seed in (1, 1, 2)
    )
    assert one.digest == two.digest != other.digest
    assert one.path == "a.ptu"
    assert one.marker_ticks * 1e-9 == pytest.approx(truth.integral(markers * 1e-9), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"background_rate_per_s": -1.0}, "background_rate_per_s"),
        ({"floor": 1.0}, "floor"),
        ({"exposure": line(4.0, 0.1)}, "exposure"),
    ],
)
def test_wrong_removals_are_refused(change, named):
    photons, _ = recording(line(5.0, 0.0), [1e3])
    arguments = {"exposure": line(5.0, 0.1), "background_rate_per_s": 0.0, **change}
    with pytest.raises(ValueError, match=named):
        remove_exposure(photons, arguments.pop("exposure"), random_seed=1, **arguments)


# --- real light -----------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_hum_of_a_real_emitter_is_taken_out(shared_data):
    photons = read(shared_data / "qd_hydraharp_t3" / "v10_t3.ptu")
    background = estimate_background(photons).rate_per_s
    found = estimate_periodic(photons, 124.0, background_rate_per_s=background)
    assert found.log_bayes_factor > 500
    assert found.lines[0].harmonics == pytest.approx((0.23, 0.19, 0.09), abs=0.04)
    # a sideband of the first harmonic, given what was found before, and a whistle
    for frequency_hz, known in ((245.15, found), (1630.5, None)):
        added = estimate_periodic(
            photons,
            frequency_hz,
            background_rate_per_s=background,
            n_harmonics=1,
            known=known,
        )
        assert added.log_bayes_factor > 5
        found = combine(found, added)
    removal = remove_exposure(photons, found, background_rate_per_s=background, random_seed=1)
    for frequency_hz, largest in ((124.1, 40), (245.1, 14), (248.2, 14), (1630.6, 14)):
        assert line_power(photons, frequency_hz) > 40
        assert line_power(removal.photons, frequency_hz) < largest


@pytest.mark.shared_data
def test_a_real_emitter_without_a_hum_has_none(shared_data):
    photons = read(shared_data / "lhcii_picoharp_pt3" / "trace1.pt3")
    assert estimate_periodic(photons, 124.0).log_bayes_factor < 0
