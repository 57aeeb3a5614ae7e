"""Evidence from posterior draws in which all states are visited, by bridge sampling.

Where chains rarely pass between points whose states are all visited and points with one that is
not, each kind has an evidence of its own: the first by a bridge between draws of a chain and of a
density made of them, the second by `pncbayes.inference.visits`. Neither needs chains that pass.

The density is the mean, over draws of a chain, of that of the parameters given all that was hidden:
path, photons of each state, base shape and concentration of the decays [1]_. Its tails are those of
the posterior, however far a share of a gate without photons may fall.

References
----------
.. [1] Frühwirth-Schnatter, S. Estimating marginal likelihoods for mixture and Markov switching
   models using bridge sampling techniques. Econom. J. 7, 143 (2004),
   doi:10.1111/j.1368-423X.2004.00125.x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln

from pncbayes.inference.bridge import bridge
from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.gibbs import GibbsSampler
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.special import log_sum_exp

__all__ = ["Parts", "VisitedPart", "evidence_if_visited", "evidence_of_parts"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Draws that the density is made of and judged by, at least, and draws of it.
_FEWEST, _DRAWS = 40, 600
_RELABELLINGS = 3
# Draws at which bins that may hold a switch are looked for.
_LOOKED_AT = 8
# Share of draws with all states visited that is small enough to do without a bridge.
_SELDOM = 0.08
# Draws of a chain, at least, whose figure is held against those of the others.
_FEWEST_OF_A_CHAIN = 15
# Log of the least share of a gate.
_LEAST = -390.0


@dataclass(frozen=True)
class VisitedPart:
    """Part of the evidence in which all states are visited.

    Attributes
    ----------
    log_mean, error
        Log of its integral over ordered states, and the standard error.
    effective
        Independent draws that the chains are worth.
    points
        Draws of it in log coordinates, shape ``(n, size)``.
    """

    log_mean: float
    error: float
    effective: float
    points: Array


def evidence_if_visited(
    posterior: CollapsedPosterior, chains: list[list[Parameters]], rng: np.random.Generator
) -> VisitedPart | None:
    """Evidence of the part that some draws are from; None if they are too few.

    Parameters
    ----------
    posterior
        The density.
    chains
        Draws of each chain in which all states are visited.
    rng
        Source of the draws of the density.
    """
    makers: list[Parameters] = []
    judges: list[Parameters] = []
    for chain in chains:
        # what the density was made of must not judge it
        makers.extend(chain[: len(chain) // 2])
        judges.extend(chain[len(chain) // 2 :])
    lengths = [len(chain) - len(chain) // 2 for chain in chains]
    if min(len(makers), len(judges)) < _FEWEST:
        return None
    reference = makers[0].gate_rate_per_s
    for _ in range(_RELABELLINGS):
        makers = [_alike(draw, reference) for draw in makers]
        reference = np.exp(np.mean([np.log(draw.gate_rate_per_s + 1.0) for draw in makers], axis=0))
    sampler = GibbsSampler(posterior, rng)
    for draw in (makers[0], makers[-1]):
        sampler.focus(draw)
    density = _Density(posterior, makers, sampler)
    if density.size < _FEWEST:
        return None
    judged = np.array([posterior.pack(_alike(draw, reference)) for draw in judges])
    # chains may have left for where switches matter in other bins than at the modes known
    posterior.focus(*judged[:: max(len(judged) // _LOOKED_AT, 1)])
    at_posterior = np.array([posterior.log_density(point) for point in judged])
    at_posterior -= density.log_density(judged)
    points = density.draw(_DRAWS, rng)
    at_density = np.full(_DRAWS, -np.inf)
    log_density = density.log_density(points)
    for n, point in enumerate(points):
        parameters = posterior.unpack(point)
        # the part of one order of the states, and of paths that visit them all: one path each
        if (_order(parameters, reference) != np.arange(posterior.n_states)).any():
            continue
        value = posterior.log_density(point)
        if np.isfinite(value) and (sampler.path(parameters)[0] > 0.0).all():
            at_density[n] = value - log_density[n]
    if not np.isfinite(at_density).any():
        return None
    effective = _effective(at_posterior)
    log_mean, error = bridge(at_posterior, at_density, effective)
    error = max(error, _disagreement(at_posterior, lengths, at_density))
    together = np.vstack([[posterior.pack(draw) for draw in makers], judged])
    return VisitedPart(log_mean, error, effective, together)


@dataclass(frozen=True)
class Parts:
    """Evidence of points whose states are all visited and of the others together.

    Attributes
    ----------
    log_mean, error, effective
        As in `VisitedPart`, of both together.
    points, weights
        Draws of both in log coordinates, shape ``(n, size)``, and their weights, sum 1.
    """

    log_mean: float
    error: float
    effective: float
    points: Array
    weights: Array


def evidence_of_parts(
    posterior: CollapsedPosterior,
    chains: list[list[Parameters]],
    log_unvisited: float,
    unvisited_error: float,
    rng: np.random.Generator,
) -> Parts | None:
    """Evidence from chains that need not pass between the two kinds of points.

    Parameters
    ----------
    posterior
        The density.
    chains
        Draws of each chain.
    log_unvisited, unvisited_error
        Log of the part of the evidence in which any state is not visited, and its error.
    rng
        Source of draws.

    Returns
    -------
    Parts or None
        None if all states are visited too seldom for a bridge, and too often to do without.
    """
    visited = [[draw for draw in chain if draw.visits_all] for chain in chains]
    others = [draw for chain in chains for draw in chain if not draw.visits_all]
    n_draws = sum(len(chain) for chain in chains)
    active = posterior.active
    found = evidence_if_visited(posterior, visited, rng)
    posterior.active = active
    if found is not None:
        log_mean = float(np.logaddexp(found.log_mean, log_unvisited))
        share = float(np.exp(log_unvisited - log_mean))
        error = float(np.hypot((1.0 - share) * found.error, share * unvisited_error))
        points, effective = found.points, found.effective
    elif n_draws and len(others) > (1.0 - _SELDOM) * n_draws:
        # the rest is all but everything
        share = len(others) / n_draws
        log_mean, error = log_unvisited - float(np.log(share)), unvisited_error + 1.0 - share
        points, effective = np.empty((0, posterior.size)), float(len(chains))
    else:
        return None
    if share > 0.5 and not others:
        # what is said to be most of it was never met
        return None
    weights = np.full(len(points), (1.0 - share) / max(len(points), 1))
    if others and share > 0.0:
        rest = np.array([posterior.pack(draw) for draw in others])
        points = np.vstack([points, rest])
        weights = np.concatenate([weights, np.full(len(rest), share / len(rest))])
    return Parts(log_mean, error, effective, points, weights / weights.sum())


def _order(point: Parameters, reference: Array) -> Index:
    """Order of the states of a point that is nearest to reference intensities."""
    apart = np.log(point.gate_rate_per_s + 1.0)[None] - np.log(reference + 1.0)[:, None]
    # as far as photons tell intensities apart
    weight = np.sqrt(reference)[:, None]
    return np.asarray(linear_sum_assignment((weight * apart**2).sum(axis=2))[1], dtype=np.intp)


def _alike(point: Parameters, reference: Array) -> Parameters:
    return point.permuted(_order(point, reference))


class _Density:
    """Mean of the densities of the parameters given what a path and its photons are.

    Parameters
    ----------
    posterior
        The model.
    draws
        Posterior draws, states in like order.
    sampler
        Draws a path and its photons for each.
    """

    def __init__(
        self, posterior: CollapsedPosterior, draws: list[Parameters], sampler: GibbsSampler
    ) -> None:
        self.posterior, model, n_states = posterior, posterior.model, posterior.n_states
        exits = model.exit_rate_per_s
        decays, levels, rates, jumps = [], [], [], []
        for draw in draws:
            photons, time_s, jumped = sampler.complete(draw)
            if not (time_s > 0.0).all():
                continue
            base = posterior.base if draw.base_decay is None else draw.base_decay
            decays.append(draw.concentration * base + photons)
            # a uniform prior of a level: one photon more, and none far above the brightest
            least_s = 1.0 / draw.rate_per_s.max()
            levels.append(np.stack([photons.sum(axis=1) + 1.0, time_s + least_s]))
            # gamma densities of the shape and the mode of a log-normal with counts
            leaving = jumped.sum(axis=1)
            shape = leaving + exits.sigma**-2
            rates.append(np.stack([shape, _scale(leaving, time_s, exits.median, exits.sigma)]))
            jumps.append(jumped + model.jump_concentration)
        self.decays, self.levels = np.array(decays), np.array(levels)
        self.rates, self.jumps = np.array(rates), np.array(jumps)
        self._off = ~np.eye(n_states, dtype=bool)

    @property
    def size(self) -> int:
        """Number of densities of which this is the mean."""
        return len(self.decays)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Points in log coordinates, shape ``(n, size)``."""
        which = rng.integers(len(self.decays), size=n)
        gates = _log_dirichlet_draws(self.decays[which], rng)
        gates += _log_gamma_draws(self.levels[which, 0], rng)[:, :, None]
        gates -= np.log(self.levels[which, 1])[:, :, None]
        n_states = self.posterior.n_states
        points = [gates.reshape(n, -1)]
        if n_states > 1:
            own = self.jumps[which][:, self._off].reshape(n, n_states, n_states - 1)
            leaving = _log_gamma_draws(self.rates[which, 0], rng) - np.log(self.rates[which, 1])
            points.append((_log_dirichlet_draws(own, rng) + leaving[:, :, None]).reshape(n, -1))
        return np.hstack(points)

    def log_density(self, points: Array) -> Array:
        """Log density at points, shape ``(n,)``."""
        n, n_states = len(points), self.posterior.n_states
        at = n_states * self.posterior.n_gates
        gates = points[:, :at].reshape(n, n_states, -1)
        level = log_sum_exp(gates)
        logs = _log_dirichlet(gates - level[:, :, None], self.decays)
        logs += _log_gamma(level, self.levels)
        if n_states > 1:
            rates = points[:, at:].reshape(n, n_states, n_states - 1)
            leaving = log_sum_exp(rates)
            own = self.jumps[:, self._off].reshape(-1, n_states, n_states - 1)
            logs += _log_dirichlet(rates - leaving[:, :, None], own)
            logs += _log_gamma(leaving, self.rates)
        value: Array = log_sum_exp(logs) - np.log(len(self.decays))
        return value


