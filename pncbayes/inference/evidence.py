"""Evidence of a number of states by two methods: Laplace, and sampling.

Both work in coordinates in which the posterior is close to normal (`Coordinates`). The
importance sampler draws from a heavy-tailed density around every mode found, corrected for
overlap between the copies of a mode under exchange of states, and its weights are smoothed and
judged by Pareto's k [1]_. Where its first round is not enough and a state is surplus, the evidence
comes from how often a Gibbs sampler leaves a state unvisited (`pncbayes.inference.visits`).

References
----------
.. [1] Vehtari, A. et al. Pareto smoothed importance sampling. J. Mach. Learn. Res. 25, 1 (2024),
   doi:10.48550/arXiv.1507.02646.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.coordinates import Coordinates
from pncbayes.inference.gibbs import GibbsSampler
from pncbayes.inference.mixture import Component, Mixture
from pncbayes.inference.optimum import Mode, climb, curvature_at, settle
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.unvisited import Base, NewState
from pncbayes.inference.visits import evidence_by_visits

__all__ = ["MARGIN", "Evidence", "estimate_evidence", "quick_log_evidence"]

Array = NDArray[np.float64]

_MOST_PERMUTATIONS = 24
# bins that a state must hold, in the mean, for its parameters to be set by data
_VISITED_BINS = 5.0
# nats below the best at which a number of states no longer matters
MARGIN = 6.0
# rounds' worth of draws that the figure comes from once components were added
_FRESH = 3
# such batches at most, while the weights have a heavy tail
_BATCHES = 3
# effective draws that intervals need
_LEAST_DISTINCT = 100.0
# nats that the evidence with a state unvisited may lie below a quick figure of the rest, and be
# a part of the whole that counts: the quick figure is low
_SURPLUS = 3.0
# nats below the best at which a rough figure does
_NEGLIGIBLE = 4.0


@dataclass(frozen=True)
class Evidence:
    """Evidence of one number of states.

    Attributes
    ----------
    n_states
        Number of states.
    log_evidence
        The figure to use: by sampling where that was run, else Laplace.
    laplace, importance
        The two methods; `importance` is NaN where it was not run. To Laplace's approximation
        around the modes in which all states are visited is added what is known of the others.
    error
        Standard error of `log_evidence`; for Laplace, a rough bound.
    pareto_k, effective_draws
        Quality of the importance weights; by `gibbs`, NaN, and what its chains are worth.
    draws
        Equally weighted posterior draws in log coordinates, shape ``(n_draws, size)``; empty
        where importance sampling was not run.
    mode
        The best mode.
    method
        ``"importance"``, ``"gibbs"``, ``"rough"`` (importance weights not reliable) or
        ``"laplace"``.
    base
        What the model with one state more builds on.
    """

    n_states: int
    log_evidence: float
    laplace: float
    importance: float
    error: float
    pareto_k: float
    effective_draws: float
    draws: Array
    mode: Mode
    method: str
    base: Base | None = None


def quick_log_evidence(posterior: Posterior, mode: Mode) -> float:
    """Laplace with the curvature of the complete data: a lower, cheap figure for screening."""
    settle(posterior, mode)
    curvature = posterior.curvature(mode.vector, mode.parts)
    value = mode.log_density + 0.5 * mode.vector.size * np.log(2 * np.pi)
    return float(value - 0.5 * np.log(curvature).sum() + gammaln(posterior.n_states + 1))


def _component(posterior: Posterior, mode: Mode) -> tuple[Component, Mode]:
    hessian, slope, third = curvature_at(posterior, mode)
    values, vectors = np.linalg.eigh(hessian)
    if values[0] < 1e-3 * np.median(np.diag(hessian)) and values[0] < 0:
        # a saddle: leave it downhill on the negative side and climb again
        direction = vectors[:, 0]
        better = max(
            (
                climb(posterior, mode.vector + sign * 0.5 * direction, fixed=True)
                for sign in (-1.0, 1.0)
            ),
            key=lambda found: found.log_density,
        )
        if better.log_density > mode.log_density + 1e-3:
            mode = better
            hessian, slope, third = curvature_at(posterior, mode)
    coordinates = Coordinates.around(mode.vector, np.diag(hessian), third)
    tilt, bend = coordinates.tilt_and_curvature()
    curved = hessian + np.diag(bend - slope * coordinates.warp)
    values, vectors = np.linalg.eigh(curved)
    # no curvature, or the wrong one: about the width of the widest prior
    values = np.where(values > 1e-4, values, 0.03)
    shift = -(vectors / values) @ (vectors.T @ (slope + tilt))
    if not np.isfinite(coordinates.from_z(shift[None])).all():
        shift = np.zeros_like(shift)
    root = vectors / np.sqrt(values)
    inverse_root = (vectors * np.sqrt(values)).T
    log_determinant = -0.5 * float(np.log(values).sum())
    top = coordinates.from_z(shift[None])
    # at the concentration of the mode: summed over all, the density has a spike of no mass
    height = posterior.gradient(top[0])[0] - float(coordinates.to_z(top)[1][0])
    laplace = height + log_determinant + 0.5 * shift.size * np.log(2 * np.pi)
    return Component(coordinates, shift, root, inverse_root, log_determinant, laplace), mode


def _bright_to_dim(posterior: Posterior, mode: Mode) -> Mode:
    """The same mode with its states in order: all densities must label states alike."""
    settle(posterior, mode)
    rate = posterior.unpack(mode.vector).rate_per_s
    order = np.argsort(-rate, kind="stable")
    if (order == np.arange(order.size)).all():
        return mode
    vector = mode.vector[posterior.permutation(order)]
    posterior.focus(vector)
    value, _, parts = posterior.gradient(vector)
    return replace(mode, vector=vector, log_density=value, parts=parts)


def _concentrations(posterior: Posterior, mode: Mode, *, only: bool) -> list[Mode]:
    """The mode at each concentration of the decays that matters, found from one of them.

    `only`: the most probable one alone.
    """
    if not isinstance(posterior, CollapsedPosterior):
        return [mode]
    settle(posterior, mode)
    logs = posterior.concentration_weights(mode.vector, mode.parts)
    best = int(np.argmax(logs))
    picked = [best]
    if not only:
        # as far apart as the mass of the concentration is wide
        mass = np.exp(logs - logs[best])
        mean = (mass * posterior.log_grid).sum() / mass.sum()
        spread = np.sqrt((mass * (posterior.log_grid - mean) ** 2).sum() / mass.sum())
        if spread > 0.4:
            for target in (mean - 1.2 * spread, mean + 1.2 * spread):
                picked.append(int(np.argmin(np.abs(posterior.log_grid - target))))
    near = []
    for index in dict.fromkeys(picked):
        posterior.log_concentration = float(posterior.log_grid[index])
        near.append(climb(posterior, mode.vector, max_steps=25, fixed=True))
    return near


def _all_visited(posterior: Posterior, mode: Mode) -> bool:
    """Whether every state is entered at a mode: else nothing there is close to normal."""
    settle(posterior, mode)
    occupied_s = mode.parts.occupied_s
    entries = occupied_s @ posterior.unpack(mode.vector).transition_rate_per_s
    lowest_s = _VISITED_BINS * posterior.likelihood.width_s
    return bool((occupied_s >= lowest_s).all() and (entries >= 1.0).all())


def _laplace(
    posterior: Posterior, pairs: list[tuple[Component, Mode]], parts: Array, n_modes: int
) -> float:
    """Sum of the modes' Laplace figures; with delays, integrated over the concentration."""
    if not isinstance(posterior, CollapsedPosterior):
        return float(logsumexp(parts))
    figures = []
    for (_, mode), part in zip(pairs, parts, strict=True):
        settle(posterior, mode)
        logs = posterior.concentration_weights(mode.vector, mode.parts)
        here = np.interp(mode.log_concentration, posterior.log_grid, logs)
        figures.append(part + logsumexp(logs) - here + posterior.log_grid_step)
    # components of one mode at several concentrations are figures of one integral
    repeated = len(pairs) / n_modes
    return float(logsumexp(figures) - np.log(repeated))


