"""Densities of the mechanisms over brightness and lifetime, compiled.

u is the log of the brightness of a state over that of the reference, v that of its lifetime. The
priors are one array: slack, median and sigma of the radiative scaling, lowest and highest quantum
yield (`pncbayes.physics.mechanisms.MechanismPriors.packed`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "AUGER", "BACKGROUND", "HOT_CARRIER", "NBC", "N_LABELS", "OTHER", "UNRESOLVED", "U_HIGH",
    "U_LOW", "V_HIGH", "V_LOW", "add_log_prior", "charging_share", "log_allowed",
    "log_prior_given_brightness",
]  # fmt: skip

Array = NDArray[np.float64]

AUGER, HOT_CARRIER, NBC, UNRESOLVED, BACKGROUND, OTHER = range(6)
N_LABELS = 6
# the plane: brightness and lifetime over those of the reference
U_LOW, U_HIGH = math.log(0.003), math.log(3.0)
V_LOW, V_HIGH = math.log(0.001), math.log(1.5)
_OTHER_LOW = math.log(0.005)
# a state that is charged longer than this is a charged state
_MOST_CHARGED = 0.9
_NEVER = -1e300


@njit(cache=True, nogil=True, error_model="numpy")
def _log_normal_density(x: float, sd: float) -> float:
    return -0.5 * (x / sd) ** 2 - math.log(sd) - 0.9189385332046727


@njit(cache=True, nogil=True, error_model="numpy")
def _log_below(x: float) -> float:
    """Log of the probability that a standard normal number is below x."""
    if x > -30.0:
        return math.log(0.5 * math.erfc(-x * 0.7071067811865476))
    return -0.5 * x * x - math.log(-x) - 0.9189385332046727


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_given_brightness(label: int, u: float, v: float, prior: Array) -> float:
    """Log density of v given u; for Auger, times the probability that its rate is positive."""
    slack = prior[0]
    if label == HOT_CARRIER:
        return _log_normal_density(v, slack)
    if label == NBC:
        return _log_normal_density(u - v, slack)
    if label == AUGER:
        log_r = u - v
        sd = math.sqrt(prior[2] ** 2 + slack**2)
        # the extra rate that the lifetime shows has to hold the faster radiation: an Auger rate
        # of 0 or more needs a quantum yield of the exciton of at most this
        ratio, scaling = math.exp(-v) - 1.0, math.exp(log_r) - 1.0
        most = 1.0 if ratio > scaling else (ratio / scaling if ratio > 0.0 else 0.0)
        if scaling <= 0.0:
            most = 1.0 if ratio > 0.0 else 0.0
        allowed = (most - prior[3]) / (prior[4] - prior[3])
        if allowed <= 0.0:
            return _NEVER
        density = _log_normal_density(log_r - math.log(prior[1]), sd)
        return density + (math.log(allowed) if allowed < 1.0 else 0.0)
    if label == OTHER:
        return -math.log(V_HIGH - _OTHER_LOW) if v >= _OTHER_LOW else _NEVER
    return _NEVER


@njit(cache=True, nogil=True, error_model="numpy")
def charging_share(u: float, v: float, scaling: float) -> float:
    """Share of the time in which a state is charged that is as bright as u says; 0 if it cannot.

    The charged dot is a trion of lifetime v and brightness `scaling` times that.
    """
    bright, trion = math.exp(u), scaling * math.exp(v)
    if not (trion < bright < 1.0 and v >= _OTHER_LOW):
        return 0.0
    share = (1.0 - bright) / (1.0 - trion)
    return share if share < _MOST_CHARGED else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def log_allowed(label: int, u: float, prior: Array) -> float:
    """Log of the share of a mechanism that its brightness allows.

    Brightness has the same prior for all mechanisms, else that prior would choose between them;
    what a mechanism does not allow - a hot-carrier state brighter than the exciton - is lost, and
    makes no other mechanism more probable.
    """
    if label == HOT_CARRIER or label == NBC:
        # both lose light: brighter than the reference they are only by the slack
        return _log_below(-u / prior[0])
    if label == UNRESOLVED and charging_share(u, _OTHER_LOW, prior[1]) <= 0.0:
        return _NEVER
    return 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def add_log_prior(label: int, nodes: Array, prior: Array) -> None:
    """Add the log prior of a mechanism to the third column of nodes ``u, v, log weight``."""
    for k in range(nodes.shape[0]):
        if label != UNRESOLVED:
            nodes[k, 2] += log_prior_given_brightness(label, nodes[k, 0], nodes[k, 1], prior)
        nodes[k, 2] += log_allowed(label, nodes[k, 0], prior)
