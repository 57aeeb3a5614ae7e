"""Importance weights: what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest

from pncbayes.inference.weights import spread


def effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def test_good_weights_are_kept() -> None:
    weights = np.random.default_rng(1).gamma(2.0, 1.0, 1000)
    weights /= weights.sum()
    np.testing.assert_allclose(spread(weights), weights, rtol=1e-12)


@pytest.mark.parametrize("sigma", [3.0, 6.0, 12.0])
def test_a_few_heavy_weights_are_evened_out(sigma: float) -> None:
    weights = np.exp(sigma * np.random.default_rng(2).standard_normal(1000))
    weights /= weights.sum()
    assert effective(weights) < 100.0
    spreaded = spread(weights)
    assert spreaded.sum() == pytest.approx(1.0)
    # enough, and no more than it takes
    assert 100.0 <= effective(spreaded) < 200.0
    # heavier draws stay heavier
    assert (np.argsort(spreaded) == np.argsort(weights)).all()


def test_few_draws_are_not_asked_for_more_than_half_of_them() -> None:
    weights = np.array([1.0 - 3e-9, 1e-9, 1e-9, 1e-9])
    assert effective(spread(weights)) >= 2.0
