"""The free onset of a ladder, and the warning of laws that are cut off at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad

from pncbayes.inference.ladder import fit_ladder
from pncbayes.inference.ladder_posterior import DYNAMICS, LadderData, LadderPosterior, LadderPriors
from pncbayes.physics.ladder import TruncatedPowerLaw
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import PowerLawDwell
from pncbayes.physics.state_path import StatePath, simulate_jumps

WIDTH_S = 0.01
Counts = NDArray[np.float64]


def counts_of(path: StatePath, rng: np.random.Generator) -> Counts:
    share = path.occupancy_per_bin(WIDTH_S)[:, 0]
    drawn: Counts = rng.poisson((share * 8e3 + (1.0 - share) * 4e2) * WIDTH_S).astype(float)
    return drawn


def posterior(counts: Counts, dynamics: str, n_delays: int = 2) -> LadderPosterior:
    return LadderPosterior(
        LadderData(counts, WIDTH_S, 0.005), LadderPriors.of_model(load_model("free")), dynamics,
        None, n_steps=5, n_delays=n_delays, free_onset=True,
    )  # fmt: skip


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_each_ladder_with_a_delay_has_an_onset(dynamics: str) -> None:
    counts = np.random.default_rng(1).poisson(np.repeat([60.0, 4.0], 30)).astype(float)
    found = posterior(counts, dynamics)
    onsets = [name for name in found.names if name.startswith("onset")]
    expected = zip(("on", "off"), DYNAMICS[dynamics], strict=True)
    assert onsets == [f"onset_{level}" for level, ladder in expected if ladder]
    assert not any("onset" in name for name in posterior(counts, dynamics, n_delays=0).names)
    point = found.starts(counts)[0] + np.random.default_rng(2).normal(0.0, 0.05, found.size)
    parameters = found.physical(point)
    np.testing.assert_allclose(found.coordinates(parameters), point)
    value, slope = found.gradient(point)
    assert value == pytest.approx(found.value(point), abs=1e-8)
    for i in range(point.size):
        step = np.zeros(point.size)
        step[i] = 1e-4
        numerical = (found.value(point + step) - found.value(point - step)) / 2e-4
        assert slope[i] == pytest.approx(numerical, rel=1e-5, abs=1e-3)


def test_prior_of_the_onset_has_mass_one() -> None:
    found = posterior(np.full(20, 5.0), "ladder")
    point = found.starts(np.array([1.0, 1.0, 60.0, 60.0, 1.0] * 4))[0]
    place = found.names.index("onset_off")

    def density(value: float) -> float:
        moved = point.copy()
        moved[place] = value
        return math.exp(found.log_prior(moved) - found.log_prior(point))

    low, high = (bound[place] for bound in found.bounds())
    mass = quad(density, low + 1e-9, high - 1e-9, points=[point[place]])[0]
    assert mass == pytest.approx(0.07 * math.sqrt(2.0 * math.pi), rel=1e-3)


def test_a_free_onset_widens_the_exponent() -> None:
    rng = np.random.default_rng(3)
    law = TruncatedPowerLaw(1.7, 1.0, 0.005)
    ends = np.concatenate([[0.0], np.cumsum(law.draw(4000, rng))])
    ends = ends[ends < 15.0]
    counts = counts_of(StatePath(ends, np.arange(ends.size) % 2, 15.0, 2), rng)
    known = LadderPriors.of_model(load_model("free"))
    widths = []
    for sigma in (0.01, 0.3):
        priors = LadderPriors(**(vars(known) | {"onset": type(known.onset)(1.07, sigma)}))
        found = fit_ladder(
            counts, WIDTH_S, dynamics="ladder", priors=priors, n_steps=5, n_delays=3,
            n_draws=100, random_seed=4,
        )  # fmt: skip
        line = found.table().loc["alpha_on"]
        assert line["q05"] - 0.1 < 1.7 < line["q95"] + 0.1
        widths.append(line["q95"] - line["q05"])
        assert set(found.abrupt) == {"on", "off"}
        assert min(found.abrupt.values()) > 0.01
        assert not any("cut off" in warning for warning in found.warnings)
    assert widths[1] > widths[0]


def test_a_law_that_is_cut_off_at_once_is_told() -> None:
    rng = np.random.default_rng(5)
    laws = [PowerLawDwell(1.3, 0.005, 0.5), PowerLawDwell(1.5, 0.005, 0.5)]
    path = simulate_jumps(np.zeros((2, 2)), 50.0, dwell_laws=laws, random_seed=rng)
    found = fit_ladder(
        counts_of(path, rng),
        WIDTH_S,
        dynamics="ladder",
        n_steps=5,
        n_delays=3,
        n_draws=100,
        random_seed=6,
    )
    assert min(found.abrupt.values()) <= 0.01
    assert any("cut off at once" in warning for warning in found.warnings)
    assert found.summary()["abrupt_on"] == found.abrupt["on"]


def test_few_dwells_are_not_judged() -> None:
    counts = np.repeat([60, 4], 30)
    found = fit_ladder(
        counts, WIDTH_S, dynamics="ladder", n_steps=4, n_delays=1, n_draws=100, random_seed=7
    )
    assert found.abrupt == {}
