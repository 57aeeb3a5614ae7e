"""From a trace to what families of dynamics see: fewer gates, their background and delays."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.inference.dynamics_point import DynamicsData
from pncbayes.inference.posterior import pooled_decay
from pncbayes.physics.flicker import DelayTable

__all__ = ["dynamics_data", "merge_gates"]

Array = NDArray[np.float64]

_MOST_GATES = 8
# Parts of a gate that have delays of their own.
_PARTS = 5
# Lifetimes after which photons count as if they came then, and rounds in which that is settled.
_LONGEST, _ROUNDS = 4.0, 3
# Share of the dimmest bins' counts that the background may be at most.
_MOST_BACKGROUND = 0.95


def merge_gates(weight: Array, most: int = _MOST_GATES) -> NDArray[np.int64]:
    """First gate of each group of neighbouring gates of about equal weight.

    Parameters
    ----------
    weight
        Photons per gate, shape ``(n_gates,)``.
    most
        Groups at most.
    """
    if weight.size <= most:
        return np.arange(weight.size)
    cumulative = np.cumsum(weight) / max(float(weight.sum()), 1e-12)
    cuts = np.searchsorted(cumulative, np.arange(1, most) / most) + 1
    return np.unique(np.concatenate([[0], np.minimum(cuts, weight.size - 1)])).astype(np.int64)


def dynamics_data(
    trace: xr.Dataset,
    counts: Array,
    width_s: float,
    *,
    darkest_per_s: float,
    concentration: float,
) -> DynamicsData:
    """Merge the gates of counts, and say what background they hold and when their photons come.

    Parameters
    ----------
    trace
        Made by `pncbayes.bin_photons`.
    counts
        Its counts on the grid of the likelihood, shape ``(n_bins, n_gates)``.
    width_s
        Bin width of that grid, in s.
    darkest_per_s
        Counts per s of the darkest level: the background is no brighter.
    concentration
        Concentration of the decays of levels around their common shape.
    """
    n_gates = counts.shape[1]
    totals = counts.sum(axis=0)
    duration_s = counts.shape[0] * width_s
    rate = float(trace.attrs.get("background_rate_per_s", 0.0))
    rate = min(rate if np.isfinite(rate) else 0.0, _MOST_BACKGROUND * max(darkest_per_s, 0.0))
    if n_gates == 1 or "background_gate_fraction" not in trace:
        fraction = np.full(n_gates, 1.0 / n_gates)
    else:
        fraction = np.asarray(trace["background_gate_fraction"].values, dtype=np.float64)
    background = rate * fraction
    first = merge_gates(totals)
    merged = np.add.reduceat(counts, first, axis=1)
    delays = None
    if n_gates > 2 and "gate_start_ns" in trace.coords:
        signal = np.maximum(totals - background * duration_s, 1e-3 * totals + 1e-9)
        delays = _delay_table(trace, signal, first)
    return DynamicsData(
        np.ascontiguousarray(merged),
        width_s,
        np.add.reduceat(background, first),
        pooled_decay(merged.sum(axis=0)),
        concentration,
        delays,
    )


def _delay_table(trace: xr.Dataset, signal: Array, first: NDArray[np.int64]) -> DelayTable | None:
    """Delays of the gates in each group, weighted by their photons; None without a pulse."""
    start = np.asarray(trace["gate_start_ns"].values, dtype=np.float64)
    stop = np.asarray(trace["gate_stop_ns"].values, dtype=np.float64)
    pulse = float(trace.attrs.get("pulse_ns", np.nan))
    if not np.isfinite(pulse) or stop.max() <= pulse:
        return None
    begin, end = np.maximum(start - pulse, 0.0), np.maximum(stop - pulse, 0.0)
    # what comes before the pulse is hardly light of the dot: it has no delay to follow a rate by
    after = end > begin
    lifetime = float(signal[after] @ (0.5 * (begin + end))[after] / signal[after].sum())
    # within a wide gate the photons come early: parts of equal weight under one exponential
    at = (np.arange(_PARTS) + 0.5) / _PARTS
    for _ in range(_ROUNDS):
        share = -np.expm1(-np.clip((end - begin) / max(lifetime, 1e-9), 1e-6, 50.0))
        parts = begin[:, None] - lifetime * np.log1p(-at * share[:, None])
        # the far tail is background that was not taken off: a slower decay must not raise it
        parts = np.where(after[:, None], np.minimum(parts, _LONGEST * lifetime), 0.0)
        lifetime = float(signal[after] @ parts[after].mean(axis=1) / signal[after].sum())
    groups = np.append(first, signal.size)
    most = int(np.diff(groups).max()) * _PARTS
    delay, weight = np.zeros((first.size, most)), np.zeros((first.size, most))
    for group, (low, high) in enumerate(itertools.pairwise(groups)):
        own = parts[low:high].ravel()
        delay[group, : own.size] = own
        shares = np.repeat(signal[low:high] / signal[low:high].sum(), _PARTS)
        weight[group, : own.size] = shares / _PARTS
    return DelayTable(delay, weight, lifetime)
