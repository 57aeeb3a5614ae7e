"""Coincidences of two detectors: one emitter, or more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.stats import beta

from pncbayes.photons.background import estimate_background
from pncbayes.photons.stream import Photons

__all__ = ["AntibunchingFinding", "antibunching"]

Array = NDArray[np.float64]

# Side peaks on each side of zero lag; longest tick of a clock over the period; probability of the
# interval; standard deviations by which side peaks have to be above background.
_SIDE_PEAKS, _COARSEST, _INTERVAL, _CLEAR = 20, 0.1, 0.9, 3.0


@njit(cache=True, nogil=True)
def _coincidences(times: Array, detector: NDArray[np.uint8], peaks: NDArray[np.int64]) -> None:
    # pairs of different detectors by lag in whole periods; times in periods, not decreasing
    for i in range(times.size):
        j = i + 1
        while j < times.size and times[j] - times[i] < peaks.size - 0.5:
            if detector[j] != detector[i]:
                peaks[int(times[j] - times[i] + 0.5)] += 1
            j += 1


@dataclass(frozen=True)
class AntibunchingFinding:
    """Coincidences of different detectors at pulsed excitation.

    Attributes
    ----------
    n_zero, n_side, n_background
        Coincidences at zero lag, in the mean side peak, and in each with the background.
    g2_zero, low, high
        Ratio of the first two without the third, and its interval of 90 %.
    verdict, sentence
        ``"not antibunched"``, ``"a single emitter"`` or ``"not decided"``; in full.
    """

    n_zero: int
    n_side: float
    n_background: float
    g2_zero: float
    low: float
    high: float
    verdict: str
    sentence: str


def antibunching(
    photons: Photons, *, background_rate_per_s: float | None = None
) -> AntibunchingFinding | None:
    r"""Tell from coincidences of two detectors whether one emitter shines or more.

    Blinking raises zero lag and the 20 side peaks on each side alike. With counts per pulse n and
    background b of each detector, background has part in :math:`n_1 b_2 + n_2 b_1 - b_1 b_2`
    coincidences per pulse. One photon per pulse makes g2(0) = 0 [1]_; two such emitters, of r times
    each other's light, :math:`2 r / (1 + r)^2`. Electronics that keep one photon per pulse have no
    coincidences either, whatever shines.

    Parameters
    ----------
    photons
        The recording; its arrival times count pulses, or are much finer than the period.
    background_rate_per_s
        All detectors together, counts per s; by `estimate_background` if not given.

    Returns
    -------
    AntibunchingFinding or None
        None with one detector, without a period or a clock that tells pulses apart, and where side
        peaks hold no more than background.

    Raises
    ------
    ValueError
        If the background is negative or not finite.

    References
    ----------
    .. [1] Michler et al., Nature 406, 968 (2000), doi:10.1038/35023100
    """
    rate, period_ns, duration_s = background_rate_per_s, photons.period_ns, photons.duration_s
    if rate is not None and not (np.isfinite(rate) and rate >= 0):
        raise ValueError(f"`background_rate_per_s` must be zero or a positive number, got {rate}")
    counts = np.array(list(photons.detectors.values()), dtype=np.float64)
    if counts.size < 2 or period_ns is None or not duration_s or photons.detector is None:
        return None
    tick = photons.tick_s * 1e9 / period_ns
    tick = 1.0 if abs(tick - 1.0) < 1e-3 else tick
    if _COARSEST < tick != 1.0:
        return None
    peaks = np.zeros(_SIDE_PEAKS + 1, dtype=np.int64)
    _coincidences(photons.time_ticks * np.float64(tick), photons.detector, peaks)
    rate = estimate_background(photons).rate_per_s if rate is None else rate
    dark = counts / counts.sum() * (rate if np.isfinite(rate) else 0.0) * duration_s
    signal = np.maximum(counts - dark, 0.0)
    # of all pairs of different detectors, those that are not of light of the dot alone
    n_pairs = 0.5 * (counts.sum() ** 2 - (counts**2).sum() - signal.sum() ** 2 + (signal**2).sum())
    n_zero, sides = int(peaks[0]), int(peaks[1:].sum())
    n_side = sides / (2 * _SIDE_PEAKS)
    # all of it lies at zero lag as well: no more than is there
    background = min(float(n_pairs) * period_ns / (1e9 * duration_s), float(n_zero))
    if n_side - background <= _CLEAR * np.sqrt(sides) / (2 * _SIDE_PEAKS):
        return None
    # how many of all coincidences lie at zero: a binomial share with exact limits
    tail = 0.5 * (1.0 - _INTERVAL)
    least = float(beta.ppf(tail, n_zero, sides + 1)) if n_zero else 0.0
    most = float(beta.ppf(1.0 - tail, n_zero + 1, sides))
    expected = np.array([n_zero, sides * least / (1.0 - least), sides * most / (1.0 - most)])
    g2, low, high = np.maximum((expected - background) / (n_side - background), 0.0).tolist()
    verdict, said = "not decided", "not decided, one emitter or more"
    if low > 0.5:
        verdict = "not antibunched"
        said = "not as of one emitter: there are several, or biexcitons shine"
    elif high < 0.5:
        second = 100.0 * (1.0 - high - np.sqrt(1.0 - 2.0 * high)) / max(high, 1e-9)
        verdict = "a single emitter"
        said = f"a single emitter, a second has at most {second:.0f} % of its light"
    sentence = f"g2(0) = {g2:.2f} ({low:.2f} to {high:.2f}): {said}"
    return AntibunchingFinding(n_zero, n_side, background, g2, low, high, verdict, sentence)
