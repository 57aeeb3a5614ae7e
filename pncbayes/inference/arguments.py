"""Checks of what users pass to `pncbayes.fit` and `pncbayes.build`, before any work is done."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import xarray as xr

from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.exciton import Exciton

__all__ = [
    "check_exciton",
    "check_flags",
    "check_has_decays",
    "check_is_whole_recording",
    "check_whole_number",
    "check_width",
    "random_generator",
    "read_data",
]

_CAMERA_NUMBERS = ("gain", "offset", "read_noise", "excess_factor")
_MAKE_ONE = "make one with `bin_photons` or `camera_trace`"


def check_flags(**flags: Any) -> None:
    """Raise ValueError for every argument, given by name, that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"`{name}` must be True or False, got {value!r}")


def check_exciton(exciton: Any, *, mechanisms: bool) -> None:
    """Raise ValueError unless `exciton` is an `Exciton` that is of use, or None."""
    if exciton is None:
        return
    if not isinstance(exciton, Exciton):
        raise ValueError(
            f"`exciton` must be a `pncbayes.Exciton` or None, got {exciton!r}; for example "
            "Exciton(rate_per_s=(2.0e4, 1e3), lifetime_ns=(5.0, 0.3))"
        )
    if not mechanisms:
        raise ValueError("`exciton` is of use for mechanisms alone: leave it out, or they too")


