"""From photons to a trace: counts per time bin and delay gate, as an `xarray.Dataset`."""

from __future__ import annotations

import json
import os
import warnings
import weakref
from collections import OrderedDict
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons.background import Background, background_from_dark, estimate_background
from pncbayes.photons.camera import camera_trace
from pncbayes.photons.detectors import detector_shifts, pulse_occupancy
from pncbayes.photons.gates import (
    DEFAULT_GATES,
    DelayClock,
    choose_gates,
    delay_clock,
    delay_histogram,
    find_pulse,
    fold_table,
    gate_table,
    gates_from_edges,
    recorded_ticks,
)
from pncbayes.photons.response import LoadedResponse, load_response
from pncbayes.photons.stream import Photons

__all__ = [
    "bin_photons",
    "camera_trace",
    "choose_gates",
    "choose_width_s",
    "photons_of",
    "rebin",
]

_MOST_BINS = 200_000_000
_MOST_CELLS = 1_000_000_000
_WIDTHS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
# More than this share of the record in the last, partial bin, or folded, is worth a warning.
_MOST_DROPPED = 0.05
_MOST_FOLDED = 0.001

# Traces find their photons again by digest. Photons that came from no file could not be read
# again, so the last few are kept alive.
_REMEMBERED: weakref.WeakValueDictionary[str, Photons] = weakref.WeakValueDictionary()
_KEPT: OrderedDict[str, Photons] = OrderedDict()
_MOST_KEPT = 4


@njit(cache=True, nogil=True)
def _bin_edge(number: int, width_ticks: float) -> int:
    # first whole tick of a bin; edges within rounding of a tick are that tick
    edge = number * width_ticks
    return int(np.ceil(edge - max(1e-6, 4e-16 * edge)))


@njit(cache=True, nogil=True)
def _count_totals(
    time_ticks: NDArray[np.int64], width_ticks: float, counts: NDArray[np.uint32]
) -> None:
    n_bins = counts.shape[0]
    bin_number = 0
    next_edge = _bin_edge(1, width_ticks)
    for i in range(time_ticks.size):
        while time_ticks[i] >= next_edge:
            bin_number += 1
            next_edge = _bin_edge(bin_number + 1, width_ticks)
        if bin_number >= n_bins:
            break
        counts[bin_number, 0] += np.uint32(1)


@njit(cache=True, nogil=True)
def _count_gates(
    time_ticks: NDArray[np.int64],
    width_ticks: float,
    delay_ticks: NDArray[np.int32],
    detector: NDArray[np.uint8],
    row_of_detector: NDArray[np.int64],
    gate_of_delay: NDArray[np.int16],
    counts: NDArray[np.uint32],
) -> int:
    n_bins = counts.shape[0]
    bin_number = 0
    n_outside = 0
    next_edge = _bin_edge(1, width_ticks)
    for i in range(time_ticks.size):
        while time_ticks[i] >= next_edge:
            bin_number += 1
            next_edge = _bin_edge(bin_number + 1, width_ticks)
        if bin_number >= n_bins:
            break
        gate = gate_of_delay[row_of_detector[detector[i]], delay_ticks[i]]
        if gate >= 0:
            counts[bin_number, gate] += np.uint32(1)
        else:
            n_outside += 1
    return n_outside


