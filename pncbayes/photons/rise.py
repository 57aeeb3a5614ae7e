"""The rise of a decay at the laser pulse: where it is, and how steep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from pncbayes.photons.delays import DelayClock
from pncbayes.photons.pulse import find_pulse

__all__ = ["Rise", "fit_rise"]


@dataclass(frozen=True)
class Rise:
    """The rise of a decay, as that of a Gaussian response.

    Parameters
    ----------
    center_ns, center_sd_ns
        Centre of the response after the start of the TCSPC period, and its standard error, in ns.
    sd_ns, sd_error_ns
        Standard deviation of the response, and its standard error, in ns.
    """

    center_ns: float
    center_sd_ns: float
    sd_ns: float
    sd_error_ns: float

    @property
    def width_ns(self) -> float:
        """Full width at half maximum, in ns."""
        return float(np.sqrt(8 * np.log(2)) * self.sd_ns)


def fit_rise(histogram: NDArray[np.int64], clock: DelayClock) -> Rise | None:
    """Fit a Gaussian response to the rise of a decay.

    Around the pulse the counts are taken as ``floor + Phi((t - center) / sd) * exp(a + b t)``, with
    Phi the Gaussian distribution function, integrated over the ticks, by maximum likelihood. That
    holds when the decay loses little over the width of the response; scatter and components faster
    than the response make the width come out too small, so it is no substitute for a measurement.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.
    clock
        The delay clock.

    Returns
    -------
    Rise or None
        None when the delays show no pulse. A width below a tenth of a tick is given as that.
    """
    pulse = find_pulse(histogram)
    if pulse is None:
        return None
    counts = np.asarray(histogram, dtype=np.float64)
    center, sd = float(pulse.position), 0.5 * pulse.step + 0.3
    reach = 12.0 * pulse.step + 6.0
    for _ in range(2):
        center, sd, errors = _fit_rise_window(counts, center, sd, reach)
        reach = 6.0 * sd + 6.0
    tick = clock.tick_ns
    return Rise((center % clock.period_ticks) * tick, errors[0] * tick, sd * tick, errors[1] * tick)


def _fit_rise_window(
    counts: NDArray[np.float64], center: float, sd: float, reach: float
) -> tuple[float, float, tuple[float, float]]:
    n_ticks = counts.size
    reach = min(reach, n_ticks / 4)
    window = np.arange(int(np.floor(center - reach)), int(np.ceil(center + reach)) + 1)
    seen = counts[window % n_ticks]
    nodes, node_weight = np.polynomial.legendre.leggauss(5)
    time = window[:, None] + 0.5 + 0.5 * nodes
    peak = max(float(seen.max()), 1.0)
    low = max(float(np.median(seen[: max(1, seen.size // 4)])), 0.05)

    def expected(p: NDArray[np.float64]) -> NDArray[np.float64]:
        u = time - p[0]
        edge = scipy.special.ndtr(u / np.exp(p[1]))
        rise = edge * np.exp(np.clip(p[2] + p[3] * u, -50, 50))
        return np.asarray(np.exp(p[4]) + 0.5 * rise @ node_weight)

    span = float(reach)
    start = np.array([center, np.log(sd), np.log(peak), 0.0, np.log(low)])
    lowest = np.array([center - span, np.log(0.1), np.log(peak) - 5, -2.0, np.log(1e-3)])
    highest = np.array([center + span, np.log(span), np.log(peak) + 3, 0.5 / span, np.log(peak)])
    best, covariance = _poisson_fit(expected, seen, start, lowest, highest)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    width = float(np.exp(best[1]))
    return float(best[0]), width, (float(errors[0]), float(errors[1]) * width)


def _poisson_fit(
    expected: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seen: NDArray[np.float64],
    start: NDArray[np.float64],
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fisher scoring with damping, inside bounds; best parameters and their covariance."""

    def log_likelihood(mean: NDArray[np.float64]) -> float:
        return float(np.sum(seen * np.log(mean) - mean))

    best = np.clip(start, lowest, highest)
    mean = expected(best)
    value, damping = log_likelihood(mean), 1e-2
    information = np.eye(best.size)
    for _ in range(80):
        slope = np.empty((best.size, seen.size))
        for i in range(best.size):
            above, below = best.copy(), best.copy()
            above[i] += 1e-5
            below[i] -= 1e-5
            slope[i] = (expected(above) - expected(below)) / 2e-5
        information = (slope / mean) @ slope.T
        gradient = slope @ (seen / mean - 1.0)
        gained = 0.0
        while damping < 1e8:
            damped = information + np.diag(damping * np.diag(information) + 1e-10)
            trial = np.clip(best + np.linalg.solve(damped, gradient), lowest, highest)
            trial_mean = expected(trial)
            trial_value = log_likelihood(trial_mean)
            if trial_value >= value:
                gained = trial_value - value
                best, mean, value, damping = trial, trial_mean, trial_value, damping * 0.1
                break
            damping *= 10.0
        if gained < 1e-6:
            break
    return best, np.linalg.pinv(information)
