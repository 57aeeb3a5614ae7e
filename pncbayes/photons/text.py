"""Tables in text files: time tags, counts per bin, or a camera's counts, as the options say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.counts import binned_trace, frames_trace
from pncbayes.photons.payload import brief
from pncbayes.photons.stream import Photons
from pncbayes.photons.time_tags import (
    TIME_UNITS_S,
    Columns,
    TagUnits,
    photons_from_columns,
)

__all__ = ["is_text", "read_text"]

_HEAD_BYTES = 65536
# Relative difference between a width and the step of the times beside the counts.
_STEP_TOLERANCE = 0.01


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text."""
    if not head or b"\0" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)


def read_text(
    path: Path,
    *,
    salvage: bool = False,
    width_s: float | None = None,
    frame_s: float | None = None,
    column: str | int | None = None,
    columns: Columns = None,
    tick_s: float | None = None,
    delay_tick_ns: float | None = None,
    period_ns: float | None = None,
    duration_s: float | None = None,
    **camera: float | None,
) -> Photons | xr.Dataset:
    """Read a table of numbers with or without a first line of names; ``#`` starts a comment.

    Parameters
    ----------
    path
        The file; columns are parted by comma, semicolon, tabulator or blanks.
    salvage
        Leave out a last line that was cut short.
    width_s
        Width of a bin in s: the table holds photon counts per bin.
    frame_s
        Time of a frame in s: the table holds counts of a camera.
    column
        Name or number (from 0) of the column of counts, if there is more than one.
    columns, tick_s, delay_tick_ns, period_ns, duration_s
        For time tags, as in `photons_from_columns`.
    **camera
        What is known of the camera: see `CAMERA_OPTIONS`.

    Returns
    -------
    Photons or xr.Dataset
        Photons from time tags, a Trace from counts.

    Raises
    ------
    PhotonFileError
        If a unit is missing, a value is not a number, or the table is empty.
    """
    if width_s is not None and frame_s is not None:
        raise PhotonFileError(
            f"{path}: `width_s` is for photon counts and `frame_s` for a camera; give one of them"
        )
    frame, is_cut = _table(path)
    warnings: list[str] = []
    if is_cut and salvage:
        frame, is_cut = frame.iloc[:-1], False
        warnings.append("the last line was cut short and was left out")
    table = {str(name).strip(): np.asarray(frame[name]) for name in frame.columns}
    try:
        if width_s is not None:
            _check_times(path, table, width_s)
            warnings += _open_end(path)
            return _warned(binned_trace(path, _counts(path, table, column), width_s), warnings)
        if frame_s is not None:
            counts = _counts(path, table, column)
            return _warned(frames_trace(path, counts, frame_s, camera), warnings)
        if any(value is not None for value in camera.values()):
            raise PhotonFileError(f"{path}: a camera trace needs its frame time, `frame_s`")
        if columns is None and "counts" in table:
            raise PhotonFileError(
                f"{path}: has a column `counts`, as a trace has and time tags have not; give its "
                "`width_s` (of a camera `frame_s`), or name the columns of time tags with `columns`"
            )
        units = TagUnits(tick_s, delay_tick_ns, period_ns, duration_s)
        return photons_from_columns(
            path, table, units, columns, record_type="text", warnings=warnings
        )
    except PhotonFileError as error:
        if not is_cut:
            raise
        raise PhotonFileError(
            f"{error}; the last line lacks values, as where a file was cut short: "
            "`salvage=True` (`--salvage`) leaves it out"
        ) from error


def _check_times(path: Path, table: dict[str, NDArray[Any]], width_s: float) -> None:
    """Refuse a width of bins that is not the step of the times beside the counts."""
    for name, unit_s in TIME_UNITS_S.items():
        times = table.get(f"time_{name}")
        if times is None or times.dtype.kind not in "iuf" or times.size < 2:
            continue
        step_s = float(np.median(np.diff(times))) * unit_s
        if step_s > 0 and abs(step_s / width_s - 1.0) > _STEP_TOLERANCE:
            raise PhotonFileError(
                f"{path}: the times in `time_{name}` step by {step_s:.6g} s, but `width_s` is "
                f"{width_s} s; give the step"
            )


def _open_end(path: Path) -> list[str]:
    """Say where the last line does not end: its number may be a part of one."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) in b"\r\n":
            return []
    return ["the file ends within a line: if it was cut short, its last number is too small"]


def _warned(trace: xr.Dataset, warnings: list[str]) -> xr.Dataset:
    """Add warnings to those of a Trace, which keeps them as JSON."""
    if warnings:
        earlier = json.loads(trace.attrs.get("warnings", "[]"))
        trace.attrs["warnings"] = json.dumps([*earlier, *warnings])
    return trace


def _counts(path: Path, table: dict[str, NDArray[Any]], column: str | int | None) -> NDArray[Any]:
    names = list(table)
    if column is None:
        column = "counts" if "counts" in table else names[0] if len(names) == 1 else None
    if isinstance(column, int) and 0 <= column < len(names):
        column = names[column]
    if not isinstance(column, str) or column not in table:
        raise PhotonFileError(
            f"{path}: choose the column of counts with `column`, a name or a number from 0; there "
            f"are {len(names)}: {', '.join(names)} (got {column!r})"
        )
    return table[column]


def _table(path: Path) -> tuple[pd.DataFrame, bool]:
    """Columns, numbered when the file does not name them, and whether the last line lacks some."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode("utf-8-sig", "replace")
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise PhotonFileError(f"{path}: holds no table, only comments or blank lines")
    first = lines[0].strip()
    separator = next((mark for mark in ",;\t" if mark in first), r"\s+")
    has_names = any(not _is_number(cell) for cell in re.split(separator, first))
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            header=0 if has_names else None,
            comment="#",
            encoding="utf-8-sig",
            skipinitialspace=True,
            low_memory=False,
            index_col=False,
        )
    except Exception as error:  # the parser raises several kinds of error
        raise PhotonFileError(f"{path}: is not a table of numbers: {brief(error)}") from error
    return frame, bool(len(frame)) and bool(frame.iloc[-1].isna().any())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
