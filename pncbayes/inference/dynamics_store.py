"""What a search of families of dynamics has found so far, and how it adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, climb, evidence_at, glance
from pncbayes.physics.dynamics_file import DynamicsPriors
from pncbayes.physics.modelfile import ModelFile

__all__ = [
    "GLANCE_STEPS", "HOPELESS", "LEVEL_GAIN", "LevelsFound", "Search", "Seen", "Start", "apart",
    "figure_of", "split",
]  # fmt: skip

Array = NDArray[np.float64]

# Nats below the best quick figure, after a glance, at which nothing more is tried.
HOPELESS = 60.0
GLANCE_STEPS = 5
# Log-likelihood that one more level has to bring: it has ten parameters and more.
LEVEL_GAIN = 6.0
# Nats of quick figures below the best at which no evidence is worked out.
_FAR = 15.0
# Nats within which two starts are taken to lead to one top.
_SAME = 1.0


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


def apart(seen: list[Seen]) -> list[Seen]:
    """The best of what was seen at a glance, and the next unless it leads there too."""
    best = seen[0][0]
    return seen[:1] + [one for one in seen[1:] if _SAME < best - one[0] < HOPELESS][:1]


def figure_of(one: Optimum) -> float:
    """Evidence, or the quick figure of what is far behind."""
    return one.log_evidence if np.isfinite(one.log_evidence) else one.quick_log_evidence


class Search:
    """Modes found so far.

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
    tell
        Called with a word on each step.
    """

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
        self.most = max(one.point.n_states for one in levels)
        self.likelihood = DynamicsPosterior(data, model, Family(), 1).likelihood
        self.found: dict[tuple[Family, int], Optimum] = {}

    def posterior(self, family: Family, n_levels: int, n_points: int = 1) -> DynamicsPosterior:
        """Density of a family."""
        return DynamicsPosterior(
            self.data, self.model, family, n_levels, n_points, self.likelihood, self.priors
        )

    @property
    def best(self) -> Optimum:
        """The best so far."""
        return max(self.found.values(), key=figure_of)

    @property
    def best_evidence(self) -> float:
        """Highest evidence so far."""
        known = [one.log_evidence for one in self.found.values()]
        return max((value for value in known if np.isfinite(value)), default=-np.inf)

    @property
    def best_quick(self) -> float:
        """Highest quick figure so far."""
        return max((one.quick_log_evidence for one in self.found.values()), default=-np.inf)

    def best_of(self, family: Family) -> Optimum | None:
        """Most probable number of levels of a family."""
        some = [one for (of, _), one in self.found.items() if of == family]
        if not some:
            return None
        return max(some, key=lambda one: (np.isfinite(one.log_evidence), one.quick_log_evidence))

    def look(self, starts: list[Start], n_steps: int = GLANCE_STEPS) -> list[Seen]:
        """A glance from each start, best first."""
        seen = [(*glance(posterior, vector, n_steps), posterior) for posterior, vector in starts]
        return sorted(seen, key=lambda one: -one[0])

    def add(
        self,
        family: Family,
        n_levels: int,
        starts: list[Start],
        *,
        looked: bool = False,
        least: float = -np.inf,
        most_points: int | None = None,
        floor: float = -np.inf,
    ) -> Optimum:
        """Climb from the best start and from another that is as good at a glance.

        Below a log-likelihood of `least` no evidence is worked out, nor where the points of the
        flicker are no more than `most_points`: that is for telling what is far behind. A climb ends
        early where the quick figure will hardly come up to `floor`, or to the best of all.
        """
        self.tell(f"{family.name}, {n_levels}")
        if len(starts) > 1 and not looked:
            starts = [(one[2], one[1]) for one in apart(self.look(starts))]
        if family != Family():
            floor = max(floor, self.best_quick - HOPELESS)
        tops = [
            climb(posterior, vector, most_points=most_points, floor=floor)
            for posterior, vector in starts
        ]
        tops.sort(key=lambda one: -one.log_density)
        spread = tuple(tops[0].log_density - one.log_density for one in tops)
        top = replace(tops[0], spread=spread)
        old = self.found.get((family, n_levels))
        if old is not None and old.log_density >= top.log_density:
            return old
        near = top.quick_log_evidence > self.best_quick - _FAR and top.log_likelihood > least
        if (near and most_points is None) or family == Family():
            top = evidence_at(top)
        self.found[family, n_levels] = top
        return top


def split(search: Search, family: Family, fewer: Optimum) -> list[Start]:
    """Starts with one level more: each level of a mode as two."""
    posterior = search.posterior(family, fewer.n_levels + 1, fewer.posterior.grid.n_points)
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
