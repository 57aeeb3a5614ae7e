"""Photons of a simulated recording, block by block in the order of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.stream import Photons
from pncbayes.physics.exposure import ExposureSource
from pncbayes.physics.simulate_kernels import (
    Emission,
    Exposure,
    PhotonArrays,
    detect_photons,
    emit_excitons,
    emit_poisson,
)
from pncbayes.physics.simulation_settings import SimulationSettings
from pncbayes.physics.state_path import JumpSource

__all__ = ["Block", "make_emission", "simulate_blocks", "superpose"]

# A block is what is held at a time; it depends on the settings only, never on how the photons
# are handed out, so that the same seed gives the same photons.
_PHOTONS_PER_BLOCK = 200_000
_JUMPS_PER_BLOCK = 200_000
_STEPS_PER_BLOCK = 1_000_000
_LONGEST_BLOCK_S = 100.0
# No normal random number of a double reaches this many standard deviations.
_FARTHEST_SD = 10.0


class Block(NamedTuple):
    """What a stretch of the recording ending at `stop_s` holds; its photons end a moment before."""

    time_ticks: NDArray[np.int64]
    delay_ticks: NDArray[np.int32] | None
    detector: NDArray[np.uint8]
    jump_times_s: NDArray[np.float64]
    jump_states: NDArray[np.int64]
    stop_s: float


def make_emission(settings: SimulationSettings) -> Emission:
    """Return what the kernels need of the settings, as arrays."""
    n_components = max(1, *(len(state.lifetimes_ns) for state in settings.states))
    shares = np.zeros((settings.n_states, n_components))
    lifetimes = np.zeros((settings.n_states, n_components))
    for number, state in enumerate(settings.states):
        used = len(state.lifetimes_ns)
        lifetimes[number, :used] = state.lifetimes_ns
        shares[number, :used] = np.multiply(state.amplitudes, state.lifetimes_ns)
    cumulative = np.cumsum(shares, axis=1)
    cumulative /= np.maximum(cumulative[:, -1:], 1e-300)
    if settings.response is None:
        response = np.empty(0)
    else:
        response = np.cumsum(np.asarray(settings.response, float))
        response /= response[-1]
    pulsed = settings.period_ns is not None
    return Emission(
        cell_ns=float(settings.period_ns or settings.tick_s * 1e9),
        pulsed=pulsed,
        n_detectors=settings.n_detectors,
        signal_per_s=settings.signal_rates_per_s,
        scatter_per_s=float(settings.scatter_rate_per_s),
        background_per_s=float(settings.background_rate_per_s),
        component_cumulative=cumulative,
        component_lifetime_ns=lifetimes,
        response_cumulative=response,
        delay_tick_ns=float(settings.delay_tick_ns),
        pulse_ns=float(settings.pulse_position_ns) if pulsed else 0.0,
        response_sd_ns=float(settings.response_sd_ns),
    )


def simulate_blocks(settings: SimulationSettings, root_seed: int) -> Iterator[Block]:
    """Yield the recording block by block.

    Parameters
    ----------
    settings
        What to simulate.
    root_seed
        Seed from which the streams of random numbers for jumps, exposure, photons and detectors
        are spawned.

    Yields
    ------
    Block
        In the order of time, from 0 to the end of the recording.
    """
    rngs = [np.random.default_rng(seed) for seed in np.random.SeedSequence(root_seed).spawn(4)]
    jumps = JumpSource(
        settings.jump_rates_per_s, settings.dwell_laws, settings.initial_state, rngs[0]
    )
    exposures = ExposureSource(settings, _target_block_s(settings), rngs[1])
    n_steps = max(1, round(_target_block_s(settings) / exposures.step_s))
    n_steps = min(n_steps, _STEPS_PER_BLOCK)
    source = _PhotonSource(settings, rngs[2], rngs[3])
    number = 0
    stop_s = 0.0
    while stop_s < settings.duration_s:
        start_s, state = stop_s, jumps.state
        stop_s = min((number + 1) * n_steps * exposures.step_s, settings.duration_s)
        exposure = exposures.block(number * n_steps, n_steps)
        times, states = jumps.until(stop_s)
        if times.size and times[0] <= start_s:
            dwells, starts = states, times
        else:
            dwells, starts = np.r_[state, states], np.r_[start_s, times]
        photons = source.block(
            np.append(starts, stop_s), dwells, exposure, is_last=stop_s >= settings.duration_s
        )
        yield Block(*photons, times, states, stop_s)
        number += 1


def _target_block_s(settings: SimulationSettings) -> float:
    most = float(settings.signal_rates_per_s.max())
    most += settings.background_rate_per_s + settings.scatter_rate_per_s
    switches = float(settings.jump_rates_per_s.sum(axis=1).max())
    for law in settings.dwell_laws or ():
        switches = max(switches, 0.0 if law is None else 1.0 / law.shortest_s)
    limits = [_LONGEST_BLOCK_S]
    if most > 0:
        limits.append(_PHOTONS_PER_BLOCK / most)
    if switches > 0:
        limits.append(_JUMPS_PER_BLOCK / switches)
    return min(limits)


class _PhotonSource:
    """Emits and detects; keeps late photons and afterpulses over the end of a block."""

    def __init__(
        self,
        settings: SimulationSettings,
        emission_rng: np.random.Generator,
        detection_rng: np.random.Generator,
    ) -> None:
        self._settings = settings
        self._emission = make_emission(settings)
        self._emission_rng, self._detection_rng = emission_rng, detection_rng
        self._late: PhotonArrays = (np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
        self._waiting = self._late
        # far enough in the past that no dead time reaches the first photon
        self._last_cell = np.full(settings.n_detectors, -(2**60), np.int64)
        self._last_offset = np.zeros(settings.n_detectors)
        early_ns = _FARTHEST_SD * self._emission.response_sd_ns - self._emission.pulse_ns
        early_ns = 0.0 if settings.response is not None else max(early_ns, 0.0)
        self._margin = 2 + math.ceil(early_ns / self._emission.cell_ns)

    def block(
        self,
        edges_s: NDArray[np.float64],
        states: NDArray[np.int64],
        exposure: Exposure,
        *,
        is_last: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32] | None, NDArray[np.uint8]]:
        cell_ns = self._emission.cell_ns
        arrays = self._sorted((self._late, *self._emit(edges_s, states, exposure)))
        # photons of the next block may still come before these cells end
        before_cell = math.floor(edges_s[-1] * 1e9 / cell_ns * (1 + 1e-14))
        before_cell -= 0 if is_last else self._margin
        split = int(np.searchsorted(arrays[0], before_cell, side="left"))
        first = int(np.searchsorted(arrays[0], 0, side="left"))
        self._late = (arrays[0][split:], arrays[1][split:], arrays[2][split:])
        ready = (arrays[0][first:split], arrays[1][first:split], arrays[2][first:split])
        cells, offsets, detector = self._detect(ready, before_cell)
        if not self._emission.pulsed:
            return cells, None, detector
        tick_ns = self._settings.delay_tick_ns
        n_ticks = math.ceil(cell_ns / tick_ns - 1e-9)
        delay_ticks = np.minimum(offsets / tick_ns, n_ticks - 1).astype(np.int32)
        return cells, delay_ticks, detector

    def _emit(
        self, edges_s: NDArray[np.float64], states: NDArray[np.int64], exposure: Exposure
    ) -> list[PhotonArrays]:
        settings, emission, rng = self._settings, self._emission, self._emission_rng
        excitons = settings.mean_excitons_per_pulse
        parts = [emit_poisson(rng, edges_s, states, emission, exposure, excitons is None)]
        if excitons is not None:
            chance, ratio = settings.detection_probabilities()
            largest = exposure.largest
            if largest * float(np.max(chance * np.maximum(ratio, 1.0))) > 1.0:
                raise ValueError(
                    "the modulated signal asks for more photons than there are excitons: lower "
                    "`rate_per_s` or the modulation, or raise `mean_excitons_per_pulse`"
                )
            lifetimes = np.array([state.biexciton_lifetime_ns for state in settings.states])
            chances = (chance * largest, chance * ratio * largest, lifetimes)
            parts.append(
                emit_excitons(rng, edges_s, states, emission, exposure, excitons, *chances)
            )
        return parts

    def _sorted(self, parts: tuple[PhotonArrays, ...]) -> PhotonArrays:
        cells = np.concatenate([part[0] for part in parts])
        offsets = np.concatenate([part[1] for part in parts])
        detectors = np.concatenate([part[2] for part in parts])
        if not cells.size:
            return cells, offsets, detectors
        # integers, as a sum of floats could tie and let a cell slip before an earlier one
        since = cells - cells.min()
        fine = 1 << min(30, 62 - int(since.max()).bit_length())
        inside = np.minimum(offsets * (fine / self._emission.cell_ns), fine - 1)
        order = np.argsort(since * fine + inside.astype(np.int64), kind="stable")
        return cells[order], offsets[order], detectors[order]

    def _detect(self, ready: PhotonArrays, before_cell: int) -> PhotonArrays:
        settings = self._settings
        if settings.dead_time_ns == 0 and settings.afterpulse_probability == 0:
            return ready
        counts: PhotonArrays
        counts, self._waiting = detect_photons(
            self._detection_rng,
            ready,
            self._waiting,
            before_cell,
            self._last_cell,
            self._last_offset,
            self._emission.cell_ns,
            settings.dead_time_ns,
            settings.afterpulse_probability,
            settings.afterpulse_time_ns,
        )
        return counts


def superpose(first: Photons, second: Photons) -> Photons:
    """Merge two recordings of the same clocks, as of two emitters in one spot.

    Parameters
    ----------
    first, second
        The recordings; the detectors' dead time after a photon of one does not stop the other's.

    Returns
    -------
    Photons
        All photons in the order of time, for the longer of the two durations.

    Raises
    ------
    ValueError
        If the clocks differ.
    """
    clocks = [(x.tick_s, x.delay_tick_ns, x.period_ns) for x in (first, second)]
    if clocks[0] != clocks[1]:
        raise ValueError(
            "two recordings need the same clocks to be superposed, got (tick_s, delay_tick_ns, "
            f"period_ns) = {clocks[0]} and {clocks[1]}; simulate them with the same settings"
        )
    times = np.concatenate((first.time_ticks, second.time_ticks))
    delays = None
    if first.delay_ticks is not None and second.delay_ticks is not None:
        delays = np.concatenate((first.delay_ticks, second.delay_ticks))
        order = np.lexsort((delays, times))
        delays = delays[order]
    else:
        order = np.argsort(times, kind="stable")
    detector = np.concatenate((np.asarray(first.detector), np.asarray(second.detector)))
    return replace(
        first,
        time_ticks=times[order],
        detector=detector[order],
        delay_ticks=delays,
        duration_s=max(first.duration_s or 0.0, second.duration_s or 0.0),
    )
