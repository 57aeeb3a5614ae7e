"""Draws and evidence of one kind of dynamics: climb, Laplace, adaptive importance sampling.

Draws are weighed ones from a mixture of multivariate t densities that is adapted to them [1]_,
smoothed and judged by Pareto's k [2]_, which also gives the evidence; Laplace's figure is beside
it.

References
----------
.. [1] Cornuet, J.-M. et al. Adaptive multiple importance sampling. Scand. J. Stat. 39, 798 (2012),
   doi:10.1111/j.1467-9469.2011.00756.x.
.. [2] Vehtari, A. et al. Pareto smoothed importance sampling. J. Mach. Learn. Res. 25, 1 (2024),
   doi:10.48550/arXiv.1507.02646.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp

from pncbayes.inference.ladder_posterior import LadderPosterior
from pncbayes.inference.weights import Weighed, are_reliable, weigh

__all__ = ["DwellPosterior", "climb", "sample"]

Array = NDArray[np.float64]

_DEGREES = 5.0
_MOST_ROUNDS = 4
_ENOUGH = 0.4
# Starts climbed for some steps, of which the highest is climbed to the top.
_N_CLIMBS, _SCREEN_STEPS, _MOST_STEPS = 2, 8, 60
# Climbs to the top, until one gains less than this, in nats.
_MOST_CLIMBS, _SETTLED = 5, 0.01
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class DwellPosterior:
    """Posterior and evidence of one kind of dynamics.

    Attributes
    ----------
    dynamics
        ``"ladder"``, ``"on_ladder"``, ``"off_ladder"`` or ``"exponential"``.
    draws
        One column per parameter, unit in the name, one row per draw.
    weights
        Of the draws, shape ``(n_draws,)``, sum 1.
    log_evidence, error
        In nats, and its standard error, by importance sampling.
    laplace
        Log evidence by Laplace's method.
    pareto_k, effective
        Of the weights: above 0.7 they are rough; number of draws that they are worth.
    """

    dynamics: str
    draws: pd.DataFrame
    weights: Array
    log_evidence: float
    error: float
    laplace: float
    pareto_k: float
    effective: float

    def quantile(self, name: str, probability: float) -> float:
        """Posterior quantile of a parameter."""
        values = self.draws[name].to_numpy(dtype=np.float64)
        order = np.argsort(values)
        # each draw in the middle of its own step
        steps = np.cumsum(self.weights[order]) - 0.5 * self.weights[order]
        return float(np.interp(probability, steps, values[order]))

    def table(self) -> pd.DataFrame:
        """Mean, standard deviation and quantiles, one row per parameter."""
        lines = []
        for name in self.draws:
            values = self.draws[name].to_numpy(dtype=np.float64)
            mean = float(values @ self.weights)
            sd = math.sqrt(float((values - mean) ** 2 @ self.weights))
            low, middle, high = (self.quantile(str(name), share) for share in _QUANTILES)
            lines.append(
                {"parameter": name, "mean": mean, "sd": sd, "q05": low, "median": middle,
                 "q95": high}
            )  # fmt: skip
        return pd.DataFrame(lines).set_index("parameter")


def climb(posterior: LadderPosterior, counts: Array) -> tuple[Array, float]:
    """Highest of the maxima that the best starts lead to."""
    starts = posterior.starts(counts)
    ranked = sorted(starts, key=posterior.value, reverse=True)
    scale = np.full(posterior.size, 0.2)
    scale[:2] = 2.0 / math.sqrt(counts.sum() + 4.0), 0.05

    # a little inside, so that differences to both sides exist
    low, high = posterior.bounds()
    low, high = low + 1e-3, high - 1e-3

    def ascend(start: Array, n_steps: int) -> tuple[Array, float]:
        def objective(step: Array) -> tuple[float, Array]:
            value, slope = posterior.gradient(start + step * scale)
            if not math.isfinite(value):
                return 1e30, np.zeros_like(step)
            return -value, -slope * scale

        climbed = minimize(
            objective, np.zeros(posterior.size), jac=True, method="L-BFGS-B",
            bounds=list(zip((low - start) / scale, (high - start) / scale, strict=True)),
            options={"maxiter": n_steps, "ftol": 1e-10, "gtol": 1e-2},
        )  # fmt: skip
        return start + climbed.x * scale, -float(climbed.fun)

    first = [ascend(start, _SCREEN_STEPS) for start in ranked[:_N_CLIMBS]]
    best = max(first, key=lambda found: found[1])
    for _ in range(_MOST_CLIMBS):
        before = best[1]
        best = ascend(best[0], _MOST_STEPS)
        if best[1] < before + _SETTLED:
            break
        # where the curvature of the last stretch misled, the next one starts without memory
    return best


def _covariance(posterior: LadderPosterior, top: Array) -> Array:
    """Inverse of the curvature at the mode, by differences of the gradient."""
    size = posterior.size
    hessian = np.empty((size, size))
    for i in range(size):
        step = 1e-3
        for _ in range(2):
            ahead, behind = top.copy(), top.copy()
            ahead[i] += step
            behind[i] -= step
            change = posterior.gradient(behind)[1] - posterior.gradient(ahead)[1]
            hessian[i] = change / (2.0 * step)
            # the second time by a share of what the first says is a standard deviation
            curvature = hessian[i, i] if np.isfinite(hessian[i, i]) else 1.0
            step = float(np.clip(0.3 / math.sqrt(max(curvature, 1e-3)), 1e-4, 0.1))
    hessian = np.where(np.isfinite(hessian), hessian, 0.0)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # as wide as the widest prior where there is no curvature
    values = np.where(values > 0.05, values, 0.3)
    return np.asarray((vectors / values) @ vectors.T)


@dataclass(frozen=True)
class _Proposal:
    """Multivariate t density."""

    centre: Array
    root: Array
    n_draws: int

    def draw(self, rng: np.random.Generator) -> Array:
        normal = rng.standard_normal((self.n_draws, self.centre.size))
        stretch = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, self.n_draws))
        drawn: Array = self.centre + (normal * stretch[:, None]) @ self.root.T
        return drawn

    def log_density(self, points: Array) -> Array:
        size = self.centre.size
        z = np.linalg.solve(self.root, (points - self.centre).T)
        log_norm = gammaln(0.5 * (_DEGREES + size)) - gammaln(0.5 * _DEGREES)
        log_norm -= 0.5 * size * math.log(_DEGREES * math.pi)
        log_norm -= float(np.log(np.diag(self.root)).sum())
        tail = np.log1p((z**2).sum(axis=0) / _DEGREES)
        density: Array = log_norm - 0.5 * (_DEGREES + size) * tail
        return density


def sample(
    posterior: LadderPosterior, top: tuple[Array, float], n_draws: int, rng: np.random.Generator
) -> tuple[DwellPosterior, bool]:
    """Weigh draws, moving the density they come from to where their weight is."""
    centre, height = top
    covariance = _covariance(posterior, centre)
    root = np.linalg.cholesky(covariance)
    laplace = height + 0.5 * posterior.size * math.log(2.0 * math.pi)
    laplace += float(np.log(np.diag(root)).sum())
    proposals: list[_Proposal] = []
    points, values = np.empty((0, posterior.size)), np.empty(0)
    found: Weighed | None = None
    while found is None or (
        len(proposals) < _MOST_ROUNDS
        and not (found.effective > _ENOUGH * n_draws and found.pareto_k < 0.7)
    ):
        if found is not None:
            centre = found.weights @ points
            spread = (points - centre) * np.sqrt(found.weights)[:, None]
            # few effective draws have too narrow a covariance: keep some of the last
            trust = found.effective / (found.effective + 4.0 * posterior.size)
            covariance = trust * (spread.T @ spread) + (1.0 - trust) * covariance
            root = np.linalg.cholesky(covariance)
        proposals.append(_Proposal(centre, root, n_draws))
        fresh = proposals[-1].draw(rng)
        points = np.vstack([points, fresh])
        values = np.append(values, [posterior.value(point) for point in fresh])
        logs = np.stack([one.log_density(points) for one in proposals])
        log_weights = values - logsumexp(logs, axis=0) + math.log(len(proposals))
        if not np.isfinite(log_weights).any():
            raise ValueError("no draw has a finite density: check that `counts` are photon counts")
        found = weigh(np.maximum(log_weights, log_weights.max() - 700.0))
    draws = pd.DataFrame([posterior.physical(point) for point in points])
    made = DwellPosterior(
        posterior.dynamics, draws, found.weights, found.log_mean, found.error, laplace,
        found.pareto_k, found.effective,
    )  # fmt: skip
    return made, are_reliable(found)
