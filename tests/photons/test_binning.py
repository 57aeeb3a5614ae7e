"""Binning against `numpy.histogramdd`, gates by their rule, and errors for absurd requests."""

import gc
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons.binning import (
    bin_photons,
    camera_trace,
    choose_width_s,
    merge_empty_gates,
    photons_of,
    rebin,
)
from pncbayes.photons.delays import delay_clock, delay_histogram
from pncbayes.photons.gates import choose_gates
from pncbayes.photons.pulse import find_pulse, recorded_ticks
from pncbayes.photons.stream import Photons

PERIOD_NS = 100.0
TICK_NS = 0.032


def make_photons(
    n_photons=20_000,
    duration_s=2.0,
    seed=0,
    lifetime_ns=10.0,
    center_ns=5.0,
    background_share=0.1,
    period_ns=PERIOD_NS,
    **changes,
):
    rng = np.random.default_rng(seed)
    tick_s = period_ns * 1e-9
    times = np.sort(rng.integers(0, round(duration_s / tick_s), n_photons))
    delay = center_ns + rng.normal(0, 0.1, n_photons) + rng.exponential(lifetime_ns, n_photons)
    flat = rng.random(n_photons) < background_share
    delay[flat] = rng.uniform(0, period_ns, flat.sum())
    content = {
        "time_ticks": times,
        "tick_s": tick_s,
        "detector": rng.integers(0, 2, n_photons).astype(np.uint8),
        "delay_ticks": ((delay % period_ns) / TICK_NS).astype(np.int32),
        "delay_tick_ns": TICK_NS,
        "period_ns": period_ns,
        "duration_s": duration_s,
    }
    return Photons(**{**content, **changes})


def edges_of(trace):
    return np.append(trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()[-1])


@pytest.mark.parametrize("width_s", [0.01, 0.003, 0.0007])
def test_counts_equal_histogramdd(width_s):
    photons = make_photons()
    trace = bin_photons(photons, width_s, response=0.1)
    n_bins = trace.sizes["time"]
    # edges in whole ticks, so that NumPy does not meet half-rounded floats
    time_edges = np.ceil(np.arange(n_bins + 1) * width_s / photons.tick_s - 1e-6)
    gate_edges = np.rint(edges_of(trace) / TICK_NS)
    sample = np.column_stack([photons.time_ticks, photons.delay_ticks + 0.5])
    inside = photons.time_ticks < time_edges[-1]
    wanted, _ = np.histogramdd(sample[inside], bins=(time_edges, gate_edges))
    np.testing.assert_array_equal(trace["counts"].to_numpy(), wanted)
    assert trace["counts"].dtype == np.uint32
    assert trace.attrs["dropped_s"] == pytest.approx(2.0 - n_bins * width_s, abs=1e-9)


@pytest.mark.filterwarnings("ignore::pncbayes.errors.PncbayesWarning")
@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 3_000), max_size=5),
    width_ticks=st.integers(1, 5_000),
)
def test_counts_do_not_depend_on_chunks(cuts, width_ticks):
    """Pieces of the recording, binned alone on the same grid, add up to the whole."""
    photons = make_photons(3_000, duration_s=1e-3, seed=4)
    width_s = width_ticks * photons.tick_s
    gates = [0.0, 4.8, 6.4, 12.8, 32.0, PERIOD_NS]
    options = {
        "gates": gates,
        "response": False,
        "background_rate_per_s": 0.0,
        "align_detectors": False,
    }
    whole = bin_photons(photons, width_s, **options)["counts"].to_numpy()
    total = np.zeros_like(whole)
    borders = sorted({0, *cuts, 3_000})
    number = np.arange(3_000)
    for first, stop in pairwise(borders):
        part = photons.select((number >= first) & (number < stop))
        total += bin_photons(part, width_s, **options)["counts"].to_numpy()
    np.testing.assert_array_equal(total, whole)


def test_bins_whose_width_is_no_whole_number_of_ticks_lose_no_photon():
    photons = make_photons(duration_s=2.0)
    trace = bin_photons(photons, 0.0003, response=0.1)
    last_s = trace.sizes["time"] * 0.0003
    assert trace["counts"].sum() == np.sum(photons.time_s < last_s - 1e-12)


