"""Steady, blinking, flickering, both, or not identified: the comparison across families."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pncbayes.inference.dynamics_checks import DynamicsChecks, check_dynamics
from pncbayes.inference.dynamics_families import LevelsFound, search_families
from pncbayes.inference.dynamics_pair import PairFinding, compare_pair, pair_remark
from pncbayes.inference.dynamics_point import DynamicsData, Family
from pncbayes.inference.dynamics_search import Optimum, log_volume
from pncbayes.inference.dynamics_verdict import (
    VERDICTS,
    brightness_sd,
    doubts,
    is_flicker,
    kind_of,
    remarks_on,
)
from pncbayes.inference.dynamics_widths import OtherWidth, at_other_width
from pncbayes.photons.antibunching import AntibunchingFinding
from pncbayes.physics.dynamics_file import DynamicsPriors, load_dynamics_priors
from pncbayes.physics.modelfile import ModelFile

__all__ = ["VERDICTS", "Dynamics", "brightness_sd", "compare_dynamics", "is_flicker"]

Array = NDArray[np.float64]

# p-value of dwell times below which hidden states are tried.
_DOUBTFUL = 0.1
# Bins below which wider ones are not tried.
_FEWEST_TO_JOIN = 200
# Powers of the likelihood of the tempered curve.
TEMPERING = np.geomspace(0.003, 1.0, 11)


@dataclass(frozen=True)
class Dynamics:
    """What the comparison found.

    Attributes
    ----------
    optima
        One for each family and number of levels, most probable first.
    probability
        Of each, shape ``(n_optima,)``.
    log_sd
        Standard deviation of the log brightness that its flicker makes, 0 without.
    verdict
        One of `VERDICTS`.
    reasons
        Why it is not identified; empty else.
    remarks
        What else a reader has to know.
    checks
        Of the most probable family.
    verdict_probability
        Of each of `VERDICTS` but the last.
    other_width
        What bins twice as wide say; None where the answer was in doubt before.
    pair
        Two emitters in one spot against the levels of one; None where that cannot be told.
    antibunching
        What coincidences of two detectors say of the number of emitters, where there are any.
    """

    optima: Sequence[Optimum]
    probability: Array
    log_sd: Array
    verdict: str
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    checks: DynamicsChecks
    verdict_probability: dict[str, float] = field(default_factory=dict)
    other_width: OtherWidth | None = None
    pair: PairFinding | None = None
    antibunching: AntibunchingFinding | None = None

    @property
    def best(self) -> Optimum:
        """The most probable family and number of levels."""
        return self.optima[0]

    @property
    def table(self) -> pd.DataFrame:
        """One row per family and number of levels, most probable first."""
        rows = []
        for one, probability, log_sd in zip(
            self.optima, self.probability, self.log_sd, strict=True
        ):
            point, family = one.point, one.posterior.family
            rows.append(
                {
                    "family": family.name,
                    "flicker": family.flicker or "none",
                    "excess_noise": family.excess,
                    "bleaching": family.bleaching,
                    "n_levels": one.n_levels,
                    "n_hidden_states": one.posterior.n_states,
                    "probability": float(probability),
                    "log_evidence": one.log_evidence,
                    "log_likelihood": one.log_likelihood,
                    "log_sd": float(log_sd),
                    "relaxation_rate_per_s": point.relaxation_rate_per_s,
                    "grid_points": one.posterior.grid.n_points,
                    "spread_of_starts": max(one.spread, default=0.0),
                }
            )
        return pd.DataFrame(rows)

    @property
    def n_levels(self) -> pd.Series:
        """P(number of emission levels), averaged over families."""
        numbers = np.array([one.n_levels for one in self.optima])
        index = range(1, int(numbers.max()) + 1)
        shares = [float(self.probability[numbers == n].sum()) for n in index]
        return pd.Series(shares, index=pd.Index(index, name="n_levels"), name="probability")

    @property
    def flicker_probability(self) -> dict[str, float]:
        """P(flicker), and of each kind; a drift is none, nor what is below ``least_log_sd``."""
        kinds = {"common": 0.0, "level": 0.0, "k_nr": 0.0}
        for one, probability, log_sd in zip(
            self.optima, self.probability, self.log_sd, strict=True
        ):
            if is_flicker(one, float(log_sd)):
                kinds[one.posterior.family.flicker] += float(probability)
        return {"any": sum(kinds.values()), **kinds}

    def tempering(self) -> pd.DataFrame:
        """P(number of levels) of levels alone, with the likelihood to powers below 1.

        Rows are powers, columns numbers of levels. A power z says what would be believed if only
        the share z of the photons counted: a declared tolerance of misfit, not a discovery. After
        the coarsened posterior of Miller and Dunson, doi:10.1080/01621459.2018.1469995.
        """
        plain = [one for one in self.optima if one.posterior.family == Family()]
        plain = sorted((one for one in plain if one.hessian is not None), key=lambda o: o.n_levels)
        rows = []
        for power in TEMPERING:
            figures = np.array([_tempered(one, float(power)) for one in plain])
            weights = np.exp(figures - figures.max())
            rows.append(weights / weights.sum())
        columns = pd.Index([one.n_levels for one in plain], name="n_levels")
        return pd.DataFrame(rows, index=pd.Index(TEMPERING, name="power"), columns=columns)

    def summary(self) -> dict[str, object]:
        """Return the result as plain numbers and text, ready for JSON."""
        best, point = self.best, self.best.point
        family = best.posterior.family
        tempered = self.tempering()
        return {
            "verdict": self.verdict,
            "verdict_probability": self.verdict_probability,
            "reasons": list(self.reasons),
            "remarks": list(self.remarks),
            "family": family.name,
            "flicker_probability": self.flicker_probability,
            "n_levels": {str(n): float(p) for n, p in self.n_levels.items()},
            "flicker": {
                "kind": family.flicker,
                "log_sd": float(self.log_sd[0]),
                "relaxation_rate_per_s": float(point.relaxation_rate_per_s),
            }
            if family.flicker
            else None,
            "families": self.table.to_dict("records"),
            "predictive_p_values": dict(self.checks.p_values),
            "other_width": None if self.other_width is None else _plain(self.other_width),
            "pair_probability": None if self.pair is None else self.pair.probability,
            "antibunching": None if self.antibunching is None else asdict(self.antibunching),
            "tempering": {
                "power": [float(power) for power in tempered.index],
                "n_levels": {str(n): tempered[n].tolist() for n in tempered.columns},
            },
        }


def _plain(width: OtherWidth) -> dict[str, object]:
    return {
        "width_s": width.width_s,
        "verdict": width.kind,
        "n_levels": width.n_levels,
        "log_odds": width.log_odds,
        "exits_per_s": width.exits_per_s.tolist(),
    }


def _tempered(one: Optimum, power: float) -> float:
    assert one.hessian is not None
    assert one.prior_hessian is not None
    prior = np.diag(np.maximum(one.prior_hessian, 1e-3))
    curvature = power * (one.hessian - np.diag(one.prior_hessian)) + prior
    scale = 1.0 / np.sqrt(np.maximum(np.diag(curvature), 1e-3))
    log_prior = one.log_density - one.log_likelihood
    value = power * one.log_likelihood + log_prior + log_volume(curvature, scale)
    return value + one.posterior.log_orders


def _log_prior(one: Optimum, kinds: set[str]) -> float:
    """Log prior of a family; kinds of flicker share theirs, a hidden state may be of any level."""
    family, priors = one.posterior.family, one.posterior.priors
    value = math.log(1.0 - priors.flicker)
    if family.flicker:
        value = math.log(priors.flicker / max(len(kinds), 1))
    hidden = one.posterior.n_states - one.n_levels
    odds = priors.hidden_state / (1.0 - priors.hidden_state) / one.n_levels
    value += hidden * math.log(odds)
    if family.bleaching:
        value += math.log(priors.bleaching / (1.0 - priors.bleaching))
    return value


def compare_dynamics(
    data: DynamicsData,
    model: ModelFile,
    levels: Sequence[LevelsFound],
    rng: np.random.Generator,
    *,
    priors: DynamicsPriors | None = None,
    most_levels: int | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Dynamics:
    """Compare levels, flicker, excess noise, hidden states and bleaching, and say what it is.

    Parameters
    ----------
    data
        What all families see.
    model
        Priors of levels, rates and excess noise.
    levels
        Levels of one to so many states, as found without flicker.
    rng
        Source of the replicates.
    priors
        Priors of flicker and of the families; those shipped if not given.
    most_levels
        Levels that were allowed; as many as there are in `levels` if not given.
    on_step
        Called with a word on each step.

    Returns
    -------
    Dynamics
    """
    seen: dict[int, tuple[Optimum, DynamicsChecks]] = {}

    def checked(one: Optimum) -> DynamicsChecks:
        key = id(one)
        if key not in seen:
            # held with its mode, so that no other gets its number
            seen[key] = (one, check_dynamics(one, rng))
        return seen[key][1]

    def looks_right(one: Optimum) -> bool:
        p_values = checked(one).p_values
        return min(p_values["dwell_times"], p_values["autocorrelation"]) > _DOUBTFUL

    found = search_families(
        data, model, levels, priors or load_dynamics_priors(), looks_right=looks_right,
        on_step=on_step,
    )  # fmt: skip
    optima = [one for one in found if np.isfinite(one.log_evidence)]
    kinds = {one.posterior.family.flicker for one in found} - {""}
    figures = np.array([one.log_evidence + _log_prior(one, kinds) for one in optima])
    order = np.argsort(-figures, kind="stable")
    optima = [optima[k] for k in order]
    weights = np.exp(figures[order] - figures.max())
    probability = weights / weights.sum()
    most = most_levels or max(one.point.n_states for one in levels)
    return _judged(optima, probability, checked(optima[0]), most, kinds)


def _judged(
    optima: Sequence[Optimum],
    probability: Array,
    checks: DynamicsChecks,
    most: int,
    kinds: set[str],
) -> Dynamics:
    shares = dict.fromkeys(VERDICTS[:4], 0.0)
    for one, share in zip(optima, probability, strict=True):
        shares[kind_of(one)] += float(share)
    name = max(shares, key=lambda key: shares[key])
    best = optima[0]
    reasons = doubts(best, shares[name], shares, checks, most)
    width = None
    if not reasons and best.posterior.data.counts.shape[0] >= _FEWEST_TO_JOIN:
        width = at_other_width(optima, kind_of, lambda one: _log_prior(one, kinds))
        reasons = list(width.reasons)
    log_sd = np.array([brightness_sd(one) for one in optima])
    pair = compare_pair(optima)
    remarks = [*remarks_on(best, float(log_sd[0])), *filter(None, [pair_remark(pair)])]
    verdict = "not identified" if reasons else name
    return Dynamics(
        optima, probability, log_sd, verdict, tuple(reasons), tuple(remarks), checks, shares, width,
        pair,
    )  # fmt: skip
