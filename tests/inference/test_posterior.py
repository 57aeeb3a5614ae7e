"""Prior and posterior density: normalisation, gradient, symmetry, closed forms."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import dirichlet, multivariate_t, norm

from pncbayes.hmm.likelihood import FASTEST_PER_BIN, BinnedLikelihood
from pncbayes.inference.collapsed import CollapsedPosterior, working_posterior
from pncbayes.inference.posterior import Parameters, Posterior, log_selberg
from pncbayes.physics.modelfile import LogNormal, ModelFile, load_model

Array = NDArray[np.float64]

WIDTH_S = 0.01


def some_counts(n_gates: int, n_bins: int = 60) -> Array:
    random = np.random.default_rng(n_gates)
    level = np.where(np.arange(n_bins) // 12 % 2, 60.0, 15.0)
    return random.poisson(level[:, None] * random.dirichlet(np.full(n_gates, 8.0))).astype(float)


def some_posterior(
    n_states: int, n_gates: int, *, excess_noise: bool = False, model: ModelFile | None = None
) -> Posterior:
    likelihood = BinnedLikelihood(some_counts(n_gates), WIDTH_S, excess_noise=excess_noise)
    return Posterior(likelihood, model or load_model("free"), n_states)


def some_vector(posterior: Posterior, seed: int = 0) -> Array:
    """A point around the data, all levels apart."""
    random = np.random.default_rng(seed)
    n_states = posterior.n_states
    rate = np.geomspace(6000.0, 1500.0, n_states) if n_states > 1 else np.array([3000.0])
    shape = random.dirichlet(100.0 * posterior.pooled, n_states)
    jumps = random.uniform(1.0, 20.0, (n_states, n_states)) * (1.0 - np.eye(n_states))
    excess = random.uniform(0.02, 0.3, n_states) if posterior.has_excess else None
    return posterior.pack(Parameters(rate[:, None] * shape, jumps, 120.0, excess))


SHAPES = [
    (1, 1, False),
    (1, 3, False),
    (2, 1, False),
    (2, 3, True),
    (3, 1, True),
    (3, 2, False),
    (4, 4, False),
    (5, 1, False),
]


@pytest.mark.parametrize(("n_states", "n_gates", "excess_noise"), SHAPES)
def test_pack_and_unpack(n_states: int, n_gates: int, excess_noise: bool) -> None:
    posterior = some_posterior(n_states, n_gates, excess_noise=excess_noise)
    vector = some_vector(posterior)
    assert vector.shape == (posterior.size,)
    expected_size = n_states * n_gates + n_states * (n_states - 1)
    assert posterior.size == expected_size + (n_gates > 1) + n_states * excess_noise
    point = posterior.unpack(vector)
    np.testing.assert_allclose(posterior.pack(point), vector, rtol=1e-13)
    assert point.n_states == n_states
    assert (np.diag(point.transition_rate_per_s) == 0.0).all()
    np.testing.assert_allclose(point.rate_per_s, point.gate_rate_per_s.sum(axis=1))
    np.testing.assert_allclose(point.exit_rate_per_s, point.transition_rate_per_s.sum(axis=1))
    assert np.isnan(point.concentration) == (n_gates == 1)
    assert (point.excess is None) == (not excess_noise)
    ordered = point.ordered()
    assert (np.diff(ordered.rate_per_s) <= 0).all()


def test_pack_fills_in_the_excess_it_does_not_know() -> None:
    posterior = some_posterior(2, 3, excess_noise=True)
    point = posterior.unpack(some_vector(posterior))
    unknown = Parameters(point.gate_rate_per_s, point.transition_rate_per_s, 50.0, None)
    found = posterior.unpack(posterior.pack(unknown)).excess
    assert found is not None
    np.testing.assert_allclose(found, posterior.model.excess_variance_ratio.median)


@pytest.mark.parametrize(("n_states", "n_gates", "excess_noise"), SHAPES)
def test_does_not_depend_on_the_order_of_states(
    n_states: int, n_gates: int, excess_noise: bool
) -> None:
    posterior = some_posterior(n_states, n_gates, excess_noise=excess_noise)
    vector = some_vector(posterior)
    prior, density = posterior.log_prior(vector)[0], posterior.log_density(vector)
    point = posterior.unpack(vector)
    for order in itertools.islice(itertools.permutations(range(n_states)), 8):
        permuted = vector[posterior.permutation(np.array(order))]
        assert posterior.log_prior(permuted)[0] == pytest.approx(prior, rel=1e-12)
        assert posterior.log_density(permuted) == pytest.approx(density, rel=1e-11)
        expected = posterior.pack(point.permuted(np.array(order)))
        np.testing.assert_allclose(permuted, expected, rtol=1e-12)


@pytest.mark.parametrize(("n_states", "n_gates", "excess_noise"), SHAPES)
@pytest.mark.parametrize("focused", [False, True])
def test_gradient_equals_finite_differences(
    n_states: int, n_gates: int, excess_noise: bool, focused: bool
) -> None:
    posterior = some_posterior(n_states, n_gates, excess_noise=excess_noise)
    vector = some_vector(posterior, seed=1)
    if focused:
        posterior.focus(vector, tolerance=0.5)
    prior, prior_slope = posterior.log_prior(vector)
    value, slope, parts = posterior.gradient(vector)
    assert value == pytest.approx(posterior.log_density(vector), rel=1e-11)
    assert value == pytest.approx(prior + parts.value, rel=1e-12)
    for i in range(vector.size):
        step = np.zeros(vector.size)
        step[i] = 1e-5
        up, down = posterior.log_prior(vector + step)[0], posterior.log_prior(vector - step)[0]
        assert prior_slope[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5)
        up, down = posterior.log_density(vector + step), posterior.log_density(vector - step)
        assert slope[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_focus_keeps_the_density() -> None:
    posterior = some_posterior(3, 4)
    vector = some_vector(posterior)
    dense = posterior.log_density(vector)
    posterior.focus(vector)
    assert posterior.active is not None
    assert posterior.log_density(vector) == pytest.approx(dense, abs=1e-8)


def log_normal(value: float | Array, prior: LogNormal) -> float:
    """Log density of the logarithm of a value, summed."""
    return float(norm.logpdf(np.log(value), np.log(prior.median), prior.sigma).sum())


def test_prior_of_one_state_in_closed_form() -> None:
    posterior = some_posterior(1, 3)
    model, vector = posterior.model, some_vector(posterior)
    point = posterior.unpack(vector)
    rate, concentration = point.rate_per_s[0], point.concentration
    shape = point.gate_rate_per_s[0] / rate
    expected = log_normal(rate, model.brightest_rate_per_s)
    expected += log_normal(concentration, model.decay_concentration)
    expected += dirichlet.logpdf(shape, concentration * posterior.base)
    # the Jacobian from brightness and shares to the logarithms of the gates
    expected += np.log(shape).sum()
    assert posterior.log_prior(vector)[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("repulsion", [0.5, 1.0, 2.0])
def test_prior_of_two_levels_in_closed_form(repulsion: float) -> None:
    """Without delays levels repel: at a share x the density is (1 + r) (1 - x)^r."""
    posterior = some_posterior(2, 1, model=replace(load_model("free"), repulsion=repulsion))
    model, vector = posterior.model, some_vector(posterior)
    point = posterior.unpack(vector)
    brightest, share = point.rate_per_s[0], point.rate_per_s[1] / point.rate_per_s[0]
    assert share < 1.0
    expected = -np.log(2.0) + log_normal(brightest, model.brightest_rate_per_s)
    expected += np.log((1.0 + repulsion) * (1.0 - share) ** repulsion * share)
    expected += log_normal(point.exit_rate_per_s, model.exit_rate_per_s)
    assert posterior.log_prior(vector)[0] == pytest.approx(expected, rel=1e-12)


def test_levels_repel_only_without_delays() -> None:
    for n_gates, equal_levels_are_possible in ((1, False), (3, True)):
        posterior = some_posterior(2, n_gates)
        vector = some_vector(posterior)
        point = posterior.unpack(vector)
        values = []
        for share in (0.5, 1.0 - 1e-9):
            gates = np.vstack([point.gate_rate_per_s[0], share * point.gate_rate_per_s[0]])
            near = replace(point, gate_rate_per_s=gates)
            values.append(posterior.log_prior(posterior.pack(near))[0])
        assert (values[1] > values[0] - 1.0) == equal_levels_are_possible


def test_prior_of_jumps_in_closed_form() -> None:
    """Where an exit leads to is Dirichlet; three states, one exit rate each."""
    model = replace(load_model("free"), jump_concentration=2.5)
    posterior = some_posterior(3, 1, model=model)
    vector = some_vector(posterior)
    other = posterior.pack(
        replace(
            posterior.unpack(vector),
            transition_rate_per_s=np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0], [0.2, 5.0, 0.0]]),
        )
    )
    expected = 0.0
    for sign, at in ((1.0, vector), (-1.0, other)):
        rates = posterior.unpack(at).transition_rate_per_s
        exits = rates.sum(axis=1)
        expected += sign * log_normal(exits, model.exit_rate_per_s)
        for k in range(3):
            jump = np.delete(rates[k], k) / exits[k]
            expected += sign * (dirichlet.logpdf(jump, [2.5, 2.5]) + np.log(jump).sum())
    found = posterior.log_prior(vector)[0] - posterior.log_prior(other)[0]
    assert found == pytest.approx(expected, rel=1e-10)


def ancestral_draws(posterior: Posterior, n_draws: int, random: np.random.Generator) -> Array:
    """Log coordinates drawn as the model file reads, without the repulsion."""
    model, n_states = posterior.model, posterior.n_states

    def log_normal_draw(prior: LogNormal, size: int) -> Array:
        return prior.median * np.exp(prior.sigma * random.standard_normal(size))

    vectors = []
    for _ in range(n_draws):
        rate = random.random(n_states)
        rate[random.integers(n_states)] = 1.0
        rate *= log_normal_draw(model.brightest_rate_per_s, 1)
        concentration = float(log_normal_draw(model.decay_concentration, 1)[0])
        shape = random.dirichlet(concentration * posterior.pooled, n_states)
        rates = np.zeros((n_states, n_states))
        for k in range(n_states):
            if n_states > 1:
                to = np.arange(n_states) != k
                jump = random.dirichlet(np.full(n_states - 1, model.jump_concentration))
                rates[k, to] = log_normal_draw(model.exit_rate_per_s, 1) * jump
        excess = (
            log_normal_draw(model.excess_variance_ratio, n_states) if posterior.has_excess else None
        )
        gates = np.maximum(rate[:, None] * shape, 1e-12)
        vectors.append(posterior.pack(Parameters(gates, rates, concentration, excess)))
    return np.array(vectors)


@pytest.mark.parametrize(
    ("n_states", "n_gates", "excess_noise"),
    [(1, 1, False), (2, 1, False), (1, 3, False), (2, 3, False), (1, 1, True), (3, 1, False)],
)
def test_prior_integrates_to_one(n_states: int, n_gates: int, excess_noise: bool) -> None:
    """By importance sampling from a Student t around draws made as the model file reads."""
    model = replace(
        load_model("free"),
        decay_concentration=LogNormal(60.0, 0.4),
        exit_rate_per_s=LogNormal(1.0, 1.0),
        jump_concentration=3.0,
    )
    posterior = some_posterior(n_states, n_gates, excess_noise=excess_noise, model=model)
    random = np.random.default_rng(3)
    drawn = ancestral_draws(posterior, 2000, random)
    proposal = multivariate_t(
        drawn.mean(axis=0), 1.2 * np.atleast_2d(np.cov(drawn.T)), df=5, seed=random
    )
    points = np.asarray(proposal.rvs(12_000)).reshape(-1, posterior.size)
    logs = np.array([posterior.log_prior(point)[0] for point in points])
    weights = np.exp(logs - np.atleast_1d(proposal.logpdf(points)))
    error = weights.std() / np.sqrt(weights.size)
    assert error < 0.03
    assert weights.mean() == pytest.approx(1.0, abs=4.0 * error)


@pytest.mark.parametrize("n_levels", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("repulsion", [0.0, 0.5, 1.0, 2.0])
def test_selberg_integral(n_levels: int, repulsion: float) -> None:
    """Levels uniform below a brightest one at 1, and the product of all distances."""
    random = np.random.default_rng(7)
    levels = np.hstack([random.random((200_000, n_levels)), np.ones((200_000, 1))])
    distances = np.ones(len(levels))
    for i, j in itertools.combinations(range(n_levels + 1), 2):
        distances *= np.abs(levels[:, i] - levels[:, j]) ** repulsion
    error = distances.std() / np.sqrt(distances.size)
    found = float(np.exp(log_selberg(n_levels, repulsion)))
    assert found == pytest.approx(distances.mean(), abs=5.0 * error + 1e-12)
    assert error < 0.02 * found


@pytest.mark.parametrize(("n_states", "n_gates", "excess_noise"), SHAPES)
def test_bounds_and_scales(n_states: int, n_gates: int, excess_noise: bool) -> None:
    posterior = some_posterior(n_states, n_gates, excess_noise=excess_noise)
    vector = some_vector(posterior)
    low, high = posterior.bounds()
    assert low.shape == high.shape == vector.shape
    assert ((low < vector) & (vector < high)).all()
    if n_states > 1:
        # within them the likelihood exists
        fastest = np.exp(high[posterior.rate_slice]).max() * (n_states - 1) * WIDTH_S
        assert fastest < FASTEST_PER_BIN
    _, _, parts = posterior.gradient(vector)
    curvature = posterior.curvature(vector, parts)
    assert curvature.shape == vector.shape
    assert (curvature > 0).all()


def test_scale_is_the_curvature_where_the_path_is_known() -> None:
    """One level and many photons: the curvature by a gate is its number of photons."""
    posterior = some_posterior(1, 1)
    photons = posterior.likelihood.totals.sum()
    vector = np.log([photons / (posterior.likelihood.n_bins * WIDTH_S)])
    _, centre, parts = posterior.gradient(vector)
    _, ahead, _ = posterior.gradient(vector + 1e-4)
    assert posterior.curvature(vector, parts)[0] == pytest.approx(photons, rel=1e-3)
    assert -(ahead - centre)[0] / 1e-4 == pytest.approx(photons, rel=1e-2)


def test_concentration_without_bounds_has_no_density() -> None:
    """Where the Dirichlet's normalisation is lost in rounding the prior says no, not NaN."""
    posterior = some_posterior(2, 3)
    vector = some_vector(posterior)
    vector[-1] = np.log(1e9)
    value, slope = posterior.log_prior(vector)
    assert value == -np.inf
    assert np.isfinite(slope).all()
    vector[-1] = np.log(1e-3)
    assert np.isfinite(posterior.log_prior(vector)[0])


