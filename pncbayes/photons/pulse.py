"""The laser pulse in a histogram of delays, and the ticks that the electronics record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Pulse", "find_pulse", "recorded_ticks", "rise_start"]

# A step in the delays must be this many standard deviations to be called the pulse.
_PULSE_SIGMA = 8.0
# An empty stretch in which this many photons were expected is dead time of the electronics.
_DEAD_PHOTONS = 20.0
_LAST_PHOTONS = 100


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
    # the step where dead time ends would pass for the pulse
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
    # up to `reach` before the steepest point the rise itself may count into the floor
    reach = max(step, n_ticks // 100)
    floor = wrapped[start - 3 * reach : start - reach].mean()
    threshold = floor + max(0.01 * (peak - floor), 3.0 * np.sqrt(max(floor, 1.0 / step) / step))
    while start > n_ticks + pulse.position - 3 * reach:
        if wrapped[start - step : start].mean() <= threshold:
            break
        start -= step
    return start % n_ticks
