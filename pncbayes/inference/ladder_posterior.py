"""Posterior density of two levels whose dwell times are exponential or a truncated power law.

Coordinates are unbounded: the logarithm of the rate of ON, the logit of the rate of OFF over that
of ON, then for each level the logit of the exponent within its bounds and the logarithm of the
truncation time, or the logarithm of the exit rate, and last the logarithm of the shortest dwell
time where it is free. A free onset adds its logarithm after the truncation time: how a law begins
is not known as well as its shortest dwell time, and an exponent that leaned on it would be told too
narrowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

from pncbayes.hmm import ladder_kernels as kernels
from pncbayes.hmm.likelihood import FASTEST_PER_BIN
from pncbayes.hmm.nodes import nodes_wanted
from pncbayes.physics.ladder import Ladder, exponential_level, make_ladder, two_level_rates
from pncbayes.physics.modelfile import LogNormal, ModelFile

__all__ = ["DYNAMICS", "LadderData", "LadderPosterior", "LadderPriors", "split_levels"]

Array = NDArray[np.float64]

DYNAMICS = {
    "ladder": (True, True),
    "on_ladder": (True, False),
    "off_ladder": (False, True),
    "exponential": (False, False),
}
"""Names of the dynamics, and whether ON and OFF have a ladder."""

_FEWEST_SLOTS, _MOST_SLOTS = 16, 128
# A free shortest dwell time stays within these numbers of bins: below, slots would be too coarse,
# above, the delay would be a dwell time of its own.
SHORTEST_BINS = (0.05, 5.0)
_ONSETS = (0.5, 2.0)
_STEP = 1e-4


@dataclass(frozen=True)
class LadderPriors:
    """What is believed of the dwell times.

    Attributes
    ----------
    exponent_low, exponent_high
        Exponents are uniform between the two.
    truncation_s
        Of each truncation time, in s.
    exit_rate_per_s
        Of each level with exponential dwell times, per s.
    brightest_rate_per_s
        Of ON, counts per s.
    repulsion
        OFF over ON has the density of (1 - ratio) to this power.
    shortest_bins
        Of the shortest dwell time, in bin widths, where it is free.
    onset
        Of the onset of each level, as in `make_ladder`, where it is free. By default its median is
        where laws that begin at once, seen in bins, show their exponents on average, in simulated
        dots; its sigma lets an exponent near 2 move by about 0.02.
    """

    exponent_low: float
    exponent_high: float
    truncation_s: LogNormal
    exit_rate_per_s: LogNormal
    brightest_rate_per_s: LogNormal
    repulsion: float
    shortest_bins: LogNormal
    onset: LogNormal = field(default_factory=lambda: LogNormal(1.07, 0.07))

    @classmethod
    def of_model(cls, model: ModelFile) -> LadderPriors:
        """Brightness and exit rates of a model file, and the defaults for the rest."""
        return cls(
            exponent_low=1.0,
            exponent_high=2.5,
            truncation_s=LogNormal(2.0, 1.5),
            exit_rate_per_s=model.exit_rate_per_s,
            brightest_rate_per_s=model.brightest_rate_per_s,
            repulsion=model.repulsion,
            shortest_bins=LogNormal(0.5, 1.0),
        )


class LadderData:
    """Counts per bin, with equal counts in one row, and the lattice of shares.

    Parameters
    ----------
    counts
        Shape ``(n_bins,)``.
    width_s
        Bin width in s.
    shortest_s
        Shortest dwell time, in s, that slots must resolve.
    """

    def __init__(self, counts: Array, width_s: float, shortest_s: float) -> None:
        rows, row_of_bin, repeats = np.unique(counts, return_inverse=True, return_counts=True)
        self.rows = rows.astype(np.float64)
        self.row_of_bin = row_of_bin.astype(np.int64)
        self.repeats = repeats.astype(np.float64)
        self.width_s = float(width_s)
        self.n_bins = int(counts.size)
        wanted = max(nodes_wanted(counts), 6.0 * width_s / shortest_s, _FEWEST_SLOTS)
        self.n_slots = int(min(2 ** math.ceil(math.log2(wanted)), _MOST_SLOTS))
        self.shares = kernels.column_shares(self.n_slots)
        self._log_factorial = gammaln(self.rows + 1.0)

    def columns(self, on_per_s: float, off_per_s: float) -> tuple[Array, float, Array]:
        """Scaled likelihood of each row under each share, log of the scales, and the means."""
        means = (self.shares * on_per_s + (1.0 - self.shares) * off_per_s) * self.width_s
        logs = self.rows[:, None] * np.log(means) - means - self._log_factorial[:, None]
        largest = logs.max(axis=1)
        return np.exp(logs - largest[:, None]), float(largest @ self.repeats), means


def split_levels(counts: Array) -> tuple[float, float, float]:
    """Median counts of ON and OFF, and the threshold between them, by two-means clustering."""
    threshold = 0.5 * (float(counts.max()) + float(counts.min()))
    for _ in range(50):
        above = counts > threshold
        if above.all() or not above.any():
            break
        moved = 0.5 * (counts[above].mean() + counts[~above].mean())
        if abs(moved - threshold) < 1e-6:
            break
        threshold = float(moved)
    above = counts > threshold
    if above.all() or not above.any():
        middle = float(counts.mean())
        return middle + 1.0, max(0.5 * middle, 0.05), middle
    on, off = float(np.median(counts[above])), float(np.median(counts[~above]))
    return max(on, off + 1.0), max(off, 0.05), threshold


def _log_normal(logarithm: float, prior: LogNormal, unit: float = 1.0) -> float:
    z = (logarithm - math.log(prior.median * unit)) / prior.sigma
    return -0.5 * z * z - math.log(prior.sigma * math.sqrt(2.0 * math.pi))


def _log_logistic(value: float) -> float:
    """Log density of the logit of what is uniform between 0 and 1."""
    return -abs(value) - 2.0 * math.log1p(math.exp(-abs(value)))


class LadderPosterior:
    """Log posterior density in unbounded coordinates, its gradient, and names for them.

    Parameters
    ----------
    data
        Counts and lattice.
    priors
        What is believed.
    dynamics
        One of `DYNAMICS`.
    shortest_s
        Shortest dwell time in s, or None for a free one.
    n_steps, n_delays
        As in `make_ladder`.
    free_onset
        Whether each ladder has an onset of its own, not one of 1; without stages of a delay it has
        none.
    """

    def __init__(
        self,
        data: LadderData,
        priors: LadderPriors,
        dynamics: str,
        shortest_s: float | None,
        *,
        n_steps: int = 10,
        n_delays: int = 6,
        free_onset: bool = False,
    ) -> None:
        self.data, self.priors, self.dynamics = data, priors, dynamics
        self.has_ladder = DYNAMICS[dynamics]
        self.shortest_s = shortest_s
        self._n_steps, self._n_delays = n_steps, n_delays
        self.names = ["on_rate_per_s", "off_rate_per_s"]
        for level, ladder in zip(("on", "off"), self.has_ladder, strict=True):
            if ladder:
                self.names += [f"alpha_{level}", f"truncation_{level}_s"]
                if free_onset and n_delays:
                    self.names.append(f"onset_{level}")
            else:
                self.names.append(f"exit_rate_{level}_per_s")
        if shortest_s is None and any(self.has_ladder):
            self.names.append("shortest_s")

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    def physical(self, vector: Array) -> dict[str, float]:
        """Parameters, by name, of a point in coordinates."""
        on = math.exp(vector[0])
        found = {"on_rate_per_s": on, "off_rate_per_s": on * float(expit(vector[1]))}
        spread = self.priors.exponent_high - self.priors.exponent_low
        for name, value in zip(self.names[2:], vector[2:], strict=True):
            if name.startswith("alpha"):
                found[name] = self.priors.exponent_low + spread * float(expit(value))
            else:
                found[name] = math.exp(value)
        return found

    def coordinates(self, parameters: dict[str, float]) -> Array:
        """Point in coordinates of parameters by name."""
        ratio = parameters["off_rate_per_s"] / parameters["on_rate_per_s"]
        vector = [math.log(parameters["on_rate_per_s"]), math.log(ratio / (1.0 - ratio))]
        low, high = self.priors.exponent_low, self.priors.exponent_high
        for name in self.names[2:]:
            value = parameters[name]
            if name.startswith("alpha"):
                vector.append(math.log((value - low) / (high - value)))
            else:
                vector.append(math.log(value))
        return np.array(vector)

    def log_prior(self, vector: Array) -> float:
        """Log prior density of the coordinates; minus infinity out of bounds."""
        if not self._within(vector):
            return -math.inf
        priors, power = self.priors, self.priors.repulsion
        value = _log_normal(vector[0], priors.brightest_rate_per_s)
        value += math.log(power + 1.0) - power * math.log1p(math.exp(vector[1]))
        value += _log_logistic(vector[1])
        for name, part in zip(self.names[2:], vector[2:], strict=True):
            if name.startswith("alpha"):
                value += _log_logistic(part)
            elif name.startswith("truncation"):
                value += _log_normal(part, priors.truncation_s)
            elif name.startswith("onset"):
                value += _log_normal(part, priors.onset)
            elif name.startswith("exit_rate"):
                value += _log_normal(part, priors.exit_rate_per_s)
            else:
                value += _log_normal(part, priors.shortest_bins, self.data.width_s)
        return value

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest coordinates, each of shape ``(size,)``.

        Truncation times are longer than any shortest dwell time that is allowed.
        """
        low, high = np.full(self.size, -50.0), np.full(self.size, 50.0)
        least, most = (math.log(bins * self.data.width_s) for bins in SHORTEST_BINS)
        for i, name in enumerate(self.names):
            if name.startswith("truncation"):
                low[i] = most if self.shortest_s is None else math.log(self.shortest_s)
            elif name == "shortest_s":
                low[i], high[i] = least, most
            elif name.startswith("onset"):
                low[i], high[i] = (math.log(end) for end in _ONSETS)
            elif name.startswith("exit_rate"):
                # beyond it the chain is at rest within a bin
                high[i] = math.log(FASTEST_PER_BIN / self.data.width_s)
        return low, high

    def _within(self, vector: Array) -> bool:
        low, high = self.bounds()
        return bool(((vector > low) & (vector < high)).all())

    def levels(self, vector: Array) -> tuple[Ladder, Ladder]:
        """Sub-states of ON and of OFF."""
        parameters = self.physical(vector)
        shortest_s = parameters.get("shortest_s", self.shortest_s)
        made = []
        for level, ladder in zip(("on", "off"), self.has_ladder, strict=True):
            if ladder and shortest_s is not None:
                made.append(
                    make_ladder(
                        parameters[f"alpha_{level}"],
                        parameters[f"truncation_{level}_s"],
                        shortest_s,
                        n_steps=self._n_steps,
                        n_delays=self._n_delays,
                        onset=parameters.get(f"onset_{level}", 1.0),
                    )
                )
            else:
                made.append(exponential_level(parameters[f"exit_rate_{level}_per_s"]))
        return made[0], made[1]

    def _switching(self, vector: Array) -> tuple[Array, Array, int]:
        on, off = self.levels(vector)
        rates, initial = two_level_rates(on, off)
        data = self.data
        parts = kernels.share_parts(rates, on.n_states, data.width_s, data.n_slots)
        return parts, initial, on.n_states

    def value(self, vector: Array) -> float:
        """Log posterior density, up to the evidence; minus infinity out of bounds."""
        prior = self.log_prior(vector)
        if not math.isfinite(prior):
            return -math.inf
        on = math.exp(vector[0])
        columns, scale, _ = self.data.columns(on, on * float(expit(vector[1])))
        parts, initial, n_on = self._switching(vector)
        matrices = kernels.bin_matrices(columns, parts, n_on)
        found = kernels.forward(matrices, self.data.row_of_bin, initial)
        return found + scale + prior

    def gradient(self, vector: Array) -> tuple[float, Array]:
        """Log posterior density and its derivatives.

        Those by the matrices are exact; what the switching does to the matrices is taken by
        central differences, which never touch the data.
        """
        slope = np.zeros(self.size)
        prior = self.log_prior(vector)
        if not math.isfinite(prior):
            return -math.inf, slope
        on, ratio = math.exp(vector[0]), float(expit(vector[1]))
        data = self.data
        columns, scale, means = data.columns(on, on * ratio)
        parts, initial, n_on = self._switching(vector)
        matrices = kernels.bin_matrices(columns, parts, n_on)
        found, matrix_slope, initial_slope = kernels.forward_backward(
            matrices, data.row_of_bin, initial
        )
        if not math.isfinite(found):
            return -math.inf, slope
        log_slope = kernels.columns_slope(parts, matrix_slope, n_on) * columns
        mean_slope = (log_slope * (data.rows[:, None] / means - 1.0)).sum(axis=0)
        slope[0] = mean_slope @ means
        slope[1] = mean_slope @ (1.0 - data.shares) * on * data.width_s * ratio * (1.0 - ratio)
        parts_slope = kernels.share_parts_slope(columns, matrix_slope, n_on)
        for i in range(self.size):
            ahead, behind = vector.copy(), vector.copy()
            ahead[i] += _STEP
            behind[i] -= _STEP
            change = self.log_prior(ahead) - self.log_prior(behind)
            if math.isfinite(change):
                slope[i] += change / (2.0 * _STEP)
            if i < 2 or not (self._within(ahead) and self._within(behind)):
                continue
            up, up_initial, _ = self._switching(ahead)
            down, down_initial, _ = self._switching(behind)
            moved = float(np.vdot(up - down, parts_slope))
            moved += float((up_initial - down_initial) @ initial_slope)
            slope[i] += moved / (2.0 * _STEP)
        return found + scale + prior, slope

    def starts(self, counts: Array) -> list[Array]:
        """Points to climb from: levels from the counts, dwell times of several kinds."""
        on, off, threshold = split_levels(counts)
        width_s = self.data.width_s
        n_switches = int(np.count_nonzero(np.diff(counts > threshold)))
        mean_s = self.data.n_bins * width_s / (n_switches + 1.0)
        shortest_s = self.priors.shortest_bins.median * width_s
        base = {
            "on_rate_per_s": on / width_s,
            "off_rate_per_s": min(off / on, 0.95) * on / width_s,
            "exit_rate_on_per_s": 1.0 / mean_s,
            "exit_rate_off_per_s": 1.0 / mean_s,
            "shortest_s": shortest_s,
            "onset_on": self.priors.onset.median,
            "onset_off": self.priors.onset.median,
        }
        least_s = 1.5 * (self.shortest_s or SHORTEST_BINS[1] * width_s)
        made = []
        for on_alpha, off_alpha in ((1.6, 1.6), (1.3, 1.9), (1.9, 1.3), (1.2, 1.2), (2.1, 2.1)):
            for truncation_s in (1.0, 8.0):
                longest_s = max(truncation_s, least_s)
                dwell = {
                    "alpha_on": on_alpha,
                    "alpha_off": off_alpha,
                    "truncation_on_s": longest_s,
                    "truncation_off_s": longest_s,
                }
                made.append(self.coordinates(base | dwell))
        if not any(self.has_ladder):
            return made[:1]
        return made
