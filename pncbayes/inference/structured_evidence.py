"""Evidence and draws of a structured hypothesis: modes, Laplace's figure, importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from pncbayes.inference.structured import (
    Bound,
    StructuredPosterior,
    coordinate_of,
)
from pncbayes.inference.weights import Weighed, weigh

__all__ = ["StructuredEvidence", "find_structured_modes", "structured_evidence"]

Array = NDArray[np.float64]

# Points looked at before any climb, climbs on a part of the data, and on all of it.
_LOOKS, _SHORT_CLIMBS, _CLIMBS = 150, 8, 3
# Bins of the part, in stretches.
_PART_BINS, _STRETCHES = 2000, 10
_SHORT_STEPS, _STEPS = 20, 60
_LONGEST_STEP, _EDGE, _CONVERGED = 1.5, 7.0, 0.003
# Nats below the best mode at which another no longer counts, and distance that makes another.
_MODE_GAP, _APART = 8.0, 1.0
_FREEDOM = 7.0
# Draws of the first round and of each later one, whose density is that of the draws before it,
# until the draws are worth enough.
_FIRST, _MORE, _MOST_ROUNDS, _ENOUGH = 200, 200, 6, 150.0
_HESSIAN_STEP = 0.02
# Priors that belong to a recording.
_OF_RECORDING = ("background_rate_per_s", "response_shift", "response_width")
_NEVER, _FAR = -1e30, 1e3
# Nats behind the best hypothesis beyond which the first draws are enough.
_HOPELESS = 30.0


@dataclass(frozen=True, eq=False)
class StructuredEvidence:
    """What is known of one hypothesis with given numbers of levels.

    Attributes
    ----------
    posterior
        The density.
    log_evidence, error
        By importance sampling, and its standard error, in nats.
    laplace
        Log evidence by Laplace's method.
    draws
        Coordinates of equally weighted draws, shape ``(n, size)``.
    effective
        What the weighted draws were worth.
    pareto_k
        Shape of the tail of the weights: below 0.7 for a result to be believed.
    mode
        Bound at the best point.
    mode_z
        That point, shape ``(size,)``.
    """

    posterior: StructuredPosterior
    log_evidence: float
    error: float
    laplace: float
    draws: Array
    effective: float
    pareto_k: float
    mode: Bound
    mode_z: Array


def structured_evidence(
    posterior: StructuredPosterior,
    rng: np.random.Generator,
    *,
    best: float = -np.inf,
    n_draws: int = 400,
) -> StructuredEvidence:
    """Work out the evidence of a hypothesis.

    Parameters
    ----------
    posterior
        Its density.
    rng
        Source of starts and draws.
    best
        Log evidence of the best hypothesis so far: of one far behind, Laplace's figure will do.
    n_draws
        Draws to return.
    """
    modes = find_structured_modes(posterior, rng)
    top_z, top = modes[0]
    parts, logs = [], []
    for z, mode in modes:
        covariance, log_determinant = _curvature(posterior, z, mode)
        size = posterior.size
        logs.append(mode.value + 0.5 * size * np.log(2.0 * np.pi) + 0.5 * log_determinant)
        parts.append((z, covariance))
    laplace = float(logsumexp(logs))
    pool = _Pool(posterior, top.photons, rng)
    pool.draw(_FIRST, parts, np.exp(np.array(logs) - laplace))
    found = pool.weigh()
    for _ in range(0 if laplace < best - _HOPELESS else _MOST_ROUNDS):
        pool.draw(_MORE, *_moments(pool.points, found.weights, parts))
        found = pool.weigh()
        if found.effective > _ENOUGH:
            break
    alike = float(np.log(posterior.model.n_alike))
    chosen = rng.choice(len(pool.points), size=n_draws, p=found.weights)
    return StructuredEvidence(
        posterior, found.log_mean + alike, found.error, laplace + alike, pool.points[chosen],
        found.effective, found.pareto_k, top, top_z,
    )  # fmt: skip


class _Pool:
    """Draws of several densities, weighed as draws of the mixture of all of them.

    References
    ----------
    Cornuet, J.-M. et al. Adaptive multiple importance sampling. Scand. J. Stat. 39, 798 (2012),
    doi:10.1111/j.1467-9469.2011.00756.x.
    """

    def __init__(
        self, posterior: StructuredPosterior, photons: Array, rng: np.random.Generator
    ) -> None:
        self.posterior, self.photons, self.rng = posterior, photons, rng
        self.points = np.empty((0, posterior.size))
        self.values = np.empty(0)
        self.densities: list[Any] = []
        self.shares: list[float] = []

    def draw(self, n: int, parts: list[tuple[Array, Array]], shares: Array) -> None:
        """Add draws of a mixture of densities of given centres and covariances."""
        own = [
            stats.multivariate_t(centre, spread, df=_FREEDOM, allow_singular=True)
            for centre, spread in parts
        ]
        numbers = self.rng.multinomial(n, shares)
        for density, number in zip(own, numbers, strict=True):
            if number == 0:
                continue
            points = density.rvs(number, random_state=self.rng).reshape(number, -1)
            values = [_value(self.posterior, z, self.photons) for z in points]
            self.points = np.vstack([self.points, points])
            self.values = np.append(self.values, values)
        self.densities += own
        self.shares += list(n * shares)

    def weigh(self) -> Weighed:
        """Weights of all draws."""
        shares = np.array(self.shares) / sum(self.shares)
        logs = [
            np.log(max(share, 1e-300)) + density.logpdf(self.points)
            for share, density in zip(shares, self.densities, strict=True)
        ]
        high = self.values.max()
        return weigh(np.maximum(self.values, high - _FAR) - logsumexp(logs, axis=0))


def _value(posterior: StructuredPosterior, z: Array, photons: Array) -> float:
    found = posterior.bound(z, photons, with_slope=False)
    if not np.isfinite(found.value):
        return _NEVER
    # once more with the photons of this very point: the tighter bound there
    again = posterior.bound(z, found.photons, with_slope=False, with_photons=False)
    return max(found.value, again.value)


def find_structured_modes(
    posterior: StructuredPosterior, rng: np.random.Generator
) -> list[tuple[Array, Bound]]:
    """Points and bounds of the best mode, and of others that count, best first."""
    part = _part(posterior)
    looks = _starts(posterior, rng)
    seen = [part.bound(z, part.no_photons(), with_slope=False).value for z in looks]
    short = []
    for place in np.argsort(seen)[::-1][:_SHORT_CLIMBS]:
        if np.isfinite(seen[place]):
            short.append(_climb(part, looks[place], _SHORT_STEPS))
    short.sort(key=lambda found: -found[1].value)
    modes: list[tuple[Array, Bound]] = []
    for z, _ in _distinct(short)[:_CLIMBS]:
        modes.append(_climb(posterior, z, _STEPS))
    modes.sort(key=lambda found: -found[1].value)
    return [m for m in _distinct(modes) if m[1].value > modes[0][1].value - _MODE_GAP]


def _distinct(found: list[tuple[Array, Bound]]) -> list[tuple[Array, Bound]]:
    kept: list[tuple[Array, Bound]] = []
    for z, bound in found:
        if all(np.abs(z - other).max() > _APART for other, _ in kept):
            kept.append((z, bound))
    return kept


def _part(posterior: StructuredPosterior) -> StructuredPosterior:
    """The same on a few stretches of a long recording."""
    counts = posterior.counts
    if len(counts) <= 1.5 * _PART_BINS:
        return posterior
    stretch = _PART_BINS // _STRETCHES
    starts = np.linspace(0, len(counts) - stretch, _STRETCHES).astype(np.int64)
    kept = counts[(starts[:, None] + np.arange(stretch)).ravel()]
    own = {
        name: posterior.priors[name]
        for name in ("background_rate_per_s", "response_shift", "response_width")
    }
    return StructuredPosterior(posterior.model, kept, posterior.width_s, posterior.recorder, own)


def _starts(posterior: StructuredPosterior, rng: np.random.Generator) -> Array:
    """Points to look at: parts from their priors, the exciton from the brightest bins."""
    totals = posterior.counts.sum(axis=1) / posterior.width_s
    window = max(1, int(np.ceil(30.0 / max(totals.mean() * posterior.width_s, 1e-9))))
    usable = len(totals) // window * window
    smooth = totals[:usable].reshape(-1, window).mean(axis=1) if usable else totals
    bright = smooth >= np.quantile(smooth, 0.8)
    own = posterior.counts[:usable].reshape(len(smooth), -1, posterior.counts.shape[1])
    decay = own.sum(axis=1)[bright].sum(axis=0)
    top = float(np.median(smooth[bright])) if bright.any() else float(totals.mean())
    table = posterior.recorder.table
    lifetimes = np.exp(np.linspace(np.log(0.3), np.log(60.0), 24))
    shapes = np.array([table.quenched(np.ones(1), np.array([t])) for t in lifetimes])
    mixed = shapes / shapes.sum(axis=1, keepdims=True) + 0.02 * table.background
    best = lifetimes[int(np.argmax(np.log(np.maximum(mixed, 1e-12)) @ decay))]
    points = rng.standard_normal((_LOOKS, posterior.size))
    # a brightest state that is not the exciton may be up to a few times brighter or dimmer
    for emitter in range(posterior.model.n_emitters):
        split = rng.dirichlet(np.ones(posterior.model.n_emitters), size=_LOOKS)[:, emitter]
        for key, centre, spread in (
            ("exciton_rate_per_s", top, 0.15), ("exciton_lifetime_ns", best, 0.2),
        ):  # fmt: skip
            name = posterior.model.exciton_parameter(key, emitter)
            place = posterior.names.index(name)
            factor = np.exp(spread * rng.standard_normal(_LOOKS))
            if key == "exciton_rate_per_s":
                factor *= split
            prior = posterior.priors[name]
            points[:, place] = [coordinate_of(prior, centre * f) for f in factor]
    for name in (
        "log_lifetime_spread",
        "biexciton_share",
        "scatter_share",
        "response_shift",
        "response_width",
    ):
        for place, own_name in enumerate(posterior.names):
            if own_name.endswith(name):
                points[:, place] *= 0.3
    points[:, len(posterior.names) :] *= 0.3
    return np.clip(points, -6.0, 6.0)


def _climb(posterior: StructuredPosterior, z: Array, n_steps: int) -> tuple[Array, Bound]:
    """Best point near a start, with its bound: damped steps in the metric of the complete data."""
    found = posterior.settled(z, posterior.no_photons())
    if not np.isfinite(found.value):
        return z, found
    damping, small = 1e-2, 0
    for _ in range(n_steps):
        metric = found.information + damping * np.diag(np.diag(found.information))
        step = np.linalg.solve(metric, found.slope)
        # no further than the prior is wide
        step *= min(1.0, _LONGEST_STEP / max(np.abs(step).max(), 1e-300))
        after = posterior.bound(np.clip(z + step, -_EDGE, _EDGE), found.photons)
        if after.value > found.value:
            small = small + 1 if after.value < found.value + _CONVERGED else 0
            z, found = np.clip(z + step, -_EDGE, _EDGE), after
            damping = max(damping / 5.0, 1e-6)
        else:
            damping = max(damping * 6.0, 1e-3)
        if small >= 3 or damping > 1e8:
            break
    return z, posterior.settled(z, found.photons)


def _curvature(posterior: StructuredPosterior, z: Array, mode: Bound) -> tuple[Array, float]:
    """Covariance of the normal density at a mode, and the logarithm of its determinant."""
    size = posterior.size
    hessian = np.empty((size, size))
    for i in range(size):
        step = np.zeros(size)
        step[i] = _HESSIAN_STEP
        ahead = posterior.settled(z + step, mode.photons).slope
        behind = posterior.settled(z - step, mode.photons).slope
        hessian[i] = (behind - ahead) / (2.0 * _HESSIAN_STEP)
    hessian = 0.5 * (hessian + hessian.T)
    values, vectors = np.linalg.eigh(hessian)
    # nothing is wider than the prior, whose curvature is 1; half of it for tails
    values = np.maximum(values, 0.5)
    return np.asarray((vectors / values) @ vectors.T), -float(np.log(values).sum())


def _moments(
    points: Array, weights: Array, parts: list[tuple[Array, Array]]
) -> tuple[list[tuple[Array, Array]], Array]:
    """Densities for the next round: one with the moments of the draws, and that of the mode."""
    effective = 1.0 / (weights**2).sum()
    # few draws know few directions: shrink to the density of the mode
    trust = effective / (effective + 2.0 * points.shape[1])
    centre = trust * (weights @ points) + (1.0 - trust) * parts[0][0]
    off = points - centre
    own = (weights[:, None] * off).T @ off
    spread = trust * own + (1.0 - trust) * parts[0][1]
    return [(centre, spread), parts[0]], np.array([0.8, 0.2])