@pytest.mark.parametrize("shift", [-25.0, 25.0])
def test_density_far_away_is_a_number(shift: float) -> None:
    posterior = some_posterior(2, 3)
    vector = some_vector(posterior)
    for i in range(posterior.size):
        far = vector.copy()
        far[i] += shift
        assert not np.isnan(posterior.log_density(far))
        assert not np.isnan(posterior.log_prior(far)[1]).any()


@pytest.mark.parametrize(("n_states", "excess_noise"), [(1, False), (3, True)])
def test_collapsed_prior_is_the_joint_one_integrated(n_states: int, excess_noise: bool) -> None:
    """Over base shape and concentration of two gates, by quadrature finer than the grid's."""
    joint = some_posterior(n_states, 2, excess_noise=excess_noise)
    collapsed = working_posterior(joint.likelihood, joint.model, n_states)
    assert isinstance(collapsed, CollapsedPosterior)
    assert collapsed.size == joint.size - 1
    prior = joint.model.decay_concentration
    logs = np.log(prior.median) + prior.sigma * np.linspace(-4.0, 4.0, 81)
    shares = (np.arange(500) + 0.5) / 500
    for seed in range(2):
        vector = some_vector(joint, seed)
        place = n_states * 2 + n_states * (n_states - 1)
        shortened = np.delete(vector, place)
        densities = []
        for share in shares:
            joint.base = np.array([share, 1.0 - share])
            for log_concentration in logs:
                vector[place] = log_concentration
                densities.append(joint.log_prior(vector)[0])
        expected = logsumexp(densities) + np.log(logs[1] - logs[0]) - np.log(shares.size)
        assert collapsed.log_prior(shortened)[0] == pytest.approx(expected, abs=0.03)
        # whatever base and concentration the gradient is taken at
        before = collapsed.log_prior(shortened)[0]
        collapsed.fix(collapsed.log_concentration + 1.0, np.array([0.3, 0.7]))
        assert collapsed.log_prior(shortened)[0] == pytest.approx(before, abs=1e-9)


