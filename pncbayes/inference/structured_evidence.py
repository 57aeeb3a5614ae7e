"""Evidence and draws of a structured hypothesis: modes, walkers around each, importance weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from pncbayes.inference.structured import Bound, StructuredPosterior
from pncbayes.inference.structured_assigned import Assigned
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.inference.structured_search import (
    APART,
    EDGE,
    MODE_GAP,
    SHAPES,
    find_structured_modes,
    mode_near,
    that_count,
)
from pncbayes.inference.walkers import Walked, walk
from pncbayes.inference.weights import weigh

__all__ = ["StructuredEvidence", "structured_evidence"]

Array = NDArray[np.float64]

# Share of the photons that another assignment gives to other states.
_REASSIGNED = 0.02
# Other explanations of the same decays for walkers to begin at: how many, and steps towards each.
_AT_WALK = (6, 60)
# Moves of each walker per coordinate and emitter; points at which the full bound is known.
_SWEEPS, _WEIGHED = 100, 200
# Nats by which a draw may lie above the mode, or the search is taken up again from there.
_ABOVE, _RETAKES = 2.0, 3
# Nats behind the best hypothesis beyond which Laplace's figure will do.
_HOPELESS = 30.0
_NEVER, _FAR = -1e30, 1e3
# Rounds of working out the photons of a draw, and the gain at which they end, in nats.
_MOST_ROUNDS, _SETTLED_NATS = 12, 0.01


@dataclass(frozen=True, eq=False)
class StructuredEvidence:
    """What is known of one hypothesis with given numbers of levels.

    Attributes
    ----------
    posterior
        The density.
    log_evidence, error
        By walkers, a bridge and importance weights, and its standard error, in nats; Laplace's
        figure, and infinity, where the hypothesis lies far behind.
    laplace
        Log evidence by Laplace's method.
    draws
        Coordinates of equally weighted draws, shape ``(n, size)``. Emitters that are alike are in
        the order bright to dim.
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

    Around each mode the density in which it is settled which photons are from which state is
    sampled by walkers and integrated by a bridge; draws of it, weighed by the full bound over it,
    give evidence and draws of the posterior.

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
    given, posterior = posterior, CompiledPosterior(posterior)
    modes = find_structured_modes(posterior, rng)
    alike = float(np.log(posterior.model.n_alike))
    for retake in range(1 + _RETAKES):
        around = [_Around(posterior, group, rng) for group in _grouped(modes)]
        laplace = float(logsumexp([one.laplace for one in around]))
        top_z, top = modes[0]
        if laplace < best - _HOPELESS:
            draws = around[0].normal_draws(n_draws, rng)
            return StructuredEvidence(
                given, laplace + alike, np.inf, laplace + alike, draws, 0.0, np.inf, top, top_z
            )
        points, values, mixture, walked = _weighed_draws(posterior, around, rng)
        highest = int(np.argmax(values))
        if values[highest] < top.value + _ABOVE or retake == _RETAKES:
            break
        # the search had not arrived: walkers have found better
        modes = that_count([*modes, mode_near(posterior, points[highest], rng)])
    found = weigh(np.maximum(values, values.max() - _FAR) - mixture)
    chosen = rng.choice(len(points), size=n_draws, p=found.weights)
    return StructuredEvidence(
        given, found.log_mean + alike, float(np.hypot(found.error, walked.error)),
        laplace + alike, points[chosen], walked.effective * found.effective / len(points),
        found.pareto_k, top, top_z,
    )  # fmt: skip


def _weighed_draws(
    posterior: CompiledPosterior, around: list[_Around], rng: np.random.Generator
) -> tuple[Array, Array, Array, Walked]:
    """Draws, the full bound at each, and the log density that they are draws of."""
    for one in around:
        one.walk(rng)
    integrals = np.array([one.log_integral for one in around])
    shares = np.exp(integrals - logsumexp(integrals))
    numbers = rng.multinomial(_WEIGHED, shares)
    drawn = [one.draws(n, rng) for one, n in zip(around, numbers, strict=True)]
    points = np.vstack(drawn)
    values = np.array([
        _value(posterior, z, one.mode.photons)
        for one, own in zip(around, drawn, strict=True) for z in own
    ])  # fmt: skip
    # as draws of the mixture of all: where two overlap nothing counts twice
    logs = [one.assigned.value(points) - one.log_integral for one in around]
    mixture = logsumexp(np.array(logs) + np.log(shares + 1e-300)[:, None], axis=0)
    return points, values, mixture, around[int(np.argmax(shares))].walked


