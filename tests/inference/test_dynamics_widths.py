"""Wider bins contradict what only one width says, and too many parts identify nothing."""

from functools import cache

import numpy as np
import pytest

from pncbayes.inference.dynamics_checks import check_dynamics
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, climb, evidence_at
from pncbayes.inference.dynamics_verdict import doubts, kind_of
from pncbayes.inference.dynamics_widths import at_other_width, exits_per_s, rivals_of, wider
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.state_path import simulate_jumps

MODEL = load_model("free")
WIDTH_S, SECONDS = 0.01, 30.0
RATES = np.array([[0.0, 2.0], [3.0, 0.0]])


@cache
def data() -> DynamicsData:
    rng = np.random.default_rng(4)
    n_bins = int(SECONDS / WIDTH_S)
    path = simulate_jumps(RATES, SECONDS, random_seed=rng)
    light = path.occupancy_per_bin(WIDTH_S)[:n_bins] @ np.array([8e3, 2e3])
    counts = rng.poisson(light * WIDTH_S)[:, None].astype(float)
    return DynamicsData(counts, WIDTH_S, np.zeros(1), np.ones(1), concentration=200.0)


@cache
def mode(n_levels: int) -> Optimum:
    """The mode with so many levels, no flicker."""
    posterior = DynamicsPosterior(data(), MODEL, Family(), n_levels)
    light = np.array([[8e3], [2e3], [4e3]])[:n_levels]
    rates = np.full((n_levels, n_levels), 1.0)
    np.fill_diagonal(rates, 0.0)
    start = posterior.pack(DynamicsPoint(light, rates, np.empty(0)))
    return evidence_at(climb(posterior, start, exact=True))


def flat(one: Optimum) -> float:
    """All families alike beforehand."""
    return 0.0


def test_joined_bins_hold_the_same_photons() -> None:
    joined = wider(data(), 7)
    whole = data().counts.shape[0] // 7 * 7
    assert joined.width_s == pytest.approx(0.07)
    assert joined.counts.sum() == data().counts[:whole].sum()
    assert joined.counts[3] == data().counts[21:28].sum()


def test_too_few_bins_are_not_joined() -> None:
    with pytest.raises(ValueError, match="factor"):
        wider(data(), 10**6)


def test_exits_are_those_of_the_rates() -> None:
    rates, numbers = exits_per_s(mode(2))
    wanted = mode(2).point.transition_rate_per_s.sum(axis=1)
    bright = int(np.argmax(mode(2).point.signal_per_s[:, 0]))
    assert rates == pytest.approx([wanted[bright], wanted[1 - bright]])
    # as many switches there as back
    assert numbers[0] == pytest.approx(numbers[1], abs=3.0)


def test_a_right_answer_outlives_wider_bins() -> None:
    optima = sorted([mode(1), mode(2), mode(3)], key=lambda one: -one.log_evidence)
    assert optima[0].n_levels == 2
    found = at_other_width(optima, kind_of, flat)
    assert found.reasons == ()
    assert (found.kind, found.n_levels, found.log_odds) == ("blinking", 2, 0.0)
    assert found.width_s == pytest.approx(0.02)
    assert found.exits_per_s[1] == pytest.approx(found.exits_per_s[0], rel=0.15)


def test_an_answer_that_only_one_width_gives_is_contradicted() -> None:
    """One level is put first: bins twice as wide want two, by far."""
    found = at_other_width([mode(1), mode(2)], kind_of, flat)
    assert found.log_odds > 100.0
    assert "blinking, 2 levels" in found.reasons[0]


def test_rates_that_depend_on_the_bins_are_told() -> None:
    """The mode of the first width is moved away: its rates are four times too high."""
    best = mode(2)
    point = best.point
    wrong = DynamicsPoint(point.signal_per_s, 4.0 * point.transition_rate_per_s, np.empty(0))
    moved = Optimum(best.posterior, best.posterior.pack(wrong), -1.0, -1.0, log_evidence=0.0)
    found = at_other_width([moved], kind_of, flat)
    assert any("depends on the bins" in text for text in found.reasons)


def test_rivals_are_one_of_each_answer() -> None:
    chosen = rivals_of([mode(2), mode(3), mode(1), mode(3)], kind_of)
    assert [one.n_levels for one in chosen] == [3, 1]


def test_too_many_parts_describe_and_do_not_identify() -> None:
    family = Family("common", excess=True, level_of=(0, 1, 1))
    posterior = DynamicsPosterior(data(), MODEL, family, 2, 9)
    rates = np.full((3, 3), 1.0)
    np.fill_diagonal(rates, 0.0)
    light = np.array([[8e3], [2e3], [2e3]])
    vector = posterior.pack(DynamicsPoint(light, rates, np.array([0.1]), 1.0))
    every = Optimum(posterior, vector, 0.0, 0.0, log_evidence=0.0)
    checks = check_dynamics(mode(2), np.random.default_rng(1), n_replicates=150)
    shares = {"blinking": 1.0}
    assert any("identifies nothing" in text for text in doubts(every, 1.0, shares, checks, 6))
    assert doubts(mode(2), 1.0, shares, checks, 6) == []
    assert "no verdict is probable" in doubts(mode(2), 0.5, {"blinking": 0.5}, checks, 6)[0]
    assert "as many levels as are allowed" in doubts(mode(3), 1.0, shares, checks, 3)[0]
