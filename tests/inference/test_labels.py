"""Mechanisms of states: their evidence against plain integration, and simulated dots."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

import pncbayes as pnc
from pncbayes.inference.label_counts import label_probabilities
from pncbayes.inference.label_kernels import Decays
from pncbayes.inference.mechanism_group import _added_rates
from pncbayes.inference.shared_kernels import (
    CONCENTRATION,
    FAST,
    LIFETIME,
    PAIR_LIFETIME,
    SHIFT,
    SIZE,
    SPREAD,
    WIDTH,
    Instrument,
    prepare,
    unpack,
    workspace,
)
from pncbayes.inference.shared_parameters import SharedParameters
from pncbayes.inference.state_evidence import state_evidence
from pncbayes.physics.mechanism_kernels import (
    AUGER,
    BACKGROUND,
    HOT_CARRIER,
    N_LABELS,
    NBC,
    OTHER,
    U_HIGH,
    U_LOW,
    UNRESOLVED,
    V_HIGH,
    V_LOW,
    charging_share,
    log_allowed,
    log_prior_given_brightness,
)
from pncbayes.physics.mechanisms import MECHANISMS, MechanismPriors
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.presets import preset
from pncbayes.physics.simulate import simulate
from pncbayes.physics.tied_decay import DecayTable, decay_table
from pncbayes.physics.tied_kernels import blend_tables, delay_by_biexcitons, quenched_shares


@functools.cache
def simulated(name: str):
    photons = simulate(preset(name).settings, random_seed=3).photons
    return pnc.bin_photons(photons, 0.01, response=0.15 / 2.3548)


@functools.cache
def table() -> DecayTable:
    return decay_table(simulated("auger"))


POINT = np.array([
    np.log(5000.0), np.log(6.0), 0.8, 0.2, np.log(8.0), np.log(150.0), 7.0, 0.1,
    np.log(0.03), np.log(0.08), 0.7, np.log(0.1), np.log(0.01), -0.3, np.log(0.08),
])  # fmt: skip


def expected_counts(brightness: float, lifetime: float, seconds: float) -> np.ndarray:
    """Photons of a state whose decay is the tied one."""
    return seconds * (np.exp(POINT[0]) * brightness * tied(lifetime) + around(brightness))


def tied(lifetime: float) -> np.ndarray:
    """Shares of the gates in the reference decay, made faster."""
    made = prepared()
    shares = np.empty(made.whole.size)
    quenched_shares(
        made.amplitudes, made.rates, lifetime, made.table, made.log_start, made.log_step, shares
    )
    return shares


def around(brightness: float) -> np.ndarray:
    """Counts per s and gate of a state that are not of single excitons."""
    made = prepared()
    assert made.pair_share == pytest.approx(0.03)
    assert made.pair_power == pytest.approx(1.0 / (1.0 + np.exp(-0.7)))
    pairs = np.exp(POINT[0]) * 0.03 * brightness**made.pair_power * made.pair_shares
    return made.flat + (pairs if brightness > 0.0 else 0.0)


@functools.cache
def prepared() -> Decays:
    own = table()
    return prepare(
        POINT,
        Instrument(
            own.shares,
            own.scatter[:, :, None],
            own.uniform,
            own.background,
            own.log_start,
            own.log_step,
        ),
    )


def log_likelihood(photons: np.ndarray, seconds: float, rate: np.ndarray) -> float:
    """Poisson total, and gates as a Dirichlet-multinomial, without the constants of the photons."""
    total, concentration = rate.sum(), np.exp(POINT[CONCENTRATION])
    weight = concentration * rate / total
    return float(
        photons.sum() * np.log(total) - total * seconds
        + gammaln(concentration) - gammaln(concentration + photons.sum())
        + (gammaln(weight + photons) - gammaln(weight)).sum()
    )  # fmt: skip


def integrated(photons: np.ndarray, seconds: float) -> np.ndarray:
    """Log evidence of each mechanism, by a fine grid over the plane."""
    made, prior = prepared(), MechanismPriors().packed()
    bright, du, dv = np.exp(POINT[0]), 0.01, 0.01
    u, v = np.arange(U_LOW + du / 2, U_HIGH, du), np.arange(V_LOW, V_HIGH, dv)
    values = np.full((N_LABELS, u.size, v.size), -np.inf)
    shares = [tied(np.exp(one)) for one in v]
    for i, own in enumerate(u):
        rough = bright * np.exp(own) * made.whole + around(np.exp(own))
        away = photons.sum() - seconds * rough.sum()
        if away**2 > 60.0 * (photons.sum() + 1.0):
            continue
        for j, one in enumerate(v):
            rate = bright * np.exp(own) * shares[j] + around(np.exp(own))
            plain = log_likelihood(photons, seconds, rate)
            for label in (AUGER, HOT_CARRIER, NBC, OTHER):
                density = log_prior_given_brightness(label, own, one, prior)
                weight = log_allowed(label, own, prior)
                values[label, i, j] = plain + density + weight + np.log(dv)
        values[UNRESOLVED, i, 0] = charged_part_of_the_time(own, photons, seconds)
    found = logsumexp(values, axis=(1, 2)) + np.log(du) - np.log(U_HIGH - U_LOW)
    found[BACKGROUND] = log_likelihood(photons, seconds, made.flat)
    return found


def charged_part_of_the_time(
    u: float,
    photons: np.ndarray,
    seconds: float,
    step: float = 0.1,
    finer: float = 1.0,
    near: float | None = None,
) -> float:
    """Log evidence, by a grid over the lifetimes of the trion and of the neutral part.

    Of a trion whose log lifetime is known to be `near`, nothing else is worked out.
    """
    prior, total = MechanismPriors().packed(), []
    slack, scaling = prior[:2]
    neutral = slack * np.arange(-4.0, 4.01, 0.04 / finer)
    shares = [tied(np.exp(one)) for one in neutral]
    weight = np.exp(-0.5 * (neutral / slack) ** 2)
    for v in np.arange(V_LOW, V_HIGH, step):
        c = charging_share(u, v, scaling)
        if c > 0.0 and near is not None and abs(v - near) > 0.7:
            total.append(-np.inf)
        elif c > 0.0:
            trion = c * scaling * np.exp(v) * tied(np.exp(v))
            mixed = np.exp(POINT[0]) * ((1 - c) * np.array(shares) + trion) + around(np.exp(u))
            values = [log_likelihood(photons, seconds, one) for one in mixed]
            total.append(logsumexp(values, b=weight / weight.sum()))
    return float(logsumexp(total) - np.log(len(total))) if total else -np.inf


@pytest.mark.parametrize(
    ("brightness", "lifetime", "seconds"),
    [
        (0.2, 0.1, 1.0),
        (0.2, 0.2, 0.2),
        (0.4, 1.0, 3.0),
        (1.0, 0.5, 0.5),
        (0.02, 0.01, 2.0),
        (0.0, 1.0, 1.5),
        (0.55, 0.95, 1.0),
        # longer than all nodes but the last ones
        (1.33, 1.33, 1.0),
        (1.2, 1.4, 1.0),
    ],
)
def test_evidence_of_mechanisms_is_the_integral(
    brightness: float, lifetime: float, seconds: float
) -> None:
    rng = np.random.default_rng(7)
    photons = rng.poisson(expected_counts(brightness, lifetime, seconds)).astype(float)
    work = workspace(1)
    found = work.evidence[0]
    state_evidence(
        photons, seconds, prepared(), MechanismPriors().packed(), work.nodes[0], work.n_nodes[0],
        found,
    )  # fmt: skip
    expected = integrated(photons, seconds)
    # what is far below the best does not matter
    matters = expected > expected.max() - 8.0
    np.testing.assert_allclose(
        found[UNRESOLVED] if matters[UNRESOLVED] else 0.0,
        expected[UNRESOLVED] if matters[UNRESOLVED] else 0.0,
        atol=0.3,  # its nodes over the lifetime of the trion are coarse
    )
    matters[UNRESOLVED] = False
    np.testing.assert_allclose(found[matters], expected[matters], atol=0.05)
    far = expected < expected.max() - 8.0
    assert (found[far] < expected.max() - 6.0).all()


@pytest.mark.parametrize(
    ("share", "trion", "seconds"),
    [pytest.param(0.4, 0.05, 20.0, marks=pytest.mark.slow), (0.6, 0.2, 10.0)],
)
def test_evidence_of_charging_is_the_integral_where_photons_tell_the_trion(
    share: float, trion: float, seconds: float
) -> None:
    """So many photons that the lifetime of the trion lies between two coarse nodes."""
    scaling = MechanismPriors().scaling_median
    brightness = 1.0 - share + share * scaling * trion
    shapes = (1.0 - share) * tied(1.0) + share * scaling * trion * tied(trion)
    rate = np.exp(POINT[0]) * shapes + around(brightness)
    photons = np.random.default_rng(3).poisson(seconds * rate).astype(float)
    work = workspace(1)
    found = work.evidence[0]
    state_evidence(
        photons, seconds, prepared(), MechanismPriors().packed(), work.nodes[0], work.n_nodes[0],
        found,
    )  # fmt: skip
    excess = np.log((photons.sum() / seconds - prepared().flat.sum()) / np.exp(POINT[0]))
    across = np.linspace(-0.06, 0.06, 49)
    values = [
        charged_part_of_the_time(excess + one, photons, seconds, 0.02, 2.0, np.log(trion))
        for one in across
    ]
    top = int(np.argmax(values))
    assert 8 < top < 40
    expected = logsumexp(values) + np.log(across[1] - across[0]) - np.log(U_HIGH - U_LOW)
    # three nodes over the brightness, which the decay tells, too
    assert found[UNRESOLVED] == pytest.approx(expected, abs=0.4)
    assert found[UNRESOLVED] > np.delete(found, UNRESOLVED).max() + 5.0


def test_light_of_a_state_is_delayed_and_has_afterpulses() -> None:
    """The decay table of a point, against the recipe of its parts."""
    own, made = table(), prepared()
    plain, later = np.empty_like(made.table), np.empty_like(made.table)
    blend_tables(own.shares, POINT[SHIFT], POINT[WIDTH], plain)
    delay_by_biexcitons(plain, own.log_start, own.log_step, POINT[PAIR_LIFETIME], 0.08, later)
    np.testing.assert_allclose(made.table, 0.99 * later + 0.01 * own.uniform, rtol=1e-9)
    single = np.empty(own.uniform.size)
    quenched_shares(
        np.ones(1), np.full(1, 1 / 0.08), 1.0, plain, own.log_start, own.log_step, single
    )
    np.testing.assert_allclose(made.pair_shares, 0.99 * single + 0.01 * own.uniform, rtol=1e-9)
    assert own.uniform.sum() == pytest.approx(1.0)
    for part in (made.whole, made.pair_shares, *made.coarse):
        assert part.sum() == pytest.approx(1.0, abs=1e-6)


def test_reference_decay_has_its_mean_lifetime() -> None:
    amplitudes, rates = np.empty(2), np.empty(2)
    for spread in (-1.3, 0.0, 2.0):
        point = POINT.copy()
        point[2] = spread
        unpack(point, amplitudes, rates)
        assert (amplitudes / rates).sum() == pytest.approx(6.0)
        assert amplitudes.sum() == pytest.approx(1.0)
        assert rates[0] / rates[1] == pytest.approx(np.exp(abs(spread)))


@functools.cache
def fitted(name: str) -> pnc.Fit:
    return pnc.fit(simulated(name), max_states=4, random_seed=1, dynamics=False, progressbar=False)


NAMED = {
    "auger": ["reference", "auger"],
    "hot_carrier": ["reference", "hot_carrier"],
    "nbc": ["reference", "nbc"],
    "mixed": ["reference", "auger", "hot_carrier"],
    "demo": ["reference", "auger", "background"],
}


# most of a minute each: in every run an Auger dot, a band-edge trap and the demo
SLOW_NAMES = ("hot_carrier", "mixed")


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.slow) if one in SLOW_NAMES else one for one in NAMED],
)
def test_simulated_mechanisms_are_named(name: str) -> None:
    fit = fitted(name)
    table = fit.state_mechanisms
    assert sorted(table["named_mechanism"]) == sorted(NAMED[name])
    assert table["named_mechanism"].iloc[0] == "reference"
    chosen = table[list(MECHANISMS)].sum(axis=1) + table["reference"]
    np.testing.assert_allclose(chosen, 1.0, atol=1e-6)
    for mechanism, share in fit.mechanisms.items():
        assert share > 0.8 if mechanism in NAMED[name] else share < 0.2


def test_with_and_without_charging_add_up_to_the_whole() -> None:
    photons = np.array([expected_counts(1.0, 1.0, 3.0), expected_counts(0.4, 0.9, 3.0)])
    seconds = np.full(2, 3.0)
    whole = SharedParameters(table(), simulated("auger"), load_model("free"), 0, 2)
    values = [
        one.value(POINT, photons, seconds)[0]
        for one in (whole, whole.half(False), whole.half(True))
    ]
    assert np.logaddexp(*values[1:]) == pytest.approx(values[0], abs=1e-9)
    _, evidence = whole.value(POINT, photons, seconds)
    for charging in (False, True):
        half = whole.half(charging)
        shares, _ = label_probabilities(evidence, 0, half.counts)
        assert shares[1, UNRESOLVED] == pytest.approx(float(charging), abs=1e-12)
        assert shares[1].sum() == pytest.approx(1.0)


def test_silent_trion_is_found_by_its_lifetime_alone() -> None:
    """Two equally bright states: intensity alone says nothing."""
    fit = fitted("silent")
    assert fit.n_states[2] > 0.9
    assert sorted(fit.state_mechanisms["named_mechanism"]) == ["auger", "reference"]
    slower = int(fit.states["lifetime_ns_mean"].idxmax())
    assert fit.state_mechanisms["named_mechanism"].iloc[slower] == "reference"


def test_rates_and_losses_are_those_of_the_simulation() -> None:
    fit = fitted("auger")
    # g = 0.1 and t_X = 6 ns: (9 - (m - 1) Q) / 6 for any m and Q that the prior allows
    rate = fit.auger_rate_per_ns
    assert 1.25 < rate["q05"] < rate["q95"] < 1.50
    assert fit.loss_budget["auger"]["mean"] > 0.8
    assert sum(part["mean"] for part in fit.loss_budget.values()) == pytest.approx(1.0)
    hot = fitted("hot_carrier").mechanism_rates.set_index("quantity").loc["hot_carrier_yield"]
    assert hot["q05"] < 0.252
    assert hot["q95"] > 0.248
    centre = fitted("nbc").mechanism_rates.set_index("quantity").loc["centre_rate_per_ns"]
    assert centre["q05"] < 0.505
    assert centre["q95"] > 0.495
    samples = fit.tree["mechanisms"]["exciton_lifetime_ns"].values
    assert abs(samples.mean() - 6.0) < 4 * samples.std() + 0.02


def test_rates_of_centres_are_those_that_quench_both_exponentials() -> None:
    # 2 and 10 ns, as much of each at time zero; a centre of 0.2 per ns makes 10/7 and 10/3 ns
    point = np.zeros(SIZE)
    point[LIFETIME], point[SPREAD], point[FAST] = np.log(6.0), np.log(5.0), 0.0
    labels = SimpleNamespace(shared=point[None])
    ratio = (10.0 / 7.0 + 10.0 / 3.0) / 12.0
    added = _added_rates(labels, np.array([[1.0, ratio, np.nan]]))
    np.testing.assert_allclose(added, [[0.0, 0.2, np.nan]], atol=1e-9)


def test_mechanisms_can_be_left_out_and_change_nothing_else() -> None:
    without = pnc.fit(
        simulated("auger"),
        max_states=4,
        mechanisms=False,
        random_seed=1,
        dynamics=False,
        progressbar=False,
    )
    assert without.mechanisms is None
    np.testing.assert_array_equal(without.n_states, fitted("auger").n_states)
    np.testing.assert_array_equal(without.states, fitted("auger").states)


def test_nothing_is_said_of_mechanisms_without_delays() -> None:
    camera = pnc.camera_trace(
        np.random.default_rng(1).poisson(100.0, 400).astype(float), 0.05,
        gain=1.0, offset=0.0, read_noise=0.1, excess_factor=1.0,
    )  # fmt: skip
    fit = pnc.fit(camera, max_states=2, random_seed=1, dynamics=False, progressbar=False)
    assert fit.mechanisms is None
    assert fit.state_mechanisms is None
    assert fit.loss_budget is None
    assert fit.summary()["states"][0]["mechanism"] is None
