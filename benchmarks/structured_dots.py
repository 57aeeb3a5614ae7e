"""Dots drawn from structured model files: parameters from the priors, then decays, path, photons.

Nothing is off the model: coordinates are standard normal, decays scatter around their shapes, the
path is drawn in continuous time from a state uniform among all. The priors of brightness, lifetime
and switching are narrower than those of the shipped files, so that half a minute says something of
most parameters; simulation and inference share them. The instrument is one for all dots.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache

import common
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.errors import PncbayesWarning
from pncbayes.inference.structured import StructuredPosterior, instrument_priors
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import LogNormal
from pncbayes.physics.simulate import StatePath
from pncbayes.physics.state_path import simulate_jumps
from pncbayes.physics.structured_emission import Recorder, recorder_of
from pncbayes.physics.structured_file import load_structured
from pncbayes.physics.structures import Prior, StructuredModel

Floats = NDArray[np.float64]

DURATION_S, WIDTH_S = 30.0, 0.01
PERIOD_NS, DELAY_TICK_NS, PULSE_NS, RESPONSE_SD_NS = 200.0, 0.016, 5.0, 0.08
BACKGROUND_PER_S = (300.0, 30.0)
N_GATES = 24
# 99 % within 2 to 50 kcps, 1 to 30 ns, and 0.1 to 50 switches per s
NARROWER: dict[str, Prior] = {
    "exciton_rate_per_s": LogNormal(1.0e4, 0.62),
    "exciton_lifetime_ns": LogNormal(5.5, 0.66),
    "k_trap_per_s": LogNormal(2.2, 1.2),
    "k_detrap_per_s": LogNormal(2.2, 1.2),
    "k_activate_per_s": LogNormal(2.2, 1.2),
    "k_deactivate_per_s": LogNormal(2.2, 1.2),
}


@dataclass(frozen=True, eq=False)
class StructuredDot:
    """A simulated dot and its truth.

    Attributes
    ----------
    posterior
        Of the model that it was drawn from, for its counts in bins of `WIDTH_S`.
    z
        Coordinates of the truth, shape ``(size,)``.
    path
        Which state the dot was in when.
    trace
        Counts per bin and gate, with photons behind them.
    """

    posterior: StructuredPosterior
    z: Floats
    path: StatePath
    trace: xr.Dataset


def narrowed(name: str) -> StructuredModel:
    """Return the model file of a name with the priors of these dots."""
    model = load_structured(name)
    exciton = {key: NARROWER.get(key, prior) for key, prior in model.exciton.items()}
    parts = tuple(
        replace(part, priors={key: NARROWER.get(key, prior) for key, prior in part.priors.items()})
        for part in model.parts
    )
    return replace(model, exciton=exciton, parts=parts)


def gate_edges_ns() -> Floats:
    """One gate before the pulse, the others wider and wider, rounded to the delay clock."""
    after = PULSE_NS - 0.3 + np.geomspace(0.3, PERIOD_NS - PULSE_NS + 0.3, N_GATES)
    edges = np.concatenate(([0.0], after))
    return np.asarray(np.round(edges / DELAY_TICK_NS) * DELAY_TICK_NS)


def _bin(photons: Photons) -> xr.Dataset:
    clock = delay_clock(photons)
    if clock is None:
        raise ValueError("the photons of a structured dot must have delays")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PncbayesWarning)
        trace = bin_photons(
            photons, WIDTH_S, gates=gate_edges_ns(),
            response=gaussian_on_clock(PULSE_NS, RESPONSE_SD_NS, clock),
            background_rate_per_s=BACKGROUND_PER_S,
        )  # fmt: skip
    # the response is where it is said to be, but for the shift that is drawn
    trace.attrs["response_source"] = "known"
    return trace


@cache
def instrument() -> tuple[Recorder, dict[str, Prior]]:
    """What the instrument makes of light, and the priors that go with it: the same for all dots."""
    rng = np.random.default_rng(common.ROOT_SEED)
    edges = gate_edges_ns()
    path = StatePath(np.zeros(1), np.zeros(1, np.int64), 1.0, 1)
    trace = _bin(photons_along(path, np.full((1, edges.size - 1), 100.0), rng))
    return recorder_of(trace), instrument_priors(trace)


def photons_along(path: StatePath, gate_rate_per_s: Floats, rng: np.random.Generator) -> Photons:
    """Draw photons along a path.

    Parameters
    ----------
    path
        Which state the dot is in when.
    gate_rate_per_s
        Counts per s of each state and gate, shape ``(n_states, n_gates)``.
    rng
        Source of random numbers.
    """
    dwells_s = np.diff(path.jump_times_s, append=path.duration_s)
    means = gate_rate_per_s[path.jump_states] * dwells_s[:, None]
    numbers = rng.poisson(means)
    dwell, gate = np.nonzero(numbers)
    times = numbers[dwell, gate]
    dwell, gate = np.repeat(dwell, times), np.repeat(gate, times)
    when_s = path.jump_times_s[dwell] + rng.random(dwell.size) * dwells_s[dwell]
    ticks = np.round(gate_edges_ns() / DELAY_TICK_NS).astype(np.int64)
    delay = ticks[gate] + np.floor(rng.random(gate.size) * np.diff(ticks)[gate])
    order = np.argsort(when_s, kind="stable")
    return Photons(
        np.floor(when_s[order] / (PERIOD_NS * 1e-9)).astype(np.int64),
        PERIOD_NS * 1e-9,
        delay_ticks=delay[order].astype(np.int32),
        delay_tick_ns=DELAY_TICK_NS,
        period_ns=PERIOD_NS,
        duration_s=path.duration_s,
    )


def draw_structured_dot(
    model: StructuredModel, rng: np.random.Generator, *, duration_s: float = DURATION_S
) -> StructuredDot:
    """Draw a dot from a hypothesis with given numbers of levels."""
    recorder, own = instrument()
    empty = np.zeros((1, N_GATES))
    prior = StructuredPosterior(model, empty, WIDTH_S, recorder, own)
    z = rng.standard_normal(prior.size)
    gates, rates, concentration = prior.rates(z)
    totals = gates.sum(axis=1)
    scattered = np.stack([
        rng.dirichlet(concentration * row / total)
        for row, total in zip(gates, totals, strict=True)
    ])  # fmt: skip
    path = simulate_jumps(rates, duration_s, initial_state="uniform", random_seed=rng)
    trace = _bin(photons_along(path, totals[:, None] * scattered, rng))
    posterior = StructuredPosterior(model, trace["counts"].values, WIDTH_S, recorder, own)
    return StructuredDot(posterior, z, path, trace)
