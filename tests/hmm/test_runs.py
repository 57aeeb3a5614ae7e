"""Passes over runs of bins give the numbers of passes over bins."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pncbayes.hmm import likelihood as likelihood_module
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.runs import find_runs, share_rows

Array = NDArray[np.float64]
WIDTH_S = 5e-4


def dim_counts(n_bins: int, mean: float, n_gates: int, n_states: int, seed: int) -> Array:
    """Few photons per bin, in states of some fifty bins."""
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.integers(n_states, size=n_bins // 50 + 1), 50)[:n_bins]
    level = mean * np.linspace(0.2, 1.0, n_states)[states]
    return rng.poisson(level[:, None] / n_gates, (n_bins, n_gates)).astype(np.float64)


def unfold(steps: NDArray[np.int64], parts: NDArray[np.int64], n_rows: int) -> list[int]:
    """Rows of the bins again, one after the other."""
    spelled: list[list[int]] = [[row] for row in range(n_rows)]
    for one, other in parts:
        spelled.append(spelled[one] + spelled[other])
    return [row for step in steps for row in spelled[step]]


@pytest.mark.parametrize(("n_bins", "mean"), [(60_000, 0.1), (60_001, 1.5), (40_000, 8.0)])
def test_runs_unfold_to_the_bins(n_bins: int, mean: float) -> None:
    counts = dim_counts(n_bins, mean, 1, 3, seed=1)
    shared = share_rows(counts)
    assert shared is not None
    rows, row_of_bin = shared
    steps, parts = find_runs(row_of_bin, len(rows))
    assert steps.size < 0.7 * n_bins
    assert unfold(steps, parts, len(rows)) == row_of_bin.tolist()
    # every run is made of what came before it
    assert (parts.max(axis=1) < len(rows) + np.arange(len(parts))).all()


def test_short_recordings_are_left_as_they_are() -> None:
    row_of_bin = np.zeros(5000, np.int64)
    steps, parts = find_runs(row_of_bin, 1)
    assert steps is row_of_bin
    assert parts.shape == (0, 2)


@pytest.mark.parametrize("n_gates", [1, 6])
@pytest.mark.parametrize("n_states", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("mean", [0.08, 0.8])
def test_value_and_gradient_with_runs(
    monkeypatch: pytest.MonkeyPatch, n_gates: int, n_states: int, mean: float
) -> None:
    counts = dim_counts(30_000, mean, n_gates, max(n_states, 2), seed=n_states)
    with_runs = BinnedLikelihood(counts, WIDTH_S)
    monkeypatch.setattr(likelihood_module, "share_rows", lambda data: None)
    monkeypatch.setattr(
        likelihood_module, "find_runs", lambda rows, n: (rows, np.empty((0, 2), np.int64))
    )
    plain = BinnedLikelihood(counts, WIDTH_S, n_nodes=with_runs.n_nodes)
    if n_gates == 1 or mean < 0.5:
        assert with_runs._data[2].size < 0.8 * len(counts)
    rng = np.random.default_rng(5)
    level = mean / WIDTH_S * np.linspace(0.25, 1.1, n_states)
    gate_rate = level[:, None] * rng.dirichlet(np.full(n_gates, 20.0), n_states)
    rates = rng.uniform(10.0, 60.0, (n_states, n_states))
    np.fill_diagonal(rates, 0.0)
    expected = plain.gradient(gate_rate, rates)
    found = with_runs.gradient(gate_rate, rates)
    assert with_runs.value(gate_rate, rates) == pytest.approx(expected.value, rel=1e-11)
    assert found.value == pytest.approx(expected.value, rel=1e-11)
    np.testing.assert_allclose(found.gate_rate, expected.gate_rate, rtol=1e-7, atol=1e-9)
    scale = np.abs(expected.transition_rate).max() + 1e-12
    np.testing.assert_allclose(
        found.transition_rate, expected.transition_rate, rtol=1e-8, atol=1e-10 * scale
    )
    np.testing.assert_allclose(found.occupied_s, expected.occupied_s, rtol=1e-8)
    smoothed, _ = with_runs.smooth(gate_rate, rates)
    np.testing.assert_allclose(smoothed, plain.smooth(gate_rate, rates)[0], atol=1e-9)


def test_rates_that_cannot_give_the_counts() -> None:
    counts = dim_counts(30_000, 0.5, 1, 2, seed=3)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    dark, still = np.zeros((2, 1)), np.array([[0.0, 5.0], [5.0, 0.0]])
    assert likelihood.value(dark, still) == -np.inf
    assert likelihood.gradient(dark, still).value == -np.inf


def test_rows_are_shared_only_where_that_saves_work() -> None:
    bright = dim_counts(2000, 40.0, 4, 2, seed=4)
    assert share_rows(bright) is None
    dim = dim_counts(20_000, 0.05, 4, 2, seed=4)
    shared = share_rows(dim)
    assert shared is not None
    rows, row_of_bin = shared
    np.testing.assert_array_equal(rows[row_of_bin], dim)
    assert len(rows) == len(np.unique(dim, axis=0))