def test_without_delays_there_is_one_gate_without_edges():
    photons = make_photons(delay_ticks=None, delay_tick_ns=None)
    trace = bin_photons(photons, 0.01)
    assert trace.sizes["gate"] == 1
    assert np.isnan(trace["gate_start_ns"]).all()
    assert "response" not in trace
    assert np.isnan(trace.attrs["background_rate_per_s"])
    assert trace.attrs["background_upper_per_s"] > 0
    assert trace["counts"].sum() == len(photons)


def test_trace_says_what_it_is():
    photons = make_photons()
    trace = bin_photons(photons, 0.01, response=0.1)
    assert trace.sizes["gate"] == 24
    assert trace.attrs["kind"] == "photons"
    assert trace.attrs["digest"] == photons.digest
    assert trace.attrs["period_ns"] == PERIOD_NS
    assert trace.attrs["pulse_ns"] == pytest.approx(5.0, abs=0.1)
    assert trace["response"].sum() == pytest.approx(1.0)
    assert trace["background_gate_fraction"].sum() == pytest.approx(1.0)
    assert trace["time"].attrs["units"] == "s"
    assert json.loads(trace.attrs["warnings"]) == []


def test_trace_survives_a_netcdf_file(tmp_path):
    import xarray as xr

    trace = bin_photons(make_photons(), 0.01, response=0.1)
    trace.to_netcdf(tmp_path / "trace.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "trace.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), trace)


def test_estimated_response_warns_and_is_written_down():
    with pytest.warns(PncbayesWarning, match="response was estimated"):
        trace = bin_photons(make_photons(), 0.01)
    assert "estimated" in json.loads(trace.attrs["warnings"])[0]


def test_detectors_are_aligned():
    photons = make_photons(60_000)
    late = photons.delay_ticks + 40 * (photons.detector == 1)
    moved = make_photons(60_000, delay_ticks=(late % 3125).astype(np.int32))
    trace = bin_photons(moved, 0.01, response=0.1)
    shifts = json.loads(trace.attrs["detector_shift_ticks"])
    assert sorted(np.abs(shifts)) == [0, 40]
    assert abs(shifts[1] - shifts[0]) == 40
    alone = bin_photons(photons, 0.01, response=0.1)
    offset_ns = trace.attrs["pulse_ns"] - alone.attrs["pulse_ns"]
    # the reference is the detector with most photons, so the pulse may stand at either place
    assert min(abs(offset_ns), abs(offset_ns - 40 * TICK_NS)) < 0.1


def test_delays_beyond_the_period_are_folded_and_said():
    photons = make_photons()
    longer = photons.delay_ticks + 3125 * (np.arange(len(photons)) % 10 == 0)
    with pytest.warns(PncbayesWarning, match="folded"):
        folded = bin_photons(make_photons(delay_ticks=longer.astype(np.int32)), 0.01, response=0.1)
    trace = bin_photons(photons, 0.01, response=0.1)
    np.testing.assert_array_equal(folded["counts"], trace["counts"])


def test_unknown_period_is_said():
    photons = replace(make_photons(), period_ns=None)
    with pytest.warns(PncbayesWarning, match="laser period is not in the file"):
        trace = bin_photons(photons, 0.01, response=0.1)
    assert trace.attrs["period_ns"] == pytest.approx(PERIOD_NS, abs=0.1)


@pytest.mark.parametrize("roll", [0, -170, -156, -140, 300, 1500, 2800])
@pytest.mark.parametrize("n_gates", [16, 24, 40])
def test_gates_fill_the_period_wherever_the_pulse_is(roll, n_gates):
    histogram = np.roll(delay_histogram(make_photons(50_000)), roll)
    edges = choose_gates(histogram, n_gates)
    assert edges.size == n_gates + 1
    assert edges[0] == 0
    assert edges[-1] == 3125
    assert np.diff(edges).min() >= 1
    # the gate that ends before the pulse holds background only
    pulse = find_pulse(histogram)
    density = np.add.reduceat(histogram, edges[:-1]) / np.diff(edges)
    before = int(np.searchsorted(edges, (pulse.position - 40) % 3125, side="right")) - 1
    assert density[before] < 0.05 * density.max()
    # and the narrow ones are at the pulse
    narrowest = edges[int(np.argmin(np.diff(edges)))]
    assert (narrowest - pulse.position + 40) % 3125 < 80


