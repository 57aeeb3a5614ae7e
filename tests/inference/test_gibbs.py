"""Gibbs sampler: the prior without data, closed forms, the importance sampler where it works."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.switching import switch_weights
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import _Estimate, estimate_evidence
from pncbayes.inference.fit import fit
from pncbayes.inference.gibbs import GibbsSampler, PosteriorDraws, posterior_draws
from pncbayes.inference.gibbs_kernels import attribute_photons
from pncbayes.inference.judge import sampler_failures
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.photons.binning import bin_photons
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import SimulatedState, simulate

Array = NDArray[np.float64]

MODEL = load_model("free")
WIDTH_S = 0.01


def blinking_counts(
    rates_per_s: tuple[float, ...], exit_rate_per_s: float, n_gates: int, duration_s: float = 20.0
) -> Array:
    """Counts per bin of a dot with switches inside the bins; decays differ between states."""
    dot = simulate(
        [SimulatedState(rate_per_s=rate) for rate in rates_per_s],
        [exit_rate_per_s] * len(rates_per_s),
        duration_s,
        period_ns=None,
        n_detectors=1,
        random_seed=8,
    )
    time_s = dot.photons.time_ticks * dot.photons.tick_s
    n_bins = int(duration_s / WIDTH_S)
    bins = np.minimum((time_s / WIDTH_S).astype(int), n_bins - 1)
    states = dot.states_per_bin(WIDTH_S)[bins]
    shape = np.exp(-np.arange(n_gates) * (0.2 + 0.3 * states[:, None]))
    reached = np.cumsum(shape / shape.sum(axis=1, keepdims=True), axis=1)
    gate = (np.random.default_rng(4).random((bins.size, 1)) > reached[:, :-1]).sum(axis=1)
    counts = np.zeros((n_bins, n_gates))
    np.add.at(counts, (bins, gate), 1.0)
    return counts


def chain(
    posterior: Posterior, start: Parameters, n_sweeps: int, *, skip: int = 50
) -> list[Parameters]:
    sampler = GibbsSampler(posterior, np.random.default_rng(2))
    draws, point = [], start
    for sweep in range(n_sweeps + skip):
        if sweep in (0, 10, 30):
            sampler.focus(point)
        point = sampler.sweep(point)
        if sweep >= skip:
            draws.append(point)
    return draws


def some_point(n_states: int, n_gates: int) -> Parameters:
    rates = np.full((n_states, n_states), 1.0)
    np.fill_diagonal(rates, 0.0)
    gates = np.linspace(4e3, 1e3, n_states)[:, None] * np.full((1, n_gates), 1.0 / n_gates)
    return Parameters(gates, rates, 30.0 if n_gates > 1 else float("nan"), None)


@pytest.mark.parametrize(("n_states", "n_gates"), [(1, 1), (2, 1), (3, 1), (3, 4)])
def test_without_exposure_draws_are_those_of_the_prior(n_states: int, n_gates: int) -> None:
    likelihood = BinnedLikelihood(np.zeros((3, n_gates)), 1e-12)
    posterior = working_posterior(likelihood, MODEL, n_states)
    draws = chain(posterior, some_point(n_states, n_gates), 3000)[::3]
    brightest = np.log([draw.rate_per_s.max() for draw in draws])
    prior = MODEL.brightest_rate_per_s
    apart = 4.0 * prior.sigma / np.sqrt(300)
    assert brightest.mean() == pytest.approx(np.log(prior.median), abs=apart)
    assert brightest.std() == pytest.approx(prior.sigma, rel=0.2)
    if n_states > 1:
        exits = np.log([draw.exit_rate_per_s for draw in draws])
        prior = MODEL.exit_rate_per_s
        assert exits.mean() == pytest.approx(np.log(prior.median), abs=0.15 * prior.sigma)
        assert exits.std() == pytest.approx(prior.sigma, rel=0.1)
    if n_states == 2 and n_gates == 1:
        # one level below the brightest, with the repulsion r: density (r + 1)(1 - x)^r
        share = np.array([draw.rate_per_s.min() / draw.rate_per_s.max() for draw in draws])
        law = stats.beta(1.0, 1.0 + MODEL.repulsion)
        assert stats.kstest(share[::4], law.cdf).pvalue > 1e-3
    if n_states == 3:
        jumps = [draw.transition_rate_per_s[0, 1] / draw.exit_rate_per_s[0] for draw in draws]
        law = stats.beta(MODEL.jump_concentration, MODEL.jump_concentration)
        assert stats.kstest(jumps[::2], law.cdf).pvalue > 1e-3
    if n_gates > 1:
        logs = np.log([draw.concentration for draw in draws])
        assert logs.mean() == pytest.approx(np.log(MODEL.decay_concentration.median), abs=0.2)


def test_one_level_equals_quadrature() -> None:
    counts = np.random.default_rng(0).poisson(20.0, 50).astype(float)
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 1)
    draws = np.log([draw.rate_per_s[0] for draw in chain(posterior, some_point(1, 1), 2000)])
    grid = np.linspace(np.log(1e3), np.log(4e3), 4001)
    density = np.array([posterior.log_density(np.array([value])) for value in grid])
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    mean = float(weight @ grid)
    sd = float(np.sqrt(weight @ (grid - mean) ** 2))
    assert draws.mean() == pytest.approx(mean, abs=4.0 * sd / np.sqrt(1500))
    assert draws.std() == pytest.approx(sd, rel=0.08)


@pytest.mark.parametrize(
    ("rates_per_s", "exit_rate_per_s", "n_gates"),
    [((3e3, 6e2), 2.0, 1), ((3e3, 6e2), 40.0, 1), ((4e3, 2e3, 4e2), 3.0, 1), ((3e3, 6e2), 2.0, 6)],
    ids=["two levels", "switches in most bins", "three levels", "two decays"],
)
def test_draws_equal_those_of_the_importance_sampler(
    rates_per_s: tuple[float, ...],
    exit_rate_per_s: float,
    n_gates: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # by importance sampling, although there are chains for counts in gates
    monkeypatch.setattr(_Estimate, "_many_parameters", lambda self: False)
    counts = blinking_counts(rates_per_s, exit_rate_per_s, n_gates)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    n_states = len(rates_per_s)
    posterior = working_posterior(likelihood, MODEL, n_states)
    rng = np.random.default_rng(1)
    modes = find_modes(posterior, counts, WIDTH_S, None, rng)
    evidence = estimate_evidence(posterior, modes, rng, n_draws=1000, n_kept=1000)
    assert evidence.method == "importance"
    assert evidence.effective_draws > 150
    theirs = posterior_draws(evidence, posterior, rng)
    assert theirs.source == "importance"
    ours = chain(posterior, some_point(n_states, n_gates), 3000)

    def table(draws: list[Parameters]) -> Array:
        ordered = [draw.ordered() for draw in draws]
        columns = [np.log([draw.rate_per_s for draw in ordered])]
        columns.append(np.log([draw.exit_rate_per_s for draw in ordered]))
        if n_gates > 1:
            columns.append(np.log([draw.gate_rate_per_s[:, 2] for draw in ordered]))
        return np.concatenate(columns, axis=1)

    mine, known = table(ours), table(theirs.draws)
    error = known.std(axis=0) * (np.sqrt(1.0 / evidence.effective_draws) + np.sqrt(1.0 / 400.0))
    assert (np.abs(mine.mean(axis=0) - known.mean(axis=0)) < 4.0 * error).all()
    np.testing.assert_allclose(mine.std(axis=0), known.std(axis=0), rtol=0.25)


@pytest.mark.parametrize("n_gates", [1, 5])
def test_all_photons_and_all_time_are_given_to_states(n_gates: int) -> None:
    counts = blinking_counts((3e3, 1e3, 2e2), 30.0, n_gates, 2.0)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    posterior = working_posterior(likelihood, MODEL, 3)
    photons, time_s, n_stay, n_pair = GibbsSampler(posterior, np.random.default_rng(0))._attribute(
        some_point(3, n_gates)
    )
    np.testing.assert_allclose(photons.sum(axis=0), counts.sum(axis=0))
    assert time_s.sum() == pytest.approx(likelihood.n_bins * WIDTH_S)
    assert n_stay.sum() + n_pair.sum() == pytest.approx(likelihood.n_bins)
    assert n_pair.sum() > 20


def test_switches_inside_a_bin_are_drawn_as_often_as_they_weigh() -> None:
    """One bin again and again, from bright to bright: enumerated weights of stay and of returns."""
    means = np.array([[9.0], [2.0], [4.0]])
    rates = np.array([[0.0, 70.0, 30.0], [50.0, 0.0, 40.0], [90.0, 10.0, 0.0]])
    likelihood = BinnedLikelihood(np.array([5.0]), WIDTH_S, n_nodes=4)
    matrices, columns, stay, weights = likelihood._matrices(means / WIDTH_S, rates, None)
    n = 20_000
    _, time_bins, n_stay, n_pair = attribute_photons(
        np.array([[5.0]]), np.zeros(n, np.int64), np.zeros(n + 1, np.int64),
        np.ascontiguousarray(columns[:, :3]), matrices, means, stay, weights,
        likelihood.nodes, np.random.default_rng(5),
    )  # fmt: skip
    expected = np.concatenate(
        [[stay[0] * columns[0, 0]], (weights[:2, 2] * columns[0, 3:11].reshape(2, 4)).ravel()]
    )
    expected *= n / expected.sum()
    found = np.concatenate([n_stay[:1], n_pair[:2, 2].ravel()])
    assert stats.chisquare(found, expected).pvalue > 1e-3
    away = n_pair[:2, 2] @ likelihood.nodes
    np.testing.assert_allclose(time_bins[1:], away)
    known, _ = switch_weights(rates, WIDTH_S, likelihood.nodes, likelihood.node_weights)
    np.testing.assert_allclose(stay, known)


def test_states_that_data_do_not_show_are_as_the_prior_says() -> None:
    """The second state of steady light: an interval of one decade or more, not a mode's."""
    counts = np.random.default_rng(0).poisson(30.0, (300, 12)) / 1.0
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 3)
    rng = np.random.default_rng(1)
    modes = find_modes(posterior, counts, WIDTH_S, None, rng)
    evidence = estimate_evidence(posterior, modes, rng, n_draws=100)
    found = posterior_draws(evidence, posterior, rng)
    assert found.source == "gibbs"
    assert found.r_hat < 1.2
    rates = np.sort([draw.rate_per_s for draw in found.draws], axis=1)
    # one of the three is the steady light; the least bright of the others may be anything
    assert np.quantile(rates[:, 0], 0.95) / np.quantile(rates[:, 0], 0.05) > 3.0


