"""Which families of dynamics to try, with how many levels, and from where to begin each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pncbayes.inference.dynamics_flickers import (
    COARSE_POINTS,
    MOST_LEVELS,
    OTHER_KIND,
    find_flickers,
    flickers,
)
from pncbayes.inference.dynamics_hidden import (
    alike_pairs,
    bleached_family,
    hidden_family,
    joined_family,
    tied_family,
)
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_search import Optimum, climb, evidence_at, glance
from pncbayes.inference.dynamics_store import (
    GLANCE_STEPS,
    HOPELESS,
    LEVEL_GAIN,
    LevelsFound,
    Search,
    Start,
    figure_of,
    split,
)
from pncbayes.physics.dynamics_file import DynamicsPriors
from pncbayes.physics.modelfile import ModelFile

__all__ = ["LevelsFound", "search_families"]

# Nats of evidence below the best of all at which a family is not joined with another.
_WORTH = 8.0
# Nats that noise of single bins may have bought levels for.
_NOISE = 300.0
# Log-likelihood that excess noise has to bring at a glance.
_NOISE_GAIN = 1.0
# Hidden states at most.
_MOST_STATES = 6
# Nats that one more hidden state has to bring.
_HIDDEN_GAIN = 3.0
_LAST_STEPS = 15


def _instead(search: Search, family: Family, base: Family) -> None:
    """Another kind of flicker from the top of a family that is like it."""
    top = search.best_of(base)
    if top is None or (family.flicker == "level" and top.n_levels < 2):
        return
    posterior = search.posterior(family, top.n_levels, top.posterior.grid.n_points)
    value, start = glance(posterior, posterior.pack(top.point), 2 * GLANCE_STEPS)
    if value > top.log_density - OTHER_KIND:
        search.add(family, top.n_levels, [(posterior, start)])


def _noisy(search: Search, top: Optimum) -> None:
    """Excess noise on the best number of levels, and on fewer that it may stand for."""
    base = top.posterior.family
    family = replace(base, excess=True)
    for (of, n_levels), one in list(search.found.items()):
        behind = top.log_evidence - figure_of(one)
        if of != base or n_levels > top.n_levels or behind > _NOISE:
            continue
        posterior = search.posterior(family, n_levels, one.posterior.grid.n_points)
        value, start = glance(posterior, posterior.pack(one.point), 2 * GLANCE_STEPS)
        prior = posterior.log_prior(start)[0]
        brings = value - prior > one.log_likelihood + _NOISE_GAIN
        if brings and value > top.log_density - HOPELESS:
            search.add(family, n_levels, [(posterior, start)])


def _around(search: Search, best: Optimum) -> None:
    """One level fewer and more than the best, where that is not known yet."""
    family = best.posterior.family
    if family.flicker in ("", "common", "k_nr") and not family.excess:
        return
    base = replace(family, excess=False) if family.excess else Family("common")
    for (of, n_levels), one in list(search.found.items()):
        near = abs(n_levels - best.n_levels) == 1
        if of == base and near and (family, n_levels) not in search.found:
            posterior = search.posterior(family, n_levels, one.posterior.grid.n_points)
            search.add(family, n_levels, [(posterior, posterior.pack(one.point))])
    _more(search, best)


def _more(search: Search, best: Optimum) -> None:
    """Look whether one level more than the best of a family is as good, by splitting."""
    family, n_levels = best.posterior.family, best.n_levels + 1
    if n_levels > min(search.most, MOST_LEVELS):
        return
    known = search.found.get((family, n_levels))
    if known is not None and known.log_likelihood >= best.log_likelihood:
        return
    # on a coarse grid, where that is enough to tell
    coarse = best
    if best.posterior.grid.n_points > COARSE_POINTS:
        coarse = climb(
            search.posterior(family, best.n_levels, COARSE_POINTS), best.vector,
            most_points=COARSE_POINTS,
        )  # fmt: skip
    looked = search.look(split(search, family, coarse))[0]
    more = climb(looked[2], looked[1], most_points=COARSE_POINTS)
    if more.log_likelihood > coarse.log_likelihood + LEVEL_GAIN:
        posterior = search.posterior(family, n_levels, best.posterior.grid.n_points)
        search.add(
            family, n_levels, [(posterior, more.vector)], least=best.log_likelihood + LEVEL_GAIN
        )


def _tied(search: Search, best: Optimum) -> Optimum:
    """Let levels that emit alike be hidden states of one level, while that is better."""
    while best.n_levels > 1:
        tried = [_tied_pair(search, best, i, j) for i, j in alike_pairs(best)[:2]]
        better = [one for one in tried if one is not None and one.log_evidence > best.log_evidence]
        if not better:
            break
        best = max(better, key=lambda one: one.log_evidence)
    if best.posterior.family.level_of and not best.posterior.family.bleaching:
        # levels that were bought in pieces may be whole
        search.add(*_start_of(search, best, *joined_family(best)))
        best = search.best
    return best


def _tied_pair(search: Search, best: Optimum, i: int, j: int) -> Optimum | None:
    """Two levels as one; None where a glance says that they are two."""
    family, n_levels, [(posterior, start)] = _start_of(search, best, *tied_family(best, i, j))
    value, start = glance(posterior, start, 2 * GLANCE_STEPS)
    if value < best.log_density - HOPELESS:
        return None
    return search.add(family, n_levels, [(posterior, start)])


def _hidden(search: Search, best: Optimum) -> Optimum:
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
            search.add(*_start_of(search, best, *hidden_family(best, level)), least=least)
            for level in range(best.n_levels)
        ]
        top = max(tried, key=figure_of)
        if not top.log_evidence > best.log_evidence + _HIDDEN_GAIN:
            return best
        best = top
    return best


def _start_of(
    search: Search, best: Optimum, family: Family, n_levels: int, point: DynamicsPoint
) -> tuple[Family, int, list[Start]]:
    """Where to begin a family whose parameters were made from a mode of another."""
    posterior = search.posterior(family, n_levels, best.posterior.grid.n_points)
    return family, n_levels, [(posterior, posterior.pack(point))]


def _settled(search: Search) -> None:
    """Climb the last steps of the best with next to no switch left out."""
    best = search.best
    exact = climb(best.posterior, best.vector, max_steps=_LAST_STEPS, rounds=1, exact=True)
    key = (best.posterior.family, best.n_levels)
    search.found[key] = replace(evidence_at(exact), spread=best.spread)


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
    the brightness or of a non-radiative rate; of each level; and excess noise, hidden states and
    bleaching on what is best.

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
    search = Search(data, model, levels, priors, on_step or (lambda text: None))
    for one in search.levels:
        posterior = search.posterior(Family(), one.point.n_states)
        search.add(Family(), one.point.n_states, [(posterior, posterior.pack(one.point))])
    common = Family("common")
    find_flickers(search, [common] if data.delays is None else [common, Family("k_nr")])
    best = search.best_of(common)
    if (
        best is not None
        and flickers(search, best)
        and figure_of(best) > search.best_evidence - _WORTH
    ):
        _instead(search, Family("level"), common)
    tops = [search.best_of(Family(kind)) for kind in ("", "common", "k_nr", "level")]
    known = [one for one in tops if one is not None and np.isfinite(one.log_evidence)]
    near = [one for one in known if one.log_evidence > search.best_evidence - _WORTH]
    for top in sorted(near, key=lambda one: -one.log_evidence)[:2]:
        _noisy(search, top)
    _around(search, search.best)
    best = _tied(search, search.best)
    # hidden states are for dwell times that the levels do not explain
    if looks_right is None or not looks_right(best):
        best = _hidden(search, best)
    bleached = bleached_family(best)
    if bleached is not None:
        search.add(*_start_of(search, best, *bleached))
    _settled(search)
    return sorted(search.found.values(), key=lambda one: -figure_of(one))
