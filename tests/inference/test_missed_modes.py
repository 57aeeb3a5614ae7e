"""Modes that the climbs missed are found by the draws, and lead on to more states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference import evidence, scan
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.optimum import Mode, find_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.physics.modelfile import load_model

WIDTH_S = 0.01
MODEL = load_model("free")


def three_levels(seed: int) -> NDArray[np.float64]:
    """Counts of a dot with three levels, each visited for ten bins many times."""
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.integers(3, size=60), 10)
    return rng.poisson(np.array([30.0, 16.0, 5.0])[states]).astype(float)[:, None]


def far_from_the_top(posterior: Posterior) -> Mode:
    """A point beside the top, not climbed from: as if it were a mode."""
    rate = np.array([3200.0, 1690.0, 560.0])
    jumps = np.full((posterior.n_states, posterior.n_states), 3.0)
    np.fill_diagonal(jumps, 0.0)
    vector = posterior.pack(Parameters(rate[:, None], jumps, float("nan"), None))
    value, _, parts = posterior.gradient(vector)
    return Mode(vector, value, parts)


def test_the_evidence_starts_again_from_a_better_mode() -> None:
    counts = three_levels(1)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    posterior = working_posterior(likelihood, MODEL, 3)
    modes = find_modes(posterior, counts, WIDTH_S, None, np.random.default_rng(2))
    missed = far_from_the_top(posterior)
    assert missed.log_density < modes[0].log_density - 10.0
    expected = estimate_evidence(posterior, modes, np.random.default_rng(3), n_draws=1000)
    found = estimate_evidence(posterior, [missed], np.random.default_rng(4), n_draws=1000)
    assert expected.method == found.method == "importance"
    assert found.mode.log_density == pytest.approx(expected.mode.log_density, abs=0.05)
    assert found.log_evidence == pytest.approx(expected.log_evidence, abs=0.15)
    assert found.laplace == pytest.approx(expected.laplace, abs=0.05)


def test_more_states_are_looked_for_from_what_was_found_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = three_levels(2)
    likelihood = BinnedLikelihood(counts, WIDTH_S)

    def numbers_of_states() -> NDArray[np.float64]:
        rng = np.random.default_rng(5)
        return probabilities(scan_n_states(likelihood, counts, MODEL, range(1, 5), rng))

    expected = numbers_of_states()
    asked: list[tuple[int, bool]] = []

    def poor(posterior: Posterior, *rest: Any, **settings: Any) -> list[Mode]:
        asked.append((posterior.n_states, settings.get("n_starts") == 0))
        if posterior.n_states == 3 and not asked[-1][1]:
            return [far_from_the_top(posterior)]
        return find_modes(posterior, *rest, **settings)

    monkeypatch.setattr(scan, "find_modes", poor)
    found = numbers_of_states()
    # four states were looked for once more, from the three that the draws led to
    assert asked.count((4, True)) == 1
    assert expected.argmax() == 2
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_climb_that_leads_nowhere_leaves_the_density_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With gates the density depends on the bins in focus: all draws need the same."""
    rng = np.random.default_rng(6)
    states = np.repeat(rng.integers(2, size=60), 10)
    mean = np.array([[6.0, 9.0, 15.0], [6.0, 2.0, 0.5]])[states]
    counts = rng.poisson(mean).astype(float)
    posterior = working_posterior(BinnedLikelihood(counts, WIDTH_S), MODEL, 2)
    modes = find_modes(posterior, counts, WIDTH_S, None, np.random.default_rng(7))
    # by importance sampling, although there are chains for counts in gates
    monkeypatch.setattr(evidence._Estimate, "_many_parameters", lambda self: False)
    monkeypatch.setattr(evidence, "_LONE", np.inf)
    in_focus: list[object] = []

    def climbed(posterior: Posterior, vector: NDArray[np.float64], **settings: Any) -> Mode:
        in_focus.append(posterior.active)
        posterior.focus(vector)
        value, _, parts = posterior.gradient(vector)
        return Mode(vector, value - 50.0, parts, modes[0].log_concentration)

    monkeypatch.setattr(evidence, "climb", climbed)
    estimate_evidence(posterior, modes, np.random.default_rng(9), n_draws=25)
    assert len(in_focus) > 1
    assert all(active is in_focus[0] for active in in_focus)
