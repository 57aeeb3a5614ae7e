"""What is inferred of the instrument, against recordings simulated with known truth."""

import json
import time

import numpy as np
import pytest
import scipy.stats

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons.delays import delay_clock, delay_histogram
from pncbayes.photons.instrument import (
    background_from_dark,
    dead_time_ns,
    detector_shifts,
    estimate_afterpulsing,
    estimate_background,
    estimate_response,
    fit_rise,
    gaussian_on_clock,
    instrument_report,
    load_response,
    pulse_occupancy,
)
from pncbayes.photons.pulse import find_pulse
from pncbayes.photons.stream import Photons

PERIOD_NS = 200.0
TICK_NS = 0.064
N_TICKS = 3125


def simulate(
    seed=0,
    background_per_s=300.0,
    bright_per_s=20_000.0,
    dim_per_s=500.0,
    flat_share=0.01,
    steady=False,
    duration_s=15.0,
    lifetime_ns=20.0,
    sd_ns=0.1,
    shift_ticks=0,
):
    """Two brightnesses, exponential decay, background and afterpulses that are flat in delay."""
    rng = np.random.default_rng(seed)
    block_s = 0.01
    n_blocks = round(duration_s / block_s)
    is_dim = np.cumsum(rng.random(n_blocks) < 0.05) % 2 * (not steady)
    counts = rng.poisson(np.where(is_dim, dim_per_s, bright_per_s) * block_s)
    times = np.repeat(np.arange(n_blocks), counts) * block_s
    times = times + rng.random(times.size) * block_s
    delays = 5.0 + rng.normal(0, sd_ns, times.size) + rng.exponential(lifetime_ns, times.size)
    extra = rng.choice(times, rng.binomial(times.size, flat_share))
    dark = rng.uniform(0, duration_s, rng.poisson(background_per_s * duration_s))
    flat = rng.uniform(0, PERIOD_NS, extra.size + dark.size)
    times = np.concatenate([times, extra, dark])
    delays = np.concatenate([delays % PERIOD_NS, flat])
    # an afterpulse has the time of its photon: unstable sorts differ between processors
    order = np.argsort(times, kind="stable")
    detector = rng.integers(0, 2, times.size).astype(np.uint8)
    ticks = (delays[order] / TICK_NS).astype(np.int64) + shift_ticks * detector.astype(np.int64)
    return Photons(
        time_ticks=(times[order] / (PERIOD_NS * 1e-9)).astype(np.int64),
        tick_s=PERIOD_NS * 1e-9,
        detector=detector,
        delay_ticks=(ticks % N_TICKS).astype(np.int32),
        delay_tick_ns=TICK_NS,
        period_ns=PERIOD_NS,
        duration_s=duration_s,
    )


@pytest.fixture(scope="module")
def blinking():
    return simulate()


def test_rise_gives_position_and_width(blinking):
    rise = fit_rise(delay_histogram(blinking), delay_clock(blinking))
    assert rise.center_ns == pytest.approx(5.0, abs=0.03)
    assert abs(rise.sd_ns - 0.1) < 4 * rise.sd_error_ns + 0.005
    assert 0 < rise.center_sd_ns < 0.02


def test_pulse_is_found_with_few_photons_and_not_in_noise():
    rng = np.random.default_rng(1)
    few = np.bincount(
        ((20.0 + rng.exponential(3.0, 300)) / 0.004).astype(int) % 50_000, minlength=50_000
    )
    assert find_pulse(few).position * 0.004 == pytest.approx(20.0, abs=0.5)
    assert find_pulse(rng.poisson(3.0, 3_000)) is None
    assert find_pulse(np.zeros(100)) is None
    # light without pulses, of which the electronics record the first half of each period
    half = np.concatenate([rng.poisson(3.0, 3_000), np.zeros(3_000, np.int64)])
    assert find_pulse(half) is None


@pytest.mark.parametrize("shift_ticks", [0, 1, 37, -300])
def test_shift_between_detectors(shift_ticks):
    found = []
    for seed in range(3):
        shifts = detector_shifts(simulate(seed, shift_ticks=shift_ticks, duration_s=5.0))
        assert 0 in shifts.values()
        found.append(shifts[0] - shifts[1])
    # 25,000 photons of each fix it to a third of a tick or so
    assert np.abs(np.array(found) - shift_ticks).max() <= 1
    assert np.median(found) == shift_ticks


