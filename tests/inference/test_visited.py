"""Evidence where all states are visited: against importance sampling, and parts that add up."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference import visits
from pncbayes.inference.collapsed import CollapsedPosterior, working_posterior
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.gibbs import GibbsSampler, run_chains
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.unvisited import NewState
from pncbayes.inference.visited import _Density, evidence_if_visited, evidence_of_parts
from pncbayes.inference.visits import ByVisits, Unsettled, evidence_by_visits
from pncbayes.physics.modelfile import load_model

Array = NDArray[np.float64]

MODEL = load_model("free")
WIDTH_S = 0.01


def two_visited_states(n_gates: int) -> tuple[CollapsedPosterior, list[list[Parameters]]]:
    """Posterior of two states that are both visited, and four chains."""
    random = np.random.default_rng(4)
    bright = np.arange(300) // 25 % 2 == 1
    decays = random.dirichlet(np.full(n_gates, 5.0), 2)
    means = np.where(bright[:, None], 9.0 * decays[0], 3.0 * decays[1])
    counts = random.poisson(means).astype(float)
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 2)
    assert isinstance(posterior, CollapsedPosterior)
    modes = find_modes(posterior, counts, WIDTH_S, None, random)
    draws = run_chains(posterior, [posterior.unpack(modes[0].vector)], random).draws
    size = len(draws) // 4
    return posterior, [draws[n * size : (n + 1) * size] for n in range(4)]


@pytest.mark.parametrize("n_gates", [2, 5])
def test_equals_importance_sampling_with_a_wide_density(n_gates: int) -> None:
    posterior, chains = two_visited_states(n_gates)
    found = evidence_if_visited(posterior, chains, np.random.default_rng(5))
    assert found is not None
    assert found.error < 0.1
    drawn = np.array([posterior.pack(draw.ordered()) for chain in chains for draw in chain])
    law = multivariate_t(
        drawn.mean(axis=0), 1.4 * np.cov(drawn.T), df=5, seed=np.random.default_rng(6)
    )
    points = law.rvs(20_000)
    logs = np.array([posterior.log_density(point) for point in points]) - law.logpdf(points)
    ordered = np.array([np.diff(posterior.unpack(point).rate_per_s)[0] <= 0 for point in points])
    logs = np.where(ordered & np.isfinite(logs), logs, -np.inf)
    weights = np.exp(logs - logsumexp(logs))
    error = float(np.sqrt((weights**2).sum()))
    assert error < 0.05
    expected = float(logsumexp(logs)) - np.log(len(points))
    assert found.log_mean == pytest.approx(expected, abs=4.0 * np.hypot(found.error, error))


@pytest.mark.parametrize("n_states", [1, 3])
def test_density_made_of_paths_is_that_of_its_draws(n_states: int) -> None:
    """Mixed with a shifted copy of itself: the mean of a bounded ratio over draws of both."""
    random = np.random.default_rng(7)
    counts = random.poisson(2.0, (200, 4)).astype(float)
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, n_states)
    assert isinstance(posterior, CollapsedPosterior)
    rates = np.full((n_states, n_states), 20.0)
    np.fill_diagonal(rates, 0.0)
    gates = np.linspace(900.0, 700.0, n_states)[:, None] * np.full((1, 4), 0.25)
    point = Parameters(gates, rates, 50.0, None, base_decay=np.full(4, 0.25))
    density = _Density(posterior, [point] * 3, GibbsSampler(posterior, random))
    assert density.size > 0
    points = density.draw(6000, random)
    shift = 0.1
    others = density.draw(6000, random) + shift
    shares = []
    for at in (points, others):
        ours, theirs = density.log_density(at), density.log_density(at - shift)
        shares.append(np.exp(theirs - np.logaddexp(ours, theirs)))
    error = np.sqrt((shares[0].var() + shares[1].var()) / 6000)
    assert shares[0].mean() == pytest.approx(1.0 - shares[1].mean(), abs=4.0 * error)
    assert 0.01 < shares[0].mean() < 0.49


def test_visited_and_unvisited_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where chains pass often the number of unvisited states tells the whole: the same figure."""
    random = np.random.default_rng(9)
    steady = random.dirichlet(np.full(6, 5.0))
    counts = random.poisson(4.0 * np.repeat([1.0, 0.75, 1.0], 70)[:, None] * steady).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    fewer, more = (working_posterior(likelihood, MODEL, number) for number in (1, 2))
    start = find_modes(fewer, counts, WIDTH_S, None, random)
    base = estimate_evidence(fewer, start, random).base
    assert base is not None
    modes = find_modes(more, counts, WIDTH_S, None, random)
    starts = [more.unpack(mode.vector) for mode in modes]
    whole = evidence_by_visits(NewState(base, more), starts, np.random.default_rng(10))
    assert isinstance(whole, ByVisits)
    monkeypatch.setattr(visits, "_USABLE", 0.0)
    parts = evidence_by_visits(NewState(base, more), starts, np.random.default_rng(11))
    assert isinstance(parts, Unsettled)
    assert isinstance(more, CollapsedPosterior)
    visited = [[draw for draw in chain if draw.visits_all] for chain in parts.chains]
    share = sum(len(chain) for chain in visited) / sum(len(chain) for chain in parts.chains)
    assert 0.1 < share < 0.9
    numbers = np.concatenate([np.array(one) for one in parts.unvisited])
    unvisited = parts.log_part - np.log(numbers[numbers > 0].mean())
    found = evidence_of_parts(more, parts.chains, unvisited, parts.error, random)
    assert found is not None
    apart = 3.0 * np.hypot(whole.error, found.error)
    assert found.log_mean == pytest.approx(whole.log_mean, abs=apart)
    # and their shares are those of the draws
    assert np.exp(unvisited - found.log_mean) == pytest.approx(1.0 - share, abs=0.1)
    assert found.weights.sum() == pytest.approx(1.0)
    assert len(found.points) == len(found.weights)


