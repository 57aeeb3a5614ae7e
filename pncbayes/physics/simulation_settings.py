"""Everything that defines a simulated recording except the random numbers, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.simulated_dot import (
    Drift,
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    make_numbers_plain,
    require,
    require_not_negative,
    require_positive,
)

__all__ = ["SimulationSettings"]

# FWHM of a Gaussian over its standard deviation
_FWHM_PER_SD = 2.0 * math.sqrt(2.0 * math.log(2.0))


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """Everything that defines a simulated recording except the random numbers.

    Parameters
    ----------
    states
        The states of the dot; a state is numbered by its position.
    duration_s
        Length of the recording, in s.
    transition_rates_per_s
        Rate of each switch, ``[from][to]``, per s; the diagonal is ignored. A row of zeros is a
        state that is never left (bleaching).
    exit_rates_per_s
        Instead of `transition_rates_per_s`: the rate of leaving each state, per s, shared evenly
        among the other states.
    dwell_laws
        Per state a law of its dwell times in place of the exponential one, or None. Where the dot
        goes afterwards is still shared as the transition rates say.
    initial_state
        Number of the first state; ``"stationary"``; ``"uniform"``; None for stationary, or state
        0 where some state is never left.
    period_ns
        Time between laser pulses, in ns; None for continuous excitation: no delays.
    delay_tick_ns
        Delay clock, in ns.
    tick_s
        Clock of the arrival times without pulses, in s. With pulses arrival times count pulses.
    pulse_ns
        Position of the pulse after the start of the period, in ns; a twentieth of the period when
        None. Not used with a measured `response`, which has its own position.
    response_fwhm_ns
        Full width at half maximum of a Gaussian response, in ns.
    response
        Measured response: a histogram on the delay clock, from the start of the period, free of
        background; replaces the Gaussian.
    background_rate_per_s
        Counts per s, summed over the detectors, flat in delay.
    scatter_rate_per_s
        Counts per s, summed over the detectors, that follow the response.
    n_detectors
        Number of detectors, which share the light evenly.
    dead_time_ns
        Time for which a detector is blind after a count, in ns (not paralysable).
    afterpulse_probability
        Probability that a count is followed by a false count of the same detector.
    afterpulse_time_ns
        Mean delay of the false count after the dead time, in ns (exponential).
    mean_excitons_per_pulse
        When given, excitons are Poisson in each pulse and the light is that of one emitter: at
        most one exciton photon per pulse, after at most one biexciton photon (more than two
        excitons count as two). When None, the signal is Poissonian light.
    detection_efficiency
        Share of the emitted photons that is detected; only with `quantum_yield`.
    drift, flicker, periodic
        Factors on the signal of all states; background and scatter are not modulated.

    Raises
    ------
    ValueError
        Naming the setting, its value and what is allowed.
    """

    states: tuple[SimulatedState, ...]
    duration_s: float
    transition_rates_per_s: Sequence[Sequence[float]] | NDArray[np.float64] | None = None
    exit_rates_per_s: Sequence[float] | NDArray[np.float64] | None = None
    dwell_laws: tuple[PowerLawDwell | None, ...] | None = None
    initial_state: int | Literal["stationary", "uniform"] | None = None
    period_ns: float | None = 400.0
    delay_tick_ns: float = 0.128
    tick_s: float = 1e-9
    pulse_ns: float | None = None
    response_fwhm_ns: float = 0.3
    response: Sequence[float] | NDArray[np.float64] | None = None
    background_rate_per_s: float = 0.0
    scatter_rate_per_s: float = 0.0
    n_detectors: int = 2
    dead_time_ns: float = 0.0
    afterpulse_probability: float = 0.0
    afterpulse_time_ns: float = 1000.0
    mean_excitons_per_pulse: float | None = None
    detection_efficiency: float | None = None
    drift: Drift | None = None
    flicker: Flicker | None = None
    periodic: PeriodicModulation | None = None

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        object.__setattr__(self, "states", tuple(self.states))
        require(len(self.states) > 0, "states", self.states, "one state or more")
        require_positive("duration_s", self.duration_s)
        if self.dwell_laws is not None:
            object.__setattr__(self, "dwell_laws", tuple(self.dwell_laws))
            require(
                len(self.dwell_laws) == self.n_states,
                "dwell_laws",
                self.dwell_laws,
                f"one law or None for each of the {self.n_states} states",
            )
        # plain tuples, so that settings compare equal and go into JSON as they are
        if self.exit_rates_per_s is not None:
            exits = tuple(float(x) for x in np.asarray(self.exit_rates_per_s, float).ravel())
            object.__setattr__(self, "exit_rates_per_s", exits)
        if self.transition_rates_per_s is not None:
            rates = np.asarray(self.transition_rates_per_s, float)
            table = tuple(tuple(float(x) for x in row) for row in np.atleast_2d(rates))
            object.__setattr__(self, "transition_rates_per_s", table)
        if self.response is not None:
            histogram = tuple(float(x) for x in np.asarray(self.response, float).ravel())
            object.__setattr__(self, "response", histogram)
        self._check_instrument()
        self._check_initial_state()
        self._check_generator()
        self._check_brightness()

    def _check_instrument(self) -> None:
        require_positive("tick_s", self.tick_s)
        require_positive("delay_tick_ns", self.delay_tick_ns)
        require_not_negative("response_fwhm_ns", self.response_fwhm_ns)
        for name in ("background_rate_per_s", "scatter_rate_per_s", "dead_time_ns"):
            require_not_negative(name, getattr(self, name))
        require_positive("afterpulse_time_ns", self.afterpulse_time_ns)
        probability = self.afterpulse_probability
        require(0 <= probability < 0.5, "afterpulse_probability", probability, "0 to 0.5")
        require(1 <= self.n_detectors <= 64, "n_detectors", self.n_detectors, "1 to 64")
        if self.period_ns is None:
            return
        require_positive("period_ns", self.period_ns)
        n_ticks = self.period_ns / self.delay_tick_ns
        require(n_ticks >= 2, "delay_tick_ns", self.delay_tick_ns, "below half of `period_ns`")
        if self.pulse_ns is not None:
            allowed = f"0 to `period_ns` = {self.period_ns}"
            require(0 <= self.pulse_ns < self.period_ns, "pulse_ns", self.pulse_ns, allowed)
        if self.response is not None:
            histogram = np.asarray(self.response)
            require(
                bool(np.all(np.isfinite(histogram)) and np.all(histogram >= 0))
                and histogram.sum() > 0
                and histogram.size <= math.ceil(n_ticks),
                "response",
                f"a histogram of {histogram.size} ticks, sum {histogram.sum():g}",
                f"counts of zero or more on at most {math.ceil(n_ticks)} delay ticks",
            )

    def _check_initial_state(self) -> None:
        first = self.initial_state
        allowed = f"None, 'stationary', 'uniform' or 0 to {self.n_states - 1}"
        if isinstance(first, str) or first is None:
            require(first in (None, "stationary", "uniform"), "initial_state", first, allowed)
        else:
            require(0 <= first < self.n_states, "initial_state", first, allowed)

    def _check_generator(self) -> None:
        n_states = self.n_states
        exits, table = self.exit_rates_per_s, self.transition_rates_per_s
        if exits is not None and table is not None:
            raise ValueError("give `exit_rates_per_s` or `transition_rates_per_s`, not both")
        if exits is not None:
            require(
                len(exits) == n_states and all(math.isfinite(x) and x >= 0 for x in exits),
                "exit_rates_per_s",
                exits,
                f"{n_states} rates of zero or more, one per state",
            )
        if table is not None:
            rates = np.array(table, float)
            if rates.shape == (n_states, n_states):
                np.fill_diagonal(rates, 0.0)
            require(
                rates.shape == (n_states, n_states)
                and bool(np.all(np.isfinite(rates)) and np.all(rates >= 0)),
                "transition_rates_per_s",
                table,
                f"{n_states} x {n_states} rates of zero or more",
            )
        without_law = self.dwell_laws is None or None in self.dwell_laws
        if n_states > 1 and exits is None and table is None and without_law:
            raise ValueError(
                f"{n_states} states need `transition_rates_per_s`, `exit_rates_per_s` or "
                "`dwell_laws`: how fast does the dot switch?"
            )

    def _check_brightness(self) -> None:
        excitons, efficiency = self.mean_excitons_per_pulse, self.detection_efficiency
        if excitons is not None:
            require_positive("mean_excitons_per_pulse", excitons)
            if self.period_ns is None:
                raise ValueError("`mean_excitons_per_pulse` needs laser pulses: set `period_ns`")
        if efficiency is not None:
            require(0 < efficiency <= 1, "detection_efficiency", efficiency, "above 0, up to 1")
        for number, state in enumerate(self.states):
            if state.quantum_yield is not None and (excitons is None or efficiency is None):
                raise ValueError(
                    f"state {number} has a `quantum_yield`: set `mean_excitons_per_pulse` and "
                    "`detection_efficiency`, or give its `rate_per_s`"
                )
        rates = self.signal_rates_per_s
        for number, (state, rate) in enumerate(zip(self.states, rates, strict=True)):
            if rate > 0 and self.period_ns is not None and not state.lifetimes_ns:
                raise ValueError(f"state {number} emits {rate:g} counts per s: set `lifetimes_ns`")
        if self.period_ns is not None:
            total = max(rates) + self.background_rate_per_s + self.scatter_rate_per_s
            require(
                total * self.period_ns * 1e-9 <= 1.0,
                "rate_per_s",
                float(total),
                f"at most one count per laser pulse ({1e9 / self.period_ns:g} per s)",
            )
        if excitons is not None:
            chance, ratio = self.detection_probabilities()
            worst = float(np.max(chance * np.maximum(1.0, ratio)))
            require(
                worst <= 1.0,
                "rate_per_s",
                float(max(rates)),
                f"{1 / worst:.3g} times smaller, or `mean_excitons_per_pulse` larger: there are "
                "not enough excitons",
            )

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.states)

    @property
    def response_sd_ns(self) -> float:
        """Standard deviation of the Gaussian response, in ns."""
        return self.response_fwhm_ns / _FWHM_PER_SD

    @property
    def pulse_position_ns(self) -> float:
        """Position of the laser pulse in the period, in ns; NaN without pulses."""
        if self.period_ns is None:
            return math.nan
        if self.response is not None:
            return (int(np.argmax(self.response)) + 0.5) * self.delay_tick_ns
        return 0.05 * self.period_ns if self.pulse_ns is None else self.pulse_ns

    @property
    def jump_rates_per_s(self) -> NDArray[np.float64]:
        """Rates of switching, shape ``(n_states, n_states)`` [from, to], diagonal 0, per s."""
        if self.transition_rates_per_s is not None:
            rates = np.array(self.transition_rates_per_s, float)
            np.fill_diagonal(rates, 0.0)
            return rates
        n_states = self.n_states
        exits = np.zeros(n_states) if self.exit_rates_per_s is None else self.exit_rates_per_s
        rates = np.tile(np.asarray(exits, float)[:, None], (1, n_states)) / max(n_states - 1, 1)
        np.fill_diagonal(rates, 0.0)
        return rates

    @property
    def signal_rates_per_s(self) -> NDArray[np.float64]:
        """Detected signal of each state, shape ``(n_states,)``, per s, before dead time."""
        rates = [0.0 if s.rate_per_s is None else float(s.rate_per_s) for s in self.states]
        for number, state in enumerate(self.states):
            if state.quantum_yield is None:
                continue
            assert self.detection_efficiency is not None
            assert self.period_ns is not None
            photons_per_yield = self._excited + state.biexciton_yield_ratio * self._excited_twice
            chance = self.detection_efficiency * state.quantum_yield
            rates[number] = chance * photons_per_yield / (self.period_ns * 1e-9)
        return np.array(rates)

    def detection_probabilities(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Chance that an exciton's photon is detected, and the biexciton's chance over it.

        Returns
        -------
        tuple of arrays, shape ``(n_states,)``
            Yield times detection efficiency, and the ratio of the yields. With ``N`` excitons on
            average, pulses at rate ``f`` give ``f [(1 - exp(-N)) Q_X + P(2 or more) Q_XX]`` times
            the efficiency.

        Raises
        ------
        ValueError
            Without `mean_excitons_per_pulse`.
        """
        if self.mean_excitons_per_pulse is None or self.period_ns is None:
            raise ValueError("detection probabilities need `mean_excitons_per_pulse`")
        ratio = np.array([state.biexciton_yield_ratio for state in self.states])
        per_pulse = self.signal_rates_per_s * self.period_ns * 1e-9
        return per_pulse / (self._excited + ratio * self._excited_twice), ratio

    @property
    def _excited(self) -> float:
        return -math.expm1(-(self.mean_excitons_per_pulse or 0.0))

    @property
    def _excited_twice(self) -> float:
        """P(2 or more excitons)."""
        mean = self.mean_excitons_per_pulse or 0.0
        return self._excited - mean * math.exp(-mean)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as numbers, texts and lists that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SimulationSettings:
        """Return the settings that `to_dict` wrote, also after a round trip through JSON.

        Raises
        ------
        ValueError
            If a name is not a setting.
        """
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        require(not unknown, "settings", unknown, f"among {sorted(known)}")
        options: dict[str, Any] = dict(values)
        options["states"] = tuple(SimulatedState(**state) for state in values["states"])
        if options.get("dwell_laws") is not None:
            laws = (None if law is None else PowerLawDwell(**law) for law in values["dwell_laws"])
            options["dwell_laws"] = tuple(laws)
        parts: dict[str, type] = {
            "drift": Drift,
            "flicker": Flicker,
            "periodic": PeriodicModulation,
        }
        for name, part in parts.items():
            if options.get(name) is not None:
                options[name] = part(**values[name])
        return cls(**options)
