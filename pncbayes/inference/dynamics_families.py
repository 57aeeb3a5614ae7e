"""Which families of dynamics to try, with how many levels, and from where to begin each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.inference.dynamics_hidden import (
    alike_pairs,
    bleached_family,
    hidden_family,
    tied_family,
)
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import (
    Optimum,
    climb,
    evidence_at,
    glance,
    merged_levels,
    residual_flicker,
)
from pncbayes.physics.dynamics_file import DynamicsPriors
from pncbayes.physics.modelfile import ModelFile

__all__ = ["LevelsFound", "search_families"]

Array = NDArray[np.float64]

# Nats below the other kind of flicker, at a glance, at which this kind is not climbed.
_OTHER_KIND = 100.0
# Nats below the best quick figure, after a glance, at which nothing more is tried.
_HOPELESS = 60.0
# Nats of quick figures below the best at which no evidence is worked out.
_FAR = 25.0
# Nats of evidence below the best of all at which a family is not joined with another.
_WORTH = 8.0
# Nats that noise of single bins may have bought levels for.
_NOISE = 300.0
# Nats within which two starts are taken to lead to one top.
_SAME = 1.0
_FIRST_POINTS = 13
_GLANCE_STEPS = 5
_MOST_LEVELS_WITH_FLICKER = 5
# Hidden states at most.
_MOST_STATES = 6
# Nats that one more hidden state has to bring.
_HIDDEN_GAIN = 3.0
# Log-likelihood that a flicker has to bring for other kinds of it to be tried.
_FLICKER_GAIN = 3.0
# Log-likelihood that one more level has to bring: it has ten parameters and more.
_LEVEL_GAIN = 6.0


@dataclass(frozen=True)
class LevelsFound:
    """Levels without flicker, as the count of states found them.

    Attributes
    ----------
    point
        Their parameters, on the gates of `DynamicsData`.
    occupancy
        Bins in each, shape ``(n_levels,)``.
    """

    point: DynamicsPoint
    occupancy: Array


Start = tuple[DynamicsPosterior, Array]
Seen = tuple[float, Array, DynamicsPosterior]


def _apart(seen: list[Seen]) -> list[Seen]:
    """The best of what was seen at a glance, and the next unless it leads there too."""
    best = seen[0][0]
    return seen[:1] + [one for one in seen[1:] if _SAME < best - one[0] < _HOPELESS][:1]


class _Search:
    def __init__(
        self,
        data: DynamicsData,
        model: ModelFile,
        levels: Sequence[LevelsFound],
        priors: DynamicsPriors,
        tell: Callable[[str], None],
    ) -> None:
        self.data, self.model, self.levels, self.tell = data, model, levels, tell
        self.priors = priors
        self.likelihood = DynamicsPosterior(data, model, Family(), 1).likelihood
        self.found: dict[tuple[Family, int], Optimum] = {}

    def posterior(self, family: Family, n_levels: int, n_points: int = 1) -> DynamicsPosterior:
        return DynamicsPosterior(
            self.data, self.model, family, n_levels, n_points, self.likelihood, self.priors
        )

    @property
    def best(self) -> float:
        """Highest evidence so far."""
        known = [one.log_evidence for one in self.found.values()]
        return max((value for value in known if np.isfinite(value)), default=-np.inf)

    def best_of(self, family: Family) -> Optimum | None:
        """Most probable number of levels of a family."""
        some = [one for (of, _), one in self.found.items() if of == family]
        if not some:
            return None
        return max(some, key=lambda one: (np.isfinite(one.log_evidence), one.quick_log_evidence))

    def add(
        self,
        family: Family,
        n_levels: int,
        starts: list[Start],
        *,
        looked: bool = False,
        least: float = -np.inf,
    ) -> Optimum:
        """Climb from the best start and from another that is as good at a glance.

        Below a log-likelihood of `least` no evidence is worked out.
        """
        self.tell(f"{family.name}, {n_levels}")
        if len(starts) > 1 and not looked:
            seen = [
                (*glance(posterior, vector, _GLANCE_STEPS), posterior)
                for posterior, vector in starts
            ]
            seen.sort(key=lambda one: -one[0])
            starts = [(one[2], one[1]) for one in _apart(seen)]
        tops = [climb(posterior, vector) for posterior, vector in starts]
        tops.sort(key=lambda one: -one.log_density)
        spread = tuple(tops[0].log_density - one.log_density for one in tops)
        top = replace(tops[0], spread=spread)
        old = self.found.get((family, n_levels))
        if old is not None and old.log_density >= top.log_density:
            return old
        highest = max((o.quick_log_evidence for o in self.found.values()), default=-np.inf)
        near = top.quick_log_evidence > highest - _FAR and top.log_likelihood > least
        if near or family == Family():
            top = evidence_at(top)
        self.found[family, n_levels] = top
        return top

    # -------------------------------------------------------------------------- steps

    def plain(self) -> None:
        """Levels alone, from where the count of states found them."""
        for levels in self.levels:
            posterior = self.posterior(Family(), levels.point.n_states)
            self.add(Family(), levels.point.n_states, [(posterior, posterior.pack(levels.point))])

    def _bare(self, n_levels: int) -> list[LevelsFound]:
        """Levels to let flicker: those found with that number, and those of more, joined."""
        own = [one for one in self.levels if one.point.n_states == n_levels]
        more = [one for one in self.levels if one.point.n_states > n_levels]
        if more:
            best = self.best_of(Family())
            assert best is not None
            # the number that levels alone would choose, or the next more
            near = min(more, key=lambda one: abs(one.point.n_states - best.n_levels))
            joined = merged_levels(near.point, near.occupancy, n_levels)
            own = [*own, LevelsFound(joined, near.occupancy[:n_levels])]
        return own

    def flicker(self, family: Family) -> None:
        """Levels times a flicker of the brightness, with the numbers of levels that come near."""
        most = min(max(one.point.n_states for one in self.levels), _MOST_LEVELS_WITH_FLICKER)
        starts: dict[int, list[Seen]] = {}
        for n_levels in range(1, most + 1):
            self.tell(f"{family.name}, {n_levels}")
            seen = []
            for bare in self._bare(n_levels):
                sd, rate = self._residual(bare.point)
                posterior = self.posterior(family, n_levels, _FIRST_POINTS)
                # half of the decay non-radiative: its rate fluctuates twice as much as the light
                amplitude = (2.0 if family.flicker == "k_nr" else 1.0) * np.clip(sd, 0.03, 1.0)
                point = replace(
                    bare.point, amplitude=np.array([amplitude]), relaxation_rate_per_s=rate
                )
                value, vector = glance(posterior, posterior.pack(point), 2 * _GLANCE_STEPS)
                seen.append((value, vector, posterior))
            starts[n_levels] = _apart(sorted(seen, key=lambda one: -one[0]))
        highest = max(one[0][0] for one in starts.values())
        chosen = [n for n, one in starts.items() if one[0][0] > highest - _HOPELESS]
        before: Optimum | None = None
        for n_levels in range(min(chosen), most + 1):
            seen = starts[n_levels]
            if before is not None:
                # what was found with one level fewer, split, is often nearer
                split = self._split(family, before)
                more = [(*glance(p, v, _GLANCE_STEPS), p) for p, v in split]
                seen = sorted([*seen[:1], *more], key=lambda one: -one[0])[:1]
            least = -np.inf if before is None else before.log_likelihood + _LEVEL_GAIN
            found = self.add(
                family, n_levels, [(one[2], one[1]) for one in seen], looked=True, least=least
            )
            if before is not None and not found.log_likelihood > least:
                break
            if not self.flickers(found):
                break
            before = found

    def flickers(self, found: Optimum | None) -> bool:
        """Whether a flicker explains anything that as many levels alone do not."""
        if found is None:
            return False
        plain = self.found.get((Family(), found.n_levels))
        return plain is None or found.log_likelihood > plain.log_likelihood + _FLICKER_GAIN

    def more(self, best: Optimum | None) -> None:
        """Look whether one level more than the best of a family is as good, by splitting."""
        if best is None:
            return
        family, n_levels = best.posterior.family, best.n_levels + 1
        if n_levels > _MOST_LEVELS_WITH_FLICKER and family.flicker:
            return
        known = self.found.get((family, n_levels))
        if known is None or known.log_likelihood < best.log_likelihood:
            least = best.log_likelihood + _LEVEL_GAIN
            self.add(family, n_levels, self._split(family, best), least=least)

    def _split(self, family: Family, fewer: Optimum) -> list[tuple[DynamicsPosterior, Array]]:
        posterior = self.posterior(family, fewer.n_levels + 1, fewer.posterior.grid.n_points)
        order = np.argsort(-fewer.point.signal_per_s.sum(axis=1), kind="stable")
        point, starts = fewer.point.permuted(order), []
        n = fewer.n_levels
        for k in range(n):
            # above the brightest and below the darkest only where that is where it is
            for factor in (0.7,) if k < n - 1 else (0.6, 1.3):
                signal = np.vstack([point.signal_per_s, point.signal_per_s[k] * factor])
                rates = np.zeros((n + 1, n + 1))
                rates[:n, :n] = point.transition_rate_per_s
                rates[:n, n], rates[n, :n] = 0.2, 1.0 / n
                amplitude = point.amplitude
                if amplitude.size == n and n > 1:
                    amplitude = np.append(amplitude, amplitude[k])
                excess = None if point.excess is None else np.append(point.excess, point.excess[k])
                more = replace(
                    point, signal_per_s=signal, transition_rate_per_s=rates, amplitude=amplitude,
                    excess=excess,
                )  # fmt: skip
                starts.append((posterior, posterior.pack(more)))
        return starts

    def _residual(self, point: DynamicsPoint) -> tuple[float, float]:
        posterior = self.posterior(Family(), point.n_states)
        vector = posterior.pack(point)
        posterior.focus(vector)
        _, means, _, _ = posterior.expected(posterior.unpack(vector))
        share = posterior.smooth(vector)
        expected = np.einsum("tkx,kxg->t", share, means)
        return residual_flicker(self.likelihood.emission.totals, expected, self.data.width_s)

    def instead(self, family: Family, base: Family) -> Optimum | None:
        """Another kind of flicker, or more noise, from the top of a family that is like it."""
        top = self.best_of(base)
        if top is None or (family.flicker == "level" and top.n_levels < 2):
            return None
        posterior = self.posterior(family, top.n_levels, top.posterior.grid.n_points)
        start = posterior.pack(top.point)
        if family.flicker != base.flicker:
            value, start = glance(posterior, start, 2 * _GLANCE_STEPS)
            if value < top.log_density - _OTHER_KIND:
                return None
        return self.add(family, top.n_levels, [(posterior, start)])

    def noisy(self, top: Optimum) -> None:
        """Excess noise on the best number of levels, and on fewer that it may stand for."""
        base = top.posterior.family
        family = replace(base, excess=True)
        self.instead(family, base)
        for (of, n_levels), one in list(self.found.items()):
            behind = top.log_evidence - _figure(one)
            if of == base and n_levels < top.n_levels and behind < _NOISE:
                posterior = self.posterior(family, n_levels, one.posterior.grid.n_points)
                self.add(family, n_levels, [(posterior, posterior.pack(one.point))])

    def around(self, best: Optimum) -> None:
        """One level fewer and more than the best, where that is not known yet."""
        family = best.posterior.family
        if family.flicker in ("", "common") and not family.excess:
            return
        base = replace(family, excess=False) if family.excess else Family("common")
        for (of, n_levels), one in list(self.found.items()):
            near = abs(n_levels - best.n_levels) == 1
            if of == base and near and (family, n_levels) not in self.found:
                posterior = self.posterior(family, n_levels, one.posterior.grid.n_points)
                self.add(family, n_levels, [(posterior, posterior.pack(one.point))])
        self.more(best)

    def tied(self, best: Optimum) -> Optimum:
        """Let levels that emit alike be hidden states of one level, while that is better."""
        while best.n_levels > 1:
            pairs = alike_pairs(best)
            tried = [self._tied_pair(best, i, j) for i, j in pairs[:2]]
            better = [
                one for one in tried if one is not None and one.log_evidence > best.log_evidence
            ]
            if not better:
                return best
            best = max(better, key=lambda one: one.log_evidence)
        return best

    def _tied_pair(self, best: Optimum, i: int, j: int) -> Optimum | None:
        """Two levels as one; None where a glance says that they are two."""
        family, n_levels, [(posterior, start)] = self.start_of(best, *tied_family(best, i, j))
        value, start = glance(posterior, start, 2 * _GLANCE_STEPS)
        if value < best.log_density - _HOPELESS:
            return None
        return self.add(family, n_levels, [(posterior, start)])

    def hidden(self, best: Optimum) -> Optimum:
        """Add hidden states, whose dwell times differ, to one level after the other."""
        if best.posterior.family.bleaching:
            return best
        most = _MOST_STATES if best.posterior.grid.n_points == 1 else best.n_levels + 1
        if best.n_levels > 2 and best.posterior.family.flicker:
            return best
        while best.posterior.n_states < most and best.n_levels > 1:
            # a state more that explains nothing is not worth the work
            least = best.log_likelihood + _HIDDEN_GAIN
            tried = [
                self.add(*self.start_of(best, *hidden_family(best, level)), least=least)
                for level in range(best.n_levels)
            ]
            top = max(tried, key=lambda one: _figure(one))
            if not top.log_evidence > best.log_evidence + _HIDDEN_GAIN:
                return best
            best = top
        return best

    def bleached(self, best: Optimum) -> Optimum:
        """Let the level that the record ends in never be left, where that may be."""
        found = bleached_family(best)
        return best if found is None else self.add(*self.start_of(best, *found))

    def start_of(
        self, best: Optimum, family: Family, n_levels: int, point: DynamicsPoint
    ) -> tuple[Family, int, list[Start]]:
        """Where to begin a family whose parameters were made from a mode of another."""
        posterior = self.posterior(family, n_levels, best.posterior.grid.n_points)
        return family, n_levels, [(posterior, posterior.pack(point))]


def search_families(
    data: DynamicsData,
    model: ModelFile,
    levels: Sequence[LevelsFound],
    priors: DynamicsPriors,
    *,
    looks_right: Callable[[Optimum], bool] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[Optimum]:
    """Find the modes of all families that may explain a recording.

    Simple families first, and each from the tops of simpler ones: levels; levels times flicker of
    the brightness; of each level; of a non-radiative rate; and excess noise on what is best.

    Parameters
    ----------
    data
        What all families see.
    model
        Priors of levels, rates and excess noise.
    levels
        Levels of one to so many states, as found without flicker.
    priors
        Priors of the flicker.
    looks_right
        Says of a mode whether dwell times of data drawn from it look like those of the data: then
        no hidden states are tried.
    on_step
        Called with a word on each step.

    Returns
    -------
    list of Optimum
        One for each family and number of levels that was tried, best evidence first.
    """
    search = _Search(data, model, levels, priors, on_step or (lambda text: None))
    search.plain()
    common = Family("common")
    search.flicker(common)
    best = search.best_of(common)
    if search.flickers(best):
        if data.delays is not None:
            search.flicker(Family("k_nr"))
        if best is not None and _figure(best) > search.best - _WORTH:
            search.instead(Family("level"), common)
    tops = [search.best_of(Family(kind)) for kind in ("", "common", "k_nr", "level")]
    near = [one for one in tops if one is not None and one.log_evidence > search.best - _WORTH]
    for top in sorted(near, key=lambda one: -one.log_evidence)[:2]:
        search.noisy(top)
    search.around(max(search.found.values(), key=_figure))
    best = search.tied(max(search.found.values(), key=_figure))
    # hidden states are for dwell times that the levels do not explain
    if looks_right is None or not looks_right(best):
        best = search.hidden(best)
    search.bleached(best)
    return sorted(search.found.values(), key=lambda one: -_figure(one))


def _figure(one: Optimum) -> float:
    """Evidence, or the quick figure of what is far behind."""
    return one.log_evidence if np.isfinite(one.log_evidence) else one.quick_log_evidence
