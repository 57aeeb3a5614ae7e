"""Bridge sampling: integrals that are known, and errors that are those of repetition."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pncbayes.inference.bridge import bridge

Array = NDArray[np.float64]

LOG_INTEGRAL = -7.3


def ratios(random: np.random.Generator, n: int, n_dimensions: int) -> tuple[Array, Array]:
    """Log of a density times a constant over a narrower one beside it, at draws of each."""
    target = stats.norm(0.0, 1.0)
    other = stats.norm(0.3, 0.8)
    draws = random.standard_normal((n, n_dimensions))
    others = 0.3 + 0.8 * random.standard_normal((n, n_dimensions))
    found = [
        LOG_INTEGRAL + (target.logpdf(x) - other.logpdf(x)).sum(axis=1) for x in (draws, others)
    ]
    return found[0], found[1]


@pytest.mark.parametrize("n_dimensions", [1, 5, 15])
def test_integral_and_error(n_dimensions: int) -> None:
    """A density narrower than the target, of which importance sampling would make too little."""
    random = np.random.default_rng(1)
    scores, errors = [], []
    for _ in range(120):
        at_posterior, at_density = ratios(random, 400, n_dimensions)
        value, error = bridge(at_posterior, at_density, 400.0)
        scores.append((value - LOG_INTEGRAL) / error)
        errors.append(error)
    assert np.abs(np.mean(scores)) < 0.35
    assert 0.8 < np.std(scores) < 1.25
    assert np.mean(errors) < 0.3


def test_draws_outside_the_support_count() -> None:
    """Half of the draws of the density fall where there is nothing."""
    random = np.random.default_rng(2)
    at_posterior = np.full(500, np.log(2.0) + LOG_INTEGRAL)
    at_density = np.where(random.random(500) < 0.5, np.log(2.0) + LOG_INTEGRAL, -np.inf)
    value, error = bridge(at_posterior, at_density, 500.0)
    assert value == pytest.approx(LOG_INTEGRAL, abs=4.0 * error)
    assert 0.01 < error < 0.1


def test_dependent_draws_of_the_posterior_make_the_error_larger() -> None:
    at_posterior, at_density = ratios(np.random.default_rng(3), 400, 5)
    assert bridge(at_posterior, at_density, 40.0)[1] > bridge(at_posterior, at_density, 400.0)[1]
