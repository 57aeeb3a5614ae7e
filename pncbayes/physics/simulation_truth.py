"""The truth beside a simulated recording: numbers as JSON, switches as a Parquet table."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import pncbayes
from pncbayes.errors import PhotonFileError
from pncbayes.physics.simulation_settings import SimulationSettings
from pncbayes.physics.state_path import StatePath, stationary_occupancy

__all__ = ["JumpTable", "load_truth", "make_truth", "truth_paths", "write_truth"]

_SCHEMA = 1
_TRUTH_SUFFIX = ".truth.json"


def make_truth(
    settings: SimulationSettings,
    root_seed: int,
    *,
    n_photons: int,
    n_jumps: int,
    occupancy: NDArray[np.float64],
) -> dict[str, Any]:
    """Return what a fit should find, as numbers, texts and lists that JSON can hold.

    Rates are signal at the detectors in counts per s, before dead time; `occupancy` is what
    happened, `stationary_occupancy` (None where a state is never left) what is expected.
    """
    laws = settings.dwell_laws or (None,) * settings.n_states
    rates = settings.jump_rates_per_s
    exits = rates.sum(axis=1)
    dwells = [
        law.mean_s if law is not None else (1.0 / rate if rate > 0 else math.inf)
        for law, rate in zip(laws, exits, strict=True)
    ]
    expected: list[float | None] = [None] * settings.n_states
    if settings.n_states == 1 or all(math.isfinite(x) for x in dwells):
        shares = np.where((exits == 0)[:, None], 1.0, rates)
        np.fill_diagonal(shares, 0.0)
        expected = [float(x) for x in stationary_occupancy(shares, dwells)]
    signal = settings.signal_rates_per_s
    states = []
    for number, state in enumerate(settings.states):
        lifetime = state.lifetime_ns
        states.append(
            {
                "state": number,
                "rate_per_s": float(signal[number]),
                "lifetime_ns": None if math.isnan(lifetime) else lifetime,
                "occupancy": float(occupancy[number]),
                "stationary_occupancy": expected[number],
                "mean_dwell_s": dwells[number] if math.isfinite(dwells[number]) else None,
            }
        )
    return {
        "schema": _SCHEMA,
        "pncbayes_version": pncbayes.__version__,
        "root_seed": root_seed,
        "n_states": settings.n_states,
        "n_photons": n_photons,
        "n_jumps": n_jumps,
        "duration_s": settings.duration_s,
        "states": states,
        "transition_rates_per_s": rates.tolist(),
        "background_rate_per_s": settings.background_rate_per_s,
        "scatter_rate_per_s": settings.scatter_rate_per_s,
        "settings": settings.to_dict(),
    }


def truth_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return the truth's JSON file and jump table for a recording, or for that JSON file."""
    recording = Path(path)
    name = recording.name
    stem = name.removesuffix(_TRUTH_SUFFIX) if name.endswith(_TRUTH_SUFFIX) else recording.stem
    return recording.with_name(stem + _TRUTH_SUFFIX), recording.with_name(stem + ".jumps.parquet")


def write_truth(truth: dict[str, Any], path: Path) -> None:
    """Write the truth to `path`, aside and renamed.

    Raises
    ------
    PhotonFileError
        If it cannot be written.
    """
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(json.dumps(truth, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise PhotonFileError(f"{path}: cannot be written ({error})") from error


class JumpTable:
    """Parquet table of switches (`time_s`, `state`), written in pieces, aside and renamed.

    Use it as a context manager; leaving it by an exception leaves no file.

    Parameters
    ----------
    path
        The table's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(path.name + ".part")
        self._writer: Any = None
        self.n_rows = 0
        self._seconds: dict[int, float] = {}
        self._since_s = 0.0
        self._state = 0

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("time_s", pa.float64()), ("state", pa.int64())])
        try:
            self._writer = pq.ParquetWriter(self._aside, schema)
        except OSError as error:
            raise PhotonFileError(f"{self._path}: cannot be written ({error})") from error
        return self

    def write(self, times_s: NDArray[np.float64], states: NDArray[np.int64]) -> None:
        """Append switches: times in s and the states entered, both shape ``(n,)``."""
        import pyarrow as pa

        if not times_s.size:
            return
        table = pa.table({"time_s": pa.array(times_s), "state": pa.array(states)})
        try:
            self._writer.write_table(table)
        except OSError as error:
            raise PhotonFileError(f"{self._path}: cannot be written ({error})") from error
        self.n_rows += int(times_s.size)
        left = np.concatenate(([self._state], states[:-1]))
        for state in np.unique(left):
            dwells = np.diff(times_s, prepend=self._since_s)[left == state]
            self._seconds[int(state)] = self._seconds.get(int(state), 0.0) + float(dwells.sum())
        self._since_s, self._state = float(times_s[-1]), int(states[-1])

    def seconds(self, n_states: int, stop_s: float) -> NDArray[np.float64]:
        """Return the time spent in each state until `stop_s`, shape ``(n_states,)``, in s."""
        seconds = np.array([self._seconds.get(state, 0.0) for state in range(n_states)])
        seconds[self._state] += stop_s - self._since_s
        return seconds

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._aside.replace(self._path)
        except OSError as failure:
            if kind is None:
                raise PhotonFileError(f"{self._path}: cannot be written ({failure})") from failure
        finally:
            self._aside.unlink(missing_ok=True)


def load_truth(path: str | os.PathLike[str]) -> tuple[dict[str, Any], StatePath]:
    """Read the truth that was saved beside a simulated recording.

    Parameters
    ----------
    path
        The recording, or its ``.truth.json``.

    Returns
    -------
    tuple
        The truth as a dict, and the path through the states.
        ``SimulationSettings.from_dict(truth["settings"])`` with ``truth["root_seed"]`` repeats
        the simulation.

    Raises
    ------
    PhotonFileError
        If a file is missing or does not hold a truth.
    """
    import pyarrow.parquet as pq

    truth_path, jumps_path = truth_paths(path)
    try:
        truth: dict[str, Any] = json.loads(truth_path.read_text(encoding="utf-8"))
        table = pq.read_table(jumps_path)
        state_path = StatePath(
            table["time_s"].to_numpy(),
            table["state"].to_numpy(),
            float(truth["duration_s"]),
            len(truth["states"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PhotonFileError(
            f"{truth_path}: not the truth of a simulated recording ({error}); `simulate_to_file` "
            "and `Simulation.save_truth` write it, with the table of switches beside it"
        ) from error
    return truth, state_path
