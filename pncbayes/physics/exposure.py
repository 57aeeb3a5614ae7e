"""Factors on a simulated signal beside the dot's states: drift, flicker, periodic modulation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.simulate_kernels import Exposure, autoregression
from pncbayes.physics.simulation_settings import SimulationSettings

__all__ = ["ExposureSource"]

# Steps per cycle and per correlation time: the error of a constant step is then below the
# shot noise of any recording (a sinusoid loses 4e-4 of its depth).
_STEPS_PER_CYCLE = 64
_STEPS_PER_CORRELATION_TIME = 50
_STEPS_PER_DRIFT = 1000


class ExposureSource:
    """Draws the factors block by block, in the order of time.

    Parameters
    ----------
    settings
        The recording; its `drift`, `flicker` and `periodic` are used.
    longest_step_s
        Upper limit of a step, in s.
    rng
        Source of random numbers.

    Attributes
    ----------
    step_s
        Length of a step, in s, over which the factors are constant.
    """

    def __init__(
        self, settings: SimulationSettings, longest_step_s: float, rng: np.random.Generator
    ) -> None:
        self._settings = settings
        self._rng = rng
        steps = [longest_step_s]
        drift, flicker, periodic = settings.drift, settings.flicker, settings.periodic
        if drift is not None:
            steps.append((drift.period_s or settings.duration_s) / _STEPS_PER_DRIFT)
        if flicker is not None:
            steps.append(flicker.correlation_time_s / _STEPS_PER_CORRELATION_TIME)
        if periodic is not None:
            steps.append(1.0 / (_STEPS_PER_CYCLE * periodic.frequency_hz))
        self.step_s = min(steps)
        self._constant = drift is None and flicker is None and periodic is None
        self._log_factor = 0.0 if flicker is None else flicker.log_sd * rng.standard_normal()
        self._phase_rad = 0.0

    def block(self, first_step: int, n_steps: int) -> Exposure:
        """Return the factors of `n_steps` steps from number `first_step` on."""
        start_s = first_step * self.step_s
        if self._constant:
            return Exposure(start_s, math.inf, np.ones(1), np.ones(1), 1.0)
        steps = first_step + 0.5 + np.arange(n_steps)
        time_s: NDArray[np.float64] = steps * np.float64(self.step_s)
        signal = self._drift(time_s) * self._periodic(time_s)
        lifetime = np.ones(n_steps)
        flicker = self._settings.flicker
        if flicker is not None:
            factor = self._flicker(n_steps)
            signal = signal * factor
            lifetime = factor if flicker.changes_lifetime else lifetime
        return Exposure(start_s, self.step_s, signal, lifetime, float(signal.max()))

    def _drift(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        drift = self._settings.drift
        if drift is None:
            return np.ones(time_s.size)
        duration_s = self._settings.duration_s
        if drift.kind == "linear":
            line = 1.0 + drift.depth * (np.minimum(time_s / duration_s, 1.0) - 0.5)
            return np.maximum(line, 0.0)
        cycles = time_s / (drift.period_s or duration_s)
        wave: NDArray[np.float64] = 1.0 + drift.depth * np.sin(2.0 * np.pi * cycles)
        return wave

    def _periodic(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        periodic = self._settings.periodic
        if periodic is None:
            return np.ones(time_s.size)
        phase = 2.0 * np.pi * periodic.frequency_hz * time_s + periodic.phase_rad
        if periodic.linewidth_hz > 0:
            # a line of full width w has a phase whose variance grows as 2 pi w t
            sd = math.sqrt(2.0 * math.pi * periodic.linewidth_hz * self.step_s)
            walk = self._phase_rad + np.cumsum(sd * self._rng.standard_normal(time_s.size))
            self._phase_rad = float(walk[-1])
            phase = phase + walk
        wave: NDArray[np.float64] = 1.0 + periodic.depth * np.sin(phase)
        return wave

    def _flicker(self, n_steps: int) -> NDArray[np.float64]:
        flicker = self._settings.flicker
        assert flicker is not None
        keep = math.exp(-self.step_s / flicker.correlation_time_s)
        noise = flicker.log_sd * math.sqrt(1.0 - keep**2) * self._rng.standard_normal(n_steps)
        logs = autoregression(noise, keep, self._log_factor)
        self._log_factor = float(logs[-1])
        factor: NDArray[np.float64] = np.exp(logs - 0.5 * flicker.log_sd**2)
        return factor
