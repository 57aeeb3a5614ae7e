"""The grid of the flicker is an Ornstein-Uhlenbeck process, and as fine as the photons ask for."""

import numpy as np
import pytest

from pncbayes.hmm.flicker_grid import FlickerGrid, points_wanted
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.physics.modelfile import load_model


@pytest.mark.parametrize("n_points", [9, 13, 25, 49])
def test_mean_decays_at_the_relaxation_rate_and_variance_is_one(n_points: int) -> None:
    grid = FlickerGrid.of(n_points)
    assert grid.stationary @ grid.points == pytest.approx(0.0, abs=1e-12)
    assert grid.stationary @ grid.points**2 == pytest.approx(1.0)
    moved = grid.transition(3.0, 0.1)
    assert moved.sum(axis=1) == pytest.approx(1.0)
    assert grid.stationary @ moved == pytest.approx(grid.stationary)
    # correlation after a time t is exp(-rate t)
    correlation = (grid.stationary * grid.points) @ moved @ grid.points
    assert correlation == pytest.approx(np.exp(-0.3), rel=2e-3)


def test_short_steps_compose_to_long_ones() -> None:
    grid = FlickerGrid.of(21)
    short, long = grid.transition(2.0, 0.01), grid.transition(2.0, 0.08)
    assert np.linalg.matrix_power(short, 8) == pytest.approx(long, abs=1e-10)


def test_slope_of_the_transition() -> None:
    grid = FlickerGrid.of(15)
    up, down = grid.transition(2.0 * np.exp(1e-5), 0.05), grid.transition(2.0 * np.exp(-1e-5), 0.05)
    assert grid.transition_slope(2.0, 0.05) == pytest.approx((up - down) / 2e-5, abs=1e-8)


def test_two_points_are_refused_and_one_is_no_flicker() -> None:
    with pytest.raises(ValueError, match="at least 3, got 2"):
        FlickerGrid.of(2)
    assert FlickerGrid.of(1).transition(1.0, 1.0) == pytest.approx(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("rate_per_s", "log_sd", "relaxation_per_s", "width_s"),
    [(1e4, 0.12, 1.0, 0.01), (5e3, 0.2, 10.0, 0.005), (2e4, 0.3, 3.0, 0.005)],
)
def test_the_rule_for_points_loses_less_than_two_nats(
    rate_per_s: float, log_sd: float, relaxation_per_s: float, width_s: float
) -> None:
    rng = np.random.default_rng(1)
    n_bins = int(20.0 / width_s)
    keep = np.exp(-relaxation_per_s * width_s)
    x = np.zeros(n_bins)
    noise = rng.standard_normal(n_bins)
    for t in range(1, n_bins):
        x[t] = keep * x[t - 1] + np.sqrt(1 - keep**2) * noise[t]
    counts = rng.poisson(rate_per_s * width_s * np.exp(log_sd * x - 0.5 * log_sd**2))
    data = DynamicsData(
        counts[:, None].astype(float), width_s, np.zeros(1), np.ones(1), concentration=200.0
    )
    point = DynamicsPoint(
        np.array([[rate_per_s]]), np.zeros((1, 1)), np.array([log_sd]), relaxation_per_s
    )
    values = []
    for n_points in (points_wanted(log_sd, relaxation_per_s, rate_per_s), 61):
        posterior = DynamicsPosterior(data, load_model("free"), Family("common"), 1, n_points)
        values.append(posterior.log_likelihood(posterior.pack(point)))
    assert abs(values[0] - values[1]) < 2.0
