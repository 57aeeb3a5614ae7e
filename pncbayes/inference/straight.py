"""Coordinates in which the narrow, curved ridges of a structured posterior are straight.

Many photons know the total rate of a state to a per mille, and so its mean delay; what the total is
made of, they know far less. In plain coordinates that is a thin curved shell, along which nothing
walks far. Here a few coordinates are shifted, all at once, by what keeps these quantities where
they are at the mode, whatever the other coordinates do. The shift depends on those others alone, so
that volumes stay what they are.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.structured import StructuredPosterior
from pncbayes.physics.structured_kernels import Layout, fill_gate_rates, fill_values
from pncbayes.physics.tied_decay import DecayTable

__all__ = ["Straight"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_STEP = 1e-3
# A coordinate is shifted where its prior is wider than what the photons leave by this factor.
_LEAST_SLOPE = 5.0
# Most steps to the targets, the longest of them, and how far all go together; residuals are over
# what the photons leave.
_MOST_STEPS, _LONGEST, _FARTHEST, _SETTLED = 12, 1.0, 4.0, 0.01
_TOTAL, _DELAY = 0, 1


@njit(cache=True, error_model="numpy")
def _quantity(gates, kind, state, late):  # type: ignore[no-untyped-def]
    """Log of the total of a state, or of its mean lateness."""
    total, delays = 0.0, 0.0
    for gate in range(late.size):
        total += gates[state, gate]
        delays += gates[state, gate] * late[gate]
    if kind == _TOTAL:
        return math.log(max(total, 1e-300))
    return math.log(max(delays, 1e-300) / max(total, 1e-300))


@njit(cache=True, error_model="numpy")
def _bend(  # type: ignore[no-untyped-def]
    points, sign, n_states, n_values, priors, structure, instrument, late,
    places, kinds, states, wanted, middle, target, weight, inverse,
):  # fmt: skip
    """Shift coordinates (times `sign`) so that all quantities have their targets: Broyden steps.

    `inverse`: of the derivatives of the weighted quantities in the middle.
    """
    bent = points.copy()
    n = places.size
    values, gates = np.empty(n_values), np.zeros((n_states, late.size))
    before, at, step = np.empty(n), np.empty(n), np.empty(n)
    off, change, moved, row = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    slopes = np.empty((n, n))
    for k in range(bent.shape[0]):
        x = bent[k]
        slopes[:] = inverse
        for i in range(n):
            before[i], at[i] = x[places[i]], middle[i]
        for number in range(_MOST_STEPS):
            for i in range(n):
                x[places[i]] = at[i]
            fill_values(x, priors, values)
            fill_gate_rates(values, x[n_values:], structure, instrument, wanted, gates)
            most, finite = 0.0, True
            for i in range(n):
                found = weight[i] * (_quantity(gates, kinds[i], states[i], late) - target[i])
                finite = finite and math.isfinite(found)
                change[i], off[i] = found - off[i], found
                most = max(most, abs(found))
            if not finite or most < _SETTLED:
                break
            if number > 0:
                # good Broyden: the last step, as far as it was not foreseen
                for i in range(n):
                    moved[i], row[i] = 0.0, 0.0
                    for j in range(n):
                        moved[i] += slopes[i, j] * change[j]
                        row[i] += step[j] * slopes[j, i]
                scale = 0.0
                for i in range(n):
                    scale += step[i] * moved[i]
                if abs(scale) > 1e-12:
                    for i in range(n):
                        for j in range(n):
                            slopes[i, j] += (step[i] - moved[i]) * row[j] / scale
            longest = 1e-300
            for i in range(n):
                step[i] = 0.0
                for j in range(n):
                    step[i] -= slopes[i, j] * off[j]
                longest = max(longest, abs(step[i]))
            for i in range(n):
                to = at[i] + step[i] * min(1.0, _LONGEST / longest)
                to = min(max(to, middle[i] - _FARTHEST), middle[i] + _FARTHEST)
                step[i], at[i] = to - at[i], to
        for i in range(n):
            x[places[i]] = before[i] + sign * (at[i] - middle[i])
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
    candidates
        Coordinates that may be shifted.

    Attributes
    ----------
    shifted
        Those that are.
    """

    def __init__(
        self,
        posterior: StructuredPosterior,
        layout: Layout,
        z: Array,
        occupied_s: Array,
        candidates: Index,
    ) -> None:
        self._posterior, self._layout = posterior, layout
        gates = posterior.rates(z)[0]
        own = posterior.values(z)[posterior.model.exciton_parameter("exciton_lifetime_ns", 0)]
        self._late = _lateness(posterior.recorder.table, float(own))
        n_states = posterior.model.n_states
        kinds = np.repeat(np.array([_TOTAL, _DELAY], dtype=np.int64), n_states)
        states = np.tile(np.arange(n_states, dtype=np.int64), 2)
        # what n photons say of a total; and, roughly, of the lateness of a decay that scatters
        n_photons = np.maximum(gates.sum(axis=1) * occupied_s, 0.0)
        concentration = posterior.rates(z)[2]
        of_delay = n_photons * concentration / (n_photons + concentration)
        weight = np.sqrt(np.concatenate([n_photons, of_delay]))
        slopes = np.empty((kinds.size, len(candidates)))
        for column, place in enumerate(candidates):
            step = np.zeros(z.size)
            step[place] = _STEP
            low, high = (self._quantities(at, kinds, states) for at in (z - step, z + step))
            slopes[:, column] = weight * (high - low) / (2.0 * _STEP)
        rows, columns = _pivots(slopes)
        self.shifted = candidates[columns]
        middle = z[candidates[columns]]
        target = self._quantities(z, kinds[rows], states[rows])
        inverse = np.linalg.inv(slopes[np.ix_(rows, columns)]) if len(rows) else np.empty((0, 0))
        self._chosen = (
            self.shifted, kinds[rows], states[rows], np.unique(states[rows]), middle,
            target, weight[rows], inverse,
        )  # fmt: skip

    def _quantities(self, z: Array, kinds: Index, states: Index) -> Array:
        gates = self._posterior.rates(z)[0]
        return np.array([
            _quantity(gates, kind, state, self._late)
            for kind, state in zip(kinds, states, strict=True)
        ])  # fmt: skip

    def bent(self, points: Array) -> Array:
        """Plain coordinates of points given in straight ones, shape ``(n, size)``."""
        return self._bend(points, 1.0)

    def unbent(self, points: Array) -> Array:
        """Straight coordinates of points given in plain ones, shape ``(n, size)``."""
        return self._bend(points, -1.0)

    def _bend(self, points: Array, sign: float) -> Array:
        if not len(self._chosen[0]):
            return np.array(points)
        return np.asarray(_bend(
            np.ascontiguousarray(points), sign, self._posterior.model.n_states,
            len(self._posterior.names), self._layout.priors, self._layout.structure,
            self._layout.instrument, self._late, *self._chosen,
        ))  # fmt: skip


def _pivots(slopes: Array) -> tuple[Index, Index]:
    """Rows and columns of the largest slopes, each as far as those before it do not explain it."""
    rows: list[int] = []
    columns: list[int] = []
    left = slopes.copy()
    while len(rows) < min(slopes.shape):
        row, column = divmod(int(np.argmax(np.abs(left))), left.shape[1])
        if not abs(left[row, column]) > _LEAST_SLOPE:
            break
        rows.append(row)
        columns.append(column)
        left = left - np.outer(left[:, column], left[row]) / left[row, column]
    return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)


def _lateness(table: DecayTable, lifetime_ns: float) -> Array:
    """Delay t after the pulse of each gate as t / (t + lifetime).

    So late background counts no more than other late light.
    """
    stops = np.cumsum(table.background / table.background.sum()) * table.period_ns
    middle = stops - 0.5 * np.diff(stops, prepend=0.0)
    pulse_ns = float(middle @ table.scatter[1, 1] / table.scatter[1, 1].sum())
    after = np.maximum(middle - pulse_ns, 0.05 * lifetime_ns)
    return np.asarray(after / (after + lifetime_ns))
