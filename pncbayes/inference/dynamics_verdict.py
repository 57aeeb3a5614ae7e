"""Steady, blinking, flickering, both: what a mode is called, and what speaks against it."""

from __future__ import annotations

import numpy as np

from pncbayes.inference.dynamics_checks import DynamicsChecks
from pncbayes.inference.dynamics_flickers import MOST_LEVELS
from pncbayes.inference.dynamics_search import Optimum
from pncbayes.inference.dynamics_widths import exits_per_s

__all__ = ["VERDICTS", "brightness_sd", "doubts", "is_flicker", "kind_of", "remarks_on"]

VERDICTS = ("steady", "blinking", "flickering", "both", "not identified")

# One that is slower than this share of the recording is a drift, and one that is forgotten within
# so many bins is noise of single bins.
_SLOWEST = 0.25
_FEWEST_BINS = 4.0
# Probability above which a verdict is given, and p-value at which a check has failed.
_SURE = 0.8
_FAILED = 1.0 / 151.0
# Exits per bin above which a level is no better than noise of single bins.
_FASTEST = 1.0
# Photons, and bins, below which nothing is said; bins that a level has to be seen for.
_FEWEST_PHOTONS, _FEWEST_BINS_AT_ALL, _LEAST_VISIT = 100.0, 50, 2.0
# Share of the time below which a level is rare.
_OFTEN = 0.05
# Of flicker, excess noise and hidden states: so many at once fit whatever there is.
_TOO_MANY_PARTS = 3


def brightness_sd(one: Optimum) -> float:
    """Standard deviation of the log brightness that the flicker makes.

    Of the level that flickers most, of those that are not rare, where each has its own; of the
    brightest where a rate flickers.
    """
    posterior, point = one.posterior, one.point
    if not posterior.family.flicker:
        return 0.0
    brightest = int(np.argmax(point.signal_per_s.sum(axis=1)))
    if posterior.family.flicker == "level":
        bins = posterior.gradient(one.vector)[2].occupied.sum(axis=1)
        return float(np.abs(point.amplitude[bins >= _OFTEN * bins.sum()]).max())
    if posterior.family.flicker != "k_nr":
        return float(abs(point.amplitude[0]))
    factors = posterior.factors(point)
    assert factors is not None
    light = (factors.value[0] * point.signal_per_s[brightest]).sum(axis=1)
    logs = np.log(np.maximum(light, 1e-12))
    stationary = posterior.grid.stationary
    return float(np.sqrt(stationary @ (logs - stationary @ logs) ** 2))


def is_flicker(one: Optimum, log_sd: float) -> bool:
    """Whether a fluctuation is large enough, and fast enough, to be called flicker."""
    if not one.posterior.family.flicker or log_sd < one.posterior.priors.least_log_sd:
        return False
    data, time_s = one.posterior.data, 1.0 / one.point.relaxation_rate_per_s
    return bool(_FEWEST_BINS * data.width_s < time_s < _SLOWEST * data.duration_s)


def kind_of(one: Optimum) -> str:
    """One of `VERDICTS`."""
    blinks = one.n_levels > 1
    if is_flicker(one, brightness_sd(one)):
        return "both" if blinks else "flickering"
    return "blinking" if blinks else "steady"


def doubts(
    best: Optimum, sure: float, shares: dict[str, float], checks: DynamicsChecks, most: int
) -> list[str]:
    """Why the most probable answer is not to be believed; empty where it is.

    Parameters
    ----------
    best
        The most probable mode.
    sure, shares
        Probability of its verdict, and of each.
    checks
        Of data drawn from it.
    most
        Levels that were allowed.
    """
    reasons, family = [], best.posterior.family
    if sure <= _SURE:
        likely = ", ".join(f"{key} {value:.2f}" for key, value in shares.items() if value > 0.02)
        reasons.append(f"no verdict is probable enough ({likely})")
    failed = checks.failed(_FAILED)
    if failed:
        reasons.append(
            "data drawn from the most probable family do not look like these: "
            + ", ".join(text.replace("_", " ") for text in failed)
        )
    allowed = min(most, MOST_LEVELS) if family.flicker else most
    if best.n_levels >= allowed:
        reasons.append(f"as many levels as are allowed ({allowed}) are the most probable")
    extras = bool(family.flicker) + family.excess + bool(family.level_of)
    if extras >= _TOO_MANY_PARTS:
        reasons.append(
            f"it takes all at once ({family.name}) to describe these data: that describes, and "
            "identifies nothing"
        )
    time_s = 1.0 / best.point.relaxation_rate_per_s
    if family.flicker and brightness_sd(best) >= best.posterior.priors.least_log_sd:
        width_s = best.posterior.data.width_s
        if time_s <= _FEWEST_BINS * width_s:
            reasons.append(
                f"the brightness flickers within {1e3 * time_s:.2g} ms, faster than bins of "
                f"{1e3 * width_s:g} ms tell from noise: give a smaller `width_s`"
            )
    data = best.posterior.data
    bins = best.posterior.gradient(best.vector)[2].occupied.sum(axis=1)
    seen = np.bincount(best.posterior.level_of, bins, minlength=best.n_levels)
    if data.counts.sum() < _FEWEST_PHOTONS or data.counts.shape[0] < _FEWEST_BINS_AT_ALL:
        reasons.append(
            f"{data.counts.sum():.0f} photons in {data.counts.shape[0]} bins are too few to tell"
        )
    elif seen.min() < _LEAST_VISIT:
        reasons.append(f"a level is seen for {1e3 * seen.min() * data.width_s:.2g} ms alone")
    exits = float(exits_per_s(best)[0].max())
    width_s = best.posterior.data.width_s
    if best.n_levels > 1 and exits * width_s > _FASTEST:
        reasons.append(
            f"a level is left {exits:.0f} times per s, faster than bins of {1e3 * width_s:g} ms: "
            "noise of single bins looks like that, too"
        )
    return reasons


def remarks_on(best: Optimum, log_sd: float) -> list[str]:
    """Say what else a reader has to know of the most probable answer."""
    family, remarks = best.posterior.family, []
    if is_flicker(best, log_sd) and family.flicker == "common":
        remarks.append(
            f"the brightness of all levels flickers alike, by {100 * log_sd:.0f} %, and lifetimes "
            "do not follow: it may be the laser or the stage as well as the emitter"
        )
    if (
        family.flicker
        and best.point.relaxation_rate_per_s * best.posterior.data.duration_s * _SLOWEST < 1.0
        and log_sd >= best.posterior.priors.least_log_sd
    ):
        remarks.append(f"a slow drift of the brightness, by {100 * log_sd:.0f} %")
    if family.level_of:
        remarks.append(
            f"{best.posterior.n_states} hidden states make {best.n_levels} emission levels: dwell "
            "times that no single rate explains"
        )
    if family.bleaching:
        remarks.append("the last level is never left: bleached, or dark for longer than was seen")
    if family.excess and best.point.excess is not None:
        worst = float(np.max(best.point.excess))
        remarks.append(f"counts scatter more than Poisson's, variance up to {1 + worst:.2f} x mean")
    return remarks
