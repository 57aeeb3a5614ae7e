"""Parts of a simulated dot: what a state emits, how long it lasts, what modulates the light."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

__all__ = [
    "Drift",
    "Flicker",
    "PeriodicModulation",
    "PowerLawDwell",
    "SimulatedState",
    "make_numbers_plain",
    "require",
    "require_not_negative",
    "require_positive",
]


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise a `ValueError` that names the argument, its value and what is allowed."""
    if not condition:
        raise ValueError(f"`{name}` must be {allowed}, got {value!r}")


def require_not_negative(name: str, value: float) -> None:
    """Raise a `ValueError` unless `value` is a finite number of zero or more."""
    require(math.isfinite(value) and value >= 0, name, value, "zero or a positive number")


def require_positive(name: str, value: float) -> None:
    """Raise a `ValueError` unless `value` is a finite number above zero."""
    require(math.isfinite(value) and value > 0, name, value, "a positive number")


def make_numbers_plain(settings: Any) -> None:
    """Replace NumPy scalars in a frozen dataclass by Python's, which JSON can hold."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, np.generic):
            object.__setattr__(settings, item.name, value.item())


@dataclass(frozen=True)
class SimulatedState:
    """What one state of the dot emits.

    Parameters
    ----------
    rate_per_s
        Detected signal, in counts per s summed over the detectors, before dead time; without
        background and scatter. Give this or `quantum_yield`.
    lifetimes_ns
        Lifetimes of the decay, in ns. May be empty for a state without signal or a stream
        without delays.
    amplitudes
        Relative amplitudes at time zero of the exponentials, as many as lifetimes; all equal when
        empty. A component's share of the photons is amplitude times lifetime.
    quantum_yield
        Share of the excitons that emit, 0 to 1; needs `mean_excitons_per_pulse` and
        `detection_efficiency` in the settings.
    biexciton_yield_ratio
        Yield of the biexciton over that of the exciton; g2(0) tends to this number when the mean
        number of excitons per pulse tends to zero [1]_.
    biexciton_lifetime_ns
        Lifetime of the biexciton, in ns.

    Raises
    ------
    ValueError
        If a number is out of range, or both or none of the two brightnesses are given.

    References
    ----------
    .. [1] Nair, Zhao, Bawendi, Nano Lett. 11, 1136 (2011), doi:10.1021/nl104054t
    """

    rate_per_s: float | None = None
    lifetimes_ns: tuple[float, ...] = ()
    amplitudes: tuple[float, ...] = ()
    quantum_yield: float | None = None
    biexciton_yield_ratio: float = 0.0
    biexciton_lifetime_ns: float = 0.05

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        object.__setattr__(self, "lifetimes_ns", tuple(float(x) for x in self.lifetimes_ns))
        amplitudes = self.amplitudes or (1.0,) * len(self.lifetimes_ns)
        object.__setattr__(self, "amplitudes", tuple(float(x) for x in amplitudes))
        if (self.rate_per_s is None) == (self.quantum_yield is None):
            raise ValueError(
                "a state needs one of `rate_per_s` and `quantum_yield`, "
                f"got {self.rate_per_s!r} and {self.quantum_yield!r}"
            )
        if self.rate_per_s is not None:
            require_not_negative("rate_per_s", self.rate_per_s)
        if self.quantum_yield is not None:
            require(0 <= self.quantum_yield <= 1, "quantum_yield", self.quantum_yield, "0 to 1")
        for lifetime in self.lifetimes_ns:
            require_positive("lifetimes_ns", lifetime)
        if len(self.amplitudes) != len(self.lifetimes_ns):
            raise ValueError(
                f"{len(self.lifetimes_ns)} `lifetimes_ns` need as many `amplitudes`, "
                f"got {len(self.amplitudes)}"
            )
        for amplitude in self.amplitudes:
            require_not_negative("amplitudes", amplitude)
        if self.amplitudes:
            require_positive("sum of amplitudes", sum(self.amplitudes))
        require_not_negative("biexciton_yield_ratio", self.biexciton_yield_ratio)
        require_positive("biexciton_lifetime_ns", self.biexciton_lifetime_ns)

    @property
    def lifetime_ns(self) -> float:
        """Amplitude-averaged lifetime of the exciton, in ns; NaN without a decay."""
        if not self.lifetimes_ns:
            return math.nan
        weighted = sum(a * t for a, t in zip(self.amplitudes, self.lifetimes_ns, strict=True))
        return weighted / sum(self.amplitudes)


@dataclass(frozen=True)
class PowerLawDwell:
    """Dwell times with density proportional to ``t ** -exponent`` from `shortest_s` to `longest_s`.

    Parameters
    ----------
    exponent
        Positive; 1 to 2 is what blinking dots are reported to show.
    shortest_s, longest_s
        Ends of the law, in s.
    """

    exponent: float
    shortest_s: float
    longest_s: float

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        require_positive("exponent", self.exponent)
        require_positive("shortest_s", self.shortest_s)
        require(
            math.isfinite(self.longest_s) and self.longest_s > self.shortest_s,
            "longest_s",
            self.longest_s,
            f"longer than `shortest_s` = {self.shortest_s}",
        )

    @property
    def mean_s(self) -> float:
        """Mean dwell time, in s."""
        return self._moment(1.0 - self.exponent) / self._moment(-self.exponent)

    def _moment(self, power: float) -> float:
        """Integral of ``t ** power`` over the law's range."""
        if abs(power + 1.0) < 1e-9:
            return math.log(self.longest_s / self.shortest_s)
        raised = self.longest_s ** (power + 1) - self.shortest_s ** (power + 1)
        return float(raised / (power + 1))


