"""Propagators between photons, and the passes over a checked stream that use them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm_frechet

from pncbayes.hmm.photon_kernels import (
    BASE,
    LARGEST_EXPONENT,
    backward,
    fill_tables,
    fold_tables,
    forward,
)

__all__ = [
    "PhotonProblem",
    "PropagatorPlan",
    "n_digits_of",
    "plan_propagators",
    "propagator",
    "run_backward",
    "run_forward",
]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class PhotonProblem(NamedTuple):
    """Checked arguments in the form that the kernels take.

    Events are the photons and, last, the end of the recording (gate number n_gates, weight 1).
    """

    gap_ticks: Integers
    """Ticks since the event before, shape ``(n_photons + 1,)``."""
    gate: Integers
    """Row of `weight` for each event, shape ``(n_photons + 1,)``."""
    weight: Array
    """Rate times gate probability in units of `unit_per_s`, shape ``(n_gates + 1, n_states)``."""
    unit_per_s: float
    """Typical rate into one gate, which keeps products of weights near 1."""
    decay_per_s: Array
    """generator - diag(rate), shape ``(n_states, n_states)``."""
    initial: Array
    """State probabilities at time 0, shape ``(n_states,)``."""
    tick_s: float
    """Length of a tick, in s."""
    end_tick: int
    """Whole ticks in the recording."""
    rest_s: float
    """What is left of the recording after `end_tick`, less than a tick, in s."""


class PropagatorPlan(NamedTuple):
    """Tables of propagators, and how far each reaches."""

    slowest_per_s: float
    """Largest eigenvalue of the decay matrix."""
    shifted_per_s: Array
    """The decay matrix less `slowest_per_s` on its diagonal, shape ``(n_states, n_states)``."""
    steps_s: Array
    """Time that one unit of each digit stands for, shape ``(n_levels,)``."""
    tables: Array
    """Propagators over 0 to ``BASE - 1`` steps, ``(n_levels, BASE, n_states, n_states)``."""
    cap: int
    """Most units of the last digit that may be taken at once without underflow."""
    most_steps: int
    """Most table entries that any gap needs."""


def n_digits_of(gap_ticks: Integers) -> int:
    """Digits in base ``BASE`` of the longest gap, at least 1."""
    longest, n_digits = int(gap_ticks.max(initial=0)), 1
    while longest >= BASE**n_digits:
        n_digits += 1
    return n_digits


def propagator(decay_per_s: Array, time_s: float) -> Array:
    """``expm(decay_per_s * time_s)`` for a matrix that is non-negative off its diagonal.

    Sums and squares of non-negative terms only, so that small entries keep their digits.
    """
    largest_per_s = -float(np.diag(decay_per_s).min())
    positive = (decay_per_s + largest_per_s * np.eye(len(decay_per_s))) * time_s
    n_squarings = max(0, int(np.ceil(np.log2(max(float(positive.sum(1).max()), 1e-300)))))
    positive /= 2**n_squarings
    total: Array = np.eye(len(decay_per_s))
    term = total
    for order in range(1, 20):
        term = term @ positive / order
        total = total + term
    total = total * np.exp(-largest_per_s * time_s / 2**n_squarings)
    for _ in range(n_squarings):
        total = total @ total
    return total


def plan_propagators(problem: PhotonProblem) -> PropagatorPlan:
    """Tables of propagators, for a decay shifted so that its slowest mode stays at 1."""
    slowest_per_s = float(np.linalg.eigvals(problem.decay_per_s).real.max())
    n_states = problem.initial.size
    shifted_per_s = problem.decay_per_s - slowest_per_s * np.eye(n_states)
    spread_per_s = shifted_per_s - np.diag(shifted_per_s).min() * np.eye(n_states)
    per_tick = float(spread_per_s.sum(1).max()) * problem.tick_s
    n_levels = 1
    while (
        n_levels < n_digits_of(problem.gap_ticks)
        and per_tick * BASE ** (n_levels + 1) <= LARGEST_EXPONENT
    ):
        n_levels += 1
    steps_s = np.array([problem.tick_s * BASE**level for level in range(n_levels)])
    last_step = BASE ** (n_levels - 1)
    cap = int(np.clip(LARGEST_EXPONENT / max(per_tick * last_step, 1e-300), 1, BASE - 1))
    seeds = np.stack([propagator(shifted_per_s, step_s) for step_s in steps_s])
    longest = int(problem.gap_ticks.max(initial=0))
    return PropagatorPlan(
        slowest_per_s=slowest_per_s,
        shifted_per_s=shifted_per_s,
        steps_s=steps_s,
        tables=fill_tables(seeds),
        cap=cap,
        most_steps=n_levels + longest // (last_step * cap),
    )


def run_forward(problem: PhotonProblem, plan: PropagatorPlan, *, keep: bool) -> tuple[float, Array]:
    """Log-likelihood, and the rows after each event if `keep`."""
    n_events, n_states = problem.gap_ticks.size, problem.initial.size
    rows = np.empty((n_events if keep else 0, n_states))
    log_weight, row = forward(
        problem.gap_ticks,
        problem.gate,
        np.zeros(1, np.int64),
        problem.weight,
        problem.initial,
        plan.tables,
        plan.cap,
        rows,
    )
    if not np.isfinite(log_weight):
        return -np.inf, rows
    after = propagator(plan.shifted_per_s, problem.rest_s).sum(1)
    time_s = problem.end_tick * problem.tick_s + problem.rest_s
    value = log_weight + np.log(row @ after) + (n_events - 1) * np.log(problem.unit_per_s)
    return float(value + plan.slowest_per_s * time_s), rows


def run_backward(
    problem: PhotonProblem, plan: PropagatorPlan, value: float, rows: Array
) -> tuple[Array, Array, Array, Array]:
    """Return derivatives by decay matrix (per s), weights, initial; and each event's posterior."""
    if not np.isfinite(value):
        raise ValueError("no path of the chain can give these photons: the likelihood is zero")
    posterior = np.empty_like(rows)
    after = propagator(plan.shifted_per_s, problem.rest_s).sum(1)
    by_tables, by_weight, by_initial = backward(
        problem.gap_ticks,
        problem.gate,
        problem.weight,
        problem.initial,
        plan.tables,
        plan.cap,
        rows,
        after,
        plan.most_steps,
        posterior,
    )
    by_seeds = fold_tables(plan.tables, by_tables)
    by_last = np.outer(rows[-1], np.ones(after.size)) / (rows[-1] @ after)
    by_decay = np.zeros_like(plan.shifted_per_s)
    times_s = np.append(plan.steps_s, problem.rest_s)
    for time_s, cotangent in zip(times_s, [*by_seeds, by_last], strict=True):
        # the adjoint of a matrix exponential's derivative is that of its transpose
        transposed = plan.shifted_per_s.T * time_s
        by_decay += time_s * expm_frechet(transposed, cotangent, compute_expm=False)
    return by_decay, by_weight, by_initial, posterior
