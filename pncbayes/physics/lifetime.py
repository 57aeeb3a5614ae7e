"""Amplitude-averaged lifetimes by reconvolution with two exponentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pncbayes.physics.convolution import (
    Response,
    as_response,
    exponential_gate_probability,
    flat_gate_fraction,
)
from pncbayes.physics.lifetime_kernels import fit_rows

__all__ = [
    "LifetimeFit",
    "LifetimeFitter",
    "amplitude_averaged_lifetime",
    "lifetime_fitter",
    "response_shift_ns",
]

# Pairs of lifetimes are searched on about this many of the dictionary.
_N_SEARCHED = 32
_FEWEST_PHOTONS = 50.0


@dataclass(frozen=True, eq=False)
class LifetimeFit:
    """Result of `LifetimeFitter.fit`, one entry per row of gate counts.

    Parameters
    ----------
    lifetime_ns
        Amplitude-averaged lifetime ``sum(a tau) / sum(a)``, shape ``(n,)``; NaN without signal.
    sd_ns
        Its standard error at these counts, shape ``(n,)``.
    lifetimes_ns
        Lifetimes of the two exponentials, short and long, shape ``(n, 2)``; equal where one
        exponential is enough.
    amplitudes
        Their amplitudes at time zero, sum 1, shape ``(n, 2)``.
    signal_photons, background_photons
        Photons of the decay and of the background, shape ``(n,)``.
    at_bound
        A lifetime with a share of the amplitude stands at the bound of the search, shape ``(n,)``.
    too_few
        Fewer than 50 photons of signal, or none above the error of the background, shape ``(n,)``.
    log_likelihood
        Poisson log-likelihood without the factorials of the counts, shape ``(n,)``.
    """

    lifetime_ns: NDArray[np.float64]
    sd_ns: NDArray[np.float64]
    lifetimes_ns: NDArray[np.float64]
    amplitudes: NDArray[np.float64]
    signal_photons: NDArray[np.float64]
    background_photons: NDArray[np.float64]
    at_bound: NDArray[np.bool_]
    too_few: NDArray[np.bool_]
    log_likelihood: NDArray[np.float64]


class LifetimeFitter:
    """Fits gate histograms of one instrument: built once, then fast.

    Parameters
    ----------
    gate_start_ns, gate_stop_ns
        Edges of the gates in ns after the start of the TCSPC period, shape ``(n_gates,)``; the
        gates follow each other without holes.
    response
        Gaussian, measured, or a histogram on the delay clock (`as_response`).
    period_ns
        Laser period, in ns.
    delay_tick_ns
        Clock of a response that is a plain histogram, in ns.
    background_fraction
        Share of the background in each gate, shape ``(n_gates,)``; by the widths if not given.
    shift_ns
        Time by which the response arrives later than it was measured, in ns (`response_shift_ns`).
    n_lifetimes
        Lifetimes of the dictionary, at least 8; between them shares are interpolated by cubics.

    Notes
    -----
    The counts are fitted by ``A1 P(tau1) + A2 P(tau2) + B b``, with the gate shares P of an
    exponential and b of the background, all of A1, A2, B >= 0, by Poisson maximum likelihood.
    Lifetimes lie between a tenth of the width of the response (at least a twentieth of the
    narrowest gate) and the laser period. Pairs on a grid, fitted by weighted least squares, give
    the start; Fisher scoring the rest. The second exponential is kept when it raises the
    log-likelihood by more than 3; else a spurious fast one, which holds few photons but much
    amplitude, would halve the average.
    """

    def __init__(
        self,
        gate_start_ns: ArrayLike,
        gate_stop_ns: ArrayLike,
        response: Any,
        period_ns: float,
        *,
        delay_tick_ns: float | None = None,
        background_fraction: ArrayLike | None = None,
        shift_ns: float = 0.0,
        n_lifetimes: int = 160,
    ) -> None:
        edges = _edges(gate_start_ns, gate_stop_ns)
        known: Response = as_response(response, delay_tick_ns)
        narrowest = float(np.diff(edges).min())
        shortest = max(known.width_ns / 10.0, narrowest / 20.0)
        if not shortest < period_ns / 4.0:
            raise ValueError(
                f"the response is {known.width_ns:.4g} ns wide and the laser period is "
                f"{period_ns:.4g} ns: no room for a lifetime between them; check the units"
            )
        self.shift_ns = float(shift_ns)
        self.bounds_ns = (shortest, float(period_ns))
        self.log_lifetimes = np.linspace(np.log(shortest), np.log(period_ns), n_lifetimes)
        shares = exponential_gate_probability(
            np.exp(-self.log_lifetimes), edges, known, float(period_ns), shift_ns
        )
        # what was recorded, when the gates leave out a part of the period
        shares = np.maximum(shares, 1e-12)
        self.shares = np.ascontiguousarray(shares / shares.sum(axis=1, keepdims=True))
        background = (
            flat_gate_fraction(edges)
            if background_fraction is None
            else np.asarray(background_fraction, dtype=np.float64)
        )
        if background.shape != (edges.size - 1,) or not background.sum() > 0:
            raise ValueError(
                f"`background_fraction` must have one number per gate ({edges.size - 1}), got "
                f"shape {background.shape}"
            )
        self.background = np.ascontiguousarray(background / background.sum())

    def fit(
        self,
        gate_counts: ArrayLike,
        *,
        background_counts: float | ArrayLike | None = None,
        background_counts_sd: float | ArrayLike | None = None,
    ) -> LifetimeFit:
        """Fit gate histograms.

        Parameters
        ----------
        gate_counts
            Counts per gate, shape ``(n_gates,)`` or ``(n, n_gates)``; need not be whole, so that
            draws of gate probabilities times a number of photons may be given.
        background_counts, background_counts_sd
            What is known of the background in each histogram, in photons: mean and standard
            deviation, numbers or shape ``(n,)``. Without, it is free.

        Returns
        -------
        LifetimeFit

        Raises
        ------
        ValueError
            If counts are negative or not finite, or do not fit the gates.
        """
        counts = np.atleast_2d(np.asarray(gate_counts, dtype=np.float64))
        n_gates = self.background.size
        if counts.ndim != 2 or counts.shape[1] != n_gates:
            raise ValueError(
                f"`gate_counts` must have {n_gates} gates in its last dimension, got shape "
                f"{np.shape(gate_counts)}"
            )
        if not np.all(np.isfinite(counts)) or np.any(counts < 0):
            raise ValueError("`gate_counts` must be finite and >= 0")
        n = counts.shape[0]
        mean = np.zeros(n) if background_counts is None else _per_row(background_counts, n)
        if background_counts is None or background_counts_sd is None:
            information = np.zeros(n)
        else:
            information = 1.0 / np.maximum(_per_row(background_counts_sd, n), 1e-3) ** 2
        rows = fit_rows(
            np.ascontiguousarray(counts),
            self.shares,
            self.log_lifetimes,
            self.background,
            mean,
            information,
            max(1, round(self.log_lifetimes.size / _N_SEARCHED)),
        )
        return self._result(rows)

    def _result(self, rows: NDArray[np.float64]) -> LifetimeFit:
        log_tau, photons, background = rows[:, 0:2], rows[:, 2:4], rows[:, 4]
        lifetimes = np.exp(log_tau)
        signal = photons.sum(axis=1)
        amplitude = photons / lifetimes
        total = amplitude.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(total[:, None] > 0, amplitude / total[:, None], np.nan)
            average = np.where(total > 0, signal / total, np.nan)
        near = np.log(1.02)
        low, high = self.log_lifetimes[0] + near, self.log_lifetimes[-1] - near
        at_bound = np.any(((log_tau < low) | (log_tau > high)) & (share > 0.05), axis=1)
        few = (signal < _FEWEST_PHOTONS) | (signal < 3.0 * np.sqrt(np.maximum(background, 0.0)))
        return LifetimeFit(
            average,
            average * rows[:, 5],
            lifetimes,
            share,
            signal,
            background,
            at_bound,
            few,
            rows[:, 6],
        )


def amplitude_averaged_lifetime(
    gate_counts: ArrayLike,
    gate_start_ns: ArrayLike,
    gate_stop_ns: ArrayLike,
    response: Any,
    period_ns: float,
    *,
    delay_tick_ns: float | None = None,
    background_fraction: ArrayLike | None = None,
    shift_ns: float = 0.0,
    background_counts: float | ArrayLike | None = None,
    background_counts_sd: float | ArrayLike | None = None,
) -> LifetimeFit:
    """Amplitude-averaged lifetime of gate histograms, by reconvolution with two exponentials.

    For many calls with the same instrument build a `LifetimeFitter` once; its parameters and those
    of its method `fit` are the ones of this function.

    Examples
    --------
    >>> import numpy as np
    >>> from pncbayes.physics.decay import GaussianResponse, gate_probability
    >>> edges = np.concatenate([[0.0, 2.5], 2.5 + np.geomspace(0.3, 97.5, 23)])
    >>> response = GaussianResponse(3.0, 0.1)
    >>> share = gate_probability([2.0, 15.0], [0.5, 0.5], edges, response, 100.0)
    >>> fit = amplitude_averaged_lifetime(1e5 * share, edges[:-1], edges[1:], response, 100.0)
    >>> round(float(fit.lifetime_ns[0]), 2)
    8.5
    """
    fitter = LifetimeFitter(
        gate_start_ns,
        gate_stop_ns,
        response,
        period_ns,
        delay_tick_ns=delay_tick_ns,
        background_fraction=background_fraction,
        shift_ns=shift_ns,
    )
    return fitter.fit(
        gate_counts, background_counts=background_counts, background_counts_sd=background_counts_sd
    )


def response_shift_ns(
    gate_counts: ArrayLike,
    gate_start_ns: ArrayLike,
    gate_stop_ns: ArrayLike,
    response: Any,
    period_ns: float,
    *,
    delay_tick_ns: float | None = None,
    background_fraction: ArrayLike | None = None,
    reach_ns: float | None = None,
) -> tuple[float, float]:
    """Time by which the light comes later than a measured response says.

    A response measured at another colour, on another day or through another path does not start
    where the data do, and a tenth of its width is enough to falsify fast lifetimes. The shift is
    the one at which two exponentials and a background fit the pooled gate counts best.

    Parameters
    ----------
    gate_counts
        Pooled counts per gate, shape ``(n_gates,)``.
    gate_start_ns, gate_stop_ns, response, period_ns, delay_tick_ns, background_fraction
        As in `LifetimeFitter`.
    reach_ns
        Largest shift tried, in ns; twice the width of the response if not given.

    Returns
    -------
    shift_ns, sd_ns : float
        The shift and its standard error, from the curvature of the likelihood; the latter infinite
        when the shift stands at the end of the reach.
    """
    known = as_response(response, delay_tick_ns)
    reach = 2.0 * known.width_ns if reach_ns is None else float(reach_ns)

    def minus_log_likelihood(shift_ns: float) -> float:
        fitter = LifetimeFitter(
            gate_start_ns,
            gate_stop_ns,
            known,
            period_ns,
            background_fraction=background_fraction,
            shift_ns=shift_ns,
            n_lifetimes=48,
        )
        return -float(fitter.fit(gate_counts).log_likelihood[0])

    grid = np.linspace(-reach, reach, 17)
    values = [minus_log_likelihood(float(shift)) for shift in grid]
    best = int(np.argmin(values))
    if best in (0, grid.size - 1):
        return float(grid[best]), float("inf")
    found = scipy.optimize.minimize_scalar(
        minus_log_likelihood,
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": 0.01 * known.width_ns},
    )
    step = 0.05 * known.width_ns
    curvature = (
        minus_log_likelihood(found.x - step) + minus_log_likelihood(found.x + step) - 2 * found.fun
    ) / step**2
    return float(found.x), float(1.0 / np.sqrt(curvature)) if curvature > 0 else float("inf")


def lifetime_fitter(trace: xr.Dataset, *, fit_shift: bool | None = None) -> LifetimeFitter:
    """Build the fitter of a trace from its gates, response and background.

    Parameters
    ----------
    trace
        Made by `bin_photons`, with a response.
    fit_shift
        Whether the response is moved to where the data are (`response_shift_ns`). If not given, a
        measured response is and one estimated from the data is not.

    Returns
    -------
    LifetimeFitter
        With the shift as `shift_ns`.

    Raises
    ------
    ValueError
        If the trace has no delays or no response.
    """
    if "response" not in trace or not np.isfinite(trace.attrs.get("period_ns", np.nan)):
        raise ValueError(
            "`trace` has no delays or no response, so it has no lifetimes; bin photons with delays "
            "and give `response`"
        )
    if fit_shift is None:
        fit_shift = str(trace.attrs.get("response_source", "")).startswith("measured")
    response = as_response(trace["response"].to_numpy(), float(trace.attrs["delay_tick_ns"]))
    start, stop = trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()
    period_ns = float(trace.attrs["period_ns"])
    background = trace["background_gate_fraction"].to_numpy()
    shift_ns = 0.0
    if fit_shift:
        pooled = trace["counts"].sum("time").to_numpy()
        shift_ns, _ = response_shift_ns(
            pooled, start, stop, response, period_ns, background_fraction=background
        )
    return LifetimeFitter(
        start, stop, response, period_ns, background_fraction=background, shift_ns=shift_ns
    )


def _edges(start: ArrayLike, stop: ArrayLike) -> NDArray[np.float64]:
    first = np.atleast_1d(np.asarray(start, dtype=np.float64))
    last = np.atleast_1d(np.asarray(stop, dtype=np.float64))
    if first.shape != last.shape or first.size < 3 or not np.all(np.isfinite(first + last)):
        raise ValueError(
            "`gate_start_ns` and `gate_stop_ns` must be finite, of the same length, and of at "
            f"least 3 gates, got {first.size} and {last.size}; a trace without delays has no "
            "lifetime"
        )
    edges = np.append(first, last[-1])
    if np.any(np.diff(edges) <= 0) or not np.allclose(first[1:], last[:-1]):
        raise ValueError("gates must follow each other in order and without holes")
    return edges


def _per_row(value: float | ArrayLike, n: int) -> NDArray[np.float64]:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)))
