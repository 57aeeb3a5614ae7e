"""Verdicts on counts whose dynamics are known, evidence against integrals, and bad input."""

import json
from functools import cache

import numpy as np
import pytest
import xarray as xr

import pncbayes as pnc
from pncbayes.errors import ModelFileError
from pncbayes.inference.dynamics import Dynamics, brightness_sd, is_flicker
from pncbayes.inference.dynamics_checks import check_dynamics, replicate
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import (
    Optimum,
    climb,
    evidence_at,
    merged_levels,
    residual_flicker,
)
from pncbayes.physics.dynamics_file import load_dynamics_priors
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import Flicker, SimulatedState, SimulationSettings, simulate
from pncbayes.physics.state_path import simulate_jumps

MODEL = load_model("free")
WIDTH_S = 0.01
SECONDS = 25.0


def wander(log_sd: float, relaxation_per_s: float, rng: np.random.Generator) -> np.ndarray:
    n_bins = int(SECONDS / WIDTH_S)
    keep = np.exp(-relaxation_per_s * WIDTH_S)
    x = np.empty(n_bins)
    noise = rng.standard_normal(n_bins)
    x[0] = noise[0]
    for t in range(1, n_bins):
        x[t] = keep * x[t - 1] + np.sqrt(1.0 - keep**2) * noise[t]
    return np.exp(log_sd * x)


def counts_of(kind: str, seed: int = 1) -> np.ndarray:
    """Counts per bin: levels that switch inside bins, times a flicker."""
    rng = np.random.default_rng(seed)
    n_bins = int(SECONDS / WIDTH_S)
    light = np.full(n_bins, 8e3)
    if kind in ("blinking", "both"):
        rates = np.array([[0.0, 1.5], [2.0, 0.0]])
        path = simulate_jumps(rates, SECONDS, random_seed=rng)
        light = path.occupancy_per_bin(WIDTH_S)[:n_bins] @ np.array([8e3, 2e3])
    if kind in ("flickering", "both"):
        light = light * wander(0.2, 2.0, rng)
    return rng.poisson(light * WIDTH_S)


def trace_of(counts: np.ndarray) -> xr.Dataset:
    """A trace of counts alone, without delays and without photons behind it."""
    trace = xr.Dataset(
        {"counts": (("time", "gate"), counts[:, None].astype(np.int64))},
        coords={"time": (np.arange(counts.size) + 0.5) * WIDTH_S},
    )
    trace.attrs = {
        "kind": "photons",
        "width_s": WIDTH_S,
        "duration_s": counts.size * WIDTH_S,
        "warnings": "[]",
    }
    return trace


@cache
def found(kind: str) -> Dynamics:
    return pnc.dynamics(trace_of(counts_of(kind)), max_states=3, random_seed=1, progressbar=False)


@pytest.mark.parametrize("kind", ["steady", "blinking", "flickering", "both"])
def test_the_verdict_is_what_was_simulated(kind: str) -> None:
    one = found(kind)
    assert one.verdict == kind, one.reasons
    levels = one.n_levels
    assert levels.idxmax() == (2 if kind in ("blinking", "both") else 1)
    assert levels.sum() == pytest.approx(1.0)
    assert sum(one.verdict_probability.values()) == pytest.approx(1.0)
    flicker = one.flicker_probability["any"]
    assert flicker > 0.99 if kind in ("flickering", "both") else flicker < 0.2


def test_flicker_has_the_size_and_the_rate_it_was_given() -> None:
    one = found("both")
    assert one.log_sd[0] == pytest.approx(0.2, abs=0.05)
    assert one.best.point.relaxation_rate_per_s == pytest.approx(2.0, rel=0.6)
    assert any("laser or the stage" in text for text in one.remarks)


def test_levels_alone_are_far_behind_a_flicker() -> None:
    table = found("flickering").table
    alone = table.query("flicker == 'none' and not excess_noise")["log_evidence"].max()
    assert table["log_evidence"].max() > alone + 20.0


def test_checks_pass_where_the_family_is_right_and_fail_where_it_is_not() -> None:
    one = found("both")
    assert min(one.checks.p_values.values()) > 0.01
    data = one.best.posterior.data
    wrong = climb(
        posterior := DynamicsPosterior(data, MODEL, Family(), 1),
        posterior.pack(DynamicsPoint(np.array([[5e3]]), np.zeros((1, 1)), np.empty(0))),
    )
    failed = check_dynamics(evidence_at(wrong), np.random.default_rng(1)).failed(0.01)
    assert {"counts", "autocorrelation"} <= set(failed)


def test_the_summary_is_json_and_the_same_seed_gives_the_same() -> None:
    text = json.dumps(found("flickering").summary())
    again = pnc.dynamics(
        trace_of(counts_of("flickering")), max_states=3, random_seed=1, progressbar=False
    )
    assert json.dumps(again.summary()) == text


