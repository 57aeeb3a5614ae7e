"""The posterior with the base shape and the concentration of the decays integrated out.

Where all decays are alike the joint density of decays and concentration has a funnel: ever larger
concentrations allow ever closer decays, and the joint mode runs to the edge of the prior with next
to no mass around it. Given base shape and concentration the density is well shaped: so modes and
curvatures are taken with both fixed, at their most probable values given the photons of the states,
and the density that the evidence integrates has both integrated out (`DecayPrior`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.hmm.likelihood import BinnedLikelihood, Gradient
from pncbayes.inference.decay_prior import DecayPrior
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.special import log_sum_exp
from pncbayes.physics.modelfile import ModelFile

__all__ = ["CollapsedPosterior", "working_posterior"]

Array = NDArray[np.float64]


def working_posterior(likelihood: BinnedLikelihood, model: ModelFile, n_states: int) -> Posterior:
    """The posterior to find modes and evidence with: collapsed where there are delays."""
    kind = CollapsedPosterior if likelihood.n_gates > 1 else Posterior
    return kind(likelihood, model, n_states)


class CollapsedPosterior(Posterior):
    """As `Posterior`, without base shape and concentration among the coordinates.

    `gradient` is that of the density at the fixed `base` and `log_concentration`; `log_density` and
    the value of `log_prior` are integrated over both.

    Parameters
    ----------
    likelihood, model, n_states
        As for `Posterior`.
    """

    def __init__(self, likelihood: BinnedLikelihood, model: ModelFile, n_states: int) -> None:
        super().__init__(likelihood, model, n_states)
        self.joint = Posterior(likelihood, model, n_states)
        self.decays = DecayPrior(model, n_states, self.n_gates)
        self.log_concentration = float(np.log(model.decay_concentration.median))

    @property
    def size(self) -> int:
        """Number of free parameters."""
        return self.joint.size - 1

    def fix(self, log_concentration: float, base: Array) -> None:
        """Fix the concentration of the decays and their base shape, ``(n_gates,)``."""
        self.log_concentration = log_concentration
        self.base = self.joint.base = base

    def _joint(self, vector: Array) -> Array:
        joint = np.empty(vector.size + 1)
        joint[: self._rest_at] = vector[: self._rest_at]
        joint[self._rest_at] = self.log_concentration
        joint[self._rest_at + 1 :] = vector[self._rest_at :]
        return joint

    def unpack(self, vector: Array) -> Parameters:
        """Physical parameters at a point; base and concentration are those of the moment."""
        return self.joint.unpack(self._joint(vector))

    def unpack_draw(self, vector: Array, rng: np.random.Generator) -> Parameters:
        """Physical parameters of a draw, with a draw of the concentration given its decays.

        The base shape is its mean given both.
        """
        logs, base = self.decays.given_decays(self.log_shares(vector[None]))
        weights = np.exp(logs[0] - logs[0].max())
        cell = int(rng.choice(weights.size, p=weights / weights.sum()))
        self.fix(float(self.decays.log_grid[cell]), base[0, cell])
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

    def log_shares(self, vectors: Array) -> Array:
        """Log of the share of each gate in its state, shape ``(n, n_states, n_gates)``."""
        gates = np.maximum(vectors[:, : self._rates_at], -400.0)
        gates = gates.reshape(len(vectors), self.n_states, self.n_gates)
        shares: Array = gates - log_sum_exp(gates)[:, :, None]
        return shares

    def log_prior_of_decays(self, vectors: Array) -> Array:
        """Part of the log prior that belongs to the decays, all integrated, shape ``(n,)``."""
        return self.decays.log_density(self.log_shares(vectors))

    def log_prior(self, vector: Array) -> tuple[float, Array]:
        """Log prior density, base and concentration integrated out; the slope is conditional."""
        value, slope = self.joint.log_prior(self._joint(vector))
        # what the conditional density has where they are fixed, replaced by the integral
        value += float(self.log_prior_of_decays(vector[None])[0]) - self._decay_part(vector)
        return value, np.delete(slope, self._rest_at)

    def _decay_part(self, vector: Array) -> float:
        """What decays and concentration add to the conditional log prior."""
        concentration = np.exp(self.log_concentration)
        weight = concentration * self.base
        value = self.n_states * (gammaln(concentration) - gammaln(weight).sum())
        value += (self.log_shares(vector[None])[0] @ weight).sum()
        return float(value + self.decays.log_prior_at(self.log_concentration))

    def gradient(self, vector: Array) -> tuple[float, Array, Gradient]:
        """Log density with base and concentration fixed, its gradient, and the parts."""
        self.joint.active = self.active
        value, slope, parts = self.joint.gradient(self._joint(vector))
        return value, np.delete(slope, self._rest_at), parts

    def curvature(self, vector: Array, parts: Gradient) -> Array:
        """Diagonal curvature if the hidden path were known, shape ``(size,)``."""
        diagonal: Array = self.joint.curvature(self._joint(vector), parts)
        kept: Array = np.delete(diagonal, self._rest_at)
        return kept

    def expected_photons(self, vector: Array, parts: Gradient) -> Array:
        """Photons that each state explains in each gate, shape ``(n_states, n_gates)``."""
        gate_rate = self.unpack(vector).gate_rate_per_s
        photons = (parts.gate_rate + parts.occupied_s[:, None]) * gate_rate
        return np.maximum(photons, 0.0)

    def choose_concentration(self, vector: Array, parts: Gradient) -> None:
        """Fix base and concentration at their most probable values, the decays integrated out.

        The photons that each state explains are taken as known.
        """
        logs, base, _ = self.decays.given_photons(self.expected_photons(vector, parts))
        best = int(np.argmax(logs))
        self.fix(float(self.decays.log_grid[best]), base[best])

    def integrated_over_fixed(self, vector: Array, parts: Gradient) -> float:
        """Log of what integrating over base and concentration makes of an evidence.

        Over the evidence with both fixed; the photons that each state explains are taken as known.
        """
        photons = self.expected_photons(vector, parts)
        logs = self.decays.given_photons(photons)[0]
        value = float(log_sum_exp(logs)) + self.decays.log_step
        return value - self.decays.log_probability(photons, self.base, self.log_concentration)
