"""Evidence against closed forms, quadrature and long importance runs with a proposal of their own.

The counts are few, so that what is not Gaussian about the posterior shows.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import gammaln, logsumexp
from scipy.stats import norm, t

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.coordinates import Coordinates
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.laplace import quick_log_evidence
from pncbayes.inference.optimum import Mode, climb, find_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.inference.sensitivity import reweighted_probabilities
from pncbayes.inference.weights import pareto_smooth
from pncbayes.physics.modelfile import load_model

Array = NDArray[np.float64]

WIDTH_S = 0.01
MODEL = load_model("free")


def blinking(bright: float, dim: float, n_bins: int = 60, seed: int = 0) -> Array:
    """Counts of a dot that is bright and dim for eight bins each."""
    level = np.where(np.arange(n_bins) // 8 % 2, bright, dim)
    return np.random.default_rng(seed).poisson(level).astype(float)[:, None]


def modes_of(counts: Array, n_states: int) -> tuple[Posterior, list[Mode]]:
    """Posterior of a number of states, and its modes found the way a fit does."""
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    simpler, modes = None, []
    for number in range(1, n_states + 1):
        posterior = working_posterior(likelihood, MODEL, number)
        modes = find_modes(posterior, counts, WIDTH_S, simpler, np.random.default_rng(0))
        simpler = posterior.unpack(modes[0].vector)
    return posterior, modes


@pytest.mark.parametrize("mean", [0.0, 0.05, 3.0, 400.0])
def test_one_level_equals_quadrature(mean: float) -> None:
    counts = np.random.default_rng(1).poisson(mean, (40, 1)).astype(float)
    total, duration_s = counts.sum(), len(counts) * WIDTH_S
    prior = MODEL.brightest_rate_per_s
    constant = total * np.log(WIDTH_S) - gammaln(counts + 1).sum()

    def log_density(log_rate: float) -> float:
        value = norm.logpdf(log_rate, np.log(prior.median), prior.sigma)
        return float(value + total * log_rate - np.exp(log_rate) * duration_s)

    peak = max(log_density(x) for x in np.linspace(-10.0, 20.0, 30_001))
    integral = quad(
        lambda x: np.exp(log_density(x) - peak),
        -20.0,
        20.0,
        points=[np.log((total + 0.1) / duration_s)],
        limit=500,
    )[0]
    expected = np.log(integral) + peak + constant
    posterior, modes = modes_of(counts, 1)
    found = estimate_evidence(posterior, modes, np.random.default_rng(2))
    assert found.method == "importance"
    assert found.importance == pytest.approx(expected, abs=0.03)
    assert found.laplace == pytest.approx(expected, abs=0.05)
    assert found.log_evidence == found.importance
    assert found.error < 0.05


def log_stirling(most: int) -> Array:
    """Log of the unsigned Stirling numbers of the first kind, shape ``(most + 1, most + 1)``."""
    logs = np.full((most + 1, most + 1), -np.inf)
    logs[0, 0] = 0.0
    for n in range(most):
        logs[n + 1, 1:] = logs[n, :-1]
        if n:
            logs[n + 1] = np.logaddexp(logs[n + 1], np.log(n) + logs[n])
    return logs


def one_level_with_gates(counts: Array) -> float:
    """Exact but for a sum over concentrations.

    The Dirichlet-multinomial is a sum over tables in each gate; the tables integrate over the base
    shape in closed form, and their number in all is a convolution over the gates.
    """
    per_gate = counts.sum(axis=0).astype(int)
    total, duration_s = per_gate.sum(), len(counts) * WIDTH_S
    log_rate = np.log(total / duration_s) + np.linspace(-1.5, 1.5, 20_001)
    prior = MODEL.brightest_rate_per_s
    rate = norm.logpdf(log_rate, np.log(prior.median), prior.sigma)
    rate += total * log_rate - np.exp(log_rate) * duration_s
    prior = MODEL.decay_concentration
    log_concentration = np.log(prior.median) + prior.sigma * np.linspace(-4.0, 4.0, 97)
    stirling, n_gates = log_stirling(int(per_gate.max())), per_gate.size
    of_tables = np.zeros(1)
    for n in per_gate:
        own = stirling[n, : n + 1] + gammaln(np.arange(n + 1) + 1)
        both = np.full(of_tables.size + n, -np.inf)
        for tables, log_weight in enumerate(own):
            part = both[tables : tables + of_tables.size]
            np.logaddexp(part, of_tables + log_weight, out=part)
        of_tables = both
    tables = np.arange(of_tables.size)
    of_tables = of_tables + gammaln(n_gates) - gammaln(n_gates + tables)
    gates = norm.logpdf(log_concentration, np.log(prior.median), prior.sigma)
    gates += logsumexp(of_tables + log_concentration[:, None] * tables, axis=1)
    alpha = np.exp(log_concentration)
    gates += gammaln(alpha) - gammaln(alpha + total)
    value = total * np.log(WIDTH_S) - gammaln(counts + 1).sum()
    for logs, grid in ((rate, log_rate), (gates, log_concentration)):
        value += logsumexp(logs) + np.log(grid[1] - grid[0])
    return float(value)


@pytest.mark.parametrize(
    ("n_gates", "mean"), [(2, 0.05), (3, 3.0), (8, 3.0), (24, 0.1), (24, 3.0), (24, 8.0)]
)
def test_one_level_with_gates_is_exact(n_gates: int, mean: float) -> None:
    decay = np.exp(-np.arange(n_gates) / 6.0)
    counts = np.random.default_rng(3).poisson(mean * decay / decay.sum(), (200, n_gates))
    posterior, modes = modes_of(counts.astype(float), 1)
    found = estimate_evidence(posterior, modes, np.random.default_rng(4))
    expected = one_level_with_gates(counts.astype(float))
    assert found.method == "importance"
    assert found.error < 0.05
    assert found.log_evidence == pytest.approx(expected, abs=0.01 + 4.0 * found.error)
    assert found.laplace == pytest.approx(expected, abs=0.03 * n_gates)


def test_draws_of_one_level_with_gates_are_those_of_the_posterior() -> None:
    """Against weights of the density that knows nothing of how they were drawn."""
    decay = np.array([0.6, 0.3, 0.1])
    counts = np.random.default_rng(3).poisson(0.3 * decay, (200, 3)).astype(float)
    posterior, modes = modes_of(counts, 1)
    found = estimate_evidence(posterior, modes, np.random.default_rng(4), n_kept=1000)
    photons = counts.sum(axis=0)
    rng = np.random.default_rng(5)
    wide = np.log(np.maximum(rng.standard_gamma(0.7 * photons, (20_000, 3)), 1e-200))
    shift = np.log(0.7 * 200 * WIDTH_S)
    logs = np.array([posterior.log_density(vector - shift) for vector in wide])
    logs -= (0.7 * photons * wide - np.exp(wide) - gammaln(0.7 * photons)).sum(axis=1)
    weights = np.exp(logs - logsumexp(logs))
    assert float(logsumexp(logs)) - np.log(len(wide)) == pytest.approx(found.log_evidence, abs=0.05)
    mean = weights @ (wide - shift)
    sd = np.sqrt(weights @ (wide - shift - mean) ** 2)
    assert (np.abs(found.draws.mean(axis=0) - mean) < 0.15 * sd).all()
    np.testing.assert_allclose(found.draws.std(axis=0), sd, rtol=0.1)


def trapezoid(
    posterior: Posterior, mode: Mode, *, spacing: float = 1.0, depth: float = 11.0
) -> tuple[float, Array, Array]:
    """Integrate the density around a mode on a grid that grows while the density is not small.

    The trapezoidal rule converges exponentially for peaks: a spacing of one standard deviation
    leaves less than 1e-3. Returns the log integral, the points and their log weights.
    """
    posterior.active = None
    steps = spacing / np.sqrt(posterior.curvature(mode.vector, mode.parts))
    values: dict[tuple[int, ...], float] = {}
    waiting = [(0,) * posterior.size]
    while waiting:
        place = waiting.pop()
        if place in values:
            continue
        values[place] = posterior.log_density(mode.vector + np.array(place) * steps)
        if values[place] > mode.log_density - depth:
            for axis in range(posterior.size):
                for side in (-1, 1):
                    neighbour = list(place)
                    neighbour[axis] += side
                    waiting.append(tuple(neighbour))
    logs = np.array(list(values.values()))
    points = mode.vector + np.array(list(values)) * steps
    return float(logsumexp(logs) + np.log(steps).sum()), points, logs - logsumexp(logs)


@pytest.mark.parametrize(("bright", "dim"), [(50.0, 12.0), (20.0, 9.0)])
def test_two_states_equal_brute_force(bright: float, dim: float) -> None:
    """Four parameters on a grid; the evidence counts both orders of the states."""
    counts = blinking(bright, dim)
    posterior, modes = modes_of(counts, 2)
    integral, points, log_weights = trapezoid(posterior, modes[0])
    expected = integral + np.log(2.0)
    found = [estimate_evidence(posterior, modes, np.random.default_rng(s)) for s in range(3)]
    for one in found:
        assert one.method == "importance"
        assert one.importance == pytest.approx(expected, abs=0.1)
        assert one.laplace == pytest.approx(expected, abs=0.15)
    # the draws that states and rates come from, with states from bright to dim
    if points[0, 0] < points[0, 1]:
        points = points[:, posterior.permutation(np.array([1, 0]))]
    weights = np.exp(log_weights)
    mean = weights @ points
    sd = np.sqrt(weights @ (points - mean) ** 2)
    drawn = np.vstack([one.draws for one in found])
    assert drawn.shape == (1200, 4)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.15 * sd.max())
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.15)
    np.testing.assert_allclose((drawn.mean(axis=0) - mean) / sd, 0.0, atol=0.2)


def broad_importance(posterior: Posterior, counts: Array, n_draws: int) -> tuple[float, float]:
    """Evidence of two states by draws from all that the prior allows near the mean count.

    One level near the mean, the other anywhere below, near or above it; rates as in the prior,
    and faster. Both orders of the states are drawn.
    """
    random = np.random.default_rng(5)
    centre = np.log(counts.sum() / (len(counts) * WIDTH_S))
    sd = 4.0 / np.sqrt(counts.sum())
    edge, shares = centre + 3.0 * sd, np.log([0.4, 0.4, 0.2])
    switching = MODEL.exit_rate_per_s
    slow, fast = np.log(switching.median), np.log(switching.median) + 2.5

    first = centre + sd * random.standard_t(4, n_draws)
    second = np.choose(
        random.choice(3, n_draws, p=np.exp(shares)),
        [
            edge + np.log(random.random(n_draws)),
            centre + 4.0 * sd * random.standard_t(3, n_draws),
            centre + 1.0 + random.standard_t(3, n_draws),
        ],
    )
    rates = np.where(
        random.random((n_draws, 2)) < 0.6,
        slow + switching.sigma * random.standard_normal((n_draws, 2)),
        fast + 1.5 * random.standard_t(4, (n_draws, 2)),
    )
    swap = random.random(n_draws) < 0.5
    points = np.column_stack([np.where(swap, second, first), np.where(swap, first, second), rates])

    def levels(one: Array, other: Array) -> Array:
        parts = [
            np.where(other < edge, other - edge, -np.inf),
            t.logpdf(other, 3, centre, 4.0 * sd),
            t.logpdf(other, 3, centre + 1.0),
        ]
        density: Array = t.logpdf(one, 4, centre, sd) + logsumexp(
            np.array(parts) + shares[:, None], axis=0
        )
        return density

    proposal = np.logaddexp(levels(*points[:, :2].T), levels(*points[:, 1::-1].T)) - np.log(2.0)
    for rate in points[:, 2:].T:
        proposal += np.logaddexp(
            norm.logpdf(rate, slow, switching.sigma) + np.log(0.6),
            t.logpdf(rate, 4, fast, 1.5) + np.log(0.4),
        )
    posterior.active = None
    logs = np.array([posterior.log_density(point) for point in points]) - proposal
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    weights = np.exp(logs - logs.max())
    error = np.sqrt((weights**2).sum()) / weights.sum()
    return float(logsumexp(logs) - np.log(n_draws)), float(error)


@pytest.mark.parametrize(
    ("bright", "dim"),
    [
        (20.0, 20.0),
        (6.0, 4.0),
        (20.0, 14.0),
    ],
)
def test_two_states_that_the_data_hardly_show(bright: float, dim: float) -> None:
    """Here the answer is undecided, and so the evidence decides how undecided it is said to be.

    Most of the mass is where one level explains the data and the other is never visited: there is
    no mode there, only the prior's width.
    """
    counts = blinking(bright, dim)
    posterior, _ = modes_of(counts, 2)
    expected, error = broad_importance(posterior, counts, 12_000)
    assert error < 0.05
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    for seed in range(2):
        found = scan_n_states(likelihood, counts, MODEL, [1, 2], np.random.default_rng(seed))[1]
        assert found.error < 0.2
        assert found.log_evidence == pytest.approx(expected, abs=0.1 + 3.0 * found.error)


def test_stated_error_is_that_of_repetition() -> None:
    posterior, modes = modes_of(blinking(50.0, 12.0), 2)
    found = [estimate_evidence(posterior, modes, np.random.default_rng(seed)) for seed in range(25)]
    scatter = np.std([one.importance for one in found])
    stated = np.mean([one.error for one in found])
    assert 0.3 * scatter < stated < 3.0 * scatter
    assert all(0 < one.effective_draws <= 2800 for one in found)


def test_two_modes_add_up() -> None:
    """Brightness and decay jump on their own: two states tell one or the other, about evenly."""
    bins = np.arange(480)
    brightness = np.where(bins // 60 % 2, 40.0, 40.0 * 0.675)
    decay = np.where((bins // 40 % 2)[:, None], [0.6, 0.25, 0.15], [0.4, 0.33, 0.27])
    counts = np.random.default_rng(0).poisson(brightness[:, None] * decay).astype(float)
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 2)
    modes = []
    for label in (bins // 60 % 2, bins // 40 % 2):
        gates = np.array([counts[label == k].mean(axis=0) for k in (0, 1)]) / WIDTH_S
        start = Parameters(gates, np.array([[0.0, 2.0], [2.0, 0.0]]), 200.0, None)
        modes.append(climb(posterior, posterior.pack(start)))
    gap = abs(modes[0].log_density - modes[1].log_density)
    assert 0.5 < gap < 8.0
    alone = [
        estimate_evidence(posterior, [mode], np.random.default_rng(1)).log_evidence
        for mode in modes
    ]
    for order in (modes, modes[::-1]):
        both = estimate_evidence(posterior, order, np.random.default_rng(2))
        assert both.log_evidence == pytest.approx(logsumexp(alone), abs=0.15)
        assert both.laplace == pytest.approx(logsumexp(alone), abs=0.15)
    best = max(modes, key=lambda mode: mode.log_density)
    assert both.mode.log_density == pytest.approx(best.log_density, abs=0.01)


def test_order_of_states_in_the_mode_is_of_no_account() -> None:
    posterior, modes = modes_of(blinking(50.0, 12.0), 2)
    swapped = modes[0].vector[posterior.permutation(np.array([1, 0]))]
    value, _, parts = posterior.gradient(swapped)
    one = estimate_evidence(posterior, modes[:1], np.random.default_rng(0))
    other = estimate_evidence(posterior, [Mode(swapped, value, parts)], np.random.default_rng(0))
    assert other.laplace == pytest.approx(one.laplace, abs=1e-3)
    assert other.importance == pytest.approx(one.importance, abs=0.05)


def test_methods_agree_on_easy_data_with_gates() -> None:
    level = np.where(np.arange(400) // 40 % 2, 60.0, 12.0)[:, None]
    decay = np.where(level > 20, [0.2, 0.5, 0.3], [0.3, 0.6, 0.1])
    counts = np.random.default_rng(2).poisson(level * decay).astype(float)
    evidences = scan_n_states(
        BinnedLikelihood(counts, WIDTH_S), counts, MODEL, [1, 2, 3], np.random.default_rng(0)
    )
    assert [one.n_states for one in evidences] == [1, 2, 3]
    two = evidences[1]
    assert two.method in ("importance", "bridge")
    assert two.laplace == pytest.approx(two.log_evidence, abs=0.3)
    assert quick_log_evidence(
        working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 2), two.mode
    ) == pytest.approx(two.log_evidence, abs=10.0)
    share = probabilities(evidences)
    assert share.sum() == pytest.approx(1.0, rel=1e-12)
    assert share[1] > 0.9
    expected = np.exp([one.log_evidence - two.log_evidence for one in evidences])
    np.testing.assert_allclose(share / share[1], expected, rtol=1e-9)


def test_one_level_gets_the_most_of_steady_light() -> None:
    counts = np.random.default_rng(5).poisson(30.0, (500, 1)).astype(float)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    steps: list[str] = []
    evidences = scan_n_states(
        likelihood, counts, MODEL, [1, 2, 3], np.random.default_rng(0), on_step=steps.append
    )
    share = probabilities(evidences)
    assert share[0] > 0.5
    assert len(steps) == 6
    assert probabilities(evidences[:1])[0] == 1.0


def test_same_seed_same_numbers() -> None:
    counts = blinking(30.0, 8.0)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    runs = [
        scan_n_states(likelihood, counts, MODEL, [1, 2], np.random.default_rng(9)) for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert one.log_evidence == other.log_evidence
        assert one.error == other.error
        np.testing.assert_array_equal(one.draws, other.draws)


def test_what_is_not_worth_sampling_is_not_sampled() -> None:
    posterior, modes = modes_of(blinking(50.0, 12.0), 2)
    rough = estimate_evidence(posterior, modes, np.random.default_rng(0), worth=0.0)
    assert rough.method == "laplace"
    assert np.isnan(rough.importance)
    assert rough.draws.shape == (0, 4)
    assert rough.log_evidence == rough.laplace


def test_coordinates_are_a_map_and_back() -> None:
    """Warped either way, not at all, and the exact map of a gamma density of small shape."""
    second = np.array([3.0, 3.0, 3.0, 0.5, 0.02])
    third = second * np.array([1.0, -0.8, 0.0, 1.0, 1.0])
    centre = np.array([2.0, 0.0, -1.0, 3.0, 1.0])
    coordinates = Coordinates.around(centre, second, third)
    random = np.random.default_rng(0)
    points = centre + random.normal(0.0, 0.6, (200, 5))
    z, log_slope = coordinates.to_z(points)
    np.testing.assert_allclose(coordinates.from_z(z), points, rtol=1e-6, atol=1e-7)
    step = 1e-5
    derivative = np.zeros_like(points)
    for axis in range(5):
        ahead, behind = points.copy(), points.copy()
        ahead[:, axis] += step
        behind[:, axis] -= step
        change = coordinates.to_z(ahead)[0] - coordinates.to_z(behind)[0]
        derivative[:, axis] = change[:, axis] / (2 * step)
    np.testing.assert_allclose(log_slope, np.log(derivative).sum(axis=1), rtol=1e-5, atol=1e-5)
    at_mode, no_slope = coordinates.to_z(centre[None])
    np.testing.assert_allclose(at_mode, 0.0, atol=1e-9)
    # near one there by construction, exactly so but for the gamma densities
    assert no_slope[0] == pytest.approx(0.0, abs=0.05)


def test_pareto_smoothing() -> None:
    random = np.random.default_rng(0)
    even = np.zeros(500)
    smoothed, k = pareto_smooth(even)
    assert k == 0.0
    np.testing.assert_array_equal(smoothed, even)
    # exp(4 |t|) has no mean: k tells
    assert pareto_smooth(0.1 * random.standard_normal(1000))[1] < 0.5
    assert pareto_smooth(4.0 * np.abs(random.standard_t(3, 1000)))[1] > 0.7


def test_reweighted_priors_equal_a_new_run() -> None:
    """P(K) under wider priors from the same draws, against the evidence computed anew."""
    counts = blinking(25.0, 8.0)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    evidences = scan_n_states(likelihood, counts, MODEL, [1, 2], np.random.default_rng(0))
    same = reweighted_probabilities(evidences, likelihood, MODEL, 1.0)
    np.testing.assert_allclose(same, probabilities(evidences), rtol=1e-9)
    for factor in (0.5, 2.0):
        found = reweighted_probabilities(evidences, likelihood, MODEL, factor)
        other = MODEL.widened(factor)
        anew = scan_n_states(likelihood, counts, other, [1, 2], np.random.default_rng(1))
        log_odds = np.log(found[1] / found[0])
        assert log_odds == pytest.approx(anew[1].log_evidence - anew[0].log_evidence, abs=0.4)