def test_tempering_ends_at_the_whole_likelihood() -> None:
    tempered = found("blinking").tempering()
    assert tempered.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert tempered.iloc[-1].idxmax() == 2


def small_data(counts: np.ndarray) -> DynamicsData:
    return DynamicsData(
        counts[:, None].astype(float), WIDTH_S, np.zeros(1), np.ones(1), concentration=200.0
    )


def test_laplace_of_one_level_is_its_integral() -> None:
    rng = np.random.default_rng(2)
    posterior = DynamicsPosterior(small_data(rng.poisson(30.0, 100)), MODEL, Family(), 1)
    top = evidence_at(climb(posterior, np.log(np.array([2e3]))))
    grid = np.linspace(top.vector[0] - 0.3, top.vector[0] + 0.3, 2001)
    values = np.array([posterior.log_density(np.array([x])) for x in grid])
    wanted = np.log(np.trapezoid(np.exp(values - values.max()), grid)) + values.max()
    assert top.log_evidence == pytest.approx(wanted, abs=0.02)


def test_laplace_of_a_flicker_agrees_with_importance_sampling() -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(60.0 * wander(0.25, 3.0, rng))
    posterior = DynamicsPosterior(small_data(counts), MODEL, Family("common"), 1, 15)
    start = posterior.pack(DynamicsPoint(np.array([[6e3]]), np.zeros((1, 1)), np.array([0.2]), 2.0))
    top = evidence_at(climb(posterior, start))
    assert top.hessian is not None
    chol = np.linalg.cholesky(np.linalg.inv(top.hessian))
    scale = np.sqrt(5.0 / rng.chisquare(5.0, 800))
    z = rng.standard_normal((800, 3)) * scale[:, None]
    from scipy.stats import multivariate_t

    logs = []
    for row in z:
        step = chol @ row
        proposal = multivariate_t.logpdf(row, np.zeros(3), np.eye(3), df=5)
        proposal -= np.log(np.diag(chol)).sum()
        logs.append(top.posterior.log_density(top.vector + step) - proposal)
    logs = np.array(logs)
    wanted = np.log(np.mean(np.exp(logs - logs.max()))) + logs.max()
    # long-tailed in the rate: Laplace is a few tenths low
    assert top.log_evidence == pytest.approx(wanted, abs=0.5)


@pytest.mark.parametrize(
    "family",
    [
        Family(),
        Family("common"),
        Family("level", True),
        Family("common", level_of=(0, 1, 1)),
        Family("", bleaching=True),
    ],
    ids=lambda one: one.name,
)
def test_slopes_of_the_density(family: Family) -> None:
    rng = np.random.default_rng(4)
    counts = counts_of("both")[:300]
    if family.bleaching:
        counts = np.concatenate([rng.poisson(80.0, 150), rng.poisson(20.0, 150)])
    posterior = DynamicsPosterior(small_data(counts), MODEL, family, 2, 9)
    n = posterior.n_states
    point = DynamicsPoint(
        np.array([[8e3], [2e3], [2e3]])[:n], np.full((n, n), 1.3), np.array([0.2]), 2.0
    )
    vector = posterior.pack(point) + rng.normal(0.0, 0.05, posterior.size)
    value, slope, _ = posterior.gradient(vector)
    assert value == pytest.approx(posterior.log_density(vector))
    for i in range(posterior.size):
        step = np.zeros(posterior.size)
        step[i] = 1e-5
        up, down = posterior.log_density(vector + step), posterior.log_density(vector - step)
        assert slope[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-3)


def test_replicates_have_the_noise_of_their_family() -> None:
    rng = np.random.default_rng(5)
    posterior = DynamicsPosterior(small_data(np.full(4000, 50)), MODEL, Family("", True), 1)
    point = DynamicsPoint(np.array([[5e3]]), np.zeros((1, 1)), np.empty(0), excess=np.array([0.5]))
    counts = replicate(posterior, posterior.pack(point), rng)[:, 0]
    assert counts.mean() == pytest.approx(50.0, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1.5, rel=0.08)


def test_neighbouring_levels_are_joined() -> None:
    point = DynamicsPoint(
        np.array([[1000.0], [5000.0], [5300.0]]), np.ones((3, 3)) - np.eye(3), np.empty(0)
    )
    joined = merged_levels(point, np.array([10.0, 30.0, 10.0]), 2)
    assert joined.signal_per_s[:, 0] == pytest.approx([5075.0, 1000.0])
    assert np.diag(joined.transition_rate_per_s).tolist() == [0.0, 0.0]


def test_a_search_begins_at_what_the_residual_shows() -> None:
    rng = np.random.default_rng(6)
    factor = wander(0.2, 3.0, rng)
    sd, rate = residual_flicker(rng.poisson(80.0 * factor), np.full(factor.size, 80.0), WIDTH_S)
    assert sd == pytest.approx(0.2, rel=0.4)
    assert 1.0 < rate < 12.0


