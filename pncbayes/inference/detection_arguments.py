"""Checks of what users pass to `pncbayes.detection_limit`, and the dim state that they describe."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from pncbayes.inference.naming import DimState, can_be_charged
from pncbayes.physics.convolution import (
    GaussianResponse,
    HistogramResponse,
    Response,
    as_response,
)
from pncbayes.physics.mechanism_kernels import U_HIGH, U_LOW, V_LOW
from pncbayes.physics.mechanisms import MECHANISMS, MechanismPriors

__all__ = ["TRUE_MECHANISMS", "check_names", "check_number", "dim_state", "make_response"]

# What a state can truly be; it can be weighed against all others, too.
TRUE_MECHANISMS = ("auger", "hot_carrier", "nbc", "unresolved_charging")
# A Gaussian response stands here, in its widths after the start of the period.
_PLACE_WIDTHS, _LEAST_PLACE_NS = 4.0, 2.0
# What the kernels take for a charged state, not for charging.
_MOST_CHARGED = 0.9


def dim_state(
    mechanism: str,
    relative_lifetime: float | None,
    lifetime_ns: float | None,
    relative_brightness: float | None,
    charged_share: float | None,
    scaling: float,
    exciton_lifetime_ns: float,
    priors: MechanismPriors,
) -> DimState:
    """Place of the state on the plane; ValueError where the mechanism allows none."""
    _check_needed(
        "relative_brightness", relative_brightness, mechanism, ("hot_carrier",), (0.0, 1.0)
    )
    _check_needed(
        "charged_share", charged_share, mechanism, ("unresolved_charging",), (0.0, _MOST_CHARGED)
    )  # fmt: skip
    if mechanism == "hot_carrier":
        if relative_lifetime is not None or lifetime_ns is not None:
            raise ValueError(
                "`relative_lifetime` and `lifetime_ns` are not for 'hot_carrier', whose lifetime "
                "is the exciton's; give `relative_brightness`"
            )
        assert relative_brightness is not None
        bright, ratio = relative_brightness, 1.0
    else:
        if (relative_lifetime is None) == (lifetime_ns is None):
            raise ValueError(
                f"{mechanism!r} needs either `relative_lifetime` or `lifetime_ns`, got "
                f"{'none' if lifetime_ns is None else 'both'}"
            )
        ratio = (
            relative_lifetime
            if relative_lifetime is not None
            else (lifetime_ns or 0.0) / exciton_lifetime_ns
        )
        bright = {"auger": scaling * ratio, "nbc": ratio}.get(mechanism, 0.0)
        if charged_share is not None:
            bright = 1.0 - charged_share + charged_share * scaling * ratio
    _check_ratio(mechanism, ratio, bright, scaling, priors)
    state = DimState(MECHANISMS.index(mechanism), math.log(bright), math.log(ratio), scaling)
    if charged_share is not None and not can_be_charged(state, scaling):
        raise ValueError(
            f"`radiative_scaling` {scaling:.4g} times `relative_lifetime` {ratio:.4g} must be "
            "below 1, or charging does not make the dot dimmer, and the lifetime above 0.005 of "
            "the exciton's"
        )
    return state


def _check_ratio(
    mechanism: str, ratio: float, bright: float, scaling: float, priors: MechanismPriors
) -> None:
    most = 1.0
    if mechanism == "auger":
        # no Auger rate is below 0
        most = 1.0 / (1.0 + max(scaling - 1.0, 0.0) * priors.quantum_yield[0])
    if not math.exp(V_LOW) <= ratio <= most:
        raise ValueError(
            f"`relative_lifetime` (or `lifetime_ns` over `exciton_lifetime_ns`) of {mechanism!r} "
            f"must be from {math.exp(V_LOW):.3g} to {most:.3g}, got {ratio:.4g}"
        )
    if not math.exp(U_LOW) <= bright <= math.exp(U_HIGH):
        raise ValueError(
            f"the brightness of the state must be from {math.exp(U_LOW):.3g} to "
            f"{math.exp(U_HIGH):.3g} of the exciton's, got {bright:.4g}; change "
            "`relative_brightness`, `relative_lifetime` or `radiative_scaling`"
        )


def make_response(
    response: Any, response_fwhm_ns: float, period_ns: float, delay_tick_ns: float
) -> Response:
    """Return the measured response, or a Gaussian of a width at half maximum."""
    if response is not None:
        return as_response(_counts_per_tick(response), delay_tick_ns)
    place_ns = max(_PLACE_WIDTHS * response_fwhm_ns, _LEAST_PLACE_NS)
    if place_ns > 0.25 * period_ns:
        raise ValueError(
            f"`response_fwhm_ns` must be below a sixteenth of `period_ns` ({period_ns:.4g} ns), "
            f"and that at least 8 ns, got {response_fwhm_ns:.4g}"
        )
    return GaussianResponse(place_ns, response_fwhm_ns / math.sqrt(8.0 * math.log(2.0)))


def _counts_per_tick(response: Any) -> Any:
    """Return a response or an array of counts, or raise ValueError if it is neither."""
    if isinstance(response, GaussianResponse | HistogramResponse):
        return response
    try:
        counts = np.asarray(response, dtype=np.float64)
    except (TypeError, ValueError):
        counts = np.empty(0)
    good = counts.ndim == 1 and counts.size > 1 and np.isfinite(counts).all()
    if not (good and (counts >= 0.0).all() and counts.any()):
        raise ValueError(
            "`response` must be the counts of a measured response per tick of the delay clock, 0 "
            f"or more and not all 0, got {response!r:.80}; of a file, give the array that is in "
            "it, and of a Gaussian its `response_fwhm_ns`"
        )
    return counts


def check_names(mechanism: str, against: str | None) -> None:
    """Raise ValueError unless both are mechanisms, and different ones."""
    if mechanism not in TRUE_MECHANISMS:
        raise ValueError(
            f"`mechanism` must be one of {', '.join(TRUE_MECHANISMS)}, got {mechanism!r}"
        )
    others = [name for name in MECHANISMS if name != mechanism]
    if against is not None and against not in others:
        raise ValueError(
            f"`against` must be None for all others, or one of {', '.join(others)}, got {against!r}"
        )


def _check_needed(
    name: str, value: Any, mechanism: str, needs: tuple[str, ...], allowed: tuple[float, float]
) -> None:
    if mechanism not in needs:
        if value is not None:
            raise ValueError(f"`{name}` is only for {', '.join(needs)}, not for {mechanism!r}")
        return
    if value is None:
        raise ValueError(
            f"{mechanism!r} needs `{name}`, above {allowed[0]:g}, below {allowed[1]:g}"
        )
    check_number(name, value, *allowed)


def check_number(
    name: str, value: Any, lowest: float, highest: float, *, or_lowest: bool = False
) -> float:
    """Return a number, or raise ValueError if it is none or out of range."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (lowest < value < highest or (or_lowest and value == lowest)):
        start = f"{lowest:g} or more" if or_lowest else f"above {lowest:g}"
        end = "" if math.isinf(highest) else f" and below {highest:g}"
        raise ValueError(f"`{name}` must be a number {start}{end}, got {value!r}")
    return float(value)
