"""How many photons of a dim state it takes to name the mechanism that made it dim."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats.qmc import LatinHypercube

from pncbayes.inference.arguments import check_whole_number, random_generator
from pncbayes.inference.detection_arguments import (
    check_names,
    check_number,
    dim_state,
    make_response,
)
from pncbayes.inference.naming import (
    KNOWN_LOG_R,
    NEEDS_LIFETIME,
    SURE,
    Namer,
)
from pncbayes.physics.expected_photons import NUISANCES, Decays, Light, usual_gates_ns
from pncbayes.physics.mechanisms import MECHANISMS, MechanismPriors
from pncbayes.physics.modelfile import ModelFile, load_model

__all__ = ["DetectionLimit", "detection_limit", "prior_sd", "search"]

Array = NDArray[np.float64]

# Share of the recordings that are to be named.
_NAMED = 0.9
# Photons of the signal: where the search begins, where it ends, its step and its precision.
_START, _FEWEST, _MOST, _STEP, _LOG_PRECISION = 100.0, 1.0, 1e6, 4.0, 0.02
# sd of priors that a fit has, too: log signal; spread and fast share of the reference decay; shift
# of the response in its widths; logit of the power by which biexcitons grow. Of a single
# exponential it is the square of the spread that counts.
_SIGNAL_SD, _SHAPE_SD, _SQUARED_SPREAD_SD, _SHIFT_SD, _POWER_SD = 2.0, 1.5, 3.0, 0.1, 1.5
# Of its width, a lifetime below which the response hides it; as in `mechanism_tables`.
_HIDDEN = 0.25


@dataclass(frozen=True, repr=False)
class DetectionLimit:
    """Least photons at which nine of ten recordings name the mechanism of a dim state.

    Attributes
    ----------
    mechanism, against
        The true one, and those that it is weighed against.
    photons
        Of the signal of the dim state, background and scatter not counted; infinite where no
        number of photons is enough.
    state_seconds
        Time in the dim state in which it emits them.
    recording_seconds
        Length of a recording that holds this time.
    reason
        Why the limit is infinite; empty where it is not.
    relative_brightness, relative_lifetime
        Of the dim state, over those of the exciton; the amplitude-averaged lifetime, of unresolved
        charging the trion's.
    lifetime_ns
        The same lifetime in ns.
    log_radiative_ratio_sd
        Expected standard deviation of ln R at the limit, from the Fisher information; NaN for
        unresolved charging and where the limit is infinite.
    highest_probability
        Of the mechanism, with infinitely many photons.
    """

    mechanism: str
    against: tuple[str, ...]
    photons: float
    state_seconds: float
    recording_seconds: float
    reason: str
    relative_brightness: float
    relative_lifetime: float
    lifetime_ns: float
    log_radiative_ratio_sd: float
    highest_probability: float

    def __repr__(self) -> str:
        """Return the limit as a person reads it."""
        state = (
            f"{self.mechanism} against {', '.join(self.against)}: "
            f"brightness {self.relative_brightness:.3g} of the exciton, "
            f"lifetime {self.lifetime_ns:.3g} ns"
        )
        if not math.isfinite(self.photons):
            return f"{state}\n    never named: {self.reason}"
        return (
            f"{state}\n    named in 90 % of recordings from {self.photons:.3g} photons of the dim "
            f"state on: {self.state_seconds:.3g} s in it, {self.recording_seconds:.3g} s of "
            "recording"
        )


def detection_limit(
    mechanism: str,
    against: str | None = None,
    *,
    relative_lifetime: float | None = None,
    lifetime_ns: float | None = None,
    relative_brightness: float | None = None,
    charged_share: float | None = None,
    radiative_scaling: float = 2.0,
    exciton_lifetime_ns: float = 6.0,
    exciton_rate_per_s: float = 20_000.0,
    exciton_photons: float | None = None,
    occupancy: float = 0.5,
    background_rate_per_s: float = 200.0,
    background_sd_per_s: float | None = None,
    response_fwhm_ns: float = 0.15,
    response: Any = None,
    response_width_error: float = 0.05,
    period_ns: float = 200.0,
    delay_tick_ns: float = 0.016,
    model: str | os.PathLike[str] | ModelFile = "free",
    n_recordings: int = 400,
    random_seed: int | np.random.Generator | None = None,
) -> DetectionLimit:
    r"""Find how many photons of a dim state it takes to name the mechanism behind it.

    Named is a state as in `fit`: its mechanism has a probability above 0.8, and for ``auger``,
    ``hot_carrier`` and ``nbc`` the standard deviation of ln R, taken as if no mechanism were
    known, is at most 0.25; for ``hot_carrier`` that of unresolved charging is at most 0.05.
    The limit is the least number of photons from which on this is so in 90 % of recordings. They
    are simulated: the photons of the dim state in 24 delay gates; and, from the Fisher information
    of the exciton's photons and the priors, what is known of the signal, lifetime and shape of its
    decay, scatter, background, biexcitons, and shift and width of the response, all of which are
    integrated out.

    It is about the best that a fit can do: which photons are of the dim state is taken to be known,
    the state lies exactly where its mechanism puts it, decays have exactly the shape that the model
    says, and scatter and biexcitons are as the model expects them. Priors of what is shared are
    taken to be normal, so that the limit is least certain where the response hides the lifetime.

    Parameters
    ----------
    mechanism
        The true one: ``"auger"``, ``"hot_carrier"``, ``"nbc"`` or ``"unresolved_charging"``.
    against
        The one that it is to be told from; None for all others, as in a fit.
    relative_lifetime
        Amplitude-averaged lifetime of the state over that of the exciton; of the trion for
        ``"unresolved_charging"``. Not for ``"hot_carrier"``, whose lifetime is the exciton's.
    lifetime_ns
        The same in ns, in place of it.
    relative_brightness
        Signal of a ``"hot_carrier"`` state over that of the exciton. That of the others follows
        from their lifetime.
    charged_share
        Share of the time that an ``"unresolved_charging"`` state is charged.
    radiative_scaling
        Radiative rate of the trion over that of the exciton, for ``"auger"`` and
        ``"unresolved_charging"``.
    exciton_lifetime_ns
        Of the neutral exciton, a single exponential.
    exciton_rate_per_s
        Counts per s of its signal, background and scatter not counted.
    exciton_photons
        Photons of the exciton that its decay is known from; None for those that `occupancy` gives
        beside those of the dim state.
    occupancy
        Share of the recording in the dim state, above 0 and below 1; the rest is the exciton's.
    background_rate_per_s
        Flat counts per s.
    background_sd_per_s
        Error with which it was measured; None for a tenth of it.
    response_fwhm_ns
        Width at half maximum of a Gaussian response.
    response
        Measured response in its place: counts per tick, shape ``(n_ticks,)``.
    response_width_error
        Relative error of the width of the response; 0 where it is known.
    period_ns, delay_tick_ns
        Laser period, and tick of the delay clock.
    model
        Model file with the priors of the mechanisms, by name or path.
    n_recordings
        To simulate, 100 or more.
    random_seed
        As it repeats the limit. With 400 recordings other seeds differ by about a tenth.

    Returns
    -------
    DetectionLimit
        Photons and seconds, or infinity and the reason.

    Raises
    ------
    ValueError
        If an argument is missing, out of range, or makes a state that the mechanism does not allow.

    Examples
    --------
    >>> import pncbayes as pnc
    >>> limit = pnc.detection_limit("auger", "nbc", lifetime_ns=0.5, random_seed=1)
    >>> 30 < limit.photons < 150
    True
    """
    check_names(mechanism, against)
    priors = load_model(model).mechanism
    positive = {
        "radiative_scaling": radiative_scaling, "exciton_lifetime_ns": exciton_lifetime_ns,
        "exciton_rate_per_s": exciton_rate_per_s, "period_ns": period_ns,
        "delay_tick_ns": delay_tick_ns, "response_fwhm_ns": response_fwhm_ns,
    }  # fmt: skip
    given = {
        "relative_lifetime": relative_lifetime, "lifetime_ns": lifetime_ns,
        "exciton_photons": exciton_photons,
    }  # fmt: skip
    positive.update({name: value for name, value in given.items() if value is not None})
    for name, number in positive.items():
        check_number(name, number, 0.0, math.inf)
    check_number("background_rate_per_s", background_rate_per_s, 0.0, math.inf, or_lowest=True)
    if background_sd_per_s is None:
        background_sd_per_s = 0.1 * background_rate_per_s
    check_number("background_sd_per_s", background_sd_per_s, 0.0, math.inf, or_lowest=True)
    check_number("response_width_error", response_width_error, 0.0, 0.5, or_lowest=True)
    check_number("occupancy", occupancy, 0.0, 1.0)
    check_whole_number("n_recordings", n_recordings, 100, 100_000)
    state = dim_state(
        mechanism, relative_lifetime, lifetime_ns, relative_brightness, charged_share,
        radiative_scaling, exciton_lifetime_ns, priors,
    )  # fmt: skip
    shape = make_response(response, response_fwhm_ns, period_ns, delay_tick_ns)
    light = Light(
        exciton_rate_per_s, (exciton_lifetime_ns,), (1.0,), priors.scatter_median,
        background_rate_per_s, priors.biexciton_share_median, priors.biexciton_lifetime_median_ns,
    )  # fmt: skip
    gates_ns = usual_gates_ns(light, shape, period_ns, delay_tick_ns, occupancy)
    rng = random_generator(random_seed)
    # spread evenly in every direction: less noise than from independent ones
    draws = LatinHypercube(gates_ns.size - 1 + len(NUISANCES), rng=rng).random(n_recordings)
    labels: tuple[int, ...] = tuple(range(len(MECHANISMS)))
    if against is not None:
        labels = (state.label, MECHANISMS.index(against))
    per_second, fixed_s = (1.0 - occupancy) / occupancy, 0.0
    if exciton_photons is not None:
        per_second, fixed_s = 0.0, exciton_photons / exciton_rate_per_s
    namer = Namer(
        Decays(light, shape, gates_ns, period_ns),
        state,
        priors,
        labels,
        prior_sd(priors, background_sd_per_s, response_width_error),
        per_second,
        fixed_s,
        draws[:, : gates_ns.size - 1],
        ndtri(draws[:, gates_ns.size - 1 :]),
    )
    signal_per_s = exciton_rate_per_s * math.exp(state.log_brightness)
    seconds, reason = search(namer, signal_per_s, shape.width_ns, exciton_lifetime_ns)
    others = [name for name in MECHANISMS if name != mechanism]
    return DetectionLimit(
        mechanism=mechanism,
        against=(against,) if against is not None else tuple(others),
        photons=seconds * signal_per_s,
        state_seconds=seconds,
        recording_seconds=seconds / occupancy,
        reason=reason,
        relative_brightness=math.exp(state.log_brightness),
        relative_lifetime=math.exp(state.log_lifetime),
        lifetime_ns=math.exp(state.log_lifetime) * exciton_lifetime_ns,
        log_radiative_ratio_sd=namer.log_r_sd(seconds) if math.isfinite(seconds) else math.nan,
        highest_probability=float(namer.probability_at_best()[state.label]),
    )


def prior_sd(
    priors: MechanismPriors, background_sd_per_s: float, response_width_error: float
) -> Array:
    """Standard deviations of `NUISANCES` before any photon, for an exciton of one exponential.

    Shares that a fit believes to be log-normal are normal here, around the median, with half the
    width of the interval of one sigma to either side.

    Parameters
    ----------
    priors
        Of the model file.
    background_sd_per_s
        Of the background.
    response_width_error
        Of the log of the width of the response.

    Returns
    -------
    ndarray, shape ``(n_nuisances,)``
    """
    sd = {
        "log_signal": _SIGNAL_SD, "log_lifetime": priors.exciton_lifetime_sigma,
        "spread": _SQUARED_SPREAD_SD, "fast_share": _SHAPE_SD,
        "scatter_share": priors.scatter_median * math.sinh(priors.scatter_sigma),
        "background_per_s": background_sd_per_s, "shift": _SHIFT_SD,
        "log_width": response_width_error,
        "biexciton_share": priors.biexciton_share_median
        * math.sinh(priors.biexciton_share_sigma),
        "biexciton_log_lifetime": priors.biexciton_lifetime_sigma, "biexciton_power": _POWER_SD,
    }  # fmt: skip
    # what is known exactly still needs a precision
    return np.maximum([sd[name] for name in NUISANCES], 1e-9)


def search(
    namer: Namer, signal_per_s: float, width_ns: float, exciton_lifetime_ns: float
) -> tuple[float, str]:
    """Find the least seconds at which nine of ten recordings are named.

    Parameters
    ----------
    namer
        Simulates recordings.
    signal_per_s
        Signal of the dim state in counts per s.
    width_ns, exciton_lifetime_ns
        Width of the response and lifetime of the exciton, for the reason.

    Returns
    -------
    seconds : float
        Infinite where there are none.
    reason : str
        Why there are none; else empty.
    """
    label, highest = namer.state.label, namer.probability_at_best()
    if highest[label] <= SURE:
        likely = [f"{MECHANISMS[k]} {highest[k]:.2f}" for k in np.argsort(-highest)]
        return math.inf, (
            "even with infinitely many photons the mechanisms overlap here, with probabilities "
            + ", ".join(likely[: int((highest > 0.01).sum())])
        )

    @functools.cache
    def short_of(log_photons: float) -> float:
        margins = namer.margins(math.exp(log_photons) / signal_per_s)
        return float(np.quantile(margins, 1.0 - _NAMED))

    step, low, high = math.log(_STEP), math.log(_START), math.log(_START)
    value = short_of(low)
    while value < 0.0 and high < math.log(_MOST):
        low, high = high, min(high + step, math.log(_MOST))
        value = short_of(high)
    if value < 0.0:
        return math.inf, _why_not(namer, _MOST / signal_per_s, width_ns, exciton_lifetime_ns)
    while low == high or short_of(low) >= 0.0:
        if low < math.log(_FEWEST):
            return math.exp(low) / signal_per_s, ""
        high, low = low, low - step
    found = brentq(short_of, low, high, xtol=_LOG_PRECISION)
    return math.exp(float(found)) / signal_per_s, ""


def _why_not(namer: Namer, seconds: float, width_ns: float, exciton_lifetime_ns: float) -> str:
    """Say why a state is not named with the most photons that are tried."""
    probability, log_r_sd = namer.recordings(seconds)
    label = namer.state.label
    named = float((namer.margins(seconds) > 0.0).mean())
    parts = [f"at {_MOST:.0e} photons only {100.0 * named:.0f} % of recordings are named"]
    mean = probability.mean(axis=0)
    if mean[label] <= SURE:
        likely = [f"{MECHANISMS[k]} {mean[k]:.2f}" for k in np.argsort(-mean) if mean[k] > 0.01]
        parts.append("the data allow " + ", ".join(likely))
    if label in NEEDS_LIFETIME and np.median(log_r_sd) > KNOWN_LOG_R:
        parts.append(
            f"the radiative rate is known to a factor of {np.exp(np.median(log_r_sd)):.2g}"
        )
    share = math.exp(namer.state.log_lifetime) * exciton_lifetime_ns / width_ns
    if share < _HIDDEN:
        parts.append(f"the lifetime, {share:.2g} of the width of the response, is hidden by that")
    return "; ".join(parts)
