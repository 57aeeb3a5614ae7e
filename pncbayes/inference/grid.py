"""Bin widths: the one of the likelihood, and the one at which states are assigned.

Neither is the width of the report: a trace that remembers its photons is binned anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Posterior
from pncbayes.photons.binning import photons_of, rebin
from pncbayes.physics.modelfile import ModelFile

__all__ = ["Grid", "choose_grid", "expected_loss_nats", "round_down"]

Array = NDArray[np.float64]

_WIDEST_S = 0.01
_NARROWEST_S = 2e-5
_MOST_COUNTS = 400.0
_DECODE_COUNTS = 30.0
_TOLERATED_NATS = 0.3
# Bins times gates beyond which a finer grid no longer fits in memory and patience.
_MOST_CELLS = 2.4e7


@dataclass(frozen=True)
class Grid:
    """Data on the grid of the likelihood.

    Attributes
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    loss_nats
        Estimate of what paths through a third state within one bin cost at this width.
    exits_per_bin
        Largest exit rate of a preliminary fit times the width.
    """

    counts: Array
    width_s: float
    loss_nats: float
    exits_per_bin: float


def round_down(width_s: float) -> float:
    """Largest of 1, 2, 5 x 10^n s that does not exceed a width."""
    decade = 10.0 ** np.floor(np.log10(width_s) + 1e-9)
    steps = [step * decade for step in (1.0, 2.0, 5.0) if step * decade <= width_s * (1 + 1e-9)]
    return float(steps[-1])


def expected_loss_nats(
    width_s: float, exit_rate_per_s: float, brightest_per_s: float, duration_s: float
) -> float:
    """Nats that the pairwise kernel loses to paths through three states in one bin.

    Of second order in exits per bin, and the less the fewer counts there are to tell a mixture
    by. The two constants are fitted to the divergence between the kernel and the exact matrices
    (`pncbayes.hmm.reference.exact_count_matrices`) for three equidistant levels.
    """
    counts = brightest_per_s * width_s
    seen = min(1.0, (counts / 200.0) ** 1.8)
    return float(0.4 * (exit_rate_per_s * width_s) ** 2 * seen * duration_s / width_s)


def choose_grid(trace: xr.Dataset, model: ModelFile, rng: np.random.Generator) -> Grid:
    """Choose the bin width of the likelihood from a quick look at the total counts.

    Parameters
    ----------
    trace
        The trace; without photons behind it, its own width is all there is.
    model
        Priors of the quick look.
    rng
        Source of its starts.
    """
    photons = photons_of(trace) if trace.attrs["kind"] == "photons" else None
    own_width = float(trace.attrs["width_s"])
    counts = np.asarray(trace["counts"].values, dtype=np.float64)
    duration_s = counts.shape[0] * own_width
    brightest = float(np.quantile(counts.sum(axis=1), 0.99)) / own_width
    if photons is None:
        if trace.attrs["kind"] == "camera":
            return Grid(counts, own_width, 0.0, 0.0)
        exit_rate = _fastest_exit(counts.sum(axis=1), own_width, model, rng)
        loss = expected_loss_nats(own_width, exit_rate, brightest, duration_s)
        return Grid(counts, own_width, loss, exit_rate * own_width)
    width = round_down(min(_WIDEST_S, _MOST_COUNTS / max(brightest, 1e-9), duration_s / 20.0))
    narrowest = max(_NARROWEST_S, duration_s * counts.shape[1] / _MOST_CELLS)
    exit_rate = 0.0
    for _ in range(3):
        totals = rebin_totals(photons.time_s, width, duration_s)
        exit_rate = _fastest_exit(totals, width, model, rng)
        target = width
        while (
            expected_loss_nats(target, exit_rate, brightest, duration_s) > _TOLERATED_NATS
            or exit_rate * target > 0.2
        ) and round_down(target * 0.6) >= narrowest:
            target = round_down(target * 0.6)
        if target >= width * 0.99:
            break
        width = target
    fine = rebin(trace, width)
    return Grid(
        np.asarray(fine["counts"].values, dtype=np.float64),
        width,
        expected_loss_nats(width, exit_rate, brightest, duration_s),
        exit_rate * width,
    )


def rebin_totals(time_s: Array, width_s: float, duration_s: float) -> Array:
    """Count photons per bin over the recording, whatever the gates."""
    n_bins = max(int(duration_s / width_s * (1 + 1e-12)), 1)
    index = (time_s / width_s).astype(np.int64)
    return np.bincount(index[index < n_bins], minlength=n_bins).astype(np.float64)


def _fastest_exit(
    totals: Array, width_s: float, model: ModelFile, rng: np.random.Generator
) -> float:
    """Exit rate, per s, that matters: over states of a quick fit that are visited at all."""
    likelihood = BinnedLikelihood(totals, width_s)
    fastest, best, simpler = 0.0, -np.inf, None
    for n_states in range(1, 7):
        posterior = Posterior(likelihood, model, n_states)
        mode = find_modes(
            posterior, totals[:, None], width_s, simpler, rng, n_starts=3, n_climbs=1
        )[0]
        simpler = posterior.unpack(mode.vector)
        if mode.log_density < best + 10.0:
            break
        best = mode.log_density
        visits = mode.parts.occupied_s * simpler.exit_rate_per_s
        if (visits > 3.0).any():
            # the mean over visits: what an average switch meets in its bin
            weights = visits[visits > 3.0]
            fastest = float((weights * simpler.exit_rate_per_s[visits > 3.0]).sum() / weights.sum())
    return fastest


def decode_width_s(width_s: float, brightest_per_s: float, duration_s: float) -> float:
    """Width at which states are assigned: a whole fraction of the report's width.

    Fine enough that the place of a switch within a bin of the report is resolved.
    """
    wanted = _DECODE_COUNTS / max(brightest_per_s, 1e-9)
    parts = 1
    for candidate in (2, 4, 5, 10, 20, 50, 100):
        if width_s / parts <= wanted or duration_s / width_s * candidate > 3e5:
            break
        parts = candidate
    return width_s / parts
