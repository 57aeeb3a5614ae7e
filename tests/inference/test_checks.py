"""Predictive checks: replicates have the model's moments, and the p-values tell what fails."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from pncbayes.inference.checks import autocorrelation, predictive_checks, replicate_counts
from pncbayes.inference.posterior import Parameters

Array = NDArray[np.float64]

WIDTH_S = 0.01


def model(
    rate_per_s: list[float], exit_rate_per_s: float = 0.0, excess: list[float] | None = None
) -> Parameters:
    n_states = len(rate_per_s)
    rates = np.full((n_states, n_states), exit_rate_per_s / max(n_states - 1, 1))
    np.fill_diagonal(rates, 0.0)
    gates = np.array(rate_per_s)[:, None] * [0.75, 0.25]
    return Parameters(gates, rates, 200.0, None if excess is None else np.array(excess))


def test_autocorrelation_of_a_known_series() -> None:
    counts = np.tile([3.0, 1.0], 50)
    lags = np.array([1, 2, 3])
    # mean 2, deviations +1 and -1
    np.testing.assert_allclose(autocorrelation(counts, lags), [-0.25, 0.25, -0.25], rtol=1e-12)
    np.testing.assert_array_equal(autocorrelation(np.zeros(10), lags), 0.0)
    np.testing.assert_allclose(autocorrelation(np.full(10, 4.0), lags), 0.0, atol=1e-15)


def test_replicates_of_a_telegraph_signal() -> None:
    """Mean, and the exponential autocorrelation of two states, averaged over the bins."""
    bright, dim, exit_rate = 8000.0, 2000.0, 10.0
    random = np.random.default_rng(0)
    counts = replicate_counts(model([bright, dim], exit_rate), 200_000, WIDTH_S, random)
    mean = 0.5 * (bright + dim) * WIDTH_S
    assert counts.mean() == pytest.approx(mean, rel=0.02)
    lags = np.array([1, 3, 10])
    relaxation = 2.0 * exit_rate
    x = 0.5 * relaxation * WIDTH_S
    averaged = (np.sinh(x) / x) ** 2 * np.exp(-relaxation * lags * WIDTH_S)
    expected = 0.25 * (bright - dim) ** 2 / (0.5 * (bright + dim)) ** 2 * averaged
    np.testing.assert_allclose(autocorrelation(counts, lags), expected, atol=0.01)
    # bins in which it switched are neither bright nor dim: no more than two in ten
    between = (counts > 35) & (counts < 55)
    assert 0.02 < between.mean() < 0.2


@pytest.mark.parametrize("n_states", [1, 2])
@pytest.mark.parametrize("excess", [None, 0.8])
def test_replicates_have_the_stated_variance(n_states: int, excess: float | None) -> None:
    """Two equal states are one: switching adds no variance."""
    point = model([4000.0] * n_states, 5.0, None if excess is None else [excess] * n_states)
    counts = replicate_counts(point, 50_000, WIDTH_S, np.random.default_rng(1))
    assert counts.shape == (50_000,)
    assert counts.mean() == pytest.approx(40.0, rel=0.01)
    assert counts.var() == pytest.approx(40.0 * (1.0 + (excess or 0.0)), rel=0.03)
    assert (counts == counts.round()).all()


def test_replicates_of_a_camera() -> None:
    camera = (2.0, 100.0, 5.0, np.sqrt(2.0))
    counts = replicate_counts(model([4000.0]), 50_000, WIDTH_S, np.random.default_rng(2), camera)
    assert counts.mean() == pytest.approx(100.0 + 2.0 * 40.0, rel=0.005)
    assert counts.var() == pytest.approx(2.0 * 4.0 * 40.0 + 25.0, rel=0.03)


def test_dataset_of_the_checks() -> None:
    random = np.random.default_rng(3)
    point = model([6000.0, 1000.0], 3.0)
    totals = replicate_counts(point, 3000, WIDTH_S, random)
    dataset, p_values = predictive_checks(totals, WIDTH_S, [point] * 30, random)
    assert set(p_values) == {"count_histogram", "autocorrelation"}
    assert list(dataset["check"].values) == list(p_values)
    np.testing.assert_array_equal(dataset["p_value"], list(p_values.values()))
    assert dataset["count_histogram"].sum() == totals.size
    assert dataset["count_histogram_replicated"].dims == ("quantile", "count_value")
    assert dataset["autocorrelation_replicated"].dims == ("quantile", "lag_s")
    np.testing.assert_allclose(dataset["quantile"], [0.05, 0.5, 0.95])
    lags = dataset["lag_s"].values
    assert lags[0] == pytest.approx(WIDTH_S)
    assert 1.0 < lags[-1] <= 10.0
    for name in ("count_histogram_replicated", "autocorrelation_replicated"):
        low, middle, high = dataset[name].values
        assert (low <= middle).all()
        assert (middle <= high).all()
    observed = autocorrelation(totals, np.round(lags / WIDTH_S).astype(np.int64))
    np.testing.assert_allclose(dataset["autocorrelation"], observed, rtol=1e-12)


def test_p_values_are_even_where_the_model_is_true() -> None:
    random = np.random.default_rng(4)
    point = model([5000.0, 1500.0], 4.0)
    found: dict[str, list[float]] = {}
    for _ in range(80):
        totals = replicate_counts(point, 800, WIDTH_S, random)
        _, p_values = predictive_checks(totals, WIDTH_S, [point] * 40, random)
        for name, value in p_values.items():
            assert 0.0 < value <= 1.0
            found.setdefault(name, []).append(value)
    for values in found.values():
        assert kstest(values, "uniform").pvalue > 1e-3
        # the share of false alarms is what the threshold says
        assert np.mean(np.array(values) < 0.025) < 0.1


@pytest.mark.parametrize("excess_noise", [False, True])
def test_camera_and_excess_noise_pass_where_true(excess_noise: bool) -> None:
    random = np.random.default_rng(5)
    camera = None if excess_noise else (3.0, 20.0, 4.0, 1.2)
    point = model([5000.0, 500.0], 2.0, [0.5, 0.1] if excess_noise else None)
    failures = 0
    for _ in range(10):
        totals = replicate_counts(point, 1000, WIDTH_S, random, camera)
        _, p_values = predictive_checks(totals, WIDTH_S, [point] * 40, random, camera)
        failures += min(p_values.values()) < 0.025
    assert failures <= 3


@pytest.mark.parametrize(
    ("truth", "believed", "failing"),
    [
        # one level for a dot that blinks
        (model([8000.0, 1000.0], 3.0), model([4500.0]), {"count_histogram", "autocorrelation"}),
        # the right levels, switching ten times too fast
        (model([8000.0, 1000.0], 2.0), model([8000.0, 1000.0], 20.0), {"autocorrelation"}),
        # counts with three times the variance of Poisson's
        (model([4000.0], excess=[2.0]), model([4000.0]), {"count_histogram"}),
        # a third level that the model does not know
        (model([8000.0, 4000.0, 500.0], 2.0), model([8000.0, 500.0], 2.0), {"count_histogram"}),
    ],
)
def test_wrong_models_fail(truth: Parameters, believed: Parameters, failing: set[str]) -> None:
    random = np.random.default_rng(6)
    totals = replicate_counts(truth, 4000, WIDTH_S, random)
    _, p_values = predictive_checks(totals, WIDTH_S, [believed] * 60, random)
    for name in failing:
        assert p_values[name] < 0.02


@pytest.mark.parametrize("n_bins", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("rate_per_s", [1e-3, 3000.0])
def test_short_and_dark_traces(n_bins: int, rate_per_s: float) -> None:
    """What cannot be checked is NaN, without a warning of NumPy's on the way."""
    point = model([rate_per_s])
    random = np.random.default_rng(7)
    totals = replicate_counts(point, n_bins, WIDTH_S, random)
    dataset, p_values = predictive_checks(totals, WIDTH_S, [point] * 20, random)
    assert 0.0 < p_values["count_histogram"] <= 1.0
    possible = n_bins >= 4 and totals.any()
    assert np.isfinite(p_values["autocorrelation"]) == possible
    np.testing.assert_array_equal(dataset["p_value"], list(p_values.values()))
    assert dataset["count_histogram"].sum() == n_bins
    if possible:
        assert 0.0 < p_values["autocorrelation"] <= 1.0
        assert np.isfinite(dataset["autocorrelation"].values).all()


def test_autocorrelation_beyond_the_trace_is_nan() -> None:
    found = autocorrelation(np.array([1.0, 3.0]), np.array([1, 2, 5]))
    np.testing.assert_array_equal(found, [-0.25, np.nan, np.nan])


def test_same_seed_same_replicates() -> None:
    point = model([5000.0, 1500.0], 4.0)
    one, other = (replicate_counts(point, 500, WIDTH_S, np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
