"""A periodic line in the light: its phase followed on a ring, its waveform, its slow depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky_banded, solveh_banded

from pncbayes.photons.line_folding import N_BINS, Folded
from pncbayes.photons.phase_kernels import filter_phase, smooth_phase, walk_kernel

__all__ = [
    "Track",
    "evidence_of",
    "expected_factor",
    "fit_line",
    "fit_waveform",
    "smooth",
    "with_depth",
]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

_LEAST_FACTOR = 0.02
# Prior standard deviation of a Fourier coefficient of the waveform.
_COEFFICIENT_SD = 0.5
_DEPTH_SDS = (0.1, 0.2, 0.35, 0.6)
_DEPTH_TIMES_S = (0.1, 0.3, 1.0, 3.0, 10.0)
# A depth that changes has to pay for its two parameters.
_DEPTH_PAYS = 5.0


@dataclass(frozen=True)
class Track:
    """What is known of a line.

    Parameters
    ----------
    coefficients
        Fourier coefficients of the waveform ``1 + Re sum c_n exp(i n phase)``, shape
        ``(n_harmonics,)`` from the first; zero where a harmonic does not pay.
    linewidth_hz
        Full width of a line whose phase walks at random, in Hz.
    dispersion
        Noise around the line over that of counting, 1 or more; log-likelihoods are divided by it.
    n_phases
        Points on the ring of phases.
    moments
        Posterior mean of ``exp(i n phase)`` in each window, shape
        ``(n_windows, N_BINS // 2 + 1)``.
    depth
        Factor on the waveform in each window, shape ``(n_windows,)``.
    log_evidence
        Of the line against none, given waveform and linewidth, in nats.
    depth_sd, depth_time_s, depth_gain
        Standard deviation and correlation time (s) of the factor, and its log evidence against a
        constant one.
    """

    coefficients: Complex
    linewidth_hz: float
    dispersion: float
    n_phases: int = 2 * N_BINS
    moments: Complex | None = None
    depth: Floats | None = None
    log_evidence: float = 0.0
    depth_sd: float = 0.0
    depth_time_s: float = float("inf")
    depth_gain: float = 0.0

    def factors(self, n_windows: int) -> Floats:
        """Return the factor on the waveform per window, 1 where it does not change."""
        return np.ones(n_windows) if self.depth is None else self.depth

    def waveform(self) -> Floats:
        """Return the waveform less one, mean over each phase bin, shape ``(N_BINS,)``."""
        basis = _basis(self.coefficients.size)
        wave: Floats = basis @ np.concatenate([self.coefficients.real, -self.coefficients.imag])
        return wave


def expected_factor(track: Track) -> Floats:
    """Posterior mean of the factor on the signal in each cell, shape ``(n_windows, N_BINS)``."""
    assert track.moments is not None
    order = np.arange(1, track.coefficients.size + 1)
    angle = 2.0 * np.pi * np.outer(order, (np.arange(N_BINS) + 0.5) / N_BINS)
    amplitude = track.moments[:, order] * track.coefficients
    amplitude *= track.factors(amplitude.shape[0])[:, None]
    factor: Floats = (
        1.0 + (amplitude @ (np.sinc(order / N_BINS)[:, None] * np.exp(1j * angle))).real
    )
    return factor


def _basis(n_harmonics: int) -> Floats:
    """Means of the cosines, then the sines, over the phase bins, ``(N_BINS, 2 n_harmonics)``."""
    order = np.arange(1, n_harmonics + 1)
    angle = 2.0 * np.pi * np.outer((np.arange(N_BINS) + 0.5) / N_BINS, order)
    blurred = np.sinc(order / N_BINS)
    return np.concatenate([blurred * np.cos(angle), blurred * np.sin(angle)], axis=1)


def _correlate(folded: Folded, of_counts: Floats, of_signal: Floats, n_phases: int) -> Floats:
    """Sum over the cells of ``counts f(phase) - signal g(phase)``, for each shift of the phase."""
    counts, signal = folded.spectrum
    series = np.conj(counts) * np.fft.rfft(of_counts, axis=-1)
    series -= np.conj(signal) * np.fft.rfft(of_signal, axis=-1)
    # the highest order has no phase of its own
    series[:, -1] = 0.0
    shifted: Floats = np.fft.irfft(series, n_phases, axis=1) * (n_phases / N_BINS)
    return shifted


def _likelihood(folded: Folded, track: Track) -> tuple[Floats, float]:
    """Likelihood of each window at each phase over that without the line; the log taken out."""
    wave = track.waveform()
    factor = track.factors(folded.n_windows)[:, None]
    share = folded.share[:, None] * factor
    share = np.minimum(share, (1.0 - _LEAST_FACTOR) / max(-float(wave.min()), 1e-9))
    logs = _correlate(folded, np.log1p(share * wave), factor * wave, track.n_phases)
    logs /= track.dispersion
    largest = logs.max(axis=1, keepdims=True)
    return np.exp(np.maximum(logs - largest, -300.0)), float(largest.sum())


def _kernel(folded: Folded, track: Track) -> Floats:
    # a phase whose variance grows as 2 pi w t makes a line of full width w
    return walk_kernel(2.0 * np.pi * track.linewidth_hz * folded.window_s, track.n_phases)


def evidence_of(folded: Folded, track: Track) -> float:
    """Log evidence of a line of this waveform and linewidth against none, in nats."""
    likelihood, scale = _likelihood(folded, track)
    return float(filter_phase(likelihood, _kernel(folded, track))) + scale


def smooth(folded: Folded, track: Track) -> tuple[Track, Floats]:
    """The phase given waveform and linewidth."""
    likelihood, scale = _likelihood(folded, track)
    evidence, posterior = smooth_phase(likelihood, _kernel(folded, track))
    moments = np.conj(np.fft.rfft(posterior, axis=1)[:, : N_BINS // 2 + 1])
    return replace(track, moments=moments, log_evidence=float(evidence) + scale), posterior


def _aligned(folded: Folded, track: Track, n_groups: int = 6) -> list[tuple[float, Floats, Floats]]:
    """Photons and expected signal over the phase of the line, by groups of the signal's share."""
    assert track.moments is not None
    factor = track.factors(folded.n_windows)
    share = folded.share * factor
    if np.ptp(share) < 1e-9:
        n_groups = 1
    weight = folded.counts.sum(axis=1)
    groups = np.array_split(np.argsort(share), n_groups)
    back = np.conj(track.moments)
    result = []
    for group in groups:
        if not weight[group].any():
            continue
        counts, signal = (
            np.fft.irfft((series[group] * back[group] * scale[group, None]).sum(axis=0), N_BINS)
            for series, scale in zip(folded.spectrum, (np.ones_like(factor), factor), strict=True)
        )
        mean = float(np.average(share[group], weights=weight[group]))
        result.append((mean, np.maximum(counts, 0.0), np.maximum(signal, 0.0)))
    return result


def fit_waveform(
    folded: Folded, track: Track, harmonics: list[int]
) -> tuple[Complex, dict[int, float]]:
    """Poisson maximum likelihood of the waveform given the phase, and what each harmonic gains."""
    basis = _basis(max(harmonics))
    columns = [n - 1 for n in harmonics] + [max(harmonics) + n - 1 for n in harmonics]
    basis = basis[:, columns]
    groups = _aligned(folded, track)
    old = track.coefficients[: max(harmonics)]
    old = np.pad(old, (0, max(harmonics) - old.size))
    value = np.concatenate([old.real, -old.imag])[columns]
    prior = np.full(value.size, 1.0 / _COEFFICIENT_SD**2)

    def slopes(at: Floats) -> tuple[float, Floats, Floats]:
        wave = basis @ at
        total, gradient = -0.5 * float(prior @ at**2), -prior * at
        curvature = np.diag(prior)
        for share, counts, signal in groups:
            relative = np.maximum(1.0 + share * wave, 1e-3)
            total += float(counts @ np.log(relative) - signal @ wave)
            gradient = gradient + basis.T @ (counts * share / relative - signal)
            curvature += (basis.T * (counts * (share / relative) ** 2)) @ basis
        return total, gradient, curvature

    total, gradient, curvature = slopes(value)
    for _ in range(20):
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while length > 1e-3:
            trial = value + length * step
            if (basis @ trial).min() > _LEAST_FACTOR - 1.0:
                trial_total, trial_gradient, trial_curvature = slopes(trial)
                if trial_total >= total - 1e-9:
                    break
            length *= 0.5
        else:
            break
        done = trial_total - total < 1e-3
        value, total, gradient, curvature = trial, trial_total, trial_gradient, trial_curvature
        if done:
            break
    n_used = len(harmonics)
    gains = {}
    for i, n in enumerate(harmonics):
        pair = [i, n_used + i]
        block = curvature[np.ix_(pair, pair)]
        gains[n] = 0.5 * float(value[pair] @ block @ value[pair]) / track.dispersion
    coefficients = np.zeros(max(harmonics), complex)
    coefficients[[n - 1 for n in harmonics]] = value[:n_used] - 1j * value[n_used:]
    return coefficients, gains


def fit_line(folded: Folded, track: Track, harmonics: list[int], n_rounds: int) -> Track:
    """Phase and waveform in turn (expectation maximisation)."""
    for _ in range(n_rounds):
        track, _ = smooth(folded, track)
        track = replace(track, coefficients=fit_waveform(folded, track, harmonics)[0])
    return track


def with_depth(folded: Folded, track: Track) -> Track:
    """Let the depth change slowly, if that pays.

    The factor on the waveform is one plus an Ornstein-Uhlenbeck process; the log-likelihood is
    taken to second order in it, given the phase, so that its evidence is a Gaussian integral.
    """
    track, posterior = smooth(folded, track)
    score, information = _slopes_in_depth(folded, track, posterior)
    best = replace(track, depth=None, depth_sd=0.0, depth_gain=0.0)
    for time_s in _DEPTH_TIMES_S:
        if time_s < 4.0 * folded.window_s:
            continue
        for sd in _DEPTH_SDS:
            change, gain = _gaussian_walk(score, information, sd, folded.window_s / time_s)
            if gain > max(best.depth_gain, _DEPTH_PAYS):
                depth = np.clip(1.0 + change, 0.05, 3.0)
                best = replace(best, depth=depth, depth_sd=sd, depth_time_s=time_s, depth_gain=gain)
    return best


def _slopes_in_depth(folded: Folded, track: Track, posterior: Floats) -> tuple[Floats, Floats]:
    """Slope and curvature of the log-likelihood in the factor of each window, at one."""
    wave = track.waveform()
    share = np.minimum(folded.share[:, None], 0.98 / max(-float(wave.min()), 1e-9))
    relative = share * wave / (1.0 + share * wave)
    n_phases = track.n_phases
    slope = _correlate(folded, relative, wave[None, :], n_phases)
    curvature = _correlate(folded, relative**2, np.zeros((1, N_BINS)), n_phases)
    score = (posterior * slope).sum(axis=1) / track.dispersion
    information = np.maximum((posterior * curvature).sum(axis=1), 0.0) / track.dispersion
    return score, information


def _gaussian_walk(
    score: Floats, information: Floats, sd: float, decay: float
) -> tuple[Floats, float]:
    """Posterior mean of an Ornstein-Uhlenbeck process of zero mean, and its log evidence."""
    n = score.size
    keep = np.exp(-decay)
    scale = 1.0 / (sd**2 * (1.0 - keep**2))
    band = np.zeros((2, n))
    band[0, 1:] = -keep * scale
    band[1] = (1.0 + keep**2) * scale
    band[1, [0, -1]] = scale
    log_prior = np.log(cholesky_banded(band)[1]).sum()
    band[1] += information
    log_posterior = np.log(cholesky_banded(band)[1]).sum()
    mean: Floats = solveh_banded(band, score)
    return mean, float(log_prior - log_posterior + 0.5 * score @ mean)
