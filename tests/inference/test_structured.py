"""Structured hypotheses: the bound against closed forms, slopes, comparison of simulated dots."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from dim_state_dots import dot_trace
from scipy import stats
from scipy.special import gammaln

import pncbayes as pnc
from pncbayes.errors import ModelFileError
from pncbayes.inference import structured_evidence
from pncbayes.inference.compare_models import _other_beliefs
from pncbayes.inference.comparison import ModelComparison
from pncbayes.inference.structured import (
    StructuredPosterior,
    coordinate_of,
    instrument_priors,
    value_of,
)
from pncbayes.physics.modelfile import LogNormal, find_model_files
from pncbayes.physics.structured_emission import recorder_of
from pncbayes.physics.structured_file import load_structured, structured_names
from pncbayes.physics.structures import Normal, Uniform


@pytest.fixture(autouse=True)
def fewer_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the moves of walkers: enough for answers that leave no doubt."""
    monkeypatch.setattr(structured_evidence, "_SWEEPS", 30)


def posterior(name: str, kind: str = "auger", n_levels: int = 0) -> StructuredPosterior:
    trace = dot_trace(kind)
    counts = trace["counts"].to_numpy().astype(float)
    model = load_structured(name).variants()[n_levels]
    return StructuredPosterior(model, counts, 0.01, recorder_of(trace), instrument_priors(trace))


@pytest.mark.parametrize("prior", [LogNormal(3.0, 0.7), Uniform(0.3, 1.0), Normal(-1.0, 2.0)])
def test_coordinates_are_standard_normal_quantiles(prior: LogNormal | Uniform | Normal) -> None:
    z = np.array([-1.5, 0.0, 0.7])
    law = {
        LogNormal: lambda: stats.lognorm(0.7, scale=3.0),
        Uniform: lambda: stats.uniform(0.3, 0.7),
        Normal: lambda: stats.norm(-1.0, 2.0),
    }[type(prior)]()
    values = value_of(prior, z)
    np.testing.assert_allclose(law.cdf(values), stats.norm.cdf(z))
    np.testing.assert_allclose([coordinate_of(prior, v) for v in values], z, atol=1e-6)


def test_of_one_state_the_bound_is_exact() -> None:
    """Photons are all its own: Poisson totals, and gates Dirichlet-multinomial over all bins."""
    one = posterior("steady", "steady")
    rng = np.random.default_rng(2)
    z = 0.5 * rng.standard_normal(one.size)
    z[one.names.index("exciton_rate_per_s")] = coordinate_of(one.priors["exciton_rate_per_s"], 15e3)
    z[one.names.index("decay_concentration")] = -1.0
    gates, _, kappa = one.rates(z)
    seconds, photons = len(one.counts) * 0.01, one.counts.sum(axis=0)
    total, centre = gates.sum(), kappa * gates[0] / gates.sum()
    n = photons.sum()
    exact = n * np.log(total * 0.01) - total * seconds
    exact += gammaln(kappa) - gammaln(kappa + n)
    exact += (gammaln(centre + photons) - gammaln(centre)).sum() - gammaln(one.counts + 1.0).sum()
    exact += stats.norm.logpdf(z).sum()
    found = one.settled(z)
    np.testing.assert_allclose(found.photons[0], photons, rtol=1e-9)
    assert found.value == pytest.approx(exact, abs=1e-5)
    # any other guess of the photons is below
    assert one.bound(z, 0.5 * photons[None], with_slope=False).value < exact - 1.0


@pytest.mark.parametrize("name", structured_names())
def test_slope_is_that_of_differences(name: str) -> None:
    one = posterior(name)
    z = 0.4 * np.random.default_rng(6).standard_normal(one.size)
    photons = one.settled(z).photons
    found = one.bound(z, photons)
    step = 1e-4 * np.eye(one.size)

    def value(at: np.ndarray) -> float:
        return one.bound(at, photons, with_slope=False, with_photons=False).value

    differences = np.array([(value(z + e) - value(z - e)) / 2e-4 for e in step])
    np.testing.assert_allclose(found.slope, differences, atol=1e-5 * abs(differences).max())
    assert value(z) == pytest.approx(found.value, abs=1e-6)
    assert np.linalg.eigvalsh(found.information)[0] > 0.99


def test_points_that_no_dot_has_are_impossible() -> None:
    one = posterior("auger")
    z = np.zeros(one.size)
    z[0] = 9.0
    assert one.bound(z, np.zeros((one.model.n_states, one.counts.shape[1]))).value == -np.inf


@cache
def comparison(kind: str) -> ModelComparison:
    models = ["steady", "auger", "hot_carrier", "nbc"]
    fixed = [load_structured(name).variants()[0] for name in models]
    return pnc.compare_models(dot_trace(kind), fixed, random_seed=2, progressbar=False)


