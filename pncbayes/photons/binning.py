"""From photons to a trace: counts per time bin and delay gate, as an `xarray.Dataset`."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PncbayesWarning
from pncbayes.photons.background import Background, background_from_dark, estimate_background
from pncbayes.photons.camera import camera_trace
from pncbayes.photons.counting import Gating
from pncbayes.photons.detectors import detector_shifts, pulse_occupancy
from pncbayes.photons.gates import DEFAULT_GATES, choose_gates
from pncbayes.photons.recall import photons_of, remember
from pncbayes.photons.response import LoadedResponse
from pncbayes.photons.stream import Photons
from pncbayes.photons.widths import check_photons, check_width, choose_width_s

__all__ = [
    "bin_photons",
    "camera_trace",
    "choose_gates",
    "choose_width_s",
    "photons_of",
    "rebin",
]

# More than this share of the record in the last, partial bin, or folded, is worth a warning.
_MOST_DROPPED = 0.05
_MOST_FOLDED = 0.001


def bin_photons(
    photons: Photons,
    width_s: float | None = None,
    *,
    n_gates: int = DEFAULT_GATES,
    gates: ArrayLike | None = None,
    response: Any = None,
    background_rate_per_s: float | tuple[float, float] | Photons | None = None,
    align_detectors: bool = True,
) -> xr.Dataset:
    """Count photons per time bin and delay gate.

    The last, partial bin is dropped (``attrs["dropped_s"]`` says how much). Delays beyond the laser
    period are folded back by whole periods. Bin ``k`` holds the photons with
    ``k * width_s <= time < (k + 1) * width_s``.

    Parameters
    ----------
    photons
        The recording.
    width_s
        Width of a bin in s; by `choose_width_s` if not given.
    n_gates
        Number of delay gates, 16 or more to keep what decays tell; fewer if you ask for them.
    gates
        Edges of the gates in ns after the start of the TCSPC period, shape ``(n_gates + 1,)``; by
        `choose_gates` if not given. They are rounded to the delay clock. Photons outside are left
        out and counted in ``attrs["n_photons_outside_gates"]``.
    response
        Instrument response: a path, `Photons`, a histogram on the delay clock, or the standard
        deviation of a Gaussian in ns (see `load_response`). If not given it is estimated from the
        data, with a warning. ``False``: none.
    background_rate_per_s
        Rate in counts per s, all detectors together; or (rate, standard deviation); or a dark
        recording. If not given it is inferred (`estimate_background`).
    align_detectors
        Move the delays of each detector by whole ticks so that their rises coincide.

    Returns
    -------
    xarray.Dataset
        ``counts(time, gate)`` as uint32, with coordinates ``time`` (start of the bin, s),
        ``gate_start_ns`` and ``gate_stop_ns``; ``background_gate_fraction(gate)`` and, when known,
        ``response(delay_tick)``. Without delays there is one gate with NaN edges.

    Raises
    ------
    PhotonFileError
        If there are no photons, or the response does not fit.
    ValueError
        If the width is not a positive number, exceeds the recording, or makes too many bins; or if
        the gates do not fit the delay clock.

    Warns
    -----
    PncbayesWarning
        For what a reader of the result has to know; the same texts are in ``attrs["warnings"]`` as
        JSON.
    """
    duration_s = check_photons(photons)
    width_s = choose_width_s(photons) if width_s is None else width_s
    n_bins = check_width(width_s, duration_s, photons)
    dropped_s = _dropped_s(duration_s, n_bins, width_s)
    remember(photons)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PncbayesWarning)
        shifts = detector_shifts(photons) if align_detectors else {}
        gating = Gating(photons, shifts, n_gates, gates, n_bins)
        counts, n_outside = gating.count(photons, float(width_s), n_bins)
        loaded = gating.response(photons, response)
        background = _background(photons, background_rate_per_s, shifts)
        pulse_occupancy(photons)
        for text in _losses(photons, gating, duration_s, dropped_s):
            warnings.warn(text, PncbayesWarning, stacklevel=2)
    texts = [*photons.warnings, *(str(w.message) for w in caught)]
    for warning in caught:
        warnings.warn(str(warning.message), warning.category, stacklevel=2)
    attrs: dict[str, Any] = {
        "kind": "photons",
        "width_s": float(width_s),
        "duration_s": duration_s,
        "dropped_s": dropped_s,
        "n_photons": len(photons),
        "n_photons_outside_gates": int(n_outside),
        **_instrument(photons, gating, background, loaded),
        "path": photons.path,
        "digest": photons.digest,
        "warnings": json.dumps(texts),
    }
    return _dataset(counts, gating, loaded, attrs)


def rebin(trace: xr.Dataset, width_s: float) -> xr.Dataset:
    """Put a trace on another time grid: same gates, response and background.

    Parameters
    ----------
    trace
        Made by `bin_photons`.
    width_s
        New width of a bin, in s.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        If the photons of the trace cannot be found, or the width does not fit.
    """
    photons = photons_of(trace)
    if photons is None:
        raise ValueError(
            "`trace` cannot be put on another grid: its photons are not in memory and not at "
            f"{trace.attrs.get('path', '')!r}; bin the photons again with `bin_photons`"
        )
    duration_s = check_photons(photons)
    n_bins = check_width(width_s, duration_s, photons)
    detectors = json.loads(trace.attrs["detectors"])
    shifts = dict(zip(detectors, json.loads(trace.attrs["detector_shift_ticks"]), strict=True))
    edges_ns = np.append(trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()[-1])
    gating = Gating(photons, shifts, edges_ns.size - 1, edges_ns, n_bins)
    counts, n_outside = gating.count(photons, float(width_s), n_bins)
    others = trace.drop_vars([name for name in trace.variables if "time" in trace[name].dims])
    result = others.assign(counts=_counts(counts))
    result = result.assign_coords(time=_time(n_bins, float(width_s)))
    result.attrs = {
        **trace.attrs,
        "width_s": float(width_s),
        "dropped_s": _dropped_s(duration_s, n_bins, width_s),
        "n_photons_outside_gates": n_outside,
    }
    return result


def _instrument(
    photons: Photons, gating: Gating, background: Background, loaded: LoadedResponse | None
) -> dict[str, Any]:
    """Return what a trace's `attrs` say of laser, detectors, background and response."""
    detectors = sorted(photons.detectors)
    return {
        "period_ns": gating.period_ns,
        "pulse_ns": gating.pulse_ns,
        "delay_tick_ns": gating.delay_tick_ns,
        "detectors": json.dumps(detectors),
        "detector_shift_ticks": json.dumps([gating.shifts.get(d, 0) for d in detectors]),
        "background_rate_per_s": background.rate_per_s,
        "background_sd_per_s": background.sd_per_s,
        "background_upper_per_s": background.upper_per_s,
        "background_method": background.method,
        "response_source": loaded.source if loaded else "",
    }


