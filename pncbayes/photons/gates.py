"""Delay gates: their choice, their rounding to the delay clock, and the gate of each tick."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pncbayes.photons.delays import DelayClock
from pncbayes.photons.pulse import Pulse, find_pulse, recorded_ticks, rise_start

__all__ = ["DEFAULT_GATES", "choose_gates", "gate_table", "gates_from_edges"]

DEFAULT_GATES = 24


def choose_gates(
    histogram: ArrayLike,
    n_gates: int = DEFAULT_GATES,
    *,
    pulse: Pulse | None = None,
) -> NDArray[np.int64]:
    """Choose delay gates by a stated rule.

    One gate ends where the rise of the pulse starts. The others follow the pulse around the period
    and share evenly a density that is half the pooled counts and half ``1 / (delay + rise)``:
    counts alone make the first gates wider than the lifetimes of trions, ``1 / delay`` alone
    wastes gates where nothing is. No gate is narrower than a tick.

    Where the pulse stands within the first quarter of the period, the gate before it is the first
    one, from the start of the period. Where it stands at the very start, it is the last one, a
    twentieth of the period; elsewhere it is the tenth of the period before the pulse.

    Parameters
    ----------
    histogram
        Photons per tick of the delay clock, shape ``(n_ticks,)``.
    n_gates
        Number of gates, with the one before the pulse; 2 or more.
    pulse
        Position of the pulse, from `find_pulse` when not given. Without any, the gates have equal
        counts.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates + 1,)``
        Edges in ticks, increasing. They reach from 0 to ``n_ticks``, less what was never recorded
        (`recorded_ticks`).

    Raises
    ------
    ValueError
        If there are not enough ticks for the gates.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    first, stop = recorded_ticks(counts)
    if n_gates < 2 or stop - first < 2 * n_gates:
        raise ValueError(
            f"`n_gates` must be at least 2 and at most {(stop - first) // 2} with "
            f"{stop - first} recorded ticks of the delay clock, got {n_gates}; give `n_gates`"
        )
    pulse = find_pulse(counts) if pulse is None else pulse
    start = first if pulse is None else int(np.clip(rise_start(counts, pulse), first, stop - 1))
    # the recorded ticks in the order in which they follow the pulse; the last are the gate before
    order = np.concatenate([np.arange(start, stop), np.arange(first, start)])
    n_rest = order.size - _ticks_before(first, stop, start)
    rise = float(pulse.step) if pulse is not None else 1.0
    density = counts[order[:n_rest]] / max(counts[order[:n_rest]].sum(), 1.0) + 1e-12
    if pulse is not None:
        near = 1.0 / (np.arange(n_rest) + rise)
        density = 0.5 * density + 0.5 * near / near.sum()
    wrap = stop - start
    cuts = _even_cuts(density, n_gates - 1, wrap if wrap < n_rest else None)
    edges = np.concatenate([order[cuts[:-1]], [order[n_rest], stop]])
    return np.sort(edges).astype(np.int64)


def _ticks_before(first: int, stop: int, start: int) -> int:
    length = stop - first
    if start == first:
        return max(1, length // 20)
    if start - first <= length // 4:
        return start - first
    return max(1, length // 10)


def _even_cuts(density: NDArray[np.float64], n_parts: int, cut: int | None) -> NDArray[np.int64]:
    """Cut ``density.size`` ticks into parts of equal mass, at least one tick each.

    `cut` is a place where one of the cuts has to be.
    """
    if cut is not None:
        share = float(density[:cut].sum() / density.sum())
        head = int(np.clip(round(share * n_parts), 1, n_parts - 1))
        head = int(np.clip(head, n_parts - (density.size - cut), cut))
        left = _even_cuts(density[:cut], head, None)
        right = _even_cuts(density[cut:], n_parts - head, None)
        return np.concatenate([left, right[1:] + cut])
    mass = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.linspace(0.0, mass[-1], n_parts + 1)
    cuts = np.rint(np.interp(wanted, mass, np.arange(mass.size))).astype(np.int64)
    cuts[0], cuts[-1] = 0, density.size
    for i in range(1, n_parts):
        cuts[i] = max(cuts[i], cuts[i - 1] + 1)
    for i in range(n_parts - 1, 0, -1):
        cuts[i] = min(cuts[i], cuts[i + 1] - 1)
    return cuts


def gates_from_edges(edges_ns: ArrayLike, clock: DelayClock) -> NDArray[np.int64]:
    """Round gate edges in ns to the delay clock.

    Parameters
    ----------
    edges_ns
        Edges in ns after the start of the period, shape ``(n_gates + 1,)``, increasing.
    clock
        The delay clock.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates + 1,)``
        Edges in ticks.

    Raises
    ------
    ValueError
        If the edges do not increase by a tick or more, or lie outside the period.
    """
    edges = np.asarray(edges_ns, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.isfinite(edges)):
        raise ValueError(f"`gates` must be two or more finite edges in ns, got {edges_ns!r}")
    ticks = np.rint(edges / clock.tick_ns).astype(np.int64)
    # the last edge of a period that is not whole ticks is the end of its last tick
    if abs(edges[-1] - clock.period_ns) < clock.tick_ns:
        ticks[-1] = clock.n_ticks
    if ticks[0] < 0 or ticks[-1] > clock.n_ticks or np.any(np.diff(ticks) < 1):
        raise ValueError(
            f"`gates` must increase from 0 to {clock.period_ns:.6g} ns (the laser period) in steps "
            f"of at least one tick ({clock.tick_ns:.6g} ns), got {edges}"
        )
    return ticks


def gate_table(edges_ticks: NDArray[np.int64], n_ticks: int) -> NDArray[np.int16]:
    """Gate of each tick of the period, -1 outside all gates.

    Parameters
    ----------
    edges_ticks
        Edges in ticks, shape ``(n_gates + 1,)``.
    n_ticks
        Ticks of the period.

    Returns
    -------
    numpy.ndarray, shape ``(n_ticks,)``
    """
    gate = np.searchsorted(edges_ticks, np.arange(n_ticks), side="right") - 1
    gate[gate >= edges_ticks.size - 1] = -1
    return gate.astype(np.int16)
