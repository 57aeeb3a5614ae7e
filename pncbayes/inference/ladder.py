"""Power-law dwell times inside the hidden Markov model: exponents, truncation times, evidence.

Each of two emission levels, ON and OFF, has dwell times that are exponential or a truncated power
law, as a ladder of hidden sub-states (`pncbayes.physics.ladder`). Switches inside bins are in the
likelihood, so that dwells too short to be seen bias nothing; no threshold is set and no dwell is
cut out. All dynamics are fitted to the same data with the same kernel and the same priors of the
brightness, so that their evidences compare.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pncbayes.inference.arguments import check_whole_number, random_generator
from pncbayes.inference.ladder_draws import DwellPosterior, climb, sample
from pncbayes.inference.ladder_posterior import (
    DYNAMICS,
    SHORTEST_BINS,
    LadderData,
    LadderPosterior,
    LadderPriors,
)
from pncbayes.photons.dwell_times import threshold_dwell_times
from pncbayes.physics.ladder import Ladder
from pncbayes.physics.modelfile import ModelFile, load_model
from pncbayes.physics.state_path import StatePath

__all__ = ["DwellPosterior", "LadderFit", "LadderPriors", "fit_ladder"]

Array = NDArray[np.float64]

_FEWEST_BINS = 20
# A difference in nats up to which Laplace and importance sampling agree.
_AGREE = 1.0
# The longest dwells of a level are compared with those of this many records drawn from the fit; a
# share of records as abrupt as this, or less, is a warning.
_N_RECORDS, _ABRUPT = 200, 0.01
_LONGEST = (5, 10, 20, 40)


@dataclass(frozen=True, eq=False)
class LadderFit:
    """What `fit_ladder` found.

    Attributes
    ----------
    posteriors
        By dynamics, in the order asked for.
    width_s, n_bins, n_slots
        Bin width in s, number of bins, slots of a bin.
    warnings
        What a reader of the numbers has to know; empty if nothing.
    abrupt
        By level with a ladder in the first dynamics, of the records drawn from the fit the share
        whose longest dwells are as equal as those at hand: next to none where the law is cut off
        sooner than exponentially. Levels with few dwells are left out.
    """

    posteriors: dict[str, DwellPosterior]
    width_s: float
    n_bins: int
    n_slots: int
    warnings: tuple[str, ...]
    abrupt: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """Dynamics of the highest evidence."""
        return max(self.posteriors, key=lambda name: self.posteriors[name].log_evidence)

    def log_bayes_factor(self, dynamics: str = "ladder", against: str = "exponential") -> float:
        """Difference of log evidences, in nats; positive where `dynamics` is favoured.

        Raises
        ------
        ValueError
            If one of the two was not fitted.
        """
        for name in (dynamics, against):
            if name not in self.posteriors:
                raise ValueError(
                    f"{name!r} was not fitted, only {', '.join(self.posteriors)}; give it in "
                    "`dynamics` of `fit_ladder`"
                )
        return self.posteriors[dynamics].log_evidence - self.posteriors[against].log_evidence

    def table(self, dynamics: str | None = None) -> pd.DataFrame:
        """Parameters of one kind of dynamics: the first that was asked for, if not given."""
        name = next(iter(self.posteriors)) if dynamics is None else dynamics
        if name not in self.posteriors:
            raise ValueError(
                f"`dynamics` must be one of {', '.join(self.posteriors)}, got {name!r}"
            )
        return self.posteriors[name].table()

    def evidence_table(self) -> pd.DataFrame:
        """Evidences and their diagnostics, one row per kind of dynamics."""
        columns = ("log_evidence", "error", "laplace", "pareto_k", "effective")
        made = pd.DataFrame(
            [
                {"dynamics": name} | {column: getattr(found, column) for column in columns}
                for name, found in self.posteriors.items()
            ]
        ).set_index("dynamics")
        made.insert(1, "below_best", made["log_evidence"].max() - made["log_evidence"])
        return made

    def summary(self) -> dict[str, Any]:
        """Flat dictionary: medians and 90 % intervals of the first dynamics, and evidences."""
        first = next(iter(self.posteriors))
        found: dict[str, Any] = {"dynamics": first, "best_dynamics": self.best}
        for name, line in self.table(first).iterrows():
            found |= {str(name): line["median"], f"{name}_q05": line["q05"],
                      f"{name}_q95": line["q95"]}  # fmt: skip
        for name, one in self.posteriors.items():
            found |= {
                f"log_evidence_{name}": one.log_evidence,
                f"pareto_k_{name}": one.pareto_k,
                f"effective_draws_{name}": one.effective,
            }
            if name != first:
                found[f"log_bayes_factor_{first}_{name}"] = self.log_bayes_factor(first, name)
        found |= {f"abrupt_{level}": share for level, share in self.abrupt.items()}
        found |= {"width_s": self.width_s, "n_bins": self.n_bins}
        found["warnings"] = "; ".join(self.warnings)
        return found


def fit_ladder(
    counts: ArrayLike,
    width_s: float,
    *,
    shortest_s: float | None = None,
    dynamics: Sequence[str] = ("ladder", "exponential"),
    priors: LadderPriors | None = None,
    model: str | os.PathLike[str] | ModelFile = "free",
    n_steps: int = 10,
    n_delays: int = 6,
    n_draws: int = 250,
    random_seed: int | np.random.Generator | None = None,
) -> LadderFit:
    """Fit two levels with power-law dwell times, and compare them with exponential ones.

    The density of the dwell times of a level is t^-alpha exp(-t / truncation) from the shortest
    dwell time on, which both levels share. Dwells shorter than that are not in the law; the start
    is blurred by the stages of the delay, so that with 6 of them one delay in twenty is shorter
    than half of it. How the law goes on from there is a parameter of each level, its onset, which
    exponents are averaged over. What a dot does on still shorter times is averaged into its two
    levels.

    Parameters
    ----------
    counts
        Photons per bin, shape ``(n_bins,)``; of shape ``(n_bins, n_gates)`` gates are summed.
    width_s
        Bin width in s.
    shortest_s
        Shortest dwell time in s; None to infer it, with a log-normal prior around half a bin.
    dynamics
        Which to fit: ``"ladder"``, ``"on_ladder"`` and ``"off_ladder"`` with one exponential
        level, ``"exponential"``. The first is the one that is reported.
    priors
        In place of the defaults: exponents uniform from 1 to 2.5, truncation times log-normal
        (median 2 s, sigma 1.5), brightness and exit rates as in `model`.
    model
        Model file with the priors of brightness and exit rates, by name or path.
    n_steps, n_delays
        Sub-states of a ladder: its steps, and the stages of the delay.
    n_draws
        Draws of each of up to four rounds, 100 or more.
    random_seed
        Seed or generator.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> bright = np.repeat(rng.random(60) < 0.5, 20)
    >>> found = fit_ladder(rng.poisson(np.where(bright, 90, 5)), 0.01, random_seed=1)
    >>> found.table().index.tolist()[:3]
    ['on_rate_per_s', 'off_rate_per_s', 'alpha_on']
    """
    data_counts = _checked_counts(counts)
    if not (math.isfinite(width_s) and width_s > 0):
        raise ValueError(f"`width_s` must be a positive number of seconds, got {width_s!r}")
    low, high = SHORTEST_BINS
    if shortest_s is not None and not low * width_s <= shortest_s <= high * width_s:
        raise ValueError(
            f"`shortest_s` must be {low:g} to {high:g} bins, {low * width_s:g} to "
            f"{high * width_s:g} s, got {shortest_s!r}; choose another width, or None to infer it"
        )
    names = (dynamics,) if isinstance(dynamics, str) else tuple(dynamics)
    if not names or len(set(names)) < len(names) or not set(names) <= set(DYNAMICS):
        raise ValueError(
            f"`dynamics` must be different ones of {', '.join(DYNAMICS)}, got {dynamics!r}"
        )
    check_whole_number("n_steps", n_steps, 4, 20)
    check_whole_number("n_delays", n_delays, 0, 20)
    check_whole_number("n_draws", n_draws, 100, 100_000)
    rng = random_generator(random_seed)
    believed = LadderPriors.of_model(load_model(model)) if priors is None else priors
    expected_s = believed.shortest_bins.median * width_s if shortest_s is None else shortest_s
    data = LadderData(data_counts, width_s, expected_s)
    found = {}
    notes: list[str] = []
    abrupt: dict[str, float] = {}
    for name in names:
        posterior = LadderPosterior(
            data, believed, name, shortest_s, n_steps=n_steps, n_delays=n_delays, free_onset=True
        )
        one, reliable = sample(posterior, climb(posterior, data_counts), n_draws, rng)
        found[name] = one
        if not reliable:
            notes.append(
                f"draws of {name} are rough (Pareto k {one.pareto_k:.2f}, {one.effective:.0f} "
                "effective draws): widen `n_draws`, or doubt the intervals"
            )
        elif abs(one.log_evidence - one.laplace) > _AGREE + 3.0 * one.error:
            notes.append(
                f"evidence of {name}: {one.log_evidence:.1f} by importance sampling, "
                f"{one.laplace:.1f} by Laplace; the posterior is far from normal"
            )
        if name == names[0] and any(posterior.has_ladder):
            abrupt = _abrupt(posterior, one, data_counts, rng)
    # where other dynamics are more probable, a ladder that looks wrong is no news
    is_best = names[0] == max(found, key=lambda name: found[name].log_evidence)
    for level, share in abrupt.items():
        if share <= _ABRUPT and is_best:
            notes.append(
                f"the longest {level.upper()} dwells are more equal than those of a truncated "
                f"power law ({100 * share:.1f} % of records drawn from the fit): the law seems to "
                "be cut off at once, and its exponent comes out too low; or there is no power law"
            )
    return LadderFit(found, float(width_s), data.n_bins, data.n_slots, tuple(notes), abrupt)


def _simulated(
    levels: tuple[Ladder, Ladder], rates_per_s: Array, data: LadderData, rng: np.random.Generator
) -> Array:
    """Counts of one record of two ladders, shape ``(n_bins,)``."""
    duration_s = data.n_bins * data.width_s
    n_pairs = 16 + int(duration_s / (levels[0].mean_s + levels[1].mean_s))
    first = int(rng.integers(2))
    ends = np.zeros(1)
    while ends[-1] < duration_s:
        dwells = np.stack([levels[i].draw(n_pairs, rng) for i in (first, 1 - first)], axis=1)
        ends = np.concatenate([ends, ends[-1] + np.cumsum(dwells.ravel())])
    starts = ends[ends < duration_s]
    states = (np.arange(starts.size) + first) % 2
    path = StatePath(starts, states.astype(np.int64), duration_s, 2)
    shares = path.occupancy_per_bin(data.width_s)[: data.n_bins]
    drawn: Array = rng.poisson(shares @ rates_per_s * data.width_s).astype(np.float64)
    return drawn


def _equality(counts: Array, threshold: float, sizes: dict[str, list[int]]) -> dict[str, Array]:
    """Mean logarithm of the longest dwells over the shortest of them, by level and number."""
    dwells = threshold_dwell_times(counts, 1.0, threshold=threshold)
    found = {}
    for level, wanted in sizes.items():
        parts = [getattr(dwells, f"{level}_s"), getattr(dwells, f"{level}_censored_s")]
        # a level that is never seen has no long dwells, as one dwell has
        logs = np.log(np.sort(np.concatenate([*parts, [1.0]]))[::-1])
        found[level] = np.array([(logs[:n] - logs[:n][-1]).mean() for n in wanted])
    return found


def _abrupt(
    posterior: LadderPosterior, one: DwellPosterior, counts: Array, rng: np.random.Generator
) -> dict[str, float]:
    """Share of records drawn from the fit whose longest dwells are as equal as those seen.

    A threshold sees long dwells well enough, and what it does wrong it does to both.
    """
    dwells = threshold_dwell_times(counts, 1.0)
    sizes: dict[str, list[int]] = {}
    for level, ladder in zip(("on", "off"), posterior.has_ladder, strict=True):
        n_dwells = getattr(dwells, f"{level}_s").size
        if ladder and n_dwells >= 4 * _LONGEST[0]:
            sizes[level] = [n for n in _LONGEST if 4 * n <= n_dwells]
    if not sizes:
        return {}
    records = [_equality(counts, dwells.threshold, sizes)]
    for i in rng.choice(one.weights.size, _N_RECORDS, p=one.weights):
        parameters = {str(name): float(value) for name, value in one.draws.iloc[i].items()}
        levels = posterior.levels(posterior.coordinates(parameters))
        rates = np.array([parameters["on_rate_per_s"], parameters["off_rate_per_s"]])
        drawn = _simulated(levels, rates, posterior.data, rng)
        records.append(_equality(drawn, dwells.threshold, sizes))
    found = {}
    for level in sizes:
        values = np.stack([record[level] for record in records])
        # of each record the most unusual of its numbers, by rank among all records
        ranks = (values[:, None, :] >= values[None, :, :]).sum(axis=1).min(axis=1)
        found[level] = float((ranks[1:] <= ranks[0]).mean())
    return found


def _checked_counts(counts: ArrayLike) -> Array:
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim == 2:
        values = values.sum(axis=1)
    if values.ndim != 1 or values.size < _FEWEST_BINS:
        raise ValueError(
            f"`counts` must have shape (n_bins,) or (n_bins, n_gates) with {_FEWEST_BINS} bins or "
            f"more, got shape {np.shape(counts)}"
        )
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.rint(values)).any():
        raise ValueError(
            "`counts` must be whole numbers of photons, 0 or more; give counts, not rates"
        )
    if values.sum() <= 0:
        raise ValueError("`counts` hold no photon: there is nothing to fit")
    return values