def test_twins_that_share_steady_light() -> None:
    """Two states that pass each other, and paths that often leave one out: their part is known.

    It is the evidence times the share of draws of a long chain in which both are visited.
    """
    random = np.random.default_rng(12)
    counts = random.poisson(3.0 * random.dirichlet(np.full(4, 5.0)), (80, 4)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    fewer, more = (working_posterior(likelihood, MODEL, number) for number in (1, 2))
    assert isinstance(more, CollapsedPosterior)
    base = estimate_evidence(fewer, find_modes(fewer, counts, WIDTH_S, None, random), random).base
    assert base is not None
    modes = find_modes(more, counts, WIDTH_S, None, random)
    starts = [more.unpack(mode.vector) for mode in modes]
    whole = evidence_by_visits(NewState(base, more), starts, random)
    assert isinstance(whole, ByVisits)
    sampler, point, draws = GibbsSampler(more, random), starts[0], []
    for sweep in range(6000):
        if sweep in (0, 50, 100):
            sampler.focus(point)
        point = sampler.sweep(point)
        if sweep >= 200:
            draws.append(point)
    visited = [draw for draw in draws if draw.visits_all]
    share = len(visited) / len(draws)
    assert 0.05 < share < 0.5
    found = evidence_if_visited(more, [visited[::2]], random)
    assert found is not None
    error = np.hypot(np.hypot(found.error, whole.error), 0.1)
    assert found.log_mean == pytest.approx(whole.log_mean + np.log(share), abs=3.0 * error)


def test_too_few_draws_say_nothing() -> None:
    posterior, chains = two_visited_states(2)
    short = [chain[:6] for chain in chains]
    assert evidence_if_visited(posterior, short, np.random.default_rng(0)) is None
    assert evidence_of_parts(posterior, short, -1.0, 0.1, np.random.default_rng(0)) is None


def test_without_visits_the_rest_is_all() -> None:
    posterior, chains = two_visited_states(2)
    elsewhere = [
        [replace(draw, occupied_s=np.array([3.0, 0.0])) for draw in chain] for chain in chains
    ]
    found = evidence_of_parts(posterior, elsewhere, -7.0, 0.1, np.random.default_rng(0))
    assert found is not None
    assert found.log_mean == -7.0
    assert found.error == pytest.approx(0.1)
    np.testing.assert_allclose(found.weights, 1.0 / len(found.points))


def test_chains_lead_to_a_better_mode() -> None:
    """What is given as the mode is far from it; the chains, and a climb from them, are not."""
    random = np.random.default_rng(4)
    bright = np.arange(300) // 25 % 2 == 1
    decays = random.dirichlet(np.full(3, 5.0), 2)
    counts = random.poisson(np.where(bright[:, None], 5.0 * decays[0], 4.0 * decays[1]))
    counts = counts.astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    fewer, more = (working_posterior(likelihood, MODEL, number) for number in (1, 2))
    base = estimate_evidence(fewer, find_modes(fewer, counts, WIDTH_S, None, random), random).base
    best = find_modes(more, counts, WIDTH_S, None, random)[0]
    # a second state that is all but never visited
    even = np.full((2, 3), 150.0) * np.array([[1.0], [0.1]])
    rates = np.array([[0.0, 1e-4], [100.0, 0.0]])
    start = more.pack(Parameters(even, rates, 100.0, None))
    value, _, parts = more.gradient(start)
    poor = replace(best, vector=start, log_density=value, parts=parts)
    assert poor.log_density < best.log_density - 10.0
    found = estimate_evidence(more, [poor], random, base=base)
    assert found.method == "bridge"
    assert found.mode.log_density == pytest.approx(best.log_density, abs=1.0)