def _scale(leaving: Array, time_s: Array, median: float, sigma: float) -> Array:
    """Rate of the gamma density whose mode in the logarithm is that of the exit rate."""
    log_rate = np.log((leaving + 0.1) / (time_s + 0.1 / median))
    for _ in range(30):
        slope = leaving - time_s * np.exp(log_rate) - (log_rate - np.log(median)) / sigma**2
        log_rate += np.clip(slope / (time_s * np.exp(log_rate) + sigma**-2), -1.0, 1.0)
    return np.asarray((leaving + sigma**-2) / np.exp(log_rate))


def _log_gamma_draws(shape: Array, rng: np.random.Generator) -> Array:
    """Logarithms of gamma variables, however small."""
    small: Array = np.log(1.0 - rng.random(shape.shape)) / shape
    return np.log(rng.standard_gamma(shape + 1.0)) + small


def _log_dirichlet_draws(shape: Array, rng: np.random.Generator) -> Array:
    logs = _log_gamma_draws(shape, rng)
    return np.asarray(np.maximum(logs - log_sum_exp(logs)[..., None], _LEAST))


def _log_dirichlet(logs: Array, shape: Array) -> Array:
    """Log density of all states' log shares, ``(n, ...)``, for each of m: shape ``(n, m)``."""
    constant = (gammaln(shape.sum(axis=2)) - gammaln(shape).sum(axis=2)).sum(axis=1)
    return np.asarray(logs.reshape(len(logs), -1) @ shape.reshape(len(shape), -1).T + constant)


