"""Simulated dots whose states lose their light by known mechanisms, and what is believed of them.

An exciton and one or two dim states, as `mechanism.py` describes them; by the cell of a task
something that is believed of the instrument or of the mechanisms is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import common
import numpy as np
import xarray as xr

import pncbayes as pnc
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import Drift, SimulatedState, Simulation, simulate
from pncbayes.physics.tied_kernels import extra_rate

DURATION_S, PERIOD_NS, DELAY_TICK_NS, PULSE_NS, WIDTH_S = 60.0, 200.0, 0.016, 5.0, 0.01
DRAWN = ("auger", "hot_carrier", "nbc", "background")
# of the log width of a response, and of its place over its width
WIDTH_SD, PLACE_SD = 0.1, 0.1


class Dim:
    """A dim state: its mechanism, and its decay."""

    def __init__(
        self,
        mechanism: str,
        exciton: dict[str, np.ndarray],
        rng: np.random.Generator,
        slack: float = 0.0,
    ):
        self.mechanism, self.auger_rate_per_ns = mechanism, np.nan
        amplitudes, rates = exciton["amplitudes"], exciton["rates"]
        lifetime_ns = (amplitudes / rates).sum()
        self.brightness, self.lifetime = 0.0, np.nan
        if mechanism == "auger":
            # 0.1 to 3 ns, and no longer than without Auger loss
            scaling = float(np.exp(np.log(2.0) + 0.2 * rng.standard_normal()))
            # that of a trion without Auger loss, of which all exponentials are as much faster
            radiative = (scaling - 1.0) * exciton["yield"] / lifetime_ns
            longest = min((amplitudes / (rates + radiative)).sum(), lifetime_ns / 1.05)
            own_ns = float(np.exp(rng.uniform(np.log(0.1), np.log(min(3.0, longest)))))
            self.lifetime = own_ns / lifetime_ns
            self.brightness = scaling * self.lifetime
            self.auger_rate_per_ns = extra_rate(amplitudes, rates, self.lifetime) - radiative
        elif mechanism == "hot_carrier":
            self.brightness, self.lifetime = float(rng.uniform(0.05, 0.9)), 1.0
        elif mechanism == "nbc":
            self.brightness = self.lifetime = float(rng.uniform(0.05, 0.9))
        elif mechanism == "unresolved_charging":
            trion_ns = float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
            self.trion, self.charged = trion_ns / lifetime_ns, float(rng.uniform(0.2, 0.8))
            self.brightness = 1.0 - self.charged + 2.0 * self.charged * self.trion
        if mechanism in ("auger", "nbc"):
            rates = rates + extra_rate(amplitudes, rates, self.lifetime)
        if slack > 0.0:
            # off its place in brightness, or in lifetime where brightness says nothing
            off = float(np.exp(slack * rng.standard_normal()))
            if mechanism in ("auger", "nbc"):
                self.brightness *= off
            elif mechanism == "hot_carrier":
                self.lifetime = off
                rates = rates + extra_rate(amplitudes, rates, off)
        self.amplitudes, self.rates = amplitudes, rates
        if mechanism == "unresolved_charging":
            fast = rates + extra_rate(amplitudes, rates, self.trion)
            shares = [(1.0 - self.charged) * amplitudes, 2.0 * self.charged * amplitudes]
            self.amplitudes, self.rates = np.concatenate(shares), np.concatenate([rates, fast])

    def state(self, rate_per_s: float, biexciton: float) -> SimulatedState:
        """Return what the simulator takes."""
        if self.mechanism == "background":
            return SimulatedState(rate_per_s=0.0)
        return SimulatedState(
            rate_per_s=rate_per_s * self.brightness,
            lifetimes_ns=tuple(1.0 / self.rates),
            amplitudes=tuple(self.amplitudes),
            biexciton_yield_ratio=biexciton,
        )


@dataclass(frozen=True, eq=False)
class Recording:
    """A simulated dot, its truth, and its trace."""

    dot: Simulation
    trace: xr.Dataset
    dims: list[Dim]
    exciton: dict[str, np.ndarray]
    bright: float
    exits: np.ndarray


def recorded(task: common.Task) -> Recording:
    """Simulate one dot, and bin it with what is believed of its instrument."""
    (rng,) = task.generators(1)
    exciton = draw_exciton(rng)
    n_dim = int(rng.integers(1, 3))
    kinds = ["unresolved_charging"] if task.cell == "charging" else list(
        rng.choice(DRAWN, size=n_dim, replace=False)
    )  # fmt: skip
    believed = task.cell == "beliefs"
    priors = load_model("free").mechanism
    slack = 0.0
    if believed:
        slack = float(priors.slack_median * np.exp(priors.slack_sigma * rng.standard_normal()))
    dims = [Dim(kind, exciton, rng, slack) for kind in kinds]
    bright = float(np.exp(rng.uniform(np.log(2e3), np.log(5e4))))
    background = float(rng.uniform(100.0, 500.0))
    width_ns = float(np.exp(rng.uniform(np.log(0.05), np.log(0.4))))
    biexciton = float(rng.uniform(0.02, 0.2))
    first = SimulatedState(
        bright, tuple(1.0 / exciton["rates"]), tuple(exciton["amplitudes"]),
        biexciton_yield_ratio=biexciton,
    )  # fmt: skip
    exits = np.exp(rng.uniform(np.log(0.5), np.log(50.0), 1 + len(dims)))
    dot = simulate(
        [first, *(dim.state(bright, biexciton) for dim in dims)], exits, DURATION_S,
        period_ns=PERIOD_NS, delay_tick_ns=DELAY_TICK_NS, pulse_ns=PULSE_NS,
        response_fwhm_ns=width_ns, background_rate_per_s=background,
        mean_excitons_per_pulse=float(rng.uniform(0.05, 0.5)),
        drift=Drift(depth=-0.03) if task.cell == "drift" else None,
        random_seed=rng,
    )  # fmt: skip
    clock = delay_clock(dot.photons)
    wrong, place_ns = 1.0, PULSE_NS
    if task.cell == "response":
        wrong = 1.2 ** rng.choice([-1.0, 1.0])
    elif believed:
        wrong = float(np.exp(WIDTH_SD * rng.standard_normal()))
        place_ns += PLACE_SD * width_ns * float(rng.standard_normal())
    response = gaussian_on_clock(place_ns, wrong * width_ns / 2.3548, clock)
    given = None
    if task.cell == "background":
        given = (background * 1.3 ** float(rng.choice([-1.0, 1.0])), 0.05 * background)
    trace = pnc.bin_photons(dot.photons, WIDTH_S, response=response, background_rate_per_s=given)
    return Recording(dot, trace, dims, exciton, bright, exits)


def draw_exciton(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the decay of the exciton."""
    lifetime_ns = float(np.exp(rng.uniform(np.log(3.0), np.log(20.0))))
    quantum_yield = float(rng.uniform(0.4, 1.0))
    if rng.random() < 0.6:
        return {
            "amplitudes": np.ones(1), "rates": np.array([1.0 / lifetime_ns]),
            "yield": quantum_yield, "lifetime_ns": lifetime_ns,
        }  # fmt: skip
    ratio, fast = float(rng.uniform(2.0, 6.0)), float(rng.uniform(0.2, 0.7))
    short = lifetime_ns / (fast + (1.0 - fast) * ratio)
    return {
        "amplitudes": np.array([fast, 1.0 - fast]),
        "rates": np.array([1.0 / short, 1.0 / (ratio * short)]),
        "yield": quantum_yield, "lifetime_ns": lifetime_ns,
    }  # fmt: skip
