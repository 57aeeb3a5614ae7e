"""Simulated dots for the tests of structured hypotheses: switches fall inside bins."""

from functools import cache

import xarray as xr

import pncbayes as pnc
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.physics.simulate import SimulatedState, simulate

RESPONSE_NS = 0.06


@cache
def dot_trace(kind: str, duration_s: float = 6.0) -> xr.Dataset:
    """A dot with an exciton of 6 ns and 15 kcps, and one dim state; background 100 per s."""
    dim = {
        # m = 2, Q = 0.65: k_A = 1 / 0.42 - 1.65 / 6 = 2.11 per ns
        "auger": SimulatedState(15e3 * 0.14, (0.42,)),
        "hot_carrier": SimulatedState(15e3 * 0.2, (6.0,)),
        "nbc": SimulatedState(15e3 * 0.2, (1.2,)),
    }
    states = [SimulatedState(15e3, (6.0,))] + ([] if kind == "steady" else [dim[kind]])
    exits = [5.0, 8.0] if len(states) == 2 else None
    dot = simulate(
        states, exits, duration_s, period_ns=100.0, delay_tick_ns=0.016, pulse_ns=5.0,
        response_fwhm_ns=2.3548 * RESPONSE_NS, background_rate_per_s=100.0, random_seed=4,
    )  # fmt: skip
    response = gaussian_on_clock(5.0, RESPONSE_NS, delay_clock(dot.photons))
    return pnc.bin_photons(dot.photons, 0.01, response=response)
