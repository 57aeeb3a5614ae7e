"""The instrument: all that a recording tells about it, in one report."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PncbayesWarning
from pncbayes.photons.background import Background, background_from_dark, estimate_background
from pncbayes.photons.delays import DelayClock, delay_clock, delay_histogram
from pncbayes.photons.detectors import (
    Afterpulsing,
    dead_time_ns,
    detector_shifts,
    estimate_afterpulsing,
    pulse_occupancy,
)
from pncbayes.photons.pulse import find_pulse
from pncbayes.photons.response import (
    Rise,
    estimate_response,
    fit_rise,
    gaussian_on_clock,
    load_response,
)
from pncbayes.photons.stream import Photons

__all__ = [
    "Afterpulsing",
    "Background",
    "Rise",
    "background_from_dark",
    "dead_time_ns",
    "detector_shifts",
    "estimate_afterpulsing",
    "estimate_background",
    "estimate_response",
    "find_pulse",
    "fit_rise",
    "gaussian_on_clock",
    "instrument_report",
    "load_response",
    "pulse_occupancy",
]


def instrument_report(photons: Photons, response: Any = None) -> dict[str, Any]:
    """Tell what a recording says of its instrument, as plain numbers and text.

    Parameters
    ----------
    photons
        The recording.
    response
        As in `bin_photons`.

    Returns
    -------
    dict
        ``detectors`` (by number: photons, rate, alignment, occupancy), ``pulse_ns``,
        ``response_width_ns`` with its error, background with interval and method,
        ``afterpulsing``, ``dead_time_ns``, and ``warnings``. Numbers that are not known are None.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PncbayesWarning)
        report = _report(photons, response)
    report["warnings"] = [*photons.warnings, *(str(w.message) for w in caught)]
    return report


def _report(photons: Photons, response: Any) -> dict[str, Any]:
    duration_s = float(photons.duration_s or 0.0)
    shifts = detector_shifts(photons)
    occupancy = pulse_occupancy(photons)
    clock = delay_clock(photons)
    rise = source = None
    if clock is not None:
        histogram = delay_histogram(photons, shifts)
        rise = fit_rise(histogram, clock)
        if response is not None:
            source = _source(response, clock, histogram, shifts)
    background = estimate_background(photons, shifts)
    after = estimate_afterpulsing(photons)
    known = {
        number: {
            "n_photons": count,
            "rate_per_s": _number(count / duration_s if duration_s else float("nan")),
            "shift_ticks": shifts.get(number, 0),
            "pulse_occupancy": _number(occupancy.get(number, (float("nan"),) * 2)[0]),
            "pulse_occupancy_bright": _number(occupancy.get(number, (float("nan"),) * 2)[1]),
        }
        for number, count in photons.detectors.items()
    }
    return {
        "n_photons": len(photons),
        "duration_s": duration_s,
        "detectors": known,
        "period_ns": _number(clock.period_ns) if clock else photons.period_ns,
        "delay_tick_ns": clock.tick_ns if clock else None,
        "pulse_ns": _number(rise.center_ns) if rise else None,
        "response_width_ns": _number(rise.width_ns) if rise else None,
        "response_width_sd_ns": _number(2.3548 * rise.sd_error_ns) if rise else None,
        "response_source": source or ("estimated from the rise" if rise else None),
        "background_rate_per_s": _number(background.rate_per_s),
        "background_sd_per_s": _number(background.sd_per_s),
        "background_q05_per_s": _number(background.quantile_per_s(0.05)),
        "background_q95_per_s": _number(background.quantile_per_s(0.95)),
        "background_upper_per_s": _number(background.upper_per_s),
        "background_method": background.method,
        "flat_share_of_signal": _number(background.flat_share),
        "flat_share_of_signal_sd": _number(background.flat_share_sd),
        "afterpulsing": _number(after.probability),
        "afterpulsing_sd": _number(after.sd),
        "dead_time_ns": _number(dead_time_ns(photons)),
    }


def _source(
    response: Any, clock: DelayClock, histogram: NDArray[np.int64], shifts: dict[int, int]
) -> str | None:
    loaded = load_response(response, clock, histogram, shift_ticks=shifts)
    return None if loaded is None else loaded.source


def _number(value: float) -> float | None:
    # JSON has no NaN
    return float(value) if np.isfinite(value) else None
