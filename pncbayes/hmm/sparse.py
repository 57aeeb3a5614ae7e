"""Emission columns worked out only in the bins where they matter.

A switch inside a bin is a rare event. The mixed columns of a pair of states are evaluated in the
rows where the posterior says that such a switch may have happened, and are zero elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.hmm.emission import Emission, mixed_excess, mixed_excess_pullback
from pncbayes.hmm.slopes import ColumnSlopes

if TYPE_CHECKING:
    from pncbayes.hmm.likelihood import BinnedLikelihood

__all__ = ["Active", "SparseColumns"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Active:
    """Rows of each pair of states in which a switch is considered.

    Attributes
    ----------
    rows
        Row numbers, one array per pair.
    parts
        The data of those rows.
    constant
        Log-likelihood that leaving out the other rows takes, where the rows were chosen.
    """

    rows: list[NDArray[np.intp]]
    parts: list[Emission]
    constant: float

    @classmethod
    def choose(cls, emission: Emission, rows: list[NDArray[np.intp]]) -> Active:
        """Take the rows of each pair out of the data once, for all evaluations to come."""
        return cls(rows, [emission.take(some) for some in rows], 0.0)


@njit(cache=True)
def raise_maximum(values: Array, rows: NDArray[np.intp], largest: Array, first: bool) -> None:
    """Raise ``largest[rows]`` to the largest entry of each row of `values`, in place."""
    # NumPy's reduction over a short last axis costs ten times as much
    for k in range(rows.shape[0]):
        top = values[k, 0] if first else largest[rows[k]]
        for m in range(values.shape[1]):
            if values[k, m] > top:
                top = values[k, m]
        largest[rows[k]] = top


@njit(cache=True)
def subtract_rows(values: Array, rows: NDArray[np.intp], largest: Array) -> None:
    """Subtract ``largest[rows]`` from each row of `values`, in place."""
    for k in range(rows.shape[0]):
        top = largest[rows[k]]
        # counts that no column can give: minus infinity stays what it is
        if top > -np.inf:
            for m in range(values.shape[1]):
                values[k, m] -= top


@njit(cache=True)
def scatter(matrices: Array, rows: NDArray[np.intp], i: int, j: int, entries: Array) -> None:
    """Add the four entries of a pair to the matrices of its rows, in place."""
    for k in range(rows.shape[0]):
        row = rows[k]
        matrices[row, i, j] = entries[k, 0]
        matrices[row, j, i] = entries[k, 1]
        matrices[row, i, i] += entries[k, 2]
        matrices[row, j, j] += entries[k, 3]


@njit(cache=True)
def gather(matrices: Array, rows: NDArray[np.intp], i: int, j: int) -> Array:
    """Four entries of a pair from the matrices of its rows, shape ``(n, 4)``."""
    entries = np.empty((rows.shape[0], 4))
    for k in range(rows.shape[0]):
        row = rows[k]
        entries[k, 0] = matrices[row, i, j]
        entries[k, 1] = matrices[row, j, i]
        entries[k, 2] = matrices[row, i, i]
        entries[k, 3] = matrices[row, j, j]
    return entries


class SparseColumns:
    """Likelihood of the rows under pure states, and under the mixtures of each pair where active.

    Parameters
    ----------
    likelihood
        Data and nodes.
    gate_rate_per_s
        Shape ``(n_states, n_gates)``.
    excess
        Excess variance ratios, shape ``(n_states,)``, or None.
    active
        Rows of each pair, where the others may be left out.
    """

    def __init__(
        self,
        likelihood: BinnedLikelihood,
        gate_rate_per_s: Array,
        excess: Array | None,
        active: Active,
    ) -> None:
        self.emission, self.nodes = likelihood.emission, likelihood.nodes
        self.active = active.rows
        self.n_states = gate_rate_per_s.shape[0]
        self.pairs = [(i, j) for i in range(self.n_states) for j in range(i + 1, self.n_states)]
        self.means = gate_rate_per_s * likelihood.width_s
        self.excess = excess
        self.pure = self.emission.log_columns(self.means, excess)
        self.largest = np.zeros(self.pure.shape[0])
        everything = np.arange(self.pure.shape[0])
        raise_maximum(self.pure, everything, self.largest, True)
        self.parts = active.parts
        self.mixed_means = [self._mixed_means(i, j) for i, j in self.pairs]
        self.mixed: list[Array] = []
        for rows, part, means in zip(self.active, self.parts, self.mixed_means, strict=True):
            logs = part.log_columns(*means)
            raise_maximum(logs, rows, self.largest, False)
            self.mixed.append(logs)
        subtract_rows(self.pure, everything, self.largest)
        np.exp(self.pure, out=self.pure)
        for rows, logs in zip(self.active, self.mixed, strict=True):
            subtract_rows(logs, rows, self.largest)
            np.exp(logs, out=logs)

    def _mixed_means(self, i: int, j: int) -> tuple[Array, Array | None]:
        w = self.nodes[:, None]
        means = (1.0 - w) * self.means[i] + w * self.means[j]
        if self.excess is None:
            return means, None
        return means, mixed_excess(self._shares(), self.means[[i, j]], self.excess[[i, j]])

    def _shares(self) -> Array:
        """Share of the bin that each node spends in the two states, shape ``(n_nodes, 2)``."""
        return np.column_stack([1.0 - self.nodes, self.nodes])

    def matrices(self, stay: Array, pair_weights: Array) -> Array:
        """Matrix of each row, shape ``(n_rows, n_states, n_states)``."""
        matrices = np.zeros((self.pure.shape[0], self.n_states, self.n_states))
        diagonal = np.arange(self.n_states)
        matrices[:, diagonal, diagonal] = self.pure * stay
        for (i, j), rows, mixed, weights in zip(
            self.pairs, self.active, self.mixed, pair_weights, strict=True
        ):
            scatter(matrices, rows, i, j, mixed @ weights.T)
        return matrices

    def pullback(self, matrix_slope: Array, stay: Array, pair_weights: Array) -> ColumnSlopes:
        """Carry the derivative of the matrices back to means, excess and weights."""
        diagonal = np.arange(self.n_states)
        on_diagonal = matrix_slope[:, diagonal, diagonal] * self.pure
        stay_slope = np.ones(on_diagonal.shape[0]) @ on_diagonal
        on_diagonal *= stay
        means_slope, excess_slope = self.emission.pullback(self.means, self.excess, on_diagonal)
        occupied = stay_slope * stay
        pair_slope = np.zeros_like(pair_weights)
        w = self.nodes
        for index, ((i, j), rows) in enumerate(zip(self.pairs, self.active, strict=True)):
            mixed = self.mixed[index]
            entries = gather(matrix_slope, rows, i, j)
            pair_slope[index] = entries.T @ mixed
            slope = entries @ pair_weights[index]
            slope *= mixed
            # the posterior mass of each node, from the weights' own derivative
            mass = (pair_slope[index] * pair_weights[index]).sum(axis=0)
            occupied[i] += mass @ (1.0 - w)
            occupied[j] += mass @ w
            mixed_slope, mixed_excess_slope = self.parts[index].pullback(
                *self.mixed_means[index], slope
            )
            means_slope[i] += (1.0 - w) @ mixed_slope
            means_slope[j] += w @ mixed_slope
            if self.excess is None or excess_slope is None or mixed_excess_slope is None:
                continue
            both = [i, j]
            total_slope, state_slope = mixed_excess_pullback(
                self._shares(), self.means[both], self.excess[both], mixed_excess_slope
            )
            means_slope[both] += total_slope[:, None]
            excess_slope[both] += state_slope
        return ColumnSlopes(means_slope, excess_slope, stay_slope, pair_slope, occupied)
