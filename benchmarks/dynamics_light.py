"""Light whose non-radiative rate wanders, by taking photons away: any decay, any path of the rate.

A rate k(t) that is added to a decay leaves a photon that would have come at the delay d after the
pulse with the probability exp(-k(t) d): that is what a rate is, whatever the decay looks like. So a
recording without it is thinned, photon by photon, and background is added afterwards.
"""

from __future__ import annotations

import common  # noqa: F401  (sets one thread before NumPy is loaded)
import numpy as np
from scipy.signal import lfilter

from pncbayes.photons.stream import Photons

_STEP_S = 1e-3
# Delays this much before the pulse are of the pulse before.
_EARLY_NS = 2.0


def wander(duration_s: float, correlation_time_s: float, rng: np.random.Generator) -> np.ndarray:
    """Ornstein-Uhlenbeck process of mean 0 and variance 1, in steps of 1 ms."""
    n = int(duration_s / _STEP_S) + 2
    keep = np.exp(-_STEP_S / correlation_time_s)
    noise = rng.standard_normal(n)
    noise[1:] *= np.sqrt(1.0 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise))


def with_wandering_rate(
    photons: Photons,
    *,
    rate_per_ns: float,
    log_sd_of_rate: float,
    correlation_time_s: float,
    pulse_ns: float,
    background_rate_per_s: float,
    rng: np.random.Generator,
) -> Photons:
    """Thin a recording without background by a rate that wanders, and add background.

    Parameters
    ----------
    photons
        Pulsed excitation, no background.
    rate_per_ns, log_sd_of_rate, correlation_time_s
        Median of the rate, per ns; of its logarithm, standard deviation and correlation time.
    pulse_ns
        Where the pulse is.
    background_rate_per_s
        To be added, flat in delay.
    rng
        Source of randomness.
    """
    assert photons.delay_ticks is not None
    assert photons.delay_tick_ns is not None
    assert photons.period_ns is not None
    assert photons.duration_s is not None
    assert photons.detector is not None
    x = wander(photons.duration_s, correlation_time_s, rng)
    time_s = photons.time_ticks * photons.tick_s
    delay_ns = photons.delay_ticks * photons.delay_tick_ns - pulse_ns
    delay_ns = np.where(delay_ns < -_EARLY_NS, delay_ns + photons.period_ns, delay_ns)
    rate = rate_per_ns * np.exp(log_sd_of_rate * x[(time_s / _STEP_S).astype(np.int64)])
    kept = rng.random(time_s.size) < np.exp(-rate * np.maximum(delay_ns, 0.0))
    n = rng.poisson(background_rate_per_s * photons.duration_s)
    ticks = rng.integers(0, int(photons.duration_s / photons.tick_s), n)
    delays = rng.integers(0, int(photons.period_ns / photons.delay_tick_ns), n)
    times = np.concatenate([photons.time_ticks[kept], ticks])
    order = np.argsort(times, kind="stable")
    return Photons(
        time_ticks=times[order],
        tick_s=photons.tick_s,
        detector=np.concatenate([photons.detector[kept], rng.integers(0, 2, n)]).astype(np.uint8)[
            order
        ],
        delay_ticks=np.concatenate([photons.delay_ticks[kept], delays]).astype(np.int32)[order],
        delay_tick_ns=photons.delay_tick_ns,
        period_ns=photons.period_ns,
        duration_s=photons.duration_s,
    )