def test_not_for_other_counts() -> None:
    counts = np.random.default_rng(0).poisson(20.0, 100).astype(float)
    noisy = working_posterior(BinnedLikelihood(counts, WIDTH_S, excess_noise=True), MODEL, 1)
    assert not GibbsSampler.can_sample(noisy)
    with pytest.raises(ValueError, match="for Poisson counts without excess noise"):
        GibbsSampler(noisy, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (PosteriorDraws([], "gibbs", 80.0, 1.3), "the chains behind the intervals disagree"),
        (PosteriorDraws([], "gibbs", 80.0, float("nan")), "r_hat nan"),
        (PosteriorDraws([], "importance", 7.0), "rest on 7 effective draws, at least 20"),
        (PosteriorDraws([], "mode", 0.0), "its intervals are points"),
    ],
)
def test_draws_that_are_not_to_be_trusted_are_named(found: PosteriorDraws, text: str) -> None:
    stats = {"sampler": "evidence", "draws_from": found.source}
    (note,) = sampler_failures(stats | {"ess": found.effective, "r_hat": found.r_hat})
    assert text in note
    good = {"sampler": "evidence", "draws_from": "gibbs", "ess": 80.0, "r_hat": 1.02}
    assert sampler_failures(good) == []


def test_fit_says_where_its_draws_are_from() -> None:
    dot = simulate(
        [SimulatedState(rate_per_s=3e3), SimulatedState(rate_per_s=5e2)],
        [2.0, 2.0],
        5.0,
        period_ns=None,
        random_seed=3,
    )
    found = fit(
        bin_photons(dot.photons, WIDTH_S),
        max_states=2,
        random_seed=1,
        dynamics=False,
        progressbar=False,
    )
    diagnostics = found.summary()["diagnostics"]
    assert diagnostics["draws_from"] in ("importance", "gibbs")
    assert diagnostics["ess"] > 20
    assert (diagnostics["r_hat"] is None) == (diagnostics["draws_from"] == "importance")
