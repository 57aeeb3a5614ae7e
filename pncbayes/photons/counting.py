"""Counting photons per time bin and delay gate: the kernels, and the tables they look up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.delays import DelayClock, delay_clock, delay_histogram, fold_table
from pncbayes.photons.gates import choose_gates, gate_table, gates_from_edges
from pncbayes.photons.pulse import find_pulse, recorded_ticks
from pncbayes.photons.response import LoadedResponse, load_response
from pncbayes.photons.stream import Photons

__all__ = ["Gating"]

_MOST_CELLS = 1_000_000_000


@njit(cache=True, nogil=True)
def _bin_edge(number: int, width_ticks: float) -> int:
    """First whole tick of a bin."""
    # an edge that stands for a whole tick may be computed a rounding error above it
    edge = number * width_ticks
    return int(np.ceil(edge - max(1e-6, 4e-16 * edge)))


@njit(cache=True, nogil=True)
def _count_totals(
    time_ticks: NDArray[np.int64], width_ticks: float, counts: NDArray[np.uint32]
) -> None:
    n_bins = counts.shape[0]
    bin_number = 0
    next_edge = _bin_edge(1, width_ticks)
    for i in range(time_ticks.size):
        while time_ticks[i] >= next_edge:
            bin_number += 1
            next_edge = _bin_edge(bin_number + 1, width_ticks)
        if bin_number >= n_bins:
            break
        counts[bin_number, 0] += np.uint32(1)


@njit(cache=True, nogil=True)
def _count_gates(
    time_ticks: NDArray[np.int64],
    width_ticks: float,
    delay_ticks: NDArray[np.int32],
    detector: NDArray[np.uint8],
    row_of_detector: NDArray[np.int64],
    gate_of_delay: NDArray[np.int16],
    counts: NDArray[np.uint32],
) -> int:
    n_bins = counts.shape[0]
    bin_number = 0
    n_outside = 0
    next_edge = _bin_edge(1, width_ticks)
    for i in range(time_ticks.size):
        while time_ticks[i] >= next_edge:
            bin_number += 1
            next_edge = _bin_edge(bin_number + 1, width_ticks)
        if bin_number >= n_bins:
            break
        gate = gate_of_delay[row_of_detector[detector[i]], delay_ticks[i]]
        if gate >= 0:
            counts[bin_number, gate] += np.uint32(1)
        else:
            n_outside += 1
    return n_outside


class Gating:
    """Gates of a recording: how delays become gate numbers.

    Parameters
    ----------
    photons
        The recording.
    shifts
        Ticks to add to the delays of a detector, by its number.
    n_gates
        Number of gates to choose, when `gates` are not given.
    gates
        Edges of the gates in ns, shape ``(n_gates + 1,)``, or None.
    n_bins
        Number of time bins that will be counted.

    Attributes
    ----------
    clock : DelayClock or None
        None when there are no delays; then there is one gate, without edges.
    pulse_ns : float
        Position of the laser pulse; NaN when none shows.
    edges : numpy.ndarray or None
        Edges in ticks, shape ``(n_gates + 1,)``.

    Raises
    ------
    ValueError
        If the gates do not fit the delay clock, or make too many numbers.
    """

    def __init__(
        self,
        photons: Photons,
        shifts: dict[int, int],
        n_gates: int,
        gates: ArrayLike | None,
        n_bins: int,
    ) -> None:
        self.clock: DelayClock | None = delay_clock(photons)
        self.shifts = shifts
        self.pulse_ns = float("nan")
        self.edges: NDArray[np.int64] | None = None
        if self.clock is None:
            return
        self.histogram = delay_histogram(photons, shifts)
        pulse = find_pulse(self.histogram)
        if pulse is not None:
            self.pulse_ns = pulse.position * self.clock.tick_ns
        if gates is None:
            self.edges = choose_gates(self.histogram, n_gates, pulse=pulse)
        else:
            self.edges = gates_from_edges(gates, self.clock)
        if n_bins * (self.edges.size - 1) > _MOST_CELLS:
            raise ValueError(
                f"{n_bins} bins of {self.edges.size - 1} gates are more than {_MOST_CELLS} "
                "numbers; give a larger `width_s` or a smaller `n_gates`"
            )

    @property
    def period_ns(self) -> float:
        """Laser period in ns; NaN without delays."""
        return self.clock.period_ns if self.clock else float("nan")

    @property
    def delay_tick_ns(self) -> float:
        """Tick of the delay clock in ns; NaN without delays."""
        return self.clock.tick_ns if self.clock else float("nan")

    @property
    def edges_ns(self) -> NDArray[np.float64]:
        """Edges in ns, shape ``(n_gates + 1,)``; NaN without delays."""
        if self.clock is None or self.edges is None:
            return np.array([np.nan, np.nan])
        return np.asarray(np.minimum(self.edges * self.clock.tick_ns, self.clock.period_ns))

    def count(
        self, photons: Photons, width_s: float, n_bins: int
    ) -> tuple[NDArray[np.uint32], int]:
        """Count photons, shape ``(n_bins, n_gates)``, and those that are in no gate."""
        width_ticks = width_s / photons.tick_s
        delays, detector = photons.delay_ticks, photons.detector
        if self.clock is None or self.edges is None or delays is None or detector is None:
            counts = np.zeros((n_bins, 1), np.uint32)
            _count_totals(photons.time_ticks, width_ticks, counts)
            return counts, 0
        counts = np.zeros((n_bins, self.edges.size - 1), np.uint32)
        row, table = self._lookup(self.clock, self.edges, int(delays.max()))
        n_outside = _count_gates(
            photons.time_ticks, width_ticks, delays, detector, row, table, counts
        )
        return counts, int(n_outside)

    def _lookup(
        self, clock: DelayClock, edges: NDArray[np.int64], longest: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Row of each detector, and gate by row and recorded delay; one row for each shift."""
        gate_of_tick = gate_table(edges, clock.n_ticks)
        distinct = sorted({0, *self.shifts.values()})
        table = np.stack([gate_of_tick[fold_table(clock, longest, shift)] for shift in distinct])
        row = np.full(256, distinct.index(0), np.int64)
        for number, shift in self.shifts.items():
            row[number] = distinct.index(shift)
        return row, table

    def response(self, photons: Photons, response: Any) -> LoadedResponse | None:
        """Load the response as `load_response` does; None for False, or without delays."""
        if response is False:
            return None
        if self.clock is None:
            if response is not None:
                raise PhotonFileError(
                    f"{photons.path or 'photons'}: a response was given, but there are no delays"
                )
            return None
        return load_response(
            response,
            self.clock,
            self.histogram,
            name=photons.path or "photons",
            shift_ticks=self.shifts,
        )

    def background_fraction(self) -> NDArray[np.float64]:
        """Share of a flat background in each gate, shape ``(n_gates,)``."""
        if self.clock is None or self.edges is None:
            return np.ones(1)
        first, stop = recorded_ticks(self.histogram)
        recorded = np.clip(self.edges, first, stop)
        return np.asarray(np.diff(recorded) / max(1, recorded[-1] - recorded[0]))
