"""The exact likelihood of a photon stream whose rate and gates follow a hidden Markov chain.

Nothing is binned: a Markov-modulated Poisson process with marks [1]_. Between photons the row of
state probabilities is carried by ``expm((generator - diag(rate)) gap)``, at each photon it is
multiplied by ``rate * gate_probability[:, gate]``. It is the yardstick for the binned kernels, and
the likelihood for dots that switch faster than any useful bin. The discrete form, one step of a
Markov chain per clock tick and conditional on the photon times, is H2MM [2]_.

Gaps are integers, so the propagators come from tables: one of ``BASE`` matrices per digit of the
gap. Every matrix involved is non-negative, so no sum cancels, whatever the spectrum (an
eigendecomposition fails when two states merge).

References
----------
.. [1] Gopich, Szabo, J. Phys. Chem. B 113, 10965 (2009). doi:10.1021/jp903671p
.. [2] Pirchi et al., J. Phys. Chem. B 120, 13065 (2016). doi:10.1021/acs.jpcb.6b10726
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

from pncbayes.hmm.photon_kernels import BASE, fill_tables, forward
from pncbayes.hmm.photon_propagators import (
    PhotonProblem,
    n_digits_of,
    plan_propagators,
    run_backward,
    run_forward,
)

__all__ = [
    "PhotonGradient",
    "log_likelihood",
    "log_likelihood_and_gradient",
    "log_likelihood_discrete",
    "log_likelihood_discrete_reference",
    "log_likelihood_reference",
    "state_probability_at_photons",
]


Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class PhotonGradient(NamedTuple):
    """The log-likelihood and its derivatives, each as if its argument had no constraint.

    By Fisher's identity they are also expectations given the photons. Off its diagonal, the
    derivative by ``generator_per_s`` times the argument itself is the expected number of switches;
    on the diagonal it is the expected time in each state, in s.
    """

    log_likelihood: float
    """log p(photons), photon times per s."""
    rate_per_s: Array
    """d / d rate_per_s, shape ``(n_states,)``."""
    gate_probability: Array
    """d / d gate_probability, shape ``(n_states, n_gates)``."""
    generator_per_s: Array
    """d / d generator_per_s, diagonal on its own, shape ``(n_states, n_states)``."""
    initial: Array
    """d / d initial, shape ``(n_states,)``."""


def log_likelihood(
    time_ticks: ArrayLike,
    tick_s: float,
    gate: ArrayLike,
    rate_per_s: ArrayLike,
    gate_probability: ArrayLike,
    generator_per_s: ArrayLike,
    initial: ArrayLike,
    duration_s: float,
) -> float:
    """Exact log-likelihood of photon times and gates from time 0 to `duration_s`.

    Parameters
    ----------
    time_ticks
        Arrival times in integer ticks, not decreasing, shape ``(n_photons,)``.
    tick_s
        Length of a tick, in s.
    gate
        Gate (mark) of each photon, 0 to n_gates - 1, shape ``(n_photons,)``.
    rate_per_s
        Photons per s in each state, shape ``(n_states,)``.
    gate_probability
        Probability of each gate in each state, rows summing to 1, shape ``(n_states, n_gates)``.
    generator_per_s
        Switching rates from row to column, rows summing to 0, shape ``(n_states, n_states)``.
    initial
        State probabilities at time 0, shape ``(n_states,)``.
    duration_s
        Length of the recording, in s.

    Returns
    -------
    float
        log of the density of the photon times (per s each) and their gates; ``-inf`` when no path
        of the chain can give them.

    Raises
    ------
    ValueError
        If shapes disagree, times run backwards or beyond `duration_s`, or a rate or a probability
        is negative, not finite or badly normalised.

    References
    ----------
    .. [1] Gopich, Szabo, J. Phys. Chem. B 113, 10965 (2009). doi:10.1021/jp903671p
    """
    problem = _checked(
        time_ticks, tick_s, gate, rate_per_s, gate_probability, generator_per_s, initial, duration_s
    )
    return run_forward(problem, plan_propagators(problem), keep=False)[0]


def log_likelihood_and_gradient(
    time_ticks: ArrayLike,
    tick_s: float,
    gate: ArrayLike,
    rate_per_s: ArrayLike,
    gate_probability: ArrayLike,
    generator_per_s: ArrayLike,
    initial: ArrayLike,
    duration_s: float,
) -> PhotonGradient:
    """`log_likelihood` and its derivatives, from one forward and one backward pass.

    Takes what `log_likelihood` takes.

    Raises
    ------
    ValueError
        As `log_likelihood`, and if the likelihood is zero, where no derivative exists.

    References
    ----------
    .. [1] Van Loan, IEEE Trans. Autom. Control 23, 395 (1978). doi:10.1109/TAC.1978.1101743
    """
    problem = _checked(
        time_ticks, tick_s, gate, rate_per_s, gate_probability, generator_per_s, initial, duration_s
    )
    plan = plan_propagators(problem)
    value, rows = run_forward(problem, plan, keep=True)
    by_decay, by_weight, by_initial, _ = run_backward(problem, plan, value, rows)
    rate = np.asarray(rate_per_s, np.float64)
    by_weight = by_weight[:-1].T / problem.unit_per_s
    return PhotonGradient(
        log_likelihood=value,
        rate_per_s=(by_weight * np.asarray(gate_probability)).sum(1) - np.diag(by_decay),
        gate_probability=by_weight * rate[:, None],
        generator_per_s=by_decay,
        initial=by_initial,
    )


def state_probability_at_photons(
    time_ticks: ArrayLike,
    tick_s: float,
    gate: ArrayLike,
    rate_per_s: ArrayLike,
    gate_probability: ArrayLike,
    generator_per_s: ArrayLike,
    initial: ArrayLike,
    duration_s: float,
) -> Array:
    """Probability of each state at each photon, given all photons, shape ``(n_photons, n_states)``.

    Takes and raises what `log_likelihood_and_gradient` does.
    """
    problem = _checked(
        time_ticks, tick_s, gate, rate_per_s, gate_probability, generator_per_s, initial, duration_s
    )
    plan = plan_propagators(problem)
    value, rows = run_forward(problem, plan, keep=True)
    return run_backward(problem, plan, value, rows)[3][:-1]


def log_likelihood_reference(
    time_ticks: ArrayLike,
    tick_s: float,
    gate: ArrayLike,
    rate_per_s: ArrayLike,
    gate_probability: ArrayLike,
    generator_per_s: ArrayLike,
    initial: ArrayLike,
    duration_s: float,
) -> float:
    """`log_likelihood` as the formula reads: one matrix exponential per gap. Defines right."""
    times, gates = np.asarray(time_ticks), np.asarray(gate)
    rate = np.asarray(rate_per_s, np.float64)
    probability = np.asarray(gate_probability, np.float64)
    decay_per_s = np.asarray(generator_per_s, np.float64) - np.diag(rate)
    row, log_weight, last_s = np.asarray(initial, np.float64), 0.0, 0.0
    for time_s, mark in zip(times * tick_s, gates, strict=True):
        row = row @ expm(decay_per_s * (time_s - last_s)) * rate * probability[:, mark]
        log_weight += float(np.log(row.sum()))
        row, last_s = row / row.sum(), time_s
    return log_weight + float(np.log((row @ expm(decay_per_s * (duration_s - last_s))).sum()))


def log_likelihood_discrete(
    time_ticks: ArrayLike,
    mark: ArrayLike,
    transition_per_tick: ArrayLike,
    mark_probability: ArrayLike,
    initial: ArrayLike,
    *,
    burst_starts: ArrayLike = (0,),
) -> float:
    """Log-likelihood of the marks given the photon times: one step of a Markov chain per tick.

    Parameters
    ----------
    time_ticks
        Arrival times in integer ticks, not decreasing within a burst, shape ``(n_photons,)``.
    mark
        Detector or gate of each photon, 0 to n_marks - 1, shape ``(n_photons,)``.
    transition_per_tick
        Probabilities from row to column in one tick, shape ``(n_states, n_states)``.
    mark_probability
        Probability of each mark in each state, shape ``(n_states, n_marks)``.
    initial
        State probabilities at the first photon of each burst, shape ``(n_states,)``.
    burst_starts
        Index of the first photon of each burst, increasing from 0, shape ``(n_bursts,)``.

    Returns
    -------
    float
        Summed over bursts; ``-inf`` when no path of the chain can give the marks.

    Raises
    ------
    ValueError
        As `log_likelihood`, and if `burst_starts` does not increase from 0.

    References
    ----------
    .. [1] Pirchi et al., J. Phys. Chem. B 120, 13065 (2016). doi:10.1021/acs.jpcb.6b10726
    """
    start = _probabilities("initial", initial, (np.size(initial),))
    transition = _probabilities(
        "transition_per_tick", transition_per_tick, (start.size, start.size)
    )
    probability = _probabilities("mark_probability", mark_probability, (start.size, -1))
    starts = np.asarray(burst_starts, np.int64)
    times, marks = _photons(time_ticks, mark, probability.shape[1], "mark")
    if times.size and (starts.size == 0 or starts[0] != 0 or (np.diff(starts) <= 0).any()):
        raise ValueError("`burst_starts` must be increasing photon numbers, the first of them 0")
    if starts.size and starts[-1] >= max(times.size, 1):
        raise ValueError(f"`burst_starts` ends at {starts[-1]}, but there are {times.size} photons")
    gaps = np.diff(times, prepend=times[:1])
    gaps[starts[: gaps.size]] = 0
    _not_backwards(gaps)
    n_levels = n_digits_of(gaps)
    seeds = np.stack([np.linalg.matrix_power(transition, BASE**level) for level in range(n_levels)])
    log_weight, row = forward(
        gaps,
        marks,
        starts[: gaps.size],
        np.ascontiguousarray(probability.T),
        start,
        fill_tables(seeds),
        BASE - 1,
        np.empty((0, start.size)),
    )
    return float(log_weight + np.log(row.sum())) if np.isfinite(log_weight) else -np.inf


def log_likelihood_discrete_reference(
    time_ticks: ArrayLike,
    mark: ArrayLike,
    transition_per_tick: ArrayLike,
    mark_probability: ArrayLike,
    initial: ArrayLike,
) -> float:
    """`log_likelihood_discrete` of one burst, stepped tick by tick. Defines right."""
    transition = np.asarray(transition_per_tick, np.float64)
    probability = np.asarray(mark_probability, np.float64)
    times, marks = np.asarray(time_ticks), np.asarray(mark)
    row, log_weight = np.asarray(initial, np.float64), 0.0
    for gap, seen in zip(np.diff(times, prepend=times[:1]), marks, strict=True):
        for _ in range(gap):
            row = row @ transition
        row = row * probability[:, seen]
        log_weight += float(np.log(row.sum()))
        row = row / row.sum()
    return log_weight


def _probabilities(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Check that rows of `values` are probabilities; -1 in `shape` is any size."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != len(shape) or any(
        size not in (-1, found) for size, found in zip(shape, array.shape, strict=True)
    ):
        wanted = str(shape).replace("-1", "any")
        raise ValueError(f"`{name}` must have shape {wanted}, got {array.shape}")
    if not array.size or not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"`{name}` must hold finite probabilities, none negative, got {array}")
    if np.abs(array.sum(-1) - 1).max() > 1e-6:
        raise ValueError(f"`{name}` must sum to 1, got {array.sum(-1)}; normalise it")
    return array


def _photons(
    time_ticks: ArrayLike, gate: ArrayLike, n_gates: int, name: str
) -> tuple[Integers, Integers]:
    """Check that photons come as integers and that each has a gate that exists."""
    times, gates = np.asarray(time_ticks), np.asarray(gate)
    for label, array in (("time_ticks", times), (name, gates)):
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(
                f"`{label}` must be integers in one dimension, got {array.dtype} of shape "
                f"{array.shape}"
            )
    if times.size != gates.size:
        raise ValueError(f"`time_ticks` has {times.size} photons but `{name}` has {gates.size}")
    if gates.size and (gates.min() < 0 or gates.max() >= n_gates):
        raise ValueError(f"`{name}` must be 0 to {n_gates - 1}, got {gates.min()} to {gates.max()}")
    return times.astype(np.int64), gates.astype(np.int64)


def _not_backwards(gap_ticks: Integers) -> None:
    if gap_ticks.size and gap_ticks.min() < 0:
        first = int(np.argmax(gap_ticks < 0))
        raise ValueError(f"`time_ticks` runs backwards at photon {first}; sort the photons")


def _checked(
    time_ticks: ArrayLike,
    tick_s: float,
    gate: ArrayLike,
    rate_per_s: ArrayLike,
    gate_probability: ArrayLike,
    generator_per_s: ArrayLike,
    initial: ArrayLike,
    duration_s: float,
) -> PhotonProblem:
    """Check the arguments, and make the end of the recording a last event that always happens."""
    rate = np.ascontiguousarray(rate_per_s, dtype=np.float64)
    start = _probabilities("initial", initial, (rate.size,))
    probability = _probabilities("gate_probability", gate_probability, (rate.size, -1))
    generator = np.asarray(generator_per_s, np.float64)
    times, gates = _photons(time_ticks, gate, probability.shape[1], "gate")
    if rate.ndim != 1 or not np.isfinite(rate).all() or rate.min() < 0:
        raise ValueError(f"`rate_per_s` must be finite rates, none negative, got {rate}")
    if generator.shape != (rate.size, rate.size) or not np.isfinite(generator).all():
        raise ValueError(f"`generator_per_s` must be a finite matrix of {rate.size} x {rate.size}")
    off_diagonal = generator[~np.eye(rate.size, dtype=bool)]
    if (off_diagonal < 0).any() or (
        np.abs(generator.sum(1)) > 1e-6 * (np.abs(np.diag(generator)) + 1e-12)
    ).any():
        raise ValueError(
            "`generator_per_s` must have no negative entry off the diagonal and rows that sum to "
            f"0, got {generator.tolist()}"
        )
    if not (np.isfinite(tick_s) and tick_s > 0):
        raise ValueError(f"`tick_s` must be a positive time in s, got {tick_s}")
    last_tick = int(times[-1]) if times.size else 0
    # half a tick of grace: durations are often the last arrival, rounded
    if not np.isfinite(duration_s) or duration_s < last_tick * tick_s * (1 - 1e-12) - tick_s / 2:
        raise ValueError(f"`duration_s` is {duration_s}, but a photon is at {last_tick * tick_s} s")
    end_tick = max(int(duration_s / tick_s), last_tick)
    gaps = np.diff(np.append(times, end_tick), prepend=0)
    _not_backwards(gaps)
    unit_per_s = float(rate.mean()) / probability.shape[1] or 1.0
    weight = np.vstack([(rate[:, None] * probability).T / unit_per_s, np.ones(rate.size)])
    return PhotonProblem(
        gap_ticks=gaps,
        gate=np.append(gates, probability.shape[1]),
        weight=weight,
        unit_per_s=unit_per_s,
        decay_per_s=generator - np.diag(rate),
        initial=start,
        tick_s=tick_s,
        end_tick=end_tick,
        rest_s=max(duration_s - end_tick * tick_s, 0.0),
    )
