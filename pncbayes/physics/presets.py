"""Named simulated dots, each with the claim that a fit of it can be held against.

Lifetimes and rates lie in the range reported for single CsPbBr3 nanocrystals at room temperature;
no preset imitates a particular recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pncbayes.physics.simulated_dot import (
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
)
from pncbayes.physics.simulation_settings import SimulationSettings

__all__ = ["PRESETS", "Preset", "preset"]

_BRIGHT_PER_S = 2.0e4
_EXCITON_NS = 6.0


@dataclass(frozen=True)
class Preset:
    """A named simulated dot.

    Parameters
    ----------
    name
        Short name.
    claim
        What is true of the dot, in one line.
    settings
        What `pncbayes.physics.simulate.simulate` takes in place of the states.
    """

    name: str
    claim: str
    settings: SimulationSettings


def preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises
    ------
    ValueError
        Naming the presets there are.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def _state(brightness: float, lifetime: float, **others: Any) -> SimulatedState:
    """Return a state by its brightness and lifetime relative to the bright exciton."""
    rate_per_s, lifetime_ns = _BRIGHT_PER_S * brightness, round(_EXCITON_NS * lifetime, 9)
    return SimulatedState(rate_per_s, (lifetime_ns,), **others)


def _dot(name: str, claim: str, *states: SimulatedState, **settings: Any) -> Preset:
    instrument: dict[str, Any] = {
        "duration_s": 60.0,
        "period_ns": 100.0,
        "delay_tick_ns": 0.032,
        "response_fwhm_ns": 0.15,
        "background_rate_per_s": 200.0,
    }
    return Preset(name, claim, SimulationSettings(states=states, **{**instrument, **settings}))


_BRIGHT = _state(1.0, 1.0)
# A trion radiates twice as fast as the exciton: brightness = 2 x lifetime, both relative.
_TRION = _state(0.2, 0.1)
_DARK = SimulatedState(rate_per_s=0.0)

_ALL = (
    _dot(
        "demo",
        "Three states: exciton, trion (dim and fast), dark; one emitter, some switches per second.",
        _state(1.0, 1.0, biexciton_yield_ratio=0.05),
        _state(0.2, 0.1, biexciton_yield_ratio=0.05),
        _DARK,
        transition_rates_per_s=((0.0, 1.2, 0.4), (3.0, 0.0, 0.5), (1.5, 0.5, 0.0)),
        mean_excitons_per_pulse=0.1,
        dead_time_ns=80.0,
    ),
    _dot("steady", "One state: nothing blinks; more than one state is an invention.", _BRIGHT),
    _dot(
        "auger",
        "Two states: the dim one is a trion, brightness = 2 x lifetime.",
        _BRIGHT,
        _TRION,
        exit_rates_per_s=(1.5, 3.0),
    ),
    _dot(
        "hot_carrier",
        "Two states: carriers are trapped hot, so the dim state is as slow as the bright one.",
        _BRIGHT,
        _state(0.25, 1.0),
        exit_rates_per_s=(1.5, 3.0),
    ),
    _dot(
        "nbc",
        "Two states: a band-edge trap, brightness proportional to lifetime.",
        _BRIGHT,
        _state(0.25, 0.25),
        exit_rates_per_s=(1.5, 3.0),
    ),
    _dot(
        "mixed",
        "Three states: exciton, trion, and a hot-carrier state as bright as the trion.",
        _BRIGHT,
        _TRION,
        _state(0.2, 1.0),
        transition_rates_per_s=((0.0, 0.8, 0.8), (2.5, 0.0, 0.2), (2.5, 0.2, 0.0)),
    ),
    _dot(
        "silent",
        "Two equally bright states: a trion without Auger loss, seen in the lifetime only.",
        _BRIGHT,
        _state(1.0, 0.5),
        exit_rates_per_s=(1.0, 1.0),
    ),
    _dot(
        "flicker",
        "One state whose brightness and lifetime wander together: no discrete states.",
        _BRIGHT,
        flicker=Flicker(log_sd=0.3, correlation_time_s=0.3, changes_lifetime=True),
    ),
    _dot(
        "power_law",
        "Two states with power-law dwell times: two levels, but no Markov chain of two.",
        _BRIGHT,
        _TRION,
        dwell_laws=(PowerLawDwell(1.5, 0.01, 20.0), PowerLawDwell(1.5, 0.01, 20.0)),
    ),
    _dot(
        "bleaching",
        "Two states and an end: a dark state that is never left, after 30 s on average.",
        _BRIGHT,
        _TRION,
        _DARK,
        transition_rates_per_s=((0.0, 1.5, 0.033), (3.0, 0.0, 0.033), (0.0, 0.0, 0.0)),
    ),
    _dot(
        "hum",
        "Two states under a 124 Hz modulation of the signal: the line is the instrument's.",
        _BRIGHT,
        _TRION,
        exit_rates_per_s=(1.5, 3.0),
        periodic=PeriodicModulation(frequency_hz=124.0, depth=0.25, linewidth_hz=0.1),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({item.name: item for item in _ALL})
