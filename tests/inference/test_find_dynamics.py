"""What is taken out of a recording before dynamics are compared, and records that say nothing."""

import numpy as np
import pytest
import xarray as xr

import pncbayes as pnc
from pncbayes.inference.dynamics_checks import check_dynamics
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum
from pncbayes.inference.dynamics_verdict import brightness_sd, doubts, kind_of, remarks_on
from pncbayes.inference.find_dynamics import correct_instrument
from pncbayes.photons.exposure import schedule_exposure
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import (
    PeriodicModulation,
    SimulatedState,
    SimulationSettings,
    simulate,
)

MODEL = load_model("free")
BRIGHT = SimulatedState(rate_per_s=12e3, lifetimes_ns=(20.0,))


def photons_of_rate(rate_per_s: np.ndarray, step_s: float, seed: int) -> Photons:
    """Photons of a rate that changes in steps, without delays."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate_per_s * step_s)
    steps = np.repeat(np.arange(rate_per_s.size), counts)
    times = np.sort((steps + rng.random(steps.size)) * step_s)
    return Photons((times * 1e9).astype(np.int64), 1e-9, duration_s=rate_per_s.size * step_s)


def test_a_slow_line_is_taken_out() -> None:
    settings = SimulationSettings(
        states=(BRIGHT,), duration_s=40.0, period_ns=200.0,
        periodic=PeriodicModulation(frequency_hz=2.0, depth=0.4),
    )  # fmt: skip
    photons = simulate(settings, random_seed=1).photons
    corrected = correct_instrument(pnc.bin_photons(photons, 0.01, response=False))
    assert corrected.exposure is not None
    assert corrected.exposure.lines[0].frequency_hz == pytest.approx(2.0, abs=0.05)
    assert any("modulated at 2" in text for text in corrected.notes)


def test_a_line_of_bright_windows_alone_is_the_dots() -> None:
    rng = np.random.default_rng(2)
    step_s = 2e-4
    time_s = np.arange(int(40.0 / step_s)) * step_s
    dim = np.cumsum(rng.random(time_s.size) < 2.0 * step_s) % 2 == 1
    wave = 15e3 * (1.0 + 0.5 * np.sin(2.0 * np.pi * 120.0 * time_s))
    photons = photons_of_rate(np.where(dim, 5e3, wave), step_s, 3)
    corrected = correct_instrument(pnc.bin_photons(photons, 0.01))
    assert corrected.exposure is None
    assert corrected.notes == []


@pytest.mark.filterwarnings("ignore:.*response was estimated.*")
def test_what_is_known_of_the_instrument_stays_known() -> None:
    settings = SimulationSettings(
        states=(BRIGHT,), duration_s=20.0, period_ns=200.0, background_rate_per_s=300.0,
        afterpulse_probability=0.1,
    )  # fmt: skip
    photons = simulate(settings, random_seed=2).photons
    trace = pnc.bin_photons(photons, 0.01, background_rate_per_s=(320.0, 40.0))
    corrected = correct_instrument(trace)
    assert "afterpulses" in corrected.notes[0]
    assert corrected.recorded is corrected.photons
    assert corrected.photons is not None
    assert len(corrected.photons) < len(photons)
    for name in ("background_rate_per_s", "background_sd_per_s", "response_source"):
        assert corrected.trace.attrs[name] == trace.attrs[name]
    assert corrected.trace.sizes["gate"] == trace.sizes["gate"]
    # an estimated background held the afterpulses, too
    own = pnc.bin_photons(photons, 0.01)
    again = correct_instrument(own).trace
    assert again.attrs["background_rate_per_s"] < own.attrs["background_rate_per_s"]


def camera_like(counts: np.ndarray, width_s: float = 0.01) -> xr.Dataset:
    """A trace of photon counts with no photons behind it."""
    trace = xr.Dataset(
        {"counts": (("time", "gate"), counts[:, None].astype(np.int64))},
        coords={"time": (np.arange(counts.size) + 0.5) * width_s},
    )
    duration_s = counts.size * width_s
    trace.attrs = {
        "kind": "photons",
        "width_s": width_s,
        "duration_s": duration_s,
        "warnings": "[]",
    }
    return trace


def test_an_exposure_needs_photons() -> None:
    known = schedule_exposure([0.0, 1.0], [1.0, 0.5], 2.0)
    with pytest.raises(ValueError, match="none behind it"):
        correct_instrument(camera_like(np.full(200, 50)), known)


@pytest.mark.parametrize("n_photons", [0, 4, 60])
def test_a_dark_record_has_no_verdict(n_photons: int) -> None:
    counts = np.zeros(1000, dtype=int)
    counts[np.random.default_rng(1).integers(0, 1000, n_photons)] = 1
    found = pnc.dynamics(camera_like(counts), max_states=3, random_seed=1, progressbar=False)
    assert found.verdict == "not identified"
    assert any("too few" in text for text in found.reasons)


def test_one_level_allowed_is_no_verdict() -> None:
    counts = np.random.default_rng(3).poisson(60.0, 800)
    found = pnc.dynamics(camera_like(counts), max_states=1, random_seed=1, progressbar=False)
    assert found.verdict == "not identified"
    assert set(found.n_levels.index) == {1}


def mode(relaxation_per_s: float, amplitude: np.ndarray, kind: str = "common") -> Optimum:
    """A place, not a maximum: that is enough to name it."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(60.0, (1000, 1)).astype(float)
    data = DynamicsData(counts, 0.01, np.zeros(1), np.ones(1), concentration=200.0)
    n = amplitude.size if kind == "level" else 1
    posterior = DynamicsPosterior(data, MODEL, Family(kind), n, 9)
    light = np.linspace(7e3, 5e3, n)[:, None]
    rates = np.full((n, n), 1.0)
    np.fill_diagonal(rates, 0.0)
    vector = posterior.pack(DynamicsPoint(light, rates, amplitude, relaxation_per_s))
    return Optimum(posterior, vector, 0.0, 0.0, log_evidence=0.0)


def test_a_flicker_faster_than_the_bins_is_no_verdict() -> None:
    fast, slow, drift = (mode(rate, np.array([0.2])) for rate in (40.0, 3.0, 0.2))
    checks = check_dynamics(slow, np.random.default_rng(1))
    shares = {"steady": 1.0}
    assert any("faster than bins" in text for text in doubts(fast, 1.0, shares, checks, 6))
    assert not any("faster than bins" in text for text in doubts(slow, 1.0, shares, checks, 6))
    assert [kind_of(one) for one in (fast, slow, drift)] == ["steady", "flickering", "steady"]
    assert not any("drift" in text for text in remarks_on(fast, 0.2))
    assert any("drift" in text for text in remarks_on(drift, 0.2))


def test_a_dim_level_may_be_the_one_that_flickers() -> None:
    one = mode(3.0, np.array([0.005, 0.3]), "level")
    assert brightness_sd(one) == pytest.approx(0.3)
    assert kind_of(one) == "both"


def test_a_wrong_width_is_named() -> None:
    with pytest.raises(ValueError, match="width_s"):
        pnc.dynamics(camera_like(np.full(200, 50)), width_s=-1.0, progressbar=False)
