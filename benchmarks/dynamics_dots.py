"""Simulated dots with known dynamics: what switches, what flickers, and what the instrument adds.

They are not drawn from the models that are fitted: flicker is a continuous process; a rate that
flickers either scales lifetimes with the brightness itself, or takes photons away one by one from
decays of two exponentials; excess noise is afterpulses of the detectors, or a brightness that
changes within a millisecond; dwell times are power laws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import common  # noqa: F401  (sets one thread before NumPy is loaded)
import numpy as np
from dynamics_light import with_wandering_rate

from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import (
    Drift,
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    SimulationSettings,
    simulate,
)

PERIOD_NS = 200.0
PULSE_NS = 10.0
# Key of what is done to the photons after they were simulated.
WANDERING = "wandering"
LIFETIME_NS = (8.0, 30.0)
AMPLITUDES = (1.0, 0.08)
# levels below it differ in what a record shows by less than its shot noise allows
LEAST_GAP = 0.15


@dataclass(frozen=True)
class DynamicsDot:
    """A recording and what is true of it.

    Attributes
    ----------
    photons
        The recording.
    verdict
        ``"steady"``, ``"blinking"``, ``"flickering"`` or ``"both"``.
    n_levels
        Distinct emission levels that the dot visited.
    facts
        What was drawn, for the row.
    """

    photons: Photons
    verdict: str
    n_levels: int
    facts: dict[str, Any]


def _levels(n: int, rng: np.random.Generator) -> np.ndarray:
    """Relative brightness of levels, bright to dim, apart from each other."""
    while True:
        some = np.sort(np.append(1.0, rng.uniform(0.03, 0.85, n - 1)))[::-1]
        if n == 1 or np.min(-np.diff(some)) > LEAST_GAP:
            return some


def _state(rate_per_s: float, relative: float, kind: str) -> SimulatedState:
    """A level; its lifetimes are those of a trap of hot carriers (none) or of a centre (all)."""
    scale = relative if kind == "centre" else 1.0
    return SimulatedState(
        rate_per_s=rate_per_s * relative,
        lifetimes_ns=tuple(max(scale * t, 0.3) for t in LIFETIME_NS),
        amplitudes=AMPLITUDES,
    )


def _rates(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rates per s: exits 0.3 to 10 per s, shared unevenly."""
    rates = np.zeros((n, n))
    if n > 1:
        exits = np.exp(rng.uniform(np.log(0.3), np.log(10.0), n))
        rates[~np.eye(n, dtype=bool)] = (
            exits[:, None] * rng.dirichlet(np.full(n - 1, 2.0), n)
        ).ravel()
    return rates


def _plain(n: int, rng: np.random.Generator, kind: str = "") -> dict[str, Any]:
    rate = float(np.exp(rng.uniform(np.log(2e3), np.log(2e4))))
    kind = kind or ("centre" if rng.random() < 0.5 else "hot")
    return {
        "states": tuple(_state(rate, one, kind) for one in _levels(n, rng)),
        "transition_rates_per_s": _rates(n, rng),
        "duration_s": float(rng.uniform(30.0, 120.0)),
        "background_rate_per_s": float(0.02 * rate + 20.0),
        "period_ns": PERIOD_NS,
        "pulse_ns": PULSE_NS,
    }


def _flicker(rng: np.random.Generator, *, changes_lifetime: bool) -> Flicker:
    return Flicker(
        log_sd=float(rng.uniform(0.1, 0.35)),
        correlation_time_s=float(np.exp(rng.uniform(np.log(0.05), np.log(3.0)))),
        changes_lifetime=changes_lifetime,
    )


def _discrete(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(1, 5))
    return _plain(n, rng), "steady" if n == 1 else "blinking"


def _flicker_common(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(1, 4))
    settings = _plain(n, rng) | {"flicker": _flicker(rng, changes_lifetime=False)}
    return settings, "flickering" if n == 1 else "both"


def _flicker_lifetime(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(1, 4))
    # lifetimes follow the brightness: that is what one added rate does to one exponential, and to
    # levels that decay alike
    settings = _plain(n, rng, "hot") | {"flicker": _flicker(rng, changes_lifetime=True)}
    settings["states"] = tuple(
        SimulatedState(rate_per_s=one.rate_per_s, lifetimes_ns=LIFETIME_NS[:1])
        for one in settings["states"]
    )
    return settings, "flickering" if n == 1 else "both"


