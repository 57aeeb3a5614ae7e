"""Evidence of a number of states by two methods: Laplace and importance sampling.

Both work in coordinates in which the posterior is close to normal (`Coordinates`). The
importance sampler draws from a heavy-tailed density around every mode found, corrected for
overlap between the copies of a mode under exchange of states, and its weights are smoothed and
judged by Pareto's k [1]_.

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
from pncbayes.inference.optimum import Mode, climb, curvature_at, settle
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.unvisited import Base, Unvisited

__all__ = ["MARGIN", "Component", "Evidence", "estimate_evidence", "quick_log_evidence"]

Array = NDArray[np.float64]

_DEGREES = 20.0
# log of Student's t density at zero
_LOG_T = float(
    gammaln(0.5 * (_DEGREES + 1)) - gammaln(0.5 * _DEGREES) - 0.5 * np.log(np.pi * _DEGREES)
)
_MOST_PERMUTATIONS = 24
# nats below the best at which a number of states no longer matters
MARGIN = 6.0
# rounds' worth of draws that the figure comes from once components were added
_FRESH = 3
# share of the draws with one unvisited state, and with more
_SURPLUS = 0.35
_MUCH_SURPLUS = 0.6
# width of an added component over that of the one it grew from
_NARROWER = 0.8


@dataclass(frozen=True)
class Component:
    """A mode with its local shape: a density to draw from, and a Laplace approximation.

    Attributes
    ----------
    coordinates
        The map to coordinates z in which the posterior is close to normal.
    shift
        Centre in z, shape ``(size,)``.
    root, inverse_root
        Square root of the covariance in z and its inverse, shape ``(size, size)``.
    log_determinant
        Log of the determinant of `root`.
    log_evidence
        Laplace approximation of the integral around this mode alone.
    """

    coordinates: Coordinates
    shift: Array
    root: Array
    inverse_root: Array
    log_determinant: float
    log_evidence: float

    def draw(self, noise: Array) -> Array:
        """Log coordinates from standard noise, shape ``(n, size)``; NaN outside the support."""
        return self.coordinates.from_z(self.shift + noise @ self.root.T)

    def moved(self, point: Array) -> Component:
        """Return a component of the same shape, somewhat narrower, around another point."""
        return Component(
            self.coordinates,
            self.coordinates.to_z(point[None])[0][0],
            self.root * _NARROWER,
            self.inverse_root / _NARROWER,
            self.log_determinant + point.size * np.log(_NARROWER),
            -np.inf,
        )

    def log_density(self, points: Array) -> Array:
        """Log density of the drawing distribution at log coordinates, shape ``(n, size)``."""
        return self.log_density_at(*self.coordinates.to_z(points))

    def log_density_at(self, z: Array, log_slope: Array) -> Array:
        """Log density where z and the log of dz/dy are known, shape ``(n,)``."""
        with np.errstate(over="ignore", invalid="ignore"):
            noise = (z - self.shift) @ self.inverse_root.T
            tails = np.log1p(noise**2 / _DEGREES).sum(axis=1)
            value = self.shift.size * _LOG_T - 0.5 * (_DEGREES + 1.0) * tails
            value = value - self.log_determinant + log_slope
        return np.where(np.isfinite(value), value, -np.inf)


@dataclass(frozen=True)
class Evidence:
    """Evidence of one number of states.

    Attributes
    ----------
    n_states
        Number of states.
    log_evidence
        The figure to use: importance sampling where it is reliable, else Laplace.
    laplace, importance
        The two methods; `importance` is NaN where it was not run.
    error
        Standard error of `log_evidence`; for Laplace, a rough bound.
    pareto_k, effective_draws
        Quality of the importance weights.
    draws
        Equally weighted posterior draws in log coordinates, shape ``(n_draws, size)``; empty
        where importance sampling was not run.
    mode
        The best mode.
    method
        ``"importance"``, ``"rough"`` (importance weights not reliable) or ``"laplace"``.
    base
        What models with more states build on.
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
        A model with fewer states, for draws with states that are never visited.
    """
    modes = [_bright_to_dim(posterior, mode) for mode in modes]
    pairs = [
        _component(posterior, near)
        for mode in modes
        for near in _concentrations(posterior, mode, only=len(modes) > 2)
    ]
    components = [component for component, _ in pairs]
    best = max((mode for _, mode in pairs), key=lambda mode: mode.log_density)
    if len(pairs) > len(modes):
        best = modes[0]
    labels = gammaln(posterior.n_states + 1)
    parts = np.array([component.log_evidence for component in components])
    # a mode at the edge of what the parameters may be has no finite curvature
    rough = np.array([quick_log_evidence(posterior, mode) for mode in modes])
    parts = np.where(np.isfinite(parts), parts, rough.max())
    laplace = float(_laplace(posterior, pairs, parts, len(modes)) + labels)
    quick = max(quick_log_evidence(posterior, mode) for mode in modes)
    if max(laplace, quick) < worth:
        laplace = max(laplace, quick)
        return Evidence(
            posterior.n_states, laplace, laplace, np.nan, 0.5, np.nan, 0.0,
            np.empty((0, posterior.size)), best, "laplace",
        )  # fmt: skip
    shares = np.exp(parts - logsumexp(parts))
    # a mode whose Laplace figure is off must still be visited
    shares = 0.8 * shares + 0.2 / len(shares)
    # the best mode last: there nothing is lost by the bins left out
    others = [mode.vector for _, mode in pairs if mode is not best]
    posterior.focus(*others, best.vector)
    exchanges = _exchanges(posterior, components[0])
    surplus = None
    if base is not None and not posterior.has_excess:
        if base.posterior.n_states < posterior.n_states:
            surplus = Unvisited(base, posterior)
    sampler = _Mixture(posterior, components, shares, exchanges, rng, surplus)
    for attempt in range(1 + n_adaptations):
        sampler.draw(n_draws)
        found = _weigh(sampler)
        if _enough(found, worth + MARGIN - found.log_mean - labels) or attempt == n_adaptations:
            break
        # where one draw in twelve counts, more of the same are worth more than new components
        if found.effective < found.weights.size / 12:
            sampler.adapt(found.weights)
    if sampler.has_adapted:
        # components put where the heaviest draws were make those draws look less heavy: the
        # figure has to come from draws that had no part in it
        sampler.start_afresh()
        sampler.draw(_FRESH * n_draws)
        found = _weigh(sampler)
    importance, error = found.log_mean + float(labels), found.error
    k, effective, weights = found.pareto_k, found.effective, found.weights
    keep = rng.choice(weights.size, size=n_kept, p=weights)
    even = effective > 0.5 * weights.size
    reliable = bool((k < 0.7 or even) and effective > 20 and sampler.any_inside)
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
        Base(posterior, best, components[int(np.argmax(parts))]),
    )


@dataclass(frozen=True)
class _Weighed:
    """Importance weights and what they say of themselves."""

    weights: Array
    log_mean: float
    error: float
    pareto_k: float
    effective: float


def _weigh(sampler: _Mixture) -> _Weighed:
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


def _enough(found: _Weighed, behind: float) -> bool:
    """Whether the draws do, for a figure that many nats behind the best."""
    behind = max(behind, 0.0)
    # few effective draws make a figure low: not a reason to stop, however low it is
    if found.effective < 40 or found.error > 0.1 * np.exp(0.5 * behind):
        return False
    # k itself is uncertain: where most draws count, a large one is noise
    return found.pareto_k < 0.6 or found.effective > 0.5 * found.weights.size or behind > 2.0


class _Mixture:
    """Density to draw from: a mixture of components that grows where the weights are large.

    Incremental mixture importance sampling [1]_: after each round a component is added around
    the draws of largest weight, and all draws are reweighted against the whole mixture.

    References
    ----------
    .. [1] Raftery, A. E.; Bao, L. Estimating and projecting trends in HIV/AIDS generalized
       epidemics using incremental mixture importance sampling. Biometrics 66, 1162 (2010),
       doi:10.1111/j.1541-0420.2010.01399.x.
    """

    def __init__(
        self,
        posterior: Posterior,
        components: list[Component],
        shares: Array,
        exchanges: list[NDArray[np.intp]],
        rng: np.random.Generator,
        surplus: Unvisited | None = None,
    ) -> None:
        self.posterior, self.rng, self.exchanges = posterior, rng, exchanges
        self.surplus = surplus
        self._surplus_drawn = 0.0
        self._log_surplus = np.empty(0)
        self.components: list[Component] = []
        self.drawn: list[float] = []
        self.points = np.empty((0, posterior.size))
        self._log_posterior = np.empty(0)
        self._log_component: list[Array] = []
        # coordinates of all draws, by map and exchange: dear, and shared by many components
        self._mapped: dict[int, list[tuple[Array, Array]]] = {}
        self._next = self._given = shares / shares.sum()
        self._n_given = len(components)
        for component in components:
            self._add(component)

    def _add(self, component: Component) -> None:
        self.components.append(component)
        self.drawn.append(0.0)
        key = id(component.coordinates)
        if key not in self._mapped:
            self._mapped[key] = self._map(component.coordinates, self.points)
        self._log_component.append(self._evaluate(component, self._mapped[key]))

    def _map(self, coordinates: Coordinates, points: Array) -> list[tuple[Array, Array]]:
        return [coordinates.to_z(points[:, order]) for order in self.exchanges]

    def _evaluate(self, component: Component, mapped: list[tuple[Array, Array]]) -> Array:
        values = [component.log_density_at(*one) for one in mapped]
        # the sum over the orders that lead to one point, ordered from bright to dim
        density: Array = logsumexp(np.array(values), axis=0)
        return density

    def draw(self, n_draws: int) -> None:
        """Draw from the components in the shares of the moment."""
        n_surplus = 0
        if self.surplus is not None:
            n_surplus = int((_SURPLUS if self.surplus.n_new == 1 else _MUCH_SURPLUS) * n_draws)
        which = self.rng.choice(
            len(self._next), size=n_draws - n_surplus, p=self._next / self._next.sum()
        )
        noise = self.rng.standard_t(_DEGREES, size=(which.size, self.posterior.size))
        points = np.empty_like(noise)
        for index, component in enumerate(self.components):
            points[which == index] = component.draw(noise[which == index])
        if self.surplus is not None:
            points = np.vstack([points, self.surplus.draw(n_surplus, self.rng, _DEGREES)])
        inside = np.isfinite(points).all(axis=1)
        values = np.full(n_draws, -np.inf)
        for n in np.flatnonzero(inside):
            values[n] = self.posterior.log_density(points[n])
        # what falls outside the support has weight zero, but counts as drawn
        points[~inside] = self.components[0].coordinates.centre
        self.points = np.vstack([self.points, points])
        self._log_posterior = np.concatenate([self._log_posterior, values])
        fresh: dict[int, list[tuple[Array, Array]]] = {}
        for index, component in enumerate(self.components):
            key = id(component.coordinates)
            if key not in fresh:
                fresh[key] = self._map(component.coordinates, points)
                self._mapped[key] = [
                    (np.vstack([old[0], new[0]]), np.concatenate([old[1], new[1]]))
                    for old, new in zip(self._mapped[key], fresh[key], strict=True)
                ]
            self._log_component[index] = np.concatenate(
                [self._log_component[index], self._evaluate(component, fresh[key])]
            )
            self.drawn[index] += which.size * float(self._next[index] / self._next.sum())
        if self.surplus is not None:
            self._surplus_drawn += n_surplus
            self._log_surplus = np.concatenate(
                [self._log_surplus, self.surplus.log_density(points)]
            )

    @property
    def any_inside(self) -> bool:
        """Whether any draw fell where the posterior density is not zero."""
        return bool(np.isfinite(self._log_posterior).any())

    def log_weights(self) -> Array:
        """Log of posterior density over mixture density at every draw."""
        total = np.sum(self.drawn) + self._surplus_drawn
        shares = np.log(np.maximum(self.drawn, 1e-300)) - np.log(total)
        mixture = logsumexp(np.array(self._log_component) + shares[:, None], axis=0)
        if self.surplus is not None:
            share = np.log(self._surplus_drawn) - np.log(total)
            mixture = np.logaddexp(mixture, self._log_surplus + share)
        weights = self._log_posterior - mixture
        fine = np.isfinite(weights)
        # as good as zero, but finite: smoothing cannot work on minus infinity
        lowest = weights[fine].max() - 1e3 if fine.any() else 0.0
        return np.where(fine, np.maximum(weights, lowest), lowest)

    @property
    def has_adapted(self) -> bool:
        """Whether components were added."""
        return len(self.components) > self._n_given

    def start_afresh(self) -> None:
        """Forget all draws, keep the components, and draw from given and added ones alike."""
        n_added = len(self.components) - self._n_given
        self.points = np.empty((0, self.posterior.size))
        self._log_posterior = np.empty(0)
        self._log_surplus = np.empty(0)
        self._surplus_drawn = 0.0
        self._log_component = [np.empty(0) for _ in self.components]
        self._mapped = {
            key: [(np.empty((0, self.posterior.size)), np.empty(0)) for _ in self.exchanges]
            for key in self._mapped
        }
        self.drawn = [0.0] * len(self.components)
        self._next = np.concatenate([0.5 * self._given, np.full(n_added, 0.5 / n_added)])

    def adapt(self, weights: Array) -> None:
        """Add components around the heaviest draws, and draw from them next."""
        n_old = len(self.components)
        heaviest = np.argsort(weights)[::-1]
        chosen: list[np.intp] = []
        for index in heaviest[:50]:
            apart = all(
                np.abs(self.points[index] - self.points[other]).max() > 0.5 for other in chosen
            )
            if apart and weights[index] > 0.02:
                chosen.append(index)
            if len(chosen) == 3:
                break
        owner = np.argmax(np.array(self._log_component), axis=0)
        for index in chosen or [heaviest[0]]:
            base = self.components[int(owner[index])]
            self._add(base.moved(self.points[index]))
        shares = np.zeros(len(self.components))
        shares[:n_old] = 0.3 / n_old
        shares[n_old:] = 0.7 / (len(self.components) - n_old)
        self._next = shares
