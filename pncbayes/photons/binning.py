"""From photons to a trace: counts per time bin and delay gate, as an `xarray.Dataset`."""

from __future__ import annotations

import json
import warnings
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons.background import Background, background_from_dark, estimate_background
from pncbayes.photons.camera import camera_trace
from pncbayes.photons.counting import Gating
from pncbayes.photons.delays import delay_clock
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
    "merge_empty_gates",
    "photons_of",
    "rebin",
]

# More than this share of the record in the last, partial bin, or folded, is worth a warning.
_MOST_DROPPED = 0.05
_MOST_FOLDED = 0.001
# More than this, and the period is wrong.
_FAR_TOO_MANY_FOLDED = 0.5
# Gates that are left when empty ones are merged: a lifetime takes three.
_FEWEST_GATES = 4


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
    _check_period(photons)
    remember(photons)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PncbayesWarning)
        shifts = detector_shifts(photons) if align_detectors else {}
        gating = Gating(photons, shifts, n_gates, gates, n_bins)
        counts, n_outside = gating.count(photons, float(width_s), n_bins)
        loaded = gating.response(photons, response)
        background = _background(photons, background_rate_per_s, shifts)
        if background_rate_per_s is not None:
            _check_background(background, photons, shifts)
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


def merge_empty_gates(trace: xr.Dataset) -> xr.Dataset:
    """Merge every gate that holds no photon with the neighbour that holds fewer.

    A gate without photons tells nothing of its own, but a model of free decays gives it a share as
    small as you like, and the evidence gets long tails for nothing.

    Parameters
    ----------
    trace
        Made by `bin_photons`.

    Returns
    -------
    xarray.Dataset
        The same where every gate holds photons, or none does; four gates at least.
    """
    totals = trace["counts"].sum("time").to_numpy().astype(np.int64)
    if totals.size < 2 or totals.all() or not totals.any():
        return trace
    groups = [[gate] for gate in range(totals.size)]
    held = [int(n) for n in totals]
    while 0 in held and len(held) > _FEWEST_GATES:
        at = held.index(0)
        beside = [k for k in (at - 1, at + 1) if 0 <= k < len(held)]
        with_whom = min(beside, key=lambda k: held[k])
        low, high = min(at, with_whom), max(at, with_whom)
        groups[low : high + 1] = [groups[low] + groups[high]]
        held[low : high + 1] = [held[low] + held[high]]
    first = np.array([group[0] for group in groups])
    last = np.array([group[-1] for group in groups])
    merged = trace.isel(gate=first).assign_coords(
        gate_stop_ns=("gate", trace["gate_stop_ns"].to_numpy()[last])
    )
    counts = np.add.reduceat(trace["counts"].to_numpy(), first, axis=1)
    merged["counts"] = (("time", "gate"), counts.astype(trace["counts"].dtype))
    if "background_gate_fraction" in trace:
        share = np.add.reduceat(trace["background_gate_fraction"].to_numpy(), first)
        merged["background_gate_fraction"] = ("gate", share)
    return merged


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
    pair = tuple(given) if isinstance(given, tuple | list) else (given, 0.0)
    numbers = all(isinstance(one, Real) and not isinstance(one, bool) for one in pair)
    rate, sd = pair if numbers and len(pair) == 2 else (np.nan, np.nan)
    if not (np.isfinite(rate) and rate >= 0 and np.isfinite(sd) and sd >= 0):
        raise ValueError(
            "`background_rate_per_s` must be a rate >= 0 in counts per s, (rate, standard "
            f"deviation), or Photons of a dark recording, got {given!r}"
        )
    return Background(float(rate), float(sd), float(rate + 1.645 * sd), "given")


def _check_background(background: Background, photons: Photons, shifts: dict[int, int]) -> None:
    """Refuse a given background above all the light, and warn of one above the dimmest."""
    name, duration_s = photons.path or "photons", float(photons.duration_s or 0.0)
    total = len(photons) / duration_s
    lowest = background.rate_per_s - 3.0 * background.sd_per_s
    if lowest > total + 3.0 * np.sqrt(len(photons) + 1.0) / duration_s:
        raise PhotonFileError(
            f"{name}: the background given, {background.rate_per_s:.6g} counts per s, is more than "
            f"all its light, {total:.6g} per s; check its unit, or leave it out to have it inferred"
        )
    upper = estimate_background(photons, shifts).upper_per_s
    if lowest > 1.2 * upper:
        warnings.warn(
            f"{name}: the background given, {background.rate_per_s:.6g} counts per s, is more than "
            f"the dimmest part of the record or the floor of its delays allow, {upper:.4g} per s: "
            "brightness and lifetimes of dim states will be wrong",
            PncbayesWarning,
            stacklevel=2,
        )


def _check_period(photons: Photons) -> None:
    """Refuse a laser period that most delays exceed: it, or their unit, is wrong."""
    clock = delay_clock(photons)
    if clock is None or photons.delay_ticks is None:
        return
    late = float(np.mean(photons.delay_ticks >= clock.n_ticks))
    if late > _FAR_TOO_MANY_FOLDED:
        raise PhotonFileError(
            f"{photons.path or 'photons'}: {100 * late:.0f} % of the delays are longer than the "
            f"laser period of {clock.period_ns:.6g} ns; give the right `period_ns` "
            "(`--period-ns`), or check the unit of the delays"
        )


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
