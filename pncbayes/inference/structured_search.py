"""Search for the modes of a structured posterior: coarse data first, then all."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.alike import in_order
from pncbayes.inference.structured import Bound, StructuredPosterior
from pncbayes.inference.structured_assigned import Assigned
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.inference.structured_starts import exchanged, levels_seen, smaller, starts

__all__ = [
    "APART",
    "EDGE",
    "MODE_GAP",
    "SHAPES",
    "find_structured_modes",
    "mode_near",
    "that_count",
]

Array = NDArray[np.float64]

# Of each kind of starts: points looked at, and climbs from the best of them on coarse data; then
# those that go on, on coarse data and on all.
_LOOKS, _SHORT_CLIMBS, _BETTER, _CLIMBS = 200, 4, 4, 3
_SHORT_STEPS, _STEPS = 12, 15
# Climbs from other orders of the states by brightness than those have.
_OTHER_ORDERS = 3
# Difference of log levels that makes another start, and below which states may be mistaken.
_SAME_LEVELS, _CLOSE_LEVELS = 0.03, 0.12
# Nats behind the best climb on coarse data at which one does not go on.
_LOST = 60.0
_LONGEST_STEP, EDGE, _CONVERGED = 1.5, 7.0, 0.003
# Other shapes of decays drawn for each assignment of photons; how many of them are climbed from,
# and how far: where a start is made, on coarse data, and at the end.
SHAPES = 1000
_AT_START, _COARSE, _AT_END = (1, 40), (2, 60), (4, 150)
# Nats below the best mode at which another no longer counts, and distance that makes another.
MODE_GAP, APART = 8.0, 1.0


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
        _climb(part, _best_shape(part, z, bound, _COARSE, rng), _SHORT_STEPS)
        for z, bound in _distinct(short)[:_BETTER]
    ])  # fmt: skip
    z, bound = better[0]
    turned = [_climb(part, point, _SHORT_STEPS) for point in exchanged(part, z)]
    turned += [
        _climb(part, z, _SHORT_STEPS, photons) for photons in _relabelled(part, z, bound.photons)
    ]
    better = _distinct([*better, *turned])
    more = posterior.counts.sum() / part.counts.sum()
    modes = [
        mode_near(posterior, z, rng, more * bound.photons)
        for z, bound in better[:_CLIMBS] if bound.value > better[0][1].value - _LOST
    ]  # fmt: skip
    return that_count(modes)


def _relabelled(posterior: CompiledPosterior, z: Array, photons: Array) -> list[Array]:
    """Photons of the states with those of two changed over that differ little in brightness."""
    level = np.log(posterior.rates(z)[0].sum(axis=1))
    found = []
    for one, other in itertools.combinations(range(level.size), 2):
        if abs(level[one] - level[other]) < _CLOSE_LEVELS:
            order = np.arange(level.size)
            order[[one, other]] = other, one
            found.append(photons[order])
    return found


def that_count(modes: list[tuple[Array, Bound]]) -> list[tuple[Array, Bound]]:
    """Distinct modes that are not far below the best, best first."""
    modes = _distinct(modes)
    return [mode for mode in modes if mode[1].value > modes[0][1].value - MODE_GAP]


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
    gates, moves, _ = posterior.rates(in_order(posterior, z)[0])
    total = gates.sum(axis=1)
    shares, _ = totals.smooth(total[:, None], moves)
    light = shares * total
    photons = (light / light.sum(axis=1, keepdims=True)).T @ posterior.counts
    seconds = shares.sum(axis=0) * posterior.width_s
    nothing, size = np.zeros(posterior.size), posterior.size
    return _best_shape(
        posterior,
        in_order(posterior, z)[0],
        Bound(0.0, nothing, photons, seconds, np.eye(size)),
        _AT_START,
        rng,
    )


def _at_a_glance(posterior: StructuredPosterior, z: Array) -> float:
    first = posterior.first_photons(z)
    return posterior.bound(z, first, with_slope=False, with_photons=False).value


def mode_near(
    posterior: StructuredPosterior,
    z: Array,
    rng: np.random.Generator,
    photons: Array | None = None,
) -> tuple[Array, Bound]:
    """Mode of the full posterior near a point, and near photons of each state if they are given."""
    posterior = CompiledPosterior(posterior)
    found = _climb(posterior, z, _STEPS, photons)
    if not np.isfinite(found[1].value):
        return found
    # with the photons held where they are, a step can look better than it is
    better = _best_shape(posterior, *found, _AT_END, rng)
    return max(found, _climb(posterior, better, _STEPS, found[1].photons), key=_height)


def _height(found: tuple[Array, Bound]) -> float:
    return found[1].value


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
    others = assigned.other_shapes(z, SHAPES, n_kept, rng)
    found = [assigned.climb(start, n_steps) for start in (z, *others)]
    best, _ = max(found, key=lambda one: one[1])
    return np.clip(best, -EDGE, EDGE)


def _distinct(found: list[tuple[Array, Bound]]) -> list[tuple[Array, Bound]]:
    """Points that are far from all better ones, best first."""
    kept: list[tuple[Array, Bound]] = []
    for z, bound in sorted(found, key=_height, reverse=True):
        if all(np.abs(z - other).max() > APART for other, _ in kept):
            kept.append((z, bound))
    return kept


def _climb(
    posterior: StructuredPosterior, z: Array, n_steps: int, photons: Array | None = None
) -> tuple[Array, Bound]:
    """Best point near a start, with its bound: damped steps in the metric of the complete data.

    Emitters that are alike are in the order bright to dim. `photons`: of each state, to begin with.
    """
    if photons is None:
        z, _ = in_order(posterior, z)
        found = posterior.settled(z)
    else:
        found = posterior.bound(z, photons)
    if not np.isfinite(found.value):
        return z, found
    damping, small = 1e-2, 0
    for _ in range(n_steps):
        metric = found.information + damping * np.diag(np.diag(found.information))
        step = np.linalg.solve(metric, found.slope)
        # no further than the prior is wide
        step *= min(1.0, _LONGEST_STEP / max(np.abs(step).max(), 1e-300))
        after = posterior.bound(np.clip(z + step, -EDGE, EDGE), found.photons)
        if after.value > found.value:
            small = small + 1 if after.value < found.value + _CONVERGED else 0
            z, found = np.clip(z + step, -EDGE, EDGE), after
            damping = max(damping / 5.0, 1e-6)
        else:
            damping = max(damping * 6.0, 1e-3)
        if small >= 3 or damping > 1e8:
            break
    ordered, photons = in_order(posterior, z, found.photons)
    return ordered, posterior.settled(ordered, photons)
