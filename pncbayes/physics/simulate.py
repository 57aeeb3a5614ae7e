"""Simulated recordings of a switching dot, with the truth beside the photons."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.stream import Photons
from pncbayes.physics.photon_source import Block, simulate_blocks, superpose
from pncbayes.physics.simulated_dot import (
    Drift,
    Flicker,
    PeriodicModulation,
    PowerLawDwell,
    SimulatedState,
    require_positive,
)
from pncbayes.physics.simulation_settings import SimulationSettings
from pncbayes.physics.simulation_truth import (
    JumpTable,
    load_truth,
    make_truth,
    truth_paths,
    write_truth,
)
from pncbayes.physics.state_path import StatePath, simulate_jumps

__all__ = [
    "Drift",
    "Flicker",
    "PeriodicModulation",
    "PowerLawDwell",
    "SimulatedState",
    "Simulation",
    "SimulationChunk",
    "SimulationSettings",
    "StatePath",
    "load_truth",
    "simulate",
    "simulate_chunks",
    "simulate_jumps",
    "simulate_to_file",
    "superpose",
]


@dataclass(frozen=True, eq=False)
class SimulationChunk:
    """A stretch of a simulated recording.

    Parameters
    ----------
    photons
        Photons since the previous chunk, with times since the start of the recording.
    jump_times_s, jump_states
        Times (s) and new states of the switches since the previous chunk; the very first is the
        initial state at time 0.
    stop_s
        Time up to which the recording has been simulated, in s; photons that may still get
        company are left for the next chunk.
    """

    photons: Photons
    jump_times_s: NDArray[np.float64]
    jump_states: NDArray[np.int64]
    stop_s: float


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated recording and its truth.

    Parameters
    ----------
    photons
        The recording.
    path
        Which state the dot was in when.
    settings
        What was simulated.
    root_seed
        As `random_seed` it repeats the simulation.
    """

    photons: Photons
    path: StatePath
    settings: SimulationSettings
    root_seed: int

    @property
    def jump_times_s(self) -> NDArray[np.float64]:
        """Start of each dwell, in s, shape ``(n_dwells,)``; the first is 0."""
        return self.path.jump_times_s

    @property
    def jump_states(self) -> NDArray[np.int64]:
        """State of each dwell, shape ``(n_dwells,)``."""
        return self.path.jump_states

    def states_per_bin(self, width_s: float) -> NDArray[np.int64]:
        """State that holds most of each whole bin of `width_s` (in s), shape ``(n_bins,)``."""
        return self.path.states_per_bin(width_s)

    def occupancy_per_bin(self, width_s: float) -> NDArray[np.float64]:
        """Exact share of each whole bin spent in each state, shape ``(n_bins, n_states)``."""
        return self.path.occupancy_per_bin(width_s)

    def truth(self) -> dict[str, Any]:
        """Return what a fit should find, as numbers, texts and lists that JSON can hold."""
        return make_truth(
            self.settings,
            self.root_seed,
            n_photons=len(self.photons),
            n_jumps=self.path.n_jumps,
            occupancy=self.path.occupancy,
        )

    def save_truth(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``<stem>.truth.json`` and ``<stem>.jumps.parquet`` beside the recording `path`.

        Returns
        -------
        tuple of Path
            The two files, written aside and renamed.
        """
        truth_path, jumps_path = truth_paths(path)
        with JumpTable(jumps_path) as table:
            table.write(self.jump_times_s, self.jump_states)
        write_truth(self.truth(), truth_path)
        return truth_path, jumps_path


def simulate_chunks(
    states: Sequence[SimulatedState] | SimulationSettings,
    exit_rates_per_s: Sequence[float] | NDArray[np.float64] | None = None,
    duration_s: float | None = None,
    *,
    chunk_s: float | None = None,
    random_seed: int | np.random.Generator | None = None,
    **settings: Any,
) -> Iterator[SimulationChunk]:
    """Simulate a recording piece by piece, for lengths that do not fit into memory.

    Parameters
    ----------
    states, exit_rates_per_s, duration_s, random_seed, **settings
        As in `simulate`.
    chunk_s
        Length of a chunk, in s, at least; by default what suits the photon rate. It has no
        influence on the photons.

    Yields
    ------
    SimulationChunk
        In the order of time. Concatenated they are the recording of `simulate`.

    Raises
    ------
    ValueError
        As in `simulate`.
    """
    complete = _settings(states, exit_rates_per_s, duration_s, settings)
    if chunk_s is not None:
        require_positive("chunk_s", chunk_s)
    return _chunks(complete, _root_seed(random_seed), chunk_s or 0.0)


def simulate(
    states: Sequence[SimulatedState] | SimulationSettings,
    exit_rates_per_s: Sequence[float] | NDArray[np.float64] | None = None,
    duration_s: float | None = None,
    *,
    random_seed: int | np.random.Generator | None = None,
    **settings: Any,
) -> Simulation:
    """Simulate the photon stream of a dot that switches between states in continuous time.

    Parameters
    ----------
    states
        What each state emits, or complete settings.
    exit_rates_per_s
        Rate of leaving each state, per s, shared evenly among the others; or give
        ``transition_rates_per_s``, shape ``(n_states, n_states)`` [from, to].
    duration_s
        Length of the recording, in s.
    random_seed
        Seed or generator. The same seed gives the same photons, also in chunks.
    **settings
        Any other setting of `SimulationSettings`; with complete settings, those to change.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        Naming the setting, its value and what is allowed.
    TypeError
        If a name is not a setting.

    Examples
    --------
    >>> bright = SimulatedState(rate_per_s=2.0e4, lifetimes_ns=(6.0,))
    >>> dim = SimulatedState(rate_per_s=2.0e3, lifetimes_ns=(0.5,))
    >>> dot = simulate([bright, dim], [1.0, 3.0], 10.0, period_ns=100.0, random_seed=1)
    >>> dot.occupancy_per_bin(0.01).shape
    (1000, 2)
    """
    complete = _settings(states, exit_rates_per_s, duration_s, settings)
    root_seed = _root_seed(random_seed)
    blocks = list(simulate_blocks(complete, root_seed))
    path = StatePath(
        np.concatenate([block.jump_times_s for block in blocks]),
        np.concatenate([block.jump_states for block in blocks]),
        complete.duration_s,
        complete.n_states,
    )
    photons = _photons(blocks, complete, complete.duration_s)
    return Simulation(photons, path, complete, root_seed)


def simulate_to_file(
    path: str | os.PathLike[str],
    states: Sequence[SimulatedState] | SimulationSettings,
    exit_rates_per_s: Sequence[float] | NDArray[np.float64] | None = None,
    duration_s: float | None = None,
    *,
    random_seed: int | np.random.Generator | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Simulate a recording into a file, with the truth beside it.

    PTU files are streamed and may be of any length; the other formats hold the photons once.

    Parameters
    ----------
    path
        The recording: ``.ptu``, ``.h5``, ``.hdf5`` or ``.parquet``. Beside it are written
        ``<stem>.truth.json`` and the table of switches, ``<stem>.jumps.parquet``.
    states, exit_rates_per_s, duration_s, random_seed, **settings
        As in `simulate`.

    Returns
    -------
    dict
        The truth, as in the JSON file.

    Raises
    ------
    ValueError
        As in `simulate`.
    PhotonFileError
        If the file cannot be written; nothing half-written is left.
    """
    from pncbayes.photons.writers import PtuWriter, write_photons

    complete = _settings(states, exit_rates_per_s, duration_s, settings)
    root_seed = _root_seed(random_seed)
    folder = Path(path).parent
    if not folder.is_dir():
        raise PhotonFileError(f"{path}: there is no folder {folder}; make it first")
    truth_path, jumps_path = truth_paths(path)
    if Path(path).suffix.lower() != ".ptu":
        dot = simulate(complete, random_seed=root_seed)
        write_photons(dot.photons, path)
        dot.save_truth(path)
        return dot.truth()
    clocks = _photons([], complete, 0.0)
    with (
        JumpTable(jumps_path) as table,
        PtuWriter(
            path,
            tick_s=clocks.tick_s,
            delay_tick_ns=clocks.delay_tick_ns,
            instrument=clocks.instrument,
            duration_s=complete.duration_s,
        ) as writer,
    ):
        for block in simulate_blocks(complete, root_seed):
            writer.write(block.time_ticks, block.detector, block.delay_ticks)
            table.write(block.jump_times_s, block.jump_states)
        if not writer.n_photons:
            raise PhotonFileError(
                f"{path}: no photon was detected in {complete.duration_s} s; raise the rates or "
                "the duration"
            )
    truth = make_truth(
        complete,
        root_seed,
        n_photons=writer.n_photons,
        n_jumps=table.n_rows - 1,
        occupancy=table.seconds(complete.n_states, complete.duration_s) / complete.duration_s,
    )
    write_truth(truth, truth_path)
    return truth


def _settings(
    states: Sequence[SimulatedState] | SimulationSettings,
    exit_rates_per_s: Sequence[float] | NDArray[np.float64] | None,
    duration_s: float | None,
    others: dict[str, Any],
) -> SimulationSettings:
    changes = dict(others)
    if exit_rates_per_s is not None:
        changes["exit_rates_per_s"] = exit_rates_per_s
    if duration_s is not None:
        changes["duration_s"] = duration_s
    if isinstance(states, SimulationSettings):
        # one way of giving the rates replaces the other
        for name, other in (
            ("exit_rates_per_s", "transition_rates_per_s"),
            ("transition_rates_per_s", "exit_rates_per_s"),
        ):
            if changes.get(name) is not None:
                changes.setdefault(other, None)
        return replace(states, **changes)
    if "duration_s" not in changes:
        raise ValueError("`duration_s` is missing: how long is the recording, in s?")
    return SimulationSettings(states=tuple(states), **changes)


def _root_seed(random_seed: int | np.random.Generator | None) -> int:
    if isinstance(random_seed, (int, np.integer)) and not isinstance(random_seed, bool):
        if random_seed < 0:
            raise ValueError(f"`random_seed` must be 0 or more, got {random_seed}")
        return int(random_seed)
    if random_seed is not None and not isinstance(random_seed, np.random.Generator):
        raise ValueError(
            "`random_seed` must be a whole number, 0 or more, a numpy Generator or None, got "
            f"{random_seed!r}"
        )
    return int(np.random.default_rng(random_seed).integers(2**63))


def _chunks(
    settings: SimulationSettings, root_seed: int, chunk_s: float
) -> Iterator[SimulationChunk]:
    held: list[Block] = []
    start_s = 0.0
    for block in simulate_blocks(settings, root_seed):
        held.append(block)
        if block.stop_s - start_s < chunk_s and block.stop_s < settings.duration_s:
            continue
        start_s = block.stop_s
        yield SimulationChunk(
            _photons(held, settings, block.stop_s),
            np.concatenate([item.jump_times_s for item in held]),
            np.concatenate([item.jump_states for item in held]),
            block.stop_s,
        )
        held = []


def _photons(blocks: list[Block], settings: SimulationSettings, stop_s: float) -> Photons:
    pulsed = settings.period_ns is not None
    delays = [block.delay_ticks for block in blocks if block.delay_ticks is not None]
    return Photons(
        np.concatenate([np.empty(0, np.int64), *(block.time_ticks for block in blocks)]),
        tick_s=settings.tick_s if settings.period_ns is None else settings.period_ns * 1e-9,
        detector=np.concatenate([np.empty(0, np.uint8), *(block.detector for block in blocks)]),
        delay_ticks=np.concatenate([np.empty(0, np.int32), *delays]) if pulsed else None,
        delay_tick_ns=settings.delay_tick_ns if pulsed else None,
        period_ns=settings.period_ns,
        duration_s=stop_s,
        instrument="pncbayes simulator",
        record_type="T3" if pulsed else "T2",
    )
