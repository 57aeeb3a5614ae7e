"""Decode time-tag records: one pass of compiled code over the raw integers of each family.

Overflow records only carry the clock on; markers are kept apart; neither is ever a photon.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "DecodedRecords",
    "decode_becker_hickl",
    "decode_hydraharp",
    "decode_picoharp",
    "decode_timeharp200",
]


class DecodedRecords(NamedTuple):
    """What a sequence of records holds, in ticks.

    Parameters
    ----------
    time_ticks, detector, delay_ticks
        One entry per photon, shape ``(n_photons,)``; delays are zero where the records have none.
    marker_ticks, marker_codes
        One entry per marker, shape ``(n_markers,)``.
    last_tick
        Time of the last record of any kind, overflows included.
    n_sync, n_illegal, n_gaps
        Sync events (T2), records that the format does not define, and reported losses.
    """

    time_ticks: NDArray[np.int64]
    detector: NDArray[np.uint8]
    delay_ticks: NDArray[np.int32]
    marker_ticks: NDArray[np.int64]
    marker_codes: NDArray[np.uint8]
    last_tick: int
    n_sync: int
    n_illegal: int
    n_gaps: int


@njit(cache=True, nogil=True)
def decode_hydraharp(
    records: NDArray[np.uint32],
    has_delays: bool,
    wraparound: int,
    counted_overflows: bool,
    sync_detector: int,
) -> DecodedRecords:
    """Decode T2 or T3 records of HydraHarp, MultiHarp, TimeHarp 260 and PicoHarp 330.

    Parameters
    ----------
    records
        Raw records, shape ``(n_records,)``.
    has_delays
        Whether these are T3 records (10 bits of sync count, 15 bits of delay) or T2 (25 bits).
    wraparound
        Ticks per overflow.
    counted_overflows
        Whether an overflow record says how many overflows it stands for (all but version 1).
    sync_detector
        Detector number to give to the sync events of T2, or -1 to leave them out.
    """
    # The arrays are as long as the file, but the system gives memory only to what is written.
    times = np.empty(records.size, np.int64)
    detector = np.empty(records.size, np.uint8)
    delays = np.empty(records.size, np.int32)
    marker_ticks = np.empty(records.size, np.int64)
    marker_codes = np.empty(records.size, np.uint8)
    n_photons = n_markers = n_sync = n_illegal = 0
    base = np.int64(0)
    last = np.int64(0)
    mask = np.int64(1023 if has_delays else 0x1FFFFFF)
    for record in records:
        word = np.int64(record)
        channel = (word >> 25) & 63
        tick = word & mask
        special = word >> 31
        if special == 1 and channel == 63:
            base += wraparound * (tick if counted_overflows and tick > 0 else 1)
            last = max(last, base)
            continue
        last = max(last, base + tick)
        if special == 1 and channel == 0 and not has_delays:
            n_sync += 1
            if sync_detector < 0:
                continue
            channel = np.int64(sync_detector)
        elif special == 1:
            if 1 <= channel <= 15:
                marker_ticks[n_markers] = base + tick
                marker_codes[n_markers] = channel
                n_markers += 1
            else:
                n_illegal += 1
            continue
        times[n_photons] = base + tick
        detector[n_photons] = channel
        delays[n_photons] = (word >> 10) & 0x7FFF if has_delays else 0
        n_photons += 1
    return DecodedRecords(
        times[:n_photons],
        detector[:n_photons],
        delays[:n_photons],
        marker_ticks[:n_markers],
        marker_codes[:n_markers],
        int(last),
        n_sync,
        n_illegal,
        0,
    )


@njit(cache=True, nogil=True)
def decode_picoharp(records: NDArray[np.uint32], has_delays: bool) -> DecodedRecords:
    """Decode T2 or T3 records of the PicoHarp 300, shape ``(n_records,)``."""
    times = np.empty(records.size, np.int64)
    detector = np.empty(records.size, np.uint8)
    delays = np.empty(records.size, np.int32)
    marker_ticks = np.empty(records.size, np.int64)
    marker_codes = np.empty(records.size, np.uint8)
    n_photons = n_markers = n_illegal = 0
    base = np.int64(0)
    last = np.int64(0)
    wraparound = np.int64(65536 if has_delays else 210698240)
    mask = np.int64(0xFFFF if has_delays else 0x0FFFFFFF)
    for record in records:
        word = np.int64(record)
        channel = word >> 28
        tick = word & mask
        delay = (word >> 16) & 0xFFF if has_delays else np.int64(0)
        if channel == 15:
            code = delay & 15 if has_delays else tick & 15
            if (delay if has_delays else code) == 0:
                base += wraparound
                last = max(last, base)
                continue
            last = max(last, base + tick)
            marker_ticks[n_markers] = base + tick
            marker_codes[n_markers] = code
            n_markers += 1
            continue
        last = max(last, base + tick)
        if channel > 4:
            n_illegal += 1
            continue
        times[n_photons] = base + tick
        detector[n_photons] = channel
        delays[n_photons] = delay
        n_photons += 1
    return DecodedRecords(
        times[:n_photons],
        detector[:n_photons],
        delays[:n_photons],
        marker_ticks[:n_markers],
        marker_codes[:n_markers],
        int(last),
        0,
        n_illegal,
        0,
    )


@njit(cache=True, nogil=True)
def decode_timeharp200(records: NDArray[np.uint32]) -> DecodedRecords:
    """Decode the T3R records of the TimeHarp 200, shape ``(n_records,)``.

    The photon starts this clock and the next laser pulse stops it, so that channels run against
    time: the delay is 4095 minus the channel, up to a constant (the whole period is in view).
    """
    times = np.empty(records.size, np.int64)
    detector = np.empty(records.size, np.uint8)
    delays = np.empty(records.size, np.int32)
    marker_ticks = np.empty(records.size, np.int64)
    marker_codes = np.empty(records.size, np.uint8)
    n_photons = n_markers = n_illegal = 0
    base = np.int64(0)
    last = np.int64(0)
    for record in records:
        word = np.int64(record)
        tick = word & 0xFFFF
        data = (word >> 16) & 0xFFF
        if (word >> 30) & 1:
            times[n_photons] = base + tick
            detector[n_photons] = (word >> 28) & 3
            delays[n_photons] = 4095 - data
            n_photons += 1
        elif data & 0x800:
            base += 65536
            last = max(last, base)
            continue
        elif data & 7:
            marker_ticks[n_markers] = base + tick
            marker_codes[n_markers] = data & 7
            n_markers += 1
        else:
            n_illegal += 1
        last = max(last, base + tick)
    return DecodedRecords(
        times[:n_photons],
        detector[:n_photons],
        delays[:n_photons],
        marker_ticks[:n_markers],
        marker_codes[:n_markers],
        int(last),
        0,
        n_illegal,
        0,
    )


@njit(cache=True, nogil=True)
def decode_becker_hickl(
    macro: NDArray[np.uint32],
    converter: NDArray[np.uint16],
    routing: NDArray[np.uint8],
    flags: NDArray[np.uint8],
    overflow_counts: NDArray[np.uint32],
    wraparound: int,
    largest_converter: int,
) -> DecodedRecords:
    """Decode Becker & Hickl FIFO records whose bit fields have been taken apart.

    Parameters
    ----------
    macro, converter, routing
        Macro time, converter (ADC) value and routing bits, each of shape ``(n_records,)``.
    flags
        Bit 0 marker, bit 1 gap, bit 2 macro-time overflow, bit 3 invalid; shape ``(n_records,)``.
    overflow_counts
        Overflows that an invalid overflow record stands for, shape ``(n_records,)``.
    wraparound
        Macro ticks per overflow.
    largest_converter
        The converter runs against time: the delay is this minus its value.
    """
    times = np.empty(macro.size, np.int64)
    detector = np.empty(macro.size, np.uint8)
    delays = np.empty(macro.size, np.int32)
    marker_ticks = np.empty(macro.size, np.int64)
    marker_codes = np.empty(macro.size, np.uint8)
    n_photons = n_markers = n_illegal = n_gaps = 0
    base = np.int64(0)
    last = np.int64(0)
    for i in range(macro.size):
        is_marker = flags[i] & 1
        n_gaps += (flags[i] >> 1) & 1
        has_overflow = (flags[i] >> 2) & 1
        is_invalid = (flags[i] >> 3) & 1
        if has_overflow and is_invalid and not is_marker:
            base += wraparound * np.int64(overflow_counts[i])
            last = max(last, base)
            continue
        if has_overflow:
            base += wraparound
        tick = base + np.int64(macro[i])
        last = max(last, tick)
        if is_marker:
            marker_ticks[n_markers] = tick
            marker_codes[n_markers] = routing[i]
            n_markers += 1
        elif is_invalid:
            n_illegal += 1
        else:
            times[n_photons] = tick
            detector[n_photons] = routing[i]
            delays[n_photons] = largest_converter - np.int64(converter[i])
            n_photons += 1
    return DecodedRecords(
        times[:n_photons],
        detector[:n_photons],
        delays[:n_photons],
        marker_ticks[:n_markers],
        marker_codes[:n_markers],
        int(last),
        0,
        n_illegal,
        n_gaps,
    )
