"""The bin width: what wide bins lose, and what the data allow."""

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import pncbayes as pnc
from pncbayes.hmm import reference
from pncbayes.inference.grid import Decays, Grid, choose_grid, expected_loss_nats, round_down
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import SimulatedState, simulate
from pncbayes.physics.state_path import simulate_jumps

Array = NDArray[np.float64]


def grid_of(
    states: list[SimulatedState],
    exit_rate_per_s: float,
    duration_s: float,
    *,
    period_ns: float | None = None,
    photons: bool = True,
) -> Grid:
    """Grid of a simulated dot, without its photons if so wished."""
    dot = simulate(
        states, [exit_rate_per_s] * len(states), duration_s, period_ns=period_ns, random_seed=1
    )
    trace = pnc.bin_photons(dot.photons, 0.01, response=False, background_rate_per_s=0.0)
    if not photons:
        trace.attrs.update(digest="unknown", path="")
    return choose_grid(trace, load_model("free"), np.random.default_rng(0))


def levels(*rates_per_s: float) -> list[SimulatedState]:
    return [SimulatedState(rate_per_s=rate) for rate in rates_per_s]


def observed_loss_nats(
    width_s: float, rate_per_s: Array, rates: Array, duration_s: float, n_bins: int
) -> float:
    """Loss of the pairwise kernel in total counts, given the counts before each bin."""
    n_max = int(rate_per_s.max() * width_s + 9.0 * np.sqrt(rate_per_s.max() * width_s) + 15)
    counts = np.arange(n_max + 1.0)[:, None]
    exact = reference.exact_count_matrices(n_max, width_s, rate_per_s, rates)
    kernel = reference.bin_matrices(counts, width_s, rate_per_s[:, None], rates, 48)
    path = simulate_jumps(rates, n_bins * width_s, random_seed=3)
    seen = np.random.default_rng(3).poisson(path.occupancy_per_bin(width_s) @ rate_per_s * width_s)
    states = [np.full(rate_per_s.size, 1.0 / rate_per_s.size)] * 2
    total = 0.0
    for row in np.minimum(seen, n_max):
        true, claimed = (
            state @ m.sum(axis=2).T for state, m in zip(states, (exact, kernel), strict=True)
        )
        likely = true > 1e-200
        total += float(true[likely] @ np.log(true[likely] / claimed[likely]))
        states = [state @ m[row] for state, m in zip(states, (exact, kernel), strict=True)]
        states = [state / state.sum() for state in states]
    return total * duration_s / (n_bins * width_s)


@pytest.mark.parametrize(
    ("brightest_per_s", "exit_rate_per_s", "width_s"),
    [(2e3, 20.0, 0.01), (1e4, 10.0, 0.01), (1e4, 20.0, 0.005), (4e4, 20.0, 0.005)],
)
@pytest.mark.parametrize("n_states", [3, 4])
def test_expected_loss_is_right_within_a_factor(
    n_states: int, brightest_per_s: float, exit_rate_per_s: float, width_s: float
) -> None:
    rate_per_s = brightest_per_s * np.linspace(0.05, 1.0, n_states)
    rates = np.full((n_states, n_states), exit_rate_per_s / (n_states - 1))
    true = observed_loss_nats(width_s, rate_per_s, rates, 600.0, 8000)
    rule = expected_loss_nats(width_s, exit_rate_per_s, brightest_per_s, 600.0)
    assert 0.4 * true < rule < 2.5 * true


@pytest.mark.parametrize("decays", ["alike", "seen", "hidden"])
def test_expected_loss_falls_steeply_with_the_width(decays: Decays) -> None:
    widths = [0.02, 0.01, 0.005, 0.002, 0.001]
    losses = [expected_loss_nats(w, 10.0, 2e4, 600.0, decays=decays) for w in widths]
    # per recording: at least as fast as the width itself
    assert all(
        fine / coarse < narrow / wide
        for coarse, fine, wide, narrow in zip(losses, losses[1:], widths, widths[1:], strict=False)
    )
    twice = expected_loss_nats(0.01, 10.0, 2e4, 1200.0, decays=decays)
    assert twice == pytest.approx(2.0 * losses[1])
    assert expected_loss_nats(0.01, 0.0, 2e4, 600.0, decays=decays) == 0.0
    assert expected_loss_nats(0.01, 10.0, 0.0, 600.0, decays=decays) == 0.0


def test_decays_tell_third_states_better_than_brightness() -> None:
    alike, seen, hidden = (
        expected_loss_nats(0.01, 10.0, 2e4, 600.0, decays=decays)
        for decays in ("alike", "seen", "hidden")
    )
    assert alike < seen < hidden


def test_two_states_keep_wide_bins() -> None:
    grid = grid_of(levels(2e4, 2e3), 10.0, 120.0)
    assert grid.width_s == 0.01
    assert grid.loss_nats == 0.0
    assert grid.exits_per_bin == pytest.approx(0.1, rel=0.2)
    assert grid.counts.shape == (12_000, 1)


def test_fast_switching_narrows_the_bins() -> None:
    grid = grid_of(levels(2e4, 2e3), 100.0, 10.0)
    assert grid.width_s == 0.002
    # seen on bins that are narrow enough, though it was looked at on wide ones first
    assert grid.exits_per_bin / grid.width_s == pytest.approx(100.0, rel=0.2)


def test_three_fast_states_narrow_the_bins() -> None:
    grid = grid_of(levels(4e4, 2e4, 2e3), 15.0, 200.0)
    assert grid.width_s < 0.005
    assert 0.0 < grid.loss_nats <= 2.0
    assert expected_loss_nats(0.005, 15.0, 4e4, 200.0) > 2.0


def test_a_state_hidden_in_the_decay_narrows_the_bins() -> None:
    """Total counts show two states, for which no width would be too wide."""
    states = [
        SimulatedState(rate_per_s=2e4, lifetimes_ns=(20.0,)),
        SimulatedState(rate_per_s=2e4, lifetimes_ns=(4.0,)),
        SimulatedState(rate_per_s=2e3, lifetimes_ns=(1.0,)),
    ]
    assert grid_of(states, 10.0, 40.0, period_ns=200.0).width_s < 0.005
    two = [states[0], states[2]]
    assert grid_of(two, 10.0, 40.0, period_ns=200.0).width_s == 0.01


def test_counts_without_photons_keep_their_width_and_say_what_is_lost() -> None:
    grid = grid_of(levels(4e4, 2e4, 2e3), 15.0, 60.0, photons=False)
    assert grid.width_s == 0.01
    assert grid.loss_nats > 2.0


def test_a_long_recording_is_looked_at_in_part() -> None:
    """The rate of an hour of slow switching is that of the stretches, seams included."""
    rng = np.random.default_rng(5)
    path = simulate_jumps([[0.0, 2.0], [2.0, 0.0]], 1200.0, random_seed=rng)
    counts = rng.poisson(path.occupancy_per_bin(0.01) @ np.array([200.0, 20.0]))
    trace = xr.Dataset(
        {"counts": (("time", "gate"), counts[:, None])}, attrs={"kind": "counts", "width_s": 0.01}
    )
    grid = choose_grid(trace, load_model("free"), np.random.default_rng(0))
    assert grid.counts.shape == (120_000, 1)
    assert grid.exits_per_bin == pytest.approx(0.02, rel=0.15)


def test_round_down() -> None:
    assert [round_down(w) for w in (0.01, 0.0099, 0.004, 0.0012)] == pytest.approx(
        [0.01, 0.005, 0.002, 0.001]
    )