def _exchanges(posterior: Posterior, component: Component) -> list[NDArray[np.intp]]:
    """Permutations of the states under which the component overlaps its own copy."""
    n_states = posterior.n_states
    top = component.draw(np.zeros((1, component.shift.size)))
    peak = component.log_density(top)[0]
    size = component.shift.size
    reach = 0.5 * (size + 6.0 * np.sqrt(size)) + 8.0
    while True:
        partner = list(range(n_states))
        for i, j in itertools.combinations(range(n_states), 2):
            order = np.arange(n_states)
            order[[i, j]] = order[[j, i]]
            swapped = component.log_density(top[:, posterior.permutation(order)])[0]
            if swapped > peak - reach:
                one, other = partner[i], partner[j]
                partner = [one if group == other else group for group in partner]
        groups = [
            [k for k in range(n_states) if partner[k] == group] for group in sorted(set(partner))
        ]
        if np.prod([float(math.factorial(len(group))) for group in groups]) <= _MOST_PERMUTATIONS:
            break
        reach *= 0.7
    exchanges = []
    for arrangement in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = np.empty(n_states, dtype=np.intp)
        for group, permuted in zip(groups, arrangement, strict=True):
            order[group] = permuted
        exchanges.append(posterior.permutation(order))
    return exchanges


