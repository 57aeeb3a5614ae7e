"""Which state a simulated dot is in when: exact paths and their shares of time bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pncbayes.physics.simulate_kernels import jump_until, occupancy_of_bins
from pncbayes.physics.simulated_dot import PowerLawDwell, require, require_positive

__all__ = ["JumpSource", "StatePath", "simulate_jumps", "stationary_occupancy"]

_MOST_BINS = 200_000_000


@dataclass(frozen=True, eq=False)
class StatePath:
    """Piecewise-constant path of the dot through its states.

    Parameters
    ----------
    jump_times_s
        Start of each dwell, in s, shape ``(n_dwells,)``; the first is 0.
    jump_states
        State of each dwell, shape ``(n_dwells,)``.
    duration_s
        End of the last dwell, in s.
    n_states
        Number of states there are, visited or not.
    """

    jump_times_s: NDArray[np.float64]
    jump_states: NDArray[np.int64]
    duration_s: float
    n_states: int

    @property
    def n_jumps(self) -> int:
        """Number of switches between states."""
        return int(self.jump_times_s.size) - 1

    @property
    def occupancy(self) -> NDArray[np.float64]:
        """Share of the recording spent in each state, shape ``(n_states,)``."""
        dwells = np.diff(self.jump_times_s, append=self.duration_s)
        seconds = np.bincount(self.jump_states, weights=dwells, minlength=self.n_states)
        shares: NDArray[np.float64] = seconds / self.duration_s
        return shares

    def dwell_times_s(self, state: int) -> NDArray[np.float64]:
        """Return the complete dwell times in `state`, in s: without the first and the last."""
        require(0 <= state < self.n_states, "state", state, f"0 to {self.n_states - 1}")
        dwells = np.diff(self.jump_times_s)[1:]
        selected: NDArray[np.float64] = dwells[self.jump_states[1:-1] == state]
        return selected

    def jump_counts(self) -> NDArray[np.int64]:
        """Count the switches, shape ``(n_states, n_states)`` [from, to]."""
        counts = np.zeros((self.n_states, self.n_states), np.int64)
        np.add.at(counts, (self.jump_states[:-1], self.jump_states[1:]), 1)
        return counts

    def n_bins(self, width_s: float) -> int:
        """Count the whole bins of `width_s` (in s) in the recording; the rest is dropped.

        Raises
        ------
        ValueError
            If the width is not positive, longer than the recording, or makes too many bins.
        """
        require_positive("width_s", width_s)
        # as `bin_photons` counts them, so that truth and trace have the same bins
        n_bins = math.floor(self.duration_s / width_s * (1 + 1e-12) + 1e-9)
        allowed = f"between {self.duration_s / _MOST_BINS:g} s and the duration {self.duration_s} s"
        require(1 <= n_bins <= _MOST_BINS, "width_s", width_s, allowed)
        return n_bins

    def occupancy_per_bin(self, width_s: float) -> NDArray[np.float64]:
        """Return the exact share of each bin in each state, shape ``(n_bins, n_states)``.

        Raises
        ------
        ValueError
            As `n_bins`.
        """
        n_bins = self.n_bins(width_s)
        shares: NDArray[np.float64] = occupancy_of_bins(
            self.jump_times_s, self.jump_states, self.n_states, float(width_s), n_bins
        )
        return shares

    def states_per_bin(self, width_s: float) -> NDArray[np.int64]:
        """Return the state that holds most of each bin, shape ``(n_bins,)``; ties to the lower.

        Raises
        ------
        ValueError
            As `n_bins`.
        """
        return np.argmax(self.occupancy_per_bin(width_s), axis=1)


def stationary_occupancy(
    jump_rates_per_s: ArrayLike, mean_dwell_s: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Share of time spent in each state in the long run.

    Parameters
    ----------
    jump_rates_per_s
        Rates of the switches, shape ``(n_states, n_states)`` [from, to], per s; the diagonal is
        ignored.
    mean_dwell_s
        Mean dwell time of each state, in s, where it is not the inverse of the exit rate.

    Returns
    -------
    array, shape ``(n_states,)``

    Raises
    ------
    ValueError
        If some state is never left, or the shares depend on where the dot started.
    """
    rates = np.array(jump_rates_per_s, float)
    np.fill_diagonal(rates, 0.0)
    exits = rates.sum(axis=1)
    n_states = exits.size
    if n_states == 1:
        return np.ones(1)
    require(bool(np.all(exits > 0)), "jump_rates_per_s", rates.tolist(), "leaving every state")
    # visits per jump from the embedded chain, so that states of very different rates stay accurate
    embedded = rates / exits[:, None]
    system = np.vstack([embedded.T - np.eye(n_states), np.ones(n_states)])
    visits, _, rank, _ = np.linalg.lstsq(system, np.r_[np.zeros(n_states), 1.0])
    require(rank == n_states, "jump_rates_per_s", rates.tolist(), "connecting all states")
    dwell = 1.0 / exits if mean_dwell_s is None else np.asarray(mean_dwell_s, float)
    seconds = np.clip(visits, 0.0, None) * dwell
    shares: NDArray[np.float64] = seconds / seconds.sum()
    return shares