@pytest.mark.parametrize(
    "kind", ["auger", *(pytest.param(k, marks=pytest.mark.slow) for k in ("hot_carrier", "nbc"))]
)
def test_the_true_mechanism_wins(kind: str) -> None:
    found = comparison(kind)
    assert found.best == kind
    assert found.probability[kind] > 0.9
    assert found.probability.sum() == pytest.approx(1.0)
    assert found.mechanisms[kind] == pytest.approx(found.probability[kind])
    best = found.variants.set_index("model").loc[kind]
    assert abs(best["log_evidence"] - best["log_evidence_laplace"]) < 2.0
    assert best["effective_draws"] > 50
    table = found.parameters()
    up, down = ("activate", "deactivate") if kind == "nbc" else ("trap", "detrap")
    for rate, true in ((f"k_{up}_per_s", 5.0), (f"k_{down}_per_s", 8.0)):
        assert abs(table.loc[rate, "mean"] - true) < 4.0 * table.loc[rate, "sd"]
        assert table.loc[rate, "sd"] < 0.4 * true
    assert abs(table.loc["exciton_lifetime_ns", "mean"] - 6.0) < 0.3
    states = found.states()
    assert states.loc["exciton", "rate_per_s"] == pytest.approx(15.0e3, rel=0.02)
    assert states["occupancy"].sum() == pytest.approx(1.0)
    # after background, 100 per s, like those of a fit
    total = dot_trace(kind)["counts"].values.sum() / dot_trace(kind).attrs["duration_s"]
    assert (states["rate_per_s"] * states["occupancy"]).sum() == pytest.approx(
        total - 100.0, rel=3e-3
    )


def test_named_physics_is_found() -> None:
    auger = comparison("auger").parameters("auger")
    assert auger.loc["k_auger_per_ns", "q05"] < 2.11 < auger.loc["k_auger_per_ns", "q95"]
    trap = comparison("hot_carrier").parameters("hot_carrier")
    assert trap.loc["hot_carrier_yield", "mean"] == pytest.approx(0.2, abs=0.02)
    centre = comparison("nbc").parameters("nbc")
    assert centre.loc["k_centre_per_ns", "mean"] == pytest.approx(1 / 1.2 - 1 / 6.0, rel=0.1)


def test_a_steady_dot_is_steady() -> None:
    # a few seconds cannot rule out traps that are rarely filled
    found = comparison("steady")
    assert found.best == "steady"
    assert found.probability["steady"] > 0.7


def test_same_seed_same_numbers() -> None:
    models = [load_structured("auger").variants()[0]]
    first, second = (
        pnc.compare_models(dot_trace("auger"), models, random_seed=2, progressbar=False)
        for _ in range(2)
    )
    assert first.variants.equals(second.variants)


def test_contradiction_with_the_fit_is_said() -> None:
    """Two hypotheses of which none is true, against a fit that names the true mechanism."""
    fit = pnc.fit(
        dot_trace("auger"), max_states=2, random_seed=1, dynamics=False, progressbar=False
    )
    assert fit.mechanisms is not None
    assert fit.mechanisms["auger"] > 0.8
    models = [load_structured("nbc").variants()[0], "steady"]
    found = pnc.compare_models(
        dot_trace("auger"), models, fit=fit, random_seed=1, progressbar=False
    )
    assert any(text.startswith("contradiction: auger") for text in found.warnings)
    agreeing = [load_structured("auger").variants()[0]]
    found = pnc.compare_models(
        dot_trace("auger"), agreeing, fit=fit, random_seed=1, progressbar=False
    )
    assert not any("contradiction" in text for text in found.warnings)


def test_more_states_than_any_model_are_said() -> None:
    fit = pnc.fit(
        dot_trace("auger"), max_states=2, random_seed=1, dynamics=False, progressbar=False
    )
    found = pnc.compare_models(
        dot_trace("auger"), "steady", fit=fit, random_seed=1, progressbar=False
    )
    assert any("2 states and no model compared more than 1" in text for text in found.warnings)
    # a steady light cannot look like a blinking one
    assert any("predictive check failed" in text for text in found.warnings)


def test_other_beliefs_than_those_of_the_parts_are_said() -> None:
    shipped = [load_structured(name) for name in structured_names()]
    assert _other_beliefs(shipped) == []
    auger, nbc = load_structured("auger"), load_structured("nbc")
    other = replace(
        nbc, slack=0.2, instrument={**nbc.instrument, "scatter_share": LogNormal(0.1, 1.0)}
    )
    (said,) = _other_beliefs([auger, nbc, other])
    assert said.startswith(
        "priors of [instrument] scatter_share, [decay] slack differ between 'auger' and 'nbc'"
    )


def test_own_file_is_compared_by_its_path(tmp_path: Path) -> None:
    text = find_model_files()["nbc"].read_text(encoding="utf-8")
    path = tmp_path / "fast.toml"
    text = text.replace('name = "nbc"', 'name = "fast"').replace("[2, 3]", "2")
    path.write_text(text, encoding="utf-8")
    found = pnc.compare_models(dot_trace("nbc"), [path], random_seed=1, progressbar=False)
    assert list(found.probability.index) == ["fast"]
    with pytest.raises(ValueError, match=r"must be one of those compared, fast, got 'nbc'"):
        found.parameters("nbc")


def test_wrong_arguments_are_refused() -> None:
    trace = dot_trace("auger")
    with pytest.raises(ModelFileError, match="has free decays"):
        pnc.compare_models(trace, ["free"])
    with pytest.raises(ValueError, match="`models` must be a list of names"):
        pnc.compare_models(trace, [])
    with pytest.raises(ValueError, match="names of their own, got nbc, nbc"):
        pnc.compare_models(trace, ["nbc", "nbc"])
    with pytest.raises(ValueError, match="`fit` must be a result"):
        pnc.compare_models(trace, ["nbc"], fit=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no delays, and brightness alone"):
        pnc.compare_models(trace.isel(gate=[3]).assign_attrs(digest="", path=""), ["nbc"])
