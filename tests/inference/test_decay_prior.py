"""Decays around a base shape that nobody knows: integrals and draws against quadrature."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from scipy.special import gammaln, logsumexp

from pncbayes.inference.decay_draws import _draw_tables
from pncbayes.inference.decay_kernels import digamma, trigamma
from pncbayes.inference.decay_prior import DecayPrior
from pncbayes.physics.modelfile import load_model

Array = NDArray[np.float64]

MODEL = load_model("free")


def log_of_decays(shares: Array, base: Array, concentration: float) -> Array:
    """Log density of the logarithms of decays at base shapes, shape ``(n,)``."""
    n_states = len(shares)
    weight = concentration * base
    value = n_states * (gammaln(concentration) - gammaln(weight).sum(axis=1))
    return np.asarray(value + weight @ np.log(shares).sum(axis=0))


def log_of_photons(photons: Array, base: Array, concentration: float) -> Array:
    """Log probability of the gates of photons at base shapes, shape ``(n,)``."""
    weight = concentration * base
    value = np.zeros(len(base))
    for own in photons:
        value += gammaln(concentration) - gammaln(concentration + own.sum())
        value += (gammaln(weight + own) - gammaln(weight)).sum(axis=1)
    return value


def even_bases(n_gates: int) -> tuple[Array, float]:
    """Base shapes on a grid of midpoints, and the log of the uniform density times a cell."""
    if n_gates == 2:
        first = (np.arange(200_000) + 0.5) / 200_000
        return np.stack([first, 1.0 - first], axis=1), -np.log(200_000.0)
    n = 700
    one, two = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2)
    inside = one + two < 1.0 - 1e-9
    bases = np.stack([one[inside], two[inside], 1.0 - one[inside] - two[inside]], axis=1)
    return bases, float(np.log(2.0) - 2.0 * np.log(n))


@pytest.mark.parametrize("x", [1e-5, 0.1, 1.0, 7.3, 400.0, 1e6])
def test_digamma_and_trigamma(x: float) -> None:
    assert digamma(x) == pytest.approx(float(special.digamma(x)), rel=1e-12)
    assert trigamma(x) == pytest.approx(float(special.polygamma(1, x)), rel=1e-11)


@pytest.mark.parametrize("n_gates", [2, 3])
@pytest.mark.parametrize("n_states", [1, 2, 5])
def test_base_integrated_out_given_decays(n_states: int, n_gates: int) -> None:
    prior = DecayPrior(MODEL, n_states, n_gates)
    shares = np.random.default_rng(n_states).dirichlet(np.full(n_gates, 3.0), n_states)
    found, base = prior.given_decays(np.log(shares)[None])
    bases, log_cell = even_bases(n_gates)
    for cell in (0, 12, 24, 30):
        logs = log_of_decays(shares, bases, float(np.exp(prior.log_grid[cell])))
        expected = float(logsumexp(logs)) + log_cell + prior.log_prior[cell]
        assert found[0, cell] == pytest.approx(expected, abs=0.03)
        mean = np.exp(logs - logsumexp(logs)) @ bases
        np.testing.assert_allclose(base[0, cell], mean, atol=0.03)
    density = prior.log_density(np.log(shares)[None])[0]
    assert density == pytest.approx(float(logsumexp(found[0])) + np.log(0.25), rel=1e-12)


@pytest.mark.parametrize("n_gates", [2, 3])
@pytest.mark.parametrize("n_states", [1, 3])
def test_base_integrated_out_given_photons(n_states: int, n_gates: int) -> None:
    """Laplace's approximation: a gate costs some hundredths of a nat, and shares have a mode."""
    prior = DecayPrior(MODEL, n_states, n_gates)
    rng = np.random.default_rng(n_states)
    decay = rng.dirichlet(np.full(n_gates, 3.0), n_states)
    photons = rng.poisson(decay * rng.uniform(30, 400, (n_states, 1))).astype(float)
    found, base, curvature = prior.given_photons(photons)
    bases, log_cell = even_bases(n_gates)
    for cell in (4, 18, 24, 36):
        concentration = float(np.exp(prior.log_grid[cell]))
        logs = log_of_photons(photons, bases, concentration)
        expected = float(logsumexp(logs)) + log_cell + prior.log_prior[cell]
        assert found[cell] == pytest.approx(expected, abs=0.03 * n_gates)
        best = bases[np.argmax(logs + np.log(bases).sum(axis=1))]
        np.testing.assert_allclose(base[cell], best, atol=2e-3)
        at = prior.log_probability(photons, base[cell], float(prior.log_grid[cell]))
        known = log_of_photons(photons, base[cell][None], concentration)[0]
        assert at == pytest.approx(known + prior.log_prior[cell], rel=1e-11)
    assert (curvature > 0).all()


