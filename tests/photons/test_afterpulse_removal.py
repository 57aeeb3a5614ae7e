"""Afterpulses: found, told from light, left out, and the light that goes with them put back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pncbayes.photons.afterpulse_removal import AfterpulseRemoval, remove_afterpulses
from pncbayes.photons.afterpulse_search import search_afterpulses
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import SimulatedState, simulate

WIDTH_S = 0.01
SWITCHING = [(0.0, 20.0), (5e3, 20.0), (5e3, 3.0), (25e3, 20.0), (25e3, 3.0), (50e3, 20.0)]
CLOCKS = [(400.0, 2), (100.0, 1), (None, 2), (None, 1)]
# light per s, share of afterpulses and their mean delay in ns
LIGHTS = [(2e3, 0.2, 1000.0), (5e3, 0.05, 300.0), (20e3, 0.1, 1000.0), (20e3, 0.2, 300.0)]


def dot(seed, rates=(20e3,), lifetimes=(20.0, 3.0), jumps_per_s=0.0, duration_s=20.0, **settings):
    """A recording with afterpulses, and the true photons of the same dot."""
    settings = {"period_ns": 100.0, "dead_time_ns": 80.0, "background_rate_per_s": 200.0} | settings
    pulsed = settings["period_ns"] is not None
    states = [
        SimulatedState(rate, (lifetime,) if pulsed else ())
        for rate, lifetime in zip(rates, lifetimes, strict=False)
    ]
    if len(states) > 1:
        settings["exit_rates_per_s"] = [jumps_per_s, jumps_per_s]
    options = {"duration_s": duration_s, "random_seed": seed}
    clean = {**settings, "afterpulse_probability": 0.0, "dead_time_ns": 0.0}
    return (
        simulate(states, **options, **settings).photons,
        simulate(states, **options, **clean).photons,
    )


def keys(photons):
    delays = 0 if photons.delay_ticks is None else photons.delay_ticks
    return (photons.time_ticks * 4096 + delays) * 4 + photons.detector


def counts(photons):
    n_bins = round(photons.duration_s / WIDTH_S)
    places = (photons.time_s / WIDTH_S).astype(int)
    return np.bincount(places, minlength=n_bins)[:n_bins]


def fano(photons):
    numbers = counts(photons)
    return numbers.var() / numbers.mean(), np.sqrt(2.0 / numbers.size)


def reference(photons, time_ns):
    """Keep photons whose detector saw nothing in the time before, one photon at a time."""
    times_ns = photons.time_ticks * photons.tick_s * 1e9
    if photons.delay_ns is not None:
        times_ns = times_ns + photons.delay_ns
    keep = []
    for i, (now, number) in enumerate(zip(times_ns, photons.detector, strict=True)):
        before = times_ns[:i][photons.detector[:i] == number]
        keep.append(before.size == 0 or now - before.max() >= time_ns)
    return np.array(keep, bool)


@given(
    gaps=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    seed=st.integers(0, 99),
    time_ns=st.sampled_from([1.5, 150.5, 399.5, 1000.5]),
    pulsed=st.booleans(),
)
def test_kept_are_those_of_the_reference(gaps, seed, time_ns, pulsed):
    rng = np.random.default_rng(seed)
    ticks = np.cumsum(gaps)
    numbers = rng.integers(0, 3, ticks.size).astype(np.uint8)
    delays = np.sort(rng.integers(0, 100, ticks.size))
    photons = Photons(ticks, 1e-7, numbers, *((delays, 1.0, 100.0) if pulsed else ()))
    removed = remove_afterpulses(photons, time_ns=time_ns)
    keep = reference(photons, time_ns)
    np.testing.assert_array_equal(removed.photons.time_ticks, ticks[keep])
    np.testing.assert_array_equal(removed.photons.detector, numbers[keep])
    assert removed.share_dropped == pytest.approx(1.0 - keep.mean())


def test_chains_go_whole():
    # afterpulse of an afterpulse, further from the photon than the time
    photons = Photons(np.array([0, 700, 1400, 2100, 9000]), 1e-9)
    kept = remove_afterpulses(photons, time_ns=1000.0).photons
    assert kept.time_ticks.tolist() == [0, 9000]


@pytest.mark.parametrize(
    ("period_ns", "n_detectors", "rate", "probability", "time_ns"),
    [
        # each light and each clock once; all pairs of them take a minute
        one if k == j else pytest.param(*one, marks=pytest.mark.slow)
        for k, light in enumerate(LIGHTS)
        for j, one in enumerate((*clock, *light) for clock in CLOCKS)
    ],
)
def test_steady_light_scatters_as_without_afterpulses(
    period_ns, n_detectors, rate, probability, time_ns
):
    options = {"period_ns": period_ns, "n_detectors": n_detectors, "duration_s": 30.0}
    options |= {"afterpulse_probability": probability, "afterpulse_time_ns": time_ns}
    photons, clean = dot(7, (rate,), **options)
    removed = remove_afterpulses(photons)
    kept = removed.photons
    assert removed.told_by == (
        "detectors" if n_detectors == 2 else "lags" if period_ns is None else "delays"
    )
    error = max(4 * removed.share_afterpulses_sd, 0.02 * probability)
    assert removed.share_afterpulses == pytest.approx(probability, abs=error)
    before, error = fano(photons)
    assert before > 1.0 + 2.0 * probability - 4 * error
    # the same photons beneath, but for those lost, whose gaps make light more even
    kept_rate = len(kept) / 30.0
    expected = removed.fano_factor(kept_rate)
    assert expected < 1.02
    assert fano(kept)[0] == pytest.approx(fano(clean)[0] + expected - 1.0, abs=3 * error)
    # what was left out are afterpulses, and by chance true photons
    is_true, is_kept = np.isin(keys(photons), keys(clean)), np.isin(keys(photons), keys(kept))
    assert (~is_true & is_kept).sum() / is_kept.sum() < 0.007
    assert removed.share_left == pytest.approx((~is_true & is_kept).sum() / len(kept), abs=0.004)
    assert (~is_true & ~is_kept).sum() > 0.88 * (~is_true).sum()
    by_chance = -np.expm1(-rate / n_detectors * removed.blind_ns * 1e-9)
    assert (is_true & ~is_kept).sum() / is_true.sum() == pytest.approx(by_chance, rel=0.2)
    # brightness
    assert removed.true_rate(kept_rate) == pytest.approx(len(clean) / 30.0, rel=0.005)
    if period_ns is not None:
        delays = clean.delay_ns
        error = delays.std() / np.sqrt(delays.size)
        # of true photons; afterpulses that are left bring the flat delays they have
        assert photons.delay_ns[is_true & is_kept].mean() == pytest.approx(delays.mean(), abs=error)
        pull = removed.share_left * (0.5 * period_ns - delays.mean())
        assert kept.delay_ns.mean() == pytest.approx(
            delays.mean() + pull, abs=3 * error + 0.3 * pull
        )


@pytest.mark.parametrize(("period_ns", "n_detectors"), CLOCKS)
def test_a_blinking_dot_gets_its_brightness_back(period_ns, n_detectors):
    photons, clean = dot(
        11,
        (20e3, 4e3),
        jumps_per_s=5.0,
        period_ns=period_ns,
        n_detectors=n_detectors,
        afterpulse_probability=0.1,
    )
    removed = remove_afterpulses(photons)
    true = removed.true_rate(counts(removed.photons) / WIDTH_S)
    truth = counts(clean) / WIDTH_S
    bright = truth > 15e3
    assert true[bright].mean() == pytest.approx(truth[bright].mean(), rel=0.005)
    assert true[~bright].mean() == pytest.approx(truth[~bright].mean(), rel=0.01)
    # without: afterpulses make it brighter, lost photons darker
    assert counts(photons)[bright].mean() / WIDTH_S > 1.08 * truth[bright].mean()
    assert counts(removed.photons)[bright].mean() / WIDTH_S < 0.98 * truth[bright].mean()


@pytest.mark.parametrize(("period_ns", "n_detectors"), [*CLOCKS, (400.0, 1)])
@pytest.mark.parametrize(("jumps_per_s", "bright_ns"), SWITCHING)
def test_light_that_switches_within_microseconds_is_no_afterpulse(
    period_ns, n_detectors, jumps_per_s, bright_ns
):
    lifetimes = (bright_ns, 23.0 - bright_ns)
    rates = (20e3, 2e3) if jumps_per_s else (20e3,)
    options = {"period_ns": period_ns, "n_detectors": n_detectors, "duration_s": 10.0}
    photons, _ = dot(3, rates, lifetimes, jumps_per_s, **options)
    removed = remove_afterpulses(photons)
    assert removed.photons is photons
    assert removed.note == ""
    assert removed.time_ns == removed.share_dropped == 0.0
    assert removed.true_rate([0.0, 1e3, 1e7]).tolist() == [0.0, 1e3, 1e7]
    assert removed.share_afterpulses < 0.005
    # and afterpulses are found beside it
    photons, _ = dot(3, rates, lifetimes, jumps_per_s, afterpulse_probability=0.1, **options)
    found = search_afterpulses(photons)
    assert found.share == pytest.approx(0.1, abs=4 * found.sd + 0.005)
    assert remove_afterpulses(photons).share_left < 0.01


def test_few_afterpulses_are_left_alone():
    photons, _ = dot(5, afterpulse_probability=0.003)
    removed = remove_afterpulses(photons)
    assert removed.photons is photons
    assert removed.share_left == removed.share_afterpulses
    error = 4 * removed.share_afterpulses_sd
    assert removed.share_afterpulses == pytest.approx(0.003, abs=error)


def test_light_is_not_given_away_for_slow_afterpulses():
    photons, clean = dot(
        6, (150e3,), duration_s=5.0, afterpulse_probability=0.1, afterpulse_time_ns=2000.0
    )
    removed = remove_afterpulses(photons)
    # 75 kcps and 8 kcps on each detector, and as many more as the busiest bins have
    assert 1500.0 < removed.time_ns < -np.log(0.8) / 83e3 * 1e9
    assert 0.03 < removed.share_left < 0.06
    assert "a longer time would cost more than 20 % where it is brightest" in removed.note
    kept_rate = len(removed.photons) / 5.0
    assert removed.true_rate(kept_rate) == pytest.approx(len(clean) / 5.0, rel=0.01)


def test_what_a_user_reads():
    photons, _ = dot(8, (5e3,), afterpulse_probability=0.06)
    removed = remove_afterpulses(photons)
    start, lost = removed.note.split(" were left out, with them ")
    assert start == (
        f"{100 * removed.share_afterpulses:.2g} ± {100 * removed.share_afterpulses_sd:.1g} % of "
        "the photons are afterpulses of the detectors (they follow on the same detector only): "
        f"photons within {removed.time_ns / 1e3:.3g} us of another on the same detector"
    )
    light, unit = lost.split(" ", 1)
    assert unit == "% of the light"
    assert float(light) == pytest.approx(0.26 * removed.blind_ns / 1e3, rel=0.2)
    assert removed.photons.warnings[-1].endswith(removed.note)
    assert removed.photons.metadata["afterpulse_dead_time_ns"] == removed.time_ns
    # between two pulses
    assert removed.time_ns / 100.0 % 1.0 == pytest.approx(0.5)


def test_a_given_time_is_used_as_it_is():
    photons, clean = dot(9, duration_s=5.0)
    removed = remove_afterpulses(photons, time_ns=5000.0)
    assert removed.note.startswith("photons within 5 us of another")
    assert removed.share_dropped == pytest.approx(-np.expm1(-0.0505), abs=0.002)
    assert removed.true_rate(len(removed.photons) / 5.0) == pytest.approx(
        len(clean) / 5.0, rel=0.004
    )
    assert remove_afterpulses(photons, time_ns=0.0).photons is photons
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="`time_ns` must be a time of 0 or more"):
            remove_afterpulses(photons, time_ns=wrong)


def test_rates_are_turned_around():
    nothing = Photons(np.empty(0, np.int64), 1e-9)
    removed = AfterpulseRemoval(
        nothing, 5000.0, 0.1, 0.001, 0.2, 0.01, "", "detectors", 5100.0, (0.7, 0.3)
    )
    true = np.array([[0.0, 1.0], [2e4, 2e5]])
    kept = removed.kept_rate(true)
    on_each = np.multiply.outer(true, [0.7, 0.3])
    np.testing.assert_allclose(kept, (on_each * np.exp(-on_each * 5.1e-6)).sum(-1) / 0.99)
    np.testing.assert_allclose(removed.true_rate(kept), true, rtol=1e-6)
    slope = (removed.true_rate(kept + 0.5) - removed.true_rate(kept - 0.5))[1]
    np.testing.assert_allclose(removed.true_rate_slope(kept)[1], slope, rtol=1e-4)
    assert np.isnan(removed.true_rate(1e6))
    assert removed.fano_factor(1e-3) == pytest.approx(1.02)


@pytest.mark.parametrize("n_photons", [0, 1, 2, 50])
def test_short_recordings_stay_as_they_are(n_photons):
    photons = Photons(np.arange(n_photons) * 1000, 1e-9)
    removed = remove_afterpulses(photons)
    assert removed.photons is photons
    assert np.isnan(removed.share_afterpulses)
    assert remove_afterpulses(photons, time_ns=10.0).share_dropped == 0.0


def test_a_coarse_clock_and_alternating_lasers_say_nothing():
    photons, _ = dot(10, period_ns=None, afterpulse_probability=0.1)
    coarse = Photons(photons.time_ticks // 5000, 5e-6, photons.detector)
    assert np.isnan(search_afterpulses(coarse).share)
    # each detector for half of the time
    shown = photons.time_ticks // 50_000 % 2 == photons.detector
    assert search_afterpulses(photons.select(shown)).told_by == ""


# share found, in %, and its error; whether it is left out
RECORDINGS = {
    "qd_hydraharp_t3/v10_t3.ptu": (0.67, 0.14, "detectors", False),
    "lhcii_picoharp_pt3/trace1.pt3": (1.43, 0.13, "delays", True),
    "lhcii_picoharp_pt3/trace2.pt3": (1.6, 0.5, "delays", False),
    "lhcii_picoharp_pt3/trace4.pt3": (1.98, 0.11, "delays", True),
    "lhcii_picoharp_pt3/trace5.pt3": (1.63, 0.24, "delays", True),
    "lhcii_picoharp_pt3/trace6.pt3": (1.10, 0.23, "delays", False),
    "nc_hydraharp_t2/DotD_run_one126.stream": (0.158, 0.03, "detectors", False),
    "nc_hydraharp_t2/DotD_run_one52.stream": (0.182, 0.03, "detectors", False),
    # alternating lasers
    "photon_hdf5/6A1.hdf5": (np.nan, np.nan, "", False),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings(shared_data, name):
    share, sd, told_by, is_done = RECORDINGS[name]
    photons = read(shared_data / name)
    removed = remove_afterpulses(photons)
    assert removed.told_by == told_by
    assert 100 * removed.share_afterpulses == pytest.approx(
        share, abs=0.3 * np.nan_to_num(sd), nan_ok=True
    )
    assert 100 * removed.share_afterpulses_sd == pytest.approx(sd, rel=0.3, nan_ok=True)
    assert (removed.time_ns > 0) == is_done
    if is_done:
        # the same instrument: the same afterpulses, whatever the dot does
        assert 1000 < removed.time_ns < 2500
        assert removed.share_dropped < 0.03
        again = search_afterpulses(removed.photons)
        assert again.share < 0.007
