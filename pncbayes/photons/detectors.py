"""Detectors: alignment of their delays, occupancy of pulses, dead time, afterpulses."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.errors import PncbayesWarning
from pncbayes.photons.delays import delay_clock, fold_table, raw_delay_histograms
from pncbayes.photons.pulse import Pulse, find_pulse
from pncbayes.photons.stream import Photons

__all__ = [
    "Afterpulsing",
    "dead_time_ns",
    "detector_shifts",
    "estimate_afterpulsing",
    "pulse_occupancy",
]

# Above this share of pulses per detector, lost second photons bend brightness and decay.
_MOST_OCCUPANCY = 0.01
# Fewer photons than this do not fix the rise of a detector.
_FEWEST_FOR_SHIFT = 200
_SHIFT_CHI_SQUARED = 9.0


@dataclass(frozen=True)
class Afterpulsing:
    """Afterpulses per detected photon, between `from_us` and `to_us` after it.

    Parameters
    ----------
    probability, sd
        Estimate and standard error; NaN when the clock or the counts do not allow one.
    from_us, to_us
        Range of delays, in microseconds.
    """

    probability: float
    sd: float
    from_us: float
    to_us: float


def detector_shifts(photons: Photons) -> dict[int, int]:
    """Ticks to add to each detector's delays so that their rises coincide.

    The detector with most photons is the reference. Of each other one, the square roots of its
    delay histogram around the rise (where counts of any height have the same noise) are moved along
    those of the reference; the best match is taken, in whole ticks, if it beats no shift by nine
    units of chi squared. A detector that rises more than a quarter of the period away saw another
    laser pulse and is left where it is.

    Parameters
    ----------
    photons
        Photons with delays.

    Returns
    -------
    dict of int to int
        By detector number; empty without delays.

    Warns
    -----
    PncbayesWarning
        When a detector seems to have seen another laser pulse.
    """
    clock = delay_clock(photons)
    if clock is None or len(photons) == 0:
        return {}
    numbers, raw = raw_delay_histograms(photons)
    table = fold_table(clock, raw.shape[1] - 1)
    folded = []
    for counts in raw:
        row = np.zeros(clock.n_ticks)
        np.add.at(row, table, counts)
        folded.append(row)
    reference = int(np.argmax([row.sum() for row in folded]))
    shifts = dict.fromkeys(numbers, 0)
    first = find_pulse(folded[reference])
    for number, row in zip(numbers, folded, strict=True):
        if number == numbers[reference] or row.sum() < _FEWEST_FOR_SHIFT or first is None:
            continue
        second = find_pulse(row)
        if second is None:
            continue
        shift = _best_shift(folded[reference], row, first, second)
        if abs(shift) <= clock.n_ticks // 4:
            shifts[number] = shift
            continue
        warnings.warn(
            f"{photons.path or 'photons'}: the decay of detector {number} starts "
            f"{abs(shift) * clock.tick_ns:.4g} ns away from that of detector {numbers[reference]}, "
            "more than a quarter of the laser period: with alternating lasers, select the photons "
            "of one of them",
            PncbayesWarning,
            stacklevel=2,
        )
    return shifts


def _best_shift(
    reference: NDArray[np.float64], moved: NDArray[np.float64], first: Pulse, second: Pulse
) -> int:
    n_ticks = reference.size
    step = max(first.step, second.step)
    half = (n_ticks + 1) // 2
    coarse = (first.position - second.position + half) % n_ticks - half
    # counts are summed over `step` ticks, so a sixteenth of that is close enough
    stride = max(1, step // 16)
    window = first.position + np.arange(
        -min(16 * step + 16, half), min(32 * step + 32, half), stride
    )
    wanted = np.sqrt(_smooth(reference, step)[window % n_ticks])
    root = np.sqrt(_smooth(moved, step))

    def misfit(lag: int) -> float:
        row = root[(window - lag) % n_ticks]
        scale = float(wanted @ row) / max(float(row @ row), 1e-300)
        # the square root of a Poisson number has the variance 1/4, whatever its height; sums that
        # overlap are not independent, hence the last factor
        squares = float(np.sum((wanted - scale * row) ** 2))
        return 4.0 * squares / (1.0 + scale**2) * stride / step

    best = coarse
    for reach, by in ((4 * step + 4, stride), (stride, max(1, stride // 16))):
        lags = np.arange(best - reach, best + reach + 1, by)
        best = int(lags[int(np.argmin([misfit(int(lag)) for lag in lags]))])
    return best if misfit(0) - misfit(best) > _SHIFT_CHI_SQUARED else 0


def _smooth(counts: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    # sum over `step` ticks, around the period
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([counts, counts[: step - 1]]))])
    return np.asarray(np.maximum(total[step:] - total[:-step], 0.0))


def pulse_occupancy(photons: Photons) -> dict[int, tuple[float, float]]:
    """Share of laser pulses with a photon, per detector.

    Parameters
    ----------
    photons
        Photons with a known laser period.

    Returns
    -------
    dict of int to (float, float)
        Mean over the recording and over its brightest tenth (in blocks of 100 counts or more);
        empty when the laser period is not known.

    Warns
    -----
    PncbayesWarning
        When a detector sees a photon in more than 1 % of the pulses of the brightest tenth: a
        detector gives one photon per pulse, so the decay is bent to early delays (pile-up) and the
        brightness is too low.
    """
    duration_s = photons.duration_s or 0.0
    if photons.period_ns is None or len(photons) == 0 or duration_s <= 0:
        return {}
    pulses_per_s = 1e9 / photons.period_ns
    result = {}
    for number, count in photons.detectors.items():
        rate = count / duration_s
        times_s = photons.time_s[photons.detector == number]
        n_blocks = max(1, min(count // 100, int(duration_s / 1e-3)))
        blocks = np.bincount(
            np.minimum((times_s * (n_blocks / duration_s)).astype(np.int64), n_blocks - 1),
            minlength=n_blocks,
        )
        brightest = np.sort(blocks)[-max(1, n_blocks // 10) :].mean() * n_blocks / duration_s
        result[number] = (rate / pulses_per_s, float(brightest) / pulses_per_s)
        if result[number][1] > _MOST_OCCUPANCY:
            warnings.warn(
                f"{photons.path or 'photons'}: detector {number} sees a photon in "
                f"{100 * result[number][1]:.2g} % of the laser pulses when the dot is bright "
                "(above 1 %): pile-up shortens the decay and lowers the brightness; attenuate the "
                "light",
                PncbayesWarning,
                stacklevel=2,
            )
    return result


@njit(cache=True, nogil=True)
def _lag_histogram(
    times: NDArray[np.float64],
    detector: NDArray[np.uint8],
    edges: NDArray[np.float64],
    same: NDArray[np.int64],
    other: NDArray[np.int64],
) -> None:
    # pairs of photons by lag, same detector and different detectors; times do not decrease much
    last = edges[-1]
    for i in range(times.size):
        j = i + 1
        while j < times.size and times[j] - times[i] < last:
            lag = times[j] - times[i]
            if lag >= edges[0]:
                bin_number = np.searchsorted(edges, lag, side="right") - 1
                if detector[i] == detector[j]:
                    same[bin_number] += 1
                else:
                    other[bin_number] += 1
            j += 1


def _fine_times_ns(photons: Photons) -> NDArray[np.float64]:
    # T3: the time is the number of the pulse, the delay tells where after it
    times = photons.time_ticks * (photons.tick_s * 1e9)
    delay_ns = photons.delay_ns
    if delay_ns is not None and photons.period_ns is not None:
        if abs(photons.tick_s * 1e9 / photons.period_ns - 1.0) < 1e-3:
            return np.asarray(times + delay_ns)
    return np.asarray(times)


def estimate_afterpulsing(photons: Photons) -> Afterpulsing:
    """Estimate afterpulses from the autocorrelation of each detector at microseconds.

    Pairs of photons of one detector at lags up to 5 us are compared with those at 20 to 100 us.
    What pairs of different detectors show in the same way is light, not afterpulses, and is taken
    off.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    Afterpulsing
        NaN when the clock is coarser than 1 us, or when fewer than 20 pairs are expected.
    """
    tick_us = photons.tick_s * 1e6
    shortest = max(0.1, 1.5 * tick_us)
    nothing = Afterpulsing(float("nan"), float("nan"), shortest, 5.0)
    if tick_us > 1.0 or len(photons) < 2 or photons.detector is None:
        return nothing
    edges = np.array([shortest, 5.0, 20.0, 100.0])
    same, other = np.zeros(3, np.int64), np.zeros(3, np.int64)
    # whole pulses: the delay after the pulse would put structure into short lags
    times_us = np.asarray(photons.time_ticks * tick_us, dtype=np.float64)
    _lag_histogram(times_us, photons.detector, edges, same, other)
    n_lags = np.ceil(edges[1:] / tick_us) - np.ceil(edges[:-1] / tick_us)
    expected = same[2] * n_lags[0] / n_lags[2]
    if expected < 20:
        return nothing
    excess = same[0] - expected
    variance = same[0] + expected * n_lags[0] / n_lags[2]
    if other[2] > 0:
        bunching = other[0] / (other[2] * n_lags[0] / n_lags[2]) - 1.0
        excess -= bunching * expected
        variance += expected**2 * (1 + bunching) ** 2 / max(other[0], 1)
    n_photons = len(photons)
    return Afterpulsing(
        float(excess / n_photons), float(np.sqrt(variance)) / n_photons, shortest, 5.0
    )


def dead_time_ns(photons: Photons) -> float:
    """Dead time of the detectors: the shortest gap between two photons of one detector.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    float
        In ns; NaN when so few short gaps are expected that their lack means nothing.
    """
    if photons.detector is None or len(photons) < 2:
        return float("nan")
    times = _fine_times_ns(photons)
    gaps = [np.diff(np.sort(times[photons.detector == n])) for n in photons.detectors]
    every = np.concatenate(gaps)
    if every.size == 0:
        return float("nan")
    shortest = max(float(every.min()), photons.tick_s * 1e9 if photons.delay_ticks is None else 0.0)
    # as many gaps per ns as between 1 and 10 us
    density = np.sum((every > 1e3) & (every < 1e4)) / 9e3
    return shortest if density * shortest > 5 else float("nan")