class _Around:
    """The posterior around modes that give the same photons to the same states."""

    def __init__(
        self,
        posterior: CompiledPosterior,
        modes: list[tuple[Array, Bound]],
        rng: np.random.Generator,
    ) -> None:
        self.z, self.mode = modes[0]
        self.assigned = Assigned(posterior, self.z, self.mode)
        self.assigned.weaken()
        points = [z for z, _ in modes]
        self._starts = self.assigned.to_straight(np.array([*points, *self._other_shapes(rng)]))
        self._covariance, log_determinant = self.assigned.curvature()
        size = len(self._covariance)
        light = float(self.assigned.light(self.z[None])[0])
        self.laplace = light + 0.5 * size * np.log(2.0 * np.pi) + 0.5 * log_determinant
        self.laplace += self.assigned.log_integral_of_rates

    def _other_shapes(self, rng: np.random.Generator) -> list[Array]:
        """Points near the modes of other explanations of the same decays, if they count."""
        n_kept, n_steps = _AT_WALK
        least = float(self.assigned.light(self.z[None])[0]) - MODE_GAP
        kept: list[Array] = []
        for start in self.assigned.other_shapes(self.z, SHAPES, n_kept, rng):
            point, value = self.assigned.climb(start, n_steps)
            if value > least and all(np.abs(point - z).max() > APART for z in (self.z, *kept)):
                kept.append(np.clip(point, -EDGE, EDGE))
        return kept

    def walk(self, rng: np.random.Generator) -> None:
        """Sample brightness and decays, and integrate over everything."""

        def log_density(own: Array) -> Array:
            return self.assigned.light(self.assigned.from_straight(own))

        n_sweeps = _SWEEPS * len(self._covariance) * self.assigned.posterior.model.n_emitters
        self.walked: Walked = walk(log_density, self._starts, self._covariance, n_sweeps, rng)
        self.log_integral = self.walked.log_integral + self.assigned.log_integral_of_rates

    def draws(self, n: int, rng: np.random.Generator) -> Array:
        """Draws of all coordinates."""
        chosen = rng.choice(len(self.walked.points), size=n, replace=False)
        return self._with_rates(self.walked.points[chosen], rng)

    def normal_draws(self, n: int, rng: np.random.Generator) -> Array:
        """Draws of Laplace's density."""
        across = np.linalg.cholesky(self._covariance)
        own = self._starts[0] + rng.standard_normal((n, len(across))) @ across.T
        return np.clip(self._with_rates(own, rng), -EDGE, EDGE)

    def _with_rates(self, own: Array, rng: np.random.Generator) -> Array:
        points = self.assigned.from_straight(own)
        points[:, self.assigned.of_rates] = self.assigned.draw_rates(len(own), rng)
        return points


def _grouped(modes: list[tuple[Array, Bound]]) -> list[list[tuple[Array, Bound]]]:
    """Modes by which photons they give to which states."""
    groups: list[list[tuple[Array, Bound]]] = []
    for mode in modes:
        for group in groups:
            moved = 0.5 * np.abs(group[0][1].photons - mode[1].photons).sum()
            if moved < _REASSIGNED * mode[1].photons.sum():
                group.append(mode)
                break
        else:
            groups.append([mode])
    return groups


def _value(posterior: StructuredPosterior, z: Array, photons: Array) -> float:
    """Full bound at a point, from photons of a bound nearby."""
    best = _NEVER
    for _ in range(_MOST_ROUNDS):
        found = posterior.bound(z, photons, with_slope=False)
        gain, best = found.value - best, max(best, found.value)
        if not gain > _SETTLED_NATS:
            break
        photons = found.photons
    return best
