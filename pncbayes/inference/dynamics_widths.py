"""Whether bins twice as wide say the same: levels that a bin width made do not outlive it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.inference.dynamics_point import DynamicsData
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, climb, evidence_at

__all__ = ["OtherWidth", "at_other_width", "exits_per_s", "rivals_of", "wider"]

Array = NDArray[np.float64]

# Log odds by which another answer has to win to contradict.
_CONTRADICTS = 3.0
# Nats of quick figures below the best at which a rival is given up.
_HOPELESS = 15.0
# Ratio of exit rates that is no contradiction, and standard errors beyond it.
_RATIO, _ERRORS = 1.35, 3.0
# Exits per bin beyond which a width is too wide to know a rate.
_FASTEST = 0.5


@dataclass(frozen=True)
class OtherWidth:
    """What bins of another width say.

    Attributes
    ----------
    width_s
        In s.
    kind, n_levels
        The most probable answer there.
    log_odds
        Of that answer against the one given, 0 where they are the same.
    reasons
        What contradicts; empty where nothing does.
    exits_per_s
        Exits of each level per s spent in it, bright to dim, at the given width and at this one,
        shape ``(2, n_levels)``.
    """

    width_s: float
    kind: str
    n_levels: int
    log_odds: float
    reasons: tuple[str, ...]
    exits_per_s: Array


def wider(data: DynamicsData, factor: int = 2) -> DynamicsData:
    """Join bins; those that are left over at the end go.

    Parameters
    ----------
    data
        What all families see.
    factor
        How many bins make one.

    Raises
    ------
    ValueError
        If there are fewer bins than that.
    """
    whole = data.counts.shape[0] // factor * factor
    if factor < 1 or whole == 0:
        raise ValueError(f"`factor` must be 1 to {data.counts.shape[0]}, the bins, got {factor}")
    counts = data.counts[:whole].reshape(-1, factor, data.n_gates).sum(axis=1)
    return replace(data, counts=np.ascontiguousarray(counts), width_s=factor * data.width_s)


def exits_per_s(one: Optimum) -> tuple[Array, Array]:
    """Exits of each level per s spent in it, hidden states together, and how many were seen.

    Returns
    -------
    rates, numbers : ndarray
        Bright to dim, shape ``(n_levels,)`` each.
    """
    posterior, rates = one.posterior, one.point.transition_rate_per_s
    occupied = posterior.gradient(one.vector)[2].occupied.sum(axis=1)
    elsewhere = posterior.level_of[:, None] != posterior.level_of
    leaving = np.bincount(
        posterior.level_of, occupied * (rates * elsewhere).sum(axis=1), minlength=one.n_levels
    )
    time = np.bincount(posterior.level_of, occupied, minlength=one.n_levels)
    first = [posterior.level_of.tolist().index(k) for k in range(one.n_levels)]
    order = np.argsort(-one.point.signal_per_s[first].sum(axis=1), kind="stable")
    exits = leaving / np.maximum(time, 1e-9)
    return exits[order], (leaving * posterior.data.width_s)[order]


def rivals_of(optima: Sequence[Optimum], kind_of: Callable[[Optimum], str]) -> list[Optimum]:
    """The best of each answer that differs from the first: one level more or fewer, another kind.

    Parameters
    ----------
    optima
        Most probable first.
    kind_of
        Says whether a mode is steady, blinking, flickering or both.
    """
    best = optima[0]
    chosen: dict[str, Optimum] = {}
    for one in optima[1:]:
        more = one.n_levels - best.n_levels
        if kind_of(one) != kind_of(best):
            chosen.setdefault("kind", one)
        elif abs(more) == 1:
            chosen.setdefault("more" if more > 0 else "fewer", one)
    return list(chosen.values())


def at_other_width(
    optima: Sequence[Optimum],
    kind_of: Callable[[Optimum], str],
    log_prior: Callable[[Optimum], float],
    factor: int = 2,
) -> OtherWidth:
    """Compare the best answer with its rivals in wider bins.

    Parameters
    ----------
    optima
        Most probable first.
    kind_of
        Says whether a mode is steady, blinking, flickering or both.
    log_prior
        Log prior of its family.
    factor
        How many bins make one.
    """
    data = wider(optima[0].posterior.data, factor)
    likelihood = None
    found: list[Optimum] = []
    for one in [optima[0], *rivals_of(optima, kind_of)]:
        old = one.posterior
        posterior = DynamicsPosterior(
            data, old.model, old.family, old.n_levels, old.grid.n_points, likelihood, old.priors
        )
        likelihood = posterior.likelihood
        floor = max((o.quick_log_evidence for o in found), default=np.inf) - _HOPELESS
        top = climb(posterior, one.vector, rounds=2, floor=floor if found else -np.inf)
        if not found or top.quick_log_evidence > floor:
            found.append(evidence_at(top))
    figures = np.array([one.log_evidence + log_prior(one) for one in found])
    best, first = found[int(np.argmax(figures))], found[0]
    log_odds = float(figures.max() - figures[0])
    reasons = []
    width_ms = 1e3 * data.width_s
    differs = (kind_of(best), best.n_levels) != (kind_of(first), first.n_levels)
    if differs and log_odds > _CONTRADICTS:
        reasons.append(
            f"in bins of {width_ms:g} ms another answer is better: {kind_of(best)}, "
            f"{best.n_levels} level{'s' * (best.n_levels > 1)} (log odds {log_odds:.1f})"
        )
    (before, number), (after, _) = exits_per_s(optima[0]), exits_per_s(first)
    if first.n_levels > 1:
        known = np.maximum(before, after) * data.width_s < _FASTEST
        allowed = np.log(_RATIO) + _ERRORS / np.sqrt(np.maximum(number, 1.0))
        ratio = np.log(np.maximum(after, 1e-6) / np.maximum(before, 1e-6))
        odd = np.flatnonzero(known & (np.abs(ratio) > allowed))
        if odd.size:
            k = int(odd[np.argmax(np.abs(ratio[odd]))])
            reasons.append(
                f"the rate of leaving level {k} depends on the bins: {before[k]:.3g} per s in "
                f"{1e3 * optima[0].posterior.data.width_s:g} ms, {after[k]:.3g} in {width_ms:g} ms"
            )
    return OtherWidth(
        data.width_s, kind_of(best), best.n_levels, log_odds, tuple(reasons),
        np.vstack([before, after]),
    )  # fmt: skip
