"""The PyMC model against the posterior that the evidence is made of, and NUTS against its draws."""

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.special import gammaln

with warnings.catch_warnings():
    # importing PyMC may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import nutpie  # noqa: F401
    import pymc as pm
    import pytensor
    import pytensor.tensor as pt

import pncbayes
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.build import build
from pncbayes.inference.collapsed import CollapsedPosterior, working_posterior
from pncbayes.inference.grid import Grid
from pncbayes.inference.levels import DecreasingShares, exchangeable_rates, relative_levels
from pncbayes.inference.nuts import parameters_of, sample_nuts
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.pymc_model import initial_point, model_data, model_of
from pncbayes.inference.scan import scan_n_states
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.camera import camera_trace
from pncbayes.physics.modelfile import LogNormal, load_model
from pncbayes.physics.simulate import simulate
from pncbayes.physics.simulated_dot import SimulatedState

# PyTensor without a compiler: for graphs that are evaluated a few times only
QUICK = {"mode": "FAST_COMPILE"}
WIDTH_S = 0.005

pytestmark = pytest.mark.filterwarnings("ignore:.*response was estimated.*")


@cache
def dot_counts(n_gates: int, n_states: int = 2, n_bins: int = 1500) -> Any:
    """Counts of a dot that dwells some 0.2 s on each level, switches at the edges of bins."""
    random = np.random.default_rng(n_gates)
    rate = np.geomspace(8e3, 1.5e3, n_states)
    shape = np.exp(-np.arange(n_gates) * np.linspace(2.0, 6.0, n_states)[:, None] / n_gates)
    shape /= shape.sum(axis=1, keepdims=True)
    states = np.repeat(np.arange(n_bins) % n_states, random.geometric(0.025, n_bins))[:n_bins]
    return random.poisson((rate[:, None] * shape)[states] * WIDTH_S).astype(float)


def dot_posterior(n_states: int, n_gates: int, family: str = "poisson") -> Posterior:
    counts = dot_counts(n_gates)
    camera = None
    if family == "camera":
        camera = (2.0, 100.0, 3.0, 1.4)
        counts = 100.0 + 2.0 * counts
    likelihood = BinnedLikelihood(
        counts, WIDTH_S, n_nodes=5, excess_noise=family == "excess", camera=camera
    )
    return Posterior(likelihood, load_model("free"), n_states)


def densities(model: pm.Model, posterior: Posterior) -> Any:
    """Function of the free coordinates: log density, log coordinates of the posterior, base.

    To the coordinates are added, with delays, those of the base shape: log of each share over the
    last.
    """
    names = ["gate_rate_per_s", "transition_rate_per_s"]
    names += [
        name
        for name in ("decay_concentration", "excess_variance_ratio")
        if name in model.named_vars
    ]
    gate_rate, rates, *rest = model.replace_rvs_by_values([model[name] for name in names])
    off_diagonal = np.flatnonzero(~np.eye(posterior.n_states, dtype=bool))
    coordinates = [gate_rate.ravel(), rates.ravel()[off_diagonal], *(part.ravel() for part in rest)]
    base = pt.ones(1)
    if posterior.n_gates > 1:
        (base,) = model.replace_rvs_by_values([model["base_gate_probability"]])
        coordinates.append(base[:-1] / base[-1])
    flat = pt.dvector()
    start = model.initial_point()
    given, taken = {}, 0
    for variable in model.value_vars:
        shape = start[variable.name].shape
        size = int(np.prod(shape))
        given[variable] = flat[taken : taken + size].reshape(shape)
        taken += size
    outputs = [model.logp(), pt.log(pt.concatenate(coordinates)), base]
    outputs = pytensor.graph.replace.clone_replace(outputs, given)
    x = np.concatenate([np.ravel(start[variable.name]) for variable in model.value_vars])
    return pytensor.function([flat], outputs, mode="FAST_COMPILE"), x


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("n_states", "n_gates", "family"),
    [
        (1, 1, "poisson"),
        (2, 1, "poisson"),
        (4, 1, "poisson"),
        (1, 3, "poisson"),
        (3, 4, "poisson"),
        (2, 3, "excess"),
        (3, 1, "camera"),
    ],
)
def test_density_is_that_of_the_posterior(
    n_states: int, n_gates: int, family: str, ordered: bool
) -> None:
    posterior = dot_posterior(n_states, n_gates, family)
    function, start = densities(model_of(posterior, ordered=ordered), posterior)
    x = start + np.random.default_rng(0).normal(0.0, 0.4, start.size)
    found, vector, base = function(x)
    step = 1e-5
    jacobian = [
        (function(x + move)[1] - function(x - move)[1]) / (2.0 * step)
        for move in step * np.eye(x.size)
    ]
    posterior.base = base
    expected = posterior.log_density(vector[: posterior.size])
    expected += np.linalg.slogdet(np.array(jacobian))[1]
    if n_gates > 1:
        # the base shape is uniform
        expected += gammaln(n_gates) + np.log(base).sum()
    if ordered:
        expected += gammaln(n_states + 1)
    assert float(found) == pytest.approx(expected, rel=1e-11, abs=1e-6)


