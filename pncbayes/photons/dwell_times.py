"""The classical analysis of blinking: a threshold, dwell times, and a power law through them.

It is here to be compared with. A threshold misses every dwell that is shorter than a bin, merges
its neighbours into one long dwell, and breaks dwells in two where the counts of one bin happen to
cross it; the hidden Markov model of `pncbayes.inference.ladder` does none of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

__all__ = [
    "DwellTimes",
    "PowerLawEstimate",
    "fit_power_law",
    "fit_straight_line",
    "threshold_dwell_times",
]

Array = NDArray[np.float64]

_FEWEST_DWELLS = 10
_MOST_STARTS = 12
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(60)
_LAST_TRUNCATIONS = 50.0


@dataclass(frozen=True, eq=False)
class DwellTimes:
    """Dwell times on both sides of a threshold.

    Attributes
    ----------
    on_s, off_s
        Complete dwell times above and below the threshold, in s, in the order of time.
    on_censored_s, off_censored_s
        Those that the start or the end of the record cut off, in s: lower bounds.
    threshold
        In counts per bin; ON is above.
    width_s
        Bin width in s.
    """

    on_s: Array
    off_s: Array
    on_censored_s: Array
    off_censored_s: Array
    threshold: float
    width_s: float


def threshold_dwell_times(
    counts: ArrayLike, width_s: float, *, threshold: float | None = None
) -> DwellTimes:
    """Cut a trace in dwells above and below a threshold.

    Parameters
    ----------
    counts
        Counts per bin, shape ``(n_bins,)``.
    width_s
        Bin width in s.
    threshold
        In counts per bin; None for the midpoint between the two levels, which are the means above
        and below it (two-means clustering).

    Raises
    ------
    ValueError
        If the counts are not a series of numbers, or the width is not positive.
    """
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"`counts` must be two or more finite numbers of shape (n_bins,), got shape "
            f"{values.shape}; sum gates first"
        )
    if not (math.isfinite(width_s) and width_s > 0):
        raise ValueError(f"`width_s` must be a positive number of seconds, got {width_s!r}")
    if threshold is None:
        threshold = _midpoint(values)
    elif not math.isfinite(threshold):
        raise ValueError(f"`threshold` must be a finite number of counts, got {threshold!r}")
    above = values > threshold
    edges = np.flatnonzero(np.diff(above)) + 1
    bounds = np.concatenate(([0], edges, [values.size]))
    lengths_s = np.diff(bounds) * width_s
    is_on = above[bounds[:-1]]
    complete = np.ones(lengths_s.size, np.bool_)
    complete[[0, -1]] = False
    return DwellTimes(
        on_s=lengths_s[complete & is_on],
        off_s=lengths_s[complete & ~is_on],
        on_censored_s=lengths_s[~complete & is_on],
        off_censored_s=lengths_s[~complete & ~is_on],
        threshold=float(threshold),
        width_s=float(width_s),
    )


def _midpoint(values: Array) -> float:
    middle = 0.5 * float(values.min() + values.max())
    for _ in range(100):
        above = values > middle
        if above.all() or not above.any():
            break
        moved = 0.5 * float(values[above].mean() + values[~above].mean())
        if abs(moved - middle) < 1e-9 * max(abs(moved), 1.0):
            break
        middle = moved
    return middle


@dataclass(frozen=True)
class PowerLawEstimate:
    """Maximum-likelihood truncated power law.

    Attributes
    ----------
    exponent, truncation_s
        Of the density t^-exponent exp(-t / truncation_s); the truncation is infinite where the
        data ask for none.
    exponent_sd, log_truncation_sd
        Standard errors from the curvature of the likelihood; NaN where there is none.
    shortest_s
        Dwells below are left out.
    n_dwells
        Complete dwells that were used.
    distance
        Kolmogorov-Smirnov distance between the dwells and the law.
    """

    exponent: float
    truncation_s: float
    exponent_sd: float
    log_truncation_sd: float
    shortest_s: float
    n_dwells: int
    distance: float


def _log_tail(start_s: Array, exponent: float, truncation_s: float) -> Array:
    """Log of the integral of the density from each time on."""
    reach = np.log1p(_LAST_TRUNCATIONS * truncation_s / start_s)
    logs = 0.5 * np.multiply.outer(reach, _NODES + 1.0)
    stretch = (np.exp(logs) - 1.0) * start_s[..., None] / truncation_s
    integral = 0.5 * reach * (np.exp((1.0 - exponent) * logs - stretch) @ _NODE_WEIGHTS)
    logs_of: Array = (1.0 - exponent) * np.log(start_s) - start_s / truncation_s + np.log(integral)
    return logs_of


def fit_power_law(
    dwell_s: ArrayLike,
    width_s: float,
    *,
    shortest_s: float | None = None,
    censored_s: ArrayLike = (),
) -> PowerLawEstimate:
    """Fit a truncated power law to dwell times by maximum likelihood.

    Censored dwells enter with the probability to last at least that long. Dwell times that were
    counted in bins stand for half a bin to either side, so the law begins half a bin below
    `shortest_s` [1]_.

    Parameters
    ----------
    dwell_s
        Complete dwell times in s.
    width_s
        Bin width in s that they were counted with.
    shortest_s
        Dwells below are left out; None for the start at which the dwells above are closest to
        their law (least Kolmogorov-Smirnov distance).
    censored_s
        Lower bounds of dwell times, in s.

    Raises
    ------
    ValueError
        If there are fewer than 10 dwells to fit, or a time or width is not positive.

    References
    ----------
    .. [1] Clauset, A.; Shalizi, C. R.; Newman, M. E. J. Power-law distributions in empirical data.
       SIAM Rev. 51, 661 (2009), doi:10.1137/070710111.
    """
    dwells = _checked(dwell_s, "dwell_s")
    censored = _checked(censored_s, "censored_s")
    if not (math.isfinite(width_s) and width_s > 0):
        raise ValueError(f"`width_s` must be a positive number of seconds, got {width_s!r}")
    if shortest_s is not None:
        return _fit_from(dwells, censored, float(shortest_s), width_s)
    held = np.unique(np.rint(dwells / width_s)) * width_s
    starts = [s for s in held if (dwells >= s - 0.25 * width_s).sum() >= 2 * _FEWEST_DWELLS]
    starts = starts[:: max(1, math.ceil(len(starts) / _MOST_STARTS))]
    if not starts:
        return _fit_from(dwells, censored, float(dwells.min(initial=width_s)), width_s)
    found = [_fit_from(dwells, censored, float(start), width_s) for start in starts]
    return min(found, key=lambda one: one.distance)


def _checked(times_s: ArrayLike, name: str) -> Array:
    times = np.asarray(times_s, dtype=np.float64).ravel()
    if not np.isfinite(times).all() or (times <= 0).any():
        raise ValueError(f"`{name}` must be positive, finite times in s")
    return times


def _fit_from(
    dwells: Array, censored: Array, shortest_s: float, width_s: float
) -> PowerLawEstimate:
    used = dwells[dwells >= shortest_s - 0.25 * width_s]
    if used.size < _FEWEST_DWELLS:
        raise ValueError(
            f"a power law needs {_FEWEST_DWELLS} complete dwells of `shortest_s` = "
            f"{shortest_s:g} s or more, got {used.size}; record longer, or lower `shortest_s`"
        )
    begin_s = max(shortest_s - 0.5 * width_s, 0.25 * shortest_s)
    begin = np.array([begin_s])
    # what is cut off before the law begins says nothing
    bounds = censored[censored > begin_s]
    log_sum, total = float(np.log(used).sum()), float(used.sum())

    def cost(point: Array) -> float:
        exponent, truncation_s = float(point[0]), math.exp(point[1])
        whole = float(_log_tail(begin, exponent, truncation_s)[0])
        value = exponent * log_sum + total / truncation_s + used.size * whole
        if bounds.size:
            value -= float((_log_tail(bounds, exponent, truncation_s) - whole).sum())
        return value

    # beyond this the record cannot tell a truncation from none
    longest = math.log(100.0 * float(max(used.max(), bounds.max(initial=0.0))))
    lowest = math.log(0.2 * begin_s)
    found = min(
        (
            minimize(cost, [1.5, start], method="L-BFGS-B", bounds=[(0.0, 4.0), (lowest, longest)])
            for start in (math.log(float(used.mean())), math.log(3.0 * float(used.max())))
        ),
        key=lambda one: float(one.fun),
    )
    exponent, log_truncation = float(found.x[0]), float(found.x[1])
    truncation_s = math.exp(log_truncation)
    exponent_sd, log_sd = _standard_errors(cost, found.x)
    ordered, repeats = np.unique(used, return_counts=True)
    # at the upper end of the half bin that each dwell stands for
    tails = _log_tail(ordered + 0.5 * width_s, exponent, truncation_s)
    survival = np.exp(tails - _log_tail(begin, exponent, truncation_s)[0])
    distance = float(np.abs(1.0 - np.cumsum(repeats) / used.size - survival).max())
    return PowerLawEstimate(
        exponent,
        truncation_s if log_truncation < longest - 1e-3 else math.inf,
        exponent_sd,
        log_sd,
        shortest_s,
        int(used.size),
        distance,
    )


def _standard_errors(cost: Callable[[Array], float], point: Array) -> tuple[float, float]:
    """Square roots of the diagonal of the inverse curvature."""
    step = np.array([0.01, 0.02])
    curvature = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            up, down = step * (np.arange(2) == i), step * (np.arange(2) == j)
            corners = [cost(point + a * up + b * down) for a in (1, -1) for b in (1, -1)]
            curvature[i, j] = (corners[0] - corners[1] - corners[2] + corners[3]) / (
                4.0 * step[i] * step[j]
            )
    if not np.linalg.eigvalsh(curvature)[0] > 0:
        return math.nan, math.nan
    spread = np.sqrt(np.diag(np.linalg.inv(curvature)))
    return float(spread[0]), float(spread[1])


def fit_straight_line(dwell_s: ArrayLike, *, per_decade: int = 5) -> tuple[float, float]:
    """Exponent from a straight line through the log-log histogram, as is widely done.

    Least squares, without weights, through the logarithm of the density in bins that are evenly
    spaced on a logarithmic axis; empty bins are left out. It is biased, and its error is not that
    of the exponent (see Clauset et al., doi:10.1137/070710111, appendix A).

    Parameters
    ----------
    dwell_s
        Dwell times in s.
    per_decade
        Bins of the histogram per decade.

    Returns
    -------
    exponent, standard_error : float
        NaN where fewer than three bins hold a dwell.
    """
    dwells = _checked(dwell_s, "dwell_s")
    if per_decade < 1:
        raise ValueError(f"`per_decade` must be 1 or more, got {per_decade}")
    if dwells.size == 0:
        return math.nan, math.nan
    low, high = math.log10(float(dwells.min())), math.log10(float(dwells.max()))
    n_bins = max(1, math.ceil((high - low + 1e-9) * per_decade))
    edges = np.logspace(low - 1e-6, low + n_bins / per_decade + 1e-6, n_bins + 1)
    held, _ = np.histogram(dwells, edges)
    full = held > 0
    if full.sum() < 3:
        return math.nan, math.nan
    centre = 0.5 * (np.log10(edges[1:]) + np.log10(edges[:-1]))[full]
    density = np.log10(held[full] / np.diff(edges)[full])
    offset = centre - centre.mean()
    slope = float(offset @ density / (offset @ offset))
    rest = density - density.mean() - slope * offset
    error = math.sqrt(float(rest @ rest) / (full.sum() - 2) / float(offset @ offset))
    return -slope, error
