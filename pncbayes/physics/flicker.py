r"""How a fluctuating quantity x, of mean 0 and variance 1, acts on the light of a level.

Each kind is a factor on the signal of a level in a delay gate, not on the background, and its
derivatives:

- ``common``: the brightness of all levels, decay unchanged: :math:`e^{s x - s^2/2}`, mean 1. It may
  be the emitter, the laser or the stage.
- ``level``: the same, with an amplitude :math:`s_k` of either sign of each level.
- ``k_nr``: a non-radiative rate at the band edge, :math:`k e^{s x}`, as many recombination centres
  that open and close make it [1]_. Against x = 0 a photon that comes at a delay t after the pulse
  has the factor :math:`\exp(-k (e^{s x} - 1) t)`: brightness and lifetime fall together, the
  amplitude at time zero stays.

References
----------
.. [1] Frantsuzov, P. A.; Volkan-Kacso, S.; Janko, B. Phys. Rev. Lett. 103, 207402 (2009),
   doi:10.1103/PhysRevLett.103.207402.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLICKERS", "DelayTable", "Factors", "brightness_factors", "rate_factors"]

Array = NDArray[np.float64]

FLICKERS = ("common", "level", "k_nr")

# Exponents beyond which a factor is held: no recording has such light.
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class Factors:
    """Factors on the signal, and their derivatives.

    Attributes
    ----------
    value
        Shape ``(n_levels or 1, n_points, n_gates or 1)``.
    by_amplitude
        Derivative by the amplitude s, of the level where there is one of each, same shape.
    by_rate
        Derivative by the non-radiative rate at x = 0, per ns; None for the brightness.
    """

    value: Array
    by_amplitude: Array
    by_rate: Array | None = None


@dataclass(frozen=True)
class DelayTable:
    """When the photons of each gate come after the pulse.

    Attributes
    ----------
    delay_ns
        Delays after the pulse, 0 where the response is, shape ``(n_gates, n_parts)``.
    weight
        Share of the photons of the gate, same shape, rows sum to 1.
    lifetime_ns
        Mean delay of all photons after the pulse, background taken off.
    """

    delay_ns: Array
    weight: Array
    lifetime_ns: float


def brightness_factors(points: Array, amplitude: Array) -> Factors:
    """Factors of a fluctuating brightness.

    Parameters
    ----------
    points
        x, shape ``(n_points,)``.
    amplitude
        Standard deviation of the log brightness, shape ``(n_levels,)``, or ``(1,)`` for all.
    """
    s = amplitude[:, None, None]
    x = points[None, :, None]
    value = np.exp(np.clip(s * x - 0.5 * s**2, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return Factors(value, value * (x - s))


def rate_factors(points: Array, amplitude: float, rate_per_ns: float, table: DelayTable) -> Factors:
    """Factors of a fluctuating non-radiative rate.

    Parameters
    ----------
    points
        x, shape ``(n_points,)``.
    amplitude
        Standard deviation s of the logarithm of the rate.
    rate_per_ns
        The rate at x = 0, per ns.
    table
        When the photons come.
    """
    grown = np.exp(np.clip(amplitude * points, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    added = rate_per_ns * (grown - 1.0)
    exponent = -added[:, None, None] * table.delay_ns
    parts = table.weight * np.exp(np.clip(exponent, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    value = parts.sum(axis=-1)
    by_added = -(parts * table.delay_ns).sum(axis=-1)
    by_amplitude = by_added * (rate_per_ns * grown * points)[:, None]
    by_rate = by_added * (grown - 1.0)[:, None]
    return Factors(value[None], by_amplitude[None], by_rate[None])
