"""The ladder of hidden sub-states against the exact truncated power law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.special import expn

from pncbayes.physics.ladder import (
    Ladder,
    TruncatedPowerLaw,
    exponential_level,
    ladder_rates,
    make_ladder,
    two_level_rates,
)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_survival_of_whole_exponents_is_an_exponential_integral(exponent: float) -> None:
    law = TruncatedPowerLaw(exponent, 2.0, 0.01)
    times = np.array([0.01, 0.1, 1.0, 10.0])
    exact = times ** (1 - exponent) * expn(int(exponent), times / 2.0)
    np.testing.assert_allclose(law.survival(times), exact / exact[0], rtol=1e-9)
    assert law.survival(0.001) == 1.0


def test_mean_and_draws_are_those_of_the_density() -> None:
    law = TruncatedPowerLaw(1.4, 3.0, 0.02)
    mass, mean = (
        quad(lambda x, p=power: np.exp(p * x - np.exp(x) / 3.0), np.log(0.02), np.log(200.0))[0]
        for power in (-0.4, 0.6)
    )
    assert law.mean_s == pytest.approx(mean / mass, rel=1e-6)
    drawn = law.draw(200_000, np.random.default_rng(3))
    assert drawn.min() >= 0.02
    for time in (0.05, 0.5, 5.0):
        assert (drawn > time).mean() == pytest.approx(float(law.survival(time)), abs=0.004)


@pytest.mark.parametrize("exponent", [1.0, 1.2, 1.5, 1.8, 2.0])
@pytest.mark.parametrize("truncation_s", [0.1, 1.0, 5.0, 20.0])
def test_steps_reproduce_the_power_law(exponent: float, truncation_s: float) -> None:
    law = TruncatedPowerLaw(exponent, truncation_s, 0.01)
    times = np.geomspace(0.01, 10.0 * truncation_s, 200)
    exact = law.survival(times)
    ladder = make_ladder(exponent, truncation_s, 0.01, n_delays=0)
    found = ladder.excess_survival(times - 0.01)
    seen = exact > 1e-4
    np.testing.assert_allclose(found[seen], exact[seen], rtol=0.03)
    np.testing.assert_allclose(found, exact, atol=0.007)
    assert 0.01 + ladder.mean_s == pytest.approx(law.mean_s, rel=0.02)


def test_more_steps_are_closer() -> None:
    law = TruncatedPowerLaw(2.0, 20.0, 0.01)
    times = np.geomspace(0.01, 20.0, 100)
    errors = [
        np.abs(make_ladder(2.0, 20.0, 0.01, n_steps=n, n_delays=0).excess_survival(times - 0.01)
               - law.survival(times)).max()
        for n in (7, 10, 14)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]


def test_delay_makes_the_start_of_the_law() -> None:
    """Survival of the whole chain of a level, by the exponential of its generator."""
    ladder = make_ladder(1.5, 1.0, 0.01, n_delays=6)
    within, exits = ladder_rates(ladder)
    generator = within - np.diag(within.sum(axis=1) + exits)

    def survival(time_s: float) -> float:
        return float(expm(generator * time_s)[0].sum())

    assert survival(0.002) > 0.99
    law = TruncatedPowerLaw(1.5, 1.0, 0.01)
    for time in (0.05, 0.3, 1.0):
        assert survival(time) == pytest.approx(float(law.survival(time)), rel=0.08)
    mean = np.linalg.solve(-generator, np.ones(len(generator)))[0]
    assert mean == pytest.approx(ladder.mean_s)


@pytest.mark.parametrize("n_delays", [0, 1, 4])
def test_chain_of_two_levels(n_delays: int) -> None:
    on = make_ladder(1.3, 2.0, 0.01, n_steps=6, n_delays=n_delays)
    off = exponential_level(0.7)
    for pair in ((on, off), (off, on), (on, make_ladder(1.9, 0.5, 0.02, n_delays=n_delays))):
        rates, initial = two_level_rates(*pair)
        generator = rates - np.diag(rates.sum(axis=1))
        n_on = pair[0].n_states
        assert initial[:n_on].sum() == pytest.approx(0.5)
        assert initial[n_on:].sum() == pytest.approx(0.5)
        # at equilibrium each level has its share of the time
        scaled = np.concatenate([initial[:n_on] * pair[0].mean_s, initial[n_on:] * pair[1].mean_s])
        np.testing.assert_allclose(scaled @ generator, 0.0, atol=1e-11)
        between = rates[:n_on, n_on:]
        assert np.linalg.matrix_rank(between) == 1
    assert isinstance(off, Ladder)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`exponent`"):
        make_ladder(0.1, 1.0, 0.01)
    with pytest.raises(ValueError, match="`truncation_s` must be at least"):
        make_ladder(1.5, 0.001, 0.01)
    with pytest.raises(ValueError, match="`shortest_s`"):
        make_ladder(1.5, 1.0, 0.0)
    with pytest.raises(ValueError, match="`n_steps`"):
        make_ladder(1.5, 1.0, 0.01, n_steps=1)
    with pytest.raises(ValueError, match="`n_delays`"):
        make_ladder(1.5, 1.0, 0.01, n_delays=-1)
    with pytest.raises(ValueError, match="`rate_per_s`"):
        exponential_level(-1.0)
    with pytest.raises(ValueError, match="`exponent`"):
        TruncatedPowerLaw(-1.0, 1.0, 0.01)
