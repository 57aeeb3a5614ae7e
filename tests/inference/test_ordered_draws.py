"""States keep their names over the draws, whatever order each draw has them in."""

from __future__ import annotations

import numpy as np
import pytest

from pncbayes.inference.assemble import ordered_draws
from pncbayes.inference.posterior import Parameters


def shuffled_draws(rate_sd: float, n_gates: int, seed: int) -> tuple[list[Parameters], Parameters]:
    """Draws of a bright, a fast and a slow state; the last two nearly equal in brightness."""
    rng = np.random.default_rng(seed)
    shape = np.exp(-np.arange(n_gates) / np.array([[8.0], [3.0], [3.0]]))
    shape /= shape.sum(axis=1, keepdims=True)
    rate = np.array([9000.0, 2900.0, 2800.0])
    exits = np.array([2.0, 300.0, 1.0])
    draws = []
    for n in range(201):
        own = rate + rate_sd * rng.standard_normal(3) * (n > 0)
        jumps = np.outer(exits * np.exp(0.2 * rng.standard_normal(3)), [0.5, 0.5, 0.5])
        np.fill_diagonal(jumps, 0.0)
        draw = Parameters(own[:, None] * shape, jumps, 100.0, None, np.array([5.0, 1.0, 4.0]))
        order = rng.permutation(3) if n else np.arange(3)
        draws.append(draw.permuted(order))
    return draws[1:], draws[0]


@pytest.mark.parametrize("n_gates", [1, 12])
@pytest.mark.parametrize("rate_sd", [10.0, 80.0])
def test_states_close_in_brightness_are_told_apart_by_exits(rate_sd: float, n_gates: int) -> None:
    draws, point = shuffled_draws(rate_sd, n_gates, seed=1)
    if rate_sd > 50.0:
        # by brightness alone a good part of the draws would be taken for the other state
        crossed = [
            draw.rate_per_s[draw.exit_rate_per_s.argmax()] < np.sort(draw.rate_per_s)[1]
            for draw in draws
        ]
        assert np.mean(crossed) > 0.1
    found = ordered_draws(draws, point)
    exits = np.array([draw.exit_rate_per_s for draw in found])
    rate = np.array([draw.rate_per_s for draw in found])
    fast = int(np.median(exits, axis=0).argmax())
    assert (exits[:, fast] > 50.0).all()
    assert (np.delete(exits, fast, axis=1) < 50.0).all()
    # names go from bright to dim in the mean
    assert (np.diff(rate.mean(axis=0)) <= 0.0).all()
    # whatever else a draw knows of its states moves along
    seconds = np.array([draw.occupied_s for draw in found])
    assert (seconds[:, fast] == 1.0).all()


def test_one_state_stays_as_it_is() -> None:
    draws = [
        Parameters(np.array([[rate]]), np.zeros((1, 1)), float("nan"), None) for rate in (3, 4)
    ]
    found = ordered_draws(draws, draws[0])
    assert [draw.rate_per_s[0] for draw in found] == [3, 4]


def test_equal_draws() -> None:
    """Copies of one point have no scatter to measure by."""
    point = Parameters(
        np.array([[5e3], [1e3]]), np.array([[0.0, 2.0], [3.0, 0.0]]), float("nan"), None
    )
    found = ordered_draws([point, point.permuted(np.array([1, 0]))], point)
    for draw in found:
        np.testing.assert_array_equal(draw.rate_per_s, [5e3, 1e3])
