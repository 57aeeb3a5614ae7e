"""What has been published of mechanisms, simulated, and what the fit says of it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import pncbayes as pnc
from pncbayes.inference.results import Fit
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.physics.simulate import SimulatedState, Simulation, simulate

RATE_PER_S, EXCITON_NS, RESPONSE_SD_NS = 2.0e4, 6.0, 0.06


def dot(*dims: SimulatedState, seed: int, duration_s: float = 20.0) -> Simulation:
    rng = np.random.default_rng(seed)
    return simulate(
        [SimulatedState(RATE_PER_S, (EXCITON_NS,)), *dims],
        rng.uniform(1.0, 6.0, 1 + len(dims)), duration_s, period_ns=200.0, delay_tick_ns=0.016,
        pulse_ns=5.0, response_fwhm_ns=2.3548 * RESPONSE_SD_NS, background_rate_per_s=200.0,
        random_seed=rng,
    )  # fmt: skip


def fitted(simulation: Simulation, *, most: int = 4) -> Fit:
    response = gaussian_on_clock(5.0, RESPONSE_SD_NS, delay_clock(simulation.photons))
    trace = pnc.bin_photons(simulation.photons, 0.01, response=response)
    return pnc.fit(trace, max_states=most, random_seed=1, dynamics=False, progressbar=False)


def trion(scaling: float, lifetime: float) -> SimulatedState:
    """A trion of a radiative rate and a lifetime over those of the exciton."""
    return SimulatedState(RATE_PER_S * scaling * lifetime, (EXCITON_NS * lifetime,))


def quenched(lifetime: float) -> SimulatedState:
    """A state with recombination centres: as much dimmer as faster."""
    return SimulatedState(RATE_PER_S * lifetime, (EXCITON_NS * lifetime,))


def charged_at_times(share: float, lifetime: float) -> SimulatedState:
    """A dot that is a trion for a share of the time, switching in microseconds."""
    amplitudes = (1.0 - share, 2.0 * share)
    lifetimes = (EXCITON_NS, EXCITON_NS * lifetime)
    brightness = 1.0 - share + 2.0 * share * lifetime
    return SimulatedState(RATE_PER_S * brightness, lifetimes, amplitudes)


@functools.cache
def silent() -> Simulation:
    return dot(trion(2.0, 0.5), seed=3, duration_s=10.0)


def test_a_trion_as_bright_as_the_exciton_shows_in_lifetime_alone() -> None:
    """CsPbI3 trions without Auger loss live half as long: doi:10.1021/acs.nanolett.6b02874."""
    fit = fitted(silent(), most=3)
    assert fit.most_probable_n_states == 2
    assert sorted(fit.state_mechanisms["named_mechanism"]) == ["auger", "reference"]
    lifetimes = np.sort(fit.states["lifetime_ns_mean"])
    assert lifetimes[0] / lifetimes[1] == pytest.approx(0.5, abs=0.06)


def test_intensity_alone_sees_nothing_of_it() -> None:
    trace = pnc.bin_photons(silent().photons, 0.01, response=RESPONSE_SD_NS)
    totals = trace["counts"].sum("gate").to_numpy()
    camera = pnc.camera_trace(
        totals.astype(float), 0.01, gain=1.0, offset=0.0, read_noise=0.01, excess_factor=1.0
    )
    fit = pnc.fit(camera, max_states=3, random_seed=1, dynamics=False, progressbar=False)
    assert fit.most_probable_n_states == 1
    assert fit.mechanisms is None


def names_of(fit: Fit) -> list[str]:
    return [str(name) for name in fit.state_mechanisms["named_mechanism"]]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_charging_too_fast_to_see_is_no_hot_carrier(share: float) -> None:
    """Fast charging and discharging looks like trapping of hot carriers: same lifetime, dimmer."""
    fit = fitted(dot(charged_at_times(share, 0.03), seed=8))
    assert "hot_carrier" not in names_of(fit)
    assert fit.state_mechanisms["hot_carrier"].max() < 0.8


@pytest.mark.slow
def test_charging_too_fast_to_see_is_no_hot_carrier_in_many() -> None:
    rng = np.random.default_rng(5)
    wrong = 0
    for seed in range(12):
        share, lifetime = rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.08)
        wrong += "hot_carrier" in names_of(
            fitted(dot(charged_at_times(share, lifetime), seed=seed))
        )
    assert wrong == 0


@pytest.mark.slow
def test_linear_and_bent_maps_of_intensity_and_lifetime_are_told_apart() -> None:
    """Centres of one strength, 0 to 2 active, lie on a line; trions do not.

    Multiple recombination centres, doi:10.1103/PhysRevLett.103.207402, without flicker: of the
    states that are given a name, at least 95 % are given the right one, and few go without.
    """
    right, wrong, without = 0, 0, 0
    rng = np.random.default_rng(11)
    for seed in range(10):
        strength = rng.uniform(1.0, 4.0)
        lines = [quenched(1.0 / (1.0 + strength)), quenched(1.0 / (1.0 + 2.0 * strength))]
        bent = [trion(2.0, rng.uniform(0.02, 0.3))]
        for true, dims in (("nbc", lines), ("auger", bent)):
            found = [
                name for name in names_of(fitted(dot(*dims, seed=seed))) if name != "reference"
            ]
            right += found.count(true)
            without += found.count("undetermined")
            wrong += len(found) - found.count(true) - found.count("undetermined")
    assert right >= 0.95 * (right + wrong)
    assert without <= 0.2 * (right + wrong + without)
