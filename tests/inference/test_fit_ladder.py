"""Power-law dwell times inside the hidden Markov model: gradient, evidence, recovery."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad

from pncbayes.inference.ladder import LadderFit, fit_ladder
from pncbayes.inference.ladder_draws import climb, sample
from pncbayes.inference.ladder_posterior import (
    DYNAMICS,
    LadderData,
    LadderPosterior,
    LadderPriors,
    split_levels,
)
from pncbayes.physics.ladder import TruncatedPowerLaw
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.state_path import StatePath, simulate_jumps

WIDTH_S = 0.01
ON, OFF = 8e3, 4e2
FITTED = ("ladder", "on_ladder", "exponential")
Counts = NDArray[np.float64]


def counts_of(path: StatePath, rng: np.random.Generator) -> Counts:
    share = path.occupancy_per_bin(WIDTH_S)[:, 0]
    drawn: Counts = rng.poisson((share * ON + (1.0 - share) * OFF) * WIDTH_S).astype(float)
    return drawn


def power_law_counts(duration_s: float, seed: int) -> Counts:
    """Exponents 1.3 and 1.8, truncation times 3 and 0.5 s, from 5 ms on."""
    rng = np.random.default_rng(seed)
    laws = (TruncatedPowerLaw(1.3, 3.0, 0.005), TruncatedPowerLaw(1.8, 0.5, 0.005))
    dwells = np.stack([law.draw(4000, rng) for law in laws], axis=1).ravel()
    times = np.concatenate([[0.0], np.cumsum(dwells)])
    times = times[times < duration_s]
    path = StatePath(times, np.arange(times.size) % 2, duration_s, 2)
    return counts_of(path, rng)


def posterior(counts: Counts, dynamics: str, shortest_s: float | None) -> LadderPosterior:
    data = LadderData(counts, WIDTH_S, 0.005)
    return LadderPosterior(
        data, LadderPriors.of_model(load_model("free")), dynamics, shortest_s, n_steps=5, n_delays=2
    )


@pytest.fixture(scope="module")
def blinking() -> Counts:
    return power_law_counts(40.0, 1)


@pytest.fixture(scope="module")
def blinking_fit(blinking: Counts) -> LadderFit:
    return fit_ladder(blinking, WIDTH_S, dynamics=FITTED, n_steps=6, n_draws=100, random_seed=2)


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("shortest_s", [None, 0.006])
def test_gradient_is_that_of_the_value(dynamics: str, shortest_s: float | None) -> None:
    found = posterior(power_law_counts(3.0, 3), dynamics, shortest_s)
    point = found.starts(power_law_counts(3.0, 3))[0]
    point = point + np.random.default_rng(4).normal(0.0, 0.05, point.size)
    value, slope = found.gradient(point)
    assert value == pytest.approx(found.value(point), abs=1e-8)
    for i in range(point.size):
        step = np.zeros(point.size)
        step[i] = 1e-4
        numerical = (found.value(point + step) - found.value(point - step)) / 2e-4
        assert slope[i] == pytest.approx(numerical, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_coordinates_and_parameters_are_inverse(dynamics: str) -> None:
    found = posterior(np.full(20, 5.0), dynamics, None)
    point = np.array([9.0, -2.0, *np.linspace(-0.4, 0.3, found.size - 2)])
    if found.names[-1] == "shortest_s":
        point[-1] = math.log(0.004)
    parameters = found.physical(point)
    assert list(parameters) == found.names
    np.testing.assert_allclose(found.coordinates(parameters), point)


def test_prior_has_mass_one() -> None:
    found = posterior(np.full(20, 5.0), "ladder", None)
    centre = np.array([math.log(1e4), -1.0, 0.0, math.log(2.0), 0.0, math.log(2.0), math.log(5e-3)])
    low, high = found.bounds()
    log_mass = found.log_prior(centre) * (1 - centre.size)
    for i in range(centre.size):

        def density(value: float, place: int = i) -> float:
            point = centre.copy()
            point[place] = value
            return math.exp(found.log_prior(point))

        reach = (max(low[i] + 1e-9, centre[i] - 20.0), min(high[i] - 1e-9, centre[i] + 20.0))
        log_mass += math.log(quad(density, *reach, points=[centre[i]], limit=200)[0])
    # what the bounds cut off is not made up for
    assert log_mass == pytest.approx(0.0, abs=0.05)


def test_evidence_is_the_integral_over_a_grid() -> None:
    """Exponential dwells, brightness far better known than the rates: two dimensions are left."""
    rng = np.random.default_rng(5)
    rates = np.array([[0.0, 3.0], [2.0, 0.0]])
    counts = counts_of(simulate_jumps(rates, 5.0, random_seed=rng), rng)
    found = posterior(counts, "exponential", None)
    one, reliable = sample(found, climb(found, counts), 600, rng)
    assert reliable
    top, _ = climb(found, counts)
    step = np.array([0.35, 0.35])
    grid = np.arange(-8, 9)
    values = np.array([
        [found.value(top + np.array([0.0, 0.0, a * step[0], b * step[1]])) for b in grid]
        for a in grid
    ])  # fmt: skip
    peak = values.max()
    log_grid = peak + math.log(np.exp(values - peak).sum() * step.prod())
    curvature = np.empty((2, 2))
    for i in range(2):
        shift = np.zeros(4)
        shift[i] = 1e-3
        change = found.gradient(top - shift)[1] - found.gradient(top + shift)[1]
        curvature[i] = change[:2] / 2e-3
    log_grid += math.log(2 * math.pi) - 0.5 * float(np.linalg.slogdet(curvature)[1])
    assert one.log_evidence == pytest.approx(log_grid, abs=0.15)
    assert one.laplace == pytest.approx(log_grid, abs=0.3)


def test_recovers_a_power_law(blinking_fit: LadderFit) -> None:
    table = blinking_fit.table()
    truth = {
        "on_rate_per_s": ON, "off_rate_per_s": OFF, "alpha_on": 1.3, "truncation_on_s": 3.0,
        "alpha_off": 1.8, "truncation_off_s": 0.5, "shortest_s": 0.005,
    }  # fmt: skip
    for name, value in truth.items():
        line = table.loc[name]
        slack = 0.3 * (line["q95"] - line["q05"]) + 0.12 * value * (name == "shortest_s")
        assert line["q05"] - slack < value < line["q95"] + slack, name
    assert table.loc["alpha_on", "q95"] - table.loc["alpha_on", "q05"] < 0.3
    assert blinking_fit.best == "ladder"
    assert blinking_fit.log_bayes_factor() > 100
    assert blinking_fit.log_bayes_factor("ladder", "on_ladder") > 10
    one = blinking_fit.posteriors["ladder"]
    assert one.weights.sum() == pytest.approx(1.0)
    assert one.effective > 40
    assert abs(one.log_evidence - one.laplace) < 1.0


def test_result_as_tables(blinking_fit: LadderFit) -> None:
    table = blinking_fit.table()
    assert list(table) == ["mean", "sd", "q05", "median", "q95"]
    assert ((table["q05"] <= table["median"]) & (table["median"] <= table["q95"])).all()
    assert "exit_rate_on_per_s" in blinking_fit.table("exponential").index
    evidences = blinking_fit.evidence_table()
    assert list(evidences.index) == list(FITTED)
    assert evidences.loc["ladder", "below_best"] == 0.0
    summary = blinking_fit.summary()
    assert summary["dynamics"] == summary["best_dynamics"] == "ladder"
    assert summary["alpha_on_q05"] == table.loc["alpha_on", "q05"]
    assert summary["log_bayes_factor_ladder_exponential"] == blinking_fit.log_bayes_factor()
    with pytest.raises(ValueError, match="`dynamics` must be one of"):
        blinking_fit.table("other")


def test_exponential_dwells_are_no_power_law() -> None:
    rng = np.random.default_rng(6)
    rates = np.array([[0.0, 2.0], [4.0, 0.0]])
    counts = counts_of(simulate_jumps(rates, 15.0, random_seed=rng), rng)
    found = fit_ladder(
        counts, WIDTH_S, n_steps=5, n_delays=3, shortest_s=0.005, n_draws=100, random_seed=7
    )
    assert found.best == "exponential"
    assert found.log_bayes_factor() < -3
    line = found.table("exponential").loc["exit_rate_on_per_s"]
    assert line["q05"] * 0.8 < 2.0 < line["q95"] * 1.2
    with pytest.raises(ValueError, match="was not fitted"):
        found.log_bayes_factor("on_ladder")


def test_a_steady_dot_gives_wide_intervals() -> None:
    counts = np.random.default_rng(8).poisson(50.0, 300)
    found = fit_ladder(
        np.column_stack([counts, np.zeros(300)]), WIDTH_S, random_seed=9, n_steps=5, n_draws=100
    )
    assert all(math.isfinite(one.log_evidence) for one in found.posteriors.values())
    line = found.table().loc["alpha_on"]
    assert line["q95"] - line["q05"] > 0.5


def test_seeds_repeat_and_gates_are_summed() -> None:
    counts = np.random.default_rng(10).poisson([[20.0, 5.0]], (40, 2))
    found = [
        fit_ladder(data, WIDTH_S, dynamics="exponential", n_draws=100, random_seed=11).summary()
        for data in (counts, counts.sum(axis=1))
    ]
    assert found[0] == found[1]


def test_levels_are_split() -> None:
    on, off, threshold = split_levels(np.array([1.0, 2.0, 30.0, 31.0, 29.0, 1.0]))
    assert (on, off) == (30.0, 1.0)
    assert 2.0 < threshold < 29.0
    assert split_levels(np.full(5, 4.0))[0] > 4.0


def test_bad_input_is_named() -> None:
    good = np.full(50, 5)
    for counts, message in (
        (np.full(3, 5), "shape"),
        (np.full((5, 5, 5), 5), "shape"),
        (np.full(50, 0.5), "whole numbers"),
        (np.full(50, -1.0), "whole numbers"),
        (np.full(50, np.nan), "whole numbers"),
        (np.zeros(50), "no photon"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_ladder(counts, WIDTH_S)
    with pytest.raises(ValueError, match="`width_s`"):
        fit_ladder(good, 0.0)
    with pytest.raises(ValueError, match="`shortest_s` must be"):
        fit_ladder(good, WIDTH_S, shortest_s=1.0)
    with pytest.raises(ValueError, match="`dynamics` must be different"):
        fit_ladder(good, WIDTH_S, dynamics=("ladder", "stairs"))
    with pytest.raises(ValueError, match="`n_draws`"):
        fit_ladder(good, WIDTH_S, n_draws=10)
    with pytest.raises(ValueError, match="`random_seed`"):
        fit_ladder(good, WIDTH_S, random_seed=-1)
