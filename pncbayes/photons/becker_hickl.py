"""Becker & Hickl FIFO recordings (.spc), whose records carry no name of their format.

Layouts as in the manufacturer's `SPC_data_file_structure.h`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.payload import Clock, Payload, assemble, read_payload, tidy
from pncbayes.photons.records import DecodedRecords, decode_becker_hickl
from pncbayes.photons.stream import Photons

__all__ = ["RECORD_FORMATS", "read_becker_hickl"]

# What `record_format` may be: SPC-130 stands for 130, 132, 140, 150, 160, 180 and 830.
RECORD_FORMATS = ("SPC-130", "SPC-600-256", "SPC-600-4096")
# Module codes in a .set file, by the record format the module writes.
_MODULES_130 = {0x20, 0x25, 0x26, 0x28, 0x2A, 0x2B, 0x2E, *range(0x80, 0x8B)}
_MODULES_600 = {0x21, 0x22}


class _Settings(NamedTuple):
    """What a .set file beside the recording says; None where it says nothing."""

    record_format: str | None = None
    delay_tick_ns: float | None = None


def read_becker_hickl(
    path: Path,
    *,
    salvage: bool = False,
    record_format: str | None = None,
    delay_tick_ns: float | None = None,
    period_ns: float | None = None,
) -> Photons:
    """Read a Becker & Hickl .spc file.

    Parameters
    ----------
    path
        The file. A .set file of the same name beside it is used when there is one.
    salvage
        Read what is there of a truncated file.
    record_format
        One of `RECORD_FORMATS`; without it and without a .set file the records are read as
        SPC-130 and refused if they make no sense so.
    delay_tick_ns
        Length of one converter channel in ns: TAC range / TAC gain / number of channels. Without
        it and without a .set file the delays are left out, with a warning.
    period_ns
        Laser period in ns, which the file does not hold.

    Raises
    ------
    PhotonFileError
        If the records make no sense in this format, or there are no photons.
    """
    settings = _read_settings(path)
    chosen = record_format or settings.record_format or "SPC-130"
    if chosen not in RECORD_FORMATS:
        raise PhotonFileError(
            f"{path}: `record_format` must be one of {', '.join(RECORD_FORMATS)}, got {chosen!r}"
        )
    if delay_tick_ns is None:
        delay_tick_ns = settings.delay_tick_ns
    first, decoded, payload = _decode(path, chosen)
    macro_tick_s = tidy((first & 0xFFFFFF) * 1e-10)
    if not first >> 31 or macro_tick_s == 0:
        raise PhotonFileError(
            f"{path}: the first record is not a Becker & Hickl header (0x{first:08x}); the file "
            "is not a FIFO recording, or damaged"
        )
    backwards = int(np.count_nonzero(np.diff(decoded.time_ticks) < 0))
    if backwards:
        others = ", ".join(name for name in RECORD_FORMATS if name != chosen)
        raise PhotonFileError(
            f"{path}: time runs backwards {backwards} times when read as {chosen}; give the right "
            f"`record_format` ({others}), or the file is damaged"
        )
    warnings = payload.warnings
    if delay_tick_ns is None:
        warnings += (
            "the delays were left out: the file does not hold their unit; give `delay_tick_ns` "
            "(TAC range / gain / number of channels), or put the .set file beside it",
        )
    payload = Payload(payload.records, payload.truncation, warnings)
    return assemble(
        path,
        decoded,
        payload,
        Clock(macro_tick_s, delay_tick_ns, period_ns),
        instrument="Becker & Hickl",
        record_type=chosen,
        salvage=salvage,
    )


def _decode(path: Path, record_format: str) -> tuple[int, DecodedRecords, Payload]:
    """First word, decoded records and payload of a file read in one format."""
    if record_format == "SPC-600-4096":
        return _decode_48_bit(path)
    payload = read_payload(path, 0, None)
    if payload.records.size < 2:
        raise PhotonFileError(f"{path}: holds no photons, only {path.stat().st_size} bytes")
    words = payload.records[1:]
    if record_format == "SPC-130":
        macro, macro_bits = words & 0xFFF, 12
        converter, largest = words >> 16 & 0xFFF, 4095
        routing = words >> 12 & 0xF
        marker = words >> 28 & 1
    else:
        macro, macro_bits = words >> 8 & 0x1FFFF, 17
        converter, largest = words & 0xFF, 255
        routing = words >> 25 & 0x7
        marker = np.zeros_like(words)
    # gap, overflow and invalid are the three highest bits in both formats
    flags = marker | words >> 29 << 1
    counts = words & 0xFFFFFFF
    decoded = decode_becker_hickl(
        macro.astype(np.uint32),
        converter.astype(np.uint16),
        routing.astype(np.uint8),
        flags.astype(np.uint8),
        counts.astype(np.uint32),
        1 << macro_bits,
        largest,
    )
    return int(payload.records[0]), decoded, payload


def _decode_48_bit(path: Path) -> tuple[int, DecodedRecords, Payload]:
    size = path.stat().st_size
    n_records, spare = divmod(size, 6)
    if n_records < 2:
        raise PhotonFileError(f"{path}: holds no photons, only {size} bytes")
    halves: NDArray[np.uint32] = (
        np.fromfile(path, dtype="<u2", count=3 * n_records).reshape(-1, 3).astype(np.uint32)
    )
    truncation = (
        f"it ends inside a record: {n_records} are whole and {spare} bytes remain" if spare else ""
    )
    first = int(halves[0, 0] | (halves[0, 1] & 0xFF) << 16) | 1 << 31
    low, middle, high = halves[1:].T
    macro = high | (middle & 0xFF) << 16
    invalid, overflow, gap = low >> 12 & 1, low >> 13 & 1, low >> 14 & 1
    flags = gap << 1 | overflow << 2 | invalid << 3
    decoded = decode_becker_hickl(
        macro,
        (low & 0xFFF).astype(np.uint16),
        (middle >> 8 & 0xFF).astype(np.uint8),
        flags.astype(np.uint8),
        np.ones_like(macro),
        1 << 24,
        4095,
    )
    return first, decoded, Payload(halves[:, 0], truncation)


def _read_settings(path: Path) -> _Settings:
    """Read the record format and the delay clock from the .set file beside a recording."""
    beside = path.with_suffix(".set")
    if not beside.is_file():
        return _Settings()
    with beside.open("rb") as file:
        content = file.read(4 * 2**20)
    if len(content) < 2:
        return _Settings()
    module = int.from_bytes(content[:2], "little") >> 4 & 0xFF
    record_format = "SPC-130" if module in _MODULES_130 else None
    if module in _MODULES_600:
        record_format = "SPC-600-4096"
    found = [
        re.search(rb"\[" + name + rb",[A-Z],([-+0-9.eE]+)\]", content)
        for name in (b"SP_TAC_R", b"SP_TAC_G")
    ]
    if found[0] is None or found[1] is None:
        return _Settings(record_format)
    try:
        range_s, gain = (float(match[1]) for match in found if match is not None)
    except ValueError:
        return _Settings(record_format)
    if not (0 < range_s < 1 and gain >= 1):
        return _Settings(record_format)
    return _Settings(record_format, tidy(range_s * 1e9 / gain / 4096))
