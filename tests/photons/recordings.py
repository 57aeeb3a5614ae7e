"""Small recordings of every format, encoded record by record in plain Python."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ptufile.ptufile import encode_tag

from pncbayes.photons import picoquant


class Stream(NamedTuple):
    """Photons and markers in ticks, in order of time."""

    times: list[int]
    detectors: list[int]
    delays: list[int]
    marker_times: list[int]
    marker_codes: list[int]


def stream(wraparound: int, n_photons: int = 40, seed: int = 3, n_detectors: int = 2) -> Stream:
    """Photons on detectors 1 and 2 over some tens of overflows, with two dark stretches."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, wraparound, n_photons)
    steps[10] += 3 * wraparound
    steps[20] += 200 * wraparound
    times = np.cumsum(steps)
    markers = [int(times[5]) + 1, int(times[25]) + 1]
    return Stream(
        times.tolist(),
        rng.integers(1, 1 + n_detectors, n_photons).tolist(),
        rng.integers(0, 250, n_photons).tolist(),
        markers,
        [1, 2],
    )


def events(photons: Stream) -> list[tuple[int, int, int, int]]:
    """(time, is marker, detector or code, delay), in order of time."""
    rows = [
        (t, 0, d, y)
        for t, d, y in zip(photons.times, photons.detectors, photons.delays, strict=True)
    ]
    rows += [(t, 1, c, 0) for t, c in zip(photons.marker_times, photons.marker_codes, strict=True)]
    return sorted(rows)


def hydraharp_records(photons: Stream, wraparound: int, has_delays: bool, counted: bool) -> bytes:
    """HydraHarp records; overflows not counted come one by one with zero bits, as in version 1."""
    words: list[int] = []
    done = 0
    for time, is_marker, number, delay in events(photons):
        missing = time // wraparound - done
        done += missing
        words += [127 << 25 | missing] * bool(missing) if counted else [127 << 25] * missing
        channel = 64 | number if is_marker else number
        tick = time - done * wraparound
        words.append(channel << 25 | (delay << 10 if has_delays else 0) | tick)
    return np.array(words, "<u4").tobytes()


def picoharp_records(photons: Stream, has_delays: bool) -> bytes:
    wraparound = 65536 if has_delays else 210698240
    words: list[int] = []
    done = 0
    for time, is_marker, number, delay in events(photons):
        missing = time // wraparound - done
        done += missing
        words += [15 << 28] * missing
        tick = time - done * wraparound
        if is_marker:
            # in T2 the four lowest bits of the time are the marker
            word = number << 16 | tick if has_delays else (tick & ~15) | number
            words.append(15 << 28 | word)
        else:
            words.append(number << 28 | (delay << 16 if has_delays else 0) | tick)
    return np.array(words, "<u4").tobytes()


def timeharp_records(photons: Stream) -> bytes:
    words: list[int] = []
    done = 0
    for time, is_marker, number, delay in events(photons):
        missing = time // 65536 - done
        done += missing
        words += [0x800 << 16] * missing
        tick = time - done * 65536
        words.append(
            number << 16 | tick
            if is_marker
            else number << 28 | 1 << 30 | (4095 - delay) << 16 | tick
        )
    return np.array(words, "<u4").tobytes()


def ptu(code: int, records: bytes, *, promised: int | None = None, **tags: object) -> bytes:
    """Make a PTU file around records; `tags` replace or add."""
    all_tags: dict[str, object] = {
        "File_Comment": "synthetic",
        "HW_Type": "test bench",
        "TTResultFormat_TTTRRecType": code,
        "TTResultFormat_BitsPerRecord": 32,
        "MeasDesc_GlobalResolution": 4e-7 if code & 0xF00 == 0x300 else 1e-12,
        "MeasDesc_Resolution": 1.28e-10,
        "TTResult_NumberOfRecords": len(records) // 4 if promised is None else promised,
        **tags,
    }
    header = b"".join(encode_tag(name, value) for name, value in all_tags.items())
    return b"PQTTTR\0\0" + b"1.0.00\0\0" + header + encode_tag("Header_End", None) + records


