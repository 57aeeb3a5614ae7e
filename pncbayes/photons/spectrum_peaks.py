"""Peaks in the spectrum of the counts: one transform, searched at many widths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfft
from scipy.ndimage import median_filter
from scipy.signal.windows import tukey
from scipy.special import gammaincinv

__all__ = ["Peak", "Spectrum", "count_spectrum", "search_peaks"]

Floats = NDArray[np.float64]

# Share of the recording over which the ends are faded out: an abrupt end would leak.
_TAPER = 0.1
_MOST_SAMPLES = 1 << 23
# Sampling over the highest frequency: the counts of a bin are an average over it.
_OVERSAMPLING = 2.5
# Values per block, and blocks per running median, of the background under a line.
_BLOCK = 16
_BLOCKS = 5
_FEWEST_BLOCKS = 8
_WIDEST_HZ = 4.0
# A line is narrower than this share of its frequency; wider is a bump of blinking.
_WIDEST_SHARE = 1.0 / 25.0
# The background may bend under a line; where blinking rules it, and below 5 Hz, it does more.
_MARGIN = 1.25
_MARGIN_OF_BLINKING = 2.0
_CYCLES = 30.0
_BLINKING_HZ = 5.0
_MOST_PEAKS = 200


@dataclass(frozen=True)
class Spectrum:
    """Power of the counts over that of their shot noise.

    Parameters
    ----------
    resolution_hz
        Distance of the frequencies, which start at zero.
    power
        Shape ``(n_frequencies,)``; 1 on average for steady light.
    n_per_hz
        Independent values per Hz: fewer when the light is on for a part of the time.
    highest_hz
        Up to here the power means something.
    sampling_hz
        Of the counts: faster lines are mirrored at half of it.
    """

    resolution_hz: float
    power: NDArray[np.float32]
    n_per_hz: float
    highest_hz: float
    sampling_hz: float

    def background(self, n_points: int = 400) -> tuple[Floats, Floats, Floats]:
        """Mean and largest power in logarithmic steps, for a figure.

        Returns
        -------
        tuple of arrays
            Frequency in Hz, mean, and largest power of each step, of one shape.
        """
        last = min(int(self.highest_hz / self.resolution_hz), self.power.size - 1)
        if last < 3:
            return np.empty(0), np.empty(0), np.empty(0)
        edges = np.unique(np.geomspace(2, last, n_points).astype(np.int64))
        mean = np.add.reduceat(self.power[:last], edges[:-1], dtype=np.float64) / np.diff(
            np.append(edges[:-1], last)
        )
        largest = np.maximum.reduceat(self.power[:last], edges[:-1]).astype(np.float64)
        frequency = np.sqrt(edges[:-1] * np.append(edges[1:-1], last)) * self.resolution_hz
        return frequency, mean, largest


@dataclass(frozen=True)
class Peak:
    """A peak that chance does not explain.

    Parameters
    ----------
    frequency_hz
        Its middle.
    width_hz
        Width at which it stands out most.
    excess
        Power above the background, summed over the width, over that of the shot noise per value.
    log_p
        Logarithm of the probability of one such peak anywhere in the recording, an upper bound.
    """

    frequency_hz: float
    width_hz: float
    excess: float
    log_p: float


def count_spectrum(time_s: Floats, duration_s: float, highest_hz: float) -> Spectrum:
    """Periodogram of the whole recording.

    Parameters
    ----------
    time_s
        Arrival times, shape ``(n_photons,)``.
    duration_s
        Length of the recording.
    highest_hz
        Highest frequency wanted; long recordings are cut lower, to fit into memory.
    """
    highest_hz = min(highest_hz, _MOST_SAMPLES / (_OVERSAMPLING * duration_s))
    n_bins = next_fast_len(max(int(duration_s * _OVERSAMPLING * highest_hz), 16), real=True)
    sampling_hz = n_bins / duration_s
    index = np.minimum((time_s * sampling_hz).astype(np.int64), n_bins - 1)
    counts = np.bincount(index, minlength=n_bins).astype(np.float32)
    taper = tukey(n_bins, _TAPER).astype(np.float32)
    shot = float(np.sum(counts * taper**2, dtype=np.float64))
    counts -= np.float32(np.sum(counts, dtype=np.float64) / n_bins)
    power = np.abs(rfft(counts * taper)) ** 2 / np.float32(max(shot, 1.0))
    # the variance of a smoothed periodogram of light of changing brightness, whose shot noise is
    # not stationary: neighbouring frequencies are correlated by the spectrum of the brightness
    n_windows = max(int(duration_s / 0.1), 1)
    window = np.minimum((time_s * (n_windows / duration_s)).astype(np.int64), n_windows - 1)
    light = np.bincount(window, minlength=n_windows).astype(np.float64)
    fade = tukey(n_windows, _TAPER) ** 2
    squares = max(float(np.sum(light * np.maximum(light - 1.0, 0.0) * fade**2)), 1.0)
    share = min(float(np.sum(light * fade)) ** 2 / (squares * n_windows), 1.0)
    return Spectrum(1.0 / duration_s, power, share * duration_s, highest_hz, sampling_hz)


def search_peaks(spectrum: Spectrum, lowest_hz: float, false_alarm: float) -> list[Peak]:
    """Peaks of any width from one frequency step up to 4 Hz.

    The power, averaged over boxes of 1, 2, 4, ... steps, is compared with its running median. An
    average of ``n`` exponential values exceeds ``r`` times its mean with a probability below
    ``exp(-n (r - 1 - log r))`` (Chernoff's bound); where the scatter of the neighbours is wider
    than ``n`` says, ``n`` is lowered accordingly. Probabilities are multiplied by the number of
    boxes of all widths.

    Parameters
    ----------
    spectrum
        As `count_spectrum` returns it.
    lowest_hz
        Lowest frequency; at least 30 cycles must fit into the recording.
    false_alarm
        Probability of a false peak in a recording.

    Returns
    -------
    list of Peak
        Most significant first; the neighbours that a peak overlaps are left out.
    """
    last = min(int(spectrum.highest_hz / spectrum.resolution_hz), spectrum.power.size)
    total = np.concatenate([[0.0], np.cumsum(spectrum.power[:last], dtype=np.float64)])
    lowest_hz = max(lowest_hz, _CYCLES * spectrum.resolution_hz)
    found = []
    n_boxes = 0
    size = 1
    while size == 1 or size * spectrum.resolution_hz <= _WIDEST_HZ:
        step = max(size // 2, 1)
        starts = np.arange(0, last - size + 1, step)
        if starts.size < _BLOCK * _FEWEST_BLOCKS:
            break
        width_hz = size * spectrum.resolution_hz
        middle_hz = np.asarray((starts + 0.5 * (size - 1)) * spectrum.resolution_hz, np.float64)
        mean = np.asarray((total[starts + size] - total[starts]) / size, np.float64)
        n_averages = 1.0 if size == 1 else max(spectrum.n_per_hz * width_hz, 1.0)
        background, n_local = _surroundings(middle_hz, mean, n_averages)
        floor_hz = lowest_hz if size <= 2 else max(lowest_hz, width_hz / _WIDEST_SHARE)
        keep = np.flatnonzero((middle_hz >= floor_hz) & (mean > _MARGIN * background))
        # only narrow lines are looked for where blinking rules
        n_boxes += int(np.count_nonzero(middle_hz >= floor_hz))
        ruled = np.clip(1.0 - 1.0 / background[keep], 0.0, 1.0)
        ruled = np.where(middle_hz[keep] < _BLINKING_HZ, 1.0, ruled)
        margin = _MARGIN + (_MARGIN_OF_BLINKING - _MARGIN) * ruled
        ratio = np.maximum(mean[keep] / (margin * background[keep]), 1.0)
        log_p = -n_local[keep] * (ratio - 1.0 - np.log(ratio))
        excess = (mean[keep] - background[keep]) * size
        high = log_p < np.log(false_alarm)
        found.append(
            np.stack([log_p, middle_hz[keep], np.full(keep.size, width_hz), excess])[:, high]
        )
        size *= 2
    if not found:
        return []
    table = np.concatenate(found, axis=1)
    table[0] += np.log(max(n_boxes, 1))
    return _apart(table[:, table[0] < np.log(false_alarm)])


def _apart(table: Floats) -> list[Peak]:
    """Peaks that do not overlap, most significant first."""
    peaks: list[Peak] = []
    table = table[:, np.argsort(table[0])]
    while table.shape[1] and len(peaks) < _MOST_PEAKS:
        log_p, frequency, width, excess = (float(x) for x in table[:, 0])
        peaks.append(Peak(frequency, width, excess, log_p))
        reach = np.maximum(width, table[2]) + 0.5 * width
        table = table[:, np.abs(table[1] - frequency) > reach]
    return peaks


def _surroundings(frequency_hz: Floats, mean: Floats, n_averages: float) -> tuple[Floats, Floats]:
    """Background under each value, and how many averages its neighbours look like."""
    n_blocks = frequency_hz.size // _BLOCK
    whole = slice(0, n_blocks * _BLOCK)
    centre = frequency_hz[whole].reshape(n_blocks, _BLOCK).mean(axis=1)
    middle = np.median(mean[whole].reshape(n_blocks, _BLOCK), axis=1)
    middle = median_filter(np.maximum(middle, 1e-12), _BLOCKS, mode="nearest")
    # a straight line in the logarithms: blinking falls as a power of the frequency
    background = np.exp(
        np.interp(np.log(frequency_hz + 1e-9), np.log(centre), np.log(middle))
    ) / float(gammaincinv(n_averages, 0.5) / n_averages)
    upper = np.quantile((mean / background)[whole].reshape(n_blocks, _BLOCK), 0.84, axis=1)
    upper = np.interp(frequency_hz, centre, median_filter(upper, _BLOCKS, mode="nearest"))
    expected = float(gammaincinv(n_averages, 0.84)) / n_averages - 1.0
    widening = np.maximum((upper - 1.0) / max(expected, 1e-6), 1.0)
    return background, n_averages / widening**2
