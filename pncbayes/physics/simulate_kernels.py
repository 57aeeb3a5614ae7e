"""Compiled loops of the simulator: jumps between states, photons, detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "Emission",
    "Exposure",
    "autoregression",
    "detect_photons",
    "emit_excitons",
    "emit_poisson",
    "jump_until",
    "occupancy_of_bins",
]

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]
Numbers = NDArray[np.uint8]
PhotonArrays = tuple[Cells, Floats, Numbers]


class Emission(NamedTuple):
    """What the kernels need of the settings.

    A *cell* is the time from one laser pulse to the next, or one tick of the clock without pulses;
    a photon's time is its cell and its offset in that cell, so that nothing loses digits late in
    a long recording.
    """

    cell_ns: float
    pulsed: bool
    n_detectors: int
    signal_per_s: Floats
    scatter_per_s: float
    background_per_s: float
    component_cumulative: Floats
    component_lifetime_ns: Floats
    response_cumulative: Floats
    delay_tick_ns: float
    pulse_ns: float
    response_sd_ns: float


class Exposure(NamedTuple):
    """Factor on the signal and on the lifetimes, piecewise constant from `start_s` on."""

    start_s: float
    step_s: float
    signal: Floats
    lifetime: Floats
    largest: float


@njit(cache=True, nogil=True)
def jump_until(
    rng: np.random.Generator,
    time_s: float,
    state: int,
    stop_s: float,
    exit_rate_per_s: Floats,
    jump_cumulative: Floats,
    law_exponent: Floats,
    law_shortest_s: Floats,
    law_longest_s: Floats,
) -> tuple[Floats, NDArray[np.int64], float]:
    """Follow the dot from a jump into `state` until the first jump at or after `stop_s`.

    Returns the jumps before `stop_s` with, last, the one not before it, whose time may be
    infinite; `law_exponent` is NaN for states with exponential dwell times.
    """
    times = np.empty(64, np.float64)
    states = np.empty(64, np.int64)
    n_jumps = 0
    while time_s < stop_s:
        exponent = law_exponent[state]
        if np.isnan(exponent):
            rate = exit_rate_per_s[state]
            dwell_s = rng.standard_exponential() / rate if rate > 0.0 else np.inf
        else:
            shortest, longest = law_shortest_s[state], law_longest_s[state]
            uniform = rng.random()
            if abs(exponent - 1.0) < 1e-9:
                dwell_s = shortest * (longest / shortest) ** uniform
            else:
                power = 1.0 - exponent
                low, high = shortest**power, longest**power
                dwell_s = (low + uniform * (high - low)) ** (1.0 / power)
        time_s += dwell_s
        if time_s < np.inf:
            uniform = rng.random()
            target = 0
            while (
                target < jump_cumulative.shape[1] - 1 and uniform >= jump_cumulative[state, target]
            ):
                target += 1
            state = target
        if n_jumps == times.size:
            times = np.concatenate((times, np.empty_like(times)))
            states = np.concatenate((states, np.empty_like(states)))
        times[n_jumps] = time_s
        states[n_jumps] = state
        n_jumps += 1
    return times[:n_jumps], states[:n_jumps], time_s


@njit(cache=True, nogil=True)
def autoregression(noise: Floats, keep: float, before: float) -> Floats:
    """Return ``x[i] = keep x[i - 1] + noise[i]``, shape of `noise`, from ``x[-1] = before``."""
    values = np.empty_like(noise)
    for step in range(noise.size):
        before = keep * before + noise[step]
        values[step] = before
    return values


@njit(cache=True, nogil=True)
def occupancy_of_bins(
    times_s: Floats,
    states: NDArray[np.int64],
    n_states: int,
    width_s: float,
    n_bins: int,
) -> Floats:
    """Share of each bin spent in each state, shape ``(n_bins, n_states)``."""
    shares = np.zeros((n_bins, n_states))
    for dwell in range(times_s.size):
        start = times_s[dwell] / width_s
        stop = times_s[dwell + 1] / width_s if dwell + 1 < times_s.size else float(n_bins)
        stop = min(stop, float(n_bins))
        current = int(start)
        while start < stop and current < n_bins:
            edge = min(stop, current + 1.0)
            shares[current, states[dwell]] += edge - start
            start = edge
            current += 1
    return shares


@njit(cache=True, nogil=True)
def _grown(cells: Cells, offsets: Floats, detectors: Numbers) -> PhotonArrays:
    return (
        np.concatenate((cells, np.empty_like(cells))),
        np.concatenate((offsets, np.empty_like(offsets))),
        np.concatenate((detectors, np.empty_like(detectors))),
    )


@njit(cache=True, nogil=True)
def _response_ns(rng: np.random.Generator, emission: Emission) -> float:
    """Draw a delay of the response, with the position of the pulse in it."""
    if emission.response_cumulative.size == 0:
        drawn = emission.pulse_ns + emission.response_sd_ns * rng.standard_normal()
        return float(drawn)
    tick = np.searchsorted(emission.response_cumulative, rng.random(), side="right")
    # spread over the tick: a histogram does not say where in the tick a photon was
    return float((tick + rng.random()) * emission.delay_tick_ns)


@njit(cache=True, nogil=True)
def _decay_ns(rng: np.random.Generator, emission: Emission, state: int) -> float:
    component = 0
    last = emission.component_lifetime_ns.shape[1] - 1
    if last > 0:
        uniform = rng.random()
        while component < last and uniform >= emission.component_cumulative[state, component]:
            component += 1
    return float(emission.component_lifetime_ns[state, component] * rng.standard_exponential())


@njit(cache=True, nogil=True)
def _exposure_step(exposure: Exposure, time_s: float) -> int:
    step = int((time_s - exposure.start_s) / exposure.step_s)
    return min(max(step, 0), exposure.signal.size - 1)


@njit(cache=True, nogil=True)
def emit_poisson(
    rng: np.random.Generator,
    edges_s: Floats,
    states: NDArray[np.int64],
    emission: Emission,
    exposure: Exposure,
    with_signal: bool,
) -> PhotonArrays:
    """Photons of Poissonian light: dwell ``i`` lasts from ``edges_s[i]`` to ``edges_s[i + 1]``.

    Signal, scatter and background are one Poisson process whose photons are dealt out to the
    three; the signal is thinned down from the largest exposure.
    """
    cells = np.empty(1024, np.int64)
    offsets = np.empty(1024, np.float64)
    detectors = np.empty(1024, np.uint8)
    n_photons = 0
    constant = emission.scatter_per_s + emission.background_per_s
    for dwell in range(states.size):
        state = states[dwell]
        signal = emission.signal_per_s[state] * exposure.largest if with_signal else 0.0
        total = signal + constant
        if total <= 0.0:
            continue
        time_s = edges_s[dwell]
        while True:
            time_s += rng.standard_exponential() / total
            if time_s >= edges_s[dwell + 1]:
                break
            time_ns = time_s * 1e9
            cell = int(time_ns / emission.cell_ns)
            offset = time_ns - cell * emission.cell_ns
            mark = rng.random() * total
            if mark < signal:
                step = _exposure_step(exposure, time_s)
                if exposure.signal.size > 1:
                    if rng.random() * exposure.largest >= exposure.signal[step]:
                        continue
                if emission.pulsed:
                    decay = _decay_ns(rng, emission, state) * exposure.lifetime[step]
                    offset = _response_ns(rng, emission) + decay
            elif mark < signal + emission.scatter_per_s and emission.pulsed:
                offset = _response_ns(rng, emission)
            if n_photons == cells.size:
                cells, offsets, detectors = _grown(cells, offsets, detectors)
            # a decay longer than the period ends after a later pulse
            later = int(np.floor(offset / emission.cell_ns))
            cells[n_photons] = cell + later
            offsets[n_photons] = offset - later * emission.cell_ns
            detectors[n_photons] = int(rng.random() * emission.n_detectors)
            n_photons += 1
    return cells[:n_photons], offsets[:n_photons], detectors[:n_photons]


@njit(cache=True, nogil=True)
def emit_excitons(
    rng: np.random.Generator,
    edges_s: Floats,
    states: NDArray[np.int64],
    emission: Emission,
    exposure: Exposure,
    mean_excitons: float,
    exciton_chance: Floats,
    biexciton_chance: Floats,
    biexciton_lifetime_ns: Floats,
) -> PhotonArrays:
    """Signal photons of a single emitter, pulse by pulse, skipping pulses without a photon.

    The biexciton emits or not, then leaves an exciton, which emits or not: per pulse at most one
    photon of each.
    """
    cells = np.empty(1024, np.int64)
    offsets = np.empty(1024, np.float64)
    detectors = np.empty(1024, np.uint8)
    n_photons = 0
    once = mean_excitons * np.exp(-mean_excitons)
    twice = -np.expm1(-mean_excitons) - once
    cell_s = emission.cell_ns * 1e-9
    for dwell in range(states.size):
        state = states[dwell]
        first, second = exciton_chance[state], biexciton_chance[state]
        single = once * first
        any_photon = single + twice * (first + second - first * second)
        if any_photon <= 0.0:
            continue
        scale = -1.0 / np.log1p(-any_photon) if any_photon < 1.0 else 0.0
        pulse = int(np.ceil(edges_s[dwell] / cell_s)) - 1
        last_pulse = int(np.ceil(edges_s[dwell + 1] / cell_s))
        while True:
            pulse += 1 + int(min(rng.standard_exponential() * scale, 1e15))
            if pulse >= last_pulse:
                break
            step = _exposure_step(exposure, pulse * cell_s)
            stretch = exposure.lifetime[step]
            # which photons: exciton alone after one excitation, else one or both of the cascade
            mark = rng.random() * any_photon
            from_biexciton = False
            from_exciton = True
            cascade = mark >= single
            if cascade:
                mark = (mark - single) / twice
                from_biexciton = mark < second
                from_exciton = mark < first * second or mark >= second
            delay = 0.0
            for photon in range(2):
                if photon == 0:
                    if not cascade:
                        continue
                    delay += biexciton_lifetime_ns[state] * stretch * rng.standard_exponential()
                    if not from_biexciton:
                        continue
                else:
                    if not from_exciton:
                        continue
                    delay += _decay_ns(rng, emission, state) * stretch
                if exposure.signal.size > 1:
                    if rng.random() * exposure.largest >= exposure.signal[step]:
                        continue
                if n_photons == cells.size:
                    cells, offsets, detectors = _grown(cells, offsets, detectors)
                offset = _response_ns(rng, emission) + delay
                later = int(np.floor(offset / emission.cell_ns))
                cells[n_photons] = pulse + later
                offsets[n_photons] = offset - later * emission.cell_ns
                detectors[n_photons] = int(rng.random() * emission.n_detectors)
                n_photons += 1
    return cells[:n_photons], offsets[:n_photons], detectors[:n_photons]


@njit(cache=True, nogil=True)
def detect_photons(
    rng: np.random.Generator,
    arriving: PhotonArrays,
    waiting: PhotonArrays,
    before_cell: int,
    last_cell: Cells,
    last_offset: Floats,
    cell_ns: float,
    dead_time_ns: float,
    afterpulse_probability: float,
    afterpulse_time_ns: float,
) -> tuple[PhotonArrays, PhotonArrays]:
    """Turn arriving photons, in time order and all before `before_cell`, into counts.

    `waiting` are afterpulses that have yet to happen, in time order; those not before
    `before_cell` are returned as the second item. `last_cell` and `last_offset`, the last count of
    each detector, are changed in place.
    """
    cells, offsets, detectors = np.empty(1024, np.int64), np.empty(1024), np.empty(1024, np.uint8)
    n_counts = 0
    wait_cells, wait_offsets, wait_detectors = waiting
    wait_start, wait_stop = 0, wait_cells.size
    photon = 0
    while True:
        has_photon = photon < arriving[0].size
        has_waiting = wait_start < wait_stop and wait_cells[wait_start] < before_cell
        if not has_photon and not has_waiting:
            break
        take_waiting = has_waiting and (
            not has_photon
            or wait_cells[wait_start] < arriving[0][photon]
            or (
                wait_cells[wait_start] == arriving[0][photon]
                and wait_offsets[wait_start] < arriving[1][photon]
            )
        )
        if take_waiting:
            cell, offset = wait_cells[wait_start], wait_offsets[wait_start]
            detector = wait_detectors[wait_start]
            wait_start += 1
        else:
            cell, offset, detector = arriving[0][photon], arriving[1][photon], arriving[2][photon]
            photon += 1
        since_ns = (cell - last_cell[detector]) * cell_ns + (offset - last_offset[detector])
        if since_ns < dead_time_ns:
            continue
        last_cell[detector] = cell
        last_offset[detector] = offset
        if n_counts == cells.size:
            cells, offsets, detectors = _grown(cells, offsets, detectors)
        cells[n_counts], offsets[n_counts], detectors[n_counts] = cell, offset, detector
        n_counts += 1
        if afterpulse_probability > 0.0 and rng.random() < afterpulse_probability:
            false = offset + dead_time_ns + afterpulse_time_ns * rng.standard_exponential()
            later = int(np.floor(false / cell_ns))
            if wait_stop == wait_cells.size:
                wait_cells, wait_offsets, wait_detectors = _grown(
                    np.concatenate((wait_cells[wait_start:], np.zeros(8, np.int64))),
                    np.concatenate((wait_offsets[wait_start:], np.zeros(8, np.float64))),
                    np.concatenate((wait_detectors[wait_start:], np.zeros(8, np.uint8))),
                )
                wait_start, wait_stop = 0, wait_stop - wait_start
            place = wait_stop
            new_cell, new_offset = cell + later, false - later * cell_ns
            while place > wait_start and (
                wait_cells[place - 1] > new_cell
                or (wait_cells[place - 1] == new_cell and wait_offsets[place - 1] > new_offset)
            ):
                wait_cells[place] = wait_cells[place - 1]
                wait_offsets[place] = wait_offsets[place - 1]
                wait_detectors[place] = wait_detectors[place - 1]
                place -= 1
            wait_cells[place], wait_offsets[place] = new_cell, new_offset
            wait_detectors[place] = detector
            wait_stop += 1
    return (
        (cells[:n_counts], offsets[:n_counts], detectors[:n_counts]),
        (
            wait_cells[wait_start:wait_stop],
            wait_offsets[wait_start:wait_stop],
            wait_detectors[wait_start:wait_stop],
        ),
    )
