"""Delays on the TCSPC clock: the clock, folding into a laser period, and histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.stream import Photons

__all__ = [
    "DelayClock",
    "delay_clock",
    "delay_histogram",
    "fold_table",
    "raw_delay_histograms",
]

# A lookup table of this many delays is a gigabyte: the delay unit is wrong.
_MOST_DELAY_TICKS = 100_000_000


@dataclass(frozen=True)
class DelayClock:
    """The TCSPC clock of a recording.

    Parameters
    ----------
    n_ticks
        Ticks that a laser period touches.
    tick_ns
        Length of a tick, in ns.
    period_ticks
        Laser period in ticks; need not be whole.
    known_period
        False when the file does not tell the period and the longest delay stands in for it.
    """

    n_ticks: int
    tick_ns: float
    period_ticks: float
    known_period: bool = True

    @property
    def period_ns(self) -> float:
        """Laser period, in ns."""
        return self.period_ticks * self.tick_ns


def delay_clock(photons: Photons) -> DelayClock | None:
    """Clock of the delays of `photons`, or None when there are no delays.

    Raises
    ------
    PhotonFileError
        If the longest delay, or the period, is more ticks than any TCSPC clock has.
    """
    if photons.delay_ticks is None or photons.delay_tick_ns is None:
        return None
    tick_ns = float(photons.delay_tick_ns)
    longest = int(photons.delay_ticks.max()) if photons.delay_ticks.size else 0
    name = photons.path or "photons"
    period = photons.period_ns / tick_ns if photons.period_ns is not None else longest + 1.0
    if max(longest, period) > _MOST_DELAY_TICKS:
        raise PhotonFileError(
            f"{name}: the longest delay is {longest} ticks and the laser period {period:.4g} ticks "
            f"of {tick_ns} ns; at most {_MOST_DELAY_TICKS} are allowed: check the delay unit"
        )
    # headers keep clocks in single precision: 3125.00001 ticks are 3125
    if abs(period - round(period)) < 1e-3:
        period = float(round(period))
    if period < 2:
        raise PhotonFileError(
            f"{name}: the laser period {photons.period_ns} ns is less than two ticks of the delay "
            f"clock ({tick_ns} ns); check the units"
        )
    return DelayClock(int(np.ceil(period)), tick_ns, period, photons.period_ns is not None)


def fold_table(clock: DelayClock, longest: int, shift_ticks: int = 0) -> NDArray[np.int64]:
    """Tick within the period of each recorded delay.

    Delays beyond the period are folded back by whole periods: with a sync divider, or a window
    longer than the period, they belong to a later pulse than the one that was recorded.

    Parameters
    ----------
    clock
        The delay clock.
    longest
        Longest recorded delay, in ticks.
    shift_ticks
        Ticks to add, for the alignment of detectors.

    Returns
    -------
    numpy.ndarray, shape ``(longest + 1,)``
        Numbers from 0 to ``clock.n_ticks - 1``.
    """
    moved = np.arange(longest + 1, dtype=np.float64) + shift_ticks
    moved -= np.floor(moved / clock.period_ticks) * clock.period_ticks
    return np.asarray(np.minimum(np.floor(moved + 1e-6), clock.n_ticks - 1).astype(np.int64))


@njit(cache=True, nogil=True)
def _histogram_by_row(
    delays: NDArray[np.int32],
    detector: NDArray[np.uint8],
    row_of_detector: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    for i in range(delays.size):
        counts[row_of_detector[detector[i]], delays[i]] += 1


def raw_delay_histograms(photons: Photons) -> tuple[list[int], NDArray[np.int64]]:
    """Detector numbers and their histograms of recorded delays, not folded.

    Returns
    -------
    tuple of list of int and numpy.ndarray, shape ``(n_detectors, longest + 1)``

    Raises
    ------
    PhotonFileError
        If there are no delays.
    """
    if photons.delay_ticks is None or photons.detector is None:
        raise _no_delays(photons)
    numbers = [int(n) for n in np.unique(photons.detector)]
    row = np.zeros(256, np.int64)
    row[numbers] = np.arange(len(numbers))
    longest = int(photons.delay_ticks.max()) if photons.delay_ticks.size else 0
    counts = np.zeros((len(numbers), longest + 1), np.int64)
    _histogram_by_row(photons.delay_ticks, photons.detector, row, counts)
    return numbers, counts


def delay_histogram(
    photons: Photons, shift_ticks: dict[int, int] | None = None
) -> NDArray[np.int64]:
    """Photons per tick of the delay clock, all detectors together.

    Parameters
    ----------
    photons
        Photons with delays.
    shift_ticks
        Ticks to add to the delays of a detector, by its number.

    Returns
    -------
    numpy.ndarray, shape ``(n_ticks,)``

    Raises
    ------
    PhotonFileError
        If there are no delays, or `delay_clock` refuses them.
    """
    # the clock first: it refuses delays for which the histograms would not fit into memory
    clock = delay_clock(photons)
    if clock is None:
        raise _no_delays(photons)
    numbers, raw = raw_delay_histograms(photons)
    total = np.zeros(clock.n_ticks, np.int64)
    for number, counts in zip(numbers, raw, strict=True):
        folded = fold_table(clock, counts.size - 1, (shift_ticks or {}).get(number, 0))
        np.add.at(total, folded, counts)
    return total


def _no_delays(photons: Photons) -> PhotonFileError:
    return PhotonFileError(f"{photons.path or 'photons'}: no delays were recorded")