def test_too_many_gates_for_the_clock():
    with pytest.raises(ValueError, match="n_gates"):
        choose_gates(np.ones(30))
    assert choose_gates(np.ones(30), 8).size == 9


def test_given_gates_are_kept_and_what_is_outside_is_counted():
    photons = make_photons()
    trace = bin_photons(photons, 0.01, gates=[3.2, 6.4, 16.0, 64.0], response=0.1)
    assert trace.sizes["gate"] == 3
    outside = (photons.delay_ticks < 100) | (photons.delay_ticks >= 2000)
    assert trace.attrs["n_photons_outside_gates"] == outside.sum()
    assert trace["counts"].sum() == np.sum(~outside)
    for bad in ([3.0, 2.0, 5.0], [0.0, 0.001, 50.0], [0.0, 50.0, 120.0], [0.0], [0.0, np.nan]):
        with pytest.raises(ValueError, match="gates"):
            bin_photons(photons, 0.01, gates=bad)


def test_dead_ends_of_the_period_are_not_recorded():
    histogram = delay_histogram(make_photons(50_000, background_share=0.3))
    histogram[2900:] = 0
    assert recorded_ticks(histogram) == (0, 2900)
    assert choose_gates(histogram)[-1] == 2900


def test_period_that_is_not_whole_ticks():
    photons = make_photons(period_ns=100.01)
    clock = delay_clock(photons)
    assert clock.n_ticks == 3126
    trace = bin_photons(photons, 0.01, response=0.1)
    assert trace["counts"].sum() == len(photons)
    assert float(trace["gate_stop_ns"][-1]) == pytest.approx(100.01)


@pytest.mark.parametrize(
    ("width_s", "message"),
    [
        (0.0, "positive"),
        (-0.01, "positive"),
        (float("nan"), "positive"),
        (float("inf"), "positive"),
        (3.0, "length of the recording"),
        (1e-12, "tick"),
        ("10 ms", "number"),
        (True, "number"),
    ],
)
def test_absurd_widths(width_s, message):
    with pytest.raises(ValueError, match=message):
        bin_photons(make_photons(100), width_s)


def test_absurd_numbers_of_bins_and_delays():
    long = make_photons(100, duration_s=5_000.0, delay_ticks=None, delay_tick_ns=None)
    with pytest.raises(ValueError, match="bins"):
        bin_photons(long, 1e-6)
    wild = make_photons(100, delay_ticks=np.full(100, 2**31 - 1, np.int32))
    with pytest.raises(PhotonFileError, match="delay unit"):
        bin_photons(wild, 0.01)


def test_no_photons_and_no_length():
    with pytest.raises(PhotonFileError, match="no photons"):
        bin_photons(make_photons(0), 0.01)
    with pytest.raises(PhotonFileError, match="no length"):
        bin_photons(Photons(time_ticks=np.zeros(3, np.int64), tick_s=1e-9))


def test_partial_last_bin_is_said_when_it_is_large():
    with pytest.warns(PncbayesWarning, match="do not fill a bin"):
        trace = bin_photons(make_photons(), 0.7, response=0.1)
    assert trace.sizes["time"] == 2
    assert trace.attrs["dropped_s"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("rate_per_s", "width_s"),
    [(1e6, 0.001), (50_000, 0.002), (20_000, 0.005), (10_000, 0.01), (1_000, 0.05)],
)
def test_width_by_rule(rate_per_s, width_s):
    n_photons = int(rate_per_s * 2.0)
    photons = make_photons(n_photons, delay_ticks=None, delay_tick_ns=None)
    assert choose_width_s(photons) == width_s