def test_a_rate_that_flickers_is_told_from_a_brightness() -> None:
    light = SimulatedState(rate_per_s=2e4, lifetimes_ns=(20.0,))
    for changes in (True, False):
        settings = SimulationSettings(
            states=(light,), duration_s=10.0, period_ns=200.0, background_rate_per_s=100.0,
            flicker=Flicker(0.25, 0.3, changes_lifetime=changes),
        )  # fmt: skip
        trace = pnc.bin_photons(
            simulate(settings, random_seed=2).photons, 0.01, response=0.13,
            background_rate_per_s=100.0,
        )  # fmt: skip
        one = pnc.dynamics(trace, max_states=2, random_seed=1, progressbar=False)
        assert one.verdict == "flickering"
        assert (one.flicker_probability["k_nr"] > 0.9) == changes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exposure": 3}, "`exposure` must be True, False or an Exposure"),
        ({"families": "free"}, "not a file of dynamics"),
        ({"max_states": 0}, "max_states"),
        ({"model": "flicker"}, "priors of flicker"),
    ],
)
def test_wrong_arguments_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pnc.dynamics(trace_of(counts_of("steady")), progressbar=False, **settings)  # type: ignore[arg-type]


def test_a_camera_is_refused() -> None:
    trace = trace_of(counts_of("steady"))
    trace.attrs |= {"kind": "camera", "gain": 1.0, "offset": 0.0, "read_noise": 0.0}
    trace.attrs["excess_factor"] = 1.0
    with pytest.raises(ValueError, match="photon counts"):
        pnc.dynamics(trace, progressbar=False)


def test_priors_say_what_is_wrong_with_them(tmp_path) -> None:
    from pncbayes.physics.modelfile import find_model_files

    text = find_model_files()["flicker"].read_text()
    priors = load_dynamics_priors()
    assert 0.0 < priors.flicker < 1.0
    for old, new, message in (
        ("least_log_sd = 0.03", "least_log_sd = -1", "between 0 and 1"),
        ("[odds]", "[odds]\nother = 1", "unknown key 'other'"),
        ("level_log_sd = 0.25", "", "lacks the key 'level_log_sd'"),
        ('dist = "LogNormal", median = 0.1', 'dist = "Normal", median = 0.1', "log_sd"),
    ):
        path = tmp_path / f"{abs(hash(new))}.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(ModelFileError, match=message):
            load_dynamics_priors(path)


def test_a_fit_holds_its_dynamics(tmp_path) -> None:
    fit = pnc.fit(trace_of(counts_of("flickering")), max_states=3, random_seed=1, progressbar=False)
    assert fit.verdict == "flickering"
    assert fit.most_probable_n_states == 1
    fit.save(tmp_path / "fit.nc")
    again = pnc.load(tmp_path / "fit.nc")
    assert again.dynamics is not None
    assert again.verdict == "flickering"
    assert again.dynamics.table["probability"].sum() == pytest.approx(1.0)
    summary = again.summary()
    assert summary["verdict"] == "flickering"
    assert summary["tempering"]["power"][-1] == pytest.approx(1.0)
    figure, axes = pnc.plot_dynamics(again)
    assert {"families", "counts", "tempering"} <= set(axes)
    assert "flickering" in figure.get_suptitle()
    plain = pnc.fit(
        trace_of(counts_of("steady")),
        max_states=1,
        dynamics=False,
        random_seed=1,
        progressbar=False,
    )
    assert plain.verdict is None
    with pytest.raises(ValueError, match="dynamics=True"):
        pnc.plot_dynamics(plain)


@pytest.mark.parametrize(
    ("relaxation_per_s", "log_sd", "flickers"),
    [(2.0, 0.2, True), (2.0, 0.02, False), (0.05, 0.2, False), (45.0, 0.2, False)],
)
def test_a_drift_noise_of_single_bins_and_a_trifle_are_no_flicker(
    relaxation_per_s: float, log_sd: float, flickers: bool
) -> None:
    posterior = DynamicsPosterior(small_data(counts_of("steady")), MODEL, Family("common"), 1, 9)
    point = DynamicsPoint(np.array([[8e3]]), np.zeros((1, 1)), np.array([log_sd]), relaxation_per_s)
    one = Optimum(posterior, posterior.pack(point), 0.0, 0.0)
    assert is_flicker(one, brightness_sd(one)) == flickers


def test_a_dot_that_bleaches_is_said_to() -> None:
    rng = np.random.default_rng(7)
    counts = np.concatenate([rng.poisson(80.0, 1200), rng.poisson(3.0, 1000)])
    one = pnc.dynamics(trace_of(counts), max_states=3, random_seed=1, progressbar=False)
    assert one.verdict == "blinking", one.reasons
    assert one.best.n_levels == 2
    assert one.table.query("bleaching")["probability"].sum() > 0.5
