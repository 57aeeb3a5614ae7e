"""The likelihood of a binned trace: value, gradient, smoothing, paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm import dense_kernels, numba_columns
from pncbayes.hmm import numba_kernels as kernels
from pncbayes.hmm.emission import (
    CameraEmission,
    Emission,
    NegativeBinomialEmission,
    PoissonEmission,
    mixed_excess,
    mixed_excess_pullback,
)
from pncbayes.hmm.nodes import choose_n_nodes, nodes_wanted
from pncbayes.hmm.runs import find_runs, share_rows
from pncbayes.hmm.slopes import ColumnSlopes, Gradient
from pncbayes.hmm.sparse import Active, SparseColumns
from pncbayes.hmm.switching import (
    n_pairs,
    pair_nodes,
    switch_weights,
    switch_weights_pullback,
)

__all__ = ["BinnedLikelihood", "Gradient", "choose_n_nodes"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


# Exits per bin beyond which the chain is at rest within a bin: indistinguishable from one level.
FASTEST_PER_BIN = 100.0


class BinnedLikelihood:
    """Likelihood of counts per bin and gate under a chain that switches inside the bins.

    Parameters
    ----------
    counts
        Counts, shape ``(n_bins, n_gates)``, or camera counts of shape ``(n_bins, 1)``.
    width_s
        Bin width in s.
    n_nodes
        Quadrature nodes per pair of states; by `choose_n_nodes` if not given.
    excess_noise
        Whether each state has an excess variance ratio (negative binomial totals).
    camera
        Gain, offset, read noise and excess factor of a camera; None for photon counts.

    Raises
    ------
    ValueError
        If counts are empty, negative or not finite, or the width is not positive.
    """

    def __init__(
        self,
        counts: NDArray[np.generic],
        width_s: float,
        *,
        n_nodes: int | None = None,
        excess_noise: bool = False,
        camera: tuple[float, float, float, float] | None = None,
    ) -> None:
        data = np.asarray(counts, dtype=np.float64)
        if data.ndim == 1:
            data = data[:, None]
        if data.ndim != 2 or data.shape[0] == 0:
            raise ValueError(f"`counts` must have shape (n_bins, n_gates), got {data.shape}")
        if not np.isfinite(data).all() or (camera is None and data.min() < 0):
            raise ValueError("`counts` must be finite and not negative; mask or repair the trace")
        if not (np.isfinite(width_s) and width_s > 0):
            raise ValueError(f"`width_s` must be a positive time in s, got {width_s}")
        self.width_s = float(width_s)
        self.n_bins, self.n_gates = data.shape
        self.totals = data.sum(axis=1)
        # bins with equal counts share one matrix: the work no longer grows with the nodes
        shared = share_rows(data)
        self.shares_rows = shared is not None
        rows, row_of_bin = shared or (data, np.arange(self.n_bins, dtype=np.int64))
        self.row_of_bin = row_of_bin
        self._grouped = kernels.group_bins(row_of_bin, len(rows))
        self.gate_totals = data.sum(axis=0)
        self.emission: Emission
        if camera is not None:
            if excess_noise:
                raise ValueError("`excess_noise` is for photon counts; a camera has its own noise")
            self.emission = CameraEmission(rows, *camera)
            scaled = np.maximum((self.totals - camera[1]) / camera[0], 0.0)
        else:
            family = NegativeBinomialEmission if excess_noise else PoissonEmission
            self.emission = family(rows)
            scaled = self.totals
        if isinstance(self.emission, PoissonEmission):
            steps, parts = find_runs(row_of_bin, len(rows))
            self._data = (*self.emission.transposed(), steps, parts)
            self._grouped_steps = kernels.group_bins(steps, len(rows) + len(parts))
        wanted = nodes_wanted(scaled)
        if n_nodes is None:
            n_nodes = choose_n_nodes(scaled, most=48 if self.n_gates == 1 else 16)
        self.nodes_too_few = wanted / n_nodes
        self.nodes, self.node_weights = pair_nodes(n_nodes)

    @property
    def n_nodes(self) -> int:
        """Quadrature nodes per pair of states."""
        return int(self.nodes.size)

    def column_shares(self, n_states: int) -> Array:
        """Share of the bin that each column spends in each state, ``(n_columns, n_states)``."""
        shares = np.zeros((n_states + n_pairs(n_states) * self.n_nodes, n_states))
        shares[:n_states] = np.eye(n_states)
        start = n_states
        for i in range(n_states):
            for j in range(i + 1, n_states):
                shares[start : start + self.n_nodes, i] = 1.0 - self.nodes
                shares[start : start + self.n_nodes, j] = self.nodes
                start += self.n_nodes
        return shares

    def _columns(
        self, gate_rate_per_s: Array, excess: Array | None
    ) -> tuple[Array, Array, Array, Array, Array | None]:
        shares = self.column_shares(gate_rate_per_s.shape[0])
        of_states = gate_rate_per_s * self.width_s
        means = shares @ of_states
        column_excess = None if excess is None else mixed_excess(shares, of_states, excess)
        columns = self.emission.log_columns(means, column_excess)
        largest = numba_columns.subtract_row_maximum(columns)
        np.exp(columns, out=columns)
        return columns, largest, shares, means, column_excess

    def _initial(self, n_states: int) -> Array:
        # uniform: a stationary start would let one dwell of a slow dot speak twice
        return np.full(n_states, 1.0 / n_states)

    def value(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
        *,
        active: Active | None = None,
    ) -> float:
        """Log-likelihood.

        Parameters
        ----------
        gate_rate_per_s
            Counts per s in each gate, background included, shape ``(n_states, n_gates)``.
        transition_rate_per_s
            Shape ``(n_states, n_states)``; the diagonal is ignored.
        excess
            Excess variance ratio of each state, shape ``(n_states,)``; needed with excess noise.
        active
            Rows of each pair of states in which a switch is worth considering, as
            `active_rows` gives them; all rows if not given.

        Returns
        -------
        float
            Natural logarithm, with all constants.
        """
        if self._too_fast(transition_rate_per_s):
            return -np.inf
        stay, pair_weights = switch_weights(
            transition_rate_per_s, self.width_s, self.nodes, self.node_weights
        )
        initial = self._initial(stay.size)
        if active is not None:
            sparse = SparseColumns(self, gate_rate_per_s, excess, active)
            matrices = sparse.matrices(stay, pair_weights)
            value = kernels.forward(matrices, self.row_of_bin, initial)
            return value + self._scale(sparse.largest) + active.constant
        if isinstance(self.emission, PoissonEmission):
            gate_rate = np.ascontiguousarray(gate_rate_per_s, dtype=np.float64)
            return dense_kernels.value(
                *self._data, gate_rate, self.width_s, self.nodes, stay, pair_weights
            )
        columns, largest, *_ = self._columns(gate_rate_per_s, excess)
        matrices = numba_columns.bin_matrices(columns, stay, pair_weights)
        return self._scale(largest) + kernels.forward(matrices, self.row_of_bin, initial)

    def _too_fast(self, transition_rate_per_s: Array) -> bool:
        exits = transition_rate_per_s.sum(axis=1) - transition_rate_per_s.diagonal()
        return bool(exits.max() * self.width_s > FASTEST_PER_BIN)

    def _scale(self, largest: Array) -> float:
        return float(largest[self.row_of_bin].sum())

    def gradient(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
        *,
        active: Active | None = None,
    ) -> Gradient:
        """Log-likelihood and its derivatives; parameters as in `value`.

        Where the value is minus infinity the derivatives are 0.
        """
        if self._too_fast(transition_rate_per_s):
            return Gradient.impossible(gate_rate_per_s, excess)
        if active is None and isinstance(self.emission, PoissonEmission):
            found, gate_rate, transition_rate, occupied = dense_kernels.gradient(
                *self._data,
                *self._grouped_steps,
                np.ascontiguousarray(gate_rate_per_s, dtype=np.float64),
                self.width_s,
                np.ascontiguousarray(transition_rate_per_s, dtype=np.float64),
                self.nodes,
                self.node_weights,
            )
            return Gradient(found, gate_rate, transition_rate, None, occupied * self.width_s)
        stay, pair_weights = switch_weights(
            transition_rate_per_s, self.width_s, self.nodes, self.node_weights
        )
        initial = self._initial(stay.size)
        if active is not None:
            sparse = SparseColumns(self, gate_rate_per_s, excess, active)
            matrices = sparse.matrices(stay, pair_weights)
            value, slope, _ = kernels.forward_backward_grouped(
                matrices, self.row_of_bin, *self._grouped, initial
            )
            if not np.isfinite(value):
                return Gradient.impossible(gate_rate_per_s, excess)
            parts = sparse.pullback(slope, stay, pair_weights)
            value += active.constant
            largest = sparse.largest
        else:
            columns, largest, shares, means, column_excess = self._columns(gate_rate_per_s, excess)
            matrices = numba_columns.bin_matrices(columns, stay, pair_weights)
            value, matrix_slope, _ = kernels.forward_backward_grouped(
                matrices, self.row_of_bin, *self._grouped, initial
            )
            if not np.isfinite(value):
                return Gradient.impossible(gate_rate_per_s, excess)
            slope, stay_slope, pair_slope = numba_columns.columns_pullback(
                columns, matrix_slope, stay, pair_weights
            )
            means_slope, excess_slope = self.emission.pullback(means, column_excess, slope)
            state_slope, state_excess_slope = shares.T @ means_slope, None
            if excess is not None and excess_slope is not None:
                total_slope, state_excess_slope = mixed_excess_pullback(
                    shares, gate_rate_per_s * self.width_s, excess, excess_slope
                )
                state_slope += total_slope[:, None]
            parts = ColumnSlopes(
                state_slope,
                state_excess_slope,
                stay_slope,
                pair_slope,
                slope.sum(axis=0) @ shares,
            )
        rates_slope = switch_weights_pullback(
            transition_rate_per_s,
            self.width_s,
            self.nodes,
            self.node_weights,
            parts.stay,
            parts.pair_weights,
        )
        return Gradient(
            value=self._scale(largest) + value,
            gate_rate=parts.means * self.width_s,
            transition_rate=rates_slope,
            excess=parts.excess,
            occupied_s=parts.occupied * self.width_s,
        )

    def active_rows(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
        *,
        tolerance: float = 0.05,
        besides: Active | None = None,
    ) -> Active | None:
        """Rows of each pair of states whose posterior probability of a switch is not negligible.

        Most bins of a trace hold no switch. The rows left out hold, for each pair and all
        together, at most `tolerance` switches; what that takes from the log-likelihood here is
        added back as a constant, so that only its change away from these parameters is lost.

        `besides`: rows to consider in any case, as chosen at other parameters.

        Returns
        -------
        Active or None
            None where bins share rows and there is nothing to save.
        """
        n_states = gate_rate_per_s.shape[0]
        if self.shares_rows or n_states == 1:
            return None
        columns, largest, *_ = self._columns(gate_rate_per_s, excess)
        stay, pair_weights = switch_weights(
            transition_rate_per_s, self.width_s, self.nodes, self.node_weights
        )
        matrices = numba_columns.bin_matrices(columns, stay, pair_weights)
        initial = self._initial(n_states)
        value, slope, _ = kernels.forward_backward(matrices, self.row_of_bin, initial)
        if not np.isfinite(value):
            return None
        mass = numba_columns.pair_mass(columns, slope, stay, pair_weights)
        threshold = tolerance / self.n_bins
        rows = [np.flatnonzero(column > threshold) for column in mass.T]
        if besides is not None:
            rows = [np.union1d(own, other) for own, other in zip(rows, besides.rows, strict=True)]
        active = Active.choose(self.emission, rows)
        sparse = SparseColumns(self, gate_rate_per_s, excess, active)
        matrices = sparse.matrices(stay, pair_weights)
        without = kernels.forward(matrices, self.row_of_bin, initial) + self._scale(sparse.largest)
        return replace(active, constant=value + self._scale(largest) - without)

    def _matrices(
        self, gate_rate_per_s: Array, transition_rate_per_s: Array, excess: Array | None
    ) -> tuple[Array, Array, Array, Array]:
        columns, *_ = self._columns(gate_rate_per_s, excess)
        stay, pair_weights = switch_weights(
            transition_rate_per_s, self.width_s, self.nodes, self.node_weights
        )
        return numba_columns.bin_matrices(columns, stay, pair_weights), columns, stay, pair_weights

    def _bare_matrices(
        self, gate_rate_per_s: Array, transition_rate_per_s: Array, excess: Array | None
    ) -> tuple[Array, Array]:
        """Matrices of the rows without their columns, and the probabilities to stay."""
        if not isinstance(self.emission, PoissonEmission):
            matrices, _, stay, _ = self._matrices(gate_rate_per_s, transition_rate_per_s, excess)
            return matrices, stay
        weights = switch_weights(transition_rate_per_s, self.width_s, self.nodes, self.node_weights)
        gate_rate = np.ascontiguousarray(gate_rate_per_s, dtype=np.float64)
        matrices, _ = dense_kernels.matrices(
            *self._data[:2], gate_rate, self.width_s, self.nodes, *weights
        )
        return matrices, weights[0]

    def smooth(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
    ) -> tuple[Array, Array]:
        """Posterior share of each bin in each state, and state probabilities at the bin edges.

        Returns
        -------
        occupancy : ndarray
            Shape ``(n_bins, n_states)``.
        edges : ndarray
            Shape ``(n_bins + 1, n_states)``.
        """
        matrices, columns, stay, pair_weights = self._matrices(
            gate_rate_per_s, transition_rate_per_s, excess
        )
        parts = numba_columns.time_parts(columns, stay, pair_weights, self.nodes)
        return kernels.smooth(matrices, parts, self.row_of_bin, self._initial(stay.size))

    def most_probable_path(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
    ) -> Index:
        """Most probable states at the bin edges, shape ``(n_bins + 1,)``."""
        matrices, stay = self._bare_matrices(gate_rate_per_s, transition_rate_per_s, excess)
        return kernels.most_probable_path(matrices, self.row_of_bin, self._initial(stay.size))

    def sample_paths(
        self,
        gate_rate_per_s: Array,
        transition_rate_per_s: Array,
        excess: Array | None = None,
        *,
        n_paths: int = 1,
        random_seed: int | np.random.Generator | None = None,
        active: Active | None = None,
    ) -> Index:
        """Draw states at the bin edges from their joint posterior, ``(n_paths, n_bins + 1)``."""
        rng = np.random.default_rng(random_seed)
        if active is not None:
            stay, pair_weights = switch_weights(
                transition_rate_per_s, self.width_s, self.nodes, self.node_weights
            )
            sparse = SparseColumns(self, gate_rate_per_s, excess, active)
            matrices = sparse.matrices(stay, pair_weights)
        else:
            matrices, stay = self._bare_matrices(gate_rate_per_s, transition_rate_per_s, excess)
        initial = self._initial(stay.size)
        return np.stack(
            [
                kernels.sample_path(matrices, self.row_of_bin, initial, rng.random(self.n_bins + 1))
                for _ in range(n_paths)
            ]
        )
