"""Whether data drawn from a family of dynamics look like the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from pncbayes.inference.checks import autocorrelation, replicate_p_value
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import LEAST_CURVATURE, Optimum
from pncbayes.physics.flicker import brightness_factors, rate_factors
from pncbayes.physics.state_path import simulate_jumps

__all__ = ["DynamicsChecks", "check_dynamics", "draw_points", "replicate"]

Array = NDArray[np.float64]

N_REPLICATES = 150
_QUANTILES = (0.05, 0.5, 0.95)
_LAGS_PER_DECADE = 4
_LONGEST_LAG_S = 10.0
_LEVEL_GROUPS = 8
_DWELL_BINS_PER_DECADE = 4


@dataclass(frozen=True)
class DynamicsChecks:
    """Observed and replicated statistics.

    Attributes
    ----------
    names
        ``counts``, ``autocorrelation``, ``dwell_times`` and, with delays, ``decay``.
    x
        Of each, what it is a function of.
    observed
        Of each.
    quantiles
        5, 50 and 95 % of the replicates, ``(3, n)`` each.
    p_values
        Share of replicates as far from the model as the data.
    """

    names: tuple[str, ...]
    x: dict[str, Array]
    observed: dict[str, Array]
    quantiles: dict[str, Array]
    p_values: dict[str, float]

    def failed(self, level: float) -> list[str]:
        """Names of the checks whose p-value is at most `level`."""
        return [name for name in self.names if self.p_values[name] <= level]


def draw_points(optimum: Optimum, n_draws: int, rng: np.random.Generator) -> list[Array]:
    """Draw coordinates from the normal density around a mode."""
    if optimum.hessian is None:
        return [optimum.vector] * n_draws
    posterior = optimum.posterior
    _, _, parts = posterior.gradient(optimum.vector)
    scale = 1.0 / np.sqrt(posterior.curvature(optimum.vector, parts))
    values, vectors = np.linalg.eigh(optimum.hessian * scale[:, None] * scale)
    spread = vectors / np.sqrt(np.maximum(values, LEAST_CURVATURE))
    low, high = posterior.bounds()
    draws = []
    for _ in range(n_draws):
        step = scale * (spread @ rng.standard_normal(values.size))
        draws.append(np.clip(optimum.vector + step, low, high))
    return draws


def bleached_from(posterior: DynamicsPosterior, vector: Array) -> int | None:
    """First of the bins at the end that the level which is never left holds; None without."""
    if not posterior.family.bleaching:
        return None
    last = posterior.smooth(vector)[:, -1].sum(axis=1) > 0.5
    return int(last.size - (np.argmin(last[::-1]) if not last.all() else last.size))


def replicate(
    posterior: DynamicsPosterior,
    vector: Array,
    rng: np.random.Generator,
    *,
    bleached_from: int | None = None,
) -> Array:
    """Draw counts per bin and gate: a path of levels, a path of the flicker, then the counts.

    The flicker is the continuous process, not that of the grid. When a dot bleaches is chance, and
    says nothing of how it blinks before: where that bin is given, it is so in the replicate.

    Returns
    -------
    ndarray
        Shape ``(n_bins, n_gates)``.
    """
    point, data = posterior.unpack(vector), posterior.data
    n_bins, width_s = data.counts.shape[0], data.width_s
    n_states = point.n_states
    occupancy = np.ones((n_bins, 1))
    if n_states > 1:
        rates = point.transition_rate_per_s
        if bleached_from is not None:
            rates = rates.copy()
            rates[:, -1] = 0.0
        start: Literal["stationary"] | int = "stationary"
        if posterior.family.bleaching or (rates.sum(axis=1) * data.duration_s < 1.0).any():
            # what is entered once and not left has no stationary state to begin in
            start = int(np.argmax(posterior.smooth(vector)[0].sum(axis=1)))
        path = simulate_jumps(rates, (n_bins + 0.5) * width_s, initial_state=start, random_seed=rng)
        occupancy = path.occupancy_per_bin(width_s)[:n_bins]
        if bleached_from is not None:
            occupancy[bleached_from:] = np.arange(n_states) == n_states - 1
    signal = point.signal_per_s * width_s
    noise = point.excess
    if posterior.family.flicker:
        mean = np.einsum("tk,kg,tkg->tg", occupancy, signal, _factors(posterior, vector, rng))
        light = mean.sum(axis=1)
    else:
        mean = occupancy @ signal
        light = mean.sum(axis=1)
    if noise is not None:
        share = occupancy * signal.sum(axis=1)
        ratio = (share @ noise) / np.maximum(share.sum(axis=1), 1e-12)
        ratio = np.maximum(ratio, 1e-9)
        drawn = rng.gamma(np.maximum(light, 1e-12) / ratio, ratio)
        mean = mean * (drawn / np.maximum(light, 1e-12))[:, None]
    counts: Array = rng.poisson(mean + data.background_per_s * width_s).astype(np.float64)
    return counts


def _factors(posterior: DynamicsPosterior, vector: Array, rng: np.random.Generator) -> Array:
    """Factors of a path of the flicker, shape ``(n_bins, n_states or 1, n_gates or 1)``."""
    point, data = posterior.unpack(vector), posterior.data
    n_bins = data.counts.shape[0]
    keep = math.exp(-point.relaxation_rate_per_s * data.width_s)
    noise: Array = np.asarray(rng.standard_normal(n_bins))
    noise[1:] *= math.sqrt(1.0 - keep**2)
    x: Array = lfilter([1.0], [1.0, -keep], noise)
    if posterior.family.flicker == "k_nr":
        assert data.delays is not None
        found = rate_factors(
            x, float(point.amplitude[0]), point.non_radiative_rate_per_ns, data.delays
        )
    else:
        found = brightness_factors(x, point.amplitude)
    factors: Array = np.ascontiguousarray(np.swapaxes(found.value, 0, 1))
    n_states = point.n_states
    shape = (n_bins, n_states, data.n_gates)
    return np.broadcast_to(factors, shape)


class _Statistics:
    """Statistics of counts that are compared, on axes fixed by the data."""

    def __init__(self, counts: Array, width_s: float, levels_per_s: Array) -> None:
        totals = counts.sum(axis=1)
        self.width_s, self.n_gates = width_s, counts.shape[1]
        step = max(1.0, np.round(0.5 * np.sqrt(max(totals.mean(), 1.0))))
        self.edges = np.arange(-0.5, 1.5 * totals.max() + 5.0 * step, step)
        n_bins = totals.size
        longest = max(int(min(n_bins // 4, _LONGEST_LAG_S / width_s)), 1)
        self.lags = np.unique(
            np.geomspace(1, longest, int(_LAGS_PER_DECADE * np.log10(longest) + 1)).astype(np.int64)
        )
        bright, dark = float(levels_per_s.max()), float(levels_per_s.min())
        # with one level there is no threshold: excursions from the mean say how long it wanders
        single = bright < 1.15 * dark
        self.threshold = float(totals.mean()) if single else 0.5 * (bright + dark) * width_s
        # shot noise makes dwells of one bin of any threshold: smooth as far as it takes
        contrast = max(0.5 * (bright - dark), 0.1 * bright) * width_s
        need = 9.0 * max(self.threshold, 1.0) / max(contrast, 1e-9) ** 2
        self.window = int(np.clip(np.ceil(need), 1, max(n_bins // 50, 1)))
        most = max(n_bins / self.window, 2.0)
        n_edges = int(_DWELL_BINS_PER_DECADE * np.log10(most)) + 2
        self.dwell_edges = np.unique(np.geomspace(1, most, n_edges).astype(np.int64))
        quantiles = np.quantile(totals, np.linspace(0, 1, _LEVEL_GROUPS + 1)[1:-1])
        self.groups = np.unique(quantiles)
        self.gate = np.arange(self.n_gates, dtype=np.float64)

    def __call__(self, counts: Array) -> dict[str, Array]:
        totals = counts.sum(axis=1)
        found = {
            "counts": np.histogram(np.minimum(totals, self.edges[-1]), self.edges)[0].astype(float),
            "autocorrelation": autocorrelation(totals, self.lags),
            "dwell_times": self._dwells(totals),
        }
        if self.n_gates > 1:
            group = np.searchsorted(self.groups, totals, side="right")
            photons = np.bincount(group, totals, minlength=self.groups.size + 1)
            late = np.bincount(group, counts @ self.gate, minlength=self.groups.size + 1)
            found["decay"] = late / np.maximum(photons, 1.0)
        return found

    def _dwells(self, totals: Array) -> Array:
        whole = totals.size // self.window * self.window
        block = totals[:whole].reshape(-1, self.window).mean(axis=1)
        above = block > self.threshold
        ends = np.flatnonzero(np.diff(above)) + 1
        runs = np.diff(np.concatenate([[0], ends, [above.size]]))
        kind = above[np.concatenate([[0], ends])] if ends.size else above[:1]
        parts = [
            np.histogram(runs[kind == on], np.append(self.dwell_edges, above.size + 1))[0]
            for on in (True, False)
        ]
        return np.concatenate(parts).astype(np.float64)

    def axes(self) -> dict[str, Array]:
        """What each statistic is a function of."""
        dwell_s = self.dwell_edges * self.window * self.width_s
        return {
            "counts": 0.5 * (self.edges[:-1] + self.edges[1:]),
            "autocorrelation": self.lags * self.width_s,
            "dwell_times": np.concatenate([dwell_s, dwell_s]),
            "decay": np.arange(self.groups.size + 1, dtype=np.float64),
        }


def check_dynamics(
    optimum: Optimum, rng: np.random.Generator, *, n_replicates: int = N_REPLICATES
) -> DynamicsChecks:
    """Compare counts, autocorrelation, dwell times and decays with replicates.

    Counts per bin; normalised autocorrelation from one bin to 10 s; times above and below the
    middle between the brightest and the darkest level, as a classical analysis sees them; mean
    gate as a function of the counts of the bin.

    Parameters
    ----------
    optimum
        A mode with its curvature: replicates are drawn at parameters around it.
    rng
        Source of randomness.
    n_replicates
        How many.
    """
    posterior = optimum.posterior
    levels = optimum.point.signal_per_s.sum(axis=1) + posterior.data.background_per_s.sum()
    statistics = _Statistics(posterior.data.counts, posterior.data.width_s, levels)
    observed = statistics(posterior.data.counts)
    drawn: dict[str, list[Array]] = {name: [] for name in observed}
    end = bleached_from(posterior, optimum.vector)
    for vector in draw_points(optimum, n_replicates, rng):
        counts = replicate(posterior, vector, rng, bleached_from=end)
        for name, value in statistics(counts).items():
            drawn[name].append(value)
    stacked = {name: np.array(values) for name, values in drawn.items()}
    axes = statistics.axes()
    return DynamicsChecks(
        tuple(observed),
        {name: axes[name] for name in observed},
        observed,
        {name: np.quantile(values, _QUANTILES, axis=0) for name, values in stacked.items()},
        {name: replicate_p_value(observed[name], stacked[name]) for name in observed},
    )
