"""Bin widths: the one of the likelihood, and the one at which states are assigned.

Neither is the width of the report: a trace that remembers its photons is binned anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.photons.binning import photons_of, rebin
from pncbayes.physics.modelfile import ModelFile

__all__ = ["Grid", "choose_grid", "expected_loss_nats", "round_down"]

Array = NDArray[np.float64]

Decays = Literal["alike", "seen", "hidden"]

_WIDEST_S = 0.01
_NARROWEST_S = 2e-5
_MOST_COUNTS = 400.0
_DECODE_COUNTS = 30.0
_TOLERATED_NATS = 2.0
# In coarser bins each exit tells a tenth less, or more, about its rate, however exact the kernel;
# and of two states the faster one has up to twice the mean.
_MOST_EXITS_PER_BIN = 0.25
# The quick look sees this many bins of a long recording, in that many stretches.
_LOOK_BINS = 30_000
_LOOK_STRETCHES = 10
# States with fewer visits than this do not count in the quick look.
_FEWEST_VISITS = 3.0
# Standard deviations by which the gates may scatter beyond what levels of the totals explain.
_HIDDEN_SIGMA = 8.0
# Nats per path through a third state at n counts per bin: a n^b / (1 + (few / n)^c).
_PATH_NATS = {"seen": (0.0135, 0.85, 25.0, 1.6), "hidden": (0.02, 1.0, 60.0, 2.0)}
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
        Exit rate of an average visit, in a preliminary fit, times the width.
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
    width_s: float,
    exit_rate_per_s: float,
    brightest_per_s: float,
    duration_s: float,
    *,
    decays: Decays = "alike",
) -> float:
    """Nats that the pairwise kernel loses to paths through three states in one bin.

    For three or more states; with two the kernel is exact and nothing is lost. Fitted to the mean
    log ratio, at the truth and given all other bins, of the exact probability of the counts to
    that of the kernel, as ``python benchmarks/grid_loss.py`` measures it for 1 to 20 exits per s,
    5 to 400 counts per 10 ms and bins of 1 to 10 ms. Of total counts a false state regains little
    of the loss; where decays tell states apart it regains up to about as much.

    Parameters
    ----------
    width_s
        Bin width in s.
    exit_rate_per_s
        Exit rate of every state, per s, each of the other states being as likely to follow.
    brightest_per_s
        Counts per s of the brightest state.
    duration_s
        Length of the recording in s.
    decays
        ``"alike"``: total counts are all there is. Right within a factor 2 for equidistant levels.
        ``"seen"``: states differ in brightness and in decay, as exciton, trion and dark state do:
        within a factor 2 for these, and up to four times too much where decays differ less.
        ``"hidden"``: two of the states differ in their decay alone, here five-fold.
    """
    exits = exit_rate_per_s * width_s
    counts = brightest_per_s * width_s
    if exits <= 0.0 or counts <= 0.0:
        return 0.0
    n_bins = duration_s / width_s
    # the more exits, the fewer counts it takes to notice a mixture that is not the pair's
    loss = 0.04 * exits**2 * (1.0 + 56.0 / (counts * exits**0.2)) ** -2.2 * n_bins
    if decays == "alike":
        return float(loss)
    scale, power, few, steepness = _PATH_NATS[decays]
    paths = 0.25 * exits**2 * n_bins
    return float(max(loss, paths * scale * counts**power / (1.0 + (few / counts) ** steepness)))


@dataclass(frozen=True)
class _Look:
    """What a quick fit of total counts says about the width.

    Attributes
    ----------
    exit_rate_per_s
        Mean exit rate per s over visits to states.
    third_rate_per_s
        Exit rate per s at which equal states would go on from a second to a third state as often
        as these do; 0 for fewer than three states.
    brightest_per_s
        Counts per s in the brightest bins.
    duration_s
        Length of the recording in s.
    decays
        What decays add; see `expected_loss_nats`.
    """

    exit_rate_per_s: float
    third_rate_per_s: float
    brightest_per_s: float
    duration_s: float
    decays: Decays

    def loss_nats(self, width_s: float) -> float:
        """Loss of the pairwise kernel at a width; none for two states, where it is exact."""
        return expected_loss_nats(
            width_s,
            self.third_rate_per_s,
            self.brightest_per_s,
            self.duration_s,
            decays=self.decays,
        )

    def is_fine(self, width_s: float) -> bool:
        """Whether bins of a width lose next to nothing."""
        return (
            self.exit_rate_per_s * width_s <= _MOST_EXITS_PER_BIN
            and self.loss_nats(width_s) <= _TOLERATED_NATS
        )

    def grid(self, counts: Array, width_s: float) -> Grid:
        """Grid of counts of a width, with what is lost on it."""
        return Grid(counts, width_s, self.loss_nats(width_s), self.exit_rate_per_s * width_s)


def choose_grid(trace: xr.Dataset, model: ModelFile, rng: np.random.Generator) -> Grid:
    """Choose the bin width of the likelihood from a quick look at the total counts.

    Two states need no finer bins than their switching does: for them the kernel is exact. With
    more the loss to paths through a third state within one bin is kept below a few nats.

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
        look = _quick_look(counts, own_width, brightest, model, rng)
        return look.grid(counts, own_width)
    width = round_down(min(_WIDEST_S, _MOST_COUNTS / max(brightest, 1e-9), duration_s / 20.0))
    narrowest = max(_NARROWEST_S, duration_s * counts.shape[1] / _MOST_CELLS)
    while True:
        seen_at = width
        counts = np.asarray(rebin(trace, width)["counts"].values, dtype=np.float64)
        look = _quick_look(counts, width, brightest, model, rng)
        while not look.is_fine(width) and round_down(width * 0.6) >= narrowest:
            width = round_down(width * 0.6)
        if width == seen_at:
            return look.grid(counts, width)
        # rates seen on bins of no more than the tolerated exits are right: no second look
        if look.exit_rate_per_s * seen_at <= _MOST_EXITS_PER_BIN:
            counts = np.asarray(rebin(trace, width)["counts"].values, dtype=np.float64)
            return look.grid(counts, width)


