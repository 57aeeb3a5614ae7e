"""Modes of the families of dynamics and their evidence, each begun from simpler ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pncbayes.hmm.flicker_grid import points_wanted
from pncbayes.hmm.product_likelihood import ProductGradient
from pncbayes.inference.dynamics_point import DynamicsPoint
from pncbayes.inference.dynamics_posterior import DynamicsPosterior

__all__ = [
    "Optimum", "climb", "evidence_at", "glance", "merged_levels", "residual_flicker",
    "seen_at",
]  # fmt: skip

Array = NDArray[np.float64]

_ROUNDS = 4
_SETTLED = 0.2
# Share of its switches that a climb may leave out of a pair of levels: rates are low by as much.
_LOOSE = 0.02
# Gains of the last round that a climb has to be behind, to be given up.
_GIVEN_UP = 4.0
# Gain of a step, in nats, below which a climb ends.
_TOLERANCE = 2e-3
# Curvature over that of known levels and flicker below which none is believed.
LEAST_CURVATURE = 1e-3
# Step of a finite difference over the scale of the coordinate.
_STEP = 0.05
# Lags of the residual autocorrelation, in bins, up to a share of the recording.
_LAGS_PER_DECADE = 5


@dataclass(frozen=True)
class Optimum:
    """A mode of one family and number of levels, and its evidence.

    Attributes
    ----------
    posterior
        The density.
    vector
        Its coordinates.
    log_density, log_likelihood
        There.
    quick_log_evidence
        As if levels and flicker were known: to tell what is not worth more.
    log_evidence
        By Laplace's approximation; NaN until it was worked out.
    hessian, prior_hessian
        Of minus the log density, and of minus the log prior (diagonal); None until then.
    spread
        Log densities that the starts ended at, below the best one.
    """

    posterior: DynamicsPosterior
    vector: Array
    log_density: float
    log_likelihood: float
    quick_log_evidence: float = np.nan
    log_evidence: float = np.nan
    hessian: Array | None = None
    prior_hessian: Array | None = None
    spread: tuple[float, ...] = ()

    @property
    def point(self) -> DynamicsPoint:
        """The parameters."""
        return self.posterior.unpack(self.vector)

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return self.posterior.n_levels


def _quasi_newton(
    posterior: DynamicsPosterior, origin: Array, parts: ProductGradient, max_steps: int
) -> tuple[Array, float]:
    scale = 1.0 / np.sqrt(posterior.curvature(origin, parts))
    low, high = posterior.bounds()

    def objective(step: Array) -> tuple[float, Array]:
        value, slope, _ = posterior.gradient(origin + step * scale)
        if not np.isfinite(value):
            return 1e30, np.zeros_like(step)
        return -value, -slope * scale

    lower = np.minimum((low - origin) / scale, -1e-9)
    upper = np.maximum((high - origin) / scale, 1e-9)
    found = minimize(
        objective, np.zeros_like(origin), jac=True, method="L-BFGS-B",
        bounds=list(zip(lower, upper, strict=True)),
        options={"maxiter": max_steps, "maxcor": 20, "gtol": 0.05,
                 "ftol": _TOLERANCE / max(abs(parts.value), 1.0)},
    )  # fmt: skip
    return origin + found.x * scale, -float(found.fun)


def glance(posterior: DynamicsPosterior, vector: Array, n_steps: int) -> tuple[float, Array]:
    """Log density after a few steps, and where; bins with switches are chosen once."""
    vector = np.clip(vector, *posterior.bounds())
    posterior.focus(vector, share=_LOOSE)
    _, _, parts = posterior.gradient(vector)
    vector, value = _quasi_newton(posterior, vector, parts, n_steps)
    return value, vector


def climb(
    posterior: DynamicsPosterior,
    vector: Array,
    *,
    max_steps: int = 60,
    rounds: int = _ROUNDS,
    most_points: int | None = None,
    floor: float = -np.inf,
    exact: bool = False,
) -> Optimum:
    """Climb to a maximum; the grid of the flicker is made as fine as the photons ask for.

    Parameters
    ----------
    posterior
        The density.
    vector
        Where to begin.
    max_steps, rounds
        Steps of a round, and rounds at most: bins with switches are chosen anew in each.
    most_points
        Points of the flicker at most: a coarse grid tells what is far behind.
    floor
        Quick figure of the evidence that has to be within reach for the climb to go on.
    exact
        Whether next to no switch may be left out.
    """
    share = 0.0 if exact else _LOOSE
    vector = np.clip(vector, *posterior.bounds())
    posterior.focus(vector, share=share)
    for number in range(rounds):
        before, _, parts = posterior.gradient(vector)
        # far from the top, bins and points that were chosen at the start mislead
        steps = max_steps if number else max_steps // 3
        vector, value = _quasi_newton(posterior, vector, parts, steps)
        reach = value + _GIVEN_UP * max(value - before, 1.0)
        if reach + _quick_volume(posterior, vector, parts) < floor:
            break
        wanted = _points_at(posterior, vector)
        wanted = wanted if most_points is None else min(wanted, most_points)
        if posterior.family.flicker and _differs(wanted, posterior.grid.n_points):
            posterior = posterior.with_points(wanted)
        elif value < before + _SETTLED:
            break
        posterior.focus(vector, share=share)
    return seen_at(posterior, vector)


def seen_at(posterior: DynamicsPosterior, vector: Array) -> Optimum:
    """What a place is worth, wherever a climb or a glance ended."""
    value, _, parts = posterior.gradient(vector)
    return Optimum(
        posterior, vector, float(value), parts.value,
        quick_log_evidence=float(value) + _quick_volume(posterior, vector, parts),
    )  # fmt: skip


def _quick_volume(posterior: DynamicsPosterior, vector: Array, parts: ProductGradient) -> float:
    """Log volume if levels and flicker were known: low, by about as much in all families."""
    half_log = 0.5 * float(np.log(posterior.curvature(vector, parts)).sum())
    labels = posterior.log_orders
    return 0.5 * vector.size * float(np.log(2.0 * np.pi)) - half_log + labels


def _points_at(posterior: DynamicsPosterior, vector: Array) -> int:
    if not posterior.family.flicker:
        return 1
    point = posterior.unpack(vector)
    rate = float(point.signal_per_s.sum(axis=1).max())
    amplitude = float(np.abs(point.amplitude).max())
    if posterior.family.flicker == "k_nr":
        factors = posterior.factors(point)
        assert factors is not None
        # standard deviation of the log brightness that it makes
        light = (factors.value[0] * posterior.data.base).sum(axis=1)
        logs = np.log(np.maximum(light, 1e-9))
        stationary = posterior.grid.stationary
        mean = float(stationary @ logs)
        amplitude = float(np.sqrt(stationary @ (logs - mean) ** 2))
    return points_wanted(amplitude, point.relaxation_rate_per_s, rate)


def _differs(wanted: int, present: int) -> bool:
    """Whether a grid is too coarse, or much finer than it has to be."""
    return wanted > 1.15 * present or wanted < 0.6 * present


def evidence_at(optimum: Optimum) -> Optimum:
    """Add Laplace's evidence; levels are exchangeable and counted once.

    Curvature is worked out for the brightness of levels, rates, flicker and noise. The shapes of
    decays have that of known levels: they are many, and next to nothing else depends on them.
    """
    posterior, vector = optimum.posterior, optimum.vector
    _, centre, parts = posterior.gradient(vector)
    diagonal = posterior.curvature(vector, parts)
    scale = 1.0 / np.sqrt(diagonal)
    directions = _directions(posterior, diagonal)
    size = vector.size
    products, prior = np.empty((directions.shape[0], size)), np.zeros(size)
    _, prior_centre = posterior.log_prior(vector)
    for row, direction in enumerate(directions):
        ahead = vector + _STEP * scale * direction
        products[row] = -(posterior.gradient(ahead)[1] - centre) * scale / _STEP
        slope = (posterior.log_prior(ahead)[1] - prior_centre) * scale / _STEP
        prior -= (slope @ direction) * direction**2
    # along single gates none of the directions goes
    _add_decays(posterior, vector, prior, diagonal)
    inner = products @ directions.T
    inner = 0.5 * (inner + inner.T)
    # in units of the scale: as if known, but for what was worked out
    scaled = np.eye(size) - directions.T @ directions + directions.T @ inner @ directions
    hessian = scaled / scale[:, None] / scale
    return replace(
        optimum,
        log_evidence=optimum.log_density + log_volume(hessian, scale) + posterior.log_orders,
        hessian=hessian,
        prior_hessian=prior * diagonal,
    )


def _add_decays(posterior: DynamicsPosterior, vector: Array, prior: Array, diagonal: Array) -> None:
    """Add the curvature that the prior of the decays has along each gate, in units of the scale."""
    data, n = posterior.data, posterior.n_levels
    if data.n_gates == 1:
        return
    signal = np.exp(vector[: n * data.n_gates]).reshape(n, data.n_gates)
    share = signal / signal.sum(axis=1, keepdims=True)
    gates = data.concentration * share * (1.0 - share)
    prior[: n * data.n_gates] += gates.ravel() / diagonal[: n * data.n_gates]


def _directions(posterior: DynamicsPosterior, diagonal: Array) -> Array:
    """Unit vectors, in units of the scale: brightness of each level, and all but the decays."""
    n_gates, n_levels, size = posterior.data.n_gates, posterior.n_levels, diagonal.size
    first = n_levels * n_gates
    directions = np.zeros((n_levels + size - first, size))
    for level in range(n_levels):
        gates = slice(level * n_gates, (level + 1) * n_gates)
        weight = np.sqrt(diagonal[gates])
        directions[level, gates] = weight / np.linalg.norm(weight)
    directions[n_levels:, first:] = np.eye(size - first)
    return directions


def log_volume(hessian: Array, scale: Array) -> float:
    """Log of the volume of a normal density of that curvature."""
    values = np.linalg.eigvalsh(hessian * scale[:, None] * scale)
    # a flicker leaves the brightness far less certain than known levels would; what is flat or
    # curved up beyond that has no more volume
    values = np.maximum(values, LEAST_CURVATURE)
    half_log = 0.5 * float(np.log(values).sum()) - float(np.log(scale).sum())
    return 0.5 * values.size * float(np.log(2.0 * np.pi)) - half_log


def merged_levels(point: DynamicsPoint, occupancy: Array, n_levels: int) -> DynamicsPoint:
    """Join neighbouring levels until so many are left: what flickers was taken for levels.

    Parameters
    ----------
    point
        Levels without flicker.
    occupancy
        Time in each, shape ``(n_levels,)``, any unit.
    n_levels
        How many to leave.
    """
    order = np.argsort(-point.signal_per_s.sum(axis=1), kind="stable")
    signal = point.signal_per_s[order]
    rates = point.transition_rate_per_s[np.ix_(order, order)]
    time = np.maximum(np.asarray(occupancy, dtype=float)[order], 1e-6)
    while len(signal) > n_levels:
        total = signal.sum(axis=1)
        # Ward's criterion on the log brightness
        apart = np.diff(np.log(np.maximum(total, 1e-3))) ** 2
        cost = apart * time[:-1] * time[1:] / (time[:-1] + time[1:])
        k = int(np.argmin(cost))
        a, b = time[k] / (time[k] + time[k + 1]), time[k + 1] / (time[k] + time[k + 1])
        signal[k] = a * signal[k] + b * signal[k + 1]
        rates[k] = a * rates[k] + b * rates[k + 1]
        rates[:, k] = rates[:, k] + rates[:, k + 1]
        time[k] += time[k + 1]
        keep = np.delete(np.arange(len(signal)), k + 1)
        signal, time = signal[keep], time[keep]
        rates = rates[np.ix_(keep, keep)].copy()
    rates = np.maximum(rates, 1e-3)
    np.fill_diagonal(rates, 0.0)
    return DynamicsPoint(signal, rates, np.empty(0))


def residual_flicker(totals: Array, expected: Array, width_s: float) -> tuple[float, float]:
    """Standard deviation and relaxation rate per s of what is left of the log brightness.

    From the autocorrelation of counts over what is expected of them, which shot noise has no part
    in: the one or two numbers to begin a search from.

    Parameters
    ----------
    totals, expected
        Counts per bin and their expectation under levels, shape ``(n_bins,)``.
    width_s
        Bin width in s.
    """
    weight = np.maximum(expected, 1e-9)
    residual = totals - expected
    longest = max(2, min(totals.size // 8, int(20.0 / width_s)))
    lags = np.unique(
        np.geomspace(1, longest, int(_LAGS_PER_DECADE * np.log10(longest)) + 2).astype(int)
    )
    values = np.array(
        [
            (residual[:-lag] * residual[lag:]).sum() / (weight[:-lag] * weight[lag:]).sum()
            for lag in lags
        ]
    )
    variance = float(np.max(values[:3]))
    if variance <= 1e-6:
        return 0.03, 1.0
    below = np.flatnonzero(values < variance / np.e)
    time_s = float(lags[below[0]] if below.size else lags[-1]) * width_s
    return float(np.sqrt(np.log1p(variance))), 1.0 / time_s
