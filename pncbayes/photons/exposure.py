"""Exposure: a factor on the signal of all states, but not on the background, over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from pncbayes.photons.exposure_curve import (
    Exposure,
    ExposureDrift,
    ExposureLine,
    combine,
    grid_s,
    schedule_exposure,
)
from pncbayes.photons.line_search import FoundLine, find_line
from pncbayes.photons.stream import Photons

__all__ = [
    "Brightness",
    "Exposure",
    "ExposureDrift",
    "ExposureLine",
    "combine",
    "estimate_drift",
    "estimate_periodic",
    "schedule_exposure",
]

Floats = NDArray[np.float64]
Brightness = tuple[ArrayLike, ArrayLike]

_LEAST = 0.02
_STEPS_PER_CYCLE = 48
_FEWEST_CYCLES = 30
_MOST_HARMONICS = 8
_MOST_ORDER = 8
_DRIFT_CELLS = 2000
# Prior standard deviation of each Chebyshev coefficient of the logarithm of the exposure.
_DRIFT_SD = 0.3
# The noise of slow changes is measured in this many orders above those fitted.
_NOISE_ORDERS = 24


def estimate_periodic(
    photons: Photons,
    frequency_hz: float,
    *,
    n_harmonics: int = 4,
    brightness: Brightness | None = None,
    background_rate_per_s: float = 0.0,
    known: Exposure | None = None,
    search_hz: float = 1.0,
) -> Exposure:
    """Follow the phase and the depth of a periodic line of the instrument.

    The photons are folded in windows of about 10 ms. The phase walks at random on a ring, with a
    linewidth of largest likelihood; forward-backward over the windows gives its posterior, and
    with the waveform, a Fourier series fitted by Poisson maximum likelihood given that posterior,
    in turn, a likelihood that sums over all paths of the phase (expectation maximisation) [1]_. The
    exposure is the posterior mean, so it is flatter where the phase is not known; and it is shrunk
    by the probability of the line against none. The log-likelihood is divided by the noise
    found at frequencies beside the line, so that blinking does not pass for a line.

    Parameters
    ----------
    photons
        The recording.
    frequency_hz
        Frequency of the fundamental, in Hz.
    n_harmonics
        Most harmonics, 1 to 8; those are kept that gain more than the logarithm of the number of
        photons.
    brightness
        Edges in s, shape ``(n + 1,)``, and rates of the signal in counts per s, shape ``(n,)``,
        of a track of the brightness of the dot. Without it a running mean over five windows
        serves, to which fast blinking adds noise.
    background_rate_per_s
        Rate of the background, in counts per s.
    known
        Exposure by other causes, such as a line that was estimated before; it is not part of the
        result (`combine` multiplies them).
    search_hz
        How far from `frequency_hz` the line may be, in Hz.

    Returns
    -------
    Exposure
        With one line in ``lines``; `log_bayes_factor` tells whether there is a line at all.

    Raises
    ------
    ValueError
        If a number is out of range, or the recording shorter than 30 cycles.

    References
    ----------
    .. [1] Rabiner, Proc. IEEE 77, 257 (1989), doi:10.1109/5.18626
    """
    duration_s = _checked_duration_s(photons, background_rate_per_s)
    if not (np.isfinite(frequency_hz) and frequency_hz * duration_s >= _FEWEST_CYCLES):
        raise ValueError(
            f"`frequency_hz` must be at least {_FEWEST_CYCLES / duration_s:.3g} Hz, "
            f"{_FEWEST_CYCLES} cycles of the recording, got {frequency_hz}"
        )
    if not 1 <= n_harmonics <= _MOST_HARMONICS:
        raise ValueError(f"`n_harmonics` must be 1 to {_MOST_HARMONICS}, got {n_harmonics}")
    if not 0 < search_hz < frequency_hz / 4:
        raise ValueError(
            f"`search_hz` must be above 0 and below a quarter of `frequency_hz`, got {search_hz}"
        )
    if known is not None and abs(known.duration_s / duration_s - 1.0) > 1e-6:
        raise ValueError(
            f"`known` must be of the same duration, got {known.duration_s:.9g} s and "
            f"{duration_s:.9g} s"
        )
    track = None if brightness is None else _checked_brightness(brightness, duration_s)
    found = find_line(
        photons.time_s,
        duration_s,
        float(frequency_hz),
        track,
        float(background_rate_per_s),
        n_harmonics,
        search_hz,
        known,
    )
    return _exposure_of(found, duration_s)


def _exposure_of(found: FoundLine, duration_s: float) -> Exposure:
    folded, track = found.folded, found.track
    assert track.moments is not None
    amplitudes = np.abs(track.coefficients)
    probability = float(expit(found.log_bayes_factor))
    line = ExposureLine(
        frequency_hz=float(folded.frequency_hz),
        depth=float(amplitudes[0]),
        linewidth_hz=track.linewidth_hz,
        harmonics=tuple(float(x) for x in amplitudes),
        depth_sd=track.depth_sd,
        depth_time_s=track.depth_time_s,
        phase_known=float(np.abs(track.moments[:, 1]).mean()),
        dispersion=track.dispersion,
        probability=probability,
        log_bayes_factor=found.log_bayes_factor,
        log_likelihood_gain=found.log_likelihood_gain,
    )
    used = np.flatnonzero(amplitudes > 0) + 1
    highest_hz = folded.frequency_hz * int(used[-1])
    time_s = grid_s(duration_s, 1.0 / (_STEPS_PER_CYCLE * highest_hz))
    centre_s = (np.arange(folded.n_windows) + 0.5) * folded.window_s
    values = np.zeros(time_s.size)
    for order in used:
        amplitude = track.coefficients[order - 1] * track.moments[:, order]
        amplitude = amplitude * track.factors(folded.n_windows)
        angle = 2.0 * np.pi * order * ((folded.frequency_hz * time_s) % 1.0)
        values += np.interp(time_s, centre_s, amplitude.real) * np.cos(angle)
        values -= np.interp(time_s, centre_s, amplitude.imag) * np.sin(angle)
    return Exposure(np.maximum(1.0 + probability * values, _LEAST), duration_s, lines=(line,))


def estimate_drift(
    photons: Photons,
    *,
    brightness: Brightness,
    background_rate_per_s: float = 0.0,
    order: int = 2,
) -> Exposure:
    """Fit a slow drift of the signal, given a track of the brightness.

    The logarithm of the exposure is a sum of Chebyshev polynomials, with a normal prior of
    standard deviation 0.3 on each coefficient, fitted by Poisson regression. The scale of the
    track is free, with and without drift. The log-likelihood is divided by the noise that is found
    in slow changes of higher order, so that flicker does not pass for a drift.

    Parameters
    ----------
    photons
        The recording.
    brightness
        Edges in s, shape ``(n + 1,)``, and rates of the signal in counts per s, shape ``(n,)``.
    background_rate_per_s
        Rate of the background, in counts per s.
    order
        Highest order of the polynomials, 1 to 8.

    Returns
    -------
    Exposure
        With one entry in ``drifts``; `log_bayes_factor` is against no drift (Laplace).

    Raises
    ------
    ValueError
        If a number is out of range, or the track does not cover the recording.
    """
    duration_s = _checked_duration_s(photons, background_rate_per_s)
    if not 1 <= order <= _MOST_ORDER:
        raise ValueError(f"`order` must be 1 to {_MOST_ORDER}, got {order}")
    edges_s, rate_per_s = _checked_brightness(brightness, duration_s)
    cells_s = np.linspace(0.0, duration_s, _DRIFT_CELLS + 1)
    counts = np.histogram(photons.time_s, cells_s)[0].astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * rate_per_s)])
    signal = np.maximum(np.diff(np.interp(cells_s, edges_s, total)), 1e-12)
    background = background_rate_per_s * duration_s / _DRIFT_CELLS
    place = (np.arange(_DRIFT_CELLS) + 0.5) / _DRIFT_CELLS
    basis = _chebyshev(2.0 * place - 1.0, order)
    value, _, _ = _fit_logs(counts, signal, background, basis, 1.0)
    noise = _slow_noise(counts, signal * np.exp(basis @ value), background, order)
    value, top, curvature = _fit_logs(counts, signal, background, basis, noise)
    _, flat_top, flat_curvature = _fit_logs(counts, signal, background, basis[:, :1], noise)
    factor = top - flat_top - order * np.log(_DRIFT_SD)
    factor -= 0.5 * (np.linalg.slogdet(curvature)[1] - np.log(flat_curvature[0, 0]))
    sd = np.sqrt(np.diag(np.linalg.inv(curvature)))
    drift = ExposureDrift(
        tuple(float(x) for x in value[1:]), tuple(float(x) for x in sd[1:]), noise, float(factor)
    )
    time_s = grid_s(duration_s, duration_s / _DRIFT_CELLS)
    waves = _chebyshev(2.0 * time_s / duration_s - 1.0, order)
    return Exposure(np.exp(waves[:, 1:] @ value[1:]), duration_s, drifts=(drift,))


def _chebyshev(place: Floats, order: int) -> Floats:
    """Chebyshev polynomials of order 0 to `order`, shape ``(n, order + 1)``."""
    return np.asarray(np.polynomial.chebyshev.chebvander(place, order), np.float64)


def _fit_logs(
    counts: Floats, signal: Floats, background: float, basis: Floats, noise: float
) -> tuple[Floats, float, Floats]:
    """Largest posterior of the coefficients of the log signal: place, height and curvature."""
    prior = np.full(basis.shape[1], 1.0 / _DRIFT_SD**2)
    # the scale is free
    prior[0] = 1e-6
    value = np.zeros(basis.shape[1])

    def height(at: Floats) -> float:
        mean = signal * np.exp(basis @ at) + background
        return float((counts @ np.log(mean) - mean.sum()) / noise - 0.5 * prior @ at**2)

    top = height(value)
    for _ in range(50):
        bright = signal * np.exp(basis @ value)
        mean = bright + background
        gradient = basis.T @ (bright * (counts / mean - 1.0)) / noise - prior * value
        curvature = (basis.T * (bright**2 / mean)) @ basis / noise + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        while (new := height(value + step)) < top and np.abs(step).max() > 1e-10:
            step *= 0.5
        if new < top:
            break
        value, gain, top = value + step, new - top, new
        if gain < 1e-9:
            break
    return value, top, curvature


def _slow_noise(counts: Floats, bright: Floats, background: float, order: int) -> float:
    """Noise of slow changes of the signal over that of counting, 1 or more."""
    mean = bright + background
    place = (np.arange(counts.size) + 0.5) / counts.size
    waves = np.cos(np.pi * np.outer(place, np.arange(order + 1, order + 1 + _NOISE_ORDERS)))
    score = waves.T @ (bright * (counts / mean - 1.0))
    power = score**2 / ((waves**2).T @ (bright**2 / mean))
    return max(1.0, float(power.mean()))


def _checked_duration_s(photons: Photons, background_rate_per_s: float) -> float:
    duration_s = float(photons.duration_s or 0.0)
    if len(photons) < 100 or duration_s <= 0:
        raise ValueError(
            f"an exposure takes 100 photons or more, got {len(photons)} in {duration_s:.6g} s"
        )
    if not (np.isfinite(background_rate_per_s) and background_rate_per_s >= 0):
        raise ValueError(
            "`background_rate_per_s` must be a rate of 0 or more in counts per s, got "
            f"{background_rate_per_s}"
        )
    if background_rate_per_s * duration_s >= len(photons):
        raise ValueError(
            f"`background_rate_per_s` = {background_rate_per_s:.6g} is all the light or more, "
            f"{len(photons) / duration_s:.6g} counts per s: there is no signal to follow"
        )
    return duration_s


def _checked_brightness(brightness: Brightness, duration_s: float) -> tuple[Floats, Floats]:
    edges_s, rate_per_s = (np.asarray(x, np.float64) for x in brightness)
    if edges_s.ndim != 1 or rate_per_s.shape != (edges_s.size - 1,) or rate_per_s.size == 0:
        raise ValueError(
            "`brightness` must be edges of shape (n + 1,) and rates of shape (n,), got "
            f"{edges_s.shape} and {rate_per_s.shape}"
        )
    if not (np.diff(edges_s) >= 0).all() or not (np.isfinite(rate_per_s).all()):
        raise ValueError("the edges of `brightness` must increase, and its rates be numbers")
    if (rate_per_s < 0).any() or not (rate_per_s > 0).any():
        raise ValueError("the rates of `brightness` must be 0 or more, and not all 0")
    missing_s = max(edges_s[0], 0.0) + max(duration_s - edges_s[-1], 0.0)
    if missing_s > 0.05 * duration_s:
        raise ValueError(
            f"`brightness` must cover the recording of {duration_s:.6g} s, but {missing_s:.3g} s "
            "are missing"
        )
    # the ends, such as a last partial bin, go on as they are
    edges_s = edges_s.copy()
    edges_s[0], edges_s[-1] = min(edges_s[0], 0.0), max(edges_s[-1], duration_s)
    return edges_s, rate_per_s
