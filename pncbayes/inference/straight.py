"""Coordinates in which the narrow, curved ridges of a structured posterior are straight.

Many photons know the total rate of a state to a per mille, and so its mean delay; what the total is
made of, they know far less. In plain coordinates that is a thin curved shell, along which nothing
walks far. Here a few coordinates are shifted by what keeps such quantities where they are at the
mode, whatever the others do: each shift depends on the other coordinates alone, so that volumes
stay what they are.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.structured import StructuredPosterior
from pncbayes.physics.structured_kernels import Layout, fill_gate_rates, fill_values
from pncbayes.physics.structures import StructuredModel
from pncbayes.physics.tied_decay import DecayTable

__all__ = ["Straight"]

Array = NDArray[np.float64]

_STEP, _LEAST_SLOPE, _FARTHEST = 1e-3, 0.01, 4.0
# Most steps to a target, the last of them, and least slope of a secant over that at the centre.
_MOST_STEPS, _NEAR, _GENTLE = 10, 0.01, 0.1
_DELAY, _RATIO, _TOTAL = 0, 1, 2
_BRIGHTNESS_KEY = {
    "auger": "k_auger_per_ns", "hot_carrier": "hot_carrier_yield", "nbc": "k_centre_per_ns",
    "other": "relative_brightness",
}  # fmt: skip


@njit(cache=True, error_model="numpy")
def _quantity(gates, kind, first, second, late):  # type: ignore[no-untyped-def]
    """Log of the mean lateness of a state, of the ratio of two totals, or of a total."""
    total, other, delays = 0.0, 0.0, 0.0
    for gate in range(late.size):
        total += gates[first, gate]
        other += gates[second, gate]
        delays += gates[first, gate] * late[gate]
    if kind == _DELAY:
        return math.log(max(delays, 1e-300) / max(total, 1e-300))
    if kind == _RATIO:
        return math.log(max(total, 1e-300) / max(other, 1e-300))
    return math.log(max(total, 1e-300))


@njit(cache=True, error_model="numpy")
def _bend(  # type: ignore[no-untyped-def]
    points, back, n_states, n_values, priors, structure, instrument, late,
    place, kind, first, second, middle, target, slope,
):  # fmt: skip
    """Shift coordinates so that each quantity keeps its target, one after the other.

    `back`: undo it, in the reverse order.
    """
    bent = points.copy()
    values, gates = np.empty(n_values), np.zeros((n_states, late.size))
    wanted = np.empty(2, dtype=np.int64)
    for k in range(bent.shape[0]):
        x = bent[k]
        for number in range(place.size):
            i = place.size - 1 - number if back else number
            before, at = x[place[i]], middle[i]
            wanted[0], wanted[1] = first[i], second[i]
            n_wanted = 1 if first[i] == second[i] else 2
            steep, last, last_at = slope[i], 0.0, at
            for number_of_step in range(_MOST_STEPS):
                x[place[i]] = at
                fill_values(x, priors, values)
                fill_gate_rates(
                    values, x[n_values:], structure, instrument, wanted[:n_wanted], gates
                )
                found = _quantity(gates, kind[i], first[i], second[i], late)
                if not math.isfinite(found):
                    break
                if number_of_step > 0 and at != last_at:
                    secant = (found - last) / (at - last_at)
                    if _GENTLE < secant / slope[i] < 1.0 / _GENTLE:
                        steep = secant
                step, last, last_at = (found - target[i]) / steep, found, at
                at = min(max(at - step, middle[i] - _FARTHEST), middle[i] + _FARTHEST)
                if abs(step) < _NEAR:
                    break
            shift = at - middle[i]
            x[place[i]] = before - shift if back else before + shift
    return bent


class Straight:
    """Straight coordinates around one point.

    Parameters
    ----------
    posterior
        The posterior.
    layout
        Of its hypothesis.
    z
        The point, shape ``(size,)``, which has the same coordinates in both.
    occupied_s
        Expected time in each state there, shape ``(n_states,)``.
    """

    def __init__(
        self, posterior: StructuredPosterior, layout: Layout, z: Array, occupied_s: Array
    ) -> None:
        self._posterior, self._layout = posterior, layout
        gates = posterior.rates(z)[0]
        own = posterior.values(z)[posterior.model.exciton_parameter("exciton_lifetime_ns", 0)]
        self._late = _lateness(posterior.recorder.table, float(own))
        kept: list[tuple[int, int, int, int, float, float, float]] = []
        for place, kind, first, second in _chosen(posterior, z, gates.sum(axis=1) * occupied_s):
            step = np.zeros(z.size)
            step[place] = _STEP
            low, here, high = (
                _quantity(posterior.rates(at)[0], kind, first, second, self._late)
                for at in (z - step, z, z + step)
            )
            slope = (high - low) / (2.0 * _STEP)
            if abs(slope) > _LEAST_SLOPE:
                kept.append((place, kind, first, second, float(z[place]), here, slope))
        columns = list(zip(*kept, strict=True)) if kept else [()] * 7
        whole = tuple(np.array(column, dtype=np.int64) for column in columns[:4])
        self._chosen = (*whole, *(np.array(column, dtype=np.float64) for column in columns[4:]))

    def bent(self, points: Array) -> Array:
        """Plain coordinates of points given in straight ones, shape ``(n, size)``."""
        return self._bend(points, False)

    def unbent(self, points: Array) -> Array:
        """Straight coordinates of points given in plain ones, shape ``(n, size)``."""
        return self._bend(points, True)

    def _bend(self, points: Array, back: bool) -> Array:
        return np.asarray(_bend(
            np.ascontiguousarray(points), back, self._posterior.model.n_states,
            len(self._posterior.names), self._layout.priors, self._layout.structure,
            self._layout.instrument, self._late, *self._chosen,
        ))  # fmt: skip


def _lateness(table: DecayTable, lifetime_ns: float) -> Array:
    """Delay t after the pulse of each gate as t / (t + lifetime).

    So late background counts no more than other late light.
    """
    stops = np.cumsum(table.background / table.background.sum()) * table.period_ns
    middle = stops - 0.5 * np.diff(stops, prepend=0.0)
    pulse_ns = float(middle @ table.scatter[1, 1] / table.scatter[1, 1].sum())
    after = np.maximum(middle - pulse_ns, 0.05 * lifetime_ns)
    return np.asarray(after / (after + lifetime_ns))


def _chosen(
    posterior: StructuredPosterior, z: Array, photons: Array
) -> list[tuple[int, int, int, int]]:
    """Coordinates that are shifted, what each keeps in place, and of which states."""
    model, values, names = posterior.model, posterior.values(z), posterior.names
    top = int(np.argmax(photons))
    emitters, n_dim = range(model.n_emitters), len(model.levels) - 1
    rates = [float(values[model.exciton_parameter("exciton_rate_per_s", e)]) for e in emitters]
    brighter = int(np.argmax(rates))
    found = [
        (names.index(model.exciton_parameter("exciton_lifetime_ns", brighter)), _DELAY, top, top)
    ]
    for emitter in emitters:
        if emitter != brighter and model.parts:
            # seen best where the other one is dim
            _, seen = _neighbours(model, top, brighter, 0)
            name = model.exciton_parameter("exciton_lifetime_ns", emitter)
            found.append((names.index(name), _DELAY, seen, seen))
    for emitter, number in itertools.product(emitters, range(len(model.parts))):
        part = model.parts[number]
        if part.mechanism not in _BRIGHTNESS_KEY:
            continue
        low, high = _neighbours(model, top, emitter, number)
        name = model.part_parameter(part, _BRIGHTNESS_KEY[part.mechanism], emitter)
        found.append((names.index(name), _RATIO, high, low))
        if part.mechanism == "other":
            place = names.index(model.part_parameter(part, "relative_lifetime", emitter))
            found.append((place, _DELAY, high, high))
        else:
            configuration = int(model.configurations[high if high != top else low, emitter])
            if configuration > 0:
                place = len(names) + emitter * n_dim + configuration - 1
                seen = high if high != top else low
                found.append((place, _DELAY, seen, seen))
    name = model.exciton_parameter("exciton_rate_per_s", brighter)
    return [*found, (names.index(name), _TOTAL, top, top)]


def _neighbours(model: StructuredModel, top: int, emitter: int, part: int) -> tuple[int, int]:
    """States with a part at its lowest and next level, all else as in the state `top`."""
    levels, states = model.levels, [tuple(row) for row in model.configurations.tolist()]
    pair = []
    for level in (0, 1):
        own = list(levels[states[top][emitter]])
        own[part] = level
        state = list(states[top])
        state[emitter] = levels.index(tuple(own))
        pair.append(states.index(tuple(state)))
    return pair[0], pair[1]
