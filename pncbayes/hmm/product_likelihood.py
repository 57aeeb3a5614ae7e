"""Likelihood of levels that switch inside the bins, times a flicker that moves between them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm import product_kernels as kernels
from pncbayes.hmm.nodes import choose_n_nodes
from pncbayes.hmm.product_emission import Columns, ProductEmission
from pncbayes.hmm.switching import pair_nodes, switch_weights, switch_weights_pullback

__all__ = ["ProductActive", "ProductGradient", "ProductLikelihood"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Entries of all matrices of a chunk of bins, where all bins are looked at.
_CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class ProductActive:
    """Bins in which a switch is worth considering.

    Attributes
    ----------
    bins
        Bins of each pair of levels.
    parts
        The counts of those bins.
    at
        Matrix of each of those bins, among all bins that have one.
    matrix_of_bin
        Matrix of each bin, or -1.
    n_matrices
        Bins that have one.
    constant
        Log-likelihood that leaving out the others takes, where the bins were chosen.
    """

    bins: list[Index]
    parts: list[ProductEmission]
    at: list[Index]
    matrix_of_bin: Index
    n_matrices: int
    constant: float = 0.0


@dataclass(frozen=True)
class ProductGradient:
    """Log-likelihood and its derivatives.

    Attributes
    ----------
    value
        Log-likelihood.
    means
        By expected counts per bin, shape ``(n_levels, n_points, n_gates)``.
    transition_rate
        By the rates of switching, ``(n_levels, n_levels)``.
    flicker
        By the transitions of the flicker, ``(n_points, n_points)``.
    extra_variance
        By the extra variance of the totals, ``(n_levels, n_points)``, or None.
    occupied
        Bins spent in each level and point, ``(n_levels, n_points)``.
    """

    value: float
    means: Array
    transition_rate: Array
    flicker: Array
    extra_variance: Array | None
    occupied: Array


class ProductLikelihood:
    """Likelihood of counts per bin and gate under levels times flicker.

    The level is a chain in continuous time, with switches inside the bins as in
    `pncbayes.hmm.likelihood`; the flicker has one value per bin.

    Parameters
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    n_nodes
        Quadrature nodes per pair of levels; by `choose_n_nodes` if not given.

    Raises
    ------
    ValueError
        If counts are empty, negative or not finite, or the width is not positive.
    """

    def __init__(self, counts: Array, width_s: float, *, n_nodes: int | None = None) -> None:
        data = np.asarray(counts, dtype=np.float64)
        if data.ndim != 2 or data.shape[0] == 0:
            raise ValueError(f"`counts` must have shape (n_bins, n_gates), got {data.shape}")
        if not np.isfinite(data).all() or data.min() < 0:
            raise ValueError("`counts` must be finite and not negative; mask or repair the trace")
        if not (np.isfinite(width_s) and width_s > 0):
            raise ValueError(f"`width_s` must be a positive time in s, got {width_s}")
        self.width_s = float(width_s)
        self.n_bins, self.n_gates = data.shape
        self.emission = ProductEmission(data)
        self.constant = float(self.emission.constant.sum())
        if n_nodes is None:
            n_nodes = choose_n_nodes(self.emission.totals, most=12)
        self.nodes, self.node_weights = pair_nodes(n_nodes)

    def coarser(self, n_nodes: int) -> ProductLikelihood:
        """Return the same with no more than so many nodes: to tell in which bins levels switch."""
        if self.nodes.size <= n_nodes:
            return self
        other = copy(self)
        other.nodes, other.node_weights = pair_nodes(n_nodes)
        return other

    # ------------------------------------------------------------------------ columns

    def _pure(self, means: Array, extra: Array | None) -> Columns:
        n_levels, n_points, n_gates = means.shape
        flat = means.reshape(n_levels * n_points, n_gates)
        return Columns(flat, None if extra is None else extra.ravel())

    def _mixed(self, means: Array, extra: Array | None, i: int, j: int) -> Columns:
        w = self.nodes[:, None, None]
        mixed = (1.0 - w) * means[i] + w * means[j]
        flat = mixed.reshape(-1, means.shape[2])
        if extra is None:
            return Columns(flat, None)
        return Columns(flat, ((1.0 - w[..., 0]) * extra[i] + w[..., 0] * extra[j]).ravel())

    def _weights(self, transition_rate_per_s: Array) -> tuple[Array, Array]:
        rates = np.ascontiguousarray(transition_rate_per_s, dtype=np.float64)
        stay, weights = switch_weights(rates, self.width_s, self.nodes, self.node_weights)
        return stay, weights

    @staticmethod
    def _pairs(n_levels: int) -> list[tuple[int, int]]:
        return [(i, j) for i in range(n_levels) for j in range(i + 1, n_levels)]

    def everything(self, n_levels: int) -> ProductActive:
        """All bins, for all pairs."""
        every = np.arange(self.n_bins)
        n = len(self._pairs(n_levels))
        return ProductActive([every] * n, [self.emission] * n, [every] * n, every, self.n_bins)

    def _prepare(
        self, means: Array, rates: Array, extra: Array | None, active: ProductActive
    ) -> tuple[Array, Array, list[Array], list[Columns], Columns, Array, Array, float]:
        """Scaled likelihoods of all columns, and the matrices made of them."""
        n_levels, n_points, _ = means.shape
        stay, weights = self._weights(rates)
        pure_columns = self._pure(means, extra)
        pure = self.emission.log_columns(pure_columns)
        largest = np.full(self.n_bins, -np.inf)
        kernels.exponentials(pure, largest, True)
        mixed_columns, mixed = [], []
        for (i, j), part, bins in zip(
            self._pairs(n_levels), active.parts, active.bins, strict=True
        ):
            columns = self._mixed(means, extra, i, j)
            logs = part.log_columns(columns)
            own = largest[bins]
            kernels.exponentials(logs, own, True)
            largest[bins] = own
            mixed_columns.append(columns)
            mixed.append(logs)
        kernels.exponentials(pure, largest, False)
        shaped = pure.reshape(self.n_bins, n_levels, n_points)
        shaped *= stay[:, None]
        matrices = np.zeros((active.n_matrices, n_levels, n_levels, n_points))
        has = active.matrix_of_bin >= 0
        diagonal = np.arange(n_levels)
        # matrices stand in the order of their bins
        matrices[:, diagonal, diagonal] = shaped[has]
        for pair, (i, j) in enumerate(self._pairs(n_levels)):
            kernels.exponentials(mixed[pair], largest[active.bins[pair]], False)
            kernels.fill_matrices(
                matrices, active.at[pair], mixed[pair], i, j, weights[pair], n_points
            )
        scale = float(largest.sum()) + self.constant
        return shaped, matrices, mixed, mixed_columns, pure_columns, stay, weights, scale

    # -------------------------------------------------------------------------- passes

    @staticmethod
    def _initial(n_levels: int, stationary: Array) -> Array:
        # levels uniform: a stationary start would let one dwell of a slow dot speak twice
        return np.tile(stationary / n_levels, (n_levels, 1))

    def value(
        self,
        means: Array,
        transition_rate_per_s: Array,
        transition: Array,
        stationary: Array,
        extra_variance: Array | None = None,
        *,
        active: ProductActive | None = None,
    ) -> float:
        """Log-likelihood, with all constants; parameters as in `gradient`."""
        active = self.everything(means.shape[0]) if active is None else active
        pure, matrices, *_, scale = self._prepare(
            means, transition_rate_per_s, extra_variance, active
        )
        none = np.empty((0, *pure.shape[1:]))
        value = kernels.forward(
            pure, active.matrix_of_bin, matrices,
            kernels.band_diagonals(transition, means.shape[0]),
            self._initial(means.shape[0], stationary), none, none,
        )  # fmt: skip
        return float(value) + scale + active.constant

    def gradient(
        self,
        means: Array,
        transition_rate_per_s: Array,
        transition: Array,
        stationary: Array,
        extra_variance: Array | None = None,
        *,
        active: ProductActive | None = None,
    ) -> ProductGradient:
        """Log-likelihood and its derivatives, by one forward and one backward pass.

        Parameters
        ----------
        means
            Expected counts per bin, shape ``(n_levels, n_points, n_gates)``.
        transition_rate_per_s
            Rates of switching between levels, ``(n_levels, n_levels)``.
        transition
            Of the flicker over one bin, ``(n_points, n_points)``.
        stationary
            Share of the time at each point of the flicker, ``(n_points,)``.
        extra_variance
            Variance of the total beyond Poisson, counts squared per bin, ``(n_levels, n_points)``.
        active
            Bins in which switches are considered (`choose_active`); all if not given.
        """
        active = self.everything(means.shape[0]) if active is None else active
        pure, matrices, mixed, mixed_columns, columns, stay, weights, scale = self._prepare(
            means, transition_rate_per_s, extra_variance, active
        )
        value, pure_mass, matrix_mass, flicker = self._passes(
            pure, matrices, active, transition, stationary
        )
        n_levels, n_points, n_gates = means.shape
        if not np.isfinite(value):
            nothing = np.zeros((n_levels, n_points))
            return ProductGradient(
                -np.inf, np.zeros_like(means), np.zeros((n_levels, n_levels)), flicker,
                None if extra_variance is None else nothing, nothing,
            )  # fmt: skip
        has = active.matrix_of_bin >= 0
        diagonal = np.arange(n_levels)
        pure_mass[has] = matrix_mass[:, diagonal, diagonal] * pure[has]
        stay_slope = pure_mass.sum(axis=(0, 2)) / stay
        flat = pure_mass.reshape(self.n_bins, -1)
        by_means, by_extra = self.emission.slopes(columns, flat)
        means_slope = by_means.reshape(means.shape)
        extra_slope = None if by_extra is None else by_extra.reshape(n_levels, n_points)
        occupied = pure_mass.sum(axis=0)
        weight_slope = np.zeros_like(weights)
        w = self.nodes[:, None]
        for pair, (i, j) in enumerate(self._pairs(n_levels)):
            mass, weight_slope[pair] = kernels.gather_mass(
                matrix_mass, active.at[pair], mixed[pair], i, j, weights[pair], n_points
            )
            spent = mass.sum(axis=0).reshape(-1, n_points)
            occupied[i] += ((1.0 - w) * spent).sum(axis=0)
            occupied[j] += (w * spent).sum(axis=0)
            by_means, by_extra = active.parts[pair].slopes(mixed_columns[pair], mass)
            shaped = by_means.reshape(-1, n_points, n_gates)
            means_slope[i] += ((1.0 - w)[..., None] * shaped).sum(axis=0)
            means_slope[j] += (w[..., None] * shaped).sum(axis=0)
            if extra_slope is not None and by_extra is not None:
                noise = by_extra.reshape(-1, n_points)
                extra_slope[i] += ((1.0 - w) * noise).sum(axis=0)
                extra_slope[j] += (w * noise).sum(axis=0)
        rate_slope = switch_weights_pullback(
            np.ascontiguousarray(transition_rate_per_s, dtype=np.float64), self.width_s,
            self.nodes, self.node_weights, stay_slope, weight_slope,
        )  # fmt: skip
        value += scale + active.constant
        return ProductGradient(value, means_slope, rate_slope, flicker, extra_slope, occupied)

    def _passes(
        self,
        pure: Array,
        matrices: Array,
        active: ProductActive,
        transition: Array,
        stationary: Array,
    ) -> tuple[float, Array, Array, Array]:
        n_bins, n_levels, n_points = pure.shape
        messages = np.empty((n_bins, n_levels, n_points))
        stepped = np.empty_like(pure)
        diagonals = kernels.band_diagonals(transition, n_levels)
        value = kernels.forward(
            pure, active.matrix_of_bin, matrices, diagonals,
            self._initial(n_levels, stationary), messages, stepped,
        )  # fmt: skip
        pure_mass, matrix_mass = np.empty_like(pure), np.empty_like(matrices)
        flicker = np.zeros_like(transition)
        if np.isfinite(value):
            afters = np.empty_like(pure)
            back = kernels.band_diagonals(np.ascontiguousarray(transition.T), n_levels)
            kernels.backward(
                pure, active.matrix_of_bin, matrices, back, messages, stepped,
                pure_mass, matrix_mass, afters,
            )  # fmt: skip
            if n_points > 1:
                flicker = stepped.reshape(-1, n_points).T @ afters.reshape(-1, n_points)
        else:
            pure_mass[:], matrix_mass[:] = 0.0, 0.0
        return float(value), pure_mass, matrix_mass, flicker

    # --------------------------------------------------------------------- active bins

    def choose_active(
        self,
        means: Array,
        transition_rate_per_s: Array,
        transition: Array,
        stationary: Array,
        extra_variance: Array | None = None,
        *,
        tolerance: float = 0.5,
        share: float = 0.0,
    ) -> ProductActive | None:
        """Bins of each pair of levels whose probability of a switch is not negligible here.

        The bins left out hold, for each pair and all together, at most `tolerance` switches or the
        `share` of its switches, whichever is more; what that takes from the log-likelihood here is
        added back as a constant. None for one level.
        """
        n_levels, n_points, _ = means.shape
        if n_levels == 1:
            every = np.full(self.n_bins, -1, dtype=np.int64)
            return ProductActive([], [], [], every, 0)
        everything = self.everything(n_levels)
        pure, matrices, mixed, _, _, _, weights, scale = self._prepare(
            means, transition_rate_per_s, extra_variance, everything
        )
        value, _, mass, _ = self._passes(pure, matrices, everything, transition, stationary)
        if not np.isfinite(value):
            return None
        bins: list[Index] = []
        for pair, (i, j) in enumerate(self._pairs(n_levels)):
            spent, _ = kernels.gather_mass(
                mass, everything.at[pair], mixed[pair], i, j, weights[pair], n_points
            )
            switches = spent.sum(axis=1)
            # from the least on, as many bins as together hold no more than may be left out
            order = np.argsort(switches, kind="stable")
            held = np.cumsum(switches[order])
            left = int(np.searchsorted(held, max(tolerance, share * held[-1])))
            bins.append(np.sort(order[left:]))
        has = np.zeros(self.n_bins, dtype=bool)
        for some in bins:
            has[some] = True
        matrix_of_bin = np.where(has, np.cumsum(has) - 1, -1)
        parts = [self.emission.take(some) for some in bins]
        at = [matrix_of_bin[some] for some in bins]
        active = ProductActive(bins, parts, at, matrix_of_bin, int(has.sum()))
        without = self.value(
            means, transition_rate_per_s, transition, stationary, extra_variance, active=active
        )
        return replace(active, constant=value + scale - without)

    def smooth(
        self,
        means: Array,
        transition_rate_per_s: Array,
        transition: Array,
        stationary: Array,
        extra_variance: Array | None = None,
        *,
        active: ProductActive | None = None,
    ) -> Array:
        """Probability of each level and point in each bin, ``(n_bins, n_levels, n_points)``.

        In a bin that two levels share each has the share of time spent there.
        """
        active = self.everything(means.shape[0]) if active is None else active
        pure, matrices, mixed, _, _, _, weights, _ = self._prepare(
            means, transition_rate_per_s, extra_variance, active
        )
        _, mass, matrix_mass, _ = self._passes(pure, matrices, active, transition, stationary)
        n_levels, n_points, _ = means.shape
        has = active.matrix_of_bin >= 0
        diagonal = np.arange(n_levels)
        mass[has] = matrix_mass[:, diagonal, diagonal] * pure[has]
        w = self.nodes[None, :, None]
        for pair, (i, j) in enumerate(self._pairs(n_levels)):
            share, _ = kernels.gather_mass(
                matrix_mass, active.at[pair], mixed[pair], i, j, weights[pair], n_points
            )
            shaped = share.reshape(share.shape[0], self.nodes.size, n_points)
            mass[active.bins[pair], i] += ((1.0 - w) * shaped).sum(axis=1)
            mass[active.bins[pair], j] += (w * shaped).sum(axis=1)
        return mass
