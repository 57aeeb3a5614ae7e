"""Evidence and draws of a structured hypothesis: modes, walkers around each, importance weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.structured import Bound, StructuredPosterior
from pncbayes.inference.structured_assigned import Assigned
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.inference.structured_starts import levels_seen, smaller, starts
from pncbayes.inference.walkers import Walked, walk
from pncbayes.inference.weights import weigh

__all__ = ["StructuredEvidence", "find_structured_modes", "mode_near", "structured_evidence"]

Array = NDArray[np.float64]

# Of each kind of starts: points looked at, and climbs from the best of them on coarse data; then
# those that go on, on coarse data and on all.
_LOOKS, _SHORT_CLIMBS, _BETTER, _CLIMBS = 200, 4, 4, 2
_SHORT_STEPS, _STEPS = 12, 15
# Climbs from other orders of the states by brightness than those have.
_OTHER_ORDERS = 3
# Difference of log levels that makes another start.
_SAME_LEVELS = 0.03
# Nats behind the best climb on coarse data at which one does not go on.
_LOST = 60.0
_LONGEST_STEP, _EDGE, _CONVERGED = 1.5, 7.0, 0.003
# Other shapes of decays drawn for each assignment of photons; how many of them are climbed from,
# and how far: where a start is made, on coarse data, at the end, and for walkers to begin at.
_SHAPES = 1000
_AT_START, _COARSE, _AT_END, _AT_WALK = (1, 40), (2, 60), (4, 150), (6, 60)
# Nats below the best mode at which another no longer counts, distance that makes another, and
# share of the photons that another assignment gives to other states.
_MODE_GAP, _APART, _REASSIGNED = 8.0, 1.0, 0.02
# Moves of each walker, for few coordinates and for many; points at which the full bound is known.
_SWEEPS, _MANY, _MORE_SWEEPS, _WEIGHED = 1000, 16, 1600, 200
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
        points, values, mixture, walked = _weighed_draws(posterior, around, top.photons, rng)
        highest = int(np.argmax(values))
        if values[highest] < top.value + _ABOVE or retake == _RETAKES:
            break
        # the search had not arrived: walkers have found better
        modes = _that_count([*modes, mode_near(posterior, points[highest], rng)])
    found = weigh(np.maximum(values, values.max() - _FAR) - mixture)
    chosen = rng.choice(len(points), size=n_draws, p=found.weights)
    return StructuredEvidence(
        given, found.log_mean + alike, float(np.hypot(found.error, walked.error)),
        laplace + alike, points[chosen], walked.effective * found.effective / len(points),
        found.pareto_k, top, top_z,
    )  # fmt: skip


def _weighed_draws(
    posterior: CompiledPosterior, around: list[_Around], photons: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array, Walked]:
    """Draws, the full bound at each, and the log density that they are draws of."""
    for one in around:
        one.walk(rng)
    integrals = np.array([one.log_integral for one in around])
    shares = np.exp(integrals - logsumexp(integrals))
    numbers = rng.multinomial(_WEIGHED, shares)
    points = np.vstack([one.draws(n, rng) for one, n in zip(around, numbers, strict=True)])
    values = np.array([_value(posterior, z, photons) for z in points])
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
        least = float(self.assigned.light(self.z[None])[0]) - _MODE_GAP
        kept: list[Array] = []
        for start in self.assigned.other_shapes(self.z, _SHAPES, n_kept, rng):
            point, value = self.assigned.climb(start, n_steps)
            if value > least and all(np.abs(point - z).max() > _APART for z in (self.z, *kept)):
                kept.append(np.clip(point, -_EDGE, _EDGE))
        return kept

    def walk(self, rng: np.random.Generator) -> None:
        """Sample brightness and decays, and integrate over everything."""

        def log_density(own: Array) -> Array:
            return self.assigned.light(self.assigned.from_straight(own))

        n_sweeps = _SWEEPS if len(self._covariance) <= _MANY else _MORE_SWEEPS
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
        return np.clip(self._with_rates(own, rng), -_EDGE, _EDGE)

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


def find_structured_modes(
    posterior: StructuredPosterior, rng: np.random.Generator
) -> list[tuple[Array, Bound]]:
    """Points and bounds of the best mode, and of others that count, best first.

    Emitters that are alike are in the order bright to dim.
    """
    posterior = CompiledPosterior(posterior)
    part = smaller(posterior)
    short: list[tuple[Array, Bound]] = []
    *by_levels, drawn = starts(part, levels_seen(part, rng), _LOOKS, rng)
    totals = BinnedLikelihood(part.counts.sum(axis=1), part.width_s)
    for looks in by_levels:
        for z in _best_of_totals(part, totals, looks):
            short.append(_climb(part, _by_totals(part, totals, z, rng), _SHORT_STEPS))
    seen = np.array([_at_a_glance(part, z) for z in drawn])
    for place in np.argsort(seen)[::-1][:_SHORT_CLIMBS]:
        if np.isfinite(seen[place]):
            short.append(_climb(part, drawn[place], _SHORT_STEPS))
    short = [found for found in short if np.isfinite(found[1].value)]
    if not short:
        raise ValueError(
            f"no parameters of the model {posterior.model.name!r} could have made these counts; "
            "check the priors of the model file against the brightness of the dot"
        )
    better = _distinct([
        _climb(part, _better_shape(part, z, _COARSE, rng), _SHORT_STEPS)
        for z, _ in _distinct(short)[:_BETTER]
    ])  # fmt: skip
    modes = [
        mode_near(posterior, z, rng)
        for z, bound in better[:_CLIMBS] if bound.value > better[0][1].value - _LOST
    ]  # fmt: skip
    return _that_count(modes)


def _that_count(modes: list[tuple[Array, Bound]]) -> list[tuple[Array, Bound]]:
    """Distinct modes that are not far below the best, best first."""
    modes = _distinct(modes)
    return [mode for mode in modes if mode[1].value > modes[0][1].value - _MODE_GAP]


def _best_of_totals(
    posterior: CompiledPosterior, totals: BinnedLikelihood, looks: Array
) -> list[Array]:
    """Points under which the total counts are most probable, whatever the decays; all different."""
    rates = [posterior.rates(z) for z in looks]
    levels = [np.log(gates.sum(axis=1)) for gates, _, _ in rates]
    values = np.array([
        totals.value(np.exp(level)[:, None], moves)
        for level, (_, moves, _) in zip(levels, rates, strict=True)
    ])  # fmt: skip
    kept: list[int] = []
    others: dict[tuple[int, ...], int] = {}
    for place in np.argsort(values)[::-1]:
        if not np.isfinite(values[place]):
            break
        # which states are the bright ones: totals hardly tell a chain of levels from its reverse
        order = tuple(np.argsort(levels[place]))
        if len(kept) == _SHORT_CLIMBS:
            others.setdefault(order, int(place))
        elif all(np.abs(levels[place] - levels[other]).max() > _SAME_LEVELS for other in kept):
            kept.append(int(place))
    seen = {tuple(np.argsort(levels[place])) for place in kept}
    more = [place for order, place in others.items() if order not in seen]
    return [looks[place] for place in [*kept, *more[:_OTHER_ORDERS]]]


def _by_totals(
    posterior: CompiledPosterior, totals: BinnedLikelihood, z: Array, rng: np.random.Generator
) -> Array:
    """The same levels with decays that fit the photons which the total counts give to each."""
    gates, moves, _ = posterior.rates(_in_order(posterior, z))
    total = gates.sum(axis=1)
    shares, _ = totals.smooth(total[:, None], moves)
    light = shares * total
    photons = (light / light.sum(axis=1, keepdims=True)).T @ posterior.counts
    seconds = shares.sum(axis=0) * posterior.width_s
    nothing, size = np.zeros(posterior.size), posterior.size
    return _best_shape(
        posterior,
        _in_order(posterior, z),
        Bound(0.0, nothing, photons, seconds, np.eye(size)),
        _AT_START,
        rng,
    )


def _at_a_glance(posterior: StructuredPosterior, z: Array) -> float:
    first = posterior.first_photons(z)
    return posterior.bound(z, first, with_slope=False, with_photons=False).value


def mode_near(
    posterior: StructuredPosterior, z: Array, rng: np.random.Generator
) -> tuple[Array, Bound]:
    """Mode of the full posterior near a point."""
    posterior = CompiledPosterior(posterior)
    found = _climb(posterior, z, _STEPS)
    # with the photons held where they are, a step can look better than it is
    other = _climb(posterior, _better_shape(posterior, found[0], _AT_END, rng), _STEPS)
    return max(found, other, key=_height)


def _height(found: tuple[Array, Bound]) -> float:
    return found[1].value


def _better_shape(
    posterior: CompiledPosterior, z: Array, effort: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Best point for the photons of each state, among several shapes of decays."""
    bound = posterior.settled(z)
    return _best_shape(posterior, z, bound, effort, rng) if np.isfinite(bound.value) else z


