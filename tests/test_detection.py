"""How many photons name a mechanism: expected photons, and the limit against brute force."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

import pncbayes as pnc
from pncbayes.inference import detection
from pncbayes.inference.naming import DimState, Namer
from pncbayes.inference.naming_surface import surface
from pncbayes.inference.shared_parameters import SharedParameters
from pncbayes.physics.convolution import (
    GaussianResponse,
    exponential_gate_probability,
    flat_gate_fraction,
    gate_probability,
    scatter_gate_probability,
)
from pncbayes.physics.expected_photons import NUISANCES, Decays, Light, usual_gates_ns
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.tied_decay import DecayTable

LIGHT = Light(20_000.0, (6.0,), (1.0,), 0.002, 200.0, 0.01, 0.1)
RESPONSE = GaussianResponse(2.0, 0.15 / 2.3548)
PERIOD_NS = 200.0
GATES_NS = usual_gates_ns(LIGHT, RESPONSE, PERIOD_NS, 0.016, 0.5)


def _decays(**changes: float) -> Decays:
    return Decays(replace(LIGHT, **changes), RESPONSE, GATES_NS, PERIOD_NS)


def _rate(u: float, v: float, **changes: float) -> np.ndarray:
    return _decays(**changes).tied(np.array([u]), np.array([v]))[0][0, 0]


def test_expected_photons_are_those_of_the_convolution() -> None:
    u, v = math.log(0.3), math.log(0.15)

    def light_of(lifetime_ns: float) -> np.ndarray:
        return gate_probability([lifetime_ns], [1.0], GATES_NS, RESPONSE, PERIOD_NS)

    other = 40.0 * scatter_gate_probability(GATES_NS, RESPONSE, PERIOD_NS)
    other = other + 200.0 * flat_gate_fraction(GATES_NS) + 200.0 * math.sqrt(0.3) * light_of(0.1)
    np.testing.assert_allclose(_rate(u, v), 6_000.0 * light_of(0.9) + other, rtol=1e-3, atol=0.02)
    # charged half of the time: half of the exciton's light, and a trion's of brightness 2 g
    u = math.log(0.5 + 0.5 * 2.0 * 0.15)
    rate, _, allowed = _decays().charged(np.array([u]), np.array([v]), 2.0)
    own = 10_000.0 * light_of(6.0) + 3_000.0 * light_of(0.9)
    other += 200.0 * (math.exp(0.5 * u) - math.sqrt(0.3)) * light_of(0.1)
    np.testing.assert_allclose(rate[0, 0], own + other, rtol=1e-3, atol=0.02)
    assert allowed[0, 0]


@pytest.mark.parametrize(
    ("name", "field", "value", "step", "per"),
    [
        ("log_lifetime", "lifetimes_ns", 6.0, 0.06, 6.0),
        ("scatter_share", "scatter_share", 0.002, 0.001, 1.0),
        ("background_per_s", "background_per_s", 200.0, 1.0, 1.0),
        ("biexciton_share", "biexciton_share", 0.01, 0.001, 1.0),
        ("biexciton_log_lifetime", "biexciton_lifetime_ns", 0.1, 0.001, 0.1),
    ],
)
def test_slopes_are_differences(
    name: str, field: str, value: float, step: float, per: float
) -> None:
    u, v = math.log(0.3), math.log(0.15)
    slope = _decays().tied(np.array([u]), np.array([v]))[1][0, 0, NUISANCES.index(name)]

    def at(number: float) -> np.ndarray:
        # the other shares are over the signal, which does not change here
        return _rate(u, v, **{field: (number,) if field == "lifetimes_ns" else number})

    expected = per * (at(value + step) - at(value - step)) / (2.0 * step)
    np.testing.assert_allclose(slope, expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())


def test_slopes_by_the_response_are_differences() -> None:
    u, v = math.log(0.3), math.log(0.15)
    slopes = _decays().tied(np.array([u]), np.array([v]))[1][0, 0]

    def at(shift_ns: float, factor: float) -> np.ndarray:
        response = GaussianResponse(2.0 + shift_ns, RESPONSE.sd_ns * factor)
        return Decays(LIGHT, response, GATES_NS, PERIOD_NS).tied(np.array([u]), np.array([v]))[0]

    step_ns = 0.05 * RESPONSE.width_ns
    by_shift = (at(step_ns, 1.0) - at(-step_ns, 1.0))[0, 0] / 0.1
    by_width = (at(0.0, math.exp(0.05)) - at(0.0, math.exp(-0.05)))[0, 0] / 0.1
    for name, expected in (("shift", by_shift), ("log_width", by_width)):
        found = slopes[NUISANCES.index(name)]
        np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_what_is_shared_is_integrated_out() -> None:
    """Against quadrature over one direction, at the truth and where the best z is far from 0."""
    rng = np.random.default_rng(3)
    true = np.array([40.0, 60.0, 30.0, 20.0])
    rate = np.array([true, [30.0, 75.0, 35.0, 15.0]])
    along = np.array([[6.0, -8.0, -3.0, 3.0]] * 2)
    photons = rng.poisson(5.0 * true, size=(6, 4)).astype(float)
    centres = rng.standard_normal((6, 1))
    made = surface(
        5.0, np.ones((1, 1)), true, (np.zeros(1), np.zeros(2)),
        rate[None], along[None, :, None, :], np.ones((1, 2), dtype=bool),
    )  # fmt: skip
    found = made.values(photons, centres)
    z = np.linspace(-4.5, 4.5, 4001)
    for node in range(2):
        expected_counts = 5.0 * (rate[node] + z[:, None] * along[node])
        assert expected_counts.min() > 0.0
        for i in range(6):
            log_like = photons[i] @ np.log(expected_counts).T - expected_counts.sum(axis=1)
            log_like += -0.5 * (z - centres[i, 0]) ** 2 - 0.5 * math.log(2.0 * math.pi)
            top = log_like.max()
            exact = top + math.log(np.exp(log_like - top).sum() * (z[1] - z[0]))
            assert found[i, node] == pytest.approx(exact, abs=0.15)
    assert abs(made.place[1, 0]) > 0.5


def _table() -> DecayTable:
    logs = np.linspace(math.log(RESPONSE.width_ns / 30.0), math.log(3.0 * PERIOD_NS), 200)
    step_ns = 0.15 * RESPONSE.width_ns
    shifts = (-step_ns, 0.0, step_ns)
    shares = [
        exponential_gate_probability(np.exp(-logs), GATES_NS, RESPONSE, PERIOD_NS, by)
        for by in shifts
    ]
    scatters = [scatter_gate_probability(GATES_NS, RESPONSE, PERIOD_NS, by) for by in shifts]
    # the width is known here, and the same in all of them
    return DecayTable(
        np.maximum(np.stack([shares] * 3, axis=1), 0.0),
        np.maximum(np.stack([scatters] * 3, axis=1), 0.0),
        np.diff(GATES_NS) / PERIOD_NS, flat_gate_fraction(GATES_NS),
        float(logs[0]), float(logs[1] - logs[0]), RESPONSE.width_ns, PERIOD_NS, 0.0, step_ns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mechanism", "against", "u", "v"),
    [
        ("auger", "nbc", math.log(0.2), math.log(0.1)),
        ("hot_carrier", "nbc", math.log(0.5), 0.0),
        ("unresolved_charging", "hot_carrier", math.log(0.5 + 0.5 * 2.0 * 0.1), math.log(0.1)),
    ],
)
def test_limit_against_the_kernels_of_a_fit(
    mechanism: str, against: str, u: float, v: float
) -> None:
    """With all that is shared known, `fit`'s own kernels name nine of ten at the limit."""
    labels = (MECHANISMS.index(mechanism), MECHANISMS.index(against))
    state, rng = DimState(labels[0], u, v, 2.0), np.random.default_rng(4)
    free = load_model("free")
    uniforms, normals = rng.random((1000, 24)), rng.standard_normal((1000, len(NUISANCES)))
    namer = Namer(
        _decays(), state, free.mechanism, labels, np.full(len(NUISANCES), 1e-9), 1.0, 0.0,
        uniforms, normals,
    )  # fmt: skip
    signal_per_s = 20_000.0 * math.exp(u)
    seconds, reason = detection.search(namer, signal_per_s, RESPONSE.width_ns, 6.0)
    assert reason == ""
    trace = xr.Dataset(attrs={"background_rate_per_s": 200.0, "background_sd_per_s": 20.0})
    shared = SharedParameters(_table(), trace, free, 0, 2)
    truth = np.array([
        math.log(20_000.0), math.log(6.0), 0.0, 0.0, math.log(40.0), math.log(200.0),
        math.log(1e7), 0.0, math.log(0.01), math.log(0.1), 0.0, math.log(0.1), math.log(1e-9), 0.0,
        math.log(1e-9),
    ])  # fmt: skip
    named = []
    reference = 1e3 * _rate(0.0, 0.0)
    for _ in range(400):
        own = rng.poisson(seconds * namer.rate).astype(float)
        _, evidence = shared.value(truth, np.array([reference, own]), np.array([1e3, seconds]))
        good = evidence[1, labels[0]] - evidence[1, labels[1]] > math.log(0.8 / 0.2)
        if mechanism in ("auger", "hot_carrier", "nbc"):
            nodes, _ = shared.nodes_of(1)
            weights = np.exp(nodes[:, 2] - nodes[:, 2].max())
            log_r = nodes[:, 0] - nodes[:, 1]
            mean = np.average(log_r, weights=weights)
            good &= np.average((log_r - mean) ** 2, weights=weights) <= 0.25**2
        named.append(good)
    # nine of ten, within three standard errors of 400 and 1000 recordings
    assert np.mean(named) == pytest.approx(0.9, abs=0.055)


