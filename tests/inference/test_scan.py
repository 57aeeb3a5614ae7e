"""Numbers of states that are not worth the work, and those that only seem so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference import scan
from pncbayes.inference.laplace import quick_log_evidence
from pncbayes.inference.optimum import Mode
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.physics.modelfile import load_model

MODEL = load_model("free")
WIDTH_S = 0.01


def two_decays(n_bins: int, seed: int) -> NDArray[np.float64]:
    """Counts in twelve gates of a dot with two states of nearly the same brightness."""
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.integers(2, size=n_bins // 45), 45)
    decay = np.exp(-np.arange(12) / np.array([[5.0], [2.0]]))
    decay /= decay.sum(axis=1, keepdims=True)
    level = np.array([13.0, 9.5])[states]
    return rng.poisson(level[:, None] * decay[states]).astype(float)


def test_surplus_states_with_gates_are_not_dismissed_on_a_quick_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A state that is hardly visited has no mode: its quick figure is low by any amount."""
    # more states are as probable as two: the last figure is no bound for the next
    counts = two_decays(360, seed=0)

    def numbers_of_states() -> NDArray[np.float64]:
        likelihood = BinnedLikelihood(counts, WIDTH_S)
        rng = np.random.default_rng(2)
        return probabilities(scan_n_states(likelihood, counts, MODEL, range(1, 5), rng))

    expected = numbers_of_states()
    assert (expected[1:] > 0.05).all()

    def far_too_low(posterior: Posterior, mode: Mode) -> float:
        return quick_log_evidence(posterior, mode) - 80.0 * max(posterior.n_states - 2, 0)

    monkeypatch.setattr(scan, "quick_log_evidence", far_too_low)
    np.testing.assert_allclose(numbers_of_states(), expected, atol=0.12)


def test_numbers_of_states_far_below_the_best_are_not_integrated() -> None:
    counts = two_decays(2000, seed=3)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    found = scan_n_states(likelihood, counts, MODEL, range(1, 3), np.random.default_rng(4))
    assert found[0].method == "quick"
    assert found[1].method in ("importance", "bridge")
    assert found[0].log_evidence < found[1].log_evidence - 50.0