def test_modes_at_different_bases_compare() -> None:
    """What a mode adds to its height makes up for what it is fixed at."""
    posterior = some_posterior(2, 4)
    collapsed = working_posterior(posterior.likelihood, posterior.model, 2)
    assert isinstance(collapsed, CollapsedPosterior)
    vector = np.delete(some_vector(posterior), 2 * 4 + 2)
    _, _, parts = collapsed.gradient(vector)
    photons = collapsed.expected_photons(vector, parts)
    np.testing.assert_allclose(photons.sum(axis=0), posterior.likelihood.gate_totals, rtol=1e-6)
    evidences = []
    for log_concentration in (4.0, 7.0):
        collapsed.fix(log_concentration, np.array([0.4, 0.3, 0.2, 0.1]))
        at_base = collapsed.decays.log_probability(photons, collapsed.base, log_concentration)
        evidences.append(collapsed.integrated_over_fixed(vector, parts) + at_base)
    assert evidences[0] == pytest.approx(evidences[1], abs=1e-9)
    collapsed.choose_concentration(vector, parts)
    chosen = collapsed.integrated_over_fixed(vector, parts)
    collapsed.fix(2.0, np.array([0.1, 0.2, 0.3, 0.4]))
    assert chosen < collapsed.integrated_over_fixed(vector, parts)


