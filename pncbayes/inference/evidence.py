"""Evidence of a number of states by two methods: Laplace, and sampling.

Both work in coordinates in which the posterior is close to normal (`Coordinates`). The
importance sampler draws from a heavy-tailed density around every mode found, corrected for
overlap between the copies of a mode under exchange of states, and its weights are smoothed and
judged by Pareto's k [1]_. A draw far above all modes leads to a mode that was missed, and the
estimate starts again with it. Where the first round is not enough and a state is surplus, the
evidence comes from how often a Gibbs sampler leaves a state unvisited
(`pncbayes.inference.visits`). With delays, where parameters are many, chains come first: where
their states are all visited, a bridge (`pncbayes.inference.visited`).

References
----------
.. [1] Vehtari, A. et al. Pareto smoothed importance sampling. J. Mach. Learn. Res. 25, 1 (2024),
   doi:10.48550/arXiv.1507.02646.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.gibbs import N_CHAINS, GibbsSampler, PosteriorDraws, run_chains
from pncbayes.inference.laplace import (
    all_visited,
    bright_to_dim,
    component_at,
    exchanges,
    laplace_sum,
    near_modes,
    quick_log_evidence,
)
from pncbayes.inference.mixture import Component, Mixture
from pncbayes.inference.one_state import evidence_of_one_state
from pncbayes.inference.optimum import MODE_GAP, Mode, climb, distinct_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.unvisited import Base, NewState
from pncbayes.inference.visited import evidence_of_parts
from pncbayes.inference.visits import Unsettled, evidence_by_visits
from pncbayes.inference.weights import Weighed, are_enough, are_reliable, spread, weigh

__all__ = ["MARGIN", "estimate_evidence"]

Array = NDArray[np.float64]

# nats below the best at which a number of states no longer matters
MARGIN = 6.0
# rounds' worth of draws that the figure comes from once components were added
_FRESH = 3
# such batches at most, while the weights have a heavy tail
_BATCHES = 3
# nats that the evidence with a state unvisited may lie below a figure by importance sampling, and
# be a part of the whole that counts: chains see nothing that is rarer
_RARE = 6.0
# nats below the best at which a rough figure does
_NEGLIGIBLE = 4.0
# nats by which a draw is above all modes where one was missed; and how often that is looked for
_ABOVE = 2.0
# effective draws below which the heaviest may come from a missed mode
_LONE = 8.0
_MOST_RESTARTS = 4
# nats that the evidence with a state unvisited may lie below a quick figure of the rest, and be
# a part of the whole that counts: the quick figure is low
_SURPLUS = 6.0
# starts among which those of chains are drawn, and error of a bridge that is of use
_STARTS, _USABLE = 40, 0.3
# nats by which a mode that Laplace's figure leaves out is above it, and the figure none
_LEFT_OUT = 2.0
# draws among which the highest is looked for
_LOOKED_AT = 40


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
    if isinstance(posterior, CollapsedPosterior) and posterior.n_states == 1:
        if GibbsSampler.can_sample(posterior):
            return _of_one_state(posterior, modes[0], rng, n_kept)
    modes = [bright_to_dim(posterior, mode) for mode in modes]
    restarts = 0
    while True:
        estimate = _Estimate(posterior, modes, rng, n_draws, n_kept, worth, base)
        estimate.watches = restarts < _MOST_RESTARTS
        found = estimate.run(n_adaptations, contested)
        if isinstance(found, Evidence):
            return found
        lowest = found.log_density - MODE_GAP
        # an old mode that is no top may be the same one
        others = [climb(posterior, mode.vector) for mode in modes if mode.log_density > lowest]
        modes = distinct_modes(posterior, [found, *(bright_to_dim(posterior, m) for m in others)])
        restarts += 1


def _of_one_state(
    posterior: CollapsedPosterior, mode: Mode, rng: np.random.Generator, n_kept: int
) -> Evidence:
    found = evidence_of_one_state(posterior, rng)
    weighed, reliable = found.weighed, are_reliable(found.weighed)
    one = Evidence.from_draws(
        posterior, mode, found.points, None, weighed.log_mean, weighed.error, weighed.effective,
        "importance" if reliable else "rough", found.laplace, rng, n_kept,
    )  # fmt: skip
    error = weighed.error if reliable else max(1.0, weighed.error)
    return replace(one, importance=weighed.log_mean, pareto_k=weighed.pareto_k, error=error)


class _Estimate:
    """One attempt at the evidence, from the modes known."""

    def __init__(
        self,
        posterior: Posterior,
        modes: list[Mode],
        rng: np.random.Generator,
        n_draws: int,
        n_kept: int,
        worth: float,
        base: Base | None,
    ) -> None:
        self.posterior, self.modes, self.rng = posterior, modes, rng
        self.n_draws, self.n_kept, self.worth, self.base = n_draws, n_kept, worth, base
        self.labels = float(gammaln(posterior.n_states + 1))
        self.best = modes[0]
        self.laplace = -np.inf
        self.watches = True
        self.leaves_out = False
        self.surplus: NewState | None = None
        self.unvisited = -np.inf
        if base is not None and not posterior.has_excess:
            self.surplus = NewState(base, posterior)
            self.unvisited = self.surplus.log_evidence_if_unvisited(rng)
        self._tried_visits = False
        self.chains: PosteriorDraws | None = None
        self._top: float | None = None

    def run(self, n_adaptations: int, contested: bool) -> Evidence | Mode:
        """Return the evidence, or a mode well above all that were known."""
        posterior, modes = self.posterior, self.modes
        rough = np.array([quick_log_evidence(posterior, mode) for mode in modes])
        visited = np.array([all_visited(posterior, mode) for mode in modes])
        seen = float(rough[visited].max()) if visited.any() else -np.inf
        plausible = max(self.unvisited, rough.max()) >= self.worth
        # where a state may be surplus, modes and their curvatures are of no use; without delays
        # there are few parameters, and the importance sampler is fast and mostly enough
        if self._many_parameters() and plausible and self.unvisited > seen - _SURPLUS:
            # the best mode last, here and below: there nothing is lost by the bins left out
            posterior.focus(*(mode.vector for mode in reversed(modes)))
            found = self._by_visits(float(np.logaddexp(self.unvisited, seen)))
            if found is not None:
                return found
        pairs, parts = self._look_around()
        highest = max(self.laplace, rough.max(), self.unvisited)
        if highest < self.worth:
            return Evidence(
                posterior.n_states, highest, self.laplace, np.nan, 0.5, np.nan, 0.0,
                np.empty((0, posterior.size)), self.best, "laplace",
            )  # fmt: skip
        shares = np.exp(parts - logsumexp(parts))
        # a mode whose Laplace figure is off must still be visited
        shares = 0.8 * shares + 0.2 / len(shares)
        others = [mode.vector for _, mode in pairs if mode is not self.best]
        posterior.focus(*others, self.best.vector)
        components = [component for component, _ in pairs]
        exchanged = exchanges(posterior, components[0])
        sampler = Mixture(posterior, components, shares, exchanged, self.rng, self.surplus)
        return self._by_importance(sampler, n_adaptations, contested)

    def _many_parameters(self) -> bool:
        """Whether chains tell the evidence better than an importance sampler around modes does."""
        posterior = self.posterior
        return isinstance(posterior, CollapsedPosterior) and GibbsSampler.can_sample(posterior)

    def _look_around(self) -> tuple[list[tuple[Component, Mode]], Array]:
        """Densities around the modes, and the logs of their integrals; also finds `laplace`."""
        posterior, modes = self.posterior, self.modes
        pairs = [
            component_at(posterior, near)
            for mode in modes
            for near in near_modes(posterior, mode, only=len(modes) > 2)
        ]
        self.best = max((mode for _, mode in pairs), key=lambda mode: mode.log_density)
        if len(pairs) > len(modes):
            self.best = modes[0]
        parts = np.array([component.log_evidence for component, _ in pairs])
        # a mode at the edge of what the parameters may be has no finite curvature
        highest = max(quick_log_evidence(posterior, mode) for mode in modes)
        parts = np.where(np.isfinite(parts), parts, highest)
        all_are_visited = all(all_visited(posterior, mode) for mode in modes)
        self.laplace = self._laplace(pairs, parts, all_are_visited)
        return pairs, parts

    def _laplace(
        self, pairs: list[tuple[Component, Mode]], parts: Array, all_are_visited: bool
    ) -> float:
        """Laplace's figure, with what is known of unvisited states in place of modes of such."""
        posterior, n_modes = self.posterior, len(self.modes)
        value = laplace_sum(posterior, pairs, parts, n_modes) + self.labels
        if self.surplus is None:
            return value
        if not all_are_visited:
            held = [n for n, (_, mode) in enumerate(pairs) if all_visited(posterior, mode)]
            value = -np.inf
            if held:
                some = [pairs[n] for n in held]
                repeated = max(round(len(held) * n_modes / len(pairs)), 1)
                value = laplace_sum(posterior, some, parts[held], repeated) + self.labels
            left = [parts[n] for n in range(len(pairs)) if n not in held]
            # a state that is visited, if hardly, is in neither of the two
            self.leaves_out = max(left) + self.labels > max(value, self.unvisited) + _LEFT_OUT
        return float(np.logaddexp(value, self.unvisited))

    @property
    def _second_opinion(self) -> float:
        """Laplace's figure where it is one of all that is known, else NaN."""
        return np.nan if self.leaves_out else self.laplace

    def _by_importance(
        self, sampler: Mixture, n_adaptations: int, contested: bool
    ) -> Evidence | Mode:
        for attempt in range(1 + n_adaptations):
            sampler.draw(self.n_draws)
            weighed = weigh(sampler.log_weights())
            missed = self._missed_mode(sampler, weighed)
            if missed is not None:
                return missed
            behind = self._behind(weighed)
            if are_enough(weighed, behind) or attempt == n_adaptations:
                break
            if self.unvisited > weighed.log_mean + self.labels - _RARE:
                found = self._by_visits(self.laplace)
                if found is not None:
                    return found
            if self._many_parameters() and self.chains is None and behind < MARGIN:
                found = self._by_chains(sampler, weighed)
                if found is not None:
                    return found
            if self.surplus is not None and behind > MARGIN and attempt:
                break
            # where one draw in twelve counts, more of the same are worth more than components
            if weighed.effective < weighed.weights.size / 12:
                sampler.adapt(weighed.weights)
        if sampler.has_adapted and behind < 2.0 * MARGIN:
            # components put where the heaviest draws were make those draws look less heavy: the
            # figure has to come from draws that had no part in it
            sampler.start_afresh()
            for _ in range(_BATCHES if contested else 1):
                sampler.draw(_FRESH * self.n_draws)
                weighed = weigh(sampler.log_weights())
                if are_reliable(weighed) or self._behind(weighed) > _NEGLIGIBLE:
                    break
        return self._from_weights(sampler, weighed)

    def _by_chains(self, sampler: Mixture, weighed: Weighed) -> Evidence | None:
        """Evidence from chains that start where the importance weights are."""
        posterior, active = self.posterior, self.posterior.active
        keep = self.rng.choice(weighed.weights.size, size=_STARTS, p=spread(weighed.weights))
        starts = [posterior.unpack(sampler.points[n]) for n in keep]
        self.chains = run_chains(posterior, starts, self.rng)
        posterior.active = active
        size = len(self.chains.draws) // N_CHAINS
        chains = [self.chains.draws[n * size : (n + 1) * size] for n in range(N_CHAINS)]
        return self._by_bridge(chains, self.unvisited - self.labels, 0.0)

    def _by_bridge(
        self, chains: list[list[Parameters]], log_unvisited: float, unvisited_error: float
    ) -> Evidence | None:
        """Evidence where all states are visited, by a bridge, and the rest, which is given."""
        posterior = self.posterior
        assert isinstance(posterior, CollapsedPosterior)
        found = evidence_of_parts(posterior, chains, log_unvisited, unvisited_error, self.rng)
        if found is None or not found.error < _USABLE:
            return None
        points, weights = found.points, found.weights
        if self._climb_from(points) or not np.isfinite(self.laplace):
            self._look_around()
        return Evidence.from_draws(
            posterior, self.best, points, weights, found.log_mean, found.error, found.effective,
            "bridge", self._second_opinion, self.rng, self.n_kept, self.chains,
        )  # fmt: skip

    def _climb_from(self, points: Array) -> bool:
        """Climb from draws of chains, and add the mode if it is better than those known."""
        some = points[:: max(len(points) // _LOOKED_AT, 1)]
        self.posterior.focus(*some[:: max(len(some) // 8, 1)])
        values = [self.posterior.log_density(point) for point in some]
        found = climb(self.posterior, some[int(np.argmax(values))])
        if found.log_density > self.modes[0].log_density + _ABOVE:
            known = [bright_to_dim(self.posterior, found), *self.modes]
            self.modes = distinct_modes(self.posterior, known)
            return True
        return False

    def _behind(self, weighed: Weighed) -> float:
        """Nats below the best number of states."""
        return float(self.worth + MARGIN - weighed.log_mean - self.labels)

    def _from_weights(self, sampler: Mixture, weighed: Weighed) -> Evidence:
        posterior, error, weights = self.posterior, weighed.error, weighed.weights
        importance = weighed.log_mean + self.labels
        if self.base is not None:
            # what the draws were built on is an estimate, too
            error = math.hypot(error, self.base.error * sampler.surplus_weight(weights))
        keep = self.rng.choice(weights.size, size=self.n_kept, p=spread(weights))
        reliable = are_reliable(weighed) and sampler.any_inside
        if not sampler.any_inside:
            importance, error = np.nan, np.inf
        return Evidence(
            posterior.n_states,
            importance if sampler.any_inside else self.laplace,
            self._second_opinion,
            importance,
            error if reliable else (max(1.0, error) if np.isfinite(error) else 25.0),
            weighed.pareto_k,
            weighed.effective,
            sampler.points[keep],
            self.best,
            "importance" if reliable else "rough",
            Base(posterior, self.best, sampler.points.copy(), weights, weighed.log_mean, error)
            if np.isfinite(importance)
            else None,
            self.chains,
        )

    def _missed_mode(self, sampler: Mixture, weighed: Weighed) -> Mode | None:
        """Return a mode well above the best that is known, from where draws are far too heavy."""
        if not self.watches:
            return None
        point, value = sampler.highest()
        if self._top is None:
            self._top = self.posterior.log_density(self.best.vector)
        if not value > self._top + _ABOVE:
            # with many parameters even the draws around a missed mode are far below its top
            if weighed.effective > _LONE:
                return None
            point = sampler.points[int(np.argmax(weighed.weights))]
        active = self.posterior.active
        mode = climb(self.posterior, point)
        if self.posterior.log_density(mode.vector) > self._top + _ABOVE:
            return bright_to_dim(self.posterior, mode)
        # draws to come have to be of the same density as those before
        self.posterior.active = active
        return None

    def _by_visits(self, laplace: float) -> Evidence | None:
        """Evidence from how often states are not visited; None where that does not give it."""
        posterior, surplus = self.posterior, self.surplus
        if self._tried_visits or surplus is None or not GibbsSampler.can_sample(posterior):
            return None
        self._tried_visits = True
        starts = [posterior.unpack(mode.vector) for mode in self.modes]
        found = evidence_by_visits(surplus, starts, self.rng)
        if isinstance(found, Unsettled):
            if not self._many_parameters():
                # without delays the importance sampler goes on
                return None
            means = [np.mean([n for n in one if n] or [1]) for one in found.unvisited]
            error = math.hypot(found.error, float(np.std(means) / np.mean(means)))
            return self._by_bridge(
                found.chains, found.log_part - math.log(float(np.mean(means))), error
            )
        return Evidence.from_draws(
            posterior, self.modes[0], found.points, None, found.log_mean, found.error,
            found.effective, "gibbs", laplace, self.rng, self.n_kept,
        )  # fmt: skip