@pytest.mark.parametrize("n_states", [1, 3])
def test_many_gates_by_importance_sampling(n_states: int) -> None:
    n_gates = 24
    prior = DecayPrior(MODEL, n_states, n_gates)
    rng = np.random.default_rng(2)
    shape = np.exp(-np.arange(n_gates) / 5.0) + 0.01
    shares = rng.dirichlet(300.0 * shape / shape.sum(), n_states)
    found, base = prior.given_decays(np.log(shares)[None])
    for cell in (16, 24, 32, 40):
        concentration = float(np.exp(prior.log_grid[cell]))
        weight = concentration * base[0, cell]
        bend = 0.9 * (1.0 + n_states * weight**2 * special.polygamma(1, weight))
        # gamma variables with scales of their own, over their sum
        scale = base[0, cell] / bend
        bases = rng.standard_gamma(bend, (40_000, n_gates)) * scale
        bases = np.maximum(bases / bases.sum(axis=1, keepdims=True), 1e-290)
        logs = log_of_decays(shares, bases, concentration)
        logs += gammaln(n_gates) + np.log(bases).sum(axis=1)
        logs -= (bend * np.log(bases / scale) - gammaln(bend)).sum(axis=1)
        logs -= gammaln(bend.sum()) - bend.sum() * np.log((bases / scale).sum(axis=1))
        effective = np.exp(2.0 * logsumexp(logs) - logsumexp(2.0 * logs))
        assert effective > 500
        expected = float(logsumexp(logs)) - np.log(len(bases)) + prior.log_prior[cell]
        assert found[0, cell] == pytest.approx(expected, abs=0.02 + 4.0 / np.sqrt(effective))


def test_shares_of_next_to_nothing_have_a_density() -> None:
    prior = DecayPrior(MODEL, 2, 4)
    logs = np.log(np.full((3, 2, 4), 0.25))
    logs[1, 0, 0], logs[2, :, 1] = -400.0, -60.0
    logs -= logsumexp(logs, axis=2, keepdims=True)
    found = prior.log_density(logs)
    assert np.isfinite(found).all()
    # in the logarithm a share far below what a photon shows falls off like a power of it
    assert found[0] > found[2] > found[1]


@pytest.mark.parametrize(("n_states", "n_gates"), [(1, 2), (1, 6), (3, 24)])
def test_another_decay_is_drawn_from_its_density(n_states: int, n_gates: int) -> None:
    """The mean of functions over draws from a fixed density, weighted, and over the draws."""
    rng = np.random.default_rng(1)
    fewer, more = (DecayPrior(MODEL, n_states + extra, n_gates) for extra in (0, 1))
    shares = rng.dirichlet(np.full(n_gates, 4.0), n_states)
    n = 30_000
    known = np.repeat(np.log(shares)[None], n, axis=0)
    drawn = fewer.draw_another(known, rng)
    np.testing.assert_allclose(logsumexp(drawn, axis=1), 0.0, atol=1e-9)

    def log_ratio(logs: Array) -> Array:
        together = np.concatenate([known[: len(logs)], logs[:, None]], axis=1)
        return more.log_density(together) - fewer.log_density(known[: len(logs)])

    # half of them from a density around the mean of what was drawn
    half = n // 2
    mean = np.exp(drawn).mean(axis=0)
    total = (mean * (1.0 - mean) / np.exp(drawn).var(axis=0)).mean() - 1.0
    law = stats.dirichlet(total * mean)
    other = np.log(np.maximum(law.rvs(half, random_state=rng), 1e-160))
    other -= logsumexp(other, axis=1, keepdims=True)
    at = np.concatenate([drawn[:half], other])
    of_law = law.logpdf(np.exp(at).T) + at.sum(axis=1)
    ours = log_ratio(at)
    # what each of the two would be if its density were as said: the mean of a bounded ratio
    share = np.exp(of_law - np.logaddexp(of_law, ours))
    error = np.sqrt(share[:half].var() / half + share[half:].var() / half)
    assert share[:half].mean() == pytest.approx(1.0 - share[half:].mean(), abs=4.0 * error + 0.01)


def test_one_decay_says_nothing_about_the_concentration() -> None:
    """Its photons cannot tell how far it is from a base shape that nobody knows.

    With the decay of all photons in the place of the base the concentration would be put at
    thousands.
    """
    prior = DecayPrior(MODEL, 1, 24)
    shape = np.exp(-np.arange(24) / 5.0) + 0.01
    photons = np.random.default_rng(0).multinomial(5000, shape / shape.sum())[None].astype(float)
    logs, _, _ = prior.given_photons(photons)
    share = np.exp(logs - logsumexp(logs))
    mean = float(share @ prior.log_grid)
    believed = MODEL.decay_concentration
    assert mean == pytest.approx(np.log(believed.median), abs=believed.sigma)
    assert np.sqrt(share @ (prior.log_grid - mean) ** 2) > 0.6 * believed.sigma
    pooled = log_of_photons_at_own_shape(prior, photons)
    assert np.exp(pooled - logsumexp(pooled)) @ prior.log_grid > np.log(5000.0)


