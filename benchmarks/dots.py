"""Dots drawn from the priors of the free model, for calibration and coverage.

Brightness and exit rates have narrower priors than the shipped file, so that most dots are within
reach of a detector and of half a minute; the same `ModelFile` goes into the fit. Everything else,
the repulsion of the levels included, is as shipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import common  # noqa: F401  (sets one thread before NumPy is loaded)
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.photons.binning import bin_photons
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import LogNormal, ModelFile, load_model
from pncbayes.physics.simulate import (
    Drift,
    PowerLawDwell,
    SimulatedState,
    StatePath,
    simulate,
)

Floats = NDArray[np.float64]

WIDTH_S = 0.01
PERIOD_NS = 100.0
DELAY_TICK_NS = 0.1
PULSE_NS = 5.0
LIFETIME_NS = 20.0
FLAT_SHARE = 0.05
MODEL: ModelFile = replace(
    load_model("free"),
    brightest_rate_per_s=LogNormal(3e3, 0.8),
    exit_rate_per_s=LogNormal(1.0, 1.2),
)
# with delays a few hundred photons tell states apart: dimmer dots keep the question open
DIM_MODEL: ModelFile = replace(MODEL, brightest_rate_per_s=LogNormal(400.0, 0.8))
OFF_PRIOR_DWELL = PowerLawDwell(1.5, 0.02, 10.0)
OFF_PRIOR_DRIFT = Drift(depth=-0.03)


@dataclass(frozen=True)
class Dot:
    """A simulated dot and its truth.

    Attributes
    ----------
    photons
        The recording; with delays where there are gates.
    gate_edges_ns
        Edges of the gates; None without delays.
    gate_rate_per_s
        Counts per s in each gate, shape ``(n_states, n_gates)``, states bright to dim.
    transition_rate_per_s
        Shape ``(n_states, n_states)``, zero on the diagonal.
    base_decay
        Shape around which the decays were drawn, ``(n_gates,)``.
    path
        Which state the dot was in when.
    model
        The priors it was drawn from.
    """

    photons: Photons
    gate_edges_ns: Floats | None
    gate_rate_per_s: Floats
    transition_rate_per_s: Floats
    base_decay: Floats
    path: StatePath
    model: ModelFile

    @property
    def n_states(self) -> int:
        """Number of states, visited or not."""
        return int(self.gate_rate_per_s.shape[0])

    def trace(self) -> xr.Dataset:
        """Counts per bin of the report and gate."""
        return bin_photons(
            self.photons,
            WIDTH_S,
            gates=self.gate_edges_ns,
            response=False,
            background_rate_per_s=0.0,
        )


def draw_levels(n_states: int, repulsion: float, rng: np.random.Generator) -> Floats:
    """Relative brightness of each state, bright to dim, the first 1: levels that repel each other.

    Exact, by rejection: the product of distances is largest at the points of Legendre and Lobatto.
    """
    if n_states == 1:
        return np.ones(1)
    inner = np.polynomial.legendre.Legendre.basis(n_states - 1).deriv().roots()
    best = np.concatenate(([0.0], (np.sort(inner.real) + 1.0) / 2.0, [1.0]))
    upper, lower = np.triu_indices(n_states, 1)
    largest = repulsion * np.log(np.abs(best[upper] - best[lower])).sum()
    while True:
        levels = np.column_stack([np.ones(4096), rng.random((4096, n_states - 1))])
        log_density = repulsion * np.log(np.abs(levels[:, upper] - levels[:, lower])).sum(axis=1)
        accepted = np.flatnonzero(np.log(rng.random(4096)) < log_density - largest)
        if accepted.size:
            return np.asarray(np.sort(levels[accepted[0]])[::-1])


def draw_rates(n_states: int, model: ModelFile, rng: np.random.Generator) -> Floats:
    """Transition rates per s: log-normal exit rates, Dirichlet jumps."""
    rates = np.zeros((n_states, n_states))
    if n_states == 1:
        return rates
    prior = model.exit_rate_per_s
    exits = rng.lognormal(np.log(prior.median), prior.sigma, n_states)
    jumps = rng.dirichlet(np.full(n_states - 1, model.jump_concentration), n_states)
    rates[~np.eye(n_states, dtype=bool)] = (exits[:, None] * jumps).ravel()
    return rates


def gate_edges_ns(n_gates: int) -> Floats:
    """One gate before the pulse, the others wider and wider, rounded to the delay clock."""
    after = PULSE_NS + np.geomspace(1.0, PERIOD_NS - PULSE_NS + 1.0, n_gates) - 1.0
    return np.asarray(np.round(np.concatenate(([0.0], after)) / DELAY_TICK_NS) * DELAY_TICK_NS)


def base_decay(edges_ns: Floats) -> Floats:
    """Share of each gate in a single exponential over a flat background."""
    survival = np.exp(-np.maximum(edges_ns - PULSE_NS, 0.0) / LIFETIME_NS)
    signal = -np.diff(survival)
    flat = np.diff(edges_ns) / PERIOD_NS
    return np.asarray((1.0 - FLAT_SHARE) * signal / signal.sum() + FLAT_SHARE * flat)


def draw_dot(
    rng: np.random.Generator,
    n_states: int,
    duration_s: float,
    *,
    n_gates: int = 1,
    model: ModelFile = MODEL,
    off_prior: str = "",
    any_base: bool = False,
) -> Dot:
    """Draw a dot from the priors, or off them, and its photons.

    Parameters
    ----------
    rng
        Source of everything.
    n_states
        Number of states.
    duration_s
        Length of the recording.
    n_gates
        Delay gates; 1 for no delays.
    model
        The priors.
    off_prior
        ``"levels"`` (uniform, without repulsion), ``"power_law"`` (dwells) or ``"drift"`` (3 % of
        the signal lost along the recording); empty for the priors.
    any_base
        Draw the shape around which the decays scatter from its prior, too.
    """
    prior = model.brightest_rate_per_s
    # with delays the decays tell states apart, and levels do not repel
    repulsion = 0.0 if n_gates > 1 or off_prior == "levels" else model.repulsion
    relative = draw_levels(n_states, repulsion, rng)
    rate_per_s = rng.lognormal(np.log(prior.median), prior.sigma) * relative
    rates = draw_rates(n_states, model, rng)
    laws = (OFF_PRIOR_DWELL,) * n_states if off_prior == "power_law" else None
    dot = simulate(
        [SimulatedState(rate_per_s=rate) for rate in rate_per_s],
        duration_s=duration_s,
        transition_rates_per_s=rates,
        dwell_laws=laws,
        initial_state="uniform",
        period_ns=None,
        tick_s=PERIOD_NS * 1e-9,
        n_detectors=1,
        drift=OFF_PRIOR_DRIFT if off_prior == "drift" else None,
        random_seed=rng,
    )
    if n_gates == 1:
        shape = np.ones((n_states, 1))
        gate_rate = rate_per_s[:, None] * shape
        return Dot(dot.photons, None, gate_rate, rates, np.ones(1), dot.path, model)
    edges = gate_edges_ns(n_gates)
    base = base_decay(edges)
    if any_base:
        base = rng.dirichlet(np.full(n_gates, model.decay_base_concentration))
    belief = model.decay_concentration
    concentration = rng.lognormal(np.log(belief.median), belief.sigma)
    shape = np.maximum(rng.dirichlet(concentration * base, n_states), 1e-15)
    photons = _with_delays(dot.photons, dot.path, shape, edges, rng)
    return Dot(photons, edges, rate_per_s[:, None] * shape, rates, base, dot.path, model)


def _with_delays(
    photons: Photons, path: StatePath, shape: Floats, edges_ns: Floats, rng: np.random.Generator
) -> Photons:
    """Give each photon a gate by the state it came from, and a delay anywhere in that gate."""
    which = np.searchsorted(path.jump_times_s, photons.time_s, side="right") - 1
    state = path.jump_states[np.maximum(which, 0)]
    cumulative = np.cumsum(shape, axis=1)[state]
    gate = (rng.random(len(photons))[:, None] * cumulative[:, -1:] > cumulative).sum(axis=1)
    ticks = np.round(edges_ns / DELAY_TICK_NS).astype(np.int64)
    delay = ticks[gate] + np.floor(rng.random(len(photons)) * np.diff(ticks)[gate])
    return replace(
        photons,
        delay_ticks=delay.astype(np.int32),
        delay_tick_ns=DELAY_TICK_NS,
        period_ns=PERIOD_NS,
    )