def pareto_smooth(log_weights: Array) -> tuple[Array, float]:
    """Pareto-smoothed log weights and k, by ArviZ.

    Parameters
    ----------
    log_weights
        Log of the importance ratios, shape ``(n_draws,)``.
    """
    from arviz_stats.base.array import array_stats

    if np.ptp(np.sort(log_weights)[-len(log_weights) // 5 :]) < 1e-12:
        return log_weights, 0.0
    # ArviZ takes log-likelihoods, whose negatives are the ratios of leave-one-out
    smoothed, k = array_stats.psislw(-log_weights)  # type: ignore[no-untyped-call]
    return np.asarray(smoothed), float(k)


def estimate_evidence(
    posterior: Posterior,
    modes: list[Mode],
    rng: np.random.Generator,
    *,
    n_draws: int = 400,
    n_kept: int = 400,
    n_adaptations: int = 3,
    worth: float = -np.inf,
    base: Base | None = None,
    contested: bool = True,
) -> Evidence:
    """Evidence around all modes found.

    Parameters
    ----------
    posterior
        The density.
    modes
        Its modes, best first, distinct up to the order of states.
    rng
        Source of the draws.
    n_draws
        Importance draws of a round.
    n_kept
        Posterior draws to keep.
    n_adaptations
        Most further rounds, each with components added where the weights are large.
    worth
        Log evidence below which the importance sampler is not worth running; by convention six
        nats below the best figure so far.
    base
        The model with one state fewer, for draws with a state that is hardly visited.
    contested
        Whether another number of states may be as probable: else a rough figure does.
    """
    modes = [_bright_to_dim(posterior, mode) for mode in modes]
    labels = gammaln(posterior.n_states + 1)
    rough = np.array([quick_log_evidence(posterior, mode) for mode in modes])
    visited = np.array([_all_visited(posterior, mode) for mode in modes])
    surplus = None
    unvisited = -np.inf
    tried_visits = False
    if base is not None and not posterior.has_excess:
        surplus = NewState(base, posterior)
        unvisited = surplus.log_evidence_if_unvisited(rng)
        # where a state is surplus, modes and their curvatures are of no use; without delays there
        # are few parameters, and the importance sampler is fast and mostly enough
        seen = float(rough[visited].max()) if visited.any() else -np.inf
        many = posterior.n_gates > 1
        if many and max(unvisited, rough.max()) >= worth and unvisited > seen - _SURPLUS:
            tried_visits = True
            found_by_visits = _by_visits(
                surplus, posterior, modes, float(np.logaddexp(unvisited, seen)), rng, n_kept
            )
            if found_by_visits is not None:
                return found_by_visits
    pairs = [
        _component(posterior, near)
        for mode in modes
        for near in _concentrations(posterior, mode, only=len(modes) > 2)
    ]
    components = [component for component, _ in pairs]
    best = max((mode for _, mode in pairs), key=lambda mode: mode.log_density)
    if len(pairs) > len(modes):
        best = modes[0]
    parts = np.array([component.log_evidence for component in components])
    # a mode at the edge of what the parameters may be has no finite curvature
    parts = np.where(np.isfinite(parts), parts, rough.max())
    laplace = float(_laplace(posterior, pairs, parts, len(modes)) + labels)
    if surplus is not None:
        if not visited.all():
            held = [n for n, (_, mode) in enumerate(pairs) if _all_visited(posterior, mode)]
            laplace = -np.inf
            if held:
                some = [pairs[n] for n in held]
                repeated = max(round(len(held) * len(modes) / len(pairs)), 1)
                laplace = float(_laplace(posterior, some, parts[held], repeated) + labels)
        laplace = float(np.logaddexp(laplace, unvisited))
    highest = max(laplace, rough.max(), unvisited)
    if highest < worth:
        return Evidence(
            posterior.n_states, highest, laplace, np.nan, 0.5, np.nan, 0.0,
            np.empty((0, posterior.size)), best, "laplace",
        )  # fmt: skip
    shares = np.exp(parts - logsumexp(parts))
    # a mode whose Laplace figure is off must still be visited
    shares = 0.8 * shares + 0.2 / len(shares)
    # the best mode last: there nothing is lost by the bins left out
    others = [mode.vector for _, mode in pairs if mode is not best]
    posterior.focus(*others, best.vector)
    exchanges = _exchanges(posterior, components[0])
    sampler = Mixture(posterior, components, shares, exchanges, rng, surplus)
    for attempt in range(1 + n_adaptations):
        sampler.draw(n_draws)
        found = _weigh(sampler)
        behind = worth + MARGIN - found.log_mean - labels
        if _enough(found, behind) or attempt == n_adaptations:
            break
        if surplus is not None and not tried_visits:
            tried_visits = True
            found_by_visits = _by_visits(surplus, posterior, modes, laplace, rng, n_kept)
            if found_by_visits is not None:
                return found_by_visits
        if surplus is not None and behind > MARGIN and attempt:
            break
        # where one draw in twelve counts, more of the same are worth more than new components
        if found.effective < found.weights.size / 12:
            sampler.adapt(found.weights)
    if sampler.has_adapted and behind < 2.0 * MARGIN:
        # components put where the heaviest draws were make those draws look less heavy: the
        # figure has to come from draws that had no part in it
        sampler.start_afresh()
        for _ in range(_BATCHES if contested else 1):
            sampler.draw(_FRESH * n_draws)
            found = _weigh(sampler)
            behind = worth + MARGIN - found.log_mean - labels
            if _reliable(found) or behind > _NEGLIGIBLE:
                break
    importance, error = found.log_mean + float(labels), found.error
    if base is not None:
        # what the draws were built on is an estimate, too
        error = math.hypot(error, base.error * sampler.surplus_weight(found.weights))
    k, effective, weights = found.pareto_k, found.effective, found.weights
    keep = rng.choice(weights.size, size=n_kept, p=_spread(weights))
    reliable = _reliable(found) and sampler.any_inside
    if not sampler.any_inside:
        importance, error = np.nan, np.inf
    return Evidence(
        posterior.n_states,
        importance if sampler.any_inside else laplace,
        laplace,
        importance,
        error if reliable else (max(1.0, error) if np.isfinite(error) else 25.0),
        k,
        effective,
        sampler.points[keep],
        best,
        "importance" if reliable else "rough",
        Base(posterior, best, sampler.points.copy(), weights, found.log_mean, error)
        if np.isfinite(importance)
        else None,
    )


def _by_visits(
    surplus: NewState,
    posterior: Posterior,
    modes: list[Mode],
    laplace: float,
    rng: np.random.Generator,
    n_kept: int,
) -> Evidence | None:
    """Evidence from how often states are not visited; None where that does not give it."""
    if not GibbsSampler.can_sample(posterior):
        return None
    found = evidence_by_visits(surplus, [posterior.unpack(mode.vector) for mode in modes], rng)
    if found is None:
        return None
    points, size = found.points, len(found.points)
    keep = rng.choice(size, size=n_kept, replace=size < n_kept)
    weights = np.full(size, 1.0 / size)
    base = Base(posterior, modes[0], points.copy(), weights, found.log_mean, found.error)
    return Evidence(
        posterior.n_states,
        found.log_mean + float(gammaln(posterior.n_states + 1)),
        laplace,
        np.nan,
        found.error,
        np.nan,
        found.effective,
        points[keep],
        modes[0],
        "gibbs",
        base,
    )


@dataclass(frozen=True)
class _Weighed:
    """Importance weights and what they say of themselves."""

    weights: Array
    log_mean: float
    error: float
    pareto_k: float
    effective: float


def _weigh(sampler: Mixture) -> _Weighed:
    log_weights = sampler.log_weights()
    smoothed, k = pareto_smooth(log_weights)
    weights = np.exp(smoothed - logsumexp(smoothed))
    effective = float(1.0 / (weights**2).sum())
    # smoothing leaves all but the largest weights as they are: one of these gives the scale at
    # which the smoothed ones sum to the evidence; a lone huge weight no longer does alone
    middle = int(np.argsort(log_weights)[weights.size // 2])
    scale = float(log_weights[middle] - smoothed[middle] + logsumexp(smoothed))
    return _Weighed(
        weights,
        scale - float(np.log(weights.size)),
        float(np.sqrt(max(1.0 / effective - 1.0 / weights.size, 0.0))),
        k,
        effective,
    )


def _spread(weights: Array) -> Array:
    """Weights raised to the largest power up to one at which enough draws count.

    A posterior of a dozen distinct draws has intervals that are far too narrow; the density drawn
    from is wide, but near the posterior.
    """
    enough = min(_LEAST_DISTINCT, 0.5 * weights.size)
    logs = np.log(np.maximum(weights, 1e-300))
    logs -= logs.max()
    power = 1.0
    while True:
        tempered = np.exp(power * logs)
        tempered /= tempered.sum()
        if 1.0 / (tempered**2).sum() >= enough or power < 0.05:
            return tempered
        power *= 0.9


def _reliable(found: _Weighed) -> bool:
    """Whether the weights can be trusted: no heavy tail, or a tail that hardly counts."""
    even = found.effective > 0.5 * found.weights.size
    return bool((found.pareto_k < 0.7 or even) and found.effective > 20)


def _enough(found: _Weighed, behind: float) -> bool:
    """Whether the draws do, for a figure that many nats behind the best."""
    behind = max(behind, 0.0)
    # few effective draws make a figure low: not a reason to stop, however low it is
    if found.effective < 40 or found.error > 0.1 * np.exp(0.5 * behind):
        return False
    # k itself is uncertain: where most draws count, a large one is noise
    return found.pareto_k < 0.7 or found.effective > 0.5 * found.weights.size or behind > 2.0
