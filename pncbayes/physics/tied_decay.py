"""Decays tied to a reference decay, as one instrument records them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.physics.convolution import (
    as_response,
    exponential_gate_probability,
    scatter_gate_probability,
)
from pncbayes.physics.lifetime import lifetime_fitter
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = ["DecayTable", "decay_table"]

Array = NDArray[np.float64]

_N_LIFETIMES = 200
# Shifts of the response that the table is made for, in widths of it.
_SHIFT_STEP = 0.15


@dataclass(frozen=True, eq=False)
class DecayTable:
    """Shares of the gates in light of one lifetime, for one instrument.

    Attributes
    ----------
    shares
        Of single exponentials, for the response earlier by `shift_step_ns`, in place, and later;
        shape ``(3, n_lifetimes, n_gates)``. They add up to the recorded part of the period.
    scatter
        Of light that follows the response, shape ``(3, n_gates)``.
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
            self.shares[1],
            self.log_start,
            self.log_step,
            out,
        )
        return out


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
    shares = [exponential_gate_probability(rates, edges, response, period_ns, s) for s in shifts]
    scatter = [scatter_gate_probability(edges, response, period_ns, s) for s in shifts]
    return DecayTable(
        shares=np.ascontiguousarray(np.maximum(shares, 0.0)),
        scatter=np.ascontiguousarray(np.maximum(scatter, 0.0)),
        background=np.ascontiguousarray(fitter.background),
        log_start=float(logs[0]),
        log_step=float(logs[1] - logs[0]),
        width_ns=float(response.width_ns),
        period_ns=period_ns,
        shift_ns=shift_ns,
        shift_step_ns=step_ns,
    )
