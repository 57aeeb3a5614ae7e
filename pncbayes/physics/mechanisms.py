r"""Mechanisms of losing light, as densities over brightness and lifetime, and what follows of each.

Of a state take the brightness f and the amplitude-averaged lifetime g, both over those of the
neutral exciton, and R = f / g, the amplitude of its decay at time zero over that of the exciton:
the radiative rate itself, whatever the shape of the decay.

=====================  ==============================================  =========================
mechanism              physics                                         where it lies
=====================  ==============================================  =========================
``auger``              trion: radiative rate m-fold, extra rate k_A    R = m, g = 1 / (1 +
                                                                       (m - 1) Q_X + k_A t_X)
``hot_carrier``        a share eta reaches the band edge               g = 1, f = eta
``nbc``                recombination centres add rates at the edge     R = 1, f = g
``unresolved_charging``  a trion a share c of the time, within bins    f = 1 - c + c m g_trion
``background``         no light of its own                             f = 0
``other``              none of these                                   g anywhere
=====================  ==============================================  =========================

All have the same prior of ln f, and one slack of ln g [1]_ [2]_ [3]_.

References
----------
.. [1] Galland, C. et al. Two types of luminescence blinking revealed by spectroelectrochemistry of
   single quantum dots. Nature 479, 203 (2011), doi:10.1038/nature10569.
.. [2] Frantsuzov, P. A. et al. Model of fluorescence intermittency of single colloidal
   semiconductor quantum dots using multiple recombination centers. Phys. Rev. Lett. 103, 207402
   (2009), doi:10.1103/PhysRevLett.103.207402.
.. [3] Hu, F. et al. Slow Auger recombination of charged excitons in nonblinking perovskite
   nanocrystals without spectral diffusion. Nano Lett. 16, 6425 (2016),
   doi:10.1021/acs.nanolett.6b02874.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.mechanism_kernels import charging_share

__all__ = [
    "MECHANISMS",
    "MechanismPriors",
    "auger_rate_per_ns",
    "charging_shares",
    "radiative_scaling",
]

Array = NDArray[np.float64]

# in the order of the numbers in `mechanism_kernels`
MECHANISMS = (
    "auger", "hot_carrier", "nbc", "unresolved_charging", "background", "other",
)  # fmt: skip


@dataclass(frozen=True)
class MechanismPriors:
    """What is believed of mechanisms before a dot is seen.

    Attributes
    ----------
    slack_median, slack_sigma
        Of the standard deviation of ln g around the place of a mechanism, log-normal; one of a
        dot.
    scaling_median, scaling_sigma
        Of m, log-normal.
    quantum_yield
        Lowest and highest yield of the neutral exciton, uniform between.
    exciton_lifetime_median_ns, exciton_lifetime_sigma
        Of its lifetime, log-normal.
    scatter_median, scatter_sigma
        Of the scatter over the signal of the reference, log-normal.
    biexciton_share_median, biexciton_share_sigma
        Of the light of biexcitons over that of single excitons in the reference, log-normal.
    biexciton_lifetime_median_ns, biexciton_lifetime_sigma
        Of their lifetime, log-normal.
    after_biexciton_median, after_biexciton_sigma
        Of the share of single excitons' light that comes after a biexciton of the same pulse, and
        so begins when that has gone; log-normal.
    afterpulsing_median, afterpulsing_sigma
        Of the share of a state's counts that are afterpulses, log-normal.
    weights
        Of the mechanisms of a state, by name; they need not add up to 1.
    weights_concentration
        The weights of one dot are Dirichlet with these as their mean, and this concentration.
    """

    slack_median: float = 0.1
    slack_sigma: float = 0.3
    scaling_median: float = 2.0
    scaling_sigma: float = 0.2
    quantum_yield: tuple[float, float] = (0.3, 1.0)
    exciton_lifetime_median_ns: float = 6.0
    exciton_lifetime_sigma: float = 1.5
    scatter_median: float = 0.002
    scatter_sigma: float = 2.0
    biexciton_share_median: float = 0.01
    biexciton_share_sigma: float = 1.5
    biexciton_lifetime_median_ns: float = 0.1
    biexciton_lifetime_sigma: float = 0.7
    after_biexciton_median: float = 0.06
    after_biexciton_sigma: float = 1.0
    afterpulsing_median: float = 0.002
    afterpulsing_sigma: float = 1.5
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MECHANISMS, 1.0))
    weights_concentration: float = 6.0

    def packed(self) -> Array:
        """Return the numbers that the kernels take, with the median slack."""
        return np.array(
            [self.slack_median, self.scaling_median, self.scaling_sigma, *self.quantum_yield]
        )

    def concentrations(self) -> tuple[float, ...]:
        """Return those of the Dirichlet prior of the weights, by mechanism."""
        weights = np.array([max(self.weights[name], 1e-12) for name in MECHANISMS])
        return tuple((self.weights_concentration * weights / weights.sum()).tolist())


def radiative_scaling(
    log_r: Array, slack: Array | float, priors: MechanismPriors, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the radiative scaling m of trions whose ln R is known up to the slack.

    Parameters
    ----------
    log_r
        ln R, of any shape.
    slack
        Of that shape, or one that broadcasts to it.
    priors
        Prior of m.
    rng
        Source of the draws.
    """
    inside, around = np.asarray(slack) ** -2.0, priors.scaling_sigma**-2
    centre = np.log(priors.scaling_median)
    mean = (inside * log_r + around * centre) / (inside + around)
    noise = rng.standard_normal(np.shape(log_r)) / np.sqrt(inside + around)
    return np.asarray(np.exp(mean + noise))


def auger_rate_per_ns(
    added_rate_per_ns: Array,
    scaling: Array,
    exciton_lifetime_ns: Array,
    priors: MechanismPriors,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    r"""Draw the Auger rate of trions, :math:`k_A = x - (m - 1) Q_X / t_X`.

    Parameters
    ----------
    added_rate_per_ns
        x, by which each exponential of the exciton's decay is faster in the trion, of any shape;
        of a single one it is :math:`1/t_T - 1/t_X`.
    scaling
        m.
    exciton_lifetime_ns
        t_X.
    priors
        Prior of the yield Q_X, cut where the rate would be negative.
    rng
        Source of the draws.

    Returns
    -------
    ndarray
        Rates per ns, 0 or more.
    """
    low, high = priors.quantum_yield
    extra = added_rate_per_ns * exciton_lifetime_ns
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.where(scaling > 1.0, extra / (scaling - 1.0), high)
    most = np.clip(most, low, high)
    quantum_yield = low + (most - low) * rng.random(np.shape(extra))
    rate = (extra - (scaling - 1.0) * quantum_yield) / exciton_lifetime_ns
    return np.asarray(np.maximum(rate, 0.0))


def charging_shares(
    log_brightness: Array, log_trion_lifetime: Array, scaling: float
) -> NDArray[np.float64]:
    """Share of the time in which states are charged, by :math:`f = 1 - c + c m g`.

    Parameters
    ----------
    log_brightness
        ln f.
    log_trion_lifetime
        ln g of the trion, of the same shape.
    scaling
        m.

    Returns
    -------
    ndarray
        c; 0 where no trion makes the state that bright.
    """
    pairs = np.broadcast(log_brightness, log_trion_lifetime)
    shares = [charging_share(float(u), float(v), scaling) for u, v in pairs]
    return np.array(shares, dtype=np.float64).reshape(pairs.shape)