def _dataset(
    counts: NDArray[np.uint32],
    gating: Gating,
    loaded: LoadedResponse | None,
    attrs: dict[str, Any],
) -> xr.Dataset:
    edges_ns = gating.edges_ns
    variables: dict[str, Any] = {
        "counts": _counts(counts),
        "background_gate_fraction": ("gate", gating.background_fraction()),
    }
    if loaded is not None:
        variables["response"] = ("delay_tick", loaded.weight)
    return xr.Dataset(
        variables,
        coords={
            "time": _time(counts.shape[0], attrs["width_s"]),
            "gate_start_ns": ("gate", edges_ns[:-1], {"units": "ns"}),
            "gate_stop_ns": ("gate", edges_ns[1:], {"units": "ns"}),
        },
        attrs=attrs,
    )


def _counts(counts: NDArray[np.uint32]) -> tuple[Any, ...]:
    return ("time", "gate"), counts, {"units": "counts"}


def _time(n_bins: int, width_s: float) -> tuple[Any, ...]:
    return "time", np.arange(n_bins) * width_s, {"units": "s"}


def _dropped_s(duration_s: float, n_bins: int, width_s: float) -> float:
    return float(max(0.0, duration_s - n_bins * width_s))


def _background(
    photons: Photons,
    given: float | tuple[float, float] | Photons | None,
    shifts: dict[int, int],
) -> Background:
    if given is None:
        return estimate_background(photons, shifts)
    if isinstance(given, Photons):
        return background_from_dark(given)
    rate, sd = given if isinstance(given, tuple) else (given, 0.0)
    if not (np.isfinite(rate) and rate >= 0 and np.isfinite(sd) and sd >= 0):
        raise ValueError(
            "`background_rate_per_s` must be a rate >= 0 in counts per s, or (rate, standard "
            f"deviation), got {given}"
        )
    return Background(float(rate), float(sd), float(rate + 1.645 * sd), "given")


def _losses(photons: Photons, gating: Gating, duration_s: float, dropped_s: float) -> list[str]:
    """Say what of the recording the trace does not show, or not where it was recorded."""
    name = photons.path or "photons"
    texts = []
    if dropped_s > _MOST_DROPPED * duration_s:
        texts.append(
            f"{name}: the last {dropped_s:.4g} s of {duration_s:.4g} s do not fill a bin and are "
            "dropped"
        )
    clock = gating.clock
    if clock is None or photons.delay_ticks is None:
        return texts
    if not clock.known_period:
        texts.append(
            f"{name}: the laser period is not in the file; the longest delay "
            f"({clock.period_ns:.6g} ns) is taken for it"
        )
    folded = float(np.mean(photons.delay_ticks >= clock.n_ticks))
    if folded > _MOST_FOLDED:
        texts.append(
            f"{name}: {100 * folded:.2g} % of the delays are longer than the laser period "
            f"({clock.period_ns:.6g} ns) and were folded back into it"
        )
    return texts