class JumpSource:
    """Draws a path piece by piece, so that a long recording need not be held.

    Parameters
    ----------
    jump_rates_per_s
        Rates of the switches, shape ``(n_states, n_states)`` [from, to], zero diagonal, per s.
    dwell_laws
        Per state a law of the dwell times in place of the exponential one, or None.
    initial_state
        As in `SimulationSettings`.
    rng
        Source of random numbers, drawn from in the order of time.
    """

    def __init__(
        self,
        jump_rates_per_s: NDArray[np.float64],
        dwell_laws: Sequence[PowerLawDwell | None] | None,
        initial_state: int | Literal["stationary", "uniform"] | None,
        rng: np.random.Generator,
    ) -> None:
        n_states = jump_rates_per_s.shape[0]
        laws = (None,) * n_states if dwell_laws is None else tuple(dwell_laws)
        exits = jump_rates_per_s.sum(axis=1)
        shares = jump_rates_per_s.copy()
        for state in range(n_states):
            # a dwell law without rates says when to leave, not where to: evenly
            if shares[state].sum() <= 0.0:
                shares[state] = 1.0
                shares[state, state] = 0.0
        totals = np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        self._rng = rng
        self._exits = exits
        self._cumulative = np.cumsum(shares / totals, axis=1)
        nan = math.nan
        self._exponent = np.array([nan if law is None else law.exponent for law in laws])
        self._shortest = np.array([nan if law is None else law.shortest_s for law in laws])
        self._longest = np.array([nan if law is None else law.longest_s for law in laws])
        if n_states == 1:
            self._exponent[:] = nan
            self._exits = np.zeros(1)
        means = [
            law.mean_s if law is not None else (1.0 / rate if rate > 0 else math.inf)
            for law, rate in zip(laws, exits, strict=True)
        ]
        first = self._first_state(initial_state, shares, np.array(means))
        self._next_time_s, self._next_state = 0.0, first
        self.state = first

    def _first_state(
        self,
        initial_state: int | str | None,
        shares: NDArray[np.float64],
        means: NDArray[np.float64],
    ) -> int:
        n_states = means.size
        if n_states == 1:
            return 0
        if initial_state == "uniform":
            return int(self._rng.integers(n_states))
        if isinstance(initial_state, (int, np.integer)):
            return int(initial_state)
        if initial_state is None and not np.all(np.isfinite(means)):
            return 0
        require(
            bool(np.all(np.isfinite(means))),
            "initial_state",
            initial_state,
            "a state number or 'uniform' when some state is never left",
        )
        return int(self._rng.choice(n_states, p=stationary_occupancy(shares, means)))

    def until(self, stop_s: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return times (s) and states of the jumps since the last call and before `stop_s`."""
        if self._next_time_s >= stop_s:
            return np.empty(0), np.empty(0, np.int64)
        times, states, _ = jump_until(
            self._rng,
            self._next_time_s,
            self._next_state,
            stop_s,
            self._exits,
            self._cumulative,
            self._exponent,
            self._shortest,
            self._longest,
        )
        before = np.concatenate(([self._next_time_s], times[:-1]))
        entered = np.concatenate(([self._next_state], states[:-1])).astype(np.int64)
        self._next_time_s, self._next_state = float(times[-1]), int(states[-1])
        self.state = int(entered[-1])
        return before, entered


def simulate_jumps(
    generator_per_s: ArrayLike,
    duration_s: float,
    *,
    dwell_laws: Sequence[PowerLawDwell | None] | None = None,
    initial_state: int | Literal["stationary", "uniform"] | None = None,
    random_seed: int | np.random.Generator | None = None,
) -> StatePath:
    """Simulate switching between states in continuous time, exactly.

    Parameters
    ----------
    generator_per_s
        Rates of the switches, shape ``(n_states, n_states)`` [from, to], per s; the diagonal is
        ignored.
    duration_s
        Length of the path, in s.
    dwell_laws
        Per state a law of its dwell times in place of the exponential one, or None.
    initial_state
        Number of the first state; ``"stationary"``; ``"uniform"``; None for stationary, or state
        0 where some state is never left.
    random_seed
        Seed or generator.

    Returns
    -------
    StatePath

    Raises
    ------
    ValueError
        If the rates are not a square table of numbers not below zero, or another argument is
        out of range.
    """
    rates = np.array(generator_per_s, float)
    require(
        rates.ndim == 2 and rates.shape[0] == rates.shape[1] > 0,
        "generator_per_s",
        rates.tolist(),
        "a square table, [from][to]",
    )
    np.fill_diagonal(rates, 0.0)
    valid = bool(np.all(np.isfinite(rates)) and np.all(rates >= 0))
    require(valid, "generator_per_s", rates.tolist(), "rates of zero or more off the diagonal")
    require_positive("duration_s", duration_s)
    if dwell_laws is not None:
        allowed = f"one law or None for each of the {rates.shape[0]} states"
        require(len(dwell_laws) == rates.shape[0], "dwell_laws", dwell_laws, allowed)
    source = JumpSource(rates, dwell_laws, initial_state, np.random.default_rng(random_seed))
    times, states = source.until(duration_s)
    return StatePath(times, states, float(duration_s), rates.shape[0])
