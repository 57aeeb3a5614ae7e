"""Evidence of one state with delays: all in closed form but for the base shape of its decay.

Without switches the photons of the state are known, its decay integrates out given base shape and
concentration, and its brightness is an integral in one dimension. What is left is drawn by
importance sampling: gates that hold few photons or none, whose shares have tails that no density
around a mode covers, are no trouble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.special import log_sum_exp
from pncbayes.inference.weights import Weighed, weigh

__all__ = ["OneState", "evidence_of_one_state"]

Array = NDArray[np.float64]

_DRAWS, _POINTS = 6000, 1000
# Concentrations are also drawn from their prior, and base shapes a little wider than they look.
_FROM_PRIOR, _NARROWER = 0.1, 0.9
# Grid of the log brightness: nats below the top at which it ends, and nodes.
_DEPTH, _NODES = 40.0, 4001


@dataclass(frozen=True)
class OneState:
    """Evidence of one state.

    Attributes
    ----------
    weighed
        Log of the evidence as its `log_mean`, and the quality of the importance weights.
    laplace
        Laplace's approximation, in the logarithms of brightness and base shape.
    points
        Posterior draws in log coordinates, shape ``(n, n_gates)``.
    """

    weighed: Weighed
    laplace: float
    points: Array


def evidence_of_one_state(posterior: CollapsedPosterior, rng: np.random.Generator) -> OneState:
    """Evidence and draws of one state, for Poisson counts in gates.

    Parameters
    ----------
    posterior
        The density.
    rng
        Source of the draws.
    """
    likelihood, decays = posterior.likelihood, posterior.decays
    photons = np.asarray(likelihood.gate_totals, dtype=np.float64)
    n_photons, duration_s = float(photons.sum()), likelihood.n_bins * likelihood.width_s
    # whatever the likelihood has besides brightness and decay
    one = np.full((1, photons.size), 1.0 / photons.size)
    constant = likelihood.value(one, np.zeros((1, 1)), None)
    constant += duration_s + n_photons * math.log(photons.size)

    prior = posterior.model.brightest_rate_per_s
    log_rate, log_of_rate = _brightness(n_photons, duration_s, prior.median, prior.sigma)
    step = log_rate[1] - log_rate[0]

    logs, top_base, curvature = decays.given_photons(photons[None])
    grid = np.exp(decays.log_grid)
    belief = np.exp(decays.log_prior - decays.log_prior.max())
    chance = np.exp(logs - logs.max())
    chance = (1.0 - _FROM_PRIOR) * chance / chance.sum() + _FROM_PRIOR * belief / belief.sum()
    cell = rng.choice(grid.size, size=_DRAWS, p=chance)
    # gamma densities of these shapes, each with its mode where that of the base shape is
    shape = (_NARROWER * curvature + (1.0 - _NARROWER) * decays.shape)[cell]
    log_scale = np.log(top_base[cell]) - np.log(shape)
    drawn = np.maximum(rng.standard_gamma(shape) * np.exp(log_scale), 1e-280)
    log_base = np.log(drawn) - np.log(drawn.sum(axis=1, keepdims=True))
    weight = grid[cell, None] * np.exp(log_base)
    weight = np.maximum(weight, 1e-290)
    log_weights = decays.log_prior[cell] + decays.log_step - np.log(chance[cell])
    log_weights += gammaln(grid[cell]) - gammaln(grid[cell] + n_photons)
    log_weights += (gammaln(weight + photons) - gammaln(weight)).sum(axis=1)
    log_weights += _log_dirichlet(log_base, np.full(photons.size, decays.shape))
    log_weights -= _log_dirichlet(log_base, shape, log_scale)
    of_brightness = constant + float(log_sum_exp(log_of_rate)) + math.log(step)
    weighed = weigh(log_weights + of_brightness)
    top = int(np.argmax(log_of_rate))
    stiff = prior.sigma**-2 + duration_s * math.exp(log_rate[top])
    laplace = constant + float(log_of_rate[top]) + 0.5 * math.log(2.0 * math.pi / stiff)
    laplace += float(log_sum_exp(logs)) + decays.log_step

    chosen = rng.choice(_DRAWS, size=_POINTS, p=weighed.weights)
    gates = np.maximum(rng.standard_gamma(weight[chosen] + photons), 1e-170)
    of_rate = np.exp(log_of_rate - log_of_rate.max())
    rate = rng.choice(log_rate, size=_POINTS, p=of_rate / of_rate.sum())
    rate = rate + step * (rng.random(_POINTS) - 0.5)
    points = np.log(gates / gates.sum(axis=1, keepdims=True)) + rate[:, None]
    return OneState(weighed, laplace, points)


def _brightness(
    n_photons: float, duration_s: float, median: float, sigma: float
) -> tuple[Array, Array]:
    """Grid of the log brightness, and the log density of the photons and it."""

    def log_density(log_rate: Any) -> Any:
        z = (log_rate - math.log(median)) / sigma
        value = -0.5 * z**2 - math.log(sigma * math.sqrt(2.0 * math.pi))
        return value + n_photons * log_rate - np.exp(log_rate) * duration_s

    found = minimize_scalar(
        lambda log_rate: -log_density(log_rate),
        bracket=(math.log(median), math.log((n_photons + 0.5) / duration_s)),
        tol=1e-12,
    )
    top, edges = float(found.x), []
    for side in (-1.0, 1.0):
        step = side / math.sqrt(n_photons + sigma**-2)
        edge = top + step
        while log_density(edge) > log_density(top) - _DEPTH:
            edge += step
        edges.append(edge)
    log_rate = np.linspace(edges[0], edges[1], _NODES)
    return log_rate, np.asarray(log_density(log_rate))


def _log_dirichlet(log_base: Array, shape: Array, log_scale: Array | float = 0.0) -> Array:
    """Log density of the logarithms of shares, of gamma variables over their sum, shape ``(n,)``.

    Without scales, Dirichlet. With them, of the sum of the logarithms: each gamma density, and the
    sum of all, of which only the shares are kept, integrated out.
    """
    logs = log_base - log_scale
    total = shape.sum(axis=-1)
    value = (shape * logs).sum(axis=-1) - total * log_sum_exp(logs)
    density: Array = value + gammaln(total) - gammaln(shape).sum(axis=-1)
    return density