def choose_width_s(photons: Photons) -> float:
    """Choose the width of the time bins, when the user does not.

    The brightest tenth of the record shall have about 100 counts per bin: enough to tell levels
    apart at a glance, short enough to see them. The width is rounded to the nearest of 1, 2, 5, 10,
    20, 50 ms, and is at most a tenth of the record. The likelihood may use a finer grid.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    float
        Width in s.

    Raises
    ------
    PhotonFileError
        If there are no photons or the recording has no length.
    """
    duration_s = _check_photons(photons)
    # blocks of 50 counts on average: fewer, and the brightest tenth are the luckiest tenth
    pilot_s = min(max(50.0 * duration_s / len(photons), 0.01), duration_s)
    n_pilot = max(1, int(duration_s / pilot_s))
    blocks = np.bincount(
        np.minimum((photons.time_ticks * (photons.tick_s / pilot_s)).astype(np.int64), n_pilot),
        minlength=n_pilot + 1,
    )[:n_pilot]
    brightest = np.sort(blocks)[-max(1, n_pilot // 10) :].mean() / pilot_s
    wanted_s = 100.0 / max(float(brightest), 1e-9)
    width_s = min(_WIDTHS_S, key=lambda width: abs(np.log(width / wanted_s)))
    return float(min(width_s, duration_s / 10))


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
    duration_s = _check_photons(photons)
    width_s = choose_width_s(photons) if width_s is None else width_s
    n_bins = _check_width(width_s, duration_s, photons)
    _remember(photons)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PncbayesWarning)
        shifts = detector_shifts(photons) if align_detectors else {}
        gating = _Gating(photons, shifts, n_gates, gates, n_bins)
        counts, n_outside = gating.count(photons, float(width_s), n_bins)
        loaded = gating.response(photons, response)
        background = _background(photons, background_rate_per_s, shifts)
        pulse_occupancy(photons)
        _warn_of_losses(photons, gating, duration_s, duration_s - n_bins * width_s)
    texts = [*photons.warnings, *(str(w.message) for w in caught)]
    for warning in caught:
        warnings.warn(str(warning.message), warning.category, stacklevel=2)
    attrs: dict[str, Any] = {
        "kind": "photons",
        "width_s": float(width_s),
        "duration_s": duration_s,
        "dropped_s": float(max(0.0, duration_s - n_bins * width_s)),
        "n_photons": len(photons),
        "n_photons_outside_gates": int(n_outside),
        "period_ns": gating.clock.period_ns if gating.clock else float("nan"),
        "pulse_ns": gating.pulse_ns,
        "delay_tick_ns": gating.clock.tick_ns if gating.clock else float("nan"),
        "detectors": json.dumps(sorted(photons.detectors)),
        "detector_shift_ticks": json.dumps([shifts.get(d, 0) for d in sorted(photons.detectors)]),
        "background_rate_per_s": background.rate_per_s,
        "background_sd_per_s": background.sd_per_s,
        "background_upper_per_s": background.upper_per_s,
        "background_method": background.method,
        "response_source": loaded.source if loaded else "",
        "path": photons.path,
        "digest": photons.digest,
        "warnings": json.dumps(texts),
    }
    return _dataset(counts, gating, loaded, attrs)


class _Gating:
    """Gates of a recording: how delays become gate numbers."""

    def __init__(
        self,
        photons: Photons,
        shifts: dict[int, int],
        n_gates: int,
        gates: ArrayLike | None,
        n_bins: int,
    ) -> None:
        self.clock: DelayClock | None = delay_clock(photons)
        self.shifts = shifts
        self.pulse_ns = float("nan")
        self.edges: NDArray[np.int64] | None = None
        if self.clock is None:
            return
        self.histogram = delay_histogram(photons, shifts)
        pulse = find_pulse(self.histogram)
        if pulse is not None:
            self.pulse_ns = pulse.position * self.clock.tick_ns
        if gates is None:
            self.edges = choose_gates(self.histogram, n_gates, pulse=pulse)
        else:
            self.edges = gates_from_edges(gates, self.clock)
        if n_bins * (self.edges.size - 1) > _MOST_CELLS:
            raise ValueError(
                f"{n_bins} bins of {self.edges.size - 1} gates are more than {_MOST_CELLS} "
                "numbers; give a larger `width_s` or a smaller `n_gates`"
            )

    @property
    def edges_ns(self) -> NDArray[np.float64]:
        if self.clock is None or self.edges is None:
            return np.array([np.nan, np.nan])
        return np.asarray(np.minimum(self.edges * self.clock.tick_ns, self.clock.period_ns))

    def count(
        self, photons: Photons, width_s: float, n_bins: int
    ) -> tuple[NDArray[np.uint32], int]:
        width_ticks = width_s / photons.tick_s
        delays, detector = photons.delay_ticks, photons.detector
        if self.clock is None or self.edges is None or delays is None or detector is None:
            counts = np.zeros((n_bins, 1), np.uint32)
            _count_totals(photons.time_ticks, width_ticks, counts)
            return counts, 0
        counts = np.zeros((n_bins, self.edges.size - 1), np.uint32)
        gate_of_tick = gate_table(self.edges, self.clock.n_ticks)
        longest = int(delays.max())
        # detectors with the same shift share a row
        distinct = sorted({0, *self.shifts.values()})
        table = np.stack(
            [gate_of_tick[fold_table(self.clock, longest, shift)] for shift in distinct]
        )
        row = np.full(256, distinct.index(0), np.int64)
        for number, shift in self.shifts.items():
            row[number] = distinct.index(shift)
        n_outside = _count_gates(
            photons.time_ticks,
            width_ticks,
            delays,
            detector,
            row,
            table,
            counts,
        )
        return counts, int(n_outside)

    def response(self, photons: Photons, response: Any) -> LoadedResponse | None:
        if response is False:
            return None
        if self.clock is None:
            if response is not None:
                raise PhotonFileError(
                    f"{photons.path or 'photons'}: a response was given, but there are no delays"
                )
            return None
        return load_response(
            response,
            self.clock,
            self.histogram,
            name=photons.path or "photons",
            shift_ticks=self.shifts,
        )

    def background_fraction(self) -> NDArray[np.float64]:
        if self.clock is None or self.edges is None:
            return np.ones(1)
        first, stop = recorded_ticks(self.histogram)
        recorded = np.clip(self.edges, first, stop)
        return np.asarray(np.diff(recorded) / max(1, recorded[-1] - recorded[0]))


def _dataset(
    counts: NDArray[np.uint32],
    gating: _Gating,
    loaded: LoadedResponse | None,
    attrs: dict[str, Any],
) -> xr.Dataset:
    edges_ns = gating.edges_ns
    variables: dict[str, Any] = {
        "counts": (("time", "gate"), counts, {"units": "counts"}),
        "background_gate_fraction": ("gate", gating.background_fraction()),
    }
    if loaded is not None:
        variables["response"] = ("delay_tick", loaded.weight)
    return xr.Dataset(
        variables,
        coords={
            "time": ("time", np.arange(counts.shape[0]) * attrs["width_s"], {"units": "s"}),
            "gate_start_ns": ("gate", edges_ns[:-1], {"units": "ns"}),
            "gate_stop_ns": ("gate", edges_ns[1:], {"units": "ns"}),
        },
        attrs=attrs,
    )


def _check_photons(photons: Photons) -> float:
    if not isinstance(photons, Photons):
        raise ValueError(
            f"`photons` must be Photons, got {type(photons).__name__}; `pncbayes.read` reads a file"
        )
    name = photons.path or "photons"
    if len(photons) == 0:
        raise PhotonFileError(f"{name}: there are no photons")
    duration_s = float(photons.duration_s or 0.0)
    if duration_s <= 0:
        raise PhotonFileError(f"{name}: the recording has no length; give `duration_s`")
    return duration_s


def _check_width(width_s: float, duration_s: float, photons: Photons) -> int:
    number = isinstance(width_s, Real) and not isinstance(width_s, bool)
    if not number or not 0 < width_s < float("inf"):
        raise ValueError(
            f"`width_s` must be a positive number of seconds, got {width_s!r}; leave it out to "
            "have it chosen"
        )
    if width_s > duration_s:
        raise ValueError(
            f"`width_s` must be at most the length of the recording, {duration_s:.6g} s, "
            f"got {width_s} s"
        )
    if width_s < photons.tick_s:
        raise ValueError(
            f"`width_s` must be at least one tick of the clock, {photons.tick_s:.6g} s, "
            f"got {width_s} s"
        )
    n_bins = int(np.floor(duration_s / width_s * (1 + 1e-12) + 1e-9))
    if n_bins > _MOST_BINS:
        raise ValueError(
            f"`width_s` = {width_s} s makes {n_bins} bins in {duration_s:.6g} s, at most "
            f"{_MOST_BINS} are allowed; give {duration_s / _MOST_BINS:.2g} s or more"
        )
    return max(1, n_bins)


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


def _warn_of_losses(photons: Photons, gating: _Gating, duration_s: float, dropped_s: float) -> None:
    name = photons.path or "photons"
    if dropped_s > _MOST_DROPPED * duration_s:
        warnings.warn(
            f"{name}: the last {dropped_s:.4g} s of {duration_s:.4g} s do not fill a bin and are "
            "dropped",
            PncbayesWarning,
            stacklevel=2,
        )
    clock = gating.clock
    if clock is None or photons.delay_ticks is None:
        return
    if not clock.known_period:
        warnings.warn(
            f"{name}: the laser period is not in the file; the longest delay "
            f"({clock.period_ns:.6g} ns) is taken for it",
            PncbayesWarning,
            stacklevel=2,
        )
    folded = float(np.mean(photons.delay_ticks >= clock.n_ticks))
    if folded > _MOST_FOLDED:
        warnings.warn(
            f"{name}: {100 * folded:.2g} % of the delays are longer than the laser period "
            f"({clock.period_ns:.6g} ns) and were folded back into it",
            PncbayesWarning,
            stacklevel=2,
        )


def _remember(photons: Photons) -> None:
    _REMEMBERED[photons.digest] = photons
    if not photons.path:
        _KEPT[photons.digest] = photons
        _KEPT.move_to_end(photons.digest)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)