def _best_shape(
    posterior: CompiledPosterior,
    z: Array,
    bound: Bound,
    effort: tuple[int, int],
    rng: np.random.Generator,
) -> Array:
    """Best point for photons of each state that are known, among several shapes of decays."""
    assigned = Assigned(posterior, z, bound)
    n_kept, n_steps = effort
    others = assigned.other_shapes(z, _SHAPES, n_kept, rng)
    found = [assigned.climb(start, n_steps) for start in (z, *others)]
    best, _ = max(found, key=lambda one: one[1])
    return np.clip(best, -_EDGE, _EDGE)


def _in_order(posterior: StructuredPosterior, z: Array) -> Array:
    """The same point with the brighter of two emitters first."""
    model, names = posterior.model, posterior.names
    if model.n_emitters < 2:
        return z
    places = [names.index(f"emitter_{e}_exciton_rate_per_s") for e in (1, 2)]
    if z[places[0]] >= z[places[1]]:
        return z
    swapped = z.copy()
    for place, name in enumerate(names):
        for one, other in (("emitter_1_", "emitter_2_"), ("emitter_2_", "emitter_1_")):
            if name.startswith(one):
                swapped[names.index(name.replace(one, other))] = z[place]
    swapped[len(names) :] = posterior.deviations(z)[::-1].ravel()
    return swapped


def _distinct(found: list[tuple[Array, Bound]]) -> list[tuple[Array, Bound]]:
    """Points that are far from all better ones, best first."""
    kept: list[tuple[Array, Bound]] = []
    for z, bound in sorted(found, key=_height, reverse=True):
        if all(np.abs(z - other).max() > _APART for other, _ in kept):
            kept.append((z, bound))
    return kept


def _climb(posterior: StructuredPosterior, z: Array, n_steps: int) -> tuple[Array, Bound]:
    """Best point near a start, with its bound: damped steps in the metric of the complete data.

    Emitters that are alike are in the order bright to dim.
    """
    z = _in_order(posterior, z)
    found = posterior.settled(z)
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
    ordered, photons = _in_order(posterior, z), found.photons
    if ordered is not z:
        states = posterior.model.configurations.tolist()
        photons = photons[[states.index(state[::-1]) for state in states]]
    return ordered, posterior.settled(ordered, photons)