@dataclass(frozen=True)
class Drift:
    """Slow change of the signal of all states.

    Parameters
    ----------
    depth
        ``"linear"``: total relative change from start to end (mean 1), negative for a loss;
        ``"sinusoid"``: relative amplitude.
    kind
        ``"linear"`` or ``"sinusoid"``.
    period_s
        Period of the sinusoid, in s; the duration of the recording when None.
    """

    depth: float = 0.03
    kind: Literal["linear", "sinusoid"] = "linear"
    period_s: float | None = None

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        require(self.kind in ("linear", "sinusoid"), "kind", self.kind, "'linear' or 'sinusoid'")
        limit = 2.0 if self.kind == "linear" else 1.0
        require(abs(self.depth) <= limit, "depth", self.depth, f"-{limit} to {limit}")
        if self.period_s is not None:
            require_positive("period_s", self.period_s)


@dataclass(frozen=True)
class Flicker:
    """Ornstein-Uhlenbeck process on the logarithm of the signal, common to all states.

    Parameters
    ----------
    log_sd
        Standard deviation of the logarithm; the mean of the factor is 1.
    correlation_time_s
        Time over which the autocorrelation of the logarithm falls to 1/e, in s.
    changes_lifetime
        Whether the lifetimes follow by the same factor, as with a fluctuating non-radiative rate
        at the band edge; otherwise only the brightness flickers.
    """

    log_sd: float
    correlation_time_s: float
    changes_lifetime: bool = False

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        require(0 <= self.log_sd <= 3, "log_sd", self.log_sd, "0 to 3")
        require_positive("correlation_time_s", self.correlation_time_s)


@dataclass(frozen=True)
class PeriodicModulation:
    """Sinusoidal modulation of the signal, as instruments add it.

    Parameters
    ----------
    frequency_hz, depth, phase_rad
        Factor ``1 + depth sin(2 pi frequency_hz t + phase_rad)``; depth 0 to 1.
    linewidth_hz
        Random walk of the phase, as the full width of the spectral line, in Hz.
    """

    frequency_hz: float
    depth: float
    phase_rad: float = 0.0
    linewidth_hz: float = 0.0

    def __post_init__(self) -> None:
        make_numbers_plain(self)
        require_positive("frequency_hz", self.frequency_hz)
        require(0 <= self.depth <= 1, "depth", self.depth, "0 to 1")
        require_not_negative("linewidth_hz", self.linewidth_hz)
