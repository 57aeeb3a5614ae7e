"""Delays on their clock: folding, histogram, position of the pulse, and the choice of gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.stream import Photons

__all__ = [
    "DEFAULT_GATES",
    "FEWEST_GATES",
    "DelayClock",
    "Pulse",
    "choose_gates",
    "delay_clock",
    "delay_histogram",
    "find_pulse",
    "fold_table",
    "gate_table",
    "gates_from_edges",
    "raw_delay_histograms",
    "recorded_ticks",
    "rise_start",
]

DEFAULT_GATES = 24
FEWEST_GATES = 16
# A lookup table of this many delays is a gigabyte: the delay unit is wrong.
_MOST_DELAY_TICKS = 100_000_000
# A step in the delays must be this many standard deviations to be called the pulse.
_PULSE_SIGMA = 8.0
# An empty stretch in which this many photons were expected is dead time of the electronics.
_DEAD_PHOTONS = 20.0
_LAST_PHOTONS = 100


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


@dataclass(frozen=True)
class Pulse:
    """Where the laser pulse shows in a delay histogram, in ticks.

    Parameters
    ----------
    position
        Edge of a tick at which the counts rise most steeply.
    step
        Number of ticks on either side over which the rise was compared.
    sigma
        Height of the step in standard deviations.
    """

    position: int
    step: int
    sigma: float


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
    """
    if photons.delay_ticks is None or photons.detector is None:
        raise PhotonFileError(f"{photons.path or 'photons'}: no delays were recorded")
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
        If there are no delays.
    """
    numbers, raw = raw_delay_histograms(photons)
    clock = delay_clock(photons)
    if clock is None:
        raise PhotonFileError(f"{photons.path or 'photons'}: no delays were recorded")
    total = np.zeros(clock.n_ticks, np.int64)
    for number, counts in zip(numbers, raw, strict=True):
        folded = fold_table(clock, counts.size - 1, (shift_ticks or {}).get(number, 0))
        np.add.at(total, folded, counts)
    return total


def find_pulse(histogram: ArrayLike) -> Pulse | None:
    """Find the steepest rise of a delay histogram.

    At every tick the counts of the next `step` ticks are compared with those of the `step` ticks
    before, around the recorded part of the period (`recorded_ticks`). The smallest step (1, 2, 4,
    ...) that shows a rise of eight standard deviations is used: fine where the counts allow it,
    robust where they do not.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.

    Returns
    -------
    Pulse or None
        None when the delays show no pulse.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    first, stop = recorded_ticks(counts)
    # where dead time ends is no pulse
    counts = counts[first:stop]
    n_ticks = counts.size
    step = 1
    while step <= max(1, n_ticks // 4):
        wrapped = np.concatenate([counts[n_ticks - step :], counts, counts[: step - 1]])
        total = np.concatenate([[0.0], np.cumsum(wrapped)])
        sums = total[step:] - total[:-step]
        before, after = sums[:n_ticks], sums[step : step + n_ticks]
        sigma = (after - before) / np.sqrt(after + before + 1.0)
        if sigma.max() >= _PULSE_SIGMA:
            steepest = int(np.argmax(after - before))
            return Pulse(first + steepest, step, float(sigma[steepest]))
        step *= 2
    return None


def recorded_ticks(histogram: ArrayLike) -> tuple[int, int]:
    """First and one past the last tick in which the electronics could record a photon.

    A stretch without counts at either end of the period is called dead when the rate of the last
    hundred photons before its end, going on around the period, leads one to expect more than 20
    photons in it; and when these hundred end abruptly, with at least 30 in the later half of their
    ticks, as those of a decay that has died out do not.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.

    Returns
    -------
    tuple of int
        ``(0, n_ticks)`` where nothing is dead.
    """
    counts = np.asarray(histogram)
    used = np.flatnonzero(counts)
    n_ticks = counts.size
    if used.size == 0:
        return 0, n_ticks
    first, stop = int(used[0]), int(used[-1]) + 1
    # ticks that hold the last photons
    from_end = np.cumsum(counts[first:stop][::-1])
    if from_end[-1] < 2 * _LAST_PHOTONS:
        return 0, n_ticks
    span = int(np.searchsorted(from_end, _LAST_PHOTONS)) + 1
    if from_end[(span - 1) // 2] < 0.3 * _LAST_PHOTONS:
        return 0, n_ticks
    floor = float(from_end[span - 1]) / span
    return (
        first if first * floor > _DEAD_PHOTONS else 0,
        stop if (n_ticks - stop) * floor > _DEAD_PHOTONS else n_ticks,
    )


def rise_start(histogram: ArrayLike, pulse: Pulse) -> int:
    """Tick at which the rise of the pulse starts: before it only the floor is left.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.
    pulse
        Position of the pulse.

    Returns
    -------
    int
        From 0 to ``n_ticks - 1``.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    n_ticks = counts.size
    step = pulse.step
    wrapped = np.concatenate([counts, counts])
    peak = wrapped[pulse.position : pulse.position + 2 * step].mean()
    start = n_ticks + pulse.position
    # the floor: ticks well before the rise
    reach = max(step, n_ticks // 100)
    floor = wrapped[start - 3 * reach : start - reach].mean()
    threshold = floor + max(0.01 * (peak - floor), 3.0 * np.sqrt(max(floor, 1.0 / step) / step))
    while start > n_ticks + pulse.position - 3 * reach:
        if wrapped[start - step : start].mean() <= threshold:
            break
        start -= step
    return start % n_ticks


def choose_gates(
    histogram: ArrayLike,
    n_gates: int = DEFAULT_GATES,
    *,
    pulse: Pulse | None = None,
) -> NDArray[np.int64]:
    """Choose delay gates by a stated rule.

    One gate ends where the rise of the pulse starts. The others follow the pulse around the period
    and share evenly a density that is half the pooled counts and half ``1 / (delay + rise)``:
    counts alone make the first gates wider than the lifetimes of trions, ``1 / delay`` alone
    wastes gates where nothing is. No gate is narrower than a tick.

    Where the pulse stands within the first quarter of the period, the gate before it is the first
    one, from the start of the period. Where it stands at the very start, it is the last one, a
    twentieth of the period; elsewhere it is the tenth of the period before the pulse.

    Parameters
    ----------
    histogram
        Photons per tick of the delay clock, shape ``(n_ticks,)``.
    n_gates
        Number of gates, with the one before the pulse; 2 or more.
    pulse
        Position of the pulse, from `find_pulse` when not given. Without any, the gates have equal
        counts.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates + 1,)``
        Edges in ticks, increasing. They reach from 0 to ``n_ticks``, less what was never recorded
        (`recorded_ticks`).

    Raises
    ------
    ValueError
        If there are not enough ticks for the gates.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    first, stop = recorded_ticks(counts)
    if n_gates < 2 or stop - first < 2 * n_gates:
        raise ValueError(
            f"`n_gates` must be at least 2 and at most {(stop - first) // 2} with "
            f"{stop - first} recorded ticks of the delay clock, got {n_gates}; give `n_gates`"
        )
    pulse = find_pulse(counts) if pulse is None else pulse
    start = first if pulse is None else int(np.clip(rise_start(counts, pulse), first, stop - 1))
    # the recorded ticks in the order in which they follow the pulse; the last are the gate before
    order = np.concatenate([np.arange(start, stop), np.arange(first, start)])
    n_rest = order.size - _ticks_before(first, stop, start)
    rise = float(pulse.step) if pulse is not None else 1.0
    density = counts[order[:n_rest]] / max(counts[order[:n_rest]].sum(), 1.0) + 1e-12
    if pulse is not None:
        near = 1.0 / (np.arange(n_rest) + rise)
        density = 0.5 * density + 0.5 * near / near.sum()
    wrap = stop - start
    cuts = _even_cuts(density, n_gates - 1, wrap if wrap < n_rest else None)
    edges = np.concatenate([order[cuts[:-1]], [order[n_rest], stop]])
    return np.sort(edges).astype(np.int64)


def _ticks_before(first: int, stop: int, start: int) -> int:
    length = stop - first
    if start == first:
        return max(1, length // 20)
    if start - first <= length // 4:
        return start - first
    return max(1, length // 10)


def _even_cuts(density: NDArray[np.float64], n_parts: int, cut: int | None) -> NDArray[np.int64]:
    """Cut ``density.size`` ticks into parts of equal mass, at least one tick each.

    `cut` is a place where one of the cuts has to be.
    """
    if cut is not None:
        share = float(density[:cut].sum() / density.sum())
        head = int(np.clip(round(share * n_parts), 1, n_parts - 1))
        head = int(np.clip(head, n_parts - (density.size - cut), cut))
        left = _even_cuts(density[:cut], head, None)
        right = _even_cuts(density[cut:], n_parts - head, None)
        return np.concatenate([left, right[1:] + cut])
    mass = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.linspace(0.0, mass[-1], n_parts + 1)
    cuts = np.rint(np.interp(wanted, mass, np.arange(mass.size))).astype(np.int64)
    cuts[0], cuts[-1] = 0, density.size
    for i in range(1, n_parts):
        cuts[i] = max(cuts[i], cuts[i - 1] + 1)
    for i in range(n_parts - 1, 0, -1):
        cuts[i] = min(cuts[i], cuts[i + 1] - 1)
    return cuts


def gates_from_edges(edges_ns: ArrayLike, clock: DelayClock) -> NDArray[np.int64]:
    """Round gate edges in ns to the delay clock.

    Parameters
    ----------
    edges_ns
        Edges in ns after the start of the period, shape ``(n_gates + 1,)``, increasing.
    clock
        The delay clock.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates + 1,)``
        Edges in ticks.

    Raises
    ------
    ValueError
        If the edges do not increase by a tick or more, or lie outside the period.
    """
    edges = np.asarray(edges_ns, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.isfinite(edges)):
        raise ValueError(f"`gates` must be two or more finite edges in ns, got {edges_ns!r}")
    ticks = np.rint(edges / clock.tick_ns).astype(np.int64)
    # the last edge of a period that is not whole ticks is the end of its last tick
    if abs(edges[-1] - clock.period_ns) < clock.tick_ns:
        ticks[-1] = clock.n_ticks
    if ticks[0] < 0 or ticks[-1] > clock.n_ticks or np.any(np.diff(ticks) < 1):
        raise ValueError(
            f"`gates` must increase from 0 to {clock.period_ns:.6g} ns (the laser period) in steps "
            f"of at least one tick ({clock.tick_ns:.6g} ns), got {edges}"
        )
    return ticks


def gate_table(edges_ticks: NDArray[np.int64], n_ticks: int) -> NDArray[np.int16]:
    """Gate of each tick of the period, -1 outside all gates.

    Parameters
    ----------
    edges_ticks
        Edges in ticks, shape ``(n_gates + 1,)``.
    n_ticks
        Ticks of the period.

    Returns
    -------
    numpy.ndarray, shape ``(n_ticks,)``
    """
    gate = np.searchsorted(edges_ticks, np.arange(n_ticks), side="right") - 1
    gate[gate >= edges_ticks.size - 1] = -1
    return gate.astype(np.int16)
