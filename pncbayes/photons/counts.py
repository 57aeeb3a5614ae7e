"""Traces that came to us as counts: photons per bin, or a camera's counts per frame."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError

__all__ = ["CAMERA_OPTIONS", "binned_trace", "frames_trace", "read_camera_traces"]

# What is known of a camera beside its frame time; passed on to `camera_trace`.
CAMERA_OPTIONS = ("exposure_s", "gain", "offset", "read_noise", "excess_factor")
_HEADER_BYTES = 6


def binned_trace(path: Path, counts: NDArray[Any], width_s: float) -> xr.Dataset:
    """Make a Trace of photon counts per bin, shape ``(n_bins,)``, without delays.

    Raises
    ------
    PhotonFileError
        If the width is not positive or a count is negative, fractional or not a number.
    """
    if not (np.isfinite(width_s) and width_s > 0):
        raise PhotonFileError(f"`width_s` must be a positive time in s, got {width_s}")
    values = _finite(path, counts)
    if values.size == 0 or not values.any():
        raise PhotonFileError(f"{path}: holds no photons ({values.size} bins)")
    whole = np.rint(values)
    if values.min() < 0 or values.max() > np.iinfo(np.uint32).max or np.any(whole != values):
        raise PhotonFileError(
            f"{path}: photon counts must be whole numbers from 0, got {values.min():.6g} to "
            f"{values.max():.6g}; read the trace of a camera with `frame_s` instead of `width_s`"
        )
    whole = whole.astype(np.uint32)
    gate = np.array([np.nan])
    return xr.Dataset(
        {"counts": (("time", "gate"), whole[:, None])},
        coords={
            "time": ("time", np.arange(whole.size) * width_s, {"units": "s"}),
            "gate_start_ns": ("gate", gate),
            "gate_stop_ns": ("gate", gate.copy()),
        },
        attrs={
            "kind": "photons",
            "width_s": float(width_s),
            "duration_s": float(width_s) * whole.size,
            "period_ns": np.nan,
            "pulse_ns": np.nan,
            "path": str(path),
            "digest": _digest(whole, width_s),
            "background_rate_per_s": np.nan,
            "background_sd_per_s": np.nan,
            "delay_tick_ns": np.nan,
        },
    )


def frames_trace(
    path: Path, counts: NDArray[Any], frame_s: float, camera: dict[str, Any]
) -> xr.Dataset:
    """Make a Trace of a camera's counts per frame, shape ``(n_frames,)``."""
    from pncbayes.photons.binning import camera_trace

    if not (np.isfinite(frame_s) and frame_s > 0):
        raise PhotonFileError(f"`frame_s` must be a positive time in s, got {frame_s}")
    values = _finite(path, counts)
    if values.size == 0:
        raise PhotonFileError(f"{path}: holds no frames")
    trace: xr.Dataset = camera_trace(values, frame_s, path=str(path), **camera)
    return trace


def read_camera_traces(
    path: Path,
    *,
    salvage: bool = False,
    frame_s: float | None = None,
    trace: int | None = None,
    **camera: float | None,
) -> xr.Dataset:
    """Read one trace of a binary .traces file.

    The file holds the number of frames (int32), the number of traces (int16), and the counts
    (int16) frame by frame; two-colour files alternate the colours.

    Parameters
    ----------
    path
        The file.
    salvage
        Accepted for all formats; the size of an intact file follows from its header.
    frame_s
        Time between frames, in s.
    trace
        Which trace, from 0.
    **camera
        What is known of the camera: see `CAMERA_OPTIONS`.

    Raises
    ------
    PhotonFileError
        If the size does not fit the header, or an option is missing.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    n_frames = int.from_bytes(header[:4], "little", signed=True)
    n_traces = int.from_bytes(header[4:6], "little", signed=True)
    size = path.stat().st_size
    if len(header) < _HEADER_BYTES or n_frames <= 0 or n_traces <= 0:
        raise PhotonFileError(f"{path}: the header of a .traces file is missing or damaged")
    if size != _HEADER_BYTES + 2 * n_frames * n_traces:
        raise PhotonFileError(
            f"{path}: {n_traces} traces of {n_frames} frames need "
            f"{_HEADER_BYTES + 2 * n_frames * n_traces} bytes but the file has {size}; it is "
            "truncated or not a .traces file; copy it again"
        )
    if frame_s is None or trace is None:
        raise PhotonFileError(
            f"{path}: holds {n_traces} camera traces of {n_frames} frames; give the frame time as "
            f"`frame_s` and choose one with `trace`, 0 to {n_traces - 1}"
        )
    if not 0 <= trace < n_traces:
        raise PhotonFileError(f"{path}: `trace` must be 0 to {n_traces - 1}, got {trace}")
    counts = np.fromfile(path, dtype="<i2", offset=_HEADER_BYTES).reshape(n_frames, n_traces)
    return frames_trace(path, counts[:, trace].astype(np.float64), frame_s, camera)


def _finite(path: Path, counts: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(counts)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise PhotonFileError(f"{path}: counts must be a list of numbers, are {values.dtype}")
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise PhotonFileError(
            f"{path}: {bad.size} counts are not a number, the first in row {int(bad[0]) + 1}; "
            "remove or repair these rows"
        )
    return values


def _digest(values: NDArray[Any], width_s: float) -> str:
    state = hashlib.blake2b(repr(float(width_s)).encode(), digest_size=16)
    state.update(np.ascontiguousarray(values).view(np.uint8).data)
    return state.hexdigest()
