"""Photons from named columns: Parquet, NPZ, and the text files of `pncbayes.photons.text`.

A unit is never guessed: it is in the name of a column, in an option, or in the file's own metadata.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.payload import brief, late_delays
from pncbayes.photons.stream import Photons

__all__ = [
    "PARQUET_KEY",
    "TIME_UNITS_S",
    "TagUnits",
    "photons_from_columns",
    "read_npz",
    "read_parquet",
]

# Key of the schema metadata in which our own Parquet files keep their units, as JSON.
PARQUET_KEY = b"pncbayes"
Columns = Mapping[str, str] | Sequence[str] | None

TIME_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12}
_TIME_NAMES = ("time_ticks", *(f"time_{unit}" for unit in TIME_UNITS_S))
_DELAY_NAMES = ("delay_ticks", *(f"delay_{unit}" for unit in TIME_UNITS_S))
_KNOWN_NAMES = (*_TIME_NAMES, *_DELAY_NAMES, "detector")
# Fractional times are kept to the picosecond, finer than any instrument records.
_FRACTION_TICK_S = 1e-12
_LARGEST_COMPRESSION = 1100


@dataclass(frozen=True)
class TagUnits:
    """Units that a table of time tags does not hold itself; None where not given."""

    tick_s: float | None = None
    delay_tick_ns: float | None = None
    period_ns: float | None = None
    duration_s: float | None = None


def photons_from_columns(
    path: Path,
    table: Mapping[str, NDArray[Any]],
    units: TagUnits,
    columns: Columns,
    *,
    record_type: str,
    extra: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Photons:
    """Make `Photons` of a table of time tags.

    Parameters
    ----------
    path
        Where the table came from.
    table
        Columns of equal length by name.
    units
        Units given by the caller.
    columns
        New names for the columns, in their order or as {name in the file: name}. Understood are
        ``time_ticks`` with `tick_s`, ``time_s``, ``time_ns`` and so on, ``delay_ticks`` with
        `delay_tick_ns`, ``delay_ns`` and so on, and ``detector``.
    record_type
        What to call the format.
    extra
        Further arguments of `Photons`.
    warnings
        What the reader of the table has to say.

    Raises
    ------
    PhotonFileError
        If there is no time column, a unit is missing, or a value is not a number.
    """
    named = _rename(path, table, columns)
    if named and not any(np.size(values) for values in named.values()):
        raise PhotonFileError(f"{path}: holds no photons (the table has no rows)")
    time_name = _one_of(path, named, _TIME_NAMES, "time")
    if time_name is None:
        raise PhotonFileError(
            f"{path}: no column of times among {', '.join(map(repr, table)) or 'none'}; units are "
            "never guessed: name the columns with `columns`, for example "
            '`columns=["time_ns", "delay_ns", "detector"]` or `["time_ticks"]` with `tick_s`; a '
            "trace of counts needs `width_s`, a camera trace `frame_s`"
        )
    times, tick_s = _ticks(path, named[time_name], time_name, units.tick_s, "tick_s", 1.0)
    delay_name = _one_of(path, named, _DELAY_NAMES, "delays")
    delays = None
    delay_tick_ns = None
    late: list[str] = []
    if delay_name is not None:
        delays, delay_tick_ns = _ticks(
            path, named[delay_name], delay_name, units.delay_tick_ns, "delay_tick_ns", 1e9
        )
        if delays.size and max(delays.max(), -delays.min()) > np.iinfo(np.int32).max:
            raise PhotonFileError(
                f"{path}: delays in `{delay_name}` reach {delays.max()} ticks, which is no delay "
                "after a laser pulse; check the column and its unit"
            )
        delays = delays.astype(np.int32)
        if units.period_ns is not None:
            late = late_delays(delays, delay_tick_ns, units.period_ns)
    elif units.delay_tick_ns is not None:
        raise PhotonFileError(
            f"{path}: `delay_tick_ns` was given, but there is no column of delays among "
            f"{', '.join(map(repr, table))}; name it `delay_ticks` with `columns`"
        )
    detector = named.get("detector")
    if detector is not None:
        detector, _ = _ticks(path, detector, "detector", 1.0, "", 1.0, is_plain=True)
    return Photons(
        times,
        tick_s,
        detector=detector,
        delay_ticks=delays,
        delay_tick_ns=delay_tick_ns,
        period_ns=units.period_ns,
        duration_s=units.duration_s,
        path=str(path),
        record_type=record_type,
        warnings=(*warnings, *late),
        **(extra or {}),
    )


def _rename(
    path: Path, table: Mapping[str, NDArray[Any]], columns: Columns
) -> dict[str, NDArray[Any]]:
    if columns is None:
        return dict(table)
    if isinstance(columns, str):
        columns = [columns]
    names = list(table)
    if not isinstance(columns, Mapping):
        if len(columns) > len(names):
            raise PhotonFileError(
                f"{path}: `columns` names {len(columns)} columns but there are {len(names)}"
            )
        columns = dict(zip(names, columns, strict=False))
    missing = [name for name in columns if name not in table]
    if missing:
        raise PhotonFileError(
            f"{path}: no column {missing[0]!r}; there are {', '.join(map(repr, names))}"
        )
    return {new: table[old] for old, new in columns.items()}


def _one_of(
    path: Path, table: Mapping[str, NDArray[Any]], names: Sequence[str], what: str
) -> str | None:
    found = [name for name in names if name in table]
    if len(found) > 1:
        raise PhotonFileError(
            f"{path}: {' and '.join(found)} both hold {what}; choose one with `columns`"
        )
    return found[0] if found else None


def _ticks(
    path: Path,
    values: NDArray[Any],
    name: str,
    given: float | None,
    option: str,
    per_second: float,
    *,
    is_plain: bool = False,
) -> tuple[NDArray[Any], float]:
    """Integer ticks of a column and the length of a tick, in units of 1 / `per_second` s."""
    values = np.asarray(values)
    if values.dtype.kind in "OUS" and values.ndim == 1:
        row = next((n for n, one in enumerate(values) if not _is_number(one)), 0)
        raise PhotonFileError(
            f"{path}: column `{name}` must hold numbers, but holds text, first in row {row + 1}: "
            f"{str(values[row])[:40]!r}; repair it (decimals take a point), or name another "
            "column with `columns`"
        )
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise PhotonFileError(
            f"{path}: column `{name}` must be a list of numbers, is {values.dtype} of shape "
            f"{values.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise PhotonFileError(
            f"{path}: column `{name}` is not a number in {bad.size} rows, first in row "
            f"{int(bad[0]) + 1}; remove or repair these rows"
        )
    if given is not None and not (np.isfinite(given) and given > 0):
        raise PhotonFileError(f"{path}: `{option}` must be positive, got {given}")
    unit = name.rsplit("_", 1)[-1]
    if unit == "ticks" or is_plain:
        if given is None:
            raise PhotonFileError(
                f"{path}: `{name}` has no unit; give the length of a tick as `{option}`"
            )
        scaled, tick = values, given
    else:
        length = TIME_UNITS_S[unit] * per_second
        fraction = _FRACTION_TICK_S * per_second
        tick = given or (length if values.dtype.kind in "iu" else fraction)
        scaled = values if tick == length else values * (length / tick)
    if scaled.size and not (scaled.max() < 2**62 and scaled.min() > -(2**62)):
        raise PhotonFileError(f"{path}: column `{name}` reaches {scaled.max()}: check its unit")
    ticks = np.rint(scaled).astype(np.int64)
    if (unit == "ticks" or is_plain) and values.dtype.kind == "f" and np.any(ticks != values):
        raise PhotonFileError(f"{path}: column `{name}` must be whole numbers, but has fractions")
    return ticks, float(tick)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def read_parquet(
    path: Path,
    *,
    salvage: bool = False,
    columns: Columns = None,
    tick_s: float | None = None,
    delay_tick_ns: float | None = None,
    period_ns: float | None = None,
    duration_s: float | None = None,
) -> Photons:
    """Read a Parquet table of time tags; files of `write_photons` need no options.

    Parameters
    ----------
    path
        The file.
    salvage
        Accepted for all formats; a truncated Parquet file cannot be read in part.
    columns, tick_s, delay_tick_ns, period_ns, duration_s
        As in `photons_from_columns`; they go before what the file says.

    Raises
    ------
    PhotonFileError
        If the file is damaged, or a time column or a unit is missing.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            n_rows = file.metadata.num_rows
            if not 0 <= n_rows <= _LARGEST_COMPRESSION * path.stat().st_size:
                raise PhotonFileError(f"{path}: claims {n_rows} rows; the file is damaged")
            own = _own_metadata(path, file.schema_arrow.metadata)
            names = [n for n in file.schema_arrow.names if columns is not None or n in _KNOWN_NAMES]
            content = file.read(columns=names or None)
            table = {name: np.asarray(content.column(name)) for name in content.column_names}
    except PhotonFileError:
        raise
    except Exception as error:  # a damaged file makes the library raise almost anything
        raise PhotonFileError(
            f"{path}: the Parquet file is truncated or damaged and cannot be read in part: "
            f"{brief(error)}"
        ) from error
    units = TagUnits(
        tick_s if tick_s is not None else own.pop("tick_s", None),
        delay_tick_ns if delay_tick_ns is not None else own.pop("delay_tick_ns", None),
        period_ns if period_ns is not None else own.pop("period_ns", None),
        duration_s if duration_s is not None else own.pop("duration_s", None),
    )
    extra: dict[str, Any] = {name: own[name] for name in ("instrument", "metadata") if name in own}
    for name, kind in (("marker_ticks", np.int64), ("marker_codes", np.uint8)):
        extra[name] = np.asarray(own.get(name, []), kind)
    return photons_from_columns(path, table, units, columns, record_type="Parquet", extra=extra)