def test_detector_of_another_laser_is_left_alone():
    with pytest.warns(PncbayesWarning, match="alternating lasers"):
        shifts = detector_shifts(simulate(shift_ticks=1500, duration_s=5.0))
    assert set(shifts.values()) == {0}


def test_shift_is_fast_on_a_fine_clock():
    rng = np.random.default_rng(4)
    n_photons = 5_000
    detector = rng.integers(0, 2, n_photons).astype(np.uint8)
    delays = (5_000.0 + rng.exponential(20_000.0, n_photons) + 900.0 * detector) % 100_000
    photons = Photons(
        time_ticks=np.arange(n_photons),
        tick_s=1e-7,
        detector=detector,
        delay_ticks=delays.astype(np.int32),
        delay_tick_ns=0.001,
        period_ns=100.0,
    )
    started = time.perf_counter()
    shifts = detector_shifts(photons)
    assert time.perf_counter() - started < 2.0
    assert shifts[0] - shifts[1] == pytest.approx(900, abs=300)


@pytest.mark.parametrize(
    "truth",
    [
        {},
        {"flat_share": 0.0},
        {"background_per_s": 1_000.0, "dim_per_s": 0.0},
        {"bright_per_s": 2_000.0, "background_per_s": 50.0, "dim_per_s": 50.0},
        {"steady": True},
    ],
)
def test_background_is_recovered_within_its_error(truth):
    wanted = {"background_per_s": 300.0, **truth}["background_per_s"]
    found = [estimate_background(simulate(seed=seed, **truth)) for seed in range(6)]
    z = np.array([(f.rate_per_s - wanted) / f.sd_per_s for f in found])
    assert np.all(np.abs(z) < 4.0)
    assert abs(np.mean(z)) < 2.0
    assert all(f.upper_per_s > 0.8 * wanted for f in found)
    assert all(f.quantile_per_s(0.05) < f.rate_per_s < f.quantile_per_s(0.95) for f in found)


def test_steady_light_leaves_the_background_open():
    blinks = estimate_background(simulate())
    steady = estimate_background(simulate(steady=True))
    assert steady.sd_per_s > 5 * blinks.sd_per_s


def test_flat_share_of_the_signal_is_not_background(blinking):
    assert estimate_background(blinking).flat_share == pytest.approx(0.011, abs=0.004)


def test_background_of_a_dark_recording():
    rng = np.random.default_rng(2)
    dark = Photons(time_ticks=np.sort(rng.integers(0, 10**10, 1_000)), tick_s=1e-9, duration_s=10.0)
    found = background_from_dark(dark)
    assert found.rate_per_s == pytest.approx(100.05)
    assert found.sd_per_s == pytest.approx(np.sqrt(1000.5) / 10)
    with pytest.raises(PhotonFileError, match="duration"):
        background_from_dark(Photons(time_ticks=np.empty(0, np.int64), tick_s=1e-9))


def test_estimated_response_warns(blinking):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)
    with pytest.warns(PncbayesWarning, match="give a measured response"):
        weight = estimate_response(histogram, clock)
    assert weight.sum() == pytest.approx(1.0)
    assert np.argmax(weight) == pytest.approx(5.0 / TICK_NS, abs=1.5)
    with pytest.warns(PncbayesWarning, match="no laser pulse"):
        assert estimate_response(np.full(N_TICKS, 10), clock) is None


def measured_response(clock, seed=5, floor=3.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(1e5 * gaussian_on_clock(5.0, 0.15, clock) + floor)


def test_measured_response_loses_its_floor(blinking):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)
    loaded = load_response(measured_response(clock), clock, histogram)
    assert loaded.source.startswith("measured")
    np.testing.assert_allclose(loaded.weight, gaussian_on_clock(5.0, 0.15, clock), atol=0.01)
    assert np.count_nonzero(loaded.weight) < 60


def test_response_from_photons_text_and_number(blinking, tmp_path):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)
    counts = measured_response(clock)
    delays = np.repeat(np.arange(N_TICKS), counts).astype(np.int32)
    recorded = Photons(
        time_ticks=np.arange(delays.size),
        tick_s=PERIOD_NS * 1e-9,
        delay_ticks=delays,
        delay_tick_ns=TICK_NS,
        period_ns=PERIOD_NS,
    )
    wanted = load_response(counts, clock, histogram).weight
    np.testing.assert_allclose(load_response(recorded, clock, histogram).weight, wanted)
    path = tmp_path / "response.txt"
    lines = [f"{i * TICK_NS:.4f}\t{c}" for i, c in enumerate(counts)]
    path.write_text("ns\tcounts\n" + "\n".join(lines), encoding="utf-8")
    np.testing.assert_allclose(load_response(path, clock, histogram).weight, wanted)
    gaussian = load_response(0.15, clock, histogram)
    np.testing.assert_allclose(gaussian.weight, gaussian_on_clock(5.0, 0.15, clock), atol=0.05)


