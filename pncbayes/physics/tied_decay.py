"""Decays tied to a reference decay, as one instrument records them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.physics.convolution import (
    GaussianResponse,
    HistogramResponse,
    Response,
    as_response,
    exponential_gate_probability,
    scatter_gate_probability,
)
from pncbayes.physics.lifetime import lifetime_fitter
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = ["WIDTH_STEP", "DecayTable", "decay_table", "stretched"]

Array = NDArray[np.float64]

_N_LIFETIMES = 150
# Steps of the table in shifts of the response, in widths of it, and in logs of its width.
_SHIFT_STEP, WIDTH_STEP = 0.15, 0.15


@dataclass(frozen=True, eq=False)
class DecayTable:
    """Shares of the gates in light of one lifetime, for one instrument.

    Attributes
    ----------
    shares
        Of single exponentials, for the response earlier by `shift_step_ns`, in place, and later,
        and by its width narrower by `WIDTH_STEP`, as it is, and wider; shape
        ``(3, 3, n_lifetimes, n_gates)``. They add up to the recorded part of the period.
    scatter
        Of light that follows the response, shape ``(3, 3, n_gates)``.
    uniform
        Of light that knows nothing of the pulse, shape ``(n_gates,)``.
    background
        Of the background, shape ``(n_gates,)``; adds up to 1.
    log_start, log_step
        Logarithm of the first lifetime in ns, and the step between them.
    width_ns
        Width of the response.
    period_ns
        Laser period.
    shift_ns
        Where the data put the response, which is shift 0 here.
    shift_step_ns
        Step of the shifts.
    """

    shares: Array
    scatter: Array
    uniform: Array
    background: Array
    log_start: float
    log_step: float
    width_ns: float
    period_ns: float
    shift_ns: float
    shift_step_ns: float

    def quenched(
        self, amplitudes: Array, lifetimes_ns: Array, lifetime_ratio: float = 1.0
    ) -> NDArray[np.float64]:
        """Share of each gate in the light of a decay made faster by one rate for all of it.

        Parameters
        ----------
        amplitudes, lifetimes_ns
            Of the exponentials of the reference decay, at time zero.
        lifetime_ratio
            Amplitude-averaged lifetime over that of the reference.

        Returns
        -------
        ndarray, shape ``(n_gates,)``
        """
        out = np.empty(self.background.size)
        quenched_shares(
            np.asarray(amplitudes, dtype=np.float64),
            1.0 / np.asarray(lifetimes_ns, dtype=np.float64),
            float(lifetime_ratio),
            self.shares[1, 1],
            self.log_start,
            self.log_step,
            out,
        )
        return out


def stretched(response: Response, factor: float) -> Response:
    """Return the response wider by a factor: a Gaussian, or a measured one about its peak.

    Parameters
    ----------
    response
        Gaussian or measured.
    factor
        Above 0; what leaves the clock on either side is lost, and the rest makes the whole.
    """
    if isinstance(response, GaussianResponse):
        return GaussianResponse(response.center_ns, response.sd_ns * factor)
    ticks = np.arange(response.weight.size + 1, dtype=np.float64)
    peak = float(np.argmax(response.weight)) + 0.5
    total = np.concatenate([[0.0], np.cumsum(response.weight)])
    weight = np.diff(np.interp(peak + (ticks - peak) / factor, ticks, total))
    return HistogramResponse(np.maximum(weight, 0.0), response.tick_ns)


def decay_table(trace: xr.Dataset) -> DecayTable:
    """Make the table of a trace.

    Parameters
    ----------
    trace
        Made by `bin_photons`, with a response.

    Raises
    ------
    ValueError
        If the trace has no delays or no response.
    """
    fitter = lifetime_fitter(trace)
    response = as_response(trace["response"].to_numpy(), float(trace.attrs["delay_tick_ns"]))
    period_ns, shift_ns = float(trace.attrs["period_ns"]), fitter.shift_ns
    edges = np.append(trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()[-1])
    logs = np.linspace(
        np.log(response.width_ns / 30.0), np.log(3.0 * period_ns), _N_LIFETIMES, dtype=np.float64
    )
    step_ns = _SHIFT_STEP * response.width_ns
    shifts = [shift_ns - step_ns, shift_ns, shift_ns + step_ns]
    rates = np.exp(-logs)
    widths = [stretched(response, float(np.exp(WIDTH_STEP * k))) for k in (-1, 0, 1)]
    shares = [
        [exponential_gate_probability(rates, edges, width, period_ns, s) for width in widths]
        for s in shifts
    ]
    scatter = [
        [scatter_gate_probability(edges, width, period_ns, s) for width in widths] for s in shifts
    ]
    return DecayTable(
        shares=np.ascontiguousarray(np.maximum(shares, 0.0)),
        scatter=np.ascontiguousarray(np.maximum(scatter, 0.0)),
        uniform=np.diff(edges) / period_ns,
        background=np.ascontiguousarray(fitter.background),
        log_start=float(logs[0]),
        log_step=float(logs[1] - logs[0]),
        width_ns=float(response.width_ns),
        period_ns=period_ns,
        shift_ns=shift_ns,
        shift_step_ns=step_ns,
    )
