"""Importance weights: smoothed, judged, and made into draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

__all__ = ["Weighed", "are_enough", "are_reliable", "pareto_smooth", "spread", "weigh"]

Array = NDArray[np.float64]

# effective draws that intervals need
_LEAST_DISTINCT = 100.0


def pareto_smooth(log_weights: Array) -> tuple[Array, float]:
    """Pareto-smoothed log weights and k, by ArviZ.

    Parameters
    ----------
    log_weights
        Log of the importance ratios, shape ``(n_draws,)``.
    """
    from arviz_stats.base.array import array_stats

    if np.ptp(np.sort(log_weights)[-len(log_weights) // 5 :]) < 1e-12:
        return log_weights, 0.0
    # ArviZ takes log-likelihoods, whose negatives are the ratios of leave-one-out
    smoothed, k = array_stats.psislw(-log_weights)  # type: ignore[no-untyped-call]
    return np.asarray(smoothed), float(k)


@dataclass(frozen=True)
class Weighed:
    """Importance weights and what they say of themselves."""

    weights: Array
    log_mean: float
    error: float
    pareto_k: float
    effective: float


def weigh(log_weights: Array) -> Weighed:
    """Smooth and judge the log of importance weights, shape ``(n_draws,)``."""
    smoothed, k = pareto_smooth(log_weights)
    weights = np.exp(smoothed - logsumexp(smoothed))
    effective = float(1.0 / (weights**2).sum())
    # smoothing leaves all but the largest weights as they are: one of these gives the scale at
    # which the smoothed ones sum to the evidence; a lone huge weight no longer does alone
    middle = int(np.argsort(log_weights)[weights.size // 2])
    scale = float(log_weights[middle] - smoothed[middle] + logsumexp(smoothed))
    return Weighed(
        weights,
        scale - float(np.log(weights.size)),
        float(np.sqrt(max(1.0 / effective - 1.0 / weights.size, 0.0))),
        k,
        effective,
    )


def spread(weights: Array) -> Array:
    """Weights raised to the largest power up to one at which enough draws count.

    A posterior of a dozen distinct draws has intervals that are far too narrow; the density drawn
    from is wide, but near the posterior.
    """
    enough = min(_LEAST_DISTINCT, 0.5 * weights.size)
    logs = np.log(np.maximum(weights, 1e-300))
    logs -= logs.max()
    power = 1.0
    while True:
        tempered = np.exp(power * logs)
        tempered /= tempered.sum()
        if 1.0 / (tempered**2).sum() >= enough or power < 0.05:
            return tempered
        power *= 0.9


def are_reliable(found: Weighed) -> bool:
    """Whether the weights can be trusted: no heavy tail, or a tail that hardly counts."""
    even = found.effective > 0.5 * found.weights.size
    return bool((found.pareto_k < 0.7 or even) and found.effective > 20)


def are_enough(found: Weighed, behind: float) -> bool:
    """Whether the draws do, for a figure that many nats behind the best."""
    behind = max(behind, 0.0)
    # few effective draws make a figure low: not a reason to stop, however low it is
    if found.effective < 40 or found.error > 0.1 * np.exp(0.5 * behind):
        return False
    # k itself is uncertain: where most draws count, a large one is noise
    return found.pareto_k < 0.7 or found.effective > 0.5 * found.weights.size or behind > 2.0
