"""Photon-HDF5 files, version 0.4 and 0.5.

Reference
---------
A. Ingargiola et al., Biophys. J. 110, 26 (2016), doi:10.1016/j.bpj.2015.11.013
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.payload import brief, late_delays, tidy
from pncbayes.photons.stream import Photons

__all__ = ["import_h5py", "read_photon_hdf5"]

# Deflate cannot do better than this; a smaller store belongs to a header that lies about shapes.
_LARGEST_COMPRESSION = 1100


def import_h5py(path: Path) -> Any:
    """Return the module h5py, or say which package is missing for `path`."""
    try:
        import h5py
    except ImportError as error:
        raise PhotonFileError(
            f"{path}: HDF5 files need the package h5py, which is not installed; install it with "
            "`pip install h5py`"
        ) from error
    return h5py


def read_photon_hdf5(
    path: Path, *, salvage: bool = False, spot: int | None = None, period_ns: float | None = None
) -> Photons:
    """Read a Photon-HDF5 file.

    Parameters
    ----------
    path
        The file.
    salvage
        Accepted for all formats; a truncated HDF5 file cannot be read in part.
    spot
        Number of the excitation spot, for files of several.
    period_ns
        Laser period in ns, if the file does not state `laser_repetition_rate`.

    Raises
    ------
    PhotonFileError
        If this is not Photon-HDF5, is damaged, or lacks photons or units.
    """
    h5py = import_h5py(path)
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, spot, period_ns)
    except PhotonFileError:
        raise
    except Exception as error:  # damaged files make the HDF5 library raise almost anything
        raise PhotonFileError(
            f"{path}: the HDF5 file is truncated or damaged and cannot be read in part: "
            f"{brief(error)}"
        ) from error


def _read(path: Path, file: Any, spot: int | None, period_ns: float | None) -> Photons:
    groups = sorted(name for name in file if name.startswith("photon_data"))
    if not groups:
        raise PhotonFileError(
            f"{path}: is an HDF5 file without `photon_data`, so it is not Photon-HDF5; convert it"
        )
    name = "photon_data" if spot is None else f"photon_data{spot}"
    if spot is None and len(groups) == 1:
        name = groups[0]
    if name not in groups:
        raise PhotonFileError(f"{path}: choose one of {', '.join(groups)} with `spot`")
    group = file[name]
    times = _array(path, group, "timestamps")
    if times is None or times.size == 0:
        raise PhotonFileError(f"{path}: holds no photons (`{name}/timestamps` is missing or empty)")
    tick_s = _scalar(group, "timestamps_specs/timestamps_unit")
    if tick_s is None:
        raise PhotonFileError(f"{path}: `{name}/timestamps_specs/timestamps_unit` is missing")
    times = _whole(path, times, "timestamps", np.iinfo(np.int64).max)
    detector = _array(path, group, "detectors")
    delays = _array(path, group, "nanotimes")
    delay_tick_ns = None
    warnings: list[str] = []
    if delays is not None:
        delay_tick_s = _scalar(group, "nanotimes_specs/tcspc_unit")
        if delay_tick_s is None:
            raise PhotonFileError(f"{path}: `{name}/nanotimes_specs/tcspc_unit` is missing")
        delay_tick_ns = tidy(delay_tick_s * 1e9)
        delays = _whole(path, delays, "nanotimes", np.iinfo(np.int32).max)
    rate = _scalar(group, "measurement_specs/laser_repetition_rate")
    rate = rate or _scalar(file, "setup/laser_repetition_rates")
    if period_ns is None and rate is not None and rate > 0:
        period_ns = tidy(1e9 / rate)
    if delays is not None and period_ns is not None and delay_tick_ns is not None:
        warnings += late_delays(delays.astype(np.int32), delay_tick_ns, period_ns)
    duration_s = _scalar(file, "acquisition_duration")
    last_s = float(times[-1]) * tick_s
    if duration_s is not None and duration_s < last_s:
        if duration_s < 0.999 * last_s:
            warnings.append(
                f"the file states a duration of {duration_s} s but its last photon arrives at "
                f"{last_s:.6g} s, which was taken"
            )
        duration_s = None
    for name, array in (("nanotimes", delays), ("detectors", detector)):
        if array is not None and array.size != times.size:
            raise PhotonFileError(
                f"{path}: {times.size} timestamps but {array.size} `{name}`; the file is damaged"
            )
    is_photon, markers = _markers(path, file, group, times, detector)
    if not is_photon.any():
        raise PhotonFileError(f"{path}: holds no photons, only markers")
    return Photons(
        times[is_photon],
        tick_s,
        detector=None if detector is None else detector[is_photon],
        delay_ticks=None if delays is None else delays[is_photon],
        delay_tick_ns=delay_tick_ns,
        period_ns=period_ns,
        duration_s=duration_s,
        **markers,
        path=str(path),
        instrument=_text(file, "user/pncbayes/instrument") or _text(file, "provenance/software"),
        record_type="Photon-HDF5",
        warnings=tuple(warnings),
        metadata={"description": _text(file, "description")},
    )


def _markers(
    path: Path, file: Any, group: Any, times: NDArray[Any], detector: NDArray[Any] | None
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Which timestamps are photons, and the markers as arguments of `Photons`.

    The format lists detector numbers that stand for events other than photons; our own files keep
    markers apart.
    """
    is_photon = np.ones(times.size, np.bool_)
    specs = group.get("measurement_specs/detectors_specs")
    names = [] if specs is None else [n for n in specs if n.startswith("non_photon_id")]
    numbers = [array for n in names if (array := _array(path, specs, n)) is not None]
    if numbers and detector is not None:
        is_photon = ~np.isin(detector, np.concatenate(numbers))
        marks = ~is_photon
        return is_photon, {"marker_ticks": times[marks], "marker_codes": detector[marks]}
    own = file.get("user/pncbayes")
    ticks = None if own is None else _array(path, own, "marker_ticks")
    codes = None if own is None else _array(path, own, "marker_codes")
    if ticks is None or codes is None:
        return is_photon, {}
    return is_photon, {"marker_ticks": ticks.astype(np.int64), "marker_codes": codes.astype("u1")}


