"""Draws of models with states that the recording never visits.

A model with more states than the data show has most of its mass where the surplus states are
unvisited: their brightness, decay and exits are then as the prior says, and only the rates into
them are held down by the time during which they were not entered. No mode represents that; this
density does: the posterior of fewer states, times the prior of the others.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.optimum import Mode
from pncbayes.inference.posterior import Parameters, Posterior

__all__ = ["Base", "Unvisited"]

Array = NDArray[np.float64]

# Share of the new states that are drawn brighter than all others.
_BRIGHTER = 0.1
# Candidates from which new brightnesses are drawn.
_POOL = 20_000
# Shape of the gamma density of rates into a state that was not entered: below one, since the
# prior of exit rates reaches far below one per recording.
_ENTRY_SHAPE = 0.6


class Drawable(Protocol):
    """A density of the model with fewer states."""

    def draw(self, noise: Array) -> Array:
        """Points from standard noise."""

    def log_density(self, points: Array) -> Array:
        """Log density at points."""


@dataclass(frozen=True)
class Base:
    """The posterior of the states that are visited, from bright to dim.

    Attributes
    ----------
    posterior, mode, component
        Density, its mode, and the density to draw from around it.
    """

    posterior: Posterior
    mode: Mode
    component: Drawable


class Unvisited:
    """A density for a number of states above that of a base.

    Parameters
    ----------
    base
        The model with fewer states.
    posterior
        The model with more.
    """

    def __init__(self, base: Base, posterior: Posterior) -> None:
        self.base, self.posterior = base, posterior
        self.n_old, self.n_new = (
            base.posterior.n_states,
            posterior.n_states - base.posterior.n_states,
        )
        self.occupied_s = np.maximum(base.mode.parts.occupied_s, 1e-6)
        self.concentration = (
            math.exp(base.mode.log_concentration)
            if isinstance(posterior, CollapsedPosterior)
            else 0.0
        )
        total = posterior.n_states
        self.subsets = [
            posterior.permutation(
                np.array([k for k in range(total) if k not in new] + list(new), dtype=np.intp)
            )
            for new in itertools.combinations(range(total), self.n_new)
        ]
        table = np.zeros((total, total), dtype=np.intp)
        rates = posterior.rate_slice
        table[~np.eye(total, dtype=bool)] = np.arange(rates.start, rates.stop)
        self._table = table
        rate = base.posterior.unpack(base.mode.vector).rate_per_s
        self._old_share = rate / rate.max()
        self._pool: Array | None = None
        self._pool_weight = np.empty(0)
        self._log_constant = 0.0

    def _candidates(self, rng: np.random.Generator) -> tuple[Array, Array, float]:
        """New brightnesses, as shares of the brightest old one, with their repulsion.

        Where levels repel, a few uniform draws seldom land where the prior is.
        """
        size = (_POOL, self.n_new)
        above = rng.random(size) < _BRIGHTER
        shares = np.where(above, np.exp(rng.exponential(size=size)), rng.random(size))
        repulsion = self._log_repulsion(shares)
        constant = float(logsumexp(repulsion) - np.log(_POOL))
        return shares, np.exp(repulsion - logsumexp(repulsion)), constant

    def _log_repulsion(self, shares: Array) -> Array:
        """Log of the repulsion among new levels and from the old ones, shape ``(n,)``."""
        value: Array = np.zeros(len(shares))
        if self.posterior.repulsion == 0.0:
            return value
        for k in range(self.n_new):
            others = [np.full(len(shares), share) for share in self._old_share]
            others += [shares[:, j] for j in range(k)]
            for other in others:
                value += np.log(np.abs(shares[:, k] - other) + 1e-12)
        # what the prior's scale, the brightest level, takes back when a new one is brighter
        scale = np.log(np.maximum(shares.max(axis=1), 1.0))
        total = self.posterior.n_states
        value -= scale * 0.5 * total * (total - 1)
        return self.posterior.repulsion * value

    def draw(self, n_draws: int, rng: np.random.Generator, degrees: float) -> Array:
        """Log coordinates, states from bright to dim, shape ``(n_draws, size)``."""
        if self._pool is None:
            self._pool, self._pool_weight, self._log_constant = self._candidates(rng)
        picked = self._pool[rng.choice(_POOL, size=n_draws, p=self._pool_weight)]
        noise = rng.standard_t(degrees, size=(n_draws, self.base.posterior.size))
        old = self.base.component.draw(noise)
        points = np.empty((n_draws, self.posterior.size))
        for n in range(n_draws):
            if not np.isfinite(old[n]).all():
                points[n] = np.nan
                continue
            point = self._extended(self.base.posterior.unpack(old[n]), picked[n], rng)
            points[n] = self.posterior.pack(point.ordered())
        return points

    def _extended(self, old: Parameters, share: Array, rng: np.random.Generator) -> Parameters:
        model, total = self.posterior.model, self.posterior.n_states
        brightest = old.rate_per_s.max()
        gates = np.ones((self.n_new, 1))
        if self.posterior.n_gates > 1:
            gates = rng.dirichlet(self.concentration * self.posterior.pooled, self.n_new)
            gates = np.maximum(gates, 1e-170)
        rates = np.zeros((total, total))
        rates[: self.n_old, : self.n_old] = old.transition_rate_per_s
        entry = rng.gamma(_ENTRY_SHAPE, 1.0, size=(self.n_old, self.n_new))
        rates[: self.n_old, self.n_old :] = np.maximum(entry, 1e-170) / self.occupied_s[:, None]
        prior = model.exit_rate_per_s
        exits = rng.lognormal(np.log(prior.median), prior.sigma, self.n_new)
        jumps = rng.dirichlet(np.full(total - 1, model.jump_concentration), self.n_new)
        for k in range(self.n_new):
            others = [j for j in range(total) if j != self.n_old + k]
            rates[self.n_old + k, others] = exits[k] * jumps[k]
        return Parameters(
            np.vstack([old.gate_rate_per_s, (share * brightest)[:, None] * gates]),
            rates,
            old.concentration,
            None,
        )

    def log_density(self, points: Array) -> Array:
        """Log density of the ordered draws at points ordered from bright to dim, ``(n,)``."""
        values = [self._log_density(points[:, subset]) for subset in self.subsets]
        # any order of the new states gives the same ordered point
        density: Array = logsumexp(np.array(values), axis=0) + gammaln(self.n_new + 1)
        return np.where(np.isfinite(density), density, -np.inf)

    def _log_density(self, points: Array) -> Array:
        n_gates, n_old, total = self.posterior.n_gates, self.n_old, self.posterior.n_states
        gates = points[:, : total * n_gates].reshape(-1, total, n_gates)
        off = ~np.eye(n_old, dtype=bool)
        among = points[:, self._table[:n_old, :n_old][off]]
        value = self.base.component.log_density(
            np.hstack([gates[:, :n_old].reshape(len(points), -1), among])
        )
        rate = logsumexp(gates, axis=2)
        share = rate[:, n_old:] - rate[:, :n_old].max(axis=1)[:, None]
        value = value + np.where(
            share < 0, share + math.log(1.0 - _BRIGHTER), -share + math.log(_BRIGHTER)
        ).sum(axis=1)
        value += self._log_repulsion(np.exp(share)) - self._log_constant
        if n_gates > 1:
            shape = gates[:, n_old:] - rate[:, n_old:, None]
            weight = self.concentration * self.posterior.pooled
            value += (shape @ weight).sum(axis=1)
            value += self.n_new * (gammaln(weight.sum()) - gammaln(weight).sum())
        entry = points[:, self._table[:n_old, n_old:].ravel()]
        seconds = np.repeat(self.occupied_s, self.n_new)
        with np.errstate(over="ignore"):
            value += (_ENTRY_SHAPE * (entry + np.log(seconds)) - np.exp(entry) * seconds).sum(
                axis=1
            ) - entry.shape[1] * gammaln(_ENTRY_SHAPE)
        prior, c = self.posterior.model.exit_rate_per_s, self.posterior.model.jump_concentration
        for k in range(n_old, total):
            row = points[:, [self._table[k, j] for j in range(total) if j != k]]
            exit_rate = logsumexp(row, axis=1)
            z = (exit_rate - np.log(prior.median)) / prior.sigma
            value += -0.5 * z**2 - np.log(prior.sigma * np.sqrt(2 * np.pi))
            value += c * (row - exit_rate[:, None]).sum(axis=1)
            value += gammaln(c * (total - 1)) - (total - 1) * gammaln(c)
        density: Array = value
        return density