def log_of_photons_at_own_shape(prior: DecayPrior, photons: Array) -> Array:
    """Log probability at each concentration if the base were the shape of the photons."""
    base = photons.sum(axis=0) / photons.sum()
    return np.array([prior.log_probability(photons, base, float(at)) for at in prior.log_grid])


@pytest.mark.parametrize(("n", "weight"), [(1, 0.3), (6, 0.3), (6, 5.0), (40, 0.05), (40, 30.0)])
def test_tables_have_their_distribution(n: int, weight: float) -> None:
    """A sum of independent trials: its distribution by convolution."""
    chance = weight / (weight + np.arange(n))
    law = np.ones(1)
    for one in chance:
        law = np.convolve(law, [1.0 - one, one])
    rng = np.random.default_rng(3)
    drawn = np.array([_draw_tables(n, weight, rng) for _ in range(20_000)])
    found = np.bincount(drawn, minlength=n + 1)
    common = law * drawn.size > 5.0
    rest = [found[~common].sum()], [law[~common].sum() * drawn.size]
    observed = np.concatenate([found[common], rest[0]])
    expected = np.concatenate([law[common] * drawn.size, rest[1]])
    few = expected < 1e-9
    assert (observed[few] == 0).all()
    if (~few).sum() > 1:
        expected = expected[~few] * observed[~few].sum() / expected[~few].sum()
        assert stats.chisquare(observed[~few], expected).pvalue > 1e-3


def test_many_tables_have_mean_and_scatter() -> None:
    n, weight = 30_000, 700.0
    rng = np.random.default_rng(4)
    drawn = np.array([_draw_tables(n, weight, rng) for _ in range(2000)])
    chance = weight / (weight + np.arange(n))
    sd = np.sqrt((chance * (1.0 - chance)).sum())
    assert drawn.mean() == pytest.approx(chance.sum(), abs=4.0 * sd / np.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(sd, rel=0.07)
    assert _draw_tables(0, weight, rng) == 0


@pytest.mark.parametrize("n_states", [1, 2])
def test_draws_of_base_and_concentration_equal_quadrature(n_states: int) -> None:
    prior = DecayPrior(MODEL, n_states, 2)
    photons = np.array([[130.0, 40.0], [60.0, 35.0]])[:n_states]
    bases, _ = even_bases(2)
    bases = bases[::100]
    logs = np.stack(
        [log_of_photons(photons, bases, float(np.exp(at))) for at in prior.log_grid], axis=1
    )
    logs += prior.log_prior
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    rng = np.random.default_rng(6)
    base, concentration = np.array([0.5, 0.5]), 200.0
    drawn = []
    for _ in range(12_000):
        base, concentration = prior.draw(photons, base, concentration, rng)
        drawn.append((base[0], np.log(concentration)))
    found = np.array(drawn)[200:]
    of_base, of_grid = mass.sum(axis=1), mass.sum(axis=0)
    for column, values, weights in (
        (found[:, 0], bases[:, 0], of_base),
        (found[:, 1], prior.log_grid, of_grid),
    ):
        mean = float(weights @ values)
        sd = float(np.sqrt(weights @ (values - mean) ** 2))
        assert column.mean() == pytest.approx(mean, abs=0.12 * sd)
        assert column.std() == pytest.approx(sd, rel=0.1)


def test_concentration_moves_freely_where_one_state_was_visited() -> None:
    """Base and concentration hold each other in place unless they move together."""
    prior = DecayPrior(MODEL, 1, 24)
    shape = np.exp(-np.arange(24) / 5.0) + 0.01
    photons = np.random.default_rng(0).multinomial(5000, shape / shape.sum())[None].astype(float)
    rng = np.random.default_rng(7)
    base, concentration = photons[0] / photons.sum(), 50_000.0
    logs = []
    for _ in range(3000):
        base, concentration = prior.draw(photons, base, concentration, rng)
        logs.append(np.log(concentration))
    found = np.array(logs)[100:]
    logs_given, _, _ = prior.given_photons(photons)
    mean = float(np.exp(logs_given - logsumexp(logs_given)) @ prior.log_grid)
    assert found.mean() == pytest.approx(mean, abs=0.3)
    lagged = np.corrcoef(found[:-20], found[20:])[0, 1]
    assert lagged < 0.5
