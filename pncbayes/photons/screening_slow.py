"""Slow changes over a recording: of the brightest level, and of the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from pncbayes.photons.background import floor_ticks
from pncbayes.photons.delays import delay_clock, delay_histogram, fold_table
from pncbayes.photons.stream import Photons

__all__ = ["BackgroundFinding", "DriftFinding", "find_background_step", "find_drift"]

Floats = NDArray[np.float64]

_N_BLOCKS = 15
_FEWEST_BLOCKS = 8
_WINDOWS_PER_BLOCK = 20
_WINDOW_PHOTONS = 50.0
_BRIGHT_QUANTILE = 0.9
# Scatter of the levels over that of their shot noise, above which something else moves them.
_STEADY = 3.0
_STEP_BLOCKS = 24
_FEWEST_FLOOR = 200


@dataclass(frozen=True)
class DriftFinding:
    """Change of the brightest level from start to end.

    Attributes
    ----------
    change, sd
        Relative change over the recording and standard error; NaN when it is too short.
    p_value
        Of no change, given the scatter between blocks of time and its memory.
    is_clear
        Whether the level scatters little enough around the drift for it not to be blinking or
        flicker.
    time_s, level_per_s
        Middle of each block, and its level (90 % quantile of the rate), shape ``(n_blocks,)``.
    """

    change: float
    sd: float
    p_value: float
    is_clear: bool
    time_s: Floats
    level_per_s: Floats


@dataclass(frozen=True)
class BackgroundFinding:
    """A step of the counts before the pulse and late after it.

    Attributes
    ----------
    time_s
        Most probable time of a step; NaN without delays, or with too few counts.
    before_per_s, after_per_s
        Counts per s at these delays, for the mean brightness.
    p_value
        Of no step.
    share
        Share of the laser period that these delays cover.
    """

    time_s: float
    before_per_s: float
    after_per_s: float
    p_value: float
    share: float


def find_drift(photons: Photons) -> DriftFinding:
    """Relative change of the brightest level over the recording.

    In each of 15 blocks of time the level is the 90 % quantile of the counts in windows of about 50
    photons; a straight line is fitted to its logarithm. The error is from the scatter around the
    line, and larger when neighbouring blocks scatter alike.
    """
    duration_s = float(photons.duration_s or 0.0)
    nan = float("nan")
    nothing = DriftFinding(nan, nan, nan, False, np.empty(0), np.empty(0))
    if duration_s <= 0 or len(photons) == 0:
        return nothing
    window_s = float(np.clip(_WINDOW_PHOTONS * duration_s / len(photons), 0.02, 0.5))
    n_windows = int(duration_s / window_s)
    n_blocks = min(_N_BLOCKS, n_windows // _WINDOWS_PER_BLOCK)
    if n_blocks < _FEWEST_BLOCKS:
        return nothing
    index = (photons.time_s / window_s).astype(np.int64)
    counts = np.bincount(index[index < n_windows], minlength=n_windows)[:n_windows]
    parts = np.array_split(counts, n_blocks)
    level = np.array([np.quantile(part, _BRIGHT_QUANTILE) for part in parts])
    middle_s = (np.arange(n_blocks) + 0.5) * duration_s / n_blocks
    if level.min() <= 0:
        return DriftFinding(nan, nan, nan, False, middle_s, level / window_s)
    position = middle_s / duration_s - 0.5
    log_level = np.log(level)
    slope = float(position @ log_level / (position @ position))
    rest = log_level - log_level.mean() - slope * position
    free = n_blocks - 2
    memory = float(np.clip(rest[1:] @ rest[:-1] / max(float(rest @ rest), 1e-300), 0.0, 0.8))
    variance = float(rest @ rest) / free * (1.0 + memory) / (1.0 - memory)
    # a quantile of n Poisson counts has about 1.7 times the error of their mean
    shot = 1.7**2 / (level.mean() * n_windows / n_blocks)
    variance = max(variance, 0.5 * shot)
    sd = float(np.sqrt(variance / (position @ position)))
    p_value = float(2.0 * student.sf(abs(slope) / sd, max(free * (1 - memory), 2.0)))
    is_clear = float(rest @ rest) / free < _STEADY**2 * shot
    change = float(np.expm1(slope))
    return DriftFinding(
        change, sd * (1.0 + change), p_value, bool(is_clear), middle_s, level / window_s
    )


def find_background_step(photons: Photons) -> BackgroundFinding:
    """Step of the counts at delays where the decay is over, after taking off what follows light.

    The counts of 24 blocks of time are a constant, plus a share of all counts, plus a step between
    two of them, all three fitted at once: a dot that bleaches is no step of the background.
    """
    nothing = BackgroundFinding(*([float("nan")] * 5))
    duration_s = float(photons.duration_s or 0.0)
    clock = delay_clock(photons)
    if clock is None or photons.delay_ticks is None or not clock.known_period or duration_s <= 0:
        return nothing
    floor = floor_ticks(delay_histogram(photons))
    if floor.size == 0 or len(photons) == 0:
        return nothing
    is_floor = np.zeros(clock.n_ticks, np.bool_)
    is_floor[floor] = True
    late = is_floor[fold_table(clock, int(photons.delay_ticks.max()))][photons.delay_ticks]
    if late.sum() < _FEWEST_FLOOR:
        return nothing
    block = np.minimum((photons.time_s * (_STEP_BLOCKS / duration_s)).astype(int), _STEP_BLOCKS - 1)
    seen = np.bincount(block[late], minlength=_STEP_BLOCKS).astype(np.float64)
    light = np.bincount(block[~late], minlength=_STEP_BLOCKS).astype(np.float64)
    varying = light - light.mean()
    best = (0.0, 1, np.zeros(3))
    # a step at the very ends has nothing to be compared with
    for split in range(2, _STEP_BLOCKS - 1):
        score, values = _step(seen, varying, split)
        if abs(score) > abs(best[0]):
            best = (score, split, values)
    score, split, values = best
    free = _STEP_BLOCKS - 3
    p_value = min(1.0, float(2.0 * student.sf(abs(score), free)) * (_STEP_BLOCKS - 3))
    block_s = duration_s / _STEP_BLOCKS
    return BackgroundFinding(
        float(split * block_s),
        max(float(values[0]) / block_s, 0.0),
        max(float(values[0] + values[2]) / block_s, 0.0),
        p_value,
        floor.size / clock.n_ticks,
    )


def _step(seen: Floats, varying: Floats, split: int) -> tuple[float, Floats]:
    """Step over its error, and constant, share and step of least squares."""
    step = (np.arange(seen.size) >= split).astype(np.float64)
    columns = np.stack([np.ones(seen.size), varying, step], axis=1)
    # counts of a mean that is near what is seen around
    sd = np.sqrt(np.maximum(np.convolve(np.pad(seen, 1, "edge"), np.ones(3) / 3, "valid"), 1.0))
    values, _, rank, _ = np.linalg.lstsq(columns / sd[:, None], seen / sd)
    if rank < 3:
        return 0.0, values
    rest = (seen - columns @ values) / sd
    covariance = np.linalg.inv((columns / sd[:, None]).T @ (columns / sd[:, None]))
    # never less scatter than that of counts
    scatter = max(float(rest @ rest) / (seen.size - 3), 1.0)
    return float(values[2] / np.sqrt(scatter * covariance[2, 2])), np.asarray(values, np.float64)
