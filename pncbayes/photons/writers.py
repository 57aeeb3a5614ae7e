"""Write photon streams: PTU, Photon-HDF5 and Parquet.

Files are written aside in the same folder and renamed when they are whole, so that nobody ever
reads half of one.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pncbayes.errors import PhotonFileError
from pncbayes.photons.photon_hdf5 import import_h5py
from pncbayes.photons.photon_hdf5_writer import fill_photon_hdf5
from pncbayes.photons.ptu_writer import PtuWriter
from pncbayes.photons.stream import Photons
from pncbayes.photons.time_tags import PARQUET_KEY

__all__ = ["PtuWriter", "write_photons"]


def write_photons(photons: Photons, path: str | os.PathLike[str]) -> Path:
    """Write a photon stream in the format that the file name asks for.

    Parameters
    ----------
    photons
        The stream. In PTU its delays make it a T3 recording, whose tick must be the laser period;
        without delays it becomes T2.
    path
        File to write: .ptu, .h5 or .hdf5 (Photon-HDF5 0.5), or .parquet. An existing file is
        replaced.

    Returns
    -------
    pathlib.Path
        The file written. `pncbayes.photons.formats.read` reads all three without options.

    Raises
    ------
    PhotonFileError
        If the name asks for another format, the stream does not fit it, there are no photons, or
        the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    writers = {
        ".ptu": _write_ptu,
        ".h5": _write_photon_hdf5,
        ".hdf5": _write_photon_hdf5,
        ".parquet": _write_parquet,
    }
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise PhotonFileError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; choose one of "
            f"{', '.join(writers)}"
        )
    if not len(photons):
        raise PhotonFileError(f"{path}: there are no photons to write")
    writers[suffix](photons, path)
    return path


@contextmanager
def _written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to; rename it to `path` when the body is done, else remove it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise PhotonFileError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _write_ptu(photons: Photons, path: Path) -> None:
    if photons.delay_ticks is not None:
        if photons.period_ns is None:
            raise PhotonFileError(
                f"{path}: delays in a PTU file need the laser period, and `period_ns` is not "
                "known; set it, or write .h5 or .parquet"
            )
        if not np.isclose(photons.tick_s * 1e9, photons.period_ns, rtol=1e-9, atol=0.0):
            raise PhotonFileError(
                f"{path}: times in a PTU file with delays count laser periods "
                f"({photons.period_ns} ns), but one tick of the photons is {photons.tick_s} s; "
                "write .h5 or .parquet, which keep any tick"
            )
    with PtuWriter(
        path,
        tick_s=photons.tick_s,
        delay_tick_ns=photons.delay_tick_ns if photons.delay_ticks is not None else None,
        instrument=photons.instrument,
        duration_s=photons.duration_s,
    ) as writer:
        writer.write(
            photons.time_ticks,
            photons.detector,
            photons.delay_ticks,
            marker_ticks=photons.marker_ticks,
            marker_codes=photons.marker_codes,
        )


def _write_parquet(photons: Photons, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    columns: dict[str, Any] = {"time_ticks": photons.time_ticks, "detector": photons.detector}
    if photons.delay_ticks is not None:
        columns["delay_ticks"] = photons.delay_ticks
    own = {
        "schema": 1,
        "tick_s": photons.tick_s,
        "delay_tick_ns": photons.delay_tick_ns,
        "period_ns": photons.period_ns,
        "duration_s": photons.duration_s,
        "instrument": photons.instrument,
        "marker_ticks": photons.marker_ticks.tolist(),
        "marker_codes": photons.marker_codes.tolist(),
        "metadata": dict(photons.metadata),
    }
    table = pa.table(columns).replace_schema_metadata({PARQUET_KEY: json.dumps(own, default=str)})
    with _written_aside(path) as part:
        pyarrow.parquet.write_table(table, part, compression="zstd", write_page_checksum=True)


def _write_photon_hdf5(photons: Photons, path: Path) -> None:
    h5py = import_h5py(path)
    with _written_aside(path) as part:
        try:
            with h5py.File(part, "w") as file:
                fill_photon_hdf5(file, photons, path.name)
        except RuntimeError as error:  # how the HDF5 library reports a full disk on closing
            raise OSError(None, str(error)) from error