@pytest.mark.parametrize("excess_noise", [False, True])
def test_collapsed_posterior_packs_and_permutes(excess_noise: bool) -> None:
    joint = some_posterior(3, 4, excess_noise=excess_noise)
    collapsed = working_posterior(joint.likelihood, joint.model, 3)
    point = joint.unpack(some_vector(joint))
    vector = collapsed.pack(point)
    assert vector.shape == (collapsed.size,)
    np.testing.assert_allclose(collapsed.pack(collapsed.unpack(vector)), vector, rtol=1e-13)
    low, high = collapsed.bounds()
    assert ((low < vector) & (vector < high)).all()
    density = collapsed.log_density(vector)
    for order in itertools.permutations(range(3)):
        permuted = vector[collapsed.permutation(np.array(order))]
        np.testing.assert_allclose(permuted, collapsed.pack(point.permuted(np.array(order))))
        assert collapsed.log_density(permuted) == pytest.approx(density, rel=1e-11)


def test_collapsed_gradient_is_that_at_fixed_base_and_concentration() -> None:
    joint = some_posterior(2, 4, excess_noise=True)
    collapsed = working_posterior(joint.likelihood, joint.model, 2)
    assert isinstance(collapsed, CollapsedPosterior)
    base = np.array([0.4, 0.3, 0.2, 0.1])
    collapsed.fix(float(np.log(350.0)), base)
    joint.base = base
    point = replace(joint.unpack(some_vector(joint)), concentration=350.0)
    value, slope, parts = collapsed.gradient(collapsed.pack(point))
    expected, joint_slope, _ = joint.gradient(joint.pack(point))
    place = 2 * 4 + 2
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slope, np.delete(joint_slope, place), rtol=1e-12)
    assert (collapsed.curvature(collapsed.pack(point), parts) > 0).all()


def test_concentration_of_a_draw_follows_its_decays() -> None:
    """Decays that are all alike ask for a high concentration, others for a low one."""
    posterior = some_posterior(2, 4)
    collapsed = working_posterior(posterior.likelihood, posterior.model, 2)
    assert isinstance(collapsed, CollapsedPosterior)
    random = np.random.default_rng(0)
    point = posterior.unpack(some_vector(posterior))
    drawn = []
    for twist in (1e-3, 0.3):
        shape = collapsed.pooled * np.exp(twist * np.array([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
        gates = 3000.0 * shape / shape.sum(axis=1, keepdims=True)
        vector = collapsed.pack(replace(point, gate_rate_per_s=gates))
        draws = [collapsed.unpack_draw(vector, random) for _ in range(200)]
        np.testing.assert_allclose(draws[0].gate_rate_per_s, gates, rtol=1e-12)
        drawn.append(np.log([draw.concentration for draw in draws]))
    assert drawn[0].mean() > drawn[1].mean() + 1.0
    assert drawn[1].std() > 0.1


def test_nothing_is_collapsed_without_delays() -> None:
    posterior = some_posterior(2, 1)
    working = working_posterior(posterior.likelihood, posterior.model, 2)
    assert type(working) is Posterior
