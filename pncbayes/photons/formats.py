"""`read`: any photon or trace file, told apart by its content and not by its name."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import xarray as xr

from pncbayes.errors import PhotonFileError
from pncbayes.photons.becker_hickl import read_becker_hickl
from pncbayes.photons.counts import CAMERA_OPTIONS, read_camera_traces
from pncbayes.photons.photon_hdf5 import read_photon_hdf5
from pncbayes.photons.picoquant import read_hydraharp, read_picoharp, read_timeharp200
from pncbayes.photons.ptu import read_ptu
from pncbayes.photons.stream import Photons
from pncbayes.photons.text import is_text, read_text
from pncbayes.photons.time_tags import read_npz, read_parquet

__all__ = ["FORMATS", "read"]


@dataclass(frozen=True)
class FileFormat:
    """A format: what it is called, its first bytes, its usual file names and its reader."""

    name: str
    magic: bytes
    suffixes: tuple[str, ...]
    reader: Callable[..., Photons | xr.Dataset]


# Formats without first bytes of their own are told apart in `_detect`.
_BECKER_HICKL = FileFormat("Becker & Hickl SPC", b"", (".spc",), read_becker_hickl)
_CAMERA = FileFormat("binary camera traces", b"", (".traces",), read_camera_traces)
_TEXT = FileFormat("text table", b"", (".csv", ".tsv", ".txt", ".dat"), read_text)
FORMATS = (
    FileFormat("PicoQuant PTU", b"PQTTTR\0\0", (".ptu",), read_ptu),
    FileFormat("HydraHarp HT2 or HT3", b"HydraHarp\0", (".ht2", ".ht3"), read_hydraharp),
    FileFormat("PicoHarp PT2 or PT3", b"PicoHarp 300", (".pt2", ".pt3"), read_picoharp),
    FileFormat("TimeHarp T3R", b"TimeHarp 200", (".t3r",), read_timeharp200),
    FileFormat("HDF5", b"\x89HDF\r\n\x1a\n", (".h5", ".hdf5"), read_photon_hdf5),
    FileFormat("Parquet", b"PAR1", (".parquet",), read_parquet),
    FileFormat("NPZ", b"PK\x03\x04", (".npz",), read_npz),
    _BECKER_HICKL,
    _CAMERA,
    _TEXT,
)
# Files that are known, and known to hold no photon stream.
_FOREIGN = {
    b"PQHISTO": "a PicoQuant histogram (PHU)",
    b"PQ": "a PicoQuant file, but not a PTU recording",
    b"\x93NUMPY": "a single NumPy array; save named arrays with `numpy.savez`",
    b"PK": "an empty or unusual ZIP archive",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"CDF": "a netCDF 3 file",
}


_NUMBERS = {
    "delay_tick_ns", "duration_s", "excess_factor", "exposure_s", "frame_s", "gain", "offset",
    "period_ns", "read_noise", "tick_s", "width_s",
}  # fmt: skip


def read(
    path: str | os.PathLike[str], *, salvage: bool = False, **options: Any
) -> Photons | xr.Dataset:
    """Read a photon stream or a trace.

    Parameters
    ----------
    path
        A recording: PTU, HT2, HT3, PT2, PT3, T3R, Becker & Hickl .spc, Photon-HDF5; a table of
        time tags in Parquet, NPZ or text; a trace of counts in text; or binary camera traces. What
        the file holds decides, not its name.
    salvage
        Read the whole records of a truncated file; a warning in the result says what is lost.
    **options
        What the file does not hold. For tables of time tags: `columns`, `tick_s`, `delay_tick_ns`,
        `period_ns`, `duration_s`. For traces in text: `width_s` (photon counts per bin) or
        `frame_s` (camera), `column`; for cameras also `exposure_s`, `gain`, `offset`,
        `read_noise`, `excess_factor`, and `trace` for binary files. For .spc: `record_format`,
        `delay_tick_ns`, `period_ns`. For PicoQuant T3 without a sync rate: `period_ns`; for T2
        `sync_detector`. For Photon-HDF5 of several spots: `spot`.

    Returns
    -------
    Photons or xr.Dataset
        `Photons`, or a Trace when the file holds counts; its `warnings` say what to know.

    Raises
    ------
    PhotonFileError
        If the file is missing, empty, foreign, damaged or truncated, holds no photons, or lacks a
        unit that no option gives.

    Examples
    --------
    >>> import pncbayes as pnc
    >>> photons = pnc.read("dot_017.ptu")  # doctest: +SKIP
    >>> trace = pnc.read("trace.csv", width_s=0.01)  # doctest: +SKIP
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise PhotonFileError(f"{path}: is a folder; give the path of a file")
        size = path.stat().st_size
        if size == 0:
            raise PhotonFileError(f"{path}: the file is empty; copy or record it again")
        with path.open("rb") as file:
            head = file.read(4096)
        found = _detect(path, head, size)
        _check_options(path, found, options)
        result = found.reader(path, salvage=salvage, **options)
    except FileNotFoundError as error:
        raise PhotonFileError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhotonFileError(f"{path}: cannot be read: {reason}; check the file") from error
    except MemoryError as error:
        raise PhotonFileError(f"{path}: is too large for the memory of this machine") from error
    return _name_warning(path, found, result)


def _detect(path: Path, head: bytes, size: int) -> FileFormat:
    for known in FORMATS:
        if known.magic and head.startswith(known.magic):
            return known
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise PhotonFileError(f"{path}: is {what}, and holds no photon stream")
    if is_text(head):
        return _TEXT
    if path.suffix.lower() in _CAMERA.suffixes or _is_camera_header(head, size):
        return _CAMERA
    if path.suffix.lower() in _BECKER_HICKL.suffixes:
        return _BECKER_HICKL
    names = ", ".join(known.name for known in FORMATS)
    raise PhotonFileError(
        f"{path}: is none of the known formats ({names}); the file is damaged or has to be "
        "converted"
    )


def _is_camera_header(head: bytes, size: int) -> bool:
    """Whether a binary file is exactly as long as the header of a .traces file would have it."""
    n_frames = int.from_bytes(head[:4], "little", signed=True)
    n_traces = int.from_bytes(head[4:6], "little", signed=True)
    return n_frames > 0 and n_traces > 0 and size == 6 + 2 * n_frames * n_traces


def _check_options(path: Path, found: FileFormat, options: dict[str, Any]) -> None:
    """Refuse options that mean nothing for this format, so that no unit is silently ignored."""
    parameters = inspect.signature(found.reader).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "salvage"]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        allowed += CAMERA_OPTIONS
    unknown = [name for name in options if name not in allowed]
    if unknown:
        raise PhotonFileError(
            f"{path}: `{unknown[0]}` is no option for {found.name}; there are "
            f"{', '.join(allowed) or 'none'}"
        )
    for name, value in options.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if name in _NUMBERS and value is not None and not number:
            raise PhotonFileError(f"{path}: `{name}` must be a number, got {value!r}")


def _name_warning(
    path: Path, found: FileFormat, result: Photons | xr.Dataset
) -> Photons | xr.Dataset:
    """Say so when a file's name belongs to another format than its content."""
    suffix = path.suffix.lower()
    named = next((known for known in FORMATS if suffix in known.suffixes), None)
    if named is None or named is found:
        return result
    text = f"named {suffix} like {named.name} but holds {found.name}; read by its content"
    if isinstance(result, Photons):
        return replace(result, warnings=(*result.warnings, text))
    earlier = json.loads(result.attrs.get("warnings", "[]"))
    result.attrs["warnings"] = json.dumps([*earlier, text])
    return result