def test_width_by_rule_looks_at_the_bright_tenth():
    rng = np.random.default_rng(1)
    dim, bright = rng.uniform(0, 20, 2_000), rng.uniform(0, 2, 40_000)
    times = np.sort(np.concatenate([dim, bright]))
    photons = Photons(time_ticks=(times * 1e7).astype(np.int64), tick_s=1e-7, duration_s=20.0)
    assert choose_width_s(photons) == 0.005
    assert bin_photons(photons).attrs["width_s"] == 0.005


@pytest.mark.parametrize(("n_ticks", "width_ticks"), [(1, 1), (5, 1), (10, 1), (40, 4)])
def test_width_by_rule_is_no_less_than_a_tick(n_ticks, width_ticks):
    times = np.arange(n_ticks)
    photons = Photons(time_ticks=times, tick_s=1e-3, duration_s=n_ticks * 1e-3)
    assert choose_width_s(photons) == pytest.approx(width_ticks * 1e-3)
    trace = bin_photons(photons, background_rate_per_s=0.0)
    assert trace["counts"].sum() == n_ticks


def test_photons_are_found_again_and_forgotten():
    trace = bin_photons(make_photons(seed=11), 0.01, response=0.1)
    gc.collect()
    assert photons_of(trace).digest == trace.attrs["digest"]
    for seed in range(12, 17):
        bin_photons(make_photons(2_000, seed=seed), 0.01, response=0.1)
    gc.collect()
    assert photons_of(trace) is None
    with pytest.raises(ValueError, match="photons are not in memory"):
        rebin(trace, 0.002)


def test_rebin_equals_binning_anew():
    photons = make_photons()
    coarse = bin_photons(photons, 0.01, response=0.1)
    fine = rebin(coarse, 0.002)
    anew = bin_photons(photons, 0.002, response=0.1)
    np.testing.assert_array_equal(fine["counts"], anew["counts"])
    np.testing.assert_array_equal(fine["gate_start_ns"], anew["gate_start_ns"])
    np.testing.assert_array_equal(fine["response"], anew["response"])
    assert fine.attrs == anew.attrs
    np.testing.assert_array_equal(
        fine["counts"].to_numpy().reshape(-1, 5, 24).sum(axis=1), coarse["counts"]
    )


def test_background_above_the_light_is_refused():
    photons = make_photons()
    with pytest.raises(PhotonFileError, match="more than all its light"):
        bin_photons(photons, 0.01, response=0.1, background_rate_per_s=1e9)
    with pytest.warns(PncbayesWarning, match="dimmest part of the record"):
        bin_photons(photons, 0.01, response=0.1, background_rate_per_s=6_000.0)
    for wrong in ("200", (200.0, 1.0, 2.0), np.array([200.0, 10.0]), (200.0, "x"), True, -1.0):
        with pytest.raises(ValueError, match="`background_rate_per_s` must be a rate"):
            bin_photons(photons, 0.01, response=0.1, background_rate_per_s=wrong)


def test_a_period_that_most_delays_exceed_is_refused():
    photons = make_photons(period_ns=4.0)
    late = replace(photons, delay_ticks=np.full(len(photons), 200, np.int32))
    with pytest.raises(PhotonFileError, match="longer than the laser period of 4 ns"):
        bin_photons(late, 0.01)


def test_ticks_are_whole_numbers():
    with pytest.raises(PhotonFileError, match="`time_ticks` must be whole numbers of ticks"):
        Photons(np.array([0.5, 1.2]), 1e-7)
    with pytest.raises(PhotonFileError, match="`time_ticks` must be whole numbers"):
        Photons(np.array([0.0, np.nan]), 1e-7)
    with pytest.raises(PhotonFileError, match="`delay_ticks` must be whole numbers of ticks"):
        Photons(np.arange(2), 1e-7, delay_ticks=np.array([1.7, 2.0]), delay_tick_ns=0.1)
    assert Photons(np.array([0.0, 3.0]), 1e-7).time_ticks.dtype == np.int64
    assert len(Photons([], 1e-7)) == 0


