import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from typer.testing import CliRunner

from pncbayes.cli import app
from pncbayes.photons.formats import read
from pncbayes.photons.screening import screen
from pncbayes.photons.stream import Photons
from pncbayes.photons.writers import write_photons
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    SimulatedState,
    simulate,
)
from pncbayes.report.screening import plot_screening, save_screening


def dot(random_seed, rates=(20e3, 3e3), exits=(5.0, 12.0), duration_s=20.0, **settings):
    settings = {"period_ns": None, **settings}
    states = [
        SimulatedState(rate, () if settings["period_ns"] is None else (10.0,)) for rate in rates
    ]
    if len(states) > 1:
        settings["exit_rates_per_s"] = exits
    return simulate(states, duration_s=duration_s, random_seed=random_seed, **settings).photons


def with_photons(photons, times_s, keep=slice(None)):
    ticks = np.concatenate(
        [photons.time_ticks[keep], np.rint(np.asarray(times_s) / photons.tick_s).astype(np.int64)]
    )
    detector = np.arange(ticks.size) % 2
    order = np.argsort(ticks, kind="stable")
    return Photons(ticks[order], photons.tick_s, detector[order], duration_s=photons.duration_s)


CLEAN = {
    "blinking": {},
    "steady": {"rates": (10e3,)},
    "dark without background": {"rates": (20e3, 0.0), "exits": (2.0, 2.0)},
    "flicker": {"rates": (20e3,), "flicker": Flicker(0.3, 0.1)},
    "rarely dim": {"rates": (30e3, 200.0), "exits": (0.3, 3.0)},
    "pulsed": {"period_ns": 400.0, "background_rate_per_s": 300.0},
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_dot_alone_has_nothing_to_be_found(name):
    found = screen(dot(0, **CLEAN[name]))
    assert found.lines == []
    assert found.bursts == []
    assert found.gaps == []
    assert found.afterpulses.sigma < 4.5
    assert not found.dead_time.is_sure
    assert found.balance.p_value > 1e-4
    assert not (found.drift.p_value < 1e-3 and found.drift.is_clear)
    assert not found.background.p_value < 1e-3


def test_afterpulses_and_dead_time_are_recovered():
    found = screen(dot(3, afterpulse_probability=0.02, afterpulse_time_ns=800.0, dead_time_ns=80.0))
    assert found.afterpulses.share == pytest.approx(0.02, abs=4 * found.afterpulses.sd)
    assert found.afterpulses.sd < 0.002
    assert found.afterpulses.time_us == pytest.approx(0.88, rel=0.3)
    assert found.dead_time.shortest_ns == pytest.approx(80.0, abs=10.0)
    assert found.dead_time.is_sure
    words = " ".join(found.words())
    assert "afterpulses" in words
    assert "dead time" in words


def test_drift_is_measured_and_blinking_is_not_called_drift():
    found = screen(dot(4, duration_s=40.0, drift=Drift(-0.2)))
    assert found.drift.is_clear
    assert found.drift.change == pytest.approx(-0.18, abs=max(4 * found.drift.sd, 0.02))
    assert found.drift.p_value < 1e-3
    assert any("slow drift" in sentence for sentence in found.words())


@pytest.mark.parametrize(("n_photons", "length_s"), [(40, 10e-6), (60, 300e-6), (300, 4e-3)])
def test_bursts_are_found_where_they_are(n_photons, length_s):
    burst_s = 7.0 + np.sort(np.random.default_rng(1).uniform(0, length_s, n_photons))
    found = screen(with_photons(dot(5), burst_s))
    assert len(found.bursts) == 1
    assert found.bursts[0].start_s == pytest.approx(7.0, abs=2 * length_s)
    assert found.bursts[0].n_photons > n_photons / 3
    assert found.bursts[0].log_p < np.log(1e-4)
    assert any("burst" in sentence for sentence in found.words())


def test_gaps_are_found_inside_and_at_the_end():
    photons = dot(6)
    inside = (photons.time_s > 8.0) & (photons.time_s < 8.3)
    at_end = photons.time_s > 18.0
    found = screen(with_photons(photons, [], ~(inside | at_end)))
    assert [gap.at_end for gap in found.gaps] == [False, True]
    assert found.gaps[0].start_s == pytest.approx(8.0, abs=0.01)
    assert found.gaps[0].duration_s == pytest.approx(0.3, abs=0.01)
    assert found.gaps[1].start_s == pytest.approx(18.0, abs=0.01)
    assert sum("no photons for" in sentence for sentence in found.words()) == 2


def test_a_step_of_the_background_shows_at_late_delays():
    quiet = dot(7, period_ns=400.0, background_rate_per_s=200.0)
    loud = dot(8, period_ns=400.0, background_rate_per_s=1500.0)
    photons = Photons(
        np.concatenate(
            [quiet.time_ticks, loud.time_ticks + round(quiet.duration_s / quiet.tick_s)]
        ),
        quiet.tick_s,
        np.concatenate([quiet.detector, loud.detector]),
        np.concatenate([quiet.delay_ticks, loud.delay_ticks]),
        quiet.delay_tick_ns,
        quiet.period_ns,
    )
    found = screen(photons).background
    assert found.p_value < 1e-6
    assert found.time_s == pytest.approx(20.0, abs=2.0)
    assert found.before_per_s == pytest.approx(200.0 * found.share, rel=0.3)
    assert found.after_per_s == pytest.approx(1500.0 * found.share, rel=0.3)


def test_a_detector_that_loses_light_is_seen():
    photons = dot(9)
    lost = (photons.detector == 1) & (photons.time_s > 10.0)
    lost &= np.random.default_rng(1).random(len(photons)) < 0.3
    found = screen(photons.select(~lost)).balance
    assert found.p_value < 1e-6
    assert not found.follows_brightness
    assert found.largest_change == pytest.approx(0.05, abs=0.03)


def test_unequal_backgrounds_make_shares_follow_the_brightness():
    photons = dot(10, rates=(20e3, 1e3), exits=(1.0, 1.0))
    extra_s = np.random.default_rng(2).uniform(0, 20.0, 20_000)
    ticks = np.concatenate([photons.time_ticks, np.rint(extra_s / photons.tick_s).astype(np.int64)])
    detector = np.concatenate([photons.detector, np.zeros(extra_s.size, np.uint8)])
    order = np.argsort(ticks, kind="stable")
    found = screen(Photons(ticks[order], photons.tick_s, detector[order])).balance
    assert found.p_value < 1e-6
    assert found.follows_brightness


@pytest.mark.parametrize(
    "photons",
    [
        Photons(np.empty(0, np.int64), 1e-9),
        Photons(np.array([5]), 1e-9, duration_s=10.0),
        Photons(np.arange(0, 999), 1e-3),
        Photons(np.zeros(2000, np.int64), 1e-9),
    ],
    ids=["none", "one", "few", "no time"],
)
def test_too_few_photons_are_a_clear_answer(photons):
    found = screen(photons)
    assert "too short to screen" in found.problem
    assert found.words() == [found.problem]
    json.dumps(found.to_dict(), allow_nan=False)
    assert len(found.table()) == 0


@pytest.mark.parametrize(
    "photons",
    [
        Photons(np.arange(2000), 1e-9),
        Photons(np.zeros(2000, np.int64), 1e-9, duration_s=10.0),
        Photons(np.arange(0, 5000) * 10_000_000, 1e-9),
        Photons(np.repeat(np.arange(50), 100), 0.1),
        Photons(np.arange(5000) * 3, 1e-3, np.arange(5000) % 3),
    ],
    ids=["2 us", "all at once", "clockwork", "coarse clock", "a line beyond"],
)
def test_absurd_recordings_do_not_break_it(photons):
    found = screen(photons)
    assert found.words()
    json.dumps(found.to_dict(), allow_nan=False)
    assert {"finding", "value", "log_p"} <= set(found.table().columns)


def test_something_else_than_photons_is_refused():
    with pytest.raises(TypeError, match="must be a recording of photons"):
        screen([1, 2, 3])


def test_words_name_the_line_and_what_it_does():
    periodic = PeriodicModulation(124.0, 0.25)
    found = screen(dot(11, periodic=periodic))
    assert "a line at 124 Hz modulates the rate by 2" in found.words()[0]
    assert "alike in bright and dim windows: most likely the instrument" in found.words()[0]
    table = found.table()
    assert float(table.loc[table["finding"] == "line", "value"].iloc[0]) == pytest.approx(
        0.25, abs=0.02
    )


@pytest.mark.shared_data
def test_the_real_emitter_is_screened(shared_data):
    found = screen(read(shared_data / "qd_hydraharp_t3" / "v10_t3.ptu"))
    words = found.words()
    assert words[0].startswith("a line at 124 Hz (with 248 and 372 Hz) modulates the rate")
    assert words[1].startswith("a line at 1631 Hz modulates")
    assert all("most likely the instrument" in sentence for sentence in words[:2])
    assert found.dead_time.shortest_ns == pytest.approx(80.9, abs=1.0)
    assert found.gaps == []
    assert found.bursts == []


@pytest.mark.shared_data
@pytest.mark.parametrize("number", [1, 2, 4, 5, 6])
def test_real_traces_without_lines(shared_data, number):
    found = screen(read(shared_data / "lhcii_picoharp_pt3" / f"trace{number}.pt3"))
    assert found.lines == []
    assert found.gaps == []
    # hardly any light reaches the first detector
    assert found.balance.shares[1] < 0.1


@pytest.mark.shared_data
def test_real_time_tags_are_screened(shared_data):
    found = screen(read(shared_data / "nc_hydraharp_t2" / "DotD_run_one126.stream"))
    assert found.lines == []
    assert found.dead_time.shortest_ns == pytest.approx(80.4, abs=1.0)
    found = screen(read(shared_data / "nc_hydraharp_t2" / "DotD_run_one52.stream"))
    assert [round(line.frequency_hz) for line in found.lines] == [253]
    assert found.balance.p_value < 1e-6


@pytest.mark.parametrize("name", ["line", "clean", "short"])
def test_the_figure_is_drawn(name, tmp_path):
    periodic = PeriodicModulation(124.0, 0.25) if name == "line" else None
    photons = dot(12, duration_s=10.0, periodic=periodic)
    if name == "short":
        photons = Photons(np.arange(10), 1e-3)
    found = screen(photons)
    axes = plot_screening(found)
    assert set(axes) == {"spectrum", "waveform", "rate", "lags"}
    assert bool(axes["waveform"].lines) == (name == "line")
    plt.close("all")
    figure, ax = plt.subplots()
    assert plot_screening(found, {"rate": ax})["rate"].figure is figure
    with pytest.raises(ValueError, match="the panels are spectrum"):
        plot_screening(found, {"nothing": ax})
    plt.close("all")
    save_screening(found, tmp_path / "screening.png")
    assert (tmp_path / "screening.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["screening.png"]


def test_info_prints_what_was_found_and_draws_it(tmp_path):
    file = tmp_path / "dot.h5"
    write_photons(dot(13, duration_s=10.0, periodic=PeriodicModulation(124.0, 0.25)), file)
    result = CliRunner().invoke(app, ["info", str(file), "--figure", str(tmp_path / "dot.png")])
    assert result.exit_code == 0, result.output
    assert "a line at 124 Hz modulates the rate" in result.output
    assert (tmp_path / "dot.png").read_bytes().startswith(b"\x89PNG")
