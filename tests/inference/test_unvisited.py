"""Draws with a state that is hardly visited: a density, and evidences that are known without data.

With no exposure the likelihood is one whatever the parameters, so that every number of states has
the evidence 1: a test of the normalisation of every prior and of every density drawn from.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.inference.unvisited import NewState
from pncbayes.physics.modelfile import load_model

Array = NDArray[np.float64]

MODEL = load_model("free")
WIDTH_S = 0.01


def new_state(n_states: int, n_gates: int) -> tuple[NewState, Posterior]:
    """Density of `n_states` states for steady light, built on the draws of one state fewer."""
    counts = np.random.default_rng(3).poisson(20.0 / n_gates, (300, n_gates)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    rng = np.random.default_rng(0)
    base, simpler = None, None
    for number in range(1, n_states):
        posterior = working_posterior(likelihood, MODEL, number)
        modes = find_modes(posterior, counts, WIDTH_S, simpler, rng)
        simpler = posterior.unpack(modes[0].vector)
        base = estimate_evidence(posterior, modes, rng, n_draws=200, base=base).base
    assert base is not None
    posterior = working_posterior(likelihood, MODEL, n_states)
    return NewState(base, posterior), posterior


@pytest.mark.parametrize("n_gates", [1, 3])
def test_no_light_in_no_time_tells_no_number_of_states(n_gates: int) -> None:
    likelihood = BinnedLikelihood(np.zeros((3, n_gates)), 1e-9)
    found = scan_n_states(
        likelihood, np.zeros((3, n_gates)), MODEL, range(1, 6), np.random.default_rng(0)
    )
    for one in found:
        assert one.log_evidence == pytest.approx(0.0, abs=3.5 * one.error + 0.1)
        assert one.error < 0.25
    np.testing.assert_allclose(probabilities(found), 0.2, atol=0.1)


@pytest.mark.parametrize(("n_states", "n_gates"), [(2, 1), (3, 1), (4, 1), (3, 4)])
def test_draws_have_the_density_that_is_said(n_states: int, n_gates: int) -> None:
    density, posterior = new_state(n_states, n_gates)
    points, label, value = density.draw(200, np.random.default_rng(1))
    assert points.shape == (200, posterior.size)
    assert set(label) <= set(range(n_states))
    rate = np.array([posterior.unpack(point).rate_per_s for point in points])
    assert (np.diff(rate, axis=1) <= 0).all()
    np.testing.assert_allclose(density.log_density(points, label), value, rtol=1e-9)


@pytest.mark.parametrize("n_states", [2, 3, 4])
def test_density_of_the_new_state_integrates_to_one(n_states: int) -> None:
    """Brightness, each entry and the exits are independent given the old states: one by one."""
    density, _ = new_state(n_states, 1)
    old = density.base.points[:1]
    seconds = np.full((1, n_states - 1), 1.5)
    step = 0.01
    grid = np.arange(-60.0, 20.0, step)
    many = np.repeat(old, grid.size, axis=0)
    times = np.repeat(seconds, grid.size, axis=0)
    entries = np.repeat(grid[:, None], n_states - 1, axis=1)
    together = density._log_density_of_entries(entries, many, times)
    alike = np.ptp(density._entry_scales(old, seconds)[0]) < 1e-12
    if alike or n_states == 2:
        total = np.exp(together / (n_states - 1)).sum() * step
        assert total == pytest.approx(1.0, abs=2e-3)
    # the exits: the density of their sum is a normal one, the shares are drawn exactly
    draws = density._draw_exits(200_000, np.random.default_rng(0))
    prior = MODEL.exit_rate_per_s
    prior_value = posterior_exits(draws, n_states)
    weights = np.exp(prior_value - density._log_density_of_exits(draws))
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert prior.sigma > 0
    # brightness: cells cover everything below the brightest level and far above
    weights, _ = density._cell_weights(old)
    assert weights.sum() == pytest.approx(1.0, rel=1e-9)


def posterior_exits(exits: Array, n_states: int) -> Array:
    """Log prior of the exits of one state, written out again."""
    from scipy.special import gammaln
    from scipy.stats import norm

    rates = np.exp(exits)
    total = rates.sum(axis=1)
    prior, c = MODEL.exit_rate_per_s, MODEL.jump_concentration
    value = norm.logpdf(np.log(total), np.log(prior.median), prior.sigma)
    value += c * np.log(rates / total[:, None]).sum(axis=1)
    return np.asarray(value + gammaln(c * (n_states - 1)) - (n_states - 1) * gammaln(c))


def test_surplus_states_of_steady_light_scatter_by_their_errors() -> None:
    """With draws around modes alone they scattered by more than one nat, and said less."""
    counts = np.random.default_rng(7).poisson(20.0, (1000, 1)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    found = [
        scan_n_states(likelihood, counts, MODEL, range(1, 6), np.random.default_rng(seed))
        for seed in range(6)
    ]
    figures = np.array([[one.log_evidence for one in run] for run in found])
    errors = np.array([[one.error for one in run] for run in found])
    scatter = figures.std(axis=0, ddof=1)
    assert (scatter < 0.3).all()
    # the sixth of the chi-square's width for six runs, times the number of states
    assert (scatter[1:] < 3.0 * np.sqrt((errors[:, 1:] ** 2).mean(axis=0)) + 0.02).all()


def test_unvisited_figure_is_that_of_the_sampler_where_nothing_is_visited() -> None:
    """Two levels that nothing could mistake for three: the third is not visited, and that is it."""
    level = np.where(np.arange(2000) // 100 % 2, 300.0, 30.0)
    counts = np.random.default_rng(0).poisson(level).astype(float)[:, None]
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    rng = np.random.default_rng(1)
    found = scan_n_states(likelihood, counts, MODEL, [1, 2, 3], rng)
    base = found[1].base
    assert base is not None
    figure = NewState(base, Posterior(likelihood, MODEL, 3)).log_evidence_if_unvisited(rng, 400)
    assert found[2].log_evidence - 1.0 < figure < found[2].log_evidence + 0.5
    assert figure < found[1].log_evidence - 3.0