@pytest.mark.parametrize("repulsion", [0.0, 1.0, 2.5])
def test_prior_draws_of_levels_have_the_prior_density(repulsion: float) -> None:
    # moments of the draws against moments under the density, by quadrature over a triangle
    with pm.Model(coords={"level": range(2)}) as model:
        levels = relative_levels("levels", 2, repulsion, dims="level")
    draws = pm.draw(levels, 3000, mode="FAST_COMPILE", random_seed=1)
    assert (draws[:, 0] > draws[:, 1]).all()
    assert draws.min() > 0.0
    assert draws.max() < 1.0
    value = pt.dvector()
    logp = pytensor.function([value], pm.logp(levels, value), mode="FAST_COMPILE")
    nodes, weights = np.polynomial.legendre.leggauss(20)
    nodes, weights = 0.5 * (nodes + 1.0), 0.5 * weights
    total, mean, square = 0.0, np.zeros(2), np.zeros(2)
    for x, wx in zip(nodes, weights, strict=True):
        for y, wy in zip(nodes, weights, strict=True):
            point = np.array([x, x * y])
            mass = wx * wy * x * np.exp(float(logp(point)))
            total, mean, square = total + mass, mean + mass * point, square + mass * point**2
    assert total == pytest.approx(1.0, abs=1e-4)
    error = np.sqrt((square - mean**2) / len(draws))
    assert (np.abs(draws.mean(axis=0) - mean) < 4.0 * error).all()
    np.testing.assert_allclose((draws**2).mean(axis=0), square, atol=0.03)
    assert float(logp(np.array([0.2, 0.4]))) == -np.inf
    assert model["levels"].eval({}, mode="FAST_COMPILE").shape == (2,)


def test_exchangeable_rates_have_no_order() -> None:
    prior = LogNormal(1e4, 0.5)
    with pm.Model(coords={"state": range(3)}):
        rates = exchangeable_rates("rates", prior, 3, 0.0, dims="state")
    draws = pm.draw(rates, 3000, mode="FAST_COMPILE", random_seed=1)
    share = np.bincount(draws.argmax(axis=1), minlength=3) / len(draws)
    np.testing.assert_allclose(share, 1 / 3, atol=0.04)
    logs = np.log(draws.max(axis=1))
    assert logs.mean() == pytest.approx(np.log(1e4), abs=0.04)
    assert logs.std() == pytest.approx(0.5, abs=0.03)


def test_transform_of_levels() -> None:
    transform = DecreasingShares()
    levels = np.array([0.9, 0.5, 0.02])
    x = pt.dvector()
    backward = pytensor.function([x], transform.backward(x), mode="FAST_COMPILE")
    at = transform.forward(pt.as_tensor(levels)).eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(backward(at), levels, rtol=1e-12)
    step = 1e-6 * np.eye(3)
    jacobian = [(backward(at + move) - backward(at - move)) / 2e-6 for move in step]
    log_jacobian = transform.log_jac_det(pt.as_tensor(at)).eval(mode="FAST_COMPILE")
    assert float(log_jacobian) == pytest.approx(np.linalg.slogdet(np.array(jacobian))[1], abs=1e-7)


