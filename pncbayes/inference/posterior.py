r"""The posterior of a model with a given number of states, in coordinates fit for its geometry.

Every free parameter is the logarithm of an intensity: counts per s of a state in a gate,
transitions per s from one state to another. The posterior of an intensity is close to a gamma
density, and one number per intensity means no simplex and no redundancy: brightness and decay
shape, exit rate and jump probabilities are functions of them.

With :math:`\lambda_k = \sum_g \mu_{kg}` and :math:`p_{kg} = \mu_{kg}/\lambda_k` the prior is
log-normal for the brightest :math:`\lambda`, uniform below it for the others (which of the states
is the brightest is uniform too: states are exchangeable), Dirichlet(:math:`\kappa\, b`) around a
base shape b for each decay, log-normal for each exit rate and Dirichlet for the jumps.

Without delays a level is its brightness alone, and levels repel each other: their joint density
carries the factor :math:`\prod_{i<j} |\lambda_i - \lambda_j|^r`, normalised by Selberg's integral
[1]_. K then counts distinct levels, and a level split in two twins is no answer. With delays the
decays tell states apart, and levels of equal brightness are welcome.

References
----------
.. [1] Forrester, P. J.; Warnaar, S. O. The importance of the Selberg integral. Bull. Amer. Math.
   Soc. 45, 489 (2008), doi:10.1090/S0273-0979-08-01221-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from pncbayes.hmm.likelihood import FASTEST_PER_BIN, BinnedLikelihood, Gradient
from pncbayes.hmm.sparse import Active
from pncbayes.inference.prior_kernels import brightness_prior, switching_prior
from pncbayes.physics.modelfile import LogNormal, ModelFile

# Beyond it the Dirichlet's normalisation is lost in rounding.
_LARGEST_CONCENTRATION = 1e8

__all__ = ["Parameters", "Posterior", "log_selberg", "pooled_decay"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """Physical parameters of one point.

    Attributes
    ----------
    gate_rate_per_s
        Counts per s in each gate, shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``, zero on the diagonal.
    concentration
        Concentration of the decays around the base shape; NaN with a single gate.
    excess
        Excess variance ratios, shape ``(n_states,)``, or None.
    occupied_s
        Seconds in each state of a path that was drawn along, shape ``(n_states,)``, or None.
    base_decay
        Shape around which the decays scatter, ``(n_gates,)``; None with a single gate, or if it
        is not known.
    """

    gate_rate_per_s: Array
    transition_rate_per_s: Array
    concentration: float
    excess: Array | None
    occupied_s: Array | None = None
    base_decay: Array | None = None

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.gate_rate_per_s.shape[0])

    @property
    def rate_per_s(self) -> Array:
        """Total counts per s of each state, background included, shape ``(n_states,)``."""
        total: Array = self.gate_rate_per_s.sum(axis=1)
        return total

    @property
    def exit_rate_per_s(self) -> Array:
        """Exit rate of each state per s, shape ``(n_states,)``."""
        total: Array = self.transition_rate_per_s.sum(axis=1)
        return total

    @property
    def visits_all(self) -> bool:
        """Whether the path that was drawn along visits every state; so taken if none was."""
        return self.occupied_s is None or bool((self.occupied_s > 0.0).all())

    def ordered(self) -> Parameters:
        """Return the same point with states from bright to dim."""
        return self.permuted(np.argsort(-self.rate_per_s, kind="stable"))

    def permuted(self, order: NDArray[np.intp]) -> Parameters:
        """Return the same point with states in another order."""
        return Parameters(
            self.gate_rate_per_s[order],
            self.transition_rate_per_s[np.ix_(order, order)],
            self.concentration,
            None if self.excess is None else self.excess[order],
            None if self.occupied_s is None else self.occupied_s[order],
            self.base_decay,
        )


def _log_normal(log_value: Array | float, prior: LogNormal) -> tuple[Array, Array]:
    """Log density of the logarithm, and its slope."""
    z = (np.asarray(log_value) - np.log(prior.median)) / prior.sigma
    return -0.5 * z**2 - np.log(prior.sigma * np.sqrt(2 * np.pi)), -z / prior.sigma


def pooled_decay(gate_totals: Array) -> Array:
    """Decay of all photons, where the search for the base shape starts: ``(n_gates,)``, sum 1.

    A twentieth is spread evenly over the gates: no gate is forbidden to a state.
    """
    share: Array = gate_totals / max(float(gate_totals.sum()), 1.0)
    centre: Array = 0.95 * share + 0.05 / gate_totals.size
    return centre / centre.sum()


def log_selberg(n_levels: int, repulsion: float) -> float:
    """Log of the integral over (0, 1)^n of the repulsion among n levels and the brightest at 1.

    Selberg's integral with alpha = 1, beta = 1 + repulsion and gamma = repulsion / 2.
    """
    half = 0.5 * repulsion
    j = np.arange(n_levels)
    return float(
        np.sum(
            gammaln(1.0 + j * half)
            + gammaln(1.0 + repulsion + j * half)
            + gammaln(1.0 + (j + 1) * half)
            - gammaln(2.0 + repulsion + (n_levels + j - 1) * half)
            - gammaln(1.0 + half)
        )
    )


class Posterior:
    """Log posterior density of the logarithms of the intensities.

    With delays it is that given the base shape of the decays, `base`, whose own prior is not in it.

    Parameters
    ----------
    likelihood
        The likelihood of the trace.
    model
        The priors.
    n_states
        Number of states.
    """

    def __init__(self, likelihood: BinnedLikelihood, model: ModelFile, n_states: int) -> None:
        self.likelihood, self.model, self.n_states = likelihood, model, n_states
        self.n_gates = likelihood.n_gates
        self.pooled = pooled_decay(likelihood.gate_totals)
        self.base = self.pooled
        self.has_excess = likelihood.emission.has_excess
        self.repulsion = model.repulsion if self.n_gates == 1 else 0.0
        self.log_selberg = log_selberg(n_states - 1, self.repulsion)
        self.active: Active | None = None
        self._off = ~np.eye(n_states, dtype=bool)
        self._rates_at = n_states * self.n_gates
        self._rest_at = self._rates_at + n_states * (n_states - 1)

    @property
    def size(self) -> int:
        """Number of free parameters."""
        return int(self._rest_at + (self.n_gates > 1) + self.n_states * self.has_excess)

    def bounds(self) -> tuple[Array, Array]:
        """Log coordinates between which a climb may move, each of shape ``(size,)``."""
        low, high = np.full(self.size, -30.0), np.full(self.size, 30.0)
        high[self.rate_slice] = np.log(
            0.9 * FASTEST_PER_BIN / self.likelihood.width_s / max(self.n_states - 1, 1)
        )
        if self.n_gates > 1:
            prior = self.model.decay_concentration
            low[self._rest_at] = np.log(prior.median) - 5.0 * prior.sigma
            high[self._rest_at] = np.log(prior.median) + 5.0 * prior.sigma
        if self.has_excess:
            prior = self.model.excess_variance_ratio
            at = self._rest_at + (self.n_gates > 1)
            low[at:] = np.log(prior.median) - 6.0 * prior.sigma
            high[at:] = np.log(prior.median) + 6.0 * prior.sigma
        return low, high

    @property
    def rate_slice(self) -> slice:
        """Where the logarithms of the transition rates stand in a vector."""
        return slice(self._rates_at, self._rest_at)

    def unpack(self, vector: Array) -> Parameters:
        """Physical parameters at a point of the log coordinates, shape ``(size,)``."""
        # far below one photon in any recording, and above where products underflow
        intensities = np.exp(np.maximum(vector, -400.0))
        rates = np.zeros((self.n_states, self.n_states))
        rates[self._off] = intensities[self._rates_at : self._rest_at]
        rest = intensities[self._rest_at :]
        has_decay = self.n_gates > 1
        return Parameters(
            intensities[: self._rates_at].reshape(self.n_states, self.n_gates),
            rates,
            float(rest[0]) if has_decay else float("nan"),
            rest[int(has_decay) :] if self.has_excess else None,
            base_decay=self.base if has_decay else None,
        )

    def pack(self, parameters: Parameters) -> Array:
        """Log coordinates of physical parameters, shape ``(size,)``."""
        parts = [parameters.gate_rate_per_s.ravel(), parameters.transition_rate_per_s[self._off]]
        if self.n_gates > 1:
            parts.append(np.array([parameters.concentration]))
        if self.has_excess:
            excess = parameters.excess
            if excess is None:
                excess = np.full(self.n_states, self.model.excess_variance_ratio.median)
            parts.append(excess)
        return np.log(np.maximum(np.concatenate(parts), 1e-300))

    def permutation(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the indices that carry a vector to the one with states in another order."""
        states = np.arange(self._rates_at).reshape(self.n_states, self.n_gates)[order].ravel()
        table = np.zeros((self.n_states, self.n_states), dtype=np.intp)
        table[self._off] = np.arange(self._rates_at, self._rest_at)
        rates = table[np.ix_(order, order)][self._off]
        rest = np.arange(self._rest_at, self.size)
        if self.has_excess:
            rest = np.concatenate([rest[: self.n_gates > 1], rest[self.n_gates > 1 :][order]])
        return np.concatenate([states, rates, rest]).astype(np.intp)

    def log_prior(self, vector: Array) -> tuple[float, Array]:
        """Log prior density of the log coordinates, and its gradient."""
        point = self.unpack(vector)
        slope = np.zeros_like(vector)
        n_states, model = self.n_states, self.model
        brightest, exits = model.brightest_rate_per_s, model.exit_rate_per_s
        value, gates, shape = brightness_prior(
            point.gate_rate_per_s,
            np.log(brightest.median),
            brightest.sigma,
            self.repulsion,
            self.log_selberg,
        )
        if self.n_gates > 1:
            if not point.concentration < _LARGEST_CONCENTRATION:
                return -np.inf, slope
            weight = point.concentration * self.base
            logs = np.log(np.maximum(shape, 1e-300))
            value += n_states * (gammaln(point.concentration) - gammaln(weight).sum())
            value += float((weight * logs).sum())
            gates += weight - point.concentration * shape
            density, log_slope = _log_normal(np.log(point.concentration), model.decay_concentration)
            value += float(density)
            slope[self._rest_at] = log_slope + point.concentration * (
                n_states * (digamma(point.concentration) - (self.base * digamma(weight)).sum())
                + (self.base * logs).sum()
            )
        slope[: self._rates_at] = gates.ravel()
        if n_states > 1:
            rates_value, rates_slope = switching_prior(
                point.transition_rate_per_s,
                np.log(exits.median),
                exits.sigma,
                model.jump_concentration,
            )
            value += rates_value
            slope[self._rates_at : self._rest_at] = rates_slope
        if point.excess is not None:
            density, log_slope = _log_normal(np.log(point.excess), model.excess_variance_ratio)
            value += float(density.sum())
            slope[self._rest_at + (self.n_gates > 1) :] = log_slope
        return float(value), slope

    def focus(self, *vectors: Array, tolerance: float = 0.05) -> None:
        """Consider switches only in bins where they matter at any of the points and around it."""
        active: Active | None = None
        for vector in vectors:
            point = self.unpack(vector)
            active = self.likelihood.active_rows(
                point.gate_rate_per_s,
                point.transition_rate_per_s,
                point.excess,
                tolerance=tolerance,
                besides=active,
            )
        self.active = active

    def log_density(self, vector: Array) -> float:
        """Log posterior density, not normalised: its integral is the evidence."""
        point = self.unpack(vector)
        if not np.isfinite(vector).all():
            return -np.inf
        return self.log_prior(vector)[0] + self.likelihood.value(
            point.gate_rate_per_s,
            point.transition_rate_per_s,
            point.excess,
            active=self.active,
        )

    def density_and_occupancy(self, vector: Array) -> tuple[float, Array]:
        """Log posterior density as `log_density`, and expected seconds in each state."""
        if not np.isfinite(vector).all():
            return -np.inf, np.zeros(self.n_states)
        point = self.unpack(vector)
        parts = self.likelihood.gradient(
            point.gate_rate_per_s,
            point.transition_rate_per_s,
            point.excess,
            active=self.active,
        )
        if not np.isfinite(parts.value):
            return -np.inf, np.zeros(self.n_states)
        return self.log_prior(vector)[0] + parts.value, np.maximum(parts.occupied_s, 0.0)

    def gradient(self, vector: Array) -> tuple[float, Array, Gradient]:
        """Log posterior density, its gradient, and the likelihood's parts."""
        point = self.unpack(vector)
        parts = self.likelihood.gradient(
            point.gate_rate_per_s,
            point.transition_rate_per_s,
            point.excess,
            active=self.active,
        )
        value, slope = self.log_prior(vector)
        slope[: self._rates_at] += (parts.gate_rate * point.gate_rate_per_s).ravel()
        slope[self._rates_at : self._rest_at] += (
            parts.transition_rate * point.transition_rate_per_s
        )[self._off]
        if point.excess is not None and parts.excess is not None:
            slope[self._rest_at + (self.n_gates > 1) :] += parts.excess * point.excess
        return value + parts.value, slope, parts

    def curvature(self, vector: Array, parts: Gradient) -> Array:
        """Diagonal curvature if the hidden path were known, shape ``(size,)``: a scale."""
        point = self.unpack(vector)
        diagonal = np.full(vector.size, 0.25)
        photons = parts.occupied_s[:, None] * point.gate_rate_per_s
        if self.n_gates > 1:
            photons = photons + point.concentration * self.base
        diagonal[: self._rates_at] = photons.ravel() + 0.25
        jumps = parts.occupied_s[:, None] * point.transition_rate_per_s
        diagonal[self._rates_at : self._rest_at] = jumps[self._off] + 0.25
        return diagonal
