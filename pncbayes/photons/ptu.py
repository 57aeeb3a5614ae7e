"""PTU recordings, and what all PicoQuant formats share.

Detector numbers are kept as recorded: 0 is the first input of a HydraHarp and its successors, 1 the
first of a PicoHarp 300 in T3 mode.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.payload import Clock, Payload, assemble, brief, read_payload, tidy
from pncbayes.photons.records import DecodedRecords, decode_hydraharp, decode_picoharp
from pncbayes.photons.stream import Photons

__all__ = [
    "DURATION_TAG",
    "RECORD_TYPES",
    "decode_records",
    "make_clock",
    "overflows_are_counted",
    "read_ptu",
]

# Name of a record type, by the code in a PTU file, and whether its records carry delays.
RECORD_TYPES: dict[int, tuple[str, bool]] = {
    0x00010303: ("PicoHarp T3", True),
    0x00010203: ("PicoHarp T2", False),
    0x00010304: ("HydraHarp 1 T3", True),
    0x00010204: ("HydraHarp 1 T2", False),
    0x01010304: ("HydraHarp 2 T3", True),
    0x01010204: ("HydraHarp 2 T2", False),
    0x00010305: ("TimeHarp 260N T3", True),
    0x00010205: ("TimeHarp 260N T2", False),
    0x00010306: ("TimeHarp 260P T3", True),
    0x00010206: ("TimeHarp 260P T2", False),
    0x00010307: ("MultiHarp T3", True),
    0x00010207: ("MultiHarp T2", False),
}
# Tag in which our own writer keeps a duration that milliseconds cannot hold.
DURATION_TAG = "UsrPncbayesDuration"

_SIZED_TAGS = {0x4001FFFF, 0x4002FFFF, 0x2001FFFF, 0xFFFFFFFF}
_PLAIN_TAGS = {
    0xFFFF0008,
    0x00000008,
    0x10000008,
    0x11000008,
    0x12000008,
    0x20000008,
    0x21000008,
}
_LARGEST_HEADER = 16 * 2**20


def read_ptu(
    path: Path,
    *,
    salvage: bool = False,
    period_ns: float | None = None,
    sync_detector: int | None = None,
) -> Photons:
    """Read a PTU file, T2 or T3, of any PicoQuant instrument.

    Parameters
    ----------
    path
        The file.
    salvage
        Read what is there of a truncated file.
    period_ns
        Laser period in ns, for T3 files whose header has no sync rate.
    sync_detector
        Detector number for the sync events of T2 files (0 to 255), if a detector was plugged into
        the sync input; they are left out otherwise.

    Raises
    ------
    PhotonFileError
        If the file is damaged, truncated, holds no photons, or is of an unknown record type.
    """
    tags, offset = _ptu_tags(path)
    code = _tag(path, tags, "TTResultFormat_TTTRRecType", int)
    if code not in RECORD_TYPES:
        known = ", ".join(name for name, _ in RECORD_TYPES.values())
        raise PhotonFileError(
            f"{path}: record type 0x{code & 0xFFFFFFFF:08x} is not known; known are {known}"
        )
    record_type, has_delays = RECORD_TYPES[code]
    bits = tags.get("TTResultFormat_BitsPerRecord", 32)
    if bits not in (0, 32):
        raise PhotonFileError(f"{path}: records of {bits} bits; only 32 are known")
    promised = _number(tags.get("TTResult_NumberOfRecords"))
    payload = read_payload(path, offset, None if promised is None else int(promised))
    tick_s = _number(tags.get("MeasDesc_GlobalResolution")) or 0.0
    if has_delays and period_ns is not None:
        tick_s = period_ns * 1e-9
    if tick_s <= 0:
        raise PhotonFileError(
            f"{path}: `MeasDesc_GlobalResolution` is {tick_s} s, so the clock is not known"
            f"{'; give the laser period as `period_ns`' if has_delays else ''}"
        )
    planned_s = _number(tags.get(DURATION_TAG))
    is_own = planned_s is not None
    if planned_s is None:
        planned_ms = _number(tags.get("TTResult_StopAfter"))
        planned_ms = planned_ms or _number(tags.get("MeasDesc_AcquisitionTime"))
        planned_s = None if planned_ms is None else planned_ms * 1e-3
    facts = ("HW_Type", "HW_SerialNo", "CreatorSW_Name", "File_Comment", "File_CreatingTime")
    metadata = {name: str(tags[name]) for name in facts if tags.get(name) is not None}
    delay_tick_s = _tag(path, tags, "MeasDesc_Resolution", float) if has_delays else None
    clock = make_clock(path, tick_s, delay_tick_s, planned_s, metadata)
    clock = replace(clock, trust_plan=is_own)
    decoded = decode_records(payload, record_type, sync_detector)
    return assemble(
        path,
        decoded,
        payload,
        clock,
        instrument=_first_text(tags.get("HW_Type")) or record_type.rsplit(" ", 1)[0],
        record_type=record_type,
        salvage=salvage,
    )


def make_clock(
    path: Path,
    tick_s: float,
    delay_tick_s: float | None,
    planned_s: float | None,
    metadata: dict[str, Any],
) -> Clock:
    """Make the units of a stream; with delays one tick is one laser period."""
    if delay_tick_s is None:
        return Clock(tick_s, planned_s=planned_s, metadata=metadata)
    if not (np.isfinite(delay_tick_s) and delay_tick_s > 0):
        raise PhotonFileError(
            f"{path}: the delay clock in the header is {delay_tick_s} s; it must be positive, so "
            "the header is damaged"
        )
    return Clock(tick_s, tidy(delay_tick_s * 1e9), tidy(tick_s * 1e9), planned_s, metadata=metadata)


def decode_records(payload: Payload, record_type: str, sync_detector: int | None) -> DecodedRecords:
    """Decode records of one of `RECORD_TYPES`; `sync_detector` as in `read_ptu`."""
    records = payload.records
    has_delays = record_type.endswith("T3")
    if record_type.startswith("PicoHarp"):
        return decode_picoharp(records, has_delays)
    counted = not record_type.startswith("HydraHarp 1") or overflows_are_counted(records)
    wraparound = 1024 if has_delays else 33554432
    if record_type == "HydraHarp 1 T2":
        wraparound = 33552000
    number = -1 if sync_detector is None else sync_detector
    if not -1 <= number <= 255:
        raise PhotonFileError(f"`sync_detector` must be 0 to 255, got {sync_detector}")
    return decode_hydraharp(records, has_delays, wraparound, counted, number)


def overflows_are_counted(records: NDArray[np.uint32]) -> bool:
    """Tell whether overflow records state a number, although the header says version 1.

    Version 1 leaves these bits zero. Some files of newer instruments carry the old version number;
    taking each of their overflows for one makes the recording many times too short.
    """
    overflows = records[(records >> np.uint32(25)) == 127]
    return bool(np.any(overflows & np.uint32(0x3FF)))


def _ptu_tags(path: Path) -> tuple[dict[str, Any], int]:
    """Tags of a PTU file and the position of its records.

    The chain of tags is walked first: with a damaged length in it, a reader would run in circles
    or ask for memory without end.
    """
    import ptufile

    with path.open("rb") as file:
        header = file.read(_LARGEST_HEADER)
    offset = 16
    while True:
        if offset + 48 > len(header):
            raise PhotonFileError(
                f"{path}: the PTU header has no end; the file is truncated or damaged"
            )
        name, _, kind = struct.unpack_from("<32siI", header, offset)
        (length,) = struct.unpack_from("<q", header, offset + 40)
        offset += 48
        if name.rstrip(b"\0") == b"Header_End":
            break
        if kind in _SIZED_TAGS:
            if not 0 <= length <= len(header) - offset:
                raise PhotonFileError(
                    f"{path}: PTU tag {name.rstrip(b'\0')!r} claims {length} bytes, more than the "
                    "file has; the header is damaged"
                )
            offset += length
        elif kind not in _PLAIN_TAGS:
            raise PhotonFileError(
                f"{path}: PTU tag {name.rstrip(b'\0')!r} is of unknown kind 0x{kind:08x}; the "
                "header is damaged"
            )
    try:
        with ptufile.PtuFile(io.BytesIO(header[:offset])) as file_tags:
            return dict(file_tags.tags), offset
    except ValueError as error:
        raise PhotonFileError(f"{path}: the PTU header is damaged: {brief(error)}") from error


def _number(value: object) -> float | None:
    """Return a tag as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def _tag(path: Path, tags: dict[str, Any], name: str, kind: type) -> Any:
    value = _number(tags.get(name))
    if value is None:
        raise PhotonFileError(
            f"{path}: the PTU header has no usable `{name}` (found {tags.get(name)!r}); the "
            "header is damaged or of another kind of measurement"
        )
    return kind(value)


def _first_text(value: object) -> str:
    while isinstance(value, list):
        value = next((item for item in value if item), "")
    return value if isinstance(value, str) else ""
