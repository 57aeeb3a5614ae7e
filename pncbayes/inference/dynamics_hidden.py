"""Families whose levels have several hidden states, or are never left, made from simpler ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.inference.dynamics_point import DynamicsPoint, Family
from pncbayes.inference.dynamics_search import Optimum

__all__ = ["alike_pairs", "bleached_family", "hidden_family", "joined_family", "tied_family"]

Array = NDArray[np.float64]
Made = tuple[Family, int, DynamicsPoint]

# Log brightness within which two levels may be one with hidden states.
_ALIKE = 0.35
# Share of the recording that a dot has to be dark at its end, and of that share the time that it
# may have been dark before.
_LONG, _BEFORE = 0.05, 0.02


def _time_in_levels(one: Optimum) -> Array:
    """Bins in each level, shape ``(n_levels,)``."""
    occupied = one.posterior.gradient(one.vector)[2].occupied.sum(axis=1)
    return np.bincount(one.posterior.level_of, occupied, minlength=one.n_levels)


def alike_pairs(one: Optimum) -> list[tuple[int, int]]:
    """Neighbouring levels that may emit alike, most alike first."""
    first = [one.posterior.level_of.tolist().index(k) for k in range(one.n_levels)]
    rate = one.point.signal_per_s.sum(axis=1)[first]
    order = np.argsort(-rate, kind="stable")
    apart = -np.diff(np.log(np.maximum(rate[order], 1e-3)))
    near = [k for k in np.argsort(apart, kind="stable") if apart[k] < _ALIKE]
    return [(min(order[k], order[k + 1]), max(order[k], order[k + 1])) for k in near]


def tied_family(best: Optimum, i: int, j: int) -> Made:
    """Two levels as hidden states of one, which emits what the two did on average."""
    posterior, point = best.posterior, best.point
    share = _time_in_levels(best)
    weight = share[i] / max(share[i] + share[j], 1e-9)
    first_i, first_j = (posterior.level_of.tolist().index(level) for level in (i, j))
    joined = point.signal_per_s.copy()
    members = np.isin(posterior.level_of, (i, j))
    joined[members] = weight * joined[first_i] + (1.0 - weight) * joined[first_j]
    _, level_of = np.unique(
        np.where(posterior.level_of == j, i, posterior.level_of), return_inverse=True
    )
    family = replace(posterior.family, level_of=tuple(int(k) for k in level_of))
    return family, best.n_levels - 1, replace(point, signal_per_s=joined)


def joined_family(best: Optimum) -> Made:
    """Each level one state again, that is left as often as its hidden states were."""
    posterior, point = best.posterior, best.point
    occupied = posterior.gradient(best.vector)[2].occupied.sum(axis=1)
    members = posterior.level_of == np.arange(best.n_levels)[:, None]
    share = members * np.maximum(occupied, 1e-6)
    share = share / share.sum(axis=1, keepdims=True)
    rates = share @ point.transition_rate_per_s @ members.T
    rates = np.maximum(rates, 1e-3)
    np.fill_diagonal(rates, 0.0)
    first = members.argmax(axis=1)
    joined = replace(point.permuted(first), transition_rate_per_s=np.ascontiguousarray(rates))
    return replace(posterior.family, level_of=()), best.n_levels, joined


def hidden_family(best: Optimum, level: int) -> Made:
    """One more hidden state of a level: one is then left soon, the other late."""
    posterior, point = best.posterior, best.point
    members = np.flatnonzero(posterior.level_of == level)
    occupied = posterior.gradient(best.vector)[2].occupied.sum(axis=1)
    parent = int(members[np.argmax(occupied[members])])
    n = posterior.n_states
    order = np.append(np.arange(n), parent)
    rates = point.transition_rate_per_s[np.ix_(order, order)].copy()
    rates[:, parent] *= 0.5
    rates[:, n] *= 0.5
    rates[parent] *= 3.0
    rates[n] *= 0.3
    rates[parent, n] = rates[n, parent] = 0.05
    np.fill_diagonal(rates, 0.0)
    more = replace(point.permuted(order), transition_rate_per_s=np.maximum(rates, 1e-3))
    level_of = (*(int(k) for k in posterior.level_of), level)
    return replace(posterior.family, level_of=level_of), best.n_levels, more


def bleached_family(best: Optimum) -> Made | None:
    """The level in which the record ends, never left; None where that cannot be."""
    posterior = best.posterior
    if best.n_levels < 2 or posterior.family.bleaching:
        return None
    time = posterior.smooth(best.vector).sum(axis=2)
    n_bins = time.shape[0]
    last = int(np.argmax(time[-1]))
    dark = int(np.argmin(best.point.signal_per_s.sum(axis=1)))
    # in the darkest state for long at the end, and hardly ever before
    length = int(np.argmax(time[::-1, last] < 0.5)) or n_bins
    earlier = float(time[: n_bins - length, last].sum())
    if last != dark or length < max(_LONG * n_bins, 2) or earlier > _BEFORE * length:
        return None
    order = np.array([k for k in range(posterior.n_states) if k != last] + [last])
    level_of = posterior.level_of[order]
    if (level_of == level_of[-1]).sum() > 1:
        return None
    names = {int(k): n for n, k in enumerate(dict.fromkeys(level_of.tolist()))}
    of = tuple(names[int(k)] for k in level_of)
    plain = of == tuple(range(best.n_levels))
    family = replace(posterior.family, bleaching=True, level_of=() if plain else of)
    return family, best.n_levels, best.point.permuted(order)
