r"""Where the mechanisms lie in the plane of brightness and lifetime, as lines to draw.

Brightness f and amplitude-averaged lifetime g are those of a state over those of the neutral
exciton, and R = f / g; the formulas are those of `pncbayes.physics.mechanisms`. Densities have the
same centres and widths (`pncbayes.physics.mechanism_kernels`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.mechanisms import MechanismPriors

__all__ = ["auger_band", "charging_region", "hot_carrier_band", "nbc_band", "scaling_range"]

Array = NDArray[np.float64]

# Down to where a state is dark, and where no lifetime is measured.
_DIMMEST, _FASTEST = 1e-3, 1e-3
# A state that is charged longer is a charged state.
_MOST_CHARGED = 0.9
_POINTS = 60


def scaling_range(priors: MechanismPriors) -> tuple[float, float]:
    """R of a trion, one sd (slack included) below and above its median."""
    sd = math.hypot(priors.scaling_sigma, priors.slack_median)
    return priors.scaling_median * math.exp(-sd), priors.scaling_median * math.exp(sd)


def auger_band(priors: MechanismPriors) -> Array:
    """Outline of R = m within one sd, up to an Auger rate of 0 at the lowest quantum yield.

    Returns
    -------
    ndarray
        Shape ``(n, 2)``: g and f along the outline.
    """
    ratios = np.geomspace(*scaling_range(priors), _POINTS)
    slowest = 1.0 / (1.0 + np.maximum(ratios - 1.0, 0.0) * priors.quantum_yield[0])
    lifetime = np.concatenate([[_FASTEST], slowest, [_FASTEST]])
    return np.column_stack([lifetime, lifetime * ratios[[0, *range(_POINTS), -1]]])


def hot_carrier_band(priors: MechanismPriors) -> Array:
    """Outline of g = 1 within the slack, for losses of light; shape ``(4, 2)`` as `auger_band`."""
    low, high = math.exp(-priors.slack_median), math.exp(priors.slack_median)
    return np.array([[low, _DIMMEST], [low, 1.0], [high, 1.0], [high, _DIMMEST]])


def nbc_band(priors: MechanismPriors) -> Array:
    """Outline of R = 1 within the slack, for losses of light; shape ``(4, 2)`` as `auger_band`."""
    low, high = math.exp(-priors.slack_median), math.exp(priors.slack_median)
    ends = [(_FASTEST, low), (1.0 / low, low), (1.0 / high, high), (_FASTEST, high)]
    return np.array([(lifetime, lifetime * ratio) for lifetime, ratio in ends])


def charging_region(priors: MechanismPriors) -> Array:
    r"""Outline of where states lie that are trions a share c of the time, within bins.

    With a trion of lifetime :math:`g_T`, :math:`f = 1 - c + c m g_T` and
    :math:`g = f / (1 - c + c m)`: the amplitude of a mixture is the mixture of the amplitudes. The
    outline has trions too fast to be seen on one side, and on the other those as bright as the
    exciton. A trion that the response hides leaves the exciton's decay alone: such a state is
    seen at g = 1, as a hot-carrier state is.

    Returns
    -------
    ndarray
        Shape ``(n, 2)``: g and f along the outline, from the exciton and back.
    """
    m = priors.scaling_median
    share = np.linspace(0.0, _MOST_CHARGED, _POINTS)
    trion = np.linspace(0.0, 1.0 / m, _POINTS)
    # down with the fastest trions, across at the largest share, back with the brightest
    c = np.concatenate([share, np.full(_POINTS, _MOST_CHARGED), share[::-1]])
    g_trion = np.concatenate([np.zeros(_POINTS), trion, np.full(_POINTS, 1.0 / m)])
    brightness = 1.0 - c + c * m * g_trion
    return np.column_stack([brightness / (1.0 - c + c * m), brightness])
