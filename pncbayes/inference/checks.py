"""Predictive checks: whether data drawn from the fitted model look like the data."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.emission import mixed_excess
from pncbayes.inference.posterior import Parameters
from pncbayes.physics.state_path import simulate_jumps

__all__ = ["autocorrelation", "predictive_checks", "replicate_counts", "replicate_p_value"]

Array = NDArray[np.float64]

_LAGS_PER_DECADE = 4
# Fewest bins that an autocorrelation says anything about.
_FEWEST_BINS = 4
_QUANTILES = (0.05, 0.5, 0.95)


def autocorrelation(counts: Array, lags: NDArray[np.int64]) -> Array:
    """Normalised autocovariance of counts, ``<n(t) n(t+lag)>/<n>^2 - 1``, shape of `lags`.

    NaN at lags that the counts are too few for; 0 where there are no counts.
    """
    mean = counts.mean()
    if mean == 0:
        return np.zeros(lags.size)
    centred = counts - mean
    return np.array(
        [
            np.mean(centred[:-lag] * centred[lag:]) / mean**2 if lag < centred.size else np.nan
            for lag in lags
        ]
    )


def replicate_counts(
    point: Parameters,
    n_bins: int,
    width_s: float,
    rng: np.random.Generator,
    camera: tuple[float, float, float, float] | None = None,
) -> Array:
    """Draw total counts per bin from the model: a continuous-time path, then the counts.

    Parameters
    ----------
    point
        Parameters of the model.
    n_bins, width_s
        The grid.
    rng
        Source of randomness.
    camera
        Gain, offset, read noise, excess factor, for camera counts.

    Returns
    -------
    ndarray
        Shape ``(n_bins,)``.
    """
    rates = point.rate_per_s
    if point.n_states == 1:
        mean = np.full(n_bins, rates[0] * width_s)
        excess = None if point.excess is None else np.full(n_bins, point.excess[0])
    else:
        path = simulate_jumps(
            point.transition_rate_per_s,
            (n_bins + 0.5) * width_s,
            initial_state="stationary",
            random_seed=rng,
        )
        occupancy = path.occupancy_per_bin(width_s)[:n_bins]
        mean = occupancy @ rates * width_s
        # variances add up: each state's ratio counts by its expected counts
        if point.excess is None:
            excess = None
        else:
            excess = mixed_excess(occupancy, rates[:, None], point.excess)
    if camera is not None:
        gain, offset, read_noise, factor = camera
        sd = np.sqrt((factor * gain) ** 2 * mean + read_noise**2)
        values: Array = offset + gain * mean + sd * rng.standard_normal(mean.size)
        return values
    if excess is not None:
        mean = rng.gamma(mean / excess, excess)
    counts: Array = rng.poisson(mean).astype(np.float64)
    return counts


def predictive_checks(
    totals: Array,
    width_s: float,
    draws: list[Parameters],
    rng: np.random.Generator,
    camera: tuple[float, float, float, float] | None = None,
) -> tuple[xr.Dataset, dict[str, float]]:
    """Compare histogram and autocorrelation of counts with replicates.

    Parameters
    ----------
    totals
        Counts per bin, shape ``(n_bins,)``.
    width_s
        Bin width in s.
    draws
        Posterior draws, one replicate each.
    rng
        Source of randomness.
    camera
        As in `replicate_counts`.

    Returns
    -------
    dataset : xarray.Dataset
        Observed and replicated quantities.
    p_values : dict
        By check: share of replicates that are at least as far from the mean replicate as the
        data, each held against the mean and variance of the others. NaN where a check cannot be
        made: autocorrelation with fewer than four bins (lags reach a quarter of the trace), or
        without counts.
    """
    n_bins = totals.size
    low, high = float(totals.min()), float(totals.max())
    replicates = [replicate_counts(point, n_bins, width_s, rng, camera) for point in draws]
    high = max(high, *(float(one.max()) for one in replicates))
    low = min(low, *(float(one.min()) for one in replicates))
    # boxes of about the shot noise: finer ones test noise, coarser ones hide levels
    step = max(1.0, np.round(0.5 * np.sqrt(max(totals.mean(), 1.0))))
    edges = np.arange(np.floor(low) - 0.5, high + 1.5 * step, step)
    longest = int(min(n_bins // 4, 10.0 / width_s))
    lags = np.unique(
        np.geomspace(
            1, max(longest, 1), int(_LAGS_PER_DECADE * np.log10(max(longest, 1)) + 1)
        ).astype(np.int64)
    )

    def statistics(counts: Array) -> tuple[Array, Array]:
        return np.histogram(counts, edges)[0].astype(float), autocorrelation(counts, lags)

    observed = statistics(totals)
    replicated = [np.array(part) for part in zip(*map(statistics, replicates), strict=True)]
    p_values = {
        name: replicate_p_value(seen, drawn)
        for name, seen, drawn in zip(
            ("count_histogram", "autocorrelation"), observed, replicated, strict=True
        )
    }
    if n_bins < _FEWEST_BINS or not totals.any():
        p_values["autocorrelation"] = np.nan
    dataset = xr.Dataset(
        {
            "count_histogram": ("count_value", observed[0]),
            "count_histogram_replicated": (
                ("quantile", "count_value"),
                np.quantile(replicated[0], _QUANTILES, axis=0),
            ),
            "autocorrelation": ("lag_s", observed[1]),
            "autocorrelation_replicated": (
                ("quantile", "lag_s"),
                np.quantile(replicated[1], _QUANTILES, axis=0),
            ),
            "p_value": ("check", np.array(list(p_values.values()))),
        },
        coords={
            "count_value": 0.5 * (edges[:-1] + edges[1:]),
            "lag_s": lags * width_s,
            "quantile": list(_QUANTILES),
            "check": list(p_values),
        },
    )
    return dataset, p_values


def replicate_p_value(observed: Array, replicated: Array) -> float:
    """Share of replicates with a larger sum of squared deviations than the data."""
    n = replicated.shape[0]
    total, squares = replicated.sum(axis=0), (replicated**2).sum(axis=0)

    def discrepancy(one: Array, total: Array, squares: Array, number: int) -> float:
        mean = total / number
        variance = np.maximum(squares / number - mean**2, 0.0) * number / (number - 1)
        # empty boxes and a floor of one count squared per replicate keep rare boxes from ruling
        floor = 1e-12 + (1.0 / number if squares.max() > n else 0.0)
        return float(((one - mean) ** 2 / (variance + floor)).sum())

    seen = discrepancy(observed, total, squares, n)
    others = np.array(
        [discrepancy(one, total - one, squares - one**2, n - 1) for one in replicated]
    )
    return float((1 + (others >= seen).sum()) / (n + 1))