def _some_stretches(counts: Array) -> Array:
    """A few stretches of a long recording, end to end; all of a short one.

    Each seam may look like a switch: a few more in some minutes, which no width depends on.
    """
    if len(counts) <= _LOOK_BINS:
        return counts
    stretch = _LOOK_BINS // _LOOK_STRETCHES
    starts = np.linspace(0, len(counts) - stretch, _LOOK_STRETCHES).astype(np.int64)
    kept: Array = counts[(starts[:, None] + np.arange(stretch)).ravel()]
    return kept


def _quick_look(
    counts: Array,
    width_s: float,
    brightest_per_s: float,
    model: ModelFile,
    rng: np.random.Generator,
) -> _Look:
    """Fit total counts with more and more states, as long as that pays."""
    duration_s = len(counts) * width_s
    counts = _some_stretches(counts)
    totals = counts.sum(axis=1)
    likelihood = BinnedLikelihood(totals, width_s)
    exit_rate, best, point, simpler = 0.0, -np.inf, None, None
    occupied_s = np.zeros(1)
    for n_states in range(1, 7):
        posterior = Posterior(likelihood, model, n_states)
        mode = find_modes(
            posterior, totals[:, None], width_s, simpler, rng, n_starts=3, n_climbs=1
        )[0]
        simpler = posterior.unpack(mode.vector)
        if mode.log_density < best + 10.0:
            break
        best, point, occupied_s = mode.log_density, simpler, mode.parts.occupied_s
        visits = occupied_s * simpler.exit_rate_per_s
        visited = visits > _FEWEST_VISITS
        if visited.any():
            # the mean over visits: what an average switch meets in its bin
            weights = visits[visited]
            exit_rate = float(weights @ simpler.exit_rate_per_s[visited] / weights.sum())
    third_rate = 0.0
    decays: Decays = "alike"
    if point is not None and point.n_states > 2:
        third_rate = exit_rate
    if point is not None and counts.shape[1] > 1:
        decays = "seen"
        if point.n_states > 2:
            third_rate = _third_rate(point, occupied_s)
        if _hides_states(counts, likelihood, point):
            decays, third_rate = "hidden", max(third_rate, exit_rate)
    return _Look(exit_rate, third_rate, brightest_per_s, duration_s, decays)


def _third_rate(point: Parameters, occupied_s: Array) -> float:
    """Exit rate of equal states that go on to a third state as often, per s."""
    rates = point.transition_rate_per_s
    onwards = rates @ rates
    np.fill_diagonal(onwards, 0.0)
    return float(np.sqrt(2.0 * (occupied_s / occupied_s.sum()) @ onwards.sum(axis=1)))


def _hides_states(counts: Array, likelihood: BinnedLikelihood, point: Parameters) -> bool:
    """Whether decays change while the level of the totals does not.

    Pearson's statistic of the gates of all bins, given the shares that the states of the totals
    have in each bin and the mean decay of each.
    """
    shares, _ = likelihood.smooth(point.gate_rate_per_s, point.transition_rate_per_s)
    photons = shares * point.rate_per_s
    photons /= photons.sum(axis=1, keepdims=True)
    decay = photons.T @ counts + 1.0
    decay /= decay.sum(axis=1, keepdims=True)
    totals = counts.sum(axis=1)
    lit = totals > 0
    probability, totals = photons[lit] @ decay, totals[lit]
    n_gates = counts.shape[1]
    statistic = (counts[lit] ** 2 / probability).sum(axis=1) / totals - totals
    inverse = (1.0 / probability).sum(axis=1)
    variance = 2.0 * (n_gates - 1) + (inverse - n_gates**2 - 2.0 * n_gates + 2.0) / totals
    excess = float((statistic - (n_gates - 1)).sum())
    return excess > _HIDDEN_SIGMA * float(np.sqrt(variance.sum()))


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
