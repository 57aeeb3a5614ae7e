"""How many photons are afterpulses, and how late these come: from pairs of photons by lag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from pncbayes.photons.delays import delay_clock, delay_histogram, fold_table
from pncbayes.photons.pulse import recorded_ticks
from pncbayes.photons.screening_detectors import find_dead_time
from pncbayes.photons.stream import Photons

__all__ = ["Afterpulses", "fine_times_ns", "search_afterpulses"]

Floats = NDArray[np.float64]

_SHORTEST_NS, _LONGEST_NS, _LEVEL_NS = 20.0, 2e5, 5e4
_BINS_PER_DECADE = 8
_MOST_PAIRS = 1e7
_FEWEST_PAIRS = 20
# Fewer pairs of different detectors than this below 20 us do not say what the light does.
_FEWEST_OTHER, _OTHER_UNTIL_NS = 1000, 2e4
_TIMES_NS = np.geomspace(50.0, 1e4, 10)
# One detector alone: what is slower is light, what is faster is not.
_TIMES_ALONE_NS, _LIGHT_TIMES_NS = np.geomspace(50.0, 3e3, 9), np.geomspace(5e3, 1e6, 9)
# Switches of the decay within these make the share of late photons depend on the lag.
_DECAY_TIMES_NS = np.array([5e4])
_GATE_CELLS = 32
_LEAST_CONTRAST = 0.1
_GRID_NS = 10.0
# Light on which lags above 50 us depend is not what is described here (alternating lasers).
_MOST_CHI_SQUARED, _MOST_MISFIT = 4.0, 0.1


@dataclass(frozen=True, eq=False)
class Afterpulses:
    """Afterpulses of a recording: false counts that follow a count of the same detector.

    Parameters
    ----------
    share, sd
        Afterpulses over photons and standard error; NaN when not known.
    told_by
        What told them from light: pairs of different ``"detectors"``, flat ``"delays"``, or the
        ``"lags"`` alone; ``""`` when not known.
    by_delay
        Share of those that come ``0, 10, 20, ...`` ns after their count, shape ``(n,)``; the sum
        is `share`.
    """

    share: float = float("nan")
    sd: float = float("nan")
    told_by: Literal["detectors", "delays", "lags", ""] = ""
    by_delay: Floats = field(default_factory=lambda: np.zeros(1))

    def later_than(self, time_ns: ArrayLike) -> Floats:
        """Share of the photons that are afterpulses and come later than times in ns."""
        left = np.append(np.cumsum(self.by_delay[::-1])[::-1], 0.0)
        times_ns = np.asarray(time_ns, np.float64)
        return np.asarray(np.interp(times_ns, np.arange(left.size) * _GRID_NS, left))

    def shortest_time_ns(self, left: float) -> float:
        """Time after which at most a share `left` of the photons are later afterpulses, in ns."""
        grid = np.arange(self.by_delay.size + 1) * _GRID_NS
        return float(grid[int(np.argmax(self.later_than(grid) <= left))])

    def within(self, time_ns: float) -> float:
        """Mean over photons of the part of a time, in ns, before an afterpulse of theirs; in ns.

        Photons without an afterpulse count as zero, as ``E[min(delay, time)]``.
        """
        middle = (np.arange(self.by_delay.size) + 0.5) * _GRID_NS
        return float(self.by_delay @ np.minimum(middle, time_ns))


class _Pairs(NamedTuple):
    """Pairs by lag, shape ``(n_lags,)`` each, between lags in ns.

    `seen` holds light in proportion to `light`, and afterpulses; of these `light` holds none, or
    with delays those that are not late. It is None where only the lags tell.
    """

    low: Floats
    high: Floats
    seen: Floats
    light: Floats | None
    # chance of the late gate for an afterpulse, by lag and term; 1 where that does not matter
    late: Floats
    times: Floats


def search_afterpulses(photons: Photons) -> Afterpulses:
    """Find the share of afterpulses and the law of their delays.

    Pairs of photons of one detector are counted by lag, up to 200 us. Light has its share in them,
    which is told in one of three ways. (1) Pairs of different detectors have light alone. (2) With
    hardly any of these, but laser pulses: the second photon of a pair has the delays of the decay
    if it is light, whatever its bunching; an afterpulse comes without regard to the pulse, also
    where the decay has died out. (3) Without delays, bunching slower than 5 us is taken for light
    and faster than 3 us for afterpulses. The rest is a sum of exponentials [1]_ with
    heights of 0 or more, fitted by least squares. Pairs of a photon with the afterpulse of its
    afterpulse are taken off.

    Returns
    -------
    Afterpulses
        Share NaN when the clock is coarser than 2 us, pairs are few, or nothing of this describes
        them (light that is modulated, for one).

    References
    ----------
    .. [1] Ziarkash, Joshi, Stipčević, Ursin, Sci. Rep. 8, 5076 (2018),
       doi:10.1038/s41598-018-23398-z
    """
    times_ns, unit_ns = fine_times_ns(photons)
    if unit_ns > 2e3 or len(photons) < 2 or photons.detector is None:
        return Afterpulses()
    # between the pulses, so that each bin holds the light of whole pulses (the first, of a half)
    n_edges = int(_BINS_PER_DECADE * np.log10(_LONGEST_NS / _SHORTEST_NS)) + 1
    whole = np.rint(np.geomspace(_SHORTEST_NS, _LONGEST_NS, n_edges) / unit_ns)
    edges = (np.unique(whole) + 0.5) * unit_ns
    shortest = find_dead_time(photons).shortest_ns
    rounding = 0.5 * unit_ns if photons.delay_ticks is None else 0.0
    shortest = max(shortest - rounding, 0.0) if np.isfinite(shortest) else 0.0
    # no pairs within the dead time
    edges = np.concatenate([[shortest], edges[edges > shortest]])
    per_block = np.bincount((photons.time_s / 0.1).astype(np.int64)).astype(np.float64)
    expected = float(np.sum(per_block**2)) / 0.1 * _LONGEST_NS * 1e-9
    stop = int(len(photons) * min(1.0, _MOST_PAIRS / max(expected, 1.0)))
    gate = _late_gate(photons)
    is_late = np.zeros(len(photons), np.bool_) if gate is None else gate.is_late
    counts = _count_pairs(times_ns, photons.detector, is_late, edges, stop).astype(np.float64)
    if counts[1:, edges[:-1] > _LEVEL_NS].sum() < _FEWEST_PAIRS:
        return Afterpulses()
    low, high = edges[:-1], edges[1:]
    other, early, late = counts
    if other[high < _OTHER_UNTIL_NS].sum() >= _FEWEST_OTHER:
        pairs = _Pairs(low, high, early + late, other, np.ones((low.size, 1)), _TIMES_NS)
        return _fit(pairs, "detectors", shortest, stop)
    times = _TIMES_ALONE_NS
    if gate is not None:
        pairs = _Pairs(low, high, late, early, gate.chance(low, high, times), times)
        return _fit(pairs, "delays", shortest, stop)
    pairs = _Pairs(low, high, early + late, None, np.ones((low.size, 1)), times)
    return _fit(pairs, "lags", shortest, stop)


def fine_times_ns(photons: Photons) -> tuple[Floats, float]:
    """Times of the photons, shape ``(n_photons,)``, and the lag at which light repeats, in ns."""
    times_ns = photons.time_ticks * (photons.tick_s * 1e9)
    delay_ns, period_ns = photons.delay_ns, photons.period_ns
    if delay_ns is not None and period_ns is not None:
        # T3: the time is the number of the pulse, the delay tells where after it
        if abs(photons.tick_s * 1e9 / period_ns - 1.0) < 1e-3:
            return np.asarray(times_ns + delay_ns), photons.tick_s * 1e9
    return np.asarray(times_ns), photons.tick_s * 1e9


@njit(cache=True, nogil=True)
def _count_pairs(
    times_ns: Floats,
    detector: NDArray[np.uint8],
    is_late: NDArray[np.bool_],
    edges_ns: Floats,
    stop: int,
) -> NDArray[np.int64]:
    """Pairs of different detectors; of one, with an early and with a late second photon."""
    counts = np.zeros((3, edges_ns.size - 1), np.int64)
    for i in range(stop):
        j = i + 1
        while j < times_ns.size and times_ns[j] - times_ns[i] < edges_ns[-1]:
            # delays of one pulse may be out of order
            lag = abs(times_ns[j] - times_ns[i])
            if lag >= edges_ns[0]:
                place = np.searchsorted(edges_ns, lag, side="right") - 1
                kind = 0
                if detector[i] == detector[j]:
                    kind = 2 if is_late[j] else 1
                counts[kind, place] += 1
            j += 1
    return counts


class _LateGate(NamedTuple):
    """Third of the recorded delays in which light is least."""

    is_late: NDArray[np.bool_]
    tick_ns: float
    # chance that an afterpulse is late, and that it is recorded at all, by lag in ticks
    late_at: Floats
    recorded_at: Floats

    def chance(self, low: Floats, high: Floats, mean: Floats) -> Floats:
        """Chance that an afterpulse that comes between two lags is late, by its mean lag, in ns.

        Shapes ``(n_lags,)``, ``(n_lags,)`` and ``(n_times,)`` to ``(n_lags, n_times)``.
        """
        after = (high - low)[:, None] * (np.arange(64) + 0.5) / 64
        tick = ((low[:, None] + after) / self.tick_ns).astype(np.int64) % self.late_at.size
        weight = np.exp(-after[:, None, :] / mean[:, None])
        late, recorded = (
            np.sum(weight * values[tick][:, None, :], axis=2)
            for values in (self.late_at, self.recorded_at)
        )
        return np.asarray(late / np.maximum(recorded, 1e-300))


def _late_gate(photons: Photons) -> _LateGate | None:
    clock = delay_clock(photons)
    if clock is None or photons.delay_ticks is None or len(photons) == 0:
        return None
    if fine_times_ns(photons)[1] != photons.tick_s * 1e9 or not clock.known_period:
        return None
    histogram = delay_histogram(photons).astype(np.float64)
    first, stop = recorded_ticks(histogram)
    cells = np.array_split(np.arange(first, stop), _GATE_CELLS)
    if cells[-1].size == 0:
        return None
    cells.sort(key=lambda cell: float(histogram[cell].mean()))
    late = np.zeros(clock.n_ticks)
    late[np.concatenate(cells[: _GATE_CELLS // 3])] = 1.0
    recorded = np.zeros(clock.n_ticks)
    recorded[first:stop] = 1.0
    chance = late.sum() / recorded.sum()
    if chance - (histogram @ late) / histogram.sum() < _LEAST_CONTRAST:
        return None
    # an afterpulse has the delay of its photon and the lag, around the period
    spectrum = np.conj(np.fft.rfft(histogram / histogram.sum()))
    late_at, recorded_at = (
        np.clip(np.fft.irfft(np.fft.rfft(gate) * spectrum, clock.n_ticks), 1e-6, 1.0)
        for gate in (late, recorded)
    )
    table = fold_table(clock, int(photons.delay_ticks.max()))
    is_late = late[table[photons.delay_ticks]] > 0
    return _LateGate(is_late, clock.tick_ns, late_at, recorded_at)


def _fit(
    pairs: _Pairs, told_by: Literal["detectors", "delays", "lags"], shortest: float, stop: int
) -> Afterpulses:
    low, high, seen, light, late, times = pairs
    after = np.exp(-low[:, None] / times) - np.exp(-high[:, None] / times)
    middle = 0.5 * (low + high)[:, None]
    if light is None:
        bunched = np.exp(-middle / _LIGHT_TIMES_NS) * (high - low)[:, None]
        of_light = np.column_stack([high - low, bunched])
    elif told_by == "delays":
        change = np.exp(-middle / _DECAY_TIMES_NS)
        of_light = light[:, None] * np.column_stack([np.ones(low.size), change, -change])
    else:
        of_light = light[:, None]
    at_level = high > _LEVEL_NS
    # seen over light, of light alone
    ratio = np.zeros(low.size)
    if light is not None:
        ratio += seen[at_level].sum() / max(light[at_level].sum(), 1.0)
    sd = np.sqrt(np.maximum(seen, 1.0))
    for _ in range(4):
        # early afterpulses are in `light`
        gain = late - ratio[:, None] * (1.0 - late)
        columns = np.column_stack([after * gain, of_light])
        weight = np.linalg.norm(columns / sd[:, None], axis=0)
        height = nnls(columns / sd[:, None] / weight, seen / sd)[0] / weight
        # what is expected makes the weights: what is seen is smaller where noise is downwards
        variance = columns @ height
        if light is not None:
            ratio = of_light @ height[times.size :] / np.maximum(light, 1.0)
            variance = variance + ratio**2 * light
        sd = np.sqrt(np.maximum(variance, 1.0))
    misfit = (seen - columns @ height)[at_level]
    is_unlikely = np.mean((misfit / sd[at_level]) ** 2) > _MOST_CHI_SQUARED
    if is_unlikely and np.std(misfit) > _MOST_MISFIT * seen[at_level].mean():
        return Afterpulses()
    numbers = np.arange(height.size)
    total = np.zeros(height.size)
    total[: times.size] = after.sum(axis=0) / stop
    # one term of afterpulses at least, or nothing would be known for sure
    used = (height > 0) | (numbers == times.size // 2)
    if told_by == "lags":
        used |= numbers == times.size + 1
    elif told_by == "delays":
        used |= (numbers >= times.size) & (numbers < numbers.size - _DECAY_TIMES_NS.size)
    scaled = columns[:, used] / sd[:, None] / weight[used]
    of_sum = total[used] / weight[used]
    excess_sd = float(np.sqrt(of_sum @ np.linalg.pinv(scaled.T @ scaled) @ of_sum))
    grid = np.maximum(np.arange(0.0, _LONGEST_NS + _GRID_NS, _GRID_NS), shortest)
    still = np.exp(-grid[:, None] / times) @ height[: times.size] / stop
    # pairs of a photon and the afterpulse of its afterpulse are there, too: E = P + P E
    transform = np.fft.rfft(-np.diff(still), 2 * grid.size)
    by_delay = np.fft.irfft(transform / (1.0 + transform), 2 * grid.size)[: grid.size - 1]
    excess = float(total @ height)
    return Afterpulses(excess / (1.0 + excess), excess_sd / (1.0 + excess) ** 2, told_by, by_delay)
