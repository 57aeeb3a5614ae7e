"""Find a periodic line near a given frequency: how wide, how deep, how many harmonics, how sure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.line_folding import Folded, fold, noise_of, spectrum_around
from pncbayes.photons.line_tracking import (
    Track,
    evidence_of,
    expected_factor,
    fit_line,
    fit_waveform,
    smooth,
    with_depth,
)

__all__ = ["FoundLine", "find_line"]

Floats = NDArray[np.float64]

_WIDEST_HZ = 2.0
_N_WIDTHS = 8
_MOST_PHASES = 256
# Log Bayes factor from which on a line may have a depth that changes.
_SURE = 5.0


@dataclass(frozen=True)
class FoundLine:
    """A line, followed.

    Parameters
    ----------
    folded
        The photons, folded at the frequency found.
    track
        Waveform, phase and depth.
    log_bayes_factor
        Of this line against none, in nats.
    log_likelihood_gain
        The same without the price of searching: the largest found.
    """

    folded: Folded
    track: Track
    log_bayes_factor: float
    log_likelihood_gain: float


def find_line(
    time_s: Floats,
    duration_s: float,
    frequency_hz: float,
    brightness: tuple[Floats, Floats] | None,
    background_rate_per_s: float,
    n_harmonics: int,
    search_hz: float,
    known: Exposure | None = None,
) -> FoundLine:
    """Search around a frequency, follow the phase there, and judge.

    Linewidths are tried on a logarithmic grid; at each the frequency is where the power, smoothed
    by a Lorentzian of that width, is largest. The evidence sums over all paths of the phase.

    Parameters
    ----------
    time_s, duration_s, frequency_hz, brightness, background_rate_per_s, known
        As in `fold`.
    n_harmonics
        Most harmonics.
    search_hz
        How far from `frequency_hz` the line may be.
    """

    def folded_at(at_hz: float) -> Folded:
        return fold(time_s, duration_s, at_hz, brightness, background_rate_per_s, known)

    first = folded_at(frequency_hz)
    noise = noise_of(first, np.ones(1), search_hz)
    tried: list[tuple[Folded, Track]] = []
    for width_hz in np.geomspace(0.01 / duration_s, _WIDEST_HZ, _N_WIDTHS):
        offset_hz, track = _try_width(first, float(width_hz), noise, search_hz)
        folded = tried[-1][0] if tried else first
        # narrow widths mostly agree on the frequency
        if abs(frequency_hz + offset_hz - folded.frequency_hz) * duration_s > 0.02:
            folded = folded_at(frequency_hz + offset_hz)
        track = fit_line(folded, track, [1], 1)
        tried.append((folded, replace(track, log_evidence=evidence_of(folded, track))))
    folded, track = max(tried, key=lambda pair: pair[1].log_evidence)
    folded, track = _refine(folded_at, folded, track, n_harmonics, search_hz)
    return _judged(folded, track, search_hz)


def _try_width(
    first: Folded, width_hz: float, noise: float, search_hz: float
) -> tuple[float, Track]:
    """Where the power is largest after smoothing by a line of this width, in Hz, and a start."""
    padding = 4
    offset_hz, power = spectrum_around(first, np.ones(1), padding)
    lag_s = np.fft.fftfreq(power.size, 1.0 / power.size) * first.window_s
    memory = np.exp(-np.pi * width_hz * np.abs(lag_s))
    smoothed = np.fft.fft(np.fft.ifft(power) * memory).real
    inside = np.flatnonzero(np.abs(offset_hz) <= search_hz)
    at = int(inside[np.argmax(smoothed[inside])])
    peak_hz = float(offset_hz[at])
    if 0 < at < power.size - 1:
        before, top, after = np.log(np.maximum(smoothed[at - 1 : at + 2], 1e-12))
        bend = before - 2.0 * top + after
        # a maximum at the end of the range has no parabola
        if bend < 0 and top >= max(before, after):
            peak_hz += 0.5 * float((before - after) / bend * (offset_hz[1] - offset_hz[0]))
    duration_s = first.n_windows * first.window_s
    near = np.abs(offset_hz - peak_hz) <= max(2.0 * width_hz, 1.5 / duration_s)
    excess = max(float((power[near] - noise).sum()) / padding, 1.0)
    variance = float(first.share**2 @ first.counts.sum(axis=1))
    light = float(first.share @ first.signal.sum(axis=1))
    depth = float(np.clip(2.0 * np.sqrt(variance * excess) / light, 0.005, 0.9))
    return peak_hz, Track(np.array([depth + 0j]), width_hz, noise)


def _refine(
    folded_at: Callable[[float], Folded],
    folded: Folded,
    track: Track,
    n_harmonics: int,
    search_hz: float,
) -> tuple[Folded, Track]:
    """Frequency, linewidth, ring, noise and harmonics of the best line."""
    track = fit_line(folded, track, [1], 3)
    drift_hz = _mean_drift_hz(folded, track)
    # where the phase is not known its mean drift says nothing
    if 0.02 < abs(drift_hz) * folded.n_windows * folded.window_s < 2.0:
        folded = folded_at(folded.frequency_hz + drift_hz)
        track = fit_line(folded, track, [1], 2)
    track = replace(track, dispersion=noise_of(folded, expected_factor(track), search_hz))
    track = _best_width(folded, _finer_ring(track))
    track = fit_line(folded, track, [1], 2)
    if n_harmonics > 1:
        wanted = list(range(1, n_harmonics + 1))
        gains = fit_waveform(folded, track, wanted)[1]
        price = np.log(folded.counts.sum())
        kept = [n for n in wanted if n == 1 or gains[n] > price]
        if len(kept) > 1:
            track = fit_line(folded, track, kept, 3)
    return folded, _best_width(folded, track)


def _mean_drift_hz(folded: Folded, track: Track) -> float:
    assert track.moments is not None
    first = track.moments[:, 1]
    angle = np.unwrap(np.angle(first))
    weight = np.abs(first) ** 2
    time_s = np.arange(folded.n_windows) * folded.window_s
    slope = np.polyfit(time_s, angle, 1, w=np.sqrt(weight + 1e-12))[0]
    return float(slope) / (2.0 * np.pi)


def _finer_ring(track: Track) -> Track:
    """Points on the ring closer than the phase is known."""
    assert track.moments is not None
    sd = np.sqrt(max(-2.0 * np.log(np.abs(track.moments[:, 1]).mean()), 0.0))
    n_phases = track.n_phases
    while n_phases < _MOST_PHASES and sd < 1.5 * 2.0 * np.pi / n_phases:
        n_phases *= 2
    return replace(track, n_phases=n_phases)


def _best_width(folded: Folded, track: Track) -> Track:
    """Linewidth of largest evidence, by a parabola in its logarithm around a maximum."""
    step = np.log(2.0)
    shortest_hz = 0.01 / (folded.n_windows * folded.window_s)

    def value(log_width: float) -> float:
        return evidence_of(folded, replace(track, linewidth_hz=float(np.exp(log_width))))

    at = np.log(track.linewidth_hz)
    low, here, high = value(at - step), value(at), value(at + step)
    for _ in range(6):
        if low > here and at - step > np.log(shortest_hz):
            at, high, here = at - step, here, low
            low = value(at - step)
        elif high > here and at + step < np.log(_WIDEST_HZ):
            at, low, here = at + step, here, high
            high = value(at + step)
        else:
            break
    bend = low - 2.0 * here + high
    if bend < 0 and here >= max(low, high):
        at += 0.5 * step * (low - high) / bend
    return replace(track, linewidth_hz=float(np.exp(at)))


def _judged(folded: Folded, track: Track, search_hz: float) -> FoundLine:
    track = replace(track, depth=None)
    track = smooth(folded, track)[0]
    best = track.log_evidence
    depth = abs(track.coefficients[0])
    light = float(folded.share @ folded.signal.sum(axis=1))
    step = min(np.sqrt(2.0 * track.dispersion / light), 0.5 * depth)

    def at(scale: float) -> float:
        return evidence_of(folded, replace(track, coefficients=track.coefficients * scale))

    bend = (2.0 * best - at(1.0 - step / depth) - at(1.0 + step / depth)) / step**2
    sd = min(1.0 / np.sqrt(max(bend, 1e-9)), 0.4)
    duration_s = folded.n_windows * folded.window_s
    n_extra = np.count_nonzero(track.coefficients) - 1
    price = np.log(_N_WIDTHS)
    price += np.log1p(2.0 * search_hz / max(1.0 / duration_s, track.linewidth_hz))
    price += n_extra * np.log(folded.counts.sum())
    factor = best + 0.5 * np.log(2.0 * np.pi) + np.log(sd) - price
    if factor > _SURE:
        changing = with_depth(folded, track)
        if changing.depth is not None:
            used = (np.flatnonzero(track.coefficients) + 1).tolist()
            track = with_depth(folded, fit_line(folded, changing, used, 2))
        track = smooth(folded, track)[0]
    return FoundLine(folded, track, float(factor), best)
