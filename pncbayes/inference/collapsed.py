"""The posterior with the concentration of the decays integrated out.

Where all decays are alike the joint density of decays and concentration has a funnel: ever larger
concentrations allow ever closer decays, and the joint mode runs to the edge of the prior with next
to no mass around it. Given the concentration the density is well shaped, and in the concentration
alone it is a smooth bump: so modes and curvatures are taken at fixed concentrations, and the
density that the evidence integrates is summed over a grid of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.hmm.likelihood import BinnedLikelihood, Gradient
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.special import log_sum_exp
from pncbayes.physics.modelfile import ModelFile

__all__ = ["CollapsedPosterior", "working_posterior"]

Array = NDArray[np.float64]

_STEP = 0.25
_REACH_SIGMA = 4.0


def working_posterior(likelihood: BinnedLikelihood, model: ModelFile, n_states: int) -> Posterior:
    """The posterior to find modes and evidence with: collapsed where there are delays."""
    kind = CollapsedPosterior if likelihood.n_gates > 1 else Posterior
    return kind(likelihood, model, n_states)


class CollapsedPosterior(Posterior):
    """As `Posterior`, without the concentration among the coordinates.

    `gradient` is that of the density at the fixed `log_concentration`; `log_density` and the
    value of `log_prior` are integrated over it.

    Parameters
    ----------
    likelihood, model, n_states
        As for `Posterior`.
    """

    def __init__(self, likelihood: BinnedLikelihood, model: ModelFile, n_states: int) -> None:
        super().__init__(likelihood, model, n_states)
        self.joint = Posterior(likelihood, model, n_states)
        prior = model.decay_concentration
        reach = _REACH_SIGMA * prior.sigma
        self.log_grid = np.log(prior.median) + np.arange(-reach, reach + _STEP, _STEP)
        self.log_concentration = float(np.log(prior.median))
        z = (self.log_grid - np.log(prior.median)) / prior.sigma
        weight = np.exp(self.log_grid)[:, None] * self.pooled
        self._grid_prior = -0.5 * z**2 - np.log(prior.sigma * np.sqrt(2 * np.pi)) + np.log(_STEP)
        self._grid_constant = self._grid_prior + n_states * (
            gammaln(np.exp(self.log_grid)) - gammaln(weight).sum(axis=1)
        )

    @property
    def size(self) -> int:
        """Number of free parameters."""
        return self.joint.size - 1

    @property
    def log_grid_step(self) -> float:
        """Log of the step of the grid of log concentrations."""
        return float(np.log(_STEP))

    def _joint(self, vector: Array) -> Array:
        joint = np.empty(vector.size + 1)
        joint[: self._rest_at] = vector[: self._rest_at]
        joint[self._rest_at] = self.log_concentration
        joint[self._rest_at + 1 :] = vector[self._rest_at :]
        return joint

    def unpack(self, vector: Array) -> Parameters:
        """Physical parameters at a point; the concentration is the one of the moment."""
        return self.joint.unpack(self._joint(vector))

    def unpack_draw(self, vector: Array, rng: np.random.Generator) -> Parameters:
        """Physical parameters of a draw, with a draw of the concentration given its decays."""
        logs = self._log_grid_density(vector)
        weights = np.exp(logs - log_sum_exp(logs))
        self.log_concentration = float(rng.choice(self.log_grid, p=weights / weights.sum()))
        return self.unpack(vector)

    def pack(self, parameters: Parameters) -> Array:
        """Log coordinates of physical parameters, without the concentration."""
        return np.delete(self.joint.pack(parameters), self._rest_at)

    def permutation(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices that carry a vector to the one with states in another order."""
        joint = self.joint.permutation(order)
        kept = joint[joint != self._rest_at]
        moved: NDArray[np.intp] = np.where(kept > self._rest_at, kept - 1, kept)
        return moved

    def bounds(self) -> tuple[Array, Array]:
        """Log coordinates between which a climb may move, each of shape ``(size,)``."""
        low, high = self.joint.bounds()
        return np.delete(low, self._rest_at), np.delete(high, self._rest_at)

    def _log_grid_density(self, vector: Array) -> Array:
        """Log density of decays and concentration at each concentration of the grid."""
        density: Array = self.log_concentration_given(vector[None])[0]
        return density

    def log_concentration_given(self, vectors: Array) -> Array:
        """Log density, not normalised, of each concentration of the grid given the decays.

        Parameters
        ----------
        vectors
            Points, shape ``(n, size)``.

        Returns
        -------
        ndarray
            Shape ``(n, n_grid)``.
        """
        gates = np.maximum(vectors[:, : self._rates_at], -400.0)
        gates = gates.reshape(len(vectors), self.n_states, self.n_gates)
        shape = gates - log_sum_exp(gates)[:, :, None]
        likeness = (shape @ self.pooled).sum(axis=1)
        logs: Array = self._grid_constant + likeness[:, None] * np.exp(self.log_grid)
        return logs

    def log_prior(self, vector: Array) -> tuple[float, Array]:
        """Log prior density, integrated over the concentration; the slope is conditional."""
        value, slope = self.joint.log_prior(self._joint(vector))
        # what the conditional density has at its concentration, replaced by the sum over all
        value += float(log_sum_exp(self._log_grid_density(vector))) - self._decay_part(vector)
        return value, np.delete(slope, self._rest_at)

    def _decay_part(self, vector: Array) -> float:
        """What decays and concentration add to the conditional log prior."""
        concentration = np.exp(self.log_concentration)
        prior = self.model.decay_concentration
        z = (self.log_concentration - np.log(prior.median)) / prior.sigma
        gates = np.maximum(vector[: self._rates_at], -400.0)
        gates = gates.reshape(self.n_states, self.n_gates)
        shape = gates - log_sum_exp(gates)[:, None]
        value = -0.5 * z**2 - np.log(prior.sigma * np.sqrt(2 * np.pi))
        value += self.n_states * (
            gammaln(concentration) - gammaln(concentration * self.pooled).sum()
        )
        return float(value + concentration * (shape @ self.pooled).sum())

    def gradient(self, vector: Array) -> tuple[float, Array, Gradient]:
        """Log density at the concentration of the moment, its gradient, and the parts."""
        self.joint.active = self.active
        value, slope, parts = self.joint.gradient(self._joint(vector))
        return value, np.delete(slope, self._rest_at), parts

    def curvature(self, vector: Array, parts: Gradient) -> Array:
        """Diagonal curvature if the hidden path were known, shape ``(size,)``."""
        diagonal: Array = self.joint.curvature(self._joint(vector), parts)
        kept: Array = np.delete(diagonal, self._rest_at)
        return kept

    def concentration_weights(self, vector: Array, parts: Gradient) -> Array:
        """Log weight of each concentration of the grid with the decays integrated out.

        The photons that each state explains are taken as known: Dirichlet-multinomial.
        """
        point = self.unpack(vector)
        photons = parts.gate_rate * point.gate_rate_per_s
        photons = np.maximum(photons + parts.occupied_s[:, None] * point.gate_rate_per_s, 0.0)
        concentration = np.exp(self.log_grid)
        logs: Array = self._grid_constant.copy()
        for own in photons:
            logs += gammaln(own + concentration[:, None] * self.pooled).sum(axis=1)
            logs -= gammaln(own.sum() + concentration)
        return logs

    def choose_concentration(self, vector: Array, parts: Gradient) -> None:
        """Fix the concentration at its most probable value with the decays integrated out."""
        best = int(np.argmax(self.concentration_weights(vector, parts)))
        self.log_concentration = float(self.log_grid[best])
