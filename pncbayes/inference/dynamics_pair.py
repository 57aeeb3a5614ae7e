"""Two emitters in one spot against the levels of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.hmm.product_likelihood import ProductGradient
from pncbayes.inference.dynamics_point import DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, climb, glance, log_volume, merged_levels

__all__ = [
    "PairEvidence", "PairFinding", "PairPosterior", "compare_pair", "pair_evidence",
    "pair_probability", "pair_remark",
]  # fmt: skip

Array = NDArray[np.float64]

# What shines in each state: what is always there, the first emitter, the second.
_LIGHT = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
# Switches of one emitter, and the rate of each: first on, second on, first off, second off.
_FROM = np.array([0, 2, 0, 1, 1, 3, 2, 3])
_TO = np.array([1, 3, 2, 3, 0, 2, 0, 1])
_WHICH = np.array([0, 0, 1, 1, 2, 2, 3, 3])
# Level, bright to dark, that each state is taken for; -1: a state that was hardly visited.
_CALLED = {3: ((2, 1, 1, 0), (2, 1, -1, 0), (-1, 1, 2, 0), (2, 0, 1, -1)), 4: ((3, 1, 2, 0),)}
# Steps of a glance at a start; step of a finite difference over the scale of the coordinate.
_GLANCE_STEPS, _STEP = 8, 0.05
# Nats below the best start at which none is climbed, and below which two lead to one top; nats of
# log density below the levels, at a glance, that no pair makes good.
_HOPELESS, _SAME, _LOST = 40.0, 1.0, 300.0
# Probability of a pair beforehand, low because experimenters choose single dots; visits of its
# rarest state at least.
_PRIOR, _LEAST_VISITS = 0.1, 2.0


class PairPosterior(DynamicsPosterior):
    """Log posterior density of two emitters that blink apart, their light added.

    In state (a, b) each gate has the signal ``base + a A + b B``: a factorial hidden Markov chain
    [1]_. Coordinates are logarithms: of base, A and B in each gate, then of the rates per s of A
    on, B on, A off, B off. The brightest state has the prior of the brightest level; how it is
    shared between base, A and B is uniform (their levels do not repel); decays are Dirichlet
    around the common shape, and each rate has the prior of an exit rate.

    References
    ----------
    .. [1] Ghahramani, Jordan, Machine Learning 29, 245 (1997), doi:10.1023/A:1007425814087
    """

    def __init__(self, like: DynamicsPosterior) -> None:
        """Take data, likelihood and priors of a density of levels."""
        super().__init__(like.data, like.model, Family(), 4, 1, like.likelihood, like.priors)
        self._rates_at = 3 * like.data.n_gates
        self._flicker_at = self._excess_at = self._rates_at + 4

    @property
    def log_orders(self) -> float:
        """Log of two: either emitter may be called the first."""
        return float(np.log(2.0))

    def emitters(self, vector: Array) -> tuple[Array, Array]:
        """Light of base, A and B ``(3, n_gates)``, and the rates ``(4,)``, all per s."""
        positive = np.exp(np.clip(vector, -60.0, 60.0))
        return positive[: self._rates_at].reshape(3, -1), positive[self._rates_at :]

    def unpack(self, vector: Array) -> DynamicsPoint:
        """The four states: both dark, A, B, both bright."""
        light, some = self.emitters(vector)
        rates = np.zeros((4, 4))
        rates[_FROM, _TO] = some[_WHICH]
        return DynamicsPoint(_LIGHT @ light, rates, np.empty(0))

    def log_prior(self, vector: Array) -> tuple[float, Array]:
        """Log prior density of the coordinates, and its gradient, shape ``(size,)``."""
        light, rates = self.emitters(vector)
        part = light.sum(axis=1)
        total, top, exits = part.sum(), self.model.brightest_rate_per_s, self.model.exit_rate_per_s
        z = np.log(total / top.median) / top.sigma
        # shares uniform on the simplex, density 2, seen in the logs of the parts
        value = -0.5 * z**2 + np.log(2.0 / top.sigma) + np.log(part / total).sum()
        by_part = 1.0 - (3.0 + z / top.sigma) * part / total
        shape = light / part[:, None]
        gates = by_part[:, None] * shape
        if self.data.n_gates > 1:
            weight = self.data.concentration * self.data.base
            value += 3.0 * (gammaln(self.data.concentration) - gammaln(weight).sum())
            value += (weight * np.log(np.maximum(shape, 1e-300))).sum()
            gates = gates + weight - self.data.concentration * shape
        z_rates = np.log(rates / exits.median) / exits.sigma
        value -= 0.5 * (z_rates**2).sum() + 4.0 * np.log(exits.sigma) + 2.5 * np.log(2.0 * np.pi)
        return float(value), np.concatenate([gates.ravel(), -z_rates / exits.sigma])

    def gradient(self, vector: Array) -> tuple[float, Array, ProductGradient]:
        """Log posterior density, its gradient ``(size,)``, and the parts of the likelihood."""
        point, one = self.unpack(vector), np.ones((1, 1))
        means, rates = self.expected(point)[1], point.transition_rate_per_s
        parts = self.likelihood.gradient(means, rates, one, one[0], active=self.active)
        value, slope = self.log_prior(vector)
        light, some = self.emitters(vector)
        by_light = _LIGHT.T @ parts.means[:, 0] * light * self.data.width_s
        by_rate = np.bincount(_WHICH, parts.transition_rate[_FROM, _TO]) * some
        return value + parts.value, slope + np.concatenate([by_light.ravel(), by_rate]), parts

    def curvature(self, vector: Array, parts: ProductGradient) -> Array:
        """Diagonal curvature if the states were known, shape ``(size,)``: a scale."""
        light, some = self.emitters(vector)
        width_s, bins = self.data.width_s, np.maximum(parts.occupied.sum(axis=1), 1e-3)
        means = self.expected(self.unpack(vector))[1][:, 0]
        known = (_LIGHT.T @ (bins[:, None] / np.maximum(means, 1e-9))) * (light * width_s) ** 2
        if self.data.n_gates > 1:
            known = known + self.data.concentration * self.data.base
        jumps = np.bincount(_WHICH, bins[_FROM]) * width_s * some
        return np.concatenate([known.ravel(), jumps]) + 0.25

    def hessian(self, vector: Array) -> tuple[Array, Array]:
        """Of minus the log density, by central differences, and the scale."""
        scale = 1.0 / np.sqrt(self.curvature(vector, self.gradient(vector)[2]))
        steps = np.diag(_STEP * scale)
        rows = [self.gradient(vector - s)[1] - self.gradient(vector + s)[1] for s in steps]
        hessian = np.array(rows) / (2.0 * _STEP * scale[:, None])
        return 0.5 * (hessian + hessian.T), scale


@dataclass(frozen=True)
class PairEvidence:
    """Two emitters that explain a recording, the brighter one first.

    Attributes
    ----------
    log_evidence, log_bayes_factor
        By Laplace's approximation, and over that of the levels it was begun from; -inf where a
        glance said that it is hopeless.
    brightness_per_s, base_per_s
        Light of each emitter ``(2,)``, and when both are dark, counts per s without background.
    on_rate_per_s, off_rate_per_s
        Of each emitter, per s, shape ``(2,)``.
    log_likelihood, least_visits
        At the top, and visits of the rarest of the four states; -inf and 0 without a climb.
    """

    log_evidence: float
    log_bayes_factor: float
    brightness_per_s: Array
    base_per_s: float
    on_rate_per_s: Array
    off_rate_per_s: Array
    log_likelihood: float
    least_visits: float


def _starts(point: DynamicsPoint, occupancy: Array) -> list[Array]:
    """Coordinates for each way to call levels the states of a pair."""
    order = np.argsort(-point.signal_per_s.sum(axis=1), kind="stable")
    signal, time = point.signal_per_s[order], np.maximum(occupancy[order], 1e-6)
    rates, starts = point.transition_rate_per_s[np.ix_(order, order)], []
    for called in _CALLED[order.size]:
        level = np.array(called)
        seen = level >= 0
        # as certain as their photons make them: one that is rare says little of the sum
        sure = np.sqrt(time / signal.sum(axis=1))[level[seen], None]
        light = np.linalg.lstsq(sure * _LIGHT[seen], sure * signal[level[seen]], rcond=None)[0]
        light = np.maximum(light, 0.01 * signal[0] + 1e-6)
        # a level that stands for two states is entered as often as both
        alike = np.array([called.count(k) for k in called])
        both = seen[_FROM] & seen[_TO]
        left, entered, which = _FROM[both], _TO[both], _WHICH[both]
        weight = time[level[left]]
        switches = weight * rates[level[left], level[entered]] / alike[entered]
        some = np.bincount(which, switches) / np.bincount(which, weight)
        starts.append(np.log(np.concatenate([light.ravel(), np.maximum(some, 0.02)])))
    return starts


def pair_evidence(optimum: Optimum) -> PairEvidence:
    """Work out how well two emitters that blink apart explain what levels of one explain.

    Parameters
    ----------
    optimum
        Of three or four levels alone, with its evidence.

    Raises
    ------
    ValueError
        If there is anything beside levels, their number is another, or their evidence unknown.
    """
    family, n, free = optimum.posterior.family, optimum.n_levels, optimum.log_evidence
    if family != Family() or n not in _CALLED:
        raise ValueError(f"`optimum` must be of 3 or 4 levels alone, got {n} of {family.name}")
    if not np.isfinite(free):
        raise ValueError(f"`optimum` needs its log evidence (`evidence_at`), got {free}")
    pair, point = PairPosterior(optimum.posterior), optimum.point
    occupancy = optimum.posterior.gradient(optimum.vector)[2].occupied.sum(axis=1)
    starts = _starts(point, occupancy)
    if n == 4:
        # the fourth may be none: two middle ones that are alike, or one hardly visited
        starts += _starts(merged_levels(point, occupancy, 3), np.ones(3))
    glances = (glance(pair, start, _GLANCE_STEPS) for start in starts)
    seen = sorted(glances, key=lambda one: -one[0])
    value, vector = seen[0]
    figure, log_likelihood, visits = -np.inf, -np.inf, np.zeros(4)
    if value > optimum.log_density - _LOST:
        second = [one[1] for one in seen[1:] if _SAME < value - one[0] < _HOPELESS][:1]
        tops = [climb(pair, start) for start in (vector, *second)]
        top = max(tops, key=lambda one: one.log_density)
        vector, log_likelihood = top.vector, top.log_likelihood
        # the bins with switches may be those of the other
        pair.focus(vector)
        top_value, _, parts = pair.gradient(vector)
        figure = top_value + log_volume(*pair.hessian(vector)) + pair.log_orders
        exits_per_s = pair.unpack(vector).transition_rate_per_s.sum(axis=1)
        visits = parts.occupied.sum(axis=1) * pair.data.width_s * exits_per_s
    light, rates = pair.emitters(vector)
    base, *brightness = light.sum(axis=1)
    order = np.argsort(brightness)[::-1]
    return PairEvidence(
        figure, figure - free, np.array(brightness)[order], float(base), rates[:2][order],
        rates[2:][order], log_likelihood, float(visits.min()),
    )  # fmt: skip


@dataclass(frozen=True)
class PairFinding:
    """A pair, the best of one dot, and probability and log odds of the pair, prior included."""

    probability: float
    log_odds: float
    pair: PairEvidence
    free: Optimum


def compare_pair(optima: Sequence[Optimum], prior: float = _PRIOR) -> PairFinding | None:
    """Compare a pair with the best of what one dot may do; None without 3 or 4 levels alone.

    None as well if a state was hardly visited: the light of any three levels adds up.

    Parameters
    ----------
    optima
        What one dot may do, all families: a drift or noise looks like a pair beside levels alone.
    prior
        Probability of a pair beforehand.

    Raises
    ------
    ValueError
        If `optima` is empty or has no evidence, or `prior` is not between 0 and 1.
    """
    if not 0.0 < prior < 1.0:
        raise ValueError(f"`prior` must be a probability between 0 and 1, got {prior}")
    known = [one for one in optima if np.isfinite(one.log_evidence)]
    if not known:
        raise ValueError(f"`optima` must have log evidence; none of {len(optima)} has")
    known.sort(key=lambda one: -one.log_evidence)
    plain = [one for one in known if one.posterior.family == Family() and one.n_levels in _CALLED]
    if not plain:
        return None
    # both numbers lead to the same top
    pair, free = pair_evidence(plain[0]), known[0]
    if np.isfinite(pair.log_evidence) and pair.least_visits < _LEAST_VISITS:
        return None
    log_odds = pair.log_evidence - free.log_evidence + float(np.log(prior / (1.0 - prior)))
    return PairFinding(float(np.exp(-np.logaddexp(0.0, -log_odds))), log_odds, pair, free)


def pair_probability(optima: Sequence[Optimum], prior: float = _PRIOR) -> float:
    """Probability of a pair, as in `compare_pair`; 0 where that is None."""
    return 0.0 if (found := compare_pair(optima, prior)) is None else found.probability


def pair_remark(found: PairFinding | None) -> str:
    """Say that there may be more than one dot where that is probable; else an empty text."""
    if found is None or not found.probability > 0.5:
        return ""
    first, second = (f"{1e-3 * rate:.2g}" for rate in found.pair.brightness_per_s)
    number = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(found.free.n_levels, "the")
    return (
        f"may be more than one dot: two emitters of {first} and {second} kcps that blink apart "
        f"explain it better than {number} levels of one (odds e^{found.log_odds:.1f})"
    )