def test_rows_missing_from_a_response_move_nothing(blinking, tmp_path):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)
    counts = measured_response(clock, floor=0.0)
    path = tmp_path / "response.txt"
    rows = [f"{i * TICK_NS:.4f} {c}" for i, c in enumerate(counts)]
    path.write_text("\n".join(rows), encoding="utf-8")
    whole = load_response(path, clock, histogram).weight
    assert np.argmax(whole) > 40
    path.write_text("\n".join(rows[:10] + rows[40:]), encoding="utf-8")
    np.testing.assert_allclose(load_response(path, clock, histogram).weight, whole, atol=1e-12)
    path.write_text("\n".join([*rows[:10], "0.32 --", *rows[11:]]), encoding="utf-8")
    with pytest.raises(PhotonFileError, match=r"line 11 of the response is no pair of numbers"):
        load_response(path, clock, histogram)
    path.write_text("\n".join([*rows[:20], *rows[10:]]), encoding="utf-8")
    with pytest.raises(PhotonFileError, match="must increase from row to row"):
        load_response(path, clock, histogram)


def test_response_that_is_not_of_these_data(blinking):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)
    counts = measured_response(clock, floor=0.0)
    assert load_response(np.roll(counts, 3), clock, histogram) is not None
    with pytest.raises(PhotonFileError, match="ns from the rise of the data"):
        load_response(np.roll(counts, 600), clock, histogram)
    with pytest.raises(PhotonFileError, match="not on the emitter"):
        load_response(histogram, clock, histogram)


def test_response_with_another_clock(blinking, tmp_path):
    clock, histogram = delay_clock(blinking), delay_histogram(blinking)

    def photons(tick_ns=TICK_NS, period_ns=PERIOD_NS):
        return Photons(
            time_ticks=np.arange(100),
            tick_s=1e-7,
            delay_ticks=np.full(100, 78, np.int32),
            delay_tick_ns=tick_ns,
            period_ns=period_ns,
        )

    path = tmp_path / "response.csv"
    path.write_text("\n".join(f"{i * 0.05},{i == 70:d}" for i in range(4000)), encoding="utf-8")
    for wrong in (
        photons(tick_ns=0.0645),
        photons(period_ns=PERIOD_NS / 2),
        np.ones(1000),
        path,
    ):
        with pytest.raises(PhotonFileError, match="response with another clock"):
            load_response(wrong, clock, histogram)
    assert load_response(photons(tick_ns=TICK_NS * 1.0005), clock, histogram).weight[78] == 1.0


@pytest.mark.parametrize(
    "wrong", [np.zeros(N_TICKS), np.full(N_TICKS, np.nan), -np.ones(N_TICKS), np.ones(N_TICKS)]
)
def test_useless_response(wrong, blinking):
    with pytest.raises(PhotonFileError, match="response"):
        load_response(wrong, delay_clock(blinking), delay_histogram(blinking))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), 500.0, True])
def test_useless_number_for_a_response(wrong, blinking):
    with pytest.raises(PhotonFileError, match="response"):
        load_response(wrong, delay_clock(blinking), delay_histogram(blinking))


def test_occupancy_warns_above_one_per_cent(blinking):
    occupancy = pulse_occupancy(blinking)
    assert occupancy[0][0] < occupancy[0][1] < 0.01
    assert occupancy[0][1] == pytest.approx(0.5 * 20_500 * PERIOD_NS * 1e-9, rel=0.15)
    with pytest.warns(PncbayesWarning, match="pile-up"):
        pulse_occupancy(simulate(bright_per_s=300_000.0, duration_s=1.0))


