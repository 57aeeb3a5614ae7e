"""Simulated dots whose truth is known, and quick fits of them, for the tests of `pncbayes.fit`.

Only what is simulated differs from the model: switches fall inside bins, decays have two
components, there is background.
"""

from functools import cache
from typing import Any

import pytest
import xarray as xr

from pncbayes.inference.fit import fit
from pncbayes.inference.results import Fit
from pncbayes.physics.simulate import Simulation, simulate
from pncbayes.physics.simulated_dot import SimulatedState

BACKGROUND_PER_S = 200.0

# what one photon stream says about its own response
estimated_response = pytest.mark.filterwarnings("ignore:.*response was estimated.*")


def quick_fit(data: Any, **settings: Any) -> Fit:
    base = {"max_states": 3, "random_seed": 1, "progressbar": False, "dynamics": False}
    settings = base | settings
    return fit(data, **settings)


@cache
def blinking_dot() -> Simulation:
    """Two states, two-exponential decays, background, and a switch in every tenth bin of 10 ms."""
    bright = SimulatedState(rate_per_s=1.2e4, lifetimes_ns=(20.0, 6.0), amplitudes=(0.6, 0.4))
    dim = SimulatedState(rate_per_s=1.5e3, lifetimes_ns=(4.0, 1.5), amplitudes=(0.5, 0.5))
    return simulate(
        [bright, dim],
        [8.0, 10.0],
        6.0,
        period_ns=200.0,
        background_rate_per_s=BACKGROUND_PER_S,
        random_seed=1,
    )


@cache
def blinking_fit() -> Fit:
    """The fit that most tests look at: made once."""
    return quick_fit(blinking_dot().photons, width_s=0.02)


def levels(
    rates_per_s: list[float],
    exits_per_s: list[float] | None,
    duration_s: float,
    seed: int,
    **settings: Any,
) -> Simulation:
    """A dot without delays."""
    states = [SimulatedState(rate_per_s=rate) for rate in rates_per_s]
    return simulate(states, exits_per_s, duration_s, period_ns=None, random_seed=seed, **settings)


def without_photons(trace: xr.Dataset) -> xr.Dataset:
    """A trace as someone else's program would have left it: its grid is all there is."""
    return trace.assign_attrs(digest="of no photons", path="")


def contains(row: Any, name: str, truth: float, *, n_sd: float = 4.0, slack: float = 0.0) -> bool:
    return bool(abs(row[f"{name}_mean"] - truth) < n_sd * row[f"{name}_sd"] + slack * truth)
