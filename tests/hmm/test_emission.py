"""Counts of a bin given its state: moments, closed forms and slopes of each family."""

import itertools
from typing import Any

import numpy as np
import pytest
from fake_counts import CAMERA, Array
from scipy.stats import nbinom, norm

from pncbayes.hmm.emission import CameraEmission, NegativeBinomialEmission, PoissonEmission


@pytest.mark.parametrize("excess", [0.01, 0.3, 5.0])
def test_negative_binomial_has_the_stated_moments(excess: float) -> None:
    mean = 6.0
    totals = np.arange(400.0)[:, None]
    logs = NegativeBinomialEmission(totals).log_columns(np.array([[mean]]), np.array([excess]))
    probability = np.exp(logs[:, 0])
    assert probability.sum() == pytest.approx(1.0, abs=1e-9)
    assert probability @ totals[:, 0] == pytest.approx(mean, rel=1e-7)
    variance = probability @ (totals[:, 0] - mean) ** 2
    assert variance == pytest.approx((1.0 + excess) * mean, rel=1e-6)
    expected = nbinom.logpmf(totals[:, 0], mean / excess, 1.0 / (1.0 + excess))
    np.testing.assert_allclose(logs[:, 0], expected, rtol=1e-9, atol=1e-9)


def test_negative_binomial_is_closed_under_addition() -> None:
    """Two bins of the same excess make one: the family does not depend on the width."""
    totals = np.arange(60.0)[:, None]
    emission, excess = NegativeBinomialEmission(totals), np.array([0.7])

    def probability(mean: float) -> Array:
        return np.exp(emission.log_columns(np.array([[mean]]), excess)[:, 0])

    summed = np.convolve(probability(2.0), probability(5.0))[:60]
    np.testing.assert_allclose(summed, probability(7.0), rtol=1e-10)


def test_gates_given_the_total_are_multinomial() -> None:
    """Excess noise is of the brightness: it says nothing about the decay."""
    means = np.array([[3.0, 1.0, 0.5]])
    counts = np.array([list(n) for n in itertools.product(range(9), repeat=3) if sum(n) == 8])
    poisson_logs = PoissonEmission(counts).log_columns(means)[:, 0]
    excess_logs = NegativeBinomialEmission(counts).log_columns(means, np.array([0.8]))[:, 0]
    gap = excess_logs - poisson_logs
    np.testing.assert_allclose(gap, gap[0], rtol=1e-10)


def test_camera_has_the_stated_moments() -> None:
    gain, offset, read_noise, factor = CAMERA
    counts = np.linspace(80.0, 400.0, 9)[:, None]
    means = np.array([[0.5], [20.0], [90.0]])
    expected = norm.logpdf(
        counts,
        offset + gain * means[:, 0],
        np.sqrt((factor * gain) ** 2 * means[:, 0] + read_noise**2),
    )
    found = CameraEmission(counts, *CAMERA).log_columns(means)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("family", ["poisson", "excess", "camera"])
def test_emission_pullback_and_rows(family: str) -> None:
    random = np.random.default_rng(4)
    n_gates = 1 if family == "camera" else 3
    counts = random.poisson(12.0, (7, n_gates)).astype(float)
    emission: Any = {
        "poisson": PoissonEmission,
        "excess": NegativeBinomialEmission,
        "camera": lambda data: CameraEmission(data, *CAMERA),
    }[family](counts)
    means = random.uniform(2.0, 20.0, (4, n_gates))
    excess = random.uniform(0.1, 2.0, 4) if family == "excess" else None
    cotangent = random.normal(size=(7, 4))

    def value(means: Array, excess: Array | None) -> float:
        return float((emission.log_columns(means, excess) * cotangent).sum())

    by_mean, by_excess = emission.pullback(means, excess, cotangent)
    for place in np.ndindex(means.shape):
        step = np.zeros_like(means)
        step[place] = 1e-5
        expected = (value(means + step, excess) - value(means - step, excess)) / 2e-5
        assert by_mean[place] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    if excess is not None:
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-5
            expected = (value(means, excess + step) - value(means, excess - step)) / 2e-5
            assert by_excess[k] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    else:
        assert by_excess is None
    rows = np.array([5, 0, 0, 3])
    np.testing.assert_allclose(
        emission.take(rows).log_columns(means, excess),
        emission.log_columns(means, excess)[rows],
        rtol=1e-13,
    )
