r"""Evidence of one state more from how often it is not visited.

Let :math:`Z_K` be the evidence of K states and N the number of states that a path never visits.
The part of :math:`Z_K` from points and paths with a given state unvisited needs no likelihood of K
states: it is an integral over draws of K - 1 states, with their paths, and over the parameters of
the other state, whose visits have the probability

.. math::

    \frac{K-1}{K} \exp\Bigl(-\sum_i q_{i,new} T_i\Bigr)

not to occur in times :math:`T_i`. Divided by the expectation of N among posterior draws of K states
it is :math:`Z_K`: the candidate's formula [1]_ for an event in place of a point. It is exact, it
gets no harder with the number of parameters, and it is precise where a state is surplus: where the
importance sampler has the most trouble. Where all states are always visited it says nothing.

References
----------
.. [1] Chib, S. Marginal likelihood from the Gibbs output. J. Am. Stat. Assoc. 90, 1313 (1995),
   doi:10.1080/01621459.1995.10476635.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.inference.gibbs import GibbsSampler
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.prior_kernels import log_new_level
from pncbayes.inference.special import log_sum_exp
from pncbayes.inference.unvisited import LOG_ABOVE, Base, NewState

__all__ = ["ByVisits", "Unsettled", "evidence_by_visits", "log_not_visited"]

Array = NDArray[np.float64]

_PATHS = 120
_WARM_UP, _LOOK, _SWEEPS, _MOST_ROUNDS = 50, 25, 150, 4
_REFOCUS = (0, 5, 15, 30, 49)
# Error in nats at which chains are long enough, and above which the figure is of no use.
_FINE, _USABLE = 0.1, 0.3
_MOST_R_HAT = 1.1
# Nodes of brightness, below and above the brightest, and steps in the log of rates.
_NODES, _STEP = 48, 0.1
# Switches out of a state up to which its rates are integrated out.
_FEW_SWITCHES = 20


@dataclass(frozen=True)
class ByVisits:
    """Evidence by visits.

    Attributes
    ----------
    log_mean
        Log of the integral of the density over ordered states, as in `Base`.
    error
        Its standard error, that of the base included.
    effective
        Independent draws that the chains are worth for the number of unvisited states.
    points
        Draws in log coordinates, shape ``(n, size)``.
    """

    log_mean: float
    error: float
    effective: float
    points: Array


@dataclass(frozen=True)
class Unsettled:
    """What chains found whose numbers of unvisited states do not agree, or are always zero.

    Attributes
    ----------
    log_part
        Log of the part of the evidence in which a given state is not visited, summed over the
        states; as `ByVisits.log_mean`.
    error
        Its standard error.
    chains
        Draws of each chain.
    unvisited
        States that the path of each draw does not visit.
    """

    log_part: float
    error: float
    chains: list[list[Parameters]]
    unvisited: list[list[int]]


def evidence_by_visits(
    surplus: NewState, starts: list[Parameters], rng: np.random.Generator
) -> ByVisits | Unsettled:
    """Evidence of the model of `surplus`, where its states are not always visited.

    Parameters
    ----------
    surplus
        The new state, with draws of the model with one state fewer.
    starts
        Points to start chains from, besides draws with an unvisited state.
    rng
        Source of the draws.
    """
    posterior, base = surplus.posterior, surplus.base
    points, seconds, switches = _paths(base, rng)
    logs = log_not_visited(base.posterior, posterior, points, seconds, switches)
    top = float(logs.max())
    each = np.exp(logs - top)
    share_error = float(each.std() / each.mean() / math.sqrt(each.size))
    part = top + math.log(float(each.mean()))

    half = [posterior.unpack(vector) for vector in surplus.join(points[:2], seconds[:2], rng)[0]]
    chains = [_Chain(posterior, start, rng) for start in [*(starts * 2)[:2], *half]]
    for chain in chains:
        chain.warm_up()
    always = not any(chain.unvisited[-_LOOK:].count(0) < _LOOK for chain in chains)
    error, effective, mean = math.inf, 0.0, 0.0
    for _ in range(1 if always else _MOST_ROUNDS):
        for chain in chains:
            chain.run(_SWEEPS)
        numbers = np.array([chain.unvisited[_WARM_UP:] for chain in chains], dtype=np.float64)
        mean = float(numbers.mean())
        error, effective = _error_of_mean(numbers)
        if error < _FINE:
            break
    if always or not math.hypot(error, share_error) < _USABLE:
        return Unsettled(
            base.log_mean + part,
            math.hypot(share_error, base.error),
            [chain.kept for chain in chains],
            [chain.kept_unvisited for chain in chains],
        )
    error = math.hypot(error, share_error, base.error)
    vectors = np.array([posterior.pack(draw) for chain in chains for draw in chain.kept])
    return ByVisits(base.log_mean + part - math.log(mean), error, effective, vectors)


def _paths(base: Base, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draws of the base, and of a path of each the seconds in its states and switches out."""
    steps = (rng.random() + np.arange(_PATHS)) / _PATHS
    chosen = np.minimum(np.searchsorted(np.cumsum(base.weights), steps), base.weights.size - 1)
    points = base.points[chosen]
    sampler = GibbsSampler(base.posterior, rng)
    sampler.focus(base.posterior.unpack(points[0]))
    sampler.focus(base.posterior.unpack(points[-1]))
    paths = np.array([sampler.path(base.posterior.unpack(point)) for point in points])
    return points, paths[:, 0], paths[:, 1]