def photons_of(trace: xr.Dataset) -> Photons | None:
    """Find the photons that a trace was made from.

    They are still in memory, or are read again from the trace's ``path``; then they must have the
    trace's digest. Of photons that came from no file, the last four are kept.

    Parameters
    ----------
    trace
        Made by `bin_photons`.

    Returns
    -------
    Photons or None
        None for a camera trace, and when the photons cannot be had any more.
    """
    digest = trace.attrs.get("digest", "")
    found = _REMEMBERED.get(digest)
    path = str(trace.attrs.get("path", ""))
    if found is not None or trace.attrs.get("kind") != "photons" or not os.path.exists(path):
        return found
    from pncbayes.photons.formats import read

    try:
        with warnings.catch_warnings():
            # the trace carries the warnings of its file already
            warnings.simplefilter("ignore", PncbayesWarning)
            again = read(path)
    except (OSError, ValueError):
        return None
    if not isinstance(again, Photons) or again.digest != digest:
        return None
    _remember(again)
    return again


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
    duration_s = _check_photons(photons)
    n_bins = _check_width(width_s, duration_s, photons)
    detectors = json.loads(trace.attrs["detectors"])
    shifts = dict(zip(detectors, json.loads(trace.attrs["detector_shift_ticks"]), strict=True))
    edges_ns = np.append(trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()[-1])
    gating = _Gating(photons, shifts, edges_ns.size - 1, edges_ns, n_bins)
    counts, n_outside = gating.count(photons, float(width_s), n_bins)
    others = trace.drop_vars([name for name in trace.variables if "time" in trace[name].dims])
    result = others.assign(counts=(("time", "gate"), counts, {"units": "counts"}))
    result = result.assign_coords(time=("time", np.arange(n_bins) * float(width_s), {"units": "s"}))
    result.attrs = {
        **trace.attrs,
        "width_s": float(width_s),
        "dropped_s": float(max(0.0, duration_s - n_bins * width_s)),
        "n_photons_outside_gates": n_outside,
    }
    return result
