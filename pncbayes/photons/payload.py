"""What readers of record files share: the whole records by file size, and the way to `Photons`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.records import DecodedRecords
from pncbayes.photons.stream import Photons

__all__ = ["Clock", "Payload", "assemble", "brief", "late_delays", "read_payload", "tidy"]


@dataclass(frozen=True)
class Payload:
    """The whole records of a file.

    Parameters
    ----------
    records
        Raw records, shape ``(n_records,)``.
    truncation
        What is missing, in words; empty when nothing is.
    warnings
        Disagreements between header and file that are not a truncation.
    """

    records: NDArray[np.uint32]
    truncation: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clock:
    """Units of a stream: lengths of the ticks, laser period, and the duration that was asked for.

    `planned_s` is a header's word; it is believed only when the records bear it out, unless
    `trust_plan` says that it was written after the last record.
    """

    tick_s: float
    delay_tick_ns: float | None = None
    period_ns: float | None = None
    planned_s: float | None = None
    trust_plan: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


def tidy(value: float) -> float:
    """Round to 12 significant digits, which undoes the noise of converting between s and ns."""
    return float(f"{value:.12g}")


def brief(error: Exception) -> str:
    """Return what another library says of a file, on one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def read_payload(
    path: Path, offset: int, promised: int | None, *, trust_count: bool = True
) -> Payload:
    """Read the 4-byte records after `offset`.

    The file's size decides how many there are, never the header: that is how a stale or absurd
    header costs neither memory nor photons.

    Parameters
    ----------
    path, offset
        The file and where its records begin, in bytes.
    promised
        Number of records that the header states; None or 0 when it does not.
    trust_count
        Whether fewer records than `promised` mean that the file was cut short. False for headers
        which were copied from elsewhere.
    """
    size = path.stat().st_size
    n_records, spare = divmod(max(size - offset, 0), 4)
    with path.open("rb") as file:
        file.seek(offset)
        records = np.fromfile(file, dtype="<u4", count=n_records)
    warnings: list[str] = []
    truncation = ""
    if promised is not None and promised > n_records:
        if trust_count:
            truncation = f"its header promises {promised} records but {n_records} are whole"
        else:
            warnings.append(
                f"the header states {promised} records, no duration, and disagrees with the file's "
                f"size; the {n_records} records in the file were read"
            )
    elif promised and promised < n_records:
        warnings.append(
            f"the header states {promised} records but the file holds {n_records}; all were read"
        )
    if spare and not truncation:
        if promised == n_records:
            warnings.append(f"{spare} bytes after the last record were ignored")
        else:
            truncation = f"it ends inside a record: {n_records} are whole and {spare} bytes remain"
    return Payload(records, truncation, tuple(warnings))


def assemble(
    path: Path,
    decoded: DecodedRecords,
    payload: Payload,
    clock: Clock,
    *,
    instrument: str,
    record_type: str,
    salvage: bool,
) -> Photons:
    """Make `Photons` of decoded records, or say what is wrong with them.

    Raises
    ------
    PhotonFileError
        If there are no photons, the file is truncated and `salvage` is false, most records are not
        of this type, or the stream is inconsistent.
    """
    n_photons, n_records = decoded.time_ticks.size, payload.records.size
    if n_photons == 0:
        raise PhotonFileError(
            f"{path}: holds no photons ({n_records} records: {decoded.marker_ticks.size} markers, "
            f"{decoded.n_sync} sync events, the rest overflows or not defined"
            f"{'; ' + payload.truncation if payload.truncation else ''}); "
            "record again or choose another file"
        )
    if payload.truncation and not salvage:
        raise PhotonFileError(
            f"{path}: the file is truncated: {payload.truncation}; copy it again, or read the "
            f"{n_records} whole records with `salvage=True`"
        )
    if decoded.n_illegal > n_photons:
        raise PhotonFileError(
            f"{path}: {decoded.n_illegal} of {n_records} records are not defined for "
            f"{record_type}; the file is damaged or of another record type"
        )
    warnings = list(payload.warnings)
    if payload.truncation:
        warnings.append(f"the file is truncated: {payload.truncation}; the rest is lost")
    if decoded.n_illegal:
        warnings.append(
            f"{decoded.n_illegal} records, invalid or not defined for {record_type}, were left out"
        )
    if decoded.n_gaps:
        warnings.append(f"the instrument reports {decoded.n_gaps} gaps: photons were lost there")
    delays = decoded.delay_ticks if clock.delay_tick_ns is not None else None
    if delays is not None and clock.period_ns is not None and clock.delay_tick_ns is not None:
        warnings += late_delays(delays, clock.delay_tick_ns, clock.period_ns)
    last_s = max(decoded.last_tick, int(decoded.time_ticks[-1])) * clock.tick_s
    duration_s = last_s
    planned_s = clock.planned_s
    # A recording runs on for at most a few records after the last one; a plan of another length
    # was not carried out, or belongs to another file.
    if planned_s is not None and not payload.truncation and last_s <= planned_s:
        if clock.trust_plan or planned_s <= 1.01 * last_s:
            duration_s = planned_s
    return Photons(
        decoded.time_ticks,
        clock.tick_s,
        detector=decoded.detector,
        delay_ticks=delays,
        delay_tick_ns=clock.delay_tick_ns,
        period_ns=clock.period_ns,
        duration_s=duration_s,
        marker_ticks=decoded.marker_ticks,
        marker_codes=decoded.marker_codes,
        path=str(path),
        instrument=instrument,
        record_type=record_type,
        warnings=tuple(warnings),
        metadata={**clock.metadata, "n_records": n_records, "n_sync": decoded.n_sync},
    )


def late_delays(delay_ticks: NDArray[np.int32], tick_ns: float, period_ns: float) -> list[str]:
    """Say how many delays lie beyond the laser period; they are kept as recorded."""
    late = int(np.count_nonzero(delay_ticks >= np.ceil(period_ns / tick_ns)))
    if not late:
        return []
    return [
        f"{late} of {delay_ticks.size} delays lie beyond the laser period of {period_ns:.6g} ns; "
        "they are kept as recorded"
    ]
