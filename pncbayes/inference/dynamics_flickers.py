"""Which kinds of flicker to try, with how many levels, and on how fine a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pncbayes.inference.dynamics_point import DynamicsPoint, Family
from pncbayes.inference.dynamics_search import (
    Optimum,
    glance,
    merged_levels,
    residual_flicker,
    seen_at,
)
from pncbayes.inference.dynamics_store import (
    GLANCE_STEPS,
    HOPELESS,
    LEVEL_GAIN,
    LevelsFound,
    Search,
    Seen,
    apart,
    split,
)

__all__ = ["MOST_LEVELS", "find_flickers", "flickers", "refine"]

# Nats below the other kind of flicker, at a glance, at which this kind is not climbed.
OTHER_KIND = 100.0
# Log-likelihood that a flicker has to bring for other kinds of it to be tried.
_FLICKER_GAIN = 3.0
MOST_LEVELS = 5
# Points of the flicker for climbs that are to tell what is far behind: the staircase of a coarse
# grid buys levels, so few levels, which cost little, have a fine one.
COARSE_POINTS = 13
_POINTS = {1: 33, 2: 21, 3: 17}
# Nats below the best, on a coarse grid, at which as many levels, or more, are not looked at on a
# fine one; fewer levels gain more from it, for a staircase of few points buys levels.
_MORE_LEVELS, _FEWER_LEVELS = 12.0, 60.0
# Nats below what was refined at which still fewer levels are not tried.
_LOST = 25.0


def flickers(search: Search, found: Optimum | None) -> bool:
    """Whether a flicker explains anything that as many levels alone do not."""
    if found is None:
        return False
    plain = search.found.get((Family(), found.n_levels))
    return plain is None or found.log_likelihood > plain.log_likelihood + _FLICKER_GAIN


def find_flickers(search: Search, kinds: list[Family]) -> None:
    """Levels times a flicker, with the numbers of levels that come near.

    All kinds are looked at; those far behind at a glance are not climbed.
    """
    looked = {family: _look(search, family) for family in kinds}
    top = {family: max(seen[0][0] for seen in some.values()) for family, some in looked.items()}
    for family in sorted(kinds, key=lambda one: -top[one]):
        if top[family] > max(top.values()) - OTHER_KIND:
            _rise(search, family, looked[family])
        else:
            seen = max((one[0] for one in looked[family].values()), key=lambda one: one[0])
            place = seen_at(seen[2], seen[1])
            search.found[family, place.n_levels] = place
    refine(search)


def _points_for(n_levels: int) -> int:
    return _POINTS.get(n_levels, COARSE_POINTS)


def _bare(search: Search, n_levels: int) -> list[LevelsFound]:
    """Levels to let flicker: those found with that number, and those of more, joined."""
    own = [one for one in search.levels if one.point.n_states == n_levels]
    more = [one for one in search.levels if one.point.n_states > n_levels]
    if more:
        best = search.best_of(Family())
        assert best is not None
        # the number that levels alone would choose, or the next more
        near = min(more, key=lambda one: abs(one.point.n_states - best.n_levels))
        joined = merged_levels(near.point, near.occupancy, n_levels)
        own = [*own, LevelsFound(joined, near.occupancy[:n_levels])]
    return own


def _look(search: Search, family: Family) -> dict[int, list[Seen]]:
    """What each number of levels promises at a glance, best start first.

    A flicker stands for levels: no more are looked at than levels alone would need.
    """
    plain = search.best_of(Family())
    assert plain is not None
    most = min(plain.n_levels, MOST_LEVELS)
    found: dict[int, list[Seen]] = {}
    for n_levels in range(1, most + 1):
        search.tell(f"{family.name}, {n_levels}")
        posterior = search.posterior(family, n_levels, _points_for(n_levels))
        starts = []
        for bare in _bare(search, n_levels):
            sd, rate = _residual(search, bare.point)
            # half of the decay non-radiative: its rate fluctuates twice as much as the light
            amplitude = (2.0 if family.flicker == "k_nr" else 1.0) * np.clip(sd, 0.03, 1.0)
            point = replace(bare.point, amplitude=np.array([amplitude]), relaxation_rate_per_s=rate)
            starts.append((posterior, posterior.pack(point)))
        seen = apart(search.look(starts))
        found[n_levels] = sorted(
            [(*glance(p, vector, GLANCE_STEPS), p) for _, vector, p in seen],
            key=lambda one: -one[0],
        )
        values = [found[n][0][0] for n in sorted(found)]
        # twice no better than with fewer levels: more will not be, either
        if n_levels > 2 and max(values[-2:]) < max(values[:-2]) - LEVEL_GAIN:
            break
    return found


def _residual(search: Search, point: DynamicsPoint) -> tuple[float, float]:
    posterior = search.posterior(Family(), point.n_states)
    vector = posterior.pack(point)
    posterior.focus(vector)
    _, means, _, _ = posterior.expected(posterior.unpack(vector))
    share = posterior.smooth(vector)
    expected = np.einsum("tkx,kxg->t", share, means)
    return residual_flicker(search.likelihood.emission.totals, expected, search.data.width_s)


def _rise(search: Search, family: Family, looked: dict[int, list[Seen]]) -> None:
    """Climb with more and more levels, on a coarse grid, while they bring something."""
    highest = max(one[0][0] for one in looked.values())
    first = min(n for n, one in looked.items() if one[0][0] > highest - HOPELESS)
    before: Optimum | None = None
    for n_levels in range(first, min(search.most, MOST_LEVELS) + 1):
        seen = looked.get(n_levels, [])
        if before is not None:
            # what was found with one level fewer, split, is often nearer
            seen = sorted(
                [*seen[:1], *search.look(split(search, family, before))], key=lambda one: -one[0]
            )[:1]
        found = search.add(
            family, n_levels, [(one[2], one[1]) for one in seen], looked=True,
            most_points=_points_for(n_levels),
            floor=-np.inf if before is None else before.quick_log_evidence - _MORE_LEVELS,
        )  # fmt: skip
        gain = np.inf if before is None else found.log_likelihood - before.log_likelihood
        if gain < LEVEL_GAIN or not flickers(search, found):
            break
        before = found


def refine(search: Search) -> None:
    """Give what is near the best the grid that its photons ask for, and work out its evidence."""
    coarse = {
        key: one
        for key, one in search.found.items()
        if key[0].flicker and not np.isfinite(one.log_evidence)
    }
    if not coarse:
        return
    top = max(coarse, key=lambda key: coarse[key].quick_log_evidence)
    highest, n_best = coarse[top].quick_log_evidence, top[1]
    done: dict[tuple[Family, int], Optimum] = {}
    for key in sorted(coarse, key=lambda key: (key[1] > n_best, -key[1])):
        family, n_levels = key
        one = coarse[key]
        # a coarser grid than that of the best explains less
        coarser = one.posterior.grid.n_points < coarse[top].posterior.grid.n_points
        fewer = n_levels < n_best or coarser
        behind = highest - one.quick_log_evidence
        if behind > (_FEWER_LEVELS if fewer else _MORE_LEVELS):
            continue
        more = done.get((family, n_levels + 1))
        best = max((o.quick_log_evidence for o in done.values()), default=-np.inf)
        if fewer and more is not None and more.quick_log_evidence < best - _LOST:
            continue
        plain = search.found.get((Family(), n_levels))
        if plain is not None and one.quick_log_evidence < search.best_evidence - HOPELESS:
            continue
        # climbed anew, on as fine a grid as it takes, and its evidence worked out
        del search.found[key]
        start = (search.posterior(family, n_levels, one.posterior.grid.n_points), one.vector)
        floor = best - (_FEWER_LEVELS if fewer else _MORE_LEVELS)
        done[key] = search.add(family, n_levels, [start], floor=floor)