def hydraharp(
    version: int, has_delays: bool, records: bytes, *, promised: int | None = None, **fields: object
) -> bytes:
    """Make an HT2 or HT3 file; `fields` go to the header."""
    header = np.zeros(1, picoquant._HYDRAHARP)
    header["ident"], header["version"] = b"HydraHarp", f"{version}.0".encode()
    header["bits_per_record"], header["measurement_mode"] = 32, 3 if has_delays else 2
    header["resolution_ps"], header["acquisition_ms"] = 128.0 if has_delays else 1.0, 1000
    header["hardware"], header["n_inputs"] = b"HydraHarp 400", 2
    run = np.zeros(1, picoquant._HYDRAHARP_RUN)
    run["sync_rate"], run["n_records"] = 2_500_000, len(records) // 4
    if promised is not None:
        run["n_records"] = promised
    for name, value in fields.items():
        (header if name in header.dtype.names else run)[name] = value
    return header.tobytes() + bytes(20 * int(header["n_inputs"][0])) + run.tobytes() + records


def picoharp(has_delays: bool, records: bytes, **fields: object) -> bytes:
    """Make a PT2 or PT3 file."""
    header = np.zeros(1, picoquant._PICOHARP)
    header["ident"], header["version"] = b"PicoHarp 300", b"2.0"
    header["bits_per_record"], header["measurement_mode"] = 32, 3 if has_delays else 2
    header["resolution_ns"], header["sync_rate"], header["acquisition_ms"] = 0.004, 2_500_000, 1000
    header["n_records"] = len(records) // 4
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + records


def timeharp(records: bytes, **fields: object) -> bytes:
    """Make a T3R file."""
    header = np.zeros(1, picoquant._TIMEHARP200)
    header["ident"], header["version"], header["measurement_mode"] = b"TimeHarp 200", b"5.0", 2
    header["resolution_ns"], header["global_clock_ns"], header["sync_rate"] = 0.07, 100, 5_000_000
    header["acquisition_ms"], header["n_records"] = 1000, len(records) // 4
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + records


def becker_hickl(record_format: str, photons: Stream, macro_tenth_ns: int = 135) -> bytes:
    """Make an SPC file; the last event carries its overflow in its own record."""
    if record_format == "SPC-600-4096":
        return _becker_hickl_48_bit(photons, macro_tenth_ns)
    bits, largest = (12, 4095) if record_format == "SPC-130" else (17, 255)
    words = [1 << 31 | macro_tenth_ns]
    done = 0
    for time, is_marker, number, delay in events(photons):
        if is_marker and record_format != "SPC-130":
            continue
        missing = (time >> bits) - done
        done += missing
        own = 0
        if missing:
            own, missing = 1 << 30, missing - 1
        if missing:
            words.append(0b11 << 30 | missing)
        tick = time & ((1 << bits) - 1)
        if is_marker:
            words.append(own | 0b1001 << 28 | number << 12 | tick)
        elif record_format == "SPC-130":
            words.append(own | (largest - delay) << 16 | number << 12 | tick)
        else:
            words.append(own | number << 25 | tick << 8 | (largest - delay))
    words.append(1 << 31)  # an invalid photon
    return np.array(words, "<u4").tobytes()


def _becker_hickl_48_bit(photons: Stream, macro_tenth_ns: int) -> bytes:
    content = struct.pack("<HHH", macro_tenth_ns, 0, 0)
    done = 0
    for time, number, delay in zip(photons.times, photons.detectors, photons.delays, strict=True):
        missing = (time >> 24) - done
        done += missing
        for _ in range(missing):
            content += struct.pack("<HHH", 0b11 << 12, 0, 0)
        low = 4095 - delay
        middle = (time >> 16 & 0xFF) | number << 8
        content += struct.pack("<HHH", low, middle, time & 0xFFFF)
    return content


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path
