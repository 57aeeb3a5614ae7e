"""Levels times flicker: against enumeration, the kernel without flicker, and differences."""

import itertools
import time

import numpy as np
import pytest
from scipy.stats import nbinom, poisson

from pncbayes.hmm.flicker_grid import FlickerGrid
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.product_likelihood import ProductLikelihood

RATES = np.array([[0.0, 5.0, 2.0], [4.0, 0.0, 3.0], [1.0, 6.0, 0.0]])
LIGHT = np.array([[800.0, 400.0, 300.0], [300.0, 200.0, 50.0], [20.0, 30.0, 40.0]])
WIDTH_S = 0.01
NONE = FlickerGrid.of(1)
STILL = np.ones((1, 1))


def counts_of(n_bins: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    path = np.repeat(rng.integers(0, 3, n_bins // 10 + 1), 10)[:n_bins]
    return rng.poisson(LIGHT[path] * WIDTH_S).astype(float)


@pytest.mark.parametrize("excess", [None, np.array([0.1, 0.3, 0.05])])
def test_without_flicker_it_is_the_plain_kernel(excess: np.ndarray | None) -> None:
    counts = counts_of(300)
    plain = BinnedLikelihood(counts, WIDTH_S, n_nodes=8, excess_noise=excess is not None)
    product = ProductLikelihood(counts, WIDTH_S, n_nodes=8)
    means = (LIGHT * WIDTH_S)[:, None]
    extra = None if excess is None else means.sum(axis=2) * excess[:, None]
    found = product.gradient(means, RATES, STILL, NONE.stationary, extra)
    wanted = plain.gradient(LIGHT, RATES, excess)
    assert found.value == pytest.approx(wanted.value, abs=1e-8)
    assert found.value == pytest.approx(product.value(means, RATES, STILL, NONE.stationary, extra))
    assert found.transition_rate == pytest.approx(wanted.transition_rate, abs=1e-8)
    assert found.occupied[:, 0] * WIDTH_S == pytest.approx(wanted.occupied_s, abs=1e-8)


def test_flicker_of_one_level_is_a_sum_over_its_paths() -> None:
    counts = np.array([[5.0], [9.0], [7.0], [2.0]])
    grid = FlickerGrid.of(5)
    moved = grid.transition(8.0, 0.02)
    means = 6.0 * np.exp(0.4 * grid.points)
    total = 0.0
    for path in itertools.product(range(5), repeat=4):
        p = grid.stationary[path[0]]
        for t, x in enumerate(path):
            p *= poisson.pmf(counts[t, 0], means[x])
            p *= moved[x, path[t + 1]] if t < 3 else 1.0
        total += p
    product = ProductLikelihood(counts, 0.02)
    found = product.value(means[None, :, None], np.zeros((1, 1)), moved, grid.stationary)
    assert found == pytest.approx(np.log(total), abs=1e-9)


def test_counts_with_excess_noise_are_negative_binomial() -> None:
    counts = np.array([[3.0, 4.0], [0.0, 1.0]])
    means = np.array([[[4.0, 2.0]]])
    found = ProductLikelihood(counts, 0.01).value(
        means, np.zeros((1, 1)), STILL, NONE.stationary, np.array([[3.0]])
    )
    wanted = 0.0
    for row in counts:
        n = row.sum()
        # mean 6, variance 6 + 3; gates binomial
        wanted += nbinom.logpmf(n, 36.0 / 3.0, 6.0 / 9.0)
        wanted += np.log(poisson.pmf(row, means[0, 0]).prod() / poisson.pmf(n, 6.0))
    assert found == pytest.approx(wanted, abs=1e-9)


def test_slopes_are_those_of_the_value() -> None:
    grid = FlickerGrid.of(7)
    product = ProductLikelihood(counts_of(60, seed=3), WIDTH_S, n_nodes=5)
    means = (LIGHT * WIDTH_S)[:, None] * np.exp(0.3 * grid.points)[None, :, None]
    extra = 0.1 * means.sum(axis=2)
    moved = grid.transition(3.0, WIDTH_S)
    found = product.gradient(means, RATES, moved, grid.stationary, extra)

    def value(means: np.ndarray, rates: np.ndarray, moved: np.ndarray, extra: np.ndarray) -> float:
        return product.value(means, rates, moved, grid.stationary, extra)

    parts = [means, RATES, moved, extra]
    slopes = [found.means, found.transition_rate, found.flicker, found.extra_variance]
    places = [(1, 3, 2), (0, 2), (3, 4), (2, 5)]
    for n, (slope, place) in enumerate(zip(slopes, places, strict=True)):
        values = []
        for step in (1e-5, -1e-5):
            moved_parts = [part.copy() for part in parts]
            moved_parts[n][place] += step
            values.append(value(*moved_parts))
        assert slope is not None
        assert slope[place] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_bins_left_out_change_next_to_nothing() -> None:
    grid = FlickerGrid.of(9)
    slow = RATES * 0.1
    product = ProductLikelihood(counts_of(2000), WIDTH_S)
    means = (LIGHT * WIDTH_S)[:, None] * np.exp(0.1 * grid.points)[None, :, None]
    moved = grid.transition(3.0, WIDTH_S)
    active = product.choose_active(means, slow, moved, grid.stationary)
    assert active is not None
    assert active.n_matrices < 1500
    some = product.gradient(means, slow, moved, grid.stationary, active=active)
    every = product.gradient(means, slow, moved, grid.stationary)
    assert some.value == pytest.approx(every.value, abs=1e-6)
    assert some.means == pytest.approx(every.means, abs=0.5)


def test_smoothing_adds_up_and_finds_the_path() -> None:
    rng = np.random.default_rng(5)
    path = np.repeat([0, 2, 1, 0, 2], 60)
    counts = rng.poisson(LIGHT[path] * WIDTH_S).astype(float)
    product = ProductLikelihood(counts, WIDTH_S)
    share = product.smooth((LIGHT * WIDTH_S)[:, None], RATES * 0.3, STILL, NONE.stationary)
    assert share.sum(axis=(1, 2)) == pytest.approx(1.0)
    assert (share[:, :, 0].argmax(axis=1) == path).mean() > 0.97


def test_a_level_that_is_never_left_gives_numbers() -> None:
    rates = np.array([[0.0, 1.0], [0.0, 0.0]])
    counts = np.array([[1.0]] * 50 + [[40.0]] * 50)
    product = ProductLikelihood(counts, WIDTH_S)
    found = product.gradient(np.array([[[40.0]], [[1.0]]]), rates, STILL, NONE.stationary)
    assert np.isfinite(found.value)
    assert np.isfinite(found.means).all()


def test_wrong_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        ProductLikelihood(np.ones(5), WIDTH_S)
    with pytest.raises(ValueError, match="not negative"):
        ProductLikelihood(np.full((5, 1), -1.0), WIDTH_S)
    with pytest.raises(ValueError, match="width_s"):
        ProductLikelihood(np.ones((5, 1)), 0.0)


@pytest.mark.slow
def test_flicker_costs_at_most_six_times_the_plain_levels() -> None:
    rng = np.random.default_rng(1)
    n_bins, n_gates, width_s = 15_000, 12, 0.004
    light = np.outer([10_000.0, 6_000.0, 3_000.0, 500.0], np.full(n_gates, 1.0 / n_gates))
    rates = np.ones((4, 4)) - np.eye(4)
    path = np.repeat(rng.integers(0, 4, n_bins // 200), 200)
    counts = rng.poisson(light[path] * width_s).astype(float)
    plain, product = BinnedLikelihood(counts, width_s), ProductLikelihood(counts, width_s)
    grid = FlickerGrid.of(12)
    moved = grid.transition(3.0, width_s)
    means = (light * width_s)[:, None] * np.exp(0.1 * grid.points)[None, :, None]
    active = product.choose_active(means, rates, moved, grid.stationary)
    rows = plain.active_rows(light, rates)

    def seconds(call: object) -> float:
        took = []
        for _ in range(9):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            took.append(time.perf_counter() - start)
        return float(np.median(took))

    ratio = seconds(
        lambda: product.gradient(means, rates, moved, grid.stationary, active=active)
    ) / seconds(lambda: plain.gradient(light, rates, active=rows))
    assert ratio < 6.0