def test_five_sigma_of_r() -> None:
    """110 to 164 photons tell R = 2 from 1 at five sigma, where the exciton is well known.

    That is for lifetimes well above the response, no biexcitons, a response of known width, and a
    dot that is dim a tenth of the time.
    """
    free = load_model("free")
    alone = replace(free, mechanism=replace(free.mechanism, biexciton_share_median=1e-9))
    for lifetime_ns, width_ns in ((0.4, 0.05), (0.4, 0.4), (1.0, 0.15)):
        limit = pnc.detection_limit(
            "auger", "nbc", lifetime_ns=lifetime_ns, response_fwhm_ns=width_ns, occupancy=0.1,
            response_width_error=0.0, model=alone, n_recordings=100, random_seed=1,
        )  # fmt: skip
        photons = limit.photons * (limit.log_radiative_ratio_sd / (math.log(2.0) / 5.0)) ** 2
        # two unknown numbers of Poisson photons make it at least 2 / (ln 2 / 5)^2 = 104
        assert 104.0 < photons < 164.0


def test_what_makes_it_harder() -> None:
    def limit(**changes: float) -> pnc.DetectionLimit:
        settings = {"lifetime_ns": 0.1, "response_fwhm_ns": 0.15, "n_recordings": 200, **changes}
        return pnc.detection_limit("auger", "nbc", random_seed=2, **settings)

    easy = limit()
    assert easy == limit()
    assert easy.state_seconds * 20_000.0 * easy.relative_brightness == pytest.approx(easy.photons)
    assert easy.recording_seconds == pytest.approx(2.0 * easy.state_seconds)
    assert limit(response_fwhm_ns=0.3).photons > 1.3 * easy.photons
    assert limit(background_rate_per_s=20_000.0).photons > 1.3 * easy.photons
    assert limit(exciton_photons=1_000.0).photons > 1.3 * easy.photons
    assert "photons of the dim state" in repr(easy)