@pytest.mark.parametrize("probability", [0.0, 0.02])
def test_afterpulses_are_recovered(probability):
    rng = np.random.default_rng(8)
    duration_s, tick_s = 10.0, 1e-8
    times = np.sort(rng.uniform(0, duration_s, 300_000))
    detector = rng.integers(0, 2, times.size)
    made = rng.random(times.size) < probability
    after = times[made] + rng.uniform(0.2e-6, 3e-6, made.sum())
    every = np.concatenate([times, after])
    order = np.argsort(every)
    photons = Photons(
        time_ticks=(every[order] / tick_s).astype(np.int64),
        tick_s=tick_s,
        detector=np.concatenate([detector, detector[made]])[order].astype(np.uint8),
    )
    found = estimate_afterpulsing(photons)
    assert abs(found.probability - probability) < 4 * found.sd + 5e-4
    assert found.sd < 0.005
    coarse = Photons(time_ticks=np.arange(1000), tick_s=1e-5)
    assert np.isnan(estimate_afterpulsing(coarse).probability)


def test_dead_time_is_the_shortest_gap():
    rng = np.random.default_rng(9)
    gaps = 80.0 + rng.exponential(2_000.0, 200_000)
    photons = Photons(time_ticks=np.cumsum(gaps).astype(np.int64), tick_s=1e-9)
    assert dead_time_ns(photons) == pytest.approx(80.0, abs=2.0)
    few = Photons(time_ticks=np.arange(100) * 10**7, tick_s=1e-9)
    assert np.isnan(dead_time_ns(few))


def test_report_is_plain_numbers(blinking):
    report = instrument_report(blinking)
    assert report["background_q05_per_s"] < 300.0 < report["background_upper_per_s"]
    assert report["pulse_ns"] == pytest.approx(5.0, abs=0.05)
    assert report["response_width_ns"] == pytest.approx(0.2355, abs=0.05)
    assert set(report["detectors"]) == {0, 1}
    assert report["warnings"] == []
    json.dumps(report, allow_nan=False)


def test_report_without_delays():
    rng = np.random.default_rng(2)
    photons = Photons(
        time_ticks=np.sort(rng.integers(0, 10**7, 5_000)), tick_s=1e-6, duration_s=10.0
    )
    report = instrument_report(photons)
    assert report["pulse_ns"] is None
    assert report["background_rate_per_s"] is None
    assert report["background_upper_per_s"] > 0
    json.dumps(report, allow_nan=False)


def test_gaussian_on_clock_wraps(blinking):
    weight = gaussian_on_clock(0.01, 0.3, delay_clock(blinking))
    assert weight.sum() == pytest.approx(1.0)
    assert weight[-1] == pytest.approx(
        np.diff(scipy.stats.norm.cdf([-0.074, -0.01], 0, 0.3))[0], rel=0.02
    )


@pytest.mark.shared_data
def test_real_recording(shared_data):
    from pncbayes.photons.formats import read

    report = instrument_report(read(shared_data / "qd_hydraharp_t3" / "v10_t3.ptu"))
    assert report["pulse_ns"] == pytest.approx(3.4, abs=0.1)
    assert report["response_width_ns"] < 0.3
    assert 80 < report["background_rate_per_s"] < report["background_upper_per_s"] < 300
    assert report["dead_time_ns"] == pytest.approx(80, abs=5)
    assert all(d["shift_ticks"] == 0 for d in report["detectors"].values())


@pytest.mark.shared_data
def test_real_response_fits_its_decay_after_a_shift(shared_data):
    from pncbayes.photons.delays import DelayClock
    from pncbayes.photons.gates import choose_gates
    from pncbayes.physics.decay import HistogramResponse, LifetimeFitter, response_shift_ns

    folder = shared_data / "lhcii_picoharp_pt3"
    clock = DelayClock(3292, 0.004, 1e3 / 75.945 / 0.004)
    histogram = np.loadtxt(folder / "Decaytrace1")[:3292, 1].astype(np.int64)
    loaded = load_response(folder / "IRF_data.txt", clock, histogram)
    response = HistogramResponse(loaded.weight, clock.tick_ns)
    edges = choose_gates(histogram)
    counts = np.add.reduceat(histogram, edges[:-1])
    start, stop = edges[:-1] * clock.tick_ns, edges[1:] * clock.tick_ns
    shift, sd = response_shift_ns(counts, start, stop, response, clock.period_ns)
    assert sd < 0.02
    fit = LifetimeFitter(start, stop, response, clock.period_ns, shift_ns=shift).fit(counts)
    # two exponentials and a background describe these 17,112 photons: chi squared per gate near 1
    unshifted = LifetimeFitter(start, stop, response, clock.period_ns).fit(counts)
    assert fit.log_likelihood[0] > unshifted.log_likelihood[0] + 100
    assert 0.3 < fit.lifetime_ns[0] < 3.0
    assert not fit.at_bound[0]
