"""The density that importance draws come from: one component for every mode, and more as needed.

The components are heavy-tailed, in coordinates in which the posterior is close to normal
(`Coordinates`), and corrected for overlap between the copies of a mode under exchange of states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.inference.coordinates import Coordinates
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.special import log_sum_exp
from pncbayes.inference.unvisited import NewState

__all__ = ["Component", "Mixture"]

Array = NDArray[np.float64]

_DEGREES = 20.0
# log of Student's t density at zero
_LOG_T = float(
    gammaln(0.5 * (_DEGREES + 1)) - gammaln(0.5 * _DEGREES) - 0.5 * np.log(np.pi * _DEGREES)
)
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


class Mixture:
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
        surplus: NewState | None = None,
        surplus_share: float = 0.5,
    ) -> None:
        self.posterior, self.rng, self.exchanges = posterior, rng, exchanges
        self.surplus, self.surplus_share = surplus, surplus_share if surplus else 0.0
        self._surplus_drawn = 0.0
        self.components: list[Component] = []
        self.drawn: list[float] = []
        self._forget()
        self._log_component: list[Array] = []
        # coordinates of all draws, by map and exchange: dear, and shared by many components
        self._mapped: dict[int, list[tuple[Array, Array]]] = {}
        self._next = self._given = shares / shares.sum()
        self._n_given = len(components)
        for component in components:
            self._add(component)

    def _forget(self) -> None:
        self.points = np.empty((0, self.posterior.size))
        self._log_posterior = np.empty(0)
        self._log_surplus = np.empty(0)
        self._surplus_drawn = 0.0

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
        return values[0] if len(values) == 1 else log_sum_exp(np.array(values).T)

    def draw(self, n_draws: int) -> None:
        """Draw from the components in the shares of the moment."""
        n_surplus = int(self.surplus_share * n_draws)
        which = self.rng.choice(
            len(self._next), size=n_draws - n_surplus, p=self._next / self._next.sum()
        )
        noise = self.rng.standard_t(_DEGREES, size=(which.size, self.posterior.size))
        points = np.empty_like(noise)
        for index, component in enumerate(self.components):
            points[which == index] = component.draw(noise[which == index])
        if self.surplus is None:
            inside = np.isfinite(points).all(axis=1)
            values = np.full(n_draws, -np.inf)
            for n in np.flatnonzero(inside):
                values[n] = self.posterior.log_density(points[n])
        else:
            points, inside, values = self._draw_with_labels(points, n_surplus)
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

    def _draw_with_labels(
        self, points: Array, n_surplus: int
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """Join draws with a new state, and label which state is the new one in the others."""
        surplus = self.surplus
        assert surplus is not None
        new_points, labels, log_surplus = surplus.draw(n_surplus, self.rng)
        points = np.vstack([points, new_points])
        n_own = len(points) - n_surplus
        inside = np.isfinite(points).all(axis=1)
        values = np.full(len(points), -np.inf)
        log_label = np.zeros((len(points), self.posterior.n_states))
        for n in np.flatnonzero(inside):
            values[n], occupied_s = self.posterior.density_and_occupancy(points[n])
            log_label[n] = surplus.label_weights(occupied_s)
        # the components' draws get their label by chance: it cancels from their weights
        own = np.flatnonzero(np.isfinite(values[:n_own]))
        reached = np.cumsum(np.exp(log_label[own]), axis=1)
        chance = self.rng.random((own.size, 1)) * reached[:, -1:]
        own_labels = np.minimum((reached < chance).sum(axis=1), self.posterior.n_states - 1)
        own_surplus = np.full(n_own, -np.inf)
        own_surplus[own] = surplus.log_density(points[own], own_labels)
        own_surplus[own] -= log_label[own, own_labels]
        log_surplus -= log_label[np.arange(n_own, len(points)), labels]
        log_surplus = np.concatenate([own_surplus, log_surplus])
        self._surplus_drawn += n_surplus
        self._log_surplus = np.concatenate([self._log_surplus, log_surplus])
        return points, inside, values

    @property
    def any_inside(self) -> bool:
        """Whether any draw fell where the posterior density is not zero."""
        return bool(np.isfinite(self._log_posterior).any())

    def highest(self) -> tuple[Array, float]:
        """Return the draw of the highest posterior density, and that density."""
        index = int(np.argmax(self._log_posterior))
        return self.points[index], float(self._log_posterior[index])

    def surplus_weight(self, weights: Array) -> float:
        """Share of the evidence that rests on the density with a new state, 0 to 1."""
        if not self._surplus_drawn:
            return 0.0
        own = self._log_mixture()
        total = np.sum(self.drawn) + self._surplus_drawn
        share = np.log(self._surplus_drawn / total) + self._log_surplus
        return float(weights @ np.exp(share - np.logaddexp(own, share)))

    def _log_mixture(self) -> Array:
        """Log of what the components alone give to the density of the draws."""
        total = np.sum(self.drawn) + self._surplus_drawn
        shares = np.log(np.maximum(self.drawn, 1e-300)) - np.log(total)
        return log_sum_exp((np.array(self._log_component) + shares[:, None]).T)

    def log_weights(self) -> Array:
        """Log of posterior density over mixture density at every draw."""
        mixture = self._log_mixture()
        if self._surplus_drawn:
            share = np.log(self._surplus_drawn / (np.sum(self.drawn) + self._surplus_drawn))
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
        self._forget()
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
