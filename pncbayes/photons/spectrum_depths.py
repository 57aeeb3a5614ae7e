"""How deep a spectral line is, how wide, and whether bright and dim moments share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.fft import fft, ifft, next_fast_len
from scipy.signal import fftconvolve
from scipy.signal.windows import hann

__all__ = ["Demodulated", "LineDepth", "demodulate", "fold_line", "line_depth", "power_at"]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Windows in which the brightness hardly changes, of whole cycles.
_WINDOW_S = 0.05
_FEWEST_CYCLES = 1
# Longer windows mix bright and dim moments.
_LONGEST_SPLIT_S = 0.25
_FEWEST_WINDOWS = 25
_N_WIDTHS = 32
_SCORING_STEPS = 8
_WIDEST_HZ = 6.0
# How far around a line its background is measured.
_AROUND_HZ = 8.0
_PADDING = 4
# Nats that a linewidth has to gain over a stable phase.
_REASON = 3.0
_RESOLVED = 0.4
# The share of the power that a drifting line keeps between any two windows is below the first
# number, and below the second when it is this many steps wide.
_COHERENT = (0.8, 0.5)
_SURELY_WIDE = 2.0
_N_BLOCKS = 25
# Depths that differ by less than this many standard errors are called equal.
_EQUAL_SIGMA = 3.0
# The ratio of two depths must be known to this, or nothing is said about it.
_KNOWN = 0.35
_N_PHASES = 24


@dataclass(frozen=True)
class Demodulated:
    """Photons of each window, and their sum of phasors at a frequency.

    Parameters
    ----------
    frequency_hz, window_s
        Frequency, and length of the windows.
    counts
        Shape ``(n_windows,)``.
    phasor
        Sum of ``exp(-2 pi i f t)`` over the photons of each window, shape ``(n_windows,)``.
    """

    frequency_hz: float
    window_s: float
    counts: Floats
    phasor: Complex


@dataclass(frozen=True)
class LineDepth:
    """Depth of a line: amplitude over mean rate.

    Parameters
    ----------
    frequency_hz
        Refined frequency.
    linewidth_hz
        Full width at half maximum of a line whose phase walks at random; a hundredth of the
        resolution (one over the duration) where it cannot be told from a stable phase.
    depth, bright, dim
        Estimate and standard error: overall, in bright and in dim windows (NaN where these cannot
        be told apart). Windows in which the dot switches mix both.
    is_common
        Whether bright and dim windows have the same depth within errors; None when not known.
    reference
        Phasor of the line in each window, from its neighbours, shape ``(n_windows,)``.
    threshold
        Counts per window from which a window is bright; NaN when the brightness hardly changes.
    """

    frequency_hz: float
    linewidth_hz: float
    depth: tuple[float, float]
    bright: tuple[float, float]
    dim: tuple[float, float]
    is_common: bool | None
    reference: Complex
    threshold: float


@njit(cache=True, nogil=True, fastmath=True)
def _demodulate(
    time_s: NDArray[np.float64],
    frequency_hz: float,
    window_s: float,
    counts: NDArray[np.float64],
    phasor: NDArray[np.complex128],
) -> None:
    for i in range(time_s.size):
        window = int(time_s[i] / window_s)
        if window < counts.size:
            cycles = time_s[i] * frequency_hz
            angle = -2.0 * np.pi * (cycles - np.floor(cycles))
            counts[window] += 1.0
            phasor[window] += complex(np.cos(angle), np.sin(angle))


def demodulate(time_s: Floats, duration_s: float, frequency_hz: float) -> Demodulated:
    """Demodulate the photons at a frequency, in windows of whole cycles of about 50 ms."""
    cycles = max(int(np.ceil(_WINDOW_S * frequency_hz)), _FEWEST_CYCLES)
    window_s = cycles / frequency_hz
    n_windows = max(int(duration_s / window_s), 1)
    counts, phasor = np.zeros(n_windows), np.zeros(n_windows, np.complex128)
    _demodulate(np.ascontiguousarray(time_s), frequency_hz, window_s, counts, phasor)
    return Demodulated(frequency_hz, window_s, counts, phasor)


def power_at(demodulated: Demodulated, width_hz: float) -> float:
    """Power within a width around the demodulated frequency, over the shot noise of one value."""
    power = np.abs(fft(demodulated.phasor)) ** 2 / max(float(demodulated.counts.sum()), 1.0)
    offset_hz = np.fft.fftfreq(power.size, demodulated.window_s)
    near = np.abs(offset_hz) <= 0.5 * width_hz + 1.0 / (power.size * demodulated.window_s)
    return float(np.sum(power[near] - 1.0))


def line_depth(demodulated: Demodulated, width_hz: float) -> LineDepth | None:
    """Depth and linewidth of a line near the demodulated frequency.

    Phasors of different windows are multiplied: their product has the line, squared, but neither
    the shot noise nor the blinking within a window, which are independent between windows. The
    average over pairs at a lag falls as ``exp(-pi linewidth lag)``. Bright and dim windows are each
    correlated with all windows around them, so that their ratio does not depend on what these are.
    Errors are from a jackknife over 25 blocks of time.

    Parameters
    ----------
    demodulated
        As `demodulate` returns it.
    width_hz
        Rough width of the line.

    Returns
    -------
    LineDepth or None
        None when there are too few windows, or no coherent line.
    """
    counts, window_s = demodulated.counts, demodulated.window_s
    if counts.size < _FEWEST_WINDOWS:
        return None
    offset_hz, linewidth_hz = _offset_and_linewidth(demodulated, width_hz)
    step_hz = 1.0 / (counts.size * window_s)
    # what cannot be told from a stable phase is taken as stable
    linewidth_hz = linewidth_hz if linewidth_hz > _RESOLVED * step_hz else 0.01 * step_hz
    middle_s = (np.arange(counts.size) + 0.5) * window_s
    phasor = demodulated.phasor * np.exp(-2j * np.pi * offset_hz * middle_s)
    threshold = _midpoint(counts) if window_s <= _LONGEST_SPLIT_S else np.nan
    is_bright = counts >= threshold
    kernel = _kernel(linewidth_hz * window_s, counts.size)
    pairs = _Pairs(phasor, counts, kernel, is_bright)
    if linewidth_hz > 0.01 * step_hz:
        # a depth that differs between bright and dim moments widens a line of stable phase
        stable = _kernel(0.01 * step_hz * window_s, counts.size)
        coherent = _Pairs(phasor, counts, stable, is_bright)
        least = _COHERENT[int(linewidth_hz > _SURELY_WIDE * step_hz)]
        if coherent.depth() ** 2 > least * pairs.depth() ** 2:
            linewidth_hz, kernel, pairs = 0.01 * step_hz, stable, coherent
    around = fftconvolve(phasor, kernel, mode="same")
    if pairs.depth() <= 0:
        return None
    depth = _jackknife(pairs.depth)
    bright = dim = (float("nan"), float("nan"))
    is_common = None
    if np.isfinite(threshold):
        bright = _jackknife(lambda use: pairs.depth_of(1, use))
        dim = _jackknife(lambda use: pairs.depth_of(0, use))
        difference, sd = _jackknife(lambda use: pairs.depth_of(1, use) - pairs.depth_of(0, use))
        if np.isfinite(sd) and sd < _KNOWN * depth[0]:
            is_common = bool(abs(difference) < _EQUAL_SIGMA * max(sd, 0.02 * depth[0]))
        elif np.isfinite(sd) and abs(difference) > 2 * _EQUAL_SIGMA * sd:
            is_common = False
    return LineDepth(
        demodulated.frequency_hz + offset_hz,
        linewidth_hz,
        depth,
        bright,
        dim,
        is_common,
        around,
        float(threshold),
    )


def _kernel(linewidth_per_window: float, n_windows: int) -> Floats:
    """Coherence of a line between windows, 0 for a window with itself."""
    decay = np.pi * linewidth_per_window
    reach = int(np.clip(1.5 / max(decay, 1e-9), 1, n_windows - 1))
    kernel = np.exp(-decay * np.abs(np.arange(-reach, reach + 1)))
    kernel[reach] = 0.0
    return np.asarray(kernel, np.float64)


class _Pairs:
    """Sums over pairs of windows, by the blocks of time and the brightness of both."""

    def __init__(
        self, phasor: Complex, counts: Floats, kernel: Floats, is_bright: NDArray[np.bool_]
    ) -> None:
        block = np.minimum(np.arange(counts.size) * _N_BLOCKS // counts.size, _N_BLOCKS - 1)
        cell = block + _N_BLOCKS * is_bright
        self.top = np.zeros((_N_BLOCKS, 2, _N_BLOCKS))
        self.below = np.zeros_like(self.top)
        for number in range(_N_BLOCKS):
            inside = np.flatnonzero(block == number)
            # what this block's windows add to the neighbourhood of every window
            first, reach = int(inside[0]), kernel.size // 2
            part = slice(max(first - reach, 0), min(int(inside[-1]) + reach + 1, counts.size))
            low = first - part.start
            around = fftconvolve(phasor[inside], kernel)[reach - low :][: part.stop - part.start]
            light = fftconvolve(counts[inside], kernel**2)[reach - low :][: part.stop - part.start]
            product = (phasor[part] * around.conj()).real
            weight = counts[part] * np.maximum(light, 0.0)
            for table, values in ((self.top, product), (self.below, weight)):
                sums = np.bincount(cell[part], values, minlength=2 * _N_BLOCKS)
                table[:, :, number] = sums.reshape(2, _N_BLOCKS).T

    def depth(self, use: NDArray[np.bool_] | slice = slice(None)) -> float:
        """Depth over the blocks in `use`."""
        top, below = (x[use][:, :, use].sum() for x in (self.top, self.below))
        return float(2.0 * np.sqrt(max(top, 0.0) / below)) if below > 0 else 0.0

    def depth_of(self, is_bright: int, use: NDArray[np.bool_]) -> float:
        """Depth of bright (1) or dim (0) windows."""
        whole = self.depth(use)
        top, below = (x[use][:, is_bright][:, use].sum() for x in (self.top, self.below))
        return float(4.0 * top / below / whole) if whole > 0 and below > 0 else float("nan")


def _jackknife(estimate: Callable[[NDArray[np.bool_]], float]) -> tuple[float, float]:
    everything = np.ones(_N_BLOCKS, np.bool_)
    without = []
    for number in range(_N_BLOCKS):
        use = everything.copy()
        use[number] = False
        without.append(estimate(use))
    left = np.array(without)
    sd = np.sqrt((_N_BLOCKS - 1) * left.var())
    return float(estimate(everything)), float(sd)


def _midpoint(counts: Floats) -> float:
    """Counts half way between dim and bright windows; NaN when they hardly differ."""
    low, high = np.quantile(counts, [0.05, 0.95])
    # what shot noise alone does to these quantiles is 1.65 standard deviations on either side
    noise = 1.65 * (np.sqrt(max(low, 1.0)) + np.sqrt(max(high, 1.0)))
    if high - low < max(1.5 * noise, 0.25 * high):
        return float("nan")
    middle = 0.5 * (low + high)
    fewest = max(_FEWEST_WINDOWS, 0.02 * counts.size)
    if min(np.sum(counts >= middle), np.sum(counts < middle)) < fewest:
        return float("nan")
    return float(middle)


def _offset_and_linewidth(demodulated: Demodulated, width_hz: float) -> tuple[float, float]:
    """Frequency and linewidth of the Lorentzian that explains the power around the line best.

    Powers are exponentially distributed around their expectation (Whittle's likelihood), which
    takes into account that a single drifting line is itself noisy.
    """
    counts, window_s = demodulated.counts, demodulated.window_s
    # over the counts, since blinking would give the line a skirt; dim windows are mostly noise
    divisor = np.maximum(counts, max(0.5 * float(counts.mean()), 1.0))
    taper = hann(counts.size, sym=False)
    size = next_fast_len(_PADDING * counts.size)
    power = np.abs(fft(demodulated.phasor / divisor * taper, size)) ** 2
    shot = max(float(np.sum(counts * (taper / divisor) ** 2)), 1e-30)
    of_power = ifft(power)
    offset_hz = np.fft.fftfreq(size, window_s)
    lag_s = np.minimum(np.arange(size), size - np.arange(size)) * window_s
    of_taper = ifft(np.abs(fft(taper, size)) ** 2).real
    step_hz = 1.0 / (counts.size * window_s)
    spacing_hz = 1.0 / (size * window_s)
    reach = int(max(_AROUND_HZ, 10.0 * width_hz, 50.0 * step_hz) * size * window_s)
    moved = np.arange(-min(reach, size // 2 - 1), min(reach, size // 2 - 1) + 1)
    near = np.flatnonzero(np.abs(offset_hz) <= max(1.5 * width_hz, 1.5 * step_hz))
    best = (-np.inf, 0.0, width_hz)
    narrowest_hz = 0.1 * step_hz
    for linewidth_hz in np.geomspace(narrowest_hz, max(_WIDEST_HZ, step_hz), _N_WIDTHS).tolist():
        lags = of_taper * np.exp(-np.pi * linewidth_hz * lag_s)
        shape = fft(lags).real
        matched = fft(of_power * lags).real
        at = int(near[np.argmax(matched[near])])
        expected = np.maximum(shape[moved % size] / shape[0], 0.0)
        value = _log_likelihood(power[(at + moved) % size] / shot, expected)
        # wider than the narrowest only for a reason; padded powers are not independent
        if value > best[0] + (_PADDING * _REASON if best[2] == narrowest_hz else 0.0):
            peak_hz = offset_hz[at] + _vertex(matched[[at - 1, at, (at + 1) % size]]) * spacing_hz
            best = (value, float(peak_hz), linewidth_hz)
    return best[1], best[2]


def _vertex(values: Floats) -> float:
    """Place of the top of a parabola through three values, in steps from the middle one."""
    bend = values[0] - 2.0 * values[1] + values[2]
    return float(np.clip(0.5 * (values[0] - values[2]) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _log_likelihood(seen: Floats, shape: Floats) -> float:
    """Exponentially distributed powers: background of 1 or more, plus a line; both fitted."""
    background = max(float(np.quantile(seen, 0.1)) / 0.105, 1.0)
    return float(_fitted_log_likelihood(seen, shape, background, float(seen.max())))


@njit(cache=True, nogil=True, fastmath=True)
def _fitted_log_likelihood(
    seen: NDArray[np.float64], shape: NDArray[np.float64], background: float, height: float
) -> float:
    for _ in range(_SCORING_STEPS):
        ones, cross, squares, first, second = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(seen.size):
            # weighted least squares: the scatter of a power is as large as its expectation
            root = 1.0 / (background + height * shape[i])
            weight = root * root
            ones += weight
            cross += weight * shape[i]
            squares += weight * shape[i] * shape[i]
            first += weight * seen[i]
            second += weight * shape[i] * seen[i]
        background = (first * squares - second * cross) / max(ones * squares - cross**2, 1e-300)
        background = max(background, 1.0)
        height = max((second - background * cross) / squares, 1e-6)
    total = 0.0
    for i in range(seen.size):
        expected = background + height * shape[i]
        total -= np.log(expected) + seen[i] / expected
    return total


def fold_line(
    time_s: Floats, demodulated: Demodulated, line: LineDepth
) -> dict[str, tuple[Floats, Floats]]:
    """Waveform of a line in bright and in dim windows, its phase followed from window to window.

    Returns
    -------
    dict
        ``"bright"`` and ``"dim"``, or ``"all"``: rate over mean and its standard error, each of
        shape ``(24,)``.
    """
    window = (time_s / demodulated.window_s).astype(np.int64)
    inside = window < demodulated.counts.size
    window, time_s = window[inside], time_s[inside]
    offset_hz = line.frequency_hz - demodulated.frequency_hz
    # the reference was turned by the offset, window by window
    middle_s = (window + 0.5) * demodulated.window_s
    cycles = demodulated.frequency_hz * time_s + offset_hz * middle_s
    phase = cycles + np.angle(line.reference)[window] / (2 * np.pi)
    step = np.minimum(((phase % 1.0) * _N_PHASES).astype(np.int64), _N_PHASES - 1)
    groups = {"all": np.ones(window.size, np.bool_)}
    if np.isfinite(line.threshold):
        is_bright = (demodulated.counts >= line.threshold)[window]
        groups = {"bright": is_bright, "dim": ~is_bright}
    result = {}
    for name, keep in groups.items():
        counts = np.bincount(step[keep], minlength=_N_PHASES).astype(np.float64)
        mean = max(float(counts.mean()), 1e-9)
        result[name] = (counts / mean, np.sqrt(np.maximum(counts, 1.0)) / mean)
    return result
