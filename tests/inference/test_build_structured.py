"""PyMC models of structured hypotheses against the posterior that the evidence is made of."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from dim_state_dots import dot_trace
from scipy import stats

with warnings.catch_warnings():
    # importing PyMC may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import pymc as pm

import pncbayes as pnc
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.structured import StructuredPosterior, instrument_priors
from pncbayes.inference.structured_pymc import structured_model_of
from pncbayes.physics.structured_emission import recorder_of
from pncbayes.physics.structured_file import load_structured

QUICK = {"mode": "FAST_COMPILE"}


def posterior(name: str) -> StructuredPosterior:
    trace = dot_trace("auger", 2.0)
    counts = trace["counts"].to_numpy().astype(float)
    model = load_structured(name).variants()[0]
    return StructuredPosterior(model, counts, 0.01, recorder_of(trace), instrument_priors(trace))


@cache
def built(kind: str = "hot_carrier") -> pm.Model:
    return pnc.build(dot_trace(kind, 2.0), kind, width_s=0.01, scatter=False, random_seed=1)


@pytest.mark.parametrize("name", ["auger", "two_emitters"])
def test_density_is_that_of_priors_and_likelihood(name: str) -> None:
    one = posterior(name)
    model = structured_model_of(one, scatter=False)
    rng = np.random.default_rng(3)
    z = 0.4 * rng.standard_normal(one.size)
    values, deviations = one.values(z), one.deviations(z)
    given = {**values, "lifetime_deviation": deviations}
    gates, rates, _ = one.rates(z)
    expected = BinnedLikelihood(one.counts, 0.01).value(gates, rates)
    expected += stats.norm.logpdf(deviations).sum()
    free = {variable.name for variable in model.free_RVs}
    assert free == (set(one.names) | {"lifetime_deviation"}) - {"decay_concentration"}
    for key, prior in one.priors.items():
        if key == "decay_concentration":
            continue
        value = float(values[key])
        if hasattr(prior, "median"):
            expected += stats.lognorm.logpdf(value, prior.sigma, scale=prior.median)
        elif hasattr(prior, "low"):
            expected -= np.log(prior.high - prior.low)
        else:
            expected += stats.norm.logpdf(value, prior.mean, prior.sd)
    logp = model.compile_fn(model.logp(jacobian=False), mode="FAST_COMPILE")
    point = {}
    for variable, of_value in model.rvs_to_values.items():
        if variable not in model.free_RVs:
            continue
        transform = model.rvs_to_transforms[variable]
        value = np.asarray(given[variable.name])
        if transform is not None:
            value = transform.forward(value, *variable.owner.inputs).eval()
        point[of_value.name] = value
    assert float(logp(point)) == pytest.approx(float(expected), rel=1e-9)


def test_prior_draws_are_physical() -> None:
    with warnings.catch_warnings():
        # PyMC warns that potentials are ignored: here, the likelihood
        warnings.simplefilter("ignore", UserWarning)
        drawn = pm.sample_prior_predictive(50, model=built(), random_seed=1, compile_kwargs=QUICK)[
            "prior"
        ]
    rate, moves = drawn["rate_per_s"].values, drawn["transition_rate_per_s"].values
    assert (rate > 0.0).all()
    assert (moves >= 0.0).all()
    # a trap that is open takes light away
    assert (rate[..., 1] < rate[..., 0]).all()
    assert ((drawn["hot_carrier_yield"].values > 0) & (drawn["hot_carrier_yield"].values < 1)).all()
    ratio = drawn["transition_rate_per_s"].values[..., 0, 1] / drawn["k_trap_per_s"].values
    np.testing.assert_allclose(ratio, 1.0)


@pytest.mark.parametrize("sampler", ["nutpie", "numpyro"])
def test_samplers_find_what_is_true(sampler: str) -> None:
    if sampler == "numpyro":
        pytest.importorskip("numpyro")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = pm.sample(
            draws=150, tune=200, chains=1, model=built(), nuts_sampler=sampler, random_seed=1,
            progressbar=False, compute_convergence_checks=False,
            **({"nuts_sampler_kwargs": {}, "compile_kwargs": {"jitter_rvs": set()}}
               if sampler == "nutpie" else {}),
        )["posterior"]  # fmt: skip
    assert float(draws["hot_carrier_yield"].mean()) == pytest.approx(0.2, abs=0.04)
    assert float(draws["exciton_lifetime_ns"].mean()) == pytest.approx(6.0, abs=0.4)
    assert 2.0 < float(draws["k_trap_per_s"].mean()) < 10.0


def test_a_known_lifetime_is_a_condition() -> None:
    known: Any = pm.observe(built(), {"exciton_lifetime_ns": 6.0})
    names = {variable.name for variable in known.free_RVs}
    assert "exciton_lifetime_ns" not in names
    assert "hot_carrier_yield" in names


def test_numbers_of_states_that_no_parts_make_are_refused() -> None:
    trace = dot_trace("auger", 2.0)
    with pytest.raises(ValueError, match=r"must be one of 2, 3 in the model 'auger', got 4"):
        pnc.build(trace, "auger", n_states=4)
    with pytest.raises(ValueError, match=r"must be one of 2, 3 in the model 'auger', got \[2\]"):
        pnc.build(trace, "auger", n_states=[2])
    with pytest.raises(ValueError, match="counts are Poisson"):
        pnc.build(trace, "auger", excess_noise=True)
    three = pnc.build(trace, "auger", n_states=3, width_s=0.01, scatter=False, random_seed=1)
    assert list(three.coords["state"]) == ["exciton", "charge 1", "charge 2"]
