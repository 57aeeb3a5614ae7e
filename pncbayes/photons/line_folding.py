"""Photons folded at a frequency, and the noise around a periodic line."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.exposure_curve import Exposure

__all__ = ["N_BINS", "Folded", "fold", "noise_of", "spectrum_around"]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

N_BINS = 32
# Windows are whole cycles of at least this length: a phase hardly moves in it.
_SHORTEST_WINDOW_S = 0.01
# Longer ones in a long recording, for speed, but not longer than this.
_ENOUGH_WINDOWS = 8000
_LONGEST_WINDOW_S = 0.03
# Without a track of the brightness, a running mean over this many windows.
_RUNNING_WINDOWS = 5


@dataclass(frozen=True)
class Folded:
    """Photons folded at a frequency, in windows of whole cycles.

    Parameters
    ----------
    frequency_hz
        At which they were folded.
    window_s
        Length of a window, in s.
    counts, signal
        Photons, and signal expected without the line, shape ``(n_windows, N_BINS)``.
    background
        Background counts expected in a cell.
    share
        Share of the signal in the light of each window, shape ``(n_windows,)``.
    spectrum
        Fourier series of `counts` and `signal` in the phase, each ``(n_windows, N_BINS // 2 + 1)``.
    """

    frequency_hz: float
    window_s: float
    counts: Floats
    signal: Floats
    background: float
    share: Floats = field(init=False)
    spectrum: tuple[Complex, Complex] = field(init=False)

    def __post_init__(self) -> None:
        signal = self.signal.sum(axis=1)
        share = signal / np.maximum(signal + N_BINS * self.background, 1e-300)
        object.__setattr__(self, "share", share)
        series = tuple(np.fft.rfft(x, axis=1) for x in (self.counts, self.signal))
        object.__setattr__(self, "spectrum", series)

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return int(self.counts.shape[0])


def fold(
    time_s: Floats,
    duration_s: float,
    frequency_hz: float,
    brightness: tuple[Floats, Floats] | None,
    background_rate_per_s: float,
    known: Exposure | None = None,
) -> Folded:
    """Fold photons at a frequency into windows of whole cycles.

    Parameters
    ----------
    time_s
        Arrival times in s, shape ``(n_photons,)``.
    duration_s
        Length of the recording, in s; what is left after the last whole window is not used.
    frequency_hz
        Frequency, in Hz.
    brightness
        Edges (s) and rates (per s) of the signal, or None for a running mean.
    background_rate_per_s
        Background, in counts per s.
    known
        Exposure by other causes.
    """
    shortest_s = max(_SHORTEST_WINDOW_S, min(duration_s / _ENOUGH_WINDOWS, _LONGEST_WINDOW_S))
    n_cycles = max(1, int(np.ceil(shortest_s * frequency_hz - 0.5)))
    window_s = n_cycles / frequency_hz
    n_windows = int(duration_s / window_s)
    cell = (time_s * (frequency_hz * N_BINS)).astype(np.int64)
    cell = cell[cell < n_windows * n_cycles * N_BINS]
    index = cell // (n_cycles * N_BINS) * N_BINS + cell % N_BINS
    cells = np.bincount(index, minlength=n_windows * N_BINS).astype(np.float64)
    counts = cells.reshape(n_windows, N_BINS)
    background = background_rate_per_s * window_s
    if brightness is None:
        mean = _running_mean(counts.sum(axis=1))
        signal = np.maximum(mean - background, 1e-3 * mean.mean())[:, None] / N_BINS
        if known is not None:
            factor = _folded_integral(known, None, n_windows, n_cycles, frequency_hz)
            # the running mean has the slow part of it already
            signal = signal * factor * (N_BINS / _running_mean(factor.sum(axis=1))[:, None])
        signal = np.broadcast_to(signal, counts.shape)
    else:
        signal = _folded_integral(known, brightness, n_windows, n_cycles, frequency_hz)
    return Folded(frequency_hz, window_s, counts, np.maximum(signal, 1e-12), background / N_BINS)


def _running_mean(per_window: Floats) -> Floats:
    """Mean over windows around each; it holds nothing of the line."""
    total = np.concatenate([[0.0], np.cumsum(per_window)])
    n_windows, half = per_window.size, _RUNNING_WINDOWS // 2
    first = np.maximum(np.arange(n_windows) - half, 0)
    stop = np.minimum(np.arange(n_windows) + half + 1, n_windows)
    mean: Floats = (total[stop] - total[first]) / (stop - first)
    return mean


def _folded_integral(
    known: Exposure | None,
    brightness: tuple[Floats, Floats] | None,
    n_windows: int,
    n_cycles: int,
    frequency_hz: float,
) -> Floats:
    """Integral of brightness times exposure over each cell, shape ``(n_windows, N_BINS)``."""
    cell_s = 1.0 / (frequency_hz * N_BINS)
    edges_s, rate_per_s = (np.zeros(2), np.zeros(1)) if brightness is None else brightness
    total = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * rate_per_s)])
    folded = np.empty((n_windows, N_BINS))
    # in pieces: a long recording has tens of millions of cells
    piece = max(1, 2_000_000 // (n_cycles * N_BINS))
    for first in range(0, n_windows, piece):
        stop = min(first + piece, n_windows)
        time_s = np.arange(first * n_cycles * N_BINS, stop * n_cycles * N_BINS + 1) * cell_s
        per_cell = np.ones(time_s.size - 1)
        if brightness is not None:
            per_cell = np.diff(np.interp(time_s, edges_s, total))
        if known is not None:
            per_cell = per_cell * (np.diff(known.integral(time_s)) / cell_s)
        folded[first:stop] = per_cell.reshape(stop - first, n_cycles, N_BINS).sum(axis=1)
    return folded


def spectrum_around(folded: Folded, expected: Floats, padding: int = 4) -> tuple[Floats, Floats]:
    """Power of the residual around the frequency of folding, in units of counting noise.

    Parameters
    ----------
    folded
        The folded photons.
    expected
        Factor on the signal in each cell, shape ``(n_windows, N_BINS)``, or 1.
    padding
        Points per independent frequency.

    Returns
    -------
    tuple of numpy.ndarray
        Offsets in Hz, increasing, and power.
    """
    mean = folded.signal * expected + folded.background
    angle = 2.0 * np.pi * (np.arange(N_BINS) + 0.5) / N_BINS
    amplitude = folded.share * ((folded.counts - mean) @ np.exp(-1j * angle))
    # of the counts themselves, so that the noise of a running mean does not enter
    variance = float(folded.share**2 @ folded.counts.sum(axis=1))
    size = padding * folded.n_windows
    power = np.abs(np.fft.fft(amplitude, size)) ** 2 / max(variance, 1e-300)
    offset_hz = np.fft.fftfreq(size, folded.window_s)
    return np.fft.fftshift(offset_hz), np.fft.fftshift(power)


def noise_of(folded: Folded, expected: Floats, search_hz: float) -> float:
    """Noise around a line over that of counting, 1 or more, from the median power beside it."""
    offset_hz, power = spectrum_around(folded, expected, padding=1)
    aside = np.abs(offset_hz)
    inside = min(2.0 * search_hz + 1.0, 0.25 / folded.window_s)
    outside = min(0.5 / folded.window_s, 60.0)
    beside = power[(aside > inside) & (aside <= outside)]
    return float(max(1.0, np.median(beside) / np.log(2.0))) if beside.size >= 8 else 1.0