def _own_metadata(path: Path, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    if not metadata or PARQUET_KEY not in metadata:
        return {}
    own = json.loads(metadata[PARQUET_KEY])
    numbers = ("tick_s", "delay_tick_ns", "period_ns", "duration_s")
    if not isinstance(own, dict) or not all(
        own.get(name) is None or isinstance(own[name], int | float) for name in numbers
    ):
        raise PhotonFileError(f"{path}: the units in its metadata are damaged")
    return own


def read_npz(
    path: Path,
    *,
    salvage: bool = False,
    columns: Columns = None,
    tick_s: float | None = None,
    delay_tick_ns: float | None = None,
    period_ns: float | None = None,
    duration_s: float | None = None,
) -> Photons:
    """Read an NPZ archive with one array per column; arguments as in `read_parquet`."""
    try:
        with zipfile.ZipFile(path) as archive:
            table = {
                info.filename.removesuffix(".npy"): _archived_array(path, archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    except PhotonFileError:
        raise
    except Exception as error:  # zip, zlib and NumPy each have errors of their own
        raise PhotonFileError(
            f"{path}: the NPZ archive is truncated or damaged and cannot be read in part: "
            f"{brief(error)}"
        ) from error
    units = TagUnits(tick_s, delay_tick_ns, period_ns, duration_s)
    wanted = {n: a for n, a in table.items() if columns is not None or n in _KNOWN_NAMES}
    if columns is None and len({a.size for a in wanted.values()}) > 1:
        raise PhotonFileError(f"{path}: its arrays differ in length; choose with `columns`")
    return photons_from_columns(path, wanted or table, units, columns, record_type="NPZ")


def _archived_array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one array; the sizes in its header and in the archive must agree first."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(member)
        n_bytes = float(np.prod(shape, dtype=float)) * dtype.itemsize
        is_possible = (
            dtype.kind in "iufb"
            and n_bytes == info.file_size - member.tell()
            and info.file_size <= _LARGEST_COMPRESSION * min(info.compress_size, 2**62) + 1024
            and info.compress_size <= path.stat().st_size
        )
        if not is_possible:
            raise PhotonFileError(
                f"{path}: array {info.filename!r} claims shape {shape} of {dtype}, which does not "
                "fit the archive or is not a list of numbers"
            )
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array