@pytest.mark.parametrize(("n_states", "n_gates"), [(1, 1), (2, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("ordered", [True, False])
def test_initial_point_is_the_point_given(n_states: int, n_gates: int, ordered: bool) -> None:
    posterior = dot_posterior(n_states, n_gates)
    random = np.random.default_rng(0)
    rates = random.uniform(1.0, 9.0, (n_states, n_states)) * (1.0 - np.eye(n_states))
    shape = random.dirichlet(50.0 * posterior.pooled, n_states)
    start = Parameters(np.geomspace(8e3, 2e3, n_states)[:, None] * shape, rates, 90.0, None)
    model = model_of(posterior, ordered=ordered, start_rate_per_s=start.rate_per_s)
    names = ["gate_rate_per_s", "transition_rate_per_s", "rate_per_s"]
    given = {model[name]: value for name, value in initial_point(model, start).items()}
    assert set(given) == set(model.free_RVs)
    gate_rate, found, _ = pytensor.function(
        [],
        pytensor.graph.replace.clone_replace(
            [model[name] for name in names],
            {rv: pt.as_tensor(value) for rv, value in given.items()},
        ),
        mode="FAST_COMPILE",
    )()
    np.testing.assert_allclose(gate_rate, start.gate_rate_per_s, rtol=1e-6)
    np.testing.assert_allclose(found, rates, rtol=1e-9)


def test_initial_point_keeps_off_the_edge() -> None:
    # levels that coincide, and a rate of zero
    posterior = dot_posterior(3, 3)
    rates = np.array([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0], [1e-5, 3.0, 0.0]])
    start = Parameters(np.full((3, 3), 1e3), rates, 90.0, None)
    model = model_of(posterior)
    fn = pm.initial_point.make_initial_point_fn(
        model=model, overrides=initial_point(model, start), jitter_rvs=set()
    )
    assert all(np.isfinite(value).all() for value in fn(0).values())


@cache
def photons() -> Any:
    bright = SimulatedState(rate_per_s=1.2e4, lifetimes_ns=(20.0,), amplitudes=(1.0,))
    dim = SimulatedState(rate_per_s=2e3, lifetimes_ns=(4.0,), amplitudes=(1.0,))
    return simulate([bright, dim], [6.0, 8.0], 3.0, period_ns=200.0, random_seed=1).photons


@cache
def built() -> pm.Model:
    """Two states of photons with delays: made once."""
    return build(photons(), n_states=2, random_seed=1)


def test_build_names_everything() -> None:
    model = built()
    free = {
        variable.name: model.named_vars_to_dims.get(variable.name) for variable in model.free_RVs
    }
    assert free == {
        "brightest_rate_per_s": None,
        "relative_brightness": ("dimmer_state",),
        "gate_probability": ("state", "gate"),
        "base_gate_probability": ("gate",),
        "decay_concentration": None,
        "exit_rate_per_s": ("state",),
    }
    dims = {
        variable.name: model.named_vars_to_dims[variable.name] for variable in model.deterministics
    }
    assert dims == {
        "rate_per_s": ("state",),
        "gate_rate_per_s": ("state", "gate"),
        "transition_rate_per_s": ("state", "to_state"),
    }
    assert pncbayes.build is build


def test_build_starts_near_the_truth() -> None:
    model = built()
    start = model.initial_point()
    assert np.exp(start["brightest_rate_per_s_log__"]) == pytest.approx(1.2e4, rel=0.1)
    assert np.isfinite(model.compile_logp(**QUICK)(start))


def test_prior_draws_of_the_parameters() -> None:
    with warnings.catch_warnings():
        # that potentials are ignored: the likelihood is one
        warnings.simplefilter("ignore", UserWarning)
        tree = pm.sample_prior_predictive(300, model=built(), compile_kwargs=QUICK, random_seed=1)
    prior = tree["prior"]
    assert prior["gate_probability"].sizes["gate"] == prior.sizes["gate"] > 10
    np.testing.assert_allclose(prior["gate_probability"].sum("gate"), 1.0)
    spec = load_model("free").exit_rate_per_s
    logs = np.log(prior["exit_rate_per_s"].values)
    assert logs.mean() == pytest.approx(np.log(spec.median), abs=0.3)
    assert logs.std() == pytest.approx(spec.sigma, rel=0.15)
    rate = prior["rate_per_s"].values
    assert (rate[..., 0] > rate[..., 1]).all()


def test_no_slope_at_the_start_is_zero() -> None:
    """Samplers take that for an error, and so did nutpie without jitter."""
    posterior = dot_posterior(2, 12)
    model = model_of(posterior)
    slopes = model.compile_dlogp(mode="FAST_COMPILE")(model.initial_point())
    assert np.isfinite(slopes).all()
    assert (slopes != 0.0).all()


def test_a_condition_and_a_prior_take_two_lines() -> None:
    model = built()
    fixed = pm.do(model, {"decay_concentration": 150.0})
    known = pm.observe(fixed, {"brightest_rate_per_s": 1.2e4})
    names = {variable.name for variable in known.free_RVs}
    decay = {"gate_probability", "base_gate_probability"}
    assert names == {"relative_brightness", "exit_rate_per_s"} | decay
    point = known.initial_point()
    before = float(known.compile_logp(**QUICK)(point))
    with known:
        pm.Potential("dim", pm.logp(pm.Normal.dist(400.0, 50.0), known["rate_per_s"][1]))
    assert float(known.compile_logp(**QUICK)(point)) < before


def test_data_can_be_changed() -> None:
    model = model_of(dot_posterior(2, 3))
    counts = np.random.default_rng(5).poisson(3.0, (700, 3)).astype(float)
    other = Posterior(BinnedLikelihood(counts, 0.002, n_nodes=6), load_model("free"), 2)
    pm.set_data(model_data(other), model=model)
    fresh = model_of(other)
    point = fresh.initial_point()
    expected = float(fresh.compile_logp(**QUICK)(point))
    assert float(model.compile_logp(**QUICK)(point)) == pytest.approx(expected, rel=1e-12)


def test_one_state() -> None:
    model = build(photons(), "steady", width_s=0.01)
    names = {variable.name for variable in model.free_RVs}
    decay = {"decay_concentration", "gate_probability", "base_gate_probability"}
    assert names == {"brightest_rate_per_s"} | decay
    assert np.isfinite(model.compile_logp(**QUICK)(model.initial_point()))


def test_width_and_kinds_of_data() -> None:
    trace = bin_photons(photons(), 0.02)
    assert float(build(trace, "steady", width_s=0.004)["width_s"].eval()) == 0.004
    assert float(build(trace, "steady", width_s=0.02)["width_s"].eval()) == 0.02
    camera = camera_trace(
        dot_counts(1)[:, 0], 0.01, gain=1.0, offset=0.0, read_noise=1.0, excess_factor=1.0
    )
    model = build(camera, n_states=2)
    assert "gate_probability" not in model.named_vars
    with pytest.raises(ValueError, match="no photons to bin anew"):
        build(camera, width_s=0.001)


@pytest.mark.parametrize("n_states", [0, 99, 2.5, True])
def test_wrong_number_of_states(n_states: Any) -> None:
    with pytest.raises(ValueError, match="`n_states` must be"):
        build(photons(), n_states=n_states)
    with pytest.raises(ValueError, match="`n_states` must be 1 to 1 in the model 'steady'"):
        build(photons(), "steady", n_states=2)


def test_wrong_data() -> None:
    with pytest.raises(ValueError, match="`data` must be Photons, a trace or the path"):
        build(np.ones(3))  # type: ignore[arg-type]


def compare(posterior: Posterior, counts: Any) -> None:
    """NUTS against the draws behind the evidence: means and spreads within their errors."""
    rng = np.random.default_rng(1)
    posterior = working_posterior(posterior.likelihood, posterior.model, posterior.n_states)
    [evidence] = scan_n_states(
        posterior.likelihood, counts, posterior.model, [posterior.n_states], rng, n_draws=1500
    )
    grid = Grid(counts, WIDTH_S, 0.0, 0.0)
    draws, stats = sample_nuts(
        grid, xr.Dataset(), posterior.model, posterior, evidence, rng, progressbar=False
    )
    assert stats["divergences"] <= 5
    assert stats["r_hat"] < 1.05
    assert stats["ess"] > 150
    assert len(draws) <= 400

    def unpacked(vector: Any) -> Parameters:
        if isinstance(posterior, CollapsedPosterior):
            return posterior.unpack_draw(vector, rng)
        return posterior.unpack(vector)

    def table(points: list[Parameters]) -> Any:
        columns = []
        for point in (each.ordered() for each in points):
            rates = point.transition_rate_per_s[~np.eye(point.n_states, dtype=bool)]
            shape = point.gate_rate_per_s[:, :3].ravel()
            columns.append(np.log(np.concatenate([point.rate_per_s, rates, shape])))
        return np.array(columns)

    ours, theirs = table(draws), table([unpacked(vector) for vector in evidence.draws])
    spread = theirs.std(axis=0)
    independent = min(evidence.effective_draws, 400.0)
    error = spread * np.sqrt(1.0 / min(stats["ess"], len(draws)) + 1.0 / independent)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4.0 * error).all()
    np.testing.assert_allclose(ours.std(axis=0) / spread, 1.0, atol=0.3)


def test_nuts_agrees_with_the_evidence() -> None:
    compare(dot_posterior(2, 1), dot_counts(1))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["poisson", "excess"])
def test_nuts_agrees_with_the_evidence_with_delays(family: str) -> None:
    compare(dot_posterior(2, 6, family), dot_counts(6))


@pytest.mark.slow
def test_nuts_agrees_with_the_evidence_for_three_levels() -> None:
    counts = dot_counts(1, 3)
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=8)
    compare(Posterior(likelihood, load_model("free"), 3), counts)


@pytest.fixture
def double() -> Iterator[None]:
    """Have 64 bits in JAX, which PyMC's JAX samplers switch on, and restore afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        pytest.importorskip("numpyro")
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.filterwarnings("ignore")
def test_numpyro_samples_it() -> None:
    posterior = dot_posterior(2, 1)
    tree = pm.sample(
        100,
        tune=200,
        chains=1,
        nuts_sampler="numpyro",
        model=model_of(posterior, start_rate_per_s=np.array([8e3, 1.5e3])),
        random_seed=1,
        progressbar=False,
        compute_convergence_checks=False,
    )
    rate = np.array([point.rate_per_s for point in parameters_of(tree["posterior"].to_dataset())])
    np.testing.assert_allclose(rate.mean(axis=0), [8e3, 1.5e3], rtol=0.03)
