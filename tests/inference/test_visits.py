"""Evidence by visits: its integrals against drawing, and where it has nothing to say."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference import evidence
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.scan import scan_n_states
from pncbayes.inference.unvisited import Base, NewState
from pncbayes.inference.visits import (
    ByVisits,
    Unsettled,
    _paths,
    evidence_by_visits,
    log_not_visited,
)
from pncbayes.physics.modelfile import load_model

Array = NDArray[np.float64]

MODEL = load_model("free")
WIDTH_S = 0.01
MANY = 1e3


def pair_of_models(n_old: int, n_gates: int) -> tuple[Posterior, Posterior, Array]:
    """Models with `n_old` states and one more, and a point of the first."""
    counts = np.random.default_rng(1).poisson(6.0, (200, n_gates)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    fewer, more = (working_posterior(likelihood, MODEL, n_old + more) for more in (0, 1))
    rates = np.full((n_old, n_old), 1.5)
    rates[0] *= 0.4
    np.fill_diagonal(rates, 0.0)
    shape = np.linspace(1.0, 0.3, n_gates)
    gates = np.linspace(900.0, 200.0, n_old)[:, None] * shape / shape.sum()
    point = fewer.pack(Parameters(gates, rates, 50.0, None))
    return fewer, more, point


@pytest.mark.parametrize(("n_old", "n_gates"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 3), (3, 3)])
def test_integrals_over_the_new_state_equal_drawing_it(n_old: int, n_gates: int) -> None:
    fewer, more, point = pair_of_models(n_old, n_gates)
    seconds = np.linspace(0.3, 1.4, n_old)
    found = log_not_visited(
        fewer, more, point[None], seconds[None], np.full((1, n_old), MANY)
    )[0]  # fmt: skip
    mode = find_modes(fewer, np.ones((200, n_gates)), WIDTH_S, None, np.random.default_rng(0))[0]
    base = Base(fewer, mode, point[None].copy(), np.ones(1), 0.0, 0.0)
    density = NewState(base, more)
    rng = np.random.default_rng(2)
    old, times = np.repeat(point[None], 20_000, axis=0), np.repeat(seconds[None], 20_000, axis=0)
    points, label = density.join(old, times, rng)
    logs = density._log_unvisited(points, label, times)
    weights = np.exp(logs - logs.max())
    drawn = float(logsumexp(logs) - np.log(logs.size)) + np.log(n_old / (n_old + 1))
    error = float(weights.std() / weights.mean() / np.sqrt(weights.size))
    assert error < 0.05
    assert found == pytest.approx(drawn, abs=4.0 * error)


@pytest.mark.parametrize("n_switches", [0, 1, 7])
def test_rates_integrated_out_equal_the_mean_over_them(n_switches: int) -> None:
    """One state of three is left a few times: all rates out of it, given its jumps and its time."""
    n_old = 3
    fewer, more, point = pair_of_models(n_old, 1)
    time_s, c = 2.5, MODEL.jump_concentration
    prior = MODEL.exit_rate_per_s
    rng = np.random.default_rng(3)
    log_rate = np.linspace(np.log(prior.median) - 9 * prior.sigma, np.log(200.0), 20_001)
    logs = -0.5 * ((log_rate - np.log(prior.median)) / prior.sigma) ** 2
    logs += n_switches * log_rate - np.exp(log_rate) * time_s
    chance = np.exp(logs - logs.max())
    exits = np.exp(rng.choice(log_rate, 4000, p=chance / chance.sum()))
    jumps = rng.dirichlet([c + n_switches, c], exits.size)
    rows = []
    for exit_rate, jump in zip(exits, jumps, strict=True):
        parameters = fewer.unpack(point)
        parameters.transition_rate_per_s[0, 1:] = exit_rate * jump
        rows.append(fewer.pack(parameters))
    seconds = np.tile([time_s, 1.0, 1.0], (exits.size, 1))
    others = [MANY, MANY]
    given = log_not_visited(
        fewer, more, np.array(rows), seconds, np.tile([MANY, *others], (exits.size, 1))
    )
    weights = np.exp(given - given.max())
    mean = float(np.log(weights.mean()) + given.max())
    error = float(weights.std() / weights.mean() / np.sqrt(weights.size))
    exact = log_not_visited(
        fewer, more, point[None], seconds[:1], np.array([[n_switches, *others]])
    )
    # the tail is heavy, which is why they are integrated out
    assert float(exact[0]) == pytest.approx(mean, abs=5.0 * error + 0.02)


def evidences(counts: Array, n_states: int) -> tuple[NewState, Posterior, list[Parameters]]:
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    rng = np.random.default_rng(0)
    base, simpler = None, None
    for number in range(1, n_states + 1):
        posterior = working_posterior(likelihood, MODEL, number)
        modes = find_modes(posterior, counts, WIDTH_S, simpler, rng)
        simpler = posterior.unpack(modes[0].vector)
        if number < n_states:
            base = estimate_evidence(posterior, modes, rng, base=base).base
    assert base is not None
    return NewState(base, posterior), posterior, [posterior.unpack(m.vector) for m in modes]


@pytest.mark.parametrize("n_gates", [1, 4])
def test_no_light_in_no_time(n_gates: int) -> None:
    """The evidence is one: an absolute test of both sides of the formula."""
    likelihood_width_s = 1e-9
    likelihood = BinnedLikelihood(np.zeros((3, n_gates)), likelihood_width_s)
    rng = np.random.default_rng(0)
    fewer, more = (working_posterior(likelihood, MODEL, number) for number in (2, 3))
    modes = find_modes(fewer, np.zeros((3, n_gates)), likelihood_width_s, None, rng)
    one = working_posterior(likelihood, MODEL, 1)
    start = find_modes(one, np.zeros((3, n_gates)), likelihood_width_s, None, rng)
    first = estimate_evidence(one, start, rng)
    base = estimate_evidence(fewer, modes, rng, base=first.base).base
    assert base is not None
    modes = find_modes(more, np.zeros((3, n_gates)), likelihood_width_s, None, rng)
    found = evidence_by_visits(NewState(base, more), [more.unpack(modes[0].vector)], rng)
    assert isinstance(found, ByVisits)
    assert found.log_mean + gammaln(4) == pytest.approx(0.0, abs=0.1 + 3.0 * found.error)
    assert found.error < 0.2


def test_says_nothing_where_all_states_are_visited() -> None:
    rng = np.random.default_rng(5)
    means = np.repeat(rng.permutation([30.0, 5.0, 30.0, 5.0, 30.0, 5.0]), 40)
    counts = rng.poisson(means).astype(float)[:, None]
    surplus, _, starts = evidences(counts, 2)
    found = evidence_by_visits(surplus, starts, rng)
    assert isinstance(found, Unsettled)
    assert len(found.chains) == len(found.unvisited) == 4
    assert all(n == 0 for chain in found.unvisited for n in chain)
    assert all(draw.visits_all for chain in found.chains for draw in chain)


def test_figures_of_two_seeds_agree_within_their_errors() -> None:
    counts = np.random.default_rng(6).poisson(3.0, (200, 8)).astype(float)
    surplus, _, starts = evidences(counts, 3)
    found = [evidence_by_visits(surplus, starts, np.random.default_rng(seed)) for seed in (1, 2)]
    one, two = found
    assert isinstance(one, ByVisits)
    assert isinstance(two, ByVisits)
    assert one.log_mean == pytest.approx(two.log_mean, abs=4.0 * np.hypot(one.error, two.error))
    assert max(one.error, two.error) < 0.3
    assert one.points.shape[1] == surplus.posterior.size
    assert np.isfinite(one.points).all()


def test_unsettled_chains_without_delays_leave_it_to_the_importance_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten wide bins of few counts: chains of four and five states do not settle."""
    unsettled: list[int] = []

    def watched(surplus: NewState, *rest: object) -> ByVisits | Unsettled:
        found = evidence_by_visits(surplus, *rest)
        if isinstance(found, Unsettled):
            unsettled.append(surplus.posterior.n_states)
        return found

    monkeypatch.setattr(evidence, "evidence_by_visits", watched)
    counts = np.array([0, 0, 3, 4, 2, 0, 0, 5, 0, 0], dtype=float)[:, None]
    likelihood = BinnedLikelihood(counts, 0.5)
    for seed in (0, 3, 5):
        rng = np.random.default_rng(seed)
        found = scan_n_states(likelihood, counts, MODEL, [1, 2, 3, 4, 5], rng)
        assert all(np.isfinite(one.log_evidence) for one in found)
        assert "bridge" not in {one.method for one in found}
    assert unsettled


@pytest.mark.parametrize("n_gates", [1, 4])
def test_unvisited_part_is_the_same_by_draws_of_the_new_state(n_gates: int) -> None:
    counts = np.random.default_rng(3).poisson(20 / n_gates, (300, n_gates)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    simpler = scan_n_states(likelihood, counts, MODEL, [1], np.random.default_rng(0))[0].base
    assert simpler is not None
    more = working_posterior(likelihood, MODEL, 2)
    density, rng = NewState(simpler, more), np.random.default_rng(1)
    found = [density.log_evidence_if_unvisited(rng, n_draws=2000) for _ in range(4)]
    points, seconds, switches = _paths(simpler, rng)
    logs = log_not_visited(simpler.posterior, more, points, seconds, switches)
    expected = simpler.log_mean + logsumexp(logs) - np.log(logs.size) + np.log(2.0)
    assert np.mean(found) == pytest.approx(expected, abs=0.06 + 3.0 * np.std(found))
