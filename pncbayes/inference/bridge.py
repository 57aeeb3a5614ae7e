"""Bridge sampling: evidence from draws of a density and draws of the posterior together.

Importance sampling alone needs a density with heavier tails than the posterior in every direction;
with draws of the posterior, too, it is enough that the two overlap.

References
----------
.. [1] Meng, X.-L.; Wong, W. H. Simulating ratios of normalizing constants via a simple identity.
   Stat. Sinica 6, 831 (1996).
.. [2] Frühwirth-Schnatter, S. Estimating marginal likelihoods for mixture and Markov switching
   models using bridge sampling techniques. Econom. J. 7, 143 (2004),
   doi:10.1111/j.1368-423X.2004.00125.x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

__all__ = ["bridge"]

Array = NDArray[np.float64]

_MOST_STEPS, _EXACT = 500, 1e-8


def bridge(at_posterior: Array, at_density: Array, n_effective: float) -> tuple[float, float]:
    """Log of the integral of a density that is not normalised, and its standard error.

    Parameters
    ----------
    at_posterior
        Log of it over the normalised density, at draws of its own, shape ``(n_posterior,)``.
    at_density
        The same at draws of the normalised density, shape ``(n_density,)``; may be minus infinity.
    n_effective
        Independent draws that those of the posterior are worth: they come from chains.

    Returns
    -------
    log_integral, error : float
        The optimal estimate [1]_, and its error as far as the draws show [2]_.
    """
    n_own, n_other = max(n_effective, 1.0), at_density.size
    odds = np.log(n_own) - np.log(n_other)
    value = float(logsumexp(at_density) - np.log(n_other))
    for _ in range(_MOST_STEPS):
        # shares of the two densities at each draw, in logs
        of_density = at_density - np.logaddexp(odds + at_density - value, 0.0)
        of_posterior = -np.logaddexp(odds + at_posterior - value, 0.0)
        before = value
        value = float(logsumexp(of_density) - np.log(n_other))
        value -= float(logsumexp(of_posterior) - np.log(at_posterior.size))
        if abs(value - before) < _EXACT:
            break
    own = expit(-(odds + at_posterior - value))
    other = expit(odds + at_density - value)
    variance = other.var() / other.mean() ** 2 / n_other + own.var() / own.mean() ** 2 / n_own
    return value, float(np.sqrt(variance))
