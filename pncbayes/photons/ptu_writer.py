"""Write PTU files record by record, in as many chunks as one likes."""

from __future__ import annotations

import os
import secrets
import struct
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.ptu import DURATION_TAG

__all__ = ["PtuWriter"]

_T2_CODE = 0x01010204
_T3_CODE = 0x01010304
_LARGEST_DELAY = 32767
_LARGEST_DETECTOR = 63
# Overflows that one record may stand for: readers that multiply them in 32 bits fail above.
_MOST_OVERFLOWS = 127
_COUNT_TAG = "TTResult_NumberOfRecords"


@njit(cache=True, nogil=True)
def _encode(
    times: NDArray[np.int64],
    detector: NDArray[np.uint8],
    delays: NDArray[np.int32],
    marker_ticks: NDArray[np.int64],
    marker_codes: NDArray[np.uint8],
    overflows: int,
    end_tick: int,
    time_bits: int,
) -> tuple[NDArray[np.uint32], int]:
    """Merge photons and markers into records; return them and the overflows written so far.

    `end_tick` (or -1) asks for overflow records up to that time. Delays sit above the time bits;
    T2 passes zeros.
    """
    mask = (1 << time_bits) - 1
    most_overflows = min(mask, _MOST_OVERFLOWS)
    last = end_tick
    if times.size:
        last = max(last, times[-1])
    if marker_ticks.size:
        last = max(last, marker_ticks[-1])
    pending = max((last >> time_bits) - overflows, 0)
    n_events = times.size + marker_ticks.size
    records = np.empty(2 * n_events + pending // most_overflows + 2, np.uint32)
    n = 0
    photon = 0
    marker = 0
    while photon + marker <= n_events:
        is_marker = marker < marker_ticks.size and (
            photon == times.size or marker_ticks[marker] < times[photon]
        )
        if photon + marker < n_events:
            tick = marker_ticks[marker] if is_marker else times[photon]
        else:
            tick = np.int64(end_tick)
        missing = (tick >> time_bits) - overflows
        while missing > 0:
            step = min(missing, most_overflows)
            records[n] = (np.int64(127) << 25) | step
            n += 1
            overflows += step
            missing -= step
        if photon + marker == n_events:
            break
        word = tick & mask
        if is_marker:
            word |= np.int64(64 | marker_codes[marker]) << 25
            marker += 1
        else:
            word |= (np.int64(detector[photon]) << 25) | (np.int64(delays[photon]) << time_bits)
            photon += 1
        records[n] = word
        n += 1
    return records[:n], overflows


def _tag(name: str, value: int | float | str | datetime | None) -> bytes:
    """Encode one tag: name, index (-1: none), kind, value; text follows, padded to 8 bytes."""
    text = b""
    if value is None:
        kind, content = 0xFFFF0008, bytes(8)
    elif isinstance(value, int):
        kind, content = 0x10000008, struct.pack("<q", value)
    elif isinstance(value, float):
        kind, content = 0x20000008, struct.pack("<d", value)
    elif isinstance(value, datetime):
        days = (value - datetime(1899, 12, 30)) / timedelta(days=1)
        kind, content = 0x21000008, struct.pack("<d", days)
    else:
        text = value.encode("windows-1252", "replace") + b"\0"
        text += bytes(-len(text) % 8)
        kind, content = 0x4001FFFF, struct.pack("<q", len(text))
    return struct.pack("<32siI", name.encode(), -1, kind) + content + text


class PtuWriter:
    """Write a PTU file in chunks: T3 with delays, T2 without (HydraHarp version 2 records).

    Use it as a context manager. The file appears under its name when the block ends without an
    error; until then, and after an error, nothing is there.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    tick_s
        Length of one tick in s; with delays this is the laser period.
    delay_tick_ns
        Length of one delay tick in ns; None for a T2 file.
    instrument
        Name of the instrument for the header.
    comment
        Free text for the header.
    duration_s
        Length of the recording in s, if it is longer than to the last photon.

    Raises
    ------
    PhotonFileError
        If a unit is not positive, a chunk does not fit the format or runs backwards in time, or
        the file cannot be written.

    Examples
    --------
    >>> with PtuWriter("dot.ptu", tick_s=4e-7, delay_tick_ns=0.128) as writer:  # doctest: +SKIP
    ...     for times, detector, delays in chunks:
    ...         writer.write(times, detector, delays)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        tick_s: float,
        delay_tick_ns: float | None = None,
        instrument: str = "",
        comment: str = "",
        duration_s: float | None = None,
    ) -> None:
        self.path = Path(path)
        for name, value in (("tick_s", tick_s), ("delay_tick_ns", delay_tick_ns)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise PhotonFileError(f"{path}: `{name}` must be positive, got {value}")
        self.n_photons = 0
        self.duration_s = duration_s
        self._tick_s = float(tick_s)
        self._has_delays = delay_tick_ns is not None
        self._n_records = 0
        self._overflows = 0
        self._last_tick = -1
        self._part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        header = self._header(delay_tick_ns, instrument or "pncbayes", comment)
        self._positions = {
            name: header.index(name.encode()) + 40
            for name in (_COUNT_TAG, DURATION_TAG, "TTResult_StopAfter", "MeasDesc_AcquisitionTime")
        }
        try:
            self._file: IO[bytes] | None = self._part.open("xb+")
            self._file.write(header)
        except OSError as error:
            raise self._failure(error) from error

    def _header(self, delay_tick_ns: float | None, instrument: str, comment: str) -> bytes:
        tags: dict[str, int | float | str | datetime | None] = {
            "File_CreatingTime": datetime.now(),
            "File_Comment": comment,
            "CreatorSW_Name": "pncbayes",
            "CreatorSW_Version": "1",
            "Measurement_Mode": 3 if self._has_delays else 2,
            "Measurement_SubMode": 0,
            "TTResultFormat_TTTRRecType": _T3_CODE if self._has_delays else _T2_CODE,
            "TTResultFormat_BitsPerRecord": 32,
            "HW_Type": instrument,
            "HW_InpChannels": 64,
            "MeasDesc_GlobalResolution": self._tick_s,
            "MeasDesc_Resolution": self._tick_s if delay_tick_ns is None else delay_tick_ns * 1e-9,
            "MeasDesc_BinningFactor": 1,
            "MeasDesc_AcquisitionTime": 0,
            "TTResult_StopAfter": 0,
            "TTResult_SyncRate": round(1.0 / self._tick_s) if self._has_delays else 0,
            _COUNT_TAG: 0,
            DURATION_TAG: 0.0,
        }
        encoded = b"".join(_tag(name, value) for name, value in tags.items())
        return b"PQTTTR\0\0" + b"1.0.00\0\0" + encoded + _tag("Header_End", None)

    def write(
        self,
        time_ticks: ArrayLike,
        detector: ArrayLike | None = None,
        delay_ticks: ArrayLike | None = None,
        *,
        marker_ticks: ArrayLike = (),
        marker_codes: ArrayLike = (),
    ) -> None:
        """Append photons, and markers of the same stretch of time.

        Parameters
        ----------
        time_ticks
            Arrival times since the start of the recording, shape ``(n_photons,)``.
        detector
            Detector numbers 0 to 63, shape ``(n_photons,)``; zeros if not given.
        delay_ticks
            Delays 0 to 32767, shape ``(n_photons,)``; needed if the file has delays.
        marker_ticks, marker_codes
            Markers, codes 1 to 15, shape ``(n_markers,)``.
        """
        times = self._checked("time_ticks", time_ticks, np.iinfo(np.int64).max)
        numbers = np.zeros(times.size) if detector is None else detector
        detectors = self._checked("detector", numbers, _LARGEST_DETECTOR, times.size)
        if self._has_delays != (delay_ticks is not None):
            raise PhotonFileError(
                f"{self.path}: delays are written if and only if `delay_tick_ns` was given"
            )
        numbers = np.zeros(times.size) if delay_ticks is None else delay_ticks
        delays = self._checked("delay_ticks", numbers, _LARGEST_DELAY, times.size)
        markers = self._checked("marker_ticks", marker_ticks, np.iinfo(np.int64).max)
        codes = self._checked("marker_codes", marker_codes, 15, markers.size)
        if codes.size and codes.min() < 1:
            raise PhotonFileError(f"{self.path}: marker codes must be 1 to 15, got {codes.min()}")
        for ticks in (times, markers):
            if ticks.size and (ticks[0] < self._last_tick or np.any(np.diff(ticks) < 0)):
                raise PhotonFileError(
                    f"{self.path}: time runs backwards within a chunk or against the one before; "
                    "sort the photons first"
                )
        self._append(times, detectors, delays, markers, codes, -1)
        self.n_photons += times.size

    def _checked(
        self, name: str, values: ArrayLike, largest: int, size: int | None = None
    ) -> NDArray[np.int64]:
        array = np.asarray(values)
        whole = array.astype(np.int64) if array.dtype.kind in "iuf" else np.empty(0, np.int64)
        if array.ndim != 1 or whole.size != array.size or (size is not None and array.size != size):
            raise PhotonFileError(
                f"{self.path}: `{name}` must be a list of {'' if size is None else size} numbers, "
                f"got {array.dtype} of shape {array.shape}"
            )
        if array.size and (array.min() < 0 or array.max() > largest or np.any(whole != array)):
            raise PhotonFileError(
                f"{self.path}: `{name}` must be whole numbers from 0 to {largest} in a PTU file, "
                f"got {array.min()} to {array.max()}; write .h5 or .parquet instead"
            )
        return whole

    def _append(
        self,
        times: NDArray[np.int64],
        detectors: NDArray[np.int64],
        delays: NDArray[np.int64],
        markers: NDArray[np.int64],
        codes: NDArray[np.int64],
        end_tick: int,
    ) -> None:
        if self._file is None:
            raise PhotonFileError(f"{self.path}: the writer is closed")
        records, self._overflows = _encode(
            times,
            detectors.astype(np.uint8),
            delays.astype(np.int32),
            markers,
            codes.astype(np.uint8),
            self._overflows,
            end_tick,
            10 if self._has_delays else 25,
        )
        for ticks in (times, markers):
            if ticks.size:
                self._last_tick = max(self._last_tick, int(ticks[-1]))
        try:
            self._file.write(records.astype("<u4", copy=False).tobytes())
        except OSError as error:
            raise self._failure(error) from error
        self._n_records += records.size

    def close(self) -> None:
        """Complete the header and give the file its name."""
        if self._file is None:
            return
        last_s = max(self._last_tick, 0) * self._tick_s
        duration_s = max(last_s, self.duration_s or 0.0)
        # overflow records carry the clock to the end, so that other readers know of the dark there
        nothing = np.empty(0, np.int64)
        end_tick = int(duration_s / self._tick_s)
        self._append(nothing, nothing, nothing, nothing, nothing, end_tick)
        milliseconds = round(duration_s * 1e3)
        values = {
            _COUNT_TAG: struct.pack("<q", self._n_records),
            DURATION_TAG: struct.pack("<d", duration_s),
            "TTResult_StopAfter": struct.pack("<q", milliseconds),
            "MeasDesc_AcquisitionTime": struct.pack("<q", milliseconds),
        }
        try:
            for name, value in values.items():
                self._file.seek(self._positions[name])
                self._file.write(value)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self._part.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:  # a full disk, again; the file goes anyway
                pass
        self._part.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> PhotonFileError:
        if hasattr(self, "_file"):
            self.discard()
        return PhotonFileError(
            f"{self.path}: cannot be written: {error.strerror or error}; nothing was left behind"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                self.close()
            except BaseException:
                self.discard()
                raise
        else:
            self.discard()
