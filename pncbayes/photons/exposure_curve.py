"""The curve of an exposure: its values, integral and inverse, and what it is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Exposure",
    "ExposureDrift",
    "ExposureLine",
    "combine",
    "grid_s",
    "schedule_exposure",
]

Floats = NDArray[np.float64]
_MOST_STEPS = 50_000_000
_SCHEDULE_STEP_S = 1e-3


def grid_s(duration_s: float, longest_step_s: float) -> Floats:
    """Return a regular grid of times in s from 0 to `duration_s`, both included.

    Raises
    ------
    ValueError
        If it would not fit into memory.
    """
    n_steps = int(np.ceil(duration_s / longest_step_s))
    if n_steps > _MOST_STEPS:
        raise ValueError(
            f"an exposure of {duration_s:.6g} s in steps of {longest_step_s:.3g} s takes "
            f"{n_steps} steps, more than {_MOST_STEPS}; split the recording"
        )
    return np.linspace(0.0, duration_s, max(n_steps, 1) + 1)


@dataclass(frozen=True)
class ExposureLine:
    """A periodic line in an exposure.

    Parameters
    ----------
    frequency_hz
        Mean frequency, in Hz.
    depth
        Amplitude of the fundamental over the mean, before shrinking.
    linewidth_hz
        Full width of the line by the random walk of its phase, in Hz.
    harmonics
        Amplitude of each harmonic over the mean, from the first; 0 where one does not pay.
    depth_sd, depth_time_s
        Relative standard deviation and correlation time (s) of a depth that changes; 0 and
        infinity where it does not.
    phase_known
        Mean length of the posterior mean of ``exp(i phase)``: 1 where the phase is sure.
    dispersion
        Noise around the line over that of counting.
    probability
        Of the line against none, at even odds; the exposure is shrunk towards 1 by it.
    log_bayes_factor, log_likelihood_gain
        Of the line against none, in nats; the second without the price of searching.
    """

    frequency_hz: float
    depth: float
    linewidth_hz: float
    harmonics: tuple[float, ...]
    depth_sd: float
    depth_time_s: float
    phase_known: float
    dispersion: float
    probability: float
    log_bayes_factor: float
    log_likelihood_gain: float


@dataclass(frozen=True)
class ExposureDrift:
    """A slow drift: the logarithm of the exposure as a sum of Chebyshev polynomials.

    Parameters
    ----------
    coefficients, sd
        Coefficients from the first order, over the recording as -1 to 1, and their posterior
        standard deviations.
    dispersion
        Noise of slow changes over that of counting.
    log_bayes_factor
        Of the drift against none, in nats (Laplace).
    """

    coefficients: tuple[float, ...]
    sd: tuple[float, ...]
    dispersion: float
    log_bayes_factor: float


@dataclass(frozen=True, eq=False)
class Exposure:
    """Factor on the signal over time, linear between the points of a regular grid, of mean 1.

    Parameters
    ----------
    values
        Factor at ``n_steps + 1`` times from 0 to `duration_s`; scaled to mean 1.
    duration_s
        Length of the recording, in s.
    lines, drifts, schedule
        What it is made of; the schedule as pairs of time (s) and factor.

    Raises
    ------
    ValueError
        If a value is not a positive number, or there are fewer than two.
    """

    values: Floats
    duration_s: float
    lines: tuple[ExposureLine, ...] = ()
    drifts: tuple[ExposureDrift, ...] = ()
    schedule: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1 or values.size < 2 or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError("`values` of an exposure must be two or more positive numbers")
        if not (np.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(f"`duration_s` must be a positive time in s, got {self.duration_s}")
        values /= np.trapezoid(values) / (values.size - 1)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "duration_s", float(self.duration_s))

    def __repr__(self) -> str:
        low, high = self.values.min(), self.values.max()
        return f"Exposure({low:.3g} to {high:.3g} in {self.duration_s:.6g} s)"

    @property
    def step_s(self) -> float:
        """Step of the grid, in s."""
        return self.duration_s / (self.values.size - 1)

    @property
    def log_bayes_factor(self) -> float:
        """Log Bayes factor of what was estimated against none, in nats; 0 for what was given."""
        of_lines = sum(line.log_bayes_factor for line in self.lines)
        return float(of_lines + sum(drift.log_bayes_factor for drift in self.drifts))

    @cached_property
    def _total_s(self) -> Floats:
        steps = 0.5 * self.step_s * (self.values[1:] + self.values[:-1])
        total: Floats = np.concatenate([[0.0], np.cumsum(steps)])
        total *= self.duration_s / total[-1]
        return total

    def _place(self, time_s: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
        position = np.clip(np.asarray(time_s, np.float64) / self.step_s, 0.0, self.values.size - 1)
        step = np.minimum(position.astype(np.int64), self.values.size - 2)
        return step, position - step

    def at(self, time_s: ArrayLike) -> Floats:
        """Exposure at times in s; that of the nearer end outside the recording."""
        step, part = self._place(time_s)
        before = self.values[step]
        result: Floats = before + part * (self.values[step + 1] - before)
        return result

    def integral(self, time_s: ArrayLike) -> Floats:
        """Integral of the exposure from 0 to times within the recording, in s; it increases."""
        step, part = self._place(time_s)
        before, after = self.values[step], self.values[step + 1]
        inside = part * (before + 0.5 * part * (after - before)) * self.step_s
        result: Floats = self._total_s[step] + inside
        return result

    def time_at(self, integral_s: ArrayLike) -> Floats:
        """Time in s at which the integral has a value: the inverse of `integral`."""
        wanted = np.clip(np.asarray(integral_s, np.float64), 0.0, self._total_s[-1])
        step = np.searchsorted(self._total_s, wanted, side="right") - 1
        step = np.clip(step, 0, self.values.size - 2)
        result: Floats = (step + self.part_of_step(step, wanted - self._total_s[step])) * (
            self.step_s
        )
        return result

    def part_of_step(self, step: NDArray[np.int64], remaining_s: Floats) -> Floats:
        """Part of a step, 0 to 1, in which the integral grows by `remaining_s` (s)."""
        before = self.values[step]
        slope = self.values[step + 1] - before
        wanted = np.maximum(remaining_s, 0.0) / self.step_s
        # the root of slope x^2 / 2 + before x = wanted that does not cancel for small slopes
        root = np.sqrt(np.maximum(before**2 + 2.0 * slope * wanted, 0.0))
        part: Floats = np.clip(2.0 * wanted / (before + root), 0.0, 1.0)
        return part

    def to_dict(self) -> dict[str, Any]:
        """Return what the exposure is made of as numbers and lists that JSON can hold."""
        lines = []
        for line in self.lines:
            described = asdict(line)
            described["harmonics"] = list(line.harmonics)
            described["depth_time_s"] = line.depth_time_s if line.depth_sd > 0 else None
            lines.append(described)
        drifts = [
            {**asdict(drift), "coefficients": list(drift.coefficients), "sd": list(drift.sd)}
            for drift in self.drifts
        ]
        return {
            "duration_s": self.duration_s,
            "step_s": self.step_s,
            "smallest": float(self.values.min()),
            "largest": float(self.values.max()),
            "lines": lines,
            "drifts": drifts,
            "schedule": [list(pair) for pair in self.schedule],
        }


def schedule_exposure(times_s: ArrayLike, factors: ArrayLike, duration_s: float) -> Exposure:
    """Exposure by a schedule of steps: known changes of gas, laser power or temperature.

    Parameters
    ----------
    times_s
        Start of each step, in s, shape ``(n,)``, from 0, increasing.
    factors
        Factor from that time on, shape ``(n,)``; only their ratios matter. A change takes up to
        a step of the grid, a millisecond.
    duration_s
        Length of the recording, in s.

    Returns
    -------
    Exposure

    Raises
    ------
    ValueError
        If the numbers do not make a schedule.
    """
    times, values = np.asarray(times_s, np.float64), np.asarray(factors, np.float64)
    if times.ndim != 1 or times.shape != values.shape or times.size == 0:
        raise ValueError(
            f"`times_s` and `factors` must have the same length, got {times.shape} and "
            f"{values.shape}"
        )
    if times[0] != 0 or not (np.diff(times) > 0).all() or not times[-1] < duration_s:
        raise ValueError("`times_s` must start at 0, increase, and end before `duration_s`")
    points_s = grid_s(duration_s, max(_SCHEDULE_STEP_S, duration_s / 5e6))
    which = np.searchsorted(times, points_s, side="right") - 1
    pairs = tuple((float(t), float(f)) for t, f in zip(times, values, strict=True))
    return Exposure(values[which], duration_s, schedule=pairs)


def combine(*exposures: Exposure) -> Exposure:
    """Multiply exposures of the same recording.

    Raises
    ------
    ValueError
        If there are none, or they are of different lengths of time.
    """
    if not exposures:
        raise ValueError("`combine` needs one exposure or more")
    duration_s = exposures[0].duration_s
    if any(abs(one.duration_s / duration_s - 1.0) > 1e-9 for one in exposures):
        lengths = ", ".join(f"{one.duration_s:.9g}" for one in exposures)
        raise ValueError(f"exposures must be of the same duration, got {lengths} s")
    time_s = np.linspace(0.0, duration_s, max(one.values.size for one in exposures))
    values = np.ones(time_s.size)
    for one in exposures:
        values *= one.at(time_s)
    return Exposure(
        values,
        duration_s,
        lines=tuple(line for one in exposures for line in one.lines),
        drifts=tuple(drift for one in exposures for drift in one.drifts),
        schedule=tuple(pair for one in exposures for pair in one.schedule),
    )