def _log_gamma(logs: Array, shape_and_rate: Array) -> Array:
    """Log density of all states' log intensities, ``(n, n_states)``, for each of m: ``(n, m)``."""
    shape, rate = shape_and_rate[:, 0], shape_and_rate[:, 1]
    constant = (shape * np.log(rate) - gammaln(shape)).sum(axis=1)
    return np.asarray(logs @ shape.T - np.exp(np.minimum(logs, 300.0)) @ rate.T + constant)


def _disagreement(at_posterior: Array, lengths: list[int], at_density: Array) -> float:
    """Standard error of the figure as the chains tell it, each by itself: they may not have mixed.

    Chains of too few draws say nothing.
    """
    ends = np.cumsum(lengths)
    figures = [
        bridge(at_posterior[end - n : end], at_density, _effective(at_posterior[end - n : end]))[0]
        for n, end in zip(lengths, ends, strict=True)
        if n >= _FEWEST_OF_A_CHAIN
    ]
    if len(figures) < 2:
        return 0.0
    return float(np.std(figures, ddof=1) / np.sqrt(len(figures)))


def _effective(values: Array) -> float:
    """Independent draws that a series of values is worth."""
    from arviz_stats.base.array import array_stats

    fine = np.clip(values, *np.quantile(values, [0.01, 0.99]))
    axes = {"chain_axis": 0, "draw_axis": 1}
    found = array_stats.ess(fine[None], **axes)  # type: ignore[no-untyped-call]
    return float(np.clip(found, 1.0, fine.size))