def _array(path: Path, group: Any, name: str) -> NDArray[Any] | None:
    """Read an array of one dimension, or None; refuse a shape which the file cannot hold."""
    dataset = group.get(name)
    if dataset is None:
        return None
    stored = dataset.id.get_storage_size()
    claimed = int(np.prod(dataset.shape, dtype=float)) * dataset.dtype.itemsize
    if dataset.ndim != 1 or dataset.dtype.kind not in "iuf":
        raise PhotonFileError(
            f"{path}: `{dataset.name}` must be a list of numbers, is {dataset.dtype} of shape "
            f"{dataset.shape}"
        )
    if claimed > _LARGEST_COMPRESSION * min(stored, path.stat().st_size):
        raise PhotonFileError(
            f"{path}: `{dataset.name}` claims {claimed} bytes, of which {stored} are stored; the "
            "file is truncated or damaged"
        )
    values: NDArray[Any] = dataset[()]
    return values


def _whole(path: Path, values: NDArray[Any], name: str, largest: int) -> NDArray[Any]:
    """Return ticks as integers; refuse fractions, NaN and numbers out of range."""
    if values.size and not (
        np.all(np.isfinite(values)) and values.min() >= 0 and values.max() <= largest
    ):
        raise PhotonFileError(
            f"{path}: `{name}` must be whole numbers from 0 to {largest}; the file is damaged"
        )
    whole = values.astype(np.int64)
    if values.dtype.kind == "f" and np.any(whole != values):
        raise PhotonFileError(f"{path}: `{name}` holds fractions of its unit; convert the file")
    return whole


def _scalar(group: Any, name: str) -> float | None:
    """Read one finite number, or None; of several, the first."""
    dataset = group.get(name)
    if dataset is None or dataset.dtype.kind not in "iuf" or not 1 <= dataset.size <= 1024:
        return None
    value = float(np.ravel(dataset[()])[0])
    return value if np.isfinite(value) else None


def _text(group: Any, name: str) -> str:
    dataset = group.get(name)
    if dataset is None or dataset.shape not in ((), (1,)) or dataset.dtype.kind not in "SO":
        return ""
    value = np.ravel(np.asarray(dataset[()]))[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
