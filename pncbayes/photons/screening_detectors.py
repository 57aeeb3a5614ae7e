"""What the detectors do to the photons: balance, afterpulses, dead time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.stats import chi2

from pncbayes.photons.stream import Photons

__all__ = [
    "AfterpulseFinding",
    "BalanceFinding",
    "DeadTimeFinding",
    "LagCurve",
    "find_afterpulses",
    "find_balance",
    "find_dead_time",
    "lag_curve",
]

Floats = NDArray[np.float64]

_SHORTEST_NS = 20.0
_LONGEST_NS = 2e5
# Lags at which afterpulses are over: the level that light alone has.
_LEVEL_NS = 5e4
_AFTERPULSES_END_NS = (5e3, 2e4)
_BINS_PER_DECADE = 8
# More pairs than these make no better estimate.
_MOST_PAIRS = 1e7
_MOST_BLOCKS = 20
_BLOCK_PHOTONS = 500
_FEWEST_PAIRS = 20.0
_MANY_PAIRS = 100
_FEWEST_GAPS = 10.0
_FEWEST_SHOWN = 3.0


@dataclass(frozen=True)
class BalanceFinding:
    """Shares of the detectors.

    Attributes
    ----------
    shares
        Share of the photons of each detector number.
    p_value
        Probability that shares which do not change over time scatter this much between blocks of
        the recording; NaN with one detector.
    largest_change
        Largest difference of a detector's share in a block from its mean, in units of one.
    follows_brightness
        Whether a constant background on each detector explains the change.
    """

    shares: dict[int, float]
    p_value: float
    largest_change: float
    follows_brightness: bool = False


@dataclass(frozen=True)
class LagCurve:
    """Pairs of photons by lag, over what light without memory has.

    Attributes
    ----------
    lag_ns
        Middle of each bin, shape ``(n_lags,)``.
    same
        Pairs on one detector over those at 50 to 200 us, by detector number; NaN in bins that too
        few are expected in.
    other, other_sd
        Pairs of different detectors likewise, and standard error; NaN with one detector.
    """

    lag_ns: Floats
    same: dict[int, Floats]
    other: Floats
    other_sd: Floats
    edges_ns: Floats
    same_counts: NDArray[np.int64]
    other_counts: NDArray[np.int64]
    n_lags: Floats
    photons_used: NDArray[np.int64]


@dataclass(frozen=True)
class AfterpulseFinding:
    """Afterpulses: false counts that follow a count of the same detector.

    Attributes
    ----------
    share, sd
        Afterpulses per count and standard error, up to 5 or 20 us, whichever is more significant;
        NaN when not known.
    time_us
        Delay by which 63 % of them have come, in us.
    sigma
        `share` over `sd`.
    """

    share: float
    sd: float
    time_us: float
    sigma: float


@dataclass(frozen=True)
class DeadTimeFinding:
    """Dead time.

    Attributes
    ----------
    shortest_ns
        Shortest gap between two counts of one detector, in ns.
    n_expected
        Gaps shorter than that which light without dead time has.
    is_sure
        Whether so many are missing that this is a dead time.
    """

    shortest_ns: float
    n_expected: float
    is_sure: bool


@njit(cache=True, nogil=True)
def _count_pairs(
    ticks: NDArray[np.int64],
    row: NDArray[np.int64],
    edges: NDArray[np.int64],
    stop: int,
    same: NDArray[np.int64],
    other: NDArray[np.int64],
) -> None:
    last = edges[-1]
    for i in range(stop):
        j = i + 1
        while j < ticks.size and ticks[j] - ticks[i] < last:
            lag = ticks[j] - ticks[i]
            if lag >= edges[0]:
                place = np.searchsorted(edges, lag, side="right") - 1
                if row[i] == row[j]:
                    same[row[i], place] += 1
                else:
                    other[place] += 1
            j += 1


def lag_curve(photons: Photons) -> LagCurve | None:
    """Correlate the photons of each detector, and of different ones, up to 200 us.

    Returns
    -------
    LagCurve or None
        None when the clock is coarser than 2 us.
    """
    tick_ns = photons.tick_s * 1e9
    if tick_ns > 2e3 or len(photons) < 2 or photons.detector is None:
        return None
    first = max(np.ceil(_SHORTEST_NS / tick_ns), 1.0)
    last = np.ceil(_LONGEST_NS / tick_ns)
    n_edges = int(_BINS_PER_DECADE * np.log10(last / first)) + 1
    level = np.ceil(_LEVEL_NS / tick_ns)
    edges = np.unique(
        np.concatenate([np.ceil(np.geomspace(first, last, n_edges)), [level]]).astype(np.int64)
    )
    numbers = list(photons.detectors)
    row_of = np.zeros(256, np.int64)
    row_of[numbers] = np.arange(len(numbers))
    row = row_of[photons.detector]
    # bright moments have most pairs: their number is that of the squares
    light = np.bincount((photons.time_s / 0.1).astype(np.int64)).astype(np.float64)
    pairs = float(np.sum(light**2)) / 0.1 * _LONGEST_NS * 1e-9
    stop = int(len(photons) * min(1.0, _MOST_PAIRS / max(pairs, 1.0)))
    same = np.zeros((len(numbers), edges.size - 1), np.int64)
    other = np.zeros(edges.size - 1, np.int64)
    _count_pairs(photons.time_ticks, row, edges, stop, same, other)
    n_lags = np.diff(edges).astype(np.float64)
    used = np.bincount(row[:stop], minlength=len(numbers))
    at_level = edges[:-1] >= level
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = same[:, at_level].sum(axis=1) / n_lags[at_level].sum()
        curves = {n: same[i] / n_lags / levels[i] for i, n in enumerate(numbers)}
        for i, n in enumerate(numbers):
            # a bin in which hardly a pair is expected shows nothing
            curves[n][levels[i] * n_lags < _FEWEST_SHOWN] = np.nan
        mean = other[at_level].sum() / n_lags[at_level].sum()
        over = other / n_lags / mean
        over_sd = np.sqrt(np.maximum(other, 1.0)) / n_lags / mean
    middle = np.asarray(0.5 * (edges[:-1] + edges[1:] - 1) * tick_ns, np.float64)
    edges_ns = np.asarray(edges * tick_ns, np.float64)
    return LagCurve(middle, curves, over, over_sd, edges_ns, same, other, n_lags, used)


def find_afterpulses(curve: LagCurve | None, dead_time_ns: float = 0.0) -> AfterpulseFinding:
    """Share of afterpulses, from pairs on one detector that light does not explain.

    Light has as many pairs on one detector as the level at 50 to 200 us says, times the shape that
    pairs of different detectors have (bunching, laser pulses).

    Parameters
    ----------
    curve
        As `lag_curve` returns it.
    dead_time_ns
        Shorter lags have no pairs and are left out.
    """
    nothing = AfterpulseFinding(*([float("nan")] * 4))
    if curve is None:
        return nothing
    found = [_afterpulses_until(end, curve, dead_time_ns) for end in _AFTERPULSES_END_NS]
    found = [one for one in found if np.isfinite(one.sigma)]
    return found[int(np.argmax([one.sigma for one in found]))] if found else nothing


def _afterpulses_until(end_ns: float, curve: LagCurve, dead_time_ns: float) -> AfterpulseFinding:
    nothing = AfterpulseFinding(*([float("nan")] * 4))
    at_level = curve.edges_ns[:-1] >= _LEVEL_NS
    inside = (curve.edges_ns[:-1] >= dead_time_ns) & (curve.edges_ns[1:] <= end_ns)
    same, n_used = curve.same_counts.sum(axis=0), int(curve.photons_used.sum())
    if not inside.any() or not at_level.any() or same[at_level].sum() < _FEWEST_PAIRS:
        return nothing
    expected = same[at_level].sum() * curve.n_lags / curve.n_lags[at_level].sum()
    if expected[inside].sum() < _FEWEST_PAIRS:
        return nothing
    variance = same.astype(np.float64)
    # the level has its own error, the same for all lags
    of_level = (expected[inside].sum() / np.sqrt(same[at_level].sum())) ** 2
    if curve.other_counts[at_level].sum() >= _FEWEST_PAIRS:
        if curve.other_counts[inside].min() >= _MANY_PAIRS:
            expected = expected * curve.other
            variance = variance + expected**2 / np.maximum(curve.other_counts, 1)
        else:
            # bins of few pairs are noise: only their sum is used
            in_range = curve.other_counts[inside].sum() / curve.n_lags[inside].sum()
            level = curve.other_counts[at_level].sum() / curve.n_lags[at_level].sum()
            expected = expected * (in_range / level)
            of_level += expected[inside].sum() ** 2 / max(int(curve.other_counts[inside].sum()), 1)
        of_level += expected[inside].sum() ** 2 / curve.other_counts[at_level].sum()
    excess = (same - expected)[inside]
    share = float(excess.sum()) / n_used
    sd = float(np.sqrt(variance[inside].sum() + of_level)) / n_used
    time_us = float("nan")
    if share > 3 * sd:
        grown = np.maximum.accumulate(np.cumsum(excess)) / excess.sum()
        edge = curve.edges_ns[1:][inside]
        time_us = float(np.interp(1.0 - np.exp(-1.0), grown, edge)) / 1e3
    return AfterpulseFinding(share, sd, time_us, share / sd if sd > 0 else float("nan"))


def find_dead_time(photons: Photons) -> DeadTimeFinding:
    """Shortest gap between counts of one detector, and how many shorter ones light would have."""
    if photons.detector is None or len(photons) < 2:
        return DeadTimeFinding(float("nan"), 0.0, False)
    times_ns = photons.time_ticks * (photons.tick_s * 1e9)
    delay_ns = photons.delay_ns
    if delay_ns is not None and photons.period_ns is not None:
        # T3: the time counts pulses, the delay tells where after the pulse
        if abs(photons.tick_s * 1e9 / photons.period_ns - 1.0) < 1e-3:
            times_ns = times_ns + delay_ns
    gaps = np.concatenate(
        [np.diff(np.sort(times_ns[photons.detector == n])) for n in photons.detectors]
    )
    if gaps.size == 0:
        return DeadTimeFinding(float("nan"), 0.0, False)
    shortest = float(gaps.min())
    tick_ns = photons.tick_s * 1e9 if photons.delay_ticks is None else 0.0
    density = float(np.sum((gaps >= 1e4) & (gaps < 1e5))) / 9e4
    expected = density * shortest
    return DeadTimeFinding(shortest, expected, expected > _FEWEST_GAPS and shortest > 2 * tick_ns)


def find_balance(photons: Photons, afterpulse_share: float = 0.0) -> BalanceFinding:
    """Shares of the detectors, and whether they change between blocks of equally many photons.

    Parameters
    ----------
    photons
        The recording.
    afterpulse_share
        Afterpulses come on the same detector, so that shares scatter by as much more.
    """
    total = len(photons)
    shares = {number: count / total for number, count in photons.detectors.items()}
    n_blocks = min(_MOST_BLOCKS, total // _BLOCK_PHOTONS)
    if len(shares) < 2 or n_blocks < 2 or photons.detector is None:
        return BalanceFinding(shares, float("nan"), 0.0)
    block = np.arange(total) * n_blocks // total
    size = np.bincount(block, minlength=n_blocks).astype(np.float64)
    first = np.searchsorted(block, np.arange(n_blocks))
    lasts_s = np.diff(np.append(photons.time_s[first], photons.duration_s or 0.0))
    statistic, with_background, largest, n_used = 0.0, 0.0, 0.0, 0
    for number, share in shares.items():
        counts = np.bincount(block[photons.detector == number], minlength=n_blocks)
        if share * size.min() < 5:
            continue
        n_used += 1
        sd = np.sqrt(share * size)
        statistic += float(np.sum(((counts - share * size) / sd) ** 2))
        largest = max(largest, float(np.max(np.abs(counts / size - share))))
        # a share of the light, and a rate of its own
        columns = np.stack([size, lasts_s], axis=1) / sd[:, None]
        fitted = columns @ np.linalg.lstsq(columns, counts / sd)[0]
        with_background += float(np.sum((counts / sd - fitted) ** 2))
    if n_used < 2:
        return BalanceFinding(shares, float("nan"), 0.0)
    widening = 1.0 + 2.0 * max(afterpulse_share, 0.0)
    p_value = float(chi2.sf(statistic / widening, (n_used - 1) * (n_blocks - 1)))
    # most of the change, or all of it within errors
    left = with_background / widening
    explained = left < 0.2 * statistic or chi2.sf(left, (n_used - 1) * (n_blocks - 2)) > 1e-3
    return BalanceFinding(shares, p_value, largest, bool(explained))
