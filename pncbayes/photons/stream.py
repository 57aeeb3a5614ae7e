"""`Photons`: what a recording holds, in integer ticks with their units."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError

__all__ = ["Photons"]

# A single recording of more than this is an absurd header or a wrong unit, not an experiment.
_LONGEST_S = 30 * 86_400.0


@dataclass(frozen=True, eq=False)
class Photons:
    """A photon stream of one emitter.

    Integer ticks are kept as recorded, so that nothing is rounded twice.

    Parameters
    ----------
    time_ticks
        Arrival times since the start of the recording, shape ``(n_photons,)``, not decreasing.
    tick_s
        Length of one tick of `time_ticks`, in s.
    detector
        Detector (channel) of each photon, shape ``(n_photons,)``; zeros if not given.
    delay_ticks
        Delay after the laser pulse, shape ``(n_photons,)``, or None when none was recorded.
    delay_tick_ns
        Length of one tick of `delay_ticks`, in ns; None without delays.
    period_ns
        Time between laser pulses, in ns; None when unknown.
    duration_s
        Length of the recording, in s; the last arrival time if not given.
    marker_ticks, marker_codes
        Times (in ticks of `time_ticks`) and codes of the marker records, which are not photons.
    path, instrument, record_type
        Where the stream came from; empty when made in memory.
    warnings
        What a user has to know in order to trust the stream.
    metadata
        Header facts worth keeping, as text and numbers.

    Raises
    ------
    PhotonFileError
        If shapes disagree, a unit is missing or not positive, or time runs backwards.
    """

    time_ticks: NDArray[np.int64]
    tick_s: float
    detector: NDArray[np.uint8] | None = None
    delay_ticks: NDArray[np.int32] | None = None
    delay_tick_ns: float | None = None
    period_ns: float | None = None
    duration_s: float | None = None
    marker_ticks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    marker_codes: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    path: str = ""
    instrument: str = ""
    record_type: str = ""
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.path or "photons"
        times = _whole(self.time_ticks, "time_ticks", name, np.int64)
        if times.ndim != 1:
            raise PhotonFileError(f"{name}: `time_ticks` must have one dimension, got {times.ndim}")
        if not (np.isfinite(self.tick_s) and self.tick_s > 0):
            raise PhotonFileError(
                f"{name}: `tick_s` must be a positive time in s, got {self.tick_s}"
            )
        object.__setattr__(self, "time_ticks", times)
        detector = np.zeros(times.size, np.uint8) if self.detector is None else self.detector
        detector = np.ascontiguousarray(detector)
        if detector.shape != times.shape:
            raise PhotonFileError(
                f"{name}: {times.size} arrival times but {detector.size} detector numbers"
            )
        if detector.size and (detector.min() < 0 or detector.max() > 255):
            raise PhotonFileError(f"{name}: detector numbers must be 0 to 255")
        object.__setattr__(self, "detector", detector.astype(np.uint8, copy=False))
        if self.delay_ticks is not None:
            self._check_delays(name, times.size)
        if times.size:
            if times[0] < 0:
                raise PhotonFileError(
                    f"{name}: the first arrival time is negative ({times[0]} ticks)"
                )
            backwards = np.flatnonzero(times[1:] < times[:-1])
            if backwards.size:
                raise PhotonFileError(
                    f"{name}: time runs backwards at photon {int(backwards[0]) + 1} "
                    f"({backwards.size} times in all); sort the photons or repair the file"
                )
        last_s = float(times[-1]) * self.tick_s if times.size else 0.0
        duration_s = last_s if self.duration_s is None else float(self.duration_s)
        # half a tick of grace: durations are often the last arrival, rounded
        if not np.isfinite(duration_s) or duration_s < last_s * (1 - 1e-12) - 0.5 * self.tick_s:
            raise PhotonFileError(
                f"{name}: `duration_s` is {duration_s} s but the last photon arrives at {last_s} s"
            )
        if duration_s > _LONGEST_S:
            raise PhotonFileError(
                f"{name}: the recording would last {duration_s / 86400:.1f} days; "
                f"`tick_s` = {self.tick_s} s is probably wrong"
            )
        object.__setattr__(self, "duration_s", duration_s)

    def _check_delays(self, name: str, n_photons: int) -> None:
        delays = _whole(self.delay_ticks, "delay_ticks", name, np.int64)
        if delays.shape != (n_photons,):
            raise PhotonFileError(f"{name}: {n_photons} arrival times but {delays.size} delays")
        if self.delay_tick_ns is None or not (
            np.isfinite(self.delay_tick_ns) and self.delay_tick_ns > 0
        ):
            raise PhotonFileError(
                f"{name}: delays need `delay_tick_ns`, a positive time in ns, "
                f"got {self.delay_tick_ns}"
            )
        if self.period_ns is not None and not (np.isfinite(self.period_ns) and self.period_ns > 0):
            raise PhotonFileError(
                f"{name}: `period_ns` must be a positive time in ns, got {self.period_ns}"
            )
        if delays.size and delays.min() < 0:
            raise PhotonFileError(f"{name}: a delay is negative ({delays.min()} ticks)")
        object.__setattr__(self, "delay_ticks", delays.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return int(self.time_ticks.size)

    def __repr__(self) -> str:
        delays = "no delays" if self.delay_ticks is None else f"delays in {self.delay_tick_ns} ns"
        return (
            f"Photons({len(self)} photons, {self.duration_s:.6g} s, {delays}, path={self.path!r})"
        )

    @property
    def n_photons(self) -> int:
        """Number of photons."""
        return len(self)

    @property
    def detectors(self) -> dict[int, int]:
        """Photons per detector number."""
        counts = np.bincount(np.asarray(self.detector, dtype=np.uint8), minlength=1)
        return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}

    @property
    def time_s(self) -> NDArray[np.float64]:
        """Arrival times in s, shape ``(n_photons,)``."""
        times: NDArray[np.float64] = self.time_ticks * np.float64(self.tick_s)
        return times

    @property
    def delay_ns(self) -> NDArray[np.float64] | None:
        """Delays in ns, shape ``(n_photons,)``, or None."""
        if self.delay_ticks is None or self.delay_tick_ns is None:
            return None
        delays: NDArray[np.float64] = self.delay_ticks * np.float64(self.delay_tick_ns)
        return delays

    @cached_property
    def digest(self) -> str:
        """Hash of the photons and their units: the same photons have the same digest."""
        state = hashlib.blake2b(digest_size=16)
        units = (self.tick_s, self.delay_tick_ns, self.period_ns, self.duration_s)
        state.update(repr(units).encode())
        for array in (self.time_ticks, self.detector, self.delay_ticks):
            if array is not None:
                state.update(np.ascontiguousarray(array).view(np.uint8).data)
        return state.hexdigest()

    def select(self, keep: NDArray[np.bool_]) -> Photons:
        """Return the photons where `keep`, shape ``(n_photons,)``, is true."""
        assert self.detector is not None
        return replace(
            self,
            time_ticks=self.time_ticks[keep],
            detector=self.detector[keep],
            delay_ticks=None if self.delay_ticks is None else self.delay_ticks[keep],
        )


def _whole(values: Any, what: str, name: str, kind: type[np.integer]) -> NDArray[Any]:
    """Whole numbers as an array of a kind; refuse what has fractions, or is not a number."""
    array = np.asarray(values)
    if array.dtype.kind not in "iub" and array.size:
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise PhotonFileError(f"{name}: `{what}` must be whole numbers, got {array.dtype}")
        if np.any(array != np.rint(array)):
            raise PhotonFileError(
                f"{name}: `{what}` must be whole numbers of ticks, but has fractions; divide times "
                "by the length of a tick and round them"
            )
    return np.ascontiguousarray(array, dtype=None if array.dtype.kind in "iu" else kind).astype(
        kind, copy=False
    )
