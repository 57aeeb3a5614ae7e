"""What a user knows of the neutral exciton, and dots that never visit it."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest
import xarray as xr

import pncbayes as pnc
from pncbayes.inference.mechanism_tables import MechanismTables
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.physics.simulate import SimulatedState, simulate

KNOWN = pnc.Exciton(rate_per_s=(2.0e4, 1.0e3), lifetime_ns=(6.0, 0.3))


@functools.cache
def never_neutral() -> xr.Dataset:
    """A trion of R = 2 and a hot-carrier state; the exciton, 20 kcps and 6 ns, is not visited."""
    states = [SimulatedState(1.0e4, (1.5,)), SimulatedState(5.0e3, (6.0,))]
    dot = simulate(
        states, [3.0, 3.0], 30.0, period_ns=200.0, delay_tick_ns=0.016, pulse_ns=5.0,
        response_fwhm_ns=0.15, background_rate_per_s=200.0, mean_excitons_per_pulse=0.1,
        random_seed=5,
    )  # fmt: skip
    response = gaussian_on_clock(5.0, 0.15 / 2.3548, delay_clock(dot.photons))
    return pnc.bin_photons(dot.photons, 0.01, response=response)


@functools.cache
def fitted(exciton: pnc.Exciton | None) -> pnc.Fit:
    return pnc.fit(
        never_neutral(),
        max_states=2,
        exciton=exciton,
        random_seed=1,
        dynamics=False,
        progressbar=False,
    )


def test_dot_that_never_visits_the_exciton_is_known_by_its_brightness() -> None:
    fit = fitted(KNOWN)
    table = fit.state_mechanisms
    assert table["named_mechanism"].tolist() == ["auger", "hot_carrier"]
    assert (table["reference"] < 0.01).all()
    assert any("no state of this dot is the exciton" in text for text in fit.warnings)
    assert not any(state["reference"] for state in fit.summary()["states"])
    written = {
        (row["state"], row["mechanism"], row["quantity"]): row["mean"]
        for row in fit.summary()["mechanism_rates"]
    }
    assert written[0, "auger", "auger_rate_per_ns"] == fit.auger_rate_per_ns["mean"]
    assert {(0, "auger", "radiative_scaling"), (1, "hot_carrier", "hot_carrier_yield")} <= set(
        written
    )
    yields = fit.mechanism_rates.set_index("quantity").loc["hot_carrier_yield"]
    assert yields["q05"] < 0.25 < yields["q95"]
    exciton = fit.tree["mechanisms"]["exciton_rate_per_s"].values
    assert exciton.mean() == pytest.approx(2.0e4, rel=0.1)


def test_dot_of_one_state_need_not_be_the_exciton() -> None:
    dot = simulate(
        [SimulatedState(1.0e4, (1.5,))], [0.0], 10.0, period_ns=200.0, delay_tick_ns=0.016,
        pulse_ns=5.0, response_fwhm_ns=0.15, background_rate_per_s=200.0, random_seed=5,
    )  # fmt: skip
    response = gaussian_on_clock(5.0, 0.15 / 2.3548, delay_clock(dot.photons))
    trace = pnc.bin_photons(dot.photons, 0.01, response=response)
    fit = pnc.fit(
        trace, max_states=1, exciton=KNOWN, random_seed=1, dynamics=False, progressbar=False
    )
    assert fit.state_mechanisms["named_mechanism"].tolist() == ["auger"]
    assert fit.mechanisms["auger"] > 0.8
    assert fit.tree.attrs["exciton"] == (
        '{"rate_per_s": [20000.0, 1000.0], "lifetime_ns": [6.0, 0.3]}'
    )


def test_without_it_one_of_its_states_is_taken_for_the_exciton() -> None:
    fit = fitted(None)
    table = fit.state_mechanisms
    assert table["reference"].sum() == pytest.approx(1.0)
    assert "hot_carrier" not in set(table["named_mechanism"])
    np.testing.assert_array_equal(fit.n_states, fitted(KNOWN).n_states)


def test_lifetime_alone_says_which_state_is_the_exciton() -> None:
    """The slow state, not the brighter one."""
    slow = fitted(pnc.Exciton(lifetime_ns=(6.0, 0.2)))
    assert slow.state_mechanisms["reference"].iloc[1] > 0.95
    assert any("not the brightest" in text for text in slow.warnings)
    lifetimes = slow.tree["mechanisms"]["exciton_lifetime_ns"].values
    assert lifetimes.mean() == pytest.approx(6.0, rel=0.03)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs `rate_per_s`, `lifetime_ns` or both"),
        ({"rate_per_s": 2.0e4}, r"`rate_per_s` of the exciton must be \(mean, sd\), got 20000.0"),
        ({"rate_per_s": (2.0e4, 0.0)}, "mean and sd of `rate_per_s`.* got"),
        ({"lifetime_ns": (True, 0.1)}, "mean and sd of `lifetime_ns`.* got"),
        ({"lifetime_ns": (5.0, float("nan"))}, "mean and sd of `lifetime_ns`.* got"),
        ({"lifetime_ns": (5.0, 5.0)}, "sd of `lifetime_ns` of the exciton must be below its mean"),
    ],
)
def test_what_is_no_exciton_says_why(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pnc.Exciton(**given)


def test_fit_takes_nothing_else_for_an_exciton() -> None:
    with pytest.raises(ValueError, match=r"`exciton` must be a `pncbayes\.Exciton` or None"):
        pnc.fit(never_neutral(), exciton=(2.0e4, 5.0), dynamics=False, progressbar=False)
    with pytest.raises(ValueError, match="of use for mechanisms alone"):
        pnc.fit(never_neutral(), exciton=KNOWN, mechanisms=False, dynamics=False, progressbar=False)


def test_log_normal_has_the_mean_and_sd_that_were_given() -> None:
    centre, sigma = pnc.Exciton.log_normal(5.0, 2.0)
    numbers = np.exp(centre + sigma * np.random.default_rng(1).standard_normal(400_000))
    assert numbers.mean() == pytest.approx(5.0, rel=0.005)
    assert numbers.std() == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    ("reference", "none", "state", "said"),
    [
        ([0.97, 0.03], 0.0, 0, None),
        ([0.05, 0.95], 0.0, 1, "state 1 is the neutral exciton .* not the brightest"),
        ([0.55, 0.45], 0.0, 0, "cannot be told: state 0 0.55, state 1 0.45;"),
        ([0.04, 0.01], 0.95, None, "no state of this dot is the exciton that was given"),
        ([0.25, 0.0], 0.75, None, "cannot be told: state 0 0.25, none 0.75;"),
    ],
)
def test_words_on_the_exciton(
    reference: list[float], none: float, state: int | None, said: str | None
) -> None:
    tables = MechanismTables(
        xr.Dataset({"reference": ("state", np.array(reference)), "no_reference": none})
    )
    assert tables.reference_state() == state
    assert [bool(re.search(said or "", text)) for text in tables.notes] == [True] * (
        said is not None
    )


@functools.cache
def visiting() -> xr.Dataset:
    """An exciton of 20 kcps and 6 ns, and a trion."""
    states = [SimulatedState(2.0e4, (6.0,)), SimulatedState(2.0e4 / 3.0, (1.0,))]
    dot = simulate(
        states, [3.0, 3.0], 10.0, period_ns=200.0, delay_tick_ns=0.016, pulse_ns=5.0,
        response_fwhm_ns=0.15, background_rate_per_s=200.0, random_seed=5,
    )  # fmt: skip
    response = gaussian_on_clock(5.0, 0.15 / 2.3548, delay_clock(dot.photons))
    return pnc.bin_photons(dot.photons, 0.01, response=response)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pnc.Exciton(rate_per_s=(2.0e4, 1e3), lifetime_ns=(6.0, 0.3)), None),
        (pnc.Exciton(lifetime_ns=(9.0, 0.4)), "lifetime of the exciton at [56]"),
        (pnc.Exciton(rate_per_s=(1.2e4, 500.0)), "state 0 is brighter than the exciton"),
    ],
)
def test_a_contradiction_with_what_was_given_is_said(given: pnc.Exciton, said: str | None) -> None:
    fit = pnc.fit(
        visiting(), max_states=2, exciton=given, random_seed=1, dynamics=False, progressbar=False
    )
    about = [text for text in fit.warnings if "given" in text and "no state of this" not in text]
    assert [bool(re.search(said or "", text)) for text in about][:1] == [True] * (said is not None)
