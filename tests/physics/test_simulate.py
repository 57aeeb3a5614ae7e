"""The simulator around its physics: seeds, chunks, files, the truth, and wrong settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_photons import BRIGHT, DARK, DIM, PULSED, assert_count, assert_same

from pncbayes.errors import PhotonFileError
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.presets import PRESETS, preset
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    Simulation,
    SimulationSettings,
    load_truth,
    simulate,
    simulate_chunks,
    simulate_jumps,
    simulate_to_file,
)

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
