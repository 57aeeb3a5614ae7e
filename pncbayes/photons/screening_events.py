"""What does not belong to a dot in the course of a recording: bursts, and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from pncbayes.photons.stream import Photons

__all__ = ["MOST_EVENTS", "Burst", "Gap", "find_bursts", "find_gaps"]

Floats = NDArray[np.float64]

# Chance of a false burst or a false gap in a recording.
_FALSE_ALARM = 1e-4
# Afterpulses and pairs of photons make small clusters.
_SIZES = tuple(8 * 2**k for k in range(10))
_LONGEST_BURST_S = 0.01
# The brightest windows of 10 ms that are taken as the dot's own light: this share, at least 10.
_BRIGHTEST = 1e-3
_FEWEST_BRIGHTEST = 10
_REFERENCE_S = 0.01
_MARGIN = 1.2
MOST_EVENTS = 50
_FEWEST_TAIL = 40
_MOST_GAPS = 10
_MOST_TAIL = 500


@dataclass(frozen=True)
class Burst:
    """More light for a short time than the dot has anywhere else.

    Attributes
    ----------
    start_s, duration_s, n_photons
        When, how long, how many photons; what follows within 10 ms is joined.
    rate_ratio
        Rate, where it is highest, over that of the brightest moments of the rest.
    log_p
        Logarithm of the probability of one such burst in the recording, an upper bound.
    """

    start_s: float
    duration_s: float
    n_photons: int
    rate_ratio: float
    log_p: float


@dataclass(frozen=True)
class Gap:
    """No photons for longer than the other long intervals between photons explain.

    Attributes
    ----------
    start_s, duration_s
        When and how long.
    log_p
        Logarithm of the probability of one such gap in the recording.
    at_end
        Whether it is the start or the end of the recording.
    """

    start_s: float
    duration_s: float
    log_p: float
    at_end: bool


def find_bursts(photons: Photons, modulation: float = 0.0) -> list[Burst]:
    """Bursts of microseconds to 10 ms, by a scan of 8, 16, 32, ... neighbouring photons.

    The rate they are held against is that of the brightest moments of 10 ms (one in a thousand, at
    least 10 of them), so that the dot switching on is no burst; very short bright periods in an
    otherwise dark recording may look like one. For a Poisson process the time that ``n`` photons
    take is gamma distributed; the probability is multiplied by the number of photons and of sizes.

    Parameters
    ----------
    photons
        The recording.
    modulation
        Depth by which lines modulate the rate within 10 ms.

    Returns
    -------
    list of Burst
        In order of time; the 50 most significant.
    """
    time_s = photons.time_s
    duration_s = float(photons.duration_s or 0.0)
    n_windows = int(duration_s / _REFERENCE_S)
    if n_windows < 5 * _FEWEST_BRIGHTEST or time_s.size < 10 * _SIZES[0]:
        return []
    window = np.minimum((time_s / _REFERENCE_S).astype(np.int64), n_windows - 1)
    counts = np.sort(np.bincount(window, minlength=n_windows))
    rank = max(_FEWEST_BRIGHTEST, int(_BRIGHTEST * n_windows))
    rate_per_s = float(counts[-rank]) / _REFERENCE_S
    limit_per_s = _MARGIN * rate_per_s * (1.0 + max(modulation, 0.0))
    if rate_per_s <= 0:
        return []
    found: list[tuple[float, int, int]] = []
    n_trials = time_s.size * len(_SIZES)
    for size in _SIZES:
        if size >= time_s.size:
            break
        longest_s = float(gammaincinv(size - 1, _FALSE_ALARM / n_trials)) / limit_per_s
        if longest_s > _LONGEST_BURST_S:
            break
        took_s = time_s[size - 1 :] - time_s[: -(size - 1)]
        for first in np.flatnonzero(took_s < longest_s).tolist():
            mean = max(float(took_s[first]), photons.tick_s) * limit_per_s
            found.append((_log_gamma_p(size - 1, mean), first, size))
    bursts: list[Burst] = []
    taken = np.zeros(time_s.size, np.bool_)
    for log_p, first, size in sorted(found):
        if taken[first : first + size].any():
            continue
        taken[max(first - size, 0) : first + 2 * size] = True
        length_s = max(float(time_s[first + size - 1] - time_s[first]), photons.tick_s)
        ratio = (size - 1) / length_s / rate_per_s
        total = min(log_p + np.log(n_trials), 0.0)
        bursts.append(Burst(float(time_s[first]), length_s, size, ratio, float(total)))
        if len(bursts) == 4 * MOST_EVENTS:
            break
    return _merged(sorted(bursts, key=lambda one: one.start_s))


def _merged(bursts: list[Burst]) -> list[Burst]:
    """Join bursts that follow each other within 10 ms."""
    joined: list[Burst] = []
    for burst in bursts:
        last = joined[-1] if joined else None
        if last is None or burst.start_s - last.start_s - last.duration_s > _LONGEST_BURST_S:
            joined.append(burst)
            continue
        stop_s = max(last.start_s + last.duration_s, burst.start_s + burst.duration_s)
        joined[-1] = Burst(
            last.start_s,
            stop_s - last.start_s,
            last.n_photons + burst.n_photons,
            max(last.rate_ratio, burst.rate_ratio),
            min(last.log_p, burst.log_p),
        )
    joined = sorted(joined, key=lambda one: one.log_p)[:MOST_EVENTS]
    return sorted(joined, key=lambda one: one.start_s)


def _log_gamma_p(shape: int, mean: float) -> float:
    """Logarithm of the chance that `shape` more photons come while `mean` are expected."""
    value = float(gammainc(shape, mean))
    if value > 1e-280:
        return float(np.log(value))
    # Chernoff's bound
    return float(shape * np.log(mean / shape) + shape - mean)


def find_gaps(photons: Photons) -> tuple[list[Gap], int]:
    """Gaps that the longest intervals between photons do not explain.

    Intervals above a high threshold follow a generalised Pareto distribution (exponential for a
    dark level of constant rate, longer when dark periods without background are many). Its shape is
    Pickands' (doi:10.1214/aos/1176343003), its scale comes from the upper intervals without the
    ten longest, and a gap is one that this tail gives with a probability below 1e-4.

    Returns
    -------
    tuple of list of Gap and int
        Gaps in order of time, and the number of dark periods: more than ten gaps are no accidents
        but belong to a dot that has no background when it is dark, and are only counted.
    """
    time_s = photons.time_s
    duration_s = float(photons.duration_s or 0.0)
    if time_s.size < 20 * _FEWEST_TAIL:
        return [], 0
    starts = np.concatenate([[0.0], time_s])
    lengths = np.diff(np.concatenate([starts, [max(duration_s, time_s[-1])]]))
    n_tail = int(np.clip(time_s.size // 2000, _FEWEST_TAIL, _MOST_TAIL))
    longest = np.sort(np.partition(lengths, -4 * n_tail)[-4 * n_tail :])[::-1]
    at = longest[[n_tail - 1, 2 * n_tail - 1, 4 * n_tail - 1]]
    if not at[0] > at[1] > at[2]:
        return [], 0
    # one standard error longer than the estimate, to be on the safe side
    shape = float(np.log((at[0] - at[1]) / (at[1] - at[2])) / np.log(2.0))
    shape = max(shape, 0.0) + 0.3 / np.sqrt(n_tail / _FEWEST_TAIL) * (shape > 0)
    spread_s = float(at[0] - at[1])
    # at twice the rank the quantile is lower by scale (1 - 2^-shape) / shape
    scale_s = spread_s * (shape / (1.0 - 2.0**-shape) if shape > 1e-6 else 1.0 / np.log(2.0))
    over = np.maximum(lengths - at[0], 0.0) / scale_s
    log_p = np.log(n_tail) - (np.log1p(shape * over) / shape if shape > 1e-6 else over)
    gaps = []
    for place in np.argpartition(-lengths, MOST_EVENTS)[:MOST_EVENTS]:
        if log_p[place] < np.log(_FALSE_ALARM):
            ends = bool(place in (0, lengths.size - 1))
            gaps.append(Gap(float(starts[place]), float(lengths[place]), float(log_p[place]), ends))
    if len(gaps) > _MOST_GAPS:
        return [], int(np.sum(log_p < np.log(_FALSE_ALARM)))
    return sorted(gaps, key=lambda one: one.start_s), 0