def test_gates_without_photons_are_merged():
    photons = make_photons(lifetime_ns=2.0, background_share=0.0)
    trace = bin_photons(photons, 0.01, response=0.1, background_rate_per_s=0.0)
    edges = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 8.0, 12.0, 60.0, 80.0, 100.0])
    gated = bin_photons(photons, 0.01, gates=edges, response=0.1, background_rate_per_s=0.0)
    merged = merge_empty_gates(gated)
    totals = gated["counts"].sum("time").values
    assert (totals == 0).sum() > 2
    assert (merged["counts"].sum("time") > 0).all()
    assert merged.sizes["gate"] == np.count_nonzero(totals)
    assert merged["counts"].dtype == gated["counts"].dtype
    np.testing.assert_array_equal(merged["counts"].sum("gate"), gated["counts"].sum("gate"))
    assert merged["background_gate_fraction"].sum() == pytest.approx(1.0)
    inside = merged["gate_stop_ns"].values[:-1]
    np.testing.assert_array_equal(merged["gate_start_ns"].values[1:], inside)
    assert set(inside) <= set(edges_of(gated))
    # on another time grid the gates are those that were left
    assert rebin(merged, 0.005).sizes["gate"] == merged.sizes["gate"]
    if (trace["counts"].sum("time") > 0).all():
        assert merge_empty_gates(trace) is trace


def test_camera_numbers_are_kept():
    trace = camera_trace(
        np.arange(60.0), 0.1, gain=5.0, offset=100.0, read_noise=3.0, excess_factor=2.0
    )
    assert trace.attrs["kind"] == "camera"
    assert trace["counts"].shape == (60, 1)
    assert trace.attrs["gain"] == 5.0
    assert trace.attrs["exposure_s"] == 0.1
    assert photons_of(trace) is None


@pytest.mark.parametrize(("gain", "offset", "read_noise"), [(5.0, 100.0, 0.0), (8.0, 240.0, 6.0)])
def test_camera_numbers_are_estimated_with_a_warning(gain, offset, read_noise):
    rng = np.random.default_rng(3)
    level = np.repeat(rng.integers(0, 2, 300), rng.integers(2, 20, 300))
    photons = rng.poisson(np.where(level, 60.0, 4.0))
    counts = offset + gain * photons + rng.normal(0, read_noise, photons.size)
    with pytest.warns(PncbayesWarning, match="camera numbers not given"):
        trace = camera_trace(counts, 0.05, read_noise=read_noise, excess_factor=1.0)
    assert trace.attrs["gain"] == pytest.approx(gain, rel=0.15)
    assert trace.attrs["offset"] == pytest.approx(offset, abs=2 * gain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, np.nan], 0.1), "NaN"),
        (([], 0.1), "one row"),
        ((np.ones((3, 3)), 0.1), "one row"),
        (([1.0, 2.0], 0.0), "frame_s"),
        (([1.0, 2.0], 0.1), "give `gain` and `offset`"),
        ((np.ones(100), 0.1), "does not rise"),
    ],
)
def test_bad_camera_traces(arguments, message):
    with pytest.raises(PhotonFileError, match=message):
        camera_trace(*arguments)


@pytest.mark.parametrize(
    "number", [{"gain": 0.0}, {"excess_factor": 0.5}, {"exposure_s": 0.2}, {"offset": np.inf}]
)
def test_bad_camera_numbers(number):
    with pytest.raises(PhotonFileError, match=next(iter(number))):
        camera_trace(np.arange(100.0), 0.1, **number)


@pytest.mark.shared_data
def test_real_recording_is_binned_and_found_again(shared_data):
    from pncbayes.photons.formats import read

    path = shared_data / "qd_hydraharp_t3" / "v10_t3.ptu"
    trace = bin_photons(read(path), 0.01, response=0.1)
    gc.collect()
    assert trace["counts"].sum() == 94_560
    assert trace.attrs["pulse_ns"] == pytest.approx(3.4, abs=0.2)
    assert len(photons_of(trace)) == 94_560
    assert rebin(trace, 0.002)["counts"].sum() == 94_560