@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        (("hot_carrier", "nbc"), {"relative_brightness": 0.95}, "overlap here.*nbc 0.4"),
        (("auger", "nbc"), {"lifetime_ns": 0.6, "radiative_scaling": 1.2}, "overlap.*nbc 0.8"),
        (
            ("auger", "nbc"),
            {"lifetime_ns": 0.03, "response_fwhm_ns": 0.5, "exciton_photons": 1e3},
            "hidden by that",
        ),
    ],
)
def test_never(arguments: tuple[str, str], settings: dict[str, float], reason: str) -> None:
    limit = pnc.detection_limit(*arguments, random_seed=1, n_recordings=100, **settings)
    assert math.isinf(limit.photons)
    assert math.isinf(limit.state_seconds)
    assert math.isinf(limit.recording_seconds)
    assert re.search(reason, limit.reason)
    assert "never named" in repr(limit)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("trion", None), {}, "`mechanism` must be one of auger.*got 'trion'"),
        (("auger", "auger"), {"lifetime_ns": 1.0}, "`against` must be None.*got 'auger'"),
        (("auger", None), {}, "needs either `relative_lifetime` or `lifetime_ns`, got none"),
        (("nbc", None), {"lifetime_ns": 1.0, "relative_lifetime": 0.1}, "got both"),
        (("auger", None), {"lifetime_ns": 5.9}, "must be from 0.001 to 0.769, got 0.9833"),
        (("auger", None), {"lifetime_ns": -1.0}, "`lifetime_ns` must be a number above 0"),
        (("auger", None), {"lifetime_ns": 0.001}, "must be from 0.001 to"),
        (("hot_carrier", None), {}, "needs `relative_brightness`"),
        (("hot_carrier", None), {"relative_brightness": 1.5}, "below 1, got 1.5"),
        (("hot_carrier", None), {"relative_brightness": 0.5, "lifetime_ns": 1.0}, "are not for"),
        (("auger", None), {"lifetime_ns": 1.0, "charged_share": 0.5}, "only for unresolved"),
        (
            ("unresolved_charging", None),
            {"relative_lifetime": 0.6, "charged_share": 0.5},
            "must be below 1",
        ),
        (("auger", None), {"lifetime_ns": 1.0, "occupancy": 1.0}, "`occupancy`.*got 1.0"),
        (("auger", None), {"lifetime_ns": 1.0, "n_recordings": 10}, "`n_recordings`.*got 10"),
        (
            ("auger", None),
            {"lifetime_ns": 1.0, "background_rate_per_s": -1.0},
            "`background_rate_per_s` must be a number 0 or more, got -1.0",
        ),
        (("auger", None), {"lifetime_ns": 1.0, "response_fwhm_ns": 30.0}, "`response_fwhm_ns`"),
        (("auger", None), {"lifetime_ns": 1.0, "response": "irf.ptu"}, "`response`.*'irf.ptu'"),
        (("auger", None), {"lifetime_ns": 1.0, "response": 0.1}, "`response`.*got 0.1"),
        (("auger", None), {"lifetime_ns": 1.0, "response": [1.0, np.nan]}, "`response`.*nan"),
        (("auger", None), {"lifetime_ns": 1.0, "response": np.zeros(9)}, "`response`.*not all 0"),
    ],
)
def test_refusals(
    arguments: tuple[str, str | None], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pnc.detection_limit(*arguments, **settings)


def test_a_measured_response_is_as_good_as_its_gaussian() -> None:
    tick_ns = 0.05
    edges = np.arange(4001) * tick_ns
    weight = np.diff(ndtr((edges - 2.0) * math.sqrt(8.0 * math.log(2.0)) / 0.3))
    settings = {"lifetime_ns": 0.5, "delay_tick_ns": tick_ns, "n_recordings": 100}
    gaussian = pnc.detection_limit("auger", "nbc", response_fwhm_ns=0.3, random_seed=1, **settings)
    measured = pnc.detection_limit("auger", "nbc", response=weight, random_seed=1, **settings)
    assert measured.photons == pytest.approx(gaussian.photons, rel=0.1)
