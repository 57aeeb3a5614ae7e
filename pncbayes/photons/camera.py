"""Camera traces: intensity per frame, with the numbers that turn counts into photons."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError, PncbayesWarning

__all__ = ["camera_trace", "camera_variance_line"]

# Mean absolute deviation of a Gaussian from its median, over its standard deviation.
_MAD_OF_SD = 0.6744897501960817
_FEWEST_FRAMES = 50


def camera_trace(
    counts: ArrayLike,
    frame_s: float,
    *,
    exposure_s: float | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    excess_factor: float | None = None,
    path: str = "",
) -> xr.Dataset:
    """Make a trace of a camera's counts.

    With ``n`` expected photo-electrons in a frame, the counts have the mean ``offset + gain * n``
    and the variance ``excess_factor * gain**2 * n + read_noise**2``.

    Parameters
    ----------
    counts
        Counts of each frame, shape ``(n_frames,)``.
    frame_s
        Time from frame to frame, in s.
    exposure_s
        Time in which a frame collects light, in s; the frame time if not given.
    gain
        Counts per photo-electron, with electron multiplication.
    offset
        Counts of a frame without light.
    read_noise
        Standard deviation of a frame without light, in counts.
    excess_factor
        Excess noise factor F squared: 1 without, 2 with electron multiplication.
    path
        Where the counts came from.

    Returns
    -------
    xarray.Dataset
        ``counts(time, gate)`` as float64 with one gate; ``attrs["kind"]`` is ``"camera"``.

    Raises
    ------
    PhotonFileError
        If the counts are not one row of finite numbers, or a number is out of its range.

    Warns
    -----
    PncbayesWarning
        For every number that is not given. `excess_factor` is taken as 1 and `read_noise` as 0.
        `gain` and `offset` come from the line of variance against mean (`camera_variance_line`):
        `gain` is its slope over `excess_factor`, `offset` where it reaches ``read_noise**2``, but
        not above the 1 % quantile of the counts. Background light is then part of the signal.
    """
    values = _check_counts(counts, frame_s, path)
    exposure = frame_s if exposure_s is None else float(exposure_s)
    if not 0 < exposure <= frame_s:
        raise PhotonFileError(
            f"`exposure_s` must be above 0 and at most {frame_s} s, got {exposure}"
        )
    for name, number, lowest in (
        ("gain", gain, 1e-300),
        ("read_noise", read_noise, 0.0),
        ("excess_factor", excess_factor, 1.0),
    ):
        if number is not None and not (np.isfinite(number) and number >= lowest):
            raise PhotonFileError(f"`{name}` must be at least {lowest:g}, got {number}")
    if offset is not None and not np.isfinite(offset):
        raise PhotonFileError(f"`offset` must be finite, got {offset}")
    notes = []
    if excess_factor is None:
        excess_factor = 1.0
        notes.append("excess_factor taken as 1 (an EMCCD has 2)")
    if read_noise is None:
        read_noise = 0.0
        notes.append("read_noise taken as 0")
    if gain is None or offset is None:
        slope, at_zero = camera_variance_line(values)
        if gain is None:
            gain = slope / excess_factor
            notes.append(f"gain {gain:.4g} from the variance of successive frames")
        if offset is None:
            crossing = (read_noise**2 - at_zero) / slope
            offset = float(min(crossing, np.quantile(values, 0.01)))
            notes.append(f"offset {offset:.4g} from where that variance vanishes")
    found = [f"camera numbers not given: {'; '.join(notes)}"] if notes else []
    for text in found:
        warnings.warn(f"{path or 'camera trace'}: {text}", PncbayesWarning, stacklevel=2)
    attrs: dict[str, Any] = {
        "kind": "camera",
        "width_s": float(frame_s),
        "duration_s": float(frame_s * values.size),
        "exposure_s": exposure,
        "gain": float(gain),
        "offset": float(offset),
        "read_noise": float(read_noise),
        "excess_factor": float(excess_factor),
        "period_ns": float("nan"),
        "pulse_ns": float("nan"),
        "delay_tick_ns": float("nan"),
        "background_rate_per_s": float("nan"),
        "background_sd_per_s": float("nan"),
        "path": path,
        "digest": hashlib.blake2b(
            values.tobytes() + repr(frame_s).encode(), digest_size=16
        ).hexdigest(),
        "warnings": json.dumps(found),
    }
    return xr.Dataset(
        {"counts": (("time", "gate"), values[:, None], {"units": "counts"})},
        coords={
            "time": ("time", np.arange(values.size) * float(frame_s), {"units": "s"}),
            "gate_start_ns": ("gate", [np.nan], {"units": "ns"}),
            "gate_stop_ns": ("gate", [np.nan], {"units": "ns"}),
        },
        attrs=attrs,
    )


def _check_counts(counts: ArrayLike, frame_s: float, path: str) -> NDArray[np.float64]:
    name = path or "camera trace"
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise PhotonFileError(
            f"{name}: `counts` must be one row with one number per frame, got shape {values.shape}"
        )
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise PhotonFileError(
            f"{name}: {bad} of {values.size} frames are NaN or infinite; cut them out"
        )
    if not (np.isfinite(frame_s) and frame_s > 0):
        raise PhotonFileError(f"{name}: `frame_s` must be a positive time in s, got {frame_s}")
    return values


def camera_variance_line(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Line of variance against mean, from successive frames.

    Half the squared difference of two successive frames is the variance of one, unless the emitter
    switched between them. Pairs of frames are sorted by their mean into groups of equal size; in
    each the variance comes from the median absolute difference, which switches do not move; and a
    line is laid through the groups by least squares relative to the variance.

    Parameters
    ----------
    counts
        Counts of each frame, shape ``(n_frames,)``.

    Returns
    -------
    slope, at_zero : float
        Variance per count, and variance at a mean of zero.

    Raises
    ------
    PhotonFileError
        If there are fewer than 50 frames, or the variance does not rise with the mean.
    """
    if counts.size < _FEWEST_FRAMES:
        raise PhotonFileError(
            f"the gain of a camera cannot be told from {counts.size} frames (at least "
            f"{_FEWEST_FRAMES}): give `gain` and `offset`"
        )
    difference = np.abs(np.diff(counts))
    middle = 0.5 * (counts[1:] + counts[:-1])
    groups = np.array_split(np.argsort(middle, kind="stable"), max(2, min(20, counts.size // 25)))
    mean = np.array([np.median(middle[g]) for g in groups])
    variance = np.array([(np.median(difference[g]) / _MAD_OF_SD) ** 2 / 2.0 for g in groups])
    weight = 1.0 / np.maximum(variance, 1e-12 + 1e-3 * variance.max()) ** 2
    weight /= weight.sum()
    center = weight @ mean
    spread = weight @ (mean - center) ** 2
    slope = weight @ ((mean - center) * variance) / spread if spread > 0 else 0.0
    at_zero = weight @ variance - slope * center
    if not slope > 0:
        raise PhotonFileError(
            "the variance of the frames does not rise with their mean, so the gain of the camera "
            "cannot be told: give `gain` and `offset`"
        )
    return float(slope), float(at_zero)
