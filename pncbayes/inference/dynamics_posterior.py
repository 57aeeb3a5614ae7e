"""Posterior density of a family of dynamics: levels, flicker, excess noise, on one grid of bins.

All families are seen through the same data, the same gates, the same background and the same
priors of levels and rates, so that their evidences compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.hmm.flicker_grid import FlickerGrid
from pncbayes.hmm.product_likelihood import ProductActive, ProductGradient, ProductLikelihood
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.posterior import log_selberg
from pncbayes.inference.prior_kernels import brightness_prior, switching_prior
from pncbayes.physics.dynamics_file import DynamicsPriors, load_dynamics_priors
from pncbayes.physics.flicker import (
    FLICKERS,
    Factors,
    brightness_factors,
    rate_factors,
)
from pncbayes.physics.modelfile import LogNormal, ModelFile

__all__ = ["DynamicsPosterior"]

Array = NDArray[np.float64]

# Points of the flicker, and nodes, that do to tell in which bins levels switch.
_POINTS_TO_FOCUS = 9
_NODES_TO_FOCUS = 5
# Correlation times shorter than this number of bins are noise of single bins.
_FEWEST_BINS_OF_CORRELATION = 2.0


def _log_normal(log_value: Array | float, prior: LogNormal) -> tuple[Array, Array]:
    z = (np.asarray(log_value) - np.log(prior.median)) / prior.sigma
    return -0.5 * z**2 - np.log(prior.sigma * np.sqrt(2 * np.pi)), -z / prior.sigma


class DynamicsPosterior:
    """Log posterior density of one family with one number of levels.

    Coordinates are logarithms: of the signal in each gate, of the rates, of the excess ratios, of
    amplitude and relaxation rate of the flicker; the amplitude of each level is itself; of the
    non-radiative rate it is the logit of its share of all decay.

    Parameters
    ----------
    data
        What all families see.
    model
        Priors of levels, rates and excess noise.
    family, n_levels
        Which.
    n_points
        Points of the flicker; 1 without.
    likelihood
        Of the data, where it is at hand.
    priors
        Of the flicker; those shipped if not given.
    """

    def __init__(
        self,
        data: DynamicsData,
        model: ModelFile,
        family: Family,
        n_levels: int,
        n_points: int = 1,
        likelihood: ProductLikelihood | None = None,
        priors: DynamicsPriors | None = None,
    ) -> None:
        self.priors = load_dynamics_priors() if priors is None else priors
        if family.flicker and family.flicker not in FLICKERS:
            raise ValueError(f"`flicker` must be one of {FLICKERS}, got {family.flicker!r}")
        if family.flicker == "k_nr" and data.delays is None:
            raise ValueError("a flicker of the non-radiative rate needs delays")
        self.data, self.model, self.family, self.n_levels = data, model, family, n_levels
        self.level_of = np.array(family.level_of or range(n_levels), dtype=np.intp)
        if not np.array_equal(np.unique(self.level_of), np.arange(n_levels)):
            raise ValueError(
                f"`level_of` must name each of the {n_levels} levels, got {family.level_of}"
            )
        n_states = self.n_states = self.level_of.size
        self._first = np.array([np.flatnonzero(self.level_of == k)[0] for k in range(n_levels)])
        self._pool = (self.level_of == np.arange(n_levels)[:, None]).astype(np.float64)
        self.likelihood = likelihood or ProductLikelihood(data.counts, data.width_s)
        self.grid = FlickerGrid.of(n_points if family.flicker else 1)
        self.repulsion = model.repulsion if data.n_gates == 1 else 0.0
        self._selberg = log_selberg(n_levels - 1, self.repulsion)
        self._off = ~np.eye(n_states, dtype=bool)
        if family.bleaching:
            self._off[-1] = False
        self._rates_at = n_levels * data.n_gates
        self._flicker_at = self._rates_at + int(self._off.sum())
        self._n_flicker = {"": 0, "common": 2, "level": n_levels + 1, "k_nr": 3}[family.flicker]
        self._excess_at = self._flicker_at + self._n_flicker
        self.active: ProductActive | None = None

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self._excess_at + self.n_levels * self.family.excess

    @property
    def log_orders(self) -> float:
        """Log of the number of orders of levels, and of hidden states in each, that are one."""
        states_in = self._pool.sum(axis=1)
        # the level that is never left is the last by definition
        free = self.n_levels - self.family.bleaching
        return float(gammaln(free + 1) + gammaln(states_in + 1).sum())

    @property
    def flicker_slice(self) -> slice:
        """Where the coordinates of the flicker stand."""
        return slice(self._flicker_at, self._excess_at)

    def with_points(self, n_points: int) -> DynamicsPosterior:
        """Return the same density on another grid of the flicker."""
        return DynamicsPosterior(
            self.data, self.model, self.family, self.n_levels, n_points, self.likelihood,
            self.priors,
        )  # fmt: skip

    # ------------------------------------------------------------------- coordinates

    @property
    def _fastest_decay_per_ns(self) -> float:
        assert self.data.delays is not None
        return 1.0 / self.data.delays.lifetime_ns

    def unpack(self, vector: Array) -> DynamicsPoint:
        """Parameters at a point of the coordinates, shape ``(size,)``."""
        n = self.n_levels
        positive = np.exp(np.clip(vector[: self._flicker_at], -60.0, 60.0))
        rates = np.zeros((self.n_states, self.n_states))
        rates[self._off] = positive[self._rates_at :]
        amplitude, relaxation, share_rate = np.empty(0), np.nan, np.nan
        part = vector[self.flicker_slice]
        if self.family.flicker == "level":
            amplitude, relaxation = part[:n][self.level_of], float(np.exp(part[n]))
        elif self.family.flicker:
            amplitude, relaxation = np.exp(part[:1]), float(np.exp(part[1]))
        if self.family.flicker == "k_nr":
            share_rate = self._fastest_decay_per_ns / (1.0 + np.exp(-part[2]))
        return DynamicsPoint(
            positive[: self._rates_at].reshape(n, self.data.n_gates)[self.level_of],
            rates,
            amplitude,
            relaxation,
            float(share_rate),
            np.exp(vector[self._excess_at :])[self.level_of] if self.family.excess else None,
        )

    def pack(self, point: DynamicsPoint) -> Array:
        """Coordinates of parameters; what the family has and the point lacks gets a guess."""
        parts = [
            np.log(np.maximum(point.signal_per_s[self._first], 1e-6)).ravel(),
            np.log(np.maximum(point.transition_rate_per_s[self._off], 1e-6)),
        ]
        kind = self.family.flicker
        amplitude = point.amplitude if point.amplitude.size else np.array([0.1])
        relaxation = point.relaxation_rate_per_s
        relaxation = relaxation if np.isfinite(relaxation) else 1.0
        if kind == "level":
            own = np.full(self.n_levels, amplitude[0])
            if amplitude.size == self.n_states:
                own = amplitude[self._first]
            parts.append(np.append(own, np.log(relaxation)))
        elif kind:
            parts.append(np.log([max(abs(amplitude[0]), 1e-4), relaxation]))
        if kind == "k_nr":
            share = point.non_radiative_rate_per_ns / self._fastest_decay_per_ns
            share = float(np.clip(share, 0.01, 0.99)) if np.isfinite(share) else 0.5
            parts.append(np.array([np.log(share / (1.0 - share))]))
        if self.family.excess:
            excess = np.full(self.n_levels, 0.5 * self.model.excess_variance_ratio.median)
            if point.excess is not None:
                excess = point.excess[self._first]
            parts.append(np.log(np.maximum(excess, 1e-6)))
        return np.concatenate(parts)

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest coordinates a climb may reach."""
        low, high = np.full(self.size, -20.0), np.full(self.size, 25.0)
        width = self.data.width_s
        rates = slice(self._rates_at, self._flicker_at)
        low[rates] = np.log(1e-4)
        high[rates] = np.log(5.0 / width / max(self.n_states - 1, 1))
        at = self._flicker_at
        slowest = np.log(0.02 / self.data.duration_s)
        fastest = np.log(1.0 / (_FEWEST_BINS_OF_CORRELATION * width))
        if self.family.flicker == "level":
            low[at : at + self.n_levels], high[at : at + self.n_levels] = -2.0, 2.0
            low[at + self.n_levels], high[at + self.n_levels] = slowest, fastest
        elif self.family.flicker:
            low[at], high[at] = np.log(1e-4), np.log(2.5)
            low[at + 1], high[at + 1] = slowest, fastest
        if self.family.flicker == "k_nr":
            low[at + 2], high[at + 2] = -6.0, 6.0
        low[self._excess_at :], high[self._excess_at :] = np.log(1e-5), np.log(30.0)
        return low, high

    # ------------------------------------------------------------------------ prior

    def log_prior(self, vector: Array) -> tuple[float, Array]:
        """Log prior density of the coordinates, and its gradient."""
        point, model, data = self.unpack(vector), self.model, self.data
        slope = np.zeros_like(vector)
        n = self.n_levels
        brightest = model.brightest_rate_per_s
        value, gates, shape = brightness_prior(
            np.ascontiguousarray(point.signal_per_s[self._first]), np.log(brightest.median),
            brightest.sigma, self.repulsion, self._selberg,
        )  # fmt: skip
        if data.n_gates > 1:
            weight = data.concentration * data.base
            logs = np.log(np.maximum(shape, 1e-300))
            value += n * (gammaln(data.concentration) - gammaln(weight).sum())
            value += float((weight * logs).sum())
            gates += weight - data.concentration * shape
        slope[: self._rates_at] = gates.ravel()
        if self.n_states > 1:
            rates_value, rates_slope = self._switching_prior(point.transition_rate_per_s)
            value += rates_value
            slope[self._rates_at : self._flicker_at] = rates_slope
        value += self._flicker_prior(vector, slope)
        if self.family.excess:
            some = vector[self._excess_at :]
            density, log_slope = _log_normal(some, model.excess_variance_ratio)
            value += float(density.sum())
            slope[self._excess_at :] = log_slope
        return float(value), slope

    def _switching_prior(self, transition_rate_per_s: Array) -> tuple[float, Array]:
        exits, rates = self.model.exit_rate_per_s, transition_rate_per_s
        concentration, targets = self.model.jump_concentration, self.n_states - 1
        left = 0.0
        if self.family.bleaching:
            # what is never left has no rate: a row whose density is known stands for it
            rates = rates.copy()
            rates[-1, :-1] = exits.median / targets
            left = gammaln(concentration * targets) - targets * gammaln(concentration)
            left -= np.log(exits.sigma) + 0.5 * np.log(2.0 * np.pi)
            left -= concentration * targets * np.log(targets)
        value, slope = switching_prior(rates, np.log(exits.median), exits.sigma, concentration)
        if self.family.bleaching:
            slope = slope[: targets * targets]
        return value - float(left), slope

    def _flicker_prior(self, vector: Array, slope: Array) -> float:
        kind, at, n = self.family.flicker, self._flicker_at, self.n_levels
        if not kind:
            return 0.0
        relaxation_at, value = at + 1, 0.0
        if kind == "level":
            relaxation_at = at + n
            own, sd = vector[at:relaxation_at], self.priors.level_log_sd
            value -= float((0.5 * (own / sd) ** 2).sum()) + n * np.log(sd * np.sqrt(2 * np.pi))
            slope[at:relaxation_at] = -own / sd**2
        else:
            prior = self.priors.log_sd_of_rate if kind == "k_nr" else self.priors.log_sd
            density, log_slope = _log_normal(vector[at], prior)
            value += float(density)
            slope[at] = log_slope
        prior = self.priors.relaxation_rate_per_s
        density, log_slope = _log_normal(vector[relaxation_at], prior)
        value += float(density)
        slope[relaxation_at] = log_slope
        if kind == "k_nr":
            # share uniform on (0, 1), seen in its logit
            share = 1.0 / (1.0 + np.exp(-vector[at + 2]))
            value += float(np.log(share) + np.log1p(-share))
            slope[at + 2] = 1.0 - 2.0 * share
        return value

    # ------------------------------------------------------------------- likelihood

    def factors(self, point: DynamicsPoint) -> Factors | None:
        """Factors of the flicker on the signal, None without."""
        if not self.family.flicker:
            return None
        if self.family.flicker == "k_nr":
            assert self.data.delays is not None
            return rate_factors(
                self.grid.points, float(point.amplitude[0]), point.non_radiative_rate_per_ns,
                self.data.delays,
            )  # fmt: skip
        return brightness_factors(self.grid.points, point.amplitude)

    def expected(self, point: DynamicsPoint) -> tuple[Array, Array, Array | None, Factors | None]:
        """Signal and means per bin ``(n_levels, n_points, n_gates)``, extra variance, factors."""
        factors = self.factors(point)
        signal = point.signal_per_s[:, None, :] * self.data.width_s
        if factors is not None:
            signal = signal * factors.value
        means = signal + self.data.background_per_s * self.data.width_s
        extra = None
        if point.excess is not None:
            extra = signal.sum(axis=2) * point.excess[:, None]
        return signal, means, extra, factors

    def transition(self, point: DynamicsPoint) -> Array:
        """Transitions of the flicker over one bin, ``(n_points, n_points)``."""
        if not self.family.flicker:
            return np.ones((1, 1))
        return self.grid.transition(point.relaxation_rate_per_s, self.data.width_s)

    def focus(self, vector: Array, *, tolerance: float = 0.5, share: float = 0.0) -> None:
        """Consider switches only in bins where they matter around a point.

        At most `tolerance` switches of each pair of levels, or the `share` of them, are left out.
        """
        # where levels switch is seen on a coarse grid of the flicker as well
        coarse = self.with_points(_POINTS_TO_FOCUS) if self.grid.n_points > 1 else self
        point = self.unpack(vector)
        _, means, extra, _ = coarse.expected(point)
        self.active = self.likelihood.coarser(_NODES_TO_FOCUS).choose_active(
            means, point.transition_rate_per_s, coarse.transition(point),
            coarse.grid.stationary, extra, tolerance=tolerance, share=share,
        )  # fmt: skip

    def log_likelihood(self, vector: Array) -> float:
        """Log-likelihood, with all constants."""
        point = self.unpack(vector)
        _, means, extra, _ = self.expected(point)
        return self.likelihood.value(
            means, point.transition_rate_per_s, self.transition(point), self.grid.stationary,
            extra, active=self.active,
        )  # fmt: skip

    def log_density(self, vector: Array) -> float:
        """Log posterior density, not normalised."""
        return self.log_prior(vector)[0] + self.log_likelihood(vector)

    def smooth(self, vector: Array) -> Array:
        """Probability of each level and point in each bin, ``(n_bins, n_levels, n_points)``."""
        point = self.unpack(vector)
        _, means, extra, _ = self.expected(point)
        return self.likelihood.smooth(
            means, point.transition_rate_per_s, self.transition(point), self.grid.stationary,
            extra, active=self.active,
        )  # fmt: skip

    def gradient(self, vector: Array) -> tuple[float, Array, ProductGradient]:
        """Log posterior density, its gradient, and the parts of the likelihood."""
        point = self.unpack(vector)
        signal, means, extra, factors = self.expected(point)
        parts = self.likelihood.gradient(
            means, point.transition_rate_per_s, self.transition(point), self.grid.stationary,
            extra, active=self.active,
        )  # fmt: skip
        value, slope = self.log_prior(vector)
        if not np.isfinite(parts.value):
            return -np.inf, slope, parts
        by_signal = parts.means
        if parts.extra_variance is not None and point.excess is not None:
            by_signal = by_signal + (parts.extra_variance * point.excess[:, None])[..., None]
            by_excess = (parts.extra_variance * signal.sum(axis=2)).sum(axis=1)
            slope[self._excess_at :] += self._pool @ (by_excess * point.excess)
        slope[: self._rates_at] += (self._pool @ (by_signal * signal).sum(axis=1)).ravel()
        by_rate = parts.transition_rate * point.transition_rate_per_s
        slope[self._rates_at : self._flicker_at] += by_rate[self._off]
        if factors is not None:
            self._flicker_slope(point, factors, by_signal, parts.flicker, slope)
        return value + parts.value, slope, parts

    def _flicker_slope(
        self,
        point: DynamicsPoint,
        factors: Factors,
        by_signal: Array,
        by_transition: Array,
        slope: Array,
    ) -> None:
        kind, at = self.family.flicker, self._flicker_at
        still = point.signal_per_s[:, None, :] * self.data.width_s
        by_amplitude = (by_signal * still * factors.by_amplitude).sum(axis=(1, 2))
        relaxation_at = at + 1
        if kind == "level":
            relaxation_at = at + self.n_levels
            slope[at:relaxation_at] += self._pool @ by_amplitude
        else:
            slope[at] += by_amplitude.sum() * point.amplitude[0]
        moved = self.grid.transition_slope(point.relaxation_rate_per_s, self.data.width_s)
        slope[relaxation_at] += float((by_transition * moved).sum())
        if factors.by_rate is not None:
            by_rate = float((by_signal * still * factors.by_rate).sum())
            rate = point.non_radiative_rate_per_ns
            slope[at + 2] += by_rate * rate * (1.0 - rate / self._fastest_decay_per_ns)

    def curvature(self, vector: Array, parts: ProductGradient) -> Array:
        """Diagonal curvature if levels and flicker were known, shape ``(size,)``: a scale."""
        point = self.unpack(vector)
        diagonal = np.ones(self.size)
        bins = np.maximum(parts.occupied.sum(axis=1), 1e-3)
        photons = self._pool @ (bins[:, None] * point.signal_per_s) * self.data.width_s
        if self.data.n_gates > 1:
            photons = photons + self.data.concentration * self.data.base
        diagonal[: self._rates_at] = photons.ravel() + 0.25
        jumps = bins[:, None] * self.data.width_s * point.transition_rate_per_s
        diagonal[self._rates_at : self._flicker_at] = jumps[self._off] + 0.25
        if self.family.flicker:
            # as many looks at the flicker as correlation times
            diagonal[self.flicker_slice] = 10.0 + self.data.duration_s * point.relaxation_rate_per_s
        if self.family.excess:
            diagonal[self._excess_at :] = np.maximum(0.02 * (self._pool @ bins), 1.0)
        return diagonal
