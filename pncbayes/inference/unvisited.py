"""Draws of a model with one state more than another, in which the new state is hardly visited.

A model with more states than the data show has most of its mass where the surplus states are not
visited, or only for moments: their brightness, decay and exits are then as the prior says, and
only the rates into them are held down by the time during which they were not entered. No mode
represents that; this density does: a draw of the model with one state fewer, and a new state from
the prior. Each number of states builds on the draws of the one before, so that what is uncertain
about the fewer states is passed on, not found anew.

Which state of a point is the new one is a label that is drawn with the point, with a probability
that falls with the time spent in the state. The weights of importance sampling are those of point
and label together, so that the density with one state fewer is computed once a point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.optimum import Mode
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.special import log_sum_exp

__all__ = ["LOG_ABOVE", "Base", "NewState"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Cells of brightness below the brightest level, evenly spaced, and above it, even in the log.
_CELLS_BELOW, _CELLS_ABOVE = 96, 24
# Log of how far above the brightest of the others a new state may be.
LOG_ABOVE = 2.5
# A share of the brightness is spread evenly, so that a narrow gap between levels is not missed.
_EVEN = 0.1
# Rates into the new state: shape and mean, in entries per time spent in the old one, of the two
# gamma densities, and the share of the second. The first is for a state that was never entered
# (a shape below one: the prior of exit rates reaches far below one per recording).
_NEVER_SHAPE, _SELDOM_SCALE, _SELDOM = 0.8, 5.0, 0.25
# Exits of the new state are drawn from the prior made wider: short visits are what data allow most.
_WIDER = 1.3
# Share of the recording below which times in two states make no difference to which is new.
_SHORT = 0.01


@dataclass
class Base:
    """Weighted draws of the model with one state fewer, and its density.

    Attributes
    ----------
    posterior, mode
        Density and its best mode.
    points
        Draws in log coordinates, shape ``(n, size)``; put in order, from bright to dim.
    weights
        Their weights, sum 1, shape ``(n,)``.
    log_mean
        Log of the integral of the density over ordered states.
    error
        Standard error of that.
    """

    posterior: Posterior
    mode: Mode
    points: Array
    weights: Array
    log_mean: float
    error: float
    _known: dict[int, tuple[float, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        posterior = self.posterior
        n_gates = posterior.n_states * posterior.n_gates
        gates = self.points[:, :n_gates].reshape(-1, posterior.n_states, posterior.n_gates)
        orders = np.argsort(-log_sum_exp(gates), axis=1, kind="stable")
        for order in np.unique(orders, axis=0):
            own = np.flatnonzero((orders == order).all(axis=1))
            self.points[own] = self.points[np.ix_(own, posterior.permutation(order))]

    def density_of_draw(self, index: int) -> tuple[float, Array]:
        """Log density, normalised, and expected seconds in each state, of one of the draws."""
        if index not in self._known:
            self._known[index] = self.density(self.points[index])
        return self._known[index]

    def density(self, point: Array) -> tuple[float, Array]:
        """Log density, normalised, and expected seconds in each state."""
        value, occupied_s = self.posterior.density_and_occupancy(point)
        return value - self.log_mean, occupied_s


class NewState:
    """A density of points of a model together with which of its states is new.

    Parameters
    ----------
    base
        The model with one state fewer.
    posterior
        The model.
    """

    def __init__(self, base: Base, posterior: Posterior) -> None:
        self.base, self.posterior = base, posterior
        total, n_gates = posterior.n_states, posterior.n_gates
        self.n_states = total
        rates = posterior.rate_slice
        table = np.zeros((total, total), dtype=np.intp)
        table[~np.eye(total, dtype=bool)] = np.arange(rates.start, rates.stop)
        self._old: list[Index] = []
        self._gates: list[Index] = []
        self._entries: list[Index] = []
        self._exits: list[Index] = []
        for new in range(total):
            others = np.array([k for k in range(total) if k != new], dtype=np.intp)
            among = table[np.ix_(others, others)][~np.eye(total - 1, dtype=bool)]
            gates = np.arange(total * n_gates).reshape(total, n_gates)
            self._old.append(np.concatenate([gates[others].ravel(), among]).astype(np.intp))
            self._gates.append(gates[new])
            self._entries.append(table[others, new])
            self._exits.append(table[new, others])
        likelihood = posterior.likelihood
        self._short_s = _SHORT * likelihood.n_bins * likelihood.width_s
        self._edges, self._middles = _brightness_cells()

    def label_weights(self, occupied_s: Array) -> Array:
        """Log probability of each state to be called the new one, shape ``(n_states,)``."""
        logs = -2.0 * np.log(occupied_s + self._short_s)
        weights: Array = logs - log_sum_exp(logs)
        return weights

    def draw(self, n_draws: int, rng: np.random.Generator) -> tuple[Array, Index, Array]:
        """Points, which of their states is new, and the log density of both.

        Returns
        -------
        points : ndarray
            States from bright to dim, shape ``(n_draws, size)``.
        label : ndarray
            Shape ``(n_draws,)``.
        log_density : ndarray
            Shape ``(n_draws,)``.
        """
        points, label, value, occupied_s = self._draw(n_draws, rng)
        return points, label, value + self._log_density_of_new(points, label, occupied_s)

    def _draw(self, n_draws: int, rng: np.random.Generator) -> tuple[Array, Index, Array, Array]:
        # systematic resampling: no more repeats than the weights ask for
        steps = (rng.random() + np.arange(n_draws)) / n_draws
        chosen = np.searchsorted(np.cumsum(self.base.weights), steps)
        chosen = np.minimum(chosen, self.base.weights.size - 1)
        known = [self.base.density_of_draw(int(index)) for index in chosen]
        old = self.base.points[chosen]
        occupied_s = np.array([seconds for _, seconds in known]).reshape(n_draws, -1)
        points, label = self.join(old, occupied_s, rng)
        return points, label, np.array([density for density, _ in known]), occupied_s

    def join(self, old: Array, occupied_s: Array, rng: np.random.Generator) -> tuple[Array, Index]:
        """Add a new state that is hardly visited to draws of the model with one state fewer.

        Parameters
        ----------
        old
            Shape ``(n, size)``.
        occupied_s
            Time that each spends in its states, shape ``(n, n_states - 1)``.
        rng
            Source of the new states.

        Returns
        -------
        points : ndarray
            States from bright to dim, shape ``(n, size)``.
        label : ndarray
            Which of them is new, shape ``(n,)``.
        """
        gates = self._draw_gates(old, rng)
        entries = self._draw_entries(old, occupied_s, rng)
        exits = self._draw_exits(len(old), rng)
        label = (self._brightness(old) > log_sum_exp(gates)[:, None]).sum(axis=1)
        points = np.empty((len(old), self.posterior.size))
        for new in range(self.n_states):
            own = np.flatnonzero(label == new)[:, None]
            points[own, self._old[new]] = old[own[:, 0]]
            points[own, self._gates[new]] = gates[own[:, 0]]
            points[own, self._entries[new]] = entries[own[:, 0]]
            points[own, self._exits[new]] = exits[own[:, 0]]
        return points, label

    def log_evidence_if_unvisited(self, rng: np.random.Generator, n_draws: int = 64) -> float:
        """Part of the log evidence from points whose new state is not visited at all.

        There the likelihood is that of the other states, less what it costs that the new one was
        not entered: no likelihood has to be computed. A lower figure, but for its own error, which
        Laplace's approximation is not where a state is hardly visited.
        """
        points, label, value, occupied_s = self._draw(n_draws, rng)
        logs = self._log_unvisited(points, label, occupied_s)
        logs[~np.isfinite(value)] = -np.inf
        for n, new in enumerate(label):
            logs[n] += self.label_weights(np.insert(occupied_s[n], new, 0.0))[new]
        mean = float(log_sum_exp(logs) - np.log(n_draws)) + self.base.log_mean
        # the first state is any of them: not the one that is not visited
        mean += float(np.log((self.n_states - 1) / self.n_states))
        return mean + float(gammaln(self.n_states + 1))

    def _log_unvisited(self, points: Array, label: Index, occupied_s: Array) -> Array:
        log_density = self._log_density_of_new(points, label, occupied_s)
        posterior, base = self.posterior, self.base.posterior
        logs = np.full(len(points), -np.inf)
        for n in np.flatnonzero(np.isfinite(log_density)):
            new = label[n]
            entered = float(np.exp(points[n, self._entries[new]]) @ occupied_s[n])
            log_prior = posterior.log_prior(points[n])[0]
            log_prior -= base.log_prior(points[n, self._old[new]])[0]
            logs[n] = log_prior - entered - log_density[n]
        return logs

    def log_density(self, points: Array, label: Index) -> Array:
        """Log density of points whose state `label` is the new one, shape ``(n,)``."""
        value = np.empty(len(points))
        occupied_s = np.zeros((len(points), self.n_states - 1))
        for n, (point, new) in enumerate(zip(points, label, strict=True)):
            value[n], occupied_s[n] = self.base.density(point[self._old[new]])
        fine = np.flatnonzero(np.isfinite(value))
        value[fine] += self._log_density_of_new(points[fine], label[fine], occupied_s[fine])
        return value

    def _brightness(self, old: Array) -> Array:
        n_old, n_gates = self.n_states - 1, self.posterior.n_gates
        gates = old[:, : n_old * n_gates].reshape(len(old), n_old, n_gates)
        return np.asarray(gates[:, :, 0]) if n_gates == 1 else log_sum_exp(gates)

    def _cell_weights(self, old: Array) -> tuple[Array, Array]:
        """Probability of each cell of brightness given the old levels, and the log of the top.

        As the prior has it, the repulsion of the levels included.
        """
        log_rate = self._brightness(old)
        top = log_rate.max(axis=1)
        above = np.maximum(np.log(self._middles), 0.0)
        prior, total = self.posterior.model.brightest_rate_per_s, self.n_states
        repulsion = self.posterior.repulsion
        z = (top[:, None] + above - np.log(prior.median)) / prior.sigma
        pairs = 0.5 * total * (total - 1) * repulsion
        logs = -0.5 * z**2 - (total + pairs) * above + np.log(self._middles)
        logs += np.log(np.diff(np.log(self._edges)))
        if repulsion > 0.0:
            # within a cell the distance is not zero, only small
            least = 0.25 * np.diff(self._edges)
            apart = np.ones_like(logs)
            for share in np.exp(log_rate - top[:, None]).T:
                apart *= np.maximum(np.abs(self._middles - share[:, None]), least)
            logs += repulsion * np.log(apart)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        even = np.diff(np.minimum(self._edges, 1.0))
        return (1.0 - _EVEN) * weights + _EVEN * even / even.sum(), top

    def _draw_gates(self, old: Array, rng: np.random.Generator) -> Array:
        weights, top = self._cell_weights(old)
        reached = np.cumsum(weights, axis=1)
        u = rng.random((len(old), 1)) * reached[:, -1:]
        cell = np.minimum((reached < u).sum(axis=1), weights.shape[1] - 1)
        low, high = self._edges[cell], self._edges[cell + 1]
        log_rate = top + np.log(low + rng.random(len(old)) * (high - low))
        if self.posterior.n_gates == 1:
            return np.asarray(log_rate[:, None])
        fewer = self.base.posterior
        assert isinstance(fewer, CollapsedPosterior)
        gates: Array = fewer.decays.draw_another(fewer.log_shares(old), rng) + log_rate[:, None]
        return gates

    def _draw_entries(self, old: Array, occupied_s: Array, rng: np.random.Generator) -> Array:
        scale, settled = self._entry_scales(old, occupied_s)
        size = scale.shape
        visited = np.where(
            rng.random(size) < _SELDOM,
            rng.gamma(1.0, _SELDOM_SCALE, size),
            rng.gamma(_NEVER_SHAPE, 1.0, size),
        )
        if self.n_states == 2:
            sigma = _WIDER * self.posterior.model.exit_rate_per_s.sigma
            free = np.exp(sigma * rng.standard_normal(size))
        else:
            # the share of an exit that leads to the new state, over that to the others
            free = rng.gamma(_NEVER_SHAPE, 1.0, size) / np.maximum(rng.gamma(1.0, 1.0, size), 1e-12)
        relative = np.where(rng.random(size) < settled, visited, free)
        entries: Array = np.log(np.maximum(relative, 1e-170)) + np.log(scale)
        return entries

    def _entry_scales(self, old: Array, occupied_s: Array) -> tuple[Array, Array]:
        """Scale of the rate out of each old state into the new one, and how far data set it."""
        n_old, at = self.n_states - 1, (self.n_states - 1) * self.posterior.n_gates
        time_s = np.maximum(occupied_s, 1e-9)
        if n_old == 1:
            # nothing else is known of an exit rate of which the new state is the only target
            exits = np.full_like(time_s, self.posterior.model.exit_rate_per_s.median)
            visits = time_s * exits
            return exits / (1.0 + visits), visits / (1.0 + visits)
        exits = np.exp(log_sum_exp(old[:, at:].reshape(len(old), n_old, n_old - 1)))
        exits = np.clip(exits, 1e-100, 1e100)
        visits = time_s * exits
        return exits / (1.0 + visits), visits / (1.0 + visits)

    def _draw_exits(self, n_draws: int, rng: np.random.Generator) -> Array:
        model, targets = self.posterior.model, self.n_states - 1
        prior = model.exit_rate_per_s
        jumps = rng.dirichlet(np.full(targets, model.jump_concentration), n_draws)
        exits: Array = np.log(np.maximum(jumps, 1e-170)) + np.log(prior.median)
        return exits + _WIDER * prior.sigma * rng.standard_normal((n_draws, 1))

    def _log_density_of_new(self, points: Array, label: Index, occupied_s: Array) -> Array:
        """Log density of the new states given the others, shape ``(n,)``."""
        old, gates, entries, exits = (
            np.take_along_axis(points, np.array(places)[label], axis=1)
            for places in (self._old, self._gates, self._entries, self._exits)
        )
        log_rate = log_sum_exp(gates)
        weights, top = self._cell_weights(old)
        share = np.exp(np.minimum(log_rate - top, 700.0))
        cell = np.searchsorted(self._edges, share, side="right") - 1
        outside = (cell < 0) | (cell >= weights.shape[1])
        cell = np.where(outside, 0, cell)
        density = weights[np.arange(len(points)), cell] / np.diff(self._edges)[cell]
        # even within the cell in the share, so density x share in its logarithm
        value = np.log(density) + log_rate - top
        fewer = self.base.posterior
        if isinstance(fewer, CollapsedPosterior):
            assert isinstance(self.posterior, CollapsedPosterior)
            value = value + self.posterior.log_prior_of_decays(points)
            value -= fewer.log_prior_of_decays(old)
        value += self._log_density_of_entries(entries, old, occupied_s)
        value += self._log_density_of_exits(exits)
        return np.asarray(np.where(outside, -np.inf, value))

    def _log_density_of_entries(self, entries: Array, old: Array, occupied_s: Array) -> Array:
        scale, settled = self._entry_scales(old, occupied_s)
        u = entries - np.log(scale)
        with np.errstate(over="ignore", divide="ignore"):
            never = _NEVER_SHAPE * u - np.exp(u) - gammaln(_NEVER_SHAPE)
            wide = u - np.log(_SELDOM_SCALE)
            seldom = wide - np.exp(wide)
            visited = np.logaddexp(never + np.log(1.0 - _SELDOM), seldom + np.log(_SELDOM))
            if self.n_states == 2:
                sigma = _WIDER * self.posterior.model.exit_rate_per_s.sigma
                free = -0.5 * (u / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi))
            else:
                free = _NEVER_SHAPE * u - (_NEVER_SHAPE + 1.0) * np.logaddexp(0.0, u)
                free = free - betaln(_NEVER_SHAPE, 1.0)
            logs = np.logaddexp(visited + np.log(settled), free + np.log1p(-settled))
        total: Array = logs.sum(axis=1)
        return total

    def _log_density_of_exits(self, exits: Array) -> Array:
        model, targets = self.posterior.model, self.n_states - 1
        prior, c = model.exit_rate_per_s, model.jump_concentration
        log_exit = log_sum_exp(exits)
        sigma = _WIDER * prior.sigma
        z = (log_exit - np.log(prior.median)) / sigma
        value = -0.5 * z**2 - np.log(sigma * np.sqrt(2 * np.pi))
        value += c * (exits - log_exit[:, None]).sum(axis=1)
        density: Array = value + gammaln(c * targets) - targets * gammaln(c)
        return density


def _brightness_cells() -> tuple[Array, Array]:
    """Edges and middles of cells of brightness, as shares of the brightest old level."""
    # a first cell that reaches down to nothing, for the log
    below = np.concatenate(([1e-12, 1e-4, 1e-3], np.linspace(0.0, 1.0, _CELLS_BELOW + 1)[1:]))
    above = np.exp(np.linspace(0.0, LOG_ABOVE, _CELLS_ABOVE + 1))[1:]
    edges = np.concatenate([below, above])
    return edges, 0.5 * (edges[1:] + edges[:-1])
