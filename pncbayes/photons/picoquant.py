"""The older PicoQuant files: PT2 and PT3, HT2 and HT3, and T3R, by their fixed headers.

Detector numbers are kept as recorded, as in `pncbayes.photons.ptu`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pncbayes.errors import PhotonFileError
from pncbayes.photons.payload import Clock, Payload, assemble, read_payload, tidy
from pncbayes.photons.ptu import decode_records, make_clock, overflows_are_counted
from pncbayes.photons.records import decode_timeharp200
from pncbayes.photons.stream import Photons

__all__ = ["read_hydraharp", "read_picoharp", "read_timeharp200"]

_COMMON_START = [
    ("ident", "S16"),
    ("version", "S6"),
    ("creator", "S18"),
    ("creator_version", "S12"),
    ("file_time", "S18"),
    ("line_end", "S2"),
    ("comment", "S256"),
]
_DISPLAY = [
    ("stop_at", "<u4"),
    ("flags", "<i4", 3),
    ("axes", "<i4", 4),
    ("curves", "<i4", 16),
    ("parameters", "<f4", 9),
    ("repeat", "<i4", 4),
    ("script", "S20"),
]
_HYDRAHARP = np.dtype(
    [
        *_COMMON_START,
        ("n_curves", "<i4"),
        ("bits_per_record", "<i4"),
        ("active_curve", "<i4"),
        ("measurement_mode", "<i4"),
        ("submode", "<i4"),
        ("binning", "<i4"),
        ("resolution_ps", "<f8"),
        ("offset", "<i4"),
        ("acquisition_ms", "<i4"),
        *_DISPLAY,
        ("hardware", "S16"),
        ("part_number", "S8"),
        ("serial", "<i4"),
        ("n_modules", "<i4"),
        ("modules", "<i4", 20),
        ("base_resolution_ps", "<f8"),
        ("inputs_enabled", "<u8"),
        ("n_inputs", "<i4"),
        ("settings", "<i4", 7),
    ]
)
_HYDRAHARP_RUN = np.dtype(
    [
        ("sync_rate", "<i4"),
        ("stop_after_ms", "<i4"),
        ("stop_reason", "<i4"),
        ("image_words", "<i4"),
        ("n_records", "<u8"),
    ]
)
_PICOHARP = np.dtype(
    [
        *_COMMON_START,
        ("n_curves", "<i4"),
        ("bits_per_record", "<i4"),
        ("routing_channels", "<i4"),
        ("n_boards", "<i4"),
        ("active_curve", "<i4"),
        ("measurement_mode", "<i4"),
        ("submode", "<i4"),
        ("range", "<i4"),
        ("offset", "<i4"),
        ("acquisition_ms", "<i4"),
        *_DISPLAY,
        ("hardware", "S16"),
        ("part_number", "S8"),
        ("serial", "<i4"),
        ("sync_divider", "<i4"),
        ("discriminators", "<i4", 4),
        ("resolution_ns", "<f4"),
        ("router", "<i4", 26),
        ("reserved", "<i4", 3),
        ("sync_rate", "<i4"),
        ("input_rate", "<i4"),
        ("stop_after_ms", "<i4"),
        ("stop_reason", "<i4"),
        ("n_records", "<i4"),
        ("image_words", "<i4"),
    ]
)
_TIMEHARP200 = np.dtype(
    [
        ("ident", "S16"),
        ("version", "S6"),
        ("hardware_version", "S6"),
        ("file_time", "S18"),
        ("line_end", "S2"),
        ("comment", "S256"),
        ("n_channels", "<i4"),
        ("n_curves", "<i4"),
        ("bits_per_channel", "<i4"),
        ("routing_channels", "<i4"),
        ("n_boards", "<i4"),
        ("active_curve", "<i4"),
        ("measurement_mode", "<i4"),
        ("submode", "<i4"),
        ("range", "<i4"),
        ("offset", "<i4"),
        ("acquisition_ms", "<i4"),
        *_DISPLAY,
        ("serial", "<i4"),
        ("settings", "<i4", 4),
        ("resolution_ns", "<f4"),
        ("global_clock_ns", "<i4"),
        ("reserved", "<i4", 6),
        ("sync_rate", "<i4"),
        ("input_rate", "<i4"),
        ("stop_after_ms", "<i4"),
        ("stop_reason", "<i4"),
        ("n_records", "<i4"),
        ("image_words", "<i4"),
    ]
)


def _header(path: Path, kind: np.dtype[Any], offset: int = 0) -> Any:
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(kind.itemsize)
    if len(block) < kind.itemsize:
        raise PhotonFileError(f"{path}: the file ends inside its header; copy it again")
    return np.frombuffer(block, kind, 1)[0]


def _after_image_header(path: Path, header: Any, offset: int) -> int:
    """Position of the records: after as many image words as the header states."""
    words = int(header["image_words"])
    if not 0 <= 4 * words <= max(path.stat().st_size - offset, 0):
        raise PhotonFileError(
            f"{path}: an image header of {words} words does not fit the file; the header is damaged"
        )
    return offset + 4 * words


def _legacy_mode(path: Path, header: Any, name: str) -> bool:
    """Whether a HydraHarp or PicoHarp header announces T3; T2 is the other streaming mode."""
    mode = int(header["measurement_mode"])
    if mode not in (2, 3):
        raise PhotonFileError(
            f"{path}: measurement mode {mode} of the {name}; only T2 (2) and T3 (3) hold photons, "
            "others are histograms or damaged headers"
        )
    if int(header["bits_per_record"]) != 32:
        raise PhotonFileError(
            f"{path}: records of {int(header['bits_per_record'])} bits; only 32 are known"
        )
    return mode == 3


def _sync_period_s(path: Path, header: Any, period_ns: float | None) -> float:
    if period_ns is not None:
        if not (np.isfinite(period_ns) and period_ns > 0):
            raise PhotonFileError(f"`period_ns` must be a positive time in ns, got {period_ns}")
        return period_ns * 1e-9
    rate = int(header["sync_rate"])
    if rate <= 0:
        raise PhotonFileError(
            f"{path}: the header states a sync rate of {rate} Hz; give the laser period as "
            "`period_ns`"
        )
    return 1.0 / rate


def _planned_s(header: Any) -> float | None:
    planned_ms = int(header["stop_after_ms"]) or int(header["acquisition_ms"])
    return planned_ms * 1e-3 if planned_ms > 0 else None


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 \r\n")


def _metadata(header: Any) -> dict[str, Any]:
    return {
        "format_version": _text(header["version"]),
        "file_time": _text(header["file_time"]),
        "comment": _text(header["comment"]),
        "sync_rate_per_s": int(header["sync_rate"]) if "sync_rate" in header.dtype.names else None,
    }


def read_hydraharp(
    path: Path,
    *,
    salvage: bool = False,
    period_ns: float | None = None,
    sync_detector: int | None = None,
) -> Photons:
    """Read HT2 or HT3 (version 1 or 2) of a HydraHarp; arguments as in `read_ptu`."""
    header = _header(path, _HYDRAHARP)
    version = _text(header["version"])
    if version not in ("1.0", "2.0"):
        raise PhotonFileError(
            f"{path}: HydraHarp format version {version!r}; known are 1.0 and 2.0"
        )
    has_delays = _legacy_mode(path, header, "HydraHarp")
    n_inputs = int(header["n_inputs"])
    if not 0 <= n_inputs <= 64:
        raise PhotonFileError(f"{path}: {n_inputs} inputs in the header, which is damaged")
    offset = _HYDRAHARP.itemsize + 20 * n_inputs
    run = _header(path, _HYDRAHARP_RUN, offset)
    offset = _after_image_header(path, run, offset + _HYDRAHARP_RUN.itemsize)
    # A header without any duration was not written by the run that made the file.
    is_genuine = int(run["stop_after_ms"]) > 0 or int(header["acquisition_ms"]) > 0
    payload = read_payload(path, offset, int(run["n_records"]), trust_count=is_genuine)
    record_type = f"HydraHarp {version[0]} T{3 if has_delays else 2}"
    planned_ms = int(run["stop_after_ms"]) or int(header["acquisition_ms"])
    planned_s = planned_ms * 1e-3 if planned_ms > 0 else None
    resolution_s = float(header["resolution_ps"]) * 1e-12
    metadata = _metadata(header)
    if has_delays:
        tick_s = _sync_period_s(path, run, period_ns)
        clock = make_clock(path, tick_s, resolution_s, planned_s, metadata)
    else:
        clock = make_clock(path, tidy(resolution_s), None, planned_s, metadata)
    warnings = payload.warnings
    if version == "1.0" and overflows_are_counted(payload.records):
        warnings += (
            "the header says version 1 but the overflow records carry counts as in version 2; "
            "they were read as counts",
        )
    payload = Payload(payload.records, payload.truncation, warnings)
    return assemble(
        path,
        decode_records(payload, record_type, sync_detector),
        payload,
        clock,
        instrument=_text(header["hardware"]) or "HydraHarp",
        record_type=record_type,
        salvage=salvage,
    )


def read_picoharp(path: Path, *, salvage: bool = False, period_ns: float | None = None) -> Photons:
    """Read PT2 or PT3 of a PicoHarp 300; arguments as in `read_ptu`."""
    header = _header(path, _PICOHARP)
    if _text(header["version"]) != "2.0":
        raise PhotonFileError(
            f"{path}: PicoHarp format version {_text(header['version'])!r}; known is 2.0"
        )
    has_delays = _legacy_mode(path, header, "PicoHarp")
    offset = _after_image_header(path, header, _PICOHARP.itemsize)
    planned_s = _planned_s(header)
    payload = read_payload(
        path, offset, max(int(header["n_records"]), 0), trust_count=planned_s is not None
    )
    record_type = f"PicoHarp T{3 if has_delays else 2}"
    if has_delays:
        tick_s = _sync_period_s(path, header, period_ns)
        # 32 bits hold 0.004 only to seven digits
        delay_tick_s = float(f"{float(header['resolution_ns']):.6g}") * 1e-9
        clock = make_clock(path, tick_s, delay_tick_s, planned_s, _metadata(header))
    else:
        clock = make_clock(path, 4e-12, None, planned_s, _metadata(header))
    return assemble(
        path,
        decode_records(payload, record_type, None),
        payload,
        clock,
        instrument=_text(header["hardware"]) or "PicoHarp 300",
        record_type=record_type,
        salvage=salvage,
    )


def read_timeharp200(
    path: Path, *, salvage: bool = False, period_ns: float | None = None
) -> Photons:
    """Read T3R of a TimeHarp 200; arguments as in `read_ptu`.

    The macro clock is the board's own, not the laser's. Channels run against time and have no
    absolute zero: the delay is 4095 minus the channel.
    """
    header = _header(path, _TIMEHARP200)
    if int(header["measurement_mode"]) != 2:
        raise PhotonFileError(
            f"{path}: measurement mode {int(header['measurement_mode'])} of the TimeHarp 200; only "
            "TTTR (2) holds photons"
        )
    clock_ns = int(header["global_clock_ns"])
    if clock_ns <= 0:
        raise PhotonFileError(f"{path}: a global clock of {clock_ns} ns: the header is damaged")
    offset = _after_image_header(path, header, _TIMEHARP200.itemsize)
    planned_s = _planned_s(header)
    payload = read_payload(
        path, offset, max(int(header["n_records"]), 0), trust_count=planned_s is not None
    )
    tick_ns = float(f"{float(header['resolution_ns']):.7g}")
    if not (np.isfinite(tick_ns) and tick_ns > 0):
        raise PhotonFileError(f"{path}: a delay clock of {tick_ns} ns: the header is damaged")
    period_s = _sync_period_s(path, header, period_ns)
    clock = Clock(
        clock_ns * 1e-9, tick_ns, tidy(period_s * 1e9), planned_s, metadata=_metadata(header)
    )
    return assemble(
        path,
        decode_timeharp200(payload.records),
        payload,
        clock,
        instrument="TimeHarp 200",
        record_type="TimeHarp 200 T3R",
        salvage=salvage,
    )