def check_whole_number(name: str, value: Any, lowest: int, highest: int) -> int:
    """Return a whole number, or raise ValueError if it is none or out of range."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not lowest <= value <= highest:
        raise ValueError(
            f"`{name}` must be a whole number from {lowest} to {highest}, got {value!r}"
        )
    return int(value)


def check_exposure(exposure: Any) -> None:
    """Refuse what is neither yes, no nor an exposure."""
    if not isinstance(exposure, bool | Exposure):
        raise ValueError(
            "`exposure` must be True, False or an Exposure "
            f"(`pncbayes.photons.exposure.schedule_exposure`), got {exposure!r}"
        )


def check_width(width_s: Any) -> None:
    """Raise ValueError unless a bin width is a positive number of seconds, or None."""
    if width_s is None:
        return
    number = isinstance(width_s, Real) and not isinstance(width_s, bool)
    if not number or not 0 < width_s < math.inf:
        raise ValueError(
            f"`width_s` must be a positive number of seconds, got {width_s!r}; leave it out to "
            "have it chosen"
        )


def random_generator(random_seed: Any) -> np.random.Generator:
    """Generator of a seed; ValueError unless it is a whole number from 0, a Generator or None."""
    if isinstance(random_seed, np.random.Generator):
        return random_seed
    whole = isinstance(random_seed, Integral) and not isinstance(random_seed, bool)
    if random_seed is not None and (not whole or random_seed < 0):
        raise ValueError(
            "`random_seed` must be a whole number, 0 or more, a numpy Generator or None, got "
            f"{random_seed!r}"
        )
    return np.random.default_rng(None if random_seed is None else int(random_seed))


def read_data(data: Any, response: Any) -> Photons | xr.Dataset:
    """Photons or a checked trace, read from a file if need be.

    Parameters
    ----------
    data
        Photons, a trace, or the path of a file.
    response
        Instrument response; a trace has its own.

    Raises
    ------
    ValueError
        If `data` is none of these, is a trace that lacks something, or has a response already.
    """
    if isinstance(data, str | os.PathLike):
        data = read(data)
    if isinstance(data, xr.Dataset):
        if response is not None:
            raise ValueError(
                "`response` was given beside a trace, which has its own; give it to `bin_photons`"
            )
        _check_trace(data)
        return data
    if not isinstance(data, Photons):
        raise ValueError(
            f"`data` must be Photons, a trace or the path of a file, got {type(data).__name__}"
        )
    _check_response(response)
    return data


def check_is_whole_recording(trace: xr.Dataset, photons: Photons | None) -> None:
    """Raise ValueError if a trace was cut after binning: the likelihood bins all photons anew."""
    if photons is None:
        return
    width_s, n_bins = float(trace.attrs["width_s"]), trace.sizes["time"]
    whole = float(photons.duration_s or 0.0) / width_s
    if abs(n_bins - whole) > 1.0 + 1e-9 * whole:
        raise ValueError(
            f"`data` is a trace of {n_bins} bins of {width_s:g} s, but its recording of "
            f"{photons.duration_s:g} s fills {int(whole)}: it was cut after binning. Cut the "
            "photons and bin those, or set the attributes `digest` and `path` of the trace to "
            "empty text to have it fitted as it is"
        )


def check_has_decays(trace: xr.Dataset) -> None:
    """Raise ValueError if a trace has no delays, or no response to read them with."""
    if trace.sizes["gate"] < 2 or not np.isfinite(trace.attrs.get("period_ns", np.nan)):
        raise ValueError(
            "`data` has no delays, and brightness alone cannot tell mechanisms apart; give "
            "photons with delays after the pulse"
        )
    if "response" not in trace:
        raise ValueError(
            "`data` has no instrument response, without which decays cannot be tied to physics; "
            "give `response`, or leave it to be taken from the rise of the decay"
        )


def _check_response(response: Any) -> None:
    """Raise ValueError for what can be no response; what it must fit is known later."""
    if response is None or isinstance(response, bool | Real | str | os.PathLike | Photons):
        return
    try:
        numeric = np.asarray(response, dtype=np.float64).ndim == 1
    except (TypeError, ValueError):
        numeric = False
    if not numeric:
        raise ValueError(
            "`response` must be a file, photons, counts per tick of the delay clock, a standard "
            f"deviation in ns, or False for none, got {response!r}"
        )


def _check_trace(trace: xr.Dataset) -> None:
    """Raise ValueError if a Dataset is no trace, or one that somebody broke."""
    needed = ("kind", "width_s", "duration_s")
    missing = [f"attribute `{name}`" for name in needed if name not in trace.attrs]
    if "counts" not in trace:
        missing.insert(0, "variable `counts`")
    if missing:
        raise ValueError(
            f"`data` is a Dataset but not a trace, it lacks the {', '.join(missing)}; {_MAKE_ONE}"
        )
    kind, counts = trace.attrs["kind"], trace["counts"]
    if kind not in ("photons", "camera"):
        raise ValueError(
            f"`data` has the `kind` {kind!r}, allowed are photons, camera; {_MAKE_ONE}"
        )
    if counts.dims != ("time", "gate") or 0 in counts.shape or counts.dtype.kind not in "iuf":
        raise ValueError(
            "`data` must have `counts` with the dimensions (time, gate), numbers in one bin or "
            f"more, got {dict(counts.sizes)} of {counts.dtype}; {_MAKE_ONE}"
        )
    for name in ("width_s", "duration_s"):
        value = trace.attrs[name]
        if not isinstance(value, float | int | np.number) or not 0 < value < math.inf:
            raise ValueError(
                f"`data` must have a positive number of seconds as `{name}`, got {value!r}; "
                f"{_MAKE_ONE}"
            )
    values = counts.values
    bad = int(np.sum(~np.isfinite(values)))
    if kind == "photons":
        bad += int(np.sum(values < 0))
    if bad:
        raise ValueError(
            f"`data` has {bad} bins of `counts` that are negative or not finite; repair the trace"
        )
    if kind == "photons" and trace.sizes["gate"] > 1 and not values.any():
        raise ValueError(
            "`data` has no photon in any bin and gate, so that nothing can be said of decays; "
            "check the detector and the file, or the photons that were selected"
        )
    lacking = [name for name in _CAMERA_NUMBERS if name not in trace.attrs]
    if kind == "camera" and lacking:
        raise ValueError(
            f"`data` is a camera trace without {', '.join(lacking)}; make one with `camera_trace`"
        )
