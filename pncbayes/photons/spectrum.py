"""Screen a recording for periodic modulation, which a count of states would mistake for states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import welch
from scipy.stats import chi2

from pncbayes.photons.stream import Photons

__all__ = ["SpectralLine", "spectral_lines"]

_LOWEST_HZ = 15.0
_HIGHEST_HZ = 2000.0
_SEGMENT_S = 1.0
# Chance of one false line in a recording of steady or blinking light.
_FALSE_ALARM = 1e-4


@dataclass(frozen=True)
class SpectralLine:
    """A line in the spectrum of the counts.

    Attributes
    ----------
    frequency_hz
        Frequency in Hz, to about 1 Hz.
    depth
        Amplitude of a sinusoid of that power over the mean count rate.
    """

    frequency_hz: float
    depth: float


def spectral_lines(photons: Photons) -> list[SpectralLine]:
    """Find narrow lines between 15 Hz and 2 kHz in the spectrum of the counts.

    Blinking has a broad, smooth spectrum; a narrow line is the mark of the instrument (mains,
    vibration, laser). The power averaged over segments of 1 s is compared with its running
    median; a drifting phase does not matter.

    Parameters
    ----------
    photons
        The recording; shorter than 4 s it is not screened.

    Returns
    -------
    list of SpectralLine
        Strongest first.
    """
    duration_s = float(photons.duration_s or 0.0)
    if duration_s < 4 * _SEGMENT_S or len(photons) < 1000:
        return []
    rate = len(photons) / duration_s
    sampling_hz = 2.0 * min(_HIGHEST_HZ, max(50.0, rate))
    n_bins = int(duration_s * sampling_hz)
    index = (photons.time_s * sampling_hz).astype(np.int64)
    counts = np.bincount(index[index < n_bins], minlength=n_bins)[:n_bins].astype(np.float64)
    segment = int(_SEGMENT_S * sampling_hz)
    frequency, power = welch(counts, fs=sampling_hz, window="hann", nperseg=segment)
    keep = (frequency >= _LOWEST_HZ) & (frequency < 0.5 * sampling_hz)
    frequency, power = frequency[keep], power[keep]
    # half-overlapping Hann segments are worth about 0.95 independent ones each
    n_averages = 0.95 * (2 * n_bins / segment - 1)
    background = median_filter(power, size=41, mode="nearest")
    ratio = power / background
    threshold = chi2.isf(_FALSE_ALARM / ratio.size, 2 * n_averages) / (2 * n_averages)
    # the running median is itself uncertain, and blinking tilts the spectrum under it
    return _peaks(
        frequency, power - background, ratio > 1.3 * threshold, counts.mean(), sampling_hz
    )


def _peaks(
    frequency: NDArray[np.float64],
    excess: NDArray[np.float64],
    high: NDArray[np.bool_],
    mean_count: float,
    sampling_hz: float,
) -> list[SpectralLine]:
    lines = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(np.int8), [0]])))
    resolution = frequency[1] - frequency[0]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        top = start + int(np.argmax(excess[start:stop]))
        wide = slice(max(start - 1, 0), stop + 1)
        variance = max(float(excess[wide].sum()) * resolution, 0.0)
        depth = np.sqrt(2.0 * variance) / mean_count
        lines.append(SpectralLine(float(frequency[top]), float(depth)))
    return sorted(lines, key=lambda line: -line.depth)