def log_not_visited(
    fewer: Posterior, more: Posterior, points: Array, seconds: Array, switches: Array
) -> Array:
    """Log of the prior probability that a further state exists and is not visited, per draw.

    The prior of `more` over that of `fewer`, times the probability that the path of the draw does
    not enter the new state, integrated over all that is new. Decays and exits of the new state
    integrate to one; its brightness and each rate into it are integrals in one dimension. Where a
    state is left a few times only, all rates out of it are integrated out given the path: the exit
    rate cancels, and the jumps leave a ratio of Dirichlet-multinomials. Draws of such rates would
    make a mean with a heavy tail.

    Parameters
    ----------
    fewer, more
        Models with one state fewer, and with the new one.
    points
        Draws of `fewer`, shape ``(n, size)``.
    seconds
        Time that a path of each spends in its states, shape ``(n, n_states - 1)``.
    switches
        How often the path leaves each state, same shape.

    Returns
    -------
    ndarray
        Shape ``(n,)``.
    """
    draws = [fewer.unpack(point) for point in points]
    n_old, model = fewer.n_states, more.model
    brightest, exits = model.brightest_rate_per_s, model.exit_rate_per_s
    x, weights = np.polynomial.legendre.leggauss(_NODES)
    new_level = np.array(
        [
            log_new_level(
                draw.rate_per_s, float(np.log(brightest.median)), brightest.sigma,
                more.repulsion, fewer.log_selberg, more.log_selberg, LOG_ABOVE,
                0.5 * (x + 1.0), 0.5 * weights,
            )
            for draw in draws
        ]
    )  # fmt: skip
    old = (
        np.array([draw.exit_rate_per_s for draw in draws])
        if n_old > 1
        else np.zeros((len(draws), 1))
    )
    # where the prior or the path ends it, with much to spare
    scale = np.where(old > 0.0, old, exits.median)
    c = model.jump_concentration
    log_ratio = np.arange(-40.0 / min(c, 1.0), 14.0, _STEP)
    rate = scale[:, :, None] * np.exp(log_ratio)
    total = old[:, :, None] + rate
    z = (np.log(total) - np.log(exits.median)) / exits.sigma
    logs = -0.5 * z**2 - rate * seconds[:, :, None] + c * np.log(rate / total)
    if n_old > 1:
        before = (np.log(old) - np.log(exits.median)) / exits.sigma
        logs += 0.5 * before[:, :, None] ** 2
        logs += c * (n_old - 1) * np.log(old[:, :, None] / total)
        logs += gammaln(c * n_old) - gammaln(c * (n_old - 1)) - gammaln(c)
    else:
        logs -= np.log(exits.sigma * math.sqrt(2.0 * math.pi))
    entries = log_sum_exp(logs) + math.log(_STEP)
    if n_old > 1:
        few = gammaln(c * n_old) - gammaln(c * n_old + switches)
        few -= gammaln(c * (n_old - 1)) - gammaln(c * (n_old - 1) + switches)
        entries = np.where(switches <= _FEW_SWITCHES, few, entries)
    first = math.log(n_old / (n_old + 1))
    return np.asarray(new_level + entries.sum(axis=1) + first)


def _error_of_mean(numbers: Array) -> tuple[float, float]:
    """Relative error of the mean of all chains, and how many draws they are worth."""
    from arviz_stats.base.array import array_stats

    mean = float(numbers.mean())
    if mean <= 0.0:
        return math.inf, 0.0
    if np.ptp(numbers) == 0.0:
        return 0.0, float(numbers.size)
    axes = {"chain_axis": 0, "draw_axis": 1}
    r_hat = float(array_stats.rhat(numbers, method="split", **axes))  # type: ignore[no-untyped-call]
    effective = float(array_stats.ess(numbers, method="mean", **axes))  # type: ignore[no-untyped-call]
    if not r_hat < _MOST_R_HAT:
        return math.inf, effective
    return float(numbers.std() / math.sqrt(effective) / mean), effective


class _Chain:
    """A chain that counts the states it does not visit."""

    def __init__(self, posterior: Posterior, start: Parameters, rng: np.random.Generator) -> None:
        self.sampler, self.point = GibbsSampler(posterior, rng), start
        self.unvisited: list[int] = []
        self.kept: list[Parameters] = []
        self.kept_unvisited: list[int] = []

    def warm_up(self) -> None:
        for sweep in range(_WARM_UP):
            if sweep in _REFOCUS:
                self.sampler.focus(self.point)
            self._sweep()

    def run(self, n_sweeps: int) -> None:
        for sweep in range(n_sweeps):
            self._sweep()
            if sweep % 2:
                self.kept.append(self.point)
                self.kept_unvisited.append(self.unvisited[-1])

    def _sweep(self) -> None:
        self.point = self.sampler.sweep(self.point)
        logs = np.log(self.point.rate_per_s)
        top = np.sort(logs)[-2:]
        # of a state far above all others the other side of the formula knows nothing
        known = logs < (top[0] if logs.size > 1 else 0.0) + LOG_ABOVE
        self.unvisited.append(int(((self.point.occupied_s == 0.0) & known).sum()))
