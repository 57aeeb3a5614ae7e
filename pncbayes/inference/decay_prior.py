r"""The prior of the decays of all states, with the shape around which they scatter integrated out.

The decay of each of K states is Dirichlet(:math:`\kappa b`), around a base shape b that nobody
knows: its prior is a Dirichlet with the same small shape a for every gate. With
:math:`x_g = \kappa b_g` and :math:`L_g = \sum_k \ln p_{kg}` the integral over b is

.. math::

    \Gamma(\kappa)^K \frac{\Gamma(aG)}{\Gamma(a)^G} \kappa^{1-aG}
    \int \prod_g \Bigl[\frac{x_g^{a-1} e^{x_g L_g}}{\Gamma(x_g)^K} dx_g\Bigr]
    \delta\Bigl(\sum_g x_g - \kappa\Bigr)

in the logarithms of the decays: the density at :math:`\kappa` of a sum of independent weights.
The integral of each gate depends on :math:`L_g` alone, and is tabulated; the density of the sum
is its saddle point approximation [1]_, whose error is some parts in a hundred over the number of
gates. Given photons in place of decays, Laplace's approximation in the logarithms of b does.

To put the decay of all photons in the place of b would use the photons twice: where one state
alone was visited its decay fits the base perfectly, all decays seem alike, and a second state with
the same decay is cheap.

References
----------
.. [1] Daniels, H. E. Saddlepoint approximations in statistics. Ann. Math. Stat. 25, 631 (1954),
   doi:10.1214/aoms/1177728652.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, polygamma

from pncbayes.inference.decay_draws import draw_another, draw_base
from pncbayes.inference.decay_kernels import given_decays, given_photons, log_probability
from pncbayes.inference.special import log_sum_exp
from pncbayes.physics.modelfile import ModelFile

__all__ = ["DecayPrior"]

Array = NDArray[np.float64]

# Of the grid of log concentrations, and how far it reaches.
_STEP, _REACH_SIGMA = 0.25, 4.0
# Of the table: the tilt per state down to -1, and the logarithm of its opposite below.
_TABLE_START, _TABLE_STOP, _TABLE_STEP = -9.0, 18.5, 0.005
_NODES = 160
_DRAW_ROUNDS = 2


@functools.cache
def _table(n_states: int, shape: float) -> Array:
    """Log integral of a gate, mean and variance of its weight, by tilt: shape ``(n, 3)``."""
    at = np.arange(_TABLE_START, _TABLE_STOP, _TABLE_STEP)
    scaled = np.where(at > -1.0, at, -np.exp(-1.0 - np.minimum(at, -1.0)))
    tilt = n_states * scaled
    # the mode in the logarithm y of the weight: one and a half steps of Newton from two regimes
    y = np.where(scaled > 0.0, np.maximum(scaled, -1.0), np.log(1.0 + shape / n_states))
    y = np.where(scaled < -0.5, np.log((shape + n_states) / np.maximum(-tilt, 0.5)), y)
    for _ in range(100):
        x = np.exp(y)
        slope = shape + x * (tilt - n_states * digamma(x))
        bend = x * (n_states * digamma(x) - tilt) + n_states * x**2 * polygamma(1, x)
        y += np.clip(slope / np.maximum(bend, 0.3 * shape), -0.5, 0.5)
    x = np.exp(y)
    width = 1.0 / np.sqrt(shape + n_states * x**2 * polygamma(1, x))
    nodes = y[:, None] + width[:, None] * np.linspace(-20.0, 9.0, _NODES)
    step = width * 29.0 / (_NODES - 1)
    weight = np.exp(nodes)
    logs = shape * nodes + tilt[:, None] * weight - n_states * gammaln(weight)
    top = logs.max(axis=1)
    each = np.exp(logs - top[:, None])
    total = each.sum(axis=1)
    mean = (each * weight).sum(axis=1) / total
    variance = (each * (weight - mean[:, None]) ** 2).sum(axis=1) / total
    made = np.stack([top + np.log(total * step), mean, variance], axis=1)
    made.setflags(write=False)
    return made


class DecayPrior:
    """Prior of the decays of all states around a base shape, on a grid of concentrations.

    Parameters
    ----------
    model
        The priors of concentration and base.
    n_states, n_gates
        Number of states, and of gates, at least 2.

    Attributes
    ----------
    log_grid
        Log concentrations, ascending, shape ``(n_grid,)``.
    log_prior
        Log density of them, shape ``(n_grid,)``.
    """

    def __init__(self, model: ModelFile, n_states: int, n_gates: int) -> None:
        self.prior = prior = model.decay_concentration
        self.n_states, self.n_gates = n_states, n_gates
        self.shape = model.decay_base_concentration
        reach = _REACH_SIGMA * prior.sigma
        self.log_grid: Array = np.log(prior.median) + np.arange(-reach, reach + _STEP, _STEP)
        self.log_prior: Array = np.array([self.log_prior_at(float(one)) for one in self.log_grid])
        total = self.shape * n_gates
        self._constant = n_states * gammaln(np.exp(self.log_grid)) + (1.0 - total) * self.log_grid
        self._constant += self.log_prior + gammaln(total) - n_gates * gammaln(self.shape)

    @property
    def log_step(self) -> float:
        """Log of the step of the grid of log concentrations."""
        return math.log(_STEP)

    def given_decays(self, log_shares: Array) -> tuple[Array, Array]:
        """Density of decays and concentration, and the mean base shape given both.

        Parameters
        ----------
        log_shares
            Log of the share of each gate in each state, shape ``(n, n_states, n_gates)``.

        Returns
        -------
        log_density : ndarray
            Of the logarithms of the decays and the log concentration, shape ``(n, n_grid)``.
        base : ndarray
            Shape ``(n, n_grid, n_gates)``.
        """
        logs, base, _ = given_decays(log_shares.sum(axis=1), *self._gates)
        return logs + self._constant, base

    @property
    def _gates(self) -> tuple[int, Array, Array, float, float, Array]:
        table = _table(self.n_states, self.shape)
        grid = self.log_grid, self._constant
        return self.n_states, *grid, _TABLE_START, _TABLE_STEP, table

    def draw_another(self, log_shares: Array, rng: np.random.Generator) -> Array:
        """Draw the decay of one state more, given those of all others.

        Its density is the ratio of two of `log_density`, of one state more and of these.

        Parameters
        ----------
        log_shares
            As for `given_decays`.
        rng
            Source of the draws.

        Returns
        -------
        ndarray
            Log of the share of each gate, shape ``(n, n_gates)``.
        """
        summed = log_shares.sum(axis=1)
        logs, _, tilts = given_decays(summed, *self._gates)
        return np.asarray(
            draw_another(summed, *self._gates, self.shape, logs + self._constant, tilts, rng)
        )

    def log_density(self, log_shares: Array) -> Array:
        """Log density of the logarithms of the decays, integrated over all else, shape ``(n,)``."""
        return log_sum_exp(self.given_decays(log_shares)[0]) + self.log_step

    def given_photons(self, photons: Array) -> tuple[Array, Array, Array]:
        """Probability of the gates of photons, the decays integrated out, at each concentration.

        Parameters
        ----------
        photons
            Photons of each state and gate, shape ``(n_states, n_gates)``.

        Returns
        -------
        log_density : ndarray
            With the prior of the concentration, the base integrated out, shape ``(n_grid,)``.
        base : ndarray
            Most probable base shape, shape ``(n_grid, n_gates)``.
        curvature : ndarray
            By the logarithm of each share there, shape ``(n_grid, n_gates)``.
        """
        logs, base, curvature = given_photons(
            np.ascontiguousarray(photons), self.shape, self.log_grid
        )
        return logs + self.log_prior, base, curvature

    def log_prior_at(self, log_concentration: float) -> float:
        """Log prior density of a log concentration."""
        z = (log_concentration - math.log(self.prior.median)) / self.prior.sigma
        return -0.5 * z**2 - math.log(self.prior.sigma * math.sqrt(2 * math.pi))

    def log_probability(self, photons: Array, base: Array, log_concentration: float) -> float:
        """As `given_photons`, at one base shape, whose prior is left out, and one concentration."""
        value = log_probability(photons, np.maximum(base, 1e-290), math.exp(log_concentration))
        return float(value) + self.log_prior_at(log_concentration)

    def draw(
        self, photons: Array, base: Array, concentration: float, rng: np.random.Generator
    ) -> tuple[Array, float]:
        """Draw base shape and concentration given the photons of each state, from those before.

        Parameters
        ----------
        photons
            Whole numbers, shape ``(n_states, n_gates)``.
        base, concentration
            Before; the nearest concentration of the grid is taken.
        rng
            Source of the draws.
        """
        cell = int(np.argmin(np.abs(self.log_grid - np.log(concentration))))
        drawn, cell = draw_base(
            photons,
            np.maximum(base, 1e-290),
            cell,
            self.shape,
            self.log_grid,
            self.log_prior,
            _DRAW_ROUNDS,
            rng,
        )
        return drawn, float(np.exp(self.log_grid[cell]))