def _flicker_rate(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """A rate added to decays of two exponentials: `draw` takes the photons away."""
    n = int(rng.integers(1, 4))
    settings, flicker = _plain(n, rng, "hot"), _flicker(rng, changes_lifetime=True)
    # share of the decay that the rate makes, when it has its median
    share = float(rng.uniform(0.4, 0.75))
    settings["states"] = tuple(
        replace(one, rate_per_s=one.rate_per_s / (1.0 - share)) for one in settings["states"]
    )
    settings[WANDERING] = {
        "rate_per_ns": share / (1.0 - share) / LIFETIME_NS[0],
        "log_sd_of_rate": flicker.log_sd / share,
        "correlation_time_s": flicker.correlation_time_s,
        "background_rate_per_s": settings["background_rate_per_s"],
    }
    return settings | {"background_rate_per_s": 0.0}, "flickering" if n == 1 else "both"


def _flicker_k_nr(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    return (_flicker_rate if rng.random() < 0.5 else _flicker_lifetime)(rng)


def _excess(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    settings, verdict = _discrete(rng)
    if rng.random() < 0.5:
        return settings | {"afterpulse_probability": float(rng.uniform(0.05, 0.2))}, verdict
    # half a millisecond: noise of single bins, of any width that light of this brightness allows
    noise = Flicker(log_sd=float(rng.uniform(0.15, 0.4)), correlation_time_s=5e-4)
    return settings | {"flicker": noise}, verdict


def _ladder(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    settings = _plain(2, rng)
    laws = tuple(
        PowerLawDwell(
            float(rng.uniform(1.2, 2.0)),
            0.01,
            float(np.exp(rng.uniform(np.log(0.3), np.log(20.0)))),
        )
        for _ in range(2)
    )
    return settings | {"dwell_laws": laws}, "blinking"


def _drift(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    settings, verdict = _discrete(rng)
    depth = float(rng.uniform(0.05, 0.3) * rng.choice([-1.0, 1.0]))
    kind = "linear" if rng.random() < 0.7 else "sinusoid"
    drift = Drift(depth=depth if kind == "linear" else 0.5 * depth, kind=kind)
    return settings | {"drift": drift}, verdict


def _line(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    settings, verdict = _discrete(rng)
    line = PeriodicModulation(
        frequency_hz=float(rng.uniform(50.0, 400.0)),
        depth=float(rng.uniform(0.1, 0.5)),
        phase_rad=float(rng.uniform(0.0, 2.0 * np.pi)),
        linewidth_hz=float(rng.choice([0.0, 0.1, 0.3])),
    )
    return settings | {"periodic": line}, verdict


def _bleach(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(1, 3))
    settings = _plain(n, rng)
    duration_s = settings["duration_s"]
    rates = np.zeros((n + 1, n + 1))
    rates[:n, :n] = settings["transition_rates_per_s"]
    # bleached in the middle half of the recording, whatever level it is in
    rates[:n, n] = 1.0 / duration_s
    settings["states"] += (SimulatedState(rate_per_s=0.0),)
    settings["transition_rates_per_s"] = rates
    return settings | {"initial_state": 0}, "blinking"


def _two_emitters(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    settings = _plain(1, rng)
    rate = settings["states"][0].rate_per_s
    first, second = 1.0, float(rng.uniform(0.45, 0.75))
    dims = rng.uniform(0.03, 0.15, 2)
    exits = np.exp(rng.uniform(np.log(0.3), np.log(5.0), 4))
    light = {(a, b): (first, dims[0])[a] + (second, dims[1])[b] for a in (0, 1) for b in (0, 1)}
    order = list(light)
    rates = np.zeros((4, 4))
    for i, (a, b) in enumerate(order):
        rates[i, order.index((1 - a, b))] = exits[a]
        rates[i, order.index((a, 1 - b))] = exits[2 + b]
    settings["states"] = tuple(_state(0.6 * rate, light[one], "hot") for one in order)
    settings["transition_rates_per_s"] = rates
    return settings, "blinking"


CELLS: dict[str, Callable[[np.random.Generator], tuple[dict[str, Any], str]]] = {
    "discrete": _discrete,
    "flicker_common": _flicker_common,
    "flicker_k_nr": _flicker_k_nr,
    "excess_noise": _excess,
    "ladder": _ladder,
    "drift": _drift,
    "line": _line,
    "bleach": _bleach,
    "two_emitters": _two_emitters,
}

# A level visited for less is not in the record.
_LEAST_TIME_S, _LEAST_VISITS = 0.1, 2


def draw(cell: str, rng: np.random.Generator) -> DynamicsDot:
    """Draw a dot of a cell that shows all its levels."""
    while True:
        settings, verdict = CELLS[cell](rng)
        wandering = settings.pop(WANDERING, None)
        seed = int(rng.integers(2**31))
        dot = simulate(SimulationSettings(**settings), random_seed=seed)
        time_s = dot.path.occupancy * settings["duration_s"]
        visits = np.bincount(dot.path.jump_states, minlength=time_s.size)
        need = 1 if cell == "bleach" or len(visits) == 1 else _LEAST_VISITS
        if time_s.min() > _LEAST_TIME_S and visits.min() >= need:
            break
    rates = [state.rate_per_s for state in settings["states"]]
    facts = {"duration_s": settings["duration_s"], "rate_per_s": float(max(rates))}
    if "flicker" in settings:
        facts["log_sd"] = settings["flicker"].log_sd
        facts["correlation_time_s"] = settings["flicker"].correlation_time_s
    photons = dot.photons
    if wandering is not None:
        photons = with_wandering_rate(photons, pulse_ns=PULSE_NS, rng=rng, **wandering)
        facts["log_sd"] = wandering["log_sd_of_rate"]
        facts["correlation_time_s"] = wandering["correlation_time_s"]
        facts["rate_per_s"] = photons.n_photons / settings["duration_s"]
    return DynamicsDot(photons, verdict, len(rates), facts)
