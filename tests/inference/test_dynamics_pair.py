"""Two emitters against the levels of one: densities, evidence, simulated dots, coincidences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from pncbayes.inference.dynamics_pair import (
    PairPosterior,
    compare_pair,
    pair_evidence,
    pair_probability,
    pair_remark,
)
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import (
    Optimum,
    climb,
    evidence_at,
    log_volume,
    merged_levels,
)
from pncbayes.photons.antibunching import antibunching
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import SimulatedState, SimulationSettings, simulate
from pncbayes.physics.state_path import simulate_jumps

MODEL = load_model("free")
WIDTH_S = 0.01
BACKGROUND_PER_S = 40.0
SHAPE = {1: np.ones((1, 1)), 2: np.array([[0.6, 0.4]])}
# what the levels of one dot have that no two emitters do: jumps from end to end
CYCLE = np.array(
    [[0.0, 3.0, 0.2, 0.1], [0.1, 0.0, 2.0, 0.2], [0.3, 0.1, 0.0, 2.5], [2.0, 0.1, 0.2, 0.0]]
)


def pair_rates(on: tuple[float, float], off: tuple[float, float]) -> np.ndarray:
    """States both dark, first, second, both bright."""
    rates = np.zeros((4, 4))
    rates[0, 1] = rates[2, 3] = on[0]
    rates[0, 2] = rates[1, 3] = on[1]
    rates[1, 0] = rates[3, 2] = off[0]
    rates[2, 0] = rates[3, 1] = off[1]
    return rates


def data_of(
    light: np.ndarray, rates: np.ndarray, seconds: float, seed: int, n_gates: int = 2
) -> DynamicsData:
    """Counts of levels of that light per s, switching inside bins."""
    rng = np.random.default_rng(seed)
    path = simulate_jumps(rates, seconds, random_seed=rng)
    gates = light[:, None] * SHAPE[n_gates] + BACKGROUND_PER_S / n_gates
    n_bins = int(seconds / WIDTH_S)
    counts = rng.poisson(path.occupancy_per_bin(WIDTH_S)[:n_bins] @ gates * WIDTH_S)
    base = np.maximum(counts.sum(axis=0) / counts.sum(), 0.01)
    return DynamicsData(
        counts.astype(float), WIDTH_S, np.full(n_gates, BACKGROUND_PER_S / n_gates), base, 200.0
    )


def levels_of(data: DynamicsData, light: np.ndarray, rates: np.ndarray) -> list[Optimum]:
    """Levels alone, two to four, climbed from the truth and from what it joins to."""
    signal = light[:, None] * SHAPE[data.n_gates]
    point = DynamicsPoint(signal, np.where(np.eye(4) > 0, 0.0, rates + 0.05), np.empty(0))
    optima, like = [], None
    for n_levels in (2, 3, 4):
        posterior = DynamicsPosterior(data, MODEL, Family(), n_levels, likelihood=like)
        like = posterior.likelihood
        start = point if n_levels == 4 else merged_levels(point, np.ones(4), n_levels)
        optima.append(evidence_at(climb(posterior, posterior.pack(start))))
    return optima


@cache
def dot(kind: str, seed: int) -> list[Optimum]:
    """Optima of a simulated pair, of a pair whose emitters are alike, or of four levels."""
    rng = np.random.default_rng(seed)
    if kind == "single":
        light, rates = np.array([5000.0, 3300.0, 2000.0, 500.0]), CYCLE * rng.uniform(0.7, 1.4)
    else:
        first, second = 3000.0, 3000.0 if kind == "alike" else 1800.0
        light = 300.0 + np.array([0.0, first, second, first + second])
        on, off = rng.uniform(0.8, 2.5, (2, 2))
        rates = pair_rates(tuple(on), tuple(off))
    return levels_of(data_of(light, rates, 30.0, seed), light, rates)


def small(n_gates: int) -> PairPosterior:
    light = np.array([200.0, 1700.0, 1100.0, 2600.0])
    data = data_of(light, pair_rates((2.0, 3.0), (3.0, 2.0)), 4.0, 3, n_gates)
    return PairPosterior(DynamicsPosterior(data, MODEL, Family(), 4))


def some_vector(n_gates: int) -> np.ndarray:
    light = np.array([200.0, 1500.0, 900.0])[:, None] * SHAPE[n_gates]
    return np.log(np.concatenate([light.ravel(), [2.0, 3.0, 3.0, 2.0]]))


# --------------------------------------------------------------------------- the density


@pytest.mark.parametrize("n_gates", [1, 2])
@pytest.mark.parametrize("focused", [False, True])
def test_the_gradient_is_that_of_the_density(n_gates: int, focused: bool) -> None:
    pair, vector = small(n_gates), some_vector(n_gates) + 0.1
    if focused:
        pair.focus(vector)
    slope = pair.gradient(vector)[1]
    prior_slope = pair.log_prior(vector)[1]
    assert slope.shape == (pair.size,) == (3 * n_gates + 4,)
    for k in range(pair.size):
        step = np.zeros(pair.size)
        step[k] = 1e-4
        ahead, behind = vector + step, vector - step
        by_difference = (pair.log_density(ahead) - pair.log_density(behind)) / 2e-4
        assert slope[k] == pytest.approx(by_difference, rel=1e-4, abs=2e-4)
        by_difference = (pair.log_prior(ahead)[0] - pair.log_prior(behind)[0]) / 2e-4
        assert prior_slope[k] == pytest.approx(by_difference, rel=1e-5, abs=1e-6)


def test_the_prior_is_the_one_that_is_claimed() -> None:
    pair, vector = small(2), some_vector(2)
    light, rates = pair.emitters(vector)
    part = light.sum(axis=1)
    total, top, exits = part.sum(), MODEL.brightest_rate_per_s, MODEL.exit_rate_per_s
    expected = stats.norm.logpdf(np.log(total), np.log(top.median), top.sigma)
    # two free shares seen in logs, and then each decay
    expected += np.log(2.0) + np.log(part / total).sum()
    weight = pair.data.concentration * pair.data.base
    for row in light:
        share = row / row.sum()
        expected += stats.dirichlet.logpdf(share, weight / weight.sum() * 200.0)
        expected += np.log(share).sum()
    expected += stats.norm.logpdf(np.log(rates), np.log(exits.median), exits.sigma).sum()
    assert pair.log_prior(vector)[0] == pytest.approx(expected, rel=1e-9)


def test_states_add_and_only_one_emitter_switches_at_a_time() -> None:
    pair, vector = small(2), some_vector(2)
    point = pair.unpack(vector)
    light, _ = pair.emitters(vector)
    np.testing.assert_allclose(point.signal_per_s[3], light.sum(axis=0))
    np.testing.assert_allclose(point.signal_per_s[1] - point.signal_per_s[0], light[1])
    np.testing.assert_allclose(
        point.transition_rate_per_s, pair_rates((2.0, 3.0), (3.0, 2.0)), rtol=1e-12
    )


def test_the_evidence_is_the_integral_of_the_density() -> None:
    pair = small(1)
    top = climb(pair, some_vector(1))
    hessian, scale = pair.hessian(top.vector)
    pair.active = None
    value = pair.log_density(top.vector) + log_volume(hessian, scale) + pair.log_orders
    proposal = stats.multivariate_t(top.vector, np.linalg.inv(hessian), df=6, seed=5)
    draws = proposal.rvs(3000)
    logs = np.array([pair.log_density(one) for one in draws]) - proposal.logpdf(draws)
    weights = np.exp(logs - logs.max())
    assert weights.sum() ** 2 / (weights**2).sum() > 300
    # half of the integral is around the other order of the two
    brute = logs.max() + np.log(weights.mean()) + np.log(2.0)
    assert value == pytest.approx(brute, abs=0.4)


# ---------------------------------------------------------------------- simulated dots


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_emitters_are_told_from_four_levels(seed: int) -> None:
    optima = dot("pair", seed)
    found = compare_pair(optima)
    assert found is not None
    assert found.probability > 0.9
    assert pair_probability(optima) == pytest.approx(found.probability)
    np.testing.assert_allclose(found.pair.brightness_per_s, [3000.0, 1800.0], rtol=0.05)
    assert found.pair.least_visits > 5.0
    assert found.pair.base_per_s == pytest.approx(300.0, abs=60.0)
    remark = pair_remark(found)
    assert remark.startswith("may be more than one dot: two emitters of ")
    assert "four levels of one (odds e^" in remark


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_four_levels_of_one_dot_are_no_pair(seed: int) -> None:
    optima = dot("single", seed)
    found = compare_pair(optima)
    assert found is not None
    assert found.probability < 1e-3
    assert pair_remark(found) == ""


def test_two_emitters_that_are_alike_look_like_three_levels() -> None:
    optima = dot("alike", 1)
    found = compare_pair(optima)
    assert found is not None
    assert found.probability > 0.9
    np.testing.assert_allclose(found.pair.brightness_per_s, [3000.0, 3000.0], rtol=0.1)


def test_three_and_four_levels_lead_to_the_same_pair() -> None:
    _, three, four = dot("pair", 1)
    first, second = pair_evidence(three), pair_evidence(four)
    assert first.log_evidence == pytest.approx(second.log_evidence, abs=0.5)
    assert second.log_bayes_factor == pytest.approx(second.log_evidence - four.log_evidence)
    np.testing.assert_allclose(first.on_rate_per_s, second.on_rate_per_s, rtol=0.05)
    np.testing.assert_allclose(first.off_rate_per_s, second.off_rate_per_s, rtol=0.05)


def test_three_levels_that_any_pair_would_fit_are_no_pair() -> None:
    # second only with the first and first before it: both dark, first, both bright, and no fourth
    light = np.array([1000.0, 3000.0, 4600.0])
    rates = np.array([[0.0, 5.0, 0.0], [0.5, 0.0, 0.3], [0.0, 2.0, 0.0]])
    data = data_of(light, rates, 20.0, 1)
    posterior = DynamicsPosterior(data, MODEL, Family(), 3)
    point = DynamicsPoint(light[:, None] * SHAPE[2], rates + 0.05, np.empty(0))
    optimum = evidence_at(climb(posterior, posterior.pack(point)))
    assert pair_evidence(optimum).least_visits < 2.0
    assert compare_pair([optimum]) is None
    assert pair_probability([optimum]) == 0.0


def test_a_lower_prior_makes_a_pair_less_probable() -> None:
    optima = dot("pair", 1)
    few, many = compare_pair(optima, 1e-6), compare_pair(optima, 0.5)
    assert few is not None
    assert many is not None
    assert few.log_odds < many.log_odds


def test_without_three_or_four_levels_there_is_nothing_to_compare() -> None:
    two = dot("pair", 1)[:1]
    assert compare_pair(two) is None
    assert pair_probability(two) == 0.0
    assert pair_remark(None) == ""


def test_wrong_input_is_named() -> None:
    two, three, _ = dot("pair", 1)
    with pytest.raises(ValueError, match="`optimum` must be of 3 or 4 levels alone, got 2"):
        pair_evidence(two)
    with pytest.raises(ValueError, match="`optimum` needs its log evidence"):
        pair_evidence(replace(three, log_evidence=np.nan))
    with pytest.raises(ValueError, match="`prior`"):
        compare_pair([three], prior=1.0)
    with pytest.raises(ValueError, match="`optima` must have log evidence"):
        pair_probability([])
    noisy = DynamicsPosterior(three.posterior.data, MODEL, Family(excess=True), 3)
    with pytest.raises(ValueError, match="excess noise"):
        pair_evidence(replace(three, posterior=noisy))


# ------------------------------------------------------------------------- coincidences

PERIOD_NS = 400.0


def stream(emitters: list[float], background: float, seed: int, *, fine: bool = False) -> Photons:
    """Pulses of emitters that give one photon at most, and of a background that may give more."""
    rng = np.random.default_rng(seed)
    n_pulses = 6_000_000
    pulse = [np.flatnonzero(rng.random(n_pulses) < share) for share in emitters]
    pulse.append(rng.integers(0, n_pulses, rng.poisson(background * n_pulses)))
    every = np.concatenate(pulse)
    detector = rng.integers(0, 2, every.size).astype(np.uint8)
    ticks = every.astype(np.int64)
    if fine:
        ticks = ticks * int(PERIOD_NS) + rng.exponential(20.0, every.size).astype(np.int64) + 30
    order = np.argsort(ticks, kind="stable")
    tick_s = 1e-9 if fine else PERIOD_NS * 1e-9
    return Photons(
        ticks[order], tick_s, detector[order], period_ns=PERIOD_NS,
        duration_s=n_pulses * PERIOD_NS * 1e-9 + 1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("fine", [False, True])
def test_one_emitter_has_no_coincidences_but_those_of_the_background(fine: bool) -> None:
    share = 0.002
    found = antibunching(
        stream([0.02], share, 1, fine=fine), background_rate_per_s=share * 1e9 / PERIOD_NS
    )
    assert found is not None
    assert found.n_zero > 100
    assert found.n_background == pytest.approx(found.n_zero, rel=0.2)
    assert found.high < 0.1
    assert found.verdict == "a single emitter"
    assert "a second has at most" in found.sentence


def test_three_emitters_are_more_than_one() -> None:
    found = antibunching(stream([0.01, 0.01, 0.01], 0.0, 2), background_rate_per_s=0.0)
    assert found is not None
    assert found.low < 2.0 / 3.0 < found.high
    assert found.verdict == "not antibunched"
    assert "there are several" in found.sentence


def test_two_alike_emitters_are_not_decided() -> None:
    found = antibunching(stream([0.005, 0.005], 0.0, 3), background_rate_per_s=0.0)
    assert found is not None
    assert found.low < 0.5 < found.high
    assert found.verdict == "not decided"


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_pulses = 200_000
        pulse = np.concatenate([np.flatnonzero(rng.random(n_pulses) < 0.01) for _ in range(2)])
        pulse.sort()
        photons = Photons(
            pulse, 1e-6, rng.integers(0, 2, pulse.size).astype(np.uint8), period_ns=1e3,
            duration_s=0.21,
        )  # fmt: skip
        found = antibunching(photons, background_rate_per_s=0.0)
        assert found is not None
        covered.append(found.low < 0.5 < found.high)
    assert np.mean(covered) >= 0.8


def test_simulated_excitons_are_antibunched_while_the_dot_blinks() -> None:
    photons = simulate(
        SimulationSettings(
            states=(
                SimulatedState(quantum_yield=1.0, lifetimes_ns=(20.0,), biexciton_yield_ratio=0.1),
                SimulatedState(quantum_yield=0.1, lifetimes_ns=(5.0,), biexciton_yield_ratio=0.1),
            ),
            exit_rates_per_s=(2.0, 2.0),
            duration_s=20.0,
            mean_excitons_per_pulse=0.1,
            detection_efficiency=0.2,
        ),
        random_seed=4,
    ).photons
    found = antibunching(photons)
    assert found is not None
    assert found.verdict == "a single emitter"
    assert 0.03 < found.g2_zero < 0.2


def test_without_two_detectors_or_a_clock_nothing_is_said() -> None:
    photons = stream([0.02], 0.0, 1)
    assert photons.detector is not None
    assert antibunching(replace(photons, detector=np.zeros_like(photons.detector))) is None
    assert antibunching(replace(photons, period_ns=None)) is None
    # ticks of two thirds of a period do not tell pulses apart
    assert antibunching(replace(photons, period_ns=1.5 * PERIOD_NS)) is None
    # all that is there is background
    dark = stream([], 0.01, 1)
    assert antibunching(dark, background_rate_per_s=0.01 * 1e9 / PERIOD_NS) is None
    with pytest.raises(ValueError, match="`background_rate_per_s`"):
        antibunching(photons, background_rate_per_s=-1.0)
