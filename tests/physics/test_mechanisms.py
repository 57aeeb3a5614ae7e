"""Mechanisms: where they lie, what they leave open, and decays that are tied to the exciton's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import xarray as xr

from pncbayes.physics.convolution import (
    GaussianResponse,
    HistogramResponse,
    exponential_gate_probability,
    scatter_gate_probability,
)
from pncbayes.physics.decay import gate_probability
from pncbayes.physics.mechanism_kernels import (
    AUGER,
    BACKGROUND,
    HOT_CARRIER,
    N_LABELS,
    NBC,
    OTHER,
    UNRESOLVED,
    V_HIGH,
    V_LOW,
    charging_share,
    log_allowed,
    log_prior_given_brightness,
)
from pncbayes.physics.mechanisms import (
    MECHANISMS,
    MechanismPriors,
    auger_rate_per_ns,
    charging_shares,
    radiative_scaling,
)
from pncbayes.physics.tied_decay import WIDTH_STEP, decay_table, stretched
from pncbayes.physics.tied_kernels import (
    add_afterpulses,
    blend_tables,
    delay_by_biexcitons,
    extra_rate,
)

PERIOD_NS = 100.0
EDGES_NS = np.concatenate([[0.0, 4.0], 4.0 + np.geomspace(0.3, 96.0, 23)])
RESPONSE = GaussianResponse(5.0, 0.08)
PRIORS = MechanismPriors()


def trace(response: GaussianResponse = RESPONSE) -> xr.Dataset:
    tick_ns = 0.016
    ticks = np.arange(round(PERIOD_NS / tick_ns)) * tick_ns
    weight = np.exp(-0.5 * ((ticks + tick_ns / 2 - response.center_ns) / response.sd_ns) ** 2)
    return xr.Dataset(
        {
            "counts": (("time", "gate"), np.ones((3, EDGES_NS.size - 1))),
            "gate_start_ns": ("gate", EDGES_NS[:-1]),
            "gate_stop_ns": ("gate", EDGES_NS[1:]),
            "background_gate_fraction": ("gate", np.diff(EDGES_NS) / PERIOD_NS),
            "response": ("tick", weight / weight.sum()),
        },
        attrs={"period_ns": PERIOD_NS, "delay_tick_ns": tick_ns, "response_source": "given"},
    )


@pytest.mark.parametrize("ratio", [1e-3, 0.05, 0.5, 1.0, 1.4])
@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.5, 0.5), (0.999, 0.001)])
def test_extra_rate_gives_the_lifetime_ratio(ratio: float, shares: tuple[float, float]) -> None:
    amplitudes, rates = np.array(shares), np.array([2.0, 0.1])
    x = extra_rate(amplitudes, rates, ratio)
    assert (rates + x > 0)[amplitudes > 0].all()
    found = (amplitudes / (rates + x)).sum() / (amplitudes / rates).sum()
    assert found == pytest.approx(ratio, rel=1e-10)


@pytest.mark.parametrize("ratio", [0.02, 0.3, 1.0, 1.3])
def test_quenched_decay_is_the_exact_one(ratio: float) -> None:
    table = decay_table(trace())
    amplitudes, lifetimes = np.array([0.4, 0.6]), np.array([2.0, 9.0])
    x = extra_rate(amplitudes, 1.0 / lifetimes, ratio)
    faster = 1.0 / (1.0 / lifetimes + x)
    expected = gate_probability(faster, amplitudes, EDGES_NS, RESPONSE, PERIOD_NS)
    found = table.quenched(amplitudes, lifetimes, ratio)
    # the response of the trace is a histogram: flat inside its ticks
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert found.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("shift", "width"), [(0.6, 0.0), (0.0, 0.7), (-0.7, -0.7)])
def test_table_follows_shifts_and_widths_of_the_response(shift: float, width: float) -> None:
    table = decay_table(trace())
    shares, scatter = np.empty_like(table.shares[0, 0]), np.empty((1, EDGES_NS.size - 1))
    blend_tables(table.shares, shift, width, shares)
    blend_tables(table.scatter[:, :, None], shift, width, scatter)
    other = GaussianResponse(
        RESPONSE.center_ns + shift * table.shift_step_ns,
        RESPONSE.sd_ns * float(np.exp(WIDTH_STEP * width)),
    )
    logs = table.log_start + np.arange(len(shares)) * table.log_step
    expected = exponential_gate_probability(np.exp(-logs), EDGES_NS, other, PERIOD_NS)
    as_given = exponential_gate_probability(np.exp(-logs), EDGES_NS, RESPONSE, PERIOD_NS)
    change = np.abs(expected - as_given).max()
    assert change > 0.01
    assert np.abs(shares - expected).max() < 0.1 * change + 2e-3
    expected_scatter = scatter_gate_probability(EDGES_NS, other, PERIOD_NS)
    assert np.abs(scatter[0] - expected_scatter).max() < 0.1 * change + 2e-3
    np.testing.assert_allclose(
        table.scatter[1, 1], scatter_gate_probability(EDGES_NS, RESPONSE, PERIOD_NS), atol=2e-3
    )


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_measured_response_is_stretched_about_its_peak(factor: float) -> None:
    ticks = np.arange(600) * 0.016 + 0.008
    rise = np.where(ticks > 4.0, (ticks - 4.0) * np.exp(-(ticks - 4.0) / 0.2), 0.0)
    response = HistogramResponse(rise, 0.016)
    wider = stretched(response, factor)
    assert np.argmax(wider.weight) == pytest.approx(np.argmax(response.weight), abs=1)
    assert wider.weight.sum() == pytest.approx(1.0)
    sd = [np.sqrt(one.weight @ ticks**2 - (one.weight @ ticks) ** 2) for one in (response, wider)]
    assert sd[1] / sd[0] == pytest.approx(factor, rel=5e-3)
    assert stretched(RESPONSE, factor) == GaussianResponse(5.0, 0.08 * factor)


def test_light_after_a_biexciton_is_one_decay_after_the_other() -> None:
    """Against photons that wait for both."""
    table = decay_table(trace())
    later = np.empty_like(table.shares[1, 1])
    first_ns, share = 0.2, 0.3
    delay_by_biexcitons(
        table.shares[1, 1], table.log_start, table.log_step, np.log(first_ns), share, later
    )
    rng, n = np.random.default_rng(3), 400_000
    lifetimes = np.exp(table.log_start + table.log_step * np.arange(len(later)))
    for wanted in (0.02, 0.19, 0.215, 2.0):
        row = int(np.argmin(np.abs(lifetimes - wanted)))
        delay = lifetimes[row] * rng.standard_exponential(n)
        delay += np.where(rng.random(n) < share, first_ns * rng.standard_exponential(n), 0.0)
        delay += RESPONSE.center_ns + RESPONSE.sd_ns * rng.standard_normal(n)
        found = np.histogram(delay % PERIOD_NS, EDGES_NS)[0] / n
        np.testing.assert_allclose(later[row], found, atol=1.5e-3 + 5.0 * np.sqrt(found.max() / n))
        assert np.abs(later[row] - table.shares[1, 1, row]).max() > 0.01
        assert later[row].sum() == pytest.approx(1.0, abs=1e-9)


def test_afterpulses_are_flat() -> None:
    table = decay_table(trace())
    np.testing.assert_allclose(table.uniform, np.diff(EDGES_NS) / PERIOD_NS)
    shares = table.shares[1, 1, 100].copy()
    add_afterpulses(shares, table.uniform, 0.2)
    np.testing.assert_allclose(shares, 0.8 * table.shares[1, 1, 100] + 0.2 * table.uniform)


@pytest.mark.parametrize("log_brightness", [-3.0, -1.0, -0.3, 0.0])
def test_each_mechanism_has_one_density_of_the_lifetime(log_brightness: float) -> None:
    prior = PRIORS.packed()
    for label in (HOT_CARRIER, NBC, OTHER):
        area, _ = scipy.integrate.quad(
            lambda v, label=label: np.exp(
                log_prior_given_brightness(label, log_brightness, v, prior)
            ),
            V_LOW, V_HIGH, points=[0.0, log_brightness], limit=200,
        )  # fmt: skip
        assert area == pytest.approx(1.0, abs=2e-3)


def test_densities_peak_where_the_physics_says() -> None:
    prior = PRIORS.packed()
    u = np.log(0.3)
    v = np.linspace(V_LOW, V_HIGH, 4001)

    def top(label: int) -> float:
        return float(v[np.argmax([log_prior_given_brightness(label, u, x, prior) for x in v])])

    assert top(HOT_CARRIER) == pytest.approx(0.0, abs=0.01)
    assert top(NBC) == pytest.approx(u, abs=0.01)
    assert top(AUGER) == pytest.approx(u - np.log(2.0), abs=0.01)


def test_no_trion_without_room_for_its_faster_radiation() -> None:
    prior = PRIORS.packed()
    # twice the radiative rate and nine tenths of the lifetime: a yield of 0.11 at most
    assert log_prior_given_brightness(AUGER, np.log(1.8), np.log(0.9), prior) < -1e6
    # a trion without Auger loss is as bright as the exciton and half as long
    silent = log_prior_given_brightness(AUGER, 0.0, np.log(0.5), prior)
    assert silent > log_prior_given_brightness(OTHER, 0.0, np.log(0.5), prior)


@pytest.mark.parametrize("log_brightness", [np.log(0.15), np.log(0.3), np.log(0.6)])
def test_all_mechanisms_make_dim_states(log_brightness: float) -> None:
    prior = PRIORS.packed()
    allowed = [np.exp(log_allowed(label, log_brightness, prior)) for label in range(N_LABELS)]
    np.testing.assert_allclose(allowed, 1.0, atol=1e-5)


def test_weights_are_the_mean_of_their_prior() -> None:
    priors = MechanismPriors(
        weights=dict.fromkeys(MECHANISMS, 2.0) | {"nbc": 6.0}, weights_concentration=8.0
    )
    assert sum(priors.concentrations()) == pytest.approx(8.0)
    assert priors.concentrations()[NBC] == pytest.approx(3.0)
    assert priors.concentrations()[OTHER] == pytest.approx(1.0)


def test_what_a_mechanism_does_not_allow_makes_no_other_more_probable() -> None:
    prior = PRIORS.packed()
    dim, bright = (
        np.exp([log_allowed(label, u, prior) for label in range(N_LABELS)])
        for u in (np.log(0.3), np.log(1.8))
    )
    assert bright[HOT_CARRIER] < 1e-6
    assert bright[NBC] < 1e-6
    assert bright[UNRESOLVED] == 0.0
    np.testing.assert_array_equal(bright[[AUGER, OTHER]], dim[[AUGER, OTHER]])


def test_charged_share_is_what_gives_the_brightness() -> None:
    bright, trion, scaling = 0.6, 0.05, 2.0
    c = charging_share(np.log(bright), np.log(trion), scaling)
    assert 1.0 - c + c * scaling * trion == pytest.approx(bright)
    # brighter than the exciton, or dimmer than the trion: no share gives that
    assert charging_share(0.1, np.log(trion), scaling) == 0.0
    assert charging_share(np.log(0.05), np.log(trion), scaling) == 0.0
    np.testing.assert_allclose(
        charging_shares(np.log([[bright, 1.2]]), np.log([[trion, trion]]), scaling), [[c, 0.0]]
    )
    prior = PRIORS.packed()
    assert log_allowed(UNRESOLVED, np.log(0.05), prior) < -1e6


def test_auger_rate_is_what_made_the_trion() -> None:
    """Trions drawn from the prior: the draws given f and g scatter around the rates behind them."""
    rng = np.random.default_rng(5)
    n = 4000
    scaling = np.exp(np.log(2.0) + 0.2 * rng.standard_normal(n))
    quantum_yield = rng.uniform(0.3, 1.0, n)
    lifetime_ns = rng.uniform(3.0, 12.0, n)
    rate = np.exp(rng.uniform(np.log(0.1), np.log(10.0), n))
    added = (scaling - 1.0) * quantum_yield / lifetime_ns + rate
    exact = auger_rate_per_ns(
        added, scaling, lifetime_ns, MechanismPriors(quantum_yield=(0.6499, 0.6501)), rng
    )
    expected = np.maximum(added - (scaling - 1) * 0.65 / lifetime_ns, 0.0)
    np.testing.assert_allclose(exact, expected, rtol=0.05, atol=1e-4)
    found = auger_rate_per_ns(added, scaling, lifetime_ns, PRIORS, rng)
    assert (found >= 0.0).all()
    assert abs(np.mean(found - rate)) < 4.0 * np.std(found - rate) / np.sqrt(n) + 0.005
    observed = np.log(scaling) + 0.1 * rng.standard_normal(n)
    drawn = np.log(radiative_scaling(observed, 0.1, PRIORS, rng))
    z = (drawn - np.log(scaling)) / np.sqrt(2.0 / (1 / 0.1**2 + 1 / 0.2**2))
    assert abs(z.mean()) < 4.0 / np.sqrt(n)
    assert z.std() == pytest.approx(1.0, abs=0.05)


def test_numbers_of_the_kernels_are_the_names() -> None:
    numbers = (AUGER, HOT_CARRIER, NBC, UNRESOLVED, BACKGROUND, OTHER)
    assert [MECHANISMS[n] for n in numbers] == list(MECHANISMS)
    assert len(MECHANISMS) == N_LABELS
